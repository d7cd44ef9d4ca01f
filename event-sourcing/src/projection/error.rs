//! What can go wrong with a projection.

use thiserror::Error;

use super::sink::SinkError;
use crate::error::InvalidName;
use crate::event::{EventType, Position, StreamName};
use crate::read::ReadError;

/// Why a projection does not go on.
#[derive(Clone, Debug, Error)]
#[non_exhaustive]
pub enum ProjectionError {
    /// A handler failed, and the projection says that it stops then.
    #[error(
        "the handler of {event_type} failed at position {position} (stream {stream}), {attempts} times: {message}"
    )]
    Handler {
        /// Position of the event.
        position: Position,
        /// Its stream.
        stream: StreamName,
        /// Its type.
        event_type: EventType,
        /// How often it was tried.
        attempts: u32,
        /// What the handler said, or what it panicked with.
        message: String,
    },
    /// As many events are parked as may be, and one more should be.
    #[error("{parked} events are parked, and no more may be: {message}")]
    ParkedFull {
        /// How many are parked.
        parked: usize,
        /// Why one more should be.
        message: String,
    },
    /// A command of a process failed, and the process says that it stops then.
    #[error(
        "command {number} that the event at position {position} caused failed {attempts} times: {message}"
    )]
    Command {
        /// Position of the event.
        position: Position,
        /// The command's place among those that the event caused.
        number: u32,
        /// How often it was tried since it was last put into the outbox.
        attempts: u32,
        /// Why it failed.
        message: String,
    },
    /// Another build has taken the place of this one, or another runner works on it.
    #[error("another runner has taken over")]
    Superseded,
    /// The sink has failed.
    #[error("the read model cannot be kept")]
    Sink(#[from] SinkError),
    /// The log could not be read.
    #[error("the log could not be read")]
    Read(#[from] ReadError),
    /// An event type that it handles cannot be one.
    #[error("the projection is none")]
    Name(#[from] InvalidName),
    /// Its name or its version is empty or too long.
    #[error("the {what} of a projection has {size} bytes, and must have 1 to {limit}")]
    Length {
        /// Name or version.
        what: &'static str,
        /// Its length in bytes.
        size: usize,
        /// What it may have.
        limit: usize,
    },
}

/// Why a projection was waited for in vain.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum WaitError {
    /// It has not come so far in time.
    #[error("the projection is at position {position}, and not yet where it was waited for")]
    Late {
        /// Where it is.
        position: Position,
    },
    /// It has ended before.
    #[error("the projection has ended at position {position}")]
    Ended {
        /// Where.
        position: Position,
    },
}
