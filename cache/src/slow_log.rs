//! SKELETON: the slow log.

/// Commands that took long.
#[derive(Debug, Default)]
pub struct SlowLog {}
