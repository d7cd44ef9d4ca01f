//! Any store against the simplest one that can be written down: whatever is done to both, they answer alike.
//!
//! A run goes by its seed: appends of every kind, with checks that hold and checks that do not, repetitions true and false, decisions
//! about what is kept, a clock that jumps; in between pages are read, the store is opened again and space is taken back. Every answer
//! is compared. The same seed does the same again.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use futures::executor::block_on;
use futures::future::join_all;
use uuid::Uuid;

use crate::append::{Append, AppendError, Committed};
use crate::clock::{Clock, ManualClock};
use crate::condition::{Check, Expected, Query, QueryItem};
use crate::error::InvalidAppend;
use crate::event::{EventId, EventType, Label, NewEvent, Position, StreamName, Timestamp, Version};
use crate::filter::Filter;
use crate::read::{Direction, From, Page, Read, Source};
use crate::retention::{METADATA_TYPE, TOMBSTONE_TYPE};
use crate::store::StreamInfo;
use crate::testing::conformance::Subject;

use self::model::Model;

pub(crate) mod model;

const VALID: &str = "the name is valid";

/// Does `steps` random things to a store and to the model, and compares.
///
/// # Panics
///
/// At the first answer that differs, saying the seed, the step and both answers.
pub fn run<S: Subject>(seed: u64, steps: usize, create: impl FnOnce(Arc<dyn Clock>) -> S) -> Tally {
    let clock = Arc::new(ManualClock::at(Timestamp(1_000_000)));
    let subject = create(Arc::clone(&clock) as Arc<dyn Clock>);
    let mut run = Run {
        seed,
        step: 0,
        random: Random(seed),
        subject,
        clock,
        model: Model::default(),
        appends: Vec::new(),
        scavenged: false,
        tally: Tally::default(),
    };
    for step in 0..steps {
        run.step = step;
        run.do_something();
    }
    run.compare_the_whole();
    run.tally
}

/// What appends came to, and how often: so that whoever runs many can see that all of it happens.
pub type Tally = BTreeMap<&'static str, u64>;

struct Run<S> {
    seed: u64,
    step: usize,
    random: Random,
    subject: S,
    clock: Arc<ManualClock>,
    model: Model,
    /// What was appended or refused so far, to be tried again.
    appends: Vec<Append>,
    scavenged: bool,
    tally: Tally,
}

impl<S: Subject> Run<S> {
    fn do_something(&mut self) {
        match self.random.below(100) {
            0..55 => self.append(),
            55..85 => self.read(),
            85..90 => self.look_at_a_stream(),
            90..94 => {
                let by = self.random.below(4_000);
                self.clock.advance(Duration::from_millis(by));
            }
            94 => {
                let back = self.clock.now().0.saturating_sub(self.random.below(2_000));
                self.clock.set(Timestamp(back));
            }
            95..97 => {
                self.subject.scavenge();
                self.scavenged = true;
            }
            97..99 => self.subject.reopen(),
            _ => self.compare_the_whole(),
        }
    }

    #[track_caller]
    fn same<T: PartialEq + Debug>(&self, about: &dyn Debug, store: T, model: T) {
        assert!(
            store == model,
            "seed {} step {}: {about:?}\nthe store says: {store:?}\nthe model says: {model:?}",
            self.seed,
            self.step
        );
    }

    /// Appends, at times several that are under way together: they are carried out in order. One with a query, which those behind it
    /// might overtake, is the last of them.
    fn append(&mut self) {
        let count = if self.random.chance(20) { 1 + self.random.below(6) } else { 1 };
        let mut appends: Vec<Append> = Vec::new();
        for _ in 0..count {
            let append = self.an_append();
            let asks = append.checks.iter().any(|check| matches!(check, Check::NoMatch { .. }));
            appends.push(append);
            if asks {
                break;
            }
        }
        let store = self.subject.store();
        let under_way: Vec<_> = appends.iter().map(|append| store.append(append.clone())).collect();
        let answers = block_on(join_all(under_way));
        for (append, answer) in appends.into_iter().zip(answers) {
            let expected = self.model.append(&append, self.clock.now());
            *self.tally.entry(kind(&answer)).or_default() += 1;
            self.same(&append, verdict(&answer), verdict(&expected));
            self.appends.push(append);
        }
        self.same(&"head", store.head(), self.model.head());
    }

    fn an_append(&mut self) -> Append {
        if !self.appends.is_empty() && self.random.chance(15) {
            return self.an_old_append();
        }
        if self.random.chance(12) {
            return self.a_decision();
        }
        let mut append = Append::default();
        let count = if self.random.chance(2) { 70 } else { 1 + self.random.below(4) };
        for _ in 0..count {
            let stream = self.a_stream();
            let event = self.an_event(&stream);
            append.events.push((stream, event));
        }
        while self.random.chance(45) {
            let check = self.a_check();
            append.checks.push(check);
        }
        if self.random.chance(12) {
            append = append.key(format!("key {}", self.random.below(30)));
        }
        without_twins(append)
    }

    /// One that was tried before, as it was or with a difference.
    fn an_old_append(&mut self) -> Append {
        let mut append = self.random.of(&self.appends).clone();
        match self.random.below(8) {
            0 => append.events.reverse(),
            1 => drop(append.events.pop()),
            2 => {
                let stream = self.a_stream();
                let event = self.an_event(&stream);
                append.events.push((stream, event));
            }
            3 => append.events[0].1.data = "other".into(),
            4 => append.checks.clear(),
            5 => append = append.key(format!("key {}", self.random.below(30))),
            _ => {}
        }
        if append.events.iter().any(|(stream, _)| stream.described_stream().is_some())
            || append.events.is_empty()
        {
            return self.a_decision();
        }
        without_twins(append)
    }

    /// Something about what is kept of a stream.
    fn a_decision(&mut self) -> Append {
        let subject = self.a_stream();
        let last = self.model.view().last.get(&subject).map_or(0, |last| last.0);
        let mut object = serde_json::Map::new();
        if self.random.chance(60) {
            let before = (last + 2).saturating_sub(self.random.below(6));
            object.insert("$tb".to_owned(), before.into());
        }
        if self.random.chance(30) {
            object.insert("$maxCount".to_owned(), (1 + self.random.below(8)).into());
        }
        if self.random.chance(20) {
            object.insert("$maxAge".to_owned(), (1 + self.random.below(30)).into());
        }
        let kind = if self.random.chance(2) { TOMBSTONE_TYPE } else { METADATA_TYPE };
        let data = serde_json::Value::Object(object).to_string();
        let event = NewEvent::json(EventType::new(kind).expect(VALID), data).id(self.random.id());
        let describing = subject.metadata_stream().expect("it describes none itself");
        let mut append = Append::to(describing, Expected::Any, [event]);
        if self.random.chance(20) {
            let event = self.an_event(&subject);
            append = append.and_to(subject.clone(), Expected::Any, [event]);
            if self.random.chance(50) {
                append.events.reverse();
            }
        }
        if self.random.chance(30) {
            append = append.require(subject, Expected::Exact(Version(last)));
        }
        append
    }

    fn a_stream(&mut self) -> StreamName {
        let streams = ["a", "b", "c", "d", "e", "f", "$s"];
        StreamName::new(self.random.of(&streams)).expect(VALID)
    }

    fn a_type(&mut self) -> EventType {
        EventType::new(self.random.of(&["t", "u", "v"])).expect(VALID)
    }

    fn a_label(&mut self) -> Label {
        Label::new(self.random.of(&["x", "y", "z"])).expect(VALID)
    }

    fn an_event(&mut self, stream: &StreamName) -> NewEvent {
        let own = stream.is_system() && self.random.chance(50);
        let kind = if own { EventType::new("$w").expect(VALID) } else { self.a_type() };
        let mut event = NewEvent::json(kind, self.random.of(&["1", "2", "3"]).as_bytes());
        // Few ids, so that some come again by chance.
        event.id = match self.random.chance(3) {
            true => EventId(Uuid::from_u128(self.random.below(20).into())),
            false => self.random.id(),
        };
        while self.random.chance(40) {
            event.labels.push(self.a_label());
        }
        event
    }

    fn a_check(&mut self) -> Check {
        let view = self.model.view();
        if self.random.chance(50) {
            let stream = self.a_stream();
            let near = view.last.get(&stream).map_or(0, |last| last.0);
            let expected = match self.random.below(8) {
                0 => Expected::Any,
                1 => Expected::NoStream,
                2 => Expected::StreamExists,
                3 => Expected::Exact(Version((near + 2).saturating_sub(self.random.below(8)))),
                _ if view.last.contains_key(&stream) => Expected::Exact(Version(near)),
                _ => Expected::NoStream,
            };
            return Check::Stream { stream, expected };
        }
        let head = self.model.head().0;
        let after = match self.random.below(11) {
            0 => self.random.below(head + 1),
            // At times one that no event has yet.
            10 => head + self.random.below(3),
            1..4 => head.saturating_sub(self.random.below(20)),
            _ => head.saturating_sub(self.random.below(3)),
        };
        Check::NoMatch { query: self.a_query(), after: Position(after) }
    }

    fn a_query(&mut self) -> Query {
        let mut query = Query::default();
        while query.items.is_empty() && !self.random.chance(5) || self.random.chance(20) {
            let mut item = QueryItem::default();
            while self.random.chance(40) {
                item.types.push(self.a_type());
            }
            while self.random.chance(50) {
                let label = match self.random.chance(25) {
                    true => Label::new(format!("stream:{}", self.a_stream())).expect(VALID),
                    false => self.a_label(),
                };
                item.labels.push(label);
            }
            query.items.push(item);
        }
        query
    }

    fn a_read(&mut self) -> Read {
        let source = match self.random.below(3) {
            0 => Source::Stream(self.a_stream()),
            1 => Source::All,
            _ => Source::Query(self.a_query()),
        };
        let from = match self.random.below(5) {
            0 => From::Position(Position(self.random.below(self.model.head().0 + 3))),
            1 => {
                From::Time(Timestamp(self.clock.now().0.saturating_sub(self.random.below(20_000))))
            }
            2 if matches!(source, Source::Stream(_)) => {
                From::Version(Version(self.random.below(20)))
            }
            _ => From::Edge,
        };
        let mut filter = Filter::default();
        if self.random.chance(15) {
            filter.types.push(self.a_type());
        }
        if self.random.chance(15) {
            filter.labels.push(self.a_label());
        }
        if self.random.chance(10) {
            filter.stream_prefixes.push(self.a_stream().as_str().into());
        }
        filter.exclude_system = self.random.chance(20);
        let mut read = Read::forward(source).from(from).filter(filter);
        if self.random.chance(50) {
            read.direction = Direction::Backward;
        }
        if self.random.chance(60) {
            read.count_max = 1 + usize::try_from(self.random.below(12)).expect("it is small");
        }
        if self.random.chance(10) {
            read.bytes_max = usize::try_from(self.random.below(100)).expect("it is small");
        }
        read
    }

    /// Reads a page, or page after page.
    fn read(&mut self) {
        let mut read = self.a_read();
        let expected = self.model.read(&read);
        let mut seen = Vec::new();
        let is_whole = self.random.chance(50);
        loop {
            let page = match (block_on(self.subject.store().read(read.clone())), &expected) {
                (Ok(page), Ok(_)) => page,
                (Err(store), Err(model)) => {
                    self.same(&read, format!("{store:?}"), format!("{model:?}"));
                    return;
                }
                (store, model) => {
                    let text = (format!("{store:?}"), format!("{model:?}"));
                    return self.same(&read, text.0, text.1);
                }
            };
            self.same(&read, page.events.len() <= read.count_max, true);
            self.same(&read, page.head, self.model.head());
            let Page { events, next, scanned, .. } = page;
            seen.extend(events);
            // What the page says of how far it has come is as true as its events.
            let expected = expected.as_ref().expect("it was read");
            let within = |position: Position| match (next, read.direction) {
                (None, _) => true,
                (Some(_), Direction::Forward) => position <= scanned,
                (Some(_), Direction::Backward) => position >= scanned,
            };
            let so_far = expected.iter().filter(|event| within(event.position)).cloned();
            self.same(&read, &seen, &so_far.collect::<Vec<_>>());
            match next {
                Some(next) if is_whole => read.from = next,
                Some(_) => return,
                None => {
                    let end = match read.direction {
                        Direction::Forward => self.model.head(),
                        Direction::Backward => Position::BEGINNING,
                    };
                    return self.same(&read, scanned, end);
                }
            }
        }
    }

    fn look_at_a_stream(&mut self) {
        let mut stream = self.a_stream();
        if self.random.chance(30) {
            stream = stream.metadata_stream().expect("it describes none itself");
        }
        let info = block_on(self.subject.store().stream(stream.clone()));
        let view = self.model.view();
        let last = self.model.events.iter().rfind(|event| event.stream == stream);
        let expected = last.map(|last| {
            let seen =
                |event: &&Arc<crate::event::Recorded>| event.stream == stream && view.shows(event);
            let first = self.model.events.iter().find(seen);
            StreamInfo {
                last: last.version,
                last_position: last.position,
                first: first.map_or(last.version.next(), |first| first.version),
                retention: view.retention(&stream),
            }
        });
        self.same(&stream, info.ok(), Some(expected));
    }

    fn compare_the_whole(&mut self) {
        let read = Read::forward(Source::All).count(usize::MAX);
        let page = block_on(self.subject.store().read(read.clone())).map(|page| page.events);
        let expected = self.model.read(&read).expect("all can always be read");
        self.same(&"everything", page.ok(), Some(expected));
        if !self.scavenged {
            let types = block_on(self.subject.store().types()).expect("types can be read");
            let counted: u64 = types.iter().map(|count| count.count).sum();
            self.same(&"types", counted, self.model.head().0);
        }
    }
}

fn kind(answer: &Result<Committed, AppendError>) -> &'static str {
    match answer {
        Ok(committed) if committed.repeated => "repeated",
        Ok(_) => "recorded",
        Err(AppendError::Conflict(conflict)) if conflict.complete => "conflict, complete",
        Err(AppendError::Conflict(_)) => "conflict",
        Err(AppendError::PartlyRecorded { .. }) => "partly recorded",
        Err(AppendError::IdReused { .. }) => "id reused",
        Err(AppendError::KeyReused { .. }) => "key reused",
        Err(AppendError::KeyMissing { .. }) => "key missing",
        Err(AppendError::Tombstoned { .. }) => "tombstoned",
        Err(AppendError::Invalid(InvalidAppend::Reserved(_))) => "reserved",
        Err(AppendError::Invalid(_)) => "invalid",
        Err(_) => "failed",
    }
}

/// What an answer comes to, as far as it must be the same: not the words of an explanation.
pub(crate) fn verdict(answer: &Result<Committed, AppendError>) -> String {
    match answer {
        Ok(committed) => format!("{committed:?}"),
        Err(AppendError::Invalid(InvalidAppend::Reserved(_))) => "Reserved".to_owned(),
        Err(AppendError::Conflict(conflict)) => {
            let winners = conflict.winners.iter().map(|event| event.position).collect::<Vec<_>>();
            let (failed, complete) = (&conflict.failed, conflict.complete);
            format!("{failed:?} {winners:?} {complete} {:?}", conflict.head)
        }
        Err(error) => format!("{error:?}"),
    }
}

/// The append without events that have the id of an earlier one of the same stream: that would make it invalid.
fn without_twins(mut append: Append) -> Append {
    let mut seen = std::collections::BTreeSet::new();
    append.events.retain(|(stream, event)| seen.insert((stream.clone(), event.id)));
    append
}

/// SplitMix64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    /// True in so many of a hundred cases.
    fn chance(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }

    fn of<'a, T>(&mut self, choices: &'a [T]) -> &'a T {
        let count = u64::try_from(choices.len()).expect("it is small");
        &choices[usize::try_from(self.below(count)).expect("it is below a length")]
    }

    fn id(&mut self) -> EventId {
        EventId(Uuid::from_u64_pair(self.next(), self.next()))
    }
}
