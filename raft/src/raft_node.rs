//! One Raft node as a pure state machine: an event and the time go in, effects come out.
//!
//! Nothing here waits, reads a clock, draws from a global random source or touches a disk or a socket. [`RaftNode::step`] is a
//! dispatch table; what each message does is in the child modules, which are named as the paper's chapters:
//!
//! - `config`: who the node is, and its limits
//! - `election`: pre-vote, votes, winning (Raft §5.2, §5.4.1; thesis §9.6)
//! - `replication`: appending, rejecting, the commit rule (Raft §5.3, §5.4.2)
//! - `own_disk`: a leader that is held up by its own disk gives way
//! - `read`: linearizable reads through rounds of heartbeats (thesis §6.4)
//! - `lease`: reads without a round, on a bound of the clocks' speed
//! - `snapshot`: building, sending, installing, compacting (Raft §7)
//! - `membership`: who the members are, how they change, and which data directory each is bound to
//! - `transfer`: handing leadership over (thesis §3.10)
//! - `quiet`: an idle group sends nothing
//! - `repair`: getting entries back that the disk has lost (Alagappan et al., FAST 2018)
//!
//! The methods come in four kinds: getters; the input [`RaftNode::step`], which takes commands and messages alike as an [`Event`];
//! [`RaftNode::next_deadline`], which says when the node wants `Event::Timeout`; and outputs, which are the [`Effects`].
//!
//! **The order of things in one step.** Changes to the term, the vote and the log gather in one [`PersistBatch`], so that they become
//! durable together or not at all. At the end of the step the batch is given out first, then the messages, each with the
//! token of the write it has to wait for.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;
use std::time::Duration;

use bytes::Bytes;
use lattice_trace::Cause;
use rand_chacha::ChaCha8Rng;
use rand_core::{Rng, SeedableRng};
use thiserror::Error;

use crate::effects::{Effect, Effects, FatalError, IoToken, OrderError, PersistBatch, ProposalId};
use crate::entries::Entries;
use crate::log::Log;
use crate::membership::{ConfChange, Membership};
use crate::message::{Envelope, Message, ReadId};
use crate::progress::Progress;
use crate::storage::RecoveredState;
use crate::trace::TraceEvent;
use crate::types::{
    Entry, EntryId, HardState, LogIndex, NodeEpoch, NodeId, Payload, SessionId, SnapshotMeta,
    StoreId, Term,
};

mod config;
#[cfg(feature = "sim")]
mod digest;
mod election;
mod lease;
mod membership;
mod own_disk;
mod quiet;
mod read;
mod repair;
mod replication;
mod snapshot;
mod transfer;

pub use config::Config;
use election::Ballot;
use lease::Lease;
pub use lease::{ClockBound, LeaseGuard, ReadPolicy};
use membership::MembershipHistory;
use own_disk::OwnDisk;
use quiet::Quiet;
pub use quiet::QuietStanding;
use read::ReadQueue;
use repair::{Fetched, Repair};
use replication::Uncommitted;
use snapshot::Compaction;
use transfer::Transfer;

/// Terms by which a node that is not known as a member may be ahead of us: one that was added while we were away, in as many elections.
const STRANGERS_LEAP_MAX: u64 = 1 << 20;

/// What a node is at the moment (Raft §5.1).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    /// Follows a leader, or waits for one.
    #[default]
    Follower,
    /// Asks whether it could win an election.
    PreCandidate,
    /// Asks for votes.
    Candidate,
    /// Leads.
    Leader,
}

/// Why a node cannot run.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum RecoverError {
    /// The configuration contradicts itself.
    #[error("configuration: {0}")]
    Config(&'static str),
    /// What was found on disk contradicts itself.
    #[error("the log contradicts itself: {0}")]
    Corrupt(String),
    /// The log binds this node's id to another data directory.
    #[error(
        "{node} is bound to data directory {bound}, this one is {store}: it belongs to another node, or is a copy"
    )]
    WrongStore {
        /// This node.
        node: NodeId,
        /// The directory the cluster knows.
        bound: StoreId,
        /// The directory the node was started on.
        store: StoreId,
    },
}

/// A command on its way into the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proposal {
    /// The caller's name for it.
    pub id: ProposalId,
    /// Exactly-once identity, if any.
    pub session: Option<SessionId>,
    /// The command.
    pub command: Bytes,
}

/// What happens to a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// The deadline of [`RaftNode::next_deadline`] has come.
    Timeout,
    /// A message arrived.
    Receive(Envelope),
    /// Clients want these commands in the log, in this order.
    Propose(Vec<Proposal>),
    /// A client wants a linearizable read.
    ReadIndex(ReadId),
    /// An operator wants other members. Answered with `Effect::Ordered` or `Effect::OrderFailed`.
    ChangeMembership(ProposalId, ConfChange),
    /// An operator wants another leader: this voter, or whichever is most up to date. Answered with `Effect::OrderDone` or
    /// `Effect::OrderFailed`.
    TransferLeader(ProposalId, Option<NodeId>),
    /// The write with this token, and all before it, are durable.
    Persisted(IoToken),
    /// A write failed. The node stops.
    PersistFailed(String),
    /// Entries up to here are applied.
    Applied(LogIndex),
    /// Entries that `Effect::ReadEntries` asked for; empty if they could not be read.
    EntriesRead {
        /// For whom.
        to: NodeId,
        /// The entries.
        entries: Vec<Entry>,
    },
    /// Entries that were durable cannot be read any more.
    EntriesDamaged {
        /// The first of them.
        first: LogIndex,
        /// The last of them.
        last: LogIndex,
    },
    /// Entries that `Effect::ReadForRepair` asked for; empty if they could not be read.
    RepairRead {
        /// For whom.
        to: NodeId,
        /// The entries.
        entries: Vec<Entry>,
    },
    /// A snapshot of our own state machine is durable.
    SnapshotBuilt(SnapshotMeta),
    /// A piece that `Effect::ReadSnapshot` asked for; `None` if it could not be read.
    SnapshotRead {
        /// For whom.
        to: NodeId,
        /// Which snapshot.
        meta: SnapshotMeta,
        /// Where the piece begins.
        offset: u64,
        /// The piece.
        data: Option<Bytes>,
    },
    /// A piece that `Effect::WriteSnapshot` gave out was written, or refused.
    SnapshotWritten {
        /// Which snapshot.
        meta: SnapshotMeta,
        /// The next byte wanted.
        offset: u64,
        /// The snapshot is whole, verified and durable.
        is_complete: bool,
    },
    /// The epoch of this process, for `raft_node/quiet.rs`. Without it the node is never quiet.
    NodeEpoch(NodeEpoch),
    /// The process under which this node is quiet is silent, or is in another epoch than it was then.
    LeaderSilent,
    /// Whether the log store has little room left.
    LowSpace(bool),
}

/// What is known only while leading.
#[derive(Clone, Debug)]
struct Leader {
    /// The other members.
    progress: BTreeMap<NodeId, Progress>,
    heartbeat_due: Duration,
    /// When the group last woke from quiet, in which nobody is heard from.
    woken_at: Duration,
    /// The first entry of this term.
    term_start: LogIndex,
    uncommitted: Uncommitted,
    reads: ReadQueue,
    lease: Lease,
    own_disk: OwnDisk,
    /// Members that have spoken up and are not bound to their directories yet.
    unbound: BTreeMap<NodeId, StoreId>,
    /// Who waits for the change of voters that is under way.
    change: Option<ProposalId>,
    /// Who is to be told that it is no member any more, once that is committed.
    leaving: Vec<NodeId>,
    transfer: Option<Transfer>,
    /// Somebody was told to campaign in spite of us: no lease holds any more in this term.
    has_sent_timeout_now: bool,
}

/// What a role keeps.
#[derive(Clone, Debug)]
enum RoleState {
    Follower { leader: Option<NodeId> },
    PreCandidate(Ballot),
    Candidate(Ballot),
    Leader(Box<Leader>),
}

/// A Raft node. See the head of the module.
#[derive(Clone, Debug)]
pub struct RaftNode {
    config: Config,
    rng: ChaCha8Rng,
    /// Time of the step under way.
    now: Duration,
    hard_state: HardState,
    /// The write that makes `hard_state` durable.
    hard_state_token: IoToken,
    /// The data directory that our vote of this term was given to, if that was since we started.
    voted_store: Option<StoreId>,
    role: RoleState,
    log: Log,
    membership: MembershipHistory,
    commit: LogIndex,
    /// Entries up to here were given out to be applied.
    applying: LogIndex,
    applied: LogIndex,
    election_deadline: Duration,
    /// When a leader was last heard from; a node that has just started acts as if it had heard one.
    leader_contact: Duration,
    /// When the last entry came into the log; for one that was found there, when the node started.
    last_append: Duration,
    last_token: IoToken,
    /// The write that this step gathers.
    batch: Option<PersistBatch>,
    /// The first entry that this step has appended; the write gets all from there on.
    appended_from: Option<LogIndex>,
    /// What this step gives out after its write.
    outbox: Vec<Effect>,
    /// A snapshot that waits for its write, to be restored.
    restoring: Option<(IoToken, SnapshotMeta)>,
    compaction: Option<Compaction>,
    repair: Repair,
    quiet: Quiet,
    /// A piece of a snapshot is being written.
    is_writing_snapshot: bool,
    /// The latest snapshot that a leader has offered, and in which term.
    offered: Option<(Term, EntryId)>,
    /// The log store has little room left.
    is_low_on_space: bool,
    /// We are no member any more, and never will be again: that is committed.
    is_removed: bool,
    is_stopped: bool,
}

impl RaftNode {
    /// A node as its log store remembers it, at time `now`. The seed is for election timeouts; ChaCha8.
    pub fn recover(
        config: Config,
        state: RecoveredState,
        seed: u64,
        now: Duration,
    ) -> Result<Self, RecoverError> {
        config.validate()?;
        let snapshot = state.snapshot.as_ref();
        let snapshot_last = snapshot.map_or(EntryId::ZERO, |meta| meta.last);
        let (base, last) = (state.terms.base(), state.terms.last());
        if base.index > snapshot_last.index || last.index < snapshot_last.index {
            return Err(RecoverError::Corrupt(format!(
                "the log follows {base} and ends with {last}, the snapshot ends with {snapshot_last}"
            )));
        }
        let (base_index, base_membership) = snapshot
            .map_or((LogIndex::ZERO, config.founding.clone()), |meta| {
                (meta.last.index, meta.membership.clone())
            });
        if last.index > LogIndex::MAX || state.hard_state.term > Term::MAX {
            return Err(RecoverError::Corrupt(format!(
                "the last entry is {last} in term {}, further than any cluster comes",
                state.hard_state.term
            )));
        }
        let hard_state = recovered_hard_state(&config, state.hard_state, last.term)?;
        let membership =
            MembershipHistory::recovered(base_index, base_membership, state.memberships.clone());
        if membership.current().is_impostor(config.id, config.store) {
            let bound =
                membership.current().store_of(config.id).expect("an impostor's id is bound");
            return Err(RecoverError::WrongStore { node: config.id, bound, store: config.store });
        }
        let mut node = Self {
            rng: ChaCha8Rng::seed_from_u64(seed),
            now,
            hard_state,
            hard_state_token: IoToken(0),
            voted_store: None,
            role: RoleState::Follower { leader: None },
            log: Log::recovered(state, config.tail_bytes_max),
            membership,
            commit: snapshot_last.index,
            applying: snapshot_last.index,
            applied: snapshot_last.index,
            election_deadline: now,
            leader_contact: now,
            last_append: now,
            last_token: IoToken(0),
            batch: None,
            appended_from: None,
            outbox: Vec::new(),
            restoring: None,
            compaction: None,
            repair: Repair::default(),
            quiet: Quiet::default(),
            is_writing_snapshot: false,
            offered: None,
            is_low_on_space: false,
            is_removed: false,
            is_stopped: false,
            config,
        };
        #[cfg(feature = "sim")]
        if node.has_bug(crate::sim::PlantedBug::AppliedIndexApartFromData) {
            (node.applying, node.applied) = (base.index, base.index);
        }
        node.is_removed = node.knows_removal_of(node.config.id);
        node.reset_election_deadline();
        node.begin_repair();
        Ok(node)
    }

    /// The state machine has kept everything up to `applied` by itself: go on behind it. To be called before the first step.
    pub fn resume_at(&mut self, applied: EntryId) -> Result<(), RecoverError> {
        if applied.index <= self.commit {
            return Ok(());
        }
        if self.log.is_doubtful(applied.index) {
            return Err(RecoverError::Corrupt(format!(
                "the state machine has applied {applied}, which is damaged in the log"
            )));
        }
        if !self.log.contains(applied) {
            let last = self.log.last();
            return Err(RecoverError::Corrupt(format!(
                "the state machine has applied {applied}, the log ends with {last}"
            )));
        }
        (self.commit, self.applying, self.applied) = (applied.index, applied.index, applied.index);
        self.is_removed = self.knows_removal_of(self.config.id);
        Ok(())
    }

    // Getters.

    /// This node's id.
    #[must_use]
    pub fn id(&self) -> NodeId {
        self.config.id
    }

    /// What the node was configured with.
    #[must_use]
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// What the node is at the moment.
    #[must_use]
    pub fn role(&self) -> Role {
        match self.role {
            RoleState::Follower { .. } => Role::Follower,
            RoleState::PreCandidate(_) => Role::PreCandidate,
            RoleState::Candidate(_) => Role::Candidate,
            RoleState::Leader(_) => Role::Leader,
        }
    }

    /// The latest term the node has seen.
    #[must_use]
    pub fn term(&self) -> Term {
        self.hard_state.term
    }

    /// The term and vote.
    #[must_use]
    pub fn hard_state(&self) -> HardState {
        self.hard_state
    }

    /// Whom the node takes for the leader; itself if it leads.
    #[must_use]
    pub fn leader(&self) -> Option<NodeId> {
        match self.role {
            RoleState::Follower { leader } => leader,
            RoleState::Leader(_) => Some(self.config.id),
            RoleState::PreCandidate(_) | RoleState::Candidate(_) => None,
        }
    }

    /// The last entry known to be committed.
    #[must_use]
    pub fn commit(&self) -> LogIndex {
        self.commit
    }

    /// The last entry reported as applied.
    #[must_use]
    pub fn applied(&self) -> LogIndex {
        self.applied
    }

    /// The log.
    #[must_use]
    pub fn log(&self) -> &Log {
        &self.log
    }

    /// See [`Log::entries`]: to be applied.
    pub(crate) fn entries(
        &mut self,
        from: LogIndex,
        through: LogIndex,
        bytes_max: usize,
    ) -> Option<Entries> {
        self.log.entries(from, through, bytes_max)
    }

    /// The members as of the last entry.
    #[must_use]
    pub fn membership(&self) -> &Membership {
        self.membership.current()
    }

    /// The members as of the entry at `index`, which is in the log or its snapshot.
    #[must_use]
    pub fn membership_at(&self, index: LogIndex) -> &Membership {
        self.membership.at(index)
    }

    /// The entry that made the members what they are at the commit index: it moves when other members are committed.
    #[must_use]
    pub fn members_committed_by(&self) -> LogIndex {
        self.membership.place_at(self.commit)
    }

    /// What the leader knows of each follower; empty unless this node leads.
    pub fn progress(&self) -> impl Iterator<Item = (NodeId, &Progress)> {
        let leader = match &self.role {
            RoleState::Leader(leader) => Some(leader),
            RoleState::Follower { .. } | RoleState::PreCandidate(_) | RoleState::Candidate(_) => {
                None
            }
        };
        leader.into_iter().flat_map(|leader| leader.progress.iter().map(|(&id, peer)| (id, peer)))
    }

    /// The first entry of the term this node leads; `None` if it does not.
    #[must_use]
    pub fn term_start(&self) -> Option<LogIndex> {
        match &self.role {
            RoleState::Leader(leader) => Some(leader.term_start),
            RoleState::Follower { .. } | RoleState::PreCandidate(_) | RoleState::Candidate(_) => {
                None
            }
        }
    }

    /// Whether this node was removed from the cluster, which is committed. It stays quiet for ever: the process may end.
    #[must_use]
    pub fn is_removed(&self) -> bool {
        self.is_removed
    }

    /// Whom this node, which leads, is handing over to.
    #[must_use]
    pub fn transfer_target(&self) -> Option<NodeId> {
        match &self.role {
            RoleState::Leader(leader) => leader.transfer.as_ref().map(|transfer| transfer.to),
            RoleState::Follower { .. } | RoleState::PreCandidate(_) | RoleState::Candidate(_) => {
                None
            }
        }
    }

    /// Whether this node leads and has told another to campaign in spite of it. It may be deposed at any moment without any
    /// timeout: it must not serve reads from a lease for the rest of its term (case 26).
    #[must_use]
    pub fn has_sent_timeout_now(&self) -> bool {
        matches!(&self.role, RoleState::Leader(leader) if leader.has_sent_timeout_now)
    }

    /// When the node wants `Event::Timeout`; `None` while it is quiet, and once it has stopped.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Duration> {
        if self.is_stopped {
            return None;
        }
        [self.repair_deadline(), self.role_deadline()].into_iter().flatten().min()
    }

    fn role_deadline(&self) -> Option<Duration> {
        if self.quiet.is_quiet() {
            return None;
        }
        Some(match &self.role {
            RoleState::Leader(leader) => self
                .lease_deadline()
                .map_or(leader.heartbeat_due, |at| at.min(leader.heartbeat_due)),
            RoleState::Follower { .. } | RoleState::PreCandidate(_) | RoleState::Candidate(_) => {
                self.election_deadline
            }
        })
    }

    // The input.

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

    // Terms and roles.

    /// Follows `leader`, if it is known, in `term`.
    fn become_follower(&mut self, term: Term, leader: Option<NodeId>) {
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
    fn follow(&mut self, leader: NodeId) -> bool {
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

    fn role_changed(&mut self) {
        let (role, term, leader) = (self.role(), self.term(), self.leader());
        self.outbox.push(Effect::RoleChanged { role, term, leader });
        self.trace(TraceEvent::Became { role, term, leader });
    }

    /// Draws a new timeout for each campaign, so that nodes that collided once do not collide for ever (openraft #1838).
    fn reset_election_deadline(&mut self) {
        let Range { start, end } = self.config.election_timeout;
        let spread = u64::try_from((end - start).as_nanos()).unwrap_or(u64::MAX).max(1);
        let extra = Duration::from_nanos(self.rng.next_u64() % spread);
        self.election_deadline = self.now + start + extra;
    }

    /// Whether a leader was heard from within the smallest election timeout; a leader hears from itself as long as it leads,
    /// and check-quorum sees to it that it does not lead for long without a majority.
    fn is_leader_in_contact(&self) -> bool {
        matches!(self.role, RoleState::Leader(_))
            || self.now < self.leader_contact + self.config.election_timeout.start
    }

    // Writes and messages.

    /// The write that this step gathers.
    fn batch(&mut self) -> &mut PersistBatch {
        if self.batch.is_none() {
            self.last_token = IoToken(self.last_token.0 + 1);
        }
        let token = self.last_token;
        self.batch.get_or_insert_with(|| PersistBatch { token, ..PersistBatch::default() })
    }

    fn save_hard_state(&mut self, hard_state: HardState) {
        let before = self.hard_state;
        assert!(hard_state.term >= before.term, "terms never fall");
        assert!(
            hard_state.term > before.term
                || before.voted_for.is_none()
                || before.voted_for == hard_state.voted_for,
            "a vote is given once a term"
        );
        self.hard_state = hard_state;
        self.voted_store = None;
        self.batch().hard_state = Some(hard_state);
        self.hard_state_token = self.last_token;
    }

    /// Adds an entry to the log and to this step's write.
    fn append_entry(&mut self, entry: Entry) {
        if let Payload::Membership(membership) = &entry.payload {
            self.membership.push(entry.id.index, membership.clone());
            self.outbox.push(Effect::MembershipChanged(membership.clone()));
        }
        self.appended_from.get_or_insert(entry.id.index);
        self.log.append(entry);
        self.last_append = self.now;
        self.batch();
    }

    /// Sends `message`, not before `after` and not before our term is durable, which every message reveals.
    fn send(&mut self, to: NodeId, message: Message, after: Option<IoToken>) {
        let after = self.guarded(after);
        self.send_unguarded(to, message, after);
    }

    /// The same for a message that nobody waits for.
    fn send_in_time(&mut self, to: NodeId, message: Message, can_wait: bool) {
        let after = self.guarded(None);
        self.send_envelope(to, message, can_wait, after);
    }

    fn guarded(&self, after: Option<IoToken>) -> Option<IoToken> {
        let after = after.max(Some(self.hard_state_token));
        after.filter(|&token| token > self.log.durable_token())
    }

    fn send_unguarded(&mut self, to: NodeId, message: Message, after: Option<IoToken>) {
        self.send_envelope(to, message, false, after);
    }

    fn send_envelope(
        &mut self,
        to: NodeId,
        message: Message,
        can_wait: bool,
        after: Option<IoToken>,
    ) {
        let envelope = Envelope {
            cluster: self.config.cluster,
            group: self.config.group,
            from: self.config.id,
            to,
            store: self.config.store,
            term: self.term(),
            cause: Cause::default(),
            can_wait,
            message,
        };
        self.outbox.push(Effect::Send { envelope, after });
    }

    /// The other members, learners included.
    fn peers(&self) -> impl Iterator<Item = NodeId> + '_ {
        let members = self.membership().members().map(|(node, _)| node);
        members.filter(|&peer| peer != self.config.id)
    }

    /// Does something for each of the other members.
    fn for_each_peer(&mut self, mut act: impl FnMut(&mut Self, NodeId)) {
        let mut done = None;
        loop {
            let next = self.peers().find(|&peer| Some(peer) > done);
            let Some(peer) = next else { return };
            act(self, peer);
            done = next;
        }
    }

    fn trace(&mut self, event: TraceEvent) {
        self.outbox.push(Effect::Trace(event));
    }

    fn stop(&mut self, error: FatalError) {
        if !self.is_stopped {
            self.is_stopped = true;
            self.outbox.push(Effect::Fatal(error));
        }
    }

    /// Somebody says that our id is bound to another data directory. Only a node that its log does not contradict believes this: it was
    /// wiped, or is new under an old name. A founder believes it of founders, one that waits to be added of anybody.
    fn handle_wrong_store(&mut self, from: NodeId, store: StoreId, bound: StoreId) {
        let (id, own) = (self.config.id, self.config.store);
        let members = self.membership();
        let is_known = members.is_empty() || members.speaks(from, store);
        if is_known && bound != own && members.store_of(id) != Some(own) {
            self.stop(FatalError::WrongStore { bound });
        }
    }

    /// The commit index moved: does the cluster know us by our directory? One that was bound otherwise meanwhile is not a member, and
    /// must not go on as if it were.
    fn note_binding(&mut self) {
        let members = self.membership.at(self.commit);
        if members.is_impostor(self.config.id, self.config.store) {
            let bound = members.store_of(self.config.id).expect("an impostor's id is bound");
            self.stop(FatalError::WrongStore { bound });
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

    /// Gives out what the step has gathered: the write, then everything else, then what may now be applied.
    fn finish(&mut self, effects: &mut Effects) {
        if let Some(mut batch) = self.batch.take() {
            if let Some(from) = self.appended_from.take() {
                let entries = self.log.entries(from, self.log.last().index, usize::MAX);
                batch.entries = entries.expect("what was appended just now is in memory");
            }
            self.log.writing(batch.token);
            effects.push(Effect::Persist(batch));
        }
        for effect in self.outbox.drain(..) {
            effects.push(effect);
        }
        self.give_out_committed(effects);
        debug_assert!(self.commit <= self.log.last().index, "commit is in the log");
    }

    /// Entries are applied once they are committed *and* durable here, so that a machine is never ahead of its own log.
    fn give_out_committed(&mut self, effects: &mut Effects) {
        let through = self.apply_bound();
        if self.restoring.is_none() && through > self.applying && !self.is_stopped {
            effects.push(Effect::Apply(self.applying.next()..=through));
            self.applying = through;
        }
    }

    fn apply_bound(&self) -> LogIndex {
        #[cfg(feature = "sim")]
        if self.has_bug(crate::sim::PlantedBug::ApplyBeforeCommit) {
            return self.log.durable();
        }
        self.commit.min(self.log.sound())
    }

    #[cfg(feature = "sim")]
    fn has_bug(&self, bug: crate::sim::PlantedBug) -> bool {
        self.config.planted_bug == Some(bug)
    }
}

/// The hard state to start with: its term is at least that of the last entry.
fn recovered_hard_state(
    config: &Config,
    hard_state: HardState,
    last_term: Term,
) -> Result<HardState, RecoverError> {
    #[cfg(feature = "sim")]
    if config.planted_bug == Some(crate::sim::PlantedBug::ForgottenTermOnRestart) {
        return Ok(HardState { term: last_term, voted_for: None });
    }
    let _ = config;
    if hard_state.term < last_term {
        return Err(RecoverError::Corrupt(format!(
            "the term on disk is {}, the last entry's {last_term}",
            hard_state.term
        )));
    }
    Ok(hard_state)
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Follower => "follower",
            Self::PreCandidate => "pre-candidate",
            Self::Candidate => "candidate",
            Self::Leader => "leader",
        })
    }
}
