//! Disks that do worse than crash: one test for each way.

use std::path::Path;
use std::time::Duration;

use lattice_journal::{Disk, DiskFile, OpenMode};
use lattice_sim::disk::SECTOR;
use lattice_sim::{DiskLatency, DiskOptions, SimDisk, Span, Survival};

const LOG: &str = "log";
const MILLISECOND: Duration = Duration::from_millis(1);

/// A disk with one file of four sectors, each filled with its number from 1, all durable.
fn written() -> (SimDisk, Box<dyn DiskFile>) {
    let disk = SimDisk::new(1);
    let file = disk.open(Path::new(LOG), OpenMode::CreateNew).unwrap();
    for number in 1..=4u8 {
        file.write_at(&[number; 512], u64::from(number - 1) * SECTOR).unwrap();
    }
    file.sync_data().unwrap();
    disk.sync_dir(Path::new("")).unwrap();
    (disk, file)
}

fn read(file: &dyn DiskFile) -> Vec<u8> {
    let mut bytes = vec![0; usize::try_from(file.length().unwrap()).unwrap()];
    file.read_at(&mut bytes, 0).unwrap();
    bytes
}

fn reopened(disk: &SimDisk) -> Vec<u8> {
    read(&*disk.open(Path::new(LOG), OpenMode::Read).unwrap())
}

/// The first byte of each sector.
fn sectors(bytes: &[u8]) -> Vec<u8> {
    bytes.chunks(512).map(|sector| sector[0]).collect()
}

#[test]
fn bits_that_rot_are_seen_at_once_and_stay_wrong() {
    let (disk, file) = written();
    disk.rot(Path::new(LOG), 513..514, 0x80).unwrap();
    let mut expected = read(&*file);
    assert_eq!(expected[513], 2 ^ 0x80);
    expected[513] = 2;
    assert!(expected.chunks(512).zip(1..).all(|(sector, number)| sector == [number; 512]));
    disk.crash();
    assert_eq!(reopened(&disk)[513], 2 ^ 0x80);
    assert_eq!(disk.counts().damaged, 1);
}

#[test]
fn what_is_yet_to_be_written_goes_over_the_damage() {
    let (disk, file) = written();
    file.write_at(&[9; 10], 512).unwrap();
    disk.rot(Path::new(LOG), 512..1024, 0xff).unwrap();
    assert_eq!(read(&*file)[512..522], [9; 10], "the cache has it");
    file.sync_data().unwrap();
    disk.crash();
    let bytes = reopened(&disk);
    assert_eq!(bytes[512..522], [9; 10]);
    assert_eq!(bytes[522], 2 ^ 0xff);
}

#[test]
fn a_lost_write_shows_until_the_process_ends() {
    let (disk, file) = written();
    disk.lose_write_at(2);
    file.write_at(&[5; 512], 0).unwrap();
    file.write_at(&[6; 512], 512).unwrap();
    file.write_at(&[7; 512], 4 * SECTOR).unwrap();
    file.sync_data().unwrap();
    assert_eq!(sectors(&read(&*file)), [5, 6, 3, 4, 7]);
    disk.kill();
    assert_eq!(sectors(&reopened(&disk)), [5, 2, 3, 4, 7], "the sector is stale");
}

#[test]
fn a_misdirected_write_harms_two_places() {
    let (disk, file) = written();
    disk.misdirect_write_at(1, 2 * SECTOR);
    file.write_at(&[9; 512], 4 * SECTOR).unwrap();
    file.sync_data().unwrap();
    disk.crash();
    assert_eq!(sectors(&reopened(&disk)), [1, 2, 9, 4, 0]);
}

#[test]
fn damage_at_rest_is_zeros_or_another_sector() {
    let (disk, _file) = written();
    disk.forget(Path::new(LOG), 100..512).unwrap();
    disk.overwrite_with(Path::new(LOG), 1024..1536, 3 * SECTOR).unwrap();
    disk.crash();
    let bytes = reopened(&disk);
    assert_eq!(bytes[..100], [1; 100]);
    assert_eq!(bytes[100..512], [0; 412]);
    assert_eq!(sectors(&bytes)[1..], [2, 4, 4]);
    assert!(disk.rot(Path::new("nothing"), 0..1, 1).is_err());
}

#[test]
fn reads_fail_or_see_another_place_where_they_are_told_to_and_only_until_then() {
    let (disk, file) = written();
    let mut sector = [0; 512];
    disk.fail_reads(Path::new(LOG), 512..1024).unwrap();
    assert!(file.read_at(&mut sector, 1023).is_err());
    assert!(file.read_at(&mut sector, 1024).is_ok());
    disk.clear_bad_reads();
    disk.misdirect_reads(Path::new(LOG), 512..1024, 3 * SECTOR).unwrap();
    assert_eq!(sectors(&read(&*file)), [1, 4, 3, 4]);
    let mut half = [0; 512];
    file.read_at(&mut half, 256).unwrap();
    assert_eq!((half[0], half[255], half[256], half[511]), (1, 1, 4, 4));
    disk.clear_bad_reads();
    assert_eq!(sectors(&read(&*file)), [1, 2, 3, 4]);
    assert_eq!((disk.counts().bad_reads, disk.counts().damaged), (3, 0));
}

#[test]
fn a_sync_that_lies_keeps_nothing_and_an_honest_one_makes_up_for_it() {
    let (disk, file) = written();
    disk.set_syncs_lie(true);
    file.write_at(&[8; 512], 0).unwrap();
    file.sync_data().unwrap();
    disk.crash_with(Survival::Nothing);
    assert_eq!(sectors(&reopened(&disk)), [1, 2, 3, 4]);
    assert_eq!(disk.counts().lies, 1);

    let file = disk.open(Path::new(LOG), OpenMode::ReadWrite).unwrap();
    file.write_at(&[9; 512], 0).unwrap();
    file.sync_data().unwrap();
    disk.set_syncs_lie(false);
    file.sync_data().unwrap();
    disk.crash_with(Survival::Nothing);
    assert_eq!(sectors(&reopened(&disk)), [9, 2, 3, 4]);
}

fn timed() -> (SimDisk, Box<dyn DiskFile>) {
    let latency =
        DiskLatency { sync: Span::new(MILLISECOND, MILLISECOND), ..DiskLatency::default() };
    let disk = SimDisk::with_options(1, DiskOptions { latency, ..DiskOptions::default() });
    let file = disk.open(Path::new(LOG), OpenMode::CreateNew).unwrap();
    disk.sync_dir(Path::new("")).unwrap();
    disk.set_now(10 * MILLISECOND);
    (disk, file)
}

#[test]
fn a_stall_lets_what_was_issued_end_and_holds_up_what_follows() {
    let (disk, file) = timed();
    file.write_at(b"before", 0).unwrap();
    file.sync_data().unwrap();
    disk.stall(500 * MILLISECOND);
    file.write_at(b"behind", 0).unwrap();
    file.sync_data().unwrap();
    assert_eq!(disk.busy_until(), 512 * MILLISECOND);
    disk.set_now(511 * MILLISECOND);
    assert!(!disk.is_stalled());
    disk.crash_with(Survival::Nothing);
    assert_eq!(reopened(&disk), b"before");
}

#[test]
fn a_disk_that_hangs_works_again_after_a_power_cut_and_not_after_a_kill() {
    let (disk, file) = timed();
    disk.hang();
    file.write_at(b"never", 0).unwrap();
    file.sync_data().unwrap();
    disk.set_now(Duration::from_secs(1_000_000));
    disk.kill();
    assert!(disk.is_stalled());
    assert!(reopened(&disk).is_empty());
    let file = disk.open(Path::new(LOG), OpenMode::ReadWrite).unwrap();
    file.write_at(b"never", 0).unwrap();
    assert!(disk.busy_until() > Duration::from_secs(2_000_000));
    disk.crash();
    assert!(!disk.is_stalled());
    assert!(reopened(&disk).is_empty());
    assert_eq!(disk.busy_until(), Duration::from_secs(1_000_000));
}

#[test]
fn a_lost_disk_is_blank_and_usable() {
    let (disk, file) = written();
    disk.blank();
    assert!(file.read_at(&mut [0; 1], 0).is_err());
    assert_eq!((disk.list(Path::new("")).unwrap().len(), disk.used()), (0, 0));
    assert!(disk.durable_files().is_empty());
    let file = disk.open(Path::new(LOG), OpenMode::CreateNew).unwrap();
    file.write_at(b"new", 0).unwrap();
    file.sync_data().unwrap();
    disk.sync_dir(Path::new("")).unwrap();
    disk.crash();
    assert_eq!(reopened(&disk), b"new");
}

#[test]
fn swapped_disks_have_each_others_durable_content() {
    let (one, _file) = written();
    let other = SimDisk::new(2);
    one.swap(&other);
    assert_eq!(sectors(&reopened(&other)), [1, 2, 3, 4]);
    assert!(one.list(Path::new("")).unwrap().is_empty());
    assert_eq!((one.used(), other.used()), (0, 4096));
    one.swap(&other);
    assert_eq!(sectors(&reopened(&one)), [1, 2, 3, 4]);
    assert_eq!(one.counts().swapped, 2);
}
