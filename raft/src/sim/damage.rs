//! A frame of which a bit is flipped on its way, through the codec of the real transport.
//!
//! The simulated network decides that a frame is damaged; what its receiver makes of that is not assumed but done: the envelope is encoded and
//! framed, a bit is flipped anywhere in the frame, and the result goes through all that a node does with what it hears. As long as that
//! notices every flipped bit the message is lost, and the run goes on. If it took one for another message, the cluster would get that one,
//! and the checks would see what comes of it.

use bytes::Bytes;
use prost::Message as _;

use crate::message::Envelope;
use crate::transport::frame::{self, Assembly, Lane, Pieces, Together};
use crate::transport::generated as pb;
use crate::transport::wire;

/// More than any message of a simulation has.
const MESSAGE_MAX: usize = 1 << 24;

/// What a node makes of `envelope` whose frame has a flipped bit, drawn by `bit`; `None` if it notices. With `believes`, a planted bug, it
/// does not look at the checksum.
pub(super) fn received(envelope: &Envelope, bit: u64, believes: bool) -> Option<Envelope> {
    let mut bytes = framed(envelope, bit)?;
    let bits = u64::try_from(bytes.len()).ok()? * 8;
    let place = (bit >> 2) % bits;
    bytes[usize::try_from(place / 8).ok()?] ^= 1 << (place % 8);
    let frame = pb::Frame::decode(Bytes::from(bytes)).ok()?;
    let Some(pb::frame::Kind::Piece(mut piece)) = frame.kind else { return None };
    if believes {
        piece.checksum = frame::checksum_of_first(&piece);
    }
    let mut messages = Assembly::new(MESSAGE_MAX).push(piece).ok()??;
    let heard = wire::decode(messages.next().ok()??).ok()?;
    // As the greeting of its stream has said.
    let is_right = |other: &Envelope| {
        (heard.cluster, heard.from, heard.to, heard.store)
            == (other.cluster, other.from, other.to, other.store)
    };
    is_right(envelope).then_some(heard)
}

/// The first frame of a message, in one of the ways in which it may travel.
fn framed(envelope: &Envelope, draw: u64) -> Option<Vec<u8>> {
    let message = wire::encode(envelope).ok()?;
    let mut together = Together::default();
    let piece = match draw % 4 {
        0 if together.push(&message) => together.into_piece().0,
        0 | 1 => Pieces::new(Lane::Urgent, message).next()?,
        _ => Pieces::new(Lane::Bulk, message).next()?,
    };
    Some(pb::Frame { kind: Some(pb::frame::Kind::Piece(piece)) }.encode_to_vec())
}
