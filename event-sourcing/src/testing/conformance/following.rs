//! Whoever follows the log sees everything once and in order, and is told when there is more.

use futures::FutureExt;
use futures::executor::block_on;

use super::{Case, Check, at, of_stream, query, stream};
use crate::append::Append;
use crate::condition::Expected;
use crate::event::Position;
use crate::read::{ReadError, Source};
use crate::store::{EventStore, EventStoreExt};
use crate::subscription::{Delivery, Subscribe, Subscription};

pub(super) const CHECKS: &[Check] = &[
    ("who_waits_is_woken_by_the_next_event", who_waits_is_woken),
    ("a_subscriber_sees_what_was_and_what_comes", what_was_and_what_comes),
    ("from_every_checkpoint_the_rest_is_seen", from_every_checkpoint),
    ("a_stream_can_be_followed_before_it_exists", before_it_exists),
    ("following_a_closed_stream_ends", following_a_closed_stream_ends),
];

fn who_waits_is_woken(case: &mut Case) {
    let mut waiting = case.store().wait_beyond(at(0));
    assert!((&mut waiting).now_or_never().is_none());
    case.fill("a", 3);
    let woken = block_on(waiting).expect("the store is open");
    assert!(woken >= at(1));
    let head = block_on(case.store().wait_beyond(at(2))).expect("the store is open");
    assert_eq!(head, at(3));
    assert!(case.store().wait_beyond(at(3)).now_or_never().is_none());
}

/// The next event, and the last checkpoint before it.
fn next_event<S: EventStore>(
    subscription: &mut Subscription<S>,
) -> (std::sync::Arc<crate::event::Recorded>, Option<Position>) {
    let mut checkpoint = None;
    loop {
        match block_on(subscription.next()).expect("it goes on") {
            Delivery::Event(event) => return (event, checkpoint),
            Delivery::Checkpoint(at) | Delivery::CaughtUp(at) | Delivery::FellBehind(at) => {
                assert!(checkpoint.is_none_or(|before| before <= at), "checkpoints go forward");
                checkpoint = Some(at);
            }
        }
    }
}

fn what_was_and_what_comes(case: &mut Case) {
    case.fill("a", 5);
    case.settle();
    let mut subscription = case.store().subscribe(Subscribe::to(Source::All));
    for expected in 1..=5 {
        assert_eq!(next_event(&mut subscription).0.position, at(expected));
    }
    assert_eq!(block_on(subscription.next()).ok(), Some(Delivery::CaughtUp(at(5))));
    assert!(subscription.is_live());
    assert!(subscription.next().now_or_never().is_none(), "there is nothing more");
    for expected in 6..=9 {
        case.fill("b", 1);
        let (event, checkpoint) = next_event(&mut subscription);
        assert_eq!((event.position, checkpoint), (at(expected), None));
    }
    drop(subscription);
    case.settle();
    let mut later = case.store().subscribe(Subscribe::to(Source::All).after(at(7)));
    assert_eq!(next_event(&mut later).0.position, at(8));
}

fn from_every_checkpoint(case: &mut Case) {
    for round in 0..40 {
        let labels: &[&str] = if round % 7 == 0 { &["x"] } else { &["y"] };
        let event = case.event("t", labels);
        case.ok(Append::to(stream("a"), Expected::Any, [event]));
    }
    case.settle();
    let follow = |after| {
        let subscribe = Subscribe::to(Source::Query(query("+ x"))).after(after);
        let subscribe = Subscribe { checkpoint_every: 3, count_max: 2, ..subscribe };
        let mut subscription = case.store().subscribe(subscribe);
        let mut deliveries = Vec::new();
        loop {
            let delivery = block_on(subscription.next()).expect("it goes on");
            let is_end = matches!(delivery, Delivery::CaughtUp(_));
            deliveries.push(delivery);
            if is_end {
                return deliveries;
            }
        }
    };
    let events = |deliveries: &[Delivery]| -> Vec<u64> {
        let position = |delivery: &Delivery| match delivery {
            Delivery::Event(event) => Some(event.position.0),
            Delivery::Checkpoint(_) | Delivery::CaughtUp(_) | Delivery::FellBehind(_) => None,
        };
        deliveries.iter().filter_map(position).collect()
    };
    let whole = follow(at(0));
    assert_eq!(events(&whole), [1, 8, 15, 22, 29, 36]);
    for (index, delivery) in whole.iter().enumerate() {
        let after = match delivery {
            Delivery::Event(event) => event.position,
            Delivery::Checkpoint(at) | Delivery::CaughtUp(at) | Delivery::FellBehind(at) => *at,
        };
        assert_eq!(events(&follow(after)), events(&whole[index + 1..]), "from {after}");
    }
    // A position beyond the log is somebody else's, or this is an older copy of the log.
    for position in [41, u64::MAX] {
        let mut forged = case.store().subscribe(Subscribe::to(Source::All).after(at(position)));
        let answer = block_on(forged.next());
        assert!(matches!(answer, Err(ReadError::Invalid(_))), "{answer:?}");
    }
}

fn before_it_exists(case: &mut Case) {
    case.fill("other", 2);
    let mut subscription = case.store().subscribe(Subscribe::to(of_stream("a")));
    assert_eq!(block_on(subscription.next()).ok(), Some(Delivery::CaughtUp(at(2))));
    case.fill("other", 1);
    assert!(subscription.next().now_or_never().is_none());
    case.fill("a", 1);
    assert_eq!(next_event(&mut subscription).0.position, at(4));
    block_on(case.store().delete(stream("a"), Expected::Any)).expect("it can be deleted");
    case.fill("a", 1);
    assert_eq!(next_event(&mut subscription).0.position, at(6));
}

fn following_a_closed_stream_ends(case: &mut Case) {
    case.fill("a", 1);
    let mut subscription = case.store().subscribe(Subscribe::to(of_stream("a")));
    next_event(&mut subscription);
    assert_eq!(block_on(subscription.next()).ok(), Some(Delivery::CaughtUp(at(1))));
    case.tombstone("a");
    let answer = block_on(subscription.next());
    assert!(matches!(answer, Err(ReadError::Tombstoned { .. })), "{answer:?}");
    assert!(matches!(block_on(subscription.next()), Err(ReadError::Closed)));
}
