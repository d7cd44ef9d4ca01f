//! What clients ask for.

use super::{Fault, Words};
use crate::script::world::World;

/// `propose 1 x y`: commands for the log, in one go.
pub(super) fn propose(world: &mut World, words: &Words<'_>) -> Result<(), Fault> {
    let commands = words.plain.get(1..).filter(|commands| !commands.is_empty());
    world.propose(words.node()?, commands.ok_or("propose what?")?);
    Ok(())
}

/// `read 1`: a linearizable read at this node.
pub(super) fn read(world: &mut World, words: &Words<'_>) -> Result<(), Fault> {
    world.read(words.node()?);
    Ok(())
}
