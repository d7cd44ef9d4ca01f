//! The rules of the Raft paper (Ongaro and Ousterhout, extended version), one test for each, in its order. The figures are text
//! scenarios in `tests/scripts`.

use std::collections::BTreeSet;
use std::time::Duration;

use bytes::Bytes;
use raft_consensus::effects::Effect;
use raft_consensus::entries::Entries;
use raft_consensus::message::{Message, ReadId};
use raft_consensus::raft_node::{Config, Event, RaftNode, RecoverError, Role};
use raft_consensus::types::{HardState, LogIndex, NodeId, Payload, SnapshotMeta, Term};

use crate::script::subject::{
    ME, Subject, applied, batches, blank, entry, founded, id, only, recovered, sent, store, terms,
};

fn heartbeat() -> Message {
    Message::Heartbeat { commit: LogIndex(0), round: 0 }
}

/// A subject in each role, all of them in term 2.
fn in_every_role() -> Vec<(&'static str, Subject)> {
    let follower = Subject::new(3, &[1, 2]);
    let mut pre_candidate = Subject::new(3, &[1, 2]);
    pre_candidate.timeout();
    let mut candidate = Subject::new(3, &[1, 1]);
    candidate.campaign();
    let mut leader = Subject::new(3, &[1, 1]);
    leader.lead();
    let all = vec![
        ("follower", follower),
        ("pre-candidate", pre_candidate),
        ("candidate", candidate),
        ("leader", leader),
    ];
    for (name, subject) in &all {
        assert_eq!(
            (subject.node.role().to_string().as_str(), subject.node.term()),
            (*name, Term(2))
        );
    }
    all
}

// §5.1, Raft basics.

/// "If one server's current term is smaller than the other's, then it updates its current term to the larger value. If a candidate or
/// leader discovers that its term is out of date, it immediately reverts to follower state."
#[test]
fn a_larger_term_is_taken_over_in_every_role() {
    for (name, mut subject) in in_every_role() {
        let effects =
            subject.receive(2, 5, Message::HeartbeatReply { round: 0, is_damaged: false });
        assert_eq!((subject.node.term(), subject.node.role()), (Term(5), Role::Follower), "{name}");
        let expected = HardState { term: Term(5), voted_for: None };
        assert_eq!(batches(&effects)[0].hard_state, Some(expected), "{name}: written down");
    }
}

/// "If a server receives a request with a stale term number, it rejects the request."
#[test]
fn a_request_of_an_earlier_term_is_refused_in_every_role() {
    for (name, mut subject) in in_every_role() {
        let before = (terms(&subject.node), subject.node.role(), subject.node.leader());
        let vote = subject.receive(2, 1, Message::Vote { last: id(9, 1), transfer: false });
        assert_eq!(only(&vote).message, Message::VoteReply { granted: false }, "{name}");
        let append = subject.append(2, 1, id(2, 1), vec![entry(3, 1)], 2);
        let reply = only(&append);
        assert_eq!(
            (reply.term, reply.message),
            (Term(2), Message::HeartbeatReply { round: 0, is_damaged: false }),
            "{name}"
        );
        assert_eq!(
            (terms(&subject.node), subject.node.role(), subject.node.leader()),
            before,
            "{name}"
        );
        assert_eq!(subject.node.commit(), LogIndex(0), "{name}");
    }
}

// §5.2, Leader election.

/// "When servers start up, they begin as followers."
#[test]
fn a_server_begins_as_a_follower() {
    let subject = Subject::new(3, &[1, 4]);
    assert_eq!((subject.node.role(), subject.node.term()), (Role::Follower, Term(4)));
    assert_eq!(subject.node.leader(), None);
}

/// "A server remains in follower state as long as it receives valid RPCs from a leader or candidate."
#[test]
fn heartbeats_keep_a_follower_a_follower() {
    let mut subject = Subject::new(3, &[1]);
    for _ in 0..20 {
        subject.receive(2, 1, heartbeat());
        subject.now += Duration::from_millis(149);
        subject.step(Event::Timeout);
        assert_eq!(subject.node.role(), Role::Follower);
    }
}

/// "Leaders send periodic heartbeats ... to all followers in order to maintain their authority."
#[test]
fn a_leader_sends_heartbeats_to_all() {
    let mut subject = Subject::new(5, &[1]);
    subject.lead_settled();
    subject.timeout();
    let before = subject.now;
    let effects = subject.timeout();
    assert_eq!(subject.now - before, subject.node.config().heartbeat);
    let receivers: Vec<NodeId> = sent(&effects).iter().map(|sent| sent.to).collect();
    assert_eq!(receivers, subject.peers());
    assert!(sent(&effects).iter().all(|sent| matches!(sent.message, Message::Heartbeat { .. })));
}

/// "To begin an election, a follower increments its current term and transitions to candidate state. It then votes for itself and
/// issues RequestVote RPCs in parallel to each of the other servers." (Here after a pre-vote, thesis §9.6.)
#[test]
fn an_election_raises_the_term_votes_for_itself_and_asks_all_others() {
    let mut subject = Subject::new(5, &[1, 1]);
    let effects = subject.campaign();
    assert_eq!((subject.node.role(), subject.node.term()), (Role::Candidate, Term(2)));
    let hard_state = HardState { term: Term(2), voted_for: Some(ME) };
    assert_eq!(batches(&effects)[0].hard_state, Some(hard_state));
    let asked: Vec<NodeId> = sent(&effects)
        .into_iter()
        .filter(|sent| {
            sent.message == Message::Vote { last: id(2, 1), transfer: false }
                && sent.term == Term(2)
        })
        .map(|sent| sent.to)
        .collect();
    assert_eq!(asked, subject.peers());
}

/// "A candidate wins an election if it receives votes from a majority of the servers in the full cluster for the same term."
#[test]
fn an_election_is_won_by_a_majority_and_by_nothing_less() {
    for (voters, granted, refused, expected) in [
        (1, 0, 0, Role::Leader),
        (3, 0, 0, Role::Candidate),
        (3, 1, 0, Role::Leader),
        (3, 1, 1, Role::Leader),
        (3, 0, 1, Role::Candidate),
        (3, 0, 2, Role::Follower),
        (4, 1, 0, Role::Candidate),
        (4, 1, 2, Role::Follower),
        (4, 2, 0, Role::Leader),
        (5, 1, 2, Role::Candidate),
        (5, 1, 3, Role::Follower),
        (5, 2, 2, Role::Leader),
        (7, 2, 3, Role::Candidate),
        (7, 3, 0, Role::Leader),
    ] {
        let mut subject = Subject::new(voters, &[1]);
        subject.campaign();
        for peer in 2..2 + granted {
            subject.receive(peer, 2, Message::VoteReply { granted: true });
        }
        // A leader does not listen to refusals any more.
        for peer in 2 + granted..2 + granted + refused {
            subject.receive(peer, 2, Message::VoteReply { granted: false });
        }
        assert_eq!(subject.node.role(), expected, "{granted} of {voters}, {refused} refused");
    }
}

/// "Each server will vote for at most one candidate in a given term, on a first-come-first-served basis."
#[test]
fn a_vote_goes_to_the_first_that_asks() {
    let mut subject = Subject::new(3, &[1]);
    let first = subject.receive(2, 2, Message::Vote { last: id(1, 1), transfer: false });
    assert_eq!(only(&first).message, Message::VoteReply { granted: true });
    let second = subject.receive(3, 2, Message::Vote { last: id(9, 1), transfer: false });
    assert_eq!(only(&second).message, Message::VoteReply { granted: false });
    // Asked again, it gives the same answer to each.
    let again = subject.receive(2, 2, Message::Vote { last: id(1, 1), transfer: false });
    assert_eq!(only(&again).message, Message::VoteReply { granted: true });
}

/// "If the leader's term is at least as large as the candidate's current term, then the candidate recognizes the leader as legitimate
/// and returns to follower state. If the term is smaller, the candidate rejects the RPC and continues in candidate state."
#[test]
fn a_candidate_recognises_a_leader_of_its_term_but_of_no_earlier_one() {
    for (term, expected) in [
        (1, (Role::Candidate, None)),
        (2, (Role::Follower, Some(NodeId(3)))),
        (3, (Role::Follower, Some(NodeId(3)))),
    ] {
        let mut subject = Subject::new(3, &[1]);
        subject.campaign();
        subject.append(3, term, id(1, 1), Vec::new(), 0);
        assert_eq!((subject.node.role(), subject.node.leader()), expected, "term {term}");
    }
}

/// "Each candidate will time out and start a new election by incrementing its term."
#[test]
fn a_candidate_without_an_outcome_tries_again_in_the_next_term() {
    let mut subject = Subject::new(3, &[1]);
    subject.campaign();
    subject.campaign();
    assert_eq!((subject.node.role(), subject.node.term()), (Role::Candidate, Term(3)));
}

/// "Election timeouts are chosen randomly from a fixed interval (e.g., 150–300ms)", and for each election anew.
#[test]
fn election_timeouts_are_random_and_drawn_for_each_campaign() {
    let mut subject = Subject::new(3, &[1]);
    let mut drawn = BTreeSet::new();
    for _ in 0..50 {
        let before = subject.now;
        subject.timeout();
        let timeout = subject.node.next_deadline().unwrap() - subject.now;
        assert!(subject.node.config().election_timeout.contains(&timeout), "{timeout:?}");
        assert!(subject.now >= before);
        drawn.insert(timeout);
    }
    assert!(drawn.len() > 40, "{} different timeouts of 50", drawn.len());
}

// §5.3, Log replication.

/// "The leader appends the command to its log as a new entry, then issues AppendEntries RPCs in parallel to each of the other servers."
#[test]
fn a_command_is_appended_and_sent_to_all_at_once() {
    let mut subject = Subject::new(3, &[1]);
    subject.lead_settled();
    let effects = subject.propose("x");
    let batch = batches(&effects)[0];
    assert_eq!(batch.entries[0].id, id(3, 2));
    assert_eq!(batch.entries[0].payload, Payload::Command(Bytes::from("x")));
    let appends = sent(&effects);
    assert_eq!(appends.len(), 2);
    for append in appends {
        let expected = Message::Append {
            previous: id(2, 2),
            entries: batch.entries.clone(),
            commit: LogIndex(2),
        };
        assert_eq!((append.message, append.after), (expected, None), "in parallel with the disk");
    }
}

/// "A log entry is committed once the leader that created the entry has replicated it on a majority of the servers."
#[test]
fn an_entry_is_committed_once_a_majority_has_it() {
    for (voters, acknowledged, is_committed) in [
        (1, 0, true),
        (3, 0, false),
        (3, 1, true),
        (4, 1, false),
        (4, 2, true),
        (5, 1, false),
        (5, 2, true),
        (5, 4, true),
    ] {
        let mut subject = Subject::new(voters, &[1]);
        subject.lead_settled();
        subject.propose("x");
        subject.persist();
        for peer in 2..2 + acknowledged {
            subject.accepted(peer, 3);
        }
        assert_eq!(
            subject.node.commit() == LogIndex(3),
            is_committed,
            "{acknowledged} of {voters}"
        );
    }
}

/// "This also commits all preceding entries in the leader's log, including entries created by previous leaders."
#[test]
fn a_commit_covers_everything_before_it() {
    let mut subject = Subject::new(3, &[1, 1, 2]);
    subject.lead();
    assert_eq!(subject.node.commit(), LogIndex(0));
    let effects = subject.accepted(2, 4);
    assert_eq!(applied(&effects), [1, 2, 3, 4]);
}

/// "The leader keeps track of the highest index it knows to be committed, and it includes that index in future AppendEntries RPCs
/// (including heartbeats) so that the other servers eventually find out."
#[test]
fn followers_learn_the_commit_index_from_what_comes_next() {
    let mut subject = Subject::new(3, &[1]);
    subject.lead_settled();
    subject.propose("x");
    subject.persist();
    let effects = subject.accepted(2, 3);
    let expected = Message::Heartbeat { commit: LogIndex(3), round: 0 };
    assert_eq!(only(&effects).message, expected, "to the one that has nothing under way");
    let effects = subject.propose("y");
    let told = |sent: &crate::script::subject::Sent| match sent.message {
        Message::Append { commit, .. } => Some(commit),
        _ => None,
    };
    assert_eq!(sent(&effects).iter().filter_map(told).collect::<Vec<_>>(), [LogIndex(3); 2]);
}

/// "Once a follower learns that a log entry is committed, it applies the entry to its local state machine (in log order)."
#[test]
fn a_follower_applies_what_it_learns_to_be_committed_in_order() {
    let mut subject = Subject::new(3, &[1]);
    let append = subject.append(2, 1, id(1, 1), vec![entry(2, 1), entry(3, 1), entry(4, 1)], 2);
    assert_eq!(applied(&append), [1], "entry 2 is committed, and not yet durable here");
    assert_eq!(applied(&subject.persist()), [2]);
    let commit = Message::Heartbeat { commit: LogIndex(4), round: 0 };
    assert_eq!(applied(&subject.receive(2, 1, commit)), [3, 4]);
}

/// "If the follower does not find an entry in its log with the same index and term, then it refuses the new entries."
#[test]
fn an_append_is_refused_where_the_preceding_entry_is_missing() {
    for (previous, hint) in
        [(id(3, 3), id(2, 2)), (id(2, 3), id(2, 2)), (id(2, 1), id(1, 1)), (id(9, 1), id(1, 1))]
    {
        let mut subject = Subject::new(3, &[1, 2]);
        let next = entry(previous.index.0 + 1, 3);
        let reply = only(&subject.append(2, 3, previous, vec![next], 1));
        let expected = Message::AppendRejected { rejected: previous.index, hint };
        assert_eq!(reply.message, expected, "{previous}");
        assert_eq!(
            (terms(&subject.node), subject.node.commit()),
            (vec![1, 2], LogIndex(0)),
            "{previous}"
        );
    }
}

/// "Conflicting entries in follower logs will be overwritten with entries from the leader's log." "If an existing entry conflicts with a
/// new one (same index but different terms), delete the existing entry and all that follow it. Append any new entries not already in
/// the log." (Figure 2)
#[test]
fn what_conflicts_is_replaced_and_nothing_else() {
    for (previous, entries, expected, removed) in [
        (id(2, 2), vec![entry(3, 3)], vec![1, 2, 3], None),
        (id(1, 1), vec![entry(2, 3), entry(3, 4)], vec![1, 3, 4], Some(2)),
        (id(1, 1), vec![entry(2, 2)], vec![1, 2], None),
        (id(0, 0), vec![entry(1, 1)], vec![1, 2], None),
        (id(1, 1), Vec::new(), vec![1, 2], None),
    ] {
        let mut subject = Subject::new(3, &[1, 2]);
        let effects = subject.append(2, 4, previous, entries.clone(), 0);
        assert_eq!(terms(&subject.node), expected, "{previous} {entries:?}");
        let batch = batches(&effects)[0];
        assert_eq!(batch.truncate_from, removed.map(LogIndex), "{previous} {entries:?}");
    }
}

/// "If there is a conflict, the leader decrements nextIndex and retries"; with the follower's hint in larger steps.
#[test]
fn a_leader_goes_back_until_the_logs_agree_and_never_changes_its_own() {
    let mut subject = Subject::new(3, &[1, 1, 4, 4, 5]);
    subject.lead();
    let before = terms(&subject.node);
    let rejected = Message::AppendRejected { rejected: LogIndex(5), hint: id(5, 3) };
    let effects = subject.receive(2, 6, rejected);
    let Message::Append { previous, entries, .. } = only(&effects).message else {
        panic!("an append")
    };
    assert_eq!(previous, id(2, 1));
    assert_eq!(entries.iter().map(|entry| entry.id.index.0).collect::<Vec<_>>(), [3, 4, 5, 6]);
    assert_eq!(terms(&subject.node), before);
}

// §5.4, Safety.

/// "The voter denies its vote if its own log is more up-to-date than that of the candidate": the later last term wins, with the same
/// term the longer log. (§5.4.1)
#[test]
fn a_voter_denies_a_candidate_whose_log_is_behind() {
    for (mine, theirs, granted) in [
        (vec![1], id(1, 1), true),
        (vec![1], id(2, 1), true),
        (vec![1, 1], id(1, 1), false),
        (vec![1, 1], id(1, 2), true),
        (vec![1, 2], id(9, 1), false),
        (vec![1, 2, 2], id(2, 2), false),
        (vec![1, 2], id(2, 3), true),
    ] {
        let mut subject = Subject::new(3, &mine);
        let reply = only(&subject.receive(2, 4, Message::Vote { last: theirs, transfer: false }));
        assert_eq!(reply.message, Message::VoteReply { granted }, "{mine:?} {theirs}");
        let mut subject = Subject::new(3, &mine);
        let reply = only(&subject.receive(2, 3, Message::PreVote { term: Term(4), last: theirs }));
        assert_eq!(
            reply.message,
            Message::PreVoteReply { term: Term(4), granted },
            "{mine:?} {theirs}"
        );
    }
}

/// "Raft never commits log entries from previous terms by counting replicas. Only log entries from the leader's current term are
/// committed by counting replicas." (§5.4.2)
#[test]
fn entries_of_earlier_terms_are_not_committed_by_counting() {
    let mut subject = Subject::new(3, &[1, 1, 2]);
    subject.lead();
    for matched in 1..=3 {
        subject.accepted(2, matched);
        subject.accepted(3, matched);
        assert_eq!(subject.node.commit(), LogIndex(0), "all have entry {matched}");
    }
    subject.accepted(3, 4);
    assert_eq!(subject.node.commit(), LogIndex(4));
}

// §5.5 and §5.6, crashes and timing.

/// "Raft RPCs are idempotent": a message that comes twice does no harm. (§5.5)
#[test]
fn a_repeated_append_changes_nothing_and_is_answered_alike() {
    let mut subject = Subject::new(3, &[1]);
    let first = subject.append(2, 1, id(1, 1), vec![entry(2, 1), entry(3, 1)], 1);
    subject.persist();
    let second = subject.append(2, 1, id(1, 1), vec![entry(2, 1), entry(3, 1)], 1);
    assert_eq!(only(&first).message, only(&second).message);
    assert_eq!(batches(&second), Vec::<&raft_consensus::effects::PersistBatch>::new());
}

/// "broadcastTime ≪ electionTimeout": a configuration that cannot keep a leader is refused. (§5.6)
#[test]
fn heartbeats_slower_than_elections_are_refused() {
    let mut config = Config::new(ME, store(1), founded(3));
    config.heartbeat = config.election_timeout.start;
    let result = RaftNode::recover(config, blank(), 1, Duration::ZERO);
    assert!(matches!(result, Err(RecoverError::Config(_))), "{result:?}");
}

// §7, Log compaction.

fn snapshot(last: raft_consensus::types::EntryId) -> SnapshotMeta {
    SnapshotMeta { last, membership: founded(3), size: 4, checksum: 0 }
}

/// The follower receives and writes the whole snapshot.
fn install(subject: &mut Subject, term: u64, meta: &SnapshotMeta) -> Vec<Effect> {
    let data = Bytes::from("abcd");
    let chunk = Message::SnapshotChunk { meta: meta.clone(), offset: 0, data };
    let mut effects = subject.receive(2, term, chunk);
    let meta = meta.clone();
    effects.extend(subject.step(Event::SnapshotWritten { meta, offset: 4, is_complete: true }));
    effects
}

/// "Usually the snapshot will contain new information not already in the recipient's log. In this case, the follower discards its
/// entire log; it is all superseded by the snapshot."
#[test]
fn a_snapshot_with_news_supersedes_the_whole_log() {
    let mut subject = Subject::new(3, &[1, 1, 2]);
    let meta = snapshot(id(9, 3));
    install(&mut subject, 3, &meta);
    let effects = subject.persist();
    assert!(effects.contains(&Effect::Restore(meta)), "{effects:?}");
    assert_eq!((subject.node.log().base(), subject.node.log().last()), (id(9, 3), id(9, 3)));
    assert_eq!(subject.node.commit(), LogIndex(9));
}

/// "If instead the follower receives a snapshot that describes a prefix of its log, then log entries covered by the snapshot are deleted
/// but entries following the snapshot are still valid and must be retained." (Here the covered ones stay too, until our own
/// snapshot covers them: they are committed.)
#[test]
fn a_snapshot_of_a_prefix_keeps_what_follows() {
    let mut subject = Subject::new(3, &[1, 1, 2]);
    let effects = install(&mut subject, 3, &snapshot(id(2, 1)));
    assert_eq!(terms(&subject.node), [1, 1, 2]);
    assert_eq!(subject.node.commit(), LogIndex(2));
    assert_eq!(applied(&effects), [1, 2]);
    assert!(!effects.iter().any(|effect| matches!(effect, Effect::Restore(_))));
}

// §8, Client interaction.

/// "Each leader commits a blank no-op entry into the log at the start of its term."
#[test]
fn a_term_begins_with_an_entry_without_content() {
    let mut subject = Subject::new(3, &[1, 1]);
    let effects = subject.lead();
    let entries: Vec<_> =
        batches(&effects).into_iter().flat_map(|batch| batch.entries.to_vec()).collect();
    assert_eq!(entries.len(), 1);
    assert_eq!((entries[0].id, &entries[0].payload), (id(3, 2), &Payload::Noop));
}

/// "Raft handles this by having the leader exchange heartbeat messages with a majority of the cluster before responding to read-only
/// requests."
#[test]
fn a_read_waits_for_a_round_of_heartbeats_with_a_majority() {
    let mut subject = Subject::new(5, &[1]);
    subject.lead_settled();
    let read = ReadId { node: ME, boot: 1, counter: 1 };
    let ready = Effect::ReadReady { id: read, index: LogIndex(2) };
    let effects = subject.step(Event::ReadIndex(read));
    assert_eq!(sent(&effects).len(), 4);
    assert!(!effects.contains(&ready));
    let reply = Message::HeartbeatReply { round: 1, is_damaged: false };
    assert!(!subject.receive(2, 2, reply.clone()).contains(&ready), "two of five");
    assert!(!subject.receive(2, 2, reply.clone()).contains(&ready), "still two of five");
    assert!(subject.receive(3, 2, reply).contains(&ready), "three of five");
}

/// Figure 2, "persistent state on all servers: updated on stable storage before responding to RPCs".
#[test]
fn no_answer_leaves_before_what_it_reveals_is_durable() {
    let requests = [
        Message::Vote { last: id(2, 2), transfer: false },
        Message::Append {
            previous: id(2, 2),
            entries: vec![entry(3, 3)].into(),
            commit: LogIndex(0),
        },
        Message::Append { previous: id(9, 3), entries: Entries::default(), commit: LogIndex(0) },
        heartbeat(),
        Message::PreVote { term: Term(4), last: id(2, 2) },
    ];
    for request in requests {
        let mut subject = Subject::recovered(
            3,
            recovered(3, &[1, 2], HardState { term: Term(2), voted_for: None }),
        );
        let effects = subject.receive(2, 3, request.clone());
        let token = batches(&effects)[0].token;
        assert_eq!(only(&effects).after, Some(token), "the term at least is new: {request:?}");
    }
}
