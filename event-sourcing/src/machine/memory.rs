//! The index in memory: everything, in ordered maps.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::append::IdempotencyKey;
use crate::event::{EventId, EventType, Label, Position, Recorded, StreamName, Version};
use crate::machine::{Entry, Index, IndexMut, Postings, Stub, Term};
use crate::read::{Direction, ReadError};
use crate::record;
use crate::retention::Retention;
use crate::store::TypeCount;

/// All events, and where they are.
#[derive(Clone, Debug, Default)]
pub struct MemoryIndex {
    /// Position 1 comes first.
    entries: Vec<Entry>,
    streams: BTreeMap<StreamName, Stream>,
    types: BTreeMap<EventType, Vec<Position>>,
    labels: BTreeMap<Label, Vec<Position>>,
    keys: BTreeMap<IdempotencyKey, Position>,
    schemas: BTreeMap<(EventType, u32), u64>,
    /// What was decided about streams, if anything was.
    retention: BTreeMap<StreamName, Retention>,
}

#[derive(Clone, Debug, Default)]
struct Stream {
    /// The place of each version.
    positions: Vec<Position>,
    ids: BTreeMap<EventId, Position>,
}

impl MemoryIndex {
    /// Every type with each version of its schema, and how many events have it.
    #[must_use]
    pub fn types(&self) -> Vec<TypeCount> {
        let count = |((event_type, schema), count): (&(EventType, u32), &u64)| TypeCount {
            event_type: event_type.clone(),
            schema: *schema,
            count: *count,
        };
        self.schemas.iter().map(count).collect()
    }

    /// Takes back the space of events that cannot be seen any more, and returns how many there were. No answer changes by it but
    /// [`types`](Self::types).
    ///
    /// # Errors
    ///
    /// None: it is there because looking at an index can fail in others.
    pub fn scavenge(&mut self) -> Result<usize, ReadError> {
        let mut gone = Vec::new();
        let mut visibility = super::scan::Visibility::new(self)?;
        for entry in &self.entries {
            if let Entry::Event(recorded) = entry
                && !visibility.shows(recorded)?
            {
                gone.push(Arc::clone(recorded));
            }
        }
        let keys: BTreeMap<Position, &IdempotencyKey> =
            self.keys.iter().map(|(key, position)| (*position, key)).collect();
        for recorded in &gone {
            // The key is part of the record, as on a disk.
            let key = keys.get(&recorded.position).copied();
            let leaf = record::leaf_hash(&record::encode(recorded, key));
            self.entries[offset(recorded.position)] = Entry::Scavenged(Stub::of(recorded, leaf));
            let schema = (recorded.event.event_type.clone(), recorded.event.schema);
            if let Some(count) = self.schemas.get_mut(&schema) {
                *count -= 1;
                if *count == 0 {
                    self.schemas.remove(&schema);
                }
            }
        }
        Ok(gone.len())
    }
}

/// Where the entry of a position is.
fn offset(position: Position) -> usize {
    usize::try_from(position.0).expect("positions in memory fit an address") - 1
}

impl Index for MemoryIndex {
    type Postings<'a> = MemoryPostings<'a>;

    fn head(&self) -> Position {
        Position(u64::try_from(self.entries.len()).expect("a length fits 64 bits"))
    }

    fn last_of(&self, stream: &StreamName) -> Result<Option<(Version, Position)>, ReadError> {
        let last = self.streams.get(stream).and_then(|stream| stream.positions.last());
        Ok(last.map(|position| (self.entries[offset(*position)].version(), *position)))
    }

    fn retention(&self, stream: &StreamName) -> Result<Retention, ReadError> {
        Ok(self.retention.get(stream).copied().unwrap_or_default())
    }

    fn find_id(&self, stream: &StreamName, id: EventId) -> Result<Option<Position>, ReadError> {
        Ok(self.streams.get(stream).and_then(|stream| stream.ids.get(&id)).copied())
    }

    fn find_key(&self, key: &IdempotencyKey) -> Result<Option<Position>, ReadError> {
        Ok(self.keys.get(key).copied())
    }

    fn postings(
        &self,
        term: Term<'_>,
        from: Position,
        direction: Direction,
    ) -> Result<MemoryPostings<'_>, ReadError> {
        let positions = match term {
            Term::Type(event_type) => self.types.get(event_type).map(Vec::as_slice),
            Term::Label(label) => self.labels.get(label).map(Vec::as_slice),
            Term::Stream(stream) => self.streams.get(stream).map(|stream| &*stream.positions),
        };
        Ok(MemoryPostings::new(positions.unwrap_or_default(), from, direction))
    }

    fn position_of(
        &self,
        stream: &StreamName,
        version: Version,
    ) -> Result<Option<Position>, ReadError> {
        let positions = self.streams.get(stream).map(|stream| &stream.positions);
        let at = usize::try_from(version.0).ok();
        Ok(positions.zip(at).and_then(|(positions, at)| positions.get(at)).copied())
    }

    fn event(&self, position: Position) -> Result<Entry, ReadError> {
        Ok(self.entries[offset(position)].clone())
    }
}

impl IndexMut for MemoryIndex {
    fn insert(&mut self, recorded: &Arc<Recorded>, key: Option<&IdempotencyKey>) {
        let Recorded { position, stream, version, event, .. } = &**recorded;
        assert_eq!(*position, self.head().next(), "events come one after the other");
        let known = self.streams.entry(stream.clone()).or_default();
        assert_eq!(usize::try_from(version.0), Ok(known.positions.len()), "versions are dense");
        known.positions.push(*position);
        known.ids.insert(event.id, *position);
        self.types.entry(event.event_type.clone()).or_default().push(*position);
        for label in &event.labels {
            self.labels.entry(label.clone()).or_default().push(*position);
        }
        if let Some(key) = key {
            self.keys.insert(key.clone(), *position);
        }
        *self.schemas.entry((event.event_type.clone(), event.schema)).or_default() += 1;
        if let Some(Ok(described)) = stream.described_stream().map(StreamName::new) {
            self.retention.insert(described, Retention::decided_by(event));
        }
        self.entries.push(Entry::Event(Arc::clone(recorded)));
    }
}

/// A cursor over ascending positions in memory.
#[derive(Clone, Debug)]
pub struct MemoryPostings<'a> {
    /// What has not been passed.
    left: &'a [Position],
    direction: Direction,
}

impl<'a> MemoryPostings<'a> {
    /// A cursor over `positions`, which ascend, beginning at `from`.
    #[must_use]
    pub fn new(positions: &'a [Position], from: Position, direction: Direction) -> Self {
        let left = match direction {
            Direction::Forward => &positions[positions.partition_point(|at| *at < from)..],
            Direction::Backward => &positions[..positions.partition_point(|at| *at <= from)],
        };
        Self { left, direction }
    }
}

impl Postings for MemoryPostings<'_> {
    fn seek(&mut self, at: Position) -> Result<Option<Position>, ReadError> {
        // Leaps of doubling length and then halving: what is near is found quickly, and what is far in few steps.
        let mut leap = 1;
        match self.direction {
            Direction::Forward => {
                while self.left.get(leap).is_some_and(|place| *place < at) {
                    leap *= 2;
                }
                let near = &self.left[..(leap + 1).min(self.left.len())];
                self.left = &self.left[near.partition_point(|place| *place < at)..];
                Ok(self.left.first().copied())
            }
            Direction::Backward => {
                let end = self.left.len();
                while end.checked_sub(leap + 1).is_some_and(|place| self.left[place] > at) {
                    leap *= 2;
                }
                let from = end.saturating_sub(leap + 1);
                let near = &self.left[from..];
                self.left = &self.left[..from + near.partition_point(|place| *place <= at)];
                Ok(self.left.last().copied())
            }
        }
    }
}
