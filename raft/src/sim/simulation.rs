//! One run from one seed.

use std::path::PathBuf;
use std::time::Duration;

use lattice_sim::{
    Demand, FaultKind, Faults, Kept, Plan, Report, RunOptions, Shrunk, Violation, WorldOptions,
    run, shrink,
};

use super::PlantedBug;
use super::check::Oracle;
use super::cluster::SimCluster;
use super::shape::{Shape, Tuning};
use super::spec::SpecTrace;
use super::workload::{Retried, Swaps, Workload};

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
    /// Which kinds of faults a run may get, if its tuning lets it choose. With [`FaultKind::SyncLie`] among them nothing is demanded but that
    /// nobody panics: no protocol survives a disk that lies.
    pub faults: Vec<FaultKind>,
    /// More disks may be damaged than the cluster can do without. Then nobody has to make progress, and still nobody may say anything
    /// wrong, nor stop without a clear reason.
    pub beyond_budget: bool,
    /// How long faults strike.
    pub safety: Duration,
    /// The command that runs a simulation like this one; `--seed N` is added in reports.
    pub command: String,
    /// Where a failing run leaves its trace as `N.jsonl`; nowhere if `None`.
    pub failures: Option<PathBuf>,
}

/// What runs may get unless told otherwise: everything that can be survived.
pub const FAULTS: &[FaultKind] = &FaultKind::SURVIVABLE;

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
            faults: FAULTS.to_vec(),
            beyond_budget: false,
            safety: Duration::from_secs(20),
            command: String::new(),
            failures: None,
        }
    }

    /// Runs one seed.
    pub fn run(&self, seed: u64) -> Report {
        let faults = Faults::Given(self.tuning.faults(seed, &self.faults));
        self.run_with(seed, faults, self.safety, None, None)
    }

    /// Runs one seed and writes it down as the module `TraceData` of the TLA+ specification (`raft/tla`).
    pub fn run_for_spec(&self, seed: u64) -> (Report, String) {
        let spec = SpecTrace::default();
        let faults = Faults::Given(self.tuning.faults(seed, &self.faults));
        let report = self.run_with(seed, faults, self.safety, None, Some(&spec));
        let founders = Shape::draw(seed, self.tuning, self.bug).setup.founders;
        (report, spec.module(&founders))
    }

    /// Runs what is left of a run, in the same cluster.
    fn run_plan(&self, seed: u64, plan: &Plan) -> Report {
        self.run_with(
            seed,
            Faults::Recorded(plan.faults.clone()),
            plan.safety,
            plan.kept.as_ref(),
            None,
        )
    }

    /// Makes a failing run as small as it can be made with so many runs. `None` if the run does not fail.
    pub fn shrink(&self, seed: u64, runs_max: u64) -> Option<Shrunk> {
        let quiet = Self { failures: None, ..self.clone() };
        let mut shrunk = shrink(&quiet.run(seed), runs_max, |plan| quiet.run_plan(seed, plan))?;
        let settings = &mut shrunk.plan.settings;
        settings.insert("seed".to_owned(), seed.to_string());
        settings.insert("tuning".to_owned(), self.tuning.name().to_owned());
        if let Some(bug) = self.bug {
            settings.insert("bug".to_owned(), bug.to_string());
        }
        if self.demand() != Demand::All {
            settings.insert("demand".to_owned(), demand_name(self.demand()).to_owned());
        }
        Some(shrunk)
    }

    /// Runs a plan that [`Simulation::shrink`] has made, with the seed, the tuning and the bug that it names.
    ///
    /// # Errors
    /// What the plan does not say, or says wrongly.
    pub fn replay(&self, plan: &Plan) -> Result<Report, String> {
        let setting = |name: &str| plan.settings.get(name);
        let seed = setting("seed").ok_or("the plan names no seed")?;
        let seed = seed.parse().map_err(|error| format!("seed {seed}: {error}"))?;
        let mut simulation = self.clone();
        simulation.bug = setting("bug").map(|bug| bug.parse()).transpose()?;
        simulation.tuning =
            setting("tuning").map(|tuning| tuning.parse()).transpose()?.unwrap_or_default();
        match setting("demand").map(String::as_str) {
            None => {}
            Some("safety") => simulation.beyond_budget = true,
            Some("no-panic") => simulation.faults.push(FaultKind::SyncLie),
            Some(other) => return Err(format!("no demand is called {other}")),
        }
        Ok(simulation.run_plan(seed, plan))
    }

    fn demand(&self) -> Demand {
        if self.faults.contains(&FaultKind::SyncLie) {
            Demand::NoPanic
        } else if self.beyond_budget {
            Demand::Safety
        } else {
            Demand::All
        }
    }

    fn run_with(
        &self,
        seed: u64,
        faults: Faults,
        safety: Duration,
        kept: Option<&Kept>,
        spec: Option<&SpecTrace>,
    ) -> Report {
        let draw = || {
            let mut shape = Shape::draw(seed, self.tuning, self.bug);
            shape.is_beyond_budget = self.beyond_budget;
            shape.kept = kept.cloned();
            shape.setup.spec = spec.cloned();
            shape
        };
        let shape = draw();
        let mut world = WorldOptions::new(seed);
        world.hash_messages = false;
        (world.link, world.disk.latency) = (shape.link, shape.disk);
        let mut options = RunOptions::new(world, self.tuning.nemesis(shape.addresses()));
        options.faults = faults;
        options.demand = self.demand();
        options.safety = safety;
        options.progress_within = shape.progress_within();
        options.progress_min = PROGRESS_MIN;
        options.replay = self.command_of(seed);
        options.failures = self.failures.clone();
        run(&options, || SimCluster::new(self.workload.clone(), draw(), safety, self.oracle))
    }

    /// The same, with other clients and another machine.
    pub fn with<V: Workload>(&self, workload: V) -> Simulation<V> {
        Simulation {
            workload,
            tuning: self.tuning,
            bug: self.bug,
            oracle: self.oracle,
            faults: self.faults.clone(),
            beyond_budget: self.beyond_budget,
            safety: self.safety,
            command: self.command.clone(),
            failures: self.failures.clone(),
        }
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

    fn command_of(&self, seed: u64) -> String {
        let bug = match (self.bug, self.tuning) {
            (Some(bug), _) => format!(" --bug {bug}"),
            (None, Tuning::General) => String::new(),
            (None, tuning) => format!(" --tuning {}", tuning.name()),
        };
        let beyond = if self.beyond_budget { " --beyond-budget" } else { "" };
        format!("{} --seed {seed}{bug}{beyond}", self.command)
    }
}

impl Simulation<Swaps> {
    /// Runs one seed with the clients that show the planted bug, if there is one: those of most bugs need no sessions.
    pub fn run_planted(&self, seed: u64) -> Report {
        match self.bug {
            Some(PlantedBug::SessionsForgottenInSnapshots) => {
                self.with(Retried::new(true)).run(seed)
            }
            _ => self.run(seed),
        }
    }
}

fn demand_name(demand: Demand) -> &'static str {
    match demand {
        Demand::All => "all",
        Demand::Safety => "safety",
        Demand::NoPanic => "no-panic",
    }
}
