//! The store against a model that is too simple to be wrong: the list of everything that was ever
//! written.
//!
//! A read in the model replays the list up to the revision asked for and then takes the steps in
//! which etcd describes its own range read: fetch (up to limit + 1 where nothing but the key order
//! matters), filter, sort, cut.

use std::collections::BTreeMap;

use bytes::Bytes;
use lattice_kv::{
    DeleteRange, KeyValue, KvError, LeaseId, Operation, Outcome, Put, RangeRequest, RangeResponse,
    Response, SortOrder, SortTarget,
};
use proptest::prelude::*;

use crate::replica::Replica;

/// Everything ever written, in order: at which revision, which key, and its value, or none for a
/// delete.
#[derive(Default)]
struct Model {
    written: Vec<(i64, Bytes, Option<Bytes>)>,
}

impl Model {
    fn revision(&self) -> i64 {
        self.written.last().map_or(1, |(revision, ..)| *revision)
    }

    fn state_at(&self, revision: i64) -> BTreeMap<Bytes, KeyValue> {
        let mut state = BTreeMap::new();
        for (written, key, value) in &self.written {
            if *written > revision {
                break;
            }
            let Some(value) = value else {
                state.remove(key);
                continue;
            };
            let before = state.get(key);
            let next = KeyValue {
                key: key.clone(),
                create_revision: before.map_or(*written, |kv: &KeyValue| kv.create_revision),
                mod_revision: *written,
                version: before.map_or(1, |kv| kv.version + 1),
                value: value.clone(),
                lease: LeaseId::NONE,
            };
            state.insert(key.clone(), next);
        }
        state
    }

    fn interval_at(&self, revision: i64, key: &Bytes, end: &Bytes) -> Vec<KeyValue> {
        let is_inside = |candidate: &Bytes| match &end[..] {
            [] => candidate == key,
            [0] => candidate >= key,
            _ => candidate >= key && candidate < end,
        };
        self.state_at(revision).into_values().filter(|kv| is_inside(&kv.key)).collect()
    }

    fn put(&mut self, put: &Put) -> Result<Outcome, KvError> {
        if put.ignore_value && !put.value.is_empty() {
            return Err(KvError::ValueProvided);
        }
        let before = self.interval_at(self.revision(), &put.key, &Bytes::new()).pop();
        if before.is_none() && (put.ignore_value || put.ignore_lease) {
            return Err(KvError::KeyNotFound);
        }
        let value = match (&before, put.ignore_value) {
            (Some(before), true) => before.value.clone(),
            _ => put.value.clone(),
        };
        let revision = self.revision() + 1;
        self.written.push((revision, put.key.clone(), Some(value)));
        Ok(Outcome {
            revision,
            response: Response::Put { prev_kv: before.filter(|_| put.prev_kv) },
        })
    }

    fn delete_range(&mut self, delete: &DeleteRange) -> Outcome {
        let gone = self.interval_at(self.revision(), &delete.key, &delete.range_end);
        let revision = self.revision() + 1;
        self.written.extend(gone.iter().map(|kv| (revision, kv.key.clone(), None)));
        let response = Response::DeleteRange {
            deleted: i64::try_from(gone.len()).unwrap(),
            prev_kvs: if delete.prev_kv { gone } else { vec![] },
        };
        Outcome { revision: self.revision(), response }
    }

    fn range(&self, request: &RangeRequest) -> Result<RangeResponse, KvError> {
        if request.revision > self.revision() {
            return Err(KvError::FutureRevision);
        }
        let at = if request.revision > 0 { request.revision } else { self.revision() };
        let mut kvs = self.interval_at(at, &request.key, &request.range_end);
        let count = i64::try_from(kvs.len()).unwrap();
        let mut response =
            RangeResponse { revision: self.revision(), kvs: vec![], more: false, count };
        if request.count_only {
            return Ok(response);
        }

        // Fetch.
        let limit = usize::try_from(request.limit).unwrap_or(0);
        let filters = [
            request.min_mod_revision,
            request.max_mod_revision,
            request.min_create_revision,
            request.max_create_revision,
        ];
        if limit > 0 && request.sort_order == SortOrder::None && filters == [0; 4] {
            kvs.truncate(limit + 1);
        }
        // Filter.
        let [min_mod, max_mod, min_create, max_create] = filters;
        kvs.retain(|kv| min_mod == 0 || kv.mod_revision >= min_mod);
        kvs.retain(|kv| max_mod == 0 || kv.mod_revision <= max_mod);
        kvs.retain(|kv| min_create == 0 || kv.create_revision >= min_create);
        kvs.retain(|kv| max_create == 0 || kv.create_revision <= max_create);
        // Sort.
        kvs.sort_by(|a, b| {
            let ordering = match request.sort_target {
                SortTarget::Key => a.key.cmp(&b.key),
                SortTarget::Version => a.version.cmp(&b.version),
                SortTarget::Create => a.create_revision.cmp(&b.create_revision),
                SortTarget::Mod => a.mod_revision.cmp(&b.mod_revision),
                SortTarget::Value => a.value.cmp(&b.value),
            };
            if request.sort_order == SortOrder::Descend { ordering.reverse() } else { ordering }
        });
        // Cut.
        if limit > 0 && kvs.len() > limit {
            kvs.truncate(limit);
            response.more = true;
        }
        for kv in &mut kvs {
            if request.keys_only {
                kv.value = Bytes::new();
            }
        }
        response.kvs = kvs;
        Ok(response)
    }
}

fn key() -> impl Strategy<Value = Bytes> {
    prop_oneof![
        "[abc]{1,2}".prop_map(Bytes::from),
        "[abc]\0".prop_map(Bytes::from),
        Just(Bytes::from_static(&[0xff])),
        Just(Bytes::from_static(b"\0")),
    ]
}

fn range_end() -> impl Strategy<Value = Bytes> {
    prop_oneof![Just(Bytes::new()), Just(Bytes::from_static(b"\0")), key(), key()]
}

fn put() -> impl Strategy<Value = Put> {
    let rarely = || proptest::bool::weighted(0.15);
    (key(), "[xyz]{0,2}", any::<bool>(), rarely(), rarely()).prop_map(
        |(key, value, prev_kv, ignore_value, ignore_lease)| Put {
            key,
            value: value.into(),
            prev_kv,
            ignore_value,
            ignore_lease,
            ..Put::default()
        },
    )
}

fn operation() -> impl Strategy<Value = Operation> {
    let delete = (key(), range_end(), any::<bool>())
        .prop_map(|(key, range_end, prev_kv)| DeleteRange { key, range_end, prev_kv });
    prop_oneof![4 => put().prop_map(Operation::Put), 1 => delete.prop_map(Operation::DeleteRange)]
}

fn range_request() -> impl Strategy<Value = RangeRequest> {
    let sort = (
        prop::sample::select(vec![SortOrder::None, SortOrder::Ascend, SortOrder::Descend]),
        prop::sample::select(vec![
            SortTarget::Key,
            SortTarget::Version,
            SortTarget::Create,
            SortTarget::Mod,
            SortTarget::Value,
        ]),
    );
    let filter = || prop_oneof![6 => Just(0), 1 => 1_i64..40];
    let filters = (filter(), filter(), filter(), filter());
    let flags = (any::<bool>(), proptest::bool::weighted(0.1));
    (key(), range_end(), -1_i64..8, -1_i64..45, sort, filters, flags).prop_map(
        |(key, range_end, limit, revision, sort, filters, flags)| RangeRequest {
            key,
            range_end,
            limit,
            revision,
            sort_order: sort.0,
            sort_target: sort.1,
            keys_only: flags.0,
            count_only: flags.1,
            min_mod_revision: filters.0,
            max_mod_revision: filters.1,
            min_create_revision: filters.2,
            max_create_revision: filters.3,
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever is written and deleted, every read at every revision finds what the model finds;
    /// and so it does after a trip through a snapshot.
    #[test]
    fn reads_find_what_was_written(
        operations in prop::collection::vec(operation(), 0..50),
        requests in prop::collection::vec(range_request(), 1..40),
    ) {
        let mut replica = Replica::default();
        let mut model = Model::default();
        for operation in operations {
            let expected = match &operation {
                Operation::Put(put) => model.put(put),
                Operation::DeleteRange(delete) => Ok(model.delete_range(delete)),
                Operation::PublishMember(_) => unreachable!("not generated"),
            };
            prop_assert_eq!(replica.run(operation), expected);
        }
        let mut restored = Replica::default();
        restored.restore(99, &replica.snapshot()).unwrap();
        for request in requests {
            let expected = model.range(&request);
            prop_assert_eq!(&replica.reader().range(&request), &expected, "{:?}", request);
            prop_assert_eq!(&restored.reader().range(&request), &expected, "restored");
        }
    }
}
