//! What a run is made of, drawn from its seed: the cluster, its clients, its network and disks, and the faults.

use std::rc::Rc;
use std::str::FromStr;
use std::time::Duration;

use lattice_sim::random::{between, stream};
use lattice_sim::{
    Address, ChaCha8Rng, Chance, DiskLatency, FaultKind, Kept, Link, NemesisOptions, Span, Swarm,
};

use super::PlantedBug;
use super::client::Patience;
use super::node::NodeSetup;
use super::workload::one_of;
use crate::raft_node::{ClockBound, LeaseGuard, ReadPolicy};
use crate::replica::ReplicaConfig;
use crate::types::NodeId;

/// What runs look for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Tuning {
    /// Anything.
    #[default]
    General,
    /// What goes wrong between the commit of an earlier term's entry and the leader's own (Raft §5.4.2, Figure 8): leaders that
    /// fall as soon as they are elected, one entry in each message.
    LostLeaders,
    /// What goes wrong between an entry's arrival at others and on the leader's own disk: disks slower than the network, and
    /// machines that lose power.
    SlowDisks,
    /// What goes wrong with reads between one leader and the next: leases, clocks that run fast and slow within their bound, processes
    /// that stand still, answers that are late.
    Leases,
    /// Members that come and go, and leadership that is handed over, under all faults.
    Members,
    /// Snapshots that take long, of many small parts, and machines that lose power meanwhile.
    Snapshots,
    /// Groups that go quiet between two operations, and nodes that stay away for long, under all faults.
    Quiet,
    /// Damage in every log, at different entries: each entry keeps its copies on the other nodes.
    Damage,
    /// Disks that rot and cannot be read, and machines that lose power meanwhile: logs that have lost entries, their vote or their end.
    Decay,
}

impl Tuning {
    /// All of them.
    pub const ALL: [Self; 9] = [
        Self::General,
        Self::LostLeaders,
        Self::SlowDisks,
        Self::Leases,
        Self::Members,
        Self::Snapshots,
        Self::Quiet,
        Self::Damage,
        Self::Decay,
    ];

    /// Its name on the command line.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::General => "general",
            Self::LostLeaders => "lost-leaders",
            Self::SlowDisks => "slow-disks",
            Self::Leases => "leases",
            Self::Members => "members",
            Self::Snapshots => "snapshots",
            Self::Quiet => "quiet",
            Self::Damage => "damage",
            Self::Decay => "decay",
        }
    }

    /// The faults of one run.
    pub(super) fn faults(self, seed: u64, allowed: &[FaultKind]) -> Swarm {
        let rng = &mut stream(seed, "swarm", 0);
        match self {
            Self::General => general_faults(rng, allowed),
            Self::Quiet => {
                let is_out = |kind: &FaultKind| {
                    (has_leases(seed) && CLOCKS.contains(kind))
                        || (has_learners(seed) && is_for_good(kind))
                };
                let allowed = allowed.iter().copied().filter(|kind| !is_out(kind));
                general_faults(rng, &allowed.collect::<Vec<_>>())
            }
            Self::Members => {
                let passing = allowed.iter().copied().filter(|kind| !is_for_good(kind));
                general_faults(rng, &passing.collect::<Vec<_>>())
            }
            Self::LostLeaders => {
                drawn(rng, &[FaultKind::Kill, FaultKind::PartitionMinority], 4_000)
            }
            Self::SlowDisks => {
                let kinds = [FaultKind::Crash, FaultKind::PartitionMinority, FaultKind::DiskSlow];
                drawn(rng, &kinds, 2_000)
            }
            Self::Snapshots => drawn(rng, &[FaultKind::Crash, FaultKind::PartitionMinority], 2_000),
            Self::Damage => {
                let kinds = [FaultKind::BitRot, FaultKind::LostWrite, FaultKind::MisdirectedWrite];
                let mut swarm = drawn(rng, &kinds, 4_000);
                for kind in [
                    FaultKind::Crash,
                    FaultKind::CrashAll,
                    FaultKind::Kill,
                    FaultKind::PartitionMinority,
                    FaultKind::DiskSlow,
                    FaultKind::Loss,
                ] {
                    if Chance::percent(50).happens(rng) {
                        let interval = Duration::from_millis(between(rng, 1_000, 5_000));
                        swarm = swarm.with(kind, interval);
                    }
                }
                swarm
            }
            Self::Decay => {
                let kinds = [
                    FaultKind::BitRot,
                    FaultKind::ReadError,
                    FaultKind::Crash,
                    FaultKind::PartitionMinority,
                ];
                let allowed = kinds.into_iter().filter(|kind| allowed.contains(kind));
                drawn(rng, &allowed.collect::<Vec<_>>(), 1_000)
            }
            // Clocks that jump or stand still are beyond what leases are built on.
            Self::Leases => lease_faults(rng, clocks_drift(seed)),
        }
    }

    /// What faults are like.
    pub(super) fn nemesis(self, targets: Vec<Address>) -> NemesisOptions {
        let mut options = NemesisOptions::new(targets);
        if self == Self::Quiet {
            options.restart = Span::millis(1, 15_000);
        } else if !matches!(self, Self::General | Self::Members | Self::Damage | Self::Decay) {
            options.restart = Span::millis(1, 300);
            options.lasts = Span::millis(20, 500);
        }
        if self == Self::Leases {
            options.drift_ppm = DRIFT_PPM;
            options.lasts = Span::millis(100, 800);
        }
        options
    }
}

impl FromStr for Tuning {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        Self::ALL.into_iter().find(|tuning| tuning.name() == name).ok_or_else(|| {
            let names: Vec<_> = Self::ALL.into_iter().map(Self::name).collect();
            format!("no tuning is called {name}; there are {}", names.join(", "))
        })
    }
}

/// Leaders are cut off all the time, and often stand still meanwhile.
fn lease_faults(rng: &mut ChaCha8Rng, drifts: bool) -> Swarm {
    let mut swarm = drawn(rng, &[FaultKind::PartitionMinority, FaultKind::Pause], 1_000);
    for kind in [
        FaultKind::PartitionAsymmetric,
        FaultKind::PartitionBridge,
        FaultKind::Delay,
        FaultKind::Kill,
        FaultKind::WallClockJump,
    ] {
        if Chance::percent(50).happens(rng) {
            swarm = swarm.with(kind, Duration::from_millis(between(rng, 300, 2_000)));
        }
    }
    if drifts {
        swarm = swarm.with(FaultKind::ClockDrift, Duration::from_millis(150));
    }
    swarm
}

/// How fast or slow clocks run at most in runs that are about leases: one may measure three seconds while another measures one.
const DRIFT_PPM: u32 = 500_000;

/// Whether reads have leases in a run that is about quiet; its clocks are then what leases are built on.
fn has_leases(seed: u64) -> bool {
    Chance::percent(50).happens(&mut stream(seed, "quiet leases", 0))
}

/// Whether members change in a run that is about quiet, learners among them.
fn has_learners(seed: u64) -> bool {
    Chance::percent(40).happens(&mut stream(seed, "quiet learners", 0))
}

/// What makes clocks differ by more than leases allow for.
const CLOCKS: [FaultKind; 3] =
    [FaultKind::ClockJump, FaultKind::ClockDrift, FaultKind::ClockFreeze];

/// Whether clocks drift in a run that is about leases. They are short where they do, and so hide what else is wrong with them.
fn clocks_drift(seed: u64) -> bool {
    Chance::percent(50).happens(&mut stream(seed, "drift", 0))
}

/// One run in four is a storm, in which little gets done and recovery meets recovery. The others leave time between
/// faults for elections, commits and snapshots, so that a fault meets them.
fn general_faults(rng: &mut ChaCha8Rng, allowed: &[FaultKind]) -> Swarm {
    // A node whose disk was destroyed is out for the rest of the run, and one node less is much less that can be met. If only such
    // kinds are asked for they are in every run.
    let costs = |kind: &FaultKind| COSTLY.contains(kind);
    let with_damage = Chance::percent(30).happens(rng) || allowed.iter().all(costs);
    let allowed: Vec<FaultKind> =
        allowed.iter().copied().filter(|kind| with_damage || !costs(kind)).collect();
    if Chance::percent(25).happens(rng) {
        return Swarm::draw(rng, &allowed);
    }
    let density = u32::try_from(between(rng, 10, 50)).expect("at most 50");
    let mut swarm = Swarm::none();
    for kind in allowed {
        let (is_in, doubled) = (Chance::percent(density).happens(rng), between(rng, 0, 4));
        if is_in {
            swarm = swarm.with(kind, Duration::from_millis(between(rng, 600, 1_200) << doubled));
        }
    }
    swarm
}

/// What destroys a disk for good.
const COSTLY: [FaultKind; 4] =
    [FaultKind::BitRot, FaultKind::LostWrite, FaultKind::MisdirectedWrite, FaultKind::DiskLoss];

/// What does not pass. It has no part in runs in which members change: what a cluster can do without is counted by its founders. Reads
/// that fail for a while do.
fn is_for_good(kind: &FaultKind) -> bool {
    COSTLY.contains(kind) || *kind == FaultKind::DiskSwap
}

/// All these kinds, each every half a second at most and every `interval_max` milliseconds at least, on average.
fn drawn(rng: &mut ChaCha8Rng, kinds: &[FaultKind], interval_max: u64) -> Swarm {
    kinds.iter().fold(Swarm::none(), |swarm, kind| {
        swarm.with(*kind, Duration::from_millis(between(rng, 500, interval_max)))
    })
}

/// How many times slower the simulator makes a disk at most.
const SLOWDOWN_MAX: u32 = 100;

/// The shortest delay of links and disks.
const NEAR: Duration = Duration::from_micros(100);

/// The shape of a cluster, drawn from the seed: how many nodes and clients there are, and how they are configured.
#[derive(Clone, Debug)]
pub(super) struct Shape {
    /// Founders.
    pub(super) nodes: u64,
    /// Nodes that may be added.
    pub(super) spares: u64,
    pub(super) clients: u64,
    pub(super) patience: Patience,
    pub(super) setup: NodeSetup,
    /// What links and disks are like while nothing disturbs them.
    pub(super) link: Link,
    pub(super) disk: DiskLatency,
    /// More disks may be damaged than the cluster can do without.
    pub(super) is_beyond_budget: bool,
    /// Every log may be damaged, and each entry keeps its copies on the other nodes.
    pub(super) keeps_copies: bool,
    /// The only operations that clients do.
    pub(super) kept: Option<Kept>,
}

impl Shape {
    /// Small limits, so that snapshots, compaction, full windows and entries that are no longer in memory are everyday.
    pub(super) fn draw(seed: u64, tuning: Tuning, bug: Option<PlantedBug>) -> Self {
        let mut shape = Self::draw_general(seed, bug);
        let rng = &mut stream(seed, "tuning", 0);
        match tuning {
            Tuning::General | Tuning::Decay => return shape,
            Tuning::LostLeaders => shape.lose_leaders(rng),
            Tuning::SlowDisks => shape.slow_disks(rng),
            Tuning::Leases => {
                shape.leases(rng, clocks_drift(seed), bug);
                return shape;
            }
            Tuning::Members => shape.change_members(rng),
            Tuning::Snapshots => shape.send_snapshots(rng),
            Tuning::Quiet => shape.be_quiet(rng, has_leases(seed), has_learners(seed)),
            Tuning::Damage => {
                shape.damage_logs(rng);
                return shape;
            }
        }
        shape.leave_time_for_elections();
        shape
    }

    fn draw_general(seed: u64, bug: Option<PlantedBug>) -> Self {
        let rng = &mut stream(seed, "shape", 0);
        let nodes = one_of(rng, &[3, 3, 5]);
        let snapshot_entries = one_of(rng, &[10, 25, 100, 400]);
        let setup = NodeSetup {
            id: NodeId(0),
            founders: (1..=nodes).map(NodeId).collect(),
            bug,
            replica: ReplicaConfig {
                snapshot_entries,
                apply_bytes_max: one_of(rng, &[1, 1_000, 20_000]),
                apply_lag_max: one_of(rng, &[50, 1_000]),
                reads_max: one_of(rng, &[2, 1_000]),
                read_retry: Duration::from_millis(between(rng, 50, 300)),
                snapshot_bytes_per_second: one_of(
                    &mut stream(seed, "pace", 0),
                    &[10_000, 200_000, 1 << 30],
                ),
            },
            election_timeout: Duration::from_millis(150)..Duration::from_millis(300),
            heartbeat: Duration::from_millis(between(rng, 40, 100)),
            append_bytes_max: one_of(rng, &[1, 500, 8_000, 100_000]),
            inflight_messages_max: one_of(rng, &[1, 4, 64]),
            tail_bytes_max: one_of(rng, &[0, 2_000, 20_000, 1_000_000]),
            kept_entries: one_of(rng, &[0, 5, snapshot_entries]),
            // Mostly small: what may be damaged is in segments that are complete.
            segment_size: one_of(rng, &[4 << 10, 4 << 10, 4 << 10, 16 << 10, 64 << 10]),
            chunk_bytes: one_of(rng, &[1_000, 3_000, 100_000]),
            read_timeout: Duration::from_millis(between(rng, 200, 2_000)),
            reads: ReadPolicy::ReadIndex,
            quiet_after: None,
            work: one_of(rng, &[Span::micros(10, 200), Span::micros(100, 3_000)]),
            stall: Chance::percent(one_of(rng, &[0, 1])),
            stalled: Span::millis(10, 400),
            falls: Chance::NEVER,
            falls_after: Span::ZERO,
            killed_after: Span::ZERO,
            hand_over: Chance::NEVER,
            late_news: Chance::NEVER,
            late_by: Span::ZERO,
            is_calm: Rc::default(),
            elections: Rc::default(),
            transfer: Span::micros(20, 2_000),
            spec: None,
            orders: None,
            last_node: NodeId(nodes),
        };
        let think = one_of(rng, &[5, 30, 100, 300]);
        let patience = Patience {
            think: Span::millis(1, 2 * think),
            timeout: Span::millis(300, 2_000),
            pause: Span::millis(1, 50),
        };
        let clients = between(rng, 2, 4);
        // Far and near, slow and fast: what is under way at once, and so what a fault can meet, depends on it.
        let far = one_of(rng, &[2, 2, 10, 40]);
        let link = Link { delay: Span::new(NEAR, Duration::from_millis(far)), ..Link::default() };
        let slow = one_of(rng, &[2, 10, 40]);
        let disk = DiskLatency {
            sync: Span::new(NEAR, Duration::from_millis(slow)),
            ..DiskLatency::ssd()
        };
        let mut shape = Self {
            nodes,
            spares: 0,
            clients,
            patience,
            setup,
            link,
            disk,
            is_beyond_budget: false,
            keeps_copies: false,
            kept: None,
        };
        shape.leave_time_for_elections();
        shape
    }

    fn lose_leaders(&mut self, rng: &mut ChaCha8Rng) {
        self.nodes = 3;
        self.setup.founders.truncate(3);
        self.setup.append_bytes_max = 1;
        self.setup.inflight_messages_max = 1;
        self.setup.falls = Chance::percent(80);
        self.setup.falls_after = Span::millis(0, one_of(rng, &[0, 20, 150]));
        self.setup.killed_after = Span::millis(0, 100);
        self.link.delay.max = Duration::from_millis(one_of(rng, &[5, 40]));
        self.disk.sync.max = Duration::from_millis(one_of(rng, &[2, 30]));
        self.disk.stall = Chance::NEVER;
        self.link.loss = Chance::percent(one_of(rng, &[0, 3, 8]));
        self.patience.think = Span::millis(1, 20);
    }

    fn slow_disks(&mut self, rng: &mut ChaCha8Rng) {
        self.nodes = 3;
        self.setup.founders.truncate(3);
        self.setup.append_bytes_max = 1;
        self.setup.inflight_messages_max = 1;
        self.link.delay.max = Duration::from_millis(5);
        self.link.loss = Chance::percent(one_of(rng, &[0, 3, 8]));
        self.disk.sync.max = Duration::from_millis(30);
        self.patience.think = Span::millis(1, 20);
    }

    /// Whoever was away for a moment needs a snapshot, which is on its way for a second.
    fn send_snapshots(&mut self, rng: &mut ChaCha8Rng) {
        self.nodes = 3;
        self.setup.founders.truncate(3);
        self.setup.kept_entries = 0;
        self.setup.replica.snapshot_entries = one_of(rng, &[10, 25]);
        self.setup.replica.snapshot_bytes_per_second = one_of(rng, &[5_000, 20_000]);
        self.setup.chunk_bytes = one_of(rng, &[100, 300]);
        self.link.delay.max = Duration::from_millis(2);
        self.disk.sync.max = Duration::from_millis(5);
        self.patience.think = Span::millis(1, 20);
    }

    /// Quick elections right after the shortest timeout, and little time between two operations: what is read too late is seen.
    fn leases(&mut self, rng: &mut ChaCha8Rng, drifts: bool, bug: Option<PlantedBug>) {
        self.nodes = 3;
        self.setup.founders.truncate(3);
        self.link.delay.max = Duration::from_millis(one_of(rng, &[1, 3, 8]));
        // Some answers come so late that there is another leader by then.
        self.link.reorder = Chance::percent(one_of(rng, &[0, 5, 20]));
        self.link.reordered = Span::millis(1, 400);
        self.setup.late_news = Chance::percent(one_of(rng, &[0, 90, 100]));
        self.setup.hand_over = Chance::percent(one_of(rng, &[0, 3]));
        self.setup.late_by = Span::millis(20, 400);
        if bug.is_some_and(PlantedBug::is_about_rounds) {
            self.link.reorder = Chance::percent(30);
            self.setup.late_news = Chance::percent(100);
        }
        self.disk.sync.max = Duration::from_millis(1);
        // What clocks make of it has to be long beside an election.
        let shortest = Duration::from_millis(if drifts { 500 } else { 150 });
        self.setup.election_timeout =
            shortest..shortest + Duration::from_millis(one_of(rng, &[20, 150]));
        self.setup.heartbeat = Duration::from_millis(one_of(rng, &[20, 50, 100]));
        self.patience.think = Span::millis(1, 6);
        self.patience.timeout = Span::millis(20, 150);
        self.patience.pause = Span::millis(1, 10);
        self.clients = 4;
        let (fastest, slowest) = (1_000_000 + DRIFT_PPM, 1_000_000 - DRIFT_PPM);
        let drift = u64::from(fastest) * 1_000_000 / u64::from(slowest) - 1_000_000;
        let drift_ppm = if drifts { u32::try_from(drift + 1).expect("some millions") } else { 0 };
        let clock = ClockBound { drift_ppm, margin: Duration::from_millis(1) };
        let guard = |lease: u64| {
            let lease = (lease > 0).then(|| Duration::from_millis(lease));
            ReadPolicy::LeaseGuard(LeaseGuard { lease, clock })
        };
        let drawn = one_of(rng, &[0, 1, 2, 3]);
        self.setup.reads = match (bug, drawn) {
            (Some(bug), _) if bug.is_about_rounds() => ReadPolicy::ReadIndex,
            (Some(PlantedBug::NewLeaderDoesNotWait), _) => guard(1_000),
            (Some(_), _) | (None, 0 | 1) => ReadPolicy::Lease(clock),
            (None, 2) => guard(0),
            (None, _) => guard(1_000),
        };
    }

    fn change_members(&mut self, rng: &mut ChaCha8Rng) {
        self.nodes = one_of(rng, &[1, 3, 3, 3, 4]);
        self.spares = between(rng, 2, 5);
        self.setup.founders = (1..=self.nodes).map(NodeId).collect();
        self.setup.last_node = NodeId(self.nodes + self.spares);
        self.setup.orders = Some(Span::millis(1, one_of(rng, &[50, 300, 1_000])));
        self.setup.falls = Chance::percent(one_of(rng, &[0, 0, 30]));
        self.setup.falls_after = Span::millis(0, one_of(rng, &[20, 300, 1_000]));
        self.setup.killed_after = Span::millis(0, 100);
    }

    /// Clients that pause for long, so that groups go quiet between two of their operations, and are woken by anything.
    fn be_quiet(&mut self, rng: &mut ChaCha8Rng, leases: bool, learners: bool) {
        self.setup.quiet_after = Some(Duration::from_millis(one_of(rng, &[1, 50, 300])));
        self.clients = between(rng, 1, 2);
        self.patience.think = Span::millis(1, one_of(rng, &[1_000, 3_000]));
        self.link.loss = Chance::percent(one_of(rng, &[0, 0, 3]));
        if learners {
            // Learners too, which cannot campaign.
            self.spares = 1;
            self.setup.last_node = NodeId(self.nodes + self.spares);
            self.setup.orders = Some(Span::millis(1, 3_000));
        }
        let clock = ClockBound::default();
        let guard = LeaseGuard { lease: None, clock };
        if leases {
            let policies = [ReadPolicy::Lease(clock), ReadPolicy::LeaseGuard(guard)];
            self.setup.reads = one_of(rng, &policies);
        }
    }

    /// Long logs in many files, most of them not in memory.
    fn damage_logs(&mut self, rng: &mut ChaCha8Rng) {
        self.keeps_copies = true;
        self.setup.segment_size = 4 << 10;
        self.setup.replica.snapshot_entries = one_of(rng, &[200, 400, 10_000]);
        self.setup.kept_entries = 1_000;
        self.setup.tail_bytes_max = one_of(rng, &[0, 2_000]);
        self.patience.think = Span::millis(1, one_of(rng, &[20, 60]));
    }

    /// Elections come to an end only if messages and syncs take far less time than election timeouts (Raft §5.6).
    fn leave_time_for_elections(&mut self) {
        // Two rounds and the writes of both sides, each of which may wait for another.
        let election = 4 * self.link.delay.max + 4 * self.disk.sync.max;
        let shortest = election.max(Duration::from_millis(150));
        self.setup.election_timeout = shortest..2 * shortest;
    }

    /// How long a node may be quiet under a process that is gone: an election timeout, and whatever faults make of it.
    pub(super) fn quiet_max(&self) -> Duration {
        // A clock that stands still for five seconds, and another that runs slow, and messages that are late.
        2 * self.setup.election_timeout.start + Duration::from_secs(8)
    }

    /// Ten of the longest election timeouts, time for clients to give up what they were waiting for from nodes that are gone for good,
    /// and for a disk that was
    /// slow to the end to finish what it had begun then: a node may be starting on it, which takes a few syncs.
    pub(super) fn progress_within(&self) -> Duration {
        let elections = 10 * self.setup.election_timeout.end;
        // Clients that pause for long do little in that time.
        let pauses = if self.setup.quiet_after.is_some() {
            5 * self.patience.think.max
        } else {
            Duration::ZERO
        };
        elections + Duration::from_secs(10) + 6 * SLOWDOWN_MAX * self.disk.sync.max + pauses
    }

    pub(super) fn addresses(&self) -> Vec<Address> {
        (1..=self.nodes + self.spares).map(Address).collect()
    }
}
