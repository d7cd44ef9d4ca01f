//! What the machine and the page reader have to know of a log. Each backend has its own way of knowing it.

use std::ops::Range;
use std::sync::Arc;

use crate::append::IdempotencyKey;
use crate::event::{
    AppendPlace, EventId, EventType, Label, Position, Recorded, StreamName, Timestamp, Version,
};
use crate::read::{Direction, ReadError};
use crate::retention::Retention;

/// A log up to its [`head`](Self::head), as of one moment.
///
/// The machine that decides about appends looks at one whose head is the last event that was *applied*; whoever reads for a user at
/// one whose head is *durable*. Nothing beyond the head may show in any answer.
pub trait Index {
    /// The cursor over the places of a term.
    type Postings<'a>: Postings
    where
        Self: 'a;

    /// The last position.
    fn head(&self) -> Position;

    /// The time of the last event; 0 if there is none. Ages are measured against it.
    fn time(&self) -> Result<Timestamp, ReadError> {
        match self.head() {
            Position::BEGINNING => Ok(Timestamp(0)),
            head => Ok(self.event(head)?.timestamp()),
        }
    }

    /// The last event of a stream, by version and position, whether it is visible or not.
    fn last_of(&self, stream: &StreamName) -> Result<Option<(Version, Position)>, ReadError>;

    /// What was decided about a stream. A backend may have a quicker way than to look at the last event of `$$stream`.
    fn retention(&self, stream: &StreamName) -> Result<Retention, ReadError> {
        let Ok(describing) = stream.metadata_stream() else {
            return Ok(Retention::default());
        };
        let Some((_, position)) = self.last_of(&describing)? else {
            return Ok(Retention::default());
        };
        match self.event(position)? {
            Entry::Event(recorded) => Ok(Retention::decided_by(&recorded.event)),
            // The last event of such a stream is always visible, and so its space is never taken back.
            Entry::Scavenged(_) => Err(ReadError::Damaged { first: position, last: position }),
        }
    }

    /// Where the event with this id stands, if the stream has it. Exact, whatever the index goes by.
    fn find_id(&self, stream: &StreamName, id: EventId) -> Result<Option<Position>, ReadError>;

    /// Where the append with this key begins, if there was one. Exact, whatever the index goes by.
    fn find_key(&self, key: &IdempotencyKey) -> Result<Option<Position>, ReadError>;

    /// Positions of events that have a term, beginning at `from`, in a direction. An index that goes by hashes may name others as
    /// well: whoever asks looks at the event itself. Events whose space was taken back need not be named.
    fn postings(
        &self,
        term: Term<'_>,
        from: Position,
        direction: Direction,
    ) -> Result<Self::Postings<'_>, ReadError>;

    /// Position of the event with a version of a stream; `None` beyond the last.
    fn position_of(
        &self,
        stream: &StreamName,
        version: Version,
    ) -> Result<Option<Position>, ReadError>;

    /// The first position whose event is of this time or later; the one after the head if there is none.
    fn first_at(&self, time: Timestamp) -> Result<Position, ReadError> {
        first_at_within(self, time, 1..self.head().0 + 1)
    }

    /// The first position at or beyond `at`, in a direction, of which it is not known what stood there, because it is damaged. Any event
    /// may have, and so no search may pass over it in silence.
    fn lost(&self, at: Position, direction: Direction) -> Option<Position> {
        let _ = (at, direction);
        None
    }

    /// The event at a position, which is from 1 to the head.
    fn event(&self, position: Position) -> Result<Entry, ReadError>;
}

/// [`Index::first_at`], if it is known to be one of `positions` or the one behind them. A lost event is as old as the next one that can
/// be read, as far as anybody can tell: so whoever reads on from the answer comes to the lost ones that may be meant.
pub(crate) fn first_at_within<I: Index + ?Sized>(
    index: &I,
    time: Timestamp,
    positions: Range<u64>,
) -> Result<Position, ReadError> {
    let Range { start: mut low, end: mut high } = positions;
    while low < high {
        let middle = low + (high - low) / 2;
        let mut known = middle;
        let is_earlier = loop {
            if known >= high {
                break false;
            }
            match index.event(Position(known)) {
                Ok(entry) => break entry.timestamp() < time,
                Err(ReadError::Damaged { last, .. }) => known = last.0.max(known).saturating_add(1),
                Err(error) => return Err(error),
            }
        };
        if is_earlier {
            low = known + 1;
        } else {
            high = middle;
        }
    }
    Ok(Position(low))
}

/// An index that events are added to.
pub trait IndexMut: Index {
    /// Takes in an event that was applied. Its position is the one after the head. `key` comes with the first event of an append.
    fn insert(&mut self, recorded: &Arc<Recorded>, key: Option<&IdempotencyKey>);
}

/// What events are found by.
#[derive(Clone, Copy, Debug)]
pub enum Term<'a> {
    /// Events of a type.
    Type(&'a EventType),
    /// Events with a label.
    Label(&'a Label),
    /// Events of a home stream.
    Stream(&'a StreamName),
}

/// Positions in order, forward or backward.
pub trait Postings {
    /// The first position at or beyond `at` in the direction of the cursor. `at` never moves against that direction from one call to
    /// the next.
    fn seek(&mut self, at: Position) -> Result<Option<Position>, ReadError>;
}

/// What stands at a position.
#[derive(Clone, Debug)]
pub enum Entry {
    /// An event.
    Event(Arc<Recorded>),
    /// What is left of an event whose space was taken back.
    Scavenged(Stub),
}

/// What is left of an event whose space was taken back: enough to keep numbering, idempotency, time and the hash chain as they were.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stub {
    /// Its position.
    pub position: Position,
    /// Its home stream.
    pub stream: StreamName,
    /// Its version.
    pub version: Version,
    /// When it was recorded.
    pub timestamp: Timestamp,
    /// Its place in the append that wrote it.
    pub place: AppendPlace,
    /// Its id.
    pub id: EventId,
    /// A digest of what it said, for telling a repetition from a reused id: see
    /// [`content_digest`](crate::record::content_digest).
    pub content: u64,
    /// Its leaf in the hash chain.
    pub leaf: [u8; 32],
}

impl Entry {
    /// Its position.
    #[must_use]
    pub fn position(&self) -> Position {
        match self {
            Self::Event(recorded) => recorded.position,
            Self::Scavenged(stub) => stub.position,
        }
    }

    /// Its home stream.
    #[must_use]
    pub fn stream(&self) -> &StreamName {
        match self {
            Self::Event(recorded) => &recorded.stream,
            Self::Scavenged(stub) => &stub.stream,
        }
    }

    /// Its version.
    #[must_use]
    pub fn version(&self) -> Version {
        match self {
            Self::Event(recorded) => recorded.version,
            Self::Scavenged(stub) => stub.version,
        }
    }

    /// When it was recorded.
    #[must_use]
    pub fn timestamp(&self) -> Timestamp {
        match self {
            Self::Event(recorded) => recorded.timestamp,
            Self::Scavenged(stub) => stub.timestamp,
        }
    }

    /// Its place in the append that wrote it.
    #[must_use]
    pub fn place(&self) -> AppendPlace {
        match self {
            Self::Event(recorded) => recorded.place,
            Self::Scavenged(stub) => stub.place,
        }
    }

    /// Its id.
    #[must_use]
    pub fn id(&self) -> EventId {
        match self {
            Self::Event(recorded) => recorded.event.id,
            Self::Scavenged(stub) => stub.id,
        }
    }

    /// The digest of what it says or said.
    #[must_use]
    pub fn content(&self) -> u64 {
        match self {
            Self::Event(recorded) => crate::record::content_digest(&recorded.event),
            Self::Scavenged(stub) => stub.content,
        }
    }
}
