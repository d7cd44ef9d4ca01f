//! Clients that wait until a key holds something to pop.
//!
//! A blocking command first tries (its [`Attempt`]). If nothing is there it registers a `Waiter` while the shards of its keys are
//! still locked, so that no push can slip in between, and the session sleeps. Whoever later changes a key that somebody waits
//! for runs the oldest waiter's attempt on the spot, under the same locks, and puts the reply into that client's outbox:
//! first come, first served, key by key. What an attempt changes (`BLMOVE` pushes) is looked at in turn by
//! [`Engine::settle`], so chains of moves run to their end before anybody else gets a lock.
//!
//! A wait ends once. It ends by whoever takes the waiter out of the registry: the one who serves it, the client itself when its
//! time is over, `CLIENT UNBLOCK`, or the end of the connection. A waiter that is being served is marked first and taken out
//! together with putting the reply into the outbox; so a client that no longer finds itself here has its answer.
//!
//! Nothing is popped for a client that is known to leave: one that was killed, closes, or does not read is passed over, whether or not its
//! connection has noticed. One that goes while it is being served was served first and has gone then, as if its connection had broken
//! on the way: the reply is lost with it, as in Redis.
//!
//! Serving needs the shards of all keys that an attempt may touch. A session locks all of them for a command that may wake
//! somebody ([`Flags::WAKES`]) while anybody waits, and looks again once it holds the locks.
//!
//! [`Flags::WAKES`]: crate::command::Flags::WAKES

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::clients::{Client, Mark};
use crate::command::{Context, Failure};
use crate::engine::Engine;
use crate::resp::{Protocol, Reply};
use crate::session::Next;
use crate::store::{Cause, Change, Charge, Keyspace};
use crate::types::{ClientId, Database};
use crate::value::Kind;

/// Tries to do what a blocking command is for. True if it replied; false if there was nothing and nothing was changed. It always
/// replies, if only with an error, while one of its keys holds the wanted kind of value.
pub type Attempt = fn(
    &Engine,
    &mut Keyspace<'_>,
    Database,
    arguments: &[&[u8]],
    &mut Reply<'_>,
) -> Result<bool, Failure>;

/// Tries, and makes the client wait if there is nothing: the body of every blocking command. `keys` are those waited for, `wanted`
/// is the kind of value that serves, `timeout` is its argument. Within `MULTI` the time is over at once, and the reply is
/// what `nothing` writes. After a wait in vain it is that too for strings; for the others Redis answers a null array, also where the
/// command would have answered one element (`BLMOVE`).
///
/// # Errors
/// Those of the attempt, and a timeout that is none.
pub fn attempt_or_wait(
    context: &mut Context<'_, '_>,
    arguments: &[&[u8]],
    keys: &[&[u8]],
    wanted: Kind,
    timeout: &[u8],
    attempt: Attempt,
    nothing: fn(&mut Reply<'_>),
) -> Result<(), Failure> {
    let timeout_us = parse_timeout(timeout)?;
    let (engine, database) = (context.engine, context.session.database);
    if attempt(engine, context.keys, database, arguments, &mut context.reply)? {
        return Ok(());
    }
    if !context.session.may_wait {
        nothing(&mut context.reply);
        return Ok(());
    }
    let deadline_us = timeout_us.map(|us| context.now.monotonic_us.saturating_add(us));
    let waiter = Waiter {
        client: Arc::clone(&context.session.client),
        protocol: context.reply.protocol(),
        database,
        arguments: arguments.iter().map(|argument| Box::from(*argument)).collect(),
        keys: keys.iter().map(|key| Box::from(*key)).collect(),
        wanted,
        attempt,
        nothing: if wanted == Kind::String { nothing } else { |reply| reply.null_array() },
        deadline_us,
        ticket: 0,
        being_served: false,
    };
    // Whoever takes things away must be able to wait when memory is full. But not with much in hand.
    let cost = waiter.cost();
    if cost > COST_GRANTED && engine.store.excess(cost) > 0 {
        return Err(Failure::out_of_memory());
    }
    engine.waiters.register(waiter);
    engine.review_observation();
    context.session.next = Next::Wait(deadline_us);
    Ok(())
}

/// A timeout in seconds, with a fraction, as microseconds; None for 0, which means for ever. Rounded up to whole milliseconds.
fn parse_timeout(text: &[u8]) -> Result<Option<u64>, Failure> {
    let seconds = crate::resp::parse_double(text)
        .ok_or(Failure::Text("ERR timeout is not a float or out of range".into()))?;
    let millis = (seconds * 1000.0).ceil();
    if millis < 0.0 {
        return Err(Failure::Text("ERR timeout is negative".into()));
    }
    // The last moment that a 64-bit count of milliseconds can name, less the present: about 292 million years.
    if millis >= 9.223_370e18 {
        return Err(Failure::Text("ERR timeout is out of range".into()));
    }
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "between 0 and 2^63, and whole"
    )]
    let millis = millis as u64;
    Ok((millis > 0).then(|| millis.saturating_mul(1000)))
}

/// What a waiter and its place in one queue occupy beside bytes, roughly.
const WAITER_COST: usize = 256;
const QUEUE_COST: usize = 192;
const ARGUMENT_COST: usize = 24;

/// What a waiter may occupy however little memory there is, in bytes.
const COST_GRANTED: usize = 16 << 10;

/// A client that waits.
struct Waiter {
    client: Arc<Client>,
    protocol: Protocol,
    database: Database,
    arguments: Box<[Box<[u8]>]>,
    keys: Box<[Box<[u8]>]>,
    wanted: Kind,
    attempt: Attempt,
    /// Writes the reply when the time is over.
    nothing: fn(&mut Reply<'_>),
    deadline_us: Option<u64>,
    /// Its place in every queue: the lower, the older.
    ticket: u64,
    /// Whether somebody is about to put the answer into the outbox.
    being_served: bool,
}

impl Waiter {
    /// What it occupies, in bytes, roughly: each key is there twice, here and as the name of a queue.
    fn cost(&self) -> usize {
        let arguments = self.arguments.iter().map(|it| it.len() + ARGUMENT_COST);
        let keys = self.keys.iter().map(|key| 2 * key.len() + QUEUE_COST);
        WAITER_COST + arguments.chain(keys).sum::<usize>()
    }
}

impl fmt::Debug for Waiter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Waiter")
            .field("client", &self.client.id)
            .field("keys", &self.keys)
            .field("deadline_us", &self.deadline_us)
            .finish_non_exhaustive()
    }
}

/// Those who wait for one key, oldest first.
type Queue = BTreeMap<u64, ClientId>;

#[derive(Debug, Default)]
struct Registry {
    waiters: BTreeMap<ClientId, Waiter>,
    queues: BTreeMap<Database, BTreeMap<Box<[u8]>, Queue>>,
    last_ticket: u64,
    /// What all of them occupy.
    charge: Charge,
}

/// What has become of a wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It goes on, until this moment on the monotonic clock (microseconds; None: until it is answered).
    Waits(Option<u64>),
    /// It has ended, if only with this call because its time was over: what was owed is in the outbox.
    Answered,
}

/// Who waits for what.
#[derive(Debug, Default)]
pub struct Waiters {
    registry: Mutex<Registry>,
    /// How many wait: read without the registry's lock, written under it.
    count: AtomicUsize,
}

impl Waiters {
    /// Nobody. What those who will wait occupy is told to `charge`.
    #[must_use]
    pub fn new(charge: Charge) -> Self {
        let registry = Registry { charge, ..Registry::default() };
        Self { registry: Mutex::new(registry), count: AtomicUsize::new(0) }
    }

    /// Serves those who wait for what has changed, oldest first. All shards are locked if anybody waits for any of it. Who then still
    /// waits for a string that somebody was to load waits in vain, as every change ends a lease.
    pub fn note(&self, engine: &Engine, keys: &mut Keyspace<'_>, changes: &[Change]) {
        for change in changes {
            if !self.is_used() {
                return;
            }
            match change.cause {
                Cause::Created | Cause::Written => {
                    self.serve(engine, keys, change.database, &change.key);
                    self.ask_again(change.database, &change.key);
                }
                Cause::Deleted => self.ask_again(change.database, &change.key),
                // Other values stand under the database's keys, or none.
                Cause::Swapped | Cause::Flushed => {
                    self.serve_all(engine, keys, change.database);
                }
                // What goes by itself ends no lease, and gives nobody anything.
                Cause::Expired | Cause::Evicted | Cause::PartsExpired | Cause::LastPartExpired => {}
            }
        }
    }

    /// Whether anybody waits.
    pub fn is_used(&self) -> bool {
        !self.is_empty()
    }

    /// How many wait (`blocked_clients`).
    pub fn len(&self) -> usize {
        self.count.load(Ordering::Relaxed)
    }

    /// Whether nobody waits.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether this client waits.
    pub fn is_waiting(&self, client: ClientId) -> bool {
        self.lock().waiters.contains_key(&client)
    }

    /// How many keys are waited for (`total_blocking_keys`).
    pub fn keys_len(&self) -> usize {
        self.lock().queues.values().map(BTreeMap::len).sum()
    }

    /// Ends a client's wait from outside (`CLIENT UNBLOCK`): as if its time were over, or with an error. The name of the command that
    /// waited; None if none did.
    pub fn unblock(&self, client: ClientId, error: bool) -> Option<Box<[u8]>> {
        let mut registry = self.lock();
        if registry.waiters.get(&client).is_none_or(|waiter| waiter.being_served) {
            return None;
        }
        let waiter = registry.remove(client)?;
        self.recount(&registry);
        let mut answer = Vec::new();
        let mut reply = Reply::new(&mut answer, waiter.protocol);
        if error {
            reply.error("UNBLOCKED client unblocked via CLIENT UNBLOCK");
        } else {
            (waiter.nothing)(&mut reply);
        }
        waiter.client.outbox.answer(&answer);
        waiter.arguments.into_iter().next()
    }

    /// Ends the wait of everybody who waits for a value of kind `wanted` under `key`, with what `answer` writes: for news that is no
    /// change of the key (`SETWITHLEASE … NEGATIVE`).
    pub fn answer_all(
        &self,
        database: Database,
        key: &[u8],
        wanted: Kind,
        answer: impl Fn(&mut Reply<'_>),
    ) {
        self.end_all(database, key, wanted, |_, reply| answer(reply));
    }

    /// Ends the wait of everybody who waits for somebody to load `key`, as if their time were over: the lease is void.
    pub(crate) fn ask_again(&self, database: Database, key: &[u8]) {
        self.end_all(database, key, Kind::String, |waiter, reply| (waiter.nothing)(reply));
    }

    fn end_all(
        &self,
        database: Database,
        key: &[u8],
        wanted: Kind,
        answer: impl Fn(&Waiter, &mut Reply<'_>),
    ) {
        if !self.is_used() {
            return;
        }
        let mut registry = self.lock();
        let queue = registry.queues.get(&database).and_then(|queues| queues.get(key));
        let clients: Vec<ClientId> =
            queue.into_iter().flat_map(|it| it.values().copied()).collect();
        for client in clients {
            let waits = |waiter: &Waiter| waiter.wanted == wanted && !waiter.being_served;
            if registry.waiters.get(&client).is_some_and(waits)
                && let Some(waiter) = registry.remove(client)
            {
                let mut bytes = Vec::new();
                answer(&waiter, &mut Reply::new(&mut bytes, waiter.protocol));
                waiter.client.outbox.answer(&bytes);
            }
        }
        self.recount(&registry);
    }

    /// Forgets a client whose connection has ended.
    pub fn forget(&self, client: ClientId) {
        if self.is_used() {
            let mut registry = self.lock();
            registry.remove(client);
            self.recount(&registry);
        }
    }

    /// What has become of a client's wait at `now_us` on the monotonic clock. Ends it if its time is over.
    pub fn standing(&self, client: ClientId, now_us: u64) -> Standing {
        let mut registry = self.lock();
        let Some(waiter) = registry.waiters.get(&client) else { return Standing::Answered };
        if waiter.being_served {
            return Standing::Waits(None);
        }
        if waiter.deadline_us.is_none_or(|deadline| deadline > now_us) {
            return Standing::Waits(waiter.deadline_us);
        }
        if let Some(waiter) = registry.remove(client) {
            self.recount(&registry);
            let mut answer = Vec::new();
            (waiter.nothing)(&mut Reply::new(&mut answer, waiter.protocol));
            waiter.client.outbox.answer(&answer);
        }
        Standing::Answered
    }

    fn register(&self, waiter: Waiter) {
        let mut registry = self.lock();
        registry.add(waiter);
        self.recount(&registry);
    }

    /// Serves those who wait for `key`, as long as it holds what they want.
    fn serve(&self, engine: &Engine, keys: &mut Keyspace<'_>, database: Database, key: &[u8]) {
        while let Some(kind) = keys.kind(&engine.store.key(database, key)) {
            let Some(order) = self.lock().choose(database, key, kind) else { return };
            let arguments: Vec<&[u8]> = order.arguments.iter().map(|it| &**it).collect();
            let mut answer = Vec::new();
            let mut reply = Reply::new(&mut answer, order.protocol);
            match (order.attempt)(engine, keys, database, &arguments, &mut reply) {
                #[cfg(feature = "sim")]
                Ok(true)
                    if engine.store.bug()
                        == Some(crate::sim::PlantedBug::BlockedClientServedTwice) =>
                {
                    let mut again = reply.reborrow();
                    let _ = (order.attempt)(engine, keys, database, &arguments, &mut again);
                }
                Ok(true) => {}
                Ok(false) => {
                    debug_assert!(false, "a key of the wanted kind had nothing to give");
                    reply.truncate(0);
                    (order.nothing)(&mut reply);
                }
                Err(failure) => {
                    reply.truncate(0);
                    reply.error(failure);
                }
            }
            let mut registry = self.lock();
            // Missing if the connection has ended meanwhile.
            if let Some(waiter) = registry.remove(order.client) {
                self.recount(&registry);
                waiter.client.outbox.answer(&answer);
            }
        }
    }

    /// As after a change of each key of `database` that is waited for.
    fn serve_all(&self, engine: &Engine, keys: &mut Keyspace<'_>, database: Database) {
        let waited: Vec<Box<[u8]>> = match self.lock().queues.get(&database) {
            Some(queues) => queues.keys().cloned().collect(),
            None => return,
        };
        for key in waited {
            self.serve(engine, keys, database, &key);
            self.ask_again(database, &key);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Registry> {
        self.registry.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn recount(&self, registry: &Registry) {
        self.count.store(registry.waiters.len(), Ordering::Relaxed);
    }
}

/// What is needed to serve a waiter without holding the registry.
struct Order {
    client: ClientId,
    protocol: Protocol,
    arguments: Box<[Box<[u8]>]>,
    attempt: Attempt,
    nothing: fn(&mut Reply<'_>),
}

impl Registry {
    fn add(&mut self, mut waiter: Waiter) {
        self.last_ticket += 1;
        waiter.ticket = self.last_ticket;
        waiter.client.mark(Mark::BLOCKED, true);
        self.charge.add(waiter.cost());
        let queues = self.queues.entry(waiter.database).or_default();
        for key in &waiter.keys {
            queues.entry(key.clone()).or_default().insert(waiter.ticket, waiter.client.id);
        }
        let before = self.waiters.insert(waiter.client.id, waiter);
        assert!(before.is_none(), "a client that waits executes nothing");
    }

    fn remove(&mut self, client: ClientId) -> Option<Waiter> {
        let waiter = self.waiters.remove(&client)?;
        self.leave_queues(&waiter);
        waiter.client.mark(Mark::BLOCKED, false);
        self.charge.take(waiter.cost());
        Some(waiter)
    }

    fn leave_queues(&mut self, waiter: &Waiter) {
        let Some(queues) = self.queues.get_mut(&waiter.database) else { return };
        for key in &waiter.keys {
            if let Some(queue) = queues.get_mut(key) {
                queue.remove(&waiter.ticket);
                if queue.is_empty() {
                    queues.remove(key);
                }
            }
        }
        if queues.is_empty() {
            self.queues.remove(&waiter.database);
        }
    }

    /// Marks the oldest who waits for `key`, wants a value of this kind, and is there to receive it.
    fn choose(&mut self, database: Database, key: &[u8], kind: Kind) -> Option<Order> {
        let queue = self.queues.get(&database)?.get(key)?;
        let wants = |client: &ClientId| {
            let waiter = self.waiters.get(client);
            waiter.is_some_and(|waiter| {
                waiter.wanted == kind && !waiter.being_served && !waiter.client.is_leaving()
            })
        };
        let client = *queue.values().find(|client| wants(client))?;
        let waiter = self.waiters.get_mut(&client)?;
        waiter.being_served = true;
        Some(Order {
            client,
            protocol: waiter.protocol,
            arguments: waiter.arguments.clone(),
            attempt: waiter.attempt,
            nothing: waiter.nothing,
        })
    }
}

#[cfg(test)]
mod tests;
