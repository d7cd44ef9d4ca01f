//! The dispatch: which rule an event or a message meets first, and who handles it.
//!
//! A message passes the rules that hold for all of them, in this order: it is for us; it is from the data directory that its sender is bound
//! to; its term is one that its sender can be in; a later term is taken over (Raft §5.1); an earlier one is answered, and changes nothing.
//! What is left is of our own term, and goes to the handler of its kind.

use std::time::Duration;

use super::repair::Fetched;
use super::{Event, RaftNode, RoleState};
use crate::effects::{Effects, FatalError, IoToken};
use crate::message::{Envelope, Message};
use crate::trace::TraceEvent;
use crate::types::{NodeId, StoreId, Term};

/// Terms by which a node that is not known as a member may be ahead of us: one that was added while we were away, in as many elections.
const STRANGERS_LEAP_MAX: u64 = 1 << 20;

impl RaftNode {
    /// Takes one event at time `now` and appends what is to be done to `effects`. Time never runs backwards: an earlier `now` than
    /// the last counts as the last.
    pub fn step(&mut self, now: Duration, event: Event, effects: &mut Effects) {
        if self.is_stopped {
            return;
        }
        self.now = self.now.max(now);
        self.note_activity(&event);
        match event {
            Event::Timeout => self.handle_timeout(),
            Event::Receive(envelope) => self.handle_envelope(envelope),
            Event::Propose(proposals) => self.handle_proposals(proposals),
            Event::ReadIndex(id) => self.handle_read_index(id),
            Event::ChangeMembership(id, change) => self.handle_change(id, &change),
            Event::TransferLeader(id, to) => self.handle_transfer(id, to),
            Event::Persisted(token) => self.handle_persisted(token),
            Event::PersistFailed(cause) => self.stop(FatalError::Storage(cause)),
            Event::Applied(index) => self.applied = self.applied.max(index),
            Event::EntriesRead { to, entries } => self.handle_entries_read(to, entries),
            Event::EntriesDamaged { first, last } => self.handle_entries_damaged(first, last),
            Event::RepairRead { to, entries } => self.handle_repair_read(to, entries),
            Event::SnapshotBuilt(meta) => self.handle_snapshot_built(meta),
            Event::SnapshotRead { to, meta, offset, data } => {
                self.handle_snapshot_read(to, &meta, offset, data);
            }
            Event::SnapshotWritten { meta, offset, is_complete } => {
                self.handle_snapshot_written(meta, offset, is_complete);
            }
            Event::NodeEpoch(epoch) => self.handle_node_epoch(epoch),
            Event::LeaderSilent => self.handle_leader_silent(),
            Event::LowSpace(is_low) => self.handle_low_space(is_low),
        }
        self.finish(effects);
    }

    fn handle_timeout(&mut self) {
        if self.repair_deadline().is_some_and(|deadline| deadline <= self.now) {
            self.repair_is_due();
        }
        if self.role_deadline().is_none_or(|deadline| self.now < deadline) {
            return;
        }
        match &self.role {
            RoleState::Leader(leader) => {
                let is_due = self.now >= leader.heartbeat_due;
                if self.lease_deadline().is_some() && !self.must_wait_for_leases() {
                    self.advance_commit();
                }
                if is_due {
                    self.heartbeat_is_due();
                }
            }
            RoleState::Follower { .. } | RoleState::PreCandidate(_) | RoleState::Candidate(_) => {
                self.start_pre_vote();
            }
        }
    }

    /// The rules that hold for every message (Raft §5.1), then the dispatch.
    fn handle_envelope(&mut self, envelope: Envelope) {
        let Envelope { from, store, term, can_wait, .. } = envelope;
        if let Err(reason) = self.is_for_us(&envelope) {
            return self.trace(TraceEvent::Dropped { from, reason });
        }
        if let Message::WrongStore { bound } = envelope.message {
            return self.handle_wrong_store(from, store, bound);
        }
        if envelope.message == Message::Removed {
            return self.handle_removed(from, store);
        }
        let is_campaign =
            matches!(envelope.message, Message::Vote { .. } | Message::PreVote { .. });
        // A learner cannot campaign: one that was removed and has not heard of it calls for its leader (`quiet.rs`).
        let calls = self.config.quiet_after.is_some()
            && matches!(envelope.message, Message::HeartbeatReply { round: 0, .. });
        if (is_campaign || calls) && self.knows_removal_of(from) {
            self.send(from, Message::Removed, None);
            return self.trace(TraceEvent::Dropped { from, reason: "removed from the cluster" });
        }
        if self.membership().is_impostor(from, store) {
            let bound = self.membership().store_of(from).expect("an impostor's id is bound");
            self.send(from, Message::WrongStore { bound }, None);
            return self
                .trace(TraceEvent::Dropped { from, reason: "sent by another data directory" });
        }
        if !self.is_credible(&envelope) {
            let reason = "claims a term that nobody can have come to since we knew the members";
            return self.trace(TraceEvent::Dropped { from, reason });
        }
        self.hear_in_quiet(&envelope);
        if term > self.term() && !self.accept_later_term(&envelope) {
            return;
        }
        if term < self.term() && !self.is_taken_for_new(&envelope.message) {
            return self.answer_earlier_term(from, envelope.message);
        }
        self.note_contact(from, store);
        if let Message::Heartbeat { commit, round } = envelope.message {
            return self.handle_heartbeat(from, commit, round, can_wait);
        }
        self.dispatch(from, store, envelope.message);
    }

    fn is_for_us(&self, envelope: &Envelope) -> Result<(), &'static str> {
        if envelope.cluster != self.config.cluster {
            return Err("of another cluster");
        }
        if envelope.group != self.config.group {
            return Err("of another group");
        }
        if envelope.to != self.config.id {
            return Err("for another node");
        }
        if envelope.from == self.config.id {
            return Err("from ourselves");
        }
        // Elections do not get there; a peer that lies would take us to the end of all terms.
        if envelope.term > Term::MAX {
            return Err("in a term beyond all elections");
        }
        Ok(())
    }

    /// Whether a sender can be in this term. A member may be in any. One that we do not know may have been added by entries that we lack,
    /// and lead; but it does not take us where no election can follow. Who waits to be added knows nobody, and follows the leader of a
    /// cluster of any age.
    fn is_credible(&self, envelope: &Envelope) -> bool {
        let (members, term) = (self.membership(), envelope.term.0);
        let is_leaders = matches!(
            envelope.message,
            Message::Append { .. } | Message::Heartbeat { .. } | Message::SnapshotChunk { .. }
        );
        members.store_of(envelope.from).is_some()
            || (members.is_empty() && is_leaders)
            || term.saturating_sub(self.term().0) <= STRANGERS_LEAP_MAX
    }

    /// Never, but for a planted bug: whether a message of an earlier term is handled as one of this term.
    #[cfg(feature = "sim")]
    fn is_taken_for_new(&self, message: &Message) -> bool {
        use crate::sim::PlantedBug;
        matches!(message, Message::VoteReply { .. })
            && self.has_bug(PlantedBug::VoteOfEarlierTermCounted)
    }

    #[cfg(not(feature = "sim"))]
    fn is_taken_for_new(&self, _message: &Message) -> bool {
        false
    }

    /// A later term was seen. Returns whether the message is worth looking at.
    fn accept_later_term(&mut self, envelope: &Envelope) -> bool {
        let is_campaign =
            matches!(envelope.message, Message::Vote { .. } | Message::PreVote { .. });
        let is_leaders_own = self.leader() == Some(envelope.from)
            || matches!(envelope.message, Message::Vote { transfer: true, .. });
        // A node that hears from its leader is not drawn into an election by one that does not (thesis §4.2.3).
        if is_campaign && !is_leaders_own && self.is_leader_in_contact() {
            let reason = "a leader was heard from less than an election timeout ago";
            self.trace(TraceEvent::VoteRefused { to: envelope.from, term: envelope.term, reason });
            return false;
        }
        let leader = match &envelope.message {
            Message::Append { .. }
            | Message::Heartbeat { .. }
            | Message::SnapshotChunk { .. }
            | Message::Quiet { .. }
            | Message::TimeoutNow => Some(envelope.from),
            _ => None,
        };
        self.become_follower(envelope.term, leader);
        true
    }

    /// Lets the sender know that it is behind, so that a deposed leader steps down and a candidate learns the term.
    fn answer_earlier_term(&mut self, from: NodeId, message: Message) {
        match message {
            Message::Append { .. }
            | Message::Heartbeat { .. }
            | Message::SnapshotChunk { .. }
            | Message::Quiet { .. } => {
                self.answer_heartbeat(from, 0);
            }
            Message::PreVote { term, .. } => {
                self.send(from, Message::PreVoteReply { term, granted: false }, None);
            }
            Message::Vote { .. } => {
                self.send(from, Message::VoteReply { granted: false }, None);
            }
            Message::ReadIndex { id } => {
                self.send(from, Message::ReadIndexReply { id, index: None }, None);
            }
            // What a log holds under an id is the same in every term.
            Message::FetchEntries { id, first, through, joint } => {
                self.handle_fetch(from, id, first, through, joint);
            }
            Message::FetchedEntries { id, previous, entries, holds_joint, last } => {
                let fetched = Fetched { id, previous, entries, holds_joint, last };
                self.handle_fetched(from, fetched, false);
            }
            Message::PreVoteReply { .. }
            | Message::VoteReply { .. }
            | Message::AppendAccepted { .. }
            | Message::AppendRejected { .. }
            | Message::HeartbeatReply { .. }
            | Message::ReadIndexReply { .. }
            | Message::SnapshotAck { .. }
            | Message::TimeoutNow
            | Message::QuietAgreed { .. }
            | Message::NodeAlive { .. }
            | Message::Removed
            | Message::WrongStore { .. } => {}
        }
    }

    fn dispatch(&mut self, from: NodeId, store: StoreId, message: Message) {
        match message {
            Message::PreVote { term, last } => self.handle_pre_vote(from, term, last),
            Message::PreVoteReply { term, granted } => {
                self.handle_pre_vote_reply(from, store, term, granted);
            }
            Message::Vote { last, transfer } => self.handle_vote(from, store, last, transfer),
            Message::VoteReply { granted } => self.handle_vote_reply(from, store, granted),
            Message::Append { previous, entries, commit } => {
                self.handle_append(from, previous, entries, commit);
            }
            Message::AppendAccepted { matched } => self.handle_accepted(from, store, matched),
            Message::AppendRejected { rejected, hint } => {
                self.handle_rejected(from, rejected, hint);
            }
            Message::HeartbeatReply { round, is_damaged } => {
                self.handle_heartbeat_reply(from, store, round, is_damaged);
            }
            Message::ReadIndex { id } => self.handle_remote_read(from, id),
            Message::ReadIndexReply { id, index } => self.handle_read_reply(id, index),
            Message::SnapshotChunk { meta, offset, data } => {
                self.handle_snapshot_chunk(from, meta, offset, data);
            }
            Message::SnapshotAck { last, offset, installed } => {
                self.handle_snapshot_ack(from, store, last, offset, installed);
            }
            Message::FetchEntries { id, first, through, joint } => {
                self.handle_fetch(from, id, first, through, joint);
            }
            Message::FetchedEntries { id, previous, entries, holds_joint, last } => {
                let fetched = Fetched { id, previous, entries, holds_joint, last };
                self.handle_fetched(from, fetched, true);
            }
            Message::TimeoutNow => self.handle_timeout_now(from),
            Message::Quiet { last, epoch } => self.handle_quiet(from, last, epoch),
            Message::QuietAgreed { last } => self.handle_quiet_agreed(from, store, last),
            Message::NodeAlive { .. } => {
                self.trace(TraceEvent::Dropped {
                    from,
                    reason: "for the process, not for a group",
                });
            }
            Message::Heartbeat { .. } | Message::WrongStore { .. } | Message::Removed => {
                unreachable!("answered by the caller")
            }
        }
    }

    /// The write under way is durable.
    fn handle_persisted(&mut self, token: IoToken) {
        if !self.log.persisted(token) {
            return;
        }
        self.count_own_vote();
        self.restore_if_durable();
        self.compact_if_durable();
        self.close_repair_if_durable();
        if matches!(self.role, RoleState::Leader(_)) {
            self.advance_commit();
        }
    }
}
