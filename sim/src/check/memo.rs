//! Where a search has been: an exact set of configurations, in three vectors.
//!
//! A configuration is the state, which operations with an answer are behind it, and which of the open ones were used. Keys
//! are stored and compared in full; hashes only say where to look.
//!
//! With the same state and the same answered operations, a configuration that has used *fewer* open ones can do
//! everything that one with more can, and what it leads to is no worse. So what is remembered for each are the sets of
//! used operations that were met, and one that contains any of them is not worth a visit. That is what keeps open
//! operations, of which each doubles the number of sets, from doubling the search.

use std::hash::{BuildHasher, BuildHasherDefault, DefaultHasher, Hash};

const NONE: u32 = u32::MAX;
/// How many sets of used operations a visit is compared with, the latest first. To miss one costs time and nothing else.
const SETS_MAX: usize = 256;

/// Open addressing over numbers that stand for something kept elsewhere.
#[derive(Debug, Default)]
struct Table {
    slots: Vec<u32>,
    len: usize,
}

impl Table {
    /// The slots in which something with this hash may be, in order; the first that is empty ends them.
    fn probe(&self, hash: u64) -> impl Iterator<Item = usize> + use<> {
        let mask = self.slots.len() - 1;
        let start = usize::try_from(hash >> 32).expect("32 bits") & mask;
        (0..=mask).map(move |step| (start + step) & mask)
    }

    /// Makes room for one more. `hash` answers the hashes of what is in it.
    fn grow(&mut self, hash: impl Fn(u32) -> u64) {
        if (self.len + 1) * 4 <= self.slots.len() * 3 {
            return;
        }
        let room = (self.slots.len() * 2).max(64);
        let old = std::mem::replace(&mut self.slots, vec![NONE; room]);
        for number in old.into_iter().filter(|number| *number != NONE) {
            let mut places = self.probe(hash(number));
            let free = places.find(|slot| self.slots[*slot] == NONE).expect("a quarter is free");
            self.slots[free] = number;
        }
    }
}

/// Numbers for states: equal states have the same.
#[derive(Debug)]
pub(super) struct States<S> {
    states: Vec<S>,
    table: Table,
}

impl<S: Eq + Hash> States<S> {
    pub(super) fn new() -> Self {
        Self { states: Vec::new(), table: Table::default() }
    }

    pub(super) fn get(&self, number: u32) -> &S {
        &self.states[place(number)]
    }

    pub(super) fn number(&mut self, state: S) -> u32 {
        let hash = |state: &S| mix(0, BuildHasherDefault::<DefaultHasher>::new().hash_one(state));
        let states = &self.states;
        self.table.grow(|number| hash(&states[place(number)]));
        for slot in self.table.probe(hash(&state)) {
            let number = self.table.slots[slot];
            if number == NONE {
                let number = u32::try_from(self.states.len()).expect("fewer states than steps");
                self.table.slots[slot] = number;
                self.table.len += 1;
                self.states.push(state);
                return number;
            }
            if self.states[place(number)] == state {
                return number;
            }
        }
        unreachable!("a quarter of the slots is free")
    }
}

/// One state and set of answered operations.
#[derive(Clone, Copy, Debug)]
struct Entry {
    state: u32,
    /// The first word of the set that is not full, and where it and those after it are.
    base: u32,
    start: u32,
    words: u32,
    /// The last of the sets of used open operations that were met with it.
    used: u32,
}

/// The configurations that were visited.
#[derive(Debug, Default)]
pub(super) struct Memo {
    entries: Vec<Entry>,
    words: Vec<u64>,
    /// For each set of used operations, the one met before it.
    before: Vec<u32>,
    /// The sets, each as many words long as all others.
    used: Vec<u64>,
    table: Table,
}

impl Memo {
    /// How many configurations are remembered.
    pub(super) fn len(&self) -> usize {
        self.entries.len() + self.before.len()
    }

    /// Notes a visit; answers whether it is worth it. `done` begins with word number `base` of its set: all before are
    /// full, and what it ends with is not empty. All `used` of one search are of the same length.
    pub(super) fn visit(&mut self, state: u32, base: u32, done: &[u64], used: &[u64]) -> bool {
        let (entries, words) = (&self.entries, &self.words);
        self.table.grow(|number| {
            let Entry { state, base, start, words: length, .. } = entries[place(number)];
            hash(state, base, &words[place(start)..place(start) + place(length)])
        });
        for slot in self.table.probe(hash(state, base, done)) {
            let number = self.table.slots[slot];
            if number == NONE {
                self.insert(slot, state, base, done, used);
                return true;
            }
            let entry = self.entries[place(number)];
            let start = place(entry.start);
            let is_same = (entry.state, entry.base) == (state, base)
                && self.words[start..start + place(entry.words)] == *done;
            if is_same {
                return !used.is_empty() && self.is_better(number, used);
            }
        }
        unreachable!("a quarter of the slots is free")
    }

    fn insert(&mut self, slot: usize, state: u32, base: u32, done: &[u64], used: &[u64]) {
        self.table.slots[slot] = short(self.entries.len());
        self.table.len += 1;
        let start = short(self.words.len());
        self.words.extend_from_slice(done);
        let mut entry = Entry { state, base, start, words: short(done.len()), used: NONE };
        if !used.is_empty() {
            entry.used = self.remember(NONE, used);
        }
        self.entries.push(entry);
    }

    /// Whether no set that was met is part of this one, which is remembered then.
    fn is_better(&mut self, number: u32, used: &[u64]) -> bool {
        let mut set = self.entries[place(number)].used;
        for _ in 0..SETS_MAX {
            if set == NONE {
                break;
            }
            let start = place(set) * used.len();
            let known = &self.used[start..start + used.len()];
            if known.iter().zip(used).all(|(known, used)| known & !used == 0) {
                return false;
            }
            set = self.before[place(set)];
        }
        let before = self.entries[place(number)].used;
        self.entries[place(number)].used = self.remember(before, used);
        true
    }

    fn remember(&mut self, before: u32, used: &[u64]) -> u32 {
        self.before.push(before);
        self.used.extend_from_slice(used);
        short(self.before.len() - 1)
    }
}

fn place(number: u32) -> usize {
    usize::try_from(number).expect("32 bits")
}

/// Searches end long before; see [`super::Limits`].
fn short(length: usize) -> u32 {
    u32::try_from(length).ok().filter(|short| *short != NONE).expect("the memo has a limit")
}

fn hash(state: u32, base: u32, done: &[u64]) -> u64 {
    let begin = mix(u64::from(base), u64::from(state));
    done.iter().fold(begin, |hash, word| mix(hash, *word))
}

/// Its upper half depends on all bits of both.
fn mix(hash: u64, word: u64) -> u64 {
    let mixed = (hash.rotate_left(23) ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (mixed ^ (mixed >> 32)).wrapping_mul(0xd6e8_feb8_6659_fd93)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_configuration_is_visited_once() {
        let mut memo = Memo::default();
        for round in 0..2 {
            for state in 0..100 {
                for word in 1..100 {
                    assert_eq!(memo.visit(state, 3, &[word], &[]), round == 0);
                    assert_eq!(memo.visit(state, 3, &[word, word], &[]), round == 0);
                    assert_eq!(memo.visit(state, 4, &[word], &[]), round == 0);
                }
            }
        }
    }

    #[test]
    fn more_open_operations_in_use_are_not_worth_a_visit() {
        let mut memo = Memo::default();
        assert!(memo.visit(1, 0, &[1], &[0b0110]));
        assert!(!memo.visit(1, 0, &[1], &[0b0110]));
        assert!(!memo.visit(1, 0, &[1], &[0b0111]));
        assert!(memo.visit(1, 0, &[1], &[0b0101]), "neither is part of the other");
        assert!(memo.visit(2, 0, &[1], &[0b0111]), "another state");
        assert!(memo.visit(1, 0, &[3], &[0b0111]), "other answers");
        assert!(memo.visit(1, 0, &[1], &[0]));
        assert!(!memo.visit(1, 0, &[1], &[0b1000]));
    }

    #[test]
    fn equal_states_have_the_same_number() {
        let mut states = States::new();
        let numbers: Vec<u32> = (0..1_000).map(|state| states.number(state % 300)).collect();
        assert_eq!(numbers[..300], numbers[300..600]);
        assert_eq!(numbers.iter().max(), Some(&299));
        assert_eq!(*states.get(numbers[7]), 7);
    }
}
