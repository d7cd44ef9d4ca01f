//! Whole clusters as processes, and what operators and machines do to them: kill, stop, unplug, fill and forbid.
//!
//! Clients write and read all the while and record what they were told ([`load`]); afterwards a checker holds the record
//! against the rules ([`history`]): nothing acknowledged is missing, no read goes back in time, nothing is there that
//! nobody wrote. Every wait is for a condition and has a bound; where a fault has a duration, the test waits it out.

mod damage;
mod directory;
mod disk;
mod history;
mod intruder;
mod kill;
mod load;
mod members;
mod nodes;
mod pause;
mod recover;
mod terminate;

use std::process::Command;
use std::time::{Duration, Instant};

/// Long enough for anything on a machine that is busy with other tests.
const PATIENCE: Duration = Duration::from_secs(60);
/// How often a condition is looked at.
const LOOK: Duration = Duration::from_millis(10);

/// Looks until there is something to see, and fails if that takes too long.
async fn until<T>(what: &str, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(seen) = look().await {
            return seen;
        }
        assert!(start.elapsed() < PATIENCE, "waited {PATIENCE:?} for {what}");
        tokio::time::sleep(LOOK).await;
    }
}

/// Whether a program that a test needs runs here. If not, the test says so and ends; `LATTICE_REQUIRE_TOOLS=1` makes that
/// a failure.
fn can_run(program: &str, args: &[&str]) -> bool {
    let output = Command::new(program).args(args).output();
    let works = output.as_ref().is_ok_and(|output| output.status.success());
    if !works {
        let required = std::env::var("LATTICE_REQUIRE_TOOLS").is_ok_and(|value| value == "1");
        assert!(!required, "`{program} {}` does not work here: {output:?}", args.join(" "));
        println!("skipped: `{program} {}` does not work here", args.join(" "));
    }
    works
}
