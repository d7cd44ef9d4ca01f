//! A crash between any two calls of the disk, with every kind of survivors: what was synced is there, what was not is there whole
//! or not at all, and the journal goes on. Each life is led on a disk that does nothing to make bytes ready for small writes, and on one
//! that writes zeros there.

use std::collections::BTreeMap;

use lattice_journal::{Batch, Journal};
use lattice_sim::{DiskOptions, SimDisk, Survival};

use crate::support::{Model, items, open, open_trusting, replacing, shown, with_state};

const SEGMENT: u64 = 900;

/// What was done so far: enough to judge what a crash left.
#[derive(Default)]
struct Told {
    /// The log after each batch.
    history: Vec<Model>,
    /// How many batches are known to be durable.
    synced: usize,
    /// Items below this may be gone.
    keep_from: u64,
    /// Items that may read as this instead.
    replaced: BTreeMap<u64, Vec<u8>>,
}

impl Told {
    fn new() -> Self {
        Self { history: vec![Model::new()], ..Self::default() }
    }

    /// Whether a log is the one after this many batches.
    fn is_after(&self, batches: usize, found: &Model) -> bool {
        let model = &self.history[batches];
        let same = |(position, bytes): (&u64, &Vec<u8>)| {
            model.items.get(position) == Some(bytes) || self.replaced.get(position) == Some(bytes)
        };
        (found.next, &found.state) == (model.next, &model.state)
            && found.items.iter().all(same)
            && model.items.keys().all(|p| *p < self.keep_from || found.items.contains_key(p))
    }

    fn check(&self, found: &Model) {
        let last = self.history.len() - 1;
        let matching = (self.synced..=last).any(|batches| self.is_after(batches, found));
        assert!(matching, "synced {} of {last}, found {found:#?}", self.synced);
    }
}

type Failure = Box<dyn std::error::Error>;

fn append(journal: &mut Journal, told: &mut Told, batch: &Batch) -> Result<(), Failure> {
    // Appending may write ahead: the batch may survive from here on.
    let next = told.history.last().unwrap().after(batch);
    told.history.push(next);
    journal.append(batch)?;
    Ok(())
}

fn append_all(journal: &mut Journal, told: &mut Told, batches: &[Batch]) -> Result<(), Failure> {
    for batch in batches {
        let next = told.history.last().unwrap().after(batch);
        told.history.push(next);
    }
    journal.append_all(batches)?;
    Ok(())
}

fn sync(journal: &mut Journal, told: &mut Told) -> Result<(), Failure> {
    let batches = told.history.len() - 1;
    journal.sync()?;
    told.synced = batches;
    Ok(())
}

/// Everything a journal does, on very small segments.
fn life(disk: &SimDisk, told: &mut Told) -> Result<(), Failure> {
    let long = "x".repeat(120);
    let (mut journal, _) = open(disk, SEGMENT)?;
    append(&mut journal, told, &with_state(items(1, &["one", "two"]), "state 1"))?;
    sync(&mut journal, told)?;
    append(&mut journal, told, &items(3, &["three", &long]))?;
    append(&mut journal, told, &replacing(4, &["IV"]))?;
    sync(&mut journal, told)?;
    journal.mark()?;
    for round in 0..4 {
        let next = told.history.last().unwrap().next;
        append(&mut journal, told, &items(next, &[&long, &format!("round {round}")]))?;
        append(&mut journal, told, &with_state(replacing(next + 1, &["again"]), "state 2"))?;
        sync(&mut journal, told)?;
    }
    let end = told.history.last().unwrap().next;
    let positions = journal.segments()[1].positions.clone();
    for position in positions {
        told.replaced.insert(position, format!("scavenged {position}").into_bytes());
    }
    journal.replace_segment(2, &mut |position, _| {
        Some(format!("scavenged {position}").into_bytes())
    })?;
    told.keep_from = end - 3;
    journal.compact(end - 3)?;
    append(&mut journal, told, &items(end, &["after compaction", &"y".repeat(2000)]))?;
    sync(&mut journal, told)?;
    append(&mut journal, told, &Batch { restart_at: Some(100), ..items(100, &["anew"]) })?;
    sync(&mut journal, told)?;
    journal.compact(100)?;
    append(&mut journal, told, &items(101, &["last"]))?;
    let batches = told.history.len() - 1;
    journal.close()?;
    told.synced = batches;
    Ok(())
}

/// A life with seals, and with rewriting beside the writer.
fn sealed_life(disk: &SimDisk, told: &mut Told) -> Result<(), Failure> {
    let long = "x".repeat(120);
    let (mut journal, _) = open_trusting(disk, SEGMENT)?;
    for round in 0..6 {
        let next = told.history.last().unwrap().next;
        append(&mut journal, told, &items(next, &[&long, &format!("round {round}")]))?;
        append(&mut journal, told, &with_state(replacing(next + 1, &["again", &long]), "state"))?;
        sync(&mut journal, told)?;
    }
    for seal in journal.take_seals() {
        seal.write()?;
    }
    let scavenge = &mut |position, _: &[u8]| Some(format!("scavenged {position}").into_bytes());
    let positions = journal.segments()[1].positions.clone();
    let last = positions.end - 1;
    for position in positions {
        told.replaced.insert(position, format!("scavenged {position}").into_bytes());
    }
    let rewriter = journal.rewriter(2)?;
    let prepared = rewriter.prepare(scavenge)?;
    // The writer goes on meanwhile, and takes back some of what is rewritten.
    append(&mut journal, told, &with_state(replacing(last, &["taken back"]), "later state"))?;
    sync(&mut journal, told)?;
    journal.install(prepared)?;
    for seal in journal.take_seals() {
        seal.write()?;
    }
    for round in 0..6 {
        let next = told.history.last().unwrap().next;
        append(&mut journal, told, &items(next, &[&long, &long, &format!("round {round}")]))?;
        sync(&mut journal, told)?;
    }
    journal.rewriter(1)?.prepare(&mut |_, _| None).map(drop)?;
    let end = told.history.last().unwrap().next;
    told.keep_from = end - 6;
    journal.compact(end - 6)?;
    append(&mut journal, told, &Batch { restart_at: Some(100), ..items(100, &["anew", &long]) })?;
    append(&mut journal, told, &items(102, &[&long, &long, &long, &long, &long]))?;
    let batches = told.history.len() - 1;
    journal.close()?;
    told.synced = batches;
    Ok(())
}

/// Groups of batches, each of which becomes durable with one sync.
fn life_in_groups(disk: &SimDisk, told: &mut Told) -> Result<(), Failure> {
    let (mut journal, _) = open(disk, SEGMENT)?;
    for round in 0..20_usize {
        let next = told.history.last().unwrap().next;
        let batches = [
            items(next, &[&"x".repeat(40 * round)]),
            with_state(items(next + 1, &["of", "two"]), &format!("state {round}")),
            replacing(next + 2, &["replaced"]),
            items(next + 3, &[]),
            with_state(items(next + 3, &[&"y".repeat(100)]), "last of a group"),
        ];
        append_all(&mut journal, told, &batches)?;
        sync(&mut journal, told)?;
        let in_one = journal.segments().last().unwrap().positions.contains(&next);
        assert!(in_one, "a group begins and ends in one segment");
    }
    let batches = told.history.len() - 1;
    journal.close()?;
    told.synced = batches;
    Ok(())
}

type Life = fn(&SimDisk, &mut Told) -> Result<(), Failure>;
const LIVES: [Life; 3] = [life, sealed_life, life_in_groups];

/// Opens what the crash left, checks it, goes on, crashes again, and checks again.
fn judge(disk: &SimDisk, told: &Told, what: &str) {
    let (journal, recovery) =
        open_trusting(disk, SEGMENT).unwrap_or_else(|error| panic!("{what}: {error}"));
    assert!(recovery.damaged.is_empty(), "{what}: {:?}", recovery.damaged);
    assert!(!recovery.state_damaged, "{what}");
    let found = shown(&journal);
    told.check(&found);
    assert_eq!(journal.reader().verify_all().unwrap(), [], "{what}");
    drop(journal);

    // Without any trust the same is found.
    let (mut journal, recovery) = open(disk, SEGMENT).unwrap();
    assert!(recovery.damaged.is_empty(), "{what}: {:?}", recovery.damaged);
    assert_eq!(shown(&journal), found, "{what}");

    let batch = with_state(items(found.next, &["after the crash", &"z".repeat(300)]), "later");
    journal.append(&batch).unwrap_or_else(|error| panic!("{what}: {error}"));
    journal.sync().unwrap();
    drop(journal);
    disk.crash();
    let (journal, recovery) = open_trusting(disk, SEGMENT).unwrap();
    assert!(recovery.damaged.is_empty(), "{what}: {:?}", recovery.damaged);
    let expected = found.after(&batch);
    let again = shown(&journal);
    assert_eq!((again.next, again.state), (expected.next, expected.state), "{what}");
    assert_eq!(again.items, expected.items, "{what}");
}

/// Every life on either disk.
fn lives() -> impl Iterator<Item = (Life, bool)> {
    LIVES.into_iter().flat_map(|life| [(life, false), (life, true)])
}

fn new_disk(seed: u64, writes_zeros: bool) -> SimDisk {
    SimDisk::with_options(seed, DiskOptions { writes_zeros, ..DiskOptions::default() })
}

fn calls_of(life: Life, writes_zeros: bool) -> u64 {
    let disk = new_disk(0, writes_zeros);
    let mut told = Told::new();
    life(&disk, &mut told).unwrap();
    let calls = disk.counts().calls;
    judge(&disk, &told, "no crash");
    calls
}

#[test]
fn a_crash_at_every_call_loses_nothing_that_was_synced() {
    assert!(calls_of(life, true) > calls_of(life, false), "zeros are written");
    for (life, writes_zeros) in lives() {
        let calls = calls_of(life, writes_zeros);
        assert!(calls > 80, "{calls}");
        for calls in 0..calls {
            let seeded = (0..6).map(|seed| (seed, Survival::Random));
            let both = [(6, Survival::Nothing), (7, Survival::Everything)];
            for (seed, survival) in seeded.chain(both) {
                let disk = new_disk(seed, writes_zeros);
                let mut told = Told::new();
                disk.crash_after_calls(calls);
                let failed = life(&disk, &mut told);
                // The last calls write seals, of which nobody is told when they fail.
                assert!(failed.is_err() || told.synced == told.history.len() - 1);
                disk.crash_with(survival);
                judge(&disk, &told, &format!("{calls} calls, seed {seed}, {survival:?}"));
            }
        }
    }
}

#[test]
fn a_crash_may_leave_the_first_batches_of_a_group_and_none_behind_a_lost_one() {
    let mut left = std::collections::BTreeSet::new();
    for seed in 0..200 {
        let disk = SimDisk::new(seed);
        let (mut journal, _) = open(&disk, 64 * 1024).unwrap();
        let long = "x".repeat(400);
        let batches = [items(1, &["one", &long]), items(3, &[&long]), items(4, &["four", &long])];
        let mut told = Told::new();
        append_all(&mut journal, &mut told, &batches).unwrap();
        // The write is carried out, and the sync is not.
        disk.crash_after_calls(1);
        journal.sync().unwrap_err();
        drop(journal);
        disk.crash_with(Survival::Random);
        judge(&disk, &told, &format!("seed {seed}"));
        let (journal, _) = open(&disk, 64 * 1024).unwrap();
        left.insert(journal.positions().end);
    }
    // What was judged goes on with two items more.
    assert_eq!(left.into_iter().collect::<Vec<_>>(), [3, 5, 6, 8]);
}

#[test]
fn a_kill_at_every_call_loses_nothing_that_was_written() {
    for (life, writes_zeros) in lives() {
        for calls in 0..calls_of(life, writes_zeros) {
            let disk = new_disk(9, writes_zeros);
            let mut told = Told::new();
            disk.crash_after_calls(calls);
            let _ = life(&disk, &mut told);
            disk.kill();
            judge(&disk, &told, &format!("killed after {calls} calls"));
        }
    }
}

#[test]
fn a_crash_at_every_call_of_the_recovery_from_a_crash_changes_nothing() {
    for (life, writes_zeros) in lives() {
        for calls in (0..calls_of(life, writes_zeros)).step_by(3) {
            for more in 0..12 {
                let disk = new_disk(calls * 100 + more, writes_zeros);
                let mut told = Told::new();
                disk.crash_after_calls(calls);
                let _ = life(&disk, &mut told);
                disk.crash();
                disk.crash_after_calls(more);
                let opened = open_trusting(&disk, SEGMENT);
                drop(opened);
                disk.crash();
                judge(&disk, &told, &format!("{calls} calls, then {more}"));
            }
        }
    }
}
