//! What an opening makes of the files it finds.

use std::sync::Arc;

use lattice_journal::{
    AppendError, Batch, DamageKind, Disk, Journal, JournalError, JournalOptions, MemoryDisk,
    OpenError, OpenMode, ReadError, RealDisk,
};

use crate::support::{ID, Model, items, open, options, read_all, segment_path, shown, with_state};

/// A journal with many small segments.
fn segmented(disk: &MemoryDisk) -> Model {
    let (mut journal, _) = open(disk, 900).unwrap();
    let mut model = Model::new();
    for number in 1..=12 {
        let batch = with_state(items(number, &[&"x".repeat(100)]), &format!("state {number}"));
        journal.append(&batch).unwrap();
        model.apply(&batch);
    }
    journal.close().unwrap();
    assert!(disk.content(segment_path(5)).is_ok());
    model
}

#[test]
fn the_last_positions_there_are_can_be_taken() {
    let disk = MemoryDisk::new();
    let (mut journal, _) = open(&disk, 4096).unwrap();
    let first = u64::MAX - 1;
    let batch = Batch { restart_at: Some(first), ..items(first, &["the last one"]) };
    journal.append(&batch).unwrap();
    journal.sync().unwrap();
    drop(journal);
    let (mut journal, recovery) = open(&disk, 4096).unwrap();
    assert_eq!((recovery.damaged, journal.positions()), (Vec::new(), first..u64::MAX));
    assert_eq!(journal.reader().read(first..u64::MAX, 0).unwrap()[0].bytes, b"the last one");
    assert!(journal.append(&items(u64::MAX, &["one more"])).is_err());
}

#[test]
fn a_new_journal_is_empty() {
    let disk = MemoryDisk::new();
    let (journal, recovery) = open(&disk, 4096).unwrap();
    assert!(recovery.created && recovery.state.is_none() && recovery.damaged.is_empty());
    assert_eq!(journal.positions(), 1..1);
    assert_eq!(disk.list("log".as_ref()).unwrap(), ["00000000000000000001.seg", "lock", "spare"]);
    drop(journal);
    assert!(!open(&disk, 4096).unwrap().1.created);
}

#[test]
fn only_one_may_have_it_open() {
    let disk = MemoryDisk::new();
    let opened = open(&disk, 4096).unwrap();
    assert!(matches!(open(&disk, 4096), Err(OpenError::Locked { .. })));
    drop(opened);
    assert!(open(&disk, 4096).is_ok());
}

/// All files of a journal's directory.
fn files(disk: &MemoryDisk) -> Vec<(String, Vec<u8>)> {
    let names = disk.list("log".as_ref()).unwrap();
    let content = |name: String| (disk.content(format!("log/{name}")).unwrap(), name);
    names.into_iter().map(content).map(|(content, name)| (name, content)).collect()
}

#[test]
fn a_journal_opened_for_reading_only_is_left_as_it_is() {
    let disk = MemoryDisk::new();
    let model = segmented(&disk);
    let last = disk.list("log".as_ref()).unwrap().into_iter().rfind(|name| name.ends_with(".seg"));
    let last = format!("log/{}", last.unwrap());
    let end = disk.content(&last).unwrap().iter().rposition(|byte| *byte != 0).unwrap();
    let file = disk.open(last.as_ref(), OpenMode::ReadWrite).unwrap();
    // A frame that was being written when the power went, and a file that was being made.
    file.write_at(b"torn", u64::try_from(end).unwrap() + 9).unwrap();
    disk.open("log/x.tmp".as_ref(), OpenMode::CreateNew).unwrap();
    let before = files(&disk);

    let mut to_read = options(900);
    to_read.read_only = true;
    let (mut journal, recovery) =
        Journal::open(Arc::new(disk.clone()), "log", to_read.clone()).unwrap();
    assert!(recovery.torn.is_some() && recovery.damaged.is_empty(), "{recovery:?}");
    assert_eq!(shown(&journal), model);
    assert!(matches!(journal.append(&items(13, &["x"])), Err(AppendError::Damaged)));
    assert!(matches!(journal.mark(), Err(JournalError::Damaged)));
    assert!(matches!(open(&disk, 900), Err(OpenError::Locked { .. })), "it is in use all the same");
    journal.close().unwrap();
    assert_eq!(files(&disk), before);

    let none = Journal::open(Arc::new(MemoryDisk::new()), "log", to_read.clone());
    assert!(none.is_err(), "there is no directory");
    let empty = MemoryDisk::new();
    empty.create_dir("log".as_ref()).unwrap();
    let none = Journal::open(Arc::new(empty.clone()), "log", to_read);
    assert!(matches!(none, Err(OpenError::Missing { .. })));
    assert_eq!(files(&empty), []);
}

#[test]
fn another_journal_is_refused() {
    let disk = MemoryDisk::new();
    segmented(&disk);
    let mut other = options(900);
    other.id ^= 1 << 80;
    match Journal::open(Arc::new(disk), "log", other) {
        Err(OpenError::OtherJournal { found: ID, .. }) => {}
        other => panic!("{other:?}"),
    }
}

#[test]
fn names_that_are_no_segments_are_ignored_or_refused() {
    let disk = MemoryDisk::new();
    let model = segmented(&disk);
    disk.set_content("log/notes.txt", "keep");
    disk.set_content("log/00000000000000000002.seg.tmp", "half a segment");
    let (journal, recovery) = open(&disk, 900).unwrap();
    assert_eq!(recovery.ignored, ["notes.txt"]);
    assert_eq!(shown(&journal), model);
    drop(journal);
    assert!(disk.content("log/notes.txt").is_ok());
    assert!(disk.content("log/00000000000000000002.seg.tmp").is_err());

    disk.set_content("log/3.seg", disk.content(segment_path(3)).unwrap());
    assert!(matches!(open(&disk, 900), Err(OpenError::SegmentName { name }) if name == "3.seg"));
}

#[test]
fn a_segment_under_another_name_is_no_segment() {
    let disk = MemoryDisk::new();
    segmented(&disk);
    disk.set_content(segment_path(3), disk.content(segment_path(2)).unwrap());
    let (_, recovery) = open(&disk, 900).unwrap();
    let kinds: Vec<_> = recovery.damaged.iter().map(|d| (d.segment, d.kind)).collect();
    assert_eq!(kinds, [(3, DamageKind::SegmentHeader), (3, DamageKind::Frames)]);
}

#[test]
fn missing_segments_are_damage_wherever_they_are_missed() {
    for missing in [vec![1], vec![3], vec![1, 2], vec![2, 3]] {
        let disk = MemoryDisk::new();
        let model = segmented(&disk);
        for number in &missing {
            disk.remove(&segment_path(*number)).unwrap();
        }
        let (mut journal, recovery) = open(&disk, 900).unwrap();
        assert_eq!(recovery.damaged.len(), 1, "{missing:?}: {:?}", recovery.damaged);
        let damage = &recovery.damaged[0];
        let end = missing[missing.len() - 1] + 1;
        assert_eq!(damage.kind, DamageKind::SegmentsMissing { end });
        assert_eq!(damage.segment, missing[0]);
        let held = read_all(&journal.reader());
        for (position, bytes) in &model.items {
            if damage.items.contains(position) {
                let read = journal.reader().read(*position..*position + 1, 0);
                assert!(matches!(read, Err(ReadError::Damaged { .. })), "{read:?}");
            } else {
                assert_eq!(held.get(position), Some(bytes));
            }
        }
        assert_eq!(recovery.state, model.state);
        assert!(!recovery.state_damaged);
        let refused = journal.append(&items(model.next, &["more"]));
        assert!(matches!(refused, Err(AppendError::Damaged)));
        assert!(matches!(journal.sync(), Err(JournalError::Damaged)));
        assert!(matches!(journal.compact(5), Err(JournalError::Damaged)));
        journal.close().unwrap();
    }
}

#[test]
fn a_journal_without_any_of_its_segments_is_not_taken_for_a_new_one() {
    let disk = MemoryDisk::new();
    drop(open(&disk, 4096).unwrap());
    disk.remove(&segment_path(1)).unwrap();
    assert!(matches!(open(&disk, 4096), Err(OpenError::SegmentsLost { .. })));
}

#[test]
fn segments_double_in_length_and_a_long_frame_gets_one_of_its_own() {
    let disk = MemoryDisk::new();
    let mut options = options(1024);
    options.segment_size_max = 8192;
    let (mut journal, _) = Journal::open(Arc::new(disk), "log", options).unwrap();
    for _ in 0..40 {
        let next = journal.positions().end;
        journal.append(&items(next, &[&"x".repeat(400)])).unwrap();
    }
    let next = journal.positions().end;
    journal.append(&items(next, &[&"x".repeat(20_000)])).unwrap();
    journal.sync().unwrap();
    let lengths: Vec<u64> = journal.segments().iter().map(|segment| segment.length).collect();
    assert_eq!(lengths[..4], [1024, 2048, 4096, 8192]);
    assert!(*lengths.last().unwrap() > 20_000, "{lengths:?}");
    let sum: u64 = lengths.iter().sum();
    assert_eq!(journal.status().bytes_on_disk(), sum + 8192);
}

#[test]
fn a_journal_lives_on_the_real_disk() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("deep/down/log");
    let open = || Journal::open(Arc::new(RealDisk), &path, options(4096)).unwrap();
    let (mut journal, recovery) = open();
    assert!(recovery.created);
    let mut model = Model::new();
    for number in 1..=40 {
        let batch = with_state(items(number, &[&format!("{number}").repeat(100)]), "state");
        journal.append(&batch).unwrap();
        journal.sync().unwrap();
        model.apply(&batch);
    }
    let again = Journal::open(Arc::new(RealDisk), &path, JournalOptions::new(ID));
    assert!(matches!(again, Err(OpenError::Locked { .. })));
    let reader = journal.reader();
    assert_eq!(read_all(&reader), model.items);
    assert!(journal.compact(20).unwrap() > 0);
    drop(journal);
    let (journal, recovery) = open();
    assert!(recovery.damaged.is_empty() && recovery.torn.is_none());
    let found = shown(&journal);
    assert!(found.items.iter().all(|(position, bytes)| model.items[position] == *bytes));
    assert!(found.items.contains_key(&20) && found.items.contains_key(&40));
}
