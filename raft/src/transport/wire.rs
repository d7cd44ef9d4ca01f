//! Envelopes as protobuf, and back.
//!
//! The one place where wire types and domain types meet. Encoding writes what the domain holds;
//! decoding takes nothing for granted: an absent part, a store id of the wrong length, node id zero
//! or a membership that does not parse is a [`WireError`], and no input panics. Memory is bounded
//! before it is spent: a message of tiny entries would unfold to many times its length, so entries
//! are counted in the bytes before anything is built from them.

use bytes::{Buf as _, Bytes};
use lattice_trace::Cause;
use prost::Message as _;
use prost::encoding::{DecodeContext, WireType, decode_key, decode_varint, skip_field};
use thiserror::Error;

use super::generated as pb;
use crate::membership::{self, Membership};
use crate::message::{Envelope, Message, ReadId};
use crate::types::{
    ClusterId, Entry, EntryId, GroupId, LogIndex, NodeEpoch, NodeId, Payload, SessionId,
    SnapshotMeta, StoreId, Term,
};

/// The most entries that one message may carry. Unfolded they take about as much memory as the
/// largest message does.
pub const ENTRIES_MAX: usize = 1 << 18;

/// Why bytes are not an envelope, or an envelope cannot be sent.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum WireError {
    /// Not the protobuf message it should be.
    #[error("malformed message: {0}")]
    Protobuf(#[from] prost::DecodeError),
    /// A part without which the message means nothing.
    #[error("malformed message: no {0}")]
    Missing(&'static str),
    /// A store id that is not sixteen bytes long.
    #[error("malformed message: a store id of {0} bytes, not 16")]
    StoreId(usize),
    /// Node id zero, which names nobody.
    #[error("malformed message: node id 0 in {0}")]
    NodeId(&'static str),
    /// A membership that does not parse.
    #[error("malformed message: {0}")]
    Membership(#[from] membership::DecodeError),
    /// More entries than one message may carry.
    #[error("message of more than {ENTRIES_MAX} entries")]
    TooManyEntries,
}

/// The envelope as bytes. Fails only with [`WireError::TooManyEntries`].
pub fn encode(envelope: &Envelope) -> Result<Bytes, WireError> {
    let entries = match &envelope.message {
        Message::Append { entries, .. } => entries.len(),
        Message::FetchedEntries { entries, .. } => entries.len(),
        _ => 0,
    };
    if entries > ENTRIES_MAX {
        return Err(WireError::TooManyEntries);
    }
    let wire = pb::Envelope {
        cluster: envelope.cluster.0,
        group: envelope.group.0,
        from: envelope.from.0,
        to: envelope.to.0,
        store: store_to_wire(envelope.store),
        term: envelope.term.0,
        cause_node: envelope.cause.node,
        cause_seq: envelope.cause.seq,
        can_wait: envelope.can_wait,
        message: Some(message_to_wire(&envelope.message)),
    };
    Ok(Bytes::from(wire.encode_to_vec()))
}

/// Reads what [`encode`] wrote. Payloads of the result are slices of `bytes`.
pub fn decode(bytes: Bytes) -> Result<Envelope, WireError> {
    if count_entries(bytes.clone())? > ENTRIES_MAX {
        return Err(WireError::TooManyEntries);
    }
    let wire = pb::Envelope::decode(bytes)?;
    Ok(Envelope {
        cluster: ClusterId(wire.cluster),
        group: GroupId(wire.group),
        from: node_from_wire(wire.from, "sender")?,
        to: node_from_wire(wire.to, "receiver")?,
        store: store_from_wire(&wire.store)?,
        term: Term(wire.term),
        cause: Cause { node: wire.cause_node, seq: wire.cause_seq },
        can_wait: wire.can_wait,
        message: message_from_wire(wire.message.ok_or(WireError::Missing("known kind"))?)?,
    })
}

/// A store id as it travels: sixteen bytes, big-endian.
pub(crate) fn store_to_wire(store: StoreId) -> Bytes {
    Bytes::copy_from_slice(&store.0.to_be_bytes())
}

/// Reads what [`store_to_wire`] wrote.
pub(crate) fn store_from_wire(bytes: &[u8]) -> Result<StoreId, WireError> {
    let fixed = bytes.try_into().map_err(|_wrong_length| WireError::StoreId(bytes.len()))?;
    Ok(StoreId(u128::from_be_bytes(fixed)))
}

fn node_from_wire(node: u64, place: &'static str) -> Result<NodeId, WireError> {
    if node == 0 { Err(WireError::NodeId(place)) } else { Ok(NodeId(node)) }
}

/// Counts the entries of an encoded envelope without building any.
fn count_entries(mut envelope: Bytes) -> Result<usize, WireError> {
    const APPEND: u32 = 20;
    const FETCHED: u32 = 41;
    // In both.
    const ENTRIES: u32 = 3;
    let mut count = 0;
    while envelope.has_remaining() {
        let Some(mut message) = take_field(&mut envelope, &[APPEND, FETCHED])? else { continue };
        while message.has_remaining() {
            count += usize::from(take_field(&mut message, &[ENTRIES])?.is_some());
        }
    }
    Ok(count)
}

/// Takes the next field off `message`; returns its bytes if it is one of the length-delimited fields
/// `wanted`.
fn take_field(message: &mut Bytes, wanted: &[u32]) -> Result<Option<Bytes>, WireError> {
    let (tag, wire_type) = decode_key(message)?;
    if !wanted.contains(&tag) || wire_type != WireType::LengthDelimited {
        skip_field(wire_type, tag, message, DecodeContext::default())?;
        return Ok(None);
    }
    let length = usize::try_from(decode_varint(message)?).unwrap_or(usize::MAX);
    if length > message.len() {
        return Err(WireError::Missing("end of a field"));
    }
    Ok(Some(message.split_to(length)))
}

fn message_to_wire(message: &Message) -> pb::envelope::Message {
    use pb::envelope::Message as Wire;
    match message {
        Message::PreVote { term, last } => {
            Wire::PreVote(pb::PreVote { term: term.0, last: Some(id_to_wire(*last)) })
        }
        Message::PreVoteReply { term, granted } => {
            Wire::PreVoteReply(pb::PreVoteReply { term: term.0, granted: *granted })
        }
        Message::Vote { last, transfer } => {
            Wire::Vote(pb::Vote { last: Some(id_to_wire(*last)), transfer: *transfer })
        }
        Message::VoteReply { granted } => Wire::VoteReply(pb::VoteReply { granted: *granted }),
        Message::Append { previous, entries, commit } => Wire::Append(pb::Append {
            previous: Some(id_to_wire(*previous)),
            commit: commit.0,
            entries: entries.iter().map(entry_to_wire).collect(),
        }),
        Message::AppendAccepted { matched } => {
            Wire::AppendAccepted(pb::AppendAccepted { matched: matched.0 })
        }
        Message::AppendRejected { rejected, hint } => Wire::AppendRejected(pb::AppendRejected {
            rejected: rejected.0,
            hint: Some(id_to_wire(*hint)),
        }),
        Message::Heartbeat { commit, round } => {
            Wire::Heartbeat(pb::Heartbeat { commit: commit.0, round: *round })
        }
        Message::HeartbeatReply { round, is_damaged } => {
            Wire::HeartbeatReply(pb::HeartbeatReply { round: *round, is_damaged: *is_damaged })
        }
        Message::ReadIndex { id } => Wire::ReadIndex(pb::ReadIndex { id: Some(read_to_wire(*id)) }),
        Message::ReadIndexReply { id, index } => Wire::ReadIndexReply(pb::ReadIndexReply {
            id: Some(read_to_wire(*id)),
            index: index.map(|index| index.0),
        }),
        Message::SnapshotChunk { meta, offset, data } => Wire::SnapshotChunk(pb::SnapshotChunk {
            meta: Some(meta_to_wire(meta)),
            offset: *offset,
            data: data.clone(),
        }),
        Message::SnapshotAck { last, offset, installed } => Wire::SnapshotAck(pb::SnapshotAck {
            last: Some(id_to_wire(*last)),
            offset: *offset,
            installed: *installed,
        }),
        Message::FetchEntries { id, first, through, joint } => {
            Wire::FetchEntries(pb::FetchEntries {
                id: Some(read_to_wire(*id)),
                first: first.0,
                through: through.0,
                joint: joint.map(id_to_wire),
            })
        }
        Message::FetchedEntries { id, previous, entries, holds_joint, last } => {
            Wire::FetchedEntries(pb::FetchedEntries {
                id: Some(read_to_wire(*id)),
                previous: previous.map(id_to_wire),
                entries: entries.iter().map(entry_to_wire).collect(),
                holds_joint: *holds_joint,
                last: last.0,
            })
        }
        Message::WrongStore { bound } => {
            Wire::WrongStore(pb::WrongStore { bound: store_to_wire(*bound) })
        }
        Message::Quiet { last, epoch } => Wire::Quiet(pb::Quiet {
            last: Some(id_to_wire(*last)),
            epoch: Some(epoch_to_wire(*epoch)),
        }),
        Message::QuietAgreed { last } => {
            Wire::QuietAgreed(pb::QuietAgreed { last: Some(id_to_wire(*last)) })
        }
        Message::NodeAlive { epoch } => {
            Wire::NodeAlive(pb::NodeAlive { epoch: Some(epoch_to_wire(*epoch)) })
        }
        Message::TimeoutNow => Wire::TimeoutNow(pb::TimeoutNow {}),
        Message::Removed => Wire::Removed(pb::Removed {}),
    }
}

fn message_from_wire(message: pb::envelope::Message) -> Result<Message, WireError> {
    use pb::envelope::Message as Wire;
    Ok(match message {
        Wire::PreVote(pb::PreVote { term, last }) => {
            Message::PreVote { term: Term(term), last: id_from_wire(last, "last entry")? }
        }
        Wire::PreVoteReply(pb::PreVoteReply { term, granted }) => {
            Message::PreVoteReply { term: Term(term), granted }
        }
        Wire::Vote(pb::Vote { last, transfer }) => {
            Message::Vote { last: id_from_wire(last, "last entry")?, transfer }
        }
        Wire::VoteReply(pb::VoteReply { granted }) => Message::VoteReply { granted },
        Wire::Append(pb::Append { previous, commit, entries }) => Message::Append {
            previous: id_from_wire(previous, "preceding entry")?,
            entries: entries.into_iter().map(entry_from_wire).collect::<Result<_, _>>()?,
            commit: LogIndex(commit),
        },
        Wire::AppendAccepted(pb::AppendAccepted { matched }) => {
            Message::AppendAccepted { matched: LogIndex(matched) }
        }
        Wire::AppendRejected(pb::AppendRejected { rejected, hint }) => Message::AppendRejected {
            rejected: LogIndex(rejected),
            hint: id_from_wire(hint, "hint")?,
        },
        Wire::Heartbeat(pb::Heartbeat { commit, round }) => {
            Message::Heartbeat { commit: LogIndex(commit), round }
        }
        Wire::HeartbeatReply(pb::HeartbeatReply { round, is_damaged }) => {
            Message::HeartbeatReply { round, is_damaged }
        }
        Wire::ReadIndex(pb::ReadIndex { id }) => Message::ReadIndex { id: read_from_wire(id)? },
        Wire::ReadIndexReply(pb::ReadIndexReply { id, index }) => {
            Message::ReadIndexReply { id: read_from_wire(id)?, index: index.map(LogIndex) }
        }
        Wire::SnapshotChunk(pb::SnapshotChunk { meta, offset, data }) => {
            Message::SnapshotChunk { meta: meta_from_wire(meta)?, offset, data }
        }
        Wire::SnapshotAck(pb::SnapshotAck { last, offset, installed }) => Message::SnapshotAck {
            last: id_from_wire(last, "snapshot's last entry")?,
            offset,
            installed,
        },
        Wire::FetchEntries(pb::FetchEntries { id, first, through, joint }) => {
            let joint = joint.map(|joint| id_from_wire(Some(joint), "joint")).transpose()?;
            let (first, through) = (LogIndex(first), LogIndex(through));
            Message::FetchEntries { id: read_from_wire(id)?, first, through, joint }
        }
        Wire::FetchedEntries(pb::FetchedEntries { id, previous, entries, holds_joint, last }) => {
            Message::FetchedEntries {
                id: read_from_wire(id)?,
                previous: previous
                    .map(|id| id_from_wire(Some(id), "preceding entry"))
                    .transpose()?,
                entries: entries.into_iter().map(entry_from_wire).collect::<Result<_, _>>()?,
                holds_joint,
                last: LogIndex(last),
            }
        }
        Wire::WrongStore(pb::WrongStore { bound }) => {
            Message::WrongStore { bound: store_from_wire(&bound)? }
        }
        Wire::Quiet(pb::Quiet { last, epoch }) => Message::Quiet {
            last: id_from_wire(last, "last entry")?,
            epoch: epoch_from_wire(epoch)?,
        },
        Wire::QuietAgreed(pb::QuietAgreed { last }) => {
            Message::QuietAgreed { last: id_from_wire(last, "last entry")? }
        }
        Wire::NodeAlive(pb::NodeAlive { epoch }) => {
            Message::NodeAlive { epoch: epoch_from_wire(epoch)? }
        }
        Wire::TimeoutNow(pb::TimeoutNow {}) => Message::TimeoutNow,
        Wire::Removed(pb::Removed {}) => Message::Removed,
    })
}

fn id_to_wire(id: EntryId) -> pb::EntryId {
    pb::EntryId { term: id.term.0, index: id.index.0 }
}

fn id_from_wire(id: Option<pb::EntryId>, place: &'static str) -> Result<EntryId, WireError> {
    let pb::EntryId { term, index } = id.ok_or(WireError::Missing(place))?;
    Ok(EntryId::new(Term(term), LogIndex(index)))
}

fn epoch_to_wire(epoch: NodeEpoch) -> pb::NodeEpoch {
    pb::NodeEpoch { boot: epoch.boot, count: epoch.count }
}

fn epoch_from_wire(epoch: Option<pb::NodeEpoch>) -> Result<NodeEpoch, WireError> {
    let pb::NodeEpoch { boot, count } = epoch.ok_or(WireError::Missing("epoch"))?;
    Ok(NodeEpoch { boot, count })
}

fn read_to_wire(id: ReadId) -> pb::ReadId {
    pb::ReadId { node: id.node.0, boot: id.boot, counter: id.counter }
}

fn read_from_wire(id: Option<pb::ReadId>) -> Result<ReadId, WireError> {
    let pb::ReadId { node, boot, counter } = id.ok_or(WireError::Missing("read id"))?;
    Ok(ReadId { node: node_from_wire(node, "read id")?, boot, counter })
}

fn entry_to_wire(entry: &Entry) -> pb::Entry {
    let payload = match &entry.payload {
        Payload::Noop => pb::entry::Payload::Noop(pb::Noop {}),
        Payload::Command(command) => pb::entry::Payload::Command(command.clone()),
        Payload::Membership(membership) => {
            pb::entry::Payload::Membership(membership_to_wire(membership))
        }
    };
    pb::Entry {
        id: Some(id_to_wire(entry.id)),
        session: entry
            .session
            .map(|SessionId { session, sequence }| pb::Session { session, sequence }),
        payload: Some(payload),
    }
}

fn entry_from_wire(entry: pb::Entry) -> Result<Entry, WireError> {
    let payload = match entry.payload.ok_or(WireError::Missing("payload"))? {
        pb::entry::Payload::Noop(pb::Noop {}) => Payload::Noop,
        pb::entry::Payload::Command(command) => Payload::Command(command),
        pb::entry::Payload::Membership(bytes) => Payload::Membership(Membership::decode(&bytes)?),
    };
    let session =
        entry.session.map(|pb::Session { session, sequence }| SessionId { session, sequence });
    Ok(Entry { id: id_from_wire(entry.id, "entry id")?, session, payload })
}

fn membership_to_wire(membership: &Membership) -> Bytes {
    let mut bytes = Vec::with_capacity(membership.encoded_len());
    membership.encode(&mut bytes);
    Bytes::from(bytes)
}

fn meta_to_wire(meta: &SnapshotMeta) -> pb::SnapshotMeta {
    pb::SnapshotMeta {
        last: Some(id_to_wire(meta.last)),
        membership: membership_to_wire(&meta.membership),
        size: meta.size,
        checksum: meta.checksum,
    }
}

fn meta_from_wire(meta: Option<pb::SnapshotMeta>) -> Result<SnapshotMeta, WireError> {
    let meta = meta.ok_or(WireError::Missing("snapshot description"))?;
    Ok(SnapshotMeta {
        last: id_from_wire(meta.last, "snapshot's last entry")?,
        membership: Membership::decode(&meta.membership)?,
        size: meta.size,
        checksum: meta.checksum,
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::membership::{Member, Standing};
    use crate::transport::frame::{Assembly, Lane, Pieces, Together};

    fn ids() -> impl Strategy<Value = EntryId> {
        (any::<u64>(), any::<u64>())
            .prop_map(|(term, index)| EntryId::new(Term(term), LogIndex(index)))
    }

    fn payloads() -> impl Strategy<Value = Bytes> {
        proptest::collection::vec(any::<u8>(), 0..64).prop_map(Bytes::from)
    }

    fn memberships() -> impl Strategy<Value = Membership> {
        let standings =
            prop_oneof![Just(Standing::Voter), Just(Standing::Learner), Just(Standing::Leaving)];
        let member = (proptest::option::of(any::<u128>()), standings, any::<bool>(), payloads());
        proptest::collection::btree_map(2..u64::MAX, member, 0..5).prop_map(|others| {
            let mut members = Membership::founding([NodeId(1)]);
            for (node, (store, standing, promote_when_ready, context)) in others {
                let store = store.map(StoreId);
                let member = Member { store, standing, promote_when_ready, context };
                members.insert(NodeId(node), member);
            }
            members
        })
    }

    fn entries() -> impl Strategy<Value = Entry> {
        let payload = prop_oneof![
            Just(Payload::Noop),
            payloads().prop_map(Payload::Command),
            memberships().prop_map(Payload::Membership),
        ];
        let session = proptest::option::of((any::<u64>(), any::<u64>()));
        (ids(), session, payload).prop_map(|(id, session, payload)| Entry {
            id,
            session: session.map(|(session, sequence)| SessionId { session, sequence }),
            payload,
        })
    }

    fn reads() -> impl Strategy<Value = ReadId> {
        (1..u64::MAX, any::<u64>(), any::<u64>()).prop_map(|(node, boot, counter)| ReadId {
            node: NodeId(node),
            boot,
            counter,
        })
    }

    fn metas() -> impl Strategy<Value = SnapshotMeta> {
        (ids(), memberships(), any::<u64>(), any::<u32>()).prop_map(
            |(last, membership, size, checksum)| SnapshotMeta { last, membership, size, checksum },
        )
    }

    fn messages() -> impl Strategy<Value = Message> {
        let number = any::<u64>();
        let index = || any::<u64>().prop_map(LogIndex);
        let term = || any::<u64>().prop_map(Term);
        prop_oneof![
            (term(), ids()).prop_map(|(term, last)| Message::PreVote { term, last }),
            (term(), any::<bool>())
                .prop_map(|(term, granted)| Message::PreVoteReply { term, granted }),
            (ids(), any::<bool>()).prop_map(|(last, transfer)| Message::Vote { last, transfer }),
            Just(Message::TimeoutNow),
            Just(Message::Removed),
            any::<bool>().prop_map(|granted| Message::VoteReply { granted }),
            (reads(), index(), index(), proptest::option::of(ids())).prop_map(
                |(id, first, through, joint)| Message::FetchEntries { id, first, through, joint }
            ),
            (
                reads(),
                proptest::option::of(ids()),
                proptest::collection::vec(entries(), 0..4),
                any::<bool>(),
                index()
            )
                .prop_map(|(id, previous, entries, holds_joint, last)| {
                    Message::FetchedEntries { id, previous, entries, holds_joint, last }
                }),
            (ids(), proptest::collection::vec(entries(), 0..4), index()).prop_map(
                |(previous, entries, commit)| Message::Append {
                    previous,
                    entries: entries.into(),
                    commit
                }
            ),
            index().prop_map(|matched| Message::AppendAccepted { matched }),
            (index(), ids())
                .prop_map(|(rejected, hint)| Message::AppendRejected { rejected, hint }),
            (index(), number).prop_map(|(commit, round)| Message::Heartbeat { commit, round }),
            (number, any::<bool>())
                .prop_map(|(round, is_damaged)| Message::HeartbeatReply { round, is_damaged }),
            reads().prop_map(|id| Message::ReadIndex { id }),
            (reads(), proptest::option::of(index()))
                .prop_map(|(id, index)| Message::ReadIndexReply { id, index }),
            (metas(), number, payloads()).prop_map(|(meta, offset, data)| Message::SnapshotChunk {
                meta,
                offset,
                data
            }),
            (ids(), number, any::<bool>()).prop_map(|(last, offset, installed)| {
                Message::SnapshotAck { last, offset, installed }
            }),
            any::<u128>().prop_map(|bound| Message::WrongStore { bound: StoreId(bound) }),
            (ids(), epochs()).prop_map(|(last, epoch)| Message::Quiet { last, epoch }),
            ids().prop_map(|last| Message::QuietAgreed { last }),
            epochs().prop_map(|epoch| Message::NodeAlive { epoch }),
        ]
    }

    fn epochs() -> impl Strategy<Value = NodeEpoch> {
        (any::<u64>(), any::<u64>()).prop_map(|(boot, count)| NodeEpoch { boot, count })
    }

    fn envelopes() -> impl Strategy<Value = Envelope> {
        let numbers = (any::<u64>(), any::<u64>(), 1..u64::MAX, 1..u64::MAX, any::<u128>());
        (numbers, any::<u64>(), (any::<u64>(), any::<u64>(), any::<bool>()), messages()).prop_map(
            |((cluster, group, from, to, store), term, (node, seq, can_wait), message)| Envelope {
                cluster: ClusterId(cluster),
                group: GroupId(group),
                from: NodeId(from),
                to: NodeId(to),
                store: StoreId(store),
                term: Term(term),
                cause: Cause { node, seq },
                can_wait,
                message,
            },
        )
    }

    /// What a frame completes, if it is accepted.
    fn assembled(frame: &[u8]) -> Option<Vec<Bytes>> {
        let pb::frame::Kind::Piece(piece) = pb::Frame::decode(frame).ok()?.kind? else {
            return None;
        };
        let mut messages = Assembly::new(1 << 20).push(piece).ok()??;
        std::iter::from_fn(|| messages.next().transpose()).collect::<Result<_, _>>().ok()
    }

    fn append_of(entries: Vec<Entry>) -> Envelope {
        Envelope {
            cluster: ClusterId(1),
            group: GroupId(0),
            from: NodeId(1),
            to: NodeId(2),
            store: StoreId(3),
            term: Term(4),
            cause: Cause { node: 0, seq: 0 },
            can_wait: false,
            message: Message::Append {
                previous: EntryId::ZERO,
                entries: entries.into(),
                commit: LogIndex(0),
            },
        }
    }

    proptest! {
        #[test]
        fn what_is_encoded_is_decoded(envelope in envelopes()) {
            let bytes = encode(&envelope).unwrap();
            prop_assert_eq!(decode(bytes).unwrap(), envelope);
        }

        #[test]
        fn no_cut_of_a_message_panics_or_invents_anything(envelope in envelopes()) {
            let bytes = encode(&envelope).unwrap();
            for length in 0..bytes.len() {
                // A cut between two fields can still be a message, but then it is another one.
                if let Ok(decoded) = decode(bytes.slice(..length)) {
                    prop_assert_ne!(&decoded, &envelope);
                }
            }
        }

        #[test]
        fn no_garbled_byte_of_a_message_panics(envelope in envelopes(), garble in 1..=u8::MAX) {
            let bytes = encode(&envelope).unwrap();
            for place in 0..bytes.len() {
                let mut garbled = bytes.to_vec();
                garbled[place] ^= garble;
                // Whatever is made of it can be sent on unchanged.
                if let Ok(decoded) = decode(Bytes::from(garbled)) {
                    let again = decode(encode(&decoded).unwrap()).unwrap();
                    prop_assert_eq!(again, decoded);
                }
            }
        }

        /// No matter how it is framed, and where in the frame the bit is.
        #[test]
        fn a_flipped_bit_of_a_frame_never_makes_another_message(envelope in envelopes()) {
            let bytes = encode(&envelope).unwrap();
            let mut together = Together::default();
            prop_assert!(together.push(&bytes) && together.push(&bytes));
            let pieces = [Lane::Urgent, Lane::Bulk].map(|lane| Pieces::new(lane, bytes.clone()));
            let pieces = pieces.into_iter().flatten().chain([together.into_piece().0]);
            for piece in pieces {
                let frame = pb::Frame { kind: Some(pb::frame::Kind::Piece(piece)) };
                let sound = frame.encode_to_vec();
                let sent = assembled(&sound);
                prop_assert!(sent.is_some());
                for bit in 0..sound.len() * 8 {
                    let mut damaged = sound.clone();
                    damaged[bit / 8] ^= 1 << (bit % 8);
                    // (There is more than one way to write true.)
                    let heard = assembled(&damaged);
                    prop_assert!(heard.is_none() || heard == sent, "bit {bit} of {frame:?}");
                }
            }
        }

        #[test]
        fn random_bytes_do_not_panic(bytes in proptest::collection::vec(any::<u8>(), 0..512)) {
            if let Ok(decoded) = decode(Bytes::from(bytes)) {
                prop_assert!(encode(&decoded).is_ok());
            }
        }
    }

    #[test]
    fn too_many_tiny_entries_are_refused_on_both_sides() {
        let noop = Entry { id: EntryId::ZERO, session: None, payload: Payload::Noop };
        let envelope = append_of(vec![noop; ENTRIES_MAX + 1]);
        assert!(matches!(encode(&envelope), Err(WireError::TooManyEntries)));
        // Two bytes each: tag and length zero, as only a hostile peer would write them.
        let mut bytes = encode(&append_of(Vec::new())).unwrap().to_vec();
        let append = [[0x1a, 0x00]; ENTRIES_MAX + 1].concat();
        bytes.extend_from_slice(&[0xa2, 0x01]);
        prost::encoding::encode_varint(u64::try_from(append.len()).unwrap(), &mut bytes);
        bytes.extend_from_slice(&append);
        assert!(matches!(decode(Bytes::from(bytes)), Err(WireError::TooManyEntries)));
    }

    #[test]
    fn a_message_of_a_kind_unknown_here_is_an_error() {
        let mut wire = pb::Envelope::decode(encode(&append_of(Vec::new())).unwrap()).unwrap();
        wire.message = None;
        let bytes = Bytes::from(wire.encode_to_vec());
        assert!(matches!(decode(bytes), Err(WireError::Missing("known kind"))));
    }

    #[test]
    fn a_store_id_has_sixteen_bytes() {
        assert_eq!(store_from_wire(&store_to_wire(StoreId(7))).unwrap(), StoreId(7));
        assert!(matches!(store_from_wire(&[0; 15]), Err(WireError::StoreId(15))));
        assert!(matches!(store_from_wire(&[]), Err(WireError::StoreId(0))));
    }
}
