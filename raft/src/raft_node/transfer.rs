//! Handing leadership over (Raft thesis §3.10).
//!
//! The leader stops taking proposals, waits until the other has acknowledged its whole log, and then tells it to campaign at once. The
//! other skips the pre-vote, and its request for votes says that the leader wants it, so that nobody refuses for the leader's sake.
//! It wins because nobody's log is more complete. If it has not taken over after an election timeout, the leader leads on.
//!
//! Only a voter that will still be one when a change under way is done gets the word, and only when it has *everything, durable*
//! (hashicorp/raft #398, #581): one that lags would lose the election, and the cluster an election timeout.
//!
//! Once the word is out the leader can be deposed without anybody's having waited for a timeout. So no lease holds for the
//! rest of the term, even if the transfer fails: see [`RaftNode::has_sent_timeout_now`].

use std::time::Duration;

use crate::effects::{Effect, OrderError, ProposalId};
use crate::message::Message;
use crate::trace::TraceEvent;
use crate::types::NodeId;

use super::{RaftNode, RoleState};

/// A transfer under way.
#[derive(Clone, Copy, Debug)]
pub(super) struct Transfer {
    /// Who waits for it, if an operator asked.
    id: Option<ProposalId>,
    pub(super) to: NodeId,
    deadline: Duration,
    /// The other was told to campaign.
    is_sent: bool,
}

#[cfg(feature = "sim")]
impl Transfer {
    /// Everything that decides what comes of it; see `raft_node/digest.rs`.
    pub(super) fn digest(self, now: Duration) -> impl std::hash::Hash {
        let Self { id, to, deadline, is_sent } = self;
        (id, to, deadline.saturating_sub(now), is_sent)
    }
}

impl RaftNode {
    pub(super) fn handle_transfer(&mut self, id: ProposalId, to: Option<NodeId>) {
        match self.transfer_to(to) {
            Err(error) => self.outbox.push(Effect::OrderFailed { id, error }),
            Ok(to) if to == self.config.id => self.outbox.push(Effect::OrderDone { id }),
            Ok(to) => self.start_transfer(Some(id), to),
        }
    }

    /// Begins to hand over to one who can take over.
    pub(super) fn start_transfer(&mut self, id: Option<ProposalId>, to: NodeId) {
        let deadline = self.now + self.config.election_timeout.end;
        let RoleState::Leader(leader) = &mut self.role else {
            unreachable!("only a leader has something to hand over")
        };
        leader.transfer = Some(Transfer { id, to, deadline, is_sent: false });
        self.trace(TraceEvent::TransferStarted { to });
        self.send_appends(to);
        self.tell_target_to_campaign();
    }

    /// Who is to lead, if that can be.
    pub(super) fn transfer_to(&self, to: Option<NodeId>) -> Result<NodeId, OrderError> {
        if self.term_start().is_none() {
            return Err(OrderError::NotLeader { leader: self.leader() });
        }
        if let Some(to) = self.transfer_target() {
            return Err(OrderError::Transferring { to });
        }
        let Some(to) = to else { return self.successor().ok_or(OrderError::NobodyToLead) };
        if !self.membership().is_incoming_voter(to) {
            return Err(OrderError::NotVoter(to));
        }
        if to != self.config.id && !self.is_in_sync(to) {
            return Err(OrderError::NotInSync(to));
        }
        Ok(to)
    }

    /// The voter whose log is most complete, of those that keep up.
    fn successor(&self) -> Option<NodeId> {
        self.progress()
            .filter(|&(node, _)| self.membership().is_incoming_voter(node) && self.is_in_sync(node))
            .max_by_key(|&(node, progress)| (progress.matched, std::cmp::Reverse(node)))
            .map(|(node, _)| node)
    }

    /// Sends the word as soon as the other has everything.
    pub(super) fn tell_target_to_campaign(&mut self) {
        let last = self.log.last();
        let RoleState::Leader(leader) = &mut self.role else { return };
        let Some(transfer) = &mut leader.transfer else { return };
        let has_all = leader
            .progress
            .get(&transfer.to)
            .is_some_and(|progress| progress.matched == last.index);
        #[cfg(feature = "sim")]
        let has_all = has_all
            || self.config.planted_bug == Some(crate::sim::PlantedBug::TimeoutNowToLaggingTarget);
        if transfer.is_sent || !has_all {
            return;
        }
        transfer.is_sent = true;
        let to = transfer.to;
        self.send_timeout_now(to);
    }

    fn send_timeout_now(&mut self, to: NodeId) {
        let last = self.log.last();
        if let RoleState::Leader(leader) = &mut self.role {
            leader.has_sent_timeout_now = true;
        }
        self.trace(TraceEvent::TimeoutNowSent { to, last });
        self.send(to, Message::TimeoutNow, None);
    }

    pub(super) fn give_up_transfer_if_late(&mut self) {
        let now = self.now;
        let RoleState::Leader(leader) = &mut self.role else { return };
        if let Some(Transfer { id, to, .. }) =
            leader.transfer.take_if(|transfer| transfer.deadline <= now)
        {
            self.trace(TraceEvent::TransferTimedOut { to });
            if let Some(id) = id {
                self.outbox.push(Effect::OrderFailed { id, error: OrderError::TransferTimedOut });
            }
        }
    }

    /// We lead no more.
    pub(super) fn transfer_ended(&mut self, transfer: Transfer) {
        let Some(id) = transfer.id else { return };
        self.outbox.push(if transfer.is_sent {
            Effect::OrderDone { id }
        } else {
            Effect::OrderFailed { id, error: OrderError::NotLeader { leader: self.leader() } }
        });
    }

    /// As leader that is no voter any more: one who has everything takes over at once, if there is one, instead of after a timeout.
    pub(super) fn leave_office(&mut self) {
        let last = self.log.last().index;
        let has_all =
            |node| self.progress().any(|(id, progress)| id == node && progress.matched == last);
        if let Some(successor) = self.successor().filter(|&node| has_all(node)) {
            self.send_timeout_now(successor);
        }
        self.become_follower(self.term(), None);
    }

    /// The leader wants us to lead.
    pub(super) fn handle_timeout_now(&mut self, from: NodeId) {
        if !self.follow(from) {
            return;
        }
        if self.may_campaign() {
            self.start_election(true);
        } else {
            let reason = "asks us to campaign, and we are no voter";
            self.trace(TraceEvent::Dropped { from, reason });
        }
    }
}
