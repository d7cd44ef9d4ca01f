use std::error::Error as _;
use std::path::PathBuf;

use lattice_journal::{Encode as _, MemoryDisk};
use lattice_sim::SimDisk;

use super::*;
use crate::membership::Membership;
use crate::storage::{DamagedEntries, MemoryLog};
use crate::types::{EntryId, HardState, NodeId, Payload, SessionId, SnapshotMeta, Term};

const DIRECTORY: &str = "/data/group-0/log";

fn options() -> JournalLogOptions {
    let mut options = JournalLogOptions::new(0x1a77);
    // Small segments, so that few entries fill several.
    (options.journal.segment_size, options.journal.segment_size_max) = (4096, 8192);
    options
}

fn open(disk: &(impl Disk + Clone)) -> Result<(JournalLog, RecoveredState), OpenLogError> {
    JournalLog::open(Arc::new(disk.clone()), Path::new(DIRECTORY), options())
}

fn id(index: u64, term: u64) -> EntryId {
    EntryId::new(Term(term), LogIndex(index))
}

fn entry(index: u64, term: u64, length: usize) -> Entry {
    let session = index.is_multiple_of(2).then_some(SessionId { session: 8, sequence: index });
    let byte = u8::try_from(index % 251).unwrap();
    Entry { id: id(index, term), session, payload: Payload::Command(vec![byte; length].into()) }
}

fn entries(range: RangeInclusive<u64>, term: u64) -> Vec<Entry> {
    range.map(|index| entry(index, term, 100)).collect()
}

fn hard_state(term: u64) -> Option<HardState> {
    Some(HardState { term: Term(term), voted_for: Some(NodeId(1 + term % 3)) })
}

fn meta(index: u64, term: u64) -> SnapshotMeta {
    let membership = Membership::founding([NodeId(1), NodeId(2)]);
    SnapshotMeta { last: id(index, term), membership, size: index * 10, checksum: 99 }
}

fn batch(hard_state: Option<HardState>, entries: Vec<Entry>) -> PersistBatch {
    PersistBatch { hard_state, entries: entries.into(), ..PersistBatch::default() }
}

fn persist(log: &mut impl LogStore, batch: &PersistBatch) {
    log.append(batch).unwrap();
    log.sync().unwrap();
}

fn indexes(entries: &[Entry]) -> Vec<u64> {
    entries.iter().map(|entry| entry.id.index.0).collect()
}

/// A history with everything in it that a batch may hold.
fn history() -> Vec<PersistBatch> {
    let membership =
        Entry { id: id(6, 3), session: None, payload: Payload::Membership(meta(0, 0).membership) };
    let truncate = |from| Some(LogIndex(from));
    vec![
        batch(hard_state(1), vec![]),
        batch(None, entries(1..=5, 1)),
        batch(hard_state(3), vec![]),
        PersistBatch {
            truncate_from: truncate(4),
            ..batch(None, vec![entry(4, 3, 0), entry(5, 3, 900), membership])
        },
        batch(None, entries(7..=40, 3)),
        PersistBatch { snapshot: Some(meta(20, 3)), ..PersistBatch::default() },
        PersistBatch { truncate_from: truncate(30), ..batch(hard_state(4), entries(30..=33, 4)) },
        PersistBatch { truncate_from: truncate(34), ..batch(None, entries(34..=50, 4)) },
        PersistBatch {
            snapshot: Some(meta(90, 5)),
            restart_log: true,
            ..batch(hard_state(6), vec![])
        },
        batch(None, entries(91..=95, 6)),
    ]
}

/// The model: what a log that holds `batches` recovers.
fn model(batches: &[PersistBatch]) -> RecoveredState {
    let mut log = MemoryLog::new();
    batches.iter().for_each(|batch| persist(&mut log, batch));
    log.recovered()
}

fn same(found: &RecoveredState, expected: &RecoveredState) -> bool {
    found.hard_state == expected.hard_state
        && found.snapshot == expected.snapshot
        && found.terms == expected.terms
        && found.memberships == expected.memberships
        && found.tail == expected.tail
}

#[test]
fn a_blank_directory_is_an_empty_log() {
    let (log, recovered) = open(&MemoryDisk::new()).unwrap();
    assert!(same(&recovered, &RecoveredState::default()), "{recovered:?}");
    let error = log.reader().entries(LogIndex(1)..=LogIndex(1), 100).unwrap_err();
    assert!(matches!(error, StorageError::OutOfRange { .. }), "{error}");
}

#[test]
fn recovery_gives_back_what_was_synced_whatever_the_history() {
    for length in 0..=history().len() {
        let batches = &history()[..length];
        let disk = MemoryDisk::new();
        let (mut log, _) = open(&disk).unwrap();
        batches.iter().for_each(|batch| persist(&mut log, batch));
        drop(log);
        let (_, recovered) = open(&disk).unwrap();
        assert!(same(&recovered, &model(batches)), "{length} batches: {recovered:#?}");
    }
}

#[test]
fn what_was_not_synced_is_neither_read_nor_recovered() {
    let disk = MemoryDisk::new();
    let (mut log, _) = open(&disk).unwrap();
    persist(&mut log, &batch(hard_state(1), entries(1..=3, 1)));
    log.append(&batch(None, entries(4..=4, 1))).unwrap();
    let reader = log.reader();
    assert_eq!(indexes(&reader.entries(LogIndex(2)..=LogIndex(9), 1000).unwrap()), [2, 3]);
    assert!(reader.entries(LogIndex(4)..=LogIndex(4), 1000).is_err());
    drop(log);
    let (_, recovered) = open(&disk).unwrap();
    assert_eq!(recovered.terms.last(), id(3, 1));
}

#[test]
fn reads_stop_at_the_byte_limit_but_give_one_entry_at_least() {
    let (mut log, _) = open(&MemoryDisk::new()).unwrap();
    persist(&mut log, &batch(hard_state(1), entries(1..=60, 1)));
    let reader = log.reader();
    let read = |from, through, bytes_max| {
        reader.entries(LogIndex(from)..=LogIndex(through), bytes_max).unwrap()
    };
    assert_eq!(read(1, 60, usize::MAX), entries(1..=60, 1));
    assert_eq!(indexes(&read(5, 60, 3 * 132)), [5, 6, 7]);
    assert_eq!(indexes(&read(5, 60, 3 * 132 - 1)), [5, 6]);
    assert_eq!(indexes(&read(60, 60, 0)), [60]);
    assert_eq!(read(9, 8, 100), []);
}

#[test]
fn a_batch_that_contradicts_the_log_is_refused_and_changes_nothing() {
    let disk = MemoryDisk::new();
    let (mut log, _) = open(&disk).unwrap();
    persist(&mut log, &batch(hard_state(5), entries(1..=3, 5)));
    for refused in [batch(hard_state(4), vec![]), batch(None, entries(5..=5, 5))] {
        let error = log.append(&refused).unwrap_err();
        assert!(matches!(error, StorageError::Fatal(_)) && error.source().is_some(), "{error}");
    }
    persist(&mut log, &batch(None, entries(4..=4, 5)));
    drop(log);
    assert_eq!(open(&disk).unwrap().1.terms.last(), id(4, 5));
}

#[test]
fn compaction_waits_for_a_durable_snapshot_and_keeps_terms_known() {
    let disk = MemoryDisk::new();
    let (mut log, _) = open(&disk).unwrap();
    for index in 1..=200 {
        let term = 1 + index / 50;
        persist(&mut log, &batch(hard_state(term), vec![entry(index, term, 100)]));
    }
    let size = log.bytes_on_disk();
    log.compact(LogIndex(150)).unwrap();
    assert_eq!(log.reader().entries(LogIndex(1)..=LogIndex(1), 0).unwrap().len(), 1, "no snapshot");
    let snapshot = Some(meta(150, 4));
    persist(&mut log, &PersistBatch { snapshot, ..PersistBatch::default() });
    log.compact(LogIndex(190)).unwrap();
    assert!(log.bytes_on_disk() < size);
    let error = log.reader().entries(LogIndex(1)..=LogIndex(9), 1000).unwrap_err();
    let StorageError::OutOfRange { first, .. } = error else { panic!("{error}") };
    assert!(first > LogIndex(1) && first <= LogIndex(151), "{first}");
    drop(log);
    let (mut log, recovered) = open(&disk).unwrap();
    let base = recovered.terms.base();
    assert!(base.index < LogIndex(151) && base.index >= first.previous(), "{base}");
    assert_eq!(base.term, Term(1 + base.index.0 / 50));
    for index in base.index.0..=200 {
        assert_eq!(recovered.terms.term_at(LogIndex(index)), Some(Term(1 + index / 50)));
    }
    persist(&mut log, &batch(None, vec![entry(201, 5, 100)]));
    let truncate_from = Some(LogIndex(150));
    assert!(log.append(&PersistBatch { truncate_from, ..PersistBatch::default() }).is_err());
}

#[test]
fn a_log_compacted_to_its_end_goes_on_behind_its_snapshot() {
    let disk = MemoryDisk::new();
    let (mut log, _) = open(&disk).unwrap();
    for index in 1..=100 {
        persist(&mut log, &batch(hard_state(2), vec![entry(index, 2, 100)]));
        let snapshot = Some(meta(index, 2));
        persist(&mut log, &PersistBatch { snapshot, ..PersistBatch::default() });
        log.compact(LogIndex(index)).unwrap();
        if index % 7 == 0 {
            drop(log);
            let (reopened, recovered) = open(&disk).unwrap();
            assert_eq!(recovered.terms.last(), id(index, 2));
            assert_eq!(recovered.snapshot, Some(meta(index, 2)));
            log = reopened;
        }
    }
}

#[test]
fn the_tail_is_the_newest_entries_within_its_budget() {
    let disk = MemoryDisk::new();
    let (mut log, _) = open(&disk).unwrap();
    persist(&mut log, &batch(hard_state(1), entries(1..=50, 1)));
    drop(log);
    for (tail_bytes_max, expected) in [(132 * 4, 47..=50), (132 * 4 - 1, 48..=50), (0, 50..=50)] {
        let options = JournalLogOptions { tail_bytes_max, ..options() };
        let disk = Arc::new(disk.clone());
        let (_, recovered) = JournalLog::open(disk, Path::new(DIRECTORY), options).unwrap();
        assert_eq!(recovered.tail, entries(expected, 1));
    }
}

/// Writes batches past the checks of the log, as a defect would.
fn forged(state: Option<Vec<u8>>, items: Vec<Vec<u8>>, first: u64) -> OpenLogError {
    let disk = MemoryDisk::new();
    let (mut journal, _) =
        Journal::open(Arc::new(disk.clone()), DIRECTORY, options().journal).unwrap();
    let restart_at = (first != 1).then_some(first);
    journal.append(&Batch { restart_at, first, items, state, truncate_from: None }).unwrap();
    journal.close().unwrap();
    open(&disk).unwrap_err()
}

fn encoded(entry: &Entry) -> Vec<u8> {
    let mut bytes = Vec::new();
    entry.encode(&mut bytes);
    bytes
}

#[test]
fn a_log_that_contradicts_itself_is_not_opened() {
    let at = |term| HardState { term: Term(term), voted_for: None };
    let state =
        |term, snapshot: Option<SnapshotMeta>| Some(encode_state(at(term), snapshot.as_ref()));
    let items = |ids: &[(u64, u64)]| -> Vec<Vec<u8>> {
        ids.iter().map(|&(index, term)| encoded(&entry(index, term, 3))).collect()
    };
    for (error, reason) in [
        (forged(state(9, None), items(&[(1, 3), (2, 2)]), 1), "entry 2@2 follows entry 1@3"),
        (forged(state(9, None), items(&[(1, 0)]), 1), "entry 1@0 follows entry 0@0"),
        (forged(state(2, None), items(&[(1, 3)]), 1), "later term than 2"),
        (forged(None, items(&[(1, 3)]), 1), "later term than 0"),
        (forged(state(9, None), items(&[(5, 3), (6, 3)]), 5), "without a snapshot"),
        (forged(state(9, Some(meta(2, 3))), items(&[(1, 3)]), 1), "its snapshot ends at entry 2@3"),
        (forged(state(9, Some(meta(1, 4))), items(&[(1, 3)]), 1), "of another log"),
        (forged(state(9, Some(meta(7, 3))), items(&[]), 5), "its snapshot does not"),
        (forged(state(9, Some(meta(2, 3))), items(&[(5, 3)]), 5), "its snapshot ends at entry 2@3"),
        (forged(state(9, None), vec![vec![1, 7]], 1), "entry 1: it is cut short"),
        (forged(state(9, None), vec![vec![9; 30]], 1), "entry 1: it is encoded in version 9"),
        (forged(Some(vec![1]), vec![], 1), "its state: it is cut short"),
    ] {
        assert!(matches!(error, OpenLogError::Contradiction { .. }), "{error}");
        assert!(error.to_string().contains(reason), "{error} should contain: {reason}");
    }
}

/// A log of these terms, an entry a batch, closed or not; the entry at `index` is full of that number.
fn log_of(terms: &[u64], close: bool) -> MemoryDisk {
    let disk = MemoryDisk::new();
    let (mut log, _) = open(&disk).unwrap();
    let newest = *terms.last().unwrap();
    for (index, &term) in (1..).zip(terms) {
        let hard_state = if index == 1 { hard_state(newest + 1) } else { None };
        persist(&mut log, &batch(hard_state, vec![entry(index, term, 100)]));
    }
    if close {
        log.idle().unwrap();
    }
    disk
}

/// Flips a bit of the entry at `index`.
fn spoil(disk: &MemoryDisk, index: u8) {
    let file: PathBuf = Path::new(DIRECTORY).join(format!("{:020}.seg", 1));
    let content = disk.content(&file).unwrap();
    let at = content.windows(50).position(|bytes| bytes == [index; 50]).unwrap();
    disk.corrupt(&file, at, 1).unwrap();
}

/// Flips a bit in the header of the frame that holds the entry at `index`.
fn spoil_frame(disk: &MemoryDisk, index: u8) {
    let file: PathBuf = Path::new(DIRECTORY).join(format!("{:020}.seg", 1));
    let content = disk.content(&file).unwrap();
    let at = content.windows(50).position(|bytes| bytes == [index; 50]).unwrap();
    let frame = content[..at].windows(4).rposition(|bytes| bytes == b"LFRM").unwrap();
    disk.corrupt(&file, frame, 1).unwrap();
}

#[test]
fn a_flipped_bit_costs_one_entry_of_those_that_were_written_together() {
    let disk = MemoryDisk::new();
    let (mut log, _) = open(&disk).unwrap();
    let all = entries(1..=20, 1);
    persist(&mut log, &batch(hard_state(1), all.clone()));
    drop(log);
    // Nothing vouches for the frame yet; now something does.
    let (mut log, _) = open(&disk).unwrap();
    log.idle().unwrap();
    drop(log);
    [7, 12, 13, 20].into_iter().for_each(|index| spoil(&disk, index));

    let (mut log, recovered) = open(&disk).unwrap();
    assert_eq!(recovered.hard_state, hard_state(1).unwrap());
    assert_eq!(recovered.damaged, [lost(7, 7, true), lost(12, 13, true), lost(20, 20, true)]);
    let read = |log: &JournalLog, from: u64| {
        log.reader().entries(LogIndex(from)..=LogIndex(20), usize::MAX).map(|read| indexes(&read))
    };
    assert_eq!(read(&log, 1).unwrap(), (1..7).collect::<Vec<_>>());
    assert_eq!(read(&log, 8).unwrap(), [8, 9, 10, 11]);
    assert!(matches!(read(&log, 12), Err(StorageError::Damaged { first, last, .. })
        if (first, last) == (LogIndex(12), LogIndex(13))));
    for lost in [6..7, 11..13, 19..20] {
        let repaired = all[lost].to_vec();
        persist(&mut log, &PersistBatch { repaired, ..PersistBatch::default() });
    }
    let read_all = |log: &JournalLog| log.reader().entries(LogIndex(1)..=LogIndex(20), usize::MAX);
    assert_eq!(read_all(&log).unwrap(), all);
    drop(log);
    assert_eq!(read_all(&open(&disk).unwrap().0).unwrap(), all);
}

#[test]
fn what_rotted_while_the_log_was_open_costs_one_entry_too() {
    let disk = MemoryDisk::new();
    let (mut log, _) = open(&disk).unwrap();
    persist(&mut log, &batch(None, entries(1..=20, 1)));
    spoil(&disk, 7);
    let read = |from: u64| log.reader().entries(LogIndex(from)..=LogIndex(20), usize::MAX);
    assert_eq!(indexes(&read(1).unwrap()), (1..7).collect::<Vec<_>>());
    assert!(matches!(read(7), Err(StorageError::Damaged { first, last, .. })
        if (first, last) == (LogIndex(7), LogIndex(7))));
    assert_eq!(indexes(&read(8).unwrap()), (8..=20).collect::<Vec<_>>());
}

fn lost(first: u64, last: u64, terms_known: bool) -> DamagedEntries {
    DamagedEntries { first: LogIndex(first), last: LogIndex(last), terms_known }
}

#[test]
fn a_log_that_lost_its_vote_is_not_opened_and_the_error_names_file_and_entries() {
    let disk = log_of(&[1, 1, 1], false);
    spoil_frame(&disk, 1);
    let file: PathBuf = Path::new(DIRECTORY).join(format!("{:020}.seg", 1));
    let before = disk.content(&file).unwrap();
    let error = open(&disk).unwrap_err();
    let text = error.to_string();
    assert!(matches!(error, OpenLogError::Damaged { .. }), "{text}");
    for part in [
        "00000000000000000001.seg",
        "items 1..2 lost",
        "latest term and vote are lost",
        "must neither vote",
        "replace",
    ] {
        assert!(text.contains(part), "{text} should contain {part}");
    }
    drop(error);
    assert_eq!(disk.content(&file).unwrap()[..600], before[..600], "the frames are as they were");
}

#[test]
fn the_vote_survives_damage_to_the_frame_that_set_it_once_the_log_was_idle() {
    let disk = log_of(&[1, 1, 1], true);
    spoil_frame(&disk, 1);
    let (_, recovered) = open(&disk).unwrap();
    assert_eq!(recovered.hard_state, hard_state(2).unwrap());
    assert_eq!(recovered.damaged, [lost(1, 1, false)]);
}

#[test]
fn terms_of_lost_entries_are_known_where_no_others_fit_and_are_bounded_elsewhere() {
    for (terms, index, damaged, stand_in) in [
        (&[1, 1, 1, 1][..], 3, lost(3, 3, true), 1),
        (&[1, 1, 2, 4], 3, lost(3, 3, false), 1),
        // The last one can be as late as the node's own term.
        (&[1, 1, 2, 4], 4, lost(4, 4, false), 5),
    ] {
        let disk = log_of(terms, true);
        spoil(&disk, index);
        let (_, recovered) = open(&disk).unwrap();
        assert_eq!(recovered.damaged, [damaged]);
        assert_eq!(recovered.terms.term_at(damaged.first), Some(Term(stand_in)));
        let behind = recovered.terms.last().index;
        assert_eq!(behind, LogIndex(4));
        let tail: Vec<u64> = recovered.tail.iter().map(|entry| entry.id.index.0).collect();
        assert_eq!(tail, (damaged.last.0 + 1..=4).collect::<Vec<_>>());
    }
}

#[test]
fn repaired_entries_take_the_place_of_lost_ones_and_what_stands_behind_stays() {
    let terms = [1, 1, 2, 4, 4, 5];
    let disk = log_of(&terms, true);
    spoil(&disk, 2);
    spoil(&disk, 4);
    let (mut log, recovered) = open(&disk).unwrap();
    assert_eq!(recovered.damaged, [lost(2, 2, false), lost(4, 4, false)]);
    let reader = log.reader();
    let error = reader.entries(LogIndex(4)..=LogIndex(9), 0).unwrap_err();
    let StorageError::Damaged { first, last, .. } = error else { panic!("{error}") };
    assert_eq!((first, last), (LogIndex(4), LogIndex(4)));

    // A vote and new entries may come with it.
    let repaired = vec![entry(4, 4, 100)];
    let also = batch(hard_state(7), vec![entry(7, 7, 100)]);
    persist(&mut log, &PersistBatch { repaired, ..also });
    assert_eq!(reader.entries(LogIndex(3)..=LogIndex(9), usize::MAX).unwrap().len(), 5);
    let repaired = vec![entry(2, 1, 100)];
    persist(&mut log, &PersistBatch { repaired, ..PersistBatch::default() });
    drop(log);
    let (log, recovered) = open(&disk).unwrap();
    assert_eq!((recovered.damaged, recovered.hard_state), (vec![], hard_state(7).unwrap()));
    let whole = log.reader().entries(LogIndex(1)..=LogIndex(9), usize::MAX).unwrap();
    let expected = (1..).zip(terms.into_iter().chain([7]));
    assert_eq!(whole, expected.map(|(index, term)| entry(index, term, 100)).collect::<Vec<_>>());
}

/// The journal takes batches of a few KiB; the damage, and what stands behind it, are longer.
#[test]
fn neither_long_damage_nor_much_behind_it_is_in_the_way_of_a_repair() {
    let disk = MemoryDisk::new();
    let mut options = options();
    (options.journal.segment_size, options.journal.segment_size_max) = (1 << 20, 1 << 20);
    let open = |options: &JournalLogOptions| {
        JournalLog::open(Arc::new(disk.clone()), Path::new(DIRECTORY), options.clone()).unwrap()
    };
    let (mut log, _) = open(&options);
    persist(&mut log, &batch(hard_state(1), vec![]));
    for index in 1..=200 {
        persist(&mut log, &batch(None, vec![entry(index, 1, 1000)]));
    }
    log.idle().unwrap();
    drop(log);
    (20..=40).for_each(|index| spoil(&disk, index));
    // Of damage that was 21 batches.
    options.journal.batch_size_max = 25_000;
    let (mut log, recovered) = open(&options);
    assert_eq!(recovered.damaged, [lost(20, 40, true)]);
    for repaired in [30..=40, 20..=29] {
        let repaired = repaired.map(|index| entry(index, 1, 1000)).collect();
        persist(&mut log, &PersistBatch { repaired, ..PersistBatch::default() });
    }
    drop(log);
    let (log, recovered) = open(&options);
    assert_eq!(recovered.damaged, []);
    let whole = log.reader().entries(LogIndex(1)..=LogIndex(200), usize::MAX).unwrap();
    assert!(
        whole.iter().eq((1..=200).map(|index| entry(index, 1, 1000)).collect::<Vec<_>>().iter())
    );
}

/// The snapshot ends right before the damage, and the journal would drop everything up to what stands behind it.
#[test]
fn compaction_up_to_unrepaired_damage_leaves_a_log_that_opens_and_can_be_repaired() {
    let disk = MemoryDisk::new();
    let (mut log, _) = open(&disk).unwrap();
    persist(&mut log, &batch(hard_state(1), vec![]));
    for index in 1..=100 {
        persist(&mut log, &batch(None, vec![entry(index, 1, 200)]));
    }
    log.idle().unwrap();
    drop(log);
    // The last entries of the first segment.
    let file: PathBuf = Path::new(DIRECTORY).join(format!("{:020}.seg", 1));
    let content = disk.content(&file).unwrap();
    let holds = |index: &u8| content.windows(150).any(|bytes| bytes == [*index; 150]);
    let end = (1..100).filter(holds).max().unwrap();
    (end - 2..=end).for_each(|index| spoil(&disk, index));
    let (first, last) = (u64::from(end - 2), u64::from(end));

    let (mut log, recovered) = open(&disk).unwrap();
    assert_eq!(recovered.damaged, [lost(first, last, true)]);
    let snapshot = Some(meta(first - 1, 1));
    persist(&mut log, &PersistBatch { snapshot, ..PersistBatch::default() });
    log.compact(LogIndex(first - 1)).unwrap();
    drop(log);
    let (mut log, recovered) = open(&disk).unwrap();
    assert_eq!(recovered.damaged, [lost(first, last, true)]);
    let repaired = (first..=last).map(|index| entry(index, 1, 200)).collect();
    persist(&mut log, &PersistBatch { repaired, ..PersistBatch::default() });
    log.compact(LogIndex(first - 1)).unwrap();
    drop(log);
    let (log, recovered) = open(&disk).unwrap();
    assert_eq!(recovered.damaged, []);
    let reader = log.reader();
    let whole = reader.entries(LogIndex(first)..=LogIndex(100), usize::MAX).unwrap();
    assert_eq!(indexes(&whole), (first..=100).collect::<Vec<_>>());
}

#[test]
fn a_log_with_an_unreadable_sector_opens_with_the_entries_of_its_block_lost() {
    let disk = SimDisk::new(1);
    let mut options = options();
    (options.journal.segment_size, options.journal.segment_size_max) = (32 << 10, 32 << 10);
    let open = || JournalLog::open(Arc::new(disk.clone()), Path::new(DIRECTORY), options.clone());
    let (mut log, _) = open().unwrap();
    persist(&mut log, &batch(hard_state(1), vec![]));
    for index in 1..=60 {
        persist(&mut log, &batch(None, vec![entry(index, 1, 1000)]));
    }
    log.idle().unwrap();
    drop(log);
    let file: PathBuf = Path::new(DIRECTORY).join(format!("{:020}.seg", 1));
    disk.fail_reads(&file, 10_000..10_001).unwrap();
    let (mut log, recovered) = open().unwrap();
    let [damage] = recovered.damaged[..] else { panic!("{:?}", recovered.damaged) };
    assert!(damage.terms_known && damage.last.0 - damage.first.0 <= 5, "{damage:?}");
    assert_eq!(recovered.tail.last().map(|entry| entry.id), Some(id(60, 1)));
    let repaired = (damage.first.0..=damage.last.0).map(|index| entry(index, 1, 1000)).collect();
    persist(&mut log, &PersistBatch { repaired, ..PersistBatch::default() });
    drop(log);
    let (log, recovered) = open().unwrap();
    assert_eq!(recovered.damaged, []);
    let whole = log.reader().entries(LogIndex(1)..=LogIndex(60), usize::MAX).unwrap();
    assert_eq!(indexes(&whole), (1..=60).collect::<Vec<_>>());
}

#[test]
fn what_a_snapshot_covers_needs_no_repair() {
    for (spoilt, expected) in
        [(&[2][..], vec![]), (&[3, 4], vec![lost(4, 4, true)]), (&[4], vec![lost(4, 4, true)])]
    {
        let disk = log_of(&[1, 1, 1, 1, 1], true);
        let (mut log, _) = open(&disk).unwrap();
        let snapshot = Some(meta(3, 1));
        persist(&mut log, &PersistBatch { snapshot, ..PersistBatch::default() });
        log.idle().unwrap();
        drop(log);
        spoilt.iter().for_each(|&index| spoil(&disk, index));
        let (_, recovered) = open(&disk).unwrap();
        assert_eq!(recovered.damaged, expected, "{spoilt:?}");
        assert_eq!(recovered.terms.last(), id(5, 1));
        assert_eq!(recovered.terms.term_at(LogIndex(3)), Some(Term(1)));
    }
}

#[test]
fn a_crash_at_any_call_loses_at_most_what_was_not_synced() {
    let batches = history();
    for calls in 0.. {
        assert!(calls < 500, "the history never ends");
        let mut got_through = false;
        for seed in 0..4 {
            let disk = SimDisk::new(seed);
            disk.crash_after_calls(calls);
            let mut synced = 0;
            if let Ok((mut log, _)) = open(&disk) {
                for batch in &batches {
                    if log.append(batch).is_err() || log.sync().is_err() {
                        break;
                    }
                    synced += 1;
                    let compacted = log.compact(LogIndex(20));
                    if compacted.and_then(|()| log.idle()).is_err() {
                        break;
                    }
                }
            }
            got_through = synced == batches.len();
            disk.crash();
            let (mut log, recovered) = open(&disk).unwrap();
            // The batch whose sync failed may have become durable all the same.
            let is_one_of = (synced..=batches.len().min(synced + 1)).any(|length| {
                let expected = model(&batches[..length]);
                recovered.hard_state == expected.hard_state
                    && recovered.snapshot == expected.snapshot
                    && recovered.terms.last() == expected.terms.last()
                    && expected.tail.ends_with(&recovered.tail)
            });
            assert!(is_one_of, "crash at call {calls}, seed {seed}: {recovered:#?}");
            let last = recovered.terms.last();
            let is_empty = last == recovered.terms.base();
            assert_eq!(recovered.tail.last().map(|entry| entry.id), (!is_empty).then_some(last));
            let term = recovered.hard_state.term.0 + 10;
            persist(&mut log, &batch(hard_state(term), vec![entry(last.index.0 + 1, term, 5)]));
        }
        if got_through {
            break;
        }
    }
}

#[test]
fn a_failed_sync_is_fatal_and_final() {
    let disk = SimDisk::new(1);
    let (mut log, _) = open(&disk).unwrap();
    log.append(&batch(hard_state(1), entries(1..=2, 1))).unwrap();
    disk.fail_sync_at(1);
    assert!(matches!(log.sync(), Err(StorageError::Fatal(_))));
    assert!(matches!(log.sync(), Err(StorageError::Fatal(_))), "no second try");
    let appended = log.append(&batch(None, entries(3..=3, 1)));
    assert!(matches!(appended, Err(StorageError::Fatal(_))));
}

#[test]
fn a_full_disk_refuses_a_batch_that_fits_once_there_is_room() {
    let disk = SimDisk::new(1);
    let (mut log, _) = open(&disk).unwrap();
    disk.set_capacity(Some(disk.used()));
    let mut next = 1;
    let refused = loop {
        assert!(next < 1000, "the disk never fills");
        let batch = batch(hard_state(1), vec![entry(next, 1, 100)]);
        match log.append(&batch) {
            Ok(()) => log.sync().unwrap(),
            Err(StorageError::NoSpace(_)) => break batch,
            Err(error) => panic!("{error}"),
        }
        next += 1;
    };
    assert!(log.is_low_on_space());
    disk.set_capacity(None);
    persist(&mut log, &refused);
    log.idle().unwrap();
    assert!(!log.is_low_on_space());
    drop(log);
    disk.crash();
    assert_eq!(open(&disk).unwrap().1.terms.last(), id(next, 1));
}
