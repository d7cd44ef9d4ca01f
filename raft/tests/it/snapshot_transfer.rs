//! Snapshots between running nodes, with real files and over gRPC: what has come once does not travel again.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use raft_consensus::driver::{NodeOptions, Raft, Status};
use raft_consensus::message::{Envelope, Message};
use raft_consensus::state_machine::{BoxError, Simple, SimpleReader, StateMachine};
use raft_consensus::storage::SnapshotCounts;
use raft_consensus::transport::grpc::{GrpcOptions, GrpcTransport, Identity};
use raft_consensus::transport::{Inbox, Transport};
use raft_consensus::types::{GroupId, NodeId};

const PATIENCE: Duration = Duration::from_secs(60);
const IDS: [NodeId; 3] = [NodeId(1), NodeId(2), NodeId(3)];
const BLOCK: usize = 1_000;

/// Blocks of bytes: a command of two numbers fills a block with noise. Its snapshot is all blocks in order.
#[derive(Debug, Default)]
struct Blocks(BTreeMap<u8, Vec<u8>>);

impl StateMachine for Blocks {
    fn apply(&mut self, command: &[u8]) -> Result<Vec<u8>, BoxError> {
        let [block, seed] = command else { return Err("a block and a seed".into()) };
        let mut state = u64::from(*block) << 8 | u64::from(*seed);
        let noise = |_| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            state.to_be_bytes()[0]
        };
        self.0.insert(*block, (0..BLOCK).map(noise).collect());
        Ok(Vec::new())
    }

    fn snapshot(&self) -> Result<Option<Vec<u8>>, BoxError> {
        Ok(Some(
            self.0.iter().flat_map(|(block, data)| [&[*block], data.as_slice()].concat()).collect(),
        ))
    }

    fn restore(&mut self, snapshot: &[u8]) -> Result<(), BoxError> {
        let blocks = snapshot.chunks_exact(1 + BLOCK);
        self.0 = blocks.map(|block| (block[0], block[1..].to_vec())).collect();
        Ok(())
    }
}

/// Lets so many pieces of snapshots through, of all nodes together.
#[derive(Debug, Default)]
struct Gate(AtomicUsize);

impl Gate {
    fn is_open(&self) -> bool {
        let one_less = |left: usize| left.checked_sub(1);
        self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_less).is_ok()
    }
}

/// A transport behind the gate.
#[derive(Debug)]
struct Gated {
    gate: Arc<Gate>,
    transport: Arc<GrpcTransport>,
}

impl Transport for Gated {
    fn send(&self, envelope: Envelope) {
        if !matches!(envelope.message, Message::SnapshotChunk { .. }) || self.gate.is_open() {
            self.transport.send(envelope);
        }
    }

    fn register(&self, group: GroupId, inbox: Inbox) {
        self.transport.register(group, inbox);
    }
}

struct Node {
    raft: Raft<SimpleReader<Blocks>>,
    transport: Arc<GrpcTransport>,
    address: SocketAddr,
}

struct Cluster {
    directory: tempfile::TempDir,
    gate: Arc<Gate>,
    nodes: BTreeMap<NodeId, Node>,
}

impl Cluster {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        Self { directory, gate: Arc::default(), nodes: BTreeMap::new() }
    }

    async fn start(&mut self, id: NodeId) {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let path: &Path = self.directory.path();
        let mut options = NodeOptions::on_disk(id, IDS, &path.join(id.0.to_string())).unwrap();
        options.limits.snapshot_entries = u64::MAX;
        options.limits.kept_entries = 0;
        // However busy the machine is.
        options.timing.election_timeout = Duration::from_secs(1)..Duration::from_secs(2);
        let identity = options.directory.identity();
        let identity = Identity { cluster: identity.cluster, node: id, store: identity.store };
        let mut grpc = GrpcOptions::new(identity);
        grpc.listeners = vec![listener.into_std().unwrap()];
        grpc.timing.backoff_max = Duration::from_millis(200);
        let transport = GrpcTransport::bind(grpc).unwrap();
        transport.serve().unwrap();
        let gated = Arc::new(Gated { gate: Arc::clone(&self.gate), transport: transport.clone() });
        let machine = Simple::new(Blocks::default()).parts_of(2_048);
        let raft = Raft::start(options, machine, gated).unwrap();
        self.nodes.insert(id, Node { raft, transport, address });
        let addresses: Vec<_> = self
            .nodes
            .iter()
            .map(|(id, node)| (*id, vec![format!("http://{}", node.address)]))
            .collect();
        for node in self.nodes.values() {
            node.transport.set_peers(addresses.iter().cloned().collect()).unwrap();
        }
    }

    async fn stop(&mut self, id: NodeId) {
        let node = self.nodes.remove(&id).unwrap();
        node.raft.shutdown().await;
        node.transport.shutdown().await;
    }

    /// Proposes until it is applied.
    async fn propose(&self, block: u8, seed: u8) {
        let propose = async {
            loop {
                for node in self.nodes.values() {
                    if node.raft.propose(vec![block, seed]).await.is_ok() {
                        return;
                    }
                }
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(PATIENCE, propose).await.expect("nothing is committed");
    }

    /// Every node that is up drops its log behind a snapshot of all that is applied.
    async fn compact(&self) {
        let applied = self.nodes.values().map(|node| node.raft.status().commit).max().unwrap();
        for (id, node) in &self.nodes {
            let caught_up = move |status: &Status| status.applied >= applied;
            node.raft.wait_for(PATIENCE, caught_up).await.expect("it does not catch up");
            let meta = node.raft.snapshot().await.unwrap();
            let is_compacted = move |status: &Status| status.first > meta.last.index;
            let compacted = node.raft.wait_for(PATIENCE, is_compacted).await;
            assert!(compacted.is_some(), "{id} keeps its log");
        }
    }

    fn counts(&self, id: NodeId) -> SnapshotCounts {
        self.nodes[&id].raft.status().counters.snapshot_bytes
    }

    async fn until_received(&self, id: NodeId, bytes: u64) {
        let wait = async {
            while self.counts(id).bytes_received < bytes {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(PATIENCE, wait).await.expect("nothing comes");
    }

    async fn until_installed(&self, id: NodeId) -> SnapshotCounts {
        let installed = |status: &Status| status.counters.snapshots_installed > 0;
        let status = self.nodes[&id].raft.wait_for(PATIENCE, installed).await;
        status.expect("no snapshot is installed");
        let all: Vec<_> = self.nodes[&NodeId(1)].raft.reader().with(blocks);
        let wait = async {
            while self.nodes[&id].raft.reader().with(blocks) != all {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(PATIENCE, wait).await.expect("the states differ");
        self.counts(id)
    }
}

fn blocks(machine: &Blocks) -> Vec<(u8, Vec<u8>)> {
    machine.0.iter().map(|(block, data)| (*block, data.clone())).collect()
}

#[tokio::test]
async fn a_receiver_that_is_killed_midway_gets_the_rest_and_then_only_what_changed() {
    let (one, two, late) = (NodeId(1), NodeId(2), NodeId(3));
    let mut cluster = Cluster::new();
    for id in IDS {
        cluster.start(id).await;
    }
    cluster.propose(0, 0).await;
    for node in cluster.nodes.values() {
        let founded = |status: &Status| status.membership.is_fully_bound();
        node.raft.wait_for(PATIENCE, founded).await.expect("a founder is not bound");
    }
    cluster.stop(late).await;
    for block in 0..100 {
        cluster.propose(block, 1).await;
    }
    cluster.compact().await;

    // The manifest and nine parts come through; then the link stands still, and the receiver is stopped.
    let size = 100 * u64::try_from(1 + BLOCK).unwrap();
    cluster.gate.0.store(10, Ordering::Relaxed);
    cluster.start(late).await;
    let manifest_at_least = 36 + 9 * 40;
    cluster.until_received(late, manifest_at_least + 9 * 512).await;
    let wait = async {
        while cluster.gate.0.load(Ordering::Relaxed) > 0 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, wait).await.expect("the pieces are not sent");
    cluster.stop(late).await;
    let status = |id| cluster.nodes[&id].raft.status();
    assert!(
        status(one).counters.snapshots_installed + status(two).counters.snapshots_installed == 0
    );

    // Started again, it asks for what it lacks.
    cluster.gate.0.store(usize::MAX, Ordering::Relaxed);
    cluster.start(late).await;
    let counts = cluster.until_installed(late).await;
    assert!(counts.bytes_resumed >= 5 * 512, "{counts:?}");
    assert!(counts.bytes_received < size, "not all of it: {counts:?}");
    assert!(counts.bytes_received + counts.bytes_resumed >= size, "{counts:?}");

    // A block changes while it is away: the next snapshot brings the parts with that block.
    cluster.stop(late).await;
    cluster.propose(50, 2).await;
    cluster.compact().await;
    cluster.start(late).await;
    let counts = cluster.until_installed(late).await;
    assert_eq!(counts.bytes_resumed, 0);
    assert!(counts.bytes_kept > size * 3 / 4, "{counts:?}");
    assert!(counts.bytes_received < size / 4, "{counts:?}");
    for id in IDS {
        cluster.stop(id).await;
    }
}
