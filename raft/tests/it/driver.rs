//! Running nodes: the handle's promises, over the in-memory network and real threads.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use lattice_journal::MemoryDisk;
use raft_consensus::driver::salvage::{SalvageError, begin_with, read_out};
use raft_consensus::driver::{
    Consistency, NodeOptions, ProposeError, ProposeOptions, Raft, ReadError, Session,
    SnapshotRequestError, Status,
};
use raft_consensus::effects::FatalError;
use raft_consensus::membership::{Member, Membership};
use raft_consensus::message::Envelope;
use raft_consensus::raft_node::{ClockBound, LeaseGuard, ReadPolicy, Role};
use raft_consensus::state_machine::sessions::{SessionCommand, SessionError};
use raft_consensus::state_machine::{
    BoxError, Fatal, Sessions, Simple, SimpleReader, StateMachine,
};
use raft_consensus::storage::DataDirectory;
use raft_consensus::transport::{Inbox, MemoryNetwork, Transport};
use raft_consensus::types::{ClusterId, GroupId, NodeId, SessionId, StoreId};

const PATIENCE: Duration = Duration::from_secs(20);

/// Keeps every command it gets, in order.
#[derive(Debug, Default)]
struct Ledger {
    lines: Vec<String>,
    has_snapshots: bool,
}

impl StateMachine for Ledger {
    fn apply(&mut self, command: &[u8]) -> Result<Vec<u8>, BoxError> {
        let line = String::from_utf8(command.to_vec())?;
        match line.as_str() {
            "refuse" => return Err("refused as asked".into()),
            "fail" => return Err(Box::new(Fatal::new("failed as asked"))),
            "panic" => panic!("panicked as asked"),
            _ => self.lines.push(line),
        }
        Ok(self.lines.len().to_string().into_bytes())
    }

    fn snapshot(&self) -> Result<Option<Vec<u8>>, BoxError> {
        if self.lines.iter().any(|line| line == "no snapshot") {
            return Err("failed as asked".into());
        }
        Ok(self.has_snapshots.then(|| self.lines.join("\n").into_bytes()))
    }

    fn restore(&mut self, snapshot: &[u8]) -> Result<(), BoxError> {
        let text = String::from_utf8(snapshot.to_vec())?;
        self.lines = text.lines().map(str::to_owned).collect();
        Ok(())
    }
}

fn ledger() -> Simple<Ledger> {
    Simple::new(Ledger { has_snapshots: true, ..Ledger::default() })
}

type Node = Raft<SimpleReader<Ledger>>;

/// Three nodes on disks in memory, which can be stopped and started again.
struct Cluster {
    network: MemoryNetwork,
    disks: BTreeMap<NodeId, MemoryDisk>,
    nodes: BTreeMap<NodeId, Node>,
}

impl Cluster {
    fn start(size: u64) -> Self {
        Self::start_with(size, |_| {})
    }

    fn start_with(size: u64, adjust: impl Fn(&mut NodeOptions)) -> Self {
        let disks = (1..=size).map(|id| (NodeId(id), MemoryDisk::new())).collect();
        let mut cluster = Self { network: MemoryNetwork::new(), disks, nodes: BTreeMap::new() };
        for id in cluster.ids() {
            cluster.start_node(id, &adjust);
        }
        cluster
    }

    fn ids(&self) -> Vec<NodeId> {
        self.disks.keys().copied().collect()
    }

    fn start_node(&mut self, id: NodeId, adjust: impl FnOnce(&mut NodeOptions)) {
        let disk = Arc::new(self.disks[&id].clone());
        let directory = DataDirectory::open(
            disk,
            Path::new("/node"),
            ClusterId(7),
            id,
            &self.ids(),
            u128::from(id.0) + 100,
        )
        .unwrap();
        let mut options = NodeOptions::new(directory);
        adjust(&mut options);
        let node = Raft::start(options, ledger(), self.network.transport(id)).unwrap();
        self.nodes.insert(id, node);
    }

    async fn stop_node(&mut self, id: NodeId) {
        let node = self.nodes.remove(&id).unwrap();
        self.network.stop(id);
        node.shutdown().await;
    }

    /// Waits until every founder is bound to its directory: until then a founder that came late does not count.
    async fn founded(&self) {
        let is_founded = |status: &Status| {
            status.membership.is_fully_bound() && status.commit == status.last.index
        };
        for node in self.nodes.values() {
            assert!(node.wait_for(PATIENCE, is_founded).await.is_some());
        }
    }

    async fn leader(&self) -> NodeId {
        let known = |leader: Option<NodeId>| leader.filter(|id| self.nodes.contains_key(id));
        let node = self.nodes.values().next().unwrap();
        let status = node.wait_for(PATIENCE, |status| known(status.leader).is_some()).await;
        status.unwrap().leader.unwrap()
    }

    /// Proposes through whoever leads until it is applied; a line may then stand there twice.
    async fn propose(&self, line: &str) {
        let propose = async {
            loop {
                let node = &self.nodes[&self.leader().await];
                match node.propose(line.to_owned()).await {
                    Ok(_) => return,
                    Err(
                        ProposeError::NotLeader { .. }
                        | ProposeError::Superseded
                        | ProposeError::Unknown,
                    ) => tokio::task::yield_now().await,
                    Err(error) => panic!("{error}"),
                }
            }
        };
        tokio::time::timeout(PATIENCE, propose).await.unwrap();
    }

    async fn lines(&self, id: NodeId) -> Vec<String> {
        let reader = self.nodes[&id].read(Consistency::Linearizable).await.unwrap();
        reader.with(|ledger| ledger.lines.clone())
    }
}

#[tokio::test]
async fn every_node_serves_linearizable_reads_of_what_was_acknowledged() {
    let cluster = Cluster::start(3);
    for number in 0..10 {
        cluster.propose(&format!("line {number}")).await;
        for id in cluster.ids() {
            assert_eq!(cluster.lines(id).await.last().unwrap(), &format!("line {number}"));
        }
    }
}

#[tokio::test]
async fn a_follower_names_the_leader() {
    let cluster = Cluster::start(3);
    cluster.propose("first").await;
    let leader = cluster.leader().await;
    let follower = cluster.ids().into_iter().find(|&id| id != leader).unwrap();
    match cluster.nodes[&follower].propose("not here").await {
        Err(ProposeError::NotLeader { leader: hint }) => assert_eq!(hint, Some(leader)),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_refusal_of_the_machine_reaches_the_proposer_and_the_log_goes_on() {
    let cluster = Cluster::start(1);
    let node = &cluster.nodes[&cluster.leader().await];
    match node.propose("refuse").await {
        Err(ProposeError::Refused(error)) => assert_eq!(error.to_string(), "refused as asked"),
        other => panic!("{other:?}"),
    }
    assert_eq!(node.propose("accept").await.unwrap().reply, "1");
}

#[tokio::test]
async fn a_fatal_error_or_a_panic_of_the_machine_stops_the_node() {
    for poison in ["fail", "panic"] {
        let cluster = Cluster::start(1);
        let node = &cluster.nodes[&cluster.leader().await];
        assert!(matches!(node.propose(poison).await, Err(ProposeError::Unknown)));
        let fatal = node.stopped().await.unwrap().to_string();
        assert!(fatal.contains("as asked"), "{fatal}");
        assert!(matches!(node.propose("more").await, Err(ProposeError::Stopped)));
        for consistency in [Consistency::Linearizable, Consistency::Stale] {
            assert_eq!(node.read(consistency).await.err(), Some(ReadError::Stopped));
        }
    }
}

#[tokio::test]
async fn a_command_that_is_too_large_is_refused() {
    let mut cluster = Cluster::start(1);
    let id = NodeId(1);
    cluster.stop_node(id).await;
    cluster.start_node(id, |options| options.limits.command_bytes = 100);
    let node = &cluster.nodes[&cluster.leader().await];
    match node.propose("x".repeat(101)).await {
        Err(ProposeError::TooLarge { size: 101, limit: 100 }) => {}
        other => panic!("{other:?}"),
    }
    node.propose("x".repeat(100)).await.unwrap();
}

#[tokio::test]
async fn what_was_acknowledged_survives_the_loss_of_the_leader_and_a_restart_of_all() {
    let mut cluster = Cluster::start(3);
    cluster.propose("before").await;
    cluster.founded().await;
    let leader = cluster.leader().await;
    cluster.stop_node(leader).await;
    cluster.propose("without the first leader").await;
    cluster.start_node(leader, |_| {});
    for id in cluster.ids() {
        cluster.stop_node(id).await;
    }
    for id in cluster.ids() {
        cluster.start_node(id, |_| {});
    }
    cluster.propose("after").await;
    for id in cluster.ids() {
        let mut lines = cluster.lines(id).await;
        lines.dedup();
        assert_eq!(lines, ["before", "without the first leader", "after"]);
    }
}

#[tokio::test]
async fn a_follower_behind_the_compacted_log_catches_up_by_a_snapshot() {
    let mut cluster = Cluster::start(3);
    cluster.propose("first").await;
    cluster.founded().await;
    let leader = cluster.leader().await;
    let late = cluster.ids().into_iter().find(|&id| id != leader).unwrap();
    cluster.stop_node(late).await;
    // The others keep nothing before their snapshots.
    for id in cluster.ids().into_iter().filter(|&id| id != late) {
        cluster.stop_node(id).await;
        cluster.start_node(id, |options| {
            options.limits.kept_entries = 0;
            options.limits.snapshot_entries = 10;
            options.limits.snapshot_chunk_bytes = 64;
        });
    }
    for number in 0..50 {
        cluster.propose(&format!("line {number}")).await;
    }
    for (id, node) in &cluster.nodes {
        let compacted = node.wait_for(PATIENCE, |status| status.first.0 > 10).await;
        assert!(compacted.is_some(), "{id} never compacted its log");
    }
    cluster.start_node(late, |_| {});
    let lines = cluster.lines(late).await;
    assert_eq!(lines.last().unwrap(), "line 49");
    let installed = |status: &Status| status.counters.snapshots_installed == 1;
    assert!(cluster.nodes[&late].wait_for(PATIENCE, installed).await.is_some());
}

/// What a follower missed is read back from the log in pieces: the leader keeps a few KiB of entries in memory, whoever is how far behind.
#[tokio::test]
async fn a_follower_far_behind_catches_up_from_the_log_on_disk() {
    const LINES: usize = 20_000;
    let mut cluster = Cluster::start(3);
    cluster.propose("first").await;
    cluster.founded().await;
    for id in cluster.ids() {
        cluster.stop_node(id).await;
    }
    let small = |options: &mut NodeOptions| {
        options.limits.tail_bytes = 8 << 10;
        options.limits.snapshot_entries = u64::MAX;
        // Nobody leads another term while the lines are written, however busy the machine is.
        options.timing.election_timeout = Duration::from_secs(3)..Duration::from_secs(4);
    };
    cluster.start_node(NodeId(1), small);
    cluster.start_node(NodeId(2), small);
    let leader = cluster.nodes[&cluster.leader().await].clone();
    let writers = (0..64).map(|writer| {
        let leader = leader.clone();
        tokio::spawn(async move {
            for number in (writer..LINES).step_by(64) {
                leader.propose(format!("line {number}")).await.unwrap();
            }
        })
    });
    for writer in writers.collect::<Vec<_>>() {
        writer.await.unwrap();
    }
    cluster.start_node(NodeId(3), small);
    let lines = cluster.lines(NodeId(3)).await;
    assert_eq!(lines.len(), 1 + LINES);
    assert_eq!(lines, cluster.lines(leader.status().node).await);
    assert_eq!(cluster.nodes[&NodeId(3)].status().counters.snapshots_installed, 0);
}

#[tokio::test]
async fn a_requested_snapshot_is_taken_and_a_second_one_is_the_same() {
    let cluster = Cluster::start(1);
    let node = &cluster.nodes[&cluster.leader().await];
    let applied = node.propose("line").await.unwrap();
    let snapshot = node.snapshot().await.unwrap();
    assert!(snapshot.last >= applied.id);
    assert_eq!(node.snapshot().await.unwrap(), snapshot);
}

#[tokio::test]
async fn a_large_state_is_not_written_again_for_every_few_entries() {
    let mut cluster = Cluster::start(1);
    let id = NodeId(1);
    cluster.stop_node(id).await;
    cluster.start_node(id, |options| options.limits.snapshot_entries = 1);
    let node = &cluster.nodes[&cluster.leader().await];
    node.propose("x".repeat(100_000)).await.unwrap();
    let has_large = |status: &Status| status.snapshot.is_some_and(|last| last.index.0 >= 2);
    node.propose("the large one is given out").await.unwrap();
    node.wait_for(PATIENCE, has_large).await.unwrap();
    let before = node.status().counters.snapshots_taken;
    for number in 0..100 {
        node.propose(format!("line {number}")).await.unwrap();
    }
    let applied_all = |status: &Status| status.counters.proposals_applied >= 102;
    let after = node.wait_for(PATIENCE, applied_all).await.unwrap().counters.snapshots_taken;
    assert!(after <= before + 1, "{} snapshots of 100 kB for 5 kB of entries", after - before);
}

#[tokio::test]
async fn a_machine_without_snapshots_says_so() {
    let network = MemoryNetwork::new();
    let id = NodeId(1);
    let machine = Simple::new(Ledger::default());
    let raft =
        Raft::start(NodeOptions::in_memory(id, [id]), machine, network.transport(id)).unwrap();
    raft.wait_for(PATIENCE, |status| status.applied.0 > 0).await.unwrap();
    assert_eq!(raft.snapshot().await, Err(SnapshotRequestError::Unsupported));
    let again = tokio::time::timeout(PATIENCE, raft.snapshot()).await;
    assert_eq!(again.expect("an answer"), Err(SnapshotRequestError::Unsupported));
}

#[tokio::test]
async fn a_snapshot_that_the_machine_cannot_give_does_not_stop_the_node() {
    let cluster = Cluster::start(1);
    let node = &cluster.nodes[&cluster.leader().await];
    node.propose("no snapshot").await.unwrap();
    assert_eq!(node.snapshot().await, Err(SnapshotRequestError::Failed));
    node.propose("and yet it runs").await.unwrap();
}

/// A transport that panics in the node's own task, as a broken invariant would.
#[derive(Debug)]
struct Broken;

impl Transport for Broken {
    fn send(&self, _envelope: Envelope) {
        panic!("panicked as asked");
    }

    fn register(&self, _group: GroupId, _inbox: Inbox) {}
}

#[tokio::test]
async fn a_panic_in_the_core_is_not_taken_for_a_stop_that_was_asked_for() {
    let options = NodeOptions::in_memory(NodeId(1), [NodeId(1), NodeId(2)]);
    let raft = Raft::start(options, ledger(), Arc::new(Broken)).unwrap();
    let fatal = tokio::time::timeout(PATIENCE, raft.stopped()).await.unwrap();
    assert!(matches!(fatal, Some(FatalError::Panicked(_))), "{fatal:?}");
    assert!(raft.status().is_stopped);
    assert!(raft.propose("late").await.is_err());
}

#[tokio::test]
async fn a_cancelled_caller_loses_nothing() {
    let cluster = Cluster::start(1);
    let node = &cluster.nodes[&cluster.leader().await];
    {
        let mut abandoned = std::pin::pin!(node.propose("abandoned"));
        // Polled once, so that the command is on its way, then dropped.
        std::future::poll_fn(|context| {
            let _: std::task::Poll<_> = abandoned.as_mut().poll(context);
            std::task::Poll::Ready(())
        })
        .await;
    }
    node.propose("kept").await.unwrap();
    assert_eq!(cluster.lines(NodeId(1)).await, ["abandoned", "kept"]);
}

#[tokio::test]
async fn a_leader_cut_off_from_the_majority_steps_down_and_confirms_no_read() {
    let cluster = Cluster::start(3);
    cluster.propose("first").await;
    cluster.founded().await;
    let leader = cluster.leader().await;
    cluster.network.isolate(leader);
    let node = &cluster.nodes[&leader];
    let cut_off_read = node.read(Consistency::Linearizable);
    let stepped_down = node.wait_for(PATIENCE, |status| status.role != Role::Leader).await;
    assert!(stepped_down.is_some());
    assert!(cut_off_read.await.is_err(), "nobody can confirm it");
    cluster.network.heal();
    cluster.propose("second").await;
    assert_eq!(cluster.lines(leader).await.last().unwrap(), "second");
}

#[tokio::test]
async fn a_shut_down_node_answers_that_it_has_stopped() {
    let cluster = Cluster::start(1);
    let node = &cluster.nodes[&cluster.leader().await];
    node.shutdown().await;
    assert!(node.stopped().await.is_none(), "it was asked to");
    assert!(matches!(node.propose("late").await, Err(ProposeError::Stopped)));
    assert!(node.read(Consistency::Linearizable).await.is_err());
}

#[tokio::test]
async fn nodes_with_leases_answer_reads_of_what_was_acknowledged() {
    let clock = ClockBound::default();
    for reads in
        [ReadPolicy::Lease(clock), ReadPolicy::LeaseGuard(LeaseGuard { lease: None, clock })]
    {
        let cluster = Cluster::start_with(3, |options| options.reads = reads);
        cluster.founded().await;
        for line in ["one", "two", "three"] {
            cluster.propose(line).await;
            let leader = cluster.leader().await;
            assert_eq!(cluster.lines(leader).await.last().map(String::as_str), Some(line));
        }
        let mut lines = cluster.lines(NodeId(2)).await;
        // A proposal whose outcome was unknown was made again.
        lines.dedup();
        assert_eq!(lines, ["one", "two", "three"], "{reads:?}");
    }
}

/// Case 51.
#[tokio::test]
async fn a_session_sends_again_and_counts_once() {
    let ids = [NodeId(1), NodeId(2), NodeId(3)];
    let network = MemoryNetwork::new();
    let mut nodes = Vec::new();
    for id in ids {
        let options = NodeOptions::in_memory(id, ids);
        let machine = Sessions::new(ledger());
        nodes.push(Raft::start(options, machine, network.transport(id)).unwrap());
    }
    let idle = Duration::from_secs(3_600);
    let mut session = Session::open(nodes.clone(), idle, PATIENCE).await.unwrap();
    session.propose("first").await.unwrap();
    let refused = session.propose("refuse").await.unwrap_err();
    assert_eq!(refused.to_string(), "refused: refused as asked");
    // A copy that comes late.
    let late = SessionCommand::Apply {
        time_ms: 0,
        acknowledged: 0,
        command: Bytes::from_static(b"first"),
    };
    let id = SessionId { session: session.id(), sequence: 1 };
    let options = ProposeOptions { session: Some(id), ..ProposeOptions::default() };
    for node in &nodes {
        match node.propose_with(late.encode(), options).await {
            Err(ProposeError::Refused(error)) => {
                let error = error.downcast_ref::<SessionError>();
                assert_eq!(error, Some(&SessionError::Acknowledged(1)));
            }
            // Not the leader, or not for long enough.
            other => assert!(other.is_err(), "{other:?}"),
        }
    }
    session.keep_alive().await.unwrap();
    assert_eq!(session.propose("second").await.unwrap().reply, "2");
    session.close().await.unwrap();
    for node in &nodes {
        node.shutdown().await;
    }
}

/// A majority is lost for good.
#[tokio::test]
async fn a_survivor_begins_a_new_cluster_with_all_that_it_had() {
    let mut cluster = Cluster::start_with(3, |options| options.limits.snapshot_entries = 4);
    cluster.founded().await;
    for number in 0..10 {
        cluster.propose(&format!("line {number}")).await;
    }
    let survivor = NodeId(1);
    let expected = cluster.lines(survivor).await;
    for id in cluster.ids() {
        cluster.stop_node(id).await;
    }
    let open = |disk: &MemoryDisk, cluster, store| {
        let disk = Arc::new(disk.clone());
        DataDirectory::open(disk, Path::new("/node"), ClusterId(cluster), survivor, &[], store)
            .unwrap()
    };
    let (disk, group) = (cluster.disks[&survivor].clone(), GroupId::default());
    let old = open(&disk, 7, 0);
    let (log, snapshots) = (old.log_directory(group), old.snapshot_directory(group));
    let mut machine = ledger();
    let disk = Arc::new(disk);
    let found = read_out(disk, &log, &snapshots, old.log_id(group), &mut machine, false).unwrap();
    assert_eq!((found.last, found.membership.len()), (found.log_end, 3));

    let directory = open(&MemoryDisk::new(), 8, 999);
    let nothing = read_out(
        directory.disk(),
        Path::new("/empty/log"),
        Path::new("/empty/snapshots"),
        1,
        &mut ledger(),
        false,
    );
    assert!(matches!(nothing, Err(SalvageError::Empty)), "{nothing:?}");
    let mut alone = Membership::default();
    alone.insert(survivor, Member::voter(StoreId(999)));
    begin_with(&directory, group, &mut machine, &alone, found.term.next()).unwrap();
    let transport = MemoryNetwork::new().transport(survivor);
    let node = Raft::start(NodeOptions::new(directory), ledger(), transport).unwrap();
    let leads = |status: &Status| status.role == Role::Leader;
    let status = node.wait_for(PATIENCE, leads).await.unwrap();
    assert!(status.term > found.term && status.membership == alone, "{status:?}");
    node.propose("after").await.unwrap();
    let reader = node.read(Consistency::Linearizable).await.unwrap();
    let lines = reader.with(|ledger| ledger.lines.clone());
    assert_eq!(lines, [expected, vec!["after".to_owned()]].concat());
    node.shutdown().await;
}
