//! A cluster over gRPC whose members change while it runs: a fourth node joins, gets its vote and leads, and a founder leaves.
//!
//! `cargo run --example members`
//!
//! What an embedder has to do, in the order in which it happens:
//!
//! 1. Founders are started with the list of all founders. The first leader needs all of their votes, so all must be up, once.
//! 2. A node that is to join is added as a learner, with its address as *context*. That entry of the log tells the others where it is.
//! 3. It is started without founders: it knows nobody, and waits until the leader speaks to it.
//! 4. With `promote_when_ready` it gets its vote by itself as soon as it has caught up. Without, `MemberChange::Promote` does it.
//!
//! The transport has to be told where the members are ([`follow`]): the library does not know what a context means.
#![expect(clippy::print_stdout, reason = "an example prints")]
#![expect(clippy::disallowed_methods, reason = "it binds its own ports")]

use std::collections::BTreeMap;
use std::net::TcpListener;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use raft_consensus::driver::{Consistency, NodeOptions, Raft, Status};
use raft_consensus::effects::OrderError;
use raft_consensus::membership::{ConfChange, MemberChange};
use raft_consensus::state_machine::{BoxError, Simple, SimpleReader, StateMachine};
use raft_consensus::transport::grpc::{GrpcOptions, GrpcTransport, Identity};
use raft_consensus::types::NodeId;

/// Adds up what it is told.
#[derive(Debug, Default)]
struct Counter(u64);

impl StateMachine for Counter {
    fn apply(&mut self, command: &[u8]) -> Result<Vec<u8>, BoxError> {
        self.0 += std::str::from_utf8(command)?.parse::<u64>()?;
        Ok(self.0.to_string().into())
    }
}

type Addresses = BTreeMap<NodeId, Vec<String>>;

struct Node {
    raft: Raft<SimpleReader<Counter>>,
    transport: Arc<GrpcTransport>,
}

const FOUNDERS: [NodeId; 3] = [NodeId(1), NodeId(2), NodeId(3)];
/// Ids are used once: greater than that of any member there ever was.
const NEW: NodeId = NodeId(4);
const PATIENCE: Duration = Duration::from_secs(30);

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    let directory = tempfile::tempdir()?;
    let mut listeners = BTreeMap::new();
    let mut addresses = Addresses::new();
    for id in FOUNDERS {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        addresses.insert(id, vec![listener.local_addr()?.to_string()]);
        listeners.insert(id, listener);
    }
    let mut nodes = BTreeMap::new();
    for (id, listener) in listeners {
        nodes.insert(id, start(id, &FOUNDERS, directory.path(), listener, addresses.clone())?);
    }
    let leader = led_by(&nodes[&FOUNDERS[0]]).await?;
    println!("{leader} leads the three founders");
    nodes[&leader].raft.propose("40").await?;

    let listener = TcpListener::bind("127.0.0.1:0")?;
    let context = listener.local_addr()?.to_string().into();
    let joins =
        MemberChange::AddLearner { node: NEW, store: None, promote_when_ready: true, context };
    order(|| nodes[&leader].raft.change_membership(ConfChange::Members(vec![joins.clone()])))
        .await?;
    nodes.insert(NEW, start(NEW, &[], directory.path(), listener, addresses)?);
    until(&nodes[&NEW], |status| status.membership.is_voter(NEW)).await?;
    println!("{NEW} has caught up and votes");

    order(|| nodes[&leader].raft.transfer_leader(Some(NEW))).await?;
    until(&nodes[&NEW], |status| status.leader == Some(NEW)).await?;
    println!("{NEW} leads");

    let leaves = MemberChange::Remove(FOUNDERS[0]);
    order(|| nodes[&NEW].raft.change_membership(ConfChange::Members(vec![leaves.clone()]))).await?;
    until(&nodes[&FOUNDERS[0]], |status| status.is_removed).await?;
    println!("{} is removed, and knows it", FOUNDERS[0]);

    nodes[&NEW].raft.propose("2").await?;
    let total = nodes[&FOUNDERS[1]].raft.read(Consistency::Linearizable).await?;
    let total = total.with(|counter| counter.0);
    println!("the counter is at {total}");
    for node in nodes.values() {
        node.raft.shutdown().await;
        node.transport.shutdown().await;
    }
    if total == 42 { Ok(()) } else { Err("a command was lost, or counted twice".into()) }
}

/// Starts a founder, or, without founders, a node that joins. A node that was started before says itself who it is: both are the same then.
fn start(
    id: NodeId,
    founders: &[NodeId],
    directory: &Path,
    listener: TcpListener,
    addresses: Addresses,
) -> Result<Node, BoxError> {
    let path = directory.join(id.to_string());
    let mut options = NodeOptions::on_disk(id, founders.iter().copied(), &path)?;
    // Of the order that suits a busy machine, or nodes that are not close to each other.
    options.timing.election_timeout = Duration::from_millis(500)..Duration::from_millis(1000);
    let me = options.directory.identity();
    let me = Identity { cluster: me.cluster, node: me.node, store: me.store };
    let mut grpc = GrpcOptions::new(me);
    grpc.listeners = vec![listener];
    let transport = GrpcTransport::bind(grpc)?;
    transport.serve()?;
    let machine = Simple::new(Counter::default());
    let raft = Raft::start(options, machine, transport.clone())?;
    tokio::spawn(follow(id, raft.clone(), transport.clone(), addresses));
    Ok(Node { raft, transport })
}

/// Keeps the transport's peers what the membership says: founders are where everybody was told, and all others where their context says.
/// Who has been removed stays among them, so that it hears of it.
async fn follow(
    me: NodeId,
    raft: Raft<SimpleReader<Counter>>,
    transport: Arc<GrpcTransport>,
    mut addresses: Addresses,
) {
    let mut status = raft.watch();
    loop {
        let membership = status.borrow_and_update().membership.clone();
        for (id, member) in membership.members() {
            match std::str::from_utf8(&member.context) {
                Ok(address) if !address.is_empty() => {
                    addresses.insert(id, vec![address.to_owned()]);
                }
                Ok(_) | Err(_) => {}
            }
        }
        let peers = addresses.clone().into_iter().filter(|(id, _)| *id != me).collect();
        if let Err(error) = transport.set_peers(peers) {
            println!("{me}: {error}");
        }
        if status.wait_for(|now| now.membership != membership).await.is_err() {
            return;
        }
    }
}

/// Gives an order, again for as long as it comes too early: one change of the members goes on at a time, a new leader has to have committed
/// something first, and wants to have heard from whom it hands over to.
async fn order<F: Future<Output = Result<(), OrderError>>>(
    mut order: impl FnMut() -> F,
) -> Result<(), BoxError> {
    let patience = tokio::time::Instant::now() + PATIENCE;
    loop {
        match order().await {
            Err(
                OrderError::ChangeInProgress
                | OrderError::TermNotCommitted
                | OrderError::NotInSync(_),
            ) if tokio::time::Instant::now() < patience => {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            result => return Ok(result?),
        }
    }
}

async fn led_by(node: &Node) -> Result<NodeId, BoxError> {
    let status = until(node, |status| status.leader.is_some()).await?;
    status.leader.ok_or_else(|| "nobody leads".into())
}

async fn until(node: &Node, is_so: impl FnMut(&Status) -> bool + Send) -> Result<Status, BoxError> {
    let status = node.raft.wait_for(PATIENCE, is_so).await;
    status.ok_or_else(|| "it took too long, or the node has stopped".into())
}
