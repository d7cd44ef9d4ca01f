//! Bugs that Raft implementations have had, each as a test that this one survives it. The numbers are those of the table in
//! `docs/testing.md`, which says where each was seen, and which cases are tested elsewhere.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use raft_consensus::effects::{Effect, FatalError, IoToken, OrderError, ProposalId, Rejection};
use raft_consensus::membership::{ConfChange, Member, MemberChange, Membership, Standing};
use raft_consensus::message::{Message, ReadId};
use raft_consensus::progress::ProgressState;
use raft_consensus::raft_node::{Config, Event, Proposal, RaftNode, RecoverError, Role};
use raft_consensus::replica::{
    Input, Output, ProposalError, Replica, ReplicaConfig, Request, RequestId, SnapshotOutcome,
};
use raft_consensus::storage::{DamagedEntries, RecoveredState};
use raft_consensus::types::{
    EntryId, HardState, LogIndex, NodeId, Payload, SnapshotMeta, StoreId, Term,
};

use crate::script::subject::{
    ME, Sent, Subject, applied, batches, blank, entry, founded, id, members_entry, only, recovered,
    sent, store, terms,
};

fn vote(last: EntryId) -> Message {
    Message::Vote { last, transfer: false }
}

fn yes() -> Message {
    Message::VoteReply { granted: true }
}

fn heartbeat(commit: u64) -> Message {
    Message::Heartbeat { commit: LogIndex(commit), round: 0 }
}

fn snapshot(last: EntryId) -> SnapshotMeta {
    SnapshotMeta { last, membership: founded(3), size: 4, checksum: 0 }
}

fn chunk(meta: &SnapshotMeta) -> Message {
    Message::SnapshotChunk { meta: meta.clone(), offset: 0, data: Bytes::from("abcd") }
}

// Elections and votes.

/// Case 1.
#[test]
fn a_vote_is_not_told_before_it_is_durable_and_is_not_given_again_after_a_restart() {
    let mut subject = Subject::new(3, &[1]);
    let effects = subject.receive(2, 2, vote(id(1, 1)));
    let batch = batches(&effects)[0];
    let given = HardState { term: Term(2), voted_for: Some(NodeId(2)) };
    assert_eq!(batch.hard_state, Some(given));
    assert_eq!(only(&effects).after, Some(batch.token));
    let mut restarted = Subject::recovered(3, recovered(3, &[1], given));
    assert_eq!(
        only(&restarted.receive(3, 2, vote(id(5, 1)))).message,
        Message::VoteReply { granted: false }
    );
    assert_eq!(only(&restarted.receive(2, 2, vote(id(1, 1)))).message, yes());
}

/// Case 1, our own vote: it counts when it is durable.
#[test]
fn a_candidate_counts_its_own_vote_only_when_it_is_durable() {
    let mut subject = Subject::new(3, &[1]);
    subject.timeout();
    subject.receive(2, 1, Message::PreVoteReply { term: Term(2), granted: true });
    assert_eq!(subject.node.role(), Role::Candidate);
    subject.receive(2, 2, yes());
    assert_eq!(subject.node.role(), Role::Candidate, "its own is missing");
    subject.persist();
    assert_eq!(subject.node.role(), Role::Leader);
}

/// Case 2.
#[test]
fn a_later_term_in_a_reply_is_taken_over_and_is_never_a_vote() {
    for granted in [false, true] {
        let mut subject = Subject::new(3, &[1]);
        subject.campaign();
        subject.receive(2, 7, Message::VoteReply { granted });
        assert_eq!((subject.node.role(), subject.node.term()), (Role::Follower, Term(7)));
        subject.receive(2, 2, yes());
        assert_eq!((subject.node.role(), subject.node.term()), (Role::Follower, Term(7)));
    }
}

fn fatal(effects: &[Effect]) -> Option<&FatalError> {
    effects.iter().find_map(|effect| match effect {
        Effect::Fatal(error) => Some(error),
        _ => None,
    })
}

/// A member whose directory was copied or set back can win a term a second time. Nothing is safe any more then.
#[test]
fn a_second_leader_of_a_term_stops_the_node_whether_it_leads_or_follows() {
    let mut leader = Subject::new(3, &[1]);
    leader.lead();
    let term = leader.node.term();
    let effects = leader.receive(2, term.0, heartbeat(0));
    assert_eq!(fatal(&effects), Some(&FatalError::TwoLeaders(term)));
    assert_eq!(leader.node.next_deadline(), None);

    let mut follower = Subject::new(3, &[1]);
    follower.receive(2, 2, heartbeat(0));
    assert_eq!(fatal(&follower.append(2, 2, id(1, 1), vec![], 0)), None);
    let effects = follower.append(3, 2, id(1, 1), vec![], 0);
    assert_eq!(fatal(&effects), Some(&FatalError::TwoLeaders(Term(2))));
}

#[test]
fn a_stranger_that_claims_a_term_or_its_leadership_takes_nobody_down() {
    let mut leader = Subject::new(3, &[1]);
    leader.lead();
    let term = leader.node.term();
    leader.receive(9, term.0, heartbeat(0));
    leader.receive_from_store(2, StoreId(99), term.0, heartbeat(0));
    for absurd in [term.0 + (1 << 21), Term::MAX.0, Term::MAX.0 + 1, u64::MAX] {
        leader.receive(9, absurd, heartbeat(0));
        leader.receive(9, absurd, Message::VoteReply { granted: true });
        leader.receive_from_store(2, StoreId(99), absurd, heartbeat(0));
    }
    leader.receive(2, u64::MAX, heartbeat(0));
    assert_eq!((leader.node.role(), leader.node.term()), (Role::Leader, term));

    let mut follower = Subject::new(3, &[1]);
    follower.receive(9, 2, heartbeat(0));
    assert_eq!(fatal(&follower.receive(2, 2, heartbeat(0))), None);
    assert_eq!(follower.node.leader(), Some(NodeId(2)), "a member rather than a stranger");
    follower.receive(9, 2, heartbeat(0));
    assert_eq!(follower.node.leader(), Some(NodeId(2)));
    // One that was added by entries that we lack may well lead.
    follower.receive(9, 1_000, heartbeat(0));
    assert_eq!((follower.node.leader(), follower.node.term()), (Some(NodeId(9)), Term(1_000)));
}

#[test]
fn in_the_last_of_all_terms_a_node_does_not_campaign() {
    let mut subject = Subject::new(3, &[1]);
    subject.receive(2, Term::MAX.0, heartbeat(0));
    assert_eq!(subject.node.term(), Term::MAX);
    subject.receive(2, Term::MAX.0, Message::TimeoutNow);
    for _ in 0..3 {
        subject.timeout();
    }
    assert_eq!((subject.node.role(), subject.node.term()), (Role::Follower, Term::MAX));
    let state = recovered(3, &[1], HardState { term: Term(u64::MAX), voted_for: None });
    let config = Config::new(ME, store(1), founded(3));
    let error = RaftNode::recover(config, state, 7, Duration::ZERO).unwrap_err();
    assert!(matches!(error, RecoverError::Corrupt(_)), "{error}");
}

/// Two leaders of one term have each founded the cluster: a disk has lied, or a directory was copied.
#[test]
fn two_foundings_under_one_id_stop_whoever_sees_both() {
    let mut subject = Subject::recovered(3, blank());
    let founding = members_entry(1, 1, founded(3));
    subject.append(2, 1, EntryId::ZERO, vec![founding.clone()], 0);
    subject.persist();
    assert_eq!(fatal(&subject.append(2, 1, EntryId::ZERO, vec![founding], 0)), None);
    let mut others = founded(3);
    others.bind(NodeId(3), StoreId(99));
    let other_founding = members_entry(1, 1, others);
    let effects = subject.append(2, 1, EntryId::ZERO, vec![other_founding], 0);
    assert_eq!(fatal(&effects), Some(&FatalError::TwoLeaders(Term(1))));
    assert!(batches(&effects).is_empty() && sent(&effects).is_empty());
}

/// Case 3.
#[test]
fn repeated_late_and_foreign_votes_do_not_count() {
    let mut subject = Subject::new(5, &[1]);
    subject.campaign();
    for _ in 0..5 {
        subject.receive(2, 2, yes());
    }
    subject.receive(9, 2, yes());
    subject.receive_from_store(3, StoreId(99), 2, yes());
    subject.receive(4, 1, yes());
    assert_eq!(subject.node.role(), Role::Candidate, "two of five");
    subject.receive(3, 2, yes());
    assert_eq!(subject.node.role(), Role::Leader);
    // One that comes after the election is over.
    let term = subject.node.term();
    subject.receive(4, 2, yes());
    assert_eq!((subject.node.role(), subject.node.term()), (Role::Leader, term));
}

/// Case 5.
#[test]
fn a_pre_vote_brings_the_later_term_to_whoever_is_behind() {
    // The one that asks is behind: the answer bears our term.
    let mut subject = Subject::new(3, &[1, 4]);
    let reply = only(&subject.receive(2, 2, Message::PreVote { term: Term(3), last: id(9, 2) }));
    assert_eq!(
        (reply.term, reply.message),
        (Term(4), Message::PreVoteReply { term: Term(3), granted: false })
    );
    // We are behind: we take over the term and may say yes.
    let reply = only(&subject.receive(2, 6, Message::PreVote { term: Term(7), last: id(9, 6) }));
    assert_eq!(
        (reply.term, reply.message),
        (Term(6), Message::PreVoteReply { term: Term(7), granted: true })
    );
    // An answer from a later term ends our own attempt.
    subject.persist();
    subject.timeout();
    subject.receive(3, 8, Message::PreVoteReply { term: Term(7), granted: false });
    assert_eq!((subject.node.role(), subject.node.term()), (Role::Follower, Term(8)));
}

/// Case 6.
#[test]
fn a_pre_vote_is_no_sign_of_life_of_a_leader_and_the_leader_itself_may_ask() {
    let mut subject = Subject::new(3, &[1]);
    let ask = Message::PreVote { term: Term(2), last: id(1, 1) };
    let granted = |granted| Message::PreVoteReply { term: Term(2), granted };
    let deadline = subject.node.next_deadline();
    assert_eq!(only(&subject.receive(2, 1, ask.clone())).message, granted(true));
    assert_eq!(
        only(&subject.receive(3, 1, ask.clone())).message,
        granted(true),
        "it does not bind us"
    );
    assert_eq!(subject.node.next_deadline(), deadline, "nor put off our own election");
    // With a leader in contact nobody gets a yes but the leader: if it asks, it leads no more.
    subject.receive(2, 1, heartbeat(0));
    assert_eq!(only(&subject.receive(3, 1, ask.clone())).message, granted(false));
    assert_eq!(only(&subject.receive(2, 1, ask)).message, granted(true));
}

/// Case 8: of two nodes that collided once, the deadlines part.
#[test]
fn nodes_that_campaign_at_once_do_not_collide_for_ever() {
    let node = |seed: u64| {
        let config = Config::new(ME, store(1), founded(3));
        let state = recovered(3, &[1], HardState { term: Term(1), voted_for: None });
        RaftNode::recover(config, state, seed, Duration::ZERO).unwrap()
    };
    let mut timeouts: Vec<Vec<Duration>> = Vec::new();
    for seed in [1, 2] {
        let mut node = node(seed);
        let mut drawn = Vec::new();
        let mut now = Duration::ZERO;
        for _ in 0..5 {
            let deadline = node.next_deadline().unwrap();
            drawn.push(deadline - now);
            now = deadline;
            node.step(now, Event::Timeout, &mut raft_consensus::effects::Effects::new());
        }
        timeouts.push(drawn);
    }
    assert_ne!(timeouts[0], timeouts[1]);
    assert!(timeouts.iter().all(|drawn| drawn.iter().any(|&timeout| timeout != drawn[0])));
}

/// Case 10: more in `membership/removed_node_stays_quiet`. Who is not known here may have been made a voter by entries that we lack, and gets
/// a vote (`membership/lagging_voter_votes_for_whom_it_does_not_know`); but it deposes no leader in contact, and joins nothing.
#[test]
fn a_stranger_does_not_depose_a_leader_in_contact_and_does_not_become_a_member() {
    let mut follower = Subject::recovered(3, blank());
    assert_eq!(
        only(&follower.receive(9, 0, Message::PreVote { term: Term(1), last: id(9, 0) })).message,
        Message::PreVoteReply { term: Term(1), granted: false },
        "founders know each other"
    );
    let mut leader = Subject::new(3, &[1]);
    leader.lead_settled();
    assert!(sent(&leader.receive(9, 8, vote(id(9, 9)))).is_empty());
    assert_eq!((leader.node.role(), leader.node.term()), (Role::Leader, Term(2)));
    leader.receive(9, 2, Message::HeartbeatReply { round: 0, is_damaged: false });
    assert_eq!(leader.node.membership(), &founded(3), "nor does it become a member");
}

// Log and commit.

/// Case 12, whether the follower knows what is committed or not.
#[test]
fn an_append_that_is_there_already_removes_nothing_behind_it() {
    for commit in [0, 2, 4] {
        let mut subject = Subject::new(3, &[1]);
        subject.append(2, 1, id(1, 1), vec![entry(2, 1), entry(3, 1), entry(4, 1)], commit);
        subject.persist();
        for (previous, entries) in [
            (id(1, 1), vec![entry(2, 1)]),
            (id(2, 1), vec![entry(3, 1)]),
            (id(1, 1), Vec::new()),
            (id(0, 0), Vec::new()),
        ] {
            let effects = subject.append(2, 1, previous, entries, 0);
            assert_eq!(
                (terms(&subject.node), subject.node.commit()),
                (vec![1; 4], LogIndex(commit))
            );
            assert!(batches(&effects).is_empty());
        }
    }
}

/// Case 13: in whatever order acknowledgements come, commit is the greatest place that a majority has.
#[test]
fn commit_is_what_a_majority_has_in_every_order_of_acknowledgements() {
    let acknowledgements = [(2, 3), (3, 5), (4, 4), (5, 6), (2, 6)];
    for order in permutations(acknowledgements.len()) {
        let mut subject = Subject::new(5, &[1]);
        subject.lead_settled();
        for command in ["a", "b", "c", "d"] {
            subject.propose(command);
        }
        let mut matched = BTreeMap::from([(2, 2), (3, 2), (4, 2), (5, 2)]);
        let mut own = 2;
        for (place, &which) in order.iter().enumerate() {
            let (peer, index) = acknowledgements[which];
            subject.accepted(peer, index);
            matched.entry(peer).and_modify(|matched| *matched = index.max(*matched));
            if place == 2 {
                subject.persist();
                own = 6;
            }
            let mut all: Vec<u64> = matched.values().copied().chain([own]).collect();
            all.sort_unstable();
            assert_eq!(subject.node.commit().0, all[2], "{order:?} at {place}");
        }
    }
}

fn permutations(length: usize) -> Vec<Vec<usize>> {
    if length == 0 {
        return vec![Vec::new()];
    }
    let shorter = permutations(length - 1);
    let insert = |order: &Vec<usize>, at: usize| {
        let mut order = order.clone();
        order.insert(at, length - 1);
        order
    };
    (0..length).flat_map(|at| shorter.iter().map(move |order| insert(order, at))).collect()
}

/// Case 14.
#[test]
fn answers_of_an_earlier_term_and_late_refusals_are_ignored() {
    let mut subject = Subject::new(3, &[1, 1, 1]);
    subject.lead();
    subject.receive(2, 1, Message::AppendAccepted { matched: LogIndex(4) });
    assert_eq!(subject.node.commit(), LogIndex(0));
    subject.accepted(2, 4);
    assert_eq!(subject.node.commit(), LogIndex(4));
    // A refusal from before that acknowledgement does not lead back behind it.
    let late = Message::AppendRejected { rejected: LogIndex(3), hint: id(1, 1) };
    assert!(sent(&subject.receive(2, 2, late)).is_empty());
    let (_, progress) = subject.node.progress().next().unwrap();
    assert_eq!((progress.matched, progress.next), (LogIndex(4), LogIndex(5)));
    // Nor does anybody acknowledge what the leader does not have.
    subject.accepted(3, 99);
    assert_eq!(subject.node.commit(), LogIndex(4));
}

/// Case 15.
#[test]
fn a_heartbeat_speaks_of_no_place_that_the_follower_lacks() {
    let mut subject = Subject::new(3, &[1, 1, 1]);
    subject.lead();
    subject.accepted(2, 4);
    subject.accepted(3, 2);
    let effects = subject.timeout();
    let told: BTreeMap<NodeId, LogIndex> = sent(&effects)
        .into_iter()
        .filter_map(|sent| match sent.message {
            Message::Heartbeat { commit, .. } => Some((sent.to, commit)),
            _ => None,
        })
        .collect();
    assert_eq!(told, BTreeMap::from([(NodeId(2), LogIndex(4)), (NodeId(3), LogIndex(2))]));
    // And a follower that is told more, by whatever mistake, does not believe it.
    let mut follower = Subject::new(3, &[1, 1]);
    follower.receive(2, 1, heartbeat(9));
    assert_eq!(follower.node.commit(), LogIndex(0));
}

/// Case 16.
#[test]
fn the_first_entry_of_a_term_counts_at_home_only_when_it_is_durable() {
    let mut subject = Subject::new(3, &[1]);
    subject.campaign();
    subject.receive(2, 2, yes());
    assert_eq!(subject.node.role(), Role::Leader);
    subject.accepted(2, 2);
    assert_eq!(subject.node.commit(), LogIndex(0), "one follower, and not the leader's own disk");
    subject.persist();
    assert_eq!(subject.node.commit(), LogIndex(2));
    // On a majority of others it is committed without the leader's disk.
    let mut subject = Subject::new(3, &[1]);
    subject.campaign();
    subject.receive(2, 2, yes());
    subject.accepted(2, 2);
    let effects = subject.accepted(3, 2);
    assert_eq!((subject.node.commit(), applied(&effects)), (LogIndex(2), vec![1]));
    assert_eq!(applied(&subject.persist()), [2]);
}

/// Case 17.
#[test]
fn a_single_voter_commits_nothing_that_is_not_durable() {
    let mut subject = Subject::new(1, &[1]);
    subject.lead_settled();
    let effects = subject.propose("x");
    assert_eq!((subject.node.commit(), applied(&effects)), (LogIndex(2), Vec::new()));
    assert_eq!(applied(&subject.persist()), [3]);
}

/// Cases 18 and 19: completions that are late, repeated or ahead.
#[test]
fn completions_count_for_what_they_covered_in_every_order() {
    let mut subject = Subject::new(3, &[1]);
    let write = |subject: &mut Subject, from, term, previous, index| {
        let effects = subject.append(from, term, previous, vec![entry(index, term)], 0);
        batches(&effects)[0].token
    };
    let first = write(&mut subject, 2, 1, id(1, 1), 2);
    let replaced = write(&mut subject, 2, 1, id(2, 1), 3);
    // Another leader removes entry 3 and puts its own there, while the write of the old one is under way.
    let replacing = write(&mut subject, 3, 2, id(2, 1), 3);
    assert!(first < replaced && replaced < replacing);
    subject.step(Event::Persisted(replaced));
    assert_eq!(subject.node.log().durable(), LogIndex(2));
    subject.step(Event::Persisted(first));
    assert_eq!(subject.node.log().durable(), LogIndex(2));
    subject.step(Event::Persisted(replacing));
    subject.step(Event::Persisted(replaced));
    subject.step(Event::Persisted(IoToken(0)));
    assert_eq!(subject.node.log().durable(), LogIndex(3));
    assert_eq!(terms(&subject.node), [1, 1, 2]);
}

/// Case 20.
#[test]
fn a_leader_that_has_dropped_its_whole_log_sends_an_unknown_follower_a_snapshot() {
    let mut state = recovered(3, &[1, 1, 1], HardState { term: Term(1), voted_for: None });
    state.snapshot = Some(snapshot(id(3, 1)));
    state.terms.compact(LogIndex(3));
    state.memberships.clear();
    state.tail.clear();
    let mut subject = Subject::recovered(3, state);
    subject.lead();
    let rejected = Message::AppendRejected { rejected: LogIndex(3), hint: id(0, 0) };
    let effects = subject.receive(2, 2, rejected);
    let expected = Effect::ReadSnapshot { to: NodeId(2), meta: snapshot(id(3, 1)), offset: 0 };
    assert!(effects.contains(&expected), "{effects:?}");
    // When it is in force there, what follows is sent.
    let ack = Message::SnapshotAck { last: id(3, 1), offset: 4, installed: true };
    let Message::Append { previous, .. } = only(&subject.receive(2, 2, ack)).message else {
        panic!("an append")
    };
    assert_eq!(previous, id(3, 1));
}

/// Case 22: whatever a follower says, what is next lies above what is known to match.
#[test]
fn next_is_always_above_matched() {
    let mut answers = Vec::new();
    for index in 0..=7 {
        answers.push(Message::AppendAccepted { matched: LogIndex(index) });
        for hint in 0..=7 {
            for term in 0..=2 {
                let rejected = LogIndex(index);
                answers.push(Message::AppendRejected { rejected, hint: id(hint, term) });
            }
        }
    }
    answers.push(Message::HeartbeatReply { round: 0, is_damaged: false });
    // Steps of a size without common factors with the list's length visit the answers in a mixed-up order, a few times over.
    let mut subject = Subject::new(3, &[1, 1, 1, 1, 1]);
    subject.lead();
    for step in 0..answers.len() * 4 {
        let answer = answers[step * 89 % answers.len()].clone();
        subject.now += Duration::from_millis(7);
        subject.receive(2 + step as u64 % 2, 2, answer);
        for (_, progress) in subject.node.progress() {
            assert!(progress.next > progress.matched, "{progress:?}");
            assert!(progress.next <= subject.node.log().last().index.next(), "{progress:?}");
        }
    }
    assert_eq!(subject.node.commit(), LogIndex(6), "all of it was acknowledged in the end");
}

/// Case 29.
#[test]
fn nothing_is_applied_beyond_what_is_committed_and_durable() {
    for (commit, durable, expected) in
        [(0, true, vec![]), (3, true, vec![1, 2, 3]), (4, false, vec![1]), (2, false, vec![1])]
    {
        let mut subject = Subject::new(3, &[1]);
        let mut effects =
            subject.append(2, 1, id(1, 1), vec![entry(2, 1), entry(3, 1), entry(4, 1)], commit);
        if durable {
            effects.extend(subject.persist());
        }
        assert_eq!(applied(&effects), expected, "commit {commit}");
    }
}

/// Case 43.
#[test]
fn term_vote_truncation_and_entries_are_one_write() {
    let mut subject = Subject::new(3, &[1, 1, 1]);
    let effects = subject.append(2, 3, id(1, 1), vec![entry(2, 3)], 2);
    let writes = batches(&effects);
    assert_eq!(writes.len(), 1);
    assert_eq!(writes[0].hard_state, Some(HardState { term: Term(3), voted_for: None }));
    assert_eq!(writes[0].truncate_from, Some(LogIndex(2)));
    assert_eq!(*writes[0].entries, [entry(2, 3)]);
    assert!(matches!(effects[0], Effect::Persist(_)), "the write comes before what waits for it");
}

/// Case 43: commit is never beyond the last entry, and a log that contradicts its hard state is refused.
#[test]
fn a_commit_index_beyond_the_log_is_cut_and_a_term_behind_the_log_is_refused() {
    let mut subject = Subject::new(3, &[1]);
    subject.append(2, 1, id(1, 1), vec![entry(2, 1)], 77);
    assert_eq!(subject.node.commit(), LogIndex(2));
    let state = recovered(3, &[1, 5], HardState { term: Term(4), voted_for: None });
    let config = Config::new(ME, store(1), founded(3));
    let result = RaftNode::recover(config, state, 1, Duration::ZERO);
    assert!(matches!(result, Err(RecoverError::Corrupt(_))), "{result:?}");
}

/// Case 44.
#[test]
fn a_failed_write_stops_the_node_for_good() {
    let mut subject = Subject::new(3, &[1]);
    subject.lead_settled();
    subject.propose("x");
    let effects = subject.step(Event::PersistFailed("EIO".to_owned()));
    assert_eq!(effects, [Effect::Fatal(FatalError::Storage("EIO".to_owned()))]);
    assert!(subject.persist().is_empty());
    assert!(subject.accepted(2, 3).is_empty());
    assert_eq!((subject.node.next_deadline(), subject.node.commit()), (None, LogIndex(2)));
}

// Reads.

fn read(counter: u64) -> ReadId {
    ReadId { node: ME, boot: 1, counter }
}

/// Cases 24 and 25.
#[test]
fn a_delayed_heartbeat_reply_confirms_no_later_read_and_no_read_goes_without_a_majority() {
    let mut subject = Subject::new(5, &[1]);
    subject.lead_settled();
    let reply = |round| Message::HeartbeatReply { round, is_damaged: false };
    let ready = |effects: &[Effect]| {
        effects.iter().any(|effect| matches!(effect, Effect::ReadReady { .. }))
    };
    subject.step(Event::ReadIndex(read(1)));
    assert!(!ready(&subject.receive(2, 2, reply(1))));
    assert!(ready(&subject.receive(3, 2, reply(1))));
    // Everything is applied, the index is known: the second read needs a majority nonetheless.
    let last = subject.node.commit();
    subject.step(Event::Applied(last));
    assert!(!ready(&subject.step(Event::ReadIndex(read(2)))));
    for late in [2, 3, 4, 5] {
        assert!(!ready(&subject.receive(late, 2, reply(1))), "a reply to round 1");
        assert!(!ready(&subject.receive(late, 2, reply(77))), "a round that was never begun");
    }
    assert!(!ready(&subject.receive(4, 2, reply(2))));
    assert!(ready(&subject.receive(5, 2, reply(2))));
}

/// Case 23.
#[test]
fn no_read_before_the_first_commit_of_the_term() {
    let mut subject = Subject::new(3, &[1, 1]);
    subject.lead();
    let effects = subject.step(Event::ReadIndex(read(1)));
    assert!(sent(&effects).is_empty());
    subject.receive(2, 2, Message::HeartbeatReply { round: 0, is_damaged: false });
    let effects = subject.accepted(2, 3);
    let rounds = sent(&effects)
        .iter()
        .filter(|sent| matches!(sent.message, Message::Heartbeat { round: 1, .. }))
        .count();
    assert_eq!(rounds, 2);
    let effects = subject.receive(2, 2, Message::HeartbeatReply { round: 1, is_damaged: false });
    assert!(effects.contains(&Effect::ReadReady { id: read(1), index: LogIndex(3) }));
}

/// Case 28: what a restarted node serves is confirmed by the leader, and it waits until it has applied that far.
#[test]
fn a_restarted_node_serves_no_read_before_it_has_applied_what_was_committed() {
    let mut replica =
        replica(recovered(3, &[1, 1, 1], HardState { term: Term(1), voted_for: None }));
    let mut out = replica.receive(2, 1, heartbeat(0));
    let requests = vec![RequestId(1)];
    out.extend(replica.handle(Input::Read { requests, deadline: Duration::from_secs(9) }));
    let asked = out.iter().find_map(|output| match output {
        Output::Send(envelope) => match envelope.message {
            Message::ReadIndex { id } => Some(id),
            _ => None,
        },
        _ => None,
    });
    let id = asked.expect("it asks the leader");
    let reply = Message::ReadIndexReply { id, index: Some(LogIndex(3)) };
    assert!(!is_served(&replica.receive(2, 1, reply)));
    replica.receive(2, 1, heartbeat(3));
    assert!(is_served(&replica.apply(3, 1)));
}

fn is_served(out: &[Output]) -> bool {
    out.iter().any(|output| matches!(output, Output::ReadReady(_)))
}

// Members and snapshots.

/// Case 32: more in `membership/uncommitted_members_are_rolled_back`.
#[test]
fn members_go_with_the_entry_that_brought_them() {
    let mut subject = Subject::new(3, &[1]);
    let two = founded(3).changed(&[MemberChange::Remove(NodeId(3))]).unwrap();
    let change = members_entry(2, 1, two.clone());
    subject.append(2, 1, id(1, 1), vec![change, entry(3, 1)], 0);
    assert_eq!(subject.node.membership(), &two, "in force, committed or not");
    let effects = subject.append(3, 2, id(1, 1), vec![entry(2, 2)], 0);
    assert_eq!(subject.node.membership(), &founded(3));
    assert!(effects.contains(&Effect::MembershipChanged(founded(3))));
}

/// Case 35.
#[test]
fn members_found_in_the_log_count_from_the_start() {
    let mut state = recovered(3, &[1, 1], HardState { term: Term(1), voted_for: None });
    let five = founded(5);
    state.tail[1].payload = Payload::Membership(five.clone());
    state.memberships.push((LogIndex(2), five.clone()));
    let mut subject = Subject::recovered(3, state);
    assert_eq!(subject.node.membership(), &five);
    subject.campaign();
    subject.receive(2, 2, yes());
    assert_eq!(subject.node.role(), Role::Candidate, "two of five");
    subject.receive(5, 2, yes());
    assert_eq!(subject.node.role(), Role::Leader);
}

/// Case 36.
#[test]
fn a_node_id_on_another_data_directory_is_refused() {
    let config = Config::new(ME, StoreId(77), founded(3));
    let state = recovered(3, &[1], HardState { term: Term(1), voted_for: None });
    let result = RaftNode::recover(config, state, 1, Duration::ZERO);
    let expected = RecoverError::WrongStore { node: ME, bound: store(1), store: StoreId(77) };
    assert_eq!(result.err(), Some(expected));
    // An acknowledgement of such a node counts for nothing, and it is told so.
    let mut subject = Subject::new(3, &[1]);
    subject.lead();
    let ack = Message::AppendAccepted { matched: LogIndex(2) };
    let effects = subject.receive_from_store(2, StoreId(99), 2, ack);
    assert_eq!(only(&effects).message, Message::WrongStore { bound: store(2) });
    assert_eq!(subject.node.commit(), LogIndex(0));
}

/// Case 36: a founder counts only once it is bound to its data directory.
#[test]
fn a_majority_of_founders_that_are_not_bound_elects_nobody() {
    let mut subject = Subject::recovered(3, blank());
    subject.timeout();
    let yes_then = Message::PreVoteReply { term: Term(1), granted: true };
    subject.receive(2, 0, yes_then.clone());
    assert_eq!(subject.node.role(), Role::PreCandidate, "no term is raised before all are there");
    subject.receive(3, 0, yes_then);
    subject.receive(2, 1, yes());
    subject.persist();
    assert_eq!(subject.node.role(), Role::Candidate, "two of three");
    subject.receive(3, 1, yes());
    assert_eq!(subject.node.role(), Role::Leader);
    for node in 1..=3 {
        assert_eq!(subject.node.membership().store_of(NodeId(node)), Some(store(node)));
    }
    subject.persist();
    subject.accepted(2, 1);
    assert_eq!(subject.node.commit(), LogIndex(1), "what follows needs a majority");
}

/// Case 36: it would vote for both directories of a founder that was wiped between its two candidacies, which both lead the term then.
#[test]
fn a_founder_that_may_have_been_wiped_does_not_get_a_vote_of_the_same_term_again() {
    let mut subject = Subject::recovered(3, blank());
    let ask = || vote(EntryId::ZERO);
    assert_eq!(only(&subject.receive(2, 1, ask())).message, yes());
    assert_eq!(only(&subject.receive(2, 1, ask())).message, yes(), "the request was repeated");
    let no = Message::VoteReply { granted: false };
    assert_eq!(only(&subject.receive_from_store(2, StoreId(99), 1, ask())).message, no);
    let given = HardState { term: Term(1), voted_for: Some(NodeId(2)) };
    let state = RecoveredState { hard_state: given, ..blank() };
    let mut restarted = Subject::recovered(3, state);
    assert_eq!(only(&restarted.receive_from_store(2, StoreId(99), 1, ask())).message, no);
    assert_eq!(only(&restarted.receive_from_store(2, StoreId(99), 2, ask())).message, yes());
}

/// It answers heartbeats, and everything else of it looks as if it kept up.
#[test]
fn a_follower_with_a_damaged_log_is_no_successor_and_no_voter_to_count_on() {
    let mut subject = Subject::new(3, &[1]);
    subject.lead_settled();
    let reply = |is_damaged| Message::HeartbeatReply { round: 0, is_damaged };
    let term = subject.node.term().0;
    let transfer = |subject: &mut Subject, to: Option<u64>| {
        subject.step(Event::TransferLeader(ProposalId(90), to.map(NodeId)))
    };
    subject.receive(2, term, reply(true));
    let error = OrderError::NotInSync(NodeId(2));
    assert!(
        transfer(&mut subject, Some(2))
            .contains(&Effect::OrderFailed { id: ProposalId(90), error })
    );
    // Without node 3, whatever is left could commit nothing.
    let remove = ConfChange::remove(NodeId(3));
    let effects = subject.step(Event::ChangeMembership(ProposalId(91), remove));
    let error = OrderError::WouldLoseQuorum;
    assert!(effects.contains(&Effect::OrderFailed { id: ProposalId(91), error }));
    assert_eq!(only(&transfer(&mut subject, None)).to, NodeId(3), "not the first of two equals");

    let mut subject = Subject::new(3, &[1]);
    subject.lead_settled();
    subject.receive(2, term, reply(true));
    subject.receive(2, term, reply(false));
    assert_eq!(only(&transfer(&mut subject, None)).to, NodeId(2), "it is repaired");
}

#[test]
fn a_follower_tells_its_leader_that_its_log_is_damaged_until_it_is_not() {
    let mut subject = Subject::new(3, &[1, 1]);
    let reply = |is_damaged| Message::HeartbeatReply { round: 0, is_damaged };
    assert_eq!(only(&subject.receive(2, 1, heartbeat(0))).message, reply(false));
    subject.step(Event::EntriesDamaged { first: LogIndex(2), last: LogIndex(2) });
    assert_eq!(only(&subject.receive(2, 1, heartbeat(0))).message, reply(true));
}

/// A wiped founder gets the founding entry, which binds its id to the directory that it lost: its own vote counts as little as it does for
/// others.
#[test]
fn a_candidate_whose_id_is_bound_to_another_directory_does_not_count_itself() {
    let mut subject = Subject::recovered(3, blank());
    let mut members = founded(3);
    members.bind(ME, StoreId(99));
    let founding = members_entry(1, 1, members);
    subject.append(2, 1, EntryId::ZERO, vec![founding], 0);
    subject.persist();
    subject.timeout();
    let yes_then = Message::PreVoteReply { term: Term(2), granted: true };
    subject.receive(2, 1, yes_then.clone());
    assert_eq!(subject.node.role(), Role::PreCandidate, "one of three");
    subject.receive(3, 1, yes_then);
    subject.persist();
    subject.receive(2, 2, yes());
    assert_eq!(subject.node.role(), Role::Candidate, "one of three");
}

/// Its own vote is one of the old voters, and none of the new.
#[test]
fn a_leaving_candidate_counts_its_own_vote_among_the_old_voters_only() {
    let mut subject = Subject::new(3, &[1]);
    let mut joint = founded(5);
    let stands = [
        Standing::Leaving,
        Standing::Leaving,
        Standing::Voter,
        Standing::Entering,
        Standing::Entering,
    ];
    for (node, standing) in (1..).zip(stands) {
        joint.insert(NodeId(node), Member { standing, ..Member::voter(store(node)) });
    }
    let change = members_entry(2, 1, joint);
    subject.append(2, 1, id(1, 1), vec![change], 1);
    subject.campaign();
    subject.receive(2, 2, yes());
    subject.receive(4, 2, yes());
    assert_eq!(subject.node.role(), Role::Candidate, "two of the old, one of the new");
    subject.receive(5, 2, yes());
    assert_eq!(subject.node.role(), Role::Leader);
}

/// Whoever leads next may finish the change, or never have heard of it.
#[test]
fn an_order_under_way_is_answered_with_unknown_when_its_leader_steps_down() {
    let mut subject = Subject::new(3, &[1]);
    subject.lead_settled();
    let order = ProposalId(90);
    let effects = subject.step(Event::ChangeMembership(order, ConfChange::remove(NodeId(3))));
    assert!(effects.iter().any(|effect| matches!(effect, Effect::Ordered { .. })));
    let term = subject.node.term().0;
    let effects = subject.receive(2, term + 1, heartbeat(0));
    let unknown = Effect::OrderFailed { id: order, error: OrderError::Unknown };
    assert_eq!(effects.iter().filter(|effect| **effect == unknown).count(), 1);
}

/// Case 36.
#[test]
fn a_node_whose_id_is_bound_to_another_directory_stops_when_that_is_committed() {
    let mut config = Config::new(NodeId(4), store(4), Membership::default());
    config.boot = 1;
    let mut subject = Subject::configured(config, blank());
    let mut four = founded(3);
    four.insert(NodeId(4), Member::learner(StoreId(99)));
    let log = [members_entry(1, 1, founded(3)), members_entry(2, 1, four)];
    let append = |commit| Message::Append {
        previous: EntryId::ZERO,
        entries: log.to_vec().into(),
        commit: LogIndex(commit),
    };
    assert_eq!(fatal(&subject.receive(2, 1, append(1))), None, "it may be taken back");
    let effects = subject.receive(2, 1, append(2));
    assert_eq!(fatal(&effects), Some(&FatalError::WrongStore { bound: StoreId(99) }));
}

#[test]
fn a_stranger_persuades_nobody_that_it_is_removed_or_has_another_directory() {
    let mut subject = Subject::new(3, &[1]);
    subject.receive(9, 1, Message::Removed);
    subject.receive_from_store(2, StoreId(99), 1, Message::Removed);
    let wrong = Message::WrongStore { bound: StoreId(99) };
    assert_eq!(fatal(&subject.receive(2, 1, wrong.clone())), None, "the log knows better");
    assert!(!subject.node.is_removed());
    let mut blank = Subject::recovered(3, blank());
    assert_eq!(fatal(&blank.receive(9, 1, wrong.clone())), None, "not a founder");
    let effects = blank.receive(2, 1, wrong);
    assert_eq!(fatal(&effects), Some(&FatalError::WrongStore { bound: StoreId(99) }));
    subject.receive(2, 1, Message::Removed);
    assert!(subject.node.is_removed(), "a voter has said so");
}

/// Each of these would be installed, and have the node panic later.
#[test]
fn a_snapshot_that_no_cluster_can_have_come_to_is_refused() {
    let mut nobody = snapshot(id(9, 1));
    nobody.membership = Membership::default();
    let mut unbound = snapshot(id(9, 1));
    unbound.membership = Membership::founding([ME]);
    let mut learners = snapshot(id(9, 1));
    learners.membership = Membership::default();
    learners.membership.insert(ME, Member::learner(store(1)));
    for meta in [
        snapshot(id(u64::MAX, 1)),
        snapshot(id(LogIndex::MAX.0 + 1, 1)),
        snapshot(id(9, 2)),
        snapshot(id(9, 0)),
        nobody,
        unbound,
        learners,
    ] {
        let mut subject = Subject::new(3, &[1]);
        subject.append(2, 1, id(1, 1), vec![], 1);
        let effects = subject.receive(2, 1, chunk(&meta));
        assert!(
            !effects.iter().any(|effect| matches!(effect, Effect::WriteSnapshot { .. })),
            "{meta:?}"
        );
    }
}

/// Case 37.
#[test]
fn a_snapshot_over_an_uncommitted_change_of_members_brings_its_own() {
    let mut subject = Subject::new(3, &[1]);
    let mut changed = founded(3);
    changed.insert(NodeId(4), Member::voter(store(4)));
    let change = members_entry(2, 1, changed.clone());
    subject.append(2, 1, id(1, 1), vec![change], 0);
    subject.persist();
    assert_eq!(subject.node.membership(), &changed);
    let meta = snapshot(id(5, 2));
    subject.receive(3, 2, chunk(&meta));
    subject.step(Event::SnapshotWritten { meta, offset: 4, is_complete: true });
    subject.persist();
    assert_eq!(subject.node.membership(), &founded(3));
    assert_eq!(subject.node.membership_at(LogIndex(5)), &founded(3));
}

/// Case 38.
#[test]
fn a_snapshot_right_after_a_change_of_members_contains_it() {
    let mut replica = replica(recovered(3, &[1], HardState { term: Term(1), voted_for: None }));
    let mut changed = founded(3);
    changed.insert(NodeId(4), Member::voter(store(4)));
    let change = members_entry(2, 1, changed.clone());
    let previous = id(1, 1);
    replica.receive(
        2,
        1,
        Message::Append { previous, entries: vec![change].into(), commit: LogIndex(2) },
    );
    replica.persist(1);
    replica.apply(1, 1);
    replica.apply(2, 1);
    let out = replica.handle(Input::TakeSnapshot);
    let taken = out.iter().find_map(|output| match output {
        Output::TakeSnapshot { last, membership } => Some((*last, membership.clone())),
        _ => None,
    });
    assert_eq!(taken, Some((id(2, 1), changed)));
}

/// Case 39.
#[test]
fn a_snapshot_that_contradicts_what_is_committed_is_not_installed() {
    let mut subject = Subject::new(3, &[1, 1, 1]);
    subject.receive(2, 1, heartbeat(3));
    for meta in [snapshot(id(2, 1)), snapshot(id(3, 2))] {
        let effects = subject.receive(2, 2, chunk(&meta));
        assert!(!effects.iter().any(|effect| matches!(effect, Effect::WriteSnapshot { .. })));
        let effects = subject.step(Event::SnapshotWritten { meta, offset: 4, is_complete: true });
        assert!(effects.is_empty(), "{effects:?}");
        assert_eq!(terms(&subject.node), [1, 1, 1]);
    }
}

/// Case 41: an answer to a piece that came twice must not say that the snapshot is in force before the log is restarted behind it on disk.
/// Otherwise a crash leaves a leader that believes in entries which the follower does not have.
#[test]
fn a_repeated_piece_is_not_acknowledged_before_the_log_is_restarted() {
    let mut subject = Subject::new(3, &[1]);
    let meta = snapshot(id(9, 2));
    subject.receive(2, 2, chunk(&meta));
    subject.persist();
    let written = Event::SnapshotWritten { meta: meta.clone(), offset: 4, is_complete: true };
    let effects = subject.step(written);
    let token = batches(&effects)[0].token;
    assert_eq!(only(&effects).after, Some(token));
    let repeated = subject.receive(2, 2, chunk(&meta));
    assert_eq!(only(&repeated).after, Some(token));
    // The same for an append that ends where the snapshot does.
    let probe = subject.append(2, 2, id(9, 2), Vec::new(), 9);
    assert_eq!(only(&probe).after, Some(token));
    let restored = subject.persist();
    assert!(restored.contains(&Effect::Restore(meta)));
}

/// Case 41: a write from before the snapshot completes first. It says nothing about the snapshot.
#[test]
fn an_earlier_write_that_completes_does_not_restore_a_snapshot() {
    let mut subject = Subject::new(3, &[1]);
    let earlier = subject.append(2, 1, id(1, 1), vec![entry(2, 1)], 0);
    let earlier = batches(&earlier)[0].token;
    let meta = snapshot(id(9, 1));
    subject.receive(2, 1, chunk(&meta));
    subject.step(Event::SnapshotWritten { meta: meta.clone(), offset: 4, is_complete: true });
    let restore = Effect::Restore(meta);
    assert!(!subject.step(Event::Persisted(earlier)).contains(&restore));
    assert!(subject.persist().contains(&restore));
}

/// Case 41: success means restored, not transferred.
#[test]
fn a_replica_has_applied_a_snapshot_only_when_its_machine_has() {
    let mut replica = replica(recovered(3, &[1], HardState { term: Term(1), voted_for: None }));
    let meta = snapshot(id(9, 1));
    replica.receive(2, 1, chunk(&meta));
    replica.handle(Input::SnapshotWritten { meta: meta.clone(), offset: 4, is_complete: true });
    assert_eq!(replica.replica.applied(), EntryId::ZERO);
    let out = replica.persist(1);
    assert!(out.iter().any(|output| matches!(output, Output::Restore(_))));
    assert_eq!(replica.replica.applied(), EntryId::ZERO);
    replica.handle(Input::Restored(id(9, 1)));
    assert_eq!(replica.replica.applied(), id(9, 1));
}

/// A follower whose snapshot stalls does not hold up compaction for ever, nor do others wait for it (case 49, the core's share).
#[test]
fn a_silent_receiver_of_a_snapshot_does_not_hold_up_compaction() {
    let mut config = Config::new(ME, store(1), founded(3));
    config.kept_entries = 0;
    let mut state = recovered(3, &[1, 1, 1], HardState { term: Term(1), voted_for: None });
    state.snapshot = Some(snapshot(id(3, 1)));
    state.terms.compact(LogIndex(3));
    state.memberships.clear();
    state.tail.clear();
    let mut subject = Subject::configured(config, state);
    subject.lead();
    subject.accepted(3, 4);
    subject.receive(2, 2, Message::AppendRejected { rejected: LogIndex(3), hint: id(0, 0) });
    let state = |subject: &Subject| subject.node.progress().next().unwrap().1.state.clone();
    assert!(matches!(state(&subject), ProgressState::Snapshot { .. }));
    subject.step(Event::Applied(LogIndex(4)));
    let built = Event::SnapshotBuilt(snapshot(id(4, 2)));
    subject.step(built);
    let effects = subject.persist();
    assert!(
        !effects.contains(&Effect::Compact(LogIndex(4))),
        "it is heard from: what follows its snapshot stays"
    );
    subject.propose("x");
    subject.persist();
    subject.accepted(3, 5);
    subject.step(Event::Applied(LogIndex(5)));
    // Nothing is heard from it for an election timeout.
    subject.now += Duration::from_millis(301);
    subject.step(Event::SnapshotBuilt(snapshot(id(5, 2))));
    assert!(subject.persist().contains(&Effect::Compact(LogIndex(5))));
}

/// A follower that cannot take in a snapshot begins anew with the latest one: else it would hold up compaction behind an old one for
/// ever, alive as it is.
#[test]
fn a_receiver_that_begins_anew_gets_the_latest_snapshot_and_holds_up_nothing_before_it() {
    for had_some_of_it in [true, false] {
        let mut config = Config::new(ME, store(1), founded(3));
        config.kept_entries = 0;
        let mut state = recovered(3, &[1, 1, 1], HardState { term: Term(1), voted_for: None });
        state.snapshot = Some(snapshot(id(3, 1)));
        state.terms.compact(LogIndex(3));
        state.memberships.clear();
        state.tail.clear();
        let mut subject = Subject::configured(config, state);
        subject.lead();
        subject.accepted(3, 4);
        subject.receive(2, 2, Message::AppendRejected { rejected: LogIndex(3), hint: id(0, 0) });
        subject.step(Event::Applied(LogIndex(4)));
        subject.step(Event::SnapshotBuilt(snapshot(id(4, 2))));
        subject.persist();
        let ack = |offset| Message::SnapshotAck { last: id(3, 1), offset, installed: false };
        let sent = |subject: &Subject| {
            let state = &subject.node.progress().next().unwrap().1.state;
            let ProgressState::Snapshot { meta, .. } = state else { panic!("{state:?}") };
            meta.last
        };
        if had_some_of_it {
            subject.receive(2, 2, ack(2));
        }
        subject.now += Duration::from_millis(301);
        subject.receive(2, 2, Message::HeartbeatReply { round: 0, is_damaged: false });
        assert_eq!(sent(&subject), id(3, 1), "no answer does not mean that nothing has come");
        subject.receive(2, 2, ack(0));
        assert_eq!(sent(&subject), id(4, 2), "{had_some_of_it}");
    }
}

/// What follows the snapshot under way is kept for its receiver while that costs less than another snapshot, and while there is room.
#[test]
fn a_slow_receiver_of_a_snapshot_holds_up_compaction_up_to_a_limit() {
    for low_space in [false, true] {
        let mut config = Config::new(ME, store(1), founded(3));
        (config.kept_entries, config.tail_bytes_max) = (0, 2_000);
        let mut state = recovered(3, &[1, 1, 1], HardState { term: Term(1), voted_for: None });
        state.snapshot = Some(snapshot(id(3, 1)));
        state.terms.compact(LogIndex(3));
        state.memberships.clear();
        state.tail.clear();
        let mut subject = Subject::configured(config, state);
        subject.lead();
        subject.accepted(3, 4);
        subject.receive(2, 2, Message::AppendRejected { rejected: LogIndex(3), hint: id(0, 0) });
        let compacted = |subject: &mut Subject, index: u64, command: &str| {
            subject.propose(command);
            subject.persist();
            subject.accepted(3, index);
            subject.receive(2, 2, Message::HeartbeatReply { round: 0, is_damaged: false });
            subject.step(Event::Applied(LogIndex(index)));
            subject.step(Event::SnapshotBuilt(snapshot(id(index, 2))));
            subject.persist().contains(&Effect::Compact(LogIndex(index)))
        };
        assert!(!compacted(&mut subject, 5, "x"), "it is held back");
        if low_space {
            let effects = subject.step(Event::LowSpace(true));
            assert!(effects.contains(&Effect::Compact(LogIndex(5))), "{effects:?}");
            assert!(compacted(&mut subject, 6, "x"));
        } else {
            assert!(!compacted(&mut subject, 6, "x"));
            assert!(compacted(&mut subject, 7, &"x".repeat(2_000)));
        }
    }
}

/// A delayed offer of an older snapshot would take the place of what has come of a newer one.
#[test]
fn an_offer_that_was_overtaken_by_a_later_one_is_dropped_unless_it_is_of_another_term() {
    let mut subject = Subject::new(3, &[1]);
    let (older, newer) = (snapshot(id(9, 1)), snapshot(id(10, 1)));
    let is_taken = |effects: &[Effect]| {
        effects.iter().any(|effect| matches!(effect, Effect::WriteSnapshot { .. }))
    };
    let written = |meta: &SnapshotMeta| Event::SnapshotWritten {
        meta: meta.clone(),
        offset: 2,
        is_complete: false,
    };
    for offer in [&older, &newer, &newer] {
        assert!(is_taken(&subject.receive(2, 2, chunk(offer))));
        subject.step(written(offer));
    }
    assert!(!is_taken(&subject.receive(2, 2, chunk(&older))));
    assert!(is_taken(&subject.receive(3, 3, chunk(&older))), "another leader may be behind");
}

/// The latest snapshot cannot be read, and a follower needs it, without which nothing can be committed: it is written anew although nothing
/// was applied since.
#[test]
fn a_damaged_snapshot_is_written_anew_even_if_nothing_was_applied_since() {
    let mut state = recovered(3, &[1, 1, 1], HardState { term: Term(1), voted_for: None });
    let latest = snapshot(id(3, 1));
    state.snapshot = Some(latest.clone());
    let mut replica = replica(state);
    let taken = |out: &[Output]| {
        out.iter().find_map(|output| match output {
            Output::TakeSnapshot { last, .. } => Some(*last),
            _ => None,
        })
    };
    assert_eq!(taken(&replica.handle(Input::TakeSnapshot)), None, "it would be the same");
    let read = |data: Option<&'static str>| {
        let data = data.map(Bytes::from);
        Input::SnapshotRead { to: NodeId(2), meta: latest.clone(), offset: 0, data }
    };
    assert_eq!(taken(&replica.handle(read(Some("abcd")))), None);
    assert_eq!(taken(&replica.handle(read(None))), Some(latest.last));
    assert!(replica.replica.latest_snapshot_is_damaged());
    // Of the same bytes the record stands; of others, made of other parts, there is a new one.
    let other = SnapshotMeta { checksum: 7, ..latest.clone() };
    for (built, is_recorded) in [(&latest, false), (&other, true)] {
        let out = replica.handle(Input::SnapshotTaken(SnapshotOutcome::Taken(built.clone())));
        let recorded = out.iter().any(|output| {
            matches!(output, Output::Persist(batch) if batch.snapshot.as_ref() == Some(built))
        });
        assert_eq!(recorded, is_recorded);
        assert_eq!(replica.replica.node().log().snapshot(), Some(built));
        assert!(!replica.replica.latest_snapshot_is_damaged());
    }
}

// Clients.

/// A replica whose disk, clock and machine the test plays.
#[derive(Debug)]
pub(crate) struct Bench {
    pub(crate) replica: Replica,
    pub(crate) now: Duration,
}

fn replica(state: RecoveredState) -> Bench {
    let subject = Subject::recovered(3, state);
    Bench { replica: Replica::new(subject.node, ReplicaConfig::default()), now: subject.now }
}

impl Bench {
    pub(crate) fn handle(&mut self, input: Input) -> Vec<Output> {
        let mut out = Vec::new();
        self.replica.handle(self.now, input, &mut out);
        out
    }

    pub(crate) fn receive(&mut self, from: u64, term: u64, message: Message) -> Vec<Output> {
        let config = self.replica.node().config();
        let envelope = raft_consensus::message::Envelope {
            cluster: config.cluster,
            group: config.group,
            from: NodeId(from),
            to: ME,
            store: store(from),
            term: Term(term),
            cause: lattice_trace::Cause::default(),
            can_wait: false,
            message,
        };
        self.handle(Input::Receive(envelope))
    }

    pub(crate) fn persist(&mut self, token: u64) -> Vec<Output> {
        self.handle(Input::Persisted(IoToken(token)))
    }

    /// The machine has applied the run that ends with this entry; each command is answered with its own index.
    pub(crate) fn apply(&mut self, index: u64, term: u64) -> Vec<Output> {
        let last = id(index, term);
        let reply = Ok(Bytes::from(index.to_string()));
        self.handle(Input::Applied { last, replies: vec![(last, reply)] })
    }

    /// Leads term 2 with everything before durable; the first entry of the term is at index 2.
    pub(crate) fn lead(&mut self) {
        self.now = self.replica.next_deadline().unwrap();
        self.handle(Input::Timeout);
        self.receive(2, 1, Message::PreVoteReply { term: Term(2), granted: true });
        self.persist(1);
        self.receive(2, 2, yes());
        self.persist(2);
        assert_eq!(self.replica.node().role(), Role::Leader);
    }

    pub(crate) fn propose(&mut self, number: u64) -> Vec<Output> {
        let proposal =
            Proposal { id: ProposalId(number), session: None, command: Bytes::from("x") };
        self.handle(Input::Propose(vec![Request { proposal, reclaims_space: false }]))
    }
}

pub(crate) fn answers(out: Vec<Output>) -> Vec<(ProposalId, Result<EntryId, ProposalError>)> {
    let answer = |output| match output {
        Output::Answer { id, result } => Some((id, result.map(|(entry, _)| entry))),
        _ => None,
    };
    out.into_iter().filter_map(answer).collect()
}

fn led() -> Bench {
    let mut replica = replica(recovered(3, &[1], HardState { term: Term(1), voted_for: None }));
    replica.lead();
    replica
}

/// Case 21: replaced by another leader's entry.
#[test]
fn a_proposal_whose_place_another_entry_took_is_superseded() {
    let mut replica = led();
    assert_eq!(answers(replica.propose(1)), []);
    let entries = vec![entry(2, 3), entry(3, 3)].into();
    replica.receive(3, 3, Message::Append { previous: id(1, 1), entries, commit: LogIndex(3) });
    replica.apply(1, 1);
    replica.persist(9);
    let out = replica.apply(3, 3);
    assert_eq!(answers(out), [(ProposalId(1), Err(ProposalError::Superseded))]);
    assert_eq!(replica.replica.pending_proposals(), 0);
}

/// A leader whose disk is full or hangs gives way to those whose disks work; one that is only behind, or not alone in it, does not.
#[test]
fn a_leader_gives_way_when_only_its_own_disk_stands_still() {
    for (others_go_ahead, disk_moves, gives_way) in
        [(true, false, true), (true, true, false), (false, false, false)]
    {
        let mut replica = led();
        let mut index = 2;
        for round in 0..40 {
            replica.propose(round);
            index += 1;
            if disk_moves {
                replica.persist(index - 1);
            }
            let matched = LogIndex(if others_go_ahead { index } else { 2 });
            for peer in [2, 3] {
                replica.receive(peer, 2, Message::AppendAccepted { matched });
                replica.receive(peer, 2, Message::HeartbeatReply { round: 0, is_damaged: false });
            }
            replica.now += Duration::from_millis(100);
            replica.handle(Input::Timeout);
        }
        let leads = replica.replica.node().role() == Role::Leader;
        assert_eq!(leads, !gives_way, "{others_go_ahead} {disk_moves}");
    }
}

/// Case 21: removed by another leader that puts nothing in its place, for as long as nobody asks for anything.
#[test]
fn a_proposal_that_was_removed_from_the_log_is_answered_at_once() {
    let mut replica = led();
    for number in 1..=3 {
        replica.propose(number);
    }
    let entries = vec![entry(2, 3), entry(3, 3)].into();
    let append = Message::Append { previous: id(1, 1), entries, commit: LogIndex(1) };
    let unknown = Err(ProposalError::Unknown);
    let expected = [(ProposalId(3), unknown), (ProposalId(2), unknown)];
    assert_eq!(answers(replica.receive(3, 3, append)), expected);
    assert_eq!(replica.replica.pending_proposals(), 1, "the first one's place is taken");
}

/// Removed while it was cut off. Nobody sends it what stands in its entries' places now.
#[test]
fn a_removed_node_answers_for_what_it_does_not_know_to_be_committed() {
    let mut replica = led();
    for number in 1..=2 {
        replica.propose(number);
    }
    replica.persist(4);
    replica.receive(2, 2, Message::AppendAccepted { matched: LogIndex(3) });
    assert_eq!(replica.replica.node().commit(), LogIndex(3));
    let unknown = [(ProposalId(2), Err(ProposalError::Unknown))];
    assert_eq!(answers(replica.receive(2, 2, Message::Removed)), unknown);
    assert_eq!(answers(replica.apply(3, 2)), [(ProposalId(1), Ok(id(3, 2)))]);
}

/// The others' disks may be faster: what our own has not written is in memory still.
#[test]
fn what_waits_for_our_own_disk_counts_against_the_bytes_that_are_under_way() {
    let mut config = Config::new(ME, store(1), founded(3));
    config.uncommitted_bytes_max = 40;
    let state = recovered(3, &[1], HardState { term: Term(1), voted_for: None });
    let node = Subject::configured(config, state).node;
    let mut replica =
        Bench { replica: Replica::new(node, ReplicaConfig::default()), now: Duration::ZERO };
    replica.lead();
    assert_eq!(answers(replica.propose(1)), []);
    let accept = |matched| Message::AppendAccepted { matched: LogIndex(matched) };
    replica.receive(2, 2, accept(3));
    replica.receive(3, 2, accept(3));
    assert_eq!(replica.replica.node().commit(), LogIndex(3), "two disks have it");
    let overloaded = Err(ProposalError::Rejected(Rejection::Overloaded));
    assert_eq!(answers(replica.propose(2)), [(ProposalId(2), overloaded)]);
    replica.persist(3);
    assert_eq!(answers(replica.propose(4)), []);
}

/// A read that is confirmed and waits for a machine that stands still is given up in time like any other.
#[test]
fn a_confirmed_read_does_not_wait_for_the_machine_for_ever() {
    let mut replica = led();
    replica.receive(2, 2, Message::AppendAccepted { matched: LogIndex(2) });
    let deadline = replica.now + Duration::from_secs(1);
    replica.handle(Input::Read { requests: vec![RequestId(7)], deadline });
    assert!(!is_served(&replica.receive(
        2,
        2,
        Message::HeartbeatReply { round: 1, is_damaged: false }
    )));
    for _ in 0..100 {
        let Some(due) = replica.replica.next_deadline() else { break };
        replica.now = due;
        let out = replica.handle(Input::Timeout);
        let is_given_up =
            |output: &Output| matches!(output, Output::ReadFailed { request: RequestId(7), .. });
        if out.iter().any(is_given_up) {
            assert_eq!(replica.now, deadline);
            return;
        }
    }
    panic!("it waits still");
}

/// While a disk stands still, what the others ask again and again does not fill the memory.
#[test]
fn messages_held_for_a_write_that_does_not_end_are_bounded() {
    let mut replica = replica(recovered(3, &[1], HardState { term: Term(1), voted_for: None }));
    let append = || Message::Append {
        previous: id(1, 1),
        entries: vec![entry(2, 2)].into(),
        commit: LogIndex(1),
    };
    for _ in 0..30_000 {
        replica.receive(2, 2, append());
    }
    let out = replica.persist(1);
    let sent = out.iter().filter(|output| matches!(output, Output::Send(_))).count();
    assert!((1..=10_000).contains(&sent), "{sent}");
}

/// Case 21: passed over by a snapshot. Nobody can tell what became of it.
#[test]
fn a_proposal_that_a_snapshot_passed_over_is_answered_unknown() {
    let mut replica = led();
    replica.propose(1);
    let meta = snapshot(id(9, 3));
    replica.receive(3, 3, chunk(&meta));
    replica.handle(Input::SnapshotWritten { meta, offset: 4, is_complete: true });
    let out = replica.persist(9);
    assert_eq!(answers(out), [(ProposalId(1), Err(ProposalError::Unknown))]);
}

/// Case 21: the node stops.
#[test]
fn everybody_who_waits_is_answered_when_the_node_stops() {
    let mut replica = led();
    replica.propose(1);
    replica.propose(2);
    let requests = vec![RequestId(7)];
    replica.handle(Input::Read { requests, deadline: Duration::from_secs(9) });
    let token = IoToken(3);
    let out = replica.handle(Input::PersistFailed { token, error: "EIO".to_owned() });
    let failed =
        |output: &Output| matches!(output, Output::ReadFailed { request: RequestId(7), .. });
    assert!(out.iter().any(failed));
    assert!(matches!(out.last(), Some(Output::Stop(FatalError::Storage(_)))));
    let unknown = Err(ProposalError::Unknown);
    assert_eq!(answers(out), [(ProposalId(1), unknown), (ProposalId(2), unknown)]);
    assert_eq!(answers(replica.propose(3)), [], "it is gone");
}

/// Case 21, the good end: the answer comes when the entry is applied, not before.
#[test]
fn a_proposal_is_answered_when_it_is_applied() {
    let mut replica = led();
    let accept = |matched| Message::AppendAccepted { matched: LogIndex(matched) };
    assert_eq!(answers(replica.receive(2, 2, accept(2))), []);
    replica.apply(2, 2);
    assert_eq!(answers(replica.propose(1)), []);
    assert_eq!(answers(replica.receive(2, 2, accept(3))), [], "our own disk is not done");
    assert_eq!(answers(replica.persist(3)), [], "committed, not applied");
    assert_eq!(answers(replica.apply(3, 2)), [(ProposalId(1), Ok(id(3, 2)))]);
}

/// A proposal at a follower is refused with the leader's name: it has no effect, now or later.
#[test]
fn a_follower_refuses_proposals_and_names_the_leader() {
    let mut replica = replica(recovered(3, &[1], HardState { term: Term(1), voted_for: None }));
    let refused =
        |leader| (ProposalId(1), Err(ProposalError::Rejected(Rejection::NotLeader { leader })));
    assert_eq!(answers(replica.propose(1)), [refused(None)]);
    replica.receive(2, 1, heartbeat(0));
    assert_eq!(answers(replica.propose(1)), [refused(Some(NodeId(2)))]);
}

/// A snapshot that failed is tried again only after a while, and one that the machine does not have never.
#[test]
fn a_failed_snapshot_rests_and_an_unsupported_one_is_not_asked_for_again() {
    let asks =
        |out: &[Output]| out.iter().any(|output| matches!(output, Output::TakeSnapshot { .. }));
    let mut replica = led();
    replica.receive(2, 2, Message::AppendAccepted { matched: LogIndex(2) });
    replica.apply(2, 2);
    assert!(asks(&replica.handle(Input::TakeSnapshot)));
    replica.handle(Input::SnapshotTaken(SnapshotOutcome::Failed("full".to_owned())));
    assert!(!asks(&replica.handle(Input::TakeSnapshot)));
    replica.now += Duration::from_secs(6);
    assert!(asks(&replica.handle(Input::TakeSnapshot)));
    replica.handle(Input::SnapshotTaken(SnapshotOutcome::Unsupported));
    replica.now += Duration::from_secs(60);
    assert!(!asks(&replica.handle(Input::TakeSnapshot)));
}

/// Three nodes that all failed to read the same entries for a moment would wait for each other for ever.
#[test]
fn who_is_helped_by_nobody_reads_its_own_disk_again() {
    let mut subject = Subject::new(3, &[1, 1, 1, 1]);
    subject.step(Event::EntriesDamaged { first: LogIndex(2), last: LogIndex(3) });
    let reads = |effect: &Effect| match effect {
        Effect::ReadForRepair { to, from, through, .. } => Some((*to, *from, *through)),
        _ => None,
    };
    let read = (0..10).find_map(|_| subject.timeout().iter().find_map(reads));
    assert_eq!(read, Some((ME, LogIndex(2), LogIndex(3))));
    let read = |subject: &mut Subject, entries| {
        subject.step(Event::RepairRead { to: ME, entries });
        subject.node.log().sound()
    };
    assert_eq!(read(&mut subject, Vec::new()), LogIndex(1), "it failed again");
    assert_eq!(
        read(&mut subject, vec![entry(2, 3), entry(3, 3)]),
        LogIndex(1),
        "not what was there"
    );
    assert_eq!(read(&mut subject, vec![entry(3, 1)]), LogIndex(1), "not all of it");
    assert_eq!(read(&mut subject, vec![entry(2, 1)]), LogIndex(2));
    assert_eq!(read(&mut subject, vec![entry(3, 1), entry(4, 1)]), LogIndex(4));
    assert!(!subject.node.log().is_damaged());
}

/// A repair stands for itself: that more turns out to be lost behind it takes nothing away from what was written.
#[test]
fn a_repair_is_not_undone_by_more_damage_behind_it() {
    let mut subject = Subject::new(3, &[1, 1, 1, 1, 1]);
    let effects = subject.step(Event::EntriesDamaged { first: LogIndex(2), last: LogIndex(2) });
    let asked = sent(&effects);
    let Message::FetchEntries { id: request, .. } = asked[0].message else { panic!("{asked:?}") };
    let answer = Message::FetchedEntries {
        id: request,
        previous: Some(id(1, 1)),
        entries: vec![entry(2, 1)],
        holds_joint: true,
        last: LogIndex(5),
    };
    let effects = subject.receive(asked[0].to.0, 1, answer);
    let batch = batches(&effects)[0].clone();
    assert_eq!(batch.repaired, [entry(2, 1)]);
    subject.step(Event::EntriesDamaged { first: LogIndex(4), last: LogIndex(4) });
    subject.step(Event::Persisted(batch.token));
    let damaged: Vec<_> = subject.node.log().damaged().iter().map(|lost| lost.first.0).collect();
    assert_eq!(damaged, [4]);
}

/// It would be asked for what precedes the first entry of all.
#[test]
fn a_request_for_an_entry_before_the_first_is_dropped() {
    let mut subject = Subject::new(3, &[1, 1]);
    let asks = |subject: &mut Subject, first| {
        let id = ReadId { node: NodeId(2), boot: 1, counter: first };
        let (first, through, joint) = (LogIndex(first), LogIndex(2), Some(self::id(2, 1)));
        sent(&subject.receive(2, 1, Message::FetchEntries { id, first, through, joint })).len()
    };
    assert_eq!((asks(&mut subject, 0), asks(&mut subject, 1)), (0, 1));
}

/// What is not committed is the leader's to decide. What is, others hold, or the leader's snapshot does: its log may have been cut there.
#[test]
fn a_leaders_word_repairs_only_what_is_not_committed() {
    for (commit, joint) in [(4, Some(id(3, 1))), (1, None)] {
        let mut subject = Subject::new(3, &[1, 1, 1, 1]);
        subject.receive(2, 1, heartbeat(commit));
        let mut effects =
            subject.step(Event::EntriesDamaged { first: LogIndex(2), last: LogIndex(3) });
        let request = |sent: &Sent| match sent.message {
            Message::FetchEntries { id, joint, .. } => Some((sent.to, id, joint)),
            _ => None,
        };
        let asked = |effects: &[Effect]| sent(effects).iter().find_map(request);
        let (mut leader_asked, mut next) = (None, None);
        for _ in 0..10 {
            let Some((to, id, joint)) = asked(&effects) else {
                effects = subject.timeout();
                continue;
            };
            if leader_asked.is_some() {
                next = Some(joint);
                break;
            }
            let nothing = Message::FetchedEntries {
                id,
                previous: Some(self::id(1, 1)),
                entries: Vec::new(),
                holds_joint: false,
                last: LogIndex(1),
            };
            leader_asked = (to == NodeId(2)).then_some(());
            effects = subject.receive(to.0, 1, nothing);
        }
        assert_eq!(next, Some(joint), "committed up to {commit}");
    }
}

/// The leader would have to have committed something else than we have, which cannot be.
#[test]
fn a_snapshot_that_contradicts_what_is_committed_behind_damage_is_not_installed() {
    let mut subject = Subject::new(3, &[1, 1, 1, 1]);
    subject.receive(2, 1, heartbeat(4));
    subject.step(Event::EntriesDamaged { first: LogIndex(2), last: LogIndex(2) });
    let meta = snapshot(id(3, 2));
    let chunk = Message::SnapshotChunk { meta: meta.clone(), offset: 0, data: Bytes::new() };
    let effects = subject.receive(2, 2, chunk);
    assert!(effects.iter().any(|effect| matches!(effect, Effect::WriteSnapshot { .. })));
    let offset = meta.size;
    let effects = subject.step(Event::SnapshotWritten { meta, offset, is_complete: true });
    assert!(batches(&effects).is_empty() && sent(&effects).is_empty(), "{effects:?}");
    assert_eq!(subject.node.log().last(), id(4, 1));
}

/// What is lost before our own snapshot's end is not needed any more, and the log takes nothing there: nobody is asked for it.
#[test]
fn a_snapshot_of_our_own_covers_what_is_damaged_before_its_end() {
    let mut subject = Subject::new(3, &[1, 1, 1, 1]);
    subject.receive(2, 1, heartbeat(4));
    subject.step(Event::Applied(LogIndex(4)));
    subject.step(Event::EntriesDamaged { first: LogIndex(2), last: LogIndex(3) });
    subject.step(Event::SnapshotBuilt(snapshot(id(4, 1))));
    assert!(!subject.node.log().is_damaged());
    let log = subject.node.log();
    assert_eq!((log.base(), log.last(), log.sound()), (id(3, 1), id(4, 1), LogIndex(4)));
}

/// A log of which entries 2 and 3 are lost, their terms too: the next is of another.
fn doubtful() -> Subject {
    let mut state = recovered(3, &[1, 1, 1, 2], HardState { term: Term(2), voted_for: None });
    state.tail.drain(..3);
    let (first, last) = (LogIndex(2), LogIndex(3));
    state.damaged = vec![DamagedEntries { first, last, terms_known: false }];
    Subject::recovered(3, state)
}

/// Whether what stands behind it follows on it is not known, and it may be committed: a later snapshot will do.
#[test]
fn a_snapshot_that_ends_within_what_is_lost_takes_nothing_away() {
    for (last, is_taken) in [(id(3, 1), false), (id(4, 2), true)] {
        let mut subject = doubtful();
        let meta = snapshot(last);
        subject.receive(2, 2, chunk(&meta));
        let effects = subject.step(Event::SnapshotWritten { meta, offset: 4, is_complete: true });
        assert_eq!(!batches(&effects).is_empty(), is_taken, "{effects:?}");
        assert_eq!(subject.node.log().last(), id(4, 2));
    }
}

/// Its members are the founders, for the entries that brought others are lost; the one who asks may have come long after them.
#[test]
fn a_log_that_is_damaged_from_its_beginning_knows_no_strangers() {
    let mut state = recovered(3, &[1, 1, 1], HardState { term: Term(1), voted_for: None });
    state.memberships.clear();
    let mut blank = Subject::recovered(3, blank());
    let refusal = only(&blank.receive(9, 2, vote(id(3, 1)))).message;
    assert_eq!(refusal, Message::VoteReply { granted: false }, "not a founder");
    state.tail.drain(..2);
    let (first, last) = (LogIndex(1), LogIndex(2));
    state.damaged = vec![DamagedEntries { first, last, terms_known: true }];
    let mut damaged = Subject::recovered(3, state);
    assert!(damaged.node.membership().is_blank());
    assert_eq!(only(&damaged.receive(9, 2, vote(id(3, 1)))).message, yes());
}

/// A follower that was given the entries 1 to 6 to apply, lost 2 and 3 meanwhile, and has a snapshot up to 4 for them from its leader. The
/// token is of the write that records it.
fn covered_while_applying() -> (Bench, u64) {
    let state = recovered(3, &[1, 1, 1, 1, 1, 1], HardState { term: Term(1), voted_for: None });
    let mut replica = replica(state);
    let out = replica.receive(2, 1, heartbeat(6));
    assert!(out.iter().any(|output| matches!(output, Output::Apply(_))));
    replica.handle(Input::EntriesDamaged { first: LogIndex(2), last: LogIndex(3) });
    let meta = snapshot(id(4, 1));
    replica.receive(2, 1, chunk(&meta));
    let out = replica.handle(Input::SnapshotWritten { meta, offset: 4, is_complete: true });
    let write = out.iter().find_map(|output| match output {
        Output::Persist(batch) => Some(batch.token.0),
        _ => None,
    });
    (replica, write.expect("the snapshot is recorded"))
}

fn restores(out: &[Output]) -> bool {
    out.iter().any(|output| matches!(output, Output::Restore(_)))
}

/// The end of what it applied has been read: if it went back, a read that is under way would not see what an earlier one saw.
#[test]
fn a_machine_that_has_passed_a_snapshot_does_not_go_back_to_it() {
    let (mut replica, write) = covered_while_applying();
    replica.apply(6, 1);
    assert_eq!(replica.replica.applied(), id(6, 1));
    // A snapshot of what it has applied is as good as ever.
    let own = SnapshotOutcome::Taken(snapshot(id(6, 1)));
    replica.handle(Input::SnapshotTaken(own));
    let out = replica.persist(write);
    assert!(!restores(&out), "{out:?}");
    assert_eq!(replica.replica.applied(), id(6, 1));
    // What comes behind is applied behind it.
    let entries = vec![entry(7, 1)].into();
    replica.receive(2, 1, Message::Append { previous: id(6, 1), entries, commit: LogIndex(7) });
    let out = replica.persist(write + 2);
    let run = out.iter().find_map(|output| match output {
        Output::Apply(run) => Some(run.range.clone()),
        _ => None,
    });
    assert_eq!(run, Some(LogIndex(7)..=LogIndex(7)));
}

/// The run under way may stop at the next damage, so nobody waits for it.
#[test]
fn a_machine_that_has_not_come_to_a_snapshot_goes_on_behind_it() {
    let (mut replica, write) = covered_while_applying();
    let out = replica.persist(write);
    assert!(restores(&out), "{out:?}");
    replica.apply(6, 1);
    assert_eq!(replica.replica.applied(), id(0, 0), "that run is awaited no more");
    let out = replica.handle(Input::Restored(id(4, 1)));
    assert_eq!(replica.replica.applied(), id(4, 1));
    let run = out.iter().find_map(|output| match output {
        Output::Apply(run) => Some(run.range.clone()),
        _ => None,
    });
    assert_eq!(run, Some(LogIndex(5)..=LogIndex(6)));
}
