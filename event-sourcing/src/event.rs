//! What an event is: the words that every other module uses.
//!
//! An event is proposed as a [`NewEvent`] and, once it has its place, known as a [`Recorded`] one. It has exactly one *home
//! stream*, in which its *version* counts from 0 without a gap, and one *position* in the whole log, which counts from 1. *Labels*
//! are a namespace of their own: any number of them mark an event for queries across streams (the *tags* of Dynamic Consistency
//! Boundaries, dcb.events).

use std::borrow::Borrow;
use std::fmt;
use std::num::NonZeroU64;
use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::error::InvalidName;

/// The place of an event in the whole log, from 1.
///
/// As a bound ("after this position") 0 stands for the beginning: [`Position::BEGINNING`].
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct Position(pub u64);

impl Position {
    /// Before every event.
    pub const BEGINNING: Self = Self(0);

    /// The position after this one.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0 + 1)
    }

    /// As a position that an event has; `None` for the beginning.
    #[must_use]
    pub fn of_event(self) -> Option<NonZeroU64> {
        NonZeroU64::new(self.0)
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The place of an event in its home stream, from 0.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct Version(pub u64);

impl Version {
    /// The version after this one.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Milliseconds since the Unix epoch.
///
/// The store stamps each event with the greater of its clock and the last event's time, so time never goes back in a log.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct Timestamp(pub u64);

/// Who an event is: drawn by its writer, and the key to idempotency. The same id written twice into one stream is one event.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct EventId(pub Uuid);

impl EventId {
    /// A new random id.
    #[must_use]
    pub fn random() -> Self {
        Self(Uuid::new_v4())
    }

    /// The id that `name` always has within `space`: for writers that must draw the same id again when they retry.
    #[must_use]
    pub fn derived(space: Uuid, name: &[u8]) -> Self {
        Self(Uuid::new_v5(&space, name))
    }
}

impl fmt::Debug for EventId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl fmt::Display for EventId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

/// A name of at most [`NAME_SIZE_MAX`] bytes, cheap to clone.
macro_rules! name {
    ($(#[$doc:meta])* $name:ident, $what:literal) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(Arc<str>);

        impl $name {
            /// Checks a name and takes it.
            ///
            /// # Errors
            ///
            /// If it is empty, longer than [`NAME_SIZE_MAX`] bytes, or has a control character in it.
            pub fn new(name: impl AsRef<str>) -> Result<Self, InvalidName> {
                let name = name.as_ref();
                check_name($what, name)?;
                Ok(Self(name.into()))
            }

            /// The name.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }

            /// Whether it is one of the store's own: those begin with `$`.
            #[must_use]
            pub fn is_system(&self) -> bool {
                self.0.starts_with('$')
            }
        }

        impl Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }

        impl TryFrom<&str> for $name {
            type Error = InvalidName;

            fn try_from(name: &str) -> Result<Self, InvalidName> {
                Self::new(name)
            }
        }

        impl TryFrom<String> for $name {
            type Error = InvalidName;

            fn try_from(name: String) -> Result<Self, InvalidName> {
                Self::new(name)
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> Self {
                name.0.as_ref().to_owned()
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(&*self.0, f)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }
    };
}

name!(
    /// The name of a stream. `$$name` is the stream that holds what was decided about the stream `name`: see
    /// [`retention`](crate::retention).
    StreamName,
    "stream"
);
name!(
    /// The name of an event type: an explicit string such as `account.opened`, never the name of a Rust type, for it outlives the
    /// program. Types that begin with `$` are the store's own: queries and conditions do not see them.
    EventType,
    "event type"
);
name!(
    /// A label of an event, such as `course:c1`: what queries across streams ask for.
    Label,
    "label"
);

/// The longest name of a stream, a type or a label, in bytes.
pub const NAME_SIZE_MAX: usize = 1024;

fn check_name(what: &'static str, name: &str) -> Result<(), InvalidName> {
    if name.is_empty() {
        return Err(InvalidName::Empty { what });
    }
    if name.len() > NAME_SIZE_MAX {
        return Err(InvalidName::TooLong { what, size: name.len() });
    }
    match name.char_indices().find(|(_, char)| char.is_control()) {
        Some((at, _)) => Err(InvalidName::Control { what, at }),
        None => Ok(()),
    }
}

impl StreamName {
    /// The stream that holds what was decided about this one: truncation, limits, deletion.
    ///
    /// # Errors
    ///
    /// If this is itself such a stream, or if the name would be too long.
    pub fn metadata_stream(&self) -> Result<Self, InvalidName> {
        if self.0.starts_with("$$") {
            return Err(InvalidName::MetadataOfMetadata);
        }
        Self::new(format!("$${}", self.0))
    }

    /// The name of the stream that this stream holds decisions about, if it does.
    #[must_use]
    pub fn described_stream(&self) -> Option<&str> {
        self.0.strip_prefix("$$")
    }
}

/// What the bytes of an event are.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum ContentType {
    /// UTF-8 JSON: `application/json`.
    Json,
    /// Any bytes: `application/octet-stream`.
    Bytes,
    /// Postcard 1: `application/vnd.postcard`.
    Postcard,
    /// bincode 2 in its standard configuration: `application/vnd.bincode2`.
    Bincode,
    /// Any other media type.
    Other(Box<str>),
}

impl ContentType {
    /// The media type.
    #[must_use]
    pub fn as_str(&self) -> &str {
        match self {
            Self::Json => "application/json",
            Self::Bytes => "application/octet-stream",
            Self::Postcard => "application/vnd.postcard",
            Self::Bincode => "application/vnd.bincode2",
            Self::Other(name) => name,
        }
    }
}

impl fmt::Display for ContentType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What accompanies an event's content. All of it is for people and programs that follow events; the store looks at none of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Metadata {
    /// The conversation that the event belongs to.
    pub correlation: Option<Box<str>>,
    /// What caused it: the id of an event or of a command.
    pub causation: Option<Box<str>>,
    /// On whose behalf.
    pub user: Option<Box<str>>,
    /// Anything else, by convention JSON.
    pub custom: Bytes,
}

/// An event as its writer proposes it.
/// ```
/// use event_sourcing::{EventType, Label, NewEvent};
///
/// # fn main() -> Result<(), event_sourcing::error::InvalidName> {
/// let event = NewEvent::json(EventType::new("student.subscribed")?, r#"{"student":"s1","course":"c1"}"#)
///     .label(Label::new("student:s1")?)
///     .label(Label::new("course:c1")?);
/// assert_eq!(event.schema, 1);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewEvent {
    /// Its id.
    pub id: EventId,
    /// Its type.
    pub event_type: EventType,
    /// The version of the type's schema, from 1.
    pub schema: u32,
    /// What `data` is.
    pub content_type: ContentType,
    /// The content.
    pub data: Bytes,
    /// What accompanies it.
    pub metadata: Metadata,
    /// Its labels, in any order; those named twice count once.
    pub labels: Vec<Label>,
}

impl NewEvent {
    /// An event with a random id, JSON content, schema version 1, and nothing else.
    #[must_use]
    pub fn json(event_type: EventType, data: impl Into<Bytes>) -> Self {
        Self::with_content(event_type, ContentType::Json, data)
    }

    /// An event with a random id, bytes as content, schema version 1, and nothing else.
    #[must_use]
    pub fn bytes(event_type: EventType, data: impl Into<Bytes>) -> Self {
        Self::with_content(event_type, ContentType::Bytes, data)
    }

    fn with_content(
        event_type: EventType,
        content_type: ContentType,
        data: impl Into<Bytes>,
    ) -> Self {
        Self::new(EventId::random(), event_type, content_type, data)
    }

    /// An event with an id that is known already, schema version 1, and nothing else. Drawing one takes a call of the system.
    #[must_use]
    pub fn new(
        id: EventId,
        event_type: EventType,
        content_type: ContentType,
        data: impl Into<Bytes>,
    ) -> Self {
        Self {
            id,
            event_type,
            schema: 1,
            content_type,
            data: data.into(),
            metadata: Metadata::default(),
            labels: Vec::new(),
        }
    }

    /// Adds a label.
    #[must_use]
    pub fn label(mut self, label: Label) -> Self {
        self.labels.push(label);
        self
    }

    /// Sets the id.
    #[must_use]
    pub fn id(mut self, id: EventId) -> Self {
        self.id = id;
        self
    }
}

/// An event in its place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recorded {
    /// Its place in the whole log.
    pub position: Position,
    /// Its home stream.
    pub stream: StreamName,
    /// Its place in the home stream.
    pub version: Version,
    /// When it was recorded, by the store's clock.
    pub timestamp: Timestamp,
    /// Its place in the append that wrote it, from 0, and the number of events in that append: both bounds of what was atomic.
    pub place: AppendPlace,
    /// The event. Its labels are sorted, each there once.
    pub event: NewEvent,
}

/// The place of an event among those that one append wrote together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AppendPlace {
    /// From 0.
    pub index: u32,
    /// How many events the append wrote.
    pub count: u32,
}

impl Recorded {
    /// Position of the first event of the append that wrote this one.
    #[must_use]
    pub fn append_start(&self) -> Position {
        Position(self.position.0 - u64::from(self.place.index))
    }
}
