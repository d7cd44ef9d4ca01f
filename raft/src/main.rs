//! A Raft node to look at: it runs elections, and logs its state transitions.
//!
//! Without flags it is a cluster of one. With `--peer` it joins others on real addresses. The log is kept in memory unless
//! `--data-dir` is given. There is no state machine to talk to; for that see the examples, and the server.

use std::collections::BTreeMap;
use std::io::IsTerminal as _;
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use clap::Parser;
use raft_consensus::driver::{NodeOptions, Raft, Timing};
use raft_consensus::raft_node::Role;
use raft_consensus::state_machine::{BoxError, Simple, SimpleReader, StateMachine};
use raft_consensus::transport::grpc::{GrpcOptions, GrpcTransport, Identity};
use raft_consensus::types::NodeId;
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::LevelFilter;

/// Run one Raft node, alone or with others, and watch its elections in the log.
///
/// Three nodes, each in a terminal of its own:
///
///   raft-consensus --id 1 --listen 127.0.0.1:7001 --peer 2=127.0.0.1:7002 --peer 3=127.0.0.1:7003
///   raft-consensus --id 2 --listen 127.0.0.1:7002 --peer 1=127.0.0.1:7001 --peer 3=127.0.0.1:7003
///   raft-consensus --id 3 --listen 127.0.0.1:7003 --peer 1=127.0.0.1:7001 --peer 2=127.0.0.1:7002
///
/// RUST_LOG=debug shows every step. Ctrl-C stops the node.
#[derive(Debug, Parser)]
#[command(version, verbatim_doc_comment)]
struct Arguments {
    /// This node's id, above 0.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..))]
    id: u64,
    /// Where peers are accepted; only needed with peers.
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:0")]
    listen: SocketAddr,
    /// Another member and where it is reached. Once for each.
    #[arg(long = "peer", value_name = "ID=ADDR", value_parser = parse_peer)]
    peers: Vec<(NodeId, String)>,
    /// Where to keep the log; in memory if not given.
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// The smallest election timeout in milliseconds; the largest is twice that.
    #[arg(long, value_name = "MS", default_value_t = 150, value_parser = clap::value_parser!(u64).range(10..600_000))]
    election_timeout: u64,
    /// Time between heartbeats in milliseconds.
    #[arg(long, value_name = "MS", default_value_t = 100, value_parser = clap::value_parser!(u64).range(1..600_000))]
    heartbeat: u64,
}

/// A state machine without a state: this program shows the log, not what it is for.
struct Nothing;

impl StateMachine for Nothing {
    fn apply(&mut self, _: &[u8]) -> Result<Vec<u8>, BoxError> {
        Ok(Vec::new())
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    start_logging();
    match run(Arguments::parse()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

/// INFO unless `RUST_LOG` says otherwise; colour on a terminal only.
fn start_logging() {
    let filter = EnvFilter::builder().with_default_directive(LevelFilter::INFO.into());
    tracing_subscriber::fmt()
        .with_env_filter(filter.from_env_lossy())
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr)
        .init();
}

async fn run(arguments: Arguments) -> anyhow::Result<()> {
    let id = NodeId(arguments.id);
    let peers: BTreeMap<NodeId, String> = arguments.peers.into_iter().collect();
    anyhow::ensure!(!peers.contains_key(&id), "{id} is this node: leave it out of the peers");
    let founders: Vec<NodeId> = peers.keys().copied().chain([id]).collect();
    let mut options = match &arguments.data_dir {
        Some(path) => NodeOptions::on_disk(id, founders, path)?,
        None => NodeOptions::in_memory(id, founders),
    };
    let smallest = Duration::from_millis(arguments.election_timeout);
    let heartbeat = Duration::from_millis(arguments.heartbeat);
    options.timing =
        Timing { election_timeout: smallest..2 * smallest, heartbeat, ..Timing::default() };
    if smallest < 3 * heartbeat {
        tracing::warn!(
            "fewer than three heartbeats fit into the smallest election timeout: one lost message may cost an election"
        );
    }
    let transport = transport(&options, arguments.listen, peers)?;
    let raft = Raft::start(options, Simple::new(Nothing), transport.clone())?;
    let outcome = watch(&raft).await;
    raft.shutdown().await;
    transport.shutdown().await;
    outcome
}

#[expect(
    clippy::disallowed_methods,
    reason = "the program binds its port, and hands it to the transport"
)]
fn transport(
    options: &NodeOptions,
    listen: SocketAddr,
    peers: BTreeMap<NodeId, String>,
) -> anyhow::Result<Arc<GrpcTransport>> {
    let identity = options.directory.identity();
    let identity =
        Identity { cluster: identity.cluster, node: identity.node, store: identity.store };
    let listener =
        TcpListener::bind(listen).with_context(|| format!("cannot listen on {listen}"))?;
    let mut grpc = GrpcOptions::new(identity);
    grpc.listeners = vec![listener];
    grpc.peers = peers.into_iter().map(|(node, address)| (node, vec![address])).collect();
    let transport = GrpcTransport::bind(grpc)?;
    for address in transport.local_addresses() {
        tracing::info!("Raft server listening on {address}");
    }
    transport.serve()?;
    Ok(transport)
}

/// Runs until the node fails, or somebody wants it to stop.
async fn watch(raft: &Raft<SimpleReader<Nothing>>) -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut status = raft.watch();
    let mut shown = (Role::Follower, None);
    loop {
        tokio::select! {
            interrupt = tokio::signal::ctrl_c() => return interrupt.map_err(Into::into),
            _ = terminate.recv() => return Ok(()),
            fatal = raft.stopped() => anyhow::bail!(
                "the node stopped: {}",
                fatal.map_or_else(|| "nobody knows why".to_owned(), |fatal| fatal.to_string())
            ),
            changed = status.changed() => {
                changed.context("the node is gone")?;
                let status = status.borrow_and_update().clone();
                if shown != (status.role, status.leader) {
                    shown = (status.role, status.leader);
                    let (role, term) = (status.role, status.term);
                    let leader = status.leader.map_or_else(|| "none".to_owned(), |id| id.to_string());
                    tracing::info!("State: {role} in term {term}, leader {leader}, commit {}", status.commit);
                }
            }
        }
    }
}

fn parse_peer(text: &str) -> Result<(NodeId, String), String> {
    let (id, address) = text.split_once('=').ok_or("expected ID=ADDR, as in 2=127.0.0.1:7002")?;
    match id.parse() {
        Ok(id) if id > 0 => Ok((NodeId(id), address.to_owned())),
        Ok(_) | Err(_) => Err(format!("{id} is not a node id: a number above 0")),
    }
}
