//! What a run draws: keys, values, spans of time, commands.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use lattice_sim::random::{ChaCha8Rng, below, index, stream};

use super::model::Model;
use super::operation::{Life, Operation, When};
use crate::store::Store;
use crate::types::Database;

/// Orders the keys within a slot, in every run: so that keys with equal hashes can be known.
pub(super) const HASH_SEED: u64 = 7;

/// How many keys are looked at for pairs with equal hashes.
const SEARCHED: u32 = 260_000;

/// Pairs of keys with one slot and one hash.
static EQUAL_HASHES: LazyLock<Vec<Vec<u8>>> = LazyLock::new(|| {
    let options = crate::store::StoreOptions { hash_seed: HASH_SEED, ..<_>::default() };
    let store = Store::new(&options);
    let (mut seen, mut pairs) = (BTreeMap::new(), Vec::new());
    for number in 0..SEARCHED {
        let key = format!("s:{{c}}{number}").into_bytes();
        if let Some(other) = seen.insert(store.key(Database(0), &key).hash(), number) {
            pairs.extend([format!("s:{{c}}{other}").into_bytes(), key]);
        }
    }
    assert!(pairs.len() >= 4, "with so many keys there are pairs");
    pairs
});

#[derive(Debug)]
pub(super) struct Draw {
    random: ChaCha8Rng,
    values: u64,
}

impl Draw {
    pub(super) fn new(seed: u64) -> Self {
        Self { random: stream(seed, "cache", 0), values: 0 }
    }

    pub(super) fn below(&mut self, bound: u64) -> u64 {
        below(&mut self.random, bound)
    }

    pub(super) fn one_in(&mut self, times: u64) -> bool {
        self.below(times) == 0
    }

    pub(super) fn index(&mut self, length: usize) -> usize {
        index(&mut self.random, length)
    }

    fn named(&mut self, kind: char, count: u64) -> Vec<u8> {
        let number = self.below(count);
        format!("{kind}:{number}").into_bytes()
    }

    /// Keys with equal hashes.
    pub(super) fn equal_hashes(&mut self) -> &'static [Vec<u8>] {
        let pairs = EQUAL_HASHES.len() / 2;
        let at = 2 * self.index(pairs.min(3));
        &EQUAL_HASHES[at..at + 2]
    }

    pub(super) fn text_key(&mut self) -> Vec<u8> {
        if self.one_in(8) {
            let at = self.index(2);
            return self.equal_hashes()[at].clone();
        }
        self.named('s', 20)
    }

    pub(super) fn list_key(&mut self) -> Vec<u8> {
        self.named('l', 5)
    }

    pub(super) fn lease_key(&mut self) -> Vec<u8> {
        self.named('c', 4)
    }

    pub(super) fn collection_key(&mut self) -> Vec<u8> {
        let kind = ['t', 'h', 'z'][self.index(3)];
        self.named(kind, 4)
    }

    pub(super) fn any_key(&mut self) -> Vec<u8> {
        match self.below(8) {
            0 => self.list_key(),
            1 => self.collection_key(),
            2 => self.named('n', 3),
            _ => self.text_key(),
        }
    }

    /// Another key of the same kind.
    fn sibling(&mut self, key: &[u8]) -> Vec<u8> {
        match key[0] {
            b's' => self.text_key(),
            b'l' => self.list_key(),
            kind => self.named(char::from(kind), 4),
        }
    }

    /// A value that no other one is equal to.
    pub(super) fn value(&mut self) -> Vec<u8> {
        self.values += 1;
        let mut value = format!("v{}", self.values).into_bytes();
        let padding = match self.below(40) {
            0 => self.below(6_000),
            1..6 => self.below(600),
            _ => 0,
        };
        value.resize(value.len() + usize::try_from(padding).expect("small"), b'.');
        value
    }

    fn members(&mut self, at_most: u64) -> Vec<Vec<u8>> {
        let count = 1 + self.below(at_most);
        (0..count).map(|_| format!("m{}", self.below(40)).into_bytes()).collect()
    }

    /// A span in milliseconds, at least one, of a drawn magnitude.
    pub(super) fn span(&mut self) -> u64 {
        let bound = match self.below(12) {
            0..3 => 20,
            3..6 => 2_000,
            6..9 => 600_000,
            9..11 => 30 * 86_400_000,
            _ => 100 * 365 * 86_400_000,
        };
        1 + self.below(bound)
    }

    /// How far the clock moves. Often to where something ends.
    pub(super) fn step(&mut self, model: &Model) -> u64 {
        let first = model.entries.values().filter_map(|entry| entry.deadline).min();
        match (first, self.below(10)) {
            (Some(deadline), 0) => deadline - model.now,
            (Some(deadline), 1) => deadline - model.now - 1,
            (_, 2..5) => self.below(9),
            (_, 5..7) => self.below(100),
            (_, 7) => self.below(5_000),
            (_, 8) => self.below(1_200_000),
            (_, 9) if self.one_in(4) => self.below(40 * 86_400_000),
            _ => self.below(1_000),
        }
    }

    fn life(&mut self, now: u64) -> Life {
        match self.below(10) {
            0..4 => Life::Forever,
            4 | 5 => Life::Keep,
            6..9 => Life::For(self.span()),
            // Now and then a moment that has passed.
            _ if self.one_in(6) => Life::Until((now - self.below(50).min(now)).max(1)),
            _ => Life::Until(now + self.span()),
        }
    }

    /// A command that answers at once, and is about one database.
    pub(super) fn operation(&mut self, now: u64) -> Operation {
        use Operation as Op;
        match self.below(60) {
            0..12 => {
                let when = match self.below(8) {
                    0 => When::Missing,
                    1 => When::There,
                    _ => When::Always,
                };
                let (key, value) = (self.text_key(), self.value());
                let life = self.life(now);
                Op::Set { key, value, life, when }
            }
            12..22 => Op::Get(self.text_key()),
            22 => Op::GetDel(self.text_key()),
            23 | 24 => {
                let span = (!self.one_in(3)).then(|| self.span());
                Op::GetEx(self.text_key(), span)
            }
            25 | 26 => Op::Append(self.text_key(), self.value()),
            27 => Op::Incr(self.named('n', 3)),
            28..31 => Op::Del((0..=self.below(3)).map(|_| self.any_key()).collect()),
            31 => Op::Exists((0..=self.below(3)).map(|_| self.any_key()).collect()),
            32..36 => Op::Expire(self.any_key(), self.span()),
            36 => {
                let at = if self.one_in(5) { now.max(1) } else { now + self.span() };
                Op::ExpireAt(self.any_key(), at)
            }
            37 => Op::Persist(self.any_key()),
            38 | 39 => Op::Ttl(self.any_key()),
            40 | 41 => {
                let from = self.any_key();
                let to = self.sibling(&from);
                Op::Rename(from, to)
            }
            42 => {
                let from = self.any_key();
                let to = self.sibling(&from);
                if from == to { Op::Ttl(from) } else { Op::Copy(from, to, self.one_in(2)) }
            }
            43..46 => self.push(),
            46 => Op::Pop { key: self.list_key(), left: self.one_in(2) },
            47 => Op::Move { from: self.list_key(), to: self.list_key() },
            48 => Op::Range(self.list_key()),
            49..52 => Op::SetAdd(self.named('t', 4), self.members(6)),
            52 => match self.below(3) {
                0 => Op::SetRemove(self.named('t', 4), self.members(6)),
                1 => Op::SetPop(self.named('t', 4)),
                _ => Op::Members(self.named('t', 4)),
            },
            53 | 54 => Op::HashSet(self.named('h', 4), self.members(4), self.value()),
            55 => match self.below(2) {
                0 => Op::HashDel(self.named('h', 4), self.members(6)),
                _ => Op::Fields(self.named('h', 4)),
            },
            56 | 57 => {
                let score = i64::try_from(self.below(20)).expect("small");
                Op::SortedAdd(self.named('z', 4), self.members(4), score)
            }
            58 => match self.below(2) {
                0 => Op::SortedRemove(self.named('z', 4), self.members(6)),
                _ => Op::Ranked(self.named('z', 4)),
            },
            _ => Op::Size,
        }
    }

    pub(super) fn push(&mut self) -> Operation {
        let elements = (0..=self.below(3)).map(|_| self.value()).collect();
        Operation::Push { key: self.list_key(), left: self.one_in(2), elements }
    }

    /// A command for a transaction. None about lists, so that those who wait are served after each command alone; none of which the
    /// answer depends on when in the transaction a key expired.
    pub(super) fn queued(&mut self, now: u64) -> Operation {
        loop {
            let operation = self.operation(now);
            let is_list = operation.keys().iter().any(|key| key.starts_with(b"l:"));
            if !is_list && !matches!(operation, Operation::SetPop(_) | Operation::Size) {
                return operation;
            }
        }
    }
}
