//! Runs whole clusters under faults, seed after seed, and checks every step.
//!
//! ```text
//! cargo run --release -p raft-consensus --example simulate -- --seeds 1000
//! cargo run --release -p raft-consensus --example simulate -- --seed 42
//! ```
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a program for people")]

use std::fmt::Display;
use std::num::NonZero;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use lattice_sim::{Campaign, Report, fan_out};
use raft_consensus::sim::{Oracle, PlantedBug, Simulation, Swaps, Tuning};

const HELP: &str = "\
Simulates Raft clusters under faults and checks what they do after every event.

Options:
  --seeds N      run N seeds (default 100)
  --from S       the first of them (default 0)
  --seed S       run this seed only, and tell all about it
  --bug NAME     plant a bug in every node; the campaign must find it
  --tuning NAME  what to look for: general (default), lost-leaders, slow-disks
  --oracle NAME  which checks of linearizability are made: both (default), places, search
  --threads T    threads (default: one a core)
  --twice        run each seed twice and compare
  --seconds T    simulated seconds of faults in each run (default 20)
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
    let run =
        |seed| if options.is_twice { simulation.run_twice(seed) } else { simulation.run(seed) };
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
        return exit_code(report.is_ok());
    }
    campaign(&options, run)
}

/// Runs all seeds, and prints each violation when it is found and the totals at the end.
fn campaign(options: &Options, run: impl Fn(u64) -> Report + Sync) -> ExitCode {
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
    let is_ok = campaign.is_ok();
    // They were printed above.
    campaign.failures.clear();
    let speed = campaign.speed(elapsed);
    let threads = u128::try_from(options.threads).expect("few");
    println!("\n{campaign}");
    println!("elapsed            {:.1} s", elapsed.as_secs_f64());
    println!("speed              {speed} x real time, {} x a thread", speed / threads);
    exit_code(is_ok)
}

fn exit_code(is_ok: bool) -> ExitCode {
    if is_ok { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

#[expect(clippy::disallowed_methods, reason = "a file for another program")]
fn write(file: &std::path::Path, text: &str) -> std::io::Result<()> {
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
                let bug = value()?.parse()?;
                (options.bug, options.tuning) = (Some(bug), Tuning::for_bug(bug));
            }
            "--tuning" => options.tuning = value()?.parse()?,
            "--oracle" => options.oracle = value()?.parse()?,
            "--threads" => options.threads = number::<NonZero<usize>>(&name, &value()?)?.get(),
            "--seconds" => options.seconds = number(&name, &value()?)?,
            "--twice" => options.is_twice = true,
            "--spec" => options.spec = Some(value()?.into()),
            _ => return Err(format!("{name} is not an option")),
        }
    }
    Ok(Some(options))
}

fn number<T: std::str::FromStr<Err: Display>>(name: &str, text: &str) -> Result<T, String> {
    text.parse().map_err(|error| format!("{name} {text}: {error}"))
}
