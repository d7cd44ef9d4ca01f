//! The task that owns the replica.

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::Sender;
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::sync::mpsc::{Receiver, UnboundedReceiver};
use tokio::sync::{oneshot, watch};

use crate::effects::{FatalError, IoToken, OrderError, ProposalId};
use crate::message::Message;
use crate::raft_node::{Proposal, QuietStanding};
use crate::replica::{Input, Output, Replica, Request, RequestId, SnapshotOutcome};
use crate::storage::{DataDirectory, JournalLog, LogStore, SnapshotStore, StorageError};
use crate::trace::TraceEvent;
use crate::transport::Transport;
use crate::types::{LogIndex, SnapshotMeta};

use super::apply_thread::{Apply, ApplyJob};
use super::groups::Watched;
use super::inbox::Messages;
use super::log_thread::{LogJob, with_causes};
use super::logs::Logs;
use super::status::{Counters, Status, SyncCounters};
use super::transfer_thread::{TransferFailed, TransferJob};
use super::waiters::Waiters;
use super::{Applied, Command, ProposeError, ReadError, SnapshotRequestError, clock, refusal};

/// What is around the task. Dropping the senders ends the threads.
#[derive(Debug)]
pub(super) struct Workers {
    pub(super) log: LogSide,
    pub(super) apply: ApplySide,
    pub(super) transfer: TransferSide,
    pub(super) handles: Vec<JoinHandle<()>>,
}

/// Who writes the log.
#[derive(Debug)]
pub(super) enum LogSide {
    Thread(Sender<LogJob>),
    /// The task itself: the log is in memory.
    Inline {
        log: Box<JournalLog>,
        /// The last write that was not synced yet.
        written: Option<IoToken>,
    },
}

/// Starts the thread for transfers.
pub(super) type StartTransfer =
    Box<dyn FnOnce() -> std::io::Result<(Sender<TransferJob>, JoinHandle<()>)> + Send>;

/// Who reads and writes for transfers. Most groups never need anybody.
pub(super) enum TransferSide {
    /// Nobody yet.
    Later(Option<StartTransfer>),
    Thread(Sender<TransferJob>),
}

impl fmt::Debug for TransferSide {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TransferSide")
    }
}

/// Who applies.
#[derive(Debug)]
pub(super) enum ApplySide {
    Thread(Sender<ApplyJob>),
    /// The task itself.
    Inline {
        worker: Box<dyn Apply>,
        jobs: VecDeque<ApplyJob>,
    },
}

/// What a task is made of.
#[derive(Debug)]
pub(super) struct Parts {
    pub(super) replica: Replica,
    pub(super) workers: Workers,
    pub(super) transport: Arc<dyn Transport>,
    pub(super) status: watch::Sender<Status>,
    pub(super) logs: Logs,
    pub(super) sync_counters: Arc<SyncCounters>,
    /// For what it counts.
    pub(super) snapshots: SnapshotStore,
    pub(super) dropped: Arc<AtomicU64>,
    pub(super) read_timeout: Duration,
    /// What watches other processes, if the group may be quiet.
    pub(super) watched: Option<Watched>,
}

/// Where the task's inputs come from.
#[derive(Debug)]
pub(super) struct Queues {
    pub(super) commands: Receiver<Command>,
    pub(super) messages: Messages,
    /// Bounded by the work that the core lets be under way.
    pub(super) completed: UnboundedReceiver<Input>,
    pub(super) failed: UnboundedReceiver<TransferFailed>,
}

/// Commands or messages taken at a time, so that a flood of one does not delay the rest.
const TAKEN_AT_A_TIME: usize = 1024;
/// The status is published this often while things move, and at once when role, term, leader or members change.
const STATUS_INTERVAL: Duration = Duration::from_millis(20);
/// How long the threads may take to end.
const THREADS_MAX: Duration = Duration::from_secs(3);

/// The task's state.
#[derive(Debug)]
pub(super) struct Task {
    parts: Parts,
    /// Holds the lock of the data directory as long as the node runs.
    _directory: Arc<DataDirectory>,
    counters: Counters,
    outputs: Vec<Output>,
    proposals: Waiters<Result<Applied, ProposeError>>,
    orders: Waiters<Result<(), OrderError>>,
    reads: Waiters<Result<(), ReadError>>,
    /// Who waits for a snapshot, and what it must reach to: what was applied when they asked.
    snapshots: Vec<(LogIndex, oneshot::Sender<Result<SnapshotMeta, SnapshotRequestError>>)>,
    /// The machine has said that it takes snapshots, or has not been asked.
    has_snapshots: bool,
    published_at: Duration,
    /// See [`RaftNode::members_committed_by`](crate::raft_node::RaftNode::members_committed_by).
    published_members: LogIndex,
    is_changed: bool,
    is_role_changed: bool,
    /// The node is to stop, and why if nobody asked.
    stopping: Option<Option<FatalError>>,
    shutdowns: Vec<oneshot::Sender<()>>,
}

impl Task {
    pub(super) fn new(parts: Parts, directory: Arc<DataDirectory>) -> Self {
        Self {
            parts,
            _directory: directory,
            counters: Counters::default(),
            outputs: Vec::new(),
            proposals: Waiters::new(),
            orders: Waiters::new(),
            reads: Waiters::new(),
            snapshots: Vec::new(),
            has_snapshots: true,
            published_at: Duration::ZERO,
            published_members: LogIndex::ZERO,
            is_changed: true,
            is_role_changed: true,
            stopping: None,
            shutdowns: Vec::new(),
        }
    }

    pub(super) async fn run(mut self, mut queues: Queues) {
        let mut commands = Vec::with_capacity(TAKEN_AT_A_TIME);
        let mut messages = Vec::with_capacity(TAKEN_AT_A_TIME);
        let mut completed = Vec::with_capacity(TAKEN_AT_A_TIME);
        // A transport that was closed lets go of the inbox. There is nothing to be had from it then, and without end.
        let mut is_inbox_open = true;
        let alarm = tokio::time::sleep(Duration::ZERO);
        tokio::pin!(alarm);
        let mut alarm_at = Duration::ZERO;
        while self.stopping.is_none() {
            self.publish_if_due();
            // Under load the deadline moves on with every input: an alarm that comes too early is cheaper than one set anew each time.
            let (now, next) = (clock::now(), self.next_deadline());
            if next < alarm_at || alarm_at <= now {
                alarm.as_mut().reset(tokio::time::Instant::now() + next.saturating_sub(now));
                alarm_at = next;
            }
            tokio::select! {
                count = queues.completed.recv_many(&mut completed, TAKEN_AT_A_TIME) => {
                    if count == 0 {
                        let threads = "a thread of the node ended".to_owned();
                        self.stopping = Some(Some(FatalError::Storage(threads)));
                    }
                    for input in completed.drain(..) {
                        self.completed(input);
                    }
                }
                count = queues.messages.recv_many(&mut messages, TAKEN_AT_A_TIME), if is_inbox_open => {
                    is_inbox_open = count > 0;
                    for message in messages.drain(..) {
                        self.handle(Input::Receive(queues.messages.take(message)));
                    }
                }
                count = queues.commands.recv_many(&mut commands, TAKEN_AT_A_TIME) => {
                    if count == 0 {
                        // The last handle is gone: nobody can ask the node for anything any more.
                        self.stopping = Some(None);
                    }
                    self.take_commands(&mut commands);
                }
                Some(failure) = queues.failed.recv() => {
                    self.parts.logs.transfer_failed(failure.what, &failure.reason);
                }
                () = &mut alarm => {}
            }
            self.time_out_if_due();
            self.do_inline();
        }
        self.end(queues).await;
    }

    /// By when there is something to do if nothing arrives.
    fn next_deadline(&self) -> Duration {
        let deadline = self.parts.replica.next_deadline();
        let publish = self.is_changed.then(|| self.published_at + STATUS_INTERVAL);
        let next = [deadline, publish].into_iter().flatten().min();
        next.unwrap_or_else(|| clock::now() + Duration::from_secs(3600))
    }

    /// Also under load, when the alarm is never looked at.
    fn time_out_if_due(&mut self) {
        if self.parts.replica.next_deadline().is_some_and(|deadline| deadline <= clock::now()) {
            self.handle(Input::Timeout);
        }
    }

    /// The clock is read after the input was taken: a process that was stopped in between knows how late it is.
    fn handle(&mut self, input: Input) {
        let mut outputs = std::mem::take(&mut self.outputs);
        self.parts.replica.handle(clock::now(), input, &mut outputs);
        for output in outputs.drain(..) {
            self.carry_out(output);
        }
        self.outputs = outputs;
        self.is_changed = true;
        self.answer_snapshots();
    }

    fn take_commands(&mut self, commands: &mut Vec<Command>) {
        let (mut proposals, mut reads) = (Vec::new(), Vec::new());
        for command in commands.drain(..) {
            match command {
                Command::Propose { command, options, reply } => {
                    let id = ProposalId(self.proposals.insert(reply));
                    let proposal = Proposal { id, session: options.session, command };
                    let reclaims_space = options.reclaims_space;
                    proposals.push(Request { proposal, reclaims_space });
                }
                Command::Read { reply } => {
                    reads.push(RequestId(self.reads.insert(reply)));
                }
                Command::ChangeMembership { change, reply } => {
                    let id = ProposalId(self.orders.insert(reply));
                    self.handle(Input::ChangeMembership(id, change));
                }
                Command::TransferLeader { to, reply } => {
                    let id = ProposalId(self.orders.insert(reply));
                    self.handle(Input::TransferLeader(id, to));
                }
                Command::Snapshot { reply } => self.request_snapshot(reply),
                Command::Shutdown { reply } => {
                    self.shutdowns.push(reply);
                    self.stopping = Some(None);
                }
            }
        }
        if !proposals.is_empty() {
            self.handle(Input::Propose(proposals));
        }
        if !reads.is_empty() {
            let deadline = clock::now() + self.parts.read_timeout;
            self.handle(Input::Read { requests: reads, deadline });
        }
    }

    fn request_snapshot(
        &mut self,
        reply: oneshot::Sender<Result<SnapshotMeta, SnapshotRequestError>>,
    ) {
        if !self.has_snapshots {
            return tell(reply, Err(SnapshotRequestError::Unsupported));
        }
        let applied = self.parts.replica.applied().index;
        if applied == LogIndex::ZERO {
            return tell(reply, Err(SnapshotRequestError::Empty));
        }
        match self.latest_snapshot().filter(|latest| latest.last.index >= applied) {
            Some(latest) => tell(reply, Ok(latest.clone())),
            None => {
                self.snapshots.push((applied, reply));
                self.handle(Input::TakeSnapshot);
            }
        }
    }

    /// The latest snapshot, if it can be read as far as we know.
    fn latest_snapshot(&self) -> Option<&SnapshotMeta> {
        let replica = &self.parts.replica;
        replica.node().log().snapshot().filter(|_| !replica.latest_snapshot_is_damaged())
    }

    /// Answers those for whom the latest snapshot is enough: one of our own, or one that a leader has sent.
    fn answer_snapshots(&mut self) {
        if self.snapshots.is_empty() {
            return;
        }
        let Some(latest) = self.latest_snapshot().cloned() else { return };
        for (_, reply) in self.snapshots.extract_if(.., |(wanted, _)| *wanted <= latest.last.index)
        {
            tell(reply, Ok(latest.clone()));
        }
    }

    fn completed(&mut self, input: Input) {
        match &input {
            Input::LowSpace(is_low) => self.parts.logs.low_space(*is_low),
            Input::SnapshotTaken(outcome) => self.snapshot_taken(outcome),
            _ => {}
        }
        self.handle(input);
    }

    fn snapshot_taken(&mut self, outcome: &SnapshotOutcome) {
        let error = match outcome {
            SnapshotOutcome::Taken(meta) => {
                self.counters.snapshots_taken += 1;
                // Those who asked while it was written need another one.
                if self.snapshots.iter().any(|(wanted, _)| *wanted > meta.last.index) {
                    self.handle(Input::TakeSnapshot);
                }
                return;
            }
            SnapshotOutcome::Unsupported => {
                self.has_snapshots = false;
                self.parts.logs.no_snapshots();
                SnapshotRequestError::Unsupported
            }
            SnapshotOutcome::Failed(reason) => {
                self.parts.logs.snapshot_failed(reason);
                SnapshotRequestError::Failed
            }
        };
        for (_, reply) in self.snapshots.drain(..) {
            tell(reply, Err(error));
        }
    }

    fn carry_out(&mut self, output: Output) {
        match output {
            Output::Persist(batch) => self.log(LogJob::Persist(batch)),
            Output::Send(envelope) => {
                if let (Message::Quiet { .. }, Some(watched)) =
                    (&envelope.message, &self.parts.watched)
                {
                    watched.asked(envelope.to);
                }
                self.parts.transport.send(envelope);
            }
            Output::Apply(run) => self.apply(ApplyJob::Run(run)),
            Output::Restore(meta) => {
                self.counters.snapshots_installed += 1;
                self.apply(ApplyJob::Restore(meta));
            }
            Output::TakeSnapshot { last, membership } => {
                self.apply(ApplyJob::TakeSnapshot { last, membership });
            }
            Output::ReadEntries { to, range, bytes_max } => {
                self.transfer(TransferJob::ReadEntries { to, range, bytes_max });
            }
            Output::ReadForRepair { to, range, bytes_max } => {
                self.transfer(TransferJob::ReadForRepair { to, range, bytes_max });
            }
            Output::ReadSnapshot { to, meta, offset } => {
                self.transfer(TransferJob::ReadSnapshot { to, meta, offset });
            }
            Output::WriteSnapshot { meta, offset, data } => {
                self.transfer(TransferJob::WriteSnapshot { meta, offset, data });
            }
            Output::Compact { through, oldest_snapshot } => {
                self.log(LogJob::Compact(through));
                self.transfer(TransferJob::RemoveSnapshots { before: oldest_snapshot });
            }
            Output::Answer { id, result } => self.answer(id, result),
            Output::OrderDone { id, result } => {
                if let Some(reply) = self.orders.remove(id.0) {
                    // Who asked for it finds it in the status.
                    self.publish(clock::now());
                    tell(reply, result);
                }
            }
            Output::ReadReady(request) => {
                self.counters.reads += 1;
                self.answer_read(request, Ok(()));
            }
            Output::ReadFailed { request, leader } => {
                self.answer_read(request, Err(ReadError::Unconfirmed { leader }));
            }
            Output::Trace(event) => self.trace(&event),
            Output::StatusChanged => self.is_changed = true,
            Output::MembersChanged => self.is_role_changed = true,
            Output::Stop(error) => self.stopping = Some(Some(error)),
            Output::Quiet(standing) => {
                if let Some(watched) = &self.parts.watched {
                    watched.standing(standing);
                }
                self.is_role_changed = true;
            }
        }
    }

    // A thread that is gone has said why, or is about to: its message stops the node.

    fn log(&mut self, job: LogJob) {
        let (log, written) = match &mut self.parts.workers.log {
            LogSide::Thread(jobs) => {
                let _: Result<(), std::sync::mpsc::SendError<LogJob>> = jobs.send(job);
                return;
            }
            LogSide::Inline { log, written } => (log, written),
        };
        let result = match job {
            LogJob::Persist(batch) => {
                *written = Some(batch.token);
                log.append(&batch)
            }
            LogJob::Compact(through) => log.compact(through),
        };
        self.log_has_failed_if(result);
    }

    /// A log in memory fails if the memory it may use is used up: no better than any other failed write.
    fn log_has_failed_if(&mut self, result: Result<(), StorageError>) {
        if let Err(error) = result {
            self.stopping = Some(Some(FatalError::Storage(with_causes(&error))));
        }
    }

    fn apply(&mut self, job: ApplyJob) {
        match &mut self.parts.workers.apply {
            ApplySide::Thread(jobs) => {
                let _: Result<(), std::sync::mpsc::SendError<ApplyJob>> = jobs.send(job);
            }
            ApplySide::Inline { jobs, .. } => jobs.push_back(job),
        }
    }

    fn transfer(&mut self, job: TransferJob) {
        let workers = &mut self.parts.workers;
        if let TransferSide::Later(start) = &mut workers.transfer
            && let Some(start) = start.take()
        {
            match start() {
                Ok((jobs, thread)) => {
                    workers.transfer = TransferSide::Thread(jobs);
                    workers.handles.push(thread);
                }
                Err(error) => {
                    let cause = format!("cannot start a thread: {error}");
                    self.stopping = Some(Some(FatalError::Storage(cause)));
                }
            }
        }
        if let TransferSide::Thread(jobs) = &workers.transfer {
            let _: Result<(), std::sync::mpsc::SendError<TransferJob>> = jobs.send(job);
        }
    }

    /// Does what is left to the task itself: makes durable what was written, once for all inputs that were taken together, and
    /// applies what that committed, until nothing is left.
    fn do_inline(&mut self) {
        while self.stopping.is_none() {
            if let LogSide::Inline { log, written } = &mut self.parts.workers.log
                && let Some(token) = written.take()
            {
                match log.sync() {
                    Ok(()) => self.handle(Input::Persisted(token)),
                    failed => self.log_has_failed_if(failed),
                }
            } else if let ApplySide::Inline { worker, jobs } = &mut self.parts.workers.apply
                && let Some(job) = jobs.pop_front()
            {
                if let Some(input) = worker.answer(job) {
                    self.completed(input);
                }
            } else {
                return;
            }
        }
    }

    fn answer(
        &mut self,
        id: ProposalId,
        result: Result<
            (crate::types::EntryId, crate::state_machine::Reply),
            crate::replica::ProposalError,
        >,
    ) {
        let answer = match result {
            Ok((id, Ok(reply))) => Ok(Applied { id, reply }),
            Ok((_, Err(error))) => Err(refusal(error)),
            Err(error) => Err(error.into()),
        };
        match answer {
            Ok(_) | Err(ProposeError::Refused(_)) => self.counters.proposals_applied += 1,
            Err(_) => self.counters.proposals_failed += 1,
        }
        if let Some(reply) = self.proposals.remove(id.0) {
            tell(reply, answer);
        }
    }

    fn answer_read(&mut self, request: RequestId, answer: Result<(), ReadError>) {
        if let Some(reply) = self.reads.remove(request.0) {
            // Who reads may go on to the members: they are as new as the state.
            let committed = self.parts.replica.node().members_committed_by();
            if self.is_role_changed || committed != self.published_members {
                self.publish(clock::now());
            }
            tell(reply, answer);
        }
    }

    fn trace(&mut self, event: &TraceEvent) {
        match event {
            TraceEvent::ElectionStarted { .. } => self.counters.elections += 1,
            TraceEvent::Became { leader, .. } => {
                self.is_role_changed = true;
                self.counters.leader_changes += u64::from(leader.is_some());
            }
            TraceEvent::Repaired { first, last, .. } => {
                self.counters.entries_repaired += last.next().since(*first);
            }
            TraceEvent::RepairServed { first, last, .. } => {
                self.counters.entries_served += last.next().since(*first);
            }
            _ => {}
        }
        self.parts.logs.event(event);
    }

    fn publish_if_due(&mut self) {
        let now = clock::now();
        let is_due = self.is_changed && now >= self.published_at + STATUS_INTERVAL;
        if is_due || self.is_role_changed {
            self.publish(now);
        }
    }

    fn publish(&mut self, now: Duration) {
        self.is_changed = false;
        self.is_role_changed = false;
        self.published_at = now;
        self.published_members = self.parts.replica.node().members_committed_by();
        let mut status = Status::of(&self.parts.replica, now);
        self.counters.proposals_pending = self.proposals.len() as u64;
        self.counters.messages_dropped = self.parts.dropped.load(Ordering::Relaxed);
        self.parts.sync_counters.fill(&mut self.counters);
        self.counters.snapshot_bytes = self.parts.snapshots.counts();
        status.counters = self.counters;
        if let Some(fatal) = &self.stopping {
            status.is_stopped = true;
            status.fatal.clone_from(fatal);
        }
        self.parts.status.send_replace(status);
    }

    /// Ends the threads, answers everybody who still waits, and says that it is over.
    async fn end(mut self, mut queues: Queues) {
        // The others must not be quiet under us while a disk that hangs holds us up here.
        if let Some(watched) = &self.parts.watched {
            watched.standing(QuietStanding::Awake);
        }
        queues.commands.close();
        while let Ok(command) = queues.commands.try_recv() {
            match command {
                // Never looked at: certainly without effect.
                Command::Propose { reply, .. } => tell(reply, Err(ProposeError::Stopped)),
                Command::Read { reply } => tell(reply, Err(ReadError::Stopped)),
                Command::ChangeMembership { reply, .. } | Command::TransferLeader { reply, .. } => {
                    tell(reply, Err(OrderError::Stopped));
                }
                Command::Snapshot { reply } => {
                    tell(reply, Err(SnapshotRequestError::Stopped));
                }
                Command::Shutdown { reply } => self.shutdowns.push(reply),
            }
        }
        for reply in self.proposals.drain() {
            tell(reply, Err(ProposeError::Unknown));
        }
        for reply in self.orders.drain() {
            tell(reply, Err(OrderError::Unknown));
        }
        for reply in self.reads.drain() {
            tell(reply, Err(ReadError::Stopped));
        }
        let Workers { log, apply, transfer, handles } = self.parts.workers;
        drop((log, transfer));
        join(apply, handles).await;
        drop(queues);
        // The group's place is free before anybody hears that it has ended.
        drop(self.parts.watched.take());
        let fatal = self.stopping.take().flatten();
        self.parts.logs.stopped(fatal.as_ref());
        self.parts.status.send_modify(|status| {
            status.is_stopped = true;
            status.fatal = fatal;
        });
        for reply in self.shutdowns {
            tell(reply, ());
        }
    }
}

/// Waits until the threads have ended. One that hangs, in the disk or in the machine, is left behind, as a crash would leave it; so it is
/// waited for by a thread of our own, which the end of the runtime does not wait for.
#[expect(clippy::disallowed_methods, reason = "what it waits for are threads")]
async fn join(apply: ApplySide, handles: Vec<JoinHandle<()>>) {
    let (ended, have_ended) = oneshot::channel();
    let join = move || {
        // If the machine is ours, so is the thread that writes its snapshot, which is waited for here.
        drop(apply);
        for handle in handles {
            // A thread that panicked has reported it.
            drop(handle.join());
        }
        tell(ended, ());
    };
    // If there can be no other thread, they end by themselves: nobody asks them for anything any more.
    if std::thread::Builder::new().name("raft-end".to_owned()).spawn(join).is_ok() {
        drop(tokio::time::timeout(THREADS_MAX, have_ended).await);
    }
}

/// Answers a caller. One that has gone needs no answer.
fn tell<T>(reply: oneshot::Sender<T>, answer: T) {
    let _: Result<(), T> = reply.send(answer);
}
