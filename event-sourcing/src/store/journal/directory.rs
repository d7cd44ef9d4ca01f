//! What a store's directory holds: who the store is, the journal, and the index files.
//!
//! ```text
//! DIR/lock       held by the process that has the store open
//! DIR/store      the identity of the log, written once
//! DIR/log/       the journal: everything that counts
//! DIR/index/     index files: can be removed at any time that the store is closed
//! ```

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use lattice_journal::{Disk, DiskLock, OpenError as JournalOpenError, OpenMode};

use super::blocks::Fault;
use super::error::OpenError;
use super::filter::Filter;
use super::index_file::{self, Binding, IndexFile};
use super::options::JournalStoreOptions;
use super::part::Part;

const LOCK: &str = "lock";
const IDENTITY: &str = "store";
const LOG: &str = "log";
const INDEX: &str = "index";
const SUFFIX: &str = ".idx";
const TEMPORARY: &str = ".tmp";

/// The identity file: magic, format, id and a checksum.
const MAGIC: [u8; 8] = *b"LATTEVTS";
const FORMAT: u32 = 1;
const IDENTITY_LENGTH: usize = 8 + 4 + 16 + 4;

/// The files of a store. Clones are the same directory, and as long as there is one it counts as in use.
#[derive(Clone, Debug)]
pub(super) struct Directory {
    disk: Arc<dyn Disk>,
    path: PathBuf,
    /// Identity of the journal.
    pub(super) id: u128,
    /// `None` if nothing is to be changed: then the journal's own lock is enough.
    lock: Option<Arc<dyn DiskLock>>,
}

impl Directory {
    /// Opens a directory, or makes a store of it.
    pub(super) fn open(
        disk: Arc<dyn Disk>,
        options: &JournalStoreOptions,
    ) -> Result<Self, OpenError> {
        let path = options.directory.clone();
        if options.read_only {
            let missing = JournalOpenError::Missing { directory: path.clone() };
            let id = identity(&*disk, &path)?.ok_or(missing)?;
            return Ok(Self { disk, path, id, lock: None });
        }
        disk.create_dir(&path).map_err(at("creating", &path))?;
        // First of all, for who the store is is settled by whoever comes first.
        let lock = Some(take_lock(&*disk, &path)?);
        for directory in [LOG, INDEX].map(|name| path.join(name)) {
            disk.create_dir(&directory).map_err(at("creating", &directory))?;
        }
        let id = match identity(&*disk, &path)? {
            Some(id) => id,
            None => {
                write_durably(&*disk, &path, IDENTITY, &encode_identity(options.id))
                    .map_err(at("writing", &path.join(IDENTITY)))?;
                options.id
            }
        };
        Ok(Self { disk, path, id, lock })
    }

    /// Whether files may be written in it.
    pub(super) fn is_writable(&self) -> bool {
        self.lock.is_some()
    }

    pub(super) fn disk(&self) -> Arc<dyn Disk> {
        Arc::clone(&self.disk)
    }

    pub(super) fn log(&self) -> PathBuf {
        self.path.join(LOG)
    }

    fn index(&self) -> PathBuf {
        self.path.join(INDEX)
    }

    /// Opens the index file of a segment.
    pub(super) fn open_index(&self, binding: &Binding) -> Result<(IndexFile, Filter), Fault> {
        IndexFile::open(&*self.disk, &self.index().join(index_name(binding.segment)), binding)
    }

    /// Makes a file of a part that is in memory, and moves the part to it, if the part is still of the segment that `binding` names: it
    /// may have been loaded again meanwhile, after a rewriting. Nothing is lost if that fails.
    pub(super) fn write_index(&self, part: &Part, binding: &Binding) -> io::Result<()> {
        let encode = |memtable: &_| index_file::encode(memtable, binding);
        let Some(bytes) = part.with_memory(binding.generation, encode) else {
            return Ok(());
        };
        write_durably(&*self.disk, &self.index(), &index_name(binding.segment), &bytes)?;
        let (file, filter) = self.open_index(binding).map_err(|fault| match fault {
            Fault::Io(error) => error,
            Fault::Damaged => io::ErrorKind::InvalidData.into(),
        })?;
        part.move_to(file, filter);
        Ok(())
    }

    /// Removes what is in the directory of index files and is none of those of `segments`.
    pub(super) fn clean_index(&self, segments: &[u64]) -> io::Result<()> {
        let wanted: Vec<String> = segments.iter().map(|segment| index_name(*segment)).collect();
        for name in self.disk.list(&self.index())? {
            let ours = name.ends_with(SUFFIX) || name.ends_with(TEMPORARY);
            if ours && !wanted.contains(&name) {
                self.disk.remove(&self.index().join(name))?;
            }
        }
        Ok(())
    }
}

fn take_lock(disk: &dyn Disk, path: &Path) -> Result<Arc<dyn DiskLock>, OpenError> {
    let lock = path.join(LOCK);
    disk.lock(&lock).map(Arc::from).map_err(|error| match error.kind() {
        io::ErrorKind::WouldBlock => {
            JournalOpenError::Locked { directory: path.to_path_buf() }.into()
        }
        _ => at("locking", &lock)(error),
    })
}

/// Who the store in a directory is; `None` if there is none.
fn identity(disk: &dyn Disk, directory: &Path) -> Result<Option<u128>, OpenError> {
    let path = directory.join(IDENTITY);
    let file = match disk.open(&path, OpenMode::Read) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let log = directory.join(LOG);
            let names = match disk.list(&log) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
                names => names.map_err(at("listing", &log))?,
            };
            if names.iter().any(|name| name.ends_with(".seg")) {
                return Err(OpenError::IdentityLost { path });
            }
            return Ok(None);
        }
        Err(error) => return Err(at("opening", &path)(error)),
    };
    let mut bytes = [0; IDENTITY_LENGTH + 1];
    let length = file.read_at(&mut bytes, 0).map_err(at("reading", &path))?;
    decode_identity(&bytes[..length]).map(Some).ok_or(OpenError::Identity { path })
}

fn index_name(segment: u64) -> String {
    format!("{segment:020}{SUFFIX}")
}

/// Writes a file so that after a crash it is there as a whole or not at all.
fn write_durably(disk: &dyn Disk, directory: &Path, name: &str, bytes: &[u8]) -> io::Result<()> {
    let temporary = directory.join(format!("{name}{TEMPORARY}"));
    match disk.remove(&temporary) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let file = disk.open(&temporary, OpenMode::CreateNew)?;
    let written = file.allocate(u64::try_from(bytes.len()).expect("a length fits 64 bits"));
    let written = written.and_then(|()| file.write_at(bytes, 0)).and_then(|()| file.sync_data());
    if let Err(error) = written {
        drop(file);
        // The space is wanted back. Should that fail too, the next opening removes the file.
        let _ = disk.remove(&temporary);
        return Err(error);
    }
    disk.rename(&temporary, &directory.join(name))?;
    disk.sync_dir(directory)
}

fn encode_identity(id: u128) -> Vec<u8> {
    let mut bytes = MAGIC.to_vec();
    bytes.extend_from_slice(&FORMAT.to_le_bytes());
    bytes.extend_from_slice(&id.to_le_bytes());
    let crc = crc32c::crc32c(&bytes);
    bytes.extend_from_slice(&crc.to_le_bytes());
    bytes
}

fn decode_identity(bytes: &[u8]) -> Option<u128> {
    let id = u128::from_le_bytes(bytes.get(12..28)?.try_into().ok()?);
    (bytes == encode_identity(id)).then_some(id)
}

pub(super) fn at<'a>(
    operation: &'static str,
    path: &'a Path,
) -> impl FnOnce(io::Error) -> OpenError + 'a {
    move |source| OpenError::Io { operation, path: path.to_path_buf(), source }
}
