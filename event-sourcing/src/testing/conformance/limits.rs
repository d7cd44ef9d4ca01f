//! What is no append is refused, whatever it is, and what just fits is taken.

use super::{Case, Check, at, event_type, label, of_stream, query, stream};
use crate::append::{Append, IdempotencyKey, KEY_SIZE_MAX};
use crate::condition::Expected::{Any, NoStream};
use crate::condition::{QUERY_ITEMS_MAX, QUERY_TERMS_MAX, Query, QueryItem};
use crate::error::InvalidAppend;
use crate::event::{Label, NAME_SIZE_MAX, NewEvent};
use crate::machine::Limits;
use crate::read::Read;
use crate::record;

pub(super) const CHECKS: &[Check] = &[
    ("what_is_no_append_is_refused", what_is_no_append_is_refused),
    ("names_of_the_store_are_its_own", names_of_the_store),
    ("large_appends_are_bounded", large_appends),
    ("numbers_of_things_are_bounded", numbers_of_things),
    ("a_forged_position_is_refused", a_forged_position),
];

fn what_is_no_append_is_refused(case: &mut Case) {
    assert_eq!(case.invalid(Append::default()), InvalidAppend::Empty);
    let event = case.event("t", &[]);
    let twice = Append::to(stream("a"), Any, [event.clone(), event.clone()]);
    assert!(matches!(case.invalid(twice), InvalidAppend::DuplicateId { .. }));
    let zero = NewEvent { schema: 0, ..event.clone() };
    let zero = Append::to(stream("a"), Any, [zero]);
    assert_eq!(case.invalid(zero), InvalidAppend::SchemaZero { index: 0 });
    let keyed = |size| Append {
        key: Some(IdempotencyKey("k".repeat(size).into())),
        ..Append::to(stream("a"), Any, [event.clone()])
    };
    assert_eq!(case.invalid(keyed(0)), InvalidAppend::EmptyKey);
    assert!(matches!(case.invalid(keyed(KEY_SIZE_MAX + 1)), InvalidAppend::TooMany { .. }));
    case.ok(keyed(KEY_SIZE_MAX));
}

fn names_of_the_store(case: &mut Case) {
    let refused = [
        ("a", "$metadata", ""),
        ("a", "$tombstone", ""),
        ("a", "$anything", ""),
        ("$a", "$metadata", ""),
        ("$$a", "t", ""),
        ("$$a", "$t", ""),
        ("$$", "$tombstone", ""),
        ("$$$$a", "$tombstone", ""),
        ("a", "t", "stream:a"),
        ("a", "t", "stream:"),
    ];
    for (name, kind, mark) in refused {
        let labels: &[&str] = if mark.is_empty() { &[] } else { &[mark] };
        let event = case.event(kind, labels);
        let answer = case.invalid(Append::to(stream(name), Any, [event]));
        assert!(matches!(answer, InvalidAppend::Reserved(_)), "{name} {kind}: {answer:?}");
    }
    for (name, kind) in [("$a", "$t"), ("$a", "t"), ("$$$a", "$tombstone"), ("a", "t$")] {
        let event = case.event(kind, &["stream", "streams:a", "$"]);
        case.ok(Append::to(stream(name), Any, [event]));
    }
}

fn large_appends(case: &mut Case) {
    let limits = Limits::default();
    let empty = NewEvent { data: Default::default(), ..case.event("t", &["label"]) };
    let room = limits.event_size_max - record::size(&stream("a"), &empty);
    let mut sized = |size| NewEvent { data: vec![1; size].into(), ..case.event("t", &["label"]) };
    let (largest, other, too_large) = (sized(room), sized(room), sized(room + 1));
    let small = sized(0);
    let answer = case.invalid(Append::to(stream("a"), Any, [too_large]));
    assert!(matches!(answer, InvalidAppend::EventTooLarge { index: 0, .. }), "{answer:?}");
    let answer =
        case.invalid(Append::to(stream("a"), Any, [largest.clone(), other.clone(), small]));
    assert!(matches!(answer, InvalidAppend::TooLarge { .. }), "{answer:?}");
    case.ok(Append::to(stream("a"), Any, [largest.clone(), other]));
    case.settle();
    let read = case.read(Read::forward(of_stream("a")).count(1));
    assert!(read.len() == 2 && read[0].event == largest);
}

fn numbers_of_things(case: &mut Case) {
    let limits = Limits::default();
    let too_many = |answer: InvalidAppend| {
        assert!(matches!(answer, InvalidAppend::TooMany { .. }), "{answer:?}");
    };
    let events = case.events(limits.events_max + 1);
    too_many(case.invalid(Append::to(stream("a"), Any, events.clone())));
    let labels = |count: usize| -> Vec<Label> {
        (0..count).map(|n| label(&format!("{n:0NAME_SIZE_MAX$}"))).collect()
    };
    let event = NewEvent { labels: labels(limits.labels_max + 1), ..case.event("t", &[]) };
    too_many(case.invalid(Append::to(stream("a"), Any, [event.clone()])));
    let checked = |count| {
        let append = Append::to(stream("a"), Any, [events[0].clone()]);
        (0..count).fold(append, |append, n| append.require(stream(&format!("b{n}")), NoStream))
    };
    too_many(case.invalid(checked(limits.checks_max + 1)));
    let asked = |query| {
        let append = Append::to(stream("a"), Any, [events[1].clone()]);
        append.fail_if_matches(query, at(0))
    };
    let types = |count: usize| {
        Query::item(QueryItem::types((0..count).map(|n| event_type(&format!("u{n}")))))
    };
    let items = |count| Query { items: vec![query("u + x").items[0].clone(); count] };
    too_many(case.invalid(asked(types(QUERY_TERMS_MAX + 1))));
    too_many(case.invalid(asked(items(QUERY_ITEMS_MAX + 1))));
    // All that just fits.
    case.ok(checked(limits.checks_max));
    case.ok(asked(types(QUERY_TERMS_MAX)));
    let fitting = NewEvent { labels: labels(limits.labels_max), ..event };
    case.ok(Append::to(stream("a"), Any, [fitting]).fail_if_matches(items(QUERY_ITEMS_MAX), at(0)));
    let committed = case.ok(Append::to(stream("b"), Any, events[..limits.events_max].to_vec()));
    case.settle();
    assert_eq!(committed.last, at(3 + u64::try_from(limits.events_max).expect("it is small")));
    assert_eq!(case.read(Read::forward(of_stream("b"))).len(), limits.events_max);
}

fn a_forged_position(case: &mut Case) {
    case.fill("a", 1);
    let event = case.event("t", &[]);
    for after in [2, 1 << 40, u64::MAX] {
        let append = Append::to(stream("a"), Any, [event.clone()]);
        let answer = case.invalid(append.fail_if_matches(query("u"), at(after)));
        assert_eq!(answer, InvalidAppend::AfterHead { after: at(after), head: at(1) });
    }
    case.ok(Append::to(stream("a"), Any, [event]).fail_if_matches(query("u"), at(1)));
}
