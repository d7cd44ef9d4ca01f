//! Making a cluster, and nodes that stop and start.

use raft_consensus::types::{HardState, Term};

use super::{Fault, Scene, Words, parse_node, parse_number};
use crate::script::world::{Settings, World};

/// `cluster nodes=3 [disk=slow] [append_bytes=N] [window=N] [kept=N] [tail_bytes=N] [repaired=N] [piece=N]`: blank nodes, all up.
pub(super) fn cluster(scene: &mut Scene, words: &Words<'_>) -> Result<(), Fault> {
    words.names_are(&[
        "nodes",
        "disk",
        "append_bytes",
        "window",
        "kept",
        "tail_bytes",
        "repaired",
        "piece",
    ])?;
    let default = Settings::default();
    let slow_disk = match words.get("disk") {
        None => false,
        Some("slow") => true,
        Some(other) => return Err(format!("a disk is slow or not named, never {other}")),
    };
    let settings = Settings {
        slow_disk,
        append_bytes: words.number("append_bytes", default.append_bytes)?,
        window: words.number("window", default.window)?,
        kept: words.number("kept", default.kept)?,
        tail_bytes: words.number("tail_bytes", default.tail_bytes)?,
        repaired_at_once: words.number("repaired", default.repaired_at_once)?,
        piece: words.number("piece", default.piece)?,
    };
    scene.world = Some(World::new(words.number("nodes", 3)?, settings));
    Ok(())
}

/// `given 1 log=1,1,2 [term=3] [vote=2]`: restarts the node with a log of entries of these terms, the first of which founds the
/// cluster.
pub(super) fn given(world: &mut World, words: &Words<'_>) -> Result<(), Fault> {
    words.names_are(&["log", "term", "vote"])?;
    let log = words.get("log").ok_or("which log?")?;
    let terms =
        log.split(',').map(|term| parse_number(term).map(Term)).collect::<Result<Vec<_>, _>>()?;
    let last = terms.last().map_or(0, |term| term.0);
    let term = Term(words.number("term", last)?);
    let voted_for = words.get("vote").map(parse_node).transpose()?;
    for id in words.nodes()? {
        world.give_log(id, &terms, HardState { term, voted_for });
    }
    Ok(())
}

/// `crash 1 2`: what was not durable is gone.
pub(super) fn crash(world: &mut World, words: &Words<'_>) -> Result<(), Fault> {
    for id in words.nodes()? {
        world.crash(id);
    }
    Ok(())
}

/// `restart 1 2`: from what was durable.
pub(super) fn restart(world: &mut World, words: &Words<'_>) -> Result<(), Fault> {
    for id in words.nodes()? {
        world.restart(id);
    }
    Ok(())
}

/// `wipe 1`: a crashed node gets a new, empty disk.
pub(super) fn wipe(world: &mut World, words: &Words<'_>) -> Result<(), Fault> {
    let id = words.node()?;
    if world.is_up(id) {
        return Err("a node that is wiped must be down".to_owned());
    }
    world.wipe(id);
    Ok(())
}
