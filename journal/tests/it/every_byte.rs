//! Each byte of each file of a small log is cut at, flipped, or zeroed from. Whatever happens: a batch that a surviving frame
//! vouches for is returned or reported as damaged, the rest is returned whole or cut whole, nothing is invented.

use std::path::Path;

use lattice_journal::{DamageKind, MemoryDisk, Recovery};

use crate::support::{Model, items, open, read_all, replacing, segment_paths, shown, with_state};

const SEGMENT: u64 = 1200;

/// A log of three segments, the model after each of its batches, and how many batches the last mark vouches for.
struct Sample {
    disk: MemoryDisk,
    history: Vec<Model>,
    /// Batches that were appended but vouched for by nothing.
    unmarked: usize,
}

fn sample(close_with_mark: bool) -> Sample {
    let disk = MemoryDisk::new();
    let (mut journal, _) = open(&disk, SEGMENT).unwrap();
    let mut history = vec![Model::new()];
    let long = "x".repeat(150);
    let batches = [
        with_state(items(1, &["one", "two", "three"]), "state 1"),
        items(4, &["four", &long]),
        replacing(3, &["III", "IV"]),
        with_state(items(5, &[&long, "six"]), "state 2"),
        items(7, &[&long, &long]),
        replacing(6, &["VI", "VII", "VIII"]),
        items(9, &["nine", &long]),
        with_state(items(11, &[]), "state 3"),
        items(11, &["eleven"]),
    ];
    for (number, batch) in batches.iter().enumerate() {
        journal.append(batch).unwrap();
        history.push(history[number].after(batch));
        journal.sync().unwrap();
        if number == 1 {
            journal.mark().unwrap();
        }
    }
    let mut unmarked = 1;
    if close_with_mark {
        journal.close().unwrap();
        unmarked = 0;
    }
    assert_eq!(segment_paths(&disk).len(), 3, "the sample is meant to have three segments");
    Sample { disk, history, unmarked }
}

/// Holds what a spoilt log shows against what was written.
fn check(sample: &Sample, disk: &MemoryDisk, what: &str) -> Recovery {
    let (journal, recovery) = match open(disk, SEGMENT) {
        Ok(opened) => opened,
        Err(error) => panic!("{what}: {error}"),
    };
    let held = read_all(&journal.reader());
    let last = sample.history.last().unwrap();
    if recovery.damaged.is_empty() {
        // Nothing is damaged: the log is the whole one, or it lacks a tail that nothing vouched for.
        let whole_tail = sample.history.len() - 1 - sample.unmarked;
        let found = shown(&journal);
        assert!(sample.history[whole_tail..].contains(&found), "{what}: {found:?}");
        assert!(!recovery.state_damaged, "{what}");
    } else if recovery.end_lost {
        // Right as of an earlier moment.
        let is_earlier = |model: &&Model| held.iter().all(|(p, b)| model.items.get(p) == Some(b));
        assert!(sample.history.iter().any(|model| is_earlier(&model)), "{what}: {held:?}");
        assert!(recovery.state_damaged, "{what}");
        assert!(recovery.damaged.iter().any(|damage| damage.items.end == u64::MAX), "{what}");
    } else {
        let reported =
            |position: &u64| recovery.damaged.iter().any(|damage| damage.items.contains(position));
        for (position, bytes) in &last.items {
            match held.get(position) {
                Some(found) => assert_eq!(found, bytes, "{what}: item {position}"),
                None => assert!(reported(position), "{what}: item {position} is lost in silence"),
            }
        }
        assert!(held.keys().all(|position| last.items.contains_key(position)), "{what}");
        let state_is_right = recovery.state == last.state;
        assert!(state_is_right || recovery.state_damaged, "{what}: an old state");
    }
    recovery
}

/// A tail may be gone only where nothing vouches for it; after that, the log goes on as usual.
fn check_goes_on(disk: &MemoryDisk, what: &str) {
    let (mut journal, _) = open(disk, SEGMENT).unwrap();
    let mut model = shown(&journal);
    let batch = with_state(items(model.next, &["goes", "on"]), "later");
    journal.append(&batch).unwrap_or_else(|error| panic!("{what}: {error}"));
    model.apply(&batch);
    journal.sync().unwrap();
    assert_eq!(shown(&journal), model, "{what}");
    drop(journal);
    let (journal, recovery) = open(disk, SEGMENT).unwrap();
    assert_eq!((recovery.torn, recovery.damaged), (None, Vec::new()), "{what}");
    assert_eq!(shown(&journal), model, "{what}");
}

/// Spoils a copy of the sample at each byte of each file.
fn at_every_byte(sample: &Sample, step: usize, spoil: impl Fn(&mut Vec<u8>, usize)) -> Tally {
    let mut tally = Tally::default();
    for path in segment_paths(&sample.disk) {
        let whole = sample.disk.content(&path).unwrap();
        for at in (0..whole.len()).step_by(step) {
            let mut content = whole.clone();
            spoil(&mut content, at);
            if content == whole {
                continue;
            }
            let what = format!("{} at byte {at}", path.display());
            tally.add(sample, &path, content, &what);
        }
    }
    tally
}

/// How often a spoilt byte led to what.
#[derive(Debug, Default)]
struct Tally {
    damaged: usize,
    torn: usize,
    harmless: usize,
}

impl Tally {
    fn add(&mut self, sample: &Sample, path: &Path, content: Vec<u8>, what: &str) {
        let disk = sample.disk.fork();
        disk.set_content(path, content.clone());
        let recovery = check(sample, &disk, what);
        if recovery.damaged.is_empty() {
            check_goes_on(&disk, what);
        } else {
            assert_eq!(disk.content(path).unwrap(), content, "{what}: damage was written over");
        }
        match (recovery.damaged.is_empty(), recovery.torn) {
            (false, _) => self.damaged += 1,
            (true, Some(_)) => self.torn += 1,
            (true, None) => self.harmless += 1,
        }
    }
}

#[test]
fn a_flipped_byte_is_found_everywhere() {
    for mask in [0x01, 0x80, 0xff] {
        let tally = at_every_byte(&sample(true), 1, |content, at| content[at] ^= mask);
        // Torn: the last mark and the zeros behind it. Harmless: the zeros behind sealed frames.
        assert!(tally.damaged > 2000 && tally.torn > 88, "{tally:?}");
    }
}

#[test]
fn a_flipped_byte_in_an_unmarked_tail_cuts_it_whole() {
    let tally = at_every_byte(&sample(false), 1, |content, at| content[at] ^= 0x10);
    assert!(tally.damaged > 2000 && tally.torn > 88, "{tally:?}");
}

#[test]
fn a_file_that_was_cut_is_damaged() {
    for close_with_mark in [false, true] {
        let tally = at_every_byte(&sample(close_with_mark), 1, Vec::truncate);
        assert!(tally.damaged > 2000 && tally.torn == 0, "{tally:?}");
    }
}

#[test]
fn zeros_up_to_the_end_of_a_file_are_found_or_cut_a_tail() {
    // The mark that vouches is zeroed too, in the last segment: then any number of its batches may be gone, but whole.
    for close_with_mark in [false, true] {
        let mut sample = sample(close_with_mark);
        sample.unmarked = sample.history.len() - 1;
        let tally = at_every_byte(&sample, 1, |content, at| content[at..].fill(0));
        assert!(tally.damaged > 1000, "{tally:?}");
    }
}

#[test]
fn zeroed_sectors_are_found() {
    // A hole may swallow the last mark together with batches that it vouches for.
    for (size, unmarked) in [(8, 0), (64, 1), (200, 2)] {
        let sample = Sample { unmarked, ..sample(true) };
        let tally = at_every_byte(&sample, 8, |content, at| {
            let end = content.len().min(at + size);
            content[at..end].fill(0);
        });
        assert!(tally.damaged > 250, "{tally:?}");
    }
}

#[test]
fn an_old_frame_behind_a_torn_one_does_not_come_back() {
    let disk = MemoryDisk::new();
    let (mut journal, _) = open(&disk, 4096).unwrap();
    let mut model = Model::new();
    for (first, text) in [(1, "kept"), (2, "torn"), (3, "intact, but behind")] {
        journal.append(&items(first, &[text])).unwrap();
    }
    journal.sync().unwrap();
    model.apply(&items(1, &["kept"]));
    drop(journal);
    let path = &segment_paths(&disk)[0];
    let content = disk.content(path).unwrap();
    let at = content.windows(4).position(|window| window == b"torn").unwrap();
    disk.corrupt(path, at, 1).unwrap();

    let (mut journal, recovery) = open(&disk, 4096).unwrap();
    let torn = recovery.torn.unwrap();
    assert!(torn.bytes.contains(&u64::try_from(at).unwrap()));
    assert_eq!(shown(&journal), model);
    // A frame of the same length as the torn one: what stood behind it would follow on it.
    let batch = items(2, &["new!"]);
    journal.append(&batch).unwrap();
    journal.sync().unwrap();
    drop(journal);
    let (journal, recovery) = open(&disk, 4096).unwrap();
    assert_eq!(recovery.torn, None);
    assert_eq!(shown(&journal), model.after(&batch));
}

#[test]
fn what_stands_before_a_torn_frame_is_vouched_for_when_that_is_cut() {
    let disk = MemoryDisk::new();
    let (mut journal, _) = open(&disk, 4096).unwrap();
    journal.append(&with_state(items(1, &["kept"]), "a vote")).unwrap();
    journal.sync().unwrap();
    journal.append(&items(2, &["head and", "torn"])).unwrap();
    journal.sync().unwrap();
    drop(journal);
    let path = &segment_paths(&disk)[0];
    let spoil = |text: &[u8]| {
        let content = disk.content(path).unwrap();
        let at = content.windows(text.len()).position(|window| window == text).unwrap();
        disk.corrupt(path, at, 1).unwrap();
    };
    spoil(b"torn");
    let (journal, recovery) = open(&disk, 4096).unwrap();
    assert!(recovery.torn.is_some(), "{recovery:?}");
    assert_eq!(journal.positions(), 1..2);
    drop(journal);
    // It said that the first is durable, and it is gone.
    spoil(b"kept");
    let (_, recovery) = open(&disk, 4096).unwrap();
    let [lost] = &recovery.damaged[..] else { panic!("cut in silence: {recovery:?}") };
    assert_eq!((&lost.items, recovery.state.as_deref()), (&(1..2), Some(&b"a vote"[..])));
}

#[test]
fn items_that_a_lost_frame_replaced_count_as_lost() {
    let disk = MemoryDisk::new();
    let (mut journal, _) = open(&disk, 8192).unwrap();
    for batch in [
        items(1, &["1", "2", "3", "4", "5"]),
        replacing(3, &["III", "IV", "the lost frame", "VI"]),
        items(7, &["7"]),
    ] {
        journal.append(&batch).unwrap();
        journal.sync().unwrap();
    }
    journal.close().unwrap();
    let path = &segment_paths(&disk)[0];
    let content = disk.content(path).unwrap();
    let item = content.windows(8).position(|window| window == b"the lost").unwrap();
    let frame = content[..item].windows(4).rposition(|window| window == b"LFRM").unwrap();
    let (first, second) = (disk.fork(), disk);

    first.corrupt(path, frame, 1).unwrap();
    let (journal, recovery) = open(&first, 8192).unwrap();
    assert_eq!(recovery.damaged.len(), 1);
    assert_eq!((&recovery.damaged[0].items, &recovery.damaged[0].frames), (&(3..7), &(3..4)));
    assert!(!recovery.state_damaged);
    let held: Vec<u64> = read_all(&journal.reader()).into_keys().collect();
    assert_eq!(held, [1, 2, 7]);

    // If it is there but for an item, it has replaced them, and only that item is lost.
    second.corrupt(path, item, 1).unwrap();
    let (journal, recovery) = open(&second, 8192).unwrap();
    let [lost] = &recovery.damaged[..] else { panic!("{recovery:?}") };
    assert_eq!((lost.kind, &lost.items, &lost.frames), (DamageKind::Items, &(5..6), &(3..3)));
    assert_eq!(lost.bytes.end - lost.bytes.start, 14);
    let read = journal.reader().read(3..8, usize::MAX).unwrap();
    let read: Vec<_> = read.iter().map(|item| (item.position, &item.bytes[..])).collect();
    assert_eq!(read, [(3, &b"III"[..]), (4, b"IV")]);
    let held: Vec<u64> = read_all(&journal.reader()).into_keys().collect();
    assert_eq!(held, [1, 2, 3, 4, 6, 7]);
}

#[test]
fn a_state_that_was_lost_is_said_to_be_lost() {
    let disk = MemoryDisk::new();
    let (mut journal, _) = open(&disk, 8192).unwrap();
    journal.append(&with_state(items(1, &["1"]), "first state")).unwrap();
    journal.append(&with_state(items(2, &["2"]), "second state")).unwrap();
    journal.append(&items(3, &["3"])).unwrap();
    journal.close().unwrap();
    let path = &segment_paths(&disk)[0];
    let content = disk.content(path).unwrap();
    let at = content.windows(12).position(|window| window == b"second state").unwrap();
    disk.corrupt(path, at, 1).unwrap();

    let (_, recovery) = open(&disk, 8192).unwrap();
    assert!(recovery.state_damaged);
    assert_eq!(recovery.state.as_deref(), Some(&b"first state"[..]));
    assert_eq!(recovery.damaged[0].items, 2..3);
}
