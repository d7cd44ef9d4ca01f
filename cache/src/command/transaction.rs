//! SKELETON: the transaction family.

use super::Command;

/// The family.
pub(super) const COMMANDS: &[Command] = &[];
