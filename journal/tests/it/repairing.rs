//! An owner that repairs: what was lost is put back from elsewhere, a crash at any call leaves the damage or the repair, and the
//! state is in the log twice.

use std::sync::Arc;

use lattice_journal::{AppendError, Journal, OpenError, Recovery};
use lattice_sim::SimDisk;

use crate::support::{Model, items, open, options, replacing, segment_path, shown, with_state};

const SEGMENT: u64 = 1600;

fn open_to_repair(disk: &SimDisk) -> Result<(Journal, Recovery), OpenError> {
    let mut options = options(SEGMENT);
    options.repairs = true;
    Journal::open(Arc::new(disk.clone()), "log", options)
}

/// A log of a few segments, whole and closed, and what is in it.
fn sample() -> (SimDisk, Model) {
    let disk = SimDisk::new(1);
    let mut model = Model::new();
    let (mut journal, _) = open_to_repair(&disk).unwrap();
    let long = "x".repeat(100);
    let mut batches = vec![with_state(items(1, &["one", "two"]), "first state")];
    batches.extend((0..6).map(|round| items(3 + 2 * round, &[&long, &format!("round {round}")])));
    batches.push(replacing(13, &["XIII", "XIV", "XV"]));
    batches.push(with_state(items(16, &["sixteen"]), "the state"));
    batches.push(items(17, &["seventeen", &long]));
    for batch in batches {
        journal.append(&batch).unwrap();
        journal.sync().unwrap();
        model.apply(&batch);
    }
    journal.close().unwrap();
    (disk, model)
}

/// Puts the items that were lost back, as an owner does who has them from elsewhere.
fn repair(disk: &SimDisk, whole: &Model) -> Result<(), Box<dyn std::error::Error>> {
    let (mut journal, _) = open_to_repair(disk)?;
    for range in journal.reader().damaged() {
        let items: Vec<_> = range.clone().map(|position| &whole.items[&position]).collect();
        journal.mend(range.start, &items)?;
        journal.sync()?;
    }
    journal.close()?;
    Ok(())
}

/// Where a text stands in a segment.
fn place_of(disk: &SimDisk, segment: u64, text: &str) -> Option<u64> {
    use lattice_journal::{Disk, OpenMode};
    let file = disk.open(&segment_path(segment), OpenMode::Read).ok()?;
    let mut content = vec![0; usize::try_from(file.length().unwrap()).unwrap()];
    file.read_at(&mut content, 0).unwrap();
    let at = content.windows(text.len()).position(|window| window == text.as_bytes())?;
    Some(at.try_into().unwrap())
}

fn spoil(disk: &SimDisk, text: &str) {
    let found = (1..99).find_map(|segment| Some((segment, place_of(disk, segment, text)?)));
    let (segment, at) = found.expect("the text is in the log");
    disk.damage(&segment_path(segment), &[0xff], at).unwrap();
}

const SPOILT: [&[&str]; 4] =
    [&["one"], &["round 2"], &["two", "round 0", "XIV"], &["seventeen", "round 1"]];

#[test]
fn what_was_lost_is_put_back_and_a_crash_leaves_the_damage_or_the_repair() {
    for texts in SPOILT {
        for calls in 0..40 {
            let (disk, whole) = sample();
            texts.iter().for_each(|text| spoil(&disk, text));
            disk.crash_after_calls(calls);
            let _ = repair(&disk, &whole);
            disk.crash();

            let (journal, recovery) = open(&disk, SEGMENT).unwrap();
            let found = shown(&journal);
            let lost = journal.reader().damaged();
            let what = format!("{texts:?}, {calls} calls: {recovery:?}");
            assert_eq!((found.next, &found.state), (whole.next, &whole.state), "{what}");
            for (position, item) in &whole.items {
                let is_lost = lost.iter().any(|range| range.contains(position));
                let held = found.items.get(position);
                assert!(if is_lost { held.is_none() } else { held == Some(item) }, "{what}");
            }
            drop(journal);

            repair(&disk, &whole).unwrap();
            let (journal, recovery) = open(&disk, SEGMENT).unwrap();
            assert_eq!(shown(&journal), whole, "{what}");
            assert!(recovery.damaged.iter().all(|damage| damage.items.is_empty()), "{recovery:?}");
            assert!(!recovery.damaged.is_empty(), "the bytes are as they were");
        }
    }
}

#[test]
fn the_state_survives_damage_to_either_of_its_places() {
    let (disk, whole) = sample();
    let places: Vec<_> = (1..9)
        .filter_map(|segment| Some((segment, place_of(&disk, segment, "the state")?)))
        .collect();
    assert!(!places.is_empty());
    for (segment, first) in places {
        for copy in [false, true] {
            let (disk, _) = sample();
            // The copy follows with the last mark.
            let at = if copy { first + 16 } else { first };
            let mut found = None;
            if copy {
                use lattice_journal::{Disk, OpenMode};
                let file = disk.open(&segment_path(segment), OpenMode::Read).unwrap();
                let mut content = vec![0; usize::try_from(file.length().unwrap()).unwrap()];
                file.read_at(&mut content, 0).unwrap();
                let from = usize::try_from(at).unwrap();
                found = content[from..].windows(9).position(|window| window == b"the state");
                assert!(found.is_some(), "the state is in the log once more");
            }
            let at = at + u64::try_from(found.unwrap_or_default()).unwrap();
            disk.damage(&segment_path(segment), &[0xff], at).unwrap();
            let (_, recovery) = open_to_repair(&disk).unwrap();
            assert!(!recovery.damaged.is_empty());
            assert!(!recovery.state_damaged);
            assert_eq!(recovery.state, whole.state);
        }
    }
}

#[test]
fn a_damaged_journal_takes_batches_if_its_owner_repairs_and_none_otherwise() {
    let (disk, whole) = sample();
    spoil(&disk, "round 2");
    let (mut journal, _) = open(&disk, SEGMENT).unwrap();
    assert!(journal.append(&items(whole.next, &["more"])).is_err());
    drop(journal);
    let (mut journal, recovery) = open_to_repair(&disk).unwrap();
    assert_eq!(recovery.damaged.len(), 1);
    let lost = journal.reader().damaged();
    journal.append(&with_state(items(whole.next, &["more"]), "later")).unwrap();
    journal.sync().unwrap();
    drop(journal);
    disk.crash();
    let (journal, recovery) = open_to_repair(&disk).unwrap();
    assert_eq!(
        (journal.reader().damaged(), recovery.state.as_deref()),
        (lost, Some(&b"later"[..]))
    );
    assert_eq!(recovery.positions.end, whole.next + 1);
}

/// What a mark puts into the log once more is the latest state, or nothing: a vote that rotted must not give way to the one before it.
#[test]
fn a_journal_whose_latest_state_is_lost_stays_as_it_is() {
    let disk = SimDisk::new(1);
    let (mut journal, _) = open_to_repair(&disk).unwrap();
    journal.append(&with_state(items(1, &["one"]), "voted for A")).unwrap();
    journal.sync().unwrap();
    journal.append(&with_state(items(2, &["two"]), "voted for B")).unwrap();
    journal.sync().unwrap();
    // Nothing vouches for this one: the next opening wants to put a mark behind it.
    journal.append(&items(3, &["three"])).unwrap();
    journal.sync().unwrap();
    drop(journal);
    disk.crash();
    spoil(&disk, "voted for B");
    for attempt in 1..=3 {
        let (journal, recovery) = open_to_repair(&disk).unwrap();
        assert!(recovery.state_damaged, "attempt {attempt} takes {:?} for it", recovery.state);
        drop(journal);
        disk.crash();
    }
}

/// Numbers of the segments, and the text of what was found damaged.
fn look(disk: &SimDisk) -> (Vec<u64>, Vec<String>) {
    let (journal, recovery) = open_to_repair(disk).unwrap();
    let numbers = journal.segments().iter().map(|segment| segment.number).collect();
    (numbers, recovery.damaged.iter().map(ToString::to_string).collect())
}

#[test]
fn what_was_given_up_is_remembered_though_the_last_checkpoint_is_lost() {
    let (disk, whole) = sample();
    let (mut journal, _) = open_to_repair(&disk).unwrap();
    let segments = journal.segments();
    assert!(segments.len() > 1, "{segments:?}");
    let second = segments[1].positions.start;
    assert_eq!(journal.compact(second).unwrap(), 1);
    // A segment that says it in its checkpoint, and one more.
    let before = journal.active_segment();
    let mut next = whole.next;
    while journal.active_segment() < before + 2 {
        journal.append(&items(next, &[&"y".repeat(100)])).unwrap();
        next += 1;
        journal.sync().unwrap();
    }
    let last = journal.active_segment();
    drop(journal);
    disk.crash();
    disk.damage(&segment_path(last), &[0xff], 100).unwrap();

    let (mut journal, recovery) = open_to_repair(&disk).unwrap();
    assert!(!recovery.damaged.is_empty() && !recovery.state_damaged, "{recovery:?}");
    while journal.active_segment() < last + 1 {
        journal.append(&items(next, &[&"z".repeat(100)])).unwrap();
        next += 1;
        journal.sync().unwrap();
    }
    journal.close().unwrap();
    let (_, damaged) = look(&disk);
    assert!(damaged.iter().all(|damage| !damage.contains("missing")), "{damaged:?}");
}

#[test]
fn compaction_keeps_what_tells_where_the_damage_is() {
    const ITEMS: u64 = 60;
    let text = |position: u64| format!("item {position:02}{}", "x".repeat(100));
    let written = || {
        let disk = SimDisk::new(1);
        let (mut journal, _) = open_to_repair(&disk).unwrap();
        for position in 1..=ITEMS {
            journal.append(&items(position, &[&text(position)])).unwrap();
            journal.sync().unwrap();
        }
        assert!(journal.segments().len() > 5);
        journal.close().unwrap();
        disk
    };
    for spoilt in 1..ITEMS {
        for keep_from in [spoilt.saturating_sub(3), spoilt, spoilt + 1, spoilt + 20] {
            let disk = written();
            spoil(&disk, &text(spoilt));
            let (mut journal, _) = open_to_repair(&disk).unwrap();
            let lost = journal.reader().damaged();
            assert_eq!(lost[..], *std::slice::from_ref(&(spoilt..spoilt + 1)));
            journal.compact(keep_from).unwrap();
            let before = journal.reader();
            drop(journal);
            disk.crash();
            let after = open_to_repair(&disk).unwrap().0.reader();
            for reader in [before, after] {
                let what = format!("item {spoilt}, from {keep_from}");
                assert!(reader.positions().start <= keep_from.max(1), "{what}");
                let is_known = reader.damaged().contains(&lost[0]);
                assert!(is_known || spoilt < keep_from, "{what}");
            }
        }
    }
}

/// The copy that follows at once helps against a flipped bit, and is in the same block of the disk.
#[test]
fn the_state_is_copied_once_more_where_no_block_holds_both() {
    const BLOCK: u64 = 16 << 10;
    let disk = SimDisk::new(1);
    let mut options = options(64 << 10);
    options.repairs = true;
    let open = || Journal::open(Arc::new(disk.clone()), "log", options.clone()).unwrap();
    let (mut journal, _) = open();
    journal.append(&with_state(items(1, &["one"]), "the vote")).unwrap();
    // Idle: a copy close by.
    journal.mark().unwrap();
    for position in 2..40 {
        journal.append(&items(position, &[&"x".repeat(1000)])).unwrap();
        journal.sync().unwrap();
        journal.mark().unwrap();
    }
    journal.close().unwrap();
    let at = place_of(&disk, 1, "the vote").unwrap();
    let content = disk.durable_bytes(&segment_path(1), 0..64 << 10);
    let copies = content.windows(8).filter(|window| window == b"the vote").count();
    assert_eq!(copies, 3, "the state, a copy at its side, and one apart");
    disk.rot(&segment_path(1), at..at + BLOCK, 0x55).unwrap();
    let (_, recovery) = open();
    assert_eq!(recovery.state.as_deref(), Some(&b"the vote"[..]));
    assert!(!recovery.state_damaged);
}

/// Damage of any length, and whatever stands behind it: what is put back is all that is written.
#[test]
fn what_stands_behind_the_damage_is_not_written_again() {
    let (disk, whole) = sample();
    for text in ["one", "two", "round 2", "XIV"] {
        spoil(&disk, text);
    }
    let (mut journal, _) = open_to_repair(&disk).unwrap();
    let lost = journal.reader().damaged();
    let before = disk.counts().bytes;
    let mut items = 0;
    // In pieces, and in any order.
    for position in lost.into_iter().flatten().collect::<Vec<_>>().into_iter().rev() {
        let item = &whole.items[&position];
        journal.mend(position, std::slice::from_ref(item)).unwrap();
        items += 96 + item.len().next_multiple_of(8) + 8;
    }
    journal.sync().unwrap();
    let written = usize::try_from(disk.counts().bytes - before).unwrap();
    assert!(written <= items + 600, "{written} bytes for {items}: a segment begins with 300");
    assert_eq!((shown(&journal), journal.reader().damaged()), (whole.clone(), vec![]));
    let range = 1..whole.next;
    let all = journal.reader().read(range, usize::MAX).unwrap();
    assert_eq!(all.len(), whole.items.len(), "one read passes over what was put back");
    drop(journal);
    disk.crash();
    assert_eq!(shown(&open_to_repair(&disk).unwrap().0), whole);
}

#[test]
fn what_was_put_back_is_truncated_compacted_and_lost_like_all_else() {
    let (disk, mut whole) = sample();
    spoil(&disk, "round 2");
    repair(&disk, &whole).unwrap();
    let (journal, _) = open_to_repair(&disk).unwrap();
    // Lost a second time, where it is now.
    let segment = journal.active_segment();
    drop(journal);
    let again = disk.durable_bytes(&segment_path(segment), 0..SEGMENT);
    let at = again.windows(7).rposition(|window| window == b"round 2").unwrap();
    let at = u64::try_from(at).unwrap();
    disk.rot(&segment_path(segment), at..at + 1, 0x10).unwrap();
    let (journal, _) = open_to_repair(&disk).unwrap();
    let lost = journal.reader().damaged();
    assert!(!lost.is_empty(), "it is told that it is lost");
    drop(journal);
    repair(&disk, &whole).unwrap();
    // Cut back into the middle of it, and written on.
    let (mut journal, _) = open_to_repair(&disk).unwrap();
    let from = lost[0].start + 1;
    let batch = replacing(from, &["new", "newer", "newest"]);
    journal.append(&batch).unwrap();
    journal.sync().unwrap();
    whole.apply(&batch);
    assert_eq!(shown(&journal), whole);
    drop(journal);
    disk.crash();
    let (mut journal, _) = open_to_repair(&disk).unwrap();
    assert_eq!(shown(&journal), whole);
    for keep_from in 1..=whole.next {
        journal.compact(keep_from).unwrap();
        let start = journal.positions().start;
        assert!(start <= keep_from);
        whole.items.retain(|position, _| *position >= start);
        assert_eq!(shown(&journal), whole);
    }
    drop(journal);
    disk.crash();
    assert_eq!(shown(&open_to_repair(&disk).unwrap().0), whole);
}

#[test]
fn what_is_no_part_of_the_log_cannot_be_put_back() {
    let (disk, whole) = sample();
    let (mut journal, _) = open_to_repair(&disk).unwrap();
    for first in [0, whole.next - 1, whole.next, u64::MAX] {
        let refused = journal.mend(first, &["a", "b"]);
        assert!(matches!(refused, Err(AppendError::NotHeld { .. })), "{first}: {refused:?}");
    }
    let fitting = journal.mend(whole.next - 2, &["a", "b"]);
    assert!(fitting.is_ok(), "{fitting:?}");
}
