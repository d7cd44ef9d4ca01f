//! Defects that caches have had, planted on purpose.
//!
//! Each can be switched on at run time, none is by default. A campaign with one of them must end in a violation: that is how
//! we know that the checks can fail.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use crate::engine::Listener;
use crate::store::{Cause, Change};

/// A defect that a node can be made to have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum PlantedBug {
    /// A deadline is counted from the present, as if it were a duration.
    DeadlineAsDuration,
    /// The timing wheel has one turn, and loses what lies beyond it.
    WheelOverflow,
    /// A cursor is a place in the table, which means another one when the table has another size.
    ScanByPlace,
    /// A scan goes on behind the hash at which it stopped, though another key has the same.
    ScanSkipsEqualHashes,
    /// Client-side caches are not told when a deadline passes.
    TrackingMissesExpiry,
    /// Client-side caches are not told when a database is flushed.
    TrackingMissesFlush,
    /// A transaction runs though a key that it watches has expired.
    WatchMissesExpiry,
    /// A transaction runs though other keys stand under the watched names.
    WatchMissesSwap,
    /// A lease is granted while another one stands.
    LeaseGrantedTwice,
    /// A token is accepted after its lease has ended.
    LeaseOutlivesItsTime,
    /// A blocked client gets two elements for one command.
    BlockedClientServedTwice,
    /// A read trusts the wheel to have removed what is due.
    ExpiredServedWhenWheelLags,
    /// `KEEPTTL` keeps nothing.
    KeepTtlForgets,
    /// Compaction moves cells and leaves the index as it was.
    CompactionLeavesStaleHandle,
    /// Nobody is told of an eviction.
    EvictionNotAnnounced,
    /// A policy for volatile keys evicts any.
    VolatilePolicyEvictsAny,
    /// The limit of memory is not looked at.
    LimitForgotten,
    /// The counter of keys with a deadline only grows.
    VolatileCountDrifts,
    /// Two writes in one millisecond have the same version.
    VersionStandsStill,
}

impl PlantedBug {
    /// All of them.
    pub const ALL: [Self; 19] = [
        Self::DeadlineAsDuration,
        Self::WheelOverflow,
        Self::ScanByPlace,
        Self::ScanSkipsEqualHashes,
        Self::TrackingMissesExpiry,
        Self::TrackingMissesFlush,
        Self::WatchMissesExpiry,
        Self::WatchMissesSwap,
        Self::LeaseGrantedTwice,
        Self::LeaseOutlivesItsTime,
        Self::BlockedClientServedTwice,
        Self::ExpiredServedWhenWheelLags,
        Self::KeepTtlForgets,
        Self::CompactionLeavesStaleHandle,
        Self::EvictionNotAnnounced,
        Self::VolatilePolicyEvictsAny,
        Self::LimitForgotten,
        Self::VolatileCountDrifts,
        Self::VersionStandsStill,
    ];

    /// Its name on the command line.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::DeadlineAsDuration => "deadline-as-duration",
            Self::WheelOverflow => "wheel-overflow",
            Self::ScanByPlace => "scan-by-place",
            Self::ScanSkipsEqualHashes => "scan-skips-equal-hashes",
            Self::TrackingMissesExpiry => "tracking-misses-expiry",
            Self::TrackingMissesFlush => "tracking-misses-flush",
            Self::WatchMissesExpiry => "watch-misses-expiry",
            Self::WatchMissesSwap => "watch-misses-swap",
            Self::LeaseGrantedTwice => "lease-granted-twice",
            Self::LeaseOutlivesItsTime => "lease-outlives-its-time",
            Self::BlockedClientServedTwice => "blocked-client-served-twice",
            Self::ExpiredServedWhenWheelLags => "expired-served-when-wheel-lags",
            Self::KeepTtlForgets => "keepttl-forgets",
            Self::CompactionLeavesStaleHandle => "compaction-leaves-stale-handle",
            Self::EvictionNotAnnounced => "eviction-not-announced",
            Self::VolatilePolicyEvictsAny => "volatile-policy-evicts-any",
            Self::LimitForgotten => "limit-forgotten",
            Self::VolatileCountDrifts => "volatile-count-drifts",
            Self::VersionStandsStill => "version-stands-still",
        }
    }

    /// What `listener` hears of `changes` with this bug.
    pub(crate) fn heard<'c>(
        bug: Option<Self>,
        listener: Listener,
        changes: &'c [Change],
    ) -> Cow<'c, [Change]> {
        let deaf_to = match (bug, listener) {
            (Some(Self::TrackingMissesExpiry), Listener::Tracking)
            | (Some(Self::WatchMissesExpiry), Listener::Watches) => Cause::Expired,
            (Some(Self::TrackingMissesFlush), Listener::Tracking) => Cause::Flushed,
            (Some(Self::WatchMissesSwap), Listener::Watches) => Cause::Swapped,
            (Some(Self::EvictionNotAnnounced), Listener::Channels) => Cause::Evicted,
            _ => return Cow::Borrowed(changes),
        };
        Cow::Owned(changes.iter().filter(|change| change.cause != deaf_to).cloned().collect())
    }
}

impl fmt::Display for PlantedBug {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for PlantedBug {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        Self::ALL.into_iter().find(|bug| bug.name() == name).ok_or_else(|| {
            let names: Vec<_> = Self::ALL.into_iter().map(Self::name).collect();
            format!("no planted bug is called {name}; there are {}", names.join(", "))
        })
    }
}
