//! One node, alone a majority: sets, gets and deletes through the log.
//!
//! `cargo run --example single_node`, or with `RUST_LOG=debug` to see every step.
#![expect(clippy::print_stdout, unreachable_pub, reason = "an example prints")]

use std::time::Duration;

use raft_consensus::driver::{Consistency, NodeOptions, Raft};
use raft_consensus::state_machine::{BoxError, Simple};
use raft_consensus::transport::MemoryNetwork;
use raft_consensus::types::NodeId;

#[expect(dead_code, reason = "a program of its own, of which this one uses a part")]
#[path = "kv_store.rs"]
mod kv_store;
#[path = "support/logging.rs"]
mod logging;

use kv_store::{KvCommand, KvStore, decode_reply};

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    logging::start();
    let id = NodeId(1);
    let network = MemoryNetwork::new();
    let machine = Simple::new(KvStore::default());
    let raft = Raft::start(NodeOptions::in_memory(id, [id]), machine, network.transport(id))?;
    let leads = raft.wait_for(Duration::from_secs(5), |status| status.leader == Some(id)).await;
    println!("{id} leads term {}", leads.ok_or("no leader within 5 s")?.term);

    let set = |key: &str, value: &str| KvCommand::Set { key: key.into(), value: value.into() };
    let get = |key: &str| KvCommand::Get { key: key.into() };
    for (command, expected) in [
        (set("name", "Lattice"), None),
        (set("name", "Lattice 0.1"), Some("Lattice")),
        (get("name"), Some("Lattice 0.1")),
        (KvCommand::Delete { key: "name".into() }, Some("Lattice 0.1")),
        (get("name"), None),
        (set("answer", "42"), None),
    ] {
        let applied = raft.propose(command.encode()).await?;
        let reply = decode_reply(&applied.reply)?;
        println!("{}: {command:?} -> {reply:?}", applied.id);
        if reply.as_deref() != expected {
            return Err(format!("expected {expected:?}").into());
        }
    }

    // A linearizable read sees everything acknowledged before it, and writes nothing.
    let answer =
        raft.read(Consistency::Linearizable).await?.with(|store| store.get("answer").cloned());
    println!("read: answer = {answer:?}");
    raft.shutdown().await;
    if answer.as_deref() == Some("42") { Ok(()) } else { Err("the read missed a write".into()) }
}
