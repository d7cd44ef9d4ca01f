//! How fast a group agrees: three nodes in one process, nothing on disk, empty commands (gate G1).
//!
//! `cargo run --release -p lattice-bench --features peers --bin consensus -- [ROUNDS [SECONDS]]`. openraft stands beside ours with the feature
//! `peers`. Each measurement is a process of its own, so that neither is warmed up, or filled, by the other; the systems take turns, and
//! each figure is of the round in the middle. Clients wait for one command at a time; a message between nodes is a function call. Ours
//! keeps its journal, with checksums and all, in memory; openraft keeps its log in a `BTreeMap`.
#![expect(clippy::print_stdout, reason = "a program that prints tables")]

use std::error::Error;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};

use futures::future::BoxFuture;
use lattice_bench::peers::processor_time;
use lattice_bench::table::Table;
use tokio::runtime::{Builder, Runtime};

#[path = "lattice.rs"]
mod lattice;
#[cfg(feature = "peers")]
#[path = "openraft.rs"]
mod openraft;

/// The same allocator for both.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

type Outcome<T> = Result<T, Box<dyn Error + Send + Sync>>;

const CLIENTS: [u32; 5] = [1, 64, 256, 1024, 4096];
const WARM_UP: Duration = Duration::from_millis(500);

#[cfg(feature = "peers")]
const SYSTEMS: &[&str] = &["lattice", "openraft"];
#[cfg(not(feature = "peers"))]
const SYSTEMS: &[&str] = &["lattice"];

/// A group of three whose leader takes commands.
trait Group: Send + Sync {
    /// Waits until one command is applied.
    fn write(&self) -> BoxFuture<'_, Outcome<()>>;
}

/// What one measurement showed.
#[derive(Clone, Copy, Debug, Default)]
struct Figures {
    per_second: f64,
    p50_us: f64,
    p99_us: f64,
    cpu_us: f64,
}

fn main() -> Outcome<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let [mode, system, clients, seconds] = arguments.as_slice()
        && mode == "measure"
    {
        let shown = measure(system, clients.parse()?, Duration::from_secs_f64(seconds.parse()?))?;
        println!("{} {} {} {}", shown.per_second, shown.p50_us, shown.p99_us, shown.cpu_us);
        return Ok(());
    }
    let rounds: usize = arguments.first().map_or(Ok(3), |text| text.parse())?;
    let seconds = arguments.get(1).map_or("3", String::as_str);
    let mut table = Table::new(&[
        "clients",
        "system",
        "writes/s",
        "p50 µs",
        "p99 µs",
        "CPU µs a write",
        "ratio",
    ]);
    for clients in CLIENTS {
        let mut found = vec![Vec::new(); SYSTEMS.len()];
        for _ in 0..rounds {
            for (number, system) in SYSTEMS.iter().enumerate() {
                found[number].push(in_its_own_process(system, clients, seconds)?);
            }
        }
        let middle: Vec<Figures> = found.into_iter().map(in_the_middle).collect();
        for (number, (system, shown)) in SYSTEMS.iter().zip(&middle).enumerate() {
            let ratio = match middle.get(1) {
                Some(other) if number == 0 => format!("{:.2}", shown.per_second / other.per_second),
                _ => String::new(),
            };
            table.row(vec![
                clients.to_string(),
                (*system).to_owned(),
                format!("{:.0}", shown.per_second),
                format!("{:.0}", shown.p50_us),
                format!("{:.0}", shown.p99_us),
                format!("{:.2}", shown.cpu_us),
                ratio,
            ]);
        }
    }
    let cores = std::thread::available_parallelism()?;
    println!(
        "Three nodes in one process, one group, no disk, empty commands; {cores} cores; the middle of {rounds} rounds of {seconds} s.\n"
    );
    print!("{}", table.render());
    Ok(())
}

fn in_its_own_process(system: &str, clients: u32, seconds: &str) -> Outcome<Figures> {
    let mut command = Command::new(std::env::current_exe()?);
    let output = command.args(["measure", system, &clients.to_string(), seconds]).output()?;
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).into());
    }
    let text = String::from_utf8(output.stdout)?;
    let numbers: Vec<f64> = text.split_whitespace().map(str::parse).collect::<Result<_, _>>()?;
    let [per_second, p50_us, p99_us, cpu_us] = numbers[..] else {
        return Err(format!("not figures: {text}").into());
    };
    Ok(Figures { per_second, p50_us, p99_us, cpu_us })
}

fn in_the_middle(mut found: Vec<Figures>) -> Figures {
    found.sort_by(|a, b| a.per_second.total_cmp(&b.per_second));
    found.get(found.len() / 2).copied().unwrap_or_default()
}

fn runtime(threads: usize) -> std::io::Result<Runtime> {
    Builder::new_multi_thread().worker_threads(threads).enable_all().build()
}

fn start(system: &str, runtime: &Runtime) -> Outcome<Arc<dyn Group>> {
    match system {
        "lattice" => runtime.block_on(lattice::start()),
        #[cfg(feature = "peers")]
        "openraft" => runtime.block_on(openraft::start()),
        other => Err(format!("no such system: {other}").into()),
    }
}

fn measure(system: &str, clients: u32, seconds: Duration) -> Outcome<Figures> {
    // Nodes on as many threads as there are cores, clients on one of their own, as openraft's own measurement has it.
    let servers = runtime(std::thread::available_parallelism()?.get())?;
    let group = start(system, &servers)?;
    let client_side = runtime(1)?;
    let times = Arc::new(Times::default());
    let is_measured = Arc::new(AtomicBool::new(false));
    let is_over = Arc::new(AtomicBool::new(false));
    let tasks: Vec<_> = (0..clients)
        .map(|_| {
            let (group, times) = (Arc::clone(&group), Arc::clone(&times));
            let (is_measured, is_over) = (Arc::clone(&is_measured), Arc::clone(&is_over));
            client_side.spawn(async move {
                while !is_over.load(Ordering::Relaxed) {
                    let began = Instant::now();
                    group.write().await?;
                    if is_measured.load(Ordering::Relaxed) {
                        times.add(began.elapsed());
                    }
                }
                Ok::<_, Box<dyn Error + Send + Sync>>(())
            })
        })
        .collect();
    std::thread::sleep(WARM_UP);
    let cpu = processor_time(std::process::id());
    let began = Instant::now();
    is_measured.store(true, Ordering::Relaxed);
    std::thread::sleep(seconds);
    is_measured.store(false, Ordering::Relaxed);
    let took = began.elapsed();
    let cpu = processor_time(std::process::id()).saturating_sub(cpu);
    is_over.store(true, Ordering::Relaxed);
    for task in tasks {
        client_side.block_on(task)??;
    }
    let count = f64::from(u32::try_from(times.count())?);
    Ok(Figures {
        per_second: count / took.as_secs_f64(),
        p50_us: times.percentile_us(50),
        p99_us: times.percentile_us(99),
        cpu_us: cpu.as_secs_f64() * 1e6 / count,
    })
}

/// How often it took how long, to a sixteenth: a list of all times would be more memory than the log.
struct Times(Vec<AtomicU32>);

const BITS: u32 = 4;

impl Default for Times {
    fn default() -> Self {
        Self((0..(33 - BITS as usize) << BITS).map(|_| AtomicU32::new(0)).collect())
    }
}

impl Times {
    /// All clients add to the same counts: one list each, of thousands, would be looked for in memory at each command.
    fn add(&self, time: Duration) {
        let nanoseconds = u32::try_from(time.as_nanos()).unwrap_or(u32::MAX).max(1 << BITS);
        let power = nanoseconds.ilog2() - BITS;
        let place = (power << BITS) + (nanoseconds >> power) - (1 << BITS);
        self.0[place as usize].fetch_add(1, Ordering::Relaxed);
    }

    fn count(&self) -> u64 {
        self.0.iter().map(|count| u64::from(count.load(Ordering::Relaxed))).sum()
    }

    /// The upper end of the step in which so many hundredths lie.
    fn percentile_us(&self, percent: u64) -> f64 {
        let mut left = self.count() * percent / 100;
        for (power, counts) in (0_u32..).zip(self.0.chunks(1 << BITS)) {
            for (step, count) in (1_u32..).zip(counts) {
                match left.checked_sub(u64::from(count.load(Ordering::Relaxed))) {
                    Some(rest) => left = rest,
                    None => return f64::from((1 << BITS) + step) * f64::from(power).exp2() / 1e3,
                }
            }
        }
        f64::NAN
    }
}
