//! The worker and its handle, on threads and real time.

#![expect(clippy::disallowed_methods, reason = "the edge is tested as it runs")]

use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use event_sourcing::clock::SystemClock;
use event_sourcing::projection::{
    Batch, Changes, Handle, MemorySink, OnFailure, SinkError, Snapshot, State, Trend, WaitError,
    Worker,
};

use super::*;

const LONG: Duration = Duration::from_secs(20);

type Running = JoinHandle<Result<(), ProjectionError>>;

fn start(
    store: &Arc<MemoryStore>,
    sink: &Arc<dyn Sink>,
    projection: Projection,
) -> (Handle, Running) {
    let (worker, handle) = new(store, sink, projection);
    (handle, std::thread::spawn(|| worker.run_blocking()))
}

fn new(store: &Arc<MemoryStore>, sink: &Arc<dyn Sink>, projection: Projection) -> (Worker, Handle) {
    let store: Arc<dyn EventStore> = store.clone();
    Worker::new(store, Arc::clone(sink), projection, Arc::new(SystemClock)).unwrap()
}

/// Waits until the status is as it should be; the status then.
fn until(
    handle: &Handle,
    what: &str,
    is_met: impl Fn(&event_sourcing::projection::Status) -> bool,
) {
    let began = std::time::Instant::now();
    while !is_met(&handle.status()) {
        assert!(began.elapsed() < LONG, "{what}: {:?}", handle.status());
        std::thread::yield_now();
    }
}

#[test]
fn a_worker_catches_up_and_goes_on_live_and_stops() {
    let (store, _) = store();
    fill(&*store, 100);
    let sink: Arc<dyn Sink> = Arc::new(MemorySink::new());
    let (handle, running) = start(&store, &sink, sums("1"));
    block_on(handle.wait_until(Position(100), LONG)).unwrap();
    for number in 0..50 {
        let position = append(&*store, &[("s-1", "added", number)]);
        block_on(handle.wait_until(position, LONG)).unwrap();
        assert!(view(&sink).position() >= position, "its own write is seen");
        assert_rows(&sink, &*store);
    }
    until(&handle, "it is live", |status| status.state == State::Live);
    let status = handle.status();
    assert_eq!(
        (status.position, status.head, status.lag.events),
        (Position(150), Position(150), 0)
    );
    assert_eq!(
        (status.events, status.trend, status.lag.time),
        (150, Trend::CaughtUp, Duration::ZERO)
    );
    assert_eq!((status.is_current, status.last_error), (true, None));
    handle.stop();
    running.join().unwrap().unwrap();
    assert_eq!(handle.status().state, State::Stopped);
    let ended = block_on(handle.wait_until(Position(151), LONG));
    assert_eq!(ended, Err(WaitError::Ended { position: Position(150) }));
}

#[test]
fn a_worker_waits_makes_single_steps_and_goes_on() {
    let (store, _) = store();
    fill(&*store, 10);
    let sink: Arc<dyn Sink> = Arc::new(MemorySink::new());
    let batch = Batch { count_max: 2, ..Batch::default() };
    let (worker, handle) = new(&store, &sink, sums("1").batch(batch));
    handle.pause();
    let running = std::thread::spawn(|| worker.run_blocking());
    until(&handle, "it is paused", |status| status.state == State::Paused);
    assert_eq!(handle.status().position, Position::BEGINNING);
    assert_eq!(handle.status().lag.events, 10);
    for step in 1..=3 {
        handle.step();
        block_on(handle.wait_until(Position(2 * step), LONG)).unwrap();
        until(&handle, "it is paused", |status| status.state == State::Paused);
        assert_eq!(handle.status().position, Position(2 * step));
        assert_eq!(assert_rows(&sink, &*store), Position(2 * step));
    }
    let late = block_on(handle.wait_until(Position(7), Duration::from_millis(20)));
    assert_eq!(late, Err(WaitError::Late { position: Position(6) }));
    handle.resume();
    block_on(handle.wait_until(Position(10), LONG)).unwrap();
    handle.stop();
    running.join().unwrap().unwrap();
}

#[test]
fn a_worker_that_is_dropped_leaves_nobody_waiting() {
    let (store, _) = store();
    let sink: Arc<dyn Sink> = Arc::new(MemorySink::new());
    let (worker, handle) = new(&store, &sink, sums("1"));
    let waiting = handle.wait_until(Position(1), LONG);
    let asking = handle.replay_parked();
    drop(worker);
    assert_eq!(block_on(waiting), Err(WaitError::Ended { position: Position(0) }));
    assert!(block_on(asking).is_err());
    assert!(block_on(handle.replay_parked()).is_err());
}

#[test]
fn a_failing_handler_ends_the_worker_which_says_so() {
    let (store, _) = store();
    fill(&*store, 10);
    let sink: Arc<dyn Sink> = Arc::new(MemorySink::new());
    let projection = sums("1").on("added", |_, event| match number(&event.event)? {
        7 => Err("seven".into()),
        _ => Ok(()),
    });
    let (handle, running) = start(&store, &sink, projection);
    let waited = block_on(handle.wait_until(Position(10), LONG));
    assert_eq!(waited, Err(WaitError::Ended { position: Position(7) }));
    assert!(matches!(running.join().unwrap(), Err(ProjectionError::Handler { .. })));
    let status = handle.status();
    assert_eq!((status.state, status.position, status.lag.events), (State::Failed, Position(7), 3));
    assert!(status.last_error.unwrap().contains("seven"));
    assert!(status.lag.time > Duration::ZERO, "the last event is of long ago");
}

#[test]
fn parked_events_are_replayed_and_discarded_through_the_handle() {
    let (store, _) = store();
    fill(&*store, 10);
    let sink: Arc<dyn Sink> = Arc::new(MemorySink::new());
    let broken = Arc::new(std::sync::atomic::AtomicBool::new(true));
    let still = Arc::clone(&broken);
    let projection = sums("1")
        .on("added", move |_, event| match number(&event.event)? {
            2 => Err("two".into()),
            3 if still.load(Ordering::SeqCst) => Err("three".into()),
            _ => Ok(()),
        })
        .on_failure(OnFailure::park());
    let (handle, running) = start(&store, &sink, projection);
    block_on(handle.wait_until(Position(10), LONG)).unwrap();
    assert_eq!(handle.status().parked, 4, "2 and 7, 3 and 8 are of the same streams");
    assert_eq!(block_on(handle.replay_parked()).unwrap(), 4);
    broken.store(false, Ordering::SeqCst);
    assert_eq!(block_on(handle.replay_parked()).unwrap(), 2);
    assert_eq!(block_on(handle.discard_parked(Position(3))).unwrap(), 1);
    assert_eq!(block_on(handle.replay_parked()).unwrap(), 0);
    handle.stop();
    running.join().unwrap().unwrap();
    assert_eq!(view(&sink).get(&SUMS, "s-2").unwrap(), Some(7));
    assert_eq!(view(&sink).get(&SUMS, "s-3").unwrap(), Some(11));
}

/// Every third commit fails, and half of those take effect.
#[derive(Debug, Default)]
struct Shaky {
    sink: MemorySink,
    commits: AtomicUsize,
}

impl Sink for Shaky {
    fn snapshot(&self) -> Result<Box<dyn Snapshot>, SinkError> {
        self.sink.snapshot()
    }

    fn commit(&self, changes: &Changes) -> Result<(), SinkError> {
        match self.commits.fetch_add(1, Ordering::SeqCst) % 6 {
            2 => Err(SinkError::failed("not now")),
            5 => self.sink.commit(changes).and(Err(SinkError::failed("what was that?"))),
            _ => self.sink.commit(changes),
        }
    }
}

#[test]
fn a_sink_that_fails_now_and_then_is_tried_again_from_the_checkpoint() {
    let (store, _) = store();
    fill(&*store, 60);
    let sink: Arc<dyn Sink> = Arc::new(Shaky::default());
    let batch = Batch { count_max: 5, ..Batch::default() };
    let (handle, running) = start(&store, &sink, sums("1").batch(batch));
    block_on(handle.wait_until(Position(60), LONG)).unwrap();
    handle.stop();
    running.join().unwrap().unwrap();
    assert_eq!(assert_rows(&sink, &*store), Position(60));
}

#[test]
fn a_rebuild_runs_beside_the_current_build_and_takes_its_place() {
    let (store, _) = store();
    fill(&*store, 200);
    let sink: Arc<dyn Sink> = Arc::new(MemorySink::new());
    let (old, old_running) = start(&store, &sink, sums("1"));
    block_on(old.wait_until(Position(200), LONG)).unwrap();
    let (new, new_running) = start(&store, &sink, sums("2"));
    for number in 0..200 {
        append(&*store, &[("s-1", "added", number)]);
        assert_rows(&sink, &*store);
    }
    until(&new, "the new build is current", |status| status.is_current);
    block_on(new.wait_until(Position(400), LONG)).unwrap();
    // The old one hears of it when it next has something to say.
    append(&*store, &[("s-1", "added", 1)]);
    assert!(matches!(old_running.join().unwrap(), Err(ProjectionError::Superseded)));
    assert_eq!(old.status().state, State::Failed);
    block_on(new.wait_until(Position(401), LONG)).unwrap();
    new.stop();
    new_running.join().unwrap().unwrap();
    assert_eq!(assert_rows(&sink, &*store), Position(401));
}
