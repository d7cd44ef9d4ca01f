//! What a store's directory holds: who the store is, the journal, and the index files.
//!
//! ```text
//! DIR/store      the identity of the log, written once
//! DIR/log/       the journal: everything that counts
//! DIR/index/     index files: can be removed at any time that the store is closed
//! ```

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use lattice_journal::{Disk, OpenMode};

use super::blocks::Fault;
use super::error::OpenError;
use super::filter::Filter;
use super::index_file::{self, Binding, IndexFile};
use super::part::Part;

const IDENTITY: &str = "store";
const LOG: &str = "log";
const INDEX: &str = "index";
const SUFFIX: &str = ".idx";
const TEMPORARY: &str = ".tmp";

/// The identity file: magic, format, id and a checksum.
const MAGIC: [u8; 8] = *b"LATTEVTS";
const FORMAT: u32 = 1;
const IDENTITY_LENGTH: usize = 8 + 4 + 16 + 4;

/// The files of a store. Clones are the same directory.
#[derive(Clone, Debug)]
pub(super) struct Directory {
    disk: Arc<dyn Disk>,
    path: PathBuf,
    /// Identity of the journal.
    pub(super) id: u128,
}

impl Directory {
    /// Opens a directory, or makes a store of it, with the identity `new_id`.
    pub(super) fn open(disk: Arc<dyn Disk>, path: &Path, new_id: u128) -> Result<Self, OpenError> {
        disk.create_dir(path).map_err(at("creating", path))?;
        let log = path.join(LOG);
        for directory in [&log, &path.join(INDEX)] {
            disk.create_dir(directory).map_err(at("creating", directory))?;
        }
        let identity = path.join(IDENTITY);
        let id = match disk.open(&identity, OpenMode::Read) {
            Ok(file) => {
                let mut bytes = [0; IDENTITY_LENGTH + 1];
                let length = file.read_at(&mut bytes, 0).map_err(at("reading", &identity))?;
                decode_identity(&bytes[..length])
                    .ok_or_else(|| OpenError::Identity { path: identity.clone() })?
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let segments = disk.list(&log).map_err(at("listing", &log))?;
                if segments.iter().any(|name| name.ends_with(".seg")) {
                    return Err(OpenError::IdentityLost { path: identity });
                }
                write_durably(&*disk, path, IDENTITY, &encode_identity(new_id))
                    .map_err(at("writing", &identity))?;
                new_id
            }
            Err(error) => return Err(at("opening", &identity)(error)),
        };
        Ok(Self { disk, path: path.to_path_buf(), id })
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

    /// Makes a file of a part that is in memory, and moves the part to it. Nothing is lost if that fails.
    pub(super) fn write_index(&self, part: &Part, binding: &Binding) -> io::Result<()> {
        let Some(bytes) = part.with_memory(|memtable| index_file::encode(memtable, binding)) else {
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
