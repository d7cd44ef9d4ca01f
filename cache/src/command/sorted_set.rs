//! The sorted set family.

mod add;
mod blocking;
mod combine;
mod pop;
mod random;
mod range;
mod read;
mod remove;
#[cfg(test)]
mod tests;

use super::{Command, Failure, Flags, Group, Keys};
use crate::resp::{Protocol, Reply, parse_double_saturating};
use crate::value::sorted_set::{NameBound, ScoreBound};

/// The two ends of a range of scores: a number each, with `(` before it if it does not belong to the range. No digits at all are
/// zero, as C reads them.
fn score_bounds(min: &[u8], max: &[u8]) -> Result<(ScoreBound, ScoreBound), Failure> {
    let bound = |text: &[u8]| {
        let (text, exclusive) = match text {
            [b'(', rest @ ..] => (rest, true),
            _ => (text, false),
        };
        // As C reads a text: to the first zero byte. Nothing is zero.
        let text = text.split(|byte| *byte == 0).next().unwrap_or_default();
        let score = if text.is_empty() { Some(0.0) } else { parse_double_saturating(text) };
        score.map(|score| ScoreBound { score, exclusive })
    };
    bound(min).zip(bound(max)).ok_or_else(|| Failure::err("min or max is not a float"))
}

/// The two ends of a range of names: `[name`, `(name`, `-` or `+`.
fn name_bounds<'a>(
    min: &'a [u8],
    max: &'a [u8],
) -> Result<(NameBound<'a>, NameBound<'a>), Failure> {
    let bound = |text: &'a [u8]| match text {
        b"-" => Some(NameBound::Lowest),
        b"+" => Some(NameBound::Highest),
        [b'[', name @ ..] => Some(NameBound::Inclusive(name)),
        [b'(', name @ ..] => Some(NameBound::Exclusive(name)),
        _ => None,
    };
    bound(min).zip(bound(max)).ok_or_else(|| Failure::err("min or max not valid string range item"))
}

/// The head of a reply of `count` members: with scores these are pairs in RESP3, and one after the other in RESP2.
fn members_head(reply: &mut Reply<'_>, count: usize, with_scores: bool) {
    let flat = with_scores && reply.protocol() == Protocol::Resp2;
    reply.array(if flat { count * 2 } else { count });
}

fn member(reply: &mut Reply<'_>, member: &[u8], score: f64, with_scores: bool) {
    if with_scores && reply.protocol() == Protocol::Resp3 {
        reply.array(2);
    }
    reply.bulk(member);
    if with_scores {
        reply.double(score);
    }
}

const READ: Flags = Flags::READONLY;
const FAST_READ: Flags = Flags::READONLY.and(Flags::FAST);
const WRITE: Flags = Flags::WRITE;
const GROW: Flags = Flags::WRITE.and(Flags::DENYOOM).and(Flags::WAKES);
const COUNTED_READ: Flags = Flags::READONLY.and(Flags::MOVABLE_KEYS);
const COUNTED_STORE: Flags = GROW.and(Flags::MOVABLE_KEYS);
const COUNTED: Keys = Keys::Counted { count: 1, store: 0 };
const COUNTED_BEHIND_STORE: Keys = Keys::Counted { count: 2, store: 1 };

/// The family.
pub(super) const COMMANDS: &[Command] = &[
    Command::new("zadd", -4, Keys::ONE, GROW.and(Flags::FAST), add::zadd).docs(
        Group::SortedSet,
        "1.2.0",
        "Adds members to a sorted set, or changes their scores.",
    ),
    Command::new("zincrby", 4, Keys::ONE, GROW.and(Flags::FAST), add::zincrby).docs(
        Group::SortedSet,
        "1.2.0",
        "Adds to the score of a member of a sorted set.",
    ),
    Command::new("zcard", 2, Keys::ONE, FAST_READ, read::zcard).docs(
        Group::SortedSet,
        "1.2.0",
        "Returns how many members a sorted set has.",
    ),
    Command::new("zscore", 3, Keys::ONE, FAST_READ, read::zscore).docs(
        Group::SortedSet,
        "1.2.0",
        "Returns the score of a member of a sorted set.",
    ),
    Command::new("zmscore", -3, Keys::ONE, FAST_READ, read::zmscore).docs(
        Group::SortedSet,
        "6.2.0",
        "Returns the scores of members of a sorted set.",
    ),
    Command::new("zrank", -3, Keys::ONE, FAST_READ, read::zrank).docs(
        Group::SortedSet,
        "2.0.0",
        "Returns the rank of a member of a sorted set, from the lowest score on.",
    ),
    Command::new("zrevrank", -3, Keys::ONE, FAST_READ, read::zrevrank).docs(
        Group::SortedSet,
        "2.0.0",
        "Returns the rank of a member of a sorted set, from the highest score on.",
    ),
    Command::new("zcount", 4, Keys::ONE, FAST_READ, read::zcount).docs(
        Group::SortedSet,
        "2.0.0",
        "Counts the members of a sorted set between two scores.",
    ),
    Command::new("zlexcount", 4, Keys::ONE, FAST_READ, read::zlexcount).docs(
        Group::SortedSet,
        "2.8.9",
        "Counts the members of a sorted set between two names.",
    ),
    Command::new("zscan", -3, Keys::ONE, READ, read::zscan).docs(
        Group::SortedSet,
        "2.8.0",
        "Walks over the members of a sorted set, some at a time.",
    ),
    Command::new("zrandmember", -2, Keys::ONE, READ, random::zrandmember).docs(
        Group::SortedSet,
        "6.2.0",
        "Returns random members of a sorted set.",
    ),
    Command::new("zrange", -4, Keys::ONE, READ, range::zrange).docs(
        Group::SortedSet,
        "1.2.0",
        "Returns the members of a sorted set in a range of ranks, scores or names.",
    ),
    Command::new("zrangestore", -5, Keys::TWO, GROW, range::zrangestore).docs(
        Group::SortedSet,
        "6.2.0",
        "Stores the members of a sorted set in a range of ranks, scores or names under another key.",
    ),
    Command::new("zrevrange", -4, Keys::ONE, READ, range::zrevrange).docs(
        Group::SortedSet,
        "1.2.0",
        "Returns the members of a sorted set in a range of ranks, highest score first.",
    ),
    Command::new("zrangebyscore", -4, Keys::ONE, READ, range::zrangebyscore).docs(
        Group::SortedSet,
        "1.0.5",
        "Returns the members of a sorted set between two scores.",
    ),
    Command::new("zrevrangebyscore", -4, Keys::ONE, READ, range::zrevrangebyscore).docs(
        Group::SortedSet,
        "2.2.0",
        "Returns the members of a sorted set between two scores, highest first.",
    ),
    Command::new("zrangebylex", -4, Keys::ONE, READ, range::zrangebylex).docs(
        Group::SortedSet,
        "2.8.9",
        "Returns the members of a sorted set between two names.",
    ),
    Command::new("zrevrangebylex", -4, Keys::ONE, READ, range::zrevrangebylex).docs(
        Group::SortedSet,
        "2.8.9",
        "Returns the members of a sorted set between two names, last first.",
    ),
    Command::new("zrem", -3, Keys::ONE, WRITE.and(Flags::FAST), remove::zrem).docs(
        Group::SortedSet,
        "1.2.0",
        "Removes members from a sorted set.",
    ),
    Command::new("zremrangebyrank", 4, Keys::ONE, WRITE, remove::zremrangebyrank).docs(
        Group::SortedSet,
        "2.0.0",
        "Removes the members of a sorted set between two ranks.",
    ),
    Command::new("zremrangebyscore", 4, Keys::ONE, WRITE, remove::zremrangebyscore).docs(
        Group::SortedSet,
        "1.2.0",
        "Removes the members of a sorted set between two scores.",
    ),
    Command::new("zremrangebylex", 4, Keys::ONE, WRITE, remove::zremrangebylex).docs(
        Group::SortedSet,
        "2.8.9",
        "Removes the members of a sorted set between two names.",
    ),
    Command::new("zpopmin", -2, Keys::ONE, WRITE.and(Flags::FAST), pop::zpopmin).docs(
        Group::SortedSet,
        "5.0.0",
        "Removes and returns the members of a sorted set with the lowest scores.",
    ),
    Command::new("zpopmax", -2, Keys::ONE, WRITE.and(Flags::FAST), pop::zpopmax).docs(
        Group::SortedSet,
        "5.0.0",
        "Removes and returns the members of a sorted set with the highest scores.",
    ),
    Command::new("zmpop", -4, COUNTED, WRITE.and(Flags::MOVABLE_KEYS), pop::zmpop).docs(
        Group::SortedSet,
        "7.0.0",
        "Removes and returns members from the first sorted set that has any.",
    ),
    Command::new(
        "bzpopmin",
        -3,
        Keys::Range { first: 1, last: -2, step: 1 },
        WRITE.and(Flags::NOSCRIPT).and(Flags::BLOCKING).and(Flags::FAST),
        blocking::bzpopmin,
    )
    .docs(
        Group::SortedSet,
        "5.0.0",
        "Removes and returns the lowest member of the first sorted set that has any; waits for one.",
    ),
    Command::new(
        "bzpopmax",
        -3,
        Keys::Range { first: 1, last: -2, step: 1 },
        WRITE.and(Flags::NOSCRIPT).and(Flags::BLOCKING).and(Flags::FAST),
        blocking::bzpopmax,
    )
    .docs(
        Group::SortedSet,
        "5.0.0",
        "Removes and returns the highest member of the first sorted set that has any; waits for one.",
    ),
    Command::new(
        "bzmpop",
        -5,
        Keys::Counted { count: 2, store: 0 },
        WRITE.and(Flags::BLOCKING).and(Flags::MOVABLE_KEYS),
        blocking::bzmpop,
    )
    .docs(
        Group::SortedSet,
        "7.0.0",
        "Removes and returns members from the first sorted set that has any; waits for one.",
    ),
    Command::new("zunion", -3, COUNTED, COUNTED_READ, combine::zunion).docs(
        Group::SortedSet,
        "6.2.0",
        "Returns the union of sorted sets.",
    ),
    Command::new("zinter", -3, COUNTED, COUNTED_READ, combine::zinter).docs(
        Group::SortedSet,
        "6.2.0",
        "Returns the intersection of sorted sets.",
    ),
    Command::new("zdiff", -3, COUNTED, COUNTED_READ, combine::zdiff).docs(
        Group::SortedSet,
        "6.2.0",
        "Returns the members of a sorted set that others do not have.",
    ),
    Command::new("zintercard", -3, COUNTED, COUNTED_READ, combine::zintercard).docs(
        Group::SortedSet,
        "7.0.0",
        "Counts the members of the intersection of sorted sets.",
    ),
    Command::new(
        "zunionstore",
        -4,
        COUNTED_BEHIND_STORE,
        COUNTED_STORE,
        combine::zunionstore,
    )
    .docs(Group::SortedSet, "2.0.0", "Stores the union of sorted sets under another key."),
    Command::new(
        "zinterstore",
        -4,
        COUNTED_BEHIND_STORE,
        COUNTED_STORE,
        combine::zinterstore,
    )
    .docs(Group::SortedSet, "2.0.0", "Stores the intersection of sorted sets under another key."),
    Command::new(
        "zdiffstore",
        -4,
        COUNTED_BEHIND_STORE,
        COUNTED_STORE,
        combine::zdiffstore,
    )
    .docs(
        Group::SortedSet,
        "6.2.0",
        "Stores the members of a sorted set that others do not have under another key.",
    ),
];
