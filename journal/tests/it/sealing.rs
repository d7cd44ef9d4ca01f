//! Seals: they spare the reading of complete segments, and nothing depends on them.

use lattice_journal::{Batch, Disk, Journal, MemoryDisk, ReadError};

use crate::support::{
    Model, items, open, open_trusting, read_all, replacing, seal_path, seals, segment_path, shown,
    with_state,
};

const SEGMENT: u64 = 1600;

/// A journal with several complete segments, truncations over their borders and a restart, closed.
fn written(disk: &MemoryDisk, trusting: bool) -> Model {
    let opened = if trusting { open_trusting(disk, SEGMENT) } else { open(disk, SEGMENT) };
    let (mut journal, _) = opened.unwrap();
    let mut model = Model::new();
    let long = "x".repeat(150);
    let mut append = |batch: Batch| {
        journal.append(&batch).unwrap();
        model.apply(&batch);
    };
    append(with_state(items(1, &["one", "two", &long]), "state 1"));
    append(items(4, &[&long, &long]));
    append(items(6, &[&long, &long, "eight"]));
    append(replacing(3, &["III", &long]));
    append(items(5, &[&long, &long]));
    append(Batch { restart_at: Some(20), ..items(20, &["twenty", &long]) });
    append(with_state(items(22, &[&long, &long]), "state 2"));
    append(items(24, &[&long, &long, &long]));
    append(replacing(23, &["XXIII", "XXIV", &long]));
    append(items(26, &[&long, &long]));
    append(items(28, &[&long, &long]));
    append(items(30, &[&long, &long]));
    append(items(32, &["last"]));
    journal.close().unwrap();
    model
}

/// The number of complete segments.
fn complete(journal: &Journal) -> usize {
    journal.segments().iter().filter(|segment| segment.sealed).count()
}

#[test]
fn a_segment_with_a_seal_is_not_looked_through() {
    let disk = MemoryDisk::new();
    let model = written(&disk, true);
    let numbers = seals(&disk);
    assert!(numbers.len() >= 4 && numbers[0] == 1, "{numbers:?}");
    // In the middle of every complete segment something rots.
    let last = u64::try_from(numbers.len()).unwrap();
    for number in 1..=last {
        disk.corrupt(segment_path(number), 200, 1).unwrap();
    }
    let (mut journal, recovery) = open_trusting(&disk, SEGMENT).unwrap();
    assert_eq!((recovery.damaged, recovery.positions.clone()), (Vec::new(), 20..33));
    assert_eq!(recovery.state, model.state);
    journal.append(&items(model.next, &["and on"])).unwrap();
    journal.sync().unwrap();
    // What is read is right, and what is lost is named.
    let reader = journal.reader();
    let mut lost = 0;
    for position in 20..33 {
        match reader.read(position..position + 1, 0) {
            Ok(items) => assert_eq!(items[0].bytes, model.items[&position]),
            Err(ReadError::Corrupt { positions, .. }) => {
                assert!(positions.contains(&position), "{positions:?}");
                lost += 1;
            }
            Err(error) => panic!("{error}"),
        }
    }
    assert!(lost > 0);
    let damaged = reader.verify_all().unwrap();
    assert_eq!(damaged.iter().map(|damage| damage.segment).collect::<Vec<_>>(), numbers);
    drop(journal);

    // Who does not trust finds it when opening.
    let (_, recovery) = open(&disk, SEGMENT).unwrap();
    assert_eq!(recovery.damaged.len(), numbers.len());
}

#[test]
fn a_journal_without_seals_gets_them_when_it_is_opened_with_trust() {
    let disk = MemoryDisk::new();
    let model = written(&disk, false);
    assert_eq!(seals(&disk), [0; 0]);
    let (mut journal, recovery) = open_trusting(&disk, SEGMENT).unwrap();
    assert!(recovery.ignored.is_empty());
    let expected = complete(&journal);
    let taken = journal.take_seals();
    assert!(journal.take_seals().is_empty());
    let writer = std::thread::scope(|scope| {
        // On another thread.
        let write = move || taken.into_iter().map(|seal| seal.write().unwrap()).count();
        scope.spawn(write).join().unwrap()
    });
    assert_eq!((writer, seals(&disk).len()), (expected, expected));
    drop(journal);
    let (mut journal, _) = open_trusting(&disk, SEGMENT).unwrap();
    assert!(journal.take_seals().is_empty(), "all are believed");
    assert_eq!(shown(&journal), model);
}

#[test]
fn a_seal_that_was_spoilt_in_any_way_is_replaced() {
    let disk = MemoryDisk::new();
    let model = written(&disk, true);
    for number in seals(&disk) {
        let whole = disk.content(seal_path(number)).unwrap();
        let other = disk.content(seal_path(if number == 1 { 2 } else { 1 })).unwrap();
        let flipped = (0..whole.len()).map(|at| {
            let mut content = whole.clone();
            content[at] ^= 1 << (at % 8);
            content
        });
        let cut = (0..whole.len()).step_by(5).map(|length| whole[..length].to_vec());
        let long = [other, [&whole[..], &[0; 2000]].concat()];
        for content in flipped.chain(cut).chain(long) {
            let disk = disk.fork();
            disk.set_content(seal_path(number), content);
            let (mut journal, recovery) = open_trusting(&disk, SEGMENT).unwrap();
            assert_eq!((recovery.torn, recovery.damaged), (None, Vec::new()));
            assert_eq!(shown(&journal), model);
            let taken = journal.take_seals();
            let numbers: Vec<u64> = taken.iter().map(|seal| seal.segment()).collect();
            assert_eq!(numbers, [number]);
            taken.into_iter().for_each(|seal| seal.write().unwrap());
            assert_eq!(disk.content(seal_path(number)).unwrap(), whole);
        }
    }
}

#[test]
fn a_seal_of_another_state_of_the_segment_is_not_believed() {
    let disk = MemoryDisk::new();
    let mut model = written(&disk, true);
    let before = disk.fork();
    let number = *seals(&disk).last().unwrap();
    let (mut journal, _) = open_trusting(&disk, SEGMENT).unwrap();
    // The same length: only the content tells.
    let replace = &mut |position, bytes: &[u8]| {
        let new = vec![b'!'; bytes.len()];
        model.items.insert(position, new.clone());
        Some(new)
    };
    journal.replace_segment(number, replace).unwrap();
    journal.replace_segment(number, &mut |_, _| None).unwrap();
    journal.close().unwrap();
    // Seals of before behind segments of now, and the other way round.
    let crossed = [
        (disk.fork(), before.content(seal_path(number)).unwrap(), &model),
        (
            before.fork(),
            disk.content(seal_path(number)).unwrap(),
            &written(&MemoryDisk::new(), true),
        ),
    ];
    for (disk, seal, model) in crossed {
        disk.set_content(seal_path(number), seal);
        let (mut journal, recovery) = open_trusting(&disk, SEGMENT).unwrap();
        assert_eq!(recovery.damaged, []);
        assert_eq!(shown(&journal), *model);
        assert_eq!(journal.take_seals().len(), 1, "it is made anew");
    }
    let (mut journal, _) = open_trusting(&disk, SEGMENT).unwrap();
    assert_eq!((shown(&journal), journal.take_seals().len()), (model, 0));
}

#[test]
fn seals_that_fit_their_segments_but_not_each_other_are_put_aside() {
    // A backup of some of the segments, from when the log was another one, with their seals.
    let disk = MemoryDisk::new();
    written(&disk, true);
    let other = MemoryDisk::new();
    let (mut journal, _) = open_trusting(&other, SEGMENT).unwrap();
    while journal.segments().len() < 4 {
        let next = journal.positions().end;
        journal.append(&items(next, &["something else", &"y".repeat(60)])).unwrap();
    }
    journal.close().unwrap();
    for path in [segment_path(2), seal_path(2)] {
        disk.set_content(&path, other.content(&path).unwrap());
    }
    let trusting = open_trusting(&disk, SEGMENT).unwrap().1;
    let scanning = open(&disk, SEGMENT).unwrap().1;
    assert!(!trusting.damaged.is_empty());
    assert_eq!(trusting, scanning);
}

#[test]
fn damage_beside_seals_is_reported_as_without_them() {
    let disk = MemoryDisk::new();
    written(&disk, true);
    let last = u64::try_from(seals(&disk).len()).unwrap() + 1;
    // Bytes of the last segment, its checkpoint among them, and whole files.
    for at in (0..300).step_by(7) {
        let disk = disk.fork();
        disk.corrupt(segment_path(last), at, 0x20).unwrap();
        let trusting = open_trusting(&disk, SEGMENT).unwrap().1;
        assert_eq!(trusting, open(&disk, SEGMENT).unwrap().1, "byte {at}");
    }
    for number in 1..last {
        let disk = disk.fork();
        disk.remove(&segment_path(number)).unwrap();
        let trusting = open_trusting(&disk, SEGMENT).unwrap().1;
        assert!(!trusting.damaged.is_empty());
        assert_eq!(trusting, open(&disk, SEGMENT).unwrap().1, "segment {number}");
    }
}

#[test]
fn a_segment_that_is_the_last_again_loses_its_seal() {
    // Somebody removes the last segments: the log ends earlier and goes on there.
    let disk = MemoryDisk::new();
    written(&disk, true);
    let last = u64::try_from(seals(&disk).len()).unwrap() + 1;
    disk.remove(&segment_path(last)).unwrap();
    let old_seal = disk.content(seal_path(last - 1)).unwrap();
    let (mut journal, recovery) = open_trusting(&disk, SEGMENT).unwrap();
    assert_eq!(recovery.damaged, []);
    assert!(!seals(&disk).contains(&(last - 1)));
    while journal.segments().len() < usize::try_from(last).unwrap() {
        journal.append(&items(journal.positions().end, &["more"])).unwrap();
    }
    journal.sync().unwrap();
    let model = shown(&journal);
    drop(journal);
    // Even had it stayed, it would not be believed: frames follow that it does not know.
    disk.set_content(seal_path(last - 1), old_seal);
    let (journal, recovery) = open_trusting(&disk, SEGMENT).unwrap();
    assert_eq!((recovery.damaged, shown(&journal)), (Vec::new(), model));
}

#[test]
fn seals_go_with_their_segments() {
    let disk = MemoryDisk::new();
    let model = written(&disk, true);
    let all = seals(&disk);
    let (mut journal, _) = open_trusting(&disk, SEGMENT).unwrap();
    let orphan = disk.content(seal_path(1)).unwrap();
    assert!(journal.compact(23).unwrap() > 0);
    let first = journal.segments()[0].number;
    let kept: Vec<u64> = all.into_iter().filter(|number| *number >= first).collect();
    assert_eq!(seals(&disk), kept);
    drop(journal);
    disk.set_content(seal_path(1), orphan);
    let (journal, recovery) = open_trusting(&disk, SEGMENT).unwrap();
    assert_eq!((recovery.damaged, recovery.ignored), (Vec::new(), Vec::new()));
    assert_eq!(seals(&disk), kept);
    let mut held = model.items.clone();
    assert_eq!(read_all(&journal.reader()), held.split_off(&journal.positions().start));
}

#[test]
fn seals_under_way_keep_the_directory_in_use() {
    let disk = MemoryDisk::new();
    written(&disk, false);
    let (mut journal, _) = open_trusting(&disk, SEGMENT).unwrap();
    let taken = journal.take_seals();
    drop(journal);
    assert!(open_trusting(&disk, SEGMENT).is_err());
    drop(taken);
    assert!(open_trusting(&disk, SEGMENT).is_ok());
}

#[test]
fn generation_and_checksum_of_a_segment_are_both_looked_at() {
    let disk = MemoryDisk::new();
    let model = written(&disk, true);
    let number = *seals(&disk).last().unwrap();
    let rewritten = |text: Option<u8>| {
        let disk = disk.fork();
        let (mut journal, _) = open_trusting(&disk, SEGMENT).unwrap();
        let mut fill = |_, bytes: &[u8]| text.map(|byte| vec![byte; bytes.len()]);
        journal.replace_segment(number, &mut fill).unwrap();
        journal.close().unwrap();
        disk
    };
    // The same content in another generation, which only has another length if the segment was not full.
    let (same, a, b) = (rewritten(None), rewritten(Some(b'a')), rewritten(Some(b'b')));
    let again = same.fork();
    open_trusting(&again, SEGMENT).unwrap().0.replace_segment(number, &mut |_, _| None).unwrap();
    for (disk, seal_of) in [(&again, &same), (&a, &b), (&b, &a)] {
        let disk = disk.fork();
        disk.set_content(seal_path(number), seal_of.content(seal_path(number)).unwrap());
        let (mut journal, recovery) = open_trusting(&disk, SEGMENT).unwrap();
        assert_eq!((recovery.damaged, journal.positions().end), (Vec::new(), model.next));
        assert_eq!(journal.take_seals().len(), 1, "it is not believed");
    }
}
