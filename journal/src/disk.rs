//! The disk as a value: every byte that Lattice keeps goes through [`Disk`].
//!
//! The trait is synchronous and positional, so that it can be carried out by a thread in production and by a model in
//! the simulator. Its contract is the one that POSIX gives and no more:
//!
//! - a write is *visible* to later reads at once and *durable* only after [`DiskFile::sync_data`] has returned `Ok`;
//! - un-synced writes may survive a crash whole, in part, in any order, or not at all;
//! - a created, renamed or removed name is durable only after [`Disk::sync_dir`] of its directory;
//! - space is promised by [`DiskFile::allocate`]: a write inside the allocated length does not meet a full disk;
//! - **after a failed `sync_data` nothing is known** about the writes it covered. A later success does not mean that
//!   they are durable (Rebello et al., *Can applications recover from fsync failures?*, USENIX ATC 2020). The only safe
//!   answer is to stop the node, which is what every caller does.

use std::fmt::Debug;
use std::io;
use std::ops::Range;
use std::path::Path;

mod memory;
mod real;

pub use memory::MemoryDisk;
pub use real::RealDisk;

/// How [`Disk::open`] opens a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OpenMode {
    /// An existing file, for reading only.
    Read,
    /// An existing file, for reading and writing.
    ReadWrite,
    /// A new file, for reading and writing; it is an error if the name exists.
    CreateNew,
}

/// A file system, real or simulated.
pub trait Disk: Debug + Send + Sync + 'static {
    /// Opens a file.
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Box<dyn DiskFile>>;

    /// Gives a file another name in one step, replacing what had that name. Durable after [`Disk::sync_dir`].
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Removes a file. Durable after [`Disk::sync_dir`].
    fn remove(&self, path: &Path) -> io::Result<()>;

    /// Names of the files and directories in a directory, sorted.
    fn list(&self, directory: &Path) -> io::Result<Vec<String>>;

    /// Creates a directory and those above it, and makes their names durable; it is no error if it exists.
    fn create_dir(&self, directory: &Path) -> io::Result<()>;

    /// Makes the names in a directory durable.
    fn sync_dir(&self, directory: &Path) -> io::Result<()>;

    /// Takes an exclusive lock on a file, which is created if need be; held until the guard is dropped or the process
    /// ends. [`io::ErrorKind::WouldBlock`] if another holder has it.
    fn lock(&self, path: &Path) -> io::Result<Box<dyn DiskLock>>;
}

/// An open file of a [`Disk`].
pub trait DiskFile: Debug + Send + Sync {
    /// Reads at most `buffer.len()` bytes; fewer only at the end of the file.
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize>;

    /// Writes all of `bytes`, growing the file if need be.
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()>;

    /// Makes sure that the first `length` bytes have blocks of their own, reading as zero where nothing was written;
    /// [`io::ErrorKind::StorageFull`] if there is no room. The file is at least `length` bytes long afterwards.
    fn allocate(&self, length: u64) -> io::Result<()>;

    /// Says that these bytes, which are allocated and read as zero, will be written soon, a few at a time with a sync behind each. Nobody
    /// writes there at the same time. A file system for which the first write to a block is dearer than the next ones makes them
    /// ready; where all are alike, nothing happens. They read as zero afterwards, also if a crash comes in between.
    fn make_ready(&self, _bytes: Range<u64>) -> io::Result<()> {
        Ok(())
    }

    /// Makes everything written to this file, and its length, durable. An error is final: see the head of this module.
    fn sync_data(&self) -> io::Result<()>;

    /// The file's length in bytes.
    fn length(&self) -> io::Result<u64>;

    /// Asks that the next read of these bytes come from the disk itself, and not from a copy that the system keeps of an earlier
    /// read, which may have gone wrong. A wish: where nothing is kept, or it cannot be dropped, nothing happens.
    fn forget_cached(&self, _offset: u64, _length: u64) {}
}

/// Holds an exclusive lock; dropping it gives the lock back.
pub trait DiskLock: Debug + Send + Sync {}
