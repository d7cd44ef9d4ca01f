//! A cluster and its clients as a scenario of the simulator.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::rc::Rc;
use std::time::Duration;

use lattice_sim::check::{Band, Page, Searched};
use lattice_sim::{
    Address, ChaCha8Rng, Context, Event, FaultKind, Process, Scenario, Step, StepKind, Target,
    TraceKeep, Violation, World,
};

use super::atlas;
use super::check::{Checker, Oracle};
use super::client::SimClient;
use super::message::SimMessage;
use super::node::{DISK_FULL, Delivered, KILLED, NodeSetup, SimNode, state_digest};
use super::shape::Shape;
use super::workload::Workload;
use crate::raft_node::{QuietStanding, RaftNode, Role};
use crate::state_machine::DurableStateMachine;
use crate::types::{NodeId, Term};

/// A node, or one of its clients.
#[derive(Debug)]
pub enum SimProcess<W: Workload> {
    /// A node.
    Node(Box<SimNode<W>>),
    /// A client.
    Client(Box<SimClient<W>>),
}

/// All nodes are looked at in full every so many events.
const FULL_CHECK_EVERY: u64 = 1_000;
/// The address of the first client.
pub(super) const CLIENTS: u64 = 101;

/// A cluster with its clients, and everything that is checked about it.
pub struct SimCluster<W: Workload> {
    workload: W,
    shape: Shape,
    /// How long faults strike.
    safety: Duration,
    checker: Checker<W>,
    events: u64,
    /// Syncs that had failed on each disk when its node last ended.
    failed_syncs: BTreeMap<Address, u64>,
    /// Reads that had met a bad place by then.
    bad_reads: BTreeMap<Address, u64>,
    /// Since when processes are down; noted only if groups may go quiet.
    down: BTreeMap<Address, Duration>,
    /// Since when nodes are quiet under one that has removed them.
    disowned: BTreeMap<NodeId, Duration>,
    /// What was damaged in logs of which each entry keeps its other copies.
    damaged: atlas::Damaged,
    /// Who led, and when; noted only if a trace is kept.
    leaders: Vec<(NodeId, Term, Band)>,
}

impl<W: Workload> SimCluster<W> {
    pub(super) fn new(workload: W, shape: Shape, safety: Duration, oracle: Oracle) -> Self {
        Self {
            checker: Checker::new(workload.clone(), oracle),
            workload,
            shape,
            safety,
            events: 0,
            failed_syncs: BTreeMap::new(),
            bad_reads: BTreeMap::new(),
            down: BTreeMap::new(),
            disowned: BTreeMap::new(),
            damaged: Vec::new(),
            leaders: Vec::new(),
        }
    }

    pub(super) fn nodes(world: &World<SimProcess<W>>) -> impl Iterator<Item = &SimNode<W>> + Clone {
        let processes: Vec<_> = world.processes().map(|(_, process)| process).collect();
        processes.into_iter().filter_map(|process| match process {
            SimProcess::Node(node) => Some(node.as_ref()),
            SimProcess::Client(_) => None,
        })
    }

    /// A node may end itself because its disk failed, and may be unable to start on a full one; and it may have been told
    /// to end. Nothing else excuses it.
    fn check_stop(&mut self, world: &World<SimProcess<W>>, step: &Step) -> Result<(), Violation> {
        let reason = world.stopped(step.address).unwrap_or_default();
        let failed = world.disk(step.address).counts().failed_syncs;
        let before = self.failed_syncs.insert(step.address, failed).unwrap_or_default();
        let could_not_start = step.kind == StepKind::Started && reason.starts_with(DISK_FULL);
        if failed > before || could_not_start || reason == KILLED {
            return Ok(());
        }
        let disk = world.disk(step.address);
        let bad_reads = disk.counts().bad_reads;
        let met = bad_reads > self.bad_reads.insert(step.address, bad_reads).unwrap_or_default();
        // Where each entry keeps its other copies, nobody has to stop.
        let is_spent = atlas::is_spent(disk) && !self.shape.keeps_copies;
        let is_harmed = met || is_spent || atlas::is_swapped(disk);
        if is_harmed && atlas::is_clear(reason) {
            return Ok(());
        }
        Err(Violation::new("nodes do not fail", format!("{} stopped: {reason}", step.address)))
    }

    /// Notes whether a node leads: for the page, on which two leaders beside each other tell much.
    fn note_leader(&mut self, world: &World<SimProcess<W>>, address: Address) {
        let leads = match world.process(address) {
            Some(SimProcess::Node(node)) => {
                node.raft().filter(|raft| raft.role() == Role::Leader).map(RaftNode::term)
            }
            Some(SimProcess::Client(_)) | None => None,
        };
        let (id, now) = (NodeId(address.0), world.now());
        // A node that has gone down says nothing about it itself.
        for (leader, _, band) in self.leaders.iter_mut().filter(|(.., band)| band.until.is_none()) {
            if !world.is_up(Address(leader.0)) {
                band.until = Some(now);
            }
        }
        let open =
            |(node, _, band): &&mut (NodeId, Term, Band)| *node == id && band.until.is_none();
        if let Some((_, term, band)) = self.leaders.iter_mut().rev().find(open) {
            if leads == Some(*term) {
                return;
            }
            band.until = Some(now);
        }
        if let Some(term) = leads {
            let column = address.to_string();
            let label = format!("leads, term {}", term.0);
            self.leaders.push((id, term, Band { column, label, from: now, until: None }));
        }
    }

    /// Notes who is quiet under a leader of its term that has removed it.
    fn note_disowned(&mut self, world: &World<SimProcess<W>>) {
        let rafts = Self::nodes(world).filter_map(SimNode::raft);
        let is_disowned = |raft: &&RaftNode| {
            let QuietStanding::Under { leader, .. } = raft.quiet_standing() else { return false };
            let mut leaders = rafts.clone().filter(|other| other.id() == leader);
            leaders.any(|leader| {
                leader.term() == raft.term()
                    && leader.membership_at(leader.commit()).has_removed(raft.id())
            })
        };
        let disowned: BTreeSet<_> = rafts.clone().filter(is_disowned).map(RaftNode::id).collect();
        self.disowned.retain(|node, _| disowned.contains(node));
        for node in disowned {
            self.disowned.entry(node).or_insert(world.now());
        }
    }

    /// Nobody is quiet for long under a process that is gone or that has removed it, and who is quiet together has the same log.
    fn check_quiet(
        &mut self,
        world: &World<SimProcess<W>>,
        address: Address,
    ) -> Result<(), Violation> {
        let wrong = |detail: String| Err(Violation::new("quiet groups", detail));
        for node in self.shape.addresses() {
            if world.is_up(node) {
                self.down.remove(&node);
            } else {
                self.down.entry(node).or_insert(world.now());
            }
        }
        let down = self.down.keys().map(|node| NodeId(node.0)).collect();
        self.shape.setup.elections.borrow_mut().down = down;
        self.note_disowned(world);
        let overdue = |&(_, since): &(_, &Duration)| world.now() > *since + self.shape.quiet_max();
        if let Some((node, since)) = self.disowned.iter().find(overdue) {
            return wrong(format!("{node} is quiet, its leader has removed it at {since:?}"));
        }
        let Some(SimProcess::Node(node)) = world.process(address) else { return Ok(()) };
        let Some(raft) = node.raft() else { return Ok(()) };
        if let QuietStanding::Under { leader, .. } = raft.quiet_standing()
            && let Some(&since) = self.down.get(&Address(leader.0))
            && world.now() > since + self.shape.quiet_max()
        {
            return wrong(format!("{} is quiet, {leader} is gone since {since:?}", raft.id()));
        }
        if !(raft.is_quiet() && raft.role() == Role::Leader) {
            return Ok(());
        }
        // Who is no member any more is told so, and is woken if it does not hear it.
        let leads_quietly = |other: &&RaftNode| {
            let standing = other.quiet_standing();
            let follows =
                matches!(standing, QuietStanding::Under { leader, .. } if leader == raft.id());
            follows && other.term() == raft.term() && raft.membership().contains(other.id())
        };
        for other in Self::nodes(world).filter_map(SimNode::raft).filter(leads_quietly) {
            let (ours, theirs) = (raft.log().last(), other.log().last());
            if (ours, raft.commit()) != (theirs, other.commit()) {
                return wrong(format!(
                    "{} leads quietly with {ours}, {} follows with {theirs}, committed up to {} and {}",
                    raft.id(),
                    other.id(),
                    raft.commit(),
                    other.commit(),
                ));
            }
        }
        Ok(())
    }

    fn check_agreement(&self, world: &World<SimProcess<W>>) -> Result<(), Violation> {
        let disagree = |detail: String| Err(Violation::new("convergence", detail));
        let (last, state) = self.checker.model_state();
        let (mut running, mut leaders) = (0_usize, 0);
        let rafts = Self::nodes(world).filter_map(SimNode::raft);
        let Some(leader) = rafts.into_iter().find(|raft| raft.role() == Role::Leader) else {
            return disagree("nobody leads".to_owned());
        };
        let members = leader.membership();
        if members.is_joint() {
            return disagree(format!("the members are still {members:?}"));
        }
        // Whose disk was destroyed need not come back; who comes back with what is left must agree.
        let is_spent =
            |node: NodeId| atlas::is_spent(world.disk(Address(node.0))) && !self.shape.keeps_copies;
        let needed = members.members().filter(|&(node, _)| !is_spent(node)).count();
        for node in Self::nodes(world) {
            let is_member = node.raft().is_some_and(|raft| members.contains(raft.id()));
            if !is_member {
                continue;
            }
            let (Some(raft), Some(machine)) = (node.raft(), node.machine()) else { continue };
            // One that was wiped before the founding is a founder like any other; one that was wiped after it is told to stop.
            if members.store_of(raft.id()) != Some(raft.config().store) {
                continue;
            }
            running += usize::from(!is_spent(raft.id()));
            leaders += u64::from(raft.role() == Role::Leader);
            let (id, applied) = (raft.id(), machine.applied());
            if applied != last {
                return disagree(format!("{id} has applied {applied}, others {last}"));
            }
            if raft.log().last() != last {
                return disagree(format!("{id} has {} behind {last}", raft.log().last()));
            }
            if state_digest(machine) != Ok(state) {
                return disagree(format!("{id} is in another state at {last}"));
            }
        }
        if running < needed || leaders != 1 {
            return disagree(format!("{running} nodes run, {leaders} lead"));
        }
        if last.index < self.checker.acknowledged() {
            return disagree(format!(
                "{} was acknowledged, the log ends with {last}",
                self.checker.acknowledged()
            ));
        }
        Ok(())
    }
}

impl<W: Workload> Scenario for SimCluster<W> {
    type Process = SimProcess<W>;

    fn build(&mut self, world: &mut World<SimProcess<W>>) {
        let addresses = self.shape.addresses();
        for &address in &addresses {
            let mut setup = NodeSetup { id: NodeId(address.0), ..self.shape.setup.clone() };
            if address.0 > self.shape.nodes {
                setup.founders.clear();
            }
            let setup = Rc::new(setup);
            let workload = self.workload.clone();
            let delivered: Delivered = Rc::new(RefCell::new(BTreeMap::new()));
            world.add(address, move |_, boot| {
                let (setup, delivered) = (Rc::clone(&setup), Rc::clone(&delivered));
                let node = SimNode::new(setup, workload.clone(), delivered, boot.seed);
                SimProcess::Node(Box::new(node))
            });
        }
        for number in 0..self.shape.clients {
            let (workload, nodes) = (self.workload.clone(), addresses.clone());
            let patience = self.shape.patience;
            let kept = self.shape.kept.as_ref();
            let kept = kept.map(|kept| kept.get(&Address(CLIENTS + number)).cloned());
            let kept = kept.map(Option::unwrap_or_default);
            world.add(Address(CLIENTS + number), move |_, boot| {
                let (workload, nodes) = (workload.clone(), nodes.clone());
                let kept = kept.clone();
                let client = SimClient::new(number, workload, nodes, patience, kept, boot.now);
                SimProcess::Client(Box::new(client))
            });
        }
    }

    fn check_step(&mut self, world: &World<SimProcess<W>>, step: &Step) -> Result<(), Violation> {
        self.events += 1;
        if world.now() >= self.safety {
            self.shape.setup.is_calm.set(true);
        }
        if world.options().keep != TraceKeep::Nothing {
            self.note_leader(world, step.address);
        }
        if step.stopped {
            self.check_stop(world, step)?;
        }
        if self.shape.setup.quiet_after.is_some() {
            self.check_quiet(world, step.address)?;
        }
        if step.kind == StepKind::Started && world.disk(step.address).counts().blanked > 0 {
            // What it promised is forgotten, and so must not count any more.
            self.checker.forget(NodeId(step.address.0));
        }
        match world.process(step.address) {
            Some(SimProcess::Node(node)) => {
                self.checker.states(NodeId(step.address.0), node.doings())?;
                if let Some(raft) = node.raft() {
                    self.checker.node(raft, node.doings())?;
                }
            }
            Some(SimProcess::Client(client)) => {
                self.checker.client(step.address, world.now(), client.notes())?;
            }
            None => {}
        }
        if self.events.is_multiple_of(FULL_CHECK_EVERY) {
            self.checker.all(Self::nodes(world).filter_map(SimNode::raft))?;
        }
        Ok(())
    }

    fn progress(&self, _world: &World<SimProcess<W>>) -> u64 {
        self.checker.done()
    }

    fn quiesce(&mut self, world: &mut World<SimProcess<W>>) {
        for number in 0..self.shape.clients {
            if let Some(SimProcess::Client(client)) = world.process_mut(Address(CLIENTS + number)) {
                client.fall_silent();
            }
        }
    }

    fn target(
        &mut self,
        world: &World<SimProcess<W>>,
        kind: FaultKind,
        rng: &mut ChaCha8Rng,
    ) -> Option<Target> {
        let nodes = self.shape.addresses();
        let is_damage =
            matches!(kind, FaultKind::BitRot | FaultKind::LostWrite | FaultKind::MisdirectedWrite);
        if is_damage && self.shape.keeps_copies {
            return atlas::target_in_log(world, &nodes, &mut self.damaged, rng);
        }
        atlas::target(world, &nodes, !self.shape.is_beyond_budget, kind, rng)
    }

    fn begun(&self, world: &World<SimProcess<W>>) -> BTreeMap<Address, u64> {
        let clients = world.processes().filter_map(|(address, process)| match process {
            SimProcess::Client(client) => Some((address, client.begun())),
            SimProcess::Node(_) => None,
        });
        clients.collect()
    }

    fn checked(&mut self, world: &World<SimProcess<W>>) -> Result<(), Violation> {
        self.checker.all(Self::nodes(world).filter_map(SimNode::raft))?;
        self.checker.replay()?;
        self.checker.judge()
    }

    fn converged(&mut self, world: &World<SimProcess<W>>) -> Result<(), Violation> {
        self.check_agreement(world)
    }

    fn searched(&self) -> Searched {
        self.checker.searched()
    }

    fn page(&self, _world: &World<SimProcess<W>>, _violation: &Violation) -> Option<Page> {
        let leaders = self.leaders.iter().map(|(_, _, band)| band.clone()).collect();
        Some(Page { story: self.checker.story(), leaders, ..Page::default() })
    }
}

impl<W: Workload> Process for SimProcess<W> {
    type Message = SimMessage;

    fn handle(&mut self, event: Event<SimMessage>, context: &mut Context<'_, SimMessage>) {
        match self {
            Self::Node(node) => node.handle(event, context),
            Self::Client(client) => client.handle(event, context),
        }
    }

    fn damaged(&self, message: &SimMessage, bit: u64) -> Option<SimMessage> {
        match (self, message) {
            (Self::Node(node), SimMessage::Peer(envelope)) => {
                node.damaged(envelope, bit).map(SimMessage::Peer)
            }
            // Those of clients are not about the protocol.
            (Self::Node(_) | Self::Client(_), _) => None,
        }
    }

    fn deadline(&self) -> Option<Duration> {
        match self {
            Self::Node(node) => node.deadline(),
            Self::Client(client) => client.deadline(),
        }
    }
}

impl<W: Workload> fmt::Debug for SimCluster<W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SimCluster").field("shape", &self.shape).finish_non_exhaustive()
    }
}
