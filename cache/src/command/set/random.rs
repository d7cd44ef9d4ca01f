//! Random members: `SPOP`, `SRANDMEMBER`.

use crate::command::sampling::{Sample, check_reply};
use crate::command::{Context, Failure, integer};
use crate::store::Missing;
use crate::value::Set;

pub(super) fn spop(ctx: &mut Context<'_, '_>, arguments: &[&[u8]]) -> Result<(), Failure> {
    let key = ctx.key(arguments[1]);
    let engine = ctx.engine;
    let mut draw = || engine.draw();
    let count = match arguments {
        [_, _] => None,
        [_, _, count] => {
            let count = integer(count).ok().and_then(|count| usize::try_from(count).ok());
            let wrong = || Failure::err("value is out of range, must be positive");
            Some(count.ok_or_else(wrong)?)
        }
        _ => return Err(Failure::Syntax),
    };
    let reply = &mut ctx.reply;
    let edited = ctx.keys.edit(&key, Missing::Skip, |set: &mut Set| {
        match count {
            None => reply.bulk_or_null(set.take_random(&mut draw).as_deref()),
            Some(count) => {
                let count = count.min(set.view().len());
                reply.set(count);
                if count == set.view().len() {
                    set.view().iter().for_each(|member| reply.bulk(&member));
                    set.clear();
                } else {
                    for _ in 0..count {
                        let member = set.take_random(&mut draw);
                        reply.bulk(&member.expect("there are more than are taken"));
                    }
                }
            }
        }
        set.view().is_empty()
    })?;
    let Some(emptied) = edited else {
        if count.is_some() {
            ctx.reply.set(0);
        } else {
            ctx.reply.null();
        }
        return Ok(());
    };
    if count != Some(0) {
        ctx.notify(b's', "spop", &key);
        if emptied {
            ctx.notify(b'g', "del", &key);
        }
    }
    Ok(())
}

pub(super) fn srandmember(ctx: &mut Context<'_, '_>, arguments: &[&[u8]]) -> Result<(), Failure> {
    let key = ctx.key(arguments[1]);
    let engine = ctx.engine;
    let mut draw = || engine.draw();
    let sample = match arguments {
        [_, _] => None,
        [_, _, count] => Some(Sample::read(count)?),
        _ => return Err(Failure::Syntax),
    };
    let set = ctx.keys.set_members(&key)?;
    let reply = &mut ctx.reply;
    match (set, sample) {
        (None, None) => reply.null(),
        (None, Some(_)) => reply.array(0),
        (Some(set), None) => reply.bulk_or_null(set.random(&mut draw).as_deref()),
        (Some(set), Some(sample)) => match sample.bounded()? {
            Sample::Different(count) => {
                reply.array(count.min(set.len()));
                set.sample(count, &mut draw, |member| reply.bulk(&member));
            }
            Sample::Repeated(count) => {
                reply.array(count);
                let from = reply.len();
                for _ in 0..count {
                    reply.bulk_or_null(set.random(&mut draw).as_deref());
                    check_reply(reply.len() - from)?;
                }
            }
        },
    }
    Ok(())
}
