//! One format for everything that is worth remembering about a run: JSON lines.
//!
//! Each line is an envelope around the fields of one event:
//!
//! ```json
//! {"v":1,"seq":7,"node":2,"t_mono_ns":150000000,"t_wall":1700000000150000000,"cause":{"node":1,"seq":4},"kind":"vote","term":1}
//! ```
//!
//! - `v` is the version of the format ([`VERSION`]).
//! - `seq` counts the events of one node from 1, over restarts too where the writer knows how.
//! - `t_mono_ns` is the node's monotonic clock and `t_wall` its wall clock since the UNIX epoch, both in nanoseconds.
//! - `cause` names the event that led to this one, on this node or another; `{"node":0,"seq":0}` if none is known.
//! - `kind` is one of [`kind::ALL`], or a name of the writer's own. The other fields depend on it.
//!
//! The simulator, failing tests, reports and the dashboard all read this format. This crate is a leaf: it knows what
//! the envelope looks like and nothing about what is inside. [`TraceWriter`] never writes more than it was allowed to,
//! and [`TraceReader`] never holds a longer line than [`LINE_LENGTH_MAX`].

pub mod kind;
mod reader;
mod writer;

use serde::{Deserialize, Serialize};
pub use serde_json::{Map, Value};

pub use reader::{LINE_LENGTH_MAX, ReadError, TraceReader};
pub use writer::TraceWriter;

/// The version of the format that this crate writes and reads.
pub const VERSION: u32 = 1;

/// The event that led to another one; the default means that none is known.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct Cause {
    /// The node on which it happened; 0 if none is known.
    pub node: u64,
    /// Its number on that node; 0 if none is known.
    pub seq: u64,
}

impl Cause {
    /// No known cause.
    pub const NONE: Self = Self { node: 0, seq: 0 };

    /// Whether no cause is known.
    pub fn is_none(self) -> bool {
        self == Self::NONE
    }
}

/// One event on its way out. `K` serialises as a map or struct, whose fields stand beside those of the envelope.
#[derive(Clone, Debug, Serialize)]
pub struct Envelope<'a, K> {
    /// Version of the format: [`VERSION`].
    pub v: u32,
    /// Number of the event on its node, from 1.
    pub seq: u64,
    /// The node on which it happened.
    pub node: u64,
    /// The node's monotonic clock, in nanoseconds.
    pub t_mono_ns: u64,
    /// The node's wall clock, in nanoseconds since the UNIX epoch.
    pub t_wall: u64,
    /// What led to it.
    pub cause: Cause,
    /// What happened: one of [`kind::ALL`], or a name of the writer's own.
    pub kind: &'a str,
    /// The fields of this kind.
    #[serde(flatten)]
    pub fields: K,
}

/// One event that was read back.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
pub struct TraceRecord {
    /// Version of the format.
    pub v: u32,
    /// Number of the event on its node, from 1.
    pub seq: u64,
    /// The node on which it happened.
    pub node: u64,
    /// The node's monotonic clock, in nanoseconds.
    pub t_mono_ns: u64,
    /// The node's wall clock, in nanoseconds since the UNIX epoch.
    pub t_wall: u64,
    /// What led to it.
    pub cause: Cause,
    /// What happened.
    pub kind: String,
    /// The fields of this kind.
    #[serde(flatten)]
    pub fields: Map<String, Value>,
}
