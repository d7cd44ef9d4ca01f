//! Raft's five safety properties (Raft, Figure 3), over a set of nodes.
//!
//! A [`SafetyChecker`] looks at all nodes from outside, after every event of a simulation. What it remembers from
//! one look to the next (who led which term, what was committed where, what was applied) outlives crashes, as the promises
//! must. Looking at what changed since the last time keeps a step cheap; [`SafetyChecker::check_all`] looks at everything.

use std::collections::BTreeMap;
use std::fmt;

use crate::membership::Membership;
use crate::raft_node::{RaftNode, Role};
use crate::types::{EntryId, LogIndex, NodeId, Term};

/// Which promise was broken, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// The property.
    pub property: Property,
    /// What was seen.
    pub detail: String,
}

/// The properties of Figure 3, and two that follow from them and are cheap to see.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Property {
    /// At most one leader can be elected in a given term.
    ElectionSafety,
    /// A leader never overwrites or deletes entries in its log; it only appends.
    LeaderAppendOnly,
    /// If two logs contain an entry with the same index and term, they are identical up to it.
    LogMatching,
    /// What is committed in a term is in the logs of the leaders of all later terms.
    LeaderCompleteness,
    /// No two servers apply different commands at the same index.
    StateMachineSafety,
    /// A node's term and commit index never fall while it runs, its term not even over a crash.
    Monotonic,
}

/// Remembers what was promised. Feed it every node that is up, after every event.
#[derive(Clone, Debug, Default)]
pub struct SafetyChecker {
    leaders: BTreeMap<Term, NodeId>,
    /// Every committed entry, in order.
    committed: Vec<CommittedEntry>,
    /// The digest of the command applied at each index.
    applied: BTreeMap<LogIndex, (u64, NodeId)>,
    /// Who the members are for a node whose log ends with this entry.
    members: BTreeMap<EntryId, Membership>,
    seen: BTreeMap<NodeId, Seen>,
}

/// An entry that is known to be committed.
#[derive(Clone, Copy, Debug)]
struct CommittedEntry {
    term: Term,
    /// Who first said so,
    by: NodeId,
    /// and in which term, which is that of its commitment or a later one.
    seen_in: Term,
}

/// A node as it was seen last.
#[derive(Clone, Debug)]
struct Seen {
    boot: u64,
    term: Term,
    role: Role,
    commit: LogIndex,
    last: EntryId,
}

impl SafetyChecker {
    /// A checker that has seen nothing.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Feeds what was promised, for the exhaustive check. What was seen of the nodes follows from their own state.
    #[cfg(feature = "sim")]
    pub(crate) fn digest(&self, into: &mut impl std::hash::Hasher) {
        use std::hash::Hash;
        let Self { leaders, committed, applied, members, seen: _ } = self;
        (leaders, members).hash(into);
        committed.len().hash(into);
        for CommittedEntry { term, by: _, seen_in } in committed {
            (term, seen_in).hash(into);
        }
        for (index, (digest, _)) in applied {
            (index, digest).hash(into);
        }
    }

    /// Feeds the rest: what the nodes were like when they were seen last.
    #[cfg(feature = "sim")]
    pub(crate) fn digest_of_seen(&self, into: &mut impl std::hash::Hasher) {
        use std::hash::Hash;
        for (node, Seen { boot, term, role, commit, last }) in &self.seen {
            (node, boot, term, role, commit, last).hash(into);
        }
        for by in self.committed.iter().map(|entry| entry.by) {
            by.hash(into);
        }
    }

    /// How many entries are known to be committed.
    #[must_use]
    pub fn committed(&self) -> LogIndex {
        LogIndex(self.committed.len() as u64)
    }

    /// Checks one node after something happened to it.
    pub fn check(&mut self, node: &RaftNode) -> Result<(), Violation> {
        self.check_monotonic(node)?;
        self.check_leader(node)?;
        self.check_committed(node)?;
        self.check_members(node)?;
        let seen = Seen {
            boot: node.config().boot,
            term: node.term(),
            role: node.role(),
            commit: node.commit(),
            last: node.log().last(),
        };
        self.seen.insert(node.id(), seen);
        Ok(())
    }

    /// Checks every pair of logs in full. Costs as much as the logs are long.
    pub fn check_all<'a>(
        &mut self,
        nodes: impl Iterator<Item = &'a RaftNode> + Clone,
    ) -> Result<(), Violation> {
        for node in nodes.clone() {
            self.check(node)?;
            self.check_committed_from(node, LogIndex::ZERO)?;
        }
        for (place, left) in nodes.clone().enumerate() {
            for right in nodes.clone().skip(place + 1) {
                check_log_matching(left, right)?;
            }
        }
        Ok(())
    }

    /// Checks one node's log against those of others.
    #[cfg(feature = "sim")]
    pub(crate) fn check_matching<'a>(
        &self,
        node: &RaftNode,
        others: impl Iterator<Item = &'a RaftNode>,
    ) -> Result<(), Violation> {
        others
            .filter(|other| other.id() != node.id())
            .try_for_each(|other| check_log_matching(node, other))
    }

    /// A state machine has applied a command, of which `digest` is a digest, at `index`.
    pub fn applied(&mut self, node: NodeId, index: LogIndex, digest: u64) -> Result<(), Violation> {
        let &mut (first, by) = self.applied.entry(index).or_insert((digest, node));
        if first == digest {
            return Ok(());
        }
        violation(
            Property::StateMachineSafety,
            format!("{by} and {node} applied different commands at index {index}"),
        )
    }

    fn check_monotonic(&self, node: &RaftNode) -> Result<(), Violation> {
        let Some(seen) = self.seen.get(&node.id()) else { return Ok(()) };
        if node.term() < seen.term && seen.boot == node.config().boot {
            let detail = format!("{} fell from term {} to {}", node.id(), seen.term, node.term());
            return violation(Property::Monotonic, detail);
        }
        if seen.boot == node.config().boot && node.commit() < seen.commit {
            let detail =
                format!("{} fell from commit {} to {}", node.id(), seen.commit, node.commit());
            return violation(Property::Monotonic, detail);
        }
        Ok(())
    }

    fn check_leader(&mut self, node: &RaftNode) -> Result<(), Violation> {
        if node.role() != Role::Leader {
            return Ok(());
        }
        let (id, term) = (node.id(), node.term());
        let first = *self.leaders.entry(term).or_insert(id);
        if first != id {
            let detail = format!("{first} and {id} both led term {term}");
            return violation(Property::ElectionSafety, detail);
        }
        let before = self.seen.get(&id).filter(|seen| {
            seen.role == Role::Leader && seen.term == term && seen.boot == node.config().boot
        });
        match before {
            Some(seen) if !node.log().contains(seen.last) => violation(
                Property::LeaderAppendOnly,
                format!("{id}, leader of term {term}, no longer has {}", seen.last),
            ),
            Some(_) => Ok(()),
            None => self.check_completeness(node),
        }
    }

    /// A new leader must have every entry that was committed in an earlier term. (Not those of later terms: votes that were long
    /// on their way can elect a leader of a term that is over.)
    fn check_completeness(&self, node: &RaftNode) -> Result<(), Violation> {
        let lacks = |place: usize| {
            let index = LogIndex(place as u64 + 1);
            let CommittedEntry { term, seen_in, .. } = self.committed[place];
            seen_in < node.term()
                && index > node.log().base().index
                && node.log().term_at(index) != Some(term)
        };
        match (0..self.committed.len()).rev().find(|&place| lacks(place)) {
            None => Ok(()),
            Some(place) => {
                let CommittedEntry { term: of, by, .. } = self.committed[place];
                let entry = EntryId::new(of, LogIndex(place as u64 + 1));
                let detail = format!(
                    "{} leads term {} without {entry}, which {by} saw committed",
                    node.id(),
                    node.term()
                );
                violation(Property::LeaderCompleteness, detail)
            }
        }
    }

    fn check_committed(&mut self, node: &RaftNode) -> Result<(), Violation> {
        let seen = self.seen.get(&node.id()).filter(|seen| seen.boot == node.config().boot);
        let from = seen.map_or(LogIndex::ZERO, |seen| seen.commit);
        self.check_committed_from(node, from)
    }

    /// Logs that end with the same entry are the same, and so are the members that they bring into force.
    fn check_members(&mut self, node: &RaftNode) -> Result<(), Violation> {
        let (last, members) = (node.log().last(), node.membership());
        // A node that is to join begins with nobody, founders with each other. And who lacks entries may lack those that
        // say who the members are: until it is repaired it does not campaign, and so counts nobody.
        if last == EntryId::ZERO || node.log().is_damaged() {
            return Ok(());
        }
        let known = self.members.entry(last).or_insert_with(|| members.clone());
        if known == members {
            return Ok(());
        }
        let detail = format!("{} has members {members:?} at {last}, others {known:?}", node.id());
        violation(Property::LogMatching, detail)
    }

    /// Two nodes never take different entries for committed at the same place; and what is committed stays.
    fn check_committed_from(&mut self, node: &RaftNode, from: LogIndex) -> Result<(), Violation> {
        let from = from.max(node.log().base().index);
        for index in from.0 + 1..=node.commit().0 {
            let Some(term) = node.log().term_at(LogIndex(index)) else { continue };
            let place = usize::try_from(index - 1).expect("simulated logs fit in memory");
            match self.committed.get(place) {
                Some(known) if known.term == term => {}
                Some(&CommittedEntry { term: of, by, .. }) => {
                    let index = LogIndex(index);
                    let (one, other) = (EntryId::new(of, index), EntryId::new(term, index));
                    let detail = format!("{by} committed {one}, {} {other}", node.id());
                    return violation(Property::StateMachineSafety, detail);
                }
                None if place == self.committed.len() => {
                    let (by, seen_in) = (node.id(), node.term());
                    self.committed.push(CommittedEntry { term, by, seen_in });
                }
                None => {
                    let detail = format!("{} committed {index} before what precedes it", node.id());
                    return violation(Property::StateMachineSafety, detail);
                }
            }
        }
        Ok(())
    }
}

/// Where two logs have the same entry, they are the same before it: so, from the last common entry down, all terms agree.
fn check_log_matching(left: &RaftNode, right: &RaftNode) -> Result<(), Violation> {
    let from = left.log().base().index.max(right.log().base().index);
    let through = left.log().last().index.min(right.log().last().index);
    let mut common = None;
    for index in (from.0..=through.0).rev().map(LogIndex) {
        let (Some(one), Some(other)) = (left.log().term_at(index), right.log().term_at(index))
        else {
            // Lost with its entry.
            continue;
        };
        let same = one == other;
        match common {
            None if same => common = Some(index),
            Some(common) if !same => {
                let detail = format!(
                    "{} and {} have the same entry at {common} and different ones at {index}",
                    left.id(),
                    right.id()
                );
                return violation(Property::LogMatching, detail);
            }
            None | Some(_) => {}
        }
    }
    Ok(())
}

fn violation<T>(property: Property, detail: String) -> Result<T, Violation> {
    Err(Violation { property, detail })
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {}", self.property, self.detail)
    }
}
