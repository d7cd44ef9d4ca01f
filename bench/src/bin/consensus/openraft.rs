//! openraft's group of three: the log in a `BTreeMap`, a state machine that counts, messages as function calls.

use std::collections::BTreeMap;
use std::fmt::{self, Debug};
use std::io;
use std::ops::RangeBounds;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::future::BoxFuture;
use futures::{Stream, TryStreamExt as _};
use openraft::entry::RaftEntry as _;
use openraft::errors::{RPCError, RemoteError, ReplicationClosed, StreamingError};
use openraft::network::{RPCOption, RaftNetworkFactory, RaftNetworkV2};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, VoteRequest, VoteResponse,
};
use openraft::storage::{
    EntryResponder, IOFlushed, LogState, RaftLogReader, RaftLogStorage, RaftSnapshotBuilder,
    RaftStateMachine,
};
use openraft::type_config::alias::{
    EntryOf, LogIdOf, SnapshotMetaOf, SnapshotOf, StoredMembershipOf, VoteOf,
};
use openraft::{Config, EntryPayload, OptionalSend, Raft, RaftTypeConfig};

use super::{Group, Outcome};

/// An empty command and an empty reply.
#[derive(Clone, Copy, Debug)]
struct Empty;

impl fmt::Display for Empty {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("empty")
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
struct Types;

impl RaftTypeConfig for Types {
    type D = Empty;
    type R = Empty;
    type NodeId = u64;
    type Node = ();
    type Term = u64;
    type LeaderId = openraft::impls::leader_id_std::LeaderId<u64, u64>;
    type Vote = openraft::impls::Vote<Self::LeaderId>;
    type Payload = EntryPayload<Empty, u64, ()>;
    type Entry =
        openraft::Entry<<Self::LeaderId as openraft::vote::RaftLeaderId>::Committed, Self::Payload>;
    type AsyncRuntime = openraft::impls::TokioRuntime;
    type Responder<T>
        = openraft::impls::OneshotResponder<Self, T>
    where
        T: OptionalSend + 'static;
    type Batch<T>
        = openraft::impls::InlineBatch<T>
    where
        T: OptionalSend + 'static;
    type ErrorSource = openraft::impls::BoxedErrorSource;
}

#[derive(Debug, Default)]
struct LogContent {
    vote: Option<VoteOf<Types>>,
    entries: BTreeMap<u64, EntryOf<Types>>,
    purged: Option<LogIdOf<Types>>,
}

/// A log in memory.
#[derive(Clone, Debug, Default)]
struct MemoryLog(Arc<Mutex<LogContent>>);

impl MemoryLog {
    fn with<T>(&self, look: impl FnOnce(&mut LogContent) -> T) -> T {
        look(&mut self.0.lock().expect("nobody panics with it"))
    }
}

impl RaftLogReader<Types> for MemoryLog {
    async fn try_get_log_entries<R: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: R,
    ) -> Result<Vec<EntryOf<Types>>, io::Error> {
        Ok(self.with(|log| log.entries.range(range).map(|(_, entry)| entry.clone()).collect()))
    }

    async fn read_vote(&mut self) -> Result<Option<VoteOf<Types>>, io::Error> {
        Ok(self.with(|log| log.vote))
    }
}

impl RaftLogStorage<Types> for MemoryLog {
    type LogReader = Self;

    async fn get_log_state(&mut self) -> Result<LogState<Types>, io::Error> {
        Ok(self.with(|log| {
            let last = log.entries.last_key_value().map(|(_, entry)| entry.log_id());
            LogState { last_purged_log_id: log.purged, last_log_id: last.or(log.purged) }
        }))
    }

    async fn get_log_reader(&mut self) -> Self {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &VoteOf<Types>) -> Result<(), io::Error> {
        self.with(|log| log.vote = Some(*vote));
        Ok(())
    }

    async fn append<I>(&mut self, entries: I, callback: IOFlushed<Types>) -> Result<(), io::Error>
    where
        I: IntoIterator<Item = EntryOf<Types>> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        self.with(|log| {
            log.entries.extend(entries.into_iter().map(|entry| (entry.index(), entry)));
        });
        callback.io_completed(Ok(()));
        Ok(())
    }

    async fn truncate_after(&mut self, last: Option<LogIdOf<Types>>) -> Result<(), io::Error> {
        self.with(|log| log.entries.split_off(&last.map_or(0, |id| id.index() + 1)));
        Ok(())
    }

    async fn purge(&mut self, through: LogIdOf<Types>) -> Result<(), io::Error> {
        self.with(|log| {
            log.entries = log.entries.split_off(&(through.index() + 1));
            log.purged = Some(through);
        });
        Ok(())
    }
}

#[derive(Clone, Debug, Default)]
struct Applied {
    last: Option<LogIdOf<Types>>,
    membership: StoredMembershipOf<Types>,
}

/// A state machine that remembers how far it is.
#[derive(Clone, Debug, Default)]
struct Machine(Arc<Mutex<Applied>>);

impl Machine {
    fn applied(&self) -> Applied {
        self.0.lock().expect("nobody panics with it").clone()
    }

    fn snapshot(&self) -> SnapshotOf<Types, ()> {
        let Applied { last, membership } = self.applied();
        let meta = SnapshotMetaOf::<Types> { last_log_id: last, last_membership: membership };
        SnapshotOf::<Types, ()> { meta, snapshot: () }
    }
}

impl RaftSnapshotBuilder<Types> for Machine {
    type SnapshotData = ();

    async fn build_snapshot(&mut self) -> Result<SnapshotOf<Types, ()>, io::Error> {
        Ok(self.snapshot())
    }
}

impl RaftStateMachine<Types> for Machine {
    type SnapshotData = ();
    type SnapshotBuilder = Self;

    async fn applied_state(
        &mut self,
    ) -> Result<(Option<LogIdOf<Types>>, StoredMembershipOf<Types>), io::Error> {
        let Applied { last, membership } = self.applied();
        Ok((last, membership))
    }

    async fn apply<S>(&mut self, mut entries: S) -> Result<(), io::Error>
    where
        S: Stream<Item = Result<EntryResponder<Types>, io::Error>> + Unpin + OptionalSend,
    {
        while let Some((entry, responder)) = entries.try_next().await? {
            {
                let mut applied = self.0.lock().expect("nobody panics with it");
                applied.last = Some(entry.log_id);
                if let EntryPayload::Membership(membership) = &entry.payload {
                    applied.membership =
                        StoredMembershipOf::<Types>::new(Some(entry.log_id), membership.clone());
                }
            }
            if let Some(responder) = responder {
                responder.send(Empty);
            }
        }
        Ok(())
    }

    async fn get_snapshot_builder(&mut self) -> Self {
        self.clone()
    }

    async fn install_snapshot(
        &mut self,
        meta: &SnapshotMetaOf<Types>,
        _snapshot: (),
    ) -> Result<(), io::Error> {
        let applied = Applied { last: meta.last_log_id, membership: meta.last_membership.clone() };
        *self.0.lock().expect("nobody panics with it") = applied;
        Ok(())
    }

    async fn get_current_snapshot(&mut self) -> Result<Option<SnapshotOf<Types, ()>>, io::Error> {
        Ok(self.applied().last.map(|_| self.snapshot()))
    }
}

type Node = Raft<Types, Machine>;

/// Finds the nodes of this process.
#[derive(Clone, Debug, Default)]
struct Nodes(Arc<Mutex<BTreeMap<u64, Node>>>);

/// The way to one node.
struct Link {
    target: u64,
    nodes: Nodes,
    found: Option<Node>,
}

impl Link {
    fn node(&mut self) -> Result<&Node, RPCError<Types>> {
        if self.found.is_none() {
            let nodes = self.nodes.0.lock().expect("nobody panics with it");
            self.found = nodes.get(&self.target).cloned();
        }
        let absent = || openraft::errors::Unreachable::from_string("not started yet");
        self.found.as_ref().ok_or_else(|| RPCError::Unreachable(absent()))
    }
}

impl RaftNetworkFactory<Types> for Nodes {
    type Network = Link;

    async fn new_client(&mut self, target: u64, _node: &()) -> Link {
        Link { target, nodes: self.clone(), found: None }
    }
}

impl RaftNetworkV2<Types> for Link {
    type SnapshotData = ();

    async fn append_entries(
        &mut self,
        rpc: AppendEntriesRequest<Types>,
        _option: RPCOption,
    ) -> Result<AppendEntriesResponse<Types>, RPCError<Types>> {
        let target = self.target;
        let answer = self.node()?.append_entries(rpc).await;
        answer.map_err(|error| {
            RPCError::Unreachable(openraft::errors::Unreachable::new(
                &RemoteError::<Types, _>::new(target, error),
            ))
        })
    }

    async fn vote(
        &mut self,
        rpc: VoteRequest<Types>,
        _option: RPCOption,
    ) -> Result<VoteResponse<Types>, RPCError<Types>> {
        let target = self.target;
        let answer = self.node()?.vote(rpc).await;
        answer.map_err(|error| {
            RPCError::Unreachable(openraft::errors::Unreachable::new(
                &RemoteError::<Types, _>::new(target, error),
            ))
        })
    }

    async fn full_snapshot(
        &mut self,
        vote: VoteOf<Types>,
        snapshot: SnapshotOf<Types, ()>,
        _cancel: impl Future<Output = ReplicationClosed> + OptionalSend + 'static,
        _option: RPCOption,
    ) -> Result<SnapshotResponse<Types>, StreamingError<Types>> {
        let unreachable = |text: String| {
            StreamingError::Unreachable(openraft::errors::Unreachable::from_string(text))
        };
        let node = self.node().map_err(|error| unreachable(error.to_string()))?;
        node.install_full_snapshot(vote, snapshot)
            .await
            .map_err(|error| unreachable(error.to_string()))
    }
}

struct OpenRaft {
    leader: Node,
    _nodes: Nodes,
}

impl Group for OpenRaft {
    fn write(&self) -> BoxFuture<'_, Outcome<()>> {
        Box::pin(async move {
            self.leader.client_write(Empty).await?;
            Ok(())
        })
    }
}

pub(super) async fn start() -> Outcome<Arc<dyn Group>> {
    // As in openraft's own measurement.
    let config = Config {
        election_timeout_min: 2_000,
        election_timeout_max: 4_000,
        heartbeat_interval: 100,
        purge_batch_size: 1_024,
        max_payload_entries: 1_024,
        ..Config::default()
    };
    let config = Arc::new(config.validate()?);
    let nodes = Nodes::default();
    for id in 1..=3 {
        let node = Raft::new(
            id,
            Arc::clone(&config),
            nodes.clone(),
            MemoryLog::default(),
            Machine::default(),
        )
        .await?;
        nodes.0.lock().expect("nobody panics with it").insert(id, node);
    }
    let node = |id: u64| nodes.0.lock().expect("nobody panics with it")[&id].clone();
    let first = node(1);
    first.initialize(std::collections::BTreeSet::from([1, 2, 3])).await?;
    first.wait(Some(Duration::from_secs(20))).current_leader(1, "leads").await?;
    for id in 1..=3 {
        let applied = node(id);
        applied
            .wait(Some(Duration::from_secs(20)))
            .applied_index_at_least(Some(1), "founded")
            .await?;
    }
    Ok(Arc::new(OpenRaft { leader: first, _nodes: nodes }))
}
