//! The world: processes, their nodes, and one queue of what is going to happen.
//!
//! [`World::step`] takes the next item from the queue, moves time to it, lets the process handle it and carries out
//! what it asks for. Nothing else happens, so a run is a function of its seed: items are ordered by time, then by a
//! seeded draw, then by age, and every map is ordered too.

mod control;
mod delivery;
mod handling;
mod node;
mod options;
mod queue;

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::time::Duration;

use lattice_trace::Cause;

use crate::clock::{Clock, ClockMut};
use crate::disk::SimDisk;
use crate::marker::Markers;
use crate::network::Network;
use crate::process::{Address, Event, Process, Requests};
use crate::random::{between, stream};
use crate::recorder::{Record, Recorder};
use crate::world::node::{Node, Ring};
use crate::world::queue::{Item, ItemKind, Queue};

pub use crate::world::node::Factory;
pub use crate::world::options::{ClockOptions, WorldOptions};

/// One event that a process has handled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Step {
    /// The world's time.
    pub at: Duration,
    /// Who handled it.
    pub address: Address,
    /// What it was.
    pub kind: StepKind,
    /// Whether the process ended itself over it: see [`World::stopped`].
    pub stopped: bool,
}

/// The kind of an event that a process has handled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StepKind {
    /// It was started.
    Started,
    /// A message arrived.
    Received {
        /// Its sender.
        from: Address,
    },
    /// Its deadline came.
    Timer,
    /// Something that it had asked for ended.
    Completed(u64),
}

/// A world of processes.
pub struct World<P: Process> {
    options: WorldOptions,
    now: Duration,
    nodes: BTreeMap<Address, Node<P>>,
    network: Network,
    queue: Queue<P::Message>,
    recorder: Recorder,
    /// The world itself is node 0 in the trace: this is its clock, and the number of its events.
    world_clock: Clock,
    world_seq: u64,
    steps: u64,
    /// Nodes whose clock was changed, so that their timers have to be set anew.
    touched: Vec<Address>,
    requests: Requests<P::Message>,
}

impl<P: Process> World<P> {
    /// An empty world.
    pub fn new(options: WorldOptions) -> Self {
        Self {
            options,
            now: Duration::ZERO,
            nodes: BTreeMap::new(),
            network: Network::new(options.link, stream(options.seed, "network", 0)),
            queue: Queue::new(stream(options.seed, "scheduler", 0)),
            recorder: Recorder::new(options.keep, options.hash_messages),
            world_clock: Clock::new(Duration::ZERO, 0, Duration::ZERO),
            world_seq: 0,
            steps: 0,
            touched: Vec::new(),
            requests: Requests::default(),
        }
    }

    /// Adds a node or a client and starts it now. `factory` makes its process at this start and at every later one.
    ///
    /// # Panics
    /// If the address is taken, or is 0, which stands for the world itself in the trace.
    pub fn add(
        &mut self,
        address: Address,
        factory: impl FnMut(&SimDisk, crate::Boot) -> P + 'static,
    ) {
        assert_ne!(address, Address(0), "address 0 is the world's own");
        let options = &self.options;
        let mut rng = stream(options.seed, "clock", address.0);
        let offset = options.clock.offset.draw(&mut rng);
        let skew = options.clock.skew.draw(&mut rng);
        let drift = between(&mut rng, 0, u64::from(options.clock.drift_ppm) * 2);
        let drift = i32::try_from(drift).unwrap_or(i32::MAX);
        let drift =
            drift.saturating_sub(i32::try_from(options.clock.drift_ppm).unwrap_or(i32::MAX));
        let disk = SimDisk::numbered(options.seed, address.0, options.disk);
        let node = Node::new(address, disk, Clock::new(offset, drift, skew), Box::new(factory));
        assert!(self.nodes.insert(address, node).is_none(), "the address {address} is taken");
        self.network.add(address);
        self.restart(address);
    }

    /// Takes one event; `None` when nothing is going to happen any more.
    pub fn step(&mut self) -> Option<Step> {
        self.step_until(Duration::MAX)
    }

    /// Takes one event that happens at `limit` or before. With `None`, all of those have happened, and time is where
    /// the last one left it.
    pub fn step_until(&mut self, limit: Duration) -> Option<Step> {
        loop {
            while let Some(address) = self.touched.pop() {
                self.arm(address);
            }
            if self.queue.next_at()? > limit {
                return None;
            }
            let (at, item) = self.queue.pop()?;
            self.now = at;
            if let Some(step) = self.take(item) {
                self.steps += 1;
                return Some(step);
            }
        }
    }

    /// Lets everything happen that happens at `limit` or before, and moves time there.
    pub fn run_until(&mut self, limit: Duration) {
        while self.step_until(limit).is_some() {}
        self.advance(limit);
    }

    /// Lets everything happen for so long.
    pub fn run_for(&mut self, length: Duration) {
        self.run_until(self.now + length);
    }

    /// Moves time forward over a stretch in which nothing happens.
    ///
    /// # Panics
    /// If something happens before.
    pub fn advance(&mut self, to: Duration) {
        assert!(self.queue.next_at().is_none_or(|next| next >= to), "time would pass an event");
        self.now = self.now.max(to);
    }

    /// The world's time, which starts at zero.
    pub fn now(&self) -> Duration {
        self.now
    }

    /// When the next thing happens.
    pub fn next_at(&self) -> Option<Duration> {
        self.queue.next_at()
    }

    /// How many events processes have handled.
    pub fn steps(&self) -> u64 {
        self.steps
    }

    /// What the world was made from.
    pub fn options(&self) -> &WorldOptions {
        &self.options
    }

    /// All addresses, in order.
    pub fn addresses(&self) -> impl Iterator<Item = Address> {
        self.nodes.keys().copied()
    }

    /// The process at an address, if it is up.
    pub fn process(&self, address: Address) -> Option<&P> {
        self.nodes.get(&address)?.process.as_ref()
    }

    /// The process at an address, if it is up. Its deadline is looked at again afterwards.
    pub fn process_mut(&mut self, address: Address) -> Option<&mut P> {
        let node = self.nodes.get_mut(&address)?;
        self.touched.push(address);
        node.process.as_mut()
    }

    /// The processes that are up, in the order of their addresses.
    pub fn processes(&self) -> impl Iterator<Item = (Address, &P)> {
        self.nodes.values().filter_map(|node| Some((node.address, node.process.as_ref()?)))
    }

    /// Whether a process is up, paused or not.
    pub fn is_up(&self, address: Address) -> bool {
        self.process(address).is_some()
    }

    /// Whether a process is paused.
    pub fn is_paused(&self, address: Address) -> bool {
        self.nodes.get(&address).is_some_and(|node| node.pause.is_some())
    }

    /// Whether a process is going to be started.
    pub fn is_starting(&self, address: Address) -> bool {
        self.nodes.get(&address).is_some_and(|node| node.start.is_some())
    }

    /// Why a process ended itself, until it is started again.
    pub fn stopped(&self, address: Address) -> Option<&str> {
        self.nodes.get(&address)?.stopped.as_deref()
    }

    /// How many times a process was started at an address.
    pub fn boot(&self, address: Address) -> u64 {
        self.node(address).boot
    }

    /// The disk at an address.
    pub fn disk(&self, address: Address) -> &SimDisk {
        &self.node(address).disk
    }

    /// The clock at an address.
    pub fn clock(&self, address: Address) -> &Clock {
        &self.node(address).clock
    }

    /// The clock at an address, to change it now. Timers follow it.
    pub fn clock_mut(&mut self, address: Address) -> ClockMut<'_> {
        self.touched.push(address);
        let at = self.now;
        ClockMut { clock: &mut self.node_mut(address).clock, at }
    }

    /// The network.
    pub fn network(&self) -> &Network {
        &self.network
    }

    /// The network, to change it now.
    pub fn network_mut(&mut self) -> &mut Network {
        &mut self.network
    }

    /// The hash of everything that has happened.
    pub fn hash(&self) -> u128 {
        self.recorder.hash()
    }

    /// What was met that must be met sometimes.
    pub fn markers(&self) -> &Markers {
        &self.recorder.markers
    }

    /// Notes that something happened that a campaign must have met sometimes.
    pub fn mark(&mut self, name: &'static str) {
        self.recorder.markers.hit(name);
    }

    /// Writes what was kept of the trace as JSON lines.
    ///
    /// # Errors
    /// Those of the output.
    pub fn write_trace(&self, output: impl io::Write) -> io::Result<()> {
        self.recorder.write(output)
    }

    /// What was kept of the trace.
    pub(crate) fn records(&self) -> impl Iterator<Item = &Record> {
        self.recorder.records()
    }

    fn node(&self, address: Address) -> &Node<P> {
        self.nodes.get(&address).unwrap_or_else(|| panic!("nobody lives at {address}"))
    }

    fn node_mut(&mut self, address: Address) -> &mut Node<P> {
        self.nodes.get_mut(&address).unwrap_or_else(|| panic!("nobody lives at {address}"))
    }

    /// Sets the timer of a node if it has to ring earlier than it would.
    fn arm(&mut self, address: Address) {
        let now = self.now;
        if let Some((at, item)) = self.node_mut(address).arm(now) {
            self.queue.push(at, item);
        }
    }

    /// Carries out one item of the queue; answers the step if a process handled it.
    fn take(&mut self, item: Item<P::Message>) -> Option<Step> {
        let (now, address) = (self.now, item.to);
        let waits = !matches!(item.kind, ItemKind::Resume { .. });
        if let Some(node) = self.nodes.get_mut(&address).filter(|_| waits)
            && node.pause.is_some()
        {
            node.backlog.push_back(item);
            return None;
        }
        match item.kind {
            ItemKind::Deliver { from, message, cause } => {
                self.arrive(from, address, message, cause)
            }
            ItemKind::Start { id } => {
                (self.node(address).start == Some(id)).then(|| self.start(address))
            }
            ItemKind::Timer { id } => match self.node_mut(address).ring(id, now) {
                Ring::Stale => None,
                Ring::Later(at, item) => {
                    self.queue.push(at, item);
                    None
                }
                Ring::Now => {
                    let cause = Cause { node: address.0, seq: self.node(address).seq };
                    Some(self.handle(address, Event::Timer, StepKind::Timer, cause))
                }
            },
            ItemKind::Completed { boot, token, cause } => {
                let node = self.node(address);
                (node.process.is_some() && node.boot == boot).then(|| {
                    let kind = StepKind::Completed(token);
                    self.handle(address, Event::Completed(token), kind, cause)
                })
            }
            ItemKind::Resume { id } => {
                self.end_pause(address, id);
                None
            }
        }
    }
}

impl<P: Process> fmt::Debug for World<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("World")
            .field("seed", &self.options.seed)
            .field("now", &self.now)
            .field("nodes", &self.nodes)
            .field("network", &self.network)
            .finish_non_exhaustive()
    }
}
