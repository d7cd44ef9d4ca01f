//! Speed beside Redis: the same load on both in turn (A/B/A/B), medians of the rounds.
//!
//! `cargo run --release -p lattice-bench --bin speed [-- ROUNDS SECONDS]`. Fifty connections on one thread each take turns: all send
//! their pipelines, then all read. Values have 256 bytes, keys are drawn evenly from a million. The generator shares the machine with
//! the server, so throughput says less than the server's processor time for each operation, which comes from the kernel.
#![expect(clippy::print_stdout, reason = "a program that prints tables")]

use std::error::Error;
use std::time::{Duration, Instant};

use lattice_bench::server::{Connection, Kind, Server, encode};
use lattice_bench::table::Table;
use lattice_bench::trace::Random;

const CONNECTIONS: usize = 50;
const KEYS: u64 = 1_000_000;
const OPERATIONS: [&str; 7] = ["SET", "GET", "INCR", "HSET", "LPUSH", "ZADD", "MGET"];
const PIPELINES: [usize; 3] = [1, 16, 64];

#[derive(Clone, Copy, Debug, Default)]
struct Figures {
    per_second: f64,
    p50_ms: f64,
    p99_ms: f64,
    server_us: f64,
}

fn write(operation: &str, random: &mut Random, value: &[u8], bytes: &mut Vec<u8>) {
    let number = random.below(KEYS);
    let key = |kind: &str| format!("{kind}:{number:012}").into_bytes();
    match operation {
        "SET" => encode(bytes, &[b"SET", &key("key"), value]),
        "GET" => encode(bytes, &[b"GET", &key("key")]),
        "INCR" => encode(bytes, &[b"INCR", &key("int")]),
        "HSET" => {
            let (hash, field) = (format!("hash:{}", number / 100), format!("f{}", number % 100));
            encode(bytes, &[b"HSET", hash.as_bytes(), field.as_bytes(), value]);
        }
        "LPUSH" => encode(bytes, &[b"LPUSH", format!("list:{}", number / 100).as_bytes(), value]),
        "ZADD" => {
            let (set, score) = (format!("zset:{}", number / 100), number.to_string());
            encode(bytes, &[b"ZADD", set.as_bytes(), score.as_bytes(), &key("m")]);
        }
        _ => {
            let keys: Vec<Vec<u8>> =
                (0..10).map(|_| format!("key:{:012}", random.below(KEYS)).into_bytes()).collect();
            let mut arguments: Vec<&[u8]> = vec![b"MGET"];
            arguments.extend(keys.iter().map(Vec::as_slice));
            encode(bytes, &arguments);
        }
    }
}

fn measure(
    server: &Server,
    operation: &str,
    pipeline: usize,
    time: Duration,
) -> Result<Figures, Box<dyn Error>> {
    let mut connections: Vec<Connection> =
        (0..CONNECTIONS).map(|_| server.connect()).collect::<Result<_, _>>()?;
    let mut random = Random(7);
    let value = [b'v'; 256];
    let (mut operations, mut latencies) = (0, Vec::new());
    let (start, used) = (Instant::now(), server.processor_time()?);
    while start.elapsed() < time {
        let mut sent = Vec::with_capacity(CONNECTIONS);
        for connection in &mut connections {
            let mut bytes = Vec::new();
            (0..pipeline).for_each(|_| write(operation, &mut random, &value, &mut bytes));
            sent.push(Instant::now());
            connection.send(&bytes)?;
        }
        for (connection, sent) in connections.iter_mut().zip(sent) {
            for _ in 0..pipeline {
                connection.receive()?;
            }
            latencies.push(sent.elapsed());
            operations += pipeline;
        }
    }
    let (elapsed, used) = (start.elapsed(), server.processor_time()? - used);
    latencies.sort_unstable();
    let at = |percent: usize| latencies[(latencies.len() - 1) * percent / 100].as_secs_f64() * 1e3;
    let count = f64::from(u32::try_from(operations)?);
    Ok(Figures {
        per_second: count / elapsed.as_secs_f64(),
        p50_ms: at(50),
        p99_ms: at(99),
        server_us: used.as_secs_f64() * 1e6 / count,
    })
}

fn median(rounds: &[Figures], of: impl Fn(&Figures) -> f64) -> f64 {
    let mut values: Vec<f64> = rounds.iter().map(of).collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let mut number = |default: u64| arguments.next().map_or(Ok(default), |text| text.parse());
    let (rounds, seconds) = (number(3)?, number(3)?);
    let mut servers = Vec::new();
    for kind in [Kind::Redis, Kind::Lattice] {
        let Some(server) = Server::start(kind, 0, "noeviction")? else {
            println!("{} is not installed: skipped", kind.name());
            continue;
        };
        let value = [b'v'; 256];
        server.connect()?.pipeline(KEYS, |number, bytes| {
            encode(bytes, &[b"SET", format!("key:{number:012}").as_bytes(), &value]);
        })?;
        servers.push((kind, server));
    }
    println!(
        "{CONNECTIONS} connections, {KEYS} keys, 256-byte values, medians of {rounds} rounds of \
         {seconds} s, in turn.\n"
    );
    let mut table = Table::new(&[
        "operation",
        "pipeline",
        "server",
        "ops/s",
        "p50 ms",
        "p99 ms",
        "server µs/op",
        "µs ratio",
    ]);
    for operation in OPERATIONS {
        for pipeline in PIPELINES {
            let mut figures = vec![Vec::new(); servers.len()];
            for _ in 0..rounds {
                for ((_, server), figures) in servers.iter().zip(&mut figures) {
                    let time = Duration::from_secs(seconds);
                    figures.push(measure(server, operation, pipeline, time)?);
                }
            }
            let first = median(figures.first().ok_or("no server")?, |it| it.server_us);
            for ((kind, _), figures) in servers.iter().zip(&figures) {
                let server_us = median(figures, |it| it.server_us);
                table.row(vec![
                    operation.to_owned(),
                    pipeline.to_string(),
                    kind.name().to_owned(),
                    format!("{:.0}", median(figures, |it| it.per_second)),
                    format!("{:.3}", median(figures, |it| it.p50_ms)),
                    format!("{:.3}", median(figures, |it| it.p99_ms)),
                    format!("{server_us:.2}"),
                    format!("{:.2}", server_us / first),
                ]);
            }
        }
    }
    println!("{}", table.render());
    Ok(())
}
