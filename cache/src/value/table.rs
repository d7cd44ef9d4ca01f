//! The large form of sets and hashes: members in the order of their hash.
//!
//! A table is a row of blocks, each with up to [`BLOCK`] members in the order of their 32-bit hash; a block begins at a hash of
//! its own, and the members of one hash never lie in two blocks. A full block is split, one that has become small is joined to a
//! neighbour. So an insertion moves a few kilobytes at most, however large the table is, and nothing is ever rehashed at once.
//!
//! * **Cursors.** The order does not depend on what else is in the table, so "the members from this hash on" means the same
//!   before and after any growth: a scan whose cursor is a hash visits each member that is there throughout exactly once.
//! * **Random members.** A random block and a random place in it, drawn again if the place is empty, hit every member with the
//!   same probability; joining keeps the expected number of draws below four.
//!
//! Clients choose the members, so the hash is seeded ([`set_seed`]): nobody outside can make members collide.

use std::sync::OnceLock;

use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::packed::below;
use super::small_bytes::allocated;

/// How many members a block holds before it is split.
pub const BLOCK: usize = 128;

/// A block that is to be smaller is joined to a neighbour, if both together fill no more than [`JOINED`].
const SMALL: usize = BLOCK / 4;

/// The most that a block holds after joining, so that the next insertion does not split it again.
const JOINED: usize = BLOCK * 3 / 4;

/// How much room a block gains or loses at a time.
const STEP: usize = 16;

static SEED: OnceLock<u64> = OnceLock::new();

/// Sets the seed of all tables of the process, once: the first call counts, if no table has hashed anything before. Nodes of a
/// cluster have the same seed, so that a cursor means the same on each.
pub fn set_seed(seed: u64) {
    SEED.get_or_init(|| seed);
}

/// The place of `name` in the order of all tables.
#[must_use]
pub fn hash_of(name: &[u8]) -> u32 {
    let seed = *SEED.get_or_init(|| 0x9E37_79B9_7F4A_7C15);
    let hash = xxh3_64_with_seed(name, seed ^ 0x5EED_0F7A_B1E5_0F01);
    u32::try_from(hash >> 32).expect("32 bits")
}

/// What a table holds.
pub trait Member {
    /// What it is found by: no two members of a table have the same.
    fn name(&self) -> &[u8];

    /// What it occupies on the heap, in bytes.
    fn heap_bytes(&self) -> usize;
}

/// Members in the order of their hash.
#[derive(Debug)]
pub struct Table<M> {
    /// `lows[n]`: no member of `blocks[n]` has a lower hash. The first is 0.
    lows: Vec<u32>,
    blocks: Vec<Block<M>>,
    len: usize,
    /// What blocks and members occupy on the heap.
    heap: usize,
    /// The most members that any block ever had.
    widest: usize,
}

#[derive(Clone, Debug)]
struct Block<M> {
    hashes: Vec<u32>,
    members: Vec<M>,
}

/// Where a member lies, until the table is changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    block: usize,
    index: usize,
}

/// How many of `hashes`, which ascend and lie in `low..high`, are below `hash`.
///
/// Hashes are spread evenly, so the place is guessed and corrected by a few steps: that looks at one or two cache lines, where
/// halving would look at one for each step. Hashes that are spread badly cost a walk over a block at most.
fn rank(hashes: &[u32], hash: u32, low: u64, high: u64) -> usize {
    let span = high.saturating_sub(low).max(1);
    let guess = u64::from(hash).saturating_sub(low) * hashes.len() as u64 / span;
    let mut at = usize::try_from(guess).unwrap_or(usize::MAX).min(hashes.len());
    while at > 0 && hashes[at - 1] >= hash {
        at -= 1;
    }
    while hashes.get(at).is_some_and(|it| *it < hash) {
        at += 1;
    }
    at
}

impl<M: Member + Clone> Clone for Table<M> {
    fn clone(&self) -> Self {
        let (lows, blocks) = (self.lows.clone(), self.blocks.clone());
        // A copy has room for what it holds and no more, so it occupies something else than what it was made from.
        let heap = blocks.iter().map(Block::heap_bytes).sum::<usize>()
            + self.iter().map(Member::heap_bytes).sum::<usize>();
        Self { lows, blocks, len: self.len, heap, widest: self.widest }
    }
}

impl<M> Default for Table<M> {
    fn default() -> Self {
        Self { lows: Vec::new(), blocks: Vec::new(), len: 0, heap: 0, widest: 0 }
    }
}

impl<M> Block<M> {
    fn new() -> Self {
        Self { hashes: Vec::new(), members: Vec::new() }
    }

    fn heap_bytes(&self) -> usize {
        allocated(self.hashes.capacity() * size_of::<u32>())
            + allocated(self.members.capacity() * size_of::<M>())
    }

    fn len(&self) -> usize {
        self.hashes.len()
    }

    fn insert(&mut self, index: usize, hash: u32, member: M) {
        if self.hashes.len() == self.hashes.capacity() {
            self.hashes.reserve_exact(STEP);
        }
        if self.members.len() == self.members.capacity() {
            self.members.reserve_exact(STEP);
        }
        self.hashes.insert(index, hash);
        self.members.insert(index, member);
    }

    fn give_back_room(&mut self) {
        let room = self.len().next_multiple_of(STEP);
        if self.hashes.capacity() > room + STEP {
            self.hashes.shrink_to(room);
            self.members.shrink_to(room);
        }
    }
}

impl<M: Member> Table<M> {
    /// How many members there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// What the table and its members occupy on the heap, in bytes.
    #[must_use]
    pub fn heap_bytes(&self) -> usize {
        self.heap
            + allocated(self.lows.capacity() * size_of::<u32>())
            + allocated(self.blocks.capacity() * size_of::<Block<M>>())
    }

    /// The block in which members with `hash` lie.
    fn block_of(&self, hash: u32) -> usize {
        // The first block begins at 0, so a single one needs no look at the lows, which lie somewhere else in memory.
        if self.blocks.len() <= 1 {
            return 0;
        }
        self.lows.partition_point(|low| *low <= hash).saturating_sub(1)
    }

    /// How many members of block number `block` have a hash below `hash`.
    fn rank(&self, block: usize, hashes: &[u32], hash: u32) -> usize {
        let low = u64::from(self.lows.get(block).copied().filter(|_| block > 0).unwrap_or(0));
        let high = self.lows.get(block + 1).copied().filter(|_| block + 1 < self.blocks.len());
        let high = high.map_or(1 << u32::BITS, u64::from);
        rank(hashes, hash, low, high)
    }

    /// Where the member `name` lies, or where it would.
    fn locate(&self, hash: u32, name: &[u8]) -> Result<Place, Place> {
        let block = self.block_of(hash);
        let Some(Block { hashes, members }) = self.blocks.get(block) else {
            return Err(Place { block, index: 0 });
        };
        let mut index = self.rank(block, hashes, hash);
        while hashes.get(index) == Some(&hash) {
            if members[index].name() == name {
                return Ok(Place { block, index });
            }
            index += 1;
        }
        Err(Place { block, index })
    }

    /// Where the member `name` lies.
    #[must_use]
    pub fn find(&self, name: &[u8]) -> Option<Place> {
        self.locate(hash_of(name), name).ok()
    }

    /// As [`Table::find`], where the hash of `name` is known; where the member would lie, if it is not there.
    ///
    /// # Errors
    /// If there is none.
    pub fn find_hashed(&self, hash: u32, name: &[u8]) -> Result<Place, Place> {
        self.locate(hash, name)
    }

    /// Adds a member with `hash` that is not there at the place where it would lie.
    pub fn insert_found(&mut self, place: Place, hash: u32, member: M) {
        debug_assert!(self.locate(hash, member.name()) == Err(place), "the place is the member's");
        self.insert_at(place, hash, member);
    }

    /// The member `name`.
    #[must_use]
    pub fn get(&self, name: &[u8]) -> Option<&M> {
        self.find(name).map(|place| self.at(place))
    }

    /// The member at `place`.
    ///
    /// # Panics
    /// If none is, as after a change.
    #[must_use]
    pub fn at(&self, place: Place) -> &M {
        &self.blocks[place.block].members[place.index]
    }

    /// Adds `member`, in the place of the one that has its name.
    pub fn insert(&mut self, member: M) -> Option<M> {
        let hash = hash_of(member.name());
        match self.locate(hash, member.name()) {
            Ok(place) => Some(self.replace_at(place, member)),
            Err(place) => {
                self.insert_at(place, hash, member);
                None
            }
        }
    }

    /// Adds the member that `make` makes, unless there is one of its `name`. False if there is.
    pub fn insert_new(&mut self, name: &[u8], make: impl FnOnce() -> M) -> bool {
        let hash = hash_of(name);
        let Err(place) = self.locate(hash, name) else { return false };
        self.insert_at(place, hash, make());
        true
    }

    /// Puts `member` in the place of one with the same name, which is returned.
    ///
    /// # Panics
    /// If there is none at `place`.
    pub fn replace_at(&mut self, place: Place, member: M) -> M {
        let old = &mut self.blocks[place.block].members[place.index];
        debug_assert!(old.name() == member.name(), "the name decides the place");
        self.heap = self.heap + member.heap_bytes() - old.heap_bytes();
        std::mem::replace(old, member)
    }

    /// The member at `place`, to be changed without changing its name or what it occupies.
    ///
    /// # Panics
    /// If there is none.
    pub fn at_mut(&mut self, place: Place) -> &mut M {
        &mut self.blocks[place.block].members[place.index]
    }

    fn insert_at(&mut self, place: Place, hash: u32, member: M) {
        if self.blocks.is_empty() {
            self.lows.push(0);
            self.blocks.push(Block::new());
        }
        let block = &mut self.blocks[place.block];
        let before = block.heap_bytes();
        self.heap += member.heap_bytes();
        block.insert(place.index, hash, member);
        self.heap = self.heap + block.heap_bytes() - before;
        self.len += 1;
        if block.len() > BLOCK {
            self.split(place.block);
        }
        let widest = self.blocks[place.block].len();
        self.widest = self.widest.max(widest);
    }

    /// Splits a block near its middle, between two hashes that differ. If all are the same it stays as it is.
    fn split(&mut self, index: usize) {
        let block = &mut self.blocks[index];
        let before = block.heap_bytes();
        let (hashes, middle) = (&block.hashes, block.hashes.len() / 2);
        let cut = hashes.partition_point(|it| *it < hashes[middle]);
        let cut = if cut > 0 { cut } else { hashes.partition_point(|it| *it <= hashes[middle]) };
        if cut == hashes.len() {
            return;
        }
        let room = (block.len() - cut).next_multiple_of(STEP);
        let mut right =
            Block { hashes: Vec::with_capacity(room), members: Vec::with_capacity(room) };
        right.hashes.extend(block.hashes.drain(cut..));
        right.members.extend(block.members.drain(cut..));
        block.give_back_room();
        self.heap = self.heap + block.heap_bytes() + right.heap_bytes() - before;
        self.lows.insert(index + 1, right.hashes[0]);
        self.blocks.insert(index + 1, right);
    }

    /// Removes the member `name`.
    pub fn remove(&mut self, name: &[u8]) -> Option<M> {
        self.find(name).map(|place| self.remove_at(place))
    }

    /// Removes the member at `place`.
    ///
    /// # Panics
    /// If there is none.
    pub fn remove_at(&mut self, place: Place) -> M {
        let block = &mut self.blocks[place.block];
        let before = block.heap_bytes();
        block.hashes.remove(place.index);
        let member = block.members.remove(place.index);
        block.give_back_room();
        self.heap = self.heap + block.heap_bytes() - before - member.heap_bytes();
        self.len -= 1;
        if block.len() < SMALL {
            self.join(place.block);
        }
        member
    }

    /// Joins a small block to one of its neighbours, if they fit into one.
    fn join(&mut self, index: usize) {
        let len = self.blocks[index].len();
        let fits =
            |other: usize| self.blocks.get(other).is_some_and(|other| other.len() + len <= JOINED);
        let left = match index.checked_sub(1) {
            Some(before) if fits(before) => before,
            _ if fits(index + 1) => index,
            _ => return,
        };
        let right = self.blocks.remove(left + 1);
        self.lows.remove(left + 1);
        let into = &mut self.blocks[left];
        let before = into.heap_bytes() + right.heap_bytes();
        into.hashes.reserve_exact(right.hashes.len());
        into.members.reserve_exact(right.members.len());
        into.hashes.extend(right.hashes);
        into.members.extend(right.members);
        self.heap = self.heap + into.heap_bytes() - before;
        if self.blocks.len() * 2 < self.blocks.capacity() {
            let room = self.blocks.len() + STEP;
            self.blocks.shrink_to(room);
            self.lows.shrink_to(room);
        }
    }

    /// Removes all members with `hash` that `condition` picks, and hands them to `removed`.
    pub fn remove_where(
        &mut self,
        hash: u32,
        mut condition: impl FnMut(&M) -> bool,
        mut removed: impl FnMut(M),
    ) {
        loop {
            let block = self.block_of(hash);
            let Some(Block { hashes, members }) = self.blocks.get(block) else { return };
            let from = hashes.partition_point(|it| *it < hash);
            let equal = hashes[from..].iter().take_while(|it| **it == hash).count();
            let found = members[from..from + equal].iter().position(&mut condition);
            let Some(found) = found else { return };
            removed(self.remove_at(Place { block, index: from + found }));
        }
    }

    /// All members with `hash`.
    pub fn with_hash(&self, hash: u32) -> impl Iterator<Item = &M> {
        let block = self.blocks.get(self.block_of(hash));
        let members = block.map(|block| {
            let from = block.hashes.partition_point(|it| *it < hash);
            let equal = block.hashes[from..].iter().take_while(|it| **it == hash).count();
            &block.members[from..from + equal]
        });
        members.unwrap_or_default().iter()
    }

    /// All members, in the order of their hash.
    pub fn iter(&self) -> Iter<'_, M> {
        Iter { blocks: self.blocks.iter(), members: [].iter() }
    }

    /// Visits at least `count` members from `cursor` on, if there are so many, and returns where to go on; 0 at the end.
    pub fn scan<'t>(&'t self, cursor: u64, count: usize, mut visit: impl FnMut(&'t M)) -> u64 {
        let Ok(from) = u32::try_from(cursor) else { return 0 };
        let (mut left, mut last) = (count.max(1), None);
        let first = self.block_of(from);
        for block in self.blocks.iter().skip(first) {
            let start = block.hashes.partition_point(|hash| *hash < from);
            for (hash, member) in block.hashes.iter().zip(&block.members).skip(start) {
                if left == 0 && last != Some(*hash) {
                    return u64::from(*hash);
                }
                last = Some(*hash);
                left = left.saturating_sub(1);
                visit(member);
            }
        }
        0
    }

    /// The place of a member that `draw`'s random numbers pick; None if there is none.
    pub fn pick(&self, draw: &mut impl FnMut() -> u64) -> Option<Place> {
        if self.is_empty() {
            return None;
        }
        let (blocks, width) = match self.blocks.as_slice() {
            [only] => (1, only.len()),
            blocks => (blocks.len(), self.widest),
        };
        loop {
            let block = below(draw(), blocks);
            let index = below(draw(), width);
            if index < self.blocks[block].len() {
                return Some(Place { block, index });
            }
        }
    }

    /// Panics unless everything is as it should be.
    #[cfg(test)]
    pub(super) fn check(&self) {
        assert_eq!(self.lows.len(), self.blocks.len());
        assert_eq!(self.len, self.blocks.iter().map(Block::len).sum::<usize>());
        let mut heap = 0;
        for (index, block) in self.blocks.iter().enumerate() {
            assert!(block.hashes.is_sorted());
            assert_eq!(block.hashes.len(), block.members.len());
            assert!(block.len() <= BLOCK && block.len() <= self.widest);
            assert!(block.len() > 0 || self.blocks.len() == 1);
            assert!(block.hashes.first().is_none_or(|first| *first >= self.lows[index]));
            let end = self.lows.get(index + 1).map_or(u64::MAX, |low| u64::from(*low));
            assert!(block.hashes.last().is_none_or(|last| u64::from(*last) < end));
            for (hash, member) in block.hashes.iter().zip(&block.members) {
                assert_eq!(*hash, hash_of(member.name()));
                heap += member.heap_bytes();
            }
            heap += block.heap_bytes();
        }
        assert!(self.lows.first().is_none_or(|low| *low == 0));
        assert_eq!(self.heap, heap);
    }
}

/// The members of a table, in the order of their hash.
#[derive(Clone, Debug)]
pub struct Iter<'t, M> {
    blocks: std::slice::Iter<'t, Block<M>>,
    members: std::slice::Iter<'t, M>,
}

impl<'t, M> Iterator for Iter<'t, M> {
    type Item = &'t M;

    fn next(&mut self) -> Option<&'t M> {
        loop {
            if let Some(member) = self.members.next() {
                return Some(member);
            }
            self.members = self.blocks.next()?.members.iter();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use super::*;
    use crate::value::small_bytes::SmallBytes;

    fn draws(seed: u64) -> impl FnMut() -> u64 {
        use rand_core::{Rng as _, SeedableRng as _};
        let mut random = rand_chacha::ChaCha8Rng::seed_from_u64(seed);
        move || random.next_u64()
    }

    fn name(number: usize) -> SmallBytes {
        SmallBytes::from(format!("member:{number:0width$}", width = number % 30).as_bytes())
    }

    #[test]
    fn a_table_holds_what_a_set_holds() {
        for seed in 0..4 {
            let mut draw = draws(seed);
            let (mut table, mut model) = (Table::default(), BTreeSet::new());
            for step in 0..20_000 {
                let shrinking = (step / 5_000) % 2 == 1;
                let member = name(below(draw(), 3_000));
                let bytes = member.as_slice().to_vec();
                if below(draw(), 10) < if shrinking { 2 } else { 8 } {
                    assert_eq!(table.insert(member).is_none(), model.insert(bytes));
                } else {
                    assert_eq!(table.remove(&bytes).is_some(), model.remove(&bytes));
                }
                if step % 500 == 0 {
                    table.check();
                }
            }
            table.check();
            let held: BTreeSet<Vec<u8>> =
                table.iter().map(|member| member.as_slice().to_vec()).collect();
            assert_eq!(held, model);
            for number in 0..3_000 {
                let name = name(number);
                assert_eq!(table.get(name.as_slice()).is_some(), model.contains(name.as_slice()));
            }
            for bytes in model {
                assert!(table.remove(&bytes).is_some());
            }
            table.check();
            assert!(table.is_empty() && table.heap_bytes() < 8_192, "{}", table.heap_bytes());
        }
    }

    #[test]
    fn a_scan_visits_once_whoever_is_there_throughout() {
        for seed in 0..6 {
            let mut draw = draws(seed);
            let mut table = Table::default();
            for number in 0..1_000 {
                table.insert(name(number));
            }
            let (mut seen, mut cursor) = (BTreeMap::<Vec<u8>, usize>::new(), 0);
            loop {
                cursor = table.scan(cursor, 1 + below(draw(), 40), |member| {
                    *seen.entry(member.as_slice().to_vec()).or_default() += 1;
                });
                if cursor == 0 {
                    break;
                }
                // The first 500 stay; the others come and go in crowds.
                for _ in 0..100 {
                    let number = 500 + below(draw(), 5_000);
                    if seed % 2 == 0 {
                        table.insert(name(number));
                    } else {
                        table.remove(name(number).as_slice());
                    }
                }
                table.check();
            }
            for number in 0..500 {
                assert_eq!(seen.get(name(number).as_slice()), Some(&1), "seed {seed}: {number}");
            }
        }
    }

    #[test]
    fn every_member_is_picked_equally_often() {
        let mut draw = draws(1);
        let mut table = Table::default();
        for number in 0..1_000 {
            table.insert(name(number));
        }
        for number in 0..900 {
            table.remove(name(number).as_slice());
        }
        let mut picked = BTreeMap::<Place, u32>::new();
        for _ in 0..100_000 {
            *picked.entry(table.pick(&mut draw).unwrap()).or_default() += 1;
        }
        assert_eq!(picked.len(), 100);
        // Chi-square with 99 degrees of freedom: above 150 less than once in a thousand.
        let chi: f64 = picked.values().map(|times| (f64::from(*times) - 1e3).powi(2) / 1e3).sum();
        assert!(chi < 150.0, "{chi}");
    }

    #[test]
    fn a_split_never_parts_members_of_one_hash() {
        let mut table = Table::default();
        for (index, hash) in [1, 1, 1, 7, 7, 7, 7, 9].into_iter().enumerate() {
            table.insert_at(Place { block: 0, index }, hash, name(index));
        }
        table.split(0);
        assert_eq!(table.blocks[0].hashes, [1, 1, 1]);
        assert_eq!(table.blocks[1].hashes, [7, 7, 7, 7, 9]);
        assert_eq!(table.lows, [0, 7]);
        table.blocks[1].hashes.fill(7);
        table.split(1);
        assert_eq!(table.blocks.len(), 2);
        assert_eq!(table.with_hash(7).count(), 5);
        let (mut removed, kept) = (0, name(4));
        table.remove_where(7, |member| member.as_slice() != kept.as_slice(), |_| removed += 1);
        assert_eq!((removed, table.with_hash(7).count()), (4, 1));
    }
}
