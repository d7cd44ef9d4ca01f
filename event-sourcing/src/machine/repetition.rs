//! Whether an append was carried out before.
//!
//! By its key: the append that has it says the same, ids and metadata aside, or the key was used for something else. By the ids of
//! its events: each home stream knows its ids for ever, those of events included whose space was taken back. Either way the answer is
//! that of the first time.
//!
//! A key that is not known is none of a repetition: a repetition records nothing, and so not the key, which the next append could
//! have for something else.

use crate::append::{Append, AppendError, Committed, IdempotencyKey};
use crate::event::Position;
use crate::machine::{Entry, Index};
use crate::record::content_digest;

/// The result of the first time, if the append is a repetition.
pub(super) fn find<I: Index>(index: &I, append: &Append) -> Result<Option<Committed>, AppendError> {
    if let Some(key) = &append.key
        && let Some(committed) = find_by_key(index, append, key)?
    {
        return Ok(Some(committed));
    }
    match (find_by_ids(index, append)?, &append.key) {
        (Some(known), Some(_)) => Err(AppendError::KeyMissing { position: known.first }),
        (known, _) => Ok(known),
    }
}

fn find_by_key<I: Index>(
    index: &I,
    append: &Append,
    key: &IdempotencyKey,
) -> Result<Option<Committed>, AppendError> {
    let Some(first) = index.find_key(key).map_err(AppendError::Read)? else {
        return Ok(None);
    };
    let reused = Err(AppendError::KeyReused { position: first });
    let mut entries = Vec::with_capacity(append.events.len());
    for (offset, (stream, event)) in append.events.iter().enumerate() {
        let offset = u32::try_from(offset).expect("the number of events is limited");
        let position = Position(first.0 + u64::from(offset));
        if position > index.head() {
            return reused;
        }
        let entry = index.event(position).map_err(AppendError::Read)?;
        // The places say that it is the same append all along, and as long.
        let place = entry.place();
        if place.index != offset
            || usize::try_from(place.count) != Ok(append.events.len())
            || entry.stream() != stream
            || entry.content() != content_digest(event)
        {
            return reused;
        }
        entries.push(entry);
    }
    Ok(Some(result_of(&entries)))
}

fn find_by_ids<I: Index>(index: &I, append: &Append) -> Result<Option<Committed>, AppendError> {
    let mut entries: Vec<Entry> = Vec::new();
    let mut is_same = true;
    for (place, (stream, event)) in append.events.iter().enumerate() {
        let Some(position) = index.find_id(stream, event.id).map_err(AppendError::Read)? else {
            continue;
        };
        let entry = index.event(position).map_err(AppendError::Read)?;
        if entry.content() != content_digest(event) {
            return Err(AppendError::IdReused { id: event.id, stream: stream.clone(), position });
        }
        // All events so far were found as well, and this one stands behind the last of them.
        is_same &= entries.len() == place
            && entries.last().is_none_or(|last| last.position().next() == position);
        entries.push(entry);
    }
    match entries.first() {
        None => Ok(None),
        Some(_) if is_same && entries.len() == append.events.len() => Ok(Some(result_of(&entries))),
        Some(first) => Err(AppendError::PartlyRecorded {
            id: first.id(),
            stream: first.stream().clone(),
            position: first.position(),
        }),
    }
}

fn result_of(entries: &[Entry]) -> Committed {
    let (Some(first), Some(last)) = (entries.first(), entries.last()) else {
        unreachable!("an append without events is invalid");
    };
    Committed {
        first: first.position(),
        last: last.position(),
        streams: super::committed(entries.iter().map(|entry| (entry.stream(), entry.version()))),
        repeated: true,
    }
}
