//! Leases, so far by name only.
//!
//! Granting, keeping alive and expiry come later. Until then no lease exists, so a put that names
//! one is refused with the error that etcd gives for an unknown lease.

/// A lease. [`LeaseId::NONE`] stands for "no lease".
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LeaseId(pub i64);

impl LeaseId {
    /// No lease: the key lives until it is deleted.
    pub const NONE: Self = Self(0);
}
