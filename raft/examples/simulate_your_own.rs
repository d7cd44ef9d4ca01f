//! Simulates a state machine of your own: here the key-value store of `kv_store.rs`, replicated, under faults.
//!
//! ```text
//! cargo run --release -p raft-consensus --example simulate_your_own
//! ```
//!
//! You say what your machine is, what its clients do, and how a query is answered. Nodes, network, disks, faults and checks
//! are the simulator's: no write that was acknowledged may be missing, no read may be old, all replicas must agree.
#![expect(clippy::print_stdout, unreachable_pub, reason = "a program for people")]

#[expect(dead_code, reason = "it has a program and tests of its own")]
#[path = "kv_store.rs"]
mod kv_store;

use kv_store::{KvCommand, KvStore};
use lattice_sim::random::below;
use lattice_sim::{Campaign, ChaCha8Rng, fan_out};
use raft_consensus::sim::{Operation, Simulation, Workload};
use raft_consensus::state_machine::{Simple, SimpleReader};

/// Clients that set, get and delete a few keys.
#[derive(Clone, Debug, Default)]
struct KvClients {
    sets: u64,
}

impl Workload for KvClients {
    type Machine = Simple<KvStore>;

    fn machine(&self) -> Simple<KvStore> {
        Simple::new(KvStore::default())
    }

    fn operation(&mut self, client: u64, rng: &mut ChaCha8Rng) -> Operation {
        let key = format!("key{}", below(rng, 5));
        match below(rng, 10) {
            0..5 => {
                self.sets += 1;
                let value = format!("value {} of client {client}", self.sets);
                Operation::Write(KvCommand::Set { key, value }.encode().into())
            }
            5 => Operation::Write(KvCommand::Delete { key }.encode().into()),
            // A get may go through the log, as a command, ...
            6 => Operation::Write(KvCommand::Get { key }.encode().into()),
            // ... or be a linearizable read, which costs no entry.
            _ => Operation::Read(key.into()),
        }
    }

    fn read(&self, machine: &SimpleReader<KvStore>, key: &[u8]) -> Vec<u8> {
        let key = String::from_utf8_lossy(key);
        machine.with(|store| store.get(&key).cloned().unwrap_or_default().into_bytes())
    }

    fn check(&self, machine: &SimpleReader<KvStore>) -> Result<(), String> {
        let keys = machine.with(KvStore::len);
        if keys <= 5 { Ok(()) } else { Err(format!("{keys} keys, of which clients know 5")) }
    }
}

fn main() -> Result<(), String> {
    let mut simulation = Simulation::new(KvClients::default());
    simulation.command =
        "cargo run --release -p raft-consensus --example simulate_your_own --".into();
    // With arguments, one seed and its report: `--seed 7`.
    let mut arguments = std::env::args().skip(1);
    if let Some(seed) = arguments.by_ref().skip_while(|name| name != "--seed").nth(1) {
        let report = simulation.run(seed.parse().map_err(|error| format!("{seed}: {error}"))?);
        println!("{report}");
        return if report.is_ok() { Ok(()) } else { Err("a violation".into()) };
    }
    let mut campaign = Campaign::new();
    fan_out(
        0..50,
        2,
        |seed| simulation.run(seed),
        |report| {
            campaign.add(report);
            true
        },
    );
    println!("{campaign}");
    if campaign.is_ok() { Ok(()) } else { Err(format!("{} violations", campaign.violations)) }
}
