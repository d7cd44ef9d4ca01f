//! Asserts that the parts of a shard agree. For tests and the simulator.
#![cfg(any(test, feature = "sim"))]

use std::collections::{BTreeMap, BTreeSet};

use super::{Index, Shard, earlier, entry};
use crate::slot::Slot;
use crate::store::expiry::Expiry;
use crate::store::hash_of;
use crate::store::index::local;

impl Shard {
    /// Asserts that index, arena, objects, wheel and accounts agree.
    pub(in crate::store) fn check(&self) {
        let (mut cells, mut objects, mut with_parts) = (0, 0, 0);
        let elements = self.expiry.elements();
        let mut first = BTreeMap::new();
        for (handle, tick, _) in &elements {
            let earliest = first.entry(*handle).or_insert(*tick);
            *earliest = (*earliest).min(*tick);
        }
        let fresh = elements.iter().filter(|(_, _, swept)| !swept);
        let fresh: BTreeSet<_> = fresh.map(|(handle, _, _)| *handle).collect();
        for (number, index) in (0..).zip(&self.indexes) {
            index.check();
            let mut volatile = 0;
            index.walk(0, 0, |slot, hash, handle| {
                cells += 1;
                assert!(self.arena.is_live(handle), "the index leads to live cells");
                let cell = self.arena.cell(handle);
                let key = self.key_of(handle);
                assert_eq!(local(Slot::of(key)), slot, "a key is in its slot");
                assert_eq!(hash_of(key, self.hash_seed), hash, "a key is at its hash");
                assert_eq!(entry::database(cell), number, "a key is in its database");
                let deadline = entry::deadline(cell);
                volatile += usize::from(deadline.is_some());
                with_parts += usize::from(entry::has_parts(cell));
                objects += usize::from(entry::object(cell).is_some());
                if let Some(due) = earlier(deadline, self.parts_due(handle)) {
                    let tick = first.get(&handle);
                    assert!(
                        tick.is_some_and(|tick| *tick <= Expiry::tick(due)),
                        "a cell that expires is looked at in time: {:?} at {tick:?}, due at {due:?}",
                        key.escape_ascii().to_string()
                    );
                    assert!(
                        entry::epoch(cell) != self.expiry.epoch() || fresh.contains(&handle),
                        "a cell with the wheel's mark is in it"
                    );
                }
                true
            });
            assert_eq!(volatile, self.volatile[usize::from(number)], "deadlines are counted");
        }
        let bytes: usize = self.indexes.iter().map(Index::heap_bytes).sum();
        assert_eq!((cells, bytes), (self.entries, self.index_bytes), "the indexes are summed");
        assert_eq!(with_parts, self.with_parts, "entries with parts are counted");
        assert_eq!(self.arena.check(), cells, "every live cell is found by the index");
        assert_eq!(self.objects.check(), objects, "every object belongs to an entry");
    }
}
