//! SKELETON: the hyperloglog family.

use super::Command;

/// The family.
pub(super) const COMMANDS: &[Command] = &[];
