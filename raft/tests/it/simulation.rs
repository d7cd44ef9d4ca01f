//! Whole clusters under drawn faults: some hundreds of seeds here, as many as one likes with the example `simulate`.

use std::time::Duration;

use lattice_sim::{Campaign, FaultKind, Phase, fan_out};
use raft_consensus::sim::{Simulation, Swaps, Tuning};

/// Threads of a campaign in a test.
pub(crate) const THREADS: usize = 2;

pub(crate) fn simulation() -> Simulation<Swaps> {
    let mut simulation = Simulation::new(Swaps::default());
    simulation.command = "cargo run --release -p raft-consensus --example simulate --".to_owned();
    simulation
}

fn campaign(tuning: Tuning, seeds: u64) -> Campaign {
    let mut simulation = simulation();
    simulation.tuning = tuning;
    let mut campaign = Campaign::new();
    fan_out(
        0..seeds,
        THREADS,
        |seed| simulation.run(seed),
        |report| {
            report.assert_ok();
            assert_eq!(report.phase, Phase::Done);
            campaign.add(report);
            true
        },
    );
    campaign
}

#[test]
fn clusters_keep_every_promise_under_faults() {
    let campaign = campaign(Tuning::General, 300);
    println!("{campaign}");
    assert!(campaign.simulated > Duration::from_secs(300 * 20));
    assert!(campaign.operations > 30_000, "too little gets done to show anything:\n{campaign}");
    for kind in FaultKind::SURVIVABLE.into_iter().filter(|kind| !kind.asks()) {
        assert!(campaign.faults.get(&kind).is_some_and(|count| *count > 20), "{kind} was missing");
    }
}

/// What finds the planted bugs must find nothing without them.
#[test]
fn clusters_keep_every_promise_when_leaders_fall_and_disks_are_slow_and_reads_have_leases() {
    for tuning in [Tuning::LostLeaders, Tuning::SlowDisks, Tuning::Leases] {
        let campaign = campaign(tuning, 60);
        assert!(campaign.operations > 1_000, "{tuning:?}:\n{campaign}");
    }
}

#[test]
fn the_same_seed_gives_the_same_run() {
    for seed in 0..12 {
        simulation().run_twice(seed).assert_ok();
        assert_ne!(simulation().run(seed).hash, simulation().run(seed + 1).hash);
    }
}
