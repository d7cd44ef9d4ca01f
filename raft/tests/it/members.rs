//! Members that change and leadership that is handed over: the cases of known bugs (30 to 36, and 7) that scripts do not show.

use std::time::Duration;

use bytes::Bytes;
use raft_consensus::effects::{Effect, OrderError, ProposalId, Rejection};
use raft_consensus::membership::{ChangeError, ConfChange, Member, MemberChange, Membership};
use raft_consensus::message::Message;
use raft_consensus::raft_node::{Config, Event, RaftNode, Role};
use raft_consensus::types::{HardState, LogIndex, NodeId, Payload, StoreId, Term};

use crate::script::subject::{
    ME, Subject, blank, entry, founded, id, only, recovered, sent, store,
};

const ORDER: ProposalId = ProposalId(1_000);

impl Subject {
    fn change(&mut self, change: ConfChange) -> Vec<Effect> {
        self.step(Event::ChangeMembership(ORDER, change))
    }

    fn transfer(&mut self, to: Option<u64>) -> Vec<Effect> {
        self.step(Event::TransferLeader(ORDER, to.map(NodeId)))
    }

    /// Everybody has everything.
    fn settle(&mut self) -> Vec<Effect> {
        let mut effects = Vec::new();
        for _ in 0..4 {
            effects.extend(self.persist());
            let last = self.node.log().last().index.0;
            for peer in self.peers() {
                effects.extend(self.accepted(peer.0, last));
            }
        }
        effects
    }
}

/// A leader of three voters and a learner, 4, in sync.
fn leader_with_learner() -> Subject {
    let mut subject = Subject::new(3, &[1]);
    subject.lead_settled();
    subject.change(ConfChange::add_learner(NodeId(4), Some(store(4)), Bytes::new()));
    subject.settle();
    assert_eq!(subject.node.membership().learners().collect::<Vec<_>>(), [NodeId(4)]);
    subject
}

fn failures(effects: &[Effect]) -> Vec<OrderError> {
    let failure = |effect: &Effect| match effect {
        Effect::OrderFailed { id: ORDER, error } => Some(*error),
        _ => None,
    };
    effects.iter().filter_map(failure).collect()
}

/// How many entries with members the log has.
fn proposed_memberships(effects: &[Effect]) -> usize {
    let of_batch = |effect: &Effect| match effect {
        Effect::Persist(batch) => batch
            .entries
            .iter()
            .filter(|entry| matches!(entry.payload, Payload::Membership(_)))
            .count(),
        _ => 0,
    };
    effects.iter().map(of_batch).sum()
}

/// A cluster may be older than what a stranger is believed, and yet take members.
#[test]
fn who_waits_to_be_added_follows_a_leader_in_any_term_and_is_taken_nowhere_by_others() {
    let old = 1 << 40;
    let messages = [
        Message::Heartbeat { commit: LogIndex(0), round: 0 },
        Message::Append { previous: id(5, 7), entries: vec![].into(), commit: LogIndex(5) },
    ];
    for message in messages {
        let config = Config::new(ME, store(1), Membership::default());
        let mut waiting = Subject::configured(config, blank());
        waiting.receive(2, old, Message::VoteReply { granted: true });
        waiting.receive(2, old, Message::HeartbeatReply { round: 0, is_damaged: false });
        assert_eq!(waiting.node.term(), Term(0));
        waiting.receive(2, old, message);
        assert_eq!((waiting.node.term(), waiting.node.leader()), (Term(old), Some(NodeId(2))));
    }
}

/// Its own log is one of those that have to acknowledge.
#[test]
fn a_leader_whose_log_is_damaged_leaves_no_voters_that_need_it_to_commit() {
    let mut subject = Subject::new(3, &[1, 1]);
    subject.lead_settled();
    subject.step(Event::EntriesDamaged { first: LogIndex(2), last: LogIndex(2) });
    assert_eq!(subject.node.role(), Role::Leader);
    let refused = subject.change(ConfChange::remove(NodeId(3)));
    assert_eq!(failures(&refused), [OrderError::WouldLoseQuorum]);
}

/// Case 30.
#[test]
fn no_change_before_an_entry_of_the_term_is_committed() {
    let mut subject = Subject::new(3, &[1]);
    subject.lead();
    let refused = subject.change(ConfChange::remove(NodeId(3)));
    assert_eq!(failures(&refused), [OrderError::TermNotCommitted]);
    assert_eq!(subject.node.membership(), &founded(3));
    subject.settle();
    assert!(failures(&subject.change(ConfChange::remove(NodeId(3)))).is_empty());
}

/// Case 33: the joint membership is left once, whatever is acknowledged how often.
#[test]
fn a_joint_membership_is_left_once() {
    let mut subject = leader_with_learner();
    let mut effects = subject.change(ConfChange::promote(NodeId(4)));
    assert!(subject.node.membership().is_joint());
    let joint = subject.node.log().last().index.0;
    effects.extend(subject.persist());
    for _ in 0..3 {
        for peer in [2, 3, 4] {
            effects.extend(subject.accepted(peer, joint));
        }
        subject.now += Duration::from_millis(50);
        effects.extend(subject.timeout());
    }
    assert!(!subject.node.membership().is_joint());
    assert_eq!(subject.node.commit(), LogIndex(joint));
    assert_eq!(proposed_memberships(&effects), 2, "joint, and left");
    let more = subject.settle();
    assert_eq!(proposed_memberships(&more), 0);
    assert_eq!(subject.node.membership(), &founded(4));
}

/// Case 33: what leaves a joint membership, in a membership that is not joint, is an error and no panic.
#[test]
fn there_is_nothing_to_cancel_where_nothing_is_under_way() {
    let mut subject = leader_with_learner();
    let nothing = [OrderError::NothingToCancel];
    assert_eq!(failures(&subject.change(ConfChange::Cancel)), nothing);
    subject.change(ConfChange::promote(NodeId(4)));
    subject.settle();
    assert_eq!(failures(&subject.change(ConfChange::Cancel)), nothing, "it is done");
}

/// Case 34: who finds a joint membership in its log needs both majorities to win, finishes it, and does so only when an entry of its
/// own term is committed.
#[test]
fn a_new_leader_finishes_the_change_that_it_finds() {
    let five = founded(3)
        .changed(&[learner(4), learner(5)])
        .and_then(|members| {
            members.changed(&[
                MemberChange::Promote(NodeId(4)),
                MemberChange::Promote(NodeId(5)),
                MemberChange::Remove(NodeId(2)),
                MemberChange::Remove(NodeId(3)),
            ])
        })
        .unwrap();
    let mut subject = Subject::recovered(3, recovered_with(five.clone()));
    subject.campaign();
    subject.receive(2, 2, yes());
    subject.receive(3, 2, yes());
    assert_eq!(subject.node.role(), Role::Candidate, "1, 2, 3 are the old voters only");
    subject.receive(4, 2, yes());
    assert_eq!(subject.node.role(), Role::Leader);
    subject.persist();
    subject.accepted(2, 3);
    assert_eq!(subject.node.commit(), LogIndex(0), "1 and 2 of 1, 2, 3; but 1 of 1, 4, 5");
    subject.accepted(5, 3);
    assert_eq!(subject.node.commit(), LogIndex(3));
    assert_eq!(subject.node.membership(), &five.left(), "1, 4, 5 are in force");
    subject.persist();
    subject.accepted(4, 4);
    assert_eq!(subject.node.commit(), LogIndex(4));
}

/// Case 35: a learner's acknowledgement and vote count for nothing, and it does not campaign.
#[test]
fn a_learner_does_not_count() {
    let mut subject = leader_with_learner();
    subject.propose("x");
    let last = subject.node.log().last().index.0;
    let commit = subject.node.commit();
    subject.persist();
    subject.accepted(4, last);
    assert_eq!(subject.node.commit(), commit, "1 and a learner");
    subject.accepted(2, last);
    assert_eq!(subject.node.commit().0, last);

    let mut members = founded(3);
    members.insert(ME, Member::learner(store(1)));
    let mut learner = Subject::recovered(3, recovered_with(members));
    learner.receive(2, 1, Message::Heartbeat { commit: LogIndex(2), round: 0 });
    let effects = learner.timeout();
    assert!(sent(&effects).is_empty());
    assert_eq!(learner.node.role(), Role::Follower);
}

/// Case 36: ids are used once, so a voter's name never comes back on another disk.
#[test]
fn the_id_of_a_removed_node_is_not_used_again() {
    let mut subject = leader_with_learner();
    subject.change(ConfChange::remove(NodeId(4)));
    subject.settle();
    for node in [4, 3, 1] {
        let again = ConfChange::add_learner(NodeId(node), Some(store(77)), Bytes::new());
        let used = ChangeError::IdUsed { node: NodeId(node), last: NodeId(4) };
        assert_eq!(failures(&subject.change(again)), [OrderError::Change(used)]);
    }
}

/// A node that was added, removed and restarted knows it from its own log.
#[test]
fn a_removed_node_knows_it_after_a_restart() {
    let config = Config::new(NodeId(3), store(3), Membership::default());
    let mut state = recovered(3, &[1, 1], HardState { term: Term(1), voted_for: None });
    let two = founded(3).changed(&[MemberChange::Remove(NodeId(3))]).unwrap().left();
    state.tail[1].payload = Payload::Membership(two.clone());
    state.memberships.push((LogIndex(2), two));
    let mut node = RaftNode::recover(config, state, 1, Duration::ZERO).unwrap();
    assert!(!node.is_removed(), "nothing is known to be committed");
    node.resume_at(id(2, 1)).unwrap();
    assert!(node.is_removed());
}

/// A node that is to join knows nobody, campaigns never, and follows the leader that adds it.
#[test]
fn a_joining_node_waits_for_the_leader_that_adds_it() {
    let mut config = Config::new(ME, store(1), Membership::default());
    config.boot = 1;
    let mut subject = Subject::configured(config, blank());
    for _ in 0..3 {
        assert!(sent(&subject.timeout()).is_empty());
    }
    assert_eq!((subject.node.role(), subject.node.term()), (Role::Follower, Term(0)));
    assert!(!subject.node.is_removed());
    subject.append(7, 3, id(0, 0), vec![entry(1, 3)], 0);
    assert_eq!(subject.node.leader(), Some(NodeId(7)));
    assert_eq!(subject.node.log().last(), id(1, 3));
}

/// The voters that would be left have to be there.
#[test]
fn a_change_that_would_lose_the_quorum_is_refused() {
    let mut subject = Subject::new(3, &[1]);
    subject.lead_settled();
    let timeout = subject.node.config().election_timeout.end;
    subject.now += timeout;
    // Only node 2 was heard from lately.
    subject.accepted(2, 2);
    let refused = subject.change(ConfChange::remove(NodeId(2)));
    assert_eq!(failures(&refused), [OrderError::WouldLoseQuorum]);
    assert!(failures(&subject.change(ConfChange::remove(NodeId(3)))).is_empty());
}

/// Contexts travel with the members.
#[test]
fn a_members_context_is_changed_by_an_entry_like_any_other() {
    let mut subject = Subject::new(3, &[1]);
    subject.lead_settled();
    let context = Bytes::from_static(b"127.0.0.1:2380");
    let change = MemberChange::SetContext { node: NodeId(2), context: context.clone() };
    let effects = subject.change(ConfChange::Members(vec![change]));
    assert!(failures(&effects).is_empty());
    assert_eq!(subject.node.membership().get(NodeId(2)).unwrap().context, context);
    assert!(!subject.node.membership().is_joint());
}

/// Case 7, and 26: the word goes out when the other has everything, and after it no lease holds in this term.
#[test]
fn a_transfer_waits_until_the_target_has_everything() {
    let mut subject = Subject::new(3, &[1]);
    subject.lead_settled();
    subject.propose("x");
    subject.persist();
    let effects = subject.transfer(Some(2));
    assert!(sent(&effects).is_empty(), "the entry is on its way already");
    assert_eq!(subject.node.transfer_target(), Some(NodeId(2)));
    assert!(!subject.node.has_sent_timeout_now());
    let refused = subject.propose("y");
    let reason = Rejection::Transferring { to: NodeId(2) };
    assert!(refused.contains(&Effect::Rejected { id: ProposalId(2), reason }));
    assert!(!asks_to_campaign(&subject.accepted(3, 3)));
    assert!(asks_to_campaign(&subject.accepted(2, 3)));
    assert!(subject.node.has_sent_timeout_now());
    assert!(!asks_to_campaign(&subject.accepted(2, 3)), "said once");
    // It gives up after an election timeout, and still serves no lease.
    let mut effects = Vec::new();
    for _ in 0..4 {
        subject.now += Duration::from_millis(100);
        subject.accepted(2, 3);
        subject.accepted(3, 3);
        effects.extend(subject.timeout());
    }
    assert_eq!(failures(&effects), [OrderError::TransferTimedOut]);
    assert_eq!(subject.node.role(), Role::Leader);
    assert!(subject.node.has_sent_timeout_now());
    assert!(subject.propose("z").iter().any(|effect| matches!(effect, Effect::Proposed { .. })));
}

/// Case 7: the word of a leader that is deposed, or of a node that never led, starts no election.
#[test]
fn only_the_leader_of_the_term_makes_another_campaign() {
    let mut subject = Subject::new(3, &[2]);
    assert!(sent(&subject.receive(2, 1, Message::TimeoutNow)).is_empty(), "an earlier term");
    assert_eq!((subject.node.role(), subject.node.term()), (Role::Follower, Term(2)));
    let effects = subject.receive(2, 2, Message::TimeoutNow);
    assert_eq!((subject.node.role(), subject.node.term()), (Role::Candidate, Term(3)));
    let asked = sent(&effects);
    assert!(asked.iter().all(|sent| matches!(sent.message, Message::Vote { transfer: true, .. })));
    assert_eq!(asked.len(), 2);
    // A learner does not, whoever asks.
    let mut members = founded(3);
    members.insert(ME, Member::learner(store(1)));
    let mut learner = Subject::recovered(3, recovered_with(members));
    learner.receive(2, 1, Message::Heartbeat { commit: LogIndex(2), round: 0 });
    learner.receive(2, 1, Message::TimeoutNow);
    assert_eq!(learner.node.role(), Role::Follower);
}

/// Case 7: nobody refuses its vote because the leader lives; a more complete log is still a reason.
#[test]
fn a_vote_that_the_leader_wants_is_not_refused_for_the_leaders_sake() {
    let vote = |transfer| Message::Vote { last: id(1, 1), transfer };
    let mut follower = Subject::new(3, &[1]);
    follower.receive(2, 1, Message::Heartbeat { commit: LogIndex(1), round: 0 });
    assert!(sent(&follower.receive(3, 2, vote(false))).is_empty());
    let reply = only(&follower.receive(3, 2, vote(true)));
    assert_eq!(reply.message, Message::VoteReply { granted: true });

    let mut ahead = Subject::new(3, &[1, 1]);
    ahead.receive(2, 1, Message::Heartbeat { commit: LogIndex(1), round: 0 });
    let reply = only(&ahead.receive(3, 2, vote(true)));
    assert_eq!(reply.message, Message::VoteReply { granted: false });
}

/// Case 10: a removal is believed whoever tells of it, for it is told only when it is committed, and outlives no restart of anybody.
#[test]
fn who_is_told_of_its_removal_stays_quiet() {
    let mut subject = Subject::new(3, &[1]);
    subject.receive(2, 1, Message::Removed);
    assert!(subject.node.is_removed());
    for _ in 0..3 {
        assert!(sent(&subject.timeout()).is_empty());
    }
    assert_eq!(subject.node.role(), Role::Follower);
}

fn asks_to_campaign(effects: &[Effect]) -> bool {
    sent(effects).iter().any(|sent| sent.to == NodeId(2) && sent.message == Message::TimeoutNow)
}

fn learner(node: u64) -> MemberChange {
    MemberChange::AddLearner {
        node: NodeId(node),
        store: Some(StoreId(node.into())),
        promote_when_ready: false,
        context: Bytes::new(),
    }
}

/// A log whose second entry has these members.
fn recovered_with(members: Membership) -> raft_consensus::storage::RecoveredState {
    let mut state = recovered(3, &[1, 1], HardState { term: Term(1), voted_for: None });
    state.tail[1].payload = Payload::Membership(members.clone());
    state.memberships.push((LogIndex(2), members));
    state
}

fn yes() -> Message {
    Message::VoteReply { granted: true }
}

/// The one that takes over would lack it, and would have been told to campaign in vain.
#[test]
fn no_step_of_a_change_is_taken_while_leadership_is_handed_over() {
    let mut leader = Subject::new(3, &[1]);
    leader.lead_settled();
    leader.change(ConfChange::remove(NodeId(3)));
    let joint = leader.node.log().last().index;
    leader.transfer(Some(2));
    assert_eq!(leader.node.transfer_target(), Some(NodeId(2)));
    leader.settle();
    assert_eq!((leader.node.commit(), leader.node.log().last().index), (joint, joint));
    assert!(leader.node.membership().is_joint());
    let term = leader.node.term().0;
    for _ in 0..20 {
        for peer in [2, 3] {
            leader.receive(peer, term, Message::HeartbeatReply { round: 0, is_damaged: false });
        }
        leader.timeout();
        if leader.node.transfer_target().is_none() && !leader.node.membership().is_joint() {
            return;
        }
    }
    panic!("the transfer is given up, and the change goes on: {:?}", leader.node.membership());
}
