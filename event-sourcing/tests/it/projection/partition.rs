//! Partitions run side by side, and it cannot be seen.

use std::thread::ThreadId;

use event_sourcing::projection::{Batch, MemorySink};
use proptest::collection::vec;
use proptest::prelude::*;

use super::*;

/// The numbers of each stream in the order in which they came.
const ORDER: Table<str, Vec<u64>> = Table::new("order");
/// The thread that handled each event.
const THREADS: Table<Position, String> = Table::new("threads");

fn in_order() -> Projection {
    Projection::new("sums", "1").on("added", |tx, event| {
        let stream = event.stream.as_str();
        let mut numbers = tx.get(&ORDER, stream)?.unwrap_or_default();
        numbers.push(number(&event.event)?);
        let thread: ThreadId = std::thread::current().id();
        tx.put(&THREADS, &event.position, &format!("{thread:?}"))?;
        Ok(tx.put(&ORDER, stream, &numbers)?)
    })
}

#[test]
fn partitions_keep_the_order_within_a_stream() {
    let (store, clock) = store();
    for number in 0..400 {
        append(&*store, &[(&format!("s-{}", number % 13), "added", number)]);
    }
    let sink: Arc<dyn Sink> = Arc::new(MemorySink::new());
    let batch = Batch { count_max: 150, ..Batch::default() };
    let projection = in_order().partitions(4).batch(batch);
    let mut runner = Runner::open(Arc::clone(&sink), projection).unwrap();
    run(&mut runner, &*store, &*clock).unwrap();
    let view = view(&sink);
    for (stream, numbers) in view.scan(&ORDER, 100).unwrap() {
        assert!(numbers.is_sorted(), "{stream}: {numbers:?}");
        assert!((30..=31).contains(&numbers.len()));
    }
    let threads = view.scan(&THREADS, 1000).unwrap();
    let threads: std::collections::BTreeSet<_> = threads.into_iter().map(|row| row.1).collect();
    assert!(threads.len() >= 4, "it was {} threads", threads.len());
    assert_eq!(runner.clashes(), 0);
}

#[test]
fn partitions_that_touch_the_same_row_are_run_again_in_order() {
    let (store, clock) = store();
    fill(&*store, 100);
    let sink: Arc<dyn Sink> = Arc::new(MemorySink::new());
    // All of them count in one row.
    let mut runner = Runner::open(Arc::clone(&sink), sums("1").partitions(3)).unwrap();
    run(&mut runner, &*store, &*clock).unwrap();
    assert_eq!(assert_rows(&sink, &*store), store.head());
    assert_eq!(runner.clashes(), 1);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn partitions_change_nothing(
        events in vec((0u64..6, 0u64..100), 64..200), partitions in 2usize..6, reach in 1u64..8,
    ) {
        let (store, clock) = store();
        for (stream, number) in &events {
            append(&*store, &[(&format!("s-{stream}"), "added", *number)]);
        }
        // Each event moves something between its stream's row and that of another one, which may be of another partition.
        let projection = || Projection::new("sums", "1").on("added", move |tx, event| {
            let number = number(&event.event)?;
            let other = format!("s-{}", number % reach);
            let mine = tx.get(&SUMS, event.stream.as_str())?.unwrap_or(0);
            let theirs = tx.get(&SUMS, &other)?.unwrap_or(0);
            tx.put(&SUMS, event.stream.as_str(), &((mine * 31 + theirs + number) % 1_000_003))?;
            Ok(())
        });
        let rows = |projection: Projection| {
            let sink: Arc<dyn Sink> = Arc::new(MemorySink::new());
            let mut runner = Runner::open(Arc::clone(&sink), projection).unwrap();
            run(&mut runner, &*store, &*clock).unwrap();
            view(&sink).scan(&SUMS, 100).unwrap()
        };
        prop_assert_eq!(rows(projection()), rows(projection().partitions(partitions)));
    }
}
