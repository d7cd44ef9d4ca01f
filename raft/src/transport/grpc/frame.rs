//! Cutting an encoded envelope into pieces, and putting it together again.
//!
//! gRPC hands a message to its receiver only when it is complete, and so has to make room for
//! whatever length was declared. With pieces of at most [`PIECE_MAX`] nobody has to believe a
//! larger length than that; the whole grows only by bytes that have arrived, up to a bound. Each
//! piece carries the checksum of everything so far, so a piece that was altered, lost or repeated
//! is noticed with that piece.
//!
//! Small messages go the other way: as many as wait travel [`Together`] in one piece.

use bytes::{Buf as _, Bytes, BytesMut};
use prost::encoding::{decode_varint, encode_varint, encoded_len_varint};
use thiserror::Error;

use super::generated as pb;

/// The most data in one piece, in bytes.
pub(super) const PIECE_MAX: usize = 1 << 20;
/// The most that a frame adds to its data: tags, lengths, checksum.
pub(super) const FRAME_OVERHEAD: usize = 64;

/// Which queue of a stream a message waits in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Lane {
    /// Votes, heartbeats, acknowledgements: small, sent first.
    Urgent,
    /// Entries and snapshot chunks.
    Bulk,
}

/// The pieces of one message, in order.
#[derive(Debug)]
pub(super) struct Pieces {
    lane: Lane,
    rest: Bytes,
    checksum: u32,
}

impl Pieces {
    /// Of a message that is not empty.
    pub(super) fn new(lane: Lane, message: Bytes) -> Self {
        assert!(!message.is_empty(), "an envelope has a sender at least");
        Self { lane, rest: message, checksum: 0 }
    }
}

impl Iterator for Pieces {
    type Item = pb::Piece;

    fn next(&mut self) -> Option<pb::Piece> {
        if self.rest.is_empty() {
            return None;
        }
        let data = self.rest.split_to(self.rest.len().min(PIECE_MAX));
        self.checksum = crc32c::crc32c_append(self.checksum, &data);
        let lane = match self.lane {
            Lane::Urgent => pb::Lane::Urgent,
            Lane::Bulk => pb::Lane::Bulk,
        };
        let last = self.rest.is_empty();
        Some(pb::Piece { lane: lane.into(), data, checksum: self.checksum, last })
    }
}

/// Several small messages for one piece.
#[derive(Debug, Default)]
pub(super) struct Together {
    data: BytesMut,
    count: u64,
}

impl Together {
    /// Adds a message, if there is room.
    pub(super) fn push(&mut self, message: &Bytes) -> bool {
        let length = u64::try_from(message.len()).expect("lengths fit");
        let added = encoded_len_varint(length) + message.len();
        if self.data.len() + added > PIECE_MAX {
            return false;
        }
        encode_varint(length, &mut self.data);
        self.data.extend_from_slice(message);
        self.count += 1;
        true
    }

    /// How many messages there are.
    pub(super) fn count(&self) -> u64 {
        self.count
    }

    /// All of them as one piece.
    pub(super) fn into_piece(self) -> pb::Piece {
        let data = self.data.freeze();
        let checksum = crc32c::crc32c(&data);
        pb::Piece { lane: pb::Lane::Together.into(), data, checksum, last: true }
    }
}

/// What a piece has completed: a message, or several, each preceded by its length.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Messages {
    data: Bytes,
    is_one: bool,
}

impl Messages {
    /// Takes off the next message.
    pub(super) fn next(&mut self) -> Result<Option<Bytes>, FrameError> {
        if self.is_one || self.data.is_empty() {
            return Ok(Some(std::mem::take(&mut self.data)).filter(|message| !message.is_empty()));
        }
        let length = decode_varint(&mut self.data).map_err(|_malformed| FrameError::Together)?;
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        if length == 0 || length > self.data.remaining() {
            return Err(FrameError::Together);
        }
        Ok(Some(self.data.split_to(length)))
    }
}

/// Why a piece ends its stream.
#[derive(Debug, Error, PartialEq, Eq)]
pub(super) enum FrameError {
    /// A lane this build does not know.
    #[error("piece for unknown lane {0}")]
    Lane(i32),
    /// No data, or more than a piece may hold.
    #[error("piece of {0} bytes, not 1 to {PIECE_MAX}")]
    Size(usize),
    /// The data is not what was sent.
    #[error("checksum {computed:08x} of a piece is not the {declared:08x} it declares")]
    Checksum {
        /// What the bytes say.
        computed: u32,
        /// What the sender said.
        declared: u32,
    },
    /// The whole would be too large.
    #[error("message of more than {0} bytes")]
    TooLong(usize),
    /// Messages that travel together, and do not end where they say.
    #[error("messages in one piece whose lengths are wrong")]
    Together,
}

/// Puts messages together from their pieces, lane by lane.
#[derive(Debug)]
pub(super) struct Assembly {
    urgent: Partial,
    bulk: Partial,
    message_max: usize,
}

#[derive(Debug, Default)]
struct Partial {
    data: BytesMut,
    checksum: u32,
}

impl Assembly {
    /// Of messages of at most `message_max` bytes.
    pub(super) fn new(message_max: usize) -> Self {
        Self { urgent: Partial::default(), bulk: Partial::default(), message_max }
    }

    /// Adds a piece; returns what it completes.
    pub(super) fn push(&mut self, piece: pb::Piece) -> Result<Option<Messages>, FrameError> {
        let lane = pb::Lane::try_from(piece.lane);
        let partial = match lane.map_err(|_unknown| FrameError::Lane(piece.lane))? {
            pb::Lane::Urgent => &mut self.urgent,
            pb::Lane::Bulk => &mut self.bulk,
            pb::Lane::Together => return together(piece).map(Some),
        };
        let size = piece.data.len();
        if size == 0 || size > PIECE_MAX {
            return Err(FrameError::Size(size));
        }
        if size > self.message_max - partial.data.len() {
            return Err(FrameError::TooLong(self.message_max));
        }
        let computed = crc32c::crc32c_append(partial.checksum, &piece.data);
        if computed != piece.checksum {
            return Err(FrameError::Checksum { computed, declared: piece.checksum });
        }
        if piece.last && partial.data.is_empty() {
            // Most messages are one piece: nothing is copied.
            return Ok(Some(Messages { data: piece.data, is_one: true }));
        }
        partial.checksum = computed;
        partial.data.extend_from_slice(&piece.data);
        let whole = piece.last.then(|| std::mem::take(partial).data.freeze());
        Ok(whole.map(|data| Messages { data, is_one: true }))
    }
}

fn together(piece: pb::Piece) -> Result<Messages, FrameError> {
    let size = piece.data.len();
    if size == 0 || size > PIECE_MAX {
        return Err(FrameError::Size(size));
    }
    let computed = crc32c::crc32c(&piece.data);
    if computed != piece.checksum {
        return Err(FrameError::Checksum { computed, declared: piece.checksum });
    }
    if !piece.last {
        return Err(FrameError::Together);
    }
    Ok(Messages { data: piece.data, is_one: false })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(length: usize) -> Bytes {
        (0..length).map(|place| u8::try_from(place % 251).unwrap()).collect::<Vec<_>>().into()
    }

    fn assemble(pieces: impl IntoIterator<Item = pb::Piece>) -> Result<Vec<Bytes>, FrameError> {
        let mut assembly = Assembly::new(4 * PIECE_MAX);
        let mut whole = Vec::new();
        for piece in pieces {
            let Some(mut messages) = assembly.push(piece)? else { continue };
            while let Some(message) = messages.next()? {
                whole.push(message);
            }
        }
        Ok(whole)
    }

    #[test]
    fn pieces_of_any_length_make_the_message_again() {
        for length in [1, 7, PIECE_MAX - 1, PIECE_MAX, PIECE_MAX + 1, 3 * PIECE_MAX + 5] {
            let pieces: Vec<_> = Pieces::new(Lane::Bulk, message(length)).collect();
            assert_eq!(pieces.len(), length.div_ceil(PIECE_MAX));
            assert_eq!(assemble(pieces), Ok(vec![message(length)]));
        }
    }

    #[test]
    fn lanes_interleave() {
        let mut bulk = Pieces::new(Lane::Bulk, message(PIECE_MAX + 9));
        let mut urgent = Pieces::new(Lane::Urgent, message(5));
        let order = [bulk.next(), urgent.next(), bulk.next()].map(Option::unwrap);
        assert_eq!(assemble(order), Ok(vec![message(5), message(PIECE_MAX + 9)]));
    }

    #[test]
    fn a_lost_repeated_or_altered_piece_is_noticed() {
        let pieces: Vec<_> = Pieces::new(Lane::Bulk, message(2 * PIECE_MAX + 1)).collect();
        let wrong = |pieces: Vec<pb::Piece>| {
            assert!(matches!(assemble(pieces), Err(FrameError::Checksum { .. })));
        };
        wrong(vec![pieces[0].clone(), pieces[2].clone()]);
        wrong(vec![pieces[0].clone(), pieces[0].clone()]);
        let mut altered = pieces[0].to_owned();
        altered.data = altered.data.iter().map(|byte| byte ^ 1).collect();
        wrong(vec![altered]);
    }

    #[test]
    fn a_message_past_the_bound_is_refused_before_it_is_kept() {
        let pieces: Vec<_> = Pieces::new(Lane::Bulk, message(4 * PIECE_MAX + 1)).collect();
        assert_eq!(assemble(pieces), Err(FrameError::TooLong(4 * PIECE_MAX)));
    }

    #[test]
    fn empty_oversized_and_unknown_pieces_are_refused() {
        let piece = |lane, data: Bytes| pb::Piece {
            lane,
            checksum: crc32c::crc32c(&data),
            data,
            last: true,
        };
        assert_eq!(assemble([piece(0, Bytes::new())]), Err(FrameError::Size(0)));
        let large = piece(1, message(PIECE_MAX + 1));
        assert_eq!(assemble([large]), Err(FrameError::Size(PIECE_MAX + 1)));
        assert_eq!(assemble([piece(9, message(1))]), Err(FrameError::Lane(9)));
    }

    #[test]
    fn small_messages_travel_together_as_far_as_there_is_room() {
        let mut together = Together::default();
        for length in [1, 200, 5] {
            assert!(together.push(&message(length)));
        }
        assert!(!together.push(&message(PIECE_MAX)), "no room for its length besides");
        assert_eq!(together.count(), 3);
        let piece = together.into_piece();
        assert_eq!(assemble([piece]), Ok([1, 200, 5].map(message).to_vec()));
    }

    #[test]
    fn messages_together_whose_lengths_are_wrong_are_refused() {
        let piece = |data: &[u8], last| {
            let data = Bytes::copy_from_slice(data);
            let checksum = crc32c::crc32c(&data);
            pb::Piece { lane: pb::Lane::Together.into(), checksum, data, last }
        };
        for wrong in [&[0][..], &[2, 1], &[1, 7, 3, 1], &[0xff; 11], &[0x80]] {
            assert_eq!(assemble([piece(wrong, true)]), Err(FrameError::Together), "{wrong:?}");
        }
        assert_eq!(assemble([piece(&[1, 7], false)]), Err(FrameError::Together));
        let altered = pb::Piece { checksum: 1, ..piece(&[1, 7], true) };
        assert!(matches!(assemble([altered]), Err(FrameError::Checksum { .. })));
    }
}
