//! A store whose first two appends wait for each other, so that both were decided before either is recorded.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Barrier};

use event_sourcing::event::StreamName;
use event_sourcing::store::TypeCount;
use event_sourcing::{
    Append, AppendError, Committed, EventStore, Page, Pending, Position, Read, ReadError,
    StreamInfo,
};

/// See the module.
#[derive(Debug)]
pub(super) struct StartLine<S> {
    store: Arc<S>,
    line: Barrier,
    started: AtomicU32,
}

impl<S> StartLine<S> {
    pub(super) fn new(store: Arc<S>) -> Self {
        Self { store, line: Barrier::new(2), started: AtomicU32::new(0) }
    }
}

impl<S: EventStore> EventStore for StartLine<S> {
    fn append(&self, append: Append) -> Pending<Result<Committed, AppendError>> {
        if self.started.fetch_add(1, Ordering::SeqCst) < 2 {
            self.line.wait();
        }
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
