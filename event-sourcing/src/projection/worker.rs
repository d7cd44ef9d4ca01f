//! The edge that drives a [`Runner`]: a future for whatever runtime there is, or a thread; and the handle that controls it.
//!
//! [`Worker::run`] does what the runner asks for and what the [`Handle`] says, and decides nothing else. Between its awaits it calls
//! handlers and commits, which takes as long as it takes: give it a thread of its own ([`Worker::run_blocking`]) where a busy
//! executor would mind.

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::FutureExt;
use futures::channel::oneshot;
use futures::future::{BoxFuture, Either, select};
use futures::task::AtomicWaker;

use super::lag::{Lag, Trend};
use super::runner::{Next, Runner};
use super::sink::{Sink, SinkError};
use super::{Projection, ProjectionError, WaitError};
use crate::error::ReadError;
use crate::event::{Position, Timestamp};
use crate::read::{From, Read, Source};
use crate::sleep::{Sleep, until};
use crate::store::{EventStore, Pending};

/// How many requests may wait for the worker; one more is refused.
const REQUESTS_MAX: usize = 64;
/// How often a failing log or sink is tried again before the worker gives up.
const TRIES_MAX: u32 = 8;
const PAUSE: Duration = Duration::from_millis(50);

/// What a projection is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// There are events that it has not taken in yet.
    CatchingUp,
    /// It has taken in all there is, and takes in what comes.
    Live,
    /// An event has failed, and is tried again after a pause; or the log or the sink has.
    BackingOff,
    /// It was told to wait.
    Paused,
    /// It was told to stop, or its worker was dropped.
    Stopped,
    /// It has stopped by itself: see [`Status::last_error`].
    Failed,
}

/// Where a projection is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    /// Its name.
    pub name: Arc<str>,
    /// Its version, as the sink knows it.
    pub version: Arc<str>,
    /// The number of the build.
    pub build: u32,
    /// Queries see this build.
    pub is_current: bool,
    /// What it is doing.
    pub state: State,
    /// Everything up to here is in the rows.
    pub position: Position,
    /// The end of the log.
    pub head: Position,
    /// How far it is behind.
    pub lag: Lag,
    /// Which way the lag goes.
    pub trend: Trend,
    /// How many events were handled or parked since the build was begun.
    pub events: u64,
    /// How many are parked.
    pub parked: usize,
    /// How many batches were run again because partitions had touched the same rows.
    pub clashes: u64,
    /// What failed last, until an event is handled after it.
    pub last_error: Option<String>,
}

/// Runs a projection.
pub struct Worker {
    store: Arc<dyn EventStore>,
    runner: Runner,
    time: Arc<dyn Sleep>,
    shared: Arc<Shared>,
    chores: Option<Box<dyn Chores>>,
}

/// Controls a worker and tells where it is. Any number of clones may be about.
#[derive(Clone)]
pub struct Handle {
    store: Arc<dyn EventStore>,
    time: Arc<dyn Sleep>,
    shared: Arc<Shared>,
}

/// What is done between events.
pub(crate) trait Chores: Send {
    /// What is to be done now.
    fn next(&mut self, runner: &Runner, now: Timestamp) -> Result<Chore, ProjectionError>;

    /// Takes note of what was done.
    fn done(
        &mut self,
        runner: &mut Runner,
        result: Result<(), String>,
        now: Timestamp,
    ) -> Result<(), ProjectionError>;
}

/// Something to do between events.
pub(crate) enum Chore {
    /// This, before any other event is handled.
    Do(BoxFuture<'static, Result<(), String>>),
    /// Nothing until that time, and no event either.
    Pause(Timestamp),
    /// Nothing; at that time there may be something, if nothing else happens before.
    Nothing(Option<Timestamp>),
}

#[derive(Debug)]
struct Shared {
    control: Mutex<Control>,
    /// The worker, where it waits.
    worker: AtomicWaker,
}

#[derive(Debug)]
struct Control {
    wanted: Wanted,
    /// Commits that may be made although it is paused.
    steps: usize,
    requests: VecDeque<Request>,
    status: Status,
    /// The time of the last event that was taken in.
    last: Timestamp,
    waiting: Vec<(Position, oneshot::Sender<()>)>,
    clean_at: usize,
    ended: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wanted {
    Run,
    Pause,
    Stop,
}

/// A request about parked events.
#[derive(Debug)]
enum Request {
    Replay(oneshot::Sender<Result<usize, ProjectionError>>),
    Discard(Position, oneshot::Sender<Result<usize, ProjectionError>>),
}

const CLEAN_AT_LEAST: usize = 64;

impl Worker {
    /// A worker for the projection's read model; see [`Runner::open`].
    ///
    /// # Errors
    ///
    /// If the projection is none, or the sink fails.
    pub fn new(
        store: Arc<dyn EventStore>,
        sink: Arc<dyn Sink>,
        projection: Projection,
        time: Arc<dyn Sleep>,
    ) -> Result<(Self, Handle), ProjectionError> {
        let runner = Runner::open(sink, projection)?;
        Ok(Self::with(store, runner, time, None))
    }

    /// A worker that builds the read model anew beside the current one; see [`Runner::rebuild`].
    ///
    /// # Errors
    ///
    /// As [`Worker::new`].
    pub fn rebuild(
        store: Arc<dyn EventStore>,
        sink: Arc<dyn Sink>,
        projection: Projection,
        time: Arc<dyn Sleep>,
    ) -> Result<(Self, Handle), ProjectionError> {
        let runner = Runner::rebuild(sink, projection)?;
        Ok(Self::with(store, runner, time, None))
    }

    pub(crate) fn with(
        store: Arc<dyn EventStore>,
        runner: Runner,
        time: Arc<dyn Sleep>,
        chores: Option<Box<dyn Chores>>,
    ) -> (Self, Handle) {
        let control = Control {
            wanted: Wanted::Run,
            steps: 0,
            requests: VecDeque::new(),
            status: Status {
                name: runner.projection().name().into(),
                version: runner.version().into(),
                build: runner.build(),
                is_current: runner.is_current(),
                state: State::CatchingUp,
                position: runner.position(),
                head: store.head(),
                lag: Lag::default(),
                trend: Trend::Steady,
                events: runner.checkpoint().events,
                parked: runner.parked(),
                clashes: 0,
                last_error: None,
            },
            last: runner.checkpoint().time,
            waiting: Vec::new(),
            clean_at: CLEAN_AT_LEAST,
            ended: false,
        };
        let control = Mutex::new(control);
        let shared = Arc::new(Shared { control, worker: AtomicWaker::new() });
        let handle = Handle {
            store: Arc::clone(&store),
            time: Arc::clone(&time),
            shared: Arc::clone(&shared),
        };
        (Self { store, runner, time, shared, chores }, handle)
    }

    /// Runs on this thread until it ends.
    ///
    /// # Errors
    ///
    /// As [`Worker::run`].
    pub fn run_blocking(self) -> Result<(), ProjectionError> {
        futures::executor::block_on(self.run())
    }

    /// Runs until it is told to stop. Dropping the future is no worse than a crash, which is harmless.
    ///
    /// A log or a sink that fails is tried again some times, with growing pauses, from the checkpoint.
    ///
    /// # Errors
    ///
    /// If a handler failed and the projection says that it stops then; if another runner or build has taken over; if the log or
    /// the sink has failed for too long.
    pub async fn run(mut self) -> Result<(), ProjectionError> {
        let mut failures = 0;
        loop {
            let error = match self.work_until_failure(&mut failures).await {
                Ok(()) => {
                    let result = self.runner.flush();
                    self.publish(State::Stopped);
                    return result;
                }
                Err(error) => error,
            };
            self.recover(error, &mut failures).await?;
            if self.shared.control().wanted == Wanted::Stop {
                self.publish(State::Stopped);
                return Ok(());
            }
        }
    }

    /// Waits after an error that may pass, and opens the read model again: of what was under way it is not known whether it was
    /// committed, but the sink knows.
    async fn recover(
        &mut self,
        mut error: ProjectionError,
        failures: &mut u32,
    ) -> Result<(), ProjectionError> {
        loop {
            *failures += 1;
            if !may_pass(&error) || *failures > TRIES_MAX {
                self.publish_failure(&error);
                return Err(error);
            }
            {
                let mut control = self.shared.control();
                control.status.last_error = Some(super::batch::chain(&error));
                control.status.state = State::BackingOff;
            }
            let pause = self.time.sleep(PAUSE * (1 << *failures));
            select(pause, self.shared.changed(|control| control.wanted == Wanted::Stop)).await;
            match self.runner.reopened() {
                Ok(runner) => {
                    self.runner = runner;
                    return Ok(());
                }
                Err(other) => error = other,
            }
        }
    }

    async fn work_until_failure(&mut self, failures: &mut u32) -> Result<(), ProjectionError> {
        loop {
            self.answer_requests().await?;
            let (wanted, steps) = {
                let control = self.shared.control();
                (control.wanted, control.steps)
            };
            match wanted {
                Wanted::Stop => return Ok(()),
                Wanted::Pause if steps == 0 => {
                    self.publish(State::Paused);
                    self.shared.changed(Control::wants_something).await;
                    continue;
                }
                Wanted::Pause | Wanted::Run => {}
            }
            let now = self.time.now();
            let mut chore_at = None;
            if let Some(chores) = &mut self.chores {
                match chores.next(&self.runner, now)? {
                    Chore::Do(chore) => {
                        let result = chore.await;
                        chores.done(&mut self.runner, result, self.time.now())?;
                        self.publish(State::CatchingUp);
                        continue;
                    }
                    Chore::Pause(at) => {
                        self.publish(State::BackingOff);
                        self.shared.wait(self.time.sleep(until(now, at))).await;
                        continue;
                    }
                    Chore::Nothing(at) => chore_at = at,
                }
            }
            match self.runner.next(now) {
                Next::Read(read) => self.read(*read).await?,
                Next::Work => {
                    let handled = self.runner.work(&*self.time)?;
                    *failures = 0;
                    if handled {
                        let mut control = self.shared.control();
                        control.steps = control.steps.saturating_sub(1);
                    }
                    self.publish(State::CatchingUp);
                    // Others on this executor have their turn.
                    yield_now().await;
                }
                Next::WaitUntil(at) => {
                    self.publish(State::BackingOff);
                    self.shared.wait(self.time.sleep(until(now, at))).await;
                }
                Next::WaitBeyond(position) => {
                    *failures = 0;
                    self.shared.control().steps = 0;
                    self.publish(State::Live);
                    let longer = self.store.wait_beyond(position);
                    let due = match chore_at {
                        Some(at) => self.time.sleep(until(now, at)),
                        None => futures::future::pending().boxed(),
                    };
                    let changed = self.shared.changed(Control::wants_something_else);
                    match select(longer, select(due, changed)).await {
                        Either::Left((head, _)) => self.runner.wake(head?),
                        Either::Right(_) => {}
                    }
                }
            }
        }
    }

    async fn read(&mut self, read: Read) -> Result<(), ProjectionError> {
        let head = self.store.head();
        match self.store.read(read).await {
            Ok(page) => self.runner.take(page, self.time.now()),
            // A stream that is not there has no events, for now.
            Err(ReadError::NoStream { .. }) => self.runner.take_nothing(head, self.time.now()),
            Err(error) => return Err(error.into()),
        }
        self.publish(State::CatchingUp);
        Ok(())
    }

    async fn answer_requests(&mut self) -> Result<(), ProjectionError> {
        loop {
            let request = self.shared.control().requests.pop_front();
            let (answer, result) = match request {
                None => return Ok(()),
                Some(Request::Replay(answer)) => (answer, self.replay_parked().await),
                Some(Request::Discard(position, answer)) => (answer, self.discard(position)),
            };
            let failed = result.as_ref().err().cloned();
            let state = self.shared.control().status.state;
            self.publish(state);
            // Whoever asked may have left.
            let _ = answer.send(result);
            if let Some(error) = failed {
                return Err(error);
            }
        }
    }

    /// Handles all parked events again, in order. Returns how many are still parked.
    async fn replay_parked(&mut self) -> Result<usize, ProjectionError> {
        let mut failed = std::collections::BTreeSet::new();
        for parked in self.runner.parked_events()? {
            if failed.contains(&parked.key) {
                continue;
            }
            let read = Read::forward(Source::All).from(From::Position(parked.position)).count(1);
            let page = self.store.read(read).await?;
            let event = page.events.first().filter(|event| event.position == parked.position);
            if self.runner.replay(&parked, event.map(|event| &**event))?.is_some() {
                failed.insert(parked.key);
            }
        }
        Ok(self.runner.parked())
    }

    fn discard(&mut self, position: Position) -> Result<usize, ProjectionError> {
        let parked = self.runner.parked_events()?;
        if let Some(parked) = parked.iter().find(|parked| parked.position == position) {
            self.runner.discard(parked)?;
        }
        Ok(self.runner.parked())
    }

    /// Tells everybody where the runner is.
    fn publish(&self, state: State) {
        let runner = &self.runner;
        let mut control = self.shared.control();
        let status = &mut control.status;
        status.state = state;
        status.is_current = runner.is_current();
        status.position = runner.position();
        status.trend = runner.trend(self.store.head());
        status.events = runner.checkpoint().events;
        status.parked = runner.parked();
        status.clashes = runner.clashes();
        if runner.last_error().is_some() || state == State::Live {
            status.last_error = runner.last_error().map(str::to_owned);
        }
        control.last = runner.checkpoint().time;
        control.ended |= matches!(state, State::Stopped | State::Failed);
        let position = runner.position();
        let ended = control.ended;
        let reached = |(wanted, _): &mut (Position, _)| *wanted <= position;
        let woken: Vec<_> = control.waiting.extract_if(.., reached).collect();
        if ended {
            control.waiting.clear();
            control.requests.clear();
        }
        drop(control);
        for (_, waiting) in woken {
            // Whoever stopped waiting needs no answer.
            let _ = waiting.send(());
        }
    }

    fn publish_failure(&self, error: &ProjectionError) {
        self.publish(State::Failed);
        self.shared.control().status.last_error = Some(super::batch::chain(error));
    }
}

/// A worker that is dropped leaves nobody waiting.
impl Drop for Worker {
    fn drop(&mut self) {
        let mut control = self.shared.control();
        if !control.ended {
            control.ended = true;
            control.status.state = State::Stopped;
        }
        control.waiting.clear();
        control.requests.clear();
    }
}

/// Whether trying again may help.
fn may_pass(error: &ProjectionError) -> bool {
    match error {
        ProjectionError::Sink(error) => matches!(error, SinkError::Failed(_)),
        ProjectionError::Read(error) => matches!(error, ReadError::Io(_)),
        ProjectionError::Handler { .. }
        | ProjectionError::ParkedFull { .. }
        | ProjectionError::Command { .. }
        | ProjectionError::Superseded
        | ProjectionError::Name(_)
        | ProjectionError::Length { .. } => false,
    }
}

impl Handle {
    /// Lets it wait after the commit under way.
    pub fn pause(&self) {
        self.want(|control| {
            control.wanted = Wanted::Pause;
            control.steps = 0;
        });
    }

    /// Lets it go on.
    pub fn resume(&self) {
        self.want(|control| control.wanted = Wanted::Run);
    }

    /// Lets it make one commit and wait then. Steps that are not taken because there is nothing to do are forgotten.
    pub fn step(&self) {
        self.want(|control| {
            control.wanted = Wanted::Pause;
            control.steps = control.steps.saturating_add(1);
        });
    }

    /// Lets it end after the commit under way.
    pub fn stop(&self) {
        self.want(|control| control.wanted = Wanted::Stop);
    }

    fn want(&self, change: impl FnOnce(&mut Control)) {
        {
            let mut control = self.shared.control();
            // Who was told to stop does not start again.
            if control.wanted != Wanted::Stop {
                change(&mut control);
            }
        }
        self.shared.worker.wake();
    }

    /// Where it is.
    #[must_use]
    pub fn status(&self) -> Status {
        let control = self.shared.control();
        let mut status = control.status.clone();
        status.head = self.store.head();
        status.lag = super::lag::lag(status.position, status.head, control.last, self.time.now());
        status
    }

    /// Waits until everything up to `position` is in the rows, but no longer than `bound`: so that a user sees what the user has
    /// just written, by the position in [`Committed`](crate::append::Committed).
    ///
    /// # Errors
    ///
    /// If it takes too long, or the worker ends before.
    pub fn wait_until(
        &self,
        position: Position,
        bound: Duration,
    ) -> Pending<Result<(), WaitError>> {
        let receiver = {
            let mut control = self.shared.control();
            let reached = control.status.position;
            if reached >= position {
                return futures::future::ready(Ok(())).boxed();
            }
            if control.ended {
                return futures::future::ready(Err(WaitError::Ended { position: reached })).boxed();
            }
            if control.waiting.len() >= control.clean_at {
                control.waiting.retain(|(_, waiting)| !waiting.is_canceled());
                control.clean_at = (2 * control.waiting.len()).max(CLEAN_AT_LEAST);
            }
            let (sender, receiver) = oneshot::channel();
            control.waiting.push((position, sender));
            receiver
        };
        let (shared, late) = (Arc::clone(&self.shared), self.time.sleep(bound));
        async move {
            match select(receiver, late).await {
                Either::Left((Ok(()), _)) => Ok(()),
                Either::Left((Err(oneshot::Canceled), _)) => {
                    Err(WaitError::Ended { position: shared.control().status.position })
                }
                Either::Right(_) => {
                    Err(WaitError::Late { position: shared.control().status.position })
                }
            }
        }
        .boxed()
    }

    /// Handles all parked events again, in order, and returns how many are still parked.
    pub fn replay_parked(&self) -> Pending<Result<usize, ProjectionError>> {
        self.request(Request::Replay)
    }

    /// Gives up the event that is parked at this position, and returns how many are still parked. Those behind it may be replayed then.
    pub fn discard_parked(&self, position: Position) -> Pending<Result<usize, ProjectionError>> {
        self.request(|answer| Request::Discard(position, answer))
    }

    fn request(
        &self,
        request: impl FnOnce(oneshot::Sender<Result<usize, ProjectionError>>) -> Request,
    ) -> Pending<Result<usize, ProjectionError>> {
        let (sender, receiver) = oneshot::channel();
        {
            let mut control = self.shared.control();
            // Refused, it is answered by the sender's being dropped.
            if !control.ended && control.requests.len() < REQUESTS_MAX {
                control.requests.push_back(request(sender));
            }
        }
        self.shared.worker.wake();
        async move { receiver.await.unwrap_or(Err(ProjectionError::Superseded)) }.boxed()
    }
}

impl Shared {
    fn control(&self) -> MutexGuard<'_, Control> {
        // Nothing panics in here while it holds the lock, and so the state is whole.
        self.control.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for the pause to end, or for something else to do.
    async fn wait(&self, pause: Pending<()>) {
        select(pause, self.changed(Control::wants_something_else)).await;
    }

    /// Ends when `is_met`.
    fn changed(&self, is_met: fn(&Control) -> bool) -> BoxFuture<'_, ()> {
        futures::future::poll_fn(move |context| {
            self.worker.register(context.waker());
            if is_met(&self.control()) {
                std::task::Poll::Ready(())
            } else {
                std::task::Poll::Pending
            }
        })
        .boxed()
    }
}

impl Control {
    /// Whether one who is paused has something to do.
    fn wants_something(&self) -> bool {
        self.wanted != Wanted::Pause || self.steps > 0 || !self.requests.is_empty()
    }

    /// Whether one who waits for events or a time has something else to do.
    fn wants_something_else(&self) -> bool {
        match self.wanted {
            Wanted::Stop => true,
            Wanted::Pause if self.steps == 0 => true,
            Wanted::Pause | Wanted::Run => !self.requests.is_empty(),
        }
    }
}

/// Lets others have their turn.
async fn yield_now() {
    let mut yielded = false;
    futures::future::poll_fn(|context| {
        if std::mem::replace(&mut yielded, true) {
            return std::task::Poll::Ready(());
        }
        context.waker().wake_by_ref();
        std::task::Poll::Pending
    })
    .await;
}

impl fmt::Debug for Worker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Worker").field("runner", &self.runner).finish_non_exhaustive()
    }
}

impl fmt::Debug for Handle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Handle").field("status", &self.shared.control().status).finish()
    }
}
