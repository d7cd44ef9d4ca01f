//! A membership as bytes, for the log, for snapshots and for the wire; drawn in `docs/formats.md`.
//!
//! Version 1 knows voters and their bindings, and is written where that says everything: what a cluster writes that never changed
//! its members can be read by builds that knew no more. Everything else is written in version 2.

use std::collections::BTreeMap;

use bytes::Bytes;
use thiserror::Error;

use super::{CONTEXT_MAX, Member, Membership, Standing};
use crate::types::{NodeId, StoreId};

/// Why bytes are not a membership.
#[derive(Debug, Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum DecodeError {
    /// A version of the encoding that this build does not know.
    #[error("membership is encoded in version {0}, this build knows versions 1 and 2")]
    Version(u8),
    /// Fewer or more bytes than the count of members says.
    #[error("membership of {members} members does not fit its {length} bytes")]
    Length {
        /// Members announced.
        members: usize,
        /// Bytes present.
        length: usize,
    },
    /// No byte at all.
    #[error("membership is empty")]
    Empty,
    /// Members not in ascending order, node id zero, or one greater than the greatest ever.
    #[error("members are not distinct, ascending and above zero")]
    Order,
    /// A member that is neither bound to a store nor unbound.
    #[error("a member's binding is neither there nor absent")]
    Binding,
    /// A standing or flag that this build does not know.
    #[error("a member's standing is unknown")]
    Standing,
    /// A context longer than [`CONTEXT_MAX`].
    #[error("a member's context has {0} bytes, more than {CONTEXT_MAX}")]
    Context(usize),
    /// Members, but nobody who votes in one of the halves.
    #[error("nobody votes")]
    NoVoter,
}

const VOTERS_ONLY: u8 = 1;
const WITH_STANDINGS: u8 = 2;

/// Version 1: version and count.
const HEADER_1: usize = 1 + 4;
/// Version 1: node id, whether it is bound, store id.
const MEMBER_1: usize = 8 + 1 + 16;
/// Version 2: version, greatest id, count.
const HEADER_2: usize = 1 + 8 + 4;
/// Version 2, without the context: node id, standing, flags, store id, length of the context.
const MEMBER_2: usize = 8 + 1 + 1 + 16 + 2;

const BOUND: u8 = 1;
const PROMOTE_WHEN_READY: u8 = 2;

impl Standing {
    fn number(self) -> u8 {
        match self {
            Self::Voter => 0,
            Self::Learner => 1,
            Self::Entering => 2,
            Self::Leaving => 3,
            Self::Demoted => 4,
        }
    }

    fn of(number: u8) -> Result<Self, DecodeError> {
        [Self::Voter, Self::Learner, Self::Entering, Self::Leaving, Self::Demoted]
            .into_iter()
            .find(|standing| standing.number() == number)
            .ok_or(DecodeError::Standing)
    }
}

impl Membership {
    /// Length of [`Self::encode`]'s result, in bytes.
    #[must_use]
    pub fn encoded_len(&self) -> usize {
        if self.fits_version_1() {
            return HEADER_1 + self.members.len() * MEMBER_1;
        }
        let members = self.members.values().map(|member| MEMBER_2 + member.context.len());
        HEADER_2 + members.sum::<usize>()
    }

    fn fits_version_1(&self) -> bool {
        let last = self.members.keys().next_back().copied().unwrap_or_default();
        self.last_id == last
            && self.members.values().all(|member| {
                let Member { store: _, standing, promote_when_ready, context } = member;
                *standing == Standing::Voter && !promote_when_ready && context.is_empty()
            })
    }

    /// The membership as bytes.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let count =
            u32::try_from(self.members.len()).expect("a cluster has fewer than 2^32 members");
        if self.fits_version_1() {
            out.push(VOTERS_ONLY);
            out.extend_from_slice(&count.to_le_bytes());
            for (node, member) in &self.members {
                out.extend_from_slice(&node.0.to_le_bytes());
                out.push(u8::from(member.store.is_some()));
                out.extend_from_slice(&member.store.map_or(0, |store| store.0).to_le_bytes());
            }
            return;
        }
        out.push(WITH_STANDINGS);
        out.extend_from_slice(&self.last_id.0.to_le_bytes());
        out.extend_from_slice(&count.to_le_bytes());
        for (node, member) in &self.members {
            let length = u16::try_from(member.context.len()).expect("contexts are bounded");
            let bound = if member.store.is_some() { BOUND } else { 0 };
            let promote = if member.promote_when_ready { PROMOTE_WHEN_READY } else { 0 };
            out.extend_from_slice(&node.0.to_le_bytes());
            out.extend_from_slice(&[member.standing.number(), bound | promote]);
            out.extend_from_slice(&member.store.map_or(0, |store| store.0).to_le_bytes());
            out.extend_from_slice(&length.to_le_bytes());
            out.extend_from_slice(&member.context);
        }
    }

    /// Reads what [`Self::encode`] wrote; the whole slice must be used up.
    ///
    /// # Errors
    ///
    /// See [`DecodeError`].
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let (&version, rest) = bytes.split_first().ok_or(DecodeError::Empty)?;
        let membership = match version {
            VOTERS_ONLY => decode_1(rest)?,
            WITH_STANDINGS => decode_2(rest)?,
            version => return Err(DecodeError::Version(version)),
        };
        // Where nobody votes, nothing could ever be decided again.
        let has_halves =
            membership.incoming().next().is_some() && membership.outgoing().next().is_some();
        if !membership.is_empty() && !has_halves {
            return Err(DecodeError::NoVoter);
        }
        Ok(membership)
    }
}

fn decode_1(rest: &[u8]) -> Result<Membership, DecodeError> {
    let length = 1 + rest.len();
    let (count, rest) =
        rest.split_first_chunk::<4>().ok_or(DecodeError::Length { members: 0, length })?;
    let members = usize::try_from(u32::from_le_bytes(*count)).unwrap_or(usize::MAX);
    if members.checked_mul(MEMBER_1) != Some(rest.len()) {
        return Err(DecodeError::Length { members, length });
    }
    let mut membership = Membership::default();
    for member in rest.chunks_exact(MEMBER_1) {
        let node = NodeId(u64::from_le_bytes(member[0..8].try_into().expect("eight bytes")));
        let store = u128::from_le_bytes(member[9..25].try_into().expect("sixteen bytes"));
        let store = binding(member[8] == BOUND, member[8] > BOUND, store)?;
        push(&mut membership.members, node, Member { store, ..Member::default() })?;
        membership.last_id = node;
    }
    Ok(membership)
}

fn decode_2(rest: &[u8]) -> Result<Membership, DecodeError> {
    let length = 1 + rest.len();
    let too_short = DecodeError::Length { members: 0, length };
    let Some((last_id, rest)) = rest.split_first_chunk::<8>() else { return Err(too_short) };
    let Some((count, mut rest)) = rest.split_first_chunk::<4>() else { return Err(too_short) };
    let last_id = NodeId(u64::from_le_bytes(*last_id));
    let count = usize::try_from(u32::from_le_bytes(*count)).unwrap_or(usize::MAX);
    let mut members = BTreeMap::new();
    while let Some((fixed, behind)) = rest.split_first_chunk::<MEMBER_2>() {
        let node = NodeId(u64::from_le_bytes(fixed[0..8].try_into().expect("eight bytes")));
        let (standing, flags) = (Standing::of(fixed[8])?, fixed[9]);
        let store = u128::from_le_bytes(fixed[10..26].try_into().expect("sixteen bytes"));
        let context = u16::from_le_bytes(fixed[26..28].try_into().expect("two bytes"));
        let context = usize::from(context);
        if context > CONTEXT_MAX {
            return Err(DecodeError::Context(context));
        }
        if flags > BOUND | PROMOTE_WHEN_READY {
            return Err(DecodeError::Standing);
        }
        let Some((context, behind)) = behind.split_at_checked(context) else { break };
        let member = Member {
            store: binding(flags & BOUND != 0, false, store)?,
            standing,
            promote_when_ready: flags & PROMOTE_WHEN_READY != 0,
            context: Bytes::copy_from_slice(context),
        };
        push(&mut members, node, member)?;
        rest = behind;
    }
    if members.len() != count || !rest.is_empty() {
        return Err(DecodeError::Length { members: count, length });
    }
    if members.keys().next_back().is_some_and(|&node| node > last_id) {
        return Err(DecodeError::Order);
    }
    Ok(Membership { members, last_id })
}

fn push(
    members: &mut BTreeMap<NodeId, Member>,
    node: NodeId,
    member: Member,
) -> Result<(), DecodeError> {
    let last = members.keys().next_back().copied().unwrap_or_default();
    if node <= last {
        return Err(DecodeError::Order);
    }
    members.insert(node, member);
    Ok(())
}

fn binding(bound: bool, unknown: bool, store: u128) -> Result<Option<StoreId>, DecodeError> {
    match (bound, store) {
        _ if unknown => Err(DecodeError::Binding),
        (false, 0) => Ok(None),
        (true, store) => Ok(Some(StoreId(store))),
        (false, _) => Err(DecodeError::Binding),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn voters() -> Membership {
        let mut membership = Membership::founding([NodeId(1), NodeId(2), NodeId(7)]);
        membership.bind(NodeId(2), StoreId(u128::MAX - 3));
        membership
    }

    fn joint() -> Membership {
        let mut membership = voters();
        let member = |standing, context: &'static str| Member {
            standing,
            context: Bytes::from_static(context.as_bytes()),
            ..Member::voter(StoreId(5))
        };
        membership.insert(NodeId(1), member(Standing::Leaving, ""));
        membership.insert(NodeId(8), member(Standing::Entering, "10.0.0.8:2380"));
        membership.insert(NodeId(9), member(Standing::Demoted, "x"));
        let learner =
            Member { promote_when_ready: true, store: None, ..member(Standing::Learner, "") };
        membership.insert(NodeId(12), learner);
        membership.last_id = NodeId(15);
        membership
    }

    fn encoded(membership: &Membership) -> Vec<u8> {
        let mut bytes = Vec::new();
        membership.encode(&mut bytes);
        bytes
    }

    #[test]
    fn encoding_round_trips() {
        for membership in [Membership::default(), voters(), joint()] {
            let bytes = encoded(&membership);
            assert_eq!(bytes.len(), membership.encoded_len());
            assert_eq!(Membership::decode(&bytes), Ok(membership));
        }
    }

    #[test]
    fn voters_alone_are_written_as_they_always_were() {
        let hex: String = encoded(&voters()).iter().map(|byte| format!("{byte:02x}")).collect();
        let golden = concat!(
            "01",
            "03000000",
            "0100000000000000",
            "00",
            "00000000000000000000000000000000",
            "0200000000000000",
            "01",
            "fcffffffffffffffffffffffffffffff",
            "0700000000000000",
            "00",
            "00000000000000000000000000000000",
        );
        assert_eq!(hex, golden);
    }

    #[test]
    fn version_2_is_as_it_was_drawn() {
        let mut membership = Membership::founding([NodeId(1)]);
        membership.bind(NodeId(1), StoreId(0xa1));
        let learner = Member {
            promote_when_ready: true,
            context: Bytes::from_static(b"n2"),
            ..Member::learner(StoreId(0xb2))
        };
        membership.insert(NodeId(2), learner);
        let hex: String = encoded(&membership).iter().map(|byte| format!("{byte:02x}")).collect();
        let golden = concat!(
            "02",
            "0200000000000000",
            "02000000",
            "0100000000000000",
            "00",
            "01",
            "a1000000000000000000000000000000",
            "0000",
            "0200000000000000",
            "01",
            "03",
            "b2000000000000000000000000000000",
            "0200",
            "6e32",
        );
        assert_eq!(hex, golden);
    }

    #[test]
    fn every_cut_of_an_encoding_is_an_error() {
        for membership in [voters(), joint()] {
            let bytes = encoded(&membership);
            for length in 0..bytes.len() {
                assert!(Membership::decode(&bytes[..length]).is_err(), "cut at {length}");
            }
            assert!(Membership::decode(&[bytes, vec![0]].concat()).is_err(), "a byte too many");
        }
    }

    #[test]
    fn a_lying_count_allocates_nothing_and_is_an_error() {
        let bytes = [VOTERS_ONLY, 0xff, 0xff, 0xff, 0xff, 0, 0];
        assert!(matches!(Membership::decode(&bytes), Err(DecodeError::Length { .. })));
        let mut bytes = encoded(&joint());
        bytes[9..13].copy_from_slice(&u32::MAX.to_le_bytes());
        assert!(matches!(Membership::decode(&bytes), Err(DecodeError::Length { .. })));
    }

    #[test]
    fn what_is_not_known_is_an_error() {
        let change = |at: usize, byte: u8| {
            let mut bytes = encoded(&joint());
            bytes[at] = byte;
            Membership::decode(&bytes)
        };
        let member = HEADER_2;
        assert_eq!(change(0, 3), Err(DecodeError::Version(3)));
        assert_eq!(change(member + 8, 5), Err(DecodeError::Standing));
        assert_eq!(change(member + 9, 4), Err(DecodeError::Standing));
        assert_eq!(change(member + 9, 0), Err(DecodeError::Binding), "unbound, with a store");
        assert_eq!(change(member + 27, 0xff), Err(DecodeError::Context(0xff00)));
        assert_eq!(change(1, 11), Err(DecodeError::Order), "greater than the greatest");
        let mut learners = Membership::default();
        learners.insert(NodeId(1), Member::learner(StoreId(1)));
        assert_eq!(Membership::decode(&encoded(&learners)), Err(DecodeError::NoVoter));
    }
}
