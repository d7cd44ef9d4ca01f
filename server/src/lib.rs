//! Lattice in one process: a node that keeps keys and values by consensus and speaks etcd's protocol, with a cache beside it.
//!
//! [`Node::start`] runs one node from a [`Config`]; the `lattice` program is a thin shell around it. A node listens on
//! four ports: for clients (etcd's API over gRPC, with health and reflection), for the other members (Raft's messages
//! and the writes that they relay), for operators (health and metrics over HTTP), and for clients of its cache (Redis's
//! protocol).
//!
//! ```text
//! client ──► api/etcd ──► relay ──► raft (this node leads) ──► journal, state machine
//!                           └─────► peer port of the leader
//! client ──► distributed_cache::net      this node's own, apart from the above
//! ```
//!
//! # What a client may rely on
//!
//! * A write that was acknowledged is on the disks of a majority, and no crash of a minority loses it.
//! * A read is linearizable unless the client asks for `serializable`.
//! * A write whose outcome is unknown is never reported as failed: the error is `UNAVAILABLE`, as with etcd.
//!
//! # What is missing
//!
//! Transactions, leases, watches, compaction, authentication and TLS: these methods answer `UNIMPLEMENTED`. Everything binds loopback unless `--insecure-no-auth` is given. The caches of several nodes do not
//! know each other.

mod accept;
mod api;
mod authority;
mod cache;
pub mod client;
mod codec;
pub mod config;
pub mod founders;
mod join;
mod members;
mod metrics;
mod node;
pub mod proto;
pub mod recover;
mod relay;
mod runtime;
pub mod url;

pub use config::{Config, Settings};
pub use node::{Listeners, Node, StartError};

/// The README's examples compile.
#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
mod readme {}
