//! Effects happen once, whatever is lost between two steps.

use std::sync::atomic::{AtomicUsize, Ordering};

use event_sourcing::projection::{Batch, Changes, MemorySink, SinkError, Snapshot};

use super::*;

/// A sink that fails at one call, and at all that follow until it is repaired. If the call is a commit, it may take effect
/// nevertheless.
#[derive(Debug)]
struct Crashing {
    sink: MemorySink,
    calls: AtomicUsize,
    at: AtomicUsize,
    takes_effect: bool,
}

impl Crashing {
    fn new(at: usize, takes_effect: bool) -> Self {
        let (calls, at) = (AtomicUsize::new(0), AtomicUsize::new(at));
        Self { sink: MemorySink::new(), calls, at, takes_effect }
    }

    fn repair(&self) {
        self.at.store(usize::MAX, Ordering::SeqCst);
    }

    /// Counts a call; whether it is the one that fails, or a later one.
    fn call(&self) -> std::cmp::Ordering {
        self.calls.fetch_add(1, Ordering::SeqCst).cmp(&self.at.load(Ordering::SeqCst))
    }
}

fn gone() -> SinkError {
    SinkError::failed("the power has failed")
}

impl Sink for Crashing {
    fn snapshot(&self) -> Result<Box<dyn Snapshot>, SinkError> {
        if self.call().is_lt() { self.sink.snapshot() } else { Err(gone()) }
    }

    fn commit(&self, changes: &Changes) -> Result<(), SinkError> {
        match self.call() {
            std::cmp::Ordering::Less => self.sink.commit(changes),
            std::cmp::Ordering::Equal if self.takes_effect => {
                self.sink.commit(changes).and(Err(gone()))
            }
            std::cmp::Ordering::Equal | std::cmp::Ordering::Greater => Err(gone()),
        }
    }
}

fn small() -> Batch {
    Batch { count_max: 3, ..Batch::default() }
}

#[test]
fn effects_happen_once_whatever_is_lost_between_two_steps() {
    let (store, clock) = store();
    fill(&*store, 20);
    let mut crashes = 0;
    for takes_effect in [false, true] {
        for at in 0.. {
            let crashing = Arc::new(Crashing::new(at, takes_effect));
            let sink: Arc<dyn Sink> = crashing.clone();
            let attempt = || {
                let mut runner = Runner::open(Arc::clone(&sink), sums("1").batch(small()))?;
                run(&mut runner, &*store, &*clock)
            };
            let first = attempt();
            crashing.repair();
            assert_rows(&sink, &*store);
            attempt().unwrap();
            assert_eq!(assert_rows(&sink, &*store), store.head());
            if first.is_ok() {
                break;
            }
            crashes += 1;
        }
    }
    assert!(crashes > 20, "there were {crashes} crashes");
}

#[test]
fn a_crash_in_a_rebuild_leaves_one_current_build_that_is_whole() {
    let (store, clock) = store();
    fill(&*store, 20);
    for takes_effect in [false, true] {
        for at in 0.. {
            let crashing = Arc::new(Crashing::new(usize::MAX, takes_effect));
            let sink: Arc<dyn Sink> = crashing.clone();
            let mut old = Runner::open(Arc::clone(&sink), sums("1").batch(small())).unwrap();
            run(&mut old, &*store, &*clock).unwrap();
            crashing.at.store(crashing.calls.load(Ordering::SeqCst) + at, Ordering::SeqCst);
            let attempt = || {
                let mut runner = Runner::open(Arc::clone(&sink), sums("2").batch(small()))?;
                run(&mut runner, &*store, &*clock)
            };
            let first = attempt();
            crashing.repair();
            assert_eq!(assert_rows(&sink, &*store), store.head(), "crash at {at}");
            attempt().unwrap();
            assert_eq!(assert_rows(&sink, &*store), store.head(), "crash at {at}");
            let all = sink.snapshot().unwrap().scan(&[], &[0xff], 1000).unwrap();
            // The directory, the checkpoint, five sums and the count of one build: nothing is left of the other.
            assert_eq!(all.len(), 8, "crash at {at}");
            if first.is_ok() {
                break;
            }
        }
    }
}

#[test]
fn a_second_runner_is_refused_instead_of_counting_twice() {
    let (store, clock) = store();
    fill(&*store, 10);
    let sink: Arc<dyn Sink> = Arc::new(MemorySink::new());
    let mut first = Runner::open(Arc::clone(&sink), sums("1").batch(small())).unwrap();
    let mut second = Runner::open(Arc::clone(&sink), sums("1").batch(small())).unwrap();
    step(&mut first, &*store, &*clock).unwrap();
    step(&mut second, &*store, &*clock).unwrap();
    step(&mut first, &*store, &*clock).unwrap();
    let refused = step(&mut second, &*store, &*clock);
    assert!(matches!(refused, Err(ProjectionError::Superseded)), "{refused:?}");
    run(&mut first, &*store, &*clock).unwrap();
    assert_eq!(assert_rows(&sink, &*store), store.head());
}

#[test]
fn appends_are_seen_whole_however_small_the_batches_are() {
    let (store, clock) = store();
    for number in 1..20u64 {
        let names: Vec<_> = (0..=number % 7).map(|it| format!("s-{it}")).collect();
        let events: Vec<_> = names.iter().map(|name| (&**name, "added", number)).collect();
        append(&*store, &events);
        // Not all events of an append are for the projection.
        append(&*store, &[("s-1", "added", 1), ("s-2", "other", 1), ("s-3", "added", 1)]);
    }
    let ends: Vec<_> = {
        let page = block_on(store.read(Read::forward(Source::All))).unwrap();
        let last = page.events.iter().filter(|it| it.place.index + 1 == it.place.count);
        last.map(|it| it.position).collect()
    };
    for count_max in 1..9 {
        let sink: Arc<dyn Sink> = Arc::new(MemorySink::new());
        let batch = Batch { count_max, ..Batch::default() };
        let mut runner = Runner::open(Arc::clone(&sink), sums("1").batch(batch)).unwrap();
        while step(&mut runner, &*store, &*clock).unwrap() {
            let position = assert_rows(&sink, &*store);
            // Up to the end of an append, but for events of it that nobody asked for.
            let whole = ends.iter().any(|end| {
                let model = Model::at(&*store, *end);
                *end >= position && model == Model::at(&*store, position)
            });
            assert!(whole || position == Position::BEGINNING, "it is cut at {position}");
        }
        assert_eq!(assert_rows(&sink, &*store), store.head());
    }
}

#[test]
fn a_checkpoint_moves_over_events_that_are_none_of_its_business() {
    let (store, clock) = store();
    append(&*store, &[("s-1", "added", 1)]);
    for _ in 0..50 {
        let events: Vec<_> = (0..100).map(|_| ("s-1", "other", 1)).collect();
        append(&*store, &events);
    }
    let sink: Arc<dyn Sink> = Arc::new(MemorySink::new());
    let mut runner = Runner::open(Arc::clone(&sink), sums("1")).unwrap();
    run(&mut runner, &*store, &*clock).unwrap();
    assert_eq!(runner.position(), store.head());
    assert!(runner.checkpoint().position > Position(4000), "it is written from time to time");
    runner.flush().unwrap();
    assert_eq!(view(&sink).position(), store.head());
}

#[test]
fn a_stream_that_is_not_there_yet_is_waited_for() {
    let (store, clock) = store();
    fill(&*store, 3);
    let sink: Arc<dyn Sink> = Arc::new(MemorySink::new());
    let projection = sums("1").source(Source::Stream(stream("late")));
    let mut runner = Runner::open(Arc::clone(&sink), projection).unwrap();
    run(&mut runner, &*store, &*clock).unwrap();
    assert_eq!(runner.position(), Position(3));
    append(&*store, &[("late", "added", 7)]);
    run(&mut runner, &*store, &*clock).unwrap();
    assert_eq!(view(&sink).get(&SUMS, "late").unwrap(), Some(7));
    assert_eq!(view(&sink).get(&COUNT, &()).unwrap(), Some(1));
}
