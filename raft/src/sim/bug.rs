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
    /// The longer log wins an election, whatever its terms (Raft §5.4.1; async-raft a48a3282 compared the same way round).
    LongerLogWins = "longer-log-wins", LostLeaders within 100;
    /// A vote that arrives twice counts twice (Raft §5.2; openraft #1805 is of this family).
    RepeatedVoteCounted = "repeated-vote-counted", General within 600;
    /// A vote that was given in an earlier candidacy counts in this one ("term confusion", *Students' guide to Raft*).
    VoteOfEarlierTermCounted = "vote-of-earlier-term-counted", General within 1_000;
    /// An acknowledgement counts for everything that was sent, not for what it names (*Students' guide to Raft*: `matchIndex`).
    MatchedUpToNext = "matched-up-to-next", General within 30;
    /// A heartbeat tells the whole commit index, and a follower takes it for its own log's (etcd-raft, `sendHeartbeat`).
    HeartbeatCommitsBeyondMatched = "heartbeat-commits-beyond-matched", General within 100;
    /// A follower acknowledges what is not durable yet (Jepsen, NATS 2.12.1; openraft ee460f37).
    AppendAcknowledgedBeforeDisk = "append-acknowledged-before-disk", General within 10;
    /// A late snapshot is installed over what was committed since (openraft 674e78aa, #1892).
    SnapshotOverLaterCommit = "snapshot-over-later-commit", Members within 1_500;
    /// The log is compacted before the snapshot that stands for it is recorded (raft-engine #290, #314).
    CompactionBeforeSnapshotIsDurable = "compaction-before-snapshot-is-durable", SlowDisks within 150;
    /// After a restart from a snapshot, entries that it holds are applied to it once more (etcd #13766).
    AppliedIndexApartFromData = "applied-index-apart-from-data", General within 50;
    /// A snapshot brings the members of the snapshot before it (matrixone #23279).
    SnapshotWithoutLatestMembers = "snapshot-without-latest-members", Members within 50;
    /// A snapshot leaves the members of an uncommitted entry in force that it replaces (openraft #1808).
    MembersOfSnapshotIgnored = "members-of-snapshot-ignored", Members within 50;
    /// A follower too far behind for the log is sent the log nonetheless, for ever (openraft afd6508b; TiKV #9859).
    NoSnapshotForWhoIsFarBehind = "no-snapshot-for-who-is-far-behind", General within 100;
    /// A node is known by its name alone: one that has lost its disk votes as if it had not (FAST 2018; etcd #21178).
    AmnesiacVoterCounted = "amnesiac-voter-counted", General within 1_000;
    /// A confirmed read is served before the machine has applied what it must see (openraft 97d92771; etcd #3879).
    ReadBeforeApplied = "read-before-applied", General within 30;
    /// A leader answers reads without asking anybody (d-engine #381; openraft d60f1e85).
    ReadWithoutMajority = "read-without-majority", Leases within 200;
    /// A leader that steps down says that what it had taken has no effect (Jepsen, Redis-Raft: aborted reads).
    ProposalsFailedOnStepDown = "proposals-failed-on-step-down", General within 30;
    /// Snapshots leave out what sessions remember, so that a command that is sent again takes effect again (thesis §6.3; Jepsen,
    /// Redis-Raft).
    SessionsForgottenInSnapshots = "sessions-forgotten-in-snapshots", General within 300;
    /// A part of a snapshot is taken for one that is here because it has the same name and length.
    PartTakenByName = "part-taken-by-name", General within 200;
    /// A part of a snapshot that came before a restart is taken for whole.
    ResumedPartNotVerified = "resumed-part-not-verified", Snapshots within 300;
    /// The first leader is elected by a majority of founders, of which one may have been wiped after another founding.
    FoundedByMajority = "founded-by-majority", General within 200;
    /// A leader goes quiet while a follower lacks entries, and the follower agrees without looking.
    QuietWithFollowerBehind = "quiet-with-follower-behind", Quiet within 50;
    /// A quiet follower is woken by nobody but its leader.
    QuietFollowerNeverWakes = "quiet-follower-never-wakes", Quiet within 800;
    /// A node with damage in its log acknowledges appends before it is repaired (FAST 2018).
    AcknowledgesDamaged = "acknowledges-damaged", Decay within 100;
    /// A node whose log has lost its vote or its end begins with an empty one (Jepsen's NATS report; LogCabin in FAST 2018).
    DamagedLogStartsBlank = "damaged-log-starts-blank", Decay within 100;
    /// Lost entries are put back as if they were of the term of the entry behind them.
    RepairOfAnotherTerm = "repair-of-another-term", Decay within 100;
    /// A frame's checksum is not looked at (TCP's lets one damaged segment in 65,536 through).
    DamagedFrameBelieved = "damaged-frame-believed", General within 200;
}

impl PlantedBug {
    /// Whether it is about rounds of heartbeats, which leases would hide.
    pub(super) fn is_about_rounds(self) -> bool {
        matches!(self, Self::AnyReplyConfirmsRead | Self::ReadWithoutMajority)
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
