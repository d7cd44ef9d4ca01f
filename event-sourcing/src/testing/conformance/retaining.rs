//! What is hidden is hidden everywhere and at once, and nothing else changes by it.

use std::time::Duration;

use futures::executor::block_on;

use super::{Case, Check, at, exact, of_stream, query, stream};
use crate::append::{Append, AppendError};
use crate::condition::Expected;
use crate::error::InvalidAppend;
use crate::event::{Timestamp, Version};
use crate::read::{Read, ReadError, Source};
use crate::retention::{METADATA_SIZE_MAX, Retention};
use crate::store::EventStoreExt;

pub(super) const CHECKS: &[Check] = &[
    ("what_is_hidden_is_in_no_read", what_is_hidden_is_in_no_read),
    ("only_the_last_events_are_kept", only_the_last_events_are_kept),
    ("only_young_events_are_kept", only_young_events_are_kept),
    ("a_deleted_stream_goes_on_numbering", a_deleted_stream_goes_on_numbering),
    ("a_deletion_is_of_what_was_seen", a_deletion_is_of_what_was_seen),
    ("a_closed_stream_stays_closed", a_closed_stream_stays_closed),
    ("what_is_hidden_stays_hidden", what_is_hidden_stays_hidden),
    ("retention_can_be_changed_by_parts", retention_can_be_changed_by_parts),
    ("a_decision_that_makes_no_sense_is_refused", senseless_decisions),
    ("survivors_are_as_they_were", survivors_are_as_they_were),
];

fn what_is_hidden_is_in_no_read(case: &mut Case) {
    let events = [(); 4].map(|()| case.event("t", &["x"]));
    case.ok(Append::to(stream("a"), Expected::Any, events));
    case.fill("b", 1);
    case.say("a", r#"{"$tb":3,"other":[1]}"#).expect("it can be said");
    case.settle();
    assert_eq!(case.versions("a"), Some(vec![3]));
    assert_eq!(case.positions(Read::forward(Source::All)), [4, 5, 6]);
    assert_eq!(case.positions(Read::backward(Source::All)), [6, 5, 4]);
    assert_eq!(case.positions(Read::forward(Source::Query(query("+ x")))), [4]);
    assert_eq!(case.positions(Read::forward(Source::Query(query("t + stream:a")))), [4]);
    let from = crate::read::From::Version(Version(0));
    assert_eq!(case.positions(Read::forward(of_stream("a")).from(from)), [4]);
    assert!(case.positions(Read::backward(of_stream("a")).from(from)).is_empty());
    let info = case.info("a").expect("it is there");
    assert_eq!((info.first, info.last, info.last_position), (Version(3), Version(3), at(4)));
    let truncate_before = Some(Version(3));
    assert_eq!(info.retention, Retention { truncate_before, ..Retention::default() });
}

fn only_the_last_events_are_kept(case: &mut Case) {
    // It may be decided before there is anything.
    case.say("a", r#"{"$maxCount":3}"#).expect("it can be said");
    for count in 1..=8 {
        case.fill("a", 1);
        case.settle();
        let expected: Vec<u64> =
            (0..count).skip(usize::try_from(count).expect("small").max(3) - 3).collect();
        assert_eq!(case.versions("a"), Some(expected));
    }
    case.say("a", r#"{"$maxCount":1}"#).expect("it can be said");
    case.settle();
    assert_eq!(case.versions("a"), Some(vec![7]));
}

fn only_young_events_are_kept(case: &mut Case) {
    case.clock.set(Timestamp(10_000_000));
    case.fill("a", 2);
    case.clock.advance(Duration::from_secs(5));
    case.fill("a", 1);
    case.say("a", r#"{"$maxAge":10}"#).expect("it can be said");
    case.clock.advance(Duration::from_secs(5));
    case.fill("b", 1);
    case.settle();
    assert_eq!(case.versions("a"), Some(vec![0, 1, 2]), "ten seconds are not more than ten");
    // Time alone hides nothing: it is the log's time that counts.
    case.clock.advance(Duration::from_millis(1));
    assert_eq!(case.versions("a"), Some(vec![0, 1, 2]));
    case.fill("b", 1);
    case.settle();
    assert_eq!(case.versions("a"), Some(vec![2]));
    assert_eq!(case.info("a").map(|info| info.first), Some(Version(2)));
    case.clock.advance(Duration::from_secs(60));
    case.fill("b", 1);
    case.settle();
    // It exists, and is empty.
    assert_eq!(case.versions("a"), Some(vec![]));
    assert_eq!(case.info("a").map(|info| info.first), Some(Version(3)));
    let event = case.event("t", &[]);
    case.ok(Append::to(stream("a"), exact(2), [event]));
    assert_eq!(case.versions("a"), Some(vec![3]));
}

fn a_deleted_stream_goes_on_numbering(case: &mut Case) {
    case.fill("a", 3);
    let store = case.store();
    let deleted = block_on(store.delete(stream("a"), Expected::Any)).expect("it is deleted");
    assert!(deleted.is_some());
    drop(store);
    case.settle();
    assert_eq!(case.versions("a"), None);
    let answer = case.page(Read::forward(of_stream("a")));
    assert!(matches!(answer, Err(ReadError::NoStream { .. })), "{answer:?}");
    assert_eq!(case.positions(Read::forward(Source::All)), [4]);
    let store = case.store();
    let again = block_on(store.delete(stream("a"), Expected::Any)).expect("it is no error");
    assert_eq!(again, None);
    drop(store);
    let info = case.info("a").expect("what was there is known");
    assert_eq!((info.first, info.last), (Version(3), Version(2)));
    let event = case.event("t", &[]);
    let committed = case.ok(Append::to(stream("a"), Expected::NoStream, [event]));
    assert_eq!(committed.streams, [(stream("a"), Version(3))]);
    case.settle();
    assert_eq!(case.versions("a"), Some(vec![3]));
    case.fill("a", 1);
    block_on(case.store().delete(stream("a"), exact(4))).expect("it is deleted again");
    case.settle();
    assert_eq!(case.versions("a"), None);
    let event = case.event("t", &[]);
    let committed = case.ok(Append::to(stream("a"), exact(4), [event]));
    assert_eq!(committed.streams, [(stream("a"), Version(5))]);
}

fn a_deletion_is_of_what_was_seen(case: &mut Case) {
    case.fill("a", 3);
    for expected in [exact(1), Expected::NoStream] {
        let answer = block_on(case.store().delete(stream("a"), expected));
        assert!(matches!(answer, Err(AppendError::Conflict(_))), "{answer:?}");
    }
    for expected in [exact(0), Expected::StreamExists] {
        let answer = block_on(case.store().delete(stream("b"), expected));
        assert!(matches!(answer, Err(AppendError::Conflict(_))), "{answer:?}");
    }
    assert_eq!(case.versions("a"), Some(vec![0, 1, 2]));
    let answer = block_on(case.store().delete(stream("$$a"), Expected::Any));
    assert!(matches!(answer, Ok(None)), "{answer:?}");
    case.say("a", "{}").expect("it can be said");
    let answer = block_on(case.store().delete(stream("$$a"), Expected::Any));
    assert!(matches!(answer, Err(AppendError::Invalid(_))), "{answer:?}");
}

fn a_closed_stream_stays_closed(case: &mut Case) {
    case.fill("a", 2);
    let store = case.store();
    let answer = block_on(store.tombstone(stream("a"), exact(0)));
    assert!(matches!(answer, Err(AppendError::Conflict(_))), "{answer:?}");
    block_on(store.tombstone(stream("a"), exact(1))).expect("it can be closed");
    // One that was never written to can be closed as well.
    block_on(store.tombstone(stream("b"), Expected::NoStream)).expect("it can be closed");
    drop(store);
    case.settle();
    for name in ["a", "b"] {
        let event = case.event("t", &[]);
        let answers = [
            case.append(Append::to(stream(name), Expected::Any, [event])),
            case.say(name, "{}"),
            block_on(case.store().tombstone(stream(name), Expected::Any)),
            block_on(case.store().delete(stream(name), Expected::Any)).map(|_| unreachable!()),
        ];
        for answer in answers {
            match answer {
                Err(AppendError::Tombstoned { stream: closed }) => {
                    assert_eq!(closed, stream(name));
                }
                answer => panic!("{answer:?}"),
            }
        }
        let answer = case.page(Read::forward(of_stream(name)));
        assert!(matches!(answer, Err(ReadError::Tombstoned { .. })), "{answer:?}");
    }
    assert_eq!(case.positions(Read::forward(Source::All)), [3, 4]);
    assert!(case.info("a").is_some_and(|info| info.retention.tombstoned));
}

fn what_is_hidden_stays_hidden(case: &mut Case) {
    case.fill("a", 6);
    case.say("a", r#"{"$maxCount":2}"#).expect("it can be said");
    for json in [r#"{}"#, r#"{"$maxCount":3}"#, r#"{"$tb":3}"#] {
        let answer = case.say("a", json);
        let refused = matches!(answer, Err(AppendError::Invalid(InvalidAppend::Reserved(_))));
        assert!(refused, "{json}: {answer:?}");
    }
    case.say("a", r#"{"$tb":4,"$maxCount":9}"#).expect("nothing comes back by it");
    case.fill("a", 2);
    case.settle();
    assert_eq!(case.versions("a"), Some(vec![4, 5, 6, 7]));
    case.say("a", r#"{"$tb":4,"$maxAge":1}"#).expect("it hides more");
    case.clock.advance(Duration::from_secs(2));
    case.fill("b", 1);
    case.settle();
    let answer = case.say("a", r#"{"$tb":4}"#);
    assert!(matches!(answer, Err(AppendError::Invalid(_))), "{answer:?}");
    block_on(case.store().set_retention(stream("a"), Retention::default())).expect("it can");
    case.fill("a", 1);
    case.settle();
    assert_eq!(case.versions("a"), Some(vec![8]));
}

fn retention_can_be_changed_by_parts(case: &mut Case) {
    case.fill("a", 5);
    case.say("a", r#"{"$maxCount":4,"mine":{"k":1}}"#).expect("it can be said");
    let store = case.store();
    block_on(store.truncate_before(stream("a"), Version(2))).expect("it can be truncated");
    let retention = block_on(store.retention(stream("a"))).expect("it is known");
    let both =
        Retention { truncate_before: Some(Version(2)), max_count: Some(4), ..Retention::default() };
    assert_eq!(retention, both);
    let head = store.head();
    let again = block_on(store.truncate_before(stream("a"), Version(1))).expect("it is no error");
    assert_eq!((again, store.head()), (None, head));
    let last = block_on(store.read_last(of_stream("$$a"))).expect("it can be read");
    let said = last.map(|last| last.event.data.clone()).unwrap_or_default();
    let said: serde_json::Value = serde_json::from_slice(&said).expect("it is JSON");
    assert_eq!(said, serde_json::json!({"$maxCount": 4, "$tb": 2, "mine": {"k": 1}}));
    drop(store);
    case.settle();
    assert_eq!(case.versions("a"), Some(vec![2, 3, 4]));
}

fn senseless_decisions(case: &mut Case) {
    case.fill("a", 2);
    for json in [
        "",
        "[]",
        "{",
        "null",
        r#"{"$tb":-1}"#,
        r#"{"$tb":3}"#,
        r#"{"$tb":9223372036854775807}"#,
        r#"{"$tb":"1"}"#,
        r#"{"$maxCount":0}"#,
        r#"{"$maxCount":1.5}"#,
        r#"{"$maxAge":0}"#,
        r#"{"$maxAge":-5}"#,
    ] {
        let answer = case.say("a", json);
        let refused = matches!(answer, Err(AppendError::Invalid(InvalidAppend::Reserved(_))));
        assert!(refused, "{json}: {answer:?}");
    }
    let long = format!(r#"{{"mine":"{}"}}"#, "x".repeat(METADATA_SIZE_MAX));
    assert!(matches!(case.say("a", &long), Err(AppendError::Invalid(_))));
    case.say("a", r#"{"$tb":null,"$maxCount":null}"#).expect("it says nothing");
    // What it truncates may be written by the same append.
    let said = |before| {
        let truncate_before = Some(Version(before));
        Retention { truncate_before, ..Retention::default() }.to_event(serde_json::Map::new())
    };
    for (before, is_right) in [(5, false), (4, true)] {
        let events = case.events(2);
        let append = Append::to(stream("a"), Expected::Any, events).and_to(
            stream("$$a"),
            Expected::Any,
            [said(before)],
        );
        assert_eq!(case.append(append).is_ok(), is_right, "{before}");
    }
    let closed = Retention { tombstoned: true, ..Retention::default() };
    let closing = closed.to_event(serde_json::Map::new());
    let events = case.events(1);
    let append = Append::to(stream("$$b"), Expected::Any, [closing]).and_to(
        stream("b"),
        Expected::Any,
        events,
    );
    case.invalid(append);
}

fn survivors_are_as_they_were(case: &mut Case) {
    for _ in 0..5 {
        for name in ["a", "b", "c"] {
            case.fill(name, 2);
        }
    }
    let before = case.read(Read::forward(Source::All));
    case.say("a", r#"{"$tb":7}"#).expect("it can be said");
    case.say("b", r#"{"$maxCount":1}"#).expect("it can be said");
    case.tombstone("c");
    case.settle();
    case.settle();
    let after = case.read(Read::forward(Source::All));
    let survivors: Vec<_> = before
        .into_iter()
        .filter(|event| match event.stream.as_str() {
            "a" => event.version >= Version(7),
            "b" => event.version >= Version(9),
            _ => false,
        })
        .collect();
    assert_eq!(after[..after.len() - 3], survivors);
    let info = case.info("c").expect("what was there is known");
    assert_eq!((info.last, info.last_position, info.first), (Version(9), at(30), Version(10)));
    let committed = case.fill("a", 1);
    assert_eq!((committed.last, committed.streams), (at(34), vec![(stream("a"), Version(10))]));
}
