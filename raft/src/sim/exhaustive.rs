//! The real core in every order of things: a bounded exhaustive check.
//!
//! The simulator draws runs; this enumerates them. From a first state it takes every action that is possible (deliver any
//! message that is under way, let any deadline come, let any write end, restart any node, give a leader a command), breadth first, and
//! looks at Raft's safety properties and at the promises of every node after each. A state that was seen before is not gone into again, so
//! what is left when nothing is new is *all* that can happen within the bounds of the [`Scope`].
//!
//! What makes that finite and sound:
//!
//! - **The core is pure**: a node is a value, cloned at every fork; nothing is modelled twice.
//! - **Time is abstract.** A node's deadline may come at any moment, and its clock then jumps there; clocks of nodes have nothing to do with
//!   each other. Time in which nothing fires matters in one place, where a node refuses its vote because it has just heard from a
//!   leader: there, both are tried.
//! - **A lost message is one that is never delivered**, since only safety is looked at: every message stays under way for ever if
//!   nobody delivers it. Messages may overtake each other, and arrive twice as often as the scope says.
//! - **States are compared by digests** of 128 bits of what decides the future (`raft_node/digest.rs`) and of what was promised. Among
//!   ten million states the chance of one false match is below 10⁻²⁴.
//! - **Faults are rationed.** Each campaign, restart, heartbeat, command and read is taken from the scope's ration; deliveries are
//!   free, as every message comes from one of those.
//!
//! It finds planted bugs as the simulator does, with the shortest way to each; `examples/exhaustive.rs` prints the table.

use std::any::Any;
use std::collections::BTreeSet;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;

use super::PlantedBug;

mod digest;
mod node;
mod world;

use world::{Action, Pool, World};

/// Where an exploration begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// Nodes that have never heard of each other.
    Blank,
    /// Node 1 leads term 1, the founding is committed and everybody knows.
    Founded,
    /// What Figure 8 of the paper looks like with three nodes, shortly before the first of the old leaders returns: node 1 has an
    /// entry of term 2 and node 3 one of term 3 in the same place, and nobody leads. One entry fits in a message.
    Figure8,
}

/// When a write is durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Writes {
    /// At once: a restart loses only what is never written.
    AtOnce,
    /// Whenever it pleases; a restart may find what was being written, or lose it.
    Later,
}

/// What can happen, and how often.
#[derive(Clone, Debug)]
pub struct Scope {
    /// Its name on the command line.
    pub name: &'static str,
    /// How many nodes there are.
    pub nodes: u64,
    /// Where it begins.
    pub start: Start,
    /// When a write is durable.
    pub writes: Writes,
    /// The ration of everything that does not follow from something else.
    pub ration: Ration,
    /// Stop when this many different states were seen.
    pub states_max: usize,
}

/// How often something may happen in one run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Ration {
    /// Election timeouts.
    pub campaigns: u8,
    /// Heartbeat deadlines of leaders.
    pub heartbeats: u8,
    /// Nodes that end and start again.
    pub restarts: u8,
    /// Commands.
    pub commands: u8,
    /// Linearizable reads.
    pub reads: u8,
    /// Snapshots, behind which the whole log is dropped.
    pub snapshots: u8,
    /// Messages that arrive and stay under way, to arrive again.
    pub repeats: u8,
    /// Changes of the members: a voter becomes a learner, or a learner a voter.
    pub changes: u8,
    /// Orders to hand over leadership.
    pub transfers: u8,
}

impl Scope {
    /// The scopes of the project's own checks. Together they find most planted bugs; no single one could, for what is needed
    /// for one multiplies the states on the way to another.
    #[must_use]
    pub fn all() -> Vec<Self> {
        let none = Ration::default();
        let scope = |name, start, writes, ration| Self {
            name,
            nodes: 3,
            start,
            writes,
            ration,
            states_max: usize::MAX,
        };
        vec![
            // Elections from nothing.
            scope("founding", Start::Blank, Writes::AtOnce, Ration { campaigns: 2, ..none }),
            // Votes and terms over restarts, with writes that end when they please.
            scope(
                "votes",
                Start::Founded,
                Writes::Later,
                Ration { campaigns: 2, restarts: 1, ..none },
            ),
            // Appends that overtake each other and arrive twice.
            scope(
                "appends",
                Start::Founded,
                Writes::AtOnce,
                Ration { commands: 2, heartbeats: 1, repeats: 1, ..none },
            ),
            // Entries of several leaders in the same places.
            scope(
                "logs",
                Start::Founded,
                Writes::AtOnce,
                Ration { campaigns: 2, commands: 2, ..none },
            ),
            scope("figure-8", Start::Figure8, Writes::AtOnce, Ration { campaigns: 2, ..none }),
            // Entries that are acknowledged before, or after, they are durable.
            scope(
                "disks",
                Start::Founded,
                Writes::Later,
                Ration { campaigns: 1, commands: 1, restarts: 1, ..none },
            ),
            // Reads around a change of leaders.
            scope(
                "reads",
                Start::Founded,
                Writes::AtOnce,
                Ration { campaigns: 1, commands: 1, reads: 1, ..none },
            ),
            // Voters that change, with two entries and two majorities, and an election in between.
            scope(
                "members",
                Start::Founded,
                Writes::AtOnce,
                Ration { campaigns: 1, changes: 1, ..none },
            ),
            // An election that the leader asks for, beside one that nobody asked for.
            scope(
                "transfers",
                Start::Founded,
                Writes::AtOnce,
                Ration { campaigns: 1, commands: 1, transfers: 1, ..none },
            ),
            // A follower that needs what the log no longer has.
            scope(
                "snapshots",
                Start::Founded,
                Writes::AtOnce,
                Ration { campaigns: 1, commands: 1, snapshots: 1, heartbeats: 1, ..none },
            ),
        ]
    }

    /// The scope of this name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::all().into_iter().find(|scope| scope.name == name)
    }
}

/// What an exploration came to.
#[derive(Clone, Debug)]
pub struct Explored {
    /// Different states.
    pub states: usize,
    /// Actions taken.
    pub actions: u64,
    /// Every run of so many actions was looked at.
    pub depth: usize,
    /// Nothing is left within the scope.
    pub is_complete: bool,
    /// What was broken, by the shortest run that breaks it.
    pub violation: Option<Broken>,
}

/// A broken property and the way to it.
#[derive(Clone, Debug)]
pub struct Broken {
    /// What was broken.
    pub what: String,
    /// The actions that lead there from the first state.
    pub run: Vec<String>,
}

/// A state that was not gone into yet.
struct Visit {
    world: World,
    path: Option<Rc<Step>>,
}

/// The last action of a run, and what came before.
struct Step {
    action: Action,
    before: Option<Rc<Self>>,
}

/// Enumerates the scope, with `bug` planted in every node, until all is seen, something is broken, or the limit is reached.
#[must_use]
pub fn explore(scope: &Scope, bug: Option<PlantedBug>) -> Explored {
    let (mut seen, mut pool) = (BTreeSet::new(), Pool::default());
    let mut explored =
        Explored { states: 0, actions: 0, depth: 0, is_complete: false, violation: None };
    let first = match guarded(|| World::first(scope, bug)) {
        Ok(first) => first,
        Err(what) => {
            explored.violation = Some(Broken { what, run: Vec::new() });
            return explored;
        }
    };
    seen.insert(first.digest());
    let mut level = vec![Visit { world: first, path: None }];
    while !level.is_empty() {
        let mut next = Vec::new();
        for Visit { world, path } in level {
            for action in world.actions() {
                explored.actions += 1;
                let after = guarded(|| {
                    let mut after = world.clone();
                    after.take(&action).map(|()| after)
                });
                match after {
                    Ok(mut after) if seen.insert(after.digest()) => {
                        after.share(&mut pool);
                        let step = Step { action, before: path.clone() };
                        next.push(Visit { world: after, path: Some(Rc::new(step)) });
                    }
                    Ok(_) => {}
                    Err(what) => {
                        explored.states = seen.len();
                        let last = Step { action, before: path };
                        explored.violation = Some(Broken { what, run: last.told() });
                        return explored;
                    }
                }
            }
            if seen.len() >= scope.states_max {
                explored.states = seen.len();
                return explored;
            }
        }
        explored.states = seen.len();
        explored.depth += 1;
        level = next;
    }
    explored.is_complete = true;
    explored
}

/// A broken assertion in the core is as good as a broken property.
fn guarded<T>(act: impl FnOnce() -> Result<T, String>) -> Result<T, String> {
    catch_unwind(AssertUnwindSafe(act)).unwrap_or_else(|panic| Err(text_of(panic.as_ref())))
}

fn text_of(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
    format!("a node panicked: {}", text.unwrap_or("without a word"))
}

impl Step {
    fn told(self) -> Vec<String> {
        let mut run = vec![self.action.to_string()];
        let mut before = self.before;
        while let Some(step) = before {
            run.push(step.action.to_string());
            before = step.before.clone();
        }
        run.reverse();
        run
    }
}

impl fmt::Display for Explored {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { states, actions, depth, is_complete, violation } = self;
        write!(f, "{states} states, {actions} actions, ")?;
        match violation {
            Some(Broken { what, run }) => {
                writeln!(f, "broken after {} actions: {what}", run.len())?;
                run.iter()
                    .enumerate()
                    .try_for_each(|(at, step)| writeln!(f, "  {:>3} {step}", at + 1))
            }
            None if *is_complete => write!(f, "all of the scope, runs of up to {depth} actions"),
            None => write!(f, "all runs of up to {depth} actions"),
        }
    }
}
