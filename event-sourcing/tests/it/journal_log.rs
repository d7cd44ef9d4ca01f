//! The log on disk, one call after the other: against the store in memory, and with the power going at every call.

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use event_sourcing::append::{AppendError, Committed};
use event_sourcing::machine::{EventMachine, Index, Limits, MemoryIndex};
use event_sourcing::page;
use event_sourcing::read::From;
use event_sourcing::store::journal::{EventLog, JournalStoreOptions};
use event_sourcing::{
    Append, EventId, EventType, Expected, Label, NewEvent, Position, Query, QueryItem, Read,
    Recorded, Source, StreamName, Timestamp, Version,
};
use lattice_journal::{Disk, OpenMode};
use lattice_sim::{SimDisk, Survival};

/// Numbers that a seed decides.
struct Chance(u64);

impl Chance {
    fn next(&mut self) -> u64 {
        // SplitMix64.
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    fn one_in(&mut self, times: u64) -> bool {
        self.below(times) == 0
    }
}

fn stream(name: impl AsRef<str>) -> StreamName {
    StreamName::new(name).unwrap()
}

fn label(number: u64) -> Label {
    Label::new(format!("label-{number}")).unwrap()
}

/// Appends that have everything in them, so that one seed always makes the same.
struct Workload {
    chance: Chance,
    made: Vec<Append>,
}

impl Workload {
    fn new(seed: u64) -> Self {
        Self { chance: Chance(seed), made: Vec::new() }
    }

    fn stream(&mut self) -> StreamName {
        stream(format!("stream-{}", self.chance.below(12)))
    }

    fn event(&mut self) -> NewEvent {
        let kind = EventType::new(format!("type-{}", self.chance.below(4))).unwrap();
        let size = usize::try_from(self.chance.below(200)).unwrap();
        let mut event = NewEvent::bytes(kind, Bytes::from(vec![b'x'; size]));
        event.id = EventId(uuid::Uuid::from_u128(u128::from(self.chance.next())));
        for _ in 0..self.chance.below(3) {
            event.labels.push(label(self.chance.below(8)));
        }
        event
    }

    fn next(&mut self, head: Position) -> Append {
        if self.chance.one_in(12) && !self.made.is_empty() {
            // Again what was asked for before, or nearly so.
            let at = usize::try_from(self.chance.next()).unwrap() % self.made.len();
            let mut again = self.made[at].clone();
            if self.chance.one_in(4) {
                again.events[0].1.data = Bytes::from_static(b"something else");
            }
            return again;
        }
        let mut append = Append::default();
        if self.chance.one_in(15) {
            let described = format!("$${}", self.stream());
            let decision = match self.chance.below(4) {
                0 => format!("{{\"$maxCount\":{}}}", 1 + self.chance.below(5)),
                1 => format!("{{\"$tb\":{}}}", self.chance.below(10)),
                2 => format!("{{\"$maxAge\":{}}}", 1 + self.chance.below(3)),
                _ => "{}".to_owned(),
            };
            let kind = if self.chance.one_in(10) { "$tombstone" } else { "$metadata" };
            let mut event = NewEvent::json(EventType::new(kind).unwrap(), decision);
            event.id = EventId(uuid::Uuid::from_u128(u128::from(self.chance.next())));
            append.events.push((stream(described), event));
        } else {
            for _ in 0..=self.chance.below(3) {
                let event = (self.stream(), self.event());
                append.events.push(event);
            }
        }
        match self.chance.below(6) {
            0 => {
                let expected = Expected::Exact(Version(self.chance.below(6)));
                append = append.require(self.stream(), expected);
            }
            1 => append = append.require(self.stream(), Expected::StreamExists),
            2 => {
                let item = QueryItem::labels([label(self.chance.below(8))]);
                let after = Position(self.chance.below(head.0 + 2));
                append = append.fail_if_matches(Query::item(item), after);
            }
            3 => {
                let kind = EventType::new(format!("type-{}", self.chance.below(5))).unwrap();
                let item = QueryItem::types([kind]).and(label(self.chance.below(8)));
                append = append.fail_if_matches(Query::item(item), Position(head.0 / 2));
            }
            4 => append = append.key(format!("key-{}", self.chance.below(30))),
            _ => {}
        }
        self.made.push(append.clone());
        append
    }
}

/// Every kind of read that there is.
fn reads(head: Position) -> Vec<Read> {
    let mut sources = vec![Source::All, Source::Stream(stream("$$stream-1"))];
    sources.extend((0..13).map(|n| Source::Stream(stream(format!("stream-{n}")))));
    for n in 0..9 {
        sources.push(Source::Query(Query::item(QueryItem::labels([label(n)]))));
    }
    let types = ["type-1", "type-3"].map(|name| EventType::new(name).unwrap());
    sources.push(Source::Query(Query::item(QueryItem::types(types.clone()).and(label(2)))));
    sources.push(Source::Query(
        Query::item(QueryItem::types(types)).or(QueryItem::labels([label(1), label(3)])),
    ));
    let mut reads = Vec::new();
    for source in sources {
        let mut froms =
            vec![From::Edge, From::Position(Position(head.0 / 2)), From::Time(Timestamp(500))];
        if matches!(source, Source::Stream(_)) {
            froms.push(From::Version(Version(3)));
        }
        for from in froms {
            reads.push(Read::forward(source.clone()).from(from));
            reads.push(Read::backward(source.clone()).from(from));
            reads.push(Read::forward(source.clone()).from(from).count(2));
        }
    }
    reads
}

/// What must be the same in both, as text.
fn shown(answer: &Result<Committed, AppendError>) -> String {
    format!("{answer:?}")
}

fn options() -> JournalStoreOptions {
    let mut options = JournalStoreOptions::new("store");
    options.id = 77;
    options.segment_size = 4096;
    options.tail_bytes_max = 4096;
    options
}

fn open(disk: &SimDisk) -> EventLog {
    EventLog::open(Arc::new(disk.clone()), &options()).expect("the log opens")
}

/// The log on disk and the model in memory, side by side.
struct Pair {
    log: EventLog,
    model: EventMachine<MemoryIndex>,
}

impl Pair {
    fn append(&mut self, append: &Append, now: Timestamp) {
        let expected = self.model.apply(append.clone(), Position::BEGINNING, now);
        let expected = expected.map(|applied| applied.committed);
        let found = self.log.stage(append.clone(), now);
        assert_eq!(shown(&found), shown(&expected), "{append:?}");
    }

    fn compare(&self) {
        self.compare_visible();
        assert_eq!(self.log.reader().types().unwrap(), self.model.index().types());
    }

    /// All but what changes when space is taken back.
    fn compare_visible(&self) {
        let reader = self.log.reader();
        let head = reader.head();
        assert_eq!(head, self.model.index().head());
        for read in reads(head) {
            let expected = page::read(self.model.index(), &read);
            let found = reader.read(&read);
            assert_eq!(format!("{found:?}"), format!("{expected:?}"), "{read:?}");
        }
        for n in 0..13 {
            let name = stream(format!("stream-{n}"));
            let expected = page::stream_info(self.model.index(), &name).unwrap();
            assert_eq!(reader.stream(&name).unwrap(), expected);
        }
    }
}

/// Runs a workload on both; what happens to the log in between is up to `between`.
fn side_by_side(
    seed: u64,
    appends: u64,
    mut between: impl FnMut(EventLog, &mut Chance) -> EventLog,
) {
    let disk = SimDisk::new(seed);
    let model = EventMachine::new(MemoryIndex::default(), Limits::default());
    let mut pair = Pair { log: open(&disk), model };
    let mut workload = Workload::new(seed);
    let mut chance = Chance(seed ^ 1);
    for step in 0..appends {
        let now = Timestamp(step * 20 - chance.below(10).min(step));
        let append = workload.next(pair.model.index().head());
        pair.append(&append, now);
        if chance.one_in(3) {
            pair.log.commit().unwrap();
            pair.log = between(pair.log, &mut chance);
            if chance.one_in(20) {
                pair.compare();
            }
        }
    }
    pair.log.commit().unwrap();
    pair.compare();
    assert!(pair.log.reader().head() > Position(appends / 2), "the workload writes");
}

#[test]
fn the_log_answers_as_the_store_in_memory_does() {
    for seed in 0..4 {
        side_by_side(seed, 300, |log, _| log);
    }
}

#[test]
fn index_files_in_the_place_of_memory_change_no_answer() {
    for seed in 10..14 {
        side_by_side(seed, 300, |mut log, chance| {
            if chance.one_in(3) {
                log.upkeep().into_iter().for_each(|task| task.run().unwrap());
            }
            log
        });
    }
}

#[test]
fn closing_or_dropping_the_log_and_opening_it_again_changes_no_answer() {
    for seed in 20..24 {
        let disk = SimDisk::new(seed);
        let model = EventMachine::new(MemoryIndex::default(), Limits::default());
        let mut pair = Pair { log: open(&disk), model };
        let (mut workload, mut chance) = (Workload::new(seed), Chance(seed));
        for step in 0..200 {
            let append = workload.next(pair.model.index().head());
            pair.append(&append, Timestamp(step * 20));
            pair.log.commit().unwrap();
            let chain = pair.log.chain_head();
            if chance.one_in(8) {
                if chance.one_in(2) {
                    pair.log.upkeep().into_iter().for_each(|task| task.run().unwrap());
                }
                if chance.one_in(2) {
                    pair.log.close().unwrap();
                } else {
                    drop(pair.log);
                    disk.kill();
                }
                pair.log = open(&disk);
                assert_eq!(pair.log.chain_head(), chain);
                pair.compare();
            }
        }
    }
}

#[test]
fn a_damaged_index_file_is_made_again_and_no_answer_is_wrong() {
    let disk = SimDisk::new(3);
    let model = EventMachine::new(MemoryIndex::default(), Limits::default());
    let mut pair = Pair { log: open(&disk), model };
    let (mut workload, mut chance) = (Workload::new(3), Chance(3));
    for step in 0..200 {
        let append = workload.next(pair.model.index().head());
        pair.append(&append, Timestamp(step * 20));
        pair.log.commit().unwrap();
    }
    for round in 0..30 {
        pair.log.upkeep().into_iter().for_each(|task| task.run().unwrap());
        let names = disk.list(Path::new("store/index")).unwrap();
        assert!(names.len() > 4, "there are index files");
        let mut damage = || {
            for name in &names {
                let path = Path::new("store/index").join(name);
                let length = disk.open(&path, OpenMode::Read).unwrap().length().unwrap();
                disk.damage(&path, &[0xa5; 3], chance.below(length)).unwrap();
            }
        };
        if round % 2 == 0 {
            pair.log.close().unwrap();
            damage();
            pair.log = open(&disk);
        } else {
            damage();
        }
        pair.compare();
    }
}

fn all(log: &EventLog) -> Vec<Arc<Recorded>> {
    let mut events = Vec::new();
    let mut read = Read::forward(Source::All);
    loop {
        let page = log.reader().read(&read).unwrap();
        events.extend(page.events);
        match page.next {
            Some(next) => read = read.from(next),
            None => return events,
        }
    }
}

/// Appends one group after the other until the disk fails, and returns how many events were acknowledged; beside it all events
/// that were given a place.
fn run_until_failure(log: &mut EventLog, seed: u64, steps: u64) -> (u64, Vec<Arc<Recorded>>) {
    let mut model = EventMachine::new(MemoryIndex::default(), Limits::default());
    let mut workload = Workload::new(seed);
    let (mut acknowledged, mut placed) = (0, Vec::new());
    for step in 0..steps {
        for _ in 0..=step % 3 {
            let append = workload.next(model.index().head());
            let now = Timestamp(step * 20);
            if let Ok(applied) = model.apply(append.clone(), Position::BEGINNING, now) {
                placed.extend(applied.recorded);
            }
            // An append may be refused for want of an answer from the disk; then the log has moved on without the model.
            if matches!(log.stage(append, now), Err(AppendError::Failed(_) | AppendError::Read(_)))
            {
                return (acknowledged, placed);
            }
        }
        match log.commit() {
            Ok(head) => acknowledged = head.0,
            Err(_) => return (acknowledged, placed),
        }
        if step % 7 == 6 && log.upkeep().into_iter().any(|task| task.run().is_err()) {
            return (acknowledged, placed);
        }
        if step % 11 == 10 && log.mark().is_err() {
            return (acknowledged, placed);
        }
    }
    (acknowledged, placed)
}

#[test]
fn a_crash_at_any_call_of_the_disk_leaves_every_acknowledged_event() {
    let steps = 24;
    let disk = SimDisk::new(1);
    let mut log = open(&disk);
    run_until_failure(&mut log, 9, steps);
    drop(log);
    let calls = disk.counts().calls;
    assert!(calls > 100, "{calls} calls");
    for at in 0..calls {
        let disk = SimDisk::new(at);
        disk.crash_after_calls(at);
        let opened = EventLog::open(Arc::new(disk.clone()), &options());
        let (acknowledged, placed) = match opened {
            Ok(mut log) => run_until_failure(&mut log, 9, steps),
            Err(_) => (0, Vec::new()),
        };
        disk.crash();
        let mut log = open(&disk);
        assert_eq!(log.failure().map(ToString::to_string), None, "crash at call {at}");
        let events = all_recorded(&log);
        assert!(to_u64(events.len()) >= acknowledged, "crash at call {at}: events are lost");
        assert_eq!(events, placed[..events.len()], "crash at call {at}");
        // And it goes on.
        let append = Append::to(
            stream("after"),
            Expected::NoStream,
            [NewEvent::json(EventType::new("t").unwrap(), "1")],
        );
        log.stage(append, Timestamp(10_000)).unwrap();
        assert_eq!(log.commit().unwrap().0, to_u64(events.len()) + 1);
    }
}

/// All events, those too that retention hides.
fn all_recorded(log: &EventLog) -> Vec<Arc<Recorded>> {
    let head = log.reader().head();
    (1..=head.0)
        .map(|position| log.reader().recorded(Position(position)).unwrap().unwrap())
        .collect()
}

fn to_u64(length: usize) -> u64 {
    u64::try_from(length).unwrap()
}

#[test]
fn a_failed_sync_ends_the_log_and_what_was_acknowledged_is_there_after_it() {
    for failing in 1..20 {
        let disk = SimDisk::new(failing);
        let mut log = open(&disk);
        disk.fail_sync_at(failing);
        let (acknowledged, placed) = run_until_failure(&mut log, 5, 24);
        if log.failure().is_some() {
            let append = Append::to(
                stream("a"),
                Expected::Any,
                [NewEvent::json(EventType::new("t").unwrap(), "1")],
            );
            assert!(matches!(log.stage(append, Timestamp(0)), Err(AppendError::Failed(_))));
            assert_eq!(log.reader().head().0, acknowledged, "nothing else is shown");
        }
        drop(log);
        disk.crash();
        let events = all_recorded(&open(&disk));
        assert!(to_u64(events.len()) >= acknowledged);
        assert_eq!(events, placed[..events.len()]);
    }
}

#[test]
fn a_failed_sync_beside_the_log_costs_no_acknowledged_event() {
    for failing in 1..8 {
        let disk = SimDisk::new(failing);
        let mut log = open(&disk);
        let mut acknowledged = 0;
        for n in 0..30_u64 {
            let mut event = NewEvent::bytes(EventType::new("t").unwrap(), vec![7; 700]);
            event.id = EventId(uuid::Uuid::from_u128(u128::from(n)));
            log.stage(Append::to(stream("s"), Expected::Any, [event]), Timestamp(0)).unwrap();
            acknowledged = log.commit().unwrap().0;
            if n == 15 {
                // Index files and seals: nothing depends on them, and so nobody is told.
                disk.fail_sync_at(failing);
                let failed = log.upkeep().into_iter().filter_map(|task| task.run().err()).count();
                assert!(failed <= 1);
                disk.clear_failing_syncs();
            }
        }
        drop(log);
        disk.crash_with(Survival::Nothing);
        assert_eq!(to_u64(all(&open(&disk)).len()), acknowledged, "sync {failing} has failed");
    }
}

#[test]
fn an_index_file_of_a_segment_before_it_was_rewritten_is_not_believed() {
    let disk = SimDisk::new(1);
    let mut log = open(&disk);
    for n in 0..40_u64 {
        let mut event = NewEvent::bytes(EventType::new(format!("t-{n}")).unwrap(), vec![7; 90]);
        event.id = EventId(uuid::Uuid::from_u128(u128::from(n)));
        log.stage(Append::to(stream("s"), Expected::Any, [event]), Timestamp(0)).unwrap();
        log.commit().unwrap();
    }
    // One event is hidden: the rewritten segment may be as long as before.
    let cut = NewEvent::json(EventType::new("$metadata").unwrap(), "{\"$tb\":1}");
    log.stage(Append::to(stream("$$s"), Expected::Any, [cut]), Timestamp(0)).unwrap();
    log.commit().unwrap();
    log.upkeep().into_iter().for_each(|task| task.run().unwrap());
    let segment = log.scavengeable()[0];
    let rewritten = log.scavenger(segment, true).unwrap().run().unwrap().expect("one is hidden");
    log.install(rewritten).unwrap();
    log.close().unwrap();
    let types = open(&disk).reader().types().unwrap();
    assert!(types.iter().all(|count| count.event_type.as_str() != "t-0"), "{types:?}");
}

#[test]
fn a_full_disk_refuses_appends_and_passes() {
    let disk = SimDisk::new(1);
    let mut log = open(&disk);
    let event = |n: u64| {
        let mut event = NewEvent::bytes(EventType::new("t").unwrap(), vec![7; 700]);
        event.id = EventId(uuid::Uuid::from_u128(u128::from(n)));
        event
    };
    let append = |n| Append::to(stream("s"), Expected::Any, [event(n)]);
    for n in 0..20 {
        log.stage(append(n), Timestamp(0)).unwrap();
        log.commit().unwrap();
    }
    disk.set_capacity(Some(disk.used()));
    let mut refused = 0;
    let mut n = 20;
    while refused < 3 {
        log.stage(append(n), Timestamp(0)).unwrap();
        match log.commit() {
            Ok(_) => n += 1,
            Err(AppendError::DiskFull) => refused += 1,
            Err(error) => panic!("{error}"),
        }
    }
    assert_eq!(to_u64(all(&log).len()), n, "reads go on");
    disk.set_capacity(None);
    let committed = log.stage(append(n), Timestamp(0)).unwrap();
    log.commit().unwrap();
    assert_eq!((committed.first.0, committed.repeated), (n + 1, false));
    log.close().unwrap();
    assert_eq!(to_u64(all(&open(&disk)).len()), n + 1);
}

#[test]
fn two_owners_of_one_directory_are_one_too_many() {
    let disk = SimDisk::new(1);
    let _log = open(&disk);
    let error = EventLog::open(Arc::new(disk.clone()), &options()).unwrap_err();
    assert!(error.to_string().contains("in use"), "{error}");
}

#[test]
fn damage_in_the_middle_is_reported_and_readable_around_and_nothing_is_appended() {
    damage_in_the_middle(false);
}

#[test]
fn damage_behind_a_seal_and_an_index_file_is_reported_as_well() {
    damage_in_the_middle(true);
}

fn damage_in_the_middle(with_upkeep: bool) {
    let disk = SimDisk::new(2);
    let mut log = open(&disk);
    let mut workload = Workload::new(2);
    for step in 0..120 {
        let append = workload.next(log.reader().head());
        let _ = log.stage(append, Timestamp(step));
        log.commit().unwrap();
    }
    let events = all_recorded(&log);
    if with_upkeep {
        log.upkeep().into_iter().for_each(|task| task.run().unwrap());
    }
    log.close().unwrap();
    let path = Path::new("store/log/00000000000000000003.seg");
    disk.damage(path, &[0xff; 64], 1500).unwrap();

    let mut log = open(&disk);
    let damage = log.damage();
    let [lost] = &damage[..] else { panic!("one range is damaged: {damage:?}") };
    let append =
        Append::to(stream("s"), Expected::Any, [NewEvent::json(EventType::new("t").unwrap(), "1")]);
    let refused = log.stage(append, Timestamp(0)).unwrap_err();
    assert!(refused.to_string().contains("no more appends"), "{refused}");
    assert_eq!(log.chain_head(), None);
    for event in &events {
        let found = log.reader().recorded(event.position);
        if lost.contains(&event.position.0) {
            assert!(found.is_err());
        } else {
            assert_eq!(found.unwrap().as_ref(), Some(event));
        }
    }
    // From the beginning up to the damage, and from behind it to the end.
    let before = log.reader().read(&Read::forward(Source::All)).unwrap();
    assert!(before.scanned.0 < lost.start && before.next.is_some());
    let behind = From::Position(Position(lost.end));
    let behind = log.reader().read(&Read::forward(Source::All).from(behind)).unwrap();
    assert_eq!(behind.scanned, log.reader().head());
    assert!(!log.verify().unwrap().is_sound());
}

#[test]
fn taking_back_space_changes_no_answer_and_no_hash() {
    let mut scavenged = 0;
    for seed in 30..34 {
        let disk = SimDisk::new(seed);
        let model = EventMachine::new(MemoryIndex::default(), Limits::default());
        let mut pair = Pair { log: open(&disk), model };
        let (mut workload, mut chance) = (Workload::new(seed), Chance(seed));
        for step in 0..300 {
            let append = workload.next(pair.model.index().head());
            pair.append(&append, Timestamp(step * 20));
            pair.log.commit().unwrap();
            if !chance.one_in(40) {
                continue;
            }
            let chain = pair.log.chain_head();
            for segment in pair.log.scavengeable() {
                let task = pair.log.scavenger(segment, chance.one_in(2)).unwrap();
                if let Some(rewritten) = task.run().unwrap() {
                    scavenged += rewritten.events;
                    let reload = pair.log.install(rewritten).unwrap();
                    if chance.one_in(2) {
                        reload.run().unwrap();
                    }
                }
            }
            if chance.one_in(2) {
                pair.log.upkeep().into_iter().for_each(|task| task.run().unwrap());
            }
            if chance.one_in(2) {
                drop(pair.log);
                disk.crash();
                pair.log = open(&disk);
            }
            assert_eq!(pair.log.chain_head(), chain);
            pair.compare_visible();
            let verified = pair.log.verify().unwrap();
            assert!(verified.is_sound(), "{:?}", verified.problems);
            assert_eq!(verified.chain, chain);
        }
    }
    assert!(scavenged > 20, "{scavenged} events were hidden");
}

#[test]
fn a_crash_at_any_call_of_a_scavenging_leaves_every_event_that_can_be_seen() {
    let prepare = |disk: &SimDisk| {
        let mut log = open(disk);
        let mut workload = Workload::new(41);
        for step in 0..60 {
            let append = workload.next(log.reader().head());
            let _ = log.stage(append, Timestamp(step * 20));
            log.commit().unwrap();
        }
        log
    };
    let scavenge = |log: &mut EventLog| {
        for segment in log.scavengeable() {
            let Ok(Some(rewritten)) = log.scavenger(segment, true).expect("it is there").run()
            else {
                continue;
            };
            let Ok(reload) = log.install(rewritten) else { return };
            if reload.run().is_err() {
                return;
            }
            for task in log.upkeep() {
                // The disk may be gone.
                let _ = task.run();
            }
        }
    };
    let disk = SimDisk::new(1);
    let mut log = prepare(&disk);
    let (before, visible, chain) = (disk.counts().calls, all(&log), log.chain_head());
    scavenge(&mut log);
    let calls = disk.counts().calls - before;
    assert!(calls > 20, "{calls} calls");
    for at in 0..calls {
        let disk = SimDisk::new(at);
        let mut log = prepare(&disk);
        disk.crash_after_calls(at);
        scavenge(&mut log);
        drop(log);
        disk.crash();
        let log = open(&disk);
        assert_eq!(log.failure().map(ToString::to_string), None, "crash at call {at}");
        assert_eq!(all(&log), visible, "crash at call {at}");
        assert_eq!(log.chain_head(), chain);
        let verified = log.verify().unwrap();
        assert!(verified.is_sound(), "crash at call {at}: {:?}", verified.problems);
    }
}

#[test]
fn a_torn_tail_loses_no_acknowledged_event_and_leaves_no_part_of_an_append() {
    let (mut kept, mut lost) = (0, 0);
    for seed in 0..200 {
        let disk = SimDisk::new(seed);
        let mut log = open(&disk);
        let event = |n: u64| {
            let kind = EventType::new("t").unwrap();
            NewEvent::bytes(kind, vec![b'x'; 60]).id(EventId(uuid::Uuid::from_u128(n.into())))
        };
        let append = |n: u64| {
            let events = (0..3).map(|part| event(3 * n + part));
            Append::to(stream("s"), Expected::Any, events.collect::<Vec<_>>())
        };
        for n in 0..2 {
            log.stage(append(n), Timestamp(0)).unwrap();
            log.commit().unwrap();
        }
        // The write is under way when the power goes: any of its sectors may be there.
        log.stage(append(2), Timestamp(0)).unwrap();
        log.stage(append(3), Timestamp(0)).unwrap();
        disk.crash_after_calls(1);
        assert!(log.commit().is_err());
        drop(log);
        disk.crash();
        let log = open(&disk);
        let events = all_recorded(&log);
        match events.len() {
            6 => lost += 1,
            12 => kept += 1,
            other => panic!("{other} events after seed {seed}"),
        }
        assert!(log.verify().unwrap().is_sound());
    }
    assert!(kept > 0 && lost > 0, "{kept} and {lost}: both happen");
}

/// A store of 40 events in streams that the seed shuffles, closed, with all its index files.
fn history(seed: u64) -> SimDisk {
    let disk = SimDisk::new(1);
    let mut log = open(&disk);
    let mut chance = Chance(seed);
    for number in 0..40_u64 {
        let kind = EventType::new("t").unwrap();
        let mut event = NewEvent::bytes(kind, vec![b'x'; 300]);
        event.id = EventId(uuid::Uuid::from_u128(number.into()));
        let name = stream(format!("s-{}", chance.below(8)));
        log.stage(Append::to(name, Expected::Any, [event]), Timestamp(number)).unwrap();
        log.commit().unwrap();
    }
    for task in log.upkeep() {
        task.run().unwrap();
    }
    log.close().unwrap();
    disk
}

#[test]
fn index_files_of_another_history_of_the_same_store_are_not_believed() {
    let (ours, theirs) = (history(1), history(2));
    let names = theirs.list(Path::new("store/index")).unwrap();
    assert!(names.len() > 2, "{names:?}");
    for name in &names {
        let path = Path::new("store/index").join(name);
        let file = theirs.open(&path, OpenMode::Read).unwrap();
        let mut bytes = vec![0; usize::try_from(file.length().unwrap()).unwrap()];
        file.read_at(&mut bytes, 0).unwrap();
        ours.remove(&path).unwrap();
        ours.open(&path, OpenMode::CreateNew).unwrap().write_at(&bytes, 0).unwrap();
    }
    let log = open(&ours);
    let mut found = 0;
    for number in 0..8 {
        let name = stream(format!("s-{number}"));
        let page = log.reader().read(&Read::forward(Source::Stream(name.clone()))).unwrap();
        assert!(page.events.iter().all(|event| event.stream == name));
        found += page.events.len();
    }
    assert_eq!(found, 40);
    assert!(log.verify().unwrap().is_sound());
}
