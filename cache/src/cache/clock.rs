//! The embedded cache's clock where nobody brings another: the one place of it that asks the system for the time.
#![expect(
    clippy::disallowed_methods,
    reason = "this is where the embedded cache's time comes from"
)]

use std::time::{Instant, SystemTime, UNIX_EPOCH};

use crate::engine::Clock;
use crate::types::{Now, UnixMillis};

/// The wall clock's time at the start, plus what a clock that only goes forwards has measured since: so a step of the wall
/// clock expires nothing.
#[derive(Debug)]
pub(super) struct SystemClock {
    wall_us_at_start: u64,
    start: Instant,
}

impl SystemClock {
    pub(super) fn new() -> Self {
        Self { wall_us_at_start: wall_us(), start: Instant::now() }
    }
}

fn wall_us() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_micros()).unwrap_or(u64::MAX)
}

impl Clock for SystemClock {
    fn now(&self) -> Now {
        let elapsed = u64::try_from(self.start.elapsed().as_micros()).unwrap_or(u64::MAX);
        let unix = UnixMillis(self.wall_us_at_start.saturating_add(elapsed) / 1000);
        Now { unix, monotonic_us: elapsed }
    }

    fn wall_us(&self) -> u64 {
        wall_us()
    }
}
