use std::collections::BTreeMap;
use std::path::Path;

use lattice_journal::MemoryDisk;
use proptest::prelude::*;

use super::super::memtable::{hash_id, hash_key};
use super::*;
use crate::append::IdempotencyKey;
use crate::event::{
    AppendPlace, EventId, Label, NewEvent, Position, Recorded, StreamName, Version,
};
use crate::machine::{Entry, Stub, Term};

/// What an event is made from: its stream, type and labels, by number, and whether it has a key and was scavenged.
type Seed = (u8, u8, Vec<u8>, bool, bool);

/// An entry with the key of its append.
type Keyed = (Entry, Option<IdempotencyKey>);

fn seeds(most: usize) -> impl Strategy<Value = Vec<Seed>> {
    let labels = prop::collection::vec(0..12_u8, 0..4);
    prop::collection::vec((0..40_u8, 0..4_u8, labels, any::<bool>(), any::<bool>()), 0..most)
}

fn key(number: u64) -> IdempotencyKey {
    IdempotencyKey(format!("key-{number}").into())
}

/// Events from `first` on, with their keys.
fn events(first: u64, seeds: &[Seed]) -> Vec<Keyed> {
    let mut versions: BTreeMap<StreamName, u64> = BTreeMap::new();
    let event = |((stream, kind, labels, with_key, scavenged), position): (&Seed, u64)| {
        let stream = StreamName::new(format!("stream-{stream}")).unwrap();
        let version = versions.entry(stream.clone()).or_insert(u64::from(*kind) * 1_000);
        let at = Version(*version);
        *version += 1;
        let mut event = NewEvent::json(EventType::new(format!("type-{kind}")).unwrap(), "{}");
        event.id = EventId(uuid::Uuid::from_u128(u128::from(position)));
        event.schema = u32::from(*kind) + 1;
        event.labels = labels.iter().map(|n| Label::new(format!("l-{n}")).unwrap()).collect();
        event.labels.sort_unstable();
        event.labels.dedup();
        let recorded = Recorded {
            position: Position(position),
            stream,
            version: at,
            timestamp: Timestamp(position * 10),
            place: AppendPlace { index: 0, count: 1 },
            event,
        };
        let entry = if *scavenged {
            Entry::Scavenged(Stub::of(&recorded, [0; 32]))
        } else {
            Entry::Event(Arc::new(recorded))
        };
        (entry, with_key.then(|| key(position)))
    };
    seeds.iter().zip(first..).map(event).collect()
}

fn memtable(first: u64, events: &[Keyed]) -> Memtable {
    let mut memtable = Memtable::new(Position(first));
    events.iter().for_each(|(entry, key)| memtable.insert(entry, key.as_ref()));
    memtable
}

fn binding(first: u64, count: usize) -> Binding {
    let positions = first..first + to_u64(count);
    Binding { journal: 7, segment: 3, generation: 0, positions, checksum: 9 }
}

fn put(disk: &MemoryDisk, bytes: &[u8]) {
    let _ = disk.remove(Path::new("index"));
    disk.open(Path::new("index"), OpenMode::CreateNew).unwrap().write_at(bytes, 0).unwrap();
}

fn open(disk: &MemoryDisk, binding: &Binding) -> Result<(IndexFile, Filter), Fault> {
    IndexFile::open(disk, Path::new("index"), binding)
}

/// Every question that the file can be asked, with what the events themselves say; `Err` if the file refused one.
fn compare(
    (file, filter): &(IndexFile, Filter),
    first: u64,
    events: &[Keyed],
) -> Result<(), Fault> {
    let offset = |entry: &Entry| u32::try_from(entry.position().0 - first).unwrap();
    let names = |n: u8| {
        [
            (Kind::Stream, format!("stream-{n}")),
            (Kind::Type, format!("type-{n}")),
            (Kind::Label, format!("l-{n}")),
        ]
    };
    for (kind, name) in (0..45).flat_map(names) {
        let has = |entry: &&Entry| match (kind, entry) {
            (Kind::Stream, entry) => entry.stream().as_str() == name,
            (Kind::Type, Entry::Event(event)) => event.event.event_type.as_str() == name,
            (_, Entry::Event(event)) => {
                event.event.labels.iter().any(|label| label.as_str() == name)
            }
            (_, Entry::Scavenged(_)) => false,
        };
        let matching: Vec<&Entry> = events.iter().map(|(entry, _)| entry).filter(has).collect();
        let found = file.list(kind, &name)?;
        assert_eq!(found.is_some(), !matching.is_empty(), "{name}");
        let Some(list) = found else { continue };
        if kind == Kind::Stream {
            assert_eq!(list.first_version, matching[0].version().0);
        }
        let mut last = LastBlock::default();
        let mut offsets = Vec::new();
        for rank in 0..list.count {
            offsets.push(file.offset(&list, rank, &mut last)?);
        }
        let expected: Vec<u32> = matching.iter().map(|entry| offset(entry)).collect();
        assert_eq!(offsets, expected, "{name}");
        for bound in [0, 1, 5, 100, u32::MAX] {
            let rank = usize::try_from(file.rank(&list, bound, &mut last)?).unwrap();
            assert_eq!(rank, expected.partition_point(|offset| *offset < bound));
        }
    }
    for (entry, key_of_it) in events {
        let hash = hash_id(entry.stream(), entry.id());
        assert!(filter.may_have(hash));
        assert_eq!(file.hashed(hash)?, [offset(entry)]);
        let hash = hash_key(&key(entry.position().0));
        let expected: Vec<u32> = key_of_it.iter().map(|_| offset(entry)).collect();
        assert_eq!(file.hashed(hash)?, expected);
    }
    let mut counts: BTreeMap<(EventType, u32), u64> = BTreeMap::new();
    for (entry, _) in events {
        if let Entry::Event(event) = entry {
            *counts.entry((event.event.event_type.clone(), event.event.schema)).or_default() += 1;
        }
    }
    let counts = counts.into_iter();
    let counts: Vec<TypeCount> = counts
        .map(|((event_type, schema), count)| TypeCount { event_type, schema, count })
        .collect();
    assert_eq!(file.counts()?, counts);
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn a_file_answers_every_question_as_the_events_do(seeds in seeds(600), first in 1..1_000_000_u64) {
        let events = events(first, &seeds);
        let binding = binding(first, events.len());
        let disk = MemoryDisk::new();
        let bytes = encode(&memtable(first, &events), &binding);
        put(&disk, &bytes);
        let file = open(&disk, &binding).expect("the file is intact");
        compare(&file, first, &events).expect("the file is intact");
        assert!(file.0.is(&bytes).expect("the file is intact"));
    }
}

/// The smallest file that has something in every section.
fn sample() -> (Vec<Keyed>, Binding, Vec<u8>) {
    let seeds = [
        (1, 1, vec![1], true, false),
        (2, 1, vec![], false, true),
        (1, 2, vec![1, 2], false, false),
    ];
    let events = events(50, &seeds);
    let binding = binding(50, events.len());
    let bytes = encode(&memtable(50, &events), &binding);
    (events, binding, bytes)
}

#[test]
fn a_file_with_any_byte_changed_is_refused_or_answers_right() {
    let (events, binding, bytes) = sample();
    let disk = MemoryDisk::new();
    let mut refused = 0;
    for at in (0..bytes.len()).step_by(3) {
        let mut bytes = bytes.clone();
        bytes[at] ^= 1 << (at % 8);
        put(&disk, &bytes);
        let answered = open(&disk, &binding).and_then(|file| compare(&file, 50, &events));
        match answered {
            Ok(()) => {}
            Err(Fault::Damaged) => refused += 1,
            Err(Fault::Io(error)) => panic!("{error}"),
        }
    }
    assert!(refused > bytes.len() / 4, "{refused} of {}", bytes.len() / 3);
}

#[test]
fn a_file_that_was_cut_or_is_another_ones_is_refused() {
    let (_, binding, bytes) = sample();
    let disk = MemoryDisk::new();
    for length in (0..bytes.len()).step_by(512) {
        put(&disk, &bytes[..length]);
        assert!(matches!(open(&disk, &binding), Err(Fault::Damaged)), "{length} bytes");
    }
    put(&disk, &bytes);
    open(&disk, &binding).expect("this is the file");
    let others = [
        Binding { journal: 8, ..binding.clone() },
        Binding { segment: 4, ..binding.clone() },
        Binding { generation: 1, ..binding.clone() },
        Binding { positions: 50..54, ..binding.clone() },
        Binding { checksum: 10, ..binding.clone() },
    ];
    for other in others {
        assert!(matches!(open(&disk, &other), Err(Fault::Damaged)), "{other:?}");
    }
}

#[test]
fn blocks_of_one_hash_are_all_looked_through() {
    // As if somebody had found ids that collide: more of them than a block of the table holds.
    let mut memtable = Memtable::new(Position(1));
    let seeds = vec![(1, 1, vec![], false, false); 10];
    for (entry, key) in events(1, &seeds) {
        memtable.insert(&entry, key.as_ref());
    }
    for offset in 10..1_000 {
        memtable.insert_hash(42, offset);
    }
    let binding = binding(1, 1_000);
    let disk = MemoryDisk::new();
    put(&disk, &encode(&memtable, &binding));
    let (file, _) = open(&disk, &binding).unwrap();
    assert_eq!(file.hashed(42).unwrap(), (10..1_000).collect::<Vec<u32>>());
    let stream = StreamName::new("stream-1").unwrap();
    assert_eq!(memtable.list(Term::Stream(&stream)).len(), 10);
    assert_eq!(file.list(Kind::Stream, "stream-1").unwrap().unwrap().count, 10);
}
