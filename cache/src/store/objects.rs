//! Values that are too large for a cell: large collections, and strings and packed collections of more than about 4 KiB.
//!
//! An object's number stands in its entry's cell. A key that is itself too long for a cell is kept here as well.

use crate::value::{Stored, Value};

/// The objects of a shard.
#[derive(Debug, Default)]
pub(super) struct Objects {
    places: Vec<Place>,
    /// The first vacant place.
    vacant: Option<u32>,
    len: usize,
    /// Bytes of all objects, as they were last weighed.
    bytes: usize,
}

#[derive(Debug)]
enum Place {
    Vacant { next: Option<u32> },
    Used(Box<Object>),
}

/// A value on the heap.
#[derive(Debug)]
pub(super) struct Object {
    /// The value.
    pub(super) value: Value,
    /// The key, if it is too long for a cell.
    pub(super) key: Option<Box<[u8]>>,
    /// What it counts for in the sum.
    weighed: usize,
}

impl Object {
    fn weigh(&self) -> usize {
        let value = match &self.value {
            Value::String(it) => rounded(it.heap_bytes()),
            Value::List(it) => it.heap_bytes(),
            Value::Set(it) => it.heap_bytes(),
            Value::SortedSet(it) => it.heap_bytes(),
            Value::Hash(it) => it.heap_bytes(),
        };
        let key = self.key.as_ref().map_or(0, |key| rounded(key.len()));
        size_of::<Self>() + value + key
    }
}

/// What an allocator takes for so many bytes, about: sizes in eighths of a power of two, and in pages of 64 KiB when large.
fn rounded(bytes: usize) -> usize {
    match bytes {
        0 => 0,
        1..=64 => bytes.next_multiple_of(16),
        _ => bytes.next_multiple_of((1 << (bytes.ilog2() - 3)).min(64 * 1024)),
    }
}

impl Objects {
    /// Adds an object and returns its number.
    pub(super) fn insert(&mut self, value: Value, key: Option<Box<[u8]>>) -> u32 {
        let mut object = Box::new(Object { value, key, weighed: 0 });
        object.weighed = object.weigh();
        self.bytes += object.weighed;
        self.len += 1;
        match self.vacant {
            Some(number) => {
                let place = &mut self.places[number as usize];
                let Place::Vacant { next } = *place else {
                    unreachable!("only vacant places are in the list")
                };
                self.vacant = next;
                *place = Place::Used(object);
                number
            }
            None => {
                self.places.push(Place::Used(object));
                u32::try_from(self.places.len() - 1).expect("fewer objects than cells")
            }
        }
    }

    /// The object of this number, which is there.
    pub(super) fn get(&self, number: u32) -> &Object {
        match &self.places[number as usize] {
            Place::Used(object) => object,
            Place::Vacant { .. } => unreachable!("an entry's object is there"),
        }
    }

    /// The value of an object, to be changed. [`Self::weigh`] is to follow.
    pub(super) fn value_mut(&mut self, number: u32) -> &mut Value {
        match &mut self.places[number as usize] {
            Place::Used(object) => &mut object.value,
            Place::Vacant { .. } => unreachable!("an entry's object is there"),
        }
    }

    /// Counts an object's bytes anew, after it was changed.
    pub(super) fn weigh(&mut self, number: u32) {
        let Place::Used(object) = &mut self.places[number as usize] else {
            unreachable!("an entry's object is there")
        };
        let now = object.weigh();
        self.bytes = self.bytes - object.weighed + now;
        object.weighed = now;
    }

    /// Bytes of one object.
    pub(super) fn bytes_of(&self, number: u32) -> usize {
        self.get(number).weighed
    }

    /// Takes an object out.
    pub(super) fn remove(&mut self, number: u32) -> Value {
        let place = &mut self.places[number as usize];
        let vacant = Place::Vacant { next: self.vacant };
        let Place::Used(object) = std::mem::replace(place, vacant) else {
            unreachable!("an entry's object is there")
        };
        self.vacant = Some(number);
        self.bytes -= object.weighed;
        self.len -= 1;
        if self.len == 0 {
            *self = Self::default();
        }
        object.value
    }

    /// Bytes on the heap.
    pub(super) fn heap_bytes(&self) -> usize {
        self.bytes + self.places.capacity() * size_of::<Place>()
    }

    /// Removes all.
    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }

    /// Asserts that the sums are right, and returns how many objects there are.
    #[cfg(any(test, feature = "sim"))]
    pub(super) fn check(&self) -> usize {
        let mut sums = (0, 0);
        for place in &self.places {
            if let Place::Used(object) = place {
                assert_eq!(
                    object.weighed,
                    object.weigh(),
                    "an object was weighed after its last change"
                );
                sums = (sums.0 + 1, sums.1 + object.weighed);
            }
        }
        assert_eq!(sums, (self.len, self.bytes), "objects are counted");
        self.len
    }
}
