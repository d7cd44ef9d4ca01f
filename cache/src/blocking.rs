//! SKELETON: clients that wait until a key holds something.

use crate::engine::Engine;
use crate::store::{Change, Keyspace};

/// Who waits for what.
#[derive(Debug, Default)]
pub struct Waiters {}

impl Waiters {
    /// Serves those who wait for what has changed, oldest first. All shards are locked if anybody waits.
    pub fn note(&self, engine: &Engine, keys: &mut Keyspace<'_>, changes: &[Change]) {
        let _ = (engine, keys, changes);
    }

    /// Whether anybody waits.
    pub fn is_used(&self) -> bool {
        false
    }
}
