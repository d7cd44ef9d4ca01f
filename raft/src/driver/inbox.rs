//! What arrives from peers and waits to be looked at: bounded in messages and in bytes. What does not fit is dropped, as a network would.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use tokio::sync::mpsc::{self, Receiver};

use crate::message::Envelope;
use crate::transport::Inbox;

use super::Limits;

/// A message and what it weighs.
#[derive(Debug)]
pub(super) struct Arrived {
    envelope: Envelope,
    bytes: usize,
}

/// The messages that wait.
#[derive(Debug)]
pub(super) struct Messages {
    queue: Receiver<Arrived>,
    /// What they weigh together.
    bytes: Arc<AtomicUsize>,
}

/// An inbox, what comes out of it, and how many messages it had no room for.
pub(super) fn open(limits: &Limits) -> (Inbox, Messages, Arc<AtomicU64>) {
    let (sender, queue) = mpsc::channel(limits.messages.max(1));
    let bytes_max = limits.message_bytes;
    let (waiting, dropped) = (Arc::<AtomicUsize>::default(), Arc::<AtomicU64>::default());
    let messages = Messages { queue, bytes: Arc::clone(&waiting) };
    let counter = Arc::clone(&dropped);
    let deliver = move |envelope: Envelope| {
        let bytes = envelope.message.weight();
        let before = waiting.fetch_add(bytes, Ordering::Relaxed);
        // One that is larger than all room has it to itself: it would never come through otherwise.
        let fits = before == 0 || before.saturating_add(bytes) <= bytes_max;
        if !fits || sender.try_send(Arrived { envelope, bytes }).is_err() {
            waiting.fetch_sub(bytes, Ordering::Relaxed);
            counter.fetch_add(1, Ordering::Relaxed);
        }
    };
    (Inbox::new(deliver), messages, dropped)
}

impl Messages {
    /// Waits for messages and moves up to `count` of them into `arrived`; returns how many, none once the inbox is gone. Loses nothing when
    /// it is dropped.
    pub(super) async fn recv_many(&mut self, arrived: &mut Vec<Arrived>, count: usize) -> usize {
        self.queue.recv_many(arrived, count).await
    }

    /// A message that is looked at now: others may wait in its place.
    pub(super) fn take(&self, arrived: Arrived) -> Envelope {
        self.bytes.fetch_sub(arrived.bytes, Ordering::Relaxed);
        arrived.envelope
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use lattice_trace::Cause;

    use crate::message::Message;
    use crate::types::{
        ClusterId, Entry, EntryId, GroupId, LogIndex, NodeId, Payload, StoreId, Term,
    };

    use super::*;

    fn append(command_bytes: usize) -> Envelope {
        let payload = Payload::Command(Bytes::from(vec![0; command_bytes]));
        let entry = Entry { id: EntryId::new(Term(1), LogIndex(1)), session: None, payload };
        Envelope {
            cluster: ClusterId(1),
            group: GroupId(0),
            from: NodeId(1),
            to: NodeId(2),
            store: StoreId(1),
            term: Term(1),
            cause: Cause::default(),
            can_wait: false,
            message: Message::Append {
                previous: EntryId::ZERO,
                entries: vec![entry].into(),
                commit: LogIndex(0),
            },
        }
    }

    #[tokio::test]
    async fn messages_wait_in_bounded_memory_and_one_always_has_room() {
        let limits = Limits { message_bytes: 10_000, ..Limits::default() };
        let (inbox, mut messages, dropped) = open(&limits);
        for (bytes, dropped_by_then) in [(6_000, 0), (6_000, 1), (2_000, 1)] {
            inbox.deliver(append(bytes));
            assert_eq!(dropped.load(Ordering::Relaxed), dropped_by_then, "{bytes} more");
        }
        let mut arrived = Vec::new();
        assert_eq!(messages.recv_many(&mut arrived, 10).await, 2);
        inbox.deliver(append(6_000));
        assert_eq!(dropped.load(Ordering::Relaxed), 2, "what was not looked at yet counts");
        let taken: Vec<_> = arrived.drain(..).map(|message| messages.take(message)).collect();
        assert_eq!(taken, [append(6_000), append(2_000)]);
        inbox.deliver(append(20_000));
        inbox.deliver(append(0));
        assert_eq!(dropped.load(Ordering::Relaxed), 3, "the large one alone is taken");
        assert_eq!(messages.recv_many(&mut arrived, 10).await, 1);
    }
}
