use std::collections::VecDeque;

use super::*;
use crate::state_machine::{Simple, SimpleReader, StateMachine};
use crate::types::{LogIndex, Term};

/// Adds what it is told, and refuses to add nothing.
#[derive(Debug, Default)]
struct Sum(u64);

impl StateMachine for Sum {
    fn apply(&mut self, command: &[u8]) -> Result<Vec<u8>, BoxError> {
        let number: u64 = std::str::from_utf8(command)?.parse()?;
        if number == 0 {
            return Err("nothing to add".into());
        }
        self.0 += number;
        Ok(self.0.to_string().into())
    }

    fn snapshot(&self) -> Result<Option<Vec<u8>>, BoxError> {
        Ok(Some(self.0.to_string().into()))
    }

    fn restore(&mut self, snapshot: &[u8]) -> Result<(), BoxError> {
        self.0 = std::str::from_utf8(snapshot)?.parse()?;
        Ok(())
    }
}

/// A machine, and the log that it is given.
struct Bench {
    machine: Sessions<Simple<Sum>>,
    reader: SessionReader<SimpleReader<Sum>>,
    index: u64,
    now: u64,
}

impl Bench {
    fn new() -> Self {
        let machine = Sessions::new(Simple::new(Sum::default()));
        let reader = machine.reader();
        Self { machine, reader, index: 0, now: 1_000_000 }
    }

    fn entry(&mut self, session: Option<SessionId>, command: Bytes) -> Reply {
        self.index += 1;
        let id = EntryId::new(Term(1), LogIndex(self.index));
        let mut replies = Vec::new();
        let committed = Committed { id, session, command: Some(command) };
        self.machine.apply(&[committed], &mut replies).unwrap();
        assert_eq!(self.machine.applied(), id);
        assert_eq!(replies.len(), 1);
        replies.remove(0)
    }

    fn open(&mut self, idle_ms: u64) -> u64 {
        let command = SessionCommand::Open { time_ms: self.now, idle_ms };
        let reply = self.entry(Some(SessionId { session: 0, sequence: 0 }), command.encode());
        u64::from_le_bytes(reply.unwrap()[..].try_into().unwrap())
    }

    fn add(&mut self, session: u64, sequence: u64, acknowledged: u64, number: u64) -> Reply {
        let command = Bytes::from(number.to_string());
        self.send(session, sequence, acknowledged, command)
    }

    fn send(&mut self, session: u64, sequence: u64, acknowledged: u64, command: Bytes) -> Reply {
        let time_ms = self.now;
        let command = SessionCommand::Apply { time_ms, acknowledged, command };
        self.entry(Some(SessionId { session, sequence }), command.encode())
    }

    fn sum(&self) -> u64 {
        self.reader.with(|sum| sum.0)
    }

    /// Another replica, from a snapshot of this one.
    fn restored(&self) -> Self {
        let mut view = self.machine.view().unwrap().unwrap();
        let mut parts = Parts(VecDeque::new());
        while let Some(part) = view.next_part().unwrap() {
            parts.0.push_back(part);
        }
        let mut other = Self::new();
        other.machine.restore(self.machine.applied(), &mut parts).unwrap();
        assert!(parts.0.is_empty());
        (other.index, other.now) = (self.index, self.now);
        other
    }
}

struct Parts(VecDeque<Part>);

impl SnapshotParts for Parts {
    fn next_part(&mut self) -> Result<Option<Part>, BoxError> {
        Ok(self.0.pop_front())
    }
}

fn text(reply: &Reply) -> &str {
    std::str::from_utf8(reply.as_ref().unwrap()).unwrap()
}

fn error(reply: &Reply) -> SessionError {
    reply.as_ref().unwrap_err().downcast_ref::<SessionError>().unwrap().clone()
}

/// Case 51.
#[test]
fn a_command_that_is_sent_again_is_applied_once_and_gets_the_reply_of_the_first_time() {
    let mut bench = Bench::new();
    let session = bench.open(60_000);
    assert_eq!(text(&bench.add(session, 1, 0, 5)), "5");
    assert_eq!(text(&bench.add(session, 2, 0, 7)), "12");
    for _ in 0..3 {
        assert_eq!(text(&bench.add(session, 1, 0, 5)), "5");
    }
    assert_eq!(bench.sum(), 12);
    // What has no session is applied as often as it comes.
    for _ in 0..2 {
        bench.entry(None, Bytes::from("1")).unwrap();
    }
    assert_eq!(bench.sum(), 14);
}

#[test]
fn a_refusal_is_remembered_as_a_reply_is() {
    let mut bench = Bench::new();
    let session = bench.open(60_000);
    assert_eq!(bench.add(session, 1, 0, 0).unwrap_err().to_string(), "nothing to add");
    let again = bench.add(session, 1, 0, 0);
    assert_eq!(error(&again), SessionError::RefusedBefore("nothing to add".to_owned()));
    assert_eq!(again.unwrap_err().to_string(), "nothing to add");
}

#[test]
fn numbers_come_in_any_order_within_what_may_be_outstanding() {
    let mut bench = Bench::new();
    let session = bench.open(60_000);
    assert_eq!(text(&bench.add(session, OUTSTANDING_MAX, 0, 1)), "1");
    assert_eq!(text(&bench.add(session, 1, 0, 1)), "2");
    let number = OUTSTANDING_MAX + 1;
    let far = bench.add(session, number, 0, 1);
    assert_eq!(error(&far), SessionError::TooFarAhead { number, acknowledged: 0 });
    assert_eq!(text(&bench.add(session, number, 1, 1)), "3");
    assert_eq!(error(&bench.add(session, 1, 0, 1)), SessionError::Acknowledged(1));
    // Nobody can have the reply to what is being sent: the number itself is not acknowledged by it.
    assert_eq!(text(&bench.add(session, number + 1, u64::MAX, 1)), "4");
    assert_eq!(bench.sum(), 4);
}

#[test]
fn replies_that_are_too_much_are_dropped_oldest_first_and_nothing_is_applied_again() {
    let mut bench = Bench::new();
    let session = bench.open(60_000);
    bench.add(session, 1, 0, 5).unwrap();
    let table = Arc::make_mut(bench.machine.table.sessions.get_mut(&session).unwrap());
    // Machines may answer at length.
    let reply = |length| Outcome::Reply(Bytes::from(vec![0; length]));
    table.remember(2, reply(REPLY_BYTES_MAX - 1));
    assert_eq!(table.bytes, REPLY_BYTES_MAX);
    table.remember(3, reply(1));
    assert_eq!((table.bytes, &table.outcomes[&1]), (REPLY_BYTES_MAX, &Outcome::Dropped));
    // One that is too long by itself is not kept at all.
    table.remember(4, reply(REPLY_BYTES_MAX + 1));
    assert_eq!(table.bytes, 0);
    for number in 1..=4 {
        let again = bench.add(session, number, 0, 5);
        assert_eq!(error(&again), SessionError::ReplyDropped(number));
    }
    assert_eq!(bench.sum(), 5);
}

#[test]
fn sessions_expire_by_the_time_that_the_log_bears_and_never_come_back() {
    let mut bench = Bench::new();
    let (idle, kept) = (bench.open(10_000), bench.open(10_000));
    bench.add(idle, 1, 0, 5).unwrap();
    bench.now += 9_000;
    let keep = SessionCommand::KeepAlive { time_ms: bench.now };
    bench.entry(Some(SessionId { session: kept, sequence: 0 }), keep.encode()).unwrap();
    bench.now += 2_000;
    assert_eq!(text(&bench.add(kept, 1, 0, 1)), "6");
    // The other was not used for eleven seconds. A clock that is behind brings it back no more than one that is ahead.
    bench.now -= 5_000;
    assert_eq!(error(&bench.add(idle, 1, 0, 5)), SessionError::Unknown(idle));
    assert_eq!(bench.machine.open_sessions(), 1);
    let again = bench.open(10_000);
    assert!(again > kept && again != idle, "an id is never given twice");
    assert_eq!(bench.sum(), 6);
}

#[test]
fn a_clock_that_is_far_ahead_neither_ends_expiry_nor_ends_all_sessions() {
    let mut bench = Bench::new();
    let (short, long) = (bench.open(10_000), bench.open(2 * LEAP_MS_MAX));
    let right = bench.now;
    bench.now = u64::MAX - 1;
    bench.add(long, 1, 0, 1).unwrap();
    assert_eq!(error(&bench.add(short, 1, 0, 1)), SessionError::Unknown(short), "early");
    assert_eq!(bench.machine.open_sessions(), 1, "the other has time left");
    // The right clock is heard again, and sessions expire by it.
    bench.now = right;
    let later = bench.open(10_000);
    bench.now += 9_000;
    assert_eq!(text(&bench.add(later, 1, 0, 1)), "2");
    bench.now += 11_000;
    assert_eq!(error(&bench.add(later, 2, 0, 1)), SessionError::Unknown(later));
    assert_eq!(text(&bench.add(long, 2, 0, 1)), "3");
    // Little differences between clocks that take turns do not add up.
    for turn in 0..10_000 {
        bench.now = right + 20_000 + turn % 2 * 5_000;
        bench.add(long, 3 + turn, 2 + turn, 1).unwrap();
    }
    assert_eq!(bench.machine.open_sessions(), 1);
    assert!(bench.machine.table.now < 3 * LEAP_MS_MAX);
}

#[test]
fn a_command_that_tells_no_time_expires_nobody() {
    let mut bench = Bench::new();
    let session = bench.open(10_000);
    bench.add(session, 1, 0, 7).unwrap();
    let right = std::mem::take(&mut bench.now);
    assert_eq!(text(&bench.add(session, 1, 0, 7)), "7", "the same again");
    bench.now = right + 9_000;
    assert_eq!(text(&bench.add(session, 2, 1, 1)), "8");
}

/// Many replies, so that the table has many parts: what is held beside the table is one part.
#[test]
fn a_large_table_is_written_and_read_a_part_at_a_time() {
    let mut bench = Bench::new();
    for _ in 0..200 {
        let session = bench.open(60_000);
        let table = bench.machine.table.sessions.get_mut(&session).unwrap();
        Arc::make_mut(table).remember(1, Outcome::Reply(vec![7; REPLY_BYTES_MAX].into()));
    }
    let mut parts = TableParts::of(&bench.machine.table);
    let before = bench.machine.table.clone();
    bench.now += 1;
    for session in 1..=200 {
        bench.add(session, 2, 1, 1).unwrap();
    }
    let mut written = VecDeque::new();
    let cuts = Cuts::of(32 << 10);
    while let Some(data) = parts.next(cuts) {
        assert!(data.len() <= cuts.longest());
        written.push_back(Part { name: format!("sessions-{}", written.len()), data });
    }
    assert!(written.len() > 100);
    assert_eq!(Table::restore(&mut Parts(written)).unwrap(), before, "as it was at that moment");
}

#[test]
fn a_table_of_version_1_is_read() {
    let mut bench = Bench::new();
    bench.open(60_000);
    let whole = TableParts::of(&bench.machine.table).next(Cuts::of(cut::AVERAGE)).unwrap();
    let mut whole = whole.to_vec();
    let heard = whole.drain(17..25);
    drop(heard);
    whole[8] = 1;
    let length = whole.len() as u64;
    whole[..8].copy_from_slice(&length.to_le_bytes());
    let part = Part { name: "sessions-1".to_owned(), data: whole.into() };
    let table = Table::restore(&mut Parts(VecDeque::from([part]))).unwrap();
    assert_eq!((table.heard, table.now), (bench.machine.table.now, bench.machine.table.now));
    assert_eq!(table.sessions, bench.machine.table.sessions);
}

#[test]
fn a_closed_session_applies_nothing_and_closing_twice_does_no_harm() {
    let mut bench = Bench::new();
    let session = bench.open(60_000);
    for _ in 0..2 {
        let close = SessionCommand::Close { time_ms: bench.now };
        bench.entry(Some(SessionId { session, sequence: 0 }), close.encode()).unwrap();
        assert_eq!(error(&bench.add(session, 1, 0, 1)), SessionError::Unknown(session));
    }
    assert_eq!(bench.sum(), 0);
}

#[test]
fn sessions_are_in_the_snapshot() {
    let mut bench = Bench::new();
    let session = bench.open(60_000);
    bench.add(session, 1, 0, 5).unwrap();
    bench.add(session, 2, 1, 0).unwrap_err();
    bench.open(70_000);
    let mut other = bench.restored();
    assert_eq!(other.machine.table, bench.machine.table);
    assert_eq!(error(&other.add(session, 1, 0, 5)), SessionError::Acknowledged(1));
    let again = error(&other.add(session, 2, 1, 0));
    assert_eq!(again, SessionError::RefusedBefore("nothing to add".to_owned()));
    assert_eq!(text(&other.add(session, 3, 1, 1)), "6");
    // An empty table, too.
    assert_eq!(Bench::new().restored().machine.open_sessions(), 0);
}

#[test]
fn a_snapshot_that_is_cut_or_lies_about_its_sessions_is_refused() {
    let mut bench = Bench::new();
    let session = bench.open(60_000);
    bench.add(session, 1, 0, 5).unwrap();
    let whole = TableParts::of(&bench.machine.table).next(Cuts::of(cut::AVERAGE)).unwrap();
    let restore = |bytes: &[u8]| {
        let part = Part { name: "sessions-1".to_owned(), data: Bytes::copy_from_slice(bytes) };
        Table::restore(&mut Parts(VecDeque::from([part])))
    };
    assert_eq!(restore(&whole).unwrap(), bench.machine.table);
    for length in 0..whole.len() {
        assert!(restore(&whole[..length]).is_err());
        let mut cut = whole[..length].to_vec();
        if length >= 8 {
            cut[..8].copy_from_slice(&(length as u64).to_le_bytes());
            assert!(restore(&cut).is_err(), "{length} bytes");
        }
    }
    for place in 8..whole.len() {
        let mut bad = whole.to_vec();
        bad[place] = 0xff;
        let _: Result<Table, BoxError> = restore(&bad);
    }
}

#[test]
fn what_is_no_command_of_a_session_is_refused_and_the_machine_goes_on() {
    let mut bench = Bench::new();
    let session = Some(SessionId { session: 1, sequence: 1 });
    let open = SessionCommand::Open { time_ms: 1, idle_ms: 1 }.encode();
    for bytes in [&[][..], &[1], &open[..17], &[2; 18], &[1; 19], b"1\x09................"] {
        let reply = bench.entry(session, Bytes::copy_from_slice(bytes));
        assert_eq!(error(&reply), SessionError::Malformed, "{bytes:?}");
    }
    assert_eq!(text(&bench.entry(None, Bytes::from("3"))), "3");
}

#[test]
fn there_are_only_so_many_sessions() {
    let mut bench = Bench::new();
    for _ in 0..SESSIONS_MAX {
        bench.open(10_000);
    }
    let open = SessionCommand::Open { time_ms: bench.now, idle_ms: 10_000 }.encode();
    let id = Some(SessionId { session: 0, sequence: 0 });
    assert_eq!(error(&bench.entry(id, open)), SessionError::TooMany);
    bench.now += 10_001;
    bench.open(10_000);
    assert_eq!(bench.machine.open_sessions(), 1);
}
