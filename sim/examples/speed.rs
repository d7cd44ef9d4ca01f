//! How many simple events a second a world takes: processes that send numbers to each other, and set a timer each time.
#![expect(clippy::print_stdout, reason = "an example prints what it measures")]
#![expect(clippy::disallowed_methods, reason = "it measures real time")]

use std::time::{Duration, Instant};

use lattice_sim::{Address, Context, Event, Process, World, WorldOptions};

const NODES: u64 = 5;
const EVENTS: u64 = 3_000_000;

struct Node {
    timeout: Option<Duration>,
}

impl Process for Node {
    type Message = u64;

    fn handle(&mut self, event: Event<u64>, context: &mut Context<'_, u64>) {
        let number = match event {
            Event::Receive { message, .. } => message,
            Event::Start | Event::Timer | Event::Completed(_) => 0,
        };
        let next = Address((context.address().0 + number) % NODES + 1);
        context.send(next, number + 1);
        self.timeout = Some(context.now() + Duration::from_millis(150));
    }

    fn deadline(&self) -> Option<Duration> {
        self.timeout
    }
}

fn main() {
    for hash_messages in [true, false] {
        let mut world = World::new(WorldOptions { hash_messages, ..WorldOptions::new(1) });
        for address in 1..=NODES {
            world.add(Address(address), |_, _| Node { timeout: None });
        }
        let begin = Instant::now();
        while world.steps() < EVENTS && world.step().is_some() {}
        let seconds = begin.elapsed().as_secs_f64();
        println!(
            "messages hashed: {hash_messages:5}  {:.2} M events/s  ({:.0} simulated seconds)",
            f64::from(u32::try_from(EVENTS).expect("three million")) / seconds / 1e6,
            world.now().as_secs_f64()
        );
    }
}
