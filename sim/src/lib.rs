//! A deterministic simulator for distributed systems: a world in a value.
//!
//! Distributed systems fail in ways that no test on a desk provokes: a vote that was given and forgotten in a power
//! cut, a message that arrives after its sender has been replaced, a clock that stood still while a lease ran out. This
//! crate runs processes in a world that does such things all the time, does them thousands of times faster than real
//! time, and does them again in exactly the same way when it is told the same seed.
//!
//! # Processes
//!
//! What runs in a world is a [`Process`]: a state machine that is told events and asks for effects. It has no clock, no
//! socket, no thread and no random source but those that its [`Context`] shows it. Code that is written in that way
//! (sans-IO) runs unchanged under a production driver and in here.
//!
//! ```
//! use std::time::Duration;
//! use lattice_sim::{Address, Context, Event, Process, World, WorldOptions};
//!
//! const PERIOD: Duration = Duration::from_millis(10);
//!
//! /// Tells its neighbour how often it was woken, and remembers what it was told.
//! #[derive(Default)]
//! struct Node {
//!     wakes: u64,
//!     heard: u64,
//!     next: Option<Duration>,
//! }
//!
//! impl Process for Node {
//!     type Message = u64;
//!
//!     fn handle(&mut self, event: Event<u64>, context: &mut Context<'_, u64>) {
//!         match event {
//!             Event::Receive { message, .. } => self.heard = message,
//!             Event::Start | Event::Timer => {
//!                 self.wakes += 1;
//!                 self.next = Some(context.now() + PERIOD);
//!                 context.send(Address(3 - context.address().0), self.wakes);
//!             }
//!             Event::Completed(_) => {}
//!         }
//!     }
//!
//!     fn deadline(&self) -> Option<Duration> {
//!         self.next
//!     }
//! }
//!
//! let run = |seed| {
//!     let (one, two) = (Address(1), Address(2));
//!     let mut world = World::new(WorldOptions::new(seed));
//!     world.add(one, |_disk, _boot| Node::default());
//!     world.add(two, |_disk, _boot| Node::default());
//!     world.run_until(Duration::from_secs(1));
//!     world.network_mut().cut(one, two); // Two hears nothing, and one hears everything.
//!     world.run_until(Duration::from_secs(2));
//!     let heard = |address| world.process(address).map(|node| node.heard);
//!     (heard(one), heard(two), world.hash())
//! };
//!
//! let (one, two, hash) = run(7);
//! assert!(one > Some(190) && two < Some(110));
//! assert_eq!(run(7).2, hash, "the same seed is the same run");
//! assert_ne!(run(8).2, hash);
//! ```
//!
//! # What the world does
//!
//! - **Time** ([`clock`]) is a number that only the world knows. Each node has a monotonic and a wall clock of its own,
//!   which drift, jump and freeze. A process can be paused as by SIGSTOP: its clock goes on, and everything waits.
//! - **The network** ([`network`]) is a directed link for every pair. Links delay, lose, duplicate and reorder, and can be
//!   cut one way or both ways.
//! - **The disk** ([`disk`]) implements the journal's [`Disk`](lattice_journal::Disk). A crash at any moment takes
//!   un-synced writes and names, whole, torn or out of order. It can be used by itself, without a world.
//! - **Faults** ([`fault`]) strike as a [`Swarm`] says, which is drawn from the seed, or by hand, one line in a test.
//! - **A run** ([`mod@run`]) strikes, heals, and then demands progress and agreement. What must always hold is checked
//!   after every single event, over all nodes at once, which no real cluster can do.
//! - **A campaign** ([`campaign`]) adds up as many runs as one has patience for, and knows what none of them has met ([`Marker`]).
//! - **Shrinking** ([`mod@shrink`]) makes a failing run as small as it can: fewer kinds of faults, fewer faults, fewer operations, less
//!   time. What is left is a file, and running it fails in the same way.
//!
//! # Why the same seed is the same run
//!
//! All events of a world stand in one queue, ordered by time, then by a draw, then by age. Every subsystem draws from a
//! random stream of its own ([`random::stream`]), so that one draw more in the network does not move the faults. No map
//! has a random order and nothing asks the machine for anything. The proof is the hash ([`World::hash`]), into which
//! every event is folded: two runs agree in it or are not the same run. A run that fails prints its seed; the seed is
//! the bug report.
//!
//! # What it does not show
//!
//! A process handles an event in no time at all, so races inside one are not found here: there is nothing to race with.
//! A frame that was damaged on its way is taken to be dropped: that a transport's checksums find it is theirs to show. What
//! is only wrong in the production driver (a dropped connection, a blocked thread) needs tests with real processes.

pub mod campaign;
pub mod check;
pub mod clock;
pub mod disk;
pub mod fault;
mod marker;
pub mod network;
pub mod process;
pub mod random;
mod recorder;
pub mod run;
pub mod shrink;
pub mod world;

pub use campaign::{Campaign, fan_out};
pub use clock::{Clock, ClockMut};
pub use disk::{DiskCounts, DiskLatency, DiskOptions, SimDisk, Survival};
pub use fault::{Fault, FaultKind, Nemesis, NemesisOptions, Schedule, Swarm, Target, draw_sector};
pub use marker::{Marker, Markers};
pub use network::{Link, Network, NetworkCounts};
pub use process::{Address, Boot, Context, Event, Process};
pub use random::{ChaCha8Rng, Chance, Span};
pub use recorder::TraceKeep;
pub use run::{Demand, Faults, Phase, Report, RunOptions, Scenario, Violation, run};
pub use shrink::{Kept, Plan, Shrunk, shrink};
pub use world::{ClockOptions, Factory, Step, StepKind, World, WorldOptions};
