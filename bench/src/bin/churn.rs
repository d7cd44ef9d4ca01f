//! Resident memory at a limit, while values of random sizes from 1 byte to 1 MiB replace each other.
//!
//! `cargo run --release -p lattice-bench --bin churn [-- LIMIT_MIB SECONDS]`; Redis beside ours if it is installed.
#![expect(clippy::print_stdout, reason = "a program that prints tables")]

use std::error::Error;
use std::time::{Duration, Instant};

use lattice_bench::server::{Kind, Server, encode};
use lattice_bench::table::Table;
use lattice_bench::trace::Random;

const MIB: u64 = 1 << 20;

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let mut number = |default: u64| arguments.next().map_or(Ok(default), |text| text.parse());
    let (limit, seconds) = (number(256)?, number(20)?);
    println!("Resident memory under churn, limit {limit} MiB, {seconds} s.\n");
    let mut table = Table::new(&["server", "writes", "written MiB", "peak MiB", "peak / limit"]);
    for kind in [Kind::Lattice, Kind::Redis] {
        let Some(server) = Server::start(kind, limit * MIB, "allkeys-lru")? else { continue };
        let mut connection = server.connect()?;
        let mut random = Random(1);
        let value = vec![b'v'; 1 << 20];
        let end = Instant::now() + Duration::from_secs(seconds);
        let (mut writes, mut written, mut peak) = (0, 0, 0);
        while Instant::now() < end {
            let mut bytes = Vec::new();
            for _ in 0..20 {
                // As many sizes between 1 and 2 bytes as between half a MiB and one: all classes churn alike.
                let most = 1 << random.below(21);
                let size = usize::try_from(1 + random.below(most)).expect("at most 1 MiB");
                let key = format!("k:{}", random.below(100_000));
                encode(&mut bytes, &[b"SET", key.as_bytes(), &value[..size]]);
                writes += 1;
                written += size as u64;
            }
            connection.send(&bytes)?;
            for _ in 0..20 {
                connection.receive()?;
            }
            peak = peak.max(server.resident()?);
        }
        #[expect(clippy::cast_precision_loss, reason = "a ratio to show")]
        let ratio = peak as f64 / (limit * MIB) as f64;
        table.row(vec![
            kind.name().to_owned(),
            u64::to_string(&writes),
            (written / MIB).to_string(),
            (peak / MIB).to_string(),
            format!("{ratio:.3}"),
        ]);
    }
    println!("{}", table.render());
    Ok(())
}
