//! Read models: effects that happen once, rebuilds, partitions, failures, the worker, time travel.
//!
//! The subject is a sum for each stream. [`Model`] says what the rows must be: a fold over the events, which any test can compute for
//! any position.

use std::collections::BTreeMap;
use std::sync::Arc;

use event_sourcing::clock::{Clock, ManualClock};
use event_sourcing::error::ReadError;
use event_sourcing::machine::Limits;
use event_sourcing::projection::{
    Next, Projection, ProjectionError, ReadModel, Rows, Runner, Sink, Table, View,
};
use event_sourcing::{
    Append, EventStore, EventType, Expected, MemoryStore, NewEvent, Position, Read, Source,
    StreamName, Timestamp,
};
use futures::executor::block_on;

mod crash;
mod failure;
mod partition;
mod questions;
mod rebuild;
mod redb_file;
mod time_travel;
mod worker;

/// The sum of each stream.
const SUMS: Table<str, u64> = Table::new("sums");
/// How many events were added up in all. Every handler touches this row.
const COUNT: Table<(), u64> = Table::new("count");

fn sums(version: &str) -> Projection {
    Projection::new("sums", version.to_owned()).on("added", |tx, event| {
        let (stream, amount) = (event.stream.as_str(), number(&event.event)?);
        let sum = tx.get(&SUMS, stream)?.unwrap_or(0);
        tx.put(&SUMS, stream, &(sum + amount))?;
        let count = tx.get(&COUNT, &())?.unwrap_or(0);
        Ok(tx.put(&COUNT, &(), &(count + 1))?)
    })
}

fn number(event: &NewEvent) -> Result<u64, std::num::ParseIntError> {
    String::from_utf8_lossy(&event.data).parse()
}

fn event(kind: &str, amount: u64) -> NewEvent {
    NewEvent::json(EventType::new(kind).unwrap(), amount.to_string())
}

fn stream(name: &str) -> StreamName {
    StreamName::new(name).unwrap()
}

/// A store whose clock stands at one second after the epoch.
fn store() -> (Arc<MemoryStore>, Arc<ManualClock>) {
    let clock = Arc::new(ManualClock::at(Timestamp(1000)));
    let time: Arc<dyn Clock> = clock.clone();
    (Arc::new(MemoryStore::new(time, Limits::default())), clock)
}

/// Appends events, each to its stream, together.
fn append(store: &dyn EventStore, events: &[(&str, &str, u64)]) -> Position {
    let mut append = Append::default();
    for (name, kind, amount) in events {
        append = append.and_to(stream(name), Expected::Any, [event(kind, *amount)]);
    }
    block_on(store.append(append)).unwrap().last
}

/// Adds so many numbers to some streams, one append each.
fn fill(store: &dyn EventStore, count: u64) {
    for number in 0..count {
        append(store, &[(&format!("s-{}", number % 5), "added", number)]);
    }
}

/// One thing after the other until there is nothing more to do.
fn run(
    runner: &mut Runner,
    store: &dyn EventStore,
    clock: &dyn Clock,
) -> Result<(), ProjectionError> {
    while step(runner, store, clock)? {}
    Ok(())
}

/// Does one thing; whether there was one.
fn step(
    runner: &mut Runner,
    store: &dyn EventStore,
    clock: &dyn Clock,
) -> Result<bool, ProjectionError> {
    match runner.next(clock.now()) {
        Next::Read(read) => match block_on(store.read(*read)) {
            Ok(page) => runner.take(page, clock.now()),
            Err(ReadError::NoStream { .. }) => runner.take_nothing(store.head(), clock.now()),
            Err(error) => return Err(error.into()),
        },
        Next::Work => drop(runner.work(clock)?),
        Next::WaitBeyond(position) if store.head() > position => runner.wake(store.head()),
        Next::WaitBeyond(_) | Next::WaitUntil(_) => return Ok(false),
    }
    Ok(true)
}

/// The rows as a fold over the events up to a position has them.
#[derive(Debug, Default, PartialEq, Eq)]
struct Model {
    sums: BTreeMap<String, u64>,
    count: u64,
}

impl Model {
    fn at(store: &dyn EventStore, position: Position) -> Self {
        let mut model = Self::default();
        let read = Read::forward(Source::All).count(usize::MAX >> 1);
        let page = block_on(store.read(read)).unwrap();
        assert!(page.next.is_none(), "one page holds the whole log of a test");
        for recorded in page.events.iter().filter(|event| event.position <= position) {
            if recorded.event.event_type.as_str() == "added" {
                let sum = model.sums.entry(recorded.stream.as_str().to_owned()).or_default();
                *sum += number(&recorded.event).unwrap();
                model.count += 1;
            }
        }
        model
    }

    fn of(view: &View) -> Self {
        let sums = view.scan(&SUMS, usize::MAX >> 1).unwrap().into_iter().collect();
        Self { sums, count: view.get(&COUNT, &()).unwrap().unwrap_or(0) }
    }
}

fn view(sink: &Arc<dyn Sink>) -> View {
    ReadModel::new(Arc::clone(sink), "sums").view().unwrap()
}

/// The rows are those of the fold up to where they say they are.
fn assert_rows(sink: &Arc<dyn Sink>, store: &dyn EventStore) -> Position {
    let view = view(sink);
    assert_eq!(Model::of(&view), Model::at(store, view.position()), "at {}", view.position());
    view.position()
}
