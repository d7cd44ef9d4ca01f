#![cfg(test)]
//! The integration tests of the Raft library, in one binary.

mod allocations;
mod cases;
mod checkers;
#[cfg(feature = "driver")]
mod driver;
mod exhaustive;
#[cfg(feature = "driver")]
mod groups;
mod leases;
mod limits;
mod members;
mod paper;
mod planted_bugs;
mod quiet;
mod repair;
mod script;
mod scripts;
mod simulation;
mod snapshot_install;
mod snapshot_pace;
#[cfg(feature = "grpc")]
mod snapshot_transfer;
mod storage;
#[cfg(feature = "grpc")]
mod transport;
