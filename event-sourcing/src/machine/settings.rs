//! What appends say about streams: that they are closed, and what is to be kept of them.
//!
//! What is hidden stays hidden. Its space may have come back already, and nobody must be able to tell. So what an append says about
//! retention must hide at least what is hidden now; whoever wants to keep more from now on truncates at what is left.

use std::collections::BTreeMap;

use crate::append::{Append, AppendError};
use crate::error::InvalidAppend;
use crate::event::{StreamName, Version};
use crate::machine::Index;
use crate::machine::scan::first_visible;
use crate::retention::Retention;

/// No stream that the append writes to, or says something about, has a tombstone.
pub(super) fn check_open<I: Index>(index: &I, append: &Append) -> Result<(), AppendError> {
    let mut written: Vec<&StreamName> = append.events.iter().map(|(stream, _)| stream).collect();
    written.sort_unstable();
    written.dedup();
    for stream in written {
        let named = subject(stream);
        if index.retention(&named).map_err(AppendError::Read)?.tombstoned {
            return Err(AppendError::Tombstoned { stream: named });
        }
    }
    Ok(())
}

/// The stream itself, or the one that it describes.
fn subject(stream: &StreamName) -> StreamName {
    let described = stream.described_stream().and_then(|name| StreamName::new(name).ok());
    described.unwrap_or_else(|| stream.clone())
}

/// The append brings back nothing that was hidden, and writes to no stream that it has closed.
pub(super) fn check<I: Index>(index: &I, append: &Append) -> Result<(), AppendError> {
    if !append.events.iter().any(|(stream, _)| stream.described_stream().is_some()) {
        return Ok(());
    }
    let read = AppendError::Read;
    let invalid = |why| AppendError::Invalid(InvalidAppend::Reserved(why));
    let now = index.time().map_err(read)?;
    // What the append has said so far, and what it has written.
    let mut said: BTreeMap<StreamName, Retention> = BTreeMap::new();
    let mut last: BTreeMap<&StreamName, Version> = BTreeMap::new();
    for (stream, event) in &append.events {
        let named = subject(stream);
        let before = match said.get(&named) {
            Some(before) => *before,
            None => index.retention(&named).map_err(read)?,
        };
        if before.tombstoned {
            return Err(invalid(format!("it closes stream {named} and goes on writing to it")));
        }
        if named == *stream {
            let next = match last.get(stream) {
                Some(last) => last.next(),
                None => {
                    index.last_of(stream).map_err(read)?.map_or(Version(0), |(last, _)| last.next())
                }
            };
            last.insert(stream, next);
            continue;
        }
        let known = match last.get(&named) {
            Some(last) => Some(*last),
            None => index.last_of(&named).map_err(read)?.map(|(last, _)| last),
        };
        let after = Retention::decided_by(event);
        let end = known.map_or(Version(0), Version::next);
        if after.truncate_before.is_some_and(|before| before > end) {
            return Err(invalid(format!(
                "$tb is beyond the events of {named}: it can be {end} at most"
            )));
        }
        // Events of this append are young enough for any limit of age, and not in the index.
        let recorded = index.last_of(&named).map_err(read)?.map(|(last, _)| last);
        if let (Some(known), Some(recorded)) = (known, recorded)
            && !after.tombstoned
        {
            let hidden = |retention: &Retention| {
                let aged = first_visible(index, &named, &by_age(retention), recorded, now)?;
                Ok(aged.max(retention.first_by_number(known)))
            };
            let (old, new) = (hidden(&before).map_err(read)?, hidden(&after).map_err(read)?);
            if new < old {
                return Err(invalid(format!(
                    "it would bring back events of {named} that are gone: $tb must be {old} at least"
                )));
            }
        }
        said.insert(named, after);
    }
    Ok(())
}

/// Its limit of age alone.
fn by_age(retention: &Retention) -> Retention {
    Retention { max_age: retention.max_age, ..Retention::default() }
}
