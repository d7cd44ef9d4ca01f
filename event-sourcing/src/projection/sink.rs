//! Where read models rest: an ordered map from keys to values, whose changes are atomic.
//!
//! A sink has two verbs. [`Sink::snapshot`] shows the map at one moment; [`Sink::commit`] carries out a set of [`Changes`], all of
//! them or none, if what they expect is still there. That is all that a projection needs for effects that happen exactly once: its
//! checkpoint is one key among the others, it is changed in the same commit as the rows, and each commit expects the checkpoint
//! that its runner has left. A second runner of the same projection, in this process or another, is refused by that expectation
//! ([`SinkError::Moved`]) instead of counting everything twice.
//!
//! Any database with transactions can be a sink: two columns, and a comparison before the writes.

use std::collections::BTreeMap;
use std::error::Error;
use std::fmt::Debug;
use std::sync::Arc;

use bytes::Bytes;
use thiserror::Error;

pub mod memory;
#[cfg(feature = "redb")]
pub mod redb;

/// The largest value of a row, in bytes.
pub const VALUE_SIZE_MAX: usize = 16 << 20;
/// The largest key of a row with the names around it, in bytes.
pub const KEY_SIZE_MAX: usize = 8 << 10;

/// An ordered map with snapshots and atomic commits.
pub trait Sink: Debug + Send + Sync + 'static {
    /// The map as it is now. It stays as it is, whatever is committed afterwards; nobody waits for it.
    ///
    /// # Errors
    ///
    /// If the sink cannot be read.
    fn snapshot(&self) -> Result<Box<dyn Snapshot>, SinkError>;

    /// Carries out changes atomically. When it returns they are as durable as the sink makes anything.
    ///
    /// # Errors
    ///
    /// [`SinkError::Moved`] if something is not as expected: nothing was changed then. After any other error it is not known
    /// whether the changes took effect: a new snapshot tells.
    fn commit(&self, changes: &Changes) -> Result<(), SinkError>;
}

/// A map at one moment.
pub trait Snapshot: Debug + Send + Sync + 'static {
    /// The value of a key.
    ///
    /// # Errors
    ///
    /// If the sink cannot be read.
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, SinkError>;

    /// The first rows of which the key is at least `from` and less than `until`, in order of their keys; at most `count_max`.
    ///
    /// # Errors
    ///
    /// If the sink cannot be read.
    fn scan(
        &self,
        from: &[u8],
        until: &[u8],
        count_max: usize,
    ) -> Result<Vec<(Bytes, Bytes)>, SinkError>;
}

/// What a commit changes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// What must still be there for any of it to happen: a key and its value, or its absence.
    pub expected: Vec<(Bytes, Option<Bytes>)>,
    /// The new value of each key; `None` removes it.
    pub writes: BTreeMap<Bytes, Option<Bytes>>,
}

/// Why a sink has not answered.
#[derive(Clone, Debug, Error)]
#[non_exhaustive]
pub enum SinkError {
    /// What the changes expected is not there any more: somebody else has changed it.
    #[error("the read model was changed by another runner")]
    Moved,
    /// The sink has failed.
    #[error("the sink has failed: {0}")]
    Failed(Arc<dyn Error + Send + Sync>),
    /// A row cannot be read as what its table says: it was written by another version of the program.
    #[error("a row of table {table} is not what the table says it is")]
    Row {
        /// The table.
        table: &'static str,
    },
    /// A key or a value is too large.
    #[error("a {what} of table {table} has {size} bytes, and may have {limit}")]
    TooLarge {
        /// Key or value.
        what: &'static str,
        /// The table.
        table: &'static str,
        /// Its size in bytes.
        size: usize,
        /// What it may have.
        limit: usize,
    },
}

impl SinkError {
    /// From what a database says.
    pub fn failed(error: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self::Failed(error.into().into())
    }

    /// Whether it is the sink that has failed, and not the caller.
    #[must_use]
    pub fn is_of_the_sink(&self) -> bool {
        matches!(self, Self::Moved | Self::Failed(_))
    }
}

/// The first key that is greater than every key that begins with `prefix`; empty if there is none, which no prefix of ours has.
pub(crate) fn end_of_prefix(prefix: &[u8]) -> Vec<u8> {
    let mut end = prefix.to_vec();
    while let Some(last) = end.pop() {
        if last < u8::MAX {
            end.push(last + 1);
            break;
        }
    }
    end
}

#[cfg(test)]
mod tests {
    use super::end_of_prefix;

    #[test]
    fn the_end_of_a_prefix_is_the_first_key_behind_it() {
        assert_eq!(end_of_prefix(b"ab"), b"ac");
        assert_eq!(end_of_prefix(&[1, 0xff, 0xff]), [2]);
        assert_eq!(end_of_prefix(&[0xff]), [0; 0]);
    }
}
