//! A sink in memory, for tests and for read models that are built again at every start.
//!
//! The map is cut into chunks of neighbouring keys, each behind a counted reference, and so is the list of the chunks. A snapshot is
//! one more reference to the list. A commit copies what somebody else still refers to, and only that: the list, which is short, and
//! the chunks that it changes. So neither side ever waits for the other for longer than it takes to copy a reference.

use std::sync::{Arc, PoisonError, RwLock};

use bytes::Bytes;

use super::{Changes, Sink, SinkError, Snapshot};

/// A chunk that grows beyond this is cut in two.
const CHUNK_ROWS_MAX: usize = 256;

/// A sink in memory.
#[derive(Debug, Default)]
pub struct MemorySink {
    rows: RwLock<Arc<Rows>>,
}

/// Rows in order of their keys. No chunk is empty.
#[derive(Clone, Debug, Default)]
struct Rows {
    chunks: Vec<Arc<Vec<(Bytes, Bytes)>>>,
}

impl MemorySink {
    /// An empty sink.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }
}

impl Sink for MemorySink {
    fn snapshot(&self) -> Result<Box<dyn Snapshot>, SinkError> {
        let rows = self.rows.read().unwrap_or_else(PoisonError::into_inner);
        Ok(Box::new(MemorySnapshot(Arc::clone(&rows))))
    }

    fn commit(&self, changes: &Changes) -> Result<(), SinkError> {
        let mut rows = self.rows.write().unwrap_or_else(PoisonError::into_inner);
        if changes.expected.iter().any(|(key, value)| rows.get(key) != value.as_ref()) {
            return Err(SinkError::Moved);
        }
        let rows = Arc::make_mut(&mut rows);
        for (key, value) in &changes.writes {
            match value {
                Some(value) => rows.insert(key, value),
                None => rows.remove(key),
            }
        }
        Ok(())
    }
}

#[derive(Debug)]
struct MemorySnapshot(Arc<Rows>);

impl Snapshot for MemorySnapshot {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, SinkError> {
        Ok(self.0.get(key).cloned())
    }

    fn scan(
        &self,
        from: &[u8],
        until: &[u8],
        count_max: usize,
    ) -> Result<Vec<(Bytes, Bytes)>, SinkError> {
        Ok(self.0.scan(from, until, count_max))
    }
}

impl Rows {
    /// The chunk in which `key` is, or would be put.
    fn chunk_of(&self, key: &[u8]) -> usize {
        self.chunks.partition_point(|chunk| &*chunk[0].0 <= key).saturating_sub(1)
    }

    fn get(&self, key: &[u8]) -> Option<&Bytes> {
        let chunk = self.chunks.get(self.chunk_of(key))?;
        let at = place(chunk, key).ok()?;
        Some(&chunk[at].1)
    }

    fn scan(&self, from: &[u8], until: &[u8], count_max: usize) -> Vec<(Bytes, Bytes)> {
        let chunks = &self.chunks[self.chunk_of(from)..];
        let rows = chunks.iter().enumerate().flat_map(|(index, chunk)| {
            let skipped = if index == 0 { place(chunk, from).unwrap_or_else(|at| at) } else { 0 };
            &chunk[skipped..]
        });
        rows.take_while(|(key, _)| &**key < until).take(count_max).cloned().collect()
    }

    fn insert(&mut self, key: &Bytes, value: &Bytes) {
        let index = self.chunk_of(key);
        let Some(chunk) = self.chunks.get_mut(index) else {
            self.chunks.push(Arc::new(vec![(key.clone(), value.clone())]));
            return;
        };
        let rows = Arc::make_mut(chunk);
        match place(rows, key) {
            Ok(at) => rows[at].1 = value.clone(),
            Err(at) => rows.insert(at, (key.clone(), value.clone())),
        }
        if rows.len() > CHUNK_ROWS_MAX {
            // Keys often come in order: the upper part is left small then, and the lower one full.
            let cut = if rows.last().is_some_and(|(last, _)| last == key) {
                CHUNK_ROWS_MAX
            } else {
                CHUNK_ROWS_MAX / 2
            };
            let upper = rows.split_off(cut);
            self.chunks.insert(index + 1, Arc::new(upper));
        }
    }

    fn remove(&mut self, key: &[u8]) {
        let index = self.chunk_of(key);
        let Some(chunk) = self.chunks.get_mut(index) else { return };
        let Ok(at) = place(chunk, key) else { return };
        if chunk.len() == 1 {
            self.chunks.remove(index);
        } else {
            Arc::make_mut(chunk).remove(at);
        }
    }
}

fn place(rows: &[(Bytes, Bytes)], key: &[u8]) -> Result<usize, usize> {
    rows.binary_search_by(|(other, _)| (**other).cmp(key))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    fn key(number: u16) -> Bytes {
        Bytes::copy_from_slice(&number.to_be_bytes())
    }

    fn put(sink: &MemorySink, number: u16, value: Option<u8>) {
        let value = value.map(|value| Bytes::copy_from_slice(&[value]));
        let changes = Changes { writes: [(key(number), value)].into(), ..Changes::default() };
        sink.commit(&changes).unwrap();
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn it_is_an_ordered_map(
            steps in vec((0u16..900, prop::option::weighted(0.7, any::<u8>())), 0..1500),
            from in 0u16..900, until in 0u16..900, count in 0usize..600,
        ) {
            let (sink, mut model) = (MemorySink::new(), BTreeMap::new());
            for (number, value) in steps {
                put(&sink, number, value);
                match value {
                    Some(value) => { model.insert(number, value); }
                    None => { model.remove(&number); }
                }
            }
            let snapshot = sink.snapshot().unwrap();
            let rows = snapshot.scan(&key(from), &key(until), count).unwrap();
            let wanted: Vec<_> = model
                .iter()
                .filter(|(number, _)| (from..until).contains(*number))
                .take(count)
                .map(|(number, value)| (key(*number), Bytes::copy_from_slice(&[*value])))
                .collect();
            prop_assert_eq!(rows, wanted);
            for number in 0..900 {
                let value = snapshot.get(&key(number)).unwrap();
                prop_assert_eq!(value.map(|value| value[0]), model.get(&number).copied());
            }
        }
    }

    #[test]
    fn a_snapshot_stays_as_it_was() {
        let sink = MemorySink::new();
        (0..1000).for_each(|number| put(&sink, number, Some(1)));
        let before = sink.snapshot().unwrap();
        (0..1000).for_each(|number| put(&sink, number, (number % 2 == 0).then_some(2)));
        let rows = before.scan(&key(0), &key(u16::MAX), 2000).unwrap();
        assert_eq!(rows.len(), 1000);
        assert!(rows.iter().all(|(_, value)| **value == [1]));
        let after = sink.snapshot().unwrap();
        assert_eq!(after.scan(&key(0), &key(u16::MAX), 2000).unwrap().len(), 500);
    }

    #[test]
    fn nothing_is_changed_if_something_is_not_as_expected() {
        let sink = MemorySink::new();
        put(&sink, 1, Some(1));
        let changes = Changes {
            expected: vec![(key(1), None)],
            writes: [(key(2), Some(Bytes::from_static(b"x")))].into(),
        };
        assert!(matches!(sink.commit(&changes), Err(SinkError::Moved)));
        assert_eq!(sink.snapshot().unwrap().get(&key(2)).unwrap(), None);
    }
}
