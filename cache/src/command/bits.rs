//! SKELETON: the bits family.

use super::Command;

/// The family.
pub(super) const COMMANDS: &[Command] = &[];
