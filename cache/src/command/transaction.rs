//! Transactions: `MULTI`, `EXEC`, `DISCARD`, `WATCH`, `UNWATCH`.

use super::{Command, Context, Failure, Flags, Group, Keys};
use crate::clients::Mark;
use crate::types::Database;

const LOADED_OR_NOT: Flags = Flags::LOADING.and(Flags::STALE).and(Flags::NOSCRIPT);
const ANY_TIME: Flags = LOADED_OR_NOT.and(Flags::ALLOW_BUSY);

/// The family.
pub(super) const COMMANDS: &[Command] = &[
    Command::new("multi", 1, Keys::None, ANY_TIME.and(Flags::FAST), multi).docs(
        Group::Transactions,
        "1.2.0",
        "Begins a transaction: the commands that follow wait for EXEC.",
    ),
    Command::new("exec", 1, Keys::None, LOADED_OR_NOT.and(Flags::SKIP_SLOWLOG), exec).docs(
        Group::Transactions,
        "1.2.0",
        "Carries out all commands of the transaction as one.",
    ),
    Command::new("discard", 1, Keys::None, ANY_TIME.and(Flags::FAST), discard).docs(
        Group::Transactions,
        "2.0.0",
        "Ends the transaction without carrying it out.",
    ),
    Command::new("watch", -2, Keys::EVERY, ANY_TIME.and(Flags::FAST), watch).docs(
        Group::Transactions,
        "2.2.0",
        "Has the next EXEC do nothing if one of the keys changes before it.",
    ),
    Command::new("unwatch", 1, Keys::None, ANY_TIME.and(Flags::FAST), unwatch).docs(
        Group::Transactions,
        "2.2.0",
        "Watches no key any more.",
    ),
];

fn multi(ctx: &mut Context<'_, '_>, _: &[&[u8]]) -> Result<(), Failure> {
    if ctx.session.transaction.is_open {
        return Err(Failure::err("MULTI calls can not be nested"));
    }
    ctx.session.transaction.is_open = true;
    ctx.session.client.mark(Mark::MULTI, true);
    ctx.reply.ok();
    Ok(())
}

fn discard(ctx: &mut Context<'_, '_>, _: &[&[u8]]) -> Result<(), Failure> {
    if !ctx.session.transaction.is_open {
        return Err(Failure::err("DISCARD without MULTI"));
    }
    ctx.session.discard(ctx.engine);
    ctx.reply.ok();
    Ok(())
}

fn exec(ctx: &mut Context<'_, '_>, _: &[&[u8]]) -> Result<(), Failure> {
    if !ctx.session.transaction.is_open {
        return Err(Failure::err("EXEC without MULTI"));
    }
    if ctx.session.transaction.is_broken {
        ctx.session.discard(ctx.engine);
        return Err(Failure::Text(
            "EXECABORT Transaction discarded because of previous errors.".into(),
        ));
    }
    // A watched key whose deadline has passed meanwhile has changed: looking at it removes it, and what others left behind in
    // these shards (evictions, say) is noted too.
    for (database, key) in &ctx.session.transaction.watched {
        ctx.keys.peek(&ctx.engine.store.key(*database, key));
    }
    ctx.engine.settle(ctx.keys, None);
    let is_dirty = ctx.session.client.is(Mark::DIRTY);
    let queue = ctx.session.take_queue(ctx.engine);
    ctx.session.unwatch(ctx.engine);
    if is_dirty {
        ctx.reply.null_array();
        return Ok(());
    }
    ctx.reply.array(queue.len());
    ctx.session.run_queue(ctx.engine, &queue, ctx.keys, &mut ctx.reply, ctx.now);
    Ok(())
}

fn watch(ctx: &mut Context<'_, '_>, arguments: &[&[u8]]) -> Result<(), Failure> {
    let engine = ctx.engine;
    if ctx.session.transaction.is_open {
        return Err(Failure::err("WATCH inside MULTI is not allowed"));
    }
    if ctx.session.client.is(Mark::DIRTY) {
        // The next EXEC does nothing anyway.
        ctx.reply.ok();
        return Ok(());
    }
    // First all are looked at, so that what has expired by now is noted before anybody watches.
    let exist: Vec<bool> =
        arguments[1..].iter().map(|key| ctx.keys.peek(&ctx.key(key)).is_some()).collect();
    engine.settle(ctx.keys, None);
    let database: Database = ctx.session.database;
    for (key, exists) in arguments[1..].iter().zip(exist) {
        if engine.watches.watch(&ctx.session.client, database, key, exists) {
            let transaction = &mut ctx.session.transaction;
            transaction.watched.push((database, Box::from(*key)));
            engine.store.charge_buffers(crate::session::watch_cost(key));
            transaction.watched_shards.insert(crate::slot::Slot::of(key));
        }
    }
    engine.review_observation();
    ctx.session.client.set_watched(ctx.session.transaction.watched.len());
    ctx.reply.ok();
    Ok(())
}

fn unwatch(ctx: &mut Context<'_, '_>, _: &[&[u8]]) -> Result<(), Failure> {
    ctx.session.unwatch(ctx.engine);
    ctx.reply.ok();
    Ok(())
}
