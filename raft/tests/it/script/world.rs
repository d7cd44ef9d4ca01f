//! A cluster that does only what it is told: nodes, their disks, the messages in flight, one clock.
//!
//! The rules that the core leaves to its driver are kept here from scratch, so that a core that believed wrongly that something is
//! durable would be found out: a message leaves when the *disk* has done the write it waits for, entries are applied as the
//! disk gives them back, and a crash leaves what was synced.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use bytes::Bytes;
use raft_consensus::effects::{Effect, Effects, IoToken, PersistBatch, ProposalId};
use raft_consensus::invariants::SafetyChecker;
use raft_consensus::membership::{ConfChange, Member, Membership};
use raft_consensus::message::{Envelope, ReadId};
use raft_consensus::raft_node::{Config, Event, Proposal, RaftNode, Role};
use raft_consensus::storage::{LogReader, LogStore, MemoryLog, StorageError};
use raft_consensus::types::{
    Entry, EntryId, HardState, LogIndex, NodeId, Payload, SnapshotMeta, StoreId, Term,
};

use super::show::{self, Line};

/// Every election timeout of a script.
pub(crate) const ELECTION_TIMEOUT: Duration = Duration::from_millis(150);
/// Every heartbeat interval of a script.
pub(crate) const HEARTBEAT: Duration = Duration::from_millis(50);

/// What a script may choose about its cluster.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    /// Writes complete only when a command says so.
    pub(crate) slow_disk: bool,
    /// Bytes in one append.
    pub(crate) append_bytes: usize,
    /// Appends under way to one follower.
    pub(crate) window: usize,
    /// Entries kept behind a snapshot.
    pub(crate) kept: u64,
    /// Bytes of the newest entries kept in memory.
    pub(crate) tail_bytes: usize,
    pub(crate) repaired_at_once: u64,
    /// Bytes of one piece of a snapshot.
    pub(crate) piece: usize,
}

/// Which messages in flight a command is about.
#[derive(Clone, Debug, Default)]
pub(crate) struct Filter {
    pub(crate) from: Option<NodeId>,
    pub(crate) to: Option<NodeId>,
    pub(crate) kind: Option<String>,
}

/// One machine of the cluster; what is in it besides the node survives a crash.
#[derive(Debug)]
struct Server {
    config: Config,
    node: Option<RaftNode>,
    disk: MemoryLog,
    /// Snapshot files: what they stand for, and their bytes.
    files: BTreeMap<EntryId, (SnapshotMeta, Bytes)>,
    life: Life,
}

/// What a crash takes.
#[derive(Debug, Default)]
struct Life {
    writes: VecDeque<PersistBatch>,
    written: IoToken,
    held: Vec<(IoToken, Envelope)>,
    machine: Vec<(EntryId, String)>,
    /// A snapshot that arrives.
    incoming: Vec<u8>,
    /// What clients asked for, by number.
    commands: Vec<String>,
    reads: u64,
}

/// The cluster.
#[derive(Debug)]
pub(crate) struct World {
    now: Duration,
    settings: Settings,
    servers: BTreeMap<NodeId, Server>,
    flight: Vec<Envelope>,
    delayed: Vec<Envelope>,
    cut: BTreeSet<(NodeId, NodeId)>,
    checker: SafetyChecker,
    lines: Vec<Line>,
    /// Output inside a delivery is indented.
    is_delivering: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            slow_disk: false,
            append_bytes: 512 << 10,
            window: 128,
            kept: 5_000,
            tail_bytes: 16 << 20,
            repaired_at_once: 4096,
            piece: 1 << 20,
        }
    }
}

impl Filter {
    fn matches(&self, envelope: &Envelope) -> bool {
        self.from.is_none_or(|from| from == envelope.from)
            && self.to.is_none_or(|to| to == envelope.to)
            && self.kind.as_ref().is_none_or(|kind| *kind == show::kind(&envelope.message))
    }
}

impl World {
    /// A cluster of `nodes` blank nodes, all of them up.
    pub(crate) fn new(nodes: u64, settings: Settings) -> Self {
        let mut world = Self {
            now: Duration::ZERO,
            settings,
            servers: BTreeMap::new(),
            flight: Vec::new(),
            delayed: Vec::new(),
            cut: BTreeSet::new(),
            checker: SafetyChecker::new(),
            lines: Vec::new(),
            is_delivering: false,
        };
        let founding = Membership::founding((1..=nodes).map(NodeId));
        for id in (1..=nodes).map(NodeId) {
            world.start(id, founding.clone());
        }
        world
    }

    /// A blank node that is to be added to the cluster.
    pub(crate) fn join(&mut self, id: NodeId) {
        self.start(id, Membership::default());
    }

    fn start(&mut self, id: NodeId, founding: Membership) {
        let config = self.config(id, founding);
        let disk = MemoryLog::new();
        let (files, life) = (BTreeMap::new(), Life::default());
        self.servers.insert(id, Server { config, node: None, disk, files, life });
        self.restart(id);
    }

    fn config(&self, id: NodeId, founding: Membership) -> Config {
        let mut config = Config::new(id, StoreId(u128::from(id.0)), founding);
        // A range of one nanosecond leaves nothing to chance.
        config.election_timeout = ELECTION_TIMEOUT..ELECTION_TIMEOUT + Duration::from_nanos(1);
        config.heartbeat = HEARTBEAT;
        config.append_bytes_max = self.settings.append_bytes;
        config.inflight_messages_max = self.settings.window;
        config.kept_entries = self.settings.kept;
        config.tail_bytes_max = self.settings.tail_bytes;
        config.repaired_at_once = self.settings.repaired_at_once;
        config
    }

    // Looking.

    /// The node, which is up.
    pub(crate) fn node(&self, id: NodeId) -> &RaftNode {
        self.servers[&id].node.as_ref().expect("the script asks for a node that is up")
    }

    /// Whether the node is up.
    pub(crate) fn is_up(&self, id: NodeId) -> bool {
        self.servers.get(&id).is_some_and(|server| server.node.is_some())
    }

    /// All nodes, up or not.
    pub(crate) fn ids(&self) -> Vec<NodeId> {
        self.servers.keys().copied().collect()
    }

    /// The node that leads the latest term.
    pub(crate) fn leader(&self) -> Option<NodeId> {
        self.up()
            .filter(|node| node.role() == Role::Leader)
            .max_by_key(|node| node.term())
            .map(RaftNode::id)
    }

    /// The commands that the machine has applied.
    pub(crate) fn machine(&self, id: NodeId) -> &[(EntryId, String)] {
        &self.servers[&id].life.machine
    }

    /// The messages in flight.
    pub(crate) fn flight(&self) -> &[Envelope] {
        &self.flight
    }

    /// The entries of the log that are on disk or in memory.
    pub(crate) fn entries(&self, id: NodeId) -> Vec<Entry> {
        let log = self.node(id).log();
        let (first, last) = (log.base().index.next(), log.last().index);
        let durable = log.durable();
        let disk = self.servers[&id].disk.reader();
        let one = |index| disk.entries(LogIndex(index)..=LogIndex(index), usize::MAX);
        let durable_entries = (first.0..=durable.0).filter_map(|index| one(index).ok());
        let mut entries: Vec<Entry> = durable_entries.flatten().collect();
        let behind = log.peek(durable.next().max(first), last);
        entries.extend(behind.into_iter().flatten().cloned());
        entries
    }

    /// What has been said since the last call.
    pub(crate) fn take_lines(&mut self) -> Vec<Line> {
        std::mem::take(&mut self.lines)
    }

    fn up(&self) -> impl Iterator<Item = &RaftNode> + Clone {
        self.servers.values().filter_map(|server| server.node.as_ref())
    }

    fn say(&mut self, line: Line) {
        self.lines.push(if self.is_delivering { line.indented() } else { line });
    }

    // Nodes that come and go.

    /// Gives a node a durable log with entries of these terms, as if it had lived before. The first one founds the cluster.
    pub(crate) fn give_log(&mut self, id: NodeId, terms: &[Term], hard_state: HardState) {
        let mut founded = Membership::default();
        for &node in self.servers.keys() {
            founded.insert(node, Member::voter(StoreId(u128::from(node.0))));
        }
        let entries = (1..).map(LogIndex).zip(terms).map(|(index, &term)| {
            let id = EntryId::new(term, index);
            let command = Bytes::from(format!("{id}"));
            let payload = match index {
                LogIndex(1) => Payload::Membership(founded.clone()),
                _ => Payload::Command(command),
            };
            Entry { id, session: None, payload }
        });
        let batch = PersistBatch {
            token: IoToken(1),
            hard_state: Some(hard_state),
            entries: entries.collect(),
            ..PersistBatch::default()
        };
        let server = self.server(id);
        server.disk = MemoryLog::new();
        server.disk.append(&batch).expect("a given log is a possible one");
        server.disk.sync().expect("memory does not fail");
        self.restart(id);
    }

    /// The node's process ends. Messages in flight stay in flight.
    pub(crate) fn crash(&mut self, id: NodeId) {
        let server = self.server(id);
        server.node = None;
        server.disk.crash();
        server.life = Life::default();
    }

    /// The node starts, from what is durable.
    pub(crate) fn restart(&mut self, id: NodeId) {
        self.crash(id);
        let now = self.now;
        let server = self.server(id);
        server.config.boot += 1;
        let state = server.disk.recovered();
        let snapshot = state.snapshot.clone();
        match RaftNode::recover(server.config.clone(), state, id.0, now) {
            Ok(node) => server.node = Some(node),
            Err(error) => {
                return self
                    .say(Line::state(format!("{} does not start: {error}", show::node(id))));
            }
        }
        if let Some(meta) = snapshot {
            self.restore(id, &meta);
        }
        self.check(id);
    }

    /// The node loses its disk and gets a new one.
    pub(crate) fn wipe(&mut self, id: NodeId) {
        let server = self.server(id);
        server.disk = MemoryLog::new();
        server.files.clear();
        server.config.store = StoreId(server.config.store.0 + 100);
    }

    fn server(&mut self, id: NodeId) -> &mut Server {
        self.servers.get_mut(&id).unwrap_or_else(|| panic!("there is no {id}"))
    }

    // Time.

    /// Time passes; no timer fires.
    pub(crate) fn advance(&mut self, by: Duration) {
        self.now += by;
    }

    /// The node's timer fires, after so much time as that takes.
    pub(crate) fn fire(&mut self, id: NodeId) {
        let deadline = self.node(id).next_deadline().expect("the node runs");
        self.now = self.now.max(deadline);
        self.step(id, Event::Timeout);
    }

    // The network.

    /// Cuts every link between nodes of different groups, and no other; a node in no group is alone.
    pub(crate) fn partition(&mut self, groups: &[Vec<NodeId>]) {
        self.cut.clear();
        let ids = self.ids();
        let group = |id: NodeId| groups.iter().position(|group| group.contains(&id));
        for &from in &ids {
            for &to in ids.iter().filter(|&&to| to != from) {
                if group(from).is_none() || group(from) != group(to) {
                    self.cut.insert((from, to));
                }
            }
        }
    }

    /// Cuts or mends one direction of a link.
    pub(crate) fn cut(&mut self, from: NodeId, to: NodeId) {
        self.cut.insert((from, to));
    }

    /// Mends all links.
    pub(crate) fn heal(&mut self) {
        self.cut.clear();
    }

    /// Loses messages.
    pub(crate) fn drop_messages(&mut self, filter: &Filter) {
        let lost =
            self.flight.extract_if(.., |envelope| filter.matches(envelope)).collect::<Vec<_>>();
        for envelope in lost {
            self.say(Line::message(format!("lost: {}", show::envelope(&envelope))));
        }
    }

    /// Puts messages aside.
    pub(crate) fn delay(&mut self, filter: &Filter) {
        self.delayed.extend(self.flight.extract_if(.., |envelope| filter.matches(envelope)));
    }

    /// Puts messages that were set aside back into flight.
    pub(crate) fn undelay(&mut self) {
        self.flight.append(&mut self.delayed);
    }

    /// Delivers the messages that are in flight now, not those that they cause. With `keep`, copies of them stay in flight.
    pub(crate) fn deliver(&mut self, filter: &Filter, keep: bool) -> usize {
        let due: Vec<Envelope> =
            self.flight.extract_if(.., |envelope| filter.matches(envelope)).collect();
        if keep {
            self.flight.extend(due.iter().cloned());
        }
        let count = due.len();
        for envelope in due {
            self.arrive(envelope);
        }
        count
    }

    fn arrive(&mut self, envelope: Envelope) {
        let (from, to) = (envelope.from, envelope.to);
        let what = show::name(&envelope);
        let (from_name, to_name) = (show::node(from), show::node(to));
        if self.cut.contains(&(from, to)) || !self.is_up(to) {
            return self.say(Line::message(format!("{to_name} ↚ {from_name} {what}")));
        }
        self.say(Line::message(format!("{to_name} ← {from_name} {what}")));
        self.is_delivering = true;
        self.step(to, Event::Receive(envelope));
        self.is_delivering = false;
    }

    /// Lets a node's timer fire and delivers the votes it gets. If it wins, its first appends are in flight.
    pub(crate) fn vote(&mut self, id: NodeId) {
        self.fire(id);
        for kind in ["PreVote", "PreVoteReply", "Vote", "VoteReply"] {
            self.deliver(&Filter { kind: Some(kind.to_owned()), ..Filter::default() }, false);
            for id in self.ids() {
                self.persist(id, None);
            }
        }
    }

    /// Delivers and writes until nothing is left to do.
    pub(crate) fn stabilize(&mut self) {
        for _ in 0..1_000 {
            let mut is_done = self.flight.is_empty();
            for id in self.ids() {
                is_done &= !self.persist(id, None);
            }
            if is_done {
                return;
            }
            self.deliver(&Filter::default(), false);
        }
        panic!("the cluster does not come to rest");
    }

    // Disks.

    /// Completes the writes under way, or those up to `through`. Returns whether there were any.
    pub(crate) fn persist(&mut self, id: NodeId, through: Option<IoToken>) -> bool {
        let server = self.server(id);
        let mut last = None;
        while let Some(batch) = server
            .life
            .writes
            .pop_front_if(|batch| through.is_none_or(|through| batch.token <= through))
        {
            server.disk.append(&batch).expect("the core writes what a log can be");
            last = Some(batch.token);
        }
        let Some(token) = last else { return false };
        server.disk.sync().expect("memory does not fail");
        server.life.written = token;
        self.step(id, Event::Persisted(token));
        true
    }

    /// The write under way fails.
    pub(crate) fn fail_write(&mut self, id: NodeId) {
        self.server(id).life.writes.clear();
        self.step(id, Event::PersistFailed("no such luck".to_owned()));
    }

    /// The machine's state as of now becomes a snapshot.
    pub(crate) fn take_snapshot(&mut self, id: NodeId) {
        let node = self.node(id);
        let index = node.applied();
        let term = node.log().term_at(index).expect("what is applied is in the log");
        let membership = node.membership_at(index).clone();
        let data = machine_bytes(self.machine(id));
        let size = data.len() as u64;
        let last = EntryId::new(term, index);
        let meta = SnapshotMeta { last, membership, size, checksum: crc32c::crc32c(&data) };
        self.server(id).files.insert(last, (meta.clone(), data));
        self.say(Line::state(format!("{} takes a snapshot through {last}", show::node(id))));
        self.step(id, Event::SnapshotBuilt(meta));
    }

    fn restore(&mut self, id: NodeId, meta: &SnapshotMeta) {
        let server = self.server(id);
        let (_, data) = server.files.get(&meta.last).expect("a recorded snapshot has its file");
        server.life.machine = machine_from(data);
    }

    // Clients.

    /// A client wants these in the log, in one go.
    pub(crate) fn propose(&mut self, id: NodeId, commands: &[&str]) {
        let life = &mut self.server(id).life;
        let mut proposals = Vec::new();
        for command in commands {
            let number = ProposalId(life.commands.len() as u64);
            life.commands.push((*command).to_owned());
            let command = Bytes::from((*command).to_owned());
            proposals.push(Proposal { id: number, session: None, command });
        }
        self.step(id, Event::Propose(proposals));
    }

    /// An operator wants other members.
    pub(crate) fn change(&mut self, id: NodeId, change: ConfChange, text: String) {
        let number = self.number_command(id, text);
        self.step(id, Event::ChangeMembership(number, change));
    }

    /// An operator wants another leader.
    pub(crate) fn transfer(&mut self, id: NodeId, to: Option<NodeId>) {
        let number = self.number_command(id, "transfer".to_owned());
        self.step(id, Event::TransferLeader(number, to));
    }

    fn number_command(&mut self, id: NodeId, text: String) -> ProposalId {
        let commands = &mut self.server(id).life.commands;
        commands.push(text);
        ProposalId(commands.len() as u64 - 1)
    }

    /// A client wants to read.
    pub(crate) fn read(&mut self, id: NodeId) {
        let server = self.server(id);
        server.life.reads += 1;
        let id = ReadId { node: id, boot: server.config.boot, counter: server.life.reads };
        self.step(id.node, Event::ReadIndex(id));
    }

    // Steps.

    /// One event for one node, and all that follows from it without the network or a slow disk.
    pub(crate) fn step(&mut self, id: NodeId, event: Event) {
        let mut events = VecDeque::from([event]);
        while let Some(event) = events.pop_front() {
            let now = self.now;
            let mut effects = Effects::new();
            let node = self.server(id).node.as_mut().expect("the node is up");
            node.step(now, event, &mut effects);
            for effect in effects.drain() {
                self.carry_out(id, effect, &mut events);
            }
            self.release(id);
            self.check(id);
            let life = &self.servers[&id].life;
            if events.is_empty() && !self.settings.slow_disk && !life.writes.is_empty() {
                self.persist(id, None);
            }
        }
    }

    fn carry_out(&mut self, id: NodeId, effect: Effect, events: &mut VecDeque<Event>) {
        if let Some(line) = show::effect(id, &effect, &self.servers[&id].life.commands) {
            let is_silent = matches!(effect, Effect::Persist(_)) && !self.settings.slow_disk;
            if !is_silent {
                self.say(line);
            }
        }
        match effect {
            Effect::Persist(batch) => self.server(id).life.writes.push_back(batch),
            Effect::Send { envelope, after } => self.send(id, envelope, after),
            Effect::Apply(range) => {
                events.push_back(Event::Applied(*range.end()));
                self.apply(id, *range.start(), *range.end());
            }
            Effect::ReadEntries { to, from, through, bytes_max } => {
                let entries = self.read_entries(id, from, through, bytes_max, events);
                events.push_back(Event::EntriesRead { to, entries });
            }
            Effect::ReadForRepair { to, from, through, bytes_max } => {
                let entries = self.read_entries(id, from, through, bytes_max, events);
                events.push_back(Event::RepairRead { to, entries });
            }
            Effect::ReadSnapshot { to, meta, offset } => {
                let file = self.servers[&id].files.get(&meta.last);
                let data = file.map(|(_, data)| piece(data, offset, self.settings.piece));
                events.push_back(Event::SnapshotRead { to, meta, offset, data });
            }
            Effect::WriteSnapshot { meta, offset, data } => {
                events.push_back(self.write_snapshot(id, meta, offset, &data));
            }
            Effect::Restore(meta) => {
                self.restore(id, &meta);
                events.push_back(Event::Applied(meta.last.index));
            }
            Effect::Compact(through) => {
                self.server(id).disk.compact(through).expect("memory does not fail");
            }
            Effect::Proposed { .. }
            | Effect::Rejected { .. }
            | Effect::ReadReady { .. }
            | Effect::ReadFailed { .. }
            | Effect::RoleChanged { .. }
            | Effect::MembershipChanged(_)
            | Effect::Trace(_)
            | Effect::Ordered { .. }
            | Effect::OrderDone { .. }
            | Effect::OrderFailed { .. }
            | Effect::Fatal(_) => {}
        }
    }

    /// Entries from the disk; none if they cannot be read. The node hears of damage.
    fn read_entries(
        &mut self,
        id: NodeId,
        from: LogIndex,
        through: LogIndex,
        bytes_max: usize,
        events: &mut VecDeque<Event>,
    ) -> Vec<Entry> {
        let entries = self.servers[&id].disk.reader().entries(from..=through, bytes_max);
        if let Err(StorageError::Damaged { first, last, .. }) = entries {
            events.push_back(Event::EntriesDamaged { first, last });
        }
        entries.unwrap_or_default()
    }

    /// The node's disk loses entries. The node finds out when it reads them, or when it starts.
    pub(crate) fn damage(&mut self, id: NodeId, first: LogIndex, last: LogIndex) {
        self.server(id).disk.damage(first..=last);
    }

    /// A message leaves when the write it waits for is on disk.
    fn send(&mut self, id: NodeId, envelope: Envelope, after: Option<IoToken>) {
        let life = &mut self.server(id).life;
        match after.filter(|&after| after > life.written) {
            None => self.depart(envelope),
            Some(after) => {
                life.held.push((after, envelope.clone()));
                if self.settings.slow_disk {
                    let what = show::envelope(&envelope);
                    self.say(Line::message(format!("after write {}: {what}", after.0)));
                }
            }
        }
    }

    fn release(&mut self, id: NodeId) {
        let life = &mut self.server(id).life;
        let written = life.written;
        let free: Vec<_> = life.held.extract_if(.., |(after, _)| *after <= written).collect();
        for (_, envelope) in free {
            self.depart(envelope);
        }
    }

    fn depart(&mut self, envelope: Envelope) {
        self.say(Line::message(show::envelope(&envelope)));
        self.flight.push(envelope);
    }

    /// Applies what the disk gives back: entries that are not durable cannot be applied.
    fn apply(&mut self, id: NodeId, from: LogIndex, through: LogIndex) {
        let reader = self.servers[&id].disk.reader();
        let entries =
            reader.entries(from..=through, usize::MAX).expect("what is applied is durable");
        for entry in entries {
            if let Payload::Command(command) = entry.payload {
                let digest = u64::from(crc32c::crc32c(&command));
                self.checker
                    .applied(id, entry.id.index, digest)
                    .unwrap_or_else(|error| panic!("{error}"));
                let command = String::from_utf8_lossy(&command).into_owned();
                self.server(id).life.machine.push((entry.id, command));
            }
        }
    }

    fn write_snapshot(
        &mut self,
        id: NodeId,
        meta: SnapshotMeta,
        offset: u64,
        data: &Bytes,
    ) -> Event {
        let server = self.server(id);
        let incoming = &mut server.life.incoming;
        if offset == 0 {
            incoming.clear();
        }
        if incoming.len() as u64 == offset {
            incoming.extend_from_slice(data);
        }
        let offset = incoming.len() as u64;
        let is_complete = offset == meta.size && crc32c::crc32c(incoming) == meta.checksum;
        if is_complete {
            let file = Bytes::from(std::mem::take(incoming));
            server.files.insert(meta.last, (meta.clone(), file));
        }
        Event::SnapshotWritten { meta, offset, is_complete }
    }

    fn check(&mut self, id: NodeId) {
        let Some(node) = &self.servers[&id].node else { return };
        self.checker.check(node).unwrap_or_else(|violation| panic!("{violation}"));
    }

    /// Looks at every pair of logs in full.
    pub(crate) fn check_all(&mut self) {
        let nodes = self.servers.values().filter_map(|server| server.node.as_ref());
        self.checker.check_all(nodes).unwrap_or_else(|violation| panic!("{violation}"));
    }
}

fn piece(data: &Bytes, offset: u64, length: usize) -> Bytes {
    let start = usize::try_from(offset).expect("snapshots of scripts are small").min(data.len());
    data.slice(start..data.len().min(start + length))
}

/// A machine as bytes: a line a command.
fn machine_bytes(machine: &[(EntryId, String)]) -> Bytes {
    let lines = machine.iter().map(|(id, command)| format!("{} {} {command}\n", id.index, id.term));
    lines.collect::<String>().into()
}

fn machine_from(data: &[u8]) -> Vec<(EntryId, String)> {
    let text = std::str::from_utf8(data).expect("our own bytes");
    let parse = |line: &str| {
        let mut words = line.splitn(3, ' ');
        let mut number = || words.next().expect("three words").parse().expect("a number");
        let (index, term) = (LogIndex(number()), Term(number()));
        (EntryId::new(term, index), words.next().expect("three words").to_owned())
    };
    text.lines().map(parse).collect()
}
