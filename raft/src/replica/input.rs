//! What comes into a replica.

use std::time::Duration;

use bytes::Bytes;

use super::RequestId;
use crate::effects::{IoToken, ProposalId};
use crate::membership::ConfChange;
use crate::message::Envelope;
use crate::raft_node::Proposal;
use crate::state_machine::Reply;
use crate::types::{Entry, EntryId, LogIndex, NodeEpoch, NodeId, SnapshotMeta};

/// A proposal on its way in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// The proposal.
    pub proposal: Proposal,
    /// It gives space back, and so is taken when space is low.
    pub reclaims_space: bool,
}

/// What comes in.
#[derive(Debug)]
pub enum Input {
    /// The deadline of [`Replica::next_deadline`](super::Replica::next_deadline) has come.
    Timeout,
    /// A message arrived.
    Receive(Envelope),
    /// Clients want these in the log.
    Propose(Vec<Request>),
    /// Clients want to read, linearizably, before `deadline`.
    Read {
        /// The reads.
        requests: Vec<RequestId>,
        /// When to give up.
        deadline: Duration,
    },
    /// An operator wants other members; answered with [`Output::OrderDone`](super::Output::OrderDone).
    ChangeMembership(ProposalId, ConfChange),
    /// An operator wants another leader, or any other if it is `None`; answered with [`Output::OrderDone`](super::Output::OrderDone).
    TransferLeader(ProposalId, Option<NodeId>),
    /// The log store's room for more.
    LowSpace(bool),
    /// The write with this token, and all before it, are durable.
    Persisted(IoToken),
    /// A write failed.
    PersistFailed {
        /// The write; with it, all before it are in doubt.
        token: IoToken,
        /// Why.
        error: String,
    },
    /// The run that was given out is applied.
    Applied {
        /// Its last entry.
        last: EntryId,
        /// The machine's replies to those entries of the run that bear commands, ascending.
        replies: Vec<(EntryId, Reply)>,
    },
    /// The state machine failed.
    ApplyFailed(String),
    /// The entries of the run that was given out are not in the log. That is as it should be if the log was restarted behind a
    /// snapshot from the leader meanwhile; else the node stops.
    RunUnreadable(String),
    /// Entries of the run that was given out are damaged: it was applied as far as they are not.
    RunStopped {
        /// The last entry that is applied.
        last: EntryId,
        /// The machine's replies up to there.
        replies: Vec<(EntryId, Reply)>,
        /// The damaged entries, first and last.
        damaged: (LogIndex, LogIndex),
    },
    /// Durable entries cannot be read, as reading them for others has shown.
    EntriesDamaged {
        /// The first of them.
        first: LogIndex,
        /// The last of them.
        last: LogIndex,
    },
    /// Entries were read for a node whose log is damaged; none if that failed.
    RepairRead {
        /// For whom.
        to: NodeId,
        /// The entries.
        entries: Vec<Entry>,
    },
    /// The machine is in the state of the snapshot that was given out.
    Restored(EntryId),
    /// Entries for a follower were read; none if that failed.
    EntriesRead {
        /// For whom.
        to: NodeId,
        /// The entries.
        entries: Vec<Entry>,
    },
    /// What became of the snapshot that was asked for.
    SnapshotTaken(SnapshotOutcome),
    /// A piece of a snapshot was read for a follower; `None` if that failed.
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
    /// A piece of a snapshot from the leader was written.
    SnapshotWritten {
        /// Which snapshot.
        meta: SnapshotMeta,
        /// The next byte wanted.
        offset: u64,
        /// It is whole, verified and durable.
        is_complete: bool,
    },
    /// An operator wants a snapshot now.
    TakeSnapshot,
    /// The epoch of this process, from those who watch processes: see [`crate::liveness`].
    NodeEpoch(NodeEpoch),
    /// The process under which this replica is quiet is silent, or in another epoch than it was then.
    LeaderSilent,
}

/// What became of a snapshot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SnapshotOutcome {
    /// It is durable.
    Taken(SnapshotMeta),
    /// The machine has no snapshots. It will not be asked again.
    Unsupported,
    /// It could not be made or written, for this reason. It will be tried again after a while.
    Failed(String),
}
