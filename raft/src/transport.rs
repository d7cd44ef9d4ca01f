//! How envelopes travel between nodes.
//!
//! A transport is fire and forget: it may lose, delay, repeat and reorder, and never blocks its caller. What it must not do is
//! alter a message or hand it to a group that it was not meant for.

use std::fmt::Debug;
use std::time::Duration;

use crate::message::Envelope;
use crate::types::GroupId;

#[cfg(any(feature = "grpc", feature = "sim"))]
pub(crate) mod frame;
#[cfg(feature = "grpc")]
pub mod grpc;
#[cfg(feature = "driver")]
mod memory;

#[cfg(any(feature = "grpc", feature = "sim"))]
pub mod wire;

#[cfg(any(feature = "grpc", feature = "sim"))]
pub(crate) mod generated {
    #![expect(unreachable_pub, reason = "written by a generator")]
    #![cfg_attr(
        feature = "grpc",
        expect(
            unused_qualifications,
            clippy::allow_attributes,
            clippy::allow_attributes_without_reason,
            reason = "written by a generator"
        )
    )]
    include!("generated/lattice.raft.v1.rs");
}

#[cfg(feature = "driver")]
pub use memory::{MemoryNetwork, MemoryTransport};

/// Sends envelopes to peers.
pub trait Transport: Debug + Send + Sync + 'static {
    /// Sends, or drops if the peer's bounded queue is full or the peer is unknown.
    fn send(&self, envelope: Envelope);

    /// Delivers what arrives for `group` to `inbox` from now on.
    fn register(&self, group: GroupId, inbox: Inbox);

    /// How long it may keep back a message that nobody waits for ([`Envelope::can_wait`]).
    fn gathers(&self) -> Duration {
        Duration::ZERO
    }

    /// The longest message that it carries, in bytes; a longer one is dropped, however often it is sent. Without bound by default.
    fn message_max(&self) -> usize {
        usize::MAX
    }
}

/// Where a transport puts what arrives for a group. Bounded: a full inbox drops, as a network would.
#[derive(Clone)]
pub struct Inbox {
    deliver: std::sync::Arc<dyn Fn(Envelope) + Send + Sync>,
}

impl Inbox {
    /// An inbox that hands each envelope to `deliver`, which must not block.
    pub fn new(deliver: impl Fn(Envelope) + Send + Sync + 'static) -> Self {
        Self { deliver: std::sync::Arc::new(deliver) }
    }

    /// Hands over an envelope.
    pub fn deliver(&self, envelope: Envelope) {
        (self.deliver)(envelope);
    }
}

impl Debug for Inbox {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Inbox")
    }
}
