//! Many groups in one process: they share what they can, and are quiet when there is nothing to do.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use lattice_journal::MemoryDisk;
use raft_consensus::driver::{
    Consistency, NodeOptions, Process, ProcessOptions, ProposeError, Raft, StartError, Timing,
};
use raft_consensus::state_machine::{BoxError, Simple, SimpleReader, StateMachine};
use raft_consensus::storage::DataDirectory;
use raft_consensus::transport::MemoryNetwork;
use raft_consensus::types::{ClusterId, GroupId, NodeId};

const PATIENCE: Duration = Duration::from_secs(60);
const GROUPS: u64 = 8;

/// Counts the commands that it gets.
#[derive(Debug, Default)]
struct Counter(u64);

impl StateMachine for Counter {
    fn apply(&mut self, _command: &[u8]) -> Result<Vec<u8>, BoxError> {
        self.0 += 1;
        Ok(self.0.to_string().into())
    }
}

type Node = Raft<SimpleReader<Counter>>;

/// A process with its groups.
struct Host {
    process: Process,
    groups: BTreeMap<GroupId, Node>,
}

/// Three processes, each with a node of every group.
struct Cluster {
    network: MemoryNetwork,
    hosts: BTreeMap<NodeId, Host>,
}

fn host(network: &MemoryNetwork, id: NodeId, disk: &MemoryDisk) -> Host {
    let founders: Vec<_> = (1..=3).map(NodeId).collect();
    let (disk, store) = (Arc::new(disk.clone()), u128::from(id.0) + 100);
    let path = Path::new("/node");
    let directory = DataDirectory::open(disk, path, ClusterId(7), id, &founders, store).unwrap();
    let mut node = NodeOptions::new(directory);
    node.apply_inline = true;
    // Patient enough for a machine that has much else to do.
    node.timing = Timing {
        election_timeout: Duration::from_millis(500)..Duration::from_millis(1000),
        heartbeat: Duration::from_millis(50),
        ..Timing::default()
    };
    let process = Process::start(ProcessOptions::new(node), network.transport(id));
    let groups = (0..GROUPS).map(|group| {
        let group = GroupId(group);
        (group, process.start_group(group, Simple::new(Counter::default())).unwrap())
    });
    Host { groups: groups.collect(), process }
}

impl Cluster {
    fn start() -> Self {
        let network = MemoryNetwork::new();
        let ids = (1..=3).map(NodeId);
        let hosts = ids.map(|id| (id, host(&network, id, &MemoryDisk::new()))).collect();
        Self { network, hosts }
    }

    async fn propose(&self, group: GroupId) -> u64 {
        let propose = async {
            loop {
                for host in self.hosts.values() {
                    match host.groups[&group].propose("one more").await {
                        Ok(applied) => {
                            return String::from_utf8(applied.reply.to_vec()).unwrap().parse();
                        }
                        Err(
                            ProposeError::NotLeader { .. }
                            | ProposeError::Superseded
                            | ProposeError::Unknown,
                        ) => tokio::task::yield_now().await,
                        Err(error) => panic!("{error}"),
                    }
                }
            }
        };
        tokio::time::timeout(PATIENCE, propose).await.unwrap().unwrap()
    }

    /// Waits until every node of these processes is quiet.
    async fn all_quiet(&self) {
        for (id, host) in &self.hosts {
            for (group, node) in &host.groups {
                let quiet = node.wait_for(PATIENCE, |status| status.is_quiet).await;
                assert!(quiet.is_some(), "{id} of group {group}: {:?}", node.status());
            }
        }
    }
}

#[tokio::test]
async fn groups_of_a_process_elect_leaders_take_commands_and_go_quiet() {
    let cluster = Cluster::start();
    for group in (0..GROUPS).map(GroupId) {
        assert_eq!(cluster.propose(group).await, 1, "each has its own log");
    }
    cluster.all_quiet().await;
    // On a machine that has much else to do some may have been woken again.
    let all_counted = async {
        let everywhere = 3 * usize::try_from(GROUPS).unwrap();
        let quiet = |host: &Host| host.process.quiet_groups();
        while cluster.hosts.values().map(quiet).sum::<usize>() != everywhere {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, all_counted).await.unwrap();
    // A command, and a read on a follower, wake a group; it goes quiet again.
    assert_eq!(cluster.propose(GroupId(3)).await, 2);
    for host in cluster.hosts.values() {
        let reader = host.groups[&GroupId(3)].read(Consistency::Linearizable).await.unwrap();
        assert_eq!(reader.with(|counter| counter.0), 2);
    }
    cluster.all_quiet().await;
}

#[tokio::test]
async fn quiet_groups_whose_leaders_process_is_gone_elect_others() {
    let mut cluster = Cluster::start();
    for group in (0..GROUPS).map(GroupId) {
        cluster.propose(group).await;
    }
    cluster.all_quiet().await;
    let gone = cluster.hosts[&NodeId(1)].groups[&GroupId(0)].status().leader.unwrap();
    // From one moment to the next, with everything that it has.
    cluster.network.stop(gone);
    let host = cluster.hosts.remove(&gone).unwrap();
    for (id, host) in &cluster.hosts {
        for (group, node) in &host.groups {
            let led = |status: &raft_consensus::driver::Status| {
                status.leader.is_some_and(|leader| leader != gone)
            };
            let status = node.wait_for(PATIENCE, led).await;
            assert!(status.is_some(), "{id} of group {group}: {:?}", node.status());
        }
    }
    for group in (0..GROUPS).map(GroupId) {
        assert_eq!(cluster.propose(group).await, 2);
    }
    for node in host.groups.values() {
        node.shutdown().await;
    }
}

#[tokio::test]
async fn a_group_that_ends_alone_is_missed_although_its_process_lives() {
    let mut cluster = Cluster::start();
    let group = GroupId(5);
    cluster.propose(group).await;
    cluster.all_quiet().await;
    let leader = cluster.hosts[&NodeId(1)].groups[&group].status().leader.unwrap();
    let node = cluster.hosts.get_mut(&leader).unwrap().groups.remove(&group).unwrap();
    node.shutdown().await;
    let others: Vec<_> = cluster.hosts.iter().filter(|(id, _)| **id != leader).collect();
    for (id, host) in &others {
        let node = &host.groups[&group];
        let led = |status: &raft_consensus::driver::Status| {
            status.leader.is_some_and(|now| now != leader)
        };
        assert!(node.wait_for(PATIENCE, led).await.is_some(), "{id}: {:?}", node.status());
    }
}

#[tokio::test]
async fn a_group_is_started_once_at_a_time() {
    let network = MemoryNetwork::new();
    let disk = MemoryDisk::new();
    let host = host(&network, NodeId(1), &disk);
    let again = host.process.start_group(GroupId(0), Simple::new(Counter::default()));
    assert!(matches!(again, Err(StartError::GroupRuns(GroupId(0)))), "{again:?}");
    let reserved = host.process.start_group(GroupId::PROCESS, Simple::new(Counter::default()));
    assert!(matches!(reserved, Err(StartError::GroupRuns(_))), "{reserved:?}");
    host.groups[&GroupId(0)].shutdown().await;
    host.process.start_group(GroupId(0), Simple::new(Counter::default())).unwrap();
}
