//! Seals: small files that spare an opening the reading of complete segments.
//!
//! A segment that is complete never changes, so what an opening learns from looking through it can be written down: where its
//! live items stand ([`Runs`]). The rest an opening takes from the segment itself, from its header and its last frame.
//!
//! **Nothing depends on a seal.** It may be missing, torn, of another disk's image, or older than the segment; then the segment is
//! looked through. A seal is believed only if it is intact, and names the journal, the segment, the segment's *generation* and its
//! length as the segment's own header and file do, and the checksum of the last frame, which is read and verified in the
//! segment. Each frame names the checksum of the one before it, so this last one stands for all of them. A replaced segment is of
//! another generation. And the segments must go on from each other, in sequence and position; if they do not, all seals are
//! put aside, and everything is looked through (`recovery.rs`).
//!
//! So the writing of a seal needs no order to anything else: it can come at any time after the segment is complete, on any
//! thread, more than once or never.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::disk::{Disk, DiskFile, DiskLock, OpenMode};
use crate::frame::{Frame, FrameKind, NOT_TRUNCATED, Place, to_u64, to_usize, u32_at, u64_at};
use crate::runs::{Run, Runs};
use crate::segment::{
    FrameRecord, SEGMENT_HEADER_LENGTH, SegmentHeader, in_memory, read_header, seal_name,
    temporary_seal_name,
};

const MAGIC: [u8; 8] = *b"LATTSEAL";
const VERSION: u32 = 1;
/// Length of what stands before the runs.
const HEAD: usize = 96;
/// Length of one run.
const RUN: usize = 16;

/// What a seal says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Seal {
    pub(crate) journal: u128,
    pub(crate) segment: u64,
    pub(crate) generation: u64,
    /// Length of the segment's file in bytes.
    pub(crate) length: u64,
    pub(crate) last: LastFrame,
    /// The next position when the segment was begun.
    pub(crate) begins: u64,
    /// Position of the first item that was live when the segment was complete, or the next position then.
    pub(crate) start: u64,
    /// Where these items stand.
    pub(crate) runs: Vec<Run>,
}

/// Where the last frame of a segment stands, and its checksum.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct LastFrame {
    pub(crate) offset: u64,
    pub(crate) length: u64,
    pub(crate) crc: u32,
}

impl LastFrame {
    pub(crate) fn of(frame: &FrameRecord) -> Self {
        Self { offset: frame.offset, length: frame.length, crc: frame.crc }
    }
}

impl Seal {
    /// The seal of a complete segment: `runs` tell what was live when it was complete, in this segment and perhaps in others.
    pub(crate) fn new(
        journal: u128,
        segment: u64,
        generation: u64,
        length: u64,
        last: LastFrame,
        begins: u64,
        runs: &Runs,
    ) -> Self {
        let start = runs.positions_in(segment).start;
        let runs = runs.of(segment).copied().collect();
        Self { journal, segment, generation, length, last, begins, start, runs }
    }

    fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(HEAD + RUN * self.runs.len());
        let count = u32::try_from(self.runs.len()).expect("a segment has less than 2^32 runs");
        bytes.extend_from_slice(&MAGIC);
        bytes.extend_from_slice(&VERSION.to_le_bytes());
        bytes.extend_from_slice(&[0; 4]);
        bytes.extend_from_slice(&self.journal.to_le_bytes());
        bytes.extend_from_slice(&self.segment.to_le_bytes());
        bytes.extend_from_slice(&self.generation.to_le_bytes());
        bytes.extend_from_slice(&self.length.to_le_bytes());
        bytes.extend_from_slice(&self.last.offset.to_le_bytes());
        bytes.extend_from_slice(&self.last.length.to_le_bytes());
        bytes.extend_from_slice(&self.last.crc.to_le_bytes());
        bytes.extend_from_slice(&count.to_le_bytes());
        bytes.extend_from_slice(&self.begins.to_le_bytes());
        bytes.extend_from_slice(&self.start.to_le_bytes());
        for run in &self.runs {
            bytes.extend_from_slice(&run.offset.to_le_bytes());
            bytes.extend_from_slice(&run.length.to_le_bytes());
            bytes.extend_from_slice(&run.count.to_le_bytes());
        }
        let crc = checksum(&bytes);
        bytes[12..16].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    /// What the bytes say, if they are a seal in which everything fits together.
    fn decode(bytes: &[u8]) -> Option<Self> {
        let (head, rest) = bytes.split_at_checked(HEAD)?;
        let intact = head[..8] == MAGIC && u32_at(head, 12) == checksum(bytes);
        if !intact || u32_at(head, 8) != VERSION {
            return None;
        }
        let mut seal = Self {
            journal: u128::from(u64_at(head, 16)) | u128::from(u64_at(head, 24)) << 64,
            segment: u64_at(head, 32),
            generation: u64_at(head, 40),
            length: u64_at(head, 48),
            last: LastFrame {
                offset: u64_at(head, 56),
                length: u64_at(head, 64),
                crc: u32_at(head, 72),
            },
            begins: u64_at(head, 80),
            start: u64_at(head, 88),
            runs: Vec::with_capacity(rest.len() / RUN),
        };
        if rest.len() != to_usize(u32_at(head, 76)).checked_mul(RUN)? {
            return None;
        }
        let last_end = seal.last.offset.checked_add(seal.last.length)?;
        if last_end > seal.length {
            return None;
        }
        let (mut first, mut from) = (seal.start, SEGMENT_HEADER_LENGTH);
        for run in rest.chunks_exact(RUN) {
            let (offset, length, count) = (u64_at(run, 0), u32_at(run, 8), u32_at(run, 12));
            let end = offset.checked_add(u64::from(length))?;
            let next = first.checked_add(u64::from(count))?;
            if count == 0 || offset < from || end > last_end {
                return None;
            }
            seal.runs.push(Run { first, segment: seal.segment, offset, length, count });
            (first, from) = (next, end);
        }
        Some(seal)
    }
}

fn checksum(bytes: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&bytes[..12]), &bytes[16..])
}

/// A complete segment of which a seal tells what is in it.
#[derive(Debug)]
pub(crate) struct Sealed {
    pub(crate) header: SegmentHeader,
    /// The last frame, as it stands in the segment.
    pub(crate) last: FrameRecord,
    pub(crate) seal: Seal,
}

impl Sealed {
    /// Takes a segment's seal, if there is one and it is of the segment as `file` shows it now.
    pub(crate) fn read(
        disk: &dyn Disk,
        directory: &Path,
        journal: u128,
        segment: u64,
        file: &dyn DiskFile,
    ) -> Option<Self> {
        // An error of the disk will be met again where it counts: when the segment is looked through.
        let length = file.length().ok()?;
        let path = directory.join(seal_name(segment));
        let bytes = whole(&*disk.open(&path, OpenMode::Read).ok()?, length)?;
        let seal = Seal::decode(&bytes)?;

        let header = read_header(file, journal, segment).ok()??;
        let facts = (journal, segment, header.generation, length);
        if (seal.journal, seal.segment, seal.generation, seal.length) != facts {
            return None;
        }
        let LastFrame { offset, length, crc } = seal.last;
        let bytes = piece(file, offset, in_memory(length).ok()?)?;
        let frame = Frame::read(&bytes, Place { journal, segment, offset })?;
        let last = FrameRecord::of(&frame, segment, offset, length);
        (frame.crc == crc && last.lost.is_empty()).then_some(Self { header, last, seal })
    }

    /// The position that the segment cut the log before it back to; 0 if it forgot all of it, [`NOT_TRUNCATED`] if it left it as
    /// it was.
    pub(crate) fn cuts_to(&self) -> u64 {
        match self.last.header.kind {
            // A checkpoint speaks of the segment before its own.
            FrameKind::Checkpoint => NOT_TRUNCATED,
            FrameKind::Batch | FrameKind::Mark | FrameKind::Mend => self.last.header.truncated_to,
        }
    }
}

/// All of a seal's file, unless it is longer than a seal of a segment of `segment_length` bytes can be.
fn whole(file: &dyn DiskFile, segment_length: u64) -> Option<Vec<u8>> {
    // A run takes more bytes in the segment than in the seal.
    let length = file.length().ok().filter(|length| *length <= segment_length + to_u64(HEAD))?;
    piece(file, 0, in_memory(length).ok()?)
}

fn piece(file: &dyn DiskFile, offset: u64, length: usize) -> Option<Vec<u8>> {
    let mut bytes = vec![0; length];
    (file.read_at(&mut bytes, offset).ok()? == length).then_some(bytes)
}

/// A seal that is not written yet: see [`Journal::take_seals`](crate::Journal::take_seals).
///
/// As long as it exists the directory counts as in use.
#[derive(Debug)]
pub struct PendingSeal {
    pub(crate) seal: Seal,
    pub(crate) home: Home,
}

/// The directory of a journal, as seen by those who work in it beside the writer.
#[derive(Clone, Debug)]
pub(crate) struct Home {
    pub(crate) disk: Arc<dyn Disk>,
    pub(crate) directory: PathBuf,
    /// Nobody opens the journal anew while files in it are still being made.
    pub(crate) _lock: Arc<dyn DiskLock>,
}

impl PendingSeal {
    /// The segment that it is of.
    #[must_use]
    pub fn segment(&self) -> u64 {
        self.seal.segment
    }

    /// Writes the seal. This may take as long as a sync takes, and can be done on any thread. Without it the next opening looks
    /// through the segment.
    ///
    /// # Errors
    ///
    /// Those of the disk. The journal is none the worse for it.
    pub fn write(self) -> io::Result<()> {
        let Home { disk, directory, .. } = &self.home;
        let Seal { segment, generation, .. } = self.seal;
        let temporary = directory.join(temporary_seal_name(segment, generation));
        let path = directory.join(seal_name(segment));
        let written = self.write_as(&temporary).and_then(|()| disk.rename(&temporary, &path));
        if written.is_err() {
            // What cannot be removed now is removed when the journal is opened.
            let _ = disk.remove(&temporary);
        }
        // The name is left to the next sync of the directory, which is the writer's: had one here failed, the names that the writer
        // has given meanwhile might never become durable, and the writer would not be told.
        written
    }

    fn write_as(&self, path: &Path) -> io::Result<()> {
        let file = self.home.disk.open(path, OpenMode::CreateNew)?;
        file.write_at(&self.seal.encode(), 0)?;
        file.sync_data()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Seal {
        let run = |first, offset, count| Run { first, segment: 7, offset, length: 600, count };
        Seal {
            journal: 9 << 100 | 5,
            segment: 7,
            generation: 2,
            length: 4096,
            last: LastFrame { offset: 1400, length: 96, crc: 77 },
            begins: 30,
            start: 21,
            runs: vec![run(21, 168, 4), run(25, 800, 1)],
        }
    }

    #[test]
    fn a_seal_says_what_was_written() {
        let seal = sample();
        assert_eq!(Seal::decode(&seal.encode()), Some(seal.clone()));
        let none = Seal { runs: Vec::new(), ..seal };
        assert_eq!(Seal::decode(&none.encode()), Some(none));
    }

    #[test]
    fn a_seal_is_checked_in_every_bit_and_at_every_length() {
        let bytes = sample().encode();
        for bit in 0..bytes.len() * 8 {
            let mut spoilt = bytes.clone();
            spoilt[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(Seal::decode(&spoilt), None, "bit {bit}");
        }
        for length in 0..bytes.len() {
            assert_eq!(Seal::decode(&bytes[..length]), None, "length {length}");
        }
        let mut longer = bytes.clone();
        longer.push(0);
        assert_eq!(Seal::decode(&longer), None);
    }

    #[test]
    fn a_seal_that_contradicts_itself_is_none() {
        let run = sample().runs[0];
        for seal in [
            Seal { runs: vec![Run { count: 0, ..run }], ..sample() },
            Seal { runs: vec![Run { offset: 10, ..run }], ..sample() },
            Seal { runs: vec![Run { offset: 1000, ..run }], ..sample() },
            Seal { runs: vec![Run { offset: u64::MAX, ..run }], ..sample() },
            Seal { runs: vec![run, run], ..sample() },
            Seal { start: u64::MAX, ..sample() },
            Seal { length: 1400, ..sample() },
            Seal { last: LastFrame { offset: u64::MAX, ..sample().last }, ..sample() },
        ] {
            assert_eq!(Seal::decode(&seal.encode()), None, "{seal:?}");
        }
    }
}
