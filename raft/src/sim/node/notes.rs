//! What the trace and the checks are told about a node.

use lattice_trace::kind;

use super::Host;
use crate::message::{Envelope, Message};
use crate::trace::TraceEvent;
use crate::types::{LogIndex, NodeId, Term};

pub(super) fn trace(event: &TraceEvent, context: &mut Host<'_>) {
    let kind = match event {
        TraceEvent::PreVoteStarted { .. }
        | TraceEvent::FounderMissing { .. }
        | TraceEvent::FounderRefuses { .. }
        | TraceEvent::ElectionStarted { .. } => kind::TERM,
        TraceEvent::VoteGranted { .. } | TraceEvent::VoteRefused { .. } => kind::VOTE,
        TraceEvent::ElectionWon { .. }
        | TraceEvent::Became { .. }
        | TraceEvent::QuorumLost { .. }
        | TraceEvent::CommitDeferred { .. }
        | TraceEvent::DiskSlow { .. }
        | TraceEvent::WentQuiet { .. }
        | TraceEvent::Woken { .. }
        | TraceEvent::DiskStalled { .. } => kind::ROLE,
        TraceEvent::Appended { .. } => kind::APPENDED,
        TraceEvent::Truncated { .. } => kind::TRUNCATED,
        TraceEvent::Committed { .. } => kind::COMMITTED,
        TraceEvent::SnapshotNeeded { .. }
        | TraceEvent::SnapshotInstalled { .. }
        | TraceEvent::Compacted { .. } => kind::SNAPSHOT,
        TraceEvent::Bound { .. }
        | TraceEvent::MembershipProposed { .. }
        | TraceEvent::ChangeTakenBack { .. }
        | TraceEvent::Removed => kind::MEMBERSHIP,
        TraceEvent::TransferStarted { .. }
        | TraceEvent::TimeoutNowSent { .. }
        | TraceEvent::TransferTimedOut { .. } => kind::ROLE,
        TraceEvent::DamageFound { .. }
        | TraceEvent::RepairServed { .. }
        | TraceEvent::Repaired { .. }
        | TraceEvent::DamageCovered { .. } => kind::FAULT,
        TraceEvent::RepairOverdue { .. } => kind::ROLE,
        TraceEvent::Dropped { .. } => kind::MESSAGE_DROPPED,
        // Every heartbeat and read is in the trace as a message.
        TraceEvent::HeartbeatsSent { .. }
        | TraceEvent::ReadConfirmed { .. }
        | TraceEvent::ReadByLease { .. }
        | TraceEvent::LeaseOver { .. } => return,
    };
    context.trace(kind, format_args!("{event:?}"));
}

/// What a message says about its sender's promises.
pub(in crate::sim) fn told(envelope: &Envelope) -> (Term, Option<NodeId>) {
    let vote = match envelope.message {
        Message::VoteReply { granted: true } => Some(envelope.to),
        Message::Vote { .. } => Some(envelope.from),
        _ => None,
    };
    (envelope.term, vote)
}

/// What a node acknowledges that knows its own log to be intact only up to `sound`.
pub(super) fn unsound(sent: &[Envelope], sound: LogIndex) -> Option<(LogIndex, LogIndex)> {
    sent.iter().find_map(|envelope| match envelope.message {
        Message::AppendAccepted { matched } if matched > sound => Some((matched, sound)),
        _ => None,
    })
}
