//! Who caches what, and is told when it changes (`CLIENT TRACKING`).
//!
//! In the *default* mode the node remembers which client has read which key, tells it once when the key changes, and forgets. In
//! *broadcast* mode it remembers nothing and tells of every change of a key that begins with one of the client's prefixes.
//!
//! No change is missed. A read is remembered, and a change told, before the key's shard is released: of a read and a change of one key
//! that happen at once, either the read comes second and sees the new value, or it is remembered when the change looks. And a
//! message never overtakes the value that it is about: it goes into the client's outbox, which is emptied behind the reply that is
//! being written. (With `REDIRECT` it travels on another connection, and the client has to order the two.)
//!
//! The table of what was read is bounded by `tracking-table-max-keys`. Past that a key is forgotten, and those who have read it are told
//! as if it had changed. Names in it are those of all databases together, as in Redis: clients cache by name.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use smallvec::SmallVec;

use crate::clients::{Client, Mark};
use crate::resp::{Protocol, Reply};
use crate::store::{Cause, Change};
use crate::types::ClientId;

/// The channel on which a client of RESP2 gets another's invalidations.
pub const INVALIDATION_CHANNEL: &[u8] = b"__redis__:invalidate";

/// Which of its reads a client wants remembered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Selection {
    /// All.
    #[default]
    All,
    /// Those after `CLIENT CACHING YES`.
    OptIn,
    /// All but those after `CLIENT CACHING NO`.
    OptOut,
}

/// What a session has chosen with `CLIENT TRACKING`.
#[derive(Debug, Default)]
pub struct Choice {
    /// Whether it is on.
    pub is_on: bool,
    /// Who gets the messages, if not the client itself.
    pub redirect: Option<Arc<Client>>,
    /// Whether in broadcast mode.
    pub is_broadcast: bool,
    /// The prefixes, in broadcast mode. One that is empty stands for all keys.
    pub prefixes: BTreeSet<Box<[u8]>>,
    /// Which reads are remembered, in the default mode.
    pub selection: Selection,
    /// Whether `CLIENT CACHING` was called for the next command, or for the transaction that is open.
    pub is_caching: bool,
    /// Whether the client is not told of what it has changed itself.
    pub is_no_loop: bool,
}

impl Choice {
    /// Whether the keys that a command reads now are to be remembered.
    #[must_use]
    pub fn remembers(&self) -> bool {
        self.is_on
            && !self.is_broadcast
            && match self.selection {
                Selection::All => true,
                Selection::OptIn => self.is_caching,
                Selection::OptOut => !self.is_caching,
            }
    }
}

/// A client that tracks.
#[derive(Debug)]
struct Tracker {
    client: Arc<Client>,
    redirect: Option<Arc<Client>>,
    is_broadcast: bool,
    is_no_loop: bool,
}

/// Those who have read a key, in order.
type Readers = SmallVec<[ClientId; 2]>;

#[derive(Debug, Default)]
struct Table {
    trackers: BTreeMap<ClientId, Tracker>,
    keys: BTreeMap<Box<[u8]>, Readers>,
    /// How many readers all keys have, together.
    items: usize,
    /// Clients in broadcast mode, by prefix.
    prefixes: BTreeMap<Box<[u8]>, BTreeSet<ClientId>>,
    /// The last key that was forgotten for want of room: the next one is behind it.
    hand: Box<[u8]>,
}

/// Who caches what.
#[derive(Debug)]
pub struct Tracking {
    table: Mutex<Table>,
    is_used: AtomicBool,
    limit: AtomicUsize,
    /// What the table occupies, roughly, in bytes, and was not yet told to the store.
    uncharged: AtomicI64,
}

impl Default for Tracking {
    fn default() -> Self {
        Self {
            table: Mutex::default(),
            is_used: AtomicBool::new(false),
            limit: AtomicUsize::new(1_000_000),
            uncharged: AtomicI64::new(0),
        }
    }
}

/// What a key in the table costs beyond its bytes, in bytes.
const KEY_COST: usize = 96;
/// What a reader of a key costs.
const READER_COST: usize = 8;
/// How many readers of a key may be there that have gone, beyond as many again as there are clients that track.
const READERS_SPARED: usize = 16;

impl Tracking {
    fn lock(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether any client tracks.
    pub fn is_used(&self) -> bool {
        self.is_used.load(Ordering::Acquire)
    }

    /// Begins or changes the tracking of `client`, as `choice` says.
    pub(crate) fn enable(&self, client: &Arc<Client>, choice: &Choice) {
        let mut table = self.lock();
        let tracker = Tracker {
            client: Arc::clone(client),
            redirect: choice.redirect.clone(),
            is_broadcast: choice.is_broadcast,
            is_no_loop: choice.is_no_loop,
        };
        table.trackers.insert(client.id, tracker);
        for prefix in &choice.prefixes {
            table.prefixes.entry(prefix.clone()).or_default().insert(client.id);
        }
        self.is_used.store(true, Ordering::Release);
        client.mark(Mark::TRACKING, true);
        client.mark(Mark::BROADCAST, choice.is_broadcast);
        client.mark(Mark::BROKEN_REDIRECT, false);
        let redirect = choice.redirect.as_ref().map_or(0, |target| target.id.0);
        client.set_redirect(i64::try_from(redirect).unwrap_or(i64::MAX));
    }

    /// Ends the tracking of `client`. What it has read is forgotten when it changes, or with the last client that tracks.
    pub(crate) fn disable(&self, client: &Client, choice: &mut Choice) {
        if !choice.is_on {
            return;
        }
        let mut table = self.lock();
        table.trackers.remove(&client.id);
        for prefix in &choice.prefixes {
            if let Some(clients) = table.prefixes.get_mut(prefix) {
                clients.remove(&client.id);
                if clients.is_empty() {
                    table.prefixes.remove(prefix);
                }
            }
        }
        if table.trackers.is_empty() {
            self.forget_keys(&mut table);
            self.is_used.store(false, Ordering::Release);
        }
        *choice = Choice::default();
        client.mark(Mark::TRACKING, false);
        client.mark(Mark::BROADCAST, false);
        client.mark(Mark::BROKEN_REDIRECT, false);
        client.set_redirect(-1);
    }

    /// Remembers that `client` has read a key. Its shard is still locked.
    pub(crate) fn remember(&self, client: ClientId, key: &[u8]) {
        let mut table = self.lock();
        let table = &mut *table;
        if let Some(readers) = table.keys.get_mut(key) {
            let Err(place) = readers.binary_search(&client) else { return };
            readers.insert(place, client);
            let before = readers.len();
            // Those who have gone are told of nothing. Once they are the most, they are forgotten: a step for each that came.
            if before > 2 * table.trackers.len() + READERS_SPARED {
                readers.retain(|reader| table.trackers.contains_key(reader));
            }
            let gone = before - readers.len();
            table.items = table.items + 1 - gone;
            self.charge(READER_COST, true);
            self.charge(gone * READER_COST, false);
            return;
        }
        table.keys.insert(key.into(), SmallVec::from_slice(&[client]));
        table.items += 1;
        self.charge(key.len() + KEY_COST + READER_COST, true);
        self.trim(table);
    }

    /// Sets how many keys the table holds at most; 0 for no limit. Forgets what is too much.
    pub fn set_limit(&self, keys: usize) {
        self.limit.store(keys, Ordering::Relaxed);
        self.trim(&mut self.lock());
    }

    /// By how much what the table occupies has changed since this was last asked, in bytes: for the store's limit.
    pub fn take_charge(&self) -> i64 {
        match self.uncharged.load(Ordering::Relaxed) {
            0 => 0,
            _ => self.uncharged.swap(0, Ordering::Relaxed),
        }
    }

    fn charge(&self, bytes: usize, more: bool) {
        let bytes = i64::try_from(bytes).unwrap_or(i64::MAX);
        self.uncharged.fetch_add(if more { bytes } else { -bytes }, Ordering::Relaxed);
    }

    /// Forgets keys, one after the other around the table, until there are no more than the limit has.
    fn trim(&self, table: &mut Table) {
        let limit = match self.limit.load(Ordering::Relaxed) {
            0 => usize::MAX,
            limit => limit,
        };
        while table.keys.len() > limit {
            let behind = (Bound::Excluded(&*table.hand), Bound::Unbounded);
            let next = table.keys.range::<[u8], _>(behind).next();
            let next = next.or_else(|| table.keys.first_key_value());
            let Some((key, _)) = next else { return };
            let key = key.clone();
            self.invalidate(table, &key, None);
            table.hand = key;
        }
    }

    fn forget_keys(&self, table: &mut Table) {
        let bytes: usize = table.keys.keys().map(|key| key.len() + KEY_COST).sum();
        let bytes = bytes + table.items * READER_COST;
        self.uncharged.fetch_sub(i64::try_from(bytes).unwrap_or(i64::MAX), Ordering::Relaxed);
        table.keys = BTreeMap::new();
        table.items = 0;
    }

    /// Tells those who have read `key`, and forgets that they have.
    fn invalidate(&self, table: &mut Table, key: &[u8], by: Option<ClientId>) {
        let Some(readers) = table.keys.remove(key) else { return };
        table.items -= readers.len();
        self.charge(key.len() + KEY_COST + readers.len() * READER_COST, false);
        let mut content = Vec::new();
        for reader in readers {
            let Some(tracker) = table.trackers.get(&reader) else { continue };
            if tracker.is_broadcast || (tracker.is_no_loop && by == Some(reader)) {
                continue;
            }
            if content.is_empty() {
                write_keys(&mut content, &[key]);
            }
            tracker.send(&content);
        }
    }

    /// Tells clients in the default mode that keys they have read were changed, by the client `by` if it was one. The keys' shards are still locked.
    pub fn tell_readers(&self, changes: &[Change], by: Option<ClientId>) {
        if changes.is_empty() || !self.is_used() {
            return;
        }
        let mut table = self.lock();
        let table = &mut *table;
        let mut is_flushed = false;
        for change in changes {
            if matches!(change.cause, Cause::Flushed | Cause::Swapped) {
                is_flushed = true;
            } else {
                self.invalidate(table, &change.key, author(change, by));
            }
        }
        if is_flushed {
            self.forget_keys(table);
            for tracker in table.trackers.values() {
                let mut content = Vec::new();
                Reply::new(&mut content, tracker.client.protocol()).null();
                tracker.send(&content);
            }
        }
    }

    /// Tells clients in broadcast mode of changes below their prefixes. The keys' shards are still locked.
    pub fn broadcast(&self, changes: &[Change], by: Option<ClientId>) {
        if !self.is_used() {
            return;
        }
        let table = self.lock();
        if !table.prefixes.is_empty() {
            table.broadcast(changes, by);
        }
    }

    /// Keys that anybody has read, pairs of a key and a client that did, and prefixes.
    #[must_use]
    pub fn counts(&self) -> (usize, usize, usize) {
        let table = self.lock();
        (table.keys.len(), table.items, table.prefixes.len())
    }
}

/// Who made a change. What the store does on its own is nobody's, whatever command was under way.
fn author(change: &Change, by: Option<ClientId>) -> Option<ClientId> {
    match change.cause {
        Cause::Created | Cause::Written | Cause::Deleted => by,
        _ => None,
    }
}

impl Table {
    /// Tells clients in broadcast mode of what has changed below their prefixes: one message for each prefix.
    fn broadcast(&self, changes: &[Change], by: Option<ClientId>) {
        // The last change of a key says who made it.
        let mut changed: BTreeMap<&[u8], Option<ClientId>> = BTreeMap::new();
        for change in changes {
            if !matches!(change.cause, Cause::Flushed | Cause::Swapped) {
                changed.insert(&change.key, author(change, by));
            }
        }
        if changed.is_empty() {
            return;
        }
        for (prefix, clients) in &self.prefixes {
            let below = || {
                changed
                    .range::<[u8], _>((Bound::Included(&**prefix), Bound::Unbounded))
                    .take_while(|(key, _)| key.starts_with(prefix))
            };
            if below().next().is_none() {
                continue;
            }
            let mut content = Vec::new();
            let keys: Vec<&[u8]> = below().map(|(key, _)| *key).collect();
            write_keys(&mut content, &keys);
            for client in clients {
                let Some(tracker) = self.trackers.get(client) else { continue };
                if !tracker.is_no_loop || by != Some(*client) {
                    tracker.send(&content);
                    continue;
                }
                let others = below().filter(|(_, author)| **author != Some(*client));
                let keys: Vec<&[u8]> = others.map(|(key, _)| *key).collect();
                if !keys.is_empty() {
                    let mut content = Vec::new();
                    write_keys(&mut content, &keys);
                    tracker.send(&content);
                }
            }
        }
    }
}

fn write_keys(content: &mut Vec<u8>, keys: &[&[u8]]) {
    let mut reply = Reply::new(content, Protocol::Resp3);
    reply.array(keys.len());
    for key in keys {
        reply.bulk(key);
    }
}

impl Tracker {
    /// Sends an invalidation: a push in RESP3, a message of the channel in RESP2 to one who subscribes.
    fn send(&self, content: &[u8]) {
        let target = match &self.redirect {
            None => &self.client,
            Some(target) if !target.is(Mark::LEAVING) => target,
            Some(target) => {
                self.client.mark(Mark::BROKEN_REDIRECT, true);
                if self.client.protocol() == Protocol::Resp3 {
                    let mut message = Vec::new();
                    let mut reply = Reply::new(&mut message, Protocol::Resp3);
                    reply.push(2);
                    reply.bulk(b"tracking-redir-broken");
                    reply.integer(i64::try_from(target.id.0).unwrap_or(i64::MAX));
                    self.client.outbox.put(&message);
                }
                return;
            }
        };
        let mut message = Vec::new();
        let mut reply = Reply::new(&mut message, target.protocol());
        match target.protocol() {
            Protocol::Resp3 => {
                reply.push(2);
                reply.bulk(b"invalidate");
            }
            Protocol::Resp2 if self.redirect.is_some() && target.subscriptions() > 0 => {
                reply.push(3);
                reply.bulk(b"message");
                reply.bulk(INVALIDATION_CHANNEL);
            }
            // A client of RESP2 cannot tell a message from a reply.
            Protocol::Resp2 => return,
        }
        reply.raw(content);
        target.outbox.put(&message);
    }
}

#[cfg(test)]
mod tests;
