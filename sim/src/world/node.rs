//! One address of a world: its process if it is up, and what outlives it.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::time::Duration;

use crate::clock::Clock;
use crate::disk::SimDisk;
use crate::process::{Address, Boot, Process};
use crate::random::{ChaCha8Rng, stream};
use crate::recorder::Origin;
use crate::world::queue::{Item, ItemKind};

/// Makes the process of a node at each of its starts, from what its disk holds. It cannot fail: a process that finds its
/// disk unusable keeps that in mind and ends itself on [`Event::Start`](crate::Event::Start).
pub type Factory<P> = Box<dyn FnMut(&SimDisk, Boot) -> P>;

/// The least time between two timers of a node, so that one that asks for the past does not stop the world.
const TIMER_GAP: Duration = Duration::from_micros(1);

pub(super) struct Node<P: Process> {
    pub(super) address: Address,
    pub(super) process: Option<P>,
    pub(super) disk: SimDisk,
    pub(super) clock: Clock,
    pub(super) rng: ChaCha8Rng,
    pub(super) boot: u64,
    /// How many events the trace has of this node.
    pub(super) seq: u64,
    /// Why the process ended itself, until it is started again.
    pub(super) stopped: Option<String>,
    /// The start that is awaited.
    pub(super) start: Option<u64>,
    /// Since when everything waits, as the number of the pause.
    pub(super) pause: Option<u64>,
    pub(super) paused_until: Duration,
    /// What happened during the pause.
    pub(super) backlog: VecDeque<Item<P::Message>>,
    factory: Factory<P>,
    /// When the process wants its timer, in the world's time.
    wanted: Option<Duration>,
    /// The timer in the queue, which is never later than what is wanted: (when, number).
    timer: Option<(Duration, u64)>,
    last_timer: Option<Duration>,
    /// The last number given to a start, a pause or a timer.
    last_id: u64,
}

impl<P: Process> Node<P> {
    pub(super) fn new(address: Address, disk: SimDisk, clock: Clock, factory: Factory<P>) -> Self {
        Self {
            address,
            process: None,
            disk,
            clock,
            rng: stream(0, "process", 0),
            boot: 0,
            seq: 0,
            stopped: None,
            start: None,
            pause: None,
            paused_until: Duration::ZERO,
            backlog: VecDeque::new(),
            factory,
            wanted: None,
            timer: None,
            last_timer: None,
            last_id: 0,
        }
    }

    pub(super) fn new_id(&mut self) -> u64 {
        self.last_id += 1;
        self.last_id
    }

    pub(super) fn item(&self, kind: ItemKind<P::Message>) -> Item<P::Message> {
        Item { to: self.address, kind }
    }

    pub(super) fn origin(&mut self, at: Duration) -> Origin<'_> {
        Origin { address: self.address, at, clock: &self.clock, seq: &mut self.seq }
    }

    /// Makes the process from what the disk holds.
    pub(super) fn make(&mut self, seed: u64, at: Duration) {
        use crate::random::Rng as _;
        self.boot += 1;
        self.stopped = None;
        self.rng = stream(seed ^ self.boot.rotate_left(32), "process", self.address.0);
        let boot = Boot {
            address: self.address,
            boot: self.boot,
            seed: self.rng.next_u64(),
            now: self.clock.local(at),
        };
        self.process = Some((self.factory)(&self.disk, boot));
    }

    /// Drops the process and everything that waits for it.
    pub(super) fn end(&mut self) {
        self.process = None;
        self.start = None;
        self.pause = None;
        self.backlog.clear();
        self.wanted = None;
        self.timer = None;
        self.last_timer = None;
    }

    /// Asks the process for its deadline; answers a timer to queue, if the one that is queued would be too late.
    pub(super) fn arm(&mut self, now: Duration) -> Option<(Duration, Item<P::Message>)> {
        let deadline = self.process.as_ref()?.deadline();
        self.wanted = deadline.map(|local| {
            let earliest = self.last_timer.map_or(now, |last| now.max(last + TIMER_GAP));
            self.clock.when(local, earliest)
        });
        let wanted = self.wanted?;
        if self.timer.is_some_and(|(queued, _)| queued <= wanted) {
            return None;
        }
        Some(self.queue_timer(wanted))
    }

    fn queue_timer(&mut self, at: Duration) -> (Duration, Item<P::Message>) {
        let id = self.new_id();
        self.timer = Some((at, id));
        (at, self.item(ItemKind::Timer { id }))
    }

    /// A timer has come up.
    pub(super) fn ring(&mut self, id: u64, now: Duration) -> Ring<P::Message> {
        if self.timer.is_none_or(|(_, current)| current != id) {
            return Ring::Stale;
        }
        self.timer = None;
        match self.wanted {
            None => Ring::Stale,
            Some(wanted) if wanted > now => {
                let (at, item) = self.queue_timer(wanted);
                Ring::Later(at, item)
            }
            Some(_) => {
                self.last_timer = Some(now);
                Ring::Now
            }
        }
    }
}

/// Who notes something at an address: the node there, or the world itself where nobody lives.
pub(super) fn origin_of<'a, P: Process>(
    nodes: &'a mut BTreeMap<Address, Node<P>>,
    address: Address,
    at: Duration,
    world_clock: &'a Clock,
    world_seq: &'a mut u64,
) -> Origin<'a> {
    match nodes.get_mut(&address) {
        Some(node) => node.origin(at),
        None => Origin { address: Address(0), at, clock: world_clock, seq: world_seq },
    }
}

/// What a timer that has come up means.
pub(super) enum Ring<M> {
    /// Nothing: another one has replaced it.
    Stale,
    /// The deadline has moved on, and so does the timer.
    Later(Duration, Item<M>),
    /// The deadline has come.
    Now,
}

impl<P: Process> fmt::Debug for Node<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Node")
            .field("boot", &self.boot)
            .field("up", &self.process.is_some())
            .field("stopped", &self.stopped)
            .finish_non_exhaustive()
    }
}
