//! The nemesis by itself.

use std::time::Duration;

use lattice_sim::{Address, FaultKind, Nemesis, NemesisOptions, Swarm, World, WorldOptions};

use crate::echo::{Echo, Server};

const SECOND: Duration = Duration::from_secs(1);

fn world() -> (World<Echo>, Vec<Address>) {
    let nodes: Vec<Address> = (1..=5).map(Address).collect();
    let mut world = World::new(WorldOptions::new(1));
    for node in &nodes {
        world.add(*node, |_, _| Echo::Server(Server::default()));
    }
    world.run_until(SECOND);
    (world, nodes)
}

fn all() -> Swarm {
    FaultKind::ALL
        .into_iter()
        .fold(Swarm::none(), |swarm, kind| swarm.with(kind, Duration::from_millis(500)))
}

fn drive(nemesis: &mut Nemesis, world: &mut World<Echo>, until: Duration) {
    while let Some(next) = nemesis.next_at().filter(|next| *next <= until) {
        world.run_until(next);
        nemesis.act(world);
    }
    world.run_until(until);
}

#[test]
fn every_kind_strikes_and_everything_heals() {
    let (mut world, nodes) = world();
    let options = NemesisOptions::new(nodes.clone());
    let mut nemesis = Nemesis::new(1, all(), options, world.now());
    drive(&mut nemesis, &mut world, 180 * SECOND);
    for kind in FaultKind::ALL.into_iter().filter(|kind| !kind.asks()) {
        assert!(nemesis.counts().get(&kind).is_some_and(|count| *count > 3), "{kind}");
    }
    nemesis.heal(&mut world);
    assert_eq!(nemesis.next_at(), None);
    world.run_for(SECOND);
    for node in &nodes {
        assert!(world.is_up(*node) && !world.is_paused(*node));
        let (now, later) = (world.now(), world.now() + SECOND);
        let clock = world.clock(*node);
        assert_eq!(clock.local(later) - clock.local(now), SECOND);
        assert_eq!(clock.wall(now), lattice_sim::clock::WALL_EPOCH + now);
        assert_eq!(world.disk(*node).capacity(), None);
        assert!(!world.disk(*node).is_stalled());
        for other in &nodes {
            assert!(!world.network().is_cut(*node, *other));
            assert_eq!(world.network().link(*node, *other), world.network().base());
        }
    }
}

#[test]
fn faults_end_by_themselves() {
    let (mut world, nodes) = world();
    let mut nemesis =
        Nemesis::new(1, Swarm::none(), NemesisOptions::new(nodes.clone()), world.now());
    for kind in [FaultKind::PartitionFull, FaultKind::Loss, FaultKind::DiskFull, FaultKind::Crash] {
        assert!(nemesis.strike(&mut world, kind));
    }
    assert!(!nemesis.strike(&mut world, FaultKind::PartitionBridge), "one partition at a time");
    assert!(world.network().is_cut(nodes[0], nodes[1]));
    drive(&mut nemesis, &mut world, 10 * SECOND);
    assert!(!world.network().is_cut(nodes[0], nodes[1]));
    assert_eq!(world.network().link(nodes[0], nodes[1]), world.network().base());
    assert!(nodes.iter().all(|node| world.is_up(*node)));
    assert!(nodes.iter().all(|node| world.disk(*node).capacity().is_none()));
}

#[test]
fn as_many_nodes_stay_up_as_were_asked_for() {
    let (mut world, nodes) = world();
    let options = NemesisOptions { up_min: 3, ..NemesisOptions::new(nodes.clone()) };
    let swarm = Swarm::none()
        .with(FaultKind::Crash, Duration::from_millis(100))
        .with(FaultKind::Kill, Duration::from_millis(100))
        .with(FaultKind::Pause, Duration::from_millis(100));
    let mut nemesis = Nemesis::new(1, swarm, options, world.now());
    let mut fewest = nodes.len();
    while let Some(next) = nemesis.next_at().filter(|next| *next < 60 * SECOND) {
        world.run_until(next);
        nemesis.act(&mut world);
        let running = nodes.iter().filter(|n| world.is_up(**n) && !world.is_paused(**n)).count();
        fewest = fewest.min(running);
    }
    assert_eq!(fewest, 3);
}
