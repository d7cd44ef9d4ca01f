//! Commands that are repeated because nobody knows whether they were carried out.
#![expect(
    clippy::disallowed_methods,
    reason = "users of the store on disk have threads of their own"
)]

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use event_sourcing::condition::Expected;
use event_sourcing::error::{AppendError, Failure, InvalidName};
use event_sourcing::store::TypeCount;
use event_sourcing::store::journal::JournalStore;
use event_sourcing::testing::{Chance, WaveringStore, interleave};
use event_sourcing::{
    Append, Boundary, Committed, Decider, DomainStore, EventContent, EventStore, EventStoreExt,
    EventType, ExecuteError, MemoryStore, NewEvent, Page, Pending, Position, Read, ReadError,
    StreamInfo, StreamName, domain_events,
};
use futures::{FutureExt, executor};
use serde::{Deserialize, Serialize};

use super::bank::{Account, Refusal};
use super::courses::{No, Subscribe, Subscription, of};
use super::{OPEN, account_with, ask, block_on, deposit, on_disk, on_disk_options, withdraw};

#[test]
fn a_repeated_command_has_its_first_outcome_though_others_came_after_it() {
    let store = MemoryStore::default();
    account_with(&store, &[100]);
    let first = block_on(ask(&store, deposit(5)).idempotency("k1")).unwrap();
    block_on(ask(&store, withdraw(105))).unwrap();
    let again = block_on(ask(&store, deposit(5)).idempotency("k1")).unwrap();
    assert!(again.repeated && !first.repeated);
    assert_eq!(again.events, first.events);
    assert_eq!((&again.state, again.position), (&first.state, first.position));
    assert_eq!(store.head(), Position(4));
    // The ids follow from the key: a log that is written again from its commands has the same ones.
    let elsewhere = MemoryStore::default();
    account_with(&elsewhere, &[1]);
    let same = block_on(ask(&elsewhere, deposit(5)).idempotency("k1")).unwrap();
    assert_eq!(same.events[0].id, first.events[0].id);
}

#[test]
fn a_command_that_its_own_effect_would_refuse_is_recognized() {
    let store = MemoryStore::default();
    let first = block_on(ask(&store, OPEN()).idempotency("open-a1")).unwrap();
    let again = block_on(ask(&store, OPEN()).idempotency("open-a1")).unwrap();
    assert!(again.repeated);
    assert_eq!(again.events, first.events);
    let other = block_on(ask(&store, OPEN()).idempotency("open-a1-too")).unwrap_err();
    assert!(matches!(other, ExecuteError::Rejected(Refusal::IsOpen)));
    // All the money, twice.
    block_on(ask(&store, deposit(70))).unwrap();
    block_on(ask(&store, withdraw(70)).idempotency("all")).unwrap();
    let again = block_on(ask(&store, withdraw(70)).idempotency("all")).unwrap();
    assert!(again.repeated);
    assert_eq!(again.state.balance, 0);
}

#[test]
fn a_refused_command_may_be_accepted_later_under_its_key() {
    let store = MemoryStore::default();
    account_with(&store, &[10]);
    let refused = block_on(ask(&store, withdraw(20)).idempotency("w")).unwrap_err();
    assert!(matches!(refused, ExecuteError::Rejected(_)));
    block_on(ask(&store, deposit(10))).unwrap();
    let done = block_on(ask(&store, withdraw(20)).idempotency("w")).unwrap();
    assert_eq!((done.repeated, done.state.balance), (false, 0));
}

#[test]
fn a_key_for_two_things_is_an_error() {
    let store = MemoryStore::default();
    account_with(&store, &[100]);
    block_on(ask(&store, deposit(5)).idempotency("k")).unwrap();
    let is_reused = |error: ExecuteError<Refusal>| {
        assert!(matches!(error, ExecuteError::KeyReused { position: Position(3) }), "{error:?}");
    };
    is_reused(block_on(ask(&store, deposit(6)).idempotency("k")).unwrap_err());
    is_reused(block_on(ask(&store, withdraw(1)).idempotency("k")).unwrap_err());
    is_reused(block_on(ask(&store, withdraw(1_000_000)).idempotency("k")).unwrap_err());
    block_on(store.execute::<Account>(OPEN()).on("a2")).unwrap();
    is_reused(
        block_on(store.execute::<Account>(deposit(5)).on("a2").idempotency("k")).unwrap_err(),
    );
    assert_eq!(block_on(store.load::<Account>("a1")).unwrap().state.balance, 105);
    assert_eq!(block_on(store.load::<Account>("a2")).unwrap().state.balance, 0);
}

#[test]
fn a_key_whose_events_are_gone_is_not_taken_for_another_outcome() {
    let store = MemoryStore::default();
    account_with(&store, &[100]);
    block_on(ask(&store, deposit(5)).idempotency("k")).unwrap();
    let stream = StreamName::new("account-a1").unwrap();
    block_on(store.delete(stream, Expected::Any)).unwrap();
    let error = block_on(ask(&store, deposit(5)).idempotency("k")).unwrap_err();
    assert!(matches!(error, ExecuteError::KeyReused { .. }), "{error:?}");
}

#[test]
fn a_key_works_over_a_query_as_well() {
    let store = MemoryStore::default();
    let subscribe = |student: &str, key: &str| {
        let on = of("c1", student);
        block_on(store.execute::<Subscription>(Subscribe).on(on).idempotency(key))
    };
    let first = subscribe("s1", "k1").unwrap();
    subscribe("s2", "k2").unwrap();
    let again = subscribe("s1", "k1").unwrap();
    assert!(again.repeated);
    assert_eq!((again.events, again.state), (first.events, first.state));
    assert!(matches!(subscribe("s1", "k3"), Err(ExecuteError::Rejected(No::Twice))));
    assert!(matches!(subscribe("s3", "k1"), Err(ExecuteError::KeyReused { .. })));
}

/// Goes to a mark, step by step, all steps in one command.
struct Walk;

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Stepped;

impl EventContent for Stepped {
    const TYPE: &'static str = "walk.stepped";
}

domain_events! {
    #[derive(Debug, PartialEq)]
    enum WalkEvent { Stepped(Stepped) }
}

impl Decider for Walk {
    const NAME: &'static str = "walk";

    type Id = String;
    type State = u64;
    type Command = u64;
    type Event = WalkEvent;
    type Rejection = ();

    fn boundary(id: &String) -> Result<Boundary, InvalidName> {
        Boundary::stream(Self::NAME, id)
    }

    fn initial(_: &String) -> u64 {
        0
    }

    fn evolve(state: &mut u64, _: &WalkEvent) {
        *state += 1;
    }

    fn decide(state: &u64, mark: &u64) -> Result<Vec<WalkEvent>, ()> {
        Ok((*state..*mark).map(|_| Stepped.into()).collect())
    }
}

#[test]
fn a_command_that_has_nothing_left_to_do_has_its_first_outcome() {
    let store = MemoryStore::default();
    let to = |mark: u64| store.execute::<Walk>(mark).on("w");
    let first = block_on(to(3).idempotency("three")).unwrap();
    assert_eq!((first.events.len(), first.state), (3, 3));
    let nothing = block_on(to(3)).unwrap();
    assert_eq!((nothing.events.len(), nothing.state, nothing.position), (0, 3, Position(3)));
    block_on(to(5)).unwrap();
    let again = block_on(to(3).idempotency("three")).unwrap();
    assert!(again.repeated);
    assert_eq!((again.events, again.state), (first.events, 3));
    // Now it would take two steps, and the key stands for three.
    let store = MemoryStore::default();
    let noise = NewEvent::json(EventType::new("noise").unwrap(), "{}");
    let noise = Append::to(StreamName::new("noise").unwrap(), Expected::Any, [noise]);
    block_on(store.append(noise)).unwrap();
    block_on(store.execute::<Walk>(2).on("w").idempotency("k")).unwrap();
    let other = block_on(store.execute::<Walk>(4).on("w").idempotency("k")).unwrap_err();
    assert!(matches!(other, ExecuteError::KeyReused { position: Position(2) }), "{other:?}");
}

/// Many users, on a store that loses answers: each repeats its command until it has one. Whatever the moment, each command takes
/// effect once.
#[test]
fn a_command_repeated_at_any_moment_takes_effect_once() {
    for seed in 0..150 {
        let memory = Arc::new(MemoryStore::default());
        account_with(&*memory, &[]);
        let store = WaveringStore::new(Arc::clone(&memory), seed).losing_one_in(3);
        let mut chance = Chance::new(seed);
        let amounts: Vec<u64> = (0..12).map(|_| 1 + chance.below(50)).collect();
        let tasks = amounts.iter().enumerate().map(|(user, &cents)| {
            let store = &store;
            async move {
                let key = format!("command-{user}");
                loop {
                    let command = ask(store, deposit(cents)).retry(100).idempotency(&*key);
                    match command.await {
                        Ok(done) => return done,
                        Err(ExecuteError::Store(AppendError::Unknown(_))) => {}
                        Err(error) => panic!("seed {seed}: {error:?}"),
                    }
                }
            }
            .boxed()
        });
        let outcomes = interleave(seed, tasks.collect());
        let state = block_on(memory.load::<Account>("a1")).unwrap();
        assert_eq!(state.state.balance, amounts.iter().sum::<u64>(), "seed {seed}");
        assert_eq!(state.events, 1 + 12, "seed {seed}");
        let mut places: Vec<u64> = outcomes.iter().map(|done| done.position.0).collect();
        places.sort_unstable();
        assert_eq!(places, (2..=13).collect::<Vec<u64>>(), "seed {seed}");
        for (done, &cents) in outcomes.iter().zip(&amounts) {
            let at = event_sourcing::time_travel::Moment::Position(done.position);
            let then = block_on(memory.state_at::<Account>("a1", at)).unwrap();
            assert_eq!(done.state, then.state, "seed {seed}: {cents}");
        }
    }
}

/// A store of which every third answer to an append is lost, whatever it was.
#[derive(Debug)]
struct Forgetful {
    inner: Arc<JournalStore>,
    answers: AtomicU64,
}

impl EventStore for Forgetful {
    fn append(&self, append: Append) -> Pending<Result<Committed, AppendError>> {
        let is_lost = self.answers.fetch_add(1, Ordering::Relaxed).is_multiple_of(3);
        let answer = self.inner.append(append);
        let lost = || Failure { message: "the answer was lost".into(), cause: None };
        async move {
            let answer = answer.await;
            if is_lost { Err(AppendError::Unknown(lost())) } else { answer }
        }
        .boxed()
    }

    fn read(&self, read: Read) -> Pending<Result<Page, ReadError>> {
        self.inner.read(read)
    }

    fn stream(&self, stream: StreamName) -> Pending<Result<Option<StreamInfo>, ReadError>> {
        self.inner.stream(stream)
    }

    fn types(&self) -> Pending<Result<Vec<TypeCount>, ReadError>> {
        self.inner.types()
    }

    fn head(&self) -> Position {
        self.inner.head()
    }

    fn wait_beyond(&self, position: Position) -> Pending<Result<Position, ReadError>> {
        self.inner.wait_beyond(position)
    }
}

/// The deposits of a user, each with its key: repeated until there is an answer, which is its position.
fn deposits(store: &dyn EventStore, user: u64) -> Vec<Position> {
    let deposited = |number: u64| {
        // Each time that somebody else is faster one of a hundred commands is done, or one of their answers is lost.
        let command =
            || ask(store, deposit(1 + number)).retry(1000).idempotency(format!("{user}-{number}"));
        (0..1000).find_map(|_| match command().wait() {
            Ok(done) => Some(done.position),
            Err(ExecuteError::Store(AppendError::Unknown(_))) => None,
            Err(error) => panic!("{error:?}"),
        })
    };
    (0..5).map(|number| deposited(number).expect("two answers of three arrive")).collect()
}

#[test]
fn a_command_repeated_over_threads_and_a_restart_takes_effect_once_on_disk() {
    const USERS: u64 = 8;
    let (directory, store) = on_disk();
    account_with(&*store, &[]);
    let forgetful = Arc::new(Forgetful { inner: Arc::clone(&store), answers: AtomicU64::new(0) });
    let users: Vec<_> = (0..USERS)
        .map(|user| {
            let store = Arc::clone(&forgetful);
            std::thread::spawn(move || deposits(&*store, user))
        })
        .collect();
    let done: Vec<Vec<Position>> = users.into_iter().map(|user| user.join().unwrap()).collect();
    store.close();
    let mut places: Vec<u64> = done.iter().flatten().map(|position| position.0).collect();
    places.sort_unstable();
    assert_eq!(places, (2..2 + 5 * USERS).collect::<Vec<u64>>());

    let store = JournalStore::open(&on_disk_options(&directory)).unwrap();
    for (user, done) in (0..).zip(done) {
        assert_eq!(deposits(&store, user), done);
    }
    let state = executor::block_on(store.load::<Account>("a1")).unwrap();
    assert_eq!((state.state.balance, state.events), (15 * USERS, 1 + 5 * USERS));
}
