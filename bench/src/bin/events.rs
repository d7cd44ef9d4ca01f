//! Conditional appends, durable before they are answered: ours in this process and through sockets, UmaDB, and PostgreSQL in two ways.
//!
//! `cargo run --release -p lattice-bench --bin events -- DIR [ROUNDS [SECONDS]]`. DIR must be on a real disk; what is written there is
//! removed. Peers take part if they are found ([`lattice_bench::peers`]). All are measured in turn, in so many rounds, and each figure
//! is of the round in the middle by appends a second.
#![expect(clippy::print_stdout, reason = "a program that prints tables")]

use std::error::Error;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use event_sourcing::store::journal::{JournalStore, JournalStoreOptions};
use lattice_bench::appends::{Figures, Shape, Target, commits_of, run, serve};
use lattice_bench::peers::{Postgres, UmaDb, Way, processor_time};
use lattice_bench::table::Table;

/// The same allocator as the server's.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

type Outcome<T> = Result<T, Box<dyn Error>>;

/// Clients and events in an append.
const SHAPES: [(u32, u32); 6] = [(1, 1), (16, 1), (64, 1), (256, 1), (64, 10), (64, 64)];

enum System {
    InProcess(Arc<JournalStore>),
    Sockets(Server),
    UmaDb(UmaDb),
    Postgres(Arc<Postgres>, Way),
}

/// This program as a server.
struct Server {
    child: Child,
    address: SocketAddr,
}

impl Server {
    fn start(directory: &Path) -> Outcome<Self> {
        let mut command = Command::new(std::env::current_exe()?);
        let mut child = command.arg("serve").arg(directory).stdout(Stdio::piped()).spawn()?;
        let mut line = String::new();
        BufReader::new(child.stdout.take().ok_or("no pipe")?).read_line(&mut line)?;
        Ok(Self { child, address: line.trim().parse()? })
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl System {
    fn name(&self) -> &'static str {
        match self {
            Self::InProcess(_) => "lattice, in process",
            Self::Sockets(_) => "lattice, sockets",
            Self::UmaDb(_) => "UmaDB",
            Self::Postgres(_, Way::Plain) => "PostgreSQL, unordered",
            Self::Postgres(_, Way::Ordered) => "PostgreSQL, ordered",
        }
    }

    fn measure(&self, name: &str, shape: Shape) -> Outcome<Figures> {
        Ok(match self {
            Self::InProcess(store) => {
                let own = std::process::id();
                let (cpu, commits) = (processor_time(own), store.stats().commits);
                let (times, took) = run(&Target::Store(Arc::clone(store)), name, shape)?;
                let syncs = store.stats().commits - commits;
                Figures::of(times, took, processor_time(own).saturating_sub(cpu), Some(syncs))
            }
            Self::Sockets(server) => {
                let process = server.child.id();
                let (cpu, commits) = (processor_time(process), commits_of(server.address)?);
                let (times, took) = run(&Target::Server(server.address), name, shape)?;
                let syncs = commits_of(server.address)? - commits;
                Figures::of(times, took, processor_time(process).saturating_sub(cpu), Some(syncs))
            }
            Self::UmaDb(umadb) => umadb.run(name, shape)?,
            Self::Postgres(postgres, way) => {
                postgres.run(*way, &format!("{name}{way:?}"), shape)?
            }
        })
    }
}

fn main() -> Outcome<()> {
    let mut arguments = std::env::args().skip(1);
    let first = arguments.next().ok_or("say a directory")?;
    if first == "serve" {
        let directory = arguments.next().ok_or("say a directory")?;
        let store = Arc::new(JournalStore::open(&JournalStoreOptions::new(directory))?);
        return Ok(serve(&store, |address| println!("{address}"))?);
    }
    let directory = PathBuf::from(first);
    let mut number = |usual: u64| arguments.next().map_or(Ok(usual), |text| text.parse());
    let (rounds, seconds) = (number(3)?, number(3)?);

    let at = |name: &str| directory.join(name);
    std::fs::create_dir_all(&directory)?;
    let store = JournalStore::open(&JournalStoreOptions::new(at("in-process")))?;
    let mut systems =
        vec![System::InProcess(Arc::new(store)), System::Sockets(Server::start(&at("sockets"))?)];
    systems.extend(UmaDb::start(&at("umadb"))?.map(System::UmaDb));
    if let Some(postgres) = Postgres::start(&at("postgres"))?.map(Arc::new) {
        systems.push(System::Postgres(Arc::clone(&postgres), Way::Plain));
        systems.push(System::Postgres(postgres, Way::Ordered));
    }

    let mut table = Table::new(&[
        "store",
        "clients",
        "events an append",
        "appends/s",
        "events/s",
        "p50 ms",
        "p99 ms",
        "server µs/append",
        "appends/sync",
        "lattice, sockets / this",
    ]);
    for (number, (clients, events)) in SHAPES.into_iter().enumerate() {
        let shape = Shape { clients, events, time: Duration::from_secs(seconds) };
        let mut found: Vec<Vec<Figures>> = vec![Vec::new(); systems.len()];
        for round in 0..rounds {
            for (system, found) in systems.iter().zip(&mut found) {
                found.push(system.measure(&format!("account-{number}-{round}"), shape)?);
            }
        }
        let middle = |figures: &mut Vec<Figures>| {
            figures.sort_by(|left, right| left.rate.total_cmp(&right.rate));
            figures[figures.len() / 2]
        };
        let middles: Vec<Figures> = found.iter_mut().map(middle).collect();
        for (system, figures) in systems.iter().zip(&middles) {
            table.row(vec![
                system.name().into(),
                clients.to_string(),
                events.to_string(),
                format!("{:.0}", figures.rate),
                format!("{:.0}", figures.rate * f64::from(events)),
                format!("{:.2}", figures.p50_ms),
                format!("{:.2}", figures.p99_ms),
                format!("{:.1}", figures.cpu_us),
                figures.per_sync.map_or("".into(), |number| format!("{number:.1}")),
                format!("{:.2}", middles[1].rate / figures.rate),
            ]);
        }
    }
    println!("{}", table.render());
    drop(systems);
    std::fs::remove_dir_all(&directory)?;
    Ok(())
}
