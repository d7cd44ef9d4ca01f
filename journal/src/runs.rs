//! Where the items of the log stand: stretches of whole frames, in memory.
//!
//! A *run* is a piece of one segment with the frames of consecutive items. The frames in it are not listed: who looks for an item
//! reads the run and walks its frames, whose headers tell what they hold. That costs at most [`RUN_BYTES`] of reading, or one frame if
//! that is longer, and 32 bytes of memory for each such piece of the log.
//!
//! Why a dead item is never found in a run: frames join a run only while each begins where the run ends, so all items of the bytes
//! of a run have different positions, in order. A truncation shortens the run's *count* and closes it: nothing joins a run
//! that was cut, because the frames that stand behind the cut on disk have positions from the cut on, which are then outside
//! of the run. So a position inside of a run belongs to exactly one frame in its bytes, and that one is live. Frames with items that
//! were lost and are back (`Index::mended`) are in no run, and none reaches over one.

use std::collections::VecDeque;
use std::ops::Range;

/// Frames join a run while it keeps within this length in bytes.
pub(crate) const RUN_BYTES: u64 = 32 << 10;

/// A batch frame as the writer or a scan comes upon it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FrameRef {
    /// Position of the first item.
    pub(crate) first: u64,
    /// Number of items.
    pub(crate) count: u32,
    pub(crate) segment: u64,
    pub(crate) offset: u64,
    /// Length of the whole frame in bytes.
    pub(crate) length: u32,
}

impl FrameRef {
    pub(crate) fn end(&self) -> u64 {
        self.first.saturating_add(u64::from(self.count))
    }
}

/// A piece of a segment, and the live items in its frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Run {
    /// Position of the first item, which is the first one of the first frame.
    pub(crate) first: u64,
    pub(crate) segment: u64,
    /// Where the first frame begins.
    pub(crate) offset: u64,
    /// From there to the end of the last frame, in bytes.
    pub(crate) length: u32,
    /// Number of items that no truncation took away; not 0.
    pub(crate) count: u32,
}

impl Run {
    /// The position after the last item.
    pub(crate) fn end(&self) -> u64 {
        self.first.saturating_add(u64::from(self.count))
    }

    /// This run with the frame at its end, if the frame can stand there.
    fn with(&self, frame: &FrameRef) -> Option<Self> {
        let length = frame.offset.checked_sub(self.offset)?.checked_add(u64::from(frame.length))?;
        let behind = frame.offset >= self.offset + u64::from(self.length);
        let follows = frame.segment == self.segment && frame.first == self.end() && behind;
        let length = u32::try_from(length).ok().filter(|length| u64::from(*length) <= RUN_BYTES)?;
        let count = self.count.checked_add(frame.count)?;
        follows.then_some(Self { length, count, ..*self })
    }

    /// The run without the items at `end` and after it, if any are left.
    pub(crate) fn until(self, end: u64) -> Option<Self> {
        let kept = end.checked_sub(self.first).filter(|kept| *kept > 0)?;
        let count = u32::try_from(kept).map_or(self.count, |kept| kept.min(self.count));
        Some(Self { count, ..self })
    }
}

/// The live items of a log, or of one segment of it.
///
/// Runs are in the order of their positions, which is also their order on disk: the items of a frame follow on those before it,
/// or replace them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Runs {
    runs: VecDeque<Run>,
    /// The next position.
    end: u64,
    /// The next frame begins a run: something stands between it and the last one.
    closed: bool,
}

impl Runs {
    /// No items; the next position is `end`.
    pub(crate) fn new(end: u64) -> Self {
        Self { end, ..Self::default() }
    }

    /// The next position.
    pub(crate) fn end(&self) -> u64 {
        self.end
    }

    /// Position of the first item, or the next position if there is none.
    pub(crate) fn start(&self) -> u64 {
        self.runs.front().map_or(self.end, |run| run.first)
    }

    /// The memory that the runs take, in bytes.
    pub(crate) fn memory(&self) -> usize {
        self.runs.capacity() * size_of::<Run>()
    }

    /// Adds the items of a frame, which must follow on the last one.
    pub(crate) fn push(&mut self, frame: &FrameRef) {
        debug_assert_eq!(frame.first, self.end, "items follow on each other");
        if frame.count == 0 {
            return;
        }
        self.end = frame.end();
        let open = if self.closed { None } else { self.runs.back_mut() };
        if let Some(last) = open
            && let Some(longer) = last.with(frame)
        {
            *last = longer;
            return;
        }
        let FrameRef { first, count, segment, offset, length } = *frame;
        self.push_run(Run { first, segment, offset, length, count });
        self.closed = false;
    }

    /// Adds a run as it was recorded.
    fn push_run(&mut self, run: Run) {
        if self.runs.len() == self.runs.capacity() {
            // By a quarter and not by half: a log of many million items has little memory that is not used.
            self.runs.reserve_exact((self.runs.len() / 4).max(16));
        }
        self.end = run.end();
        self.runs.push_back(run);
    }

    /// Adds the runs of a sealed segment, of which the first must begin at the next position.
    pub(crate) fn extend(&mut self, runs: &[Run]) {
        for run in runs {
            debug_assert_eq!(run.first, self.end, "items follow on each other");
            self.push_run(*run);
        }
        self.closed = true;
    }

    /// Drops the items at `from` and after it; the next position is `from`.
    pub(crate) fn truncate(&mut self, from: u64) {
        while let Some(last) = self.runs.back_mut().filter(|last| last.end() > from) {
            if let Some(shorter) = last.until(from) {
                *last = shorter;
            } else {
                self.runs.pop_back();
            }
        }
        self.end = from;
        self.closed = true;
    }

    /// Forgets all items; the next position is `at`.
    pub(crate) fn restart(&mut self, at: u64) {
        self.runs.clear();
        self.end = at;
        self.closed = true;
    }

    /// Something stands behind the last frame that no run may reach over.
    pub(crate) fn close(&mut self) {
        self.closed = true;
    }

    /// Leaves positions out: the next one is `to`.
    pub(crate) fn skip(&mut self, to: u64) {
        self.end = to;
        self.closed = true;
    }

    /// The runs from the one with an item at `position`, or after it.
    pub(crate) fn from(&self, position: u64) -> impl Iterator<Item = &Run> {
        self.runs.range(self.runs.partition_point(|run| run.end() <= position)..)
    }

    /// The runs in a segment.
    pub(crate) fn of(&self, segment: u64) -> impl Iterator<Item = &Run> {
        self.runs.range(self.places_of(segment))
    }

    fn places_of(&self, segment: u64) -> Range<usize> {
        self.runs.partition_point(|run| run.segment < segment)
            ..self.runs.partition_point(|run| run.segment <= segment)
    }

    /// The positions of the live items in a segment.
    pub(crate) fn positions_in(&self, segment: u64) -> Range<u64> {
        let runs = self.places_of(segment);
        if runs.is_empty() {
            return self.end..self.end;
        }
        self.runs[runs.start].first..self.runs[runs.end - 1].end()
    }

    /// The live items of a frame, which is known to be intact.
    pub(crate) fn live(&self, frame: &FrameRef) -> Range<u64> {
        let place = (frame.segment, frame.offset);
        let after = self.runs.partition_point(|run| (run.segment, run.offset) <= place);
        let run = after.checked_sub(1).and_then(|at| self.runs.get(at));
        let inside = |run: &&Run| {
            run.segment == frame.segment && frame.offset < run.offset + u64::from(run.length)
        };
        match run.filter(inside) {
            Some(run) => frame.first..frame.end().min(run.end()).max(frame.first),
            None => frame.first..frame.first,
        }
    }

    /// Forgets the runs in the segments below `segment`.
    pub(crate) fn drop_below(&mut self, segment: u64) {
        while self.runs.front().is_some_and(|run| run.segment < segment) {
            self.runs.pop_front();
        }
    }

    /// Puts other runs in the place of those in a segment: the segment was rewritten. Of the new ones, which tell where its items
    /// stood when it was complete, only what is live now is taken.
    pub(crate) fn replace(&mut self, segment: u64, runs: impl Iterator<Item = Run>) {
        let live = self.positions_in(segment).end;
        let places = self.places_of(segment);
        let behind = self.runs.split_off(places.end);
        self.runs.truncate(places.start);
        if !places.is_empty() {
            self.runs.extend(runs.map_while(|run| run.until(live)));
        }
        self.runs.extend(behind);
        self.closed = true;
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    #[derive(Clone, Debug)]
    enum Change {
        /// Items, and bytes of the frame.
        Push(u32, u32),
        /// Bytes of a frame without items.
        Pass(u32),
        Truncate(u64),
        Restart(u64),
        Damage(u64),
        Rotate,
        DropBelow(u64),
        /// Writes a segment anew, with frames this many times as long.
        Rewrite(u64, u32),
    }

    fn change() -> impl Strategy<Value = Change> {
        prop_oneof![
            12 => (0..70_u32, 88..20_000_u32).prop_map(|(count, length)| Change::Push(count, length)),
            1 => (30_000..200_000_u32).prop_map(|length| Change::Push(5, length)),
            2 => (88..400_u32).prop_map(Change::Pass),
            3 => (0..200_u64).prop_map(Change::Truncate),
            1 => (0..50_u64).prop_map(Change::Restart),
            1 => (0..20_u64).prop_map(Change::Damage),
            2 => Just(Change::Rotate),
            1 => (0..3_u64).prop_map(Change::DropBelow),
            1 => (0..4_u64, 1..4_u32).prop_map(|(back, times)| Change::Rewrite(back, times)),
        ]
    }

    /// The dense meaning: the frame of each live item, and all frames that are on disk.
    #[derive(Default)]
    struct Dense {
        frames: Vec<FrameRef>,
        /// For each position: the place in `frames`.
        items: BTreeMap<u64, usize>,
        segment: u64,
        offset: u64,
    }

    impl Dense {
        fn put(&mut self, first: u64, count: u32, length: u32) -> FrameRef {
            let length = length.next_multiple_of(8);
            let frame =
                FrameRef { first, count, segment: self.segment, offset: self.offset, length };
            self.offset += u64::from(length);
            for position in first..frame.end() {
                self.items.insert(position, self.frames.len());
            }
            self.frames.push(frame);
            frame
        }

        /// The frame that holds a position, looked for in a run as a reader does.
        fn walk(&self, run: &Run, position: u64) -> usize {
            let inside = |frame: &&FrameRef| {
                frame.segment == run.segment
                    && frame.offset >= run.offset
                    && frame.offset < run.offset + u64::from(run.length)
            };
            let holds = |frame: &&FrameRef| (frame.first..frame.end()).contains(&position);
            let found: Vec<&FrameRef> = self.frames.iter().filter(inside).filter(holds).collect();
            assert_eq!(found.len(), 1, "one frame of the run has position {position}");
            self.frames.iter().position(|frame| frame == found[0]).unwrap()
        }

        /// The runs of one segment, as they are put together by who reads only that segment.
        fn alone(&self, segment: u64, log: &[(u64, Change, u64)]) -> Runs {
            let own = |(at, ..): &&(u64, Change, u64)| *at == segment;
            let mut frames = self.frames.iter().filter(|frame| frame.segment == segment);
            let mut runs = Runs::new(log.iter().find(own).map_or(0, |(_, _, end)| *end));
            for (_, change, end) in log.iter().filter(own) {
                match change {
                    Change::Push(..) => runs.push(frames.next().unwrap()),
                    Change::Truncate(_) => runs.truncate(*end),
                    Change::Restart(_) => runs.restart(*end),
                    Change::Pass(_) => drop(frames.next()),
                    _ => {}
                }
            }
            runs
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

        #[test]
        fn runs_mean_what_an_entry_for_each_frame_would(changes in vec(change(), 1..80)) {
            let mut dense = Dense { segment: 1, ..Dense::default() };
            let mut runs = Runs::new(1);
            // What happened to which segment, and the next position then.
            let mut log: Vec<(u64, Change, u64)> = Vec::new();
            let mut damaged = std::collections::BTreeSet::new();
            for change in changes {
                let end = runs.end();
                match change {
                    Change::Push(count, length) => {
                        runs.push(&dense.put(end, count, length));
                        log.push((dense.segment, change, end));
                    }
                    Change::Pass(length) => {
                        dense.put(end, 0, length);
                        log.push((dense.segment, change, end));
                    }
                    Change::Truncate(back) => {
                        let from = end.saturating_sub(back).max(runs.start());
                        runs.truncate(from);
                        dense.items.split_off(&from);
                        log.push((dense.segment, change, from));
                    }
                    Change::Restart(ahead) => {
                        runs.restart(end + ahead);
                        dense.items.clear();
                        log.push((dense.segment, change, end + ahead));
                    }
                    Change::Damage(length) => {
                        runs.skip(end + length);
                        damaged.insert(dense.segment);
                    }
                    Change::Rotate => {
                        dense.segment += 1;
                        dense.offset = 64;
                    }
                    Change::DropBelow(back) => {
                        let bound = dense.segment.saturating_sub(back);
                        runs.drop_below(bound);
                        let frames = &dense.frames;
                        dense.items.retain(|_, frame| frames[*frame].segment >= bound);
                    }
                    Change::Rewrite(back, times) => {
                        let segment = dense.segment.saturating_sub(back);
                        if segment == dense.segment || segment == 0 || damaged.contains(&segment) {
                            continue;
                        }
                        let mut offset = 64;
                        for frame in dense.frames.iter_mut().filter(|f| f.segment == segment) {
                            frame.length = (frame.length * times).min(1 << 20);
                            frame.offset = offset;
                            offset += u64::from(frame.length);
                        }
                        let alone = dense.alone(segment, &log);
                        runs.replace(segment, alone.of(segment).copied());
                    }
                }
                let held: Vec<u64> =
                    runs.from(0).flat_map(|run| run.first..run.end()).collect();
                prop_assert_eq!(held, dense.items.keys().copied().collect::<Vec<_>>());
                for (position, frame) in &dense.items {
                    let run = runs.from(*position).next().unwrap();
                    prop_assert_eq!(dense.walk(run, *position), *frame);
                    prop_assert!(runs.live(&dense.frames[*frame]).contains(position));
                }
                for (number, frame) in dense.frames.iter().enumerate() {
                    let live = runs.live(frame);
                    let items = dense.items.iter().filter(|(_, of)| **of == number);
                    prop_assert_eq!(live.count(), items.count(), "of {:?}", frame);
                }
                for run in runs.from(0) {
                    let frames = dense.frames.iter().filter(|f| {
                        f.segment == run.segment && f.offset == run.offset
                    });
                    let alone = frames.map(|f| u64::from(f.length)).max().unwrap();
                    prop_assert!(u64::from(run.length) <= RUN_BYTES.max(alone));
                }
            }
        }
    }

    #[test]
    fn a_million_small_frames_take_little_memory() {
        let mut runs = Runs::new(1);
        for number in 0..1_000_000_u64 {
            let (first, offset) = (1 + number, number * 400);
            runs.push(&FrameRef { first, count: 1, segment: 1, offset, length: 400 });
        }
        assert!(runs.memory() < 500_000, "{}", runs.memory());
    }
}
