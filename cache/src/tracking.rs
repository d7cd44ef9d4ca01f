//! SKELETON: who caches what, and is told when it changes.

use crate::store::Change;
use crate::types::ClientId;

/// Who caches what.
#[derive(Debug, Default)]
pub struct Tracking {}

impl Tracking {
    /// Tells clients that keys they have read were changed, by the client `by` if it was one.
    pub fn note(&self, changes: &[Change], by: Option<ClientId>) {
        let _ = (changes, by);
    }

    /// Tells all clients that everything they have read has changed.
    pub fn note_all(&self) {}

    /// Keys that anybody has read, pairs of a key and a client that did, and prefixes.
    pub fn counts(&self) -> (usize, usize, usize) {
        (0, 0, 0)
    }

    /// Whether any client tracks.
    pub fn is_used(&self) -> bool {
        false
    }
}
