//! The store as simply as it can be said: a list of events, and questions answered by looking at all of them.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::append::{
    Append, AppendError, Committed, Conflict, FailedCheck, IdempotencyKey, WINNERS_BYTES_MAX,
    WINNERS_MAX,
};
use crate::condition::{Check, Expected};
use crate::error::InvalidAppend;
use crate::event::{AppendPlace, NewEvent, Position, Recorded, StreamName, Timestamp, Version};
use crate::read::{Direction, From, Read, ReadError, Source};
use crate::record;
use crate::retention::Retention;

/// Everything that was ever recorded.
#[derive(Clone, Debug, Default)]
pub(crate) struct Model {
    pub(crate) events: Vec<Arc<Recorded>>,
    keys: BTreeMap<IdempotencyKey, usize>,
}

/// What holds at a moment.
#[derive(Clone, Default)]
pub(crate) struct View {
    pub(crate) retention: BTreeMap<StreamName, Retention>,
    pub(crate) last: BTreeMap<StreamName, Version>,
    now: Timestamp,
}

impl View {
    pub(crate) fn retention(&self, stream: &StreamName) -> Retention {
        self.retention.get(stream).copied().unwrap_or_default()
    }

    pub(crate) fn shows(&self, event: &Recorded) -> bool {
        self.shows_by(&self.retention(&event.stream), &event.stream, event.version, event.timestamp)
    }

    fn shows_by(
        &self,
        retention: &Retention,
        stream: &StreamName,
        version: Version,
        timestamp: Timestamp,
    ) -> bool {
        let last = self.last[stream];
        let old = retention.max_age.is_some_and(|age| {
            u128::from(self.now.0.saturating_sub(timestamp.0)) > age.as_millis()
        });
        let many = retention.max_count.is_some_and(|count| last.0 - version.0 >= count);
        let cut = retention.truncate_before.is_some_and(|before| version < before);
        !(retention.tombstoned || old || many || cut)
    }

    /// The version of the last event of a stream that exists.
    fn actual(&self, stream: &StreamName) -> Option<Version> {
        let retention = self.retention(stream);
        self.last.get(stream).copied().filter(|last| {
            !retention.tombstoned && retention.truncate_before.is_none_or(|before| before <= *last)
        })
    }

    fn take_in(&mut self, stream: &StreamName, version: Version, event: &NewEvent) {
        self.last.insert(stream.clone(), version);
        if let Some(described) = described(stream) {
            self.retention.insert(described, Retention::decided_by(event));
        }
    }
}

fn described(stream: &StreamName) -> Option<StreamName> {
    stream.described_stream().and_then(|name| StreamName::new(name).ok())
}

/// Whether two events say the same.
fn says_the_same(a: &NewEvent, b: &NewEvent) -> bool {
    let labels = |event: &NewEvent| {
        let mut labels = event.labels.clone();
        labels.sort();
        labels.dedup();
        labels
    };
    (&a.event_type, a.schema, &a.content_type, &a.data)
        == (&b.event_type, b.schema, &b.content_type, &b.data)
        && labels(a) == labels(b)
}

fn position(offset: usize) -> Position {
    Position(u64::try_from(offset).expect("it is small") + 1)
}

impl Model {
    pub(crate) fn head(&self) -> Position {
        Position(u64::try_from(self.events.len()).expect("it is small"))
    }

    pub(crate) fn view(&self) -> View {
        let mut view = View::default();
        for event in &self.events {
            view.take_in(&event.stream, event.version, &event.event);
            view.now = event.timestamp;
        }
        view
    }

    /// The key of the append that begins at a position.
    #[cfg(feature = "sim")]
    pub(crate) fn key_at(&self, first: Position) -> Option<&IdempotencyKey> {
        let mut keys = self.keys.iter();
        keys.find(|(_, offset)| position(**offset) == first).map(|(key, _)| key)
    }

    /// Carries out an append that has the form of one.
    pub(crate) fn append(
        &mut self,
        append: &Append,
        now: Timestamp,
    ) -> Result<Committed, AppendError> {
        if let Some(first) = self.find(append)? {
            let mut committed = self.committed(first, append.events.len());
            committed.repeated = true;
            return Ok(committed);
        }
        let view = self.view();
        let mut streams: Vec<_> = append.events.iter().map(|(stream, _)| stream).collect();
        streams.sort();
        for stream in streams {
            let subject = described(stream).unwrap_or_else(|| stream.clone());
            if view.retention(&subject).tombstoned {
                return Err(AppendError::Tombstoned { stream: subject });
            }
        }
        self.check(append, &view)?;
        if !self.brings_nothing_back(append, view.clone()) {
            return Err(AppendError::Invalid(InvalidAppend::Reserved(String::new())));
        }
        let first = self.events.len();
        let count = u32::try_from(append.events.len()).expect("it is small");
        let timestamp = now.max(view.now);
        for (index, (stream, event)) in (0..).zip(&append.events) {
            let version = self
                .events
                .iter()
                .rfind(|event| event.stream == *stream)
                .map_or(Version(0), |event| event.version.next());
            let mut event = event.clone();
            event.labels.sort();
            event.labels.dedup();
            let (position, stream) = (position(self.events.len()), stream.clone());
            let place = AppendPlace { index, count };
            let recorded = Recorded { position, stream, version, timestamp, place, event };
            self.events.push(Arc::new(recorded));
        }
        if let Some(key) = &append.key {
            self.keys.insert(key.clone(), first);
        }
        Ok(self.committed(first, append.events.len()))
    }

    /// Where the append stands already.
    fn find(&self, append: &Append) -> Result<Option<usize>, AppendError> {
        if let Some(first) = append.key.as_ref().and_then(|key| self.keys.get(key)).copied() {
            let count = usize::try_from(self.events[first].place.count).expect("it is small");
            let same = append.events.len() == count
                && self.events[first..].iter().zip(&append.events).all(
                    |(known, (stream, event))| {
                        known.stream == *stream && says_the_same(&known.event, event)
                    },
                );
            return if same {
                Ok(Some(first))
            } else {
                Err(AppendError::KeyReused { position: position(first) })
            };
        }
        let mut places = Vec::new();
        for (stream, event) in &append.events {
            let has = |known: &Arc<Recorded>| known.stream == *stream && known.event.id == event.id;
            let place = self.events.iter().position(has);
            if let Some(place) = place
                && !says_the_same(&self.events[place].event, event)
            {
                let (id, stream) = (event.id, stream.clone());
                return Err(AppendError::IdReused { id, stream, position: position(place) });
            }
            places.push(place);
        }
        let Some(some) = places.iter().flatten().next().copied() else {
            return Ok(None);
        };
        if places.iter().copied().eq((some..some + places.len()).map(Some)) {
            return match append.key {
                Some(_) => Err(AppendError::KeyMissing { position: position(some) }),
                None => Ok(Some(some)),
            };
        }
        let Recorded { event, stream, position, .. } = &*self.events[some];
        Err(AppendError::PartlyRecorded {
            id: event.id,
            stream: stream.clone(),
            position: *position,
        })
    }

    fn check(&self, append: &Append, view: &View) -> Result<(), AppendError> {
        let head = self.head();
        for check in &append.checks {
            if let Check::NoMatch { after, .. } = check
                && *after > head
            {
                return Err(AppendError::Invalid(InvalidAppend::AfterHead { after: *after, head }));
            }
        }
        let (mut failed, mut complete) = (Vec::new(), true);
        let mut winners = BTreeMap::new();
        for (index, check) in append.checks.iter().enumerate() {
            let against: Vec<&Arc<Recorded>> = match check {
                Check::Stream { stream, expected } => {
                    let last = view.last.get(stream).copied();
                    let actual = view.actual(stream);
                    let closed = view.retention(stream).tombstoned;
                    let (holds, from) = match expected {
                        Expected::Any => (true, None),
                        Expected::NoStream => (actual.is_none(), Some(Version(0))),
                        Expected::StreamExists => (actual.is_some(), None),
                        Expected::Exact(version) => {
                            (last == Some(*version) && !closed, Some(version.next()))
                        }
                    };
                    if holds {
                        continue;
                    }
                    let (stream, expected) = (stream.clone(), *expected);
                    let of_stream = |event: &&Arc<Recorded>| {
                        event.stream == stream && from.is_some_and(|from| event.version >= from)
                    };
                    let since = self.events.iter().filter(of_stream);
                    let against =
                        since.clone().filter(|event| view.shows(event)).collect::<Vec<_>>();
                    let all_seen = expected == Expected::NoStream || since.count() == against.len();
                    complete &= all_seen && !against.is_empty();
                    failed.push(FailedCheck::Stream { stream, expected, actual });
                    against
                }
                Check::NoMatch { query, after } => {
                    let matches = |event: &&Arc<Recorded>| {
                        event.position > *after
                            && view.shows(event)
                            && query.matches(&event.stream, &event.event)
                    };
                    let against: Vec<_> = self.events.iter().filter(matches).collect();
                    if let Some(first) = against.first() {
                        let position = first.position;
                        failed.push(FailedCheck::Match { check: index, position });
                    }
                    against
                }
            };
            winners.extend(against.into_iter().map(|event| (event.position, Arc::clone(event))));
        }
        if failed.is_empty() {
            return Ok(());
        }
        let mut bytes = 0;
        let mut carried: Vec<Arc<Recorded>> = Vec::new();
        for event in winners.into_values() {
            bytes += record::size(&event.stream, &event.event);
            if carried.len() == WINNERS_MAX || (bytes > WINNERS_BYTES_MAX && !carried.is_empty()) {
                complete = false;
                break;
            }
            carried.push(event);
        }
        Err(AppendError::Conflict(Box::new(Conflict { failed, winners: carried, complete, head })))
    }

    /// Whether what the append says about streams makes sense and shows no event again.
    fn brings_nothing_back(&self, append: &Append, mut view: View) -> bool {
        let now = view.now;
        for (stream, event) in &append.events {
            let next = view.last.get(stream).map_or(Version(0), |last| last.next());
            let subject = described(stream);
            let named = subject.as_ref().unwrap_or(stream);
            let before = view.retention(named);
            if before.tombstoned {
                return false;
            }
            if subject.is_some() {
                let after = Retention::decided_by(event);
                let end = view.last.get(named).map_or(Version(0), |last| last.next());
                if after.truncate_before.is_some_and(|cut| cut > end) {
                    return false;
                }
                let back = (0..end.0).any(|version| {
                    let known = self
                        .events
                        .iter()
                        .find(|event| event.stream == *named && event.version == Version(version));
                    // What the append itself writes is as young as can be.
                    let time = known.map_or(now, |known| known.timestamp);
                    let shows = |by: &Retention| view.shows_by(by, named, Version(version), time);
                    !shows(&before) && shows(&after)
                });
                if back {
                    return false;
                }
            }
            view.take_in(stream, next, event);
        }
        true
    }

    fn committed(&self, first: usize, count: usize) -> Committed {
        let written = &self.events[first..first + count];
        let streams: BTreeMap<_, _> =
            written.iter().map(|event| (event.stream.clone(), event.version)).collect();
        Committed {
            first: position(first),
            last: position(first + count - 1),
            streams: streams.into_iter().collect(),
            repeated: false,
        }
    }

    /// Everything that a read is about, in its direction.
    pub(crate) fn read(&self, read: &Read) -> Result<Vec<Arc<Recorded>>, ReadError> {
        let view = self.view();
        if let Source::Stream(stream) = &read.source {
            let stream = stream.clone();
            if view.retention(&stream).tombstoned {
                return Err(ReadError::Tombstoned { stream });
            }
            if view.actual(&stream).is_none() {
                return Err(ReadError::NoStream { stream });
            }
        }
        let forward = read.direction == Direction::Forward;
        let on_the_way = |event: &Recorded| match (read.from, forward) {
            (From::Edge, _) => true,
            (From::Version(version), true) => event.version >= version,
            (From::Version(version), false) => event.version <= version,
            (From::Position(position), true) => event.position >= position,
            (From::Position(position), false) => event.position <= position,
            (From::Time(time), true) => event.timestamp >= time,
            (From::Time(time), false) => event.timestamp <= time,
        };
        let in_source = |event: &Recorded| match &read.source {
            Source::Stream(stream) => event.stream == *stream,
            Source::All => true,
            Source::Query(query) => query.matches(&event.stream, &event.event),
        };
        let passes = |event: &&Arc<Recorded>| {
            in_source(event) && on_the_way(event) && view.shows(event) && read.filter.passes(event)
        };
        let mut events: Vec<_> = self.events.iter().filter(passes).cloned().collect();
        if !forward {
            events.reverse();
        }
        Ok(events)
    }
}
