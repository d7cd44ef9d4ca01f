//! The index of one segment while it grows: which events have a term, by exact names.
//!
//! Positions are kept as offsets from the first position of the segment, 32 bits each. Ids and keys are kept by hash alone, for each of
//! them is asked for once in its life, if ever: who finds one looks at the event.

use std::collections::BTreeMap;

use xxhash_rust::xxh3::{Xxh3, xxh3_64_with_seed};

use super::hashes::Hashes;
use crate::append::IdempotencyKey;
use crate::event::{EventId, EventType, Label, Position, StreamName, Timestamp, Version};
use crate::machine::{Entry, Term};
use crate::retention::{METADATA_TYPE, TOMBSTONE_TYPE};
use crate::store::TypeCount;

/// What a hash in the index is of. It seeds the hash, so that a stream and a label of the same name have different ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kind {
    Stream = 1,
    Type = 2,
    Label = 3,
    Id = 4,
    Key = 5,
}

impl Kind {
    pub(super) fn code(self) -> u8 {
        self as u8
    }

    fn seed(self) -> u64 {
        u64::from(self.code())
    }
}

/// The kind and name of a term.
pub(super) fn kind_and_name<'a>(term: Term<'a>) -> (Kind, &'a str) {
    match term {
        Term::Stream(name) => (Kind::Stream, name.as_str()),
        Term::Type(name) => (Kind::Type, name.as_str()),
        Term::Label(name) => (Kind::Label, name.as_str()),
    }
}

pub(super) fn hash_name(kind: Kind, name: &str) -> u64 {
    xxh3_64_with_seed(name.as_bytes(), kind.seed())
}

pub(super) fn hash_id(stream: &StreamName, id: EventId) -> u64 {
    let mut hasher = Xxh3::with_seed(Kind::Id.seed());
    hasher.update(stream.as_str().as_bytes());
    hasher.update(id.0.as_bytes());
    hasher.digest()
}

pub(super) fn hash_key(key: &IdempotencyKey) -> u64 {
    xxh3_64_with_seed(key.0.as_bytes(), Kind::Key.seed())
}

/// The events of one stream in one segment. Versions are dense, so that a version's place in the list is its distance from the
/// first one.
///
/// Only in a damaged segment are there versions without an event: those stand for the next event of the stream that can be
/// read, and whoever finds a version there looks at the event.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct StreamList {
    pub(super) first_version: u64,
    pub(super) offsets: Vec<u32>,
}

/// An index in memory.
#[derive(Debug, Default)]
pub(super) struct Memtable {
    /// The position that offsets count from.
    first: u64,
    /// The position after the last event.
    end: u64,
    streams: BTreeMap<StreamName, StreamList>,
    types: BTreeMap<EventType, Vec<u32>>,
    labels: BTreeMap<Label, Vec<u32>>,
    ids: Hashes,
    keys: Hashes,
    /// By type and schema.
    counts: BTreeMap<EventType, BTreeMap<u32, u64>>,
    /// Of the first and the last event.
    times: Option<(Timestamp, Timestamp)>,
}

impl Memtable {
    /// An index for events from `first` on.
    pub(super) fn new(first: Position) -> Self {
        Self { first: first.0, end: first.0, ..Self::default() }
    }

    /// Takes in an event. Its position is at the end of those taken in, or beyond if those between are damaged.
    ///
    /// # Panics
    ///
    /// If the position is before the end, or more than `u32::MAX` beyond the first: no segment has so many events.
    pub(super) fn insert(&mut self, entry: &Entry, key: Option<&IdempotencyKey>) {
        let (position, stream, version, id) = match entry {
            Entry::Event(recorded) => {
                (recorded.position, &recorded.stream, recorded.version, recorded.event.id)
            }
            Entry::Scavenged(stub) => (stub.position, &stub.stream, stub.version, stub.id),
        };
        assert!(position.0 >= self.end, "events come in order");
        let offset = self.offset(position).expect("a segment has less than 2^32 events");
        self.end = position.0 + 1;
        match self.streams.get_mut(stream) {
            Some(list) => list.push(version, offset),
            None => {
                let list = StreamList { first_version: version.0, offsets: vec![offset] };
                self.streams.insert(stream.clone(), list);
            }
        }
        self.ids.insert(hash_id(stream, id), offset);
        if let Some(key) = key {
            self.keys.insert(hash_key(key), offset);
        }
        if let Entry::Event(recorded) = entry {
            let event = &recorded.event;
            match self.types.get_mut(&event.event_type) {
                Some(list) => list.push(offset),
                None => {
                    self.types.insert(event.event_type.clone(), vec![offset]);
                }
            }
            for label in &event.labels {
                match self.labels.get_mut(label) {
                    Some(list) => list.push(offset),
                    None => {
                        self.labels.insert(label.clone(), vec![offset]);
                    }
                }
            }
            match self.counts.get_mut(&event.event_type) {
                Some(schemas) => *schemas.entry(event.schema).or_default() += 1,
                None => {
                    let schemas = BTreeMap::from([(event.schema, 1)]);
                    self.counts.insert(event.event_type.clone(), schemas);
                }
            }
            let time = recorded.timestamp;
            self.times = Some((self.times.map_or(time, |(first, _)| first), time));
        }
    }

    /// The positions that it is about.
    pub(super) fn positions(&self) -> std::ops::Range<u64> {
        self.first..self.end
    }

    /// A position as an offset; `None` if it is before the first.
    pub(super) fn offset(&self, position: Position) -> Option<u32> {
        u32::try_from(position.0.checked_sub(self.first)?).ok()
    }

    /// An offset as a position.
    pub(super) fn position(&self, offset: u32) -> Position {
        Position(self.first + u64::from(offset))
    }

    /// The offsets of the events that have a term, in order.
    pub(super) fn list(&self, term: Term<'_>) -> &[u32] {
        let list = match term {
            Term::Stream(name) => self.streams.get(name).map(|list| &list.offsets),
            Term::Type(name) => self.types.get(name),
            Term::Label(name) => self.labels.get(name),
        };
        list.map_or(&[], Vec::as_slice)
    }

    /// The events of a stream.
    pub(super) fn stream(&self, name: &StreamName) -> Option<&StreamList> {
        self.streams.get(name)
    }

    /// Offsets of the events whose id, or key, has this hash.
    pub(super) fn hashed(&self, kind: Kind, hash: u64) -> Vec<u32> {
        let set = if kind == Kind::Key { &self.keys } else { &self.ids };
        set.offsets(hash)
    }

    pub(super) fn streams(&self) -> &BTreeMap<StreamName, StreamList> {
        &self.streams
    }

    pub(super) fn types(&self) -> &BTreeMap<EventType, Vec<u32>> {
        &self.types
    }

    pub(super) fn labels(&self) -> &BTreeMap<Label, Vec<u32>> {
        &self.labels
    }

    pub(super) fn ids(&self) -> &Hashes {
        &self.ids
    }

    pub(super) fn keys(&self) -> &Hashes {
        &self.keys
    }

    /// Whether it has events that say what becomes of a stream.
    pub(super) fn decides(&self) -> bool {
        [METADATA_TYPE, TOMBSTONE_TYPE].iter().any(|name| self.types.contains_key(*name))
    }

    /// How many events are of each type and schema.
    pub(super) fn counts(&self) -> Vec<TypeCount> {
        let of_type = |(event_type, schemas): (&EventType, &BTreeMap<u32, u64>)| {
            let count = |(schema, count): (&u32, &u64)| TypeCount {
                event_type: event_type.clone(),
                schema: *schema,
                count: *count,
            };
            schemas.iter().map(count).collect::<Vec<_>>()
        };
        self.counts.iter().flat_map(of_type).collect()
    }

    /// Times of the first and the last event that is not scavenged.
    pub(super) fn times(&self) -> Option<(Timestamp, Timestamp)> {
        self.times
    }

    /// Forgets the ids and keys from an offset on: a defect that is planted.
    #[cfg(feature = "sim")]
    pub(super) fn forget_ids(&mut self, from: u32) {
        for hashes in [&mut self.ids, &mut self.keys] {
            let all = std::mem::take(hashes);
            let kept = all.iter().filter(|(_, offset)| *offset < from);
            kept.for_each(|(hash, offset)| hashes.insert(hash, offset));
        }
    }

    /// As if an id with this hash stood at an offset.
    #[cfg(test)]
    pub(super) fn insert_hash(&mut self, hash: u64, offset: u32) {
        self.ids.insert(hash, offset);
    }

    /// Bytes in memory, roughly.
    pub(super) fn memory(&self) -> usize {
        // A name and its list, with what the allocator and the tree add; each event is in three lists or so.
        const NAME: usize = 112;
        let names = self.streams.len() + self.types.len() + self.labels.len();
        let events = usize::try_from(self.end - self.first).unwrap_or(usize::MAX);
        let hashed = self.ids.memory() + self.keys.memory();
        names * NAME + hashed + 3 * events * size_of::<u32>()
    }
}

impl StreamList {
    fn push(&mut self, version: Version, offset: u32) {
        let next = self.first_version + u64::try_from(self.offsets.len()).expect("a count");
        // Versions whose events are damaged. There cannot be more of them than positions in between.
        let last = self.offsets.last().copied().unwrap_or(offset);
        let lost = version.0.saturating_sub(next).min(u64::from(offset - last));
        for _ in 0..=lost {
            self.offsets.push(offset);
        }
    }
}
