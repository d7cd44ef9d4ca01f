//! What a campaign must have met sometimes, for a check of something that never happens checks nothing.

use std::collections::{BTreeMap, BTreeSet};

use lattice_sim::Marker;

use crate::message::Message;
use crate::trace::TraceEvent;
use crate::types::{NodeId, Term};

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

const WENT_QUIET: &str = "group went quiet";
const WOKEN: &str = "quiet group woken";
pub(super) const WOKEN_BY_SILENCE: &str = "quiet group woken by a silent node";

/// What every campaign with all faults must meet, and within how many seeds.
pub const MARKERS: &[Marker] = &[
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

/// What a campaign with the tuning `leases` must meet besides.
pub const LEASE_MARKERS: &[Marker] = &[
    Marker::new(LEASE_OVER, 200),
    Marker::new(COMMIT_DEFERRED, 200),
    Marker::new(HANDED_OVER, 200),
];

/// What a campaign with the tuning `snapshots` must meet besides.
pub const SNAPSHOT_MARKERS: &[Marker] = &[
    Marker::new(SNAPSHOT_INSTALLED, 200),
    Marker::new(PART_SKIPPED, 200),
    Marker::new(RESUMED, 2_000),
];

/// What every campaign in which members change must meet, and within how many seeds.
pub const MEMBER_MARKERS: &[Marker] = &[
    Marker::new(JOINT, 100),
    Marker::new(TAKEN_BACK, 1_000),
    Marker::new(HANDED_OVER, 100),
    Marker::new(TRANSFER_TIMED_OUT, 500),
    Marker::new(REMOVED, 200),
];

/// What every campaign with the tuning `quiet` must meet, and within how many seeds.
pub const QUIET_MARKERS: &[Marker] =
    &[Marker::new(WENT_QUIET, 20), Marker::new(WOKEN, 20), Marker::new(WOKEN_BY_SILENCE, 100)];

/// What every campaign with the tuning `damage` must meet, and within how many seeds.
pub const DAMAGE_MARKERS: &[Marker] =
    &[Marker::new(ENTRIES_DAMAGED, 50), Marker::new(REPAIR_SERVED, 50), Marker::new(REPAIRED, 50)];

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
