//! Famous defects, planted on purpose.
//!
//! Each can be switched on at run time, none is by default. A campaign with one of them must end in a violation: that is how
//! we know that the checks can fail.

use std::fmt;
use std::str::FromStr;

use super::Tuning;

/// One table for all: the bug, its name on the command line, the tuning that finds it soonest, and within how many seeds, counted
/// from 0, it must be found.
macro_rules! planted_bugs {
    ($($(#[doc = $doc:literal])* $bug:ident = $name:literal, $tuning:ident within $seeds:literal;)*) => {
        /// A defect that a node can be made to have.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub enum PlantedBug {
            $($(#[doc = $doc])* $bug,)*
        }

        impl PlantedBug {
            /// All of them.
            pub const ALL: [Self; [$($name),*].len()] = [$(Self::$bug),*];

            /// Its name on the command line.
            #[must_use]
            pub fn name(self) -> &'static str {
                match self {
                    $(Self::$bug => $name,)*
                }
            }

            /// What finds it soonest.
            #[must_use]
            pub fn tuning(self) -> Tuning {
                match self {
                    $(Self::$bug => Tuning::$tuning,)*
                }
            }

            /// Within how many seeds it must be found, counted from 0.
            #[must_use]
            pub fn within(self) -> u64 {
                match self {
                    $(Self::$bug => $seeds,)*
                }
            }
        }
    };
}

planted_bugs! {
    /// The reply to a vote request does not wait until the vote is durable; after a crash the node votes again in the
    /// same term (Raft §5.1, thesis §3.8).
    VoteNotPersistedBeforeReply = "vote-not-persisted-before-reply", General within 100;
    /// An entry of an earlier term is committed because a majority has it (Raft §5.4.2, Figure 8).
    CommitOfEarlierTermByCounting = "commit-of-earlier-term-by-counting", LostLeaders within 400;
    /// A follower removes everything behind the preceding entry of each append, matching or not (async-raft 9540c904).
    TruncateOnAnyConflictMessage = "truncate-on-any-conflict-message", General within 100;
    /// A new leader confirms reads before it has committed anything in its term (etcd #7331).
    ReadIndexBeforeFirstCommit = "read-index-before-first-commit", General within 100;
    /// A leader counts its own log before it is durable (openraft a9f696a9).
    LeaderCountsItselfBeforeDisk = "leader-counts-itself-before-disk", SlowDisks within 100;
    /// A failed fsync is taken for a success (ATC 2020; hashicorp/raft #163).
    FsyncErrorIgnored = "fsync-error-ignored", General within 100;
    /// Entries are applied once they are in the log, committed or not (Redpanda #11840).
    ApplyBeforeCommit = "apply-before-commit", General within 10;
    /// After a restart the node is back in the term of its last entry, and has forgotten its vote.
    ForgottenTermOnRestart = "forgotten-term-on-restart", General within 100;
    /// A lease is counted from the arrival of the answers to a round, not from its sending (openraft's and Consul's documents warn
    /// of it).
    LeaseFromArrival = "lease-from-arrival", Leases within 100;
    /// A lease is as long as the others refuse votes on *their* clocks.
    LeaseIgnoresDrift = "lease-ignores-drift", Leases within 600;
    /// A new leader commits at once, while an earlier one still answers on the age of its entries (LeaseGuard without its
    /// guard).
    NewLeaderDoesNotWait = "new-leader-does-not-wait", Leases within 20;
    /// The answer to any heartbeat confirms the round under way (etcd #20418).
    AnyReplyConfirmsRead = "any-reply-confirms-read", Leases within 1_000;
    /// The clock is read when the timer fires, and not again when another input is taken from the queue.
    ClockBeforeQueue = "clock-before-queue", Leases within 50;
    /// A leader that has told another to campaign at once lives on its lease nonetheless (openraft #1747).
    LeaseKeptAfterTransfer = "lease-kept-after-transfer", Leases within 100;
    /// In a joint membership the new voters alone decide (Raft §6).
    JointCountedByNewVoters = "joint-counted-by-new-voters", Members within 200;
    /// Voters change in one step, before the leader has committed anything in its term (the bug of 2015; hydro #3192).
    SingleStepChangeBeforeFirstCommit = "single-step-change-before-first-commit", Members within 200;
    /// Members stay in force when their entry is truncated (ScyllaDB #31257).
    MembershipNotRolledBack = "membership-not-rolled-back", Members within 300;
    /// Members count from the commit of their entry on, not from its place in the log (etcd #7625).
    MembershipInForceAtCommit = "membership-in-force-at-commit", Members within 100;
    /// A joint membership is left before it is committed.
    JointLeftBeforeCommit = "joint-left-before-commit", Members within 400;
    /// A joint membership is never left (openraft #1871).
    JointNeverLeft = "joint-never-left", Members within 50;
    /// A learner's acknowledgement counts (async-raft a10d9906).
    LearnerCounted = "learner-counted", Members within 100;
    /// A candidate asks all members, and counts whoever says yes (openraft #1805).
    VoteOfAnybodyCounted = "vote-of-anybody-counted", Members within 100;
    /// A leader hands over to one that does not have its whole log (hashicorp/raft #398).
    TimeoutNowToLaggingTarget = "timeout-now-to-lagging-target", Members within 50;
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
