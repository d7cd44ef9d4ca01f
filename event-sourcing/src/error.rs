//! What can go wrong: one enum for each call that a user makes, with variants that the user can act on.

use std::sync::Arc;

use thiserror::Error;

use crate::append::Conflict;
use crate::event::{EventId, NAME_SIZE_MAX, Position, StreamName};

/// A name that cannot be one.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum InvalidName {
    /// It is empty.
    #[error("the name of a {what} must not be empty")]
    Empty {
        /// What it was to name.
        what: &'static str,
    },
    /// It is too long.
    #[error("the name of a {what} has {size} bytes, and may have {NAME_SIZE_MAX}")]
    TooLong {
        /// What it was to name.
        what: &'static str,
        /// Its length in bytes.
        size: usize,
    },
    /// It has a control character in it.
    #[error("the name of a {what} has a control character in it, at byte {at}")]
    Control {
        /// What it was to name.
        what: &'static str,
        /// Where.
        at: usize,
    },
    /// A stream whose name begins with `$$` has no such stream itself.
    #[error("a stream that describes another has none that describes it")]
    MetadataOfMetadata,
}

/// Why nothing was recorded.
///
/// After any of these but [`AppendError::Unknown`] it is certain that the append has not taken effect.
#[derive(Clone, Debug, Error)]
#[non_exhaustive]
pub enum AppendError {
    /// A check did not hold. The winners are inside: decide again.
    #[error("the log has moved on: {} of the append's checks do not hold", .0.failed.len())]
    Conflict(Box<Conflict>),
    /// Some events of the append are recorded and others are not, or not in that order: it is not a repetition.
    #[error(
        "event {id} is in stream {stream} already, at position {position}, and others of this append are not"
    )]
    PartlyRecorded {
        /// The first that is recorded.
        id: EventId,
        /// Its stream.
        stream: StreamName,
        /// Its position.
        position: Position,
    },
    /// The event's id is taken, in this stream, by an event that says something else.
    #[error("event id {id} is taken in stream {stream} by another event, at position {position}")]
    IdReused {
        /// The id.
        id: EventId,
        /// The stream.
        stream: StreamName,
        /// Position of the event that has it.
        position: Position,
    },
    /// The idempotency key is taken by an append that says something else.
    #[error("the idempotency key is taken by another append, at position {position}")]
    KeyReused {
        /// Position of the first event of the append that has it.
        position: Position,
    },
    /// The append's events are recorded, by one that did not have the key which this one has. A key is recorded with its events or
    /// not at all, so answering that this is a repetition would leave the key free for something else.
    #[error(
        "the events are recorded already, from position {position} on, without this idempotency key"
    )]
    KeyMissing {
        /// Position of the first event.
        position: Position,
    },
    /// The stream was closed for ever.
    #[error("stream {stream} has a tombstone: nothing can be written to it any more")]
    Tombstoned {
        /// The stream.
        stream: StreamName,
    },
    /// The append is not one: what is wrong with it is said in words.
    #[error("the append is invalid: {0}")]
    Invalid(InvalidAppend),
    /// Too much is under way. Try again after a moment.
    #[error("the store has {waiting} bytes of appends under way: try again after a moment")]
    Busy {
        /// Bytes that wait.
        waiting: usize,
    },
    /// The disk is full. Reads go on, and so do appends as soon as there is room.
    #[error("the disk is full")]
    DiskFull,
    /// The log has to be read to answer, and could not be.
    #[error("the log could not be read")]
    Read(#[source] ReadError),
    /// The store failed, or was closed, while the append was under way: it may or may not be recorded. Open the store again and
    /// repeat the append: with the same ids it takes effect once.
    #[error(
        "the store failed while the append was under way: whether it was recorded is not known"
    )]
    Unknown(#[source] Failure),
    /// The store has failed or is closed.
    #[error("the store takes no more appends")]
    Failed(#[source] Failure),
}

/// What is wrong with an append.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum InvalidAppend {
    /// It has no events.
    #[error("it has no events")]
    Empty,
    /// An event is too large.
    #[error("event {index} has {size} bytes, and may have {limit}")]
    EventTooLarge {
        /// Its place in the append.
        index: usize,
        /// Its size in bytes.
        size: usize,
        /// What it may have.
        limit: usize,
    },
    /// All of it is too large.
    #[error("it has {size} bytes, and may have {limit}")]
    TooLarge {
        /// Its size in bytes.
        size: usize,
        /// What it may have.
        limit: usize,
    },
    /// Too many of something.
    #[error("it has {count} {what}, and may have {limit}")]
    TooMany {
        /// Of what.
        what: &'static str,
        /// How many.
        count: usize,
        /// What it may have.
        limit: usize,
    },
    /// Its idempotency key is empty.
    #[error("its idempotency key is empty")]
    EmptyKey,
    /// Versions of schemas count from 1.
    #[error("event {index} has schema version 0, and they count from 1")]
    SchemaZero {
        /// Its place in the append.
        index: usize,
    },
    /// A position that no event has yet was given as seen.
    #[error("a check is after position {after}, and the log ends at {head}")]
    AfterHead {
        /// The position given.
        after: Position,
        /// The last one there is.
        head: Position,
    },
    /// An id is in it twice for one stream.
    #[error("event id {id} is in it twice for stream {stream}")]
    DuplicateId {
        /// The id.
        id: EventId,
        /// The stream.
        stream: StreamName,
    },
    /// A stream or type that is the store's own was written to by somebody else, or in a way that makes no sense.
    #[error("{0}")]
    Reserved(String),
}

/// Why nothing was read.
#[derive(Clone, Debug, Error)]
#[non_exhaustive]
pub enum ReadError {
    /// The stream has no events, or was softly deleted.
    #[error("there is no stream {stream}")]
    NoStream {
        /// The stream.
        stream: StreamName,
    },
    /// The stream was closed for ever.
    #[error("stream {stream} has a tombstone")]
    Tombstoned {
        /// The stream.
        stream: StreamName,
    },
    /// What was asked for makes no sense: said in words.
    #[error("the read is invalid: {0}")]
    Invalid(String),
    /// Events are damaged on the disk. What is before and after them can be read.
    #[error("the events from position {first} to {last} are damaged")]
    Damaged {
        /// The first damaged position.
        first: Position,
        /// The last damaged position.
        last: Position,
    },
    /// The disk could not be read.
    #[error("the disk could not be read")]
    Io(#[source] Arc<std::io::Error>),
    /// The store has failed or is closed.
    #[error("the store is closed")]
    Closed,
}

/// Why a store has ended.
#[derive(Clone, Debug, Error)]
#[error("{message}")]
pub struct Failure {
    /// In words, with the file.
    pub message: Arc<str>,
    /// What the disk said.
    #[source]
    pub cause: Option<Arc<std::io::Error>>,
}
