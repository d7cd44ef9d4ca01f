//! How what an event says becomes bytes, and bytes what it said.
//!
//! Every event carries its content type, so one log may hold several formats, and a program that writes one of them today still
//! reads what it wrote yesterday. That is why [`Codec`] is a closed list: each one must be known to every later program. A type of
//! event that brings bytes of its own does so in its [`DomainEvent`](crate::decider::DomainEvent).
//!
//! ```
//! use event_sourcing::Codec;
//!
//! # fn main() -> Result<(), event_sourcing::codec::CodecError> {
//! assert_eq!(Codec::Json.encode(&("cents", 5))?.as_ref(), br#"["cents",5]"#);
//! assert_eq!(Codec::Json.content_type().as_str(), "application/json");
//! # Ok(())
//! # }
//! ```

use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;
use thiserror::Error;

use crate::event::{ContentType, EventType};

pub use crate::error::InvalidName;

/// A format of content.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Codec {
    /// JSON: larger, and readable with any tool for as long as there are computers.
    #[default]
    Json,
    /// Postcard 1: compact. Fields are known by their order, so any change to a type is a new version of its schema.
    Postcard,
    /// bincode 2 in its standard configuration. It is no longer maintained: for data that is in it already.
    #[cfg(feature = "bincode-codec")]
    Bincode,
}

/// The most memory that a value in bincode may make its reader take at once, in bytes: the size of the largest event.
#[cfg(feature = "bincode-codec")]
const BINCODE_SIZE_MAX: usize = 16 << 20;

/// What a format's library said.
pub type FormatError = Box<dyn std::error::Error + Send + Sync>;

/// Why content could not be written or read.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum CodecError {
    /// No event of this type is known here.
    #[error("no event type {event_type} is known here")]
    UnknownType {
        /// The type.
        event_type: EventType,
    },
    /// The type is known, and this version of its schema is not: most likely a newer program wrote it.
    #[error(
        "event type {event_type} is known up to schema version {known}, and this is version {schema}"
    )]
    UnknownSchema {
        /// The type.
        event_type: EventType,
        /// The version of the event.
        schema: u32,
        /// The latest version that is known.
        known: u32,
    },
    /// The content is in a format that is not known here.
    #[error("no content type {content_type} is known here")]
    UnknownContentType {
        /// The content type.
        content_type: Box<str>,
    },
    /// A value does not go into the format.
    #[error("the value does not go into {format}")]
    Encode {
        /// The format.
        format: ContentType,
        /// What the format's library said.
        #[source]
        source: FormatError,
    },
    /// The content is not what it should be.
    #[error("the content is not the {format} that was expected")]
    Decode {
        /// The format.
        format: ContentType,
        /// What the format's library said.
        #[source]
        source: FormatError,
    },
    /// A name that was made for the event cannot be one.
    #[error(transparent)]
    Name(#[from] InvalidName),
}

impl Codec {
    /// The content type of what it writes.
    #[must_use]
    pub fn content_type(self) -> ContentType {
        match self {
            Self::Json => ContentType::Json,
            Self::Postcard => ContentType::Postcard,
            #[cfg(feature = "bincode-codec")]
            Self::Bincode => ContentType::Bincode,
        }
    }

    /// The format with this content type.
    ///
    /// # Errors
    ///
    /// If there is none here.
    pub fn of(content_type: &ContentType) -> Result<Self, CodecError> {
        match content_type {
            ContentType::Json => Ok(Self::Json),
            ContentType::Postcard => Ok(Self::Postcard),
            #[cfg(feature = "bincode-codec")]
            ContentType::Bincode => Ok(Self::Bincode),
            other => Err(CodecError::UnknownContentType { content_type: other.to_string().into() }),
        }
    }

    /// Writes a value.
    ///
    /// # Errors
    ///
    /// If the format has no form for it.
    pub fn encode<T: Serialize>(self, value: &T) -> Result<Bytes, CodecError> {
        let written: Result<Vec<u8>, FormatError> = match self {
            Self::Json => serde_json::to_vec(value).map_err(Into::into),
            Self::Postcard => postcard::to_allocvec(value).map_err(Into::into),
            #[cfg(feature = "bincode-codec")]
            Self::Bincode => bincode::serde::encode_to_vec(value, bincode::config::standard())
                .map_err(Into::into),
        };
        let format = self.content_type();
        written.map(Bytes::from).map_err(|source| CodecError::Encode { format, source })
    }

    /// Reads a value: all of `content`, for bytes left over mean that it is something else.
    ///
    /// # Errors
    ///
    /// If that is not what `content` holds.
    pub fn decode<T: DeserializeOwned>(self, content: &[u8]) -> Result<T, CodecError> {
        let read: Result<T, FormatError> = match self {
            Self::Json => serde_json::from_slice(content).map_err(Into::into),
            Self::Postcard => postcard::take_from_bytes(content)
                .map_err(FormatError::from)
                .and_then(|(value, rest)| whole(value, rest.len())),
            #[cfg(feature = "bincode-codec")]
            Self::Bincode => {
                let config = bincode::config::standard().with_limit::<BINCODE_SIZE_MAX>();
                bincode::serde::decode_from_slice(content, config)
                    .map_err(FormatError::from)
                    .and_then(|(value, read)| whole(value, content.len() - read))
            }
        };
        read.map_err(|source| CodecError::Decode { format: self.content_type(), source })
    }
}

fn whole<T>(value: T, left: usize) -> Result<T, FormatError> {
    if left == 0 { Ok(value) } else { Err(format!("{left} bytes are left over").into()) }
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    #[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
    struct Deposited {
        cents: u64,
        note: Option<String>,
    }

    const ALL: &[Codec] = &[
        Codec::Json,
        Codec::Postcard,
        #[cfg(feature = "bincode-codec")]
        Codec::Bincode,
    ];

    #[test]
    fn every_format_reads_what_it_wrote_and_nothing_longer_or_shorter() {
        for &codec in ALL {
            let value = Deposited { cents: 70_000, note: Some("rent".to_owned()) };
            let content = codec.encode(&value).unwrap();
            assert_eq!(codec.decode::<Deposited>(&content).unwrap(), value, "{codec:?}");
            assert_eq!(Codec::of(&codec.content_type()).unwrap(), codec);
            let mut longer = content.to_vec();
            longer.push(b'!');
            codec.decode::<Deposited>(&longer).unwrap_err();
            for end in 0..content.len() {
                codec.decode::<Deposited>(&content[..end]).unwrap_err();
            }
        }
    }

    #[test]
    fn a_length_that_lies_takes_no_memory() {
        // A string of 2^62 bytes, in postcard's variable-length numbers.
        let lie = [0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x40, b'a'];
        Codec::Postcard.decode::<String>(&lie).unwrap_err();
        Codec::Postcard.decode::<Vec<u64>>(&lie).unwrap_err();
        #[cfg(feature = "bincode-codec")]
        {
            let lie = [253, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x3f, b'a'];
            Codec::Bincode.decode::<String>(&lie).unwrap_err();
            Codec::Bincode.decode::<Vec<u64>>(&lie).unwrap_err();
        }
    }

    #[test]
    fn a_format_that_is_not_known_is_said() {
        let error = Codec::of(&ContentType::Other("text/xml".into())).unwrap_err();
        assert_eq!(error.to_string(), "no content type text/xml is known here");
    }
}
