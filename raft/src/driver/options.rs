//! What a node is started with.

use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use lattice_journal::{Disk, MemoryDisk, RealDisk};

use crate::membership::Membership;
use crate::raft_node::ReadPolicy;
use crate::storage::{DataDirectory, IdentityError, JournalLogOptions};
use crate::types::{ClusterId, GroupId, NodeId};

/// How long things may take.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Timing {
    /// Bounds of the random time without a leader after which an election begins.
    pub election_timeout: Range<Duration>,
    /// Time between heartbeats; at most a third of the smallest election timeout is wise.
    pub heartbeat: Duration,
    /// How long a linearizable read waits for a leader to confirm it.
    pub read_timeout: Duration,
}

/// How much a node takes on at once. Everything that waits is bounded by one of these.
///
/// What they let in has to fit into the log and through the transport, else the node does not start: see
/// [`StartError::Limits`](super::StartError::Limits).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Commands and reads that wait to be looked at; more wait at the caller's.
    pub commands: usize,
    /// Messages of peers that wait to be looked at; more are dropped.
    pub messages: usize,
    /// Bytes of such messages, more or less; one that is larger waits alone.
    pub message_bytes: usize,
    /// Bytes of one command.
    pub command_bytes: usize,
    /// Bytes of commands that a leader takes without having committed them.
    pub uncommitted_bytes: usize,
    /// Bytes of the newest entries kept in memory.
    pub tail_bytes: usize,
    /// Linearizable reads that wait for their confirmation.
    pub reads: usize,
    /// Committed entries that wait for the state machine before proposals are refused.
    pub apply_lag: u64,
    /// Entries applied since the last snapshot after which another is taken; see
    /// [`ReplicaConfig`](crate::replica::ReplicaConfig).
    pub snapshot_entries: u64,
    /// Entries before a snapshot's last one that are kept for slow followers.
    pub kept_entries: u64,
    /// Bytes of a snapshot sent at a time.
    pub snapshot_chunk_bytes: usize,
    /// Bytes of snapshots that a leader reads and sends in a second, to all followers of its group together.
    pub snapshot_bytes_per_second: u64,
}

/// Who a node is, where it keeps its log, and how it behaves.
#[derive(Clone, Debug)]
pub struct NodeOptions {
    /// Its data directory: says which node of which cluster this is, and holds the lock.
    pub directory: Arc<DataDirectory>,
    /// The Raft group.
    pub group: GroupId,
    /// How long things may take.
    pub timing: Timing,
    /// How much it takes on.
    pub limits: Limits,
    /// Segment sizes and limits of its log.
    pub log: JournalLogOptions,
    /// How a leader makes sure that it still leads when it answers a linearizable read. The same on all nodes of a cluster; see
    /// [`ReadPolicy`] for what each assumes, and how to change it.
    pub reads: ReadPolicy,
    /// Apply in the node's own task, instead of on a thread of the state machine's own. Saves two switches of threads a
    /// run of commands. Only for machines that never wait and take microseconds for a command: while it applies, the node neither
    /// sends heartbeats nor answers any.
    pub apply_inline: bool,
    /// The log is in memory: writing it takes no time worth a thread.
    pub(super) is_log_in_memory: bool,
}

impl Default for Timing {
    /// 150–300 ms and 100 ms, as in the paper: for nodes close to each other.
    fn default() -> Self {
        Self {
            election_timeout: Duration::from_millis(150)..Duration::from_millis(300),
            heartbeat: Duration::from_millis(100),
            read_timeout: Duration::from_secs(5),
        }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            commands: 4096,
            messages: 4096,
            message_bytes: 256 << 20,
            command_bytes: 16 << 20,
            uncommitted_bytes: 64 << 20,
            tail_bytes: 16 << 20,
            reads: 10_000,
            apply_lag: 50_000,
            snapshot_entries: 10_000,
            kept_entries: 5_000,
            snapshot_chunk_bytes: 512 << 10,
            snapshot_bytes_per_second: 64 << 20,
        }
    }
}

impl NodeOptions {
    /// A node on a data directory that was opened before, with the library's timing and limits.
    #[must_use]
    pub fn new(directory: DataDirectory) -> Self {
        let group = GroupId::default();
        let log = JournalLogOptions::new(directory.log_id(group));
        Self {
            directory: Arc::new(directory),
            group,
            timing: Timing::default(),
            limits: Limits::default(),
            log,
            reads: ReadPolicy::default(),
            apply_inline: false,
            is_log_in_memory: false,
        }
    }

    /// The same for another group in the same data directory.
    #[must_use]
    pub fn for_group(&self, group: GroupId) -> Self {
        let mut options = Self { group, ..self.clone() };
        options.log.journal.id = self.directory.log_id(group);
        options
    }

    /// A node of a cluster of `founders` whose log is kept in `path`.
    ///
    /// # Errors
    ///
    /// See [`IdentityError`].
    pub fn on_disk(
        id: NodeId,
        founders: impl IntoIterator<Item = NodeId>,
        path: &Path,
    ) -> Result<Self, IdentityError> {
        Self::on(Arc::new(RealDisk), id, founders, path)
    }

    /// A node of a cluster of `founders` whose log is kept in memory, and is gone with the node.
    #[must_use]
    pub fn in_memory(id: NodeId, founders: impl IntoIterator<Item = NodeId>) -> Self {
        let options = Self::on(Arc::new(MemoryDisk::new()), id, founders, Path::new("/node"));
        let mut options = options.expect("memory takes a new directory");
        options.is_log_in_memory = true;
        // What is dropped comes back in so small pieces that it is still in the processor's cache.
        (options.log.journal.segment_size, options.log.journal.segment_size_max) =
            (1 << 20, 1 << 20);
        options
    }

    fn on(
        disk: Arc<dyn Disk>,
        id: NodeId,
        founders: impl IntoIterator<Item = NodeId>,
        path: &Path,
    ) -> Result<Self, IdentityError> {
        let founders: Vec<_> = founders.into_iter().collect();
        let cluster = ClusterId::default();
        DataDirectory::open(disk, path, cluster, id, &founders, random()).map(Self::new)
    }

    pub(super) fn founding(&self) -> Membership {
        Membership::founding(self.directory.identity().founders.iter().copied())
    }
}

/// Random bits from the operating system, by way of the keys that the standard library draws for its hash maps.
pub(super) fn random() -> u128 {
    use std::hash::{BuildHasher, RandomState};
    let half = |salt: u8| u128::from(RandomState::new().hash_one(salt));
    half(0) << 64 | half(1)
}
