//! A log on disk of which a piece is damaged: what is around it can be read, and nobody passes over it without being told.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use event_sourcing::read::{Direction, From, ReadError};
use event_sourcing::retention::Retention;
use event_sourcing::store::journal::{EventLog, JournalStoreOptions};
use event_sourcing::{
    Append, EventType, Expected, Label, NewEvent, Position, Query, QueryItem, Read, Source,
    StreamName, Timestamp, Version,
};
use lattice_journal::{Disk, OpenMode};
use lattice_sim::SimDisk;

fn options() -> JournalStoreOptions {
    let mut options = JournalStoreOptions::new("store");
    options.id = 77;
    options.segment_size = 1 << 20;
    options
}

fn open(disk: &SimDisk) -> EventLog {
    EventLog::open(Arc::new(disk.clone()), &options()).expect("the log opens")
}

fn stream(name: &str) -> StreamName {
    StreamName::new(name).unwrap()
}

fn put(log: &mut EventLog, name: &str, event: NewEvent, time: u64) {
    log.stage(Append::to(stream(name), Expected::Any, [event]), Timestamp(time)).unwrap();
    log.commit().unwrap();
}

fn event(content: &'static str) -> NewEvent {
    NewEvent::bytes(EventType::new("t").unwrap(), content).label(Label::new("l").unwrap())
}

/// A log with one event in each frame, in which the events that say `lost` are damaged.
fn log_without(lost: &str, events: &[(&str, NewEvent)]) -> EventLog {
    let disk = SimDisk::new(1);
    let mut log = open(&disk);
    for (time, (name, event)) in (0..).zip(events) {
        put(&mut log, name, event.clone(), time * 1_000);
    }
    log.close().unwrap();
    let path = Path::new("store/log/00000000000000000001.seg");
    let file = disk.open(path, OpenMode::Read).unwrap();
    let mut bytes = vec![0; usize::try_from(file.length().unwrap()).unwrap()];
    file.read_at(&mut bytes, 0).unwrap();
    let mut found = 0;
    for (at, window) in (0..).zip(bytes.windows(lost.len())) {
        if window == lost.as_bytes() {
            disk.damage(path, b"#", at).unwrap();
            found += 1;
        }
    }
    assert!(found > 0);
    let log = open(&disk);
    assert!(!log.damage().is_empty());
    log
}

/// What a reader is shown who goes on behind each damage: contents, and the damaged positions.
fn shown(log: &EventLog, read: Read) -> Vec<String> {
    let (mut read, mut shown) = (read, Vec::new());
    loop {
        let next = match log.reader().read(&read) {
            Ok(page) => {
                let contents = page.events.iter();
                shown.extend(
                    contents.map(|event| String::from_utf8_lossy(&event.event.data).into()),
                );
                page.next
            }
            Err(ReadError::Damaged { first, last }) => {
                shown.push(format!("{first} to {last} lost"));
                let next = match read.direction {
                    Direction::Forward => Some(last.next()),
                    Direction::Backward => first.0.checked_sub(1).map(Position),
                };
                next.map(From::Position)
            }
            Err(error) => panic!("{error}"),
        };
        match next {
            Some(next) => read = read.from(next),
            None => return shown,
        }
    }
}

#[test]
fn no_query_and_no_stream_passes_over_damage_in_silence() {
    let events = [("a", event("one")), ("a", event("LOST")), ("a", event("three"))];
    let log = log_without("LOST", &events);
    let label = || Read::label(Label::new("l").unwrap());
    let kind = Source::Query(Query::item(QueryItem::types([EventType::new("t").unwrap()])));
    let all = ["one", "2 to 2 lost", "three"];
    assert_eq!(shown(&log, label()), all);
    assert_eq!(shown(&log, Read::forward(kind)), all);
    assert_eq!(shown(&log, Read::forward(Source::All)), all);
    assert_eq!(shown(&log, Read::forward(Source::Stream(stream("a")))), all);
    let back: Vec<&str> = all.iter().rev().copied().collect();
    assert_eq!(shown(&log, Read { direction: Direction::Backward, ..label() }), back);
    assert_eq!(shown(&log, Read::backward(Source::Stream(stream("a")))), back);
}

#[test]
fn a_stream_is_read_though_the_version_to_begin_with_is_lost() {
    let events = [("a", event("LOST")), ("a", event("one")), ("a", event("two"))];
    let log = log_without("LOST", &events);
    let read = || Read::forward(Source::Stream(stream("a")));
    let all = ["1 to 1 lost", "one", "two"];
    assert_eq!(shown(&log, read()), all);
    assert_eq!(shown(&log, read().from(From::Version(Version(0)))), all);
    let events = [("a", event("one")), ("a", event("LOST")), ("a", event("three"))];
    let log = log_without("LOST", &events);
    let from = From::Version(Version(1));
    assert_eq!(shown(&log, read().from(from)), ["2 to 2 lost", "three"]);
    let back = Read::backward(Source::Stream(stream("a"))).from(from);
    assert_eq!(shown(&log, back), ["2 to 2 lost", "one"]);
}

#[test]
fn a_limit_of_age_is_kept_where_events_are_lost() {
    let retention = Retention { max_age: Some(Duration::from_secs(3)), ..Retention::default() };
    let mut events = vec![("$$a", retention.to_event(serde_json::Map::new()))];
    events.extend(["one", "two", "LOST", "LOST", "five"].map(|content| ("a", event(content))));
    let log = log_without("LOST", &events);
    // Event 6 is of second 5, so that what is of second 2 can be seen.
    let read = Read::forward(Source::Stream(stream("a")));
    assert_eq!(shown(&log, read), ["two", "4 to 5 lost", "five"]);
    assert!(log.reader().stream(&stream("a")).unwrap().is_some());
}

#[test]
fn what_is_before_a_damaged_end_can_be_read() {
    let log =
        log_without("LOST", &[("a", event("one")), ("a", event("two")), ("a", event("LOST"))]);
    assert_eq!(log.reader().head(), Position(3));
    let all = ["one", "two", "3 to 3 lost"];
    assert_eq!(shown(&log, Read::forward(Source::All)), all);
    assert_eq!(shown(&log, Read::label(Label::new("l").unwrap())), all);
}
