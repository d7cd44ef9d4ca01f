//! What is done when memory is scarce: entries give way by the policy, and sparse blocks are emptied.

use super::{Cause, Class, DATABASE_COUNT, Now, Shard, entry};
use crate::store::eviction::{Candidate, SAMPLE, SAMPLE_MAX};
use crate::store::index::{SHARD_SLOTS, local};
use crate::store::statistics::next_random;
use crate::store::{Policy, Pressure};

/// The most entries that give way, and blocks that are emptied, while one cell is wanted.
const EVICTIONS_FOR_A_CELL: usize = 32;
const BLOCKS_FOR_A_CELL: usize = 2;

/// The most bytes that one call frees: the lock is held meanwhile.
const BYTES_AT_ONCE: u64 = 64 * 1024;

/// How many entries are looked at for one with a deadline when the wheel has none to offer.
const LOOKED_AT: usize = 1024;

impl Shard {
    /// Sees to it, if it can, that a cell of `class` is to be had within the limit. `kept` does not give way. True if anything was
    /// moved or removed, so that handles may lead elsewhere.
    #[inline]
    pub(super) fn make_room_for(&mut self, class: Class, kept: Option<u32>, now: Now) -> bool {
        if self.arena.has_room(class) {
            return false;
        }
        let bytes = self.arena.next_block_bytes(class);
        if !self.accounts.is_scarce(bytes) || self.policy == Policy::NoEviction {
            return false;
        }
        self.make_scarce_room(class, kept, now)
    }

    #[cold]
    fn make_scarce_room(&mut self, class: Class, kept: Option<u32>, now: Now) -> bool {
        let mut kept = kept;
        let (mut blocks, mut evictions) = (0, 0);
        loop {
            self.publish();
            let bytes = self.arena.next_block_bytes(class);
            if self.arena.has_room(class) || !self.accounts.is_scarce(bytes) {
                break;
            }
            if blocks < BLOCKS_FOR_A_CELL && self.is_sparse() {
                blocks += 1;
                if self.empty_a_block(kept.as_mut(), now) {
                    continue;
                }
            }
            evictions += 1;
            if evictions > EVICTIONS_FOR_A_CELL
                || self.evict_one(kept, Pressure::Write, now).is_none()
            {
                // What is wanted comes out of the reserve.
                break;
            }
        }
        blocks + evictions > 0
    }

    /// Whether so much of the arena is idle that it pays to move cells.
    fn is_sparse(&self) -> bool {
        self.arena.idle_bytes() * 8 > self.arena.heap_bytes()
    }

    /// Frees about `bytes`, or less if so many would take long. Returns how many became free, in cells or in blocks.
    pub(in crate::store) fn evict(&mut self, bytes: u64, pressure: Pressure, now: Now) -> u64 {
        let wanted = usize::try_from(bytes.min(BYTES_AT_ONCE)).expect("not many");
        let before = self.occupied();
        let mut freed = 0;
        let mut blocks = 0;
        while before.saturating_sub(self.occupied()) < wanted && freed < 2 * wanted {
            let sparse = self.is_sparse() && blocks < BLOCKS_FOR_A_CELL;
            if sparse && self.empty_a_block(None, now) {
                blocks += 1;
                continue;
            }
            match self.evict_one(None, pressure, now) {
                Some(bytes) => freed += bytes,
                None if self.empty_a_block(None, now) => {}
                None => break,
            }
        }
        self.publish();
        freed.max(before.saturating_sub(self.occupied())) as u64
    }

    fn occupied(&self) -> usize {
        self.arena.heap_bytes() + self.objects.heap_bytes()
    }

    /// A piece of what is to be done without anybody waiting: what exceeds a limit that was lowered goes, and sparse blocks are
    /// emptied. True if there is more to evict.
    pub(super) fn tidy(&mut self, now: Now) -> bool {
        /// Idle bytes that are no reason to move anything.
        const FINE: usize = 32 * 1024;
        if self.arena.idle_bytes() > FINE && self.arena.idle_bytes() * 4 > self.arena.heap_bytes() {
            self.empty_a_block(None, now);
        }
        let excess = self.accounts.excess(0);
        if excess == 0 || self.policy == Policy::NoEviction {
            return false;
        }
        let within = self.accounts.is_within_limit();
        let pressure = if within { Pressure::Resident } else { Pressure::LimitLowered };
        self.evict(excess, pressure, now) > 0 && self.accounts.excess(0) > 0
    }

    /// Moves the cells of a sparse block elsewhere and gives it back. False if there is none. `kept` follows its cell.
    fn empty_a_block(&mut self, mut kept: Option<&mut u32>, now: Now) -> bool {
        let Some(block) = self.arena.sparse_block() else { return false };
        #[cfg(feature = "sim")]
        self.accounts.note_compaction();
        for (old, new) in self.arena.empty_block(block) {
            if let Some(kept) = kept.as_mut()
                && **kept == old
            {
                **kept = new;
            }
            #[cfg(feature = "sim")]
            if self.has_bug(crate::sim::PlantedBug::CompactionLeavesStaleHandle) {
                continue;
            }
            self.with_key(new, |shard, key| {
                let database = entry::database(shard.arena.cell(new));
                shard.index_mut(database).replace(local(key.slot), key.hash, old, new);
            });
            let deadline = entry::deadline(self.arena.cell(new));
            if let Some(due) = super::earlier(deadline, self.parts_due(new)) {
                self.file(new, due, now);
            }
        }
        true
    }

    /// Has one entry give way, other than `kept`. Returns the bytes that became free; None if there is none that may.
    fn evict_one(&mut self, kept: Option<u32>, pressure: Pressure, now: Now) -> Option<usize> {
        let mut handles = Vec::with_capacity(SAMPLE_MAX);
        let mut candidates = Vec::with_capacity(SAMPLE_MAX);
        let chosen = loop {
            let known = handles.len();
            let wanted = known + SAMPLE;
            #[cfg(feature = "sim")]
            let any = self.has_bug(crate::sim::PlantedBug::VolatilePolicyEvictsAny);
            #[cfg(not(feature = "sim"))]
            let any = false;
            if self.eviction.is_volatile_only() && !any {
                self.sample_volatile(&mut handles, wanted);
            } else {
                self.sample_any(&mut handles, wanted);
            }
            let more = handles.len() == wanted && wanted < SAMPLE_MAX;
            handles.retain(|handle| Some(*handle) != kept);
            let new = handles.get(known..).unwrap_or_default();
            candidates.extend(new.iter().map(|handle| self.candidate(*handle)));
            if candidates.is_empty() {
                return None;
            }
            if let Some(chosen) = self.eviction.choose(&candidates, more, now) {
                break chosen;
            }
        };
        let (handle, candidate) = (handles[chosen], candidates[chosen]);
        self.with_key(handle, |shard, key| match candidate.deadline {
            Some(deadline) if deadline <= now.unix => shard.expire(key, handle, deadline, now),
            _ => {
                shard.remove_entry(shard.place(key), handle);
                shard.next_version(now);
                shard.eviction.on_evict(key.hash, candidate.meta);
                shard.statistics.evicted(key.database, key.hash, pressure);
                shard.changed(key, Cause::Evicted);
            }
        });
        Some(candidate.bytes)
    }

    fn candidate(&self, handle: u32) -> Candidate {
        let cell = self.arena.cell(handle);
        let object = entry::object(cell).map_or(0, |object| self.objects.bytes_of(object));
        Candidate {
            hash: crate::store::hash_of(self.key_of(handle), self.hash_seed),
            meta: entry::meta(cell),
            bytes: cell.len() + object,
            deadline: entry::deadline(cell),
        }
    }

    /// Neighbours in the order of the hashes from a random place: as good as drawn one by one.
    fn sample_any(&mut self, handles: &mut Vec<u32>, wanted: usize) {
        let Some(count) = u64::try_from(self.entries).ok().filter(|count| *count > 0) else {
            return;
        };
        // A database in proportion to its keys.
        let mut draw = next_random(&mut self.random) % count;
        let mut database = 0;
        while draw >= self.indexes[database].len() as u64 {
            draw -= self.indexes[database].len() as u64;
            database = (database + 1) % DATABASE_COUNT;
        }
        self.sample_index(database, handles, wanted, |_, _| true);
    }

    /// Adds neighbours that `is_wanted` from a random place on, once around, until there are `count`.
    fn sample_index(
        &mut self,
        database: usize,
        handles: &mut Vec<u32>,
        count: usize,
        is_wanted: impl Fn(&Self, u32) -> bool,
    ) {
        let draw = next_random(&mut self.random);
        let slot = usize::try_from(draw % SHARD_SLOTS as u64).expect("below a small number");
        let from = (draw >> 32) as u32;
        let mut looked_at = 0;
        for around in [false, true] {
            let start = if around { (0, 0) } else { (slot, from) };
            self.indexes[database].walk(start.0, start.1, |at, hash, handle| {
                looked_at += 1;
                if looked_at > LOOKED_AT || (around && (at, hash) >= (slot, from)) {
                    return false;
                }
                if is_wanted(self, handle) {
                    handles.push(handle);
                }
                handles.len() < count
            });
            if handles.len() >= count {
                break;
            }
        }
    }

    fn sample_volatile(&mut self, handles: &mut Vec<u32>, wanted: usize) {
        if self.volatile.iter().all(|count| *count == 0) {
            return;
        }
        if self.policy == Policy::VolatileTtl {
            self.expiry.nearest(wanted, handles);
        } else {
            let draw = next_random(&mut self.random);
            self.expiry.sample(draw, wanted, handles);
        }
        let is_volatile = |shard: &Self, handle: u32| {
            shard.arena.is_live(handle) && entry::deadline(shard.arena.cell(handle)).is_some()
        };
        handles.retain(|handle| is_volatile(self, *handle));
        for database in 0..DATABASE_COUNT {
            if handles.is_empty() && self.volatile[database] > 0 {
                self.sample_index(database, handles, wanted, is_volatile);
            }
        }
    }
}
