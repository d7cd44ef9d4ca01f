//! SKELETON: the key family.

use super::Command;

/// The family.
pub(super) const COMMANDS: &[Command] = &[];
