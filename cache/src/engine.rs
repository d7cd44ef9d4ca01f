//! What all sessions of a node share: the store, the settings, and the registries of clients.
//!
//! Locks are taken in one order: shards, ascending; then one registry; then a client's outbox. No code holds two registries.

use std::borrow::Cow;
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use rand_chacha::ChaCha20Rng;
use rand_core::{Rng as _, SeedableRng as _};
use sha2::{Digest as _, Sha256};

use crate::access::AccessControl;
use crate::blocking::Waiters;
use crate::clients::Clients;
use crate::command::script::Scripts;
use crate::latency::LatencyMonitor;
use crate::leases::Leases;
use crate::monitor::Monitors;
use crate::pubsub::Channels;
use crate::ring::table::SlotTable;
use crate::settings::Settings;
use crate::slow_log::SlowLog;
use crate::store::{Change, Key, Keyspace, ShardSet, Store, StoreOptions};
use crate::totals::Totals;
use crate::tracking::Tracking;
use crate::types::{ClientId, Now};
use crate::watch::Watches;

/// Where the time comes from: the only way in which a node learns it.
pub trait Clock: Send + Sync + fmt::Debug {
    /// The time. Neither part ever goes backwards.
    fn now(&self) -> Now;

    /// What the wall clock shows, in microseconds since the Unix epoch: for `TIME` alone.
    fn wall_us(&self) -> u64;
}

/// What an engine is made with.
#[derive(Debug)]
pub struct EngineOptions {
    /// The store's.
    pub store: StoreOptions,
    /// Whether the cluster commands answer (for a cluster of one, as long as there is no other).
    pub cluster: bool,
    /// Seeds what is drawn at random: the run id, `RANDOMKEY`, `SPOP`.
    pub seed: u64,
}

/// Stops the node, from whichever thread calls it.
struct Stop(Box<dyn Fn() + Send + Sync>);

impl fmt::Debug for Stop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Stop")
    }
}

/// A registry that is told of changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Listener {
    Watches,
    Tracking,
    Channels,
}

/// What all sessions of a node share.
#[derive(Debug)]
pub struct Engine {
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// Keys and values.
    pub store: Store,
    /// `CONFIG`.
    pub settings: Settings,
    /// `ACL`.
    pub access: AccessControl,
    /// Who is connected.
    pub clients: Clients,
    /// Who subscribes to what.
    pub channels: Channels,
    /// Who caches what (`CLIENT TRACKING`).
    pub tracking: Tracking,
    /// Who watches what (`WATCH`).
    pub watches: Watches,
    /// Who waits for what (`BLPOP` and its like).
    pub waiters: Waiters,
    /// Who loads what (`GETORLOCK`).
    pub leases: Leases,
    /// Who watches all commands (`MONITOR`).
    pub monitors: Monitors,
    /// `SLOWLOG`.
    pub slow_log: SlowLog,
    /// `LATENCY`.
    pub latency: LatencyMonitor,
    /// What `INFO` counts.
    pub totals: Totals,
    /// Scripts that were recognised.
    pub scripts: Scripts,
    /// When the engine was made.
    pub started: Now,
    /// What it was made with.
    pub options: EngineOptions,
    placement: Mutex<Arc<SlotTable>>,
    /// Whether keys are removed at their deadline before anybody asks for them (`DEBUG SET-ACTIVE-EXPIRE`).
    pub expires_actively: AtomicBool,
    /// The state of [`Engine::draw`].
    drawn: AtomicU64,
    stop: OnceLock<Stop>,
    reviewing: Mutex<()>,
}

impl Engine {
    /// An engine with an empty store.
    #[must_use]
    pub fn new(options: EngineOptions, clock: Arc<dyn Clock>) -> Self {
        let started = clock.now();
        let store = Store::new(&options.store);
        Self {
            clock,
            settings: Settings::of(&options),
            access: AccessControl::default(),
            clients: Clients::default(),
            channels: Channels::default(),
            tracking: Tracking::default(),
            watches: Watches::default(),
            waiters: Waiters::new(store.charge()),
            leases: Leases::new(store.charge()),
            store,
            monitors: Monitors::default(),
            slow_log: SlowLog::default(),
            latency: LatencyMonitor::default(),
            totals: Totals::default(),
            scripts: Scripts::default(),
            started,
            placement: Mutex::new(Arc::new(alone())),
            expires_actively: AtomicBool::new(true),
            drawn: AtomicU64::new(options.seed),
            stop: OnceLock::new(),
            options,
            reviewing: Mutex::default(),
        }
    }

    /// Which members hold which slots: a table of one member until there are others.
    #[must_use]
    pub fn placement(&self) -> Arc<SlotTable> {
        Arc::clone(&self.placement.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Replaces the slot table.
    pub fn place(&self, table: SlotTable) {
        *self.placement.lock().unwrap_or_else(PoisonError::into_inner) = Arc::new(table);
    }

    /// Gives the default user a password (`requirepass`).
    pub fn require_password(&self, password: &str) {
        self.settings.tell("requirepass", password);
        self.access.set_default_password(password.as_bytes());
    }

    /// What the node keeps for itself though nobody has stored anything, in bytes: shards, counters, the table of commands. It is
    /// part of `used_memory`, and the limit is for what comes on top of it.
    #[must_use]
    pub fn base_bytes(&self) -> u64 {
        let table = crate::command::TABLE.count() * size_of::<crate::command::Known>();
        (size_of::<Self>() + self.store.base_bytes() + self.totals.heap_bytes() + table) as u64
    }

    /// A random number (SplitMix64 from [`EngineOptions::seed`]): for `SPOP`, `RANDOMKEY` and their like, not for secrets.
    pub fn draw(&self) -> u64 {
        const STEP: u64 = 0x9E37_79B9_7F4A_7C15;
        let state = self.drawn.fetch_add(STEP, Ordering::Relaxed).wrapping_add(STEP);
        let mixed = (state ^ (state >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    /// Bytes that nobody can guess who does not know [`EngineOptions::seed`]: for passwords and tokens.
    pub fn secret(&self, length: usize) -> Vec<u8> {
        let mut seed = [0; 32];
        let draws = [self.options.seed, self.draw(), self.clock.wall_us(), self.draw()];
        for (part, draw) in seed.chunks_exact_mut(8).zip(draws) {
            part.copy_from_slice(&draw.to_le_bytes());
        }
        let mut bytes = vec![0; length];
        ChaCha20Rng::from_seed(seed).fill_bytes(&mut bytes);
        bytes
    }

    /// Says how the node is stopped: for `SHUTDOWN`. Only the first call counts.
    pub fn on_stop(&self, stop: Box<dyn Fn() + Send + Sync>) {
        let _already = self.stop.set(Stop(stop));
    }

    /// Stops the node. False if nobody said how: it is part of a program that does not end with it.
    pub fn stop(&self) -> bool {
        self.stop.get().map(|stop| (stop.0)()).is_some()
    }

    /// A name of 40 hexadecimal digits that stays the same while the engine lives: one for each `purpose`.
    pub fn name_for(&self, purpose: &str) -> String {
        let mut hash = Sha256::new();
        hash.update(purpose);
        hash.update(self.options.seed.to_le_bytes());
        hash.update(self.started.unix.0.to_le_bytes());
        let mut name = crate::access::hex(&hash.finalize());
        name.truncate(40);
        name
    }

    /// A keyspace notification: tells subscribers of `__keyspace@N__:KEY` and `__keyevent@N__:EVENT`, if the setting has it.
    pub fn notify(&self, class: u8, event: &str, key: &Key<'_>) {
        self.channels.notify(class, event, key.database(), key.bytes());
    }

    /// Called while the shards are still locked, after every command that may have changed something: watches, client-side
    /// caches, notifications of expiry and eviction, and blocked clients learn what has changed. `by` is the client whose command
    /// it was. Serving a blocked client changes keys in turn, so this goes on until nothing has changed; each round serves at least
    /// one of them.
    pub fn settle(&self, keys: &mut Keyspace<'_>, by: Option<ClientId>) {
        self.settle_after(Vec::new(), keys, by);
    }

    /// As [`Engine::settle`], where `told` has changed before, and those who have read it have been told.
    pub(crate) fn settle_after(
        &self,
        mut told: Vec<Change>,
        keys: &mut Keyspace<'_>,
        by: Option<ClientId>,
    ) {
        loop {
            let mut changes = keys.take_changes();
            self.tracking.tell_readers(&self.heard(Listener::Tracking, &changes), by);
            if !told.is_empty() {
                told.append(&mut changes);
                changes = std::mem::take(&mut told);
            }
            if changes.is_empty() {
                return;
            }
            self.watches.note(&self.store, keys, &self.heard(Listener::Watches, &changes));
            self.tracking.broadcast(&self.heard(Listener::Tracking, &changes), by);
            self.store.charge_buffers(self.tracking.take_charge());
            self.channels.note(&self.heard(Listener::Channels, &changes));
            self.leases.note(&changes);
            self.waiters.note(self, keys, &changes);
        }
    }

    /// Ends the lease of a key that a command was to remove, whether it was there or not, and has those who wait for it ask again.
    pub(crate) fn void_lease(&self, key: &Key<'_>) {
        self.leases.void(key.database(), key.bytes());
        self.waiters.ask_again(key.database(), key.bytes());
    }

    /// What a registry hears of changes: all of them, unless a bug is planted.
    #[cfg_attr(not(feature = "sim"), expect(clippy::unused_self, reason = "bugs are the store's"))]
    fn heard<'c>(&self, listener: Listener, changes: &'c [Change]) -> Cow<'c, [Change]> {
        #[cfg(feature = "sim")]
        return crate::sim::PlantedBug::heard(self.store.bug(), listener, changes);
        #[cfg(not(feature = "sim"))]
        {
            let _ = listener;
            Cow::Borrowed(changes)
        }
    }

    /// Makes room for `bytes` more, by eviction if the policy has it, and tells whoever listens. False if there is none: the
    /// command is refused (`OOM`). To be called with no shard locked.
    #[must_use]
    pub fn make_room(&self, bytes: usize, now: Now) -> bool {
        let mut excess = self.store.excess(bytes);
        let mut barren = ShardSet::NONE;
        while excess > 0 {
            let Some(shard) = self.store.fattest(barren) else { return false };
            let mut keys = self.store.lock(ShardSet::one(shard), now);
            let freed = keys.evict(shard, excess);
            self.settle(&mut keys, None);
            if freed == 0 {
                barren.merge(ShardSet::one(shard));
            }
            excess = self.store.excess(bytes);
        }
        true
    }

    /// Removes what is due in shard number `shard`, at most `budget` keys, and tells whoever listens. True if more is due.
    pub fn advance(&self, shard: u16, budget: usize) -> bool {
        let now = self.clock.now();
        if shard == 0 {
            self.totals.sample(now);
            if self.leases.purge(now.monotonic_us) {
                self.review_observation();
            }
        }
        if !self.expires_actively.load(Ordering::Relaxed) {
            return false;
        }
        let mut keys = self.store.lock(ShardSet::one(shard), now);
        let more = keys.advance(shard, budget);
        self.settle(&mut keys, None);
        more
    }

    /// Notes whether anybody wants to hear of changes. To be called when a registry gains its first entry or loses its last.
    pub fn review_observation(&self) {
        // One at a time: an answer worked out before a registry gained its entry must not be written after the one that has it.
        let _reviewing = self.reviewing.lock().unwrap_or_else(PoisonError::into_inner);
        let observed = self.watches.is_used()
            || self.tracking.is_used()
            || self.waiters.is_used()
            || self.leases.is_used()
            || self.channels.wants_changes();
        self.store.observe(observed);
    }
}

/// The table of a node that knows no other.
fn alone() -> SlotTable {
    SlotTable::founding("default", 1, None, 3).expect("the name and the numbers are in range")
}
