//! One node under test: the test plays the clock, the disk and all other nodes.

use std::time::Duration;

use bytes::Bytes;
use raft_consensus::effects::{Effect, Effects, IoToken, PersistBatch, ProposalId};
use raft_consensus::membership::{Member, Membership};
use raft_consensus::message::{Envelope, Message};
use raft_consensus::raft_node::{Config, Event, Proposal, RaftNode, Role};
use raft_consensus::storage::{RecoveredState, TermRuns};
use raft_consensus::types::{Entry, EntryId, HardState, LogIndex, NodeId, Payload, StoreId, Term};

/// The node under test; its peers are nodes 2 and up.
pub(crate) const ME: NodeId = NodeId(1);

/// A node and the time.
#[derive(Debug)]
pub(crate) struct Subject {
    pub(crate) node: RaftNode,
    pub(crate) now: Duration,
    last_token: IoToken,
    proposals: u64,
}

/// A message that the node gave out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Sent {
    pub(crate) to: NodeId,
    pub(crate) term: Term,
    pub(crate) message: Message,
    /// The write it waits for.
    pub(crate) after: Option<IoToken>,
}

/// `2@1` as a value.
pub(crate) fn id(index: u64, term: u64) -> EntryId {
    EntryId::new(Term(term), LogIndex(index))
}

/// An entry with a command that says which one it is.
pub(crate) fn entry(index: u64, term: u64) -> Entry {
    let id = id(index, term);
    Entry { id, session: None, payload: Payload::Command(Bytes::from(id.to_string())) }
}

/// An entry that changes the members.
pub(crate) fn members_entry(index: u64, term: u64, members: Membership) -> Entry {
    Entry { payload: Payload::Membership(members), ..entry(index, term) }
}

/// `voters` members, all bound to the stores that the tests give them.
pub(crate) fn founded(voters: u64) -> Membership {
    let mut membership = Membership::default();
    for node in 1..=voters {
        membership.insert(NodeId(node), Member::voter(store(node)));
    }
    membership
}

/// The data directory of a node.
pub(crate) fn store(node: u64) -> StoreId {
    StoreId(u128::from(node))
}

/// A log of entries of these terms, all of it durable; the first founds the cluster of `voters`.
pub(crate) fn recovered(voters: u64, terms: &[u64], hard_state: HardState) -> RecoveredState {
    let mut state = RecoveredState { hard_state, ..RecoveredState::default() };
    for (index, &term) in (1..).zip(terms) {
        let mut entry = entry(index, term);
        if index == 1 {
            entry.payload = Payload::Membership(founded(voters));
            state.memberships.push((LogIndex(1), founded(voters)));
        }
        state.terms.push(entry.id);
        state.tail.push(entry);
    }
    state
}

/// What is on a disk on which nothing was written.
pub(crate) fn blank() -> RecoveredState {
    RecoveredState { terms: TermRuns::default(), ..RecoveredState::default() }
}

impl Subject {
    /// A node of `voters` with a log of these terms, in the last of them, free to vote.
    pub(crate) fn new(voters: u64, terms: &[u64]) -> Self {
        let term = Term(terms.last().copied().unwrap_or(0));
        let hard_state = HardState { term, voted_for: None };
        Self::recovered(voters, recovered(voters, terms, hard_state))
    }

    /// A node that finds `state` on its disk and has been up for an election timeout.
    pub(crate) fn recovered(voters: u64, state: RecoveredState) -> Self {
        let founding = Membership::founding((1..=voters).map(NodeId));
        let mut config = Config::new(ME, store(1), founding);
        config.boot = 1;
        Self::configured(config, state)
    }

    /// The same, with a configuration of one's own.
    pub(crate) fn configured(config: Config, state: RecoveredState) -> Self {
        let now = config.election_timeout.start;
        let node = RaftNode::recover(config, state, 7, Duration::ZERO).unwrap();
        Self { node, now, last_token: IoToken(0), proposals: 0 }
    }

    pub(crate) fn step(&mut self, event: Event) -> Vec<Effect> {
        let mut effects = Effects::new();
        self.node.step(self.now, event, &mut effects);
        let effects: Vec<Effect> = effects.drain().collect();
        for batch in batches(&effects) {
            self.last_token = batch.token;
        }
        effects
    }

    /// A message of node `from` in `term`.
    pub(crate) fn receive(&mut self, from: u64, term: u64, message: Message) -> Vec<Effect> {
        self.receive_from_store(from, store(from), term, message)
    }

    /// The same, sent by some data directory.
    pub(crate) fn receive_from_store(
        &mut self,
        from: u64,
        store: StoreId,
        term: u64,
        message: Message,
    ) -> Vec<Effect> {
        let config = self.node.config();
        self.step(Event::Receive(Envelope {
            cluster: config.cluster,
            group: config.group,
            from: NodeId(from),
            to: config.id,
            store,
            term: Term(term),
            cause: lattice_trace::Cause::default(),
            can_wait: false,
            message,
        }))
    }

    /// An append of these entries behind `previous`.
    pub(crate) fn append(
        &mut self,
        from: u64,
        term: u64,
        previous: EntryId,
        entries: Vec<Entry>,
        commit: u64,
    ) -> Vec<Effect> {
        let (entries, commit) = (entries.into(), LogIndex(commit));
        self.receive(from, term, Message::Append { previous, entries, commit })
    }

    /// The follower says that it has everything up to `matched`.
    pub(crate) fn accepted(&mut self, from: u64, matched: u64) -> Vec<Effect> {
        let term = self.node.term().0;
        self.receive(from, term, Message::AppendAccepted { matched: LogIndex(matched) })
    }

    /// The node's deadline comes.
    pub(crate) fn timeout(&mut self) -> Vec<Effect> {
        self.now = self.now.max(self.node.next_deadline().unwrap());
        self.step(Event::Timeout)
    }

    /// All writes given out are durable.
    pub(crate) fn persist(&mut self) -> Vec<Effect> {
        let token = self.last_token;
        self.step(Event::Persisted(token))
    }

    /// A client's command.
    pub(crate) fn propose(&mut self, command: &str) -> Vec<Effect> {
        self.proposals += 1;
        let id = ProposalId(self.proposals);
        let command = Bytes::from(command.to_owned());
        self.step(Event::Propose(vec![Proposal { id, session: None, command }]))
    }

    /// Becomes a candidate, all others having said that they would vote for it. Its vote is durable.
    pub(crate) fn campaign(&mut self) -> Vec<Effect> {
        let mut effects = self.timeout();
        let (now, next) = (self.node.term().0, self.node.term().next());
        for peer in self.peers() {
            let reply = Message::PreVoteReply { term: next, granted: true };
            effects.extend(self.receive(peer.0, now, reply));
        }
        effects.extend(self.persist());
        effects
    }

    /// Becomes the leader by the votes of all. Its first entry is durable at home, and nowhere else.
    pub(crate) fn lead(&mut self) -> Vec<Effect> {
        let mut effects = self.campaign();
        let term = self.node.term().0;
        for peer in self.peers() {
            effects.extend(self.receive(peer.0, term, Message::VoteReply { granted: true }));
        }
        effects.extend(self.persist());
        assert_eq!(self.node.role(), Role::Leader);
        effects
    }

    /// Leads, and everything it has is on all nodes and committed.
    pub(crate) fn lead_settled(&mut self) {
        self.lead();
        let last = self.node.log().last().index.0;
        for peer in self.peers() {
            self.accepted(peer.0, last);
        }
        assert_eq!(self.node.commit().0, last);
    }

    pub(crate) fn peers(&self) -> Vec<NodeId> {
        self.node.membership().members().map(|(id, _)| id).filter(|&peer| peer != ME).collect()
    }
}

/// The messages among the effects.
pub(crate) fn sent(effects: &[Effect]) -> Vec<Sent> {
    let sent = |effect: &Effect| match effect {
        Effect::Send { envelope, after } => Some(Sent {
            to: envelope.to,
            term: envelope.term,
            message: envelope.message.clone(),
            after: *after,
        }),
        _ => None,
    };
    effects.iter().filter_map(sent).collect()
}

/// The one message among the effects.
pub(crate) fn only(effects: &[Effect]) -> Sent {
    let mut sent = sent(effects);
    assert_eq!(sent.len(), 1, "one message: {sent:?}");
    sent.remove(0)
}

/// The writes among the effects.
pub(crate) fn batches(effects: &[Effect]) -> Vec<&PersistBatch> {
    effects
        .iter()
        .filter_map(|effect| match effect {
            Effect::Persist(batch) => Some(batch),
            _ => None,
        })
        .collect()
}

/// The places that are to be applied.
pub(crate) fn applied(effects: &[Effect]) -> Vec<u64> {
    let range = |effect: &Effect| match effect {
        Effect::Apply(range) => range.start().0..=range.end().0,
        _ => {
            #[expect(clippy::reversed_empty_ranges, reason = "nothing is to be applied")]
            let nothing = 1..=0;
            nothing
        }
    };
    effects.iter().flat_map(range).collect()
}

/// The terms of the node's entries, from the first on.
pub(crate) fn terms(node: &RaftNode) -> Vec<u64> {
    let log = node.log();
    let indexes = log.base().index.0 + 1..=log.last().index.0;
    indexes.map(|index| log.term_at(LogIndex(index)).unwrap().0).collect()
}
