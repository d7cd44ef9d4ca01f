//! The store on disk under a virtual clock and a failing disk: a few seeds with each test run, thousands with
//! `examples/simulate_events.rs`.

use event_sourcing::sim::{PlantedBug, Simulation};
use lattice_sim::{Campaign, fan_out};

/// As many as the smallest machines have cores.
pub(crate) const THREADS: usize = 2;

pub(crate) fn simulation() -> Simulation {
    let command = "cargo run --release -p event-sourcing --example simulate_events --".to_owned();
    Simulation { command, ..Simulation::default() }
}

#[test]
fn every_answer_is_that_of_the_model_in_every_run() {
    let simulation = simulation();
    let mut campaign = Campaign::new();
    fan_out(
        0..40,
        THREADS,
        |seed| simulation.run(seed),
        |report| {
            campaign.add(report);
            true
        },
    );
    assert!(campaign.is_ok(), "{campaign}");
    assert_eq!(campaign.seeds, 40);
}

#[test]
fn the_same_seed_is_the_same_run() {
    let simulation = simulation();
    for seed in 1_000..1_004 {
        simulation.run_twice(seed).assert_ok();
    }
    assert_ne!(simulation.run(1_000).hash, simulation.run(1_001).hash);
}

#[test]
fn a_violation_names_the_command_that_shows_it_again() {
    let simulation = Simulation { bug: Some(PlantedBug::ChainOutOfOrder), ..simulation() };
    let (report, story) = simulation.run_and_tell(0);
    let said = report.to_string();
    assert!(said.contains("--seed 0 --bug chain-out-of-order"), "{said}");
    assert!(!story.is_empty());
}
