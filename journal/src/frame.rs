//! A frame: the unit that is written, checked and recovered whole. `docs/formats.md` draws it byte by byte.
//!
//! The checksum covers header and body up to the items, and is seeded with the frame's *place*: journal, segment, offset. A copy of
//! a frame in another place, be it a misdirected write or journal bytes that a user stored as an item, is therefore no
//! frame. All-zero bytes are none either, because of the magic number.
//!
//! Each item has a checksum of its own, which stands in front of the items and is covered like all else there. So the frame's
//! checksum stands for every byte of it, and still a flipped bit in an item costs that item and not those that were
//! written along with it: where several copies of a log are damaged, what was lost in one of them is there in the others. In frames
//! as version 1 wrote them one checksum covers the items too, and they are lost together.
//!
//! Besides its own content the header says what a reader must know who could *not* read the frames before it: up to where the
//! log was durable, which frame set the owner's state last, and whether and how far the log was cut back. This makes the
//! report on damage exact: see `recovery`.

use std::ops::Range;

use crate::batch::{Batch, Encode};

/// Length of a frame's header in bytes.
pub(crate) const FRAME_HEADER: usize = 80;
/// The same, as a file offset.
pub(crate) const FRAME_HEADER_LENGTH: u64 = 80;
const FRAME_HEADER_LENGTH_U32: u32 = 80;
/// Frames begin at multiples of this.
pub(crate) const ALIGNMENT: usize = 8;
/// Length of a whole mark frame in bytes.
pub(crate) const MARK_LENGTH: u64 = FRAME_HEADER_LENGTH + 8;
/// Value of `truncated_to` while nothing was truncated.
pub(crate) const NOT_TRUNCATED: u64 = u64::MAX;

/// Value of `previous` in the first frame of a segment: each segment has a chain of its own, so that it can be replaced.
pub(crate) const FIRST_PREVIOUS: u32 = 0;

/// `LFRM` in a hex dump.
const MAGIC: [u8; 4] = *b"LFRM";

/// Length and checksum of an item, in front of the items.
const ITEM_ENTRY: usize = 8;

const TRUNCATES: u32 = 1;
const RESTARTS: u32 = 2;
const HAS_STATE: u32 = 4;

/// What a frame is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FrameKind {
    /// Carries a batch of the owner.
    Batch,
    /// Opens a segment: all that is needed to start reading there.
    Checkpoint,
    /// Says that everything before it is durable.
    Mark,
    /// Carries items that were lost, for the positions where they were.
    Mend,
}

impl FrameKind {
    /// What stands in the frame's header, as this version writes it.
    fn code(self) -> u8 {
        match self {
            Self::Checkpoint => 2,
            Self::Mark => 3,
            Self::Batch => 5,
            Self::Mend => 6,
        }
    }

    fn from_code(code: u8) -> Option<(Self, Checked)> {
        Some(match code {
            1 => (Self::Batch, Checked::Whole),
            2 => (Self::Checkpoint, Checked::Whole),
            3 => (Self::Mark, Checked::Whole),
            4 => (Self::Mend, Checked::Whole),
            5 => (Self::Batch, Checked::Items),
            6 => (Self::Mend, Checked::Items),
            _ => return None,
        })
    }
}

/// What a frame's checksums cover.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Checked {
    /// There is one, for all of it.
    Whole,
    /// Each item has its own; that of the frame covers the rest, with those of the items.
    Items,
}

impl Checked {
    /// Length of what is said about each item in front of the items.
    fn entry(self) -> usize {
        match self {
            Self::Whole => 4,
            Self::Items => ITEM_ENTRY,
        }
    }
}

/// Where a frame stands; part of its checksum.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place {
    pub(crate) journal: u128,
    pub(crate) segment: u64,
    pub(crate) offset: u64,
}

impl Place {
    fn seed(self) -> u32 {
        let mut bytes = [0; 32];
        bytes[..16].copy_from_slice(&self.journal.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.segment.to_le_bytes());
        bytes[24..].copy_from_slice(&self.offset.to_le_bytes());
        crc32c::crc32c(&bytes)
    }

    /// The low half of the journal's id: what lets a search tell a frame from other bytes without reading all of it.
    fn mark(self) -> [u8; 8] {
        let mut mark = [0; 8];
        mark.copy_from_slice(&self.journal.to_le_bytes()[..8]);
        mark
    }
}

/// The fields of a frame's header that its writer chooses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FrameHeader {
    pub(crate) kind: FrameKind,
    /// Number of items.
    pub(crate) count: u32,
    /// Checksum of the frame before it in the segment; [`FIRST_PREVIOUS`] for the first one.
    pub(crate) previous: u32,
    pub(crate) sequence: u64,
    /// Position of the first item, or where the next one would be. Of a mending frame, the first position that it mends.
    pub(crate) first: u64,
    /// All frames below this sequence were known to be durable when this one was made.
    pub(crate) durable_end: u64,
    /// Sequence of the batch that set the state which is valid after this frame; 0 if none did.
    pub(crate) state_sequence: u64,
    /// Sequence of the last batch that truncated or restarted the log, up to this frame; 0 if none did.
    pub(crate) truncation_sequence: u64,
    /// The lowest position that the log was cut back to since the checkpoint that opens this segment; in the checkpoint itself, in
    /// the segment before. 0 for a restart, [`NOT_TRUNCATED`] for none.
    pub(crate) truncated_to: u64,
}

/// A header as found on disk: not yet verified.
#[derive(Clone, Copy, Debug)]
pub(crate) struct UncheckedHeader {
    header: FrameHeader,
    checked: Checked,
    crc: u32,
    body_length: u32,
}

impl UncheckedHeader {
    /// Reads a header, unless the bytes cannot be one of this journal.
    pub(crate) fn read(bytes: &[u8], journal: u128) -> Option<Self> {
        let mark = Place { journal, segment: 0, offset: 0 }.mark();
        let bytes = bytes.get(..FRAME_HEADER)?;
        if bytes[..4] != MAGIC || bytes[24..32] != mark || bytes[13..16] != [0; 3] {
            return None;
        }
        // The length of a whole frame fits 32 bits too.
        let body_length = u32_at(bytes, 8);
        body_length.checked_add(FRAME_HEADER_LENGTH_U32)?;
        let (kind, checked) = FrameKind::from_code(bytes[12])?;
        let header = FrameHeader {
            kind,
            count: u32_at(bytes, 16),
            previous: u32_at(bytes, 20),
            sequence: u64_at(bytes, 32),
            first: u64_at(bytes, 40),
            durable_end: u64_at(bytes, 48),
            state_sequence: u64_at(bytes, 56),
            truncation_sequence: u64_at(bytes, 64),
            truncated_to: u64_at(bytes, 72),
        };
        Some(Self { header, checked, crc: u32_at(bytes, 4), body_length })
    }

    pub(crate) fn sequence(&self) -> u64 {
        self.header.sequence
    }

    /// The positions of its items, as it claims: of a batch, for all other frames have none.
    pub(crate) fn items(&self) -> Range<u64> {
        let first = self.header.first;
        first..first.saturating_add(u64::from(self.header.count))
    }

    /// Length of the whole frame in bytes, as it claims.
    pub(crate) fn length(&self) -> u64 {
        FRAME_HEADER_LENGTH + u64::from(self.body_length)
    }

    /// Verifies the frame, which `bytes` must be, all but its items: see [`BatchBody::items`].
    pub(crate) fn check(self, bytes: &[u8], place: Place) -> Option<Frame<'_>> {
        if to_u64(bytes.len()) != self.length() {
            return None;
        }
        let body = &bytes[FRAME_HEADER..];
        let covered = match self.checked {
            Checked::Whole => bytes,
            Checked::Items => &bytes[..FRAME_HEADER + self.head_of_body(body)?],
        };
        if checksum(covered, place) != self.crc {
            return None;
        }
        let body = Body::read(body, self.header, self.checked)?;
        Some(Frame { header: self.header, crc: self.crc, body })
    }

    /// How much of the body the frame's own checksum covers if its items have theirs: what stands before them, as it claims.
    fn head_of_body(&self, body: &[u8]) -> Option<usize> {
        let fixed = match self.header.kind {
            FrameKind::Mend => 16,
            _ => 8,
        };
        let state = to_usize(u32_at(body.get(..fixed)?, fixed - 4));
        let entries = to_usize(self.header.count).checked_mul(ITEM_ENTRY)?;
        let head = fixed.checked_add(state)?.checked_add(entries)?;
        // Without items the checksum covers what fills the body up, too.
        let head = if self.header.count == 0 { body.len() } else { head };
        (head <= body.len()).then_some(head)
    }
}

/// A frame that is intact, but perhaps for some of its items.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Frame<'a> {
    pub(crate) header: FrameHeader,
    pub(crate) crc: u32,
    pub(crate) body: Body<'a>,
}

impl<'a> Frame<'a> {
    /// Reads and verifies a frame that `bytes` must be, no more and no less.
    pub(crate) fn read(bytes: &'a [u8], place: Place) -> Option<Self> {
        UncheckedHeader::read(bytes, place.journal)?.check(bytes, place)
    }
}

/// The body of a frame, by kind.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Body<'a> {
    Batch(BatchBody<'a>),
    Checkpoint {
        first_segment: u64,
        start: u64,
        state: Option<&'a [u8]>,
    },
    Mark {
        first_segment: u64,
    },
    /// The log goes on at `end`, and has items before it that are these.
    Mend {
        end: u64,
        items: BatchBody<'a>,
    },
}

/// The body of a batch frame.
#[derive(Clone, Copy, Debug)]
pub(crate) struct BatchBody<'a> {
    flags: u32,
    pub(crate) state: Option<&'a [u8]>,
    checked: Checked,
    /// The length of each item, and its checksum if it has one.
    entries: &'a [u8],
    /// The items, and what fills the body up.
    items: &'a [u8],
}

/// An item, and where it stands in its frame's items, in bytes.
struct Placed<'a> {
    bytes: Range<usize>,
    /// `None` if it does not read back as it was written.
    item: Option<&'a [u8]>,
}

/// Items of a frame that do not read back as they were written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct LostItems {
    pub(crate) positions: Range<u64>,
    /// Their bytes in the segment's file.
    pub(crate) bytes: Range<u64>,
}

impl<'a> BatchBody<'a> {
    /// The batch first truncated the log, to the first position of its frame.
    pub(crate) fn truncates(&self) -> bool {
        self.flags & TRUNCATES != 0
    }

    /// The batch first restarted the log, at the first position of its frame.
    pub(crate) fn restarts(&self) -> bool {
        self.flags & RESTARTS != 0
    }

    /// The items from the `skipped`-th on; `None` for one that does not read back as it was written.
    pub(crate) fn items(&self, skipped: usize) -> impl Iterator<Item = Option<&'a [u8]>> {
        self.placed(skipped).map(|placed| placed.item)
    }

    /// The items that do not read back as they were written, in order; those that follow on each other together. `first` is the position
    /// of the first item, and `end` where the frame ends in its file.
    pub(crate) fn lost(&self, first: u64, end: u64) -> Vec<LostItems> {
        let begin = end - to_u64(self.items.len());
        let mut lost: Vec<LostItems> = Vec::new();
        for (Placed { bytes, item }, position) in self.placed(0).zip(first..) {
            if item.is_some() {
                continue;
            }
            let bytes = begin + to_u64(bytes.start)..begin + to_u64(bytes.end);
            match lost.last_mut().filter(|last| last.positions.end == position) {
                Some(last) => (last.positions.end, last.bytes.end) = (position + 1, bytes.end),
                None => lost.push(LostItems { positions: position..position + 1, bytes }),
            }
        }
        lost
    }

    fn placed(&self, skipped: usize) -> impl Iterator<Item = Placed<'a>> {
        let Self { checked, items, entries, .. } = *self;
        let entries = entries.chunks_exact(checked.entry());
        let last = entries.len().saturating_sub(1);
        let mut start = entries.clone().take(skipped).map(item_length).sum::<usize>();
        entries.enumerate().skip(skipped).map(move |(number, entry)| {
            let bytes = start..start + item_length(entry);
            start = bytes.end;
            // The last one's checksum covers what fills the body up.
            let covered = if number == last { bytes.start..items.len() } else { bytes.clone() };
            let is_intact = match checked {
                Checked::Whole => true,
                Checked::Items => crc32c::crc32c(&items[covered]) == u32_at(entry, 4),
            };
            Placed { item: is_intact.then(|| &items[bytes.clone()]), bytes }
        })
    }

    fn read(body: &'a [u8], count: u32, checked: Checked) -> Option<Self> {
        let flags = u32_at(body.get(..8)?, 0);
        let state_length = to_usize(u32_at(body, 4));
        let known = TRUNCATES | RESTARTS | HAS_STATE;
        let has_state = flags & HAS_STATE != 0;
        if flags & !known != 0 || (!has_state && state_length != 0) {
            return None;
        }
        let rest = &body[8..];
        let (entries, rest) =
            rest.split_at_checked(to_usize(count).checked_mul(checked.entry())?)?;
        let (state, items) = rest.split_at_checked(state_length)?;
        let lengths = entries.chunks_exact(checked.entry()).map(item_length);
        let total = lengths.map(to_u64).sum::<u64>();
        let padding = items.get(usize::try_from(total).ok()?..)?;
        // Where the last item's checksum covers it, it may have rotted, and is no less what fills the body up.
        let is_covered = checked == Checked::Items && count > 0;
        (padding.len() < ALIGNMENT && (is_covered || is_padding(padding))).then_some(Self {
            flags,
            state: has_state.then_some(state),
            checked,
            entries,
            items,
        })
    }
}

/// The length of an item, of which this is said in front of the items.
fn item_length(entry: &[u8]) -> usize {
    to_usize(u32_at(entry, 0))
}

impl<'a> Body<'a> {
    fn read(body: &'a [u8], header: FrameHeader, checked: Checked) -> Option<Self> {
        // Whatever the checksum says of it.
        header.first.checked_add(u64::from(header.count))?;
        match header.kind {
            FrameKind::Batch => BatchBody::read(body, header.count, checked).map(Self::Batch),
            FrameKind::Checkpoint => {
                let fixed = body.get(..24)?;
                let has_state = u32_at(fixed, 16) & HAS_STATE != 0;
                let (state, padding) = body[24..].split_at_checked(to_usize(u32_at(fixed, 20)))?;
                (header.count == 0 && is_padding(padding)).then_some(Self::Checkpoint {
                    first_segment: u64_at(fixed, 0),
                    start: u64_at(fixed, 8),
                    state: has_state.then_some(state),
                })
            }
            FrameKind::Mark => (header.count == 0 && body.len() == 8)
                .then(|| Self::Mark { first_segment: u64_at(body, 0) }),
            FrameKind::Mend => {
                let end = u64_at(body.get(..8)?, 0);
                let items = BatchBody::read(&body[8..], header.count, checked)?;
                let is_inside = header.first + u64::from(header.count) <= end;
                (is_inside && items.flags == 0).then_some(Self::Mend { end, items })
            }
        }
    }
}

/// Length of the frame of a batch in bytes.
pub(crate) fn batch_frame_length<B: Encode>(batch: &Batch<B>) -> u64 {
    let state = batch.state.as_ref().map_or(0, Vec::len);
    FRAME_HEADER_LENGTH + (8 + to_u64(state) + items_length(&batch.items)).next_multiple_of(8)
}

/// Length of a frame that mends with these items in bytes.
pub(crate) fn mend_length<B: Encode>(items: &[B]) -> u64 {
    FRAME_HEADER_LENGTH + (16 + items_length(items)).next_multiple_of(8)
}

/// Length of items in bytes, with what stands before them about each.
fn items_length<B: Encode>(items: &[B]) -> u64 {
    items.iter().map(|item| to_u64(ITEM_ENTRY + item.encoded_length())).sum()
}

/// Length of a checkpoint frame in bytes.
pub(crate) fn checkpoint_length(state: Option<&[u8]>) -> u64 {
    FRAME_HEADER_LENGTH + to_u64((24 + state.map_or(0, <[u8]>::len)).next_multiple_of(ALIGNMENT))
}

/// Puts the frame of a batch at the end of `buffer`; returns its checksum.
pub(crate) fn put_batch<B: Encode>(
    buffer: &mut Vec<u8>,
    place: Place,
    header: FrameHeader,
    batch: &Batch<B>,
) -> u32 {
    put(buffer, place, header, |buffer| {
        let flags = if batch.truncate_from.is_some() { TRUNCATES } else { 0 }
            | if batch.restart_at.is_some() { RESTARTS } else { 0 };
        put_batch_body(buffer, flags, batch.state.as_deref(), &batch.items)
    })
}

/// Puts a batch frame with the flags and the state of another one, but with its own items.
pub(crate) fn put_replaced<B: Encode>(
    buffer: &mut Vec<u8>,
    place: Place,
    header: FrameHeader,
    old: &BatchBody<'_>,
    items: &[B],
) -> u32 {
    let flags = old.flags & (TRUNCATES | RESTARTS);
    put(buffer, place, header, |buffer| put_batch_body(buffer, flags, old.state, items))
}

/// Returns where in `buffer` the items begin, if there are any: what is covered by the frame's own checksum ends there.
fn put_batch_body<B: Encode>(
    buffer: &mut Vec<u8>,
    flags: u32,
    state: Option<&[u8]>,
    items: &[B],
) -> Option<usize> {
    let flags = flags | if state.is_some() { HAS_STATE } else { 0 };
    let state = state.unwrap_or_default();
    buffer.extend_from_slice(&flags.to_le_bytes());
    buffer.extend_from_slice(&length_u32(state.len()).to_le_bytes());
    // What is said about an item is known when it is there.
    let mut entry = buffer.len();
    buffer.resize(entry + items.len() * ITEM_ENTRY, 0);
    buffer.extend_from_slice(state);
    let begin = buffer.len();
    for (number, item) in items.iter().enumerate() {
        let start = buffer.len();
        let length = item.encoded_length();
        item.encode(buffer);
        assert_eq!(buffer.len() - start, length, "an item is as long as it said");
        if number + 1 == items.len() {
            // The last one's checksum covers what fills the body up.
            pad(buffer);
        }
        let crc = crc32c::crc32c(&buffer[start..]);
        buffer[entry..entry + 4].copy_from_slice(&length_u32(length).to_le_bytes());
        buffer[entry + 4..entry + ITEM_ENTRY].copy_from_slice(&crc.to_le_bytes());
        entry += ITEM_ENTRY;
    }
    (!items.is_empty()).then_some(begin)
}

/// Puts a frame at the end of `buffer` that mends a log that ends at `end`; returns its checksum.
pub(crate) fn put_mend<B: Encode>(
    buffer: &mut Vec<u8>,
    place: Place,
    header: FrameHeader,
    end: u64,
    items: &[B],
) -> u32 {
    put(buffer, place, header, |buffer| {
        buffer.extend_from_slice(&end.to_le_bytes());
        put_batch_body(buffer, 0, None, items)
    })
}

/// Puts a checkpoint frame at the end of `buffer`; returns its checksum.
pub(crate) fn put_checkpoint(
    buffer: &mut Vec<u8>,
    place: Place,
    header: FrameHeader,
    first_segment: u64,
    start: u64,
    state: Option<&[u8]>,
) -> u32 {
    put(buffer, place, header, |buffer| {
        buffer.extend_from_slice(&first_segment.to_le_bytes());
        buffer.extend_from_slice(&start.to_le_bytes());
        let flags = if state.is_some() { HAS_STATE } else { 0 };
        let state = state.unwrap_or_default();
        buffer.extend_from_slice(&flags.to_le_bytes());
        buffer.extend_from_slice(&length_u32(state.len()).to_le_bytes());
        buffer.extend_from_slice(state);
        None
    })
}

/// Puts a mark frame at the end of `buffer`; returns its checksum.
pub(crate) fn put_mark(
    buffer: &mut Vec<u8>,
    place: Place,
    header: FrameHeader,
    first_segment: u64,
) -> u32 {
    put(buffer, place, header, |buffer| {
        buffer.extend_from_slice(&first_segment.to_le_bytes());
        None
    })
}

/// Puts a frame at the end of `buffer`, in which all frames begin at multiples of [`ALIGNMENT`]. `body` puts the body, and tells
/// where in the buffer the checksum of the frame ends, if not with the frame.
fn put(
    buffer: &mut Vec<u8>,
    place: Place,
    header: FrameHeader,
    body: impl FnOnce(&mut Vec<u8>) -> Option<usize>,
) -> u32 {
    let start = buffer.len();
    debug_assert_eq!(start % ALIGNMENT, 0, "frames begin at multiples of the alignment");
    buffer.resize(start + FRAME_HEADER, 0);
    let covered = body(buffer);
    pad(buffer);

    let covered = covered.unwrap_or(buffer.len()) - start;
    let frame = &mut buffer[start..];
    let body_length = length_u32(frame.len() - FRAME_HEADER);
    frame[..4].copy_from_slice(&MAGIC);
    frame[8..12].copy_from_slice(&body_length.to_le_bytes());
    frame[12] = header.kind.code();
    frame[16..20].copy_from_slice(&header.count.to_le_bytes());
    frame[20..24].copy_from_slice(&header.previous.to_le_bytes());
    frame[24..32].copy_from_slice(&place.mark());
    frame[32..40].copy_from_slice(&header.sequence.to_le_bytes());
    frame[40..48].copy_from_slice(&header.first.to_le_bytes());
    frame[48..56].copy_from_slice(&header.durable_end.to_le_bytes());
    frame[56..64].copy_from_slice(&header.state_sequence.to_le_bytes());
    frame[64..72].copy_from_slice(&header.truncation_sequence.to_le_bytes());
    frame[72..80].copy_from_slice(&header.truncated_to.to_le_bytes());
    let crc = checksum(&frame[..covered], place);
    frame[4..8].copy_from_slice(&crc.to_le_bytes());
    crc
}

fn pad(buffer: &mut Vec<u8>) {
    buffer.resize(buffer.len().next_multiple_of(ALIGNMENT), 0);
}

/// Checksum of a frame, up to where it has one in common, but for the checksum itself.
fn checksum(frame: &[u8], place: Place) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c_append(place.seed(), &frame[..4]), &frame[8..])
}

fn is_padding(bytes: &[u8]) -> bool {
    bytes.len() < ALIGNMENT && bytes.iter().all(|byte| *byte == 0)
}

/// Reads four bytes, which the caller knows to be there.
pub(crate) fn u32_at(bytes: &[u8], offset: usize) -> u32 {
    u32::from_le_bytes(bytes[offset..offset + 4].try_into().expect("a slice of four bytes"))
}

/// Reads eight bytes, which the caller knows to be there.
pub(crate) fn u64_at(bytes: &[u8], offset: usize) -> u64 {
    u64::from_le_bytes(bytes[offset..offset + 8].try_into().expect("a slice of eight bytes"))
}

pub(crate) fn to_u64(length: usize) -> u64 {
    u64::try_from(length).expect("a memory length fits 64 bits")
}

pub(crate) fn to_usize(length: u32) -> usize {
    usize::try_from(length).expect("machines with less than 32 bits are not supported")
}

fn length_u32(length: usize) -> u32 {
    u32::try_from(length).expect("the limits of batches keep lengths below 4 GiB")
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLACE: Place = Place { journal: 7 << 64 | 9, segment: 3, offset: 64 };

    fn header(kind: FrameKind, count: u32) -> FrameHeader {
        FrameHeader {
            kind,
            count,
            previous: 5,
            sequence: 11,
            first: 21,
            durable_end: 10,
            state_sequence: 4,
            truncation_sequence: 3,
            truncated_to: 19,
        }
    }

    fn sample() -> Vec<u8> {
        let batch = Batch {
            truncate_from: Some(21),
            first: 21,
            items: vec![&b"one"[..], b"", b"three"],
            state: Some(b"state".to_vec()),
            ..Batch::default()
        };
        let mut bytes = Vec::new();
        put_batch(&mut bytes, PLACE, header(FrameKind::Batch, 3), &batch);
        assert_eq!(to_u64(bytes.len()), batch_frame_length(&batch));
        bytes
    }

    #[test]
    fn a_batch_reads_back() {
        let bytes = sample();
        let frame = Frame::read(&bytes, PLACE).unwrap();
        assert_eq!(frame.header, header(FrameKind::Batch, 3));
        let Body::Batch(body) = frame.body else { panic!("not a batch") };
        assert!(body.truncates() && !body.restarts());
        assert_eq!(body.state, Some(&b"state"[..]));
        let items = [&b"one"[..], b"", b"three"].map(Some);
        for skipped in 0..=items.len() {
            assert_eq!(body.items(skipped).collect::<Vec<_>>(), items[skipped..]);
        }
        assert_eq!(body.lost(21, 1000), []);
    }

    #[test]
    fn checkpoints_and_marks_read_back() {
        for state in [None, Some(&b""[..]), Some(&b"hard state"[..])] {
            let mut bytes = Vec::new();
            put_checkpoint(&mut bytes, PLACE, header(FrameKind::Checkpoint, 0), 2, 17, state);
            assert_eq!(to_u64(bytes.len()), checkpoint_length(state));
            let frame = Frame::read(&bytes, PLACE).unwrap();
            let Body::Checkpoint { first_segment: 2, start: 17, state: found } = frame.body else {
                panic!("not that checkpoint")
            };
            assert_eq!(found, state);
        }
        let mut bytes = Vec::new();
        put_mark(&mut bytes, PLACE, header(FrameKind::Mark, 0), 2);
        assert_eq!(to_u64(bytes.len()), MARK_LENGTH);
        let frame = Frame::read(&bytes, PLACE).unwrap();
        assert!(matches!(frame.body, Body::Mark { first_segment: 2 }));
    }

    /// What a frame that stands at 1000 has lost.
    fn lost(bytes: &[u8]) -> Option<Vec<LostItems>> {
        let frame = Frame::read(bytes, PLACE)?;
        let Body::Batch(body) = frame.body else { panic!("not a batch") };
        Some(body.lost(frame.header.first, 1000 + to_u64(bytes.len())))
    }

    #[test]
    fn a_flipped_bit_costs_one_item_or_the_frame() {
        let bytes = sample();
        // Header, flags, lengths and checksums, and the state.
        let head = FRAME_HEADER + 8 + 3 * ITEM_ENTRY + 5;
        for bit in 0..bytes.len() * 8 {
            let mut spoilt = bytes.clone();
            spoilt[bit / 8] ^= 1 << (bit % 8);
            let (positions, bytes) = match bit / 8 {
                at if at < head => {
                    assert_eq!(lost(&spoilt), None, "bit {bit}");
                    continue;
                }
                at if at < head + 3 => (21..22, head..head + 3),
                _ => (23..24, head + 3..head + 8),
            };
            let bytes = 1000 + to_u64(bytes.start)..1000 + to_u64(bytes.end);
            assert_eq!(lost(&spoilt), Some(vec![LostItems { positions, bytes }]), "bit {bit}");
        }
    }

    /// Says a length, and has another one.
    struct Liar(usize);

    impl Encode for Liar {
        fn encoded_length(&self) -> usize {
            self.0
        }

        fn encode(&self, out: &mut Vec<u8>) {
            out.extend_from_slice(b"four");
        }
    }

    #[test]
    #[should_panic(expected = "an item is as long as it said")]
    fn an_item_of_another_length_than_it_said_is_no_item() {
        // The lengths of both together are right.
        let batch = Batch { items: vec![Liar(3), Liar(5)], ..Batch::default() };
        put_batch(&mut Vec::new(), PLACE, header(FrameKind::Batch, 2), &batch);
    }

    #[test]
    fn lost_items_that_follow_on_each_other_are_told_together() {
        let batch = Batch { items: vec![b"abcdefg"; 9], ..Batch::default() };
        let mut bytes = Vec::new();
        put_batch(&mut bytes, PLACE, header(FrameKind::Batch, 9), &batch);
        let begin = FRAME_HEADER + 8 + 9 * ITEM_ENTRY;
        for item in [0, 3, 4, 8] {
            bytes[begin + item * 7] ^= 1;
        }
        let lost: Vec<_> = lost(&bytes).unwrap().into_iter().map(|lost| lost.positions).collect();
        assert_eq!(lost, [21..22, 24..26, 29..30]);
    }

    #[test]
    fn a_frame_of_version_1_is_read_and_is_lost_as_a_whole() {
        // The same batch, as version 1 wrote it.
        let new = sample();
        let mut old = new[..FRAME_HEADER + 8].to_vec();
        for entry in new[FRAME_HEADER + 8..][..3 * ITEM_ENTRY].chunks_exact(ITEM_ENTRY) {
            old.extend_from_slice(&entry[..4]);
        }
        old.extend_from_slice(b"stateonethree");
        pad(&mut old);
        old[12] = 1;
        let body_length = length_u32(old.len() - FRAME_HEADER);
        old[8..12].copy_from_slice(&body_length.to_le_bytes());
        let crc = checksum(&old, PLACE);
        old[4..8].copy_from_slice(&crc.to_le_bytes());
        let Body::Batch(body) = Frame::read(&old, PLACE).unwrap().body else { panic!("no batch") };
        assert_eq!(body.items(1).collect::<Vec<_>>(), [Some(&b""[..]), Some(b"three")]);
        assert_eq!(body.state, Some(&b"state"[..]));
        for bit in 0..old.len() * 8 {
            let mut spoilt = old.clone();
            spoilt[bit / 8] ^= 1 << (bit % 8);
            assert!(Frame::read(&spoilt, PLACE).is_none(), "bit {bit}");
        }
    }

    #[test]
    fn a_frame_is_valid_only_in_its_place() {
        let bytes = sample();
        let elsewhere = [
            Place { journal: 8 << 64 | 9, ..PLACE },
            Place { journal: 7 << 64 | 8, ..PLACE },
            Place { segment: 4, ..PLACE },
            Place { offset: 72, ..PLACE },
        ];
        for place in elsewhere {
            assert!(Frame::read(&bytes, place).is_none(), "{place:?}");
        }
    }

    #[test]
    fn zeros_are_no_frame_and_no_length_is_trusted() {
        for length in 0..200 {
            assert!(Frame::read(&vec![0; length], PLACE).is_none());
        }
        // A body that lies about its lengths, under a checksum that is right.
        let head = FRAME_HEADER + 8 + 3 * ITEM_ENTRY + 5;
        for (offset, value) in [(4, u32::MAX), (8, u32::MAX), (8, 11), (0, 64)] {
            let mut bytes = sample();
            bytes[FRAME_HEADER + offset..][..4].copy_from_slice(&u32::to_le_bytes(value));
            let crc = checksum(&bytes[..head], PLACE);
            bytes[4..8].copy_from_slice(&crc.to_le_bytes());
            assert!(Frame::read(&bytes, PLACE).is_none(), "{value} at {offset}");
        }
        let mut bytes = sample();
        bytes[16..20].copy_from_slice(&u32::MAX.to_le_bytes());
        let crc = checksum(&bytes[..head], PLACE);
        bytes[4..8].copy_from_slice(&crc.to_le_bytes());
        assert!(Frame::read(&bytes, PLACE).is_none());
    }
}
