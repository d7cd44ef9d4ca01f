//! A full disk is met and passes; a failed sync is for ever.

use std::sync::Arc;

use lattice_journal::{AppendError, Batch, Disk as _, Journal, JournalError};
use lattice_sim::{DiskOptions, SimDisk};

use crate::support::{Model, items, open, options, read_all, segment_path, shown, with_state};

const SEGMENT: u64 = 16 * 1024;

#[test]
fn a_full_disk_refuses_appends_and_compaction_brings_them_back() {
    let disk = SimDisk::new(1);
    disk.set_capacity(Some(5 * SEGMENT));
    let (mut journal, _) = open(&disk, SEGMENT).unwrap();
    let status = journal.status();
    let mut model = Model::new();
    let mut warned_at = None;
    let refused = loop {
        let batch = with_state(items(model.next, &[&"x".repeat(500)]), "state");
        match journal.append(&batch) {
            Ok(()) => model.apply(&batch),
            Err(error) => break error,
        }
        journal.sync().unwrap();
        if status.low_space() {
            warned_at.get_or_insert(model.next);
        }
    };
    assert!(matches!(refused, AppendError::NoSpace { .. }), "{refused}");
    let warned_at = warned_at.expect("the status warns before the first refusal");
    assert!(model.next - warned_at > 10, "there is room between the warning and the refusal");
    assert!(!status.failed());

    // Reading and syncing go on, and a refusal can be repeated.
    assert_eq!(shown(&journal), model);
    journal.mark().unwrap();
    let batch = items(model.next, &[&"y".repeat(500)]);
    assert!(matches!(journal.append(&batch), Err(AppendError::NoSpace { .. })));
    assert_eq!(journal.positions().end, model.next);

    // What the log holds now is also there after a crash.
    drop(journal);
    disk.crash();
    let (mut journal, recovery) = open(&disk, SEGMENT).unwrap();
    assert_eq!((recovery.torn, recovery.damaged), (None, Vec::new()));
    let status = journal.status();
    assert!(status.low_space());
    assert_eq!(shown(&journal), model);

    assert!(journal.compact(model.next - 5).unwrap() > 0);
    assert!(!status.low_space());
    journal.append(&batch).unwrap();
    journal.sync().unwrap();
    model.apply(&batch);
    let start = journal.positions().start;
    assert_eq!(read_all(&journal.reader()), model.items.split_off(&start));
}

#[test]
fn of_batches_appended_together_none_is_taken_where_one_is_refused() {
    let disk = SimDisk::new(1);
    let (mut journal, _) = open(&disk, SEGMENT).unwrap();
    let mut model = Model::new();
    let safe = with_state(items(1, &["safe"]), "state");
    journal.append_all(std::slice::from_ref(&safe)).unwrap();
    model.apply(&safe);
    journal.sync().unwrap();

    let good = with_state(items(2, &["good"]), "another state");
    let far = items(4, &["far"]);
    let refused = journal.append_all(&[good.clone(), far]).unwrap_err();
    assert!(matches!(refused, AppendError::Position { expected: 3, found: 4 }), "{refused}");
    let back = Batch { truncate_from: Some(9), ..items(9, &["nine"]) };
    let refused = journal.append_all(&[good.clone(), back]).unwrap_err();
    assert!(matches!(refused, AppendError::Truncation { from: 9, .. }), "{refused}");

    // A disk with room for the first of two and not for both: neither a frame nor a segment is begun.
    disk.set_capacity(Some(disk.used()));
    let long = "x".repeat(usize::try_from(SEGMENT).unwrap());
    let both = [good.clone(), items(3, &[&long, &long])];
    let segments = journal.segments();
    let refused = journal.append_all(&both).unwrap_err();
    assert!(matches!(refused, AppendError::NoSpace { .. }), "{refused}");
    assert_eq!((journal.positions(), journal.segments()), (1..2, segments));
    journal.sync().unwrap();
    assert_eq!(shown(&journal), model);
    disk.set_capacity(None);
    journal.append_all(&both).unwrap();
    both.iter().for_each(|batch| model.apply(batch));
    journal.append_all::<Vec<u8>>(&[]).unwrap();
    journal.sync().unwrap();
    assert_eq!(shown(&journal), model);
}

#[test]
fn a_group_of_batches_is_one_write_and_one_sync() {
    let disk = SimDisk::new(1);
    let (mut journal, _) = open(&disk, SEGMENT).unwrap();
    let before = disk.counts();
    let batches: Vec<Batch> = (1..=20).map(|first| items(first, &["item"])).collect();
    journal.append_all(&batches).unwrap();
    journal.sync().unwrap();
    let after = disk.counts();
    assert_eq!((after.calls - before.calls, after.syncs - before.syncs), (2, 1));
    assert_eq!(journal.reader().positions(), 1..21);
}

#[test]
fn small_writes_find_their_blocks_ready_and_large_ones_need_none() {
    let options = DiskOptions { writes_zeros: true, ..DiskOptions::default() };
    let disk = SimDisk::with_options(1, options);
    let (mut journal, _) = open(&disk, 4 << 20).unwrap();
    let mut written = |length: usize| {
        let before = disk.counts();
        let next = journal.positions().end;
        journal.append(&items(next, &[&"x".repeat(length)])).unwrap();
        journal.sync().unwrap();
        (disk.counts().writes - before.writes, disk.counts().bytes - before.bytes)
    };
    // The first one brings the zeros for many.
    let (writes, bytes) = written(400);
    assert!(writes == 2 && bytes > 200 << 10, "{writes} writes of {bytes} bytes");
    for _ in 0..100 {
        assert_eq!(written(400), (1, 400 + 96));
    }
    // Its bytes go beyond what is ready, and are written once.
    let (writes, bytes) = written(400 << 10);
    assert!(writes == 1 && bytes < 401 << 10, "{writes} writes of {bytes} bytes");
    assert_eq!(written(400).0, 2);
    assert_eq!(written(400).0, 1);
}

#[test]
fn space_that_others_free_is_found_when_idle() {
    let disk = SimDisk::new(2);
    disk.set_capacity(Some(2 * SEGMENT));
    let (mut journal, _) = open(&disk, SEGMENT).unwrap();
    assert!(!journal.status().low_space());
    while !journal.status().low_space() {
        journal.append(&items(journal.positions().end, &[&"x".repeat(500)])).unwrap();
        journal.sync().unwrap();
    }
    disk.set_capacity(None);
    journal.mark().unwrap();
    assert!(!journal.status().low_space());
}

#[test]
fn a_small_spare_makes_way_for_a_full_one_when_there_is_room() {
    let disk = SimDisk::new(2);
    // Room for a segment, for the next one of twice its length, and then only for a small spare.
    disk.set_capacity(Some(4 * SEGMENT));
    let mut growing = options(SEGMENT);
    growing.segment_size_max = 8 * SEGMENT;
    let (mut journal, _) = Journal::open(Arc::new(disk.clone()), "log", growing).unwrap();
    while !journal.status().low_space() {
        journal.append(&items(journal.positions().end, &[&"x".repeat(500)])).unwrap();
        journal.sync().unwrap();
    }
    assert!(disk.list("log".as_ref()).unwrap().iter().any(|name| name == "spare"), "a small one");
    journal.mark().unwrap();
    assert!(journal.status().low_space());
    disk.set_capacity(None);
    journal.mark().unwrap();
    assert!(!journal.status().low_space());
}

#[test]
fn compaction_works_on_a_disk_that_stays_full() {
    let disk = SimDisk::new(3);
    disk.set_capacity(Some(4 * SEGMENT));
    let (mut journal, _) = open(&disk, SEGMENT).unwrap();
    while journal.append(&items(journal.positions().end, &[&"x".repeat(500)])).is_ok() {
        journal.sync().unwrap();
    }
    // Somebody else takes whatever is freed.
    disk.set_capacity(Some(0));
    let end = journal.positions().end;
    assert!(journal.compact(end / 2).unwrap() > 0);
    assert!(journal.compact(end).unwrap() > 0);
    assert!(journal.status().low_space());
    drop(journal);
    disk.crash();
    let (journal, recovery) = open(&disk, SEGMENT).unwrap();
    assert_eq!((recovery.torn, recovery.damaged.len()), (None, 0));
    assert_eq!(journal.positions().end, end);
}

#[test]
fn a_failed_sync_poisons_the_journal() {
    let disk = SimDisk::new(4);
    let (mut journal, _) = open(&disk, SEGMENT).unwrap();
    let mut model = Model::new();
    let batch = items(1, &["safe"]);
    journal.append(&batch).unwrap();
    journal.sync().unwrap();
    model.apply(&batch);

    journal.append(&items(2, &["never acknowledged"])).unwrap();
    disk.fail_sync_at(1);
    let first = journal.sync().unwrap_err();
    assert!(matches!(first, JournalError::Fatal(_)), "{first}");
    assert!(journal.status().failed());
    // The disk would work again; the journal must not believe it.
    let again = [
        journal.sync().unwrap_err().to_string(),
        journal.mark().unwrap_err().to_string(),
        journal.compact(2).unwrap_err().to_string(),
        journal.replace_segment(1, &mut |_, _| None).unwrap_err().to_string(),
        journal.append(&items(3, &["more"])).unwrap_err().to_string(),
    ];
    assert!(again.iter().all(|error| *error == first.to_string()), "{again:?}");
    assert_eq!(journal.reader().positions(), 1..2, "what is not durable is not shown");
    assert_eq!(journal.close().unwrap_err().to_string(), first.to_string());

    disk.crash();
    let (journal, recovery) = open(&disk, SEGMENT).unwrap();
    assert_eq!(recovery.damaged, []);
    assert_eq!(shown(&journal), model);
}

#[test]
fn what_is_shown_after_a_failed_sync_and_a_kill_survives_a_crash() {
    // The process dies of the failed sync, the machine lives on. Whatever the next process shows must survive a crash.
    for seed in 0..20 {
        let disk = SimDisk::new(seed);
        let (mut journal, _) = open(&disk, SEGMENT).unwrap();
        journal.append(&items(1, &["safe"])).unwrap();
        journal.sync().unwrap();
        journal.append(&items(2, &["in the cache only"])).unwrap();
        disk.fail_sync_at(1);
        journal.sync().unwrap_err();
        drop(journal);
        disk.kill();
        let (mut journal, _) = open(&disk, SEGMENT).unwrap();
        let next = journal.positions().end;
        journal.append(&items(next, &["acknowledged"])).unwrap();
        journal.sync().unwrap();
        let model = shown(&journal);
        drop(journal);
        disk.crash();
        let (journal, recovery) = open(&disk, SEGMENT).unwrap();
        assert_eq!(recovery.damaged, []);
        assert_eq!(shown(&journal), model);
    }
}

#[test]
fn every_failing_sync_of_a_rotation_is_final() {
    for nth in 1..=4 {
        let disk = SimDisk::new(5);
        let (mut journal, _) = open(&disk, SEGMENT).unwrap();
        let mut acknowledged = Model::new();
        let mut model = Model::new();
        disk.fail_sync_at(30 + nth);
        let error = loop {
            let batch = items(model.next, &[&"x".repeat(500)]);
            if let Err(error) = journal.append(&batch) {
                break error.to_string();
            }
            model.apply(&batch);
            if let Err(error) = journal.sync() {
                break error.to_string();
            }
            acknowledged = model.clone();
        };
        assert!(error.contains("syncing"), "{error}");
        drop(journal);
        disk.crash();
        let (journal, recovery) = open(&disk, SEGMENT).unwrap();
        assert_eq!(recovery.damaged, []);
        let found = shown(&journal);
        assert!(found == acknowledged || found == model, "{nth}");
    }
}

#[test]
fn damage_on_the_simulated_disk_is_reported() {
    let disk = SimDisk::new(6);
    let (mut journal, _) = open(&disk, SEGMENT).unwrap();
    journal.append(&items(1, &["one"])).unwrap();
    journal.append(&items(2, &["two"])).unwrap();
    journal.close().unwrap();
    disk.damage(&segment_path(1), &[0xff; 8], 64 + 104 + 16).unwrap();
    let (_, recovery) = open(&disk, SEGMENT).unwrap();
    assert_eq!(recovery.damaged[0].items, 1..2);
}
