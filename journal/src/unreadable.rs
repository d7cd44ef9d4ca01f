//! Reading from a disk that does not give back all that it holds.
//!
//! A sector that cannot be read is no reason to give up the rest of its file: it is noted, and counts as damaged like bytes that
//! have changed. Not at once, though. A bus that had a bad moment, or a controller that was reset, fails a read that succeeds the
//! next time, so each read is tried twice before anything is said about what is on the disk.

use std::collections::BTreeSet;
use std::io;
use std::ops::Range;

use crate::disk::DiskFile;
use crate::frame::to_u64;

/// What cannot be read is given up in pieces of this many bytes: systems read no less at a time.
const BLOCK: u64 = 4096;
/// More blocks than this in one file are no bad sectors: the disk has failed, and to try all of them could take hours.
const BLOCKS_MAX: usize = 256;

/// The blocks of a file that cannot be read.
#[derive(Debug, Default)]
pub(crate) struct Unreadable {
    blocks: BTreeSet<u64>,
    /// What the disk said last.
    error: Option<io::Error>,
}

impl Unreadable {
    /// Reads what the file has from `offset` on, with zeros in the place of what cannot be read, which is noted. Returns how much of
    /// `buffer` is filled.
    ///
    /// # Errors
    ///
    /// That of the disk, if too many blocks cannot be read.
    pub(crate) fn read(
        &mut self,
        file: &dyn DiskFile,
        buffer: &mut [u8],
        offset: u64,
    ) -> io::Result<usize> {
        if self.blocks.is_empty()
            && let Ok(length) = file.read_at(buffer, offset)
        {
            return Ok(length);
        }
        let mut filled = 0;
        while filled < buffer.len() {
            let at = offset + to_u64(filled);
            let rest = usize::try_from(BLOCK - at % BLOCK).expect("less than a block");
            let end = buffer.len().min(filled + rest);
            let part = &mut buffer[filled..end];
            match self.read_block(file, part, at)? {
                length if length < part.len() => return Ok(filled + length),
                _ => filled = end,
            }
        }
        Ok(filled)
    }

    /// Reads a part of a block.
    fn read_block(&mut self, file: &dyn DiskFile, part: &mut [u8], at: u64) -> io::Result<usize> {
        let is_known = self.blocks.contains(&(at / BLOCK));
        let read = if is_known { None } else { Some(file.read_at(part, at)) };
        match read {
            Some(Ok(length)) => return Ok(length),
            Some(Err(error)) if self.blocks.len() >= BLOCKS_MAX => {
                return Err(io::Error::new(error.kind(), format!("at byte {at}: {error}")));
            }
            Some(Err(error)) => {
                self.blocks.insert(at / BLOCK);
                self.error = Some(error);
            }
            None => {}
        }
        part.fill(0);
        let length = file.length()?.saturating_sub(at);
        Ok(usize::try_from(length).map_or(part.len(), |length| length.min(part.len())))
    }

    /// What the disk said, if anything could not be read.
    pub(crate) fn into_error(self) -> Option<io::Error> {
        self.error
    }

    /// Whether some of these bytes cannot be read.
    pub(crate) fn touches(&self, bytes: &Range<u64>) -> bool {
        !bytes.is_empty()
            && self.blocks.range(bytes.start / BLOCK..bytes.end.div_ceil(BLOCK)).next().is_some()
    }

    /// Where the last block ends that cannot be read; 0 if all can.
    pub(crate) fn end(&self) -> u64 {
        self.blocks.last().map_or(0, |block| (block + 1) * BLOCK)
    }
}
