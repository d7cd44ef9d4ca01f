//! SKELETON: who caches what, and is told when it changes.

use crate::engine::Engine;
use crate::store::Change;

/// Who caches what.
#[derive(Debug, Default)]
pub struct Tracking {}

impl Tracking {
    /// Tells clients that keys they have read were changed.
    pub fn note(&self, engine: &Engine, changes: &[Change]) {
        let _ = (engine, changes);
    }

    /// Whether any client tracks.
    pub fn is_used(&self) -> bool {
        false
    }
}
