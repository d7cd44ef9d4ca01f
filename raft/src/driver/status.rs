//! What a node tells about itself.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::effects::FatalError;
use crate::membership::Membership;
use crate::progress::ProgressState;
use crate::raft_node::Role;
use crate::replica::Replica;
use crate::storage::SnapshotCounts;
use crate::types::{EntryId, LogIndex, NodeId, Term};

/// How a node is doing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Status {
    /// Which node.
    pub node: NodeId,
    /// What it is.
    pub role: Role,
    /// In which term.
    pub term: Term,
    /// Whom it takes for the leader.
    pub leader: Option<NodeId>,
    /// The last entry known to be committed.
    pub commit: LogIndex,
    /// The last entry that the state machine has applied.
    pub applied: LogIndex,
    /// The last entry in the log.
    pub last: EntryId,
    /// The last entry that is durable here.
    pub durable: LogIndex,
    /// The first entry in the log.
    pub first: LogIndex,
    /// The last entry of the latest snapshot.
    pub snapshot: Option<EntryId>,
    /// Entries that are damaged on this node's disk and not repaired yet.
    pub damaged: u64,
    /// The members as of the last entry.
    pub membership: Membership,
    /// The members as of the last entry that this node knows to be committed: nothing takes these back. After a start that is what its
    /// snapshot says, until it has heard from a leader.
    pub committed_membership: Membership,
    /// This node is no member any more, and never will be again under its id: it stays quiet, and its process may end.
    pub is_removed: bool,
    /// It has nothing to do, sends nothing, and will be woken: see [`super::Process`]. What is said of peers is as old as that.
    pub is_quiet: bool,
    /// Whom this node, which leads, is handing over to.
    pub transferring_to: Option<NodeId>,
    /// What a leader knows of the others; empty elsewhere.
    pub peers: Vec<PeerStatus>,
    /// New commands are refused for want of disk space.
    pub low_space: bool,
    /// The node runs no more.
    pub is_stopped: bool,
    /// Why, if it was not asked to stop.
    pub fatal: Option<FatalError>,
    /// Since the node started.
    pub counters: Counters,
}

/// A follower as its leader sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PeerStatus {
    /// Which node.
    pub node: NodeId,
    /// The last entry that is known to be durable there.
    pub matched: LogIndex,
    /// It was heard from within the longest election timeout.
    pub is_reachable: bool,
    /// How long ago it was heard from.
    pub silence: Duration,
    /// It is being sent a snapshot.
    pub is_receiving_snapshot: bool,
    /// It keeps up: a learner could be promoted now, a voter could take over.
    pub is_in_sync: bool,
}

/// What happened since the node started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Leaders and terms come and go: how often the leader changed.
    pub leader_changes: u64,
    /// Elections that this node began.
    pub elections: u64,
    /// Proposals that wait for their entry.
    pub proposals_pending: u64,
    /// Proposals that were applied.
    pub proposals_applied: u64,
    /// Proposals that were not.
    pub proposals_failed: u64,
    /// Linearizable reads that were confirmed.
    pub reads: u64,
    /// Snapshots taken.
    pub snapshots_taken: u64,
    /// Snapshots installed from a leader.
    pub snapshots_installed: u64,
    /// Bytes of snapshots: sent, received, and known already.
    pub snapshot_bytes: SnapshotCounts,
    /// Entries that were damaged on this node's disk and were repaired.
    pub entries_repaired: u64,
    /// Entries given to nodes whose logs are damaged.
    pub entries_served: u64,
    /// Messages dropped because the inbox was full.
    pub messages_dropped: u64,
    /// Syncs of the log.
    pub syncs: u64,
    /// Time they took together, in nanoseconds.
    pub sync_nanos: u64,
    /// The longest, in nanoseconds.
    pub sync_nanos_max: u64,
}

/// What the log's thread counts.
#[derive(Debug, Default)]
pub(super) struct SyncCounters {
    syncs: AtomicU64,
    nanos: AtomicU64,
    nanos_max: AtomicU64,
}

impl SyncCounters {
    pub(super) fn add(&self, took: Duration) {
        let nanos = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        self.syncs.fetch_add(1, Ordering::Relaxed);
        self.nanos.fetch_add(nanos, Ordering::Relaxed);
        self.nanos_max.fetch_max(nanos, Ordering::Relaxed);
    }

    pub(super) fn fill(&self, counters: &mut Counters) {
        counters.syncs = self.syncs.load(Ordering::Relaxed);
        counters.sync_nanos = self.nanos.load(Ordering::Relaxed);
        counters.sync_nanos_max = self.nanos_max.load(Ordering::Relaxed);
    }
}

impl Status {
    /// The replica's status at `now`, without counters.
    pub(super) fn of(replica: &Replica, now: Duration) -> Self {
        let node = replica.node();
        let log = node.log();
        let silence_max = node.config().election_timeout.end;
        let peers = node.progress().map(|(id, progress)| {
            let silence = now.saturating_sub(progress.contact);
            PeerStatus {
                node: id,
                matched: progress.matched,
                is_reachable: silence < silence_max,
                silence,
                is_in_sync: progress.is_in_sync(now, silence_max),
                is_receiving_snapshot: matches!(progress.state, ProgressState::Snapshot { .. }),
            }
        });
        Self {
            node: node.id(),
            role: node.role(),
            term: node.term(),
            leader: node.leader(),
            commit: node.commit(),
            applied: replica.applied().index,
            last: log.last(),
            durable: log.durable(),
            first: log.base().index.next(),
            snapshot: log.snapshot().map(|meta| meta.last),
            damaged: log.damaged().iter().map(|lost| lost.last.next().since(lost.first)).sum(),
            membership: node.membership().clone(),
            committed_membership: node.membership_at(node.commit()).clone(),
            is_removed: node.is_removed(),
            is_quiet: node.is_quiet(),
            transferring_to: node.transfer_target(),
            peers: peers.collect(),
            low_space: replica.is_low_on_space(),
            is_stopped: false,
            fatal: None,
            counters: Counters::default(),
        }
    }

    /// How many more members may fail before nothing can be committed, as a leader sees it; `None` elsewhere.
    #[must_use]
    pub fn fault_margin(&self) -> Option<usize> {
        if self.role != Role::Leader {
            return None;
        }
        let is_up = |node| {
            let peer = self.peers.iter().find(|peer| peer.node == node);
            node == self.node || peer.is_some_and(|peer| peer.is_reachable)
        };
        Some(self.membership.fault_margin(is_up).unwrap_or(0))
    }
}
