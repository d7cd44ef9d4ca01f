//! Fields that are numbers: `HINCRBY`, `HINCRBYFLOAT`. They keep a field's deadline.

use crate::command::{Context, Failure, integer, parse_integer};
use crate::decimal::{Buffer, Extended};
use crate::store::{Lifetime, Missing};
use crate::value::Hash;

pub(super) fn hincrby(ctx: &mut Context<'_, '_>, arguments: &[&[u8]]) -> Result<(), Failure> {
    let (key, field) = (ctx.key(arguments[1]), arguments[2]);
    let by = integer(arguments[3])?;
    let edited = ctx.keys.edit(&key, Missing::Create, |hash: &mut Hash| {
        let value = match hash.view().get(field) {
            Some(text) => {
                parse_integer(text).ok_or_else(|| Failure::err("hash value is not an integer"))?
            }
            None => 0,
        };
        let sum = value
            .checked_add(by)
            .ok_or_else(|| Failure::err("increment or decrement would overflow"))?;
        hash.set(field, Buffer::default().integer(sum), Lifetime::Keep);
        Ok::<i64, Failure>(sum)
    })?;
    let sum = edited.expect("a missing hash is created")?;
    ctx.notify(b'h', "hincrby", &key);
    ctx.reply.integer(sum);
    Ok(())
}

pub(super) fn hincrbyfloat(ctx: &mut Context<'_, '_>, arguments: &[&[u8]]) -> Result<(), Failure> {
    let (key, field) = (ctx.key(arguments[1]), arguments[2]);
    let by = Extended::parse(arguments[3]).ok_or(Failure::NotFloat)?;
    if let Extended::Infinite(_) = by {
        return Err(Failure::err("value is NaN or Infinity"));
    }
    let edited = ctx.keys.edit(&key, Missing::Create, |hash: &mut Hash| {
        let value = match hash.view().get(field) {
            Some(text) => {
                Extended::parse(text).ok_or_else(|| Failure::err("hash value is not a float"))?
            }
            None => Extended::ZERO,
        };
        let sum = value
            .plus(by)
            .ok_or_else(|| Failure::err("increment would produce NaN or Infinity"))?
            .to_string();
        hash.set(field, sum.as_bytes(), Lifetime::Keep);
        Ok::<String, Failure>(sum)
    })?;
    let sum = edited.expect("a missing hash is created")?;
    ctx.notify(b'h', "hincrbyfloat", &key);
    ctx.reply.bulk(sum.as_bytes());
    Ok(())
}
