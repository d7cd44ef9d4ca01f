//! The one clock of the driver: time since the machine was booted, which no one can set, and which runs on while the machine sleeps.
#![expect(clippy::disallowed_methods, reason = "this is where time comes from")]

use std::time::Duration;

/// Time since boot on Linux (`CLOCK_BOOTTIME`): it counts suspended time, so that a leader that slept knows it.
#[cfg(target_os = "linux")]
pub(super) fn now() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    Duration::new(u64::try_from(time.tv_sec).unwrap_or(0), u32::try_from(time.tv_nsec).unwrap_or(0))
}

/// Time since the process first asked.
#[cfg(not(target_os = "linux"))]
pub(super) fn now() -> Duration {
    use std::sync::OnceLock;
    use std::time::Instant;
    static EPOCH: OnceLock<Instant> = OnceLock::new();
    EPOCH.get_or_init(Instant::now).elapsed()
}

/// The wall clock, in milliseconds since the UNIX epoch: for what is told to others, never for what is decided here.
pub(super) fn wall_ms() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

/// Times a write, for the counters.
#[derive(Debug)]
pub(super) struct Stopwatch(std::time::Instant);

impl Stopwatch {
    pub(super) fn start() -> Self {
        Self(std::time::Instant::now())
    }

    pub(super) fn elapsed(&self) -> Duration {
        self.0.elapsed()
    }
}
