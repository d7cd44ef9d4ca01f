//! An append-only, segmented log over a [`Disk`].
mod batch;
pub mod disk;
mod error;
mod frame;
mod index;
mod journal;
mod reader;
mod recovery;
mod segment;
mod status;

pub use batch::Batch;
pub use disk::{Disk, DiskFile, DiskLock, MemoryDisk, OpenMode, RealDisk};
pub use error::{AppendError, Fatal, JournalError, OpenError, ReadError, TooLarge};
pub use frame::FrameKind;
pub use journal::{Journal, JournalOptions, Replace, SegmentInfo};
pub use reader::{Item, Reader};
pub use recovery::{Damage, DamageKind, Recovery, TornTail};
pub use segment::FORMAT_VERSION;
pub use status::Status;
