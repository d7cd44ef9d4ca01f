//! Writes that complete or fail, and snapshots.

use raft_consensus::effects::IoToken;
use raft_consensus::types::{LogIndex, NodeId};

use super::{Fault, Words, parse_number};
use crate::script::world::World;

/// `persist 1 [through=3]`, `persist all`: writes under way become durable.
pub(super) fn persist(world: &mut World, words: &Words<'_>) -> Result<(), Fault> {
    words.names_are(&["through"])?;
    let through = words.get("through").map(parse_number).transpose()?.map(IoToken);
    let ids = if words.plain == ["all"] { world.ids() } else { words.nodes()? };
    let mut any = false;
    for id in ids {
        any |= world.persist(id, through);
    }
    if any { Ok(()) } else { Err("no write is under way".to_owned()) }
}

/// `fail 1`: the write under way fails.
pub(super) fn fail(world: &mut World, words: &Words<'_>) -> Result<(), Fault> {
    world.fail_write(words.node()?);
    Ok(())
}

/// `snapshot 1`: the node takes a snapshot of what it has applied.
pub(super) fn snapshot(world: &mut World, words: &Words<'_>) -> Result<(), Fault> {
    world.take_snapshot(words.node()?);
    Ok(())
}

/// `damage 1 3..4`: the node's disk loses these entries.
pub(super) fn damage(world: &mut World, words: &Words<'_>) -> Result<(), Fault> {
    let [node, range] = words.plain[..] else { return Err("damage NODE FIRST..LAST".to_owned()) };
    let (first, last) = range.split_once("..").unwrap_or((range, range));
    let (first, last) = (LogIndex(parse_number(first)?), LogIndex(parse_number(last)?));
    world.damage(NodeId(parse_number(node)?), first, last);
    Ok(())
}
