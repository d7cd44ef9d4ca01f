//! `ZCARD`, `ZSCORE`, `ZMSCORE`, `ZRANK`, `ZREVRANK`, `ZCOUNT`, `ZLEXCOUNT`, `ZSCAN`.

use super::{name_bounds, score_bounds};
use crate::command::cursor::{ElementScan, read_cursor};
use crate::command::{Context, Failure, is_option};
use crate::resp::format_double;

pub(super) fn zcard(ctx: &mut Context<'_, '_>, arguments: &[&[u8]]) -> Result<(), Failure> {
    let key = ctx.key(arguments[1]);
    let count = ctx.keys.sorted_set(&key)?.map_or(0, |set| set.len());
    ctx.reply.count(count);
    Ok(())
}

pub(super) fn zscore(ctx: &mut Context<'_, '_>, arguments: &[&[u8]]) -> Result<(), Failure> {
    let key = ctx.key(arguments[1]);
    match ctx.keys.sorted_set(&key)?.and_then(|set| set.score(arguments[2])) {
        Some(score) => ctx.reply.double(score),
        None => ctx.reply.null(),
    }
    Ok(())
}

pub(super) fn zmscore(ctx: &mut Context<'_, '_>, arguments: &[&[u8]]) -> Result<(), Failure> {
    let key = ctx.key(arguments[1]);
    let set = ctx.keys.sorted_set(&key)?;
    let members = &arguments[2..];
    ctx.reply.array(members.len());
    for member in members {
        match set.and_then(|set| set.score(member)) {
            Some(score) => ctx.reply.double(score),
            None => ctx.reply.null(),
        }
    }
    Ok(())
}

pub(super) fn zrank(ctx: &mut Context<'_, '_>, arguments: &[&[u8]]) -> Result<(), Failure> {
    rank(ctx, arguments, false)
}

pub(super) fn zrevrank(ctx: &mut Context<'_, '_>, arguments: &[&[u8]]) -> Result<(), Failure> {
    rank(ctx, arguments, true)
}

fn rank(ctx: &mut Context<'_, '_>, arguments: &[&[u8]], reverse: bool) -> Result<(), Failure> {
    let with_score = match &arguments[3..] {
        [] => false,
        [option] if is_option(option, "WITHSCORE") => true,
        _ => return Err(Failure::Syntax),
    };
    let key = ctx.key(arguments[1]);
    let set = ctx.keys.sorted_set(&key)?;
    let found = set.and_then(|set| {
        let (rank, score) = set.rank(arguments[2])?;
        Some((if reverse { set.len() - 1 - rank } else { rank }, score))
    });
    match found {
        Some((rank, score)) if with_score => {
            ctx.reply.array(2);
            ctx.reply.count(rank);
            ctx.reply.double(score);
        }
        Some((rank, _)) => ctx.reply.count(rank),
        None if with_score => ctx.reply.null_array(),
        None => ctx.reply.null(),
    }
    Ok(())
}

pub(super) fn zcount(ctx: &mut Context<'_, '_>, arguments: &[&[u8]]) -> Result<(), Failure> {
    let (min, max) = score_bounds(arguments[2], arguments[3])?;
    let key = ctx.key(arguments[1]);
    let set = ctx.keys.sorted_set(&key)?;
    ctx.reply.count(set.map_or(0, |set| set.ranks_by_score(min, max).len()));
    Ok(())
}

pub(super) fn zlexcount(ctx: &mut Context<'_, '_>, arguments: &[&[u8]]) -> Result<(), Failure> {
    let (min, max) = name_bounds(arguments[2], arguments[3])?;
    let key = ctx.key(arguments[1]);
    let set = ctx.keys.sorted_set(&key)?;
    ctx.reply.count(set.map_or(0, |set| set.ranks_by_name(min, max).len()));
    Ok(())
}

pub(super) fn zscan(ctx: &mut Context<'_, '_>, arguments: &[&[u8]]) -> Result<(), Failure> {
    let cursor = read_cursor(arguments[2])?;
    let key = ctx.key(arguments[1]);
    let mut members = Vec::new();
    let mut next = 0;
    if let Some(set) = ctx.keys.sorted_set(&key)? {
        let options = ElementScan::read(&arguments[3..], false)?;
        next = set.scan(cursor, options.count, |member, score| {
            if options.takes(member) {
                members.push((member, score));
            }
        });
    }
    ctx.reply.array(2);
    ctx.reply.bulk_display(next);
    ctx.reply.array(2 * members.len());
    for (member, score) in members {
        ctx.reply.bulk(member);
        // Scores are text here in RESP3 too.
        ctx.reply.bulk(format_double(score).as_bytes());
    }
    Ok(())
}
