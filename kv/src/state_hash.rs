//! One number that is equal on two replicas if, and almost certainly only if, their states are.
//!
//! The versions in the store are hashed one by one and their hashes added up, so the sum depends on
//! *which* versions there are and not on the order in which they were met. A write adds one number;
//! forgetting a version will subtract it; and a restored snapshot, which arrives in key order,
//! comes to the same sum as the replica that wrote it in time order. Each version holds its
//! revision and its key, so no two are alike and nothing can cancel out by repetition.
//!
//! The sum finds accidents (a bug, a flipped bit, a diverged replica), not adversaries: who can
//! write into a replica's memory could balance it.

use raft_consensus::types::EntryId;
use xxhash_rust::xxh3::xxh3_64_with_seed;

use crate::key_value::Version;

/// A replica's state hash and the place in the log that it belongs to. Compare only hashes of equal
/// `applied`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StateHash {
    /// The last entry applied.
    pub applied: EntryId,
    /// The store's revision.
    pub revision: i64,
    /// The hash over revision, time, members, and all versions of all keys.
    pub hash: u64,
}

/// The sum of the hashes of all versions in a store.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct VersionSum(pub(crate) u64);

impl VersionSum {
    /// Counts a version in.
    pub(crate) fn add(&mut self, key: &[u8], version: &Version) {
        self.0 = self.0.wrapping_add(hash_version(key, version));
    }
}

/// Three hashes in a chain, each the seed of the next, so that no buffer has to be put together.
/// The lengths keep bytes from moving between key and value unnoticed.
fn hash_version(key: &[u8], version: &Version) -> u64 {
    let len = |bytes: &[u8]| i64::try_from(bytes.len()).expect("lengths fit in 63 bits");
    let numbers = [
        version.revision.main,
        version.revision.sub,
        version.create_revision,
        version.version,
        version.lease.0,
        len(key),
        len(&version.value),
    ];
    let mut bytes = [0; 56];
    for (place, number) in bytes.chunks_exact_mut(8).zip(numbers) {
        place.copy_from_slice(&number.to_le_bytes());
    }
    let seed = xxh3_64_with_seed(&version.value, xxh3_64_with_seed(key, 0));
    xxh3_64_with_seed(&bytes, seed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lease::LeaseId;
    use crate::revision::Revision;

    fn version() -> Version {
        Version {
            revision: Revision::new(5, 1),
            create_revision: 3,
            version: 2,
            lease: LeaseId(7),
            value: "value".into(),
        }
    }

    #[test]
    fn every_field_counts() {
        let mut others = vec![Version { value: "valuf".into(), ..version() }];
        others.push(Version { revision: Revision::new(6, 1), ..version() });
        others.push(Version { revision: Revision::new(5, 0), ..version() });
        others.push(Version { create_revision: 4, ..version() });
        others.push(Version { version: 3, ..version() });
        others.push(Version { lease: LeaseId(8), ..version() });
        for other in others {
            assert_ne!(hash_version(b"key", &other), hash_version(b"key", &version()), "{other:?}");
        }
        assert_ne!(hash_version(b"kez", &version()), hash_version(b"key", &version()));
    }

    #[test]
    fn the_order_does_not_count() {
        let other = Version { revision: Revision::new(9, 0), ..version() };
        let (mut one, mut two) = (VersionSum::default(), VersionSum::default());
        one.add(b"a", &version());
        one.add(b"b", &other);
        two.add(b"b", &other);
        two.add(b"a", &version());
        assert_eq!(one, two);
        assert_ne!(one, VersionSum::default());
    }
}
