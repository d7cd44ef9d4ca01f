//! `BLPOP`, `BRPOP`, `BLMPOP`, `BLMOVE`, `BRPOPLPUSH`: the commands above, and waiting.

use super::moving::Move;
use super::pop::{ManyPop, pop_one};
use crate::blocking::attempt_or_wait;
use crate::command::{Context, Failure};
use crate::engine::Engine;
use crate::resp::Reply;
use crate::store::Keyspace;
use crate::types::Database;
use crate::value::Kind;
use crate::value::list::End;

pub(super) fn blpop(ctx: &mut Context<'_, '_>, arguments: &[&[u8]]) -> Result<(), Failure> {
    let (keys, timeout) = keys_and_timeout(arguments);
    attempt_or_wait(ctx, arguments, keys, Kind::List, timeout, try_blpop, |it| it.null_array())
}

pub(super) fn brpop(ctx: &mut Context<'_, '_>, arguments: &[&[u8]]) -> Result<(), Failure> {
    let (keys, timeout) = keys_and_timeout(arguments);
    attempt_or_wait(ctx, arguments, keys, Kind::List, timeout, try_brpop, |it| it.null_array())
}

/// The keys of `BLPOP` and its like, and what stands behind them.
pub(in crate::command) fn keys_and_timeout<'a>(
    arguments: &'a [&'a [u8]],
) -> (&'a [&'a [u8]], &'a [u8]) {
    let last = arguments.len() - 1;
    (&arguments[1..last], arguments[last])
}

fn try_blpop(
    engine: &Engine,
    keys: &mut Keyspace<'_>,
    database: Database,
    arguments: &[&[u8]],
    reply: &mut Reply<'_>,
) -> Result<bool, Failure> {
    pop_first(engine, keys, database, arguments, End::Front, reply)
}

fn try_brpop(
    engine: &Engine,
    keys: &mut Keyspace<'_>,
    database: Database,
    arguments: &[&[u8]],
    reply: &mut Reply<'_>,
) -> Result<bool, Failure> {
    pop_first(engine, keys, database, arguments, End::Back, reply)
}

/// Pops from the first list that is there, and replies with its key and the element.
fn pop_first(
    engine: &Engine,
    keys: &mut Keyspace<'_>,
    database: Database,
    arguments: &[&[u8]],
    end: End,
    reply: &mut Reply<'_>,
) -> Result<bool, Failure> {
    for key in keys_and_timeout(arguments).0 {
        let before = reply.len();
        reply.array(2);
        reply.bulk(key);
        if pop_one(engine, keys, &engine.store.key(database, key), end, reply)? {
            return Ok(true);
        }
        reply.truncate(before);
    }
    Ok(false)
}

pub(super) fn blmpop(ctx: &mut Context<'_, '_>, arguments: &[&[u8]]) -> Result<(), Failure> {
    let keys = ManyPop::read(&arguments[2..])?.keys;
    attempt_or_wait(ctx, arguments, keys, Kind::List, arguments[1], try_blmpop, |it| {
        it.null_array();
    })
}

fn try_blmpop(
    engine: &Engine,
    keys: &mut Keyspace<'_>,
    database: Database,
    arguments: &[&[u8]],
    reply: &mut Reply<'_>,
) -> Result<bool, Failure> {
    ManyPop::read(&arguments[2..])?.attempt(engine, keys, database, reply)
}

pub(super) fn blmove(ctx: &mut Context<'_, '_>, arguments: &[&[u8]]) -> Result<(), Failure> {
    Move::read(arguments[3], arguments[4])?;
    let (source, timeout) = (&arguments[1..2], arguments[5]);
    attempt_or_wait(ctx, arguments, source, Kind::List, timeout, try_blmove, |it| it.null())
}

fn try_blmove(
    engine: &Engine,
    keys: &mut Keyspace<'_>,
    database: Database,
    arguments: &[&[u8]],
    reply: &mut Reply<'_>,
) -> Result<bool, Failure> {
    let it = Move::read(arguments[3], arguments[4])?;
    it.attempt(engine, keys, database, arguments[1], arguments[2], reply)
}

pub(super) fn brpoplpush(ctx: &mut Context<'_, '_>, arguments: &[&[u8]]) -> Result<(), Failure> {
    let (source, timeout) = (&arguments[1..2], arguments[3]);
    attempt_or_wait(ctx, arguments, source, Kind::List, timeout, try_brpoplpush, |it| it.null())
}

fn try_brpoplpush(
    engine: &Engine,
    keys: &mut Keyspace<'_>,
    database: Database,
    arguments: &[&[u8]],
    reply: &mut Reply<'_>,
) -> Result<bool, Failure> {
    Move::RIGHT_TO_LEFT.attempt(engine, keys, database, arguments[1], arguments[2], reply)
}
