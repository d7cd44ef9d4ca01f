//! Random fields: `HRANDFIELD`.

use crate::command::sampling::{Sample, check_reply, out_of_range};
use crate::command::{Context, Failure, is_option};
use crate::resp::{Protocol, Reply};
use crate::value::hash::Field;

pub(super) fn hrandfield(ctx: &mut Context<'_, '_>, arguments: &[&[u8]]) -> Result<(), Failure> {
    let key = ctx.key(arguments[1]);
    let engine = ctx.engine;
    let mut draw = || engine.draw();
    let (sample, with_values) = match arguments {
        [_, _] => (None, false),
        [_, _, count] => (Some(Sample::read(count)?), false),
        [_, _, count, option] => {
            let sample = Sample::read(count)?;
            if !is_option(option, "WITHVALUES") {
                return Err(Failure::Syntax);
            }
            if let Sample::Different(count) | Sample::Repeated(count) = sample
                && count > usize::MAX / 4
            {
                return Err(out_of_range());
            }
            (Some(sample), true)
        }
        [_, _, count, ..] => {
            Sample::read(count)?;
            return Err(Failure::Syntax);
        }
        _ => return Err(Failure::Syntax),
    };
    let hash = ctx.keys.hash(&key)?;
    let reply = &mut ctx.reply;
    let Some(hash) = hash else {
        if sample.is_some() {
            reply.array(0);
        } else {
            reply.null();
        }
        return Ok(());
    };
    let Some(sample) = sample else {
        reply.bulk_or_null(hash.random(&mut draw).map(|it| it.field));
        return Ok(());
    };
    match sample.bounded()? {
        Sample::Different(count) => {
            head(reply, count.min(hash.len()), with_values);
            hash.sample(count, &mut draw, |it| show(reply, it, with_values));
        }
        Sample::Repeated(count) => {
            head(reply, count, with_values);
            let from = reply.len();
            for _ in 0..count {
                let it = hash.random(&mut draw).expect("no hash without fields is kept");
                show(reply, it, with_values);
                check_reply(reply.len() - from)?;
            }
        }
    }
    Ok(())
}

/// Fields with values are pairs in RESP3, and one after the other in RESP2.
fn head(reply: &mut Reply<'_>, count: usize, with_values: bool) {
    let flat = with_values && reply.protocol() == Protocol::Resp2;
    reply.array(if flat { count * 2 } else { count });
}

fn show(reply: &mut Reply<'_>, it: Field<'_>, with_values: bool) {
    if with_values && reply.protocol() == Protocol::Resp3 {
        reply.array(2);
    }
    reply.bulk(it.field);
    if with_values {
        reply.bulk(it.value);
    }
}
