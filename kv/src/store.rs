//! Where the versions of all keys are kept.
//!
//! A store is an ordered map from keys to their histories. It knows nothing of requests: the rules
//! of put and delete are in `state.rs`, those of reading in `range.rs`. A store in memory never
//! fails; one on disk that cannot read any more has to stop its node by a panic, as for any broken
//! invariant, because neither applying nor reading can go on.

use std::borrow::Cow;
use std::fmt::Debug;
use std::ops::ControlFlow;

use bytes::Bytes;

use crate::key_value::Version;
use crate::range::KeyInterval;
use crate::revision::Revision;

mod memory;

pub use memory::MemoryStore;

/// An ordered store of all versions of all keys.
pub trait StateStore: Default + Debug + Send + Sync + 'static {
    /// The newest version of a key, which may be a tombstone; `None` if the key never existed.
    fn newest(&self, key: &[u8]) -> Option<Cow<'_, Version>>;

    /// Adds a version to the history of a key. The store keeps bytes of its own: neither `key` nor
    /// the version's value may pin the memory they come from, which is a part of something much
    /// larger (a command in a batch, a part of a snapshot).
    ///
    /// # Panics
    ///
    /// If the version is not newer than all others of the key: history is only ever continued.
    fn append(&mut self, key: &[u8], version: Version);

    /// Shows, in key order, each key of the interval that is live at the main revision `at`, with
    /// its version at that revision. Looks at no more than `keys_max` keys, live or not; returns
    /// the key at which to go on, or `None` at the end.
    fn scan(
        &self,
        interval: &KeyInterval,
        at: i64,
        keys_max: usize,
        visit: &mut dyn FnMut(&Bytes, &Version),
    ) -> Option<Bytes>;

    /// Shows every version up to the main revision `at`, tombstones too, ordered by key and then by
    /// revision, beginning behind `after`. Looks at no more than `versions_max` versions, and stops
    /// after a visit that breaks. Returns where to go on, or `None` at the end.
    fn export(
        &self,
        after: &ExportCursor,
        at: i64,
        versions_max: usize,
        visit: &mut dyn FnMut(&Bytes, &Version) -> ControlFlow<()>,
    ) -> Option<ExportCursor>;

    /// How much the store holds.
    fn size(&self) -> StoreSize;
}

/// The last version that an export has dealt with. The default is the place before the first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ExportCursor {
    /// Its key.
    pub key: Bytes,
    /// Its revision.
    pub revision: Revision,
}

/// How much a store holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StoreSize {
    /// Keys with a history, live or deleted.
    pub keys: u64,
    /// Versions of all of them, tombstones included.
    pub versions: u64,
    /// Bytes of all keys (once each) and of the values of all versions, without the store's own
    /// structures.
    pub bytes: u64,
}
