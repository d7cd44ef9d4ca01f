//! Random members: `ZRANDMEMBER`.

use std::collections::BTreeSet;

use super::{member, members_head};
use crate::command::sampling::{Sample, check_reply, out_of_range};
use crate::command::{Context, Failure, is_option};
use crate::value::SortedSetView;
use crate::value::packed::{Selection, below};

pub(super) fn zrandmember(ctx: &mut Context<'_, '_>, arguments: &[&[u8]]) -> Result<(), Failure> {
    let engine = ctx.engine;
    let mut draw = || engine.draw();
    let key = ctx.key(arguments[1]);
    let [count, options @ ..] = &arguments[2..] else {
        let set = ctx.keys.sorted_set(&key)?;
        let name = set.and_then(|set| set.get(below(draw(), set.len()))).map(|it| it.0);
        ctx.reply.bulk_or_null(name);
        return Ok(());
    };
    let sample = Sample::read(count)?;
    let with_scores = match options {
        [] => false,
        [option] if is_option(option, "WITHSCORES") => true,
        _ => return Err(Failure::Syntax),
    };
    if let Sample::Different(count) | Sample::Repeated(count) = sample
        && with_scores
        && count > usize::MAX / 4
    {
        return Err(out_of_range());
    }
    let Some(set) = ctx.keys.sorted_set(&key)? else {
        ctx.reply.array(0);
        return Ok(());
    };
    let reply = &mut ctx.reply;
    match sample.bounded()? {
        Sample::Different(count) => {
            members_head(reply, count.min(set.len()), with_scores);
            different(set, count, &mut draw, |it| member(reply, it.0, it.1, with_scores));
        }
        Sample::Repeated(count) => {
            members_head(reply, count, with_scores);
            let (from, length) = (reply.len(), set.len());
            for _ in 0..count {
                let (name, score) =
                    set.get(below(draw(), length)).expect("a rank below the length is there");
                member(reply, name, score, with_scores);
                check_reply(reply.len() - from)?;
            }
        }
    }
    Ok(())
}

/// Visits `count` different members, or all if there are fewer.
fn different<'v>(
    set: SortedSetView<'v>,
    count: usize,
    draw: &mut impl FnMut() -> u64,
    visit: impl FnMut((&'v [u8], f64)),
) {
    let length = set.len();
    // A good part of them: by a walk over all. A few: rank by rank, drawing again what was drawn before.
    if count.saturating_mul(3) > length {
        let mut selection = Selection::new(length, count);
        set.iter().filter(|_| selection.takes(draw)).for_each(visit);
        return;
    }
    let mut ranks = BTreeSet::new();
    while ranks.len() < count {
        ranks.insert(below(draw(), length));
    }
    ranks.into_iter().filter_map(|rank| set.get(rank)).for_each(visit);
}
