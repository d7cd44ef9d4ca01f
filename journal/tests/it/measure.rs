//! Figures on the real disk, for people to read: how long an opening takes, and how much memory an item.
//!
//! `cargo test --release -p lattice-journal --test it -- --ignored --nocapture measure`; `LATTICE_MEASURE_ITEMS` sets how many items
//! (10,000,000), `LATTICE_MEASURE_FRAME` how many a frame has at most (64), and `LATTICE_MEASURE_DIR` where: a journal that is there already is only opened, so that the page cache can be
//! emptied before.
#![expect(clippy::disallowed_methods, reason = "this measures time")]

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use lattice_journal::{Batch, Journal, JournalOptions, RealDisk};

fn timed<T>(what: &str, run: impl FnOnce() -> T) -> T {
    let start = Instant::now();
    let result = run();
    println!("{what}: {:.3} s", start.elapsed().as_secs_f64());
    result
}

fn open(directory: &Path, trust_seals: bool) -> Journal {
    let mut options = JournalOptions::new(1);
    options.trust_seals = trust_seals;
    let (journal, recovery) = Journal::open(Arc::new(RealDisk), directory, options).unwrap();
    assert!(recovery.damaged.is_empty());
    journal
}

/// Appends items of 300 bytes in frames of 1 to `most`; writes seals as they come.
fn fill(journal: &mut Journal, items: u64, most: u64) {
    let item = [7; 300];
    let (mut random, mut frames) = (1_u64, 0_u64);
    while journal.positions().end <= items {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        let count = usize::try_from(1 + (random >> 33) % most).unwrap();
        let first = journal.positions().end;
        journal.append(&Batch { first, items: vec![&item; count], ..Batch::default() }).unwrap();
        frames += 1;
        if frames.is_multiple_of(1000) {
            journal.sync().unwrap();
            journal.take_seals().into_iter().for_each(|seal| seal.write().unwrap());
        }
    }
    journal.sync().unwrap();
    println!("{frames} frames, {} segments", journal.segments().len());
}

fn show_memory(journal: &Journal) {
    let (bytes, items) = (journal.reader().index_memory(), journal.positions().end - 1);
    let bytes = u32::try_from(bytes / 1000).unwrap();
    let items = u32::try_from(items / 1000).unwrap();
    println!("index: {bytes} kB, {:.2} bytes an item", f64::from(bytes) / f64::from(items));
}

fn read(journal: &Journal) {
    let reader = journal.reader();
    let end = journal.positions().end;
    timed("reading everything", || {
        let mut next = 1;
        while next < end {
            next = reader.visit(next..end, 4 << 20, |_, _| {}).unwrap();
        }
    });
    timed("reading 100,000 items one by one", || {
        let mut random = 1_u64;
        for _ in 0..100_000 {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let position = 1 + (random >> 20) % (end - 1);
            assert_eq!(reader.read(position..position + 1, 0).unwrap().len(), 1);
        }
    });
}

#[test]
#[ignore = "takes minutes, and 4 GB of disk"]
fn openings_of_a_long_journal() {
    let number = |name, usual| std::env::var(name).map_or(usual, |n| n.parse().unwrap());
    let items = number("LATTICE_MEASURE_ITEMS", 10_000_000);
    let most = number("LATTICE_MEASURE_FRAME", 64);
    let temporary = tempfile::tempdir().unwrap();
    let given = std::env::var_os("LATTICE_MEASURE_DIR").map(PathBuf::from);
    let directory = given.unwrap_or_else(|| temporary.path().join("log"));
    if directory.exists() {
        let journal = timed("opening what is there", || open(&directory, true));
        return show_memory(&journal);
    }
    let mut journal = open(&directory, true);
    timed("filling", || fill(&mut journal, items, most));
    show_memory(&journal);
    drop(journal);
    let journal = timed("opening after a kill", || open(&directory, true));
    timed("closing", || journal.close().unwrap());
    let journal = timed("opening after a clean stop", || open(&directory, true));
    show_memory(&journal);
    read(&journal);
    drop(journal);
    let journal = timed("opening without trust in seals", || open(&directory, false));
    show_memory(&journal);
    timed("verifying", || assert!(journal.reader().verify_all().unwrap().is_empty()));
}
