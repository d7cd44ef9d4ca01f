//! A leader whose own disk holds everybody up gives way to one whose disk does not (etcd #7617, hashicorp/raft #503).
//!
//! Commit does not need the leader's disk: a majority of others will do. Applying does, since a state machine is never ahead of
//! its own log; so with a leader whose disk is full, hung or slow nobody gets an answer, while each of the others could lead. Heartbeats do not
//! show it: they need no disk.
//!
//! So at each heartbeat the leader looks how long its disk has owed it what the others have made committed. A disk that owes an
//! entry for a longest election timeout is worse than an election: leadership goes to a voter that keeps up, which costs a round
//! trip. If nobody takes it, because all disks are slow, leading on is best, and it is offered again. A leader that is still owed
//! the entry after some such timeouts steps down in any case. It cannot win the next election: its vote for
//! itself has to be durable first.
//!
//! If all disks stand still nothing is committed, nothing is owed, and nobody gives way.

use std::time::Duration;

use crate::trace::TraceEvent;
use crate::types::LogIndex;

use super::{RaftNode, RoleState};

/// What a leader's disk owes.
#[derive(Clone, Copy, Debug)]
pub(super) struct OwnDisk {
    /// What was committed when we last looked and the disk owed nothing from before.
    pub(super) owed: LogIndex,
    pub(super) since: Duration,
}

/// A leader's disk may owe an entry for this many longest election timeouts.
const PATIENCE: u32 = 4;

impl RaftNode {
    /// As leader, at each heartbeat. Returns whether to step down.
    pub(super) fn is_held_up_by_own_disk(&mut self) -> bool {
        let (now, durable, commit) = (self.now, self.log.durable(), self.commit);
        let timeout = self.config.election_timeout.end;
        let RoleState::Leader(leader) = &mut self.role else { return false };
        if leader.own_disk.owed <= durable {
            leader.own_disk = OwnDisk { owed: commit, since: now };
        }
        let owed_for = now.saturating_sub(leader.own_disk.since);
        if owed_for >= PATIENCE * timeout {
            return true;
        }
        if owed_for >= timeout {
            self.offer_leadership();
        }
        false
    }

    fn offer_leadership(&mut self) {
        if self.transfer_target().is_some() {
            return;
        }
        // There is nobody to hand over to: lead on.
        let Ok(to) = self.transfer_to(None) else { return };
        let term = self.term();
        self.trace(TraceEvent::DiskSlow { term, to });
        self.start_transfer(None, to);
    }
}
