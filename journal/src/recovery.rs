//! What a journal's files say, and what may be cut: nothing here writes.
//!
//! A crash may leave the last writes torn, lost or reordered, but only those that no `sync` covered. Corruption may be anywhere.
//! The two look alike, and must not be treated alike: the tail of a crash was never acknowledged and can go; a damaged
//! frame that was durable may have been acknowledged, and only its owner can get it back, from a peer. What tells them
//! apart is written down elsewhere (Alagappan et al., *Protocol-Aware Recovery for Consensus-Based Storage*, FAST 2018): each frame
//! carries `durable_end`, and a segment is made visible only when all before it is durable. So:
//!
//! - **vouched** is the highest `durable_end` in any intact frame of the last segment, and the segment's own checkpoint;
//! - bad bytes where frame `q` should be are a *torn tail* if `q` ≥ vouched: everything from there on is cut;
//! - otherwise they are *damage*: the next intact frame is searched for, reading goes on there, nothing is cut.
//!
//! A frame of which only items are bad is a torn tail like bad bytes, or else damage of these items and of no others.
//!
//! After damage, the header of the next intact frame tells what the lost frames did: `first` where they left the log,
//! `truncation_sequence` and `truncated_to` whether they cut it back and how far, so that no item is returned that a lost frame
//! had replaced, and `state_sequence` whether one of them set the owner's state.
//!
//! A sector that cannot be read is damage like bytes that have changed, with one difference: a crash leaves none, so it is never part
//! of a torn tail. Where a frame may have been behind the last intact one and cannot be read, the end is lost.
//!
//! A complete segment may have a *seal*, which spares looking through it: see `seal.rs`. Seals are used only for a journal in which
//! nothing is damaged.

mod replay;

use std::fmt;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use crate::disk::{Disk, DiskFile, OpenMode};
use crate::error::{OpenError, OpenRange, at};
use crate::index::Index;
use crate::journal::JournalOptions;
use crate::recovery::replay::Replay;
use crate::seal::{LastFrame, Seal, Sealed};
use crate::segment::{
    FORMAT_VERSION, FileName, FrameRecord, HeaderFault, SegmentScan, scan, segment_name,
};

/// What was found when a journal was opened.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Recovery {
    /// There was no journal in the directory; it was created.
    pub created: bool,
    /// The owner's state as the last intact frame that carries one has it; `None` if none was ever set.
    pub state: Option<Vec<u8>>,
    /// A later state was set by a frame that is damaged: [`Recovery::state`] is out of date.
    pub state_damaged: bool,
    /// What stood behind the last intact frame is damaged, and nobody knows how much that was. The log is right, but as of an
    /// earlier moment: later batches may have added items, replaced or truncated some, or set another state.
    pub end_lost: bool,
    /// The positions of the items held, damaged ones included.
    pub positions: Range<u64>,
    /// The tail that was cut, if there was one: writes that no sync had covered.
    pub torn: Option<TornTail>,
    /// What is damaged. Unless this is empty the journal is open for reading only, and not a byte of it was changed; but see
    /// [`JournalOptions::repairs`](crate::JournalOptions::repairs).
    pub damaged: Vec<Damage>,
    /// Files in the directory that are no part of the journal and were left alone.
    pub ignored: Vec<String>,
}

/// A tail of un-synced writes.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct TornTail {
    /// The segment, which is the last one.
    pub segment: u64,
    /// The bytes from the end of the last frame that was kept to the last one that is not zero.
    pub bytes: Range<u64>,
    /// Sequence of the first frame that was cut.
    pub sequence: u64,
}

/// Bytes that were durable and do not read back as they were written.
///
/// Where several parts lie between the same two intact frames, each is reported, with the frames and items of the whole gap.
/// An end of [`u64::MAX`] means that it is not known where the range ends.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Damage {
    /// The segment; of several missing ones, the first.
    pub segment: u64,
    /// What is wrong with it.
    pub kind: DamageKind,
    /// The damaged bytes of its file.
    pub bytes: Range<u64>,
    /// Sequences of the frames that are lost. Empty if one lost some of its items only, and its header says which.
    pub frames: Range<u64>,
    /// Positions of the items that are lost. Empty if the lost frames held none that is still part of the log.
    pub items: Range<u64>,
}

/// What kind of damage.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum DamageKind {
    /// The header of a segment. Its frames are found without it.
    SegmentHeader,
    /// One frame or more.
    Frames,
    /// Items of a frame that is intact otherwise.
    Items,
    /// Frames or items, of which the disk does not give back all bytes.
    Unreadable,
    /// Whole segments are missing.
    SegmentsMissing {
        /// The number of the first segment after them.
        end: u64,
    },
}

impl Damage {
    /// Items of a frame of which the rest is intact, of which `items` are part of the log.
    pub(crate) fn of_items(
        scan: &SegmentScan,
        frame: &FrameRecord,
        bytes: Range<u64>,
        items: Range<u64>,
    ) -> Self {
        let is_unreadable = scan.unreadable.touches(&bytes);
        let kind = if is_unreadable { DamageKind::Unreadable } else { DamageKind::Items };
        let sequence = frame.header.sequence;
        Self { segment: scan.number, kind, bytes, frames: sequence..sequence, items }
    }
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.kind {
            DamageKind::SegmentHeader => write!(f, "segment {}: bad header", self.segment)?,
            DamageKind::Frames | DamageKind::Items => {
                write!(f, "segment {}: bad bytes {:?}", self.segment, self.bytes)?;
            }
            DamageKind::Unreadable => {
                write!(f, "segment {}: unreadable bytes {:?}", self.segment, self.bytes)?;
            }
            DamageKind::SegmentsMissing { end } => {
                write!(f, "segments {}..{end} are missing", self.segment)?;
            }
        }
        if self.frames.is_empty() {
            write!(f, " in frame {}", self.frames.start)?;
        } else {
            write!(f, ", frames {} lost", OpenRange(&self.frames))?;
        }
        write!(f, ", items {} lost", OpenRange(&self.items))
    }
}

impl fmt::Display for TornTail {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { segment, bytes, sequence } = self;
        write!(f, "segment {segment}: torn tail in bytes {bytes:?}, from frame {sequence} on")
    }
}

/// The names in a journal's directory, sorted by what they are.
#[derive(Debug, Default)]
pub(crate) struct Listing {
    pub(crate) segments: Vec<u64>,
    pub(crate) has_spare: bool,
    pub(crate) seals: Vec<u64>,
    pub(crate) temporary: Vec<String>,
    pub(crate) ignored: Vec<String>,
}

impl Listing {
    pub(crate) fn read(disk: &dyn Disk, directory: &Path) -> Result<Self, OpenError> {
        let mut listing = Self::default();
        for name in disk.list(directory).map_err(at("listing", directory))? {
            match FileName::of(&name) {
                FileName::Segment(number) => listing.segments.push(number),
                FileName::BadSegment => return Err(OpenError::SegmentName { name }),
                FileName::Spare => listing.has_spare = true,
                FileName::Seal(number) => listing.seals.push(number),
                FileName::Temporary => listing.temporary.push(name),
                FileName::Lock => {}
                FileName::Other => listing.ignored.push(name),
            }
        }
        listing.segments.sort_unstable();
        listing.seals.sort_unstable();
        Ok(listing)
    }
}

/// All that is known about a journal after its files were looked through.
#[derive(Debug)]
pub(crate) struct Recovered {
    pub(crate) recovery: Recovery,
    pub(crate) index: Index,
    /// Segments whose items were given up before a crash kept their files from going.
    pub(crate) obsolete: Vec<u64>,
    pub(crate) first_segment: u64,
    pub(crate) segments: Vec<SegmentFacts>,
    /// Seals that are missing or out of date, made anew.
    pub(crate) seals: Vec<Seal>,
    pub(crate) tail: Tail,
}

/// One segment that is part of the journal.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SegmentFacts {
    pub(crate) number: u64,
    pub(crate) length: u64,
    /// Sequence of the checkpoint that opens it.
    pub(crate) first_sequence: u64,
    /// How often it was replaced.
    pub(crate) generation: u64,
    /// The next position when it was begun.
    pub(crate) begins: u64,
    /// Checksum of its last frame, if it is complete: each frame names that of the one before it, so it stands for all of them.
    pub(crate) checksum: Option<u32>,
}

/// Where the last segment ends: what the writer needs in order to go on.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tail {
    pub(crate) segment: u64,
    /// Where the next frame goes.
    pub(crate) end: u64,
    /// Where the zeros begin that the rest of the file consists of.
    pub(crate) dirty_end: u64,
    /// The bytes of each frame that was perhaps never synced, in order.
    pub(crate) unvouched: Vec<Range<u64>>,
    /// A batch is among them.
    pub(crate) has_unvouched_batch: bool,
    pub(crate) last: LastFrame,
    pub(crate) next_sequence: u64,
    pub(crate) state_sequence: u64,
    pub(crate) truncation_sequence: u64,
    pub(crate) truncated_to: u64,
}

/// Looks through the segments of a journal, but for those that a seal tells of if seals are trusted. The listing names at least one.
pub(crate) fn recover(
    disk: &dyn Disk,
    directory: &Path,
    options: &JournalOptions,
    listing: &Listing,
) -> Result<Recovered, OpenError> {
    let journal = options.id;
    // For writing too: the last of them goes on to be written.
    let mode = if options.read_only { OpenMode::Read } else { OpenMode::ReadWrite };
    let open = |number: u64| -> Result<Arc<dyn DiskFile>, OpenError> {
        let path = directory.join(segment_name(number));
        let file = disk.open(&path, mode).map_err(at("opening", &path))?;
        Ok(Arc::from(file))
    };
    if options.trust_seals {
        let sealed = |number: u64, file: &dyn DiskFile| {
            let is_there = listing.seals.binary_search(&number).is_ok();
            is_there.then(|| Sealed::read(disk, directory, journal, number, file)).flatten()
        };
        let recovered = recover_from(&open, Some(&sealed), directory, journal, listing)?;
        if recovered.recovery.damaged.is_empty() {
            return Ok(recovered);
        }
        // Something does not fit, and seals leave out what a report on it would need.
    }
    recover_by_scan(&open, directory, journal, listing)
}

/// As [`recover`] without any trust, with files from anywhere.
pub(crate) fn recover_by_scan(
    open: Opener<'_>,
    directory: &Path,
    journal: u128,
    listing: &Listing,
) -> Result<Recovered, OpenError> {
    recover_from(open, None, directory, journal, listing)
}

type Opener<'a> = &'a dyn Fn(u64) -> Result<Arc<dyn DiskFile>, OpenError>;

/// Tells what a segment's seal says, if it is to be believed.
type Unsealer<'a> = &'a dyn Fn(u64, &dyn DiskFile) -> Option<Sealed>;

fn recover_from(
    open: Opener<'_>,
    sealed_by: Option<Unsealer<'_>>,
    directory: &Path,
    journal: u128,
    listing: &Listing,
) -> Result<Recovered, OpenError> {
    let scan_segment = |file: &dyn DiskFile, number: u64, lowest: u64| {
        let path = directory.join(segment_name(number));
        let scan = scan(file, journal, number, lowest).map_err(at("reading", &path))?;
        match scan.header {
            Err(HeaderFault::OtherJournal(found)) => {
                Err(OpenError::OtherJournal { segment: number, found, expected: journal })
            }
            Err(HeaderFault::Version(version)) => {
                Err(OpenError::Version { segment: number, version, newest: FORMAT_VERSION })
            }
            Ok(_) | Err(HeaderFault::Damaged) => Ok(scan),
        }
    };
    let (sealed, last) = match listing.segments.split_last() {
        Some((last, sealed)) => (sealed, *last),
        None => (&[][..], 0),
    };
    // The last segment first: it tells which of the others were given up.
    let last_file = open(last)?;
    let mut last_scan = scan_segment(&*last_file, last, 0)?;
    let given_up_below =
        |scan: &SegmentScan| scan.frames().filter_map(|frame| frame.first_segment).max();
    let mut first_segment = given_up_below(&last_scan);
    // If its checkpoint is lost, the ones before it say what was given up earlier. A bound that is too low is safe: what was given
    // up later counts as missing or as still there. None at all would be written down as "nothing was given up yet".
    for number in sealed.iter().rev() {
        if first_segment.is_some() {
            break;
        }
        first_segment = given_up_below(&scan_segment(&*open(*number)?, *number, 0)?);
    }
    let first_segment = first_segment.unwrap_or(0);

    let mut replay = Replay::default();
    let mut seals = Vec::new();
    let (obsolete, sealed) = sealed.split_at(sealed.partition_point(|n| *n < first_segment));
    replay.missing(first_segment.max(1), *sealed.first().unwrap_or(&last), first_segment > 0);
    for number in sealed {
        let file = open(*number)?;
        let sealed = sealed_by.and_then(|sealed_by| sealed_by(*number, &*file));
        if let Some(sealed) = sealed.filter(|sealed| replay.fits(sealed)) {
            replay.by_seal(&sealed, file);
            continue;
        }
        let scan = scan_segment(&*file, *number, replay.expected())?;
        replay.sealed(&scan, file);
        if sealed_by.is_some() {
            seals.extend(replay.seal(journal));
        }
    }
    let lowest = replay.expected();
    if last_scan.frames().any(|frame| frame.header.sequence < lowest) {
        last_scan = scan_segment(&*last_file, last, lowest)?;
    }
    replay.missing(replay.next_number.unwrap_or(last), last, true);
    let (torn, tail) = replay.last(&last_scan, last_file);

    let (state, state_damaged) = replay.load_state(journal);
    Ok(Recovered {
        recovery: Recovery {
            created: false,
            state,
            state_damaged,
            end_lost: replay.end_lost,
            positions: replay.index.positions(),
            torn,
            damaged: replay.damage,
            ignored: listing.ignored.clone(),
        },
        index: replay.index,
        obsolete: obsolete.to_vec(),
        first_segment: first_segment.max(1),
        segments: replay.segments,
        seals,
        tail,
    })
}
