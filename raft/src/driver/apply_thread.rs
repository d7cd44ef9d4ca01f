//! Who owns the state machine: a thread, or the node's own task if it is to be applied inline. It applies, restores, and takes views for snapshots, one after the other.
//!
//! A snapshot is *taken* here, between two runs, as a view; it is *written* by a thread of its own, so that applying goes on. That thread
//! ends with the node: it gives up before the next part, and is waited for.
#![expect(clippy::disallowed_methods, reason = "the state machine runs on a thread of its own")]

use std::any::Any;
use std::fmt::{self, Debug};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;

use tokio::sync::mpsc::UnboundedSender;

use crate::effects::IoToken;
use crate::membership::Membership;
use crate::replica::{Input, Run, SnapshotOutcome};
use crate::state_machine::{
    BoxError, Committed, DurableStateMachine, Reply, SnapshotView, SyncJob,
};
use crate::storage::{LogReader, SnapshotError, SnapshotStore, StorageError};
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
    /// That thread, while it may run.
    pub(super) writing: Writing,
}

/// The thread that writes a snapshot: one at a time, since the replica asks for the next when it has heard of the last.
#[derive(Debug, Default)]
pub(super) struct Writing {
    thread: Option<JoinHandle<()>>,
    /// The node has ended: nobody wants the snapshot.
    is_over: Arc<AtomicBool>,
}

impl Drop for Writing {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Relaxed);
        // It has reported a panic as a failure. One that hangs in the disk hangs us, and is left behind as we are.
        drop(self.thread.take().map(JoinHandle::join));
    }
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
        let is_over = Arc::clone(&self.writing.is_over);
        let write = move || {
            let job = WriteJob { snapshots, last, membership, view, sync, is_over };
            // A node that has gone meanwhile needs no answer.
            let _: Result<(), _> = completions.send(job.run());
        };
        let thread = std::thread::Builder::new().name("raft-apply-snapshot".to_owned());
        match thread.spawn(write) {
            Ok(thread) => {
                self.writing.thread = Some(thread);
                Ok(None)
            }
            Err(error) => failed(&error),
        }
    }
}

/// Writes a snapshot beside the machine.
struct WriteJob {
    snapshots: SnapshotStore,
    last: EntryId,
    membership: Membership,
    view: Box<dyn SnapshotView>,
    sync: Option<SyncJob>,
    is_over: Arc<AtomicBool>,
}

/// How the writing of a snapshot ended early.
enum WriteError {
    /// The machine could not make what it has durable. Nobody knows what it holds now.
    Sync(BoxError),
    /// The machine could not be viewed to the end.
    View(BoxError),
    Store(SnapshotError),
    /// The node has ended.
    Over,
}

impl From<SnapshotError> for WriteError {
    fn from(error: SnapshotError) -> Self {
        Self::Store(error)
    }
}

impl WriteJob {
    fn run(self) -> Input {
        let (snapshots, is_over) = (self.snapshots.clone(), Arc::clone(&self.is_over));
        let written = catch_unwind(AssertUnwindSafe(|| self.write()));
        let failure = match written {
            Ok(Ok(meta)) => return Input::SnapshotTaken(SnapshotOutcome::Taken(meta)),
            // After a failed sync nothing is tried again: what the disk holds is not known.
            Ok(Err(WriteError::Store(error))) if error.is_fatal() => {
                let error = with_causes(&error);
                return Input::PersistFailed { token: IoToken::default(), error };
            }
            Ok(Err(WriteError::Sync(error))) => return Input::ApplyFailed(with_causes(&*error)),
            Ok(Err(WriteError::Store(error))) => with_causes(&error),
            Ok(Err(WriteError::View(error))) => with_causes(&*error),
            Ok(Err(WriteError::Over)) => "the node has ended".to_owned(),
            Err(panic) => panic_text(&*panic),
        };
        // The directory is the next node's once ours has ended: it knows better what is needed.
        if !is_over.load(Ordering::Relaxed) {
            // What cannot be removed now is with the next snapshot.
            let _: Result<(), _> = snapshots.remove_unneeded();
        }
        Input::SnapshotTaken(SnapshotOutcome::Failed(failure))
    }

    fn write(mut self) -> Result<SnapshotMeta, WriteError> {
        if let Some(sync) = self.sync.take() {
            sync().map_err(WriteError::Sync)?;
        }
        let mut writer = self.snapshots.begin(self.last, &self.membership);
        while let Some(part) = self.view.next_part().map_err(WriteError::View)? {
            if self.is_over.load(Ordering::Relaxed) {
                return Err(WriteError::Over);
            }
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

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::sync::mpsc::{SyncSender, sync_channel};

    use lattice_journal::Disk;
    use lattice_sim::SimDisk;

    use super::*;
    use crate::state_machine::Part;
    use crate::types::{LogIndex, NodeId, Term};

    const DIRECTORY: &str = "/snapshots";

    /// Parts without end. It says when the second is asked for, and gives it when it is told to.
    struct Endless {
        given: u32,
        asked: SyncSender<()>,
        go_on: Receiver<()>,
    }

    impl SnapshotView for Endless {
        fn next_part(&mut self) -> Result<Option<Part>, BoxError> {
            if self.given == 1 {
                self.asked.send(())?;
                self.go_on.recv()?;
            }
            self.given += 1;
            let name = self.given.to_string();
            Ok(Some(Part { data: name.clone().into_bytes().into(), name }))
        }
    }

    struct Once(Option<Part>);

    impl SnapshotView for Once {
        fn next_part(&mut self) -> Result<Option<Part>, BoxError> {
            Ok(self.0.take())
        }
    }

    fn open(disk: &SimDisk) -> SnapshotStore {
        let disk: Arc<dyn Disk> = Arc::new(disk.clone());
        SnapshotStore::open(disk, Path::new(DIRECTORY), None).unwrap()
    }

    fn job(snapshots: &SnapshotStore, view: impl SnapshotView + 'static) -> WriteJob {
        WriteJob {
            snapshots: snapshots.clone(),
            last: EntryId::new(Term(1), LogIndex(7)),
            membership: Membership::founding([NodeId(1)]),
            view: Box::new(view),
            sync: None,
            is_over: Arc::default(),
        }
    }

    fn once() -> Once {
        Once(Some(Part { name: "all".to_owned(), data: b"data".to_vec().into() }))
    }

    #[test]
    fn a_failed_sync_of_a_snapshot_of_our_own_is_fatal_and_other_failures_are_not() {
        for sync in 1..=4 {
            let disk = SimDisk::new(1);
            let snapshots = open(&disk);
            disk.fail_sync_at(sync);
            let input = job(&snapshots, once()).run();
            assert!(matches!(input, Input::PersistFailed { .. }), "{input:?}");
        }
        let disk = SimDisk::new(1);
        let snapshots = open(&disk);
        let unsynced =
            WriteJob { sync: Some(Box::new(|| Err("torn".into()))), ..job(&snapshots, once()) };
        assert!(matches!(unsynced.run(), Input::ApplyFailed(_)));
        disk.set_capacity(Some(disk.used() + 1));
        let full = job(&snapshots, once()).run();
        assert!(matches!(full, Input::SnapshotTaken(SnapshotOutcome::Failed(_))), "{full:?}");
        disk.set_capacity(None);
        let taken = job(&snapshots, once()).run();
        assert!(matches!(taken, Input::SnapshotTaken(SnapshotOutcome::Taken(_))), "{taken:?}");
    }

    #[test]
    fn a_snapshot_that_is_being_written_ends_with_its_node_and_takes_nothing_from_the_next() {
        let disk = SimDisk::new(1);
        let old = open(&disk);
        let ((asked, is_asked), (go_on, told)) = (sync_channel(1), sync_channel(1));
        let view = Endless { given: 0, asked, go_on: told };
        let mut writing = Writing::default();
        let job = WriteJob { is_over: Arc::clone(&writing.is_over), ..job(&old, view) };
        let (completions, mut completed) = tokio::sync::mpsc::unbounded_channel();
        let write = move || completions.send(job.run()).unwrap();
        writing.thread = Some(std::thread::spawn(write));
        is_asked.recv().unwrap();
        // The next node begins a snapshot of its own while the part of the old one is under way.
        let new = open(&disk);
        let mut writer =
            new.begin(EntryId::new(Term(1), LogIndex(9)), &Membership::founding([NodeId(1)]));
        writer.part(&Part { name: "new".to_owned(), data: b"new".to_vec().into() }).unwrap();
        writing.is_over.store(true, Ordering::Relaxed);
        go_on.send(()).unwrap();
        drop(writing);
        let Some(Input::SnapshotTaken(SnapshotOutcome::Failed(reason))) = completed.blocking_recv()
        else {
            panic!("it gives up")
        };
        assert_eq!(reason, "the node has ended");
        new.verify(&writer.finish().unwrap()).unwrap();
    }
}
