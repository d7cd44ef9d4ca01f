//! Deterministic simulator: clock, network, disk, scheduler, faults.

pub mod campaign;
pub mod clock;
pub mod disk;
pub mod fault;
pub mod network;
pub mod process;
pub mod random;
mod recorder;
pub mod run;
pub mod world;

pub use campaign::{Campaign, fan_out};
pub use clock::{Clock, ClockMut};
pub use disk::{DiskCounts, DiskLatency, DiskOptions, SimDisk, Survival};
pub use fault::{FaultKind, Nemesis, NemesisOptions, Swarm};
pub use network::{Link, Network, NetworkCounts};
pub use process::{Address, Boot, Context, Event, Process};
pub use random::{ChaCha8Rng, Chance, Span};
pub use recorder::TraceKeep;
pub use run::{Faults, Phase, Report, RunOptions, Scenario, Violation, run};
pub use world::{ClockOptions, Step, StepKind, World, WorldOptions};
