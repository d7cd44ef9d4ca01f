//! Terms and roles (Raft §5.1): who is followed, from when on, and for how long without hearing of it.

use std::ops::Range;
use std::time::Duration;

use rand_core::Rng;

use super::{RaftNode, Role, RoleState};
use crate::effects::{Effect, FatalError, OrderError};
use crate::trace::TraceEvent;
use crate::types::{HardState, NodeId, Term};

impl RaftNode {
    /// Follows `leader`, if it is known, in `term`.
    pub(super) fn become_follower(&mut self, term: Term, leader: Option<NodeId>) {
        assert!(term >= self.term(), "terms never fall: {term} after {}", self.term());
        let (mut unanswered, mut transfer, mut change) = (None, None, None);
        if let RoleState::Leader(state) = &mut self.role {
            unanswered = Some(std::mem::take(&mut state.reads));
            transfer = state.transfer.take();
            change = state.change.take();
        }
        let was_leading_or_asking = self.role() != Role::Follower;
        let changed = term > self.term() || was_leading_or_asking || self.leader() != leader;
        if term > self.term() {
            self.save_hard_state(HardState { term, voted_for: None });
        }
        self.role = RoleState::Follower { leader };
        self.quiet.is_over();
        if let Some(reads) = unanswered {
            self.fail_reads(reads);
        }
        if let Some(transfer) = transfer {
            self.transfer_ended(transfer);
        }
        // Whoever leads next finishes it, or takes it back.
        if let Some(id) = change {
            self.outbox.push(Effect::OrderFailed { id, error: OrderError::Unknown });
        }
        if was_leading_or_asking {
            self.reset_election_deadline();
        }
        if changed {
            self.role_changed();
        }
    }

    /// A message of the current term's leader: it is the leader, and it lives. `false` if that cannot be, because another leads this
    /// term, or we do.
    ///
    /// At most one leader a term is what everything else rests on. If two members, each known by its data directory, lead one, nothing
    /// that we do is safe any more, and the node stops. A sender that is not bound proves nothing: it is not followed.
    pub(super) fn follow(&mut self, leader: NodeId) -> bool {
        let is_bound = |node| self.membership().store_of(node).is_some();
        let other = self.leader().filter(|&other| other != leader);
        if let Some(other) = other.filter(|&other| is_bound(other) || !is_bound(leader)) {
            if is_bound(other) && is_bound(leader) {
                self.stop(FatalError::TwoLeaders(self.term()));
            } else {
                let reason = "claims to lead a term that another leads";
                self.trace(TraceEvent::Dropped { from: leader, reason });
            }
            return false;
        }
        if self.leader() != Some(leader) || self.role() != Role::Follower {
            self.become_follower(self.term(), Some(leader));
        }
        self.leader_contact = self.now;
        self.reset_election_deadline();
        true
    }

    pub(super) fn role_changed(&mut self) {
        let (role, term, leader) = (self.role(), self.term(), self.leader());
        self.outbox.push(Effect::RoleChanged { role, term, leader });
        self.trace(TraceEvent::Became { role, term, leader });
    }

    /// Draws a new timeout for each campaign, so that nodes that collided once do not collide for ever (openraft #1838).
    pub(super) fn reset_election_deadline(&mut self) {
        let Range { start, end } = self.config.election_timeout;
        let spread = u64::try_from((end - start).as_nanos()).unwrap_or(u64::MAX).max(1);
        let extra = Duration::from_nanos(self.rng.next_u64() % spread);
        self.election_deadline = self.now + start + extra;
    }

    /// Whether a leader was heard from within the smallest election timeout; a leader hears from itself as long as it leads,
    /// and check-quorum sees to it that it does not lead for long without a majority.
    pub(super) fn is_leader_in_contact(&self) -> bool {
        matches!(self.role, RoleState::Leader(_))
            || self.now < self.leader_contact + self.config.election_timeout.start
    }
}
