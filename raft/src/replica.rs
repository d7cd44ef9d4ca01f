//! A replica: the node, the order of its effects, and who waits for what.
//!
//! [`RaftNode`] says what must happen; somebody has to hold a message back until its write is durable, to hand committed entries to
//! the state machine one run at a time, to remember which client waits for which entry, and to ask again when a
//! read got no answer. All of that *decides* something, so it is here, pure, and runs in the simulator exactly as in
//! production. What is left to the driver moves bytes.
//!
//! - **Messages** leave when the write they name is durable.
//! - **Proposals** are answered when the entry at their place is applied: with the machine's reply if it is theirs, with
//!   [`ProposalError::Superseded`] if another term's entry took the place, which means that it never takes effect. If a snapshot
//!   took the place, nobody can tell: [`ProposalError::Unknown`].
//! - **Orders** of an operator, changes of the members and transfers of leadership, are answered when the entry that ends the change
//!   is applied here, or when the node says that it has handed over.
//! - **Reads** that arrive while one is being confirmed wait and share the next confirmation. An unanswered one is asked again under a
//!   new [`ReadId`](crate::message::ReadId); one that is too old is given up.
//! - **Applying** goes in runs of bounded size, one at a time, so that a slow machine holds little memory and new proposals
//!   are refused when it falls too far behind.
//! - **Snapshots** of our own are taken between two runs, so that they stand for exactly the entries given out so far. Pieces of them are
//!   read for followers at a bounded pace.

use std::collections::VecDeque;
use std::ops::RangeInclusive;
use std::time::Duration;

use bytes::Bytes;

use crate::effects::{Effect, Effects, FatalError, IoToken, Rejection};
use crate::message::Envelope;
use crate::raft_node::{Event, QuietStanding, RaftNode, Role};
use crate::state_machine::Reply;
use crate::trace::TraceEvent;
use crate::types::{EntryId, LogIndex, SnapshotMeta};

mod applying;
mod input;
mod orders;
mod output;
mod pace;
mod proposals;
mod reads;

pub use input::{Input, Request, SnapshotOutcome};
use orders::Orders;
pub use output::{Output, ProposalError, Run};
use pace::{Pace, Wanted};
use proposals::Proposals;
use reads::Reads;

/// The caller's name for a read, unique while the node runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequestId(pub u64);

/// How a replica behaves beyond its node's [`crate::raft_node::Config`].
#[derive(Clone, Debug)]
pub struct ReplicaConfig {
    /// Entries applied since the last snapshot after which another is taken, or as soon as they have 64 MiB: if their bytes are as many
    /// as that snapshot has. So all snapshots together never write more than the log does, however large the state, and the log
    /// never grows far beyond the state, however large the commands.
    pub snapshot_entries: u64,
    /// Bytes of entries handed to the state machine at a time (one entry may exceed it).
    pub apply_bytes_max: usize,
    /// Committed entries that may wait for the state machine before proposals are refused.
    pub apply_lag_max: u64,
    /// Reads that wait at once.
    pub reads_max: usize,
    /// A read without an answer is asked again after this time.
    pub read_retry: Duration,
    /// Bytes of snapshots read and sent in a second, to all followers together; one at least.
    pub snapshot_bytes_per_second: u64,
}

impl Default for ReplicaConfig {
    fn default() -> Self {
        Self {
            snapshot_entries: 10_000,
            apply_bytes_max: 1 << 20,
            apply_lag_max: 50_000,
            reads_max: 10_000,
            read_retry: Duration::from_millis(300),
            snapshot_bytes_per_second: 64 << 20,
        }
    }
}

/// Messages that wait for their write. Far more than the windows of all peers let be under way.
const HELD_MAX: usize = 10_000;

/// A replica. See the head of the module.
#[derive(Debug)]
pub struct Replica {
    node: RaftNode,
    config: ReplicaConfig,
    effects: Effects,
    held: VecDeque<(IoToken, Envelope)>,
    proposals: Proposals,
    orders: Orders,
    reads: Reads,
    /// Committed entries not given out yet.
    to_apply: Option<RangeInclusive<LogIndex>>,
    /// The last entry given out, and whether its run is still under way.
    given: EntryId,
    is_applying: bool,
    applied: EntryId,
    restoring: Option<SnapshotMeta>,
    is_taking_snapshot: bool,
    snapshot_is_wanted: bool,
    /// The latest snapshot could not be read: it is to be written anew, even if nothing was applied since.
    latest_is_damaged: bool,
    /// Bytes of entries given out since the latest snapshot was begun.
    bytes_since_snapshot: u64,
    has_snapshots: bool,
    snapshot_not_before: Duration,
    pace: Pace,
    is_low_on_space: bool,
    is_stopped: bool,
    quiet: QuietStanding,
    /// Everything that was given out to be sent, if somebody wants to know.
    #[cfg(feature = "sim")]
    pub(crate) given_out: Option<Vec<Envelope>>,
}

impl Replica {
    /// A replica of a recovered node, whose state machine stands exactly where the node says: at its snapshot, or at what
    /// [`RaftNode::resume_at`] was told.
    #[must_use]
    pub fn new(node: RaftNode, config: ReplicaConfig) -> Self {
        let index = node.applied();
        let term = node.log().term_at(index).expect("what is applied is in the log");
        let start = EntryId::new(term, index);
        let pace = Pace::new(config.snapshot_bytes_per_second);
        Self {
            node,
            config,
            effects: Effects::new(),
            held: VecDeque::new(),
            proposals: Proposals::default(),
            orders: Orders::default(),
            reads: Reads::default(),
            to_apply: None,
            given: start,
            is_applying: false,
            applied: start,
            restoring: None,
            is_taking_snapshot: false,
            snapshot_is_wanted: false,
            latest_is_damaged: false,
            bytes_since_snapshot: 0,
            has_snapshots: true,
            snapshot_not_before: Duration::ZERO,
            pace,
            is_low_on_space: false,
            is_stopped: false,
            quiet: QuietStanding::Awake,
            #[cfg(feature = "sim")]
            given_out: None,
        }
    }

    /// The node.
    #[must_use]
    pub fn node(&self) -> &RaftNode {
        &self.node
    }

    /// The last entry that the state machine has applied.
    #[must_use]
    pub fn applied(&self) -> EntryId {
        self.applied
    }

    /// How many proposals wait for their entry.
    #[must_use]
    pub fn pending_proposals(&self) -> usize {
        self.proposals.len()
    }

    /// Whether new commands are refused for want of space.
    #[must_use]
    pub fn is_low_on_space(&self) -> bool {
        self.is_low_on_space
    }

    /// Whether the latest snapshot could not be read, and has not been written anew yet.
    #[must_use]
    pub fn latest_snapshot_is_damaged(&self) -> bool {
        self.latest_is_damaged
    }

    /// When the replica wants [`Input::Timeout`].
    #[must_use]
    pub fn next_deadline(&self) -> Option<Duration> {
        let deadlines =
            [self.node.next_deadline(), self.reads.next_deadline(), self.pace.deadline()];
        deadlines.into_iter().flatten().min()
    }

    /// Takes one input at time `now`.
    pub fn handle(&mut self, now: Duration, input: Input, out: &mut Vec<Output>) {
        if self.is_stopped {
            return;
        }
        match input {
            Input::Timeout => {
                self.step(now, Event::Timeout, out);
                self.expire_reads(now, out);
            }
            Input::Receive(envelope) => self.step(now, Event::Receive(envelope), out),
            Input::Propose(requests) => self.propose(now, requests, out),
            Input::Read { requests, deadline } => self.queue_reads(requests, deadline, out),
            Input::ChangeMembership(id, change) => {
                self.step(now, Event::ChangeMembership(id, change), out);
            }
            Input::TransferLeader(id, to) => self.step(now, Event::TransferLeader(id, to), out),
            Input::LowSpace(is_low) => {
                self.is_low_on_space = is_low;
                self.step(now, Event::LowSpace(is_low), out);
            }
            Input::Persisted(token) => self.step(now, Event::Persisted(token), out),
            Input::PersistFailed { token, error } => self.persist_failed(now, token, error, out),
            Input::Applied { last, replies } => self.run_applied(now, last, replies, out),
            Input::ApplyFailed(error) => self.stop(FatalError::StateMachine(error), out),
            Input::RunUnreadable(error) => self.run_unreadable(error, out),
            Input::RunStopped { last, replies, damaged } => {
                self.run_stopped(now, last, replies, damaged, out);
            }
            Input::EntriesDamaged { first, last } => {
                self.step(now, Event::EntriesDamaged { first, last }, out);
            }
            Input::RepairRead { to, entries } => {
                self.step(now, Event::RepairRead { to, entries }, out);
            }
            Input::Restored(last) => self.restored(now, last, out),
            Input::EntriesRead { to, entries } => {
                self.step(now, Event::EntriesRead { to, entries }, out);
            }
            Input::SnapshotTaken(outcome) => self.snapshot_taken(now, outcome, out),
            Input::SnapshotRead { to, meta, offset, data } => {
                self.pace.read(now, to, data.as_ref().map_or(0, Bytes::len));
                if data.is_none() && self.node.log().snapshot() == Some(&meta) {
                    // Damaged, perhaps; a new one writes anew what is.
                    self.latest_is_damaged = true;
                    self.snapshot_is_wanted = true;
                }
                self.step(now, Event::SnapshotRead { to, meta, offset, data }, out);
            }
            Input::SnapshotWritten { meta, offset, is_complete } => {
                self.step(now, Event::SnapshotWritten { meta, offset, is_complete }, out);
            }
            Input::TakeSnapshot => self.snapshot_is_wanted = true,
            Input::NodeEpoch(epoch) => self.step(now, Event::NodeEpoch(epoch), out),
            Input::LeaderSilent => self.step(now, Event::LeaderSilent, out),
        }
        self.ask_for_reads(now, out);
        self.give_work(now, out);
        self.read_snapshots(now, out);
        // It may have stopped since its last step.
        self.tell_standing(out);
    }

    fn tell_standing(&mut self, out: &mut Vec<Output>) {
        let standing =
            if self.is_stopped { QuietStanding::Awake } else { self.node.quiet_standing() };
        if standing != self.quiet {
            self.quiet = standing;
            out.push(Output::Quiet(standing));
        }
    }

    // The node's effects.

    fn step(&mut self, now: Duration, event: Event, out: &mut Vec<Output>) {
        let mut effects = std::mem::take(&mut self.effects);
        self.node.step(now, event, &mut effects);
        // What was said earlier and had to wait goes before what is said now, perhaps in a later term.
        self.release_held(out);
        // Before what this step sends: who watches must know that we have asked before it hears whom.
        self.tell_standing(out);
        for effect in effects.drain() {
            #[cfg(feature = "sim")]
            if let (Some(given_out), Effect::Send { envelope, .. }) = (&mut self.given_out, &effect)
            {
                given_out.push(envelope.clone());
            }
            self.carry_out(now, effect, out);
        }
        self.effects = effects;
        self.release_held(out);
        self.answer_removed(out);
    }

    fn carry_out(&mut self, now: Duration, effect: Effect, out: &mut Vec<Output>) {
        match effect {
            Effect::Persist(batch) => out.push(Output::Persist(batch)),
            Effect::Send { envelope, after: None } => out.push(Output::Send(envelope)),
            // While a disk stands still, the others ask again and again. What is not held is as if lost on the way.
            Effect::Send { envelope, after: Some(token) } => {
                if self.held.len() < HELD_MAX {
                    self.held.push_back((token, envelope));
                }
            }
            Effect::Apply(range) => self.committed(range),
            Effect::Proposed { id, entry } => {
                if let Some(lost) = self.proposals.insert(entry, id) {
                    // An entry of an earlier term of ours stood here; what became of it is only known when this place is applied,
                    // and then by its term alone. This one's term is later: the earlier entry is gone for good only if this one
                    // commits.
                    out.push(Output::Answer { id: lost, result: Err(ProposalError::Unknown) });
                }
            }
            Effect::Rejected { id, reason } => {
                out.push(Output::Answer { id, result: Err(ProposalError::Rejected(reason)) });
            }
            Effect::Ordered { id, entry } => self.orders.waits(id, entry),
            Effect::OrderDone { id } => out.push(Output::OrderDone { id, result: Ok(()) }),
            Effect::OrderFailed { id, error } => {
                self.orders.forget(id);
                out.push(Output::OrderDone { id, result: Err(error) });
            }
            Effect::ReadReady { id, index } => self.read_confirmed(id, index, out),
            Effect::ReadFailed { id, .. } => self.read_unconfirmed(now, id),
            Effect::ReadEntries { to, from, through, bytes_max } => {
                out.push(Output::ReadEntries { to, range: from..=through, bytes_max });
            }
            Effect::ReadForRepair { to, from, through, bytes_max } => {
                out.push(Output::ReadForRepair { to, range: from..=through, bytes_max });
            }
            Effect::ReadSnapshot { to, meta, offset } => {
                self.pace.ask(Wanted { to, meta, offset });
            }
            Effect::WriteSnapshot { meta, offset, data } => {
                out.push(Output::WriteSnapshot { meta, offset, data });
            }
            Effect::Restore(meta) => self.restore(meta, out),
            Effect::Compact(through) => {
                let latest = self.node.log().snapshot().into_iter();
                let in_use = latest.chain(self.node.snapshots_in_use());
                let oldest_snapshot = in_use.map(|meta| meta.last.index).min().unwrap_or_default();
                out.push(Output::Compact { through, oldest_snapshot });
            }
            Effect::RoleChanged { .. } => {
                #[cfg(feature = "sim")]
                self.fail_proposals_of_who_stepped_down(out);
                self.ask_again_at(now);
                out.push(Output::StatusChanged);
            }
            Effect::MembershipChanged(_) => out.push(Output::MembersChanged),
            Effect::Trace(event) => {
                if event == TraceEvent::Removed {
                    out.push(Output::StatusChanged);
                }
                out.push(Output::Trace(event));
            }
            Effect::Fatal(error) => self.stop(error, out),
        }
    }

    /// Lets pieces of snapshots be read, at their pace.
    fn read_snapshots(&mut self, now: Duration, out: &mut Vec<Output>) {
        if self.node.role() != Role::Leader {
            return self.pace.forget();
        }
        while let Some(Wanted { to, meta, offset }) = self.pace.next(now) {
            out.push(Output::ReadSnapshot { to, meta, offset });
        }
    }

    /// Lets go the messages whose writes are durable.
    fn release_held(&mut self, out: &mut Vec<Output>) {
        let durable = self.node.log().durable_token();
        // In the order in which they were given out: one that could go waits for those before it, which is never long.
        while let Some((_, envelope)) = self.held.pop_front_if(|(token, _)| *token <= durable) {
            out.push(Output::Send(envelope));
        }
    }

    fn persist_failed(
        &mut self,
        now: Duration,
        token: IoToken,
        error: String,
        out: &mut Vec<Output>,
    ) {
        #[cfg(feature = "sim")]
        if self.has_bug(crate::sim::PlantedBug::FsyncErrorIgnored) {
            return self.step(now, Event::Persisted(token), out);
        }
        let _ = token;
        self.step(now, Event::PersistFailed(error), out);
    }

    fn stop(&mut self, error: FatalError, out: &mut Vec<Output>) {
        self.is_stopped = true;
        self.answer_passed_over(LogIndex(u64::MAX), ProposalError::Unknown, out);
        self.orders.give_up(LogIndex::ZERO, out);
        for request in std::mem::take(&mut self.reads).into_unanswered() {
            out.push(Output::ReadFailed { request, leader: None });
        }
        out.push(Output::Stop(error));
    }

    // Proposals.

    fn propose(&mut self, now: Duration, requests: Vec<Request>, out: &mut Vec<Output>) {
        let lag = self.node.commit().since(self.applied.index);
        let is_behind = lag > self.config.apply_lag_max;
        let mut proposals = Vec::with_capacity(requests.len());
        for Request { proposal, reclaims_space } in requests {
            let refusal = if is_behind {
                Some(ProposalError::Rejected(Rejection::Overloaded))
            } else if self.is_low_on_space && !reclaims_space {
                Some(ProposalError::NoSpace)
            } else {
                None
            };
            match refusal {
                // Who does not lead says so first: the leader may have room.
                Some(refusal) if self.node.role() == Role::Leader => {
                    out.push(Output::Answer { id: proposal.id, result: Err(refusal) });
                }
                _ => proposals.push(proposal),
            }
        }
        if !proposals.is_empty() {
            self.step(now, Event::Propose(proposals), out);
        }
    }

    #[cfg(feature = "sim")]
    fn has_bug(&self, bug: crate::sim::PlantedBug) -> bool {
        self.node.config().planted_bug == Some(bug)
    }

    /// With a planted bug, who leads no more says of all proposals that they have no effect.
    #[cfg(feature = "sim")]
    fn fail_proposals_of_who_stepped_down(&mut self, out: &mut Vec<Output>) {
        let is_leading = self.node.role() == Role::Leader;
        if !is_leading && self.has_bug(crate::sim::PlantedBug::ProposalsFailedOnStepDown) {
            self.answer_passed_over(LogIndex(u64::MAX), ProposalError::Superseded, out);
        }
    }

    /// The entry at this place is applied, or passed over by a snapshot if there is no reply.
    fn answer(&mut self, entry: EntryId, reply: Reply, out: &mut Vec<Output>) {
        if let Some((term, id)) = self.proposals.remove(entry.index) {
            let is_theirs = term == entry.term;
            let result =
                if is_theirs { Ok((entry, reply)) } else { Err(ProposalError::Superseded) };
            out.push(Output::Answer { id, result });
        }
    }

    /// Answers those whose place was taken by an entry without a command, or by a snapshot.
    fn answer_passed_over(
        &mut self,
        through: LogIndex,
        error: ProposalError,
        out: &mut Vec<Output>,
    ) {
        while let Some(id) = self.proposals.pop_first(through) {
            out.push(Output::Answer { id, result: Err(error) });
        }
    }

    /// Proposals whose place is no longer in the log: a later leader removed it and has put nothing there, perhaps for a long time.
    /// Another node may still have the entry. To a node that is no member any more nobody says what became of entries that it does not
    /// know to be committed.
    fn answer_removed(&mut self, out: &mut Vec<Output>) {
        let last = match self.node.is_removed() {
            true => self.node.commit(),
            false => self.node.log().last().index,
        };
        while let Some(id) = self.proposals.pop_last(last) {
            out.push(Output::Answer { id, result: Err(ProposalError::Unknown) });
        }
        self.orders.give_up(last, out);
    }
}
