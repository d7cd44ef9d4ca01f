//! How late keys expire: a thousand keys with one deadline among many that live longer, seen from their `expired` events; and many
//! keys with one deadline, with the latency of lookups while they go.
//!
//! `cargo run --release -p lattice-bench --bin expiry [-- BACKGROUND_KEYS …]`; Redis beside ours if it is installed.
#![expect(clippy::print_stdout, reason = "a program that prints tables")]

use std::error::Error;
use std::io;
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use lattice_bench::server::{Connection, Kind, Server, encode};
use lattice_bench::table::Table;

const PROBES: u64 = 1_000;

/// How long events are waited for.
const PATIENCE_MS: u64 = 20_000;

fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// How late each event came, in milliseconds, sorted. Those that did not come are missing.
fn lateness(kind: Kind, background: u64) -> Result<Option<Vec<u64>>, Box<dyn Error>> {
    let Some(server) = Server::start(kind, 0, "noeviction")? else { return Ok(None) };
    let mut connection = server.connect()?;
    connection.call(&[b"CONFIG", b"SET", b"notify-keyspace-events", b"Ex"])?;
    connection.pipeline(background, |number, bytes| {
        encode(bytes, &[b"SET", format!("b:{number}").as_bytes(), b"v", b"EX", b"3600"]);
    })?;
    let mut listener = server.connect()?;
    listener.call(&[b"SUBSCRIBE", b"__keyevent@0__:expired"])?;
    let deadline = now_ms() + 1_000;
    connection.pipeline(PROBES, |number, bytes| {
        let key = format!("p:{number}");
        encode(bytes, &[b"SET", key.as_bytes(), b"v", b"PXAT", deadline.to_string().as_bytes()]);
    })?;
    let mut late = Vec::new();
    while late.len() < 1_000 && now_ms() < deadline + PATIENCE_MS {
        match next_event(&mut listener) {
            Ok(()) => late.push(now_ms().saturating_sub(deadline)),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
            Err(error) => return Err(error.into()),
        }
    }
    late.sort_unstable();
    Ok(Some(late))
}

fn next_event(listener: &mut Connection) -> io::Result<()> {
    listener.wait_at_most(Duration::from_millis(PATIENCE_MS))?;
    listener.receive().map(|_key| ())
}

/// What a burst of deadlines did.
struct Burst {
    /// When the last key was gone, in milliseconds after the deadline; None if that took too long.
    gone_ms: Option<u64>,
    /// Latencies of lookups meanwhile, sorted.
    latencies: Vec<Duration>,
}

/// `keys` keys with one deadline among `others` that live longer.
fn burst(kind: Kind, others: u64, keys: u64) -> Result<Option<Burst>, Box<dyn Error>> {
    let Some(server) = Server::start(kind, 0, "noeviction")? else { return Ok(None) };
    let mut connection = server.connect()?;
    connection.pipeline(others, |number, bytes| {
        encode(bytes, &[b"SET", format!("b:{number}").as_bytes(), b"v", b"EX", b"3600"]);
    })?;
    connection.call(&[b"SET", b"read", b"v"])?;
    let deadline = now_ms() + 5_000 + keys / 100;
    let at = deadline.to_string();
    connection.pipeline(keys, |number, bytes| {
        let key = format!("p:{number}");
        encode(bytes, &[b"SET", key.as_bytes(), b"v", b"PXAT", at.as_bytes()]);
    })?;
    if now_ms() >= deadline {
        return Err("the keys were not there before their deadline".into());
    }
    thread::sleep(Duration::from_millis(deadline - now_ms()));
    let mut shown = Burst { gone_ms: None, latencies: Vec::new() };
    while now_ms() < deadline + PATIENCE_MS {
        for _ in 0..20 {
            let began = Instant::now();
            connection.call(&[b"GET", b"read"])?;
            shown.latencies.push(began.elapsed());
        }
        let left = connection.call(&[b"DBSIZE"])?.unwrap_or_default();
        if String::from_utf8_lossy(&left).parse::<u64>()? == others + 1 {
            shown.gone_ms = Some(now_ms().saturating_sub(deadline));
            break;
        }
    }
    shown.latencies.sort_unstable();
    Ok(Some(shown))
}

fn bursts() -> Result<(), Box<dyn Error>> {
    println!(
        "Keys with one deadline: when all are gone, and lookups of one connection meanwhile.\n"
    );
    let head =
        ["server", "other volatile keys", "keys", "gone ms", "lookup p99 ms", "lookup max ms"];
    let mut table = Table::new(&head);
    for kind in [Kind::Lattice, Kind::Redis] {
        for (others, keys) in [(1_000_000, 100_000), (0, 1_000_000)] {
            let Some(shown) = burst(kind, others, keys)? else { continue };
            let at = |percent: usize| {
                let index = (shown.latencies.len() - 1) * percent / 100;
                format!("{:.2}", shown.latencies[index].as_secs_f64() * 1e3)
            };
            let gone = shown.gone_ms.map_or(format!("> {PATIENCE_MS}"), |ms| ms.to_string());
            let (others, keys) = (others.to_string(), keys.to_string());
            table.row(vec![kind.name().to_owned(), others, keys, gone, at(99), at(100)]);
        }
    }
    println!("{}", table.render());
    Ok(())
}

fn main() -> Result<(), Box<dyn Error>> {
    let mut sizes: Vec<u64> = Vec::new();
    for argument in std::env::args().skip(1) {
        sizes.push(argument.parse()?);
    }
    if sizes.is_empty() {
        sizes = vec![0, 10_000, 100_000, 1_000_000];
    }
    println!(
        "Lateness of `expired` events in ms, {PROBES} keys, up to {PATIENCE_MS} ms waited for.\n"
    );
    let mut table = Table::new(&["server", "other volatile keys", "events", "p50", "p99", "max"]);
    for kind in [Kind::Lattice, Kind::Redis] {
        for background in &sizes {
            let mut row = vec![kind.name().to_owned(), background.to_string()];
            if let Some(late) = lateness(kind, *background)? {
                let at = |percent: usize| {
                    let index = (late.len() * percent).div_ceil(100).saturating_sub(1);
                    late.get(index).map_or("none".to_owned(), u64::to_string)
                };
                row.extend([late.len().to_string(), at(50), at(99), at(100)]);
            } else {
                row.push("not installed".to_owned());
            }
            table.row(row);
        }
    }
    println!("{}", table.render());
    bursts()
}
