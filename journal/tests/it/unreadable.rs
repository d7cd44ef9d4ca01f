//! Sectors that cannot be read: for good, which is damage of a block, or once, which is nothing.

use std::collections::BTreeMap;
use std::sync::Arc;

use lattice_journal::{DamageKind, Journal, OpenError, Recovery};
use lattice_sim::SimDisk;
use lattice_sim::disk::SECTOR;

use crate::support::{items, options, read_all, segment_path, with_state};

const SEGMENT: u64 = 32 << 10;
const ITEMS: u64 = 60;

fn try_open(disk: &SimDisk, repairs: bool) -> Result<(Journal, Recovery), OpenError> {
    let mut options = options(SEGMENT);
    options.repairs = repairs;
    Journal::open(Arc::new(disk.clone()), "log", options)
}

fn open(disk: &SimDisk) -> (Journal, Recovery) {
    try_open(disk, true).unwrap()
}

fn item(position: u64) -> String {
    format!("{position:04}").repeat(300)
}

/// A closed log of three segments and a few KiB, with an item of 1200 bytes in each frame.
fn sample() -> SimDisk {
    let disk = SimDisk::new(1);
    let (mut journal, _) = open(&disk);
    for position in 1..=ITEMS {
        journal.append(&items(position, &[&item(position)])).unwrap();
        journal.sync().unwrap();
    }
    assert_eq!(journal.segments().len(), 3);
    journal.close().unwrap();
    disk
}

fn whole() -> BTreeMap<u64, Vec<u8>> {
    (1..=ITEMS).map(|position| (position, item(position).into_bytes())).collect()
}

#[test]
fn an_unreadable_sector_costs_the_items_of_its_block_until_they_are_put_back() {
    for sector in [0, 9, 33] {
        let disk = sample();
        let bytes = sector * SECTOR..(sector + 1) * SECTOR;
        disk.fail_reads(&segment_path(2), bytes.clone()).unwrap();

        let (mut journal, recovery) = open(&disk);
        assert_eq!(recovery.positions, 1..ITEMS + 1);
        let kinds: Vec<_> = recovery.damaged.iter().map(|damage| damage.kind).collect();
        assert!(kinds.contains(&DamageKind::Unreadable), "sector {sector}: {recovery:?}");
        let lost = journal.reader().damaged();
        let [lost] = &lost[..] else { panic!("one range is lost: {lost:?}") };
        assert!(lost.end - lost.start <= 5, "a block of 4096 bytes meets 5 items: {lost:?}");
        let mut left = whole();
        left.retain(|position, _| !lost.contains(position));
        assert_eq!(read_all(&journal.reader()), left);

        let items: Vec<_> = lost.clone().map(item).collect();
        journal.mend(lost.start, &items).unwrap();
        journal.sync().unwrap();
        assert_eq!(read_all(&journal.reader()), whole());
        drop(journal);
        disk.crash();
        assert_eq!(read_all(&open(&disk).0.reader()), whole());
    }
}

#[test]
fn who_does_not_repair_is_told_which_bytes_of_which_file_cannot_be_read() {
    let disk = sample();
    disk.fail_reads(&segment_path(2), 5000..5001).unwrap();
    let (mut journal, recovery) = try_open(&disk, false).unwrap();
    let told = recovery.damaged[0].to_string();
    assert!(told.starts_with("segment 2: unreadable bytes "), "{told}");
    let bytes = &recovery.damaged[0].bytes;
    assert!(bytes.start <= 5000 && 5000 < bytes.end && bytes.end - bytes.start < 8 << 10, "{told}");
    assert!(journal.append(&items(ITEMS + 1, &["more"])).is_err());
}

#[test]
fn an_end_that_cannot_be_read_is_no_torn_tail() {
    let disk = sample();
    let (mut journal, _) = open(&disk);
    // Nothing vouches for this one, and it was acknowledged.
    journal.append(&items(ITEMS + 1, &["acknowledged"])).unwrap();
    journal.sync().unwrap();
    drop(journal);
    disk.crash();
    let path = segment_path(3);
    let end = disk.durable_bytes(&path, 0..SEGMENT).iter().rposition(|byte| *byte != 0).unwrap();
    let end = u64::try_from(end).unwrap();
    disk.fail_reads(&path, end..end + 1).unwrap();
    let (mut journal, recovery) = open(&disk);
    assert!(recovery.end_lost, "{recovery:?}");
    assert!(journal.append(&items(ITEMS + 1, &["another"])).is_err());
    disk.clear_bad_reads();
    drop(journal);
    let (journal, recovery) = open(&disk);
    assert!(recovery.damaged.is_empty(), "nothing was written: {recovery:?}");
    assert_eq!(journal.positions().end, ITEMS + 2);
}

#[test]
fn what_cannot_be_read_before_an_intact_frame_is_no_torn_tail_either() {
    // Where the first of two frames begins that are durable together, and that nothing vouches for: acknowledged all the same.
    let with_filler = |length: usize| {
        let disk = SimDisk::new(1);
        let (mut journal, _) = open(&disk);
        journal.append(&items(1, &[&"x".repeat(length)])).unwrap();
        journal.mark().unwrap();
        for position in 2..=3 {
            journal.append(&items(position, &[&"acknowledged".repeat(1000)])).unwrap();
        }
        journal.sync().unwrap();
        drop(journal);
        disk.crash();
        let content = disk.durable_bytes(&segment_path(1), 0..SEGMENT);
        let item = content.windows(12).position(|bytes| bytes == b"acknowledged").unwrap();
        let head = content[..item].windows(4).rposition(|bytes| bytes == b"LFRM").unwrap();
        (disk, head, content)
    };
    let (_, head, _) = with_filler(1000);
    let (disk, head, content) = with_filler(1000 + 4096 - head % 4096);
    assert_eq!(head % 4096, 0, "its block has nothing of the frame before it");
    let head = u64::try_from(head).unwrap();
    disk.fail_reads(&segment_path(1), head..head + 1).unwrap();
    let (journal, recovery) = open(&disk);
    assert!(recovery.end_lost && recovery.torn.is_none(), "{recovery:?}");
    assert_eq!(disk.durable_bytes(&segment_path(1), 0..SEGMENT), content, "nothing was written");
    drop(journal);
    disk.clear_bad_reads();
    assert_eq!(open(&disk).0.positions(), 1..4);
}

#[test]
fn a_state_is_read_although_items_beside_it_cannot_be() {
    let disk = SimDisk::new(1);
    let (mut journal, _) = open(&disk);
    journal.append(&with_state(items(1, &[&item(1), &"x".repeat(9000)]), "the state")).unwrap();
    journal.sync().unwrap();
    // It vouches for the first.
    journal.append(&items(3, &["three"])).unwrap();
    journal.sync().unwrap();
    drop(journal);
    disk.crash();
    disk.fail_reads(&segment_path(1), 6000..6001).unwrap();
    let (journal, recovery) = open(&disk);
    assert_eq!(journal.reader().damaged()[..], *std::slice::from_ref(&(2..3)));
    assert_eq!(recovery.state.as_deref(), Some(&b"the state"[..]));
    assert!(!recovery.state_damaged && !recovery.end_lost);
    assert_eq!(journal.reader().read(1..2, 0).unwrap()[0].bytes, item(1).as_bytes());
    assert_eq!(journal.reader().read(3..4, 0).unwrap()[0].bytes, b"three");
}

#[test]
fn an_unreadable_sector_where_nothing_is_yet_is_written_over() {
    let disk = sample();
    let path = segment_path(3);
    disk.fail_reads(&path, SEGMENT - 1..SEGMENT).unwrap();
    let (journal, recovery) = open(&disk);
    assert!(recovery.damaged.is_empty(), "{recovery:?}");
    assert_eq!(read_all(&journal.reader()), whole());
    let met = disk.counts().bad_reads;
    drop(journal);
    drop(open(&disk));
    assert_eq!(disk.counts().bad_reads, met, "it reads well since it was written");
}

#[test]
fn a_read_that_is_bad_once_is_no_damage() {
    for segment in 1..=3 {
        for sector in 0..SEGMENT / SECTOR {
            let bytes = sector * SECTOR..(sector + 1) * SECTOR;
            let path = segment_path(segment);
            for is_misdirected in [false, true] {
                let disk = sample();
                let spoil = || match is_misdirected {
                    true => disk.misdirect_next_read(&path, bytes.clone(), 7 * SECTOR + 100),
                    false => disk.fail_next_read(&path, bytes.clone()),
                };
                spoil().unwrap();
                let (journal, recovery) = open(&disk);
                let what = format!("sector {sector} of segment {segment}: {recovery:?}");
                assert!(disk.counts().bad_reads > 0, "{what}");
                assert!(recovery.damaged.is_empty() && recovery.torn.is_none(), "{what}");
                spoil().unwrap();
                assert_eq!(read_all(&journal.reader()), whole(), "{what}");
            }
        }
    }
}

#[test]
fn a_disk_that_reads_nothing_any_more_is_an_error_that_names_the_place() {
    let disk = SimDisk::new(1);
    let mut options = options(4 << 20);
    options.repairs = true;
    let (mut journal, _) = Journal::open(Arc::new(disk.clone()), "log", options.clone()).unwrap();
    journal.append(&items(1, &["one"])).unwrap();
    journal.close().unwrap();
    disk.fail_reads(&segment_path(1), 0..4 << 20).unwrap();
    let error = Journal::open(Arc::new(disk), "log", options).unwrap_err();
    let OpenError::Io { path, source, .. } = error else { panic!("{error}") };
    assert_eq!(path, segment_path(1));
    assert!(source.to_string().contains("at byte 1048576: "), "{source}");
}
