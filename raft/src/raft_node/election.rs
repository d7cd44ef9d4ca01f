//! Elections (Raft §5.2, §5.4.1), with a pre-vote round before each (thesis §9.6).
//!
//! A node that has heard from no leader for its election timeout first asks whether it *could* win. Only if a majority says so does it
//! raise its term and ask for votes. A node cut off from the others therefore never raises the term, and does not
//! depose a working leader when it returns.
//!
//! **A vote is given once a term, and is durable before it is told**, our own included: a candidate counts its own vote only when the
//! write is done. A vote goes only to a candidate whose log is at least as complete as ours, so that a leader has every
//! committed entry (Leader Completeness, §5.4.3).
//!
//! **No vote within one smallest election timeout of a leader's sign of life, or of our own start** (thesis §4.2.3): a leader that hears
//! from a majority is not deposed, and a node that forgot in a crash when it last heard from one does not vote against it. The one
//! exception is an election that the leader itself has asked for (`transfer`), which bypasses the pre-vote too.
//!
//! **The first leader is elected by all founders**, and not by a majority of them. Until its first entry binds the founders to their data
//! directories, a founder that lost its directory, and with it its vote and its entries, cannot be told from one that never had any: two
//! majorities of blank founders can be elected from disks of which only one was wiped, in the same term, or one after another
//! when the first has committed already. With everybody's vote needed, one founder that was not wiped is enough to prevent either: it
//! votes once in a term, and never for an empty log once it holds the founding entry. `docs/decisions/0003-founding-by-binding.md` has the argument.
//!
//! **Who has been removed does not disturb**: it gets no pre-vote from those who hear from a leader, and is told by anybody who knows the
//! removal to be committed.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::effects::Effect;
use crate::membership::Membership;
use crate::message::Message;
use crate::quorum::Tally;
use crate::trace::TraceEvent;
use crate::types::{EntryId, HardState, NodeId, StoreId, Term};

use super::lease::Lease;
use super::{RaftNode, Role, RoleState};

/// The answers to a pre-vote or a candidacy.
#[derive(Clone, Debug, Default)]
pub(super) struct Ballot {
    /// Who has answered what, from which data directory. One answer each: repeated ones change nothing.
    pub(super) answers: BTreeMap<NodeId, (StoreId, bool)>,
    /// When the candidate began to ask.
    pub(super) begun: Duration,
}

impl Ballot {
    fn answer(&mut self, from: NodeId, store: StoreId, granted: bool) {
        self.answers.entry(from).or_insert((store, granted));
    }

    fn tally(&self, membership: &Membership) -> Tally {
        membership.tally(|node| self.answers.get(&node).map(|&(_, granted)| granted))
    }
}

/// How a ballot of founders stands that are not bound to their directories yet: all of them have to say yes.
fn unanimous(founders: &Membership, ballot: &Ballot) -> Tally {
    let mut tally = if founders.is_empty() { Tally::Lost } else { Tally::Won };
    for founder in founders.incoming() {
        match ballot.answers.get(&founder) {
            Some((_, true)) => {}
            Some((_, false)) => return Tally::Lost,
            None => tally = Tally::Open,
        }
    }
    tally
}

impl RaftNode {
    /// Would I win? Also tried again, with a newly drawn timeout, when an election has come to nothing.
    pub(super) fn start_pre_vote(&mut self) {
        self.reset_election_deadline();
        if !self.may_campaign() {
            // Others will have to; whom it followed has been silent for too long in any case.
            if self.leader().is_some() {
                self.become_follower(self.term(), None);
            }
            return self.call_quiet_leader();
        }
        self.tell_missing_founder();
        let term = self.term().next();
        let mut ballot = Ballot::default();
        if self.counts_itself() {
            ballot.answer(self.config.id, self.config.store, true);
        }
        self.role = RoleState::PreCandidate(ballot);
        self.role_changed();
        self.trace(TraceEvent::PreVoteStarted { term });
        let last = self.log.last();
        for peer in self.other_voters() {
            self.send(peer, Message::PreVote { term, last }, None);
        }
        self.count_pre_votes();
    }

    /// The last pre-vote has come to nothing because a founder did not answer, or refused: somebody should know for whom the cluster waits.
    fn tell_missing_founder(&mut self) {
        let RoleState::PreCandidate(ballot) = &self.role else { return };
        let founders = self.membership();
        if !founders.is_blank() {
            return;
        }
        let missing = founders.incoming().find(|founder| !ballot.answers.contains_key(founder));
        let refuses = |&(_, &(_, granted)): &(&NodeId, &(StoreId, bool))| !granted;
        let refusing = ballot.answers.iter().find(refuses).map(|(&founder, _)| founder);
        if let Some(founder) = missing {
            self.trace(TraceEvent::FounderMissing { founder });
        } else if let Some(founder) = refusing {
            self.trace(TraceEvent::FounderRefuses { founder });
        }
    }

    /// Whether we could give our followers what they need, and are a voter that the cluster knows, or were one until a change that we do not know
    /// to be committed. In that case too: the log of who is about to leave may be the only one that is complete enough to win (thesis §4.2.2).
    /// It needs the votes of those who stay, leads without counting itself, and leaves when the change is committed.
    pub(super) fn may_campaign(&self) -> bool {
        let (id, store) = (self.config.id, self.config.store);
        !self.is_removed
            && self.term() < Term::MAX
            && !self.log.is_damaged()
            && self.membership.any_since(self.commit, |members| members.counts(id, store))
    }

    fn other_voters(&self) -> Vec<NodeId> {
        let mut peers: Vec<NodeId> = self.peers().collect();
        #[cfg(feature = "sim")]
        if self.has_bug(crate::sim::PlantedBug::VoteOfAnybodyCounted) {
            return peers;
        }
        peers.retain(|&peer| self.membership().is_voter(peer));
        peers
    }

    pub(super) fn handle_pre_vote(&mut self, from: NodeId, term: Term, last: EntryId) {
        let granted = match self.objection_to(from, last, false) {
            _ if term <= self.term() => false,
            Some(reason) => {
                self.trace(TraceEvent::VoteRefused { to: from, term, reason });
                false
            }
            None => true,
        };
        // A yes neither binds us nor counts as a leader's sign of life (hashicorp/raft #605, #609).
        self.send(from, Message::PreVoteReply { term, granted }, None);
    }

    pub(super) fn handle_pre_vote_reply(
        &mut self,
        from: NodeId,
        store: StoreId,
        term: Term,
        granted: bool,
    ) {
        let counts = self.membership().counts(from, store) || self.counts_anybody();
        let counts = counts && term == self.term().next();
        if let RoleState::PreCandidate(ballot) = &mut self.role
            && counts
        {
            ballot.answer(from, store, granted);
            self.count_pre_votes();
        }
    }

    fn count_pre_votes(&mut self) {
        if let RoleState::PreCandidate(ballot) = &self.role
            && self.tally(ballot) == Tally::Won
        {
            self.start_election(false);
        }
    }

    /// Campaigns; `transfer` if the leader has asked for it.
    pub(super) fn start_election(&mut self, transfer: bool) {
        let term = self.term().next();
        self.save_hard_state(HardState { term, voted_for: Some(self.config.id) });
        self.role = RoleState::Candidate(Ballot { begun: self.now, ..Ballot::default() });
        self.reset_election_deadline();
        self.role_changed();
        self.trace(TraceEvent::ElectionStarted { term });
        let last = self.log.last();
        for peer in self.other_voters() {
            self.send(peer, Message::Vote { last, transfer }, None);
        }
    }

    /// Whether our own vote is worth anything: by the same rule as everybody else's. Another directory may have our name by now.
    fn counts_itself(&self) -> bool {
        self.membership().counts(self.config.id, self.config.store)
    }

    /// Our vote for ourselves counts when it is durable.
    pub(super) fn count_own_vote(&mut self) {
        let is_durable = self.log.durable_token() >= self.hard_state_token;
        let counts = self.counts_itself();
        if let RoleState::Candidate(ballot) = &mut self.role
            && is_durable
            && counts
        {
            ballot.answer(self.config.id, self.config.store, true);
            self.count_votes();
        }
    }

    pub(super) fn handle_vote(
        &mut self,
        from: NodeId,
        store: StoreId,
        last: EntryId,
        transfer: bool,
    ) {
        let term = self.term();
        let refusal = match self.hard_state.voted_for {
            // A founder that is not bound may have been wiped since it got our vote, and ask for another. Which directory got it
            // is known until we start anew.
            Some(candidate)
                if candidate == from
                    && self.membership().is_blank()
                    && self.voted_store != Some(store) =>
            {
                Some("may have been another data directory that was voted for in this term")
            }
            Some(candidate) if candidate == from => None,
            Some(_) => Some("voted for another in this term"),
            None => self.objection_to(from, last, transfer),
        };
        match refusal {
            None => self.grant_vote(from, store),
            Some(reason) => {
                self.trace(TraceEvent::VoteRefused { to: from, term, reason });
                self.send(from, Message::VoteReply { granted: false }, None);
            }
        }
    }

    /// Gives our vote in the current term. The reply waits for the write.
    fn grant_vote(&mut self, candidate: NodeId, store: StoreId) {
        let term = self.term();
        if self.hard_state.voted_for.is_none() {
            self.save_hard_state(HardState { term, voted_for: Some(candidate) });
            self.voted_store = Some(store);
        }
        self.reset_election_deadline();
        self.vote_is_binding();
        self.trace(TraceEvent::VoteGranted { to: candidate, term });
        let reply = Message::VoteReply { granted: true };
        #[cfg(feature = "sim")]
        if self.has_bug(crate::sim::PlantedBug::VoteNotPersistedBeforeReply) {
            return self.send_unguarded(candidate, reply, None);
        }
        self.send(candidate, reply, None);
    }

    /// Why a candidate should not have our vote, whatever term it asks for.
    ///
    /// That we do not know it for a voter is no reason: it may have been made one by entries that we lack (thesis §4.2.2), and may be the
    /// only one that can win. It counts our vote only if we are a voter for *it*. Founders, however, know each other.
    fn objection_to(
        &self,
        candidate: NodeId,
        last: EntryId,
        transfer: bool,
    ) -> Option<&'static str> {
        // A log that is damaged from its beginning may leave us with the founders too, long after they have gone.
        let is_blank = self.membership().is_blank() && self.log.last() == EntryId::ZERO;
        let is_stranger = is_blank && !self.membership().contains(candidate);
        let is_led = self.leader() != Some(candidate) && self.is_leader_in_contact();
        if is_stranger {
            Some("not a founder")
        } else if is_led && !transfer {
            Some("a leader was heard from less than an election timeout ago")
        } else if self.is_ahead_of(last) {
            Some("its log is behind ours")
        } else {
            None
        }
    }

    /// Whether our log is more complete than one that ends with `last` (Raft §5.4.1).
    fn is_ahead_of(&self, last: EntryId) -> bool {
        #[cfg(feature = "sim")]
        if self.has_bug(crate::sim::PlantedBug::LongerLogWins) {
            return self.log.last().index > last.index;
        }
        !self.log.is_up_to_date(last)
    }

    pub(super) fn handle_vote_reply(&mut self, from: NodeId, store: StoreId, granted: bool) {
        let counts = self.membership().counts(from, store) || self.counts_anybody();
        #[cfg(feature = "sim")]
        let (from, store) = self.voter_of_repeated_vote(from, store);
        if let RoleState::Candidate(ballot) = &mut self.role
            && counts
        {
            ballot.answer(from, store, granted);
            self.count_votes();
        }
    }

    fn count_votes(&mut self) {
        let RoleState::Candidate(ballot) = &self.role else { return };
        match self.tally(ballot) {
            Tally::Won => {
                let answers = &ballot.answers;
                let stores = answers.iter().map(|(&node, &(store, _))| (node, store)).collect();
                let granted = answers.iter().filter(|(_, (_, granted))| *granted);
                let granted: Vec<NodeId> = granted.map(|(&node, _)| node).collect();
                let lease = self.new_lease(&granted, ballot.begun);
                self.become_leader(stores, lease);
            }
            // Wait for the deadline: the winner will be heard from before.
            Tally::Lost => self.become_follower(self.term(), None),
            Tally::Open => {}
        }
    }

    /// Never, but for a planted bug.
    fn counts_anybody(&self) -> bool {
        #[cfg(feature = "sim")]
        return self.has_bug(crate::sim::PlantedBug::VoteOfAnybodyCounted);
        #[cfg(not(feature = "sim"))]
        false
    }

    /// With a planted bug, whoever has voted already votes again, in the name of one who has not.
    #[cfg(feature = "sim")]
    fn voter_of_repeated_vote(&self, from: NodeId, store: StoreId) -> (NodeId, StoreId) {
        let RoleState::Candidate(ballot) = &self.role else { return (from, store) };
        let is_repeated = ballot.answers.contains_key(&from);
        if !is_repeated || !self.has_bug(crate::sim::PlantedBug::RepeatedVoteCounted) {
            return (from, store);
        }
        let mut silent = self.other_voters();
        silent.retain(|peer| !ballot.answers.contains_key(peer));
        (silent.first().copied().unwrap_or(from), store)
    }

    fn tally(&self, ballot: &Ballot) -> Tally {
        #[cfg(feature = "sim")]
        if self.has_bug(crate::sim::PlantedBug::VoteOfAnybodyCounted) {
            let yes = ballot.answers.values().filter(|&&(_, granted)| granted).count();
            let needed = crate::quorum::majority(self.membership().incoming().count());
            return if yes >= needed { Tally::Won } else { Tally::Open };
        }
        #[cfg(feature = "sim")]
        if let Some(members) = self.wrong_members(self.membership()) {
            return ballot.tally(&members);
        }
        #[cfg(feature = "sim")]
        if self.has_bug(crate::sim::PlantedBug::FoundedByMajority) {
            return ballot.tally(self.membership());
        }
        if self.membership().is_blank() {
            return unanimous(self.membership(), ballot);
        }
        ballot.tally(self.membership())
    }

    fn become_leader(&mut self, stores: BTreeMap<NodeId, StoreId>, lease: Lease) {
        assert_eq!(self.role(), Role::Candidate, "only a candidate wins");
        let term = self.term();
        self.trace(TraceEvent::ElectionWon { term });
        self.lead(&stores, lease);
        let (role, leader) = (Role::Leader, Some(self.config.id));
        self.outbox.push(Effect::RoleChanged { role, term, leader });
        self.trace(TraceEvent::Became { role, term, leader });
    }
}
