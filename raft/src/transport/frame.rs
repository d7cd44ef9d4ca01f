//! Cutting an encoded envelope into pieces, and putting it together again.
//!
//! gRPC hands a message to its receiver only when it is complete, and so has to make room for
//! whatever length was declared. With pieces of at most [`PIECE_MAX`] nobody has to believe a
//! larger length than that; the whole grows only by bytes that have arrived, up to a bound. Each
//! piece carries the checksum of everything so far, and of its own lane and whether it is the last, so
//! a piece that was altered, lost or repeated is noticed with that piece. TCP's checksum lets one
//! damaged segment in 65,536 through, and TLS is not everywhere.
//!
//! Small messages go the other way: as many as wait travel [`Together`] in one piece.

use bytes::{Buf as _, Bytes, BytesMut};
use prost::encoding::{decode_varint, encode_varint, encoded_len_varint};
use thiserror::Error;

use super::generated as pb;

/// The most data in one piece, in bytes.
pub(crate) const PIECE_MAX: usize = 1 << 20;

/// Which queue of a stream a message waits in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lane {
    /// Votes, heartbeats, acknowledgements: small, sent first.
    Urgent,
    /// Entries and snapshot chunks.
    Bulk,
}

/// The pieces of one message, in order.
#[derive(Debug)]
pub(crate) struct Pieces {
    lane: Lane,
    rest: Bytes,
    checksum: u32,
}

impl Pieces {
    /// Of a message that is not empty.
    pub(crate) fn new(lane: Lane, message: Bytes) -> Self {
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
        let checksum = sealed(self.checksum, lane, last);
        Some(pb::Piece { lane: lane.into(), data, checksum, last })
    }
}

/// The checksum of a piece, whose message has this one so far.
fn sealed(data: u32, lane: pb::Lane, last: bool) -> u32 {
    let lane = match lane {
        pb::Lane::Urgent => 0,
        pb::Lane::Bulk => 1,
        pb::Lane::Together => 2,
    };
    crc32c::crc32c_append(data, &[lane, u8::from(last)])
}

/// Several small messages for one piece.
#[derive(Debug, Default)]
pub(crate) struct Together {
    data: BytesMut,
    count: u64,
}

impl Together {
    /// Adds a message, if there is room.
    pub(crate) fn push(&mut self, message: &Bytes) -> bool {
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

    /// All of them as one piece, and how many they are.
    pub(crate) fn into_piece(self) -> (pb::Piece, u64) {
        let data = self.data.freeze();
        let checksum = sealed(crc32c::crc32c(&data), pb::Lane::Together, true);
        let piece = pb::Piece { lane: pb::Lane::Together.into(), data, checksum, last: true };
        (piece, self.count)
    }
}

/// What a piece has completed: a message, or several, each preceded by its length.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Messages {
    data: Bytes,
    is_one: bool,
}

impl Messages {
    /// Takes off the next message.
    pub(crate) fn next(&mut self) -> Result<Option<Bytes>, FrameError> {
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
pub(crate) enum FrameError {
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
pub(crate) struct Assembly {
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
    pub(crate) fn new(message_max: usize) -> Self {
        Self { urgent: Partial::default(), bulk: Partial::default(), message_max }
    }

    /// Adds a piece; returns what it completes.
    pub(crate) fn push(&mut self, piece: pb::Piece) -> Result<Option<Messages>, FrameError> {
        let lane = pb::Lane::try_from(piece.lane);
        let lane = lane.map_err(|_unknown| FrameError::Lane(piece.lane))?;
        let partial = match lane {
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
        let checksum = crc32c::crc32c_append(partial.checksum, &piece.data);
        check(&piece, sealed(checksum, lane, piece.last))?;
        if piece.last && partial.data.is_empty() {
            // Most messages are one piece: nothing is copied.
            return Ok(Some(Messages { data: piece.data, is_one: true }));
        }
        partial.checksum = checksum;
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
    check(&piece, sealed(crc32c::crc32c(&piece.data), pb::Lane::Together, piece.last))?;
    if !piece.last {
        return Err(FrameError::Together);
    }
    Ok(Messages { data: piece.data, is_one: false })
}

/// The checksum that the first piece of a message should have.
#[cfg(feature = "sim")]
pub(crate) fn checksum_of_first(piece: &pb::Piece) -> u32 {
    let lane = pb::Lane::try_from(piece.lane).unwrap_or_default();
    sealed(crc32c::crc32c(&piece.data), lane, piece.last)
}

fn check(piece: &pb::Piece, computed: u32) -> Result<(), FrameError> {
    if computed == piece.checksum {
        Ok(())
    } else {
        Err(FrameError::Checksum { computed, declared: piece.checksum })
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
        let piece = |lane, data: Bytes| {
            let known = pb::Lane::try_from(lane).unwrap_or_default();
            let checksum = sealed(crc32c::crc32c(&data), known, true);
            pb::Piece { lane, checksum, data, last: true }
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
        let (piece, count) = together.into_piece();
        assert_eq!(count, 3);
        assert_eq!(assemble([piece]), Ok([1, 200, 5].map(message).to_vec()));
    }

    #[test]
    fn messages_together_whose_lengths_are_wrong_are_refused() {
        let piece = |data: &[u8], last| {
            let data = Bytes::copy_from_slice(data);
            let checksum = sealed(crc32c::crc32c(&data), pb::Lane::Together, last);
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
