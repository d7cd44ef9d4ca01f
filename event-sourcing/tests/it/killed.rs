//! A process that writes, killed at any moment: what it was answered is there, once, and the projection beside it is right.
//!
//! The process is this test binary, asked for one test that does nothing unless it is told a directory. It says on its standard output what
//! was acknowledged, line by line, and is killed after a drawn number of lines, while it does whatever it does then.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read as _, Write as _};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;

use event_sourcing::clock::SystemClock;
use event_sourcing::projection::{
    Next, Projection, ReadModel, RedbSink, Rows, Runner, Sink, Table,
};
use event_sourcing::store::journal::{JournalStore, JournalStoreOptions};
use event_sourcing::{
    Append, EventId, EventStore, EventType, Expected, NewEvent, Position, Read, Recorded, Source,
    StreamName,
};
use futures::executor::block_on;
use futures::future::join_all;
use uuid::Uuid;

const DIRECTORY: &str = "LATTICE_KILLED_DIRECTORY";
const ROUND: &str = "LATTICE_KILLED_ROUND";
/// Appends that are under way together.
const GROUP: u64 = 8;
const STREAMS: u64 = 7;
const SUMS: Table<str, u64> = Table::new("sums");

/// How often the writer is killed; more for a longer campaign.
fn kills() -> u64 {
    std::env::var("LATTICE_KILLS")
        .map_or(5, |kills| kills.parse().expect("LATTICE_KILLS is a number"))
}

fn open(directory: &Path) -> JournalStore {
    let mut options = JournalStoreOptions::new(directory.join("log"));
    options.segment_size = 16 << 10;
    options.idle = std::time::Duration::from_millis(1);
    JournalStore::open(&options).unwrap()
}

fn sums() -> Projection {
    Projection::new("sums", "1").otherwise(|tx, event| {
        let sum = tx.get(&SUMS, event.stream.as_str())?.unwrap_or(0);
        Ok(tx.put(&SUMS, event.stream.as_str(), &folded(sum, event))?)
    })
}

/// Every event changes it, and so does their order.
fn folded(before: u64, event: &Recorded) -> u64 {
    before.wrapping_mul(31).wrapping_add(event.position.0)
}

fn catch_up(runner: &mut Runner, store: &JournalStore) {
    loop {
        match runner.next(event_sourcing::Timestamp(0)) {
            Next::Read(read) => {
                runner.take(block_on(store.read(*read)).unwrap(), event_sourcing::Timestamp(0));
            }
            Next::Work => drop(runner.work(&SystemClock).unwrap()),
            Next::WaitBeyond(position) if store.head() > position => runner.wake(store.head()),
            Next::WaitBeyond(_) | Next::WaitUntil(_) => return runner.flush().unwrap(),
        }
    }
}

fn id(round: u64, number: u64, index: u64) -> EventId {
    EventId(Uuid::from_u64_pair(round, number * 8 + index))
}

/// The append with a number: one to three events for one or two streams.
fn append(round: u64, number: u64) -> Append {
    let event = |index| {
        let data = format!("{{\"round\":{round},\"number\":{number}}}");
        NewEvent::json(EventType::new("counted").unwrap(), data).id(id(round, number, index))
    };
    let stream = |number| StreamName::new(format!("s-{}", number % STREAMS)).unwrap();
    let count = 1 + number % 3;
    Append::to(stream(number), Expected::Any, (0..count).map(event)).and_to(
        stream(number / 2 + 1),
        Expected::Any,
        (count..count + number % 2).map(event),
    )
}

/// The process that is killed. Without a directory there is nothing to do.
#[test]
fn the_writer() {
    let Ok(directory) = std::env::var(DIRECTORY) else { return };
    let directory = Path::new(&directory);
    let round: u64 = std::env::var(ROUND).unwrap().parse().unwrap();
    let mut out = std::io::stdout().lock();
    let mut say = |line: String| {
        writeln!(out, "\n{line}").unwrap();
        out.flush().unwrap();
    };
    let store = open(directory);
    let sink: Arc<dyn Sink> = Arc::new(RedbSink::open(directory.join("sums.redb")).unwrap());
    let mut runner = Runner::open(sink, sums()).unwrap();
    say("acknowledged opened".to_owned());
    for group in 0.. {
        let numbers = group * GROUP..(group + 1) * GROUP;
        let answers = numbers.clone().map(|number| store.append(append(round, number)));
        let answers = block_on(join_all(answers));
        for (number, answer) in numbers.zip(answers) {
            let answer = answer.unwrap();
            say(format!("acknowledged {number} {} {}", answer.first, answer.last));
        }
        if group % 3 == 0 {
            catch_up(&mut runner, &store);
        }
    }
}

/// What a writer was answered in one round, until it was killed after so many lines.
fn killed_after(directory: &Path, round: u64, lines: u64) -> Vec<(u64, u64, u64)> {
    let mut writer = Command::new(std::env::current_exe().unwrap())
        .args(["killed::the_writer", "--exact", "--nocapture"])
        .env(DIRECTORY, directory)
        .env(ROUND, round.to_string())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut said = BufReader::new(writer.stdout.take().unwrap());
    let mut heard = Vec::new();
    let mut line = String::new();
    while (heard.len() as u64) < lines {
        line.clear();
        if said.read_line(&mut line).unwrap() == 0 {
            let mut why = String::new();
            writer.stderr.take().unwrap().read_to_string(&mut why).unwrap();
            writer.wait().unwrap();
            panic!("the writer has ended by itself in round {round}: {why}");
        }
        if line.starts_with("acknowledged ") {
            heard.push(line.clone());
        }
    }
    writer.kill().unwrap();
    writer.wait().unwrap();
    // What it said before it died counts; a line that is cut was not said.
    let mut rest = String::new();
    said.read_to_string(&mut rest).unwrap();
    heard.extend(rest.split_inclusive('\n').filter(|line| line.ends_with('\n')).map(str::to_owned));
    let numbers = |line: &String| {
        let mut words = line.trim_end().strip_prefix("acknowledged ")?.split(' ');
        let mut number = || words.next()?.parse().ok();
        Some((number()?, number()?, number()?))
    };
    heard.iter().filter_map(numbers).collect()
}

fn everything(store: &JournalStore) -> Vec<Arc<Recorded>> {
    let mut events = Vec::new();
    let mut read = Read::forward(Source::All);
    loop {
        let page = block_on(store.read(read.clone())).unwrap();
        events.extend(page.events);
        match page.next {
            Some(next) => read = read.from(next),
            None => return events,
        }
    }
}

/// Each acknowledged append is there, whole and once; versions and positions are dense; rows are a fold.
fn check(directory: &Path, acknowledged: &BTreeMap<(u64, u64), (u64, u64)>) {
    let store = open(directory);
    let events = everything(&store);
    let mut versions: BTreeMap<&str, u64> = BTreeMap::new();
    let mut ids = BTreeMap::new();
    let mut sums_expected: BTreeMap<&str, u64> = BTreeMap::new();
    for (event, position) in events.iter().zip(1..) {
        assert_eq!(event.position, Position(position), "positions are dense");
        let next = versions.entry(event.stream.as_str()).or_default();
        assert_eq!(event.version.0, *next, "versions are dense");
        *next += 1;
        let twice = ids.insert(event.event.id, position);
        assert_eq!(twice, None, "{} is there twice", event.event.id);
        let sum = sums_expected.entry(event.stream.as_str()).or_default();
        *sum = folded(*sum, event);
    }
    for ((round, number), (first, last)) in acknowledged {
        let append = append(*round, *number);
        for (event, position) in append.events.iter().zip(*first..) {
            assert_eq!(ids.get(&event.1.id), Some(&position), "an acknowledged event is missing");
        }
        assert_eq!(append.events.len() as u64, last - first + 1);
    }
    let verified = block_on(store.verify()).unwrap();
    assert!(verified.is_sound(), "{:?}", verified.problems);

    let sink: Arc<dyn Sink> = Arc::new(RedbSink::open(directory.join("sums.redb")).unwrap());
    let mut runner = Runner::open(Arc::clone(&sink), sums()).unwrap();
    catch_up(&mut runner, &store);
    let view = ReadModel::new(sink, "sums").view().unwrap();
    assert_eq!(view.position(), store.head());
    for (stream, sum) in sums_expected {
        assert_eq!(view.get(&SUMS, stream).unwrap(), Some(sum), "{stream}");
    }
}

#[test]
fn what_was_acknowledged_survives_sigkill_at_any_moment() {
    let directory = tempfile::tempdir().unwrap();
    let mut acknowledged = BTreeMap::new();
    let mut random = 0x2545_f491_4f6c_dd1d_u64;
    for round in 0..kills() {
        // Xorshift. Some rounds end while the store is still being opened.
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        let lines = if random.is_multiple_of(7) { random % 2 } else { random % 150 };
        for (number, first, last) in killed_after(directory.path(), round, lines) {
            acknowledged.insert((round, number), (first, last));
        }
        check(directory.path(), &acknowledged);
    }
    assert!(acknowledged.len() as u64 > 5 * kills(), "{} appends", acknowledged.len());
}
