//! `ZPOPMIN`, `ZPOPMAX`, `ZMPOP`, and popping for those who wait.

use crate::command::list::{count_of, integer_from};
use crate::command::{Context, Failure, is_option};
use crate::engine::Engine;
use crate::resp::{Protocol, Reply};
use crate::store::{Key, Keyspace, Missing, WrongType};
use crate::types::Database;
use crate::value::SortedSet;

/// Which members go first.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Side {
    Min,
    Max,
}

impl Side {
    fn read(argument: &[u8]) -> Result<Self, Failure> {
        if is_option(argument, "MIN") {
            Ok(Self::Min)
        } else if is_option(argument, "MAX") {
            Ok(Self::Max)
        } else {
            Err(Failure::Syntax)
        }
    }

    fn event(self) -> &'static str {
        match self {
            Self::Min => "zpopmin",
            Self::Max => "zpopmax",
        }
    }
}

/// What a reply looks like.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Shape {
    /// Members and scores in one array.
    Flat,
    /// An array of pairs.
    Pairs,
    /// Members and scores in an array that the key has begun.
    Continued,
}

/// Pops at most `count` members and replies with them. False if there is no set.
pub(super) fn pop_some(
    engine: &Engine,
    keys: &mut Keyspace<'_>,
    key: &Key<'_>,
    side: Side,
    count: usize,
    shape: Shape,
    reply: &mut Reply<'_>,
) -> Result<bool, WrongType> {
    let emptied = keys.edit(key, Missing::Skip, |set: &mut SortedSet| {
        let length = set.len();
        let count = count.min(length);
        match shape {
            Shape::Flat => reply.array(2 * count),
            Shape::Pairs => reply.array(count),
            Shape::Continued => {}
        }
        let mut show = |member: &[u8], score: f64| {
            if shape == Shape::Pairs {
                reply.array(2);
            }
            reply.bulk(member);
            reply.double(score);
        };
        match side {
            Side::Min => set.remove_ranks(0..count, show),
            Side::Max => {
                set.view().iter_below(length).take(count).for_each(|it| show(it.0, it.1));
                set.remove_ranks(length - count..length, |_, _| ())
            }
        };
        (count > 0).then(|| set.is_empty())
    })?;
    if let Some(Some(emptied)) = emptied {
        engine.notify(b'z', side.event(), key);
        if emptied {
            engine.notify(b'g', "del", key);
        }
    }
    Ok(emptied.is_some())
}

pub(super) fn zpopmin(ctx: &mut Context<'_, '_>, arguments: &[&[u8]]) -> Result<(), Failure> {
    pop(ctx, arguments, Side::Min)
}

pub(super) fn zpopmax(ctx: &mut Context<'_, '_>, arguments: &[&[u8]]) -> Result<(), Failure> {
    pop(ctx, arguments, Side::Max)
}

fn pop(ctx: &mut Context<'_, '_>, arguments: &[&[u8]], side: Side) -> Result<(), Failure> {
    let (count, shape) = match &arguments[2..] {
        [] => (1, Shape::Flat),
        [count] => {
            let count = integer_from(count, 0, "value is out of range, must be positive")?;
            let pairs = ctx.reply.protocol() == Protocol::Resp3;
            (count_of(count), if pairs { Shape::Pairs } else { Shape::Flat })
        }
        _ => return Err(Failure::Syntax),
    };
    let key = ctx.key(arguments[1]);
    if !pop_some(ctx.engine, ctx.keys, &key, side, count, shape, &mut ctx.reply)? {
        ctx.reply.array(0);
    }
    Ok(())
}

/// The arguments of `ZMPOP` from the number of keys on.
pub(super) struct ManyPop<'a> {
    pub(super) keys: &'a [&'a [u8]],
    side: Side,
    count: usize,
}

impl<'a> ManyPop<'a> {
    pub(super) fn read(arguments: &'a [&'a [u8]]) -> Result<Self, Failure> {
        let (number, rest) = arguments.split_first().ok_or(Failure::Syntax)?;
        let number = integer_from(number, 1, "numkeys should be greater than 0")?;
        let (keys, rest) = rest.split_at_checked(count_of(number)).ok_or(Failure::Syntax)?;
        let (side, options) = rest.split_first().ok_or(Failure::Syntax)?;
        let side = Side::read(side)?;
        let (count, rest) = match options {
            [name, count, rest @ ..] if is_option(name, "COUNT") => {
                let count = integer_from(count, 1, "count should be greater than 0")?;
                (count_of(count), rest)
            }
            rest => (1, rest),
        };
        if rest.is_empty() { Ok(Self { keys, side, count }) } else { Err(Failure::Syntax) }
    }

    /// Pops from the first set that is there, and replies with its key and the members. False if none is.
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
            if pop_some(engine, keys, &key, self.side, self.count, Shape::Pairs, reply)? {
                return Ok(true);
            }
            reply.truncate(before);
        }
        Ok(false)
    }
}

pub(super) fn zmpop(ctx: &mut Context<'_, '_>, arguments: &[&[u8]]) -> Result<(), Failure> {
    let request = ManyPop::read(&arguments[1..])?;
    if !request.attempt(ctx.engine, ctx.keys, ctx.session.database, &mut ctx.reply)? {
        ctx.reply.null_array();
    }
    Ok(())
}
