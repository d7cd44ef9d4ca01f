//! Takes in a snapshot that the leader sends piece by piece.

use std::path::{Path, PathBuf};
use std::sync::{MutexGuard, PoisonError};

use lattice_journal::{Disk, DiskFile, OpenMode};

use super::reader::SnapshotReader;
use super::{SnapshotError, SnapshotStore, file_name, is_missing, sync_dir};
use crate::types::SnapshotMeta;

/// Space is taken in steps of this many bytes: a size that the sender lied about costs no more than one of them.
const ALLOCATION_STEP: u64 = 8 << 20;

/// How far a snapshot that is being received has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Received {
    /// The next byte wanted. If it is not the end of the piece just given, that piece was not where it should be and
    /// nothing was done with it.
    pub next: u64,
    /// The snapshot is whole, verified and durable.
    pub is_complete: bool,
}

/// A snapshot that is not whole yet.
#[derive(Debug)]
pub(super) struct Incoming {
    meta: SnapshotMeta,
    path: PathBuf,
    file: Box<dyn DiskFile>,
    next: u64,
    allocated: u64,
    /// CRC32C of what has come so far.
    checksum: u32,
}

impl SnapshotStore {
    /// Takes in the piece of the snapshot `meta` that begins at `offset`. Offset zero begins anew, and drops what came of
    /// any other snapshot; any other offset must be the one that is expected, else the answer says which.
    ///
    /// Progress is kept in memory only: after a restart the answer is zero. If the whole file is here already (a
    /// crash came between its arrival and the log's record of it), offset zero answers *complete*.
    ///
    /// # Errors
    ///
    /// [`SnapshotError::NoSpace`] and [`SnapshotError::Corrupt`] drop what has come so far; the snapshot may be sent again. Others
    /// are fatal.
    pub fn receive(
        &self,
        meta: &SnapshotMeta,
        offset: u64,
        data: &[u8],
    ) -> Result<Received, SnapshotError> {
        let mut slot = self.lock_incoming();
        if offset == 0 {
            self.discard(&mut slot);
            if self.holds(meta)? {
                return Ok(Received { next: meta.size, is_complete: true });
            }
            *slot = Some(self.begin_receiving(meta)?);
        }
        let Some(incoming) = slot.as_mut().filter(|incoming| incoming.meta == *meta) else {
            return Ok(Received { next: 0, is_complete: false });
        };
        if offset != incoming.next {
            return Ok(Received { next: incoming.next, is_complete: false });
        }
        let result = incoming.take(data).and_then(|()| self.complete(incoming));
        let next = incoming.next;
        match result {
            Ok(is_complete) => {
                if is_complete {
                    *slot = None;
                }
                Ok(Received { next, is_complete })
            }
            Err(error) => {
                self.discard(&mut slot);
                Err(error)
            }
        }
    }

    fn lock_incoming(&self) -> MutexGuard<'_, Option<Incoming>> {
        // A panic leaves a file that lacks bytes at worst, which its checksum tells.
        self.incoming.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn begin_receiving(&self, meta: &SnapshotMeta) -> Result<Incoming, SnapshotError> {
        let path = self.directory.join(self.temporary_name());
        let file = self.disk.open(&path, OpenMode::CreateNew);
        let file = file.map_err(|error| SnapshotError::io("create", &path, error))?;
        Ok(Incoming { meta: meta.clone(), path, file, next: 0, allocated: 0, checksum: 0 })
    }

    fn discard(&self, slot: &mut Option<Incoming>) {
        if let Some(incoming) = slot.take() {
            drop(incoming.file);
            // If it cannot be removed now, it is when the store is opened next.
            let _ = self.disk.remove(&incoming.path);
        }
    }

    /// Whether the file is here, whole and durable.
    fn holds(&self, meta: &SnapshotMeta) -> Result<bool, SnapshotError> {
        match self.verify(meta) {
            Ok(()) => sync_dir(self.disk.as_ref(), &self.directory).map(|()| true),
            Err(SnapshotError::Missing { .. } | SnapshotError::Corrupt { .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Verifies and names the file if its last byte has come.
    fn complete(&self, incoming: &Incoming) -> Result<bool, SnapshotError> {
        if incoming.next < incoming.meta.size {
            return Ok(false);
        }
        let Incoming { meta, path, file, checksum, .. } = incoming;
        if *checksum != meta.checksum {
            return Err(SnapshotError::corrupt(path, "its checksum is not the sender's"));
        }
        file.sync_data().map_err(|error| SnapshotError::fatal("sync", path, error))?;
        check_frame(self.disk.as_ref(), path, meta)?;
        let rename = self.disk.rename(path, &self.directory.join(file_name(meta)));
        rename.map_err(|error| SnapshotError::io("rename", path, error))?;
        sync_dir(self.disk.as_ref(), &self.directory)?;
        Ok(true)
    }
}

impl Incoming {
    fn take(&mut self, data: &[u8]) -> Result<(), SnapshotError> {
        let length = u64::try_from(data.len()).expect("a length fits 64 bits");
        let end = self.next.checked_add(length).filter(|&end| end <= self.meta.size);
        let end = end.ok_or_else(|| SnapshotError::corrupt(&self.path, "it is too long"))?;
        if end > self.allocated {
            let wanted = end.max(self.allocated.saturating_add(ALLOCATION_STEP));
            let wanted = wanted.min(self.meta.size);
            let allocate = self.file.allocate(wanted);
            allocate.map_err(|error| SnapshotError::io("allocate", &self.path, error))?;
            self.allocated = wanted;
        }
        let write = self.file.write_at(data, self.next);
        write.map_err(|error| SnapshotError::io("write", &self.path, error))?;
        self.checksum = crc32c::crc32c_append(self.checksum, data);
        self.next = end;
        Ok(())
    }
}

/// What arrived is what the sender has; that it is a snapshot of the entry it claims must be seen too.
fn check_frame(disk: &dyn Disk, path: &Path, meta: &SnapshotMeta) -> Result<(), SnapshotError> {
    let file = disk.open(path, OpenMode::Read);
    let file = file.map_err(|error| {
        if is_missing(&error) {
            SnapshotError::corrupt(path, "it was removed while it arrived")
        } else {
            SnapshotError::fatal("open", path, error)
        }
    })?;
    SnapshotReader::open(file, path, meta).map(drop)
}
