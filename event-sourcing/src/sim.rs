//! The store on disk in the simulator: one seed, one run, every answer checked.
//!
//! A run has a real [`EventLog`](crate::store::journal::EventLog) on a [`SimDisk`](lattice_sim::SimDisk), with the group commit, the index
//! files, the scavenging and the recovery of production; only the threads are left out, for the world does their work in a drawn order.
//! Writers append to overlapping streams with expected versions of every kind and conditions on labels, repeat what they have tried, with
//! and without differences, and decide what is kept. Readers, subscribers, a projection and two versions of a decider with snapshots follow.
//! The clock jumps in both directions, the power fails at drawn calls of the disk (while the log is being opened too), processes are killed,
//! syncs fail, disks are full, index files and seals are damaged or missing, and at the end of some runs a complete segment is.
//!
//! Beside it stands the model of [`differential`](crate::testing::differential): a list of events, and every question answered by looking
//! at all of them. What is checked:
//!
//! - every append is answered as the model answers: so exactly one of several wins a version or a condition, nobody is refused without
//!   cause, and repetitions get the places of their first time, for ever;
//! - no answer names what is not durable;
//! - every acknowledged append is there once, whole and in its place, and a group without an answer is there as a whole or not at all;
//! - versions and positions are dense, and neither they nor the hash chain change by scavenging;
//! - every page is the model's; damage is reported, and no damaged answer is given;
//! - subscribers see every visible match in order, no checkpoint is beyond one that was not delivered, from wherever they go on;
//! - the rows of the projection are a fold over the events up to its checkpoint, after every step;
//! - a state loaded by way of a snapshot is the fold over all events.
//!
//! A violation names the seed that shows it again. What runs have met is counted ([`Coverage`]), and a campaign that never met something
//! proves nothing about it. The threads themselves are left to the tests with real ones and to the process that is killed.

mod bug;
mod coverage;
mod draw;
mod follower;
pub mod fuzz;
mod store;
mod tally;
mod world;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use lattice_sim::{Phase, Report, Violation};

pub use bug::PlantedBug;
pub(crate) use bug::{is_planted, local_time};
pub use coverage::{Coverage, Sometimes};
use world::World;

/// Everything about a run but its seed.
#[derive(Clone, Debug)]
pub struct Simulation {
    /// A defect that the store has.
    pub bug: Option<PlantedBug>,
    /// How many steps a run has.
    pub steps: u64,
    /// The command that runs a simulation like this one; `--seed N` is added in reports.
    pub command: String,
    /// What all runs together have met.
    pub coverage: Arc<Coverage>,
}

impl Default for Simulation {
    fn default() -> Self {
        Self { bug: None, steps: 120, command: String::new(), coverage: Arc::default() }
    }
}

impl Simulation {
    /// Runs one seed.
    #[must_use]
    pub fn run(&self, seed: u64) -> Report {
        self.run_and_tell(seed).0
    }

    /// Runs one seed, and tells what its last steps were.
    #[must_use]
    pub fn run_and_tell(&self, seed: u64) -> (Report, Vec<String>) {
        bug::plant(self.bug);
        let mut world = World::new(seed, Arc::clone(&self.coverage));
        let outcome = catch_unwind(AssertUnwindSafe(|| world.run(self.steps)));
        bug::plant(None);
        let violation = match outcome {
            Ok(outcome) => outcome.err(),
            Err(panic) => {
                let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
                let text = text.or_else(|| panic.downcast_ref::<String>().cloned());
                Some(Violation::new("no panic", text.unwrap_or_default()))
            }
        };
        let bug = self.bug.map(|bug| format!(" --bug {bug}")).unwrap_or_default();
        let report = Report {
            hash: world.hash(),
            phase: if violation.is_some() { Phase::Safety } else { Phase::Done },
            simulated: Duration::from_millis(world.elapsed_ms()),
            events: world.recorded(),
            operations: world.checked(),
            violation,
            replay: format!("{} --seed {seed}{bug}", self.command),
            ..Report::new(seed)
        };
        (report, world.into_story())
    }

    /// Runs one seed twice. That the second run is not the same as the first is a violation.
    #[must_use]
    pub fn run_twice(&self, seed: u64) -> Report {
        let (mut one, other) = (self.run(seed), self.run(seed));
        if one.hash != other.hash && one.is_ok() {
            let detail = format!("{:032x} and {:032x}", one.hash, other.hash);
            one.violation = Some(Violation::new("the same seed gives the same run", detail));
        }
        one
    }
}
