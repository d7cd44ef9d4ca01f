//! What can be asked of a log: a page of a stream, of the whole log, or of the events that match a query.

use std::sync::Arc;

use crate::condition::Query;
use crate::event::{Label, Position, Recorded, StreamName, Timestamp, Version};
use crate::filter::Filter;

pub use crate::error::ReadError;

/// A request for one page.
/// ```
/// use event_sourcing::read::From;
/// use event_sourcing::{EventStore, Filter, MemoryStore, Position, Read, Source};
/// use futures::executor::block_on;
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let store = MemoryStore::default();
/// let without_the_stores_own = Filter { exclude_system: true, ..Filter::default() };
/// let mut read = Read::forward(Source::All).from(From::Position(Position(1))).filter(without_the_stores_own);
/// loop {
///     let page = block_on(store.read(read.clone()))?;
///     for event in &page.events {
///         println!("{} {}", event.position, event.event.event_type);
///     }
///     let Some(next) = page.next else { break };
///     read = read.from(next);
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Read {
    /// Which events.
    pub source: Source,
    /// From where; the event there is part of the page.
    pub from: From,
    /// In which direction.
    pub direction: Direction,
    /// Of those, the ones that pass this.
    pub filter: Filter,
    /// The most events in the page; at least one.
    pub count_max: usize,
    /// The most bytes of content in the page; one event is returned even if it is larger.
    pub bytes_max: usize,
}

/// Which events a read is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// Those of one stream, in order of version.
    Stream(StreamName),
    /// All, in order of position.
    All,
    /// Those that match a query, in order of position.
    Query(Query),
}

/// Where a read begins. Beyond the last event it finds nothing, which is no error; going backward, all events are before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum From {
    /// At the first event, or going backward at the last.
    Edge,
    /// At this version, in a stream.
    Version(Version),
    /// At this position, in any source.
    Position(Position),
    /// At the first event of this time or later; going backward, at the last event before or at this time.
    Time(Timestamp),
}

/// The direction of a read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// Towards later events.
    Forward,
    /// Towards earlier events.
    Backward,
}

/// The usual size of a page in events.
pub const PAGE_COUNT: usize = 512;
/// The usual size of a page in bytes.
pub const PAGE_BYTES: usize = 1 << 20;

impl Read {
    /// A source from its beginning forward, in pages of the usual size.
    #[must_use]
    pub fn forward(source: Source) -> Self {
        Self {
            source,
            from: From::Edge,
            direction: Direction::Forward,
            filter: Filter::default(),
            count_max: PAGE_COUNT,
            bytes_max: PAGE_BYTES,
        }
    }

    /// A source from its end backward, in pages of the usual size.
    #[must_use]
    pub fn backward(source: Source) -> Self {
        Self { direction: Direction::Backward, ..Self::forward(source) }
    }

    /// Sets where to begin.
    #[must_use]
    pub fn from(mut self, from: From) -> Self {
        self.from = from;
        self
    }

    /// Sets the most events in the page.
    #[must_use]
    pub fn count(mut self, count_max: usize) -> Self {
        self.count_max = count_max;
        self
    }

    /// Sets the filter.
    #[must_use]
    pub fn filter(mut self, filter: Filter) -> Self {
        self.filter = filter;
        self
    }

    /// The events with a label, forward.
    #[must_use]
    pub fn label(label: Label) -> Self {
        let item = crate::condition::QueryItem::labels([label]);
        Self::forward(Source::Query(Query::item(item)))
    }
}

/// A page of events.
#[derive(Clone, Debug)]
pub struct Page {
    /// The events, in the direction of the read. It may be short, and even empty, before the end: work per page is bounded, and a
    /// filter may let nothing through.
    pub events: Vec<Arc<Recorded>>,
    /// Where the next page begins; `None` at the end of what there was.
    pub next: Option<From>,
    /// Every match up to this position (going backward: down to it) is in this page or an earlier one: what a checkpoint may say.
    /// Going forward to the end it is [`Page::head`], and going backward to the end [`Position::BEGINNING`].
    pub scanned: Position,
    /// The last position of the log when the page was read. Later events are not in it.
    pub head: Position,
}
