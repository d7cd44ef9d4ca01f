//! Order, clocks, pauses, ends and starts.

use std::time::Duration;

use lattice_sim::{
    Address, ClockOptions, Context, Event, Process, Span, StepKind, TraceKeep, World, WorldOptions,
};
use lattice_trace::{TraceReader, kind};

use crate::echo::{CLIENT, PERIOD, SERVER, client, heard, server, world, world_of};

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn the_same_seed_gives_the_same_hash_and_another_seed_another() {
    let hash = |seed| {
        let mut world = world(seed);
        world.run_until(SECOND);
        world.crash(SERVER);
        world.restart_after(SERVER, SECOND);
        world.run_until(5 * SECOND);
        world.hash()
    };
    for seed in 0..10 {
        assert_eq!(hash(seed), hash(seed));
        assert_ne!(hash(seed), hash(seed + 1));
    }
}

#[test]
fn keeping_the_trace_changes_nothing() {
    let run = |keep, hash_messages| {
        let mut world = world_of(WorldOptions { keep, hash_messages, ..WorldOptions::new(3) });
        world.run_until(SECOND);
        (world.hash(), client(&world).answers.len())
    };
    assert_eq!(run(TraceKeep::Nothing, true), run(TraceKeep::Last(10), true));
    assert_eq!(run(TraceKeep::Nothing, false), run(TraceKeep::Last(10), false));
    let (hashed, other) = (run(TraceKeep::Nothing, true), run(TraceKeep::Nothing, false));
    assert_ne!(hashed.0, other.0);
    assert_eq!(hashed.1, other.1);
}

#[test]
fn the_trace_tells_what_caused_what() {
    let keep = TraceKeep::Last(1_000);
    let mut world = world_of(WorldOptions { keep, ..WorldOptions::new(1) });
    world.run_until(PERIOD * 3);
    let mut bytes = Vec::new();
    world.write_trace(&mut bytes).unwrap();
    let records: Vec<_> = TraceReader::new(bytes.as_slice()).map(Result::unwrap).collect();
    let pong = records
        .iter()
        .find(|record| record.node == CLIENT.0 && record.kind == kind::MESSAGE_DELIVERED)
        .unwrap();
    let find = |cause: lattice_trace::Cause| {
        records.iter().find(|record| (record.node, record.seq) == (cause.node, cause.seq)).unwrap()
    };
    let sent = find(pong.cause);
    assert_eq!((sent.node, sent.kind.as_str()), (SERVER.0, kind::MESSAGE_SENT));
    assert_eq!(sent.fields["detail"], "Pong(1)");
    let heard = find(sent.cause);
    assert_eq!((heard.node, heard.kind.as_str()), (SERVER.0, kind::MESSAGE_DELIVERED));
    let ping = find(heard.cause);
    assert_eq!((ping.node, ping.kind.as_str()), (CLIENT.0, kind::MESSAGE_SENT));
    assert_eq!(find(ping.cause).fields["detail"], "start");
}

#[test]
fn a_trace_keeps_the_last_events_only() {
    let keep = TraceKeep::Last(7);
    let mut world = world_of(WorldOptions { keep, ..WorldOptions::new(1) });
    world.run_until(SECOND);
    let mut bytes = Vec::new();
    world.write_trace(&mut bytes).unwrap();
    assert_eq!(bytes.iter().filter(|byte| **byte == b'\n').count(), 7);
}

#[test]
fn during_a_pause_messages_wait_and_the_clock_goes_on() {
    let mut world = world(1);
    world.run_until(SECOND);
    let before = heard(&world).len();
    world.pause(SERVER, 2 * SECOND);
    world.pause(SERVER, SECOND);
    world.run_for(Duration::from_millis(1_900));
    assert!(world.is_paused(SERVER) && world.is_up(SERVER));
    assert_eq!(heard(&world).len(), before);
    world.run_for(Duration::from_millis(200));
    assert!(!world.is_paused(SERVER));
    let numbers = heard(&world);
    assert!(numbers.len() > before + 200 && numbers.is_sorted());
    let times: Vec<Duration> = server(&world).heard.iter().map(|(_, at)| *at).collect();
    assert!(times[before] - times[before - 1] > SECOND);
    assert_eq!(times[before], times[before + 150], "all that waited was handled at once");
}

#[test]
fn a_pause_can_be_ended() {
    let mut world = world(1);
    world.pause(SERVER, Duration::MAX / 4);
    world.run_until(SECOND);
    world.pause(SERVER, 3_600 * SECOND);
    world.run_for(SECOND);
    world.resume(SERVER);
    world.resume(CLIENT);
    world.run_for(SECOND);
    assert!(heard(&world).len() > 290);
}

#[test]
fn a_process_that_is_down_hears_nothing_and_starts_anew() {
    let mut world = world(1);
    world.run_until(SECOND);
    for end in [World::crash, World::kill] {
        let boot = world.boot(SERVER);
        end(&mut world, SERVER);
        assert!(!world.is_up(SERVER));
        let answers = client(&world).answers.len();
        world.run_for(SECOND);
        assert!(client(&world).answers.len() <= answers + 1);
        world.restart(SERVER);
        world.restart(SERVER);
        assert!(world.is_starting(SERVER));
        world.run_for(SECOND);
        assert_eq!(world.boot(SERVER), boot + 1);
        let numbers = heard(&world);
        assert!((98..=101).contains(&numbers.len()), "it remembers nothing: {}", numbers.len());
    }
    assert!(world.network().counts().unheard >= 196);
}

#[test]
fn a_crash_takes_a_start_and_a_pause_along() {
    let mut world = world(1);
    world.run_until(SECOND);
    world.pause(SERVER, SECOND);
    world.crash(SERVER);
    assert!(!world.is_paused(SERVER));
    world.restart_after(SERVER, SECOND);
    world.crash(SERVER);
    world.run_for(5 * SECOND);
    assert!(!world.is_up(SERVER));
}

#[test]
fn clocks_decide_when_a_timer_rings() {
    // The client sends one ping every 10 ms of its own time.
    let count = |change: fn(&mut World<crate::echo::Echo>)| {
        let clock = ClockOptions { drift_ppm: 0, ..ClockOptions::default() };
        let mut world = world_of(WorldOptions { clock, ..WorldOptions::new(1) });
        world.run_until(SECOND);
        let before = client(&world).sent;
        change(&mut world);
        world.run_for(10 * SECOND);
        client(&world).sent - before
    };
    let near = |count: u64, expected: u64| (expected - 1..=expected + 1).contains(&count);
    assert!(near(count(|_| {}), 1_000));
    assert!(near(count(|world| world.clock_mut(CLIENT).set_drift(100_000)), 1_100));
    assert!(near(count(|world| world.clock_mut(CLIENT).set_drift(-100_000)), 900));
    assert!(near(count(|world| world.clock_mut(CLIENT).freeze(4 * SECOND)), 600));
    assert!(near(count(|world| world.clock_mut(CLIENT).jump(3_600 * SECOND)), 1_001));
    assert!(near(count(|world| world.clock_mut(CLIENT).jump_wall_back(3_600 * SECOND)), 1_000));
    assert!(near(count(|world| world.clock_mut(SERVER).freeze(4 * SECOND)), 1_000));
}

/// Asks for what a context offers, and writes down what it gets.
#[derive(Debug, Default)]
struct Probe {
    completed: Vec<(u64, Duration)>,
    started: Duration,
    deadline: Option<Duration>,
    timers: u64,
}

impl Process for Probe {
    type Message = ();

    fn handle(&mut self, event: Event<()>, context: &mut Context<'_, ()>) {
        use lattice_journal::{Disk as _, OpenMode};
        match event {
            Event::Start => {
                self.started = context.now();
                context.complete_after(Duration::from_millis(50), 1);
                context.complete_after_disk(2);
                let path = format!("boot{}", context.boot());
                let file = context.disk().open(path.as_ref(), OpenMode::CreateNew).unwrap();
                file.write_at(b"here", 0).unwrap();
                file.sync_data().unwrap();
                context.complete_after_disk(3);
                context.trace(kind::EVENT, format_args!("boot {}", context.boot()));
                context.send(context.address(), ());
            }
            Event::Receive { from, .. } => {
                assert_eq!(from, context.address());
                self.completed.push((0, context.now() - self.started));
                self.deadline = Some(Duration::ZERO);
            }
            Event::Completed(token) => {
                self.completed.push((token, context.now() - self.started));
                if token == 1 {
                    context.stop("the probe has seen enough");
                    context.stop("and says so once");
                }
            }
            Event::Timer => self.timers += 1,
        }
    }

    fn deadline(&self) -> Option<Duration> {
        self.deadline.filter(|_| self.timers < 5)
    }
}

fn probe(seed: u64) -> World<Probe> {
    let mut options = WorldOptions::new(seed);
    options.clock.drift_ppm = 0;
    options.disk.latency.sync = Span::millis(7, 7);
    options.disk.latency.write = Span::millis(1, 1);
    options.disk.latency.stall = lattice_sim::Chance::NEVER;
    let mut world = World::new(options);
    world.add(Address(1), |_, boot| {
        assert_eq!(boot.address, Address(1));
        Probe::default()
    });
    world
}

#[test]
fn work_and_disk_complete_when_their_time_has_come() {
    let mut world = probe(1);
    world.run_until(Duration::from_millis(49));
    let probe = world.process(Address(1)).unwrap();
    let millis: Vec<(u64, u128)> =
        probe.completed.iter().map(|(token, after)| (*token, after.as_millis())).collect();
    // Creating, writing and syncing take 1 + 1 + 7 ms.
    assert!(millis == [(0, 0), (2, 0), (3, 9)] || millis == [(2, 0), (0, 0), (3, 9)], "{millis:?}");
    assert_eq!(probe.timers, 5, "a deadline in the past does not stop time");
}

#[test]
fn a_process_that_ends_itself_stays_down_until_it_is_restarted() {
    let mut world = probe(1);
    let steps: Vec<_> = std::iter::from_fn(|| world.step()).collect();
    let last = steps.last().unwrap();
    assert!(last.stopped && last.kind == StepKind::Completed(1));
    assert!(steps.iter().rev().skip(1).all(|step| !step.stopped));
    assert_eq!(world.stopped(Address(1)), Some("the probe has seen enough"));
    assert!(!world.is_up(Address(1)));
    world.restart(Address(1));
    world.run_for(Duration::from_millis(1));
    assert!(world.is_up(Address(1)) && world.stopped(Address(1)).is_none());
    assert_eq!(world.boot(Address(1)), 2);
}

#[test]
fn each_process_and_each_boot_has_a_random_stream_of_its_own() {
    use lattice_sim::random::Rng as _;
    #[derive(Debug)]
    struct Draws(u64, u64);
    impl Process for Draws {
        type Message = ();
        fn handle(&mut self, _: Event<()>, context: &mut Context<'_, ()>) {
            self.0 = context.rng().next_u64();
        }
        fn deadline(&self) -> Option<Duration> {
            None
        }
    }
    let mut draws = Vec::new();
    let mut world = World::new(WorldOptions::new(1));
    for address in 1..=3 {
        world.add(Address(address), |_, boot| Draws(0, boot.seed));
    }
    for _ in 0..3 {
        world.run_for(SECOND);
        draws.extend(world.processes().flat_map(|(_, process)| [process.0, process.1]));
        for address in 1..=3 {
            world.crash(Address(address));
            world.restart(Address(address));
        }
    }
    draws.sort_unstable();
    draws.dedup();
    assert_eq!(draws.len(), 18);
}

#[test]
fn chance_in_the_network_does_not_move_the_faults() {
    use lattice_sim::{Chance, FaultKind, Link, Nemesis, NemesisOptions, Swarm};
    let strikes = |loss| {
        let link = Link { loss, duplicate: loss, ..Link::default() };
        let mut world = world_of(WorldOptions { link, ..WorldOptions::new(5) });
        let swarm = Swarm::none().with(FaultKind::ClockJump, PERIOD * 20);
        let mut nemesis = Nemesis::new(5, swarm, NemesisOptions::new([SERVER]), SECOND);
        let mut times = Vec::new();
        while let Some(next) = nemesis.next_at().filter(|next| *next < 10 * SECOND) {
            world.run_until(next);
            nemesis.act(&mut world);
            times.push((next, world.clock(SERVER).local(next)));
        }
        (times, heard(&world).len())
    };
    let (quiet, lossy) = (strikes(Chance::NEVER), strikes(Chance::percent(20)));
    assert!(quiet.0.len() > 20);
    assert_eq!(quiet.0, lossy.0);
    assert_ne!(quiet.1, lossy.1);
}
