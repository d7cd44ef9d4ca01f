//! Deterministic simulator: clock, network, disk, scheduler, faults.

pub mod disk;
pub mod random;

pub use disk::{DiskCounts, DiskLatency, DiskOptions, SimDisk, Survival};
pub use random::{Chance, Span};
