//! The writer: a plain struct without threads or clocks, which one owner drives.
//!
//! [`Journal::append`] turns a batch into a frame in memory, [`Journal::append_all`] several, all or none; [`Journal::sync`] writes all
//! that queued with one write and makes it durable with one `sync_data`. Group commit follows by itself: what is appended while a sync
//! runs elsewhere goes with the next.
//!
//! Only three things change what is on disk otherwise: [`rotation`] begins a new segment, [`compaction`] drops old ones, and
//! [`rewriting`] replaces one. Nothing is ever written over bytes that hold a frame. [`sealing`] adds what makes the next opening
//! fast.

mod compaction;
mod opening;
mod rewriting;
mod rotation;
mod sealing;

pub use rewriting::{Prepared, Replace, Rewriter};

use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::slice;
use std::sync::Arc;

use crate::batch::{Batch, Encode};
use crate::disk::{Disk, DiskFile, OpenMode};
use crate::error::{AppendError, Fatal, JournalError, TooLarge};
use crate::frame::{
    self, FrameHeader, FrameKind, MARK_LENGTH, NOT_TRUNCATED, Place, batch_frame_length, to_u64,
};
use crate::reader::{Reader, Shared};
use crate::recovery::SegmentFacts;
use crate::runs::FrameRef;
use crate::seal::{Home, LastFrame, Seal};
use crate::status::Status;

/// Bytes that queue before they are written ahead of the sync that will cover them.
const QUEUED_MAX: usize = 1 << 20;
/// The queue keeps memory for this many bytes, or for as many as it held last.
const QUEUE_KEPT: usize = 4 * QUEUED_MAX;
/// Before a write of at most this many bytes goes to blocks that were never written, more of them are made ready.
const SMALL_WRITE: usize = 32 << 10;
/// So many bytes of them.
const READY_AT_ONCE: u64 = 256 << 10;
/// Room at the end of a segment that batches leave for marks, which compaction needs even when the disk is full.
const RESERVED: u64 = 4 * MARK_LENGTH;
/// Of which idle marks leave this.
const RESERVED_FOR_COMPACTION: u64 = 2 * MARK_LENGTH;
/// The state and its copy have this many bytes between them, once the log has grown by as much: so that no disk's block holds both.
const STATE_APART: u64 = 16 << 10;
/// No frame is longer, so that checkpoints of any state of a batch have a length of 32 bits too.
const FRAME_LENGTH_MAX: u64 = (1 << 32) - 4096;

/// How a journal is laid out, and its limits.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct JournalOptions {
    /// Identity of the journal: drawn at random by the owner when it creates it, and checked whenever it is opened.
    pub id: u128,
    /// Length of the first segment in bytes. Each one after it is twice as long, up to the maximum. A frame that fits in no
    /// such segment gets a longer one.
    pub segment_size: u64,
    /// Length of segments in bytes at which the doubling ends.
    pub segment_size_max: u64,
    /// The longest item in bytes.
    pub item_size_max: u64,
    /// The longest frame of a batch in bytes; a little less than `u32::MAX` at most.
    pub batch_size_max: u64,
    /// Keep a *seal* for each complete segment, and do not look through those that have one when the journal is opened. Damage in
    /// them is then found when they are read ([`ReadError::Corrupt`](crate::ReadError::Corrupt)) or verified
    /// ([`Reader::verify`]), and not when the journal is opened.
    pub trust_seals: bool,
    /// The owner repairs what is damaged: the journal is open for writing although items are lost, as long as its end is known. The
    /// owner gets the lost items from elsewhere and puts them back with [`Journal::mend`].
    pub repairs: bool,
    /// Change nothing in the directory. A journal must be there; it is open for reading only, and what opening it for writing would
    /// cut or remove stays and is reported. Nobody else may have the journal open all the same; where the files can only
    /// be read that is not looked at.
    pub read_only: bool,
}

impl JournalOptions {
    /// The usual sizes: segments of 4 MiB that double to 64 MiB, items up to 64 MiB, batches up to 128 MiB.
    #[must_use]
    pub fn new(id: u128) -> Self {
        const MIB: u64 = 1 << 20;
        Self {
            id,
            segment_size: 4 * MIB,
            segment_size_max: 64 * MIB,
            item_size_max: 64 * MIB,
            batch_size_max: 128 * MIB,
            trust_seals: false,
            repairs: false,
            read_only: false,
        }
    }
}

/// A segment as [`Journal::segments`] lists it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct SegmentInfo {
    /// Its number.
    pub number: u64,
    /// Length of its file in bytes.
    pub length: u64,
    /// Positions of the durable items in it that are part of the log.
    pub positions: Range<u64>,
    /// It is complete; only the last one is not.
    pub sealed: bool,
    /// How often it was replaced.
    pub generation: u64,
    /// Stands for all that is in it, if it is complete: the checksum of its last frame, into which those of all others go. Whoever
    /// keeps a file of its own about the segment notes it there, and knows it again.
    pub checksum: Option<u32>,
}

/// An open journal. Dropping it without [`Journal::close`] loses what was not synced, as a crash would.
#[derive(Debug)]
pub struct Journal {
    home: Home,
    options: JournalOptions,
    shared: Arc<Shared>,
    status: Status,
    access: Access,
    segments: Vec<SegmentFacts>,
    /// Segments below this one were given up.
    first_segment: u64,
    active: Active,
    spare: Option<Spare>,
    /// Seals of complete segments that are not written yet.
    seals: Vec<Seal>,
    /// How many replacements of segments were begun.
    attempts: u64,
    /// Frames that are not written yet: the bytes of the active segment from `active.written` on.
    queued: Vec<u8>,
    /// What the frames since the last sync change in the index.
    changes: Vec<Change>,
    /// Positions held, with those that are not durable yet.
    positions: Range<u64>,
    state: Option<Vec<u8>>,
    next_sequence: u64,
    /// All frames below this sequence are durable.
    durable_end: u64,
    /// Sequence of the last batch.
    last_batch: u64,
    /// All frames below this sequence are vouched for by a durable frame.
    vouched: u64,
    /// The last frame of the active segment, written or not.
    last: LastFrame,
    state_sequence: u64,
    /// Where in the active segment the frame ends that set the state, or the checkpoint that repeats it.
    state_end: u64,
    /// Where the state stands once more.
    state_copy: StateCopy,
    truncation_sequence: u64,
    truncated_to: u64,
}

/// Whether the state is in the active segment a second time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum StateCopy {
    None,
    /// It is, but perhaps in the same block of the disk: that helps against a flipped bit, not against a bad sector.
    Near,
    /// It is, [`STATE_APART`] or further on.
    Apart,
}

/// What may still be done with the journal.
#[derive(Debug)]
enum Access {
    Write,
    /// Damage was found, and repairing it is up to the owner; or nothing was to be changed.
    ReadOnly,
    Failed(Fatal),
}

/// The segment that is being written.
#[derive(Debug)]
struct Active {
    number: u64,
    path: PathBuf,
    file: Arc<dyn DiskFile>,
    length: u64,
    /// Where the next frame goes.
    end: u64,
    /// Up to where frames were written.
    written: u64,
    /// Up to where the file's blocks were made ready for small writes.
    ready: u64,
}

#[derive(Debug)]
struct Spare {
    file: Arc<dyn DiskFile>,
    length: u64,
}

/// A change of the index that waits for its frame to be durable.
#[derive(Debug)]
enum Change {
    Truncate(u64),
    Restart(u64),
    Push(FrameRef),
    Mend(FrameRef),
}

impl Journal {
    /// Appends a batch as one atomic unit. It is durable after the next [`Journal::sync`] that succeeds.
    ///
    /// # Errors
    ///
    /// A refused batch leaves the journal as it was: it is too large, does not fit the positions, or the disk is full
    /// ([`AppendError::NoSpace`], which may be tried again later). Only [`AppendError::Fatal`] is final.
    pub fn append<B: Encode>(&mut self, batch: &Batch<B>) -> Result<(), AppendError> {
        self.append_all(slice::from_ref(batch))
    }

    /// Appends batches that are independent of each other: each is an atomic unit, and a crash before the next [`Journal::sync`] may
    /// leave any number of them from the first on. They are refused together, and stand in one segment: room for all is made before
    /// the first.
    ///
    /// # Errors
    ///
    /// As [`Journal::append`]. Where one of them is refused, all are, and the journal is as it was.
    pub fn append_all<B: Encode>(&mut self, batches: &[Batch<B>]) -> Result<(), AppendError> {
        match &self.access {
            Access::Write => {}
            Access::ReadOnly => return Err(AppendError::Damaged),
            Access::Failed(fatal) => return Err(fatal.clone().into()),
        }
        let mut held = self.positions.clone();
        let mut needed = 0;
        for batch in batches {
            held = held_after(held, batch)?;
            needed += self.check_size(batch)?;
        }
        self.make_room(needed)?;
        for batch in batches {
            self.put_batch(batch);
            if self.queued.len() >= QUEUED_MAX {
                self.write_queued()?;
            }
        }
        // Behind all of them, for room was made for them alone.
        if self.active.end >= self.state_end + STATE_APART {
            self.copy_state_if_room();
        }
        Ok(())
    }

    /// Puts items back that were lost: those from position `first` on, which are part of the log and cannot be read. They are
    /// durable after the next [`Journal::sync`] that succeeds, as one atomic unit, and are read from there on. What stands behind them
    /// stays where it is, so the price is that of the lost items alone. That these are the items that were lost is
    /// the owner's word; the journal cannot tell. To put back items that can be read is of no use and does no harm.
    ///
    /// # Errors
    ///
    /// As [`Journal::append`]; [`AppendError::NotHeld`] if some of them are no part of the log.
    pub fn mend<B: Encode>(&mut self, first: u64, items: &[B]) -> Result<(), AppendError> {
        match &self.access {
            Access::Write => {}
            Access::ReadOnly => return Err(AppendError::Damaged),
            Access::Failed(fatal) => return Err(fatal.clone().into()),
        }
        if items.is_empty() {
            return Ok(());
        }
        let held = self.positions.clone();
        let end = first.saturating_add(to_u64(items.len()));
        if first < held.start || held.end < end {
            return Err(AppendError::NotHeld { items: first..end, held });
        }
        let longest = items.iter().map(Encode::encoded_length).max().unwrap_or(0);
        check_limit("item", to_u64(longest), self.options.item_size_max)?;
        let length = frame::mend_length(items);
        check_limit("batch", length, frame_length_max(&self.options))?;
        self.make_room(length)?;
        let count = u32::try_from(items.len()).expect("a batch of less than 4 GiB");
        let header = self.frame_header(FrameKind::Mend, count, first);
        let (place, segment, offset) = (self.place(), self.active.number, self.active.end);
        let length = u32::try_from(length).expect("frames are below 4 GiB");
        self.changes.push(Change::Mend(FrameRef { first, count, segment, offset, length }));
        let crc = frame::put_mend(&mut self.queued, place, header, self.positions.end, items);
        self.last_batch = self.next_sequence;
        self.frame_was_put(length.into(), crc);
        if self.queued.len() >= QUEUED_MAX {
            self.write_queued()?;
        }
        Ok(())
    }

    /// Sees to it that frames of `needed` bytes fit into the active segment.
    fn make_room(&mut self, needed: u64) -> Result<(), AppendError> {
        if self.active.end + needed + RESERVED <= self.active.length || needed == 0 {
            return Ok(());
        }
        self.rotate(needed).map_err(|error| match error {
            JournalError::Fatal(fatal) => AppendError::Fatal(fatal),
            _ => AppendError::NoSpace { needed },
        })
    }

    /// Length of the batch's frame in bytes, if it is within the limits.
    fn check_size<B: Encode>(&self, batch: &Batch<B>) -> Result<u64, AppendError> {
        let longest = batch.items.iter().map(Encode::encoded_length).max().unwrap_or(0);
        check_limit("item", to_u64(longest), self.options.item_size_max)?;
        let length = batch_frame_length(batch);
        check_limit("batch", length, frame_length_max(&self.options))?;
        Ok(length)
    }

    /// Queues the frame of a batch that fits the positions held, and for which there is room.
    fn put_batch<B: Encode>(&mut self, batch: &Batch<B>) {
        let first = batch.truncate_from.or(batch.restart_at).unwrap_or(self.positions.end);
        let length = batch_frame_length(batch);
        let count = u32::try_from(batch.items.len()).expect("a batch of less than 4 GiB");
        let sequence = self.next_sequence;
        if batch.truncate_from.is_some() {
            self.changes.push(Change::Truncate(first));
            self.truncation_sequence = sequence;
            self.truncated_to = self.truncated_to.min(first);
        }
        if batch.restart_at.is_some() {
            self.changes.push(Change::Restart(first));
            self.truncation_sequence = sequence;
            self.truncated_to = 0;
            self.positions.start = first;
        }
        if let Some(state) = &batch.state {
            self.state = Some(state.clone());
            self.state_sequence = sequence;
            (self.state_end, self.state_copy) = (self.active.end + length, StateCopy::None);
        }
        self.positions.end = first + u64::from(count);
        let segment = self.active.number;
        self.changes.push(Change::Push(FrameRef {
            first,
            count,
            segment,
            offset: self.active.end,
            length: u32::try_from(length).expect("frames are below 4 GiB"),
        }));
        let header = self.frame_header(FrameKind::Batch, count, first);
        let place = self.place();
        self.queued.reserve(usize::try_from(length).expect("what fits in memory"));
        let crc = frame::put_batch(&mut self.queued, place, header, batch);
        self.last_batch = sequence;
        self.frame_was_put(length, crc);
    }

    /// Puts the state into the log once more, so that damage to the frame that set it does not lose it: the owner that repairs its
    /// items from elsewhere has nowhere to get its state from. The copy says which batch set it, like the checkpoint of a segment.
    fn copy_state_if_room(&mut self) {
        let Some(state) = self.state.as_ref().filter(|_| self.options.repairs) else { return };
        let is_apart = self.active.end >= self.state_end + STATE_APART;
        let copy = if is_apart { StateCopy::Apart } else { StateCopy::Near };
        let batch = Batch::<&[u8]> { state: Some(state.clone()), ..Batch::default() };
        let length = batch_frame_length(&batch);
        if self.state_copy >= copy || self.active.end + length + RESERVED > self.active.length {
            return;
        }
        let header = self.frame_header(FrameKind::Batch, 0, self.positions.end);
        let place = self.place();
        let crc = frame::put_batch(&mut self.queued, place, header, &batch);
        self.last_batch = self.next_sequence;
        self.state_copy = copy;
        self.frame_was_put(length, crc);
    }

    fn put_mark(&mut self) {
        let header = self.frame_header(FrameKind::Mark, 0, self.positions.end);
        let place = self.place();
        let crc = frame::put_mark(&mut self.queued, place, header, self.first_segment);
        self.frame_was_put(MARK_LENGTH, crc);
    }

    fn frame_header(&self, kind: FrameKind, count: u32, first: u64) -> FrameHeader {
        FrameHeader {
            kind,
            count,
            previous: self.last.crc,
            sequence: self.next_sequence,
            first,
            durable_end: self.durable_end,
            state_sequence: self.state_sequence,
            truncation_sequence: self.truncation_sequence,
            truncated_to: self.truncated_to,
        }
    }

    fn place(&self) -> Place {
        Place { journal: self.options.id, segment: self.active.number, offset: self.active.end }
    }

    fn frame_was_put(&mut self, length: u64, crc: u32) {
        self.last = LastFrame { offset: self.active.end, length, crc };
        self.active.end += length;
        self.next_sequence += 1;
        debug_assert_eq!(
            self.active.written + to_u64(self.queued.len()),
            self.active.end,
            "the queue is what stands between what was written and the end"
        );
    }

    /// Writes what queued and makes it durable. Returns the sequence below which every frame is durable now.
    ///
    /// # Errors
    ///
    /// A failed write or sync is final: nothing is known about what the disk holds.
    pub fn sync(&mut self) -> Result<u64, JournalError> {
        self.check_writable()?;
        self.sync_active()?;
        Ok(self.durable_end)
    }

    fn sync_active(&mut self) -> Result<(), Fatal> {
        if self.durable_end == self.next_sequence {
            return Ok(());
        }
        self.write_queued()?;
        if let Err(error) = self.active.file.sync_data() {
            return Err(self.poison("syncing", error));
        }
        // Each of these frames carries the `durable_end` that held when it was made.
        self.vouched = self.vouched.max(self.durable_end);
        self.durable_end = self.next_sequence;
        self.status.set_durable_end(self.durable_end);
        let mut index = self.shared.index_mut();
        for change in self.changes.drain(..) {
            match change {
                Change::Truncate(from) => index.truncate(from),
                Change::Restart(at) => index.restart(at),
                Change::Push(frame) => index.push(&frame),
                Change::Mend(frame) => index.mend(&frame),
            }
        }
        Ok(())
    }

    fn write_queued(&mut self) -> Result<(), Fatal> {
        if self.queued.is_empty() {
            return Ok(());
        }
        let length = self.queued.len();
        let end = self.active.written + to_u64(length);
        if length <= SMALL_WRITE && end > self.active.ready {
            self.make_ready(end)?;
        }
        if let Err(error) = self.active.file.write_at(&self.queued, self.active.written) {
            return Err(self.poison("writing", error));
        }
        self.active.written = end;
        self.queued.clear();
        self.queued.shrink_to(length.max(QUEUE_KEPT));
        Ok(())
    }

    /// Makes blocks ready behind `end`, where the next small writes will go. They hold the same zeros before, after, and whatever a crash
    /// leaves of it. Large writes do without: for them the time goes into the bytes, which would be written twice.
    fn make_ready(&mut self, end: u64) -> Result<(), Fatal> {
        let to = (end + READY_AT_ONCE).next_multiple_of(4096).min(self.active.length);
        if let Err(error) = self.active.file.make_ready(end..to) {
            return Err(self.poison("writing", error));
        }
        self.active.ready = to;
        Ok(())
    }

    /// Syncs, and then closes the durable window: writes a mark that vouches for every frame so far. To be called when the
    /// owner is idle. Does nothing if all is vouched for already, or if there is no room for a mark. Also tries to get back
    /// a spare segment, if there is none.
    ///
    /// # Errors
    ///
    /// As [`Journal::sync`].
    pub fn mark(&mut self) -> Result<(), JournalError> {
        self.check_writable()?;
        self.sync_active()?;
        if self.status.low_space() {
            self.refill_spare()?;
        }
        self.put_mark_if_room()?;
        Ok(())
    }

    fn put_mark_if_room(&mut self) -> Result<(), Fatal> {
        let room = self.active.end + MARK_LENGTH + RESERVED_FOR_COMPACTION <= self.active.length;
        if self.vouched > self.last_batch || !room {
            return Ok(());
        }
        self.copy_state_if_room();
        // The mark vouches for what is durable when it is made.
        self.sync_active()?;
        self.put_mark();
        self.sync_active()
    }

    /// Marks and closes the journal, and writes the seals that are not written yet.
    ///
    /// # Errors
    ///
    /// As [`Journal::sync`]. A journal that is open for reading only closes without an error.
    pub fn close(mut self) -> Result<(), JournalError> {
        match self.mark() {
            Err(JournalError::Damaged) => return Ok(()),
            result => result?,
        }
        for seal in self.take_seals() {
            // Nothing depends on it: without a seal the segment is looked through.
            let _ = seal.write();
        }
        Ok(())
    }

    /// A reader of the durable items.
    #[must_use]
    pub fn reader(&self) -> Reader {
        Reader::new(Arc::clone(&self.shared))
    }

    /// The positions of the items held, also of those that are not durable yet; the end is the next position.
    ///
    /// The beginning says what is still on disk. The owner's own compaction point may be further on, for segments are dropped
    /// whole.
    #[must_use]
    pub fn positions(&self) -> Range<u64> {
        self.positions.clone()
    }

    /// The owner's state as appended last, durable or not.
    #[must_use]
    pub fn state(&self) -> Option<&[u8]> {
        self.state.as_deref()
    }

    /// Figures that other threads can look at.
    #[must_use]
    pub fn status(&self) -> Status {
        self.status.clone()
    }

    /// Sequence of the next frame: a batch is durable when `sync` has returned more than the value from before its append.
    #[must_use]
    pub fn next_sequence(&self) -> u64 {
        self.next_sequence
    }

    /// The segments, oldest first.
    #[must_use]
    pub fn segments(&self) -> Vec<SegmentInfo> {
        let index = self.shared.index();
        let info = |segment: &SegmentFacts| SegmentInfo {
            number: segment.number,
            length: segment.length,
            positions: index.runs.positions_in(segment.number),
            sealed: segment.number != self.active.number,
            generation: segment.generation,
            checksum: segment.checksum,
        };
        self.segments.iter().map(info).collect()
    }

    /// The number of the segment that is being written, which is the last one.
    #[must_use]
    pub fn active_segment(&self) -> u64 {
        self.active.number
    }

    fn check_writable(&self) -> Result<(), JournalError> {
        match &self.access {
            Access::Write => Ok(()),
            Access::ReadOnly => Err(JournalError::Damaged),
            Access::Failed(fatal) => Err(fatal.clone().into()),
        }
    }

    /// Remembers a failure for ever.
    fn poison(&mut self, operation: &'static str, error: io::Error) -> Fatal {
        let path = self.active.path.clone();
        self.poison_at(operation, &path, error)
    }

    fn poison_at(&mut self, operation: &'static str, path: &Path, error: io::Error) -> Fatal {
        let fatal = Fatal::new(operation, path, error);
        self.status.set_failed();
        self.access = Access::Failed(fatal.clone());
        fatal
    }

    fn note_size(&self) {
        let spare = self.spare.as_ref().map_or(0, |spare| spare.length);
        let segments: u64 = self.segments.iter().map(|segment| segment.length).sum();
        self.status.set_bytes_on_disk(segments + spare);
    }
}

/// The positions held after a batch, if it fits those held before it.
fn held_after<B>(held: Range<u64>, batch: &Batch<B>) -> Result<Range<u64>, AppendError> {
    let (start, first) = match (batch.truncate_from, batch.restart_at) {
        (None, None) => (held.start, held.end),
        (Some(from), None) if held.start <= from && from <= held.end => (held.start, from),
        (Some(from), None) => return Err(AppendError::Truncation { from, held }),
        (None, Some(at)) => (at, at),
        (Some(_), Some(_)) => return Err(AppendError::TruncatesAndRestarts),
    };
    match first.checked_add(to_u64(batch.items.len())) {
        Some(end) if batch.items.is_empty() || batch.first == first => Ok(start..end),
        _ => Err(AppendError::Position { expected: first, found: batch.first }),
    }
}

fn frame_length_max(options: &JournalOptions) -> u64 {
    options.batch_size_max.min(FRAME_LENGTH_MAX)
}

fn check_limit(what: &'static str, size: u64, limit: u64) -> Result<(), TooLarge> {
    if size <= limit { Ok(()) } else { Err(TooLarge { what, size, limit }) }
}

/// Opens a new file and allocates it, or takes it away again if there is no room.
fn allocate_new(
    disk: &dyn Disk,
    path: &Path,
    length: u64,
) -> Result<Arc<dyn DiskFile>, (&'static str, io::Error)> {
    let file = disk.open(path, OpenMode::CreateNew).map_err(|error| ("creating", error))?;
    match file.allocate(length) {
        Ok(()) => Ok(Arc::from(file)),
        Err(error) => {
            drop(file);
            disk.remove(path).map_err(|error| ("removing", error))?;
            Err(("allocating", error))
        }
    }
}
