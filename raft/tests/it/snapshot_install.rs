//! A follower whose log is restarted behind the leader's snapshot while its state machine is still busy with what came before.

use std::time::Duration;

use bytes::Bytes;
use raft_consensus::effects::IoToken;
use raft_consensus::membership::Membership;
use raft_consensus::message::{Envelope, Message};
use raft_consensus::raft_node::{Config, RaftNode};
use raft_consensus::replica::{Input, Output, Replica, ReplicaConfig};
use raft_consensus::storage::RecoveredState;
use raft_consensus::types::{
    ClusterId, Entry, EntryId, GroupId, LogIndex, NodeId, Payload, SnapshotMeta, StoreId, Term,
};

const NOW: Duration = Duration::from_secs(1);

fn id(index: u64) -> EntryId {
    EntryId::new(Term(1), LogIndex(index))
}

fn members() -> Membership {
    Membership::founding([NodeId(1), NodeId(2), NodeId(3)])
}

fn meta() -> SnapshotMeta {
    SnapshotMeta { last: id(50), membership: members(), size: 4, checksum: 7 }
}

/// Node 2, and what it last put out.
struct Follower {
    replica: Replica,
    writes: u64,
}

impl Follower {
    fn new() -> Self {
        let config = Config::new(NodeId(2), StoreId(2), members());
        let node = RaftNode::recover(config, RecoveredState::default(), 7, NOW).unwrap();
        Self { replica: Replica::new(node, ReplicaConfig::default()), writes: 0 }
    }

    fn input(&mut self, input: Input) -> Vec<Output> {
        let mut out = Vec::new();
        self.replica.handle(NOW, input, &mut out);
        let writes = out.iter().filter(|output| matches!(output, Output::Persist(_))).count();
        self.writes += writes as u64;
        out
    }

    fn receive(&mut self, message: Message) -> Vec<Output> {
        self.input(Input::Receive(Envelope {
            cluster: ClusterId::default(),
            group: GroupId::default(),
            from: NodeId(1),
            to: NodeId(2),
            store: StoreId(1),
            term: Term(1),
            cause: lattice_trace::Cause::default(),
            can_wait: false,
            message,
        }))
    }

    fn persisted(&mut self) -> Vec<Output> {
        self.input(Input::Persisted(IoToken(self.writes)))
    }

    /// Entry `index` arrives, is durable, and is committed.
    fn commit(&mut self, index: u64) -> Vec<Output> {
        let entry = Entry { id: id(index), session: None, payload: Payload::Noop };
        let previous = if index == 1 { EntryId::ZERO } else { id(index - 1) };
        let commit = LogIndex(index);
        self.receive(Message::Append { previous, entries: vec![entry].into(), commit });
        self.persisted()
    }

    /// The machine is busy with entry 1, entry 2 waits, and the log is restarted behind entry 50.
    fn restarted_while_busy() -> Self {
        let mut follower = Self::new();
        assert!(has_run(&follower.commit(1)), "entry 1 is given to the machine");
        assert!(!has_run(&follower.commit(2)), "entry 2 waits");
        let data = Bytes::from_static(b"snap");
        follower.receive(Message::SnapshotChunk { meta: meta(), offset: 0, data });
        let written = Input::SnapshotWritten { meta: meta(), offset: 4, is_complete: true };
        follower.input(written);
        assert_eq!(follower.replica.node().log().last(), id(50));
        follower
    }

    fn restores(&mut self) {
        let out = self.persisted();
        assert!(
            out.iter().any(|output| matches!(output, Output::Restore(meta) if meta.last == id(50)))
        );
        self.input(Input::Restored(id(50)));
        assert_eq!(self.replica.applied(), id(50));
    }
}

fn has_run(out: &[Output]) -> bool {
    out.iter().any(|output| matches!(output, Output::Apply(_)))
}

fn has_stopped(out: &[Output]) -> bool {
    out.iter().any(|output| matches!(output, Output::Stop(_)))
}

/// Found by simulation: the waiting entry was looked up in a log that had forgotten it.
#[test]
fn what_waits_for_the_machine_when_the_log_is_restarted_is_left_to_the_snapshot() {
    let mut follower = Follower::restarted_while_busy();
    let out = follower.input(Input::Applied { last: id(1), replies: Vec::new() });
    assert!(!has_run(&out), "entry 2 is in the snapshot");
    follower.restores();
}

#[test]
fn a_run_that_a_restarted_log_no_longer_has_does_not_stop_the_node() {
    let mut follower = Follower::restarted_while_busy();
    let out = follower.input(Input::RunUnreadable("gone".to_owned()));
    assert!(!has_stopped(&out) && !has_run(&out));
    follower.restores();
}

#[test]
fn a_run_that_should_be_in_the_log_and_is_not_stops_the_node() {
    let mut follower = Follower::new();
    assert!(has_run(&follower.commit(1)));
    assert!(has_stopped(&follower.input(Input::RunUnreadable("gone".to_owned()))));
}
