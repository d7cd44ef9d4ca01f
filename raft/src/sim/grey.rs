//! Grey failures, one at a time: half of a link, a bridge, a disk that hangs. Whatever it is, within ten election timeouts somebody leads whom a
//! majority hears, and clients are served (Cloudflare 2020, hashicorp/raft #503).

use std::time::Duration;

use lattice_sim::{Address, Scenario, World, WorldOptions};

use super::check::Oracle;
use super::cluster::{SimCluster, SimProcess};
use super::shape::{Shape, Tuning};
use super::workload::Swaps;
use crate::raft_node::Role;

/// Clusters that are looked at: of three nodes and of five, near and far, with quick disks and slow ones.
const SEEDS: std::ops::Range<u64> = 0..16;

struct Trial {
    world: World<SimProcess<Swaps>>,
    cluster: SimCluster<Swaps>,
    nodes: Vec<Address>,
    /// Ten election timeouts, the longest that can be drawn.
    bound: Duration,
    /// Until clients that are still waiting for what was lost have given up.
    patience: Duration,
}

impl Trial {
    /// A cluster at work, its founders bound, and its leader.
    fn new(seed: u64) -> (Self, Address) {
        let shape = Shape::draw(seed, Tuning::General, None);
        let mut options = WorldOptions::new(seed);
        options.hash_messages = false;
        (options.link, options.disk.latency) = (shape.link, shape.disk);
        let bound = 10 * shape.setup.election_timeout.end;
        let (nodes, patience) = (shape.addresses(), shape.patience.timeout.max);
        let mut cluster =
            SimCluster::new(Swaps::default(), shape, Duration::from_secs(600), Oracle::Both);
        let mut world = World::new(options);
        cluster.build(&mut world);
        let mut trial = Self { world, cluster, nodes, bound, patience };
        trial.run(trial.bound + Duration::from_secs(5));
        let leader = trial.leader().expect("nothing is wrong yet");
        (trial, leader)
    }

    fn run(&mut self, length: Duration) {
        let end = self.world.now() + length;
        while let Some(step) = self.world.step_until(end) {
            self.cluster.check_step(&self.world, &step).expect("nothing wrong happens");
        }
        self.world.advance(end);
    }

    /// The leader of the latest term, if anybody leads.
    fn leader(&self) -> Option<Address> {
        let rafts = SimCluster::nodes(&self.world).filter_map(|node| node.raft());
        let leaders = rafts.filter(|raft| raft.role() == Role::Leader);
        leaders.max_by_key(|raft| raft.term()).map(|raft| Address(raft.id().0))
    }

    fn others(&self, node: Address) -> Vec<Address> {
        self.nodes.iter().copied().filter(|other| *other != node).collect()
    }

    /// After ten election timeouts somebody leads, and operations that begin then come to an end.
    fn check_service(&mut self, what: &str) -> Address {
        self.run(self.bound);
        let leader = self.leader().unwrap_or_else(|| panic!("{what}: nobody leads"));
        self.run(self.patience);
        let before = self.cluster.progress(&self.world);
        self.run(2 * self.patience);
        assert!(self.cluster.progress(&self.world) > before, "{what}: {leader} serves nobody");
        leader
    }
}

#[test]
fn a_leader_that_is_not_heard_is_replaced() {
    for seed in SEEDS {
        let (mut trial, leader) = Trial::new(seed);
        for other in trial.others(leader) {
            trial.world.network_mut().asymmetric(leader, other);
        }
        let next = trial.check_service(&format!("seed {seed}: {leader} is mute"));
        assert_ne!(next, leader, "seed {seed}");
    }
}

#[test]
fn a_leader_that_hears_nobody_gives_way() {
    for seed in SEEDS {
        let (mut trial, leader) = Trial::new(seed);
        for other in trial.others(leader) {
            trial.world.network_mut().asymmetric(other, leader);
        }
        let next = trial.check_service(&format!("seed {seed}: {leader} is deaf"));
        assert_ne!(next, leader, "seed {seed}");
    }
}

#[test]
fn a_follower_that_hears_no_leader_disturbs_nobody() {
    for seed in SEEDS {
        let (mut trial, leader) = Trial::new(seed);
        let follower = trial.others(leader)[0];
        trial.world.network_mut().half_open(leader, follower);
        trial.check_service(&format!("seed {seed}: {follower} does not hear {leader}"));
    }
}

#[test]
fn two_halves_that_only_one_node_joins_are_served() {
    for seed in SEEDS {
        for place in 0..3 {
            let (mut trial, leader) = Trial::new(seed);
            // The leader in the middle, at the end of one half, and at the end of the other.
            let mut nodes = trial.others(leader);
            nodes.insert(place * (nodes.len() / 2), leader);
            let middle = nodes.len() / 2;
            let (left, right) = (&nodes[..middle], &nodes[middle + 1..]);
            trial.world.network_mut().bridge(left, right, nodes[middle]);
            trial.check_service(&format!("seed {seed}: bridge over {}", nodes[middle]));
        }
    }
}

#[test]
fn a_leader_whose_disk_hangs_is_replaced() {
    for seed in SEEDS {
        let (mut trial, leader) = Trial::new(seed);
        trial.world.disk(leader).hang();
        let next = trial.check_service(&format!("seed {seed}: the disk of {leader} hangs"));
        assert_ne!(next, leader, "seed {seed}");
    }
}

#[test]
fn a_follower_whose_disk_hangs_holds_nobody_up_and_catches_up_when_it_is_switched_off_and_on() {
    for seed in SEEDS {
        let (mut trial, leader) = Trial::new(seed);
        let follower = trial.others(leader)[0];
        trial.world.disk(follower).hang();
        trial.check_service(&format!("seed {seed}: the disk of {follower} hangs"));
        trial.world.crash(follower);
        trial.world.restart(follower);
        trial.run(trial.bound);
        trial.cluster.quiesce(&mut trial.world);
        trial.run(trial.bound + 3 * trial.patience);
        trial.cluster.converged(&trial.world).expect("it has caught up");
    }
}
