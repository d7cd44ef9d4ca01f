//! The large form of a hash: a table of pairs, and the deadlines of those that have one.

use std::collections::BTreeSet;

use super::Field;
use crate::store::Lifetime;
use crate::types::UnixMillis;
use crate::value::packed::{encode_length, split_length};
use crate::value::small_bytes::SmallBytes;
use crate::value::table::{Member, Place, Table, hash_of};

/// What an element of the ordered set of deadlines takes, its share of the nodes included, in bytes.
const DEADLINE_BYTES: usize = 24;

/// A field and its value as one piece: twice the field's length, plus one if there is a deadline (LEB128); the deadline (8
/// bytes); the field; the value.
#[derive(Clone, Debug)]
pub(super) struct Pair(SmallBytes);

impl Pair {
    fn new(field: &[u8], value: &[u8], deadline: Option<UnixMillis>) -> Self {
        let (head, used) = encode_length(field.len() * 2 + usize::from(deadline.is_some()));
        let at = deadline.map(|at| at.0.to_le_bytes());
        let at = at.as_ref().map_or(&[][..], |bytes| bytes);
        Self(SmallBytes::concat(&[&head[..used], at, field, value]))
    }

    fn parts(&self) -> Field<'_> {
        let broken = "a pair is as it was made";
        let (head, rest) = split_length(self.0.as_slice()).expect(broken);
        let (deadline, rest) = if head % 2 == 1 {
            let (bytes, rest) = rest.split_first_chunk::<8>().expect(broken);
            (Some(UnixMillis(u64::from_le_bytes(*bytes))), rest)
        } else {
            (None, rest)
        };
        let (field, value) = rest.split_at(head / 2);
        Field { field, value, deadline }
    }

    /// Writes `value` over one of the same length. False if the length differs, or there is a deadline to be changed.
    fn overwrite(&mut self, value: &[u8], deadline: Option<UnixMillis>) -> bool {
        let parts = self.parts();
        let fits = parts.value.len() == value.len() && parts.deadline == deadline;
        if fits {
            let bytes = self.0.as_mut_slice();
            let from = bytes.len() - value.len();
            bytes[from..].copy_from_slice(value);
        }
        fits
    }
}

impl Member for Pair {
    fn name(&self) -> &[u8] {
        self.parts().field
    }

    fn heap_bytes(&self) -> usize {
        self.0.heap_bytes()
    }
}

/// The large form.
#[derive(Clone, Debug, Default)]
pub(super) struct Large {
    table: Table<Pair>,
    /// Every deadline with the hash of its field, so that nothing is kept twice. Fields of one hash and one deadline share one.
    deadlines: BTreeSet<(UnixMillis, u32)>,
}

impl Large {
    pub(super) fn table(&self) -> &Table<Pair> {
        &self.table
    }

    pub(super) fn at(&self, place: Place) -> Field<'_> {
        self.table.at(place).parts()
    }

    pub(super) fn get(&self, field: &[u8]) -> Option<Field<'_>> {
        self.table.get(field).map(Pair::parts)
    }

    /// Sets `field`. True if it was not there.
    pub(super) fn set(&mut self, field: &[u8], value: &[u8], life: Lifetime) -> bool {
        let hash = hash_of(field);
        let place = self.table.find_hashed(hash, field);
        let old = place.ok().and_then(|place| self.at(place).deadline);
        let deadline = match life {
            Lifetime::Forever => None,
            Lifetime::Until(at) => Some(at),
            Lifetime::Keep => old,
        };
        match place {
            Err(place) => {
                self.table.insert_found(place, hash, Pair::new(field, value, deadline));
            }
            Ok(place) if self.table.at_mut(place).overwrite(value, deadline) => return false,
            Ok(place) => {
                self.table.replace_at(place, Pair::new(field, value, deadline));
            }
        }
        if old != deadline {
            self.forget(hash, old);
            self.deadlines.extend(deadline.map(|at| (at, hash)));
        }
        place.is_err()
    }

    /// Sets or removes the deadline of `field`. False if it is not there.
    pub(super) fn set_deadline(&mut self, field: &[u8], deadline: Option<UnixMillis>) -> bool {
        let Some(place) = self.table.find(field) else { return false };
        let Field { value, deadline: old, .. } = self.at(place);
        if old != deadline {
            let pair = Pair::new(field, value, deadline);
            self.table.replace_at(place, pair);
            let hash = hash_of(field);
            self.forget(hash, old);
            self.deadlines.extend(deadline.map(|at| (at, hash)));
        }
        true
    }

    pub(super) fn remove(&mut self, field: &[u8]) -> bool {
        let Some(pair) = self.table.remove(field) else { return false };
        self.forget(hash_of(field), pair.parts().deadline);
        true
    }

    /// Drops a deadline, unless another field with this hash has the same.
    fn forget(&mut self, hash: u32, deadline: Option<UnixMillis>) {
        let Some(at) = deadline else { return };
        if !self.table.with_hash(hash).any(|pair| pair.parts().deadline == deadline) {
            self.deadlines.remove(&(at, hash));
        }
    }

    pub(super) fn next_deadline(&self) -> Option<UnixMillis> {
        self.deadlines.first().map(|(at, _)| *at)
    }

    /// Removes fields that are due at `now`, those due first and about `most` of them, and says how many they were.
    pub(super) fn expire(&mut self, now: UnixMillis, most: usize) -> usize {
        let before = self.table.len();
        while before - self.table.len() < most
            && let Some((due, hash)) = self.deadlines.first().copied().filter(|(at, _)| *at <= now)
        {
            self.deadlines.pop_first();
            self.table.remove_where(hash, |pair| pair.parts().deadline == Some(due), drop);
        }
        before - self.table.len()
    }

    pub(super) fn heap_bytes(&self) -> usize {
        self.table.heap_bytes() + self.deadlines.len() * DEADLINE_BYTES
    }

    pub(super) fn iter(&self) -> Iter<'_> {
        Iter(self.table.iter())
    }

    pub(super) fn scan<'v>(
        &'v self,
        cursor: u64,
        count: usize,
        mut visit: impl FnMut(Field<'v>),
    ) -> u64 {
        self.table.scan(cursor, count, |pair| visit(pair.parts()))
    }

    /// Panics unless everything is as it should be.
    #[cfg(test)]
    pub(super) fn check(&self) {
        self.table.check();
        let mut deadlines = BTreeSet::new();
        for pair in self.iter() {
            deadlines.extend(pair.deadline.map(|at| (at, hash_of(pair.field))));
        }
        assert_eq!(deadlines, self.deadlines);
    }
}

/// The fields of a large hash.
#[derive(Clone, Debug)]
pub(super) struct Iter<'v>(crate::value::table::Iter<'v, Pair>);

impl<'v> Iterator for Iter<'v> {
    type Item = Field<'v>;

    fn next(&mut self) -> Option<Field<'v>> {
        self.0.next().map(Pair::parts)
    }
}
