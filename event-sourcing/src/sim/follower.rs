//! Those who follow the log: subscribers, which may be lost at any moment and go on from an old checkpoint, and a projection, whose sink
//! fails in the middle of commits.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::task::Poll;

use futures::Stream;

use super::coverage::{Coverage, Sometimes};
use super::draw::{Draw, KEPT};
use super::store::{Handle, unwoken};
use super::world::{Outcome, broken};
use crate::clock::Clock;
use crate::event::{Position, Recorded};
use crate::filter::Filter;
use crate::projection::{
    Batch, Changes, MemorySink, Next, Projection, ProjectionError, ReadModel, Rows, Runner, Sink,
    SinkError, Snapshot, Table,
};
use crate::read::{ReadError, Source};
use crate::store::EventStore;
use crate::subscription::{Delivery, Subscribe, Subscription};
use crate::testing::differential::model::Model;

/// How often something is polled for one answer, at most.
const POLLS: usize = 10_000;

/// A subscriber.
pub(super) struct Follower {
    subscribe: Subscribe,
    subscription: Option<Subscription<Handle>>,
    /// Everything up to here was delivered.
    at: Position,
    /// The checkpoint that it has kept.
    saved: Position,
    /// Its stream was closed.
    ended: bool,
}

/// What a subscriber is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    /// It has nothing to do.
    Waits,
    /// It can go on.
    Busy,
    /// The disk has failed under it.
    Failed,
}

impl Follower {
    pub(super) fn new(draw: &mut Draw) -> Self {
        let filter = if draw.chance(60) { draw.filter() } else { Filter::default() };
        let mut subscribe = Subscribe::to(draw.source()).filter(filter);
        subscribe.count_max = 1 + draw.count(8);
        subscribe.checkpoint_every = 1 + draw.below(20);
        let at = Position::BEGINNING;
        Self { subscribe, subscription: None, at, saved: at, ended: false }
    }

    /// The process is gone: it goes on from what it has kept.
    pub(super) fn lose(&mut self, coverage: &Coverage) {
        if self.subscription.take().is_some() && self.saved < self.at {
            coverage.note(Sometimes::Resumed);
        }
        self.at = self.saved;
    }

    /// Keeps the checkpoint.
    pub(super) fn save(&mut self) {
        self.saved = self.at;
    }

    pub(super) fn has_ended(&self) -> bool {
        self.ended
    }

    pub(super) fn position(&self) -> Position {
        self.at
    }

    /// Takes one delivery, if there is one, and checks it.
    pub(super) fn step(
        &mut self,
        store: &Handle,
        model: &Model,
        coverage: &Coverage,
    ) -> Outcome<Standing> {
        if self.ended {
            return Ok(Standing::Waits);
        }
        let subscription = self.subscription.get_or_insert_with(|| {
            Subscription::new(Arc::clone(store), self.subscribe.clone().after(self.at))
        });
        let delivery = match Pin::new(&mut *subscription).poll_next(&mut unwoken()) {
            Poll::Pending if subscription.is_live() => return Ok(Standing::Waits),
            Poll::Pending => return Ok(Standing::Busy),
            Poll::Ready(None) => return Err(broken("a subscription goes on", "it has ended")),
            Poll::Ready(Some(Ok(delivery))) => delivery,
            Poll::Ready(Some(Err(ReadError::Tombstoned { stream }))) => {
                self.ended = true;
                let closed = model.view().retention(&stream).tombstoned;
                return match closed {
                    true => Ok(Standing::Waits),
                    false => Err(broken("only closed streams end", format!("{stream} is open"))),
                };
            }
            Poll::Ready(Some(Err(ReadError::Io(_) | ReadError::Closed))) => {
                return Ok(Standing::Failed);
            }
            Poll::Ready(Some(Err(error))) => {
                return Err(broken("subscriptions can read", format!("{error:?}")));
            }
        };
        match &delivery {
            Delivery::Event(event) => {
                let known = usize::try_from(event.position.0 - 1).ok();
                let known = known.and_then(|at| model.events.get(at));
                if known != Some(event) || !self.is_match(event) || event.position <= self.at {
                    let detail = format!("at {}: {event:?}", self.at);
                    return Err(broken("subscribers see matches of the log, in order", detail));
                }
                self.skip_to(Position(event.position.0 - 1), model)?;
                self.at = event.position;
            }
            Delivery::Checkpoint(at) | Delivery::CaughtUp(at) | Delivery::FellBehind(at) => {
                coverage.note(match &delivery {
                    Delivery::CaughtUp(_) => Sometimes::CaughtUp,
                    Delivery::FellBehind(_) => Sometimes::FellBehind,
                    _ => Sometimes::Checkpointed,
                });
                if *at > model.head() {
                    let detail = format!("{at} of {}", model.head());
                    return Err(broken("checkpoints are of durable events", detail));
                }
                self.skip_to(*at, model)?;
                self.at = self.at.max(*at);
            }
        }
        Ok(Standing::Busy)
    }

    fn is_match(&self, event: &Recorded) -> bool {
        let in_source = match &self.subscribe.source {
            Source::Stream(stream) => event.stream == *stream,
            Source::All => true,
            Source::Query(query) => query.matches(&event.stream, &event.event),
        };
        in_source && self.subscribe.filter.passes(event)
    }

    /// Nothing up to `to` that was not delivered may be visible now; what is hidden now may have been hidden when it was read.
    fn skip_to(&self, to: Position, model: &Model) -> Outcome {
        let view = model.view();
        let mut left = model.events.iter().filter(|event| {
            event.position > self.at
                && event.position <= to
                && self.is_match(event)
                && view.shows(event)
        });
        match left.next() {
            None => Ok(()),
            Some(event) => {
                let detail = format!("from {} to {to} without {}", self.at, event.position);
                Err(broken("subscribers skip nothing", detail))
            }
        }
    }
}

const NAME: &str = "folded";
/// A number for each stream that every event of it has changed, so that their order and number can be told.
const FOLDED: Table<str, u64> = Table::new("folded");

fn fold(before: u64, position: Position) -> u64 {
    before.wrapping_mul(31).wrapping_add(position.0)
}

/// A sink whose next commit can be made to fail.
#[derive(Debug, Default)]
struct FailingSink {
    sink: MemorySink,
    /// How many commits go well before the one that fails, and 128 more if that one takes effect; `0xff` for never.
    fails: AtomicU8,
}

const NEVER: u8 = 0xff;

impl Sink for FailingSink {
    fn snapshot(&self) -> Result<Box<dyn Snapshot>, SinkError> {
        self.sink.snapshot()
    }

    fn commit(&self, changes: &Changes) -> Result<(), SinkError> {
        let fails = self.fails.load(Ordering::Relaxed);
        if fails == NEVER {
            return self.sink.commit(changes);
        }
        let takes_effect = fails & 0x80 != 0;
        if fails & 0x7f > 0 {
            self.fails.store(fails - 1, Ordering::Relaxed);
            return self.sink.commit(changes);
        }
        self.fails.store(NEVER, Ordering::Relaxed);
        if takes_effect {
            self.sink.commit(changes)?;
        }
        Err(SinkError::failed("the sink is lost"))
    }
}

/// A projection of the streams of which everything is kept.
pub(super) struct Projector {
    sink: Arc<FailingSink>,
    runner: Option<Runner>,
    batch: usize,
}

impl Projector {
    pub(super) fn new(draw: &mut Draw) -> Self {
        let sink = Arc::new(FailingSink::default());
        sink.fails.store(NEVER, Ordering::Relaxed);
        Self { sink, runner: None, batch: 1 + draw.count(6) }
    }

    /// The process is gone.
    pub(super) fn lose(&mut self) {
        self.runner = None;
        self.sink.fails.store(NEVER, Ordering::Relaxed);
    }

    /// One of the next commits fails.
    pub(super) fn fail_soon(&mut self, draw: &mut Draw) {
        let fails = u8::try_from(draw.below(3)).expect("it is small");
        let effect = if draw.chance(50) { 0x80 } else { 0 };
        self.sink.fails.store(fails | effect, Ordering::Relaxed);
    }

    fn projection(&self) -> Projection {
        let prefixes = vec!["keep-".into()];
        let batch = Batch { count_max: self.batch, ..Batch::default() };
        let filter = Filter { stream_prefixes: prefixes, ..Filter::default() };
        let projection = Projection::new(NAME, "1").filter(filter).batch(batch);
        projection.otherwise(|tx, event| {
            let before = tx.get(&FOLDED, event.stream.as_str())?.unwrap_or(0);
            Ok(tx.put(&FOLDED, event.stream.as_str(), &fold(before, event.position))?)
        })
    }

    /// Does one thing, and compares the rows with a fold over the events up to the checkpoint.
    pub(super) fn step(
        &mut self,
        store: &Handle,
        clock: &dyn Clock,
        model: &Model,
        coverage: &Coverage,
    ) -> Outcome<Standing> {
        let standing = match self.advance(store, clock) {
            Ok(true) => Standing::Busy,
            Ok(false) => Standing::Waits,
            Err(ProjectionError::Sink(SinkError::Failed(_))) => {
                coverage.note(Sometimes::ProjectionStopped);
                self.runner = None;
                Standing::Busy
            }
            Err(ProjectionError::Read(ReadError::Io(_) | ReadError::Closed)) => {
                self.runner = None;
                Standing::Failed
            }
            Err(error) => return Err(broken("projections go on", format!("{error:?}"))),
        };
        self.compare(model)?;
        Ok(standing)
    }

    fn advance(&mut self, store: &Handle, clock: &dyn Clock) -> Result<bool, ProjectionError> {
        if self.runner.is_none() {
            let sink: Arc<dyn Sink> = Arc::clone(&self.sink) as Arc<dyn Sink>;
            self.runner = Some(Runner::open(sink, self.projection())?);
        }
        let runner = self.runner.as_mut().expect("it was just opened");
        match runner.next(clock.now()) {
            Next::Read(read) => {
                let page = finish(store.read(*read)).unwrap_or(Err(ReadError::Closed))?;
                runner.take(page, clock.now());
            }
            Next::Work => drop(runner.work(clock)?),
            Next::WaitBeyond(position) if store.head() > position => runner.wake(store.head()),
            Next::WaitBeyond(_) | Next::WaitUntil(_) => return Ok(false),
        }
        Ok(true)
    }

    fn compare(&self, model: &Model) -> Outcome {
        let sink = Arc::clone(&self.sink) as Arc<dyn Sink>;
        let Ok(view) = ReadModel::new(sink, NAME).view() else {
            // Nothing was committed so far.
            return Ok(());
        };
        let until = view.position();
        if until > model.head() {
            return Err(broken("projections see durable events", format!("{until}")));
        }
        let mut folded: BTreeMap<&str, u64> = BTreeMap::new();
        for event in model.events.iter().filter(|event| event.position <= until) {
            if event.stream.as_str().starts_with("keep-") {
                let number = folded.entry(event.stream.as_str()).or_default();
                *number = fold(*number, event.position);
            }
        }
        for stream in KEPT {
            let row = view.get(&FOLDED, stream);
            let row = row.map_err(|error| broken("rows can be read", error.to_string()))?;
            if row != folded.get(stream).copied() {
                let detail = format!("{stream} up to {until}: {row:?}, {:?}", folded.get(stream));
                return Err(broken("a projection is a fold over the events", detail));
            }
        }
        Ok(())
    }
}

/// Polls until there is an answer; `None` if there is none after very many polls.
pub(super) fn finish<T>(future: impl Future<Output = T>) -> Option<T> {
    let mut future = std::pin::pin!(future);
    (0..POLLS).find_map(|_| match future.as_mut().poll(&mut unwoken()) {
        Poll::Ready(answer) => Some(answer),
        Poll::Pending => None,
    })
}
