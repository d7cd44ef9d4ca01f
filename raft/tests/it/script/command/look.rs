//! Commands that show what is, and change nothing.

use raft_consensus::types::NodeId;

use super::{Fault, Words};
use crate::script::show;
use crate::script::world::World;

fn chosen(world: &World, words: &Words<'_>) -> Result<Vec<NodeId>, Fault> {
    if words.plain.is_empty() { Ok(world.ids()) } else { words.nodes() }
}

/// `log [1 2]`: all entries; `+` marks those that are committed, `~` those that are not durable.
pub(super) fn log(world: &World, words: &Words<'_>) -> Result<Vec<String>, Fault> {
    let log = |id: NodeId| {
        if !world.is_up(id) {
            return show::status(id, None);
        }
        let node = world.node(id);
        let mut line = format!("{}:", show::node(id));
        if node.log().base().index.0 > 0 {
            line.push_str(&format!(" after {}", node.log().base()));
        }
        for entry in world.entries(id) {
            let committed = if entry.id.index <= node.commit() { "+" } else { "" };
            let durable = if entry.id.index <= node.log().durable() { "" } else { "~" };
            line.push_str(&format!(" {}{committed}{durable}", show::entry(&entry)));
        }
        for damage in node.log().damaged() {
            let terms = if damage.terms_known { "" } else { ", terms too" };
            line.push_str(&format!(" (lost {} to {}{terms})", damage.first, damage.last));
        }
        line
    };
    Ok(chosen(world, words)?.into_iter().map(log).collect())
}

/// `status [1 2]`: role, term, vote, leader, last entry, commit, applied.
pub(super) fn status(world: &World, words: &Words<'_>) -> Result<Vec<String>, Fault> {
    let status = |id| show::status(id, world.is_up(id).then(|| world.node(id)));
    Ok(chosen(world, words)?.into_iter().map(status).collect())
}

/// `progress 1`: the followers as this leader sees them.
pub(super) fn progress(world: &World, words: &Words<'_>) -> Result<Vec<String>, Fault> {
    let node = world.node(words.node()?);
    Ok(node.progress().map(|(id, progress)| show::progress(id, progress)).collect())
}

/// `machine [1 2]`: the commands that each state machine has applied.
pub(super) fn machine(world: &World, words: &Words<'_>) -> Result<Vec<String>, Fault> {
    let machine = |id: NodeId| {
        let commands = world.machine(id).iter().map(|(_, command)| format!(" {command}"));
        format!("{}:{}", show::node(id), commands.collect::<String>())
    };
    Ok(chosen(world, words)?.into_iter().map(machine).collect())
}

/// `flight`: the messages in flight.
pub(super) fn flight(world: &World) -> Vec<String> {
    world.flight().iter().map(show::envelope).collect()
}
