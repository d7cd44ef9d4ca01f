//! The bytes of an event in a log, drawn in `docs/formats.md`.
//!
//! One encoding is made once, by the writer that gives an event its place. What is stored, replicated and hashed is these
//! bytes, and an event has only one such form: numbers are in their shortest form, labels sorted, nothing follows the end. So whoever
//! decodes a record and encodes it again has the same bytes, and the same [`leaf_hash`].
//!
//! Decoding never panics and trusts no length: it allocates nothing that the input does not hold.

use std::sync::Arc;

use bytes::Bytes;
use sha2::{Digest, Sha256};
use thiserror::Error;
use uuid::Uuid;

use crate::append::{IdempotencyKey, KEY_SIZE_MAX};
use crate::event::{
    AppendPlace, ContentType, EventId, EventType, Label, Metadata, NewEvent, Position, Recorded,
    StreamName, Timestamp, Version,
};
use crate::machine::{Entry, Stub};

use self::bytes_io::{Input, put_bytes, put_number, put_text};

mod bytes_io;
#[cfg(test)]
mod tests;

/// The format that is written.
const FORMAT: u8 = 1;
const KIND_EVENT: u8 = 0;
const KIND_STUB: u8 = 1;

const FLAG_KEY: u8 = 1;
const FLAG_CORRELATION: u8 = 1 << 1;
const FLAG_CAUSATION: u8 = 1 << 2;
const FLAG_USER: u8 = 1 << 3;

/// A record, decoded.
#[derive(Clone, Debug)]
pub struct Decoded {
    /// The event, or what is left of it.
    pub entry: Entry,
    /// The idempotency key of the append that wrote it. Only the first event of an append has it.
    pub key: Option<IdempotencyKey>,
}

/// Why bytes are no record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum RecordError {
    /// They end too early.
    #[error("the record ends too early, in its {0}")]
    Short(&'static str),
    /// Something in them has no meaning, or is not in its one form.
    #[error("the {0} of the record makes no sense")]
    Invalid(&'static str),
    /// A format that this version does not know.
    #[error("the record is of format {0}, which this version does not know")]
    Format(u8),
    /// Something follows the end.
    #[error("{0} bytes follow the end of the record")]
    Trailing(usize),
}

/// Encodes an event. `key` is that of its append, and goes with the append's first event.
#[must_use]
pub fn encode(recorded: &Recorded, key: Option<&IdempotencyKey>) -> Vec<u8> {
    let mut out = Vec::with_capacity(size(&recorded.stream, &recorded.event) + 64);
    encode_into(&mut out, recorded, key);
    out
}

/// As [`encode`], at the end of `out`.
pub fn encode_into(out: &mut Vec<u8>, recorded: &Recorded, key: Option<&IdempotencyKey>) {
    let event = &recorded.event;
    debug_assert!(event.labels.is_sorted_by(|a, b| a < b), "labels are sorted, each there once");
    put_head(
        out,
        KIND_EVENT,
        (recorded.position, recorded.version, recorded.timestamp, recorded.place),
        event.id,
        &recorded.stream,
    );
    let Metadata { correlation, causation, user, custom } = &event.metadata;
    let flag = |there: bool, flag: u8| if there { flag } else { 0 };
    out.push(
        flag(key.is_some(), FLAG_KEY)
            | flag(correlation.is_some(), FLAG_CORRELATION)
            | flag(causation.is_some(), FLAG_CAUSATION)
            | flag(user.is_some(), FLAG_USER),
    );
    put_number(out, event.schema.into());
    put_text(out, event.event_type.as_str());
    put_content_type(out, &event.content_type);
    put_number(out, u64::try_from(event.labels.len()).expect("a length fits 64 bits"));
    for label in &event.labels {
        put_text(out, label.as_str());
    }
    let texts = [key.map(|key| &*key.0), correlation.as_deref(), causation.as_deref()];
    for text in texts.into_iter().chain([user.as_deref()]).flatten() {
        put_text(out, text);
    }
    put_bytes(out, custom);
    put_bytes(out, &event.data);
}

/// Encodes what is left of an event.
#[must_use]
pub fn encode_stub(stub: &Stub, key: Option<&IdempotencyKey>) -> Vec<u8> {
    let mut out = Vec::with_capacity(stub.stream.as_str().len() + 128);
    put_head(
        &mut out,
        KIND_STUB,
        (stub.position, stub.version, stub.timestamp, stub.place),
        stub.id,
        &stub.stream,
    );
    out.push(if key.is_some() { FLAG_KEY } else { 0 });
    if let Some(key) = key {
        put_text(&mut out, &key.0);
    }
    out.extend_from_slice(&stub.content.to_le_bytes());
    out.extend_from_slice(&stub.leaf);
    out
}

/// Decodes a record. Content is not copied: it shares `record`.
///
/// # Errors
///
/// If it is none.
pub fn decode(record: &Bytes) -> Result<Decoded, RecordError> {
    let mut input = Input::new(record);
    match input.byte("format")? {
        FORMAT => {}
        other => return Err(RecordError::Format(other)),
    }
    let kind = input.byte("kind")?;
    let position = Position(input.number("position")?);
    let version = Version(input.number("version")?);
    let timestamp = Timestamp(input.number("timestamp")?);
    let place = AppendPlace { index: input.number32("place")?, count: input.number32("place")? };
    // Arithmetic on these happens everywhere, and so their bounds are known from here on.
    if position.0 == 0 || position.0 == u64::MAX {
        return Err(RecordError::Invalid("position"));
    }
    if version.0 >= position.0 {
        return Err(RecordError::Invalid("version"));
    }
    if place.index >= place.count || u64::from(place.index) >= position.0 {
        return Err(RecordError::Invalid("place"));
    }
    let id = EventId(Uuid::from_bytes(input.array("id")?));
    let stream = StreamName::new(input.text("stream")?).ok().ok_or(INVALID_STREAM)?;
    let (entry, key) = match kind {
        KIND_EVENT => {
            let (event, key) = decode_event(&mut input, id)?;
            let recorded = Recorded { position, stream, version, timestamp, place, event };
            (Entry::Event(Arc::new(recorded)), key)
        }
        KIND_STUB => {
            let flags = input.byte("flags")?;
            if flags & !FLAG_KEY != 0 {
                return Err(RecordError::Invalid("flags"));
            }
            let key = decode_key(&mut input, flags)?;
            let content = u64::from_le_bytes(input.array("content")?);
            let leaf = input.array("leaf")?;
            let stub = Stub { position, stream, version, timestamp, place, id, content, leaf };
            (Entry::Scavenged(stub), key)
        }
        _ => return Err(RecordError::Invalid("kind")),
    };
    match input.rest() {
        0 => Ok(Decoded { entry, key }),
        rest => Err(RecordError::Trailing(rest)),
    }
}

const INVALID_STREAM: RecordError = RecordError::Invalid("stream");

fn put_head(
    out: &mut Vec<u8>,
    kind: u8,
    (position, version, timestamp, place): (Position, Version, Timestamp, AppendPlace),
    id: EventId,
    stream: &StreamName,
) {
    out.extend_from_slice(&[FORMAT, kind]);
    for number in
        [position.0, version.0, timestamp.0, u64::from(place.index), u64::from(place.count)]
    {
        put_number(out, number);
    }
    out.extend_from_slice(id.0.as_bytes());
    put_text(out, stream.as_str());
}

fn put_content_type(out: &mut Vec<u8>, content_type: &ContentType) {
    match content_type {
        ContentType::Json => out.push(0),
        ContentType::Bytes => out.push(1),
        ContentType::Postcard => out.push(2),
        ContentType::Bincode => out.push(3),
        ContentType::Other(media_type) => {
            out.push(4);
            put_text(out, media_type);
        }
    }
}

fn decode_event(
    input: &mut Input<'_>,
    id: EventId,
) -> Result<(NewEvent, Option<IdempotencyKey>), RecordError> {
    let flags = input.byte("flags")?;
    if flags & !(FLAG_KEY | FLAG_CORRELATION | FLAG_CAUSATION | FLAG_USER) != 0 {
        return Err(RecordError::Invalid("flags"));
    }
    let schema = input.number32("schema")?;
    let event_type =
        EventType::new(input.text("type")?).ok().ok_or(RecordError::Invalid("type"))?;
    let content_type = match input.byte("content type")? {
        0 => ContentType::Json,
        1 => ContentType::Bytes,
        2 => ContentType::Postcard,
        3 => ContentType::Bincode,
        4 => ContentType::Other(input.text("content type")?.into()),
        _ => return Err(RecordError::Invalid("content type")),
    };
    let mut labels: Vec<Label> = Vec::new();
    for _ in 0..input.number("labels")? {
        let label = Label::new(input.text("labels")?).ok().ok_or(RecordError::Invalid("labels"))?;
        if labels.last().is_some_and(|last| *last >= label) {
            return Err(RecordError::Invalid("order of labels"));
        }
        labels.push(label);
    }
    let key = decode_key(input, flags)?;
    let mut text = |flag, what| match flags & flag {
        0 => Ok(None),
        _ => input.text(what).map(|text| Some(text.into())),
    };
    let correlation = text(FLAG_CORRELATION, "correlation")?;
    let causation = text(FLAG_CAUSATION, "causation")?;
    let user = text(FLAG_USER, "user")?;
    let custom = input.shared("metadata")?;
    let data = input.shared("content")?;
    let metadata = Metadata { correlation, causation, user, custom };
    Ok((NewEvent { id, event_type, schema, content_type, data, metadata, labels }, key))
}

fn decode_key(input: &mut Input<'_>, flags: u8) -> Result<Option<IdempotencyKey>, RecordError> {
    if flags & FLAG_KEY == 0 {
        return Ok(None);
    }
    let key = input.text("key")?;
    if key.is_empty() || key.len() > KEY_SIZE_MAX {
        return Err(RecordError::Invalid("key"));
    }
    Ok(Some(IdempotencyKey(key.into())))
}

/// The size of what an event carries, in bytes: its names, labels, metadata and content.
#[must_use]
pub fn size(stream: &StreamName, event: &NewEvent) -> usize {
    let Metadata { correlation, causation, user, custom } = &event.metadata;
    let texts = [correlation, causation, user].into_iter().flatten();
    let media_type = match &event.content_type {
        ContentType::Other(media_type) => media_type.len(),
        ContentType::Json | ContentType::Bytes | ContentType::Postcard | ContentType::Bincode => 0,
    };
    stream.as_str().len()
        + event.event_type.as_str().len()
        + media_type
        + event.labels.iter().map(|label| label.as_str().len()).sum::<usize>()
        + texts.map(|text| text.len()).sum::<usize>()
        + custom.len()
        + event.data.len()
}

/// A digest of what an event says: type, schema, content type, content and labels; not its id or metadata.
#[must_use]
pub fn content_digest(event: &NewEvent) -> u64 {
    let mut labels: Vec<&Label> = event.labels.iter().collect();
    labels.sort_unstable();
    labels.dedup();
    // Everything begins with its length, so that no two contents run together into the same bytes.
    let mut head = Vec::new();
    put_number(&mut head, event.schema.into());
    put_text(&mut head, event.event_type.as_str());
    put_content_type(&mut head, &event.content_type);
    put_number(&mut head, u64::try_from(labels.len()).expect("a length fits 64 bits"));
    for label in labels {
        put_text(&mut head, label.as_str());
    }
    let mut hasher = xxhash_rust::xxh3::Xxh3::new();
    hasher.update(&head);
    hasher.update(&event.data);
    hasher.digest()
}

/// An event's leaf in the hash chain: SHA-256 of its encoded record. That of an event whose space was taken back is kept in its
/// [`Stub`].
#[must_use]
pub fn leaf_hash(record: &[u8]) -> [u8; 32] {
    Sha256::digest(record).into()
}

impl Stub {
    /// What is to be left of an event with this leaf.
    #[must_use]
    pub fn of(recorded: &Recorded, leaf: [u8; 32]) -> Self {
        Self {
            position: recorded.position,
            stream: recorded.stream.clone(),
            version: recorded.version,
            timestamp: recorded.timestamp,
            place: recorded.place,
            id: recorded.event.id,
            content: content_digest(&recorded.event),
            leaf,
        }
    }
}
