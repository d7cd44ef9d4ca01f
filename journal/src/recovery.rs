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
//! A complete segment may have a *seal*, which spares looking through it: see `seal.rs`. Seals are used only for a journal in which
//! nothing is damaged.
//!
//! After damage, the header of the next intact frame tells what the lost frames did: `first` where they left the log,
//! `truncation_sequence` and `truncated_to` whether they cut it back and how far, so that no item is returned that a lost frame
//! had replaced, and `state_sequence` whether one of them set the owner's state.

use std::fmt;
use std::io;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use crate::disk::{Disk, DiskFile, OpenMode};
use crate::error::{OpenError, OpenRange, at};
use crate::frame::{Body, Frame, FrameKind, NOT_TRUNCATED, Place};
use crate::index::Index;
use crate::runs::Runs;
use crate::seal::{LastFrame, Seal, Sealed};
use crate::segment::{
    FORMAT_VERSION, FileName, Found, FrameRecord, HeaderFault, SEGMENT_HEADER_LENGTH, SegmentScan,
    in_memory, scan, segment_name,
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
    /// What is damaged. Unless this is empty the journal is open for reading only, and not a byte of it was changed.
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
    /// Sequences of the frames that are lost.
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
    /// Whole segments are missing.
    SegmentsMissing {
        /// The number of the first segment after them.
        end: u64,
    },
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.kind {
            DamageKind::SegmentHeader => write!(f, "segment {}: bad header", self.segment)?,
            DamageKind::Frames => {
                write!(f, "segment {}: bad bytes {:?}", self.segment, self.bytes)?;
            }
            DamageKind::SegmentsMissing { end } => {
                write!(f, "segments {}..{end} are missing", self.segment)?;
            }
        }
        write!(f, ", frames {} lost", OpenRange(&self.frames))?;
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
}

/// Where the last segment ends: what the writer needs in order to go on.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tail {
    pub(crate) segment: u64,
    /// Where the next frame goes.
    pub(crate) end: u64,
    /// Where the zeros begin that the rest of the file consists of.
    pub(crate) dirty_end: u64,
    /// The frames from here to the end were perhaps never synced.
    pub(crate) unvouched_from: u64,
    /// A batch is among them.
    pub(crate) has_unvouched_batch: bool,
    pub(crate) last: LastFrame,
    pub(crate) next_sequence: u64,
    pub(crate) state_sequence: u64,
    pub(crate) truncation_sequence: u64,
    pub(crate) truncated_to: u64,
}

/// Looks through the segments of a journal, but for those that a seal tells of if `trust_seals`. The listing names at least one.
pub(crate) fn recover(
    disk: &dyn Disk,
    directory: &Path,
    journal: u128,
    listing: &Listing,
    trust_seals: bool,
) -> Result<Recovered, OpenError> {
    let open = |number: u64| -> Result<Arc<dyn DiskFile>, OpenError> {
        let path = directory.join(segment_name(number));
        // For writing too: the last of them goes on to be written.
        let file = disk.open(&path, OpenMode::ReadWrite).map_err(at("opening", &path))?;
        Ok(Arc::from(file))
    };
    if trust_seals {
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
    let first_segment =
        last_scan.frames().filter_map(|frame| frame.first_segment).max().unwrap_or(0);

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

    let (state, state_damaged) = replay.load_state(journal).map_err(at("reading", directory))?;
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

/// The log, put together again frame by frame.
#[derive(Debug, Default)]
struct Replay {
    index: Index,
    segments: Vec<SegmentFacts>,
    /// The last intact frame.
    last: Option<FrameRecord>,
    /// Number of the segment that must come next; `None` before the first.
    next_number: Option<u64>,
    /// The sequence with which the first segment begins.
    begins: Option<u64>,
    /// The segment looked at last, and the bytes behind its frames.
    padding: Option<(u64, Range<u64>)>,
    /// Parts of the gap that is open: bytes that are no frames, since the last intact one.
    gap: Vec<(u64, DamageKind, Range<u64>)>,
    damage: Vec<Damage>,
    /// The frame that carries the latest state that could be read, and the sequence of the batch that set it.
    state: Option<FrameRecord>,
    end_lost: bool,
}

impl Replay {
    /// The sequence that the next frame must have; 0 if that is not known.
    fn expected(&self) -> u64 {
        match &self.last {
            Some(last) => last.header.sequence.saturating_add(1),
            None => self.begins.unwrap_or(0),
        }
    }

    /// Notes that segments are missing, if `found` comes where `expected` should.
    fn missing(&mut self, expected: u64, found: u64, known: bool) {
        if known && expected < found {
            self.gap.push((expected, DamageKind::SegmentsMissing { end: found }, 0..0));
        }
    }

    /// Takes in a segment that is not the last one: all its frames were durable.
    fn sealed(&mut self, scan: &SegmentScan, file: Arc<dyn DiskFile>) {
        self.missing(self.next_number.unwrap_or(scan.number), scan.number, true);
        self.enter(scan, file);
        for found in &scan.found {
            match found {
                Found::Bad(bytes) => self.bad(scan.number, bytes.clone()),
                Found::Frame(frame) => self.frame(frame),
            }
        }
        if scan.found.is_empty() {
            self.bad(scan.number, scan.end..scan.length.max(scan.end));
        }
    }

    /// What a seal says goes on from what came before, without a gap in sequences, positions or segments.
    fn fits(&self, sealed: &Sealed) -> bool {
        let Sealed { header, seal, .. } = sealed;
        let sound = self.gap.is_empty() && self.damage.is_empty();
        let follows = match &self.last {
            None => true,
            Some(_) => {
                self.next_number == Some(header.number)
                    && self.expected() == header.first_sequence
                    && self.index.end() == seal.begins
            }
        };
        let starts = match sealed.cuts_to() {
            0 => true,
            cuts_to => seal.start == cuts_to.min(seal.begins),
        };
        sound && follows && starts
    }

    /// Takes in a segment without looking through it; its seal fits.
    fn by_seal(&mut self, sealed: &Sealed, file: Arc<dyn DiskFile>) {
        let Sealed { header, last, seal } = sealed;
        if self.last.is_none() {
            self.begins = Some(header.first_sequence);
            self.index.runs = Runs::new(seal.begins);
        }
        match sealed.cuts_to() {
            0 => self.index.restart(seal.start),
            cuts_to if cuts_to < seal.begins => self.index.truncate(cuts_to),
            _ => {}
        }
        self.index.runs.extend(&seal.runs);
        let number = header.number;
        self.segments.push(SegmentFacts {
            number,
            length: seal.length,
            first_sequence: header.first_sequence,
            generation: header.generation,
            begins: seal.begins,
        });
        self.index.files.insert(number, file);
        self.next_number = number.checked_add(1);
        self.padding = Some((number, last.end()..seal.length));
        self.last = Some(last.clone());
    }

    /// The seal of the segment taken in last, unless anything is damaged.
    fn seal(&self, journal: u128) -> Option<Seal> {
        let sound = self.gap.is_empty() && self.damage.is_empty();
        let (facts, last) = (self.segments.last()?, self.last.as_ref()?);
        let SegmentFacts { number, generation, length, begins, .. } = *facts;
        let last = LastFrame::of(last);
        let seal =
            || Seal::new(journal, number, generation, length, last, begins, &self.index.runs);
        sound.then(seal)
    }

    /// Takes in the last segment, of which a tail may be cut.
    fn last(&mut self, scan: &SegmentScan, file: Arc<dyn DiskFile>) -> (Option<TornTail>, Tail) {
        self.enter(scan, file);
        // The file never shrinks: if it did, it is not known what was lost.
        let declared = scan.header.map_or(0, |header| header.length);
        let shrunk = scan.length < declared;
        let checkpoint = scan.header.map_or(self.expected(), |header| header.first_sequence);
        let vouched = scan.frames().map(|frame| frame.header.durable_end).max().unwrap_or(0);
        let vouched = vouched.max(checkpoint.saturating_add(1));

        let mut end = SEGMENT_HEADER_LENGTH.min(scan.length);
        let (mut unvouched_from, mut has_unvouched_batch) = (end, false);
        for found in &scan.found {
            match found {
                Found::Bad(_) if !shrunk && self.gap.is_empty() && self.expected() >= vouched => {
                    break;
                }
                Found::Bad(bytes) => self.bad(scan.number, bytes.clone()),
                Found::Frame(frame) => {
                    self.frame(frame);
                    end = frame.end();
                    if frame.header.sequence < vouched {
                        unvouched_from = end;
                    } else if frame.header.kind == FrameKind::Batch {
                        has_unvouched_batch = true;
                    }
                }
            }
        }
        let next = self.expected();
        let torn = if shrunk || !self.gap.is_empty() || next < vouched {
            self.lost_tail(scan.number, end..scan.dirty_end.max(declared));
            None
        } else {
            let torn =
                TornTail { segment: scan.number, bytes: end..scan.dirty_end, sequence: next };
            (!torn.bytes.is_empty()).then_some(torn)
        };
        let tail = Tail {
            segment: scan.number,
            end,
            dirty_end: scan.dirty_end,
            unvouched_from,
            has_unvouched_batch,
            ..self.tail()
        };
        (torn, tail)
    }

    /// What the last frame says to the next one.
    fn tail(&self) -> Tail {
        let Some(last) = &self.last else { return Tail::default() };
        let truncated_to = match last.header.kind {
            // A checkpoint speaks of the segment before its own.
            FrameKind::Checkpoint => NOT_TRUNCATED,
            FrameKind::Batch | FrameKind::Mark => last.header.truncated_to,
        };
        Tail {
            last: LastFrame::of(last),
            next_sequence: self.expected(),
            state_sequence: last.header.state_sequence,
            truncation_sequence: last.header.truncation_sequence,
            truncated_to,
            ..Tail::default()
        }
    }

    /// Begins a segment: what its header says.
    fn enter(&mut self, scan: &SegmentScan, file: Arc<dyn DiskFile>) {
        let expected = self.expected();
        match scan.header {
            Ok(header) => {
                if self.gap.is_empty() && self.padding.is_some() && expected < header.first_sequence
                {
                    self.lost_padding();
                }
                if self.segments.is_empty() && self.gap.is_empty() {
                    self.begins = Some(header.first_sequence);
                }
            }
            Err(_) => self.damage.push(Damage {
                segment: scan.number,
                kind: DamageKind::SegmentHeader,
                bytes: 0..SEGMENT_HEADER_LENGTH,
                frames: expected..expected,
                items: self.index.end()..self.index.end(),
            }),
        }
        let (number, length) = (scan.number, scan.length);
        self.segments.push(SegmentFacts {
            number,
            length,
            first_sequence: scan.header.map_or(expected, |header| header.first_sequence),
            generation: scan.header.map_or(0, |header| header.generation),
            begins: scan.frames().next().map_or(self.index.end(), |frame| frame.header.first),
        });
        self.index.files.insert(scan.number, file);
        self.next_number = scan.number.checked_add(1);
        self.padding = Some((scan.number, scan.end..scan.length.max(scan.end)));
    }

    /// The frames that should stand at the end of the segment before are gone.
    fn lost_padding(&mut self) {
        if let Some((segment, bytes)) = self.padding.clone() {
            self.bad(segment, bytes);
        }
    }

    fn bad(&mut self, segment: u64, bytes: Range<u64>) {
        self.gap.push((segment, DamageKind::Frames, bytes));
    }

    fn frame(&mut self, frame: &FrameRecord) {
        let follows = self.last.is_none() || self.expected() == frame.header.sequence;
        if !follows && self.gap.is_empty() {
            self.lost_padding();
        }
        // No frame that this crate wrote fails this; but a file is input like any other.
        if self.last.is_some() && self.gap.is_empty() && !self.continues(frame) {
            self.bad(frame.segment, frame.offset..frame.offset);
        }
        if !self.gap.is_empty() {
            self.close_gap(frame);
        } else if self.last.is_none() {
            self.index.runs = Runs::new(frame.header.first);
        }
        self.apply(frame);
    }

    fn continues(&self, frame: &FrameRecord) -> bool {
        let first = frame.header.first;
        let end = self.index.end();
        frame.restarts || first == end || (frame.truncates && first < end)
    }

    /// Finds out what the frames between the last intact one and this one held.
    fn close_gap(&mut self, next: &FrameRecord) {
        let first = next.header.first;
        let lost_from = match &self.last {
            // The checkpoint that opens the first segment holds no items.
            None if self.lost_only_checkpoint(next) => first,
            None => next.start.unwrap_or(0),
            Some(last) if next.header.truncation_sequence <= last.header.sequence => {
                self.index.end()
            }
            Some(last) => {
                let next_segment = last.segment.checked_add(1) == Some(next.segment);
                let is_checkpoint = next.header.kind == FrameKind::Checkpoint;
                let covered = last.segment == next.segment || (next_segment && is_checkpoint);
                let back_to = if covered { next.header.truncated_to } else { 0 };
                back_to.max(self.index.positions().start).min(self.index.end())
            }
        };
        let items = lost_from.min(first)..first;
        self.index.damage(items.clone());
        let frames = self.expected()..next.header.sequence;
        self.report(&frames, &items);
    }

    fn lost_only_checkpoint(&self, next: &FrameRecord) -> bool {
        let begins = self.begins.map(|begins| begins.saturating_add(1));
        begins == Some(next.header.sequence) && self.segments.len() == 1
    }

    /// What is bad goes on to the end, and how much was there is not known.
    fn lost_tail(&mut self, segment: u64, bytes: Range<u64>) {
        self.bad(segment, bytes);
        let frames = self.expected()..u64::MAX;
        let items = self.index.end()..u64::MAX;
        self.index.damaged.push(items.clone());
        self.end_lost = true;
        self.report(&frames, &items);
    }

    fn report(&mut self, frames: &Range<u64>, items: &Range<u64>) {
        for (segment, kind, bytes) in self.gap.drain(..) {
            let (frames, items) = (frames.clone(), items.clone());
            self.damage.push(Damage { segment, kind, bytes, frames, items });
        }
    }

    fn apply(&mut self, frame: &FrameRecord) {
        let first = frame.header.first;
        if frame.restarts {
            self.index.restart(first);
        } else if frame.truncates {
            self.index.truncate(first);
        }
        if frame.header.kind == FrameKind::Batch {
            self.index.push(&frame.place());
        }
        if frame.has_state {
            self.state = Some(frame.clone());
        }
        self.last = Some(frame.clone());
    }

    /// The latest state that could be read, and whether a later one was lost.
    fn load_state(&self, journal: u128) -> io::Result<(Option<Vec<u8>>, bool)> {
        let known = self.state.as_ref().map_or(0, |frame| frame.header.state_sequence);
        let newest = self.last.as_ref().map_or(0, |frame| frame.header.state_sequence);
        let lost = self.end_lost || known != newest;
        let Some(frame) = &self.state else { return Ok((None, lost)) };
        let Some(file) = self.index.files.get(&frame.segment) else { return Ok((None, true)) };
        let mut bytes = vec![0; in_memory(frame.length)?];
        if file.read_at(&mut bytes, frame.offset)? != bytes.len() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let place = Place { journal, segment: frame.segment, offset: frame.offset };
        let state = match Frame::read(&bytes, place).map(|frame| frame.body) {
            Some(Body::Batch(body)) => body.state,
            Some(Body::Checkpoint { state, .. }) => state,
            Some(Body::Mark { .. }) | None => return Err(io::ErrorKind::InvalidData.into()),
        };
        Ok((state.map(<[u8]>::to_vec), lost))
    }
}
