//! What runs in a world: processes, the events they get, and what they can do about them.

use std::fmt;
use std::time::Duration;

use crate::clock::Clock;
use crate::disk::SimDisk;
use crate::random::ChaCha8Rng;
use crate::recorder::{Origin, Recorder};

/// Where a process lives, a node or a client. Shown as `n1`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Address(pub u64);

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "n{}", self.0)
    }
}

/// A state machine that a [`World`](crate::World) runs: events come in, and effects go out through the [`Context`].
///
/// It must be a function of its events: no clock, no random source, no thread and no order of its own. Where several
/// kinds of processes meet in one world, nodes and their clients say, this is implemented by an enum of them.
pub trait Process: Sized {
    /// What processes send each other.
    type Message: Clone + fmt::Debug;

    /// Handles one event at the node's own time.
    fn handle(&mut self, event: Event<Self::Message>, context: &mut Context<'_, Self::Message>);

    /// What this process makes of a message that was damaged on its way to it, in a place that `bit` draws. `None`, as here,
    /// if it notices: then the message is lost, and so is what is sent until the connection stands again.
    fn damaged(&self, message: &Self::Message, bit: u64) -> Option<Self::Message> {
        let _ = (message, bit);
        None
    }

    /// When it next wants [`Event::Timer`], on the clock that [`Context::now`] shows. Asked after every
    /// [`Process::handle`]. `None` means not until something else happens; a time that has passed means as soon as
    /// possible, which is a microsecond after the last timer.
    fn deadline(&self) -> Option<Duration>;
}

/// What happens to a process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event<M> {
    /// It has just been started or restarted, and its disk is as the last end of the process left it.
    Start,
    /// A message has arrived.
    Receive {
        /// Its sender.
        from: Address,
        /// The message.
        message: M,
    },
    /// Its deadline has come.
    Timer,
    /// What was asked for with this token has ended: [`Context::complete_after`],
    /// [`Context::complete_after_disk`].
    Completed(u64),
}

/// One start of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Boot {
    /// Where it starts.
    pub address: Address,
    /// How many starts there have been at this address, this one included.
    pub boot: u64,
    /// A seed of its own, for what wants one instead of [`Context::rng`].
    pub seed: u64,
    /// The node's monotonic clock, as [`Context::now`] will show it.
    pub now: Duration,
}

/// What a process asked for while it handled an event.
#[derive(Debug)]
pub(crate) struct Requests<M> {
    pub(crate) messages: Vec<(Address, M)>,
    /// (how long from now, token)
    pub(crate) completions: Vec<(Duration, u64)>,
    pub(crate) stop: Option<String>,
}

impl<M> Default for Requests<M> {
    fn default() -> Self {
        Self { messages: Vec::new(), completions: Vec::new(), stop: None }
    }
}

/// A process's view of its node while it handles an event.
pub struct Context<'a, M> {
    pub(crate) address: Address,
    pub(crate) boot: u64,
    /// The world's time, which no process ever sees.
    pub(crate) at: Duration,
    pub(crate) clock: &'a Clock,
    pub(crate) rng: &'a mut ChaCha8Rng,
    pub(crate) disk: &'a SimDisk,
    pub(crate) seq: &'a mut u64,
    /// Number of the event that is being handled.
    pub(crate) cause: u64,
    pub(crate) recorder: &'a mut Recorder,
    pub(crate) requests: &'a mut Requests<M>,
}

impl<M> Context<'_, M> {
    /// The node's monotonic clock, since an epoch of the node's own that no restart changes.
    pub fn now(&self) -> Duration {
        self.clock.local(self.at)
    }

    /// The node's wall clock, since the UNIX epoch. It may jump, forth and back.
    pub fn wall(&self) -> Duration {
        self.clock.wall(self.at)
    }

    /// Where the process lives.
    pub fn address(&self) -> Address {
        self.address
    }

    /// How many times a process has been started here, this one included.
    pub fn boot(&self) -> u64 {
        self.boot
    }

    /// The random stream of this process, which begins anew, and differently, with every start.
    pub fn rng(&mut self) -> &mut ChaCha8Rng {
        self.rng
    }

    /// Sends a message. It may be delayed, lost, duplicated or overtaken, as the link has it. A message to oneself
    /// arrives, and arrives once.
    pub fn send(&mut self, to: Address, message: M) {
        self.requests.messages.push((to, message));
    }

    /// Asks for [`Event::Completed`] when some work that takes `delay` is done, unless the process ends before.
    pub fn complete_after(&mut self, delay: Duration, token: u64) {
        self.requests.completions.push((delay, token));
    }

    /// Asks for [`Event::Completed`] when everything that this node has issued to its disk so far is done, unless the
    /// process ends before.
    pub fn complete_after_disk(&mut self, token: u64) {
        let delay = self.disk.busy_until().saturating_sub(self.at);
        self.requests.completions.push((delay, token));
    }

    /// The node's disk. Its calls return at once and take their time nevertheless: an answer that must wait for the
    /// disk waits for [`Context::complete_after_disk`].
    pub fn disk(&self) -> &SimDisk {
        self.disk
    }

    /// Notes something in the trace, and folds it into the hash of the run. `kind` is best one of
    /// [`lattice_trace::kind`].
    pub fn trace(&mut self, kind: &'static str, detail: impl fmt::Display) {
        let cause = lattice_trace::Cause { node: self.address.0, seq: self.cause };
        let origin =
            Origin { address: self.address, at: self.at, clock: self.clock, seq: self.seq };
        self.recorder.note(origin, cause, kind, &[], format_args!("{detail}"));
    }

    /// Notes that something happened that a campaign must have met sometimes: see [`Markers`](crate::Markers).
    pub fn mark(&mut self, name: &'static str) {
        self.recorder.markers.hit(name);
    }

    /// Ends the process by itself after this event, on a fatal error say. What it sends now still leaves.
    pub fn stop(&mut self, reason: impl Into<String>) {
        self.requests.stop.get_or_insert_with(|| reason.into());
    }
}

impl<M> fmt::Debug for Context<'_, M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Context")
            .field("address", &self.address)
            .field("boot", &self.boot)
            .field("now", &self.now())
            .finish_non_exhaustive()
    }
}
