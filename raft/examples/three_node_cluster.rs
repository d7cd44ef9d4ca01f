//! Three nodes in one process: an election, replication, equal states, and a new leader when the first one is stopped.
//!
//! `RUST_LOG=info cargo run --example three_node_cluster`. The example checks what it shows, and fails if it is not so.
#![expect(clippy::print_stdout, unreachable_pub, reason = "an example prints")]

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use raft_consensus::driver::{Consistency, NodeOptions, ProposeError, Raft};
use raft_consensus::state_machine::{BoxError, Simple, SimpleReader};
use raft_consensus::transport::MemoryNetwork;
use raft_consensus::types::NodeId;

#[expect(dead_code, reason = "a program of its own, of which this one uses a part")]
#[path = "kv_store.rs"]
mod kv_store;
#[path = "support/logging.rs"]
mod logging;

use kv_store::{KvCommand, KvStore};

type Node = Raft<SimpleReader<KvStore>>;

const PATIENCE: Duration = Duration::from_secs(10);

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    logging::start();
    let network = MemoryNetwork::new();
    let ids = [1, 2, 3].map(NodeId);
    let mut nodes = BTreeMap::new();
    for id in ids {
        let machine = Simple::new(KvStore::default());
        let options = NodeOptions::in_memory(id, ids);
        nodes.insert(id, Raft::start(options, machine, network.transport(id))?);
    }
    println!("Three nodes, all followers. Within 150 to 300 ms one of them becomes candidate.");

    let first = leader(&nodes).await?;
    println!("{first} leads. Its heartbeats, every 100 ms, keep the others from campaigning.");
    for number in 1..=5 {
        set(&nodes, &format!("key{number}"), &format!("value{number}")).await?;
    }
    show_equal_states(&nodes, 5).await?;

    for node in nodes.values() {
        let founded = node.wait_for(PATIENCE, |status| status.membership.is_fully_bound()).await;
        founded.ok_or("not every node was bound to its data directory")?;
    }
    println!("Stopping {first}. The others notice the silence and elect another.");
    nodes.remove(&first).ok_or("the leader is one of the nodes")?.shutdown().await;
    let second = leader(&nodes).await?;
    if second == first {
        return Err("the stopped node cannot lead".into());
    }
    println!("{second} leads now, and has everything that was acknowledged.");
    set(&nodes, "key6", "value6").await?;
    show_equal_states(&nodes, 6).await?;
    for node in nodes.values() {
        node.shutdown().await;
    }
    Ok(())
}

/// Waits until the nodes agree on a leader that is one of them.
async fn leader(nodes: &BTreeMap<NodeId, Node>) -> Result<NodeId, BoxError> {
    let node = nodes.values().next().ok_or("no node is left")?;
    let known = |leader: &Option<NodeId>| leader.is_some_and(|leader| nodes.contains_key(&leader));
    let status = node.wait_for(PATIENCE, |status| known(&status.leader)).await;
    status.and_then(|status| status.leader).ok_or_else(|| "no leader was elected".into())
}

/// Sets a key through whichever node leads, and tries again if that changes meanwhile. Setting twice does no harm.
async fn set(nodes: &BTreeMap<NodeId, Node>, key: &str, value: &str) -> Result<(), BoxError> {
    let command = KvCommand::Set { key: key.into(), value: value.into() }.encode();
    let deadline = tokio::time::Instant::now() + PATIENCE;
    loop {
        let node = &nodes[&leader(nodes).await?];
        match node.propose(command.clone()).await {
            Ok(applied) => {
                println!("SET {key} = {value}: committed as entry {}", applied.id);
                return Ok(());
            }
            Err(
                ProposeError::NotLeader { .. } | ProposeError::Superseded | ProposeError::Unknown,
            ) if tokio::time::Instant::now() < deadline => {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            Err(error) => return Err(error.into()),
        }
    }
}

/// Reads from every node, linearizably: each waits until it has applied all that was acknowledged.
async fn show_equal_states(nodes: &BTreeMap<NodeId, Node>, keys: usize) -> Result<(), BoxError> {
    let mut states = Vec::new();
    for (id, node) in nodes {
        let state = node.read(Consistency::Linearizable).await?.with(KvStore::clone);
        println!("{id} holds {state}");
        states.push(Arc::new(state));
    }
    let is_equal = states.windows(2).all(|pair| pair[0] == pair[1]);
    let is_complete = states.iter().all(|state| state.len() == keys);
    if is_equal && is_complete { Ok(()) } else { Err("the states differ".into()) }
}
