//! The event store on disk with many events in many streams: opening it, what its index takes, appending and reading.
//!
//! `cargo run --release -p lattice-bench --bin events_open -- DIR [EVENTS STREAMS]`; ten million events in one million streams unless said
//! otherwise. DIR must be on a real disk and is filled if it is empty; about 4 GB.
#![expect(clippy::print_stdout, reason = "a program that prints tables")]

use std::cell::Cell;
use std::error::Error;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use event_sourcing::clock::{Clock, SystemClock};
use event_sourcing::store::journal::{EventLog, JournalStore, JournalStoreOptions};
use event_sourcing::{
    Append, ContentType, EventId, EventStore, EventType, Expected, Label, NewEvent, Read, Source,
    StreamName,
};
use futures::executor::{LocalPool, block_on};
use futures::task::LocalSpawnExt;
use lattice_journal::RealDisk;

type Outcome<T> = Result<T, Box<dyn Error>>;

const DATA: usize = 256;
const GROUP: u64 = 256;

/// SplitMix64: the same numbers every time.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % bound
    }
}

fn append(random: &mut Random, streams: u64) -> Outcome<Append> {
    let kind = EventType::new(format!("account.event-{}", random.below(10)))?;
    let id = u128::from(random.below(u64::MAX)) << 64 | u128::from(random.below(u64::MAX));
    let id = EventId(uuid::Uuid::from_u128(id));
    let event = NewEvent::new(id, kind, ContentType::Bytes, vec![b'x'; DATA])
        .label(Label::new(format!("branch:{}", random.below(1000)))?);
    let stream = StreamName::new(format!("account-{}", random.below(streams)))?;
    Ok(Append::to(stream, Expected::Any, [event]))
}

/// Resident memory of this process in MiB.
fn resident_mib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
    kib.unwrap_or(0) / 1024
}

fn open(options: &JournalStoreOptions) -> Outcome<(EventLog, Duration)> {
    let begin = Instant::now();
    let log = EventLog::open(Arc::new(RealDisk), options)?;
    Ok((log, begin.elapsed()))
}

fn main() -> Outcome<()> {
    let mut arguments = std::env::args().skip(1);
    let directory = arguments.next().ok_or("say a directory")?;
    let mut number = |default: u64| arguments.next().map_or(Ok(default), |text| text.parse());
    let (events, streams) = (number(10_000_000)?, number(1_000_000)?);
    let options = JournalStoreOptions::new(directory);
    fill(&options, events, streams)?;

    let (log, took) = open(&options)?;
    println!("open after a clean stop: {} ms, {} events", took.as_millis(), log.reader().head());
    let memory = log.reader().index_memory();
    let head = log.reader().head().0;
    println!(
        "index memory: {} B for complete segments = {:.2} B an event, {} B for the last one; \
         journal {} B = {:.2} B an event; index files {} MB; resident {} MiB",
        memory.sealed,
        memory.sealed as f64 / head as f64,
        memory.growing,
        memory.journal,
        memory.journal as f64 / head as f64,
        memory.files / 1_000_000,
        resident_mib(),
    );
    // As a crash would: nothing is said about the end.
    drop(log);
    let (log, took) = open(&options)?;
    println!("open after a crash: {} ms", took.as_millis());
    log.close()?;

    let store = Arc::new(JournalStore::open(&options)?);
    for clients in [1, 16, 64, 256] {
        append_for(&store, clients, streams, Duration::from_secs(5))?;
    }
    let begin = Instant::now();
    let mut read = Read::forward(Source::All);
    let mut count = 0;
    while count < 1_000_000 {
        let page = block_on(store.read(read.clone()))?;
        count += page.events.len();
        match page.next {
            Some(next) => read = read.from(next),
            None => break,
        }
    }
    let rate = count as f64 / begin.elapsed().as_secs_f64();
    println!("forward read of {count} events: {rate:.0} a second");
    let mut random = Random(7);
    let begin = Instant::now();
    for _ in 0..10_000 {
        let stream = StreamName::new(format!("account-{}", random.below(streams)))?;
        // A stream may have got no event.
        let _ = block_on(store.read(Read::forward(Source::Stream(stream))));
    }
    println!(
        "10,000 streams of about ten events read: {:.1} us each",
        begin.elapsed().as_micros() as f64 / 10_000.0
    );
    store.close();
    Ok(())
}

fn fill(options: &JournalStoreOptions, events: u64, streams: u64) -> Outcome<()> {
    let (mut log, _) = open(options)?;
    let begin = Instant::now();
    let first = log.reader().head().0;
    let mut random = Random(first + 1);
    while log.reader().head().0 < events {
        for _ in 0..GROUP {
            log.stage(append(&mut random, streams)?, SystemClock.now())?;
        }
        log.commit()?;
        if log.take_rotated() {
            for task in log.upkeep() {
                task.run()?;
            }
        }
    }
    let filled = log.reader().head().0 - first;
    if filled > 0 {
        let seconds = begin.elapsed().as_secs_f64();
        println!(
            "filled with {filled} events in {seconds:.0} s, {:.0} a second in groups of {GROUP}",
            filled as f64 / seconds
        );
    }
    log.close()?;
    Ok(())
}

/// Clients that append one event after the other, each waiting for its answer.
fn append_for(
    store: &Arc<JournalStore>,
    clients: u64,
    streams: u64,
    time: Duration,
) -> Outcome<()> {
    let mut pool = LocalPool::new();
    let count = Rc::new(Cell::new(0_u64));
    let before = store.stats();
    let begin = Instant::now();
    for client in 0..clients {
        let (store, count) = (Arc::clone(store), Rc::clone(&count));
        let mut random = Random(before.head.0 * 1000 + client);
        pool.spawner().spawn_local(async move {
            while begin.elapsed() < time {
                let append = append(&mut random, streams).expect("the names are valid");
                store.append(append).await.expect("the append is carried out");
                count.set(count.get() + 1);
            }
        })?;
    }
    pool.run();
    let syncs = store.stats().commits - before.commits;
    let rate = count.get() as f64 / begin.elapsed().as_secs_f64();
    println!(
        "{clients} clients: {rate:.0} appends a second, {:.1} for each sync",
        count.get() as f64 / syncs as f64
    );
    Ok(())
}
