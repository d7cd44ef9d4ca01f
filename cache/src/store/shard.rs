//! SKELETON, to be replaced: a shard as an ordered map.

use std::collections::BTreeMap;

use super::{Cause, Change, Cursor, Key, Lifetime, Missing, WrongType};
use crate::slot::{SLOTS, Slot};
use crate::types::{Database, UnixMillis, Version};
use crate::value::{Stored, Value, View};

type Place = (u8, Slot, u32, Box<[u8]>);

#[derive(Debug, Default)]
pub(super) struct Shard {
    entries: BTreeMap<Place, (Value, Option<UnixMillis>)>,
    pub(super) changes: Vec<Change>,
    version: u64,
}

fn place(key: &Key<'_>) -> Place {
    (key.database.0, key.slot, key.hash, key.bytes.into())
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

impl Shard {
    fn changed(&mut self, key: &Key<'_>, cause: Cause, observed: bool) {
        self.version += 1;
        if observed {
            self.changes.push(Change {
                database: key.database,
                key: key.bytes.into(),
                slot: key.slot,
                version: Version(self.version),
                cause,
            });
        }
    }

    fn expire(&mut self, key: &Key<'_>, now: UnixMillis) {
        let place = place(key);
        if self
            .entries
            .get(&place)
            .is_some_and(|(_, deadline)| deadline.is_some_and(|at| at <= now))
        {
            self.entries.remove(&place);
            self.changed(key, Cause::Expired, true);
        }
        if let Some((Value::Hash(hash), _)) = self.entries.get_mut(&place)
            && hash.next_deadline().is_some_and(|at| at <= now)
        {
            hash.expire_parts(now);
            hash.take_changed();
            let last = hash.is_empty();
            if last {
                self.entries.remove(&place);
            }
            self.changed(
                key,
                if last { Cause::LastPartExpired } else { Cause::PartsExpired },
                true,
            );
        }
    }

    pub(super) fn sizes(&self, database: Database) -> (usize, usize) {
        let mine = self.entries.iter().filter(|(place, _)| place.0 == database.0);
        mine.fold((0, 0), |sizes, (_, (_, deadline))| {
            (sizes.0 + 1, sizes.1 + usize::from(deadline.is_some()))
        })
    }

    pub(super) fn peek(&mut self, key: &Key<'_>, now: UnixMillis) -> Option<View<'_>> {
        self.expire(key, now);
        self.entries.get(&place(key)).map(|(value, _)| value.view())
    }

    pub(super) fn deadline(
        &mut self,
        key: &Key<'_>,
        now: UnixMillis,
    ) -> Option<Option<UnixMillis>> {
        self.expire(key, now);
        self.entries.get(&place(key)).map(|(_, deadline)| *deadline)
    }

    pub(super) fn put(
        &mut self,
        key: &Key<'_>,
        value: Value,
        lifetime: Lifetime,
        now: UnixMillis,
        observed: bool,
    ) {
        let old = self.deadline(key, now);
        let deadline = match lifetime {
            Lifetime::Forever => None,
            Lifetime::Until(at) => Some(at),
            Lifetime::Keep => old.flatten(),
        };
        if is_empty(&value) || deadline.is_some_and(|at| at <= now) {
            self.take(key, Cause::Deleted, now, observed);
            return;
        }
        self.entries.insert(place(key), (value, deadline));
        self.changed(key, if old.is_some() { Cause::Written } else { Cause::Created }, observed);
    }

    pub(super) fn edit<T: Stored, R>(
        &mut self,
        key: &Key<'_>,
        missing: Missing,
        now: UnixMillis,
        observed: bool,
        edit: impl FnOnce(&mut T) -> R,
    ) -> Result<Option<R>, WrongType> {
        self.expire(key, now);
        let place = place(key);
        let was = self.entries.contains_key(&place);
        if !was && missing == Missing::Skip {
            return Ok(None);
        }
        let entry = self.entries.entry(place.clone());
        let (value, _) = entry.or_insert_with(|| (T::default().into_value(), None));
        let value = T::from_value(value).ok_or(WrongType)?;
        let result = edit(value);
        let (changed, empty) = (value.take_changed(), value.is_empty());
        if empty {
            self.entries.remove(&place);
        }
        match (was, empty) {
            (false, true) => {}
            (false, false) => self.changed(key, Cause::Created, observed),
            (true, true) => self.changed(key, Cause::Deleted, observed),
            (true, false) if changed => self.changed(key, Cause::Written, observed),
            (true, false) => {}
        }
        Ok(Some(result))
    }

    pub(super) fn set_deadline(
        &mut self,
        key: &Key<'_>,
        deadline: Option<UnixMillis>,
        now: UnixMillis,
        observed: bool,
    ) -> bool {
        self.expire(key, now);
        let Some(entry) = self.entries.get_mut(&place(key)) else { return false };
        entry.1 = deadline;
        if deadline.is_some_and(|at| at <= now) {
            self.entries.remove(&place(key));
            self.changed(key, Cause::Deleted, observed);
        } else {
            self.changed(key, Cause::Written, observed);
        }
        true
    }

    pub(super) fn take(
        &mut self,
        key: &Key<'_>,
        cause: Cause,
        now: UnixMillis,
        observed: bool,
    ) -> Option<(Value, Option<UnixMillis>)> {
        self.expire(key, now);
        let taken = self.entries.remove(&place(key))?;
        self.changed(key, cause, observed);
        Some(taken)
    }

    pub(super) fn scan(
        &mut self,
        database: Database,
        cursor: Cursor,
        left: &mut usize,
        now: UnixMillis,
        visit: &mut impl FnMut(&[u8], View<'_>),
    ) -> Option<Cursor> {
        let mut last = None;
        for (place, (value, deadline)) in &self.entries {
            let at = (u64::from(place.1.0) << 32) | u64::from(place.2);
            if place.0 != database.0 || at < cursor.0 || deadline.is_some_and(|at| at <= now) {
                continue;
            }
            if *left == 0 && last != Some(at) {
                return Some(Cursor(at));
            }
            last = Some(at);
            *left = left.saturating_sub(1);
            visit(&place.3, value.view());
        }
        None
    }

    pub(super) fn slot_keys(&mut self, slot: Slot, count: usize, now: UnixMillis) -> Vec<Vec<u8>> {
        let live = self.entries.iter().filter(|(place, (_, deadline))| {
            place.0 == 0 && place.1 == slot && deadline.is_none_or(|at| at > now)
        });
        live.take(count).map(|(place, _)| place.3.to_vec()).collect()
    }

    pub(super) fn flush(&mut self, database: Option<Database>, observed: bool) {
        self.entries.retain(|place, _| database.is_some_and(|it| it.0 != place.0));
        if observed {
            self.changes.push(Change {
                database: database.unwrap_or_default(),
                key: Box::default(),
                slot: Slot(SLOTS - 1),
                version: Version(self.version),
                cause: Cause::Flushed,
            });
        }
    }

    pub(super) fn swap(&mut self, left: Database, right: Database) {
        let entries = std::mem::take(&mut self.entries);
        for (mut place, entry) in entries {
            if place.0 == left.0 {
                place.0 = right.0;
            } else if place.0 == right.0 {
                place.0 = left.0;
            }
            self.entries.insert(place, entry);
        }
    }
}
