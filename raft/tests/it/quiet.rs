//! Quiet groups: who agrees, what wakes them, and what quiet must never do.

use std::time::Duration;

use raft_consensus::effects::{Effect, OrderError, ProposalId};
use raft_consensus::membership::{ConfChange, Member, Membership};
use raft_consensus::message::{Envelope, Message, ReadId};
use raft_consensus::raft_node::{
    ClockBound, Config, Event, QuietStanding, RaftNode, ReadPolicy, Role,
};
use raft_consensus::replica::{Input, Output, Replica, ReplicaConfig};
use raft_consensus::types::{HardState, LogIndex, NodeEpoch, NodeId, Payload, Term};

use crate::script::subject::{ME, Sent, Subject, id, only, recovered, sent, store};

const EPOCH: NodeEpoch = NodeEpoch { boot: 77, count: 3 };
const THEIRS: NodeEpoch = NodeEpoch { boot: 88, count: 1 };
const IDLE: Duration = Duration::from_millis(500);

/// A node of three with a log of these terms, all applied, whose process watches others.
fn subject(terms: &[u64], adjust: impl FnOnce(&mut Config)) -> Subject {
    let mut config = Config::new(ME, store(1), Membership::founding((1..=3).map(NodeId)));
    config.boot = 1;
    config.quiet_after = Some(IDLE);
    adjust(&mut config);
    let term = Term(terms.last().copied().unwrap_or(0));
    let state = recovered(3, terms, HardState { term, voted_for: None });
    let mut subject = Subject::configured(config, state);
    subject.step(Event::NodeEpoch(EPOCH));
    subject
}

/// A leader in term 2, everything of which is everywhere.
fn leader(adjust: impl FnOnce(&mut Config)) -> Subject {
    let mut leader = subject(&[1, 1], adjust);
    leader.lead_settled();
    let commit = leader.node.commit();
    leader.step(Event::Applied(commit));
    leader
}

/// Lets heartbeats be answered until the leader asks for quiet; returns what it then sends.
fn until_asked(leader: &mut Subject) -> Vec<Sent> {
    for _ in 0..20 {
        let sent = sent(&leader.timeout());
        if sent.iter().any(|sent| matches!(sent.message, Message::Quiet { .. })) {
            return sent;
        }
        answer(leader, &sent);
    }
    panic!("it never asks");
}

fn answer(leader: &mut Subject, heartbeats: &[Sent]) {
    let term = leader.node.term().0;
    for heartbeat in heartbeats {
        if let Message::Heartbeat { round, .. } = heartbeat.message {
            leader.receive(
                heartbeat.to.0,
                term,
                Message::HeartbeatReply { round, is_damaged: false },
            );
        }
    }
}

fn agree(leader: &mut Subject, from: u64) -> Vec<Effect> {
    let (term, last) = (leader.node.term().0, leader.node.log().last());
    leader.receive(from, term, Message::QuietAgreed { last })
}

fn quiet_leader(adjust: impl FnOnce(&mut Config)) -> Subject {
    let mut leader = leader(adjust);
    until_asked(&mut leader);
    agree(&mut leader, 2);
    agree(&mut leader, 3);
    assert!(leader.node.is_quiet());
    leader
}

/// A follower of node 2 in term 1, with nothing left to do.
fn follower() -> Subject {
    let mut follower = subject(&[1, 1], |_| ());
    follower.receive(2, 1, Message::Heartbeat { commit: LogIndex(2), round: 0 });
    follower.step(Event::Applied(LogIndex(2)));
    follower
}

fn ask(follower: &mut Subject, index: u64, term: u64) -> Vec<Sent> {
    sent(&follower.receive(2, 1, Message::Quiet { last: id(index, term), epoch: THEIRS }))
}

fn quiet_follower() -> Subject {
    let mut follower = follower();
    assert_eq!(ask(&mut follower, 2, 1)[0].message, Message::QuietAgreed { last: id(2, 1) });
    assert!(follower.node.is_quiet());
    follower
}

#[test]
fn a_leader_is_quiet_when_all_have_agreed_and_not_before() {
    let mut leader = leader(|_| ());
    let asked = until_asked(&mut leader);
    let last = leader.node.log().last();
    let question = Message::Quiet { last, epoch: EPOCH };
    assert_eq!(asked.iter().map(|sent| sent.to).collect::<Vec<_>>(), [NodeId(2), NodeId(3)]);
    assert!(asked.iter().all(|sent| sent.message == question));
    agree(&mut leader, 2);
    agree(&mut leader, 2);
    assert!(!leader.node.is_quiet(), "one of two, twice");
    assert!(leader.node.next_deadline().is_some());
    assert_eq!(leader.node.quiet_standing(), QuietStanding::Asked);
    agree(&mut leader, 3);
    assert!(leader.node.is_quiet());
    assert_eq!(leader.node.next_deadline(), None, "it waits for nothing");
    assert_eq!(leader.node.quiet_standing(), QuietStanding::Asked);
}

/// Whether an idle leader comes to ask for quiet, all its heartbeats being answered.
fn comes_to_ask(leader: &mut Subject) -> bool {
    (0..6).any(|_| {
        let sent = sent(&leader.timeout());
        answer(leader, &sent);
        asks(&sent)
    })
}

fn asks(sent: &[Sent]) -> bool {
    sent.iter().any(|sent| matches!(sent.message, Message::Quiet { .. }))
}

/// Idle is after less than a heartbeat.
fn hasty(config: &mut Config) {
    config.quiet_after = Some(Duration::from_millis(50));
}

#[test]
fn a_leader_that_has_not_applied_everything_does_not_ask() {
    let mut leader = subject(&[1, 1], hasty);
    leader.lead_settled();
    assert!(!comes_to_ask(&mut leader));
    assert_eq!(leader.node.quiet_standing(), QuietStanding::Awake);
    let commit = leader.node.commit();
    leader.step(Event::Applied(commit));
    assert!(comes_to_ask(&mut leader));
}

#[test]
fn a_leader_with_a_read_that_waits_for_its_round_does_not_ask() {
    let mut leader = leader(hasty);
    assert!(comes_to_ask(&mut leader), "but for the read it would");
    leader.step(Event::ReadIndex(ReadId { node: ME, boot: 1, counter: 1 }));
    let unanswered = sent(&leader.timeout());
    assert!(!asks(&unanswered));
    answer(&mut leader, &unanswered);
    assert!(comes_to_ask(&mut leader));
}

#[test]
fn a_leader_that_hands_over_does_not_ask_until_that_has_failed() {
    let mut leader = leader(hasty);
    let order = leader.step(Event::TransferLeader(ProposalId(9), Some(NodeId(2))));
    assert_eq!(only(&order).message, Message::TimeoutNow);
    let deadline = leader.now + leader.node.config().election_timeout.end;
    loop {
        let sent = sent(&leader.timeout());
        answer(&mut leader, &sent);
        if leader.now >= deadline {
            break;
        }
        assert!(!asks(&sent), "{sent:?}");
    }
    assert!(comes_to_ask(&mut leader));
}

#[test]
fn a_member_that_says_otherwise_has_not_agreed_any_more() {
    let mut leader = leader(|_| ());
    until_asked(&mut leader);
    agree(&mut leader, 2);
    leader.receive(2, leader.node.term().0, HERE);
    agree(&mut leader, 3);
    assert!(!leader.node.is_quiet());
    agree(&mut leader, 2);
    assert!(leader.node.is_quiet());
}

#[test]
fn a_node_that_has_stopped_stands_for_nothing() {
    for mut stopped in [quiet_leader(|_| ()), quiet_follower()] {
        assert_ne!(stopped.node.quiet_standing(), QuietStanding::Awake);
        stopped.step(Event::PersistFailed("EIO".to_owned()));
        assert_eq!(stopped.node.quiet_standing(), QuietStanding::Awake);
    }
}

#[test]
fn a_question_commits_nothing_in_a_log_that_ends_otherwise_or_is_damaged() {
    for (index, term) in [(1, 1), (3, 1), (2, 2)] {
        let mut follower = subject(&[1, 1], |_| ());
        ask(&mut follower, index, term);
        assert_eq!(follower.node.commit(), LogIndex(0), "{index}@{term}");
    }
    let mut damaged = subject(&[1, 1], |_| ());
    damaged.step(Event::EntriesDamaged { first: LogIndex(2), last: LogIndex(2) });
    ask(&mut damaged, 2, 1);
    assert_eq!((damaged.node.commit(), damaged.node.is_quiet()), (LogIndex(0), false));
}

#[test]
fn nobody_is_quiet_whose_process_does_not_watch_others() {
    let mut config = Config::new(ME, store(1), Membership::founding((1..=3).map(NodeId)));
    config.quiet_after = Some(IDLE);
    let state = recovered(3, &[1, 1], HardState { term: Term(1), voted_for: None });
    let mut alone = Subject::configured(config, state);
    alone.receive(2, 1, Message::Heartbeat { commit: LogIndex(2), round: 0 });
    alone.step(Event::Applied(LogIndex(2)));
    assert_eq!(
        ask(&mut alone, 2, 1)[0].message,
        Message::HeartbeatReply { round: 0, is_damaged: false }
    );
    assert!(!alone.node.is_quiet());
}

#[test]
fn a_leader_with_a_follower_behind_does_not_ask() {
    let mut leader = leader(|_| ());
    leader.propose("for two of three");
    leader.persist();
    let last = leader.node.log().last().index;
    leader.accepted(2, last.0);
    leader.step(Event::Applied(last));
    for _ in 0..20 {
        let sent = sent(&leader.timeout());
        assert!(sent.iter().all(|sent| !matches!(sent.message, Message::Quiet { .. })), "{sent:?}");
        answer(&mut leader, &sent);
    }
    leader.accepted(3, last.0);
    until_asked(&mut leader);
}

#[test]
fn a_follower_agrees_only_if_its_log_ends_where_the_leaders_does_and_is_applied() {
    for (index, term) in [(1, 1), (3, 1), (2, 2), (3, 2)] {
        let mut follower = follower();
        let sent = ask(&mut follower, index, term);
        assert_eq!(
            sent[0].message,
            Message::HeartbeatReply { round: 0, is_damaged: false },
            "{index}@{term}"
        );
        assert!(!follower.node.is_quiet());
        assert!(follower.node.next_deadline().is_some());
    }
    let mut behind = subject(&[1, 1], |_| ());
    let sent = ask(&mut behind, 2, 1);
    assert_eq!(
        behind.node.commit(),
        LogIndex(2),
        "that all is committed it takes from the question"
    );
    assert_eq!(
        sent[0].message,
        Message::HeartbeatReply { round: 0, is_damaged: false },
        "but has not applied it yet"
    );
    behind.step(Event::Applied(LogIndex(2)));
    assert_eq!(ask(&mut behind, 2, 1)[0].message, Message::QuietAgreed { last: id(2, 1) });
}

#[test]
fn a_command_wakes_a_leader_which_sends_heartbeats_and_entries_at_once() {
    let mut leader = quiet_leader(|_| ());
    leader.now += Duration::from_secs(3600);
    let sent = sent(&leader.propose("good morning"));
    for peer in [2, 3].map(NodeId) {
        let to = |sent: &&Sent| sent.to == peer;
        let kinds: Vec<_> = sent.iter().filter(to).map(|sent| &sent.message).collect();
        assert!(
            matches!(kinds[..], [Message::Heartbeat { .. }, Message::Append { .. }]),
            "{kinds:?}"
        );
    }
    assert_eq!(leader.node.role(), Role::Leader, "an hour without contact was agreed");
    assert!(!leader.node.is_quiet());
}

#[test]
fn a_leader_that_wakes_and_hears_nobody_steps_down_after_an_election_timeout() {
    let mut leader = quiet_leader(|_| ());
    leader.now += Duration::from_secs(3600);
    leader.propose("anybody there?");
    let woken = leader.now;
    while leader.node.role() == Role::Leader {
        leader.timeout();
        assert!(leader.now <= woken + Duration::from_secs(1));
    }
    assert!(leader.now >= woken + leader.node.config().election_timeout.end);
}

#[test]
fn a_read_wakes_a_leader_and_is_served_on_no_lease_from_before() {
    let policy = ReadPolicy::Lease(ClockBound::default());
    let mut leader = quiet_leader(|config| config.reads = policy);
    leader.now += Duration::from_secs(1);
    let read = ReadId { node: ME, boot: 1, counter: 1 };
    let effects = leader.step(Event::ReadIndex(read));
    let is_served = |effects: &[Effect]| {
        effects.iter().any(|effect| matches!(effect, Effect::ReadReady { .. }))
    };
    assert!(!is_served(&effects), "its lease ran out while it was quiet");
    let rounds = sent(&effects).into_iter().filter_map(|sent| match sent.message {
        Message::Heartbeat { round, .. } => Some(round),
        _ => None,
    });
    let round = rounds.max().unwrap();
    let term = leader.node.term().0;
    assert!(is_served(&leader.receive(
        2,
        term,
        Message::HeartbeatReply { round, is_damaged: false }
    )));
}

#[test]
fn an_answer_to_an_earlier_question_is_no_agreement_to_this_one() {
    let mut leader = leader(|_| ());
    until_asked(&mut leader);
    let (term, before) = (leader.node.term().0, leader.node.log().last());
    leader.propose("more");
    leader.persist();
    let last = leader.node.log().last().index;
    leader.accepted(2, last.0);
    leader.accepted(3, last.0);
    leader.step(Event::Applied(last));
    until_asked(&mut leader);
    for peer in [2, 3] {
        leader.receive(peer, term, Message::QuietAgreed { last: before });
    }
    assert!(!leader.node.is_quiet());
}

#[test]
fn a_quiet_follower_waits_for_nothing_and_refuses_votes_as_if_it_heard_its_leader() {
    let mut follower = quiet_follower();
    assert_eq!(follower.node.next_deadline(), None);
    let standing = QuietStanding::Under { leader: NodeId(2), epoch: THEIRS };
    assert_eq!(follower.node.quiet_standing(), standing);
    follower.now += Duration::from_secs(3600);
    assert_eq!(follower.step(Event::Timeout), [], "an hour later too");
    let candidate = Message::PreVote { term: Term(2), last: id(2, 1) };
    let sent = sent(&follower.receive(3, 1, candidate));
    let nudge = Message::HeartbeatReply { round: 0, is_damaged: false };
    assert_eq!((sent[0].to, &sent[0].message), (NodeId(2), &nudge), "it wakes its leader");
    let refusal = Message::PreVoteReply { term: Term(2), granted: false };
    assert_eq!((sent[1].to, &sent[1].message), (NodeId(3), &refusal));
    assert!(follower.node.next_deadline().is_some(), "and runs its election timeout from now on");
}

#[test]
fn a_quiet_follower_whose_leaders_process_is_silent_campaigns_after_an_election_timeout() {
    let mut follower = quiet_follower();
    follower.now += Duration::from_secs(60);
    let woken = follower.now;
    follower.step(Event::LeaderSilent);
    assert_eq!(follower.node.quiet_standing(), QuietStanding::Awake);
    let campaign = sent(&follower.timeout());
    assert!(campaign.iter().all(|sent| matches!(sent.message, Message::PreVote { .. })));
    assert!(follower.now >= woken + follower.node.config().election_timeout.start);
    assert!(follower.now <= woken + follower.node.config().election_timeout.end);
}

#[test]
fn a_quiet_follower_follows_its_leader_when_that_wakes_and_may_be_asked_again() {
    let mut follower = quiet_follower();
    follower.now += Duration::from_secs(60);
    let heartbeat = Message::Heartbeat { commit: LogIndex(2), round: 4 };
    let answers = sent(&follower.receive(2, 1, heartbeat));
    assert_eq!(answers.len(), 1, "it need not be told: {answers:?}");
    assert_eq!(answers[0].message, Message::HeartbeatReply { round: 4, is_damaged: false });
    assert!(follower.node.next_deadline().is_some());
    assert_eq!(ask(&mut follower, 2, 1)[0].message, Message::QuietAgreed { last: id(2, 1) });
    assert_eq!(ask(&mut follower, 2, 1)[0].message, Message::QuietAgreed { last: id(2, 1) });
    assert!(follower.node.is_quiet(), "asked twice, quiet once");
}

#[test]
fn a_message_wakes_a_quiet_leader_and_its_heartbeats_wake_the_others() {
    let mut leader = quiet_leader(|_| ());
    leader.now += Duration::from_secs(60);
    let term = leader.node.term().0;
    let sent =
        sent(&leader.receive(3, term, Message::HeartbeatReply { round: 0, is_damaged: false }));
    assert_eq!(sent.iter().map(|sent| sent.to).collect::<Vec<_>>(), [NodeId(2), NodeId(3)]);
    assert!(sent.iter().all(|sent| matches!(sent.message, Message::Heartbeat { .. })));
    // What it has agreed to is over, and its process must be heard from nevertheless: node 2 may not hear this.
    assert_eq!(leader.node.quiet_standing(), QuietStanding::Asked);
}

#[test]
fn a_leader_that_is_deposed_has_asked_for_nothing() {
    let mut leader = quiet_leader(|_| ());
    let term = leader.node.term().0;
    leader.receive(2, term + 1, Message::Heartbeat { commit: LogIndex(2), round: 0 });
    assert_eq!(leader.node.role(), Role::Follower);
    assert_eq!(leader.node.quiet_standing(), QuietStanding::Awake);
    assert!(leader.node.next_deadline().is_some());
}

const HERE: Message = Message::HeartbeatReply { round: 0, is_damaged: false };

/// It is asked nothing and may not campaign: whoever is quiet would never speak to it.
#[test]
fn a_learner_that_restarts_calls_all_members_until_it_hears_a_leader() {
    let mut members = Membership::default();
    members.insert(ME, Member::learner(store(1)));
    for voter in 2..=4 {
        members.insert(NodeId(voter), Member::voter(store(voter)));
    }
    let mut state = recovered(3, &[1, 1], HardState { term: Term(1), voted_for: None });
    state.memberships = vec![(LogIndex(1), members.clone())];
    state.tail[0].payload = Payload::Membership(members);
    let config = |quiet_after| {
        let mut config = Config::new(ME, store(1), Membership::default());
        config.quiet_after = quiet_after;
        config
    };
    let mut learner = Subject::configured(config(Some(IDLE)), state.clone());
    learner.step(Event::NodeEpoch(EPOCH));
    for _ in 0..3 {
        let calls = sent(&learner.timeout());
        assert_eq!(calls.iter().map(|call| call.to.0).collect::<Vec<_>>(), [2, 3, 4]);
        assert!(calls.iter().all(|call| call.message == HERE), "{calls:?}");
    }
    learner.receive(2, 1, Message::Heartbeat { commit: LogIndex(2), round: 1 });
    learner.step(Event::Applied(LogIndex(2)));
    assert_eq!(ask(&mut learner, 2, 1)[0].message, Message::QuietAgreed { last: id(2, 1) });
    // Its one word to the leader may be lost when it wakes.
    learner.step(Event::LeaderSilent);
    assert_eq!(sent(&learner.timeout()).len(), 3);

    let mut restless = Subject::configured(config(None), state);
    assert_eq!(sent(&restless.timeout()), [], "where nobody is ever quiet it need not speak");
}

#[test]
fn a_quiet_follower_passes_a_call_on_to_its_leader() {
    let mut follower = quiet_follower();
    let nudge = only(&follower.receive(3, 1, HERE));
    assert_eq!((nudge.to, nudge.message), (NodeId(2), HERE));
}

#[test]
fn a_removed_member_that_calls_for_its_leader_is_told_so() {
    let mut leader = leader(|_| ());
    let term = leader.node.term().0;
    for message in sent(&leader.timeout()) {
        leader.receive(message.to.0, term, HERE);
    }
    leader.step(Event::ChangeMembership(ProposalId(9), ConfChange::remove(NodeId(3))));
    for _ in 0..3 {
        leader.persist();
        let last = leader.node.log().last().index.0;
        leader.accepted(2, last);
        leader.accepted(3, last);
    }
    assert!(!leader.node.membership().contains(NodeId(3)));
    let answers = sent(&leader.receive(3, term, HERE));
    assert_eq!(answers.len(), 1);
    assert_eq!((answers[0].to, &answers[0].message), (NodeId(3), &Message::Removed));
}

/// It may miss the word of its removal, and nobody speaks to it any more: while it hears that its leader's process lives, in the epoch in
/// which it agreed, it would be quiet for ever.
#[test]
fn a_leader_that_has_removed_a_member_wakes_it_by_another_epoch() {
    let mut leader = quiet_leader(|_| ());
    let term = leader.node.term().0;
    for peer in [2, 3] {
        leader.receive(peer, term, HERE);
    }
    leader.step(Event::ChangeMembership(ProposalId(9), ConfChange::remove(NodeId(3))));
    let mut standings = Vec::new();
    while leader.node.commit() < leader.node.log().last().index {
        standings.push(leader.node.quiet_standing());
        leader.persist();
        let last = leader.node.log().last().index.0;
        leader.accepted(2, last);
        leader.accepted(3, last);
    }
    assert!(!leader.node.membership().contains(NodeId(3)));
    assert!(standings.iter().all(|standing| *standing == QuietStanding::Asked), "{standings:?}");
    assert_eq!(leader.node.quiet_standing(), QuietStanding::Awake, "which ends the epoch");
}

/// What was agreed hours ago says nothing of who could commit a change now.
#[test]
fn a_leader_that_has_woken_changes_no_voters_and_hands_over_to_nobody_before_it_hears_them() {
    let mut leader = quiet_leader(|_| ());
    leader.now += Duration::from_secs(3600);
    let change = |leader: &mut Subject| {
        let remove = ConfChange::remove(NodeId(3));
        leader.step(Event::ChangeMembership(ProposalId(9), remove))
    };
    let refusal = |effects: &[Effect]| {
        effects.iter().find_map(|effect| match effect {
            Effect::OrderFailed { error, .. } => Some(*error),
            _ => None,
        })
    };
    let refused = change(&mut leader);
    assert_eq!(refusal(&refused), Some(OrderError::WouldLoseQuorum));
    let refused = leader.step(Event::TransferLeader(ProposalId(8), Some(NodeId(2))));
    assert_eq!(refusal(&refused), Some(OrderError::NotInSync(NodeId(2))));
    assert_eq!(leader.node.role(), Role::Leader, "an hour without contact was agreed");
    let term = leader.node.term().0;
    leader.receive(2, term, HERE);
    assert_eq!(refusal(&change(&mut leader)), None);
    assert!(leader.node.membership().is_joint());
}

/// A replica whose disk and machine take no time, and whose peers say yes to everything.
struct Agreeable {
    replica: Replica,
    now: Duration,
}

impl Agreeable {
    /// Takes one input; returns what comes of it in its order. What is asked is answered in `queue`.
    fn handle(&mut self, input: Input, queue: &mut Vec<Input>) -> Vec<Output> {
        let mut out = Vec::new();
        self.replica.handle(self.now, input, &mut out);
        for output in &out {
            match output {
                Output::Persist(batch) => queue.push(Input::Persisted(batch.token)),
                Output::Apply(run) => {
                    let last = *run.range.end();
                    let term = self.replica.node().log().term_at(last).unwrap();
                    let last = id(last.0, term.0);
                    queue.push(Input::Applied { last, replies: Vec::new() });
                }
                Output::Send(envelope) => {
                    let message = match envelope.message.clone() {
                        Message::PreVote { term, .. } => {
                            Message::PreVoteReply { term, granted: true }
                        }
                        Message::Vote { .. } => Message::VoteReply { granted: true },
                        Message::Append { previous, entries, .. } => {
                            let last = entries.last().map_or(previous.index, |last| last.id.index);
                            Message::AppendAccepted { matched: last }
                        }
                        Message::Heartbeat { round, .. } => {
                            Message::HeartbeatReply { round, is_damaged: false }
                        }
                        _ => continue,
                    };
                    let (from, to) = (envelope.to, envelope.from);
                    let store = store(from.0);
                    let answer = Envelope { from, to, store, message, ..envelope.clone() };
                    queue.push(Input::Receive(answer));
                }
                _ => {}
            }
        }
        out
    }
}

/// Whom the process has to be heard by it takes from the questions; it does not look at those of a group that asks for nothing.
#[test]
fn that_a_group_asks_for_quiet_is_told_before_the_question_is_sent() {
    let config = {
        let mut config = Config::new(ME, store(1), Membership::default());
        config.quiet_after = Some(IDLE);
        config
    };
    let state = recovered(3, &[1], HardState { term: Term(1), voted_for: None });
    let node = RaftNode::recover(config, state, 7, Duration::ZERO).unwrap();
    let replica = Replica::new(node, ReplicaConfig::default());
    let mut leader = Agreeable { replica, now: Duration::from_secs(1) };
    let mut queue = vec![Input::NodeEpoch(EPOCH)];
    let asked = (0..1_000).find_map(|_| {
        let input = queue.pop().unwrap_or_else(|| {
            leader.now = leader.now.max(leader.replica.next_deadline().unwrap());
            Input::Timeout
        });
        let out = leader.handle(input, &mut queue);
        let is_question =
            |output: &Output| matches!(output, Output::Send(envelope) if matches!(envelope.message, Message::Quiet { .. }));
        out.iter().any(is_question).then_some(out)
    });
    let asked = asked.expect("it asks");
    let place = |wanted: fn(&Output) -> bool| asked.iter().position(wanted).unwrap();
    let standing = place(|output| matches!(output, Output::Quiet(QuietStanding::Asked)));
    let question = place(|output| matches!(output, Output::Send(_)));
    assert!(standing < question, "{asked:?}");
}
