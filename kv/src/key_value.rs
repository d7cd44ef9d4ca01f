//! A key with its value, and one version of it as the store keeps it.

use bytes::Bytes;

use crate::lease::LeaseId;
use crate::revision::Revision;

/// A key and its value at some revision, as a reader gets it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KeyValue {
    /// The key; never empty.
    pub key: Bytes,
    /// The revision that created the key, the last time that it was created.
    pub create_revision: i64,
    /// The revision that last changed the key.
    pub mod_revision: i64,
    /// How many times the key was written since it was created; 1 after its creation.
    pub version: i64,
    /// The value; may be empty.
    pub value: Bytes,
    /// The lease the key hangs on, or [`LeaseId::NONE`].
    pub lease: LeaseId,
}

/// One version of a key: what a put or a delete leaves in the key's history.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Version {
    /// When it was written.
    pub revision: Revision,
    /// The main revision that created the key; 0 in a tombstone.
    pub create_revision: i64,
    /// Its number since the creation of the key, from 1; 0 marks a tombstone.
    pub version: i64,
    /// The lease the key hangs on.
    pub lease: LeaseId,
    /// The value; empty in a tombstone.
    pub value: Bytes,
}

impl Version {
    /// What a delete at `revision` leaves behind.
    #[must_use]
    pub fn tombstone(revision: Revision) -> Self {
        Self { revision, create_revision: 0, version: 0, lease: LeaseId::NONE, value: Bytes::new() }
    }

    /// Whether the key does not exist as of this version.
    #[must_use]
    pub fn is_tombstone(&self) -> bool {
        self.version == 0
    }
}

impl KeyValue {
    /// The key as of `version`. Shares the bytes of both.
    #[must_use]
    pub fn new(key: Bytes, version: &Version) -> Self {
        Self {
            key,
            create_revision: version.create_revision,
            mod_revision: version.revision.main,
            version: version.version,
            value: version.value.clone(),
            lease: version.lease,
        }
    }

    /// What the pair weighs against byte limits: key, value, and a constant for everything around
    /// them.
    #[must_use]
    pub fn weight(&self) -> usize {
        pair_weight(self.key.len(), self.value.len())
    }
}

/// What a key and value of these lengths weigh against byte limits.
pub(crate) fn pair_weight(key_len: usize, value_len: usize) -> usize {
    /// Five numbers of up to ten bytes on the wire, with their tags.
    const AROUND: usize = 64;
    key_len.saturating_add(value_len).saturating_add(AROUND)
}
