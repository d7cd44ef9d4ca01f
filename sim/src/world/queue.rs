//! What is going to happen, in order: by time, then by a seeded draw, then by age.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Duration;

use lattice_trace::Cause;

use crate::process::Address;
use crate::random::{ChaCha8Rng, Rng, nanos};

/// Something that is going to happen at one address.
#[derive(Debug)]
pub(super) struct Item<M> {
    pub(super) to: Address,
    pub(super) kind: ItemKind<M>,
}

#[derive(Debug)]
pub(super) enum ItemKind<M> {
    /// A start that counts only while the node still waits for this one.
    Start {
        id: u64,
    },
    Deliver {
        from: Address,
        message: M,
        cause: Cause,
    },
    /// A timer that counts only if it is the one that the node has set last.
    Timer {
        id: u64,
    },
    Completed {
        boot: u64,
        token: u64,
        cause: Cause,
    },
    /// The end of a pause, if it is still the same one.
    Resume {
        id: u64,
    },
}

#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Key {
    at: u64,
    tie: u32,
    sequence: u64,
    slot: usize,
}

/// The queue of a world. Items stay where they are while their keys move through the heap.
#[derive(Debug)]
pub(super) struct Queue<M> {
    heap: BinaryHeap<Reverse<Key>>,
    items: Vec<Option<Item<M>>>,
    free: Vec<usize>,
    sequence: u64,
    rng: ChaCha8Rng,
}

impl<M> Queue<M> {
    pub(super) fn new(rng: ChaCha8Rng) -> Self {
        Self { heap: BinaryHeap::new(), items: Vec::new(), free: Vec::new(), sequence: 0, rng }
    }

    pub(super) fn push(&mut self, at: Duration, item: Item<M>) {
        let tie = self.rng.next_u32();
        self.push_tied(at, tie, item);
    }

    /// Before what else happens at that time, and in the order of the calls.
    pub(super) fn push_first(&mut self, at: Duration, item: Item<M>) {
        self.push_tied(at, 0, item);
    }

    fn push_tied(&mut self, at: Duration, tie: u32, item: Item<M>) {
        let slot = self.free.pop().unwrap_or_else(|| {
            self.items.push(None);
            self.items.len() - 1
        });
        self.items[slot] = Some(item);
        self.sequence += 1;
        self.heap.push(Reverse(Key { at: nanos(at), tie, sequence: self.sequence, slot }));
    }

    pub(super) fn next_at(&self) -> Option<Duration> {
        self.heap.peek().map(|Reverse(key)| Duration::from_nanos(key.at))
    }

    pub(super) fn pop(&mut self) -> Option<(Duration, Item<M>)> {
        let Reverse(key) = self.heap.pop()?;
        let item = self.items[key.slot].take().expect("a key in the heap owns its slot");
        self.free.push(key.slot);
        Some((Duration::from_nanos(key.at), item))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::stream;

    fn timer(id: u64) -> Item<()> {
        Item { to: Address(1), kind: ItemKind::Timer { id } }
    }

    fn ids(queue: &mut Queue<()>) -> Vec<u64> {
        let items = std::iter::from_fn(|| queue.pop());
        items
            .map(|(_, item)| match item.kind {
                ItemKind::Timer { id } => id,
                _ => panic!("only timers were pushed"),
            })
            .collect()
    }

    #[test]
    fn time_comes_first_then_the_draw() {
        let mut queue = Queue::new(stream(1, "test", 0));
        for id in 0..100 {
            queue.push(Duration::from_secs(10 - id / 10), timer(id));
        }
        queue.push_first(Duration::from_secs(5), timer(100));
        queue.push_first(Duration::from_secs(5), timer(101));
        assert_eq!(queue.next_at(), Some(Duration::from_secs(1)));
        let ids = ids(&mut queue);
        assert!(ids[..10].iter().all(|id| (90..100).contains(id)));
        assert_ne!(ids[..10], (90..100).collect::<Vec<_>>(), "ties are drawn");
        assert_eq!(ids[40..42], [100, 101]);
    }
}
