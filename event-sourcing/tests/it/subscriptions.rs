//! Subscriptions: nothing is missed and nothing comes twice, however pages, checkpoints and writers fall.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use event_sourcing::append::{Append, AppendError, Committed};
use event_sourcing::store::{Pending, TypeCount};
use event_sourcing::{
    Delivery, EventStore, EventStoreExt, EventType, Filter, Label, MemoryStore, NewEvent, Page,
    Position, Query, QueryItem, Read, ReadError, Source, StreamInfo, StreamName, Subscribe,
    Subscription, condition::Expected,
};
use futures::FutureExt;
use futures::executor::block_on;
use proptest::collection::vec;
use proptest::prelude::*;

fn event(label: &str) -> NewEvent {
    NewEvent::json(EventType::new("t").unwrap(), "{}").label(Label::new(label).unwrap())
}

fn record(store: &impl EventStore, stream: &str, labels: &[&str]) {
    let events = labels.iter().map(|label| event(label));
    let append = Append::to(StreamName::new(stream).unwrap(), Expected::Any, events);
    block_on(store.append(append)).unwrap();
}

fn labelled(label: &str) -> Source {
    Source::Query(Query::item(QueryItem::labels([Label::new(label).unwrap()])))
}

/// Everything up to the end.
fn until_caught_up<S: EventStore>(subscription: &mut Subscription<S>) -> Vec<Delivery> {
    let mut deliveries = Vec::new();
    while !matches!(deliveries.last(), Some(Delivery::CaughtUp(_))) {
        deliveries.push(block_on(subscription.next()).unwrap());
    }
    deliveries
}

fn events(deliveries: &[Delivery]) -> Vec<u64> {
    let position = |delivery: &Delivery| match delivery {
        Delivery::Event(event) => Some(event.position.0),
        _ => None,
    };
    deliveries.iter().filter_map(position).collect()
}

fn checkpoint(delivery: &Delivery) -> Position {
    match delivery {
        Delivery::Event(event) => event.position,
        Delivery::Checkpoint(at) | Delivery::CaughtUp(at) | Delivery::FellBehind(at) => *at,
    }
}

proptest! {
    /// The history is written in pieces, between which the subscriber takes some deliveries: so it is live at times, and behind at
    /// others. From each delivery a second subscriber resumes, and sees exactly the rest.
    #[test]
    fn from_every_delivery_exactly_the_rest_is_seen(
        pieces in vec((vec(0..4_usize, 1..12), 0..12_usize), 1..10),
        every in 0..10_u64, count_max in 1..6_usize, by_filter in any::<bool>(),
    ) {
        let store = Arc::new(MemoryStore::default());
        let mut subscribe = Subscribe::to(labelled("l0")).checkpoint_every(every);
        if by_filter {
            let labels = vec![Label::new("l0").unwrap()];
            subscribe = Subscribe::to(Source::All).filter(Filter { labels, ..Filter::default() });
        }
        subscribe.count_max = count_max;
        let mut subscription = Arc::clone(&store).subscribe(subscribe.clone());
        let mut deliveries = Vec::new();
        for (labels, taken) in pieces {
            let labels: Vec<String> = labels.iter().map(|n| format!("l{n}")).collect();
            record(&store, "a", &labels.iter().map(String::as_str).collect::<Vec<_>>());
            for _ in 0..taken {
                // It stops waiting when there is nothing at once: that loses nothing.
                if let Some(delivery) = subscription.next().now_or_never() {
                    deliveries.push(delivery.unwrap());
                }
            }
        }
        loop {
            match subscription.next().now_or_never() {
                Some(delivery) => deliveries.push(delivery.unwrap()),
                None if subscription.is_live() => break,
                // It gave way to others after a page without a match.
                None => {}
            }
            prop_assert!(deliveries.len() < 1_000);
        }
        drop(subscription);
        let whole: Vec<u64> = block_on(store.read_to_end(Read::forward(labelled("l0"))))
            .unwrap().iter().map(|event| event.position.0).collect();
        prop_assert_eq!(&events(&deliveries), &whole);
        prop_assert!(deliveries.iter().map(checkpoint).is_sorted());
        for (index, delivery) in deliveries.iter().enumerate() {
            let after = checkpoint(delivery);
            let mut resumed = Arc::clone(&store).subscribe(subscribe.clone().after(after));
            let rest: Vec<u64> = whole.iter().copied().filter(|at| *at > after.0).collect();
            prop_assert_eq!(&events(&until_caught_up(&mut resumed)), &rest);
            let before: Vec<u64> = whole.iter().copied().filter(|at| *at <= after.0).collect();
            prop_assert_eq!(events(&deliveries[..=index]), before);
        }
    }
}

#[test]
fn subscribers_of_a_busy_log_miss_nothing() {
    const WRITERS: usize = 3;
    const EACH: usize = 400;
    let store = Arc::new(MemoryStore::default());
    let sources = [
        (Source::All, WRITERS * EACH),
        (labelled("even"), WRITERS * EACH / 2),
        (Source::Stream(StreamName::new("s1").unwrap()), EACH),
    ];
    std::thread::scope(|scope| {
        let mut followers = Vec::new();
        for (source, count) in sources.clone() {
            let mut subscribe = Subscribe::to(source).checkpoint_every(7);
            subscribe.count_max = 16;
            let mut subscription = Arc::clone(&store).subscribe(subscribe);
            followers.push(scope.spawn(move || {
                let mut seen = Vec::new();
                while seen.len() < count {
                    if let Delivery::Event(event) = block_on(subscription.next()).unwrap() {
                        seen.push(event.position.0);
                    }
                }
                seen
            }));
        }
        for writer in 0..WRITERS {
            let store = &store;
            scope.spawn(move || {
                for n in 0..EACH {
                    let label = if n % 2 == 0 { "even" } else { "odd" };
                    record(store, &format!("s{writer}"), &[label]);
                }
            });
        }
        for ((source, count), follower) in sources.into_iter().zip(followers) {
            let expected = block_on(store.read_to_end(Read::forward(source.clone())));
            let seen = follower.join().unwrap();
            assert_eq!(seen.len(), count);
            // The writers may not be ready yet for this read; what it saw is the beginning of what was delivered.
            let expected: Vec<u64> =
                expected.unwrap_or_default().iter().map(|event| event.position.0).collect();
            assert!(seen.starts_with(&expected) && seen.is_sorted_by(|a, b| a < b), "{source:?}");
        }
    });
    let all: Vec<_> = block_on(store.read_to_end(Read::forward(Source::All))).unwrap();
    assert_eq!(all.len(), WRITERS * EACH);
}

#[test]
fn one_who_falls_behind_is_told_and_told_again_when_it_has_caught_up() {
    let store = Arc::new(MemoryStore::default());
    record(&store, "a", &["x"]);
    let mut subscribe = Subscribe::to(Source::All);
    subscribe.count_max = 4;
    let mut subscription = Arc::clone(&store).subscribe(subscribe);
    assert_eq!(until_caught_up(&mut subscription).len(), 2);
    record(&store, "a", &["x"; 10]);
    let deliveries = until_caught_up(&mut subscription);
    assert_eq!(deliveries[0], Delivery::FellBehind(Position(1)));
    assert_eq!(events(&deliveries), (2..=11).collect::<Vec<_>>());
    assert_eq!(deliveries.last(), Some(&Delivery::CaughtUp(Position(11))));
    // A page or less is no falling behind.
    record(&store, "a", &["x"; 4]);
    for position in 12..=15 {
        assert_eq!(checkpoint(&block_on(subscription.next()).unwrap()), Position(position));
    }
    assert!(subscription.next().now_or_never().is_none());
}

#[test]
fn one_to_whom_nothing_matches_is_told_how_far_it_is() {
    let store = Arc::new(MemoryStore::default());
    let subscribe = Subscribe::to(labelled("x")).checkpoint_every(10);
    let mut subscription = Arc::clone(&store).subscribe(subscribe);
    assert_eq!(until_caught_up(&mut subscription), [Delivery::CaughtUp(Position(0))]);
    let mut told = Vec::new();
    for _ in 0..35 {
        record(&store, "a", &["y"]);
        told.extend(subscription.next().now_or_never().map(Result::unwrap));
    }
    let expected = [10, 20, 30].map(|at| Delivery::Checkpoint(Position(at)));
    assert_eq!(told, expected);
}

/// A store of which a piece is damaged, and that counts how often it is read.
#[derive(Debug, Default)]
struct Damaged {
    store: MemoryStore,
    damaged: Mutex<Option<(Position, Position)>>,
    reads: AtomicUsize,
    last_from: AtomicU64,
}

impl EventStore for Damaged {
    fn append(&self, append: Append) -> Pending<Result<Committed, AppendError>> {
        self.store.append(append)
    }

    fn read(&self, read: Read) -> Pending<Result<Page, ReadError>> {
        self.reads.fetch_add(1, Ordering::SeqCst);
        let event_sourcing::read::From::Position(from) = read.from else {
            panic!("subscriptions read from positions");
        };
        self.last_from.store(from.0, Ordering::SeqCst);
        match *self.damaged.lock().unwrap() {
            Some((first, last)) if (first..=last).contains(&from) => {
                futures::future::ready(Err(ReadError::Damaged { first, last })).boxed()
            }
            _ => self.store.read(read),
        }
    }

    fn stream(&self, stream: StreamName) -> Pending<Result<Option<StreamInfo>, ReadError>> {
        self.store.stream(stream)
    }

    fn types(&self) -> Pending<Result<Vec<TypeCount>, ReadError>> {
        self.store.types()
    }

    fn head(&self) -> Position {
        self.store.head()
    }

    fn wait_beyond(&self, position: Position) -> Pending<Result<Position, ReadError>> {
        self.store.wait_beyond(position)
    }
}

#[test]
fn damage_is_told_and_passed_only_by_the_subscriber() {
    let store = Arc::new(Damaged::default());
    record(&store, "a", &["x"; 10]);
    *store.damaged.lock().unwrap() = Some((Position(3), Position(5)));
    let mut subscribe = Subscribe::to(Source::All);
    subscribe.count_max = 2;
    let mut subscription = Arc::clone(&store).subscribe(subscribe);
    for position in [1, 2] {
        assert_eq!(checkpoint(&block_on(subscription.next()).unwrap()), Position(position));
    }
    for _ in 0..3 {
        match block_on(subscription.next()) {
            Err(ReadError::Damaged { last, .. }) => assert_eq!(last, Position(5)),
            answer => panic!("{answer:?}"),
        }
    }
    subscription.skip_to(Position(5));
    assert_eq!(events(&until_caught_up(&mut subscription)), [6, 7, 8, 9, 10]);
}

#[test]
fn nothing_is_read_for_one_that_takes_nothing() {
    let store = Arc::new(Damaged::default());
    record(&store, "a", &["x"; 100]);
    let mut subscribe = Subscribe::to(Source::All);
    subscribe.count_max = 10;
    let mut subscription = Arc::clone(&store).subscribe(subscribe);
    for _ in 0..10 {
        block_on(subscription.next()).unwrap();
    }
    record(&store, "a", &["x"; 100]);
    assert_eq!(store.reads.load(Ordering::SeqCst), 1, "one page is held, and no more");
    block_on(subscription.next()).unwrap();
    assert_eq!(store.reads.load(Ordering::SeqCst), 2);
    assert_eq!(store.last_from.load(Ordering::SeqCst), 11);
}
