//! A thousand Raft groups in three processes' worth of nodes, and what they cost while nobody asks them for anything.
//!
//! `cargo run --release -p raft-consensus --example many_groups -- [GROUPS] [loud] [apart] [memory]`
//!
//! Every group gets a leader and a command; then the program counts for ten seconds what the nodes say to each other, writes to a few
//! groups, and shows that the others sleep on. With `loud` groups do not go quiet; with `apart` heartbeats do not travel together; with
//! `memory` nodes talk over the network in memory, and not over gRPC on loopback.
#![expect(clippy::print_stdout, reason = "an example prints")]
#![expect(clippy::disallowed_methods, reason = "it measures itself, on the machine's clock")]

use std::collections::BTreeMap;
use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use raft_consensus::driver::{
    NodeOptions, Process, ProcessOptions, ProposeError, Raft, Status, Timing,
};
use raft_consensus::message::Envelope;
use raft_consensus::state_machine::{BoxError, Simple, SimpleReader, StateMachine};
use raft_consensus::transport::grpc::{GrpcOptions, GrpcTransport, Identity};
use raft_consensus::transport::{Inbox, MemoryNetwork, Transport};
use raft_consensus::types::{GroupId, NodeId};

/// Counts its commands.
#[derive(Default)]
struct Counter(u64);

impl StateMachine for Counter {
    fn apply(&mut self, _command: &[u8]) -> Result<Vec<u8>, BoxError> {
        self.0 += 1;
        Ok(self.0.to_string().into())
    }
}

type Node = Raft<SimpleReader<Counter>>;

const IDS: [NodeId; 3] = [NodeId(1), NodeId(2), NodeId(3)];
const HEARTBEAT: Duration = Duration::from_millis(100);
const PATIENCE: Duration = Duration::from_secs(120);
const MEASURED: Duration = Duration::from_secs(10);

/// What the command line says.
struct Options {
    groups: u64,
    is_loud: bool,
    is_apart: bool,
    in_memory: bool,
}

/// Counts what passes.
#[derive(Debug)]
struct Counted {
    inner: Arc<dyn Transport>,
    sent: Arc<AtomicU64>,
}

impl Transport for Counted {
    fn send(&self, envelope: Envelope) {
        self.sent.fetch_add(1, Ordering::Relaxed);
        self.inner.send(envelope);
    }

    fn register(&self, group: GroupId, inbox: Inbox) {
        self.inner.register(group, inbox);
    }
}

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    let options = options()?;
    let sent = Arc::new(AtomicU64::new(0));
    let nodes = IDS.map(node);
    let (wires, transports) = transports(&options, &nodes)?;
    let mut hosts = Vec::new();
    for (node, inner) in nodes.into_iter().zip(transports) {
        let transport = Arc::new(Counted { inner, sent: Arc::clone(&sent) });
        let mut process = ProcessOptions::new(node);
        if options.is_loud {
            process.quiet_after = None;
        }
        hosts.push((Process::start(process, transport), BTreeMap::new()));
    }
    for group in (0..options.groups).map(GroupId) {
        for (process, nodes) in &mut hosts {
            nodes.insert(group, process.start_group(group, Simple::new(Counter::default()))?);
        }
    }
    let hosts: Vec<(Process, BTreeMap<GroupId, Node>)> = hosts;
    for group in (0..options.groups).map(GroupId) {
        propose(&hosts, group).await?;
    }
    settle(&hosts, !options.is_loud).await?;
    println!("{} groups of three nodes, each with a leader and a command", options.groups);

    let frames =
        || wires.iter().flat_map(|wire| wire.stats().peers.into_values()).map(|peer| peer.frames);
    let (before, begun) = ((sent.load(Ordering::Relaxed), frames().sum::<u64>()), Instant::now());
    let cpu = cpu_ticks()?;
    tokio::time::sleep(MEASURED).await;
    let tenths = u64::try_from(begun.elapsed().as_millis() / 100)?;
    let rate = |count: u64| count * 10 / tenths.max(1);
    println!("idle: {} messages/s", rate(sent.load(Ordering::Relaxed) - before.0));
    if !wires.is_empty() {
        println!("      {} frames/s", rate(frames().sum::<u64>() - before.1));
    }
    // A tick is a hundredth of a second.
    println!("      {} % of a core, {} MB resident", rate(cpu_ticks()? - cpu), resident_mb()?);

    for group in (0..options.groups.min(10)).map(GroupId) {
        propose(&hosts, group).await?;
    }
    let quiet: usize = hosts.iter().map(|(process, _)| process.quiet_groups()).sum();
    println!("after a write to ten groups: {quiet} of {} nodes are quiet", 3 * options.groups);
    Ok(())
}

/// A node whose logs will be in memory.
fn node(id: NodeId) -> NodeOptions {
    let mut node = NodeOptions::in_memory(id, IDS);
    node.apply_inline = true;
    node.timing = Timing {
        election_timeout: Duration::from_millis(1000)..Duration::from_millis(2000),
        heartbeat: HEARTBEAT,
        ..Timing::default()
    };
    // A group has little to keep.
    (node.log.journal.segment_size, node.log.journal.segment_size_max) = (16 << 10, 64 << 10);
    node
}

type Transports = (Vec<Arc<GrpcTransport>>, Vec<Arc<dyn Transport>>);

/// One transport a process, whatever the number of groups.
fn transports(options: &Options, nodes: &[NodeOptions]) -> Result<Transports, BoxError> {
    if options.in_memory {
        let network = MemoryNetwork::new();
        let transports = IDS.map(|id| -> Arc<dyn Transport> { network.transport(id) });
        return Ok((Vec::new(), transports.into()));
    }
    let mut listeners = BTreeMap::new();
    for id in IDS {
        listeners.insert(id, TcpListener::bind("127.0.0.1:0")?);
    }
    let mut peers = BTreeMap::new();
    for (id, listener) in &listeners {
        peers.insert(*id, vec![listener.local_addr()?.to_string()]);
    }
    let mut wires = Vec::new();
    for ((id, listener), node) in listeners.into_iter().zip(nodes) {
        let identity = node.directory.identity();
        let (cluster, store) = (identity.cluster, identity.store);
        let mut grpc = GrpcOptions::new(Identity { cluster, node: id, store });
        (grpc.listeners, grpc.peers) = (vec![listener], peers.clone());
        if !options.is_apart {
            grpc.timing.gather = HEARTBEAT / 4;
        }
        let wire = GrpcTransport::bind(grpc)?;
        wire.serve()?;
        wires.push(wire);
    }
    let transports = wires.iter().map(|wire| Arc::clone(wire) as Arc<dyn Transport>).collect();
    Ok((wires, transports))
}

/// Proposes to whichever node of the group leads.
async fn propose(
    hosts: &[(Process, BTreeMap<GroupId, Node>)],
    group: GroupId,
) -> Result<(), BoxError> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let known = |status: &Status| status.leader.is_some();
        let node = &hosts[0].1[&group];
        let status = node.wait_for(PATIENCE, known).await.ok_or("no leader was elected")?;
        let leader = status.leader.and_then(|leader| IDS.iter().position(|&id| id == leader));
        let leader = leader.ok_or("the leader is one of the three")?;
        match hosts[leader].1[&group].propose("one more").await {
            Ok(_) => return Ok(()),
            Err(
                ProposeError::NotLeader { .. } | ProposeError::Superseded | ProposeError::Unknown,
            ) if Instant::now() < deadline => tokio::time::sleep(HEARTBEAT).await,
            Err(error) => return Err(error.into()),
        }
    }
}

/// Waits until all nodes have what their leaders have, and are quiet if they may be.
async fn settle(hosts: &[(Process, BTreeMap<GroupId, Node>)], quiet: bool) -> Result<(), BoxError> {
    for (_, nodes) in hosts {
        for (group, node) in nodes {
            let is_settled = |status: &Status| {
                status.membership.is_fully_bound()
                    && status.applied == status.last.index
                    && (status.is_quiet || !quiet)
            };
            let settled = node.wait_for(PATIENCE, is_settled).await;
            settled.ok_or_else(|| format!("group {group} does not come to rest"))?;
        }
    }
    Ok(())
}

/// The processor's time that this program has used, in hundredths of a second.
fn cpu_ticks() -> Result<u64, BoxError> {
    let stat = std::fs::read_to_string("/proc/self/stat")?;
    let (_, fields) = stat.rsplit_once(')').ok_or("a line that nobody knows")?;
    let ticks = fields.split_whitespace().skip(11).take(2).map(str::parse::<u64>);
    Ok(ticks.collect::<Result<Vec<_>, _>>()?.iter().sum())
}

fn resident_mb() -> Result<u64, BoxError> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).ok_or("no VmRSS")?;
    let kilobytes = line.split_whitespace().nth(1).ok_or("no figure")?;
    Ok(kilobytes.parse::<u64>()? / 1024)
}

fn options() -> Result<Options, BoxError> {
    let mut options = Options { groups: 1000, is_loud: false, is_apart: false, in_memory: false };
    for word in std::env::args().skip(1) {
        match word.as_str() {
            "loud" => options.is_loud = true,
            "apart" => options.is_apart = true,
            "memory" => options.in_memory = true,
            groups => options.groups = groups.parse()?,
        }
    }
    Ok(options)
}
