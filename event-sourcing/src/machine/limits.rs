//! What an append may be, whatever the log says.

use std::collections::BTreeSet;

use crate::append::{Append, AppendError, KEY_SIZE_MAX};
use crate::condition::{Check, QUERY_ITEMS_MAX, QUERY_TERMS_MAX, Query, STREAM_LABEL};
use crate::error::InvalidAppend;
use crate::event::{NewEvent, StreamName};
use crate::record;
use crate::retention::{METADATA_SIZE_MAX, METADATA_TYPE, Retention, TOMBSTONE_TYPE};

/// Bounds of an append. All nodes of a group must have the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// The largest event, in bytes of all that it carries.
    pub event_size_max: usize,
    /// The largest append, in bytes of all that its events carry.
    pub append_size_max: usize,
    /// The most events of an append.
    pub events_max: usize,
    /// The most labels of an event.
    pub labels_max: usize,
    /// The most checks of an append.
    pub checks_max: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            event_size_max: 16 << 20,
            append_size_max: 32 << 20,
            events_max: 4096,
            labels_max: 64,
            checks_max: 256,
        }
    }
}

impl Limits {
    /// Whether an append has the form of one.
    ///
    /// # Errors
    ///
    /// [`AppendError::Invalid`] if not.
    pub fn check(&self, append: &Append) -> Result<(), AppendError> {
        self.check_form(append).map_err(AppendError::Invalid)
    }

    /// Whether a query is within its bounds.
    pub(crate) fn check_query(query: &Query) -> Result<(), InvalidAppend> {
        at_most("items in a query", query.items.len(), QUERY_ITEMS_MAX)?;
        let terms = query.items.iter().map(|item| item.types.len() + item.labels.len()).sum();
        at_most("types and labels in a query", terms, QUERY_TERMS_MAX)
    }

    fn check_form(&self, append: &Append) -> Result<(), InvalidAppend> {
        if append.events.is_empty() {
            return Err(InvalidAppend::Empty);
        }
        at_most("events", append.events.len(), self.events_max)?;
        at_most("checks", append.checks.len(), self.checks_max)?;
        if let Some(key) = &append.key {
            if key.0.is_empty() {
                return Err(InvalidAppend::EmptyKey);
            }
            at_most("bytes in its idempotency key", key.0.len(), KEY_SIZE_MAX)?;
        }
        let mut whole = 0;
        for (index, (stream, event)) in append.events.iter().enumerate() {
            let size = record::size(stream, event);
            if size > self.event_size_max {
                let limit = self.event_size_max;
                return Err(InvalidAppend::EventTooLarge { index, size, limit });
            }
            whole += size;
            at_most("labels on an event", event.labels.len(), self.labels_max)?;
            if event.schema == 0 {
                return Err(InvalidAppend::SchemaZero { index });
            }
            check_names(stream, event)?;
        }
        if whole > self.append_size_max {
            return Err(InvalidAppend::TooLarge { size: whole, limit: self.append_size_max });
        }
        for check in &append.checks {
            match check {
                Check::Stream { .. } => {}
                Check::NoMatch { query, .. } => Self::check_query(query)?,
            }
        }
        let mut ids = BTreeSet::new();
        for (stream, event) in &append.events {
            if !ids.insert((event.id, stream)) {
                return Err(InvalidAppend::DuplicateId { id: event.id, stream: stream.clone() });
            }
        }
        Ok(())
    }
}

fn at_most(what: &'static str, count: usize, limit: usize) -> Result<(), InvalidAppend> {
    if count > limit {
        return Err(InvalidAppend::TooMany { what, count, limit });
    }
    Ok(())
}

/// The store's own names are used as the store does.
fn check_names(stream: &StreamName, event: &NewEvent) -> Result<(), InvalidAppend> {
    let event_type = event.event_type.as_str();
    let reserved = |why: String| Err(InvalidAppend::Reserved(why));
    if let Some(label) = event.labels.iter().find(|label| label.as_str().starts_with(STREAM_LABEL))
    {
        return reserved(format!(
            "label {label:?} stands for a home stream in queries, and no event can bear it"
        ));
    }
    if let Some(described) = stream.described_stream() {
        if described.is_empty() || described.starts_with("$$") {
            return reserved(format!("{stream} describes no stream"));
        }
        return match event_type {
            TOMBSTONE_TYPE => Ok(()),
            METADATA_TYPE if event.data.len() > METADATA_SIZE_MAX => {
                reserved(format!("what is said about a stream may have {METADATA_SIZE_MAX} bytes"))
            }
            METADATA_TYPE => match Retention::parse(&event.data) {
                Ok(_) => Ok(()),
                Err(why) => reserved(format!("what {stream} is to say makes no sense: {why}")),
            },
            _ => reserved(format!(
                "{stream} describes a stream: it takes events of type {METADATA_TYPE} and \
                 {TOMBSTONE_TYPE} only"
            )),
        };
    }
    if event_type == METADATA_TYPE || event_type == TOMBSTONE_TYPE {
        return reserved(format!("events of type {event_type} belong into $${stream}"));
    }
    if event.event_type.is_system() && !stream.is_system() {
        return reserved(format!(
            "type {event_type} is the store's own: only streams whose names begin with $ have such"
        ));
    }
    Ok(())
}
