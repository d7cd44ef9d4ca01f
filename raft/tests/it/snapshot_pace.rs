//! A snapshot that takes many election timeouts to send: the follower hears its leader all the while.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use lattice_journal::{Disk as _, MemoryDisk};
use raft_consensus::effects::ProposalId;
use raft_consensus::membership::Membership;
use raft_consensus::message::{Envelope, Message};
use raft_consensus::raft_node::{Config, Proposal, RaftNode, Role};
use raft_consensus::replica::{
    Input, Output, Replica, ReplicaConfig, Request, Run, SnapshotOutcome,
};
use raft_consensus::state_machine::Part;
use raft_consensus::storage::{RecoveredState, SnapshotStore};
use raft_consensus::types::{NodeId, Payload, StoreId, Term};

const MS: Duration = Duration::from_millis(1);
const HEARTBEAT: Duration = Duration::from_millis(50);
const DIRECTORY: &str = "/snapshots";
const PARTS: usize = 64;
const PART_BYTES: usize = 1_000;
const BYTES_PER_SECOND: u64 = 20_000;

/// Three replicas without their state machines, in virtual time.
struct Cluster {
    now: Duration,
    replicas: BTreeMap<NodeId, (Replica, SnapshotStore)>,
    disks: BTreeMap<NodeId, MemoryDisk>,
    /// What will happen, in order.
    queue: BTreeMap<(Duration, u64), (NodeId, Input)>,
    queued: u64,
    /// How much longer a piece of a snapshot is on its way than anything else.
    slow_link: Duration,
    /// A follower, once there is one, and whether it is cut off.
    late: NodeId,
    is_alone: bool,
    /// When it heard heartbeats, and how many messages of campaigns anybody sent.
    heartbeats: Vec<Duration>,
    campaigns: usize,
    installed: Option<Duration>,
}

impl Cluster {
    fn new(bytes_per_second: u64, slow_link: Duration) -> Self {
        let config = ReplicaConfig {
            snapshot_entries: 10,
            snapshot_bytes_per_second: bytes_per_second,
            ..ReplicaConfig::default()
        };
        Self::with(&config, slow_link)
    }

    fn with(replicas: &ReplicaConfig, slow_link: Duration) -> Self {
        let ids = [1, 2, 3].map(NodeId);
        let disks: BTreeMap<_, _> = ids.map(|id| (id, MemoryDisk::new())).into();
        let replica = |id: NodeId| {
            let mut config = Config::new(id, StoreId(u128::from(id.0)), Membership::founding(ids));
            config.election_timeout = 150 * MS..300 * MS;
            config.heartbeat = HEARTBEAT;
            config.kept_entries = 0;
            let node = RaftNode::recover(config, RecoveredState::default(), id.0, MS).unwrap();
            let disk = Arc::new(disks[&id].clone());
            let store = SnapshotStore::open(disk, Path::new(DIRECTORY), None).unwrap();
            (id, (Replica::new(node, replicas.clone()), store))
        };
        Self {
            now: MS,
            replicas: ids.map(replica).into(),
            disks,
            queue: BTreeMap::new(),
            queued: 0,
            slow_link,
            late: NodeId(0),
            is_alone: false,
            heartbeats: Vec::new(),
            campaigns: 0,
            installed: None,
        }
    }

    fn later(&mut self, delay: Duration, id: NodeId, input: Input) {
        self.queued += 1;
        self.queue.insert((self.now + delay, self.queued), (id, input));
    }

    fn input(&mut self, id: NodeId, input: Input) {
        let mut outputs = Vec::new();
        let (replica, _) = self.replicas.get_mut(&id).unwrap();
        replica.handle(self.now, input, &mut outputs);
        outputs.into_iter().for_each(|output| self.carry_out(id, output));
    }

    fn carry_out(&mut self, id: NodeId, output: Output) {
        let store = self.replicas[&id].1.clone();
        let done = match output {
            Output::Send(envelope) => return self.send(envelope),
            Output::Persist(batch) => Input::Persisted(batch.token),
            Output::Apply(Run { entries, .. }) => {
                let entries = entries.expect("all entries fit into memory");
                let last = entries.last().unwrap().id;
                let commands =
                    entries.iter().filter(|entry| matches!(entry.payload, Payload::Command(_)));
                let replies = commands.map(|entry| (entry.id, Ok(Bytes::new()))).collect();
                Input::Applied { last, replies }
            }
            Output::TakeSnapshot { last, membership } => {
                let mut writer = store.begin(last, &membership);
                for number in 0..PARTS {
                    let data = number.to_le_bytes().repeat(PART_BYTES / 8).into();
                    writer.part(&Part { name: number.to_string(), data }).unwrap();
                }
                Input::SnapshotTaken(SnapshotOutcome::Taken(writer.finish().unwrap()))
            }
            Output::ReadSnapshot { to, meta, offset } => {
                let data = store.read(&meta, offset, 100_000).ok();
                Input::SnapshotRead { to, meta, offset, data }
            }
            Output::WriteSnapshot { meta, offset, data } => {
                let received = store.receive(&meta, offset, &data).unwrap();
                let (offset, is_complete) = (received.next, received.is_complete);
                Input::SnapshotWritten { meta, offset, is_complete }
            }
            Output::Restore(meta) => {
                self.installed = Some(self.now);
                Input::Restored(meta.last)
            }
            _ => return,
        };
        self.later(Duration::ZERO, id, done);
    }

    fn send(&mut self, envelope: Envelope) {
        if self.is_alone && (envelope.from == self.late || envelope.to == self.late) {
            return;
        }
        let mut delay = MS;
        match envelope.message {
            Message::SnapshotChunk { .. } => delay += self.slow_link,
            Message::PreVote { .. } | Message::Vote { .. } => self.campaigns += 1,
            _ => {}
        }
        self.later(delay, envelope.to, Input::Receive(envelope));
    }

    fn step(&mut self) {
        let due = |(id, (replica, _)): (&NodeId, &(Replica, SnapshotStore))| {
            (replica.next_deadline().unwrap(), *id)
        };
        let (deadline, sleeper) = self.replicas.iter().map(due).min().unwrap();
        let is_message = self.queue.first_key_value().is_some_and(|((at, _), _)| *at <= deadline);
        if is_message {
            let ((at, _), (id, input)) = self.queue.pop_first().unwrap();
            self.now = self.now.max(at);
            if let Input::Receive(envelope) = &input
                && id == self.late
                && matches!(envelope.message, Message::Heartbeat { .. })
            {
                self.heartbeats.push(self.now);
            }
            self.input(id, input);
        } else {
            self.now = self.now.max(deadline);
            self.input(sleeper, Input::Timeout);
        }
        assert!(self.now < Duration::from_secs(600), "it never ends");
    }

    fn until(&mut self, is_done: impl Fn(&Self) -> bool) {
        while !is_done(self) {
            self.step();
        }
    }

    fn propose(&mut self, leader: NodeId, number: u64) {
        self.propose_command(leader, number, Bytes::from_static(b"x"));
    }

    fn propose_command(&mut self, leader: NodeId, number: u64, command: Bytes) {
        let proposal = Proposal { id: ProposalId(number), session: None, command };
        let request = Request { proposal, reclaims_space: false };
        self.input(leader, Input::Propose(vec![request]));
    }

    fn leader(&self) -> Option<(NodeId, Term)> {
        let leads =
            |(replica, _): &&(Replica, SnapshotStore)| replica.node().role() == Role::Leader;
        let (replica, _) = self.replicas.values().find(leads)?;
        Some((replica.node().id(), replica.node().term()))
    }
}

/// There is a leader, which has nothing to do.
fn found(cluster: &mut Cluster) -> NodeId {
    let is_founded = |cluster: &Cluster| {
        cluster.replicas.values().all(|(replica, _)| {
            let node = replica.node();
            node.membership().is_fully_bound() && node.commit() == node.log().last().index
        })
    };
    cluster.until(is_founded);
    cluster.leader().unwrap().0
}

/// There is a leader that has compacted its log while a follower was cut off.
fn compact(cluster: &mut Cluster) -> NodeId {
    let leader = found(cluster);
    cluster.late = cluster.replicas.keys().copied().find(|id| *id != leader).unwrap();
    cluster.is_alone = true;
    (0..30).for_each(|number| cluster.propose(leader, number));
    let has_compacted = |cluster: &Cluster| {
        let log = cluster.replicas[&leader].0.node().log();
        log.base().index.0 > 1 && log.snapshot().is_some()
    };
    cluster.until(has_compacted);
    leader
}

/// The follower is back, and gets a snapshot; returns how long that took.
fn transfer(cluster: &mut Cluster) -> Duration {
    let was = cluster.leader();
    // It has looked for another leader meanwhile, in vain. From the first heartbeat on it follows.
    cluster.is_alone = false;
    cluster.heartbeats.clear();
    cluster.until(|cluster| !cluster.heartbeats.is_empty());
    let begun = cluster.now;
    (cluster.campaigns, cluster.installed) = (0, None);
    cluster.until(|cluster| cluster.installed.is_some());

    assert_eq!(cluster.campaigns, 0, "nobody missed the leader");
    assert_eq!(cluster.leader(), was);
    let gaps = cluster.heartbeats.windows(2).map(|pair| pair[1] - pair[0]);
    assert!(gaps.max().unwrap() <= HEARTBEAT + MS, "no heartbeat came late");
    cluster.installed.unwrap() - begun
}

fn sent(cluster: &Cluster) -> u64 {
    cluster.replicas.values().map(|(_, store)| store.counts().bytes_sent).sum()
}

#[test]
fn a_slow_snapshot_keeps_its_pace_and_delays_no_heartbeat() {
    let mut cluster = Cluster::new(BYTES_PER_SECOND, 40 * MS);
    compact(&mut cluster);
    let took = transfer(&mut cluster);
    let size = u64::try_from(PARTS * PART_BYTES).unwrap();
    let paced = Duration::from_secs(1) * u32::try_from(size / BYTES_PER_SECOND).unwrap();
    assert!(took >= paced, "it took {took:?} at a pace of {paced:?}");
    assert!(took <= 2 * paced, "it took {took:?} at a pace of {paced:?}");
    assert!(took >= 10 * Duration::from_millis(300), "many election timeouts");
    let received = cluster.replicas[&cluster.late].1.counts().bytes_received;
    assert_eq!(sent(&cluster), received, "nothing was sent twice");
}

/// Each piece is on its way for longer than several election timeouts: it is not lost for that.
#[test]
fn over_a_slow_link_pieces_are_not_sent_again_and_again() {
    let mut cluster = Cluster::new(u64::MAX, 2_000 * MS);
    compact(&mut cluster);
    transfer(&mut cluster);
    let received = cluster.replicas[&cluster.late].1.counts().bytes_received;
    let again = sent(&cluster) - received;
    let manifest = received - u64::try_from(PARTS * PART_BYTES).unwrap();
    assert!(
        again <= 4 * manifest,
        "{again} bytes: the first piece, until it is known how long one takes"
    );
}

/// The damage is found by the sender, who takes another snapshot: that writes the part anew, for the older one too.
#[test]
fn a_leader_whose_snapshot_is_damaged_takes_another_and_the_transfer_goes_on() {
    let mut cluster = Cluster::new(u64::MAX, MS);
    let leader = compact(&mut cluster);
    let disk = cluster.disks[&leader].clone();
    let names = disk.list(Path::new(DIRECTORY)).unwrap();
    let part = names.iter().find(|name| name.ends_with(".part")).unwrap();
    disk.corrupt(Path::new(DIRECTORY).join(part), 5, 1).unwrap();
    let latest = |cluster: &Cluster| {
        cluster.replicas[&leader].0.node().log().snapshot().map(|meta| meta.last.index)
    };
    let damaged = latest(&cluster);
    // One entry is no reason for a snapshot by itself.
    cluster.propose(leader, 100);
    transfer(&mut cluster);
    assert!(latest(&cluster) > damaged);
    for (replica, store) in [leader, cluster.late].map(|id| &cluster.replicas[&id]) {
        store.verify(replica.node().log().snapshot().unwrap()).unwrap();
    }
}

/// The log would else be as many times larger than the state as commands are larger than usual.
#[test]
fn a_few_large_commands_are_worth_a_snapshot() {
    const LARGE: usize = 8 << 20;
    let config = ReplicaConfig { snapshot_entries: u64::MAX, ..ReplicaConfig::default() };
    let mut cluster = Cluster::with(&config, MS);
    let leader = found(&mut cluster);
    let has_snapshot = |cluster: &Cluster| {
        cluster.replicas.values().all(|(replica, _)| replica.node().log().snapshot().is_some())
    };
    let command = Bytes::from(vec![0; LARGE]);
    for number in 1..=8 {
        assert!(!has_snapshot(&cluster), "{number}");
        cluster.propose_command(leader, number, command.clone());
        let last = cluster.replicas[&leader].0.node().log().last();
        cluster.until(|cluster| {
            cluster.replicas.values().all(|(replica, _)| replica.applied() == last)
        });
    }
    cluster.until(has_snapshot);
}
