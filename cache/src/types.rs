//! Time, databases, versions and clients' numbers: the nouns that every other module speaks in.

use std::time::Duration;

/// A moment in milliseconds since the Unix epoch.
///
/// Deadlines are absolute moments (DESIGN §7): a duration that travels late would expire late.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UnixMillis(pub u64);

impl UnixMillis {
    /// The moment `duration` later, in whole milliseconds, or the last moment there is.
    #[must_use]
    pub fn after(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)))
    }

    /// Milliseconds from `self` until `later`; 0 if `later` has passed.
    #[must_use]
    pub fn until(self, later: Self) -> u64 {
        later.0.saturating_sub(self.0)
    }
}

/// The time at which something is done: comes in as a value, with every input.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Now {
    /// What deadlines are compared with. Never goes backwards, whatever the wall clock does.
    pub unix: UnixMillis,
    /// Microseconds on a clock that only measures durations: slow log, latencies, idle times.
    pub monotonic_us: u64,
}

/// One of a standalone node's databases (`SELECT`), below [`DATABASES`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Database(pub u8);

/// How many databases a standalone node has. A node in cluster mode uses the first alone.
pub const DATABASES: u8 = 16;

/// The order of a key's mutations: a hybrid logical clock, 48 bits of Unix milliseconds above a 16-bit counter.
///
/// Grows with every mutation of a shard. A standalone node does not store it beside the entry; a cluster will.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Version(pub u64);

/// A client connection's number, as `CLIENT ID` tells it. Never used twice by one process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClientId(pub u64);
