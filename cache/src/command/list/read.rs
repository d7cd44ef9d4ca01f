//! `LLEN`, `LRANGE`, `LINDEX`, `LPOS`.

use super::{count_of, integer_from, range_of};
use crate::command::{Context, Failure, integer, is_option};
use crate::value::ListView;
use crate::value::list::End;

pub(super) fn llen(ctx: &mut Context<'_, '_>, arguments: &[&[u8]]) -> Result<(), Failure> {
    let key = ctx.key(arguments[1]);
    let length = ctx.keys.list(&key)?.map_or(0, |list| list.len());
    ctx.reply.count(length);
    Ok(())
}

pub(super) fn lrange(ctx: &mut Context<'_, '_>, arguments: &[&[u8]]) -> Result<(), Failure> {
    let (start, stop) = (integer(arguments[2])?, integer(arguments[3])?);
    let key = ctx.key(arguments[1]);
    let Some(list) = ctx.keys.list(&key)? else {
        ctx.reply.array(0);
        return Ok(());
    };
    let range = range_of(start, stop, list.len());
    ctx.reply.array(range.len());
    for element in list.iter_from(range.start).take(range.len()) {
        ctx.reply.bulk(element);
    }
    Ok(())
}

pub(super) fn lindex(ctx: &mut Context<'_, '_>, arguments: &[&[u8]]) -> Result<(), Failure> {
    let key = ctx.key(arguments[1]);
    let Some(list) = ctx.keys.list(&key)? else {
        ctx.reply.null();
        return Ok(());
    };
    let index = integer(arguments[2])?;
    ctx.reply.bulk_or_null(index_of(list, index).and_then(|index| list.get(index)));
    Ok(())
}

/// An index as it stands in a command: counted from the end, −1 for the last, if negative. None if it lies before the first.
pub(super) fn index_of(list: ListView<'_>, index: i64) -> Option<usize> {
    match usize::try_from(index) {
        Ok(index) => Some(index),
        Err(_) => list.len().checked_sub(usize::try_from(index.unsigned_abs()).ok()?),
    }
}

/// The options of `LPOS`.
struct Search {
    /// Which match is the first that counts, from 1 on.
    rank: usize,
    from: End,
    /// How many matches are wanted, 0 for all; None for one that is replied alone.
    count: Option<usize>,
    /// How many elements are looked at.
    most: usize,
}

impl Search {
    fn read(options: &[&[u8]]) -> Result<Self, Failure> {
        let mut search = Self { rank: 1, from: End::Front, count: None, most: usize::MAX };
        let mut rest = options;
        while let [name, value, after @ ..] = rest {
            if is_option(name, "RANK") {
                let rank = integer(value)?;
                if rank == i64::MIN {
                    return Err(Failure::err(
                        "value is out of range, value must between -9223372036854775807 and \
                         9223372036854775807",
                    ));
                }
                if rank == 0 {
                    return Err(Failure::err(
                        "RANK can't be zero: use 1 to start from the first match, 2 from the \
                         second ... or use negative to start from the end of the list",
                    ));
                }
                search.from = if rank < 0 { End::Back } else { End::Front };
                search.rank = count_of(rank.saturating_abs());
            } else if is_option(name, "COUNT") {
                search.count = Some(count_of(integer_from(value, 0, "COUNT can't be negative")?));
            } else if is_option(name, "MAXLEN") {
                let most = count_of(integer_from(value, 0, "MAXLEN can't be negative")?);
                search.most = if most == 0 { usize::MAX } else { most };
            } else {
                return Err(Failure::Syntax);
            }
            rest = after;
        }
        if rest.is_empty() { Ok(search) } else { Err(Failure::Syntax) }
    }

    /// The indexes of the matches that count.
    fn matches(&self, list: ListView<'_>, wanted: &[u8]) -> Vec<usize> {
        let most = match self.count {
            None => 1,
            Some(0) => usize::MAX,
            Some(count) => count,
        };
        let pick = |(distance, element): (usize, &[u8])| (element == wanted).then_some(distance);
        let (skip, elements) = (self.rank - 1, list.iter());
        match self.from {
            End::Front => elements
                .take(self.most)
                .enumerate()
                .filter_map(pick)
                .skip(skip)
                .take(most)
                .collect(),
            End::Back => {
                let last = list.len().saturating_sub(1);
                let distances = elements.rev().take(self.most).enumerate().filter_map(pick);
                distances.skip(skip).take(most).map(|distance| last - distance).collect()
            }
        }
    }
}

pub(super) fn lpos(ctx: &mut Context<'_, '_>, arguments: &[&[u8]]) -> Result<(), Failure> {
    let search = Search::read(&arguments[3..])?;
    let key = ctx.key(arguments[1]);
    let list = ctx.keys.list(&key)?;
    let matches = list.map(|list| search.matches(list, arguments[2])).unwrap_or_default();
    match (search.count, matches.first()) {
        (Some(_), _) => {
            ctx.reply.array(matches.len());
            for index in matches {
                ctx.reply.count(index);
            }
        }
        (None, Some(index)) => ctx.reply.count(*index),
        (None, None) => ctx.reply.null(),
    }
    Ok(())
}
