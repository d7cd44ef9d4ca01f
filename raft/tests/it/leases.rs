//! Reads without a round: when a lease holds, and when it does not. Cases 26 and 27 of the table in `docs/testing.md`.

use std::time::Duration;

use raft_consensus::effects::{Effect, ProposalId};
use raft_consensus::message::{Message, ReadId};
use raft_consensus::raft_node::{
    ClockBound, Config, Event, LeaseGuard, RaftNode, ReadPolicy, RecoverError, Role,
};
use raft_consensus::types::{HardState, LogIndex, NodeId, Payload, Term};

use crate::script::subject::{
    ME, Subject, batches, blank, entry, founded, id, only, recovered, sent, store,
};

/// The smallest election timeout of these nodes.
const TIMEOUT: Duration = Duration::from_millis(150);
const MS: Duration = Duration::from_millis(1);

const TRUE_CLOCKS: ClockBound = ClockBound { drift_ppm: 0, margin: Duration::ZERO };

fn guard(lease: Duration) -> ReadPolicy {
    ReadPolicy::LeaseGuard(LeaseGuard { lease: Some(lease), clock: TRUE_CLOCKS })
}

fn config(reads: ReadPolicy) -> Config {
    let mut config = Config::new(ME, store(1), founded(3));
    config.boot = 1;
    config.reads = reads;
    config
}

/// A node of three with a log of these terms.
fn subject(reads: ReadPolicy, terms: &[u64]) -> Subject {
    let term = Term(terms.last().copied().unwrap_or(0));
    let state = recovered(3, terms, HardState { term, voted_for: None });
    Subject::configured(config(reads), state)
}

fn read(counter: u64) -> ReadId {
    ReadId { node: ME, boot: 1, counter }
}

/// Asks for a read, and says where it may be served if that is known at once.
fn ask(subject: &mut Subject) -> (Option<u64>, Vec<Effect>) {
    let effects = subject.step(Event::ReadIndex(read(1)));
    let ready = effects.iter().find_map(|effect| match effect {
        Effect::ReadReady { index, .. } => Some(index.0),
        _ => None,
    });
    (ready, effects)
}

fn is_served(subject: &mut Subject) -> bool {
    ask(subject).0.is_some()
}

/// The round that the leader's heartbeats bear now.
fn round_of(effects: &[Effect]) -> u64 {
    let round = sent(effects).iter().find_map(|sent| match sent.message {
        Message::Heartbeat { round, .. } => Some(round),
        _ => None,
    });
    round.expect("a heartbeat went out")
}

fn answer(subject: &mut Subject, from: u64, round: u64) {
    let term = subject.node.term().0;
    subject.receive(from, term, Message::HeartbeatReply { round, is_damaged: false });
}

// By rounds.

/// Case 27.
#[test]
fn a_lease_is_counted_from_when_its_round_was_sent() {
    let mut subject = subject(ReadPolicy::Lease(TRUE_CLOCKS), &[1]);
    subject.lead_settled();
    let round = round_of(&subject.timeout());
    let sent_at = subject.now;
    subject.now += 90 * MS;
    answer(&mut subject, 2, round);
    subject.now = sent_at + TIMEOUT - MS;
    assert!(is_served(&mut subject));
    subject.now = sent_at + TIMEOUT;
    let (ready, effects) = ask(&mut subject);
    assert_eq!(ready, None);
    assert_eq!(round_of(&effects), round + 1, "it goes by a round of its own");
}

#[test]
fn a_lease_is_shorter_by_what_the_clocks_may_drift() {
    let clock = ClockBound { drift_ppm: 500_000, margin: 30 * MS };
    let mut subject = subject(ReadPolicy::Lease(clock), &[1]);
    subject.lead_settled();
    let round = round_of(&subject.timeout());
    let sent_at = subject.now;
    answer(&mut subject, 2, round);
    // A clock that runs half as fast again shows 120 ms when ours shows 80.
    subject.now = sent_at + 80 * MS - Duration::from_nanos(1);
    assert!(is_served(&mut subject));
    subject.now = sent_at + 80 * MS;
    assert!(!is_served(&mut subject));
}

#[test]
fn a_late_answer_to_an_earlier_round_renews_only_what_that_round_began() {
    let mut subject = subject(ReadPolicy::Lease(TRUE_CLOCKS), &[1]);
    subject.lead_settled();
    let first = round_of(&subject.timeout());
    let first_at = subject.now;
    let second = round_of(&subject.timeout());
    assert!(second > first, "every heartbeat is a round");
    answer(&mut subject, 2, first);
    subject.now = first_at + TIMEOUT;
    assert!(!is_served(&mut subject));
    answer(&mut subject, 3, second);
    assert!(is_served(&mut subject));
    answer(&mut subject, 3, second + 100);
    answer(&mut subject, 2, first);
    assert!(is_served(&mut subject), "and nothing takes it back");
}

#[test]
fn a_late_answer_renews_the_lease_from_when_its_round_was_sent() {
    let mut subject = subject(ReadPolicy::Lease(TRUE_CLOCKS), &[1]);
    subject.lead_settled();
    subject.now += TIMEOUT;
    let first = round_of(&subject.step(Event::Timeout));
    let first_at = subject.now;
    let second = round_of(&subject.timeout());
    assert_eq!(second, first + 1);
    answer(&mut subject, 2, first);
    subject.now = first_at + TIMEOUT - MS;
    assert!(is_served(&mut subject));
    subject.now = first_at + TIMEOUT;
    assert!(!is_served(&mut subject));
}

#[test]
fn a_member_that_answers_alone_is_no_majority_of_five() {
    let state = recovered(5, &[1], HardState { term: Term(1), voted_for: None });
    let mut config = config(ReadPolicy::Lease(TRUE_CLOCKS));
    config.founding = founded(5);
    let mut subject = Subject::configured(config, state);
    subject.lead_settled();
    subject.now += TIMEOUT;
    let round = round_of(&subject.step(Event::Timeout));
    answer(&mut subject, 2, round);
    assert!(!is_served(&mut subject));
    answer(&mut subject, 2, round);
    assert!(!is_served(&mut subject));
    answer(&mut subject, 3, round);
    assert!(is_served(&mut subject));
}

#[test]
fn the_votes_that_elected_a_leader_are_its_first_round() {
    let mut subject = subject(ReadPolicy::Lease(TRUE_CLOCKS), &[1]);
    subject.campaign();
    let begun = subject.now;
    subject.now += 40 * MS;
    subject.receive(2, 2, Message::VoteReply { granted: true });
    subject.receive(3, 2, Message::VoteReply { granted: false });
    subject.persist();
    assert!(!is_served(&mut subject), "nothing of its term is committed");
    subject.accepted(2, 2);
    subject.now = begun + TIMEOUT - MS;
    assert!(is_served(&mut subject));
    subject.now = begun + TIMEOUT;
    assert!(!is_served(&mut subject));
}

#[test]
fn a_lease_ends_with_the_leaders_role() {
    let mut subject = subject(ReadPolicy::Lease(TRUE_CLOCKS), &[1]);
    subject.lead_settled();
    assert!(is_served(&mut subject));
    // A later term is heard of; the lease of the earlier one would last for some time yet.
    subject.receive(3, 3, Message::HeartbeatReply { round: 0, is_damaged: false });
    assert_eq!(subject.node.role(), Role::Follower);
    let effects = subject.step(Event::ReadIndex(read(1)));
    assert_eq!(effects, [Effect::ReadFailed { id: read(1), leader: None }]);
}

/// Case 26. The other is elected without regard to who was heard when.
#[test]
fn a_leader_that_has_told_another_to_campaign_has_no_lease_by_rounds_in_that_term() {
    for (reads, keeps) in [(ReadPolicy::Lease(TRUE_CLOCKS), false), (guard(LEASE), true)] {
        let mut subject = subject(reads, &[1]);
        subject.now += LEASE;
        subject.lead_settled();
        assert!(is_served(&mut subject));
        let effects = subject.step(Event::TransferLeader(ProposalId(9), Some(NodeId(2))));
        assert!(sent(&effects).iter().any(|sent| sent.message == Message::TimeoutNow));
        // The other commits nothing while our entries are young: the log's lease stands.
        assert_eq!(is_served(&mut subject), keeps, "{reads:?}");
        let round = round_of(&subject.timeout());
        answer(&mut subject, 3, round);
        assert_eq!(is_served(&mut subject), keeps, "{reads:?}");
    }
}

#[test]
fn followers_reads_are_answered_on_the_lease_too() {
    let mut subject = subject(ReadPolicy::Lease(TRUE_CLOCKS), &[1]);
    subject.lead_settled();
    let id = ReadId { node: NodeId(3), boot: 5, counter: 1 };
    let effects = subject.receive(3, 2, Message::ReadIndex { id });
    let index = Some(subject.node.commit());
    assert_eq!(only(&effects).message, Message::ReadIndexReply { id, index });
}

/// What leases rest on. Without leases, a vote keeps nobody from voting for another in the next term.
#[test]
fn a_vote_binds_for_an_election_timeout_where_leases_are_on() {
    for (reads, binds) in [
        (ReadPolicy::ReadIndex, false),
        (ReadPolicy::Lease(TRUE_CLOCKS), true),
        (guard(TIMEOUT), true),
    ] {
        let mut subject = subject(reads, &[1]);
        let vote = || Message::Vote { last: id(1, 1), transfer: false };
        let granted = |effects: &[Effect]| {
            sent(effects).iter().any(|sent| sent.message == Message::VoteReply { granted: true })
        };
        assert!(granted(&subject.receive(2, 2, vote())));
        subject.now += TIMEOUT - MS;
        assert_eq!(granted(&subject.receive(3, 3, vote())), !binds, "{reads:?}");
        subject.now += MS;
        assert!(!binds || granted(&subject.receive(3, 3, vote())));
    }
}

/// A pre-vote that is under way when the vote is given must not lead to a campaign against whom it elected.
#[test]
fn who_gives_a_binding_vote_gives_up_its_own_pre_vote() {
    let mut subject = subject(ReadPolicy::Lease(TRUE_CLOCKS), &[1]);
    subject.receive(2, 2, Message::VoteReply { granted: false });
    subject.timeout();
    assert_eq!((subject.node.role(), subject.node.term()), (Role::PreCandidate, Term(2)));
    subject.receive(2, 2, Message::Vote { last: id(1, 1), transfer: false });
    subject.receive(3, 2, Message::PreVoteReply { term: Term(3), granted: true });
    subject.persist();
    assert_eq!((subject.node.role(), subject.node.term()), (Role::Follower, Term(2)));
}

/// After a start a node has forgotten whom it promised what.
#[test]
fn a_restarted_node_grants_no_vote_for_an_election_timeout() {
    let state = recovered(3, &[1], HardState { term: Term(1), voted_for: None });
    let mut subject = Subject::configured(config(ReadPolicy::Lease(TRUE_CLOCKS)), state);
    subject.now = TIMEOUT - MS;
    assert!(
        batches(&subject.receive(2, 2, Message::Vote { last: id(1, 1), transfer: false }))
            .is_empty()
    );
    subject.now = TIMEOUT;
    assert!(
        !batches(&subject.receive(2, 2, Message::Vote { last: id(1, 1), transfer: false }))
            .is_empty()
    );
}

#[test]
fn a_margin_that_leaves_no_lease_is_refused() {
    let clock = ClockBound { margin: TIMEOUT, ..ClockBound::default() };
    for reads in [
        ReadPolicy::Lease(clock),
        ReadPolicy::LeaseGuard(LeaseGuard { lease: None, clock }),
        guard(Duration::ZERO),
    ] {
        let node = RaftNode::recover(config(reads), blank(), 1, Duration::ZERO);
        assert!(matches!(node, Err(RecoverError::Config(_))), "{reads:?}");
    }
}

// By the log.

/// A follower of term 1 whose last entry came at the present time, with a lease of a second.
fn follower(reads: ReadPolicy) -> Subject {
    let mut subject = subject(reads, &[1]);
    subject.append(2, 1, id(1, 1), vec![entry(2, 1)], 1);
    subject.persist();
    subject
}

const LEASE: Duration = Duration::from_secs(1);

#[test]
fn a_new_leader_commits_nothing_before_the_last_earlier_entry_is_older_than_a_lease() {
    for reads in
        [guard(LEASE), ReadPolicy::Honour(LeaseGuard { lease: Some(LEASE), clock: TRUE_CLOCKS })]
    {
        let mut subject = follower(reads);
        let appended = subject.now;
        subject.lead();
        subject.accepted(2, 3);
        subject.propose("x");
        subject.persist();
        subject.accepted(2, 4);
        subject.accepted(3, 4);
        assert_eq!(
            subject.node.commit(),
            LogIndex(1),
            "all have it, and an earlier leader may answer reads"
        );
        while subject.now < appended + LEASE {
            assert_eq!(subject.node.commit(), LogIndex(1));
            subject.timeout();
            for peer in [2, 3] {
                answer(&mut subject, peer, 0);
            }
        }
        assert_eq!(subject.now, appended + LEASE, "it has a deadline for that");
        assert_eq!(subject.node.commit(), LogIndex(4));
    }
}

#[test]
fn the_wait_is_longer_by_what_the_clocks_may_drift_and_begins_anew_with_the_node() {
    let clock = ClockBound { drift_ppm: 500_000, margin: 10 * MS };
    let reads = ReadPolicy::LeaseGuard(LeaseGuard { lease: Some(LEASE), clock });
    let mut subject = subject(reads, &[1, 1]);
    // The node was started at zero; nobody knows how old its entries are.
    subject.lead();
    subject.accepted(2, 3);
    subject.now = LEASE * 3 / 2 + 10 * MS - Duration::from_nanos(1);
    subject.accepted(3, 3);
    assert_eq!(subject.node.commit(), LogIndex(0));
    subject.now += Duration::from_nanos(1);
    subject.step(Event::Timeout);
    assert_eq!(subject.node.commit(), LogIndex(3));
}

#[test]
fn nobody_waits_in_a_cluster_that_has_never_had_a_leader() {
    let mut subject = Subject::configured(config(guard(LEASE)), blank());
    subject.lead();
    subject.accepted(2, 1);
    assert_eq!(subject.node.commit(), LogIndex(1));
}

/// A leader with the default lease, the first entry of whose term was made at the time returned.
fn guarded_leader(lease: Duration) -> (Subject, Duration) {
    let mut subject = subject(guard(lease), &[1]);
    subject.now += lease;
    subject.lead();
    let made = subject.now;
    subject.now += 10 * MS;
    subject.accepted(2, 2);
    assert_eq!(subject.node.commit(), LogIndex(2));
    (subject, made)
}

#[test]
fn a_committed_entry_is_a_lease_from_when_it_was_made() {
    let (mut subject, made) = guarded_leader(LEASE);
    subject.now = made + LEASE / 2 - MS;
    let (ready, effects) = ask(&mut subject);
    assert_eq!((ready, sent(&effects).len()), (Some(2), 0), "no message, no write");
    assert!(batches(&effects).is_empty());
}

#[test]
fn a_read_in_the_second_half_of_the_lease_renews_it_by_an_entry_and_without_reads_nothing_is_written()
 {
    let (mut subject, made) = guarded_leader(LEASE);
    // Heartbeats go on, and nothing is appended.
    while subject.now < made + LEASE / 2 {
        assert!(batches(&subject.timeout()).is_empty());
        answer(&mut subject, 2, 0);
    }
    let (ready, effects) = ask(&mut subject);
    assert_eq!(ready, Some(2));
    let renewal = &batches(&effects)[0].entries;
    assert_eq!(renewal.len(), 1);
    assert_eq!(renewal[0].payload, Payload::Noop);
    let renewed = subject.now;
    // One at a time.
    let (ready, effects) = ask(&mut subject);
    assert_eq!((ready, batches(&effects).len()), (Some(2), 0));
    subject.persist();
    subject.accepted(2, 3);
    // Longer than from the first entry.
    subject.now = renewed + LEASE - MS;
    assert!(is_served(&mut subject));
}

#[test]
fn entries_committed_together_are_a_lease_from_when_the_last_was_made() {
    let (mut subject, _) = guarded_leader(LEASE);
    subject.propose("x");
    subject.now += 200 * MS;
    subject.propose("y");
    let made = subject.now;
    subject.persist();
    subject.accepted(2, 4);
    subject.now = made + LEASE - MS;
    assert!(is_served(&mut subject));
    subject.now = made + LEASE;
    assert!(!is_served(&mut subject));
}

/// So many moments are not remembered. The lease is shorter then, never longer.
#[test]
fn of_very_many_entries_committed_together_the_lease_begins_before_the_last_was_made() {
    let (mut subject, _) = guarded_leader(LEASE);
    for _ in 0..200 {
        subject.now += MS;
        subject.propose("x");
    }
    let made = subject.now;
    subject.persist();
    subject.accepted(2, 202);
    assert!(is_served(&mut subject), "there is one");
    subject.now = made + LEASE - MS;
    assert!(!is_served(&mut subject));
}

#[test]
fn a_leader_that_hands_over_does_not_renew_its_lease() {
    let (mut subject, made) = guarded_leader(LEASE);
    let order = Event::TransferLeader(ProposalId(9), Some(NodeId(2)));
    assert_eq!(only(&subject.step(order)).message, Message::TimeoutNow);
    subject.now = made + LEASE * 3 / 4;
    let (ready, effects) = ask(&mut subject);
    assert_eq!((ready, batches(&effects).len()), (Some(2), 0), "the log has to stand still");
}

#[test]
fn a_read_that_finds_the_lease_over_goes_by_a_round_and_renews_it() {
    let (mut subject, made) = guarded_leader(LEASE);
    subject.now = made + LEASE;
    let (ready, effects) = ask(&mut subject);
    assert_eq!(ready, None);
    assert_eq!(batches(&effects)[0].entries[0].payload, Payload::Noop);
    let round = round_of(&effects);
    let effects = subject.receive(2, 2, Message::HeartbeatReply { round, is_damaged: false });
    assert!(effects.contains(&Effect::ReadReady { id: read(1), index: LogIndex(2) }));
}

#[test]
fn a_leader_whose_entries_get_nowhere_loses_its_lease_however_well_its_heartbeats_do() {
    let (mut subject, made) = guarded_leader(LEASE);
    subject.propose("x");
    while subject.now < made + LEASE {
        let round = round_of(&subject.timeout());
        answer(&mut subject, 2, round);
        answer(&mut subject, 3, round);
    }
    assert!(!is_served(&mut subject));
}

#[test]
fn honouring_leases_of_others_is_not_having_one() {
    let honour = LeaseGuard { lease: Some(LEASE), clock: TRUE_CLOCKS };
    let mut subject = subject(ReadPolicy::Honour(honour), &[1]);
    subject.now += LEASE;
    subject.lead();
    subject.accepted(2, 2);
    assert_eq!(subject.node.commit(), LogIndex(2));
    let (ready, effects) = ask(&mut subject);
    assert_eq!((ready, round_of(&effects)), (None, 1));
}

// While a new leader waits.

#[test]
fn a_new_leader_that_knows_all_earlier_entries_to_be_committed_answers_at_once() {
    let mut subject = follower(guard(LEASE));
    subject.receive(2, 1, Message::Heartbeat { commit: LogIndex(2), round: 0 });
    subject.lead();
    assert_eq!((subject.node.commit(), subject.node.limbo()), (LogIndex(2), None));
    assert_eq!(ask(&mut subject).0, Some(2), "on the votes that elected it");
    subject.now += TIMEOUT;
    let (ready, effects) = ask(&mut subject);
    assert_eq!(ready, None, "they bind no longer");
    let round = round_of(&effects);
    let effects = subject.receive(3, 2, Message::HeartbeatReply { round, is_damaged: false });
    assert!(effects.contains(&Effect::ReadReady { id: read(1), index: LogIndex(2) }));
    assert!(is_served(&mut subject), "and a round is a lease again");
}

#[test]
fn reads_wait_for_entries_in_limbo_unless_these_cannot_touch_them() {
    let mut subject = follower(guard(LEASE));
    assert_eq!(subject.node.commit(), LogIndex(1));
    subject.lead();
    assert_eq!(subject.node.limbo(), Some(LogIndex(2)..=LogIndex(2)));
    let (ready, effects) = ask(&mut subject);
    assert_eq!((ready, sent(&effects).len()), (None, 0), "it waits");
    assert_eq!(subject.node.index_beside_limbo(subject.now), Some(LogIndex(1)));
    assert_eq!(subject.node.index_beside_limbo(subject.now + TIMEOUT), None, "unproven");
}

#[test]
fn a_blank_cluster_has_nothing_to_be_read_before_its_first_commit() {
    let mut subject = Subject::configured(config(guard(LEASE)), blank());
    subject.lead();
    assert!(!is_served(&mut subject));
    assert_eq!(subject.node.index_beside_limbo(subject.now), None);
}
