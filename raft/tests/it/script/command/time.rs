//! The clock, and the timers that a script lets fire.

use raft_consensus::raft_node::Role;
use raft_consensus::types::NodeId;

use super::{Fault, Words, parse_duration};
use crate::script::world::World;

/// `advance 200ms`: time passes, and no timer fires.
pub(super) fn advance(world: &mut World, words: &Words<'_>) -> Result<(), Fault> {
    let word = words.plain.first().ok_or("how long?")?;
    world.advance(parse_duration(word)?);
    Ok(())
}

/// `campaign 1`: the node's election deadline passes, and only its own.
pub(super) fn campaign(world: &mut World, words: &Words<'_>) -> Result<(), Fault> {
    let id = words.node()?;
    if world.node(id).role() == Role::Leader {
        return Err("a leader has no election deadline".to_owned());
    }
    world.fire(id);
    Ok(())
}

/// `heartbeat [1]`: the leader's heartbeat is due.
pub(super) fn heartbeat(world: &mut World, words: &Words<'_>) -> Result<(), Fault> {
    let id = if words.plain.is_empty() {
        world.leader().ok_or("nobody leads")?
    } else {
        words.node()?
    };
    if world.node(id).role() != Role::Leader {
        return Err("only a leader sends heartbeats".to_owned());
    }
    world.fire(id);
    Ok(())
}

/// `elect 1`: lets the node campaign, and everything be delivered and written, after which it must lead.
pub(super) fn elect(world: &mut World, words: &Words<'_>) -> Result<(), Fault> {
    let id = words.node()?;
    world.fire(id);
    world.stabilize();
    leads(world, id)
}

/// `win 1`: lets the node campaign and votes be delivered, after which it must lead. Its first appends are in flight.
pub(super) fn win(world: &mut World, words: &Words<'_>) -> Result<(), Fault> {
    let id = words.node()?;
    world.vote(id);
    leads(world, id)
}

fn leads(world: &World, id: NodeId) -> Result<(), Fault> {
    match world.node(id).role() {
        Role::Leader => Ok(()),
        role => Err(format!("it did not win, it is {role}")),
    }
}

/// `ask 1`: the node's timer fires, and it asks for entries that it lost.
pub(super) fn ask(world: &mut World, words: &Words<'_>) -> Result<(), Fault> {
    for id in words.nodes()? {
        world.fire(id);
    }
    Ok(())
}
