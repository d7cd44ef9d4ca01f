//! The checks can fail: every planted bug is found, within the number of seeds stated here.

use distributed_cache::sim::PlantedBug;
use lattice_sim::{Report, fan_out};

use crate::simulation::{THREADS, simulation};

/// The violation with the smallest seed, out of the first `seeds`.
fn first_violation(bug: PlantedBug, seeds: u64) -> Report {
    let mut simulation = simulation();
    simulation.bug = Some(bug);
    let mut found: Option<Report> = None;
    fan_out(
        0..seeds,
        THREADS,
        |seed| simulation.run(seed),
        |report| {
            if !report.is_ok() && found.as_ref().is_none_or(|found| report.seed < found.seed) {
                found = Some(report);
            }
            found.is_none()
        },
    );
    let report = found.unwrap_or_else(|| panic!("{bug} was not found within {seeds} seeds"));
    println!("{bug}: seed {}: {}", report.seed, report.violation.as_ref().unwrap());
    report
}

/// Found, and told with the command that shows it again.
fn check(bug: PlantedBug, seeds: u64) {
    let report = first_violation(bug, seeds);
    let command = format!("--seed {} --bug {bug}", report.seed);
    assert!(report.to_string().contains(&command), "{report}");
}

#[test]
fn every_planted_bug_is_found() {
    use PlantedBug as Bug;
    for (bug, seeds) in [
        (Bug::DeadlineAsDuration, 10),
        (Bug::WheelOverflow, 10),
        (Bug::ScanByPlace, 60),
        (Bug::ScanSkipsEqualHashes, 60),
        (Bug::TrackingMissesExpiry, 60),
        (Bug::TrackingMissesFlush, 60),
        (Bug::WatchMissesExpiry, 100),
        (Bug::WatchMissesSwap, 100),
        (Bug::LeaseGrantedTwice, 60),
        (Bug::LeaseOutlivesItsTime, 60),
        (Bug::BlockedClientServedTwice, 60),
        (Bug::ExpiredServedWhenWheelLags, 10),
        (Bug::KeepTtlForgets, 60),
        (Bug::CompactionLeavesStaleHandle, 10),
        (Bug::EvictionNotAnnounced, 60),
        (Bug::VolatilePolicyEvictsAny, 60),
        (Bug::LimitForgotten, 60),
        (Bug::VolatileCountDrifts, 10),
        (Bug::VersionStandsStill, 10),
    ] {
        check(bug, seeds);
    }
    assert_eq!(Bug::ALL.len(), 19, "each of them is in the table above");
}
