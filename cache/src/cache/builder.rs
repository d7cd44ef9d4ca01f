//! How a cache is made.

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::sync::{Arc, Mutex};

use super::clock::SystemClock;
use super::flight::Flights;
use super::tags::Tags;
use super::{Cache, Inner, Listener, Removal, background};
use crate::engine::Clock;
use crate::store::{Policy, Store, StoreOptions};

/// What a cache is made with.
pub struct Builder {
    pub(super) options: StoreOptions,
    pub(super) clock: Option<Arc<dyn Clock>>,
    pub(super) listeners: Vec<Listener>,
    pub(super) tag_bytes: usize,
    pub(super) background: bool,
}

impl fmt::Debug for Builder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Builder").field("options", &self.options).finish_non_exhaustive()
    }
}

impl Builder {
    /// The most memory to use, in bytes. Unless a policy is chosen, the entries that are used least give way at it.
    #[must_use]
    pub fn memory_limit(mut self, bytes: u64) -> Self {
        self.options.limit = bytes;
        self
    }

    /// What gives way at the memory limit.
    #[must_use]
    pub fn policy(mut self, policy: Policy) -> Self {
        self.options.policy = policy;
        self
    }

    /// Seeds the order of keys and what is drawn at random: two caches of one seed do the same. To be a secret where others choose
    /// the keys, or they could make them collide.
    #[must_use]
    pub fn seed(mut self, seed: u64) -> Self {
        self.options.hash_seed = seed;
        self
    }

    /// Where the time comes from, instead of the system.
    #[must_use]
    pub fn clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.clock = Some(clock);
        self
    }

    /// Calls `listener` with every key that expired or was evicted: in whichever thread saw to it, outside of all locks, so it
    /// may call the cache. Costs a copy of the key for every change of the cache.
    #[must_use]
    pub fn on_removal(mut self, listener: impl Fn(&[u8], Removal) + Send + Sync + 'static) -> Self {
        self.listeners.push(Box::new(listener));
        self
    }

    /// The most bytes for the index of tags; 16 MiB unless said otherwise. An entry costs its key's bytes and about 48 more for each
    /// of its tags. When that is not enough, keys that are gone leave the index, and if that does not help, the tag with the most
    /// keys is invalidated: safe, and a loss of entries.
    #[must_use]
    pub fn tag_bytes(mut self, bytes: usize) -> Self {
        self.tag_bytes = bytes;
        self
    }

    /// Sees to expiry on a thread of its own, a hundred times a second, until the last handle is dropped.
    #[must_use]
    pub fn background(mut self) -> Self {
        self.background = true;
        self
    }

    /// The cache.
    #[must_use]
    pub fn build(self) -> Cache {
        let inner = Inner {
            store: Store::new(&self.options),
            clock: self.clock.unwrap_or_else(|| Arc::new(SystemClock::new())),
            listeners: self.listeners,
            flights: Flights::default(),
            tags: Mutex::new(Tags::new(self.tag_bytes)),
            knows_absent: AtomicBool::new(false),
            passing_at_us: AtomicU64::new(0),
            passing_shard: AtomicU64::new(0),
            loads: AtomicU64::new(0),
            loads_failed: AtomicU64::new(0),
            waits: AtomicU64::new(0),
            runs_in_background: self.background,
        };
        inner.store.observe(!inner.listeners.is_empty());
        let cache = Cache { inner: Arc::new(inner) };
        if self.background {
            background::start(Arc::downgrade(&cache.inner));
        }
        cache
    }
}
