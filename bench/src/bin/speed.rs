//! Speed beside Redis: the same load on both in turn (A/B/A/B), medians of the rounds.
//!
//! `cargo run --release -p lattice-bench --bin speed [-- ROUNDS MILLISECONDS [OPERATION …]]`. Fifty connections, values of 256
//! bytes, keys drawn evenly from a million. Each server has one thread on processor 0, and the generator is on the other one.
//! Where others use the machine too, throughput says less than the server's processor time for each operation, which comes from
//! the kernel. A second table has ours with one thread and with two, wherever the kernel puts them.
#![expect(clippy::print_stdout, reason = "a program that prints tables")]

use std::error::Error;
use std::io::Write as _;
use std::time::Duration;

use lattice_bench::load;
use lattice_bench::server::{Kind, Place, Server, encode};
use lattice_bench::table::Table;
use lattice_bench::trace::Random;
use rustix::thread::{CpuSet, sched_setaffinity};

const CONNECTIONS: usize = 50;
const KEYS: u64 = 1_000_000;
const VALUE: [u8; 256] = [b'v'; 256];
const OPERATIONS: [&str; 7] = ["SET", "GET", "INCR", "HSET", "LPUSH", "ZADD", "MGET"];
const PIPELINES: [usize; 3] = [1, 16, 64];

/// How long a round is unless told otherwise: lists grow meanwhile, and have to fit into memory.
const ROUND_MS: u64 = 1_000;

#[derive(Clone, Copy, Debug, Default)]
struct Figures {
    per_second: f64,
    p50_ms: f64,
    p99_ms: f64,
    server_us: f64,
}

/// A key of ours on the stack.
struct Name {
    bytes: [u8; 32],
    length: usize,
}

fn name(kind: &str, number: u64) -> Name {
    let mut bytes = [0; 32];
    let mut rest = &mut bytes[..];
    // 32 bytes hold the longest kind and twelve digits.
    let _ = write!(rest, "{kind}:{number:012}");
    let left = rest.len();
    Name { bytes, length: 32 - left }
}

impl Name {
    fn get(&self) -> &[u8] {
        &self.bytes[..self.length]
    }
}

fn write(operation: &str, random: &mut Random, bytes: &mut Vec<u8>) {
    let number = random.below(KEYS);
    // A hundred parts to a collection: ten thousand collections.
    let (collection, part) = (number / 100, number % 100);
    match operation {
        "SET" => encode(bytes, &[b"SET", name("key", number).get(), &VALUE]),
        "GET" => encode(bytes, &[b"GET", name("key", number).get()]),
        "INCR" => encode(bytes, &[b"INCR", name("int", number).get()]),
        "HSET" => {
            let (hash, field) = (name("hash", collection), name("f", part));
            encode(bytes, &[b"HSET", hash.get(), field.get(), &VALUE]);
        }
        "LPUSH" => encode(bytes, &[b"LPUSH", name("list", collection).get(), &VALUE]),
        "ZADD" => {
            let (set, member) = (name("zset", collection), name("m", part));
            let score = number.to_string();
            encode(bytes, &[b"ZADD", set.get(), score.as_bytes(), member.get()]);
        }
        _ => {
            let keys: [Name; 10] = std::array::from_fn(|_| name("key", random.below(KEYS)));
            let mut arguments: [&[u8]; 11] = [b"MGET"; 11];
            for (argument, key) in arguments[1..].iter_mut().zip(&keys) {
                *argument = key.get();
            }
            encode(bytes, &arguments);
        }
    }
}

fn measure(
    server: &Server,
    operation: &str,
    pipeline: usize,
    time: Duration,
    seed: u64,
) -> Result<Figures, Box<dyn Error>> {
    let mut random = Random(seed);
    let before = server.processor_time()?;
    let shown = load::run(server.address(), CONNECTIONS, pipeline, time, |bytes| {
        write(operation, &mut random, bytes);
    })?;
    let used = server.processor_time()? - before;
    #[expect(clippy::cast_precision_loss, reason = "far below 2^53")]
    let commands = shown.commands as f64;
    let figures = Figures {
        per_second: shown.per_second(),
        p50_ms: shown.percentile_ms(50),
        p99_ms: shown.percentile_ms(99),
        server_us: used.as_secs_f64() * 1e6 / commands,
    };
    if operation == "LPUSH" {
        // The next round finds what this one has found: no lists.
        server.connect()?.pipeline(KEYS / 100, |number, bytes| {
            encode(bytes, &[b"DEL", name("list", number).get()]);
        })?;
    }
    Ok(figures)
}

fn median(rounds: &[Figures], of: impl Fn(&Figures) -> f64) -> f64 {
    let mut values: Vec<f64> = rounds.iter().map(of).collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

/// A server with a million keys in it.
fn loaded(kind: Kind, place: Place) -> Result<Option<Server>, Box<dyn Error>> {
    let Some(server) = Server::start_at(place, kind, 0, "noeviction")? else {
        println!("{} is not installed: skipped", kind.name());
        return Ok(None);
    };
    server.connect()?.pipeline(KEYS, |number, bytes| {
        encode(bytes, &[b"SET", name("key", number).get(), &VALUE]);
    })?;
    Ok(Some(server))
}

fn pin(processors: &[usize]) -> Result<(), Box<dyn Error>> {
    let mut set = CpuSet::new();
    processors.iter().for_each(|processor| set.set(*processor));
    Ok(sched_setaffinity(None, &set)?)
}

fn beside_redis(
    rounds: u64,
    time: Duration,
    operations: &[String],
) -> Result<Table, Box<dyn Error>> {
    pin(&[1])?;
    let place = Place { processor: Some(0), threads: Some(1) };
    let mut servers = Vec::new();
    for kind in [Kind::Redis, Kind::Lattice] {
        if let Some(server) = loaded(kind, place)? {
            servers.push((kind, server));
        }
    }
    let mut table = Table::new(&[
        "operation",
        "pipeline",
        "server",
        "ops/s",
        "p50 ms",
        "p99 ms",
        "server µs/op",
        "ratio of µs",
        "ratio of ops/s",
    ]);
    for operation in operations {
        for pipeline in PIPELINES {
            let mut figures = vec![Vec::new(); servers.len()];
            for round in 0..rounds {
                for ((_, server), figures) in servers.iter().zip(&mut figures) {
                    figures.push(measure(server, operation, pipeline, time, round)?);
                }
            }
            let first = figures.first().ok_or("no server")?;
            let first_us = median(first, |it| it.server_us);
            let first_ops = median(first, |it| it.per_second);
            for ((kind, _), figures) in servers.iter().zip(&figures) {
                let server_us = median(figures, |it| it.server_us);
                let per_second = median(figures, |it| it.per_second);
                table.row(vec![
                    operation.to_owned(),
                    pipeline.to_string(),
                    kind.name().to_owned(),
                    format!("{per_second:.0}"),
                    format!("{:.3}", median(figures, |it| it.p50_ms)),
                    format!("{:.3}", median(figures, |it| it.p99_ms)),
                    format!("{server_us:.2}"),
                    format!("{:.2}", server_us / first_us),
                    format!("{:.2}", per_second / first_ops),
                ]);
            }
        }
    }
    Ok(table)
}

fn scaling(rounds: u64, time: Duration) -> Result<Table, Box<dyn Error>> {
    pin(&[0, 1])?;
    let threads = [1, 2];
    let mut servers = Vec::new();
    for threads in threads {
        let place = Place { processor: None, threads: Some(threads) };
        servers.push(loaded(Kind::Lattice, place)?.ok_or("our own server is not there")?);
    }
    let mut table =
        Table::new(&["operation", "pipeline", "threads", "ops/s", "p99 ms", "server µs/op"]);
    for (operation, pipeline) in [("GET", 1), ("GET", 16), ("SET", 16), ("MGET", 64)] {
        let mut figures = [Vec::new(), Vec::new()];
        for round in 0..rounds {
            for (server, figures) in servers.iter().zip(&mut figures) {
                figures.push(measure(server, operation, pipeline, time, round)?);
            }
        }
        for (threads, figures) in threads.iter().zip(&figures) {
            table.row(vec![
                operation.to_owned(),
                pipeline.to_string(),
                threads.to_string(),
                format!("{:.0}", median(figures, |it| it.per_second)),
                format!("{:.3}", median(figures, |it| it.p99_ms)),
                format!("{:.2}", median(figures, |it| it.server_us)),
            ]);
        }
    }
    Ok(table)
}

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let mut number = |default: u64| arguments.next().map_or(Ok(default), |text| text.parse());
    let (rounds, milliseconds) = (number(5)?, number(ROUND_MS)?);
    let mut operations: Vec<String> = arguments.collect();
    if operations.is_empty() {
        operations = OPERATIONS.map(str::to_owned).to_vec();
    }
    let time = Duration::from_millis(milliseconds);
    println!(
        "{CONNECTIONS} connections, {KEYS} keys, 256-byte values, MGET of 10 keys; medians of {rounds} \
         rounds of {milliseconds} ms, in turn.\n\nServer on processor 0 with one thread, generator \
         on processor 1:\n"
    );
    println!("{}", beside_redis(rounds, time, &operations)?.render());
    println!("Ours with one thread and with two, nothing pinned:\n");
    println!("{}", scaling(rounds, time)?.render());
    Ok(())
}
