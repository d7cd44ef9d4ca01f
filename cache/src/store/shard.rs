//! A shard: the keys of a range of slots, in all databases. Every change of a key is made here, and nowhere else.
//!
//! Three structures belong together. The *index* of a database leads from slot and hash to a cell; the *arena* has the cells,
//! with header, key and packed value; *objects* are the values that are too large for one. The timing wheel knows cells by
//! their handle. What changes an entry goes through `write`, which puts it into a cell of the right size, or through
//! `remove_entry`; and each command's change ends in `changed`, which gives it a version and leaves a [`Change`] behind.
//!
//! Databases are numbered anew within a shard, so that `SWAPDB` exchanges two numbers.

mod check;
mod evict;
mod expire;
mod walk;

use std::sync::Arc;

use super::accounts::{Accounts, Occupied};
use super::arena::{Arena, CELL_MAX, Class};
use super::entry::{self, Header};
use super::eviction::{Eviction, Meta};
use super::expiry::Expiry;
use super::index::{Index, local};
use super::objects::Objects;
use super::statistics::Statistics;
use super::{Cause, Change, Key, Lifetime, Missing, Policy, StoreOptions, WrongType};
use crate::types::{DATABASES, Database, Now, UnixMillis, Version};
use crate::value::{
    Hash, HashView, Kind, List, ListView, Set, SetView, SortedSet, SortedSetView, Stored, Text,
    Value, View,
};

const DATABASE_COUNT: usize = DATABASES as usize;

/// The most bytes that the buffer for editing keeps between two edits.
const SCRATCH_MAX: usize = 64 * 1024;

/// The most bytes of an entry whose value is an object and whose key still lies in the cell.
const OBJECT_CELL_MAX: usize = 1024;

/// A large value that has shrunk to this many bytes lies in a cell again.
const UNBOXED_MAX: usize = CELL_MAX / 4 * 3;

/// One shard of a store.
#[derive(Debug)]
pub(super) struct Shard {
    number: u16,
    hash_seed: u64,
    /// Whether entries keep their version.
    keeps_versions: bool,
    accounts: Arc<Accounts>,
    published: Occupied,
    /// The clients' number of a database leads to the shard's.
    databases: [u8; DATABASE_COUNT],
    /// By the shard's number, as is all below.
    indexes: [Index; DATABASE_COUNT],
    /// All keys of all databases, and the bytes of all indexes.
    entries: usize,
    index_bytes: usize,
    /// Keys with a deadline.
    volatile: [usize; DATABASE_COUNT],
    /// Keys with parts that have deadlines, of all databases.
    with_parts: usize,
    arena: Arena,
    objects: Objects,
    expiry: Expiry,
    /// The block whose cells were looked at last for their age.
    aged: usize,
    pub(super) statistics: Statistics,
    policy: Policy,
    eviction: Eviction,
    /// Bytes of statistics and eviction, weighed now and then.
    side_bytes: usize,
    random: u64,
    version: u64,
    pub(super) changes: Vec<Change>,
    /// Buffers that are used again: a packed value while it is edited; a key while its entry is removed.
    scratch: Vec<u8>,
    key_scratch: Vec<u8>,
}

/// Where an entry belongs, with the database as the shard numbers it.
#[derive(Clone, Copy, Debug)]
struct Place {
    database: u8,
    slot: usize,
    hash: u32,
}

/// What an entry's cell is to hold beside header and key.
#[derive(Clone, Copy, Debug)]
enum Body<'b> {
    Packed(&'b [u8]),
    Object(u32),
}

/// What an edit left.
struct Edited<R> {
    result: R,
    changed: bool,
    empty: bool,
}

impl Shard {
    pub(super) fn new(number: u16, options: &StoreOptions, accounts: Arc<Accounts>) -> Self {
        let seed = options.hash_seed ^ (u64::from(number) + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        Self {
            number,
            hash_seed: options.hash_seed,
            keeps_versions: options.versions,
            accounts,
            published: Occupied::default(),
            databases: std::array::from_fn(|at| u8::try_from(at).expect("sixteen databases")),
            indexes: Default::default(),
            entries: 0,
            index_bytes: 0,
            volatile: Default::default(),
            with_parts: 0,
            arena: Arena::default(),
            objects: Objects::default(),
            expiry: Expiry::default(),
            aged: 0,
            statistics: Statistics::new(seed),
            policy: options.policy,
            eviction: Eviction::new(options.policy, seed),
            side_bytes: 0,
            random: seed,
            version: 0,
            changes: Vec::new(),
            scratch: Vec::new(),
            key_scratch: Vec::new(),
        }
    }

    /// Goes over to `policy`, if it is not the shard's already.
    #[inline]
    pub(super) fn follow(&mut self, policy: Policy) {
        if policy != self.policy {
            self.policy = policy;
            self.eviction.set_policy(policy);
        }
    }

    #[cfg(feature = "sim")]
    fn has_bug(&self, bug: crate::sim::PlantedBug) -> bool {
        self.accounts.bug() == Some(bug)
    }

    /// The version of the last mutation.
    pub(super) fn last_version(&self) -> Version {
        Version(self.version)
    }

    fn physical(&self, database: Database) -> u8 {
        self.databases[usize::from(database.0)]
    }

    fn logical(&self, physical: u8) -> Database {
        let at = self.databases.iter().position(|it| *it == physical);
        Database(u8::try_from(at.expect("databases are a permutation")).expect("sixteen databases"))
    }

    fn place(&self, key: &Key<'_>) -> Place {
        Place { database: self.physical(key.database), slot: local(key.slot), hash: key.hash }
    }

    fn index(&self, database: u8) -> &Index {
        &self.indexes[usize::from(database)]
    }

    fn index_mut(&mut self, database: u8) -> &mut Index {
        &mut self.indexes[usize::from(database)]
    }

    fn index_insert(&mut self, place: Place, handle: u32) {
        let index = &mut self.indexes[usize::from(place.database)];
        let before = index.heap_bytes();
        index.insert(place.slot, place.hash, handle);
        self.index_bytes = self.index_bytes + index.heap_bytes() - before;
        self.entries += 1;
    }

    fn index_remove(&mut self, place: Place, handle: u32) {
        let index = &mut self.indexes[usize::from(place.database)];
        let before = index.heap_bytes();
        index.remove(place.slot, place.hash, handle);
        self.index_bytes = self.index_bytes + index.heap_bytes() - before;
        self.entries -= 1;
    }

    /// The key of a live cell.
    fn key_of(&self, handle: u32) -> &[u8] {
        let cell = self.arena.cell(handle);
        if !entry::is_key_in_object(cell) {
            return entry::key(cell);
        }
        let object = entry::object(cell).expect("an object has the key");
        self.objects.get(object).key.as_ref().expect("the object has the key")
    }

    #[inline]
    fn find(&self, key: &Key<'_>, place: Place) -> Option<u32> {
        let is_it = |handle| self.key_of(handle) == key.bytes;
        self.index(place.database).find(place.slot, place.hash, is_it)
    }

    /// The entry of `key`, if it is there and its deadline has not passed. One whose deadline has passed is removed.
    #[inline]
    fn live(&mut self, key: &Key<'_>, now: Now) -> Option<u32> {
        let handle = self.find(key, self.place(key))?;
        #[cfg(feature = "sim")]
        if self.has_bug(crate::sim::PlantedBug::ExpiredServedWhenWheelLags) {
            return Some(handle);
        }
        let cell = self.arena.cell(handle);
        if let Some(deadline) = entry::deadline(cell)
            && deadline <= now.unix
        {
            self.expire(key, handle, deadline, now);
            return None;
        }
        if entry::has_parts(cell) && self.parts_due(handle).is_some_and(|due| due <= now.unix) {
            self.expire_parts(key, handle, usize::MAX, now);
            return self.find(key, self.place(key));
        }
        Some(handle)
    }

    fn view(&self, handle: u32) -> View<'_> {
        let cell = self.arena.cell(handle);
        if let Some(object) = entry::object(cell) {
            return self.objects.get(object).value.view();
        }
        let bytes = entry::body(cell);
        match entry::kind(cell) {
            Kind::String => View::String(bytes),
            Kind::List => View::List(ListView::Packed(bytes)),
            Kind::Set => View::Set(SetView::Packed(bytes)),
            Kind::SortedSet => View::SortedSet(SortedSetView::Packed(bytes)),
            Kind::Hash => View::Hash(HashView::Packed(bytes)),
        }
    }

    /// Looks a key up, and counts a hit or a miss; `touches` says whether it is noted as a use.
    #[inline]
    pub(super) fn get(&mut self, key: &Key<'_>, now: Now, touches: bool) -> Option<View<'_>> {
        let Some(handle) = self.live(key, now) else {
            self.statistics.miss(key.database, key.hash, key.bytes, now);
            return None;
        };
        if touches {
            self.note_use(handle, now);
        }
        self.statistics.hit(key.database, key.hash, key.bytes, now);
        Some(self.view(handle))
    }

    pub(super) fn peek(&mut self, key: &Key<'_>, now: Now) -> Option<View<'_>> {
        self.live(key, now).map(|handle| self.view(handle))
    }

    fn note_use(&mut self, handle: u32, now: Now) {
        let cell = self.arena.cell_mut(handle);
        let meta = entry::meta(cell);
        let noted = self.eviction.on_use(meta, now);
        if noted != meta {
            entry::set_meta(cell, noted);
        }
    }

    /// Notes a use, and counts nothing.
    pub(super) fn touch(&mut self, key: &Key<'_>, now: Now) -> bool {
        let found = self.live(key, now);
        if let Some(handle) = found {
            self.note_use(handle, now);
        }
        found.is_some()
    }

    pub(super) fn usage(&mut self, key: &Key<'_>, now: Now) -> Option<(u64, u8)> {
        let handle = self.live(key, now)?;
        let meta = entry::meta(self.arena.cell(handle));
        Some((self.eviction.idle_ms(meta, now), self.eviction.frequency(meta, now)))
    }

    pub(super) fn set_idle(&mut self, key: &Key<'_>, idle_ms: u64, now: Now) -> bool {
        self.note(key, now, |eviction, meta| eviction.with_idle(meta, idle_ms, now))
    }

    pub(super) fn set_frequency(&mut self, key: &Key<'_>, frequency: u8, now: Now) -> bool {
        self.note(key, now, |eviction, meta| eviction.with_frequency(meta, frequency, now))
    }

    fn note(
        &mut self,
        key: &Key<'_>,
        now: Now,
        noted: impl FnOnce(&Eviction, Meta) -> Meta,
    ) -> bool {
        let found = self.live(key, now);
        if let Some(handle) = found {
            let cell = self.arena.cell_mut(handle);
            entry::set_meta(cell, noted(&self.eviction, entry::meta(cell)));
        }
        found.is_some()
    }

    pub(super) fn kind(&mut self, key: &Key<'_>, now: Now) -> Option<Kind> {
        self.live(key, now).map(|handle| entry::kind(self.arena.cell(handle)))
    }

    pub(super) fn deadline(&mut self, key: &Key<'_>, now: Now) -> Option<Option<UnixMillis>> {
        self.live(key, now).map(|handle| entry::deadline(self.arena.cell(handle)))
    }

    pub(super) fn version_of(&mut self, key: &Key<'_>, now: Now) -> Option<Version> {
        self.live(key, now).and_then(|handle| Header::read(self.arena.cell(handle)).version)
    }

    /// Bytes that the entry occupies: its cell, its object, and its share of index and wheel.
    pub(super) fn memory_of(&mut self, key: &Key<'_>, now: Now) -> Option<usize> {
        const INDEX_SHARE: usize = 10;
        const WHEEL_SHARE: usize = 5;
        let handle = self.live(key, now)?;
        let cell = self.arena.cell(handle);
        let wheel = if entry::deadline(cell).is_some() { WHEEL_SHARE } else { 0 };
        let object = entry::object(cell).map_or(0, |object| self.objects.bytes_of(object));
        Some(cell.len() + INDEX_SHARE + wheel + object)
    }

    /// The next version of the shard's mutations.
    fn next_version(&mut self, now: Now) -> Version {
        let time = now.unix.0.min((1 << 48) - 1) << 16;
        #[cfg(feature = "sim")]
        if self.has_bug(crate::sim::PlantedBug::VersionStandsStill) {
            self.version = time.max(self.version);
            return Version(self.version);
        }
        self.version = time.max(self.version + 1);
        Version(self.version)
    }

    /// Leaves a change behind, if anybody observes, and publishes what the shard occupies.
    fn changed(&mut self, key: &Key<'_>, cause: Cause) {
        if matches!(cause, Cause::Created | Cause::Written | Cause::Deleted) {
            self.statistics.changed();
        }
        if self.accounts.observed() {
            self.changes.push(Change {
                database: key.database,
                key: key.bytes.into(),
                slot: key.slot,
                version: Version(self.version),
                cause,
            });
        }
        self.publish();
    }

    fn publish(&mut self) {
        let data = self.arena.heap_bytes() + self.objects.heap_bytes();
        let overhead = self.index_bytes + self.expiry.heap_bytes() + self.side_bytes;
        let occupied = Occupied { data, overhead };
        if occupied != self.published {
            self.accounts.publish(self.number, self.published, occupied);
            self.published = occupied;
        }
    }

    fn weigh_sides(&mut self) {
        self.side_bytes = self.statistics.heap_bytes()
            + self.eviction.heap_bytes()
            + self.scratch.capacity()
            + self.key_scratch.capacity();
    }

    /// Writes a string, whatever the key held.
    pub(super) fn set(&mut self, key: &Key<'_>, bytes: &[u8], lifetime: Lifetime, now: Now) {
        self.overwrite(key, lifetime, now, |shard, old, deadline| {
            if shard.fits(key, deadline, bytes.len()) {
                shard.write(key, old, Kind::String, Body::Packed(bytes), deadline, None, now);
            } else {
                shard.store(key, old, Text::from(bytes.to_vec()), deadline, now);
            }
        });
    }

    /// Writes a value, whatever the key held. An empty collection removes the key.
    pub(super) fn put(&mut self, key: &Key<'_>, value: Value, lifetime: Lifetime, now: Now) {
        if is_empty(&value) {
            self.remove(key, now);
            return;
        }
        self.overwrite(key, lifetime, now, |shard, old, deadline| match value {
            Value::String(it) => shard.store(key, old, it, deadline, now),
            Value::List(it) => shard.store(key, old, it, deadline, now),
            Value::Set(it) => shard.store(key, old, it, deadline, now),
            Value::SortedSet(it) => shard.store(key, old, it, deadline, now),
            Value::Hash(it) => shard.store(key, old, it, deadline, now),
        });
    }

    fn overwrite(
        &mut self,
        key: &Key<'_>,
        lifetime: Lifetime,
        now: Now,
        write: impl FnOnce(&mut Self, Option<u32>, Option<UnixMillis>),
    ) {
        let old = self.live(key, now);
        let deadline = match lifetime {
            Lifetime::Forever => None,
            Lifetime::Until(deadline) => Some(deadline),
            Lifetime::Keep => old.and_then(|old| entry::deadline(self.arena.cell(old))),
        };
        #[cfg(feature = "sim")]
        let deadline = self.misread(deadline, lifetime, now);
        if deadline.is_some_and(|deadline| deadline <= now.unix) {
            self.remove(key, now);
            return;
        }
        write(self, old, deadline);
        self.changed(key, if old.is_some() { Cause::Written } else { Cause::Created });
    }

    /// A deadline as the planted bugs have it.
    #[cfg(feature = "sim")]
    fn misread(
        &self,
        deadline: Option<UnixMillis>,
        lifetime: Lifetime,
        now: Now,
    ) -> Option<UnixMillis> {
        use crate::sim::PlantedBug as Bug;
        match (self.accounts.bug(), lifetime) {
            (Some(Bug::KeepTtlForgets), Lifetime::Keep) => None,
            (Some(Bug::DeadlineAsDuration), Lifetime::Until(at)) => {
                Some(UnixMillis(now.unix.0.saturating_add(at.0)))
            }
            _ => deadline,
        }
    }

    /// Changes a value in place; see [`super::Keyspace::edit`].
    pub(super) fn edit<T: Stored, R>(
        &mut self,
        key: &Key<'_>,
        missing: Missing,
        now: Now,
        edit: impl FnOnce(&mut T) -> R,
    ) -> Result<Option<R>, WrongType> {
        let Some(handle) = self.live(key, now) else {
            if missing == Missing::Skip {
                return Ok(None);
            }
            let mut value = T::default();
            let result = edit(&mut value);
            value.take_changed();
            if !value.is_empty() {
                self.store(key, None, value, None, now);
                self.changed(key, Cause::Created);
            }
            return Ok(Some(result));
        };
        if entry::kind(self.arena.cell(handle)) != T::KIND {
            return Err(WrongType);
        }
        let edited = self.edit_entry(key, handle, now, edit);
        if edited.empty {
            self.remove_entry(self.place(key), handle);
            self.next_version(now);
            self.statistics.deleted(key.database, key.hash);
            self.changed(key, Cause::Deleted);
        } else if edited.changed {
            self.changed(key, Cause::Written);
        }
        Ok(Some(edited.result))
    }

    /// Edits the value of a live entry of the right kind and writes it back if it was changed. One that has become empty is left
    /// to be removed.
    fn edit_entry<T: Stored, R>(
        &mut self,
        key: &Key<'_>,
        handle: u32,
        now: Now,
        edit: impl FnOnce(&mut T) -> R,
    ) -> Edited<R> {
        let cell = self.arena.cell(handle);
        let deadline = entry::deadline(cell);
        if let Some(object) = entry::object(cell) {
            let value = T::from_value(self.objects.value_mut(object)).expect("the kinds agree");
            let result = edit(value);
            let (changed, empty) = (value.take_changed(), value.is_empty());
            let parts = value.next_deadline();
            let unboxes = value.packed().is_some_and(|packed| packed.len() <= UNBOXED_MAX);
            self.objects.weigh(object);
            if changed && !empty {
                if unboxes && self.fits(key, deadline, UNBOXED_MAX) {
                    let value = T::from_value(self.objects.value_mut(object));
                    let value = std::mem::take(value.expect("the kinds agree"));
                    // `store` frees the object, which is now empty.
                    self.objects.weigh(object);
                    self.store(key, Some(handle), value, deadline, now);
                } else {
                    self.written_in_place(handle, deadline, parts, now);
                }
            }
            return Edited { result, changed, empty };
        }
        let mut bytes = std::mem::take(&mut self.scratch);
        bytes.clear();
        bytes.extend_from_slice(entry::body(cell));
        let mut value = T::from_packed(bytes);
        let result = edit(&mut value);
        let (changed, empty) = (value.take_changed(), value.is_empty());
        if changed && !empty {
            self.store(key, Some(handle), value, deadline, now);
        } else {
            self.recycle(value);
        }
        Edited { result, changed, empty }
    }

    /// The object of a live entry was edited: the entry gets a new version, and is looked at when its next part expires.
    fn written_in_place(
        &mut self,
        handle: u32,
        deadline: Option<UnixMillis>,
        parts: Option<UnixMillis>,
        now: Now,
    ) {
        let version = self.next_version(now);
        let cell = self.arena.cell_mut(handle);
        entry::set_version(cell, version);
        let had_parts = entry::has_parts(cell);
        entry::set_parts(cell, parts.is_some());
        self.with_parts = self.with_parts + usize::from(parts.is_some()) - usize::from(had_parts);
        if let Some(parts) = parts
            && deadline.is_none_or(|deadline| parts < deadline)
        {
            self.file(handle, parts, now);
        }
    }

    /// Keeps a value's vector for the next edit.
    fn recycle<T: Stored>(&mut self, value: T) {
        if let Ok(bytes) = value.into_packed()
            && bytes.capacity() <= SCRATCH_MAX
        {
            self.scratch = bytes;
        }
    }

    /// Writes a value into the entry of `key`, packed into its cell if it fits.
    fn store<T: Stored>(
        &mut self,
        key: &Key<'_>,
        old: Option<u32>,
        value: T,
        deadline: Option<UnixMillis>,
        now: Now,
    ) {
        let parts = value.next_deadline();
        if let Some(packed) = value.packed()
            && self.fits(key, deadline, packed.len())
        {
            self.write(key, old, T::KIND, Body::Packed(packed), deadline, parts, now);
            self.recycle(value);
            return;
        }
        let in_cell = self.header(T::KIND, deadline).size(key.bytes.len(), size_of::<u32>());
        let own_key = (in_cell > OBJECT_CELL_MAX).then(|| key.bytes.into());
        let object = self.objects.insert(value.into_value(), own_key);
        self.write(key, old, T::KIND, Body::Object(object), deadline, parts, now);
    }

    /// The header of an entry whose value is packed.
    fn header(&self, kind: Kind, deadline: Option<UnixMillis>) -> Header {
        Header {
            kind,
            database: 0,
            meta: 0,
            object: false,
            key_in_object: false,
            parts: false,
            epoch: false,
            deadline,
            version: self.keeps_versions.then_some(Version(0)),
        }
    }

    /// Whether a packed value of `packed` bytes fits into a cell with its key.
    fn fits(&self, key: &Key<'_>, deadline: Option<UnixMillis>, packed: usize) -> bool {
        self.header(Kind::String, deadline).size(key.bytes.len(), packed) <= CELL_MAX
    }

    /// Writes an entry: over `old`, if it is given and of the same size class, otherwise into another cell. What the entry had
    /// of an object before is freed. `parts` is when its first part expires.
    #[expect(clippy::too_many_arguments, reason = "an entry consists of so much")]
    fn write(
        &mut self,
        key: &Key<'_>,
        old: Option<u32>,
        kind: Kind,
        body: Body<'_>,
        deadline: Option<UnixMillis>,
        parts: Option<UnixMillis>,
        now: Now,
    ) {
        let place = self.place(key);
        let before = old.map(|old| Header::read(self.arena.cell(old)));
        let meta = match &before {
            Some(before) => self.eviction.on_use(before.meta, now),
            None => self.eviction.on_insert(place.hash, self.entries, now),
        };
        let number;
        let (object, key_in_object, body) = match body {
            Body::Packed(bytes) => (false, false, bytes),
            Body::Object(object) => {
                number = object.to_le_bytes();
                (true, self.objects.get(object).key.is_some(), &number[..])
            }
        };
        let mut header = Header {
            kind,
            database: place.database,
            meta,
            object,
            key_in_object,
            parts: parts.is_some(),
            epoch: before.is_some_and(|before| before.epoch),
            deadline,
            version: self.keeps_versions.then_some(Version(0)),
        };
        let key_bytes = if key_in_object { &[] } else { key.bytes };
        let class = Class::of(header.size(key_bytes.len(), body.len()));
        let class = class.expect("whoever writes sees to it that the entry fits into a cell");

        let due = earlier(deadline, parts);
        let volatile = usize::from(place.database);
        if let (Some(old), Some(before)) = (old, before)
            && self.arena.class(old) == class
        {
            self.free_object(old);
            // The element that there is comes in time, unless there is none or the new moment is earlier.
            let filed = if before.parts { None } else { before.deadline };
            let version = self.next_version(now);
            header.version = header.version.map(|_| version);
            header.write(self.arena.cell_mut(old), key_bytes, body);
            if let Some(due) = due
                && filed.is_none_or(|filed| due < filed)
            {
                self.file(old, due, now);
            }
            self.volatile[volatile] = self.volatile[volatile] + usize::from(deadline.is_some())
                - usize::from(before.deadline.is_some());
            self.with_parts =
                self.with_parts + usize::from(parts.is_some()) - usize::from(before.parts);
            return;
        }
        // Making room may move the old cell.
        let old = if self.make_room_for(class, old, now) { self.find(key, place) } else { old };
        header.epoch = false;
        // Those that gave way came before.
        let version = self.next_version(now);
        header.version = header.version.map(|_| version);
        let new = self.arena.allocate(class);
        header.write(self.arena.cell_mut(new), key_bytes, body);
        match old {
            Some(old) => {
                self.index_mut(place.database).replace(place.slot, place.hash, old, new);
                self.free_cell(place.database, old);
            }
            None => self.index_insert(place, new),
        }
        self.volatile[volatile] += usize::from(deadline.is_some());
        self.with_parts += usize::from(parts.is_some());
        if let Some(due) = due {
            self.file(new, due, now);
        }
    }

    /// Has a cell looked at when `due` has passed.
    fn file(&mut self, handle: u32, due: UnixMillis, now: Now) {
        #[cfg(feature = "sim")]
        if self.has_bug(crate::sim::PlantedBug::WheelOverflow) && now.unix.until(due) > 1 << 19 {
            return;
        }
        self.expiry.file(handle, due, now.unix);
        entry::set_epoch(self.arena.cell_mut(handle), self.expiry.epoch());
    }

    fn free_object(&mut self, handle: u32) {
        if let Some(object) = entry::object(self.arena.cell(handle)) {
            self.objects.remove(object);
        }
    }

    /// Frees a cell and its object, and counts it no more. The index does not lead to it any longer.
    fn free_cell(&mut self, database: u8, handle: u32) {
        self.free_object(handle);
        let cell = self.arena.cell(handle);
        let was_volatile = entry::deadline(cell).is_some();
        #[cfg(feature = "sim")]
        let was_volatile =
            was_volatile && !self.has_bug(crate::sim::PlantedBug::VolatileCountDrifts);
        self.volatile[usize::from(database)] -= usize::from(was_volatile);
        self.with_parts -= usize::from(entry::has_parts(cell));
        self.arena.free(handle);
    }

    fn remove_entry(&mut self, place: Place, handle: u32) {
        self.index_remove(place, handle);
        self.free_cell(place.database, handle);
    }

    /// Sets or removes a deadline; one that has passed removes the key. False if the key is not there.
    pub(super) fn set_deadline(
        &mut self,
        key: &Key<'_>,
        deadline: Option<UnixMillis>,
        now: Now,
    ) -> bool {
        let Some(handle) = self.live(key, now) else { return false };
        if deadline.is_some_and(|deadline| deadline <= now.unix) {
            return self.remove(key, now);
        }
        let cell = self.arena.cell(handle);
        let before = Header::read(cell);
        if before.object {
            self.set_object_deadline(key, handle, before, deadline, now);
        } else {
            let mut bytes = std::mem::take(&mut self.scratch);
            bytes.clear();
            bytes.extend_from_slice(entry::body(cell));
            let parts = self.parts_due(handle);
            if self.fits(key, deadline, bytes.len()) {
                let body = Body::Packed(&bytes);
                self.write(key, Some(handle), before.kind, body, deadline, parts, now);
                self.scratch = bytes;
            } else {
                match before.kind {
                    Kind::String => self.store(key, Some(handle), Text::from(bytes), deadline, now),
                    Kind::List => {
                        self.store(key, Some(handle), List::from_packed(bytes), deadline, now);
                    }
                    Kind::Set => {
                        self.store(key, Some(handle), Set::from_packed(bytes), deadline, now);
                    }
                    Kind::SortedSet => {
                        self.store(key, Some(handle), SortedSet::from_packed(bytes), deadline, now);
                    }
                    Kind::Hash => {
                        self.store(key, Some(handle), Hash::from_packed(bytes), deadline, now);
                    }
                }
            }
        }
        self.changed(key, Cause::Written);
        true
    }

    /// As above, for an entry with an object: it goes into another cell, and the object stays where it is.
    fn set_object_deadline(
        &mut self,
        key: &Key<'_>,
        handle: u32,
        before: Header,
        deadline: Option<UnixMillis>,
        now: Now,
    ) {
        let parts = self.parts_due(handle);
        let object = entry::object(self.arena.cell(handle)).expect("the value is an object");
        let place = self.place(key);
        let mut after = Header { deadline, epoch: false, ..before };
        let key_bytes = if before.key_in_object { &[] } else { key.bytes };
        let size = after.size(key_bytes.len(), size_of::<u32>());
        // A key that only just fitted may not fit with a deadline: cells are larger than that bound.
        let class = Class::of(size).expect("a cell with an object is far smaller than the largest");
        let moved = self.make_room_for(class, Some(handle), now);
        let handle = if moved { self.find(key, place) } else { Some(handle) };
        let handle = handle.expect("the entry itself does not give way");
        let version = self.next_version(now);
        after.version = before.version.map(|_| version);
        let new = self.arena.allocate(class);
        after.write(self.arena.cell_mut(new), key_bytes, &object.to_le_bytes());
        self.index_mut(place.database).replace(place.slot, place.hash, handle, new);
        self.arena.free(handle);
        let volatile = &mut self.volatile[usize::from(place.database)];
        *volatile =
            *volatile + usize::from(deadline.is_some()) - usize::from(before.deadline.is_some());
        if let Some(due) = earlier(deadline, parts) {
            self.file(new, due, now);
        }
    }

    /// When the first part of a live entry's value expires.
    fn parts_due(&self, handle: u32) -> Option<UnixMillis> {
        let cell = self.arena.cell(handle);
        if !entry::has_parts(cell) {
            return None;
        }
        match entry::object(cell) {
            Some(object) => match &self.objects.get(object).value {
                Value::Hash(hash) => hash.next_deadline(),
                Value::String(_) | Value::List(_) | Value::Set(_) | Value::SortedSet(_) => None,
            },
            None => Hash::from_packed(entry::body(cell).to_vec()).next_deadline(),
        }
    }

    /// Removes `key`. False if it is not there.
    pub(super) fn remove(&mut self, key: &Key<'_>, now: Now) -> bool {
        let Some(handle) = self.live(key, now) else { return false };
        self.remove_entry(self.place(key), handle);
        self.next_version(now);
        self.statistics.deleted(key.database, key.hash);
        self.changed(key, Cause::Deleted);
        true
    }

    /// Removes `key` and returns what it held, and its deadline.
    pub(super) fn take(&mut self, key: &Key<'_>, now: Now) -> Option<(Value, Option<UnixMillis>)> {
        let handle = self.live(key, now)?;
        let cell = self.arena.cell(handle);
        let deadline = entry::deadline(cell);
        let value = match entry::object(cell) {
            // What stays in the object is freed with the entry.
            Some(object) => {
                let empty = Value::String(Text::default());
                let value = std::mem::replace(self.objects.value_mut(object), empty);
                self.objects.weigh(object);
                value
            }
            None => self.view(handle).to_value(),
        };
        self.remove(key, now);
        Some((value, deadline))
    }
}

/// The earlier of two moments that may not come.
fn earlier(one: Option<UnixMillis>, other: Option<UnixMillis>) -> Option<UnixMillis> {
    match (one, other) {
        (Some(one), Some(other)) => Some(one.min(other)),
        (one, other) => one.or(other),
    }
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::String(it) => it.is_empty(),
        Value::List(it) => it.is_empty(),
        Value::Set(it) => it.is_empty(),
        Value::SortedSet(it) => it.is_empty(),
        Value::Hash(it) => it.is_empty(),
    }
}
