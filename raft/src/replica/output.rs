//! What a replica gives out, for the driver to carry out in this order.

use std::ops::RangeInclusive;

use bytes::Bytes;

use super::RequestId;
use crate::effects::{FatalError, OrderError, PersistBatch, ProposalId, Rejection};
use crate::entries::Entries;
use crate::membership::Membership;
use crate::message::Envelope;
use crate::raft_node::QuietStanding;
use crate::state_machine::Reply;
use crate::trace::TraceEvent;
use crate::types::{EntryId, LogIndex, NodeId, SnapshotMeta};

/// Committed entries for the state machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Run {
    /// The places.
    pub range: RangeInclusive<LogIndex>,
    /// The entries, if they are in memory; else they are to be read from the log, as many of them at a time as one likes.
    pub entries: Option<Entries>,
}

/// Why a proposal has no reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProposalError {
    /// It was not taken into the log.
    Rejected(Rejection),
    /// The disk is nearly full. Not taken.
    NoSpace,
    /// Another entry was committed in its place. It has no effect, now or later.
    Superseded,
    /// It may or may not take effect.
    Unknown,
}

/// What goes out.
#[derive(Debug)]
pub enum Output {
    /// Write this batch.
    Persist(PersistBatch),
    /// Send this now.
    Send(Envelope),
    /// Apply this run; answer with [`Input::Applied`](super::Input::Applied).
    Apply(Run),
    /// Put the state machine into the state of this snapshot, after all runs given out; answer with [`Input::Restored`](super::Input::Restored).
    Restore(SnapshotMeta),
    /// Take a snapshot of the machine as it is after all runs given out; answer with [`Input::SnapshotTaken`](super::Input::SnapshotTaken).
    TakeSnapshot {
        /// The last entry of those runs.
        last: EntryId,
        /// The members at that entry.
        membership: Membership,
    },
    /// Read entries for a follower; answer with [`Input::EntriesRead`](super::Input::EntriesRead).
    ReadEntries {
        /// For whom.
        to: NodeId,
        /// Which.
        range: RangeInclusive<LogIndex>,
        /// Bytes to stop after.
        bytes_max: usize,
    },
    /// Read entries for a node whose log is damaged; answer with [`Input::RepairRead`](super::Input::RepairRead).
    ReadForRepair {
        /// For whom.
        to: NodeId,
        /// Which.
        range: RangeInclusive<LogIndex>,
        /// Bytes to stop after.
        bytes_max: usize,
    },
    /// Read a piece of a snapshot; answer with [`Input::SnapshotRead`](super::Input::SnapshotRead).
    ReadSnapshot {
        /// For whom.
        to: NodeId,
        /// Which snapshot.
        meta: SnapshotMeta,
        /// Where the piece begins.
        offset: u64,
    },
    /// Write a piece of a snapshot; answer with [`Input::SnapshotWritten`](super::Input::SnapshotWritten).
    WriteSnapshot {
        /// Which snapshot.
        meta: SnapshotMeta,
        /// Where the piece begins.
        offset: u64,
        /// The piece.
        data: Bytes,
    },
    /// Drop entries up to here, and snapshots older than the oldest one in use.
    Compact {
        /// The last entry to drop.
        through: LogIndex,
        /// The last entry of the oldest snapshot that is the latest, or is being sent.
        oldest_snapshot: LogIndex,
    },
    /// A proposal has its answer.
    Answer {
        /// Which proposal.
        id: ProposalId,
        /// Where it stands in the log and the machine's reply, or why there is none.
        result: Result<(EntryId, Reply), ProposalError>,
    },
    /// An operator's order was carried out, or not.
    OrderDone {
        /// Which order.
        id: ProposalId,
        /// How it ended.
        result: Result<(), OrderError>,
    },
    /// A read may be served by the state machine as it is now.
    ReadReady(RequestId),
    /// A read could not be confirmed in time, or too many wait.
    ReadFailed {
        /// Which read.
        request: RequestId,
        /// The leader, if known.
        leader: Option<NodeId>,
    },
    /// For the trace and the logs.
    Trace(TraceEvent),
    /// Role, term, leader or members changed.
    StatusChanged,
    /// The members changed: as [`Self::StatusChanged`], and to be told before anything that comes later.
    MembersChanged,
    /// Stop the node. Everybody who still waits gets *outcome unknown*.
    Stop(FatalError),
    /// What the process has to do for this group's quiet has changed: see [`crate::liveness`].
    Quiet(QuietStanding),
}
