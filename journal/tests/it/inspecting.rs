//! What an operator sees of a journal that nobody has open.

use std::path::Path;

use lattice_journal::{InspectError, MemoryDisk, inspect};

use crate::support::{ID, items, open, replacing, segment_path, with_state};

fn print(disk: &MemoryDisk) -> (String, lattice_journal::Inspection) {
    let mut text = String::new();
    let mut render = |_: u64, bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let inspection = inspect(disk, Path::new("log"), &mut text, &mut render).unwrap();
    (text, inspection)
}

fn sample() -> MemoryDisk {
    let disk = MemoryDisk::new();
    let (mut journal, _) = open(&disk, 1024).unwrap();
    journal.append(&with_state(items(1, &["one", "two"]), "state")).unwrap();
    journal.append(&replacing(2, &["II"])).unwrap();
    journal.close().unwrap();
    disk
}

#[test]
fn every_frame_and_item_is_printed() {
    let (text, inspection) = print(&sample());
    let expected = format!(
        "journal {ID:032x}
segment 1: 1024 bytes, from frame 1
  @64: frame 1, 104 bytes, durable below 1: checkpoint of items 1..1, first segment 1
  @168: frame 2, 120 bytes, durable below 2: batch of items 1..3, state of 5 bytes
      1: one
      2: two (truncated later)
  @288: frame 3, 104 bytes, durable below 2: batch of items 2..3, truncates to 2
      2: II
  @392: frame 4, 88 bytes, durable below 4: mark
  @480: end, 544 bytes free
sound: 4 frames, 2 items at positions 1..3
"
    );
    assert_eq!(text, expected);
    assert_eq!((inspection.frames, inspection.items, inspection.id), (4, 2, ID));
    assert!(inspection.damaged.is_empty() && inspection.torn.is_none());
}

#[test]
fn damage_and_torn_tails_are_printed_and_not_touched() {
    let disk = sample();
    disk.corrupt(segment_path(1), 180, 1).unwrap();
    disk.corrupt(segment_path(1), 500, 1).unwrap();
    let before = disk.content(segment_path(1)).unwrap();
    let (text, inspection) = print(&disk);
    for line in [
        "  @168: BAD up to 288\n",
        "  @480: not zero up to 501\n",
        "segment 1: torn tail in bytes 480..501, from frame 5 on\n",
        "DAMAGED segment 1: bad bytes 168..288, frames 2..3 lost, items 1..2 lost\n",
        "damaged: 3 frames, 1 items at positions 1..3\n",
    ] {
        assert!(text.contains(line), "{line}{text}");
    }
    assert_eq!(inspection.damaged.len(), 1);
    assert_eq!(disk.content(segment_path(1)).unwrap(), before);
}

#[test]
fn an_item_that_rotted_is_shown_beside_its_neighbours() {
    let disk = sample();
    disk.corrupt(segment_path(1), 278, 1).unwrap();
    let (text, _) = print(&disk);
    for line in [
        "batch of items 1..3, state of 5 bytes\n      1: BAD\n      2: two (truncated later)\n",
        "DAMAGED segment 1: bad bytes 277..280 in frame 2, items 1..2 lost\n",
    ] {
        assert!(text.contains(line), "{line}{text}");
    }
}

#[test]
fn a_directory_without_a_journal_is_none() {
    let disk = MemoryDisk::new();
    disk.set_content("log/00000000000000000001.seg", vec![7; 300]);
    let mut text = String::new();
    let found = inspect(&disk, Path::new(""), &mut text, &mut |_, _| String::new());
    assert!(matches!(found, Err(InspectError::NoJournal)));
}
