//! The thread that reads and writes for transfers: old entries and pieces of snapshots for followers that are behind, and pieces of
//! the snapshot that a leader sends us.
#![expect(clippy::disallowed_methods, reason = "transfers have a thread of their own")]

use std::ops::RangeInclusive;
use std::sync::mpsc::{Receiver, RecvError, Sender, TryRecvError, channel};
use std::thread::JoinHandle;

use bytes::Bytes;
use tokio::sync::mpsc::UnboundedSender;

use crate::replica::Input;
use crate::storage::{LogReader, Received, SnapshotError, SnapshotStore, StorageError};
use crate::types::{Entry, LogIndex, NodeId, SnapshotMeta};

use super::log_thread::{or_report_panic, with_causes};

/// What the thread is asked to do: at most one job of each kind for each peer is under way.
#[derive(Debug)]
pub(super) enum TransferJob {
    ReadEntries { to: NodeId, range: RangeInclusive<LogIndex>, bytes_max: usize },
    ReadForRepair { to: NodeId, range: RangeInclusive<LogIndex>, bytes_max: usize },
    ReadSnapshot { to: NodeId, meta: SnapshotMeta, offset: u64 },
    WriteSnapshot { meta: SnapshotMeta, offset: u64, data: Bytes },
    RemoveSnapshots { before: LogIndex },
}

/// What could not be done, for the log.
#[derive(Debug)]
pub(super) struct TransferFailed {
    pub(super) what: &'static str,
    pub(super) reason: String,
}

/// Starts the thread. It ends when the sender is dropped.
pub(super) fn start<R: LogReader>(
    log: R,
    snapshots: SnapshotStore,
    chunk_bytes: usize,
    completions: UnboundedSender<Input>,
    failures: UnboundedSender<TransferFailed>,
    name: String,
) -> std::io::Result<(Sender<TransferJob>, JoinHandle<()>)> {
    let (jobs, queue) = channel();
    let reporter = completions.clone();
    let worker = Worker { log, snapshots, chunk_bytes, completions, failures };
    let work = move || or_report_panic(&reporter, || worker.run(&queue));
    let thread = std::thread::Builder::new().name(name).spawn(work)?;
    Ok((jobs, thread))
}

struct Worker<R> {
    log: R,
    snapshots: SnapshotStore,
    chunk_bytes: usize,
    completions: UnboundedSender<Input>,
    failures: UnboundedSender<TransferFailed>,
}

impl<R: LogReader> Worker<R> {
    fn run(self, queue: &Receiver<TransferJob>) {
        // What a job has left to be done: other jobs go first.
        let mut rest = None;
        loop {
            let job = match queue.try_recv() {
                Ok(job) => job,
                Err(TryRecvError::Disconnected) => return,
                Err(TryRecvError::Empty) => match rest.take().map_or_else(|| queue.recv(), Ok) {
                    Ok(job) => job,
                    Err(RecvError) => return,
                },
            };
            let Some(input) = self.work(job, &mut rest) else { continue };
            if self.completions.send(input).is_err() {
                return;
            }
        }
    }

    fn work(&self, job: TransferJob, rest: &mut Option<TransferJob>) -> Option<Input> {
        match job {
            TransferJob::ReadEntries { to, range, bytes_max } => {
                let entries = self.read(range, bytes_max);
                Some(Input::EntriesRead { to, entries })
            }
            TransferJob::ReadForRepair { to, range, bytes_max } => {
                let entries = self.read(range, bytes_max);
                Some(Input::RepairRead { to, entries })
            }
            TransferJob::ReadSnapshot { to, meta, offset } => {
                let data = self.snapshots.read(&meta, offset, self.chunk_bytes);
                let data = self.or_log("read a snapshot for a follower", data);
                Some(Input::SnapshotRead { to, meta, offset, data })
            }
            TransferJob::WriteSnapshot { meta, offset, data } => {
                self.write(meta, offset, &data, rest)
            }
            TransferJob::RemoveSnapshots { before } => {
                self.or_log("remove old snapshots", self.snapshots.retain(before));
                None
            }
        }
    }

    /// Entries for another node; none if they cannot be read. If that is because they are damaged, our own node hears of it first.
    fn read(&self, range: RangeInclusive<LogIndex>, bytes_max: usize) -> Vec<Entry> {
        let entries = self.log.entries(range, bytes_max);
        if let Err(StorageError::Damaged { first, last, .. }) = entries {
            // If the node has gone, it needs no repair.
            let _: Result<(), _> = self.completions.send(Input::EntriesDamaged { first, last });
        }
        self.or_log("read entries for a follower", entries).unwrap_or_default()
    }

    fn write(
        &self,
        meta: SnapshotMeta,
        offset: u64,
        data: &[u8],
        rest: &mut Option<TransferJob>,
    ) -> Option<Input> {
        match self.snapshots.receive(&meta, offset, data) {
            Ok(Received { next, is_busy: true, .. }) => {
                *rest = Some(TransferJob::WriteSnapshot { meta, offset: next, data: Bytes::new() });
                None
            }
            Ok(Received { next, is_complete, .. }) => {
                Some(Input::SnapshotWritten { meta, offset: next, is_complete })
            }
            Err(error) if error.is_fatal() => {
                let error = with_causes(&error);
                Some(Input::PersistFailed { token: crate::effects::IoToken::default(), error })
            }
            Err(error) => {
                // A full disk, or bytes that do not add up. To want the same again makes the leader wait before it tries.
                self.or_log::<(), SnapshotError>("take in the leader's snapshot", Err(error));
                Some(Input::SnapshotWritten { meta, offset, is_complete: false })
            }
        }
    }

    fn or_log<T, E: std::error::Error>(
        &self,
        what: &'static str,
        result: Result<T, E>,
    ) -> Option<T> {
        let failed = |error: E| TransferFailed { what, reason: with_causes(&error) };
        match result.map_err(failed) {
            Ok(value) => Some(value),
            Err(failure) => {
                // If the node has gone, nobody reads its log either.
                let _: Result<(), _> = self.failures.send(failure);
                None
            }
        }
    }
}
