//! The checks can fail: every planted bug is found, within the number of seeds stated here.

use lattice_sim::{Report, fan_out};
use raft_consensus::sim::PlantedBug;

use crate::simulation::{THREADS, simulation};

/// The violation with the smallest seed, out of the first `seeds`.
fn first_violation(bug: PlantedBug, seeds: u64) -> Report {
    let mut simulation = simulation();
    (simulation.bug, simulation.tuning) = (Some(bug), bug.tuning());
    let mut found: Option<Report> = None;
    fan_out(
        0..seeds,
        THREADS,
        |seed| simulation.run_planted(seed),
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

/// Found by the property that it breaks, or a consequence of it, and told with the command that shows it again.
#[test]
fn every_planted_bug_is_found() {
    for bug in PlantedBug::ALL {
        let report = first_violation(bug, bug.within());
        let command = format!("--seed {} --bug {bug}", report.seed);
        assert!(report.to_string().contains(&command), "{report}");
    }
}
