//! Replication (Raft §5.3) and the commit rule (§5.4.2).
//!
//! Each append names the entry that precedes it; a follower that lacks it says no, with a hint that lets the leader skip a whole
//! term at once. So two logs that hold the same entry hold the same entries before it (Log Matching).
//!
//! **A follower removes an entry only when it contradicts the leader's**: same index, other term. A late or repeated message whose
//! entries are all there removes nothing, for what follows them may be committed.
//!
//! **A leader counts itself only when its own write is durable**, and sends at the same time as it writes (thesis §10.2.1): commit may pass
//! what is durable here, once a majority of others has it. And it **commits only entries of its own term by counting**;
//! those of earlier terms are committed with them (§5.4.2, Figure 8).

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use crate::effects::{Effect, FatalError, ProposalId, Rejection};
use crate::entries::Entries;
use crate::membership::Membership;
use crate::message::Message;
use crate::progress::{Progress, ProgressState};
use crate::trace::TraceEvent;
use crate::types::{Entry, EntryId, LogIndex, NodeId, Payload, StoreId, Term};

use super::lease::Lease;
use super::own_disk::OwnDisk;
use super::read::ReadQueue;
use super::{Leader, Proposal, RaftNode, RoleState};

/// The sizes of what a leader has taken and not yet both committed and made durable: all that waits in memory for its disk counts, also
/// when the others' disks are faster.
#[derive(Clone, Debug, Default)]
pub(super) struct Uncommitted {
    batches: VecDeque<(LogIndex, usize)>,
    bytes: usize,
}

impl Uncommitted {
    fn push(&mut self, last: LogIndex, bytes: usize) {
        self.batches.push_back((last, bytes));
        self.bytes += bytes;
    }

    fn committed(&mut self, index: LogIndex) {
        while self.batches.front().is_some_and(|&(last, _)| last <= index) {
            let (_, bytes) = self.batches.pop_front().expect("just looked at");
            self.bytes -= bytes;
        }
    }
}

impl RaftNode {
    // The leader's side.

    /// Takes office: the first entry of the term goes out at once.
    pub(super) fn lead(&mut self, stores: &BTreeMap<NodeId, StoreId>, lease: Lease) {
        let last = self.log.last().index;
        self.quiet.is_over();
        let progress = self.peers().map(|peer| (peer, Progress::new(last, self.now))).collect();
        self.role = RoleState::Leader(Box::new(Leader {
            progress,
            heartbeat_due: self.now,
            woken_at: Duration::ZERO,
            term_start: last.next(),
            uncommitted: Uncommitted::default(),
            reads: ReadQueue::default(),
            lease,
            own_disk: OwnDisk { owed: self.log.durable(), since: self.now },
            unbound: BTreeMap::new(),
            change: None,
            leaving: Vec::new(),
            transfer: None,
            has_sent_timeout_now: false,
        }));
        if let Some(until) = self.lease_deadline() {
            self.trace(TraceEvent::CommitDeferred { until });
        }
        let payload = self.first_payload_of_term(stores);
        self.append_as_leader(payload, None);
        self.send_appends_to_all();
    }

    /// Puts the next entry into the leader's own log.
    pub(super) fn append_as_leader(
        &mut self,
        payload: Payload,
        session: Option<crate::types::SessionId>,
    ) -> EntryId {
        let id = EntryId::new(self.term(), self.log.last().index.next());
        self.append_entry(Entry { id, session, payload });
        self.lease_entry_created(id.index);
        id
    }

    pub(super) fn handle_proposals(&mut self, proposals: Vec<Proposal>) {
        if !matches!(self.role, RoleState::Leader(_)) {
            let reason = Rejection::NotLeader { leader: self.leader() };
            return proposals.iter().for_each(|proposal| self.reject(proposal.id, reason));
        }
        if let Some(to) = self.transfer_target() {
            // The log must stand still until the other has all of it.
            let reason = Rejection::Transferring { to };
            return proposals.iter().for_each(|proposal| self.reject(proposal.id, reason));
        }
        let before = self.log.last().index;
        for proposal in proposals {
            self.take_proposal(proposal);
        }
        let last = self.log.last();
        if last.index > before {
            let count = usize::try_from(last.index.since(before)).unwrap_or(usize::MAX);
            self.trace(TraceEvent::Appended { last, count });
            self.send_appends_to_all();
        }
    }

    fn take_proposal(&mut self, proposal: Proposal) {
        let Proposal { id, session, command } = proposal;
        let (size, limit) = (command.len(), self.config.command_bytes_max);
        if size > limit {
            return self.reject(id, Rejection::TooLarge { size, limit });
        }
        let RoleState::Leader(leader) = &mut self.role else {
            unreachable!("checked by the caller")
        };
        // One command always fits, so that a limit below a command's size does not refuse for ever.
        let bytes = size + Entry::OVERHEAD;
        if leader.uncommitted.bytes > 0
            && leader.uncommitted.bytes + bytes > self.config.uncommitted_bytes_max
        {
            return self.reject(id, Rejection::Overloaded);
        }
        let index = self.log.last().index.next();
        leader.uncommitted.push(index, bytes);
        let entry = self.append_as_leader(Payload::Command(command), session);
        self.outbox.push(Effect::Proposed { id, entry });
    }

    fn reject(&mut self, id: ProposalId, reason: Rejection) {
        self.outbox.push(Effect::Rejected { id, reason });
    }

    pub(super) fn send_appends_to_all(&mut self) {
        self.for_each_peer(Self::send_appends);
    }

    /// Sends what the follower's window has room for.
    pub(super) fn send_appends(&mut self, peer: NodeId) {
        while let Some(message) = self.next_append(peer) {
            self.send(peer, message, None);
        }
    }

    /// The next append for a follower; `None` if there is nothing to send now.
    fn next_append(&mut self, peer: NodeId) -> Option<Message> {
        let RoleState::Leader(leader) = &mut self.role else { return None };
        let progress = leader.progress.get_mut(&peer)?;
        let last = self.log.last().index;
        let is_due = match progress.state {
            ProgressState::Probe { sent } => sent.is_none(),
            ProgressState::Replicate => {
                progress.next <= last
                    && progress
                        .has_room(self.config.inflight_messages_max, self.config.inflight_bytes_max)
            }
            ProgressState::Snapshot { .. } => false,
        };
        if !is_due || progress.is_reading {
            return None;
        }
        let from = progress.next;
        if self.log.term_at(from.previous()).is_none() {
            #[cfg(feature = "sim")]
            if self.config.planted_bug == Some(crate::sim::PlantedBug::NoSnapshotForWhoIsFarBehind)
            {
                progress.probe(self.log.base().index.next());
                return None;
            }
            self.start_snapshot(peer);
            return None;
        }
        let bytes_max = self.config.append_bytes_max;
        let entries = if from > last {
            Entries::default()
        } else if let Some(entries) = self.log.entries(from, last, bytes_max) {
            entries
        } else {
            progress.is_reading = true;
            self.outbox.push(Effect::ReadEntries { to: peer, from, through: last, bytes_max });
            return None;
        };
        Some(self.make_append(peer, from, entries))
    }

    /// The append of `entries`, which begin at `from`, and the note that it is under way.
    fn make_append(&mut self, peer: NodeId, from: LogIndex, entries: Entries) -> Message {
        let index = from.previous();
        let term = self.log.term_at(index).expect("the caller looked it up");
        let RoleState::Leader(leader) = &mut self.role else {
            unreachable!("only a leader appends")
        };
        let progress = leader.progress.get_mut(&peer).expect("the caller looked it up");
        if let ProgressState::Probe { sent } = &mut progress.state {
            *sent = Some(self.now);
        } else if let Some(last) = entries.last() {
            progress.sent(last.id.index, entries.iter().map(Entry::size).sum(), self.now);
        }
        assert!(progress.next > progress.matched, "what is next is never known to be there");
        progress.told_commit = self.commit;
        Message::Append { previous: EntryId::new(term, index), entries, commit: self.commit }
    }

    pub(super) fn handle_entries_read(&mut self, to: NodeId, entries: Vec<Entry>) {
        let RoleState::Leader(leader) = &mut self.role else { return };
        let Some(progress) = leader.progress.get_mut(&to) else { return };
        progress.is_reading = false;
        // Nothing could be read: the next sign of life of the follower tries again.
        let Some(first) = entries.first().map(|entry| entry.id.index) else { return };
        let is_wanted = first == progress.next
            && !matches!(progress.state, ProgressState::Snapshot { .. })
            && self.log.term_at(first.previous()).is_some()
            && entries.iter().all(|entry| self.log.contains(entry.id));
        if is_wanted {
            let message = self.make_append(to, first, entries.into());
            self.send(to, message, None);
        }
        self.send_appends(to);
    }

    pub(super) fn handle_accepted(&mut self, from: NodeId, store: StoreId, matched: LogIndex) {
        if matched > self.log.last().index {
            let reason = "acknowledges entries that we do not have";
            return self.trace(TraceEvent::Dropped { from, reason });
        }
        let speaks = self.membership().speaks(from, store);
        let RoleState::Leader(leader) = &mut self.role else { return };
        let Some(progress) = leader.progress.get_mut(&from).filter(|_| speaks) else { return };
        #[cfg(feature = "sim")]
        let matched = match self.config.planted_bug {
            Some(crate::sim::PlantedBug::MatchedUpToNext) => matched.max(progress.next.previous()),
            _ => matched,
        };
        let is_news = progress.accepted(matched);
        let agrees = match &progress.state {
            ProgressState::Probe { .. } => true,
            ProgressState::Replicate => false,
            ProgressState::Snapshot { meta, .. } => matched >= meta.last.index,
        };
        if agrees {
            progress.replicate();
        }
        progress.note_round(self.log.last().index, self.now, self.config.election_timeout.end);
        if is_news {
            self.advance_commit();
        }
        self.promote_if_ready(from);
        self.tell_target_to_campaign();
        self.send_appends(from);
    }

    pub(super) fn handle_rejected(&mut self, from: NodeId, rejected: LogIndex, hint: EntryId) {
        let base = self.log.base().index;
        let agree =
            self.log.last_at_most(hint.index.min(rejected.previous()), hint.term).index.next();
        let RoleState::Leader(leader) = &mut self.role else { return };
        let Some(progress) = leader.progress.get_mut(&from) else { return };
        let is_stale = rejected <= progress.matched
            || match progress.state {
                ProgressState::Probe { .. } => rejected != progress.next.previous(),
                ProgressState::Replicate => false,
                ProgressState::Snapshot { .. } => true,
            };
        if is_stale {
            return;
        }
        // If even what precedes our first entry is not there, only a snapshot helps: `next` before the log asks for one.
        let next = if rejected <= base || hint.index < base { base } else { agree };
        progress.probe(next.max(LogIndex(1)));
        self.send_appends(from);
    }

    /// Moves the commit index to what a majority has, if that is of our own term.
    pub(super) fn advance_commit(&mut self) {
        let own = if self.membership().counts(self.config.id, self.config.store) {
            self.own_matched()
        } else {
            LogIndex::ZERO
        };
        let reached = self.reached(own, LogIndex::ZERO, |progress| progress.matched);
        let Some(index) = reached else { return };
        if index > self.commit && self.may_commit_by_counting(index) && !self.must_wait_for_leases()
        {
            self.commit_to(index);
            self.lease_entries_committed();
            self.commit_advanced_as_leader();
        }
        let done = self.commit.min(self.log.durable());
        if let RoleState::Leader(leader) = &mut self.role {
            leader.uncommitted.committed(done);
        }
    }

    /// As leader: what a majority of voters has reached, if `own` is our part, and `nothing` is what is known of a voter of whom nothing is known.
    /// A leader that is no voter itself, because it is about to leave, has no part.
    pub(super) fn reached<T: Ord + Copy>(
        &self,
        own: T,
        nothing: T,
        value: impl Fn(&Progress) -> T,
    ) -> Option<T> {
        let RoleState::Leader(leader) = &self.role else { return None };
        let membership = self.membership();
        #[cfg(feature = "sim")]
        let wrong = self.wrong_members_for_acknowledgements(membership);
        #[cfg(feature = "sim")]
        let membership = wrong.as_ref().unwrap_or(membership);
        membership.reached(|node| {
            if node == self.config.id {
                own
            } else {
                leader.progress.get(&node).map_or(nothing, &value)
            }
        })
    }

    /// How far our own log counts: as far as it is durable.
    fn own_matched(&self) -> LogIndex {
        #[cfg(feature = "sim")]
        if self.has_bug(crate::sim::PlantedBug::LeaderCountsItselfBeforeDisk) {
            return self.log.last().index;
        }
        self.log.sound()
    }

    fn may_commit_by_counting(&self, index: LogIndex) -> bool {
        #[cfg(feature = "sim")]
        if self.has_bug(crate::sim::PlantedBug::CommitOfEarlierTermByCounting) {
            return true;
        }
        self.log.term_at(index) == Some(self.term())
    }

    fn commit_advanced_as_leader(&mut self) {
        self.start_waiting_reads();
        self.settle_membership();
        // Whoever has nothing under way would learn of it only with the next heartbeat.
        self.for_each_peer(Self::tell_commit_if_idle);
    }

    fn tell_commit_if_idle(&mut self, peer: NodeId) {
        let RoleState::Leader(leader) = &mut self.role else { return };
        let Some(progress) = leader.progress.get(&peer) else { return };
        let is_up_to_date = progress.state == ProgressState::Replicate && progress.is_idle();
        if is_up_to_date && progress.told_commit < self.commit {
            self.send_heartbeat(peer);
        }
    }

    pub(super) fn heartbeat_is_due(&mut self) {
        if !self.has_quorum_contact(self.membership()) && !self.take_back_change() {
            let term = self.term();
            self.trace(TraceEvent::QuorumLost { term });
            return self.become_follower(term, None);
        }
        if self.is_repair_overdue() {
            let term = self.term();
            self.trace(TraceEvent::RepairOverdue { term });
            return self.become_follower(term, None);
        }
        if self.is_held_up_by_own_disk() {
            let term = self.term();
            self.trace(TraceEvent::DiskStalled { term });
            return self.become_follower(term, None);
        }
        let term = self.term();
        self.trace(TraceEvent::HeartbeatsSent { term });
        self.give_up_transfer_if_late();
        self.settle_membership();
        let RoleState::Leader(leader) = &mut self.role else { return };
        leader.heartbeat_due = self.now + self.config.heartbeat;
        if self.ask_for_quiet() {
            return;
        }
        self.number_heartbeat();
        // Whoever waits for the round under way should not wait longer because others do not.
        let can_wait = matches!(&self.role, RoleState::Leader(leader) if leader.reads.is_empty());
        self.for_each_peer(|node, peer| node.send_heartbeat_in_time(peer, can_wait));
    }

    pub(super) fn send_heartbeat(&mut self, peer: NodeId) {
        self.send_heartbeat_in_time(peer, false);
    }

    fn send_heartbeat_in_time(&mut self, peer: NodeId, can_wait: bool) {
        let RoleState::Leader(leader) = &mut self.role else { return };
        let Some(progress) = leader.progress.get_mut(&peer) else { return };
        let commit = self.commit.min(progress.matched);
        #[cfg(feature = "sim")]
        let commit = match self.config.planted_bug {
            Some(crate::sim::PlantedBug::HeartbeatCommitsBeyondMatched) => self.commit,
            _ => commit,
        };
        progress.told_commit = progress.told_commit.max(commit);
        let round = leader.reads.round();
        self.send_in_time(peer, Message::Heartbeat { commit, round }, can_wait);
    }

    /// Check-quorum (thesis §6.2): whether a majority of these voters was heard from within the longest election timeout. One that is not
    /// bound to its store yet does not count, however often it is heard from. A group that has woken counts from then on.
    pub(super) fn has_quorum_contact(&self, membership: &Membership) -> bool {
        let RoleState::Leader(leader) = &self.role else { return false };
        let contact = |progress: &Progress| Some(progress.contact.max(leader.woken_at));
        self.hears_majority(membership, Some(self.now), contact)
    }

    /// Whether a majority of these voters was heard from, and could acknowledge what we send; we too, only if our own log is intact.
    pub(super) fn could_commit(&self, membership: &Membership) -> bool {
        let own = (!self.log.is_damaged()).then_some(self.now);
        let contact = |progress: &Progress| (!progress.is_damaged).then_some(progress.contact);
        self.hears_majority(membership, own, contact)
    }

    /// As leader: whether a majority of these voters was heard from, if `own` is our part and `contact` a follower's.
    fn hears_majority(
        &self,
        membership: &Membership,
        own: Option<Duration>,
        contact: impl Fn(&Progress) -> Option<Duration>,
    ) -> bool {
        let RoleState::Leader(leader) = &self.role else { return false };
        let contact = |node| {
            let follower = leader.progress.get(&node).and_then(&contact);
            let heard = if node == self.config.id { own } else { follower };
            heard.filter(|_| membership.store_of(node).is_some())
        };
        membership
            .reached(contact)
            .flatten()
            .is_some_and(|contact| self.now < contact + self.config.election_timeout.end)
    }

    /// Something was heard from `from` in our term.
    pub(super) fn note_contact(&mut self, from: NodeId, store: StoreId) {
        let speaks = self.membership().speaks(from, store);
        let RoleState::Leader(leader) = &mut self.role else { return };
        if let Some(progress) = leader.progress.get_mut(&from).filter(|_| speaks) {
            progress.contact = self.now;
        } else {
            self.note_unbound(from, store);
        }
    }

    pub(super) fn handle_heartbeat_reply(
        &mut self,
        from: NodeId,
        store: StoreId,
        round: u64,
        is_damaged: bool,
    ) {
        let speaks = self.membership().speaks(from, store);
        let retry_after = 2 * self.config.heartbeat;
        let RoleState::Leader(leader) = &mut self.role else { return };
        let begun = leader.reads.round();
        #[cfg(feature = "sim")]
        let round = if self.config.planted_bug == Some(crate::sim::PlantedBug::AnyReplyConfirmsRead)
        {
            begun
        } else {
            round
        };
        let Some(progress) = leader.progress.get_mut(&from) else { return };
        if speaks {
            progress.is_damaged = is_damaged;
        }
        if speaks && round <= begun {
            progress.round = progress.round.max(round);
            self.lease_round_answered(from, round);
        }
        let RoleState::Leader(leader) = &mut self.role else { return };
        let Some(progress) = leader.progress.get_mut(&from) else { return };
        let limit = self.now.saturating_sub(retry_after);
        match &mut progress.state {
            // It lives, and yet has not answered: the probe or its answer was lost.
            ProgressState::Probe { sent } => {
                if sent.is_some_and(|sent| sent <= limit) {
                    *sent = None;
                }
            }
            ProgressState::Replicate => {
                if progress.is_overdue(limit) {
                    progress.probe(progress.matched.next());
                }
            }
            ProgressState::Snapshot { .. } => self.retry_snapshot(from),
        }
        self.confirm_reads();
        self.send_appends(from);
    }

    // The follower's side.

    pub(super) fn handle_append(
        &mut self,
        from: NodeId,
        previous: EntryId,
        entries: Entries,
        leader_commit: LogIndex,
    ) {
        if !is_consistent(previous, &entries, self.term()) {
            return self.trace(TraceEvent::Dropped { from, reason: "entries out of order" });
        }
        if !self.follow(from) {
            return;
        }
        if self.log.is_damaged() && !self.acknowledges_damaged() {
            // To acknowledge would be to say that everything before is intact here. Repair first: see `repair.rs`.
            return;
        }
        let (previous, entries) = self.skip_committed(previous, entries);
        if !self.log.contains(previous) {
            let at = previous.index.min(self.log.last().index);
            let hint = self.log.last_at_most(at, previous.term);
            let rejected = previous.index;
            return self.send(from, Message::AppendRejected { rejected, hint }, None);
        }
        if entries.iter().any(|entry| self.is_other_under_same_id(entry)) {
            return self.stop(FatalError::TwoLeaders(self.term()));
        }
        let matched = entries.last().map_or(previous.index, |entry| entry.id.index);
        if self.append_missing(from, previous.index, entries) {
            self.commit_to(leader_commit.min(matched));
            let after = self.token_for(matched);
            #[cfg(feature = "sim")]
            if self.has_bug(crate::sim::PlantedBug::AppendAcknowledgedBeforeDisk) {
                return self.send_unguarded(from, Message::AppendAccepted { matched }, None);
            }
            self.send(from, Message::AppendAccepted { matched }, after);
        }
    }

    /// Never, but for a planted bug.
    fn acknowledges_damaged(&self) -> bool {
        #[cfg(feature = "sim")]
        return self.has_bug(crate::sim::PlantedBug::AcknowledgesDamaged);
        #[cfg(not(feature = "sim"))]
        false
    }

    /// What lies at or before our commit index is the same in every leader's log: the message is as good without it.
    fn skip_committed(&self, previous: EntryId, entries: Entries) -> (EntryId, Entries) {
        if previous.index >= self.commit {
            return (previous, entries);
        }
        let term = self.log.term_at(self.commit).expect("what is committed is in the log");
        let behind = entries.iter().filter(|entry| entry.id.index > self.commit).cloned().collect();
        (EntryId::new(term, self.commit), behind)
    }

    /// Appends what is not there yet, after removing what contradicts it. `false` if that would remove what is committed.
    fn append_missing(&mut self, from: NodeId, previous: LogIndex, entries: Entries) -> bool {
        let there = self.count_of_present(&entries);
        let first_new = previous.plus(there as u64).next();
        if first_new <= self.log.last().index && self.is_conflict(&entries[there..]) {
            if first_new <= self.commit {
                // Leader Completeness rules this out as long as no disk lies.
                let reason = "contradicts what is committed here";
                self.trace(TraceEvent::Dropped { from, reason });
                return false;
            }
            self.truncate(first_new);
        }
        if there < entries.len() {
            let count = entries.len() - there;
            for entry in &entries[there..] {
                self.append_entry(entry.clone());
            }
            if there == 0 {
                self.log.came_in(&entries);
            }
            let last = self.log.last();
            self.trace(TraceEvent::Appended { last, count });
        }
        true
    }

    /// Whether other members stand in our log under the id of this entry: two leaders of its term have made it. Commands are not
    /// compared, which would take reading them; but the first entry of a cluster is of members.
    fn is_other_under_same_id(&self, entry: &Entry) -> bool {
        let Payload::Membership(theirs) = &entry.payload else { return false };
        self.log.contains(entry.id)
            && self.membership.of_entry(entry.id.index).is_some_and(|ours| ours != theirs)
    }

    /// How many of the leader's entries are in our log already.
    fn count_of_present(&self, entries: &[Entry]) -> usize {
        #[cfg(feature = "sim")]
        if self.has_bug(crate::sim::PlantedBug::TruncateOnAnyConflictMessage) {
            return 0;
        }
        entries.iter().take_while(|entry| self.log.contains(entry.id)).count()
    }

    /// Whether our log goes on otherwise than with `missing`. Without missing entries there is nothing to contradict.
    fn is_conflict(&self, missing: &[Entry]) -> bool {
        #[cfg(feature = "sim")]
        if self.has_bug(crate::sim::PlantedBug::TruncateOnAnyConflictMessage) {
            return true;
        }
        !missing.is_empty()
    }

    /// Removes entries that contradict the leader's, and the members that came with them.
    pub(super) fn truncate(&mut self, from: LogIndex) {
        assert!(from > self.commit, "what is committed is never removed");
        self.log.truncate(from);
        #[cfg(feature = "sim")]
        let stale = self.membership().clone();
        let is_changed = self.membership.truncate(from);
        #[cfg(feature = "sim")]
        if self.has_bug(crate::sim::PlantedBug::MembershipNotRolledBack) && is_changed {
            self.membership.keep(from.previous(), stale);
        }
        if is_changed {
            let membership = self.membership().clone();
            self.outbox.push(Effect::MembershipChanged(membership));
        }
        let batch = self.batch();
        batch.truncate_from = Some(from);
        debug_assert!(self.appended_from.is_none(), "a step truncates before it appends");
        self.trace(TraceEvent::Truncated { from });
    }

    /// The write after which the entry at `index` is durable; this step's own, if it is in it.
    pub(super) fn token_for(&self, index: LogIndex) -> Option<crate::effects::IoToken> {
        let is_appended = self.appended_from.is_some_and(|from| from <= index);
        let in_this_step = self.batch.as_ref().filter(|batch| is_appended || batch.restart_log);
        let entry = match in_this_step {
            Some(batch) => Some(batch.token),
            None => self.log.token_for(index),
        };
        // Behind a snapshot that is not recorded yet nothing is durable, the place of its last entry included.
        entry.max(self.restoring.as_ref().map(|&(token, _)| token))
    }

    pub(super) fn commit_to(&mut self, index: LogIndex) {
        if index > self.commit {
            assert!(index <= self.log.last().index, "what is committed is in the log");
            self.commit = index;
            self.trace(TraceEvent::Committed { index });
            self.note_removal();
            self.note_binding();
        }
    }

    /// Answered as soon as it was wanted: `can_wait` is the heartbeat's own.
    pub(super) fn handle_heartbeat(
        &mut self,
        from: NodeId,
        commit: LogIndex,
        round: u64,
        can_wait: bool,
    ) {
        if !self.follow(from) {
            return;
        }
        #[cfg(feature = "sim")]
        let commit = match self.config.planted_bug {
            Some(crate::sim::PlantedBug::HeartbeatCommitsBeyondMatched) => {
                commit.min(self.log.last().index)
            }
            _ => commit,
        };
        if commit <= self.log.last().index {
            // What is damaged may have to give way to what the leader has; what is committed may not.
            self.commit_to(self.log.before_damage(commit));
        } else {
            let reason = "commits what we acknowledged and do not have: a disk has lied";
            self.trace(TraceEvent::Dropped { from, reason });
        }
        self.answer_heartbeat_in_time(from, round, can_wait);
    }

    pub(super) fn answer_heartbeat(&mut self, to: NodeId, round: u64) {
        self.answer_heartbeat_in_time(to, round, false);
    }

    pub(super) fn answer_heartbeat_in_time(&mut self, to: NodeId, round: u64, can_wait: bool) {
        let is_damaged = self.log.is_damaged();
        self.send_in_time(to, Message::HeartbeatReply { round, is_damaged }, can_wait);
    }
}

/// Whether a peer's entries are consecutive, and their terms rise from the preceding entry's to at most `term`.
pub(super) fn is_consistent(previous: EntryId, entries: &[Entry], term: Term) -> bool {
    let mut before = previous;
    previous.term <= term
        && entries.iter().all(|entry| {
            let follows = Some(entry.id.index.0) == before.index.0.checked_add(1)
                && entry.id.term >= before.term
                && entry.id.term <= term;
            before = entry.id;
            follows
        })
}
