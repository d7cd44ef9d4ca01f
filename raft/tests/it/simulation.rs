//! Whole clusters under drawn faults: some hundreds of seeds here, as many as one likes with the example `simulate`.

use std::time::Duration;

use lattice_sim::{Campaign, FaultKind, Phase, Plan, Report, fan_out};
use raft_consensus::sim::{PlantedBug, Retried, Simulation, Swaps, Tuning};

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
    assert_eq!(campaign.overdue(tuning.markers()), [], "{tuning:?}:\n{campaign}");
    campaign
}

#[test]
fn clusters_keep_every_promise_under_faults() {
    let campaign = campaign(Tuning::General, 300);
    println!("{campaign}");
    assert!(campaign.simulated > Duration::from_secs(300 * 20));
    assert!(campaign.operations > 30_000, "too little gets done to show anything:\n{campaign}");
    for kind in FaultKind::SURVIVABLE {
        let count = campaign.faults.get(&kind).copied().unwrap_or_default();
        assert!(count > if kind.asks() { 5 } else { 20 }, "{kind}: {count}\n{campaign}");
    }
}

#[test]
fn more_damage_than_can_be_survived_stops_nodes_and_makes_nobody_wrong() {
    use FaultKind as Kind;
    let mut simulation = simulation();
    simulation.beyond_budget = true;
    simulation.faults = vec![
        Kind::BitRot,
        Kind::LostWrite,
        Kind::MisdirectedWrite,
        Kind::DiskLoss,
        Kind::Crash,
        Kind::Kill,
    ];
    let mut campaign = Campaign::new();
    for seed in 0..80 {
        let report = simulation.run(seed);
        report.assert_ok();
        campaign.add(report);
    }
    assert!(campaign.markers.contains_key("damage found at start"), "{campaign}");
}

#[test]
fn disks_that_lie_break_promises_and_nobody_panics() {
    use FaultKind as Kind;
    let mut simulation = simulation();
    simulation.faults = vec![Kind::SyncLie, Kind::Crash, Kind::CrashAll];
    let mut campaign = Campaign::new();
    for seed in 0..60 {
        let report = simulation.run(seed);
        report.assert_ok();
        campaign.add(report);
    }
    assert!(campaign.tolerated > 0, "what cannot be survived was survived:\n{campaign}");
}

#[test]
fn a_failing_run_shrinks_to_a_plan_that_fails_in_the_same_way() {
    let mut simulation = simulation();
    simulation.bug = Some(PlantedBug::FsyncErrorIgnored);
    let report = (0..100).map(|seed| simulation.run(seed)).find(|report| !report.is_ok()).unwrap();
    let shrunk = simulation.shrink(report.seed, 400).expect("it fails again");
    println!("{shrunk}\n{}", shrunk.plan);
    let property = |report: &Report| report.violation.as_ref().unwrap().property.clone();
    assert_eq!(property(&shrunk.report), property(&report));
    let operations = |report: &Report| report.begun.values().sum::<u64>();
    assert!(shrunk.report.schedule.len() < report.schedule.len(), "{shrunk}");
    assert!(operations(&shrunk.report) < operations(&report), "{shrunk}");

    let plan: Plan = shrunk.plan.to_string().parse().unwrap();
    let again = self::simulation().replay(&plan).unwrap();
    assert_eq!(again.hash, shrunk.report.hash, "the file alone says what to run");
    assert_eq!(property(&again), property(&report));
}

#[test]
fn a_plan_that_names_nothing_that_exists_is_refused() {
    for text in
        ["safety=5", "seed=x", "seed=1\nbug=none", "seed=1\ntuning=none", "seed=1\ndemand=none"]
    {
        let plan: Plan = text.parse().unwrap();
        assert!(simulation().replay(&plan).is_err(), "{text}");
    }
}

/// What finds the planted bugs must find nothing without them.
#[test]
fn clusters_keep_every_promise_when_leaders_fall_and_disks_are_slow_and_reads_have_leases() {
    for tuning in [Tuning::LostLeaders, Tuning::SlowDisks, Tuning::Leases, Tuning::Snapshots] {
        let campaign = campaign(tuning, 60);
        assert!(campaign.operations > 1_000, "{tuning:?}:\n{campaign}");
    }
}

/// Groups go quiet whenever they can, and are woken by whatever happens.
#[test]
fn clusters_keep_every_promise_while_groups_go_quiet_and_wake() {
    let campaign = campaign(Tuning::Quiet, 150);
    println!("{campaign}");
    assert!(campaign.operations > 1_500, "too little gets done to show anything:\n{campaign}");
}

/// Members come and go, and leadership is handed over, all the time.
#[test]
fn clusters_keep_every_promise_while_their_members_change() {
    let campaign = campaign(Tuning::Members, 200);
    assert!(campaign.operations > 4_000, "too little gets done to show anything:\n{campaign}");
}

#[test]
fn the_same_seed_gives_the_same_run() {
    for seed in 0..12 {
        simulation().run_twice(seed).assert_ok();
        assert_ne!(simulation().run(seed).hash, simulation().run(seed + 1).hash);
    }
}

fn retried(forgets: bool) -> Simulation<Retried> {
    Simulation::new(Retried::new(forgets))
}

/// Case 51, under all faults: what has two places in the log has one effect, and one reply.
#[test]
fn what_clients_with_sessions_send_again_takes_effect_once() {
    let mut operations = 0;
    for report in (0..100).map(|seed| retried(false).run(seed)) {
        report.assert_ok();
        operations += report.operations;
    }
    assert!(operations > 5_000, "too little gets done: {operations}");
}

/// And that can fail: replies that a snapshot leaves out are missed.
#[test]
fn sessions_that_a_snapshot_leaves_out_are_missed() {
    assert!((0..300).any(|seed| !retried(true).run(seed).is_ok()));
}
