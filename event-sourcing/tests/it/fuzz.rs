//! Bytes from nowhere, and valid input with something wrong: the functions that the fuzz targets call, with drawn input.

use event_sourcing::sim::fuzz::{Change, files, filter, query, record, segments};
use proptest::prelude::*;

fn change() -> impl Strategy<Value = Change> {
    prop_oneof![
        4 => (any::<prop::sample::Index>(), 1..=u8::MAX)
            .prop_map(|(at, bits)| Change::Flip(at.index(1 << 20), bits)),
        1 => any::<prop::sample::Index>().prop_map(|at| Change::Cut(at.index(1 << 20))),
        1 => prop::collection::vec(any::<u8>(), 0..300).prop_map(Change::Is),
    ]
}

fn json_query() -> impl Strategy<Value = String> {
    let name = "[a-z$:]{0,12}";
    let names = || prop::collection::vec(name, 0..4);
    let item = (names(), names());
    prop::collection::vec(item, 0..4).prop_map(|items| {
        let items: Vec<_> = items
            .into_iter()
            .map(|(types, labels)| format!("{{\"types\":{types:?},\"labels\":{labels:?}}}"))
            .collect();
        format!("{{\"items\":[{}]}}", items.join(","))
    })
}

proptest! {
    #[test]
    fn records_from_nowhere_are_refused_or_read(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        record(&bytes);
    }

    #[test]
    fn queries_from_outside_are_refused_or_understood(
        text in prop_oneof![
            json_query().prop_map(String::into_bytes),
            prop::collection::vec(any::<u8>(), 0..200),
        ],
    ) {
        query(&text);
    }

    #[test]
    fn patterns_from_outside_are_refused_or_cost_nothing(
        pattern in prop_oneof!["[a-c(|)*+?{}0-9\\\\\\[\\]^$.-]{0,40}", ".{0,60}"],
        name in ".{0,40}",
    ) {
        filter(&pattern, &name);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn no_answer_depends_on_an_index_file(changes in prop::collection::vec(change(), 1..4)) {
        files(false, &changes);
    }

    #[test]
    fn no_changed_segment_is_served_as_events(changes in prop::collection::vec(change(), 1..4)) {
        segments(&changes);
    }

    #[test]
    fn no_answer_depends_on_a_seal(changes in prop::collection::vec(change(), 1..4)) {
        files(true, &changes);
    }
}

#[test]
fn a_log_of_which_nothing_is_left_opens_and_serves_nothing() {
    for left in [Vec::new(), vec![0; 2048], vec![0xff; 64]] {
        segments(&[Change::Is(left)]);
    }
}
