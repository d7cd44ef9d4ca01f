//! The bytes of an entry and of the log's state inside the journal, version 1. Drawn in `docs/formats.md`.
//!
//! The journal's checksums tell whether bytes are those that were written; decoding still trusts none of them, since a bug or a
//! newer version may have written something else. Every encoding begins with its version, and the whole slice must
//! be used up.

use bytes::Bytes;
use lattice_journal::Encode;
use thiserror::Error;

use crate::membership::{DecodeError, Membership};
use crate::types::{
    Entry, EntryId, HardState, LogIndex, NodeId, Payload, SessionId, SnapshotMeta, Term,
};

const VERSION: u8 = 1;
/// Bytes of version, kind, flags and term.
const ENTRY_HEAD: usize = 3 + 8;
/// Bytes that name a session.
const SESSION: usize = 8 + 8;
const NOOP: u8 = 0;
const COMMAND: u8 = 1;
const MEMBERSHIP: u8 = 2;
/// The entry names a session.
const HAS_SESSION: u8 = 1;
/// The state names a snapshot.
const HAS_SNAPSHOT: u8 = 1;

/// Why bytes of the log cannot be made sense of.
#[derive(Debug, Error, PartialEq, Eq)]
pub(super) enum EncodingError {
    #[error("it is encoded in version {0}, this program knows version {VERSION}")]
    Version(u8),
    #[error("it is cut short")]
    Short,
    #[error("it is longer than its content")]
    Long,
    #[error("its kind {0} is not known")]
    Kind(u8),
    #[error("its flags {0:#04x} are not known")]
    Flags(u8),
    #[error("{0}")]
    Membership(#[from] DecodeError),
}

/// An entry as an item: version, kind, flags, term, session if there is one, payload. Its index is its position in the journal.
impl Encode for &Entry {
    fn encoded_length(&self) -> usize {
        let session = if self.session.is_some() { SESSION } else { 0 };
        let payload = match &self.payload {
            Payload::Noop => 0,
            Payload::Command(command) => command.len(),
            Payload::Membership(membership) => membership.encoded_len(),
        };
        ENTRY_HEAD + session + payload
    }

    fn encode(&self, out: &mut Vec<u8>) {
        let kind = match self.payload {
            Payload::Noop => NOOP,
            Payload::Command(_) => COMMAND,
            Payload::Membership(_) => MEMBERSHIP,
        };
        let flags = if self.session.is_some() { HAS_SESSION } else { 0 };
        out.extend_from_slice(&[VERSION, kind, flags]);
        out.extend_from_slice(&self.id.term.0.to_le_bytes());
        if let Some(SessionId { session, sequence }) = self.session {
            out.extend_from_slice(&session.to_le_bytes());
            out.extend_from_slice(&sequence.to_le_bytes());
        }
        match &self.payload {
            Payload::Noop => {}
            Payload::Command(command) => out.extend_from_slice(command),
            Payload::Membership(membership) => membership.encode(out),
        }
    }
}

/// Reads an entry that [`Encode`] wrote at position `index`.
pub(super) fn decode_entry(index: LogIndex, bytes: &[u8]) -> Result<Entry, EncodingError> {
    let mut rest = bytes;
    version(&mut rest)?;
    let [kind, flags] = take(&mut rest)?;
    let term = Term(u64_of(&mut rest)?);
    let session = match flags {
        0 => None,
        HAS_SESSION => {
            Some(SessionId { session: u64_of(&mut rest)?, sequence: u64_of(&mut rest)? })
        }
        _ => return Err(EncodingError::Flags(flags)),
    };
    let payload = match kind {
        NOOP if rest.is_empty() => Payload::Noop,
        NOOP => return Err(EncodingError::Long),
        COMMAND => Payload::Command(Bytes::copy_from_slice(rest)),
        MEMBERSHIP => Payload::Membership(Membership::decode(rest)?),
        _ => return Err(EncodingError::Kind(kind)),
    };
    Ok(Entry { id: EntryId::new(term, index), session, payload })
}

/// The state that the journal keeps beside the entries: version, term, vote, and the latest snapshot if there is one.
pub(super) fn encode_state(hard_state: HardState, snapshot: Option<&SnapshotMeta>) -> Vec<u8> {
    let mut out = vec![VERSION, if snapshot.is_some() { HAS_SNAPSHOT } else { 0 }];
    out.extend_from_slice(&hard_state.term.0.to_le_bytes());
    // Zero is nobody's id.
    out.extend_from_slice(&hard_state.voted_for.map_or(0, |node| node.0).to_le_bytes());
    if let Some(meta) = snapshot {
        out.extend_from_slice(&meta.last.term.0.to_le_bytes());
        out.extend_from_slice(&meta.last.index.0.to_le_bytes());
        out.extend_from_slice(&meta.size.to_le_bytes());
        out.extend_from_slice(&meta.checksum.to_le_bytes());
        meta.membership.encode(&mut out);
    }
    out
}

/// Reads what [`encode_state`] wrote.
pub(super) fn decode_state(
    bytes: &[u8],
) -> Result<(HardState, Option<SnapshotMeta>), EncodingError> {
    let mut rest = bytes;
    version(&mut rest)?;
    let [flags] = take(&mut rest)?;
    let term = Term(u64_of(&mut rest)?);
    let voted_for = Some(NodeId(u64_of(&mut rest)?)).filter(|&node| node != NodeId(0));
    let hard_state = HardState { term, voted_for };
    match flags {
        0 if rest.is_empty() => Ok((hard_state, None)),
        0 => Err(EncodingError::Long),
        HAS_SNAPSHOT => Ok((hard_state, Some(decode_snapshot(rest)?))),
        _ => Err(EncodingError::Flags(flags)),
    }
}

fn decode_snapshot(bytes: &[u8]) -> Result<SnapshotMeta, EncodingError> {
    let mut rest = bytes;
    let term = Term(u64_of(&mut rest)?);
    let index = LogIndex(u64_of(&mut rest)?);
    let size = u64_of(&mut rest)?;
    let checksum = u32::from_le_bytes(take(&mut rest)?);
    let membership = Membership::decode(rest)?;
    Ok(SnapshotMeta { last: EntryId::new(term, index), membership, size, checksum })
}

fn version(rest: &mut &[u8]) -> Result<(), EncodingError> {
    match take(rest)? {
        [VERSION] => Ok(()),
        [version] => Err(EncodingError::Version(version)),
    }
}

fn take<const N: usize>(rest: &mut &[u8]) -> Result<[u8; N], EncodingError> {
    let (chunk, behind) = rest.split_first_chunk::<N>().ok_or(EncodingError::Short)?;
    *rest = behind;
    Ok(*chunk)
}

fn u64_of(rest: &mut &[u8]) -> Result<u64, EncodingError> {
    take(rest).map(u64::from_le_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::membership::Member;
    use crate::types::StoreId;

    fn membership() -> Membership {
        let mut membership = Membership::founding([NodeId(1), NodeId(9)]);
        membership.insert(NodeId(4), Member::voter(StoreId(u128::MAX / 3)));
        membership
    }

    fn entries() -> Vec<Entry> {
        let session = Some(SessionId { session: 5, sequence: u64::MAX });
        let payloads = [
            Payload::Noop,
            Payload::Command(Bytes::new()),
            Payload::Command(Bytes::from_static(b"set x")),
            Payload::Membership(membership()),
        ];
        let with = |session| {
            let id = EntryId::new(Term(7), LogIndex(3));
            payloads.clone().map(|payload| Entry { id, session, payload })
        };
        [with(None), with(session)].concat()
    }

    fn states() -> Vec<(HardState, Option<SnapshotMeta>)> {
        let voted = HardState { term: Term(8), voted_for: Some(NodeId(2)) };
        let last = EntryId::new(Term(6), LogIndex(1000));
        let meta = SnapshotMeta { last, membership: membership(), size: 1 << 40, checksum: 0xabcd };
        vec![(HardState::default(), None), (voted, None), (voted, Some(meta))]
    }

    fn encoded(entry: &Entry) -> Vec<u8> {
        let mut bytes = Vec::new();
        entry.encode(&mut bytes);
        assert_eq!(bytes.len(), entry.encoded_length());
        bytes
    }

    #[test]
    fn entries_and_states_round_trip() {
        for entry in entries() {
            assert_eq!(decode_entry(LogIndex(3), &encoded(&entry)), Ok(entry));
        }
        for (hard_state, snapshot) in states() {
            let bytes = encode_state(hard_state, snapshot.as_ref());
            assert_eq!(decode_state(&bytes), Ok((hard_state, snapshot)));
        }
    }

    #[test]
    fn version_1_stays_readable() {
        let entry = [1, 1, 1, 7, 0, 0, 0, 0, 0, 0, 0, 5, 0, 0, 0, 0, 0, 0, 0]
            .into_iter()
            .chain([255; 8])
            .chain(*b"set x");
        assert_eq!(encoded(&entries()[6]), entry.collect::<Vec<u8>>());
        let state = [1, 0, 8, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0];
        assert_eq!(encode_state(states()[1].0, None), state);
    }

    #[test]
    fn every_cut_is_an_error_unless_it_shortens_a_command() {
        for entry in entries() {
            let bytes = encoded(&entry);
            let command = match &entry.payload {
                Payload::Command(command) => command.len(),
                Payload::Noop | Payload::Membership(_) => 0,
            };
            for length in 0..bytes.len() - command {
                assert!(decode_entry(LogIndex(3), &bytes[..length]).is_err(), "{entry:?} {length}");
            }
        }
        for (hard_state, snapshot) in states() {
            let bytes = encode_state(hard_state, snapshot.as_ref());
            for length in 0..bytes.len() {
                assert!(decode_state(&bytes[..length]).is_err(), "{snapshot:?} {length}");
            }
        }
    }

    /// The journal's checksum finds flipped bits; here they must do no harm, and change no other value than their own.
    #[test]
    fn a_flipped_bit_is_an_error_or_another_value_but_never_the_same_one() {
        for entry in entries().into_iter().filter(|entry| {
            // Any flag but zero says that a member is bound.
            !matches!(entry.payload, Payload::Membership(_))
        }) {
            let mut bytes = encoded(&entry);
            for bit in 0..bytes.len() * 8 {
                bytes[bit / 8] ^= 1 << (bit % 8);
                if let Ok(other) = decode_entry(LogIndex(3), &bytes) {
                    assert_ne!(other, entry, "bit {bit}");
                    assert_eq!(encoded(&other), bytes, "bit {bit}");
                }
                bytes[bit / 8] ^= 1 << (bit % 8);
            }
        }
        for (hard_state, snapshot) in states() {
            let mut bytes = encode_state(hard_state, snapshot.as_ref());
            for bit in 0..bytes.len() * 8 {
                bytes[bit / 8] ^= 1 << (bit % 8);
                // Total: an error or a value, whatever the bytes.
                let _ = decode_state(&bytes);
                bytes[bit / 8] ^= 1 << (bit % 8);
            }
        }
    }
}
