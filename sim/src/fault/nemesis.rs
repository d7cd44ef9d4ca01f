//! Carrying faults out: one kind after the other, each healed after a while.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::fault::{FaultKind, Swarm, waiting_time};
use crate::process::{Address, Process};
use crate::random::{ChaCha8Rng, Chance, Span, below, between, index, shuffle, stream};
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
}

/// Injects the faults of a [`Swarm`] into a world, at times that it draws from a stream of its own.
///
/// The driver of the run asks for [`Nemesis::next_at`], lets the world come to that time, and calls [`Nemesis::act`].
#[derive(Debug)]
pub struct Nemesis {
    options: NemesisOptions,
    swarm: Swarm,
    rng: ChaCha8Rng,
    strikes: BTreeMap<FaultKind, Duration>,
    cures: BTreeSet<(Duration, Cure)>,
    counts: BTreeMap<FaultKind, u64>,
    capacities: BTreeMap<Address, Option<u64>>,
}

impl Nemesis {
    /// A nemesis whose first faults come after `now`.
    pub fn new(seed: u64, swarm: Swarm, options: NemesisOptions, now: Duration) -> Self {
        let mut rng = stream(seed, "faults", 0);
        let strikes = swarm
            .intervals()
            .map(|(kind, interval)| (kind, now + waiting_time(&mut rng, interval)))
            .collect();
        Self {
            options,
            swarm,
            rng,
            strikes,
            cures: BTreeSet::new(),
            counts: BTreeMap::new(),
            capacities: BTreeMap::new(),
        }
    }

    /// When there is something to do next.
    pub fn next_at(&self) -> Option<Duration> {
        let strike = self.strikes.values().min().copied();
        let cure = self.cures.first().map(|(at, _)| *at);
        strike.into_iter().chain(cure).min()
    }

    /// How many faults of each kind have struck.
    pub fn counts(&self) -> &BTreeMap<FaultKind, u64> {
        &self.counts
    }

    /// Does what is due by now.
    pub fn act<P: Process>(&mut self, world: &mut World<P>) {
        while let Some((_, cure)) = self.pop_cure(world.now()) {
            self.cure(world, cure);
        }
        let now = world.now();
        for (kind, interval) in self.swarm.clone().intervals() {
            if self.strikes[&kind] <= now {
                let wait = waiting_time(&mut self.rng, interval);
                self.strikes.insert(kind, now + wait.max(Duration::from_millis(1)));
                self.strike(world, kind);
            }
        }
    }

    /// Starts a node again that ended itself, after a while.
    pub fn revive<P: Process>(&mut self, world: &mut World<P>, address: Address) {
        if self.options.targets.contains(&address) {
            let delay = self.options.restart.draw(&mut self.rng);
            world.restart_after(address, delay);
        }
    }

    /// Ends all faults: the network is whole, clocks run true, disks are roomy and quick, and everybody is up.
    pub fn heal<P: Process>(&mut self, world: &mut World<P>) {
        self.strikes.clear();
        self.cures.clear();
        world.note_fault(Address(0), "heal");
        world.network_mut().heal();
        for address in self.options.targets.clone() {
            world.clock_mut(address).heal();
            self.restore_capacity(world, address);
            let sync_error = world.options().disk.sync_error;
            let disk = world.disk(address);
            disk.set_slowdown(1);
            disk.set_sync_error(sync_error);
            disk.clear_failing_syncs();
            world.resume(address);
            world.restart(address);
        }
    }

    /// Injects one fault of this kind now, if the world allows it; answers whether it did.
    pub fn strike<P: Process>(&mut self, world: &mut World<P>, kind: FaultKind) -> bool {
        let struck = match kind {
            FaultKind::Crash => self.take_down(world, World::crash),
            FaultKind::Kill => self.take_down(world, World::kill),
            FaultKind::CrashAll => self.crash_all(world),
            FaultKind::Pause => self.pause(world),
            FaultKind::ClockJump
            | FaultKind::WallClockJump
            | FaultKind::ClockDrift
            | FaultKind::ClockFreeze => self.disturb_clock(world, kind),
            FaultKind::PartitionFull
            | FaultKind::PartitionMinority
            | FaultKind::PartitionAsymmetric
            | FaultKind::PartitionBridge => self.partition(world, kind),
            FaultKind::Loss | FaultKind::Duplication | FaultKind::Reorder | FaultKind::Delay => {
                self.disturb_links(world, kind)
            }
            FaultKind::SyncError | FaultKind::DiskFull | FaultKind::DiskSlow => {
                self.disturb_disk(world, kind)
            }
        };
        if struck {
            *self.counts.entry(kind).or_default() += 1;
        }
        struck
    }

    fn pop_cure(&mut self, now: Duration) -> Option<(Duration, Cure)> {
        if self.cures.first()?.0 <= now { self.cures.pop_first() } else { None }
    }

    /// Plans the end of a fault; one that is going on already ends when it was going to.
    fn cure_later<P: Process>(&mut self, world: &World<P>, cure: Cure) -> bool {
        if self.cures.iter().any(|(_, other)| *other == cure) {
            return false;
        }
        let at = world.now() + self.options.lasts.draw(&mut self.rng);
        self.cures.insert((at, cure));
        true
    }

    /// One of the targets, whatever its state.
    fn any_target(&mut self) -> Option<Address> {
        let targets = &self.options.targets;
        (!targets.is_empty()).then(|| targets[index(&mut self.rng, targets.len())])
    }

    /// A target that is up, if enough others are.
    fn running_target<P: Process>(&mut self, world: &World<P>) -> Option<Address> {
        let targets = self.options.targets.iter().copied();
        let running: Vec<Address> =
            targets.filter(|target| world.is_up(*target) && !world.is_paused(*target)).collect();
        (running.len() > self.options.up_min).then(|| running[index(&mut self.rng, running.len())])
    }

    fn take_down<P: Process>(
        &mut self,
        world: &mut World<P>,
        how: fn(&mut World<P>, Address),
    ) -> bool {
        let Some(target) = self.running_target(world) else {
            return false;
        };
        how(world, target);
        world.restart_after(target, self.options.restart.draw(&mut self.rng));
        true
    }

    fn crash_all<P: Process>(&mut self, world: &mut World<P>) -> bool {
        for target in self.options.targets.clone() {
            world.crash(target);
            world.restart_after(target, self.options.restart.draw(&mut self.rng));
        }
        true
    }

    fn pause<P: Process>(&mut self, world: &mut World<P>) -> bool {
        let Some(target) = self.running_target(world) else {
            return false;
        };
        world.pause(target, self.options.lasts.draw(&mut self.rng));
        true
    }

    fn disturb_clock<P: Process>(&mut self, world: &mut World<P>, kind: FaultKind) -> bool {
        let Some(target) = self.any_target() else {
            return false;
        };
        if kind == FaultKind::ClockDrift && !self.cure_later(world, Cure::ClockDrift(target)) {
            return false;
        }
        let rng = &mut self.rng;
        let (jump, length) = (self.options.jump.draw(rng), self.options.lasts.draw(rng));
        let (fast, drift) =
            (Chance::percent(50).happens(rng), between(rng, 0, self.options.drift_ppm.into()));
        let drift = i32::try_from(drift).unwrap_or(i32::MAX);
        let forward = Chance::percent(50).happens(rng);
        world.note_fault(target, kind);
        let mut clock = world.clock_mut(target);
        if kind == FaultKind::ClockJump {
            clock.jump(jump);
        } else if kind == FaultKind::ClockFreeze {
            clock.freeze(length);
        } else if kind == FaultKind::ClockDrift {
            clock.set_drift(if fast { drift } else { -drift });
        } else if forward {
            clock.jump_wall_forward(jump);
        } else {
            clock.jump_wall_back(jump);
        }
        true
    }

    /// At most one partition at a time: several at once are mostly a full one.
    fn partition<P: Process>(&mut self, world: &mut World<P>, kind: FaultKind) -> bool {
        let mut nodes = self.options.targets.clone();
        if nodes.len() < 2 || !self.cure_later(world, Cure::Partition) {
            return false;
        }
        shuffle(&mut self.rng, &mut nodes);
        world.note_fault(Address(0), format_args!("{kind} {nodes:?}"));
        let network = world.network_mut();
        if kind == FaultKind::PartitionFull {
            nodes.iter().for_each(|node| network.isolate(*node));
        } else if kind == FaultKind::PartitionMinority {
            let few = 1 + index(&mut self.rng, ((nodes.len() - 1) / 2).max(1));
            let (few, many) = nodes.split_at(few);
            network.split(&[few, many]);
        } else if kind == FaultKind::PartitionAsymmetric {
            let deaf = 1 + index(&mut self.rng, nodes.len() - 1);
            for other in &nodes[1..=deaf] {
                network.asymmetric(nodes[0], *other);
            }
        } else {
            let (left, right) = nodes[1..].split_at((nodes.len() - 1) / 2);
            network.bridge(left, right, nodes[0]);
        }
        true
    }

    fn disturb_links<P: Process>(&mut self, world: &mut World<P>, kind: FaultKind) -> bool {
        let cure = match kind {
            FaultKind::Loss => Cure::Loss,
            FaultKind::Duplication => Cure::Duplication,
            FaultKind::Reorder => Cure::Reorder,
            _ => Cure::Delay,
        };
        if !self.cure_later(world, cure) {
            return false;
        }
        let percent = u32::try_from(between(&mut self.rng, 1, 30)).expect("at most 30");
        let (chance, factor) = (Chance::percent(percent), 2 + percent);
        world.note_fault(Address(0), format_args!("{kind} {percent}"));
        world.network_mut().adjust(|link| match cure {
            Cure::Loss => link.loss = chance,
            Cure::Duplication => link.duplicate = chance,
            Cure::Reorder => link.reorder = chance,
            _ => link.delay.max = link.delay.max.saturating_mul(factor),
        });
        true
    }

    fn disturb_disk<P: Process>(&mut self, world: &mut World<P>, kind: FaultKind) -> bool {
        let Some(target) = self.any_target() else {
            return false;
        };
        let lasting = match kind {
            FaultKind::DiskFull => Some(Cure::DiskFull(target)),
            FaultKind::DiskSlow => Some(Cure::DiskSlow(target)),
            _ => None,
        };
        if lasting.is_some_and(|cure| !self.cure_later(world, cure)) {
            return false;
        }
        let (room, factor) = (below(&mut self.rng, 64 << 10), between(&mut self.rng, 5, 100));
        world.note_fault(target, kind);
        let disk = world.disk(target);
        if kind == FaultKind::DiskFull {
            self.capacities.insert(target, disk.capacity());
            disk.set_capacity(Some(disk.used() + room));
        } else if kind == FaultKind::DiskSlow {
            disk.set_slowdown(u32::try_from(factor).expect("at most 100"));
        } else {
            disk.fail_sync_at(1);
        }
        true
    }

    fn restore_capacity<P: Process>(&mut self, world: &World<P>, target: Address) {
        if let Some(capacity) = self.capacities.remove(&target) {
            world.disk(target).set_capacity(capacity);
        }
    }

    fn cure<P: Process>(&mut self, world: &mut World<P>, cure: Cure) {
        world.note_fault(Address(0), format_args!("end of {cure:?}"));
        let base = world.network().base();
        match cure {
            Cure::Partition => world.network_mut().heal_cuts(),
            Cure::Loss => world.network_mut().adjust(|link| link.loss = base.loss),
            Cure::Duplication => world.network_mut().adjust(|link| link.duplicate = base.duplicate),
            Cure::Reorder => world.network_mut().adjust(|link| link.reorder = base.reorder),
            Cure::Delay => world.network_mut().adjust(|link| link.delay = base.delay),
            Cure::ClockDrift(target) => world.clock_mut(target).set_drift(0),
            Cure::DiskFull(target) => self.restore_capacity(world, target),
            Cure::DiskSlow(target) => world.disk(target).set_slowdown(1),
        }
    }
}
