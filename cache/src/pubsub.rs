//! SKELETON: channels, patterns, and keyspace notifications.

use crate::store::Change;
use crate::types::Database;

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

    /// Whether notifications of what the store does on its own are on.
    pub fn wants_changes(&self) -> bool {
        false
    }
}
