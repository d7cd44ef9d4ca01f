//! SKELETON: channels, patterns, and keyspace notifications.

use crate::store::Change;
use crate::types::{ClientId, Database};

/// Who subscribes to what.
#[derive(Debug, Default)]
pub struct Channels {}

impl Channels {
    /// A keyspace notification.
    pub fn notify(&self, class: u8, event: &str, database: Database, key: &[u8]) {
        let _ = (class, event, database, key);
    }

    /// Notifications that follow from what the store did on its own: `expired`, `evicted`, `new`.
    pub fn note(&self, changes: &[Change]) {
        let _ = changes;
    }

    /// The channels that a client subscribes to, and its patterns, each with whether it is a pattern. `ACL SETUSER` disconnects those
    /// who listen to more than they may.
    pub fn of(&self, client: ClientId) -> Vec<(Vec<u8>, bool)> {
        let _ = client;
        Vec::new()
    }

    /// Channels, patterns and sharded channels that anybody subscribes to.
    pub fn counts(&self) -> (usize, usize, usize) {
        (0, 0, 0)
    }

    /// Sets which events are told, in the letters that `CONFIG GET notify-keyspace-events` shows.
    pub fn set_events(&self, classes: &str) {
        let _ = classes;
    }

    /// Whether notifications of what the store does on its own are on.
    pub fn wants_changes(&self) -> bool {
        false
    }
}
