//! A disk in memory: always durable, for unit tests and for nodes that may forget.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::{Disk, DiskFile, DiskLock, OpenMode};

/// A file system in memory. Everything written is durable at once and there is always room.
///
/// Clones share the same files, so that a test can "restart" the owner of the disk, and look at or spoil the bytes behind
/// its back. It models no crash and no fault: the simulated disk of `lattice-sim` does.
#[derive(Clone, Debug, Default)]
pub struct MemoryDisk {
    names: Arc<Mutex<Names>>,
}

type Bytes = Arc<Mutex<Vec<u8>>>;

#[derive(Debug, Default)]
struct Names {
    files: BTreeMap<PathBuf, Bytes>,
    directories: BTreeSet<PathBuf>,
    locked: BTreeSet<PathBuf>,
}

impl MemoryDisk {
    /// An empty disk.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The whole content of a file.
    ///
    /// # Errors
    ///
    /// [`io::ErrorKind::NotFound`] if there is no such file.
    pub fn content(&self, path: impl AsRef<Path>) -> io::Result<Vec<u8>> {
        let bytes = self.bytes(path.as_ref())?;
        Ok(lock(&bytes).clone())
    }

    /// Sets the whole content of a file, which is created if need be. Open files see the change.
    pub fn set_content(&self, path: impl AsRef<Path>, content: impl Into<Vec<u8>>) {
        let mut names = lock(&self.names);
        let bytes = names.files.entry(path.as_ref().to_path_buf()).or_default();
        *lock(bytes) = content.into();
    }

    /// Flips the bits of `mask` in one byte of a file.
    ///
    /// # Errors
    ///
    /// [`io::ErrorKind::NotFound`] if there is no such file, [`io::ErrorKind::UnexpectedEof`] if it is shorter.
    pub fn corrupt(&self, path: impl AsRef<Path>, offset: usize, mask: u8) -> io::Result<()> {
        let bytes = self.bytes(path.as_ref())?;
        let mut bytes = lock(&bytes);
        let byte = bytes.get_mut(offset).ok_or(io::ErrorKind::UnexpectedEof)?;
        *byte ^= mask;
        Ok(())
    }

    /// A copy that shares nothing with the original and on which nothing is locked: the disk as a crash leaves it.
    #[must_use]
    pub fn fork(&self) -> Self {
        let names = lock(&self.names);
        let copy = |(path, bytes): (&PathBuf, &Bytes)| {
            (path.clone(), Arc::new(Mutex::new(lock(bytes).clone())))
        };
        let files = names.files.iter().map(copy).collect();
        let directories = names.directories.clone();
        Self { names: Arc::new(Mutex::new(Names { files, directories, locked: BTreeSet::new() })) }
    }

    fn bytes(&self, path: &Path) -> io::Result<Bytes> {
        lock(&self.names).files.get(path).cloned().ok_or_else(|| not_found(path))
    }
}

impl Names {
    fn has_directory(&self, directory: &Path) -> bool {
        directory.as_os_str().is_empty()
            || directory.parent().is_none()
            || self.directories.contains(directory)
    }

    fn need_parent(&self, path: &Path) -> io::Result<()> {
        match path.parent() {
            Some(parent) if !self.has_directory(parent) => Err(not_found(parent)),
            _ => Ok(()),
        }
    }
}

impl Disk for MemoryDisk {
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Box<dyn DiskFile>> {
        let mut names = lock(&self.names);
        let bytes = match (names.files.get(path), mode) {
            (Some(_), OpenMode::CreateNew) => return Err(io::ErrorKind::AlreadyExists.into()),
            (Some(bytes), OpenMode::Read | OpenMode::ReadWrite) => Arc::clone(bytes),
            (None, OpenMode::Read | OpenMode::ReadWrite) => return Err(not_found(path)),
            (None, OpenMode::CreateNew) => {
                names.need_parent(path)?;
                Arc::clone(names.files.entry(path.to_path_buf()).or_default())
            }
        };
        Ok(Box::new(MemoryFile { bytes, writable: mode != OpenMode::Read }))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut names = lock(&self.names);
        names.need_parent(to)?;
        let bytes = names.files.remove(from).ok_or_else(|| not_found(from))?;
        names.files.insert(to.to_path_buf(), bytes);
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        lock(&self.names).files.remove(path).map(drop).ok_or_else(|| not_found(path))
    }

    fn list(&self, directory: &Path) -> io::Result<Vec<String>> {
        let names = lock(&self.names);
        if !names.has_directory(directory) {
            return Err(not_found(directory));
        }
        let paths = names.files.keys().chain(names.directories.iter());
        let inside = paths.filter(|path| path.parent() == Some(directory));
        let mut listed: Vec<String> = inside
            .filter_map(|path| Some(path.file_name()?.to_string_lossy().into_owned()))
            .collect();
        listed.sort();
        Ok(listed)
    }

    fn create_dir(&self, directory: &Path) -> io::Result<()> {
        let mut names = lock(&self.names);
        for ancestor in directory.ancestors() {
            if names.files.contains_key(ancestor) {
                return Err(io::ErrorKind::AlreadyExists.into());
            }
            if !names.has_directory(ancestor) {
                names.directories.insert(ancestor.to_path_buf());
            }
        }
        Ok(())
    }

    fn sync_dir(&self, directory: &Path) -> io::Result<()> {
        if lock(&self.names).has_directory(directory) { Ok(()) } else { Err(not_found(directory)) }
    }

    fn lock(&self, path: &Path) -> io::Result<Box<dyn DiskLock>> {
        let mut names = lock(&self.names);
        names.need_parent(path)?;
        if !names.locked.insert(path.to_path_buf()) {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        names.files.entry(path.to_path_buf()).or_default();
        Ok(Box::new(MemoryLock { names: Arc::clone(&self.names), path: path.to_path_buf() }))
    }
}

#[derive(Debug)]
struct MemoryFile {
    bytes: Bytes,
    writable: bool,
}

impl MemoryFile {
    /// The bytes, grown with zeros to `length` if they are shorter.
    fn grown(&self, length: u64) -> io::Result<MutexGuard<'_, Vec<u8>>> {
        if !self.writable {
            return Err(io::ErrorKind::PermissionDenied.into());
        }
        let length = memory_length(length)?;
        let mut bytes = lock(&self.bytes);
        if bytes.len() < length {
            bytes.resize(length, 0);
        }
        Ok(bytes)
    }
}

impl DiskFile for MemoryFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let bytes = lock(&self.bytes);
        let Ok(offset) = usize::try_from(offset) else { return Ok(0) };
        let rest = bytes.get(offset..).unwrap_or_default();
        let count = rest.len().min(buffer.len());
        buffer[..count].copy_from_slice(&rest[..count]);
        Ok(count)
    }

    fn write_at(&self, written: &[u8], offset: u64) -> io::Result<()> {
        let start = memory_length(offset)?;
        let end = start.checked_add(written.len()).ok_or(io::ErrorKind::FileTooLarge)?;
        let length = u64::try_from(end).expect("a memory length fits 64 bits");
        let mut bytes = self.grown(length)?;
        bytes[start..end].copy_from_slice(written);
        Ok(())
    }

    fn allocate(&self, length: u64) -> io::Result<()> {
        self.grown(length).map(drop)
    }

    fn sync_data(&self) -> io::Result<()> {
        Ok(())
    }

    fn length(&self) -> io::Result<u64> {
        Ok(u64::try_from(lock(&self.bytes).len()).expect("a memory length fits 64 bits"))
    }
}

#[derive(Debug)]
struct MemoryLock {
    names: Arc<Mutex<Names>>,
    path: PathBuf,
}

impl DiskLock for MemoryLock {}

impl Drop for MemoryLock {
    fn drop(&mut self) {
        lock(&self.names).locked.remove(&self.path);
    }
}

/// A panic of another holder leaves whole values behind: every change here is one step.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn memory_length(length: u64) -> io::Result<usize> {
    usize::try_from(length).map_err(|error| io::Error::new(io::ErrorKind::FileTooLarge, error))
}

fn not_found(path: &Path) -> io::Error {
    io::Error::new(io::ErrorKind::NotFound, format!("no such name: {}", path.display()))
}
