//! The checks can fail: every planted bug is found, within the number of seeds stated here.

use lattice_sim::{Report, fan_out};
use raft_consensus::sim::{PlantedBug, Tuning};

use crate::simulation::{THREADS, simulation};

/// The violation with the smallest seed, out of the first `seeds`.
fn first_violation(bug: PlantedBug, seeds: u64) -> Report {
    let mut simulation = simulation();
    (simulation.bug, simulation.tuning) = (Some(bug), Tuning::for_bug(bug));
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

/// Found by the property that it breaks, or a consequence of it, and told with the command that shows it again.
fn check(bug: PlantedBug, seeds: u64) {
    let report = first_violation(bug, seeds);
    let command = format!("--seed {} --bug {bug}", report.seed);
    assert!(report.to_string().contains(&command), "{report}");
}

#[test]
fn every_planted_bug_is_found() {
    use PlantedBug as Bug;
    for (bug, seeds) in [
        (Bug::VoteNotPersistedBeforeReply, 100),
        (Bug::CommitOfEarlierTermByCounting, 400),
        (Bug::TruncateOnAnyConflictMessage, 100),
        (Bug::ReadIndexBeforeFirstCommit, 100),
        (Bug::LeaderCountsItselfBeforeDisk, 100),
        (Bug::FsyncErrorIgnored, 100),
        (Bug::ApplyBeforeCommit, 10),
        (Bug::ForgottenTermOnRestart, 100),
        (Bug::LeaseFromArrival, 100),
        (Bug::LeaseIgnoresDrift, 600),
        (Bug::NewLeaderDoesNotWait, 20),
        (Bug::AnyReplyConfirmsRead, 1_000),
        (Bug::ClockBeforeQueue, 50),
        (Bug::LeaseKeptAfterTransfer, 100),
        (Bug::JointCountedByNewVoters, 200),
        (Bug::SingleStepChangeBeforeFirstCommit, 200),
        (Bug::MembershipNotRolledBack, 300),
        (Bug::MembershipInForceAtCommit, 100),
        (Bug::JointLeftBeforeCommit, 400),
        (Bug::JointNeverLeft, 50),
        (Bug::LearnerCounted, 100),
        (Bug::VoteOfAnybodyCounted, 100),
        (Bug::TimeoutNowToLaggingTarget, 50),
    ] {
        check(bug, seeds);
    }
    assert_eq!(Bug::ALL.len(), 23, "each of them is in the table above");
}
