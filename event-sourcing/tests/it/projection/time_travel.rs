//! Read models as they were.

use std::time::Duration;

use event_sourcing::projection::{Difference, Until, replay};

use super::*;

#[test]
fn a_read_model_is_seen_as_it_was_at_any_position() {
    let (store, _) = store();
    fill(&*store, 15);
    for position in 0..=16 {
        let until = Until::Position(Position(position));
        let view = block_on(replay(&*store, sums("1"), until)).unwrap();
        assert_eq!(view.position(), Position(position.min(15)));
        assert_eq!(Model::of(&view), Model::at(&*store, view.position()));
    }
    let end = block_on(replay(&*store, sums("1"), Until::End)).unwrap();
    assert_eq!(end.position(), store.head());
}

#[test]
fn a_read_model_is_seen_as_it_was_at_any_time() {
    let (store, clock) = store();
    for number in 0..10 {
        append(&*store, &[("s-1", "added", 1), ("s-2", "added", number)]);
        clock.advance(Duration::from_secs(1));
    }
    for (time, position) in [(0, 0), (999, 0), (1000, 2), (1999, 2), (5000, 10), (60_000, 20)] {
        let view = block_on(replay(&*store, sums("1"), Until::Time(Timestamp(time)))).unwrap();
        assert_eq!(Model::of(&view), Model::at(&*store, Position(position)), "at {time} ms");
    }
}

#[test]
fn two_views_differ_in_these_rows() {
    let (store, _) = store();
    append(&*store, &[("a", "added", 1), ("b", "added", 2), ("c", "removed", 0)]);
    let middle = append(&*store, &[("d", "added", 4)]);
    append(&*store, &[("b", "added", 5), ("c", "added", 6), ("d", "removed", 0)]);
    let projection = || {
        sums("1").on("removed", |tx, event| {
            tx.remove(&SUMS, event.stream.as_str());
            Ok(())
        })
    };
    let before = block_on(replay(&*store, projection(), Until::Position(middle))).unwrap();
    let after = block_on(replay(&*store, projection(), Until::End)).unwrap();
    let differs = |key: &str, before, after| Difference { key: key.to_owned(), before, after };
    let wanted =
        [differs("b", Some(2), Some(7)), differs("c", None, Some(6)), differs("d", Some(4), None)];
    assert_eq!(before.diff(&after, &SUMS).unwrap(), wanted);
    assert_eq!(before.diff(&before, &SUMS).unwrap(), []);
}
