//! A whole node in the simulator: one seed, one run, every answer checked.
//!
//! A run has an [`Engine`](crate::engine::Engine) with its real store, sessions and registries. Only the clock is simulated: it
//! stands still, or jumps by milliseconds or by months. Clients of both protocols execute drawn commands in a drawn order: they
//! write and read, track what they cache, watch, wait for elements, hold leases, scan while others write, and leave. The wheels
//! turn at drawn moments, early, late, or a little. Some runs have a memory limit, with a drawn policy.
//!
//! Beside the node runs a [model](model) of plain maps, which says what every command has to answer. After every step is checked:
//!
//! - nothing is served at or after its deadline, and once a wheel has turned to its end nothing is left that a tick ago was due;
//! - every expiry and eviction is announced, once, and of nothing else; eviction keeps to the policy; the counts of keys, and of keys with a deadline, are true;
//! - a full scan returns every key, or element, that was there throughout, and while nothing changes none twice;
//! - what a tracking client caches is what the node holds, once its messages are read;
//! - `EXEC` runs if and only if no watched key has changed;
//! - those who wait are served first come first, each once, and no element is lost or doubled;
//! - at most one lease stands for a key, and only its token publishes;
//! - memory stays near the limit, versions ascend, and the parts of the store agree with each other.
//!
//! A violation names the seed that shows it again. What runs have met is counted ([`Coverage`]), and a campaign that never met
//! something proves nothing about it. Field deadlines in hashes are left to the store's model test; wrong kinds and malformed
//! commands to the differential fuzzer; threads to the tests with real sockets.

mod bug;
mod client;
mod coverage;
mod draw;
pub mod fuzz;
mod model;
mod operation;
mod reply;
mod scan;
mod waits;
mod world;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use lattice_sim::{Phase, Report, Violation};

pub use bug::PlantedBug;
pub use coverage::{Coverage, Sometimes};
use world::World;

/// Everything about a run but its seed.
#[derive(Clone, Debug)]
pub struct Simulation {
    /// A defect that the node has.
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
        Self { bug: None, steps: 600, command: String::new(), coverage: Arc::default() }
    }
}

impl Simulation {
    /// Runs one seed.
    #[must_use]
    pub fn run(&self, seed: u64) -> Report {
        self.run_and_tell(seed).0
    }

    /// Runs one seed, and tells what its last commands were.
    #[must_use]
    pub fn run_and_tell(&self, seed: u64) -> (Report, Vec<String>) {
        let mut world = World::new(seed, self.bug, Arc::clone(&self.coverage));
        let outcome = catch_unwind(AssertUnwindSafe(|| world.run(self.steps)));
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
            events: world.commands(),
            operations: world.commands(),
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
