//! The store's decisions, as a pure state machine: whether an append's checks hold, whether it is a repetition, and which places its
//! events get. Every backend runs it, and a Raft group will.
//!
//! What it has to know of the events so far it asks an [`Index`], of which each backend has its own.

use std::sync::Arc;

use crate::append::IdempotencyKey;
use crate::event::{EventId, EventType, Label, Position, Recorded, StreamName, Version};
use crate::read::{Direction, ReadError};

/// What is known of the events so far, those included that were applied and are not durable yet.
pub trait Index {
    /// The cursor over the places of a term.
    type Postings<'a>: Postings
    where
        Self: 'a;

    /// The last position.
    fn head(&self) -> Position;

    /// The last event of a stream, by version and position, whether it is visible or not.
    fn last_of(&self, stream: &StreamName) -> Result<Option<(Version, Position)>, ReadError>;

    /// Where the event with this id stands, if the stream has it.
    fn find_id(&self, stream: &StreamName, id: EventId) -> Result<Option<Position>, ReadError>;

    /// Where the append with this key begins, if there was one.
    fn find_key(&self, key: &IdempotencyKey) -> Result<Option<Position>, ReadError>;

    /// Positions of events that have a term, beginning at `from`, in a direction. An index that goes by hashes may name others as
    /// well: whoever asks looks at the event itself.
    fn postings(
        &self,
        term: Term<'_>,
        from: Position,
        direction: Direction,
    ) -> Result<Self::Postings<'_>, ReadError>;

    /// Position of the event with a version of a stream.
    fn position_of(
        &self,
        stream: &StreamName,
        version: Version,
    ) -> Result<Option<Position>, ReadError>;

    /// The event at a position.
    fn event(&self, position: Position) -> Result<Entry, ReadError>;

    /// Takes in an event that was applied. Its position is the one after the head.
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
    /// The first position at or beyond `at` in the direction of the cursor, without moving back behind what was returned before.
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

/// What is left of an event whose space was taken back: enough to keep numbering, idempotency and the hash chain as they were.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stub {
    /// Its position.
    pub position: Position,
    /// Its home stream.
    pub stream: StreamName,
    /// Its version.
    pub version: Version,
    /// Its id.
    pub id: EventId,
    /// A digest of what it said, for telling a repetition from a reused id: see
    /// [`content_digest`](crate::record::content_digest).
    pub content: u64,
    /// Its leaf in the hash chain.
    pub leaf: [u8; 32],
}
