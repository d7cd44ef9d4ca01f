//! The store as its users see it: one small trait, object-safe, with a backend in memory and one on disk; and what every backend
//! can do because of it ([`EventStoreExt`]).
//!
//! All that the store keeps is events. Deletion, limits and snapshots are events too, in streams of the store's own
//! ([`retention`](crate::retention), [`snapshot`](crate::snapshot)), so that a backend has nothing else to make durable, to replicate or
//! to get into an order.

use std::fmt::Debug;
use std::sync::Arc;

use futures::future::BoxFuture;

use crate::append::{Append, AppendError, Committed};
use crate::event::{EventType, Position, StreamName, Version};
use crate::read::{Page, Read, ReadError};
use crate::retention::Retention;

pub use self::ext::{CHANGE_ATTEMPTS, EventStoreExt};

mod ext;
#[cfg(feature = "journal")]
pub mod journal;
pub mod memory;
pub mod signal;

/// An answer under way. It belongs to no runtime: `futures::executor::block_on` waits for it as well as tokio does. Dropping it does
/// not undo what was asked for.
pub type Pending<T> = BoxFuture<'static, T>;

/// A log of events.
///
/// Every backend promises, and [`testing::conformance`](crate::testing::conformance) checks:
///
/// - An append is carried out whole or not at all, and once, however often it is repeated. When its answer is there it is durable.
/// - Positions are dense from 1, versions in a stream dense from 0, and neither ever changes.
/// - A read shows only what is durable, a page is of one moment, and what one page has shown no later one takes back: its order is
///   the order of the log, without gaps that close later.
pub trait EventStore: Debug + Send + Sync + 'static {
    /// Records events, if the append's checks hold. Appends are carried out one at a time, those of one caller in the order of its
    /// calls; none has to be waited for before the next. One with a query that goes far back in the log may be overtaken by later
    /// ones: whoever needs an order there waits for its answer.
    fn append(&self, append: Append) -> Pending<Result<Committed, AppendError>>;

    /// Reads a page.
    fn read(&self, read: Read) -> Pending<Result<Page, ReadError>>;

    /// What is known of a stream; `None` if nothing was ever written to it. That of a deleted stream is still there.
    fn stream(&self, stream: StreamName) -> Pending<Result<Option<StreamInfo>, ReadError>>;

    /// Every event type in the log with each version of its schema, and how many events have it, in order. Events that retention hides
    /// count until their space was taken back.
    fn types(&self) -> Pending<Result<Vec<TypeCount>, ReadError>>;

    /// The last durable position.
    fn head(&self) -> Position;

    /// Waits until the log is longer than `position`, and returns its last position.
    fn wait_beyond(&self, position: Position) -> Pending<Result<Position, ReadError>>;
}

/// What is known of a stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StreamInfo {
    /// Version of the last event ever recorded in it.
    pub last: Version,
    /// Position of that event.
    pub last_position: Position,
    /// Version of the first event that can still be read; one more than `last` if there is none.
    pub first: Version,
    /// What was decided about it.
    pub retention: Retention,
}

/// How many events are of a type and version of its schema.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct TypeCount {
    /// The type.
    pub event_type: EventType,
    /// The version of its schema.
    pub schema: u32,
    /// How many events.
    pub count: u64,
}

impl<S: EventStore + ?Sized> EventStore for Arc<S> {
    fn append(&self, append: Append) -> Pending<Result<Committed, AppendError>> {
        (**self).append(append)
    }

    fn read(&self, read: Read) -> Pending<Result<Page, ReadError>> {
        (**self).read(read)
    }

    fn stream(&self, stream: StreamName) -> Pending<Result<Option<StreamInfo>, ReadError>> {
        (**self).stream(stream)
    }

    fn types(&self) -> Pending<Result<Vec<TypeCount>, ReadError>> {
        (**self).types()
    }

    fn head(&self) -> Position {
        (**self).head()
    }

    fn wait_beyond(&self, position: Position) -> Pending<Result<Position, ReadError>> {
        (**self).wait_beyond(position)
    }
}
