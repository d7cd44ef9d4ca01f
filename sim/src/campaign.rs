//! Many runs: their totals, and the threads that share them.
//!
//! Every run is a function of its seed alone, so runs share nothing and their order does not matter. The threads are
//! the only ones in this crate, and nothing that is simulated knows of them.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use crate::check::Searched;
use crate::fault::FaultKind;
use crate::marker::Marker;
use crate::run::Report;

/// How many failing runs a campaign remembers; it counts all of them.
pub const FAILURES_MAX: usize = 20;

/// The totals of many runs.
#[derive(Clone, Debug, Default)]
pub struct Campaign {
    /// Runs.
    pub seeds: u64,
    /// Time on the worlds' own clocks.
    pub simulated: Duration,
    /// Events that processes handled.
    pub events: u64,
    /// Operations that were checked.
    pub operations: u64,
    /// Faults by kind.
    pub faults: BTreeMap<FaultKind, u64>,
    /// In how many runs each marker was met.
    pub markers: BTreeMap<&'static str, u64>,
    /// Runs in which something was broken that was not demanded.
    pub tolerated: u64,
    /// Histories of clients that were searched for an order.
    pub searched: Searched,
    /// Runs that found a violation.
    pub violations: u64,
    /// The failing runs with the smallest seeds, at most [`FAILURES_MAX`].
    pub failures: Vec<Report>,
}

impl Campaign {
    /// No runs yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Counts one run.
    pub fn add(&mut self, report: Report) {
        self.seeds += 1;
        self.simulated += report.simulated;
        self.events += report.events;
        self.operations += report.operations;
        self.searched += report.searched;
        for (kind, count) in &report.faults {
            *self.faults.entry(*kind).or_default() += count;
        }
        for (name, _) in report.markers.iter() {
            *self.markers.entry(name).or_default() += 1;
        }
        self.tolerated += u64::from(report.tolerated.is_some());
        if !report.is_ok() {
            self.violations += 1;
            // Sorted by seed, so that the order in which threads finish does not show.
            let place = self.failures.partition_point(|other| other.seed < report.seed);
            self.failures.insert(place, report);
            self.failures.truncate(FAILURES_MAX);
        }
    }

    /// Whether everything held in every run, and next to no history was too hard to judge.
    pub fn is_ok(&self) -> bool {
        self.violations == 0 && self.searched.is_enough()
    }

    /// Which of these were never met.
    pub fn missed(&self, markers: &[Marker]) -> Vec<Marker> {
        markers.iter().filter(|marker| !self.markers.contains_key(marker.name)).copied().collect()
    }

    /// Which of these were never met although there were runs enough: with any of them the campaign has failed.
    pub fn overdue(&self, markers: &[Marker]) -> Vec<Marker> {
        let mut missed = self.missed(markers);
        missed.retain(|marker| marker.within <= self.seeds);
        missed
    }

    /// How much faster than real time the worlds ran, in whole times, if the campaign took `elapsed`.
    pub fn speed(&self, elapsed: Duration) -> u128 {
        self.simulated.as_nanos() / elapsed.as_nanos().max(1)
    }
}

impl fmt::Display for Campaign {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "seeds              {}", self.seeds)?;
        writeln!(f, "simulated hours    {:.2}", self.simulated.as_secs_f64() / 3_600.0)?;
        writeln!(f, "events             {}", self.events)?;
        writeln!(f, "operations checked {}", self.operations)?;
        if self.searched.histories > 0 {
            writeln!(f, "histories searched {}", self.searched)?;
        }
        writeln!(f, "faults             {}", self.faults.values().sum::<u64>())?;
        for (kind, count) in &self.faults {
            writeln!(f, "  {kind:<20} {count}")?;
        }
        if !self.markers.is_empty() {
            writeln!(f, "met in so many seeds")?;
            for (name, count) in &self.markers {
                writeln!(f, "  {name:<36} {count}")?;
            }
        }
        if self.tolerated > 0 {
            writeln!(f, "broken, not counted {}", self.tolerated)?;
        }
        write!(f, "violations         {}", self.violations)?;
        for failure in &self.failures {
            write!(f, "\n\n{failure}")?;
        }
        Ok(())
    }
}

/// Runs every seed of a range on `threads` threads, and hands each report to `each` on the calling thread, in the order
/// in which runs end. `each` answers whether to go on; runs that have begun still end, and are not handed over.
pub fn fan_out(
    seeds: Range<u64>,
    threads: usize,
    run: impl Fn(u64) -> Report + Sync,
    mut each: impl FnMut(Report) -> bool,
) {
    let next = AtomicU64::new(seeds.start);
    let (reports, received) = mpsc::sync_channel(threads.max(1));
    thread::scope(|scope| {
        for _ in 0..threads.max(1) {
            let (reports, next, seeds, run) = (reports.clone(), &next, &seeds, &run);
            scope.spawn(move || {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    // The receiver is gone when nobody wants more.
                    if seed >= seeds.end || reports.send(run(seed)).is_err() {
                        return;
                    }
                }
            });
        }
        drop(reports);
        // Taken along, so that it is dropped, and the threads end, as soon as the loop does.
        for report in received {
            if !each(report) {
                break;
            }
        }
    });
}
