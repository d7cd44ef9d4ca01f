//! The store as its users see it, over the log without threads.
//!
//! Appends wait in a queue until the world drains it, as they wait for the thread that writes. Reads are answered as of the moment when
//! they are asked for, and now and then the answer arrives later, when the log has moved on.

use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use futures::FutureExt;
use futures::channel::oneshot;

use crate::append::{Append, AppendError, Committed};
use crate::error::Failure;
use crate::event::{Position, StreamName};
use crate::read::{Page, Read, ReadError};
use crate::store::journal::{EventLog, LogReader};
use crate::store::{EventStore, Pending, StreamInfo, TypeCount};

/// An append that waits, and who waits for its answer.
pub(super) type Waiting = (Append, oneshot::Sender<Result<Committed, AppendError>>);

/// A store whose threads are the world.
#[derive(Debug, Default)]
pub(super) struct SimStore(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    log: Option<EventLog>,
    queue: Vec<Waiting>,
    reads: u64,
}

impl SimStore {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts a log in, or takes it out.
    pub(super) fn replace(&self, log: Option<EventLog>) -> Option<EventLog> {
        let mut state = self.state();
        state.queue.clear();
        std::mem::replace(&mut state.log, log)
    }

    /// Does something with the log.
    ///
    /// # Panics
    ///
    /// If there is none.
    pub(super) fn with<T>(&self, work: impl FnOnce(&mut EventLog) -> T) -> T {
        work(self.state().log.as_mut().expect("the log is open"))
    }

    pub(super) fn reader(&self) -> Option<LogReader> {
        self.state().log.as_ref().map(EventLog::reader)
    }

    pub(super) fn take_queue(&self) -> Vec<Waiting> {
        std::mem::take(&mut self.state().queue)
    }

    /// Asks a reader; the answer may come a moment later.
    fn ask<T: Send + 'static>(
        &self,
        ask: impl FnOnce(LogReader) -> Result<T, ReadError>,
    ) -> Pending<Result<T, ReadError>> {
        let answer = self.reader().map_or(Err(ReadError::Closed), ask);
        let mut state = self.state();
        state.reads += 1;
        Later { answer: Some(answer), waits: state.reads % 3 }.boxed()
    }
}

impl EventStore for SimStore {
    fn append(&self, append: Append) -> Pending<Result<Committed, AppendError>> {
        let (sender, receiver) = oneshot::channel();
        self.state().queue.push((append, sender));
        let gone = || Failure { message: "the store is gone".into(), cause: None };
        receiver.map(move |answer| answer.unwrap_or(Err(AppendError::Unknown(gone())))).boxed()
    }

    fn read(&self, read: Read) -> Pending<Result<Page, ReadError>> {
        self.ask(|reader| reader.read(&read))
    }

    fn stream(&self, stream: StreamName) -> Pending<Result<Option<StreamInfo>, ReadError>> {
        self.ask(|reader| reader.stream(&stream))
    }

    fn types(&self) -> Pending<Result<Vec<TypeCount>, ReadError>> {
        self.ask(|reader| reader.types())
    }

    fn head(&self) -> Position {
        self.reader().map_or(Position::BEGINNING, |reader| reader.head())
    }

    fn wait_beyond(&self, position: Position) -> Pending<Result<Position, ReadError>> {
        let Some(reader) = self.reader() else {
            return futures::future::ready(Err(ReadError::Closed)).boxed();
        };
        // Whoever polls it polls it again: nobody has to be woken.
        futures::future::poll_fn(move |_| match reader.head() {
            head if head > position => Poll::Ready(Ok(head)),
            _ => Poll::Pending,
        })
        .boxed()
    }
}

/// An answer that arrives at a later poll.
struct Later<T> {
    answer: Option<T>,
    waits: u64,
}

impl<T> Unpin for Later<T> {}

impl<T> Future for Later<T> {
    type Output = T;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<T> {
        if self.waits > 0 {
            self.waits -= 1;
            context.waker().wake_by_ref();
            return Poll::Pending;
        }
        Poll::Ready(self.answer.take().expect("it is not polled after its answer"))
    }
}

/// A context that wakes nobody: the world polls again by itself.
pub(super) fn unwoken() -> Context<'static> {
    Context::from_waker(Waker::noop())
}

/// A handle to the store, which subscriptions own.
pub(super) type Handle = Arc<SimStore>;
