//! The sink in a file, on a disk that loses what was not synced.

#![expect(clippy::disallowed_methods, reason = "tests look at the files themselves")]

use std::io;
use std::sync::Mutex;

use event_sourcing::projection::{Batch, RedbSink, SinkError};
use redb::StorageBackend;

use super::*;

/// A disk whose power fails at a chosen call. Of what was written since the last sync, a part that the seed chooses is there
/// afterwards.
#[derive(Clone, Debug)]
struct Disk(Arc<Mutex<DiskState>>);

#[derive(Debug, Default)]
struct DiskState {
    synced: Vec<u8>,
    seen: Vec<u8>,
    unsynced: Vec<Change>,
    calls_left: usize,
}

#[derive(Debug)]
enum Change {
    Write(usize, Vec<u8>),
    Length(usize),
}

impl DiskState {
    fn call(&mut self) -> io::Result<()> {
        let left = self.calls_left.checked_sub(1);
        self.calls_left = left.ok_or_else(|| io::Error::other("the power has failed"))?;
        Ok(())
    }
}

fn apply(bytes: &mut Vec<u8>, change: &Change) {
    match change {
        Change::Write(at, data) => {
            bytes.resize(bytes.len().max(at + data.len()), 0);
            bytes[*at..at + data.len()].copy_from_slice(data);
        }
        Change::Length(length) => bytes.resize(*length, 0),
    }
}

impl Disk {
    /// A disk with a sink on it, whose power fails after so many calls. Before the sink is there, its file does not have its name:
    /// see [`RedbSink::open`].
    fn new(calls_left: usize) -> Self {
        let state = DiskState { calls_left: usize::MAX, ..DiskState::default() };
        let disk = Self(Arc::new(Mutex::new(state)));
        drop(RedbSink::on(disk.clone()).unwrap());
        disk.0.lock().unwrap().calls_left = calls_left;
        disk
    }

    /// The disk as it is found when the power is back.
    fn after_power_failure(&self, seed: u64) -> Self {
        let state = self.0.lock().unwrap();
        let mut bytes = state.synced.clone();
        for (index, change) in state.unsynced.iter().enumerate() {
            match (seed.rotate_left(u32::try_from(index % 64).unwrap()) % 4, change) {
                (0, Change::Write(at, data)) => {
                    apply(&mut bytes, &Change::Write(*at, data[..data.len() / 2].to_vec()));
                }
                (1, _) | (0, Change::Length(_)) => {}
                _ => apply(&mut bytes, change),
            }
        }
        let seen = bytes.clone();
        let unsynced = Vec::new();
        Self(Arc::new(Mutex::new(DiskState {
            synced: bytes,
            seen,
            unsynced,
            calls_left: usize::MAX,
        })))
    }
}

impl StorageBackend for Disk {
    fn len(&self) -> io::Result<u64> {
        Ok(self.0.lock().unwrap().seen.len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let (state, at) = (self.0.lock().unwrap(), usize::try_from(offset).unwrap());
        let bytes = state.seen.get(at..at + out.len());
        out.copy_from_slice(bytes.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn set_len(&self, length: u64) -> io::Result<()> {
        self.change(Change::Length(usize::try_from(length).unwrap()))
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut state = self.0.lock().unwrap();
        state.call()?;
        state.synced = state.seen.clone();
        state.unsynced.clear();
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.change(Change::Write(usize::try_from(offset).unwrap(), data.to_vec()))
    }
}

impl Disk {
    fn change(&self, change: Change) -> io::Result<()> {
        let mut state = self.0.lock().unwrap();
        state.call()?;
        apply(&mut state.seen, &change);
        state.unsynced.push(change);
        Ok(())
    }
}

/// Opens what is on the disk and runs a version of the projection until it has caught up, or the power fails.
fn attempt(disk: &Disk, version: &str, store: &dyn EventStore) -> Result<(), ProjectionError> {
    let sink: Arc<dyn Sink> = Arc::new(RedbSink::on(disk.clone())?);
    let batch = Batch { count_max: 4, ..Batch::default() };
    let mut runner = Runner::open(sink, sums(version).batch(batch))?;
    run(&mut runner, store, &ManualClock::default())
}

#[test]
fn effects_happen_once_on_a_disk_whose_power_fails_at_any_call() {
    let (store, _) = store();
    fill(&*store, 12);
    let whole = Disk::new(usize::MAX);
    attempt(&whole, "1", &*store).unwrap();
    attempt(&whole, "2", &*store).unwrap();
    let calls = usize::MAX - whole.0.lock().unwrap().calls_left;
    assert!(calls > 50, "the disk was called {calls} times");
    for at in 0..calls {
        let seed = 0x9e37_79b9_7f4a_7c15_u64.wrapping_mul(at as u64 + 1);
        let disk = Disk::new(at);
        // The second version is built beside the first one, as far as the power lasts.
        let _ = attempt(&disk, "1", &*store).and_then(|()| attempt(&disk, "2", &*store));
        let disk = disk.after_power_failure(seed);
        {
            let sink: Arc<dyn Sink> = Arc::new(RedbSink::on(disk.clone()).unwrap());
            assert_rows(&sink, &*store);
        }
        attempt(&disk, "2", &*store).unwrap();
        let sink: Arc<dyn Sink> = Arc::new(RedbSink::on(disk).unwrap());
        assert_eq!(assert_rows(&sink, &*store), store.head(), "power failure at call {at}");
    }
}

#[test]
fn what_is_left_of_a_file_that_was_never_finished_is_in_nobodys_way() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("read-models.redb");
    std::fs::write(dir.path().join("read-models.redb.new"), [0; 5000]).unwrap();
    drop(RedbSink::open(&path).unwrap());
    drop(RedbSink::open(&path).unwrap());
    let files = std::fs::read_dir(dir.path()).unwrap().map(|file| file.unwrap().file_name());
    assert_eq!(files.collect::<Vec<_>>(), ["read-models.redb"]);
}

#[test]
fn a_file_keeps_several_projections_and_is_opened_once() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("read-models.redb");
    let (store, clock) = store();
    fill(&*store, 30);
    {
        let sink: Arc<dyn Sink> = Arc::new(RedbSink::open(&path).unwrap());
        let other = RedbSink::open(&path);
        assert!(matches!(other, Err(SinkError::Failed(_))), "{other:?}");
        for name in ["sums", "others"] {
            let projection = Projection::new(name, "1")
                .on("added", |tx, event| Ok(tx.put(&SUMS, event.stream.as_str(), &1)?));
            let mut runner = Runner::open(Arc::clone(&sink), projection).unwrap();
            run(&mut runner, &*store, &*clock).unwrap();
        }
    }
    let sink: Arc<dyn Sink> = Arc::new(RedbSink::open(&path).unwrap());
    for name in ["sums", "others"] {
        let view = ReadModel::new(Arc::clone(&sink), name).view().unwrap();
        assert_eq!(view.scan(&SUMS, 100).unwrap().len(), 5);
        assert_eq!(view.position(), store.head());
    }
}
