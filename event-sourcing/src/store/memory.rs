//! The store in memory: for tests, and for what need not outlive the process.
//!
//! It keeps every event until [`MemoryStore::scavenge`] finds that nobody can see it any more; what it holds is bounded by the memory
//! of the machine only.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures::FutureExt;
use futures::future::ready;

use crate::append::{Append, AppendError, Committed};
use crate::clock::{Clock, SystemClock};
use crate::event::{Position, StreamName};
use crate::machine::{EventMachine, Index, Limits, MemoryIndex};
use crate::page;
use crate::read::{Page, Read, ReadError};
use crate::store::signal::Signal;
use crate::store::{EventStore, Pending, StreamInfo, TypeCount};

/// A store in memory. An append is durable as soon as it is there: nothing of it survives the process.
#[derive(Debug)]
pub struct MemoryStore {
    machine: Mutex<EventMachine<MemoryIndex>>,
    clock: Arc<dyn Clock>,
    signal: Signal,
}

impl Default for MemoryStore {
    fn default() -> Self {
        Self::new(Arc::new(SystemClock), Limits::default())
    }
}

impl MemoryStore {
    /// An empty store.
    #[must_use]
    pub fn new(clock: Arc<dyn Clock>, limits: Limits) -> Self {
        let machine = Mutex::new(EventMachine::new(MemoryIndex::default(), limits));
        Self { machine, clock, signal: Signal::new(Position::BEGINNING) }
    }

    /// Takes back the space of events that cannot be seen any more, and returns how many there were.
    pub fn scavenge(&self) -> usize {
        self.machine().index_mut().scavenge().expect("reading memory does not fail")
    }

    fn machine(&self) -> MutexGuard<'_, EventMachine<MemoryIndex>> {
        // The machine changes nothing before it has decided, so whoever panicked in it left it whole.
        self.machine.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl EventStore for MemoryStore {
    fn append(&self, append: Append) -> Pending<Result<Committed, AppendError>> {
        let applied = {
            let mut machine = self.machine();
            // Sampled under the lock, so that events are stamped in the order in which they are recorded.
            let now = self.clock.now();
            machine.apply(append, Position::BEGINNING, now)
        };
        if let Ok(applied) = &applied {
            self.signal.advance(applied.committed.last);
        }
        ready(applied.map(|applied| applied.committed)).boxed()
    }

    fn read(&self, read: Read) -> Pending<Result<Page, ReadError>> {
        ready(page::read(self.machine().index(), &read)).boxed()
    }

    fn stream(&self, stream: StreamName) -> Pending<Result<Option<StreamInfo>, ReadError>> {
        ready(page::stream_info(self.machine().index(), &stream)).boxed()
    }

    fn types(&self) -> Pending<Result<Vec<TypeCount>, ReadError>> {
        ready(Ok(self.machine().index().types())).boxed()
    }

    fn head(&self) -> Position {
        self.machine().index().head()
    }

    fn wait_beyond(&self, position: Position) -> Pending<Result<Position, ReadError>> {
        self.signal.wait_beyond(position)
    }
}
