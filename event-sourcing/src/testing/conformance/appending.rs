//! Appends are whole, dense and in order, and what was recorded is what was proposed.

use futures::executor::block_on;
use futures::future::join_all;

use super::{Case, Check, at, event_type, exact, label, of_stream, stream};
use crate::append::{Append, AppendError};
use crate::condition::Expected;
use crate::event::{ContentType, Metadata, NewEvent, Timestamp, Version};
use crate::read::{Read, Source};
use crate::store::TypeCount;

pub(super) const CHECKS: &[Check] = &[
    ("positions_are_dense_from_1_and_versions_from_0", positions_are_dense),
    ("an_append_over_several_streams_stands_together", an_append_stands_together),
    ("what_was_proposed_is_recorded", what_was_proposed_is_recorded),
    ("a_refused_append_leaves_no_trace", a_refused_append_leaves_no_trace),
    ("of_racers_for_one_version_one_wins", one_racer_wins),
    ("of_racers_for_a_label_one_wins", one_racer_wins_a_label),
    ("time_does_not_go_back", time_does_not_go_back),
    ("types_are_counted", types_are_counted),
    ("whoever_stops_waiting_undoes_nothing", whoever_stops_waiting_undoes_nothing),
];

fn positions_are_dense(case: &mut Case) {
    assert_eq!(case.store().head(), at(0));
    let mut positions = 0..;
    for round in 0..20 {
        for name in ["a", "b", "c"] {
            let committed = case.fill(name, 1 + round % 3);
            let first = positions.next().map(|offset| offset + 1);
            let last = first.map(|first| first + u64::try_from(round % 3).expect("it is small"));
            assert_eq!((Some(committed.first.0), Some(committed.last.0)), (first, last));
            positions = last.expect("there is always one more")..;
            assert!(!committed.repeated);
            assert_eq!(case.store().head(), committed.last);
        }
        if round == 10 {
            case.settle();
        }
    }
    case.settle();
    let all = case.read(Read::forward(Source::All));
    assert!(all.iter().map(|event| event.position.0).eq(1..=case.store().head().0));
    for name in ["a", "b", "c"] {
        let versions = case.versions(name).expect("it was written to");
        assert!(versions.iter().copied().eq(0..39), "{versions:?}");
    }
}

fn an_append_stands_together(case: &mut Case) {
    case.fill("b", 1);
    let [first, second, third, fourth] = [(); 4].map(|()| case.event("t", &[]));
    let append = Append::to(stream("a"), Expected::NoStream, [first, second])
        .and_to(stream("b"), exact(0), [third])
        .and_to(stream("a"), Expected::Any, [fourth]);
    let committed = case.ok(append);
    assert_eq!((committed.first, committed.last), (at(2), at(5)));
    assert_eq!(committed.streams, [(stream("a"), Version(2)), (stream("b"), Version(1))]);
    case.settle();
    let all = case.read(Read::forward(Source::All));
    let seen: Vec<_> = all[1..]
        .iter()
        .map(|event| (event.stream.as_str(), event.version.0, event.place.index, event.place.count))
        .collect();
    assert_eq!(seen, [("a", 0, 0, 4), ("a", 1, 1, 4), ("b", 1, 2, 4), ("a", 2, 3, 4)]);
    assert!(all[1..].iter().all(|event| event.append_start() == at(2)));
}

fn what_was_proposed_is_recorded(case: &mut Case) {
    let content_types = [
        ContentType::Json,
        ContentType::Bytes,
        ContentType::Postcard,
        ContentType::Bincode,
        ContentType::Other("text/plain; charset=utf-8".into()),
    ];
    let mut events = Vec::new();
    for (index, content_type) in content_types.into_iter().enumerate() {
        let metadata = Metadata {
            correlation: (index > 0).then(|| "correlation".into()),
            causation: (index > 1).then(|| "ursächlich".into()),
            user: (index > 2).then(|| "".into()),
            custom: vec![0xff; index].into(),
        };
        let data = vec![0; index].into();
        let schema = if index == 0 { u32::MAX } else { 1 };
        let labels = ["z", "a", "z", "ä"].map(label).to_vec();
        let event = case.event("type ä", &[]);
        events.push(NewEvent { schema, content_type, data, metadata, labels, ..event });
    }
    case.clock.set(Timestamp(2_000_000));
    case.ok(Append::to(stream("stream ß"), Expected::Any, events.clone()));
    case.settle();
    let recorded = case.read(Read::forward(of_stream("stream ß")));
    assert_eq!(recorded.len(), events.len());
    for (recorded, mut proposed) in recorded.iter().zip(events) {
        proposed.labels = ["a", "z", "ä"].map(label).to_vec();
        assert_eq!(recorded.event, proposed);
        assert_eq!(recorded.timestamp, Timestamp(2_000_000));
    }
}

fn a_refused_append_leaves_no_trace(case: &mut Case) {
    case.fill("a", 1);
    let (first, second) = (case.event("t", &["l"]), case.event("t", &["l"]));
    let append = Append::to(stream("b"), Expected::Any, [first])
        .and_to(stream("a"), Expected::NoStream, [second])
        .key("key");
    case.conflict(append.clone());
    case.settle();
    assert_eq!(case.store().head(), at(1));
    assert_eq!(case.versions("b"), None);
    assert_eq!(case.info("b"), None);
    assert!(case.positions(Read::label(label("l"))).is_empty());
    // Neither its ids nor its key are taken.
    let append = Append { checks: Vec::new(), ..append };
    assert!(!case.ok(append).repeated);
}

fn one_racer_wins(case: &mut Case) {
    let (store, mut version) = (case.store(), None);
    for _ in 0..8 {
        let expected = version.map_or(Expected::NoStream, Expected::Exact);
        let racers: Vec<_> = (0..16)
            .map(|_| store.append(Append::to(stream("a"), expected, [case.event("t", &[])])))
            .collect();
        let answers = block_on(join_all(racers));
        let won: Vec<_> = answers.iter().flatten().collect();
        assert_eq!(won.len(), 1, "{answers:?}");
        for lost in answers.iter().filter_map(|answer| answer.as_ref().err()) {
            let AppendError::Conflict(conflict) = lost else { panic!("{lost:?}") };
            assert!(conflict.complete);
            assert_eq!(super::winners(conflict), [won[0].first.0]);
        }
        version = Some(version.map_or(Version(0), |version: Version| version.next()));
    }
}

fn one_racer_wins_a_label(case: &mut Case) {
    let store = case.store();
    for round in 0..8 {
        let label = format!("seat:{round}");
        let after = store.head();
        let racers: Vec<_> = (0..16)
            .map(|racer| {
                let event = case.event("t", &[&label]);
                let home = stream(&format!("s{racer}"));
                let append = Append::to(home, Expected::Any, [event]);
                store.append(append.fail_if_matches(super::query(&format!("+ {label}")), after))
            })
            .collect();
        let answers = block_on(join_all(racers));
        assert_eq!(answers.iter().flatten().count(), 1, "{answers:?}");
    }
}

fn time_does_not_go_back(case: &mut Case) {
    let mut stamps = Vec::new();
    for now in [2_000, 1_000, 3_000, 0] {
        case.clock.set(Timestamp(now));
        case.fill("a", 1);
        case.settle();
    }
    for event in case.read(Read::forward(Source::All)) {
        stamps.push(event.timestamp.0);
    }
    assert_eq!(stamps, [2_000, 2_000, 3_000, 3_000]);
}

fn types_are_counted(case: &mut Case) {
    assert!(block_on(case.store().types()).expect("types can be read").is_empty());
    for (kind, schema) in [("b", 1), ("a", 2), ("b", 1), ("a", 1)] {
        let event = NewEvent { schema, ..case.event(kind, &[]) };
        case.ok(Append::to(stream("s"), Expected::Any, [event]));
    }
    case.settle();
    let count = |kind, schema, count| TypeCount { event_type: event_type(kind), schema, count };
    let types = block_on(case.store().types()).expect("types can be read");
    assert_eq!(types, [count("a", 1, 1), count("a", 2, 1), count("b", 1, 2)]);
}

fn whoever_stops_waiting_undoes_nothing(case: &mut Case) {
    let event = case.event("t", &[]);
    let append = Append::to(stream("a"), Expected::NoStream, [event]);
    drop(case.store().append(append.clone()));
    block_on(case.store().wait_beyond(at(0))).expect("it comes");
    assert!(case.ok(append).repeated);
}
