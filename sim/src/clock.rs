//! The clocks of one node.
//!
//! The world has one time, which no process sees. Each node has a monotonic clock that starts at an offset of its own
//! and may run fast or slow, jump forward, or stand still for a while, and a wall clock that follows it and may jump
//! either way besides.

use std::time::Duration;

use crate::random::nanos;

const MILLION: u128 = 1_000_000;

/// The wall-clock time at which every world begins, since the UNIX epoch: 14 November 2023, 22:13:20 UTC.
pub const WALL_EPOCH: Duration = Duration::from_secs(1_700_000_000);

/// The fastest and the slowest that a clock can be off, in millionths: twice and half as fast is beyond any hardware.
pub const DRIFT_PPM_MAX: i32 = 500_000;

/// The monotonic and the wall clock of one node.
#[derive(Clone, Debug)]
pub struct Clock {
    /// From when on the clock runs as `drift_ppm` says, in world time; it stands still before.
    base_at: u64,
    /// What it shows at `base_at`.
    base_local: u64,
    drift_ppm: i32,
    /// What the wall clock shows beyond the monotonic one.
    wall_ahead: Duration,
    /// What the wall clock shows less, so that both directions stay unsigned.
    wall_behind: Duration,
}

impl Clock {
    /// A clock that shows `offset` at the world's beginning, and a wall clock that is `skew` ahead of the truth then.
    pub(crate) fn new(offset: Duration, drift_ppm: i32, skew: Duration) -> Self {
        Self {
            base_at: 0,
            base_local: nanos(offset),
            drift_ppm: drift_ppm.clamp(-DRIFT_PPM_MAX, DRIFT_PPM_MAX),
            wall_ahead: WALL_EPOCH + skew,
            wall_behind: offset,
        }
    }

    fn rate(&self) -> u128 {
        u128::try_from(1_000_000 + i64::from(self.drift_ppm)).expect("drift is bounded")
    }

    /// What the monotonic clock shows at the world's time `at`.
    pub fn local(&self, at: Duration) -> Duration {
        let elapsed = u128::from(nanos(at).saturating_sub(self.base_at));
        let elapsed = u64::try_from(elapsed * self.rate() / MILLION).unwrap_or(u64::MAX);
        Duration::from_nanos(self.base_local.saturating_add(elapsed))
    }

    /// What the wall clock shows at the world's time `at`.
    pub fn wall(&self, at: Duration) -> Duration {
        (self.local(at) + self.wall_ahead).saturating_sub(self.wall_behind)
    }

    /// The first world time, not before `from`, at which the monotonic clock shows `local` or more.
    pub(crate) fn when(&self, local: Duration, from: Duration) -> Duration {
        let missing = u128::from(nanos(local).saturating_sub(self.base_local));
        if missing == 0 {
            return from;
        }
        let elapsed = (missing * MILLION).div_ceil(self.rate());
        let at = u128::from(self.base_at) + elapsed;
        Duration::from_nanos(u64::try_from(at).unwrap_or(u64::MAX)).max(from)
    }

    fn rebase(&mut self, at: Duration) {
        self.base_local = nanos(self.local(at));
        self.base_at = self.base_at.max(nanos(at));
    }
}

/// Changes the clocks of a node, at the world's present time.
#[derive(Debug)]
pub struct ClockMut<'a> {
    pub(crate) clock: &'a mut Clock,
    pub(crate) at: Duration,
}

impl ClockMut<'_> {
    /// Both clocks jump forward, as after a suspended machine wakes up.
    pub fn jump(&mut self, forward: Duration) {
        self.clock.rebase(self.at);
        self.clock.base_local = self.clock.base_local.saturating_add(nanos(forward));
    }

    /// The wall clock jumps forward.
    pub fn jump_wall_forward(&mut self, by: Duration) {
        self.clock.wall_ahead = self.clock.wall_ahead.saturating_add(by);
    }

    /// The wall clock jumps back, though not before the UNIX epoch.
    pub fn jump_wall_back(&mut self, by: Duration) {
        self.clock.wall_behind = self.clock.wall_behind.saturating_add(by);
    }

    /// Both clocks run fast by so many millionths from now on, or slow if it is negative; at most
    /// [`DRIFT_PPM_MAX`] either way.
    pub fn set_drift(&mut self, ppm: i32) {
        self.clock.rebase(self.at);
        self.clock.drift_ppm = ppm.clamp(-DRIFT_PPM_MAX, DRIFT_PPM_MAX);
    }

    /// Both clocks stand still for so long, and then go on from where they stood.
    pub fn freeze(&mut self, length: Duration) {
        self.clock.rebase(self.at);
        let until = nanos(self.at).saturating_add(nanos(length));
        self.clock.base_at = self.clock.base_at.max(until);
    }

    /// Both clocks run true from now on, and the wall clock shows the right time. The monotonic clock keeps what it
    /// shows: it never goes back.
    pub fn heal(&mut self) {
        self.clock.base_local = nanos(self.clock.local(self.at));
        self.clock.base_at = nanos(self.at);
        self.clock.drift_ppm = 0;
        self.clock.wall_ahead = WALL_EPOCH + self.at;
        self.clock.wall_behind = self.clock.local(self.at);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn change(clock: &mut Clock, at: Duration) -> ClockMut<'_> {
        ClockMut { clock, at }
    }

    #[test]
    fn a_clock_drifts_jumps_and_freezes() {
        let mut clock = Clock::new(100 * SECOND, 0, Duration::ZERO);
        assert_eq!(clock.local(10 * SECOND), 110 * SECOND);
        assert_eq!(clock.wall(10 * SECOND), WALL_EPOCH + 10 * SECOND);
        change(&mut clock, 10 * SECOND).set_drift(100_000);
        assert_eq!(clock.local(20 * SECOND), 121 * SECOND);
        change(&mut clock, 20 * SECOND).freeze(5 * SECOND);
        assert_eq!(clock.local(25 * SECOND), 121 * SECOND);
        assert_eq!(clock.local(35 * SECOND), 132 * SECOND);
        change(&mut clock, 35 * SECOND).jump(3_600 * SECOND);
        assert_eq!(clock.local(35 * SECOND), 3_732 * SECOND);
        change(&mut clock, 35 * SECOND).heal();
        assert_eq!(clock.local(36 * SECOND), 3_733 * SECOND);
        assert_eq!(clock.wall(36 * SECOND), WALL_EPOCH + 36 * SECOND);
    }

    #[test]
    fn a_change_while_frozen_does_not_thaw() {
        let mut clock = Clock::new(Duration::ZERO, 0, Duration::ZERO);
        change(&mut clock, SECOND).freeze(9 * SECOND);
        change(&mut clock, 2 * SECOND).set_drift(0);
        change(&mut clock, 3 * SECOND).freeze(SECOND);
        assert_eq!(clock.local(10 * SECOND), SECOND);
        assert_eq!(clock.local(11 * SECOND), 2 * SECOND);
        change(&mut clock, 12 * SECOND).freeze(9 * SECOND);
        change(&mut clock, 13 * SECOND).heal();
        assert_eq!(clock.local(14 * SECOND), 4 * SECOND);
    }

    #[test]
    fn the_wall_clock_jumps_either_way_and_the_monotonic_one_does_not_follow() {
        let mut clock = Clock::new(Duration::ZERO, 0, SECOND);
        change(&mut clock, SECOND).jump_wall_back(3_600 * SECOND);
        assert_eq!(clock.wall(SECOND), WALL_EPOCH - 3_598 * SECOND);
        change(&mut clock, SECOND).jump_wall_forward(7_200 * SECOND);
        assert_eq!(clock.wall(SECOND), WALL_EPOCH + 3_602 * SECOND);
        assert_eq!(clock.local(SECOND), SECOND);
    }

    #[test]
    fn a_deadline_is_reached_when_its_time_has_come_and_not_before() {
        for drift in [-500_000, -333_333, -7, 0, 1, 99_999, 500_000] {
            let clock = Clock::new(SECOND, drift, Duration::ZERO);
            for local in [1_000_000_001, 1_234_567_891, 77_777_777_777] {
                let local = Duration::from_nanos(local);
                let at = clock.when(local, Duration::ZERO);
                assert!(clock.local(at) >= local);
                assert!(clock.local(at - Duration::from_nanos(1)) < local);
            }
            assert_eq!(clock.when(Duration::ZERO, 5 * SECOND), 5 * SECOND);
        }
    }
}
