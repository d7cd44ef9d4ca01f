//! A whole data directory on a real disk: identity, log and snapshots, written, closed and opened again.

use std::path::Path;
use std::sync::Arc;

use lattice_journal::{Disk, RealDisk};
use raft_consensus::effects::PersistBatch;
use raft_consensus::membership::Membership;
use raft_consensus::state_machine::Part;
use raft_consensus::storage::{
    DataDirectory, IdentityError, JournalLog, JournalLogOptions, LogReader, LogStore,
    RecoveredState, SnapshotStore,
};
use raft_consensus::types::{
    ClusterId, Entry, EntryId, GroupId, HardState, LogIndex, NodeId, Payload, SnapshotMeta, Term,
};

const GROUP: GroupId = GroupId(0);

fn open_directory(path: &Path, node: u64) -> Result<DataDirectory, IdentityError> {
    let founders = [NodeId(1), NodeId(2), NodeId(3)];
    DataDirectory::open(Arc::new(RealDisk), path, ClusterId(5), NodeId(node), &founders, 42)
}

fn open_log(directory: &DataDirectory) -> (JournalLog, RecoveredState) {
    let options = JournalLogOptions::new(directory.log_id(GROUP));
    JournalLog::open(directory.disk(), &directory.log_directory(GROUP), options).unwrap()
}

fn entry(index: u64) -> Entry {
    let payload = Payload::Command(format!("command {index}").into());
    Entry { id: EntryId::new(Term(2), LogIndex(index)), session: None, payload }
}

fn write_snapshot(store: &SnapshotStore, last: u64) -> SnapshotMeta {
    let members = Membership::founding([NodeId(1), NodeId(2), NodeId(3)]);
    let mut writer = store.begin(entry(last).id, &members);
    let part = |name: &str, byte| Part { name: name.to_owned(), data: vec![byte; 3 << 20].into() };
    writer.part(&part("first", 7)).unwrap();
    writer.part(&part("second", 8)).unwrap();
    writer.finish().unwrap()
}

#[test]
fn a_node_finds_on_a_real_disk_what_it_left_there() {
    let temporary = tempfile::tempdir().unwrap();
    let path = temporary.path().join("not/there/yet");
    let hard_state = HardState { term: Term(2), voted_for: Some(NodeId(3)) };
    let meta = {
        let directory = open_directory(&path, 2).unwrap();
        let (mut log, _) = open_log(&directory);
        let entries = (1..=100).map(entry).collect();
        let hard_state = Some(hard_state);
        log.append(&PersistBatch { hard_state, entries, ..PersistBatch::default() }).unwrap();
        let snapshot_directory = directory.snapshot_directory(GROUP);
        let store = SnapshotStore::open(directory.disk(), &snapshot_directory, None).unwrap();
        let meta = write_snapshot(&store, 60);
        let snapshot = Some(meta.clone());
        log.append(&PersistBatch { snapshot, ..PersistBatch::default() }).unwrap();
        log.sync().unwrap();
        log.compact(LogIndex(60)).unwrap();
        log.idle().unwrap();
        assert!(matches!(open_directory(&path, 2), Err(IdentityError::Locked { .. })));
        meta
    };
    let directory = open_directory(&path, 2).unwrap();
    assert!(!directory.is_new());
    let (log, recovered) = open_log(&directory);
    assert_eq!(recovered.hard_state, hard_state);
    assert_eq!(recovered.snapshot.as_ref(), Some(&meta));
    assert_eq!(recovered.terms.last(), entry(100).id);
    let read = log.reader().entries(LogIndex(61)..=LogIndex(100), usize::MAX).unwrap();
    assert_eq!(read, (61..=100).map(entry).collect::<Vec<_>>());
    let store =
        SnapshotStore::open(directory.disk(), &directory.snapshot_directory(GROUP), Some(&meta));
    store.unwrap().verify(&meta).unwrap();
}

#[test]
fn another_node_is_refused_on_a_real_disk_and_frees_the_lock() {
    let temporary = tempfile::tempdir().unwrap();
    drop(open_directory(temporary.path(), 2).unwrap());
    assert!(matches!(open_directory(temporary.path(), 3), Err(IdentityError::WrongNode { .. })));
    open_directory(temporary.path(), 2).unwrap();
}

#[test]
fn a_snapshot_travels_from_one_real_disk_to_another() {
    let temporary = tempfile::tempdir().unwrap();
    let disk: Arc<dyn Disk> = Arc::new(RealDisk);
    let open =
        |name| SnapshotStore::open(Arc::clone(&disk), &temporary.path().join(name), None).unwrap();
    let (source, target) = (open("source"), open("target"));
    let meta = write_snapshot(&source, 60);
    let mut next = 0;
    loop {
        let piece = source.read(&meta, next, 1 << 20).unwrap();
        let received = target.receive(&meta, next, &piece).unwrap();
        assert_eq!(received.next, next + u64::try_from(piece.len()).unwrap());
        next = received.next;
        if received.is_complete {
            break;
        }
    }
    target.verify(&meta).unwrap();
    assert_eq!(next, meta.size);
}

/// Writes a snapshot of so many MiB, sends it as a leader would, and restores from it; returns the most that was allocated at a time.
fn memory_for(mebibytes: u32) -> u64 {
    let temporary = tempfile::tempdir().unwrap();
    let disk: Arc<dyn Disk> = Arc::new(RealDisk);
    let open =
        |name| SnapshotStore::open(Arc::clone(&disk), &temporary.path().join(name), None).unwrap();
    let (source, target) = (open("source"), open("target"));
    let members = Membership::founding([NodeId(1)]);
    let counted = allocation_counter::measure(|| {
        let mut writer = source.begin(entry(1).id, &members);
        for number in 0..mebibytes {
            let data = number.to_le_bytes().repeat((1 << 20) / 4).into();
            writer.part(&Part { name: format!("part-{number}"), data }).unwrap();
        }
        let meta = writer.finish().unwrap();
        let (mut next, mut is_complete) = (0, false);
        while !is_complete {
            let piece = source.read(&meta, next, 512 << 10).unwrap();
            let received = target.receive(&meta, next, &piece).unwrap();
            (next, is_complete) = (received.next, received.is_complete);
        }
        let mut parts = target.open_parts(&meta).unwrap();
        let mut restored = 0_u32;
        while let Some(part) = parts.next_part().unwrap() {
            assert_eq!(part.data[..4], restored.to_le_bytes());
            restored += 1;
        }
        assert_eq!(restored, mebibytes);
    });
    counted.bytes_max
}

#[test]
fn a_snapshot_of_any_size_takes_a_few_mebibytes_of_memory() {
    let most = memory_for(64);
    assert!(most < 5 << 20, "{most} bytes");
}

#[test]
#[ignore = "it writes two gigabytes"]
fn a_snapshot_of_a_gigabyte_takes_a_few_mebibytes_of_memory() {
    let most = memory_for(1_024);
    assert!(most < 6 << 20, "{most} bytes");
}
