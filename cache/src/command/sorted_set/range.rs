//! `ZRANGE` and all that it can do under other names: ranges of ranks, scores and names, and `ZRANGESTORE`.
//!
//! Whatever a range is given by, it is a range of ranks: see [`SortedSetView`].

use std::ops::Range;

use super::{member, members_head, name_bounds, score_bounds};
use crate::command::list::range_of;
use crate::command::{Context, Failure, integer, is_option};
use crate::store::{Key, Lifetime};
use crate::value::sorted_set::{InOrder, NameBound, ScoreBound};
use crate::value::{SortedSet, SortedSetView, Stored as _};

/// What a range is given by.
#[derive(Clone, Copy, PartialEq, Eq)]
enum By {
    Rank,
    Score,
    Name,
}

/// The ends of a range.
enum Ends<'a> {
    Rank(i64, i64),
    Score(ScoreBound, ScoreBound),
    Name(NameBound<'a>, NameBound<'a>),
}

/// What a command's name has decided, and what is left to its options.
#[derive(Clone, Copy)]
struct Dialect {
    by: Option<By>,
    reverse: Option<bool>,
    stores: bool,
}

/// A range of a sorted set, in a direction.
struct Request<'a> {
    ends: Ends<'a>,
    reverse: bool,
    /// How many are left out first; negative leaves out all, as in Redis.
    offset: i64,
    /// How many there are at most; negative for all.
    limit: i64,
    with_scores: bool,
}

impl<'a> Request<'a> {
    /// Reads the two ends and the options behind them.
    fn read(arguments: &'a [&'a [u8]], dialect: Dialect) -> Result<Self, Failure> {
        let (mut by, mut reverse) = (dialect.by, dialect.reverse);
        let (mut offset, mut limit, mut with_scores) = (0, -1, false);
        let mut rest = &arguments[2..];
        while let [option, after @ ..] = rest {
            rest = after;
            match option {
                _ if !dialect.stores && is_option(option, "WITHSCORES") => with_scores = true,
                _ if is_option(option, "LIMIT") && after.len() >= 2 => {
                    (offset, limit) = (integer(after[0])?, integer(after[1])?);
                    rest = &after[2..];
                }
                _ if reverse.is_none() && is_option(option, "REV") => reverse = Some(true),
                _ if by.is_none() && is_option(option, "BYLEX") => by = Some(By::Name),
                _ if by.is_none() && is_option(option, "BYSCORE") => by = Some(By::Score),
                _ => return Err(Failure::Syntax),
            }
        }
        let (by, reverse) = (by.unwrap_or(By::Rank), reverse.unwrap_or(false));
        if limit != -1 && by == By::Rank {
            return Err(Failure::err(
                "syntax error, LIMIT is only supported in combination with either BYSCORE or BYLEX",
            ));
        }
        if with_scores && by == By::Name {
            return Err(Failure::err(
                "syntax error, WITHSCORES not supported in combination with BYLEX",
            ));
        }
        let (first, last) = (arguments[0], arguments[1]);
        let (min, max) = if reverse { (last, first) } else { (first, last) };
        let ends = match by {
            By::Rank => Ends::Rank(integer(first)?, integer(last)?),
            By::Score => {
                let (min, max) = score_bounds(min, max)?;
                Ends::Score(min, max)
            }
            By::Name => {
                let (min, max) = name_bounds(min, max)?;
                Ends::Name(min, max)
            }
        };
        Ok(Self { ends, reverse, offset, limit, with_scores })
    }

    /// The ranks, from the lowest member on.
    fn ranks(&self, set: SortedSetView<'_>) -> Range<usize> {
        let Range { mut start, mut end } = match self.ends {
            Ends::Rank(start, stop) => {
                let length = set.len();
                let range = range_of(start, stop, length);
                return if self.reverse { length - range.end..length - range.start } else { range };
            }
            Ends::Score(min, max) => set.ranks_by_score(min, max),
            Ends::Name(min, max) => set.ranks_by_name(min, max),
        };
        let skipped = usize::try_from(self.offset).unwrap_or(usize::MAX).min(end - start);
        let most = usize::try_from(self.limit).unwrap_or(usize::MAX);
        if self.reverse {
            end -= skipped;
            start = start.max(end.saturating_sub(most));
        } else {
            start += skipped;
            end = end.min(start.saturating_add(most));
        }
        start..end
    }

    /// The members, in the direction that is asked for.
    fn members<'v>(&self, set: SortedSetView<'v>) -> std::iter::Take<InOrder<'v>> {
        let ranks = self.ranks(set);
        let members =
            if self.reverse { set.iter_below(ranks.end) } else { set.iter_from(ranks.start) };
        members.take(ranks.len())
    }
}

fn reply_with(
    ctx: &mut Context<'_, '_>,
    arguments: &[&[u8]],
    by: Option<By>,
    reverse: Option<bool>,
) -> Result<(), Failure> {
    let dialect = Dialect { by, reverse, stores: false };
    let request = Request::read(&arguments[2..], dialect)?;
    let key = ctx.key(arguments[1]);
    let Some(set) = ctx.keys.sorted_set(&key)? else {
        ctx.reply.array(0);
        return Ok(());
    };
    let ranks = request.ranks(set);
    members_head(&mut ctx.reply, ranks.len(), request.with_scores);
    for (name, score) in request.members(set) {
        member(&mut ctx.reply, name, score, request.with_scores);
    }
    Ok(())
}

pub(super) fn zrange(ctx: &mut Context<'_, '_>, arguments: &[&[u8]]) -> Result<(), Failure> {
    reply_with(ctx, arguments, None, None)
}

pub(super) fn zrevrange(ctx: &mut Context<'_, '_>, arguments: &[&[u8]]) -> Result<(), Failure> {
    reply_with(ctx, arguments, Some(By::Rank), Some(true))
}

pub(super) fn zrangebyscore(ctx: &mut Context<'_, '_>, arguments: &[&[u8]]) -> Result<(), Failure> {
    reply_with(ctx, arguments, Some(By::Score), Some(false))
}

pub(super) fn zrevrangebyscore(
    ctx: &mut Context<'_, '_>,
    arguments: &[&[u8]],
) -> Result<(), Failure> {
    reply_with(ctx, arguments, Some(By::Score), Some(true))
}

pub(super) fn zrangebylex(ctx: &mut Context<'_, '_>, arguments: &[&[u8]]) -> Result<(), Failure> {
    reply_with(ctx, arguments, Some(By::Name), Some(false))
}

pub(super) fn zrevrangebylex(
    ctx: &mut Context<'_, '_>,
    arguments: &[&[u8]],
) -> Result<(), Failure> {
    reply_with(ctx, arguments, Some(By::Name), Some(true))
}

pub(super) fn zrangestore(ctx: &mut Context<'_, '_>, arguments: &[&[u8]]) -> Result<(), Failure> {
    let dialect = Dialect { by: None, reverse: None, stores: true };
    let request = Request::read(&arguments[3..], dialect)?;
    let (destination, source) = (ctx.key(arguments[1]), ctx.key(arguments[2]));
    let mut stored = SortedSet::default();
    if let Some(set) = ctx.keys.sorted_set(&source)? {
        for (name, score) in request.members(set) {
            stored.insert(name, score);
        }
    }
    store(ctx, &destination, stored, "zrangestore");
    Ok(())
}

/// Puts a result under a key, whatever that held, and replies with its length. An empty one removes the key.
pub(super) fn store(
    ctx: &mut Context<'_, '_>,
    destination: &Key<'_>,
    result: SortedSet,
    event: &str,
) {
    let length = result.len();
    if result.is_empty() {
        if ctx.keys.remove(destination) {
            ctx.notify(b'g', "del", destination);
        }
    } else {
        ctx.keys.put(destination, result.into_value(), Lifetime::Forever);
        ctx.notify(b'z', event, destination);
    }
    ctx.reply.count(length);
}
