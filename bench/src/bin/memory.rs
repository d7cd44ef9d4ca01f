//! Bytes a key: (resident memory − that of the empty server) / keys − payload, for keys of 16 and values of 64 bytes.
//!
//! `cargo run --release -p lattice-bench --bin memory [-- KEYS …]`; Redis and memcached beside ours if they are installed. Our store
//! is measured once more inside this program, in a process of its own, with the versions that a cluster keeps.
#![expect(clippy::print_stdout, reason = "a program that prints tables")]

use std::error::Error;
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

use distributed_cache::store::{Lifetime, ShardSet, Store, StoreOptions};
use distributed_cache::types::{Database, Now, UnixMillis};
use lattice_bench::server::{Kind, Server, encode, is_installed, resident_of};
use lattice_bench::table::Table;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// What the program is called with to measure the store inside itself.
const INSIDE: &str = "inside";

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

/// The same of our store with versions, in this process.
fn inside(keys: u64, with_ttl: bool) -> Result<(), Box<dyn Error>> {
    let options = StoreOptions { versions: true, ..StoreOptions::default() };
    let store = Store::new(&options);
    let empty = resident_of(std::process::id())?;
    let now = Now { unix: UnixMillis(1_700_000_000_000), monotonic_us: 0 };
    let lifetime = if with_ttl {
        Lifetime::Until(now.unix.after(Duration::from_secs(86_400)))
    } else {
        Lifetime::Forever
    };
    for number in 0..keys {
        let name = format!("key:{number:012}");
        let key = store.key(Database(0), name.as_bytes());
        let mut shards = ShardSet::NONE;
        shards.insert(key.slot());
        store.lock(shards, now).set(&key, &[b'v'; 64], lifetime);
    }
    let grown = resident_of(std::process::id())?.saturating_sub(empty);
    #[expect(clippy::cast_precision_loss, reason = "far below 2^53")]
    let each = grown as f64 / keys as f64;
    println!("{:.1}", each - PAYLOAD);
    Ok(())
}

/// A process that ends with its owner.
struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        let _gone_already = self.0.kill();
        let _status = self.0.wait();
    }
}

fn memcached(keys: u64, with_ttl: bool) -> Result<Option<f64>, Box<dyn Error>> {
    if !is_installed("memcached") {
        return Ok(None);
    }
    let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
    let mut command = Command::new("memcached");
    command.args([
        "-l",
        "127.0.0.1",
        "-p",
        &port.port().to_string(),
        "-m",
        "16384",
        "-u",
        "nobody",
    ]);
    let server = Ended(command.stdout(Stdio::null()).stderr(Stdio::null()).spawn()?);
    thread::sleep(Duration::from_millis(500));
    let empty = resident_of(server.0.id())?;
    let mut stream = TcpStream::connect(port)?;
    let lasts = if with_ttl { 86_400 } else { 0 };
    let value = "v".repeat(64);
    let mut bytes = Vec::new();
    for number in 0..keys {
        write!(bytes, "set key:{number:012} 0 {lasts} 64 noreply\r\n{value}\r\n")?;
        if bytes.len() > 100_000 || number + 1 == keys {
            stream.write_all(&bytes)?;
            bytes.clear();
        }
    }
    // The answer comes when all before it is done.
    stream.write_all(b"mn\r\n")?;
    stream.read_exact(&mut [0; 4])?;
    // Its table grows in the background.
    thread::sleep(Duration::from_secs(3));
    let grown = resident_of(server.0.id())?.saturating_sub(empty);
    #[expect(clippy::cast_precision_loss, reason = "far below 2^53")]
    let each = grown as f64 / keys as f64;
    Ok(Some(each - PAYLOAD))
}

fn shown(bytes: Option<f64>) -> String {
    bytes.map_or("not installed".to_owned(), |bytes| format!("{bytes:.1}"))
}

fn main() -> Result<(), Box<dyn Error>> {
    let words: Vec<String> = std::env::args().collect();
    if let [_, inside_word, keys, ttl] = &words[..]
        && inside_word == INSIDE
    {
        return inside(keys.parse()?, ttl.parse()?);
    }
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
                row.push(shown(bytes));
            }
            table.row(row);
        }
    }
    for keys in &sizes {
        let mut row = vec!["memcached".to_owned(), keys.to_string()];
        for with_ttl in [false, true] {
            row.push(shown(memcached(*keys, with_ttl)?));
        }
        table.row(row);
        let mut row = vec!["lattice, versions kept".to_owned(), keys.to_string()];
        for with_ttl in [false, true] {
            let (keys, ttl) = (keys.to_string(), with_ttl.to_string());
            let output = Command::new(&words[0]).args([INSIDE, &keys, &ttl]).output()?;
            row.push(String::from_utf8(output.stdout)?.trim().to_owned());
        }
        table.row(row);
    }
    println!("{}", table.render());
    Ok(())
}
