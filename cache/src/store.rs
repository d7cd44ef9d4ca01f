//! The store: keys, values, deadlines and a memory limit, in shards that are locked one by one.
//!
//! A key belongs to a slot (`crate::slot`), and a shard owns a range of slots. A command locks the shards of the keys that it
//! names, in ascending order, and works on them through a [`Keyspace`]; so commands on different shards run side by side, and one
//! that spans several is atomic all the same. Every mutation goes through one place in the shard, which gives it a [`Version`]
//! and, while anybody cares, leaves a [`Change`] behind: what watches, client-side caches, notifications and blocked clients
//! are told comes from there, so no way of changing a key can be forgotten.
//!
//! Time comes in as a value with each lock. A key whose deadline has passed is never served: whoever meets it removes it, and a
//! timing wheel ([`Keyspace::advance`]) meets those that nobody asks for.

mod accounts;
mod arena;
mod entry;
pub mod eviction;
mod expiry;
mod index;
mod keyspace;
#[cfg(test)]
mod model;
mod objects;
mod shard;
mod statistics;

use std::sync::{Arc, Mutex, PoisonError};

use xxhash_rust::xxh3::xxh3_64_with_seed;

use self::accounts::Accounts;
pub use self::accounts::Charge;
pub use self::keyspace::Keyspace;
use self::shard::Shard;
pub use self::statistics::{HotKey, PrefixRatio, Pressure, Summary};
use crate::slot::{SLOTS, Slot};
use crate::types::{Database, Now, UnixMillis, Version};

/// How many shards a store has. Each owns an equal range of slots.
pub const SHARDS: u16 = 16;

/// A limit below this many bytes leaves hardly any room for keys: tables and blocks of each shard, statistics and connections take
/// some megabytes, and writes may be refused though keys could give way.
pub const LIMIT_SENSIBLE: u64 = 32 << 20;

/// What a store is made with.
#[derive(Clone, Debug)]
pub struct StoreOptions {
    /// Seeds the hash that orders keys within a slot. Secret from clients, so that nobody can make keys collide; the same on
    /// every node of a cluster, so that replicas agree on the order.
    pub hash_seed: u64,
    /// The most memory to use, in bytes; 0 for no limit.
    pub limit: u64,
    /// What to do at the limit.
    pub policy: Policy,
    /// Whether entries keep their version, as replication needs: 8 bytes each.
    pub versions: bool,
}

impl Default for StoreOptions {
    fn default() -> Self {
        Self { hash_seed: 0, limit: 0, policy: Policy::NoEviction, versions: false }
    }
}

/// What gives way at the memory limit (`maxmemory-policy`, under Redis's names).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Policy {
    /// Nothing: commands that need memory are refused.
    #[default]
    NoEviction,
    /// Any key, by recency.
    AllKeysLru,
    /// Any key, by frequency.
    AllKeysLfu,
    /// Any key, at random.
    AllKeysRandom,
    /// A key with a deadline, by recency.
    VolatileLru,
    /// A key with a deadline, by frequency.
    VolatileLfu,
    /// A key with a deadline, at random.
    VolatileRandom,
    /// The key with the nearest deadline.
    VolatileTtl,
}

/// A key with where it belongs, worked out once a command.
#[derive(Clone, Copy, Debug)]
pub struct Key<'k> {
    bytes: &'k [u8],
    database: Database,
    slot: Slot,
    hash: u32,
}

impl<'k> Key<'k> {
    /// Its bytes.
    #[must_use]
    pub fn bytes(&self) -> &'k [u8] {
        self.bytes
    }

    /// Its database.
    #[must_use]
    pub fn database(&self) -> Database {
        self.database
    }

    /// Its slot.
    #[must_use]
    pub fn slot(&self) -> Slot {
        self.slot
    }

    /// Its place within the slot.
    #[must_use]
    pub fn hash(&self) -> u32 {
        self.hash
    }

    fn shard(&self) -> usize {
        shard_of(self.slot)
    }
}

/// A key's place within its slot.
fn hash_of(key: &[u8], seed: u64) -> u32 {
    (xxh3_64_with_seed(key, seed) >> 32) as u32
}

fn shard_of(slot: Slot) -> usize {
    usize::from(slot.0 / (SLOTS / SHARDS))
}

/// A set of shards to lock.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ShardSet(u64);

impl ShardSet {
    /// None.
    pub const NONE: Self = Self(0);
    /// All of them.
    pub const ALL: Self = Self((1 << SHARDS) - 1);

    /// Shard number `shard` alone.
    #[must_use]
    pub fn one(shard: u16) -> Self {
        assert!(shard < SHARDS, "shard {shard} of {SHARDS}");
        Self(1 << shard)
    }

    /// Adds the shard of `slot`.
    pub fn insert(&mut self, slot: Slot) {
        self.0 |= 1 << shard_of(slot);
    }

    /// Adds all of `other`.
    pub fn merge(&mut self, other: Self) {
        self.0 |= other.0;
    }
}

/// How long something that is written lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lifetime {
    /// Until it is removed.
    Forever,
    /// Until a moment. A moment that has passed removes the key.
    Until(UnixMillis),
    /// As long as what it replaces.
    Keep,
}

/// Whether an edit makes a key that is not there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Missing {
    /// It does.
    Create,
    /// It does not, and nothing happens.
    Skip,
}

/// The key holds another kind of value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("WRONGTYPE Operation against a key holding the wrong kind of value")]
pub struct WrongType;

/// Why a key changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// It was made.
    Created,
    /// Its value or its deadline was changed.
    Written,
    /// A command removed it, or its last element.
    Deleted,
    /// Its deadline passed.
    Expired,
    /// It gave way at the memory limit.
    Evicted,
    /// Some of its parts (fields of a hash) have passed their deadlines; others are left.
    PartsExpired,
    /// The last of its parts has passed its deadline, so that it is gone.
    LastPartExpired,
    /// Its database was flushed. The change then stands for all keys of the database and has an empty key.
    Flushed,
    /// Its database was exchanged with another one. The change then stands for all keys of the database, as they are now, and
    /// has an empty key; the other database has a change of its own.
    Swapped,
}

/// One mutation, as those who observe the store see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// Where.
    pub database: Database,
    /// Which key; empty if all.
    pub key: Box<[u8]>,
    /// The key's slot.
    pub slot: Slot,
    /// The mutation's place in the order of the shard's.
    pub version: Version,
    /// Why.
    pub cause: Cause,
}

/// Where a scan goes on: 0 is both the beginning and the end.
///
/// Holds the slot and the hash within it from which to go on. As entries lie in the order of just these, a scan returns every key
/// that is there from its beginning to its end, however the tables grow or shrink meanwhile.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cursor(pub u64);

impl Cursor {
    fn at(slot: usize, hash: u32) -> Self {
        Self(((slot as u64) << 32) | u64::from(hash))
    }

    /// The slot, which may be none that there is: cursors come from clients.
    fn slot(self) -> usize {
        (self.0 >> 32) as u32 as usize
    }

    fn hash(self) -> u32 {
        (self.0 & 0xFFFF_FFFF) as u32
    }
}

/// Where the memory is, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Memory {
    /// All of it, as it counts against the limit.
    pub used: u64,
    /// The most that was ever used.
    pub peak: u64,
    /// Keys and values.
    pub data: u64,
    /// What finds them: tables, wheels, sketches.
    pub overhead: u64,
    /// Connections' buffers.
    pub buffers: u64,
}

/// Counters of one store since it was made, or since they were reset.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Lookups for reading that found a value.
    pub hits: u64,
    /// Lookups for reading of keys that were not there, as far as is remembered.
    pub misses_never_seen: u64,
    /// Lookups of keys whose deadline had passed.
    pub misses_expired: u64,
    /// Lookups of keys that had been evicted.
    pub misses_evicted: u64,
    /// Lookups of keys that a command had removed.
    pub misses_deleted: u64,
    /// Keys removed at their deadline.
    pub expired: u64,
    /// Keys that gave way at the limit, for whatever reason.
    pub evicted: u64,
    /// Of them, those that gave way because the limit was set below what was used.
    pub evicted_limit_lowered: u64,
    /// Of them, those that gave way because the process occupied more than the store had counted.
    pub evicted_resident: u64,
    /// The longest that a key was kept past its deadline, in milliseconds.
    pub expiry_lag_max_ms: u64,
    /// Changes that commands have made since the start: what `INFO` calls changes since the last save.
    pub changes: u64,
}

impl Counters {
    /// Adds what another has counted.
    pub fn add(&mut self, other: &Self) {
        self.hits += other.hits;
        self.misses_never_seen += other.misses_never_seen;
        self.misses_expired += other.misses_expired;
        self.misses_evicted += other.misses_evicted;
        self.misses_deleted += other.misses_deleted;
        self.expired += other.expired;
        self.evicted += other.evicted;
        self.evicted_limit_lowered += other.evicted_limit_lowered;
        self.evicted_resident += other.evicted_resident;
        self.expiry_lag_max_ms = self.expiry_lag_max_ms.max(other.expiry_lag_max_ms);
        self.changes += other.changes;
    }

    /// All misses.
    #[must_use]
    pub fn misses(&self) -> u64 {
        self.misses_never_seen + self.misses_expired + self.misses_evicted + self.misses_deleted
    }
}

/// Keys, values, deadlines and a memory limit.
#[derive(Debug)]
pub struct Store {
    shards: Box<[Mutex<Shard>]>,
    /// Whose turn it is among the commands that need many shards.
    turn: Mutex<()>,
    accounts: Arc<Accounts>,
    hash_seed: u64,
}

impl Store {
    /// An empty store.
    #[must_use]
    pub fn new(options: &StoreOptions) -> Self {
        crate::value::table::set_seed(options.hash_seed);
        let accounts = Arc::new(Accounts::new(options.limit, options.policy));
        let shard = |number| Mutex::new(Shard::new(number, options, Arc::clone(&accounts)));
        let shards = (0..SHARDS).map(shard).collect();
        Self { shards, turn: Mutex::default(), accounts, hash_seed: options.hash_seed }
    }

    /// Where `bytes` belongs.
    #[must_use]
    pub fn key<'k>(&self, database: Database, bytes: &'k [u8]) -> Key<'k> {
        Key { bytes, database, slot: Slot::of(bytes), hash: hash_of(bytes, self.hash_seed) }
    }

    /// Locks `shards`, waiting for others that hold them.
    pub fn lock(&self, shards: ShardSet, now: Now) -> Keyspace<'_> {
        Keyspace::lock(self, shards, now)
    }

    /// Whether changes are kept for [`Keyspace::take_changes`]. Off while nobody observes: it costs a copy of each key.
    pub fn observe(&self, observed: bool) {
        self.accounts.observe(observed);
    }

    /// By how many bytes the limit would be exceeded if `bytes` more were used; 0 while there is room. `Engine::make_room`
    /// evicts so many.
    #[must_use]
    pub fn excess(&self, bytes: usize) -> u64 {
        self.accounts.excess(bytes)
    }

    /// The shard that occupies most and is not among `except`; None if it is nothing that can be evicted.
    #[must_use]
    pub fn fattest(&self, except: ShardSet) -> Option<u16> {
        if self.accounts.policy() == Policy::NoEviction {
            return None;
        }
        let others = (0..SHARDS).filter(|shard| except.0 >> shard & 1 == 0);
        others.max_by_key(|shard| self.accounts.shard(*shard))
    }

    /// The most that one value may occupy, in bytes: 512 MiB, or a sixteenth of the limit if that is less; but never less than
    /// 1 MiB, so that the limit can still be talked about however low it was set.
    #[must_use]
    pub fn value_limit(&self) -> usize {
        const MOST: u64 = 512 << 20;
        const LEAST: u64 = 1 << 20;
        let most = match self.limit() {
            0 => MOST,
            limit => (limit / 16).clamp(LEAST, MOST),
        };
        usize::try_from(most).expect("512 MiB fit into an address space")
    }

    /// Sets the limit, in bytes; 0 for none. Locks nothing, as [`Store::set_policy`]. What exceeds it goes bit by bit, with
    /// [`Keyspace::advance`] and with the commands that need memory.
    pub fn set_limit(&self, bytes: u64) {
        self.accounts.set_limit(bytes);
    }

    /// The limit, in bytes; 0 for none.
    pub fn limit(&self) -> u64 {
        self.accounts.limit()
    }

    /// Sets what gives way at the limit. Locks nothing: `CONFIG SET` may come while shards are locked.
    pub fn set_policy(&self, policy: Policy) {
        self.accounts.set_policy(policy);
    }

    /// Counts connections' buffers against the limit: `change` is what they grew by, in bytes, negative if they shrank.
    pub fn charge_buffers(&self, change: i64) {
        self.accounts.charge_buffers(change);
    }

    /// Something that counts nothing yet and can be told what to count against the limit, beside keys and buffers.
    #[must_use]
    pub fn charge(&self) -> Charge {
        Charge::new(Arc::clone(&self.accounts))
    }

    /// Tells what the process really occupies, in bytes, so that the limit holds for that. To be called a few times a second.
    pub fn report_resident(&self, bytes: u64) {
        self.accounts.report_resident(bytes);
    }

    /// What an empty store occupies, in bytes. The limit is for what comes on top of that.
    #[must_use]
    pub fn base_bytes(&self) -> usize {
        size_of::<Self>() + size_of::<Accounts>() + self.shards.len() * size_of::<Mutex<Shard>>()
    }

    /// Where the memory is.
    pub fn memory(&self) -> Memory {
        self.accounts.memory()
    }

    /// Gives the store a bug, once and for all.
    #[cfg(feature = "sim")]
    pub(crate) fn plant(&self, bug: crate::sim::PlantedBug) {
        self.accounts.plant(bug);
    }

    /// The bug that was planted, if one was.
    #[cfg(feature = "sim")]
    pub(crate) fn bug(&self) -> Option<crate::sim::PlantedBug> {
        self.accounts.bug()
    }

    /// How many blocks of cells were emptied.
    #[cfg(feature = "sim")]
    pub(crate) fn compactions(&self) -> u64 {
        self.accounts.compactions()
    }

    /// Locks one shard after the other: never while this thread has shards locked.
    fn each(&self, mut visit: impl FnMut(&mut Shard)) {
        keyspace::assert_holds_none(self);
        for shard in &self.shards {
            visit(&mut shard.lock().unwrap_or_else(PoisonError::into_inner));
        }
    }

    /// The counters.
    pub fn counters(&self) -> Counters {
        let mut counters = Counters::default();
        self.each(|shard| counters.add(&shard.statistics.counters()));
        counters
    }

    /// The counters, the hottest keys and the ratios of prefixes, of all shards together.
    pub fn summary(&self) -> Summary {
        let mut summary = Summary::default();
        self.each(|shard| summary.absorb(&shard.statistics));
        summary
    }

    /// Sets the counters to zero.
    pub fn reset_counters(&self) {
        self.each(|shard| shard.statistics.reset_counters());
    }

    /// Keys of `database`, and how many of them have a deadline. Counts shard by shard, not at one moment.
    pub fn sizes(&self, database: Database) -> (usize, usize) {
        let mut sizes = (0, 0);
        self.each(|shard| {
            let (keys, volatile) = shard.sizes(database);
            sizes = (sizes.0 + keys, sizes.1 + volatile);
        });
        sizes
    }
}
