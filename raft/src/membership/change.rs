//! What an operator may ask for, and the memberships that follow from it.
//!
//! These are functions from one value to the next; when a change may be made at all is for the leader to know (see
//! `raft_node/membership.rs`).

use bytes::Bytes;
use thiserror::Error;

use super::{CONTEXT_MAX, MEMBERS_MAX, Member, Membership, Standing};
use crate::types::{NodeId, StoreId};

/// A change of the members that an operator asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ConfChange {
    /// All of these at once, or none. If voters change, the membership is joint in between, and is left by itself as soon as
    /// the joint one is committed.
    Members(Vec<MemberChange>),
    /// Take back a change that is not committed. Learners that came with it stay.
    Cancel,
}

/// What may happen to one member.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MemberChange {
    /// A node that was never a member gets the log.
    AddLearner {
        /// Its id: greater than that of any member there ever was, see [`Membership::last_id`].
        node: NodeId,
        /// Its data directory; `None` binds the one that speaks up first.
        store: Option<StoreId>,
        /// It becomes a voter by itself as soon as it has caught up.
        promote_when_ready: bool,
        /// See [`Member::context`].
        context: Bytes,
    },
    /// A learner that has caught up becomes a voter.
    Promote(NodeId),
    /// A voter becomes a learner.
    Demote(NodeId),
    /// A voter or learner is a member no more, and never again under this id.
    Remove(NodeId),
    /// A member's context is another.
    SetContext {
        /// Which member.
        node: NodeId,
        /// See [`Member::context`].
        context: Bytes,
    },
}

/// Why a change does not make sense, whenever it is asked for.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum ChangeError {
    /// No change at all.
    #[error("nothing is to be changed")]
    Empty,
    /// One member cannot change in two ways at once.
    #[error("{0} is named twice")]
    Twice(NodeId),
    /// There is no such member.
    #[error("{0} is not a member")]
    NotMember(NodeId),
    /// The id was used before, or is too small to tell.
    #[error(
        "{node} was a member once, or may have been: ids are used once, the next one is above {last}"
    )]
    IdUsed {
        /// The id asked for.
        node: NodeId,
        /// The greatest used.
        last: NodeId,
    },
    /// Only learners are promoted.
    #[error("{0} is a voter already")]
    AlreadyVoter(NodeId),
    /// Only voters are demoted.
    #[error("{0} is a learner already")]
    AlreadyLearner(NodeId),
    /// It has never spoken: nobody knows what it has.
    #[error("{0} has not been heard from yet")]
    NotBound(NodeId),
    /// Nobody would be left to decide anything.
    #[error("no voter would be left")]
    NoVoterLeft,
    /// More members than [`MEMBERS_MAX`].
    #[error("there would be more than {MEMBERS_MAX} members")]
    TooManyMembers,
    /// A context longer than [`CONTEXT_MAX`].
    #[error("the context has {0} bytes, more than {CONTEXT_MAX}")]
    ContextTooLong(usize),
}

impl ConfChange {
    /// One new learner.
    #[must_use]
    pub fn add_learner(node: NodeId, store: Option<StoreId>, context: Bytes) -> Self {
        Self::Members(vec![MemberChange::AddLearner {
            node,
            store,
            promote_when_ready: false,
            context,
        }])
    }

    /// One new voter: it begins as a learner, and is promoted when it has caught up.
    #[must_use]
    pub fn add_voter(node: NodeId, store: Option<StoreId>, context: Bytes) -> Self {
        Self::Members(vec![MemberChange::AddLearner {
            node,
            store,
            promote_when_ready: true,
            context,
        }])
    }

    /// A learner becomes a voter.
    #[must_use]
    pub fn promote(node: NodeId) -> Self {
        Self::Members(vec![MemberChange::Promote(node)])
    }

    /// A member leaves for good.
    #[must_use]
    pub fn remove(node: NodeId) -> Self {
        Self::Members(vec![MemberChange::Remove(node)])
    }

    /// A member whose data directory is lost leaves, and `by`, with a new id and a new directory, takes its place as soon as it has
    /// caught up.
    #[must_use]
    pub fn replace(node: NodeId, by: NodeId, store: Option<StoreId>, context: Bytes) -> Self {
        let add = MemberChange::AddLearner { node: by, store, promote_when_ready: true, context };
        Self::Members(vec![MemberChange::Remove(node), add])
    }
}

impl MemberChange {
    /// Whom it is about.
    #[must_use]
    pub fn node(&self) -> NodeId {
        match *self {
            Self::AddLearner { node, .. } | Self::SetContext { node, .. } => node,
            Self::Promote(node) | Self::Demote(node) | Self::Remove(node) => node,
        }
    }
}

impl Membership {
    /// The membership that follows from this one, which is not joint, by `changes`: a joint one if voters change.
    ///
    /// # Errors
    ///
    /// See [`ChangeError`].
    pub fn changed(&self, changes: &[MemberChange]) -> Result<Self, ChangeError> {
        debug_assert!(!self.is_joint(), "a joint membership is left first");
        let mut next = self.clone();
        for (place, change) in changes.iter().enumerate() {
            let node = change.node();
            if changes[..place].iter().any(|earlier| earlier.node() == node) {
                return Err(ChangeError::Twice(node));
            }
            next.change(change)?;
        }
        if changes.is_empty() {
            Err(ChangeError::Empty)
        } else if next.incoming().next().is_none() {
            Err(ChangeError::NoVoterLeft)
        } else if next.len() > MEMBERS_MAX {
            Err(ChangeError::TooManyMembers)
        } else {
            Ok(next)
        }
    }

    fn change(&mut self, change: &MemberChange) -> Result<(), ChangeError> {
        let node = change.node();
        if let MemberChange::AddLearner { store, promote_when_ready, context, .. } = change {
            if node <= self.last_id {
                return Err(ChangeError::IdUsed { node, last: self.last_id });
            }
            check_context(context)?;
            let learner = Member {
                store: *store,
                standing: Standing::Learner,
                promote_when_ready: *promote_when_ready,
                context: context.clone(),
            };
            self.insert(node, learner);
            return Ok(());
        }
        let Some(member) = self.members.get_mut(&node) else {
            return Err(ChangeError::NotMember(node));
        };
        let is_learner = member.standing == Standing::Learner;
        match change {
            MemberChange::Promote(_) if !is_learner => return Err(ChangeError::AlreadyVoter(node)),
            MemberChange::Promote(_) if member.store.is_none() => {
                return Err(ChangeError::NotBound(node));
            }
            MemberChange::Promote(_) => {
                member.standing = Standing::Entering;
                member.promote_when_ready = false;
            }
            MemberChange::Demote(_) if is_learner => return Err(ChangeError::AlreadyLearner(node)),
            MemberChange::Demote(_) => member.standing = Standing::Demoted,
            MemberChange::Remove(_) if is_learner => drop(self.members.remove(&node)),
            MemberChange::Remove(_) => member.standing = Standing::Leaving,
            MemberChange::SetContext { context, .. } => {
                check_context(context)?;
                member.context = context.clone();
            }
            MemberChange::AddLearner { .. } => unreachable!("taken care of above"),
        }
        Ok(())
    }

    /// What a joint membership is left for: the new voters alone.
    #[must_use]
    pub fn left(&self) -> Self {
        self.settled(|standing| match standing {
            Standing::Voter | Standing::Entering => Some(Standing::Voter),
            Standing::Learner | Standing::Demoted => Some(Standing::Learner),
            Standing::Leaving => None,
        })
    }

    /// What a joint membership goes back to: the old voters alone. Who was to become a voter by this change, now or when it has caught
    /// up, is a learner, and is not promoted without being asked for again; who was to be promoted `before` it still is.
    #[must_use]
    pub fn cancelled(&self, before: &Self) -> Self {
        let mut settled = self.settled(|standing| match standing {
            Standing::Voter | Standing::Leaving | Standing::Demoted => Some(Standing::Voter),
            Standing::Learner | Standing::Entering => Some(Standing::Learner),
        });
        for (node, member) in &mut settled.members {
            let waited = before.get(*node).is_some_and(|member| member.promote_when_ready);
            let is_entering =
                self.get(*node).is_some_and(|member| member.standing == Standing::Entering);
            member.promote_when_ready = waited && !is_entering;
        }
        settled
    }

    fn settled(&self, settle: impl Fn(Standing) -> Option<Standing>) -> Self {
        let members = self.members.iter().filter_map(|(&node, member)| {
            let standing = settle(member.standing)?;
            Some((node, Member { standing, ..member.clone() }))
        });
        Self { members: members.collect(), last_id: self.last_id }
    }
}

fn check_context(context: &[u8]) -> Result<(), ChangeError> {
    if context.len() > CONTEXT_MAX {
        return Err(ChangeError::ContextTooLong(context.len()));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn three() -> Membership {
        let mut three = Membership::founding([1, 2, 3].map(NodeId));
        for node in 1..=3 {
            three.bind(NodeId(node), StoreId(node.into()));
        }
        three
    }

    fn learner(node: u64) -> MemberChange {
        MemberChange::AddLearner {
            node: NodeId(node),
            store: Some(StoreId(node.into())),
            promote_when_ready: false,
            context: Bytes::new(),
        }
    }

    fn ids(nodes: impl Iterator<Item = NodeId>) -> Vec<u64> {
        nodes.map(|node| node.0).collect()
    }

    #[test]
    fn learners_come_and_go_without_a_joint_membership() {
        let four = three().changed(&[learner(4)]).unwrap();
        assert!(!four.is_joint());
        assert_eq!((ids(four.incoming()), ids(four.learners())), (vec![1, 2, 3], vec![4]));
        let gone = four.changed(&[MemberChange::Remove(NodeId(4))]).unwrap();
        assert!(!gone.is_joint() && gone.has_removed(NodeId(4)));
        assert_eq!(
            gone.changed(&[learner(4)]),
            Err(ChangeError::IdUsed { node: NodeId(4), last: NodeId(4) })
        );
    }

    #[test]
    fn any_number_of_voters_changes_through_one_joint_membership() {
        let five = three().changed(&[learner(4), learner(5)]).unwrap();
        let joint = five
            .changed(&[
                MemberChange::Promote(NodeId(4)),
                MemberChange::Promote(NodeId(5)),
                MemberChange::Remove(NodeId(1)),
                MemberChange::Demote(NodeId(2)),
            ])
            .unwrap();
        assert!(joint.is_joint());
        assert_eq!((ids(joint.outgoing()), ids(joint.incoming())), (vec![1, 2, 3], vec![3, 4, 5]));
        let left = joint.left();
        assert!(!left.is_joint() && left.has_removed(NodeId(1)));
        assert_eq!((ids(left.incoming()), ids(left.learners())), (vec![3, 4, 5], vec![2]));
        let cancelled = joint.cancelled(&five);
        assert_eq!(
            (ids(cancelled.incoming()), ids(cancelled.learners())),
            (vec![1, 2, 3], vec![4, 5])
        );
    }

    #[test]
    fn a_change_that_is_taken_back_takes_no_other_promotion_with_it() {
        let waiting = |node: u64| MemberChange::AddLearner {
            node: NodeId(node),
            store: Some(StoreId(node.into())),
            promote_when_ready: true,
            context: Bytes::new(),
        };
        let five = three().changed(&[waiting(4), waiting(5)]).unwrap();
        let changes =
            [MemberChange::Promote(NodeId(4)), MemberChange::Remove(NodeId(3)), waiting(6)];
        let back = five.changed(&changes).unwrap().cancelled(&five);
        let waits = |node| back.get(NodeId(node)).unwrap().promote_when_ready;
        assert_eq!([4, 5, 6].map(waits), [false, true, false]);
    }

    #[test]
    fn a_lost_voter_and_its_replacement_are_one_change() {
        let ConfChange::Members(changes) =
            ConfChange::replace(NodeId(3), NodeId(4), None, Bytes::from_static(b"new"))
        else {
            unreachable!()
        };
        let left = three().changed(&changes).unwrap().left();
        assert_eq!((ids(left.incoming()), ids(left.learners())), (vec![1, 2], vec![4]));
        let member = left.get(NodeId(4)).unwrap();
        assert!(member.promote_when_ready && member.store.is_none() && member.context == "new");
    }

    #[test]
    fn senseless_changes_are_refused_and_change_nothing() {
        let four = three().changed(&[learner(4)]).unwrap();
        let node = NodeId;
        for (changes, error) in [
            (vec![], ChangeError::Empty),
            (vec![MemberChange::Promote(node(9))], ChangeError::NotMember(node(9))),
            (vec![MemberChange::Promote(node(1))], ChangeError::AlreadyVoter(node(1))),
            (vec![MemberChange::Demote(node(4))], ChangeError::AlreadyLearner(node(4))),
            (
                vec![MemberChange::Demote(node(1)), MemberChange::Remove(node(1))],
                ChangeError::Twice(node(1)),
            ),
            ((1..=3).map(|id| MemberChange::Remove(node(id))).collect(), ChangeError::NoVoterLeft),
            (
                vec![MemberChange::SetContext { node: node(1), context: vec![0; 3_000].into() }],
                ChangeError::ContextTooLong(3_000),
            ),
            ((5..=200).map(learner).collect(), ChangeError::TooManyMembers),
        ] {
            assert_eq!(four.changed(&changes), Err(error));
        }
        let unbound = MemberChange::AddLearner {
            node: node(5),
            store: None,
            promote_when_ready: true,
            context: Bytes::new(),
        };
        let five = four.changed(&[unbound]).unwrap();
        assert_eq!(
            five.changed(&[MemberChange::Promote(node(5))]),
            Err(ChangeError::NotBound(node(5)))
        );
    }
}
