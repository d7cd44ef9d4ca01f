//! What looks at many keys: scans, slots, random keys, sizes, and what concerns whole databases.

use super::{DATABASE_COUNT, Now, Shard, View, entry};
use crate::slot::Slot;
use crate::store::Cursor;
use crate::store::index::{SHARD_SLOTS, local};
use crate::store::statistics::next_random;
use crate::types::Database;

impl Shard {
    fn is_due(&self, handle: u32, now: Now) -> bool {
        entry::deadline(self.arena.cell(handle)).is_some_and(|deadline| deadline <= now.unix)
    }

    /// Whether parts of the value are due, so that it must not be lent out as it is.
    fn has_due_parts(&self, handle: u32, now: Now) -> bool {
        self.parts_due(handle).is_some_and(|due| due <= now.unix)
    }

    /// How many keys a database has, and how many of them have a deadline.
    pub(in crate::store) fn sizes(&self, database: Database) -> (usize, usize) {
        let physical = self.physical(database);
        (self.index(physical).len(), self.volatile[usize::from(physical)])
    }

    /// Visits keys from `cursor` on until `left` is used up, and then says where to go on. All keys of one hash are visited in one
    /// call. A value that has just lost its last part counts as visited.
    pub(in crate::store) fn scan(
        &mut self,
        database: Database,
        cursor: Cursor,
        left: &mut usize,
        now: Now,
        visit: &mut impl FnMut(&[u8], View<'_>),
    ) -> Option<Cursor> {
        let first = usize::from(self.number) * SHARD_SLOTS;
        let (slot, hash) = (cursor.slot(), cursor.hash());
        let (slot, hash) = match slot.checked_sub(first) {
            None => (0, 0),
            Some(slot) if slot < SHARD_SLOTS => (slot, hash),
            Some(_) => return None,
        };
        #[cfg(feature = "sim")]
        let hash = self.hash_of_place(database, slot, hash);
        let (mut next, mut last) = (None, None);
        let mut with_due_parts = Vec::new();
        self.index(self.physical(database)).walk(slot, hash, |slot, hash, handle| {
            if *left == 0 && last != Some((slot, hash)) {
                #[cfg(feature = "sim")]
                let hash = self.place_of_hash(database, slot, hash);
                next = Some(Cursor::at(first + slot, hash));
                return false;
            }
            #[cfg(feature = "sim")]
            if *left == 0 && self.has_bug(crate::sim::PlantedBug::ScanSkipsEqualHashes) {
                next = Some(Cursor::at(first + slot, hash.saturating_add(1)));
                return false;
            }
            last = Some((slot, hash));
            if self.is_due(handle, now) {
                return true;
            }
            *left = left.saturating_sub(1);
            if self.has_due_parts(handle, now) {
                with_due_parts.push(handle);
            } else {
                visit(self.key_of(handle), self.view(handle));
            }
            true
        });
        for handle in with_due_parts {
            self.with_key(handle, |shard, key| {
                if let Some(view) = shard.peek(key, now) {
                    visit(key.bytes, view);
                }
            });
        }
        next
    }

    /// How many places a scan tells apart in a slot's table, if it goes on by place.
    #[cfg(feature = "sim")]
    fn places(&self, database: Database, slot: usize) -> Option<u64> {
        self.has_bug(crate::sim::PlantedBug::ScanByPlace)
            .then(|| (self.index(self.physical(database)).words(slot).max(1) as u64) << 12)
    }

    #[cfg(feature = "sim")]
    fn place_of_hash(&self, database: Database, slot: usize, hash: u32) -> u32 {
        let places = self.places(database, slot);
        places.map_or(hash, |places| ((u64::from(hash) * places) >> 32) as u32)
    }

    #[cfg(feature = "sim")]
    fn hash_of_place(&self, database: Database, slot: usize, place: u32) -> u32 {
        let hash = self.places(database, slot).map(|places| (u64::from(place) << 32) / places);
        hash.map_or(place, |hash| u32::try_from(hash).unwrap_or(u32::MAX))
    }

    /// Looks at some keys from a random one on: the milliseconds that those live which have a deadline, and how many they are.
    pub(in crate::store) fn sample_ttl(&mut self, database: Database, now: Now) -> (u128, u64) {
        const LOOKS: usize = 64;
        const SAMPLES: u64 = 16;
        let index = self.index(self.physical(database));
        if self.volatile[usize::from(self.physical(database))] == 0 {
            return (0, 0);
        }
        // From the beginning if that is all there is, so that a few keys are told exactly.
        let few = index.len() <= LOOKS;
        let mut random = self.random;
        let draw = if few { 0 } else { next_random(&mut random) };
        let slot = usize::try_from(draw % SHARD_SLOTS as u64).expect("a slot's number");
        let (mut sum, mut count) = (0, 0);
        let mut from = |slot, hash| {
            let mut looks = 0;
            index.walk(slot, hash, |_, _, handle| {
                if let Some(deadline) = entry::deadline(self.arena.cell(handle))
                    && deadline > now.unix
                {
                    sum += u128::from(now.unix.until(deadline));
                    count += 1;
                }
                looks += 1;
                looks < LOOKS && count < SAMPLES
            });
            looks
        };
        let hash = u32::try_from(draw >> 32).expect("the upper half");
        // Behind the last key comes the first.
        if from(slot, hash) == 0 {
            from(0, 0);
        }
        self.random = random;
        (sum, count)
    }

    /// How many keys a slot has in the first database.
    pub(in crate::store) fn slot_len(&self, slot: Slot) -> usize {
        self.index(self.physical(Database(0))).slot_len(local(slot))
    }

    /// At most `count` keys of a slot in the first database.
    pub(in crate::store) fn slot_keys(&self, slot: Slot, count: usize, now: Now) -> Vec<Vec<u8>> {
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

    /// Key number `number` in the order of slots and hashes, unless it has just expired.
    pub(in crate::store) fn nth(
        &mut self,
        database: Database,
        number: usize,
        now: Now,
    ) -> Option<Vec<u8>> {
        let handle = self.index(self.physical(database)).nth(number)?;
        self.with_key(handle, |shard, key| shard.live(key, now).map(|_| key.bytes.to_vec()))
    }

    /// Removes all keys of a database, or of all. Whoever calls leaves the change behind.
    pub(in crate::store) fn flush(&mut self, database: Option<Database>, now: Now) {
        let physical = database.map(|database| self.physical(database));
        let others =
            (0..DATABASE_COUNT).filter(|at| physical.is_some_and(|it| usize::from(it) != *at));
        if others.map(|at| self.indexes[at].len()).sum::<usize>() == 0 {
            self.indexes = Default::default();
            (self.entries, self.index_bytes) = (0, 0);
            self.volatile = Default::default();
            self.with_parts = 0;
            self.arena.clear();
            self.objects.clear();
            self.expiry.clear();
        } else if let Some(physical) = physical {
            let index = std::mem::take(self.index_mut(physical));
            self.entries -= index.len();
            self.index_bytes -= index.heap_bytes();
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
