//! How fast a Raft log is written and made durable: batches of entries, one fdatasync a batch (gate G2).
//!
//! `cargo run --release -p lattice-bench --features peers --bin logs -- DIR [ROUNDS [SECONDS]]`. DIR must be on a real disk; what is written there
//! is removed. raft-engine and raft-log stand beside ours with the feature `peers`. One writer, which waits for each batch. Each measurement
//! is a process of its own, the systems take turns, another one first in each round, and each figure is of the round in the middle. Payloads
//! are random bytes, and raft-engine's compression, which could only lose, is off.
//!
//! A virtual machine gives memory that is free back to its host, and takes it again page by page. Who writes to a file then pays for it: a
//! write takes twice to four times as long, unless somebody freed as much just before. So each process first fills as much of the
//! system's cache as it can come to need, and frees it.
#![expect(clippy::print_stdout, reason = "a program that prints tables")]

use std::error::Error;
use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use lattice_bench::peers::processor_time;
use lattice_bench::table::Table;
use lattice_journal::RealDisk;
use raft_consensus::effects::{IoToken, PersistBatch};
use raft_consensus::storage::{JournalLog, JournalLogOptions, LogStore as _};
use raft_consensus::types::{Entry, EntryId, LogIndex, Payload, Term};

/// The same allocator as the server's, for all.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

type Outcome<T> = Result<T, Box<dyn Error + Send + Sync>>;

const BATCHES: [u64; 7] = [1, 4, 16, 64, 256, 1024, 4096];
const PAYLOADS: [usize; 2] = [256, 1024];

#[cfg(feature = "peers")]
const SYSTEMS: &[&str] = &["lattice", "raft-engine", "raft-log"];
#[cfg(not(feature = "peers"))]
const SYSTEMS: &[&str] = &["lattice"];

/// A log that is written by one writer.
trait Log {
    /// Appends entries with these payloads behind the last, and comes back when they are durable.
    fn append(&mut self, payloads: &[Bytes]) -> Outcome<()>;
}

/// Entries a second, microseconds a batch and of processor time an entry.
#[derive(Clone, Copy, Debug, Default)]
struct Figures {
    per_second: f64,
    batch_us: f64,
    cpu_us: f64,
}

fn main() -> Outcome<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let [mode, system, directory, batch, payload, seconds] = arguments.as_slice()
        && mode == "measure"
    {
        take_memory(Path::new(directory))?;
        let mut log = open(system, Path::new(directory))?;
        let seconds = Duration::from_secs_f64(seconds.parse()?);
        let shown = measure(log.as_mut(), batch.parse()?, payload.parse()?, seconds)?;
        println!("{} {} {}", shown.per_second, shown.batch_us, shown.cpu_us);
        return Ok(());
    }
    let directory = PathBuf::from(arguments.first().ok_or("which directory?")?).join("logs");
    let rounds: usize = arguments.get(1).map_or(Ok(3), |text| text.parse())?;
    let seconds = arguments.get(2).map_or("2", String::as_str);
    println!("One writer, one fdatasync a batch; the middle of {rounds} rounds of {seconds} s.");
    for payload in PAYLOADS {
        let head = ["batch", "system", "entries/s", "µs a batch", "CPU µs an entry", "ours is"];
        let mut table = Table::new(&head);
        for batch in BATCHES {
            let mut found = vec![Vec::new(); SYSTEMS.len()];
            for round in 0..rounds {
                for turn in 0..SYSTEMS.len() {
                    let number = (round + turn) % SYSTEMS.len();
                    let system = SYSTEMS[number];
                    found[number]
                        .push(in_its_own_process(system, &directory, batch, payload, seconds)?);
                }
            }
            let middle: Vec<Figures> = found.into_iter().map(in_the_middle).collect();
            let own = middle[0].per_second;
            for (number, (system, shown)) in SYSTEMS.iter().zip(&middle).enumerate() {
                let ratio = own / shown.per_second;
                table.row(vec![
                    batch.to_string(),
                    (*system).to_owned(),
                    format!("{:.0}", shown.per_second),
                    format!("{:.0}", shown.batch_us),
                    format!("{:.2}", shown.cpu_us),
                    if number == 0 { String::new() } else { format!("{ratio:.2} x") },
                ]);
            }
        }
        println!("\nPayloads of {payload} bytes:\n");
        print!("{}", table.render());
    }
    Ok(())
}

/// Makes sure that the memory that files are kept in is the machine's own: see above. Nothing of this comes to the disk, for the file is
/// gone before the system writes it there.
fn take_memory(directory: &Path) -> Outcome<()> {
    let path = directory.join("memory");
    let mut file = File::create(&path)?;
    let zeros = vec![0; 1 << 20];
    for _ in 0..1024 {
        file.write_all(&zeros)?;
    }
    drop(file);
    Ok(fs::remove_file(&path)?)
}

fn in_its_own_process(
    system: &str,
    directory: &Path,
    batch: u64,
    payload: usize,
    seconds: &str,
) -> Outcome<Figures> {
    // Whoever ran before may have been stopped in the middle.
    drop(fs::remove_dir_all(directory));
    fs::create_dir_all(directory)?;
    let mut command = Command::new(std::env::current_exe()?);
    command.args(["measure", system]).arg(directory);
    let output = command.args([&batch.to_string(), &payload.to_string(), seconds]).output()?;
    fs::remove_dir_all(directory)?;
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).into());
    }
    let text = String::from_utf8(output.stdout)?;
    let numbers: Vec<f64> = text.split_whitespace().map(str::parse).collect::<Result<_, _>>()?;
    let [per_second, batch_us, cpu_us] = numbers[..] else {
        return Err(format!("not figures: {text}").into());
    };
    Ok(Figures { per_second, batch_us, cpu_us })
}

fn in_the_middle(mut found: Vec<Figures>) -> Figures {
    found.sort_by(|a, b| a.per_second.total_cmp(&b.per_second));
    found.get(found.len() / 2).copied().unwrap_or_default()
}

fn measure(log: &mut dyn Log, batch: u64, payload: usize, seconds: Duration) -> Outcome<Figures> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut random = || {
        // xorshift: only that nothing compresses.
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    };
    let payloads: Vec<Bytes> = (0..batch)
        .map(|_| (0..payload / 8).flat_map(|_| random()).collect::<Vec<u8>>().into())
        .collect();
    log.append(&payloads)?;
    let cpu = processor_time(std::process::id());
    let began = Instant::now();
    let mut batches = 0_u32;
    while began.elapsed() < seconds {
        log.append(&payloads)?;
        batches += 1;
    }
    let took = began.elapsed().as_secs_f64();
    let cpu = processor_time(std::process::id()).saturating_sub(cpu).as_secs_f64();
    let entries = f64::from(batches) * f64::from(u32::try_from(batch)?);
    Ok(Figures {
        per_second: entries / took,
        batch_us: took * 1e6 / f64::from(batches),
        cpu_us: cpu * 1e6 / entries,
    })
}

fn open(system: &str, directory: &Path) -> Outcome<Box<dyn Log>> {
    match system {
        "lattice" => Ok(Box::new(Lattice::open(directory)?)),
        #[cfg(feature = "peers")]
        "raft-engine" => Ok(Box::new(peers::RaftEngine::open(directory)?)),
        #[cfg(feature = "peers")]
        "raft-log" => Ok(Box::new(peers::RaftLog::open(directory)?)),
        other => Err(format!("no such system: {other}").into()),
    }
}

struct Lattice {
    log: JournalLog,
    batch: PersistBatch,
    last: LogIndex,
}

impl Lattice {
    fn open(directory: &Path) -> Outcome<Self> {
        let options = JournalLogOptions::new(1);
        let (log, _) = JournalLog::open(Arc::new(RealDisk), directory, options)?;
        Ok(Self { log, batch: PersistBatch::default(), last: LogIndex::ZERO })
    }
}

impl Log for Lattice {
    fn append(&mut self, payloads: &[Bytes]) -> Outcome<()> {
        self.batch.token = IoToken(self.batch.token.0 + 1);
        let next = |payload: &Bytes| {
            self.last = self.last.next();
            let id = EntryId::new(Term(1), self.last);
            Entry { id, session: None, payload: Payload::Command(payload.clone()) }
        };
        self.batch.entries = payloads.iter().map(next).collect();
        self.log.append(&self.batch)?;
        self.log.sync()?;
        Ok(())
    }
}

#[cfg(feature = "peers")]
mod peers {
    use std::io;
    use std::path::Path;
    use std::sync::Arc;
    use std::sync::mpsc::{SyncSender, sync_channel};

    use bytes::Bytes;
    use protobuf::well_known_types::BytesValue;
    use raft_engine::{Engine, LogBatch, MessageExt, ReadableSize};
    use raft_log::api::raft_log_writer::RaftLogWriter as _;

    use super::{Log, Outcome};

    pub(super) struct RaftEngine {
        engine: Engine,
        batch: LogBatch,
        entries: Vec<BytesValue>,
        last: u64,
    }

    /// An entry is its bytes, behind its index.
    struct Entries;

    impl MessageExt for Entries {
        type Entry = BytesValue;

        fn index(entry: &BytesValue) -> u64 {
            let index = entry.value.first_chunk::<8>().expect("an entry begins with its index");
            u64::from_le_bytes(*index)
        }
    }

    impl RaftEngine {
        pub(super) fn open(directory: &Path) -> Outcome<Self> {
            let config = raft_engine::Config {
                dir: directory.to_string_lossy().into_owned(),
                batch_compression_threshold: ReadableSize(0),
                ..raft_engine::Config::default()
            };
            let engine = Engine::open(config)?;
            Ok(Self { engine, batch: LogBatch::default(), entries: Vec::new(), last: 0 })
        }
    }

    impl Log for RaftEngine {
        fn append(&mut self, payloads: &[Bytes]) -> Outcome<()> {
            self.entries.resize_with(payloads.len(), BytesValue::new);
            for (entry, payload) in self.entries.iter_mut().zip(payloads) {
                self.last += 1;
                // Filled once: what an entry costs before it comes to the log is not to be measured.
                if entry.value.len() != payload.len() {
                    entry.value = payload.to_vec();
                }
                entry.value[..8].copy_from_slice(&self.last.to_le_bytes());
            }
            self.batch.add_entries::<Entries>(1, &self.entries)?;
            self.engine.write(&mut self.batch, true)?;
            Ok(())
        }
    }

    #[derive(Clone, Debug, Default, PartialEq, Eq)]
    struct Types;

    impl raft_log::Types for Types {
        type LogId = (u64, u64);
        type LogPayload = Vec<u8>;
        type Vote = (u64, u64);
        type UserData = String;
        type Callback = SyncSender<io::Result<()>>;

        fn log_index(id: &(u64, u64)) -> u64 {
            id.1
        }

        fn payload_size(payload: &Vec<u8>) -> u64 {
            u64::try_from(payload.len()).expect("a length fits 64 bits")
        }
    }

    pub(super) struct RaftLog {
        log: raft_log::RaftLog<Types>,
        last: u64,
    }

    impl RaftLog {
        pub(super) fn open(directory: &Path) -> Outcome<Self> {
            let config = raft_log::Config::new(directory.to_string_lossy());
            Ok(Self { log: raft_log::RaftLog::open(Arc::new(config))?, last: 0 })
        }
    }

    impl Log for RaftLog {
        fn append(&mut self, payloads: &[Bytes]) -> Outcome<()> {
            let first = self.last + 1;
            let entries = (first..).zip(payloads).map(|(index, it)| ((1, index), it.to_vec()));
            self.log.append(entries)?;
            self.last += u64::try_from(payloads.len())?;
            let (done, durable) = sync_channel(1);
            self.log.flush(true, Some(done))?;
            durable.recv()??;
            Ok(())
        }
    }
}
