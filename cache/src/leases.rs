//! Leases against stampedes: who may load a key that is missing, and which keys are known to be absent.
//!
//! At most one lease stands for a key, and it ends by itself, so a loader that dies is replaced. Every change of the key by anybody
//! else voids it, and so does a removal of the key, whether it was there or not: what the holder is about to publish may
//! have been read before that. All methods are called while the key's shard is locked, so that a lease and the key it is about change
//! together; they take the registry's own lock, after that.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::store::{Cause, Change, Charge};
use crate::types::Database;

/// The most leases and negative entries at one time.
pub const LEASES_MAX: usize = 65_536;

/// What a lease or a negative entry occupies beside its key, which is kept twice; in bytes, roughly.
const ENTRY_COST: usize = 192;

type Place = (Database, Box<[u8]>);

fn cost(place: &Place) -> usize {
    ENTRY_COST + 2 * place.1.len()
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Somebody loads: the one who has the token.
    Leased(u64),
    /// There is no value to load.
    Absent,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    state: State,
    until_us: u64,
}

/// What one who wants to load is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Grant {
    /// To load.
    Granted,
    /// That somebody else does, for so many microseconds at most.
    Held(u64),
    /// That there is nothing to load, and for how many microseconds this is believed.
    Absent(u64),
    /// That there are too many leases.
    TooMany,
}

#[derive(Debug, Default)]
struct Registry {
    entries: BTreeMap<Place, Entry>,
    /// The same, by when they end.
    ends: BTreeSet<(u64, Place)>,
    /// What all of them occupy.
    charge: Charge,
}

impl Registry {
    fn insert(&mut self, place: Place, entry: Entry) {
        self.remove(&place);
        self.charge.add(cost(&place));
        self.ends.insert((entry.until_us, place.clone()));
        self.entries.insert(place, entry);
    }

    fn remove(&mut self, place: &Place) -> Option<Entry> {
        let entry = self.entries.remove(place)?;
        self.ends.remove(&(entry.until_us, place.clone()));
        self.charge.take(cost(place));
        Some(entry)
    }

    /// Removes what has ended. Each entry is removed once, so this is constant time for each that is made.
    fn purge(&mut self, now_us: u64) {
        while self.ends.first().is_some_and(|(until_us, _)| *until_us <= now_us) {
            let (_, place) = self.ends.pop_first().expect("there is a first");
            self.entries.remove(&place);
            self.charge.take(cost(&place));
        }
    }

    /// Removes all of `database`.
    fn remove_database(&mut self, database: Database) {
        let first = (database, Box::default());
        let of_database = self.entries.range(first..).take_while(|(place, _)| place.0 == database);
        let places: Vec<Place> = of_database.map(|(place, _)| place.clone()).collect();
        for place in &places {
            self.remove(place);
        }
    }
}

/// All leases and negative entries of a node.
#[derive(Debug, Default)]
pub struct Leases {
    registry: Mutex<Registry>,
    /// How many entries there are: read without the lock.
    count: AtomicUsize,
}

impl Leases {
    /// None. What they occupy is told to `charge`.
    #[must_use]
    pub fn new(charge: Charge) -> Self {
        let registry = Registry { charge, ..Registry::default() };
        Self { registry: Mutex::new(registry), count: AtomicUsize::new(0) }
    }

    /// Whether there are any, so that changes have to be heard of.
    pub fn is_used(&self) -> bool {
        self.count.load(Ordering::Relaxed) > 0
    }

    fn with<R>(&self, work: impl FnOnce(&mut Registry) -> R) -> R {
        let mut registry: MutexGuard<'_, _> =
            self.registry.lock().unwrap_or_else(PoisonError::into_inner);
        let result = work(&mut registry);
        self.count.store(registry.entries.len(), Ordering::Relaxed);
        result
    }

    /// Asks for the right to load `key` for `duration_us`, by `token`. With `has_value` a stale value is there, so that a negative
    /// entry, if there is one, is out of date.
    pub fn acquire(
        &self,
        database: Database,
        key: &[u8],
        token: u64,
        duration_us: u64,
        has_value: bool,
        now_us: u64,
    ) -> Grant {
        let place = (database, Box::from(key));
        self.with(|registry| {
            registry.purge(now_us);
            match registry.entries.get(&place) {
                Some(Entry { state: State::Leased(_), until_us }) => {
                    return Grant::Held(until_us - now_us);
                }
                Some(Entry { state: State::Absent, until_us }) if !has_value => {
                    return Grant::Absent(until_us - now_us);
                }
                None if registry.entries.len() >= LEASES_MAX => return Grant::TooMany,
                _ => {}
            }
            let until_us = now_us.saturating_add(duration_us);
            registry.insert(place, Entry { state: State::Leased(token), until_us });
            Grant::Granted
        })
    }

    /// Ends the lease of `key` that `token` stands for. False if there is none: it has ended by itself, or it was voided.
    pub fn release(&self, database: Database, key: &[u8], token: u64, now_us: u64) -> bool {
        let place = (database, Box::from(key));
        self.with(|registry| {
            registry.purge(now_us);
            let held = registry.entries.get(&place).map(|entry| entry.state);
            held == Some(State::Leased(token)) && registry.remove(&place).is_some()
        })
    }

    /// Notes that `key` has no value, for `duration_us`. Not noted if there are too many entries: then it is loaded again.
    pub fn note_absent(&self, database: Database, key: &[u8], duration_us: u64, now_us: u64) {
        self.with(|registry| {
            if registry.entries.len() < LEASES_MAX {
                let until_us = now_us.saturating_add(duration_us);
                let entry = Entry { state: State::Absent, until_us };
                registry.insert((database, Box::from(key)), entry);
            }
        });
    }

    /// Forgets what is noted of `key`: it was removed by a command, which may have found nothing to remove.
    pub fn void(&self, database: Database, key: &[u8]) {
        if self.is_used() {
            self.with(|registry| registry.remove(&(database, Box::from(key))));
        }
    }

    /// Voids what changes make untrue. An expiry or an eviction does not: what is being loaded is as new as before.
    pub fn note(&self, changes: &[Change]) {
        if !self.is_used() {
            return;
        }
        self.with(|registry| {
            for change in changes {
                let place = || (change.database, change.key.clone());
                match change.cause {
                    Cause::Created | Cause::Written => {
                        registry.remove(&place());
                    }
                    Cause::Deleted => {
                        let place = place();
                        let entry = registry.entries.get(&place);
                        // A negative entry comes after the removal of the stale value that it replaces.
                        if entry.is_some_and(|entry| entry.state != State::Absent) {
                            registry.remove(&place);
                        }
                    }
                    Cause::Flushed | Cause::Swapped => registry.remove_database(change.database),
                    Cause::Expired
                    | Cause::Evicted
                    | Cause::PartsExpired
                    | Cause::LastPartExpired => {}
                }
            }
        });
    }

    /// Forgets what has ended. True if nothing is left where there was something: nobody needs to hear of changes any more.
    pub fn purge(&self, now_us: u64) -> bool {
        self.is_used()
            && self.with(|registry| {
                registry.purge(now_us);
                registry.entries.is_empty()
            })
    }
}
