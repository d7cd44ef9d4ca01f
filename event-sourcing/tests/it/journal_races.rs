//! Two things at once on one directory, in an order that the test decides: the second one is done while the first is at a file.

use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex};

use event_sourcing::retention::Retention;
use event_sourcing::store::journal::{EventLog, JournalStoreOptions, OpenError};
use event_sourcing::{Append, EventType, Expected, NewEvent, Position, StreamName, Timestamp};
use lattice_journal::{Disk, DiskFile, DiskLock, OpenMode};
use lattice_sim::SimDisk;

type Deed = Box<dyn FnOnce() + Send>;

/// A disk on which something else is done right before a file is opened whose name ends in this way.
#[derive(Clone)]
struct Meanwhile {
    disk: SimDisk,
    at: &'static str,
    deed: Arc<Mutex<Option<Deed>>>,
}

impl std::fmt::Debug for Meanwhile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Meanwhile").field("at", &self.at).finish_non_exhaustive()
    }
}

impl Meanwhile {
    fn new(disk: &SimDisk, at: &'static str) -> Self {
        Self { disk: disk.clone(), at, deed: Arc::default() }
    }

    fn set(&self, deed: impl FnOnce() + Send + 'static) {
        *self.deed.lock().unwrap() = Some(Box::new(deed));
    }

    fn is_done(&self) -> bool {
        self.deed.lock().unwrap().is_none()
    }
}

impl Disk for Meanwhile {
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Box<dyn DiskFile>> {
        if path.to_string_lossy().ends_with(self.at) {
            let deed = self.deed.lock().unwrap().take();
            if let Some(deed) = deed {
                deed();
            }
        }
        self.disk.open(path, mode)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.disk.rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.disk.remove(path)
    }

    fn list(&self, directory: &Path) -> io::Result<Vec<String>> {
        self.disk.list(directory)
    }

    fn create_dir(&self, directory: &Path) -> io::Result<()> {
        self.disk.create_dir(directory)
    }

    fn sync_dir(&self, directory: &Path) -> io::Result<()> {
        self.disk.sync_dir(directory)
    }

    fn lock(&self, path: &Path) -> io::Result<Box<dyn DiskLock>> {
        self.disk.lock(path)
    }
}

fn options(id: u128) -> JournalStoreOptions {
    let mut options = JournalStoreOptions::new("store");
    options.id = id;
    options.segment_size = 2048;
    options
}

fn put(log: &mut EventLog, stream: &str, event: NewEvent) {
    let stream = StreamName::new(stream).unwrap();
    log.stage(Append::to(stream, Expected::Any, [event]), Timestamp(0)).unwrap();
    log.commit().unwrap();
}

fn event() -> NewEvent {
    NewEvent::bytes(EventType::new("t").unwrap(), vec![b'x'; 100])
}

#[test]
fn of_two_first_openings_one_settles_who_the_store_is() {
    let disk = SimDisk::new(1);
    let first = Meanwhile::new(&disk, "store/store");
    let second = Meanwhile::new(&disk, "never");
    let refused = Arc::new(Mutex::new(None));
    first.set({
        let refused = Arc::clone(&refused);
        move || {
            let opened = EventLog::open(Arc::new(second), &options(2));
            *refused.lock().unwrap() = opened.map(EventLog::close).err();
        }
    });
    let mut log = EventLog::open(Arc::new(first.clone()), &options(1)).unwrap();
    assert!(first.is_done());
    let refused = refused.lock().unwrap().take().expect("the second one was refused");
    assert!(matches!(refused, OpenError::Journal(_)) && refused.to_string().contains("in use"));
    put(&mut log, "s", event());
    log.close().unwrap();
    let log = EventLog::open(Arc::new(disk), &options(3)).unwrap();
    assert_eq!(log.reader().head(), Position(1));
}

/// A log whose first segment is complete and has hidden events, with what is to be written of it.
fn log_to_scavenge(disk: &Meanwhile) -> EventLog {
    let mut log = EventLog::open(Arc::new(disk.clone()), &options(1)).unwrap();
    let retention = Retention { max_count: Some(1), ..Retention::default() };
    put(&mut log, "$$s", retention.to_event(serde_json::Map::new()));
    while !log.take_rotated() {
        put(&mut log, "s", event());
    }
    log
}

/// Rewrites the first segment and loads its index again.
fn scavenge(log: &mut EventLog) {
    let scavenged = log.scavenger(1, true).unwrap().run().unwrap().expect("something is hidden");
    log.install(scavenged).unwrap().run().unwrap();
}

/// The log is whole, and its index files are those of its segments as they are.
fn assert_every_file_fits(disk: &SimDisk, mut log: EventLog) {
    for task in log.upkeep() {
        task.run().unwrap();
    }
    let types = log.reader().types().unwrap();
    let found = log.verify().unwrap();
    assert!(found.is_sound() && found.scavenged > 0, "{found:?}");
    assert_eq!(types.iter().map(|kind| kind.count).sum::<u64>(), found.events - found.scavenged);
    log.close().unwrap();
    let mut to_read = options(1);
    to_read.read_only = true;
    let log = EventLog::open(Arc::new(disk.clone()), &to_read).unwrap();
    let found = log.verify().unwrap();
    assert!(found.is_sound() && found.unfit_index_files == 0, "{found:?}");
    assert!(log.reader().index_memory().files > 0);
}

#[test]
fn an_index_file_that_was_asked_for_before_a_rewriting_is_not_written_after_it() {
    let disk = SimDisk::new(1);
    let mut log = log_to_scavenge(&Meanwhile::new(&disk, "never"));
    let before = log.upkeep();
    scavenge(&mut log);
    for task in before {
        task.run().unwrap();
    }
    assert_every_file_fits(&disk, log);
}

#[test]
fn an_index_that_is_loaded_again_while_its_file_is_written_is_not_replaced_by_it() {
    let disk = SimDisk::new(1);
    let meanwhile = Meanwhile::new(&disk, ".idx.tmp");
    let mut log = log_to_scavenge(&meanwhile);
    let before = log.upkeep();
    let scavenged = log.scavenger(1, true).unwrap().run().unwrap().unwrap();
    let reload = log.install(scavenged).unwrap();
    meanwhile.set(move || reload.run().unwrap());
    for task in before {
        task.run().unwrap();
    }
    assert!(meanwhile.is_done());
    assert_every_file_fits(&disk, log);
}
