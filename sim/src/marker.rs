//! What has to happen sometimes: a check of something that never happens checks nothing.
//!
//! A scenario names what its runs must meet ([`Marker`]), and notes each meeting ([`Context::mark`](crate::Context::mark) in a process,
//! [`World::mark`](crate::World::mark) from outside). A [`Campaign`](crate::Campaign) adds up in how many runs each was met, and one
//! that is long enough fails if one was never met. Notes are part of the run, not of the program: no global state, the same
//! seed gives the same.

use std::collections::BTreeMap;

/// Something that a campaign must have met.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Marker {
    /// Its name, by which it is noted.
    pub name: &'static str,
    /// In how many runs it must have been met at least once.
    pub within: u64,
}

impl Marker {
    /// Something that `within` runs must meet.
    pub const fn new(name: &'static str, within: u64) -> Self {
        Self { name, within }
    }
}

/// How often each thing was met in one run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Markers {
    hits: BTreeMap<&'static str, u64>,
}

impl Markers {
    /// Notes one meeting.
    pub fn hit(&mut self, name: &'static str) {
        *self.hits.entry(name).or_default() += 1;
    }

    /// How often this was met.
    pub fn count(&self, name: &str) -> u64 {
        self.hits.get(name).copied().unwrap_or_default()
    }

    /// What was met, and how often.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, u64)> {
        self.hits.iter().map(|(name, count)| (*name, *count))
    }
}
