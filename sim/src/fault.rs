//! Faults: which kinds there are, which of them a run gets, and when.
//!
//! A [`Swarm`] is the choice for one run: a random subset of the kinds, each with a rate of its own. Leaving kinds out
//! matters as much as putting them in: a run in which everything fails all the time never gets far enough to show what
//! a single fault at the wrong moment does (Groce et al., *Swarm testing*, ISSTA 2012). The [`Nemesis`] carries the
//! choice out on a world. What it did is a [`Schedule`]: every fault with all that was drawn for it, as a line of text. A schedule can be
//! cut down and carried out again without drawing anything, which is how failing runs are [shrunk](crate::shrink()).

mod nemesis;
mod schedule;
mod target;

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use crate::random::{ChaCha8Rng, Chance, Rng, between};

pub use nemesis::{Nemesis, NemesisOptions};
pub use schedule::{Fault, Schedule};
pub use target::{Target, draw_sector};

/// A kind of fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum FaultKind {
    /// A machine loses power and starts again after a while: un-synced data is lost, torn or reordered.
    Crash,
    /// All machines lose power at once.
    CrashAll,
    /// A process is killed and starts again after a while; its machine lives on.
    Kill,
    /// A process stands still for a while, as under SIGSTOP.
    Pause,
    /// Both clocks of a node jump forward.
    ClockJump,
    /// The wall clock of a node jumps, forth or back.
    WallClockJump,
    /// The clocks of a node run fast or slow.
    ClockDrift,
    /// The clocks of a node stand still for a while.
    ClockFreeze,
    /// Nobody reaches anybody for a while.
    PartitionFull,
    /// A minority is cut off for a while.
    PartitionMinority,
    /// One node is not heard by some others for a while, but hears them.
    PartitionAsymmetric,
    /// Two halves are joined by one node only, for a while.
    PartitionBridge,
    /// Links lose messages for a while.
    Loss,
    /// Links duplicate messages for a while.
    Duplication,
    /// Links let messages overtake each other for a while.
    Reorder,
    /// Links are slow for a while.
    Delay,
    /// The next sync of a disk fails.
    SyncError,
    /// A disk is full for a while.
    DiskFull,
    /// A disk is slow for a while.
    DiskSlow,
    /// Links damage frames for a while: checksums find it, and the connection is made anew.
    FrameCorruption,
    /// The connection of two nodes breaks in the middle of a frame, and is made anew after up to 200 ms.
    ConnectionCut,
    /// One direction of a connection is dead for a while, and its sender does not know.
    HalfOpen,
    /// A disk stands still for a while.
    DiskStall,
    /// A disk stands still until its machine is switched off and on, which somebody does after a while.
    DiskHang,
    /// A sector cannot be read for a while.
    ReadError,
    /// Reads of a sector see another one for a while.
    MisdirectedRead,
    /// Bits of a durable sector flip.
    BitRot,
    /// A durable sector is as it was before it was written last.
    LostWrite,
    /// A durable sector has the content of another one.
    MisdirectedWrite,
    /// A disk is replaced by a blank one.
    DiskLoss,
    /// Two nodes have each other's disk for a while.
    DiskSwap,
    /// A disk's syncs say that they succeeded, and do nothing, for a while. No protocol survives it.
    SyncLie,
}

impl FaultKind {
    /// Every kind.
    pub const ALL: [Self; 32] = [
        Self::Crash,
        Self::CrashAll,
        Self::Kill,
        Self::Pause,
        Self::ClockJump,
        Self::WallClockJump,
        Self::ClockDrift,
        Self::ClockFreeze,
        Self::PartitionFull,
        Self::PartitionMinority,
        Self::PartitionAsymmetric,
        Self::PartitionBridge,
        Self::Loss,
        Self::Duplication,
        Self::Reorder,
        Self::Delay,
        Self::SyncError,
        Self::DiskFull,
        Self::DiskSlow,
        Self::FrameCorruption,
        Self::ConnectionCut,
        Self::HalfOpen,
        Self::DiskStall,
        Self::DiskHang,
        Self::ReadError,
        Self::MisdirectedRead,
        Self::BitRot,
        Self::LostWrite,
        Self::MisdirectedWrite,
        Self::DiskLoss,
        Self::DiskSwap,
        Self::SyncLie,
    ];

    /// Every kind but [`FaultKind::SyncLie`], which breaks what every protocol builds on.
    pub const SURVIVABLE: [Self; 31] = [
        Self::Crash,
        Self::CrashAll,
        Self::Kill,
        Self::Pause,
        Self::ClockJump,
        Self::WallClockJump,
        Self::ClockDrift,
        Self::ClockFreeze,
        Self::PartitionFull,
        Self::PartitionMinority,
        Self::PartitionAsymmetric,
        Self::PartitionBridge,
        Self::Loss,
        Self::Duplication,
        Self::Reorder,
        Self::Delay,
        Self::SyncError,
        Self::DiskFull,
        Self::DiskSlow,
        Self::FrameCorruption,
        Self::ConnectionCut,
        Self::HalfOpen,
        Self::DiskStall,
        Self::DiskHang,
        Self::ReadError,
        Self::MisdirectedRead,
        Self::BitRot,
        Self::LostWrite,
        Self::MisdirectedWrite,
        Self::DiskLoss,
        Self::DiskSwap,
    ];

    /// Its name in reports.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Crash => "crash",
            Self::CrashAll => "crash-all",
            Self::Kill => "kill",
            Self::Pause => "pause",
            Self::ClockJump => "clock-jump",
            Self::WallClockJump => "wall-clock-jump",
            Self::ClockDrift => "clock-drift",
            Self::ClockFreeze => "clock-freeze",
            Self::PartitionFull => "partition-full",
            Self::PartitionMinority => "partition-minority",
            Self::PartitionAsymmetric => "partition-asymmetric",
            Self::PartitionBridge => "partition-bridge",
            Self::Loss => "loss",
            Self::Duplication => "duplication",
            Self::Reorder => "reorder",
            Self::Delay => "delay",
            Self::SyncError => "sync-error",
            Self::DiskFull => "disk-full",
            Self::DiskSlow => "disk-slow",
            Self::FrameCorruption => "corruption",
            Self::ConnectionCut => "connection-cut",
            Self::HalfOpen => "half-open",
            Self::DiskStall => "disk-stall",
            Self::DiskHang => "disk-hang",
            Self::ReadError => "read-error",
            Self::MisdirectedRead => "misdirected-read",
            Self::BitRot => "bit-rot",
            Self::LostWrite => "lost-write",
            Self::MisdirectedWrite => "misdirected-write",
            Self::DiskLoss => "disk-loss",
            Self::DiskSwap => "disk-swap",
            Self::SyncLie => "sync-lie",
        }
    }

    /// Whether the scenario says what it may hit, and whether it may strike now: see
    /// [`Scenario::target`](crate::Scenario::target). What protects a cluster from damage is that others have what one has lost, and
    /// only the protocol knows who has what.
    pub const fn asks(self) -> bool {
        matches!(
            self,
            Self::ReadError
                | Self::MisdirectedRead
                | Self::BitRot
                | Self::LostWrite
                | Self::MisdirectedWrite
                | Self::DiskLoss
                | Self::DiskSwap
        )
    }
}

impl FromStr for FaultKind {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        Self::ALL.into_iter().find(|kind| kind.name() == name).ok_or_else(|| {
            let names: Vec<_> = Self::ALL.into_iter().map(Self::name).collect();
            format!("no fault is called {name}; there are {}", names.join(", "))
        })
    }
}

impl fmt::Display for FaultKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// The kinds of faults of one run, and how far apart those of one kind are on average.
///
/// ```
/// use std::time::Duration;
/// use lattice_sim::{FaultKind, Swarm};
///
/// let swarm = Swarm::none().with(FaultKind::Crash, Duration::from_secs(2));
/// assert_eq!(swarm.to_string(), "crash every 2s");
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Swarm {
    intervals: BTreeMap<FaultKind, Duration>,
}

impl Swarm {
    /// No faults.
    pub fn none() -> Self {
        Self::default()
    }

    /// A random choice among `allowed`: each kind is in with even odds, and strikes every 0.2 to 10 s on average.
    pub fn draw(rng: &mut ChaCha8Rng, allowed: &[FaultKind]) -> Self {
        let mut intervals = BTreeMap::new();
        for kind in allowed {
            let included = Chance::percent(50).happens(rng);
            // Rates over two orders of magnitude: the exponent is drawn, not the interval.
            let doubled = between(rng, 0, 5);
            let interval = (200 << doubled) + between(rng, 0, (200 << doubled) / 2);
            if included {
                intervals.insert(*kind, Duration::from_millis(interval));
            }
        }
        Self { intervals }
    }

    /// With this kind too, every `interval` on average.
    #[must_use]
    pub fn with(mut self, kind: FaultKind, interval: Duration) -> Self {
        self.intervals.insert(kind, interval);
        self
    }

    /// Without this kind.
    #[must_use]
    pub fn without(mut self, kind: FaultKind) -> Self {
        self.intervals.remove(&kind);
        self
    }

    /// The kinds and their mean intervals.
    pub fn intervals(&self) -> impl Iterator<Item = (FaultKind, Duration)> {
        self.intervals.iter().map(|(kind, interval)| (*kind, *interval))
    }

    /// Whether there are no faults.
    pub fn is_empty(&self) -> bool {
        self.intervals.is_empty()
    }
}

impl fmt::Display for Swarm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_empty() {
            return write!(f, "no faults");
        }
        for (place, (kind, interval)) in self.intervals().enumerate() {
            let comma = if place == 0 { "" } else { ", " };
            write!(f, "{comma}{kind} every {interval:?}")?;
        }
        Ok(())
    }
}

/// A waiting time with the given mean, as between independent events: from a tenth of it to three times as long.
fn waiting_time(rng: &mut impl Rng, mean: Duration) -> Duration {
    let mean = crate::random::nanos(mean);
    // Two draws lean towards the short waits, in which faults meet.
    let (one, other) = (between(rng, 0, 200), between(rng, 0, 200));
    Duration::from_nanos(
        (mean / 10).saturating_add((mean / 10_000).saturating_mul(one * other * 9 / 10)),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::stream;

    #[test]
    fn swarms_differ_and_leave_kinds_out() {
        let swarm = |seed| Swarm::draw(&mut stream(seed, "swarm", 0), &FaultKind::ALL);
        assert_eq!(swarm(1), swarm(1));
        let sizes: Vec<usize> = (0..100).map(|seed| swarm(seed).intervals().count()).collect();
        assert!(*sizes.iter().min().unwrap() <= 11 && *sizes.iter().max().unwrap() >= 21);
        for kind in FaultKind::ALL {
            let in_it = |seed| swarm(seed).intervals().any(|(other, _)| other == kind);
            assert!((0..20).any(in_it) && !(0..20).all(in_it), "{kind}");
        }
    }

    #[test]
    fn every_kind_has_a_name_of_its_own() {
        let names: std::collections::BTreeSet<_> =
            FaultKind::ALL.iter().map(|k| k.name()).collect();
        assert_eq!(names.len(), FaultKind::ALL.len());
        for kind in FaultKind::ALL {
            assert_eq!(kind.name().parse(), Ok(kind));
        }
        assert!("nonsense".parse::<FaultKind>().is_err());
    }

    #[test]
    fn waiting_times_have_their_mean() {
        let mut rng = stream(1, "test", 0);
        let total: Duration =
            (0..10_000).map(|_| waiting_time(&mut rng, Duration::from_secs(1))).sum();
        assert!((9_000..11_000).contains(&total.as_secs()), "{total:?}");
    }
}
