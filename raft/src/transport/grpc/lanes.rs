//! In which order messages leave, and which of them are kept back or dropped. Pure: time comes in as a value.
//!
//! Two lanes: what elections and commitment depend on overtakes entries. In each lane the groups take turns, message by message, and
//! each has a bound of its own, so that one that floods the peer delays the others by a message each and takes no room from them. All together
//! have a bound too. Where that is reached, the group that has most in the lane loses its newest message, be it the one that
//! comes: Raft sends again what matters. Signs of life of the process ([`GroupId::PROCESS`]) stand for all quiet groups and are never lost to make
//! room: their own bound is enough.
//!
//! **Gathering.** A heartbeat that nobody waits for ([`Envelope::can_wait`]), and the answer to one, may be kept back for a little while, for
//! those of other groups that are due soon: they travel together. Anything else leaves at once, and takes along what waits.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use super::frame::Lane;
use crate::message::{Envelope, Message};
use crate::types::GroupId;

/// Bounds of one lane. One message may exceed those of bytes if nothing else waits.
#[derive(Clone, Copy, Debug)]
pub(super) struct LaneLimits {
    /// Messages of one group.
    pub(super) group_messages: usize,
    /// Bytes of one group.
    pub(super) group_bytes: usize,
    /// Messages of all groups.
    pub(super) messages: usize,
    /// Bytes of all groups.
    pub(super) bytes: usize,
}

/// What waits for one peer.
#[derive(Debug)]
pub(super) struct Lanes {
    limits: LaneLimits,
    /// How long a message may be kept back.
    gather: Duration,
    urgent: Fair,
    bulk: Fair,
    /// Urgent messages that cannot wait.
    hurried: usize,
    /// When the oldest of those that can came.
    gathering_since: Option<Duration>,
}

/// Messages of many groups, which take turns.
#[derive(Debug, Default)]
struct Fair {
    /// Groups that have spoken; kept for their memory.
    groups: BTreeMap<GroupId, Waiting>,
    /// Groups of which messages wait, in the order of their turns.
    turns: VecDeque<GroupId>,
    messages: usize,
    bytes: usize,
}

#[derive(Debug, Default)]
struct Waiting {
    envelopes: VecDeque<Envelope>,
    bytes: usize,
}

/// Messages for which an empty queue keeps its memory.
const KEPT_ROOM: usize = 64;

impl Waiting {
    /// A thousand groups that have been busy once do not hold on to what they needed then.
    fn is_empty_now(&mut self) {
        self.envelopes.shrink_to(KEPT_ROOM);
    }
}

impl Lanes {
    pub(super) fn new(limits: LaneLimits, gather: Duration) -> Self {
        Self {
            limits,
            gather,
            urgent: Fair::default(),
            bulk: Fair::default(),
            hurried: 0,
            gathering_since: None,
        }
    }

    /// Adds a message at the end of its group's. Returns how many were dropped for it: one, perhaps itself, or none.
    pub(super) fn push(&mut self, now: Duration, envelope: Envelope) -> u64 {
        let (lane, can_wait) = (lane_of(&envelope.message), envelope.can_wait);
        let fair = match lane {
            Lane::Urgent => &mut self.urgent,
            Lane::Bulk => &mut self.bulk,
        };
        if !fair.has_room_for(&envelope, &self.limits) {
            return 1;
        }
        fair.push(envelope);
        if lane == Lane::Urgent {
            if can_wait {
                self.gathering_since.get_or_insert(now);
            } else {
                self.hurried += 1;
            }
        }
        let Some(lost) = fair.shed(&self.limits) else { return 0 };
        if lane == Lane::Urgent && !lost.can_wait {
            self.hurried -= 1;
        }
        self.settle();
        1
    }

    /// Whether something is to leave at `now`, or when; `None` if nothing waits.
    pub(super) fn ready_at(&self) -> Option<Duration> {
        if self.hurried > 0 || self.bulk.messages > 0 {
            return Some(Duration::ZERO);
        }
        self.gathering_since.map(|since| since.saturating_add(self.gather))
    }

    /// The next urgent message, whether it can wait or not: once one leaves, all do.
    pub(super) fn pop_urgent(&mut self) -> Option<Envelope> {
        let envelope = self.urgent.pop()?;
        if !envelope.can_wait {
            self.hurried -= 1;
        }
        self.settle();
        Some(envelope)
    }

    pub(super) fn pop_bulk(&mut self) -> Option<Envelope> {
        self.bulk.pop()
    }

    /// Forgets everything that waits; returns how many messages that was.
    pub(super) fn clear(&mut self) -> u64 {
        let count = self.urgent.messages + self.bulk.messages;
        *self = Self::new(self.limits, self.gather);
        u64::try_from(count).unwrap_or(u64::MAX)
    }

    fn settle(&mut self) {
        if self.urgent.messages == 0 {
            self.gathering_since = None;
        }
    }
}

impl Fair {
    fn has_room_for(&self, envelope: &Envelope, limits: &LaneLimits) -> bool {
        let Some(waiting) = self.groups.get(&envelope.group) else { return true };
        let bytes = waiting.bytes.saturating_add(envelope.message.weight());
        waiting.envelopes.is_empty()
            || (waiting.envelopes.len() < limits.group_messages && bytes <= limits.group_bytes)
    }

    fn push(&mut self, envelope: Envelope) {
        let (group, bytes) = (envelope.group, envelope.message.weight());
        let waiting = self.groups.entry(group).or_default();
        if waiting.envelopes.is_empty() {
            self.turns.push_back(group);
        }
        waiting.envelopes.push_back(envelope);
        waiting.bytes += bytes;
        self.messages += 1;
        self.bytes += bytes;
    }

    fn pop(&mut self) -> Option<Envelope> {
        let group = self.turns.pop_front()?;
        let waiting = self.groups.get_mut(&group).expect("who has a turn has spoken");
        let envelope = waiting.envelopes.pop_front().expect("who has a turn waits");
        waiting.bytes -= envelope.message.weight();
        if waiting.envelopes.is_empty() {
            waiting.is_empty_now();
        } else {
            self.turns.push_back(group);
        }
        self.messages -= 1;
        self.bytes -= envelope.message.weight();
        Some(envelope)
    }

    /// If all groups together have too much, takes the newest message of the one that has most.
    fn shed(&mut self, limits: &LaneLimits) -> Option<Envelope> {
        let is_over = self.messages > limits.messages || self.bytes > limits.bytes;
        if !is_over || self.messages == 1 {
            return None;
        }
        let others = self.groups.iter_mut().filter(|(group, _)| **group != GroupId::PROCESS);
        let (&group, waiting) = others.max_by_key(|(_, waiting)| waiting.bytes)?;
        // Nothing, if only the process has something.
        let lost = waiting.envelopes.pop_back()?;
        waiting.bytes -= lost.message.weight();
        if waiting.envelopes.is_empty() {
            waiting.is_empty_now();
            self.turns.retain(|&turn| turn != group);
        }
        self.messages -= 1;
        self.bytes -= lost.message.weight();
        Some(lost)
    }
}

/// The lane of a message: everything without entries or snapshot data is urgent.
pub(super) fn lane_of(message: &Message) -> Lane {
    if message.payload().is_some() { Lane::Bulk } else { Lane::Urgent }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use lattice_trace::Cause;

    use super::*;
    use crate::types::{ClusterId, Entry, EntryId, LogIndex, NodeId, Payload, StoreId, Term};

    const LIMITS: LaneLimits =
        LaneLimits { group_messages: 3, group_bytes: 4096, messages: 8, bytes: 1 << 20 };
    const GATHER: Duration = Duration::from_millis(25);

    fn envelope(group: u64, message: Message) -> Envelope {
        Envelope {
            cluster: ClusterId(1),
            group: GroupId(group),
            from: NodeId(1),
            to: NodeId(2),
            store: StoreId(1),
            term: Term(1),
            cause: Cause { node: 0, seq: 0 },
            can_wait: false,
            message,
        }
    }

    fn heartbeat(group: u64, round: u64) -> Envelope {
        envelope(group, Message::Heartbeat { commit: LogIndex(0), round })
    }

    fn patient(group: u64) -> Envelope {
        Envelope { can_wait: true, ..heartbeat(group, 0) }
    }

    fn append(group: u64, bytes: usize) -> Envelope {
        let payload = Payload::Command(Bytes::from(vec![0; bytes]));
        let entries = vec![Entry { id: EntryId::ZERO, session: None, payload }].into();
        envelope(group, Message::Append { previous: EntryId::ZERO, entries, commit: LogIndex(0) })
    }

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    fn lanes() -> Lanes {
        Lanes::new(LIMITS, GATHER)
    }

    #[test]
    fn heartbeats_overtake_entries() {
        let mut lanes = lanes();
        for envelope in [append(1, 10), heartbeat(1, 1), heartbeat(1, 2)] {
            assert_eq!(lanes.push(ms(0), envelope), 0);
        }
        assert_eq!(lanes.pop_urgent(), Some(heartbeat(1, 1)));
        assert_eq!(lanes.pop_urgent(), Some(heartbeat(1, 2)));
        assert_eq!(lanes.pop_urgent(), None);
        assert_eq!(lanes.pop_bulk(), Some(append(1, 10)));
        assert_eq!((lanes.pop_bulk(), lanes.ready_at()), (None, None));
    }

    #[test]
    fn heartbeats_that_nobody_waits_for_leave_together_after_the_time_to_gather() {
        let mut lanes = lanes();
        for (at, group) in [(100, 1), (110, 2), (124, 3)] {
            lanes.push(ms(at), patient(group));
            assert_eq!(lanes.ready_at(), Some(ms(125)), "the first one decides");
        }
        let all: Vec<_> = std::iter::from_fn(|| lanes.pop_urgent()).collect();
        assert_eq!(all, [patient(1), patient(2), patient(3)]);
        assert_eq!(lanes.ready_at(), None);
        lanes.push(ms(130), patient(1));
        assert_eq!(lanes.ready_at(), Some(ms(155)), "a new while begins");
    }

    #[test]
    fn a_heartbeat_that_confirms_reads_leaves_at_once_and_takes_the_others_along() {
        let mut lanes = lanes();
        lanes.push(ms(100), patient(1));
        lanes.push(ms(101), heartbeat(2, 7));
        assert_eq!(lanes.ready_at(), Some(Duration::ZERO));
        assert_eq!(lanes.pop_urgent(), Some(patient(1)));
        assert_eq!(lanes.pop_urgent(), Some(heartbeat(2, 7)));
        assert_eq!(lanes.ready_at(), None);
    }

    #[test]
    fn a_group_that_floods_the_peer_takes_neither_turns_nor_room_from_others() {
        let mut lanes = lanes();
        let dropped: u64 = (0..100).map(|_| lanes.push(ms(0), append(1, 10))).sum();
        assert_eq!(dropped, 97, "three messages of a group are the limit");
        assert_eq!(lanes.push(ms(0), append(2, 20)), 0);
        let order: Vec<_> =
            std::iter::from_fn(|| lanes.pop_bulk()).map(|envelope| envelope.group.0).collect();
        assert_eq!(order, [1, 2, 1, 1], "the second group waits for one message, not for three");
    }

    #[test]
    fn the_bytes_of_a_group_are_bounded_but_one_message_passes_alone() {
        let mut lanes = lanes();
        assert_eq!(lanes.push(ms(0), append(1, 3000)), 0);
        assert_eq!(lanes.push(ms(0), append(1, 3000)), 1, "4096 bytes are the limit");
        assert_eq!(lanes.push(ms(0), heartbeat(1, 1)), 0, "the other lane has room");
        assert_eq!(lanes.push(ms(0), append(2, 5000)), 0);
        assert_eq!(lanes.clear(), 3);
        assert_eq!(lanes.ready_at(), None);
    }

    #[test]
    fn signs_of_life_of_the_process_make_room_for_nobody() {
        let alive = || heartbeat(GroupId::PROCESS.0, 0);
        let mut lanes = lanes();
        for envelope in [alive(), alive(), alive()] {
            assert_eq!(lanes.push(ms(0), envelope), 0);
        }
        let dropped: u64 = (1..=6).map(|group| lanes.push(ms(0), heartbeat(group, 0))).sum();
        assert_eq!(dropped, 1, "eight messages are the limit");
        let left: Vec<_> = std::iter::from_fn(|| lanes.pop_urgent()).collect();
        assert_eq!(left.iter().filter(|left| **left == alive()).count(), 3);
        assert_eq!(lanes.ready_at(), None);
        let tight = LaneLimits { messages: 2, ..LIMITS };
        let mut lanes = Lanes::new(tight, GATHER);
        let dropped: u64 = (0..3).map(|_| lanes.push(ms(0), alive())).sum();
        assert_eq!(dropped, 0, "there is nobody else to give way");
    }

    #[test]
    fn a_queue_that_was_long_gives_its_memory_back_when_it_is_empty() {
        let limits = LaneLimits { group_messages: 10_000, messages: 10_000, ..LIMITS };
        let mut lanes = Lanes::new(LaneLimits { group_bytes: 1 << 30, ..limits }, GATHER);
        for round in 0..5_000 {
            assert_eq!(lanes.push(ms(0), heartbeat(1, round)), 0);
        }
        while lanes.pop_urgent().is_some() {}
        assert!(lanes.urgent.groups[&GroupId(1)].envelopes.capacity() < 1_000);
    }

    #[test]
    fn when_all_groups_have_too_much_together_the_one_with_most_gives_way() {
        let mut lanes = lanes();
        for (group, round) in [(1, 0), (1, 1), (1, 2), (2, 0), (2, 1), (3, 0), (4, 0), (5, 0)] {
            assert_eq!(lanes.push(ms(0), heartbeat(group, round)), 0);
        }
        assert_eq!(lanes.push(ms(0), heartbeat(6, 0)), 1, "eight messages are the limit");
        let left: Vec<_> =
            std::iter::from_fn(|| lanes.pop_urgent()).map(|envelope| envelope.group.0).collect();
        assert_eq!(left, [1, 2, 3, 4, 5, 6, 1, 2], "the first group has lost one of its three");
        assert_eq!(lanes.ready_at(), None, "nothing is counted that is not there");
    }
}
