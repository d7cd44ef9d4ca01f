//! From the journal's items to events.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use lattice_journal::{ReadError as JournalReadError, Reader};

use super::memtable::Memtable;
use crate::event::Position;
use crate::machine::Entry;
use crate::read::ReadError;
use crate::record::{self, Decoded};

/// Bytes of items that are read and decoded together.
const CHUNK: usize = 256 << 10;

/// What [`load`] found.
#[derive(Debug)]
pub(super) struct Loaded {
    pub(super) memtable: Memtable,
    /// Positions whose events cannot be read, in order.
    pub(super) damaged: Vec<Range<u64>>,
}

/// Makes the index of a range of positions from the events themselves.
///
/// # Errors
///
/// If the disk fails. Damage is no error.
pub(super) fn load(reader: &Reader, positions: Range<u64>) -> Result<Loaded, ReadError> {
    let mut loaded =
        Loaded { memtable: Memtable::new(Position(positions.start)), damaged: Vec::new() };
    let mut next = positions.start;
    while next < positions.end {
        let found = read(reader, next..positions.end, CHUNK, |_, decoded| {
            loaded.memtable.insert(&decoded.entry, decoded.key.as_ref());
        });
        match found {
            Ok(end) => next = end,
            Err(ReadError::Damaged { first, last }) => {
                let end = last.0.saturating_add(1).clamp(next + 1, positions.end);
                loaded.damaged.push(first.0.max(next)..end);
                next = end;
            }
            Err(error) => return Err(error),
        }
    }
    Ok(loaded)
}

/// Reads and decodes events from the beginning of a range, as many as fit in `bytes_max`, but at least one. `visit` is also given
/// the record. Returns the position after the last one.
///
/// # Errors
///
/// If the first event cannot be read.
pub(super) fn read(
    reader: &Reader,
    range: Range<u64>,
    bytes_max: usize,
    mut visit: impl FnMut(&Bytes, Decoded),
) -> Result<u64, ReadError> {
    let first = range.start;
    let mut bytes = Vec::new();
    let mut ends = Vec::new();
    reader
        .visit(range, bytes_max, |_, item| {
            bytes.extend_from_slice(item);
            ends.push(bytes.len());
        })
        .map_err(|error| explain(error, first))?;
    let bytes = Bytes::from(bytes);
    let (mut next, mut start) = (first, 0);
    for end in ends {
        let record = bytes.slice(start..end);
        match decode(&record, next) {
            Ok(decoded) => visit(&record, decoded),
            Err(_) if next > first => break,
            Err(error) => return Err(error),
        }
        (next, start) = (next + 1, end);
    }
    if next == first {
        return Err(damaged(first..first + 1));
    }
    Ok(next)
}

/// Decodes the record at a position.
fn decode(bytes: &Bytes, position: u64) -> Result<Decoded, ReadError> {
    match record::decode(bytes) {
        Ok(decoded) if decoded.entry.position().0 == position => Ok(decoded),
        Ok(_) => Err(damaged(position..position + 1)),
        Err(error) => {
            tracing::error!(position, %error, "a record cannot be decoded");
            Err(damaged(position..position + 1))
        }
    }
}

/// Says that events cannot be read.
pub(super) fn damaged(positions: Range<u64>) -> ReadError {
    let last = positions.end.saturating_sub(1);
    ReadError::Damaged { first: Position(positions.start), last: Position(last) }
}

/// An error of the journal, in the words of the store.
pub(super) fn explain(error: JournalReadError, first: u64) -> ReadError {
    match error {
        JournalReadError::Damaged { positions } | JournalReadError::Corrupt { positions, .. } => {
            damaged(positions)
        }
        // No event is ever dropped from the log: its beginning is lost.
        JournalReadError::NotHeld { held } => damaged(first..held.start),
        JournalReadError::Io { source, .. } => ReadError::Io(Arc::new(source)),
        error => ReadError::Io(Arc::new(std::io::Error::other(error))),
    }
}

/// The leaf of an event in the hash chain.
pub(super) fn leaf(record: &[u8], entry: &Entry) -> [u8; 32] {
    match entry {
        Entry::Event(_) => record::leaf_hash(record),
        Entry::Scavenged(stub) => stub.leaf,
    }
}
