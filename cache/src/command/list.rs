//! The list family.

mod blocking;
mod edit;
mod moving;
mod pop;
mod push;
mod read;
#[cfg(test)]
mod tests;

use std::ops::Range;

pub(super) use self::blocking::keys_and_timeout;
use super::{Command, Failure, Flags, Group, Keys, is_option, parse_integer};
use crate::engine::Engine;
use crate::store::Key;
use crate::value::list::End;

/// The elements that `start` and `stop` name, both included and counted from the end if negative, of `len`.
pub(super) fn range_of(start: i64, stop: i64, len: usize) -> Range<usize> {
    let len_signed = i64::try_from(len).expect("a length fits");
    let from_end = |index: i64| if index < 0 { len_signed.saturating_add(index) } else { index };
    let (start, stop) = (from_end(start).max(0), from_end(stop).min(len_signed - 1));
    match (usize::try_from(start), usize::try_from(stop)) {
        (Ok(start), Ok(stop)) if start <= stop => start..stop + 1,
        _ => 0..0,
    }
}

/// An integer that is not below `min`.
///
/// # Errors
/// `message` if it is, or if it is none.
pub(super) fn integer_from(text: &[u8], min: i64, message: &'static str) -> Result<i64, Failure> {
    parse_integer(text).filter(|it| *it >= min).ok_or_else(|| Failure::err(message))
}

/// A count as a size: what is more than can be counted is as good as all there is.
pub(super) fn count_of(number: i64) -> usize {
    usize::try_from(number).unwrap_or(if number < 0 { 0 } else { usize::MAX })
}

/// `LEFT` or `RIGHT`.
fn end_of(argument: &[u8]) -> Result<End, Failure> {
    if is_option(argument, "LEFT") {
        Ok(End::Front)
    } else if is_option(argument, "RIGHT") {
        Ok(End::Back)
    } else {
        Err(Failure::Syntax)
    }
}

/// What is told of pushing at an end.
fn push_event(end: End) -> &'static str {
    match end {
        End::Front => "lpush",
        End::Back => "rpush",
    }
}

/// Tells that something was popped at an end, and that the list is gone if nothing is left.
fn notify_popped(engine: &Engine, key: &Key<'_>, end: End, emptied: bool) {
    let event = match end {
        End::Front => "lpop",
        End::Back => "rpop",
    };
    engine.notify(b'l', event, key);
    if emptied {
        engine.notify(b'g', "del", key);
    }
}

const READ: Flags = Flags::READONLY;
const WRITE: Flags = Flags::WRITE;
const GROW: Flags = Flags::WRITE.and(Flags::DENYOOM);
const GROW_WAKES: Flags = GROW.and(Flags::WAKES);
const BLOCKING: Flags = Flags::WRITE.and(Flags::BLOCKING);

/// The family.
pub(super) const COMMANDS: &[Command] = &[
    Command::new("lpush", -3, Keys::ONE, GROW_WAKES.and(Flags::FAST), push::lpush).docs(
        Group::List,
        "1.0.0",
        "Adds elements at the head of a list, which is created if it is not there.",
    ),
    Command::new("rpush", -3, Keys::ONE, GROW_WAKES.and(Flags::FAST), push::rpush).docs(
        Group::List,
        "1.0.0",
        "Adds elements at the tail of a list, which is created if it is not there.",
    ),
    Command::new("lpushx", -3, Keys::ONE, GROW.and(Flags::FAST), push::lpushx).docs(
        Group::List,
        "2.2.0",
        "Adds elements at the head of a list that is there.",
    ),
    Command::new("rpushx", -3, Keys::ONE, GROW.and(Flags::FAST), push::rpushx).docs(
        Group::List,
        "2.2.0",
        "Adds elements at the tail of a list that is there.",
    ),
    Command::new("lpop", -2, Keys::ONE, WRITE.and(Flags::FAST), pop::lpop).docs(
        Group::List,
        "1.0.0",
        "Removes and returns elements from the head of a list.",
    ),
    Command::new("rpop", -2, Keys::ONE, WRITE.and(Flags::FAST), pop::rpop).docs(
        Group::List,
        "1.0.0",
        "Removes and returns elements from the tail of a list.",
    ),
    Command::new(
        "lmpop",
        -4,
        Keys::Counted { count: 1, store: 0 },
        WRITE.and(Flags::MOVABLE_KEYS),
        pop::lmpop,
    )
    .docs(
        Group::List,
        "7.0.0",
        "Removes and returns elements from the first list that has any.",
    ),
    Command::new("llen", 2, Keys::ONE, READ.and(Flags::FAST), read::llen).docs(
        Group::List,
        "1.0.0",
        "Returns how many elements a list has.",
    ),
    Command::new("lrange", 4, Keys::ONE, READ, read::lrange).docs(
        Group::List,
        "1.0.0",
        "Returns the elements of a list between two indexes.",
    ),
    Command::new("lindex", 3, Keys::ONE, READ, read::lindex).docs(
        Group::List,
        "1.0.0",
        "Returns the element of a list at an index.",
    ),
    Command::new("lpos", -3, Keys::ONE, READ, read::lpos).docs(
        Group::List,
        "6.0.6",
        "Returns the indexes at which a list has an element.",
    ),
    Command::new("lset", 4, Keys::ONE, GROW, edit::lset).docs(
        Group::List,
        "1.0.0",
        "Replaces the element of a list at an index.",
    ),
    Command::new("linsert", 5, Keys::ONE, GROW, edit::linsert).docs(
        Group::List,
        "2.2.0",
        "Puts an element before or after another one of a list.",
    ),
    Command::new("lrem", 4, Keys::ONE, WRITE, edit::lrem).docs(
        Group::List,
        "1.0.0",
        "Removes elements that equal a value from a list.",
    ),
    Command::new("ltrim", 4, Keys::ONE, WRITE, edit::ltrim).docs(
        Group::List,
        "1.0.0",
        "Removes all elements of a list but those between two indexes.",
    ),
    Command::new("lmove", 5, Keys::TWO, GROW_WAKES, moving::lmove).docs(
        Group::List,
        "6.2.0",
        "Moves an element from an end of one list to an end of another one, and returns it.",
    ),
    Command::new("rpoplpush", 3, Keys::TWO, GROW_WAKES, moving::rpoplpush).docs(
        Group::List,
        "1.2.0",
        "Moves the last element of one list to the head of another one, and returns it.",
    ),
    Command::new(
        "blpop",
        -3,
        Keys::Range { first: 1, last: -2, step: 1 },
        BLOCKING.and(Flags::NOSCRIPT),
        blocking::blpop,
    )
    .docs(
        Group::List,
        "2.0.0",
        "Pops from the head of the first list that has any; waits for one.",
    ),
    Command::new(
        "brpop",
        -3,
        Keys::Range { first: 1, last: -2, step: 1 },
        BLOCKING.and(Flags::NOSCRIPT),
        blocking::brpop,
    )
    .docs(
        Group::List,
        "2.0.0",
        "Pops from the tail of the first list that has any; waits for one.",
    ),
    Command::new(
        "blmpop",
        -5,
        Keys::Counted { count: 2, store: 0 },
        BLOCKING.and(Flags::MOVABLE_KEYS),
        blocking::blmpop,
    )
    .docs(
        Group::List,
        "7.0.0",
        "Pops elements from the first list that has any; waits for one.",
    ),
    Command::new(
        "blmove",
        6,
        Keys::TWO,
        GROW_WAKES.and(Flags::BLOCKING).and(Flags::NOSCRIPT),
        blocking::blmove,
    )
    .docs(Group::List, "6.2.0", "Moves an element between two lists; waits for one."),
    Command::new(
        "brpoplpush",
        4,
        Keys::TWO,
        GROW_WAKES.and(Flags::BLOCKING).and(Flags::NOSCRIPT),
        blocking::brpoplpush,
    )
    .docs(
        Group::List,
        "2.2.0",
        "Moves the last element of one list to the head of another one; waits for one.",
    ),
];
