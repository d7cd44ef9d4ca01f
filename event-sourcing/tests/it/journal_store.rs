//! The store on disk with its threads, on the disk of this machine.
#![expect(clippy::disallowed_methods, reason = "writers of the tests have threads of their own")]

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use event_sourcing::append::AppendError;
use event_sourcing::clock::{Clock, SystemClock};
use event_sourcing::store::journal::{JournalStore, JournalStoreOptions};
use event_sourcing::testing::conformance::{self, Subject};
use event_sourcing::testing::differential;
use event_sourcing::{
    Append, EventStore, EventType, Expected, NewEvent, Position, Read, Source, StreamName,
};
use futures::FutureExt;
use futures::executor::block_on;
use lattice_journal::{Disk, RealDisk};
use lattice_sim::SimDisk;
use tempfile::TempDir;

fn options(directory: &Path) -> JournalStoreOptions {
    let mut options = JournalStoreOptions::new(directory);
    options.segment_size = 1024;
    options.tail_bytes_max = 2048;
    options.idle = Duration::from_millis(5);
    options
}

fn open(options: &JournalStoreOptions, clock: Arc<dyn Clock>) -> Arc<JournalStore> {
    Arc::new(JournalStore::open_on(Arc::new(RealDisk), clock, options).expect("the store opens"))
}

/// A store on some disk.
struct OnDisk {
    disk: Arc<dyn Disk>,
    options: JournalStoreOptions,
    clock: Arc<dyn Clock>,
    store: Option<Arc<JournalStore>>,
    _directory: Option<TempDir>,
}

impl OnDisk {
    /// On the disk of this machine.
    fn real(clock: Arc<dyn Clock>) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let options = options(directory.path());
        Self { _directory: Some(directory), ..Self::on(Arc::new(RealDisk), options, clock) }
    }

    /// On one in memory, so that it costs no time.
    fn simulated(seed: u64, clock: Arc<dyn Clock>) -> Self {
        Self::on(Arc::new(SimDisk::new(seed)), options(Path::new("store")), clock)
    }

    fn on(disk: Arc<dyn Disk>, options: JournalStoreOptions, clock: Arc<dyn Clock>) -> Self {
        let mut opened = Self { disk, options, clock, store: None, _directory: None };
        opened.open();
        opened
    }

    fn open(&mut self) {
        let (disk, clock) = (Arc::clone(&self.disk), Arc::clone(&self.clock));
        let store = JournalStore::open_on(disk, clock, &self.options).expect("the store opens");
        self.store = Some(Arc::new(store));
    }
}

impl Subject for OnDisk {
    fn store(&self) -> Arc<dyn EventStore> {
        let store = self.store.as_ref().expect("it is open");
        Arc::clone(store) as Arc<dyn EventStore>
    }

    fn reopen(&mut self) {
        self.store.take().expect("it is open").close();
        self.open();
    }

    fn scavenge(&mut self) {
        let store = self.store.as_ref().expect("it is open");
        block_on(store.scavenge(true)).expect("space can be taken back");
    }
}

#[test]
fn the_store_on_the_disk_of_this_machine_does_what_every_store_must() {
    conformance::run(OnDisk::real);
}

#[test]
fn the_store_on_a_simulated_disk_does_what_every_store_must() {
    conformance::run(|clock| OnDisk::simulated(1, clock));
}

#[test]
fn the_store_on_disk_answers_as_the_simplest_one() {
    for seed in 0..24 {
        differential::run(seed, 400, |clock| OnDisk::simulated(seed, clock));
    }
}

fn stream(name: &str) -> StreamName {
    StreamName::new(name).unwrap()
}

fn event(size: usize) -> NewEvent {
    NewEvent::bytes(EventType::new("t").unwrap(), vec![b'x'; size])
}

#[test]
fn many_writers_share_syncs_and_every_answer_is_true_after_a_restart() {
    let directory = tempfile::tempdir().unwrap();
    let mut options = options(directory.path());
    options.segment_size = 1 << 20;
    let store = open(&options, Arc::new(SystemClock));
    let writers: Vec<_> = (0..16)
        .map(|writer| {
            let store = Arc::clone(&store);
            std::thread::spawn(move || {
                let name = format!("s-{writer}");
                (0..100_u64)
                    .map(|_| {
                        let append = Append::to(stream(&name), Expected::Any, [event(100)]);
                        block_on(store.append(append)).unwrap()
                    })
                    .collect::<Vec<_>>()
            })
        })
        .collect();
    let answers: Vec<_> = writers.into_iter().flat_map(|writer| writer.join().unwrap()).collect();
    let stats = store.stats();
    assert_eq!(stats.head, Position(1600));
    assert!(stats.commits < 1600, "{} syncs", stats.commits);
    store.close();
    assert!(matches!(
        block_on(store.append(Append::to(stream("s"), Expected::Any, [event(1)]))),
        Err(AppendError::Failed(_))
    ));
    drop(store);

    let store = open(&options, Arc::new(SystemClock));
    for answer in answers {
        let (name, version) = &answer.streams[0];
        let read = Read::forward(Source::Stream(name.clone()))
            .from(event_sourcing::read::From::Version(*version))
            .count(1);
        let page = block_on(store.read(read)).unwrap();
        assert_eq!(page.events[0].position, answer.first);
    }
    assert!(block_on(store.verify()).unwrap().is_sound());
}

#[test]
fn appends_beyond_the_queue_are_refused_and_nothing_is_lost() {
    let directory = tempfile::tempdir().unwrap();
    let mut options = options(directory.path());
    options.queue_bytes_max = 4096;
    let store = open(&options, Arc::new(SystemClock));
    let appends: Vec<_> = (0..200)
        .map(|_| store.append(Append::to(stream("s"), Expected::Any, [event(1000)])))
        .collect();
    let (mut recorded, mut busy) = (0, 0);
    for append in appends {
        match block_on(append) {
            Ok(_) => recorded += 1,
            Err(AppendError::Busy { .. }) => busy += 1,
            Err(error) => panic!("{error}"),
        }
    }
    assert!(busy > 0 && recorded > 0, "{busy} and {recorded}");
    assert_eq!(store.head(), Position(recorded));
}

#[test]
fn whoever_waits_for_more_events_is_told_of_the_end_too() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(&options(directory.path()), Arc::new(SystemClock));
    let waiting = store.wait_beyond(Position(0));
    block_on(store.append(Append::to(stream("s"), Expected::Any, [event(10)]))).unwrap();
    assert_eq!(block_on(waiting).unwrap(), Position(1));
    let waiting = store.wait_beyond(Position(1));
    store.close();
    assert!(block_on(waiting).is_err());
    assert!(block_on(store.read(Read::forward(Source::All))).is_err());
}

#[test]
fn after_a_failed_sync_every_append_under_way_is_not_known_and_reads_go_on() {
    let disk = SimDisk::new(1);
    let options = options(Path::new("store"));
    let open = || {
        let clock = Arc::new(SystemClock);
        JournalStore::open_on(Arc::new(disk.clone()), clock, &options).expect("the store opens")
    };
    let append = || Append::to(stream("s"), Expected::Any, [event(10)]);
    let store = open();
    block_on(store.append(append())).unwrap();
    disk.fail_sync_at(1);
    let under_way: Vec<_> = (0..8).map(|_| store.append(append())).collect();
    for answer in under_way {
        let answer = block_on(answer);
        assert!(
            matches!(answer, Err(AppendError::Unknown(_) | AppendError::Failed(_))),
            "{answer:?}"
        );
    }
    assert!(matches!(block_on(store.append(append())), Err(AppendError::Failed(_))));
    assert!(block_on(store.wait_beyond(Position(1))).is_err(), "nothing comes any more");
    let page = block_on(store.read(Read::forward(Source::All))).unwrap();
    assert_eq!((page.events.len(), page.head), (1, Position(1)));
    drop(store);
    disk.crash();
    assert!(open().head() >= Position(1), "what was acknowledged is there");
}

#[test]
fn a_closed_store_can_be_opened_again_though_somebody_holds_on_to_it() {
    let directory = tempfile::tempdir().unwrap();
    let options = options(directory.path());
    let old = open(&options, Arc::new(SystemClock));
    for _ in 0..20 {
        block_on(old.append(Append::to(stream("s"), Expected::Any, [event(300)]))).unwrap();
    }
    assert!(JournalStore::open(&options).is_err(), "one owner at a time");
    old.close();
    assert_eq!(open(&options, Arc::new(SystemClock)).head(), Position(20));
    assert_eq!(old.head(), Position(20));
}

#[test]
fn a_store_that_is_open_for_reading_only_refuses_appends_and_is_none_the_worse() {
    let disk = SimDisk::new(1);
    let options = options(Path::new("store"));
    let open = |options: &JournalStoreOptions| {
        JournalStore::open_on(Arc::new(disk.clone()), Arc::new(SystemClock), options)
    };
    let append = || Append::to(stream("s"), Expected::Any, [event(100)]);
    let store = open(&options).expect("the store opens");
    for _ in 0..20 {
        block_on(store.append(append())).unwrap();
    }
    store.close();
    let mut to_read = options.clone();
    to_read.read_only = true;
    let store = open(&to_read).expect("it can be read");
    for _ in 0..2 {
        assert!(matches!(block_on(store.append(append())), Err(AppendError::Failed(_))));
        // Whoever follows the log goes on to wait.
        assert!(store.wait_beyond(Position(20)).now_or_never().is_none());
    }
    assert_eq!(block_on(store.read(Read::forward(Source::All))).unwrap().events.len(), 20);
    assert!(block_on(store.verify()).unwrap().is_sound());
    assert!(open(&options).is_err(), "a reader has it to itself");
    store.close();
    assert_eq!(open(&options).expect("the store opens").head(), Position(20));
}
