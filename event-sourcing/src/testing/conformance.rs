//! What every backend must do, as checks that any backend can run.
//!
//! Each check is a story with a name, told to an empty store. [`run`] tells each of them three times: straight through; with the store
//! closed and opened again at every [`Case::settle`]; and with the space of hidden events taken back there as well. What a store
//! answers must not depend on either.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use futures::executor::block_on;
use uuid::Uuid;

use crate::append::{Append, AppendError, Committed, Conflict};
use crate::clock::{Clock, ManualClock};
use crate::condition::{Expected, Query, QueryItem};
use crate::error::InvalidAppend;
use crate::event::{
    EventId, EventType, Label, NewEvent, Position, Recorded, StreamName, Timestamp, Version,
};
use crate::read::{Page, Read, ReadError, Source};
use crate::retention::{METADATA_TYPE, TOMBSTONE_TYPE};
use crate::store::{EventStore, EventStoreExt, StreamInfo};

mod appending;
mod conditions;
mod following;
mod limits;
mod reading;
mod repeating;
mod retaining;

/// A store under test, and what can be done to it besides using it.
pub trait Subject {
    /// The store. Nobody holds on to it beyond [`reopen`](Self::reopen).
    fn store(&self) -> Arc<dyn EventStore>;

    /// Closes the store and opens it again, if it can be.
    fn reopen(&mut self) {}

    /// Takes back the space of all hidden events, if it can be.
    fn scavenge(&mut self) {}
}

/// A check: its name says what must be true.
pub type Check = (&'static str, fn(&mut Case));

/// What happens to the store between two steps of a story.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Nothing.
    Straight,
    /// It is closed and opened again.
    Reopened,
    /// The space of hidden events is taken back, and it is closed and opened again.
    Scavenged,
}

/// Every check.
#[must_use]
pub fn checks() -> Vec<Check> {
    [
        appending::CHECKS,
        conditions::CHECKS,
        repeating::CHECKS,
        reading::CHECKS,
        retaining::CHECKS,
        limits::CHECKS,
        following::CHECKS,
    ]
    .concat()
}

/// Runs every check in every mode. `create` makes a new empty store that goes by the given clock.
///
/// # Panics
///
/// If a check fails; all are run first.
pub fn run<S: Subject + 'static>(create: impl Fn(Arc<dyn Clock>) -> S) {
    let mut failed = Vec::new();
    for mode in [Mode::Straight, Mode::Reopened, Mode::Scavenged] {
        for (name, check) in checks() {
            let clock = Arc::new(ManualClock::at(Timestamp(1_000_000)));
            let subject = Box::new(create(Arc::clone(&clock) as Arc<dyn Clock>));
            let mut case = Case { subject, clock, mode, ids: 0 };
            if catch_unwind(AssertUnwindSafe(|| check(&mut case))).is_err() {
                failed.push(format!("{name} ({mode:?})"));
            }
        }
    }
    assert!(failed.is_empty(), "{} checks failed: {}", failed.len(), failed.join(", "));
}

/// A store in a story.
pub struct Case {
    subject: Box<dyn Subject>,
    /// The store's clock.
    pub clock: Arc<ManualClock>,
    mode: Mode,
    ids: u128,
}

impl std::fmt::Debug for Case {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Case").field("mode", &self.mode).finish_non_exhaustive()
    }
}

impl Case {
    /// The store.
    #[must_use]
    pub fn store(&self) -> Arc<dyn EventStore> {
        self.subject.store()
    }

    /// Lets happen what happens between steps.
    pub fn settle(&mut self) {
        if self.mode == Mode::Scavenged {
            self.subject.scavenge();
        }
        if self.mode != Mode::Straight {
            self.subject.reopen();
        }
    }

    /// An event with an id of its own.
    pub fn event(&mut self, kind: &str, labels: &[&str]) -> NewEvent {
        self.ids += 1;
        let data = format!("{{\"n\":{}}}", self.ids);
        let event = NewEvent::json(event_type(kind), data).id(EventId(Uuid::from_u128(self.ids)));
        labels.iter().fold(event, |event, name| event.label(label(name)))
    }

    /// Several of type `t`.
    pub fn events(&mut self, count: usize) -> Vec<NewEvent> {
        (0..count).map(|_| self.event("t", &[])).collect()
    }

    /// Appends.
    #[expect(clippy::missing_errors_doc, reason = "it is the store's answer")]
    pub fn append(&self, append: Append) -> Result<Committed, AppendError> {
        block_on(self.store().append(append))
    }

    /// Appends what must succeed.
    #[track_caller]
    pub fn ok(&self, append: Append) -> Committed {
        match self.append(append) {
            Ok(committed) => committed,
            Err(error) => panic!("the append was refused: {error:?}"),
        }
    }

    /// Records events of type `t` in a stream.
    #[track_caller]
    pub fn fill(&mut self, name: &str, count: usize) -> Committed {
        let events = self.events(count);
        self.ok(Append::to(stream(name), Expected::Any, events))
    }

    /// Appends what must be in conflict.
    #[track_caller]
    pub fn conflict(&self, append: Append) -> Conflict {
        match self.append(append) {
            Err(AppendError::Conflict(conflict)) => *conflict,
            other => panic!("it is not in conflict: {other:?}"),
        }
    }

    /// Appends what must be invalid.
    #[track_caller]
    pub fn invalid(&self, append: Append) -> InvalidAppend {
        let head = self.store().head();
        match self.append(append) {
            Err(AppendError::Invalid(invalid)) => {
                assert_eq!(self.store().head(), head, "what is invalid leaves no trace");
                invalid
            }
            other => panic!("it is not invalid: {other:?}"),
        }
    }

    /// Says something about a stream, in JSON.
    #[expect(clippy::missing_errors_doc, reason = "it is the store's answer")]
    pub fn say(&mut self, name: &str, json: &str) -> Result<Committed, AppendError> {
        let event = NewEvent { data: json.to_owned().into(), ..self.event(METADATA_TYPE, &[]) };
        self.append(Append::to(stream(&format!("$${name}")), Expected::Any, [event]))
    }

    /// Closes a stream for ever.
    #[track_caller]
    pub fn tombstone(&mut self, name: &str) {
        let event = self.event(TOMBSTONE_TYPE, &[]);
        self.ok(Append::to(stream(&format!("$${name}")), Expected::Any, [event]));
    }

    /// Reads a page.
    #[expect(clippy::missing_errors_doc, reason = "it is the store's answer")]
    pub fn page(&self, read: Read) -> Result<Page, ReadError> {
        block_on(self.store().read(read))
    }

    /// Reads everything.
    #[track_caller]
    pub fn read(&self, read: Read) -> Vec<Arc<Recorded>> {
        match block_on(self.store().read_to_end(read)) {
            Ok(events) => events,
            Err(error) => panic!("it could not be read: {error:?}"),
        }
    }

    /// The positions of everything.
    #[track_caller]
    pub fn positions(&self, read: Read) -> Vec<u64> {
        self.read(read).iter().map(|event| event.position.0).collect()
    }

    /// The versions of a stream that can be seen; `None` if it does not exist.
    #[track_caller]
    pub fn versions(&self, name: &str) -> Option<Vec<u64>> {
        match block_on(self.store().read_stream(stream(name))) {
            Ok(events) => Some(events.iter().map(|event| event.version.0).collect()),
            Err(ReadError::NoStream { .. }) => None,
            Err(error) => panic!("it could not be read: {error:?}"),
        }
    }

    /// What is known of a stream.
    #[track_caller]
    pub fn info(&self, name: &str) -> Option<StreamInfo> {
        block_on(self.store().stream(stream(name))).expect("what is known of a stream can be read")
    }
}

/// A stream's name.
fn stream(name: &str) -> StreamName {
    StreamName::new(name).expect("the name is valid")
}

/// A type's name.
fn event_type(name: &str) -> EventType {
    EventType::new(name).expect("the name is valid")
}

/// A label.
fn label(name: &str) -> Label {
    Label::new(name).expect("the name is valid")
}

/// `"t1 t2 + a b"`: any of the types and all of the labels; `|` between items.
fn query(text: &str) -> Query {
    let item = |text: &str| {
        let (types, labels) = text.split_once('+').unwrap_or((text, ""));
        QueryItem {
            types: types.split_whitespace().map(event_type).collect(),
            labels: labels.split_whitespace().map(label).collect(),
        }
    };
    Query { items: text.split('|').map(item).collect() }
}

fn of_stream(name: &str) -> Source {
    Source::Stream(stream(name))
}

fn exact(version: u64) -> Expected {
    Expected::Exact(Version(version))
}

/// The positions of what won.
fn winners(conflict: &Conflict) -> Vec<u64> {
    conflict.winners.iter().map(|event| event.position.0).collect()
}

/// A position.
fn at(position: u64) -> Position {
    Position(position)
}
