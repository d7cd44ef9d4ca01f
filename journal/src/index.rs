//! Which frame holds which items: one entry a frame, in memory.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Range;
use std::sync::Arc;

use crate::disk::DiskFile;

/// A batch frame and those of its items that are still part of the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FrameRef {
    /// Position of the first item.
    pub(crate) first: u64,
    /// Number of items that no truncation took away.
    pub(crate) count: u32,
    pub(crate) segment: u64,
    pub(crate) offset: u64,
    /// Length of the whole frame in bytes.
    pub(crate) length: u64,
}

impl FrameRef {
    pub(crate) fn end(&self) -> u64 {
        self.first.saturating_add(u64::from(self.count))
    }
}

/// The log as its readers see it.
///
/// Live frames are in the order of their positions, which is also their order on disk: a frame's items follow on those before
/// it, or replace them.
#[derive(Debug, Default)]
pub(crate) struct Index {
    pub(crate) frames: VecDeque<FrameRef>,
    /// Positions whose frames are damaged, in order.
    pub(crate) damaged: Vec<Range<u64>>,
    /// The next position.
    pub(crate) end: u64,
    pub(crate) files: BTreeMap<u64, Arc<dyn DiskFile>>,
}

impl Index {
    /// The positions held, damaged ones included.
    pub(crate) fn positions(&self) -> Range<u64> {
        let frame = self.frames.front().map_or(self.end, |frame| frame.first);
        let damaged = self.damaged.first().map_or(self.end, |range| range.start);
        frame.min(damaged)..self.end
    }

    pub(crate) fn push(&mut self, frame: FrameRef) {
        debug_assert_eq!(frame.first, self.end, "items follow on each other");
        self.end = frame.end();
        if frame.count > 0 {
            self.frames.push_back(frame);
        }
    }

    /// Drops the items at `from` and after it.
    pub(crate) fn truncate(&mut self, from: u64) {
        while let Some(last) = self.frames.back_mut() {
            if last.end() <= from {
                break;
            }
            if last.first >= from {
                self.frames.pop_back();
            } else {
                last.count = u32::try_from(from - last.first).expect("less than it was");
                break;
            }
        }
        self.damaged.retain(|range| range.start < from);
        if let Some(last) = self.damaged.last_mut() {
            last.end = last.end.min(from);
        }
        self.end = from;
    }

    /// Forgets all items; the next position is `at`.
    pub(crate) fn restart(&mut self, at: u64) {
        self.frames.clear();
        self.damaged.clear();
        self.end = at;
    }

    /// Notes that the positions of a range are damaged; what was known about them and after them is forgotten.
    pub(crate) fn damage(&mut self, range: Range<u64>) {
        self.truncate(range.start);
        if !range.is_empty() {
            self.end = range.end;
            self.damaged.push(range);
        }
    }

    /// The first frame with an item at `position` or after it, by its place in `frames`.
    pub(crate) fn seek(&self, position: u64) -> usize {
        self.frames.partition_point(|frame| frame.end() <= position)
    }

    /// Forgets the frames of the segments below `segment`, and their files.
    pub(crate) fn drop_below(&mut self, segment: u64) {
        while self.frames.front().is_some_and(|frame| frame.segment < segment) {
            self.frames.pop_front();
        }
        self.files = self.files.split_off(&segment);
    }

    /// The positions of live items in each segment that has some.
    pub(crate) fn positions_in(&self, segment: u64) -> Range<u64> {
        let from = self.frames.partition_point(|frame| frame.segment < segment);
        let to = self.frames.partition_point(|frame| frame.segment <= segment);
        if from == to {
            return self.end..self.end;
        }
        self.frames[from].first..self.frames[to - 1].end()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(first: u64, count: u32, segment: u64) -> FrameRef {
        FrameRef { first, count, segment, offset: 0, length: 0 }
    }

    fn sample() -> Index {
        let mut index = Index { end: 1, ..Index::default() };
        index.push(frame(1, 3, 1));
        index.push(frame(4, 2, 1));
        index.push(frame(6, 4, 2));
        index
    }

    #[test]
    fn truncation_cuts_frames_short() {
        for from in 1..=10 {
            let mut index = sample();
            index.truncate(from);
            assert_eq!(index.end, from);
            let held: u64 = index.frames.iter().map(|frame| u64::from(frame.count)).sum();
            assert_eq!(held, from - 1);
            assert!(index.frames.iter().all(|frame| frame.count > 0));
        }
    }

    #[test]
    fn seek_finds_the_frame_of_a_position() {
        let index = sample();
        let found: Vec<usize> = (1..=10).map(|position| index.seek(position)).collect();
        assert_eq!(found, [0, 0, 0, 1, 1, 2, 2, 2, 2, 3]);
        assert_eq!(index.positions_in(1), 1..6);
        assert_eq!(index.positions_in(2), 6..10);
        assert_eq!(index.positions_in(3), 10..10);
    }

    #[test]
    fn damage_is_trimmed_like_items() {
        let mut index = sample();
        index.damage(8..15);
        index.push(frame(15, 1, 3));
        assert_eq!((index.positions(), index.damaged.first()), (1..16, Some(&(8..15))));
        index.truncate(12);
        assert_eq!(index.damaged.first(), Some(&(8..12)));
        index.truncate(8);
        assert_eq!((index.positions(), index.damaged.len()), (1..8, 0));
        index.restart(30);
        assert_eq!(index.positions(), 30..30);
    }
}
