//! Messages in flight, and links that are cut.
//!
//! A filter is `2->1`, `2->`, `->1`, a message's name, or a pair and a name; none means all messages.

use super::{Fault, Words, parse_node};
use crate::script::world::World;

/// `deliver [filter]`: what is in flight now arrives, in the order in which it was sent.
pub(super) fn deliver(world: &mut World, words: &Words<'_>) -> Result<(), Fault> {
    some(world.deliver(&words.filter()?, false))
}

/// `repeat [filter]`: arrives, and is in flight once more.
pub(super) fn repeat(world: &mut World, words: &Words<'_>) -> Result<(), Fault> {
    some(world.deliver(&words.filter()?, true))
}

fn some(delivered: usize) -> Result<(), Fault> {
    if delivered == 0 { Err("no such message is in flight".to_owned()) } else { Ok(()) }
}

/// `drop [filter]`: messages are lost.
pub(super) fn drop_messages(world: &mut World, words: &Words<'_>) -> Result<(), Fault> {
    world.drop_messages(&words.filter()?);
    Ok(())
}

/// `delay [filter]`: messages are put aside, until `undelay`.
pub(super) fn delay(world: &mut World, words: &Words<'_>) -> Result<(), Fault> {
    world.delay(&words.filter()?);
    Ok(())
}

/// `partition 1 2 | 3 4 5`: nothing passes between the groups, or to a node in none.
pub(super) fn partition(world: &mut World, rest: &str) -> Result<(), Fault> {
    let group =
        |group: &str| group.split_whitespace().map(parse_node).collect::<Result<Vec<_>, _>>();
    let groups = rest.split('|').map(group).collect::<Result<Vec<_>, _>>()?;
    world.partition(&groups);
    Ok(())
}

/// `cut 1->2`: nothing passes from the one to the other.
pub(super) fn cut(world: &mut World, words: &Words<'_>) -> Result<(), Fault> {
    let filter = words.filter()?;
    match (filter.from, filter.to) {
        (Some(from), Some(to)) => world.cut(from, to),
        _ => return Err("which link?".to_owned()),
    }
    Ok(())
}
