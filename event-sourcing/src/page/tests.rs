use proptest::collection::vec;
use proptest::prelude::*;

use super::*;
use crate::append::Append;
use crate::condition::{Expected, Query, QueryItem};
use crate::event::{EventType, Label, NewEvent};
use crate::machine::{Entry, EventMachine, MemoryIndex, MemoryPostings, Term};

fn log(events: &[(usize, usize, Vec<usize>)]) -> EventMachine<MemoryIndex> {
    let mut machine = EventMachine::<MemoryIndex>::default();
    for (stream, kind, labels) in events {
        let mut event = NewEvent::json(EventType::new(format!("t{kind}")).unwrap(), "{}");
        event.labels = labels.iter().map(|n| Label::new(format!("l{n}")).unwrap()).collect();
        let stream = StreamName::new(format!("s{stream}")).unwrap();
        let append = Append::to(stream, Expected::Any, [event]);
        machine.apply(append, Position::BEGINNING, Timestamp(0)).unwrap();
    }
    machine
}

fn histories() -> impl Strategy<Value = Vec<(usize, usize, Vec<usize>)>> {
    vec((0..4_usize, 0..3_usize, vec(0..5_usize, 0..4)), 0..80)
}

fn queries() -> impl Strategy<Value = Query> {
    let item =
        (vec(0..3_usize, 0..3), vec(0..5_usize, 0..4)).prop_map(|(types, labels)| QueryItem {
            types: types.iter().map(|n| EventType::new(format!("t{n}")).unwrap()).collect(),
            labels: labels.iter().map(|n| Label::new(format!("l{n}")).unwrap()).collect(),
        });
    vec(item, 0..4).prop_map(|items| Query { items })
}

/// Walks through all pages with little work for each.
fn walk(index: &impl Index, read: &Read, work: u64) -> Vec<u64> {
    let (mut seen, mut from, mut pages) = (Vec::new(), Some(read.from), 0);
    while let Some(at) = from {
        let page = read_within(index, &read.clone().from(at), work).unwrap();
        seen.extend(page.events.iter().map(|event| event.position.0));
        from = page.next;
        pages += 1;
        assert!(pages <= 1_000, "it does not come to an end");
    }
    seen
}

/// An index like one that goes by hashes so bad that half of all terms collide, and that has lost a piece.
struct Poor {
    index: MemoryIndex,
    damaged: std::ops::Range<u64>,
}

impl Index for Poor {
    type Postings<'a> = MemoryPostings<'a>;

    fn head(&self) -> Position {
        self.index.head()
    }

    fn time(&self) -> Result<Timestamp, ReadError> {
        Ok(Timestamp(0))
    }

    fn last_of(&self, stream: &StreamName) -> Result<Option<(Version, Position)>, ReadError> {
        self.index.last_of(stream)
    }

    fn find_id(
        &self,
        stream: &StreamName,
        id: crate::event::EventId,
    ) -> Result<Option<Position>, ReadError> {
        self.index.find_id(stream, id)
    }

    fn find_key(&self, key: &crate::append::IdempotencyKey) -> Result<Option<Position>, ReadError> {
        self.index.find_key(key)
    }

    fn postings(
        &self,
        term: Term<'_>,
        from: Position,
        direction: Direction,
    ) -> Result<MemoryPostings<'_>, ReadError> {
        static ALL: std::sync::LazyLock<Vec<Position>> =
            std::sync::LazyLock::new(|| (1..100).map(Position).collect());
        let name = match term {
            Term::Type(name) => name.as_str(),
            Term::Label(name) => name.as_str(),
            Term::Stream(name) => name.as_str(),
        };
        if name.ends_with(['0', '2']) {
            let head = usize::try_from(self.head().0).unwrap();
            return Ok(MemoryPostings::new(&ALL[..head], from, direction));
        }
        self.index.postings(term, from, direction)
    }

    fn position_of(
        &self,
        stream: &StreamName,
        version: Version,
    ) -> Result<Option<Position>, ReadError> {
        self.index.position_of(stream, version)
    }

    fn event(&self, position: Position) -> Result<Entry, ReadError> {
        if self.damaged.contains(&position.0) {
            let (first, last) = (Position(self.damaged.start), Position(self.damaged.end - 1));
            return Err(ReadError::Damaged { first, last });
        }
        self.index.event(position)
    }
}

proptest! {
    #[test]
    fn however_little_work_a_page_may_do_the_whole_is_the_same(
        history in histories(), query in queries(), work in 0..40_u64, backward in any::<bool>(),
    ) {
        let machine = log(&history);
        let mut read = Read::forward(Source::Query(query));
        if backward {
            read.direction = Direction::Backward;
        }
        let whole = walk(machine.index(), &read, WORK_MAX);
        prop_assert_eq!(walk(machine.index(), &read, work), &whole[..]);
        let Source::Query(query) = &read.source else { unreachable!() };
        let matches = |position: &u64| match machine.index().event(Position(*position)).unwrap() {
            Entry::Event(event) => query.matches(&event.stream, &event.event),
            Entry::Scavenged(_) => false,
        };
        let mut naive: Vec<u64> = (1..=machine.index().head().0).filter(matches).collect();
        if backward {
            naive.reverse();
        }
        prop_assert_eq!(whole, naive);
    }

    #[test]
    fn an_index_that_names_others_as_well_finds_the_same(
        history in histories(), query in queries(), stream in 0..4_usize, work in 0..1_000_u64,
    ) {
        let machine = log(&history);
        let poor = Poor { index: machine.index().clone(), damaged: 0..0 };
        let stream = Source::Stream(StreamName::new(format!("s{stream}")).unwrap());
        for source in [Source::Query(query), stream] {
            for read in [Read::forward(source.clone()), Read::backward(source)] {
                if read_within(machine.index(), &read, 1).is_ok() {
                    prop_assert_eq!(
                        walk(&poor, &read, work),
                        walk(machine.index(), &read, WORK_MAX)
                    );
                }
            }
        }
    }
}

#[test]
fn what_is_around_damage_can_be_read() {
    let history: Vec<_> = (0..20).map(|n| (0, n % 2, vec![])).collect();
    let poor = Poor { index: log(&history).index().clone(), damaged: 8..11 };
    let page = read(&poor, &Read::forward(Source::All)).unwrap();
    assert_eq!((page.events.len(), page.next), (7, Some(From::Position(Position(8)))));
    assert_eq!(page.scanned, Position(7));
    let from = |at| From::Position(Position(at));
    match read(&poor, &Read::forward(Source::All).from(from(8))) {
        Err(ReadError::Damaged { first, last }) => {
            assert_eq!((first, last), (Position(8), Position(10)));
        }
        answer => panic!("{answer:?}"),
    }
    let page = read(&poor, &Read::forward(Source::All).from(from(11))).unwrap();
    assert_eq!((page.events.len(), page.next), (10, None));
    let page = read(&poor, &Read::backward(Source::All)).unwrap();
    assert_eq!((page.events.len(), page.next), (10, Some(from(10))));
}
