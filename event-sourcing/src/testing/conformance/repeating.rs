//! An append takes effect once, however often it comes, for ever.

use futures::executor::block_on;

use super::{Case, Check, at, exact, label, query, stream};
use crate::append::{Append, AppendError, Committed};
use crate::condition::Expected::{Any, NoStream};
use crate::event::{EventId, Metadata, NewEvent, StreamName};
use crate::store::EventStoreExt;

pub(super) const CHECKS: &[Check] = &[
    ("a_repetition_is_answered_as_the_first_time", a_repetition),
    ("a_repetition_is_known_when_its_events_are_gone", a_repetition_of_what_is_gone),
    ("an_id_is_taken_in_its_stream_only", an_id_is_taken_in_its_stream_only),
    ("an_id_says_one_thing_for_ever", an_id_says_one_thing),
    ("a_part_is_no_repetition", a_part_is_no_repetition),
    ("a_key_names_one_append", a_key_names_one_append),
    ("a_key_that_is_not_recorded_is_not_acknowledged", a_key_that_comes_late),
    ("a_repetition_in_the_same_moment_is_one", a_repetition_in_the_same_moment),
];

fn repeated(committed: Committed) -> Committed {
    Committed { repeated: true, ..committed }
}

fn a_repetition(case: &mut Case) {
    let events = [(); 3].map(|()| case.event("t", &["x"]));
    let [first, second, third] = events.clone();
    let append = Append::to(stream("b"), NoStream, [first, second])
        .and_to(stream("a"), NoStream, [third])
        .fail_if_matches(query("+ x"), at(0));
    let committed = case.ok(append.clone());
    for _ in 0..2 {
        case.fill("a", 1);
        case.settle();
        // None of its checks holds any more.
        assert_eq!(case.ok(append.clone()), repeated(committed.clone()));
    }
    let bare = Append { checks: Vec::new(), ..append.clone() };
    assert_eq!(case.ok(bare), repeated(committed.clone()));
    let mut other_metadata = append;
    for (_, event) in &mut other_metadata.events {
        event.metadata = Metadata { user: Some("again".into()), ..Metadata::default() };
        event.labels.push(label("x"));
    }
    assert_eq!(case.ok(other_metadata), repeated(committed));
    assert_eq!(case.store().head(), at(5));
}

fn a_repetition_of_what_is_gone(case: &mut Case) {
    let event = case.event("t", &[]);
    let append = Append::to(stream("a"), NoStream, [event]).key("key");
    let committed = case.ok(append.clone());
    block_on(case.store().delete(stream("a"), exact(0))).expect("it can be deleted");
    case.settle();
    assert_eq!(case.ok(append.clone()), repeated(committed.clone()));
    case.fill("a", 1);
    case.tombstone("a");
    case.settle();
    assert_eq!(case.ok(append.clone()), repeated(committed.clone()));
    let unnamed = Append { key: None, ..append.clone() };
    assert_eq!(case.ok(unnamed), repeated(committed.clone()));
    let mut named = append;
    named.events[0].1.id = EventId::random();
    assert_eq!(case.ok(named.clone()), repeated(committed));
    named.events[0].1.data = "other".into();
    let answer = case.append(named);
    assert!(matches!(answer, Err(AppendError::KeyReused { .. })), "{answer:?}");
}

fn an_id_is_taken_in_its_stream_only(case: &mut Case) {
    let event = case.event("t", &[]);
    assert_eq!(case.ok(Append::to(stream("a"), Any, [event.clone()])).last, at(1));
    assert_eq!(case.ok(Append::to(stream("b"), Any, [event.clone()])).last, at(2));
    case.settle();
    assert_eq!(case.ok(Append::to(stream("a"), Any, [event.clone()])).last, at(1));
    assert_eq!(case.ok(Append::to(stream("b"), Any, [event])).last, at(2));
}

fn an_id_says_one_thing(case: &mut Case) {
    let event = case.event("t", &["x"]);
    case.ok(Append::to(stream("a"), Any, [event.clone()]));
    case.settle();
    let others = [
        NewEvent { data: "other".into(), ..event.clone() },
        NewEvent { schema: 2, ..event.clone() },
        NewEvent { labels: Vec::new(), ..event.clone() },
        NewEvent { event_type: super::event_type("u"), ..event.clone() },
    ];
    for other in others {
        let fresh = case.event("t", &[]);
        // A conflict beside it is not what is told: whoever draws an id twice has to know.
        let append = Append::to(stream("a"), NoStream, [fresh, other]);
        match case.append(append) {
            Err(AppendError::IdReused { id, stream: home, position }) => {
                assert_eq!((id, home, position), (event.id, stream("a"), at(1)));
            }
            answer => panic!("{answer:?}"),
        }
    }
}

fn a_part_is_no_repetition(case: &mut Case) {
    let [a, b, c, d] = [(); 4].map(|()| case.event("t", &[]));
    case.ok(Append::to(stream("s"), Any, [a.clone(), b.clone()]));
    case.fill("other", 1);
    case.ok(Append::to(stream("s"), Any, [c.clone()]));
    case.settle();
    let refused: [&[&NewEvent]; 5] = [&[&a, &d], &[&d, &a], &[&b, &a], &[&b, &c], &[&a, &b, &c]];
    for events in refused {
        let append = Append::to(stream("s"), Any, events.iter().map(|event| (*event).clone()));
        let answer = case.append(append);
        assert!(matches!(answer, Err(AppendError::PartlyRecorded { .. })), "{answer:?}");
    }
    assert_eq!(case.store().head(), at(4));
    assert!(case.ok(Append::to(stream("s"), Any, [b])).repeated, "what is there is there");
}

fn a_key_names_one_append(case: &mut Case) {
    let home: StreamName = stream("a");
    let [first, second] = [(); 2].map(|()| case.event("t", &[]));
    let append = |events: &[&NewEvent]| {
        let fresh = |event: &&NewEvent| NewEvent { id: EventId::random(), ..(*event).clone() };
        Append::to(home.clone(), Any, events.iter().map(fresh)).key("key")
    };
    let committed = case.ok(append(&[&first, &second]));
    case.settle();
    assert_eq!(case.ok(append(&[&first, &second])), repeated(committed.clone()));
    case.fill("a", 1);
    let third = case.event("t", &[]);
    let mut elsewhere = append(&[&first, &second]);
    elsewhere.events[1].0 = stream("b");
    for other in [
        append(&[&first]),
        append(&[&second, &first]),
        append(&[&first, &second, &third]),
        append(&[&third]),
        elsewhere,
    ] {
        match case.append(other) {
            Err(AppendError::KeyReused { position }) => assert_eq!(position, committed.first),
            answer => panic!("{answer:?}"),
        }
    }
    let other_key = Append { key: None, ..append(&[&first, &second]) }.key("other");
    assert!(!case.ok(other_key).repeated, "with other ids and another key it is another append");
}

fn a_key_that_comes_late(case: &mut Case) {
    let events = [(); 2].map(|()| case.event("t", &[]));
    let unnamed = Append::to(stream("a"), Any, events);
    let first = case.ok(unnamed.clone()).first;
    case.settle();
    let named = unnamed.clone().key("late");
    for _ in 0..2 {
        let answer = case.append(named.clone());
        assert!(
            matches!(answer, Err(AppendError::KeyMissing { position }) if position == first),
            "{answer:?}"
        );
    }
    // The key is free, and nobody was told otherwise.
    let other = Append::to(stream("b"), Any, [case.event("u", &[])]).key("late");
    assert!(!case.ok(other.clone()).repeated);
    let answer = case.append(other.clone().key("later"));
    assert!(
        matches!(answer, Err(AppendError::KeyMissing { .. })),
        "another key is none: {answer:?}"
    );
    assert!(case.ok(unnamed).repeated && case.ok(other).repeated);
}

fn a_repetition_in_the_same_moment(case: &mut Case) {
    let event = case.event("t", &[]);
    let append = Append::to(stream("a"), NoStream, [event]);
    let store = case.store();
    let answers: Vec<_> = (0..8).map(|_| store.append(append.clone())).collect();
    let answers = block_on(futures::future::join_all(answers));
    let first_times =
        answers.iter().filter(|answer| matches!(answer, Ok(answer) if !answer.repeated)).count();
    assert_eq!(first_times, 1, "{answers:?}");
    assert!(answers.iter().all(|answer| answer.as_ref().is_ok_and(|done| done.last == at(1))));
}
