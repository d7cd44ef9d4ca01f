//! What comes into a node: everything that happens to it is an [`Event`].

use bytes::Bytes;

use crate::effects::{IoToken, ProposalId};
use crate::membership::ConfChange;
use crate::message::{Envelope, ReadId};
use crate::types::{Entry, LogIndex, NodeEpoch, NodeId, SessionId, SnapshotMeta};

/// A command on its way into the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proposal {
    /// The caller's name for it.
    pub id: ProposalId,
    /// Exactly-once identity, if any.
    pub session: Option<SessionId>,
    /// The command.
    pub command: Bytes,
}

/// What happens to a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// The deadline of [`RaftNode::next_deadline`](super::RaftNode::next_deadline) has come.
    Timeout,
    /// A message arrived.
    Receive(Envelope),
    /// Clients want these commands in the log, in this order.
    Propose(Vec<Proposal>),
    /// A client wants a linearizable read.
    ReadIndex(ReadId),
    /// An operator wants other members. Answered with `Effect::Ordered` or `Effect::OrderFailed`.
    ChangeMembership(ProposalId, ConfChange),
    /// An operator wants another leader: this voter, or whichever is most up to date. Answered with `Effect::OrderDone` or
    /// `Effect::OrderFailed`.
    TransferLeader(ProposalId, Option<NodeId>),
    /// The write with this token, and all before it, are durable.
    Persisted(IoToken),
    /// A write failed. The node stops.
    PersistFailed(String),
    /// Entries up to here are applied.
    Applied(LogIndex),
    /// Entries that `Effect::ReadEntries` asked for; empty if they could not be read.
    EntriesRead {
        /// For whom.
        to: NodeId,
        /// The entries.
        entries: Vec<Entry>,
    },
    /// Entries that were durable cannot be read any more.
    EntriesDamaged {
        /// The first of them.
        first: LogIndex,
        /// The last of them.
        last: LogIndex,
    },
    /// Entries that `Effect::ReadForRepair` asked for; empty if they could not be read.
    RepairRead {
        /// For whom.
        to: NodeId,
        /// The entries.
        entries: Vec<Entry>,
    },
    /// A snapshot of our own state machine is durable.
    SnapshotBuilt(SnapshotMeta),
    /// A piece that `Effect::ReadSnapshot` asked for; `None` if it could not be read.
    SnapshotRead {
        /// For whom.
        to: NodeId,
        /// Which snapshot.
        meta: SnapshotMeta,
        /// Where the piece begins.
        offset: u64,
        /// The piece.
        data: Option<Bytes>,
    },
    /// A piece that `Effect::WriteSnapshot` gave out was written, or refused.
    SnapshotWritten {
        /// Which snapshot.
        meta: SnapshotMeta,
        /// The next byte wanted.
        offset: u64,
        /// The snapshot is whole, verified and durable.
        is_complete: bool,
    },
    /// The epoch of this process, for `raft_node/quiet.rs`. Without it the node is never quiet.
    NodeEpoch(NodeEpoch),
    /// The process under which this node is quiet is silent, or is in another epoch than it was then.
    LeaderSilent,
    /// Whether the log store has little room left.
    LowSpace(bool),
}
