//! The index of one segment, in memory or in a file, behind one set of questions.
//!
//! A part begins in memory, growing with its segment. When the segment is sealed the part is *frozen*, and somebody makes a
//! file of it, which takes the memory's place. Should the file turn out to be damaged later, the part reads its segment again and
//! is back in memory: no answer ever comes from a damaged file, and none is refused because of one.
//!
//! Every question comes with the last position that may show in the answer, so that a reader keeps to its moment while the part
//! grows.

use std::io;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use lattice_journal::Reader;

use super::blocks::Fault;
use super::filter::{Filter, WORDS, bits};
use super::index_file::{self, Binding, FileList, IndexFile, LastBlock};
use super::memtable::{Kind, Memtable, hash_name, kind_and_name};
use super::records;
use crate::append::IdempotencyKey;
use crate::event::{Position, StreamName, Timestamp, Version};
use crate::machine::{Entry, Term};
use crate::read::{Direction, ReadError};
use crate::retention::{METADATA_TYPE, TOMBSTONE_TYPE};
use crate::store::TypeCount;

/// The index of one segment.
#[derive(Debug)]
pub(super) struct Part {
    pub(super) segment: u64,
    /// The first position that it is about.
    pub(super) first: u64,
    /// The position after the last one, once it is frozen.
    end: OnceLock<u64>,
    /// It may have events that say what becomes of a stream.
    decides: AtomicBool,
    /// How often its segment was rewritten. The index is that of an earlier state until it is loaded again: then it still names what
    /// is hidden now.
    generation: AtomicU64,
    /// Of the first file that was made of it, and outside of the lock: most questions end here. The index may lose names later,
    /// and gains none.
    filter: OnceLock<Filter>,
    held: RwLock<Held>,
}

/// The index, and of which generation of the segment it is at least.
#[derive(Debug)]
struct Held {
    generation: u64,
    backing: Backing,
}

#[derive(Debug)]
enum Backing {
    Memory(Memtable),
    File(IndexFile),
}

/// What a cursor has found out about its term in a part.
#[derive(Debug, Default)]
pub(super) struct Located {
    list: Option<Option<FileList>>,
    last: LastBlock,
}

/// Why a part did not answer.
#[derive(Debug)]
pub(super) enum Refusal {
    /// It would have had to read the disk, and was asked not to.
    NeedsDisk,
    Read(ReadError),
}

/// Whether an answer may come from the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Access {
    Disk,
    MemoryOnly,
}

impl Part {
    /// A part that grows, with what its segment holds so far.
    pub(super) fn growing(segment: u64, memtable: Memtable) -> Self {
        Self::in_memory(segment, memtable, 0)
    }

    /// A frozen part whose index is in memory, so far.
    pub(super) fn frozen(binding: &Binding, memtable: Memtable) -> Self {
        let part = Self::in_memory(binding.segment, memtable, binding.generation);
        part.freeze(binding.positions.end);
        part
    }

    fn in_memory(segment: u64, memtable: Memtable, generation: u64) -> Self {
        let first = memtable.positions().start;
        let decides = AtomicBool::new(memtable.decides());
        Self {
            segment,
            first,
            end: OnceLock::new(),
            decides,
            generation: AtomicU64::new(generation),
            filter: OnceLock::new(),
            held: RwLock::new(Held { generation, backing: Backing::Memory(memtable) }),
        }
    }

    /// A frozen part whose index is in a file.
    pub(super) fn in_file(file: IndexFile, filter: Filter) -> Self {
        let Binding { segment, generation, positions, .. } = file.binding().clone();
        let types = [METADATA_TYPE, TOMBSTONE_TYPE];
        let types = if planted!(TombstoneForgotten) { &types[..1] } else { &types };
        let decides = types.iter().any(|name| filter.may_have(hash_name(Kind::Type, name)));
        Self {
            segment,
            first: positions.start,
            end: OnceLock::from(positions.end),
            decides: AtomicBool::new(decides),
            generation: AtomicU64::new(generation),
            filter: OnceLock::from(filter),
            held: RwLock::new(Held { generation, backing: Backing::File(file) }),
        }
    }

    /// Whether it may have events that say what becomes of a stream; `false` is certain.
    pub(super) fn decides(&self) -> bool {
        self.decides.load(Ordering::Acquire)
    }

    /// Says that no event comes any more.
    pub(super) fn freeze(&self, end: u64) {
        // Whoever says it twice says the same.
        let _ = self.end.set(end);
    }

    /// The positions that it is about, if it is frozen.
    pub(super) fn frozen_positions(&self) -> Option<Range<u64>> {
        self.end.get().map(|end| self.first..*end)
    }

    /// It is frozen, and its index is up to date and not in a file.
    pub(super) fn wants_file(&self) -> bool {
        let held = self.read();
        let in_memory = matches!(held.backing, Backing::Memory(_));
        self.end.get().is_some() && in_memory && !self.is_stale(&held)
    }

    /// The segment was rewritten since, and the index was not loaded again yet.
    fn is_stale(&self, held: &Held) -> bool {
        held.generation != self.generation.load(Ordering::Acquire)
    }

    /// Takes in an event. Called for growing parts only.
    pub(super) fn insert<'a>(
        &self,
        events: impl Iterator<Item = (&'a Entry, Option<&'a IdempotencyKey>)>,
    ) {
        let mut held = self.write();
        let Backing::Memory(memtable) = &mut held.backing else {
            unreachable!("a part that grows is in memory");
        };
        for (entry, key) in events {
            memtable.insert(entry, key);
        }
        self.decides.store(memtable.decides(), Ordering::Release);
    }

    /// Reads the segment again: its space was taken back. Wants a file from then on.
    pub(super) fn reload(&self, reader: &Reader) -> Result<(), ReadError> {
        let Some(positions) = self.frozen_positions() else { return Ok(()) };
        // Before the segment is read: should it be rewritten once more meanwhile, this index is taken for the older one.
        let generation = self.generation.load(Ordering::Acquire);
        let loaded = records::load(reader, positions)?;
        if loaded.damaged.is_empty() {
            *self.write() = Held { generation, backing: Backing::Memory(loaded.memtable) };
        }
        Ok(())
    }

    /// Says that the segment was rewritten. The index answers right all the same, until it is loaded again.
    pub(super) fn was_rewritten(&self, generation: u64) {
        self.generation.store(generation, Ordering::Release);
    }

    /// Shows the index, if it is in memory and of this generation of the segment.
    pub(super) fn with_memory<R>(
        &self,
        generation: u64,
        look: impl FnOnce(&Memtable) -> R,
    ) -> Option<R> {
        let held = self.read();
        match &held.backing {
            Backing::Memory(memtable) if held.generation == generation => Some(look(memtable)),
            Backing::Memory(_) | Backing::File(_) => None,
        }
    }

    /// Puts the file in the place of what is in memory, unless that was loaded again from a later generation since the file was made.
    pub(super) fn move_to(&self, file: IndexFile, filter: Filter) {
        // One of an earlier file lets through at least as much.
        let _ = self.filter.set(filter);
        let mut held = self.write();
        if held.generation == file.binding().generation {
            held.backing = Backing::File(file);
        }
    }

    /// Bytes in memory.
    pub(super) fn memory(&self) -> usize {
        let filter = self.filter.get().map_or(0, Filter::memory);
        filter
            + match &self.read().backing {
                Backing::Memory(memtable) => memtable.memory(),
                Backing::File(file) => file.memory(),
            }
    }

    /// Length of the index file in bytes, if there is one.
    pub(super) fn file_length(&self) -> u64 {
        match &self.read().backing {
            Backing::Memory(_) => 0,
            Backing::File(file) => file.length(),
        }
    }

    /// Times of the first and the last event.
    pub(super) fn times(&self) -> Option<(Timestamp, Timestamp)> {
        match &self.read().backing {
            Backing::Memory(memtable) => memtable.times(),
            Backing::File(file) => file.times(),
        }
    }

    fn read(&self) -> RwLockReadGuard<'_, Held> {
        self.held.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Held> {
        self.held.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Asks the memory or the file. A damaged file is given up for memory first.
    fn ask<R>(
        &self,
        from: &Source<'_>,
        hash: u64,
        absent: R,
        memory: impl FnOnce(&Memtable) -> R,
        file: impl FnOnce(&IndexFile) -> Result<R, Fault>,
    ) -> Result<R, Refusal> {
        if !self.may_have(hash) {
            return Ok(absent);
        }
        match &self.read().backing {
            Backing::Memory(memtable) => return Ok(memory(memtable)),
            Backing::File(index) => {
                if from.access == Access::MemoryOnly {
                    return Err(Refusal::NeedsDisk);
                }
                match file(index) {
                    Ok(answer) => return Ok(answer),
                    Err(Fault::Io(error)) => return Err(Refusal::Read(io_error(error))),
                    Err(Fault::Damaged) => {}
                }
            }
        }
        self.heal(from.reader)?;
        match &self.read().backing {
            Backing::Memory(memtable) => Ok(memory(memtable)),
            // Another thread has made the file again in the same moment.
            Backing::File(_) => Err(Refusal::Read(io_error(io::ErrorKind::InvalidData.into()))),
        }
    }

    /// Reads the segment again, because its index file is damaged.
    fn heal(&self, reader: &Reader) -> Result<(), Refusal> {
        let positions = self.frozen_positions().expect("a part in a file is frozen");
        tracing::warn!(
            segment = self.segment,
            "an index file is damaged: its segment is read instead"
        );
        let loaded = records::load(reader, positions).map_err(Refusal::Read)?;
        if let Some(lost) = loaded.damaged.first() {
            // An index without them would deny events, ids and keys that there are.
            return Err(Refusal::Read(records::damaged(lost.clone())));
        }
        // Of this generation or a later one.
        self.write().backing = Backing::Memory(loaded.memtable);
        Ok(())
    }

    /// The last event of a stream, up to `head`.
    pub(super) fn last_of(
        &self,
        from: &Source<'_>,
        stream: &StreamName,
        hash: u64,
    ) -> Result<Option<(Version, Position)>, Refusal> {
        let place = |first_version: u64, rank: u32, offset: u32, first: u64| {
            (Version(first_version + u64::from(rank)), Position(first + u64::from(offset)))
        };
        self.ask(
            from,
            hash,
            None,
            |memtable| {
                let list = memtable.stream(stream)?;
                let bound = memtable.offset(from.head)?;
                let held = list.offsets.partition_point(|offset| *offset <= bound);
                let rank = held.checked_sub(1)?;
                let offset = list.offsets[rank];
                let rank = u32::try_from(rank).expect("a segment has less than 2^32 events");
                Some(place(list.first_version, rank, offset, memtable.positions().start))
            },
            |file| {
                let Some(list) = file.list(Kind::Stream, stream.as_str())? else { return Ok(None) };
                let mut last = LastBlock::default();
                let rank = self.held(from, file, &list, &mut last)?.checked_sub(1);
                let Some(rank) = rank else { return Ok(None) };
                let offset = file.offset(&list, rank, &mut last)?;
                Ok(Some(place(list.first_version, rank, offset, self.first)))
            },
        )
    }

    /// How many offsets of a list are not beyond `head`.
    fn held(
        &self,
        from: &Source<'_>,
        file: &IndexFile,
        list: &FileList,
        last: &mut LastBlock,
    ) -> Result<u32, Fault> {
        match self.end.get() {
            Some(end) if *end <= from.head.0 + 1 => Ok(list.count),
            _ => match from.head.0.checked_sub(self.first) {
                None => Ok(0),
                Some(bound) => match u32::try_from(bound + 1) {
                    Ok(bound) => file.rank(list, bound, last),
                    Err(_) => Ok(list.count),
                },
            },
        }
    }

    /// Where a version of a stream stands; the versions that the part has of the stream, if it has that one or later ones.
    pub(super) fn position_of(
        &self,
        from: &Source<'_>,
        stream: &StreamName,
        hash: u64,
        version: Version,
    ) -> Result<VersionAt, Refusal> {
        self.ask(
            from,
            hash,
            VersionAt::NoSuchStream,
            |memtable| {
                let Some(list) = memtable.stream(stream) else { return VersionAt::NoSuchStream };
                let Some(rank) = version.0.checked_sub(list.first_version) else {
                    return VersionAt::Before;
                };
                let offset = usize::try_from(rank).ok().and_then(|rank| list.offsets.get(rank));
                offset
                    .map_or(VersionAt::Beyond, |offset| VersionAt::Here(memtable.position(*offset)))
            },
            |file| {
                let Some(list) = file.list(Kind::Stream, stream.as_str())? else {
                    return Ok(VersionAt::NoSuchStream);
                };
                let Some(rank) = version.0.checked_sub(list.first_version) else {
                    return Ok(VersionAt::Before);
                };
                match u32::try_from(rank) {
                    Ok(rank) if rank < list.count => {
                        let offset = file.offset(&list, rank, &mut LastBlock::default())?;
                        Ok(VersionAt::Here(Position(self.first + u64::from(offset))))
                    }
                    _ => Ok(VersionAt::Beyond),
                }
            },
        )
    }

    /// Positions of the events whose id, or key, has a hash.
    pub(super) fn hashed(
        &self,
        from: &Source<'_>,
        kind: Kind,
        hash: u64,
    ) -> Result<Vec<Position>, Refusal> {
        let offsets = self.ask(
            from,
            hash,
            Vec::new(),
            |memtable| memtable.hashed(kind, hash),
            |file| file.hashed(hash),
        )?;
        let positions = offsets.into_iter().map(|offset| Position(self.first + u64::from(offset)));
        Ok(positions.filter(|position| *position <= from.head).collect())
    }

    /// Whether a hash may be in the part; `false` is certain.
    pub(super) fn may_have(&self, hash: u64) -> bool {
        self.may_have_all(hash, &bits(hash))
    }

    /// As [`Part::may_have`], for who asks many parts for one hash: `bits` are those of the hash.
    pub(super) fn may_have_all(&self, hash: u64, bits: &[u32; WORDS]) -> bool {
        if planted!(FilterFalseNegative) && self.filter.get().is_some() && hash.is_multiple_of(7) {
            return false;
        }
        self.filter.get().is_none_or(|filter| filter.may_have_all(hash, bits))
    }

    /// The first position of a term at or beyond `at`, in a direction.
    pub(super) fn seek(
        &self,
        from: &Source<'_>,
        term: Term<'_>,
        hash: u64,
        at: Position,
        direction: Direction,
        located: &mut Located,
    ) -> Result<Option<Position>, Refusal> {
        // As an offset: going forward the least that counts, going backward the first that does not.
        let bound = match direction {
            Direction::Forward => at.0.saturating_sub(self.first),
            Direction::Backward => match at.0.min(from.head.0).checked_sub(self.first) {
                Some(offset) => offset + 1,
                None => return Ok(None),
            },
        };
        let Ok(bound) = u32::try_from(bound) else { return Ok(None) };
        let (kind, name) = kind_and_name(term);
        let found = self.ask(
            from,
            hash,
            None,
            |memtable| {
                let list = memtable.list(term);
                let rank = list.partition_point(|offset| *offset < bound);
                match direction {
                    Direction::Forward => list.get(rank).copied(),
                    Direction::Backward => list[..rank].last().copied(),
                }
            },
            |file| {
                let list = match located.list {
                    Some(list) => list,
                    None => *located.list.insert(file.list(kind, name)?),
                };
                let Some(list) = list else { return Ok(None) };
                let rank = file.rank(&list, bound, &mut located.last)?;
                match direction {
                    Direction::Forward if rank == list.count => Ok(None),
                    Direction::Forward => file.offset(&list, rank, &mut located.last).map(Some),
                    Direction::Backward => match rank.checked_sub(1) {
                        Some(rank) => file.offset(&list, rank, &mut located.last).map(Some),
                        None => Ok(None),
                    },
                }
            },
        )?;
        let position = found.map(|offset| Position(self.first + u64::from(offset)));
        Ok(position.filter(|position| *position <= from.head))
    }

    /// How many events are of each type and schema.
    pub(super) fn counts(&self, from: &Source<'_>) -> Result<Vec<TypeCount>, Refusal> {
        match &self.read().backing {
            Backing::Memory(memtable) => return Ok(memtable.counts()),
            Backing::File(file) => match file.counts() {
                Ok(counts) => return Ok(counts),
                Err(Fault::Io(error)) => return Err(Refusal::Read(io_error(error))),
                Err(Fault::Damaged) => {}
            },
        }
        self.heal(from.reader)?;
        self.counts(from)
    }

    /// Whether the index file, if there is one that is to stay, is exactly that of the events, which `memtable` was made of.
    pub(super) fn agrees_with(&self, memtable: &Memtable) -> Result<bool, ReadError> {
        let held = self.read();
        match &held.backing {
            Backing::Memory(_) => Ok(true),
            Backing::File(_) if self.is_stale(&held) => Ok(true),
            Backing::File(file) => match file.is(&index_file::encode(memtable, file.binding())) {
                Ok(agrees) => Ok(agrees),
                Err(Fault::Damaged) => Ok(false),
                Err(Fault::Io(error)) => Err(io_error(error)),
            },
        }
    }
}

/// Where a version is, as one part knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum VersionAt {
    /// Here, if the event is not beyond the head.
    Here(Position),
    /// The part has later versions of the stream only.
    Before,
    /// The part has earlier versions of the stream only.
    Beyond,
    /// The part has nothing of the stream.
    NoSuchStream,
}

/// From where, and up to where, a question is answered.
#[derive(Debug)]
pub(super) struct Source<'a> {
    pub(super) reader: &'a Reader,
    pub(super) head: Position,
    pub(super) access: Access,
}

pub(super) fn io_error(error: io::Error) -> ReadError {
    ReadError::Io(Arc::new(error))
}
