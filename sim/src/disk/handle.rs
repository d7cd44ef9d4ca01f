//! Open files and locks, which die with the next crash.

use std::fmt;
use std::io;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::MutexGuard;

use lattice_journal::{DiskFile, DiskLock};

use crate::disk::pages::to_u64;
use crate::disk::state::{State, Target};
use crate::disk::{FILE_LENGTH_MAX, SimDisk};

/// An open file of a [`SimDisk`].
pub(super) struct SimFile {
    pub(super) disk: SimDisk,
    pub(super) inode: u64,
    pub(super) generation: u64,
    pub(super) writable: bool,
}

impl SimFile {
    /// The disk, if this file was opened since its last crash.
    fn state(&self) -> io::Result<MutexGuard<'_, State>> {
        let state = self.disk.state();
        if state.generation == self.generation {
            Ok(state)
        } else {
            Err(io::Error::other("the file was opened before the last crash (simulated)"))
        }
    }

    fn change(&self, offset: u64, length: usize) -> io::Result<MutexGuard<'_, State>> {
        let mut state = self.state()?;
        state.call()?;
        if !self.writable {
            return Err(io::ErrorKind::PermissionDenied.into());
        }
        let end = offset.checked_add(to_u64(length));
        if end.is_none_or(|end| end > FILE_LENGTH_MAX) {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        Ok(state)
    }
}

impl DiskFile for SimFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut state = self.state()?;
        state.look()?;
        state.read(self.inode, buffer, offset)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.change(offset, bytes.len())?.write(self.inode, bytes, offset)
    }

    fn allocate(&self, length: u64) -> io::Result<()> {
        self.change(length, 0)?.allocate(self.inode, length)
    }

    fn make_ready(&self, bytes: Range<u64>) -> io::Result<()> {
        if !self.state()?.options.writes_zeros || bytes.is_empty() {
            return Ok(());
        }
        let length = usize::try_from(bytes.end - bytes.start);
        let length = length.map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))?;
        self.write_at(&vec![0; length], bytes.start)
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut state = self.state()?;
        state.call()?;
        state.sync(Target::File(self.inode))
    }

    fn length(&self) -> io::Result<u64> {
        let state = self.state()?;
        state.look()?;
        Ok(state.inodes[&self.inode].visible.length())
    }
}

impl fmt::Debug for SimFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SimFile").field("inode", &self.inode).finish_non_exhaustive()
    }
}

impl Drop for SimFile {
    fn drop(&mut self) {
        let mut state = self.disk.state();
        if state.generation == self.generation {
            state.close_handle(self.inode);
        }
    }
}

/// A lock on a file of a [`SimDisk`].
pub(super) struct SimLock {
    pub(super) disk: SimDisk,
    pub(super) path: PathBuf,
    pub(super) generation: u64,
}

impl DiskLock for SimLock {}

impl fmt::Debug for SimLock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SimLock").field("path", &self.path).finish_non_exhaustive()
    }
}

impl Drop for SimLock {
    fn drop(&mut self) {
        let mut state = self.disk.state();
        if state.generation == self.generation {
            state.locks.remove(&self.path);
        }
    }
}
