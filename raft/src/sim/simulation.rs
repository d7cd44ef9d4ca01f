//! One run from one seed.

use std::path::PathBuf;
use std::time::Duration;

use lattice_sim::random::{between, stream};
use lattice_sim::{
    Chance, ChaCha8Rng, FaultKind, Faults, NemesisOptions, Report, RunOptions, Swarm, Violation,
    WorldOptions, run,
};

use super::PlantedBug;
use super::cluster::{Shape, SimCluster};
use super::workload::Workload;

/// Everything about a run but its seed.
#[derive(Clone, Debug)]
pub struct Simulation<W> {
    /// The machine and its clients.
    pub workload: W,
    /// A defect that all nodes have.
    pub bug: Option<PlantedBug>,
    /// How long faults strike.
    pub safety: Duration,
    /// The command that runs a simulation like this one; `--seed N` is added in reports.
    pub command: String,
    /// Where a failing run leaves its trace as `N.jsonl`; nowhere if `None`.
    pub failures: Option<PathBuf>,
}

/// Ten of the longest election timeouts, and time for a few clients to give up what they were waiting for.
const PROGRESS_WITHIN: Duration = Duration::from_millis(10 * 300 + 3_000);
/// Operations that must end well in that time.
const PROGRESS_MIN: u64 = 5;

/// One run in four is a storm, in which little gets done and recovery meets recovery. The others leave time between
/// faults for elections, commits and snapshots, so that a fault meets them.
fn draw_faults(rng: &mut ChaCha8Rng) -> Swarm {
    if Chance::percent(25).happens(rng) {
        return Swarm::draw(rng, &FaultKind::ALL);
    }
    let density = u32::try_from(between(rng, 10, 50)).expect("at most 50");
    let mut swarm = Swarm::none();
    for kind in FaultKind::ALL {
        let (is_in, doubled) = (Chance::percent(density).happens(rng), between(rng, 0, 4));
        if is_in {
            swarm = swarm.with(kind, Duration::from_millis(between(rng, 600, 1_200) << doubled));
        }
    }
    swarm
}

impl<W: Workload> Simulation<W> {
    /// Twenty seconds of faults.
    pub fn new(workload: W) -> Self {
        Self {
            workload,
            bug: None,
            safety: Duration::from_secs(20),
            command: String::new(),
            failures: None,
        }
    }

    /// Runs one seed.
    pub fn run(&self, seed: u64) -> Report {
        let shape = Shape::draw(seed, self.bug);
        let mut world = WorldOptions::new(seed);
        world.hash_messages = false;
        let mut options = RunOptions::new(world, NemesisOptions::new(shape.addresses()));
        options.faults = Faults::Given(draw_faults(&mut stream(seed, "swarm", 0)));
        options.safety = self.safety;
        options.progress_within = PROGRESS_WITHIN;
        options.progress_min = PROGRESS_MIN;
        options.replay = self.replay(seed);
        options.failures = self.failures.clone();
        run(&options, || SimCluster::new(self.workload.clone(), shape.clone()))
    }

    /// Runs one seed twice. That the second run is not the same as the first is a violation.
    pub fn run_twice(&self, seed: u64) -> Report {
        let (mut one, other) = (self.run(seed), self.run(seed));
        if one.hash != other.hash && one.is_ok() {
            let detail = format!("{:032x} and {:032x}", one.hash, other.hash);
            one.violation = Some(Violation::new("the same seed gives the same run", detail));
        }
        one
    }

    fn replay(&self, seed: u64) -> String {
        let bug = self.bug.map(|bug| format!(" --bug {bug}")).unwrap_or_default();
        format!("{} --seed {seed}{bug}", self.command)
    }
}
