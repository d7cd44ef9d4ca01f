//! Snapshots: a manifest that lists parts, and parts that are files named by their digest; written beside the running node, sent
//! and received in pieces, replaced without a moment in which there is none.
//!
//! **What is here is neither fetched nor written again.** A part is known by the SHA-256 of its bytes, on every node and in every
//! snapshot. So a receiver that restarts keeps what came, whoever sends the rest; it skips what its own snapshots have; and a
//! node's next snapshot writes only the parts that changed. Before a part counts as *here* it is read and compared with its digest.
//!
//! **A crash finds the old snapshot or the new one, whatever call it falls on.** A part is written under a temporary name, synced and
//! renamed; when all names are durable the manifest follows in the same way, and with its name the snapshot is there. Only then does the log
//! record it as the latest one, and only then are the previous one and the parts that nobody needs removed. A snapshot that is newer
//! than the log's record was never referred to: when the store is opened, it counts as one that is still arriving. Manifests are named
//! `{index}-{term}-{crc32c}.snap`: two nodes' snapshots of the same entry need not be the same bytes, and one from the leader must not
//! replace the one that the log still refers to. See `files` for the directory, `manifest` for the bytes, `receive` for transfers.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::{collections::BTreeSet, io};

use bytes::Bytes;
use lattice_journal::Disk;
use thiserror::Error;

use crate::membership::Membership;
use crate::types::{EntryId, LogIndex, SnapshotMeta};

mod files;
mod manifest;
mod reader;
mod receive;
mod writer;

pub use reader::SnapshotReader;
pub use receive::Received;
pub use writer::SnapshotWriter;

use files::{Counters, Files, INCOMING, SNAPSHOT, manifest_name, parse_manifest_name, parse_name};
use manifest::{Manifest, Place};

/// The snapshots of one Raft group. Clones share the directory; calls block on the disk.
#[derive(Clone, Debug)]
pub struct SnapshotStore {
    files: Arc<Files>,
    receiving: Arc<Mutex<receive::Receiving>>,
    /// The manifest that was last sent from.
    sending: Arc<Mutex<Option<Arc<Sending>>>>,
}

/// A manifest that parts are sent by, and its bytes as they were when their checksum was compared.
#[derive(Debug)]
struct Sending {
    manifest: Manifest,
    bytes: Bytes,
}

/// What has gone through a store since it was opened, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SnapshotCounts {
    /// Read to be sent.
    pub bytes_sent: u64,
    /// Arrived.
    pub bytes_received: u64,
    /// Not asked for, since a snapshot that was here has them.
    pub bytes_kept: u64,
    /// Not asked for, since they had come before the store was opened.
    pub bytes_resumed: u64,
    /// Written for snapshots of our own.
    pub bytes_written: u64,
    /// Not written for snapshots of our own, since they were here.
    pub bytes_reused: u64,
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
    /// Opens the directory, which is created if need be, and removes what a crash may have left: temporary files, snapshots
    /// other than `latest`, the one that the log refers to, and parts that are neither in that one nor in the last one that was arriving.
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
        Self::open_files(Files::open(disk, directory)?, latest)
    }

    /// Opens the directory with a planted bug.
    #[cfg(feature = "sim")]
    pub(crate) fn open_with_bug(
        disk: Arc<dyn Disk>,
        directory: &Path,
        latest: Option<&SnapshotMeta>,
        bug: Option<crate::sim::PlantedBug>,
    ) -> Result<Self, SnapshotError> {
        let mut files = Files::open(disk, directory)?;
        files.bug = bug;
        Self::open_files(files, latest)
    }

    fn open_files(files: Files, latest: Option<&SnapshotMeta>) -> Result<Self, SnapshotError> {
        let store =
            Self { files: Arc::new(files), receiving: Arc::default(), sending: Arc::default() };
        store.clean(latest)?;
        Ok(store)
    }

    fn clean(&self, latest: Option<&SnapshotMeta>) -> Result<(), SnapshotError> {
        let files = &self.files;
        let names = files.names()?;
        files.number_temporaries_after(&names);
        let interrupted = self.interrupted(&names, latest);
        if let Some((name, _)) = &interrupted
            && let Some(stem) = name.strip_suffix(SNAPSHOT)
        {
            files.rename(&files.path(name), &files.path(&format!("{stem}{INCOMING}")))?;
            files.sync_names()?;
        }
        let kept = latest.map(|meta| manifest_name(meta, SNAPSHOT));
        files.remove_where(&names, |name| {
            let is_kept = |kept: &Option<String>| kept.as_deref() == Some(name);
            files::is_temporary(name)
                || (parse_name(name, SNAPSHOT).is_some() && !is_kept(&kept))
                || (parse_name(name, INCOMING).is_some()
                    && interrupted.as_ref().is_none_or(|(kept, _)| kept != name))
        })?;
        files.sweep()?;
        if let Some((_, manifest)) = interrupted {
            let mut came: BTreeSet<_> =
                names.iter().filter_map(|name| files::parse_part(name)).collect();
            came.retain(|part| manifest.parts.iter().any(|listed| listed.digest == *part));
            if let Some(Ok(Some(latest))) = kept.map(|name| files.read_manifest(&name)) {
                latest.parts.iter().for_each(|part| {
                    came.remove(&part.digest);
                });
            }
            self.lock_receiving().came_before = came;
        }
        Ok(())
    }

    /// The snapshot that was arriving when the store was closed, or had arrived and the log has no record of it: one at most, and only
    /// if it is of use yet. One that cannot be read is of none.
    fn interrupted(
        &self,
        names: &[String],
        latest: Option<&SnapshotMeta>,
    ) -> Option<(String, Manifest)> {
        let latest = latest.map_or(LogIndex::ZERO, |meta| meta.last.index);
        let is_newer =
            |name: &&String| parse_manifest_name(name).is_some_and(|last| last.index > latest);
        let name = names.iter().rfind(is_newer)?;
        let manifest = self.files.read_manifest(name).ok().flatten()?;
        Some((name.clone(), manifest))
    }

    /// Removes the parts that nobody needs: those of a snapshot that was begun here and given up among them.
    ///
    /// # Errors
    ///
    /// What the disk said.
    pub fn remove_unneeded(&self) -> Result<(), SnapshotError> {
        self.files.sweep()
    }

    /// Begins to write a snapshot of the state as of `last`, when the members were `membership`.
    #[must_use]
    pub fn begin(&self, last: EntryId, membership: &Membership) -> SnapshotWriter {
        SnapshotWriter::begin(&self.files, last, membership)
    }

    /// The bytes of a snapshot from `offset` on, at most `length_max` of them and not beyond the manifest, or the part, that they
    /// begin in; none at the end. A part is verified before its first bytes are given.
    ///
    /// # Errors
    ///
    /// [`SnapshotError::Missing`] if it was removed; [`SnapshotError::Corrupt`] if it is damaged; else what the disk said.
    pub fn read(
        &self,
        meta: &SnapshotMeta,
        offset: u64,
        length_max: usize,
    ) -> Result<Bytes, SnapshotError> {
        let sending = self.sending(meta)?;
        let manifest = &sending.manifest;
        let at_most = |left: u64| usize::try_from(left).unwrap_or(usize::MAX).min(length_max);
        let bytes = match manifest.place(offset) {
            Place::Manifest => {
                let length = at_most(manifest.length() - offset);
                let start = usize::try_from(offset).expect("manifests are bounded");
                sending.bytes.slice(start..start + length)
            }
            Place::Part { part, within } => {
                let listed = &manifest.parts[part];
                if within == 0 && !self.files.holds(listed) {
                    let path = self.files.path(&manifest_name(meta, SNAPSHOT));
                    return Err(SnapshotError::corrupt(&path, "a part of it is damaged"));
                }
                let length = at_most(u64::from(listed.size - within));
                self.files.read_part(listed, within, length)?
            }
            Place::End => Bytes::new(),
        };
        let length = u64::try_from(bytes.len()).expect("a length fits 64 bits");
        Counters::add(&self.files.counters.sent, length);
        Ok(bytes)
    }

    fn sending(&self, meta: &SnapshotMeta) -> Result<Arc<Sending>, SnapshotError> {
        let mut sending = self.sending.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(sending) = sending.as_ref().filter(|sending| sending.manifest.meta() == *meta) {
            return Ok(Arc::clone(sending));
        }
        let (manifest, bytes) = self.manifest(meta)?;
        let begun = Arc::new(Sending { manifest, bytes });
        *sending = Some(Arc::clone(&begun));
        Ok(begun)
    }

    /// Opens a snapshot to restore a state machine from. Every part is verified before it is handed out.
    ///
    /// # Errors
    ///
    /// [`SnapshotError::Missing`], [`SnapshotError::Corrupt`], or what the disk said.
    pub fn open_parts(&self, meta: &SnapshotMeta) -> Result<SnapshotReader, SnapshotError> {
        let (manifest, _) = self.manifest(meta)?;
        Ok(SnapshotReader::new(&self.files, manifest))
    }

    /// The manifest, and its bytes.
    fn manifest(&self, meta: &SnapshotMeta) -> Result<(Manifest, Bytes), SnapshotError> {
        let name = manifest_name(meta, SNAPSHOT);
        let bytes = self.files.manifest_bytes(&name)?.ok_or_else(|| SnapshotError::Missing {
            last: meta.last,
            directory: self.files.directory().to_path_buf(),
        })?;
        let manifest = self.files.decode_manifest(&name, &bytes)?;
        if manifest.meta() == *meta {
            Ok((manifest, bytes.into()))
        } else {
            let reason = "it is not the snapshot that was recorded";
            Err(SnapshotError::corrupt(&self.files.path(&name), reason))
        }
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
        Ok(self.files.names()?.iter().filter_map(|name| parse_name(name, SNAPSHOT)).collect())
    }

    /// Removes the snapshots whose last entry lies before `oldest`, that of the oldest one still in use, and the parts that only they
    /// had.
    ///
    /// # Errors
    ///
    /// What the disk said.
    pub fn retain(&self, oldest: LogIndex) -> Result<(), SnapshotError> {
        self.forget_incoming(oldest);
        let is_older = |name: &str, suffix| {
            parse_name(name, suffix).is_some_and(|last: EntryId| last.index < oldest)
        };
        // A newer one may have been finished just now, and its record be on its way to the log.
        let is_doomed = |name: &str| is_older(name, SNAPSHOT) || is_older(name, INCOMING);
        if self.files.remove_where(&self.files.names()?, is_doomed)? {
            self.files.sweep()?;
        }
        Ok(())
    }

    /// What has gone through since the store was opened.
    #[must_use]
    pub fn counts(&self) -> SnapshotCounts {
        self.files.counters.read()
    }
}

#[cfg(test)]
mod tests;
