//! The state machine's worker: one job at a time, in the order in which they were given.

use std::collections::VecDeque;

use lattice_sim::Chance;

use super::{Doings, Host, Pending, Running, Workload, reason};
use crate::membership::Membership;
use crate::replica::{Input, Run, SnapshotOutcome};
use crate::sim::workload::digest;
use crate::state_machine::{Committed, DurableStateMachine, Reply};
use crate::storage::{LogReader, SnapshotError, StorageError};
use crate::types::{Entry, EntryId, Payload, SnapshotMeta};

/// Something for the machine to do.
#[derive(Debug)]
pub(super) enum Job {
    Apply(Run),
    Restore(SnapshotMeta),
    Snapshot { last: EntryId, membership: Membership },
}

/// The worker.
#[derive(Debug, Default)]
pub(super) struct Worker {
    jobs: VecDeque<Job>,
    is_busy: bool,
    /// The job under way has had its effect already; this is what will be told at its end.
    done: Option<Pending>,
}

impl Worker {
    pub(super) fn push(&mut self, job: Job) {
        self.jobs.push_back(job);
    }
}

impl<W: Workload> Running<W> {
    /// Begins the next job.
    pub(super) fn work(&mut self, context: &mut Host<'_>, doings: &mut Doings) {
        if self.worker.is_busy || self.worker.jobs.is_empty() {
            return;
        }
        self.worker.is_busy = true;
        // Reads see what a run did before the replica hears that it is done, or at the very same time.
        if Chance::percent(50).happens(context.rng()) {
            self.worker.done = Some(self.do_job(context, doings));
        }
        let setup = &self.setup;
        let mut delay = setup.work.draw(context.rng());
        if setup.stall.happens(context.rng()) {
            delay += setup.stalled.draw(context.rng());
        }
        self.later(delay, Pending::Job, context);
    }

    pub(super) fn end_job(&mut self, context: &mut Host<'_>, doings: &mut Doings) {
        let done = match self.worker.done.take() {
            Some(done) => done,
            None => self.do_job(context, doings),
        };
        self.worker.is_busy = false;
        match done {
            Pending::Input(
                input @ (Input::Applied { .. }
                | Input::RunUnreadable(_)
                | Input::RunStopped { .. }
                | Input::Restored(_)),
            ) => {
                self.inputs.push_back(input);
            }
            // What was written to the disk for it has to be there first.
            done => self.after_disk(done, context),
        }
    }

    fn do_job(&mut self, context: &mut Host<'_>, doings: &mut Doings) -> Pending {
        let done = match self.worker.jobs.pop_front().expect("a job is under way") {
            Job::Apply(run) => self.apply(run, doings),
            Job::Restore(meta) => self.restore(meta, doings),
            Job::Snapshot { last, membership } => self.take_snapshot(last, &membership, doings),
        };
        match done {
            Ok(input) => Pending::Input(input),
            Err(reason) => {
                context.trace(lattice_trace::kind::APPLIED, format_args!("failed: {reason}"));
                Pending::Failure(reason)
            }
        }
    }

    fn apply(&mut self, run: Run, doings: &mut Doings) -> Result<Input, String> {
        let (first, through) = run.range.into_inner();
        let mut entries = run.entries.unwrap_or_default().into_vec();
        let mut damaged = None;
        while entries.last().map_or(first.previous(), |entry| entry.id.index) < through {
            let next = entries.last().map_or(first, |entry| entry.id.index.next());
            match self.log_reader.entries(next..=through, self.setup.replica.apply_bytes_max) {
                Ok(more) => entries.extend(more),
                Err(error @ StorageError::OutOfRange { .. }) => {
                    return Ok(Input::RunUnreadable(error.to_string()));
                }
                Err(StorageError::Damaged { first, last, .. }) => {
                    damaged = Some((first, last));
                    break;
                }
                Err(error) => return Err(reason(&error)),
            }
        }
        let last = entries.last().map_or(self.machine.applied(), |entry| entry.id);
        let committed: Vec<Committed> = entries.into_iter().map(to_committed).collect();
        let mut replies = Vec::new();
        self.machine.apply(&committed, &mut replies).map_err(|error| reason(&error))?;
        let with_command = committed.iter().filter(|entry| entry.command.is_some());
        let replies: Vec<(EntryId, Reply)> =
            with_command.map(|entry| entry.id).zip(replies).collect();
        doings.applied.extend(committed);
        Ok(match damaged {
            None => Input::Applied { last, replies },
            Some(damaged) => Input::RunStopped { last, replies, damaged },
        })
    }

    fn restore(&mut self, meta: SnapshotMeta, doings: &mut Doings) -> Result<Input, String> {
        let mut parts = self.snapshots.open_parts(&meta).map_err(|error| reason(&error))?;
        let restored = self.machine.restore(meta.last, &mut parts);
        restored.map_err(|error| reason(error.as_ref()))?;
        doings.states.push((meta.last, state_digest(&self.machine)?));
        Ok(Input::Restored(meta.last))
    }

    fn take_snapshot(
        &mut self,
        last: EntryId,
        membership: &Membership,
        doings: &mut Doings,
    ) -> Result<Input, String> {
        assert_eq!(self.machine.applied(), last, "a snapshot stands for what was given out");
        let outcome = match self.write_view(last, membership) {
            Ok(Some(meta)) => {
                doings.states.push((last, state_digest(&self.machine)?));
                SnapshotOutcome::Taken(meta)
            }
            Ok(None) => SnapshotOutcome::Unsupported,
            Err(error) if error.is_fatal() => return Err(reason(&error)),
            Err(error) => {
                self.snapshots.remove_unneeded().map_err(|error| reason(&error))?;
                SnapshotOutcome::Failed(reason(&error))
            }
        };
        Ok(Input::SnapshotTaken(outcome))
    }

    fn write_view(
        &self,
        last: EntryId,
        membership: &Membership,
    ) -> Result<Option<SnapshotMeta>, SnapshotError> {
        let view = self.machine.view().expect("the machines of simulations can be viewed");
        let Some(mut view) = view else { return Ok(None) };
        let mut writer = self.snapshots.begin(last, membership);
        while let Some(part) = view.next_part().expect("the machines of simulations can be viewed")
        {
            writer.part(&part)?;
        }
        writer.finish().map(Some)
    }
}

fn to_committed(entry: Entry) -> Committed {
    let command = match entry.payload {
        Payload::Command(command) => Some(command),
        Payload::Noop | Payload::Membership(_) => None,
    };
    Committed { id: entry.id, session: entry.session, command }
}

/// A digest of a machine's whole state; zero for a machine without snapshots.
pub(in crate::sim) fn state_digest<M: DurableStateMachine>(machine: &M) -> Result<u64, String> {
    let Some(mut view) = machine.view().map_err(|error| error.to_string())? else { return Ok(0) };
    let mut state = 0;
    while let Some(part) = view.next_part().map_err(|error| error.to_string())? {
        state = digest(digest(state, part.name.as_bytes()), &part.data);
    }
    Ok(state)
}
