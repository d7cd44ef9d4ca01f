//! The store in memory: an ordered map from each key to the vector of its versions.
//!
//! **Memory.** A key costs about 80 bytes beside its own (its place in the map, its vector), a
//! version 72 bytes beside its value, and either one costs some 32 bytes more from the first time
//! that it is read, for the count of its readers. A history starts with room for a single version,
//! because most keys are written once. Keys and values are copied into allocations of exactly their
//! size: a command is a slice of a batch that may be a thousand times larger, and one surviving
//! value would keep all of that in memory. The copy is cheap where it matters (a small value) and
//! lost beside the network and the disk where it is not.
//!
//! **Time.** The newest version is the last of its vector; an older one is found by binary search.
//! Revisions grow along the vector, as [`append`](StateStore::append) makes sure.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::ops::{Bound, ControlFlow};

use bytes::Bytes;

use super::{ExportCursor, StateStore, StoreSize};
use crate::key_value::Version;
use crate::range::KeyInterval;
use crate::revision::Revision;

/// All versions of all keys, in memory.
#[derive(Debug, Default)]
pub struct MemoryStore {
    histories: BTreeMap<Bytes, History>,
    size: StoreSize,
}

/// The versions of one key, oldest first; never empty.
#[derive(Debug)]
struct History(Vec<Version>);

impl History {
    fn new(first: Version) -> Self {
        Self(vec![first])
    }

    fn newest(&self) -> &Version {
        self.0.last().expect("a history begins with a version")
    }

    /// The version that was current at the main revision `at`.
    fn at(&self, at: i64) -> Option<&Version> {
        let newest = self.newest();
        if newest.revision.main <= at {
            return Some(newest);
        }
        let older = self.0.partition_point(|version| version.revision.main <= at);
        self.0[..older].last()
    }

    /// The version that was current at the main revision `at`, if the key existed then.
    fn live_at(&self, at: i64) -> Option<&Version> {
        self.at(at).filter(|version| !version.is_tombstone())
    }

    /// The versions later than `after`, up to the main revision `at`.
    fn between(&self, after: Revision, at: i64) -> &[Version] {
        let start = self.0.partition_point(|version| version.revision <= after);
        let end = self.0.partition_point(|version| version.revision.main <= at);
        self.0.get(start..end).unwrap_or_default()
    }
}

impl StateStore for MemoryStore {
    fn newest(&self, key: &[u8]) -> Option<Cow<'_, Version>> {
        self.histories.get(key).map(|history| Cow::Borrowed(history.newest()))
    }

    fn append(&mut self, key: &[u8], version: Version) {
        let len = |bytes: &[u8]| u64::try_from(bytes.len()).expect("lengths fit in 64 bits");
        let version = Version { value: Bytes::copy_from_slice(&version.value), ..version };
        self.size.versions += 1;
        self.size.bytes += len(&version.value);
        if let Some(history) = self.histories.get_mut(key) {
            assert!(history.newest().revision < version.revision, "history is only ever continued");
            history.0.push(version);
        } else {
            self.size.keys += 1;
            self.size.bytes += len(key);
            self.histories.insert(Bytes::copy_from_slice(key), History::new(version));
        }
    }

    fn scan(
        &self,
        interval: &KeyInterval,
        at: i64,
        keys_max: usize,
        visit: &mut dyn FnMut(&Bytes, &Version),
    ) -> Option<Bytes> {
        // One key, the commonest read of all, needs no iterator.
        if let Some(key) = interval.single() {
            let version = self.histories.get(key).and_then(|history| history.live_at(at))?;
            visit(key, version);
            return None;
        }
        let mut histories = self.histories.range::<[u8], _>(interval.bounds()?);
        for (key, history) in histories.by_ref().take(keys_max) {
            if let Some(version) = history.live_at(at) {
                visit(key, version);
            }
        }
        histories.next().map(|(key, _)| key.clone())
    }

    fn export(
        &self,
        after: &ExportCursor,
        at: i64,
        versions_max: usize,
        visit: &mut dyn FnMut(&Bytes, &Version) -> ControlFlow<()>,
    ) -> Option<ExportCursor> {
        let from = (Bound::Included(&after.key[..]), Bound::Unbounded);
        let mut budget = versions_max;
        for (key, history) in self.histories.range::<[u8], _>(from) {
            let is_resumed = *key == after.key;
            let versions =
                history.between(if is_resumed { after.revision } else { Revision::ZERO }, at);
            for version in versions.iter().take(budget) {
                budget -= 1;
                if visit(key, version).is_break() || budget == 0 {
                    return Some(ExportCursor { key: key.clone(), revision: version.revision });
                }
            }
            // A key whose versions are all too new costs a look as well; but not the one that the
            // last slice ended with, or a slice of one look would never get past it.
            if versions.is_empty() && !is_resumed {
                budget -= 1;
                if budget == 0 {
                    return Some(ExportCursor { key: key.clone(), revision: Revision::MAX });
                }
            }
        }
        None
    }

    fn size(&self) -> StoreSize {
        self.size
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lease::LeaseId;

    fn version(main: i64, value: &str) -> Version {
        Version {
            revision: Revision::new(main, 0),
            create_revision: main,
            version: 1,
            lease: LeaseId::NONE,
            value: Bytes::copy_from_slice(value.as_bytes()),
        }
    }

    fn store() -> MemoryStore {
        let mut store = MemoryStore::default();
        store.append(b"a", version(2, "a2"));
        store.append(b"b", version(3, "b3"));
        store.append(b"a", version(4, "a4"));
        store.append(b"b", Version::tombstone(Revision::new(5, 0)));
        store.append(b"c", version(6, "c6"));
        store.append(b"a", version(7, "a7"));
        store
    }

    fn values_at(store: &MemoryStore, at: i64, keys_max: usize) -> String {
        let mut values = Vec::new();
        let mut start = Some(Bytes::from_static(b"\0"));
        while let Some(key) = start {
            let interval = KeyInterval::new(key, "\0".into()).unwrap();
            start = store.scan(&interval, at, keys_max, &mut |_, version| {
                values.extend_from_slice(&version.value);
            });
        }
        String::from_utf8(values).unwrap()
    }

    #[test]
    fn each_revision_shows_its_own_state_in_slices_of_any_size() {
        let expected = ["", "a2", "a2b3", "a4b3", "a4", "a4c6", "a7c6", "a7c6"];
        for (at, expected) in (1..).zip(expected) {
            for keys_max in 1..5 {
                assert_eq!(values_at(&store(), at, keys_max), expected, "{at}, {keys_max}");
            }
        }
    }

    #[test]
    fn an_export_shows_every_version_once_in_slices_of_any_size() {
        for at in 1..9 {
            for versions_max in 1..8 {
                for break_every in 1..4 {
                    let mut seen = Vec::new();
                    let mut cursor = Some(ExportCursor::default());
                    while let Some(after) = cursor {
                        let mut visits = 0;
                        cursor = store().export(&after, at, versions_max, &mut |key, version| {
                            seen.push((key.clone(), version.revision.main));
                            visits += 1;
                            match visits == break_every {
                                true => ControlFlow::Break(()),
                                false => ControlFlow::Continue(()),
                            }
                        });
                    }
                    let all = [("a", 2), ("a", 4), ("a", 7), ("b", 3), ("b", 5), ("c", 6)];
                    let mut expected: Vec<(Bytes, i64)> =
                        all.map(|(key, main)| (Bytes::from_static(key.as_bytes()), main)).into();
                    expected.retain(|&(_, main)| main <= at);
                    assert_eq!(seen, expected, "at {at}, {versions_max}, {break_every}");
                }
            }
        }
    }

    #[test]
    fn the_size_counts_keys_once_and_values_each_time() {
        assert_eq!(store().size(), StoreSize { keys: 3, versions: 6, bytes: 3 + 5 * 2 });
    }

    #[test]
    #[should_panic(expected = "history is only ever continued")]
    fn history_is_not_rewritten() {
        store().append(b"a", version(7, "again"));
    }

    #[test]
    fn a_stored_value_is_a_copy() {
        let batch = Bytes::from(vec![7; 1 << 20]);
        let mut store = MemoryStore::default();
        store.append(&batch[..4], Version { value: batch.slice(8..16), ..version(2, "") });
        assert!(batch.is_unique(), "neither key nor value holds on to the batch");
    }
}
