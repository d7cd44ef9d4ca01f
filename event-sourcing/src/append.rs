//! An append: events for any number of streams, recorded together or not at all, if what they demand of the log holds.

use std::sync::Arc;

use crate::condition::{Check, Expected, Query};
use crate::event::{NewEvent, Position, Recorded, StreamName, Version};

pub use crate::error::AppendError;

/// What is to be recorded atomically.
/// ```
/// use event_sourcing::{Append, EventStore, EventType, Expected, MemoryStore, NewEvent, StreamName};
/// use futures::executor::block_on;
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let store = MemoryStore::default();
/// let event = |name| EventType::new(name).map(|name| NewEvent::json(name, "{}"));
/// let transfer = Append::to(StreamName::new("account-1")?, Expected::Any, [event("money.withdrawn")?])
///     .and_to(StreamName::new("account-2")?, Expected::NoStream, [event("money.deposited")?])
///     .key("transfer-1");
/// let committed = block_on(store.append(transfer.clone()))?;
/// assert_eq!((committed.first.0, committed.last.0), (1, 2));
/// // The answer is lost on its way, and the writer asks again.
/// let again = block_on(store.append(transfer))?;
/// assert!(again.repeated);
/// assert_eq!(again.first, committed.first);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Append {
    /// The events, each with its home stream, in the order in which they will stand in the log, one after the other.
    pub events: Vec<(StreamName, NewEvent)>,
    /// All of these must hold of the log before the append.
    pub checks: Vec<Check>,
    /// Names the append as a whole. A second append with the same key is not carried out: if its events say the same (ids and
    /// metadata aside), the first one's result is returned, and else it is an error.
    pub key: Option<IdempotencyKey>,
}

/// Names an append for ever; at most [`KEY_SIZE_MAX`] bytes.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct IdempotencyKey(pub Arc<str>);

/// The longest idempotency key, in bytes.
pub const KEY_SIZE_MAX: usize = 256;

impl Append {
    /// Events for one stream.
    #[must_use]
    pub fn to(
        stream: StreamName,
        expected: Expected,
        events: impl IntoIterator<Item = NewEvent>,
    ) -> Self {
        Self::default().and_to(stream, expected, events)
    }

    /// Adds events for another stream.
    #[must_use]
    pub fn and_to(
        mut self,
        stream: StreamName,
        expected: Expected,
        events: impl IntoIterator<Item = NewEvent>,
    ) -> Self {
        self.events.extend(events.into_iter().map(|event| (stream.clone(), event)));
        if expected != Expected::Any {
            self.checks.push(Check::Stream { stream, expected });
        }
        self
    }

    /// Demands that a stream, which may be one that is not written to, is as expected.
    #[must_use]
    pub fn require(mut self, stream: StreamName, expected: Expected) -> Self {
        self.checks.push(Check::Stream { stream, expected });
        self
    }

    /// Demands that no event after `after` matches `query`.
    #[must_use]
    pub fn fail_if_matches(mut self, query: Query, after: Position) -> Self {
        self.checks.push(Check::NoMatch { query, after });
        self
    }

    /// Names the append.
    #[must_use]
    pub fn key(mut self, key: impl Into<Arc<str>>) -> Self {
        self.key = Some(IdempotencyKey(key.into()));
        self
    }
}

/// What an append came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Committed {
    /// Position of its first event. Its events stand one after the other.
    pub first: Position,
    /// Position of its last event.
    pub last: Position,
    /// Each stream that it wrote to, in order of name, with the version of the last event that it wrote there.
    pub streams: Vec<(StreamName, Version)>,
    /// It had been carried out before: nothing was written now.
    pub repeated: bool,
}

/// Why an append did not meet its checks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conflict {
    /// What did not hold, as many as were found before looking ended; at least one.
    pub failed: Vec<FailedCheck>,
    /// The events that won: those that the failed checks had not reckoned with, in order of position. At most
    /// [`WINNERS_MAX`] events and [`WINNERS_BYTES_MAX`] bytes.
    pub winners: Vec<Arc<Recorded>>,
    /// All winners are there, so that the caller can decide again without reading: up to [`Conflict::head`].
    pub complete: bool,
    /// The last position of the log to which the winners were looked for.
    pub head: Position,
}

/// A check that did not hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FailedCheck {
    /// A stream is not as expected.
    Stream {
        /// The stream.
        stream: StreamName,
        /// What was expected.
        expected: Expected,
        /// The version of its last event; `None` if it has none, or was deleted.
        actual: Option<Version>,
    },
    /// An event matches.
    Match {
        /// The check's place in [`Append::checks`].
        check: usize,
        /// Position of the first match.
        position: Position,
    },
}

/// The most events that a conflict carries.
pub const WINNERS_MAX: usize = 64;
/// The most bytes of events that a conflict carries; one event is carried even if it is larger.
pub const WINNERS_BYTES_MAX: usize = 1 << 20;
