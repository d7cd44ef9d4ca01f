//! Cutting an encoded envelope into pieces, and putting it together again.
//!
//! gRPC hands a message to its receiver only when it is complete, and so has to make room for
//! whatever length was declared. With pieces of at most [`PIECE_MAX`] nobody has to believe a
//! larger length than that; the whole grows only by bytes that have arrived, up to a bound. Each
//! piece carries the checksum of everything so far, so a piece that was altered, lost or repeated
//! is noticed with that piece.

use bytes::{Bytes, BytesMut};
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

    /// Adds a piece; returns the message that it completes.
    pub(super) fn push(&mut self, piece: pb::Piece) -> Result<Option<Bytes>, FrameError> {
        let lane = pb::Lane::try_from(piece.lane);
        let partial = match lane.map_err(|_unknown| FrameError::Lane(piece.lane))? {
            pb::Lane::Urgent => &mut self.urgent,
            pb::Lane::Bulk => &mut self.bulk,
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
            return Ok(Some(piece.data));
        }
        partial.checksum = computed;
        partial.data.extend_from_slice(&piece.data);
        Ok(piece.last.then(|| std::mem::take(partial).data.freeze()))
    }
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
            whole.extend(assembly.push(piece)?);
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
}
