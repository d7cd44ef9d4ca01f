//! Links and partitions.

use std::time::Duration;

use lattice_sim::{Address, Chance, Link, Span, World, WorldOptions};

use crate::echo::{CLIENT, Echo, SERVER, Server, client, heard, world};

const SECOND: Duration = Duration::from_secs(1);

fn with_link(change: impl FnOnce(&mut Link)) -> World<Echo> {
    let mut world = world(1);
    let mut link = Link::default();
    change(&mut link);
    world.network_mut().set_link(CLIENT, SERVER, link);
    world.run_until(10 * SECOND);
    world
}

#[test]
fn a_quiet_link_delivers_everything_once_and_in_order() {
    let world = with_link(|_| {});
    let sent = client(&world).sent;
    assert!((990..=1_001).contains(&sent), "{sent}");
    let heard = heard(&world);
    assert!(heard.len() >= 990);
    assert!(heard.iter().zip(1..).all(|(heard, expected)| *heard == expected));
}

#[test]
fn delays_stay_within_their_bounds() {
    let world = with_link(|link| link.delay = Span::millis(100, 200));
    // The tenth second's pings are still on their way.
    let missing = client(&world).sent - u64::try_from(heard(&world).len()).unwrap();
    assert!((9..=21).contains(&missing), "{missing}");
}

#[test]
fn a_lossy_link_loses_about_as_much_as_it_says() {
    let world = with_link(|link| link.loss = Chance::percent(30));
    let heard = heard(&world).len();
    assert!((620..780).contains(&heard), "{heard}");
    assert_eq!(world.network().counts().lost, 1_000 - u64::try_from(heard).unwrap());
}

#[test]
fn a_duplicating_link_delivers_copies() {
    let world = with_link(|link| link.duplicate = Chance::percent(50));
    let numbers = heard(&world);
    let mut distinct = numbers.clone();
    distinct.sort_unstable();
    distinct.dedup();
    assert!(distinct.len() >= 990);
    assert!((400..600).contains(&(numbers.len() - distinct.len())));
}

#[test]
fn messages_are_overtaken_only_on_a_link_that_reorders() {
    let order = |delay, reorder| {
        let world = with_link(|link| {
            link.delay = delay;
            link.reorder = reorder;
            link.reordered = Span::millis(1, 100);
        });
        heard(&world).is_sorted()
    };
    assert!(order(Span::millis(0, 500), Chance::NEVER));
    assert!(!order(Span::millis(0, 1), Chance::percent(20)));
}

#[test]
fn a_cut_is_one_sided_and_takes_what_is_on_its_way() {
    let mut world = world(1);
    world.network_mut().set_all(Link { delay: Span::millis(5, 5), ..Link::default() });
    world.run_until(SECOND);
    world.network_mut().asymmetric(SERVER, CLIENT);
    let (before, answers) = (heard(&world).len(), client(&world).answers.len());
    world.run_for(SECOND);
    assert!(heard(&world).len() >= before + 99, "the other direction is open");
    assert_eq!(client(&world).answers.len(), answers);
    world.network_mut().mend(SERVER, CLIENT);
    world.run_for(SECOND);
    assert!(client(&world).answers.len() >= answers + 99);
}

/// Five servers, of which every pair tries to talk; answers which pairs could.
fn reached(partition: impl FnOnce(&mut World<Echo>, [Address; 5])) -> Vec<(u64, u64)> {
    let nodes = [1, 2, 3, 4, 5].map(Address);
    let mut world: World<Echo> = World::new(WorldOptions::new(1));
    for node in nodes {
        world.add(node, |_, _| Echo::Server(Server::default()));
    }
    world.run_until(SECOND);
    partition(&mut world, nodes);
    for from in nodes {
        for to in nodes {
            if from != to {
                world.send(from, to, crate::echo::Message::Ping(from.0));
            }
        }
    }
    world.run_for(SECOND);
    let mut pairs = Vec::new();
    for (to, process) in world.processes() {
        let Echo::Server(server) = process else { panic!("only servers were added") };
        pairs.extend(server.heard.iter().map(|(from, _)| (*from, to.0)));
    }
    pairs.sort_unstable();
    pairs
}

#[test]
fn a_split_separates_groups_and_leaves_others_alone() {
    let pairs = reached(|world, [a, b, c, d, _]| world.network_mut().split(&[&[a, b], &[c, d]]));
    assert!(pairs.contains(&(1, 2)) && pairs.contains(&(4, 3)));
    assert!(!pairs.iter().any(|(from, to)| *from <= 2 && (3..=4).contains(to)));
    assert!(!pairs.iter().any(|(from, to)| *to <= 2 && (3..=4).contains(from)));
    assert_eq!(pairs.iter().filter(|(from, to)| *from == 5 || *to == 5).count(), 8);
}

#[test]
fn an_isolated_node_reaches_nobody() {
    let pairs = reached(|world, [a, ..]| world.network_mut().isolate(a));
    assert_eq!(pairs.len(), 12);
    assert!(pairs.iter().all(|(from, to)| *from != 1 && *to != 1));
}

#[test]
fn a_bridge_reaches_both_sides() {
    let pairs = reached(|world, [a, b, c, d, e]| {
        world.network_mut().bridge(&[a, b, c], &[c, d, e], c);
    });
    assert_eq!(pairs.iter().filter(|(from, to)| *from == 3 || *to == 3).count(), 8);
    assert!(!pairs.contains(&(1, 4)) && !pairs.contains(&(5, 2)));
    assert_eq!(pairs.len(), 12);
}

#[test]
fn healing_opens_every_link() {
    let pairs = reached(|world, [a, b, c, ..]| {
        let network = world.network_mut();
        network.isolate(a);
        network.set_link(b, c, Link { loss: Chance::ALWAYS, ..Link::default() });
        network.adjust(|link| link.loss = Chance::ALWAYS);
        network.heal();
    });
    assert_eq!(pairs.len(), 20);
}

#[test]
fn a_damaged_frame_is_dropped_with_what_follows_until_the_connection_stands_again() {
    let mut world = with_link(|link| {
        link.corrupt = Chance::percent(10);
        link.delay = Span::millis(20, 20);
    });
    let counts = world.network().counts();
    assert!(counts.corrupted > 20 && counts.reset > counts.corrupted, "{counts:?}");
    assert_eq!(counts.lost, 0);
    world.network_mut().heal();
    let before = heard(&world).len();
    world.run_for(SECOND);
    assert!(heard(&world).len() >= before + 95);
}

#[test]
fn a_broken_connection_outlives_the_end_of_a_partition() {
    let mut world = world(1);
    world.run_until(SECOND);
    world.network_mut().break_connection(CLIENT, SERVER);
    world.network_mut().cut(SERVER, CLIENT);
    world.network_mut().heal_cuts();
    let before = heard(&world).len();
    world.run_for(SECOND);
    assert_eq!(heard(&world).len(), before, "what was on its way is lost too");
    world.network_mut().reconnect(SERVER, CLIENT);
    world.run_for(SECOND);
    assert!(heard(&world).len() >= before + 95);
}

#[test]
fn the_sender_of_a_half_open_connection_hears_and_is_not_heard() {
    let mut world = world(1);
    world.run_until(SECOND);
    world.network_mut().half_open(SERVER, CLIENT);
    let (heard_before, answers) = (heard(&world).len(), client(&world).answers.len());
    world.run_for(SECOND);
    assert!(heard(&world).len() >= heard_before + 95);
    assert_eq!(client(&world).answers.len(), answers);
}
