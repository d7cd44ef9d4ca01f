//! Handlers that fail and panic, and events that nobody handles.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use event_sourcing::projection::{Changes, MemorySink, OnFailure, SinkError, Snapshot};

use super::*;

/// Sums in which the number 13 fails as long as `broken` says so.
fn superstitious(broken: &Arc<AtomicBool>) -> Projection {
    let broken = Arc::clone(broken);
    sums("1").on("added", move |_, event| {
        if broken.load(Ordering::SeqCst) && number(&event.event)? == 13 {
            return Err("thirteen".into());
        }
        Ok(())
    })
}

fn thirteen(store: &dyn EventStore) {
    append(store, &[("s-1", "added", 1), ("s-2", "added", 2)]);
    append(store, &[("s-3", "added", 3), ("s-1", "added", 13), ("s-2", "added", 4)]);
    append(store, &[("s-1", "added", 5), ("s-3", "added", 6)]);
}

#[test]
fn a_projection_stops_before_the_append_whose_event_fails_and_goes_on_when_it_is_mended() {
    let (store, clock) = store();
    thirteen(&*store);
    let broken = Arc::new(AtomicBool::new(true));
    let sink: Arc<dyn Sink> = Arc::new(MemorySink::new());
    let mut runner = Runner::open(Arc::clone(&sink), superstitious(&broken)).unwrap();
    match run(&mut runner, &*store, &*clock) {
        Err(ProjectionError::Handler { position, stream, event_type, attempts, message }) => {
            assert_eq!((position, stream.as_str()), (Position(4), "s-1"));
            assert_eq!((event_type.as_str(), attempts, &*message), ("added", 1, "thirteen"));
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(assert_rows(&sink, &*store), Position(2), "nothing of the append is in the rows");
    broken.store(false, Ordering::SeqCst);
    let mut runner = Runner::open(Arc::clone(&sink), superstitious(&broken)).unwrap();
    run(&mut runner, &*store, &*clock).unwrap();
    assert_eq!(assert_rows(&sink, &*store), store.head());
}

#[test]
fn a_panic_is_a_failure_like_another() {
    let (store, clock) = store();
    thirteen(&*store);
    let sink: Arc<dyn Sink> = Arc::new(MemorySink::new());
    let projection = sums("1").on("added", |tx, event| {
        tx.put(&COUNT, &(), &1000)?;
        assert!(number(&event.event)? != 13, "thirteen at {}", event.position);
        Ok(tx.put(&COUNT, &(), &0)?)
    });
    let mut runner = Runner::open(Arc::clone(&sink), projection).unwrap();
    let error = run(&mut runner, &*store, &*clock).unwrap_err();
    assert!(error.to_string().ends_with("it panicked: thirteen at 4"), "{error}");
    assert_eq!(view(&sink).get(&COUNT, &()).unwrap(), Some(0), "what it wrote is undone");
}

#[test]
fn an_event_is_tried_again_after_pauses_that_double() {
    let (store, clock) = store();
    thirteen(&*store);
    let tries = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&tries);
    let projection = sums("1")
        .on("added", move |_, event| {
            let thirteen = number(&event.event)? == 13;
            match thirteen && counted.fetch_add(1, Ordering::SeqCst) < 3 {
                true => Err("not yet".into()),
                false => Ok(()),
            }
        })
        .on_failure(OnFailure::stop().after_retries(3, Duration::from_millis(100)));
    let sink: Arc<dyn Sink> = Arc::new(MemorySink::new());
    let mut runner = Runner::open(Arc::clone(&sink), projection).unwrap();
    for (attempt, pause) in [(1, 100), (2, 200), (3, 400)] {
        run(&mut runner, &*store, &*clock).unwrap();
        assert_eq!(tries.load(Ordering::SeqCst), attempt);
        assert_eq!(runner.last_error(), Some("not yet"));
        assert_eq!(assert_rows(&sink, &*store), Position(2));
        clock.advance(Duration::from_millis(pause - 1));
        run(&mut runner, &*store, &*clock).unwrap();
        assert_eq!(tries.load(Ordering::SeqCst), attempt, "it is too early");
        clock.advance(Duration::from_millis(1));
    }
    run(&mut runner, &*store, &*clock).unwrap();
    assert_eq!(assert_rows(&sink, &*store), store.head());
    assert_eq!(runner.last_error(), None);
}

#[test]
fn a_clock_that_jumps_back_delays_a_retry_and_loses_nothing() {
    let (store, clock) = store();
    thirteen(&*store);
    let broken = Arc::new(AtomicBool::new(true));
    let sink: Arc<dyn Sink> = Arc::new(MemorySink::new());
    let policy = OnFailure::stop().after_retries(1, Duration::from_millis(100));
    let projection = superstitious(&broken).on_failure(policy);
    let mut runner = Runner::open(Arc::clone(&sink), projection).unwrap();
    run(&mut runner, &*store, &*clock).unwrap();
    broken.store(false, Ordering::SeqCst);
    clock.set(Timestamp(0));
    run(&mut runner, &*store, &*clock).unwrap();
    assert_eq!(assert_rows(&sink, &*store), Position(2));
    clock.set(Timestamp(1100));
    run(&mut runner, &*store, &*clock).unwrap();
    assert_eq!(assert_rows(&sink, &*store), store.head());
}

#[test]
fn a_parked_event_holds_back_its_stream_and_no_other_until_it_is_replayed() {
    let (store, clock) = store();
    thirteen(&*store);
    let broken = Arc::new(AtomicBool::new(true));
    let sink: Arc<dyn Sink> = Arc::new(MemorySink::new());
    let projection = superstitious(&broken).on_failure(OnFailure::park());
    let mut runner = Runner::open(Arc::clone(&sink), projection.clone()).unwrap();
    run(&mut runner, &*store, &*clock).unwrap();
    let sum = |name: &str| view(&sink).get(&SUMS, name).unwrap();
    assert_eq!((sum("s-1"), sum("s-2"), sum("s-3")), (Some(1), Some(6), Some(9)));

    // After a restart it is known still, and later events of the stream stay behind.
    let mut runner = Runner::open(Arc::clone(&sink), projection).unwrap();
    append(&*store, &[("s-1", "added", 100), ("s-2", "added", 100)]);
    run(&mut runner, &*store, &*clock).unwrap();
    assert_eq!((sum("s-1"), sum("s-2")), (Some(1), Some(106)));
    let parked = runner.parked_events().unwrap();
    let positions: Vec<_> = parked.iter().map(|it| (it.position.0, it.attempts)).collect();
    assert_eq!(positions, [(4, 1), (6, 0), (8, 0)]);
    assert_eq!((&*parked[0].message, &*parked[0].key), ("thirteen", "s-1"));

    let event_at = |position: Position| {
        let page = block_on(store.read(Read::forward(Source::All))).unwrap();
        page.events.into_iter().find(|event| event.position == position)
    };
    let again = runner.replay(&parked[0], event_at(Position(4)).as_deref()).unwrap();
    assert_eq!(again.as_deref(), Some("thirteen"));
    assert_eq!(runner.parked_events().unwrap()[0].attempts, 2);
    broken.store(false, Ordering::SeqCst);
    for parked in runner.parked_events().unwrap() {
        let event = event_at(parked.position);
        assert_eq!(runner.replay(&parked, event.as_deref()).unwrap(), None);
    }
    assert_eq!(runner.parked(), 0);
    assert_eq!(assert_rows(&sink, &*store), store.head());
}

#[test]
fn so_many_events_are_parked_and_no_more() {
    let (store, clock) = store();
    thirteen(&*store);
    append(&*store, &[("s-1", "added", 7)]);
    let broken = Arc::new(AtomicBool::new(true));
    let sink: Arc<dyn Sink> = Arc::new(MemorySink::new());
    let policy = OnFailure { parked_max: 2, ..OnFailure::park() };
    let projection = superstitious(&broken).on_failure(policy);
    let mut runner = Runner::open(Arc::clone(&sink), projection).unwrap();
    let full = run(&mut runner, &*store, &*clock);
    assert!(matches!(full, Err(ProjectionError::ParkedFull { parked: 2, .. })), "{full:?}");
    assert_eq!(view(&sink).position(), Position(7));
}

#[test]
fn a_build_with_parked_events_does_not_take_the_place_of_another() {
    let (store, clock) = store();
    thirteen(&*store);
    let sink: Arc<dyn Sink> = Arc::new(MemorySink::new());
    run(&mut Runner::open(Arc::clone(&sink), sums("0")).unwrap(), &*store, &*clock).unwrap();
    let broken = Arc::new(AtomicBool::new(true));
    let projection = superstitious(&broken).on_failure(OnFailure::park());
    let mut runner = Runner::open(Arc::clone(&sink), projection).unwrap();
    run(&mut runner, &*store, &*clock).unwrap();
    assert!(!runner.is_current());
    for parked in runner.parked_events().unwrap() {
        runner.discard(&parked).unwrap();
    }
    run(&mut runner, &*store, &*clock).unwrap();
    assert!(runner.is_current());
}

#[test]
fn an_event_that_nobody_handles_is_skipped_or_refused() {
    let (store, clock) = store();
    append(&*store, &[("s-1", "added", 1)]);
    append(&*store, &[("s-1", "unheard-of", 1)]);
    append(&*store, &[("s-1", "added", 2)]);
    let sink: Arc<dyn Sink> = Arc::new(MemorySink::new());
    let mut runner = Runner::open(Arc::clone(&sink), sums("1")).unwrap();
    run(&mut runner, &*store, &*clock).unwrap();
    assert_eq!(assert_rows(&sink, &*store), store.head());

    let sink: Arc<dyn Sink> = Arc::new(MemorySink::new());
    let mut runner = Runner::open(Arc::clone(&sink), sums("1").refuse_unknown()).unwrap();
    let error = run(&mut runner, &*store, &*clock).unwrap_err();
    assert!(error.to_string().contains("no handler is for events of type unheard-of"), "{error}");
    assert_eq!(assert_rows(&sink, &*store), Position(1));

    let sink: Arc<dyn Sink> = Arc::new(MemorySink::new());
    let projection = sums("1").otherwise(|tx, _| Ok(tx.put(&SUMS, "others", &1)?));
    let mut runner = Runner::open(Arc::clone(&sink), projection).unwrap();
    run(&mut runner, &*store, &*clock).unwrap();
    assert_eq!(view(&sink).get(&SUMS, "others").unwrap(), Some(1));
}

/// A sink that cannot read the sums.
#[derive(Debug, Default)]
struct Unreadable(MemorySink);

#[derive(Debug)]
struct UnreadableSnapshot(Box<dyn Snapshot>);

impl Sink for Unreadable {
    fn snapshot(&self) -> Result<Box<dyn Snapshot>, SinkError> {
        Ok(Box::new(UnreadableSnapshot(self.0.snapshot()?)))
    }

    fn commit(&self, changes: &Changes) -> Result<(), SinkError> {
        self.0.commit(changes)
    }
}

impl Snapshot for UnreadableSnapshot {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, SinkError> {
        match key.windows(7).any(|window| window == b"tsums\0\0") {
            true => Err(SinkError::failed("the disk cannot be read")),
            false => self.0.get(key),
        }
    }

    fn scan(
        &self,
        from: &[u8],
        until: &[u8],
        count_max: usize,
    ) -> Result<Vec<(Bytes, Bytes)>, SinkError> {
        self.0.scan(from, until, count_max)
    }
}

#[test]
fn a_sink_that_fails_is_no_failure_of_the_event() {
    let (store, clock) = store();
    thirteen(&*store);
    let sink: Arc<dyn Sink> = Arc::new(Unreadable::default());
    // The handler swallows what the sink says, and the projection would park the event.
    let projection = Projection::new("sums", "1")
        .on("added", |tx, _| {
            let _ = tx.get(&SUMS, "s-1");
            Ok(())
        })
        .on_failure(OnFailure::park());
    let mut runner = Runner::open(Arc::clone(&sink), projection).unwrap();
    let error = run(&mut runner, &*store, &*clock).unwrap_err();
    assert!(matches!(error, ProjectionError::Sink(SinkError::Failed(_))), "{error:?}");
    assert_eq!((view(&sink).position(), runner.parked()), (Position::BEGINNING, 0));
}

#[test]
fn names_and_versions_are_checked_when_it_is_opened() {
    let sink: Arc<dyn Sink> = Arc::new(MemorySink::new());
    let open = |projection| Runner::open(Arc::clone(&sink), projection).unwrap_err();
    let long = "x".repeat(257);
    assert!(matches!(open(Projection::new("", "1")), ProjectionError::Length { what: "name", .. }));
    assert!(matches!(open(Projection::new(long, "1")), ProjectionError::Length { size: 257, .. }));
    assert!(matches!(
        open(Projection::new("x", "1").on("", |_, _| Ok(()))),
        ProjectionError::Name(_)
    ));
}
