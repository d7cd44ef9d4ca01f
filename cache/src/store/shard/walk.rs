//! What looks at many keys: scans, slots, random keys, sizes, and what concerns whole databases.

use super::{DATABASE_COUNT, Now, Shard, View, entry};
use crate::slot::Slot;
use crate::store::Cursor;
use crate::store::index::{SHARD_SLOTS, local};
use crate::types::{Database, UnixMillis};

impl Shard {
    fn is_due(&self, handle: u32, now: UnixMillis) -> bool {
        entry::deadline(self.arena.cell(handle)).is_some_and(|deadline| deadline <= now)
    }

    /// How many keys a database has, and how many of them have a deadline.
    pub(in crate::store) fn sizes(&self, database: Database) -> (usize, usize) {
        let physical = self.physical(database);
        (self.index(physical).len(), self.volatile[usize::from(physical)])
    }

    /// Visits keys from `cursor` on until `left` is used up, and then says where to go on. All keys of one hash are visited in one
    /// call.
    pub(in crate::store) fn scan(
        &self,
        database: Database,
        cursor: Cursor,
        left: &mut usize,
        now: UnixMillis,
        visit: &mut impl FnMut(&[u8], View<'_>),
    ) -> Option<Cursor> {
        let first = usize::from(self.number) * SHARD_SLOTS;
        let (slot, hash) = (cursor.slot(), cursor.hash());
        let (slot, hash) = match slot.checked_sub(first) {
            None => (0, 0),
            Some(slot) if slot < SHARD_SLOTS => (slot, hash),
            Some(_) => return None,
        };
        let (mut next, mut last) = (None, None);
        self.index(self.physical(database)).walk(slot, hash, |slot, hash, handle| {
            if *left == 0 && last != Some((slot, hash)) {
                next = Some(Cursor::at(first + slot, hash));
                return false;
            }
            last = Some((slot, hash));
            if !self.is_due(handle, now) {
                *left = left.saturating_sub(1);
                visit(self.key_of(handle), self.view(handle));
            }
            true
        });
        next
    }

    /// How many keys a slot has in the first database.
    pub(in crate::store) fn slot_len(&self, slot: Slot) -> usize {
        self.index(self.physical(Database(0))).slot_len(local(slot))
    }

    /// At most `count` keys of a slot in the first database.
    pub(in crate::store) fn slot_keys(
        &self,
        slot: Slot,
        count: usize,
        now: UnixMillis,
    ) -> Vec<Vec<u8>> {
        let mut keys = Vec::new();
        if count == 0 {
            return keys;
        }
        self.index(self.physical(Database(0))).walk_slot(local(slot), |_, handle| {
            if !self.is_due(handle, now) {
                keys.push(self.key_of(handle).to_vec());
            }
            keys.len() < count
        });
        keys
    }

    /// Key number `number` in the order of slots and hashes, unless its deadline has passed.
    pub(in crate::store) fn nth(
        &self,
        database: Database,
        number: usize,
        now: UnixMillis,
    ) -> Option<Vec<u8>> {
        let handle = self.index(self.physical(database)).nth(number)?;
        (!self.is_due(handle, now)).then(|| self.key_of(handle).to_vec())
    }

    /// Removes all keys of a database, or of all. Whoever calls leaves the change behind.
    pub(in crate::store) fn flush(&mut self, database: Option<Database>, now: Now) {
        let physical = database.map(|database| self.physical(database));
        let others =
            (0..DATABASE_COUNT).filter(|at| physical.is_some_and(|it| usize::from(it) != *at));
        if others.map(|at| self.indexes[at].len()).sum::<usize>() == 0 {
            self.indexes = Default::default();
            self.volatile = Default::default();
            self.with_parts = 0;
            self.arena.clear();
            self.objects.clear();
            self.expiry.clear();
        } else if let Some(physical) = physical {
            let index = std::mem::take(self.index_mut(physical));
            index.walk(0, 0, |_, _, handle| {
                self.free_cell(physical, handle);
                true
            });
        }
        self.next_version(now);
        self.publish();
    }

    /// Exchanges two databases.
    pub(in crate::store) fn swap(&mut self, left: Database, right: Database, now: Now) {
        self.databases.swap(usize::from(left.0), usize::from(right.0));
        self.next_version(now);
    }
}
