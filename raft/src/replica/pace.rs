//! How fast pieces of snapshots are read and sent: so many bytes a second, over all followers together.
//!
//! A snapshot may be large and is never urgent; what it must not do is fill a link, or a disk, that heartbeats and entries need. One
//! piece is read at a time, for the follower that has waited longest. After a piece of *n* bytes the next one waits until the time
//! that *n* bytes may take has passed, but idle time is not saved up: there are no bursts.

use std::collections::VecDeque;
use std::time::Duration;

use crate::types::{NodeId, SnapshotMeta};

/// A piece that a follower waits for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Wanted {
    pub(super) to: NodeId,
    pub(super) meta: SnapshotMeta,
    pub(super) offset: u64,
}

/// The pieces that wait, and when the next may go.
#[derive(Debug)]
pub(super) struct Pace {
    bytes_per_second: u64,
    /// One for each follower at most.
    waiting: VecDeque<Wanted>,
    /// A piece is being read for this node.
    reading: Option<NodeId>,
    not_before: Duration,
}

impl Pace {
    /// At least one byte a second.
    pub(super) fn new(bytes_per_second: u64) -> Self {
        Self {
            bytes_per_second: bytes_per_second.max(1),
            waiting: VecDeque::new(),
            reading: None,
            not_before: Duration::ZERO,
        }
    }

    /// A follower wants a piece. It takes the place in the line of what the same follower wanted before.
    pub(super) fn ask(&mut self, wanted: Wanted) {
        match self.waiting.iter_mut().find(|waiting| waiting.to == wanted.to) {
            Some(waiting) => *waiting = wanted,
            None => self.waiting.push_back(wanted),
        }
    }

    /// The piece to read now.
    pub(super) fn next(&mut self, now: Duration) -> Option<Wanted> {
        if self.reading.is_some() || now < self.not_before {
            return None;
        }
        let wanted = self.waiting.pop_front()?;
        self.reading = Some(wanted.to);
        Some(wanted)
    }

    /// The piece was read, or could not be.
    pub(super) fn read(&mut self, now: Duration, to: NodeId, bytes: usize) {
        if self.reading.take_if(|reading| *reading == to).is_some() {
            let bytes = u128::try_from(bytes).expect("a length fits 128 bits");
            let nanos = bytes * 1_000_000_000 / u128::from(self.bytes_per_second);
            let nanos = u64::try_from(nanos).unwrap_or(u64::MAX);
            self.not_before = now.saturating_add(Duration::from_nanos(nanos));
        }
    }

    /// Nobody waits any more: the node does not lead.
    pub(super) fn forget(&mut self) {
        self.waiting.clear();
    }

    /// When the next piece may go, if one waits for that.
    pub(super) fn deadline(&self) -> Option<Duration> {
        let waits = !self.waiting.is_empty() && self.reading.is_none();
        waits.then_some(self.not_before)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::membership::Membership;
    use crate::types::EntryId;

    const MS: Duration = Duration::from_millis(1);

    fn wanted(to: u64, offset: u64) -> Wanted {
        let membership = Membership::founding([NodeId(1)]);
        let meta = SnapshotMeta { last: EntryId::ZERO, membership, size: 100, checksum: 1 };
        Wanted { to: NodeId(to), meta, offset }
    }

    #[test]
    fn all_followers_share_the_pace_and_take_turns() {
        let mut pace = Pace::new(1_000);
        pace.ask(wanted(2, 0));
        pace.ask(wanted(3, 0));
        assert_eq!(pace.next(MS), Some(wanted(2, 0)));
        assert_eq!((pace.next(MS), pace.deadline()), (None, None), "one is being read");
        pace.read(MS, NodeId(2), 50);
        pace.ask(wanted(2, 50));
        assert_eq!((pace.next(50 * MS), pace.deadline()), (None, Some(51 * MS)));
        assert_eq!(pace.next(51 * MS), Some(wanted(3, 0)));
        pace.read(51 * MS, NodeId(3), 10);
        assert_eq!(pace.next(61 * MS), Some(wanted(2, 50)));
        pace.read(61 * MS, NodeId(2), 0);
        assert_eq!((pace.next(61 * MS), pace.deadline()), (None, None), "nobody waits");
    }

    #[test]
    fn who_asks_again_keeps_the_place_and_gets_what_was_asked_for_last() {
        let mut pace = Pace::new(1_000);
        pace.ask(wanted(2, 0));
        pace.ask(wanted(3, 0));
        pace.ask(wanted(2, 70));
        assert_eq!(pace.next(MS), Some(wanted(2, 70)));
        pace.read(MS, NodeId(2), 0);
        assert_eq!(pace.next(MS), Some(wanted(3, 0)));
    }

    #[test]
    fn idle_time_is_not_saved_up() {
        let mut pace = Pace::new(1_000);
        let late = Duration::from_secs(1_000);
        for offset in [0, 100] {
            pace.ask(wanted(2, offset));
            let now = late + MS * u32::try_from(offset).unwrap();
            assert_eq!(pace.next(now), Some(wanted(2, offset)));
            pace.read(now, NodeId(2), 100);
        }
        pace.ask(wanted(2, 200));
        assert_eq!(pace.deadline(), Some(late + 200 * MS));
        let mut slowest = Pace::new(0);
        slowest.ask(wanted(2, 0));
        slowest.next(late).unwrap();
        slowest.read(late, NodeId(2), usize::MAX);
        slowest.ask(wanted(2, 1));
        assert!(slowest.deadline().unwrap() > late, "no overflow");
    }

    #[test]
    fn an_answer_to_somebody_else_moves_nothing() {
        let mut pace = Pace::new(1);
        pace.ask(wanted(2, 0));
        pace.next(MS).unwrap();
        pace.read(MS, NodeId(3), 1_000);
        pace.read(2 * MS, NodeId(2), 0);
        pace.ask(wanted(2, 0));
        assert_eq!(pace.deadline(), Some(2 * MS));
        pace.forget();
        assert_eq!((pace.deadline(), pace.next(MS * 9)), (None, None));
    }
}
