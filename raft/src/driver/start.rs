//! Starting a node: its directory, its log, its state machine, its threads.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use thiserror::Error;
use tokio::sync::{mpsc, watch};

use crate::effects::FatalError;
use crate::raft_node::{Config, RaftNode, RecoverError};
use crate::replica::{Replica, ReplicaConfig};
use crate::state_machine::{BoxError, DurableStateMachine};
use crate::storage::{
    JournalLog, LogStore, OpenLogError, RecoveredState, SnapshotError, SnapshotStore,
};
use crate::transport::Transport;
use crate::types::{GroupId, SnapshotMeta};

use super::groups::Member;
use super::logs::Logs;
use super::options::{NodeOptions, random};
use super::status::{Status, SyncCounters};
use super::task::{self, ApplySide, LogSide, Parts, Queues, Task, TransferSide, Workers};
use super::{Raft, apply_thread, clock, inbox, log_thread, transfer_thread};

/// Why a node did not start. Nothing was changed, unless the text says otherwise.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum StartError {
    /// The log cannot be opened, or is damaged.
    #[error("cannot open the log")]
    Log(#[from] OpenLogError),
    /// What was found, or asked for, contradicts itself.
    #[error(transparent)]
    Recover(#[from] RecoverError),
    /// The snapshots cannot be opened.
    #[error("cannot open the snapshots")]
    Snapshot(#[from] SnapshotError),
    /// The state machine could not be restored.
    #[error("cannot restore the state machine from the snapshot up to {}", .snapshot.last)]
    Restore {
        /// The snapshot.
        snapshot: Box<SnapshotMeta>,
        /// Why not.
        source: BoxError,
    },
    /// A thread could not be started.
    #[error("cannot start a thread")]
    Thread(#[from] std::io::Error),
    /// The group runs in this process already.
    #[error("group {0} runs in this process already, or is no group's id")]
    GroupRuns(GroupId),
    /// The transport keeps heartbeats back for so long that elections would begin for want of them.
    #[error(
        "the transport keeps heartbeats back for {gather:?}, longer than a quarter of {heartbeat:?}"
    )]
    Gathers {
        /// How long the transport keeps messages back.
        gather: Duration,
        /// The time between two heartbeats.
        heartbeat: Duration,
    },
    /// A limit of the node lets in what another one refuses. What was let in would stop one leader after another, or would never reach a
    /// follower, for good.
    #[error(
        "{setting} of {bytes} bytes is too much for {limit} of {max} bytes, \
         which has to hold what stands around it too"
    )]
    Limits {
        /// The setting that lets in too much.
        setting: &'static str,
        /// Its value.
        bytes: usize,
        /// The setting that refuses it.
        limit: &'static str,
        /// Its value.
        max: u64,
    },
}

/// Bytes that stand around commands in an item of the log, in a batch of it, or in a message: ids, checksums, the log's state with the
/// members.
const AROUND: u64 = 64 << 10;

pub(super) fn start<M: DurableStateMachine>(
    options: NodeOptions,
    mut machine: M,
    transport: Arc<dyn Transport>,
    member: Option<Member>,
) -> Result<Raft<M::Reader>, StartError> {
    let (gather, heartbeat) = (transport.gathers(), options.timing.heartbeat);
    if gather > heartbeat / 4 {
        return Err(StartError::Gathers { gather, heartbeat });
    }
    check_limits(&options, transport.message_max())?;
    let (directory, group) = (&options.directory, options.group);
    let disk = directory.disk();
    let log_options = options.log.clone();
    let (log, recovered) =
        JournalLog::open(Arc::clone(&disk), &directory.log_directory(group), log_options)?;
    let latest = recovered.snapshot.clone();
    let snapshots =
        SnapshotStore::open(disk, &directory.snapshot_directory(group), latest.as_ref())?;
    restore_if_behind(&mut machine, &snapshots, latest)?;
    let (watched, quiet_after, inputs) = match member {
        Some(member) => (Some(member.watched), member.quiet_after, member.inputs),
        None => (None, None, mpsc::unbounded_channel()),
    };
    let replica = replica(&options, quiet_after, recovered, &machine)?;

    let id = replica.node().id();
    // Each carries one answer to a job under way, and the core bounds those by bytes: a bound here could only deadlock.
    let (completions, completed) = inputs;
    let (failures, failed) = mpsc::unbounded_channel();
    let sync_counters = Arc::new(SyncCounters::default());
    let reader = machine.reader();
    let chunk_bytes = options.limits.snapshot_chunk_bytes;
    let log_reader = log.reader();
    let mut handles = Vec::new();
    let start_transfer: task::StartTransfer = Box::new({
        let (log, snapshots) = (log_reader.clone(), snapshots.clone());
        let completions = completions.clone();
        move || {
            let name = "raft-transfer".to_owned();
            transfer_thread::start(log, snapshots, chunk_bytes, completions, failures, name)
        }
    });
    let transfer = TransferSide::Later(Some(start_transfer));
    let worker = apply_thread::Worker {
        machine,
        log: log_reader,
        snapshots: snapshots.clone(),
        completions: completions.clone(),
        writing: apply_thread::Writing::default(),
    };
    let apply = if options.apply_inline {
        ApplySide::Inline { worker: Box::new(worker), jobs: VecDeque::new() }
    } else {
        let (jobs, thread) =
            apply_thread::start(worker, completions.clone(), "raft-apply".to_owned())?;
        handles.push(thread);
        ApplySide::Thread(jobs)
    };
    let log = if options.is_log_in_memory {
        LogSide::Inline { log: Box::new(log), written: None }
    } else {
        let counters = Arc::clone(&sync_counters);
        let (jobs, thread) =
            log_thread::start(log, completions.clone(), counters, "raft-log".to_owned())?;
        handles.push(thread);
        LogSide::Thread(jobs)
    };

    let (commands, command_queue) = mpsc::channel(options.limits.commands.max(1));
    let (status, status_watch) = watch::channel(Status::of(&replica, clock::now()));
    let after_panic = status.clone();
    let mut logs = Logs::new(id);
    logs.started(replica.node().term(), replica.node().log().last());
    logs.damage(replica.node().log().damaged());
    let (inbox, messages, dropped) = inbox::open(&options.limits);
    transport.register(options.group, inbox);
    let workers = Workers { log, apply, transfer, handles };
    let read_timeout = options.timing.read_timeout;
    let task = Task::new(
        Parts {
            replica,
            workers,
            transport,
            status,
            logs,
            sync_counters,
            snapshots,
            dropped,
            read_timeout,
            watched,
        },
        options.directory,
    );
    let queues = Queues { commands: command_queue, messages, completed, failed };
    let running = tokio::spawn(task.run(queues));
    tokio::spawn(async move {
        let Err(ended) = running.await else { return };
        // Whoever looks after the node must not take this for a stop that was asked for.
        if let Ok(panic) = ended.try_into_panic() {
            let fatal = FatalError::Panicked(apply_thread::panic_text(&*panic));
            after_panic.send_modify(|status| {
                status.is_stopped = true;
                status.fatal = Some(fatal);
            });
        }
    });
    Ok(Raft { commands, status: status_watch, reader })
}

/// Whether all that the node's limits let in fits into its log and through the transport. The leader's own log would refuse it too late: the
/// command is taken by then, and a write that fails is the end of a node.
fn check_limits(options: &NodeOptions, message_max: usize) -> Result<(), StartError> {
    let (limits, log) = (&options.limits, &options.log.journal);
    let needs = |size: usize| u64::try_from(size).unwrap_or(u64::MAX);
    // One command is taken whatever waits, others up to the limit; all of them may come in one batch. The core counts 32 bytes beside each,
    // and the log takes up to 35 of them.
    let waiting = needs(limits.uncommitted_bytes);
    let waiting = waiting.saturating_add(waiting / 8);
    let command = ("command_bytes", limits.command_bytes, needs(limits.command_bytes));
    let uncommitted = ("uncommitted_bytes", limits.uncommitted_bytes, waiting);
    let chunk_bytes = limits.snapshot_chunk_bytes;
    let chunk = ("snapshot_chunk_bytes", chunk_bytes, needs(chunk_bytes));
    let item_max = ("the log's item_size_max", log.item_size_max);
    let batch_max = ("the log's batch_size_max", log.batch_size_max);
    let message_max = ("the transport's message_max", needs(message_max));
    let pairs = [
        (command, item_max),
        (command, message_max),
        (chunk, message_max),
        (command, batch_max),
        (uncommitted, batch_max),
    ];
    for ((setting, bytes, needed), (limit, max)) in pairs {
        if needed.saturating_add(AROUND) > max {
            return Err(StartError::Limits { setting, bytes, limit, max });
        }
    }
    Ok(())
}

/// A machine in memory begins with the latest snapshot; one that kept more by itself begins where it is.
fn restore_if_behind<M: DurableStateMachine>(
    machine: &mut M,
    snapshots: &SnapshotStore,
    latest: Option<SnapshotMeta>,
) -> Result<(), StartError> {
    let Some(meta) = latest else { return Ok(()) };
    if machine.applied().index >= meta.last.index {
        return Ok(());
    }
    apply_thread::restore(machine, snapshots, &meta)
        .map_err(|source| StartError::Restore { snapshot: Box::new(meta), source })
}

fn replica<M: DurableStateMachine>(
    options: &NodeOptions,
    quiet_after: Option<Duration>,
    recovered: RecoveredState,
    machine: &M,
) -> Result<Replica, RecoverError> {
    let identity = options.directory.identity();
    let (timing, limits) = (&options.timing, &options.limits);
    let [boot, seed] = {
        let random = random();
        [random >> 64, random]
            .map(|bits| u64::try_from(bits & u128::from(u64::MAX)).expect("64 bits"))
    };
    let config = Config {
        cluster: identity.cluster,
        group: options.group,
        boot,
        election_timeout: timing.election_timeout.clone(),
        heartbeat: timing.heartbeat,
        uncommitted_bytes_max: limits.uncommitted_bytes,
        command_bytes_max: limits.command_bytes,
        tail_bytes_max: limits.tail_bytes,
        kept_entries: limits.kept_entries,
        reads_max: limits.reads,
        reads: options.reads,
        quiet_after,
        ..Config::new(identity.node, identity.store, options.founding())
    };
    let mut node = RaftNode::recover(config, recovered, seed, clock::now())?;
    node.resume_at(machine.applied())?;
    let config = ReplicaConfig {
        snapshot_entries: limits.snapshot_entries,
        apply_lag_max: limits.apply_lag,
        reads_max: limits.reads,
        read_retry: timing.election_timeout.start,
        snapshot_bytes_per_second: limits.snapshot_bytes_per_second,
        ..ReplicaConfig::default()
    };
    Ok(Replica::new(node, config))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::NodeId;

    const MIB: usize = 1 << 20;

    fn refusal(message_max: usize, change: impl FnOnce(&mut NodeOptions)) -> Option<String> {
        let mut options = NodeOptions::in_memory(NodeId(1), [NodeId(1)]);
        change(&mut options);
        check_limits(&options, message_max).err().map(|error| error.to_string())
    }

    #[test]
    fn the_usual_limits_fit_the_usual_log_and_any_transport() {
        assert_eq!(refusal(usize::MAX, |_| ()), None);
        assert_eq!(refusal(64 * MIB, |_| ()), None, "the gRPC transport's");
    }

    #[test]
    fn limits_that_let_in_what_another_refuses_are_named_with_it() {
        let refused = |message_max: usize, change: fn(&mut NodeOptions)| {
            let text = refusal(message_max, change).expect("it is refused");
            text.split(", ").next().unwrap_or_default().to_owned()
        };
        assert_eq!(
            refused(usize::MAX, |options| options.limits.command_bytes = 64 * MIB),
            "command_bytes of 67108864 bytes is too much for the log's item_size_max of 67108864 \
             bytes"
        );
        assert_eq!(
            refused(16 * MIB + 60, |_| ()),
            "command_bytes of 16777216 bytes is too much for the transport's message_max of \
             16777276 bytes"
        );
        assert_eq!(
            refused(MIB, |options| {
                (options.limits.command_bytes, options.limits.snapshot_chunk_bytes) = (1000, MIB);
            }),
            "snapshot_chunk_bytes of 1048576 bytes is too much for the transport's message_max of \
             1048576 bytes"
        );
        assert_eq!(
            refused(usize::MAX, |options| options.log.journal.batch_size_max = 16 << 20),
            "command_bytes of 16777216 bytes is too much for the log's batch_size_max of 16777216 \
             bytes"
        );
        assert_eq!(
            refused(usize::MAX, |options| options.limits.uncommitted_bytes = 120 * MIB),
            "uncommitted_bytes of 125829120 bytes is too much for the log's batch_size_max of \
             134217728 bytes"
        );
    }
}
