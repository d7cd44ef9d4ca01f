//! Who gives way at the memory limit: what is noted of an entry's use, and the choice among a sample.
//!
//! Every entry has 16 bits of [`Meta`], opaque to the store. The store gives a uniform random sample of a shard's entries (they lie
//! in the order of their hashes, so any run of neighbours from a random place is one), and [`Eviction::choose`] says which of
//! them goes.

use super::Policy;
use super::statistics::next_random;
use crate::types::{Now, UnixMillis};

/// What is noted of an entry's use, in a form of this module's.
pub type Meta = u16;

/// How many entries the store should offer to [`Eviction::choose`], if the shard has so many.
pub const SAMPLE: usize = 16;

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
}

/// Stamps are in units of a quarter of a second: they wrap after four and a half hours.
const STAMP_MS: u64 = 250;

impl Eviction {
    /// For an empty shard.
    pub fn new(policy: Policy, seed: u64) -> Self {
        Self { policy, random: seed }
    }

    /// Changes the policy. What is noted of entries may be read wrongly until they are used again, as in Redis.
    pub fn set_policy(&mut self, policy: Policy) {
        self.policy = policy;
    }

    /// Whether entries without a deadline are spared.
    pub fn is_volatile_only(&self) -> bool {
        matches!(
            self.policy,
            Policy::VolatileLru
                | Policy::VolatileLfu
                | Policy::VolatileRandom
                | Policy::VolatileTtl
        )
    }

    fn stamp(now: Now) -> u16 {
        u16::try_from((now.monotonic_us / 1000 / STAMP_MS) & 0xFFFF).expect("16 bits")
    }

    /// A key was made; `entries` is how many the shard has. Returns what to note with it.
    pub fn on_insert(&mut self, hash: u32, entries: usize, now: Now) -> Meta {
        let _ = (hash, entries);
        Self::stamp(now)
    }

    /// An entry was read or written. Returns what to note from now on.
    #[inline]
    pub fn on_use(&mut self, hash: u32, meta: Meta, now: Now) -> Meta {
        let _ = (hash, meta);
        Self::stamp(now)
    }

    /// Which of `candidates`, which are not empty, is to go.
    pub fn choose(&mut self, candidates: &[Candidate], now: Now) -> usize {
        assert!(!candidates.is_empty(), "somebody has to go");
        let all = 0..candidates.len();
        let chosen = match self.policy {
            Policy::VolatileTtl => all.min_by_key(|index| candidates[*index].deadline),
            Policy::AllKeysRandom | Policy::VolatileRandom | Policy::NoEviction => {
                let draw = next_random(&mut self.random) % candidates.len() as u64;
                usize::try_from(draw).ok()
            }
            _ => all.max_by_key(|index| self.idle_ms(candidates[*index].meta, now)),
        };
        chosen.expect("there are candidates")
    }

    /// An entry that was chosen is gone.
    pub fn on_evict(&mut self, hash: u32, meta: Meta, now: Now) {
        let _ = (hash, meta, now);
    }

    /// Milliseconds since the entry was used (`OBJECT IDLETIME`).
    pub fn idle_ms(&self, meta: Meta, now: Now) -> u64 {
        u64::from(Self::stamp(now).wrapping_sub(meta)) * STAMP_MS
    }

    /// How often the entry is used, on a logarithmic scale (`OBJECT FREQ`).
    pub fn frequency(&self, meta: Meta, now: Now) -> u8 {
        let _ = (meta, now);
        0
    }

    /// What to note with an entry that was last used `idle_ms` milliseconds ago (`RESTORE … IDLETIME`).
    pub fn with_idle(&self, idle_ms: u64, now: Now) -> Meta {
        let ago = u16::try_from((idle_ms / STAMP_MS).min(0xFFFF)).expect("16 bits");
        Self::stamp(now).wrapping_sub(ago)
    }

    /// What to note with an entry that is used this often (`RESTORE … FREQ`).
    pub fn with_frequency(&self, frequency: u8, now: Now) -> Meta {
        let _ = frequency;
        Self::stamp(now)
    }

    /// Bytes on the heap.
    pub fn heap_bytes(&self) -> usize {
        0
    }
}
