//! The log as of one moment, as the machine and the page reader ask about it.
//!
//! A view is a list of [parts](super::part), oldest first, and a head. A reader's head is the last durable event. The writer's view
//! has the events as well that it has applied and not yet made durable: those are *staged* in an index of their own, which nobody
//! else sees, and which is dropped as a whole if they cannot be written.

use std::cell::{Cell, Ref, RefCell};
use std::ops::Range;
use std::sync::{Arc, PoisonError, RwLock};

use lattice_journal::Reader;

use super::cursor::Cursor;
use super::filter;
use super::heads::{Head, Heads};
use super::memtable::{Kind, Memtable, hash_id, hash_key, hash_name};
use super::opening::Found;
use super::part::{Access, Part, Refusal, Source, VersionAt};
use super::records;
use super::tail::Tail;
use crate::append::IdempotencyKey;
use crate::event::{EventId, Position, Recorded, StreamName, Timestamp, Version};
use crate::machine::{Entry, Index, IndexMut, Term, first_at_within};
use crate::read::{Direction, ReadError};
use crate::retention::Retention;
use crate::store::TypeCount;

/// Events that are read ahead when a reader goes from one to the next, at most.
const AHEAD_MAX: u64 = 512;
/// Bytes that are read ahead, at most but for one event. Whoever keeps one of these events keeps them all in memory.
const AHEAD_BYTES: usize = 128 << 10;
/// The same when reading goes backward: then all of it is needed to come to the event that was asked for.
const BACK_BYTES: usize = 1 << 20;

/// What the writer and all readers share.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) reader: Reader,
    pub(super) tail: Tail,
    heads: Heads,
    published: RwLock<Published>,
    /// Some events cannot be read: places in a list may stand for lost versions.
    damaged: bool,
    /// Positions of lost events, in order: the index may not know what they were.
    lost: Vec<Range<u64>>,
    /// What was found when the log was opened, and left as it is.
    pub(super) left: Found,
}

/// The log as its readers see it.
#[derive(Clone, Debug)]
pub(super) struct Published {
    /// In order of position; the last one grows.
    pub(super) parts: Arc<Vec<Arc<Part>>>,
    /// The last durable position.
    pub(super) head: Position,
}

impl Shared {
    pub(super) fn new(
        reader: Reader,
        tail: Tail,
        published: Published,
        damaged: bool,
        lost: Vec<Range<u64>>,
        left: Found,
    ) -> Self {
        let published = RwLock::new(published);
        Self { reader, tail, heads: Heads::default(), published, damaged, lost, left }
    }

    /// The log as of now.
    pub(super) fn published(&self) -> Published {
        self.published.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Shows more of it.
    pub(super) fn publish(&self, published: Published) {
        *self.published.write().unwrap_or_else(PoisonError::into_inner) = published;
    }
}

/// A log as of one moment. Not for use by several threads, for it reads ahead.
#[derive(Debug)]
pub(super) struct View {
    shared: Arc<Shared>,
    parts: Arc<Vec<Arc<Part>>>,
    /// The last durable position.
    durable: Position,
    staged: Staged,
    access: Access,
    needed_disk: Cell<bool>,
    ahead: RefCell<Ahead>,
    holders: RefCell<Holders>,
}

/// The sealed parts that may have a stream. An append asks for them once for each of its events, and again for the version of the
/// stream, and asking them all takes a look into the filter of each.
#[derive(Debug, Default)]
struct Holders {
    /// Hash of the stream's name; `None` if nobody has asked.
    of: Option<u64>,
    /// Places in the list of parts, the newest first.
    parts: Vec<usize>,
}

/// Events that are applied and not durable.
#[derive(Debug, Default)]
struct Staged {
    memtable: Memtable,
    events: Vec<(Arc<Recorded>, Option<IdempotencyKey>)>,
}

/// Events at consecutive positions that were read together.
#[derive(Debug, Default)]
struct Ahead {
    first: u64,
    entries: Vec<Entry>,
    /// The position asked for last.
    last: u64,
    /// How many to read next time, if reading goes on where it was.
    count: u64,
}

impl View {
    /// The log as of now.
    pub(super) fn new(shared: &Arc<Shared>, access: Access) -> Self {
        Self::at(shared, access, shared.published())
    }

    /// The log as of the moment when `head` was its last position.
    pub(super) fn as_of(shared: &Arc<Shared>, access: Access, head: Position) -> Self {
        let Published { parts, head: durable } = shared.published();
        // Of the parts, only the last one may go beyond the head.
        let count = parts.partition_point(|part| part.first <= head.0);
        let parts = Arc::new(parts[..count].to_vec());
        Self::at(shared, access, Published { parts, head: head.min(durable) })
    }

    fn at(shared: &Arc<Shared>, access: Access, published: Published) -> Self {
        let Published { parts, head } = published;
        Self {
            shared: Arc::clone(shared),
            parts,
            durable: head,
            staged: Staged { memtable: Memtable::new(head.next()), events: Vec::new() },
            access,
            needed_disk: Cell::new(false),
            ahead: RefCell::default(),
            holders: RefCell::default(),
        }
    }

    /// The sealed parts that may have a stream with this hash, the newest first.
    fn holders(&self, hash: u64) -> Ref<'_, [usize]> {
        if self.holders.borrow().of != Some(hash) {
            let Holders { of, parts } = &mut *self.holders.borrow_mut();
            let (sealed, bits) = (self.parts.len().saturating_sub(1), filter::bits(hash));
            parts.clear();
            let may_have = |place: &usize| self.parts[*place].may_have_all(hash, &bits);
            parts.extend((0..sealed).rev().filter(may_have));
            *of = Some(hash);
        }
        Ref::map(self.holders.borrow(), |holders| &holders.parts[..])
    }

    /// An answer failed because it would have had to come from the disk. What the error said then means nothing.
    pub(super) fn needed_disk(&self) -> bool {
        self.needed_disk.get()
    }

    /// The staged events, each with the key of its append if it is the first one of it.
    pub(super) fn staged(&self) -> &[(Arc<Recorded>, Option<IdempotencyKey>)] {
        &self.staged.events
    }

    /// Drops the staged events and goes on from what is published now.
    pub(super) fn refresh(&mut self) -> Vec<(Arc<Recorded>, Option<IdempotencyKey>)> {
        let Published { parts, head } = self.shared.published();
        (self.parts, self.durable) = (parts, head);
        self.holders.get_mut().of = None;
        let staged = Staged { memtable: Memtable::new(head.next()), events: Vec::new() };
        std::mem::replace(&mut self.staged, staged).events
    }

    /// The parts, oldest first.
    pub(super) fn parts(&self) -> &[Arc<Part>] {
        &self.parts
    }

    /// The index of what is staged.
    pub(super) fn staged_memtable(&self) -> &Memtable {
        &self.staged.memtable
    }

    /// How many events are of each type and schema.
    pub(super) fn type_counts(&self) -> Result<Vec<TypeCount>, ReadError> {
        let mut sums = std::collections::BTreeMap::new();
        for part in self.parts.iter() {
            if part.first > self.durable.0 {
                continue;
            }
            for TypeCount { event_type, schema, count } in
                self.refuse(part.counts(&self.source()))?
            {
                *sums.entry((event_type, schema)).or_default() += count;
            }
        }
        let sums = sums.into_iter();
        Ok(sums
            .map(|((event_type, schema), count)| TypeCount { event_type, schema, count })
            .collect())
    }

    pub(super) fn source(&self) -> Source<'_> {
        Source { reader: &self.shared.reader, head: self.durable, access: self.access }
    }

    pub(super) fn refuse<T>(&self, answer: Result<T, Refusal>) -> Result<T, ReadError> {
        answer.map_err(|refusal| match refusal {
            Refusal::Read(error) => error,
            Refusal::NeedsDisk => {
                self.needed_disk.set(true);
                ReadError::Closed
            }
        })
    }

    /// The staged event at a position.
    fn staged_at(&self, position: Position) -> Option<&(Arc<Recorded>, Option<IdempotencyKey>)> {
        let at = position.0.checked_sub(self.durable.0 + 1)?;
        self.staged.events.get(usize::try_from(at).ok()?)
    }

    /// The last event of a stream among those of the sealed parts.
    fn last_sealed(
        &self,
        stream: &StreamName,
        hash: u64,
    ) -> Result<Option<(Version, Position)>, ReadError> {
        let Some(growing) = self.parts.last() else { return Ok(None) };
        let known = self.shared.heads.get(stream);
        let mut from = 0;
        let mut last = None;
        if let Some(Head { below, last: known }) = known {
            if below >= growing.first {
                match known {
                    // It is the last one here too.
                    Some((_, position)) if position.0 < growing.first => return Ok(known),
                    None => return Ok(None),
                    Some(_) => {}
                }
            } else {
                (from, last) = (below, known);
            }
        }
        let describes = stream.described_stream().is_some();
        for place in self.holders(hash).iter() {
            let part = &self.parts[*place];
            if part.first < from {
                break;
            }
            if describes && !part.decides() {
                continue;
            }
            if let Some(found) = self.refuse(part.last_of(&self.source(), stream, hash))? {
                last = Some(found);
                break;
            }
        }
        self.shared.heads.put(stream, Head { below: growing.first, last });
        Ok(last)
    }

    /// Reads an event from the disk, and those around it if that is how reading goes on.
    fn read(&self, position: Position) -> Result<Entry, ReadError> {
        let mut ahead = self.ahead.borrow_mut();
        let (previous, at) = (ahead.last, position.0);
        ahead.last = at;
        if let Some(offset) = at.checked_sub(ahead.first)
            && let Ok(offset) = usize::try_from(offset)
            && let Some(entry) = ahead.entries.get(offset)
        {
            return Ok(entry.clone());
        }
        if self.access == Access::MemoryOnly {
            return self.refuse(Err(Refusal::NeedsDisk));
        }
        let forward = at == previous + 1 || at == previous;
        let backward = at + 1 == previous;
        ahead.count = if forward || backward { (2 * ahead.count).clamp(8, AHEAD_MAX) } else { 1 };
        let range = if backward {
            // One page after the other, so that none is read twice.
            (at + 1).saturating_sub(ahead.count.min(64)).max(1)..at + 1
        } else {
            at..(at + ahead.count).min(self.durable.0 + 1)
        };
        let bytes_max = if backward { BACK_BYTES } else { AHEAD_BYTES };
        let mut entries = Vec::new();
        let read = |range| {
            records::read(&self.shared.reader, range, bytes_max, |_, decoded| {
                entries.push(decoded.entry);
            })
        };
        let first = range.start;
        let found = { read }(range);
        if found.is_ok_and(|end| end > at) {
            let offset = usize::try_from(at - first).expect("at most a page");
            let entry = entries[offset].clone();
            (ahead.first, ahead.entries) = (first, entries);
            return Ok(entry);
        }
        // Something before it is damaged, or they are large.
        ahead.count = 0;
        let mut entry = None;
        records::read(&self.shared.reader, at..at + 1, 0, |_, decoded| {
            entry = Some(decoded.entry);
        })?;
        Ok(entry.expect("reading succeeds with an event at least"))
    }

    /// The key of the append that begins at a position.
    fn key_at(&self, position: Position) -> Result<Option<IdempotencyKey>, ReadError> {
        if let Some((_, key)) = self.staged_at(position) {
            return Ok(key.clone());
        }
        if self.access == Access::MemoryOnly {
            return self.refuse(Err(Refusal::NeedsDisk));
        }
        let mut found = None;
        let range = position.0..position.0 + 1;
        records::read(&self.shared.reader, range, 0, |_, decoded| found = decoded.key)?;
        Ok(found)
    }
}

impl Index for View {
    type Postings<'a> = Cursor<'a>;

    fn head(&self) -> Position {
        Position(self.durable.0 + u64::try_from(self.staged.events.len()).expect("a count"))
    }

    fn time(&self) -> Result<Timestamp, ReadError> {
        let head = self.head();
        if head == Position::BEGINNING {
            return Ok(Timestamp(0));
        }
        match self.event(head) {
            Ok(entry) => Ok(entry.timestamp()),
            // The last event is lost. Those before it can be read, as of the last time that is known.
            Err(ReadError::Damaged { .. }) => {
                let known = self.parts.iter().rev().find_map(|part| part.times());
                Ok(known.map_or(Timestamp(0), |(_, last)| last))
            }
            Err(error) => Err(error),
        }
    }

    fn last_of(&self, stream: &StreamName) -> Result<Option<(Version, Position)>, ReadError> {
        if let Some(list) = self.staged.memtable.stream(stream) {
            let rank = list.offsets.len() - 1;
            let version = list.first_version + u64::try_from(rank).expect("a count");
            let position = self.staged.memtable.position(list.offsets[rank]);
            return Ok(Some((Version(version), position)));
        }
        let hash = hash_name(Kind::Stream, stream.as_str());
        if let Some(growing) = self.parts.last()
            && let Some(last) = self.refuse(growing.last_of(&self.source(), stream, hash))?
        {
            return Ok(Some(last));
        }
        self.last_sealed(stream, hash)
    }

    fn retention(&self, stream: &StreamName) -> Result<Retention, ReadError> {
        // Mostly nothing was decided about any stream.
        let undecided = |part: &Arc<Part>| !part.decides();
        if !self.staged.memtable.decides() && self.parts.iter().all(undecided) {
            return Ok(Retention::default());
        }
        let Ok(describing) = stream.metadata_stream() else {
            return Ok(Retention::default());
        };
        let Some((_, position)) = self.last_of(&describing)? else {
            return Ok(Retention::default());
        };
        match self.event(position)? {
            Entry::Event(recorded) => Ok(Retention::decided_by(&recorded.event)),
            // The last event of such a stream is always visible, and so its space is never taken back.
            Entry::Scavenged(_) => Err(ReadError::Damaged { first: position, last: position }),
        }
    }

    fn find_id(&self, stream: &StreamName, id: EventId) -> Result<Option<Position>, ReadError> {
        let hash = hash_id(stream, id);
        for offset in self.staged.memtable.hashed(Kind::Id, hash) {
            let position = self.staged.memtable.position(offset);
            let entry = self.event(position)?;
            if entry.stream() == stream && entry.id() == id {
                return Ok(Some(position));
            }
        }
        // An id of the stream is only where the stream is.
        let holders = self.holders(hash_name(Kind::Stream, stream.as_str()));
        let sealed = holders.iter().map(|place| &self.parts[*place]);
        for part in self.parts.last().into_iter().chain(sealed) {
            for position in self.refuse(part.hashed(&self.source(), Kind::Id, hash))? {
                let entry = self.event(position)?;
                if entry.stream() == stream && entry.id() == id {
                    return Ok(Some(position));
                }
            }
        }
        Ok(None)
    }

    fn find_key(&self, key: &IdempotencyKey) -> Result<Option<Position>, ReadError> {
        let hash = hash_key(key);
        for offset in self.staged.memtable.hashed(Kind::Key, hash) {
            let position = self.staged.memtable.position(offset);
            if self.key_at(position)?.as_ref() == Some(key) {
                return Ok(Some(position));
            }
        }
        for part in self.parts.iter().rev() {
            for position in self.refuse(part.hashed(&self.source(), Kind::Key, hash))? {
                if self.key_at(position)?.as_ref() == Some(key) {
                    return Ok(Some(position));
                }
            }
        }
        Ok(None)
    }

    fn postings(
        &self,
        term: Term<'_>,
        _from: Position,
        direction: Direction,
    ) -> Result<Cursor<'_>, ReadError> {
        Ok(Cursor::new(self, term, direction))
    }

    fn position_of(
        &self,
        stream: &StreamName,
        version: Version,
    ) -> Result<Option<Position>, ReadError> {
        if let Some(list) = self.staged.memtable.stream(stream)
            && let Some(rank) = version.0.checked_sub(list.first_version)
        {
            let offset = usize::try_from(rank).ok().and_then(|rank| list.offsets.get(rank));
            return Ok(offset.map(|offset| self.staged.memtable.position(*offset)));
        }
        let hash = hash_name(Kind::Stream, stream.as_str());
        for part in self.parts.iter().rev() {
            let at = self.refuse(part.position_of(&self.source(), stream, hash, version))?;
            match at {
                VersionAt::Here(position) if position > self.durable => return Ok(None),
                VersionAt::Here(position) if self.shared.damaged => {
                    let found = match self.event(position) {
                        Ok(entry) => entry.version() == version,
                        // An index file knows the place of an event that is lost.
                        Err(ReadError::Damaged { .. }) => true,
                        Err(error) => return Err(error),
                    };
                    return Ok(found.then_some(position));
                }
                VersionAt::Here(position) => return Ok(Some(position)),
                VersionAt::Beyond => return Ok(None),
                VersionAt::Before | VersionAt::NoSuchStream => {}
            }
        }
        Ok(None)
    }

    fn first_at(&self, time: Timestamp) -> Result<Position, ReadError> {
        // The parts whose events are all earlier need no look.
        let earlier = |part: &&Arc<Part>| part.times().is_some_and(|(_, last)| last < time);
        let skipped = self.parts.iter().take_while(earlier).count();
        let next = self.head().0 + 1;
        let low = self.parts.get(skipped).map_or(1, |part| part.first);
        let later = |part: &&Arc<Part>| part.times().is_some_and(|(first, _)| first >= time);
        let high = self.parts[skipped..].iter().find(later).map_or(next, |part| part.first);
        // The first and last times of a part are those of events that are not scavenged.
        first_at_within(self, time, low.min(next)..high.min(next))
    }

    fn lost(&self, at: Position, direction: Direction) -> Option<Position> {
        let lost = self.shared.lost.iter();
        let found = match direction {
            Direction::Forward => {
                lost.filter(|range| range.end > at.0).map(|range| range.start.max(at.0)).min()
            }
            Direction::Backward => {
                lost.filter(|range| range.start <= at.0).map(|range| at.0.min(range.end - 1)).max()
            }
        };
        found.map(Position).filter(|found| *found <= self.durable)
    }

    fn event(&self, position: Position) -> Result<Entry, ReadError> {
        if let Some((recorded, _)) = self.staged_at(position) {
            return Ok(Entry::Event(Arc::clone(recorded)));
        }
        if let Some(recorded) = self.shared.tail.get(position) {
            return Ok(Entry::Event(recorded));
        }
        self.read(position)
    }
}

impl IndexMut for View {
    fn insert(&mut self, recorded: &Arc<Recorded>, key: Option<&IdempotencyKey>) {
        debug_assert_eq!(recorded.position, self.head().next(), "events come in order");
        self.staged.memtable.insert(&Entry::Event(Arc::clone(recorded)), key);
        self.staged.events.push((Arc::clone(recorded), key.cloned()));
    }
}
