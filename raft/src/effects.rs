//! What a step asks the outside world to do, and the order in which it must happen.
//!
//! A step never waits. It appends [`Effect`]s to a buffer that the caller reuses, in an order that matters: a
//! [`Effect::Persist`] comes before any [`Effect::Send`] that names its token. **A message that reveals a term, a vote or an entry that is
//! not yet durable carries the token of the batch that makes it so, and may not leave before** (Raft §5: "updated on stable
//! storage before responding to RPCs"). A leader's `AppendEntries` carries the token of the batch in which its *term* became durable,
//! which is long past, and so leaves in parallel with the leader's own disk write (Raft thesis §10.2.1); the leader counts itself
//! only when that write is durable.

use std::fmt;
use std::ops::RangeInclusive;

use bytes::Bytes;
use thiserror::Error;

use crate::entries::Entries;
use crate::membership::{ChangeError, Membership};
use crate::message::{Envelope, ReadId};
use crate::raft_node::Role;
use crate::trace::TraceEvent;
use crate::types::{Entry, EntryId, HardState, LogIndex, NodeId, SnapshotMeta, Term};

/// A batch's place in the order of writes. Tokens grow by one; that of a later batch stands for all before it, so a late or repeated
/// completion does no harm.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct IoToken(pub u64);

/// The caller's name for a proposal, unique while the node runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ProposalId(pub u64);

/// One atomic unit for the log store: all of it becomes durable, or none.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct PersistBatch {
    /// Its place in the order of writes.
    pub token: IoToken,
    /// The term and vote, if they changed.
    pub hard_state: Option<HardState>,
    /// Remove this entry and all behind it, before appending.
    pub truncate_from: Option<LogIndex>,
    /// Entries to append.
    pub entries: Entries,
    /// A new latest snapshot.
    pub snapshot: Option<SnapshotMeta>,
    /// Forget the whole log: the next entry follows the snapshot (which came from the leader). Only with `snapshot`.
    pub restart_log: bool,
    /// Entries to put in the place of damaged ones, consecutive: what was lost there, from another node's log. Everything behind
    /// them stays.
    pub repaired: Vec<Entry>,
}

/// Why a proposal was not taken into the log. In every case it has no effect, now or later.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rejection {
    /// This node does not lead; `leader` does, if known.
    NotLeader {
        /// Whom to ask instead.
        leader: Option<NodeId>,
    },
    /// The leader is about to hand over to `to`.
    Transferring {
        /// Whom to ask instead, soon.
        to: NodeId,
    },
    /// The leader holds as many uncommitted bytes as it may.
    Overloaded,
    /// The command is larger than the limit.
    TooLarge {
        /// Its length in bytes.
        size: usize,
        /// The limit in bytes.
        limit: usize,
    },
}

/// Why an operator's order, a change of the members or a transfer of leadership, was not carried out.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum OrderError {
    /// This node does not lead; `leader` does, if known.
    #[error("this node does not lead")]
    NotLeader {
        /// Whom to ask instead.
        leader: Option<NodeId>,
    },
    /// The leader is about to hand over.
    #[error("leadership is being transferred to {to}")]
    Transferring {
        /// To whom.
        to: NodeId,
    },
    /// The leader has not committed anything in its term yet. Ask again soon.
    #[error("the leader has not committed an entry of its term yet")]
    TermNotCommitted,
    /// Changes are made one after the other, and the one before is not committed.
    #[error("another change of the members is under way")]
    ChangeInProgress,
    /// Only a change that is not committed can be taken back.
    #[error("no change of voters is under way that could be taken back")]
    NothingToCancel,
    /// The change does not make sense.
    #[error("{0}")]
    Change(#[from] ChangeError),
    /// It would hold up commitment, or an election, until it has caught up.
    #[error("{0} is not in sync with the leader, or has not been heard from lately")]
    NotInSync(NodeId),
    /// A majority of the voters that there would be has not been heard from lately.
    #[error(
        "the cluster would lose its quorum: too many of the voters that would be left are not reachable"
    )]
    WouldLoseQuorum,
    /// Only a voter can lead.
    #[error("{0} is not a voter")]
    NotVoter(NodeId),
    /// Nobody else could lead.
    #[error("no other voter is in sync with the leader")]
    NobodyToLead,
    /// The leader goes on leading: nobody has taken over within an election timeout.
    #[error("nobody has taken over in time; the leader leads on")]
    TransferTimedOut,
    /// Another leader's entry took the place of the change. It has no effect.
    #[error("another leader's entry took the place of the change")]
    Superseded,
    /// It may or may not be carried out; the members tell.
    #[error("outcome unknown: the change may or may not be made")]
    Unknown,
    /// The node has stopped.
    #[error("the node has stopped")]
    Stopped,
}

/// An error after which the node must not go on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FatalError {
    /// The log store failed. After a failed fsync nothing is known about what it covered; see `lattice_journal::disk`.
    Storage(String),
    /// The state machine failed in a way that is not a function of its input.
    StateMachine(String),
    /// The cluster knows another data directory under this node's id.
    WrongStore {
        /// That directory.
        bound: crate::types::StoreId,
    },
    /// The node's own code panicked: an invariant is broken.
    Panicked(String),
    /// A snapshot that the log depends on cannot be read or restored.
    Snapshot(String),
    /// Two nodes lead, or have led, this term: an invariant of the cluster is broken, and what is in the log can no longer be relied on.
    TwoLeaders(Term),
    /// More of the log is damaged than can be written again in place.
    TooMuchDamage {
        /// The first damaged entry.
        first: LogIndex,
        /// The last damaged entry.
        last: LogIndex,
    },
}

impl fmt::Display for FatalError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Storage(error) => write!(
                f,
                "the log can no longer be trusted to be durable ({error}); fix the disk and start the node again, \
                 what it acknowledged is still there"
            ),
            Self::StateMachine(error) => write!(f, "the state machine failed ({error})"),
            Self::WrongStore { bound } => write!(
                f,
                "the cluster knows this node under data directory {bound}, which is not this one: its directory was lost or \
                 swapped; put the old one back, or remove the node from the cluster and add it anew"
            ),
            Self::Panicked(text) => {
                write!(f, "a defect of this program ({text}); please report it")
            }
            Self::Snapshot(error) => {
                write!(f, "a snapshot that the log depends on failed ({error})")
            }
            Self::TwoLeaders(term) => write!(
                f,
                "term {term} has two leaders, which cannot be unless a data directory was copied, or set back to an earlier state, or its \
                 disk lies about what is durable; find that node and replace it by a new one before this one is started again"
            ),
            Self::TooMuchDamage { first, last } => write!(
                f,
                "entries {first} to {last} of the log are damaged, and are too long to be repaired in place; replace this node by a new \
                 one (`lattice cluster replace`)"
            ),
        }
    }
}

impl std::error::Error for FatalError {}

/// Something for the outside world to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Write this batch; report `Event::Persisted` with its token when it is durable.
    Persist(PersistBatch),
    /// Send a message, not before `after` is durable.
    Send {
        /// The message; its receiver is in it.
        envelope: Envelope,
        /// The write that must come first.
        after: Option<IoToken>,
    },
    /// These entries are committed and durable here: apply them, in order. Report `Event::Applied`.
    Apply(RangeInclusive<LogIndex>),
    /// The proposal is in the log under this id. Whether it commits is not known yet.
    Proposed {
        /// The proposal.
        id: ProposalId,
        /// Its entry.
        entry: EntryId,
    },
    /// The proposal was not taken.
    Rejected {
        /// The proposal.
        id: ProposalId,
        /// Why.
        reason: Rejection,
    },
    /// The change of the members that an operator ordered is in the log: done when this entry is committed. Said again, with the entry that
    /// leaves the joint membership, when the joint one is committed.
    Ordered {
        /// The order.
        id: ProposalId,
        /// Its entry.
        entry: EntryId,
    },
    /// Leadership was handed over as ordered: the other was told to campaign, and this node leads no more.
    OrderDone {
        /// The order.
        id: ProposalId,
    },
    /// An operator's order is not carried out, or nobody here can tell any more.
    OrderFailed {
        /// The order.
        id: ProposalId,
        /// Why.
        error: OrderError,
    },
    /// The read may be served once `index` is applied.
    ReadReady {
        /// The read.
        id: ReadId,
        /// The place that must be applied.
        index: LogIndex,
    },
    /// The read could not be confirmed: ask again, or ask `leader`.
    ReadFailed {
        /// The read.
        id: ReadId,
        /// The leader, if known.
        leader: Option<NodeId>,
    },
    /// Read entries from the log store for a follower whose next ones are no longer in memory. Report `Event::EntriesRead`.
    ReadEntries {
        /// For whom.
        to: NodeId,
        /// The first entry wanted.
        from: LogIndex,
        /// The last entry wanted.
        through: LogIndex,
        /// Stop after this many bytes, but give one entry at least.
        bytes_max: usize,
    },
    /// Read entries from the log store for a node whose log is damaged. Report `Event::RepairRead`.
    ReadForRepair {
        /// For whom.
        to: NodeId,
        /// The first entry wanted.
        from: LogIndex,
        /// The last entry wanted.
        through: LogIndex,
        /// Stop after this many bytes, but give one entry at least.
        bytes_max: usize,
    },
    /// Read a piece of our latest snapshot for a follower. Report `Event::SnapshotRead`.
    ReadSnapshot {
        /// For whom.
        to: NodeId,
        /// Which snapshot.
        meta: SnapshotMeta,
        /// Where the piece begins.
        offset: u64,
    },
    /// Write a piece of a snapshot that arrives from the leader. Report `Event::SnapshotWritten`.
    WriteSnapshot {
        /// Which snapshot.
        meta: SnapshotMeta,
        /// Where the piece begins; one at zero is what a snapshot begins with.
        offset: u64,
        /// The piece.
        data: Bytes,
    },
    /// The snapshot from the leader is durable and the log begins after it: put the state machine into its state.
    Restore(SnapshotMeta),
    /// Entries up to this one may be dropped from the log store.
    Compact(LogIndex),
    /// The node's role, term or leader changed.
    RoleChanged {
        /// What it is now.
        role: Role,
        /// In which term.
        term: Term,
        /// Whom it takes for the leader.
        leader: Option<NodeId>,
    },
    /// The members changed (in the log, not necessarily committed).
    MembershipChanged(Membership),
    /// For the trace and the logs.
    Trace(TraceEvent),
    /// The node must stop.
    Fatal(FatalError),
}

/// The effects of one or more steps, in order. Reused from step to step.
#[derive(Debug, Default)]
pub struct Effects {
    list: Vec<Effect>,
}

impl Effects {
    /// An empty buffer.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Appends an effect.
    pub fn push(&mut self, effect: Effect) {
        self.list.push(effect);
    }

    /// Takes out all effects, in order, and keeps the buffer's memory.
    pub fn drain(&mut self) -> impl Iterator<Item = Effect> + '_ {
        self.list.drain(..)
    }

    /// The effects so far, in order.
    #[must_use]
    pub fn as_slice(&self) -> &[Effect] {
        &self.list
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }
}
