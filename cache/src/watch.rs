//! Who watches what: the optimistic lock of `WATCH` and `EXEC`.
//!
//! A watch ends in one of two ways: the key changes, and everybody who watches it is marked ([`Mark::DIRTY`]); or its owner lets go.
//! Watching begins, and `EXEC` looks at the mark, with the shard of every watched key locked, and every change is noted before its
//! shard is released. So a transaction whose mark is not set runs on exactly the values that its owner has seen.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::clients::{Client, Mark};
use crate::store::{Cause, Change, Keyspace, Store};
use crate::types::{ClientId, Database};

/// Those who watch one key, and whether it was there when they began.
type Watchers = BTreeMap<ClientId, (Arc<Client>, bool)>;
type Watched = BTreeMap<Database, BTreeMap<Box<[u8]>, Watchers>>;

/// Who watches what.
#[derive(Debug, Default)]
pub struct Watches {
    watched: Mutex<Watched>,
    count: AtomicUsize,
}

impl Watches {
    fn lock(&self) -> MutexGuard<'_, Watched> {
        self.watched.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Has `client` watch a key, which `exists` or not. The key's shard is locked. False if it watched it already.
    pub fn watch(
        &self,
        client: &Arc<Client>,
        database: Database,
        key: &[u8],
        exists: bool,
    ) -> bool {
        let mut watched = self.lock();
        let keys = watched.entry(database).or_default();
        let watchers = keys.entry(key.into()).or_default();
        if watchers.contains_key(&client.id) {
            return false;
        }
        watchers.insert(client.id, (Arc::clone(client), exists));
        self.count.fetch_add(1, Ordering::AcqRel);
        true
    }

    /// Ends what `client` watches.
    pub fn unwatch(&self, client: &Client, keys: &[(Database, Box<[u8]>)]) {
        if keys.is_empty() {
            return;
        }
        let mut watched = self.lock();
        for (database, key) in keys {
            let Some(of_database) = watched.get_mut(database) else { continue };
            let Some(watchers) = of_database.get_mut(key) else { continue };
            if watchers.remove(&client.id).is_some() {
                self.count.fetch_sub(1, Ordering::AcqRel);
            }
            if watchers.is_empty() {
                of_database.remove(key);
            }
        }
    }

    /// Marks the transactions of those who watch what has changed.
    pub fn note(&self, store: &Store, keys: &mut Keyspace<'_>, changes: &[Change]) {
        if !self.is_used() {
            return;
        }
        let watched = self.lock();
        for change in changes {
            let Some(of_database) = watched.get(&change.database) else { continue };
            match change.cause {
                // A key that was not there when its watch began, and has not changed since, is none of those that went.
                Cause::Flushed => mark(of_database.values(), |existed| existed),
                Cause::Swapped => {
                    for (name, watchers) in of_database {
                        let key = store.key(change.database, name);
                        let exists = keys.peek(&key).is_some();
                        mark([watchers], |existed| exists || existed);
                    }
                }
                // What was not there when its watch began, or had expired, has not changed by being reclaimed.
                Cause::Expired => mark(of_database.get(&change.key), |existed| existed),
                // All others are about one key.
                _ => mark(of_database.get(&change.key), |_| true),
            }
        }
    }

    /// Whether anything is watched.
    pub fn is_used(&self) -> bool {
        self.count.load(Ordering::Acquire) > 0
    }

    /// How many keys are watched, by however many.
    #[must_use]
    pub fn keys(&self) -> usize {
        self.lock().values().map(BTreeMap::len).sum()
    }
}

/// Marks those for whom `is_changed` says so, given whether the key was there when they began.
fn mark<'w>(keys: impl IntoIterator<Item = &'w Watchers>, is_changed: impl Fn(bool) -> bool) {
    for (client, existed) in keys.into_iter().flat_map(BTreeMap::values) {
        if is_changed(*existed) {
            client.mark(Mark::DIRTY, true);
        }
    }
}

#[cfg(test)]
mod tests;
