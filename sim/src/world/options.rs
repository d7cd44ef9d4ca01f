//! What a world is like: links, disks, clocks, and how much it remembers.

use crate::disk::{DiskLatency, DiskOptions};
use crate::network::Link;
use crate::random::Span;
use crate::recorder::TraceKeep;

/// What a world is like.
#[derive(Clone, Copy, Debug)]
pub struct WorldOptions {
    /// Everything that is left to chance follows from it.
    pub seed: u64,
    /// What links are like where nothing else is said.
    pub link: Link,
    /// What disks are like.
    pub disk: DiskOptions,
    /// What clocks are like.
    pub clock: ClockOptions,
    /// How much of the trace is kept.
    pub keep: TraceKeep,
    /// Whether the content of messages counts for the hash. It costs a `Debug` of each, and finds a difference between
    /// two runs at the message that first differs instead of at its first consequence.
    pub hash_messages: bool,
}

impl WorldOptions {
    /// A quiet world: a local network, solid-state disks, good clocks, no trace.
    pub fn new(seed: u64) -> Self {
        let disk = DiskOptions { latency: DiskLatency::ssd(), ..DiskOptions::default() };
        Self {
            seed,
            link: Link::default(),
            disk,
            clock: ClockOptions::default(),
            keep: TraceKeep::Nothing,
            hash_messages: true,
        }
    }
}

/// What the clocks of the nodes are like; each draws its own.
#[derive(Clone, Copy, Debug)]
pub struct ClockOptions {
    /// What a monotonic clock shows at the world's beginning.
    pub offset: Span,
    /// How far a wall clock is ahead of the truth.
    pub skew: Span,
    /// How fast or slow a clock is at most, in millionths.
    pub drift_ppm: u32,
}

impl Default for ClockOptions {
    /// Up to a quarter of an hour since the epoch, 20 ms of skew, 50 millionths of drift.
    fn default() -> Self {
        Self { offset: Span::millis(0, 1_000_000), skew: Span::millis(0, 20), drift_ppm: 50 }
    }
}
