//! Snapshot files: written beside the running node, sent and received in pieces, replaced without a moment in which there
//! is none.
//!
//! A file is written under a temporary name, synced, renamed, and its directory synced; only then does the log record
//! it as the latest one, and only then is the previous one removed. So the file that the log refers to is always there and
//! whole, whatever call a crash falls on; one that is newer than the log's record was never referred to and goes when the store
//! is opened. The name holds index, term and checksum, `{index}-{term}-{crc32c}.snap`: two nodes' snapshots of the same
//! entry need not be the same bytes, and one from the leader must not replace the one that the log still refers to.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use lattice_journal::{Disk, OpenMode};
use thiserror::Error;

use crate::membership::Membership;
use crate::types::{EntryId, LogIndex, SnapshotMeta, Term};

mod format;
mod reader;
mod receive;
mod writer;

pub use reader::SnapshotReader;
pub use receive::Received;
pub use writer::SnapshotWriter;

/// The snapshots of one Raft group. Clones share the directory; calls block on the disk.
#[derive(Clone, Debug)]
pub struct SnapshotStore {
    disk: Arc<dyn Disk>,
    directory: PathBuf,
    /// Numbers the temporary files of this process.
    temporary: Arc<AtomicU64>,
    incoming: Arc<Mutex<Option<receive::Incoming>>>,
}

/// Why a snapshot could not be written, taken in or read.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum SnapshotError {
    /// No room. What was begun is given up; the latest snapshot is untouched.
    #[error("no space for snapshot file {}: {source}", .path.display())]
    NoSpace {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The disk failed.
    #[error("cannot {action} snapshot file {}: {source}", .path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// There is no such snapshot.
    #[error("there is no snapshot of entry {last} in {}", .directory.display())]
    Missing {
        /// Its last entry.
        last: EntryId,
        /// Where it should be.
        directory: PathBuf,
    },
    /// The file is not what was written.
    #[error("snapshot file {} is damaged: {reason}", .path.display())]
    Corrupt {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// The state machine gave a part that does not fit the format.
    #[error("part {name:?} cannot be in a snapshot: {reason}")]
    Part {
        /// The beginning of its name.
        name: String,
        /// Why.
        reason: &'static str,
    },
}

const SUFFIX: &str = ".snap";
const TEMPORARY_SUFFIX: &str = ".tmp";

impl SnapshotError {
    /// Whether the node must stop: the disk failed, and nothing is known about what it holds.
    #[must_use]
    pub fn is_fatal(&self) -> bool {
        matches!(self, Self::Io { .. })
    }

    /// A failure of a call that a full disk may refuse.
    fn io(action: &'static str, path: &Path, source: io::Error) -> Self {
        match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                Self::NoSpace { path: path.to_path_buf(), source }
            }
            _ => Self::fatal(action, path, source),
        }
    }

    /// A failure that is final whatever its kind; a sync that failed for lack of room among them.
    fn fatal(action: &'static str, path: &Path, source: io::Error) -> Self {
        Self::Io { action, path: path.to_path_buf(), source }
    }

    fn corrupt(path: &Path, reason: &'static str) -> Self {
        Self::Corrupt { path: path.to_path_buf(), reason }
    }
}

impl SnapshotStore {
    /// Opens the directory, which is created if need be, and removes what a crash may have left: temporary files, and
    /// snapshots other than `latest`, the one that the log refers to.
    ///
    /// Whether `latest` is there and whole is seen when it is read; see [`Self::verify`].
    ///
    /// # Errors
    ///
    /// What the disk said.
    pub fn open(
        disk: Arc<dyn Disk>,
        directory: &Path,
        latest: Option<&SnapshotMeta>,
    ) -> Result<Self, SnapshotError> {
        let create = disk.create_dir(directory);
        create.map_err(|error| SnapshotError::io("create the directory of", directory, error))?;
        let store = Self {
            disk,
            directory: directory.to_path_buf(),
            temporary: Arc::default(),
            incoming: Arc::default(),
        };
        let latest = latest.map(file_name);
        store.remove_where(|name| {
            name.ends_with(TEMPORARY_SUFFIX)
                || (parse_name(name).is_some() && latest.as_deref() != Some(name))
        })?;
        Ok(store)
    }

    /// Begins to write a snapshot of the state as of `last`, when the members were `membership`.
    ///
    /// # Errors
    ///
    /// What the disk said.
    pub fn begin(
        &self,
        last: EntryId,
        membership: &Membership,
    ) -> Result<SnapshotWriter, SnapshotError> {
        let temporary = self.temporary_name();
        SnapshotWriter::begin(Arc::clone(&self.disk), &self.directory, &temporary, last, membership)
    }

    /// The bytes of a snapshot file from `offset` on, at most `length_max` of them; none at its end.
    ///
    /// # Errors
    ///
    /// [`SnapshotError::Missing`] if it was removed; [`SnapshotError::Corrupt`] if its length is wrong; else what the
    /// disk said. The content is not verified: the receiver does.
    pub fn read(
        &self,
        meta: &SnapshotMeta,
        offset: u64,
        length_max: usize,
    ) -> Result<Bytes, SnapshotError> {
        let (file, path) = self.open_file(meta)?;
        let fatal = |error| SnapshotError::fatal("read", &path, error);
        if file.length().map_err(fatal)? != meta.size {
            let reason = "its length is not the one that was recorded";
            return Err(SnapshotError::corrupt(&path, reason));
        }
        let left = usize::try_from(meta.size.saturating_sub(offset)).unwrap_or(usize::MAX);
        let mut bytes = vec![0; left.min(length_max)];
        let count = file.read_at(&mut bytes, offset).map_err(fatal)?;
        if count < bytes.len() {
            return Err(SnapshotError::corrupt(&path, "it is cut short"));
        }
        Ok(bytes.into())
    }

    /// Opens a snapshot to restore a state machine from. Every part is verified before it is handed out.
    ///
    /// # Errors
    ///
    /// [`SnapshotError::Missing`], [`SnapshotError::Corrupt`], or what the disk said.
    pub fn open_parts(&self, meta: &SnapshotMeta) -> Result<SnapshotReader, SnapshotError> {
        let (file, path) = self.open_file(meta)?;
        SnapshotReader::open(file, &path, meta)
    }

    /// Reads a whole snapshot and checks every byte of it.
    ///
    /// # Errors
    ///
    /// As [`Self::open_parts`].
    pub fn verify(&self, meta: &SnapshotMeta) -> Result<(), SnapshotError> {
        let mut reader = self.open_parts(meta)?;
        while reader.next_part()?.is_some() {}
        Ok(())
    }

    /// The last entries of the snapshots here, ascending by index.
    ///
    /// # Errors
    ///
    /// What the disk said.
    pub fn list(&self) -> Result<Vec<EntryId>, SnapshotError> {
        Ok(self.names()?.iter().filter_map(|name| parse_name(name)).collect())
    }

    /// Removes the snapshots whose last entry lies before `oldest`, that of the oldest one still in use.
    ///
    /// # Errors
    ///
    /// What the disk said.
    pub fn retain(&self, oldest: LogIndex) -> Result<(), SnapshotError> {
        // A newer one may have been finished just now, and its record be on its way to the log.
        self.remove_where(|name| parse_name(name).is_some_and(|last| last.index < oldest))
    }

    fn remove_where(&self, is_doomed: impl Fn(&str) -> bool) -> Result<(), SnapshotError> {
        let mut removed = false;
        for name in self.names()?.iter().filter(|name| is_doomed(name)) {
            let path = self.directory.join(name);
            match self.disk.remove(&path) {
                Ok(()) => removed = true,
                Err(error) if is_missing(&error) => {}
                Err(error) => return Err(SnapshotError::fatal("remove", &path, error)),
            }
        }
        if removed { sync_dir(self.disk.as_ref(), &self.directory) } else { Ok(()) }
    }

    fn names(&self) -> Result<Vec<String>, SnapshotError> {
        let names = self.disk.list(&self.directory);
        names.map_err(|error| SnapshotError::fatal("list", &self.directory, error))
    }

    fn open_file(
        &self,
        meta: &SnapshotMeta,
    ) -> Result<(Box<dyn lattice_journal::DiskFile>, PathBuf), SnapshotError> {
        let path = self.directory.join(file_name(meta));
        match self.disk.open(&path, OpenMode::Read) {
            Ok(file) => Ok((file, path)),
            Err(error) if is_missing(&error) => {
                Err(SnapshotError::Missing { last: meta.last, directory: self.directory.clone() })
            }
            Err(error) => Err(SnapshotError::fatal("open", &path, error)),
        }
    }

    fn temporary_name(&self) -> String {
        let number = self.temporary.fetch_add(1, Ordering::Relaxed);
        format!("{number}{TEMPORARY_SUFFIX}")
    }
}

fn file_name(meta: &SnapshotMeta) -> String {
    let (index, term) = (meta.last.index.0, meta.last.term.0);
    format!("{index:020}-{term:020}-{:08x}{SUFFIX}", meta.checksum)
}

/// The last entry of the snapshot with this file name; `None` if it is not a snapshot's.
fn parse_name(name: &str) -> Option<EntryId> {
    let mut fields = name.strip_suffix(SUFFIX)?.split('-');
    let index = fields.next()?.parse().ok()?;
    let term = fields.next()?.parse().ok()?;
    u32::from_str_radix(fields.next()?, 16).ok()?;
    fields.next().is_none().then_some(EntryId::new(Term(term), LogIndex(index)))
}

fn is_missing(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound
}

fn sync_dir(disk: &dyn Disk, directory: &Path) -> Result<(), SnapshotError> {
    disk.sync_dir(directory).map_err(|error| SnapshotError::fatal("sync", directory, error))
}

#[cfg(test)]
mod tests;
