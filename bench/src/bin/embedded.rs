//! What a hit of the embedded cache costs: nanoseconds a call on one thread, and on as many as there are processors.
//!
//! `cargo run --release -p lattice-bench --bin embedded [-- KEYS …]`. Values are of 64 bytes; keys are drawn evenly from so many as
//! said, so that with few of them the processor's caches hold all, and with a million each lookup waits for memory. Medians of
//! nine rounds.
#![expect(clippy::print_stdout, reason = "a program that prints tables")]

use std::error::Error;
use std::hint::black_box;
use std::io::Write as _;
use std::thread;
use std::time::Instant;

use distributed_cache::cache::Cache;
use lattice_bench::table::Table;
use lattice_bench::trace::Random;

/// The same allocator as the server's.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const KEYS: [u64; 2] = [1_000, 1_000_000];
const VALUE: [u8; 64] = [b'v'; 64];
const CALLS: usize = 1 << 18;
const ROUNDS: u64 = 9;

/// A key of ours: `key:` and twelve digits.
fn name(number: u64) -> [u8; 16] {
    let mut name = [0; 16];
    write!(&mut name[..], "key:{number:012}").expect("twelve digits are enough");
    name
}

/// Nanoseconds that `call` takes for a key, in the middle of all rounds.
fn measure(keys: u64, call: impl Fn(&[u8])) -> f64 {
    let mut rounds: Vec<f64> = Vec::new();
    for round in 0..ROUNDS {
        let mut random = Random(round);
        let names: Vec<_> = (0..CALLS).map(|_| name(random.below(keys))).collect();
        let start = Instant::now();
        names.iter().for_each(|name| call(name));
        #[expect(clippy::cast_precision_loss, reason = "far below 2^53")]
        rounds.push(start.elapsed().as_secs_f64() * 1e9 / CALLS as f64);
    }
    rounds.sort_by(f64::total_cmp);
    rounds[rounds.len() / 2]
}

/// As [`measure`], on several threads at once: the mean of theirs.
fn side_by_side(threads: usize, keys: u64, call: impl Fn(&[u8]) + Copy + Send + Sync) -> f64 {
    thread::scope(|scope| {
        let all: Vec<_> = (0..threads).map(|_| scope.spawn(move || measure(keys, call))).collect();
        let sum: f64 = all.into_iter().map(|it| it.join().expect("it measures")).sum();
        #[expect(clippy::cast_precision_loss, reason = "few threads")]
        let mean = sum / threads as f64;
        mean
    })
}

fn main() -> Result<(), Box<dyn Error>> {
    let mut sizes = std::env::args().skip(1).map(|it| it.parse()).collect::<Result<Vec<_>, _>>()?;
    if sizes.is_empty() {
        sizes = KEYS.to_vec();
    }
    let threads = thread::available_parallelism()?.get();
    let many = format!("ns, {threads} threads");
    let mut table = Table::new(&["call", "keys", "ns, 1 thread", &many]);
    for keys in sizes {
        let cache = Cache::builder().memory_limit(1 << 30).build();
        for number in 0..keys {
            cache.set(&name(number), &VALUE)?;
        }
        let mut row = |call: &str, one: f64, all: f64| {
            table.row(vec![
                call.into(),
                keys.to_string(),
                format!("{one:.0}"),
                format!("{all:.0}"),
            ]);
        };
        let get = |key: &[u8]| drop(black_box(cache.get(key)));
        let look = |key: &[u8]| assert!(cache.get_with(key, <[u8]>::len).is_some());
        let set = |key: &[u8]| cache.set(key, &VALUE).expect("there is room");
        row("get", measure(keys, get), side_by_side(threads, keys, get));
        row("get_with", measure(keys, look), side_by_side(threads, keys, look));
        row("set", measure(keys, set), side_by_side(threads, keys, set));
    }
    println!("{}", table.render());
    Ok(())
}
