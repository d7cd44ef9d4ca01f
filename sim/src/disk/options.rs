//! What a disk is like, what a crash takes, and what a disk has done.

use std::time::Duration;

use crate::random::{Chance, Span};

/// What a disk is like.
#[derive(Clone, Copy, Debug, Default)]
pub struct DiskOptions {
    /// How long calls take.
    pub latency: DiskLatency,
    /// Bytes that files may take up, in pages of 4 KiB; without a limit if `None`.
    pub capacity: Option<u64>,
    /// How often a sync fails.
    pub sync_error: Chance,
    /// Bytes that are made ready for small writes are zeros that are written, as the disk of a machine does it; otherwise nothing happens.
    pub writes_zeros: bool,
}

/// How long the calls of a disk take. The default is no time at all.
#[derive(Clone, Copy, Debug, Default)]
pub struct DiskLatency {
    /// Of a write, an allocation, or a change of names.
    pub write: Span,
    /// In addition, for each whole KiB of a write.
    pub per_kib: Duration,
    /// Of a sync.
    pub sync: Span,
    /// How often a sync stalls,
    pub stall: Chance,
    /// and for how long, in addition.
    pub stalled: Span,
}

impl DiskLatency {
    /// Like a solid-state disk that other tenants use too: most syncs within a millisecond or two, some far longer.
    pub const fn ssd() -> Self {
        Self {
            write: Span::micros(5, 30),
            per_kib: Duration::from_nanos(500),
            sync: Span::micros(200, 2_000),
            stall: Chance::per_million(5_000),
            stalled: Span::millis(5, 50),
        }
    }
}

/// What a crash leaves of the operations that were not synced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Survival {
    /// A seeded choice for each of them: kept, lost or torn.
    Random,
    /// Nothing: the disk's cache was cold.
    Nothing,
    /// Everything: the power lasted just long enough.
    Everything,
}

/// What a disk has done since it was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DiskCounts {
    /// Calls that change or sync something, failed ones included.
    pub calls: u64,
    /// Writes that were accepted.
    pub writes: u64,
    /// Bytes written.
    pub bytes: u64,
    /// Syncs of files and of directories, failed ones included.
    pub syncs: u64,
    /// Syncs that failed.
    pub failed_syncs: u64,
    /// Syncs that said they had succeeded, and had done nothing.
    pub lies: u64,
    /// Calls refused for want of space.
    pub full: u64,
    /// Reads that met a bad place.
    pub bad_reads: u64,
    /// Times that something durable was damaged, or a write went astray.
    pub damaged: u64,
    /// Times that the whole disk was lost.
    pub blanked: u64,
    /// Times that the disk got another one's content.
    pub swapped: u64,
    /// Times that the disk stood still.
    pub stalls: u64,
    /// Crashes.
    pub crashes: u64,
}
