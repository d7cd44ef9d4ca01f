//! How many operations a second the two checkers take, on histories of registers that did nothing wrong.
//!
//! ```text
//! cargo run --release -p lattice-sim --example check_speed
//! ```
#![expect(clippy::print_stdout, reason = "an example prints what it measures")]
#![expect(clippy::disallowed_methods, reason = "it measures real time")]

use std::time::{Duration, Instant};

use lattice_sim::check::{
    Ask, History, Limits, Model, Next, Register, Reply, Verdict, in_places, linearizable,
};
use lattice_sim::random::{below, between, index, stream};

/// A history, and the places of its operations.
type Run = (History<Ask, Reply>, Vec<Option<u64>>);

/// Clients that do one operation after the other on one register: in any order one of them calls, takes effect, or
/// returns. Half of the operations read, the others are writes and swaps, and of a thousand `lost` get no answer.
fn run(seed: u64, clients: u64, operations: usize, lost: u64) -> Run {
    let rng = &mut stream(seed, "history", 0);
    let (mut history, mut places) = (History::new(), Vec::new());
    let (mut state, mut place) = (0, 0);
    let mut idle: Vec<u64> = (1..=clients).collect();
    let (mut called, mut applied): (Vec<usize>, Vec<(usize, Reply)>) = (Vec::new(), Vec::new());
    let mut time = 0;
    while history.len() < operations || !called.is_empty() || !applied.is_empty() {
        time += 1;
        let at = Duration::from_micros(time);
        let mut ended = None;
        match between(rng, 0, 2) {
            0 if !idle.is_empty() && history.len() < operations => {
                let client = idle.swap_remove(index(rng, idle.len()));
                let value = u64::try_from(history.len()).expect("few") + 1;
                let ask = match between(rng, 0, 3) {
                    0 => Ask::Write(value),
                    1 => Ask::Swap(value),
                    _ => Ask::Read,
                };
                called.push(history.call(client, at, ask));
                places.push(None);
            }
            1 if !called.is_empty() => {
                let id = called.swap_remove(index(rng, called.len()));
                let ask = history.operations()[id].input;
                let before = Reply::Value(state);
                let reply = if matches!(ask, Ask::Write(_)) { Reply::Done } else { before };
                if let Next::To(next) = Register.step(&state, &ask, None) {
                    state = next;
                }
                place += u64::from(ask != Ask::Read);
                places[id] = Some(place);
                applied.push((id, reply));
            }
            2 if !applied.is_empty() => {
                let (id, reply) = applied.swap_remove(index(rng, applied.len()));
                ended = Some(id);
                if below(rng, 1_000) < lost {
                    history.gave_up(id, at);
                } else {
                    history.done(id, at, reply);
                }
            }
            _ => {}
        }
        idle.extend(ended.map(|id| history.operations()[id].client));
    }
    (history, places)
}

fn main() {
    println!("  keys  operations  clients   lost/1000   search ops/s   places ops/s   unknown");
    for (keys, operations, clients, lost) in [
        (100, 1_000, 5, 0),
        (100, 1_000, 5, 5),
        (100, 1_000, 10, 0),
        (100, 1_000, 20, 5),
        (1_000, 100, 10, 0),
        (1_000, 1_000, 10, 0),
        (1, 10_000, 5, 0),
        (1, 100_000, 5, 0),
    ] {
        let runs: Vec<Run> = (0..keys).map(|seed| run(seed, clients, operations, lost)).collect();
        let total = runs.iter().map(|(history, _)| history.len()).sum::<usize>();
        let total = f64::from(u32::try_from(total).expect("a million at most"));
        let begin = Instant::now();
        let mut unknown = 0;
        for (history, _) in &runs {
            match linearizable(&Register, history, Limits::default()) {
                Verdict::Linearizable(_) => {}
                Verdict::Unknown => unknown += 1,
                Verdict::Violation(why) => panic!("{why:?}"),
            }
        }
        let searched = begin.elapsed();
        let begin = Instant::now();
        for (history, places) in &runs {
            assert_eq!(in_places(&Register, history, |id| places[id]), Ok(()));
        }
        let placed = begin.elapsed();
        println!(
            "{keys:6}  {operations:10}  {clients:7}  {lost:10}  {:13.0}  {:13.0}  {unknown:8}",
            total / searched.as_secs_f64(),
            total / placed.as_secs_f64(),
        );
    }
}
