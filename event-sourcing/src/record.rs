//! SKELETON (owner: store): the bytes of an event in a log, drawn in `docs/formats.md`.

use crate::event::NewEvent;

/// A digest of what an event says: type, schema, content type, content and labels; not its id or metadata.
#[must_use]
pub fn content_digest(event: &NewEvent) -> u64 {
    let mut hasher = xxhash_rust::xxh3::Xxh3::new();
    hasher.update(event.event_type.as_str().as_bytes());
    hasher.update(&event.data);
    hasher.digest()
}
