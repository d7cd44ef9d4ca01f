//! The store: keys, values, deadlines and a memory limit, in shards that are locked one by one.
//!
//! A key belongs to a slot (`crate::slot`), and a shard owns a range of slots. A command locks the shards of the keys that it
//! names, in ascending order, and works on them through a [`Keyspace`]; so commands on different shards run side by side, and one
//! that spans several is atomic all the same. Every mutation goes through one place in the shard, which gives it a [`Version`]
//! and, while anybody cares, leaves a [`Change`] behind: what watches, client-side caches, notifications and blocked clients
//! are told comes from there, so no way of changing a key can be forgotten.
//!
//! Time comes in as a value with each lock. A key whose deadline has passed is never served: whoever meets it removes it, and a
//! timing wheel ([`Store::advance`]) meets those that nobody asks for.

pub mod eviction;
mod shard;
mod statistics;

use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use xxhash_rust::xxh3::xxh3_64_with_seed;

use self::shard::Shard;
pub use self::statistics::{HotKey, PrefixRatio, Pressure, Summary};
use crate::slot::{SLOTS, Slot};
use crate::types::{Database, Now, UnixMillis, Version};
use crate::value::{HashView, Kind, ListView, SetView, SortedSetView, Stored, Value, View};

/// How many shards a store has. Each owns an equal range of slots.
pub const SHARDS: u16 = 16;

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
    hash_seed: u64,
    limit: AtomicU64,
    buffers: AtomicI64,
    observed: AtomicBool,
}

impl Store {
    /// An empty store.
    #[must_use]
    pub fn new(options: &StoreOptions) -> Self {
        crate::value::table::set_seed(options.hash_seed);
        Self {
            shards: (0..SHARDS).map(|_| Mutex::new(Shard::default())).collect(),
            hash_seed: options.hash_seed,
            limit: AtomicU64::new(options.limit),
            buffers: AtomicI64::new(0),
            observed: AtomicBool::new(false),
        }
    }

    /// Where `bytes` belongs.
    #[must_use]
    pub fn key<'k>(&self, database: Database, bytes: &'k [u8]) -> Key<'k> {
        let hash = xxh3_64_with_seed(bytes, self.hash_seed);
        let hash = (hash >> 32) as u32;
        Key { bytes, database, slot: Slot::of(bytes), hash }
    }

    /// Locks `shards`, waiting for others that hold them.
    pub fn lock(&self, shards: ShardSet, now: Now) -> Keyspace<'_> {
        let mut guards = [const { None }; SHARDS as usize];
        let mut rest = shards.0;
        while rest != 0 {
            let index = rest.trailing_zeros() as usize;
            rest &= rest - 1;
            // A panic inside a shard stops the process (see `crate::net`), so a poisoned lock is never met twice.
            let guard = self.shards[index].lock().unwrap_or_else(PoisonError::into_inner);
            guards[index] = Some(guard);
        }
        Keyspace { store: self, guards, now }
    }

    /// Whether changes are kept for [`Keyspace::take_changes`]. Off while nobody observes: it costs a copy of each key.
    pub fn observe(&self, observed: bool) {
        self.observed.store(observed, Ordering::Relaxed);
    }

    /// By how many bytes the limit would be exceeded if `bytes` more were used; 0 while there is room. `Engine::make_room`
    /// evicts so many.
    #[must_use]
    pub fn excess(&self, bytes: usize) -> u64 {
        let _ = bytes;
        0
    }

    /// The shard that occupies most and is not among `except`; None if it is nothing that can be evicted.
    #[must_use]
    pub fn fattest(&self, except: ShardSet) -> Option<u16> {
        let _ = except;
        None
    }

    /// The most that one value may occupy, in bytes: 512 MiB, or a sixteenth of the limit if that is less.
    #[must_use]
    pub fn value_limit(&self) -> usize {
        const MOST: u64 = 512 << 20;
        let most = match self.limit() {
            0 => MOST,
            limit => MOST.min(limit / 16),
        };
        usize::try_from(most).expect("512 MiB fit into an address space")
    }

    /// Sets the limit, in bytes; 0 for none. Locks nothing, as [`Store::set_policy`].
    pub fn set_limit(&self, bytes: u64) {
        self.limit.store(bytes, Ordering::Relaxed);
    }

    /// The limit, in bytes; 0 for none.
    pub fn limit(&self) -> u64 {
        self.limit.load(Ordering::Relaxed)
    }

    /// Sets what gives way at the limit. Locks nothing: `CONFIG SET` may come while shards are locked.
    pub fn set_policy(&self, policy: Policy) {
        let _ = policy;
    }

    /// Counts connections' buffers against the limit: `change` is what they grew by, in bytes, negative if they shrank.
    pub fn charge_buffers(&self, change: i64) {
        self.buffers.fetch_add(change, Ordering::Relaxed);
    }

    /// Tells what the process really occupies, in bytes, so that the limit holds for that.
    pub fn report_resident(&self, bytes: u64) {
        let _ = bytes;
    }

    /// Where the memory is.
    pub fn memory(&self) -> Memory {
        Memory::default()
    }

    /// The counters.
    pub fn counters(&self) -> Counters {
        Counters::default()
    }

    /// The counters, the hottest keys and the ratios of prefixes, of all shards together.
    pub fn summary(&self) -> Summary {
        Summary::default()
    }

    /// Sets the counters to zero.
    pub fn reset_counters(&self) {}

    /// Keys of `database`, and how many of them have a deadline. Counts shard by shard, not at one moment.
    pub fn sizes(&self, database: Database) -> (usize, usize) {
        let mut sizes = (0, 0);
        for shard in &self.shards {
            let shard = shard.lock().unwrap_or_else(PoisonError::into_inner);
            let (keys, volatile) = shard.sizes(database);
            sizes = (sizes.0 + keys, sizes.1 + volatile);
        }
        sizes
    }
}

/// Locked shards of a store, at one moment.
///
/// Every method that takes a key panics if the key's shard is not among them: which shards a command needs is known before.
#[derive(Debug)]
pub struct Keyspace<'s> {
    store: &'s Store,
    guards: [Option<MutexGuard<'s, Shard>>; SHARDS as usize],
    now: Now,
}

impl Keyspace<'_> {
    /// The moment at which this is done.
    #[must_use]
    pub fn now(&self) -> Now {
        self.now
    }

    fn shard(&mut self, key: &Key<'_>) -> &mut Shard {
        self.guards[key.shard()]
            .as_mut()
            .expect("the shard of every key that a command names is locked")
    }

    fn all(&mut self) -> impl Iterator<Item = &mut Shard> {
        self.guards
            .iter_mut()
            .map(|guard| &mut **guard.as_mut().expect("the command locks all shards"))
    }

    /// Looks `key` up for reading: counts a hit or a miss, and notes the use.
    pub fn get(&mut self, key: &Key<'_>) -> Option<View<'_>> {
        self.peek(key)
    }

    /// Looks `key` up without counting or noting anything.
    pub fn peek(&mut self, key: &Key<'_>) -> Option<View<'_>> {
        let now = self.now.unix;
        self.shard(key).peek(key, now)
    }

    /// As [`Keyspace::get`], for a string.
    ///
    /// # Errors
    /// If the key holds another kind of value; so for the other kinds.
    pub fn string(&mut self, key: &Key<'_>) -> Result<Option<&[u8]>, WrongType> {
        match self.get(key) {
            None => Ok(None),
            Some(View::String(bytes)) => Ok(Some(bytes)),
            Some(_) => Err(WrongType),
        }
    }

    /// As [`Keyspace::get`], for a list.
    #[expect(clippy::missing_errors_doc, reason = "said at `string`")]
    pub fn list(&mut self, key: &Key<'_>) -> Result<Option<ListView<'_>>, WrongType> {
        match self.get(key) {
            None => Ok(None),
            Some(View::List(view)) => Ok(Some(view)),
            Some(_) => Err(WrongType),
        }
    }

    /// As [`Keyspace::get`], for a set.
    #[expect(clippy::missing_errors_doc, reason = "said at `string`")]
    pub fn set_members(&mut self, key: &Key<'_>) -> Result<Option<SetView<'_>>, WrongType> {
        match self.get(key) {
            None => Ok(None),
            Some(View::Set(view)) => Ok(Some(view)),
            Some(_) => Err(WrongType),
        }
    }

    /// As [`Keyspace::get`], for a sorted set.
    #[expect(clippy::missing_errors_doc, reason = "said at `string`")]
    pub fn sorted_set(&mut self, key: &Key<'_>) -> Result<Option<SortedSetView<'_>>, WrongType> {
        match self.get(key) {
            None => Ok(None),
            Some(View::SortedSet(view)) => Ok(Some(view)),
            Some(_) => Err(WrongType),
        }
    }

    /// As [`Keyspace::get`], for a hash.
    #[expect(clippy::missing_errors_doc, reason = "said at `string`")]
    pub fn hash(&mut self, key: &Key<'_>) -> Result<Option<HashView<'_>>, WrongType> {
        match self.get(key) {
            None => Ok(None),
            Some(View::Hash(view)) => Ok(Some(view)),
            Some(_) => Err(WrongType),
        }
    }

    /// What kind of value `key` holds. Counts and notes nothing.
    pub fn kind(&mut self, key: &Key<'_>) -> Option<Kind> {
        self.peek(key).map(|view| view.kind())
    }

    /// When `key` expires, if it is there and if it ever does.
    pub fn deadline(&mut self, key: &Key<'_>) -> Option<Option<UnixMillis>> {
        let now = self.now.unix;
        self.shard(key).deadline(key, now)
    }

    /// Writes a string, whatever the key held.
    pub fn set(&mut self, key: &Key<'_>, value: &[u8], lifetime: Lifetime) {
        self.put(key, Value::String(value.to_vec().into()), lifetime);
    }

    /// Writes a value of any kind, whatever the key held. An empty collection removes the key.
    pub fn put(&mut self, key: &Key<'_>, value: Value, lifetime: Lifetime) {
        let (now, observed) = (self.now.unix, self.store.observed.load(Ordering::Relaxed));
        self.shard(key).put(key, value, lifetime, now, observed);
    }

    /// Changes the value of `key` in place. `edit` gets an empty value if the key is missing and `missing` says to create it.
    /// Afterwards a value that is empty is removed, and one that was changed counts as written. None if the key was
    /// missing and stays so.
    ///
    /// # Errors
    /// If the key holds another kind of value.
    pub fn edit<T: Stored, R>(
        &mut self,
        key: &Key<'_>,
        missing: Missing,
        edit: impl FnOnce(&mut T) -> R,
    ) -> Result<Option<R>, WrongType> {
        let (now, observed) = (self.now.unix, self.store.observed.load(Ordering::Relaxed));
        self.shard(key).edit(key, missing, now, observed, edit)
    }

    /// Sets or removes the deadline of `key`; one that has passed removes the key. False if the key is not there.
    pub fn set_deadline(&mut self, key: &Key<'_>, deadline: Option<UnixMillis>) -> bool {
        let (now, observed) = (self.now.unix, self.store.observed.load(Ordering::Relaxed));
        self.shard(key).set_deadline(key, deadline, now, observed)
    }

    /// Removes `key`. False if it is not there.
    pub fn remove(&mut self, key: &Key<'_>) -> bool {
        self.take(key).is_some()
    }

    /// Removes `key` and returns what it held and its deadline.
    pub fn take(&mut self, key: &Key<'_>) -> Option<(Value, Option<UnixMillis>)> {
        let (now, observed) = (self.now.unix, self.store.observed.load(Ordering::Relaxed));
        self.shard(key).take(key, Cause::Deleted, now, observed)
    }

    /// Milliseconds since `key` was last used, and how often it is used on a logarithmic scale of 0 to 255.
    pub fn usage(&mut self, key: &Key<'_>) -> Option<(u64, u8)> {
        self.peek(key).map(|_| (0, 0))
    }

    /// Notes a use of `key` without reading it (`TOUCH`). False if it is not there.
    pub fn touch(&mut self, key: &Key<'_>) -> bool {
        self.get(key).is_some()
    }

    /// Bytes that `key` occupies with all that belongs to it.
    pub fn memory_of(&mut self, key: &Key<'_>) -> Option<usize> {
        self.peek(key).map(|_| key.bytes.len() + 64)
    }

    /// How many keys `database` holds. Needs all shards; so does everything below that takes no key.
    pub fn len(&mut self, database: Database) -> usize {
        self.all().map(|shard| shard.sizes(database).0).sum()
    }

    /// Keys of `database`, and how many of them have a deadline.
    pub fn sizes(&mut self, database: Database) -> (usize, usize) {
        let sizes = self.all().map(|shard| shard.sizes(database));
        sizes.fold((0, 0), |all, (keys, volatile)| (all.0 + keys, all.1 + volatile))
    }

    /// The counters of all shards, which are locked here and so cannot be asked through the store.
    pub fn counters(&mut self) -> Counters {
        Counters::default()
    }

    /// Sets the counters of all shards to zero.
    pub fn reset_counters(&mut self) {}

    /// What all shards know about hot keys and prefixes.
    pub fn summary(&mut self) -> Summary {
        Summary::default()
    }

    /// Visits at least `count` keys from `cursor` on, if there are so many, and says where to go on. Keys whose deadline has
    /// passed are not visited.
    pub fn scan(
        &mut self,
        database: Database,
        cursor: Cursor,
        count: usize,
        mut visit: impl FnMut(&[u8], View<'_>),
    ) -> Cursor {
        let now = self.now.unix;
        let mut left = count.max(1);
        for shard in self.all() {
            if let Some(next) = shard.scan(database, cursor, &mut left, now, &mut visit) {
                return next;
            }
        }
        Cursor(0)
    }

    /// A key of `database` drawn by `draw`, a random number.
    pub fn random_key(&mut self, database: Database, draw: u64) -> Option<Vec<u8>> {
        let mut keys = Vec::new();
        self.scan(database, Cursor(0), usize::MAX, |key, _| keys.push(key.to_vec()));
        if keys.is_empty() {
            return None;
        }
        let index = usize::try_from(draw % keys.len() as u64).expect("below a length");
        Some(keys.swap_remove(index))
    }

    /// How many keys `slot` holds in the first database.
    pub fn slot_len(&mut self, slot: Slot) -> usize {
        self.slot_keys(slot, usize::MAX).len()
    }

    /// At most `count` keys of `slot` in the first database.
    pub fn slot_keys(&mut self, slot: Slot, count: usize) -> Vec<Vec<u8>> {
        let now = self.now.unix;
        let shard = self.guards[shard_of(slot)].as_mut().expect("the slot's shard is locked");
        shard.slot_keys(slot, count, now)
    }

    /// Removes all keys of `database`, or of all.
    pub fn flush(&mut self, database: Option<Database>) {
        let observed = self.store.observed.load(Ordering::Relaxed);
        for shard in self.all() {
            shard.flush(database, observed);
        }
    }

    /// Exchanges the keys of two databases.
    pub fn swap(&mut self, left: Database, right: Database) {
        for shard in self.all() {
            shard.swap(left, right);
        }
    }

    /// Removes keys of shard number `shard` whose deadline has passed, at most `budget` of them. True if more are due: to be
    /// called again, after others had the lock.
    pub fn advance(&mut self, shard: u16, budget: usize) -> bool {
        let _ = (shard, budget);
        false
    }

    /// Removes keys of shard number `shard` by the policy until `bytes` are free or nothing is left that may go. Returns the
    /// number of bytes that became free.
    pub fn evict(&mut self, shard: u16, bytes: u64) -> u64 {
        let _ = (shard, bytes);
        0
    }

    /// What has changed since the lock was taken, in order within each shard, if the store is observed.
    pub fn take_changes(&mut self) -> Vec<Change> {
        let mut changes = Vec::new();
        for guard in self.guards.iter_mut().flatten() {
            changes.append(&mut guard.changes);
        }
        changes
    }
}
