//! One run of a scenario: faults, then healing, then agreement.
//!
//! 1. **Safety.** The world runs for a while under the faults of a [`Swarm`] that the seed has drawn. After every event
//!    the scenario checks what must never be broken.
//! 2. **Healing.** All faults end and every node is up. Within a bound the scenario must have made progress: a protocol
//!    that is safe because it has stopped for good fails here.
//! 3. **Convergence.** No new work comes in. Within a bound everything that is to agree must agree.
//!
//! A run that fails is run again, with the trace kept, and the trace is written as JSON lines, beside it a page for people
//! ([`crate::check::Page`]). That it fails in the same way the second time is what determinism is for: if it does not, the
//! report says so, and that is the bug.

use std::any::Any;
use std::collections::BTreeMap;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::time::Duration;

use crate::check::{Page, Searched};
use crate::fault::{FaultKind, Nemesis, NemesisOptions, Schedule, Swarm, Target};
use crate::marker::Markers;
use crate::process::{Address, Process};
use crate::random::{ChaCha8Rng, stream};
use crate::recorder::TraceKeep;
use crate::world::{Step, World, WorldOptions};

mod failure;
mod spans;

/// How many events of a failing run are written.
const TRACE_EVENTS_MAX: usize = 500_000;

/// The property of which a panic is a violation.
const NO_PANIC: &str = "no panic";

/// How often convergence is looked at.
const CONVERGENCE_POLL: Duration = Duration::from_millis(100);

/// What is run, and what it has to hold.
pub trait Scenario {
    /// The processes: nodes and clients.
    type Process: Process;

    /// Adds the processes to the empty world.
    fn build(&mut self, world: &mut World<Self::Process>);

    /// Checks after one event that nothing is broken.
    ///
    /// # Errors
    /// What is broken.
    fn check_step(&mut self, world: &World<Self::Process>, step: &Step) -> Result<(), Violation>;

    /// How far the work has come; it never goes down. Acknowledged operations, for example.
    fn progress(&self, world: &World<Self::Process>) -> u64;

    /// Stops new work: the clients fall silent.
    fn quiesce(&mut self, world: &mut World<Self::Process>);

    /// Checks in the end, when all faults are healed and no work comes in, that everything agrees and nothing is
    /// missing. Asked again until it holds or the bound has passed.
    ///
    /// # Errors
    /// What does not agree yet.
    fn converged(&mut self, world: &World<Self::Process>) -> Result<(), Violation>;

    /// Operations of clients whose outcome was checked, for the report.
    fn operations(&self, world: &World<Self::Process>) -> u64 {
        self.progress(world)
    }

    /// What a fault of a kind that [asks](FaultKind::asks) may hit now; `None` if nothing, for the protocol could not survive it.
    /// [`draw_sector`](crate::draw_sector) helps to find a place.
    fn target(
        &mut self,
        world: &World<Self::Process>,
        kind: FaultKind,
        rng: &mut ChaCha8Rng,
    ) -> Option<Target> {
        let _ = (world, kind, rng);
        None
    }

    /// Checks in the end what must be right even where no progress and no agreement is demanded: what clients were told, for example.
    ///
    /// # Errors
    /// What is wrong.
    fn checked(&mut self, world: &World<Self::Process>) -> Result<(), Violation> {
        let _ = world;
        Ok(())
    }

    /// How many operations each client has begun, so that a failing run can be shrunk by leaving some out.
    fn begun(&self, world: &World<Self::Process>) -> BTreeMap<Address, u64> {
        let _ = world;
        BTreeMap::new()
    }

    /// How many histories of clients were searched for an order, and how many of them were too hard.
    fn searched(&self) -> Searched {
        Searched::default()
    }

    /// What the clients saw of a violation, and who led meanwhile, for the page that is written beside the trace. The
    /// run adds the faults and what it knows about itself. Asked of the second run, which keeps its trace.
    fn page(&self, world: &World<Self::Process>, violation: &Violation) -> Option<Page> {
        let _ = (world, violation);
        None
    }
}

/// A property that does not hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// The property, by its name.
    pub property: String,
    /// How it was broken.
    pub detail: String,
}

impl Violation {
    /// A violation of `property`.
    pub fn new(property: impl Into<String>, detail: impl Into<String>) -> Self {
        Self { property: property.into(), detail: detail.into() }
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.property, self.detail)
    }
}

impl std::error::Error for Violation {}

/// Which faults a run gets.
#[derive(Clone, Debug)]
pub enum Faults {
    /// A swarm drawn from the seed, out of these kinds.
    Drawn(Vec<FaultKind>),
    /// These.
    Given(Swarm),
    /// Exactly these, which another run has [written down](Report::schedule).
    Recorded(Schedule),
}

/// What a run has to hold.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Demand {
    /// Nothing wrong ever happens, and when faults have ended everything works and agrees.
    #[default]
    All,
    /// Nothing wrong ever happens. The faults may have destroyed more than can be got back, so nodes may refuse to go on.
    Safety,
    /// Nobody panics. Everything else that is wrong is counted: the faults break what every protocol builds on.
    NoPanic,
}

/// How a scenario is run.
#[derive(Clone, Debug)]
pub struct RunOptions {
    /// The world, and with it the seed.
    pub world: WorldOptions,
    /// Which faults.
    pub faults: Faults,
    /// On which nodes, and within which bounds.
    pub nemesis: NemesisOptions,
    /// What the run has to hold.
    pub demand: Demand,
    /// How long faults strike.
    pub safety: Duration,
    /// Within which time there must be progress once everything is healed.
    pub progress_within: Duration,
    /// How much progress that must be.
    pub progress_min: u64,
    /// Within which time everything must agree once the work has stopped.
    pub convergence_within: Duration,
    /// The command that runs this seed again, for the report.
    pub replay: String,
    /// Where failing runs leave their traces, as `SEED.jsonl`, and their pages, as `SEED.html`; nowhere if `None`.
    pub failures: Option<PathBuf>,
}

impl RunOptions {
    /// A minute of any faults that can be survived on these nodes, progress within 30 s, agreement within 30 s.
    pub fn new(world: WorldOptions, nemesis: NemesisOptions) -> Self {
        Self {
            world,
            faults: Faults::Drawn(FaultKind::SURVIVABLE.to_vec()),
            nemesis,
            demand: Demand::All,
            safety: Duration::from_secs(60),
            progress_within: Duration::from_secs(30),
            progress_min: 1,
            convergence_within: Duration::from_secs(30),
            replay: String::new(),
            failures: None,
        }
    }
}

/// How far a run has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Faults strike.
    Safety,
    /// Everything is healed and has to work.
    Healing,
    /// No work comes in and everything has to agree.
    Convergence,
    /// Everything holds.
    Done,
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Safety => "safety",
            Self::Healing => "healing",
            Self::Convergence => "convergence",
            Self::Done => "done",
        })
    }
}

/// What a run has shown.
#[derive(Clone, Debug)]
pub struct Report {
    /// The seed.
    pub seed: u64,
    /// The hash of everything that happened: the same seed gives the same one.
    pub hash: u128,
    /// The faults that were drawn.
    pub swarm: Swarm,
    /// The phase in which the run ended.
    pub phase: Phase,
    /// How long the world ran, on its own clock.
    pub simulated: Duration,
    /// How many events processes handled.
    pub events: u64,
    /// How long faults struck, or were to.
    pub safety: Duration,
    /// How many faults of each kind struck.
    pub faults: BTreeMap<FaultKind, u64>,
    /// All of them, one by one.
    pub schedule: Schedule,
    /// How many operations each client has begun.
    pub begun: BTreeMap<Address, u64>,
    /// What was met that has to be met sometimes.
    pub markers: Markers,
    /// How many operations were checked.
    pub operations: u64,
    /// Histories of clients that were searched for an order.
    pub searched: Searched,
    /// What was broken, if something was.
    pub violation: Option<Violation>,
    /// What was broken and does not count, for less was [demanded](Demand).
    pub tolerated: Option<Violation>,
    /// Where the trace of the failure is.
    pub trace: Option<PathBuf>,
    /// Where its page is.
    pub page: Option<PathBuf>,
    /// The command that runs this seed again.
    pub replay: String,
}

impl Report {
    /// A run of which nothing is known yet but its seed.
    pub fn new(seed: u64) -> Self {
        Self {
            seed,
            hash: 0,
            swarm: Swarm::none(),
            phase: Phase::Safety,
            simulated: Duration::ZERO,
            events: 0,
            safety: Duration::ZERO,
            faults: BTreeMap::new(),
            schedule: Schedule::new(),
            begun: BTreeMap::new(),
            markers: Markers::default(),
            operations: 0,
            searched: Searched::default(),
            violation: None,
            tolerated: None,
            trace: None,
            page: None,
            replay: String::new(),
        }
    }

    /// Whether everything held.
    pub fn is_ok(&self) -> bool {
        self.violation.is_none()
    }

    /// Panics with the whole report if something was broken, for tests.
    ///
    /// # Panics
    /// If the run found a violation.
    pub fn assert_ok(&self) {
        assert!(self.is_ok(), "{self}");
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "seed {} hash {:032x}", self.seed, self.hash)?;
        writeln!(f, "swarm: {}", self.swarm)?;
        write!(
            f,
            "{:.1} s simulated, {} events, {} operations checked",
            self.simulated.as_secs_f64(),
            self.events,
            self.operations
        )?;
        for (kind, count) in &self.faults {
            write!(f, ", {count} {kind}")?;
        }
        if let Some(tolerated) = &self.tolerated {
            write!(f, "\nnot counted: {tolerated}")?;
        }
        let Some(violation) = &self.violation else {
            return Ok(());
        };
        write!(f, "\nVIOLATION during {}: {violation}", self.phase)?;
        if !self.replay.is_empty() {
            write!(f, "\nreplay: {}", self.replay)?;
        }
        if let Some(trace) = &self.trace {
            write!(f, "\ntrace: {}", trace.display())?;
        }
        if let Some(page) = &self.page {
            write!(f, "\npage: {}", page.display())?;
        }
        Ok(())
    }
}

/// Runs a scenario. `make` makes it, and makes it again if the run fails and its trace is wanted.
///
/// A panic of the scenario or of its processes is a violation like any other.
pub fn run<S: Scenario>(options: &RunOptions, mut make: impl FnMut() -> S) -> Report {
    let mut first = Run::new(options.clone(), make());
    first.go();
    let mut report = first.report();
    if let (Some(violation), Some(directory)) = (&mut report.violation, &options.failures) {
        let mut options = options.clone();
        options.world.keep = TraceKeep::Last(TRACE_EVENTS_MAX);
        let mut again = Run::new(options, make());
        again.go();
        if again.world.hash() != report.hash {
            violation.detail.push_str(" (and a second run of the same seed went another way)");
        }
        match failure::write_trace(&again.world, directory, report.seed) {
            Ok(path) => report.trace = Some(path),
            Err(error) => violation.detail.push_str(&format!(" (no trace was written: {error})")),
        }
        if let Some(page) = again.page(&report.swarm) {
            match failure::write_page(&page, directory, report.seed) {
                Ok(path) => report.page = Some(path),
                Err(error) => {
                    violation.detail.push_str(&format!(" (no page was written: {error})"));
                }
            }
        }
    }
    report
}

struct Run<S: Scenario> {
    options: RunOptions,
    scenario: S,
    world: World<S::Process>,
    swarm: Swarm,
    nemesis: Nemesis,
    phase: Phase,
    violation: Option<Violation>,
    tolerated: Option<Violation>,
}

impl<S: Scenario> Run<S> {
    fn new(options: RunOptions, scenario: S) -> Self {
        let seed = options.world.seed;
        let swarm = match &options.faults {
            Faults::Drawn(kinds) => Swarm::draw(&mut stream(seed, "swarm", 0), kinds),
            Faults::Given(swarm) => swarm.clone(),
            Faults::Recorded(_) => Swarm::none(),
        };
        let nemesis = match &options.faults {
            Faults::Recorded(schedule) => {
                Nemesis::recorded(seed, schedule.clone(), options.nemesis.clone())
            }
            Faults::Drawn(_) | Faults::Given(_) => {
                Nemesis::new(seed, swarm.clone(), options.nemesis.clone(), Duration::ZERO)
            }
        };
        Self {
            world: World::new(options.world),
            options,
            scenario,
            swarm,
            nemesis,
            phase: Phase::Safety,
            violation: None,
            tolerated: None,
        }
    }

    fn go(&mut self) {
        let outcome = catch_unwind(AssertUnwindSafe(|| self.phases()));
        self.violation = match outcome {
            Ok(outcome) => outcome.err(),
            Err(panic) => Some(Violation::new(NO_PANIC, text_of(panic.as_ref()))),
        };
        if self.options.demand == Demand::NoPanic {
            self.tolerated = self.violation.take_if(|violation| violation.property != NO_PANIC);
        }
    }

    fn phases(&mut self) -> Result<(), Violation> {
        self.scenario.build(&mut self.world);
        self.safety()?;
        self.phase = Phase::Healing;
        self.nemesis.heal(&mut self.world);
        match self.options.demand {
            Demand::All | Demand::NoPanic => self.healing()?,
            Demand::Safety => self.run_until(self.world.now() + self.options.progress_within)?,
        }
        self.phase = Phase::Convergence;
        self.scenario.quiesce(&mut self.world);
        match self.options.demand {
            Demand::All | Demand::NoPanic => self.convergence()?,
            Demand::Safety => self.run_until(self.world.now() + CONVERGENCE_POLL)?,
        }
        self.scenario.checked(&self.world)?;
        self.phase = Phase::Done;
        Ok(())
    }

    fn safety(&mut self) -> Result<(), Violation> {
        let end = self.options.safety;
        loop {
            let next = self.nemesis.next_at().unwrap_or(end).min(end);
            self.run_until(next)?;
            if next == end {
                return Ok(());
            }
            let scenario = &mut self.scenario;
            self.nemesis.act_within(&mut self.world, &mut |world, kind, rng| {
                scenario.target(world, kind, rng)
            });
        }
    }

    fn healing(&mut self) -> Result<(), Violation> {
        let goal = self.scenario.progress(&self.world) + self.options.progress_min;
        let bound = self.world.now() + self.options.progress_within;
        while self.scenario.progress(&self.world) < goal {
            if !self.step_until(bound)? {
                let (bound, missing) =
                    (self.options.progress_within, goal - self.scenario.progress(&self.world));
                let detail =
                    format!("{missing} operations short {bound:?} after everything healed");
                return Err(Violation::new("progress", detail));
            }
        }
        Ok(())
    }

    fn convergence(&mut self) -> Result<(), Violation> {
        let bound = self.world.now() + self.options.convergence_within;
        loop {
            self.run_until(self.world.now() + CONVERGENCE_POLL)?;
            match self.scenario.converged(&self.world) {
                Ok(()) => return Ok(()),
                Err(violation) if self.world.now() >= bound => return Err(violation),
                Err(_) => {}
            }
        }
    }

    fn run_until(&mut self, limit: Duration) -> Result<(), Violation> {
        while self.step_until(limit)? {}
        self.world.advance(limit);
        Ok(())
    }

    /// Takes one event if one happens by `limit`; answers whether it did.
    fn step_until(&mut self, limit: Duration) -> Result<bool, Violation> {
        let Some(step) = self.world.step_until(limit) else {
            return Ok(false);
        };
        self.scenario.check_step(&self.world, &step)?;
        if step.stopped {
            self.nemesis.revive(&mut self.world, step.address);
        }
        Ok(true)
    }

    /// The page of a run that has failed. None if the scenario draws none, or panics at it.
    fn page(&self, swarm: &Swarm) -> Option<Page> {
        let violation = self.violation.as_ref()?;
        let drawn = catch_unwind(AssertUnwindSafe(|| self.scenario.page(&self.world, violation)));
        let mut page = drawn.ok().flatten()?;
        let seed = self.options.world.seed;
        page.title = format!("Seed {seed}, at {:.3} s", self.world.now().as_secs_f64());
        page.found = violation.to_string();
        page.faults = spans::faults(&self.world, self.nemesis.schedule());
        let facts = [
            ("seed", seed.to_string()),
            ("replay", self.options.replay.clone()),
            ("hash", format!("{:032x}", self.world.hash())),
            ("phase", self.phase.to_string()),
            ("faults", swarm.to_string()),
            ("trace", format!("{seed}.jsonl, beside this page")),
        ];
        page.facts.extend(facts.map(|(name, value)| (name.to_owned(), value)));
        Some(page)
    }

    fn report(self) -> Report {
        // After a panic the scenario's own counting may be what panicked.
        let operations = catch_unwind(AssertUnwindSafe(|| self.scenario.operations(&self.world)));
        let begun = catch_unwind(AssertUnwindSafe(|| self.scenario.begun(&self.world)));
        Report {
            seed: self.options.world.seed,
            hash: self.world.hash(),
            swarm: self.swarm,
            phase: self.phase,
            simulated: self.world.now(),
            events: self.world.steps(),
            safety: self.options.safety,
            faults: self.nemesis.counts().clone(),
            schedule: self.nemesis.schedule().clone(),
            begun: begun.unwrap_or_default(),
            markers: self.world.markers().clone(),
            operations: operations.unwrap_or_default(),
            searched: self.scenario.searched(),
            violation: self.violation,
            tolerated: self.tolerated,
            trace: None,
            page: None,
            replay: self.options.replay,
        }
    }
}

fn text_of(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_default()
}
