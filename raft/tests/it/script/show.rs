//! How nodes, messages and entries look in golden output: `n1` for a node, `3@2` for the entry of term 2 at index 3, `Vote@2` for a
//! message of a sender in term 2.

use raft_consensus::effects::{Effect, PersistBatch, Rejection};
use raft_consensus::membership::{Membership, Standing};
use raft_consensus::message::{Envelope, Message, ReadId};
use raft_consensus::progress::{Progress, ProgressState};
use raft_consensus::raft_node::{RaftNode, Role};
use raft_consensus::trace::TraceEvent;
use raft_consensus::types::{Entry, NodeId, Payload};

/// A line of output.
#[derive(Clone, Debug)]
pub(crate) struct Line {
    pub(crate) text: String,
    /// It is about a message or a write, which `stabilize` leaves out.
    pub(crate) is_message: bool,
    /// It says that somebody leads.
    pub(crate) is_election: bool,
}

impl Line {
    pub(crate) fn state(text: String) -> Self {
        Self { text, is_message: false, is_election: false }
    }

    pub(crate) fn message(text: String) -> Self {
        Self { is_message: true, ..Self::state(text) }
    }

    pub(crate) fn indented(mut self) -> Self {
        self.text.insert_str(0, "  ");
        self
    }
}

/// `n1`
pub(crate) fn node(id: NodeId) -> String {
    format!("n{}", id.0)
}

fn or_nobody(id: Option<NodeId>) -> String {
    id.map_or_else(|| "nobody".to_owned(), node)
}

/// `{n1 n2 n3?}`: a node that is not bound to a store has a question mark, one on another store than its first the store.
/// Learners are `n4~`, with `^` if they are promoted by themselves; voters that enter `n4+`, that leave `n3-`, that become learners `n3-~`.
pub(crate) fn membership(membership: &Membership) -> String {
    let members = membership.members().map(|(id, member)| {
        let sign = match member.standing {
            Standing::Voter => "",
            Standing::Learner if member.promote_when_ready => "~^",
            Standing::Learner => "~",
            Standing::Entering => "+",
            Standing::Leaving => "-",
            Standing::Demoted => "-~",
        };
        match member.store {
            None => format!("{}{sign}?", node(id)),
            Some(store) if store.0 == u128::from(id.0) => format!("{}{sign}", node(id)),
            Some(store) => format!("{}{sign}:s{}", node(id), store.0),
        }
    });
    format!("{{{}}}", members.collect::<Vec<_>>().join(" "))
}

/// `3@2"x"`, `1@1{n1 n2}`, or `2@2` for an entry without content, and for one of a given log, whose command is its name.
pub(crate) fn entry(entry: &Entry) -> String {
    let id = entry.id;
    match &entry.payload {
        Payload::Noop => format!("{id}"),
        Payload::Command(command) if *command == id.to_string() => format!("{id}"),
        Payload::Command(command) => format!("{id}\"{}\"", String::from_utf8_lossy(command)),
        Payload::Membership(members) => format!("{id}{}", membership(members)),
    }
}

fn entries(list: &[Entry]) -> String {
    format!("[{}]", list.iter().map(entry).collect::<Vec<_>>().join(" "))
}

fn read(id: ReadId) -> String {
    format!("{}.{}.{}", node(id.node), id.boot, id.counter)
}

/// The message's name, as filters have it.
pub(crate) fn kind(message: &Message) -> &'static str {
    match message {
        Message::PreVote { .. } => "PreVote",
        Message::PreVoteReply { .. } => "PreVoteReply",
        Message::Vote { .. } => "Vote",
        Message::VoteReply { .. } => "VoteReply",
        Message::Append { .. } => "Append",
        Message::AppendAccepted { .. } => "AppendAccepted",
        Message::AppendRejected { .. } => "AppendRejected",
        Message::Heartbeat { .. } => "Heartbeat",
        Message::HeartbeatReply { .. } => "HeartbeatReply",
        Message::ReadIndex { .. } => "ReadIndex",
        Message::ReadIndexReply { .. } => "ReadIndexReply",
        Message::SnapshotChunk { .. } => "SnapshotChunk",
        Message::SnapshotAck { .. } => "SnapshotAck",
        Message::TimeoutNow => "TimeoutNow",
        Message::Removed => "Removed",
        Message::FetchEntries { .. } => "FetchEntries",
        Message::FetchedEntries { .. } => "FetchedEntries",
        Message::WrongStore { .. } => "WrongStore",
        Message::Quiet { .. } => "Quiet",
        Message::QuietAgreed { .. } => "QuietAgreed",
        Message::NodeAlive { .. } => "NodeAlive",
    }
}

/// `Vote@2`
pub(crate) fn name(envelope: &Envelope) -> String {
    format!("{}@{}", kind(&envelope.message), envelope.term)
}

/// `n1 → n2 Vote@2 last=3@1`
pub(crate) fn envelope(envelope: &Envelope) -> String {
    let (from, to) = (node(envelope.from), node(envelope.to));
    format!("{from} → {to} {}{}", name(envelope), details(&envelope.message))
}

fn details(message: &Message) -> String {
    match message {
        Message::PreVote { term, last } => format!(" for={term} last={last}"),
        Message::PreVoteReply { term, granted } => format!(" for={term} {}", yes_or_no(*granted)),
        Message::Vote { last, transfer: true } => format!(" last={last} transfer"),
        Message::Vote { last, transfer: false } => format!(" last={last}"),
        Message::VoteReply { granted } => format!(" {}", yes_or_no(*granted)),
        Message::Append { previous, entries: list, commit } => {
            format!(" after={previous} {} commit={commit}", entries(list))
        }
        Message::AppendAccepted { matched } => format!(" matched={matched}"),
        Message::AppendRejected { rejected, hint } => format!(" rejected={rejected} hint={hint}"),
        Message::Heartbeat { commit, round } => format!(" commit={commit} round={round}"),
        Message::HeartbeatReply { round, is_damaged } => {
            format!(" round={round}{}", if *is_damaged { " damaged" } else { "" })
        }
        Message::ReadIndex { id } => format!(" {}", read(*id)),
        Message::ReadIndexReply { id, index: Some(index) } => {
            format!(" {} index={index}", read(*id))
        }
        Message::ReadIndexReply { id, index: None } => format!(" {} unconfirmed", read(*id)),
        Message::SnapshotChunk { meta, offset, data } => {
            format!(
                " last={} bytes={offset}..{} of {}",
                meta.last,
                offset + data.len() as u64,
                meta.size
            )
        }
        Message::SnapshotAck { last, installed: true, .. } => format!(" last={last} installed"),
        Message::SnapshotAck { last, offset, .. } => format!(" last={last} wants={offset}"),
        Message::Quiet { last, .. } | Message::QuietAgreed { last } => format!(" last={last}"),
        Message::NodeAlive { epoch } => format!(" epoch={}.{}", epoch.boot, epoch.count),
        Message::TimeoutNow | Message::Removed => String::new(),
        Message::FetchEntries { first, through, joint: Some(joint), .. } => {
            format!(" {first}..{through} joint={joint}")
        }
        Message::FetchEntries { first, through, joint: None, .. } => {
            format!(" {first}..{through} without a joint")
        }
        Message::FetchedEntries { entries: list, holds_joint, last, .. } => {
            format!(" {} joint={} last={last}", entries(list), yes_or_no(*holds_joint))
        }
        Message::WrongStore { bound } => format!(" bound=s{}", bound.0),
    }
}

fn yes_or_no(granted: bool) -> &'static str {
    if granted { "yes" } else { "no" }
}

/// What an effect has to say, if anything; messages are told when they leave.
pub(crate) fn effect(id: NodeId, effect: &Effect, commands: &[String]) -> Option<Line> {
    let me = node(id);
    let command = |number: u64| {
        let place = usize::try_from(number).expect("scripts are short");
        commands.get(place).cloned().unwrap_or_default()
    };
    let text = match effect {
        Effect::Persist(batch) => return Some(Line::message(format!("{me} {}", write(batch)))),
        Effect::Trace(event) => return trace(&me, event),
        Effect::RoleChanged { role, term, leader } => {
            let text = match (role, leader) {
                (Role::Follower, Some(leader)) => {
                    format!("follows {} in term {term}", node(*leader))
                }
                (Role::Leader, _) => format!("leads term {term}"),
                (role, _) => format!("is {role} in term {term}"),
            };
            let line = Line::state(format!("{me} {text}"));
            return Some(Line { is_election: *role == Role::Leader, ..line });
        }
        Effect::Apply(range) if range.start() == range.end() => {
            format!("{me} applies {}", range.end())
        }
        Effect::Apply(range) => format!("{me} applies {} to {}", range.start(), range.end()),
        Effect::Proposed { id, entry } => format!("{me} takes \"{}\" as {entry}", command(id.0)),
        Effect::Rejected { id, reason } => {
            format!("{me} refuses \"{}\": {}", command(id.0), rejection(*reason))
        }
        Effect::Ordered { id, entry } => format!("{me} takes \"{}\" as {entry}", command(id.0)),
        Effect::OrderDone { id } => format!("{me} has done \"{}\"", command(id.0)),
        Effect::OrderFailed { id, error } => {
            format!("{me} fails \"{}\": {error}", command(id.0))
        }
        Effect::ReadReady { id, index } => format!("{me} may serve {} at {index}", read(*id)),
        Effect::ReadFailed { id, leader } => {
            format!("{me} cannot serve {}, leader is {}", read(*id), or_nobody(*leader))
        }
        Effect::ReadEntries { to, from, through, .. } => {
            format!("{me} reads {from} to {through} from disk for {}", node(*to))
        }
        Effect::ReadForRepair { to, from, through, .. } if *to == id => {
            format!("{me} reads {from} to {through} from its own disk again")
        }
        Effect::ReadForRepair { to, from, through, .. } => {
            format!("{me} reads {from} to {through} from disk for {}", node(*to))
        }
        Effect::Restore(meta) => format!("{me} restores its machine through {}", meta.last),
        Effect::MembershipChanged(members) => format!("{me} has members {}", membership(members)),
        Effect::Fatal(error) => format!("{me} stops: {error:?}"),
        Effect::Send { .. }
        | Effect::ReadSnapshot { .. }
        | Effect::WriteSnapshot { .. }
        | Effect::Compact(_) => return None,
    };
    Some(Line::state(text))
}

fn write(batch: &PersistBatch) -> String {
    let mut parts = vec![format!("writes {}:", batch.token.0)];
    if let Some(hard_state) = batch.hard_state {
        let vote = or_nobody(hard_state.voted_for);
        parts.push(format!("term={} vote={vote}", hard_state.term));
    }
    if let Some(meta) = &batch.snapshot {
        let restart = if batch.restart_log { " restart" } else { "" };
        parts.push(format!("snapshot={}{restart}", meta.last));
    }
    if let Some(from) = batch.truncate_from {
        parts.push(format!("remove={from}.."));
    }
    if !batch.entries.is_empty() {
        parts.push(entries(&batch.entries));
    }
    if !batch.repaired.is_empty() {
        parts.push(format!("repair={}", entries(&batch.repaired)));
    }
    parts.join(" ")
}

fn rejection(reason: Rejection) -> String {
    match reason {
        Rejection::NotLeader { leader } => format!("leader is {}", or_nobody(leader)),
        Rejection::Transferring { to } => format!("{} is about to lead", node(to)),
        Rejection::Overloaded => "too much is uncommitted".to_owned(),
        Rejection::TooLarge { size, limit } => format!("{size} bytes are more than {limit}"),
    }
}

/// What a node tells about itself beside its effects.
fn trace(me: &str, event: &TraceEvent) -> Option<Line> {
    let text = match event {
        TraceEvent::VoteRefused { to, term, reason } => {
            format!("{me} refuses {} a vote for term {term}: {reason}", node(*to))
        }
        TraceEvent::QuorumLost { term } => format!("{me} has lost its quorum in term {term}"),
        TraceEvent::DiskSlow { term, to } => {
            format!("{me} offers term {term} to {to}, whose disk is faster")
        }
        TraceEvent::DiskStalled { term } => format!("{me} gives up term {term} to faster disks"),
        TraceEvent::Truncated { from } => format!("{me} removes {from} and what follows"),
        TraceEvent::Committed { index } => format!("{me} commits {index}"),
        TraceEvent::SnapshotNeeded { to, last } => {
            format!("{me} sends {} its snapshot through {last}", node(*to))
        }
        TraceEvent::SnapshotInstalled { last } => {
            format!("{me} installs the snapshot through {last}")
        }
        TraceEvent::Compacted { through } => format!("{me} drops its log through {through}"),
        TraceEvent::Bound { node: bound, store } => {
            format!("{me} binds {} to s{}", node(*bound), store.0)
        }
        TraceEvent::ChangeTakenBack { entry } => {
            format!("{me} takes back the change of voters with {entry}")
        }
        TraceEvent::TransferTimedOut { to } => {
            format!("{me} leads on: {} has not taken over", node(*to))
        }
        TraceEvent::FounderMissing { founder } => {
            format!("{me} waits for {}: all founders are needed", node(*founder))
        }
        TraceEvent::FounderRefuses { founder } => {
            format!("{me} is refused by {}: all founders are needed", node(*founder))
        }
        TraceEvent::Removed => format!("{me} is removed"),
        TraceEvent::DamageFound { first, last } => {
            format!("{me} finds entries {first} to {last} damaged")
        }
        TraceEvent::Repaired { first, last, by } if last < first => {
            format!("{me} drops damaged entries from {first} on, which {} never had", node(*by))
        }
        TraceEvent::Repaired { first, last, by } => {
            format!("{me} repairs {first} to {last} with what {} has", node(*by))
        }
        TraceEvent::DamageCovered { through } => {
            format!("{me} needs no repair through {through}: a snapshot has it")
        }
        TraceEvent::RepairOverdue { term } => {
            format!("{me} gives up term {term} to undamaged logs")
        }
        TraceEvent::Dropped { from, reason } => format!("{me} ignores {}: {reason}", node(*from)),
        _ => return None,
    };
    Some(Line::state(text))
}

/// `n1 leader term=2 log=..3@2 commit=3 applied=3`
pub(crate) fn status(id: NodeId, raft: Option<&RaftNode>) -> String {
    let Some(raft) = raft else { return format!("{} is down", node(id)) };
    let leader = raft.leader().filter(|&leader| leader != id);
    format!(
        "{} {} term={} vote={} leader={} last={} commit={} applied={}",
        node(id),
        raft.role(),
        raft.term(),
        or_nobody(raft.hard_state().voted_for),
        leader.map_or_else(
            || if raft.leader().is_some() { "itself".to_owned() } else { or_nobody(None) },
            node
        ),
        raft.log().last(),
        raft.commit(),
        raft.applied()
    )
}

/// `n2: replicates, matched=3 next=4`
pub(crate) fn progress(id: NodeId, progress: &Progress) -> String {
    let state = match &progress.state {
        ProgressState::Probe { .. } => "is probed".to_owned(),
        ProgressState::Replicate => "replicates".to_owned(),
        ProgressState::Snapshot { meta, offset, .. } => {
            format!("gets the snapshot through {} from byte {offset}", meta.last)
        }
    };
    format!("  {} {state}, matched={} next={}", node(id), progress.matched, progress.next)
}
