//! A node as the production driver runs it, with simulated threads: the same replica, the same log store and the same files.
//!
//! What the driver does on threads of its own happens here in events: a write of the log ends when the disk has done it
//! ([`writer`]), a run of entries is applied when the machine's worker gets to it ([`worker`]), pieces of snapshots are read and written a
//! little later than they were asked for. Nothing is decided here that the driver would not decide in the same way.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::ops::RangeInclusive;
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use lattice_journal::Disk;
use lattice_sim::random::Rng;
use lattice_sim::{Address, Chance, Context, Event, Span};
use lattice_trace::kind;

use super::PlantedBug;
use super::markers::{self, Elections};
use super::message::{Outcome, SimMessage};
use super::orders::{self, Order};
use super::spec::SpecTrace;
use super::workload::{Operation, Workload};
use crate::effects::{ProposalId, Rejection};
use crate::liveness::{Liveness, LivenessEffect, LivenessTiming, ProcessId};
use crate::membership::Membership;
use crate::message::{Envelope, Message};
use crate::raft_node::{Config, Proposal, QuietStanding, RaftNode, ReadPolicy, Role};
use crate::replica::{Input, Output, ProposalError, Replica, ReplicaConfig, Request, RequestId};
use crate::state_machine::{Committed, DurableStateMachine};
use crate::storage::{
    DataDirectory, JournalLog, JournalLogOptions, JournalLogReader, LogReader, LogStore,
    OpenLogError, Received, RecoveredState, SnapshotStore, StorageError,
};
use crate::trace::TraceEvent;
use crate::types::{
    ClusterId, Entry, EntryId, GroupId, LogIndex, NodeId, SessionId, SnapshotMeta, Term,
};

mod worker;
mod writer;

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

/// What was found in a data directory. Recovery makes durable what it found, and takes its time for that.
struct Opened<W: Workload> {
    directory: DataDirectory,
    log: JournalLog,
    recovered: RecoveredState,
    snapshots: SnapshotStore,
    machine: W::Machine,
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

const DIRECTORY: &str = "/node";
const CLUSTER: ClusterId = ClusterId(0x51b);
const GROUP: GroupId = GroupId(1);
/// The token of the opening of the data directory; those of the running node follow it.
const OPENED: u64 = 0;
/// Requests that come within this time are handed to the replica together.
const INBOX_WAIT: Span = Span::micros(0, 300);

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

    /// Opens the data directory, and begins once what was found there is durable. Nobody is heard before.
    fn start(&mut self, event: &Event<SimMessage>, context: &mut Host<'_>) {
        let result = match event {
            Event::Start => self.open(context).map(|opened| {
                self.opening = Some(opened);
                context.complete_after_disk(OPENED);
            }),
            Event::Completed(OPENED) => match self.opening.take() {
                Some(opened) => self.begin(opened, context),
                None => Ok(()),
            },
            Event::Completed(_) | Event::Receive { .. } | Event::Timer => Ok(()),
        };
        if let Err(reason) = result {
            if let Some(marker) = markers::marker_of_stop(&reason) {
                context.mark(marker);
            }
            context.stop(reason);
        }
    }

    fn open(&mut self, context: &mut Host<'_>) -> Result<Opened<W>, String> {
        let disk: Arc<dyn Disk> = Arc::new(context.disk().clone());
        let setup = &self.setup;
        let mut random = || u128::from(context.rng().next_u64());
        let store = match setup.bug {
            Some(PlantedBug::AmnesiacVoterCounted) => u128::from(setup.id.0),
            _ => random() << 64 | random(),
        };
        let directory = DataDirectory::open(
            Arc::clone(&disk),
            Path::new(DIRECTORY),
            CLUSTER,
            setup.id,
            &setup.founders,
            store,
        )
        .map_err(|error| reason(&error))?;
        let mut options = JournalLogOptions::new(directory.log_id(GROUP));
        options.tail_bytes_max = setup.tail_bytes_max;
        options.journal.segment_size = setup.segment_size;
        options.journal.segment_size_max = setup.segment_size * 4;
        let home = directory.log_directory(GROUP);
        let mut opened = JournalLog::open(Arc::clone(&disk), &home, options.clone());
        if let (Err(OpenLogError::Damaged { .. }), Some(PlantedBug::DamagedLogStartsBlank)) =
            (&opened, setup.bug)
        {
            for name in disk.list(&home).map_err(|error| reason(&error))? {
                disk.remove(&home.join(name)).map_err(|error| reason(&error))?;
            }
            opened = JournalLog::open(Arc::clone(&disk), &home, options);
        }
        let (log, recovered) = opened.map_err(|error| reason(&error))?;
        if log.torn_tail().is_some() {
            context.mark(markers::TORN_TAIL);
        }
        let snapshot = recovered.snapshot.as_ref();
        let path = directory.snapshot_directory(GROUP);
        let snapshots = SnapshotStore::open_with_bug(disk, &path, snapshot, setup.bug)
            .map_err(|error| reason(&error))?;
        let mut machine = self.workload.machine();
        if let Some(meta) = snapshot {
            let mut parts = snapshots.open_parts(meta).map_err(|error| reason(&error))?;
            machine.restore(meta.last, &mut parts).map_err(|error| reason(error.as_ref()))?;
            self.doings.states.push((meta.last, state_digest(&machine)?));
        }
        Ok(Opened { directory, log, recovered, snapshots, machine })
    }

    fn begin(&mut self, opened: Opened<W>, context: &mut Host<'_>) -> Result<(), String> {
        let Opened { directory, log, recovered, snapshots, machine } = opened;
        let setup = Rc::clone(&self.setup);
        let founding = Membership::founding(directory.identity().founders.iter().copied());
        let mut config = Config::new(setup.id, directory.identity().store, founding);
        config.cluster = CLUSTER;
        config.group = GROUP;
        config.boot = context.rng().next_u64();
        config.election_timeout = setup.election_timeout.clone();
        config.heartbeat = setup.heartbeat;
        config.append_bytes_max = setup.append_bytes_max;
        config.inflight_messages_max = setup.inflight_messages_max;
        config.tail_bytes_max = setup.tail_bytes_max;
        config.kept_entries = setup.kept_entries;
        // Damage is short in a short run, and is to be repaired in several steps all the same.
        config.repaired_at_once = 2;
        config.reads = setup.reads;
        config.quiet_after = setup.quiet_after;
        config.planted_bug = setup.bug;
        let process =
            ProcessId { cluster: CLUSTER, node: setup.id, store: directory.identity().store };
        let timing = LivenessTiming::new(setup.heartbeat, &setup.election_timeout);
        let liveness = Liveness::new(process, timing, config.boot);
        let node = RaftNode::recover(config, recovered, self.seed, context.now())
            .map_err(|error| reason(&error))?;
        if node.log().is_damaged() {
            context.mark(markers::ENTRIES_DAMAGED);
        }
        for damage in node.log().damaged() {
            let (first, last) = (damage.first, damage.last);
            trace(&TraceEvent::DamageFound { first, last }, context);
        }
        let mut replica = Replica::new(node, setup.replica.clone());
        if let Some(spec) = &setup.spec {
            spec.started(replica.node());
            replica.given_out = Some(Vec::new());
        }
        let mut inputs = VecDeque::new();
        if setup.quiet_after.is_some() {
            inputs.push_back(Input::NodeEpoch(liveness.epoch()));
        }
        self.running = Some(Running {
            workload: self.workload.clone(),
            replica,
            liveness,
            reader: machine.reader(),
            machine,
            log_reader: log.reader(),
            writer: Writer::new(log),
            snapshots,
            worker: Worker::default(),
            pending: BTreeMap::new(),
            last_token: OPENED,
            inbox: Vec::new(),
            proposals: BTreeMap::new(),
            reads: BTreeMap::new(),
            last_request: 0,
            inputs,
            outputs: Vec::new(),
            is_mute: false,
            timer_at: context.now(),
            setup,
            _directory: directory,
        });
        Ok(())
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
                self.is_mute = true;
                let delay = self.setup.killed_after.draw(context.rng());
                self.later(delay, Pending::Kill, context);
            }
            Pending::Kill => context.stop(KILLED),
            Pending::Order => self.take_order(context),
        }
    }

    /// Entries for another node; none if they cannot be read. If that is because they are damaged, our own node hears of it first.
    fn read_entries(&mut self, range: RangeInclusive<LogIndex>, bytes_max: usize) -> Vec<Entry> {
        let entries = self.log_reader.entries(range, bytes_max);
        if let Err(StorageError::Damaged { first, last, .. }) = entries {
            self.inputs.push_back(Input::EntriesDamaged { first, last });
        }
        entries.unwrap_or_default()
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
            Output::Answer { id, result } => {
                let outcome = match result {
                    Ok((entry, reply)) => {
                        let reply = reply.map_err(|refusal| refusal.to_string());
                        Outcome::Done { index: entry.index, reply }
                    }
                    Err(ProposalError::Rejected(Rejection::NotLeader { leader })) => {
                        Outcome::NotLeader(leader)
                    }
                    Err(ProposalError::Unknown) => Outcome::Unknown,
                    Err(
                        ProposalError::Rejected(_)
                        | ProposalError::NoSpace
                        | ProposalError::Superseded,
                    ) => Outcome::Refused,
                };
                let (client, attempt) = self.proposals.remove(&id).expect("answered once");
                context.send(client, SimMessage::Response { attempt, outcome });
            }
            Output::OrderDone { result, .. } => {
                context.trace(kind::MEMBERSHIP, format_args!("order ended: {result:?}"));
            }
            Output::ReadReady(request) => {
                let (client, attempt, query) = self.reads.remove(&request).expect("answered once");
                let (Operation::Read(query) | Operation::Write(query)) = query;
                let reply = Ok(self.workload.read(&self.reader, &query).into());
                let index = self.machine.applied().index;
                let outcome = Outcome::Done { index, reply };
                context.send(client, SimMessage::Response { attempt, outcome });
            }
            Output::ReadFailed { request, leader } => {
                context.mark(markers::READ_FAILED);
                let (client, attempt, _) = self.reads.remove(&request).expect("answered once");
                let outcome = Outcome::NotLeader(leader);
                context.send(client, SimMessage::Response { attempt, outcome });
            }
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

    /// An operator who wants another leader now and then.
    fn hand_over_at_times(&mut self, event: &TraceEvent, context: &mut Host<'_>) {
        let is_time = matches!(event, TraceEvent::HeartbeatsSent { .. });
        // A lease of a second, and a leader less than a second old, are nobody's progress.
        if is_time && !self.setup.is_calm.get() && self.setup.hand_over.happens(context.rng()) {
            self.last_request += 1;
            let id = ProposalId(self.last_request);
            self.inputs.push_back(Input::TransferLeader(id, None));
        }
    }

    /// A fault that no plan made from outside meets often enough: a node falls between winning and ruling.
    fn fall_if_elected(&mut self, event: &TraceEvent, context: &mut Host<'_>) {
        let is_elected = matches!(event, TraceEvent::ElectionWon { .. });
        if is_elected && !self.setup.is_calm.get() && self.setup.falls.happens(context.rng()) {
            let delay = self.setup.falls_after.draw(context.rng());
            self.later(delay, Pending::Fall, context);
        }
    }

    /// Another fault of that kind: links that lose their order let a leader hear everything but that it is one no longer.
    fn receive(&mut self, envelope: Envelope, context: &mut Host<'_>) {
        if envelope.group == GroupId::PROCESS {
            let mut effects = Vec::new();
            self.liveness.handle_message(context.now(), &envelope, &mut effects);
            return self.watch(effects, context);
        }
        let node = self.replica.node();
        let is_news = node.role() == Role::Leader && envelope.term > node.term();
        if is_news && !self.setup.is_calm.get() && self.setup.late_news.happens(context.rng()) {
            let delay = self.setup.late_by.draw(context.rng());
            return self.later(delay, Pending::Input(Input::Receive(envelope)), context);
        }
        self.inputs.push_back(Input::Receive(envelope));
    }

    // Operators.

    /// Who wins an election will be given orders.
    fn order_later(&mut self, event: &TraceEvent, context: &mut Host<'_>) {
        if let (TraceEvent::ElectionWon { .. }, Some(orders)) = (event, self.setup.orders) {
            let delay = orders.draw(context.rng());
            self.later(delay, Pending::Order, context);
        }
    }

    fn take_order(&mut self, context: &mut Host<'_>) {
        let raft = self.replica.node();
        let (Role::Leader, Some(orders), false) =
            (raft.role(), self.setup.orders, self.setup.is_calm.get())
        else {
            return;
        };
        let order = orders::draw(raft, self.setup.last_node, context.rng());
        context.trace(kind::MEMBERSHIP, format_args!("ordered: {order:?}"));
        self.last_request += 1;
        let id = ProposalId(self.last_request);
        self.inputs.push_back(match order {
            Order::Change(change) => Input::ChangeMembership(id, change),
            Order::Transfer(to) => Input::TransferLeader(id, to),
        });
        let delay = orders.draw(context.rng());
        self.later(delay, Pending::Order, context);
    }

    // Clients.

    fn take_request(
        &mut self,
        client: Address,
        attempt: u64,
        operation: u64,
        wanted: Operation,
        context: &mut Host<'_>,
    ) {
        self.inbox.push((client, attempt, operation, wanted));
        if self.inbox.len() == 1 {
            let delay = INBOX_WAIT.draw(context.rng());
            self.later(delay, Pending::Inbox, context);
        }
    }

    fn hand_on_requests(&mut self, context: &mut Host<'_>) {
        let (mut writes, mut reads) = (Vec::new(), Vec::new());
        for (client, attempt, sequence, wanted) in self.inbox.drain(..) {
            self.last_request += 1;
            match wanted {
                Operation::Write(command) => {
                    let id = ProposalId(self.last_request);
                    self.proposals.insert(id, (client, attempt));
                    let session = Some(SessionId { session: client.0, sequence });
                    let command = self.workload.wrap(sequence, command);
                    let proposal = Proposal { id, session, command };
                    writes.push(Request { proposal, reclaims_space: false });
                }
                Operation::Read(_) => {
                    let id = RequestId(self.last_request);
                    self.reads.insert(id, (client, attempt, wanted));
                    reads.push(id);
                }
            }
        }
        if !writes.is_empty() {
            self.inputs.push_back(Input::Propose(writes));
        }
        if !reads.is_empty() {
            let deadline = context.now() + self.setup.read_timeout;
            self.inputs.push_back(Input::Read { requests: reads, deadline });
        }
    }

    // Snapshots of others, and compaction.

    fn write_snapshot(
        &mut self,
        meta: SnapshotMeta,
        offset: u64,
        data: &[u8],
        context: &mut Host<'_>,
    ) {
        if let Some(marker) = self.setup.elections.borrow().snapshot() {
            context.mark(marker);
        }
        let before = self.snapshots.counts();
        let mut result = self.snapshots.receive(&meta, offset, data);
        while let Ok(Received { next, is_busy: true, .. }) = result {
            result = self.snapshots.receive(&meta, next, &[]);
        }
        let after = self.snapshots.counts();
        if after.bytes_kept > before.bytes_kept {
            context.mark(markers::PART_SKIPPED);
        }
        if after.bytes_resumed > before.bytes_resumed {
            context.mark(markers::RESUMED);
        }
        let pending = match result {
            Ok(received) => Pending::Input(Input::SnapshotWritten {
                meta,
                offset: received.next,
                is_complete: received.is_complete,
            }),
            Err(error) if error.is_fatal() => Pending::Failure(reason(&error)),
            Err(error) => {
                context.trace(kind::SNAPSHOT, format_args!("refused: {error}"));
                Pending::Input(Input::SnapshotWritten { meta, offset, is_complete: false })
            }
        };
        self.after_disk(pending, context);
    }

    fn compact(&mut self, through: LogIndex, oldest: LogIndex, context: &mut Host<'_>) {
        let removed = self.snapshots.retain(oldest).map_err(|error| reason(&error));
        let result = removed.and_then(|()| self.writer.compact(through));
        if let Err(reason) = result {
            self.after_disk(Pending::Failure(reason), context);
        }
    }
}

/// What a message says about its sender's promises.
pub(super) fn told(envelope: &Envelope) -> (Term, Option<NodeId>) {
    let vote = match envelope.message {
        Message::VoteReply { granted: true } => Some(envelope.to),
        Message::Vote { .. } => Some(envelope.from),
        _ => None,
    };
    (envelope.term, vote)
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

fn trace(event: &TraceEvent, context: &mut Host<'_>) {
    let kind = match event {
        TraceEvent::PreVoteStarted { .. }
        | TraceEvent::FounderMissing { .. }
        | TraceEvent::FounderRefuses { .. }
        | TraceEvent::ElectionStarted { .. } => kind::TERM,
        TraceEvent::VoteGranted { .. } | TraceEvent::VoteRefused { .. } => kind::VOTE,
        TraceEvent::ElectionWon { .. }
        | TraceEvent::Became { .. }
        | TraceEvent::QuorumLost { .. }
        | TraceEvent::CommitDeferred { .. }
        | TraceEvent::DiskSlow { .. }
        | TraceEvent::WentQuiet { .. }
        | TraceEvent::Woken { .. }
        | TraceEvent::DiskStalled { .. } => kind::ROLE,
        TraceEvent::Appended { .. } => kind::APPENDED,
        TraceEvent::Truncated { .. } => kind::TRUNCATED,
        TraceEvent::Committed { .. } => kind::COMMITTED,
        TraceEvent::SnapshotNeeded { .. }
        | TraceEvent::SnapshotInstalled { .. }
        | TraceEvent::Compacted { .. } => kind::SNAPSHOT,
        TraceEvent::Bound { .. }
        | TraceEvent::MembershipProposed { .. }
        | TraceEvent::ChangeTakenBack { .. }
        | TraceEvent::Removed => kind::MEMBERSHIP,
        TraceEvent::TransferStarted { .. }
        | TraceEvent::TimeoutNowSent { .. }
        | TraceEvent::TransferTimedOut { .. } => kind::ROLE,
        TraceEvent::DamageFound { .. }
        | TraceEvent::RepairServed { .. }
        | TraceEvent::Repaired { .. }
        | TraceEvent::DamageCovered { .. } => kind::FAULT,
        TraceEvent::RepairOverdue { .. } => kind::ROLE,
        TraceEvent::Dropped { .. } => kind::MESSAGE_DROPPED,
        // Every heartbeat and read is in the trace as a message.
        TraceEvent::HeartbeatsSent { .. }
        | TraceEvent::ReadConfirmed { .. }
        | TraceEvent::ReadByLease { .. }
        | TraceEvent::LeaseOver { .. } => return,
    };
    context.trace(kind, format_args!("{event:?}"));
}

impl<W: Workload> fmt::Debug for SimNode<W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SimNode")
            .field("id", &self.setup.id)
            .field("replica", &self.replica())
            .finish_non_exhaustive()
    }
}

/// What a node acknowledges that knows its own log to be intact only up to `sound`.
fn unsound(sent: &[Envelope], sound: LogIndex) -> Option<(LogIndex, LogIndex)> {
    sent.iter().find_map(|envelope| match envelope.message {
        Message::AppendAccepted { matched } if matched > sound => Some((matched, sound)),
        _ => None,
    })
}
