//! A digest of 128 bits of anything that can be hashed, the same on every machine.

use std::hash::{Hash, Hasher};

/// Two running products, each of 64 bits, that share nothing but the input.
#[derive(Clone, Debug)]
pub(super) struct Digest {
    one: u64,
    other: u64,
}

const ONE: u64 = 0x9e37_79b9_7f4a_7c15;
const OTHER: u64 = 0xc2b2_ae3d_27d4_eb4f;

impl Digest {
    pub(super) fn new() -> Self {
        Self { one: ONE, other: OTHER }
    }

    pub(super) fn of(value: &impl Hash) -> u128 {
        let mut digest = Self::new();
        value.hash(&mut digest);
        digest.value()
    }

    pub(super) fn value(&self) -> u128 {
        let (one, other) = (mix(self.one, OTHER), mix(self.other, ONE));
        u128::from(one) << 64 | u128::from(other)
    }

    fn word(&mut self, word: u64) {
        self.one = mix(self.one ^ word, ONE).wrapping_add(word.rotate_left(29));
        self.other = mix(self.other.wrapping_add(word), OTHER) ^ word.rotate_left(43);
    }
}

/// Both halves of the product, folded: every bit of the result depends on every bit of both factors.
fn mix(word: u64, key: u64) -> u64 {
    let product = u128::from(word ^ key.rotate_left(17)) * u128::from(key);
    let high = u64::try_from(product >> 64).expect("the upper half");
    let low = u64::try_from(product & u128::from(u64::MAX)).expect("the lower half");
    let folded = high ^ low;
    folded ^ folded >> 31
}

impl Hasher for Digest {
    fn finish(&self) -> u64 {
        mix(self.one, OTHER)
    }

    fn write(&mut self, bytes: &[u8]) {
        for part in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..part.len()].copy_from_slice(part);
            self.word(u64::from_le_bytes(word));
        }
        self.word(u64::try_from(bytes.len()).expect("fewer than 2^64 bytes"));
    }

    fn write_u8(&mut self, value: u8) {
        self.word(value.into());
    }

    fn write_u16(&mut self, value: u16) {
        self.word(value.into());
    }

    fn write_u32(&mut self, value: u32) {
        self.word(value.into());
    }

    fn write_u64(&mut self, value: u64) {
        self.word(value);
    }

    fn write_u128(&mut self, value: u128) {
        self.word(u64::try_from(value >> 64).expect("the upper half"));
        self.word(u64::try_from(value & u128::from(u64::MAX)).expect("the lower half"));
    }

    fn write_usize(&mut self, value: usize) {
        self.word(u64::try_from(value).expect("at most 64 bits"));
    }

    fn write_isize(&mut self, value: isize) {
        self.word(u64::try_from(value.unsigned_abs()).expect("at most 64 bits"));
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn small_differences_change_both_halves() {
        let values = (0..1_000_u64).map(|value| Digest::of(&(value, 7_u8)));
        let (high, low): (BTreeSet<_>, BTreeSet<_>) =
            values.map(|value| (value >> 64, value & u128::from(u64::MAX))).unzip();
        assert_eq!((high.len(), low.len()), (1_000, 1_000));
    }

    #[test]
    fn the_order_of_values_matters() {
        assert_ne!(Digest::of(&(1, 2)), Digest::of(&(2, 1)));
        assert_ne!(Digest::of(&(0, 1, 0)), Digest::of(&(0, 0, 1)));
        assert_eq!(Digest::of(&("text", 1_u64)), Digest::of(&("text", 1_u64)));
    }
}
