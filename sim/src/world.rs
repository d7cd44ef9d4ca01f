//! The world: processes, their nodes, and one queue of what is going to happen.
//!
//! [`World::step`] takes the next item from the queue, moves time to it, lets the process handle it and carries out
//! what it asks for. Nothing else happens, so a run is a function of its seed: items are ordered by time, then by a
//! seeded draw, then by age, and every map is ordered too.

mod node;
mod queue;

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::time::Duration;

use lattice_trace::{Cause, kind};

use crate::clock::{Clock, ClockMut};
use crate::disk::{DiskLatency, DiskOptions, SimDisk};
use crate::network::{Departure, Link, Network};
use crate::process::{Address, Context, Event, Process, Requests};
use crate::random::{Span, between, stream};
use crate::recorder::{Origin, Recorder, TraceKeep};
use crate::world::node::{Node, Ring};
use crate::world::queue::{Item, ItemKind, Queue};

pub use crate::world::node::Factory;

/// What a world is like.
#[derive(Clone, Copy, Debug)]
pub struct WorldOptions {
    /// Everything that is left to chance follows from it.
    pub seed: u64,
    /// What links are like where nothing else is said.
    pub link: Link,
    /// What disks are like.
    pub disk: DiskOptions,
    /// What clocks are like.
    pub clock: ClockOptions,
    /// How much of the trace is kept.
    pub keep: TraceKeep,
    /// Whether the content of messages counts for the hash. It costs a `Debug` of each, and finds a difference between
    /// two runs at the message that first differs instead of at its first consequence.
    pub hash_messages: bool,
}

impl WorldOptions {
    /// A quiet world: a local network, solid-state disks, good clocks, no trace.
    pub fn new(seed: u64) -> Self {
        let disk = DiskOptions { latency: DiskLatency::ssd(), ..DiskOptions::default() };
        Self {
            seed,
            link: Link::default(),
            disk,
            clock: ClockOptions::default(),
            keep: TraceKeep::Nothing,
            hash_messages: true,
        }
    }
}

/// What the clocks of the nodes are like; each draws its own.
#[derive(Clone, Copy, Debug)]
pub struct ClockOptions {
    /// What a monotonic clock shows at the world's beginning.
    pub offset: Span,
    /// How far a wall clock is ahead of the truth.
    pub skew: Span,
    /// How fast or slow a clock is at most, in millionths.
    pub drift_ppm: u32,
}

impl Default for ClockOptions {
    /// Up to a quarter of an hour since the epoch, 20 ms of skew, 50 millionths of drift.
    fn default() -> Self {
        Self { offset: Span::millis(0, 1_000_000), skew: Span::millis(0, 20), drift_ppm: 50 }
    }
}

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
    /// Events of the world itself, which is node 0 in the trace.
    seq: u64,
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
            seq: 0,
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

    /// The machine at an address loses power: its process is gone, and of its disk what [`SimDisk::crash`] takes.
    pub fn crash(&mut self, address: Address) {
        self.end(address, "crash", SimDisk::crash);
    }

    /// The process at an address is killed; its machine, and so what it has written, stays: [`SimDisk::kill`].
    pub fn kill(&mut self, address: Address) {
        self.end(address, "kill", SimDisk::kill);
    }

    fn end(&mut self, address: Address, what: &str, harm: impl FnOnce(&SimDisk)) {
        self.note_fault(address, what);
        let now = self.now;
        let node = self.node_mut(address);
        node.end();
        node.disk.set_now(now);
        harm(&node.disk);
    }

    /// Starts the process at an address now, unless it is up. A start that was to come later comes now instead.
    pub fn restart(&mut self, address: Address) {
        self.node_mut(address).start = None;
        self.restart_after(address, Duration::ZERO);
    }

    /// Starts the process at an address after a while, unless it is up or about to be.
    pub fn restart_after(&mut self, address: Address, delay: Duration) {
        let at = self.now + delay;
        let node = self.node_mut(address);
        if node.process.is_none() && node.start.is_none() {
            let id = node.new_id();
            node.start = Some(id);
            let item = node.item(ItemKind::Start { id });
            self.queue.push(at, item);
        }
    }

    /// Stops the process at an address for a while, as SIGSTOP does: what happens to it waits, and its clock goes on.
    /// A pause during a pause can only make it longer.
    pub fn pause(&mut self, address: Address, length: Duration) {
        self.note_fault(address, "pause");
        let until = self.now + length;
        let node = self.node_mut(address);
        if node.process.is_none() || (node.pause.is_some() && node.paused_until >= until) {
            return;
        }
        let id = node.new_id();
        node.pause = Some(id);
        node.paused_until = until;
        let item = node.item(ItemKind::Resume { id });
        self.queue.push(until, item);
    }

    /// Ends a pause now.
    pub fn resume(&mut self, address: Address) {
        let node = self.node_mut(address);
        let id = node.pause.unwrap_or_default();
        self.end_pause(address, id);
    }

    /// Puts a message on its way from one address to another, as if a process had sent it.
    pub fn send(&mut self, from: Address, to: Address, message: P::Message) {
        self.depart(from, to, message, Cause::NONE);
    }

    /// Notes a fault in the trace and in the hash. The methods that end or pause a process do so themselves.
    pub fn note_fault(&mut self, address: Address, what: impl fmt::Display) {
        let detail = format_args!("{what}");
        let (now, recorder) = (self.now, &mut self.recorder);
        match self.nodes.get_mut(&address) {
            Some(node) => {
                recorder.note(node.origin(now), Cause::NONE, kind::FAULT, &[], detail);
            }
            None => {
                let clock = Clock::new(Duration::ZERO, 0, Duration::ZERO);
                let origin =
                    Origin { address: Address(0), at: now, clock: &clock, seq: &mut self.seq };
                recorder.note(origin, Cause::NONE, kind::FAULT, &[], detail);
            }
        }
    }

    /// The hash of everything that has happened.
    pub fn hash(&self) -> u128 {
        self.recorder.hash()
    }

    /// Writes what was kept of the trace as JSON lines.
    ///
    /// # Errors
    /// Those of the output.
    pub fn write_trace(&self, output: impl io::Write) -> io::Result<()> {
        self.recorder.write(output)
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
        let Some(node) = self.nodes.get_mut(&address) else {
            self.drop_item(item, "nobody");
            return None;
        };
        if node.pause.is_some() && !matches!(item.kind, ItemKind::Resume { .. }) {
            node.backlog.push_back(item);
            return None;
        }
        match item.kind {
            ItemKind::Start { id } => (node.start == Some(id)).then(|| self.start(address)),
            ItemKind::Resume { id } => {
                self.end_pause(address, id);
                None
            }
            ItemKind::Timer { id } => match node.ring(id, now) {
                Ring::Stale => None,
                Ring::Later(at, item) => {
                    self.queue.push(at, item);
                    None
                }
                Ring::Now => {
                    let cause = Cause { node: address.0, seq: node.seq };
                    Some(self.handle(address, Event::Timer, StepKind::Timer, cause))
                }
            },
            ItemKind::Completed { boot, token, cause } => {
                (node.process.is_some() && node.boot == boot).then(|| {
                    let kind = StepKind::Completed(token);
                    self.handle(address, Event::Completed(token), kind, cause)
                })
            }
            ItemKind::Deliver { from, message, cause } => {
                let up = node.process.is_some();
                if self.network.is_cut(from, address) || !up {
                    let why = if up { "cut" } else { "down" };
                    let kind = ItemKind::Deliver { from, message, cause };
                    self.drop_item(Item { to: address, kind }, why);
                    return None;
                }
                self.network.counts.delivered += 1;
                let event = Event::Receive { from, message };
                Some(self.handle(address, event, StepKind::Received { from }, cause))
            }
        }
    }

    fn start(&mut self, address: Address) -> Step {
        let (now, seed) = (self.now, self.options.seed);
        let node = self.node_mut(address);
        node.start = None;
        node.disk.set_now(now);
        node.make(seed, now);
        self.handle(address, Event::Start, StepKind::Started, Cause::NONE)
    }

    fn end_pause(&mut self, address: Address, id: u64) {
        let node = self.nodes.get_mut(&address).expect("a pause has a node");
        if node.pause == Some(id) {
            node.pause = None;
            // In the order in which it happened, before anything else that happens now.
            for item in node.backlog.drain(..) {
                self.queue.push_first(self.now, item);
            }
        }
    }

    fn drop_item(&mut self, item: Item<P::Message>, why: &str) {
        let ItemKind::Deliver { from, message, cause } = item.kind else {
            return;
        };
        match why {
            "cut" => self.network.counts.cut += 1,
            _ => self.network.counts.unheard += 1,
        }
        self.note_dropped(from, item.to, &message, cause, why);
    }

    fn note_dropped(
        &mut self,
        from: Address,
        to: Address,
        message: &P::Message,
        cause: Cause,
        why: &str,
    ) {
        let clock = Clock::new(Duration::ZERO, 0, Duration::ZERO);
        let world = Origin { address: Address(0), at: self.now, clock: &clock, seq: &mut self.seq };
        let origin = match self.nodes.get_mut(&from) {
            Some(node) => node.origin(self.now),
            None => world,
        };
        let numbers = [("to", to.0)];
        let detail = format_args!("{why}: {message:?}");
        self.recorder.note_message(origin, cause, kind::MESSAGE_DROPPED, &numbers, detail);
    }

    /// Lets a process handle an event, and carries out what it asks for.
    fn handle(
        &mut self,
        address: Address,
        event: Event<P::Message>,
        step: StepKind,
        cause: Cause,
    ) -> Step {
        let at = self.now;
        let Self { nodes, recorder, requests, .. } = self;
        let node = nodes.get_mut(&address).expect("only nodes get events");
        node.disk.set_now(at);
        let seq = note_event(recorder, node.origin(at), &event, cause);
        let mut context = Context {
            address,
            boot: node.boot,
            at,
            clock: &node.clock,
            rng: &mut node.rng,
            disk: &node.disk,
            seq: &mut node.seq,
            cause: seq,
            recorder,
            requests,
        };
        node.process.as_mut().expect("only who is up gets events").handle(event, &mut context);
        let stopped = self.carry_out(address, Cause { node: address.0, seq });
        if !stopped {
            self.arm(address);
        }
        Step { at, address, kind: step, stopped }
    }

    /// Carries out what a process asked for; answers whether it ended itself.
    fn carry_out(&mut self, address: Address, cause: Cause) -> bool {
        let mut requests = std::mem::take(&mut self.requests);
        for (to, message) in requests.messages.drain(..) {
            self.depart(address, to, message, cause);
        }
        let boot = self.node(address).boot;
        for (delay, token) in requests.completions.drain(..) {
            let kind = ItemKind::Completed { boot, token, cause };
            self.queue.push(self.now + delay, Item { to: address, kind });
        }
        let stop = requests.stop.take();
        // The vectors keep their room for the next event.
        self.requests = requests;
        let Some(reason) = stop else {
            return false;
        };
        let (now, recorder) = (self.now, &mut self.recorder);
        let node = self.nodes.get_mut(&address).expect("it has just handled an event");
        let detail = format_args!("stopped: {reason}");
        recorder.note(node.origin(now), cause, kind::PROCESS, &[], detail);
        node.end();
        node.disk.kill();
        node.stopped = Some(reason);
        true
    }

    fn depart(&mut self, from: Address, to: Address, message: P::Message, cause: Cause) {
        match self.network.depart(self.now, from, to) {
            Departure::Cut => self.note_dropped(from, to, &message, cause, "cut"),
            Departure::Lost => self.note_dropped(from, to, &message, cause, "lost"),
            Departure::Arrives(first, copy) => {
                let cause = match self.nodes.get_mut(&from) {
                    Some(node) => {
                        let numbers = [("to", to.0)];
                        let detail = format_args!("{message:?}");
                        let origin = node.origin(self.now);
                        let kind = kind::MESSAGE_SENT;
                        let seq = self.recorder.note_message(origin, cause, kind, &numbers, detail);
                        Cause { node: from.0, seq }
                    }
                    None => cause,
                };
                if let Some(copy) = copy {
                    let kind = ItemKind::Deliver { from, message: message.clone(), cause };
                    self.queue.push(copy, Item { to, kind });
                }
                self.queue
                    .push(first, Item { to, kind: ItemKind::Deliver { from, message, cause } });
            }
        }
    }
}

/// Notes that a process is about to handle an event.
fn note_event<M: fmt::Debug>(
    recorder: &mut Recorder,
    origin: Origin<'_>,
    event: &Event<M>,
    cause: Cause,
) -> u64 {
    match event {
        Event::Start => recorder.note(origin, cause, kind::PROCESS, &[], format_args!("start")),
        Event::Timer => recorder.note(origin, cause, kind::PROCESS, &[], format_args!("timer")),
        Event::Completed(token) => {
            let numbers = [("token", *token)];
            recorder.note(origin, cause, kind::PROCESS, &numbers, format_args!("completed"))
        }
        // Its content was hashed when it was sent.
        Event::Receive { from, message } => {
            let numbers = [("from", from.0)];
            let detail = format_args!("{message:?}");
            recorder.note_received(origin, cause, &numbers, detail)
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
