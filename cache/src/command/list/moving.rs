//! `LMOVE`, `RPOPLPUSH`.

use super::{end_of, notify_popped, push_event};
use crate::command::{Context, Failure};
use crate::engine::Engine;
use crate::resp::Reply;
use crate::store::{Keyspace, Missing};
use crate::types::Database;
use crate::value::list::End;
use crate::value::{Kind, List};

/// From which end of a list to which end of another one.
#[derive(Clone, Copy)]
pub(super) struct Move {
    pub(super) from: End,
    pub(super) to: End,
}

impl Move {
    /// What `RPOPLPUSH` does.
    pub(super) const RIGHT_TO_LEFT: Self = Self { from: End::Back, to: End::Front };

    pub(super) fn read(from: &[u8], to: &[u8]) -> Result<Self, Failure> {
        Ok(Self { from: end_of(from)?, to: end_of(to)? })
    }

    /// Moves an element and replies with it. False if there is no source.
    pub(super) fn attempt(
        self,
        engine: &Engine,
        keys: &mut Keyspace<'_>,
        database: Database,
        source: &[u8],
        destination: &[u8],
        reply: &mut Reply<'_>,
    ) -> Result<bool, Failure> {
        let source = engine.store.key(database, source);
        let destination = engine.store.key(database, destination);
        match keys.kind(&source) {
            None => return Ok(false),
            Some(Kind::List) => {}
            Some(_) => return Err(Failure::WrongType),
        }
        if keys.kind(&destination).is_some_and(|kind| kind != Kind::List) {
            return Err(Failure::WrongType);
        }
        let is_rotation = source.bytes() == destination.bytes();
        let popped = keys.edit(&source, Missing::Skip, |list: &mut List| {
            let element = list.pop(self.from, <[u8]>::to_vec)?;
            if is_rotation {
                list.push(self.to, &element);
            }
            Some((element, list.is_empty()))
        })?;
        let Some((element, emptied)) = popped.flatten() else { return Ok(false) };
        if !is_rotation {
            keys.edit(&destination, Missing::Create, |list: &mut List| {
                list.push(self.to, &element);
            })?;
        }
        engine.notify(b'l', push_event(self.to), &destination);
        reply.bulk(&element);
        notify_popped(engine, &source, self.from, emptied);
        Ok(true)
    }
}

pub(super) fn lmove(ctx: &mut Context<'_, '_>, arguments: &[&[u8]]) -> Result<(), Failure> {
    run(ctx, arguments, Move::read(arguments[3], arguments[4])?)
}

pub(super) fn rpoplpush(ctx: &mut Context<'_, '_>, arguments: &[&[u8]]) -> Result<(), Failure> {
    run(ctx, arguments, Move::RIGHT_TO_LEFT)
}

fn run(ctx: &mut Context<'_, '_>, arguments: &[&[u8]], it: Move) -> Result<(), Failure> {
    let (source, destination) = (arguments[1], arguments[2]);
    let database = ctx.session.database;
    if !it.attempt(ctx.engine, ctx.keys, database, source, destination, &mut ctx.reply)? {
        ctx.reply.null();
    }
    Ok(())
}
