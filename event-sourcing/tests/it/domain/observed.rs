//! A store that counts what is asked of it, and lets a test act right before an append.

use std::collections::VecDeque;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use event_sourcing::event::StreamName;
use event_sourcing::store::TypeCount;
use event_sourcing::{
    Append, AppendError, Committed, EventStore, MemoryStore, Page, Pending, Position, Read,
    ReadError, StreamInfo,
};
use futures::FutureExt;

type Act = Box<dyn FnOnce(&MemoryStore) + Send>;

/// See the module.
#[derive(Default)]
pub(super) struct Observed {
    pub(super) inner: Arc<MemoryStore>,
    /// Pages that were read.
    pages: AtomicU64,
    /// Events in them.
    events: Arc<AtomicU64>,
    /// What happens right before the next appends.
    acts: Mutex<VecDeque<Act>>,
}

impl fmt::Debug for Observed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.fmt(f)
    }
}

impl Observed {
    /// Does this right before one of the next appends, one act before each.
    pub(super) fn before_append(&self, act: impl FnOnce(&MemoryStore) + Send + 'static) {
        self.acts.lock().unwrap().push_back(Box::new(act));
    }

    /// How many pages and events were read since this was asked last.
    pub(super) fn reads(&self) -> (u64, u64) {
        (self.pages.swap(0, Ordering::SeqCst), self.events.swap(0, Ordering::SeqCst))
    }
}

impl EventStore for Observed {
    fn append(&self, append: Append) -> Pending<Result<Committed, AppendError>> {
        let act = self.acts.lock().unwrap().pop_front();
        if let Some(act) = act {
            act(&self.inner);
        }
        self.inner.append(append)
    }

    fn read(&self, read: Read) -> Pending<Result<Page, ReadError>> {
        self.pages.fetch_add(1, Ordering::SeqCst);
        let (page, events) = (self.inner.read(read), Arc::clone(&self.events));
        page.inspect(move |page| {
            let count = page.as_ref().map_or(0, |page| page.events.len());
            events.fetch_add(count as u64, Ordering::SeqCst);
        })
        .boxed()
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
