//! The checks can fail: every planted bug is found, within the number of seeds stated here.

use event_sourcing::sim::PlantedBug;
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
#[test]
fn every_planted_bug_is_found() {
    for bug in PlantedBug::ALL {
        let report = first_violation(*bug, 100);
        let command = format!("--seed {} --bug {bug}", report.seed);
        assert!(report.to_string().contains(&command), "{report}");
    }
    assert!(PlantedBug::ALL.len() >= 15);
}
