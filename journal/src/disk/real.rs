//! The disk of this machine.
#![expect(clippy::disallowed_methods, reason = "this is the edge where files are really opened")]

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::Path;

use super::{Disk, DiskFile, DiskLock, OpenMode};

/// The file system of this machine, through positional reads and writes, `fdatasync` and `fallocate`.
#[derive(Clone, Copy, Debug, Default)]
pub struct RealDisk;

impl Disk for RealDisk {
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Box<dyn DiskFile>> {
        let mut options = OpenOptions::new();
        options.read(true);
        match mode {
            OpenMode::Read => {}
            OpenMode::ReadWrite => {
                options.write(true);
            }
            OpenMode::CreateNew => {
                options.write(true).create_new(true);
            }
        }
        Ok(Box::new(RealFile { file: options.open(path)? }))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn list(&self, directory: &Path) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(directory)? {
            names.push(entry?.file_name().to_string_lossy().into_owned());
        }
        names.sort();
        Ok(names)
    }

    fn create_dir(&self, directory: &Path) -> io::Result<()> {
        let missing: Vec<&Path> = directory
            .ancestors()
            .take_while(|ancestor| !ancestor.as_os_str().is_empty() && !ancestor.exists())
            .collect();
        fs::create_dir_all(directory)?;
        for created in missing.iter().rev() {
            match created.parent() {
                Some(parent) if !parent.as_os_str().is_empty() => self.sync_dir(parent)?,
                Some(_) => self.sync_dir(Path::new("."))?,
                None => {}
            }
        }
        Ok(())
    }

    fn sync_dir(&self, directory: &Path) -> io::Result<()> {
        File::open(directory)?.sync_all()
    }

    fn lock(&self, path: &Path) -> io::Result<Box<dyn DiskLock>> {
        let file =
            OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path)?;
        match file.try_lock() {
            Ok(()) => Ok(Box::new(RealLock { file })),
            Err(TryLockError::WouldBlock) => Err(io::ErrorKind::WouldBlock.into()),
            Err(TryLockError::Error(error)) => Err(error),
        }
    }
}

#[derive(Debug)]
struct RealFile {
    file: File,
}

impl DiskFile for RealFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut filled = 0;
        while filled < buffer.len() {
            let at = offset + to_u64(filled);
            match self.file.read_at(&mut buffer[filled..], at) {
                Ok(0) => break,
                Ok(count) => filled += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(filled)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.file.write_all_at(bytes, offset).map_err(full_disk)
    }

    fn allocate(&self, length: u64) -> io::Result<()> {
        // The slow way. What is already in the file was written and so has its blocks.
        if self.fallocate(length)? { Ok(()) } else { self.write_zeros(self.length()?..length) }
    }

    /// Blocks that were only allocated are marked as such, and lose the mark when they are first written: a change of the file's
    /// metadata, for which the sync behind it has to wait. Elsewhere they were filled with zeros when they were allocated.
    #[cfg(target_os = "linux")]
    fn make_ready(&self, bytes: Range<u64>) -> io::Result<()> {
        self.write_zeros(bytes)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    fn length(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }

    #[cfg(target_os = "linux")]
    fn forget_cached(&self, offset: u64, length: u64) {
        use rustix::fs::{Advice, fadvise};
        if let Some(length) = std::num::NonZeroU64::new(length) {
            // It is advice, which may be refused; the next read is then what this one was.
            let _ = fadvise(&self.file, offset, Some(length), Advice::DontNeed);
        }
    }
}

impl RealFile {
    /// Asks the file system for the blocks; `false` if it cannot promise any.
    #[cfg(target_os = "linux")]
    fn fallocate(&self, length: u64) -> io::Result<bool> {
        use rustix::fs::{FallocateFlags, fallocate};
        use rustix::io::{Errno, retry_on_intr};
        if length == 0 {
            return Ok(true);
        }
        match retry_on_intr(|| fallocate(&self.file, FallocateFlags::empty(), 0, length)) {
            Ok(()) => Ok(true),
            Err(Errno::OPNOTSUPP | Errno::NOSYS) => Ok(false),
            Err(errno) => Err(full_disk(errno.into())),
        }
    }

    #[cfg(not(target_os = "linux"))]
    fn fallocate(&self, _length: u64) -> io::Result<bool> {
        Ok(false)
    }

    fn write_zeros(&self, bytes: Range<u64>) -> io::Result<()> {
        static ZEROS: [u8; 64 * 1024] = [0; 64 * 1024];
        let mut at = bytes.start;
        while at < bytes.end {
            let rest = usize::try_from(bytes.end - at).unwrap_or(ZEROS.len());
            let part = &ZEROS[..rest.min(ZEROS.len())];
            self.write_at(part, at)?;
            at += to_u64(part.len());
        }
        Ok(())
    }
}

/// A quota that is used up is the same trouble as a full disk, and is met in the same way.
fn full_disk(error: io::Error) -> io::Error {
    if error.kind() == io::ErrorKind::QuotaExceeded {
        io::Error::new(io::ErrorKind::StorageFull, error)
    } else {
        error
    }
}

fn to_u64(length: usize) -> u64 {
    u64::try_from(length).expect("a memory length fits 64 bits")
}

/// The lock belongs to the open file and goes with the last handle of it.
#[derive(Debug)]
struct RealLock {
    file: File,
}

impl DiskLock for RealLock {}

impl Drop for RealLock {
    fn drop(&mut self) {
        // A process that is being started from this one has every handle until it runs its own program. Should giving it back fail, it
        // goes with the last of them.
        let _ = self.file.unlock();
    }
}
