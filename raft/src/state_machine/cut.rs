//! Cuts bytes where their content says so, so that a small change leaves most parts as they were.
//!
//! Cut at fixed places, an insertion near the beginning would move every byte behind it into another part. So a part ends where the
//! last 64 bytes hash to a value with enough leading zeros (a gear hash, as in Xia et al., *FastCDC*, USENIX ATC 2016): the
//! same bytes give the same cuts wherever they stand, and behind a change the cuts are soon the old ones again. No part is shorter
//! than a quarter of the average or longer than four times it, but the last.

use bytes::Bytes;

/// The average length of a part, in bytes, if nobody wants another.
pub(super) const AVERAGE: usize = 1 << 20;
/// The averages that may be asked for: the hash sees 64 bytes, and no part may exceed 64 MiB.
const AVERAGES: std::ops::RangeInclusive<usize> = 256..=16 << 20;

/// How bytes are cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Cuts {
    /// Leading zeros of the hash at which a part ends: one in so many places, with two more for the length that is passed over.
    zeros: u32,
}

impl Cuts {
    /// Parts of about `average` bytes.
    pub(super) fn of(average: usize) -> Self {
        let average = average.clamp(*AVERAGES.start(), *AVERAGES.end());
        Self { zeros: average.ilog2() }
    }

    fn shortest(self) -> usize {
        1 << (self.zeros - 2)
    }

    /// The length that no part exceeds.
    pub(super) fn longest(self) -> usize {
        1 << (self.zeros + 2)
    }

    /// Takes the next part off the front; empty if there is nothing left.
    pub(super) fn take(self, bytes: &mut Bytes) -> Bytes {
        bytes.split_to(self.length(bytes))
    }

    /// The length of the first part of what begins with these bytes: all there are, or at least [`Self::longest`].
    pub(super) fn length(self, bytes: &[u8]) -> usize {
        let longest = bytes.len().min(self.longest());
        let shortest = self.shortest();
        if longest <= shortest {
            return longest;
        }
        // What lies more than 64 bytes back has been shifted out.
        let warm = shortest - WINDOW;
        let mut hash: u64 = 0;
        for (at, byte) in bytes[warm..longest].iter().enumerate() {
            hash = (hash << 1).wrapping_add(GEAR[usize::from(*byte)]);
            if at >= WINDOW && hash.leading_zeros() >= self.zeros {
                return warm + at;
            }
        }
        longest
    }
}

const WINDOW: usize = 64;

/// A random number for each byte (SplitMix64 from zero). Other numbers would make other parts: nodes with different tables
/// share less, and nothing worse.
const GEAR: [u64; 256] = {
    let mut table = [0; 256];
    let (mut state, mut at) = (0_u64, 0);
    while at < 256 {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        table[at] = mixed ^ (mixed >> 31);
        at += 1;
    }
    table
};

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use rand_chacha::ChaCha8Rng;
    use rand_core::{Rng as _, SeedableRng as _};

    use super::*;

    fn noise(length: usize) -> Vec<u8> {
        let mut bytes = vec![0; length];
        ChaCha8Rng::seed_from_u64(7).fill_bytes(&mut bytes);
        bytes
    }

    fn cut(bytes: Vec<u8>, average: usize) -> Vec<Bytes> {
        let (mut rest, mut parts) = (Bytes::from(bytes), Vec::new());
        while !rest.is_empty() {
            parts.push(Cuts::of(average).take(&mut rest));
        }
        parts
    }

    #[test]
    fn the_parts_are_the_bytes_and_keep_their_bounds() {
        let bytes = noise(1 << 20);
        let parts = cut(bytes.clone(), 4_096);
        assert_eq!(parts.concat(), bytes);
        let (last, others) = parts.split_last().unwrap();
        assert!(others.iter().all(|part| (1_024..=16_384).contains(&part.len())));
        assert!(last.len() <= 16_384);
        assert!((100..500).contains(&parts.len()), "{} parts", parts.len());
    }

    #[test]
    fn a_small_change_leaves_most_parts_as_they_were() {
        let bytes = noise(1 << 20);
        let before: BTreeSet<_> = cut(bytes.clone(), 4_096).into_iter().collect();
        let mut inserted = bytes.clone();
        inserted.splice(300_000..300_000, *b"a new key");
        let mut removed = bytes.clone();
        removed.drain(5_000..5_100);
        let mut changed = bytes;
        changed[700_000] ^= 1;
        for after in [inserted, removed, changed] {
            let parts = cut(after, 4_096);
            let new = parts.iter().filter(|part| !before.contains(*part)).count();
            assert!(new <= 3, "{new} of {} parts are new", parts.len());
        }
    }

    #[test]
    fn bytes_without_content_are_cut_at_the_longest_length() {
        let parts = cut(vec![0; 5_000], 256);
        let lengths: Vec<_> = parts.iter().map(Bytes::len).collect();
        assert_eq!(lengths, [1_024, 1_024, 1_024, 1_024, 904]);
        assert_eq!(Cuts::of(256).take(&mut Bytes::new()), Bytes::new());
    }

    #[test]
    fn the_cuts_of_known_bytes_stay_the_same_from_build_to_build() {
        let bytes = (0..10_000_u32).flat_map(|n| (n / 7).to_le_bytes()).collect();
        let lengths: Vec<_> = cut(bytes, 8_192).iter().map(Bytes::len).collect();
        assert_eq!(lengths, [4_055, 6_533, 24_399, 5_013]);
    }
}
