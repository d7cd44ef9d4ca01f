//! What was the case earlier.

use std::time::Duration;

use event_sourcing::event::Timestamp;
use event_sourcing::load::LoadError;
use event_sourcing::time_travel::{Moment, diff};
use event_sourcing::{DomainStore, Position, Version};

use super::bank::Account;
use super::courses::{Subscribe, Subscription, of};
use super::{OPEN, ask, block_on, deposit, store_with_clock, withdraw};

#[test]
fn an_account_can_be_seen_at_any_version_position_and_time() {
    let (store, clock) = store_with_clock();
    let commands = [OPEN(), deposit(100), withdraw(30), deposit(5)];
    for command in commands {
        // An account beside it, so that positions are not versions.
        block_on(store.execute::<Account>(OPEN()).on(clock_id(&*clock))).unwrap();
        block_on(ask(&*store, command)).unwrap();
        clock.advance(Duration::from_secs(1));
    }
    let balance = |moment| {
        let loaded = block_on(store.state_at::<Account>("a1", moment)).unwrap();
        (loaded.events, loaded.state.balance)
    };
    let expected = [(1, 0), (2, 100), (3, 70), (4, 75)];
    for (step, expected) in (0..).zip(expected) {
        assert_eq!(balance(Moment::Version(Version(step))), expected);
        assert_eq!(balance(Moment::Position(Position(2 * step + 2))), expected);
        assert_eq!(balance(Moment::Position(Position(2 * step + 3))), expected);
        assert_eq!(balance(Moment::Time(Timestamp(1_000 + 1_000 * step))), expected);
        assert_eq!(balance(Moment::Time(Timestamp(1_999 + 1_000 * step))), expected);
    }
    for before in [Moment::Position(Position(1)), Moment::Time(Timestamp(999))] {
        assert_eq!(balance(before), (0, 0));
    }
    let after = [
        Moment::Now,
        Moment::Version(Version(u64::MAX)),
        Moment::Position(Position(u64::MAX)),
        Moment::Time(Timestamp(u64::MAX)),
    ];
    for after in after {
        assert_eq!(balance(after), (4, 75));
    }
    let then = block_on(store.state_at::<Account>("a1", Moment::Version(Version(1)))).unwrap();
    let now = block_on(store.load::<Account>("a1")).unwrap();
    let changes = diff(&then.state, &now.state).unwrap();
    assert_eq!(changes.iter().map(ToString::to_string).collect::<Vec<_>>(), ["/balance: 100 → 75"]);
}

fn clock_id(clock: &dyn event_sourcing::clock::Clock) -> String {
    clock.now().0.to_string()
}

#[test]
fn what_a_query_found_earlier_can_be_seen_and_has_no_versions() {
    let (store, _) = store_with_clock();
    for student in ["s1", "s2"] {
        block_on(store.execute::<Subscription>(Subscribe).on(of("c1", student))).unwrap();
    }
    let at = |moment| block_on(store.state_at::<Subscription>(of("c1", "s9"), moment));
    assert_eq!(at(Moment::Position(Position(1))).unwrap().state.taken, 1);
    assert_eq!(at(Moment::Now).unwrap().state.taken, 2);
    assert!(matches!(at(Moment::Version(Version(0))), Err(LoadError::NoVersions)));
}
