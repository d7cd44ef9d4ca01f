//! The network: a directed link from each process to each other one.
//!
//! A link keeps the order of its messages, as a connection does, except for those that it reorders on purpose. It
//! delays each by a draw between two bounds, and may lose, duplicate or cut. Cuts are directed too, so a partition can
//! be one-sided. A message that is on its way when its link is cut is lost. A message to oneself passes no link.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::process::Address;
use crate::random::{ChaCha8Rng, Chance, Rng, Span, nanos};

/// How a directed link treats messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Link {
    /// How long a message is on its way.
    pub delay: Span,
    /// How often a message is lost.
    pub loss: Chance,
    /// How often a message arrives twice, the second time after a delay of its own.
    pub duplicate: Chance,
    /// How often a message leaves the order, so that others can overtake it or be overtaken by it,
    pub reorder: Chance,
    /// and how much later it then is.
    pub reordered: Span,
    /// How often a frame is damaged on its way. If its receiver finds that out, as it should ([`Process::damaged`]), it is lost, and so is
    /// what is sent until the connection that carried it stands again.
    ///
    /// [`Process::damaged`]: crate::Process::damaged
    pub corrupt: Chance,
}

impl Default for Link {
    /// A quiet local network: 100 µs to 2 ms, nothing lost.
    fn default() -> Self {
        Self {
            delay: Span::micros(100, 2_000),
            loss: Chance::NEVER,
            duplicate: Chance::NEVER,
            reorder: Chance::NEVER,
            reordered: Span::millis(1, 20),
            corrupt: Chance::NEVER,
        }
    }
}

/// What the network has done so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NetworkCounts {
    /// Messages that were sent.
    pub sent: u64,
    /// Messages that arrived, copies included.
    pub delivered: u64,
    /// Messages that were lost by chance.
    pub lost: u64,
    /// Messages that met a cut.
    pub cut: u64,
    /// Messages that arrived where no process was up.
    pub unheard: u64,
    /// Messages that were duplicated.
    pub duplicated: u64,
    /// Messages that left the order.
    pub reordered: u64,
    /// Messages that were damaged, and so dropped unless nobody noticed.
    pub corrupted: u64,
    /// Messages that were lost with the connection of a damaged one.
    pub reset: u64,
}

/// Why a message did not leave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Departure {
    /// It arrives at this time, and a copy perhaps at another.
    Arrives(Duration, Option<Duration>),
    Lost,
    Cut,
    /// Damaged in a place that this number draws; what is made of it is made at this time.
    Corrupt(Duration, u64),
    Reset,
}

#[derive(Debug, Default)]
struct LinkState {
    own: Option<Link>,
    last_arrival: u64,
    /// Until when a connection is made anew after a damaged frame.
    down_until: u64,
}

/// All the links of a world.
#[derive(Debug)]
pub struct Network {
    /// What heals go back to.
    base: Link,
    /// What links without conditions of their own are like.
    present: Link,
    links: BTreeMap<(Address, Address), LinkState>,
    /// Links that partitions have cut,
    cuts: BTreeSet<(Address, Address)>,
    /// and those of connections that are broken by themselves.
    broken: BTreeSet<(Address, Address)>,
    addresses: BTreeSet<Address>,
    pub(crate) counts: NetworkCounts,
    rng: ChaCha8Rng,
}

impl Network {
    pub(crate) fn new(base: Link, rng: ChaCha8Rng) -> Self {
        Self {
            base,
            present: base,
            links: BTreeMap::new(),
            cuts: BTreeSet::new(),
            broken: BTreeSet::new(),
            addresses: BTreeSet::new(),
            counts: NetworkCounts::default(),
            rng,
        }
    }

    pub(crate) fn add(&mut self, address: Address) {
        self.addresses.insert(address);
    }

    /// Sends a message on its way.
    pub(crate) fn depart(&mut self, now: Duration, from: Address, to: Address) -> Departure {
        self.counts.sent += 1;
        if from == to {
            return Departure::Arrives(now, None);
        }
        if self.is_cut(from, to) {
            self.counts.cut += 1;
            return Departure::Cut;
        }
        let state = self.links.entry((from, to)).or_default();
        let link = state.own.unwrap_or(self.present);
        let rng = &mut self.rng;
        if nanos(now) < state.down_until {
            self.counts.reset += 1;
            return Departure::Reset;
        }
        if link.loss.happens(rng) {
            self.counts.lost += 1;
            return Departure::Lost;
        }
        if link.corrupt.happens(rng) {
            self.counts.corrupted += 1;
            // To the receiver, which hangs up, and back.
            let arrival = now + link.delay.draw(rng);
            state.down_until = nanos(arrival + link.delay.draw(rng));
            return Departure::Corrupt(arrival, rng.next_u64());
        }
        let mut arrival = nanos(now + link.delay.draw(rng));
        if link.reorder.happens(rng) {
            self.counts.reordered += 1;
            arrival += nanos(link.reordered.draw(rng));
        } else {
            arrival = arrival.max(state.last_arrival + 1);
            state.last_arrival = arrival;
        }
        let copy = link.duplicate.happens(rng).then(|| {
            self.counts.duplicated += 1;
            now + link.delay.draw(rng) + link.reordered.draw(rng)
        });
        Departure::Arrives(Duration::from_nanos(arrival), copy)
    }

    /// What the link from one process to another is like now.
    pub fn link(&self, from: Address, to: Address) -> Link {
        self.links.get(&(from, to)).and_then(|state| state.own).unwrap_or(self.present)
    }

    /// Makes one directed link like this.
    pub fn set_link(&mut self, from: Address, to: Address, link: Link) {
        self.links.entry((from, to)).or_default().own = Some(link);
    }

    /// Makes all links like this, those that had conditions of their own too.
    pub fn set_all(&mut self, link: Link) {
        self.present = link;
        self.links.values_mut().for_each(|state| state.own = None);
    }

    /// Changes all links, each from what it is like now.
    pub fn adjust(&mut self, mut change: impl FnMut(&mut Link)) {
        change(&mut self.present);
        self.links.values_mut().filter_map(|state| state.own.as_mut()).for_each(change);
    }

    /// What all links were like at first, and are like after [`Network::heal`].
    pub fn base(&self) -> Link {
        self.base
    }

    /// Cuts one directed link: an asymmetric partition. The way back stays open.
    pub fn cut(&mut self, from: Address, to: Address) {
        self.cuts.insert((from, to));
    }

    /// Opens one directed link again.
    pub fn mend(&mut self, from: Address, to: Address) {
        self.cuts.remove(&(from, to));
    }

    /// Whether a directed link is cut.
    pub fn is_cut(&self, from: Address, to: Address) -> bool {
        let is_in = |links: &BTreeSet<_>| !links.is_empty() && links.contains(&(from, to));
        is_in(&self.cuts) || is_in(&self.broken)
    }

    /// Breaks the connection between two processes, in the middle of whatever frame is on its way. Unlike a cut it outlives the end
    /// of a partition: only [`Network::reconnect`] and [`Network::heal`] mend it.
    pub fn break_connection(&mut self, one: Address, other: Address) {
        self.broken.extend([(one, other), (other, one)]);
    }

    /// Leaves a connection half open: what `from` sends to `to` goes nowhere and `from` does not know, while the other direction
    /// works. Mended as [`Network::break_connection`] says.
    pub fn half_open(&mut self, from: Address, to: Address) {
        self.broken.insert((from, to));
    }

    /// Mends the connection between two processes, in both directions.
    pub fn reconnect(&mut self, one: Address, other: Address) {
        self.broken.remove(&(one, other));
        self.broken.remove(&(other, one));
    }

    /// Cuts a process off from all others, in both directions.
    pub fn isolate(&mut self, address: Address) {
        for other in self.addresses.clone() {
            if other != address {
                self.cut(address, other);
                self.cut(other, address);
            }
        }
    }

    /// Cuts all links between different groups. Who is in no group, clients for example, still reaches everybody.
    pub fn split(&mut self, groups: &[&[Address]]) {
        for (place, group) in groups.iter().enumerate() {
            for other in groups.iter().skip(place + 1) {
                for one in *group {
                    for another in *other {
                        self.cut(*one, *another);
                        self.cut(*another, *one);
                    }
                }
            }
        }
    }

    /// What `from` sends does not reach `to`; what `to` sends reaches `from`.
    pub fn asymmetric(&mut self, from: Address, to: Address) {
        self.cut(from, to);
    }

    /// Cuts `left` and `right` off from each other, while `via` reaches both.
    pub fn bridge(&mut self, left: &[Address], right: &[Address], via: Address) {
        let without = |group: &[Address]| -> Vec<Address> {
            group.iter().copied().filter(|address| *address != via).collect()
        };
        self.split(&[&without(left), &without(right)]);
    }

    /// Opens all cuts; what links are like otherwise stays.
    pub fn heal_cuts(&mut self) {
        self.cuts.clear();
    }

    /// Opens all cuts, mends all connections, and makes all links what they were like at first.
    pub fn heal(&mut self) {
        self.heal_cuts();
        self.broken.clear();
        self.links.values_mut().for_each(|state| state.down_until = 0);
        self.set_all(self.base);
    }

    /// What the network has done so far.
    pub fn counts(&self) -> NetworkCounts {
        self.counts
    }
}
