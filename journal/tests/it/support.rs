//! A model of the log, and short ways to say things.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use lattice_journal::{
    Batch, Disk, Journal, JournalOptions, MemoryDisk, OpenError, Reader, Recovery,
};

pub(crate) const ID: u128 = 0x0123_4567_89ab_cdef_0011_2233_4455_6677;

/// Segments of `size` bytes that do not grow.
pub(crate) fn options(size: u64) -> JournalOptions {
    let mut options = JournalOptions::new(ID);
    options.segment_size = size;
    options.segment_size_max = size;
    options
}

pub(crate) fn open(
    disk: &(impl Disk + Clone),
    size: u64,
) -> Result<(Journal, Recovery), OpenError> {
    Journal::open(Arc::new(disk.clone()), "log", options(size))
}

/// As [`open`], with seals.
pub(crate) fn open_trusting(
    disk: &(impl Disk + Clone),
    size: u64,
) -> Result<(Journal, Recovery), OpenError> {
    let mut options = options(size);
    options.trust_seals = true;
    Journal::open(Arc::new(disk.clone()), "log", options)
}

pub(crate) fn seal_path(number: u64) -> PathBuf {
    PathBuf::from(format!("log/{number:020}.seal"))
}

/// The segments that have a seal on a disk.
pub(crate) fn seals(disk: &impl Disk) -> Vec<u64> {
    let names = disk.list("log".as_ref()).unwrap();
    names.iter().filter_map(|name| name.strip_suffix(".seal")?.parse().ok()).collect()
}

pub(crate) fn segment_path(number: u64) -> PathBuf {
    PathBuf::from(format!("log/{number:020}.seg"))
}

pub(crate) fn segment_paths(disk: &MemoryDisk) -> Vec<PathBuf> {
    let names = disk.list("log".as_ref()).unwrap();
    names
        .iter()
        .filter(|name| name.ends_with(".seg"))
        .map(|n| PathBuf::from("log").join(n))
        .collect()
}

pub(crate) fn items(first: u64, items: &[&str]) -> Batch {
    let items = items.iter().map(|item| item.as_bytes().to_vec()).collect();
    Batch { first, items, ..Batch::default() }
}

/// `items` that replace those at `first` and after.
pub(crate) fn replacing(first: u64, texts: &[&str]) -> Batch {
    Batch { truncate_from: Some(first), ..items(first, texts) }
}

pub(crate) fn with_state(batch: Batch, state: &str) -> Batch {
    Batch { state: Some(state.as_bytes().to_vec()), ..batch }
}

/// What a log should hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Model {
    pub(crate) items: BTreeMap<u64, Vec<u8>>,
    pub(crate) next: u64,
    pub(crate) state: Option<Vec<u8>>,
}

impl Model {
    pub(crate) fn new() -> Self {
        Self { next: 1, ..Self::default() }
    }

    pub(crate) fn apply(&mut self, batch: &Batch) {
        if let Some(from) = batch.truncate_from {
            self.items.split_off(&from);
            self.next = from;
        }
        if let Some(at) = batch.restart_at {
            self.items.clear();
            self.next = at;
        }
        for item in &batch.items {
            self.items.insert(self.next, item.clone());
            self.next += 1;
        }
        if batch.state.is_some() {
            self.state.clone_from(&batch.state);
        }
    }

    pub(crate) fn after(&self, batch: &Batch) -> Self {
        let mut next = self.clone();
        next.apply(batch);
        next
    }
}

/// Every item that a reader can read, read one at a time.
pub(crate) fn read_all(reader: &Reader) -> BTreeMap<u64, Vec<u8>> {
    let one = |position: u64| reader.read(position..position + 1, 0).ok()?.pop();
    reader.positions().filter_map(one).map(|item| (item.position, item.bytes)).collect()
}

/// The log as a freshly opened journal shows it.
pub(crate) fn shown(journal: &Journal) -> Model {
    Model {
        items: read_all(&journal.reader()),
        next: journal.positions().end,
        state: journal.state().map(<[u8]>::to_vec),
    }
}
