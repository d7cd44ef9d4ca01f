//! `BZPOPMIN`, `BZPOPMAX`, `BZMPOP`: popping, and waiting.

use super::pop::{ManyPop, Shape, Side, pop_some};
use crate::blocking::attempt_or_wait;
use crate::command::list::keys_and_timeout;
use crate::command::{Context, Failure};
use crate::engine::Engine;
use crate::resp::Reply;
use crate::store::Keyspace;
use crate::types::Database;
use crate::value::Kind;

pub(super) fn bzpopmin(ctx: &mut Context<'_, '_>, arguments: &[&[u8]]) -> Result<(), Failure> {
    let (keys, timeout) = keys_and_timeout(arguments);
    let nothing = |it: &mut Reply<'_>| it.null_array();
    attempt_or_wait(ctx, arguments, keys, Kind::SortedSet, timeout, try_bzpopmin, nothing)
}

pub(super) fn bzpopmax(ctx: &mut Context<'_, '_>, arguments: &[&[u8]]) -> Result<(), Failure> {
    let (keys, timeout) = keys_and_timeout(arguments);
    let nothing = |it: &mut Reply<'_>| it.null_array();
    attempt_or_wait(ctx, arguments, keys, Kind::SortedSet, timeout, try_bzpopmax, nothing)
}

fn try_bzpopmin(
    engine: &Engine,
    keys: &mut Keyspace<'_>,
    database: Database,
    arguments: &[&[u8]],
    reply: &mut Reply<'_>,
) -> Result<bool, Failure> {
    pop_first(engine, keys, database, arguments, Side::Min, reply)
}

fn try_bzpopmax(
    engine: &Engine,
    keys: &mut Keyspace<'_>,
    database: Database,
    arguments: &[&[u8]],
    reply: &mut Reply<'_>,
) -> Result<bool, Failure> {
    pop_first(engine, keys, database, arguments, Side::Max, reply)
}

/// Pops from the first set that is there, and replies with its key, the member and the score.
fn pop_first(
    engine: &Engine,
    keys: &mut Keyspace<'_>,
    database: Database,
    arguments: &[&[u8]],
    side: Side,
    reply: &mut Reply<'_>,
) -> Result<bool, Failure> {
    for key in keys_and_timeout(arguments).0 {
        let before = reply.len();
        reply.array(3);
        reply.bulk(key);
        let key = engine.store.key(database, key);
        if pop_some(engine, keys, &key, side, 1, Shape::Continued, reply)? {
            return Ok(true);
        }
        reply.truncate(before);
    }
    Ok(false)
}

pub(super) fn bzmpop(ctx: &mut Context<'_, '_>, arguments: &[&[u8]]) -> Result<(), Failure> {
    let keys = ManyPop::read(&arguments[2..])?.keys;
    let nothing = |it: &mut Reply<'_>| it.null_array();
    attempt_or_wait(ctx, arguments, keys, Kind::SortedSet, arguments[1], try_bzmpop, nothing)
}

fn try_bzmpop(
    engine: &Engine,
    keys: &mut Keyspace<'_>,
    database: Database,
    arguments: &[&[u8]],
    reply: &mut Reply<'_>,
) -> Result<bool, Failure> {
    ManyPop::read(&arguments[2..])?.attempt(engine, keys, database, reply)
}
