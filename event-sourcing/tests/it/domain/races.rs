//! Many who want the same thing at once: over threads, all at the start line, in memory and on disk; and in every order that seeds
//! come to.

use std::sync::Arc;

use event_sourcing::store::TypeCount;
use event_sourcing::testing::{Chance, WaveringStore, interleave};
use event_sourcing::{
    Append, AppendError, Committed, DomainStore, EventStore, ExecuteError, MemoryStore, Page,
    Pending, Position, Read, ReadError, StreamInfo, StreamName,
};
use futures::FutureExt;
use tokio::sync::Barrier;

use super::bank::Account;
use super::courses::{COURSES, No, SEATS, Subscribe, Subscription, of};
use super::{OPEN, account_with, ask, on_disk, withdraw};

const RACERS: usize = 16;

/// A store whose appends wait for each other at a line, so that all of them were decided on the same log.
#[derive(Debug)]
struct StartLine {
    inner: Arc<dyn EventStore>,
    line: Arc<Barrier>,
}

impl StartLine {
    fn before(inner: Arc<dyn EventStore>) -> Arc<Self> {
        Arc::new(Self { inner, line: Arc::new(Barrier::new(RACERS)) })
    }
}

impl EventStore for StartLine {
    fn append(&self, append: Append) -> Pending<Result<Committed, AppendError>> {
        let (inner, line) = (Arc::clone(&self.inner), Arc::clone(&self.line));
        async move {
            line.wait().await;
            inner.append(append).await
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

/// Runs a round, each racer on a thread of the runtime, and counts those who won.
async fn round<F>(store: &Arc<StartLine>, race: impl Fn(Arc<StartLine>, usize) -> F) -> usize
where
    F: Future<Output = bool> + Send + 'static,
{
    let racers: Vec<_> =
        (0..RACERS).map(|racer| tokio::spawn(race(Arc::clone(store), racer))).collect();
    let mut winners = 0;
    for racer in racers {
        winners += usize::from(racer.await.unwrap());
    }
    winners
}

/// All of them want to be the next on one stream.
async fn one_stream(store: Arc<dyn EventStore>, rounds: u64) {
    let store = StartLine::before(store);
    account_with(&*store.inner, &[1_000_000]);
    for number in 1..=rounds {
        let winners = round(&store, |store, racer| async move {
            match ask(&*store, withdraw(1 + racer as u64)).retry(0).await {
                Ok(_) => true,
                Err(ExecuteError::Conflict { attempts: 1, .. }) => false,
                Err(error) => panic!("{error:?}"),
            }
        })
        .await;
        assert_eq!(winners, 1);
        assert_eq!(store.inner.head(), Position(2 + number));
    }
}

/// Each wants a place in one course, for a student of their own.
async fn overlapping_queries(store: Arc<dyn EventStore>, rounds: u64) {
    let store = StartLine::before(store);
    for number in 0..rounds {
        let winners = round(&store, move |store, racer| async move {
            let on = of(&format!("c{number}"), &format!("s{racer}-{number}"));
            match store.execute::<Subscription>(Subscribe).on(on).retry(0).await {
                Ok(_) => true,
                Err(ExecuteError::Conflict { attempts: 1, .. }) => false,
                Err(error) => panic!("{error:?}"),
            }
        })
        .await;
        assert_eq!(winners, 1);
    }
    assert_eq!(store.inner.head(), Position(rounds));
}

/// Nobody wants what another one does.
async fn different_things(store: Arc<dyn EventStore>, rounds: u64) {
    let store = StartLine::before(store);
    for number in 0..rounds {
        let winners = round(&store, move |store, racer| async move {
            let on = of(&format!("c{racer}-{number}"), &format!("s{racer}-{number}"));
            store.execute::<Subscription>(Subscribe).on(on).retry(0).await.is_ok()
        })
        .await;
        assert_eq!(winners, RACERS);
        let winners = round(&store, move |store, racer| async move {
            let id = format!("{racer}-{number}");
            store.execute::<Account>(OPEN()).on(id).retry(0).await.is_ok()
        })
        .await;
        assert_eq!(winners, RACERS);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_sixteen_on_one_stream_exactly_one_wins_each_round() {
    one_stream(Arc::new(MemoryStore::default()), 40).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_sixteen_on_one_stream_exactly_one_wins_each_round_on_disk() {
    let (_directory, store) = on_disk();
    one_stream(store, 10).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_sixteen_whose_queries_overlap_exactly_one_wins_each_round() {
    overlapping_queries(Arc::new(MemoryStore::default()), 40).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_sixteen_whose_queries_overlap_exactly_one_wins_each_round_on_disk() {
    let (_directory, store) = on_disk();
    overlapping_queries(store, 10).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn those_who_want_different_things_never_conflict() {
    different_things(Arc::new(MemoryStore::default()), 40).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn those_who_want_different_things_never_conflict_on_disk() {
    let (_directory, store) = on_disk();
    different_things(store, 10).await;
}

/// In any order of any steps no course is overbooked and no student overtaxed, and nobody is turned away for no reason.
#[test]
fn rules_over_several_things_hold_in_every_order() {
    for seed in 0..300 {
        let memory = Arc::new(MemoryStore::default());
        let store = WaveringStore::new(Arc::clone(&memory), seed);
        let mut chance = Chance::new(seed);
        let wishes: Vec<(String, String)> = (0..24)
            .map(|_| of(&format!("c{}", chance.below(5)), &format!("s{}", chance.below(6))))
            .collect();
        let tasks = wishes.iter().map(|wish| {
            let store = &store;
            store.execute::<Subscription>(Subscribe).on(wish.clone()).retry(100).into_future()
        });
        let outcomes = interleave(seed, tasks.collect());
        for ((course, student), outcome) in wishes.iter().zip(outcomes) {
            let now = memory.load::<Subscription>(of(course, student)).now_or_never();
            let now = now.unwrap().unwrap().state;
            assert!(now.taken <= SEATS && now.courses <= COURSES, "seed {seed}: {now:?}");
            match outcome {
                Ok(done) => assert_eq!(done.events.len(), 1),
                Err(ExecuteError::Rejected(No::Full)) => assert_eq!(now.taken, SEATS),
                Err(ExecuteError::Rejected(No::Enough)) => assert_eq!(now.courses, COURSES),
                Err(ExecuteError::Rejected(No::Twice)) => {}
                Err(error) => panic!("seed {seed}: {error:?}"),
            }
        }
    }
}

/// Ten who withdraw from what is enough for seven.
#[test]
fn no_order_of_withdrawals_overdraws_an_account() {
    for seed in 0..300 {
        let memory = Arc::new(MemoryStore::default());
        account_with(&*memory, &[70]);
        let store = WaveringStore::new(Arc::clone(&memory), seed);
        let tasks = (0..10).map(|_| ask(&store, withdraw(10)).retry(100).into_future());
        let outcomes = interleave(seed, tasks.collect());
        assert_eq!(outcomes.iter().filter(|outcome| outcome.is_ok()).count(), 7, "seed {seed}");
        let left = memory.load::<Account>("a1").now_or_never().unwrap().unwrap();
        assert_eq!(left.state.balance, 0, "seed {seed}");
    }
}
