//! SKELETON: the pubsub family.

use super::Command;

/// The family.
pub(super) const COMMANDS: &[Command] = &[];
