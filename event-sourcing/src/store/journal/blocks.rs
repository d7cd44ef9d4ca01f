//! A file of blocks, each under a checksum that binds it to its file and its place in it.
//!
//! A block is 4,096 bytes: 4,092 of content and a CRC32C over a stamp of the file, the block's number and the content. So a block of
//! another file, or of an earlier file of the same name, or in another place, is no block.

use std::io;
use std::sync::Arc;

use lattice_journal::DiskFile;

/// Bytes of a block on disk.
pub(super) const BLOCK: usize = 4096;
/// Of which this many are content.
pub(super) const CONTENT: usize = BLOCK - 4;
const CONTENT_LENGTH: u64 = 4092;
const BLOCK_LENGTH: u64 = 4096;

/// Why a block could not be read.
#[derive(Debug)]
pub(super) enum Fault {
    /// It is damaged.
    Damaged,
    /// The disk failed.
    Io(io::Error),
}

impl From<io::Error> for Fault {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

/// Content that is put into blocks.
#[derive(Debug)]
pub(super) struct BlockWriter {
    stamp: u32,
    bytes: Vec<u8>,
}

impl BlockWriter {
    pub(super) fn new(stamp: u32) -> Self {
        Self { stamp, bytes: Vec::new() }
    }

    /// Appends content, in as many blocks as it needs; the last one is filled with zeros.
    pub(super) fn put(&mut self, content: &[u8]) {
        for part in content.chunks(CONTENT) {
            let number = to_u64(self.bytes.len() / BLOCK);
            let start = self.bytes.len();
            self.bytes.extend_from_slice(part);
            self.bytes.resize(start + CONTENT, 0);
            let crc = checksum(self.stamp, number, &self.bytes[start..]);
            self.bytes.extend_from_slice(&crc.to_le_bytes());
        }
    }

    /// The file.
    pub(super) fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }
}

/// The blocks of an open file.
#[derive(Clone, Debug)]
pub(super) struct Blocks {
    file: Arc<dyn DiskFile>,
    stamp: u32,
    count: u64,
}

impl Blocks {
    /// The blocks of a file. A file whose length is no whole number of blocks is damaged.
    pub(super) fn new(file: Arc<dyn DiskFile>, stamp: u32) -> Result<Self, Fault> {
        let length = file.length()?;
        if length == 0 || length % BLOCK_LENGTH != 0 {
            return Err(Fault::Damaged);
        }
        Ok(Self { file, stamp, count: length / BLOCK_LENGTH })
    }

    /// How many there are.
    pub(super) fn count(&self) -> u64 {
        self.count
    }

    /// Length of the file in bytes.
    pub(super) fn length(&self) -> u64 {
        self.count * BLOCK_LENGTH
    }

    /// Reads the content of a block.
    pub(super) fn read(&self, number: u64) -> Result<Box<Block>, Fault> {
        if number >= self.count {
            return Err(Fault::Damaged);
        }
        let mut bytes = Box::new([0; BLOCK]);
        if self.file.read_at(&mut bytes[..], number * BLOCK_LENGTH)? != BLOCK {
            return Err(Fault::Damaged);
        }
        let (content, crc) = bytes.split_at(CONTENT);
        if checksum(self.stamp, number, content).to_le_bytes() != *crc {
            return Err(Fault::Damaged);
        }
        Ok(bytes)
    }

    /// Reads `length` bytes of content from the beginning of a block on. The caller has made sure that the file has so many.
    pub(super) fn read_all(&self, first: u64, length: usize) -> Result<Vec<u8>, Fault> {
        let mut content = Vec::new();
        let mut number = first;
        while content.len() < length {
            let block = self.read(number)?;
            let wanted = (length - content.len()).min(CONTENT);
            content.extend_from_slice(&block[..wanted]);
            number += 1;
        }
        Ok(content)
    }
}

/// A block as it is read; only the first [`CONTENT`] bytes are content.
pub(super) type Block = [u8; BLOCK];

/// How many blocks `length` bytes of content need.
pub(super) fn blocks_for(length: u64) -> u64 {
    length.div_ceil(CONTENT_LENGTH)
}

/// The block of a byte of content, counted from the first block of its section, and its place in the block.
pub(super) fn split(offset: u64) -> (u64, usize) {
    let place = usize::try_from(offset % CONTENT_LENGTH).expect("less than a block");
    (offset / CONTENT_LENGTH, place)
}

pub(super) fn to_u64(length: usize) -> u64 {
    u64::try_from(length).expect("a length in memory fits 64 bits")
}

fn checksum(stamp: u32, number: u64, content: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c_append(stamp, &number.to_le_bytes()), content)
}
