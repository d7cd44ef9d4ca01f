//! What a majority is said to have done, it has done: checked from outside, over everything that nodes have sent and written.
//!
//! - Who leads has been told by a majority of the voters in force in its log, in both halves of a joint membership, that it has
//!   their votes.
//! - What a leader commits by counting is on the disks of a majority of them, or was until a disk was lost.
//! - A leader leaves a joint membership for the new voters only when it knows that one to be committed.
//! - Who is asked to take over has the asking leader's whole log on its disk.

use std::collections::{BTreeMap, BTreeSet};

use crate::membership::Membership;
use crate::quorum::Tally;
use crate::raft_node::{RaftNode, Role};
use crate::types::{EntryId, LogIndex, NodeId, Term};

/// What was seen of all nodes.
#[derive(Debug, Default)]
pub(super) struct Quorums {
    votes: BTreeMap<(Term, NodeId), BTreeSet<NodeId>>,
    /// How far each node's log was durable when it was last up.
    durable: BTreeMap<NodeId, LogIndex>,
    /// How far the log was durable that a node had on a disk that was lost: what it has acknowledged of it may still be on its way.
    lost: BTreeMap<NodeId, LogIndex>,
    /// What each leader had committed when it was last looked at.
    led: BTreeMap<(Term, NodeId), LogIndex>,
}

impl Quorums {
    pub(super) fn voted(&mut self, voter: NodeId, term: Term, candidate: NodeId) {
        self.votes.entry((term, candidate)).or_default().insert(voter);
    }

    /// The node has lost its disk.
    pub(super) fn forget(&mut self, node: NodeId) {
        let durable = self.durable.remove(&node).unwrap_or_default();
        let lost = self.lost.entry(node).or_default();
        *lost = durable.max(*lost);
    }

    pub(super) fn check(&mut self, raft: &RaftNode) -> Result<(), String> {
        let (id, term, commit) = (raft.id(), raft.term(), raft.commit());
        self.durable.insert(id, raft.log().durable());
        if raft.role() != Role::Leader {
            return Ok(());
        }
        check_leaving(raft)?;
        let before = self.led.insert((term, id), commit);
        if before.is_none() {
            self.check_votes(raft)?;
        }
        let by_counting = raft.log().term_at(commit) == Some(term);
        if before.is_none_or(|before| commit > before) && by_counting {
            self.check_commit(raft)?;
        }
        Ok(())
    }

    fn check_votes(&self, raft: &RaftNode) -> Result<(), String> {
        let (id, term) = (raft.id(), raft.term());
        let start = raft.term_start().expect("it leads");
        let members = raft.membership_at(start.previous());
        let votes = self.votes.get(&(term, id));
        let has_voted =
            |node| node == id || votes.is_some_and(|votes: &BTreeSet<_>| votes.contains(&node));
        if members.tally(|node| has_voted(node).then_some(true)) == Tally::Won {
            return Ok(());
        }
        Err(format!("{id} leads term {term} with the votes of {votes:?} among {members:?}"))
    }

    /// By the members in force at the entry, or by those that the leader's log ends with: the change between them may have come in the same
    /// step.
    fn check_commit(&self, raft: &RaftNode) -> Result<(), String> {
        let (id, commit) = (raft.id(), raft.commit());
        let is_on_quorum = |members: &Membership| {
            let durable = |node| {
                let logs = [self.durable.get(&node), self.lost.get(&node)];
                logs.into_iter().flatten().copied().max().unwrap_or_default()
            };
            members.reached(durable).is_some_and(|reached| reached >= commit)
        };
        let (then, now) = (raft.membership_at(commit), raft.membership());
        if is_on_quorum(then) || is_on_quorum(now) {
            return Ok(());
        }
        let durable = &self.durable;
        Err(format!("{id} committed {commit}, which is not on a majority of {now:?}: {durable:?}"))
    }

    pub(super) fn asked_to_lead(&self, to: NodeId, last: EntryId) -> Result<(), String> {
        match self.durable.get(&to) {
            Some(durable) if *durable >= last.index => Ok(()),
            durable => {
                Err(format!("{to} was asked to lead with {durable:?} of a log up to {last}"))
            }
        }
    }
}

/// Looks at what a leader has put behind what it knows to be committed.
fn check_leaving(raft: &RaftNode) -> Result<(), String> {
    let (commit, last) = (raft.commit(), raft.log().last().index);
    if raft.membership_at(commit) == raft.membership() {
        return Ok(());
    }
    let is_change =
        |&index: &LogIndex| raft.membership_at(index) != raft.membership_at(index.previous());
    let changes: Vec<_> = (commit.0 + 1..=last.0).map(LogIndex).filter(is_change).collect();
    for change in changes.windows(2) {
        let (joint, left) = (raft.membership_at(change[0]), raft.membership_at(change[1]));
        let before = raft.membership_at(change[0].previous());
        let is_left = joint.is_joint() && !left.is_joint() && *left != joint.cancelled(before);
        if is_left && raft.log().term_at(change[1]) == Some(raft.term()) {
            let (id, joint) = (raft.id(), change[0]);
            return Err(format!("{id} has left the joint membership at {joint}, not committed"));
        }
    }
    Ok(())
}
