//! SKELETON: the sorted_set family.

use super::Command;

/// The family.
pub(super) const COMMANDS: &[Command] = &[];
