//! Who waits for an answer.

use tokio::sync::oneshot;

/// Callers that wait, each under a number that nobody else has as long as it waits: its slot, and how many had numbers before. A slot is used
/// again when its caller has its answer, so memory is bounded by those who wait at once. (Counting starts over after 2^40 callers: none of
/// those still waits.)
#[derive(Debug)]
pub(super) struct Waiters<T> {
    slots: Vec<Option<(u64, oneshot::Sender<T>)>>,
    free: Vec<usize>,
    count: u64,
}

/// Slots: far more than the queues let wait at once.
const SLOT_BITS: u32 = 24;

impl<T> Waiters<T> {
    pub(super) fn new() -> Self {
        Self { slots: Vec::new(), free: Vec::new(), count: 0 }
    }

    pub(super) fn len(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    /// Somebody waits; the number to answer to.
    pub(super) fn insert(&mut self, reply: oneshot::Sender<T>) -> u64 {
        let slot = self.free.pop().unwrap_or_else(|| {
            self.slots.push(None);
            self.slots.len() - 1
        });
        self.count += 1;
        assert!(slot < 1 << SLOT_BITS, "so many cannot wait at once");
        let number = (self.count << SLOT_BITS) | slot as u64;
        self.slots[slot] = Some((number, reply));
        number
    }

    /// Who waits under this number, and waits no more.
    pub(super) fn remove(&mut self, number: u64) -> Option<oneshot::Sender<T>> {
        let slot = usize::try_from(number & ((1 << SLOT_BITS) - 1)).ok()?;
        let (_, reply) = self.slots.get_mut(slot)?.take_if(|(waits, _)| *waits == number)?;
        self.free.push(slot);
        Some(reply)
    }

    /// All who wait.
    pub(super) fn drain(&mut self) -> impl Iterator<Item = oneshot::Sender<T>> {
        self.free.clear();
        std::mem::take(&mut self.slots).into_iter().flatten().map(|(_, reply)| reply)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slot_that_is_used_again_has_another_number() {
        let mut waiters = Waiters::new();
        let (first, mut answer) = oneshot::channel();
        let number = waiters.insert(first);
        waiters.remove(number).unwrap().send(7).unwrap();
        assert_eq!(answer.try_recv(), Ok(7));
        let second = waiters.insert(oneshot::channel().0);
        assert_ne!(number, second);
        assert!(waiters.remove(number).is_none(), "it has its answer");
        assert_eq!(waiters.len(), 1);
        assert!(waiters.remove(second).is_some());
        assert_eq!((waiters.len(), waiters.slots.len()), (0, 1));
        assert!(waiters.remove(u64::MAX).is_none());
    }

    #[test]
    fn all_who_wait_can_be_told() {
        let mut waiters = Waiters::new();
        let answers: Vec<_> = (0..3)
            .map(|_| {
                let (reply, answer) = oneshot::channel();
                waiters.insert(reply);
                answer
            })
            .collect();
        waiters.drain().for_each(|reply| reply.send(1).unwrap());
        for mut answer in answers {
            assert_eq!(answer.try_recv(), Ok(1));
        }
        assert_eq!(waiters.len(), 0);
    }
}
