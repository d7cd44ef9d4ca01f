//! A log on disk of which a piece is damaged: what is around it can be read, and nobody passes over it without being told.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use event_sourcing::append::AppendError;
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

/// A closed log with one event in each frame, one a second.
fn written(events: &[(&str, NewEvent)]) -> SimDisk {
    let disk = SimDisk::new(1);
    let mut log = open(&disk);
    for (time, (name, event)) in (0..).zip(events) {
        put(&mut log, name, event.clone(), time * 1_000);
    }
    log.close().unwrap();
    disk
}

/// Damages the events that say `lost`.
fn damage(disk: &SimDisk, lost: &str) {
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
}

/// A log in which the events that say `lost` were damaged before it was opened: nobody knows what they were.
fn log_without(lost: &str, events: &[(&str, NewEvent)]) -> EventLog {
    let disk = written(events);
    damage(&disk, lost);
    let log = open(&disk);
    assert!(!log.damage().is_empty());
    log
}

/// A log in which they were damaged afterwards: the index knows what they were.
fn log_that_lost(lost: &str, events: &[(&str, NewEvent)]) -> EventLog {
    let disk = written(events);
    let log = open(&disk);
    damage(&disk, lost);
    assert!(log.damage().is_empty());
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
        assert!(shown.len() < 100, "it does not come to an end: {shown:?}");
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

#[test]
fn a_lost_decision_stands_in_the_way_of_nothing_else() {
    let keep = |count: u64, note: &str| {
        let mut more = serde_json::Map::new();
        more.insert("note".to_owned(), note.into());
        Retention { max_count: Some(count), ..Retention::default() }.to_event(more)
    };
    let mut events = vec![("$$a", keep(3, "first"))];
    events.extend(["one", "two"].map(|content| ("a", event(content))));
    events.push(("$$a", keep(1, "LOST")));
    events.extend(["three", "four"].map(|content| ("a", event(content))));
    events.push(("b", event("other")));
    let of_a = || Read::forward(Source::Stream(stream("a")));
    let from_there = || Read::forward(Source::All).from(From::Position(Position(4)));
    for log in [log_that_lost("LOST", &events), log_without("LOST", &events)] {
        // What was decided before it holds.
        let seen: Vec<String> = shown(&log, of_a());
        let seen: Vec<&str> =
            seen.iter().map(String::as_str).filter(|text| !text.ends_with("lost")).collect();
        assert_eq!(seen, ["two", "three", "four"]);
        assert_eq!(shown(&log, from_there()), ["4 to 4 lost", "three", "four", "other"]);
        let info = log.reader().stream(&stream("a")).unwrap().unwrap();
        assert_eq!((info.first, info.last), (Version(1), Version(3)));
    }
}

#[test]
fn an_append_does_not_go_by_an_older_decision_than_the_last() {
    let closed = NewEvent::json(EventType::new("$tombstone").unwrap(), r#"{"note":"LOST"}"#);
    let events = [("a", event("one")), ("$$a", closed)];
    let mut log = log_that_lost("LOST", &events);
    let append = Append::to(stream("a"), Expected::Any, [event("two")]);
    let answer = log.stage(append, Timestamp(9_000));
    assert!(matches!(answer, Err(AppendError::Read(ReadError::Damaged { .. }))), "{answer:?}");
}

#[test]
fn a_time_is_found_though_events_on_the_way_are_lost() {
    let contents = ["zero", "one", "LOST", "three", "four"];
    let events = contents.map(|content| ("a", event(content)));
    for log in [log_that_lost("LOST", &events), log_without("LOST", &events)] {
        let from =
            |second: u64, read: Read| shown(&log, read.from(From::Time(Timestamp(second * 1000))));
        for source in [Source::All, Source::Stream(stream("a"))] {
            let read = || Read::forward(source.clone());
            assert_eq!(from(1, read()), ["one", "3 to 3 lost", "three", "four"]);
            assert_eq!(from(2, read()), ["3 to 3 lost", "three", "four"]);
            // The lost one is as old as the one behind it, as far as anybody can tell.
            assert_eq!(from(3, read()), ["3 to 3 lost", "three", "four"]);
            assert_eq!(from(4, read()), ["four"]);
            assert_eq!(from(5, read()), [""; 0]);
            let back = || Read::backward(source.clone());
            assert_eq!(from(4, back()), ["four", "three", "3 to 3 lost", "one", "zero"]);
            assert_eq!(from(1, back()), ["one", "zero"]);
        }
    }
}

#[test]
fn a_stream_whose_end_is_lost_says_so_in_both_directions() {
    let events = [("a", event("zero")), ("a", event("one")), ("a", event("LOST"))];
    for log in [log_that_lost("LOST", &events), log_without("LOST", &events)] {
        let forward = || Read::forward(Source::Stream(stream("a")));
        let backward = || Read::backward(Source::Stream(stream("a")));
        let version = |version| From::Version(Version(version));
        assert_eq!(shown(&log, forward()), ["zero", "one", "3 to 3 lost"]);
        assert_eq!(shown(&log, backward()), ["3 to 3 lost", "one", "zero"]);
        assert_eq!(shown(&log, forward().from(version(2))), ["3 to 3 lost"]);
        assert_eq!(shown(&log, backward().from(version(2))), ["3 to 3 lost", "one", "zero"]);
        assert_eq!(shown(&log, backward().from(version(1))), ["one", "zero"]);
    }
}

#[test]
fn a_stream_of_which_everything_is_lost_is_not_denied() {
    let events = [("b", event("other")), ("a", event("LOST")), ("a", event("LOST"))];
    let log = log_without("LOST", &events);
    let of_a = || Source::Stream(stream("a"));
    assert_eq!(shown(&log, Read::forward(of_a())), ["2 to 3 lost"]);
    assert_eq!(shown(&log, Read::backward(of_a())), ["2 to 3 lost"]);
    // Whose events they were is known, and each is looked for.
    let known = log_that_lost("LOST", &events);
    assert_eq!(shown(&known, Read::forward(of_a())), ["2 to 2 lost", "3 to 3 lost"]);
}
