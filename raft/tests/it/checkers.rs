//! The two checks of linearizability, by places in the log and by search, and the page of a violation.

use std::collections::BTreeSet;

use lattice_sim::{Report, fan_out};
use raft_consensus::sim::{Oracle, PlantedBug};

use crate::simulation::{THREADS, simulation};

/// The seeds with a violation, and the properties that were violated.
fn found(bug: PlantedBug, oracle: Oracle, seeds: u64) -> (BTreeSet<u64>, BTreeSet<String>) {
    let mut simulation = simulation();
    (simulation.bug, simulation.tuning) = (Some(bug), bug.tuning());
    simulation.oracle = oracle;
    let (mut found, mut properties) = (BTreeSet::new(), BTreeSet::new());
    let each = |report: Report| {
        if let Some(violation) = report.violation {
            found.insert(report.seed);
            properties.insert(violation.property);
        }
        true
    };
    fan_out(0..seeds, THREADS, |seed| simulation.run(seed), each);
    (found, properties)
}

/// What clients can see of stale reads is found by both, each without the other's help. The check by places finds more:
/// a read that is old and says what is still true is no lie to a client, and no less a defect.
#[test]
fn each_checker_finds_stale_reads_without_the_other() {
    let bug = PlantedBug::ReadIndexBeforeFirstCommit;
    let (by_places, properties) = found(bug, Oracle::Places, 200);
    assert_eq!(properties, ["linearizability".to_owned()].into());
    let (by_search, properties) = found(bug, Oracle::Search, 200);
    assert_eq!(properties, ["linearizability, by search".to_owned()].into());
    assert!(by_search.is_subset(&by_places), "{by_search:?} {by_places:?}");
    assert!(by_search.len() >= 5, "{by_search:?} of {by_places:?}");
}

/// Where nothing is wrong the search says so of every history, and none is too hard.
#[test]
fn every_history_of_a_correct_cluster_is_decided() {
    let simulation = simulation();
    let mut histories = 0;
    fan_out(
        0..100,
        THREADS,
        |seed| simulation.run(seed),
        |report| {
            report.assert_ok();
            assert_eq!(report.searched.unknown, 0);
            histories += report.searched.histories;
            true
        },
    );
    assert!(histories > 200, "{histories}");
}

#[test]
fn a_stale_read_leaves_a_page_that_says_who_read_what() {
    let failures = tempfile::tempdir().unwrap();
    let mut simulation = simulation();
    simulation.bug = Some(PlantedBug::ReadIndexBeforeFirstCommit);
    simulation.failures = Some(failures.path().to_owned());
    // Of the kinds of lies the plainest: an old value, although a newer one had been acknowledged.
    let is_lie = |report: &Report| {
        report.page.as_ref().is_some_and(|page| {
            let html = std::fs::read_to_string(page).unwrap();
            ["Why no order explains it", "although client "].iter().all(|text| html.contains(text))
        })
    };
    let report = (0..200).map(|seed| simulation.run(seed)).find(is_lie).expect("a stale read");
    let page = report.page.as_ref().unwrap();
    assert!(report.to_string().contains(&format!("\npage: {}", page.display())));
    let html = std::fs::read_to_string(page).unwrap();
    for part in
        [" = ", "although client ", ", acknowledged at ", "class=\"op impossible\"", "leads, term "]
    {
        assert!(html.contains(part), "{part}");
    }
    assert!(html.contains(&format!("--seed {} --bug", report.seed)));
    let title = format!("<title>Seed {}, at ", report.seed);
    assert!(html.contains(&title) && !html.contains("<script"));
}
