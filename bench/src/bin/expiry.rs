//! How late keys expire: a thousand keys with one deadline among many that live longer, seen from their `expired` events.
//!
//! `cargo run --release -p lattice-bench --bin expiry [-- BACKGROUND_KEYS …]`; Redis beside ours if it is installed.
#![expect(clippy::print_stdout, reason = "a program that prints tables")]

use std::error::Error;
use std::io;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

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
    Ok(())
}
