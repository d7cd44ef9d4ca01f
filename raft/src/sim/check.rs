//! What every run must hold, looked at after every event.
//!
//! - **Raft's five properties**, over all nodes: [`crate::invariants`]. For the node that moved after each event, for all of them in
//!   full every thousand events and in the end.
//! - **Promises.** What a node has told others binds it over crashes: its term never falls, and its vote in a term goes to one
//!   candidate.
//! - **Quorums.** What a majority is said to have done, it has done: `check/quorum.rs`.
//! - **One log.** Every machine applies the same entries in the same order, none before it is committed, and is in the same
//!   state after the same entry, however it came there.
//! - **Linearizability**, in linear time. Every operation that ended well names its place in the log: a write its entry, a read the last
//!   entry that it saw. An operation that began after another had ended must have a later place (a read may have the same). And all
//!   replies must be those of a machine that never failed and applies the log in order. Together that *is* a linearization: the
//!   order of the log.
//! - **Linearizability once more**, in the end: what the clients saw is searched for an order, key by key, as
//!   [`Workload::judge`] says. This knows neither the log nor any place in it, and so does not share the mistakes of the check
//!   above; see `docs/decisions/0028-two-checkers-of-histories.md`.
//! - **Outcomes.** An acknowledged write is the entry at its place. What was said to have no effect is nowhere in the log,
//!   and no operation is in it twice.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use lattice_sim::Address;
use lattice_sim::check::{History, Searched, Story};
use std::time::Duration;

use quorum::Quorums;

use super::client::Note;
use super::judge::ClientHistory;
use super::node::Doings;
use super::workload::{Operation, Workload, digest};
use crate::invariants::{self, SafetyChecker};
use crate::raft_node::RaftNode;
use crate::state_machine::{Committed, DurableStateMachine, Reply};
use crate::types::{EntryId, LogIndex, NodeId, SessionId, Term};

mod quorum;

type Checked = Result<(), lattice_sim::Violation>;
type OperationId = (Address, u64);

/// Which of the two checks of linearizability are made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Oracle {
    /// Both.
    #[default]
    Both,
    /// The one by places in the log, after every event.
    Places,
    /// The one that searches, in the end.
    Search,
}

impl std::str::FromStr for Oracle {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        match name {
            "both" => Ok(Self::Both),
            "places" => Ok(Self::Places),
            "search" => Ok(Self::Search),
            _ => Err(format!("no oracle is called {name}; there are both, places, search")),
        }
    }
}

/// All checks of one run, and what they remember.
pub(super) struct Checker<W: Workload> {
    workload: W,
    safety: SafetyChecker,
    told: BTreeMap<NodeId, (Term, Option<NodeId>)>,
    quorums: Quorums,
    /// The log, as machines applied it, and the replies of one that never failed.
    log: Vec<Committed>,
    replies: Vec<Option<Result<Bytes, String>>>,
    model: W::Machine,
    /// Digests of the state after an entry.
    states: BTreeMap<LogIndex, u64>,
    open: BTreeMap<OperationId, Open>,
    /// The places of operations in the log.
    places: BTreeMap<OperationId, LogIndex>,
    failed: BTreeSet<OperationId>,
    /// The latest place of any operation that has ended well.
    floor: LogIndex,
    reads: Vec<(LogIndex, Bytes, Result<Bytes, String>)>,
    done: u64,
    oracle: Oracle,
    /// What the clients saw.
    history: ClientHistory,
    searched: Searched,
}

/// An operation that has begun.
struct Open {
    wanted: Operation,
    /// Its number in the history.
    number: usize,
    /// The latest place of those that had ended before.
    floor: LogIndex,
}

impl<W: Workload> Checker<W> {
    pub(super) fn new(workload: W, oracle: Oracle) -> Self {
        Self {
            model: workload.machine(),
            workload,
            safety: SafetyChecker::new(),
            told: BTreeMap::new(),
            quorums: Quorums::default(),
            log: Vec::new(),
            replies: Vec::new(),
            states: BTreeMap::new(),
            open: BTreeMap::new(),
            places: BTreeMap::new(),
            failed: BTreeSet::new(),
            floor: LogIndex::ZERO,
            reads: Vec::new(),
            done: 0,
            oracle,
            history: History::new(),
            searched: Searched::default(),
        }
    }

    /// Operations that ended well.
    pub(super) fn done(&self) -> u64 {
        self.done
    }

    /// The latest place of an operation that has ended well.
    pub(super) fn acknowledged(&self) -> LogIndex {
        self.floor
    }

    /// The state after the last entry that was applied anywhere.
    pub(super) fn model_state(&self) -> (EntryId, u64) {
        let state = super::node::state_digest(&self.model);
        (self.model.applied(), state.expect("the machines of simulations can be viewed"))
    }

    // Nodes.

    pub(super) fn node(&mut self, node: &RaftNode, doings: &Doings) -> Checked {
        for &(term, vote) in &doings.told {
            self.promise(node.id(), term, vote)?;
            if let Some(candidate) = vote {
                self.quorums.voted(node.id(), term, candidate);
            }
        }
        self.safety.check(node).map_err(violation_of)?;
        let quorums = |detail| lattice_sim::Violation::new("quorums", detail);
        for &(to, last) in &doings.asked_to_lead {
            self.quorums.asked_to_lead(to, last).map_err(quorums)?;
        }
        self.quorums.check(node).map_err(quorums)?;
        if let Some((matched, sound)) = doings.unsound {
            let detail = format!("{} acknowledges {matched}, intact up to {sound}", node.id());
            return violation("promises", detail);
        }
        for committed in &doings.applied {
            self.applied(node.id(), committed)?;
        }
        Ok(())
    }

    /// The states in which machines were seen, those of nodes that are still starting too.
    pub(super) fn states(&mut self, node: NodeId, doings: &Doings) -> Checked {
        for &(at, state) in &doings.states {
            let known = *self.states.entry(at.index).or_insert(state);
            if known != state {
                return violation("one log", format!("{node} is in another state at {at}"));
            }
        }
        Ok(())
    }

    pub(super) fn all<'a>(&mut self, nodes: impl Iterator<Item = &'a RaftNode> + Clone) -> Checked {
        self.safety.check_all(nodes).map_err(violation_of)
    }

    /// The node has lost its disk, and with it what it has promised.
    pub(super) fn forget(&mut self, node: NodeId) {
        self.told.remove(&node);
        self.quorums.forget(node);
    }

    fn promise(&mut self, node: NodeId, term: Term, vote: Option<NodeId>) -> Checked {
        let (told, voted) = self.told.entry(node).or_default();
        if term < *told {
            let detail = format!("{node} speaks in term {term} after it did in term {told}");
            return violation("promises", detail);
        }
        if term > *told {
            (*told, *voted) = (term, None);
        }
        match (vote, *voted) {
            (Some(candidate), Some(before)) if candidate != before => {
                let detail = format!("{node} voted for {before} and {candidate} in term {term}");
                violation("promises", detail)
            }
            (Some(_), _) => {
                *voted = vote;
                Ok(())
            }
            (None, _) => Ok(()),
        }
    }

    fn applied(&mut self, node: NodeId, entry: &Committed) -> Checked {
        let index = entry.id.index;
        let mut digested = digest(entry.id.term.0, entry.command.as_deref().unwrap_or_default());
        digested ^= u64::from(entry.command.is_some());
        self.safety.applied(node, index, digested).map_err(violation_of)?;
        if index > self.safety.committed() {
            let detail = format!("{node} applied {} before it was committed", entry.id);
            return violation("one log", detail);
        }
        let length = LogIndex(self.log.len() as u64);
        if index <= length {
            return Ok(());
        }
        if index != length.next() {
            let detail = format!("{node} applied {} and nobody what precedes it", entry.id);
            return violation("one log", detail);
        }
        self.place(entry)?;
        let mut replies = Vec::new();
        let applied = self.model.apply(std::slice::from_ref(entry), &mut replies);
        applied.map_err(|error| lattice_sim::Violation::new("no failure", error.to_string()))?;
        self.replies.push(replies.pop().map(text_of));
        self.log.push(entry.clone());
        Ok(())
    }

    /// The entry is new in the log: no operation may be in it twice, or after it failed.
    fn place(&mut self, entry: &Committed) -> Checked {
        let Some(SessionId { session, sequence }) = entry.session else { return Ok(()) };
        let operation = (Address(session), sequence);
        if self.failed.contains(&operation) {
            return violation(
                "outcomes",
                format!("{} was said to have no effect", name(operation)),
            );
        }
        if self.workload.retries() {
            // It takes effect at the first of its places.
            self.places.entry(operation).or_insert(entry.id.index);
            return Ok(());
        }
        match self.places.insert(operation, entry.id.index) {
            Some(before) => {
                let detail = format!("{} is at {before} and at {}", name(operation), entry.id);
                violation("outcomes", detail)
            }
            None => Ok(()),
        }
    }

    // Clients.

    pub(super) fn client(&mut self, client: Address, at: Duration, notes: &[Note]) -> Checked {
        for note in notes {
            self.record(client, at, note);
            match note {
                Note::Invoked { .. } => {}
                Note::Done { operation, index, reply } => {
                    self.ended((client, *operation), *index, reply)?;
                }
                Note::Failed { operation } => self.without_effect((client, *operation))?,
                Note::Unknown { operation } => {
                    self.open.remove(&(client, *operation));
                }
            }
        }
        Ok(())
    }

    /// Notes what the client saw, before anything is thought about it.
    fn record(&mut self, client: Address, at: Duration, note: &Note) {
        let number = |operation: &u64| {
            self.open.get(&(client, *operation)).expect("what ends has begun").number
        };
        match note {
            Note::Invoked { operation, wanted } => {
                let number = self.history.call(client.0, at, wanted.clone());
                let open = Open { wanted: wanted.clone(), number, floor: self.floor };
                self.open.insert((client, *operation), open);
            }
            Note::Done { operation, reply, .. } => {
                self.history.done(number(operation), at, reply.clone());
            }
            Note::Failed { operation } => self.history.no_effect(number(operation), at),
            Note::Unknown { operation } => self.history.gave_up(number(operation), at),
        }
    }

    /// How many histories were searched.
    pub(super) fn searched(&self) -> Searched {
        self.searched
    }

    /// What the clients saw of a violation.
    pub(super) fn story(&self) -> Story {
        let judgement = self.workload.judge(&self.history);
        let story = judgement.violation.or_else(|| self.workload.story(&self.history));
        story.unwrap_or_default()
    }

    /// Searches what the clients saw for an order.
    pub(super) fn judge(&mut self) -> Checked {
        if self.oracle == Oracle::Places {
            return Ok(());
        }
        let judgement = self.workload.judge(&self.history);
        self.searched = judgement.searched;
        match judgement.violation {
            Some(story) => violation("linearizability, by search", story.sentence),
            None => Ok(()),
        }
    }

    fn ended(
        &mut self,
        operation: OperationId,
        index: LogIndex,
        reply: &Result<Bytes, String>,
    ) -> Checked {
        let Open { wanted, floor, .. } = self.open.remove(&operation).expect("what ends has begun");
        let place = self.places.get(&operation).filter(|_| self.workload.retries());
        let index = place.copied().unwrap_or(index);
        self.done += 1;
        self.floor = self.floor.max(index);
        if self.oracle == Oracle::Search {
            return Ok(());
        }
        match wanted {
            Operation::Read(query) => {
                if index < floor {
                    let detail = format!(
                        "{} read as of {index} after another had seen {floor}",
                        name(operation)
                    );
                    return violation("linearizability", detail);
                }
                self.reads.push((index, query, reply.clone()));
                Ok(())
            }
            Operation::Write(_) => {
                if index <= floor {
                    let detail =
                        format!("{} is at {index}, and began after {floor}", name(operation));
                    return violation("linearizability", detail);
                }
                if self.places.get(&operation) != Some(&index) {
                    let detail =
                        format!("{} was acknowledged and is not at {index}", name(operation));
                    return violation("acknowledged writes are kept", detail);
                }
                let place = usize::try_from(index.0 - 1).expect("the log is in memory");
                if self.replies[place].as_ref() != Some(reply) {
                    let detail = format!(
                        "{} at {index}: {reply:?} instead of {:?}",
                        name(operation),
                        self.replies[place]
                    );
                    return violation("linearizability", detail);
                }
                Ok(())
            }
        }
    }

    fn without_effect(&mut self, operation: OperationId) -> Checked {
        if let Some(Open { wanted: Operation::Write(_), .. }) = self.open.remove(&operation) {
            if let Some(index) = self.places.get(&operation) {
                let detail = format!("{} failed, and is in the log at {index}", name(operation));
                return violation("outcomes", detail);
            }
            self.failed.insert(operation);
        }
        Ok(())
    }

    /// Replays the log and looks at every read again.
    pub(super) fn replay(&mut self) -> Checked {
        if self.oracle == Oracle::Search {
            return Ok(());
        }
        self.reads.sort_by_key(|(index, ..)| *index);
        let mut machine = self.workload.machine();
        let reader = machine.reader();
        let mut reads = self.reads.iter().peekable();
        let mut replies = Vec::new();
        // Place zero is the empty machine.
        for place in 0..=self.log.len() {
            if let Some(entry) = place.checked_sub(1).map(|place| &self.log[place]) {
                let applied = machine.apply(std::slice::from_ref(entry), &mut replies);
                applied.map_err(|error| {
                    lattice_sim::Violation::new("no failure", error.to_string())
                })?;
                replies.clear();
            }
            let here = LogIndex(place as u64);
            while let Some((_, query, reply)) = reads.next_if(|(index, ..)| *index == here) {
                let expected = self.workload.read(&reader, query);
                if reply.as_deref() != Ok(expected.as_slice()) {
                    let detail =
                        format!("a read as of {here} said {reply:?} instead of {expected:?}");
                    return violation("linearizability", detail);
                }
            }
        }
        if let Some((index, ..)) = reads.next() {
            return violation("linearizability", format!("a read as of {index}, beyond the log"));
        }
        self.workload
            .check(&reader)
            .map_err(|detail| lattice_sim::Violation::new("the workload's own check", detail))
    }
}

fn text_of(reply: Reply) -> Result<Bytes, String> {
    reply.map_err(|refusal| refusal.to_string())
}

fn name((client, number): OperationId) -> String {
    format!("operation {number} of client {}", client.0)
}

fn violation(property: &str, detail: String) -> Checked {
    Err(lattice_sim::Violation::new(property, detail))
}

fn violation_of(violation: invariants::Violation) -> lattice_sim::Violation {
    lattice_sim::Violation::new(format!("{:?}", violation.property), violation.detail)
}
