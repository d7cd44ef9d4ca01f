//! Raft consensus: a replicated log that keeps every acknowledged command.
//!
//! Several nodes, each with a log of its own, agree on one sequence of commands and apply it to a state machine. As long as a
//! majority of them works and can talk to each other, commands go on; whatever was acknowledged survives crashes, lost, late and
//! repeated messages, and clocks that lie. The protocol is that of Ongaro and Ousterhout, *In Search of an Understandable Consensus
//! Algorithm* (2014), cited here as "Raft §n", with what Ongaro's thesis adds: pre-vote (§9.6), check-quorum (§6.2), reads
//! without writing (§6.4), writing to the leader's disk in parallel (§10.2.1).
//!
//! # What is promised
//!
//! - **Election Safety**: at most one leader a term. A node votes once a term, and its vote is durable before it is told.
//! - **Leader Append-Only**: a leader never removes or changes what is in its log.
//! - **Log Matching**: two logs that hold the same entry hold the same entries before it.
//! - **Leader Completeness**: what is committed is in every later leader's log, because a vote goes only to a log that is at least
//!   as complete, and two majorities share a member.
//! - **State Machine Safety**: no two nodes apply different commands at the same place.
//!
//! These are executable ([`invariants`]) and checked after every event of every simulated run. On top of them: a command
//! is acknowledged when it is durable on a majority and applied; a linearizable read sees everything acknowledged before
//! it was asked for; an error says whether the command certainly has no effect, or may have one.
//!
//! # How it is built
//!
//! ```text
//!   messages, clients, time                         raft_node    what the protocol says      pure
//!            │                                      replica      who waits for what          pure
//!        ┌───▼────┐  Input   ┌─────────┐  Event     driver       moves bytes, logs           async
//!        │ driver ├─────────►│ replica ├────────┐
//!        │ or sim │◄─────────┤         │◄────┐  │   storage      the log and snapshots       a thread each
//!        └───┬────┘  Output  └─────────┘     │  │   transport    memory, gRPC
//!            │                      Effects  │  │
//!   disk, sockets, machine              ┌────┴──▼───┐
//!                                       │ raft_node │
//!                                       └───────────┘
//! ```
//!
//! The protocol is a pure state machine: [`raft_node::RaftNode::step`] takes an event and the time, and gives out [`effects`]. No clock,
//! thread, socket, file or random source of its own. The [`replica`] around it keeps the effects in order and remembers who waits for
//! what; it is pure as well. Two drivers run the same code: `driver` on tokio, and `sim` in the deterministic simulator,
//! where thousands of cluster hours pass with crashes, torn writes, partitions and lying clocks before a release does.
//!
//! What makes the order of disk and network right by construction is a token: a message that reveals a term, a vote or an entry that is
//! not yet durable names the write that it has to wait for ([`effects::Effect::Send`]).
//!
//! # A node in a dozen lines
//!
//! ```
//! # #[cfg(feature = "driver")] mod example {
//! use raft_consensus::driver::{NodeOptions, Raft};
//! use raft_consensus::state_machine::{BoxError, Simple, StateMachine};
//! use raft_consensus::transport::MemoryNetwork;
//! use raft_consensus::types::NodeId;
//!
//! struct Counter(u64);
//!
//! impl StateMachine for Counter {
//!     fn apply(&mut self, _command: &[u8]) -> Result<Vec<u8>, BoxError> {
//!         self.0 += 1;
//!         Ok(self.0.to_string().into())
//!     }
//! }
//!
//! # pub
//! async fn count() -> Result<(), BoxError> {
//!     let (id, network) = (NodeId(1), MemoryNetwork::new());
//!     let options = NodeOptions::in_memory(id, [id]);
//!     let raft = Raft::start(options, Simple::new(Counter(0)), network.transport(id))?;
//!     raft.wait_for(std::time::Duration::from_secs(5), |status| status.leader.is_some()).await;
//!     assert_eq!(raft.propose("one more").await?.reply, "1");
//!     raft.shutdown().await;
//!     Ok(())
//! }
//! # }
//! # #[cfg(feature = "driver")]
//! # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(example::count()).unwrap();
//! ```
//!
//! [`NodeOptions::on_disk`](driver::NodeOptions::on_disk) keeps the log on disk, [`transport::grpc`] takes it to other machines.
//!
//! # What else is there
//!
//! - Reads on any node: linearizable ones, which write nothing, and stale ones ([`driver::Raft::read`](driver)). Leases, off by default:
//!   [`raft_node::ReadPolicy`].
//! - Members that come and go while the cluster runs, learners, handing over leadership: the example `members` shows all that an embedder
//!   has to do over gRPC. A new cluster needs all its founders up, once; from then on a majority is enough ([`membership`]).
//! - Commands that take effect once though they are sent again: [`state_machine::Sessions`].
//! - Snapshots as parts that travel and are written only where they changed, resumed after any break ([`state_machine`]).
//! - Damage on disk is found, told, and put back from the other nodes, entry by entry. A node that lost its disk does not vote
//!   twice: it is refused until it is replaced.
//! - Many groups in one process ([`driver::Process`](driver)), which share connections, and cost nothing while they have nothing to do.
//! - Your own state machine in the simulator that found this library's bugs (feature `sim`, example `simulate_your_own`).
//!
//! # Features
//!
//! | Feature | Brings |
//! | --- | --- |
//! | none | the core, the replica, a log in memory: no tokio, no files |
//! | `journal` | the durable log, snapshots, data directories |
//! | `driver` | a running node behind a handle, on tokio |
//! | `grpc` | the gRPC transport |
//! | `cli` (default) | the crate's own program |
//! | `sim` | nodes in the simulator, and planted bugs to prove that the checks can fail |
//!
//! # What is missing
//!
//! TLS and authentication between nodes: put the peers into a network of their own, or write a [`transport::Transport`]; the encoding of
//! messages is public (`transport::wire`). A log store of your own under the driver: it writes the journal, and the core alone
//! can be driven otherwise. Proposals are not forwarded: [`ProposeError::NotLeader`](driver) names the leader, and the caller asks there. The cause of
//! a message in traces. A disk that says "durable" and lies is outside what any protocol survives.

#[cfg(feature = "driver")]
pub mod driver;
pub mod effects;
pub mod entries;
pub mod invariants;
pub mod liveness;
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
