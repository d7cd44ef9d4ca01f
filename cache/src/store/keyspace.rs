//! Locked shards, and all that can be done with keys.

use std::cell::Cell;
use std::marker::PhantomData;
use std::sync::{MutexGuard, PoisonError};

use super::shard::Shard;
use super::statistics::{Pressure, next_random};
use super::{
    Cause, Change, Counters, Cursor, Key, Lifetime, Missing, SHARDS, ShardSet, Store, Summary,
    WrongType, shard_of,
};
use crate::slot::{SLOTS, Slot};
use crate::types::{DATABASES, Database, Now, UnixMillis, Version};
use crate::value::{HashView, Kind, ListView, SetView, SortedSetView, Stored, Value, View};

/// Locked shards of a store, at one moment.
///
/// Every method that takes a key panics if the key's shard is not among them: which shards a command needs is known before.
#[derive(Debug)]
pub struct Keyspace<'s> {
    store: &'s Store,
    held: ShardSet,
    /// The guard of the first shard held, and those of the others in ascending order: most commands need one.
    first: Option<MutexGuard<'s, Shard>>,
    others: Vec<MutexGuard<'s, Shard>>,
    now: Now,
    touches: bool,
    /// Dropped after the guards: whoever waits for it would only wait for a shard otherwise.
    _turn: Option<MutexGuard<'s, ()>>,
    _holding: Holding,
}

thread_local! {
    /// Which store's shards this thread has locked, by its address; 0 if none.
    static HELD: Cell<usize> = const { Cell::new(0) };
}

/// Notes that a thread has shards of a store locked, until it is dropped.
#[derive(Debug)]
struct Holding {
    /// What the thread held before: shards of another store.
    before: usize,
    /// Guards of mutexes stay with their thread, and so does this.
    _stays: PhantomData<*const ()>,
}

impl Holding {
    fn begin(store: &Store) -> Self {
        assert_holds_none(store);
        let before = HELD.replace(std::ptr::from_ref(store).addr());
        Self { before, _stays: PhantomData }
    }
}

impl Drop for Holding {
    fn drop(&mut self) {
        HELD.set(self.before);
    }
}

/// Panics if this thread has locked shards of `store`: to lock more would wait for itself, or for one that waits for it. A handler,
/// whose shards are locked, asks its [`Keyspace`] instead.
pub(super) fn assert_holds_none(store: &Store) {
    let held = HELD.get();
    assert!(held != std::ptr::from_ref(store).addr(), "this thread has locked shards already");
}

/// From how many shards on a command waits for its turn before it takes the first.
///
/// Two commands that need so many of the shards nearly always share one. Without turns each would take some and wait for the
/// other's, be woken for one and wait for the next, and so make everybody wait for what it holds meanwhile.
const MANY: u32 = SHARDS as u32 / 4;

impl<'s> Keyspace<'s> {
    pub(super) fn lock(store: &'s Store, shards: ShardSet, now: Now) -> Self {
        let holding = Holding::begin(store);
        let policy = store.accounts.policy();
        let count = shards.0.count_ones();
        let turn =
            (count >= MANY).then(|| store.turn.lock().unwrap_or_else(PoisonError::into_inner));
        let mut rest = shards.0;
        let mut next = || {
            let index = rest.trailing_zeros() as usize;
            rest &= rest - 1;
            // A panic inside a shard stops the process (see `crate::net`), so a poisoned lock is never met twice.
            let mut guard = store.shards[index].lock().unwrap_or_else(PoisonError::into_inner);
            guard.follow(policy);
            guard
        };
        let first = (count > 0).then(&mut next);
        let others = (1..count).map(|_| next()).collect();
        Self {
            store,
            held: shards,
            first,
            others,
            now,
            touches: true,
            _turn: turn,
            _holding: holding,
        }
    }
}

impl Keyspace<'_> {
    /// The moment at which this is done.
    #[must_use]
    pub fn now(&self) -> Now {
        self.now
    }

    fn shard(&mut self, key: &Key<'_>) -> &mut Shard {
        self.number(key.shard())
    }

    /// Shard number `number`.
    #[inline]
    fn number(&mut self, number: usize) -> &mut Shard {
        assert!(self.held.0 >> number & 1 == 1, "every shard that a command needs is locked");
        let before = (self.held.0 & ((1 << number) - 1)).count_ones();
        let guard = match before.checked_sub(1) {
            None => self.first.as_mut(),
            Some(at) => self.others.get_mut(at as usize),
        };
        guard.expect("a guard for each shard that is held")
    }

    /// The shards that are held, in ascending order.
    fn held(&mut self) -> impl Iterator<Item = &mut Shard> {
        self.first.iter_mut().chain(&mut self.others).map(|guard| &mut **guard)
    }

    fn all(&mut self) -> impl Iterator<Item = &mut Shard> {
        assert!(self.held == ShardSet::ALL, "the command locks all shards");
        self.held()
    }

    /// Looks `key` up for reading: counts a hit or a miss, and notes the use.
    pub fn get(&mut self, key: &Key<'_>) -> Option<View<'_>> {
        let (now, touches) = (self.now, self.touches);
        self.shard(key).get(key, now, touches)
    }

    /// As [`Keyspace::get`], but it is no use: what `EXISTS` does.
    pub fn examine(&mut self, key: &Key<'_>) -> Option<View<'_>> {
        let now = self.now;
        self.shard(key).get(key, now, false)
    }

    /// Sets whether lookups are noted as uses (`CLIENT NO-TOUCH`). At first they are.
    pub fn set_touches(&mut self, touches: bool) {
        self.touches = touches;
    }

    /// Looks `key` up without counting or noting anything.
    pub fn peek(&mut self, key: &Key<'_>) -> Option<View<'_>> {
        let now = self.now;
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
        let now = self.now;
        self.shard(key).kind(key, now)
    }

    /// When `key` expires, if it is there and if it ever does.
    pub fn deadline(&mut self, key: &Key<'_>) -> Option<Option<UnixMillis>> {
        let now = self.now;
        self.shard(key).deadline(key, now)
    }

    /// Writes a string, whatever the key held.
    pub fn set(&mut self, key: &Key<'_>, value: &[u8], lifetime: Lifetime) {
        let now = self.now;
        self.shard(key).set(key, value, lifetime, now);
    }

    /// Writes a value of any kind, whatever the key held. An empty collection removes the key.
    pub fn put(&mut self, key: &Key<'_>, value: Value, lifetime: Lifetime) {
        let now = self.now;
        self.shard(key).put(key, value, lifetime, now);
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
        let now = self.now;
        self.shard(key).edit(key, missing, now, edit)
    }

    /// Sets or removes the deadline of `key`; one that has passed removes the key. False if the key is not there.
    pub fn set_deadline(&mut self, key: &Key<'_>, deadline: Option<UnixMillis>) -> bool {
        let now = self.now;
        self.shard(key).set_deadline(key, deadline, now)
    }

    /// Removes `key`. False if it is not there.
    pub fn remove(&mut self, key: &Key<'_>) -> bool {
        let now = self.now;
        self.shard(key).remove(key, now)
    }

    /// Removes `key` and returns what it held and its deadline.
    pub fn take(&mut self, key: &Key<'_>) -> Option<(Value, Option<UnixMillis>)> {
        let now = self.now;
        self.shard(key).take(key, now)
    }

    /// The version of `key`'s last mutation, if the store keeps versions.
    pub fn version(&mut self, key: &Key<'_>) -> Option<Version> {
        let now = self.now;
        self.shard(key).version_of(key, now)
    }

    /// Milliseconds since `key` was last used, and how often it is used on a logarithmic scale of 0 to 255.
    pub fn usage(&mut self, key: &Key<'_>) -> Option<(u64, u8)> {
        let now = self.now;
        self.shard(key).usage(key, now)
    }

    /// Notes that `key` was last used so many milliseconds ago (`RESTORE … IDLETIME`). False if it is not there.
    pub fn set_idle(&mut self, key: &Key<'_>, idle_ms: u64) -> bool {
        let now = self.now;
        self.shard(key).set_idle(key, idle_ms, now)
    }

    /// Notes how often `key` is used (`RESTORE … FREQ`). False if it is not there.
    pub fn set_frequency(&mut self, key: &Key<'_>, frequency: u8) -> bool {
        let now = self.now;
        self.shard(key).set_frequency(key, frequency, now)
    }

    /// Notes a use of `key` without reading it (`TOUCH`). False if it is not there.
    pub fn touch(&mut self, key: &Key<'_>) -> bool {
        let now = self.now;
        self.shard(key).touch(key, now)
    }

    /// Bytes that `key` occupies with all that belongs to it.
    pub fn memory_of(&mut self, key: &Key<'_>) -> Option<usize> {
        let now = self.now;
        self.shard(key).memory_of(key, now)
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

    /// A sample of the keys of `database` that have a deadline: for how long they live on average, in milliseconds; 0 if there are none.
    pub fn average_ttl_ms(&mut self, database: Database) -> u64 {
        let now = self.now;
        let samples = self.all().map(|shard| shard.sample_ttl(database, now));
        let (sum, count) = samples.fold((0, 0), |all, (sum, count)| (all.0 + sum, all.1 + count));
        u64::try_from(sum / u128::from(count.max(1_u64))).unwrap_or(u64::MAX)
    }

    /// The counters of all shards, which are locked here and so cannot be asked through the store.
    pub fn counters(&mut self) -> Counters {
        let mut counters = Counters::default();
        self.all().for_each(|shard| counters.add(&shard.statistics.counters()));
        counters
    }

    /// Sets the counters of all shards to zero.
    pub fn reset_counters(&mut self) {
        self.all().for_each(|shard| shard.statistics.reset_counters());
    }

    /// What all shards know about hot keys and prefixes.
    pub fn summary(&mut self) -> Summary {
        let mut summary = Summary::default();
        self.all().for_each(|shard| summary.absorb(&shard.statistics));
        summary
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
        let now = self.now;
        let mut left = count.max(1);
        for shard in self.all() {
            if let Some(next) = shard.scan(database, cursor, &mut left, now, &mut visit) {
                return next;
            }
        }
        Cursor(0)
    }

    /// A key of `database` drawn by `draw`, a random number: each key with the same probability.
    pub fn random_key(&mut self, database: Database, draw: u64) -> Option<Vec<u8>> {
        let now = self.now;
        let mut state = draw;
        let mut draw = draw;
        // A key that has expired is removed when it is drawn, so this ends.
        loop {
            let len = self.len(database) as u64;
            let mut number = usize::try_from(draw.checked_rem(len)?).expect("below a length");
            for shard in self.all() {
                let (keys, _) = shard.sizes(database);
                if number < keys {
                    match shard.nth(database, number, now) {
                        None => break,
                        found => return found,
                    }
                }
                number -= keys;
            }
            draw = next_random(&mut state);
        }
    }

    /// How many keys `slot` holds in the first database.
    pub fn slot_len(&mut self, slot: Slot) -> usize {
        self.shard_of(slot).slot_len(slot)
    }

    /// At most `count` keys of `slot` in the first database.
    pub fn slot_keys(&mut self, slot: Slot, count: usize) -> Vec<Vec<u8>> {
        let now = self.now;
        self.shard_of(slot).slot_keys(slot, count, now)
    }

    fn shard_of(&mut self, slot: Slot) -> &mut Shard {
        self.number(shard_of(slot))
    }

    /// Removes all keys of `database`, or of all.
    pub fn flush(&mut self, database: Option<Database>) {
        let now = self.now;
        self.all().for_each(|shard| shard.flush(database, now));
        match database {
            Some(database) => self.changed(database, Cause::Flushed),
            None => (0..DATABASES).for_each(|it| self.changed(Database(it), Cause::Flushed)),
        }
    }

    /// Exchanges the keys of two databases.
    pub fn swap(&mut self, left: Database, right: Database) {
        if left == right {
            return;
        }
        let now = self.now;
        self.all().for_each(|shard| shard.swap(left, right, now));
        self.changed(left, Cause::Swapped);
        self.changed(right, Cause::Swapped);
    }

    /// Leaves one change behind that stands for all keys of a database.
    fn changed(&mut self, database: Database, cause: Cause) {
        if self.store.accounts.observed() {
            let last = self.all().last().expect("there are shards");
            let version = last.last_version();
            let slot = Slot(SLOTS - 1);
            last.changes.push(Change { database, key: Box::default(), slot, version, cause });
        }
    }

    /// Removes keys of shard number `shard` whose deadline has passed, at most `budget` of them, and does a piece of what else
    /// is to be tidied there. True if more is due: to be called again, after others had the lock.
    pub fn advance(&mut self, shard: u16, budget: usize) -> bool {
        let now = self.now;
        self.number(usize::from(shard)).advance(budget, now)
    }

    /// Removes keys of shard number `shard` by the policy until about `bytes` are free, or some 64 KiB, or nothing is left that may
    /// go. Returns the number of bytes that became free.
    pub fn evict(&mut self, shard: u16, bytes: u64) -> u64 {
        let now = self.now;
        let within = self.store.accounts.is_within_limit();
        let pressure =
            if within && self.store.excess(0) > 0 { Pressure::Resident } else { Pressure::Write };
        self.number(usize::from(shard)).evict(bytes, pressure, now)
    }

    /// Asserts that what the locked shards are made of agrees: for tests.
    #[cfg(any(test, feature = "sim"))]
    pub fn check(&self) {
        self.first.iter().chain(&self.others).for_each(|shard| shard.check());
    }

    /// Whether `key` was created since [`Self::take_changes`] was last called. Its creation becomes a mere write: it is told once.
    pub fn claim_created(&mut self, key: &Key<'_>) -> bool {
        let is_it = |change: &&mut Change| {
            change.cause == Cause::Created
                && change.database == key.database
                && *change.key == *key.bytes
        };
        let found = self.shard(key).changes.iter_mut().rev().find(is_it);
        found.map(|change| change.cause = Cause::Written).is_some()
    }

    /// What has changed since the lock was taken, in order within each shard, if the store is observed.
    pub fn take_changes(&mut self) -> Vec<Change> {
        let mut changes = Vec::new();
        for shard in self.held() {
            changes.append(&mut shard.changes);
        }
        changes
    }
}
