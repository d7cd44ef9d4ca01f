//! The nodes, their disks and the messages between them, as one value that forks.

use std::collections::BTreeMap;
use std::collections::VecDeque;
use std::fmt;
use std::hash::Hash;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;

use super::digest::Digest;
use super::node::{Disk, Node};
use super::{PlantedBug, Ration, Scope, Start, Writes};
use crate::effects::{Effect, Effects, ProposalId};
use crate::invariants::SafetyChecker;
use crate::membership::{ConfChange, MemberChange, Membership, Standing};
use crate::message::{Envelope, Message, ReadId};
use crate::raft_node::{Config, Event, Proposal, Role};
use crate::sim::node::told;
use crate::types::{EntryId, LogIndex, NodeId, SnapshotMeta, StoreId, Term};

/// All nodes and all that is under way.
#[derive(Clone)]
pub(super) struct World {
    nodes: Vec<Rc<Node>>,
    /// Messages under way, by digest; none is there twice.
    network: Vec<(u128, Rc<Envelope>)>,
    ghosts: Rc<Ghosts>,
    ration: Ration,
    writes: Writes,
}

/// What was promised; no node knows all of it.
#[derive(Clone, Default)]
struct Ghosts {
    safety: SafetyChecker,
    /// The latest term that each node has revealed, and its vote in it.
    told: BTreeMap<NodeId, (Term, Option<NodeId>)>,
    /// What was committed when each open read was asked for.
    reads: BTreeMap<ReadId, LogIndex>,
}

/// Parts of states, each kept once: a node is in few states of its own, and they meet in many combinations.
#[derive(Default)]
pub(super) struct Pool {
    nodes: BTreeMap<u128, Rc<Node>>,
    messages: BTreeMap<u128, Rc<Envelope>>,
    ghosts: BTreeMap<u128, Rc<Ghosts>>,
}

/// Something that can happen.
#[derive(Clone, Debug)]
pub(super) enum Action {
    /// A message arrives.
    Deliver {
        message: Rc<Envelope>,
        digest: u128,
        /// Not before the receiver has forgotten its leader's last sign of life.
        late: bool,
        /// It stays under way.
        repeats: bool,
    },
    /// A deadline comes.
    Deadline(NodeId),
    /// The writes under way become durable.
    Write(NodeId),
    /// A node ends and starts again; what it was writing is on its disk, or lost.
    Restart { node: NodeId, keeps: bool },
    /// A client gives the leader a command.
    Command(NodeId),
    /// A client reads.
    Read(NodeId),
    /// A node takes a snapshot and drops its log.
    Snapshot(NodeId),
    /// An operator wants other members.
    Change { leader: NodeId, change: ConfChange },
    /// An operator wants another leader.
    Transfer { leader: NodeId, to: NodeId },
}

/// Deadlines are fired, not waited for: what is drawn does not matter.
const ELECTION_TIMEOUT: std::ops::Range<Duration> =
    Duration::from_millis(150)..Duration::from_nanos(150_000_001);
const HEARTBEAT: Duration = Duration::from_millis(100);
/// Heartbeats until everybody knows of the founding.
const ROUNDS: u8 = 4;

impl World {
    pub(super) fn first(scope: &Scope, bug: Option<PlantedBug>) -> Result<Self, String> {
        let founding = Membership::founding((1..=scope.nodes).map(NodeId));
        let nodes = (1..=scope.nodes).map(|id| {
            let mut config = Config::new(NodeId(id), StoreId(u128::from(id)), founding.clone());
            config.election_timeout = ELECTION_TIMEOUT;
            config.heartbeat = HEARTBEAT;
            config.kept_entries = 0;
            config.planted_bug = bug;
            let mut disk = Disk::default();
            if scope.start == Start::Figure8 {
                config.append_bytes_max = 1;
                disk = Disk::of_figure_8(id, founding.clone());
            }
            Node::start(config, disk, Duration::ZERO).map(Rc::new)
        });
        let mut world = Self {
            nodes: nodes.collect::<Result<_, _>>()?,
            network: Vec::new(),
            ghosts: Rc::default(),
            ration: Ration { campaigns: 1, heartbeats: ROUNDS, ..Ration::default() },
            writes: Writes::AtOnce,
        };
        if scope.start == Start::Founded {
            world.found()?;
        }
        (world.ration, world.writes) = (scope.ration, scope.writes);
        Ok(world)
    }

    /// Lets node 1 win, and tells everybody what is committed.
    fn found(&mut self) -> Result<(), String> {
        let is_done = |node: &Rc<Node>| {
            let raft = &node.raft;
            raft.membership().is_fully_bound() && raft.commit() == raft.log().last().index
        };
        for _ in 0..=ROUNDS {
            self.take(&Action::Deadline(NodeId(1)))?;
            while let Some((digest, message)) = self.network.first().cloned() {
                self.take(&Action::Deliver { message, digest, late: true, repeats: false })?;
            }
        }
        assert!(self.nodes.iter().all(is_done), "everybody is bound, and knows it");
        Ok(())
    }

    pub(super) fn digest(&self) -> u128 {
        let mut digest = Digest::new();
        for node in &self.nodes {
            node.digest.hash(&mut digest);
        }
        self.network.len().hash(&mut digest);
        for (message, _) in &self.network {
            message.hash(&mut digest);
        }
        let Ghosts { safety, told, reads } = self.ghosts.as_ref();
        safety.digest(&mut digest);
        (told, reads, self.ration).hash(&mut digest);
        digest.value()
    }

    /// Replaces the parts by equal ones that are there already.
    pub(super) fn share(&mut self, pool: &mut Pool) {
        for node in &mut self.nodes {
            *node = Rc::clone(pool.nodes.entry(node.digest).or_insert_with(|| Rc::clone(node)));
        }
        for (digest, message) in &mut self.network {
            let known = pool.messages.entry(*digest).or_insert_with(|| Rc::clone(message));
            *message = Rc::clone(known);
        }
        let mut digest = Digest::new();
        let Ghosts { safety, told, reads } = self.ghosts.as_ref();
        safety.digest(&mut digest);
        safety.digest_of_seen(&mut digest);
        (told, reads).hash(&mut digest);
        let known = pool.ghosts.entry(digest.value()).or_insert_with(|| Rc::clone(&self.ghosts));
        self.ghosts = Rc::clone(known);
        self.network.shrink_to_fit();
    }

    /// All that can happen now.
    pub(super) fn actions(&self) -> Vec<Action> {
        let mut actions = Vec::new();
        for (digest, message) in &self.network {
            let asks_for_vote =
                matches!(message.message, Message::Vote { .. } | Message::PreVote { .. });
            let receiver = &self.node(message.to).raft;
            let may_be_late =
                asks_for_vote && receiver.is_in_contact() && receiver.role() != Role::Leader;
            for late in [false, true] {
                for repeats in [false, true] {
                    if late <= may_be_late && (!repeats || self.ration.repeats > 0) {
                        let (message, digest) = (Rc::clone(message), *digest);
                        actions.push(Action::Deliver { message, digest, late, repeats });
                    }
                }
            }
        }
        for node in &self.nodes {
            self.actions_of(node, &mut actions);
        }
        actions
    }

    fn actions_of(&self, node: &Node, actions: &mut Vec<Action>) {
        let (id, ration) = (node.raft.id(), &self.ration);
        let leads = node.raft.role() == Role::Leader;
        if if leads { ration.heartbeats } else { ration.campaigns } > 0 {
            actions.push(Action::Deadline(id));
        }
        if !node.writing.is_empty() {
            actions.push(Action::Write(id));
        }
        if ration.restarts > 0 {
            actions.push(Action::Restart { node: id, keeps: false });
            if !node.writing.is_empty() {
                actions.push(Action::Restart { node: id, keeps: true });
            }
        }
        if ration.commands > 0 && leads {
            actions.push(Action::Command(id));
        }
        if ration.reads > 0 && node.raft.leader().is_some() {
            actions.push(Action::Read(id));
        }
        let members = node.raft.membership();
        if ration.changes > 0 && leads {
            let change = |change| Action::Change { leader: id, change };
            for (member, known) in members.members() {
                let to = match known.standing {
                    Standing::Learner => MemberChange::Promote(member),
                    _ => MemberChange::Demote(member),
                };
                actions.push(change(ConfChange::Members(vec![to])));
            }
            if members.is_joint() {
                actions.push(change(ConfChange::Cancel));
            }
        }
        if ration.transfers > 0 && leads {
            let others = members.incoming().filter(|&to| to != id);
            actions.extend(others.map(|to| Action::Transfer { leader: id, to }));
        }
        let covered = node.raft.log().snapshot().map_or(LogIndex::ZERO, |meta| meta.last.index);
        if ration.snapshots > 0 && node.raft.applied() > covered {
            actions.push(Action::Snapshot(id));
        }
    }

    fn node(&self, id: NodeId) -> &Node {
        &self.nodes[place(id)]
    }

    /// Takes an action, and looks at what came of it.
    pub(super) fn take(&mut self, action: &Action) -> Result<(), String> {
        match *action {
            Action::Deliver { ref message, digest, late, repeats } => {
                if repeats {
                    self.ration.repeats -= 1;
                } else {
                    self.network.retain(|(under_way, _)| *under_way != digest);
                }
                let receiver = self.node(message.to);
                let now = receiver.raft.now();
                let now = if late { now.max(receiver.raft.contact_ends()) } else { now };
                self.step(message.to, now, Event::Receive(message.as_ref().clone()))
            }
            Action::Deadline(id) => {
                let node = self.node(id);
                let left = if node.raft.role() == Role::Leader {
                    &mut self.ration.heartbeats
                } else {
                    &mut self.ration.campaigns
                };
                *left -= 1;
                let node = self.node(id);
                let due = node.raft.next_deadline().unwrap_or_default();
                self.step(id, node.raft.now().max(due), Event::Timeout)
            }
            Action::Write(id) => {
                let node = self.node(id);
                let now = node.raft.now();
                let token = node.writing.back().map(|batch| batch.token).unwrap_or_default();
                Rc::make_mut(&mut self.nodes[place(id)]).finish_writes();
                self.step(id, now, Event::Persisted(token))
            }
            Action::Restart { node, keeps } => {
                self.ration.restarts -= 1;
                self.restart(node, keeps)
            }
            Action::Command(id) => {
                let command = Bytes::copy_from_slice(&[self.ration.commands]);
                self.ration.commands -= 1;
                let proposal = Proposal { id: ProposalId(0), session: None, command };
                self.step(id, self.node(id).raft.now(), Event::Propose(vec![proposal]))
            }
            Action::Read(node) => {
                let raft = &self.node(node).raft;
                let (boot, counter) = (raft.config().boot, u64::from(self.ration.reads));
                let (id, now) = (ReadId { node, boot, counter }, raft.now());
                self.ration.reads -= 1;
                let ghosts = Rc::make_mut(&mut self.ghosts);
                ghosts.reads.insert(id, ghosts.safety.committed());
                self.step(node, now, Event::ReadIndex(id))
            }
            Action::Change { leader, ref change } => {
                self.ration.changes -= 1;
                let event = Event::ChangeMembership(ProposalId(0), change.clone());
                self.step(leader, self.node(leader).raft.now(), event)
            }
            Action::Transfer { leader, to } => {
                self.ration.transfers -= 1;
                let event = Event::TransferLeader(ProposalId(0), Some(to));
                self.step(leader, self.node(leader).raft.now(), event)
            }
            Action::Snapshot(id) => {
                self.ration.snapshots -= 1;
                let raft = &self.node(id).raft;
                let index = raft.applied();
                let term = raft.log().term_at(index).expect("what is applied is in the log");
                let last = EntryId::new(term, index);
                let membership = raft.membership_at(index).clone();
                let meta = SnapshotMeta { last, membership, size: 1, checksum: 0 };
                self.step(id, raft.now(), Event::SnapshotBuilt(meta))
            }
        }
    }

    fn restart(&mut self, id: NodeId, keeps: bool) -> Result<(), String> {
        let mut old = self.node(id).clone();
        if keeps {
            old.finish_writes();
        }
        let mut config = old.raft.config().clone();
        config.boot += 1;
        let node = Node::start(config, old.disk, old.raft.now())?;
        self.nodes[place(id)] = Rc::new(node);
        self.look(id)
    }

    /// One step of a node and all that follows from it on the node itself.
    fn step(&mut self, id: NodeId, now: Duration, event: Event) -> Result<(), String> {
        let mut events = VecDeque::from([event]);
        let mut effects = Effects::new();
        while let Some(event) = events.pop_front() {
            let node = Rc::make_mut(&mut self.nodes[place(id)]);
            node.raft.step(now, event, &mut effects);
            for effect in effects.drain() {
                self.carry_out(id, effect, &mut events)?;
            }
            let node = Rc::make_mut(&mut self.nodes[place(id)]);
            if self.writes == Writes::AtOnce
                && let Some(last) = node.writing.back()
            {
                events.push_back(Event::Persisted(last.token));
                node.finish_writes();
            }
            let durable = node.raft.log().durable_token();
            let mut free = Vec::new();
            while let Some((_, message)) = node.held.pop_front_if(|(token, _)| *token <= durable) {
                free.push(message);
            }
            free.into_iter().try_for_each(|message| self.send(message))?;
        }
        let node = Rc::make_mut(&mut self.nodes[place(id)]);
        node.digest = node.digested();
        self.forget_answers_to(id);
        self.look(id)
    }

    fn carry_out(
        &mut self,
        id: NodeId,
        effect: Effect,
        events: &mut VecDeque<Event>,
    ) -> Result<(), String> {
        let node = Rc::make_mut(&mut self.nodes[place(id)]);
        match effect {
            Effect::Persist(batch) => node.writing.push_back(batch),
            Effect::Send { envelope, after: Some(token) } => node.held.push_back((token, envelope)),
            Effect::Send { envelope, after: None } => self.send(envelope)?,
            Effect::Apply(range) => {
                let through = *range.end();
                self.apply(id, *range.start(), through)?;
                events.push_back(Event::Applied(through));
            }
            Effect::ReadReady { id: read, index } => {
                let floor = Rc::make_mut(&mut self.ghosts).reads.remove(&read).unwrap_or_default();
                if index < floor {
                    return Err(format!(
                        "linearizability: {id} reads as of {index}, when asked {floor} was committed"
                    ));
                }
            }
            Effect::ReadFailed { id: read, .. } => {
                Rc::make_mut(&mut self.ghosts).reads.remove(&read);
            }
            // A log this short is in memory.
            Effect::ReadEntries { to, .. } => {
                events.push_back(Event::EntriesRead { to, entries: Vec::new() });
            }
            // And no disk here loses any of it.
            Effect::ReadForRepair { to, .. } => {
                events.push_back(Event::RepairRead { to, entries: Vec::new() });
            }
            Effect::ReadSnapshot { to, meta, offset } => {
                let data = Some(Bytes::from_static(b"s"));
                events.push_back(Event::SnapshotRead { to, meta, offset, data });
            }
            Effect::WriteSnapshot { meta, .. } => {
                events.push_back(Event::SnapshotWritten { meta, offset: 1, is_complete: true });
            }
            Effect::Restore(meta) => events.push_back(Event::Applied(meta.last.index)),
            Effect::Compact(through) => node.disk.compact(through),
            Effect::Fatal(error) => {
                return Err(format!("nodes do not fail: {id} stopped: {error}"));
            }
            Effect::Proposed { .. }
            | Effect::Rejected { .. }
            | Effect::Ordered { .. }
            | Effect::OrderDone { .. }
            | Effect::OrderFailed { .. }
            | Effect::RoleChanged { .. }
            | Effect::MembershipChanged(_)
            | Effect::Trace(_) => {}
        }
        Ok(())
    }

    /// A message leaves: what it reveals binds its sender from now on.
    fn send(&mut self, message: Envelope) -> Result<(), String> {
        let (from, (term, vote)) = (message.from, told(&message));
        let (last, voted) = Rc::make_mut(&mut self.ghosts).told.entry(from).or_default();
        if term < *last {
            return Err(format!("promises: {from} speaks in term {term} after term {last}"));
        }
        if term > *last {
            (*last, *voted) = (term, None);
        }
        if let Some(candidate) = vote {
            if let Some(before) = voted.filter(|before| *before != candidate) {
                return Err(format!(
                    "promises: {from} voted for {before} and {candidate} in term {term}"
                ));
            }
            *voted = vote;
        }
        let digest = Digest::of(&message);
        if let Err(at) = self.network.binary_search_by_key(&digest, |(under_way, _)| *under_way) {
            self.network.insert(at, (digest, Rc::new(message)));
        }
        Ok(())
    }

    /// Answers of terms that their receiver has left for good, its next starts included, have no effect ever: as good as lost.
    fn forget_answers_to(&mut self, id: NodeId) {
        let term = self.node(id).disk.0.hard_state.term;
        self.network.retain(|(_, message)| {
            message.to != id || message.term >= term || !is_answer(&message.message)
        });
    }

    fn apply(&mut self, id: NodeId, first: LogIndex, through: LogIndex) -> Result<(), String> {
        // The entries have to be committed first, in what everybody knows.
        self.look(id)?;
        let raft = &self.nodes[place(id)].raft;
        let ghosts = Rc::make_mut(&mut self.ghosts);
        if through > ghosts.safety.committed() {
            return Err(format!("one log: {id} applies {through} before it is committed"));
        }
        for entry in raft.log().peek(first, through).into_iter().flatten() {
            let digest = u64::try_from(Digest::of(&entry) >> 64).expect("the upper half");
            let applied = ghosts.safety.applied(id, entry.id.index, digest);
            applied.map_err(|violation| violation.to_string())?;
        }
        Ok(())
    }

    /// Raft's safety properties.
    fn look(&mut self, id: NodeId) -> Result<(), String> {
        let raft = &self.nodes[place(id)].raft;
        let ghosts = Rc::make_mut(&mut self.ghosts);
        ghosts.safety.check(raft).map_err(|violation| violation.to_string())?;
        let nodes = self.nodes.iter().map(|node| &node.raft);
        ghosts.safety.check_matching(raft, nodes).map_err(|violation| violation.to_string())
    }
}

fn place(id: NodeId) -> usize {
    usize::try_from(id.0 - 1).expect("a few nodes")
}

fn is_answer(message: &Message) -> bool {
    matches!(
        message,
        Message::PreVoteReply { .. }
            | Message::VoteReply { .. }
            | Message::AppendAccepted { .. }
            | Message::AppendRejected { .. }
            | Message::HeartbeatReply { .. }
            | Message::SnapshotAck { .. }
    )
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Deliver { message, late, repeats, .. } => {
                let Envelope { from, to, term, message, .. } = message.as_ref();
                let late = if *late { ", late" } else { "" };
                let repeats = if *repeats { ", and stays under way" } else { "" };
                write!(f, "{from} → {to} in term {term}: {message:?}{late}{repeats}")
            }
            Self::Deadline(node) => write!(f, "{node}'s deadline"),
            Self::Write(node) => write!(f, "{node}'s writes are durable"),
            Self::Restart { node, keeps: true } => write!(f, "{node} restarts with all it wrote"),
            Self::Restart { node, keeps: false } => {
                write!(f, "{node} restarts with what was durable")
            }
            Self::Command(node) => write!(f, "{node} is given a command"),
            Self::Read(node) => write!(f, "{node} is asked for a read"),
            Self::Snapshot(node) => write!(f, "{node} takes a snapshot"),
            Self::Change { leader, change } => write!(f, "{leader} is told: {change:?}"),
            Self::Transfer { leader, to } => write!(f, "{leader} is told to hand over to {to}"),
        }
    }
}
