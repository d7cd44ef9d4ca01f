//! What the timing wheel brings up: entries and parts of entries whose deadline has passed.

use super::{Cause, Hash, Key, Now, Shard, UnixMillis, earlier};
use crate::slot::Slot;
use crate::store::{entry, expiry::Element, expiry::TICK_MS, hash_of};
use crate::value::Stored as _;

/// What it costs to look at an element that is filed anew or dropped, and at one that expires, in units of the budget.
const LOOK: usize = 1;
const EXPIRE: usize = 8;

/// In how many milliseconds each cell is looked at for its age, and how many blocks of them a call of `advance` looks at, at most: were
/// it called too seldom for that, the oldest would count as used a moment ago.
const AGING_MS: u64 = 512_000;
const AGED_BLOCKS: usize = 16;

/// How many elements a call of `advance` sweeps at most.
const SWEEP: usize = 512;

impl Shard {
    /// Removes entries that are due, at most `budget` of them, and does a piece of what else is to be tidied. True if more
    /// is due.
    pub(in crate::store) fn advance(&mut self, budget: usize, now: Now) -> bool {
        let mut left = budget.max(1).saturating_mul(EXPIRE);
        let more = loop {
            if left == 0 {
                break true;
            }
            match self.expiry.next(now.unix) {
                Some(element) => left = left.saturating_sub(self.look_at(element, left, now)),
                None => break false,
            }
        };
        let mut swept = SWEEP.saturating_mul(LOOK);
        while swept > 0 {
            let Some(element) = self.expiry.sweep() else { break };
            swept = swept.saturating_sub(self.look_at(element, swept, now));
        }
        self.age(now);
        let volatile: usize = self.volatile.iter().sum();
        self.expiry.review(volatile + self.with_parts);
        let more_to_evict = self.tidy(now);
        self.weigh_sides();
        self.publish();
        more || more_to_evict
    }

    /// Looks at the cell of an element, and says what that cost. That is about `budget` at most: of a hash with very many fields that
    /// are due, those that are left come with the next look, which is due at once.
    fn look_at(&mut self, element: Element, budget: usize, now: Now) -> usize {
        let handle = element.handle;
        if !self.arena.is_live(handle) {
            return LOOK;
        }
        let cell = self.arena.cell(handle);
        if element.swept && entry::epoch(cell) == self.expiry.epoch() {
            return LOOK;
        }
        let deadline = entry::deadline(cell);
        if let Some(deadline) = deadline
            && deadline <= now.unix
        {
            self.with_key(handle, |shard, key| shard.expire(key, handle, deadline, now));
            return EXPIRE;
        }
        let parts = self.parts_due(handle);
        if parts.is_some_and(|parts| parts <= now.unix) {
            let most = (budget / EXPIRE).max(1);
            let expired =
                self.with_key(handle, |shard, key| shard.expire_parts(key, handle, most, now));
            return expired.max(1) * EXPIRE;
        }
        if let Some(due) = earlier(deadline, parts) {
            self.file(handle, due, now);
        }
        LOOK
    }

    /// Calls `then` with the key of a live cell.
    pub(super) fn with_key<R>(
        &mut self,
        handle: u32,
        then: impl FnOnce(&mut Self, &Key<'_>) -> R,
    ) -> R {
        let mut bytes = std::mem::take(&mut self.key_scratch);
        bytes.clear();
        bytes.extend_from_slice(self.key_of(handle));
        let database = self.logical(entry::database(self.arena.cell(handle)));
        let hash = hash_of(&bytes, self.hash_seed);
        let key = Key { bytes: &bytes, database, slot: Slot::of(&bytes), hash };
        let result = then(self, &key);
        if bytes.capacity() <= super::SCRATCH_MAX {
            self.key_scratch = bytes;
        }
        result
    }

    /// Removes an entry whose deadline has passed.
    pub(super) fn expire(&mut self, key: &Key<'_>, handle: u32, deadline: UnixMillis, now: Now) {
        self.remove_entry(self.place(key), handle);
        self.next_version(now);
        self.statistics.expired(key.database, key.hash, deadline.until(now.unix));
        self.changed(key, Cause::Expired);
    }

    /// Removes at most `most` parts of an entry's value whose deadlines have passed, and the entry with the last of all. Says how
    /// many parts those were.
    pub(super) fn expire_parts(
        &mut self,
        key: &Key<'_>,
        handle: u32,
        most: usize,
        now: Now,
    ) -> usize {
        let edited = self.edit_entry(key, handle, now, |hash: &mut Hash| {
            let expired = hash.expire_parts(now.unix, most);
            (expired, hash.next_deadline())
        });
        let (expired, next) = edited.result;
        if edited.empty {
            self.remove_entry(self.place(key), handle);
            self.next_version(now);
            self.statistics.expired(key.database, key.hash, 0);
            self.changed(key, Cause::LastPartExpired);
        } else if edited.changed || expired > 0 {
            self.changed(key, Cause::PartsExpired);
        } else if let Some(next) = next {
            // Nothing was removed, so the entry is where it was: it has to be looked at again, and not at once.
            self.file(handle, next.max(UnixMillis(now.unix.0.saturating_add(TICK_MS))), now);
        }
        expired
    }

    /// Looks at some cells, such that all are looked at in [`AGING_MS`]: what is noted of the last use holds a little more than an
    /// hour, and would begin anew.
    fn age(&mut self, now: Now) {
        if self.entries == 0 {
            return;
        }
        let blocks = self.arena.blocks_len();
        let elapsed = now.monotonic_us / 1000 % AGING_MS;
        let part = u128::from(elapsed) * (blocks as u128 + 1) / u128::from(AGING_MS);
        let wanted = usize::try_from(part).expect("no more than there are blocks");
        for _ in 0..AGED_BLOCKS {
            if self.aged == wanted {
                break;
            }
            self.aged = if self.aged >= blocks { 0 } else { self.aged + 1 };
            let Ok(number) = u32::try_from(self.aged) else { break };
            if number == 0 || self.aged > blocks {
                continue;
            }
            for handle in self.arena.cells_of(number) {
                let meta = entry::meta(self.arena.cell(handle));
                if let Some(aged) = self.eviction.aged(meta, now) {
                    entry::set_meta(self.arena.cell_mut(handle), aged);
                }
            }
        }
    }
}
