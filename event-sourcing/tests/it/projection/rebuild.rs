//! A new version is built beside the old one, while events are written.

use event_sourcing::projection::{Batch, MemorySink};

use super::*;

/// Which version has written the rows.
const VERSION: Table<(), String> = Table::new("version");

fn versioned(version: &'static str) -> Projection {
    let batch = Batch { count_max: 3, ..Batch::default() };
    sums(version)
        .on("added", move |tx, _| Ok(tx.put(&VERSION, &(), &version.to_owned())?))
        .batch(batch)
}

#[test]
fn a_rebuild_while_writing_goes_on_ends_equal_and_the_swap_is_atomic() {
    for (old_per_round, new_per_round) in [(1, 1), (1, 3), (3, 1), (0, 2), (7, 2)] {
        let (store, clock) = store();
        fill(&*store, 40);
        let sink: Arc<dyn Sink> = Arc::new(MemorySink::new());
        let mut old = Some(Runner::open(Arc::clone(&sink), versioned("1")).unwrap());
        run(old.as_mut().unwrap(), &*store, &*clock).unwrap();
        let mut new = Runner::open(Arc::clone(&sink), versioned("2")).unwrap();
        assert!(!new.is_current());
        let (mut seen, mut swapped) = (Position::BEGINNING, false);
        let mut look = || {
            let position = assert_rows(&sink, &*store);
            assert!(position >= seen, "the read model went back from {seen} to {position}");
            seen = position;
            let version = view(&sink).get(&VERSION, &()).unwrap().unwrap();
            assert!(!swapped || version == "2", "the old version came back");
            swapped = version == "2";
            swapped
        };
        for round in 0..200 {
            if round < 30 {
                append(&*store, &[("s-1", "added", 1), ("s-2", "added", 1)]);
            }
            for _ in 0..old_per_round {
                if let Some(runner) = &mut old {
                    match step(runner, &*store, &*clock) {
                        Ok(_) => {}
                        Err(ProjectionError::Superseded) => old = None,
                        Err(error) => panic!("{error}"),
                    }
                }
                look();
            }
            for _ in 0..new_per_round {
                step(&mut new, &*store, &*clock).unwrap();
                look();
            }
        }
        assert!(look() && new.is_current(), "the new version is current");
        assert_eq!(assert_rows(&sink, &*store), store.head());
        // The directory, the checkpoint, five sums, the count and the version.
        assert_eq!(sink.snapshot().unwrap().scan(&[], &[0xff], 1000).unwrap().len(), 9);
        if old_per_round > 0 {
            append(&*store, &[("s-1", "added", 1)]);
            let late = old.map(|mut old| run(&mut old, &*store, &*clock));
            assert!(matches!(late, None | Some(Err(ProjectionError::Superseded))), "{late:?}");
        }
    }
}

#[test]
fn the_same_version_is_built_anew_on_demand_and_goes_on_after_a_stop() {
    let (store, clock) = store();
    fill(&*store, 40);
    let sink: Arc<dyn Sink> = Arc::new(MemorySink::new());
    let mut first = Runner::open(Arc::clone(&sink), versioned("1")).unwrap();
    run(&mut first, &*store, &*clock).unwrap();
    let mut again = Runner::rebuild(Arc::clone(&sink), versioned("1")).unwrap();
    (0..6).for_each(|_| assert!(step(&mut again, &*store, &*clock).unwrap()));
    let (build, position) = (again.build(), again.checkpoint().position);
    assert!(position > Position::BEGINNING && !again.is_current());
    drop(again);
    assert_eq!(Runner::open(Arc::clone(&sink), versioned("1")).unwrap().build(), first.build());
    let mut again = Runner::rebuild(Arc::clone(&sink), versioned("1")).unwrap();
    assert_eq!((again.build(), again.position()), (build, position));
    run(&mut again, &*store, &*clock).unwrap();
    assert!(again.is_current());
    assert_eq!(assert_rows(&sink, &*store), store.head());
}

#[test]
fn a_build_that_is_overtaken_by_a_newer_version_is_given_up() {
    let (store, clock) = store();
    fill(&*store, 10);
    let sink: Arc<dyn Sink> = Arc::new(MemorySink::new());
    run(&mut Runner::open(Arc::clone(&sink), versioned("1")).unwrap(), &*store, &*clock).unwrap();
    let mut second = Runner::open(Arc::clone(&sink), versioned("2")).unwrap();
    (0..3).for_each(|_| assert!(step(&mut second, &*store, &*clock).unwrap()));
    let mut third = Runner::open(Arc::clone(&sink), versioned("3")).unwrap();
    let refused = run(&mut second, &*store, &*clock);
    assert!(matches!(refused, Err(ProjectionError::Superseded)), "{refused:?}");
    run(&mut third, &*store, &*clock).unwrap();
    assert_eq!(view(&sink).get(&VERSION, &()).unwrap().as_deref(), Some("3"));
    assert_eq!(sink.snapshot().unwrap().scan(&[], &[0xff], 1000).unwrap().len(), 9);
}

#[test]
fn what_a_projection_listens_to_is_part_of_its_version() {
    let same = sums("1").fingerprint();
    assert_eq!(same, sums("1").fingerprint());
    let others = [
        sums("2"),
        sums("1").on("other", |_, _| Ok(())),
        sums("1").source(Source::Stream(stream("s-1"))),
        sums("1").after(Position(1)),
        sums("1").refuse_unknown(),
    ];
    for other in others {
        assert_ne!(same, other.fingerprint(), "{other:?}");
    }
    assert_eq!(same, sums("1").partitions(8).fingerprint(), "which changes nothing");
}
