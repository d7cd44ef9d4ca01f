//! A node as the production driver runs it, with simulated threads: the same replica, the same log store and the same files.
//!
//! What the driver does on threads of its own happens here in events: a write of the log ends when the disk has done it
//! ([`writer`]), a run of entries is applied when the machine's worker gets to it ([`worker`]), pieces of snapshots are read and written a
//! little later than they were asked for ([`transfers`]). Nothing is decided here that the driver would not decide in the same way.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::ops::RangeInclusive;
use std::rc::Rc;
use std::time::Duration;

use lattice_sim::{Address, Chance, Context, Event, Span};
use lattice_trace::kind;

use super::markers::{self, Elections};
use super::message::SimMessage;
use super::spec::SpecTrace;
use super::workload::{Operation, Workload};
use super::{PlantedBug, damage};
use crate::effects::ProposalId;
use crate::liveness::{Liveness, LivenessEffect};
use crate::message::{Envelope, Message};
use crate::raft_node::{QuietStanding, RaftNode, ReadPolicy};
use crate::replica::{Input, Output, Replica, ReplicaConfig, RequestId};
use crate::state_machine::{Committed, DurableStateMachine};
use crate::storage::{DataDirectory, JournalLogReader, SnapshotStore};
use crate::trace::TraceEvent;
use crate::types::{EntryId, GroupId, LogIndex, NodeId, SnapshotMeta, Term};

mod notes;
mod requests;
mod start;
mod transfers;
mod troubles;
mod worker;
mod writer;

pub(super) use notes::told;
use notes::{trace, unsound};
use start::Opened;
pub(super) use worker::state_digest;
use worker::{Job, Worker};
use writer::Writer;

/// How a node is configured; drawn once for a run.
#[derive(Clone, Debug)]
pub(super) struct NodeSetup {
    pub(super) id: NodeId,
    pub(super) founders: Vec<NodeId>,
    pub(super) bug: Option<PlantedBug>,
    pub(super) replica: ReplicaConfig,
    pub(super) election_timeout: std::ops::Range<Duration>,
    pub(super) heartbeat: Duration,
    pub(super) append_bytes_max: usize,
    pub(super) inflight_messages_max: usize,
    pub(super) tail_bytes_max: usize,
    pub(super) kept_entries: u64,
    pub(super) segment_size: u64,
    pub(super) chunk_bytes: usize,
    pub(super) read_timeout: Duration,
    pub(super) reads: ReadPolicy,
    /// How long a group is idle before it goes quiet; never if `None`.
    pub(super) quiet_after: Option<Duration>,
    /// How long the machine's worker takes for a job,
    pub(super) work: Span,
    /// how often far longer,
    pub(super) stall: Chance,
    /// and how long that is.
    pub(super) stalled: Span,
    /// How often a node that has won an election is cut off from all others soon after,
    pub(super) falls: Chance,
    /// how soon,
    pub(super) falls_after: Span,
    /// and how much later it is killed.
    pub(super) killed_after: Span,
    /// How often a leader is told to hand over, at each of its heartbeats.
    pub(super) hand_over: Chance,
    /// How often a leader hears late of a later term,
    pub(super) late_news: Chance,
    /// and how late.
    pub(super) late_by: Span,
    /// The time of faults is over.
    pub(super) is_calm: Rc<Cell<bool>>,
    /// What all nodes together do about elections, for the markers.
    pub(super) elections: Rc<RefCell<Elections>>,
    /// How long pieces take that are read for followers.
    pub(super) transfer: Span,
    /// Where the run is written down for the specification, if it is.
    pub(super) spec: Option<SpecTrace>,
    /// Between two orders of operators to a leader; never if `None`.
    pub(super) orders: Option<Span>,
    /// The last node that exists.
    pub(super) last_node: NodeId,
}

/// Attempts that each client's connection has delivered; outlives the process.
pub(super) type Delivered = Rc<RefCell<BTreeMap<Address, u64>>>;

/// What a node did while it handled one event, for the checks.
#[derive(Debug, Default)]
pub(super) struct Doings {
    /// Entries that the machine applied.
    pub(super) applied: Vec<Committed>,
    /// Digests of the machine's whole state after an entry.
    pub(super) states: Vec<(EntryId, u64)>,
    /// The terms that it revealed to others, and the candidate it told that it has its vote.
    pub(super) told: Vec<(Term, Option<NodeId>)>,
    /// Whom it asked to lead, with the last entry of its log.
    pub(super) asked_to_lead: Vec<(NodeId, EntryId)>,
    /// It acknowledged entries up to one place, and knew its log to be intact only up to another.
    pub(super) unsound: Option<(LogIndex, LogIndex)>,
}

/// A node. Part of a [`super::SimProcess`].
pub struct SimNode<W: Workload> {
    setup: Rc<NodeSetup>,
    workload: W,
    delivered: Delivered,
    seed: u64,
    opening: Option<Opened<W>>,
    running: Option<Running<W>>,
    doings: Doings,
}

/// A node that has opened its data directory.
struct Running<W: Workload> {
    setup: Rc<NodeSetup>,
    workload: W,
    replica: Replica,
    /// What watches other processes; this one hosts one group.
    liveness: Liveness,
    machine: W::Machine,
    reader: <W::Machine as DurableStateMachine>::Reader,
    writer: Writer,
    log_reader: JournalLogReader,
    snapshots: SnapshotStore,
    worker: Worker,
    /// What ends later, by the token it ends with.
    pending: BTreeMap<u64, Pending>,
    last_token: u64,
    /// Requests that are handed to the replica together.
    inbox: Vec<(Address, u64, u64, Operation)>,
    /// Who waits for a proposal or a read, and with which attempt.
    proposals: BTreeMap<ProposalId, (Address, u64)>,
    reads: BTreeMap<RequestId, (Address, u64, Operation)>,
    last_request: u64,
    inputs: VecDeque<Input>,
    outputs: Vec<Output>,
    is_mute: bool,
    /// When the timer last fired.
    timer_at: Duration,
    _directory: DataDirectory,
}

/// Something under way.
#[derive(Debug)]
enum Pending {
    /// The write of the log.
    Write,
    /// A rest of the log's thread; the number of writes before it.
    Rest(u64),
    /// The job of the machine's worker.
    Job,
    /// Its outcome is known to us, and not yet to the replica.
    Input(Input),
    /// The disk has failed, and the node will know by then.
    Failure(String),
    ReadEntries {
        to: NodeId,
        range: RangeInclusive<LogIndex>,
        bytes_max: usize,
    },
    ReadForRepair {
        to: NodeId,
        range: RangeInclusive<LogIndex>,
        bytes_max: usize,
    },
    ReadSnapshot {
        to: NodeId,
        meta: SnapshotMeta,
        offset: u64,
    },
    /// Requests wait to be handed on.
    Inbox,
    /// Nobody hears the node any more.
    Fall,
    /// An operator has an idea.
    Order,
    /// The node is killed.
    Kill,
}

type Host<'a> = Context<'a, SimMessage>;

const GROUP: GroupId = GroupId(1);

impl<W: Workload> SimNode<W> {
    pub(super) fn new(setup: Rc<NodeSetup>, workload: W, delivered: Delivered, seed: u64) -> Self {
        let doings = Doings::default();
        Self { setup, workload, delivered, seed, opening: None, running: None, doings }
    }

    /// The node inside, once its data directory is open.
    #[must_use]
    pub fn raft(&self) -> Option<&RaftNode> {
        self.replica().map(Replica::node)
    }

    /// The replica, once the data directory is open.
    #[must_use]
    pub fn replica(&self) -> Option<&Replica> {
        self.running.as_ref().map(|running| &running.replica)
    }

    /// The state machine, once the data directory is open.
    #[must_use]
    pub fn machine(&self) -> Option<&W::Machine> {
        self.running.as_ref().map(|running| &running.machine)
    }

    /// The files of its log, without the one that is being written: their numbers, and the places of their entries.
    pub(super) fn sealed_segments(&self) -> Vec<(u64, std::ops::Range<u64>)> {
        let segments = self.running.as_ref().map(|running| running.writer.log().segments());
        let sealed = segments.into_iter().flatten().filter(|segment| segment.sealed);
        sealed.map(|segment| (segment.number, segment.positions)).collect()
    }

    /// What the node makes of a message of which a bit was flipped on its way.
    pub(super) fn damaged(&self, envelope: &Envelope, bit: u64) -> Option<Envelope> {
        let believes = self.setup.bug == Some(PlantedBug::DamagedFrameBelieved);
        damage::received(envelope, bit, believes)
    }

    pub(super) fn doings(&self) -> &Doings {
        &self.doings
    }

    pub(super) fn deadline(&self) -> Option<Duration> {
        let running = self.running.as_ref()?;
        let deadlines = [
            running.replica.next_deadline(),
            running.writer.retry_at(),
            running.liveness.next_deadline(),
        ];
        deadlines.into_iter().flatten().min()
    }

    pub(super) fn handle(&mut self, event: Event<SimMessage>, context: &mut Host<'_>) {
        self.doings.applied.clear();
        self.doings.states.clear();
        self.doings.told.clear();
        self.doings.asked_to_lead.clear();
        self.doings.unsound = None;
        let Some(running) = &mut self.running else { return self.start(&event, context) };
        match event {
            Event::Start => {}
            Event::Receive { from, message } => match message {
                SimMessage::Peer(envelope) => running.receive(envelope, context),
                SimMessage::Request { attempt, operation, wanted } => {
                    let mut delivered = self.delivered.borrow_mut();
                    let last = delivered.entry(from).or_default();
                    if attempt > *last {
                        *last = attempt;
                        running.take_request(from, attempt, operation, wanted, context);
                    }
                }
                SimMessage::Response { .. } => {}
            },
            Event::Timer => running.timer(context),
            Event::Completed(token) => running.completed(token, context, &mut self.doings),
        }
        running.go(context, &mut self.doings);
    }
}

impl<W: Workload> Running<W> {
    /// Lets the replica handle what came in, and carries out what comes out.
    fn go(&mut self, context: &mut Host<'_>, doings: &mut Doings) {
        loop {
            while let Some(input) = self.inputs.pop_front() {
                let mut outputs = std::mem::take(&mut self.outputs);
                let before =
                    self.setup.spec.as_ref().map(|spec| {
                        (spec, SpecTrace::before(&self.replica, &input, context.now()))
                    });
                let sound = self.replica.node().log().sound();
                let is_watched = before.is_some() || self.replica.node().log().is_damaged();
                self.replica.given_out = is_watched.then(Vec::new);
                self.replica.handle(self.time(context), input, &mut outputs);
                let sent = self.replica.given_out.take().unwrap_or_default();
                let sound = sound.max(self.replica.node().log().sound());
                doings.unsound = doings.unsound.or_else(|| unsound(&sent, sound));
                if let Some((spec, before)) = before {
                    spec.after(&self.replica, before, &sent, &outputs);
                }
                markers::markers_of_leader(self.replica.node())
                    .for_each(|marker| context.mark(marker));
                for output in outputs.drain(..) {
                    self.carry_out(output, context, doings);
                }
                self.outputs = outputs;
            }
            self.write(context);
            self.work(context, doings);
            if self.inputs.is_empty() {
                return;
            }
        }
    }

    /// The time of what is being handled: read after it was taken from the queue, not with the last timer.
    fn time(&self, context: &Host<'_>) -> Duration {
        if self.setup.bug == Some(PlantedBug::ClockBeforeQueue) {
            return self.timer_at;
        }
        context.now()
    }

    fn timer(&mut self, context: &mut Host<'_>) {
        let now = context.now();
        self.timer_at = now;
        self.writer.retry(now);
        self.look_for_space(context);
        if self.replica.next_deadline().is_some_and(|deadline| deadline <= now) {
            self.inputs.push_back(Input::Timeout);
        }
        if self.liveness.next_deadline().is_some_and(|deadline| deadline <= now) {
            let mut effects = Vec::new();
            self.liveness.handle_timeout(now, &mut effects);
            self.watch(effects, context);
        }
    }

    /// Carries out what the watch over processes wants.
    fn watch(&mut self, effects: Vec<LivenessEffect>, context: &mut Host<'_>) {
        for effect in effects {
            match effect {
                LivenessEffect::Send(envelope) if self.is_mute => drop(envelope),
                LivenessEffect::Send(envelope) => {
                    context.send(Address(envelope.to.0), SimMessage::Peer(envelope));
                }
                LivenessEffect::Wake(_) => {
                    if let QuietStanding::Under { leader, .. } =
                        self.replica.node().quiet_standing()
                        && self.setup.elections.borrow().down.contains(&leader)
                    {
                        context.mark(markers::WOKEN_BY_SILENCE);
                    }
                    self.inputs.push_back(Input::LeaderSilent);
                }
                LivenessEffect::Epoch(epoch) => self.inputs.push_back(Input::NodeEpoch(epoch)),
            }
        }
    }

    fn pending(&mut self, pending: Pending) -> u64 {
        self.last_token += 1;
        self.pending.insert(self.last_token, pending);
        self.last_token
    }

    fn later(&mut self, delay: Duration, pending: Pending, context: &mut Host<'_>) {
        let token = self.pending(pending);
        context.complete_after(delay, token);
    }

    fn after_disk(&mut self, pending: Pending, context: &mut Host<'_>) {
        let token = self.pending(pending);
        context.complete_after_disk(token);
    }

    fn completed(&mut self, token: u64, context: &mut Host<'_>, doings: &mut Doings) {
        match self.pending.remove(&token).expect("each token ends once") {
            Pending::Write => self.written(context),
            Pending::Rest(writes) => self.rest(writes, context),
            Pending::Job => self.end_job(context, doings),
            Pending::Input(input) => self.inputs.push_back(input),
            Pending::Failure(reason) => context.stop(reason),
            Pending::ReadEntries { to, range, bytes_max } => {
                let entries = self.read_entries(range, bytes_max);
                self.inputs.push_back(Input::EntriesRead { to, entries });
            }
            Pending::ReadForRepair { to, range, bytes_max } => {
                let entries = self.read_entries(range, bytes_max);
                self.inputs.push_back(Input::RepairRead { to, entries });
            }
            Pending::ReadSnapshot { to, meta, offset } => {
                let data = self.snapshots.read(&meta, offset, self.setup.chunk_bytes).ok();
                self.inputs.push_back(Input::SnapshotRead { to, meta, offset, data });
            }
            Pending::Inbox => self.hand_on_requests(context),
            Pending::Fall => {
                context.mark(markers::FELL);
                self.is_mute = true;
                let delay = self.setup.killed_after.draw(context.rng());
                self.later(delay, Pending::Kill, context);
            }
            Pending::Kill => context.stop(KILLED),
            Pending::Order => self.take_order(context),
        }
    }

    fn carry_out(&mut self, output: Output, context: &mut Host<'_>, doings: &mut Doings) {
        match output {
            Output::Persist(batch) => self.writer.queue(batch),
            Output::Send(envelope) => {
                if self.is_mute {
                    return;
                }
                if let Message::Quiet { .. } = envelope.message {
                    self.liveness.handle_asked(context.now(), GROUP, envelope.to);
                }
                doings.told.push(told(&envelope));
                if let Some(marker) = markers::marker_of(&envelope.message) {
                    context.mark(marker);
                }
                context.send(Address(envelope.to.0), SimMessage::Peer(envelope));
            }
            Output::Apply(run) => self.worker.push(Job::Apply(run)),
            Output::Restore(meta) => self.worker.push(Job::Restore(meta)),
            Output::TakeSnapshot { last, membership } => {
                self.worker.push(Job::Snapshot { last, membership });
            }
            Output::ReadEntries { to, range, bytes_max } => {
                let delay = self.setup.transfer.draw(context.rng());
                self.later(delay, Pending::ReadEntries { to, range, bytes_max }, context);
            }
            Output::ReadForRepair { to, range, bytes_max } => {
                let delay = self.setup.transfer.draw(context.rng());
                self.later(delay, Pending::ReadForRepair { to, range, bytes_max }, context);
            }
            Output::ReadSnapshot { to, meta, offset } => {
                let delay = self.setup.transfer.draw(context.rng());
                self.later(delay, Pending::ReadSnapshot { to, meta, offset }, context);
            }
            Output::WriteSnapshot { meta, offset, data } => {
                self.write_snapshot(meta, offset, &data, context);
            }
            Output::Compact { through, oldest_snapshot } => {
                self.compact(through, oldest_snapshot, context);
            }
            Output::Answer { id, result } => self.answer(id, result, context),
            Output::OrderDone { result, .. } => {
                context.trace(kind::MEMBERSHIP, format_args!("order ended: {result:?}"));
            }
            Output::ReadReady(request) => self.serve_read(request, context),
            Output::ReadFailed { request, leader } => self.give_up_read(request, leader, context),
            Output::Trace(event) => {
                let marker = self.setup.elections.borrow_mut().marker_of(self.setup.id, &event);
                if let Some(marker) = marker {
                    context.mark(marker);
                }
                trace(&event, context);
                self.order_later(&event, context);
                if let TraceEvent::TimeoutNowSent { to, last } = event {
                    doings.asked_to_lead.push((to, last));
                }
                self.fall_if_elected(&event, context);
                self.hand_over_at_times(&event, context);
            }
            Output::StatusChanged | Output::MembersChanged => {}
            Output::Quiet(standing) => {
                let mut effects = Vec::new();
                self.liveness.handle_standing(context.now(), GROUP, standing, &mut effects);
                self.watch(effects, context);
            }
            Output::Stop(error) => {
                let reason = format!("{error:?}");
                if let Some(marker) = markers::marker_of_stop(&reason) {
                    context.mark(marker);
                }
                context.stop(reason);
            }
        }
    }
}

/// The causes of an error, in a line. A full disk is said first, for a node may be unable to start on it.
fn reason(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    let mut is_full = is_disk_full(error);
    while let Some(cause) = next {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        is_full |= is_disk_full(cause);
        next = cause.source();
    }
    if is_full { format!("{DISK_FULL}: {text}") } else { text }
}

fn is_disk_full(error: &(dyn std::error::Error + 'static)) -> bool {
    error
        .downcast_ref::<std::io::Error>()
        .is_some_and(|error| error.kind() == std::io::ErrorKind::StorageFull)
}

/// The reason of a node that was killed after it had won an election.
pub(super) const KILLED: &str = "killed after an election";

/// How the reason begins for which a node may end itself when it is started.
pub(super) const DISK_FULL: &str = "the disk is full";

impl<W: Workload> fmt::Debug for SimNode<W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SimNode")
            .field("id", &self.setup.id)
            .field("replica", &self.replica())
            .finish_non_exhaustive()
    }
}
