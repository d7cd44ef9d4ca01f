//! `LSET`, `LINSERT`, `LREM`, `LTRIM`.

use super::read::index_of;
use super::{count_of, range_of};
use crate::command::{Context, Failure, integer, is_option};
use crate::store::{Key, Missing};
use crate::value::List;
use crate::value::list::End;

pub(super) fn lset(ctx: &mut Context<'_, '_>, arguments: &[&[u8]]) -> Result<(), Failure> {
    let key = ctx.key(arguments[1]);
    let set = ctx.keys.edit(&key, Missing::Skip, |list: &mut List| {
        let index = index_of(list.view(), integer(arguments[2])?);
        match index {
            Some(index) if list.set(index, arguments[3]) => Ok(()),
            _ => Err(Failure::OutOfRange),
        }
    })?;
    set.ok_or(Failure::NoSuchKey)??;
    ctx.notify(b'l', "lset", &key);
    ctx.reply.ok();
    Ok(())
}

pub(super) fn linsert(ctx: &mut Context<'_, '_>, arguments: &[&[u8]]) -> Result<(), Failure> {
    let offset = if is_option(arguments[2], "AFTER") {
        1
    } else if is_option(arguments[2], "BEFORE") {
        0
    } else {
        return Err(Failure::Syntax);
    };
    let key = ctx.key(arguments[1]);
    let length = ctx.keys.edit(&key, Missing::Skip, |list: &mut List| {
        let pivot = list.view().iter().position(|element| element == arguments[3])?;
        list.insert(pivot + offset, arguments[4]);
        Some(list.len())
    })?;
    match length {
        None => ctx.reply.integer(0),
        Some(None) => ctx.reply.integer(-1),
        Some(Some(length)) => {
            ctx.notify(b'l', "linsert", &key);
            ctx.reply.count(length);
        }
    }
    Ok(())
}

pub(super) fn lrem(ctx: &mut Context<'_, '_>, arguments: &[&[u8]]) -> Result<(), Failure> {
    let count = integer(arguments[2])?;
    let end = if count < 0 { End::Back } else { End::Front };
    let most = if count == 0 { usize::MAX } else { count_of(count.saturating_abs()) };
    let key = ctx.key(arguments[1]);
    let removed = ctx.keys.edit(&key, Missing::Skip, |list: &mut List| {
        (list.remove(arguments[3], most, end), list.is_empty())
    })?;
    let (removed, emptied) = removed.unwrap_or((0, false));
    if removed > 0 {
        notify_shortened(ctx, "lrem", &key, emptied);
    }
    ctx.reply.count(removed);
    Ok(())
}

pub(super) fn ltrim(ctx: &mut Context<'_, '_>, arguments: &[&[u8]]) -> Result<(), Failure> {
    let (start, stop) = (integer(arguments[2])?, integer(arguments[3])?);
    let key = ctx.key(arguments[1]);
    let emptied = ctx.keys.edit(&key, Missing::Skip, |list: &mut List| {
        let length = list.len();
        let kept = range_of(start, stop, length);
        list.drop_elements(End::Back, length - kept.end);
        list.drop_elements(End::Front, kept.start);
        list.is_empty()
    })?;
    if let Some(emptied) = emptied {
        notify_shortened(ctx, "ltrim", &key, emptied);
    }
    ctx.reply.ok();
    Ok(())
}

fn notify_shortened(ctx: &mut Context<'_, '_>, event: &str, key: &Key<'_>, emptied: bool) {
    ctx.notify(b'l', event, key);
    if emptied {
        ctx.notify(b'g', "del", key);
    }
}
