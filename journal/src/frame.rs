//! A frame: the unit that is written, checked and recovered whole. `docs/formats.md` draws it byte by byte.
//!
//! The checksum covers everything in header and body and is seeded with the frame's *place*: journal, segment, offset. A copy of
//! a frame in another place, be it a misdirected write or journal bytes that a user stored as an item, is therefore no
//! frame. All-zero bytes are none either, because of the magic number.
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
    fn code(self) -> u8 {
        match self {
            Self::Batch => 1,
            Self::Checkpoint => 2,
            Self::Mark => 3,
            Self::Mend => 4,
        }
    }

    fn from_code(code: u8) -> Option<Self> {
        let all = [Self::Batch, Self::Checkpoint, Self::Mark, Self::Mend];
        all.into_iter().find(|kind| kind.code() == code)
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
        let header = FrameHeader {
            kind: FrameKind::from_code(bytes[12])?,
            count: u32_at(bytes, 16),
            previous: u32_at(bytes, 20),
            sequence: u64_at(bytes, 32),
            first: u64_at(bytes, 40),
            durable_end: u64_at(bytes, 48),
            state_sequence: u64_at(bytes, 56),
            truncation_sequence: u64_at(bytes, 64),
            truncated_to: u64_at(bytes, 72),
        };
        Some(Self { header, crc: u32_at(bytes, 4), body_length })
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

    /// Verifies the whole frame, which `bytes` must be.
    pub(crate) fn check(self, bytes: &[u8], place: Place) -> Option<Frame<'_>> {
        if to_u64(bytes.len()) != self.length() || checksum(bytes, place) != self.crc {
            return None;
        }
        let body = Body::read(&bytes[FRAME_HEADER..], self.header)?;
        Some(Frame { header: self.header, crc: self.crc, body })
    }
}

/// An intact frame.
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
    lengths: &'a [u8],
    items: &'a [u8],
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

    pub(crate) fn items(&self) -> impl Iterator<Item = &'a [u8]> {
        let mut rest = self.items;
        self.lengths.chunks_exact(4).map(move |length| {
            let (item, after) = rest.split_at(to_usize(u32_at(length, 0)));
            rest = after;
            item
        })
    }

    fn read(body: &'a [u8], count: u32) -> Option<Self> {
        let flags = u32_at(body.get(..8)?, 0);
        let state_length = to_usize(u32_at(body, 4));
        let known = TRUNCATES | RESTARTS | HAS_STATE;
        let has_state = flags & HAS_STATE != 0;
        if flags & !known != 0 || (!has_state && state_length != 0) {
            return None;
        }
        let rest = &body[8..];
        let (lengths, rest) = rest.split_at_checked(to_usize(count).checked_mul(4)?)?;
        let (state, rest) = rest.split_at_checked(state_length)?;
        let total = lengths.chunks_exact(4).map(|length| u64::from(u32_at(length, 0))).sum::<u64>();
        let (items, padding) = rest.split_at_checked(usize::try_from(total).ok()?)?;
        is_padding(padding).then_some(Self {
            flags,
            state: has_state.then_some(state),
            lengths,
            items,
        })
    }
}

impl<'a> Body<'a> {
    fn read(body: &'a [u8], header: FrameHeader) -> Option<Self> {
        match header.kind {
            FrameKind::Batch => BatchBody::read(body, header.count).map(Self::Batch),
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
                let items = BatchBody::read(&body[8..], header.count)?;
                let is_inside = header.first.checked_add(u64::from(header.count))? <= end;
                (is_inside && items.flags == 0).then_some(Self::Mend { end, items })
            }
        }
    }
}

/// Length of the frame of a batch in bytes.
pub(crate) fn batch_frame_length<B: Encode>(batch: &Batch<B>) -> u64 {
    let state = batch.state.as_ref().map_or(0, Vec::len);
    let items: u64 = batch.items.iter().map(|item| 4 + to_u64(item.encoded_length())).sum();
    FRAME_HEADER_LENGTH + (8 + to_u64(state) + items).next_multiple_of(8)
}

/// Length of a frame that mends with these items in bytes.
pub(crate) fn mend_length<B: Encode>(items: &[B]) -> u64 {
    let items: u64 = items.iter().map(|item| 4 + to_u64(item.encoded_length())).sum();
    FRAME_HEADER_LENGTH + (16 + items).next_multiple_of(8)
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
        put_batch_body(buffer, flags, batch.state.as_deref(), &batch.items);
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

fn put_batch_body<B: Encode>(buffer: &mut Vec<u8>, flags: u32, state: Option<&[u8]>, items: &[B]) {
    let flags = flags | if state.is_some() { HAS_STATE } else { 0 };
    let state = state.unwrap_or_default();
    buffer.extend_from_slice(&flags.to_le_bytes());
    buffer.extend_from_slice(&length_u32(state.len()).to_le_bytes());
    for item in items {
        buffer.extend_from_slice(&length_u32(item.encoded_length()).to_le_bytes());
    }
    buffer.extend_from_slice(state);
    for item in items {
        let end = buffer.len() + item.encoded_length();
        item.encode(buffer);
        assert_eq!(buffer.len(), end, "an item is as long as it said");
    }
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
        put_batch_body(buffer, 0, None, items);
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
    })
}

/// Puts a mark frame at the end of `buffer`; returns its checksum.
pub(crate) fn put_mark(
    buffer: &mut Vec<u8>,
    place: Place,
    header: FrameHeader,
    first_segment: u64,
) -> u32 {
    put(buffer, place, header, |buffer| buffer.extend_from_slice(&first_segment.to_le_bytes()))
}

fn put(
    buffer: &mut Vec<u8>,
    place: Place,
    header: FrameHeader,
    body: impl FnOnce(&mut Vec<u8>),
) -> u32 {
    let start = buffer.len();
    buffer.resize(start + FRAME_HEADER, 0);
    body(buffer);
    let padded = (buffer.len() - start).next_multiple_of(ALIGNMENT);
    buffer.resize(start + padded, 0);

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
    let crc = checksum(frame, place);
    frame[4..8].copy_from_slice(&crc.to_le_bytes());
    crc
}

/// Checksum of a whole frame but for the checksum itself.
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
        assert_eq!(body.items().collect::<Vec<_>>(), [&b"one"[..], b"", b"three"]);
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

    #[test]
    fn every_flipped_bit_is_noticed() {
        let bytes = sample();
        for bit in 0..bytes.len() * 8 {
            let mut spoilt = bytes.clone();
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
        for (offset, value) in [(4, u32::MAX), (8, u32::MAX), (8, 11), (8, 2), (0, 64)] {
            let mut bytes = sample();
            bytes[FRAME_HEADER + offset..][..4].copy_from_slice(&u32::to_le_bytes(value));
            let crc = checksum(&bytes, PLACE);
            bytes[4..8].copy_from_slice(&crc.to_le_bytes());
            assert!(Frame::read(&bytes, PLACE).is_none(), "{value} at {offset}");
        }
        let mut bytes = sample();
        bytes[16..20].copy_from_slice(&u32::MAX.to_le_bytes());
        let crc = checksum(&bytes, PLACE);
        bytes[4..8].copy_from_slice(&crc.to_le_bytes());
        assert!(Frame::read(&bytes, PLACE).is_none());
    }
}
