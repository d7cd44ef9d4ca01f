//! Writes a snapshot file, part by part, in bounded memory.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use lattice_journal::{Disk, DiskFile, OpenMode};

use super::format::{self, Listed, Trailer};
use super::{SnapshotError, file_name, sync_dir};
use crate::membership::Membership;
use crate::state_machine::Part;
use crate::types::{EntryId, SnapshotMeta};

/// Bytes gathered before they are written.
const BUFFER: usize = 1 << 20;

/// A snapshot file in the making. Dropped unfinished, it leaves nothing behind.
#[derive(Debug)]
pub struct SnapshotWriter {
    output: Output,
    directory: PathBuf,
    last: EntryId,
    membership: Membership,
    parts: Vec<Listed>,
    names: BTreeSet<String>,
    manifest_length: usize,
}

/// The temporary file: buffered, summed up, removed unless it was given its name.
#[derive(Debug)]
struct Output {
    disk: Arc<dyn Disk>,
    path: PathBuf,
    file: Box<dyn DiskFile>,
    buffer: Vec<u8>,
    /// Bytes written to the file.
    written: u64,
    /// CRC32C of all bytes so far, those in the buffer included.
    checksum: u32,
    is_temporary: bool,
}

impl SnapshotWriter {
    pub(super) fn begin(
        disk: Arc<dyn Disk>,
        directory: &Path,
        temporary: &str,
        last: EntryId,
        membership: &Membership,
    ) -> Result<Self, SnapshotError> {
        let path = directory.join(temporary);
        let file = disk.open(&path, OpenMode::CreateNew);
        let file = file.map_err(|error| SnapshotError::io("create", &path, error))?;
        let buffer = Vec::with_capacity(BUFFER);
        let mut output =
            Output { disk, path, file, buffer, written: 0, checksum: 0, is_temporary: true };
        output.emit(&format::encode_header(last, membership))?;
        Ok(Self {
            output,
            directory: directory.to_path_buf(),
            last,
            membership: membership.clone(),
            parts: Vec::new(),
            names: BTreeSet::new(),
            manifest_length: 0,
        })
    }

    /// Adds a part.
    ///
    /// # Errors
    ///
    /// [`SnapshotError::Part`] if it is larger than 64 MiB, its name longer than 1 KiB or used before, or the parts too
    /// many; otherwise what the disk said. After an error the writer is of no use any more.
    pub fn part(&mut self, part: &Part) -> Result<(), SnapshotError> {
        let refuse = |reason| {
            Err(SnapshotError::Part { name: part.name.chars().take(64).collect(), reason })
        };
        self.manifest_length += format::manifest_length(&part.name);
        if part.name.len() > format::NAME_MAX {
            return refuse("its name is too long");
        }
        if part.data.len() > format::DATA_MAX {
            return refuse("it is too large");
        }
        // The count and the total stand in the manifest too.
        if self.manifest_length > format::MANIFEST_MAX - 12 {
            return refuse("there are too many");
        }
        if !self.names.insert(part.name.clone()) {
            return refuse("its name was used before");
        }
        let checksum = crc32c::crc32c(part.name.as_bytes());
        let listed = Listed {
            name: part.name.clone(),
            size: u32::try_from(part.data.len()).expect("bounded above"),
            checksum: crc32c::crc32c_append(checksum, &part.data),
        };
        self.output.emit(&format::encode_part_header(&listed))?;
        self.output.emit(part.name.as_bytes())?;
        self.output.emit(&part.data)?;
        self.parts.push(listed);
        Ok(())
    }

    /// Ends the file, makes it durable and gives it its name. From then on it is in the store; it takes the place of the
    /// previous one when the log says so.
    ///
    /// # Errors
    ///
    /// What the disk said. The file is then not there, or complete.
    pub fn finish(mut self) -> Result<SnapshotMeta, SnapshotError> {
        let manifest = format::encode_manifest(&self.parts);
        let trailer = Trailer {
            manifest_offset: self.output.length(),
            manifest_length: u32::try_from(manifest.len()).expect("bounded in `part`"),
            manifest_checksum: crc32c::crc32c(&manifest),
        };
        self.output.emit(&manifest)?;
        self.output.emit(&format::encode_trailer(trailer))?;
        let meta = SnapshotMeta {
            last: self.last,
            membership: self.membership,
            size: self.output.length(),
            checksum: self.output.checksum,
        };
        self.output.name(&self.directory, &meta)?;
        Ok(meta)
    }
}

impl Output {
    fn length(&self) -> u64 {
        self.written + u64::try_from(self.buffer.len()).expect("a length fits 64 bits")
    }

    fn emit(&mut self, bytes: &[u8]) -> Result<(), SnapshotError> {
        self.checksum = crc32c::crc32c_append(self.checksum, bytes);
        if self.buffer.len() + bytes.len() > BUFFER {
            self.flush()?;
        }
        if bytes.len() > BUFFER {
            return self.write(bytes);
        }
        self.buffer.extend_from_slice(bytes);
        Ok(())
    }

    fn flush(&mut self) -> Result<(), SnapshotError> {
        let mut buffer = std::mem::take(&mut self.buffer);
        let result = self.write(&buffer);
        buffer.clear();
        self.buffer = buffer;
        result
    }

    /// Allocates exactly what it writes, so that a full disk is met before and the file is never longer than its content.
    fn write(&mut self, bytes: &[u8]) -> Result<(), SnapshotError> {
        if bytes.is_empty() {
            return Ok(());
        }
        let end = self.written + u64::try_from(bytes.len()).expect("a length fits 64 bits");
        let write = self.file.allocate(end).and_then(|()| self.file.write_at(bytes, self.written));
        write.map_err(|error| SnapshotError::io("write", &self.path, error))?;
        self.written = end;
        Ok(())
    }

    fn name(&mut self, directory: &Path, meta: &SnapshotMeta) -> Result<(), SnapshotError> {
        self.flush()?;
        self.file.sync_data().map_err(|error| SnapshotError::fatal("sync", &self.path, error))?;
        let path = directory.join(file_name(meta));
        let rename = self.disk.rename(&self.path, &path);
        rename.map_err(|error| SnapshotError::io("rename", &self.path, error))?;
        self.is_temporary = false;
        sync_dir(self.disk.as_ref(), directory)
    }
}

impl Drop for Output {
    fn drop(&mut self) {
        if self.is_temporary {
            // If it cannot be removed now, it is when the store is opened next.
            let _ = self.disk.remove(&self.path);
        }
    }
}
