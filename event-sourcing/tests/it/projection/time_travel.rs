//! Read models as they were.

use std::time::Duration;

use event_sourcing::Version;
use event_sourcing::projection::{RowDifference, replay};
use event_sourcing::time_travel::Moment;

use super::*;

#[test]
fn a_read_model_is_seen_as_it_was_at_any_position() {
    let (store, _) = store();
    fill(&*store, 15);
    for position in 0..=16 {
        let moment = Moment::Position(Position(position));
        let view = block_on(replay(&*store, sums("1"), moment)).unwrap();
        assert_eq!(view.position(), Position(position.min(15)));
        assert_eq!(Model::of(&view), Model::at(&*store, view.position()));
    }
    let end = block_on(replay(&*store, sums("1"), Moment::Now)).unwrap();
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
        let view = block_on(replay(&*store, sums("1"), Moment::Time(Timestamp(time)))).unwrap();
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
    let before = block_on(replay(&*store, projection(), Moment::Position(middle))).unwrap();
    let after = block_on(replay(&*store, projection(), Moment::Now)).unwrap();
    let differs = |key: &str, before, after| RowDifference { key: key.to_owned(), before, after };
    let wanted =
        [differs("b", Some(2), Some(7)), differs("c", None, Some(6)), differs("d", Some(4), None)];
    assert_eq!(before.diff(&after, &SUMS).unwrap(), wanted);
    assert_eq!(before.diff(&before, &SUMS).unwrap(), []);
}

#[test]
fn a_read_model_of_one_stream_is_seen_as_it_was_at_any_version() {
    let (store, _) = store();
    fill(&*store, 15);
    let projection = || sums("1").source(Source::Stream(stream("s-2")));
    for (version, sum) in [(0, 2), (1, 9), (2, 21), (7, 21)] {
        let moment = Moment::Version(Version(version));
        let view = block_on(replay(&*store, projection(), moment)).unwrap();
        assert_eq!(view.get(&SUMS, "s-2").unwrap(), Some(sum));
    }
    let moment = Moment::Version(Version(1));
    assert!(block_on(replay(&*store, sums("1"), moment)).is_err());
}
