//! A split-block Bloom filter: whether a hash may be in an index file, without looking into the file.
//!
//! A filter is an array of blocks of 256 bits, eight words each. The upper half of a hash chooses the block and the lower half one
//! bit in every word, so that a question touches one line of the processor's cache. With [`BITS_PER_KEY`] bits a key about one
//! question in a hundred for a hash that was never put in is answered with "maybe" (Putze, Sanders and Singler, *Cache-, Hash-
//! and Space-Efficient Bloom Filters*, 2007; the arrangement is that of Apache Parquet).

/// Bits of the filter for each hash that is put in.
pub(super) const BITS_PER_KEY: usize = 10;
/// Bytes of a block.
pub(super) const BLOCK: usize = 32;
pub(super) const WORDS: usize = 8;

/// Odd constants that spread the lower half of a hash over the words of a block.
const SALTS: [u32; WORDS] = [
    0x47b6_137b,
    0x4497_4d91,
    0x8824_ad5b,
    0xa2b7_289d,
    0x7054_95c7,
    0x2df1_424b,
    0x9efc_4947,
    0x5c6b_fb31,
];

/// The filter of one index file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Filter {
    blocks: Box<[[u32; WORDS]]>,
}

impl Filter {
    /// An empty filter for `keys` hashes.
    pub(super) fn for_keys(keys: usize) -> Self {
        let blocks = (keys * BITS_PER_KEY).div_ceil(BLOCK * 8).max(1);
        Self { blocks: vec![[0; WORDS]; blocks].into() }
    }

    /// A filter from its bytes; `None` if these are no whole blocks.
    pub(super) fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (blocks, rest) = bytes.as_chunks::<BLOCK>();
        if blocks.is_empty() || !rest.is_empty() {
            return None;
        }
        let block = |bytes: &[u8; BLOCK]| {
            let (words, _) = bytes.as_chunks::<4>();
            std::array::from_fn(|word| u32::from_le_bytes(words[word]))
        };
        Some(Self { blocks: blocks.iter().map(block).collect() })
    }

    /// The filter as bytes.
    pub(super) fn to_bytes(&self) -> Vec<u8> {
        self.blocks.iter().flatten().flat_map(|word| word.to_le_bytes()).collect()
    }

    /// Puts a hash in.
    pub(super) fn insert(&mut self, hash: u64) {
        let at = self.block_of(hash);
        for (word, bit) in self.blocks[at].iter_mut().zip(bits(hash)) {
            *word |= bit;
        }
    }

    /// Whether a hash may have been put in; `false` is certain.
    pub(super) fn may_have(&self, hash: u64) -> bool {
        self.may_have_all(hash, &bits(hash))
    }

    /// As [`Filter::may_have`], for who asks many filters for one hash: `bits` are those of the hash.
    pub(super) fn may_have_all(&self, hash: u64, bits: &[u32; WORDS]) -> bool {
        let block = &self.blocks[self.block_of(hash)];
        // All words are looked at: a jump out of the middle is foretold wrong half of the time, and then nothing of the next filter is
        // on its way from memory yet.
        block.iter().zip(bits).fold(0, |missing, (word, bit)| missing | (bit & !word)) == 0
    }

    /// Bytes in memory.
    pub(super) fn memory(&self) -> usize {
        self.blocks.len() * BLOCK
    }

    fn block_of(&self, hash: u64) -> usize {
        let scaled = (hash >> 32) * u64::try_from(self.blocks.len()).expect("a count in memory");
        usize::try_from(scaled >> 32).expect("less than the number of blocks")
    }
}

/// One bit of a hash for each word.
pub(super) fn bits(hash: u64) -> [u32; WORDS] {
    let low = u32::try_from(hash & 0xffff_ffff).expect("32 bits");
    SALTS.map(|salt| 1 << (low.wrapping_mul(salt) >> 27))
}

#[cfg(test)]
mod tests {
    use super::*;
    use xxhash_rust::xxh3::xxh3_64;

    fn hash(number: u64) -> u64 {
        xxh3_64(&number.to_le_bytes())
    }

    #[test]
    fn what_was_put_in_is_never_denied() {
        let mut filter = Filter::for_keys(10_000);
        (0..10_000).for_each(|number| filter.insert(hash(number)));
        let copy = Filter::from_bytes(&filter.to_bytes()).expect("whole blocks");
        assert_eq!(copy, filter);
        assert!((0..10_000).all(|number| copy.may_have(hash(number))));
    }

    #[test]
    fn two_in_a_hundred_others_are_taken_for_it_at_most() {
        let mut filter = Filter::for_keys(10_000);
        (0..10_000).for_each(|number| filter.insert(hash(number)));
        let wrong = (10_000..110_000).filter(|number| filter.may_have(hash(*number))).count();
        assert!(wrong < 2_000, "{wrong} of 100,000");
    }

    #[test]
    fn odd_lengths_are_no_filter() {
        assert!(Filter::from_bytes(&[]).is_none());
        assert!(Filter::from_bytes(&[0; 33]).is_none());
    }
}
