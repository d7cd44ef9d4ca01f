//! A segment file: its name, its header, and the search for intact frames in it.
//!
//! A segment becomes visible under its name only after its header and the checkpoint frame behind it are durable. So a bad header
//! or checkpoint is never the trace of a crash, and a segment's mere existence vouches for all frames of those before it.

use std::io;
use std::ops::Range;

use crate::disk::DiskFile;
use crate::frame::{
    Body, FIRST_PREVIOUS, FRAME_HEADER, FRAME_HEADER_LENGTH, Frame, FrameHeader, FrameKind,
    LostItems, Place, UncheckedHeader, to_u64, u32_at, u64_at,
};
use crate::runs::{FrameRef, Runs};
use crate::unreadable::Unreadable;

/// The format version that this crate writes, and the newest that it reads.
pub const FORMAT_VERSION: u32 = 2;
/// The oldest that it reads.
const FORMAT_VERSION_MIN: u32 = 1;

/// Length of a segment's header in bytes.
pub(crate) const SEGMENT_HEADER: usize = 64;
/// The same, as a file offset.
pub(crate) const SEGMENT_HEADER_LENGTH: u64 = 64;

/// Name of the file that holds the lock on the journal.
pub(crate) const LOCK_NAME: &str = "lock";
/// Name of the spare segment.
pub(crate) const SPARE_NAME: &str = "spare";

const MAGIC: [u8; 8] = *b"LATTJRNL";
const SUFFIX: &str = ".seg";
const SEAL_SUFFIX: &str = ".seal";
const TEMPORARY: &str = ".tmp";

/// What a file in a journal's directory is, by its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FileName {
    Segment(u64),
    /// Ends like a segment, but is none that the journal would write.
    BadSegment,
    Spare,
    Seal(u64),
    Temporary,
    Lock,
    Other,
}

impl FileName {
    pub(crate) fn of(name: &str) -> Self {
        if name == LOCK_NAME {
            Self::Lock
        } else if name == SPARE_NAME {
            Self::Spare
        } else if name.ends_with(TEMPORARY) {
            Self::Temporary
        } else if let Some(digits) = name.strip_suffix(SEAL_SUFFIX) {
            match digits.parse() {
                Ok(number) if number > 0 && seal_name(number) == name => Self::Seal(number),
                _ => Self::Other,
            }
        } else if let Some(digits) = name.strip_suffix(SUFFIX) {
            match digits.parse() {
                Ok(number) if number > 0 && segment_name(number) == name => Self::Segment(number),
                _ => Self::BadSegment,
            }
        } else {
            Self::Other
        }
    }
}

/// A segment's file name.
pub(crate) fn segment_name(number: u64) -> String {
    format!("{number:020}{SUFFIX}")
}

/// A segment's file name while it is being made.
pub(crate) fn temporary_name(number: u64) -> String {
    format!("{number:020}{SUFFIX}{TEMPORARY}")
}

/// Name of the seal of a segment.
pub(crate) fn seal_name(number: u64) -> String {
    format!("{number:020}{SEAL_SUFFIX}")
}

/// Name of a seal while it is being made. Each state of a segment gets its seal once, so that no two have the same name.
pub(crate) fn temporary_seal_name(number: u64, generation: u64) -> String {
    format!("{number:020}.{generation}{SEAL_SUFFIX}{TEMPORARY}")
}

/// Name of what is to replace a segment, while it is being made: the `attempt`-th of this process.
pub(crate) fn replacement_name(number: u64, attempt: u64) -> String {
    format!("{number:020}.{attempt}{SUFFIX}{TEMPORARY}")
}

/// The first bytes of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SegmentHeader {
    pub(crate) journal: u128,
    pub(crate) number: u64,
    /// Sequence of the checkpoint frame that follows.
    pub(crate) first_sequence: u64,
    /// Length of the file in bytes. It never shrinks, so a shorter file has lost something.
    pub(crate) length: u64,
    /// How often the segment was replaced.
    pub(crate) generation: u64,
}

/// Why a segment's header cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum HeaderFault {
    Damaged,
    OtherJournal(u128),
    Version(u32),
}

impl SegmentHeader {
    pub(crate) fn encode(&self) -> [u8; SEGMENT_HEADER] {
        let mut bytes = [0; SEGMENT_HEADER];
        bytes[..8].copy_from_slice(&MAGIC);
        bytes[8..12].copy_from_slice(&FORMAT_VERSION.to_le_bytes());
        bytes[16..32].copy_from_slice(&self.journal.to_le_bytes());
        bytes[32..40].copy_from_slice(&self.number.to_le_bytes());
        bytes[40..48].copy_from_slice(&self.first_sequence.to_le_bytes());
        bytes[48..56].copy_from_slice(&self.length.to_le_bytes());
        bytes[56..64].copy_from_slice(&self.generation.to_le_bytes());
        let crc = header_checksum(&bytes);
        bytes[12..16].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    /// Reads the header of the segment `number`; `journal` is the id it must bear, if that is known.
    pub(crate) fn decode(
        bytes: &[u8],
        journal: Option<u128>,
        number: u64,
    ) -> Result<Self, HeaderFault> {
        let bytes = bytes.get(..SEGMENT_HEADER).ok_or(HeaderFault::Damaged)?;
        if bytes[..8] != MAGIC || header_checksum(bytes) != u32_at(bytes, 12) {
            return Err(HeaderFault::Damaged);
        }
        match u32_at(bytes, 8) {
            FORMAT_VERSION_MIN..=FORMAT_VERSION => {}
            version => return Err(HeaderFault::Version(version)),
        }
        let found = u128::from(u64_at(bytes, 16)) | u128::from(u64_at(bytes, 24)) << 64;
        if journal.is_some_and(|journal| journal != found) {
            return Err(HeaderFault::OtherJournal(found));
        }
        let header = Self {
            journal: found,
            number: u64_at(bytes, 32),
            first_sequence: u64_at(bytes, 40),
            length: u64_at(bytes, 48),
            generation: u64_at(bytes, 56),
        };
        if header.number == number { Ok(header) } else { Err(HeaderFault::Damaged) }
    }
}

fn header_checksum(bytes: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&bytes[..12]), &bytes[16..SEGMENT_HEADER])
}

/// What is remembered of an intact frame: all but its items. Some of them may be lost.
#[derive(Clone, Debug)]
pub(crate) struct FrameRecord {
    pub(crate) header: FrameHeader,
    pub(crate) crc: u32,
    pub(crate) segment: u64,
    pub(crate) offset: u64,
    /// Length of the whole frame in bytes.
    pub(crate) length: u64,
    pub(crate) truncates: bool,
    pub(crate) restarts: bool,
    pub(crate) has_state: bool,
    /// The items that do not read back as they were written.
    pub(crate) lost: Vec<LostItems>,
    /// In checkpoints and marks: segments below this one were given up.
    pub(crate) first_segment: Option<u64>,
    /// In checkpoints: the first position held.
    pub(crate) start: Option<u64>,
    /// In mending frames: the next position of the log, which such a frame does not change.
    pub(crate) log_end: Option<u64>,
}

impl FrameRecord {
    /// What is remembered of a frame that was found intact at this place.
    pub(crate) fn of(frame: &Frame<'_>, segment: u64, offset: u64, length: u64) -> Self {
        let mut record = Self {
            header: frame.header,
            crc: frame.crc,
            segment,
            offset,
            length,
            truncates: false,
            restarts: false,
            has_state: false,
            lost: Vec::new(),
            first_segment: None,
            start: None,
            log_end: None,
        };
        match frame.body {
            Body::Batch(body) => {
                record.truncates = body.truncates();
                record.restarts = body.restarts();
                record.has_state = body.state.is_some();
                record.lost = body.lost(frame.header.first, record.end());
            }
            Body::Checkpoint { first_segment, start, state } => {
                record.first_segment = Some(first_segment);
                record.start = Some(start);
                record.has_state = state.is_some();
            }
            Body::Mark { first_segment } => record.first_segment = Some(first_segment),
            Body::Mend { end, items } => {
                record.log_end = Some(end);
                record.lost = items.lost(frame.header.first, record.end());
            }
        }
        record
    }

    /// The next position of the log when this frame was made, after its own truncation or restart and before its own items.
    pub(crate) fn begins(&self) -> u64 {
        self.log_end.unwrap_or(self.header.first)
    }

    /// The frame as the index takes it.
    pub(crate) fn place(&self) -> FrameRef {
        FrameRef {
            first: self.header.first,
            count: self.header.count,
            segment: self.segment,
            offset: self.offset,
            length: u32::try_from(self.length).expect("no header of a longer frame is read"),
        }
    }

    /// What the frame does to the log, to which it is the next one: of a segment alone or of all.
    pub(crate) fn apply(&self, runs: &mut Runs) {
        if self.restarts {
            runs.restart(self.header.first);
        } else if self.truncates {
            runs.truncate(self.header.first);
        }
        match self.header.kind {
            FrameKind::Batch => runs.push(&self.place()),
            FrameKind::Mend => runs.close(),
            FrameKind::Checkpoint | FrameKind::Mark => {}
        }
    }

    pub(crate) fn end(&self) -> u64 {
        self.offset + self.length
    }
}

/// What a segment holds, in the order of the file.
#[derive(Clone, Debug)]
pub(crate) enum Found {
    Frame(FrameRecord),
    /// Bytes that should be frames and are none, before an intact frame.
    Bad(Range<u64>),
}

/// A segment, looked through from end to end.
#[derive(Debug)]
pub(crate) struct SegmentScan {
    pub(crate) number: u64,
    /// Length of the file in bytes.
    pub(crate) length: u64,
    pub(crate) header: Result<SegmentHeader, HeaderFault>,
    pub(crate) found: Vec<Found>,
    /// Where the last intact frame ends.
    pub(crate) end: u64,
    /// Where the zeros begin that the rest of the file consists of; `end` or more. What cannot be read is not zero.
    pub(crate) dirty_end: u64,
    /// What could not be read.
    pub(crate) unreadable: Unreadable,
    /// A frame may have been begun at the end that cannot be read: something is there, and not all of it can be read.
    pub(crate) is_end_unreadable: bool,
}

impl SegmentScan {
    pub(crate) fn frames(&self) -> impl Iterator<Item = &FrameRecord> {
        self.found.iter().filter_map(|found| match found {
            Found::Frame(frame) => Some(frame),
            Found::Bad(_) => None,
        })
    }
}

/// The header of the segment `number`, if it is intact.
pub(crate) fn read_header(
    file: &dyn DiskFile,
    journal: u128,
    number: u64,
) -> io::Result<Option<SegmentHeader>> {
    let mut bytes = [0; SEGMENT_HEADER];
    let read = file.read_at(&mut bytes, 0)?;
    Ok(SegmentHeader::decode(&bytes[..read], Some(journal), number).ok())
}

/// Looks through a segment. Frames below the sequence `lowest` cannot belong here.
pub(crate) fn scan(
    file: &dyn DiskFile,
    journal: u128,
    number: u64,
    lowest: u64,
) -> io::Result<SegmentScan> {
    let length = file.length()?;
    let mut window = Window::new(file, length);
    let head = window.slice(0, SEGMENT_HEADER_LENGTH.min(length))?;
    let mut header = SegmentHeader::decode(head, Some(journal), number);
    if header == Err(HeaderFault::Damaged) {
        window.forget(0..SEGMENT_HEADER_LENGTH);
        let head = window.slice(0, SEGMENT_HEADER_LENGTH.min(length))?;
        header = SegmentHeader::decode(head, Some(journal), number);
    }
    let mut scan = SegmentScan {
        number,
        length,
        header,
        found: Vec::new(),
        end: SEGMENT_HEADER_LENGTH.min(length),
        dirty_end: 0,
        unreadable: Unreadable::default(),
        is_end_unreadable: false,
    };
    // What the next frame must be: its sequence, and the checksum that it must name as the one before.
    let mut expected = header.ok().map(|header| (header.first_sequence, FIRST_PREVIOUS));
    // Where bytes were read once more, because they are no frame and perhaps were misread.
    let mut read_again = 0;
    // Up to where all bytes were, because items do not fit their checksums.
    let mut afresh = 0;
    loop {
        let at = scan.end;
        let frame = window.frame(journal, number, at, lowest)?.filter(|frame| {
            expected.is_none_or(|next| next == (frame.header.sequence, frame.header.previous))
        });
        let frame = match frame {
            Some(frame) if !frame.lost.is_empty() && afresh < frame.end() => {
                afresh = frame.end().max(length.min(at + Window::SIZE));
                window.forget(at..afresh);
                continue;
            }
            Some(frame) => frame,
            None => {
                let above = expected.map_or(lowest, |(sequence, _)| sequence.saturating_add(1));
                let next = window.next_frame(journal, number, at, above.max(lowest))?;
                let bad_end = match &next {
                    Some(frame) => frame.offset,
                    None => window.dirty_end(at)?,
                };
                if bad_end > at && read_again < at {
                    read_again = at;
                    window.forget(at..bad_end);
                    continue;
                }
                let Some(frame) = next else {
                    scan.dirty_end = bad_end;
                    break;
                };
                scan.found.push(Found::Bad(at..frame.offset));
                frame
            }
        };
        expected = Some((frame.header.sequence.saturating_add(1), frame.crc));
        scan.end = frame.end();
        scan.found.push(Found::Frame(frame));
    }
    let head = scan.end..(scan.end + FRAME_HEADER_LENGTH).min(length);
    let is_begun = !is_zero(window.slice(head.start, head.end - head.start)?);
    scan.unreadable = window.unreadable;
    scan.is_end_unreadable = scan.unreadable.touches(&head)
        || is_begun && scan.unreadable.touches(&(scan.end..scan.dirty_end));
    Ok(scan)
}

/// A moving view on a file, so that small frames do not cost a read each. What cannot be read shows as zeros.
pub(crate) struct Window<'a> {
    file: &'a dyn DiskFile,
    length: u64,
    start: u64,
    buffer: Vec<u8>,
    unreadable: Unreadable,
}

impl<'a> Window<'a> {
    const SIZE: u64 = 1 << 20;
    /// Zeros are skipped in steps of this many bytes.
    const BLOCK: u64 = 4096;

    pub(crate) fn new(file: &'a dyn DiskFile, length: u64) -> Self {
        Self { file, length, start: 0, buffer: Vec::new(), unreadable: Unreadable::default() }
    }

    /// Bytes of the file; the caller keeps within its length.
    pub(crate) fn slice(&mut self, offset: u64, length: u64) -> io::Result<&[u8]> {
        let end = offset + length;
        debug_assert!(end <= self.length, "a window looks only at what is there");
        if offset < self.start || end > self.start + to_u64(self.buffer.len()) {
            let wanted = length.max(Self::SIZE).min(self.length - offset);
            self.buffer.resize(in_memory(wanted)?, 0);
            self.start = offset;
            if self.unreadable.read(self.file, &mut self.buffer, offset)? != self.buffer.len() {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
        let from = in_memory(offset - self.start)?;
        Ok(&self.buffer[from..from + in_memory(length)?])
    }

    /// What was read of these bytes is to be read once more.
    fn forget(&mut self, bytes: Range<u64>) {
        self.buffer.clear();
        self.file.forget_cached(bytes.start, bytes.end - bytes.start);
    }

    /// The intact frame at this very place, if there is one and its sequence is at least `lowest`.
    fn frame(
        &mut self,
        journal: u128,
        segment: u64,
        offset: u64,
        lowest: u64,
    ) -> io::Result<Option<FrameRecord>> {
        let rest = self.length - offset;
        if rest < FRAME_HEADER_LENGTH {
            return Ok(None);
        }
        let head = self.slice(offset, to_u64(FRAME_HEADER))?;
        let Some(head) = UncheckedHeader::read(head, journal) else { return Ok(None) };
        let length = head.length();
        if length > rest || head.sequence() < lowest {
            return Ok(None);
        }
        let bytes = self.slice(offset, length)?;
        let Some(frame) = head.check(bytes, Place { journal, segment, offset }) else {
            return Ok(None);
        };
        Ok(Some(FrameRecord::of(&frame, segment, offset, length)))
    }

    /// The next intact frame behind `offset`, in steps of the alignment.
    fn next_frame(
        &mut self,
        journal: u128,
        segment: u64,
        offset: u64,
        lowest: u64,
    ) -> io::Result<Option<FrameRecord>> {
        let mut at = offset + 8;
        while at + FRAME_HEADER_LENGTH <= self.length {
            let block = Self::BLOCK.min(self.length - at);
            if is_zero(self.slice(at, block)?) {
                at += block.next_multiple_of(8);
                continue;
            }
            let block_end = at + block;
            while at < block_end && at + FRAME_HEADER_LENGTH <= self.length {
                if let Some(frame) = self.frame(journal, segment, at, lowest)? {
                    return Ok(Some(frame));
                }
                at += 8;
            }
        }
        Ok(None)
    }

    /// Where the last byte that is not zero ends, looking from `from`; `from` if all are zero.
    fn dirty_end(&mut self, from: u64) -> io::Result<u64> {
        let (mut at, mut dirty_end) = (from, from);
        while at < self.length {
            let block = Self::BLOCK.min(self.length - at);
            if let Some(last) = self.slice(at, block)?.iter().rposition(|byte| *byte != 0) {
                dirty_end = at + to_u64(last) + 1;
            }
            at += block;
        }
        Ok(dirty_end.max(self.unreadable.end().min(self.length)))
    }
}

fn is_zero(bytes: &[u8]) -> bool {
    bytes.iter().all(|byte| *byte == 0)
}

/// A length in a file as a length in memory.
pub(crate) fn in_memory(length: u64) -> io::Result<usize> {
    usize::try_from(length).map_err(|error| io::Error::new(io::ErrorKind::FileTooLarge, error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_told_apart() {
        let table = [
            ("00000000000000000001.seg", FileName::Segment(1)),
            ("18446744073709551615.seg", FileName::Segment(u64::MAX)),
            ("00000000000000000000.seg", FileName::BadSegment),
            ("99999999999999999999.seg", FileName::BadSegment),
            ("1.seg", FileName::BadSegment),
            ("+0000000000000000001.seg", FileName::BadSegment),
            ("00000000000000000001.seg.tmp", FileName::Temporary),
            ("spare", FileName::Spare),
            ("00000000000000000007.seal", FileName::Seal(7)),
            ("00000000000000000000.seal", FileName::Other),
            ("7.seal", FileName::Other),
            ("lock", FileName::Lock),
            ("notes.txt", FileName::Other),
        ];
        for (name, kind) in table {
            assert_eq!(FileName::of(name), kind, "{name}");
        }
        for name in [temporary_name(7), temporary_seal_name(7, 0), replacement_name(7, 1)] {
            assert_eq!(FileName::of(&name), FileName::Temporary, "{name}");
        }
    }

    #[test]
    fn a_header_is_checked_in_every_bit() {
        let header = SegmentHeader {
            journal: 9 << 100 | 5,
            number: 2,
            first_sequence: 7,
            length: 4096,
            generation: 3,
        };
        let bytes = header.encode();
        assert_eq!(SegmentHeader::decode(&bytes, Some(header.journal), 2), Ok(header));
        assert_eq!(SegmentHeader::decode(&bytes, None, 3), Err(HeaderFault::Damaged));
        assert_eq!(
            SegmentHeader::decode(&bytes, Some(1), 2),
            Err(HeaderFault::OtherJournal(header.journal))
        );
        for bit in 0..SEGMENT_HEADER * 8 {
            let mut spoilt = bytes;
            spoilt[bit / 8] ^= 1 << (bit % 8);
            let found = SegmentHeader::decode(&spoilt, None, 2);
            assert_eq!(found, Err(HeaderFault::Damaged), "bit {bit}");
        }
    }

    #[test]
    fn a_newer_version_is_named() {
        let header =
            SegmentHeader { journal: 1, number: 1, first_sequence: 1, length: 0, generation: 0 };
        let mut bytes = header.encode();
        bytes[8] = 3;
        let crc = header_checksum(&bytes);
        bytes[12..16].copy_from_slice(&crc.to_le_bytes());
        assert_eq!(SegmentHeader::decode(&bytes, None, 1), Err(HeaderFault::Version(3)));
    }
}
