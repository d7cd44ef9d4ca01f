//! What the core tells about itself: the source of the log lines, the trace and the simulator's columns.

use crate::message::ReadId;
use crate::raft_node::Role;
use crate::types::{EntryId, LogIndex, NodeId, StoreId, Term};

/// Something that happened inside a node.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum TraceEvent {
    /// A pre-vote round began: would anybody vote for me in `term`?
    PreVoteStarted {
        /// The term it would campaign in.
        term: Term,
    },
    /// A candidacy began.
    ElectionStarted {
        /// Its term.
        term: Term,
    },
    /// This node gave its vote.
    VoteGranted {
        /// To whom.
        to: NodeId,
        /// In which term.
        term: Term,
    },
    /// This node refused its vote or pre-vote.
    VoteRefused {
        /// To whom.
        to: NodeId,
        /// In which term.
        term: Term,
        /// Why.
        reason: &'static str,
    },
    /// A majority voted for this node.
    ElectionWon {
        /// In which term.
        term: Term,
    },
    /// The role, term or leader changed.
    Became {
        /// The new role.
        role: Role,
        /// The new term.
        term: Term,
        /// The leader it follows, if known.
        leader: Option<NodeId>,
    },
    /// A leader gave up because it has not heard from a majority for an election timeout (check-quorum).
    QuorumLost {
        /// Its term.
        term: Term,
    },
    /// A leader hands over because its own disk holds the others up.
    DiskSlow {
        /// Its term.
        term: Term,
        /// Who is to lead.
        to: NodeId,
    },
    /// A leader gave up because its own disk has stood still for long while a majority went ahead.
    DiskStalled {
        /// Its term.
        term: Term,
    },
    /// Heartbeats went out.
    HeartbeatsSent {
        /// The leader's term.
        term: Term,
    },
    /// Entries were appended to the log.
    Appended {
        /// The last of them.
        last: EntryId,
        /// How many.
        count: usize,
    },
    /// Entries that contradict the leader's were removed.
    Truncated {
        /// The first of them.
        from: LogIndex,
    },
    /// The commit index moved.
    Committed {
        /// To where.
        index: LogIndex,
    },
    /// A read was confirmed at an index.
    ReadConfirmed {
        /// The read.
        id: ReadId,
        /// The index.
        index: LogIndex,
    },
    /// A follower needs a snapshot.
    SnapshotNeeded {
        /// Which follower.
        to: NodeId,
        /// The snapshot's last entry.
        last: EntryId,
    },
    /// A snapshot from the leader is in force.
    SnapshotInstalled {
        /// Its last entry.
        last: EntryId,
    },
    /// The log was compacted.
    Compacted {
        /// The last entry that is gone.
        through: LogIndex,
    },
    /// A node id was bound to a data directory.
    Bound {
        /// The node.
        node: NodeId,
        /// Its directory.
        store: StoreId,
    },
    /// Durable entries cannot be read any more.
    DamageFound {
        /// The first of them.
        first: LogIndex,
        /// The last of them.
        last: LogIndex,
    },
    /// Another node whose log is damaged got entries from this one.
    RepairServed {
        /// Which node.
        to: NodeId,
        /// The first entry.
        first: LogIndex,
        /// The last entry.
        last: LogIndex,
    },
    /// Entries that were damaged are intact again, or were replaced by the leader's.
    Repaired {
        /// The first of them.
        first: LogIndex,
        /// The last of them; before the first if the leader has none there.
        last: LogIndex,
        /// Who had them.
        by: NodeId,
    },
    /// A snapshot stands in for entries that were damaged.
    DamageCovered {
        /// The last entry that it stands in for.
        through: LogIndex,
    },
    /// A leader gave up because its own log is damaged, and for long nobody could help.
    RepairOverdue {
        /// Its term.
        term: Term,
    },
    /// A message was not for us.
    Dropped {
        /// Who sent it.
        from: NodeId,
        /// Why it was dropped.
        reason: &'static str,
    },
    /// The members from this entry of the leader's on are others.
    MembershipProposed {
        /// The entry.
        entry: EntryId,
        /// Whether voters change: the membership stands between two sets of them.
        is_joint: bool,
    },
    /// A leader took back a change of voters that was not committed.
    ChangeTakenBack {
        /// The entry that does so.
        entry: EntryId,
    },
    /// A leader waits until this voter has everything, to hand over to it.
    TransferStarted {
        /// To whom.
        to: NodeId,
    },
    /// A leader has told a voter to campaign at once.
    TimeoutNowSent {
        /// Whom.
        to: NodeId,
        /// The last entry of the leader's log, which the other has acknowledged.
        last: EntryId,
    },
    /// Nobody has taken over in time: the leader leads on.
    TransferTimedOut {
        /// Who was to take over.
        to: NodeId,
    },
    /// This node is no member of the cluster any more, and never will be again under its id. It stays quiet.
    Removed,
    /// A leader answered a read on its lease, at an index.
    ReadByLease {
        /// The read.
        id: ReadId,
        /// The index.
        index: LogIndex,
    },
    /// A leader that may have leases has none: the read goes by a round.
    LeaseOver {
        /// The read.
        id: ReadId,
    },
    /// The node is quiet: it sends nothing and waits for nothing, until it is asked for something or its leader's process is silent.
    WentQuiet {
        /// The leader's term.
        term: Term,
    },
    /// A quiet node is awake again.
    Woken {
        /// Because its leader's process is silent, or in another epoch.
        by_silence: bool,
    },
    /// A new leader commits nothing before this time, because an earlier one may still answer reads.
    CommitDeferred {
        /// On the leader's clock.
        until: std::time::Duration,
    },
    /// The cluster is not founded yet, and this founder has not answered for an election timeout: all of them are needed.
    FounderMissing {
        /// Which; the first of them, if there are more.
        founder: NodeId,
    },
    /// The cluster is not founded yet as far as this node knows, all founders have answered, and this one would not vote for it. For ever, if
    /// it was not given the same list of founders.
    FounderRefuses {
        /// Which; the first of them, if there are more.
        founder: NodeId,
    },
}
