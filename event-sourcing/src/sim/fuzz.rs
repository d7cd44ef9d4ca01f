//! What fuzzers and property tests call: bytes in, a panic if something that must hold does not.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use lattice_journal::{Disk, OpenMode};
use lattice_sim::SimDisk;

use crate::append::Append;
use crate::condition::{Expected, Query};
use crate::event::{
    AppendPlace, EventType, Label, NewEvent, Position, Recorded, StreamName, Timestamp, Version,
};
use crate::filter::{Filter, PATTERN_LENGTH_MAX, Pattern};
use crate::machine::Entry;
use crate::read::{Read, Source};
use crate::record;
use crate::store::journal::{EventLog, JournalStoreOptions, OpenError};

const VALID: &str = "the name is valid";

/// Decodes a record. What is one comes back the same when it is written again.
///
/// # Panics
///
/// If it does not.
pub fn record(bytes: &[u8]) {
    let Ok(decoded) = record::decode(&Bytes::copy_from_slice(bytes)) else { return };
    let again = match &decoded.entry {
        Entry::Event(recorded) => record::encode(recorded, decoded.key.as_ref()),
        Entry::Scavenged(stub) => record::encode_stub(stub, decoded.key.as_ref()),
    };
    let twice = record::decode(&again.clone().into()).expect("what was written can be read");
    assert_eq!(format!("{:?}", twice.entry), format!("{:?}", decoded.entry));
    assert_eq!(twice.key, decoded.key);
}

/// A query as it comes in from outside, and an event that has some of its terms.
///
/// # Panics
///
/// If the query matches what has none of its terms, or changes on its way to text and back.
pub fn query(text: &[u8]) {
    let Ok(query) = serde_json::from_slice::<Query>(text) else { return };
    let again = serde_json::to_vec(&query).expect("names and numbers have a form in JSON");
    assert_eq!(serde_json::from_slice::<Query>(&again).ok().as_ref(), Some(&query));
    let home = StreamName::new("\u{2003}nobody names it so").expect(VALID);
    let stranger = NewEvent::json(EventType::new("\u{2003}stranger").expect(VALID), "1");
    if query.items.iter().all(|item| !item.types.is_empty() || !item.labels.is_empty()) {
        let matches = query.matches(&home, &stranger);
        assert!(query.items.is_empty() == matches || names(&query, &stranger), "{query:?}");
    }
    for item in &query.items {
        let kind = item.types.first().cloned().unwrap_or_else(|| stranger.event_type.clone());
        let mut event = NewEvent::json(kind, "1");
        event.labels.clone_from(&item.labels);
        assert!(query.matches(&home, &event) || event.event_type.is_system(), "{query:?}");
    }
}

fn names(query: &Query, stranger: &NewEvent) -> bool {
    query.items.iter().any(|item| item.types.contains(&stranger.event_type))
}

/// A regular expression from outside: it is refused, or costs nothing.
///
/// # Panics
///
/// If one that is too long is taken, or if the filter and the pattern disagree.
pub fn filter(pattern: &str, name: &str) {
    let Ok(pattern) = Pattern::new(pattern) else { return };
    assert!(pattern.as_str().len() <= PATTERN_LENGTH_MAX);
    let (Ok(stream), Ok(kind)) = (StreamName::new(name), EventType::new(name)) else { return };
    let recorded = Recorded {
        position: Position(1),
        stream,
        version: Version(0),
        timestamp: Timestamp(0),
        place: AppendPlace { index: 0, count: 1 },
        event: NewEvent::json(kind, "1"),
    };
    let is_match = pattern.is_match(name);
    let by_stream = Filter { stream_pattern: Some(pattern.clone()), ..Filter::default() };
    let by_type = Filter { type_pattern: Some(pattern), ..Filter::default() };
    assert_eq!(by_stream.passes(&recorded), is_match);
    assert_eq!(by_type.passes(&recorded), is_match);
}

/// One change to a file.
#[derive(Clone, Debug)]
pub enum Change {
    /// These bits of the byte at a place, modulo the length.
    Flip(usize, u8),
    /// Everything behind a place is gone.
    Cut(usize),
    /// The file is this.
    Is(Vec<u8>),
}

/// Opens a log of which every index file, or every seal, was changed. No answer is another than before.
///
/// # Panics
///
/// If one is.
pub fn files(seals: bool, changes: &[Change]) {
    let (disk, before) = written();
    let (directory, suffix) = if seals { ("store/log", ".seal") } else { ("store/index", ".idx") };
    change(&disk, directory, suffix, changes);
    let log = open(&disk).expect("the log can be opened");
    assert!(log.failure().is_none(), "nothing depends on these files");
    assert_eq!(answers(&log), before);
}

/// Opens a log of which every segment was changed. Either it does not open; or what it serves are the events that were written,
/// and if it takes appends all of them.
///
/// # Panics
///
/// If another event is served, or one is missing from a log that calls itself sound.
pub fn segments(changes: &[Change]) {
    let (disk, before) = written();
    change(&disk, "store/log", ".seg", changes);
    let Ok(log) = open(&disk) else { return };
    let after = answers(&log);
    if log.failure().is_none() {
        assert_eq!(after, before);
    }
    for number in 0..EVENTS {
        if let Ok(Some(found)) = log.reader().recorded(Position(number + 1)) {
            let (stream, event) = event(number);
            assert_eq!((&found.stream, &found.event), (&stream, &event));
        }
    }
    // Damage is found, and whatever else is wrong.
    log.verify().expect("the disk works");
}

/// Events in the log that is changed.
const EVENTS: u64 = 40;

fn event(number: u64) -> (StreamName, NewEvent) {
    let stream = StreamName::new(format!("s-{}", number % 3)).expect(VALID);
    let kind = EventType::new(["t", "u"][usize::from(number.is_multiple_of(2))]).expect(VALID);
    let mut event = NewEvent::bytes(kind, vec![b'x'; 90]);
    event.id = crate::event::EventId(uuid::Uuid::from_u128(number.into()));
    event.labels.push(Label::new(format!("l-{}", number % 4)).expect(VALID));
    (stream, event)
}

fn open(disk: &SimDisk) -> Result<EventLog, OpenError> {
    let mut options = JournalStoreOptions::new("store");
    options.id = 7;
    options.segment_size = 2048;
    EventLog::open(Arc::new(disk.clone()), &options)
}

/// A closed log of many segments, and what it answers.
fn written() -> (SimDisk, String) {
    let disk = SimDisk::new(1);
    let mut log = open(&disk).expect("the log can be opened");
    for number in 0..EVENTS {
        let (stream, event) = event(number);
        log.stage(Append::to(stream, Expected::Any, [event]), Timestamp(number)).expect("it holds");
        log.commit().expect("the disk works");
    }
    for task in log.upkeep() {
        task.run().expect("the disk works");
    }
    let answers = answers(&log);
    log.close().expect("the disk works");
    (disk, answers)
}

/// Makes the changes, one to each file, in turn.
fn change(disk: &SimDisk, directory: &str, suffix: &str, changes: &[Change]) {
    let names = disk.list(Path::new(directory)).expect("the directory is there");
    let paths: Vec<PathBuf> = names
        .iter()
        .filter(|name| name.ends_with(suffix))
        .map(|name| Path::new(directory).join(name))
        .collect();
    assert!(!paths.is_empty(), "there are such files: {names:?}");
    for (path, change) in paths.iter().zip(changes.iter().cycle()) {
        put(disk, path, change);
    }
}

fn answers(log: &EventLog) -> String {
    let mut reads = vec![Read::forward(Source::All), Read::backward(Source::All)];
    for number in 0..4 {
        let stream = StreamName::new(format!("s-{number}")).expect(VALID);
        reads.push(Read::forward(Source::Stream(stream)));
        reads.push(Read::label(Label::new(format!("l-{number}")).expect(VALID)));
    }
    let reader = log.reader();
    let pages: Vec<_> = reads.iter().map(|read| reader.read(read)).collect();
    format!("{pages:?} {:?} {:?}", reader.types(), log.chain_head())
}

fn put(disk: &SimDisk, path: &Path, change: &Change) {
    let file = disk.open(path, OpenMode::Read).expect("the file is there");
    let length = usize::try_from(file.length().expect("the disk works")).expect("it is small");
    let mut bytes = vec![0; length];
    file.read_at(&mut bytes, 0).expect("the disk works");
    drop(file);
    match change {
        Change::Flip(at, bits) if length > 0 => bytes[at % length] ^= bits,
        Change::Cut(at) if length > 0 => bytes.truncate(at % length),
        Change::Flip(..) | Change::Cut(_) => {}
        Change::Is(other) => bytes.clone_from(other),
    }
    disk.remove(path).expect("the disk works");
    let file = disk.open(path, OpenMode::CreateNew).expect("the disk works");
    file.write_at(&bytes, 0).expect("the disk works");
    file.sync_data().expect("the disk works");
}
