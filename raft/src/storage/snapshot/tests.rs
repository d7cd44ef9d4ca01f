use std::ops::Range;

use lattice_journal::MemoryDisk;
use lattice_sim::SimDisk;

use super::*;
use crate::state_machine::Part;
use crate::types::{NodeId, StoreId};

const DIRECTORY: &str = "/data/group-0/snapshots";

fn id(index: u64) -> EntryId {
    EntryId::new(Term(3), LogIndex(index))
}

fn members() -> Membership {
    let mut members = Membership::founding([NodeId(1), NodeId(2)]);
    members.bind(NodeId(2), StoreId(77));
    members
}

fn parts(seed: u8) -> Vec<Part> {
    let part = |name: &str, data: Vec<u8>| Part { name: name.to_owned(), data: data.into() };
    let keys = (0..40).map(|byte| byte ^ seed).collect();
    vec![part("keys", keys), part("empty", Vec::new()), part("leases", vec![seed; 7])]
}

fn open(disk: &(impl Disk + Clone), latest: Option<&SnapshotMeta>) -> SnapshotStore {
    SnapshotStore::open(Arc::new(disk.clone()), Path::new(DIRECTORY), latest).unwrap()
}

fn write(store: &SnapshotStore, index: u64, seed: u8) -> Result<SnapshotMeta, SnapshotError> {
    let mut writer = store.begin(id(index), &members())?;
    for part in parts(seed) {
        writer.part(&part)?;
    }
    writer.finish()
}

fn parts_of(store: &SnapshotStore, meta: &SnapshotMeta) -> Result<Vec<Part>, SnapshotError> {
    let mut reader = store.open_parts(meta)?;
    let mut found = Vec::new();
    while let Some(part) = reader.next_part()? {
        found.push(part);
    }
    Ok(found)
}

fn path(meta: &SnapshotMeta) -> PathBuf {
    Path::new(DIRECTORY).join(file_name(meta))
}

/// A store with one snapshot, and the file's bytes.
fn written() -> (MemoryDisk, SnapshotStore, SnapshotMeta, Vec<u8>) {
    let disk = MemoryDisk::new();
    let store = open(&disk, None);
    let meta = write(&store, 9, 1).unwrap();
    let bytes = disk.content(path(&meta)).unwrap();
    (disk, store, meta, bytes)
}

/// Sends the bytes `range` as one piece.
fn send(
    store: &SnapshotStore,
    meta: &SnapshotMeta,
    bytes: &[u8],
    range: Range<usize>,
) -> Result<Received, SnapshotError> {
    store.receive(meta, u64::try_from(range.start).unwrap(), &bytes[range])
}

#[test]
fn what_was_written_is_read() {
    let (disk, store, meta, bytes) = written();
    assert_eq!(meta.size, u64::try_from(bytes.len()).unwrap());
    assert_eq!(meta.checksum, crc32c::crc32c(&bytes));
    assert_eq!(meta.last, id(9));
    assert_eq!(parts_of(&store, &meta).unwrap(), parts(1));
    assert_eq!(parts_of(&open(&disk, Some(&meta)), &meta).unwrap(), parts(1), "reopened");
    assert_eq!(store.read(&meta, 5, 10).unwrap(), bytes[5..15]);
    assert_eq!(store.read(&meta, meta.size - 3, 10).unwrap(), bytes[bytes.len() - 3..]);
    assert!(store.read(&meta, meta.size, 10).unwrap().is_empty());
    assert!(store.read(&meta, u64::MAX, 10).unwrap().is_empty());
}

#[test]
fn large_parts_pass_the_buffer() {
    let disk = MemoryDisk::new();
    let store = open(&disk, None);
    let mut writer = store.begin(id(1), &members()).unwrap();
    let part = |name: u8, length| Part { name: name.to_string(), data: vec![name; length].into() };
    let all: Vec<Part> = [3 << 20, 10, 700_000, 700_000, 1 << 20]
        .into_iter()
        .zip(0..)
        .map(|(l, n)| part(n, l))
        .collect();
    all.iter().for_each(|part| writer.part(part).unwrap());
    let meta = writer.finish().unwrap();
    assert_eq!(parts_of(&store, &meta).unwrap(), all);
}

#[test]
fn every_flipped_bit_and_every_cut_is_found() {
    let (disk, store, meta, bytes) = written();
    let is_corrupt = |what: &str| match store.verify(&meta) {
        Err(SnapshotError::Corrupt { .. }) => {}
        other => panic!("{what}: {other:?}"),
    };
    for position in 0..bytes.len() {
        for bit in 0..8 {
            disk.corrupt(path(&meta), position, 1 << bit).unwrap();
            is_corrupt(&format!("bit {bit} of byte {position}"));
            disk.corrupt(path(&meta), position, 1 << bit).unwrap();
        }
        disk.set_content(path(&meta), &bytes[..position]);
        is_corrupt(&format!("cut at {position}"));
        // The same cut under a record of its length: the format alone must find it.
        let size = u64::try_from(position).unwrap();
        let cut = SnapshotMeta { size, ..meta.clone() };
        assert!(store.verify(&cut).is_err(), "recorded cut at {position}");
        disk.set_content(path(&meta), bytes.clone());
    }
    store.verify(&meta).unwrap();
}

#[test]
fn parts_that_do_not_fit_the_format_are_refused() {
    let store = open(&MemoryDisk::new(), None);
    let part = |name: String, length| Part { name, data: vec![0; length].into() };
    for refused in
        [part("a".into(), 1), part("n".repeat(1025), 0), part("b".into(), (64 << 20) + 1)]
    {
        let mut writer = store.begin(id(1), &members()).unwrap();
        writer.part(&part("a".into(), 1)).unwrap();
        assert!(matches!(writer.part(&refused), Err(SnapshotError::Part { .. })));
    }
    assert_eq!(store.names().unwrap(), Vec::<String>::new(), "nothing is left behind");
}

#[test]
fn old_snapshots_go_and_newer_ones_stay_until_the_next_start() {
    let disk = MemoryDisk::new();
    let store = open(&disk, None);
    let metas: Vec<_> = [5, 9, 12].map(|index| write(&store, index, 1).unwrap()).into();
    store.retain(metas[1].last.index).unwrap();
    assert_eq!(store.list().unwrap(), [id(9), id(12)]);
    disk.set_content(Path::new(DIRECTORY).join("0.tmp"), "half");
    disk.set_content(Path::new(DIRECTORY).join("README"), "not ours");
    let store = open(&disk, Some(&metas[1]));
    assert_eq!(store.list().unwrap(), [id(9)]);
    assert_eq!(store.names().unwrap().len(), 2, "the stranger stays");
    assert!(matches!(store.verify(&metas[2]), Err(SnapshotError::Missing { .. })));
}

#[test]
fn a_snapshot_arrives_in_pieces_and_a_misplaced_piece_does_no_harm() {
    let (_, _, meta, bytes) = written();
    let store = open(&MemoryDisk::new(), None);
    let end = bytes.len();
    let partly = |next: usize| {
        let next = u64::try_from(next).unwrap();
        Received { next, is_complete: false }
    };
    assert_eq!(send(&store, &meta, &bytes, 20..40).unwrap(), partly(0), "nothing was begun");
    assert_eq!(send(&store, &meta, &bytes, 0..50).unwrap(), partly(50));
    assert_eq!(send(&store, &meta, &bytes, 60..70).unwrap(), partly(50), "a gap");
    assert_eq!(send(&store, &meta, &bytes, 40..60).unwrap(), partly(50), "a repetition");
    assert_eq!(send(&store, &meta, &bytes, 50..50).unwrap(), partly(50), "an empty piece");
    assert!(matches!(store.verify(&meta), Err(SnapshotError::Missing { .. })));
    assert_eq!(send(&store, &meta, &bytes, 0..10).unwrap(), partly(10), "begun anew");
    assert!(send(&store, &meta, &bytes, 10..end).unwrap().is_complete);
    assert_eq!(parts_of(&store, &meta).unwrap(), parts(1));
    assert!(send(&store, &meta, &bytes, 0..10).unwrap().is_complete, "it is here already");
}

#[test]
fn another_snapshot_takes_the_place_of_one_that_is_arriving() {
    let (_, source, first, first_bytes) = written();
    let second = write(&source, 20, 2).unwrap();
    let second_bytes = source.read(&second, 0, usize::MAX).unwrap();
    let store = open(&MemoryDisk::new(), None);
    send(&store, &first, &first_bytes, 0..30).unwrap();
    send(&store, &second, &second_bytes, 0..30).unwrap();
    assert_eq!(send(&store, &first, &first_bytes, 30..60).unwrap().next, 0);
    assert_eq!(store.names().unwrap().len(), 1, "one temporary file");
    assert!(send(&store, &second, &second_bytes, 30..second_bytes.len()).unwrap().is_complete);
}

#[test]
fn what_arrives_damaged_or_too_long_or_under_a_false_name_is_given_up() {
    let (_, _, meta, bytes) = written();
    let store = open(&MemoryDisk::new(), None);
    let refused = |meta: &SnapshotMeta, bytes: &[u8]| {
        let result = send(&store, meta, bytes, 0..bytes.len());
        assert!(matches!(result, Err(SnapshotError::Corrupt { .. })), "{result:?}");
        assert_eq!(store.names().unwrap(), Vec::<String>::new());
    };
    let mut damaged = bytes.clone();
    damaged[70] ^= 4;
    refused(&meta, &damaged);
    refused(&SnapshotMeta { size: meta.size - 1, ..meta.clone() }, &bytes);
    refused(&SnapshotMeta { last: id(10), ..meta.clone() }, &bytes);
    refused(&SnapshotMeta { membership: Membership::default(), ..meta.clone() }, &bytes);
    refused(&SnapshotMeta { size: 0, checksum: 0, ..meta.clone() }, &[]);
    assert!(send(&store, &meta, &bytes, 0..bytes.len()).unwrap().is_complete);
}

#[test]
fn a_size_that_is_a_lie_costs_one_step_of_space() {
    let disk = SimDisk::new(1);
    let store = open(&disk, None);
    let lie = SnapshotMeta { last: id(1), membership: members(), size: u64::MAX, checksum: 1 };
    store.receive(&lie, 0, b"first piece").unwrap();
    assert!(disk.used() <= 9 << 20, "{} bytes", disk.used());
}

#[test]
fn a_full_disk_is_no_fatal_error_and_leaves_nothing_behind() {
    let (_, _, meta, bytes) = written();
    let disk = SimDisk::new(1);
    let store = open(&disk, None);
    disk.set_capacity(Some(disk.used() + 10));
    for error in
        [send(&store, &meta, &bytes, 0..bytes.len()).unwrap_err(), write(&store, 9, 1).unwrap_err()]
    {
        assert!(matches!(&error, SnapshotError::NoSpace { .. }) && !error.is_fatal(), "{error}");
    }
    disk.set_capacity(None);
    assert_eq!(store.names().unwrap(), Vec::<String>::new());
    assert!(send(&store, &meta, &bytes, 0..bytes.len()).unwrap().is_complete);
}

#[test]
fn a_failed_sync_is_fatal() {
    let disk = SimDisk::new(1);
    let store = open(&disk, None);
    disk.fail_sync_at(1);
    assert!(write(&store, 9, 1).unwrap_err().is_fatal());
    assert_eq!(store.list().unwrap(), []);
}

/// Runs `work` on a disk that dies at its nth call, for every n until it gets through; `work` says what it made.
/// After each death the old snapshot must be whole, and the new one must be whole or gone.
fn for_each_crash(work: impl Fn(&SnapshotStore) -> Result<SnapshotMeta, SnapshotError>) {
    for calls in 0.. {
        assert!(calls < 200, "the work never ends");
        let mut got_through = false;
        for seed in 0..8 {
            let disk = SimDisk::new(seed);
            let old = write(&open(&disk, None), 5, 1).unwrap();
            let store = open(&disk, Some(&old));
            disk.crash_after_calls(calls);
            let result = work(&store);
            got_through = result.is_ok();
            disk.crash();
            if let Ok(new) = &result {
                // The log's record of it may have become durable before the crash, or not.
                let latest = if seed % 2 == 0 { new } else { &old };
                let store = open(&disk, Some(latest));
                store.verify(latest).unwrap();
                assert_eq!(store.list().unwrap(), [latest.last]);
            } else {
                let store = open(&disk, Some(&old));
                store.verify(&old).unwrap();
                assert_eq!(store.list().unwrap(), [old.last], "crash at call {calls}, seed {seed}");
                assert_eq!(store.names().unwrap().len(), 1, "temporary files are gone");
            }
        }
        if got_through {
            break;
        }
    }
}

#[test]
fn a_crash_at_any_call_of_writing_keeps_the_old_snapshot() {
    for_each_crash(|store| write(store, 9, 2));
}

#[test]
fn a_crash_at_any_call_of_receiving_keeps_the_old_snapshot() {
    let (_, _, meta, bytes) = written();
    for_each_crash(|store| {
        send(store, &meta, &bytes, 0..64)?;
        send(store, &meta, &bytes, 64..bytes.len())?;
        Ok(meta.clone())
    });
}

#[test]
fn a_finished_snapshot_survives_a_crash() {
    for seed in 0..16 {
        let disk = SimDisk::new(seed);
        let meta = write(&open(&disk, None), 9, 2).unwrap();
        disk.crash();
        open(&disk, Some(&meta)).verify(&meta).unwrap();
    }
}
