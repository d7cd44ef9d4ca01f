//! SKELETON: what `INFO` counts.

/// One thread's counters: written by it alone, read by all.
#[derive(Debug, Default)]
pub struct Tally {}

/// The counters of all threads.
#[derive(Debug, Default)]
pub struct Totals {}
