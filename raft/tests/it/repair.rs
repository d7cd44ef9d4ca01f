//! A damaged log, one node at a time: whose entries are written where ours were lost, and whom we help with what. The stories of
//! several nodes are scripts (`tests/scripts/repair`).

use raft_consensus::effects::Effect;
use raft_consensus::message::{Message, ReadId};
use raft_consensus::raft_node::Event;
use raft_consensus::replica::{Output, Replica, ReplicaConfig};
use raft_consensus::storage::DamagedEntries;
use raft_consensus::types::{Entry, EntryId, HardState, LogIndex, NodeId, SnapshotMeta, Term};

use crate::cases::Bench;
use crate::script::subject::{Sent, Subject, batches, entry, founded, id, recovered, sent};

/// A node that has lost the entries 2 and 3 of five, whose terms were 1, 2, 2, 2, 3, and has asked node 2 for them.
fn asking(terms_known: bool) -> (Subject, ReadId) {
    let hard_state = HardState { term: Term(3), voted_for: None };
    let mut state = recovered(3, &[1, 2, 2, 2, 3], hard_state);
    state.damaged = vec![DamagedEntries { first: LogIndex(2), last: LogIndex(3), terms_known }];
    let mut subject = Subject::recovered(3, state);
    let asked = subject.timeout();
    let (to, request, joint) = request(&asked).expect("it asks at once");
    assert_eq!((to, joint), (NodeId(2), Some(if terms_known { id(3, 2) } else { id(4, 2) })));
    (subject, request)
}

fn request(effects: &[Effect]) -> Option<(NodeId, ReadId, Option<EntryId>)> {
    sent(effects).into_iter().find_map(|sent| match sent.message {
        Message::FetchEntries { id, first: LogIndex(2), through: LogIndex(3), joint } => {
            Some((sent.to, id, joint))
        }
        _ => None,
    })
}

fn answer(request: ReadId, entries: &[Entry], holds_joint: bool) -> Message {
    let (previous, entries) = (Some(id(1, 1)), entries.to_vec());
    Message::FetchedEntries { id: request, previous, entries, holds_joint, last: LogIndex(5) }
}

fn written(effects: &[Effect]) -> Vec<EntryId> {
    let entries = batches(effects).into_iter().flat_map(|batch| &batch.repaired);
    entries.map(|entry| entry.id).collect()
}

#[test]
fn entries_of_whoever_holds_the_joint_are_written_and_no_more_of_them_than_were_lost() {
    let (mut subject, request) = asking(false);
    let entries = [entry(2, 1), entry(3, 2), entry(4, 2)];
    let effects = subject.receive(2, 3, answer(request, &entries, true));
    assert_eq!(written(&effects), [id(2, 1), id(3, 2)]);
    assert!(subject.node.log().is_damaged(), "until that is durable");
    subject.persist();
    assert_eq!(subject.node.log().sound(), LogIndex(5));
}

#[test]
fn entries_that_cannot_have_been_there_are_not_written_and_the_next_node_is_asked() {
    let cases: [(&str, bool, &[Entry], bool); 8] = [
        ("none", false, &[], true),
        ("without the joint", false, &[entry(2, 2), entry(3, 2)], false),
        ("not from the first one on", false, &[entry(3, 2)], true),
        ("with a hole", false, &[entry(2, 2), entry(4, 2)], true),
        ("of a term that falls", false, &[entry(2, 2), entry(3, 1)], true),
        ("of an earlier term than what precedes them", false, &[entry(2, 0)], true),
        ("of a later term than the joint", false, &[entry(2, 2), entry(3, 3)], true),
        ("of another term than we know", true, &[entry(2, 1), entry(3, 2)], true),
    ];
    for (what, terms_known, entries, holds_joint) in cases {
        let (mut subject, asked) = asking(terms_known);
        let effects = subject.receive(2, 3, answer(asked, entries, holds_joint));
        assert_eq!(written(&effects), [], "{what}");
        let next = request(&effects).map(|(to, ..)| to);
        assert_eq!(next, Some(NodeId(3)), "{what}");
    }
}

#[test]
fn an_answer_that_was_not_asked_for_is_nobodys() {
    let entries = [entry(2, 2), entry(3, 2)];
    let (mut subject, asked) = asking(false);
    assert_eq!(subject.receive(3, 3, answer(asked, &entries, true)), [], "not from that node");
    let earlier = ReadId { counter: asked.counter - 1, ..asked };
    assert_eq!(subject.receive(2, 3, answer(earlier, &entries, true)), [], "not to that request");
    let effects = subject.receive(2, 3, answer(asked, &entries, true));
    assert_eq!(written(&effects), [id(2, 2), id(3, 2)]);
    assert_eq!(written(&subject.receive(2, 3, answer(asked, &entries, true))), [], "nor twice");
}

/// What comes in pieces is put together before it is written.
#[test]
fn entries_that_come_one_by_one_are_written_together() {
    let (mut subject, asked) = asking(false);
    let effects = subject.receive(2, 3, answer(asked, &[entry(2, 2)], true));
    assert_eq!(written(&effects), []);
    let rest = sent(&effects).remove(0);
    let Message::FetchEntries { id: asked, first: LogIndex(3), through: LogIndex(3), .. } =
        rest.message
    else {
        panic!("{rest:?}")
    };
    let effects = subject.receive(2, 3, answer(asked, &[entry(3, 1)], true));
    assert_eq!(written(&effects), [], "not of an earlier term than the piece before");
    let (mut subject, asked) = asking(false);
    let effects = subject.receive(2, 3, answer(asked, &[entry(2, 2)], true));
    let Message::FetchEntries { id: asked, .. } = sent(&effects).remove(0).message else {
        panic!("{effects:?}")
    };
    let effects = subject.receive(2, 3, answer(asked, &[entry(3, 2)], true));
    assert_eq!(written(&effects), [id(2, 2), id(3, 2)]);
}

/// The leader's log differs from ours right behind what is lost: then it may differ there too.
#[test]
fn what_is_lost_just_before_the_leaders_log_parts_from_ours_is_replaced_with_the_rest() {
    let hard_state = HardState { term: Term(2), voted_for: None };
    let mut state = recovered(3, &[1; 8], hard_state);
    let lost = |first, last, terms_known| DamagedEntries {
        first: LogIndex(first),
        last: LogIndex(last),
        terms_known,
    };
    state.damaged = vec![lost(2, 2, true), lost(4, 4, true), lost(6, 8, false)];
    let mut subject = Subject::recovered(3, state);
    subject.receive(2, 2, Message::Heartbeat { commit: LogIndex(1), round: 0 });
    let first = |effects: &[Effect]| {
        sent(effects).into_iter().find_map(|sent| match sent.message {
            Message::FetchEntries { id, first, joint: None, .. } => Some((id, first)),
            _ => None,
        })
    };
    let (asked, from) = first(&subject.timeout()).expect("it asks its leader");
    assert_eq!(from, LogIndex(6), "there is nothing behind it that others could have");
    let entries = vec![entry(6, 2)];
    let (previous, last) = (Some(id(5, 2)), LogIndex(8));
    let parts = Message::FetchedEntries { id: asked, previous, entries, holds_joint: false, last };
    let (_, from) = first(&subject.receive(2, 2, parts)).expect("it asks again");
    assert_eq!(from, LogIndex(4), "not from 5 on, and not from the loss before");
}

/// What stands behind the place where a snapshot ends may be committed; behind the last entry nothing stands.
#[test]
fn a_snapshot_that_ends_where_entries_are_lost_is_installed_only_if_the_log_ends_there_too() {
    for (index, is_installed) in [(3, false), (4, true)] {
        let mut state = recovered(3, &[1; 4], HardState { term: Term(1), voted_for: None });
        let (first, last) = (LogIndex(3), LogIndex(4));
        state.damaged = vec![DamagedEntries { first, last, terms_known: false }];
        let mut subject = Subject::recovered(3, state);
        subject.receive(2, 1, Message::Heartbeat { commit: LogIndex(1), round: 0 });
        let last = id(index, 1);
        let meta = SnapshotMeta { last, membership: founded(3), size: 4, checksum: 0 };
        let effects = subject.step(Event::SnapshotWritten { meta, offset: 4, is_complete: true });
        let restarted = batches(&effects).iter().any(|batch| batch.restart_log);
        assert_eq!(restarted, is_installed, "{last}");
    }
}

// Helping.

const THEIRS: ReadId = ReadId { node: NodeId(2), boot: 4, counter: 9 };

/// What node 2 is answered by a follower whose entry 4 of five is damaged.
fn help(first: u64, through: u64, joint: Option<EntryId>) -> Option<Sent> {
    let mut helper = Subject::new(3, &[1, 1, 1, 1, 1]);
    helper.step(Event::EntriesDamaged { first: LogIndex(4), last: LogIndex(4) });
    let (first, through) = (LogIndex(first), LogIndex(through));
    let question = Message::FetchEntries { id: THEIRS, first, through, joint };
    sent(&helper.receive(2, 1, question)).pop()
}

#[test]
fn who_holds_the_joint_gives_what_is_intact_and_who_does_not_gives_nothing() {
    let here = Some(id(5, 1));
    for (first, through, joint, expected) in [
        (2, 3, here, vec![2, 3]),
        (1, 1, here, vec![1]),
        (2, 9, here, vec![2, 3]),
        (3, 4, here, vec![3]),
        (4, 5, here, vec![]),
        (5, 9, here, vec![5]),
        (6, 9, here, vec![]),
        (3, 2, here, vec![]),
        (2, 3, Some(id(5, 2)), vec![]),
        (2, 3, Some(id(6, 1)), vec![]),
        (2, 3, None, vec![]),
    ] {
        let case = format!("{first} to {through}, joint {joint:?}");
        let answer = help(first, through, joint).expect("an answer");
        assert_eq!(answer.to, NodeId(2));
        let Message::FetchedEntries { id: to, previous, entries, holds_joint, last } =
            answer.message
        else {
            panic!("{case}: {answer:?}")
        };
        assert_eq!((to, holds_joint, last), (THEIRS, joint == here, LogIndex(5)), "{case}");
        let before = first - 1;
        assert_eq!(previous, Some(id(before, u64::from(before > 0))), "{case}");
        let given: Vec<u64> = entries.iter().map(|entry| entry.id.index.0).collect();
        assert_eq!(given, expected, "{case}");
    }
    assert_eq!(help(0, 3, here), None, "there is no such entry");
}

#[test]
fn what_waited_for_a_write_goes_before_what_is_said_once_it_is_durable() {
    let hard_state = HardState { term: Term(2), voted_for: None };
    let mut state = recovered(3, &[1, 2, 2, 2, 2, 2], hard_state);
    let lost =
        |index| DamagedEntries { first: LogIndex(index), last: LogIndex(index), terms_known: true };
    state.damaged = vec![lost(3), lost(5)];
    let mut subject = Subject::recovered(3, state);
    let asked = sent(&subject.timeout()).into_iter().find_map(|sent| match sent.message {
        Message::FetchEntries { id, first, through, .. } => Some((sent.to, id, first, through)),
        _ => None,
    });
    let (to, request, first, through) = asked.expect("it asks at once");
    assert_eq!(first, through);
    let mut bench =
        Bench { replica: Replica::new(subject.node, ReplicaConfig::default()), now: subject.now };
    let previous = Some(id(first.0 - 1, 2));
    let entries = vec![entry(first.0, 2)];
    let answer = Message::FetchedEntries {
        id: request,
        previous,
        entries,
        holds_joint: true,
        last: LogIndex(6),
    };
    // The repair and two votes, one after the other, and a disk that is slow: all durable at once.
    let mut token = None;
    for (from, term, message) in [
        (to.0, 2, answer),
        (3, 3, Message::Vote { last: id(9, 2), transfer: false }),
        (3, 4, Message::Vote { last: id(9, 2), transfer: false }),
    ] {
        for output in bench.receive(from, term, message) {
            match output {
                Output::Persist(batch) => token = Some(batch.token),
                Output::Send(envelope) => panic!("before it is durable: {envelope:?}"),
                _ => {}
            }
        }
    }
    let said: Vec<(u64, Message)> = bench
        .persist(token.expect("it writes").0)
        .into_iter()
        .filter_map(|output| match output {
            Output::Send(envelope) => Some((envelope.term.0, envelope.message)),
            _ => None,
        })
        .collect();
    let asks = said.iter().any(|(_, message)| matches!(message, Message::FetchEntries { .. }));
    assert!(asks, "what is lost still is asked for: {said:?}");
    let terms: Vec<u64> = said.iter().map(|(term, _)| *term).collect();
    assert!(terms.contains(&3) && terms.is_sorted(), "{said:?}");
}
