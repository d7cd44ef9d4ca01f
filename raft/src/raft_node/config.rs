//! Who a node is, how patient it is, and how much it takes on.

use std::ops::Range;
use std::time::Duration;

use crate::membership::Membership;
use crate::types::{ClusterId, GroupId, NodeId, StoreId};

use super::{ReadPolicy, RecoverError};

/// Who a node is and how it behaves.
#[derive(Clone, Debug)]
pub struct Config {
    /// Its id.
    pub id: NodeId,
    /// Its cluster.
    pub cluster: ClusterId,
    /// The Raft group.
    pub group: GroupId,
    /// Its data directory.
    pub store: StoreId,
    /// This start of the node: a number that no other start of it has.
    pub boot: u64,
    /// The members that found the cluster; in force until the log says otherwise. Empty for a node that is to be added to a cluster that
    /// exists: it waits for the leader that adds it.
    pub founding: Membership,
    /// Bounds of the random time without a leader after which an election begins. The lower one is also how long a node refuses
    /// votes after it has heard from a leader, or started.
    pub election_timeout: Range<Duration>,
    /// Time between heartbeats.
    pub heartbeat: Duration,
    /// Bytes of entries in one append message (one entry may exceed it).
    pub append_bytes_max: usize,
    /// Append messages under way to one follower.
    pub inflight_messages_max: usize,
    /// Bytes of entries under way to one follower.
    pub inflight_bytes_max: usize,
    /// Bytes of entries that a leader takes without having committed them.
    pub uncommitted_bytes_max: usize,
    /// Bytes of one command.
    pub command_bytes_max: usize,
    /// Bytes of the newest entries kept in memory.
    pub tail_bytes_max: usize,
    /// Entries behind a snapshot's last one that compaction leaves for slow followers.
    pub kept_entries: u64,
    /// Damaged entries that are repaired in one step, at least one; fewer are if they are very long.
    pub repaired_at_once: u64,
    /// Linearizable reads that wait at once, those of followers included.
    pub reads_max: usize,
    /// How a leader makes sure that it still leads when it answers a read; the same on all members.
    pub reads: ReadPolicy,
    /// A group that has been idle for so long goes quiet; never if `None`. It needs a process that watches other processes, and says so with
    /// `Event::NodeEpoch`: see `raft_node/quiet.rs`.
    pub quiet_after: Option<Duration>,
    /// A defect to run with, to prove that the checks would find it.
    #[cfg(feature = "sim")]
    pub planted_bug: Option<crate::sim::PlantedBug>,
}

impl Config {
    /// A configuration with the library's timing (150–300 ms, heartbeats every 100 ms) and limits.
    #[must_use]
    pub fn new(id: NodeId, store: StoreId, founding: Membership) -> Self {
        Self {
            id,
            cluster: ClusterId::default(),
            group: GroupId::default(),
            store,
            boot: 0,
            founding,
            election_timeout: Duration::from_millis(150)..Duration::from_millis(300),
            heartbeat: Duration::from_millis(100),
            append_bytes_max: 512 << 10,
            inflight_messages_max: 128,
            inflight_bytes_max: 8 << 20,
            uncommitted_bytes_max: 64 << 20,
            command_bytes_max: 16 << 20,
            tail_bytes_max: 16 << 20,
            kept_entries: 5_000,
            repaired_at_once: 4096,
            reads_max: 10_000,
            reads: ReadPolicy::default(),
            quiet_after: None,
            #[cfg(feature = "sim")]
            planted_bug: None,
        }
    }

    pub(super) fn validate(&self) -> Result<(), RecoverError> {
        let Range { start, end } = self.election_timeout;
        let rules = [
            (self.id.0 > 0, "node id 0 is reserved"),
            (start > Duration::ZERO && start < end, "the election timeout needs a range"),
            (self.heartbeat > Duration::ZERO, "the heartbeat interval is zero"),
            (self.heartbeat < start, "heartbeats must be more frequent than election timeouts"),
            (self.reads.is_possible(start), "the margin of the clocks leaves no lease"),
            (self.append_bytes_max > 0 && self.inflight_messages_max > 0, "a window is zero"),
        ];
        match rules.iter().find(|(holds, _)| !holds) {
            Some((_, rule)) => Err(RecoverError::Config(rule)),
            None => Ok(()),
        }
    }
}
