//! Channels, patterns, and keyspace notifications.
//!
//! A message is encoded once, whatever the number of subscribers and their protocols: the two differ in its first byte alone. It is put
//! into the outbox of each subscriber, so that a publisher never waits for anybody. A client that publishes to itself finds the
//! message behind the reply to `PUBLISH`.
//!
//! Publishing reads the registry and subscribing writes it; both hold its lock. So once `SUBSCRIBE` has answered no message is missed,
//! and once `UNSUBSCRIBE` has answered none arrives.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use crate::clients::Client;
use crate::engine::Engine;
use crate::glob;
use crate::resp::{Protocol, Reply};
use crate::store::{Cause, Change};
use crate::types::{ClientId, Database};

/// What a subscription costs beyond the bytes of its name, for the limit of memory.
const SUBSCRIPTION_COST: usize = 160;

/// The three kinds of subscriptions. Their names do not clash.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// To a channel (`SUBSCRIBE`).
    Channel,
    /// To all channels that fit a pattern (`PSUBSCRIBE`).
    Pattern,
    /// To a channel that belongs to the slot of its name (`SSUBSCRIBE`).
    Shard,
}

impl Scope {
    /// What the message about a new subscription begins with.
    #[must_use]
    pub fn subscribed(self) -> &'static str {
        match self {
            Self::Channel => "subscribe",
            Self::Pattern => "psubscribe",
            Self::Shard => "ssubscribe",
        }
    }

    /// What the message about an ended subscription begins with.
    #[must_use]
    pub fn unsubscribed(self) -> &'static str {
        match self {
            Self::Channel => "unsubscribe",
            Self::Pattern => "punsubscribe",
            Self::Shard => "sunsubscribe",
        }
    }
}

type Names = BTreeMap<Box<[u8]>, BTreeMap<ClientId, Arc<Client>>>;

#[derive(Debug, Default)]
struct Registry {
    channels: Names,
    patterns: Names,
    shard_channels: Names,
}

impl Registry {
    fn names(&self, scope: Scope) -> &Names {
        match scope {
            Scope::Channel => &self.channels,
            Scope::Pattern => &self.patterns,
            Scope::Shard => &self.shard_channels,
        }
    }

    fn names_mut(&mut self, scope: Scope) -> &mut Names {
        match scope {
            Scope::Channel => &mut self.channels,
            Scope::Pattern => &mut self.patterns,
            Scope::Shard => &mut self.shard_channels,
        }
    }
}

/// What one session subscribes to.
#[derive(Debug, Default)]
pub struct Subscriptions {
    channels: BTreeSet<Box<[u8]>>,
    patterns: BTreeSet<Box<[u8]>>,
    shard_channels: BTreeSet<Box<[u8]>>,
}

impl Subscriptions {
    fn of(&mut self, scope: Scope) -> &mut BTreeSet<Box<[u8]>> {
        match scope {
            Scope::Channel => &mut self.channels,
            Scope::Pattern => &mut self.patterns,
            Scope::Shard => &mut self.shard_channels,
        }
    }

    /// The names of one kind, in order.
    pub(crate) fn names(&mut self, scope: Scope) -> Vec<Box<[u8]>> {
        self.of(scope).iter().cloned().collect()
    }

    /// The number that messages about subscriptions of this kind tell: those to channels and patterns are counted together.
    #[must_use]
    pub fn count(&self, scope: Scope) -> usize {
        match scope {
            Scope::Channel | Scope::Pattern => self.channels.len() + self.patterns.len(),
            Scope::Shard => self.shard_channels.len(),
        }
    }

    fn tell(&self, client: &Client) {
        client.set_subscriptions(
            self.channels.len(),
            self.patterns.len(),
            self.shard_channels.len(),
        );
    }
}

/// The classes of keyspace notifications that are wanted (`notify-keyspace-events`), as a set of its letters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Classes(u32);

impl Classes {
    const KEYSPACE: Self = Self::of(b'K');
    const KEYEVENT: Self = Self::of(b'E');

    /// The class of one letter; letters that are none have no class.
    const fn of(letter: u8) -> Self {
        Self(match letter {
            b'K' => 1,
            b'E' => 1 << 1,
            b'g' => 1 << 2,
            b'$' => 1 << 3,
            b'l' => 1 << 4,
            b's' => 1 << 5,
            b'h' => 1 << 6,
            b'z' => 1 << 7,
            b'x' => 1 << 8,
            b'e' => 1 << 9,
            b't' => 1 << 10,
            b'd' => 1 << 11,
            b'm' => 1 << 12,
            b'n' => 1 << 13,
            // All but misses and new keys.
            b'A' => 0b1111_1111_1100,
            _ => 0,
        })
    }

    /// The classes of a text that holds nothing but letters of classes.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        Self(text.bytes().fold(0, |bits, letter| bits | Self::of(letter).0))
    }

    const fn has(self, class: Self) -> bool {
        self.0 & class.0 != 0
    }
}

/// Who subscribes to what.
#[derive(Debug, Default)]
pub struct Channels {
    registry: RwLock<Registry>,
    /// Subscriptions of all kinds: read without the lock.
    subscriptions: AtomicUsize,
    classes: AtomicU32,
}

impl Channels {
    fn read(&self) -> RwLockReadGuard<'_, Registry> {
        self.registry.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Registry> {
        self.registry.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Subscribes `client`, whose subscriptions are `own`. False if it had subscribed already.
    pub(crate) fn subscribe(
        &self,
        engine: &Engine,
        client: &Arc<Client>,
        own: &mut Subscriptions,
        scope: Scope,
        name: &[u8],
    ) -> bool {
        if !own.of(scope).insert(name.into()) {
            return false;
        }
        let mut registry = self.write();
        let subscribers = registry.names_mut(scope).entry(name.into()).or_default();
        subscribers.insert(client.id, Arc::clone(client));
        self.subscriptions.fetch_add(1, Ordering::AcqRel);
        own.tell(client);
        engine.store.charge_buffers(cost(name));
        true
    }

    /// Ends a subscription of `client`. False if there was none.
    pub(crate) fn unsubscribe(
        &self,
        engine: &Engine,
        client: &Client,
        own: &mut Subscriptions,
        scope: Scope,
        name: &[u8],
    ) -> bool {
        if !own.of(scope).remove(name) {
            return false;
        }
        let mut registry = self.write();
        let names = registry.names_mut(scope);
        if let Some(subscribers) = names.get_mut(name) {
            subscribers.remove(&client.id);
            if subscribers.is_empty() {
                names.remove(name);
            }
        }
        self.subscriptions.fetch_sub(1, Ordering::AcqRel);
        own.tell(client);
        engine.store.charge_buffers(-cost(name));
        true
    }

    /// Ends all subscriptions of `client`.
    pub(crate) fn forget(&self, engine: &Engine, client: &Client, own: &mut Subscriptions) {
        for scope in [Scope::Channel, Scope::Pattern, Scope::Shard] {
            for name in own.names(scope) {
                self.unsubscribe(engine, client, own, scope, &name);
            }
        }
    }

    /// Sends a message to all who subscribe to `channel`, in the sense of `scope`, and to those whose pattern it fits (unless it belongs
    /// to a shard). Returns how many times it was sent.
    pub fn publish(&self, scope: Scope, channel: &[u8], message: &[u8]) -> usize {
        if self.subscriptions.load(Ordering::Acquire) == 0 {
            return 0;
        }
        let registry = self.read();
        let kind = if scope == Scope::Shard { "smessage" } else { "message" };
        let mut sent = 0;
        if let Some(subscribers) = registry.names(scope).get(channel) {
            sent += send(subscribers, &[kind.as_bytes(), channel, message]);
        }
        if scope == Scope::Channel {
            for (pattern, subscribers) in &registry.patterns {
                if glob::matches(pattern, channel) {
                    sent += send(subscribers, &[b"pmessage", pattern, channel, message]);
                }
            }
        }
        sent
    }

    /// Names that somebody subscribes to and that fit `pattern`, if there is one.
    #[must_use]
    pub fn names(&self, scope: Scope, pattern: Option<&[u8]>) -> Vec<Box<[u8]>> {
        let registry = self.read();
        let names = registry.names(scope).keys();
        names.filter(|name| pattern.is_none_or(|it| glob::matches(it, name))).cloned().collect()
    }

    /// How many clients subscribe to `name`.
    #[must_use]
    pub fn subscribers(&self, scope: Scope, name: &[u8]) -> usize {
        self.read().names(scope).get(name).map_or(0, BTreeMap::len)
    }

    /// Channels, patterns and sharded channels that anybody subscribes to.
    #[must_use]
    pub fn counts(&self) -> (usize, usize, usize) {
        let registry = self.read();
        (registry.channels.len(), registry.patterns.len(), registry.shard_channels.len())
    }

    /// The channels that a client subscribes to, and its patterns, each with whether it is a pattern. `ACL SETUSER` disconnects those
    /// who listen to more than they may. Looks at all names that anybody subscribes to.
    #[must_use]
    pub fn of(&self, client: ClientId) -> Vec<(Vec<u8>, bool)> {
        let registry = self.read();
        let mut names = Vec::new();
        for (of_kind, is_pattern) in [
            (&registry.channels, false),
            (&registry.patterns, true),
            (&registry.shard_channels, false),
        ] {
            let own = of_kind.iter().filter(|(_, subscribers)| subscribers.contains_key(&client));
            names.extend(own.map(|(name, _)| (name.to_vec(), is_pattern)));
        }
        names
    }

    /// Sets which events are told, in the letters that `CONFIG GET notify-keyspace-events` shows.
    pub fn set_events(&self, classes: &str) {
        self.classes.store(Classes::parse(classes).0, Ordering::Release);
    }

    fn classes(&self) -> Classes {
        Classes(self.classes.load(Ordering::Relaxed))
    }

    /// Whether notifications of class `letter` are wanted.
    #[must_use]
    pub fn wants(&self, letter: u8) -> bool {
        self.classes().has(Classes::of(letter))
    }

    /// A keyspace notification.
    pub fn notify(&self, class: u8, event: &str, database: Database, key: &[u8]) {
        let classes = self.classes();
        if !classes.has(Classes::of(class)) {
            return;
        }
        if classes.has(Classes::KEYSPACE) {
            let mut channel = format!("__keyspace@{}__:", database.0).into_bytes();
            channel.extend_from_slice(key);
            self.publish(Scope::Channel, &channel, event.as_bytes());
        }
        if classes.has(Classes::KEYEVENT) {
            let channel = format!("__keyevent@{}__:{event}", database.0);
            self.publish(Scope::Channel, channel.as_bytes(), key);
        }
    }

    /// Notifications that follow from what no command says: a deadline passed, the limit was reached, a key is new.
    pub fn note(&self, changes: &[Change]) {
        if !self.wants_changes() {
            return;
        }
        for change in changes {
            let tell = |class, event| self.notify(class, event, change.database, &change.key);
            match change.cause {
                Cause::Expired => tell(b'x', "expired"),
                Cause::Evicted => tell(b'e', "evicted"),
                Cause::Created => tell(b'n', "new"),
                Cause::PartsExpired => tell(b'h', "hexpired"),
                Cause::LastPartExpired => {
                    tell(b'h', "hexpired");
                    tell(b'g', "del");
                }
                // Commands tell what they do themselves, and a whole database has no event.
                _ => {}
            }
        }
    }

    /// Whether notifications of what the store does on its own are on.
    pub fn wants_changes(&self) -> bool {
        let classes = self.classes();
        (classes.has(Classes::KEYSPACE) || classes.has(Classes::KEYEVENT))
            && classes.has(Classes::parse("xenhg"))
    }
}

fn cost(name: &[u8]) -> i64 {
    // The name is kept twice: by the client, and in the registry.
    i64::try_from(SUBSCRIPTION_COST + 2 * name.len()).unwrap_or(i64::MAX)
}

/// Puts a message into the outboxes of all subscribers.
fn send(subscribers: &BTreeMap<ClientId, Arc<Client>>, parts: &[&[u8]]) -> usize {
    let mut resp3 = Vec::new();
    let mut reply = Reply::new(&mut resp3, Protocol::Resp3);
    reply.push(parts.len());
    for part in parts {
        reply.bulk(part);
    }
    let mut resp2 = Vec::new();
    for client in subscribers.values() {
        match client.protocol() {
            Protocol::Resp3 => client.outbox.put(&resp3),
            Protocol::Resp2 => {
                if resp2.is_empty() {
                    resp2.clone_from(&resp3);
                    // A push is an array of another type.
                    resp2[0] = b'*';
                }
                client.outbox.put(&resp2);
            }
        }
    }
    subscribers.len()
}

#[cfg(test)]
mod tests;
