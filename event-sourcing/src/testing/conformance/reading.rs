//! Reads show what there is, from anywhere, in both directions, in pages of any size.

use std::sync::Arc;

use super::conditions::write_history;
use super::{Case, Check, at, event_type, label, of_stream, query, stream};
use crate::append::Append;
use crate::condition::Expected;
use crate::event::{NewEvent, Position, Timestamp, Version};
use crate::filter::{Filter, Pattern};
use crate::read::Direction::{Backward, Forward};
use crate::read::{Direction, From, Read, ReadError, Source};

pub(super) const CHECKS: &[Check] = &[
    ("a_read_begins_where_it_says", a_read_begins_where_it_says),
    ("pages_of_any_size_make_the_same_whole", pages_make_the_whole),
    ("a_page_says_how_far_it_has_looked", a_page_says_how_far_it_has_looked),
    ("a_page_is_bounded_in_bytes", a_page_is_bounded_in_bytes),
    ("a_read_begins_at_a_time", a_read_begins_at_a_time),
    ("filters_let_through_what_they_say", filters),
    ("what_there_is_not_is_told", what_there_is_not_is_told),
    ("a_senseless_read_is_refused", a_senseless_read_is_refused),
    ("an_empty_log_is_read", an_empty_log_is_read),
];

fn read(source: Source, direction: Direction, from: From) -> Read {
    Read { direction, ..Read::forward(source).from(from) }
}

fn a_read_begins_where_it_says(case: &mut Case) {
    write_history(case);
    let s = || of_stream("s");
    let x = || Source::Query(query("+ x"));
    let place = |position| From::Position(Position(position));
    let version = |version| From::Version(Version(version));
    // Stream s has versions 0, 1, 2, 3 at 1, 2, 3, 4 and then 4 at 10; label x is on 2, 3, 4, 9.
    let table: [(Source, Direction, From, &[u64]); 26] = [
        (Source::All, Forward, From::Edge, &[1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12]),
        (Source::All, Forward, place(10), &[10, 11, 12]),
        (Source::All, Forward, place(0), &[1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12]),
        (Source::All, Forward, place(13), &[]),
        (Source::All, Forward, place(u64::MAX), &[]),
        (Source::All, Backward, place(3), &[3, 2, 1]),
        (Source::All, Backward, place(0), &[]),
        (Source::All, Backward, place(u64::MAX), &[12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1]),
        (s(), Forward, From::Edge, &[1, 2, 3, 4, 10]),
        (s(), Forward, version(3), &[4, 10]),
        (s(), Forward, version(5), &[]),
        (s(), Forward, version(u64::MAX), &[]),
        (s(), Forward, place(4), &[4, 10]),
        (s(), Forward, place(5), &[10]),
        (s(), Forward, place(11), &[]),
        (s(), Backward, From::Edge, &[10, 4, 3, 2, 1]),
        (s(), Backward, version(1), &[2, 1]),
        (s(), Backward, version(u64::MAX), &[10, 4, 3, 2, 1]),
        (s(), Backward, place(9), &[4, 3, 2, 1]),
        (s(), Backward, place(0), &[]),
        (x(), Forward, From::Edge, &[2, 3, 4, 9]),
        (x(), Forward, place(3), &[3, 4, 9]),
        (x(), Forward, place(10), &[]),
        (x(), Backward, From::Edge, &[9, 4, 3, 2]),
        (x(), Backward, place(8), &[4, 3, 2]),
        (x(), Backward, place(1), &[]),
    ];
    for (source, direction, from, expected) in table {
        let read = read(source, direction, from);
        assert_eq!(case.positions(read.clone()), expected, "{read:?}");
    }
}

fn pages_make_the_whole(case: &mut Case) {
    write_history(case);
    let sources =
        [Source::All, of_stream("s"), Source::Query(query("a | + x y")), Source::Query(query("q"))];
    for source in sources {
        for direction in [Forward, Backward] {
            let filter = Filter { exclude_system: true, ..Filter::default() };
            for filter in [Filter::default(), filter] {
                let whole = Read { direction, ..Read::forward(source.clone()) }.filter(filter);
                let expected = case.positions(whole.clone());
                for count in 1..=expected.len() + 1 {
                    let positions = case.positions(whole.clone().count(count));
                    assert_eq!(positions, expected, "{whole:?}, {count} a page");
                }
            }
        }
    }
}

fn a_page_says_how_far_it_has_looked(case: &mut Case) {
    write_history(case);
    let x = || Source::Query(query("+ x"));
    for direction in [Forward, Backward] {
        let all = case.positions(Read { direction, ..Read::forward(x()) });
        let mut next = Some(From::Edge);
        let mut seen: Vec<u64> = Vec::new();
        while let Some(from) = next {
            let page = case.page(read(x(), direction, from).count(1)).expect("it can be read");
            assert_eq!(page.head, at(12));
            assert!(page.events.len() <= 1);
            seen.extend(page.events.iter().map(|event| event.position.0));
            // Every match up to `scanned` was in this page or an earlier one, and none beyond it.
            let scanned = page.scanned.0;
            let within = |position: &u64| match direction {
                Forward => *position <= scanned,
                Backward => *position >= scanned,
            };
            let expected: Vec<u64> = all.iter().copied().filter(within).collect();
            assert_eq!(seen, expected);
            next = page.next;
            if next.is_none() {
                let end = if direction == Forward { 12 } else { 0 };
                assert_eq!(scanned, end);
            }
        }
        assert_eq!(seen, all);
    }
}

fn a_page_is_bounded_in_bytes(case: &mut Case) {
    for size in [10, 100_000, 10, 10, 400_000, 400_000] {
        let event = NewEvent { data: vec![b' '; size].into(), ..case.event("t", &[]) };
        case.ok(Append::to(stream("a"), Expected::Any, [event]));
    }
    case.settle();
    let read = Read { bytes_max: 100_100, ..Read::forward(Source::All) };
    let mut pages = Vec::new();
    let mut next = Some(From::Edge);
    while let Some(from) = next {
        let page = case.page(read.clone().from(from)).expect("it can be read");
        let size: usize = page.events.iter().map(|event| event.event.data.len()).sum();
        assert!(page.events.len() == 1 || size <= 100_100, "{size} bytes in a page");
        pages.extend(page.events.iter().map(|event| event.position.0));
        next = page.next;
    }
    assert_eq!(pages, [1, 2, 3, 4, 5, 6]);
    let least = Read { bytes_max: 0, ..read };
    assert_eq!(case.page(least.clone()).expect("it can be read").events.len(), 1);
    assert_eq!(case.positions(least), pages);
}

fn a_read_begins_at_a_time(case: &mut Case) {
    for time in [100, 100, 200, 300, 300] {
        case.clock.set(Timestamp(time));
        case.fill(if time == 200 { "b" } else { "a" }, 1);
    }
    case.settle();
    let table: [(u64, &[u64], &[u64]); 8] = [
        (0, &[1, 2, 3, 4, 5], &[]),
        (99, &[1, 2, 3, 4, 5], &[]),
        (100, &[1, 2, 3, 4, 5], &[2, 1]),
        (101, &[3, 4, 5], &[2, 1]),
        (200, &[3, 4, 5], &[3, 2, 1]),
        (300, &[4, 5], &[5, 4, 3, 2, 1]),
        (301, &[], &[5, 4, 3, 2, 1]),
        (u64::MAX, &[], &[5, 4, 3, 2, 1]),
    ];
    for (time, forward, backward) in table {
        let from = From::Time(Timestamp(time));
        for (direction, expected) in [(Forward, forward), (Backward, backward)] {
            assert_eq!(case.positions(read(Source::All, direction, from)), expected, "{time}");
            let in_a: Vec<u64> = expected.iter().copied().filter(|at| *at != 3).collect();
            assert_eq!(case.positions(read(of_stream("a"), direction, from)), in_a, "{time}");
        }
    }
}

fn filters(case: &mut Case) {
    write_history(case);
    let none = Filter::default;
    let prefix = |text: &str| vec![Arc::from(text)];
    let pattern = |text| Some(Pattern::new(text).expect("it is a pattern"));
    let table: [(Filter, &[u64]); 12] = [
        (Filter { types: ["b", "c"].map(event_type).to_vec(), ..none() }, &[3, 4, 5, 9, 10]),
        (Filter { types: vec![event_type("$a")], ..none() }, &[7]),
        (Filter { labels: vec![label("x")], ..none() }, &[2, 3, 4, 7, 9]),
        (Filter { labels: ["z", "x"].map(label).to_vec(), ..none() }, &[9]),
        (Filter { types: vec![event_type("a")], labels: vec![label("z")], ..none() }, &[6, 8]),
        (Filter { type_prefixes: prefix("$"), ..none() }, &[7]),
        (Filter { stream_prefixes: prefix("$o"), ..none() }, &[7, 8]),
        (Filter { stream_prefixes: [prefix("r"), prefix("t")].concat(), ..none() }, &[5, 6, 9, 12]),
        (Filter { type_pattern: pattern("^[bc]$"), ..none() }, &[3, 4, 5, 9, 10]),
        (Filter { stream_pattern: pattern("^[^$r]"), ..none() }, &[1, 2, 3, 4, 10, 11, 12]),
        (Filter { exclude_system: true, ..none() }, &[1, 2, 3, 4, 5, 6, 9, 10, 11, 12]),
        (Filter { labels: vec![label("stream:s")], ..none() }, &[]),
    ];
    for (filter, expected) in table {
        let read = Read::forward(Source::All).filter(filter.clone());
        assert_eq!(case.positions(read), expected, "{filter:?}");
        let in_s: Vec<u64> =
            expected.iter().copied().filter(|at| [1, 2, 3, 4, 10].contains(at)).collect();
        assert_eq!(case.positions(Read::forward(of_stream("s")).filter(filter.clone())), in_s);
        let in_x: Vec<u64> =
            expected.iter().copied().filter(|at| [2, 3, 4, 9].contains(at)).collect();
        let read = Read::forward(Source::Query(query("+ x"))).filter(filter);
        assert_eq!(case.positions(read), in_x);
    }
}

fn what_there_is_not_is_told(case: &mut Case) {
    case.fill("a", 1);
    case.settle();
    for direction in [Forward, Backward] {
        for from in [From::Edge, From::Position(at(7)), From::Version(Version(0))] {
            match case.page(read(of_stream("b"), direction, from)) {
                Err(ReadError::NoStream { stream: name }) => assert_eq!(name, stream("b")),
                answer => panic!("{answer:?}"),
            }
        }
    }
    assert_eq!(case.info("b"), None);
    assert!(case.positions(Read::forward(Source::Query(query("+ stream:b")))).is_empty());
}

fn a_senseless_read_is_refused(case: &mut Case) {
    case.fill("a", 1);
    let version = From::Version(Version(0));
    let many = (0..2000).map(|n| event_type(&format!("t{n}")));
    let wide = crate::condition::Query::item(crate::condition::QueryItem::types(many.clone()));
    let long = crate::condition::Query { items: vec![Default::default(); 65] };
    for read in [
        Read::forward(Source::All).count(0),
        Read::forward(Source::All).from(version),
        Read::forward(Source::Query(query("a"))).from(version),
        Read::forward(Source::Query(wide)),
        Read::forward(Source::Query(long)),
        Read::forward(Source::All).filter(Filter { types: many.collect(), ..Filter::default() }),
    ] {
        let answer = case.page(read);
        assert!(matches!(answer, Err(ReadError::Invalid(_))), "{answer:?}");
    }
}

fn an_empty_log_is_read(case: &mut Case) {
    case.settle();
    for source in [Source::All, Source::Query(query("a"))] {
        for direction in [Forward, Backward] {
            for from in [From::Edge, From::Position(at(5)), From::Time(Timestamp(5))] {
                let page = case.page(read(source.clone(), direction, from)).expect("it is read");
                assert_eq!((page.events.len(), page.head), (0, at(0)));
                assert!(page.next.is_none());
                assert_eq!(page.scanned, at(0));
            }
        }
    }
}
