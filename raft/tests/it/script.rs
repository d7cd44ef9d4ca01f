//! The script language: a text file tells a story about a cluster, and the golden output under each block shows what the nodes did.
//!
//! - `world` is the cluster: nodes, their disks, the messages in flight, one clock. It drives [`raft_consensus::raft_node::RaftNode`]
//!   directly and looks at the five safety properties after every step.
//! - `command` holds the commands, one file a family.
//! - `show` says how nodes, messages and entries look in the output.
//! - `subject` is one node alone, for tests in Rust that play all the others.
//! - `file` reads a script, runs it, and compares or rewrites its output.
//!
//! **Nothing happens by itself.** Messages wait in flight until a command delivers them, timers fire only when a command says so, and
//! with `disk=slow` writes wait until a command completes them. Chance has no part: every election timeout is 150 ms exactly,
//! heartbeats come every 50 ms, and a script chooses whose deadline passes.

mod command;
pub(crate) mod file;
mod show;
pub(crate) mod subject;
pub(crate) mod world;
