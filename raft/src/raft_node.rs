//! One Raft node as a pure state machine: an event and the time go in, effects come out.
//!
//! Nothing here waits, reads a clock, draws from a global random source or touches a disk or a socket. [`RaftNode::step`] is a
//! dispatch table; what each message does is in the child modules, which are named as the paper's chapters:
//!
//! - `config`: who the node is, and its limits
//! - `recovery`: the node as its log store remembers it
//! - `event`, `dispatch`, `output`: what comes in, who handles it, and what goes out in which order
//! - `term`: terms and roles (Raft §5.1)
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
//! [`RaftNode::next_deadline`], which says when the node wants `Event::Timeout`; and outputs, which are the [`Effects`](crate::effects::Effects).
//!
//! **The order of things in one step.** Changes to the term, the vote and the log gather in one [`PersistBatch`], so that they become
//! durable together or not at all. At the end of the step the batch is given out first, then the messages, each with the
//! token of the write it has to wait for.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use rand_chacha::ChaCha8Rng;

use crate::effects::{Effect, IoToken, PersistBatch, ProposalId};
use crate::entries::Entries;
use crate::log::Log;
use crate::membership::Membership;
use crate::progress::Progress;
use crate::types::{EntryId, HardState, LogIndex, NodeId, SnapshotMeta, StoreId, Term};

mod config;
#[cfg(feature = "sim")]
mod digest;
mod dispatch;
mod election;
mod event;
mod lease;
mod membership;
mod output;
mod own_disk;
mod quiet;
mod read;
mod recovery;
mod repair;
mod replication;
mod snapshot;
mod term;
mod transfer;

pub use config::Config;
use election::Ballot;
pub use event::{Event, Proposal};
use lease::Lease;
pub use lease::{ClockBound, LeaseGuard, ReadPolicy};
use membership::MembershipHistory;
use own_disk::OwnDisk;
use quiet::Quiet;
pub use quiet::QuietStanding;
use read::ReadQueue;
pub use recovery::RecoverError;
use repair::Repair;
use replication::Uncommitted;
use snapshot::Compaction;
use transfer::Transfer;

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

    // Bugs planted on purpose.

    #[cfg(feature = "sim")]
    fn has_bug(&self, bug: crate::sim::PlantedBug) -> bool {
        self.config.planted_bug == Some(bug)
    }
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
