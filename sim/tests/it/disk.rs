//! The crash model of the simulated disk.

use std::io::ErrorKind;
use std::path::Path;
use std::time::Duration;

use lattice_journal::{Disk, DiskFile, OpenMode};
use lattice_sim::random::{below, index, stream};
use lattice_sim::{Chance, DiskLatency, DiskOptions, SimDisk, Span, Survival};

const TOP: &str = "";

fn create(disk: &SimDisk, name: &str) -> Box<dyn DiskFile> {
    let file = disk.open(Path::new(name), OpenMode::CreateNew).unwrap();
    disk.sync_dir(Path::new(TOP)).unwrap();
    file
}

fn content(disk: &SimDisk, name: &str) -> Vec<u8> {
    let file = disk.open(Path::new(name), OpenMode::Read).unwrap();
    let mut bytes = vec![0; usize::try_from(file.length().unwrap()).unwrap()];
    assert_eq!(file.read_at(&mut bytes, 0).unwrap(), bytes.len());
    bytes
}

fn names(disk: &SimDisk) -> Vec<String> {
    disk.list(Path::new(TOP)).unwrap()
}

#[test]
fn synced_bytes_survive_and_the_others_are_old_or_new_bytes() {
    let (mut lost, mut kept, mut mixed) = (0, 0, 0);
    for seed in 0..300 {
        let mut rng = stream(seed, "test", 0);
        let disk = SimDisk::new(seed);
        let file = create(&disk, "log");
        file.write_at(&[1; 20_000], 0).unwrap();
        file.sync_data().unwrap();
        let mut touched = vec![false; 20_000];
        for _ in 0..below(&mut rng, 6) + 1 {
            let at = index(&mut rng, 18_000);
            let length = index(&mut rng, 2_000) + 1;
            file.write_at(&vec![2; length], u64::try_from(at).unwrap()).unwrap();
            touched[at..at + length].fill(true);
        }
        disk.crash();
        let bytes = content(&disk, "log");
        assert_eq!(bytes.len(), 20_000);
        let new = bytes.iter().filter(|byte| **byte == 2).count();
        for (byte, touched) in bytes.iter().zip(&touched) {
            assert!(*byte == 1 || (*byte == 2 && *touched), "seed {seed}");
        }
        match new {
            0 => lost += 1,
            all if all == touched.iter().filter(|touched| **touched).count() => kept += 1,
            _ => mixed += 1,
        }
    }
    assert!(lost > 30 && kept > 30 && mixed > 30, "lost {lost}, kept {kept}, mixed {mixed}");
}

#[test]
fn a_torn_write_keeps_some_of_its_sectors() {
    let mut reordered = false;
    for seed in 0..200 {
        let disk = SimDisk::new(seed);
        let file = create(&disk, "log");
        file.allocate(8_192).unwrap();
        file.sync_data().unwrap();
        file.write_at(&[7; 8_192], 0).unwrap();
        disk.crash();
        let bytes = content(&disk, "log");
        assert_eq!(bytes.len(), 8_192);
        // A later sector is there and an earlier one is not.
        reordered |= bytes[0] == 0 && bytes[8_191] == 7;
    }
    assert!(reordered);
}

#[test]
fn a_write_is_visible_at_once() {
    let disk = SimDisk::new(1);
    let file = create(&disk, "log");
    file.write_at(b"hello", 3).unwrap();
    assert_eq!(content(&disk, "log"), b"\0\0\0hello");
    let mut end = [9; 10];
    assert_eq!(file.read_at(&mut end, 6).unwrap(), 2);
    assert_eq!(file.read_at(&mut end, 100).unwrap(), 0);
}

#[test]
fn a_file_whose_creation_was_not_synced_can_be_gone_with_its_synced_content() {
    let disk = SimDisk::new(1);
    let file = disk.open(Path::new("log"), OpenMode::CreateNew).unwrap();
    file.write_at(b"hello", 0).unwrap();
    file.sync_data().unwrap();
    disk.crash_with(Survival::Nothing);
    assert!(names(&disk).is_empty());
    assert_eq!(disk.used(), 0);
}

#[test]
fn a_rename_without_a_sync_of_its_directory_is_kept_or_lost_but_atomic() {
    let (mut old, mut new) = (0, 0);
    for seed in 0..100 {
        let disk = SimDisk::new(seed);
        create(&disk, "current").write_at(b"old", 0).unwrap();
        disk.open(Path::new("current"), OpenMode::Read).unwrap().sync_data().unwrap();
        let file = create(&disk, "next");
        file.write_at(b"new", 0).unwrap();
        file.sync_data().unwrap();
        disk.rename(Path::new("next"), Path::new("current")).unwrap();
        assert_eq!(content(&disk, "current"), b"new");
        disk.crash();
        match content(&disk, "current").as_slice() {
            b"old" => {
                assert_eq!(content(&disk, "next"), b"new");
                old += 1;
            }
            b"new" => {
                assert_eq!(names(&disk), ["current"]);
                new += 1;
            }
            other => panic!("neither old nor new: {other:?}"),
        }
    }
    assert!(old > 10 && new > 10, "old {old}, new {new}");
}

#[test]
fn a_synced_directory_keeps_its_names() {
    for seed in 0..50 {
        let disk = SimDisk::new(seed);
        disk.create_dir(Path::new("data/segments")).unwrap();
        let file = disk.open(Path::new("data/segments/1.new"), OpenMode::CreateNew).unwrap();
        file.write_at(b"one", 0).unwrap();
        file.sync_data().unwrap();
        disk.rename(Path::new("data/segments/1.new"), Path::new("data/segments/1")).unwrap();
        disk.sync_dir(Path::new("data/segments")).unwrap();
        disk.remove(Path::new("data/segments/1")).unwrap();
        disk.crash();
        assert_eq!(disk.list(Path::new("data")).unwrap(), ["segments"]);
        let left = disk.list(Path::new("./data/segments/")).unwrap();
        if !left.is_empty() {
            assert_eq!(left, ["1"]);
            assert_eq!(content(&disk, "data/segments/1"), b"one");
        }
    }
}

#[test]
fn what_a_failed_sync_covered_never_becomes_durable() {
    let disk = SimDisk::new(1);
    let file = create(&disk, "log");
    file.write_at(b"aaaa", 0).unwrap();
    disk.fail_sync_at(1);
    assert!(file.sync_data().is_err());
    assert_eq!(content(&disk, "log"), b"aaaa");
    file.write_at(b"b", 1).unwrap();
    file.sync_data().unwrap();
    assert_eq!(content(&disk, "log"), b"abaa");
    disk.crash_with(Survival::Everything);
    assert_eq!(content(&disk, "log"), b"\0b");
    assert_eq!(disk.counts().failed_syncs, 1);
}

#[test]
fn names_that_a_failed_sync_covered_never_become_durable() {
    let disk = SimDisk::new(1);
    create(&disk, "one");
    disk.rename(Path::new("one"), Path::new("two")).unwrap();
    disk.fail_sync_at(1);
    assert!(disk.sync_dir(Path::new(TOP)).is_err());
    disk.sync_dir(Path::new(TOP)).unwrap();
    assert_eq!(names(&disk), ["two"]);
    disk.crash_with(Survival::Everything);
    assert_eq!(names(&disk), ["one"]);
}

#[test]
fn syncs_fail_as_often_as_asked() {
    let disk = SimDisk::new(1);
    let file = create(&disk, "log");
    disk.set_sync_error(Chance::percent(50));
    let failed = (0..1_000).filter(|_| file.sync_data().is_err()).count();
    assert!((400..600).contains(&failed), "{failed}");
}

#[test]
fn a_full_disk_refuses_growth_and_nothing_else() {
    let disk =
        SimDisk::with_options(1, DiskOptions { capacity: Some(16 << 10), ..Default::default() });
    let file = create(&disk, "one");
    file.allocate(8 << 10).unwrap();
    let other = create(&disk, "two");
    other.write_at(&[1; 5_000], 0).unwrap();
    assert_eq!(disk.used(), 16 << 10);
    assert_eq!(file.allocate((8 << 10) + 1).unwrap_err().kind(), ErrorKind::StorageFull);
    assert_eq!(file.write_at(&[1; 2], 8_191).unwrap_err().kind(), ErrorKind::StorageFull);
    file.write_at(&[1; 8 << 10], 0).unwrap();
    file.sync_data().unwrap();
    disk.remove(Path::new("two")).unwrap();
    // The space comes back when the last handle is closed.
    assert!(file.allocate(16 << 10).is_err());
    drop(other);
    file.allocate(16 << 10).unwrap();
    disk.set_capacity(Some(0));
    file.write_at(&[2; 16 << 10], 0).unwrap();
    assert_eq!(disk.counts().full, 3);
}

#[test]
fn a_crash_can_fall_on_any_call() {
    let story = |disk: &SimDisk| -> std::io::Result<()> {
        let file = disk.open(Path::new("new"), OpenMode::CreateNew)?;
        file.write_at(b"state", 0)?;
        file.sync_data()?;
        disk.rename(Path::new("new"), Path::new("state"))?;
        disk.sync_dir(Path::new(TOP))
    };
    for calls in 0..5 {
        for seed in 0..20 {
            let disk = SimDisk::new(seed);
            disk.crash_after_calls(calls);
            assert!(story(&disk).is_err());
            assert!(disk.list(Path::new(TOP)).is_err(), "the machine is gone");
            assert_eq!(disk.counts().calls, calls);
            disk.crash();
            if names(&disk) == ["state"] {
                assert_eq!(content(&disk, "state"), b"state");
            }
        }
    }
    let disk = SimDisk::new(1);
    disk.crash_after_calls(5);
    story(&disk).unwrap();
    disk.crash_with(Survival::Nothing);
    assert_eq!(content(&disk, "state"), b"state");
}

#[test]
fn a_sync_that_ends_after_the_crash_has_not_happened() {
    let options = DiskOptions {
        latency: DiskLatency {
            write: Span::millis(1, 1),
            sync: Span::millis(10, 10),
            ..DiskLatency::default()
        },
        ..DiskOptions::default()
    };
    let run = |crash_at: u64, survival| {
        let disk = SimDisk::with_options(1, options);
        let file = disk.open(Path::new("log"), OpenMode::CreateNew).unwrap();
        disk.sync_dir(Path::new(TOP)).unwrap();
        disk.set_now(Duration::from_millis(100));
        file.write_at(b"one", 0).unwrap(); // 100 to 101
        file.sync_data().unwrap(); // 101 to 111
        file.write_at(b"two", 3).unwrap(); // 111 to 112
        assert_eq!(disk.busy_until(), Duration::from_millis(112));
        disk.set_now(Duration::from_millis(crash_at));
        disk.crash_with(survival);
        content(&disk, "log")
    };
    assert_eq!(run(110, Survival::Nothing), b"");
    assert_eq!(run(110, Survival::Everything), b"one", "the second write had not begun");
    assert_eq!(run(111, Survival::Nothing), b"one");
    assert_eq!(run(111, Survival::Everything), b"onetwo");
}

#[test]
fn the_end_of_a_process_takes_nothing_but_what_a_failed_sync_covered() {
    let disk = SimDisk::new(1);
    let file = create(&disk, "log");
    file.write_at(b"bad", 0).unwrap();
    disk.fail_sync_at(1);
    file.sync_data().unwrap_err();
    file.write_at(b"one", 3).unwrap();
    let _lock = disk.lock(Path::new("LOCK")).unwrap();
    disk.kill();
    assert_eq!(content(&disk, "log"), b"\0\0\0one");
    assert!(disk.lock(Path::new("LOCK")).is_ok());
    disk.crash_with(Survival::Nothing);
    assert_eq!(content(&disk, "log"), b"");
}

#[test]
fn a_lock_has_one_holder() {
    let disk = SimDisk::new(1);
    let lock = disk.lock(Path::new("LOCK")).unwrap();
    assert_eq!(disk.lock(Path::new("LOCK")).unwrap_err().kind(), ErrorKind::WouldBlock);
    disk.crash();
    let again = disk.lock(Path::new("LOCK")).unwrap();
    drop(lock);
    assert!(disk.lock(Path::new("LOCK")).is_err(), "a lock from before the crash frees nothing");
    drop(again);
    assert!(disk.lock(Path::new("LOCK")).is_ok());
}

#[test]
fn files_from_before_a_crash_are_dead() {
    let disk = SimDisk::new(1);
    let file = create(&disk, "log");
    disk.crash();
    assert!(file.write_at(b"late", 0).is_err());
    assert!(file.sync_data().is_err());
    assert!(file.length().is_err());
}

#[test]
fn misuse_gets_an_error() {
    let disk = SimDisk::new(1);
    let path = Path::new("log");
    let kind = |error: std::io::Error| error.kind();
    assert_eq!(disk.open(path, OpenMode::Read).map_err(kind).unwrap_err(), ErrorKind::NotFound);
    create(&disk, "log");
    let again = disk.open(path, OpenMode::CreateNew);
    assert_eq!(again.map_err(kind).unwrap_err(), ErrorKind::AlreadyExists);
    let reader = disk.open(path, OpenMode::Read).unwrap();
    assert_eq!(reader.write_at(b"x", 0).unwrap_err().kind(), ErrorKind::PermissionDenied);
    let writer = disk.open(path, OpenMode::ReadWrite).unwrap();
    assert_eq!(writer.write_at(b"x", u64::MAX).unwrap_err().kind(), ErrorKind::InvalidInput);
    assert_eq!(writer.allocate(u64::MAX).unwrap_err().kind(), ErrorKind::InvalidInput);
    let below_file = Path::new("log/x");
    assert!(disk.open(below_file, OpenMode::CreateNew).is_err());
    assert!(disk.create_dir(below_file).is_err());
    assert!(disk.rename(Path::new("none"), path).is_err());
    assert!(disk.remove(Path::new("none")).is_err());
    assert!(disk.list(Path::new("none")).is_err());
}

#[test]
fn the_same_seed_loses_the_same_bytes() {
    let run = |seed| {
        let disk = SimDisk::new(seed);
        let file = create(&disk, "log");
        for at in 0..40 {
            file.write_at(&[7; 1_000], at * 1_000).unwrap();
        }
        disk.crash();
        content(&disk, "log")
    };
    assert!((0..20).all(|seed| run(seed) == run(seed)));
    assert!((0..20).any(|seed| run(seed) != run(seed + 1)));
}

/// What a file of a random history must be like after a crash, if that is certain.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Certainty {
    Absent,
    Holds(Vec<u8>),
    Unknown,
}

#[test]
fn whatever_else_happens_what_was_settled_stays() {
    let mut certain = 0;
    for seed in 0..500 {
        let mut rng = stream(seed, "test", 0);
        let disk = SimDisk::new(seed);
        let all = ["a", "b", "c", "d"];
        let mut state = vec![Certainty::Absent; all.len()];
        for step in 0..below(&mut rng, 40) {
            let which = index(&mut rng, all.len());
            let (path, other) = (Path::new(all[which]), index(&mut rng, all.len()));
            let exists = names(&disk).iter().any(|name| name == all[which]);
            match below(&mut rng, 6) {
                0 if !exists => {
                    disk.open(path, OpenMode::CreateNew).unwrap();
                    state[which] = Certainty::Unknown;
                }
                1 if exists => {
                    let file = disk.open(path, OpenMode::ReadWrite).unwrap();
                    file.write_at(&step.to_le_bytes(), below(&mut rng, 2_000)).unwrap();
                    state[which] = Certainty::Unknown;
                }
                2 if exists && which != other => {
                    disk.rename(path, Path::new(all[other])).unwrap();
                    state[which] = Certainty::Unknown;
                    state[other] = Certainty::Unknown;
                }
                3 if exists => {
                    disk.remove(path).unwrap();
                    state[which] = Certainty::Unknown;
                }
                4 => {
                    disk.crash();
                    check(&disk, &all, &state, seed);
                    certain += state.iter().filter(|is| **is != Certainty::Unknown).count();
                    // What is there after a crash is durable.
                    state = all.iter().map(|name| look(&disk, name)).collect();
                }
                _ => {
                    for name in names(&disk) {
                        let file = disk.open(Path::new(&name), OpenMode::Read).unwrap();
                        file.sync_data().unwrap();
                    }
                    disk.sync_dir(Path::new(TOP)).unwrap();
                    state = all.iter().map(|name| look(&disk, name)).collect();
                }
            }
        }
        disk.crash();
        check(&disk, &all, &state, seed);
    }
    assert!(certain > 1_000, "{certain}");
}

fn look(disk: &SimDisk, name: &str) -> Certainty {
    if names(disk).iter().any(|other| other == name) {
        Certainty::Holds(content(disk, name))
    } else {
        Certainty::Absent
    }
}

fn check(disk: &SimDisk, all: &[&str], state: &[Certainty], seed: u64) {
    for (name, expected) in all.iter().zip(state) {
        if *expected != Certainty::Unknown {
            assert_eq!(look(disk, name), *expected, "{name}, seed {seed}");
        }
    }
}

/// Else a directory could be there without what its maker had made durable before.
#[test]
fn a_directory_that_was_to_be_made_after_a_crash_is_not_there() {
    let latency = DiskLatency { sync: Span::millis(2, 2), ..DiskLatency::default() };
    for (crash_at, expected) in [(1, false), (3, true)] {
        let options = DiskOptions { latency, ..DiskOptions::default() };
        let disk = SimDisk::with_options(7, options);
        let file = disk.open(Path::new("identity"), OpenMode::CreateNew).unwrap();
        file.write_at(b"me", 0).unwrap();
        disk.sync_dir(Path::new(TOP)).unwrap();
        disk.create_dir(Path::new("log")).unwrap();
        disk.set_now(Duration::from_millis(crash_at));
        disk.crash_with(Survival::Nothing);
        assert_eq!(names(&disk).contains(&"log".to_owned()), expected);
        assert_eq!(names(&disk).contains(&"identity".to_owned()), expected);
    }
}
