//! Reads a snapshot file, part by part, and believes nothing that a checksum does not confirm.

use std::path::{Path, PathBuf};

use bytes::Bytes;
use lattice_journal::DiskFile;

use super::SnapshotError;
use super::format::{self, Flaw, HEADER_FIXED, Listed, PART_HEADER, TRAILER};
use crate::state_machine::{BoxError, Part, SnapshotParts};
use crate::types::SnapshotMeta;

/// The parts of one snapshot file, verified as they are read.
#[derive(Debug)]
pub struct SnapshotReader {
    file: Box<dyn DiskFile>,
    path: PathBuf,
    meta: SnapshotMeta,
    parts: Vec<Listed>,
    next: usize,
    position: u64,
    manifest_offset: u64,
    /// CRC32C of the bytes before `position`.
    checksum: u32,
    /// CRC32C of manifest and trailer, and their length.
    end: (u32, usize),
}

impl SnapshotReader {
    /// Checks the frame of the file: header, trailer and manifest, and that they are those of `meta`.
    pub(super) fn open(
        file: Box<dyn DiskFile>,
        path: &Path,
        meta: &SnapshotMeta,
    ) -> Result<Self, SnapshotError> {
        let corrupt = |flaw: Flaw| SnapshotError::corrupt(path, flaw);
        let length = file.length().map_err(|error| SnapshotError::fatal("read", path, error))?;
        let trailer_offset = length.checked_sub(u64::try_from(TRAILER).expect("a small constant"));
        let trailer_offset = trailer_offset.ok_or_else(|| corrupt("it is cut short"))?;
        if length != meta.size {
            return Err(corrupt("its length is not the one that was recorded"));
        }
        let header = read_header(file.as_ref(), path, length)?;
        let (last, membership) = format::decode_header(&header).map_err(corrupt)?;
        if last != meta.last || membership != meta.membership {
            return Err(corrupt("it is the snapshot of another entry or membership"));
        }
        let mut trailer = [0; TRAILER];
        read_exact(file.as_ref(), path, &mut trailer, trailer_offset)?;
        let found = format::decode_trailer(&trailer, length).map_err(corrupt)?;
        let mut manifest = vec![0; usize::try_from(found.manifest_length).expect("bounded")];
        read_exact(file.as_ref(), path, &mut manifest, found.manifest_offset)?;
        let end = crc32c::crc32c(&manifest);
        if end != found.manifest_checksum {
            return Err(corrupt("its manifest is damaged"));
        }
        let parts = format::decode_manifest(&manifest).map_err(corrupt)?;
        Ok(Self {
            file,
            path: path.to_path_buf(),
            meta: meta.clone(),
            parts,
            next: 0,
            position: u64::try_from(header.len()).expect("a length fits 64 bits"),
            manifest_offset: found.manifest_offset,
            checksum: crc32c::crc32c(&header),
            end: (crc32c::crc32c_append(end, &trailer), manifest.len() + TRAILER),
        })
    }

    /// The next part, or `None` after the last and when the file as a whole is what it should be.
    ///
    /// # Errors
    ///
    /// [`SnapshotError::Corrupt`], or what the disk said.
    pub fn next_part(&mut self) -> Result<Option<Part>, SnapshotError> {
        let Some(listed) = self.parts.get(self.next) else { return self.check_whole() };
        let content = listed.name.len() + usize::try_from(listed.size).expect("bounded");
        let end = self.position + u64::try_from(PART_HEADER + content).expect("bounded");
        if end > self.manifest_offset {
            return Err(SnapshotError::corrupt(
                &self.path,
                "its manifest lists more than it holds",
            ));
        }
        let mut bytes = vec![0; PART_HEADER + content];
        read_exact(self.file.as_ref(), &self.path, &mut bytes, self.position)?;
        let (header, content) = bytes.split_at(PART_HEADER);
        if header != format::encode_part_header(listed)
            || crc32c::crc32c(content) != listed.checksum
            || !content.starts_with(listed.name.as_bytes())
        {
            return Err(SnapshotError::corrupt(&self.path, "a part of it is damaged"));
        }
        self.checksum = crc32c::crc32c_append(self.checksum, &bytes);
        self.position = end;
        self.next += 1;
        let name = listed.name.clone();
        let data = Bytes::from(bytes).slice(PART_HEADER + name.len()..);
        Ok(Some(Part { name, data }))
    }

    fn check_whole(&self) -> Result<Option<Part>, SnapshotError> {
        let (end, length) = self.end;
        if self.position != self.manifest_offset {
            return Err(SnapshotError::corrupt(
                &self.path,
                "it holds more than its manifest lists",
            ));
        }
        if crc32c::crc32c_combine(self.checksum, end, length) != self.meta.checksum {
            return Err(SnapshotError::corrupt(&self.path, "its checksum is not the recorded one"));
        }
        Ok(None)
    }
}

impl SnapshotParts for SnapshotReader {
    fn next_part(&mut self) -> Result<Option<Part>, BoxError> {
        Ok(Self::next_part(self)?)
    }
}

fn read_header(file: &dyn DiskFile, path: &Path, length: u64) -> Result<Vec<u8>, SnapshotError> {
    let mut bytes = vec![0; HEADER_FIXED];
    read_exact(file, path, &mut bytes, 0)?;
    let whole = format::header_length(&bytes);
    let whole = whole.map_err(|flaw| SnapshotError::corrupt(path, flaw))?;
    if u64::try_from(whole).expect("bounded") > length {
        return Err(SnapshotError::corrupt(path, "it is cut short"));
    }
    bytes.resize(whole, 0);
    read_exact(file, path, &mut bytes, 0)?;
    Ok(bytes)
}

fn read_exact(
    file: &dyn DiskFile,
    path: &Path,
    buffer: &mut [u8],
    offset: u64,
) -> Result<(), SnapshotError> {
    let count = file.read_at(buffer, offset);
    let count = count.map_err(|error| SnapshotError::fatal("read", path, error))?;
    if count < buffer.len() {
        return Err(SnapshotError::corrupt(path, "it is cut short"));
    }
    Ok(())
}
