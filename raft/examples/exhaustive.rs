//! Takes three nodes through every order of things within a scope, and checks every state; see `raft/src/sim/exhaustive.rs`.
//!
//! ```text
//! cargo run --release -p raft-consensus --example exhaustive                        # every scope, up to a million states each
//! cargo run --release -p raft-consensus --example exhaustive -- --scope votes --states 20000000
//! cargo run --release -p raft-consensus --example exhaustive -- --bugs              # which planted bugs are found, and how deep
//! ```
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a program for people")]

use std::process::ExitCode;
use std::time::Instant;

use raft_consensus::sim::PlantedBug;
use raft_consensus::sim::exhaustive::{Explored, Scope, explore};

const HELP: &str = "\
Explores every order of events of three nodes within small bounds, and checks every state.

Options:
  --scope NAME   this scope only
  --states N     stop after N states of a scope (default 1000000)
  --bug NAME     plant a bug in every node, and show the shortest run that breaks something
  --bugs         a table of all planted bugs
  --help         print this";

fn main() -> ExitCode {
    match run(std::env::args().skip(1)) {
        Ok(is_ok) if is_ok => ExitCode::SUCCESS,
        Ok(_) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("{error}\n\n{HELP}");
            ExitCode::from(2)
        }
    }
}

fn run(mut arguments: impl Iterator<Item = String>) -> Result<bool, String> {
    let (mut scopes, mut states, mut bug, mut all_bugs) =
        (Scope::all(), 1_000_000, None::<PlantedBug>, false);
    while let Some(name) = arguments.next() {
        let mut value = || arguments.next().ok_or_else(|| format!("{name} needs a value"));
        match name.as_str() {
            "--help" | "-h" => {
                println!("{HELP}");
                return Ok(true);
            }
            "--scope" => {
                let name = value()?;
                let scope = Scope::named(&name).ok_or_else(|| {
                    let names: Vec<_> = Scope::all().iter().map(|scope| scope.name).collect();
                    format!("no scope is called {name}; there are {}", names.join(", "))
                })?;
                scopes = vec![scope];
            }
            "--states" => {
                let text = value()?;
                states = text.parse().map_err(|error| format!("--states {text}: {error}"))?;
            }
            "--bug" => bug = Some(value()?.parse()?),
            "--bugs" => all_bugs = true,
            _ => return Err(format!("{name} is not an option")),
        }
    }
    for scope in &mut scopes {
        scope.states_max = states;
    }
    // A node that panics is a violation, and is told as one.
    std::panic::set_hook(Box::new(|_| {}));
    if all_bugs {
        table(&scopes);
        return Ok(true);
    }
    let mut is_ok = true;
    for scope in &scopes {
        let (explored, seconds) = timed(scope, bug);
        println!("{:<10} {explored}, {seconds:.1} s", scope.name);
        is_ok &= explored.violation.is_none();
    }
    Ok(is_ok)
}

/// Each bug, a scope that finds it soon, and how deep.
fn table(scopes: &[Scope]) {
    println!("| Planted bug | Scope | Actions | States | Seconds | Found as |");
    println!("| --- | --- | --- | --- | --- | --- |");
    for bug in PlantedBug::ALL {
        // A little of every scope first: what one finds at once may take another for ever.
        let limits = [1_000, 30_000, usize::MAX];
        let found = limits.into_iter().find_map(|limit| {
            scopes.iter().find_map(|scope| {
                let mut scope = scope.clone();
                scope.states_max = scope.states_max.min(limit);
                let (explored, seconds) = timed(&scope, Some(bug));
                explored.violation.is_some().then_some((scope, explored, seconds))
            })
        });
        let Some((scope, explored, seconds)) = found else {
            println!("| `{bug}` | | | | | not within these bounds |");
            continue;
        };
        let Explored { states, violation, .. } = explored;
        let violation = violation.expect("just looked at");
        let what = violation.what.split(':').next().unwrap_or_default().to_owned();
        let depth = violation.run.len();
        println!("| `{bug}` | {} | {depth} | {states} | {seconds:.1} | {what} |", scope.name);
    }
}

fn timed(scope: &Scope, bug: Option<PlantedBug>) -> (Explored, f64) {
    let clock = now();
    let explored = explore(scope, bug);
    (explored, clock.elapsed().as_secs_f64())
}

#[expect(clippy::disallowed_methods, reason = "the check is measured in real time")]
fn now() -> Instant {
    Instant::now()
}
