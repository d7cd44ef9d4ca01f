//! A run as the TLA+ specification sees it, to be checked against it (`raft/tla/TraceLattice.tla`).
//!
//! One line for each action of the specification, with what came in, what was decided and what went out, and after each event a
//! look at the whole node. Nothing is left to guess: the specification either allows a line, with exactly these values, or the
//! run is refused. The lines of one event come in the order in which the core does things:
//!
//! | Line | Means |
//! | --- | --- |
//! | `start` | the node found this on its disk |
//! | `recv` | a message arrives |
//! | `prevote`, `wait` | a deadline came: of a voter, of a node whose vote would not count |
//! | `persist` | all writes up to a token are durable |
//! | `install` | a snapshot from the leader is whole |
//! | `campaign`, `takeover`, `lead` | a vote round begins, after a pre-vote or when the leader hands over; it is won |
//! | `compact`, `snapshot` | entries are dropped; a snapshot stands in for them |
//! | `commit`, `append` | as the leader |
//! | `round`, `send` | a round of heartbeats for reads begins; a message is given out, which may have to wait for a write |
//! | `stepdown` | a leader gives up by itself |
//! | `batch` | a write is queued, under its token |
//! | `state` | what the node is now |

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::rc::Rc;
use std::time::Duration;

use crate::effects::IoToken;
use crate::membership::Membership;
use crate::message::{Envelope, Message};
use crate::raft_node::{RaftNode, Role};
use crate::replica::{Input, Output, Replica};
use crate::trace::TraceEvent;
use crate::types::{Entry, EntryId, LogIndex, NodeId, Payload, Term};

/// The lines of a run, shared by its nodes.
#[derive(Clone, Debug, Default)]
pub(super) struct SpecTrace {
    shared: Rc<RefCell<Lines>>,
}

#[derive(Debug, Default)]
struct Lines {
    lines: Vec<String>,
    /// Everybody who took part.
    nodes: BTreeSet<NodeId>,
    /// The latest round that each node's heartbeats bore, and in which term.
    rounds: BTreeMap<NodeId, (Term, u64)>,
}

/// A node before an event.
#[derive(Debug)]
pub(super) struct Before {
    role: Role,
    term: Term,
    last: EntryId,
    commit: LogIndex,
    base: LogIndex,
    snapshot: LogIndex,
    /// The line of what comes in; `None` if the specification has no such thing.
    line: Option<String>,
    /// A deadline has come; perhaps not the election timeout.
    is_timeout: bool,
    is_led: bool,
    contact: bool,
    persisted: Option<IoToken>,
    installs: bool,
    /// It is asked to campaign, or told that it is no member: what follows is in the specification's answer to that.
    takes_over: bool,
    is_removed: bool,
}

impl SpecTrace {
    /// The module `TraceData` of a run of these founders.
    pub(super) fn module(&self, founders: &[NodeId]) -> String {
        let founding = Membership::founding(founders.iter().copied());
        let mut text = String::from(
            "---- MODULE TraceData ----\n\\* Written by the simulator.\nEXTENDS TLC\n",
        );
        let mut nodes = self.shared.borrow().nodes.clone();
        nodes.extend(founders);
        let servers = set(nodes.into_iter());
        let _ = writeln!(text, "TraceServer == {servers}\nTraceFounding == {}", config(&founding));
        let _ = writeln!(text, "U == [in |-> {{}}, out |-> {{}}, learners |-> {{}}]\nTrace == <<");
        text.push_str(&self.shared.borrow().lines.join(",\n"));
        text.push_str("\n>>\n====\n");
        text
    }

    /// The node has found this on its disk.
    pub(super) fn started(&self, node: &RaftNode) {
        let hard = node.hard_state();
        let line = format!(
            "[e |-> \"start\", n |-> {}, term |-> {}, vote |-> {}, last |-> {}, snap |-> {}, base |-> {}]",
            node.id().0,
            hard.term,
            name(hard.voted_for),
            id(node.log().last()),
            snapshot(node),
            node.log().base().index,
        );
        let mut lines = self.shared.borrow_mut();
        lines.rounds.remove(&node.id());
        lines.nodes.insert(node.id());
        lines.lines.push(line);
    }

    /// What is to be remembered of a node that is about to handle an input.
    pub(super) fn before(replica: &Replica, input: &Input, now: Duration) -> Before {
        let node = replica.node();
        let contact = now < node.contact_ends();
        let (at, contact_text) = (node.id().0, boolean(contact));
        let installs = match input {
            Input::SnapshotWritten { meta, is_complete: true, .. } => {
                node.role() == Role::Follower
                    && node.leader().is_some()
                    && meta.last.index > node.commit()
            }
            _ => false,
        };
        let line = match input {
            Input::Receive(envelope) => visible(envelope).map(|message| {
                format!("[e |-> \"recv\", n |-> {at}, contact |-> {contact_text}, m |-> {message}]")
            }),
            Input::SnapshotWritten { meta, .. } if installs => Some(format!(
                "[e |-> \"install\", n |-> {at}, contact |-> {contact_text}, last |-> {}]",
                id(meta.last)
            )),
            _ => None,
        };
        let received = |is: &dyn Fn(&Message) -> bool| match input {
            Input::Receive(envelope) => is(&envelope.message),
            _ => false,
        };
        let persisted = match input {
            Input::Persisted(token) => Some(*token),
            _ => None,
        };
        Before {
            role: node.role(),
            term: node.term(),
            last: node.log().last(),
            commit: node.commit(),
            base: node.log().base().index,
            snapshot: snapshot(node),
            line,
            is_timeout: matches!(input, Input::Timeout),
            is_led: node.role() == Role::Follower && node.leader().is_some(),
            contact,
            persisted,
            installs,
            takes_over: received(&|message| *message == Message::TimeoutNow),
            is_removed: received(&|message| *message == Message::Removed),
        }
    }

    /// Writes down what the node made of it. `sent` is what it gave out, in order, whether it has left already or waits for a write.
    pub(super) fn after(
        &self,
        replica: &Replica,
        before: Before,
        sent: &[Envelope],
        out: &[Output],
    ) {
        let node = replica.node();
        let at = node.id().0;
        let mut shared = self.shared.borrow_mut();
        let Lines { lines, nodes, rounds } = &mut *shared;
        let (role, term) = (node.role(), node.term());
        lines.extend(before.line);
        if let Some(token) = before.persisted {
            lines.push(format!("[e |-> \"persist\", n |-> {at}, token |-> {}]", token.0));
        }
        if before.is_timeout {
            let asks = |output: &Output| {
                matches!(output, Output::Trace(TraceEvent::PreVoteStarted { .. }))
            };
            let event = if out.iter().any(asks) {
                Some("prevote")
            } else {
                (before.is_led && node.leader().is_none()).then_some("wait")
            };
            let contact = boolean(before.contact);
            lines
                .extend(event.map(|event| {
                    format!("[e |-> \"{event}\", n |-> {at}, contact |-> {contact}]")
                }));
        }
        let campaigns =
            role == Role::Candidate && (before.role != Role::Candidate || term > before.term);
        if campaigns {
            let event = if before.takes_over { "takeover" } else { "campaign" };
            lines.push(format!("[e |-> \"{event}\", n |-> {at}]"));
        }
        let mut last = before.last.index;
        if role == Role::Leader && before.role != Role::Leader {
            last = node.term_start().expect("it leads");
            let first = &entries(node, last, last)[0];
            lines.push(format!("[e |-> \"lead\", n |-> {at}, entry |-> {}]", entry(first)));
        }
        let log = node.log();
        if !before.installs && log.base().index > before.base {
            let base = log.base().index;
            lines.push(format!("[e |-> \"compact\", n |-> {at}, index |-> {base}]"));
        }
        // A leader may commit, and give up because of what that says, in one step.
        let led = before.role == Role::Leader && term == before.term;
        if role == Role::Leader || led {
            if node.commit() > before.commit {
                let commit = node.commit();
                lines.push(format!("[e |-> \"commit\", n |-> {at}, index |-> {commit}]"));
            }
            for appended in entries(node, last.next(), log.last().index) {
                let appended = entry(&appended);
                lines.push(format!("[e |-> \"append\", n |-> {at}, entry |-> {appended}]"));
            }
        }
        if !before.installs && snapshot(node) > before.snapshot {
            let index = snapshot(node);
            lines.push(format!("[e |-> \"snapshot\", n |-> {at}, index |-> {index}]"));
        }
        nodes.extend(node.membership().members().map(|(node, _)| node));
        for envelope in sent {
            if let Message::Heartbeat { round, .. } = envelope.message {
                let known = rounds.entry(node.id()).or_default();
                if known.0 != envelope.term {
                    *known = (envelope.term, 0);
                }
                for _ in known.1..round {
                    lines.push(format!("[e |-> \"round\", n |-> {at}]"));
                }
                known.1 = known.1.max(round);
            }
            lines.extend(
                visible(envelope).map(|m| format!("[e |-> \"send\", n |-> {at}, m |-> {m}]")),
            );
        }
        if led && role != Role::Leader && !before.is_removed {
            lines.push(format!("[e |-> \"stepdown\", n |-> {at}]"));
        }
        for output in out {
            if let Output::Persist(batch) = output {
                let token = batch.token.0;
                lines.push(format!("[e |-> \"batch\", n |-> {at}, token |-> {token}]"));
            }
        }
        lines.push(format!(
            "[e |-> \"state\", n |-> {at}, role |-> \"{role:?}\", term |-> {term}, vote |-> {}, leader |-> {}, \
             commit |-> {}, last |-> {}, base |-> {}, config |-> {}]",
            name(node.hard_state().voted_for),
            name(node.leader()),
            node.commit(),
            id(log.last()),
            log.base().index,
            config(node.membership()),
        ));
    }
}

fn snapshot(node: &RaftNode) -> LogIndex {
    node.log().snapshot().map_or(LogIndex::ZERO, |meta| meta.last.index)
}

/// A leader's newest entries, which are in memory.
fn entries(node: &RaftNode, first: LogIndex, last: LogIndex) -> Vec<Entry> {
    if first > last {
        return Vec::new();
    }
    let run = node.log().peek(first, last).expect("the newest entries are in memory");
    run.cloned().collect()
}

// Values as TLA+ writes them.

fn boolean(value: bool) -> &'static str {
    if value { "TRUE" } else { "FALSE" }
}

fn name(node: Option<NodeId>) -> u64 {
    node.map_or(0, |node| node.0)
}

fn id(entry: EntryId) -> String {
    format!("<<{}, {}>>", entry.term, entry.index)
}

fn set(nodes: impl Iterator<Item = NodeId>) -> String {
    let names: Vec<_> = nodes.map(|node| node.0.to_string()).collect();
    format!("{{{}}}", names.join(", "))
}

fn config(membership: &Membership) -> String {
    let out = if membership.is_joint() { set(membership.outgoing()) } else { "{}".to_owned() };
    let (incoming, learners) = (set(membership.incoming()), set(membership.learners()));
    format!("[in |-> {incoming}, out |-> {out}, learners |-> {learners}]")
}

fn entry(entry: &Entry) -> String {
    let config = match &entry.payload {
        Payload::Membership(membership) => config(membership),
        Payload::Noop | Payload::Command(_) => "U".to_owned(),
    };
    format!("[t |-> {}, c |-> {config}]", entry.id.term)
}

/// A message with what the specification knows of it.
fn visible(envelope: &Envelope) -> Option<String> {
    let (kind, more) = match &envelope.message {
        Message::PreVote { term, last } => {
            ("PreVote", format!(", asked |-> {term}, last |-> {}", id(*last)))
        }
        Message::PreVoteReply { term, granted } => {
            ("PreVoteReply", format!(", asked |-> {term}, granted |-> {}", boolean(*granted)))
        }
        Message::Vote { last, transfer } => {
            ("Vote", format!(", last |-> {}, transfer |-> {}", id(*last), boolean(*transfer)))
        }
        Message::VoteReply { granted } => {
            ("VoteReply", format!(", granted |-> {}", boolean(*granted)))
        }
        Message::Append { previous, entries, commit } => {
            let entries: Vec<_> = entries.iter().map(entry).collect();
            let (previous, entries) = (id(*previous), entries.join(", "));
            (
                "Append",
                format!(
                    ", previous |-> {previous}, entries |-> <<{entries}>>, commit |-> {commit}"
                ),
            )
        }
        Message::AppendAccepted { matched } => ("Accepted", format!(", matched |-> {matched}")),
        Message::AppendRejected { rejected, .. } => {
            ("Rejected", format!(", rejected |-> {rejected}"))
        }
        Message::Heartbeat { commit, round } => {
            ("Heartbeat", format!(", commit |-> {commit}, round |-> {round}"))
        }
        Message::HeartbeatReply { round, .. } => ("HeartbeatReply", format!(", round |-> {round}")),
        Message::SnapshotChunk { meta, .. } => {
            ("Snapshot", format!(", last |-> {}", id(meta.last)))
        }
        Message::SnapshotAck { last, installed: true, .. } => {
            ("SnapshotAck", format!(", last |-> {}, installed |-> TRUE", id(*last)))
        }
        Message::SnapshotAck { installed: false, .. }
        | Message::ReadIndex { .. }
        | Message::ReadIndexReply { .. }
        | Message::FetchEntries { .. }
        | Message::FetchedEntries { .. } => ("Other", String::new()),
        Message::TimeoutNow => ("TimeoutNow", String::new()),
        Message::Removed => ("Removed", String::new()),
        // No directory is lost in the specification, and nobody is quiet.
        Message::WrongStore { .. }
        | Message::Quiet { .. }
        | Message::QuietAgreed { .. }
        | Message::NodeAlive { .. } => return None,
    };
    let Envelope { from, to, term, .. } = envelope;
    Some(format!(
        "[type |-> \"{kind}\", from |-> {}, to |-> {}, term |-> {term}{more}]",
        from.0, to.0
    ))
}
