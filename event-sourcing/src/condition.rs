//! What an append may demand of the log before it: expected versions and queries (Dynamic Consistency Boundaries, dcb.events).
//!
//! Both are the same kind of demand, evaluated by the one evaluator in [`machine`](crate::machine): an expected version says that a
//! stream has not moved since its writer looked, a query that nothing has been recorded since that the writer's decision would have
//! depended on.

use serde::{Deserialize, Serialize};

use crate::error::InvalidName;
use crate::event::{EventType, Label, NewEvent, Position, StreamName, Version};

/// What is expected of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Expected {
    /// Nothing.
    Any,
    /// It has no event, or was deleted since: softly, or closed by a tombstone, after which it cannot be written to in any case.
    NoStream,
    /// It has an event.
    StreamExists,
    /// Its last event has this version. True of a softly deleted stream too, for its numbering goes on; never of a closed one.
    Exact(Version),
}

/// One demand.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Check {
    /// A stream is as expected. The append need not write to it.
    Stream {
        /// The stream.
        stream: StreamName,
        /// What is expected of it.
        expected: Expected,
    },
    /// No event after `after` matches the query.
    NoMatch {
        /// The query.
        query: Query,
        /// What the writer has seen: the position up to which it had read.
        after: Position,
    },
}

/// Events of interest: those that match any of the items. A query without items matches every event.
///
/// The store's own events, whose type begins with `$`, match no query.
/// ```
/// use event_sourcing::{Append, AppendError, EventStore, EventType, Expected, Label, MemoryStore};
/// use event_sourcing::{NewEvent, Position, Query, QueryItem, StreamName};
/// use futures::executor::block_on;
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let store = MemoryStore::default();
/// let claim = || -> Result<Append, Box<dyn std::error::Error>> {
///     let taken = Query::item(QueryItem::of(["name.claimed"], ["name:ada"])?);
///     let event = NewEvent::json(EventType::new("name.claimed")?, "{}").label(Label::new("name:ada")?);
///     let append = Append::to(StreamName::new("names")?, Expected::Any, [event]);
///     Ok(append.fail_if_matches(taken, Position::BEGINNING))
/// };
/// block_on(store.append(claim()?))?;
/// assert!(matches!(block_on(store.append(claim()?)), Err(AppendError::Conflict(_))));
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Query {
    /// The alternatives; at most [`QUERY_ITEMS_MAX`].
    pub items: Vec<QueryItem>,
}

/// Events that have any of the types *and* all of the labels.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct QueryItem {
    /// Any of these; none means any type.
    pub types: Vec<EventType>,
    /// All of these. `stream:NAME` stands for the home stream NAME, if no event bears it as a label of its own.
    pub labels: Vec<Label>,
}

/// The most items of a query.
pub const QUERY_ITEMS_MAX: usize = 64;
/// The most types and labels of a query in all.
pub const QUERY_TERMS_MAX: usize = 1024;
/// With this prefix a label of a query names a home stream. Events must not bear such labels.
pub const STREAM_LABEL: &str = "stream:";

impl Query {
    /// Every event.
    #[must_use]
    pub fn all() -> Self {
        Self::default()
    }

    /// Events that match one item.
    #[must_use]
    pub fn item(item: QueryItem) -> Self {
        Self { items: vec![item] }
    }

    /// Adds an alternative.
    #[must_use]
    pub fn or(mut self, item: QueryItem) -> Self {
        self.items.push(item);
        self
    }

    /// Whether an event in `stream` matches. `event.labels` need not be sorted.
    #[must_use]
    pub fn matches(&self, stream: &StreamName, event: &NewEvent) -> bool {
        !event.event_type.is_system()
            && (self.items.is_empty() || self.items.iter().any(|item| item.matches(stream, event)))
    }
}

impl QueryItem {
    /// Events of any of these types with all of these labels, both by name.
    ///
    /// # Errors
    ///
    /// If a name cannot be one.
    pub fn of<T: AsRef<str>, L: AsRef<str>>(
        types: impl IntoIterator<Item = T>,
        labels: impl IntoIterator<Item = L>,
    ) -> Result<Self, InvalidName> {
        Ok(Self {
            types: types.into_iter().map(EventType::new).collect::<Result<_, _>>()?,
            labels: labels.into_iter().map(Label::new).collect::<Result<_, _>>()?,
        })
    }

    /// Events of any of these types.
    #[must_use]
    pub fn types(types: impl IntoIterator<Item = EventType>) -> Self {
        Self { types: types.into_iter().collect(), labels: Vec::new() }
    }

    /// Events with all of these labels.
    #[must_use]
    pub fn labels(labels: impl IntoIterator<Item = Label>) -> Self {
        Self { types: Vec::new(), labels: labels.into_iter().collect() }
    }

    /// Demands a label as well.
    #[must_use]
    pub fn and(mut self, label: Label) -> Self {
        self.labels.push(label);
        self
    }

    fn matches(&self, stream: &StreamName, event: &NewEvent) -> bool {
        let has = |label: &Label| {
            event.labels.contains(label)
                || label.as_str().strip_prefix(STREAM_LABEL) == Some(stream.as_str())
        };
        (self.types.is_empty() || self.types.contains(&event.event_type))
            && self.labels.iter().all(has)
    }
}
