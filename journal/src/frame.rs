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

mod items;
mod writing;

use std::ops::Range;

pub(crate) use items::{BatchBody, LostItems};
pub(crate) use writing::{
    batch_frame_length, checkpoint_length, mend_length, put_batch, put_checkpoint, put_mark,
    put_mend, put_replaced,
};

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
mod tests;
