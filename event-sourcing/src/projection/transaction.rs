//! What a handler writes into: the rows of its projection, with what was written so far over them.
//!
//! Nothing reaches the sink until the runner commits, so a failing handler is undone by forgetting what it wrote
//! ([`Tx::undo_to`]), down to the single event, and a batch of events costs the sink one commit.
//!
//! A transaction of a partition also keeps what it has read, so that the runner can tell whether partitions that ran side by side
//! have touched the same rows.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::ops::Bound;

use bytes::Bytes;
use serde::Serialize;

use super::sink::{KEY_SIZE_MAX, SinkError, Snapshot, VALUE_SIZE_MAX, end_of_prefix};
use super::table::{Key, Rows, Table, encode};

/// The rows of a projection, as a handler sees and changes them.
pub struct Tx<'a> {
    base: &'a dyn Snapshot,
    /// Before every key of the build's tables.
    prefix: Vec<u8>,
    writes: BTreeMap<Bytes, Option<Bytes>>,
    /// What each write since the transaction began has replaced.
    replaced: Vec<(Bytes, Option<Option<Bytes>>)>,
    /// Bytes of the values and keys in `writes`, by more rather than less.
    size: usize,
    seen: Option<RefCell<Seen>>,
    /// What the sink said when it failed: a handler cannot swallow it.
    failed: RefCell<Option<SinkError>>,
}

/// What a partition has read of the rows as they were before it.
#[derive(Debug, Default)]
struct Seen {
    keys: BTreeSet<Bytes>,
    ranges: Vec<(Vec<u8>, Vec<u8>)>,
}

/// A place in a transaction to which it can be undone.
#[derive(Clone, Copy, Debug)]
pub(super) struct Mark(usize);

impl<'a> Tx<'a> {
    pub(super) fn new(base: &'a dyn Snapshot, prefix: Vec<u8>) -> Self {
        Self {
            base,
            prefix,
            writes: BTreeMap::new(),
            replaced: Vec::new(),
            size: 0,
            seen: None,
            failed: RefCell::default(),
        }
    }

    /// A transaction that keeps what it reads.
    pub(super) fn of_partition(base: &'a dyn Snapshot, prefix: Vec<u8>) -> Self {
        Self { seen: Some(RefCell::default()), ..Self::new(base, prefix) }
    }

    /// Writes a row, in place of the one there may be.
    ///
    /// # Errors
    ///
    /// If the key or the value is too large: [`KEY_SIZE_MAX`], [`VALUE_SIZE_MAX`].
    pub fn put<K: Key + ?Sized, V: Serialize>(
        &mut self,
        table: &Table<K, V>,
        key: &K,
        value: &V,
    ) -> Result<(), SinkError> {
        let value = encode(table.name(), value)?;
        let key = self.whole_key(&table.key(key));
        let too_large =
            |what, size, limit| SinkError::TooLarge { what, table: table.name(), size, limit };
        if key.len() > KEY_SIZE_MAX {
            return Err(too_large("key", key.len(), KEY_SIZE_MAX));
        }
        if value.len() > VALUE_SIZE_MAX {
            return Err(too_large("value", value.len(), VALUE_SIZE_MAX));
        }
        self.write(key, Some(value));
        Ok(())
    }

    /// Removes a row, if it is there.
    pub fn remove<K: Key + ?Sized, V>(&mut self, table: &Table<K, V>, key: &K) {
        let key = self.whole_key(&table.key(key));
        self.write(key, None);
    }

    fn write(&mut self, key: Bytes, value: Option<Bytes>) {
        self.size += key.len() + value.as_ref().map_or(0, Bytes::len);
        let replaced = self.writes.insert(key.clone(), value);
        self.replaced.push((key, replaced));
    }

    fn whole_key(&self, key: &[u8]) -> Bytes {
        [self.prefix.as_slice(), key].concat().into()
    }

    pub(super) fn mark(&self) -> Mark {
        Mark(self.replaced.len())
    }

    /// Forgets what was written since.
    pub(super) fn undo_to(&mut self, mark: Mark) {
        while self.replaced.len() > mark.0 {
            let (key, replaced) = self.replaced.pop().expect("it is longer than the mark");
            match replaced {
                Some(value) => self.writes.insert(key, value),
                None => self.writes.remove(&key),
            };
        }
    }

    /// Bytes written so far, those that were written over included.
    pub(super) fn size(&self) -> usize {
        self.size
    }

    /// What the sink said when it failed, if it has.
    pub(super) fn take_failure(&mut self) -> Option<SinkError> {
        self.failed.get_mut().take()
    }

    /// All that was written.
    pub(super) fn into_writes(self) -> BTreeMap<Bytes, Option<Bytes>> {
        self.writes
    }

    /// The writes of partitions that ran side by side, if they might as well have run one after the other: no row that one of them
    /// has written was touched by another.
    pub(super) fn merge(partitions: Vec<Self>) -> Option<BTreeMap<Bytes, Option<Bytes>>> {
        let mut writer = BTreeMap::new();
        for (index, partition) in partitions.iter().enumerate() {
            for key in partition.writes.keys() {
                if writer.insert(key.as_ref(), index).is_some() {
                    return None;
                }
            }
        }
        let apart = partitions.iter().enumerate().all(|(index, partition)| {
            let Some(seen) = &partition.seen else { return true };
            let seen = seen.borrow();
            let mine = |other: &usize| *other == index;
            seen.keys.iter().all(|key| writer.get(&**key).is_none_or(mine))
                && seen.ranges.iter().all(|(from, until)| {
                    writer.range::<[u8], _>(between(from, until)).all(|(_, at)| mine(at))
                })
        });
        apart.then(|| partitions.into_iter().flat_map(Self::into_writes).collect())
    }

    /// Rows by their whole keys, those of the sink with the writes over them.
    fn scan_merged(
        &self,
        from: Vec<u8>,
        until: &[u8],
        count_max: usize,
    ) -> Result<Vec<(Bytes, Bytes)>, SinkError> {
        let (mut from, mut rows) = (from, Vec::new());
        while rows.len() < count_max && *from < *until {
            let stored = self.base.scan(&from, until, count_max)?;
            // Beyond a page that is full the sink has more, which are not known yet.
            let known_until = match stored.last() {
                Some((last, _)) if stored.len() == count_max => [last, &[0][..]].concat(),
                Some(_) | None => until.to_vec(),
            };
            let mut merged: BTreeMap<Bytes, Option<Bytes>> =
                stored.into_iter().map(|(key, value)| (key, Some(value))).collect();
            let written = self.writes.range::<[u8], _>(between(&from, &known_until));
            merged.extend(written.map(|(key, value)| (key.clone(), value.clone())));
            let left = count_max - rows.len();
            rows.extend(merged.into_iter().filter_map(|(k, v)| Some((k, v?))).take(left));
            from = known_until;
        }
        Ok(rows)
    }

    /// Keeps an error of the sink, which is no matter of the handler's.
    fn noting<T>(&self, result: Result<T, SinkError>) -> Result<T, SinkError> {
        result.inspect_err(|error| {
            self.failed.borrow_mut().get_or_insert_with(|| error.clone());
        })
    }
}

impl Rows for Tx<'_> {
    fn get_bytes(&self, key: &[u8]) -> Result<Option<Bytes>, SinkError> {
        let key = self.whole_key(key);
        if let Some(written) = self.writes.get(&key) {
            return Ok(written.clone());
        }
        if let Some(seen) = &self.seen {
            seen.borrow_mut().keys.insert(key.clone());
        }
        self.noting(self.base.get(&key))
    }

    fn scan_bytes(
        &self,
        from: &[u8],
        until: &[u8],
        count_max: usize,
    ) -> Result<Vec<(Bytes, Bytes)>, SinkError> {
        if from >= until {
            return Ok(Vec::new());
        }
        let (from, until) = (self.whole_key(from), self.whole_key(until));
        if let Some(seen) = &self.seen {
            seen.borrow_mut().ranges.push((from.to_vec(), until.to_vec()));
        }
        let rows = self.noting(self.scan_merged(from.to_vec(), &until, count_max))?;
        Ok(without_prefix(rows, self.prefix.len()))
    }
}

fn between<'a>(from: &'a [u8], until: &'a [u8]) -> (Bound<&'a [u8]>, Bound<&'a [u8]>) {
    (Bound::Included(from), Bound::Excluded(until))
}

/// Rows with keys as the tables know them.
pub(super) fn without_prefix(rows: Vec<(Bytes, Bytes)>, length: usize) -> Vec<(Bytes, Bytes)> {
    rows.into_iter().map(|(key, value)| (key.slice(length..), value)).collect()
}

/// Removes rows by whole keys of everything that begins with `prefix`, as many as `count_max`; returns whether there may be more.
pub(super) fn remove_some(
    base: &dyn Snapshot,
    prefix: &[u8],
    count_max: usize,
    writes: &mut BTreeMap<Bytes, Option<Bytes>>,
) -> Result<bool, SinkError> {
    let rows = base.scan(prefix, &end_of_prefix(prefix), count_max)?;
    let more = rows.len() == count_max;
    writes.extend(rows.into_iter().map(|(key, _)| (key, None)));
    Ok(more)
}

impl fmt::Debug for Tx<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tx").field("writes", &self.writes.len()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::super::sink::memory::MemorySink;
    use super::super::sink::{Changes, Sink};
    use super::*;

    const T: Table<u64, u64> = Table::new("t");

    fn commit(sink: &MemorySink, writes: BTreeMap<Bytes, Option<Bytes>>) {
        sink.commit(&Changes { expected: Vec::new(), writes }).unwrap();
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(128))]
        #[test]
        fn a_transaction_shows_its_writes_and_forgets_what_is_undone(
            stored in vec((0u64..20, prop::option::of(0u64..9)), 0..30),
            written in vec((0u64..20, prop::option::of(0u64..9)), 0..30),
            undone in vec((0u64..20, prop::option::of(0u64..9)), 0..30),
            from in 0u64..20, count in 1usize..8,
        ) {
            let (sink, mut model) = (MemorySink::new(), BTreeMap::new());
            let apply = |tx: &mut Tx<'_>, steps: &[(u64, Option<u64>)]| {
                for (key, value) in steps {
                    match value {
                        Some(value) => tx.put(&T, key, value).unwrap(),
                        None => tx.remove(&T, key),
                    }
                }
            };
            for steps in [&stored, &written] {
                for (key, value) in steps {
                    match value {
                        Some(value) => { model.insert(*key, *value); }
                        None => { model.remove(key); }
                    }
                }
            }
            let empty = sink.snapshot().unwrap();
            let mut tx = Tx::new(&*empty, vec![7]);
            apply(&mut tx, &stored);
            commit(&sink, tx.into_writes());
            let base = sink.snapshot().unwrap();
            let mut tx = Tx::new(&*base, vec![7]);
            apply(&mut tx, &written);
            let mark = tx.mark();
            apply(&mut tx, &undone);
            tx.undo_to(mark);
            let wanted: Vec<_> = model.iter().map(|(k, v)| (*k, *v)).collect();
            prop_assert_eq!(tx.scan(&T, 100).unwrap(), wanted.clone());
            let wanted: Vec<_> = wanted.into_iter().filter(|(k, _)| *k >= from).take(count).collect();
            prop_assert_eq!(tx.scan_from(&T, &from, count).unwrap(), wanted);
            for key in 0..20 {
                prop_assert_eq!(tx.get(&T, &key).unwrap(), model.get(&key).copied());
            }
        }
    }

    #[test]
    fn partitions_merge_unless_one_touches_what_another_writes() {
        let sink = MemorySink::new();
        let base = sink.snapshot().unwrap();
        let merged = |first: &dyn Fn(&mut Tx<'_>), second: &dyn Fn(&mut Tx<'_>)| {
            let mut partitions =
                vec![Tx::of_partition(&*base, vec![7]), Tx::of_partition(&*base, vec![7])];
            first(&mut partitions[0]);
            second(&mut partitions[1]);
            Tx::merge(partitions).map(|writes| writes.len())
        };
        let put = |key: u64| move |tx: &mut Tx<'_>| tx.put(&T, &key, &1).unwrap();
        let get = |key: u64| move |tx: &mut Tx<'_>| assert_eq!(tx.get(&T, &key).unwrap(), None);
        let scan =
            |from: u64| move |tx: &mut Tx<'_>| assert_eq!(tx.scan_from(&T, &from, 9).unwrap(), []);
        assert_eq!(merged(&put(1), &put(2)), Some(2));
        assert_eq!(merged(&put(1), &put(1)), None, "both write");
        assert_eq!(merged(&put(1), &get(1)), None, "one reads");
        assert_eq!(merged(&put(1), &get(2)), Some(1));
        assert_eq!(merged(&put(1), &scan(0)), None, "one scans");
        assert_eq!(merged(&put(1), &scan(2)), Some(1));
    }
}
