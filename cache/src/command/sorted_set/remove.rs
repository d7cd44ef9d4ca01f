//! `ZREM`, `ZREMRANGEBYRANK`, `ZREMRANGEBYSCORE`, `ZREMRANGEBYLEX`.

use std::ops::Range;

use super::{name_bounds, score_bounds};
use crate::command::list::range_of;
use crate::command::{Context, Failure, integer};
use crate::store::Missing;
use crate::value::{SortedSet, SortedSetView};

pub(super) fn zrem(ctx: &mut Context<'_, '_>, arguments: &[&[u8]]) -> Result<(), Failure> {
    remove(ctx, arguments[1], "zrem", |set| {
        arguments[2..].iter().filter(|member| set.remove(member).is_some()).count()
    })
}

pub(super) fn zremrangebyrank(
    ctx: &mut Context<'_, '_>,
    arguments: &[&[u8]],
) -> Result<(), Failure> {
    let (start, stop) = (integer(arguments[2])?, integer(arguments[3])?);
    remove_range(ctx, arguments[1], "zremrangebyrank", |set| range_of(start, stop, set.len()))
}

pub(super) fn zremrangebyscore(
    ctx: &mut Context<'_, '_>,
    arguments: &[&[u8]],
) -> Result<(), Failure> {
    let (min, max) = score_bounds(arguments[2], arguments[3])?;
    remove_range(ctx, arguments[1], "zremrangebyscore", |set| set.ranks_by_score(min, max))
}

pub(super) fn zremrangebylex(
    ctx: &mut Context<'_, '_>,
    arguments: &[&[u8]],
) -> Result<(), Failure> {
    let (min, max) = name_bounds(arguments[2], arguments[3])?;
    remove_range(ctx, arguments[1], "zremrangebylex", |set| set.ranks_by_name(min, max))
}

fn remove_range(
    ctx: &mut Context<'_, '_>,
    key: &[u8],
    event: &str,
    ranks: impl FnOnce(SortedSetView<'_>) -> Range<usize>,
) -> Result<(), Failure> {
    remove(ctx, key, event, |set| {
        let ranks = ranks(set.view());
        set.remove_ranks(ranks, |_, _| ())
    })
}

/// Removes what `remove` does, which returns how much that was.
fn remove(
    ctx: &mut Context<'_, '_>,
    key: &[u8],
    event: &str,
    remove: impl FnOnce(&mut SortedSet) -> usize,
) -> Result<(), Failure> {
    let key = ctx.key(key);
    let removed =
        ctx.keys.edit(&key, Missing::Skip, |set: &mut SortedSet| (remove(set), set.is_empty()))?;
    let (removed, emptied) = removed.unwrap_or((0, false));
    if removed > 0 {
        ctx.notify(b'z', event, &key);
        if emptied {
            ctx.notify(b'g', "del", &key);
        }
    }
    ctx.reply.count(removed);
    Ok(())
}
