use std::sync::Arc;

use super::*;
use crate::condition::{Expected, Query, QueryItem};
use crate::event::{EventId, EventType, Label};

fn stream(name: &str) -> StreamName {
    StreamName::new(name).unwrap()
}

fn event(kind: &str) -> NewEvent {
    NewEvent::json(EventType::new(kind).unwrap(), "{}")
}

fn labelled(kind: &str, labels: &[&str]) -> NewEvent {
    labels.iter().fold(event(kind), |event, label| event.label(Label::new(label).unwrap()))
}

fn machine() -> EventMachine<MemoryIndex> {
    EventMachine::default()
}

fn apply(
    machine: &mut EventMachine<MemoryIndex>,
    append: Append,
) -> Result<Committed, AppendError> {
    machine.apply(append, Position::BEGINNING, Timestamp(0)).map(|applied| applied.committed)
}

fn label_query(label: &str) -> Query {
    Query::item(QueryItem::labels([Label::new(label).unwrap()]))
}

#[test]
fn an_append_over_two_streams_gets_dense_positions_and_versions() {
    let mut machine = machine();
    let append = Append::to(stream("a"), Expected::NoStream, [event("x"), event("x")])
        .and_to(stream("b"), Expected::NoStream, [event("x")])
        .and_to(stream("a"), Expected::Any, [event("y")]);
    let committed = apply(&mut machine, append).unwrap();
    assert_eq!((committed.first, committed.last), (Position(1), Position(4)));
    assert_eq!(committed.streams, [(stream("a"), Version(2)), (stream("b"), Version(0))]);
}

#[test]
fn applying_looks_only_behind_what_was_evaluated_and_finds_what_came_since() {
    let mut machine = machine();
    let seen = apply(&mut machine, Append::to(stream("a"), Expected::Any, [labelled("x", &["l"])]));
    let append = |id: u128| {
        Append::to(stream("b"), Expected::Any, [event("x").id(EventId(uuid::Uuid::from_u128(id)))])
            .fail_if_matches(label_query("l"), seen.as_ref().unwrap().last)
    };
    let Ok(Evaluated::Holds(to)) = machine.evaluate(&append(1)) else { panic!("it holds") };
    assert_eq!(to, Position(1));
    machine.apply(append(1), to, Timestamp(0)).unwrap();
    let Ok(Evaluated::Holds(to)) = machine.evaluate(&append(2)) else { panic!("it holds") };
    apply(&mut machine, Append::to(stream("a"), Expected::Any, [labelled("x", &["l"])])).unwrap();
    let Err(AppendError::Conflict(conflict)) = machine.apply(append(2), to, Timestamp(0)) else {
        panic!("the label was used after it was evaluated");
    };
    assert_eq!(conflict.winners.len(), 1);
    assert!(conflict.complete);
    // A lie about what was evaluated is a lie about the events up to there, and about no others.
    machine.apply(append(3), Position(3), Timestamp(0)).unwrap();
}

#[test]
fn a_refused_append_changes_nothing() {
    let mut machine = machine();
    apply(&mut machine, Append::to(stream("a"), Expected::Any, [event("x")])).unwrap();
    let refused = Append::to(stream("b"), Expected::Any, [event("x")])
        .require(stream("a"), Expected::NoStream)
        .key("k");
    assert!(matches!(apply(&mut machine, refused), Err(AppendError::Conflict(_))));
    assert_eq!(machine.index().head(), Position(1));
    assert_eq!(machine.index().last_of(&stream("b")).unwrap(), None);
    let key = crate::append::IdempotencyKey(Arc::from("k"));
    assert_eq!(machine.index().find_key(&key).unwrap(), None);
}

#[test]
fn time_does_not_go_back() {
    let mut machine = machine();
    for (now, stamped) in [(10, 10), (5, 10), (11, 11)] {
        let append = Append::to(stream("a"), Expected::Any, [event("x")]);
        let applied = machine.apply(append, Position::BEGINNING, Timestamp(now)).unwrap();
        assert_eq!(applied.recorded[0].timestamp, Timestamp(stamped));
    }
}

#[test]
fn postings_leap_to_the_same_places_as_a_plain_search() {
    use crate::read::Direction;
    let positions: Vec<Position> = (1..200).map(|n| Position(n * n / 7 + n)).collect();
    let last = positions.last().unwrap().0;
    for step in [1, 2, 3, 10, 50, 700] {
        for from in [0, 1, 2, 50, last, last + 5] {
            let mut cursor = MemoryPostings::new(&positions, Position(from), Direction::Forward);
            for at in (from..last + 10).step_by(step) {
                let expected = positions.iter().find(|place| place.0 >= at).copied();
                assert_eq!(cursor.seek(Position(at)).unwrap(), expected);
            }
            let mut cursor = MemoryPostings::new(&positions, Position(from), Direction::Backward);
            for at in (0..=from).rev().step_by(step) {
                let expected = positions.iter().rev().find(|place| place.0 <= at).copied();
                assert_eq!(cursor.seek(Position(at)).unwrap(), expected);
            }
        }
    }
}

#[test]
fn what_is_left_of_an_event_has_the_leaf_of_its_whole_record() {
    let mut machine = machine();
    apply(&mut machine, Append::to(stream("a"), Expected::Any, [event("x")]).key("k")).unwrap();
    let Entry::Event(recorded) = machine.index().event(Position(1)).unwrap() else {
        panic!("it is there");
    };
    let kind = EventType::new(crate::retention::METADATA_TYPE).unwrap();
    let decision = NewEvent::json(kind, r#"{"$tb":1}"#);
    apply(&mut machine, Append::to(stream("$$a"), Expected::Any, [decision])).unwrap();
    assert_eq!(machine.index_mut().scavenge().unwrap(), 1);
    let Entry::Scavenged(stub) = machine.index().event(Position(1)).unwrap() else {
        panic!("its space is taken back");
    };
    let key = crate::append::IdempotencyKey(Arc::from("k"));
    let whole = crate::record::encode(&recorded, Some(&key));
    assert_eq!(stub.leaf, crate::record::leaf_hash(&whole));
}
