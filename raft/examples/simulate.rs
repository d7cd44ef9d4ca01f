//! Runs whole clusters under faults, seed after seed, and checks every step.
//!
//! ```text
//! cargo run --release -p raft-consensus --example simulate -- --seeds 1000
//! cargo run --release -p raft-consensus --example simulate -- --seed 42
//! ```
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a program for people")]

use std::fmt::Display;
use std::num::NonZero;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use lattice_sim::{Campaign, FaultKind, Report, fan_out};
use raft_consensus::sim::{FAULTS, Oracle, PlantedBug, Simulation, Swaps, Tuning};

const HELP: &str = "\
Simulates Raft clusters under faults and checks what they do after every event.

Options:
  --seeds N      run N seeds (default 100)
  --from S       the first of them (default 0)
  --seed S       run this seed only, and tell all about it
  --bug NAME     plant a bug in every node; the campaign must find it
  --tuning NAME  what to look for: general (default), lost-leaders, slow-disks, leases, members, snapshots, quiet, damage, decay
  --oracle NAME  which checks of linearizability are made: both (default), places, search
  --threads T    threads (default: one a core)
  --twice        run each seed twice and compare
  --seconds T    simulated seconds of faults in each run (default 20)
  --faults LIST  only these kinds of faults, with commas between
  --without LIST none of these kinds
  --beyond-budget
                 damage more disks than the cluster can do without: nobody has to go on, and nobody may be wrong
  --shrink       make the failing run with the smallest seed as small as it can be made, as failures/SEED.plan
  --replay FILE  run what a plan says
  --spec FILE    with --seed: write the run down for the TLA+ specification (raft/tla)
  --help         print this";

/// What the command line says.
#[derive(Debug)]
struct Options {
    first: u64,
    seeds: u64,
    is_single: bool,
    is_twice: bool,
    bug: Option<PlantedBug>,
    tuning: Tuning,
    oracle: Oracle,
    threads: usize,
    seconds: u64,
    faults: Vec<FaultKind>,
    is_beyond_budget: bool,
    is_shrinking: bool,
    replay: Option<PathBuf>,
    spec: Option<PathBuf>,
}

fn main() -> ExitCode {
    let options = match parse(std::env::args().skip(1)) {
        Ok(Some(options)) => options,
        Ok(None) => {
            println!("{HELP}");
            return ExitCode::SUCCESS;
        }
        Err(error) => {
            eprintln!("{error}\n\n{HELP}");
            return ExitCode::from(2);
        }
    };
    let mut simulation = Simulation::new(Swaps::default());
    simulation.bug = options.bug;
    simulation.tuning = options.tuning;
    simulation.faults.clone_from(&options.faults);
    simulation.beyond_budget = options.is_beyond_budget;
    simulation.oracle = options.oracle;
    simulation.safety = Duration::from_secs(options.seconds);
    simulation.failures = Some(PathBuf::from("failures"));
    simulation.command = "cargo run --release -p raft-consensus --example simulate --".to_owned();
    if options.seconds != 20 {
        simulation.command.push_str(&format!(" --seconds {}", options.seconds));
    }
    if !options.is_single {
        // A node that panics is a violation of its seed, and reported as such.
        std::panic::set_hook(Box::new(|_| {}));
    }
    let run = |seed| {
        if options.is_twice { simulation.run_twice(seed) } else { simulation.run_planted(seed) }
    };
    if let Some(path) = &options.replay {
        return replay(&simulation, path);
    }
    if let (true, Some(file)) = (options.is_single, &options.spec) {
        let (report, module) = simulation.run_for_spec(options.first);
        if let Err(error) = write(file, &module) {
            eprintln!("{}: {error}", file.display());
            return ExitCode::from(2);
        }
        println!("{report}");
        return exit_code(report.is_ok());
    }
    if options.is_single {
        let report = run(options.first);
        println!("{report}");
        if options.is_shrinking && !report.is_ok() {
            shrink(&simulation, report.seed);
        }
        return exit_code(report.is_ok());
    }
    let (campaign, code) = campaign(&options, run);
    if let Some(failure) = campaign.failures.first().filter(|_| options.is_shrinking) {
        shrink(&simulation, failure.seed);
    }
    code
}

/// The most runs that are made to shrink one.
const SHRINK_RUNS_MAX: u64 = 3_000;

/// Makes a failing run small, and leaves what is left as a file.
fn shrink(simulation: &Simulation<Swaps>, seed: u64) {
    let Some(shrunk) = simulation.shrink(seed, SHRINK_RUNS_MAX) else {
        println!("seed {seed} does not fail in the same way again");
        return;
    };
    println!("\n{shrunk}\n{}", shrunk.report);
    let path = PathBuf::from(format!("failures/{seed}.plan"));
    let text = format!("# {shrunk}\n{}", shrunk.plan);
    #[expect(clippy::disallowed_methods, reason = "a plan for people is a real file")]
    let written = std::fs::create_dir_all("failures").and_then(|()| std::fs::write(&path, text));
    match written {
        Ok(()) => println!("plan: {}: run it with --replay {0}", path.display()),
        Err(error) => println!("{}: {error}\n\n{}", path.display(), shrunk.plan),
    }
}

fn replay(simulation: &Simulation<Swaps>, path: &Path) -> ExitCode {
    let text = std::fs::read_to_string(path);
    let plan = text.map_err(|error| error.to_string()).and_then(|text| text.parse());
    match plan.and_then(|plan| simulation.replay(&plan)) {
        Ok(report) => {
            println!("{report}");
            exit_code(report.is_ok())
        }
        Err(error) => {
            eprintln!("{}: {error}", path.display());
            ExitCode::from(2)
        }
    }
}

/// Runs all seeds, and prints each violation when it is found and the totals at the end.
fn campaign(options: &Options, run: impl Fn(u64) -> Report + Sync) -> (Campaign, ExitCode) {
    let mut campaign = Campaign::new();
    let (first, end) = (options.first, options.first + options.seeds);
    println!("seeds {first} to {}, {} threads", end - 1, options.threads);
    let clock = now();
    fan_out(first..end, options.threads, run, |report| {
        if !report.is_ok() {
            println!("\n{report}\n");
        }
        campaign.add(report);
        if campaign.seeds.is_multiple_of(500) && campaign.seeds < options.seeds {
            println!("{} seeds, {} violations", campaign.seeds, campaign.violations);
        }
        true
    });
    let elapsed = clock.elapsed();
    // They were printed above.
    let failures = std::mem::take(&mut campaign.failures);
    let speed = campaign.speed(elapsed);
    let threads = u128::try_from(options.threads).expect("few");
    println!("\n{campaign}");
    // What was left out on purpose cannot be met.
    let is_whole = options.bug.is_none() && options.faults == FAULTS && !options.is_beyond_budget;
    let markers = if is_whole { options.tuning.markers() } else { &[] };
    for missed in campaign.missed(markers) {
        println!("never met: {} ({} seeds must meet it)", missed.name, missed.within);
    }
    let is_ok = campaign.is_ok() && campaign.overdue(markers).is_empty();
    println!("elapsed            {:.1} s", elapsed.as_secs_f64());
    println!("speed              {speed} x real time, {} x a thread", speed / threads);
    campaign.failures = failures;
    (campaign, exit_code(is_ok))
}

fn exit_code(is_ok: bool) -> ExitCode {
    if is_ok { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

#[expect(clippy::disallowed_methods, reason = "a file for another program")]
fn write(file: &Path, text: &str) -> std::io::Result<()> {
    std::fs::write(file, text)
}

#[expect(
    clippy::disallowed_methods,
    reason = "the speed of the simulator is measured in real time"
)]
fn now() -> std::time::Instant {
    std::time::Instant::now()
}

/// Reads the command line; `None` if help is wanted.
fn parse(mut arguments: impl Iterator<Item = String>) -> Result<Option<Options>, String> {
    let cores = std::thread::available_parallelism().map_or(1, NonZero::get);
    let mut options = Options {
        first: 0,
        seeds: 100,
        is_single: false,
        is_twice: false,
        bug: None,
        tuning: Tuning::General,
        oracle: Oracle::Both,
        threads: cores,
        seconds: 20,
        faults: FAULTS.to_vec(),
        is_beyond_budget: false,
        is_shrinking: false,
        replay: None,
        spec: None,
    };
    while let Some(name) = arguments.next() {
        let mut value = || arguments.next().ok_or_else(|| format!("{name} needs a value"));
        match name.as_str() {
            "--help" | "-h" => return Ok(None),
            "--seeds" => options.seeds = number(&name, &value()?)?,
            "--from" => options.first = number(&name, &value()?)?,
            "--seed" => {
                options.first = number(&name, &value()?)?;
                options.is_single = true;
            }
            "--bug" => {
                let bug: PlantedBug = value()?.parse()?;
                (options.bug, options.tuning) = (Some(bug), bug.tuning());
            }
            "--tuning" => options.tuning = value()?.parse()?,
            "--oracle" => options.oracle = value()?.parse()?,
            "--threads" => options.threads = number::<NonZero<usize>>(&name, &value()?)?.get(),
            "--seconds" => options.seconds = number(&name, &value()?)?,
            "--faults" => options.faults = kinds(&value()?)?,
            "--without" => {
                let without = kinds(&value()?)?;
                options.faults.retain(|kind| !without.contains(kind));
            }
            "--beyond-budget" => options.is_beyond_budget = true,
            "--shrink" => options.is_shrinking = true,
            "--replay" => options.replay = Some(PathBuf::from(value()?)),
            "--twice" => options.is_twice = true,
            "--spec" => options.spec = Some(value()?.into()),
            _ => return Err(format!("{name} is not an option")),
        }
    }
    Ok(Some(options))
}

fn kinds(list: &str) -> Result<Vec<FaultKind>, String> {
    list.split(',').map(|name| name.trim().parse()).collect()
}

fn number<T: std::str::FromStr<Err: Display>>(name: &str, text: &str) -> Result<T, String> {
    text.parse().map_err(|error| format!("{name} {text}: {error}"))
}
