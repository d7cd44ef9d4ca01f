//! A few figures about a journal that any thread may look at.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// Figures about a running journal; clones can be used from any thread, also after the journal is gone.
#[derive(Clone, Debug, Default)]
pub struct Status {
    figures: Arc<Figures>,
}

#[derive(Debug, Default)]
struct Figures {
    low_space: AtomicBool,
    failed: AtomicBool,
    bytes_on_disk: AtomicU64,
    durable_end: AtomicU64,
}

impl Status {
    /// There is no spare segment of full size: the disk is nearly full. Appends go on while the last segment has room, and
    /// the owner should refuse new work and compact.
    #[must_use]
    pub fn low_space(&self) -> bool {
        self.figures.low_space.load(Ordering::Acquire)
    }

    /// The journal is poisoned by a failed write or sync.
    #[must_use]
    pub fn failed(&self) -> bool {
        self.figures.failed.load(Ordering::Acquire)
    }

    /// Length of all segments and of the spare, in bytes.
    #[must_use]
    pub fn bytes_on_disk(&self) -> u64 {
        self.figures.bytes_on_disk.load(Ordering::Acquire)
    }

    /// All frames below this sequence are durable.
    #[must_use]
    pub fn durable_end(&self) -> u64 {
        self.figures.durable_end.load(Ordering::Acquire)
    }

    pub(crate) fn set_low_space(&self, low: bool) {
        self.figures.low_space.store(low, Ordering::Release);
    }

    pub(crate) fn set_failed(&self) {
        self.figures.failed.store(true, Ordering::Release);
    }

    pub(crate) fn set_bytes_on_disk(&self, bytes: u64) {
        self.figures.bytes_on_disk.store(bytes, Ordering::Release);
    }

    pub(crate) fn set_durable_end(&self, sequence: u64) {
        self.figures.durable_end.store(sequence, Ordering::Release);
    }
}
