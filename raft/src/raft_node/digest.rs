//! What of a node decides its future, for the exhaustive check: two nodes with the same digest behave alike.
//!
//! Times go in as ages, capped where nothing waits longer, and tokens as distances from the last durable one: a node that does
//! the same a second later is the same node. What is drawn from the seed is left out, for the check fires deadlines when it
//! likes. Every struct is taken apart field by field, so that a new field does not compile before somebody has decided here whether
//! it matters.

use std::hash::{Hash, Hasher};
use std::time::Duration;

use super::election::Ballot;
use super::own_disk::OwnDisk;
use super::snapshot::Compaction;
use super::{Leader, RaftNode, RoleState};
use crate::progress::ProgressClock;

impl RaftNode {
    /// The time of the last step.
    pub(crate) fn now(&self) -> Duration {
        self.now
    }

    /// Whether it refuses votes because a leader was heard from.
    pub(crate) fn is_in_contact(&self) -> bool {
        self.is_leader_in_contact()
    }

    /// When a leader's sign of life no longer keeps the node from voting.
    pub(crate) fn contact_ends(&self) -> Duration {
        self.leader_contact + self.config.election_timeout.start
    }

    /// Feeds everything that decides what the node does next.
    pub(crate) fn digest(&self, into: &mut impl Hasher) {
        let Self {
            config,
            rng: _,
            now,
            hard_state,
            voted_store,
            hard_state_token,
            role,
            log,
            membership,
            commit,
            applying,
            applied,
            election_deadline: _,
            leader_contact: _,
            // Leases are off in the check's worlds.
            last_append: _,
            last_token,
            batch,
            appended_from: _,
            outbox,
            restoring,
            compaction,
            // The disks of the check's small worlds lose nothing.
            repair: _,
            // Its processes do not watch each other, so that nobody is ever quiet.
            quiet: _,
            is_writing_snapshot,
            offered,
            // The disks of the check's small worlds have room.
            is_low_on_space: _,
            is_removed,
            is_stopped,
        } = self;
        debug_assert!(batch.is_none() && outbox.is_empty(), "between two steps");
        let durable = log.durable_token();
        let distance = |token: crate::effects::IoToken| token.0.saturating_sub(durable.0);
        (config.id, config.store, config.boot).hash(into);
        (hard_state, voted_store).hash(into);
        (distance(*hard_state_token), distance(*last_token)).hash(into);
        log.digest(into);
        membership.hash(into);
        (commit, applying, applied, is_writing_snapshot, is_removed, is_stopped).hash(into);
        offered.filter(|(term, _)| *term == self.term()).hash(into);
        restoring.as_ref().map(|(token, meta)| (distance(*token), meta.last)).hash(into);
        compaction.map(|Compaction { after, through }| (distance(after), through)).hash(into);
        self.is_leader_in_contact().hash(into);
        std::mem::discriminant(role).hash(into);
        match role {
            RoleState::Follower { leader } => leader.hash(into),
            RoleState::PreCandidate(Ballot { answers, begun: _ })
            | RoleState::Candidate(Ballot { answers, begun: _ }) => {
                answers.hash(into);
            }
            RoleState::Leader(leader) => {
                let Leader {
                    progress,
                    heartbeat_due,
                    // Nobody is quiet, see above.
                    woken_at: _,
                    term_start,
                    // Limits in bytes are never reached in the check's small worlds.
                    uncommitted: _,
                    reads,
                    lease: _,
                    own_disk: OwnDisk { owed, since },
                    unbound,
                    change,
                    leaving,
                    transfer,
                    has_sent_timeout_now,
                } = leader.as_ref();
                // Check-quorum and the patience with lost messages; and that of the leader with its own disk.
                let cap = self.config.election_timeout.end.max(2 * self.config.heartbeat);
                let clock = ProgressClock { now: *now, cap };
                progress.len().hash(into);
                for (peer, progress) in progress {
                    peer.hash(into);
                    progress.digest(clock, into);
                }
                heartbeat_due.saturating_sub(*now).hash(into);
                (term_start, owed, unbound).hash(into);
                (change, leaving, has_sent_timeout_now).hash(into);
                let transfer = transfer.map(|transfer| transfer.digest(*now));
                transfer.hash(into);
                now.saturating_sub(*since).min(4 * self.config.election_timeout.end).hash(into);
                reads.hash(into);
            }
        }
    }
}
