//! A counter whose clients send again what got no answer, and never count twice.
//!
//! `cargo run --example sessions`
#![expect(clippy::print_stdout, reason = "an example prints")]

use std::time::Duration;

use bytes::Bytes;
use raft_consensus::driver::{NodeOptions, ProposeOptions, Raft, Session};
use raft_consensus::state_machine::sessions::SessionCommand;
use raft_consensus::state_machine::{BoxError, Sessions, Simple, StateMachine};
use raft_consensus::transport::MemoryNetwork;
use raft_consensus::types::{NodeId, SessionId};

/// Adds up what it is told.
#[derive(Debug, Default)]
pub struct Counter(u64);

impl StateMachine for Counter {
    fn apply(&mut self, command: &[u8]) -> Result<Vec<u8>, BoxError> {
        self.0 += std::str::from_utf8(command)?.parse::<u64>()?;
        Ok(self.0.to_string().into())
    }
}

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    let ids = [NodeId(1), NodeId(2), NodeId(3)];
    let network = MemoryNetwork::new();
    let mut nodes = Vec::new();
    for id in ids {
        let machine = Sessions::new(Simple::new(Counter::default()));
        nodes.push(Raft::start(NodeOptions::in_memory(id, ids), machine, network.transport(id))?);
    }
    let patience = Duration::from_secs(10);
    let mut session = Session::open(nodes.clone(), Duration::from_secs(60), patience).await?;
    for number in ["1", "20", "300"] {
        let applied = session.propose(number).await?;
        println!("{}: + {number} = {}", applied.id, String::from_utf8_lossy(&applied.reply));
    }

    // A network that delivers the last command a second time; whoever leads takes it, and answers as the first time.
    let again =
        SessionCommand::Apply { time_ms: 0, acknowledged: 2, command: Bytes::from_static(b"300") };
    let id = SessionId { session: session.id(), sequence: 3 };
    let options = ProposeOptions { session: Some(id), ..ProposeOptions::default() };
    let mut repeated = None;
    for node in &nodes {
        if let Ok(applied) = node.propose_with(again.encode(), options).await {
            println!("{}: + 300 again = {}", applied.id, String::from_utf8_lossy(&applied.reply));
            repeated = Some(applied.reply);
        }
    }
    let last = session.propose("0").await?.reply;
    println!("the counter is at {}", String::from_utf8_lossy(&last));
    session.close().await?;
    for node in &nodes {
        node.shutdown().await;
    }
    let is_right = last == "321" && repeated.is_none_or(|reply| reply == "321");
    if is_right { Ok(()) } else { Err("a command was counted twice".into()) }
}
