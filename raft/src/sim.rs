//! Whole clusters in the simulator, for this project's campaigns and for users' own state machines.
//!
//! A [`Simulation`] runs nodes and clients in one world under drawn faults: the nodes are the [`crate::replica`] over the log store on the
//! journal and its snapshot files, on simulated disks, exactly as in production; only threads, clocks, network and disks are
//! simulated. What is checked is told in `sim/check.rs`. A [`Workload`] says which machine is replicated and what its
//! clients do; [`Swaps`] is the one of the project's campaigns. See `examples/simulate_your_own.rs`.

mod atlas;
mod bug;
mod check;
mod client;
mod cluster;
mod damage;
pub mod exhaustive;
#[cfg(test)]
mod grey;
mod judge;
mod markers;
mod message;
mod node;
mod orders;
mod shape;
mod simulation;
mod spec;
mod workload;

pub use bug::PlantedBug;
pub use check::Oracle;
pub use client::SimClient;
pub use cluster::{SimCluster, SimProcess};
pub use judge::ClientHistory;
pub use message::{Outcome, SimMessage};
pub use node::SimNode;
pub use shape::Tuning;
pub use simulation::{FAULTS, Simulation};
pub use workload::{Operation, Registers, Retried, Swaps, Workload};
