//! What is made of reading and writing stands even when others write in between.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use event_sourcing::append::{Append, AppendError, Committed};
use event_sourcing::condition::Expected;
use event_sourcing::error::InvalidAppend;
use event_sourcing::retention::Retention;
use event_sourcing::store::{CHANGE_ATTEMPTS, Pending, TypeCount};
use event_sourcing::{
    EventStore, EventStoreExt, EventType, MemoryStore, NewEvent, Page, Position, Read, ReadError,
    Source, StreamInfo, StreamName, Version,
};
use futures::executor::block_on;
use futures::{FutureExt, StreamExt, TryStreamExt};

fn stream(name: &str) -> StreamName {
    StreamName::new(name).unwrap()
}

fn one(name: &str) -> Append {
    let event = NewEvent::json(EventType::new("t").unwrap(), "{}");
    Append::to(stream(name), Expected::Any, [event])
}

fn say(name: &str, json: &'static str) -> Append {
    let event = NewEvent::json(EventType::new("$metadata").unwrap(), json);
    Append::to(stream(&format!("$${name}")), Expected::Any, [event])
}

/// A store to which others append just before each append through it.
#[derive(Debug, Default)]
struct Busy {
    store: MemoryStore,
    others: Mutex<VecDeque<Append>>,
}

impl Busy {
    fn with(own: usize, others: impl IntoIterator<Item = Append>) -> Self {
        let busy = Self::default();
        for _ in 0..own {
            block_on(busy.store.append(one("a"))).unwrap();
        }
        busy.others.lock().unwrap().extend(others);
        busy
    }

    fn versions(&self) -> Result<Vec<u64>, ReadError> {
        let events = block_on(self.store.read_stream(stream("a")))?;
        Ok(events.iter().map(|event| event.version.0).collect())
    }
}

impl EventStore for Busy {
    fn append(&self, append: Append) -> Pending<Result<Committed, AppendError>> {
        if let Some(other) = self.others.lock().unwrap().pop_front() {
            self.store.append(other).now_or_never().unwrap().unwrap();
        }
        self.store.append(append)
    }

    fn read(&self, read: Read) -> Pending<Result<Page, ReadError>> {
        self.store.read(read)
    }

    fn stream(&self, stream: StreamName) -> Pending<Result<Option<StreamInfo>, ReadError>> {
        self.store.stream(stream)
    }

    fn types(&self) -> Pending<Result<Vec<TypeCount>, ReadError>> {
        self.store.types()
    }

    fn head(&self) -> Position {
        self.store.head()
    }

    fn wait_beyond(&self, position: Position) -> Pending<Result<Position, ReadError>> {
        self.store.wait_beyond(position)
    }
}

#[test]
fn a_deletion_is_of_all_that_is_there_when_it_takes_effect() {
    let busy = Busy::with(2, [one("a"), one("a"), one("a")]);
    let deleted = block_on(busy.delete(stream("a"), Expected::Any)).unwrap();
    assert!(deleted.is_some());
    assert!(matches!(busy.versions(), Err(ReadError::NoStream { .. })));
    let info = block_on(busy.stream(stream("a"))).unwrap().unwrap();
    assert_eq!((info.first, info.last), (Version(5), Version(4)));
}

#[test]
fn a_deletion_of_what_was_seen_is_not_tried_again() {
    let busy = Busy::with(2, [one("a")]);
    let answer = block_on(busy.delete(stream("a"), Expected::Exact(Version(1))));
    let Err(AppendError::Conflict(conflict)) = answer else { panic!("{answer:?}") };
    assert_eq!(conflict.winners.len(), 1);
    assert_eq!(busy.versions().unwrap(), [0, 1, 2]);
}

#[test]
fn whoever_never_gets_through_is_told_so() {
    let busy = Busy::with(1, (0..CHANGE_ATTEMPTS).map(|_| one("a")));
    let answer = block_on(busy.delete(stream("a"), Expected::Any));
    assert!(matches!(answer, Err(AppendError::Conflict(_))), "{answer:?}");
    assert!(busy.others.lock().unwrap().is_empty(), "it was tried that often");
}

#[test]
fn what_others_decide_meanwhile_is_kept() {
    let busy = Busy::with(9, [say("a", r#"{"$maxCount":7,"theirs":1}"#)]);
    block_on(busy.truncate_before(stream("a"), Version(1))).unwrap();
    let retention = block_on(busy.retention(stream("a"))).unwrap();
    assert_eq!(retention.max_count, Some(7));
    assert_eq!(retention.truncate_before, Some(Version(1)));
    // More is hidden by the time that the wish to hide less arrives: it is lifted to what is there.
    busy.others.lock().unwrap().extend([one("a"), one("a"), one("a")]);
    block_on(busy.set_retention(stream("a"), Retention::default())).unwrap();
    assert_eq!(busy.versions().unwrap().last(), Some(&11));
    let first = block_on(busy.stream(stream("a"))).unwrap().unwrap().first;
    assert!(first >= Version(5), "what was hidden stays hidden: {first}");
}

#[test]
fn what_is_made_of_streams_that_describe_is_refused() {
    let store = MemoryStore::default();
    let answer = block_on(store.tombstone(stream("$$a"), Expected::Any));
    assert!(matches!(answer, Err(AppendError::Invalid(InvalidAppend::Reserved(_)))));
    let answer = block_on(store.truncate_before(stream("$$a"), Version(1)));
    assert!(matches!(answer, Err(AppendError::Invalid(InvalidAppend::Reserved(_)))));
}

#[test]
fn a_read_of_many_pages_ends_where_the_log_ended_when_it_began() {
    let store = Arc::new(MemoryStore::default());
    for _ in 0..10 {
        block_on(store.append(one("a"))).unwrap();
    }
    let forward = Read::forward(Source::All).count(3);
    let backward = Read::backward(Source::All).count(3);
    for (read, expected) in [(forward, (1..=10).collect()), (backward, (1..=11).rev().collect())] {
        let expected: Vec<u64> = expected;
        let mut events = std::pin::pin!(store.events(read));
        let first = block_on(events.next()).unwrap().unwrap();
        block_on(store.append(one("a"))).unwrap();
        let rest: Vec<_> = block_on(events.try_collect()).unwrap();
        let seen = std::iter::once(&first).chain(&rest).map(|event| event.position.0);
        assert_eq!(seen.collect::<Vec<_>>(), expected);
    }
}
