//! Reads items while the writer runs.
//!
//! A reader sees the log as of the writer's last `sync`: items that are not durable are not shown, and items that a truncation
//! took away are shown until the truncation is durable. It takes what it needs from the index under a short lock and reads
//! without it. That is safe because bytes of a segment are never changed once they were written: a segment that is dropped or
//! replaced meanwhile is read to the end through the file that is still open.

use std::ops::Range;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use crate::disk::DiskFile;
use crate::error::ReadError;
use crate::frame::{Body, Frame, Place};
use crate::index::{FrameRef, Index};
use crate::segment::in_memory;

/// What the writer and its readers share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) journal: u128,
    index: RwLock<Index>,
}

impl Shared {
    pub(crate) fn new(journal: u128, index: Index) -> Self {
        Self { journal, index: RwLock::new(index) }
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
    shared: Arc<Shared>,
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

    /// Reads items from the beginning of `range`, until its end, until the items read have `bytes_max` bytes, or until the
    /// first item that is damaged or not there. At least one item is returned if the first one is there; none if the range is
    /// empty or begins behind the last item.
    ///
    /// Memory use is bounded by `bytes_max` and the size of one batch.
    ///
    /// # Errors
    ///
    /// If the *first* item was compacted away, is damaged, or cannot be read.
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
        let mut cursor = Cursor { range: range.clone(), next: range.start, budget: bytes_max };
        for (frame, file) in self.plan(&range, bytes_max)? {
            match self.visit_frame(&frame, &*file, &mut cursor, &mut visit) {
                Ok(true) => {}
                Ok(false) => break,
                Err(_) if cursor.next > range.start => break,
                Err(error) => return Err(error),
            }
        }
        Ok(cursor.next)
    }

    /// Visits the items of one frame; `false` if the budget is used up. An error means that none was visited.
    fn visit_frame(
        &self,
        frame: &FrameRef,
        file: &dyn DiskFile,
        cursor: &mut Cursor,
        visit: &mut impl FnMut(u64, &[u8]),
    ) -> Result<bool, ReadError> {
        let bytes = read_bytes(file, frame)?;
        let place =
            Place { journal: self.shared.journal, segment: frame.segment, offset: frame.offset };
        let found = Frame::read(&bytes, place).ok_or_else(|| corrupt(frame))?;
        let Body::Batch(body) = found.body else { return Err(corrupt(frame)) };
        if found.header.first != frame.first || found.header.count < frame.count {
            return Err(corrupt(frame));
        }
        let end = frame.end().min(cursor.range.end);
        for (position, item) in (frame.first..end).zip(body.items()) {
            if position < cursor.next {
                continue;
            }
            if item.len() > cursor.budget && cursor.next > cursor.range.start {
                return Ok(false);
            }
            cursor.budget = cursor.budget.saturating_sub(item.len());
            visit(position, item);
            cursor.next = position + 1;
        }
        Ok(true)
    }

    /// The frames that hold the beginning of a range, as many as a budget of bytes may need.
    fn plan(&self, range: &Range<u64>, bytes_max: usize) -> Result<Plan, ReadError> {
        let mut plan = Vec::new();
        let index = self.shared.index();
        let held = index.positions();
        if range.is_empty() {
            return Ok(plan);
        }
        if let Some(damaged) = index.damaged.iter().find(|damaged| damaged.contains(&range.start)) {
            return Err(ReadError::Damaged { positions: damaged.clone() });
        }
        if range.start < held.start {
            return Err(ReadError::NotHeld { held });
        }
        let budget = u64::try_from(bytes_max).unwrap_or(u64::MAX);
        let (mut next, mut bytes) = (range.start, 0_u64);
        for frame in index.frames.range(index.seek(range.start)..) {
            // A frame that does not go on where the last one ended stands behind damage.
            if next >= range.end || bytes > budget || frame.first > next {
                break;
            }
            let Some(file) = index.files.get(&frame.segment) else { break };
            plan.push((*frame, Arc::clone(file)));
            // The first frame may hold little of the range.
            let counted = if next == range.start { 0 } else { frame.length };
            bytes = bytes.saturating_add(counted);
            next = frame.end();
        }
        Ok(plan)
    }
}

type Plan = Vec<(FrameRef, Arc<dyn DiskFile>)>;

/// How far a read has come.
struct Cursor {
    range: Range<u64>,
    next: u64,
    budget: usize,
}

fn read_bytes(file: &dyn DiskFile, frame: &FrameRef) -> Result<Vec<u8>, ReadError> {
    let io = |source| ReadError::Io { segment: frame.segment, source };
    let mut bytes = vec![0; in_memory(frame.length).map_err(io)?];
    if file.read_at(&mut bytes, frame.offset).map_err(io)? == bytes.len() {
        Ok(bytes)
    } else {
        Err(corrupt(frame))
    }
}

fn corrupt(frame: &FrameRef) -> ReadError {
    ReadError::Corrupt {
        positions: frame.first..frame.end(),
        segment: frame.segment,
        offset: frame.offset,
    }
}
