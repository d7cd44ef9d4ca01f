//! SKELETON: the settings that `CONFIG` reads and changes.

/// All settings.
#[derive(Debug, Default)]
pub struct Settings {}
