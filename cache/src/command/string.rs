//! SKELETON: the string family.

use super::Command;

/// The family.
pub(super) const COMMANDS: &[Command] = &[];
