//! What is drawn from a seed: appends of every kind, reads, subscriptions.

use std::collections::BTreeSet;

use lattice_sim::ChaCha8Rng;
use lattice_sim::random::{Rng, below, index, stream};
use uuid::Uuid;

use crate::append::Append;
use crate::condition::{Check, Expected, Query, QueryItem};
use crate::event::{EventId, EventType, Label, NewEvent, Position, StreamName, Timestamp, Version};
use crate::filter::{Filter, Pattern};
use crate::read::{Direction, From, Read, Source};
use crate::retention::{METADATA_TYPE, TOMBSTONE_TYPE};
use crate::testing::differential::model::Model;

const VALID: &str = "the name is valid";

/// Streams that decisions are made about.
const LIMITED: [&str; 8] = ["a", "b", "c", "d", "e", "f", "g", "$s"];
/// Streams of which everything is kept, for the projection.
pub(super) const KEPT: [&str; 3] = ["keep-0", "keep-1", "keep-2"];

/// The random stream of a run.
#[derive(Debug)]
pub(super) struct Draw(ChaCha8Rng);

impl Draw {
    pub(super) fn new(seed: u64) -> Self {
        Self(stream(seed, "events", 0))
    }

    pub(super) fn below(&mut self, bound: u64) -> u64 {
        below(&mut self.0, bound)
    }

    pub(super) fn count(&mut self, bound: usize) -> usize {
        index(&mut self.0, bound)
    }

    /// True in so many of a hundred cases.
    pub(super) fn chance(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }

    pub(super) fn of<'a, T>(&mut self, choices: &'a [T]) -> &'a T {
        &choices[index(&mut self.0, choices.len())]
    }

    fn id(&mut self) -> EventId {
        EventId(Uuid::from_u64_pair(self.0.next_u64(), self.0.next_u64()))
    }

    pub(super) fn stream(&mut self) -> StreamName {
        let names: &[&str] = if self.chance(30) { &KEPT } else { &LIMITED };
        StreamName::new(self.of(names)).expect(VALID)
    }

    fn limited(&mut self) -> StreamName {
        StreamName::new(self.of(&LIMITED)).expect(VALID)
    }

    fn event_type(&mut self) -> EventType {
        EventType::new(self.of(&["t", "u", "v"])).expect(VALID)
    }

    fn label(&mut self) -> Label {
        Label::new(self.of(&["x", "y", "z", "rare"])).expect(VALID)
    }

    fn event(&mut self, stream: &StreamName) -> NewEvent {
        let own = stream.is_system() && self.chance(50);
        let kind = if own { EventType::new("$w").expect(VALID) } else { self.event_type() };
        let most = if self.chance(10) { 600 } else { 40 };
        let size = 1 + self.count(most);
        let mut event = NewEvent::bytes(kind, vec![b'1'; size]);
        event.schema = if self.chance(20) { 2 } else { 1 };
        event.id = match self.chance(3) {
            true => EventId(Uuid::from_u128(self.below(20).into())),
            false => self.id(),
        };
        while self.chance(40) {
            event.labels.push(self.label());
        }
        event
    }

    /// An append: new, an old one again, or a decision about a stream.
    pub(super) fn append(&mut self, model: &Model, old: &[Append]) -> Append {
        if !old.is_empty() && self.chance(15) {
            let append = self.of(old).clone();
            return self.changed(append, model);
        }
        if self.chance(14) {
            return self.decision(model);
        }
        let mut append = Append::default();
        for _ in 0..1 + self.below(4) {
            let stream = self.stream();
            let event = self.event(&stream);
            append.events.push((stream, event));
        }
        while self.chance(40) {
            let check = self.check(model);
            append.checks.push(check);
        }
        if self.chance(12) {
            append = append.key(format!("key {}", self.below(20)));
        }
        without_twins(append)
    }

    /// One that was tried before, as it was or with a difference.
    fn changed(&mut self, mut append: Append, model: &Model) -> Append {
        match self.below(8) {
            0 => append.events.reverse(),
            1 => drop(append.events.pop()),
            2 => {
                let stream = self.stream();
                let event = self.event(&stream);
                append.events.push((stream, event));
            }
            3 => append.events[0].1.data = "other".into(),
            4 => append.checks.clear(),
            _ => return append,
        }
        let decides = |(stream, _): &(StreamName, NewEvent)| stream.described_stream().is_some();
        if append.events.is_empty() || append.events.iter().any(decides) {
            return self.decision(model);
        }
        without_twins(append)
    }

    /// Something about what is kept of a stream.
    fn decision(&mut self, model: &Model) -> Append {
        let subject = self.limited();
        let last = model.view().last.get(&subject).map_or(0, |last| last.0);
        let mut object = serde_json::Map::new();
        if self.chance(60) {
            object.insert("$tb".to_owned(), (last + 2).saturating_sub(self.below(6)).into());
        }
        if self.chance(30) {
            object.insert("$maxCount".to_owned(), (1 + self.below(6)).into());
        }
        if self.chance(30) {
            object.insert("$maxAge".to_owned(), (1 + self.below(20)).into());
        }
        let kind = if self.chance(8) { TOMBSTONE_TYPE } else { METADATA_TYPE };
        let data = serde_json::Value::Object(object).to_string();
        let event = NewEvent::json(EventType::new(kind).expect(VALID), data).id(self.id());
        let describing = subject.metadata_stream().expect("it describes none itself");
        let mut append = Append::to(describing, Expected::Any, [event]);
        if self.chance(20) {
            let event = self.event(&subject);
            append = append.and_to(subject.clone(), Expected::Any, [event]);
        }
        if self.chance(30) {
            append = append.require(subject, Expected::Exact(Version(last)));
        }
        append
    }

    fn check(&mut self, model: &Model) -> Check {
        if self.chance(50) {
            let stream = self.stream();
            let last = model.view().last.get(&stream).copied();
            let near = last.map_or(0, |last| last.0);
            let expected = match self.below(8) {
                0 => Expected::Any,
                1 => Expected::NoStream,
                2 => Expected::StreamExists,
                3 => Expected::Exact(Version((near + 2).saturating_sub(self.below(6)))),
                _ => last.map_or(Expected::NoStream, Expected::Exact),
            };
            return Check::Stream { stream, expected };
        }
        let head = model.head().0;
        let after = match self.below(10) {
            0 => self.below(head + 3),
            1..3 => head.saturating_sub(self.below(20)),
            _ => head.saturating_sub(self.below(3)),
        };
        Check::NoMatch { query: self.query(), after: Position(after) }
    }

    fn query(&mut self) -> Query {
        let mut query = Query::default();
        while query.items.is_empty() && !self.chance(5) || self.chance(20) {
            let mut item = QueryItem::default();
            while self.chance(40) {
                item.types.push(self.event_type());
            }
            while self.chance(55) {
                let label = match self.chance(20) {
                    true => Label::new(format!("stream:{}", self.stream())).expect(VALID),
                    false => self.label(),
                };
                item.labels.push(label);
            }
            query.items.push(item);
        }
        query
    }

    pub(super) fn source(&mut self) -> Source {
        match self.below(3) {
            0 => Source::Stream(self.stream()),
            1 => Source::All,
            _ => Source::Query(self.query()),
        }
    }

    pub(super) fn filter(&mut self) -> Filter {
        let mut filter = Filter::default();
        if self.chance(20) {
            filter.types.push(self.event_type());
        }
        if self.chance(20) {
            filter.labels.push(self.label());
        }
        if self.chance(15) {
            filter.stream_prefixes.push(self.stream().as_str().into());
        }
        if self.chance(10) {
            filter.type_pattern = Some(Pattern::new("^[tv]$").expect("it is a pattern"));
        }
        filter.exclude_system = self.chance(20);
        filter
    }

    pub(super) fn read(&mut self, head: Position, now: Timestamp) -> Read {
        let source = self.source();
        let from = match self.below(5) {
            0 => From::Position(Position(self.below(head.0 + 3))),
            1 => From::Time(Timestamp(now.0.saturating_sub(self.below(40_000)))),
            2 if matches!(source, Source::Stream(_)) => From::Version(Version(self.below(20))),
            _ => From::Edge,
        };
        let mut read = Read::forward(source).from(from);
        if self.chance(40) {
            read.filter = self.filter();
        }
        if self.chance(50) {
            read.direction = Direction::Backward;
        }
        if self.chance(60) {
            read.count_max = 1 + self.count(12);
        }
        read
    }
}

/// The append without events that have the id of an earlier one of the same stream: that would make it invalid.
fn without_twins(mut append: Append) -> Append {
    let mut seen = BTreeSet::new();
    append.events.retain(|(stream, event)| seen.insert((stream.clone(), event.id)));
    append
}
