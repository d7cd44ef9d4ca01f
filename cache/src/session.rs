//! One client's session: what a connection has chosen, and how a command of its is carried out.
//!
//! A session is a pure state machine. Frames go in with the time, replies come out; whatever others have for the client (messages,
//! invalidations, the end of a wait) gathers in its [`Outbox`], which is emptied between two replies and so never lands inside one.
//!
//! A command passes three gates. It is *admitted* if it exists, has a fitting number of arguments and is allowed, or else it is
//! refused, and breaks the transaction that is open. Then it is *queued*, if a transaction is open, or *held back*, if `CLIENT
//! PAUSE` says so. Otherwise it is *run*: with the shards of its keys locked, and what it changed is told to all who care before
//! they are released. `EXEC` locks the shards of all its commands once and runs them one after the other.

mod transaction;

use std::sync::Arc;

pub(crate) use self::transaction::watch_cost;
pub use self::transaction::{Queued, Transaction};
use crate::access::{Denied, LogContext, User};
use crate::blocking::Standing;
use crate::clients::{Client, Mark, Outbox, Pause};
use crate::command::secrets::without_secrets;
use crate::command::{Command, Context, Failure, Flags, Known, TABLE, shown};
use crate::engine::Engine;
use crate::pubsub::Subscriptions;
use crate::resp::{Protocol, Reply};
use crate::slot::Slot;
use crate::store::{Charge, Keyspace, ShardSet};
use crate::totals::{Counter, Outcome, Tally};
use crate::tracking::Choice;
use crate::types::{Database, Now};

/// What the connection does next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// Goes on with the next command.
    Continue,
    /// Executes nothing until the wait is over: calls [`Session::wait_is_over`] whenever the outbox wakes it, and at this moment on the
    /// monotonic clock (microseconds; None: never), which says whether it is.
    Wait(Option<u64>),
    /// Sends what there is, and closes.
    Close,
}

/// What a session waits for.
#[derive(Debug, Default)]
pub enum Waiting {
    /// For nothing, or for a key ([`crate::blocking`]).
    #[default]
    Nothing,
    /// For the end of `CLIENT PAUSE`, to carry out the command that was held back.
    Pause(Box<[Box<[u8]>]>, Charge),
    /// For a moment on the monotonic clock, in microseconds, to answer `OK`.
    Moment(u64),
}

/// Which replies the client wants (`CLIENT REPLY`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Replies {
    /// All.
    #[default]
    On,
    /// None.
    Off,
    /// All but that to the next command.
    SkipNext,
    /// All but that to the command under way.
    SkipThis,
}

/// One client's session.
#[derive(Debug)]
pub struct Session {
    /// What others may know and touch: number, name, outbox, whether it is to be killed.
    pub client: Arc<Client>,
    /// `SELECT`: [`Session::select`] sets it.
    pub database: Database,
    /// `HELLO`: [`Session::set_protocol`] sets it.
    pub protocol: Protocol,
    /// Who it is, and whether it has proved that, or need not: [`Session::become_user`] sets both.
    pub user: Arc<User>,
    /// See `user`.
    pub authenticated: bool,
    /// What happens after the command under way.
    pub next: Next,
    /// Whether a command may make it wait: not within `EXEC`, where blocking commands answer at once.
    pub may_wait: bool,
    /// What it waits for.
    pub waiting: Waiting,
    /// Where its commands are counted.
    pub tally: Arc<Tally>,
    /// `MULTI` and `WATCH`.
    pub transaction: Transaction,
    /// `CLIENT REPLY`.
    pub replies: Replies,
    /// `SUBSCRIBE` and its like.
    pub subscriptions: Subscriptions,
    /// `CLIENT TRACKING`.
    pub tracking: Choice,
}

impl Session {
    /// A session that has just begun.
    #[must_use]
    pub fn new(engine: &Engine, client: Arc<Client>, tally: Arc<Tally>) -> Self {
        client.charge_labels(engine.store.charge());
        Self {
            user: Arc::clone(engine.access.default_user()),
            client,
            database: Database::default(),
            protocol: Protocol::default(),
            authenticated: engine.access.is_open(),
            next: Next::Continue,
            may_wait: true,
            waiting: Waiting::default(),
            tally,
            transaction: Transaction::default(),
            replies: Replies::default(),
            subscriptions: Subscriptions::default(),
            tracking: Choice::default(),
        }
    }

    /// Ends the session: nobody sends it anything any more, and nothing of it is left. To be called once, when the connection closes.
    pub fn end(&mut self, engine: &Engine) {
        // First of all: from now on nothing is taken from a key for it.
        self.client.mark(Mark::GONE, true);
        engine.waiters.forget(self.client.id);
        self.forget_choices(engine);
        engine.clients.disconnect(&self.client);
    }

    /// As if it had just connected (`RESET`), but for the replies it wants.
    pub(crate) fn forget_choices(&mut self, engine: &Engine) {
        self.discard(engine);
        engine.monitors.remove(&self.client);
        engine.tracking.disable(&self.client, &mut self.tracking);
        engine.channels.forget(engine, &self.client, &mut self.subscriptions);
        engine.review_observation();
        self.select(Database::default());
        self.set_protocol(Protocol::default());
        self.client.edit_labels(|labels| labels.name.clear());
        self.become_user(Arc::clone(engine.access.default_user()), engine.access.is_open());
    }

    /// Acts as `user` from now on.
    pub fn become_user(&mut self, user: Arc<User>, authenticated: bool) {
        self.client.edit_labels(|labels| labels.user = user.name().to_vec());
        self.user = user;
        self.authenticated = authenticated;
    }

    /// What others have for the client.
    #[must_use]
    pub fn outbox(&self) -> &Outbox {
        &self.client.outbox
    }

    /// Works in `database` from now on.
    pub fn select(&mut self, database: Database) {
        self.database = database;
        self.client.set_database(database);
    }

    /// Speaks `protocol` from now on. The reply under way changes by itself.
    pub fn set_protocol(&mut self, protocol: Protocol) {
        self.protocol = protocol;
        self.client.set_protocol(protocol);
    }

    /// Whether it subscribes to anything, so that a client of RESP2 may do little else.
    #[must_use]
    pub fn is_subscribed(&self) -> bool {
        self.client.subscriptions() > 0
    }

    /// Whether the reply to the command under way is not wanted.
    #[must_use]
    pub fn is_muted(&self) -> bool {
        matches!(self.replies, Replies::Off | Replies::SkipThis)
    }

    /// Carries one command out and appends its reply to `out`. `arguments` has the name first and is not empty. Returns what the
    /// connection does next, and the time at which the command was finished.
    pub fn execute(
        &mut self,
        engine: &Engine,
        arguments: &[&[u8]],
        now: Now,
        out: &mut Vec<u8>,
    ) -> (Next, Now) {
        self.next = Next::Continue;
        self.client.note_activity(now);
        let mut finished = now;
        let admitted = self.admit(engine, arguments, now);
        // What others sent before the command began comes before its reply: invalidations of keys that had to make room for it, say.
        self.outbox().drain_into(out);
        let from = out.len();
        let result = match admitted {
            Ok(known) => self.carry_out(engine, known, arguments, now, out, &mut finished),
            Err(failure) => Err(failure),
        };
        if let Err(failure) = result {
            out.truncate(from);
            self.tally.add(Counter::Errors, 1);
            engine.totals.note_error(&failure.to_string());
            Reply::new(out, self.protocol).error(failure);
        }
        if self.tracking.is_caching && !self.transaction.is_open {
            self.forget_caching(arguments);
        }
        if self.replies != Replies::On {
            self.mute(out, from);
        }
        self.outbox().drain_into(out);
        if self.client.is_doomed() {
            self.next = Next::Close;
        }
        (self.next, finished)
    }

    /// `CLIENT CACHING` is about one command, or one transaction.
    #[cold]
    fn forget_caching(&mut self, arguments: &[&[u8]]) {
        self.tracking.is_caching = arguments[0].eq_ignore_ascii_case(b"client");
    }

    #[cold]
    fn mute(&mut self, out: &mut Vec<u8>, from: usize) {
        if self.is_muted() {
            out.truncate(from);
        }
        self.replies = match self.replies {
            Replies::SkipThis => Replies::On,
            Replies::SkipNext => Replies::SkipThis,
            stays @ (Replies::On | Replies::Off) => stays,
        };
    }

    /// Goes on after [`Next::Wait`]: to be called whenever the client was woken, or its moment has come. May find that there is still
    /// to wait.
    pub fn wait_is_over(&mut self, engine: &Engine, now: Now, out: &mut Vec<u8>) -> (Next, Now) {
        self.next = Next::Continue;
        match std::mem::take(&mut self.waiting) {
            Waiting::Nothing => {
                match engine.waiters.standing(self.client.id, now.monotonic_us) {
                    Standing::Waits(deadline_us) => self.next = Next::Wait(deadline_us),
                    Standing::Answered => {}
                }
                if self.next == Next::Continue && !engine.waiters.is_used() {
                    engine.review_observation();
                }
            }
            Waiting::Pause(arguments, _charge) => {
                self.client.mark(Mark::PAUSED, false);
                let arguments: Vec<&[u8]> = arguments.iter().map(|it| &**it).collect();
                if !self.client.is_doomed() {
                    return self.execute(engine, &arguments, now, out);
                }
            }
            Waiting::Moment(moment) => {
                if now.monotonic_us < moment {
                    self.waiting = Waiting::Moment(moment);
                    self.next = Next::Wait(Some(moment));
                } else {
                    Reply::new(out, self.protocol).ok();
                }
            }
        }
        self.outbox().drain_into(out);
        if self.client.is_doomed() {
            self.next = Next::Close;
        }
        (self.next, now)
    }

    fn carry_out(
        &mut self,
        engine: &Engine,
        known: &'static Known,
        arguments: &[&[u8]],
        now: Now,
        out: &mut Vec<u8>,
        finished: &mut Now,
    ) -> Result<(), Failure> {
        if engine.clients.is_paused() && self.hold_back(engine, known, arguments, now) {
            return Ok(());
        }
        if self.transaction.is_open && is_queued(known) {
            self.queue(engine, known, arguments);
            Reply::new(out, self.protocol).simple("QUEUED");
            return Ok(());
        }
        let mut keys = self.lock(engine, known.command, arguments, now);
        if self.client.is(Mark::NO_TOUCH) {
            keys.set_touches(false);
        }
        let reply = Reply::new(out, self.protocol);
        let result = self.run(engine, known, arguments, &mut keys, reply, now);
        engine.settle(&mut keys, Some(self.client.id));
        self.show_monitors(engine, known, arguments);
        drop(keys);
        *finished = engine.clock.now();
        self.account(engine, known, arguments, now, *finished, result.is_ok());
        result
    }

    /// Finds the command and sees whether it may be called now.
    fn admit(
        &mut self,
        engine: &Engine,
        arguments: &[&[u8]],
        now: Now,
    ) -> Result<&'static Known, Failure> {
        let known = resolve(arguments).map_err(|failure| {
            if let Failure::Arity(name) = failure
                && let Some(known) = crate::access::category::find_command(name.as_bytes())
            {
                self.tally.count(known.id, 0, Outcome::Rejected);
            }
            self.refuse(engine, arguments, failure)
        })?;
        if let Err(failure) = self.check(engine, known, arguments, now) {
            self.tally.count(known.id, 0, Outcome::Rejected);
            return Err(self.refuse(engine, arguments, failure));
        }
        Ok(known)
    }

    /// Sees whether a command may be called now.
    fn check(
        &mut self,
        engine: &Engine,
        known: &'static Known,
        arguments: &[&[u8]],
        now: Now,
    ) -> Result<(), Failure> {
        let command = known.command;
        self.client.note_command(known.id);
        if !self.authenticated && !command.flags.has(Flags::NO_AUTH) {
            return Err(Failure::Text("NOAUTH Authentication required.".into()));
        }
        let transaction = &self.transaction;
        if transaction.is_open && command.flags.has(Flags::NO_MULTI) {
            return Err(Failure::err("Command not allowed inside a transaction"));
        }
        if let Err(denied) = engine.access.check(&self.user, known, arguments) {
            engine.access.note_denied(
                &engine.settings,
                &denied,
                if self.transaction.is_open { LogContext::Multi } else { LogContext::TopLevel },
                now,
                || self.describe(now),
            );
            self.tally.add(Counter::AccessDenied, 1);
            return Err(denied.into());
        }
        let executes = transaction.is_open && known.full_name == "exec";
        if engine.options.cluster {
            see_one_slot(command, arguments)?;
            if executes && transaction.crosses_slots {
                let failure = cross_slot();
                self.discard(engine);
                return Err(failure);
            }
        }
        let flags = if executes { command.flags.and(transaction.flags) } else { command.flags };
        let needs_memory = flags.has(Flags::DENYOOM) || (transaction.is_open && is_queued(known));
        if transaction.is_open && is_queued(known) && self.is_queue_full(engine, arguments) {
            return Err(Failure::err("the transaction is larger than client-query-buffer-limit"));
        }
        if needs_memory || flags.has(Flags::MAKES_ROOM) {
            let bytes: usize = arguments.iter().map(|argument| argument.len()).sum();
            if !engine.make_room(bytes, now) && needs_memory {
                return Err(Failure::out_of_memory());
            }
        }
        if self.protocol == Protocol::Resp2
            && self.is_subscribed()
            && !matches!(
                known.full_name,
                "ping"
                    | "subscribe"
                    | "unsubscribe"
                    | "psubscribe"
                    | "punsubscribe"
                    | "ssubscribe"
                    | "sunsubscribe"
                    | "quit"
                    | "reset"
            )
        {
            return Err(Failure::err(format_args!(
                "Can't execute '{}': only (P|S)SUBSCRIBE / (P|S)UNSUBSCRIBE / PING / QUIT / RESET \
                 are allowed in this context",
                known.full_name
            )));
        }
        Ok(())
    }

    /// What a command that was not admitted answers, and does to the transaction that is open.
    #[cold]
    fn refuse(&mut self, engine: &Engine, arguments: &[&[u8]], failure: Failure) -> Failure {
        let name = arguments[0];
        if name.eq_ignore_ascii_case(b"host:") || name.eq_ignore_ascii_case(b"post") {
            // A browser was made to speak to us: nothing that follows is meant as a command.
            self.next = Next::Close;
        }
        if !self.transaction.is_open {
            return failure;
        }
        self.transaction.is_broken = true;
        if name.eq_ignore_ascii_case(b"exec") { self.abort(engine, &failure) } else { failure }
    }

    /// Whether `CLIENT PAUSE` holds a command back; then it is kept for later.
    #[cold]
    fn hold_back(
        &mut self,
        engine: &Engine,
        known: &'static Known,
        arguments: &[&[u8]],
        now: Now,
    ) -> bool {
        let Some((pause, until_us)) = engine.clients.paused(now) else { return false };
        let executes = self.transaction.is_open && known.full_name == "exec";
        let of_queue = if executes { self.transaction.flags } else { Flags::default() };
        let flags = known.command.flags.and(of_queue);
        let writes = flags.has(Flags::WRITE) || flags.has(Flags::MAY_REPLICATE);
        if pause != Pause::All && !writes {
            return false;
        }
        // The mark comes before the wait, and an end of the pause wakes those who are marked: either we are woken, or we see it now.
        self.client.mark(Mark::PAUSED, true);
        if engine.clients.paused(now).is_none() {
            self.client.mark(Mark::PAUSED, false);
            return false;
        }
        let mut charge = engine.store.charge();
        charge.set(transaction::cost(arguments));
        self.waiting = Waiting::Pause(arguments.iter().map(|it| Box::from(*it)).collect(), charge);
        self.next = Next::Wait(Some(until_us));
        true
    }

    /// Locks the shards that a command needs.
    fn lock<'e>(
        &self,
        engine: &'e Engine,
        command: &Command,
        arguments: &[&[u8]],
        now: Now,
    ) -> Keyspace<'e> {
        let (mut shards, mut flags) = (ShardSet::NONE, command.flags);
        if command.needs_all_shards() {
            shards = ShardSet::ALL;
        } else if self.transaction.is_open && command.name == "exec" {
            shards.merge(self.transaction.shards);
            shards.merge(self.transaction.watched_shards);
            flags = flags.and(self.transaction.flags);
        } else {
            command.keys.each(arguments, |index| shards.insert(Slot::of(arguments[index])));
        }
        let wakes = flags.has(Flags::WAKES) && shards != ShardSet::ALL;
        if wakes && engine.waiters.is_used() {
            shards = ShardSet::ALL;
        }
        let keys = engine.store.lock(shards, now);
        // Somebody may have begun to wait before the shards were ours. From now on nobody can begin to wait for a key in them.
        if wakes && shards != ShardSet::ALL && engine.waiters.is_used() {
            drop(keys);
            return engine.store.lock(ShardSet::ALL, now);
        }
        keys
    }

    /// Runs a command that was admitted, on shards that are locked.
    fn run<'e>(
        &mut self,
        engine: &'e Engine,
        known: &'static Known,
        arguments: &[&[u8]],
        keys: &mut Keyspace<'e>,
        reply: Reply<'_>,
        now: Now,
    ) -> Result<(), Failure> {
        let command = known.command;
        let looks = command.flags.has(Flags::READONLY) && !command.flags.has(Flags::PUBSUB);
        if looks && engine.channels.wants(b'm') {
            self.notify_misses(engine, command, arguments, keys);
        }
        let mut context = Context { engine, session: self, keys, reply, now, command };
        let result = (command.run)(&mut context, arguments);
        if looks && self.tracking.remembers() {
            command.keys.each(arguments, |index| {
                engine.tracking.remember(self.client.id, arguments[index]);
            });
            engine.store.charge_buffers(engine.tracking.take_charge());
        }
        result
    }

    /// Tells of the keys that a command is about to miss.
    #[cold]
    fn notify_misses(
        &self,
        engine: &Engine,
        command: &Command,
        arguments: &[&[u8]],
        keys: &mut Keyspace<'_>,
    ) {
        command.keys.each(arguments, |index| {
            let key = engine.store.key(self.database, arguments[index]);
            if keys.peek(&key).is_none() {
                engine.notify(b'm', "keymiss", &key);
            }
        });
    }

    /// As [`Session::run`], for a command of a transaction: what its user may do can have changed since it was queued.
    fn run_checked<'e>(
        &mut self,
        engine: &'e Engine,
        known: &'static Known,
        arguments: &[&[u8]],
        keys: &mut Keyspace<'e>,
        reply: Reply<'_>,
        now: Now,
    ) -> Result<(), Failure> {
        if let Err(denied) = engine.access.check(&self.user, known, arguments) {
            engine.access.note_denied(&engine.settings, &denied, LogContext::Multi, now, || {
                self.describe(now)
            });
            let reason = match denied {
                Denied::Command(..) => "no permission to execute the command or subcommand",
                Denied::Key(..) => "no permission to touch the specified keys",
                Denied::Channel(..) => {
                    "no permission to access one of the channels used as arguments"
                }
            };
            return Err(Failure::Text(
                format!(
                    "NOPERM ACLs rules changed between the moment the transaction was accumulated \
                     and the EXEC call. This command is no longer allowed for the following \
                     reason: {reason}"
                )
                .into(),
            ));
        }
        self.run(engine, known, arguments, keys, reply, now)
    }

    /// Shows a command that has run to those who watch all. Commands of operators are not shown; what skips monitors in Redis shows
    /// itself there.
    fn show_monitors(&self, engine: &Engine, known: &'static Known, arguments: &[&[u8]]) {
        if engine.monitors.is_used() && !known.command.flags.has(Flags::ADMIN) {
            let shown = without_secrets(known.full_name, arguments);
            engine.monitors.show(engine.clock.wall_us(), &self.client, &shown);
        }
    }

    /// Counts a command that has run, and has it noted if it took long.
    fn account(
        &self,
        engine: &Engine,
        known: &'static Known,
        arguments: &[&[u8]],
        began: Now,
        ended: Now,
        done: bool,
    ) {
        let us = ended.monotonic_us.saturating_sub(began.monotonic_us);
        let outcome = if done { Outcome::Done } else { Outcome::Failed };
        self.tally.count(known.id, us, outcome);
        let flags = known.command.flags;
        let whose = || (self.client.origin.address.clone(), self.client.labels().name);
        if flags.has(Flags::ADMIN) || flags.has(Flags::NO_AUTH) {
            let shown = without_secrets(known.full_name, arguments);
            engine.slow_log.note(&engine.settings, &shown, us, began, whose);
        } else if !flags.has(Flags::SKIP_SLOWLOG) {
            engine.slow_log.note(&engine.settings, arguments, us, began, whose);
        }
        let event = if flags.has(Flags::FAST) { "fast-command" } else { "command" };
        engine.latency.note(&engine.settings, event, us, began);
    }

    /// What `CLIENT INFO` would tell.
    pub(crate) fn describe(&self, now: Now) -> String {
        String::from_utf8_lossy(&self.client.describe(now)).into_owned()
    }

    /// Runs what the transaction has gathered, and writes a reply for each command. `keys` has all that they need.
    pub(crate) fn run_queue<'e>(
        &mut self,
        engine: &'e Engine,
        queue: &[Queued],
        keys: &mut Keyspace<'e>,
        reply: &mut Reply<'_>,
        now: Now,
    ) {
        self.may_wait = false;
        let by = Some(self.client.id);
        let mut told = Vec::new();
        for queued in queue {
            let arguments: Vec<&[u8]> = queued.arguments.iter().map(|it| &**it).collect();
            let from = reply.len();
            let began = engine.clock.now();
            let result =
                self.run_checked(engine, queued.known, &arguments, keys, reply.reborrow(), now);
            self.show_monitors(engine, queued.known, &arguments);
            self.account(
                engine,
                queued.known,
                &arguments,
                began,
                engine.clock.now(),
                result.is_ok(),
            );
            // What a command reads after another one has changed it is not stale.
            if engine.tracking.is_used() {
                let changes = keys.take_changes();
                engine.tracking.tell_readers(&changes, by);
                told.extend(changes);
            }
            reply.set_protocol(self.protocol);
            if let Err(failure) = result {
                reply.truncate(from);
                self.tally.add(Counter::Errors, 1);
                engine.totals.note_error(&failure.to_string());
                reply.error(failure);
            }
        }
        self.may_wait = true;
        engine.settle_after(told, keys, by);
    }
}

/// Whether a command waits for `EXEC` when a transaction is open.
fn is_queued(known: &Known) -> bool {
    !matches!(known.full_name, "exec" | "discard" | "multi" | "watch" | "quit" | "reset")
}

fn cross_slot() -> Failure {
    Failure::Text("CROSSSLOT Keys in request don't hash to the same slot".into())
}

/// In a cluster, all keys of a command lie in one slot.
fn see_one_slot(command: &Command, arguments: &[&[u8]]) -> Result<(), Failure> {
    let (mut first, mut crosses) = (None, false);
    command.keys.each(arguments, |index| {
        let slot = Slot::of(arguments[index]);
        crosses |= *first.get_or_insert(slot) != slot;
    });
    if crosses { Err(cross_slot()) } else { Ok(()) }
}

/// Finds the command, or the subcommand, that `arguments` call, and sees that their number fits.
///
/// # Errors
/// In Redis's words, if there is none or the number does not fit.
pub fn resolve(arguments: &[&[u8]]) -> Result<&'static Known, Failure> {
    let name = arguments[0];
    let Some(known) = TABLE.find(name) else {
        return Err(unknown_command(arguments));
    };
    let known = match arguments.get(1) {
        Some(subcommand) if !known.subcommands.is_empty() => {
            known.find(subcommand).ok_or_else(|| {
                let name = shown(&subcommand[..subcommand.len().min(128)]);
                let container = known.full_name.to_uppercase();
                Failure::err(format_args!("unknown subcommand '{name}'. Try {container} HELP."))
            })?
        }
        _ => known,
    };
    if known.command.takes(arguments.len()) {
        Ok(known)
    } else {
        Err(Failure::Arity(known.full_name))
    }
}

#[cold]
fn unknown_command(arguments: &[&[u8]]) -> Failure {
    let mut rest = String::new();
    for argument in &arguments[1..] {
        if rest.len() >= 128 {
            break;
        }
        let room = 128 - rest.len();
        rest.push_str(&format!("'{}' ", shown(&argument[..argument.len().min(room)])));
    }
    let name = shown(&arguments[0][..arguments[0].len().min(128)]);
    Failure::err(format_args!("unknown command '{name}', with args beginning with: {rest}"))
}

#[cfg(test)]
mod tests;
