//! The limits: what is taken up to each of them, and what is refused from there on.

use std::time::Duration;

use bytes::Bytes;
use raft_consensus::effects::{Effect, ProposalId, Rejection};
use raft_consensus::message::{Message, ReadId};
use raft_consensus::raft_node::{
    ClockBound, Config, Event, Proposal, RaftNode, ReadPolicy, RecoverError,
};
use raft_consensus::replica::{
    Input, Output, ProposalError, Replica, ReplicaConfig, Request, RequestId, SnapshotOutcome,
};
use raft_consensus::types::{Entry, EntryId, HardState, LogIndex, NodeId, SnapshotMeta, Term};

use crate::cases::{Bench, answers};
use crate::script::subject::{ME, Subject, blank, founded, id, only, recovered, sent, store};

fn config(adjust: impl FnOnce(&mut Config)) -> Config {
    let mut config = Config::new(ME, store(1), founded(3));
    config.boot = 1;
    adjust(&mut config);
    config
}

fn subject(adjust: impl FnOnce(&mut Config)) -> Subject {
    let state = recovered(3, &[1], HardState { term: Term(1), voted_for: None });
    Subject::configured(config(adjust), state)
}

#[test]
fn a_configuration_is_refused_from_the_first_value_on_that_makes_no_sense() {
    const NANO: Duration = Duration::from_nanos(1);
    const MS: Duration = Duration::from_millis(1);
    type Adjust = fn(&mut Config);
    let refusal =
        |adjust: Adjust| match RaftNode::recover(config(adjust), blank(), 1, Duration::ZERO) {
            Ok(_) => None,
            Err(RecoverError::Config(rule)) => Some(rule),
            Err(other) => panic!("{other}"),
        };
    let refused: [(Adjust, &str); 8] = [
        (|it| it.id = NodeId(0), "node id 0 is reserved"),
        (|it| it.election_timeout = Duration::ZERO..300 * MS, "the election timeout needs a range"),
        (|it| it.election_timeout = 150 * MS..150 * MS, "the election timeout needs a range"),
        (
            |it| (it.election_timeout.start, it.election_timeout.end) = (300 * MS, 150 * MS),
            "the election timeout needs a range",
        ),
        (|it| it.heartbeat = Duration::ZERO, "the heartbeat interval is zero"),
        (
            |it| it.heartbeat = it.election_timeout.start,
            "heartbeats must be more frequent than election timeouts",
        ),
        (|it| it.append_bytes_max = 0, "a window is zero"),
        (|it| it.inflight_messages_max = 0, "a window is zero"),
    ];
    for (adjust, rule) in refused {
        assert_eq!(refusal(adjust), Some(rule));
    }
    let taken: [Adjust; 5] = [
        |it| it.id = NodeId(u64::MAX),
        |it| it.election_timeout.end = it.election_timeout.start + NANO,
        |it| it.heartbeat = it.election_timeout.start - NANO,
        |it| it.heartbeat = NANO,
        |it| (it.append_bytes_max, it.inflight_messages_max) = (1, 1),
    ];
    for adjust in taken {
        assert_eq!(refusal(adjust), None);
    }
}

// Commands.

fn refusals(effects: &[Effect]) -> Vec<Rejection> {
    let refusal = |effect: &Effect| match effect {
        Effect::Rejected { reason, .. } => Some(*reason),
        _ => None,
    };
    effects.iter().filter_map(refusal).collect()
}

#[test]
fn a_command_is_taken_up_to_its_length_and_not_beyond() {
    let mut leader = subject(|config| config.command_bytes_max = 3);
    leader.lead();
    assert_eq!(refusals(&leader.propose("xyz")), []);
    assert_eq!(refusals(&leader.propose("wxyz")), [Rejection::TooLarge { size: 4, limit: 3 }]);
    assert_eq!(leader.node.log().last(), id(3, 2));
}

#[test]
fn commands_are_taken_until_their_bytes_under_way_would_pass_the_limit() {
    let mut leader = subject(|config| config.uncommitted_bytes_max = 2 * (1 + Entry::OVERHEAD));
    leader.lead();
    assert_eq!(refusals(&leader.propose("a")), []);
    assert_eq!(refusals(&leader.propose("b")), [], "as many bytes as the limit");
    assert_eq!(refusals(&leader.propose("")), [Rejection::Overloaded]);
    leader.persist();
    leader.accepted(2, 3);
    assert_eq!(refusals(&leader.propose("c")), [], "there is room for as much as is committed");
    assert_eq!(refusals(&leader.propose("d")), [Rejection::Overloaded]);
    leader.persist();
    leader.accepted(2, 5);
    let long = "a command that is longer than all that may be under way fits where nothing else is";
    assert_eq!(refusals(&leader.propose(long)), []);
    assert_eq!(refusals(&leader.propose("")), [Rejection::Overloaded]);
}

// Reads.

fn read(counter: u64) -> ReadId {
    ReadId { node: ME, boot: 1, counter }
}

fn ready(effects: &[Effect]) -> Vec<ReadId> {
    let ready = |effect: &Effect| match effect {
        Effect::ReadReady { id, .. } => Some(*id),
        _ => None,
    };
    effects.iter().filter_map(ready).collect()
}

/// Whether they wait for the first commit of the term or for a round.
#[test]
fn reads_beyond_the_limit_fail_at_once_and_those_within_it_are_served() {
    let mut leader = subject(|config| config.reads_max = 2);
    leader.lead();
    let ask = |leader: &mut Subject, counter| leader.step(Event::ReadIndex(read(counter)));
    let failed = |counter| Effect::ReadFailed { id: read(counter), leader: None };
    let confirm = |leader: &mut Subject, round| {
        leader.receive(2, 2, Message::HeartbeatReply { round, is_damaged: false })
    };
    for counter in [1, 2] {
        assert_eq!(ask(&mut leader, counter), [], "it waits for the first commit");
    }
    assert_eq!(ask(&mut leader, 3), [failed(3)]);
    leader.accepted(2, 2);
    assert_eq!(ask(&mut leader, 4), [failed(4)], "one waits for a round, one for the next");
    assert_eq!(ready(&confirm(&mut leader, 1)), [read(1)]);
    assert_eq!(ask(&mut leader, 5), [], "there is room for one again");
    assert_eq!(ask(&mut leader, 6), [failed(6)]);
    assert_eq!(ready(&confirm(&mut leader, 2)), [read(2)]);
    assert_eq!(ready(&confirm(&mut leader, 3)), [read(5)]);
}

#[test]
fn an_answer_to_another_nodes_read_or_to_one_of_an_earlier_life_is_nobodys() {
    let mut follower = subject(|_| ());
    follower.receive(2, 1, Message::Heartbeat { commit: LogIndex(0), round: 0 });
    let asked = only(&follower.step(Event::ReadIndex(read(1)))).message;
    assert_eq!(asked, Message::ReadIndex { id: read(1) });
    let mut answer = |id| {
        ready(&follower.receive(2, 1, Message::ReadIndexReply { id, index: Some(LogIndex(1)) }))
    };
    assert_eq!(answer(ReadId { boot: 9, ..read(1) }), []);
    assert_eq!(answer(ReadId { node: NodeId(3), ..read(1) }), []);
    assert_eq!(answer(read(1)), [read(1)]);
}

// A replica.

/// A leader in term 2 with a log of two entries, both committed and neither applied.
fn bench(limits: ReplicaConfig) -> Bench {
    let node = subject(|_| ()).node;
    let mut bench = Bench { replica: Replica::new(node, limits), now: Duration::ZERO };
    bench.lead();
    accept(&mut bench, 2);
    bench
}

fn accept(bench: &mut Bench, matched: u64) -> Vec<Output> {
    bench.receive(2, 2, Message::AppendAccepted { matched: LogIndex(matched) })
}

/// A command of one byte at `index` is committed and, if it was given out, applied.
fn commit(bench: &mut Bench, index: u64) -> Vec<Output> {
    assert_eq!(answers(bench.propose(index)), []);
    bench.persist(1_000);
    accept(bench, index);
    bench.apply(index, 2)
}

fn propose(bench: &mut Bench, reclaims_space: bool) -> Option<ProposalError> {
    let proposal = Proposal { id: ProposalId(1), session: None, command: Bytes::from("x") };
    let out = bench.handle(Input::Propose(vec![Request { proposal, reclaims_space }]));
    answers(out).pop().and_then(|(_, result)| result.err())
}

#[test]
fn when_space_is_low_a_leader_takes_only_what_gives_some_back() {
    let mut leader = bench(ReplicaConfig::default());
    leader.handle(Input::LowSpace(true));
    assert!(leader.replica.is_low_on_space());
    assert_eq!(propose(&mut leader, false), Some(ProposalError::NoSpace));
    assert_eq!(propose(&mut leader, true), None);
    leader.handle(Input::LowSpace(false));
    assert!(!leader.replica.is_low_on_space());
    assert_eq!(propose(&mut leader, false), None);
    leader.handle(Input::LowSpace(true));
    leader.receive(2, 3, Message::Heartbeat { commit: LogIndex(0), round: 0 });
    let elsewhere = Rejection::NotLeader { leader: Some(NodeId(2)) };
    assert_eq!(
        propose(&mut leader, false),
        Some(ProposalError::Rejected(elsewhere)),
        "the leader may have room"
    );
}

#[test]
fn commands_are_taken_until_too_many_wait_for_the_machine() {
    let mut leader = bench(ReplicaConfig { apply_lag_max: 2, ..ReplicaConfig::default() });
    assert_eq!(answers(leader.propose(1)), [], "two wait");
    leader.persist(3);
    accept(&mut leader, 3);
    let overloaded = Err(ProposalError::Rejected(Rejection::Overloaded));
    assert_eq!(answers(leader.propose(2)), [(ProposalId(2), overloaded)], "three");
    leader.apply(2, 2);
    assert_eq!(answers(leader.propose(3)), [], "one");
    assert_eq!(leader.replica.pending_proposals(), 2);
}

fn failed_reads(out: &[Output]) -> Vec<RequestId> {
    let failed = |output: &Output| match output {
        Output::ReadFailed { request, .. } => Some(*request),
        _ => None,
    };
    out.iter().filter_map(failed).collect()
}

fn ask(bench: &mut Bench, requests: &[u64], deadline: Duration) -> Vec<Output> {
    let requests = requests.iter().map(|&request| RequestId(request)).collect();
    bench.handle(Input::Read { requests, deadline })
}

/// Those that are being confirmed, those that wait for the machine, and those that wait for their turn.
#[test]
fn a_replica_lets_so_many_reads_wait_whatever_they_wait_for() {
    let late = Duration::from_secs(60);
    let mut leader = bench(ReplicaConfig { reads_max: 3, ..ReplicaConfig::default() });
    assert_eq!(failed_reads(&ask(&mut leader, &[1], late)), []);
    leader.receive(2, 2, Message::HeartbeatReply { round: 1, is_damaged: false });
    assert_eq!(failed_reads(&ask(&mut leader, &[2], late)), [], "the first waits for the machine");
    assert_eq!(failed_reads(&ask(&mut leader, &[3, 4, 5], late)), [RequestId(4), RequestId(5)]);
    assert_eq!(failed_reads(&ask(&mut leader, &[6], late)), [RequestId(6)]);
    leader.apply(2, 2);
    assert_eq!(failed_reads(&ask(&mut leader, &[7, 8], late)), [RequestId(8)]);
}

#[test]
fn a_read_is_given_up_at_its_deadline_and_not_before() {
    let state = recovered(3, &[1], HardState { term: Term(1), voted_for: None });
    let node = Subject::recovered(3, state).node;
    let mut alone =
        Bench { replica: Replica::new(node, ReplicaConfig::default()), now: Duration::ZERO };
    let deadline = Duration::from_millis(20);
    assert_eq!(failed_reads(&ask(&mut alone, &[1], deadline)), [], "nobody leads: it waits");
    assert_eq!(alone.replica.next_deadline(), Some(deadline));
    alone.now = deadline - Duration::from_nanos(1);
    assert_eq!(failed_reads(&alone.handle(Input::Timeout)), []);
    alone.now = deadline;
    assert_eq!(failed_reads(&alone.handle(Input::Timeout)), [RequestId(1)]);
}

fn asked_leader(out: &[Output]) -> Option<ReadId> {
    out.iter().find_map(|output| match output {
        Output::Send(envelope) => match envelope.message {
            Message::ReadIndex { id } => Some(id),
            _ => None,
        },
        _ => None,
    })
}

#[test]
fn a_read_that_got_no_answer_is_asked_again_and_one_that_got_a_no_sooner() {
    let retry = Duration::from_millis(90);
    let node = subject(|_| ()).node;
    let limits = ReplicaConfig { read_retry: retry, ..ReplicaConfig::default() };
    let mut follower = Bench { replica: Replica::new(node, limits), now: Duration::ZERO };
    follower.receive(2, 1, Message::Heartbeat { commit: LogIndex(0), round: 0 });
    let first = asked_leader(&ask(&mut follower, &[1], Duration::from_secs(9)));
    assert_eq!(first, Some(read(1)));
    assert_eq!(follower.replica.next_deadline(), Some(retry));
    follower.now = retry - Duration::from_nanos(1);
    assert_eq!(asked_leader(&follower.handle(Input::Timeout)), None);
    follower.now = retry;
    assert_eq!(asked_leader(&follower.handle(Input::Timeout)), Some(read(2)));
    // An answer to what was asked first is late; the leader's refusal of the second gives it a little time.
    follower.receive(2, 1, Message::ReadIndexReply { id: read(1), index: None });
    assert_eq!(follower.replica.next_deadline(), Some(2 * retry).min(deadline_of(&follower)));
    follower.receive(2, 1, Message::ReadIndexReply { id: read(2), index: None });
    let again = retry + follower.replica.node().config().heartbeat / 4;
    assert_eq!(follower.replica.next_deadline(), Some(again));
    follower.now = again;
    assert_eq!(asked_leader(&follower.handle(Input::Timeout)), Some(read(3)));
}

fn deadline_of(bench: &Bench) -> Option<Duration> {
    bench.replica.node().next_deadline()
}

fn wanted_snapshot(out: &[Output]) -> Option<EntryId> {
    out.iter().find_map(|output| match output {
        Output::TakeSnapshot { last, .. } => Some(*last),
        _ => None,
    })
}

/// After so many entries, if they have as many bytes as the snapshot before.
#[test]
fn a_snapshot_is_taken_when_enough_was_applied_since_the_last_one() {
    let limits = ReplicaConfig { snapshot_entries: 3, ..ReplicaConfig::default() };
    let mut leader = bench(limits);
    assert_eq!(wanted_snapshot(&leader.apply(2, 2)), None, "two");
    assert_eq!(wanted_snapshot(&commit(&mut leader, 3)), Some(id(3, 2)));
    let size = 4 * (1 + Entry::OVERHEAD as u64);
    let meta = SnapshotMeta { last: id(3, 2), membership: founded(3), size, checksum: 1 };
    leader.handle(Input::SnapshotTaken(SnapshotOutcome::Taken(meta)));
    for index in 4..=6 {
        assert_eq!(wanted_snapshot(&commit(&mut leader, index)), None, "{index}");
    }
    assert_eq!(wanted_snapshot(&commit(&mut leader, 7)), Some(id(7, 2)), "as many bytes");
    assert_eq!(wanted_snapshot(&commit(&mut leader, 8)), None, "one at a time");
}

#[test]
fn an_operators_snapshot_is_taken_unless_the_last_one_has_everything() {
    let mut leader = bench(ReplicaConfig::default());
    leader.apply(2, 2);
    assert_eq!(wanted_snapshot(&leader.handle(Input::TakeSnapshot)), Some(id(2, 2)));
    let meta = SnapshotMeta { last: id(2, 2), membership: founded(3), size: 9, checksum: 1 };
    leader.handle(Input::SnapshotTaken(SnapshotOutcome::Taken(meta)));
    assert_eq!(wanted_snapshot(&leader.handle(Input::TakeSnapshot)), None);
}

/// Each heartbeat is a round where there are leases: an answer to one from before the read says nothing of it, and asks for no more.
#[test]
fn a_round_that_confirms_nothing_begins_no_other() {
    let mut leader = subject(|config| {
        config.reads = ReadPolicy::Lease(ClockBound::default());
    });
    leader.lead_settled();
    leader.now += Duration::from_millis(290);
    let beat = sent(&leader.step(Event::Timeout));
    let Message::Heartbeat { round, .. } = beat[0].message else { panic!("{beat:?}") };
    let asked = sent(&leader.step(Event::ReadIndex(read(1))));
    let own = Message::Heartbeat { commit: LogIndex(2), round: round + 1 };
    assert!(asked.iter().all(|sent| sent.message == own), "no lease yet: {asked:?}");
    let answered = leader.receive(2, 2, Message::HeartbeatReply { round, is_damaged: false });
    assert_eq!((ready(&answered), sent(&answered)), (vec![], vec![]), "its round is under way");
    let round = round + 1;
    let answered = leader.receive(2, 2, Message::HeartbeatReply { round, is_damaged: false });
    assert_eq!((ready(&answered), sent(&answered)), (vec![read(1)], vec![]));
}
