//! Files of each format version, as they were written then. They must be readable for ever, and the newest version must still be
//! written byte for byte.
//!
//! `LATTICE_BLESS=1 cargo test -p lattice-journal golden` writes them anew: only ever for a new format version, in a new directory.

use std::path::Path;
use std::sync::Arc;

use lattice_journal::{Disk, MemoryDisk, OpenMode, RealDisk};

use crate::support::{Model, items, open, replacing, segment_path, shown, with_state};

const SEGMENT: u64 = 1024;
const VERSION_1: [&[u8]; 2] = [
    include_bytes!("../golden/v1/00000000000000000001.seg"),
    include_bytes!("../golden/v1/00000000000000000002.seg"),
];
const VERSION_2: [&[u8]; 2] = [
    include_bytes!("../golden/v2/00000000000000000001.seg"),
    include_bytes!("../golden/v2/00000000000000000002.seg"),
];

/// Every kind of frame, and every flag.
fn written(disk: &MemoryDisk) -> Model {
    let (mut journal, _) = open(disk, SEGMENT).unwrap();
    let mut model = Model::new();
    let restart = lattice_journal::Batch { restart_at: Some(10), ..items(10, &["ten"]) };
    for batch in [
        with_state(items(1, &["one", "", "three"]), "term 1, vote 2"),
        replacing(2, &["II"]),
        with_state(restart, "snapshot at 9"),
        items(11, &["eleven", &"a longer item ".repeat(12)]),
        items(13, &["thirteen"]),
    ] {
        journal.append(&batch).unwrap();
        journal.sync().unwrap();
        model.apply(&batch);
    }
    journal.close().unwrap();
    model
}

#[test]
fn version_2_is_written_as_ever() {
    let disk = MemoryDisk::new();
    written(&disk);
    if std::env::var_os("LATTICE_BLESS").is_some() {
        bless(&disk);
    }
    for (number, golden) in (1..).zip(VERSION_2) {
        assert!(disk.content(segment_path(number)).unwrap() == golden, "segment {number} differs");
    }
    assert!(disk.content(segment_path(3)).is_err());
}

#[test]
fn all_versions_are_read_as_ever() {
    for version in [VERSION_1, VERSION_2] {
        let disk = MemoryDisk::new();
        disk.create_dir("log".as_ref()).unwrap();
        for (number, golden) in (1..).zip(version) {
            disk.set_content(segment_path(number), golden);
        }
        let (mut journal, recovery) = open(&disk, SEGMENT).unwrap();
        assert_eq!((recovery.torn, recovery.damaged), (None, Vec::new()));
        let mut model = written(&MemoryDisk::new());
        assert_eq!(shown(&journal), model);
        // What is written behind frames of an older version is of the newest one.
        let batch = items(model.next, &["and it goes on"]);
        journal.append(&batch).unwrap();
        journal.sync().unwrap();
        model.apply(&batch);
        assert_eq!(shown(&journal), model);
        drop(journal);
        let (journal, recovery) = open(&disk, SEGMENT).unwrap();
        assert_eq!((recovery.damaged, shown(&journal)), (Vec::new(), model));
    }
}

fn bless(disk: &MemoryDisk) {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/v2");
    let real: Arc<dyn Disk> = Arc::new(RealDisk);
    for number in 1..=2 {
        let path = segment_path(number);
        let target = directory.join(path.file_name().unwrap());
        if real.open(&target, OpenMode::Read).is_ok() {
            real.remove(&target).unwrap();
        }
        let file = real.open(&target, OpenMode::CreateNew).unwrap();
        file.write_at(&disk.content(&path).unwrap(), 0).unwrap();
    }
}
