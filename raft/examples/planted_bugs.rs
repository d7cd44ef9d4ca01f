//! How soon the simulator finds each planted bug: the table of `docs/testing.md`, made anew.
//!
//! ```console
//! $ cargo run --release -p raft-consensus --example planted_bugs                    # all of them, up to 1,000 seeds each
//! $ cargo run --release -p raft-consensus --example planted_bugs -- --bug apply-before-commit --seeds 100
//! ```
//!
//! Seeds count from 0, and a bug's runs end when it was found twenty times. *Seeds until found* is the median distance from one seed that
//! finds it to the next, and the time is that many runs on one core.

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a program for people")]

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::num::NonZero;
use std::process::ExitCode;
use std::time::Duration;

use lattice_sim::fan_out;
use raft_consensus::sim::{PlantedBug, Simulation, Swaps};

/// A bug that was found so often needs no more runs.
const FINDS: usize = 20;
/// Runs between two looks at how often it was found: the same ones on any number of threads.
const CHUNK: u64 = 20;

/// What the command line says.
#[derive(Debug)]
struct Options {
    seeds: u64,
    threads: usize,
    bugs: Vec<PlantedBug>,
}

fn main() -> ExitCode {
    let options = match parse(std::env::args().skip(1)) {
        Ok(options) => options,
        Err(error) => {
            eprintln!("{error}: there are --seeds N, --threads N and --bug NAME");
            return ExitCode::from(2);
        }
    };
    // A node that panics is a violation, and counted as such.
    std::panic::set_hook(Box::new(|_| {}));
    println!("| Planted bug | Tuning | First seed | Seeds until found | Time until found | As |");
    println!("| --- | --- | --- | --- | --- | --- |");
    let mut all_found = true;
    for bug in options.bugs {
        let found = Found::search(bug, options.seeds, options.threads);
        all_found &= !found.seeds.is_empty();
        println!("{}", found.row());
    }
    if all_found { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// The seeds that find a bug.
struct Found {
    bug: PlantedBug,
    /// Each with the property that was broken.
    seeds: BTreeMap<u64, String>,
    /// What one run takes on one core.
    run: Duration,
}

impl Found {
    fn search(bug: PlantedBug, seeds: u64, threads: usize) -> Self {
        let mut simulation = Simulation::new(Swaps::default());
        (simulation.bug, simulation.tuning) = (Some(bug), bug.tuning());
        let mut found = BTreeMap::new();
        let clock = now();
        let mut runs = 0;
        while runs < seeds && found.len() < FINDS {
            let chunk = runs..seeds.min(runs + CHUNK);
            runs = chunk.end;
            let run = |seed| simulation.run_planted(seed);
            fan_out(chunk, threads, run, |report| {
                if let Some(violation) = report.violation {
                    found.insert(report.seed, violation.property);
                }
                true
            });
        }
        let threads = u32::try_from(threads).expect("few");
        let run = clock.elapsed() * threads / u32::try_from(runs.max(1)).unwrap_or(u32::MAX);
        Self { bug, seeds: found, run }
    }

    /// The median distance between two seeds that find it.
    fn median(&self) -> Option<u64> {
        // The first one is as far from the start as it says, itself included.
        let starts = std::iter::once(None).chain(self.seeds.keys().map(|seed| Some(*seed)));
        let mut distances: Vec<u64> = self
            .seeds
            .keys()
            .zip(starts)
            .map(|(seed, before)| before.map_or(seed + 1, |before| seed - before))
            .collect();
        distances.sort_unstable();
        distances.get(distances.len() / 2).copied()
    }

    fn row(&self) -> String {
        let Self { bug, seeds, run } = self;
        let mut row = format!("| `{bug}` | `{}` |", bug.tuning().name());
        let (Some(median), Some((first, property))) = (self.median(), seeds.first_key_value())
        else {
            row.push_str(" not found | | | |");
            return row;
        };
        let time = *run * u32::try_from(median).unwrap_or(u32::MAX);
        write!(row, " {first} | {median} | {:.2} s | {property} |", time.as_secs_f64())
            .expect("a string takes all that is written");
        row
    }
}

#[expect(clippy::disallowed_methods, reason = "how long it takes is measured in real time")]
fn now() -> std::time::Instant {
    std::time::Instant::now()
}

fn parse(mut arguments: impl Iterator<Item = String>) -> Result<Options, String> {
    let threads = std::thread::available_parallelism().map_or(1, NonZero::get);
    let mut options = Options { seeds: 1_000, threads, bugs: Vec::new() };
    while let Some(name) = arguments.next() {
        let value = arguments.next().ok_or_else(|| format!("{name} needs a value"))?;
        let wrong = |error: &dyn std::fmt::Display| format!("{name} {value}: {error}");
        match name.as_str() {
            "--seeds" => options.seeds = value.parse().map_err(|error| wrong(&error))?,
            "--threads" => {
                let threads: NonZero<usize> = value.parse().map_err(|error| wrong(&error))?;
                options.threads = threads.get();
            }
            "--bug" => options.bugs.push(value.parse()?),
            _ => return Err(format!("{name} is not an option")),
        }
    }
    if options.bugs.is_empty() {
        options.bugs = PlantedBug::ALL.to_vec();
    }
    Ok(options)
}
