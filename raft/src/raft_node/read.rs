//! Linearizable reads without writing to the log (thesis §6.4, "ReadIndex"), in batched rounds.
//!
//! A read must not miss what was committed before it was asked for. The leader notes its commit index when the read arrives and
//! then makes sure that it *still* led at that time, by a round of heartbeats that **begins after the arrival**: if a majority
//! acknowledges the round, no other leader had been elected when it began. The read is served once that index is
//! applied.
//!
//! - Rounds are numbered within a term, and a reply confirms only rounds up to the number it bears: a delayed reply to
//!   an earlier heartbeat confirms nothing that came after it (etcd #20418).
//! - Reads that arrive while a round is under way share the next one.
//! - A new leader does not know how far its predecessors committed until an entry of its own term is committed (§8);
//!   reads wait for that.
//! - A follower asks its leader for the index and waits until it has applied it itself.
//! - A leader with a lease (`lease`) answers without a round, its followers too.

use std::collections::VecDeque;

use crate::effects::Effect;
use crate::message::{Message, ReadId};
use crate::trace::TraceEvent;
use crate::types::{LogIndex, NodeId};

use super::{RaftNode, RoleState};

/// A leader's reads.
#[derive(Clone, Debug, Default, Hash)]
pub(super) struct ReadQueue {
    /// Waiting for the first commit of the term.
    waiting: Vec<ReadId>,
    /// Waiting for their round, in order of rounds.
    pending: VecDeque<PendingRead>,
    /// The latest round begun.
    begun: u64,
    /// The latest round that a majority has acknowledged.
    confirmed: u64,
}

#[derive(Clone, Copy, Debug, Hash)]
struct PendingRead {
    id: ReadId,
    index: LogIndex,
    round: u64,
}

impl ReadQueue {
    /// The latest round begun, for every heartbeat to carry.
    pub(super) fn round(&self) -> u64 {
        self.begun
    }

    /// Begins a round that no read waits for.
    pub(super) fn begin(&mut self) {
        self.begun += 1;
    }

    /// Whether no read waits for anything.
    pub(super) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn len(&self) -> usize {
        self.waiting.len() + self.pending.len()
    }

    /// Queues a read for the next round that begins after now. Returns whether one must begin.
    fn push(&mut self, id: ReadId, index: LogIndex) -> bool {
        // A round that is under way for a lease alone may be in no hurry: this read does not wait for its end.
        let is_idle = self.pending.is_empty();
        if is_idle {
            self.begun += 1;
        }
        let round = if is_idle { self.begun } else { self.begun + 1 };
        self.pending.push_back(PendingRead { id, index, round });
        is_idle
    }

    /// Takes out a read whose round is confirmed.
    fn pop_confirmed(&mut self) -> Option<PendingRead> {
        self.pending.pop_front_if(|read| read.round <= self.confirmed)
    }
}

impl RaftNode {
    pub(super) fn handle_read_index(&mut self, id: ReadId) {
        match self.leader() {
            Some(leader) if leader == self.config.id => self.queue_read(id),
            Some(leader) => self.send(leader, Message::ReadIndex { id }, None),
            None => self.outbox.push(Effect::ReadFailed { id, leader: None }),
        }
    }

    /// A follower's read.
    pub(super) fn handle_remote_read(&mut self, from: NodeId, id: ReadId) {
        if id.node != from {
            let reason = "asks for a read in another's name";
            self.trace(TraceEvent::Dropped { from, reason });
        } else if matches!(self.role, RoleState::Leader(_)) {
            self.queue_read(id);
        } else {
            self.send(from, Message::ReadIndexReply { id, index: None }, None);
        }
    }

    fn queue_read(&mut self, id: ReadId) {
        self.is_asked();
        let may_read = self.may_read();
        let reads_max = self.config.reads_max;
        let RoleState::Leader(leader) = &mut self.role else { return };
        if leader.reads.len() >= reads_max {
            self.fail_read(id);
        } else if !may_read {
            leader.reads.waiting.push(id);
        } else if self.is_lease_valid(id) {
            self.answer_read(id, self.commit);
            self.renew_guard();
        } else {
            self.confirm_by_round(id);
            self.renew_guard();
        }
    }

    fn confirm_by_round(&mut self, id: ReadId) {
        let RoleState::Leader(leader) = &mut self.role else { return };
        #[cfg(feature = "sim")]
        if self.config.planted_bug == Some(crate::sim::PlantedBug::ReadWithoutMajority) {
            return self.serve_read(id, self.commit);
        }
        if leader.reads.push(id, self.commit) {
            self.begin_round();
        }
    }

    /// Whether an entry of our own term is committed.
    fn may_read(&self) -> bool {
        #[cfg(feature = "sim")]
        if self.has_bug(crate::sim::PlantedBug::ReadIndexBeforeFirstCommit) {
            return true;
        }
        self.term_start().is_some_and(|start| self.commit >= start) || self.is_limbo_empty()
    }

    /// The commit index moved: reads may have waited for the first of the term.
    pub(super) fn start_waiting_reads(&mut self) {
        if !self.may_read() {
            return;
        }
        let RoleState::Leader(leader) = &mut self.role else { return };
        for id in std::mem::take(&mut leader.reads.waiting) {
            self.queue_read(id);
        }
    }

    /// A round has been given its number: tell everybody. Alone in the cluster, we are a majority at once.
    fn begin_round(&mut self) {
        self.lease_round_begins();
        self.for_each_peer(Self::send_heartbeat);
        self.confirm_reads();
    }

    /// Looks whether a majority has acknowledged the round under way.
    pub(super) fn confirm_reads(&mut self) {
        let RoleState::Leader(leader) = &self.role else { return };
        let begun = leader.reads.begun;
        let Some(round) = self.reached(begun, 0, |progress| progress.round) else { return };
        let RoleState::Leader(leader) = &mut self.role else { return };
        if round <= leader.reads.confirmed {
            return;
        }
        leader.reads.confirmed = round;
        let mut ready = Vec::new();
        while let Some(read) = leader.reads.pop_confirmed() {
            ready.push(read);
        }
        // Those that wait for the round under way, which began after they had come, need no other.
        let begun = leader.reads.begun;
        let begins_next = leader.reads.pending.back().is_some_and(|read| read.round > begun);
        if begins_next {
            leader.reads.begun += 1;
        }
        for PendingRead { id, index, .. } in ready {
            self.serve_read(id, index);
        }
        if begins_next {
            self.begin_round();
        }
    }

    fn serve_read(&mut self, id: ReadId, index: LogIndex) {
        self.trace(TraceEvent::ReadConfirmed { id, index });
        self.answer_read(id, index);
    }

    fn answer_read(&mut self, id: ReadId, index: LogIndex) {
        if id.node == self.config.id {
            self.outbox.push(Effect::ReadReady { id, index });
        } else {
            self.send(id.node, Message::ReadIndexReply { id, index: Some(index) }, None);
        }
    }

    fn fail_read(&mut self, id: ReadId) {
        if id.node == self.config.id {
            let leader = self.leader().filter(|&leader| leader != self.config.id);
            self.outbox.push(Effect::ReadFailed { id, leader });
        } else {
            self.send(id.node, Message::ReadIndexReply { id, index: None }, None);
        }
    }

    /// We no longer lead: nobody can confirm these.
    pub(super) fn fail_reads(&mut self, reads: ReadQueue) {
        let pending = reads.pending.into_iter().map(|read| read.id);
        for id in reads.waiting.into_iter().chain(pending) {
            self.fail_read(id);
        }
    }

    /// The leader's answer to our read.
    pub(super) fn handle_read_reply(&mut self, id: ReadId, index: Option<LogIndex>) {
        // An answer to an earlier life of this node is nobody's.
        if id.node != self.config.id || id.boot != self.config.boot {
            return;
        }
        self.outbox.push(match index {
            Some(index) => Effect::ReadReady { id, index },
            None => Effect::ReadFailed { id, leader: None },
        });
    }
}
