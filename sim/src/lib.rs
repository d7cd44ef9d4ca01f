//! Deterministic simulator: clock, network, disk, scheduler, faults.

pub mod clock;
pub mod disk;
pub mod network;
pub mod process;
pub mod random;
mod recorder;
pub mod world;

pub use clock::{Clock, ClockMut};
pub use disk::{DiskCounts, DiskLatency, DiskOptions, SimDisk, Survival};
pub use network::{Link, Network, NetworkCounts};
pub use process::{Address, Boot, Context, Event, Process};
pub use random::{ChaCha8Rng, Chance, Span};
pub use recorder::TraceKeep;
pub use world::{ClockOptions, Step, StepKind, World, WorldOptions};
