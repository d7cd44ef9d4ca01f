//! The clock of a running node.
//!
//! Deadlines are compared with Unix time, but the wall clock may be set: by an hour, by mistake, in either direction. Followed at
//! once, such a step would expire everything, or keep it an hour too long. So the node reads the wall clock once, at its start, and
//! from then on adds what a clock has measured that counts evenly and through a suspended machine's sleep as well
//! (`CLOCK_BOOTTIME`). The two drift apart by some parts in a million, as the wall clock is disciplined from outside; [`Slew`] leads
//! ours after it, gently: by no more than [`SLEW_MAX_PPM`]. A drift is followed within seconds; a step of an hour is lived
//! down over weeks, and nothing is early or late at once.
//!
//! On the hot path this is one `clock_gettime`, which the kernel answers without a system call.

use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use rustix::time::{ClockId, clock_gettime};

use crate::engine::Clock;
use crate::types::{Now, UnixMillis};

/// The most by which the clock is led faster or slower, in parts in a million.
pub const SLEW_MAX_PPM: i64 = 500;

/// From which difference to the wall clock on it is worth a word in the log, in microseconds.
const NOTABLE_US: i64 = 1_000_000;

/// What has to be added to a clock that counts evenly to show Unix time, led gently after the wall clock. Microseconds
/// throughout; no clock is read here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slew {
    offset: i64,
    adjusted_at: u64,
}

impl Slew {
    /// The offset at the start, when the even clock shows `even` and the wall clock `wall`.
    #[must_use]
    pub fn new(even: u64, wall: u64) -> Self {
        Self { offset: difference(wall, even), adjusted_at: even }
    }

    /// The offset.
    #[must_use]
    pub fn offset(&self) -> i64 {
        self.offset
    }

    /// Leads the offset towards what the two clocks show now, by at most [`SLEW_MAX_PPM`] of the time since the last call.
    /// Returns how far the wall clock is ahead of ours after that.
    pub fn adjust(&mut self, even: u64, wall: u64) -> i64 {
        let elapsed = i64::try_from(even.saturating_sub(self.adjusted_at)).unwrap_or(i64::MAX);
        let most =
            elapsed / 1_000_000 * SLEW_MAX_PPM + elapsed % 1_000_000 * SLEW_MAX_PPM / 1_000_000;
        let error = difference(wall, even).saturating_sub(self.offset);
        let step = error.clamp(-most, most);
        self.offset = self.offset.saturating_add(step);
        self.adjusted_at = even;
        error - step
    }
}

fn difference(left: u64, right: u64) -> i64 {
    let left = i64::try_from(left).unwrap_or(i64::MAX);
    left.saturating_sub(i64::try_from(right).unwrap_or(i64::MAX))
}

/// The clock of a running node: one for all its threads.
#[derive(Debug)]
pub struct SystemClock {
    offset: AtomicI64,
    /// The latest time that anybody was told, in milliseconds: being led slower, or asked by two threads at once, the clock never
    /// goes back behind it.
    latest: AtomicU64,
    slew: Mutex<Slew>,
    wall_is_off: std::sync::atomic::AtomicBool,
}

impl Default for SystemClock {
    fn default() -> Self {
        Self::new()
    }
}

impl SystemClock {
    /// A clock that shows what the wall clock shows.
    #[must_use]
    pub fn new() -> Self {
        let slew = Slew::new(even_us(), wall_us());
        Self {
            offset: AtomicI64::new(slew.offset()),
            latest: AtomicU64::new(0),
            slew: Mutex::new(slew),
            wall_is_off: std::sync::atomic::AtomicBool::new(false),
        }
    }

    /// Leads the clock after the wall clock. To be called about once a second.
    pub fn follow_wall(&self) {
        let mut slew = self.slew.lock().unwrap_or_else(PoisonError::into_inner);
        let ahead = slew.adjust(even_us(), wall_us());
        self.offset.store(slew.offset(), Ordering::Relaxed);
        let is_off = ahead.abs() > NOTABLE_US;
        if is_off != self.wall_is_off.swap(is_off, Ordering::Relaxed) {
            if is_off {
                let ahead_s = ahead / 1_000_000;
                tracing::warn!(ahead_s, "the wall clock was set; deadlines go by our own time");
            } else {
                tracing::info!("our time and the wall clock agree again");
            }
        }
    }
}

impl Clock for SystemClock {
    fn now(&self) -> Now {
        let even = even_us();
        let unix_us = even.saturating_add_signed(self.offset.load(Ordering::Relaxed));
        let unix = unix_us / 1000;
        // Written once a millisecond, so the threads share the line without contending for it.
        let latest = self.latest.load(Ordering::Relaxed);
        let unix = if unix > latest {
            self.latest.fetch_max(unix, Ordering::Relaxed).max(unix)
        } else {
            latest
        };
        Now { unix: UnixMillis(unix), monotonic_us: even }
    }

    fn wall_us(&self) -> u64 {
        wall_us()
    }
}

/// Microseconds since the machine was started, its sleep included.
fn even_us() -> u64 {
    microseconds(ClockId::Boottime)
}

fn wall_us() -> u64 {
    microseconds(ClockId::Realtime)
}

fn microseconds(clock: ClockId) -> u64 {
    let time = clock_gettime(clock);
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    let nanoseconds = u64::try_from(time.tv_nsec).unwrap_or(0);
    seconds * 1_000_000 + nanoseconds / 1000
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000;
    const HOUR: u64 = 3600 * SECOND;
    const START: u64 = 1_700_000_000 * SECOND;

    #[test]
    fn a_drift_is_followed() {
        // The even clock runs 100 parts in a million too fast.
        let mut slew = Slew::new(0, START);
        for second in 1..=1000 {
            let even = second * (SECOND + 100);
            let ahead = slew.adjust(even, START + second * SECOND);
            assert_eq!(ahead, 0, "after {second} s");
        }
        assert_eq!(slew.offset(), i64::try_from(START).unwrap() - 100 * 1000);
    }

    #[test]
    fn a_step_of_the_wall_clock_moves_ours_by_no_more_than_the_slew() {
        for (ahead, back) in [(HOUR, 0), (0, HOUR)] {
            let mut slew = Slew::new(0, START);
            let before = slew.offset();
            for second in 1..=60 {
                slew.adjust(second * SECOND, START + second * SECOND + ahead - back);
            }
            let moved = slew.offset() - before;
            assert_eq!(moved.abs(), 60 * SLEW_MAX_PPM);
            assert_eq!(moved > 0, ahead > 0);
        }
    }

    #[test]
    fn a_step_is_lived_down_in_the_end() {
        let mut slew = Slew::new(0, START);
        let mut even = 0;
        let mut hours = 0;
        while slew.adjust(even, START + even + HOUR) != 0 {
            even += HOUR;
            hours += 1;
        }
        assert_eq!(hours, 2000, "an hour at 500 parts in a million");
    }

    #[test]
    fn our_time_never_goes_backwards_while_it_is_led_back() {
        let mut slew = Slew::new(0, START);
        let mut last = 0;
        for tick in 1..10_000_u64 {
            let even = tick * 1000;
            slew.adjust(even, START + even - 5 * SECOND);
            let shown = even.saturating_add_signed(slew.offset());
            assert!(shown > last);
            last = shown;
        }
    }

    #[test]
    fn clocks_at_their_ends_do_not_overflow() {
        let mut slew = Slew::new(u64::MAX, 0);
        assert_eq!(slew.adjust(u64::MAX, u64::MAX), i64::MAX);
        slew.adjust(0, u64::MAX);
        let mut slew = Slew::new(0, u64::MAX);
        slew.adjust(u64::MAX, 0);
    }

    #[test]
    fn the_clock_shows_wall_time_and_goes_on() {
        let clock = SystemClock::new();
        let first = clock.now();
        assert!(first.unix.0.abs_diff(clock.wall_us() / 1000) < 1000);
        clock.follow_wall();
        let second = clock.now();
        assert!(second.unix >= first.unix && second.monotonic_us >= first.monotonic_us);
    }
}
