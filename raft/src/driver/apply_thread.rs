//! Who owns the state machine: a thread, or the node's own task if it is to be applied inline. It applies, restores, and takes views for snapshots, one after the other.
//!
//! A snapshot is *taken* here, between two runs, as a view; it is *written* by a thread of its own, so that applying goes on.
#![expect(clippy::disallowed_methods, reason = "the state machine runs on a thread of its own")]

use std::any::Any;
use std::fmt::{self, Debug};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;

use tokio::sync::mpsc::UnboundedSender;

use crate::membership::Membership;
use crate::replica::{Input, Run, SnapshotOutcome};
use crate::state_machine::{
    BoxError, Committed, DurableStateMachine, Reply, SnapshotView, SyncJob,
};
use crate::storage::{LogReader, SnapshotStore, StorageError};
use crate::types::{Entry, EntryId, Payload, SnapshotMeta};

use super::log_thread::with_causes;

/// What the state machine's thread is asked to do: one run at a time, or one snapshot.
#[derive(Debug)]
pub(super) enum ApplyJob {
    Run(Run),
    Restore(SnapshotMeta),
    TakeSnapshot { last: EntryId, membership: Membership },
}

/// Bytes of entries read back from the log at a time.
const READ_BYTES: usize = 1 << 20;

/// Who owns the state machine, and does one job after the other: on a thread, or in the node's own task.
pub(super) trait Apply: Debug + Send {
    /// Does a job. What fails is an answer too, and the last one.
    fn answer(&mut self, job: ApplyJob) -> Option<Input>;
}

/// Starts the thread. It ends when the sender is dropped.
pub(super) fn start(
    mut worker: impl Apply + 'static,
    completions: UnboundedSender<Input>,
    name: String,
) -> std::io::Result<(Sender<ApplyJob>, JoinHandle<()>)> {
    let (jobs, queue): (_, Receiver<ApplyJob>) = channel();
    let run = move || {
        while let Ok(job) = queue.recv() {
            let Some(input) = worker.answer(job) else { continue };
            let is_over = matches!(input, Input::ApplyFailed(_));
            if completions.send(input).is_err() || is_over {
                return;
            }
        }
    };
    let thread = std::thread::Builder::new().name(name).spawn(run)?;
    Ok((jobs, thread))
}

/// The state machine, and what it needs.
pub(super) struct Worker<M, R> {
    pub(super) machine: M,
    pub(super) log: R,
    pub(super) snapshots: SnapshotStore,
    /// Whom the thread that writes a snapshot tells.
    pub(super) completions: UnboundedSender<Input>,
}

impl<M, R> Debug for Worker<M, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Worker")
    }
}

impl<M: DurableStateMachine, R: LogReader> Apply for Worker<M, R> {
    fn answer(&mut self, job: ApplyJob) -> Option<Input> {
        // A panic leaves the machine in a state that nobody may see: the node stops.
        let result = catch_unwind(AssertUnwindSafe(|| self.work(job)))
            .unwrap_or_else(|panic| Err(format!("it panicked: {}", panic_text(&*panic)).into()));
        result.unwrap_or_else(|error| Some(Input::ApplyFailed(with_causes(&*error))))
    }
}

impl<M: DurableStateMachine, R: LogReader> Worker<M, R> {
    fn work(&mut self, job: ApplyJob) -> Result<Option<Input>, BoxError> {
        match job {
            ApplyJob::Run(run) => self.apply(run).map(Some),
            ApplyJob::Restore(meta) => {
                restore(&mut self.machine, &self.snapshots, &meta)?;
                Ok(Some(Input::Restored(meta.last)))
            }
            ApplyJob::TakeSnapshot { last, membership } => self.take_snapshot(last, membership),
        }
    }

    fn apply(&mut self, run: Run) -> Result<Input, BoxError> {
        let mut replies = Vec::new();
        let (mut next, through) = (*run.range.start(), *run.range.end());
        let mut entries = run.entries;
        while next <= through {
            let piece = match entries.take() {
                Some(entries) => entries,
                None => match self.log.entries(next..=through, READ_BYTES) {
                    Ok(entries) => entries.into(),
                    // The replica knows whether a snapshot from the leader took their place.
                    Err(error @ StorageError::OutOfRange { .. }) => {
                        return Ok(Input::RunUnreadable(error.to_string()));
                    }
                    // It can be repaired; what is behind it waits.
                    Err(StorageError::Damaged { first, last, .. }) => {
                        let applied = self.machine.applied();
                        let damaged = (first, last);
                        return Ok(Input::RunStopped { last: applied, replies, damaged });
                    }
                    Err(error) => return Err(error.into()),
                },
            };
            let last = piece.last().map(|entry| entry.id).ok_or("the log gave no entries")?;
            self.apply_piece(&piece, &mut replies)?;
            next = last.index.next();
        }
        Ok(Input::Applied { last: self.machine.applied(), replies })
    }

    fn apply_piece(
        &mut self,
        entries: &[Entry],
        replies: &mut Vec<(EntryId, Reply)>,
    ) -> Result<(), BoxError> {
        let committed: Vec<Committed> = entries.iter().map(committed).collect();
        let mut answers = Vec::with_capacity(committed.len());
        self.machine.apply(&committed, &mut answers)?;
        let commands = committed.iter().filter(|entry| entry.command.is_some());
        let ids: Vec<EntryId> = commands.map(|entry| entry.id).collect();
        if ids.len() != answers.len() {
            let (commands, answers) = (ids.len(), answers.len());
            return Err(format!("it gave {answers} replies to {commands} commands").into());
        }
        if self.machine.applied() != committed.last().map_or(EntryId::ZERO, |entry| entry.id) {
            return Err("it does not say that it applied what it was given".into());
        }
        replies.extend(ids.into_iter().zip(answers));
        Ok(())
    }

    fn take_snapshot(
        &mut self,
        last: EntryId,
        membership: Membership,
    ) -> Result<Option<Input>, BoxError> {
        if self.machine.applied() != last {
            return Err(format!("it stands at {}, not at {last}", self.machine.applied()).into());
        }
        let sync = self.machine.sync();
        // A snapshot that cannot be taken changes nothing: were it the node's end, it would be that of every node at the same entry.
        let failed = |error: &dyn std::error::Error| {
            let outcome = SnapshotOutcome::Failed(with_causes(error));
            Ok(Some(Input::SnapshotTaken(outcome)))
        };
        let view = match self.machine.view() {
            Ok(Some(view)) => view,
            Ok(None) => return Ok(Some(Input::SnapshotTaken(SnapshotOutcome::Unsupported))),
            Err(error) => return failed(&*error),
        };
        let (snapshots, completions) = (self.snapshots.clone(), self.completions.clone());
        let write = move || {
            let job = WriteJob { snapshots, last, membership, view, sync };
            // A node that has gone meanwhile needs no answer.
            let _: Result<(), _> = completions.send(job.run());
        };
        let thread = std::thread::Builder::new().name("raft-apply-snapshot".to_owned());
        thread.spawn(write).map_or_else(|error| failed(&error), |_| Ok(None))
    }
}

/// Writes a snapshot beside the machine.
struct WriteJob {
    snapshots: SnapshotStore,
    last: EntryId,
    membership: Membership,
    view: Box<dyn SnapshotView>,
    sync: Option<SyncJob>,
}

impl WriteJob {
    fn run(self) -> Input {
        let written = catch_unwind(AssertUnwindSafe(|| self.write()));
        Input::SnapshotTaken(match written {
            Ok(Ok(meta)) => SnapshotOutcome::Taken(meta),
            Ok(Err(error)) => SnapshotOutcome::Failed(with_causes(&*error)),
            Err(panic) => SnapshotOutcome::Failed(panic_text(&*panic)),
        })
    }

    fn write(mut self) -> Result<SnapshotMeta, BoxError> {
        if let Some(sync) = self.sync.take() {
            sync()?;
        }
        let mut writer = self.snapshots.begin(self.last, &self.membership);
        while let Some(part) = self.view.next_part()? {
            writer.part(&part)?;
        }
        Ok(writer.finish()?)
    }
}

/// Puts a machine into the state of a snapshot.
pub(super) fn restore<M: DurableStateMachine>(
    machine: &mut M,
    snapshots: &SnapshotStore,
    meta: &SnapshotMeta,
) -> Result<(), BoxError> {
    let mut parts = snapshots.open_parts(meta)?;
    machine.restore(meta.last, &mut parts)?;
    if machine.applied() == meta.last {
        Ok(())
    } else {
        Err(format!("after restoring {} it stands at {}", meta.last, machine.applied()).into())
    }
}

pub(super) fn committed(entry: &Entry) -> Committed {
    let command = match &entry.payload {
        Payload::Command(command) => Some(command.clone()),
        Payload::Noop | Payload::Membership(_) => None,
    };
    Committed { id: entry.id, session: entry.session, command }
}

pub(super) fn panic_text(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(ToString::to_string);
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_default()
}
