//! What a campaign must have met sometimes, for a check of something that never happens checks nothing.

use std::collections::{BTreeMap, BTreeSet};

use lattice_sim::Marker;

use super::Tuning;
use crate::message::Message;
use crate::raft_node::RaftNode;
use crate::trace::TraceEvent;
use crate::types::{LogIndex, NodeId, Term};

pub(super) const TORN_TAIL: &str = "torn tail found at start";
pub(super) const DAMAGE: &str = "damage found at start";
pub(super) const READ_ERROR: &str = "start failed: the disk cannot be read";
pub(super) const OTHERS_DISK: &str = "another node's disk refused";
pub(super) const LOST_DISK: &str = "node with a lost disk refused";
pub(super) const DISK_FULL: &str = "write waited for space";
pub(super) const SYNC_FAILED: &str = "sync failed";
pub(super) const READ_FAILED: &str = "read given up";
pub(super) const PART_SKIPPED: &str = "snapshot part skipped";
pub(super) const RESUMED: &str = "snapshot resumed after a restart";
const QUORUM_LOST: &str = "leader deposed by check-quorum";
const DISK_STALLED: &str = "leader gave way for its own slow disk";
const CONFLICT: &str = "conflicting entries truncated";
const COMPACTED: &str = "log compacted";
const SNAPSHOT_NEEDED: &str = "follower needed a snapshot";
const SNAPSHOT_INSTALLED: &str = "snapshot installed";
const SNAPSHOT_IN_ELECTION: &str = "snapshot received during an election";
const SPLIT_VOTE: &str = "several candidates in a term";
const PRE_VOTE_REFUSED: &str = "pre-vote refused";
const APPEND_REFUSED: &str = "append refused";

pub(super) const ENTRIES_DAMAGED: &str = "entries found damaged";
const REPAIR_SERVED: &str = "repair served";
const REPAIRED: &str = "damaged entries repaired";
const DAMAGE_COVERED: &str = "damage covered by a snapshot";
const JOINT: &str = "joint consensus entered";
const HANDED_OVER: &str = "leadership handed over";
const LEASE_OVER: &str = "lease refused";
const COMMIT_DEFERRED: &str = "commit waited for an earlier lease";

const TAKEN_BACK: &str = "change of voters taken back";
const TRANSFER_TIMED_OUT: &str = "transfer given up";
const REMOVED: &str = "removed node knows it";

pub(super) const FELL: &str = "leader fell right after its election";
const EARLIER_TERM_WAITS: &str = "majority has an entry of an earlier term, not committed";
const AHEAD_OF_DISK: &str = "committed before it was on the leader's own disk";

const WENT_QUIET: &str = "group went quiet";
const WOKEN: &str = "quiet group woken";
pub(super) const WOKEN_BY_SILENCE: &str = "quiet group woken by a silent node";

impl Tuning {
    /// What every campaign with all faults must meet, and within how many seeds: above all what the tuning is there for.
    #[must_use]
    pub fn markers(self) -> &'static [Marker] {
        match self {
            Self::General => GENERAL,
            Self::LostLeaders => LOST_LEADERS,
            Self::SlowDisks => SLOW_DISKS,
            Self::Leases => LEASES,
            Self::Members => MEMBERS,
            Self::Snapshots => SNAPSHOTS,
            Self::Quiet => QUIET,
            Self::Damage => DAMAGED,
            Self::Decay => DECAY,
        }
    }
}

const GENERAL: &[Marker] = &[
    Marker::new(TORN_TAIL, 2_000),
    Marker::new(DAMAGE, 1_000),
    Marker::new(READ_ERROR, 1_000),
    Marker::new(OTHERS_DISK, 1_000),
    Marker::new(LOST_DISK, 1_000),
    Marker::new(DISK_FULL, 10_000),
    Marker::new(SYNC_FAILED, 200),
    Marker::new(READ_FAILED, 200),
    Marker::new(QUORUM_LOST, 200),
    Marker::new(HANDED_OVER, 1_000),
    Marker::new(CONFLICT, 200),
    Marker::new(COMPACTED, 200),
    Marker::new(SNAPSHOT_NEEDED, 200),
    Marker::new(SNAPSHOT_INSTALLED, 200),
    Marker::new(SNAPSHOT_IN_ELECTION, 50_000),
    Marker::new(PART_SKIPPED, 1_000),
    Marker::new(SPLIT_VOTE, 200),
    Marker::new(PRE_VOTE_REFUSED, 200),
    Marker::new(APPEND_REFUSED, 200),
    Marker::new(ENTRIES_DAMAGED, 5_000),
    Marker::new(REPAIR_SERVED, 5_000),
    Marker::new(REPAIRED, 5_000),
];

const LOST_LEADERS: &[Marker] = &[
    Marker::new(FELL, 50),
    Marker::new(EARLIER_TERM_WAITS, 50),
    Marker::new(CONFLICT, 50),
    Marker::new(SPLIT_VOTE, 50),
];

const SLOW_DISKS: &[Marker] = &[
    Marker::new(AHEAD_OF_DISK, 50),
    Marker::new(TORN_TAIL, 50),
    Marker::new(CONFLICT, 50),
    Marker::new(HANDED_OVER, 50),
];

const LEASES: &[Marker] = &[
    Marker::new(LEASE_OVER, 200),
    Marker::new(COMMIT_DEFERRED, 200),
    Marker::new(HANDED_OVER, 200),
];

const SNAPSHOTS: &[Marker] = &[
    Marker::new(SNAPSHOT_INSTALLED, 200),
    Marker::new(PART_SKIPPED, 200),
    Marker::new(RESUMED, 2_000),
];

const MEMBERS: &[Marker] = &[
    Marker::new(JOINT, 100),
    Marker::new(TAKEN_BACK, 1_000),
    Marker::new(HANDED_OVER, 100),
    Marker::new(TRANSFER_TIMED_OUT, 500),
    Marker::new(REMOVED, 200),
];

const QUIET: &[Marker] =
    &[Marker::new(WENT_QUIET, 20), Marker::new(WOKEN, 20), Marker::new(WOKEN_BY_SILENCE, 100)];

const DAMAGED: &[Marker] =
    &[Marker::new(ENTRIES_DAMAGED, 50), Marker::new(REPAIR_SERVED, 50), Marker::new(REPAIRED, 50)];

const DECAY: &[Marker] = &[
    Marker::new(DAMAGE, 50),
    Marker::new(READ_ERROR, 50),
    Marker::new(ENTRIES_DAMAGED, 50),
    Marker::new(REPAIR_SERVED, 50),
    Marker::new(REPAIRED, 50),
];

/// What is seen only by looking at all nodes at once.
#[derive(Debug, Default)]
pub(super) struct Elections {
    candidates: BTreeMap<Term, BTreeSet<NodeId>>,
    /// The latest term in which somebody campaigns and nobody has won.
    open: Option<Term>,
    /// Processes that are down; noted only if groups may go quiet.
    pub(super) down: BTreeSet<NodeId>,
}

impl Elections {
    /// Which marker an event of a node is.
    pub(super) fn marker_of(&mut self, node: NodeId, event: &TraceEvent) -> Option<&'static str> {
        match event {
            TraceEvent::ElectionStarted { term } => {
                self.open = self.open.max(Some(*term));
                let candidates = self.candidates.entry(*term).or_default();
                (candidates.insert(node) && candidates.len() == 2).then_some(SPLIT_VOTE)
            }
            TraceEvent::ElectionWon { term } => {
                self.open.take_if(|open| *open <= *term);
                None
            }
            TraceEvent::QuorumLost { .. } => Some(QUORUM_LOST),
            TraceEvent::DiskStalled { .. } => Some(DISK_STALLED),
            TraceEvent::Truncated { .. } => Some(CONFLICT),
            TraceEvent::Compacted { .. } => Some(COMPACTED),
            TraceEvent::ChangeTakenBack { .. } => Some(TAKEN_BACK),
            TraceEvent::TransferTimedOut { .. } => Some(TRANSFER_TIMED_OUT),
            TraceEvent::Removed => Some(REMOVED),
            TraceEvent::SnapshotNeeded { .. } => Some(SNAPSHOT_NEEDED),
            TraceEvent::SnapshotInstalled { .. } => Some(SNAPSHOT_INSTALLED),
            TraceEvent::DamageFound { .. } => Some(ENTRIES_DAMAGED),
            TraceEvent::RepairServed { .. } => Some(REPAIR_SERVED),
            TraceEvent::Repaired { .. } => Some(REPAIRED),
            TraceEvent::DamageCovered { .. } => Some(DAMAGE_COVERED),
            TraceEvent::MembershipProposed { is_joint: true, .. } => Some(JOINT),
            TraceEvent::TimeoutNowSent { .. } => Some(HANDED_OVER),
            TraceEvent::LeaseOver { .. } => Some(LEASE_OVER),
            TraceEvent::CommitDeferred { .. } => Some(COMMIT_DEFERRED),
            TraceEvent::WentQuiet { .. } => Some(WENT_QUIET),
            TraceEvent::Woken { .. } => Some(WOKEN),
            _ => None,
        }
    }

    /// A piece of a snapshot arrives.
    pub(super) fn snapshot(&self) -> Option<&'static str> {
        self.open.map(|_| SNAPSHOT_IN_ELECTION)
    }
}

/// Which marker a message is.
pub(super) fn marker_of(message: &Message) -> Option<&'static str> {
    match message {
        Message::PreVoteReply { granted: false, .. } => Some(PRE_VOTE_REFUSED),
        Message::AppendRejected { .. } => Some(APPEND_REFUSED),
        _ => None,
    }
}

/// Which markers a leader's state is: what it has not committed because an entry of its own term is missing (Raft §5.4.2), and
/// what it has committed without its own disk.
pub(super) fn markers_of_leader(raft: &RaftNode) -> impl Iterator<Item = &'static str> {
    let starts = raft.term_start();
    let waits = starts.is_some_and(|term_start| {
        let on_majority = || {
            let matched = |node| raft.progress().find(|(peer, _)| *peer == node);
            let matched = |node| matched(node).map_or(LogIndex::ZERO, |(_, peer)| peer.matched);
            let own = raft.log().sound();
            raft.membership().reached(|node| if node == raft.id() { own } else { matched(node) })
        };
        raft.commit() < term_start && on_majority().is_some_and(|index| index > raft.commit())
    });
    let is_ahead = starts.is_some() && raft.commit() > raft.log().durable();
    [(waits, EARLIER_TERM_WAITS), (is_ahead, AHEAD_OF_DISK)]
        .into_iter()
        .filter_map(|(is_met, marker)| is_met.then_some(marker))
}

/// Which marker the reason is for which a node could not start.
pub(super) fn marker_of_stop(reason: &str) -> Option<&'static str> {
    let texts = [
        ("belongs to", OTHERS_DISK),
        ("WrongStore", LOST_DISK),
        ("input/output error", READ_ERROR),
        ("damaged", DAMAGE),
    ];
    texts.iter().find(|(text, _)| reason.contains(text)).map(|(_, marker)| *marker)
}
