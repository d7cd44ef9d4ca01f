//! Many users of one store at once, in an order that a seed decides: the same seed gives the same run.
//!
//! [`WaveringStore`] makes every call give way to others before and after it takes effect, and may lose answers;
//! [`interleave`] carries on whichever task the seed names next. Together they try what threads would do by chance, and can do
//! it again.
//!
//! ```
//! # use std::sync::Arc;
//! # use futures::FutureExt;
//! use event_sourcing::testing::{WaveringStore, interleave};
//! use event_sourcing::{Append, EventStore, EventType, Expected, MemoryStore, NewEvent, StreamName};
//!
//! for seed in 0..20 {
//!     let store = WaveringStore::new(Arc::new(MemoryStore::default()), seed);
//!     let first = || {
//!         let event = NewEvent::json(EventType::new("race.won").unwrap(), "{}");
//!         Append::to(StreamName::new("race").unwrap(), Expected::NoStream, [event])
//!     };
//!     let racers = (0..4).map(|_| store.append(first())).collect();
//!     let results = interleave(seed, racers);
//!     assert_eq!(results.iter().filter(|result| result.is_ok()).count(), 1);
//! }
//! ```

use std::future::{Future, poll_fn};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use futures::FutureExt;
use futures::future::BoxFuture;
use futures::task::noop_waker_ref;

use crate::append::{Append, AppendError, Committed};
use crate::error::Failure;
use crate::event::{Position, StreamName};
use crate::read::{Page, Read, ReadError};
use crate::store::{EventStore, Pending, StreamInfo, TypeCount};

/// A task that was carried on so often without an end will have none.
const TURNS_MAX: usize = 10_000_000;

/// Random numbers from a seed: splitmix64.
#[derive(Clone, Debug)]
pub struct Chance(u64);

impl Chance {
    /// The numbers of this seed.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// A number below `end`; 0 if that is 0.
    pub fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)).checked_rem(end).unwrap_or(0)
    }

    /// A place in a list of this length.
    pub fn place(&mut self, length: usize) -> usize {
        let below = self.below(u64::try_from(length).expect("a length fits"));
        usize::try_from(below).expect("it is below a length")
    }
}

/// Carries on tasks in the order that a seed decides until all have ended, and returns what they came to, in their own order.
///
/// # Panics
///
/// If a task waits for what none of the others does.
#[must_use]
pub fn interleave<T>(seed: u64, tasks: Vec<BoxFuture<'_, T>>) -> Vec<T> {
    let mut chance = Chance::new(seed);
    let mut results: Vec<Option<T>> = tasks.iter().map(|_| None).collect();
    let mut tasks: Vec<(usize, BoxFuture<'_, T>)> = tasks.into_iter().enumerate().collect();
    let mut turns = 0;
    while !tasks.is_empty() {
        let turn = chance.place(tasks.len());
        let (place, task) = &mut tasks[turn];
        if let Poll::Ready(result) = task.poll_unpin(&mut Context::from_waker(noop_waker_ref())) {
            results[*place] = Some(result);
            drop(tasks.swap_remove(turn));
        }
        turns += 1;
        assert!(turns < TURNS_MAX, "with seed {seed}, {} tasks wait for ever", tasks.len());
    }
    results.into_iter().map(|result| result.expect("all have ended")).collect()
}

/// A store whose calls give way to others before and after they take effect.
#[derive(Debug)]
pub struct WaveringStore<S> {
    inner: Arc<S>,
    chance: Mutex<Chance>,
    /// One append in so many has no answer; 0 for none.
    lost: u64,
}

impl<S: EventStore> WaveringStore<S> {
    /// Wavers as the seed decides.
    #[must_use]
    pub fn new(inner: Arc<S>, seed: u64) -> Self {
        Self { inner, chance: Mutex::new(Chance::new(seed)), lost: 0 }
    }

    /// Also, of one in so many appends the answer is lost: [`AppendError::Unknown`]. Half of them take effect.
    #[must_use]
    pub fn losing_one_in(mut self, appends: u64) -> Self {
        self.lost = appends;
        self
    }

    fn draw(&self, below: u64) -> u64 {
        self.chance.lock().unwrap_or_else(PoisonError::into_inner).below(below)
    }

    fn waver<T: Send + 'static>(
        &self,
        call: impl FnOnce(&S) -> Pending<T> + Send + 'static,
    ) -> Pending<T> {
        let (before, after) = (self.draw(4), self.draw(4));
        let inner = Arc::clone(&self.inner);
        async move {
            give_way(before).await;
            let answer = call(&inner).await;
            give_way(after).await;
            answer
        }
        .boxed()
    }
}

/// Lets others go on so many times.
fn give_way(times: u64) -> impl Future<Output = ()> + Send {
    let mut left = times;
    poll_fn(move |context| {
        if left == 0 {
            return Poll::Ready(());
        }
        left -= 1;
        context.waker().wake_by_ref();
        Poll::Pending
    })
}

impl<S: EventStore> EventStore for WaveringStore<S> {
    fn append(&self, append: Append) -> Pending<Result<Committed, AppendError>> {
        let is_lost = self.lost > 0 && self.draw(self.lost) == 0;
        let takes_effect = !is_lost || self.draw(2) == 0;
        self.waver(move |inner| {
            let done = takes_effect.then(|| inner.append(append));
            async move {
                let answer = match done {
                    Some(done) => Some(done.await),
                    None => None,
                };
                let lost = || AppendError::Unknown(Failure { message: "lost".into(), cause: None });
                answer.filter(|_| !is_lost).unwrap_or_else(|| Err(lost()))
            }
            .boxed()
        })
    }

    fn read(&self, read: Read) -> Pending<Result<Page, ReadError>> {
        self.waver(move |inner| inner.read(read))
    }

    fn stream(&self, stream: StreamName) -> Pending<Result<Option<StreamInfo>, ReadError>> {
        self.waver(move |inner| inner.stream(stream))
    }

    fn types(&self) -> Pending<Result<Vec<TypeCount>, ReadError>> {
        self.waver(|inner| inner.types())
    }

    fn head(&self) -> Position {
        self.inner.head()
    }

    fn wait_beyond(&self, position: Position) -> Pending<Result<Position, ReadError>> {
        self.waver(move |inner| inner.wait_beyond(position))
    }
}
