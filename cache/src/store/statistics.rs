//! What a shard counts: hits, misses by cause, evictions by reason, hot keys, and hit ratios of key prefixes.
//!
//! Always on, and cheap enough for that: a hit costs two additions. Three parts are more than counters, and each is bounded:
//!
//! - **Why a key is missing** is remembered by a fingerprint of the keys that were removed last, in a table of at most 64 KiB.
//!   A key that was pushed out of it, or was never there, counts as never seen; two keys with one fingerprint are taken
//!   for each other about once in 2^30 lookups of a full table's slot.
//! - **Hot keys** come from one lookup in [`SAMPLE_EVERY`] (with a random jitter, so that a periodic load cannot hide), counted by the
//!   space-saving algorithm (Metwally, Agrawal, El Abbadi, 2005) in [`HOT_KEYS`] counters: a key with more than one in
//!   [`HOT_KEYS`] of a shard's lookups is always among them, and each count comes with the most by which it may be too high.
//! - **Prefixes** (up to the first `:`) are counted from the same samples, [`PREFIXES`] of them.
//!
//! Counts of hot keys and prefixes are halved every [`HALF_LIFE_MS`], so they tell what is so now.

use super::Counters;
use crate::types::{Database, Now};

/// One lookup in so many is sampled, on average.
pub(super) const SAMPLE_EVERY: u32 = 32;

/// How many candidates for hot keys a shard counts.
pub(super) const HOT_KEYS: usize = 32;

/// How many prefixes a shard counts.
pub(super) const PREFIXES: usize = 32;

/// How long it takes until a sample counts half, in milliseconds.
pub(super) const HALF_LIFE_MS: u64 = 60_000;

/// The most bytes of a key that are kept for hot keys.
const KEY_BYTES: usize = 128;

/// The most bytes of a prefix; a key without `:` in so many has none.
const PREFIX_BYTES: usize = 32;

/// The most fingerprints of removed keys: 64 KiB.
const FINGERPRINTS: usize = 16 * 1024;

/// Why a key that was there is not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Gone {
    /// Its deadline passed.
    Expired,
    /// It gave way at the memory limit.
    Evicted,
    /// A command removed it.
    Deleted,
}

/// Why keys have to give way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pressure {
    /// Something that is written needs the room.
    Write,
    /// The limit was set below what is used.
    LimitLowered,
    /// The process occupies more memory than what the store counts, so less may be counted.
    Resident,
}

/// A key that is used much.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HotKey {
    /// Its database.
    pub database: Database,
    /// The key, or its first 128 bytes.
    pub key: Box<[u8]>,
    /// How often it was looked up, estimated, recent lookups counting most.
    pub lookups: u64,
    /// By how much `lookups` may be too high, sampling error aside.
    pub error: u64,
}

/// How well lookups of keys with one prefix do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PrefixRatio {
    /// What the keys have before their first `:`; empty for keys without.
    pub prefix: Box<[u8]>,
    /// Lookups that found a value, estimated, recent ones counting most.
    pub hits: u64,
    /// Lookups that did not.
    pub misses: u64,
}

impl PrefixRatio {
    /// Hits out of all lookups, 0 to 1.
    #[must_use]
    pub fn ratio(&self) -> f64 {
        let (hits, all) = (self.hits, self.hits + self.misses);
        if all == 0 { 0.0 } else { to_float(hits) / to_float(all) }
    }
}

/// Exact below 2^53; counters of samples stay far below.
fn to_float(count: u64) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "a ratio to show needs no more than 53 bits")]
    let float = count as f64;
    float
}

/// What one shard counts. Every method takes constant time, [`Statistics::removed`] amortised.
#[derive(Debug)]
pub(super) struct Statistics {
    counters: Counters,
    removed: Removed,
    hot: HotKeys,
    prefixes: Prefixes,
    /// Lookups until the next sample.
    until_sample: u32,
    random: u64,
    halved_at_ms: u64,
}

impl Statistics {
    /// Counts nothing yet. `seed` decides which lookups are sampled.
    pub(super) fn new(seed: u64) -> Self {
        Self {
            counters: Counters::default(),
            removed: Removed::default(),
            hot: HotKeys::default(),
            prefixes: Prefixes::default(),
            until_sample: 1 + SAMPLE_EVERY / 2,
            random: seed,
            halved_at_ms: 0,
        }
    }

    /// A lookup for reading found `key`.
    #[inline]
    pub(super) fn hit(&mut self, database: Database, hash: u32, key: &[u8], now: Now) {
        self.counters.hits += 1;
        self.until_sample -= 1;
        if self.until_sample == 0 {
            self.sample(database, hash, key, true, now);
        }
    }

    /// A lookup for reading did not find `key`. Says why, as far as is remembered.
    pub(super) fn miss(
        &mut self,
        database: Database,
        hash: u32,
        key: &[u8],
        now: Now,
    ) -> Option<Gone> {
        let cause = self.removed.cause(database, hash);
        match cause {
            None => self.counters.misses_never_seen += 1,
            Some(Gone::Expired) => self.counters.misses_expired += 1,
            Some(Gone::Evicted) => self.counters.misses_evicted += 1,
            Some(Gone::Deleted) => self.counters.misses_deleted += 1,
        }
        self.until_sample -= 1;
        if self.until_sample == 0 {
            self.sample(database, hash, key, false, now);
        }
        cause
    }

    /// A command removed a key.
    pub(super) fn deleted(&mut self, database: Database, hash: u32) {
        self.removed.note(database, hash, Gone::Deleted);
    }

    /// A key was removed `late_ms` milliseconds after its deadline.
    pub(super) fn expired(&mut self, database: Database, hash: u32, late_ms: u64) {
        self.counters.expired += 1;
        self.counters.expiry_lag_max_ms = self.counters.expiry_lag_max_ms.max(late_ms);
        self.removed.note(database, hash, Gone::Expired);
    }

    /// A key gave way.
    pub(super) fn evicted(&mut self, database: Database, hash: u32, pressure: Pressure) {
        self.counters.evicted += 1;
        match pressure {
            Pressure::Write => {}
            Pressure::LimitLowered => self.counters.evicted_limit_lowered += 1,
            Pressure::Resident => self.counters.evicted_resident += 1,
        }
        self.removed.note(database, hash, Gone::Evicted);
    }

    /// The counters.
    pub(super) fn counters(&self) -> Counters {
        self.counters
    }

    /// A command has changed a key.
    #[inline]
    pub(super) fn changed(&mut self) {
        self.counters.changes += 1;
    }

    /// Sets the counters to zero, but for the changes. What is remembered of keys stays.
    pub(super) fn reset_counters(&mut self) {
        self.counters = Counters { changes: self.counters.changes, ..Counters::default() };
    }

    /// Bytes on the heap.
    pub(super) fn heap_bytes(&self) -> usize {
        self.removed.slots.len() * size_of::<u32>()
            + self.hot.heap_bytes()
            + self.prefixes.heap_bytes()
    }

    #[cold]
    fn sample(&mut self, database: Database, hash: u32, key: &[u8], hit: bool, now: Now) {
        // Between half and one and a half times the mean distance.
        let jitter = u32::try_from(next_random(&mut self.random) % u64::from(SAMPLE_EVERY));
        self.until_sample = SAMPLE_EVERY / 2 + jitter.expect("below a small number") + 1;
        let now_ms = now.monotonic_us / 1000;
        if now_ms >= self.halved_at_ms.saturating_add(HALF_LIFE_MS) {
            let halvings = (now_ms - self.halved_at_ms) / HALF_LIFE_MS;
            let halvings = u32::try_from(halvings.min(31)).expect("at most 31");
            self.halved_at_ms = now_ms;
            self.hot.halve(halvings);
            self.prefixes.halve(halvings);
        }
        self.hot.count(database, hash, key);
        self.prefixes.count(key, hit);
    }
}

/// What the shards of a store have counted, taken together.
#[derive(Clone, Debug, Default)]
pub struct Summary {
    /// The counters.
    pub counters: Counters,
    /// Keys that are used most, the hottest first.
    pub hot_keys: Vec<HotKey>,
    /// Prefixes by name.
    pub prefixes: Vec<PrefixRatio>,
}

impl Summary {
    /// Adds what one shard has counted.
    pub(super) fn absorb(&mut self, shard: &Statistics) {
        self.counters.add(&shard.counters);
        // A key belongs to one shard, so its counts need not be merged; a prefix may be in all.
        self.hot_keys.extend(shard.hot.iter());
        self.hot_keys.sort_by(|one, other| {
            (other.lookups, &one.key, one.database).cmp(&(one.lookups, &other.key, other.database))
        });
        for ratio in shard.prefixes.iter() {
            match self.prefixes.binary_search_by(|it| it.prefix.cmp(&ratio.prefix)) {
                Ok(index) => {
                    self.prefixes[index].hits += ratio.hits;
                    self.prefixes[index].misses += ratio.misses;
                }
                Err(index) => self.prefixes.insert(index, ratio),
            }
        }
    }
}

/// Fingerprints of removed keys, with why: a direct-mapped table, where a newer key takes an older one's place.
#[derive(Debug, Default)]
struct Removed {
    /// 30 bits of fingerprint above 2 bits of cause; 0 is an empty slot. The length is 0 or a power of two.
    slots: Box<[u32]>,
    used: usize,
}

impl Removed {
    /// 30 bits of fingerprint, with the lower two free for the cause.
    fn fingerprint(database: Database, hash: u32) -> u32 {
        let mixed =
            (hash ^ u32::from(database.0).wrapping_mul(0x9E37_79B1)).wrapping_mul(0x85EB_CA6B);
        (mixed ^ (mixed >> 15)) & !3
    }

    fn slot(&self, fingerprint: u32) -> usize {
        (fingerprint >> 2) as usize & (self.slots.len() - 1)
    }

    fn note(&mut self, database: Database, hash: u32, cause: Gone) {
        if self.used * 2 >= self.slots.len() && self.slots.len() < FINGERPRINTS {
            self.grow();
        }
        let fingerprint = Self::fingerprint(database, hash);
        let slot = self.slot(fingerprint);
        self.used += usize::from(self.slots[slot] == 0);
        self.slots[slot] = fingerprint
            | match cause {
                Gone::Expired => 1,
                Gone::Evicted => 2,
                Gone::Deleted => 3,
            };
    }

    fn cause(&self, database: Database, hash: u32) -> Option<Gone> {
        if self.slots.is_empty() {
            return None;
        }
        let fingerprint = Self::fingerprint(database, hash);
        let found = self.slots[self.slot(fingerprint)];
        match (found & !3 == fingerprint, found & 3) {
            (true, 1) => Some(Gone::Expired),
            (true, 2) => Some(Gone::Evicted),
            (true, 3) => Some(Gone::Deleted),
            _ => None,
        }
    }

    fn grow(&mut self) {
        let slots = vec![0; (self.slots.len() * 4).clamp(256, FINGERPRINTS)].into_boxed_slice();
        let old = std::mem::replace(&mut self.slots, slots);
        self.used = 0;
        for entry in old.into_iter().filter(|entry| *entry != 0) {
            let slot = self.slot(entry);
            self.used += usize::from(self.slots[slot] == 0);
            self.slots[slot] = entry;
        }
    }
}

/// The candidates for hot keys of one shard.
#[derive(Debug, Default)]
struct HotKeys {
    /// Hashes beside the counters, so that a search touches two cache lines.
    hashes: Vec<u32>,
    counters: Vec<HotCounter>,
}

#[derive(Debug)]
struct HotCounter {
    database: Database,
    key: Box<[u8]>,
    samples: u32,
    /// What the counter's previous owner had: how far `samples` may be off.
    inherited: u32,
}

impl HotKeys {
    fn count(&mut self, database: Database, hash: u32, key: &[u8]) {
        let key = &key[..key.len().min(KEY_BYTES)];
        let same = |index: &usize| {
            let counter = &self.counters[*index];
            counter.database == database && *counter.key == *key
        };
        let mut known = (0..self.hashes.len()).filter(|index| self.hashes[*index] == hash);
        if let Some(index) = known.find(same) {
            self.counters[index].samples = self.counters[index].samples.saturating_add(1);
            return;
        }
        if self.counters.len() < HOT_KEYS {
            self.hashes.push(hash);
            self.counters.push(HotCounter { database, key: key.into(), samples: 1, inherited: 0 });
            return;
        }
        let least = (0..HOT_KEYS).min_by_key(|index| self.counters[*index].samples);
        let least = least.expect("there are candidates");
        let inherited = self.counters[least].samples;
        self.hashes[least] = hash;
        self.counters[least] = HotCounter {
            database,
            key: key.into(),
            samples: inherited.saturating_add(1),
            inherited,
        };
    }

    fn halve(&mut self, times: u32) {
        for counter in &mut self.counters {
            counter.samples >>= times;
            counter.inherited >>= times;
        }
    }

    fn iter(&self) -> impl Iterator<Item = HotKey> {
        let seen = self.counters.iter().filter(|counter| counter.samples > counter.inherited);
        seen.map(|counter| HotKey {
            database: counter.database,
            key: counter.key.clone(),
            lookups: u64::from(counter.samples) * u64::from(SAMPLE_EVERY),
            error: u64::from(counter.inherited) * u64::from(SAMPLE_EVERY),
        })
    }

    fn heap_bytes(&self) -> usize {
        let keys: usize = self.counters.iter().map(|counter| counter.key.len()).sum();
        self.hashes.capacity() * size_of::<u32>()
            + self.counters.capacity() * size_of::<HotCounter>()
            + keys
    }
}

/// Hits and misses of the prefixes of one shard that are used most.
#[derive(Debug, Default)]
struct Prefixes {
    counters: Vec<PrefixCounter>,
}

#[derive(Debug)]
struct PrefixCounter {
    prefix: Box<[u8]>,
    hits: u32,
    misses: u32,
}

impl Prefixes {
    fn count(&mut self, key: &[u8], hit: bool) {
        let head = &key[..key.len().min(PREFIX_BYTES + 1)];
        let prefix = head.iter().position(|byte| *byte == b':').map_or(&[][..], |end| &head[..end]);
        let index = match self.counters.iter().position(|counter| *counter.prefix == *prefix) {
            Some(index) => index,
            None => self.place_for(prefix),
        };
        let counter = &mut self.counters[index];
        let count = if hit { &mut counter.hits } else { &mut counter.misses };
        *count = count.saturating_add(1);
    }

    /// A fresh counter, in place of the least used one if there are enough.
    fn place_for(&mut self, prefix: &[u8]) -> usize {
        let fresh = PrefixCounter { prefix: prefix.into(), hits: 0, misses: 0 };
        if self.counters.len() < PREFIXES {
            self.counters.push(fresh);
            return self.counters.len() - 1;
        }
        let used = |counter: &PrefixCounter| u64::from(counter.hits) + u64::from(counter.misses);
        let least = (0..PREFIXES).min_by_key(|index| used(&self.counters[*index]));
        let least = least.expect("there are prefixes");
        self.counters[least] = fresh;
        least
    }

    fn halve(&mut self, times: u32) {
        for counter in &mut self.counters {
            counter.hits >>= times;
            counter.misses >>= times;
        }
    }

    fn iter(&self) -> impl Iterator<Item = PrefixRatio> {
        let used = self.counters.iter().filter(|counter| counter.hits + counter.misses > 0);
        used.map(|counter| PrefixRatio {
            prefix: counter.prefix.clone(),
            hits: u64::from(counter.hits) * u64::from(SAMPLE_EVERY),
            misses: u64::from(counter.misses) * u64::from(SAMPLE_EVERY),
        })
    }

    fn heap_bytes(&self) -> usize {
        let names: usize = self.counters.iter().map(|counter| counter.prefix.len()).sum();
        self.counters.capacity() * size_of::<PrefixCounter>() + names
    }
}

/// SplitMix64 (Steele, Lea, Flood, 2014): the next number of the sequence whose place is `state`.
pub(super) fn next_random(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let mut mixed = *state;
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    mixed ^ (mixed >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::UnixMillis;

    const ZERO: Database = Database(0);

    fn at(ms: u64) -> Now {
        Now { unix: UnixMillis(ms), monotonic_us: ms * 1000 }
    }

    fn hash(key: &[u8]) -> u32 {
        (xxhash_rust::xxh3::xxh3_64(key) >> 32) as u32
    }

    #[test]
    fn a_miss_tells_why_the_key_is_gone() {
        let mut statistics = Statistics::new(1);
        statistics.deleted(ZERO, 10);
        statistics.expired(ZERO, 20, 7);
        statistics.evicted(ZERO, 30, Pressure::Write);
        statistics.evicted(ZERO, 40, Pressure::Resident);
        assert_eq!(statistics.miss(ZERO, 10, b"d", at(0)), Some(Gone::Deleted));
        assert_eq!(statistics.miss(ZERO, 20, b"x", at(0)), Some(Gone::Expired));
        assert_eq!(statistics.miss(ZERO, 30, b"e", at(0)), Some(Gone::Evicted));
        assert_eq!(statistics.miss(ZERO, 50, b"n", at(0)), None);
        assert_eq!(statistics.miss(Database(1), 10, b"d", at(0)), None, "another database");
        let counters = statistics.counters();
        assert_eq!(counters.misses(), 5);
        assert_eq!((counters.misses_deleted, counters.misses_never_seen), (1, 2));
        assert_eq!((counters.expired, counters.expiry_lag_max_ms), (1, 7));
        assert_eq!((counters.evicted, counters.evicted_resident), (2, 1));
    }

    #[test]
    fn what_is_remembered_of_removed_keys_is_bounded_and_mostly_right() {
        let mut statistics = Statistics::new(1);
        for key in 0..100_000u32 {
            statistics.deleted(ZERO, key.wrapping_mul(0x9E37_79B1));
        }
        assert!(statistics.heap_bytes() <= 64 * 1024, "{}", statistics.heap_bytes());
        let recent = 95_000..100_000u32;
        let known = recent
            .filter(|key| {
                let hash = key.wrapping_mul(0x9E37_79B1);
                statistics.miss(ZERO, hash, b"", at(0)) == Some(Gone::Deleted)
            })
            .count();
        assert!(known > 3_500, "{known} of the last 5,000 are remembered");
    }

    #[test]
    fn a_hot_key_is_found_among_a_million_lookups_of_others() {
        let mut statistics = Statistics::new(1);
        for round in 0..1_000_000u32 {
            let key = if round % 10 == 0 { "hot".to_owned() } else { format!("cold:{round}") };
            statistics.hit(ZERO, hash(key.as_bytes()), key.as_bytes(), at(0));
        }
        let mut summary = Summary::default();
        summary.absorb(&statistics);
        let hottest = &summary.hot_keys[0];
        assert_eq!(&*hottest.key, b"hot");
        let (low, high) = (hottest.lookups - hottest.error, hottest.lookups);
        assert!(low < 110_000 && high > 90_000, "between {low} and {high}, really 100,000");
    }

    #[test]
    fn a_load_of_the_same_period_as_the_sampling_is_seen_whole() {
        let mut statistics = Statistics::new(1);
        for round in 0..320_000u32 {
            let key = if round % SAMPLE_EVERY == 0 { &b"beat"[..] } else { b"rest" };
            statistics.hit(ZERO, hash(key), key, at(0));
        }
        let mut summary = Summary::default();
        summary.absorb(&statistics);
        let beat = summary.hot_keys.iter().find(|hot| &*hot.key == b"beat").unwrap();
        assert!((5_000..20_000).contains(&beat.lookups), "{} of 10,000", beat.lookups);
    }

    #[test]
    fn what_was_hot_cools_down() {
        let mut statistics = Statistics::new(1);
        for _ in 0..100_000 {
            statistics.hit(ZERO, 1, b"old", at(0));
        }
        for _ in 0..50_000 {
            statistics.hit(ZERO, 2, b"new", at(3 * HALF_LIFE_MS));
        }
        let mut summary = Summary::default();
        summary.absorb(&statistics);
        assert_eq!(&*summary.hot_keys[0].key, b"new");
    }

    #[test]
    fn hit_ratios_by_prefix_are_near_the_truth() {
        let (mut one, mut other) = (Statistics::new(1), Statistics::new(2));
        for round in 0..100_000u32 {
            let shard = if round % 2 == 0 { &mut one } else { &mut other };
            shard.hit(ZERO, round, b"session:1", at(0));
            if round % 4 < 2 {
                shard.miss(ZERO, round, b"session:2", at(0));
            }
            shard.miss(ZERO, round, b"plain", at(0));
        }
        let mut summary = Summary::default();
        summary.absorb(&one);
        summary.absorb(&other);
        assert_eq!(summary.prefixes.len(), 2);
        assert_eq!((&*summary.prefixes[0].prefix, summary.prefixes[0].hits), (&b""[..], 0));
        assert_eq!(&*summary.prefixes[1].prefix, b"session");
        let ratio = summary.prefixes[1].ratio();
        assert!((0.62..0.72).contains(&ratio), "{ratio}, really 0.667");
    }

    #[test]
    fn more_prefixes_than_there_is_room_for_cost_no_more_memory() {
        let mut statistics = Statistics::new(1);
        for round in 0..200_000u32 {
            let key = format!("{round}:x");
            statistics.hit(ZERO, hash(key.as_bytes()), key.as_bytes(), at(0));
        }
        assert!(statistics.heap_bytes() < 16 * 1024, "{}", statistics.heap_bytes());
    }
}
