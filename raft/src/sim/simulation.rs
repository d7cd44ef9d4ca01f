//! One run from one seed.

use std::path::PathBuf;
use std::time::Duration;

use lattice_sim::{Faults, Report, RunOptions, Violation, WorldOptions, run};

use super::PlantedBug;
use super::check::Oracle;
use super::cluster::SimCluster;
use super::shape::{Shape, Tuning};
use super::spec::SpecTrace;
use super::workload::Workload;

/// Everything about a run but its seed.
#[derive(Clone, Debug)]
pub struct Simulation<W> {
    /// The machine and its clients.
    pub workload: W,
    /// What runs look for.
    pub tuning: Tuning,
    /// A defect that all nodes have.
    pub bug: Option<PlantedBug>,
    /// Which checks of linearizability are made.
    pub oracle: Oracle,
    /// How long faults strike.
    pub safety: Duration,
    /// The command that runs a simulation like this one; `--seed N` is added in reports.
    pub command: String,
    /// Where a failing run leaves its trace as `N.jsonl`; nowhere if `None`.
    pub failures: Option<PathBuf>,
}

/// Operations that must end well once everything is healed.
const PROGRESS_MIN: u64 = 5;

impl<W: Workload> Simulation<W> {
    /// Twenty seconds of faults.
    pub fn new(workload: W) -> Self {
        Self {
            workload,
            tuning: Tuning::General,
            bug: None,
            oracle: Oracle::Both,
            safety: Duration::from_secs(20),
            command: String::new(),
            failures: None,
        }
    }

    /// Runs one seed.
    pub fn run(&self, seed: u64) -> Report {
        self.run_told(seed, None)
    }

    /// Runs one seed and writes it down as the module `TraceData` of the TLA+ specification (`raft/tla`).
    pub fn run_for_spec(&self, seed: u64) -> (Report, String) {
        let spec = SpecTrace::default();
        let report = self.run_told(seed, Some(&spec));
        let founders = Shape::draw(seed, self.tuning, self.bug).setup.founders;
        (report, spec.module(&founders))
    }

    fn run_told(&self, seed: u64, spec: Option<&SpecTrace>) -> Report {
        let draw = || {
            let mut shape = Shape::draw(seed, self.tuning, self.bug);
            shape.setup.spec = spec.cloned();
            shape
        };
        let shape = draw();
        let mut world = WorldOptions::new(seed);
        world.hash_messages = false;
        (world.link, world.disk.latency) = (shape.link, shape.disk);
        let mut options = RunOptions::new(world, self.tuning.nemesis(shape.addresses()));
        options.faults = Faults::Given(self.tuning.faults(seed));
        options.safety = self.safety;
        options.progress_within = shape.progress_within();
        options.progress_min = PROGRESS_MIN;
        options.replay = self.replay(seed);
        options.failures = self.failures.clone();
        run(&options, || SimCluster::new(self.workload.clone(), draw(), self.safety, self.oracle))
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
        let bug = match (self.bug, self.tuning) {
            (Some(bug), _) => format!(" --bug {bug}"),
            (None, Tuning::General) => String::new(),
            (None, tuning) => format!(" --tuning {}", tuning.name()),
        };
        format!("{} --seed {seed}{bug}", self.command)
    }
}
