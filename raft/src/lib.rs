//! Raft consensus.

pub mod effects;
pub mod invariants;
pub mod log;
pub mod membership;
pub mod message;
pub mod progress;
pub mod quorum;
pub mod raft_node;
pub mod replica;
#[cfg(feature = "sim")]
pub mod sim;
pub mod state_machine;
pub mod storage;
pub mod trace;
pub mod transport;
pub mod types;
