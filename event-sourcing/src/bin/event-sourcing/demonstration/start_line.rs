//! A store whose first two appends wait for each other, so that both were decided before either is recorded.

use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use event_sourcing::event::StreamName;
use event_sourcing::store::TypeCount;
use event_sourcing::{
    Append, AppendError, Committed, EventStore, Page, Pending, Position, Read, ReadError,
    StreamInfo,
};

/// Whoever does not come in this time is not waited for: it may have failed before.
const PATIENCE: Duration = Duration::from_secs(10);

/// See the module.
#[derive(Debug)]
pub(super) struct StartLine<S> {
    store: Arc<S>,
    /// How many have come to the line.
    there: Mutex<u32>,
    came: Condvar,
}

impl<S> StartLine<S> {
    pub(super) fn new(store: Arc<S>) -> Self {
        Self { store, there: Mutex::new(0), came: Condvar::new() }
    }

    fn wait(&self) {
        let mut there = self.there.lock().unwrap_or_else(PoisonError::into_inner);
        *there += 1;
        self.came.notify_all();
        let waited = self.came.wait_timeout_while(there, PATIENCE, |there| *there < 2);
        drop(waited.unwrap_or_else(PoisonError::into_inner));
    }
}

impl<S: EventStore> EventStore for StartLine<S> {
    fn append(&self, append: Append) -> Pending<Result<Committed, AppendError>> {
        self.wait();
        self.store.append(append)
    }

    fn read(&self, read: Read) -> Pending<Result<Page, ReadError>> {
        self.store.read(read)
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
