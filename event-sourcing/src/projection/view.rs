//! The side that asks: rows of the current build, all of one moment.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use serde::de::DeserializeOwned;

use super::build::{self, BuildKeys, Checkpoint};
use super::sink::{Sink, SinkError, Snapshot};
use super::table::{Key, Rows, Table};
use super::time_travel::{RowDifference, difference};
use super::transaction::without_prefix;
use crate::event::Position;

/// A read model in its sink, by name. It follows the swap from one build to the next.
#[derive(Clone, Debug)]
pub struct ReadModel {
    sink: Arc<dyn Sink>,
    name: Arc<str>,
}

impl ReadModel {
    /// The read model of the projection with this name.
    #[must_use]
    pub fn new(sink: Arc<dyn Sink>, name: impl Into<Arc<str>>) -> Self {
        Self { sink, name: name.into() }
    }

    /// The rows as they are now. All that is read from the view is of this moment and of one build. A read model that nobody has
    /// begun has no rows, and is at the beginning.
    ///
    /// # Errors
    ///
    /// If the sink cannot be read.
    pub fn view(&self) -> Result<View, SinkError> {
        let snapshot = self.sink.snapshot()?;
        let builds = build::read_directory(&*snapshot, &self.name)?;
        // No build has the last number before the numbers have run out.
        let number = builds.current.map_or(u32::MAX, |build| build.number);
        View::of(snapshot, &self.name, number)
    }
}

/// The rows of a read model at one moment.
#[derive(Debug)]
pub struct View {
    snapshot: Box<dyn Snapshot>,
    prefix: Vec<u8>,
    checkpoint: Checkpoint,
}

impl View {
    pub(super) fn of(
        snapshot: Box<dyn Snapshot>,
        name: &str,
        number: u32,
    ) -> Result<Self, SinkError> {
        let keys = BuildKeys::new(name, number);
        let checkpoint = build::read_checkpoint(&*snapshot, &keys)?.unwrap_or_default();
        Ok(Self { snapshot, prefix: keys.tables(), checkpoint })
    }

    /// Everything up to this position is in the rows, and nothing else.
    #[must_use]
    pub fn position(&self) -> Position {
        self.checkpoint.position
    }

    /// How far the read model had come.
    #[must_use]
    pub fn checkpoint(&self) -> Checkpoint {
        self.checkpoint
    }

    /// The rows of a table that are not the same in `later`, in order of their keys. It looks at all rows of both.
    ///
    /// # Errors
    ///
    /// If a sink cannot be read, or a row is not of the table's type.
    pub fn diff<K: Key + ?Sized, V: DeserializeOwned + PartialEq>(
        &self,
        later: &Self,
        table: &Table<K, V>,
    ) -> Result<Vec<RowDifference<K::Owned, V>>, SinkError> {
        difference(self, later, table)
    }
}

impl Rows for View {
    fn get_bytes(&self, key: &[u8]) -> Result<Option<Bytes>, SinkError> {
        self.snapshot.get(&[self.prefix.as_slice(), key].concat())
    }

    fn scan_bytes(
        &self,
        from: &[u8],
        until: &[u8],
        count_max: usize,
    ) -> Result<Vec<(Bytes, Bytes)>, SinkError> {
        let whole = |key: &[u8]| [self.prefix.as_slice(), key].concat();
        let rows = self.snapshot.scan(&whole(from), &whole(until), count_max)?;
        Ok(without_prefix(rows, self.prefix.len()))
    }
}

impl fmt::Display for View {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the read model at position {}", self.position())
    }
}
