//! Famous defects, planted on purpose.
//!
//! Each can be switched on at run time, none is by default. A campaign with one of them must end in a violation: that is how
//! we know that the checks can fail.

use std::fmt;
use std::str::FromStr;

/// A defect that a node can be made to have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum PlantedBug {
    /// The reply to a vote request does not wait until the vote is durable; after a crash the node votes again in the
    /// same term (Raft §5.1, thesis §3.8).
    VoteNotPersistedBeforeReply,
    /// An entry of an earlier term is committed because a majority has it (Raft §5.4.2, Figure 8).
    CommitOfEarlierTermByCounting,
    /// A follower removes everything behind the preceding entry of each append, matching or not (async-raft 9540c904).
    TruncateOnAnyConflictMessage,
    /// A new leader confirms reads before it has committed anything in its term (etcd #7331).
    ReadIndexBeforeFirstCommit,
    /// A leader counts its own log before it is durable (openraft a9f696a9).
    LeaderCountsItselfBeforeDisk,
    /// A failed fsync is taken for a success (ATC 2020; hashicorp/raft #163).
    FsyncErrorIgnored,
    /// Entries are applied once they are in the log, committed or not (Redpanda #11840).
    ApplyBeforeCommit,
    /// After a restart the node is back in the term of its last entry, and has forgotten its vote.
    ForgottenTermOnRestart,
    /// A lease is counted from the arrival of the answers to a round, not from its sending (openraft's and Consul's documents warn
    /// of it).
    LeaseFromArrival,
    /// A lease is as long as the others refuse votes on *their* clocks.
    LeaseIgnoresDrift,
    /// A new leader commits at once, while an earlier one still answers on the age of its entries (LeaseGuard without its
    /// guard).
    NewLeaderDoesNotWait,
    /// The answer to any heartbeat confirms the round under way (etcd #20418).
    AnyReplyConfirmsRead,
    /// The clock is read when the timer fires, and not again when another input is taken from the queue.
    ClockBeforeQueue,
    /// A leader that has told another to campaign at once lives on its lease nonetheless (openraft #1747).
    LeaseKeptAfterTransfer,
    /// In a joint membership the new voters alone decide (Raft §6).
    JointCountedByNewVoters,
    /// Voters change in one step, before the leader has committed anything in its term (the bug of 2015; hydro #3192).
    SingleStepChangeBeforeFirstCommit,
    /// Members stay in force when their entry is truncated (ScyllaDB #31257).
    MembershipNotRolledBack,
    /// Members count from the commit of their entry on, not from its place in the log (etcd #7625).
    MembershipInForceAtCommit,
    /// A joint membership is left before it is committed.
    JointLeftBeforeCommit,
    /// A joint membership is never left (openraft #1871).
    JointNeverLeft,
    /// A learner's acknowledgement counts (async-raft a10d9906).
    LearnerCounted,
    /// A candidate asks all members, and counts whoever says yes (openraft #1805).
    VoteOfAnybodyCounted,
    /// A leader hands over to one that does not have its whole log (hashicorp/raft #398).
    TimeoutNowToLaggingTarget,
}

impl PlantedBug {
    /// All of them.
    pub const ALL: [Self; 23] = [
        Self::VoteNotPersistedBeforeReply,
        Self::CommitOfEarlierTermByCounting,
        Self::TruncateOnAnyConflictMessage,
        Self::ReadIndexBeforeFirstCommit,
        Self::LeaderCountsItselfBeforeDisk,
        Self::FsyncErrorIgnored,
        Self::ApplyBeforeCommit,
        Self::ForgottenTermOnRestart,
        Self::LeaseFromArrival,
        Self::LeaseIgnoresDrift,
        Self::NewLeaderDoesNotWait,
        Self::AnyReplyConfirmsRead,
        Self::ClockBeforeQueue,
        Self::LeaseKeptAfterTransfer,
        Self::JointCountedByNewVoters,
        Self::SingleStepChangeBeforeFirstCommit,
        Self::MembershipNotRolledBack,
        Self::MembershipInForceAtCommit,
        Self::JointLeftBeforeCommit,
        Self::JointNeverLeft,
        Self::LearnerCounted,
        Self::VoteOfAnybodyCounted,
        Self::TimeoutNowToLaggingTarget,
    ];

    /// Its name on the command line.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::VoteNotPersistedBeforeReply => "vote-not-persisted-before-reply",
            Self::CommitOfEarlierTermByCounting => "commit-of-earlier-term-by-counting",
            Self::TruncateOnAnyConflictMessage => "truncate-on-any-conflict-message",
            Self::ReadIndexBeforeFirstCommit => "read-index-before-first-commit",
            Self::LeaderCountsItselfBeforeDisk => "leader-counts-itself-before-disk",
            Self::FsyncErrorIgnored => "fsync-error-ignored",
            Self::ApplyBeforeCommit => "apply-before-commit",
            Self::ForgottenTermOnRestart => "forgotten-term-on-restart",
            Self::LeaseFromArrival => "lease-from-arrival",
            Self::LeaseIgnoresDrift => "lease-ignores-drift",
            Self::NewLeaderDoesNotWait => "new-leader-does-not-wait",
            Self::AnyReplyConfirmsRead => "any-reply-confirms-read",
            Self::ClockBeforeQueue => "clock-before-queue",
            Self::LeaseKeptAfterTransfer => "lease-kept-after-transfer",
            Self::JointCountedByNewVoters => "joint-counted-by-new-voters",
            Self::SingleStepChangeBeforeFirstCommit => "single-step-change-before-first-commit",
            Self::MembershipNotRolledBack => "membership-not-rolled-back",
            Self::MembershipInForceAtCommit => "membership-in-force-at-commit",
            Self::JointLeftBeforeCommit => "joint-left-before-commit",
            Self::JointNeverLeft => "joint-never-left",
            Self::LearnerCounted => "learner-counted",
            Self::VoteOfAnybodyCounted => "vote-of-anybody-counted",
            Self::TimeoutNowToLaggingTarget => "timeout-now-to-lagging-target",
        }
    }
}

impl fmt::Display for PlantedBug {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for PlantedBug {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        Self::ALL.into_iter().find(|bug| bug.name() == name).ok_or_else(|| {
            let names: Vec<_> = Self::ALL.into_iter().map(Self::name).collect();
            format!("no planted bug is called {name}; there are {}", names.join(", "))
        })
    }
}
