//! `LPOP`, `RPOP`, `LMPOP`, and popping for those who wait.

use super::{count_of, end_of, integer_from, notify_popped};
use crate::command::{Context, Failure, is_option};
use crate::engine::Engine;
use crate::resp::Reply;
use crate::store::{Key, Keyspace, Missing, WrongType};
use crate::types::Database;
use crate::value::List;
use crate::value::list::End;

pub(super) fn lpop(ctx: &mut Context<'_, '_>, arguments: &[&[u8]]) -> Result<(), Failure> {
    pop(ctx, arguments, End::Front)
}

pub(super) fn rpop(ctx: &mut Context<'_, '_>, arguments: &[&[u8]]) -> Result<(), Failure> {
    pop(ctx, arguments, End::Back)
}

fn pop(ctx: &mut Context<'_, '_>, arguments: &[&[u8]], end: End) -> Result<(), Failure> {
    let key = ctx.key(arguments[1]);
    match arguments {
        [_, _] => {
            if !pop_one(ctx.engine, ctx.keys, &key, end, &mut ctx.reply)? {
                ctx.reply.null();
            }
        }
        [_, _, count] => {
            let count = integer_from(count, 0, "value is out of range, must be positive")?;
            if count == 0 && ctx.keys.list(&key)?.is_some() {
                ctx.reply.array(0);
            } else if !pop_some(ctx.engine, ctx.keys, &key, end, count_of(count), &mut ctx.reply)? {
                ctx.reply.null_array();
            }
        }
        _ => return Err(Failure::Arity(ctx.command.name)),
    }
    Ok(())
}

/// Pops an element and replies with it. False if there is no list.
pub(super) fn pop_one(
    engine: &Engine,
    keys: &mut Keyspace<'_>,
    key: &Key<'_>,
    end: End,
    reply: &mut Reply<'_>,
) -> Result<bool, WrongType> {
    let emptied = keys.edit(key, Missing::Skip, |list: &mut List| {
        list.pop(end, |element| reply.bulk(element));
        list.is_empty()
    })?;
    if let Some(emptied) = emptied {
        notify_popped(engine, key, end, emptied);
    }
    Ok(emptied.is_some())
}

/// Pops at most `count` elements, not 0, and replies with an array of them. False if there is no list.
fn pop_some(
    engine: &Engine,
    keys: &mut Keyspace<'_>,
    key: &Key<'_>,
    end: End,
    count: usize,
    reply: &mut Reply<'_>,
) -> Result<bool, WrongType> {
    let emptied = keys.edit(key, Missing::Skip, |list: &mut List| {
        let count = count.min(list.len());
        reply.array(count);
        let elements = list.view().iter();
        match end {
            End::Front => elements.take(count).for_each(|element| reply.bulk(element)),
            End::Back => elements.rev().take(count).for_each(|element| reply.bulk(element)),
        }
        list.drop_elements(end, count);
        list.is_empty()
    })?;
    if let Some(emptied) = emptied {
        notify_popped(engine, key, end, emptied);
    }
    Ok(emptied.is_some())
}

/// The arguments of `LMPOP` from the number of keys on.
pub(super) struct ManyPop<'a> {
    pub(super) keys: &'a [&'a [u8]],
    end: End,
    count: usize,
}

impl<'a> ManyPop<'a> {
    pub(super) fn read(arguments: &'a [&'a [u8]]) -> Result<Self, Failure> {
        let (number, rest) = arguments.split_first().ok_or(Failure::Syntax)?;
        let number = integer_from(number, 1, "numkeys should be greater than 0")?;
        let (keys, rest) = rest.split_at_checked(count_of(number)).ok_or(Failure::Syntax)?;
        let (end, options) = rest.split_first().ok_or(Failure::Syntax)?;
        let end = end_of(end)?;
        let count = match options {
            [] => 1,
            [name, count] if is_option(name, "COUNT") => {
                count_of(integer_from(count, 1, "count should be greater than 0")?)
            }
            // A count that is wrong is told before what else is.
            [name, count, ..] if is_option(name, "COUNT") => {
                integer_from(count, 1, "count should be greater than 0")?;
                return Err(Failure::Syntax);
            }
            _ => return Err(Failure::Syntax),
        };
        Ok(Self { keys, end, count })
    }

    /// Pops from the first list that is there, and replies with its key and the elements. False if none is.
    pub(super) fn attempt(
        &self,
        engine: &Engine,
        keys: &mut Keyspace<'_>,
        database: Database,
        reply: &mut Reply<'_>,
    ) -> Result<bool, Failure> {
        for key in self.keys {
            let before = reply.len();
            reply.array(2);
            reply.bulk(key);
            let key = engine.store.key(database, key);
            if pop_some(engine, keys, &key, self.end, self.count, reply)? {
                return Ok(true);
            }
            reply.truncate(before);
        }
        Ok(false)
    }
}

pub(super) fn lmpop(ctx: &mut Context<'_, '_>, arguments: &[&[u8]]) -> Result<(), Failure> {
    let request = ManyPop::read(&arguments[1..])?;
    if !request.attempt(ctx.engine, ctx.keys, ctx.session.database, &mut ctx.reply)? {
        ctx.reply.null_array();
    }
    Ok(())
}
