//! The latency monitor: the latest spikes of each event, where an event is a kind of work that can hold clients up.
//!
//! A spike is what took at least `latency-monitor-threshold` milliseconds (0, the default, turns the monitor off). Of one second only
//! the worst is kept, and of an event the latest 160.

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::Ordering;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::settings::Settings;
use crate::types::Now;

/// How many spikes are kept of an event.
const SPIKES_MAX: usize = 160;

/// The worst that happened within one second.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Spike {
    /// The second, since the Unix epoch.
    pub at_s: u64,
    /// How long it took, in milliseconds.
    pub ms: u64,
}

/// The spikes of one event.
#[derive(Clone, Debug, Default)]
pub struct Event {
    /// Oldest first, never empty once the event is known.
    pub spikes: VecDeque<Spike>,
    /// The worst since the last reset, in milliseconds.
    pub worst_ms: u64,
}

/// Spikes of latency, by event.
#[derive(Debug, Default)]
pub struct LatencyMonitor {
    events: Mutex<BTreeMap<&'static str, Event>>,
}

impl LatencyMonitor {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<&'static str, Event>> {
        self.events.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes something that took `us` microseconds, if that is a spike. Events are named as in Redis: `command`, `fast-command`,
    /// `expire-cycle`, `eviction-cycle` …
    pub fn note(&self, settings: &Settings, event: &'static str, us: u64, now: Now) {
        let threshold = settings.latency_monitor_threshold.load(Ordering::Relaxed);
        let ms = us / 1000;
        if threshold > 0 && u64::try_from(threshold).is_ok_and(|threshold| ms >= threshold) {
            self.take(event, ms, now);
        }
    }

    #[cold]
    fn take(&self, event: &'static str, ms: u64, now: Now) {
        let at_s = now.unix.0 / 1000;
        let mut events = self.lock();
        let event = events.entry(event).or_default();
        event.worst_ms = event.worst_ms.max(ms);
        if let Some(last) = event.spikes.back_mut()
            && last.at_s == at_s
        {
            last.ms = last.ms.max(ms);
            return;
        }
        if event.spikes.len() == SPIKES_MAX {
            event.spikes.pop_front();
        }
        event.spikes.push_back(Spike { at_s, ms });
    }

    /// All events by name.
    pub fn events(&self) -> BTreeMap<&'static str, Event> {
        self.lock().clone()
    }

    /// Forgets the events that `chosen` picks, and returns how many they were.
    pub fn reset(&self, mut chosen: impl FnMut(&str) -> bool) -> usize {
        let mut events = self.lock();
        let before = events.len();
        events.retain(|name, _| !chosen(name));
        before - events.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::UnixMillis;

    #[test]
    fn of_a_second_only_the_worst_is_kept() {
        let (monitor, settings) = (LatencyMonitor::default(), Settings::default());
        let at = |ms| Now { unix: UnixMillis(ms), monotonic_us: 0 };
        monitor.note(&settings, "command", 9_000_000, at(0));
        assert!(monitor.events().is_empty(), "off by default");
        settings.latency_monitor_threshold.store(5, Ordering::Relaxed);
        for (us, ms) in [(4_999, 0), (6_000, 0), (8_000, 10), (7_000, 20), (5_000, 1_000)] {
            monitor.note(&settings, "command", us, at(ms));
        }
        let events = monitor.events();
        let spikes: Vec<_> = events["command"].spikes.iter().map(|it| (it.at_s, it.ms)).collect();
        assert_eq!(spikes, [(0, 8), (1, 5)]);
        assert_eq!(events["command"].worst_ms, 8);
        assert_eq!(monitor.reset(|name| name == "other"), 0);
        assert_eq!(monitor.reset(|name| name == "command"), 1);
    }

    #[test]
    fn an_event_keeps_its_latest_spikes() {
        let (monitor, settings) = (LatencyMonitor::default(), Settings::default());
        settings.latency_monitor_threshold.store(1, Ordering::Relaxed);
        for second in 0..1000 {
            let now = Now { unix: UnixMillis(second * 1000), monotonic_us: 0 };
            monitor.note(&settings, "expire-cycle", 2_000, now);
        }
        let events = monitor.events();
        assert_eq!(events["expire-cycle"].spikes.len(), SPIKES_MAX);
        assert_eq!(events["expire-cycle"].spikes.front().map(|spike| spike.at_s), Some(840));
    }
}
