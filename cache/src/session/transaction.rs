//! `MULTI`: the commands that wait for `EXEC`, and what is watched meanwhile.

use std::sync::atomic::Ordering;

use super::Session;
use crate::clients::Mark;
use crate::command::{Failure, Flags, Known};
use crate::engine::Engine;
use crate::slot::Slot;
use crate::store::ShardSet;
use crate::types::Database;

/// What a command in a queue costs beyond its arguments' bytes, for the limit of memory.
const COMMAND_COST: usize = 64;
/// What an argument costs beyond its bytes.
const ARGUMENT_COST: usize = 24;

/// A command that waits for `EXEC`.
#[derive(Debug)]
pub struct Queued {
    /// The command.
    pub known: &'static Known,
    /// Its name and arguments.
    pub arguments: Vec<Box<[u8]>>,
}

/// What `MULTI` and `WATCH` have gathered.
#[derive(Debug, Default)]
pub struct Transaction {
    /// Whether `MULTI` was called.
    pub is_open: bool,
    /// Whether a command was refused, so that `EXEC` refuses them all.
    pub is_broken: bool,
    /// The commands.
    pub queue: Vec<Queued>,
    /// All their flags.
    pub flags: Flags,
    /// The shards of their keys.
    pub shards: ShardSet,
    /// The slot of their keys, if there is one for all; what a cluster asks for.
    pub slot: Option<Slot>,
    /// Whether their keys are in different slots.
    pub crosses_slots: bool,
    /// What is watched.
    pub watched: Vec<(Database, Box<[u8]>)>,
    /// The shards of what is watched.
    pub watched_shards: ShardSet,
    bytes: usize,
}

/// What watching a key costs, in bytes, roughly: its name is kept twice, by the client and in the registry.
pub(crate) fn watch_cost(key: &[u8]) -> i64 {
    const BESIDES: usize = 160;
    i64::try_from(2 * key.len() + BESIDES).unwrap_or(i64::MAX)
}

/// What a command that is kept for later occupies, in bytes, roughly.
pub(super) fn cost(arguments: &[&[u8]]) -> usize {
    COMMAND_COST + arguments.iter().map(|it| it.len() + ARGUMENT_COST).sum::<usize>()
}

impl Session {
    /// Whether one more command would make the transaction larger than a request may be (`client-query-buffer-limit`). What is queued
    /// is a request that has not been carried out.
    pub(super) fn is_queue_full(&self, engine: &Engine, arguments: &[&[u8]]) -> bool {
        let limit = engine.settings.client_query_buffer_limit.load(Ordering::Relaxed);
        let limit = usize::try_from(limit).unwrap_or(usize::MAX);
        self.transaction.bytes.saturating_add(cost(arguments)) > limit
    }

    /// Puts a command aside for `EXEC`.
    pub(super) fn queue(&mut self, engine: &Engine, known: &'static Known, arguments: &[&[u8]]) {
        let transaction = &mut self.transaction;
        let bytes = cost(arguments);
        transaction.bytes += bytes;
        transaction.flags = transaction.flags.and(known.command.flags);
        transaction.queue.push(Queued {
            known,
            arguments: arguments.iter().map(|argument| Box::from(*argument)).collect(),
        });
        if known.command.needs_all_shards() {
            transaction.shards = ShardSet::ALL;
        }
        known.command.keys.each(arguments, |index| {
            let slot = Slot::of(arguments[index]);
            transaction.shards.insert(slot);
            transaction.crosses_slots |= *transaction.slot.get_or_insert(slot) != slot;
        });
        engine.store.charge_buffers(i64::try_from(bytes).unwrap_or(i64::MAX));
        self.client.set_queued(self.transaction.queue.len(), self.transaction.bytes);
    }

    /// Ends the transaction, if there is one, and all watches.
    pub(crate) fn discard(&mut self, engine: &Engine) {
        self.take_queue(engine);
        self.unwatch(engine);
    }

    /// Ends the transaction and returns its commands. Watches stay.
    pub(crate) fn take_queue(&mut self, engine: &Engine) -> Vec<Queued> {
        let transaction = &mut self.transaction;
        let queue = std::mem::take(&mut transaction.queue);
        if transaction.bytes > 0 {
            engine.store.charge_buffers(-i64::try_from(transaction.bytes).unwrap_or(i64::MAX));
        }
        *transaction = Transaction {
            watched: std::mem::take(&mut transaction.watched),
            watched_shards: transaction.watched_shards,
            ..Transaction::default()
        };
        self.client.mark(Mark::MULTI, false);
        self.client.set_queued(0, 0);
        queue
    }

    /// Ends all watches.
    pub(crate) fn unwatch(&mut self, engine: &Engine) {
        if !self.transaction.watched.is_empty() {
            let watched = std::mem::take(&mut self.transaction.watched);
            engine.watches.unwatch(&self.client, &watched);
            let bytes: i64 = watched.iter().map(|(_, key)| watch_cost(key)).sum();
            engine.store.charge_buffers(-bytes);
            engine.review_observation();
        }
        self.transaction.watched_shards = ShardSet::NONE;
        self.client.set_watched(0);
        self.client.mark(Mark::DIRTY, false);
    }

    /// What `EXEC` answers when it is refused itself: the transaction is gone.
    pub(super) fn abort(&mut self, engine: &Engine, failure: &Failure) -> Failure {
        self.discard(engine);
        let text = failure.to_string();
        let reason = text.strip_prefix("ERR ").unwrap_or(&text);
        Failure::Text(format!("EXECABORT Transaction discarded because of: {reason}").into())
    }
}
