//! Faults strike, each is healed after a while, and all of it is written down.

mod carrying_out;
mod drawing;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use crate::fault::{Fault, FaultKind, Schedule, Swarm, Target, waiting_time};
use crate::process::{Address, Process};
use crate::random::{ChaCha8Rng, Span, stream};
use crate::world::World;

/// What the nemesis may do.
#[derive(Clone, Debug)]
pub struct NemesisOptions {
    /// The nodes that faults may hit. Clients are best left out: nobody promises that they survive.
    pub targets: Vec<Address>,
    /// How many of the targets stay up and unpaused at least, as far as crashes, kills and pauses go. Only
    /// [`FaultKind::CrashAll`] goes further, which is its point.
    pub up_min: usize,
    /// How long a node is down.
    pub restart: Span,
    /// How long a fault lasts that heals by itself.
    pub lasts: Span,
    /// How far clocks jump.
    pub jump: Span,
    /// How fast or slow clocks run at most, in millionths.
    pub drift_ppm: u32,
}

impl NemesisOptions {
    /// Faults on these nodes, of which none has to stay up: down for up to 3 s, other faults up to 5 s, clocks off by
    /// up to an hour and 10 %.
    pub fn new(targets: impl IntoIterator<Item = Address>) -> Self {
        Self {
            targets: targets.into_iter().collect(),
            up_min: 0,
            restart: Span::millis(1, 3_000),
            lasts: Span::millis(50, 5_000),
            jump: Span::millis(1, 3_600_000),
            drift_ppm: 100_000,
        }
    }
}

/// What ends a fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Cure {
    Partition,
    Loss,
    Duplication,
    Reorder,
    Delay,
    ClockDrift(Address),
    DiskFull(Address),
    DiskSlow(Address),
    FrameCorruption,
    Connection(Address, Address),
    DiskHang(Address),
    BadReads(Address),
    DiskSwap(Address, Address),
    SyncLie(Address),
}

/// Says what a fault may hit that [asks](FaultKind::asks), and whether it may strike now.
pub(crate) type Atlas<'a, P> =
    &'a mut dyn FnMut(&World<P>, FaultKind, &mut ChaCha8Rng) -> Option<Target>;

/// Where faults come from.
#[derive(Debug)]
enum Source {
    /// They are drawn, and strike next at these times.
    Drawn { swarm: Swarm, strikes: BTreeMap<FaultKind, Duration> },
    /// They were drawn in another run.
    Recorded(VecDeque<Fault>),
}

/// Injects faults into a world: those of a [`Swarm`], at times that it draws from a stream of its own, or those of a [`Schedule`].
///
/// The driver of the run asks for [`Nemesis::next_at`], lets the world come to that time, and calls [`Nemesis::act`].
#[derive(Debug)]
pub struct Nemesis {
    options: NemesisOptions,
    source: Source,
    rng: ChaCha8Rng,
    /// When those start again who ended themselves is drawn from a stream of its own, so that it is the same under a schedule.
    restarts: ChaCha8Rng,
    cures: BTreeSet<(Duration, Cure)>,
    counts: BTreeMap<FaultKind, u64>,
    capacities: BTreeMap<Address, Option<u64>>,
    done: Schedule,
}

impl Nemesis {
    /// A nemesis whose first faults come after `now`.
    pub fn new(seed: u64, swarm: Swarm, options: NemesisOptions, now: Duration) -> Self {
        let mut rng = stream(seed, "faults", 0);
        let strikes = swarm
            .intervals()
            .map(|(kind, interval)| (kind, now + waiting_time(&mut rng, interval)))
            .collect();
        Self::with_source(seed, Source::Drawn { swarm, strikes }, options, rng)
    }

    /// A nemesis that does what another one did, or a part of it.
    pub fn recorded(seed: u64, mut schedule: Schedule, options: NemesisOptions) -> Self {
        schedule.sort_by_key(|fault| fault.at);
        let rng = stream(seed, "faults", 0);
        Self::with_source(seed, Source::Recorded(schedule.into()), options, rng)
    }

    fn with_source(seed: u64, source: Source, options: NemesisOptions, rng: ChaCha8Rng) -> Self {
        Self {
            options,
            source,
            rng,
            restarts: stream(seed, "restarts", 0),
            cures: BTreeSet::new(),
            counts: BTreeMap::new(),
            capacities: BTreeMap::new(),
            done: Schedule::new(),
        }
    }

    /// When there is something to do next.
    pub fn next_at(&self) -> Option<Duration> {
        let strike = match &self.source {
            Source::Drawn { strikes, .. } => strikes.values().min().copied(),
            Source::Recorded(faults) => faults.front().map(|fault| fault.at),
        };
        let cure = self.cures.first().map(|(at, _)| *at);
        strike.into_iter().chain(cure).min()
    }

    /// How many faults of each kind have struck.
    pub fn counts(&self) -> &BTreeMap<FaultKind, u64> {
        &self.counts
    }

    /// The faults that have struck, in their order.
    pub fn schedule(&self) -> &Schedule {
        &self.done
    }

    /// Does what is due by now. Faults that [ask](FaultKind::asks) do not strike.
    pub fn act<P: Process>(&mut self, world: &mut World<P>) {
        self.act_within(world, &mut |_, _, _| None);
    }

    /// Does what is due by now, within what the scenario allows.
    pub(crate) fn act_within<P: Process>(&mut self, world: &mut World<P>, atlas: Atlas<'_, P>) {
        while let Some((_, cure)) = self.pop_cure(world.now()) {
            self.cure(world, cure);
        }
        let now = world.now();
        match &mut self.source {
            Source::Drawn { swarm, strikes } => {
                let mut due = Vec::new();
                for (kind, interval) in swarm.intervals() {
                    if strikes.get(&kind).is_some_and(|at| *at <= now) {
                        let wait = waiting_time(&mut self.rng, interval);
                        strikes.insert(kind, now + wait.max(Duration::from_millis(1)));
                        due.push(kind);
                    }
                }
                for kind in due {
                    self.strike_within(world, kind, atlas);
                }
            }
            Source::Recorded(faults) => {
                let mut due = Vec::new();
                while let Some(fault) = faults.pop_front_if(|fault| fault.at <= now) {
                    due.push(fault);
                }
                for fault in due {
                    self.carry_out(world, fault);
                }
            }
        }
    }

    /// Injects one fault of this kind now, if the world allows it; answers whether it did. A fault that [asks](FaultKind::asks) does
    /// not strike.
    pub fn strike<P: Process>(&mut self, world: &mut World<P>, kind: FaultKind) -> bool {
        self.strike_within(world, kind, &mut |_, _, _| None)
    }

    fn strike_within<P: Process>(
        &mut self,
        world: &mut World<P>,
        kind: FaultKind,
        atlas: Atlas<'_, P>,
    ) -> bool {
        let Some(fault) = self.draw(world, kind, atlas) else {
            return false;
        };
        self.carry_out(world, fault);
        true
    }

    /// Starts a node again that ended itself, after a while.
    pub fn revive<P: Process>(&mut self, world: &mut World<P>, address: Address) {
        if self.options.targets.contains(&address) {
            let delay = self.options.restart.draw(&mut self.restarts);
            world.restart_after(address, delay);
        }
    }

    fn pop_cure(&mut self, now: Duration) -> Option<(Duration, Cure)> {
        if self.cures.first()?.0 <= now { self.cures.pop_first() } else { None }
    }

    fn end_strikes(&mut self) {
        match &mut self.source {
            Source::Drawn { strikes, .. } => strikes.clear(),
            Source::Recorded(faults) => faults.clear(),
        }
    }

    /// Whether a fault is going on that this ends.
    fn awaits(&self, cure: Cure) -> bool {
        self.cures.iter().any(|(_, other)| *other == cure)
    }
}
