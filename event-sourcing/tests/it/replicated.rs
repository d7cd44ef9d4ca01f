//! Appends that are evaluated at one time and applied at a later one, as a leader and its group do, on an index that knows no
//! shortcuts: the answers are those of the simplest store all the same.

use std::sync::{Arc, Mutex};

use event_sourcing::append::{Append, AppendError, Committed, IdempotencyKey};
use event_sourcing::clock::Clock;
use event_sourcing::machine::{
    Entry, Evaluated, EventMachine, Index, IndexMut, Limits, MemoryIndex, MemoryPostings, Term,
};
use event_sourcing::page;
use event_sourcing::store::signal::Signal;
use event_sourcing::store::{Pending, TypeCount};
use event_sourcing::testing::conformance::Subject;
use event_sourcing::testing::differential;
use event_sourcing::{
    Direction, EventId, EventStore, Page, Position, Read, ReadError, Recorded, StreamInfo,
    StreamName, Version,
};
use futures::FutureExt;
use futures::future::ready;

/// An index with what an index must have, and nothing quicker.
#[derive(Debug, Default)]
struct Plain(MemoryIndex);

impl Index for Plain {
    type Postings<'a> = MemoryPostings<'a>;

    fn head(&self) -> Position {
        self.0.head()
    }

    fn last_of(&self, stream: &StreamName) -> Result<Option<(Version, Position)>, ReadError> {
        self.0.last_of(stream)
    }

    fn find_id(&self, stream: &StreamName, id: EventId) -> Result<Option<Position>, ReadError> {
        self.0.find_id(stream, id)
    }

    fn find_key(&self, key: &IdempotencyKey) -> Result<Option<Position>, ReadError> {
        self.0.find_key(key)
    }

    fn postings(
        &self,
        term: Term<'_>,
        from: Position,
        direction: Direction,
    ) -> Result<MemoryPostings<'_>, ReadError> {
        self.0.postings(term, from, direction)
    }

    fn position_of(
        &self,
        stream: &StreamName,
        version: Version,
    ) -> Result<Option<Position>, ReadError> {
        self.0.position_of(stream, version)
    }

    fn event(&self, position: Position) -> Result<Entry, ReadError> {
        self.0.event(position)
    }
}

impl IndexMut for Plain {
    fn insert(&mut self, recorded: &Arc<Recorded>, key: Option<&IdempotencyKey>) {
        self.0.insert(recorded, key);
    }
}

/// A store that evaluates an append when it is asked to, and applies it when its answer is waited for. In between others may have
/// been applied.
#[derive(Debug)]
struct Led {
    machine: Arc<Mutex<EventMachine<Plain>>>,
    clock: Arc<dyn Clock>,
    signal: Signal,
    /// How many appends were applied behind what they had been evaluated to.
    late: Arc<Mutex<usize>>,
}

impl Led {
    fn with<T>(&self, look: impl FnOnce(&Plain) -> T) -> T {
        look(self.machine.lock().unwrap().index())
    }
}

impl EventStore for Led {
    fn append(&self, append: Append) -> Pending<Result<Committed, AppendError>> {
        let evaluated = self.machine.lock().unwrap().evaluate(&append);
        let evaluated_to = match evaluated {
            Ok(Evaluated::Holds(position)) => position,
            // Whoever applies it finds the same or, if others are applied before it, something else.
            Ok(Evaluated::Repeated(_)) | Err(_) => Position::BEGINNING,
        };
        let (machine, late, now) =
            (Arc::clone(&self.machine), Arc::clone(&self.late), self.clock.now());
        async move {
            let mut machine = machine.lock().unwrap();
            if evaluated_to != Position::BEGINNING && evaluated_to < machine.index().head() {
                *late.lock().unwrap() += 1;
            }
            machine.apply(append, evaluated_to, now).map(|applied| applied.committed)
        }
        .boxed()
    }

    fn read(&self, read: Read) -> Pending<Result<Page, ReadError>> {
        ready(self.with(|index| page::read(index, &read))).boxed()
    }

    fn stream(&self, stream: StreamName) -> Pending<Result<Option<StreamInfo>, ReadError>> {
        ready(self.with(|index| page::stream_info(index, &stream))).boxed()
    }

    fn types(&self) -> Pending<Result<Vec<TypeCount>, ReadError>> {
        ready(Ok(self.with(|index| index.0.types()))).boxed()
    }

    fn head(&self) -> Position {
        self.with(Plain::head)
    }

    fn wait_beyond(&self, position: Position) -> Pending<Result<Position, ReadError>> {
        self.signal.wait_beyond(position)
    }
}

struct Group(Arc<Led>);

impl Subject for Group {
    fn store(&self) -> Arc<dyn EventStore> {
        Arc::clone(&self.0) as Arc<dyn EventStore>
    }

    fn scavenge(&mut self) {
        self.0.machine.lock().unwrap().index_mut().0.scavenge().unwrap();
    }
}

#[test]
fn what_was_evaluated_earlier_is_decided_as_if_it_were_evaluated_now() {
    let late = Arc::new(Mutex::new(0));
    for seed in 1_000..1_060 {
        differential::run(seed, 400, |clock| {
            Group(Arc::new(Led {
                machine: Arc::new(Mutex::new(EventMachine::new(
                    Plain::default(),
                    Limits::default(),
                ))),
                clock,
                signal: Signal::new(Position::BEGINNING),
                late: Arc::clone(&late),
            }))
        });
    }
    assert!(*late.lock().unwrap() > 1_000, "hardly any append was applied late");
}
