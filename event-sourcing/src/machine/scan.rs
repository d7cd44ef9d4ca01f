//! The one evaluator: which events match, found through the index and verified on the events themselves.
//!
//! The places of the terms of an item are intersected by leaping: each cursor is asked for its first place at or beyond the farthest
//! that any cursor has reached, until all agree. So the work goes by the rarest term, however common the others are. Alternatives, the
//! types of an item and the items of a query, are merged. What the cursors agree on is a candidate only, for an index may go by
//! hashes: the event decides, and the retention of its stream.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::condition::{Query, QueryItem, STREAM_LABEL};
use crate::event::{Position, Recorded, StreamName, Timestamp, Version};
use crate::filter::Filter;
use crate::machine::{Entry, Index, Postings, Term};
use crate::read::{Direction, ReadError, Source};
use crate::retention::Retention;

impl Direction {
    /// Whether a cursor comes by `a` before `b`.
    fn is_before(self, a: Position, b: Position) -> bool {
        match self {
            Self::Forward => a < b,
            Self::Backward => a > b,
        }
    }

    /// The place after `position`; `None` at the beginning of the log.
    pub(crate) fn after(self, position: Position) -> Option<Position> {
        match self {
            Self::Forward => Some(position.next()),
            Self::Backward => position.0.checked_sub(1).map(Position).filter(|left| left.0 > 0),
        }
    }
}

/// What a search came to.
#[derive(Debug)]
pub(crate) enum Found<T> {
    /// This.
    Here(T),
    /// Nothing up to this place, which has not been looked at: the budget was used up.
    NotBefore(Position),
    /// Nothing up to the end.
    Nothing,
}

/// How much a search may do, in looks at a term or an event.
#[derive(Debug)]
pub(crate) struct Budget(pub(crate) u64);

impl Budget {
    /// For searches that have to come to an end.
    pub(crate) fn unbounded() -> Self {
        Self(u64::MAX)
    }

    /// Takes some of it; `false` when it is used up.
    fn take(&mut self, some: usize) -> bool {
        self.0 = self.0.saturating_sub(u64::try_from(some).unwrap_or(u64::MAX));
        self.0 > 0
    }
}

/// A cursor that remembers where it stands, so that asking again costs nothing.
struct TermCursor<P> {
    postings: P,
    /// What the last search found; `None` before the first.
    at: Option<Option<Position>>,
}

impl<P: Postings> TermCursor<P> {
    fn seek(&mut self, at: Position, way: Direction) -> Result<Option<Position>, ReadError> {
        match self.at {
            Some(None) => Ok(None),
            Some(Some(found)) if !way.is_before(found, at) => Ok(Some(found)),
            Some(_) | None => {
                let found = self.postings.seek(at)?;
                debug_assert!(found.is_none_or(|found| !way.is_before(found, at)));
                self.at = Some(found);
                Ok(found)
            }
        }
    }
}

/// Places where any of some terms is, if there are any such terms, and all of others.
struct ItemCursor<P> {
    any: Vec<TermCursor<P>>,
    all: Vec<TermCursor<P>>,
    /// The farthest place that an event can have.
    end: Position,
    /// What the last search found.
    found: Option<Found<Position>>,
}

impl<P: Postings> ItemCursor<P> {
    fn seek(
        &mut self,
        mut at: Position,
        way: Direction,
        budget: &mut Budget,
    ) -> Result<&Found<Position>, ReadError> {
        let stands = match &self.found {
            Some(Found::Here(found)) => !way.is_before(*found, at),
            Some(Found::Nothing) => true,
            Some(Found::NotBefore(_)) | None => false,
        };
        if !stands {
            self.found = Some(loop {
                if way.is_before(self.end, at) {
                    break Found::Nothing;
                }
                match self.leap(at, way)? {
                    None => break Found::Nothing,
                    Some(there) if there == at => break Found::Here(at),
                    Some(there) => at = there,
                }
                if !budget.take(1 + self.any.len() + self.all.len()) {
                    break Found::NotBefore(at);
                }
            });
        }
        Ok(self.found.as_ref().expect("it was just found"))
    }

    /// The farthest place, from `at`, before which some term says that there is nothing; `at` if all agree that there is.
    fn leap(&mut self, at: Position, way: Direction) -> Result<Option<Position>, ReadError> {
        let mut there = at;
        if !self.any.is_empty() {
            let mut first = None;
            for cursor in &mut self.any {
                let found = cursor.seek(at, way)?;
                first = match (first, found) {
                    (Some(first), Some(found)) if way.is_before(first, found) => Some(first),
                    (first, found) => found.or(first),
                };
            }
            match first {
                Some(first) => there = first,
                None => return Ok(None),
            }
        }
        for cursor in &mut self.all {
            match cursor.seek(there, way)? {
                Some(found) => there = found,
                None => return Ok(None),
            }
        }
        Ok(Some(there))
    }
}

/// Goes through the visible events of a source that pass a filter.
pub(crate) struct Scan<'a, I: Index> {
    index: &'a I,
    source: &'a Source,
    filter: &'a Filter,
    way: Direction,
    /// Where to look next; `None` at the beginning of the log.
    at: Option<Position>,
    /// The alternatives.
    items: Vec<ItemCursor<I::Postings<'a>>>,
    visibility: Visibility<'a, I>,
    has_looked: bool,
}

impl<'a, I: Index> Scan<'a, I> {
    /// Begins at `from`, which is part of it.
    pub(crate) fn new(
        index: &'a I,
        source: &'a Source,
        filter: &'a Filter,
        from: Position,
        way: Direction,
    ) -> Result<Self, ReadError> {
        let head = index.head();
        let (from, end) = match way {
            Direction::Forward => (from.max(Position(1)), head),
            Direction::Backward => (from.min(head), Position(1)),
        };
        let mut scan = Self {
            index,
            source,
            filter,
            way,
            at: from.of_event().map(|_| from),
            items: Vec::new(),
            visibility: Visibility::new(index)?,
            has_looked: false,
        };
        match source {
            Source::Stream(stream) => scan.add_item(&[], &[], Some(stream), from, end)?,
            Source::All => scan.add_item(&filter.types, &filter.labels, None, from, end)?,
            Source::Query(query) if query.items.is_empty() => {
                scan.add_item(&[], &[], None, from, end)?;
            }
            Source::Query(Query { items }) => {
                for QueryItem { types, labels } in items {
                    scan.add_item(types, labels, None, from, end)?;
                }
            }
        }
        Ok(scan)
    }

    fn add_item(
        &mut self,
        types: &'a [crate::event::EventType],
        labels: &'a [crate::event::Label],
        stream: Option<&'a StreamName>,
        from: Position,
        end: Position,
    ) -> Result<(), ReadError> {
        let cursor = |term: Term<'_>| {
            let postings = self.index.postings(term, from, self.way)?;
            Ok::<_, ReadError>(TermCursor { postings, at: None })
        };
        let mut any = Vec::with_capacity(types.len());
        for event_type in types {
            any.push(cursor(Term::Type(event_type))?);
        }
        let mut all = Vec::with_capacity(labels.len() + 1);
        if let Some(stream) = stream {
            all.push(cursor(Term::Stream(stream))?);
        }
        for label in labels {
            let home = label.as_str().strip_prefix(STREAM_LABEL);
            match home.map(StreamName::new) {
                None => all.push(cursor(Term::Label(label))?),
                Some(Ok(home)) => all.push(cursor(Term::Stream(&home))?),
                // No stream has such a name, and no event such a label.
                Some(Err(_)) => return Ok(()),
            }
        }
        self.items.push(ItemCursor { any, all, end, found: None });
        Ok(())
    }

    /// Where it would look next; `None` beyond the beginning of the log.
    pub(crate) fn at(&self) -> Option<Position> {
        self.at
    }

    /// The next event.
    pub(crate) fn next(&mut self, budget: &mut Budget) -> Result<Found<Arc<Recorded>>, ReadError> {
        loop {
            let candidate = match self.candidate(budget)? {
                Found::Here(candidate) => candidate,
                Found::NotBefore(at) => {
                    self.at = Some(at);
                    return Ok(Found::NotBefore(at));
                }
                Found::Nothing => {
                    self.at = None;
                    return Ok(Found::Nothing);
                }
            };
            // Where an event cannot be read, the scan stands: what is before it has been returned.
            self.at = Some(candidate);
            // One event is looked at however little is left: whoever goes on from where this ends comes to an end.
            if !budget.take(1) && self.has_looked {
                return Ok(Found::NotBefore(candidate));
            }
            self.has_looked = true;
            let entry = self.index.event(candidate)?;
            let found = match entry {
                Entry::Event(recorded) => self.is_match(&recorded)?.then_some(recorded),
                Entry::Scavenged(_) => None,
            };
            self.at = self.way.after(candidate);
            if let Some(recorded) = found {
                return Ok(Found::Here(recorded));
            }
        }
    }

    /// The next place at which the terms of some alternative are, as far as the index knows.
    fn candidate(&mut self, budget: &mut Budget) -> Result<Found<Position>, ReadError> {
        let Some(at) = self.at else {
            return Ok(Found::Nothing);
        };
        let mut nearest = Found::Nothing;
        for item in &mut self.items {
            let (place, is_candidate) = match item.seek(at, self.way, budget)? {
                Found::Nothing => continue,
                Found::Here(place) => (*place, true),
                Found::NotBefore(place) => (*place, false),
            };
            let is_nearer = match &nearest {
                Found::Nothing => true,
                Found::NotBefore(other) => *other == place || self.way.is_before(place, *other),
                Found::Here(other) => self.way.is_before(place, *other),
            };
            if is_nearer {
                nearest = if is_candidate { Found::Here(place) } else { Found::NotBefore(place) };
            }
        }
        Ok(nearest)
    }

    fn is_match(&mut self, recorded: &Recorded) -> Result<bool, ReadError> {
        let in_source = match self.source {
            Source::Stream(stream) => recorded.stream == *stream,
            Source::All => true,
            Source::Query(query) => query.matches(&recorded.stream, &recorded.event),
        };
        Ok(in_source && self.filter.passes(recorded) && self.visibility.shows(recorded)?)
    }
}

/// Which events retention lets be seen, remembering what it has learned about streams.
pub(crate) struct Visibility<'a, I: Index> {
    index: &'a I,
    now: Timestamp,
    known: BTreeMap<StreamName, Option<(Retention, Version)>>,
}

/// So many streams are remembered at a time.
const KNOWN_MAX: usize = 4096;

impl<'a, I: Index> Visibility<'a, I> {
    pub(crate) fn new(index: &'a I) -> Result<Self, ReadError> {
        #[cfg(feature = "sim")]
        if planted!(AgeByLocalClock) {
            return Ok(Self { index, now: crate::sim::local_time(), known: BTreeMap::new() });
        }
        Ok(Self { index, now: index.time()?, known: BTreeMap::new() })
    }

    pub(crate) fn shows(&mut self, recorded: &Recorded) -> Result<bool, ReadError> {
        let rule = match self.known.get(&recorded.stream) {
            Some(rule) => *rule,
            None => {
                let rule = self.rule_of(&recorded.stream)?;
                if self.known.len() >= KNOWN_MAX {
                    self.known.clear();
                }
                self.known.insert(recorded.stream.clone(), rule);
                rule
            }
        };
        Ok(rule.is_none_or(|(retention, last)| {
            retention.shows(recorded.version, recorded.timestamp, last, self.now)
        }))
    }

    /// What hides events of a stream; `None` if nothing does.
    fn rule_of(&self, stream: &StreamName) -> Result<Option<(Retention, Version)>, ReadError> {
        let retention = readable_retention(self.index, stream)?;
        if retention == Retention::default() {
            return Ok(None);
        }
        let last = self.index.last_of(stream)?;
        Ok(last.map(|(last, _)| (retention, last)))
    }
}

/// What was decided about a stream, as far as it can be read: if the event that decided last is damaged, what was decided before it
/// holds. Decisions only ever hide more, so this hides nothing that can be seen. Who decides on an append does not go by it.
///
/// The work goes by the number of damaged decisions about the stream.
pub(crate) fn readable_retention<I: Index>(
    index: &I,
    stream: &StreamName,
) -> Result<Retention, ReadError> {
    match index.retention(stream) {
        Err(ReadError::Damaged { .. }) => {}
        retention => return retention,
    }
    let Ok(describing) = stream.metadata_stream() else { return Ok(Retention::default()) };
    let last = index.last_of(&describing)?.map_or(Version(0), |(last, _)| last);
    for version in (0..last.0).rev() {
        let found = index
            .position_of(&describing, Version(version))
            .and_then(|position| position.map(|position| index.event(position)).transpose());
        match found {
            Ok(Some(Entry::Event(recorded))) => return Ok(Retention::decided_by(&recorded.event)),
            // Its space came back when the damaged one hid it.
            Ok(Some(Entry::Scavenged(_))) => break,
            Ok(None) | Err(ReadError::Damaged { .. }) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(Retention::default())
}

/// The first version of a stream that can be seen when the log's time is `now`; one more than `last` if there is none.
pub(crate) fn first_visible<I: Index>(
    index: &I,
    stream: &StreamName,
    retention: &Retention,
    last: Version,
    now: Timestamp,
) -> Result<Version, ReadError> {
    let Version(mut low) = retention.first_by_number(last);
    let mut high = last.0 + 1;
    if retention.max_age.is_none() {
        return Ok(Version(low));
    }
    // Time does not go back along a stream: the first event that is young enough is found by halving.
    while low < high {
        let middle = low + (high - low) / 2;
        // A lost event is as old as the next one that can be read, as far as anybody can tell.
        let mut known = middle;
        let shown = loop {
            if known == high {
                break true;
            }
            if let Some(time) = time_of(index, stream, Version(known))? {
                break retention.shows(Version(known), time, last, now);
            }
            known += 1;
        };
        if shown {
            high = middle;
        } else {
            low = known + 1;
        }
    }
    Ok(Version(low))
}

/// When a version of a stream was recorded; `None` if its event is lost.
fn time_of<I: Index>(
    index: &I,
    stream: &StreamName,
    version: Version,
) -> Result<Option<Timestamp>, ReadError> {
    let entry = index
        .position_of(stream, version)
        .and_then(|position| position.map(|position| index.event(position)).transpose());
    match entry {
        Ok(entry) => Ok(entry.map(|entry| entry.timestamp())),
        Err(ReadError::Damaged { .. }) => Ok(None),
        Err(error) => Err(error),
    }
}
