//! The log as its readers see it: where the items stand, what is damaged, and the open files.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use crate::disk::DiskFile;
use crate::runs::{FrameRef, Run, Runs};

/// What the writer and its readers share.
#[derive(Debug, Default)]
pub(crate) struct Index {
    pub(crate) runs: Runs,
    /// Positions that are lost, in order: with their frames, or alone in a frame of which the other items are there.
    pub(crate) damaged: Vec<Range<u64>>,
    /// Frames with items that were lost where they stood first, in the order in which they were put back. They come before the runs.
    pub(crate) mended: Vec<Run>,
    pub(crate) files: BTreeMap<u64, Arc<dyn DiskFile>>,
}

impl Index {
    /// The next position.
    pub(crate) fn end(&self) -> u64 {
        self.runs.end()
    }

    /// The positions held, damaged ones included.
    pub(crate) fn positions(&self) -> Range<u64> {
        let damaged = self.damaged.first().map_or(u64::MAX, |range| range.start);
        let mended = self.mended.iter().map(|run| run.first).min().unwrap_or(u64::MAX);
        self.runs.start().min(damaged).min(mended)..self.end()
    }

    /// The first positions at or behind `position` that were ever lost: mended or not, their frames are not where they should be. With those
    /// right before them.
    pub(crate) fn first_hole(&self, position: u64) -> Option<Range<u64>> {
        let holes = || {
            let mended = self.mended.iter().map(|run| run.first..run.end());
            self.damaged.iter().cloned().chain(mended)
        };
        let mut hole = holes().filter(|hole| hole.end > position).min_by_key(|hole| hole.start)?;
        while let Some(before) =
            holes().find(|before| before.start < hole.start && hole.start <= before.end)
        {
            hole.start = before.start;
        }
        Some(hole)
    }

    /// The frame in which the item at `position` was put back, if it was lost. What it has of items that were put back once more is
    /// left out.
    pub(crate) fn mended_at(&self, position: u64) -> Option<Run> {
        let at = self.mended.iter().rposition(|run| (run.first..run.end()).contains(&position))?;
        let later = self.mended[at + 1..].iter().map(|run| run.first);
        let next = later.filter(|first| *first > position).min();
        self.mended[at].until(next.unwrap_or(u64::MAX))
    }

    /// What to read for the item at `position`: a run whose items go on from there, without those that something else has.
    pub(crate) fn piece(&self, position: u64) -> Option<Run> {
        if let Some(mended) = self.mended_at(position) {
            return Some(mended);
        }
        let run = self.runs.from(position).next().filter(|run| run.first <= position)?;
        let next = self.mended.iter().map(|run| run.first).filter(|first| *first > position);
        run.until(next.min().unwrap_or(u64::MAX))
    }

    pub(crate) fn push(&mut self, frame: &FrameRef) {
        self.runs.push(frame);
    }

    /// Drops the items at `from` and after it.
    pub(crate) fn truncate(&mut self, from: u64) {
        self.runs.truncate(from);
        self.damaged.retain(|range| range.start < from);
        if let Some(last) = self.damaged.last_mut() {
            last.end = last.end.min(from);
        }
        self.mended = self.mended.drain(..).filter_map(|run| run.until(from)).collect();
    }

    /// Forgets all items; the next position is `at`.
    pub(crate) fn restart(&mut self, at: u64) {
        self.runs.restart(at);
        self.damaged.clear();
        self.mended.clear();
    }

    /// Items that were lost are back in a frame elsewhere. What of them is no part of the log any more is passed over.
    pub(crate) fn mend(&mut self, frame: &FrameRef) {
        self.runs.close();
        let FrameRef { first, segment, offset, length, count } = *frame;
        let Some(run) = Run { first, segment, offset, length, count }.until(self.end()) else {
            return;
        };
        let held = self.positions();
        if run.end() <= held.start {
            return;
        }
        let (first, end) = (run.first, run.end());
        let left = self.damaged.drain(..).flat_map(|lost| {
            [lost.start..lost.end.min(first).max(lost.start), lost.start.max(end)..lost.end]
        });
        self.damaged = left.filter(|lost| !lost.is_empty()).collect();
        self.mended.retain(|old| old.first < first || end < old.end());
        self.mended.push(run);
    }

    /// Notes that the positions of a range are damaged; what was known about them and after them is forgotten.
    pub(crate) fn damage(&mut self, range: Range<u64>) {
        self.truncate(range.start);
        if !range.is_empty() {
            self.runs.skip(range.end);
            match self.damaged.last_mut().filter(|before| before.end == range.start) {
                Some(before) => before.end = range.end,
                None => self.damaged.push(range),
            }
        }
    }

    /// Notes that some items of the frame that was taken in last are lost; returns those that are part of the log.
    pub(crate) fn lose(&mut self, items: Range<u64>) -> Range<u64> {
        let held = self.positions();
        let lost = items.start.max(held.start)..items.end.min(held.end);
        if lost.is_empty() {
            return items.start..items.start;
        }
        let at = self.damaged.partition_point(|range| range.start < lost.start);
        match self.damaged[..at].last_mut().filter(|before| before.end == lost.start) {
            Some(before) => before.end = lost.end,
            None => self.damaged.insert(at, lost.clone()),
        }
        lost
    }

    /// The first position at or behind `position` that is lost.
    pub(crate) fn next_lost(&self, position: u64) -> Option<u64> {
        let lost = self.damaged.iter().find(|range| range.end > position)?;
        Some(lost.start.max(position))
    }

    /// Forgets the items in the segments below `segment`, and their files.
    pub(crate) fn drop_below(&mut self, segment: u64) {
        self.runs.drop_below(segment);
        // Damage before the first item that is left was in the segments that go, or nobody asks for it any more.
        let start = self.runs.start();
        self.damaged.retain(|range| range.end > start);
        self.mended.retain(|run| run.end() > start && run.segment >= segment);
        self.files = self.files.split_off(&segment);
    }

    /// Puts a rewritten segment in the place of the one that was read so far.
    pub(crate) fn replace(
        &mut self,
        segment: u64,
        runs: impl Iterator<Item = Run>,
        file: Arc<dyn DiskFile>,
    ) {
        self.runs.replace(segment, runs);
        self.files.insert(segment, file);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(first: u64, count: u32, segment: u64) -> FrameRef {
        FrameRef { first, count, segment, offset: first * 1000, length: 1000 }
    }

    fn sample() -> Index {
        let mut index = Index { runs: Runs::new(1), ..Index::default() };
        index.push(&frame(1, 3, 1));
        index.push(&frame(4, 2, 1));
        index.push(&frame(6, 4, 2));
        index
    }

    #[test]
    fn truncation_cuts_frames_short() {
        for from in 1..=10 {
            let mut index = sample();
            index.truncate(from);
            assert_eq!(index.end(), from);
            let held: u64 = index.runs.from(0).map(|run| u64::from(run.count)).sum();
            assert_eq!(held, from - 1);
            assert!(index.runs.from(0).all(|run| run.count > 0));
        }
    }

    #[test]
    fn the_run_of_a_position_is_found() {
        let runs = sample().runs;
        let found: Vec<Option<u64>> =
            (1..=10).map(|position| runs.from(position).next().map(|run| run.segment)).collect();
        let (one, two) = (Some(1), Some(2));
        assert_eq!(found, [one, one, one, one, one, two, two, two, two, None]);
        assert_eq!(runs.positions_in(1), 1..6);
        assert_eq!(runs.positions_in(2), 6..10);
        assert_eq!(runs.positions_in(3), 10..10);
    }

    #[test]
    fn holes_that_touch_are_one() {
        let mut index = sample();
        index.damage(10..16);
        index.push(&frame(16, 4, 3));
        for (first, count) in [(14, 2), (10, 2)] {
            index.mend(&frame(first, count, 3));
        }
        assert_eq!(index.damaged[..], *std::slice::from_ref(&(12..14)));
        for position in 0..16 {
            assert_eq!(
                index.first_hole(position),
                Some(10..index.first_hole(position).unwrap().end)
            );
        }
        assert_eq!(index.first_hole(16), None);
    }

    #[test]
    fn what_was_put_back_twice_is_read_from_where_it_was_put_last() {
        let mut index = sample();
        index.lose(2..9);
        index.mend(&frame(2, 7, 7));
        index.mend(&frame(5, 2, 8));
        let pieces: Vec<_> = (1..10)
            .map(|position| index.piece(position).map(|run| (run.segment, run.end())).unwrap())
            .collect();
        let first = [(1, 2), (7, 5), (7, 5), (7, 5), (8, 7), (8, 7), (7, 9), (7, 9), (2, 10)];
        assert_eq!(pieces, first);
    }

    #[test]
    fn damage_is_trimmed_like_items() {
        let mut index = sample();
        index.damage(8..15);
        index.push(&frame(15, 1, 3));
        assert_eq!((index.positions(), index.damaged.first()), (1..16, Some(&(8..15))));
        index.truncate(12);
        assert_eq!(index.damaged.first(), Some(&(8..12)));
        index.truncate(8);
        assert_eq!((index.positions(), index.damaged.len()), (1..8, 0));
        index.restart(30);
        assert_eq!(index.positions(), 30..30);
    }
}
