//! A warm node allocates nothing for the entries that it replicates: not for one, and not for a thousand.
//!
//! Three nodes in memory, no disk and no network: what is counted is the core's own doing. Commands and the lists in which they are proposed
//! are made beforehand, as they are the callers'.

use std::collections::VecDeque;
use std::time::Duration;

use bytes::Bytes;
use raft_consensus::effects::{Effect, Effects, ProposalId};
use raft_consensus::message::Envelope;
use raft_consensus::raft_node::{Config, Event, Proposal, RaftNode, Role};
use raft_consensus::types::{HardState, LogIndex, NodeId, Term};

use crate::script::subject::{founded, recovered, store};

/// Three nodes whose disks and network take no time.
struct Trio {
    nodes: Vec<RaftNode>,
    now: Duration,
    effects: Effects,
    under_way: VecDeque<Envelope>,
    applied: [LogIndex; 3],
}

impl Trio {
    /// Node 1 leads.
    fn led() -> Self {
        let config = |id| Config {
            boot: 1,
            tail_bytes_max: 64 << 10,
            ..Config::new(NodeId(id), store(id), founded(3))
        };
        let state = || recovered(3, &[1], HardState { term: Term(1), voted_for: None });
        let node = |id| RaftNode::recover(config(id), state(), id, Duration::ZERO).unwrap();
        let nodes: Vec<_> = (1..=3).map(node).collect();
        let now = nodes[0].next_deadline().unwrap().max(nodes[0].config().election_timeout.end);
        let mut trio = Self {
            nodes,
            now,
            effects: Effects::new(),
            under_way: VecDeque::new(),
            applied: [LogIndex::ZERO; 3],
        };
        trio.step(0, Event::Timeout);
        assert_eq!(trio.nodes[0].role(), Role::Leader);
        trio
    }

    /// One step of a node, and everything that comes of it, everywhere.
    fn step(&mut self, node: usize, event: Event) {
        self.step_one(node, event);
        while let Some(envelope) = self.under_way.pop_front() {
            let to = usize::try_from(envelope.to.0 - 1).unwrap();
            self.step_one(to, Event::Receive(envelope));
        }
    }

    fn step_one(&mut self, node: usize, event: Event) {
        let mut next = Some(event);
        while let Some(event) = next.take() {
            self.nodes[node].step(self.now, event, &mut self.effects);
            for effect in self.effects.drain() {
                match effect {
                    // At once, so that nothing has to wait for it.
                    Effect::Persist(batch) => next = Some(Event::Persisted(batch.token)),
                    Effect::Send { envelope, .. } => self.under_way.push_back(envelope),
                    Effect::Apply(range) => self.applied[node] = *range.end(),
                    Effect::Proposed { .. }
                    | Effect::Trace(_)
                    | Effect::RoleChanged { .. }
                    | Effect::MembershipChanged(_) => {}
                    other => panic!("{other:?} in a cluster in which nothing goes wrong"),
                }
            }
            if next.is_none() && self.applied[node] > self.nodes[node].applied() {
                next = Some(Event::Applied(self.applied[node]));
            }
        }
    }
}

/// Allocations over so many proposals of so many commands each.
fn replicate(rounds: u64, commands: u64) -> u64 {
    let mut trio = Trio::led();
    let command = Bytes::from_static(&[7; 100]);
    let proposals = |round| {
        let id = |number| ProposalId(round * commands + number);
        let proposal =
            |number| Proposal { id: id(number), session: None, command: command.clone() };
        Event::Propose((0..commands).map(proposal).collect())
    };
    // Warm is who has once held as much in memory as it may.
    let warm = 2000 / commands + 50;
    for round in 0..warm {
        trio.step(0, proposals(round));
    }
    let measured: Vec<Event> = (warm..warm + rounds).map(proposals).collect();
    let before = trio.applied;
    let counted = allocation_counter::measure(|| {
        for event in measured {
            trio.step(0, event);
        }
    });
    let last = trio.nodes[0].log().last().index;
    assert_eq!(last, before[0].plus(rounds * commands));
    assert_eq!(trio.applied[0], last, "the leader has applied all");
    counted.count_total
}

#[test]
fn a_warm_node_allocates_nothing_for_an_entry() {
    for (rounds, commands) in [(2000, 1), (200, 50), (50, 1000)] {
        let allocations = replicate(rounds, commands);
        assert_eq!(allocations, 0, "{rounds} proposals of {commands} commands");
    }
}
