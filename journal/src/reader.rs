//! Reads items while the writer runs.
//!
//! A reader sees the log as of the writer's last `sync`: items that are not durable are not shown, and items that a truncation
//! took away are shown until the truncation is durable. It takes what it needs from the index under a short lock and reads
//! without it. That is safe because bytes of a segment are never changed once they were written: a segment that is dropped or
//! replaced meanwhile is read to the end through the file that is still open.
//!
//! The index tells only the [run](crate::runs) that an item is in. The run is read as far as the item is likely to be, seldom in two
//! goes, and its frames are walked by their headers. A frame whose items are wanted is verified, and each of these items; the frame's
//! header says which items it has. Items that were lost and put back elsewhere are read from there. So a header that rotted can lead astray, but not to a wrong item; if it does, the run is walked again with
//! every frame verified and rotten ones passed over, which finds the item or tells what is lost.

use std::ops::Range;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use crate::disk::DiskFile;
use crate::error::ReadError;
use crate::frame::{ALIGNMENT, BatchBody, Body, Place, UncheckedHeader, to_u64, to_usize};
use crate::index::Index;
use crate::runs::{RUN_BYTES, Run};
use crate::status::Status;
use crate::unreadable::Unreadable;

/// What the writer and its readers share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) journal: u128,
    pub(crate) status: Status,
    index: RwLock<Index>,
}

impl Shared {
    pub(crate) fn new(journal: u128, status: Status, index: Index) -> Self {
        Self { journal, status, index: RwLock::new(index) }
    }

    /// The index, for reading. Its changes are whole, whatever the thread that made them met later.
    pub(crate) fn index(&self) -> RwLockReadGuard<'_, Index> {
        self.index.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn index_mut(&self) -> RwLockWriteGuard<'_, Index> {
        self.index.write().unwrap_or_else(PoisonError::into_inner)
    }
}

/// An item as it was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Item {
    /// Its position.
    pub position: u64,
    /// What was appended.
    pub bytes: Vec<u8>,
}

/// Reads the durable items of a journal; clones can be used from any thread.
#[derive(Clone, Debug)]
pub struct Reader {
    pub(crate) shared: Arc<Shared>,
}

impl Reader {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        Self { shared }
    }

    /// The positions of the durable items, damaged ones included.
    #[must_use]
    pub fn positions(&self) -> Range<u64> {
        self.shared.index().positions()
    }

    /// The positions that were found damaged when the journal was opened, in order; an end of [`u64::MAX`] means that it is not
    /// known where they end. Items behind them can be read.
    #[must_use]
    pub fn damaged(&self) -> Vec<Range<u64>> {
        self.shared.index().damaged.clone()
    }

    /// The memory that tells where the items stand, in bytes.
    #[must_use]
    pub fn index_memory(&self) -> usize {
        self.shared.index().runs.memory()
    }

    /// Reads items from the beginning of `range`, until its end, until the items read have `bytes_max` bytes, or until the
    /// first item that is damaged or not there. At least one item is returned if the first one is there; none if the range is
    /// empty or begins behind the last item. To read one item takes at most 32 KiB of reading, or the length of its batch if that
    /// is more.
    ///
    /// Memory use is bounded by `bytes_max` and the size of one batch.
    ///
    /// # Errors
    ///
    /// If the *first* item was compacted away, is damaged, or cannot be read. What is behind the damaged positions that the error
    /// names can be read.
    pub fn read(&self, range: Range<u64>, bytes_max: usize) -> Result<Vec<Item>, ReadError> {
        let mut items = Vec::new();
        self.visit(range, bytes_max, |position, bytes| {
            items.push(Item { position, bytes: bytes.to_vec() });
        })?;
        Ok(items)
    }

    /// As [`Reader::read`], but lends each item to `visit` instead of copying it. Returns the position after the last item
    /// visited.
    ///
    /// # Errors
    ///
    /// As [`Reader::read`].
    pub fn visit(
        &self,
        range: Range<u64>,
        bytes_max: usize,
        mut visit: impl FnMut(u64, &[u8]),
    ) -> Result<u64, ReadError> {
        let (plan, end) = self.plan(&range, bytes_max)?;
        let mut cursor = Cursor { range: range.start..end, next: range.start, budget: bytes_max };
        let mut buffer = Vec::new();
        for (run, file) in plan {
            match self.visit_run(run, &*file, &mut buffer, &mut cursor, &mut visit) {
                Ok(true) => {}
                Ok(false) => break,
                Err(_) if cursor.next > range.start => break,
                Err(error) => return Err(error),
            }
        }
        Ok(cursor.next)
    }

    /// Visits the items of a run; `false` if the budget is used up. What goes wrong is tried a second time before it counts: the read
    /// may have been bad, and not what is on the disk.
    fn visit_run(
        &self,
        run: Run,
        file: &dyn DiskFile,
        buffer: &mut Vec<u8>,
        cursor: &mut Cursor,
        visit: &mut impl FnMut(u64, &[u8]),
    ) -> Result<bool, ReadError> {
        let first = self.try_run(run, file, buffer, cursor, visit);
        if !matches!(first, Err(ReadError::Corrupt { .. } | ReadError::Io { .. })) {
            return first;
        }
        file.forget_cached(run.offset, u64::from(run.length));
        let mut unreadable = Unreadable::default();
        buffer.resize(to_usize(run.length), 0);
        let length = unreadable.read(file, buffer, run.offset).map_err(|source| {
            let positions = cursor.next.max(run.first)..run.end();
            ReadError::Io { positions, segment: run.segment, source }
        })?;
        let bytes = &buffer[..length];
        let stretch = Stretch { journal: self.shared.journal, run, bytes, complete: true };
        match (stretch.visit(cursor, visit), unreadable.into_error()) {
            (Err(ReadError::Corrupt { positions, segment, .. }), Some(source)) => {
                Err(ReadError::Io { positions, segment, source })
            }
            (visited, _) => Ok(!matches!(visited?, Visited::Budget)),
        }
    }

    fn try_run(
        &self,
        run: Run,
        file: &dyn DiskFile,
        buffer: &mut Vec<u8>,
        cursor: &mut Cursor,
        visit: &mut impl FnMut(u64, &[u8]),
    ) -> Result<bool, ReadError> {
        let length = to_usize(run.length);
        if buffer.len() < length {
            // What the buffer held is not worth a copy.
            buffer.clear();
            buffer.resize(length, 0);
        }
        let (mut read, mut until) = (0, likely_length(&run, cursor.range.end));
        loop {
            let at = run.offset + to_u64(read);
            let more = file.read_at(&mut buffer[read..until], at).map_err(|source| {
                let positions = run.first..run.end();
                ReadError::Io { positions, segment: run.segment, source }
            })?;
            let complete = until == length || read + more < until;
            read += more;
            let bytes = &buffer[..read];
            let stretch = Stretch { journal: self.shared.journal, run, bytes, complete };
            match stretch.visit(cursor, visit)? {
                Visited::All => return Ok(true),
                Visited::Budget => return Ok(false),
                Visited::Bytes => until = length,
            }
        }
    }

    /// The runs that hold the beginning of a range, as many as a budget of bytes may need; and where the range ends, or the first
    /// item in it that is lost.
    fn plan(&self, range: &Range<u64>, bytes_max: usize) -> Result<(Plan, u64), ReadError> {
        let mut plan = Vec::new();
        let index = self.shared.index();
        let held = index.positions();
        if range.is_empty() {
            return Ok((plan, range.end));
        }
        if let Some(damaged) = index.damaged.iter().find(|damaged| damaged.contains(&range.start)) {
            return Err(ReadError::Damaged { positions: damaged.clone() });
        }
        if range.start < held.start {
            return Err(ReadError::NotHeld { held });
        }
        let budget = u64::try_from(bytes_max).unwrap_or(u64::MAX);
        let end = index.next_lost(range.start).map_or(range.end, |lost| lost.min(range.end));
        let (mut next, mut bytes) = (range.start, 0_u64);
        while let Some(run) = index.piece(next).filter(|_| next < end && bytes <= budget) {
            let Some(file) = index.files.get(&run.segment) else { break };
            plan.push((run, Arc::clone(file)));
            // The first run may hold little of the range.
            let counted = if next == range.start { 0 } else { u64::from(run.length) };
            bytes = bytes.saturating_add(counted);
            next = run.end();
        }
        Ok((plan, end))
    }
}

type Plan = Vec<(Run, Arc<dyn DiskFile>)>;

/// How far a read has come.
struct Cursor {
    range: Range<u64>,
    next: u64,
    budget: usize,
}

/// How much of a run is worth reading for its items below `end`: as much as they take if all are of about the same length. What
/// is missing then is read when it turns out to be.
fn likely_length(run: &Run, end: u64) -> usize {
    let length = u64::from(run.length);
    let wanted = end.saturating_sub(run.first).min(u64::from(run.count));
    let likely = length * wanted / u64::from(run.count.max(1)) + length / 16;
    // A run longer than usual is a single frame.
    let likely = if length > RUN_BYTES { length } else { likely.min(length) };
    usize::try_from(likely).expect("the length of a run has 32 bits")
}

/// What ended a visit to a run.
enum Visited {
    /// Its last item that is wanted was visited.
    All,
    /// The budget is used up.
    Budget,
    /// The bytes at hand end before the next item.
    Bytes,
}

/// The first bytes of a run.
struct Stretch<'a> {
    journal: u128,
    run: Run,
    bytes: &'a [u8],
    /// There are no more, because the run ends here or the file does.
    complete: bool,
}

/// A batch, verified, and where it stands in a stretch.
struct Batch<'a> {
    items: Range<u64>,
    body: BatchBody<'a>,
    end: usize,
}

impl<'a> Stretch<'a> {
    /// Visits the items from the cursor on.
    fn visit(
        &self,
        cursor: &mut Cursor,
        visit: &mut impl FnMut(u64, &[u8]),
    ) -> Result<Visited, ReadError> {
        let end = self.run.end().min(cursor.range.end);
        let mut at = 0;
        while cursor.next < end {
            let batch = match self.find(at, cursor.next) {
                Some(batch) => batch,
                None if !self.complete => return Ok(Visited::Bytes),
                None => self.search(cursor.next)?,
            };
            at = batch.end;
            let first = cursor.next;
            let skipped = usize::try_from(first - batch.items.start).expect("a count of 32 bits");
            for (position, item) in (first..end).zip(batch.body.items(skipped)) {
                let item = item.ok_or_else(|| self.lost(&batch, position))?;
                if item.len() > cursor.budget && cursor.next > cursor.range.start {
                    return Ok(Visited::Budget);
                }
                cursor.budget = cursor.budget.saturating_sub(item.len());
                visit(position, item);
                cursor.next = position + 1;
            }
        }
        Ok(Visited::All)
    }

    /// The batch with a position, looked for from `at` on by the headers of the frames.
    fn find(&self, mut at: usize, position: u64) -> Option<Batch<'a>> {
        loop {
            let header = UncheckedHeader::read(self.bytes.get(at..)?, self.journal)?;
            if header.items().contains(&position) {
                return self.batch(at).filter(|batch| batch.items.contains(&position));
            }
            at = at.checked_add(usize::try_from(header.length()).ok()?)?;
        }
    }

    /// The batch with a position, looked for with every frame verified and all other bytes passed over.
    fn search(&self, position: u64) -> Result<Batch<'a>, ReadError> {
        let run = self.run;
        let mut lost = run.first..run.end();
        let (mut at, mut bad) = (0, None);
        // A run longer than usual is a single frame.
        while at < self.bytes.len() && u64::from(run.length) <= RUN_BYTES {
            let Some((items, end)) = self.frame(at) else {
                bad.get_or_insert(at);
                at += ALIGNMENT;
                continue;
            };
            if items.contains(&position) {
                return self.batch(at).ok_or_else(|| self.corrupt(lost, at));
            }
            if !items.is_empty() && items.start > position {
                lost.end = lost.end.min(items.start);
                break;
            }
            if !items.is_empty() {
                lost.start = items.end;
                bad = None;
            }
            at = end;
        }
        Err(self.corrupt(lost, bad.unwrap_or(at)))
    }

    /// The items of the frame at a place, and where it ends, if it is intact.
    fn frame(&self, at: usize) -> Option<(Range<u64>, usize)> {
        let header = UncheckedHeader::read(self.bytes.get(at..)?, self.journal)?;
        let end = at.checked_add(usize::try_from(header.length()).ok()?)?;
        header.check(self.bytes.get(at..end)?, self.place(at))?;
        Some((header.items(), end))
    }

    /// The batch at a place, if it is intact.
    fn batch(&self, at: usize) -> Option<Batch<'a>> {
        let header = UncheckedHeader::read(self.bytes.get(at..)?, self.journal)?;
        let end = at.checked_add(usize::try_from(header.length()).ok()?)?;
        let frame = header.check(self.bytes.get(at..end)?, self.place(at))?;
        let (Body::Batch(body) | Body::Mend { items: body, .. }) = frame.body else { return None };
        Some(Batch { items: header.items(), body, end })
    }

    /// The item at a position of a batch is lost, with others perhaps that follow on it.
    fn lost(&self, batch: &Batch<'_>, position: u64) -> ReadError {
        let Run { segment, offset, .. } = self.run;
        let end = offset + to_u64(batch.end);
        let lost = batch.body.lost(batch.items.start, end);
        let lost = lost.into_iter().find(|lost| lost.positions.contains(&position));
        let (end, offset) =
            lost.map_or((position + 1, end), |lost| (lost.positions.end, lost.bytes.start));
        ReadError::Corrupt { positions: position..end, segment, offset }
    }

    fn place(&self, at: usize) -> Place {
        let Run { segment, offset, .. } = self.run;
        Place { journal: self.journal, segment, offset: offset + to_u64(at) }
    }

    fn corrupt(&self, positions: Range<u64>, at: usize) -> ReadError {
        let Run { segment, offset, .. } = self.run;
        ReadError::Corrupt { positions, segment, offset: offset + to_u64(at) }
    }
}
