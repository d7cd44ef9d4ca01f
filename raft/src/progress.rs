//! One follower as its leader sees it: how far it is known to agree, what is under way to it, and how to go on.
//!
//! - **Probe**: where the logs part is not known. One message at a time, until one is accepted.
//! - **Replicate**: the follower agrees up to `next - 1`, if nothing under way is lost. Messages follow each other without waiting
//!   (pipelining), within a window of messages and bytes.
//! - **Snapshot**: what the follower needs is no longer in the log. It gets a snapshot, a piece at a time.

use std::collections::VecDeque;
use std::time::Duration;

use crate::types::{LogIndex, SnapshotMeta};

/// How entries reach a follower.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ProgressState {
    /// Looking for the place where the logs part.
    Probe {
        /// When the probe under way was sent; `None` if there is none.
        sent: Option<Duration>,
    },
    /// Streaming.
    Replicate,
    /// Sending a snapshot.
    Snapshot {
        /// Which one.
        meta: SnapshotMeta,
        /// The first byte that the follower has not acknowledged.
        offset: u64,
        /// When the piece under way was asked for or sent, the last time.
        sent: Duration,
        /// When it was asked for the first time.
        asked: Duration,
        /// How long an answer may take before the piece is sent again.
        patience: Duration,
        /// What [`Log::appended_bytes`](crate::log::Log::appended_bytes) was when the first piece was asked for.
        log_bytes: u64,
    },
}

/// An append under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Inflight {
    last: LogIndex,
    bytes: usize,
    sent: Duration,
}

/// How well a follower keeps up (thesis §4.2.1): rounds in which it gets what the leader had when the round began. One that needs
/// no longer than an election timeout for a round does not hold up commitment for longer than an election would.
#[derive(Clone, Copy, Debug, Default)]
struct CatchUp {
    /// The end of the round under way, and when it began.
    round: Option<(LogIndex, Duration)>,
    /// The last round was short enough.
    is_quick: bool,
}

/// What a leader knows of one follower.
#[derive(Clone, Debug)]
pub struct Progress {
    /// Everything up to here is durable there and equal to the leader's log.
    pub matched: LogIndex,
    /// The next entry to send. Always above `matched`.
    pub next: LogIndex,
    /// How to go on.
    pub state: ProgressState,
    /// When something was last heard from it.
    pub contact: Duration,
    /// The latest read round that it has acknowledged.
    pub round: u64,
    /// The commit index that it was last told.
    pub told_commit: LogIndex,
    /// Entries for it are being read from the log store.
    pub is_reading: bool,
    /// Its log is damaged, as it said when it was last heard: it acknowledges nothing until that is repaired.
    pub is_damaged: bool,
    catch_up: CatchUp,
    inflight: VecDeque<Inflight>,
    inflight_bytes: usize,
}

impl Progress {
    /// A follower of which nothing is known; `last` is the leader's last entry.
    #[must_use]
    pub fn new(last: LogIndex, now: Duration) -> Self {
        Self {
            matched: LogIndex::ZERO,
            next: last.next(),
            state: ProgressState::Probe { sent: None },
            contact: now,
            round: 0,
            told_commit: LogIndex::ZERO,
            is_reading: false,
            is_damaged: false,
            catch_up: CatchUp::default(),
            inflight: VecDeque::new(),
            inflight_bytes: 0,
        }
    }

    /// Whether another append may be under way.
    #[must_use]
    pub fn has_room(&self, messages_max: usize, bytes_max: usize) -> bool {
        self.inflight.len() < messages_max && self.inflight_bytes < bytes_max
    }

    /// Whether nothing is under way.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.inflight.is_empty()
    }

    /// An append that ends with `last` is on its way.
    pub fn sent(&mut self, last: LogIndex, bytes: usize, now: Duration) {
        debug_assert_eq!(self.state, ProgressState::Replicate);
        self.next = last.next();
        self.inflight.push_back(Inflight { last, bytes, sent: now });
        self.inflight_bytes += bytes;
    }

    /// The follower has everything up to `matched`. Returns whether that is news.
    pub fn accepted(&mut self, matched: LogIndex) -> bool {
        while self.inflight.front().is_some_and(|inflight| inflight.last <= matched) {
            let done = self.inflight.pop_front().expect("just looked at");
            self.inflight_bytes -= done.bytes;
        }
        let is_news = matched > self.matched;
        self.matched = self.matched.max(matched);
        self.next = self.next.max(self.matched.next());
        is_news
    }

    /// Notes how well the follower keeps up, after an acknowledgement: `last` is the leader's last entry, and a round is quick if it takes
    /// no longer than `within`.
    pub fn note_round(&mut self, last: LogIndex, now: Duration, within: Duration) {
        let CatchUp { round, is_quick } = &mut self.catch_up;
        if self.matched >= last {
            (*round, *is_quick) = (None, true);
            return;
        }
        match *round {
            Some((target, begun)) if self.matched >= target => {
                *is_quick = now <= begun + within;
                *round = Some((last, now));
            }
            Some(_) => {}
            None => *round = Some((last, now)),
        }
    }

    /// Whether the follower keeps up: its log is whole, it streams, its last round was quick, the one under way is not late, and it was heard from
    /// within the time a round may take.
    #[must_use]
    pub fn is_in_sync(&self, now: Duration, within: Duration) -> bool {
        let CatchUp { round, is_quick } = self.catch_up;
        self.state == ProgressState::Replicate
            && !self.is_damaged
            && is_quick
            && round.is_none_or(|(_, begun)| now <= begun + within)
            && now < self.contact + within
    }

    /// Goes back to looking for the place where the logs part, from `next` on, but never below what is known to agree.
    pub fn probe(&mut self, next: LogIndex) {
        self.state = ProgressState::Probe { sent: None };
        self.next = next.max(self.matched.next());
        self.forget_inflight();
    }

    /// The logs agree up to `matched`: stream from there.
    pub fn replicate(&mut self) {
        self.state = ProgressState::Replicate;
        self.next = self.matched.next();
        self.forget_inflight();
    }

    /// Begins to send a snapshot, whose first piece may remain without an answer for `patience`, when `log_bytes` had been appended.
    pub fn snapshot(
        &mut self,
        meta: SnapshotMeta,
        now: Duration,
        patience: Duration,
        log_bytes: u64,
    ) {
        let (sent, asked) = (now, now);
        self.state = ProgressState::Snapshot { meta, offset: 0, sent, asked, patience, log_bytes };
        self.forget_inflight();
    }

    /// Whether the oldest append under way has been unanswered since before `limit`.
    #[must_use]
    pub fn is_overdue(&self, limit: Duration) -> bool {
        self.inflight.front().is_some_and(|inflight| inflight.sent <= limit)
    }

    /// Feeds everything that decides what the leader does with this follower; see `raft_node/digest.rs`.
    #[cfg(feature = "sim")]
    pub(crate) fn digest(&self, clock: ProgressClock, into: &mut impl std::hash::Hasher) {
        use std::hash::Hash;
        let Self {
            matched,
            next,
            state,
            contact,
            round,
            told_commit,
            is_reading,
            is_damaged,
            // Matters to orders of operators only, which the check does not give.
            catch_up: _,
            inflight,
            inflight_bytes: _,
        } = self;
        (matched, next, round, told_commit, is_reading, is_damaged).hash(into);
        clock.age(*contact).hash(into);
        match state {
            ProgressState::Probe { sent } => (0, sent.map(|sent| clock.age(sent))).hash(into),
            ProgressState::Replicate => 1.hash(into),
            // Limits in bytes are never reached in the check's small worlds.
            ProgressState::Snapshot { meta, offset, sent, asked, patience, log_bytes: _ } => {
                (2, meta.last, offset, clock.age(*sent), clock.age(*asked), patience).hash(into);
            }
        }
        for Inflight { last, bytes: _, sent } in inflight {
            (last, clock.age(*sent)).hash(into);
        }
    }

    fn forget_inflight(&mut self) {
        self.inflight.clear();
        self.inflight_bytes = 0;
    }
}

/// Makes times into ages, so that a digest does not depend on when something happened.
#[cfg(feature = "sim")]
#[derive(Clone, Copy, Debug)]
pub(crate) struct ProgressClock {
    pub(crate) now: Duration,
    /// The age beyond which nothing changes any more.
    pub(crate) cap: Duration,
}

#[cfg(feature = "sim")]
impl ProgressClock {
    fn age(self, time: Duration) -> Duration {
        self.now.saturating_sub(time).min(self.cap)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn index(index: u64) -> LogIndex {
        LogIndex(index)
    }

    fn replicating(matched: u64) -> Progress {
        let mut progress = Progress::new(index(10), Duration::ZERO);
        progress.accepted(index(matched));
        progress.replicate();
        progress
    }

    #[test]
    fn the_window_closes_by_messages_and_by_bytes_and_opens_with_acknowledgements() {
        let mut progress = replicating(10);
        progress.sent(index(12), 100, Duration::ZERO);
        progress.sent(index(13), 50, Duration::ZERO);
        assert!(progress.has_room(3, 200));
        assert!(!progress.has_room(2, 200), "two messages are under way");
        assert!(!progress.has_room(3, 150), "150 bytes are under way");
        assert!(progress.accepted(index(12)));
        assert!(progress.has_room(2, 150));
        assert_eq!((progress.matched, progress.next), (index(12), index(14)));
    }

    #[test]
    fn a_repeated_or_late_acknowledgement_moves_nothing_back() {
        let mut progress = replicating(10);
        progress.sent(index(15), 1, Duration::ZERO);
        assert!(progress.accepted(index(15)));
        assert!(!progress.accepted(index(12)));
        assert_eq!((progress.matched, progress.next), (index(15), index(16)));
    }

    #[test]
    fn a_follower_is_in_sync_when_it_gets_what_there_was_within_the_time() {
        let ms = Duration::from_millis;
        let within = ms(100);
        let mut progress = replicating(10);
        assert!(!progress.is_in_sync(ms(0), within), "nothing was measured yet");
        progress.note_round(index(50), ms(0), within);
        assert!(!progress.is_in_sync(ms(10), within), "the first round is under way");
        progress.contact = ms(150);
        progress.accepted(index(50));
        progress.note_round(index(90), ms(150), within);
        assert!(!progress.is_in_sync(ms(150), within), "it took 150 ms");
        progress.accepted(index(90));
        progress.note_round(index(120), ms(200), within);
        assert!(progress.is_in_sync(ms(200), within), "it took 50 ms");
        assert!(!progress.is_in_sync(ms(250), within), "silent for 100 ms");
        progress.contact = ms(301);
        assert!(!progress.is_in_sync(ms(301), within), "the third round is late");
        progress.accepted(index(120));
        progress.note_round(index(120), ms(301), within);
        assert!(progress.is_in_sync(ms(301), within), "it has everything");
    }

    #[test]
    fn probing_never_goes_below_what_is_known_to_agree() {
        let mut progress = replicating(10);
        progress.probe(index(3));
        assert_eq!(progress.next, index(11));
    }
}
