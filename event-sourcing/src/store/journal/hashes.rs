//! Hashes of ids and keys, each with the offset of its event: what is looked up for every event that is appended.
//!
//! A table with open addressing, for a tree costs three times as much at each of the four visits that an event pays it. Where in the
//! table a hash goes is decided under a key of this process's own: an id is chosen by who writes the event, and nobody shall be able
//! to choose many that meet in one place. No answer depends on that key, for nothing is told in the order of the table.

use std::hash::{BuildHasher, RandomState};

/// The offset that marks a place as empty. No event has it: a segment has at most 512 MiB.
const EMPTY: u32 = u32::MAX;
/// Places of the smallest table.
const PLACES_MIN: usize = 16;

/// Pairs of a hash and an offset, each there once.
#[derive(Debug, Default)]
pub(super) struct Hashes {
    /// Their number is a power of two, or nothing is in the table. Of four places one is empty at least.
    hashes: Vec<u64>,
    offsets: Vec<u32>,
    count: usize,
    key: RandomState,
}

impl Hashes {
    /// Puts a pair in.
    pub(super) fn insert(&mut self, hash: u64, offset: u32) {
        assert!(offset < EMPTY, "a segment has less than 2^32 - 1 events");
        if (self.count + 1) * 4 > self.hashes.len() * 3 {
            self.grow();
        }
        let mut place = self.first_place(hash);
        while self.offsets[place] != EMPTY {
            if (self.hashes[place], self.offsets[place]) == (hash, offset) {
                return;
            }
            place = self.after(place);
        }
        (self.hashes[place], self.offsets[place]) = (hash, offset);
        self.count += 1;
    }

    /// The offsets that have a hash, in order.
    pub(super) fn offsets(&self, hash: u64) -> Vec<u32> {
        let mut found = Vec::new();
        if self.count == 0 {
            return found;
        }
        let mut place = self.first_place(hash);
        while self.offsets[place] != EMPTY {
            if self.hashes[place] == hash {
                found.push(self.offsets[place]);
            }
            place = self.after(place);
        }
        found.sort_unstable();
        found
    }

    /// All pairs, in no order.
    pub(super) fn iter(&self) -> impl Iterator<Item = (u64, u32)> {
        let pairs = self.hashes.iter().copied().zip(self.offsets.iter().copied());
        pairs.filter(|(_, offset)| *offset != EMPTY)
    }

    /// Bytes in memory.
    pub(super) fn memory(&self) -> usize {
        self.hashes.len() * (size_of::<u64>() + size_of::<u32>())
    }

    fn grow(&mut self) {
        let places = (self.hashes.len() * 2).max(PLACES_MIN);
        let old = std::mem::replace(
            self,
            Self {
                hashes: vec![0; places],
                offsets: vec![EMPTY; places],
                count: 0,
                key: self.key.clone(),
            },
        );
        old.iter().for_each(|(hash, offset)| self.insert(hash, offset));
    }

    fn first_place(&self, hash: u64) -> usize {
        let mask = u64::try_from(self.hashes.len() - 1).expect("a length fits 64 bits");
        usize::try_from(self.key.hash_one(hash) & mask).expect("a place in the table")
    }

    fn after(&self, place: usize) -> usize {
        (place + 1) & (self.hashes.len() - 1)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_table_holds_what_a_set_would(pairs in vec((0..200_u64, 0..50_u32), 0..400)) {
            let mut hashes = Hashes::default();
            let mut set = BTreeSet::new();
            for (hash, offset) in pairs {
                hashes.insert(hash, offset);
                set.insert((hash, offset));
                prop_assert!(hashes.count * 4 <= hashes.hashes.len() * 3);
            }
            prop_assert_eq!(hashes.iter().collect::<BTreeSet<_>>(), set.clone());
            prop_assert_eq!(hashes.count, set.len());
            for hash in 0..201 {
                let held: Vec<u32> =
                    set.range((hash, 0)..=(hash, EMPTY)).map(|(_, offset)| *offset).collect();
                prop_assert_eq!(hashes.offsets(hash), held);
            }
        }
    }
}
