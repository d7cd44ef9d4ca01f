//! The state that all replicas share, and the rules by which a command changes it.
//!
//! Each operation first decides whether it is refused, then changes the state; nothing is changed
//! and then taken back.

use std::collections::BTreeMap;

use bytes::Bytes;
use raft_consensus::types::{EntryId, NodeId};
use xxhash_rust::xxh3::xxh3_64;

use crate::codec::{put_i64, put_u64};
use crate::command::{Command, DeleteRange, Operation, Put};
use crate::error::KvError;
use crate::key_value::{KeyValue, Version};
use crate::lease::LeaseId;
use crate::member::MemberAttributes;
use crate::outcome::{Outcome, Response};
use crate::revision::Revision;
use crate::state_hash::{StateHash, VersionSum};
use crate::store::StateStore;

/// The most that a delete may return of the keys it deletes, weighed as in [`KeyValue::weight`].
/// Part of the rules, not a setting: a delete that exceeds it is refused, and all replicas must
/// refuse alike.
pub(crate) const PREV_KVS_BYTES_MAX: usize = 64 << 20;

/// Everything that commands have made so far.
#[derive(Debug)]
pub(crate) struct State<S> {
    pub(crate) store: S,
    /// The main revision of the latest write.
    pub(crate) revision: i64,
    /// The latest wall clock of any applied command.
    pub(crate) wall_clock_ms: u64,
    pub(crate) members: BTreeMap<NodeId, MemberAttributes>,
    pub(crate) version_sum: VersionSum,
    /// The last entry applied.
    pub(crate) applied: EntryId,
}

impl<S: StateStore> State<S> {
    pub(crate) fn new() -> Self {
        Self {
            store: S::default(),
            revision: Revision::EMPTY_STORE,
            wall_clock_ms: 0,
            members: BTreeMap::new(),
            version_sum: VersionSum::default(),
            applied: EntryId::ZERO,
        }
    }

    /// Carries out a command. An error leaves everything as it was.
    pub(crate) fn apply(&mut self, command: &Command) -> Result<Outcome, KvError> {
        command.check()?;
        let response = match &command.operation {
            Operation::Put(put) => self.put(put)?,
            Operation::DeleteRange(delete) => self.delete_range(delete)?,
            Operation::PublishMember(member) => self.publish_member(member),
        };
        self.wall_clock_ms = self.wall_clock_ms.max(command.wall_clock_ms);
        Ok(Outcome { revision: self.revision, response })
    }

    fn put(&mut self, put: &Put) -> Result<Response, KvError> {
        // No lease exists yet. etcd looks for the lease first and for the key then.
        if put.lease != LeaseId::NONE {
            return Err(KvError::LeaseNotFound);
        }
        let revision = Revision::new(self.next_revision(), 0);
        let newest = self.store.newest(&put.key).filter(|version| !version.is_tombstone());
        if newest.is_none() && (put.ignore_value || put.ignore_lease) {
            return Err(KvError::KeyNotFound);
        }
        let mut written = Version {
            revision,
            create_revision: revision.main,
            version: 1,
            lease: put.lease,
            value: put.value.clone(),
        };
        let mut prev_kv = None;
        if let Some(newest) = newest {
            written.create_revision = newest.create_revision;
            written.version = newest.version + 1;
            if put.ignore_value {
                written.value = newest.value.clone();
            }
            if put.ignore_lease {
                written.lease = newest.lease;
            }
            prev_kv = put.prev_kv.then(|| KeyValue::new(put.key.clone(), &newest));
        }
        self.write(&put.key, written);
        self.revision = revision.main;
        Ok(Response::Put { prev_kv })
    }

    fn delete_range(&mut self, delete: &DeleteRange) -> Result<Response, KvError> {
        let mut keys: Vec<Bytes> = Vec::new();
        let mut prev_kvs = Vec::new();
        let mut prev_bytes = 0_usize;
        let interval = delete.interval()?;
        self.store.scan(&interval, self.revision, usize::MAX, &mut |key, version| {
            keys.push(key.clone());
            if delete.prev_kv && prev_bytes <= PREV_KVS_BYTES_MAX {
                let key_value = KeyValue::new(key.clone(), version);
                prev_bytes = prev_bytes.saturating_add(key_value.weight());
                prev_kvs.push(key_value);
            }
        });
        if prev_bytes > PREV_KVS_BYTES_MAX {
            return Err(KvError::ResponseTooLarge);
        }
        // A delete of nothing is not a write.
        if !keys.is_empty() {
            let main = self.next_revision();
            for (key, sub) in keys.iter().zip(0..) {
                self.write(key, Version::tombstone(Revision::new(main, sub)));
            }
            self.revision = main;
        }
        let deleted = i64::try_from(keys.len()).expect("lengths fit in 63 bits");
        Ok(Response::DeleteRange { deleted, prev_kvs })
    }

    fn publish_member(&mut self, member: &MemberAttributes) -> Response {
        self.members.insert(member.id, member.clone());
        Response::PublishMember
    }

    fn next_revision(&self) -> i64 {
        self.revision.checked_add(1).expect("2^63 writes do not happen")
    }

    /// The one place through which versions enter the store.
    pub(crate) fn write(&mut self, key: &[u8], version: Version) {
        self.version_sum.add(key, &version);
        self.store.append(key, version);
    }

    /// The hash of everything that commands have made.
    pub(crate) fn hash(&self) -> StateHash {
        let mut bytes = Vec::new();
        put_u64(&mut bytes, self.version_sum.0);
        put_i64(&mut bytes, self.revision);
        put_u64(&mut bytes, self.wall_clock_ms);
        for member in self.members.values() {
            member.encode(&mut bytes);
        }
        StateHash { applied: self.applied, revision: self.revision, hash: xxh3_64(&bytes) }
    }
}
