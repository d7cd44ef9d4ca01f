//! Runs the store on disk in the simulator, seed after seed, and checks every answer.
//!
//! ```text
//! cargo run --release -p event-sourcing --example simulate_events -- --seeds 1000
//! cargo run --release -p event-sourcing --example simulate_events -- --seed 42
//! ```
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a program for people")]

use std::fmt::Display;
use std::num::NonZero;
use std::process::ExitCode;

use event_sourcing::sim::{PlantedBug, Simulation, Sometimes};
use lattice_sim::{Campaign, Report, fan_out};

const HELP: &str = "\
Simulates the store on disk with those who use it, and checks what they are answered.

Options:
  --seeds N      run N seeds (default 200)
  --from S       the first of them (default 0)
  --seed S       run this seed only, and tell its last steps
  --bug NAME     plant a bug in the store; the campaign must find it
  --table        plant each bug in turn, and print what the seeds find
  --steps N      steps of each run (default 120)
  --threads T    threads (default: one a core)
  --twice        run each seed twice and compare
  --help         print this";

/// From so many seeds on, everything that should happen sometimes must have happened.
const COVERING: u64 = 200;

/// How many steps of a single run are told.
const TOLD: usize = 60;

#[derive(Debug)]
struct Options {
    first: u64,
    seeds: u64,
    is_single: bool,
    is_twice: bool,
    is_table: bool,
    threads: usize,
    simulation: Simulation,
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
    if options.is_single {
        let (report, story) = options.simulation.run_and_tell(options.first);
        for line in story.iter().skip(story.len().saturating_sub(TOLD)) {
            println!("{line}");
        }
        println!("{report}");
        return exit_code(report.is_ok());
    }
    // A store that panics is a violation of its seed, and reported as such.
    std::panic::set_hook(Box::new(|_| {}));
    if options.is_table {
        return table(&options);
    }
    campaign(&options)
}

/// Plants each bug in turn, and prints which seeds find it.
fn table(options: &Options) -> ExitCode {
    println!("| Planted bug | First seed that finds it | Seeds of {} that do |", options.seeds);
    println!("| --- | --- | --- |");
    let mut is_whole = true;
    for bug in PlantedBug::ALL {
        let simulation = Simulation { bug: Some(*bug), ..options.simulation.clone() };
        let (mut first, mut count) = (None, 0_u64);
        let seeds = options.first..options.first + options.seeds;
        fan_out(
            seeds,
            options.threads,
            |seed| simulation.run(seed),
            |report| {
                if !report.is_ok() {
                    count += 1;
                    first = Some(first.map_or(report.seed, |first: u64| first.min(report.seed)));
                }
                true
            },
        );
        is_whole &= first.is_some();
        let first = first.map_or("none".to_owned(), |first| first.to_string());
        println!("| `{bug}` | {first} | {count} |");
    }
    exit_code(is_whole)
}

/// Runs all seeds, and prints each violation when it is found and the totals at the end.
fn campaign(options: &Options) -> ExitCode {
    let simulation = &options.simulation;
    let run = |seed| -> Report {
        if options.is_twice { simulation.run_twice(seed) } else { simulation.run(seed) }
    };
    let mut campaign = Campaign::new();
    let (first, end) = (options.first, options.first + options.seeds);
    println!("seeds {first} to {}, {} threads", end.saturating_sub(1), options.threads);
    let clock = now();
    fan_out(first..end, options.threads, run, |report| {
        if !report.is_ok() {
            println!("\n{report}\n");
        }
        campaign.add(report);
        true
    });
    let elapsed = clock.elapsed();
    campaign.failures.clear();
    println!("\n{campaign}");
    println!("elapsed            {:.1} s", elapsed.as_secs_f64());
    let per_second = u128::from(campaign.events) * 1_000_000 / elapsed.as_micros().max(1);
    println!("events a second    {per_second}");
    println!("\nwhat was met:");
    for event in Sometimes::ALL {
        println!("{:>10}  {}", simulation.coverage.count(*event), event.text());
    }
    let missing = simulation.coverage.missing();
    let is_covered = options.seeds < COVERING || simulation.bug.is_some() || missing.is_empty();
    if !is_covered {
        println!("\nNever met, so nothing is proved about it: {missing:?}");
    }
    exit_code(campaign.is_ok() && is_covered)
}

fn exit_code(is_ok: bool) -> ExitCode {
    if is_ok { ExitCode::SUCCESS } else { ExitCode::FAILURE }
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
    let mut options = Options {
        first: 0,
        seeds: 200,
        is_single: false,
        is_twice: false,
        is_table: false,
        threads: std::thread::available_parallelism().map_or(1, NonZero::get),
        simulation: Simulation::default(),
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
            "--bug" => options.simulation.bug = Some(value()?.parse::<PlantedBug>()?),
            "--steps" => options.simulation.steps = number(&name, &value()?)?,
            "--threads" => options.threads = number::<NonZero<usize>>(&name, &value()?)?.get(),
            "--twice" => options.is_twice = true,
            "--table" => options.is_table = true,
            _ => return Err(format!("{name} is not an option")),
        }
    }
    let steps = options.simulation.steps;
    let command = "cargo run --release -p event-sourcing --example simulate_events --";
    options.simulation.command = match steps == Simulation::default().steps {
        true => command.to_owned(),
        false => format!("{command} --steps {steps}"),
    };
    Ok(Some(options))
}

fn number<T: std::str::FromStr<Err: Display>>(name: &str, text: &str) -> Result<T, String> {
    text.parse().map_err(|error| format!("{name} {text}: {error}"))
}
