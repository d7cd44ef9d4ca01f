//! What travels on the simulated network.

use bytes::Bytes;

use super::workload::Operation;
use crate::message::Envelope;
use crate::types::{LogIndex, NodeId};

/// A message between nodes, or between a client and a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SimMessage {
    /// Between nodes.
    Peer(Envelope),
    /// A client asks.
    Request {
        /// Numbers the client's attempts. A connection delivers each at most once, whatever the network below it does.
        attempt: u64,
        /// The client's operation; the same for every attempt at it.
        operation: u64,
        /// What it wants.
        wanted: Operation,
    },
    /// A node answers.
    Response {
        /// The attempt that is answered.
        attempt: u64,
        /// The answer.
        outcome: Outcome,
    },
}

/// A node's answer to a client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It took effect, or was read, at this place of the log.
    Done {
        /// The write's entry; for a read the last entry that it saw.
        index: LogIndex,
        /// The reply, or the machine's refusal.
        reply: Result<Bytes, String>,
    },
    /// It has no effect, now or later: ask this node instead, if it is known.
    NotLeader(Option<NodeId>),
    /// It has no effect, now or later.
    Refused,
    /// It may or may not take effect.
    Unknown,
}
