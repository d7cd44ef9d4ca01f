//! Whole runs: what is right passes under every fault, and what is wrong is found, told and replayed.
#![expect(clippy::disallowed_methods, reason = "the trace of a failing run is a real file")]

use std::time::Duration;

use lattice_sim::{
    Campaign, Demand, FaultKind, Faults, Marker, NemesisOptions, Phase, Report, RunOptions, Span,
    Swarm, WorldOptions, fan_out, run, shrink,
};
use lattice_trace::TraceReader;

use crate::counter::{Bug, Counting, NODES};

const SECOND: Duration = Duration::from_secs(1);

fn options(seed: u64) -> RunOptions {
    let mut options = RunOptions::new(WorldOptions::new(seed), NemesisOptions::new(NODES));
    options.safety = 10 * SECOND;
    options.replay = format!("simulate --seed {seed}");
    options
}

fn run_with(seed: u64, bug: Bug) -> Report {
    run(&options(seed), || Counting(bug))
}

#[test]
fn a_correct_counter_loses_nothing_under_any_faults() {
    let mut campaign = Campaign::new();
    fan_out(
        0..60,
        2,
        |seed| run_with(seed, Bug::None),
        |report| {
            report.assert_ok();
            assert_eq!(report.phase, Phase::Done);
            campaign.add(report);
            true
        },
    );
    assert!(campaign.is_ok());
    assert_eq!(campaign.seeds, 60);
    assert!(campaign.simulated >= 600 * SECOND);
    assert!(campaign.operations > 3_000, "{campaign}");
    for kind in FaultKind::SURVIVABLE.into_iter().filter(|kind| !kind.asks()) {
        let struck = campaign.faults.get(&kind).copied().unwrap_or_default();
        assert!(struck > 0, "{kind}");
    }
    let text = campaign.to_string();
    assert!(text.contains("seeds              60") && text.contains("violations         0"));
}

#[test]
fn the_same_seed_gives_the_same_report() {
    for seed in 0..5 {
        let (one, other) = (run_with(seed, Bug::None), run_with(seed, Bug::None));
        assert_eq!(one.hash, other.hash);
        assert_eq!(one.to_string(), other.to_string());
        assert_ne!(one.hash, run_with(seed + 1, Bug::None).hash);
    }
}

#[test]
fn an_acknowledgement_before_the_sync_is_found() {
    let found = (0..40).find(|seed| !run_with(*seed, Bug::AckBeforeSync).is_ok());
    let seed = found.expect("the planted bug is found within 40 seeds");
    let report = run_with(seed, Bug::AckBeforeSync);
    assert_eq!(report.phase, Phase::Safety);
    assert_eq!(report.violation.as_ref().unwrap().property, "acknowledged counts are kept");
    let text = report.to_string();
    assert!(text.contains(&format!("seed {seed} hash ")), "{text}");
    assert!(text.contains(&format!("\nreplay: simulate --seed {seed}")), "{text}");
    assert!(text.contains("\nswarm: "), "{text}");
}

#[test]
fn a_failing_run_leaves_its_trace() {
    let directory = std::env::temp_dir().join(format!("lattice-sim-{}", std::process::id()));
    let mut options = options(7);
    options.failures = Some(directory.clone());
    options.faults =
        Faults::Given(Swarm::none().with(FaultKind::Crash, Duration::from_millis(300)));
    options.world.disk.latency.sync = Span::millis(20, 40);
    let report = run(&options, || Counting(Bug::AckBeforeSync));
    let path = report.trace.as_ref().unwrap_or_else(|| panic!("no trace: {report}"));
    assert_eq!(path, &directory.join("7.jsonl"));
    let bytes = std::fs::read(path).unwrap();
    std::fs::remove_dir_all(&directory).unwrap();
    let records: Vec<_> = TraceReader::new(bytes.as_slice()).map(Result::unwrap).collect();
    assert!(records.iter().any(|record| record.fields.get("detail").is_some_and(|d| d == "crash")));
    assert!(records.len() > 100);
    assert!(!report.to_string().contains("went another way"));
}

#[test]
fn a_panic_is_a_violation() {
    let report = run_with(1, Bug::PanicAtTen);
    let violation = report.violation.unwrap();
    assert_eq!(violation.to_string(), "no panic: planted: ten is too much");
}

#[test]
fn a_system_that_never_recovers_is_found() {
    let mut options = options(1);
    options.faults = Faults::Given(Swarm::none().with(FaultKind::CrashAll, SECOND));
    let report = run(&options, || Counting(Bug::Deaf));
    assert_eq!(report.phase, Phase::Healing);
    assert_eq!(report.violation.unwrap().property, "progress");
}

#[test]
fn a_campaign_stops_when_it_is_told_to() {
    let quiet = |seed| RunOptions { faults: Faults::Given(Swarm::none()), ..options(seed) };
    let panics = |seed| run(&quiet(seed), || Counting(Bug::PanicAtTen));
    let mut campaign = Campaign::new();
    fan_out(0..1_000_000, 2, panics, |report| {
        campaign.add(report);
        campaign.seeds < 3
    });
    assert_eq!((campaign.seeds, campaign.violations), (3, 3));
    assert_eq!(campaign.failures.len(), 3);
}

#[test]
fn a_run_repeats_from_the_schedule_that_it_wrote_down() {
    for seed in 0..10 {
        let report = run_with(seed, Bug::None);
        assert_eq!(report.schedule.len() as u64, report.faults.values().sum::<u64>());
        let mut options = options(seed);
        let lines: Vec<String> = report.schedule.iter().map(ToString::to_string).collect();
        let schedule = lines.iter().map(|line| line.parse().unwrap()).collect();
        options.faults = Faults::Recorded(schedule);
        let again = run(&options, || Counting(Bug::None));
        assert_eq!((again.hash, again.schedule), (report.hash, report.schedule), "seed {seed}");
    }
}

#[test]
fn a_failing_run_shrinks_to_the_crash_that_it_takes() {
    let found = (0..40).find(|seed| !run_with(*seed, Bug::AckBeforeSync).is_ok()).unwrap();
    let report = run_with(found, Bug::AckBeforeSync);
    let shrunk = shrink(&report, 500, |plan| {
        let mut options = options(found);
        options.faults = Faults::Recorded(plan.faults.clone());
        options.safety = plan.safety;
        run(&options, || Counting(Bug::AckBeforeSync))
    });
    let shrunk = shrunk.expect("it fails again");
    println!("{shrunk}");
    assert_eq!(shrunk.report.violation.unwrap().property, report.violation.unwrap().property);
    assert!(shrunk.plan.faults.len() <= 2 && report.schedule.len() > 2, "{}", shrunk.plan);
}

#[test]
fn less_is_demanded_of_disks_that_lie() {
    let lying = |demand| {
        let mut options = options(1);
        options.demand = demand;
        options.faults = Faults::Given(
            Swarm::none()
                .with(FaultKind::SyncLie, Duration::from_millis(300))
                .with(FaultKind::Crash, Duration::from_millis(300)),
        );
        run(&options, || Counting(Bug::None))
    };
    assert_eq!(lying(Demand::All).violation.unwrap().property, "acknowledged counts are kept");
    let report = lying(Demand::NoPanic);
    report.assert_ok();
    assert_eq!(report.tolerated.unwrap().property, "acknowledged counts are kept");
}

#[test]
fn without_a_demand_for_progress_a_system_may_stop_for_good() {
    let mut options = options(1);
    options.faults = Faults::Given(Swarm::none().with(FaultKind::CrashAll, SECOND));
    options.demand = Demand::Safety;
    run(&options, || Counting(Bug::Deaf)).assert_ok();
}

#[test]
fn a_campaign_knows_what_it_has_never_met() {
    let mut campaign = Campaign::new();
    for seed in 0..2 {
        let mut report = Report::new(seed);
        report.markers.hit("a torn tail");
        campaign.add(report);
    }
    let markers =
        [Marker::new("a torn tail", 1), Marker::new("a split vote", 2), Marker::new("a flood", 3)];
    let names = |markers: Vec<Marker>| -> Vec<_> { markers.iter().map(|m| m.name).collect() };
    assert_eq!(names(campaign.missed(&markers)), ["a split vote", "a flood"]);
    assert_eq!(names(campaign.overdue(&markers)), ["a split vote"], "two runs are enough for it");
    assert!(campaign.to_string().contains("a torn tail"), "{campaign}");
}
