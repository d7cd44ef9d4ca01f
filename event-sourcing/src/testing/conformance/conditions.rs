//! Checks hold or do not hold, and whoever loses is told to what.

use futures::executor::block_on;

use super::{Case, Check, at, exact, label, query, stream, winners};
use crate::append::{Append, AppendError, FailedCheck, WINNERS_BYTES_MAX, WINNERS_MAX};
use crate::condition::Expected::{Any, NoStream, StreamExists};
use crate::condition::{Query, QueryItem};
use crate::event::{NewEvent, Version};
use crate::read::{Read, Source};
use crate::store::EventStoreExt;

pub(super) const CHECKS: &[Check] = &[
    ("expected_versions_hold_as_documented", expected_versions),
    ("a_query_matches_as_a_read_and_as_a_condition", queries),
    ("a_condition_is_about_events_after_its_position", after),
    ("other_labels_are_no_conflict", other_labels_are_no_conflict),
    ("a_conflict_carries_the_winners", a_conflict_carries_the_winners),
    ("winners_are_bounded", winners_are_bounded),
    ("all_failed_checks_are_told", all_failed_checks_are_told),
    ("hidden_events_match_no_condition", hidden_events_match_no_condition),
];

fn expected_versions(case: &mut Case) {
    case.fill("full", 3);
    case.fill("deleted", 3);
    case.fill("again", 3);
    case.fill("cut", 3);
    case.fill("closed", 3);
    for name in ["deleted", "again"] {
        block_on(case.store().delete(stream(name), exact(2))).expect("it can be deleted");
    }
    case.fill("again", 1);
    case.say("cut", r#"{"$tb":2}"#).expect("it can be truncated");
    case.tombstone("closed");
    case.settle();
    // Whether each holds: Any, NoStream, StreamExists, Exact 0, 2, 3, 4.
    let states = [
        ("never", [true, true, false, false, false, false, false]),
        ("full", [true, false, true, false, true, false, false]),
        ("deleted", [true, true, false, false, true, false, false]),
        ("again", [true, false, true, false, false, true, false]),
        ("cut", [true, false, true, false, true, false, false]),
        ("closed", [true, true, false, false, false, false, false]),
    ];
    for (name, holds) in states {
        let all = [Any, NoStream, StreamExists, exact(0), exact(2), exact(3), exact(4)];
        for (expected, holds) in all.into_iter().zip(holds) {
            let event = case.event("t", &[]);
            // Only checked, and so its state is the same for the next one.
            let append = Append::to(stream("other"), Any, [event]).require(stream(name), expected);
            match (case.append(append), holds) {
                (Ok(_), true) => {}
                (Err(AppendError::Conflict(conflict)), false) => {
                    let actual = match name {
                        "full" | "cut" => Some(Version(2)),
                        "again" => Some(Version(3)),
                        _ => None,
                    };
                    let stream = stream(name);
                    let failed = FailedCheck::Stream { stream, expected, actual };
                    assert_eq!(conflict.failed, [failed]);
                }
                (answer, _) => panic!("{name} {expected:?}: {answer:?}"),
            }
        }
    }
}

/// Twelve events: position, stream, type, labels.
const HISTORY: [(&str, &str, &[&str]); 12] = [
    ("s", "a", &[]),
    ("s", "a", &["x"]),
    ("s", "b", &["x"]),
    ("s", "b", &["x", "y"]),
    ("r", "c", &["y"]),
    ("r", "a", &["y", "z"]),
    ("$own", "$a", &["x", "y"]),
    ("$own", "a", &["z"]),
    ("r", "c", &["x", "y", "z"]),
    ("s", "b", &[]),
    ("x", "x", &["stream"]),
    ("t", "a", &["xy"]),
];

pub(super) fn write_history(case: &mut Case) {
    for (home, kind, labels) in HISTORY {
        let event = case.event(kind, labels);
        case.ok(Append::to(stream(home), Any, [event]));
    }
    case.settle();
}

fn queries(case: &mut Case) {
    write_history(case);
    let table: [(&str, &[u64]); 16] = [
        ("a", &[1, 2, 6, 8, 12]),
        ("+ x", &[2, 3, 4, 9]),
        ("a + x", &[2]),
        ("a b", &[1, 2, 3, 4, 6, 8, 10, 12]),
        ("a b + x", &[2, 3, 4]),
        ("+ x y", &[4, 9]),
        ("+ y x", &[4, 9]),
        ("+ x y z", &[9]),
        ("a b + x z", &[]),
        ("a | c + z", &[1, 2, 6, 8, 9, 12]),
        ("a | a + x | a", &[1, 2, 6, 8, 12]),
        ("nothing", &[]),
        ("$a", &[]),
        ("+ stream:r", &[5, 6, 9]),
        ("+ stream:r x", &[9]),
        ("b + stream:s | + stream:x", &[3, 4, 10, 11]),
    ];
    for (text, expected) in table {
        check_query(case, query(text), expected);
    }
    let everything = [1, 2, 3, 4, 5, 6, 8, 9, 10, 11, 12];
    check_query(case, Query::all(), &everything);
    check_query(case, Query::item(QueryItem::default()), &everything);
    check_query(case, Query::item(QueryItem::labels([label("stream:")])), &[]);
}

fn check_query(case: &mut Case, query: Query, expected: &[u64]) {
    let read = Read::forward(Source::Query(query.clone()));
    assert_eq!(case.positions(read), expected, "{query:?}");
    let mut backward = case.positions(Read::backward(Source::Query(query.clone())));
    backward.reverse();
    assert_eq!(backward, expected, "{query:?}");
    // Behind each position it is a conflict exactly if there is a match behind it. The append is refused by its second check, so
    // that the history stays as it is.
    for after in 0..=12 {
        let event = case.event("t", &[]);
        let append = Append::to(stream("s"), NoStream, [event]);
        let conflict = case.conflict(append.fail_if_matches(query.clone(), at(after)));
        let first = expected.iter().copied().find(|position| *position > after);
        let failed = conflict.failed.iter().find_map(|failed| match failed {
            FailedCheck::Match { check, position } => Some((*check, position.0)),
            FailedCheck::Stream { .. } => None,
        });
        assert_eq!(failed, first.map(|first| (1, first)), "{query:?} after {after}");
    }
}

fn after(case: &mut Case) {
    let event = case.event("t", &["x"]);
    let first = case.ok(Append::to(stream("a"), Any, [event])).last;
    case.settle();
    let (event, other) = (case.event("t", &["x"]), case.event("t", &["x"]));
    case.ok(Append::to(stream("b"), Any, [event]).fail_if_matches(query("+ x"), first));
    let conflict =
        case.conflict(Append::to(stream("b"), Any, [other]).fail_if_matches(query("+ x"), first));
    assert_eq!(winners(&conflict), [2]);
    // What the append itself writes is not before it.
    let events = ["y", "y"].map(|name| case.event("t", &[name]));
    case.ok(Append::to(stream("b"), Any, events).fail_if_matches(query("+ y"), at(0)));
}

fn other_labels_are_no_conflict(case: &mut Case) {
    let seen = case.store().head();
    for n in 0..50 {
        let name = format!("account:{n}");
        let event = case.event("t", &[&name, "all"]);
        let append = Append::to(stream(&name), NoStream, [event]);
        case.ok(append.fail_if_matches(query(&format!("t + {name}")), seen));
    }
}

fn a_conflict_carries_the_winners(case: &mut Case) {
    case.fill("a", 2);
    case.fill("b", 1);
    case.fill("a", 2);
    case.settle();
    let event = case.event("t", &[]);
    for (expected, won, complete) in [
        (exact(3), None, true),
        (exact(1), Some(&[4, 5][..]), true),
        (exact(0), Some(&[2, 4, 5]), true),
        (NoStream, Some(&[1, 2, 4, 5]), true),
        (exact(9), Some(&[]), false),
    ] {
        let append = Append::to(stream("c"), StreamExists, [event.clone()]);
        let conflict = case.conflict(append.require(stream("a"), expected));
        assert_eq!(winners(&conflict), won.unwrap_or_default(), "{expected:?}");
        // That stream c does not exist is explained by no event.
        assert!(!conflict.complete);
        assert_eq!(conflict.head, at(5));
        if let Some(won) = won {
            let append = Append::to(stream("c"), Any, [event.clone()]);
            let conflict = case.conflict(append.require(stream("a"), expected));
            assert_eq!((winners(&conflict).as_slice(), conflict.complete), (won, complete));
        }
    }
    let append = Append::to(stream("c"), Any, [event]).fail_if_matches(query("t"), at(1));
    let conflict = case.conflict(append.require(stream("b"), NoStream));
    assert_eq!((winners(&conflict), conflict.complete), (vec![2, 3, 4, 5], true));
}

fn winners_are_bounded(case: &mut Case) {
    case.fill("a", WINNERS_MAX);
    let event = case.event("t", &[]);
    let append = Append::to(stream("b"), Any, [event]);
    let against = |append: &Append| append.clone().fail_if_matches(Query::all(), at(0));
    let conflict = case.conflict(against(&append));
    assert_eq!((conflict.winners.len(), conflict.complete), (WINNERS_MAX, true));
    case.fill("a", 1);
    case.settle();
    let conflict = case.conflict(against(&append));
    assert_eq!((conflict.winners.len(), conflict.complete), (WINNERS_MAX, false));
    let conflict = case.conflict(append.clone().require(stream("a"), NoStream));
    assert_eq!((conflict.winners.len(), conflict.complete), (WINNERS_MAX, false));
    let large = NewEvent { data: vec![7; WINNERS_BYTES_MAX].into(), ..case.event("u", &[]) };
    let again = NewEvent { data: vec![8; WINNERS_BYTES_MAX].into(), ..case.event("u", &[]) };
    case.ok(Append::to(stream("c"), Any, [large, again]));
    let conflict = case.conflict(append.fail_if_matches(query("u"), at(0)));
    assert_eq!((conflict.winners.len(), conflict.complete), (1, false));
}

fn all_failed_checks_are_told(case: &mut Case) {
    case.fill("a", 1);
    let event = case.event("t", &[]);
    let append = Append::to(stream("b"), StreamExists, [event])
        .fail_if_matches(query("u"), at(0))
        .require(stream("a"), exact(0))
        .fail_if_matches(query("t"), at(0))
        .require(stream("a"), NoStream);
    let conflict = case.conflict(append);
    let failed =
        |name, expected, actual| FailedCheck::Stream { stream: stream(name), expected, actual };
    let expected = [
        failed("b", StreamExists, None),
        FailedCheck::Match { check: 3, position: at(1) },
        failed("a", NoStream, Some(Version(0))),
    ];
    assert_eq!(conflict.failed, expected);
}

fn hidden_events_match_no_condition(case: &mut Case) {
    let events = [(); 3].map(|()| case.event("t", &["x"]));
    case.ok(Append::to(stream("a"), Any, events));
    case.say("a", r#"{"$tb":2}"#).expect("it can be truncated");
    case.settle();
    let event = case.event("u", &[]);
    let append = Append::to(stream("b"), Any, [event]);
    let conflict = case.conflict(append.clone().fail_if_matches(query("+ x"), at(0)));
    assert_eq!(winners(&conflict), [3]);
    // One who has seen version 0 has to read: what became of version 1 no event here tells.
    let conflict = case.conflict(append.clone().require(stream("a"), exact(0)));
    assert_eq!((winners(&conflict), conflict.complete), (vec![3], false));
    case.say("a", r#"{"$tb":3}"#).expect("it can be truncated");
    case.settle();
    case.ok(append.fail_if_matches(query("+ x"), at(0)));
}
