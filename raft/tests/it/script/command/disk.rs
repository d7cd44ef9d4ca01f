//! Writes that complete or fail, and snapshots.

use raft_consensus::effects::IoToken;

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
