//! Counters: strings that are numbers. `INCR`, `DECR`, `INCRBY`, `DECRBY`, `INCRBYFLOAT`.

use crate::command::{Context, Failure, integer, parse_integer};
use crate::decimal::{self, Extended};
use crate::store::{Lifetime, Missing};
use crate::value::Text;

pub(super) fn incr(ctx: &mut Context<'_, '_>, arguments: &[&[u8]]) -> Result<(), Failure> {
    add(ctx, arguments[1], 1)
}

pub(super) fn decr(ctx: &mut Context<'_, '_>, arguments: &[&[u8]]) -> Result<(), Failure> {
    add(ctx, arguments[1], -1)
}

pub(super) fn incrby(ctx: &mut Context<'_, '_>, arguments: &[&[u8]]) -> Result<(), Failure> {
    add(ctx, arguments[1], integer(arguments[2])?)
}

pub(super) fn decrby(ctx: &mut Context<'_, '_>, arguments: &[&[u8]]) -> Result<(), Failure> {
    let by = integer(arguments[2])?.checked_neg();
    add(ctx, arguments[1], by.ok_or_else(|| Failure::err("decrement would overflow"))?)
}

/// Adds `by` to the integer at a key, in one lookup if it is there. A missing key is 0.
fn add(ctx: &mut Context<'_, '_>, key: &[u8], by: i64) -> Result<(), Failure> {
    let key = ctx.key(key);
    let mut buffer = decimal::Buffer::default();
    let edited = ctx.keys.edit(&key, Missing::Skip, |text: &mut Text| {
        let value = parse_integer(text.bytes()).ok_or(Failure::NotInteger)?;
        let sum = value
            .checked_add(by)
            .ok_or_else(|| Failure::err("increment or decrement would overflow"))?;
        let bytes = text.bytes_mut();
        bytes.clear();
        bytes.extend_from_slice(buffer.integer(sum));
        Ok::<i64, Failure>(sum)
    })?;
    let sum = match edited {
        Some(sum) => sum?,
        None => {
            ctx.keys.set(&key, decimal::Buffer::default().integer(by), Lifetime::Forever);
            by
        }
    };
    ctx.notify(b'$', "incrby", &key);
    ctx.reply.integer(sum);
    Ok(())
}

pub(super) fn incrbyfloat(ctx: &mut Context<'_, '_>, arguments: &[&[u8]]) -> Result<(), Failure> {
    let key = ctx.key(arguments[1]);
    let old = match ctx.keys.string(&key)? {
        Some(bytes) => Extended::parse(bytes).ok_or(Failure::NotFloat)?,
        None => Extended::ZERO,
    };
    let by = Extended::parse(arguments[2]).ok_or(Failure::NotFloat)?;
    let sum =
        old.plus(by).ok_or_else(|| Failure::err("increment would produce NaN or Infinity"))?;
    let text = sum.to_string();
    ctx.keys.set(&key, text.as_bytes(), Lifetime::Keep);
    ctx.notify(b'$', "incrbyfloat", &key);
    ctx.reply.bulk(text.as_bytes());
    Ok(())
}
