//! SKELETON: the latency monitor.

/// Spikes of latency, by event.
#[derive(Debug, Default)]
pub struct LatencyMonitor {}
