//! Who gives way at the memory limit: what is noted of an entry's use, and the choice among a sample.
//!
//! Every entry has 16 bits of [`Meta`], opaque to the store. The store gives a uniform random sample of a shard's entries (they lie
//! in the order of their hashes, so any run of neighbours from a random place is one), and [`Eviction::choose`] says which of
//! them goes. There are no lists of entries, so a use costs a few bits in the entry's own cache line and nothing else.
//!
//! Behind the names LRU and LFU stands one algorithm, S3-FIFO (Yang and others, SOSP 2023) on samples, where the clock of its main
//! queue is an ageing counter as in LFU with dynamic ageing (Arlitt and others, 2000):
//!
//! - A key that is new is *cold*. Cold entries make up a small share of the shard; while they are more, the oldest cold one of
//!   the sample goes. So keys that come once (scans) pass through without touching the rest.
//! - A cold entry that is used becomes *hot*, and so does at once a key that comes back soon after it was evicted cold: a table
//!   of 16-bit fingerprints remembers about as many evicted keys as three quarters of the entries.
//! - A hot entry has a *rank*: the shard's rank when it became hot, plus one a use, at most `LEAD` ahead. The lowest rank of the
//!   sample goes, and the shard's rank follows it. So what was used much, but long ago, is caught up with: long ago meaning how many
//!   hot entries went since, whatever time that took.
//! - Before the first eviction all keys are hot: there is nothing to protect from them.
//!
//! Between equals, LRU lets the one go that was not used for longest, LFU the one that was used least. The last keys that were made
//! are spared, however small the shard. Why this and not another: `docs/decisions/0013-eviction.md`.

use super::Policy;
use super::statistics::next_random;
use crate::types::{Now, UnixMillis};

/// What is noted of an entry's use, in a form of this module's.
pub type Meta = u16;

/// How many entries the store should offer at a time to [`Eviction::choose`], if the shard has so many.
pub const SAMPLE: usize = 16;

/// How many entries are enough for any choice.
pub const SAMPLE_MAX: usize = 64;

/// How far a hot entry's rank can be ahead of the shard's.
const LEAD: u16 = 3;

/// How far behind the shard's rank an entry's can be told: those that the samples have missed so far.
const BEHIND: u16 = 4;

/// The share of cold entries that is let be, in parts of [`SHARE_ONE`]: 5 %.
const COLD_SHARE: u32 = SHARE_ONE / 20;
const SHARE_ONE: u32 = 1 << 24;

/// The most fingerprints of evicted keys: 2 MiB a shard.
const GHOSTS_MAX: usize = 1 << 20;

/// How many of the keys made last are spared.
const SPARED: usize = 8;

// The layout of `Meta`: cold 1 | rank 3 | stamp 12 (LRU and others), or cold 1 | rank 3 | minute 4 | uses 8 (LFU).
const COLD: u16 = 1 << 15;
const RANK_SHIFT: u32 = 12;
const RANK: u16 = 0b111;
const STAMP: u16 = 0xFFF;
const MINUTE_SHIFT: u32 = 8;
const MINUTE: u16 = 0xF;
const USES: u16 = 0xFF;

/// Up to how many seconds idle times are told exactly.
pub const IDLE_TOLD_S: u64 = 3_072;

/// What a new key's count of uses begins with under LFU, as in Redis: so that it is not the least used of all at once.
const USES_AT_FIRST: u16 = 5;

/// How steeply the count of uses becomes less likely to grow (`lfu-log-factor`).
const LOG_FACTOR: u64 = 10;

/// An entry that could go.
#[derive(Clone, Copy, Debug)]
pub struct Candidate {
    /// The key's hash.
    pub hash: u32,
    /// What is noted of its use.
    pub meta: Meta,
    /// Bytes that would become free.
    pub bytes: usize,
    /// When it expires. Under a volatile policy only entries that have a deadline are candidates.
    pub deadline: Option<UnixMillis>,
}

/// One shard's part of eviction.
#[derive(Debug)]
pub struct Eviction {
    policy: Policy,
    random: u64,
    /// The rank of the hot entry that went last, modulo 8.
    rank: u16,
    /// The share of cold entries, as the samples of late had it, in parts of [`SHARE_ONE`].
    cold_share: u32,
    /// Fingerprints of keys that were evicted cold; 0 for none. Empty until the first eviction.
    ghosts: Box<[u16]>,
    /// Hashes of the keys that were made last, in a ring.
    newest: [u32; SPARED],
    newest_at: usize,
    /// How many entries the shard had at the last eviction; 0 before the first.
    pressed_at: usize,
    /// How many the shard has, as the last insertion told.
    entries: usize,
}

impl Eviction {
    /// For an empty shard.
    #[must_use]
    pub fn new(policy: Policy, seed: u64) -> Self {
        Self {
            policy,
            random: seed,
            rank: 0,
            cold_share: 0,
            ghosts: Box::default(),
            newest: [0; SPARED],
            newest_at: 0,
            pressed_at: 0,
            entries: 0,
        }
    }

    /// Changes the policy. What is noted of entries may be read wrongly until they are used again, as in Redis.
    pub fn set_policy(&mut self, policy: Policy) {
        self.policy = policy;
    }

    /// Whether entries without a deadline are spared.
    #[must_use]
    pub fn is_volatile_only(&self) -> bool {
        matches!(
            self.policy,
            Policy::VolatileLru
                | Policy::VolatileLfu
                | Policy::VolatileRandom
                | Policy::VolatileTtl
        )
    }

    fn is_lfu(&self) -> bool {
        matches!(self.policy, Policy::AllKeysLfu | Policy::VolatileLfu)
    }

    fn stamp(now: Now) -> u16 {
        low_bits(now.monotonic_us / 1_000_000, STAMP)
    }

    fn minute(now: Now) -> u16 {
        low_bits(now.monotonic_us / 60_000_000, MINUTE)
    }

    /// The lower 12 bits of what is noted of an entry that is used now for the first time.
    fn first_use(&self, now: Now) -> u16 {
        if self.is_lfu() {
            (Self::minute(now) << MINUTE_SHIFT) | USES_AT_FIRST
        } else {
            Self::stamp(now)
        }
    }

    /// A key was made; `entries` is how many the shard has. Returns what to note with it.
    pub fn on_insert(&mut self, hash: u32, entries: usize, now: Now) -> Meta {
        self.entries = entries;
        self.newest[self.newest_at] = hash;
        self.newest_at = (self.newest_at + 1) % SPARED;
        if entries < self.pressed_at / 2 {
            // Most of it was removed: it fills up anew.
            self.pressed_at = 0;
        }
        let hot = self.pressed_at == 0 || self.take_ghost(hash);
        let class = if hot { self.rank << RANK_SHIFT } else { COLD };
        class | self.first_use(now)
    }

    /// An entry was read or written. Returns what to note from now on.
    #[inline]
    pub fn on_use(&mut self, meta: Meta, now: Now) -> Meta {
        let lead = if meta & COLD != 0 { 0 } else { (self.lead(meta) + 1).min(LEAD) };
        let class = ((self.rank + lead) & RANK) << RANK_SHIFT;
        if self.is_lfu() { class | self.count_use(meta, now) } else { class | Self::stamp(now) }
    }

    /// A hot entry's rank as steps above the lowest that can be told from the shard's: [`BEHIND`] is the shard's own.
    fn steps(&self, meta: Meta) -> u16 {
        (meta >> RANK_SHIFT).wrapping_sub(self.rank).wrapping_add(BEHIND) & RANK
    }

    /// How far a hot entry's rank is ahead of the shard's, 0 if it is behind.
    fn lead(&self, meta: Meta) -> u16 {
        self.steps(meta).saturating_sub(BEHIND)
    }

    /// Minutes take from a count of uses, and a use may add one: the more there are, the less likely.
    fn count_use(&mut self, meta: Meta, now: Now) -> u16 {
        let uses = u16::from(self.frequency(meta, now));
        let above = u64::from(uses.saturating_sub(USES_AT_FIRST));
        let grows = next_random(&mut self.random).is_multiple_of(above * LOG_FACTOR + 1);
        let uses = (uses + u16::from(grows)).min(USES);
        (Self::minute(now) << MINUTE_SHIFT) | uses
    }

    /// Which of `candidates`, which are not empty, is to go. None if a better choice needs more of them: the store then adds to
    /// them and asks again. It says with `more` whether it can.
    pub fn choose(&mut self, candidates: &[Candidate], more: bool, now: Now) -> Option<usize> {
        assert!(!candidates.is_empty(), "somebody has to go");
        match self.policy {
            Policy::VolatileTtl => {
                (0..candidates.len()).min_by_key(|index| candidates[*index].deadline)
            }
            Policy::AllKeysRandom | Policy::VolatileRandom | Policy::NoEviction => {
                let draw = next_random(&mut self.random) % candidates.len() as u64;
                usize::try_from(draw).ok()
            }
            Policy::AllKeysLru | Policy::AllKeysLfu | Policy::VolatileLru | Policy::VolatileLfu => {
                self.choose_by_use(candidates, more, now)
            }
        }
    }

    fn choose_by_use(&mut self, candidates: &[Candidate], more: bool, now: Now) -> Option<usize> {
        if candidates.len() <= SAMPLE {
            self.note_share(candidates);
        }
        let wants_cold = self.cold_share >= COLD_SHARE;
        let best = (0..candidates.len())
            .filter(|index| !self.newest.contains(&candidates[*index].hash))
            .max_by_key(|index| {
                let meta = candidates[*index].meta;
                let cold = meta & COLD != 0;
                (cold == wants_cold, self.worth_least(meta, now))
            });
        let found = best.is_some_and(|index| (candidates[index].meta & COLD != 0) == wants_cold);
        if !found && more && candidates.len() < SAMPLE_MAX {
            return None;
        }
        // Where all were made a moment ago, any of them.
        best.or(Some(0))
    }

    /// A measure by which the greatest of one class goes: first the lowest rank, then the longest idle or the least used.
    fn worth_least(&self, meta: Meta, now: Now) -> (u16, u64) {
        let behind = if meta & COLD != 0 { 0 } else { RANK - self.steps(meta) };
        let idle = if self.is_lfu() {
            u64::from(u8::MAX - self.frequency(meta, now))
        } else {
            self.idle_ms(meta, now)
        };
        (behind, idle)
    }

    /// Follows the share of cold entries with the mean of about the last 16 samples.
    fn note_share(&mut self, candidates: &[Candidate]) {
        let cold = candidates.iter().filter(|candidate| candidate.meta & COLD != 0).count();
        let (cold, all) = (cold as u64, candidates.len() as u64);
        let share = u32::try_from(cold * u64::from(SHARE_ONE) / all).expect("a part of one");
        self.cold_share = self.cold_share - self.cold_share / 16 + share / 16;
    }

    /// An entry that was chosen is gone.
    pub fn on_evict(&mut self, hash: u32, meta: Meta) {
        self.pressed_at = self.entries.max(1);
        if meta & COLD != 0 {
            self.add_ghost(hash);
        } else {
            self.rank = (self.rank + self.lead(meta)) & RANK;
        }
    }

    /// Where a key's fingerprint would be, and the fingerprint.
    fn ghost(&self, hash: u32) -> (usize, u16) {
        let place = (u64::from(hash) * self.ghosts.len() as u64) >> 32;
        let mark = low_bits(u64::from(hash.wrapping_mul(0x9E37_79B1) >> 16), 0xFFFF) | 1;
        (usize::try_from(place).expect("below a length"), mark)
    }

    fn add_ghost(&mut self, hash: u32) {
        let wanted = (self.entries / 4 * 3).clamp(64, GHOSTS_MAX);
        if wanted > self.ghosts.len() / 2 * 3 || wanted < self.ghosts.len() / 4 {
            self.ghosts = vec![0; wanted].into_boxed_slice();
        }
        let (place, mark) = self.ghost(hash);
        self.ghosts[place] = mark;
    }

    fn take_ghost(&mut self, hash: u32) -> bool {
        if self.ghosts.is_empty() {
            return false;
        }
        let (place, mark) = self.ghost(hash);
        let found = self.ghosts[place] == mark;
        if found {
            self.ghosts[place] = 0;
        }
        found
    }

    /// Milliseconds since the entry was used (`OBJECT IDLETIME`), to the second. 0 under LFU, which does not note it.
    #[must_use]
    pub fn idle_ms(&self, meta: Meta, now: Now) -> u64 {
        if self.is_lfu() {
            return 0;
        }
        u64::from(Self::stamp(now).wrapping_sub(meta) & STAMP) * 1000
    }

    /// How often the entry is used, on a logarithmic scale, one less a minute (`OBJECT FREQ`). 0 but under LFU.
    #[must_use]
    pub fn frequency(&self, meta: Meta, now: Now) -> u8 {
        if !self.is_lfu() {
            return 0;
        }
        let minutes = Self::minute(now).wrapping_sub(meta >> MINUTE_SHIFT) & MINUTE;
        u8::try_from((meta & USES).saturating_sub(minutes)).expect("8 bits")
    }

    /// What to note with an entry, noted `meta`, as if it were last used `idle_ms` milliseconds ago (`RESTORE … IDLETIME`).
    #[must_use]
    pub fn with_idle(&self, meta: Meta, idle_ms: u64, now: Now) -> Meta {
        if self.is_lfu() {
            return meta;
        }
        let ago = low_bits((idle_ms / 1000).min(u64::from(STAMP)), STAMP);
        (meta & !STAMP) | (Self::stamp(now).wrapping_sub(ago) & STAMP)
    }

    /// What to note with an entry, noted `meta`, that is to be looked at again in a quarter of an hour at the latest: if it would begin
    /// anew by then. Idle times stay between [`IDLE_TOLD_S`] and an hour, and uses that are out of date are counted down.
    #[must_use]
    pub fn aged(&self, meta: Meta, now: Now) -> Option<Meta> {
        let aged = if self.is_lfu() {
            self.with_frequency(meta, self.frequency(meta, now), now)
        } else if self.idle_ms(meta, now) > IDLE_TOLD_S * 1000 {
            self.with_idle(meta, IDLE_TOLD_S * 1000, now)
        } else {
            meta
        };
        (aged != meta).then_some(aged)
    }

    /// What to note with an entry, noted `meta`, as if it were used this often (`RESTORE … FREQ`).
    #[must_use]
    pub fn with_frequency(&self, meta: Meta, frequency: u8, now: Now) -> Meta {
        if !self.is_lfu() {
            return meta;
        }
        (meta & !STAMP) | (Self::minute(now) << MINUTE_SHIFT) | u16::from(frequency)
    }

    /// Bytes on the heap.
    #[must_use]
    pub fn heap_bytes(&self) -> usize {
        self.ghosts.len() * size_of::<u16>()
    }
}

/// The bits of `number` that `mask` has.
fn low_bits(number: u64, mask: u16) -> u16 {
    u16::try_from(number & u64::from(mask)).expect("no more bits than the mask")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Now {
        Now { unix: UnixMillis(seconds * 1000), monotonic_us: seconds * 1_000_000 }
    }

    /// A shard that can hold 1,000 entries: keys are their hashes' seeds.
    struct Shard {
        eviction: Eviction,
        entries: Vec<(u32, Meta)>,
        random: u64,
        second: u64,
    }

    fn hash(key: u32) -> u32 {
        let mixed = u64::from(key).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        u32::try_from(mixed >> 32).unwrap()
    }

    impl Shard {
        fn new(policy: Policy) -> Self {
            Self { eviction: Eviction::new(policy, 7), entries: Vec::new(), random: 3, second: 0 }
        }

        fn holds(&self, key: u32) -> bool {
            self.entries.iter().any(|entry| entry.0 == hash(key))
        }

        /// Uses a key, and makes it if it is missing. True for a hit.
        fn use_key(&mut self, key: u32) -> bool {
            let now = at(self.second);
            if let Some(entry) = self.entries.iter_mut().find(|entry| entry.0 == hash(key)) {
                entry.1 = self.eviction.on_use(entry.1, now);
                return true;
            }
            if self.entries.len() == 1_000 {
                self.evict();
            }
            let meta = self.eviction.on_insert(hash(key), self.entries.len(), now);
            self.entries.push((hash(key), meta));
            false
        }

        fn evict(&mut self) {
            let mut sample = Vec::new();
            let mut places = Vec::new();
            let chosen = loop {
                for _ in 0..SAMPLE {
                    let place = next_random(&mut self.random) % self.entries.len() as u64;
                    let place = usize::try_from(place).unwrap();
                    let (hash, meta) = self.entries[place];
                    sample.push(Candidate { hash, meta, bytes: 1, deadline: None });
                    places.push(place);
                }
                if let Some(chosen) = self.eviction.choose(&sample, true, at(self.second)) {
                    break places[chosen];
                }
            };
            let (hash, meta) = self.entries.swap_remove(chosen);
            self.eviction.on_evict(hash, meta);
        }
    }

    #[test]
    fn a_scan_leaves_what_is_used_alone() {
        for policy in [Policy::AllKeysLru, Policy::AllKeysLfu] {
            let mut shard = Shard::new(policy);
            for round in 0..5 {
                for key in 0..800 {
                    shard.use_key(key);
                }
                shard.second = round;
            }
            for key in 1_000_000..1_010_000 {
                shard.use_key(key);
            }
            let kept = (0..800).filter(|key| shard.holds(*key)).count();
            assert!(kept > 780, "{policy:?}: {kept} of 800 that are used survived the scan");
        }
    }

    #[test]
    fn what_is_no_longer_used_goes_in_the_end() {
        let mut shard = Shard::new(Policy::AllKeysLru);
        for _ in 0..10 {
            for key in 0..800 {
                shard.use_key(key);
            }
        }
        for round in 0..20 {
            shard.second = 10 + round;
            for key in 5_000..5_900 {
                shard.use_key(key);
            }
        }
        let old = (0..800).filter(|key| shard.holds(*key)).count();
        let new = (5_000..5_900).filter(|key| shard.holds(*key)).count();
        assert!(old < 250 && new > 700, "{old} old ones, {new} new ones");
    }

    #[test]
    fn the_key_made_last_is_there_afterwards() {
        let mut shard = Shard::new(Policy::AllKeysLru);
        for key in 0..20_000 {
            shard.use_key(key);
            assert!(shard.holds(key));
            assert!(key < 4 || shard.holds(key - 4), "the fourth last too");
        }
    }

    #[test]
    fn a_key_that_comes_back_soon_stays() {
        let mut shard = Shard::new(Policy::AllKeysLru);
        for key in 0..1_500 {
            shard.use_key(key);
        }
        let evicted: Vec<u32> = (1_000..1_500).filter(|key| !shard.holds(*key)).take(50).collect();
        for key in &evicted {
            shard.use_key(*key);
        }
        for key in 10_000..10_300 {
            shard.use_key(key);
        }
        let kept = evicted.iter().filter(|key| shard.holds(**key)).count();
        assert!(kept >= 40, "{kept} of {}", evicted.len());
    }

    #[test]
    fn the_nearest_deadline_goes_first_under_volatile_ttl() {
        let mut eviction = Eviction::new(Policy::VolatileTtl, 1);
        let candidates: Vec<Candidate> = [50, 20, 90]
            .map(|deadline| Candidate {
                hash: deadline,
                meta: 0,
                bytes: 1,
                deadline: Some(UnixMillis(u64::from(deadline))),
            })
            .into();
        assert_eq!(eviction.choose(&candidates, true, at(0)), Some(1));
    }

    #[test]
    fn random_is_even() {
        let mut eviction = Eviction::new(Policy::AllKeysRandom, 1);
        let one = Candidate { hash: 0, meta: 0, bytes: 1, deadline: None };
        let mut counts = [0; 4];
        for _ in 0..4_000 {
            counts[eviction.choose(&[one; 4], false, at(0)).unwrap()] += 1;
        }
        assert!(counts.iter().all(|count| (850..1_150).contains(count)), "{counts:?}");
    }

    #[test]
    fn idle_times_and_frequencies_are_told_and_restored() {
        let mut lru = Eviction::new(Policy::AllKeysLru, 1);
        let meta = lru.on_insert(1, 0, at(5_000));
        assert_eq!(lru.idle_ms(meta, at(5_007)), 7_000);
        let meta = lru.with_idle(meta, 1_000_000, at(5_007));
        assert_eq!(lru.idle_ms(meta, at(5_008)), 1_001_000);
        let meta = lru.on_use(meta, at(5_009));
        assert_eq!(lru.idle_ms(meta, at(5_009)), 0);

        let mut lfu = Eviction::new(Policy::VolatileLfu, 1);
        let meta = lfu.on_insert(1, 0, at(0));
        assert_eq!(lfu.frequency(meta, at(59)), 5);
        assert_eq!(lfu.frequency(meta, at(60)), 4);
        let mut meta = lfu.with_frequency(meta, 100, at(60));
        assert_eq!(lfu.frequency(meta, at(60)), 100);
        for _ in 0..10_000 {
            meta = lfu.on_use(meta, at(60));
        }
        assert!((101..130).contains(&lfu.frequency(meta, at(60))));
    }

    #[test]
    fn memory_for_ghosts_comes_with_the_first_eviction_and_is_bounded() {
        let mut shard = Shard::new(Policy::AllKeysLru);
        for key in 0..1_000 {
            shard.use_key(key);
        }
        assert_eq!(shard.eviction.heap_bytes(), 0);
        for key in 1_000..20_000 {
            shard.use_key(key);
        }
        assert!((64..=2_000).contains(&shard.eviction.heap_bytes()));
    }
}
