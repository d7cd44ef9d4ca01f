//! The order of a large sorted set: members' numbers by score, then name, in blocks that are counted.
//!
//! A block is found by binary search over the blocks' lowest scores; ranks come from a Fenwick tree over the blocks' lengths
//! (P. Fenwick, "A new data structure for cumulative frequency tables", 1994). So rank, place by rank and place by score take
//! logarithmic time. Splitting or joining blocks rewrites the tree, some thousand numbers for a million members, and
//! happens once in a hundred changes or so.

use super::compare;
use super::members::{Id, Members};
use crate::value::small_bytes::allocated;

/// How many members a block holds before it is split.
const BLOCK: usize = 256;

/// How much room a block gains at a time.
const STEP: usize = 32;

/// Numbers in the order of their members.
#[derive(Clone, Debug, Default)]
pub(super) struct Order {
    /// The lowest score of each block.
    lows: Vec<f64>,
    blocks: Vec<Block>,
    counts: Counts,
    len: usize,
    /// What the blocks occupy.
    block_bytes: usize,
}

/// No block is empty.
#[derive(Clone, Debug, Default)]
struct Block {
    scores: Vec<f64>,
    ids: Vec<Id>,
}

/// A place in the order: a block and a place in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    block: usize,
    index: usize,
}

impl Block {
    fn heap_bytes(&self) -> usize {
        allocated(self.scores.capacity() * 8) + allocated(self.ids.capacity() * 4)
    }

    fn len(&self) -> usize {
        self.ids.len()
    }

    fn insert(&mut self, index: usize, score: f64, id: Id) {
        if self.ids.len() == self.ids.capacity() {
            self.scores.reserve_exact(STEP);
            self.ids.reserve_exact(STEP);
        }
        self.scores.insert(index, score);
        self.ids.insert(index, id);
    }

    fn fit(&mut self) {
        let room = self.len().next_multiple_of(STEP);
        self.scores.shrink_to(room);
        self.ids.shrink_to(room);
    }
}

/// The first number from 0 on that `condition` does not hold for, below `end`. It holds for all before one for which it holds.
fn first_without(end: usize, mut condition: impl FnMut(usize) -> bool) -> usize {
    let (mut from, mut to) = (0, end);
    while from < to {
        let middle = from.midpoint(to);
        if condition(middle) {
            from = middle + 1;
        } else {
            to = middle;
        }
    }
    from
}

impl Order {
    pub(super) fn heap_bytes(&self) -> usize {
        self.block_bytes
            + allocated(self.lows.capacity() * 8)
            + allocated(self.blocks.capacity() * size_of::<Block>())
            + allocated(self.counts.sums.capacity() * size_of::<usize>())
    }

    /// How many members, from the lowest on, `condition` holds for. It holds for none above one for which it does not.
    pub(super) fn count_while(&self, mut condition: impl FnMut(f64, Id) -> bool) -> usize {
        let after =
            first_without(self.blocks.len(), |at| condition(self.lows[at], self.blocks[at].ids[0]));
        let Some(at) = after.checked_sub(1) else { return 0 };
        let block = &self.blocks[at];
        let index =
            first_without(block.len(), |index| condition(block.scores[index], block.ids[index]));
        self.counts.before(at) + index
    }

    /// The place of a member, or where it would be.
    fn locate(&self, members: &Members, score: f64, name: &[u8]) -> Result<Place, Place> {
        let wanted = (score, name);
        let is_below_or_at = |score: f64, id: Id| {
            // The name is looked at only if it decides.
            compare((score, b""), (wanted.0, b""))
                .then_with(|| members.name(id).cmp(wanted.1))
                .is_le()
        };
        let after = first_without(self.blocks.len(), |at| {
            is_below_or_at(self.lows[at], self.blocks[at].ids[0])
        });
        let Some(at) = after.checked_sub(1) else { return Err(Place { block: 0, index: 0 }) };
        let block = &self.blocks[at];
        let index = first_without(block.len(), |index| {
            is_below_or_at(block.scores[index], block.ids[index])
        });
        match index.checked_sub(1) {
            Some(before) if members.name(block.ids[before]) == name => {
                Ok(Place { block: at, index: before })
            }
            _ => Err(Place { block: at, index }),
        }
    }

    /// The place of a member that has this score and is there.
    fn find(&self, members: &Members, id: Id) -> Place {
        self.locate(members, members.score(id), members.name(id))
            .expect("every member stands in the order, at its score")
    }

    /// The rank of a member that is there.
    pub(super) fn rank(&self, members: &Members, id: Id) -> usize {
        let place = self.find(members, id);
        self.counts.before(place.block) + place.index
    }

    /// The place of rank `rank`, if there are so many members.
    pub(super) fn at(&self, rank: usize) -> Option<Place> {
        if rank >= self.len {
            return None;
        }
        let (block, before) = self.counts.find(rank);
        Some(Place { block, index: rank - before })
    }

    pub(super) fn get(&self, place: Place) -> Option<(Id, f64)> {
        let block = self.blocks.get(place.block)?;
        Some((*block.ids.get(place.index)?, block.scores[place.index]))
    }

    /// The place after `place`.
    pub(super) fn next(&self, place: Place) -> Option<Place> {
        let index = place.index + 1;
        if index < self.blocks.get(place.block)?.len() {
            return Some(Place { block: place.block, index });
        }
        let block = place.block + 1;
        (block < self.blocks.len()).then_some(Place { block, index: 0 })
    }

    /// The place before `place`.
    pub(super) fn previous(&self, place: Place) -> Option<Place> {
        if let Some(index) = place.index.checked_sub(1) {
            return Some(Place { block: place.block, index });
        }
        let block = place.block.checked_sub(1)?;
        Some(Place { block, index: self.blocks[block].len() - 1 })
    }

    /// Puts in member `id`, which is among the members but not in the order.
    pub(super) fn insert(&mut self, members: &Members, id: Id) {
        let score = members.score(id);
        let place = match self.locate(members, score, members.name(id)) {
            Ok(place) | Err(place) => place,
        };
        self.len += 1;
        let full = self.blocks.get(place.block).is_none_or(|block| block.len() >= BLOCK);
        if full {
            self.insert_splitting(place, score, id);
            self.rewrite_counts();
            return;
        }
        let block = &mut self.blocks[place.block];
        self.block_bytes -= block.heap_bytes();
        block.insert(place.index, score, id);
        self.block_bytes += block.heap_bytes();
        self.lows[place.block] = block.scores[0];
        self.counts.add(place.block);
    }

    /// As above, where the block is full or missing. What comes in order, upwards or downwards, fills blocks whole.
    fn insert_splitting(&mut self, place: Place, score: f64, id: Id) {
        let Place { block: at, index } = place;
        let mut alone = Block::default();
        if self.blocks.is_empty()
            || (at == 0 && index == 0)
            || (at + 1 == self.blocks.len() && index == self.blocks[at].len())
        {
            alone.insert(0, score, id);
            self.block_bytes += alone.heap_bytes();
            let at = if index == 0 { 0 } else { at + 1 };
            self.lows.insert(at, score);
            self.blocks.insert(at, alone);
            return;
        }
        let left = &mut self.blocks[at];
        self.block_bytes -= left.heap_bytes();
        let cut = left.len() / 2;
        let mut right = Block { scores: left.scores.split_off(cut), ids: left.ids.split_off(cut) };
        left.fit();
        if index <= cut {
            left.insert(index, score, id);
        } else {
            right.insert(index - cut, score, id);
        }
        self.block_bytes += left.heap_bytes() + right.heap_bytes();
        self.lows[at] = left.scores[0];
        self.lows.insert(at + 1, right.scores[0]);
        self.blocks.insert(at + 1, right);
    }

    /// Takes out member `id`, which is among the members with the score it has in the order.
    pub(super) fn remove(&mut self, members: &Members, id: Id) {
        let Place { block: at, index } = self.find(members, id);
        self.len -= 1;
        let block = &mut self.blocks[at];
        self.block_bytes -= block.heap_bytes();
        block.scores.remove(index);
        block.ids.remove(index);
        if block.len() + 2 * STEP < block.ids.capacity() {
            block.fit();
        }
        self.block_bytes += block.heap_bytes();
        let left = block.len();
        if let Some(low) = block.scores.first() {
            self.lows[at] = *low;
        }
        if left < BLOCK / 4 && self.join(at) {
            self.rewrite_counts();
        } else {
            self.counts.subtract(at);
        }
    }

    /// Joins a small block to one of its neighbours if they fit into one, or drops it if it is empty. True if it did.
    fn join(&mut self, at: usize) -> bool {
        let len = self.blocks[at].len();
        if len == 0 {
            let empty = self.blocks.remove(at);
            self.lows.remove(at);
            self.block_bytes -= empty.heap_bytes();
            return true;
        }
        let fits = |other: usize| {
            self.blocks.get(other).is_some_and(|other| other.len() + len <= BLOCK * 3 / 4)
        };
        let left = match at.checked_sub(1) {
            Some(before) if fits(before) => before,
            _ if fits(at + 1) => at,
            _ => return false,
        };
        let right = self.blocks.remove(left + 1);
        self.lows.remove(left + 1);
        let into = &mut self.blocks[left];
        self.block_bytes -= into.heap_bytes() + right.heap_bytes();
        into.scores.reserve_exact(right.scores.len());
        into.ids.reserve_exact(right.ids.len());
        into.scores.extend(right.scores);
        into.ids.extend(right.ids);
        self.block_bytes += into.heap_bytes();
        true
    }

    /// Takes out the members of these ranks, which are there, and hands them to `removed`.
    pub(super) fn remove_ranks(
        &mut self,
        from: usize,
        to: usize,
        mut removed: impl FnMut(Id, f64),
    ) {
        let Some(first) = self.at(from) else { return };
        let (mut left, mut at, mut index) = (to - from, first.block, first.index);
        self.len -= left;
        while left > 0 {
            let block = &mut self.blocks[at];
            let end = block.len().min(index + left);
            left -= end - index;
            self.block_bytes -= block.heap_bytes();
            for (id, score) in block.ids.drain(index..end).zip(block.scores.drain(index..end)) {
                removed(id, score);
            }
            block.fit();
            self.block_bytes += block.heap_bytes();
            (at, index) = (at + 1, 0);
        }
        let emptied = self.blocks.iter().filter(|block| block.ids.is_empty());
        self.block_bytes -= emptied.map(Block::heap_bytes).sum::<usize>();
        self.blocks.retain(|block| !block.ids.is_empty());
        self.lows.clear();
        self.lows.extend(self.blocks.iter().map(|block| block.scores[0]));
        for at in [first.block + 1, first.block] {
            if self.blocks.get(at).is_some_and(|block| block.len() < BLOCK / 4) {
                self.join(at);
            }
        }
        if self.blocks.len() * 4 < self.blocks.capacity() {
            self.blocks.shrink_to(self.blocks.len() * 2);
            self.lows.shrink_to(self.blocks.len() * 2);
        }
        self.rewrite_counts();
    }

    fn rewrite_counts(&mut self) {
        self.counts.rewrite(self.blocks.iter().map(Block::len));
    }

    /// Panics unless everything is as it should be.
    #[cfg(test)]
    pub(super) fn check(&self, members: &Members) {
        let (mut before, mut bytes, mut last) = (0, 0, None);
        for (at, block) in self.blocks.iter().enumerate() {
            assert!(block.len() > 0 && block.len() <= BLOCK && block.len() == block.scores.len());
            assert_eq!(self.lows[at].to_bits(), block.scores[0].to_bits());
            assert_eq!(self.counts.before(at), before);
            for (score, id) in block.scores.iter().zip(&block.ids) {
                assert_eq!(score.to_bits(), members.score(*id).to_bits());
                let this = (*score, members.name(*id));
                assert!(last.is_none_or(|last| compare(last, this).is_lt()));
                last = Some(this);
            }
            (before, bytes) = (before + block.len(), bytes + block.heap_bytes());
        }
        assert_eq!(
            (self.len, self.block_bytes, self.lows.len()),
            (before, bytes, self.blocks.len())
        );
    }
}

/// A Fenwick tree over the lengths of blocks.
#[derive(Clone, Debug, Default)]
struct Counts {
    /// `sums[n - 1]` is the sum of the `n & n.wrapping_neg()` lengths that end with number `n`, counted from 1.
    sums: Vec<usize>,
}

fn lowest_bit(number: usize) -> usize {
    number & number.wrapping_neg()
}

impl Counts {
    fn rewrite(&mut self, lengths: impl Iterator<Item = usize>) {
        self.sums.clear();
        self.sums.extend(lengths);
        for number in 1..=self.sums.len() {
            let parent = number + lowest_bit(number);
            if parent <= self.sums.len() {
                self.sums[parent - 1] += self.sums[number - 1];
            }
        }
        if self.sums.len() * 4 < self.sums.capacity() {
            self.sums.shrink_to(self.sums.len() * 2);
        }
    }

    /// The sum of the lengths before block `at`.
    fn before(&self, at: usize) -> usize {
        let (mut number, mut sum) = (at, 0);
        while number > 0 {
            sum += self.sums[number - 1];
            number -= lowest_bit(number);
        }
        sum
    }

    fn add(&mut self, at: usize) {
        let mut number = at + 1;
        while number <= self.sums.len() {
            self.sums[number - 1] += 1;
            number += lowest_bit(number);
        }
    }

    fn subtract(&mut self, at: usize) {
        let mut number = at + 1;
        while number <= self.sums.len() {
            self.sums[number - 1] -= 1;
            number += lowest_bit(number);
        }
    }

    /// The block that holds rank `rank`, which is there, and the sum of the lengths before it.
    fn find(&self, rank: usize) -> (usize, usize) {
        let (mut number, mut before) = (0, 0);
        let mut step = (self.sums.len() + 1).next_power_of_two();
        while step > 0 {
            if let Some(sum) = self.sums.get((number + step).wrapping_sub(1))
                && before + sum <= rank
            {
                number += step;
                before += sum;
            }
            step /= 2;
        }
        (number, before)
    }
}
