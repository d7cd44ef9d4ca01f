//! An append-only, segmented log over a [`Disk`]: the one on-disk log of Lattice, for Raft's log and for the event log.
//!
//! # What it promises
//!
//! - **A batch is whole or not there.** What is appended as one [`Batch`] (a truncation, items, the owner's new state) becomes
//!   durable as one frame, and is recovered as one frame.
//! - **What was synced stays.** Once [`Journal::sync`] has returned, every batch appended before is found again when the journal is
//!   opened, after any crash; or else the disk has lost it, and then it is reported as damaged.
//! - **Damage is never taken for a torn write, nor cut away.** Recovery cuts only what no sync can have covered. What was durable and
//!   does not read back is reported as ranges of bytes, frames and items, and the journal is open for reading only, so that the
//!   owner can get the lost items from a peer.
//! - **Nothing is invented.** Every item is read under a checksum that binds it to its journal and its place in it. An item
//!   that a lost frame may have replaced counts as lost.
//! - **A full disk is no failure, a failed sync is.** Space is allocated before it is needed, and where there is none the append is
//!   refused and can be tried again. After a write or a sync that failed inside allocated space the journal is poisoned.
//!
//! # How
//!
//! A journal is a directory of *segments*, files of allocated zeros that are filled with *frames* one after the other. Each segment
//! begins with a *checkpoint*, from which the log can be read without the segments before it, so that these can be dropped. A
//! frame carries a batch, and the sequence `durable_end` below which every frame was durable when it was made; a *mark* frame
//! carries only that. The highest such claim in an intact frame divides what may be torn from what must not be. See `recovery.rs` for
//! the rule, `frame.rs` and `docs/formats.md` for the bytes, `journal/rotation.rs` for how a segment begins.
//!
//! Where the items stand is kept in memory as *runs* of frames, a few tenths of a byte an item (`runs.rs`). A log of many segments is
//! opened without looking through them if their *seals* are trusted, small files on which nothing depends (`seal.rs`). What takes long
//! is done beside the writer: [`Rewriter`] rewrites a segment, [`PendingSeal`] writes a seal, [`Reader::verify`] looks for damage.
//!
//! ```
//! use std::sync::Arc;
//! use lattice_journal::{Batch, Journal, JournalOptions, MemoryDisk};
//!
//! let disk = Arc::new(MemoryDisk::new());
//! let (mut journal, recovery) = Journal::open(disk.clone(), "log", JournalOptions::new(7))?;
//! assert!(recovery.created);
//!
//! journal.append(&Batch { first: 1, items: vec!["put a", "put b"], ..Batch::default() })?;
//! journal.append(&Batch::<&str> { state: Some(b"term 2".to_vec()), ..Batch::default() })?;
//! journal.sync()?; // one write and one fdatasync for both
//! drop(journal);
//!
//! let (journal, recovery) = Journal::open(disk, "log", JournalOptions::new(7))?;
//! assert_eq!(recovery.positions, 1..3);
//! assert_eq!(recovery.state.as_deref(), Some(&b"term 2"[..]));
//! assert_eq!(journal.reader().read(1..3, 1024)?[1].bytes, b"put b");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Caveats
//!
//! - A disk that acknowledges a sync and forgets it can take back the last frames without a trace, as long as no later frame that
//!   vouches for them survived. Only a peer remembers then. The same goes for the loss of the *last* segment's file.
//! - A segment is allocated, not filled with zeros beforehand: file systems that copy on write give no promise of space. The first write
//!   to each block costs the file system a record of its own, with which a sync takes nearly twice as long; so zeros are written ahead of
//!   small batches, 256 KiB at a time, and such bytes go to the disk twice.
//! - Reading one item reads up to 32 KiB around it, or its whole batch if that is longer.
//! - With [`JournalOptions::trust_seals`], damage in a complete segment is found when it is read, and not when the journal is opened:
//!   the journal then opens for writing. Who wants to know calls [`Reader::verify_all`] now and then.
//! - A segment that is rewritten, and one that is looked through, takes memory in proportion to its length or the number of its
//!   frames for that time.

mod batch;
pub mod disk;
mod error;
mod frame;
mod index;
mod inspect;
mod journal;
mod reader;
mod recovery;
mod runs;
mod seal;
mod segment;
mod status;
mod unreadable;
mod verify;

pub use batch::{Batch, Encode};
pub use disk::{Disk, DiskFile, DiskLock, MemoryDisk, OpenMode, RealDisk};
pub use error::{AppendError, Fatal, JournalError, OpenError, ReadError, TooLarge};
pub use inspect::{InspectError, Inspection, inspect};
pub use journal::{Journal, JournalOptions, Prepared, Replace, Rewriter, SegmentInfo};
pub use reader::{Item, Reader};
pub use recovery::{Damage, DamageKind, Recovery, TornTail};
pub use seal::PendingSeal;
pub use segment::FORMAT_VERSION;
pub use status::Status;
