//! A sink in a file of redb, an embedded key-value store: one table, for any number of projections.
//!
//! A commit is one transaction of redb, synced before it returns; a file that was cut off in the middle of one opens as it was
//! before. Only one process at a time can have the file open. A [`View`](crate::projection::View) that is kept for long keeps
//! the space of what was changed since from being used again.

use std::path::Path;
use std::{fs, io};

use bytes::Bytes;
use redb::{
    Builder, Database, DatabaseError, ReadOnlyTable, ReadableDatabase, ReadableTable,
    StorageBackend, TableDefinition,
};

use super::{Changes, Sink, SinkError, Snapshot};

const ROWS: TableDefinition<'static, &[u8], &[u8]> = TableDefinition::new("lattice.projections");

/// The usual size of the cache, in bytes.
pub const CACHE_BYTES: usize = 64 << 20;

/// A sink in a file.
#[derive(Debug)]
pub struct RedbSink {
    database: Database,
}

impl RedbSink {
    /// Opens the file at `path`, or makes it. It is made under another name, with `.new` behind it, and has its own when it is whole.
    ///
    /// # Errors
    ///
    /// If the file cannot be opened, is none of redb's, or another process has it open.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, SinkError> {
        let path = path.as_ref();
        if !path.exists() {
            make(path)?;
        }
        Self::prepare(builder().open(path).map_err(SinkError::failed)?)
    }

    /// Opens what is on a storage of the caller's own, or makes it: for tests that lose power.
    ///
    /// # Errors
    ///
    /// As [`RedbSink::open`].
    pub fn on(storage: impl StorageBackend) -> Result<Self, SinkError> {
        Self::prepare(builder().create_with_backend(storage).map_err(SinkError::failed)?)
    }

    /// Sees to it that the table is there, so that nobody has to ask later.
    fn prepare(database: Database) -> Result<Self, SinkError> {
        let transaction = database.begin_write().map_err(SinkError::failed)?;
        transaction.open_table(ROWS).map_err(SinkError::failed)?;
        transaction.commit().map_err(SinkError::failed)?;
        Ok(Self { database })
    }
}

/// Makes an empty file. Another process that does the same at the same time makes the same.
#[expect(clippy::disallowed_methods, reason = "this is an edge: redb opens the file itself too")]
fn make(path: &Path) -> Result<(), SinkError> {
    let new = path.with_added_extension("new");
    let made = match builder().create(&new) {
        Err(error @ DatabaseError::DatabaseAlreadyOpen) => Err(error),
        Ok(database) => Ok(database),
        // A crash has left half of one.
        Err(_) => {
            fs::remove_file(&new)?;
            builder().create(&new)
        }
    };
    RedbSink::prepare(made.map_err(SinkError::failed)?)?;
    fs::rename(&new, path)?;
    // The name is durable only with its directory.
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    fs::File::open(parent.unwrap_or(Path::new(".")))?.sync_all()?;
    Ok(())
}

fn builder() -> Builder {
    let mut builder = Builder::new();
    builder.set_cache_size(CACHE_BYTES);
    builder
}

impl Sink for RedbSink {
    fn snapshot(&self) -> Result<Box<dyn Snapshot>, SinkError> {
        let transaction = self.database.begin_read().map_err(SinkError::failed)?;
        let rows = transaction.open_table(ROWS).map_err(SinkError::failed)?;
        Ok(Box::new(RedbSnapshot(rows)))
    }

    fn commit(&self, changes: &Changes) -> Result<(), SinkError> {
        let transaction = self.database.begin_write().map_err(SinkError::failed)?;
        {
            let mut rows = transaction.open_table(ROWS).map_err(SinkError::failed)?;
            for (key, expected) in &changes.expected {
                let value = rows.get(&**key).map_err(SinkError::failed)?;
                if value.as_ref().map(redb::AccessGuard::value) != expected.as_deref() {
                    // Dropped without a commit, the transaction changes nothing.
                    return Err(SinkError::Moved);
                }
            }
            for (key, value) in &changes.writes {
                match value {
                    Some(value) => rows.insert(&**key, &**value).map(drop),
                    None => rows.remove(&**key).map(drop),
                }
                .map_err(SinkError::failed)?;
            }
        }
        transaction.commit().map_err(SinkError::failed)
    }
}

struct RedbSnapshot(ReadOnlyTable<&'static [u8], &'static [u8]>);

impl std::fmt::Debug for RedbSnapshot {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("RedbSnapshot")
    }
}

impl Snapshot for RedbSnapshot {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, SinkError> {
        let value = self.0.get(key).map_err(SinkError::failed)?;
        Ok(value.map(|value| Bytes::copy_from_slice(value.value())))
    }

    fn scan(
        &self,
        from: &[u8],
        until: &[u8],
        count_max: usize,
    ) -> Result<Vec<(Bytes, Bytes)>, SinkError> {
        if from >= until {
            return Ok(Vec::new());
        }
        let rows = self.0.range(from..until).map_err(SinkError::failed)?;
        rows.take(count_max)
            .map(|row| {
                let (key, value) = row?;
                Ok((Bytes::copy_from_slice(key.value()), Bytes::copy_from_slice(value.value())))
            })
            .collect::<Result<_, redb::StorageError>>()
            .map_err(SinkError::failed)
    }
}

impl From<io::Error> for SinkError {
    fn from(error: io::Error) -> Self {
        Self::failed(error)
    }
}
