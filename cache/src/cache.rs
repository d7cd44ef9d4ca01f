//! The embedded cache: the store as a library, within one process, without a socket.
//!
//! ```
//! use std::time::Duration;
//! use distributed_cache::cache::{Cache, Load};
//!
//! let cache = Cache::builder().memory_limit(64 << 20).build();
//! cache.set(b"greeting", b"hello")?;
//! assert_eq!(cache.get(b"greeting").as_deref(), Some(&b"hello"[..]));
//!
//! let load = Load::for_ttl(Duration::from_secs(60));
//! let page = cache.get_or_load(b"page:1", &load, || Ok::<_, std::io::Error>(Some(b"html".to_vec())))?;
//! assert_eq!(page.as_deref(), Some(&b"html"[..]));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! A [`Cache`] is a handle: clones share one store, and all methods take `&self` from any thread. What a key holds is bytes; for
//! values of a Rust type there is [`Cache::typed`].
//!
//! - **Loading** ([`Cache::get_or_load`], [`Cache::get_or_load_async`]) is *single-flight*: while one caller loads a key, the others wait for
//!   its result. A loader that fails, panics, or whose future is dropped lets the next of them try with its own; its error goes
//!   to its own caller alone. What was invalidated while it was loaded is handed out and not kept.
//! - **Stale while revalidated**: with [`Load::stale`], a value stays that much longer than its TTL; the first caller in that time
//!   loads it anew, and all others get what there is without waiting. Should that load fail, its caller gets it too.
//! - **Negative entries**: a loader that says `None` is believed for [`Load::negative_ttl`].
//! - **Invalidation** by key, by prefix ([`Cache::invalidate_prefix`]: looks at every key), and by tag ([`Cache::invalidate_tag`]: looks at the
//!   tag's keys; the index of tags costs memory, see [`Builder::tag_bytes`]).
//! - **Expiry** is exact for readers: nothing is returned at or after its deadline. Memory comes back, and listeners hear of it, as
//!   calls pass by, or on a thread of its own ([`Builder::background`]).
//!
//! # Room for a cluster
//!
//! The calls that could one day cross a network have asynchronous twins ([`Cache::get_async`] and its like) with the error that such a
//! call can have ([`Error`], which will gain variants). They are ready at once today. A program that uses them will run against
//! a ring of nodes unchanged; the plain calls stay what they are, calls on this process's memory.
//!
//! Missing: values of the other kinds (lists, hashes …) are for the Redis protocol alone. A refresh of a stale value runs in its
//! caller, since a library has no threads of its own to give.

mod background;
mod builder;
mod clock;
mod flight;
mod load;
mod tags;
mod typed;

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

pub use self::builder::Builder;
use self::flight::Flights;
pub use self::load::{Load, Loaded};
use self::tags::Tags;
pub use self::typed::Typed;
use crate::engine::Clock;
use crate::store::{
    Cause, Change, Counters, Cursor, Key, Keyspace, Lifetime, Memory, Policy, SHARDS, ShardSet,
    Store, StoreOptions, Summary,
};
use crate::types::{Database, Now};
use crate::value::View;

/// Values stand in the first database, so that a server over the same store would show them.
const VALUES: Database = Database(0);

/// Keys that are known to be absent stand in another.
const ABSENT: Database = Database(1);

/// How long it takes until callers in passing have seen to the expiry of every shard, in microseconds: one shard at a time.
const PASSING_US: u64 = 100_000;

/// The most keys that are removed in passing.
const PASSING_BUDGET: usize = 256;

/// The most keys that a walk looks at before it lets others have the locks.
const WALK: usize = 1024;

/// Why a call failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// There is no room within the memory limit, and nothing may give way.
    #[error("the cache is full, and its policy evicts nothing")]
    Full,
    /// Key and value together are larger than an entry may be.
    #[error("an entry of {bytes} bytes is larger than the {limit} that one may have")]
    TooLarge {
        /// How large it is.
        bytes: usize,
        /// How large it may be.
        limit: usize,
    },
    /// A typed value could not be written, or what is there does not read as one.
    #[error("a value does not fit its type")]
    Codec(#[source] postcard::Error),
}

/// Why an entry left without anybody's asking.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Removal {
    /// Its deadline passed.
    Expired,
    /// It gave way at the memory limit.
    Evicted,
}

type Listener = Box<dyn Fn(&[u8], Removal) + Send + Sync>;

/// What a cache has counted.
#[derive(Clone, Debug, Default)]
pub struct Statistics {
    /// Hits, misses by cause, evictions, the hottest keys, hit ratios by prefix.
    pub store: Summary,
    /// Where the memory is.
    pub memory: Memory,
    /// Keys with a value.
    pub keys: usize,
    /// Loaders that were run.
    pub loads: u64,
    /// Of them, those that failed, panicked or were dropped.
    pub loads_failed: u64,
    /// Callers that waited for another one's loader.
    pub waits: u64,
    /// Bytes of the index of tags, estimated.
    pub tag_bytes: usize,
}

/// A cache within this process. A handle: clones are the same cache.
#[derive(Clone, Debug)]
pub struct Cache {
    inner: Arc<Inner>,
}

struct Inner {
    store: Store,
    clock: Arc<dyn Clock>,
    listeners: Vec<Listener>,
    flights: Flights,
    tags: Mutex<Tags>,
    /// Whether any key was ever noted as absent: until then, nobody looks.
    knows_absent: AtomicBool,
    passing_at_us: AtomicU64,
    passing_shard: AtomicU64,
    loads: AtomicU64,
    loads_failed: AtomicU64,
    waits: AtomicU64,
    runs_in_background: bool,
}

impl fmt::Debug for Inner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cache").field("memory", &self.store.memory()).finish_non_exhaustive()
    }
}

impl Cache {
    /// How a cache is made.
    #[must_use]
    pub fn builder() -> Builder {
        let options = StoreOptions { policy: Policy::AllKeysLru, ..StoreOptions::default() };
        Builder {
            options,
            clock: None,
            listeners: Vec::new(),
            tag_bytes: 16 << 20,
            background: false,
        }
    }

    /// What `key` holds.
    #[must_use]
    pub fn get(&self, key: &[u8]) -> Option<Vec<u8>> {
        self.get_with(key, <[u8]>::to_vec)
    }

    /// What `read` makes of what `key` holds, without a copy. A lock is held meanwhile: `read` should be quick, and must not use the
    /// cache.
    pub fn get_with<R>(&self, key: &[u8], read: impl FnOnce(&[u8]) -> R) -> Option<R> {
        let now = self.now();
        let key = self.inner.store.key(VALUES, key);
        let mut keys = self.lock(&key, now);
        let result = match keys.get(&key) {
            Some(View::String(bytes)) => Some(read(bytes)),
            _ => None,
        };
        self.settle(keys);
        result
    }

    /// How much longer `key` lives: None if it is not there, and within it None if it has no deadline.
    #[must_use]
    pub fn ttl(&self, key: &[u8]) -> Option<Option<Duration>> {
        let now = self.now();
        let key = self.inner.store.key(VALUES, key);
        let mut keys = self.lock(&key, now);
        let deadline = keys.deadline(&key);
        self.settle(keys);
        deadline.map(|deadline| deadline.map(|at| Duration::from_millis(now.unix.until(at))))
    }

    /// Whether `key` holds anything. Counts as no lookup.
    #[must_use]
    pub fn contains(&self, key: &[u8]) -> bool {
        self.ttl(key).is_some()
    }

    /// Keeps `value` under `key`, as long as there is room.
    ///
    /// # Errors
    /// [`Error::Full`] and [`Error::TooLarge`].
    pub fn set(&self, key: &[u8], value: &[u8]) -> Result<(), Error> {
        self.set_until(key, value, Lifetime::Forever, self.now())
    }

    /// Keeps `value` under `key` for `ttl`, to the millisecond.
    ///
    /// # Errors
    /// [`Error::Full`] and [`Error::TooLarge`].
    pub fn set_for(&self, key: &[u8], value: &[u8], ttl: Duration) -> Result<(), Error> {
        let now = self.now();
        self.set_until(key, value, Lifetime::Until(now.unix.after(ttl)), now)
    }

    /// Keeps `value` under `key`, for `ttl` if there is one, to be invalidated by any of `tags`, too.
    ///
    /// # Errors
    /// [`Error::Full`] and [`Error::TooLarge`].
    pub fn set_tagged(
        &self,
        key: &[u8],
        value: &[u8],
        ttl: Option<Duration>,
        tags: &[&str],
    ) -> Result<(), Error> {
        let now = self.now();
        let lifetime = ttl.map_or(Lifetime::Forever, |ttl| Lifetime::Until(now.unix.after(ttl)));
        self.set_until(key, value, lifetime, now)?;
        // An invalidation that comes between has come before the whole of this.
        self.note_tags(key, tags.iter().copied());
        Ok(())
    }

    /// Lets `key` expire after `ttl` from now. False if it is not there.
    pub fn expire(&self, key: &[u8], ttl: Duration) -> bool {
        let now = self.now();
        let key = self.inner.store.key(VALUES, key);
        let mut keys = self.lock(&key, now);
        let found = keys.set_deadline(&key, Some(now.unix.after(ttl)));
        self.settle(keys);
        found
    }

    /// Removes `key`, and lets a load of it that is under way not be kept. False if it was not there.
    pub fn delete(&self, key: &[u8]) -> bool {
        self.inner.flights.void(|loaded, _| loaded == key);
        self.remove_all(&[key]) > 0
    }

    /// Removes every key that begins with `prefix`, and returns how many. Looks at every key of the cache, a thousand at a time; keys
    /// made meanwhile may stay.
    pub fn invalidate_prefix(&self, prefix: &[u8]) -> usize {
        self.inner.flights.void(|loaded, _| loaded.starts_with(prefix));
        self.walk(|key| key.starts_with(prefix))
    }

    /// Removes every key that was set or loaded with `tag`, and returns how many there were.
    pub fn invalidate_tag(&self, tag: &str) -> usize {
        self.inner.flights.void(|_, tags| tags.iter().any(|it| it == tag));
        let keys = self.tags(|tags| tags.take(tag));
        self.remove_all(&keys)
    }

    /// Removes everything.
    pub fn clear(&self) {
        self.inner.flights.void(|_, _| true);
        self.tags(Tags::clear);
        let mut keys = self.inner.store.lock(ShardSet::ALL, self.now());
        keys.flush(None);
        self.settle(keys);
    }

    /// How many keys there are. Counts those whose deadline has passed and that nobody has met yet.
    #[must_use]
    pub fn len(&self) -> usize {
        self.inner.store.sizes(VALUES).0
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// As [`Cache::get`], in the form that a cluster needs.
    ///
    /// # Errors
    /// None, today.
    pub async fn get_async(&self, key: &[u8]) -> Result<Option<Vec<u8>>, Error> {
        Ok(self.get(key))
    }

    /// As [`Cache::set_for`] or, without a TTL, [`Cache::set`], in the form that a cluster needs.
    ///
    /// # Errors
    /// [`Error::Full`] and [`Error::TooLarge`].
    pub async fn set_async(
        &self,
        key: &[u8],
        value: &[u8],
        ttl: Option<Duration>,
    ) -> Result<(), Error> {
        match ttl {
            Some(ttl) => self.set_for(key, value, ttl),
            None => self.set(key, value),
        }
    }

    /// As [`Cache::delete`], in the form that a cluster needs.
    ///
    /// # Errors
    /// None, today.
    pub async fn delete_async(&self, key: &[u8]) -> Result<bool, Error> {
        Ok(self.delete(key))
    }

    /// This cache for values of type `T`, under keys that begin with `prefix` and a colon.
    #[must_use]
    pub fn typed<T>(&self, prefix: &str) -> Typed<T> {
        Typed::new(self.clone(), prefix)
    }

    /// Removes what is due: at most `budget` keys of each shard. True if there is more. A program without
    /// [`Builder::background`] may call this now and then, so that memory comes back though nobody uses the cache.
    pub fn advance(&self, budget: usize) -> bool {
        self.inner.advance(budget)
    }

    /// What was counted.
    #[must_use]
    pub fn statistics(&self) -> Statistics {
        Statistics {
            store: self.inner.store.summary(),
            memory: self.inner.store.memory(),
            keys: self.len(),
            loads: self.inner.loads.load(Ordering::Relaxed),
            loads_failed: self.inner.loads_failed.load(Ordering::Relaxed),
            waits: self.inner.waits.load(Ordering::Relaxed),
            tag_bytes: self.tags(|tags| tags.bytes()),
        }
    }

    /// The store's counters alone.
    #[must_use]
    pub fn counters(&self) -> Counters {
        self.inner.store.counters()
    }

    /// Tells what the process really occupies, in bytes, so that the memory limit holds for that.
    pub fn report_resident(&self, bytes: u64) {
        self.inner.store.report_resident(bytes);
    }

    fn now(&self) -> Now {
        let now = self.inner.clock.now();
        if !self.inner.runs_in_background
            && now.monotonic_us >= self.inner.passing_at_us.load(Ordering::Relaxed)
        {
            self.inner.see_to_a_shard(now);
        }
        now
    }

    fn lock(&self, key: &Key<'_>, now: Now) -> Keyspace<'_> {
        let mut shards = ShardSet::NONE;
        shards.insert(key.slot());
        self.inner.store.lock(shards, now)
    }

    /// Releases the locks, and tells listeners what has changed.
    fn settle(&self, keys: Keyspace<'_>) {
        self.inner.settle(keys);
    }

    fn tags<R>(&self, visit: impl FnOnce(&mut Tags) -> R) -> R {
        visit(&mut self.inner.tags.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn set_until(
        &self,
        key: &[u8],
        value: &[u8],
        lifetime: Lifetime,
        now: Now,
    ) -> Result<(), Error> {
        let (bytes, limit) = (key.len() + value.len(), self.inner.store.value_limit());
        if bytes > limit {
            return Err(Error::TooLarge { bytes, limit });
        }
        if !self.inner.make_room(bytes, now) {
            return Err(Error::Full);
        }
        let place = self.inner.store.key(VALUES, key);
        let mut keys = self.lock(&place, now);
        keys.set(&place, value, lifetime);
        if self.inner.knows_absent.load(Ordering::Relaxed) {
            keys.remove(&self.inner.store.key(ABSENT, key));
        }
        self.settle(keys);
        Ok(())
    }

    fn note_absent(&self, key: &[u8], ttl: Duration) {
        let now = self.now();
        if ttl.is_zero() || !self.inner.make_room(key.len(), now) {
            return;
        }
        self.inner.knows_absent.store(true, Ordering::Relaxed);
        let place = self.inner.store.key(ABSENT, key);
        let mut keys = self.lock(&place, now);
        keys.set(&place, b"", Lifetime::Until(now.unix.after(ttl)));
        self.settle(keys);
    }

    fn note_tags<'t>(&self, key: &[u8], tags: impl Iterator<Item = &'t str>) {
        let mut tags = tags.peekable();
        if tags.peek().is_none() {
            return;
        }
        let over = self.tags(|index| {
            tags.for_each(|tag| index.add(tag, key));
            index.is_over()
        });
        if over {
            self.shrink_tags();
        }
    }

    /// Lets keys that are gone leave the index of tags and, if that is not enough, invalidates the largest tags.
    #[cold]
    fn shrink_tags(&self) {
        let now = self.inner.clock.now();
        // Under the index's lock: a key that is set meanwhile is added only after that, and so cannot be taken for gone. Listeners
        // hear of what is met here later, as they may use the cache.
        let is_there = |key: &[u8]| {
            let place = self.inner.store.key(VALUES, key);
            self.lock(&place, now).peek(&place).is_some()
        };
        self.tags(|tags| tags.retain(is_there));
        while let Some(tag) = self.tags(|tags| tags.largest_if_over()) {
            self.invalidate_tag(&tag);
        }
    }

    fn remove_all(&self, gone: &[impl AsRef<[u8]>]) -> usize {
        let mut removed = 0;
        for key in gone {
            let place = self.inner.store.key(VALUES, key.as_ref());
            let mut keys = self.lock(&place, self.now());
            removed += usize::from(keys.remove(&place));
            if self.inner.knows_absent.load(Ordering::Relaxed) {
                keys.remove(&self.inner.store.key(ABSENT, key.as_ref()));
            }
            self.settle(keys);
        }
        removed
    }

    /// Removes the keys that `which` names, and returns how many had a value.
    fn walk(&self, which: impl Fn(&[u8]) -> bool) -> usize {
        let mut removed = 0;
        for database in [VALUES, ABSENT] {
            let mut cursor = Cursor(0);
            loop {
                let mut keys = self.inner.store.lock(ShardSet::ALL, self.now());
                let mut found: Vec<Vec<u8>> = Vec::new();
                cursor = keys.scan(database, cursor, WALK, |key, _| {
                    if which(key) {
                        found.push(key.to_vec());
                    }
                });
                for key in &found {
                    let gone = keys.remove(&self.inner.store.key(database, key));
                    removed += usize::from(gone && database == VALUES);
                }
                self.settle(keys);
                if cursor == Cursor(0) {
                    break;
                }
            }
        }
        removed
    }
}

impl Inner {
    fn settle(&self, mut keys: Keyspace<'_>) {
        if self.listeners.is_empty() {
            return;
        }
        let changes = keys.take_changes();
        drop(keys);
        self.tell(&changes);
    }

    fn tell(&self, changes: &[Change]) {
        for change in changes.iter().filter(|change| change.database == VALUES) {
            let removal = match change.cause {
                Cause::Expired => Removal::Expired,
                Cause::Evicted => Removal::Evicted,
                _ => continue,
            };
            self.listeners.iter().for_each(|listener| listener(&change.key, removal));
        }
    }

    fn advance(&self, budget: usize) -> bool {
        let mut more = false;
        for shard in 0..SHARDS {
            more |= self.advance_shard(shard, budget, self.clock.now());
        }
        more
    }

    fn advance_shard(&self, shard: u16, budget: usize, now: Now) -> bool {
        let mut keys = self.store.lock(ShardSet::one(shard), now);
        let more = keys.advance(shard, budget);
        self.settle(keys);
        more
    }

    /// What a caller does in passing, whoever comes first when it is time.
    #[cold]
    fn see_to_a_shard(&self, now: Now) {
        let due = self.passing_at_us.load(Ordering::Relaxed);
        let next = now.monotonic_us + PASSING_US / u64::from(SHARDS);
        let first =
            self.passing_at_us.compare_exchange(due, next, Ordering::Relaxed, Ordering::Relaxed);
        if first.is_ok() {
            let turn = self.passing_shard.fetch_add(1, Ordering::Relaxed);
            let shard = u16::try_from(turn % u64::from(SHARDS)).expect("a shard's number");
            self.advance_shard(shard, PASSING_BUDGET, now);
        }
    }

    /// Makes room for `bytes` by eviction. No shard is locked. False if there is none.
    fn make_room(&self, bytes: usize, now: Now) -> bool {
        let mut barren = ShardSet::NONE;
        let mut excess = self.store.excess(bytes);
        while excess > 0 {
            let Some(shard) = self.store.fattest(barren) else { return false };
            let mut keys = self.store.lock(ShardSet::one(shard), now);
            if keys.evict(shard, excess) == 0 {
                barren.merge(ShardSet::one(shard));
            }
            self.settle(keys);
            excess = self.store.excess(bytes);
        }
        true
    }
}

#[cfg(test)]
mod tests;
