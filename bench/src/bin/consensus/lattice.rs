//! Our group of three.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use raft_consensus::driver::{NodeOptions, Raft};
use raft_consensus::state_machine::{BoxError, Simple, SimpleReader, StateMachine};
use raft_consensus::transport::MemoryNetwork;
use raft_consensus::types::NodeId;

use super::{Group, Outcome};

/// Counts what it applies.
#[derive(Debug, Default)]
struct Count(u64);

impl StateMachine for Count {
    fn apply(&mut self, _command: &[u8]) -> Result<Vec<u8>, BoxError> {
        self.0 += 1;
        Ok(Vec::new())
    }

    fn snapshot(&self) -> Result<Option<Vec<u8>>, BoxError> {
        Ok(Some(self.0.to_le_bytes().to_vec()))
    }

    fn restore(&mut self, snapshot: &[u8]) -> Result<(), BoxError> {
        self.0 = u64::from_le_bytes(snapshot.try_into()?);
        Ok(())
    }
}

struct Lattice {
    leader: Raft<SimpleReader<Count>>,
    _others: Vec<Raft<SimpleReader<Count>>>,
}

impl Group for Lattice {
    fn write(&self) -> BoxFuture<'_, Outcome<()>> {
        Box::pin(async move {
            self.leader.propose(Bytes::new()).await?;
            Ok(())
        })
    }
}

pub(super) async fn start() -> Outcome<Arc<dyn Group>> {
    let network = MemoryNetwork::new();
    let ids = [1, 2, 3].map(NodeId);
    let mut nodes = Vec::new();
    for id in ids {
        let mut options = NodeOptions::in_memory(id, ids);
        // Counting waits for nothing.
        options.apply_inline = true;
        // As openraft's: long enough that nobody campaigns because a core is busy.
        options.timing.election_timeout = Duration::from_secs(2)..Duration::from_secs(4);
        nodes.push(Raft::start(options, Simple::new(Count::default()), network.transport(id))?);
    }
    let patience = Duration::from_secs(20);
    for node in &nodes {
        let founded = node.wait_for(patience, |status| status.membership.is_fully_bound()).await;
        founded.ok_or("the group was not founded")?;
    }
    let leader = nodes[0].wait_for(patience, |status| status.leader.is_some()).await;
    let leader = leader.and_then(|status| status.leader).ok_or("nobody leads")?;
    let place = ids.iter().position(|&id| id == leader).ok_or("a stranger leads")?;
    let leader = nodes.swap_remove(place);
    Ok(Arc::new(Lattice { leader, _others: nodes }))
}
