//! Rewriting a segment beside the writer, reading around damage, and verifying.

use std::sync::atomic::{AtomicBool, Ordering};

use lattice_journal::{Damage, DamageKind, Disk, Journal, JournalError, MemoryDisk, ReadError};
use lattice_sim::SimDisk;

use crate::support::{
    Model, items, open, open_trusting, read_all, replacing, segment_path, shown, with_state,
};

const SEGMENT: u64 = 2000;

/// A journal with at least this many segments, synced, and its model.
fn written(disk: &(impl Disk + Clone), segments: usize) -> (Journal, Model) {
    let (mut journal, _) = open_trusting(disk, SEGMENT).unwrap();
    let mut model = Model::new();
    while journal.segments().len() < segments {
        let text = format!("item {} {}", model.next, "x".repeat(60));
        let batch = with_state(items(model.next, &[&text, "short", &text]), "state");
        journal.append(&batch).unwrap();
        model.apply(&batch);
    }
    journal.sync().unwrap();
    (journal, model)
}

fn assert_opens_as(disk: &MemoryDisk, model: &Model) {
    for trusting in [false, true] {
        let opened = if trusting { open_trusting(disk, SEGMENT) } else { open(disk, SEGMENT) };
        let (journal, recovery) = opened.unwrap();
        assert_eq!(recovery.damaged, []);
        assert_eq!(shown(&journal), *model, "trusting: {trusting}");
    }
}

fn leftovers(disk: &impl Disk) -> usize {
    disk.list("log".as_ref()).unwrap().iter().filter(|name| name.ends_with(".tmp")).count()
}

#[test]
fn the_writer_goes_on_while_a_segment_is_rewritten() {
    let disk = MemoryDisk::new();
    let (mut journal, mut model) = written(&disk, 4);
    let positions = journal.segments()[1].positions.clone();
    let rewriter = journal.rewriter(2).unwrap();
    let reader = journal.reader();
    let prepared = std::thread::scope(|scope| {
        let (start, started) = std::sync::mpsc::channel();
        let (go_on, wait) = std::sync::mpsc::channel();
        let thread = scope.spawn(move || {
            rewriter.prepare(&mut |position, _| {
                if position == positions.start {
                    // The rewriting stands still until the writer has done its work.
                    start.send(()).unwrap();
                    wait.recv().unwrap();
                }
                (position % 3 == 1).then(|| format!("new {position}").into_bytes())
            })
        });
        started.recv().unwrap();
        for _ in 0..20 {
            let batch = items(model.next, &["meanwhile", &"y".repeat(200)]);
            journal.append(&batch).unwrap();
            journal.sync().unwrap();
            model.apply(&batch);
        }
        assert_eq!(read_all(&reader), model.items);
        go_on.send(()).unwrap();
        thread.join().unwrap().unwrap()
    });
    assert_eq!((prepared.segment(), leftovers(&disk)), (2, 1));
    let length = prepared.length();
    journal.install(prepared).unwrap();
    for position in journal.segments()[1].positions.clone().filter(|position| position % 3 == 1) {
        model.items.insert(position, format!("new {position}").into_bytes());
    }
    assert_eq!((journal.segments()[1].length, leftovers(&disk)), (length, 0));
    assert_eq!(read_all(&reader), model.items);
    journal.close().unwrap();
    assert_opens_as(&disk, &model);
}

#[test]
fn what_was_truncated_meanwhile_does_not_come_back() {
    for restarts in [false, true] {
        let disk = MemoryDisk::new();
        let (mut journal, mut model) = written(&disk, 3);
        let in_second = journal.segments()[1].positions.clone();
        let cut = in_second.start + 4;
        let prepared =
            journal.rewriter(2).unwrap().prepare(&mut |_, bytes| Some(bytes[..4].into()));
        let batch = match restarts {
            false => replacing(cut, &["after the cut", "and more"]),
            true => lattice_journal::Batch { restart_at: Some(cut), ..items(cut, &["anew"]) },
        };
        journal.append(&batch).unwrap();
        journal.sync().unwrap();
        model.apply(&batch);
        journal.install(prepared.unwrap()).unwrap();
        for (position, bytes) in &mut model.items {
            if (in_second.start..cut).contains(position) {
                bytes.truncate(4);
            }
        }
        assert_eq!(shown(&journal), model);
        journal.close().unwrap();
        assert_opens_as(&disk, &model);
    }
}

#[test]
fn a_segment_that_is_gone_or_another_is_not_replaced() {
    let disk = MemoryDisk::new();
    let (mut journal, mut model) = written(&disk, 4);
    let prepare = |journal: &mut Journal, segment| {
        journal
            .rewriter(segment)
            .unwrap()
            .prepare(&mut |_, _| Some(b"never seen".to_vec()))
            .unwrap()
    };
    let (first, second) = (prepare(&mut journal, 1), prepare(&mut journal, 2));
    let twice = prepare(&mut journal, 2);
    assert_eq!(leftovers(&disk), 3);
    let keep_from = journal.segments()[1].positions.start;
    journal.compact(keep_from).unwrap();
    model.items = model.items.split_off(&journal.positions().start);
    let gone = journal.install(first);
    assert!(matches!(gone, Err(JournalError::NoSuchSegment { segment: 1 })), "{gone:?}");
    journal.replace_segment(2, &mut |_, _| None).unwrap();
    for prepared in [second, twice] {
        let other = journal.install(prepared);
        assert!(matches!(other, Err(JournalError::NoSuchSegment { segment: 2 })), "{other:?}");
    }
    let mut elsewhere = written(&MemoryDisk::new(), 4).0;
    let foreign = prepare(&mut elsewhere, 3);
    let foreign = journal.install(foreign);
    assert!(matches!(foreign, Err(JournalError::NoSuchSegment { segment: 3 })), "{foreign:?}");
    assert_eq!((leftovers(&disk), shown(&journal)), (0, model.clone()));
    for segment in [0, 1, 4, 9] {
        assert!(matches!(journal.rewriter(segment), Err(JournalError::NoSuchSegment { .. })));
    }
    drop(journal);
    assert_eq!(shown(&open(&disk, SEGMENT).unwrap().0), model);
}

#[test]
fn a_rewriting_that_fails_leaves_nothing_behind() {
    let disk = SimDisk::new(1);
    let (mut journal, model) = written(&disk, 3);
    let rewriter = |journal: &mut Journal| journal.rewriter(1).unwrap();
    disk.set_capacity(Some(disk.used() + 100));
    let full = rewriter(&mut journal).prepare(&mut |_, _| None);
    assert!(matches!(full, Err(JournalError::NoSpace { .. })), "{full:?}");
    disk.set_capacity(None);
    disk.fail_sync_at(1);
    let failed = rewriter(&mut journal).prepare(&mut |_, _| None);
    assert!(matches!(failed, Err(JournalError::Fatal(_))), "{failed:?}");
    assert_eq!(leftovers(&disk), 0);
    assert!(!journal.status().failed(), "the file that failed is no part of the journal");
    assert_eq!(shown(&journal), model);
    // The writer itself must not go on after a failed sync.
    disk.fail_sync_at(1);
    assert!(matches!(journal.replace_segment(1, &mut |_, _| None), Err(JournalError::Fatal(_))));
    assert!(matches!(journal.sync(), Err(JournalError::Fatal(_))));
    assert!(journal.status().failed());
}

#[test]
fn a_crash_between_preparing_and_installing_leaves_the_old_segment() {
    let disk = SimDisk::new(2);
    let (mut journal, model) = written(&disk, 3);
    let prepared = journal.rewriter(1).unwrap().prepare(&mut |_, _| Some(Vec::new())).unwrap();
    disk.kill();
    drop((journal, prepared));
    let (journal, recovery) = open(&disk, SEGMENT).unwrap();
    assert_eq!((recovery.damaged, shown(&journal), leftovers(&disk)), (Vec::new(), model, 0));
}

/// Reads everything, passing over what is damaged: the items, and the positions that were reported.
fn read_around(journal: &Journal) -> (Model, Vec<u64>) {
    let reader = journal.reader();
    let (mut found, mut lost) = (Model::new(), Vec::new());
    let mut next = reader.positions().start;
    while next < reader.positions().end {
        match reader.read(next..u64::MAX, 10_000) {
            Ok(items) => {
                next = items.last().unwrap().position + 1;
                found.items.extend(items.into_iter().map(|item| (item.position, item.bytes)));
            }
            Err(ReadError::Corrupt { positions, .. } | ReadError::Damaged { positions }) => {
                assert!(positions.contains(&next), "{next} in {positions:?}");
                lost.extend(next..positions.end.min(reader.positions().end));
                next = positions.end;
            }
            Err(error) => panic!("{error}"),
        }
    }
    (found, lost)
}

#[test]
fn all_but_a_rotten_frame_can_be_read_and_is_found_by_verifying() {
    let disk = MemoryDisk::new();
    let (journal, model) = written(&disk, 3);
    let frames = 3;
    for segment in 1..=2 {
        let path = segment_path(segment);
        let whole = disk.content(&path).unwrap();
        for at in 0..whole.len() {
            disk.corrupt(&path, at, 0x41).unwrap();
            let (found, lost) = read_around(&journal);
            let what = format!("segment {segment}, byte {at}");
            for (position, bytes) in &model.items {
                match found.items.get(position) {
                    Some(found) => assert_eq!(found, bytes, "{what}: item {position}"),
                    None => assert!(lost.contains(position), "{what}: item {position}"),
                }
            }
            assert!(lost.len() <= frames, "{what}: lost {lost:?}");
            assert_eq!(lost.len() + found.items.len(), model.items.len(), "{what}");

            let verified = journal.reader().verify_all().unwrap();
            let items: Vec<u64> = verified.iter().flat_map(|damage| damage.items.clone()).collect();
            assert_eq!(items, lost, "{what}: {verified:?}");
            // It says what an opening says, which looks at all segments together.
            let fork = disk.fork();
            let (opened, recovery) = open(&fork, SEGMENT).unwrap();
            let frames = |damaged: &[Damage]| -> Vec<Damage> {
                damaged.iter().filter(|damage| damage.kind == DamageKind::Frames).cloned().collect()
            };
            assert_eq!(frames(&verified), frames(&recovery.damaged), "{what}");
            assert_eq!(verified.len(), recovery.damaged.len(), "{what}");
            let from_opened = (opened.reader().damaged(), opened.reader().verify_all().unwrap());
            let ranges: Vec<_> =
                recovery.damaged.iter().map(|damage| damage.items.clone()).collect();
            let ranges: Vec<_> = ranges.into_iter().filter(|range| !range.is_empty()).collect();
            assert_eq!(from_opened.0, ranges, "{what}");
            assert_eq!(read_around(&opened).0, found, "{what}");
            disk.set_content(&path, whole.clone());
        }
    }
}

#[test]
fn verifying_looks_at_durable_frames_only() {
    let disk = MemoryDisk::new();
    let (mut journal, model) = written(&disk, 2);
    let reader = journal.reader();
    assert_eq!((reader.verify_all().unwrap(), reader.segments()), (Vec::new(), vec![1, 2]));
    journal.append(&items(model.next, &["queued"])).unwrap();
    assert_eq!(reader.verify(2).unwrap(), []);
    journal.sync().unwrap();
    let content = disk.content(segment_path(2)).unwrap();
    let at = content.windows(6).rposition(|window| window == b"queued").unwrap();
    disk.corrupt(segment_path(2), at, 1).unwrap();
    let damaged = reader.verify(2).unwrap();
    assert_eq!((damaged.len(), damaged[0].items.clone()), (1, model.next..model.next + 1));
    assert_eq!(reader.verify(7).unwrap(), []);
    // The writer is not told, and goes on.
    journal.append(&items(model.next + 1, &["on"])).unwrap();
    journal.sync().unwrap();
}

#[test]
fn a_batch_costs_one_write_and_one_sync() {
    let disk = SimDisk::new(3);
    let (mut journal, _) = open_trusting(&disk, 1 << 20).unwrap();
    let item = "x".repeat(300);
    let batch: Vec<&str> = vec![&item; 64];
    for round in 0..20 {
        let before = disk.counts();
        journal.append(&items(1 + round * 64, &batch)).unwrap();
        assert_eq!(disk.counts().calls, before.calls, "appending is memory only");
        journal.sync().unwrap();
        let after = disk.counts();
        assert_eq!((after.calls - before.calls, after.syncs - before.syncs), (2, 1));
        // Header, flags and state, lengths and checksums, items.
        assert_eq!(after.bytes - before.bytes, 80 + 8 + 64 * 8 + 64 * 300);
    }
    let before = disk.counts();
    for round in 0..50 {
        journal.append(&items(1281 + round, &[&item])).unwrap();
    }
    journal.sync().unwrap();
    let after = disk.counts();
    assert_eq!((after.calls - before.calls, after.syncs - before.syncs), (2, 1), "fifty batches");
}

#[test]
fn readers_beside_appending_rewriting_and_compaction_see_only_what_was_written() {
    let disk = MemoryDisk::new();
    let (mut journal, _) = written(&disk, 2);
    let done = AtomicBool::new(false);
    // Each item says which one it is, before and after it was rewritten.
    let is_right = |position: u64, bytes: &[u8]| {
        let texts = ["item", "short", "new", "more"];
        texts.iter().any(|text| bytes.starts_with(text.as_bytes()))
            && (!bytes.starts_with(b"new") || bytes == format!("new {position}").as_bytes())
            && (!bytes.starts_with(b"more")
                || bytes.starts_with(format!("more {position} ").as_bytes()))
    };
    std::thread::scope(|scope| {
        for step in [1, 7] {
            let (reader, done) = (journal.reader(), &done);
            scope.spawn(move || {
                let (mut read, mut next) = (0, 0);
                while !done.load(Ordering::Acquire) || read == 0 {
                    let held = reader.positions();
                    next = if held.contains(&next) { next } else { held.start };
                    let visited = reader.visit(next..held.end, 500 * step, |position, bytes| {
                        assert!(is_right(position, bytes), "{position}: {bytes:?}");
                        read += 1;
                    });
                    match visited {
                        Ok(behind) => next = behind,
                        // It was compacted away meanwhile.
                        Err(ReadError::NotHeld { .. }) => {}
                        Err(error) => panic!("{error}"),
                    }
                    assert_eq!(reader.verify_all().unwrap(), []);
                }
            });
        }
        let write = move || {
            for round in 0..1500 {
                let next = journal.positions().end;
                let text = |position| format!("more {position} {}", "z".repeat(150));
                journal.append(&items(next, &[&text(next), &text(next + 1)])).unwrap();
                journal.sync().unwrap();
                let sealed: Vec<u64> =
                    journal.segments().iter().filter(|s| s.sealed).map(|s| s.number).collect();
                if round % 5 == 0 {
                    let rewriter = journal.rewriter(sealed[sealed.len() / 2]).unwrap();
                    let prepare = move || {
                        rewriter.prepare(&mut |position, _| {
                            Some(format!("new {position}").into_bytes())
                        })
                    };
                    let prepared = std::thread::scope(|own| own.spawn(prepare).join().unwrap());
                    journal.install(prepared.unwrap()).unwrap();
                }
                if round % 40 == 39 {
                    journal.compact(next / 2).unwrap();
                }
            }
        };
        let written = scope.spawn(write).join();
        done.store(true, Ordering::Release);
        written.unwrap();
    });
}

#[test]
fn a_complete_segment_is_known_by_its_checksum_wherever_that_comes_from() {
    let checksums = |journal: &Journal| -> Vec<Option<u32>> {
        journal.segments().iter().map(|segment| segment.checksum).collect()
    };
    let disk = MemoryDisk::new();
    let (mut journal, _) = written(&disk, 4);
    let first = checksums(&journal);
    assert!(first[..3].iter().all(Option::is_some) && first[3].is_none(), "{first:?}");
    journal.replace_segment(2, &mut |_, _| Some(b"other".to_vec())).unwrap();
    let second = checksums(&journal);
    assert_ne!(second[1], first[1], "another content");
    assert_eq!((second[0], second[2]), (first[0], first[2]));
    journal.close().unwrap();
    for trusting in [false, true] {
        let opened = if trusting { open_trusting(&disk, SEGMENT) } else { open(&disk, SEGMENT) };
        assert_eq!(checksums(&opened.unwrap().0), second, "trusting: {trusting}");
    }
    // One item of the first frame is another one, and nothing else: the checksum is that of the last.
    let other = MemoryDisk::new();
    let (mut journal, _) = open(&other, SEGMENT).unwrap();
    for next in (1..).step_by(3) {
        let start = if next == 1 { "other" } else { "item " };
        let text = format!("{start}{next} {}", "x".repeat(60));
        let long = if next == 1 { text.clone() } else { format!("item {next} {}", "x".repeat(60)) };
        journal.append(&with_state(items(next, &[&text, "short", &long]), "state")).unwrap();
        if journal.segments().len() == 4 {
            break;
        }
    }
    assert_eq!(journal.segments()[0].positions, 1..journal.segments()[1].positions.start);
    assert_ne!(checksums(&journal)[0], first[0]);
}
