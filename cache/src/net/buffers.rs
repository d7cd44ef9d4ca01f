//! Buffers of connections: lent while there is something in them, and counted.
//!
//! A connection with nothing on its way owns no buffer, so ten thousand idle ones cost next to nothing. One that becomes
//! readable borrows a buffer of its worker's [`Pool`]; what it keeps beyond its turn, half a request or a reply that the client
//! has not read, counts against the [`Budget`] of all connections, and through the store against the memory limit.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use crate::store::Store;

/// The size of a lent buffer: what one read takes at most, unless a large request is under way.
pub(super) const LENT: usize = 64 * 1024;

/// How many spare buffers a worker keeps.
const SPARE_MAX: usize = 8;

/// The steps in which connections' buffers are counted. Smaller changes are not worth a write that all threads share.
const STEP: usize = 16 * 1024;

/// One worker's spare buffers.
#[derive(Debug, Default)]
pub(super) struct Pool {
    spare: Mutex<Vec<Vec<u8>>>,
}

impl Pool {
    /// Lends an empty buffer of [`LENT`] bytes.
    pub(super) fn lend(&self) -> Vec<u8> {
        let spare = self.spare.lock().unwrap_or_else(PoisonError::into_inner).pop();
        spare.unwrap_or_else(|| Vec::with_capacity(LENT))
    }

    /// Takes a buffer back. One that has grown or shrunk is not kept.
    pub(super) fn take_back(&self, mut buffer: Vec<u8>) {
        if buffer.capacity() < LENT || buffer.capacity() >= 2 * LENT {
            return;
        }
        buffer.clear();
        let mut spare = self.spare.lock().unwrap_or_else(PoisonError::into_inner);
        if spare.len() < SPARE_MAX {
            spare.push(buffer);
        }
    }
}

/// What the buffers of all connections may occupy.
#[derive(Debug, Default)]
pub(super) struct Budget {
    used: AtomicU64,
}

/// What one connection has taken of the budget.
#[derive(Debug, Default)]
pub(super) struct Share {
    counted: usize,
}

impl Budget {
    /// Bytes that all connections' buffers occupy, as far as they are counted.
    pub(super) fn used(&self) -> u64 {
        self.used.load(Ordering::Relaxed)
    }

    /// Counts that the connection of `share` has `bytes` of buffers now.
    pub(super) fn count(&self, share: &mut Share, bytes: usize, store: &Store) {
        if bytes.abs_diff(share.counted) < STEP {
            return;
        }
        self.settle(share, bytes, store);
    }

    /// Counts that the connection of `share` has no buffers any more.
    pub(super) fn release(&self, share: &mut Share, store: &Store) {
        if share.counted > 0 {
            self.settle(share, 0, store);
        }
    }

    fn settle(&self, share: &mut Share, bytes: usize, store: &Store) {
        let change = i64::try_from(bytes).expect("memory fits in 63 bits")
            - i64::try_from(share.counted).expect("memory fits in 63 bits");
        // Adding a negative number wraps to subtracting it; the sum of all shares is never negative.
        self.used.fetch_add(change.cast_unsigned(), Ordering::Relaxed);
        store.charge_buffers(change);
        share.counted = bytes;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::StoreOptions;

    #[test]
    fn a_buffer_is_lent_again_unless_it_has_grown() {
        let pool = Pool::default();
        let mut buffer = pool.lend();
        buffer.extend_from_slice(b"abc");
        let place = buffer.as_ptr();
        pool.take_back(buffer);
        let buffer = pool.lend();
        assert!(buffer.is_empty() && buffer.as_ptr() == place);
        pool.take_back(Vec::with_capacity(10 * LENT));
        pool.take_back(Vec::new());
        assert!(pool.spare.lock().unwrap().is_empty());
    }

    #[test]
    fn shares_add_up_and_small_changes_wait() {
        let store = Store::new(&StoreOptions::default());
        let budget = Budget::default();
        let (mut one, mut other) = (Share::default(), Share::default());
        budget.count(&mut one, 100_000, &store);
        budget.count(&mut one, 101_000, &store);
        budget.count(&mut other, 50_000, &store);
        assert_eq!(budget.used(), 150_000);
        budget.release(&mut one, &store);
        assert_eq!(budget.used(), 50_000);
        budget.release(&mut other, &store);
        assert_eq!(budget.used(), 0);
    }
}
