//! SKELETON: the script family.

use super::Command;

/// The family.
pub(super) const COMMANDS: &[Command] = &[];
