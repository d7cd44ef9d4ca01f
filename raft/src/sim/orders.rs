//! What operators of a simulation order: members that come and go, and leadership that is handed over, at any time and without regard for what
//! is under way. Most orders are refused, as they should be.
//!
//! Whoever leads thinks of an order now and then, from the members as it knows them. So two leaders that do not know of each other order
//! different things of the same members, which is what joint consensus has to survive.

use bytes::Bytes;
use lattice_sim::ChaCha8Rng;
use lattice_sim::random::{below, index};

use crate::membership::{ConfChange, MemberChange, Standing};
use crate::raft_node::RaftNode;
use crate::types::NodeId;

/// An order.
#[derive(Clone, Debug)]
pub(super) enum Order {
    /// Other members.
    Change(ConfChange),
    /// Another leader.
    Transfer(Option<NodeId>),
}

/// Voters that orders leave, mostly.
const VOTERS_MIN: usize = 3;
/// Voters that orders lead to at most.
const VOTERS_MAX: usize = 5;

/// What comes to an operator's mind; nodes up to `last` exist.
pub(super) fn draw(raft: &RaftNode, last: NodeId, rng: &mut ChaCha8Rng) -> Order {
    let members = raft.membership();
    let voters: Vec<_> = members.incoming().collect();
    let learners: Vec<_> = members.learners().collect();
    let next = NodeId(members.last_id().0 + 1);
    let may_add = next <= last;
    let has_too_few = voters.len() < VOTERS_MIN;
    let may_shrink = voters.len() > VOTERS_MIN || voters.len() > 1 && below(rng, 8) == 0;
    let add = |promote_when_ready| MemberChange::AddLearner {
        node: next,
        store: None,
        promote_when_ready,
        context: Bytes::new(),
    };
    let voter = voters[index(rng, voters.len())];
    let learner = (!learners.is_empty()).then(|| learners[index(rng, learners.len())]);
    let change = |changes| Order::Change(ConfChange::Members(changes));
    match below(rng, 12) {
        0 | 1 if may_add && voters.len() + learners.len() < VOTERS_MAX + 1 => {
            change(vec![add(has_too_few || below(rng, 2) == 0)])
        }
        2 | 3 if voters.len() < VOTERS_MAX => {
            learner.map_or(Order::Transfer(None), |node| change(vec![MemberChange::Promote(node)]))
        }
        4 if may_shrink => change(vec![MemberChange::Remove(voter)]),
        5 if may_shrink => change(vec![MemberChange::Remove(raft.id())]),
        6 if may_shrink => change(vec![MemberChange::Demote(voter)]),
        7 if may_add => change(vec![MemberChange::Remove(voter), add(true)]),
        8 if learner.is_some() => {
            // As many as possible at once.
            let mut changes: Vec<_> = learners.iter().copied().map(MemberChange::Promote).collect();
            let leaving = voters.iter().take(learners.len().min(voters.len()));
            changes.extend(leaving.copied().map(MemberChange::Remove));
            change(changes)
        }
        9 => Order::Change(ConfChange::Cancel),
        10 => Order::Transfer(Some(voter)),
        _ if has_too_few => {
            learner.map_or(Order::Transfer(None), |node| change(vec![MemberChange::Promote(node)]))
        }
        _ => {
            let others = members.members().filter(|(_, member)| member.standing == Standing::Voter);
            let context = Bytes::from(vec![1; usize::try_from(below(rng, 20)).expect("few")]);
            let node = others.map(|(node, _)| node).max().unwrap_or(voter);
            change(vec![MemberChange::SetContext { node, context }])
        }
    }
}
