//! The members over the length of the log, and the binding of founders to their data directories.
//!
//! A membership is in force from the place of its entry on, committed or not, and goes when the entry goes (thesis §4.1). So the
//! node keeps all that a truncation could bring back.
//!
//! **Changing voters** goes through a joint membership (Raft §6; see [`crate::membership`]): the leader appends it, and from then on needs both
//! majorities; when it is committed, whoever leads appends the one that leaves it, once. That is also how an interrupted change
//! ends: a new leader finds the joint membership in its log and finishes. A leader that is not among the new voters leads until
//! that is committed, without counting itself, and then hands over.
//!
//! - One change at a time, and only after an entry of the leader's own term is committed: else two leaders could
//!   start from the same members into different directions, with majorities that do not meet (the bug of 2015; case 30).
//! - A learner becomes a voter only when it is in sync, and a change is refused if the voters that there would be could not commit
//!   anything at present. Either would stop the cluster.
//! - A joint membership that is not committed can be taken back, to the old voters, by the leader that appended it: on an
//!   operator's word, or by itself when it no longer hears from a majority of the new voters. That is safe because every
//!   membership that can be in force anywhere then, old, joint, or old again, needs a majority of the old voters.
//!
//! **Binding.** The first entry of the first leader binds the founders, all of which have voted for it; a learner that comes without a
//! store is bound by an entry of its own. Why this is safe is told in [`crate::membership`]. A binding is a change like any other: it waits for the
//! one before it. It needs no joint membership, since the set of voters stays as it is and one more of them counts.

use std::collections::BTreeMap;

use crate::effects::{Effect, FatalError, OrderError, ProposalId};
use crate::membership::{ConfChange, MemberChange, Membership, Standing};
use crate::message::Message;
use crate::progress::Progress;
use crate::trace::TraceEvent;
use crate::types::{EntryId, LogIndex, NodeId, Payload, StoreId};

use super::{RaftNode, RoleState};

/// The members from each place in the log on.
#[derive(Clone, Debug, Hash)]
pub(super) struct MembershipHistory {
    /// In force from the base of the log on; never empty, ascending.
    changes: Vec<(LogIndex, Membership)>,
}

impl MembershipHistory {
    /// `base` is in force at `index`; `changes` come from the log and may begin before it.
    pub(super) fn recovered(
        index: LogIndex,
        base: Membership,
        changes: Vec<(LogIndex, Membership)>,
    ) -> Self {
        let later = changes.into_iter().filter(|&(at, _)| at > index);
        Self { changes: std::iter::once((index, base)).chain(later).collect() }
    }

    pub(super) fn current(&self) -> &Membership {
        &self.changes.last().expect("never empty").1
    }

    pub(super) fn at(&self, index: LogIndex) -> &Membership {
        let after = self.changes.partition_point(|&(at, _)| at <= index);
        &self.changes[after.saturating_sub(1)].1
    }

    /// The place from which on the members at `index` have been in force.
    pub(super) fn place_at(&self, index: LogIndex) -> LogIndex {
        let after = self.changes.partition_point(|&(at, _)| at <= index);
        self.changes[after.saturating_sub(1)].0
    }

    /// Whether `holds` of the members at `index` or at any place behind it.
    pub(super) fn any_since(&self, index: LogIndex, holds: impl Fn(&Membership) -> bool) -> bool {
        let after = self.changes.partition_point(|&(at, _)| at <= index);
        self.changes[after.saturating_sub(1)..].iter().any(|(_, members)| holds(members))
    }

    /// The membership that came with the entry at `index`, if it is one and known.
    pub(super) fn of_entry(&self, index: LogIndex) -> Option<&Membership> {
        self.changes.iter().find(|&&(at, _)| at == index).map(|(_, members)| members)
    }

    pub(super) fn push(&mut self, index: LogIndex, membership: Membership) {
        debug_assert!(self.changes.last().is_some_and(|&(at, _)| at < index), "ascending");
        self.changes.push((index, membership));
    }

    /// Entries from `from` on are gone. Returns whether that changed the members.
    pub(super) fn truncate(&mut self, from: LogIndex) -> bool {
        let before = self.changes.len();
        self.changes.retain(|&(at, _)| at < from);
        assert!(!self.changes.is_empty(), "the base is never truncated");
        self.changes.len() < before
    }

    /// A planted bug: these stay in force though their entry is gone.
    #[cfg(feature = "sim")]
    pub(super) fn keep(&mut self, index: LogIndex, stale: Membership) {
        match self.changes.last_mut() {
            Some((at, members)) if *at >= index => *members = stale,
            Some(_) | None => self.changes.push((index, stale)),
        }
    }

    /// Nothing before `index` will be asked for.
    pub(super) fn compact(&mut self, index: LogIndex) {
        let after = self.changes.partition_point(|&(at, _)| at <= index);
        self.changes.drain(..after.saturating_sub(1));
    }

    pub(super) fn restart(&mut self, index: LogIndex, membership: Membership) {
        self.changes = vec![(index, membership)];
    }

    /// A membership whose entry was damaged is known after all. Returns whether that changed the members as of the last entry.
    pub(super) fn learn(&mut self, index: LogIndex, membership: Membership) -> bool {
        let before = self.current().clone();
        let place = self.changes.partition_point(|&(at, _)| at < index);
        let is_known = self.changes.get(place).is_some_and(|&(at, _)| at == index);
        if place > 0 && !is_known {
            self.changes.insert(place, (index, membership));
        }
        *self.current() != before
    }

    /// `membership` is in force at `index`, whatever came before; what came later stays. Returns whether that changed the members as
    /// of the last entry.
    pub(super) fn rebase(&mut self, index: LogIndex, membership: Membership) -> bool {
        let before = self.current().clone();
        self.changes.retain(|&(at, _)| at > index);
        self.changes.insert(0, (index, membership));
        *self.current() != before
    }

    fn last_change(&self) -> LogIndex {
        self.changes.last().expect("never empty").0
    }
}

impl RaftNode {
    /// The entry with which a term begins: the founding of the cluster if nobody is bound yet, else nothing.
    pub(super) fn first_payload_of_term(&mut self, stores: &BTreeMap<NodeId, StoreId>) -> Payload {
        if !self.membership().is_blank() {
            return Payload::Noop;
        }
        let mut membership = self.membership().clone();
        for (&node, &store) in stores {
            membership.bind(node, store);
            self.trace(TraceEvent::Bound { node, store });
        }
        Payload::Membership(membership)
    }

    /// As leader: a member that was added without a store speaks up, and is bound as soon as that may be.
    pub(super) fn note_unbound(&mut self, node: NodeId, store: StoreId) {
        let RoleState::Leader(leader) = &mut self.role else { return };
        let membership = self.membership.current();
        if membership.contains(node) && membership.store_of(node).is_none() {
            leader.unbound.insert(node, store);
            self.bind_next();
        }
    }

    /// Binds one member that has spoken up, if the change before is settled; the next when that one is.
    fn bind_next(&mut self) {
        if !self.is_settled() || self.transfer_target().is_some() {
            return;
        }
        let RoleState::Leader(leader) = &mut self.role else { return };
        let Some((node, store)) = leader.unbound.pop_first() else { return };
        let mut membership = self.membership.current().clone();
        membership.bind(node, store);
        self.trace(TraceEvent::Bound { node, store });
        self.append_membership(membership);
    }

    /// As leader: whether the members are committed, and an entry of this term is.
    fn is_settled(&self) -> bool {
        self.membership.last_change() <= self.commit
            && self.term_start().is_some_and(|start| start <= self.commit)
    }

    /// Puts other members into the log, which are in force at once.
    fn append_membership(&mut self, membership: Membership) -> EntryId {
        let before = self.membership.current().clone();
        let is_joint = membership.is_joint();
        let entry = self.append_as_leader(Payload::Membership(membership), None);
        self.trace(TraceEvent::MembershipProposed { entry, is_joint });
        let (last, now) = (self.log.last().index, self.now);
        let peers: Vec<NodeId> = self.peers().collect();
        let members = self.membership.current();
        let RoleState::Leader(leader) = &mut self.role else {
            unreachable!("only a leader appends")
        };
        leader.progress.retain(|&node, _| members.contains(node));
        leader.unbound.retain(|&node, _| members.contains(node));
        let gone = before.members().map(|(node, _)| node);
        let gone = gone.filter(|&node| !members.contains(node) && node != self.config.id);
        leader.leaving.extend(gone);
        for peer in peers {
            leader.progress.entry(peer).or_insert_with(|| Progress::new(last, now));
        }
        self.send_appends_to_all();
        entry
    }

    // Changes.

    pub(super) fn handle_change(&mut self, id: ProposalId, change: &ConfChange) {
        let next = match change {
            ConfChange::Members(changes) => self.next_membership(changes),
            ConfChange::Cancel => self.cancelled_membership(),
        };
        match next {
            Err(error) => self.outbox.push(Effect::OrderFailed { id, error }),
            Ok(next) if *change == ConfChange::Cancel => {
                let entry = self.take_back(next);
                self.outbox.push(Effect::Ordered { id, entry });
            }
            Ok(next) => {
                let is_joint = next.is_joint();
                let entry = self.append_membership(next);
                self.outbox.push(Effect::Ordered { id, entry });
                if let RoleState::Leader(leader) = &mut self.role {
                    leader.change = is_joint.then_some(id);
                }
            }
        }
    }

    fn next_membership(&self, changes: &[MemberChange]) -> Result<Membership, OrderError> {
        if self.term_start().is_none() {
            return Err(OrderError::NotLeader { leader: self.leader() });
        }
        if let Some(to) = self.transfer_target() {
            return Err(OrderError::Transferring { to });
        }
        #[cfg(feature = "sim")]
        if self.has_bug(crate::sim::PlantedBug::SingleStepChangeBeforeFirstCommit) {
            let is_open = self.membership.last_change() > self.commit;
            let next = self.membership().changed(changes)?.left();
            return match (is_open, self.has_quorum_contact(&next)) {
                (true, _) => Err(OrderError::ChangeInProgress),
                (false, false) => Err(OrderError::WouldLoseQuorum),
                (false, true) => Ok(next),
            };
        }
        if self.term_start().is_some_and(|start| start > self.commit) {
            return Err(OrderError::TermNotCommitted);
        }
        if !self.is_settled() || self.membership().is_joint() {
            return Err(OrderError::ChangeInProgress);
        }
        let next = self.membership().changed(changes)?;
        let lagging = next
            .members()
            .filter(|(_, member)| member.standing == Standing::Entering)
            .find(|&(node, _)| !self.is_in_sync(node));
        if let Some((node, _)) = lagging {
            return Err(OrderError::NotInSync(node));
        }
        if next.is_joint() && !self.could_commit(&next.left()) {
            return Err(OrderError::WouldLoseQuorum);
        }
        Ok(next)
    }

    /// As leader: whether this follower keeps up.
    pub(super) fn is_in_sync(&self, node: NodeId) -> bool {
        let within = self.config.election_timeout.end;
        self.progress().any(|(id, progress)| id == node && progress.is_in_sync(self.now, within))
    }

    /// The old voters, if the change to others is not committed yet.
    fn cancelled_membership(&self) -> Result<Membership, OrderError> {
        let Some(term_start) = self.term_start() else {
            return Err(OrderError::NotLeader { leader: self.leader() });
        };
        if let Some(to) = self.transfer_target() {
            return Err(OrderError::Transferring { to });
        }
        let is_open = self.membership.last_change() > self.commit && self.membership().is_joint();
        if !is_open {
            Err(OrderError::NothingToCancel)
        } else if term_start > self.commit {
            // Not ours: another leader may know it to be committed, and may have left it for the new voters.
            Err(OrderError::TermNotCommitted)
        } else {
            let before = self.membership.at(self.membership.last_change().previous());
            Ok(self.membership().cancelled(before))
        }
    }

    /// As leader that does not hear from a majority any more: takes back the change under way if that is why. Returns whether it did.
    pub(super) fn take_back_change(&mut self) -> bool {
        let Ok(before) = self.cancelled_membership() else { return false };
        if !self.has_quorum_contact(&before) {
            return false;
        }
        self.take_back(before);
        true
    }

    fn take_back(&mut self, before: Membership) -> EntryId {
        let entry = self.append_membership(before);
        self.trace(TraceEvent::ChangeTakenBack { entry });
        let RoleState::Leader(leader) = &mut self.role else {
            unreachable!("only a leader appends")
        };
        // Until this entry is committed, another leader may still finish the change.
        if let Some(id) = leader.change.take() {
            self.outbox.push(Effect::OrderFailed { id, error: OrderError::Unknown });
        }
        entry
    }

    /// As leader: what is to be done about the members once the last change of them is committed. Each step appends at most one entry, and
    /// is tried again when that is committed; so nothing is proposed twice.
    pub(super) fn settle_membership(&mut self) {
        // Whoever is to take over would no longer have everything. The next heartbeat tries again.
        if self.transfer_target().is_some() {
            return;
        }
        #[cfg(feature = "sim")]
        if self.membership().is_joint() && self.term_start().is_some() {
            use crate::sim::PlantedBug;
            if self.has_bug(PlantedBug::JointLeftBeforeCommit) {
                return self.leave_joint();
            }
            if self.has_bug(PlantedBug::JointNeverLeft) {
                return;
            }
        }
        if !self.is_settled() {
            return;
        }
        if self.membership().is_joint() {
            return self.leave_joint();
        }
        self.tell_removed();
        if !self.membership().is_incoming_voter(self.config.id) {
            return self.leave_office();
        }
        self.promote_ready();
        self.bind_next();
    }

    fn leave_joint(&mut self) {
        let left = self.membership().left();
        let entry = self.append_membership(left);
        let RoleState::Leader(leader) = &mut self.role else { return };
        if let Some(id) = leader.change.take() {
            self.outbox.push(Effect::Ordered { id, entry });
        }
    }

    /// Those who are no members any more will not hear it from the log: nobody sends it to them. (Who misses this is told when it
    /// campaigns.)
    fn tell_removed(&mut self) {
        let RoleState::Leader(leader) = &mut self.role else { return };
        let leaving = std::mem::take(&mut leader.leaving);
        for &node in &leaving {
            self.send(node, Message::Removed, None);
        }
        if !leaving.is_empty() {
            self.wake_who_has_left();
        }
    }

    /// A learner has acknowledged something.
    pub(super) fn promote_if_ready(&mut self, node: NodeId) {
        if self.membership().get(node).is_some_and(|member| member.promote_when_ready)
            && self.is_in_sync(node)
        {
            self.settle_membership();
        }
    }

    /// Promotes those learners that are to become voters as soon as they have caught up.
    fn promote_ready(&mut self) {
        let ready = self
            .membership()
            .members()
            .filter(|(node, member)| {
                member.promote_when_ready && member.store.is_some() && self.is_in_sync(*node)
            })
            .map(|(node, _)| MemberChange::Promote(node));
        let ready: Vec<_> = ready.collect();
        if ready.is_empty() {
            return;
        }
        if let Ok(next) = self.next_membership(&ready) {
            self.append_membership(next);
        }
    }

    // Planted bugs.

    /// By whom majorities are counted wrongly instead.
    #[cfg(feature = "sim")]
    pub(super) fn wrong_members(&self, members: &Membership) -> Option<Membership> {
        use crate::sim::PlantedBug;
        match self.config.planted_bug {
            Some(PlantedBug::JointCountedByNewVoters) => Some(members.left()),
            Some(PlantedBug::MembershipInForceAtCommit) => {
                Some(self.membership.at(self.commit).clone())
            }
            _ => None,
        }
    }

    #[cfg(feature = "sim")]
    pub(super) fn wrong_members_for_acknowledgements(
        &self,
        members: &Membership,
    ) -> Option<Membership> {
        if !self.has_bug(crate::sim::PlantedBug::LearnerCounted) {
            return self.wrong_members(members);
        }
        let mut all = members.clone();
        for (node, member) in members.members() {
            if member.standing == Standing::Learner {
                let standing = Standing::Voter;
                all.insert(node, crate::membership::Member { standing, ..member.clone() });
            }
        }
        Some(all)
    }

    // Removal.

    /// Whether it is committed that `node` is no member any more.
    pub(super) fn knows_removal_of(&self, node: NodeId) -> bool {
        self.membership.at(self.commit).has_removed(node)
    }

    /// The commit index moved: are we a member still? (A leader that is not hands over before it takes notice.)
    pub(super) fn note_removal(&mut self) {
        if !self.is_removed && self.knows_removal_of(self.config.id) {
            self.is_removed = true;
            self.trace(TraceEvent::Removed);
        }
    }

    /// Somebody says that we are no member any more. It is believed of a voter, in the directory that it is bound to, of the members
    /// that we know to be committed, or of any later ones: whoever removed us was one of them once. One that was removed so long ago
    /// that it knows none of those who are left goes on asking for pre-votes, which disturbs nobody.
    pub(super) fn handle_removed(&mut self, from: NodeId, store: StoreId) {
        let is_voter =
            |members: &Membership| members.is_voter(from) && members.store_of(from) == Some(store);
        if !self.membership.any_since(self.commit, is_voter) {
            let reason = "is no voter that could have removed us";
            return self.trace(TraceEvent::Dropped { from, reason });
        }
        if self.is_removed {
            return;
        }
        self.is_removed = true;
        self.trace(TraceEvent::Removed);
        self.become_follower(self.term(), None);
    }

    /// Somebody says that our id is bound to another data directory. Only a node that its log does not contradict believes this: it was
    /// wiped, or is new under an old name. A founder believes it of founders, one that waits to be added of anybody.
    pub(super) fn handle_wrong_store(&mut self, from: NodeId, store: StoreId, bound: StoreId) {
        let (id, own) = (self.config.id, self.config.store);
        let members = self.membership();
        let is_known = members.is_empty() || members.speaks(from, store);
        if is_known && bound != own && members.store_of(id) != Some(own) {
            self.stop(FatalError::WrongStore { bound });
        }
    }

    /// The commit index moved: does the cluster know us by our directory? One that was bound otherwise meanwhile is not a member, and
    /// must not go on as if it were.
    pub(super) fn note_binding(&mut self) {
        let members = self.membership.at(self.commit);
        if members.is_impostor(self.config.id, self.config.store) {
            let bound = members.store_of(self.config.id).expect("an impostor's id is bound");
            self.stop(FatalError::WrongStore { bound });
        }
    }
}
