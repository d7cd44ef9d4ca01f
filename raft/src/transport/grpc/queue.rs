//! What waits to be sent to one peer.
//!
//! Two lanes, each bounded in messages and in bytes: what elections and commitment depend on
//! overtakes entries. A full lane refuses the newcomer, since Raft sends again what matters; the
//! caller never waits.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use super::frame::Lane;
use crate::message::{Envelope, Message};
use crate::types::Entry;

/// Two bounded lanes; many put in, one takes out.
#[derive(Debug)]
pub(super) struct Queue {
    lanes: Mutex<Lanes>,
    arrived: Notify,
    messages_max: usize,
    bytes_max: usize,
}

#[derive(Debug, Default)]
struct Lanes {
    urgent: Waiting,
    bulk: Waiting,
}

#[derive(Debug, Default)]
struct Waiting {
    envelopes: VecDeque<Envelope>,
    bytes: usize,
}

impl Queue {
    /// With room for `messages_max` messages and `bytes_max` bytes in each lane. A single message
    /// may exceed the bytes.
    pub(super) fn new(messages_max: usize, bytes_max: usize) -> Self {
        let lanes = Mutex::new(Lanes::default());
        Self { lanes, arrived: Notify::new(), messages_max, bytes_max }
    }

    /// Adds an envelope at the end of its lane; says whether there was room.
    pub(super) fn push(&self, envelope: Envelope) -> bool {
        let mut lanes = self.lock();
        let lane = match lane_of(&envelope.message) {
            Lane::Urgent => &mut lanes.urgent,
            Lane::Bulk => &mut lanes.bulk,
        };
        let bytes = lane.bytes.saturating_add(weight(&envelope.message));
        let full = lane.envelopes.len() >= self.messages_max || bytes > self.bytes_max;
        if full && !lane.envelopes.is_empty() {
            return false;
        }
        lane.bytes = bytes;
        lane.envelopes.push_back(envelope);
        drop(lanes);
        self.arrived.notify_one();
        true
    }

    /// Takes the oldest urgent envelope, or, where `bulk` allows it, the oldest of the other lane.
    pub(super) fn pop(&self, bulk: bool) -> Option<(Lane, Envelope)> {
        let mut lanes = self.lock();
        if let Some(envelope) = lanes.urgent.pop() {
            return Some((Lane::Urgent, envelope));
        }
        let envelope = if bulk { lanes.bulk.pop() } else { None };
        envelope.map(|envelope| (Lane::Bulk, envelope))
    }

    /// Returns once something waits. For one task at a time.
    pub(super) async fn filled(&self) {
        while self.is_empty() {
            self.arrived.notified().await;
        }
    }

    /// Forgets everything that waits; says how many messages that was.
    pub(super) fn clear(&self) -> u64 {
        let mut lanes = self.lock();
        let count = lanes.urgent.envelopes.len() + lanes.bulk.envelopes.len();
        *lanes = Lanes::default();
        u64::try_from(count).unwrap_or(u64::MAX)
    }

    fn is_empty(&self) -> bool {
        let lanes = self.lock();
        lanes.urgent.envelopes.is_empty() && lanes.bulk.envelopes.is_empty()
    }

    fn lock(&self) -> MutexGuard<'_, Lanes> {
        // No code that holds the lock can leave the lanes half changed.
        self.lanes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Waiting {
    fn pop(&mut self) -> Option<Envelope> {
        let envelope = self.envelopes.pop_front()?;
        self.bytes = self.bytes.saturating_sub(weight(&envelope.message));
        Some(envelope)
    }
}

/// The lane of a message: everything without entries or snapshot data is urgent.
pub(super) fn lane_of(message: &Message) -> Lane {
    match message {
        Message::Append { entries, .. } if entries.is_empty() => Lane::Urgent,
        Message::Append { .. } | Message::SnapshotChunk { .. } | Message::FetchedEntries { .. } => {
            Lane::Bulk
        }
        Message::PreVote { .. }
        | Message::PreVoteReply { .. }
        | Message::Vote { .. }
        | Message::VoteReply { .. }
        | Message::AppendAccepted { .. }
        | Message::AppendRejected { .. }
        | Message::Heartbeat { .. }
        | Message::HeartbeatReply { .. }
        | Message::ReadIndex { .. }
        | Message::ReadIndexReply { .. }
        | Message::SnapshotAck { .. }
        | Message::TimeoutNow
        | Message::Removed
        | Message::FetchEntries { .. }
        | Message::WrongStore { .. } => Lane::Urgent,
    }
}

/// What a message weighs against a lane's bytes: its payload and a constant for the rest.
fn weight(message: &Message) -> usize {
    const OVERHEAD: usize = 128;
    let payload = match message {
        Message::Append { entries, .. } => entries.iter().map(Entry::size).sum(),
        Message::FetchedEntries { entries, .. } => entries.iter().map(Entry::size).sum(),
        Message::SnapshotChunk { data, .. } => data.len(),
        Message::PreVote { .. }
        | Message::PreVoteReply { .. }
        | Message::Vote { .. }
        | Message::VoteReply { .. }
        | Message::AppendAccepted { .. }
        | Message::AppendRejected { .. }
        | Message::Heartbeat { .. }
        | Message::HeartbeatReply { .. }
        | Message::ReadIndex { .. }
        | Message::ReadIndexReply { .. }
        | Message::SnapshotAck { .. }
        | Message::TimeoutNow
        | Message::Removed
        | Message::FetchEntries { .. }
        | Message::WrongStore { .. } => 0,
    };
    OVERHEAD + payload
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use lattice_trace::Cause;

    use super::*;
    use crate::types::{ClusterId, EntryId, GroupId, LogIndex, NodeId, Payload, StoreId, Term};

    fn envelope(message: Message) -> Envelope {
        Envelope {
            cluster: ClusterId(1),
            group: GroupId(0),
            from: NodeId(1),
            to: NodeId(2),
            store: StoreId(1),
            term: Term(1),
            cause: Cause { node: 0, seq: 0 },
            message,
        }
    }

    fn heartbeat(round: u64) -> Envelope {
        envelope(Message::Heartbeat { commit: LogIndex(0), round })
    }

    fn append(bytes: usize) -> Envelope {
        let payload = Payload::Command(Bytes::from(vec![0; bytes]));
        let entries = vec![Entry { id: EntryId::ZERO, session: None, payload }].into();
        envelope(Message::Append { previous: EntryId::ZERO, entries, commit: LogIndex(0) })
    }

    #[test]
    fn heartbeats_overtake_entries() {
        let queue = Queue::new(8, 1 << 20);
        assert!(queue.push(append(10)) && queue.push(heartbeat(1)) && queue.push(heartbeat(2)));
        let order = [queue.pop(true), queue.pop(true), queue.pop(true), queue.pop(true)];
        assert_eq!(
            order,
            [
                Some((Lane::Urgent, heartbeat(1))),
                Some((Lane::Urgent, heartbeat(2))),
                Some((Lane::Bulk, append(10))),
                None,
            ]
        );
    }

    #[test]
    fn a_full_lane_refuses_and_leaves_the_other_one_open() {
        let queue = Queue::new(2, 4096);
        assert!(queue.push(append(1)) && queue.push(append(1)));
        assert!(!queue.push(append(1)), "two messages are the limit");
        assert!(queue.push(heartbeat(1)));
        assert_eq!(queue.clear(), 3);
        assert!(queue.push(append(3000)));
        assert!(!queue.push(append(3000)), "4096 bytes are the limit");
        assert_eq!(queue.pop(true), Some((Lane::Bulk, append(3000))));
        assert!(queue.push(append(3000)), "room again");
    }

    #[test]
    fn one_message_above_the_limit_passes_alone() {
        let queue = Queue::new(2, 100);
        assert!(queue.push(append(5000)));
        assert!(!queue.push(append(1)));
        assert_eq!(queue.pop(false), None, "bulk has to wait");
        assert_eq!(queue.pop(true), Some((Lane::Bulk, append(5000))));
    }
}
