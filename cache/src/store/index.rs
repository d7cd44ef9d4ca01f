//! Finds a key's cell: one ordered table a slot, for the slots of one shard and one database.
//!
//! A table is an array of 64-bit words, a key's 32-bit hash above its cell's 32-bit handle; 0 is an empty word. A word's *ideal*
//! place is `hash * span / 2^32`, so ideal places ascend with the hash; words are kept in ascending order of their hash, each at
//! its ideal place or after it, with no empty word between the two (ordered linear probing; Amble and Knuth, 1974). A lookup
//! looks at a few neighbouring words, and **the order of the table is the order of the hashes**, whatever its size: scans,
//! slot calls, migration and Merkle walks all go on from a hash, and growing or shrinking moves nothing past anything else.
//! The words after the span are padding, so that no run wraps around.
//!
//! A table that passes [`FAN_OUT`] words becomes 256 tables, one for each value of the next eight bits of the hash. So no
//! insertion moves more than a bounded number of words, and a slot that one hash tag fills costs no more than any other.

use crate::slot::{SLOTS, Slot};

use super::SHARDS;

/// How many slots a shard owns.
pub(super) const SHARD_SLOTS: usize = (SLOTS / SHARDS) as usize;

/// Slots are kept in groups, made when their first key comes: a database with few keys costs little.
const GROUP: usize = 32;

/// The most words of a table that can be split further.
const FAN_OUT: usize = 32 * 1024;

/// How many tables a table becomes, and by how many bits of the hash.
const FAN: usize = 256;
const FAN_BITS: u32 = 8;

/// How often a table can be split: then all 32 bits of the hash but eight are used up.
const DEPTH_MAX: u32 = 3;

/// The keys of one database in one shard.
#[derive(Debug, Default)]
pub(super) struct Index {
    groups: Vec<Option<Box<[Node; GROUP]>>>,
    len: usize,
    heap: usize,
}

/// The keys of a slot, or of one value of some leading bits of the hash in it.
#[derive(Debug)]
enum Node {
    Table(Table),
    Fan(Box<Fan>),
}

#[derive(Debug)]
struct Fan {
    children: [Node; FAN],
    len: usize,
}

#[derive(Debug, Default)]
struct Table {
    words: Box<[u64]>,
    len: u32,
}

fn hash_of(word: u64) -> u32 {
    (word >> 32) as u32
}

fn handle_of(word: u64) -> u32 {
    (word & 0xFFFF_FFFF) as u32
}

fn word_of(hash: u32, handle: u32) -> u64 {
    (u64::from(hash) << 32) | u64::from(handle)
}

/// The number of a slot within its shard.
pub(super) fn local(slot: Slot) -> usize {
    usize::from(slot.0) % SHARD_SLOTS
}

impl Index {
    /// How many keys there are.
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// Bytes on the heap.
    pub(super) fn heap_bytes(&self) -> usize {
        self.heap
    }

    fn node(&self, slot: usize) -> Option<&Node> {
        let group = self.groups.get(slot / GROUP)?.as_ref()?;
        Some(&group[slot % GROUP])
    }

    /// How many keys slot number `slot` of the shard holds.
    pub(super) fn slot_len(&self, slot: usize) -> usize {
        self.node(slot).map_or(0, Node::len)
    }

    /// How many words the table of slot number `slot` has.
    #[cfg(feature = "sim")]
    pub(super) fn words(&self, slot: usize) -> usize {
        match self.node(slot) {
            Some(Node::Table(table)) => table.words.len(),
            Some(Node::Fan(_)) => FAN_OUT,
            None => 0,
        }
    }

    /// The handle at `hash` of slot number `slot` that `is_it` recognises.
    #[inline]
    pub(super) fn find(
        &self,
        slot: usize,
        hash: u32,
        is_it: impl FnMut(u32) -> bool,
    ) -> Option<u32> {
        let mut node = self.node(slot)?;
        let mut shift = 0;
        loop {
            match node {
                Node::Table(table) => {
                    return table.find(hash, shift, is_it).map(|at| handle_of(table.words[at]));
                }
                Node::Fan(fan) => {
                    node = &fan.children[child(hash, shift)];
                    shift += FAN_BITS;
                }
            }
        }
    }

    /// Adds a word. The key is not there yet.
    pub(super) fn insert(&mut self, slot: usize, hash: u32, handle: u32) {
        if self.groups.is_empty() {
            self.groups.resize_with(SHARD_SLOTS / GROUP, || None);
            self.heap += self.groups.capacity() * size_of::<Option<Box<[Node; GROUP]>>>();
        }
        let group = self.groups[slot / GROUP].get_or_insert_with(|| {
            self.heap += size_of::<[Node; GROUP]>();
            Box::new(std::array::from_fn(|_| Node::default()))
        });
        group[slot % GROUP].insert(hash, handle, 0, &mut self.heap);
        self.len += 1;
    }

    /// Puts `new` in the place of `old`, which is there.
    pub(super) fn replace(&mut self, slot: usize, hash: u32, old: u32, new: u32) {
        let group = self.groups[slot / GROUP].as_mut().expect("the word's group is there");
        let mut node = &mut group[slot % GROUP];
        let mut shift = 0;
        loop {
            match node {
                Node::Table(table) => {
                    let at = table.find(hash, shift, |handle| handle == old);
                    table.words[at.expect("the word is there")] = word_of(hash, new);
                    return;
                }
                Node::Fan(fan) => {
                    node = &mut fan.children[child(hash, shift)];
                    shift += FAN_BITS;
                }
            }
        }
    }

    /// Removes a word, which is there.
    pub(super) fn remove(&mut self, slot: usize, hash: u32, handle: u32) {
        let group = self.groups[slot / GROUP].as_mut().expect("the word's group is there");
        group[slot % GROUP].remove(hash, handle, 0, &mut self.heap);
        self.len -= 1;
    }

    /// Visits words in order of slot and hash, from `hash` of slot number `slot` on, until `visit` (slot, hash, handle)
    /// returns false.
    pub(super) fn walk(
        &self,
        slot: usize,
        hash: u32,
        mut visit: impl FnMut(usize, u32, u32) -> bool,
    ) {
        for (number, group) in self.groups.iter().enumerate().skip(slot / GROUP) {
            let Some(group) = group else { continue };
            let first = number * GROUP;
            for (node, at) in group.iter().zip(first..).skip(slot.saturating_sub(first)) {
                let from = (at == slot).then_some(hash);
                if !node.walk(from, 0, &mut |hash, handle| visit(at, hash, handle)) {
                    return;
                }
            }
        }
    }

    /// Visits the words of slot number `slot` in order of their hash, until `visit` returns false.
    pub(super) fn walk_slot(&self, slot: usize, mut visit: impl FnMut(u32, u32) -> bool) {
        if let Some(node) = self.node(slot) {
            node.walk(None, 0, &mut visit);
        }
    }

    /// The handle of word number `number` in the order of the walk, below the number of keys.
    pub(super) fn nth(&self, mut number: usize) -> Option<u32> {
        for node in self.groups.iter().flatten().flat_map(|group| group.iter()) {
            if number < node.len() {
                return node.nth(number);
            }
            number -= node.len();
        }
        None
    }

    /// Asserts what the module promises, and returns how many bytes there are on the heap.
    #[cfg(any(test, feature = "sim"))]
    pub(super) fn check(&self) {
        let mut heap = self.groups.capacity() * size_of::<Option<Box<[Node; GROUP]>>>();
        let mut len = 0;
        for group in self.groups.iter().flatten() {
            heap += size_of::<[Node; GROUP]>();
            for node in group.iter() {
                let (words, bytes) = node.check(0, None);
                len += words;
                heap += bytes;
            }
        }
        assert_eq!(len, self.len, "the index counts its words");
        assert_eq!(heap, self.heap, "the index counts its bytes");
    }
}

/// Which child of a node that has used up `shift` bits leads to `hash`.
fn child(hash: u32, shift: u32) -> usize {
    ((hash << shift) >> (u32::BITS - FAN_BITS)) as usize
}

impl Default for Node {
    fn default() -> Self {
        Self::Table(Table::default())
    }
}

impl Node {
    fn len(&self) -> usize {
        match self {
            Self::Table(table) => table.len as usize,
            Self::Fan(fan) => fan.len,
        }
    }

    fn insert(&mut self, hash: u32, handle: u32, shift: u32, heap: &mut usize) {
        if let Self::Table(table) = self
            && table.len as usize >= FAN_OUT
            && shift < DEPTH_MAX * FAN_BITS
        {
            self.fan_out(shift, heap);
        }
        match self {
            Self::Table(table) => table.insert(hash, handle, shift, heap),
            Self::Fan(fan) => {
                fan.len += 1;
                let child = &mut fan.children[child(hash, shift)];
                child.insert(hash, handle, shift + FAN_BITS, heap);
            }
        }
    }

    fn remove(&mut self, hash: u32, handle: u32, shift: u32, heap: &mut usize) {
        match self {
            Self::Table(table) => {
                let at = table.find(hash, shift, |it| it == handle);
                table.remove(at.expect("the word is there"), shift, heap);
            }
            Self::Fan(fan) => {
                fan.len -= 1;
                let child = &mut fan.children[child(hash, shift)];
                child.remove(hash, handle, shift + FAN_BITS, heap);
                if fan.len < FAN_OUT / 4 {
                    self.fan_in(shift, heap);
                }
            }
        }
    }

    fn fan_out(&mut self, shift: u32, heap: &mut usize) {
        let Self::Table(table) = self else { return };
        let table = std::mem::take(table);
        *heap -= table.bytes();
        let mut words = table.words.iter().copied().filter(|word| *word != 0).peekable();
        let len = table.len as usize;
        let children = std::array::from_fn(|number| {
            let mut mine = Vec::new();
            while let Some(word) = words.next_if(|word| child(hash_of(*word), shift) == number) {
                mine.push(word);
            }
            let table = Table::of(&mine, shift + FAN_BITS);
            *heap += table.bytes();
            Self::Table(table)
        });
        *heap += size_of::<Fan>();
        *self = Self::Fan(Box::new(Fan { children, len }));
    }

    fn fan_in(&mut self, shift: u32, heap: &mut usize) {
        let mut words = Vec::with_capacity(self.len());
        self.walk(None, shift, &mut |hash, handle| {
            words.push(word_of(hash, handle));
            true
        });
        *heap -= self.bytes();
        let table = Table::of(&words, shift);
        *heap += table.bytes();
        *self = Self::Table(table);
    }

    fn bytes(&self) -> usize {
        match self {
            Self::Table(table) => table.bytes(),
            Self::Fan(fan) => {
                size_of::<Fan>() + fan.children.iter().map(Self::bytes).sum::<usize>()
            }
        }
    }

    fn walk(
        &self,
        from: Option<u32>,
        shift: u32,
        visit: &mut impl FnMut(u32, u32) -> bool,
    ) -> bool {
        match self {
            Self::Table(table) => table.walk(from, shift, visit),
            Self::Fan(fan) => {
                let first = from.map_or(0, |hash| child(hash, shift));
                fan.children.iter().enumerate().skip(first).all(|(number, node)| {
                    let from = if number == first { from } else { None };
                    node.walk(from, shift + FAN_BITS, visit)
                })
            }
        }
    }

    fn nth(&self, mut number: usize) -> Option<u32> {
        match self {
            Self::Table(table) => {
                let mut words = table.words.iter().filter(|word| **word != 0);
                words.nth(number).map(|word| handle_of(*word))
            }
            Self::Fan(fan) => {
                for child in &fan.children {
                    if number < child.len() {
                        return child.nth(number);
                    }
                    number -= child.len();
                }
                None
            }
        }
    }

    #[cfg(any(test, feature = "sim"))]
    fn check(&self, shift: u32, prefix: Option<u32>) -> (usize, usize) {
        match self {
            Self::Table(table) => {
                table.check(shift, prefix);
                (table.len as usize, table.bytes())
            }
            Self::Fan(fan) => {
                let mut sum = (0, size_of::<Fan>());
                for (number, node) in (0..).zip(&fan.children) {
                    let prefix = (prefix.unwrap_or(0) << FAN_BITS) | number;
                    let (len, bytes) = node.check(shift + FAN_BITS, Some(prefix));
                    sum = (sum.0 + len, sum.1 + bytes);
                }
                assert_eq!(sum.0, fan.len, "a fan counts its words");
                sum
            }
        }
    }
}

impl Table {
    /// A table of `words`, which are in order.
    fn of(words: &[u64], shift: u32) -> Self {
        let mut table = Self::default();
        if !words.is_empty() {
            let mut size = SIZE_MIN;
            while most(size) <= words.len() {
                size = next_size(size);
            }
            table.len = u32::try_from(words.len()).expect("a table has fewer than 2^32 words");
            table.lay_out(words.iter().copied(), size, shift);
        }
        table
    }

    fn bytes(&self) -> usize {
        self.words.len() * size_of::<u64>()
    }

    /// The ideal place of `hash` in a table of `size` words.
    fn ideal(hash: u32, shift: u32, size: usize) -> usize {
        let span = size - padding(size);
        ((u64::from(hash << shift) * span as u64) >> 32) as usize
    }

    #[inline]
    fn find(&self, hash: u32, shift: u32, mut is_it: impl FnMut(u32) -> bool) -> Option<usize> {
        if self.words.is_empty() {
            return None;
        }
        let from = Self::ideal(hash, shift, self.words.len());
        for (at, word) in self.words.iter().enumerate().skip(from) {
            let found = hash_of(*word);
            if *word == 0 || found > hash {
                return None;
            }
            if found == hash && is_it(handle_of(*word)) {
                return Some(at);
            }
        }
        None
    }

    fn insert(&mut self, hash: u32, handle: u32, shift: u32, heap: &mut usize) {
        if self.len as usize >= most(self.words.len()) {
            self.resize(next_size(self.words.len()), shift, heap);
        }
        let (at, empty) = loop {
            let from = Self::ideal(hash, shift, self.words.len());
            let goes_after = |word: &u64| *word != 0 && hash_of(*word) <= hash;
            let at = from + self.words[from..].iter().take_while(|word| goes_after(word)).count();
            match self.words[at..].iter().position(|word| *word == 0) {
                Some(run) => break (at, at + run),
                // The run reaches the end of the padding: a larger table has shorter runs.
                None => self.resize(next_size(self.words.len()), shift, heap),
            }
        };
        self.words.copy_within(at..empty, at + 1);
        self.words[at] = word_of(hash, handle);
        self.len += 1;
    }

    fn remove(&mut self, at: usize, shift: u32, heap: &mut usize) {
        // Those that follow move back, up to the first that is at its ideal place.
        let size = self.words.len();
        let moves = |(place, word): (usize, &u64)| {
            *word != 0 && Self::ideal(hash_of(*word), shift, size) < place
        };
        let followers = (at + 1..size).zip(&self.words[at + 1..]);
        let end = at + 1 + followers.take_while(|it| moves(*it)).count();
        self.words.copy_within(at + 1..end, at);
        self.words[end - 1] = 0;
        self.len -= 1;
        let len = self.len as usize;
        if len == 0 {
            *heap -= self.bytes();
            *self = Self::default();
        } else if size > SIZE_MIN && len * 8 < size * 3 {
            let mut smaller = SIZE_MIN;
            while most(smaller) <= len + len / 4 {
                smaller = next_size(smaller);
            }
            if smaller < size {
                self.resize(smaller, shift, heap);
            }
        }
    }

    fn resize(&mut self, size: usize, shift: u32, heap: &mut usize) {
        *heap -= self.bytes();
        let old = std::mem::take(&mut self.words);
        self.lay_out(old.iter().copied().filter(|word| *word != 0), size, shift);
        *heap += self.bytes();
    }

    /// Lays `words`, which are in order, out anew in a table of `size` words, or more if a run would leave it.
    fn lay_out(&mut self, words: impl Iterator<Item = u64> + Clone, mut size: usize, shift: u32) {
        'sizes: loop {
            let mut table = vec![0; size].into_boxed_slice();
            let mut free = 0;
            for word in words.clone() {
                let at = free.max(Self::ideal(hash_of(word), shift, size));
                let Some(place) = table.get_mut(at) else {
                    size = next_size(size);
                    continue 'sizes;
                };
                *place = word;
                free = at + 1;
            }
            self.words = table;
            return;
        }
    }

    fn walk(
        &self,
        from: Option<u32>,
        shift: u32,
        visit: &mut impl FnMut(u32, u32) -> bool,
    ) -> bool {
        if self.words.is_empty() {
            return true;
        }
        let hash = from.unwrap_or(0);
        let first = from.map_or(0, |hash| Self::ideal(hash, shift, self.words.len()));
        let words =
            self.words[first..].iter().filter(|word| **word != 0 && hash_of(**word) >= hash);
        for word in words {
            if !visit(hash_of(*word), handle_of(*word)) {
                return false;
            }
        }
        true
    }

    #[cfg(any(test, feature = "sim"))]
    fn check(&self, shift: u32, prefix: Option<u32>) {
        let mut last = None;
        let mut gap = 0;
        let mut len = 0;
        for (at, word) in self.words.iter().enumerate() {
            if *word == 0 {
                gap = at + 1;
                continue;
            }
            len += 1;
            let hash = hash_of(*word);
            assert!(last <= Some(hash), "words ascend");
            last = Some(hash);
            let ideal = Self::ideal(hash, shift, self.words.len());
            assert!(gap <= ideal && ideal <= at, "no gap between a word and its ideal place");
            assert!(prefix.is_none_or(|it| hash >> (32 - shift) == it), "a child has its hashes");
        }
        assert_eq!(len, self.len, "a table counts its words");
    }
}

/// The least words of a table that is not empty.
const SIZE_MIN: usize = 4;

/// The next of the sizes that tables have: four to each power of two, which are sizes that allocators round to as well.
fn next_size(size: usize) -> usize {
    if size < SIZE_MIN { SIZE_MIN } else { size + (1 << (size.ilog2() - 2)) }
}

/// The words after the last ideal place.
fn padding(size: usize) -> usize {
    1 + size / 64
}

/// How many words a table of `size` words holds before it grows.
fn most(size: usize) -> usize {
    if size <= 16 { size.saturating_sub(1) } else { size / 32 * 27 + size % 32 / 2 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::statistics::next_random;

    fn walked(index: &Index, slot: usize, hash: u32) -> Vec<(usize, u32, u32)> {
        let mut words = Vec::new();
        index.walk(slot, hash, |slot, hash, handle| {
            words.push((slot, hash, handle));
            true
        });
        words
    }

    fn random_hash(state: &mut u64) -> u32 {
        (next_random(state) >> 32) as u32
    }

    #[test]
    fn what_is_inserted_is_found_walked_in_order_and_removed() {
        for (keys, slots, narrow) in
            [(5_000u32, 7, 0), (3_000, 1, 12), (200_000, 1, 0), (150_000, 1, 14)]
        {
            let mut index = Index::default();
            let mut random = 7;
            let mut model = std::collections::BTreeMap::new();
            for handle in 1..=keys {
                let slot = handle as usize % slots;
                let hash = random_hash(&mut random) >> narrow;
                index.insert(slot, hash, handle);
                model.insert((slot, hash, handle), ());
            }
            index.check();
            let mut expected: Vec<_> = model.keys().copied().collect();
            let mut all = walked(&index, 0, 0);
            assert!(all.is_sorted_by_key(|(slot, hash, _)| (*slot, *hash)));
            all.sort_unstable();
            assert_eq!(all, expected);
            for (slot, hash, handle) in expected.iter().take(1_000) {
                assert_eq!(index.find(*slot, *hash, |it| it == *handle), Some(*handle));
            }
            while expected.len() > 10 {
                let at = usize::try_from(next_random(&mut random)).unwrap() % expected.len();
                let (slot, hash, handle) = expected.swap_remove(at);
                index.remove(slot, hash, handle);
                if expected.len().is_multiple_of(10_007) {
                    index.check();
                }
            }
            let mut rest = walked(&index, 0, 0);
            rest.sort_unstable();
            expected.sort_unstable();
            assert_eq!(rest, expected);
            for (slot, hash, handle) in rest {
                index.remove(slot, hash, handle);
            }
            index.check();
            assert_eq!(index.len(), 0);
        }
    }

    #[test]
    fn a_walk_from_the_middle_goes_on_where_the_hash_is() {
        let mut index = Index::default();
        let mut random = 9;
        for handle in 1..=60_000 {
            index.insert(3, random_hash(&mut random), handle);
        }
        let all = walked(&index, 0, 0);
        for from in [1, 77, 30_000, 59_999] {
            let (slot, hash, _) = all[from];
            let tail = walked(&index, slot, hash);
            assert_eq!(tail.last(), all.last());
            assert_eq!(tail[0].1, hash);
            assert!(tail.len() >= all.len() - from);
        }
        assert!(walked(&index, 4, 0).is_empty());
    }

    #[test]
    fn equal_hashes_are_all_kept_and_told_apart_by_their_handle() {
        let mut index = Index::default();
        for handle in 1..=1_000 {
            index.insert(0, u32::MAX, handle);
            index.insert(0, 0, handle + 1_000);
        }
        index.check();
        for handle in 1..=1_000 {
            assert_eq!(index.find(0, u32::MAX, |it| it == handle), Some(handle));
        }
        index.replace(0, u32::MAX, 500, 5_000);
        assert_eq!(index.find(0, u32::MAX, |it| it == 500), None);
        index.remove(0, u32::MAX, 5_000);
        index.check();
        assert_eq!(index.len(), 1_999);
    }

    #[test]
    fn a_table_of_many_keys_costs_at_most_thirteen_bytes_a_key() {
        for keys in [61, 610, 6_100] {
            let mut index = Index::default();
            let mut random = 1;
            for slot in 0..SHARD_SLOTS {
                for handle in 1..=keys {
                    index.insert(slot, random_hash(&mut random), handle);
                }
            }
            let each = index.heap_bytes() / index.len();
            assert!(each <= 13, "{each} bytes a key at {keys} keys a slot");
        }
    }
}
