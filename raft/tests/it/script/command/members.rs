//! Members that come and go, and leadership that is handed over.

use bytes::Bytes;
use raft_consensus::membership::{ConfChange, MemberChange};

use super::{Fault, Words, parse_node};
use crate::script::world::World;

/// `join 4 5`: blank nodes that know of no cluster, up.
pub(super) fn join(world: &mut World, words: &Words<'_>) -> Result<(), Fault> {
    for id in words.nodes()? {
        world.join(id);
    }
    Ok(())
}

/// `change 1 learner=4 voter=5 promote=4 demote=2 remove=3`: all at once, asked of node 1; `voter` is a learner that is promoted by
/// itself. `change 1 cancel`: takes it back.
pub(super) fn change(world: &mut World, words: &Words<'_>) -> Result<(), Fault> {
    let at = words.node()?;
    let changes = words.named.iter().map(|&(name, value)| {
        let node = parse_node(value)?;
        let add = |promote_when_ready| MemberChange::AddLearner {
            node,
            store: None,
            promote_when_ready,
            context: Bytes::new(),
        };
        Ok(match name {
            "learner" => add(false),
            "voter" => add(true),
            "promote" => MemberChange::Promote(node),
            "demote" => MemberChange::Demote(node),
            "remove" => MemberChange::Remove(node),
            _ => return Err(format!("no member changes by {name}")),
        })
    });
    let changes = changes.collect::<Result<Vec<_>, Fault>>()?;
    let change = match words.plain.get(1) {
        None => ConfChange::Members(changes),
        Some(&"cancel") => ConfChange::Cancel,
        Some(word) => return Err(format!("{word} is no change")),
    };
    let named = words.named.iter().map(|(name, value)| format!("{name}={value}"));
    let plain = words.plain.iter().skip(1).map(|&word| word.to_owned());
    world.change(at, change, plain.chain(named).collect::<Vec<_>>().join(" "));
    Ok(())
}

/// `transfer 1 [to=2]`: node 1 hands over, to whom it likes or to node 2.
pub(super) fn transfer(world: &mut World, words: &Words<'_>) -> Result<(), Fault> {
    words.names_are(&["to"])?;
    let to = words.get("to").map(parse_node).transpose()?;
    world.transfer(words.node()?, to);
    Ok(())
}
