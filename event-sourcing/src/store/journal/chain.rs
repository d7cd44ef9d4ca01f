//! The hash chain: one hash that stands for every event up to a position, whatever was scavenged since.
//!
//! Positions are taken in blocks of [`BLOCK`]. The hash of a block is SHA-256 over the hash of the block before it (zeros for the first) and
//! the leaves of its events in order. The head of the chain is that of the block under way, over the leaves so far. Hashes of
//! complete blocks are kept in the journal's state, so that opening a log computes at most one block again.

use sha2::{Digest, Sha256};

use crate::event::Position;

/// Events in a block.
pub const BLOCK: u64 = 65_536;
const STATE_FORMAT: u8 = 1;
const STATE: usize = 1 + 8 + 32;

/// The chain up to a position.
#[derive(Clone, Debug)]
pub(super) struct Chain {
    /// Hash of the last complete block.
    complete: [u8; 32],
    /// Over that hash and the leaves behind it.
    under_way: Sha256,
    /// How many leaves.
    count: u64,
}

/// The head of the hash chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChainHead {
    /// The last position that it stands for.
    pub position: Position,
    /// The hash; zeros for an empty log.
    pub hash: [u8; 32],
}

impl Default for Chain {
    fn default() -> Self {
        Self::after([0; 32], 0)
    }
}

impl Chain {
    fn after(complete: [u8; 32], count: u64) -> Self {
        let mut under_way = Sha256::new();
        under_way.update(complete);
        Self { complete, under_way, count }
    }

    /// The chain at the end of the last complete block, from the journal's state; `None` if that makes no sense.
    pub(super) fn from_state(state: Option<&[u8]>) -> Option<Self> {
        let Some(state) = state else { return Some(Self::default()) };
        let state: &[u8; STATE] = state.try_into().ok()?;
        let (count, hash) = state[1..].split_at(8);
        let count = u64::from_le_bytes(count.try_into().expect("eight bytes"));
        let hash = hash.try_into().expect("32 bytes");
        (state[0] == STATE_FORMAT && count.is_multiple_of(BLOCK)).then(|| Self::after(hash, count))
    }

    /// The last complete block, for the journal's state.
    pub(super) fn state(&self) -> Vec<u8> {
        let mut state = vec![STATE_FORMAT];
        state.extend_from_slice(&(self.count - self.count % BLOCK).to_le_bytes());
        state.extend_from_slice(&self.complete);
        state
    }

    /// Adds the next leaf; `true` if that completes a block.
    pub(super) fn push(&mut self, leaf: &[u8; 32]) -> bool {
        self.under_way.update(leaf);
        self.count += 1;
        let completes = self.count.is_multiple_of(BLOCK);
        if completes {
            *self = Self::after(self.under_way.clone().finalize().into(), self.count);
        }
        completes
    }

    /// How many leaves it is over.
    pub(super) fn count(&self) -> u64 {
        self.count
    }

    pub(super) fn head(&self) -> ChainHead {
        let hash = if self.count.is_multiple_of(BLOCK) {
            self.complete
        } else {
            self.under_way.clone().finalize().into()
        };
        ChainHead { position: Position(self.count), hash }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn leaf(number: u64) -> [u8; 32] {
        Sha256::digest(number.to_le_bytes()).into()
    }

    #[test]
    fn a_chain_goes_on_from_its_state_as_if_it_had_never_ended() {
        let mut chain = Chain::default();
        let mut state = None;
        for number in 1..=BLOCK + 10 {
            if chain.push(&leaf(number)) {
                assert_eq!(number, BLOCK);
                state = Some(chain.state());
            }
        }
        let mut again = Chain::from_state(state.as_deref()).unwrap();
        assert_eq!(again.count(), BLOCK);
        (BLOCK + 1..=BLOCK + 10).for_each(|number| assert!(!again.push(&leaf(number))));
        assert_eq!(again.head(), chain.head());
        assert_eq!(chain.state(), state.unwrap());
    }

    #[test]
    fn every_leaf_and_its_order_count() {
        let of = |numbers: &[u64]| {
            let mut chain = Chain::default();
            numbers.iter().for_each(|number| assert!(!chain.push(&leaf(*number))));
            chain.head().hash
        };
        let all = [of(&[]), of(&[1]), of(&[1, 2]), of(&[2, 1]), of(&[1, 2, 3])];
        for (at, hash) in all.iter().enumerate() {
            assert!(!all[..at].contains(hash));
        }
        assert_eq!(of(&[]), [0; 32]);
    }

    #[test]
    fn a_state_that_makes_no_sense_is_none() {
        assert!(Chain::from_state(Some(&[])).is_none());
        let mut state = Chain::default().state();
        state[1] = 1;
        assert!(Chain::from_state(Some(&state)).is_none());
    }
}
