//! Who the members are, which data directory each one is bound to, and what makes a majority of them.
//!
//! A membership is in force from the moment its entry is in the log, committed or not, and is rolled back with it
//! (Raft thesis §4.1); see `raft_node/membership.rs`. This module is the value; its encoding and the rules by which one value follows from
//! another are in its children.
//!
//! **Joint consensus** (Raft §6, thesis §4.3). Voters never change in one step: in between stands a *joint* membership, in
//! which everything that needs a majority needs one of the old voters **and** one of the new. A member's [`Standing`] says in which of the
//! two halves it votes. Whoever counts anything, votes, acknowledgements, rounds of heartbeats, contacts, does so through
//! [`Membership::reached`] and [`Membership::tally`], which know both halves; nobody counts members by hand.
//! One change of any number of voters takes two entries; so does the change of a single one, for which one entry would be enough.
//! One mechanism is easier to be sure of than two.
//!
//! **Learners** get the log and have no vote. Every voter begins as one, so that a new voter never holds up commitment
//! while it catches up.
//!
//! **Binding.** A cluster is founded by blank nodes: nobody knows their store ids yet. The first leader, which needs the votes of all of
//! them (see `raft_node/election.rs`), binds each to its store with its first entry; nothing is committed before that entry. From then
//! on a vote or an acknowledgement counts only if it comes from the bound store, so a node whose disk was lost, and which forgot its
//! votes and its entries, cannot vote or acknowledge a second time under its old name. A learner that was added without a
//! store is bound by a later entry, when the leader first hears from it; until then it does not count.
//!
//! **A node id is used once.** The membership remembers the greatest id that it ever had, and members are added with greater ones
//! only. So whoever is not a member, and has an id that is not greater, has been removed for good and can be told so; and a vote
//! for a node is never taken for a vote for its successor on another disk.

use std::collections::BTreeMap;

use bytes::Bytes;

use crate::quorum::{Tally, reached_by_majority, tally};
use crate::types::{NodeId, StoreId};

mod change;
mod encoding;

pub use change::{ChangeError, ConfChange, MemberChange};
pub use encoding::DecodeError;

/// Bytes of a member's context at most.
pub const CONTEXT_MAX: usize = 2 << 10;
/// Members that a change may lead to at most.
pub const MEMBERS_MAX: usize = 128;

/// In which halves of the membership a member votes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Standing {
    /// It votes; while the membership is joint, in both halves.
    #[default]
    Voter,
    /// It gets the log and has no vote.
    Learner,
    /// Joint: it votes among the new voters only.
    Entering,
    /// Joint: it votes among the old voters only, and is no member afterwards.
    Leaving,
    /// Joint: it votes among the old voters only, and is a learner afterwards.
    Demoted,
}

/// What the cluster knows of one member.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Member {
    /// The data directory the member is bound to; `None` until the leader has heard from it.
    pub store: Option<StoreId>,
    /// Whether it votes.
    pub standing: Standing,
    /// A learner that the leader makes a voter as soon as it has caught up.
    pub promote_when_ready: bool,
    /// What the embedding program wants all members to know of this one, such as its addresses; at most [`CONTEXT_MAX`] bytes.
    pub context: Bytes,
}

/// The members of a cluster at some place in the log.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Membership {
    members: BTreeMap<NodeId, Member>,
    last_id: NodeId,
}

impl Standing {
    /// Whether a member of this standing votes among the new voters, or among the only ones.
    #[must_use]
    pub fn is_incoming(self) -> bool {
        matches!(self, Self::Voter | Self::Entering)
    }

    /// Whether a member of this standing votes among the old voters of a joint membership.
    #[must_use]
    pub fn is_outgoing(self) -> bool {
        matches!(self, Self::Voter | Self::Leaving | Self::Demoted)
    }

    /// Whether only a joint membership has members of this standing.
    fn is_joint(self) -> bool {
        matches!(self, Self::Entering | Self::Leaving | Self::Demoted)
    }
}

impl Member {
    /// A voter bound to `store`.
    #[must_use]
    pub fn voter(store: StoreId) -> Self {
        Self { store: Some(store), ..Self::default() }
    }

    /// A learner bound to `store`.
    #[must_use]
    pub fn learner(store: StoreId) -> Self {
        Self { standing: Standing::Learner, ..Self::voter(store) }
    }
}

impl Membership {
    /// A founding membership: these voters, none of them bound to a store yet. Without any it is what a node has that is to be added to a
    /// cluster that exists: it knows nobody and waits to be spoken to.
    pub fn founding(voters: impl IntoIterator<Item = NodeId>) -> Self {
        let mut membership = Self::default();
        for node in voters {
            membership.insert(node, Member::default());
        }
        membership
    }

    // Members.

    /// All members, ascending.
    pub fn members(&self) -> impl Iterator<Item = (NodeId, &Member)> + Clone {
        self.members.iter().map(|(&node, member)| (node, member))
    }

    /// What is known of `node`; `None` if it is not a member.
    #[must_use]
    pub fn get(&self, node: NodeId) -> Option<&Member> {
        self.members.get(&node)
    }

    /// Whether `node` is a member, voting or not.
    #[must_use]
    pub fn contains(&self, node: NodeId) -> bool {
        self.members.contains_key(&node)
    }

    /// How many members there are, learners included.
    #[must_use]
    pub fn len(&self) -> usize {
        self.members.len()
    }

    /// Whether nobody is a member: what a node knows that waits to be added.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    /// The greatest id that a member ever had; the next one is the smallest that may be added.
    #[must_use]
    pub fn last_id(&self) -> NodeId {
        self.last_id
    }

    /// Whether `node` is no member, and never will be again: its id has been used.
    #[must_use]
    pub fn has_removed(&self, node: NodeId) -> bool {
        node <= self.last_id && !self.contains(node)
    }

    /// Puts in a member, or replaces what is known of it.
    pub fn insert(&mut self, node: NodeId, member: Member) {
        self.last_id = self.last_id.max(node);
        self.members.insert(node, member);
    }

    /// Binds a member to its data directory. No effect on who is not a member.
    pub fn bind(&mut self, node: NodeId, store: StoreId) {
        if let Some(member) = self.members.get_mut(&node) {
            member.store = Some(store);
        }
    }

    // Voters.

    /// The new voters, or the only ones, ascending.
    pub fn incoming(&self) -> impl Iterator<Item = NodeId> + Clone {
        self.standing(Standing::is_incoming)
    }

    /// The old voters while the membership is joint, ascending; else the only ones.
    pub fn outgoing(&self) -> impl Iterator<Item = NodeId> + Clone {
        self.standing(Standing::is_outgoing)
    }

    /// The members without a vote, ascending.
    pub fn learners(&self) -> impl Iterator<Item = NodeId> + Clone {
        self.standing(|standing| standing == Standing::Learner)
    }

    fn standing(&self, wanted: fn(Standing) -> bool) -> impl Iterator<Item = NodeId> + Clone {
        self.members().filter(move |(_, member)| wanted(member.standing)).map(|(node, _)| node)
    }

    /// Whether this stands between two sets of voters.
    #[must_use]
    pub fn is_joint(&self) -> bool {
        self.members.values().any(|member| member.standing.is_joint())
    }

    /// Whether `node` votes, in either half.
    #[must_use]
    pub fn is_voter(&self, node: NodeId) -> bool {
        self.get(node).is_some_and(|member| member.standing != Standing::Learner)
    }

    /// Whether `node` votes among the new voters, or among the only ones.
    #[must_use]
    pub fn is_incoming_voter(&self, node: NodeId) -> bool {
        self.get(node).is_some_and(|member| member.standing.is_incoming())
    }

    /// The greatest value that a majority has reached; in a joint membership, a majority of each half. `None` without voters.
    /// Takes the square of the voters' number in steps, and no memory.
    #[must_use]
    pub fn reached<T: Ord + Copy>(&self, value: impl Fn(NodeId) -> T) -> Option<T> {
        let incoming = reached_by_majority(self.incoming().map(&value))?;
        if !self.is_joint() {
            return Some(incoming);
        }
        Some(incoming.min(reached_by_majority(self.outgoing().map(&value))?))
    }

    /// How a ballot stands in which each voter has answered yes, no, or not yet; in a joint membership it is won by
    /// winning both halves and lost by losing one.
    #[must_use]
    pub fn tally(&self, answer: impl Fn(NodeId) -> Option<bool>) -> Tally {
        let incoming = tally(self.incoming().map(&answer));
        if !self.is_joint() {
            return incoming;
        }
        match (incoming, tally(self.outgoing().map(&answer))) {
            (Tally::Won, Tally::Won) => Tally::Won,
            (Tally::Lost, _) | (_, Tally::Lost) => Tally::Lost,
            (Tally::Open, _) | (_, Tally::Open) => Tally::Open,
        }
    }

    /// How many of those voters who are `up` may fail before nobody can commit: of the half that is nearer to it.
    /// `None` if that is so already, or there are no voters.
    #[must_use]
    pub fn fault_margin(&self, up: impl Fn(NodeId) -> bool) -> Option<usize> {
        let half = |voters: &mut dyn Iterator<Item = NodeId>| {
            let (mut all, mut there) = (0, 0);
            for node in voters {
                all += 1;
                there += usize::from(up(node));
            }
            (all > 0).then(|| there.checked_sub(crate::quorum::majority(all))).flatten()
        };
        Some(half(&mut self.incoming())?.min(half(&mut self.outgoing())?))
    }

    // Binding.

    /// Whether no member is bound to a store: the cluster has not been founded yet.
    #[must_use]
    pub fn is_blank(&self) -> bool {
        self.members.values().all(|member| member.store.is_none())
    }

    /// Whether every voter is bound to a store: from then on the cluster survives the loss of any minority.
    #[must_use]
    pub fn is_fully_bound(&self) -> bool {
        self.members
            .values()
            .all(|member| member.standing == Standing::Learner || member.store.is_some())
    }

    /// The store that `node` is bound to.
    #[must_use]
    pub fn store_of(&self, node: NodeId) -> Option<StoreId> {
        self.get(node).and_then(|member| member.store)
    }

    /// Whether whoever says to be `node`, and sends from `store`, is the member of that name: any founder while the cluster is
    /// blank, afterwards only the bound store.
    #[must_use]
    pub fn speaks(&self, node: NodeId, store: StoreId) -> bool {
        self.contains(node) && (self.is_blank() || self.store_of(node) == Some(store))
    }

    /// Whether a vote of `node`, sent by `store`, counts: it [speaks](Self::speaks) for a voter.
    #[must_use]
    pub fn counts(&self, node: NodeId, store: StoreId) -> bool {
        self.is_voter(node) && self.speaks(node, store)
    }

    /// Whether `node` is bound to a store other than `store`: whoever speaks is not who the cluster knows.
    #[must_use]
    pub fn is_impostor(&self, node: NodeId, store: StoreId) -> bool {
        self.store_of(node).is_some_and(|bound| bound != store)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 1, 2, 3 become 3, 4, 5, and 6 learns.
    fn joint() -> Membership {
        let mut joint = Membership::default();
        for (node, standing) in [
            (1, Standing::Leaving),
            (2, Standing::Demoted),
            (3, Standing::Voter),
            (4, Standing::Entering),
            (5, Standing::Entering),
            (6, Standing::Learner),
        ] {
            joint.insert(NodeId(node), Member { standing, ..Member::voter(StoreId(node.into())) });
        }
        joint
    }

    #[test]
    fn a_joint_membership_needs_a_majority_of_both_halves() {
        let joint = joint();
        let reached =
            |values: [u64; 6]| joint.reached(|node| values[usize::try_from(node.0 - 1).unwrap()]);
        // Old voters 1 to 3, new voters 3 to 5; the learner's value never matters.
        assert_eq!(reached([9, 9, 0, 0, 0, 99]), Some(0), "the old voters alone");
        assert_eq!(reached([0, 0, 9, 9, 9, 99]), Some(0), "the new voters alone");
        assert_eq!(reached([9, 0, 8, 7, 0, 0]), Some(7));
        let tally = |yes: &[u64], no: &[u64]| {
            joint.tally(|node| {
                yes.contains(&node.0).then_some(true).or(no.contains(&node.0).then_some(false))
            })
        };
        assert_eq!(tally(&[1, 2, 6], &[]), Tally::Open);
        assert_eq!(tally(&[1, 2, 3], &[]), Tally::Open);
        assert_eq!(tally(&[1, 3, 4], &[]), Tally::Won);
        assert_eq!(tally(&[1, 2, 3], &[4, 5]), Tally::Lost);
        assert_eq!(tally(&[3, 4, 5], &[1, 2]), Tally::Lost);
    }

    #[test]
    fn a_membership_that_is_not_joint_has_one_majority() {
        let simple = Membership::founding([1, 2, 3].map(NodeId));
        assert_eq!(simple.reached(|node| node.0), Some(2));
        assert_eq!(simple.outgoing().count(), 3);
        assert_eq!(Membership::default().reached(|node| node.0), None);
        assert_eq!(
            Membership::default().tally(|_| Some(true)),
            Tally::Open,
            "nobody elects nobody"
        );
    }

    #[test]
    fn the_margin_is_that_of_the_weaker_half() {
        let joint = joint();
        assert_eq!(joint.fault_margin(|_| true), Some(1));
        assert_eq!(joint.fault_margin(|node| node.0 != 1), Some(0));
        assert_eq!(joint.fault_margin(|node| node.0 < 4), None);
        let five = Membership::founding((1..=5).map(NodeId));
        assert_eq!(five.fault_margin(|_| true), Some(2));
    }

    #[test]
    fn learners_speak_and_do_not_count() {
        let joint = joint();
        assert!(joint.speaks(NodeId(6), StoreId(6)) && !joint.counts(NodeId(6), StoreId(6)));
        assert!(joint.counts(NodeId(1), StoreId(1)) && joint.counts(NodeId(5), StoreId(5)));
        assert!(!joint.speaks(NodeId(6), StoreId(7)));
    }

    #[test]
    fn who_was_removed_can_be_told_from_who_comes_later() {
        let mut membership = Membership::founding([1, 2, 5].map(NodeId));
        assert!(membership.has_removed(NodeId(3)) && !membership.has_removed(NodeId(6)));
        membership.insert(NodeId(6), Member::learner(StoreId(6)));
        assert_eq!(membership.last_id(), NodeId(6));
        assert!(!membership.has_removed(NodeId(6)));
        assert!(!Membership::default().has_removed(NodeId(1)), "nothing is known yet");
    }

    #[test]
    fn blank_founders_count_until_the_first_binding() {
        let blank = Membership::founding([NodeId(1), NodeId(2)]);
        assert!(blank.counts(NodeId(1), StoreId(5)));
        assert!(!blank.counts(NodeId(3), StoreId(5)), "not a member");
        let mut bound = blank;
        bound.bind(NodeId(2), StoreId(9));
        assert!(bound.counts(NodeId(2), StoreId(9)));
        assert!(!bound.counts(NodeId(2), StoreId(8)), "another disk under the same name");
        assert!(!bound.counts(NodeId(1), StoreId(5)), "not bound yet");
        assert!(bound.is_impostor(NodeId(2), StoreId(8)));
        assert!(!bound.is_impostor(NodeId(1), StoreId(5)));
    }
}
