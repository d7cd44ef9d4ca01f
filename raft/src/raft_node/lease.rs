//! Leases: how a leader may answer reads without asking anybody.
//!
//! A read confirmed by a round of heartbeats costs a round trip, because the leader has to learn that nobody had replaced it when the
//! read arrived. A lease is that knowledge in advance, for some time. It is the one place in Raft where *safety* rests on clocks, so it is off
//! by default, and what it rests on is written down here.
//!
//! **The clocks.** Nothing is assumed about what clocks show, only about how fast they run: while one member's clock measures
//! a second, no other's measures more than `1 + drift` seconds ([`ClockBound`]). Clocks are monotonic and run on while a machine sleeps; a
//! process that stands still does no harm, because the time is sampled after an input was taken from its queue. A virtual
//! machine whose clock is stopped and goes on later without having noticed breaks the bound.
//!
//! # Lease by rounds ([`ReadPolicy::Lease`])
//!
//! Rounds of heartbeats are numbered, and the leader notes when it **sent** each. A member that answers a round has heard its leader after
//! that moment, and grants no vote for one smallest election timeout `E` from then on, on its own clock (`election`); after a
//! restart it grants none for `E` either, since it has forgotten whom it heard. So if a majority answered rounds sent at `s` or
//! later, any other leader's election needs one of them, and none can be elected while the leader's clock shows less than
//! `s + (E − margin) / (1 + drift)`. A vote counts as an answer to a round that was sent when the campaign began, because whoever has granted
//! it refuses others for `E` too, if the policy is one of the leases.
//!
//! - Counted from the sending, never from the arrival of the answers (case 27 in `docs/testing.md`).
//! - The majority is that of the members in force at the moment of the read: nothing outlives a change of members.
//! - A transfer of leadership lets a member campaign at once and others vote at once: a leader that has offered one serves no
//!   such read for the rest of its term (case 26).
//! - All of it is part of the leader's state and ends with its role.
//!
//! # LeaseGuard: the log is the lease ([`ReadPolicy::LeaseGuard`])
//!
//! After Davis et al. (SIGMOD 2026, arXiv 2512.15659). Nothing is asked of elections here. Instead **a new leader commits nothing until the
//! last entry of earlier terms in its log is older than the lease**, and a leader answers reads while its newest committed
//! entry of its own term is younger.
//!
//! Say a leader of term `t` answers because its entry `e` is young, and look at any leader of a later term. `e` is committed, so it is in
//! the later leader's log (Leader Completeness), at or before the last entry `p` of earlier terms. A leader ages `e` from before it sent
//! it; its successor ages `p` from after it got it, or from its restart if that was later: each on its own clock, the one from the
//! earliest moment possible and the other from the latest. The successor waits `(1 + drift) · lease + margin`. So when it
//! commits its first entry, `e` is older than the lease on the clock of the leader of `t`, which no longer answers; and every
//! write acknowledged before that was of term `t` or earlier, and is covered by the read's index. The same holds through
//! restarts, transfers of leadership and changes of members, because Leader Completeness does.
//!
//! - Writes cost nothing more. After a failover they are taken and replicated at once and committed when the wait is over. The default
//!   lease is `(E − margin) / (1 + drift)`: a candidate that has heard nothing for an election timeout has waited it out before it is
//!   elected, so only a transfer or a restart leaves something to wait for. A longer lease trades writes after a failover for fewer
//!   renewals.
//! - **An idle leader** is kept young by reads alone: one that finds the lease half over appends an entry without a command, unless an entry is on
//!   its way already. Without reads nothing is written. A read that finds the lease over goes by a round.
//! - A leader whose disk or majority is gone commits nothing and so loses its lease, however well its heartbeats do.
//!
//! **Reads while a new leader waits.** The paper lets it answer from its predecessor's lease. That needs an upper bound on the age of
//! somebody else's entry, hence clocks that agree on the time. We do not assume those. What the new leader can prove instead, with bounded drift
//! alone, is the lease by rounds, which begins with the votes that elected it: nobody has replaced *it*. What it does not know is
//! which entries of earlier terms were committed: those between its commit index and its own first entry are **in limbo**
//! ([`RaftNode::limbo`]). If there are none, reads go on at once. If there are some, a read waits, unless its caller says that
//! none of their commands could change its answer ([`RaftNode::index_beside_limbo`]).
//!
//! # What all members must share
//!
//! The policy, its numbers and the smallest election timeout must be the same on all members: a member without the guard commits at once
//! after its election. Changing them goes in two steps: all members to [`ReadPolicy::Honour`], which waits as LeaseGuard does and
//! confirms its own reads by rounds, then all to the new policy.

use std::collections::{BTreeMap, VecDeque};
use std::ops::RangeInclusive;
use std::time::Duration;

use crate::message::ReadId;
use crate::trace::TraceEvent;
use crate::types::{LogIndex, NodeId, Payload};

use super::{RaftNode, RoleState};

/// How a leader makes sure that it still leads when it answers a linearizable read. The same on all members of a cluster.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ReadPolicy {
    /// By a round of heartbeats that begins after the read arrived. No assumption about time.
    #[default]
    ReadIndex,
    /// By a lease that a majority's answers to heartbeats renew; by a round when there is none.
    Lease(ClockBound),
    /// By the age of its newest committed entry; by a round when it is too old.
    LeaseGuard(LeaseGuard),
    /// By a round, as [`Self::ReadIndex`], while others may have leases of this kind: the step between two policies.
    Honour(LeaseGuard),
}

/// How far the members' clocks may be apart in speed, and what to leave for everything else.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClockBound {
    /// While one member's clock measures a second, no other's measures more than a second and so many microseconds.
    pub drift_ppm: u32,
    /// What is taken off each lease besides: for a clock's granularity and the operator's peace of mind.
    pub margin: Duration,
}

/// The numbers of a LeaseGuard.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LeaseGuard {
    /// How long a committed entry is a lease; `None` for as long as an election takes anyway (see the head of the module).
    pub lease: Option<Duration>,
    /// What is assumed of the clocks.
    pub clock: ClockBound,
}

impl Default for ClockBound {
    /// One per cent, some hundred times what a quartz is off, and five milliseconds.
    fn default() -> Self {
        Self { drift_ppm: 10_000, margin: Duration::from_millis(5) }
    }
}

const MILLION: u128 = 1_000_000;

impl ClockBound {
    /// What the fastest clock may show beyond `length` on ours.
    fn lengthened(self, length: Duration) -> Duration {
        let nanos = length.as_nanos() * (MILLION + u128::from(self.drift_ppm));
        duration(nanos.div_ceil(MILLION)).saturating_add(self.margin)
    }

    /// A time on our clock within which no other shows `length`.
    fn shortened(self, length: Duration) -> Duration {
        let nanos = length.saturating_sub(self.margin).as_nanos() * MILLION;
        duration(nanos / (MILLION + u128::from(self.drift_ppm)))
    }
}

fn duration(nanos: u128) -> Duration {
    Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
}

impl ReadPolicy {
    /// Whether some leader may count on votes being refused for an election timeout after one was granted.
    fn makes_votes_binding(self) -> bool {
        self != Self::ReadIndex
    }

    fn guard(self) -> Option<LeaseGuard> {
        match self {
            Self::LeaseGuard(guard) | Self::Honour(guard) => Some(guard),
            Self::ReadIndex | Self::Lease(_) => None,
        }
    }

    fn clock_of_rounds(self) -> Option<ClockBound> {
        match self {
            Self::Lease(clock) => Some(clock),
            Self::LeaseGuard(guard) => Some(guard.clock),
            Self::ReadIndex | Self::Honour(_) => None,
        }
    }

    /// Whether it can be kept with this smallest election timeout.
    pub(super) fn is_possible(self, election_timeout: Duration) -> bool {
        let clock = self.guard().map(|guard| guard.clock).or(self.clock_of_rounds());
        let lease = self.guard().and_then(|guard| guard.lease);
        clock.is_none_or(|clock| clock.shortened(election_timeout) > Duration::ZERO)
            && lease.is_none_or(|lease| lease > Duration::ZERO)
    }
}

/// Rounds whose time is remembered. There is one a heartbeat, and one a round of reads; an answer to an older one renews nothing.
const ROUNDS_MAX: usize = 32;
/// Moments at which entries were made that are remembered until they are committed.
const CREATIONS_MAX: usize = 64;

/// A leader's leases.
#[derive(Clone, Debug, Default)]
pub(super) struct Lease {
    /// When the latest rounds were sent.
    rounds: VecDeque<(u64, Duration)>,
    /// When the latest round was sent that a member has answered.
    heard: BTreeMap<NodeId, Duration>,
    /// Nothing is committed before this time.
    wait_until: Option<Duration>,
    /// Uncommitted entries of this term: the last of a group, and when its first was made.
    created: VecDeque<(LogIndex, Duration)>,
    /// When the newest committed entry of this term was made.
    committed: Option<Duration>,
}

impl Lease {
    fn began(&mut self, round: u64, now: Duration) {
        if self.rounds.len() == ROUNDS_MAX {
            self.rounds.pop_front();
        }
        self.rounds.push_back((round, now));
    }

    fn heard(&mut self, from: NodeId, sent: Duration) {
        let heard = self.heard.entry(from).or_insert(sent);
        *heard = sent.max(*heard);
    }

    fn sent(&self, round: u64) -> Option<Duration> {
        self.rounds.iter().find(|&&(number, _)| number == round).map(|&(_, sent)| sent)
    }

    fn created(&mut self, index: LogIndex, now: Duration) {
        let is_full = self.created.len() >= CREATIONS_MAX;
        match self.created.back_mut() {
            // The earlier of two times only makes the lease shorter.
            Some((last, at)) if is_full || *at == now => *last = index,
            _ => self.created.push_back((index, now)),
        }
    }

    fn committed(&mut self, commit: LogIndex) {
        while let Some((_, at)) = self.created.pop_front_if(|(last, _)| *last <= commit) {
            self.committed = Some(at);
        }
    }
}

impl RaftNode {
    // Granting.

    /// Our vote is an answer to a leader's first round: nobody else gets one for an election timeout.
    pub(super) fn vote_is_binding(&mut self) {
        if !self.config.reads.makes_votes_binding() {
            return;
        }
        if matches!(self.role, RoleState::PreCandidate(_)) {
            // Answers to a pre-vote of ours may be on their way, and must not make us campaign against whom we have elected.
            self.become_follower(self.term(), None);
        }
        self.leader_contact = self.now;
    }

    // By rounds.

    /// A new leader's leases. `granted` are those whose votes elected it, in the campaign that began at `campaign`. To be called
    /// before the first entry of the term is appended.
    pub(super) fn new_lease(&self, granted: &[NodeId], campaign: Duration) -> Lease {
        let mut lease = Lease::default();
        if self.config.reads.clock_of_rounds().is_some() {
            lease.heard = granted.iter().map(|&node| (node, campaign)).collect();
        }
        lease.wait_until = self.wait_for_earlier_leases();
        lease
    }

    /// A round has been given its number and is being sent.
    pub(super) fn lease_round_begins(&mut self) {
        let (now, is_on) = (self.now, self.config.reads.clock_of_rounds().is_some());
        if let RoleState::Leader(leader) = &mut self.role
            && is_on
        {
            leader.lease.began(leader.reads.round(), now);
        }
    }

    /// Each heartbeat is a round of its own, if somebody is to live on it.
    pub(super) fn number_heartbeat(&mut self) {
        let is_on = self.config.reads.clock_of_rounds().is_some();
        if let RoleState::Leader(leader) = &mut self.role
            && is_on
        {
            leader.reads.begin();
            self.lease_round_begins();
        }
    }

    /// A member whose answers count has answered this round.
    pub(super) fn lease_round_answered(&mut self, from: NodeId, round: u64) {
        let RoleState::Leader(leader) = &mut self.role else { return };
        let Some(sent) = leader.lease.sent(round) else { return };
        #[cfg(feature = "sim")]
        if self.config.planted_bug == Some(crate::sim::PlantedBug::LeaseFromArrival) {
            return leader.lease.heard(from, self.now);
        }
        leader.lease.heard(from, sent);
    }

    /// Whether a majority of the members in force has answered rounds that are young enough at `now`.
    fn is_lease_by_rounds_valid(&self, now: Duration) -> bool {
        let RoleState::Leader(leader) = &self.role else { return false };
        let Some(clock) = self.config.reads.clock_of_rounds() else { return false };
        if leader.has_sent_timeout_now && !self.is_lease_kept_after_transfer() {
            return false;
        }
        let length = self.length_by_rounds(clock);
        let is_counted = self.membership().counts(self.config.id, self.config.store);
        let heard = self.membership().reached(|node| match leader.lease.heard.get(&node) {
            _ if node == self.config.id => is_counted.then_some(now),
            heard => heard.copied(),
        });
        heard.flatten().is_some_and(|sent| now < sent + length)
    }

    #[cfg(not(feature = "sim"))]
    fn is_lease_kept_after_transfer(&self) -> bool {
        false
    }

    #[cfg(feature = "sim")]
    fn is_lease_kept_after_transfer(&self) -> bool {
        self.has_bug(crate::sim::PlantedBug::LeaseKeptAfterTransfer)
    }

    /// How long a round is a lease, from its sending.
    fn length_by_rounds(&self, clock: ClockBound) -> Duration {
        let election_timeout = self.config.election_timeout.start;
        #[cfg(feature = "sim")]
        if self.has_bug(crate::sim::PlantedBug::LeaseIgnoresDrift) {
            return election_timeout;
        }
        clock.shortened(election_timeout)
    }

    // By the log.

    /// How long an entry is a lease.
    fn guarded_lease(&self, guard: LeaseGuard) -> Duration {
        guard.lease.unwrap_or_else(|| guard.clock.shortened(self.config.election_timeout.start))
    }

    /// Until when a new leader commits nothing, so that no earlier one still answers reads.
    fn wait_for_earlier_leases(&self) -> Option<Duration> {
        let guard = self.config.reads.guard()?;
        #[cfg(feature = "sim")]
        if self.has_bug(crate::sim::PlantedBug::NewLeaderDoesNotWait) {
            return None;
        }
        if self.log.last().index == LogIndex::ZERO {
            return None;
        }
        let until = self.last_append + guard.clock.lengthened(self.guarded_lease(guard));
        (until > self.now).then_some(until)
    }

    /// When a leader that waits for earlier leases may commit.
    pub(super) fn lease_deadline(&self) -> Option<Duration> {
        match &self.role {
            RoleState::Leader(leader) => leader.lease.wait_until,
            RoleState::Follower { .. } | RoleState::PreCandidate(_) | RoleState::Candidate(_) => {
                None
            }
        }
    }

    /// Whether an earlier leader may still answer reads, so that nothing may be committed yet.
    pub(super) fn must_wait_for_leases(&mut self) -> bool {
        let now = self.now;
        let RoleState::Leader(leader) = &mut self.role else { return false };
        leader.lease.wait_until.take_if(|until| *until <= now);
        leader.lease.wait_until.is_some()
    }

    /// The leader has put an entry into its log.
    pub(super) fn lease_entry_created(&mut self, index: LogIndex) {
        let (now, is_on) = (self.now, self.config.reads.guard().is_some());
        if let RoleState::Leader(leader) = &mut self.role
            && is_on
        {
            leader.lease.created(index, now);
        }
    }

    /// The leader's commit index has moved.
    pub(super) fn lease_entries_committed(&mut self) {
        let commit = self.commit;
        if let RoleState::Leader(leader) = &mut self.role {
            assert!(
                leader.lease.wait_until.is_none(),
                "nothing is committed before earlier leases end"
            );
            leader.lease.committed(commit);
        }
    }

    /// The age of the lease that the log is, while it lasts.
    fn age_of_guard(&self, guard: LeaseGuard) -> Option<Duration> {
        let RoleState::Leader(leader) = &self.role else { return None };
        let age = self.now.saturating_sub(leader.lease.committed?);
        (age < self.guarded_lease(guard)).then_some(age)
    }

    /// A read has been answered by the log's lease, or has found it over: at half of its time a new entry is due.
    pub(super) fn renew_guard(&mut self) {
        let ReadPolicy::LeaseGuard(guard) = self.config.reads else { return };
        let half = self.guarded_lease(guard) / 2;
        let is_young = self.age_of_guard(guard).is_some_and(|age| age < half);
        let RoleState::Leader(leader) = &self.role else { return };
        // An entry under way is a renewal; behind one that gets nowhere another would not either.
        if is_young || !leader.lease.created.is_empty() || leader.transfer.is_some() {
            return;
        }
        self.append_as_leader(Payload::Noop, None);
        self.send_appends_to_all();
    }

    // Reads.

    /// Whether a read that may be answered at our commit index needs no round.
    pub(super) fn is_lease_valid(&mut self, id: ReadId) -> bool {
        let is_valid = match self.config.reads {
            ReadPolicy::ReadIndex | ReadPolicy::Honour(_) => return false,
            ReadPolicy::Lease(_) => self.is_lease_by_rounds_valid(self.now),
            // Before the first commit of the term there is no entry to live on.
            ReadPolicy::LeaseGuard(_) if self.limbo_end().is_some() => {
                self.is_lease_by_rounds_valid(self.now)
            }
            ReadPolicy::LeaseGuard(guard) => self.age_of_guard(guard).is_some(),
        };
        let index = self.commit;
        self.trace(if is_valid {
            TraceEvent::ReadByLease { id, index }
        } else {
            TraceEvent::LeaseOver { id }
        });
        is_valid
    }

    /// Whether everything that earlier leaders can have committed is known to be, so that reads need not wait for the first
    /// commit of the term.
    pub(super) fn is_limbo_empty(&self) -> bool {
        // A blank cluster has nothing to be read.
        self.config.reads.guard().is_some()
            && self.commit > LogIndex::ZERO
            && self.limbo_end().is_some_and(|end| self.commit >= end)
    }

    /// The last entry of earlier terms, while no entry of our own is committed.
    fn limbo_end(&self) -> Option<LogIndex> {
        self.term_start().filter(|&start| self.commit < start).map(LogIndex::previous)
    }

    /// The entries of earlier terms of which a new leader does not know whether they were committed, and so acknowledged. `None` if
    /// there are none, or the node does not lead.
    #[must_use]
    pub fn limbo(&self) -> Option<RangeInclusive<LogIndex>> {
        let end = self.limbo_end()?;
        (self.commit < end).then(|| self.commit.next()..=end)
    }

    /// Where a read may be served at `now` that no command in [`Self::limbo`] touches, without waiting until they are out of it. `None`
    /// if there is no limbo, or this node cannot prove that it still leads.
    #[must_use]
    pub fn index_beside_limbo(&self, now: Duration) -> Option<LogIndex> {
        let is_proven = self.commit > LogIndex::ZERO
            && self.limbo().is_some()
            && self.is_lease_by_rounds_valid(self.now.max(now));
        is_proven.then_some(self.commit)
    }
}
