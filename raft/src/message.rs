//! What nodes say to each other.
//!
//! An [`Envelope`] names the cluster, the group, both nodes and the sender's data directory, so that a message that
//! strayed (from another cluster, from a node whose disk was swapped) is recognised before anything is made of it. These are domain
//! values: the transports turn them into wire types at their edge.

use bytes::Bytes;
use lattice_trace::Cause;

use crate::entries::Entries;
use crate::types::{
    ClusterId, Entry, EntryId, GroupId, LogIndex, NodeEpoch, NodeId, SnapshotMeta, StoreId, Term,
};

/// The version of the peer protocol that this build speaks.
pub const PROTOCOL_VERSION: u32 = 1;

/// A message with everything needed to decide whether it is for us.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Envelope {
    /// The sender's cluster.
    pub cluster: ClusterId,
    /// The Raft group the message belongs to.
    pub group: GroupId,
    /// The sender.
    pub from: NodeId,
    /// The receiver.
    pub to: NodeId,
    /// The sender's data directory.
    pub store: StoreId,
    /// The sender's current term (Raft §5.1: every message carries it). For pre-votes it is the term the sender is in,
    /// not the one it asks for.
    pub term: Term,
    /// The event that caused the message, for tracing; none when tracing is off.
    pub cause: Cause,
    /// Nobody waits for it: a transport may keep it back for a little while, so that it travels together with others.
    pub can_wait: bool,
    /// What is said.
    pub message: Message,
}

/// Names one linearizable read: the node that asks, its start, and a counter. A reply to an earlier life of the node, or to an
/// earlier identical request, can never be mistaken for this one (etcd #20418).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ReadId {
    /// The node at which the read was asked for.
    pub node: NodeId,
    /// Which start of that node: a number that never repeats.
    pub boot: u64,
    /// Counts the reads of that start.
    pub counter: u64,
}

/// The kinds of message.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Message {
    /// Would you vote for me in `term`? Asked before the term is raised, so that a node that cannot win does not disturb
    /// those that work (Raft thesis §9.6).
    PreVote {
        /// The term the sender would campaign in.
        term: Term,
        /// The last entry of the sender's log.
        last: EntryId,
    },
    /// Answer to [`Message::PreVote`].
    PreVoteReply {
        /// The term asked about.
        term: Term,
        /// Whether the answer is yes.
        granted: bool,
    },
    /// `RequestVote` (Raft §5.2) in the envelope's term.
    Vote {
        /// The last entry of the candidate's log.
        last: EntryId,
        /// The leader itself has asked for this election ([`Message::TimeoutNow`]): that it is alive is no objection.
        transfer: bool,
    },
    /// Answer to [`Message::Vote`], in the envelope's term.
    VoteReply {
        /// Whether the vote was given.
        granted: bool,
    },
    /// `AppendEntries` (Raft §5.3).
    Append {
        /// The entry that precedes `entries`.
        previous: EntryId,
        /// Entries to append, in order; empty for a probe.
        entries: Entries,
        /// The leader's commit index.
        commit: LogIndex,
    },
    /// Answer to [`Message::Append`]: everything up to `matched` is durable here and equal to the leader's log.
    AppendAccepted {
        /// The last place known to be equal.
        matched: LogIndex,
    },
    /// Answer to [`Message::Append`]: the preceding entry is not here.
    AppendRejected {
        /// The index of the entry that was not found.
        rejected: LogIndex,
        /// The last place at which the logs could still agree: the leader goes on from its own last entry of at most this
        /// index and `hint`'s term.
        hint: EntryId,
    },
    /// The leader is alive. Carries no log position that the follower might lack: its commit index is bounded by what
    /// the follower has acknowledged.
    Heartbeat {
        /// What the follower may take as committed.
        commit: LogIndex,
        /// The latest read round (see `raft_node/read.rs`); zero when none was started in this term.
        round: u64,
    },
    /// Answer to [`Message::Heartbeat`].
    HeartbeatReply {
        /// The round of the heartbeat that is answered.
        round: u64,
        /// Entries of the sender's log are damaged: it acknowledges nothing, and cannot lead.
        is_damaged: bool,
    },
    /// A follower asks its leader for an index at which it may serve a linearizable read (Raft §6.4 of the thesis).
    ReadIndex {
        /// The read.
        id: ReadId,
    },
    /// Answer to [`Message::ReadIndex`].
    ReadIndexReply {
        /// The read.
        id: ReadId,
        /// Serve it once this place is applied; `None` if the receiver could not confirm that it leads.
        index: Option<LogIndex>,
    },
    /// A piece of a snapshot for a follower that is too far behind for the log (`InstallSnapshot`, Raft §7).
    SnapshotChunk {
        /// What the snapshot stands for; its size and checksum too.
        meta: SnapshotMeta,
        /// Where the piece begins, in the run of bytes of the manifest and all parts. It lies within the manifest or one part.
        offset: u64,
        /// The piece.
        data: Bytes,
    },
    /// Answer to [`Message::SnapshotChunk`].
    SnapshotAck {
        /// The snapshot's last entry.
        last: EntryId,
        /// The next byte wanted: over parts that are here it jumps.
        offset: u64,
        /// The snapshot is whole, verified and in force: the follower's log now begins after it.
        installed: bool,
    },
    /// The leader to a voter that has its whole log: campaign now (thesis §3.10).
    TimeoutNow,
    /// You are no member of the cluster, and never will be again under this id: that is committed.
    Removed,
    /// The sender's log is damaged: who holds these entries? Any node may answer, in any term.
    FetchEntries {
        /// Names the request: no two are alike.
        id: ReadId,
        /// The first entry wanted.
        first: LogIndex,
        /// The last entry wanted.
        through: LogIndex,
        /// An intact entry of the sender's: whoever holds it holds the ones wanted, by Log Matching. `None` if there is none such: then only
        /// the leader can help.
        joint: Option<EntryId>,
    },
    /// Answer to [`Message::FetchEntries`].
    FetchedEntries {
        /// The request.
        id: ReadId,
        /// The entry before the first one wanted, in the log of the node that answers; `None` if it does not know.
        previous: Option<EntryId>,
        /// Entries from the first one wanted on, as many as fit; none if the node cannot help.
        entries: Vec<Entry>,
        /// The node holds the joint.
        holds_joint: bool,
        /// The last entry of the node that answers.
        last: LogIndex,
    },
    /// You are not who the cluster knows under your name: your id is bound to another data directory.
    WrongStore {
        /// The directory the id is bound to.
        bound: StoreId,
    },
    /// The leader asks for quiet (`raft_node/quiet.rs`): its log ends with `last`, all of it is committed, and there is nothing to do. Comes
    /// in place of a heartbeat.
    Quiet {
        /// The last entry of the leader's log.
        last: EntryId,
        /// The epoch of the leader's process.
        epoch: NodeEpoch,
    },
    /// Answer to [`Message::Quiet`]: the follower's log ends there too, all of it is applied, and it waits for nothing.
    QuietAgreed {
        /// The last entry of both logs.
        last: EntryId,
    },
    /// A process lives. Not for a group: see `liveness`.
    NodeAlive {
        /// The epoch that it is in.
        epoch: NodeEpoch,
    },
}

#[cfg(feature = "driver")]
impl Message {
    /// What it weighs against bounds of bytes: its payload and a constant for the rest.
    pub(crate) fn weight(&self) -> usize {
        const OVERHEAD: usize = 128;
        OVERHEAD + self.payload().unwrap_or_default()
    }

    /// The bytes of its entries or of its snapshot data, if it is of a kind that has such.
    pub(crate) fn payload(&self) -> Option<usize> {
        match self {
            Self::Append { entries, .. } if entries.is_empty() => None,
            Self::Append { entries, .. } => Some(entries.iter().map(Entry::size).sum()),
            Self::FetchedEntries { entries, .. } => Some(entries.iter().map(Entry::size).sum()),
            Self::SnapshotChunk { data, .. } => Some(data.len()),
            Self::PreVote { .. }
            | Self::PreVoteReply { .. }
            | Self::Vote { .. }
            | Self::VoteReply { .. }
            | Self::AppendAccepted { .. }
            | Self::AppendRejected { .. }
            | Self::Heartbeat { .. }
            | Self::HeartbeatReply { .. }
            | Self::ReadIndex { .. }
            | Self::ReadIndexReply { .. }
            | Self::SnapshotAck { .. }
            | Self::TimeoutNow
            | Self::Removed
            | Self::FetchEntries { .. }
            | Self::Quiet { .. }
            | Self::QuietAgreed { .. }
            | Self::NodeAlive { .. }
            | Self::WrongStore { .. } => None,
        }
    }
}
