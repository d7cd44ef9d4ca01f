//! SKELETON: who watches what.

use crate::store::Change;

/// Who watches what.
#[derive(Debug, Default)]
pub struct Watches {}

impl Watches {
    /// Marks the transactions of those who watch what has changed.
    pub fn note(&self, changes: &[Change]) {
        let _ = changes;
    }

    /// Whether anything is watched.
    pub fn is_used(&self) -> bool {
        false
    }
}
