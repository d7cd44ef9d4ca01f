//! One command at a time, and somebody who meddles.

use std::time::Duration;

use event_sourcing::error::AppendError;
use event_sourcing::event::{Metadata, StreamName, Timestamp};
use event_sourcing::load::LoadError;
use event_sourcing::retention::Retention;
use event_sourcing::{
    Append, Boundary, Decider, DomainStore, EventStore, EventStoreExt, EventType, ExecuteError,
    Expected, MemoryStore, NewEvent, Position, Read, Source, Version,
};

use super::bank::{Account, AccountCommand, AccountEvent, AccountState, Refusal};
use super::observed::Observed;
use super::{OPEN, account_with, ask, block_on, deposit, store_with_clock, withdraw};

fn a1() -> StreamName {
    StreamName::new("account-a1").unwrap()
}

#[test]
fn a_command_is_decided_on_the_events_of_its_stream() {
    let store = MemoryStore::default();
    account_with(&store, &[100]);
    let done = block_on(ask(&store, withdraw(30)).correlation("c").causation("b").user("ada"));
    let done = done.unwrap();
    assert_eq!(done.state, AccountState { owner: Some("ada".to_owned()), balance: 70 });
    let [placed] = &done.events[..] else { panic!("one event") };
    assert_eq!((placed.version, placed.position), (Version(2), Position(3)));
    assert_eq!((done.position, done.attempts, done.repeated), (Position(3), 1, false));
    let page = block_on(store.read(Read::backward(Source::Stream(a1())).count(1))).unwrap();
    let recorded = &page.events[0];
    assert_eq!(recorded.event.event_type.as_str(), "account.withdrawn");
    assert_eq!(&recorded.event.data[..], br#"{"cents":30}"#);
    assert_eq!((recorded.event.id, recorded.event.schema), (placed.id, 1));
    let metadata = Metadata {
        correlation: Some("c".into()),
        causation: Some("b".into()),
        user: Some("ada".into()),
        ..Metadata::default()
    };
    assert_eq!(recorded.event.metadata, metadata);
    let done = block_on(ask(&store, deposit(1)).caused_by(recorded)).unwrap();
    let read = Read::forward(Source::All).from(event_sourcing::read::From::Position(done.position));
    let effect = block_on(store.read(read)).unwrap().events[0].event.metadata.clone();
    assert_eq!(effect.correlation.as_deref(), Some("c"));
    assert_eq!(effect.causation, Some(placed.id.to_string().into()));
}

#[test]
fn a_refused_command_records_nothing() {
    let store = MemoryStore::default();
    account_with(&store, &[100]);
    let refused = block_on(ask(&store, withdraw(101))).unwrap_err();
    assert!(matches!(refused, ExecuteError::Rejected(Refusal::Overdraft { balance: 100 })));
    assert_eq!(refused.to_string(), "the command was refused: the balance is €1.00");
    assert_eq!(store.head(), Position(2));
}

#[test]
fn after_a_conflict_the_winners_are_taken_in_without_reading_again() {
    let store = Observed::default();
    account_with(&store, &[100]);
    store.reads();
    store.before_append(|inner| {
        block_on(ask(inner, withdraw(50))).unwrap();
    });
    let done = block_on(ask(&store, withdraw(30))).unwrap();
    assert_eq!((done.state.balance, done.attempts), (20, 2));
    assert_eq!(store.reads(), (1, 2));
    store.before_append(|inner| {
        block_on(ask(inner, withdraw(15))).unwrap();
    });
    let refused = block_on(ask(&store, withdraw(10))).unwrap_err();
    assert!(matches!(refused, ExecuteError::Rejected(Refusal::Overdraft { balance: 5 })));
}

#[test]
fn more_winners_than_a_conflict_carries_are_read() {
    let store = Observed::default();
    account_with(&store, &[]);
    store.reads();
    store.before_append(|inner| {
        for _ in 0..100 {
            block_on(ask(inner, deposit(1))).unwrap();
        }
    });
    let done = block_on(ask(&store, deposit(5))).unwrap();
    assert_eq!((done.state.balance, done.attempts), (105, 2));
    assert_eq!(store.reads(), (2, 1 + 101));
}

#[test]
fn whoever_always_loses_is_told_so_with_the_last_winner() {
    let store = Observed::default();
    account_with(&store, &[]);
    for _ in 0..3 {
        store.before_append(|inner| {
            block_on(ask(inner, deposit(1))).unwrap();
        });
    }
    let error = block_on(ask(&store, deposit(5)).retry(2)).unwrap_err();
    let ExecuteError::Conflict { attempts: 3, conflict } = error else { panic!("{error:?}") };
    assert_eq!(conflict.winners.len(), 1);
    assert_eq!(conflict.winners[0].version, Version(3));
}

#[test]
fn a_deleted_account_begins_anew_and_its_numbering_goes_on() {
    let store = Observed::default();
    account_with(&store, &[100]);
    block_on(store.delete(a1(), Expected::Any)).unwrap();
    let refused = block_on(ask(&store, deposit(1))).unwrap_err();
    assert!(matches!(refused, ExecuteError::Rejected(Refusal::NoAccount)));
    let done = block_on(ask(&store, OPEN())).unwrap();
    assert_eq!((done.events[0].version, done.state.balance), (Version(2), 0));
    block_on(ask(&store, deposit(50))).unwrap();
    // Deleted between loading and recording: the decision was made on what is not there any more.
    store.before_append(|inner| {
        block_on(inner.delete(a1(), Expected::Any)).unwrap();
        block_on(ask(inner, OPEN())).unwrap();
    });
    let done = block_on(ask(&store, deposit(7))).unwrap();
    assert_eq!((done.events[0].version, done.state.balance), (Version(5), 7));
    assert_eq!(done.attempts, 2);
}

#[test]
fn a_stream_whose_events_are_all_too_old_is_empty_and_can_be_written() {
    let (store, clock) = store_with_clock();
    account_with(&*store, &[100]);
    let limits = Retention { max_age: Some(Duration::from_secs(1)), ..Retention::default() };
    block_on(store.set_retention(a1(), limits)).unwrap();
    clock.advance(Duration::from_secs(10));
    let other = NewEvent::json(EventType::new("other.happened").unwrap(), "{}");
    let other = Append::to(StreamName::new("other").unwrap(), Expected::Any, [other]);
    block_on(store.append(other)).unwrap();
    let done = block_on(ask(&*store, OPEN())).unwrap();
    assert_eq!((done.events[0].version, done.attempts), (Version(2), 1));
}

#[test]
fn a_closed_account_is_the_stores_refusal() {
    let store = MemoryStore::default();
    account_with(&store, &[100]);
    block_on(store.tombstone(a1(), Expected::Any)).unwrap();
    let error = block_on(ask(&store, deposit(1))).unwrap_err();
    assert!(matches!(error, ExecuteError::Load(LoadError::Read(_))), "{error:?}");
    let error = block_on(store.execute::<Account>(OPEN()).on("\n")).unwrap_err();
    assert!(matches!(error, ExecuteError::Load(LoadError::Name(_))), "{error:?}");
}

/// An account that leaves out what it does not know.
struct Lenient;

impl Decider for Lenient {
    const NAME: &'static str = "account";
    const UNKNOWN: event_sourcing::decider::Unknown = event_sourcing::decider::Unknown::Skip;

    type Id = String;
    type State = AccountState;
    type Command = AccountCommand;
    type Event = AccountEvent;
    type Rejection = Refusal;

    fn boundary(id: &String) -> Result<Boundary, event_sourcing::error::InvalidName> {
        Account::boundary(id)
    }

    fn initial(id: &String) -> AccountState {
        Account::initial(id)
    }

    fn evolve(state: &mut AccountState, event: &AccountEvent) {
        Account::evolve(state, event);
    }

    fn decide(
        state: &AccountState,
        command: &AccountCommand,
    ) -> Result<Vec<AccountEvent>, Refusal> {
        Account::decide(state, command)
    }
}

#[test]
fn an_event_that_nobody_knows_stops_the_decision_or_is_left_out() {
    let store = MemoryStore::default();
    account_with(&store, &[100]);
    let frozen = NewEvent::json(EventType::new("account.frozen").unwrap(), "{}");
    block_on(store.append(Append::to(a1(), Expected::Any, [frozen]))).unwrap();
    let error = block_on(ask(&store, deposit(1))).unwrap_err();
    let ExecuteError::Load(LoadError::Codec { position: Position(3), source }) = error else {
        panic!("{error:?}")
    };
    assert_eq!(source.to_string(), "no event type account.frozen is known here");
    let done = block_on(store.execute::<Lenient>(deposit(1)).on("a1")).unwrap();
    assert_eq!((done.state.balance, done.events[0].version), (101, Version(3)));
    // What is known and cannot be read is damage, whoever looks.
    let broken = NewEvent::json(EventType::new("account.deposited").unwrap(), "{}");
    block_on(store.append(Append::to(a1(), Expected::Any, [broken]))).unwrap();
    let error = block_on(store.execute::<Lenient>(deposit(1)).on("a1")).unwrap_err();
    assert!(matches!(error, ExecuteError::Load(LoadError::Codec { .. })), "{error:?}");
}

#[test]
fn what_the_store_refuses_is_passed_on() {
    let store = MemoryStore::default();
    let key = "k".repeat(10_000);
    let error = block_on(ask(&store, OPEN()).idempotency(key)).unwrap_err();
    assert!(matches!(error, ExecuteError::Store(AppendError::Invalid(_))), "{error:?}");
    let time = Timestamp(0);
    let at = event_sourcing::time_travel::Moment::Time(time);
    assert_eq!(block_on(store.state_at::<Account>("a1", at)).unwrap().events, 0);
}
