//! Writes frames, and says how long they will be.

use crate::batch::{Batch, Encode};

use super::{
    ALIGNMENT, BatchBody, FRAME_HEADER, FRAME_HEADER_LENGTH, FrameHeader, HAS_STATE, ITEM_ENTRY,
    MAGIC, Place, RESTARTS, TRUNCATES, checksum, length_u32, to_u64,
};

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

pub(super) fn pad(buffer: &mut Vec<u8>) {
    buffer.resize(buffer.len().next_multiple_of(ALIGNMENT), 0);
}
