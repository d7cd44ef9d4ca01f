//! Who the members are, and which data directory each one is bound to.
//!
//! A membership is in force from the moment its entry is in the log, committed or not, and is rolled back with it
//! (Raft thesis §4.1); see `raft_node/membership.rs`. This module is the value and its encoding.
//!
//! **Binding.** A cluster is founded by blank nodes: nobody knows their store ids yet. The first leader's first entry binds
//! each node it has heard from to its store; nothing is committed before that entry. From then on a vote or an
//! acknowledgement counts only if it comes from the bound store, so a node whose disk was lost, and which forgot its votes and
//! its entries, cannot vote or acknowledge a second time under its old name. A founder that was not there yet is bound by
//! a later entry, when the leader first hears from it; until then it does not count.

use std::collections::BTreeMap;

use thiserror::Error;

use crate::types::{NodeId, StoreId};

/// What the cluster knows of one voting member.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Member {
    /// The data directory the member is bound to; `None` until the leader has heard from it.
    pub store: Option<StoreId>,
}

/// The members of a cluster at some place in the log.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Membership {
    /// Those whose votes and acknowledgements make a majority.
    pub voters: BTreeMap<NodeId, Member>,
}

/// Why bytes are not a membership.
#[derive(Debug, Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum DecodeError {
    /// A version of the encoding that this build does not know.
    #[error("membership is encoded in version {0}, this build knows version {VERSION}")]
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
    /// Members not in ascending order, or node id zero.
    #[error("members are not distinct, ascending and above zero")]
    Order,
    /// A member that is neither bound to a store nor unbound.
    #[error("a member's binding is neither there nor absent")]
    Binding,
}

/// The version of the encoding.
const VERSION: u8 = 1;
/// Version and count.
const HEADER: usize = 1 + 4;
/// Node id, whether it is bound, store id.
const MEMBER: usize = 8 + 1 + 16;

impl Membership {
    /// A founding membership: these voters, none of them bound to a store yet.
    pub fn founding(voters: impl IntoIterator<Item = NodeId>) -> Self {
        Self { voters: voters.into_iter().map(|node| (node, Member::default())).collect() }
    }

    /// Whether `node` may vote and acknowledge.
    #[must_use]
    pub fn is_voter(&self, node: NodeId) -> bool {
        self.voters.contains_key(&node)
    }

    /// Whether no member is bound to a store: the cluster has not been founded yet.
    #[must_use]
    pub fn is_blank(&self) -> bool {
        self.voters.values().all(|member| member.store.is_none())
    }

    /// Whether every member is bound to a store: from then on the cluster survives the loss of any minority.
    #[must_use]
    pub fn is_fully_bound(&self) -> bool {
        self.voters.values().all(|member| member.store.is_some())
    }

    /// The store that `node` is bound to.
    #[must_use]
    pub fn store_of(&self, node: NodeId) -> Option<StoreId> {
        self.voters.get(&node).and_then(|member| member.store)
    }

    /// Whether a vote or an acknowledgement of `node`, sent by `store`, counts: any founder's while the cluster is blank,
    /// afterwards only that of the bound store.
    #[must_use]
    pub fn counts(&self, node: NodeId, store: StoreId) -> bool {
        self.is_voter(node) && (self.is_blank() || self.store_of(node) == Some(store))
    }

    /// Whether `node` is bound to a store other than `store`: whoever speaks is not who the cluster knows.
    #[must_use]
    pub fn is_impostor(&self, node: NodeId, store: StoreId) -> bool {
        self.store_of(node).is_some_and(|bound| bound != store)
    }

    /// Length of [`Self::encode`]'s result, in bytes.
    #[must_use]
    pub fn encoded_len(&self) -> usize {
        HEADER + self.voters.len() * MEMBER
    }

    /// The membership as bytes, for the log and the wire: version, count, then node, flag and store of each member,
    /// ascending, little-endian. Drawn in `docs/formats.md`.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.push(VERSION);
        let count =
            u32::try_from(self.voters.len()).expect("a cluster has fewer than 2^32 members");
        out.extend_from_slice(&count.to_le_bytes());
        for (node, member) in &self.voters {
            out.extend_from_slice(&node.0.to_le_bytes());
            out.push(u8::from(member.store.is_some()));
            out.extend_from_slice(&member.store.map_or(0, |store| store.0).to_le_bytes());
        }
    }

    /// Reads what [`Self::encode`] wrote; the whole slice must be used up.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let (&version, rest) = bytes.split_first().ok_or(DecodeError::Empty)?;
        if version != VERSION {
            return Err(DecodeError::Version(version));
        }
        let length = bytes.len();
        let (count, rest) =
            rest.split_first_chunk::<4>().ok_or(DecodeError::Length { members: 0, length })?;
        let members = usize::try_from(u32::from_le_bytes(*count)).unwrap_or(usize::MAX);
        if members.checked_mul(MEMBER) != Some(rest.len()) {
            return Err(DecodeError::Length { members, length });
        }
        let mut voters = BTreeMap::new();
        let mut last = NodeId(0);
        for member in rest.chunks_exact(MEMBER) {
            let field = |range: std::ops::Range<usize>| &member[range];
            let node = NodeId(u64::from_le_bytes(field(0..8).try_into().expect("eight bytes")));
            let store = u128::from_le_bytes(field(9..25).try_into().expect("sixteen bytes"));
            if node <= last {
                return Err(DecodeError::Order);
            }
            last = node;
            let store = match (member[8], store) {
                (0, 0) => None,
                (1, store) => Some(StoreId(store)),
                _ => return Err(DecodeError::Binding),
            };
            voters.insert(node, Member { store });
        }
        Ok(Self { voters })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Membership {
        let mut membership = Membership::founding([NodeId(1), NodeId(2), NodeId(7)]);
        membership.voters.insert(NodeId(2), Member { store: Some(StoreId(u128::MAX - 3)) });
        membership
    }

    #[test]
    fn encoding_round_trips() {
        let mut bytes = Vec::new();
        sample().encode(&mut bytes);
        assert_eq!(bytes.len(), sample().encoded_len());
        assert_eq!(Membership::decode(&bytes), Ok(sample()));
    }

    #[test]
    fn every_cut_of_an_encoding_is_an_error() {
        let mut bytes = Vec::new();
        sample().encode(&mut bytes);
        for length in 0..bytes.len() {
            assert!(Membership::decode(&bytes[..length]).is_err(), "cut at {length}");
        }
    }

    #[test]
    fn a_lying_count_allocates_nothing_and_is_an_error() {
        let bytes = [VERSION, 0xff, 0xff, 0xff, 0xff, 0, 0];
        assert!(matches!(Membership::decode(&bytes), Err(DecodeError::Length { .. })));
    }

    #[test]
    fn blank_founders_count_until_the_first_binding() {
        let blank = Membership::founding([NodeId(1), NodeId(2)]);
        assert!(blank.counts(NodeId(1), StoreId(5)));
        assert!(!blank.counts(NodeId(3), StoreId(5)), "not a member");
        let mut bound = blank;
        bound.voters.insert(NodeId(2), Member { store: Some(StoreId(9)) });
        assert!(bound.counts(NodeId(2), StoreId(9)));
        assert!(!bound.counts(NodeId(2), StoreId(8)), "another disk under the same name");
        assert!(!bound.counts(NodeId(1), StoreId(5)), "not bound yet");
        assert!(bound.is_impostor(NodeId(2), StoreId(8)));
        assert!(!bound.is_impostor(NodeId(1), StoreId(5)));
    }
}
