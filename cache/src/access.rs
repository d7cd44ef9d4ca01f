//! SKELETON: access control: users, passwords, and what they may do.

/// All users.
#[derive(Debug, Default)]
pub struct AccessControl {}
