//! How far a projection is behind the log, and whether it is gaining.

use std::collections::VecDeque;
use std::time::Duration;

use crate::event::{Position, Timestamp};
use crate::sleep::until;

/// How far a projection is behind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Lag {
    /// Positions between it and the end of the log, including those that are none of its business.
    pub events: u64,
    /// How old the read model is: the time since the last event that it has taken in, if there are later ones.
    pub time: Duration,
}

/// Which way the lag goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trend {
    /// There is no lag.
    CaughtUp,
    /// It has become less.
    CatchingUp,
    /// It is as it was.
    Steady,
    /// It has become more.
    FallingBehind,
}

/// Looks at the lag from time to time. The trend is over the last [`SAMPLES`] of these, so over some seconds.
#[derive(Clone, Debug, Default)]
pub(super) struct LagMeter {
    samples: VecDeque<(Timestamp, u64)>,
}

const SAMPLES: usize = 8;
const INTERVAL: Duration = Duration::from_millis(500);

impl LagMeter {
    /// Takes a sample, if the last one is old enough.
    pub(super) fn look(&mut self, now: Timestamp, position: Position, head: Position) {
        let events = head.0.saturating_sub(position.0);
        let due = |&(at, _): &(Timestamp, u64)| now < at || until(at, now) >= INTERVAL;
        if self.samples.back().is_none_or(due) {
            if self.samples.len() == SAMPLES {
                self.samples.pop_front();
            }
            self.samples.push_back((now, events));
        }
    }

    /// The trend up to now.
    pub(super) fn trend(&self, position: Position, head: Position) -> Trend {
        let events = head.0.saturating_sub(position.0);
        let before = self.samples.front().map_or(events, |&(_, events)| events);
        match events.cmp(&before) {
            _ if events == 0 => Trend::CaughtUp,
            std::cmp::Ordering::Less => Trend::CatchingUp,
            std::cmp::Ordering::Equal => Trend::Steady,
            std::cmp::Ordering::Greater => Trend::FallingBehind,
        }
    }
}

/// The lag at a moment. `last` is the time of the last event that was taken in.
pub(super) fn lag(position: Position, head: Position, last: Timestamp, now: Timestamp) -> Lag {
    let events = head.0.saturating_sub(position.0);
    Lag { events, time: if events == 0 { Duration::ZERO } else { until(last, now) } }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_trend_is_over_some_seconds_and_not_over_one_batch() {
        let mut meter = LagMeter::default();
        assert_eq!(meter.trend(Position(3), Position(3)), Trend::CaughtUp);
        for second in 0..10 {
            meter.look(Timestamp(second * 1000), Position(second * 10), Position(100 + second));
        }
        assert_eq!(meter.trend(Position(90), Position(110)), Trend::CatchingUp);
        assert_eq!(meter.trend(Position(90), Position(1000)), Trend::FallingBehind);
    }

    #[test]
    fn a_clock_that_jumps_back_spoils_nothing() {
        let mut meter = LagMeter::default();
        meter.look(Timestamp(5000), Position(1), Position(9));
        meter.look(Timestamp(10), Position(2), Position(9));
        assert_eq!(meter.trend(Position(3), Position(9)), Trend::CatchingUp);
        assert_eq!(
            lag(Position(3), Position(9), Timestamp(5000), Timestamp(10)).time,
            Duration::ZERO
        );
    }
}
