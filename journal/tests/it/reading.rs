//! Readers beside the writer; limits; compaction and replacement as a reader sees them.

use lattice_journal::{AppendError, Batch, JournalError, MemoryDisk, ReadError};

use crate::support::{Model, items, open, read_all, replacing, segment_path, shown};

#[test]
fn a_reader_sees_the_log_as_of_the_last_sync() {
    let (mut journal, _) = open(&MemoryDisk::new(), 4096).unwrap();
    let reader = journal.reader();
    journal.append(&items(1, &["one", "two"])).unwrap();
    assert_eq!((reader.positions(), journal.positions()), (1..1, 1..3));
    journal.sync().unwrap();
    assert_eq!(reader.positions(), 1..3);
    journal.append(&replacing(2, &["II"])).unwrap();
    assert_eq!(reader.read(2..3, 100).unwrap()[0].bytes, b"two");
    journal.sync().unwrap();
    assert_eq!(reader.read(2..3, 100).unwrap()[0].bytes, b"II");
    journal.append(&Batch::<Vec<u8>> { restart_at: Some(50), ..Batch::default() }).unwrap();
    journal.sync().unwrap();
    assert_eq!(reader.positions(), 50..50);
    assert!(matches!(reader.read(2..3, 100), Err(ReadError::NotHeld { held }) if held == (50..50)));
}

#[test]
fn a_read_keeps_to_its_range_and_its_budget() {
    let (mut journal, _) = open(&MemoryDisk::new(), 4096).unwrap();
    journal.append(&items(1, &["aaaa", "bbbb", "cccc"])).unwrap();
    journal.append(&items(4, &["dddd", "eeee"])).unwrap();
    journal.sync().unwrap();
    let reader = journal.reader();
    let positions = |range: std::ops::Range<u64>, bytes_max| -> Vec<u64> {
        reader.read(range, bytes_max).unwrap().iter().map(|item| item.position).collect()
    };
    let table = [
        (1..6, 1000, vec![1, 2, 3, 4, 5]),
        (2..5, 1000, vec![2, 3, 4]),
        (2..100, 1000, vec![2, 3, 4, 5]),
        (1..6, 0, vec![1]),
        (1..6, 11, vec![1, 2]),
        (1..6, 12, vec![1, 2, 3]),
        (3..6, 8, vec![3, 4]),
        (6..9, 1000, vec![]),
        (3..3, 1000, vec![]),
    ];
    for (range, bytes_max, expected) in table {
        assert_eq!(positions(range.clone(), bytes_max), expected, "{range:?} in {bytes_max}");
    }
}

#[test]
fn rot_is_found_when_it_is_read() {
    let disk = MemoryDisk::new();
    let (mut journal, _) = open(&disk, 4096).unwrap();
    journal.append(&items(1, &["good"])).unwrap();
    journal.append(&items(2, &["rotten"])).unwrap();
    journal.sync().unwrap();
    let content = disk.content(segment_path(1)).unwrap();
    let at = content.windows(6).position(|window| window == b"rotten").unwrap();
    disk.corrupt(segment_path(1), at, 4).unwrap();
    let reader = journal.reader();
    assert_eq!(reader.read(1..3, 1000).unwrap().len(), 1);
    match reader.read(2..3, 1000) {
        Err(ReadError::Corrupt { positions, segment: 1, .. }) => assert_eq!(positions, 2..3),
        other => panic!("{other:?}"),
    }
}

#[test]
fn batches_that_do_not_fit_are_refused_and_change_nothing() {
    let mut options = crate::support::options(4096);
    options.item_size_max = 100;
    options.batch_size_max = 1000;
    let disk = std::sync::Arc::new(MemoryDisk::new());
    let (mut journal, _) = lattice_journal::Journal::open(disk, "log", options).unwrap();
    journal.append(&items(1, &["one", "two"])).unwrap();
    journal.sync().unwrap();
    let sequence = journal.next_sequence();

    let long = "x".repeat(101);
    let many = "x".repeat(100);
    let both = Batch { restart_at: Some(9), ..replacing(1, &[]) };
    let restart = Batch { restart_at: Some(u64::MAX), ..items(u64::MAX, &["too far"]) };
    let refused = [
        (items(4, &["gap"]), "items begin at position 4, the next position is 3"),
        (items(2, &["again"]), "items begin at position 2, the next position is 3"),
        (replacing(4, &["later"]), "cannot truncate from 4: the journal holds 1..3"),
        (replacing(0, &["before"]), "cannot truncate from 0: the journal holds 1..3"),
        (items(3, &[&long]), "item of 101 bytes is over the limit of 100"),
        (items(3, &[&*many; 10]), "batch of 1168 bytes is over the limit of 1000"),
        (both, "a batch may truncate or restart the log, not both"),
        (
            restart,
            "items begin at position 18446744073709551615, the next position is \
            18446744073709551615",
        ),
    ];
    for (batch, error) in refused {
        assert_eq!(journal.append(&batch).unwrap_err().to_string(), error);
    }
    assert_eq!((journal.positions(), journal.next_sequence()), (1..3, sequence));
    journal.append(&items(3, &["three"])).unwrap();
}

#[test]
fn compaction_drops_whole_segments_and_never_the_last() {
    let disk = MemoryDisk::new();
    let (mut journal, _) = open(&disk, 1000).unwrap();
    let mut model = Model::new();
    for number in 1..=20 {
        let batch = items(number, &[&"x".repeat(100)]);
        journal.append(&batch).unwrap();
        model.apply(&batch);
    }
    let reader = journal.reader();
    assert_eq!(journal.compact(1).unwrap(), 0);
    let before = journal.segments();
    let needed = before.iter().find(|segment| segment.positions.contains(&9)).unwrap();
    assert!(journal.compact(9).unwrap() > 0);
    assert_eq!(journal.segments()[0].number, needed.number);
    assert_eq!(journal.positions(), needed.positions.start..21);
    assert_eq!(reader.positions(), journal.positions());
    assert!(matches!(reader.read(1..2, 10), Err(ReadError::NotHeld { .. })));
    assert!(journal.compact(1000).unwrap() > 0);
    assert_eq!(journal.segments().len(), 1);
    drop(journal);
    let (journal, recovery) = open(&disk, 1000).unwrap();
    assert!(recovery.damaged.is_empty());
    let start = journal.positions().start;
    assert_eq!(read_all(&journal.reader()), model.items.split_off(&start));
    assert_eq!(journal.positions().end, 21);
}

#[test]
fn a_truncation_below_what_was_compacted_is_recovered() {
    // Segment 1 holds 1..; a later segment replaces its last items; then segment 1 goes.
    let disk = MemoryDisk::new();
    let (mut journal, _) = open(&disk, 1000).unwrap();
    let long = "x".repeat(100);
    journal.append(&items(1, &[&long])).unwrap();
    journal.append(&items(2, &[&long, "old"])).unwrap();
    while journal.segments().len() < 2 {
        let next = journal.positions().end;
        journal.append(&items(next, &["filler"])).unwrap();
        journal.sync().unwrap();
    }
    journal.append(&replacing(3, &["new"])).unwrap();
    journal.sync().unwrap();
    assert_eq!(journal.compact(3).unwrap(), 1);
    assert_eq!(journal.positions(), 3..4);
    drop(journal);
    let (journal, recovery) = open(&disk, 1000).unwrap();
    assert_eq!((recovery.positions, recovery.damaged.len()), (3..4, 0));
    assert_eq!(read_all(&journal.reader())[&3], b"new");
}

#[test]
fn a_replaced_segment_keeps_its_positions() {
    let disk = MemoryDisk::new();
    let (mut journal, _) = open(&disk, 1000).unwrap();
    let mut model = Model::new();
    let long = "x".repeat(80);
    for batch in [items(1, &[&long, "b"]), items(3, &["c", "d"]), replacing(4, &["D", &long])] {
        journal.append(&batch).unwrap();
        model.apply(&batch);
    }
    while journal.segments().len() < 3 {
        let batch = items(journal.positions().end, &[&long]);
        journal.append(&batch).unwrap();
        model.apply(&batch);
        journal.sync().unwrap();
    }
    let reader = journal.reader();
    let mut asked = Vec::new();
    let mut scavenge = |position: u64, bytes: &[u8]| {
        asked.push((position, bytes.to_vec()));
        match position {
            1 => Some(Vec::new()),
            2 => Some(b"longer than it was".to_vec()),
            _ => None,
        }
    };
    journal.replace_segment(1, &mut scavenge).unwrap();
    let in_first = journal.segments()[0].positions.clone();
    let expected: Vec<_> =
        in_first.map(|position| (position, model.items[&position].clone())).collect();
    assert_eq!(asked, expected);
    model.items.insert(1, Vec::new());
    model.items.insert(2, b"longer than it was".to_vec());
    assert_eq!(read_all(&reader), model.items);
    for segment in [0, 3, 9] {
        let missing = journal.replace_segment(segment, &mut |_, _| None);
        assert!(matches!(missing, Err(JournalError::NoSuchSegment { .. })), "{segment}");
    }
    drop(journal);
    let (journal, recovery) = open(&disk, 1000).unwrap();
    assert_eq!((recovery.torn, recovery.damaged), (None, Vec::new()));
    assert_eq!(shown(&journal), model);
}

#[test]
fn a_rotten_segment_is_not_rewritten() {
    let disk = MemoryDisk::new();
    let (mut journal, _) = open(&disk, 1000).unwrap();
    while journal.segments().len() < 2 {
        journal.append(&items(journal.positions().end, &["some item"])).unwrap();
        journal.sync().unwrap();
    }
    disk.corrupt(segment_path(1), 200, 1).unwrap();
    let before = disk.content(segment_path(1)).unwrap();
    let refused = journal.replace_segment(1, &mut |_, _| Some(Vec::new()));
    assert!(matches!(refused, Err(JournalError::Corrupt { segment: 1, .. })), "{refused:?}");
    assert_eq!(disk.content(segment_path(1)).unwrap(), before);
    let error = journal.append(&items(1, &["x"])).unwrap_err();
    assert!(matches!(error, AppendError::Position { .. }), "the journal goes on: {error}");
}
