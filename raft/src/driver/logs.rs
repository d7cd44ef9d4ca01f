//! The log lines, written when effects are carried out. Their texts are part of the interface: learners follow them.

use tracing::{debug, error, info, warn};

use crate::effects::FatalError;
use crate::raft_node::Role;
use crate::storage::DamagedEntries;
use crate::trace::TraceEvent;
use crate::types::{NodeId, Term};

/// The target of every line, wherever in the code it is written.
macro_rules! target {
    () => {
        "raft_consensus::raft_node"
    };
}

/// Writes the log lines of one node.
#[derive(Debug)]
pub(super) struct Logs {
    node: NodeId,
    /// The term whose first heartbeats were logged.
    heartbeats_of: Term,
    /// The node and leader that were logged last.
    following: Option<(Term, NodeId)>,
    /// The founder that was waited for last, and whether it had answered: asked again and again, it is told once.
    founder: Option<(NodeId, bool)>,
}

impl Logs {
    pub(super) fn new(node: NodeId) -> Self {
        Self { node, heartbeats_of: Term::ZERO, following: None, founder: None }
    }

    pub(super) fn event(&mut self, event: &TraceEvent) {
        let node = self.node;
        match event {
            TraceEvent::PreVoteStarted { term } => {
                debug!(target: target!(), %node, "Asking whether an election for term {term} could be won");
            }
            TraceEvent::FounderMissing { founder } => {
                if self.founder.replace((*founder, false)) != Some((*founder, false)) {
                    info!(target: target!(), %node, "Waiting for {founder}: a new cluster needs all its founders for its first leader");
                }
            }
            TraceEvent::FounderRefuses { founder } => {
                if self.founder.replace((*founder, true)) != Some((*founder, true)) {
                    info!(target: target!(), %node, "{founder} answers and would not vote for this founder: is the list of founders the same on both?");
                }
            }
            TraceEvent::ElectionStarted { term } => {
                info!(target: target!(), %node, "Starting election for term {term}");
            }
            TraceEvent::VoteGranted { to, term } => {
                info!(target: target!(), %node, "Granted vote to {to} for term {term}");
            }
            TraceEvent::VoteRefused { to, term, reason } => {
                debug!(target: target!(), %node, "Refused vote to {to} for term {term}: {reason}");
            }
            TraceEvent::ElectionWon { .. } => {
                info!(target: target!(), %node, "Election succeeded, becoming leader");
            }
            TraceEvent::Became { role, term, leader } => self.became(*role, *term, *leader),
            TraceEvent::QuorumLost { term } => {
                warn!(target: target!(), %node, "No majority heard from, giving up leadership of term {term}");
            }
            TraceEvent::DiskSlow { term, to } => {
                warn!(target: target!(), %node, "The log's disk holds the others up, handing leadership of term {term} over to {to}");
            }
            TraceEvent::DiskStalled { term } => {
                warn!(target: target!(), %node, "The log's disk stands still and the others go ahead, giving up leadership of term {term}");
            }
            TraceEvent::HeartbeatsSent { term } => self.heartbeats(*term),
            TraceEvent::Appended { last, count } => {
                debug!(target: target!(), %node, "Appended {count} entries up to {last}");
            }
            TraceEvent::Truncated { from } => {
                info!(target: target!(), %node, "Removed entries from {from} on, which contradict the leader's");
            }
            TraceEvent::Committed { index } => {
                debug!(target: target!(), %node, "Committed up to {index}");
            }
            TraceEvent::ReadConfirmed { index, .. } => {
                debug!(target: target!(), %node, "Confirmed a read at {index}");
            }
            TraceEvent::ReadByLease { index, .. } => {
                debug!(target: target!(), %node, "Answered a read at {index} on the lease");
            }
            TraceEvent::LeaseOver { .. } => {
                debug!(target: target!(), %node, "The lease is over, confirming a read by a round");
            }
            TraceEvent::WentQuiet { .. } => {
                debug!(target: target!(), %node, "Nothing to do, going quiet");
            }
            TraceEvent::Woken { by_silence: true } => {
                info!(target: target!(), %node, "The leader's process is silent, awake again");
            }
            TraceEvent::Woken { by_silence: false } => {
                debug!(target: target!(), %node, "Awake again");
            }
            TraceEvent::CommitDeferred { .. } => {
                info!(target: target!(), %node, "Committing nothing until leases of earlier leaders are over");
            }
            TraceEvent::SnapshotNeeded { to, last } => {
                info!(target: target!(), %node, "Sending the snapshot up to {last} to {to}, which is behind the log");
            }
            TraceEvent::SnapshotInstalled { last } => {
                info!(target: target!(), %node, "Installed the leader's snapshot up to {last}");
            }
            TraceEvent::Compacted { through } => {
                debug!(target: target!(), %node, "Compacted the log up to {through}");
            }
            TraceEvent::Bound { node: member, store } => {
                info!(target: target!(), %node, "Bound {member} to data directory {store}");
            }
            TraceEvent::DamageFound { first, last } => {
                error!(target: target!(), %node, "The log is damaged in entries {first} to {last}: they cannot be read from the disk any more. Getting them from other nodes");
            }
            TraceEvent::RepairServed { to, first, last } => {
                info!(target: target!(), %node, "Gave {to}, whose log is damaged, entries {first} to {last}");
            }
            TraceEvent::Repaired { first, last, by } => {
                if last < first {
                    info!(target: target!(), %node, "Dropped damaged entries from {first} on: {by} leads, and has none there");
                } else {
                    info!(target: target!(), %node, "Repaired entries {first} to {last} of the log with those of {by}");
                }
            }
            TraceEvent::DamageCovered { through } => {
                info!(target: target!(), %node, "Damage to the log up to {through} does not matter: a snapshot has what was there");
            }
            TraceEvent::RepairOverdue { term } => {
                warn!(target: target!(), %node, "The log is damaged and nobody could help for long, giving up leadership of term {term}");
            }
            TraceEvent::Dropped { from, reason } => {
                debug!(target: target!(), %node, "Dropped a message from {from}: {reason}");
            }
            TraceEvent::MembershipProposed { entry, is_joint } => {
                let change = if *is_joint { "a change of voters" } else { "members" };
                info!(target: target!(), %node, "Proposing {change} as {entry}");
            }
            TraceEvent::ChangeTakenBack { entry } => {
                warn!(target: target!(), %node, "Taking back the change of voters with {entry}");
            }
            TraceEvent::TransferStarted { to } => {
                info!(target: target!(), %node, "Transferring leadership to {to}");
            }
            TraceEvent::TimeoutNowSent { to, .. } => {
                info!(target: target!(), %node, "Asked {to} to campaign");
            }
            TraceEvent::TransferTimedOut { to } => {
                warn!(target: target!(), %node, "{to} has not taken over in time, leading on");
            }
            TraceEvent::Removed => {
                warn!(target: target!(), %node, "Removed from the cluster: this node takes no part in it any more");
            }
        }
    }

    fn became(&mut self, role: Role, term: Term, leader: Option<NodeId>) {
        let node = self.node;
        match (role, leader) {
            (Role::Leader, _) => info!(target: target!(), %node, "Becoming leader"),
            (Role::Follower, Some(leader)) => {
                if self.following != Some((term, leader)) {
                    self.following = Some((term, leader));
                    info!(target: target!(), %node, "Following {leader} in term {term}");
                }
            }
            (Role::Follower, None) => {
                debug!(target: target!(), %node, "Becoming follower in term {term}");
            }
            (Role::PreCandidate | Role::Candidate, _) => {
                debug!(target: target!(), %node, "Becoming {role} in term {term}");
            }
        }
    }

    /// At INFO once a term, so that the log shows that they began; then at DEBUG.
    fn heartbeats(&mut self, term: Term) {
        let node = self.node;
        if self.heartbeats_of == term {
            debug!(target: target!(), %node, "Sending heartbeats");
        } else {
            self.heartbeats_of = term;
            info!(target: target!(), %node, "Sending heartbeats");
        }
    }

    pub(super) fn started(&self, term: Term, last: crate::types::EntryId) {
        let node = self.node;
        info!(target: target!(), %node, "Starting as follower in term {term}, the log ends with {last}");
    }

    /// What opening the log has found.
    pub(super) fn damage(&mut self, damaged: &[DamagedEntries]) {
        for &DamagedEntries { first, last, .. } in damaged {
            self.event(&TraceEvent::DamageFound { first, last });
        }
    }

    pub(super) fn low_space(&self, is_low: bool) {
        let node = self.node;
        if is_low {
            warn!(target: target!(), %node, "Little disk space is left: new commands are refused, reads and deletes go on");
        } else {
            info!(target: target!(), %node, "There is disk space again: new commands are taken");
        }
    }

    pub(super) fn snapshot_failed(&self, reason: &str) {
        let node = self.node;
        warn!(target: target!(), %node, "Could not take a snapshot, trying again later: {reason}");
    }

    pub(super) fn no_snapshots(&self) {
        let node = self.node;
        warn!(target: target!(), %node, "This state machine takes no snapshots: its log is kept for ever");
    }

    pub(super) fn transfer_failed(&self, what: &str, reason: &str) {
        let node = self.node;
        warn!(target: target!(), %node, "Could not {what}: {reason}");
    }

    pub(super) fn stopped(&self, fatal: Option<&FatalError>) {
        let node = self.node;
        match fatal {
            Some(fatal) => error!(target: target!(), %node, "Stopping: {fatal}"),
            None => info!(target: target!(), %node, "Stopped"),
        }
    }
}
