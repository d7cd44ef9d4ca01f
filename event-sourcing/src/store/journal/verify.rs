//! Looks through a whole log: what `lattice check events` prints.
//!
//! Every frame is read under its checksum and every record decoded; versions are dense in their streams and ids unique; every index file is
//! exactly what its events make; and the hash chain over all leaves ends where the log says it does. Memory is bounded by a segment.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use lattice_journal::{Damage, TornTail};

use super::chain::{Chain, ChainHead};
use super::memtable::Memtable;
use super::part::Access;
use super::records;
use super::view::{Shared, View};
use crate::event::{EventId, Position, StreamName, Version};
use crate::machine::{Entry, Index};
use crate::read::ReadError;

/// Problems that are reported, at most.
pub const PROBLEMS_MAX: usize = 1000;

/// What was found in a log.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Verification {
    /// Events that could be read.
    pub events: u64,
    /// Of which so many have given their space back.
    pub scavenged: u64,
    /// Segments with events in them.
    pub segments: u64,
    /// The head of the hash chain, computed from every event; `None` if some cannot be read.
    pub chain: Option<ChainHead>,
    /// What is wrong, at most [`PROBLEMS_MAX`].
    pub problems: Vec<Problem>,
    /// There is more that is wrong.
    pub more: bool,
    /// What a crash has torn off at the end, if the log was opened for reading only: it was never acknowledged, and is cut when the
    /// log is opened for writing.
    pub torn: Option<TornTail>,
    /// Index files that are stale or damaged, if the log was opened for reading only: they are not used, and made again when it is
    /// opened for writing.
    pub unfit_index_files: u64,
}

/// Something that is wrong with a log.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Problem {
    /// Bytes of the journal are damaged.
    Journal(Damage),
    /// Events cannot be read.
    Unreadable {
        /// Their positions.
        positions: Range<u64>,
    },
    /// An event does not have the next version of its stream.
    Version {
        /// Its position.
        position: Position,
        /// Its stream.
        stream: StreamName,
        /// Its version.
        found: Version,
        /// The next version.
        expected: Version,
    },
    /// An id is in a stream twice.
    Id {
        /// The position of one.
        position: Position,
        /// The position of the other.
        other: Option<Position>,
        /// The id.
        id: EventId,
    },
    /// An index file is not what its events make. It is made again when the store is opened.
    IndexFile {
        /// Its segment.
        segment: u64,
    },
    /// The hash chain ends in another hash than the log has noted.
    Chain {
        /// What the events make.
        computed: ChainHead,
        /// What was noted.
        noted: ChainHead,
    },
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Journal(damage) => damage.fmt(f),
            Self::Unreadable { positions } => write!(f, "events {positions:?} cannot be read"),
            Self::Version { position, stream, found, expected } => {
                write!(
                    f,
                    "event {position} has version {found} of {stream}, and {expected} is next"
                )
            }
            Self::Id { position, other: Some(other), id } => {
                write!(f, "events {position} and {other} of one stream both have the id {id}")
            }
            Self::Id { position, other: None, id } => {
                write!(f, "event {position} is not found by its id {id}")
            }
            Self::IndexFile { segment } => {
                write!(f, "the index file of segment {segment} is damaged or stale")
            }
            Self::Chain { computed, .. } => {
                write!(f, "the hash chain at {} is not the noted one", computed.position)
            }
        }
    }
}

impl Verification {
    /// Nothing is wrong.
    #[must_use]
    pub fn is_sound(&self) -> bool {
        self.problems.is_empty()
    }

    fn add(&mut self, problem: Problem) {
        if self.problems.len() < PROBLEMS_MAX {
            self.problems.push(problem);
        } else {
            self.more = true;
        }
    }
}

/// Verifies a log up to where the chain was noted. Ends with [`ReadError::Closed`] soon after `is_over` says so: it is asked for every
/// segment, megabyte and thousand events.
pub(super) fn verify(
    shared: &Arc<Shared>,
    noted: Option<ChainHead>,
    is_over: &dyn Fn() -> bool,
) -> Result<Verification, ReadError> {
    let go_on = || if is_over() { Err(ReadError::Closed) } else { Ok(()) };
    let mut found = Verification::default();
    let left = &shared.left;
    (found.torn, found.unfit_index_files) = (left.torn.clone(), left.unfit_index_files);
    for segment in shared.reader.segments() {
        go_on()?;
        let damaged = shared.reader.verify(segment).map_err(|error| records::explain(error, 0))?;
        damaged.into_iter().for_each(|damage| found.add(Problem::Journal(damage)));
    }
    let published = shared.published();
    let head = noted.map_or(published.head, |noted| noted.position);
    let view = View::as_of(shared, Access::Disk, head);
    let mut chain = Some(Chain::default());
    for (number, part) in published.parts.iter().enumerate() {
        let next = published.parts.get(number + 1).map_or(head.0 + 1, |part| part.first);
        let positions = part.first..next.min(head.0 + 1);
        if positions.is_empty() {
            continue;
        }
        found.segments += 1;
        let memtable = read_events(shared, positions, &mut chain, &mut found, &go_on)?;
        if part.frozen_positions().is_some() && !part.agrees_with(&memtable)? {
            found.add(Problem::IndexFile { segment: part.segment });
        }
        let before = View::as_of(shared, Access::Disk, Position(part.first - 1));
        for (stream, list) in memtable.streams() {
            let last = before.last_of(stream)?;
            let expected = last.map_or(Version(0), |(last, _)| last.next());
            if list.first_version != expected.0 {
                let position = memtable.position(list.offsets[0]);
                let version = Version(list.first_version);
                found.add(Problem::Version {
                    position,
                    stream: stream.clone(),
                    found: version,
                    expected,
                });
            }
        }
        check_ids(&view, &memtable, &mut found, &go_on)?;
    }
    found.chain = chain.as_ref().map(Chain::head);
    if let (Some(computed), Some(noted)) = (found.chain, noted)
        && computed != noted
    {
        found.add(Problem::Chain { computed, noted });
    }
    Ok(found)
}

/// Reads the events of a segment, takes them into the chain, and checks that versions are dense among themselves.
fn read_events(
    shared: &Shared,
    positions: Range<u64>,
    chain: &mut Option<Chain>,
    found: &mut Verification,
    go_on: &dyn Fn() -> Result<(), ReadError>,
) -> Result<Memtable, ReadError> {
    let mut memtable = Memtable::new(Position(positions.start));
    let mut next = positions.start;
    while next < positions.end {
        go_on()?;
        let read = records::read(&shared.reader, next..positions.end, 1 << 20, |bytes, decoded| {
            let entry = &decoded.entry;
            if let Some(chain) = chain.as_mut() {
                chain.push(&records::leaf(bytes, entry));
            }
            found.events += 1;
            found.scavenged += u64::from(matches!(entry, Entry::Scavenged(_)));
            if let Some(list) = memtable.stream(entry.stream()) {
                let count = u64::try_from(list.offsets.len()).expect("a count");
                let expected = Version(list.first_version + count);
                if entry.version() != expected {
                    let (position, stream) = (entry.position(), entry.stream().clone());
                    let problem =
                        Problem::Version { position, stream, found: entry.version(), expected };
                    found.add(problem);
                }
            }
            memtable.insert(entry, decoded.key.as_ref());
        });
        match read {
            Ok(end) => next = end,
            Err(ReadError::Damaged { first, last }) => {
                let end = last.0.saturating_add(1).clamp(next + 1, positions.end);
                found.add(Problem::Unreadable { positions: first.0.max(next)..end });
                *chain = None;
                next = end;
            }
            Err(error) => return Err(error),
        }
    }
    Ok(memtable)
}

/// Every id of a segment leads to its own event, and so to no other one.
fn check_ids(
    view: &View,
    memtable: &Memtable,
    found: &mut Verification,
    go_on: &dyn Fn() -> Result<(), ReadError>,
) -> Result<(), ReadError> {
    let mut offsets: Vec<u32> = memtable.ids().iter().map(|(_, offset)| offset).collect();
    // In the order of positions, so that events are read one after the other.
    offsets.sort_unstable();
    for (count, offset) in offsets.into_iter().enumerate() {
        if count.is_multiple_of(1000) {
            go_on()?;
        }
        let position = memtable.position(offset);
        let entry = view.event(position)?;
        let other = view.find_id(entry.stream(), entry.id())?;
        if other != Some(position) {
            found.add(Problem::Id { position, other, id: entry.id() });
        }
    }
    Ok(())
}
