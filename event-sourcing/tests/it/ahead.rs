//! Queries that take long are looked at ahead of their append's turn, by those who read, and hold up no other append.

use std::io;
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex};

use event_sourcing::clock::SystemClock;
use event_sourcing::condition::{Query, QueryItem};
use event_sourcing::store::journal::{JournalStore, JournalStoreOptions};
use event_sourcing::{
    Append, AppendError, EventStore, EventType, Expected, Label, NewEvent, Position, StreamName,
};
use futures::FutureExt;
use futures::executor::block_on;
use lattice_journal::{Disk, DiskFile, DiskLock, MemoryDisk, OpenMode};

/// Holds the reading threads at their next call of the disk while it is closed.
#[derive(Debug, Default)]
struct Gate {
    is_closed: Mutex<bool>,
    changed: Condvar,
}

impl Gate {
    fn set(&self, is_closed: bool) {
        *self.is_closed.lock().unwrap() = is_closed;
        self.changed.notify_all();
    }

    fn pass(&self) {
        let reads = |name: &str| name.starts_with("events-read");
        if std::thread::current().name().is_some_and(reads) {
            let closed = self.is_closed.lock().unwrap();
            drop(self.changed.wait_while(closed, |is_closed| *is_closed).unwrap());
        }
    }
}

#[derive(Clone, Debug)]
struct GatedDisk(MemoryDisk, Arc<Gate>);

#[derive(Debug)]
struct GatedFile(Box<dyn DiskFile>, Arc<Gate>);

impl Disk for GatedDisk {
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Box<dyn DiskFile>> {
        let file = self.0.open(path, mode)?;
        Ok(Box::new(GatedFile(file, Arc::clone(&self.1))))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.0.rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.0.remove(path)
    }

    fn list(&self, directory: &Path) -> io::Result<Vec<String>> {
        self.0.list(directory)
    }

    fn create_dir(&self, directory: &Path) -> io::Result<()> {
        self.0.create_dir(directory)
    }

    fn sync_dir(&self, directory: &Path) -> io::Result<()> {
        self.0.sync_dir(directory)
    }

    fn lock(&self, path: &Path) -> io::Result<Box<dyn DiskLock>> {
        self.0.lock(path)
    }
}

impl DiskFile for GatedFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        self.1.pass();
        self.0.read_at(buffer, offset)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.0.write_at(bytes, offset)
    }

    fn allocate(&self, length: u64) -> io::Result<()> {
        self.0.allocate(length)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.0.sync_data()
    }

    fn length(&self) -> io::Result<u64> {
        self.0.length()
    }
}

const RECORDED: u64 = 600;

fn to(stream: &str, labels: &[&str]) -> Append {
    let mut event = NewEvent::json(EventType::new("t").unwrap(), "{}");
    event.labels = labels.iter().map(|label| Label::new(label).unwrap()).collect();
    Append::to(StreamName::new(stream).unwrap(), Expected::Any, [event])
}

/// Events with both labels.
fn both() -> Query {
    Query::item(QueryItem::labels(["left", "right"].map(|label| Label::new(label).unwrap())))
}

/// A store of complete segments, in which each event has one of two labels.
fn store() -> (JournalStore, Arc<Gate>) {
    let gate = Arc::new(Gate::default());
    let disk = Arc::new(GatedDisk(MemoryDisk::new(), Arc::clone(&gate)));
    let mut options = JournalStoreOptions::new("store");
    options.segment_size = 8192;
    options.tail_bytes_max = 0;
    options.reader_threads = 1;
    options.scavenge_every = None;
    let open = || JournalStore::open_on(disk.clone(), Arc::new(SystemClock), &options).unwrap();
    let store = open();
    let label = |number: u64| if number.is_multiple_of(2) { "left" } else { "right" };
    let appends: Vec<_> =
        (0..RECORDED).map(|number| store.append(to("old", &[label(number)]))).collect();
    appends.into_iter().for_each(|append| drop(block_on(append).unwrap()));
    store.close();
    drop(store);
    // Whatever has become complete has its index in a file from here on.
    (open(), gate)
}

#[test]
fn a_query_that_takes_long_holds_up_no_other_append() {
    let (store, gate) = store();
    gate.set(true);
    let long = to("new", &[]).fail_if_matches(both(), Position::BEGINNING);
    let mut long = store.append(long);
    assert!((&mut long).now_or_never().is_none());
    for number in 1..=3 {
        let committed = block_on(store.append(to("other", &["left"]))).unwrap();
        assert_eq!(committed.first, Position(RECORDED + number));
    }
    assert!((&mut long).now_or_never().is_none());
    gate.set(false);
    assert_eq!(block_on(long).unwrap().first, Position(RECORDED + 4));
}

#[test]
fn what_comes_while_a_query_is_looked_at_stands_against_it() {
    let (store, gate) = store();
    gate.set(true);
    let mut long = store.append(to("new", &[]).fail_if_matches(both(), Position::BEGINNING));
    assert!((&mut long).now_or_never().is_none());
    let winner = block_on(store.append(to("other", &["right", "left"]))).unwrap();
    gate.set(false);
    match block_on(long) {
        Err(AppendError::Conflict(conflict)) => {
            assert_eq!(conflict.winners.len(), 1);
            assert_eq!(conflict.winners[0].position, winner.first);
            assert!(conflict.complete);
        }
        answer => panic!("{answer:?}"),
    }
    // And then it is refused for that event by itself, however far back it lies.
    for number in 0..RECORDED {
        drop(block_on(
            store.append(to("other", &[["left", "right"][usize::from(number % 2 == 0)]])),
        ));
    }
    let again = to("new", &[]).fail_if_matches(both(), Position::BEGINNING);
    let refused = block_on(store.append(again));
    assert!(matches!(refused, Err(AppendError::Conflict(_))), "{refused:?}");
    // But one that goes on from there is not.
    let after = to("new", &[]).fail_if_matches(both(), winner.first);
    block_on(store.append(after)).unwrap();
}

#[test]
fn an_append_whose_query_is_still_looked_at_when_the_store_closes_is_refused_for_certain() {
    let (store, gate) = store();
    gate.set(true);
    let long = || store.append(to("new", &[]).fail_if_matches(both(), Position::BEGINNING));
    let (first, second) = (long(), long());
    let head = store.head();
    std::thread::scope(|scope| {
        scope.spawn(|| store.close());
        // The second one waits behind the first, which the gate holds.
        assert!(matches!(block_on(second), Err(AppendError::Failed(_))));
        gate.set(false);
        assert!(matches!(block_on(first), Err(AppendError::Failed(_))));
    });
    assert_eq!(store.head(), head);
}
