//! Parts of strings: `APPEND`, `STRLEN`, `GETRANGE`, `SUBSTR`, `SETRANGE`.

use std::ops::Range;

use super::fits;
use crate::command::{Context, Failure, integer};
use crate::store::{Lifetime, Missing};
use crate::value::Text;

pub(super) fn append(ctx: &mut Context<'_, '_>, arguments: &[&[u8]]) -> Result<(), Failure> {
    let key = ctx.key(arguments[1]);
    let tail = arguments[2];
    let size_max = super::size_max(ctx.engine);
    let edited = ctx.keys.edit(&key, Missing::Skip, |text: &mut Text| {
        fits(text.bytes().len(), tail.len(), size_max)?;
        text.bytes_mut().extend_from_slice(tail);
        Ok::<usize, Failure>(text.bytes().len())
    })?;
    let length = match edited {
        Some(length) => length?,
        None => {
            ctx.keys.set(&key, tail, Lifetime::Forever);
            tail.len()
        }
    };
    ctx.notify(b'$', "append", &key);
    ctx.reply.count(length);
    Ok(())
}

pub(super) fn strlen(ctx: &mut Context<'_, '_>, arguments: &[&[u8]]) -> Result<(), Failure> {
    let key = ctx.key(arguments[1]);
    let length = ctx.keys.string(&key)?.map_or(0, <[u8]>::len);
    ctx.reply.count(length);
    Ok(())
}

pub(super) fn getrange(ctx: &mut Context<'_, '_>, arguments: &[&[u8]]) -> Result<(), Failure> {
    let key = ctx.key(arguments[1]);
    let (start, end) = (integer(arguments[2])?, integer(arguments[3])?);
    let bytes = ctx.keys.string(&key)?.unwrap_or_default();
    ctx.reply.bulk(&bytes[slice(start, end, bytes.len())]);
    Ok(())
}

/// The part from `start` to `end`, both included and counted from the end if negative, of `length` bytes.
fn slice(start: i64, end: i64, length: usize) -> Range<usize> {
    if start < 0 && end < 0 && start > end {
        return 0..0;
    }
    let size = i64::try_from(length).expect("a length fits 63 bits");
    let index = |at: i64| if at < 0 { at.saturating_add(size).max(0) } else { at };
    let (start, end) = (index(start), index(end).min(size - 1));
    if start > end {
        return 0..0;
    }
    let place = |at: i64| usize::try_from(at).expect("within the string");
    place(start)..place(end) + 1
}

pub(super) fn setrange(ctx: &mut Context<'_, '_>, arguments: &[&[u8]]) -> Result<(), Failure> {
    let key = ctx.key(arguments[1]);
    let offset = integer(arguments[2])?;
    let offset =
        usize::try_from(offset).ok().ok_or_else(|| Failure::err("offset is out of range"))?;
    let part = arguments[3];
    if part.is_empty() {
        let length = ctx.keys.string(&key)?.map_or(0, <[u8]>::len);
        ctx.reply.count(length);
        return Ok(());
    }
    // Looked at first, so that a refusal makes no key.
    let length = ctx.keys.string(&key)?.map_or(0, <[u8]>::len);
    let end = fits(offset, part.len(), super::size_max(ctx.engine))?;
    super::room(ctx.engine, end.saturating_sub(length))?;
    ctx.keys.edit(&key, Missing::Create, |text: &mut Text| {
        let bytes = text.bytes_mut();
        if bytes.len() < end {
            super::grow(bytes, end);
        }
        bytes[offset..end].copy_from_slice(part);
    })?;
    ctx.notify(b'$', "setrange", &key);
    ctx.reply.count(end.max(length));
    Ok(())
}
