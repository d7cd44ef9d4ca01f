//! Bytes a key: (resident memory − that of the empty server) / keys − payload, for keys of 16 and values of 64 bytes.
//!
//! `cargo run --release -p lattice-bench --bin memory [-- KEYS …]`; Redis beside ours if it is installed.
#![expect(clippy::print_stdout, reason = "a program that prints tables")]

use std::error::Error;
use std::thread;
use std::time::Duration;

use lattice_bench::server::{Kind, Server, encode};
use lattice_bench::table::Table;

const PAYLOAD: f64 = 16.0 + 64.0;

fn overhead(kind: Kind, keys: u64, with_ttl: bool) -> Result<Option<f64>, Box<dyn Error>> {
    let Some(server) = Server::start(kind, 0, "noeviction")? else { return Ok(None) };
    let empty = server.resident()?;
    let mut connection = server.connect()?;
    let value = [b'v'; 64];
    connection.pipeline(keys, |number, bytes| {
        let key = format!("key:{number:012}");
        if with_ttl {
            encode(bytes, &[b"SET", key.as_bytes(), &value, b"EX", b"86400"]);
        } else {
            encode(bytes, &[b"SET", key.as_bytes(), &value]);
        }
    })?;
    drop(connection);
    // Buffers of the connection go, tables settle.
    thread::sleep(Duration::from_secs(1));
    let grown = server.resident()?.saturating_sub(empty);
    #[expect(clippy::cast_precision_loss, reason = "far below 2^53")]
    let each = grown as f64 / keys as f64;
    Ok(Some(each - PAYLOAD))
}

fn main() -> Result<(), Box<dyn Error>> {
    let mut sizes: Vec<u64> = Vec::new();
    for argument in std::env::args().skip(1) {
        sizes.push(argument.parse()?);
    }
    if sizes.is_empty() {
        sizes = vec![1_000_000, 10_000_000];
    }
    println!("Bytes a key beyond 16 + 64 of payload, resident.\n");
    let mut table = Table::new(&["server", "keys", "without TTL", "with TTL"]);
    for kind in [Kind::Lattice, Kind::Redis] {
        for keys in &sizes {
            let mut row = vec![kind.name().to_owned(), keys.to_string()];
            for with_ttl in [false, true] {
                let bytes = overhead(kind, *keys, with_ttl)?;
                row.push(bytes.map_or("not installed".to_owned(), |bytes| format!("{bytes:.1}")));
            }
            table.row(row);
        }
    }
    println!("{}", table.render());
    Ok(())
}
