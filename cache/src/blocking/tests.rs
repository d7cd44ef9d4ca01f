//! Several clients of one engine, a clock that the test moves, and no sockets.

use crate::blocking::Waiters;
use crate::command::TABLE;
use crate::command::testing::{TestNode, run, show};
use crate::command::{Flags, Keys};
use crate::session::{Next, Session};

/// Clients by name, each with what it has been sent since it was last asked.
struct Room {
    node: TestNode,
    clients: Vec<Session>,
}

impl Room {
    fn with(clients: usize) -> Self {
        let mut node = TestNode::new();
        let clients = (0..clients).map(|_| node.connect()).collect();
        Self { node, clients }
    }

    /// Client `number` says `line`, and is not to wait.
    #[track_caller]
    fn says(&mut self, number: usize, line: &str) -> String {
        let reply = run(&self.node.engine, &mut self.clients[number], line);
        assert_eq!(self.clients[number].next, Next::Continue, "{line}");
        reply
    }

    /// Client `number` says `line`, and is to wait.
    #[track_caller]
    fn waits(&mut self, number: usize, line: &str) {
        assert_eq!(run(&self.node.engine, &mut self.clients[number], line), "", "{line}");
        assert!(matches!(self.clients[number].next, Next::Wait(_)), "{line}");
    }

    /// What client `number`, who waits, has been sent; None if it still waits.
    fn hears(&mut self, number: usize) -> Option<String> {
        let mut out = Vec::new();
        let now = crate::engine::Clock::now(&*self.node.clock);
        let (next, _) = self.clients[number].wait_is_over(&self.node.engine, now, &mut out);
        match next {
            Next::Wait(_) => {
                assert!(out.is_empty());
                None
            }
            _ => Some(show(&out)),
        }
    }

    fn waiters(&self) -> &Waiters {
        &self.node.engine.waiters
    }
}

fn heard(reply: &str) -> Option<String> {
    Some(reply.to_owned())
}

#[test]
fn the_oldest_is_served_first_and_each_gets_one() {
    let mut room = Room::with(4);
    room.waits(0, "BLPOP l 0");
    room.waits(1, "BRPOP l 0");
    room.waits(2, "BLPOP l 0");
    assert_eq!(room.says(3, "RPUSH l a b"), "2");
    assert_eq!(room.hears(2), None);
    assert_eq!(room.hears(1), heard(r#"["l", "b"]"#));
    assert_eq!(room.hears(0), heard(r#"["l", "a"]"#));
    assert_eq!(room.says(3, "EXISTS l"), "0");
    assert_eq!(room.says(3, "RPUSH l c d"), "2");
    assert_eq!(room.hears(2), heard(r#"["l", "c"]"#));
    assert_eq!(room.says(3, "LRANGE l 0 -1"), r#"["d"]"#);
    assert!(!room.waiters().is_used());
}

#[test]
fn what_is_there_is_taken_at_once_from_the_first_key_that_has_any() {
    let mut room = Room::with(1);
    room.says(0, "RPUSH b 1 2");
    room.says(0, "RPUSH c 3");
    assert_eq!(room.says(0, "BLPOP a b c 0"), r#"["b", "1"]"#);
    assert_eq!(room.says(0, "BLMPOP 0 3 a b c RIGHT COUNT 5"), r#"["b", ["2"]]"#);
    assert_eq!(room.says(0, "BRPOP a b c 1.5"), r#"["c", "3"]"#);
    room.says(0, "ZADD z 1 a 2 b 3 c");
    assert_eq!(room.says(0, "BZPOPMAX y z 0"), r#"["z", "c", "3"]"#);
    assert_eq!(room.says(0, "BZPOPMIN z 0"), r#"["z", "a", "1"]"#);
    assert_eq!(room.says(0, "BZMPOP 0 2 y z MIN COUNT 9"), r#"["z", [["b", "2"]]]"#);
}

#[test]
fn who_waits_for_several_keys_is_served_once() {
    let mut room = Room::with(2);
    room.waits(0, "BLPOP a b a 0");
    assert_eq!(room.says(1, "RPUSH b 1"), "1");
    assert_eq!(room.says(1, "RPUSH a 2"), "1");
    assert_eq!(room.hears(0), heard(r#"["b", "1"]"#));
    assert_eq!(room.says(1, "LLEN a"), "1");
    assert_eq!(room.waiters().keys_len(), 0);
}

#[test]
fn the_time_of_a_wait_is_over_at_its_moment() {
    let mut room = Room::with(3);
    room.waits(0, "BLPOP l 0.5");
    room.waits(1, "BRPOPLPUSH l m 2");
    room.node.clock.advance_ms(499);
    assert_eq!(room.hears(0), None);
    room.node.clock.advance_ms(1);
    assert_eq!(room.hears(0), heard("nil"));
    assert_eq!(room.says(2, "RPUSH l x"), "1");
    assert_eq!(room.hears(1), heard(r#""x""#));
    assert_eq!(room.says(2, "LRANGE m 0 -1"), r#"["x"]"#);
    // A null of either protocol.
    room.says(0, "HELLO 3");
    room.waits(0, "BZPOPMIN z 1");
    room.node.clock.advance_ms(1_000);
    assert_eq!(room.hears(0), heard("nil"));
    for (text, error) in [
        ("x", "timeout is not a float or out of range"),
        ("nan", "timeout is not a float or out of range"),
        ("-1", "timeout is negative"),
        ("-inf", "timeout is negative"),
        ("inf", "timeout is out of range"),
        ("1e300", "timeout is out of range"),
    ] {
        assert_eq!(room.says(2, &format!("BLPOP l {text}")), format!("-ERR {error}"), "{text}");
        assert_eq!(room.says(2, &format!("BZMPOP {text} 1 z MIN")), format!("-ERR {error}"));
    }
}

#[test]
fn moves_run_to_the_end_of_their_chain() {
    let mut room = Room::with(5);
    room.waits(0, "BLMOVE a b LEFT RIGHT 0");
    room.waits(1, "BLMOVE b c LEFT RIGHT 0");
    room.waits(2, "BRPOPLPUSH c d 0");
    room.waits(3, "BLPOP d 0");
    assert_eq!(room.says(4, "RPUSH a x"), "1");
    for client in 0..3 {
        assert_eq!(room.hears(client), heard(r#""x""#), "{client}");
    }
    assert_eq!(room.hears(3), heard(r#"["d", "x"]"#));
    assert_eq!(room.says(4, "DBSIZE"), "0");
    // In a circle each is served once.
    room.waits(0, "BLMOVE a b LEFT RIGHT 0");
    room.waits(1, "BLMOVE b a LEFT RIGHT 0");
    assert_eq!(room.says(4, "RPUSH a x"), "1");
    assert_eq!(room.hears(0), heard(r#""x""#));
    assert_eq!(room.hears(1), heard(r#""x""#));
    assert_eq!(room.says(4, "LRANGE a 0 -1"), r#"["x"]"#);
}

#[test]
fn a_destination_of_another_kind_is_told_and_nothing_is_lost() {
    let mut room = Room::with(3);
    room.waits(0, "BLMOVE a s LEFT RIGHT 0");
    room.waits(1, "BLPOP a 0");
    room.says(2, "SET s x");
    assert_eq!(room.says(2, "RPUSH a 1"), "1");
    assert!(room.hears(0).unwrap().starts_with("-WRONGTYPE"));
    assert_eq!(room.hears(1), heard(r#"["a", "1"]"#));
}

#[test]
fn a_value_of_another_kind_wakes_nobody() {
    let mut room = Room::with(3);
    room.waits(0, "BLPOP k 0");
    room.waits(1, "BZPOPMIN k 0");
    room.says(2, "SET k x");
    room.says(2, "DEL k");
    room.says(2, "SADD k x");
    room.says(2, "DEL k");
    assert_eq!((room.hears(0), room.hears(1)), (None, None));
    room.says(2, "ZADD k 1 m");
    assert_eq!((room.hears(0), room.hears(1)), (None, heard(r#"["k", "m", "1"]"#)));
    room.says(2, "RPUSH k v");
    assert_eq!(room.hears(0), heard(r#"["k", "v"]"#));
    assert_eq!(room.says(2, "EXISTS k"), "0");
}

#[test]
fn a_transaction_is_seen_when_it_is_over_and_never_waits() {
    let mut room = Room::with(2);
    room.waits(0, "BLPOP l 0");
    for line in ["MULTI", "RPUSH l a", "DEL l", "RPUSH l b c", "LPOP l"] {
        room.says(1, line);
    }
    assert_eq!(room.hears(0), None);
    assert_eq!(room.says(1, "EXEC"), r#"[1, 1, 2, "b"]"#);
    assert_eq!(room.hears(0), heard(r#"["l", "c"]"#));
    for line in ["MULTI", "BLPOP none 0", "BLMOVE none l LEFT LEFT 0", "BZPOPMIN none 0"] {
        room.says(1, line);
    }
    assert_eq!(room.says(1, "EXEC"), "[nil, nil, nil]");
    assert!(!room.waiters().is_used());
}

#[test]
fn whatever_makes_a_list_serves() {
    let mut room = Room::with(2);
    for (prepare, line) in [
        ("RPUSH src x", "LMOVE src l LEFT LEFT"),
        ("RPUSH src x", "RPOPLPUSH src l"),
        ("RPUSH src x", "RENAME src l"),
        ("RPUSH src x", "RENAMENX src l"),
        ("RPUSH src x", "COPY src l"),
        ("RPUSH src x", "SORT src BY nosort STORE l"),
        ("SELECT 0", "LPUSH l x"),
        ("SELECT 0", "RPUSH l x"),
    ] {
        room.says(1, "FLUSHALL");
        room.says(1, prepare);
        room.waits(0, "BLPOP l 0");
        room.says(1, line);
        assert_eq!(room.hears(0), heard(r#"["l", "x"]"#), "{line}");
    }
    room.says(1, "FLUSHALL");
    room.waits(0, "BLPOP l 0");
    room.says(1, "SELECT 5");
    room.says(1, "RPUSH l x");
    assert_eq!(room.hears(0), None);
    room.says(1, "SWAPDB 0 5");
    assert_eq!(room.hears(0), heard(r#"["l", "x"]"#));
    room.waits(0, "BLPOP l 0");
    room.says(1, "RPUSH l x");
    room.says(1, "MOVE l 0");
    assert_eq!(room.hears(0), heard(r#"["l", "x"]"#));
}

#[test]
fn whatever_makes_a_sorted_set_serves() {
    let mut room = Room::with(2);
    for line in [
        "ZADD z 1 m",
        "ZINCRBY z 1 m",
        "ZRANGESTORE z src 0 -1",
        "ZUNIONSTORE z 1 src",
        "ZINTERSTORE z 1 src",
        "ZDIFFSTORE z 1 src",
        "RENAME src z",
    ] {
        room.says(1, "FLUSHALL");
        room.says(1, "ZADD src 1 m");
        room.waits(0, "BZMPOP 0 1 z MAX");
        room.says(1, line);
        assert_eq!(room.hears(0), heard(r#"["z", [["m", "1"]]]"#), "{line}");
    }
}

#[test]
fn a_wait_is_ended_from_outside() {
    let mut room = Room::with(3);
    let ids: Vec<u64> = room.clients.iter().map(|session| session.client.id.0).collect();
    room.waits(0, "BLPOP l 0");
    room.waits(1, "BLPOP l 0");
    assert_eq!(room.waiters().len(), 2);
    assert_eq!(room.says(2, &format!("CLIENT UNBLOCK {}", ids[0])), "1");
    assert_eq!(room.hears(0), heard("nil"));
    assert_eq!(room.says(2, &format!("CLIENT UNBLOCK {} ERROR", ids[1])), "1");
    assert_eq!(room.hears(1), heard("-UNBLOCKED client unblocked via CLIENT UNBLOCK"));
    assert_eq!(room.says(2, &format!("CLIENT UNBLOCK {}", ids[1])), "0");
    let statistics = room.says(2, "INFO commandstats");
    let blpop = statistics.split("cmdstat_").find(|line| line.starts_with("blpop:")).unwrap();
    assert!(blpop.starts_with("blpop:calls=2,") && blpop.contains("failed_calls=1"), "{blpop}");
    // One who has gone is forgotten, and takes nothing with it.
    room.waits(0, "BLPOP l 0");
    let engine = std::sync::Arc::clone(&room.node.engine);
    room.clients[0].end(&engine);
    assert_eq!(room.says(2, "RPUSH l x"), "1");
    assert_eq!(room.says(2, "LLEN l"), "1");
}

#[test]
fn every_command_that_may_make_a_list_or_a_sorted_set_wakes() {
    for name in [
        "lpush",
        "rpush",
        "lmove",
        "rpoplpush",
        "blmove",
        "brpoplpush",
        "zadd",
        "zincrby",
        "zrangestore",
        "zunionstore",
        "zinterstore",
        "zdiffstore",
        "rename",
        "renamenx",
        "copy",
        "move",
        "restore",
        "sort",
        "swapdb",
    ] {
        let command = TABLE.find(name.as_bytes()).unwrap_or_else(|| panic!("{name}")).command;
        assert!(
            command.flags.has(Flags::WAKES) || matches!(command.keys, Keys::All),
            "{name} can make what somebody waits for"
        );
    }
}

/// Many clients on threads of their own push and wait; every element comes out once.
#[test]
#[expect(clippy::disallowed_methods, reason = "threads are what this test is about")]
fn nothing_is_lost_between_threads() {
    let mut room = Room::with(8);
    let engine = std::sync::Arc::clone(&room.node.engine);
    let rounds = 400;
    let mut sessions = std::mem::take(&mut room.clients).into_iter();
    let (consumers, producers): (Vec<_>, Vec<_>) =
        ((&mut sessions).take(4).collect(), sessions.collect());
    let clock = std::sync::Arc::clone(&room.node.clock);
    let consumers: Vec<_> = consumers
        .into_iter()
        .map(|mut session: Session| {
            let (engine, clock) = (std::sync::Arc::clone(&engine), std::sync::Arc::clone(&clock));
            std::thread::spawn(move || {
                let mut got = Vec::new();
                for _ in 0..rounds {
                    let mut out = run(&engine, &mut session, "BLPOP a b c d 0");
                    while let Next::Wait(_) = session.next {
                        let mut bytes = Vec::new();
                        let now = crate::engine::Clock::now(&*clock);
                        session.wait_is_over(&engine, now, &mut bytes);
                        out.push_str(&show(&bytes));
                        std::thread::yield_now();
                    }
                    got.push(out.split('"').nth(3).expect("a key and an element").to_owned());
                }
                got
            })
        })
        .collect();
    let producers: Vec<_> = producers
        .into_iter()
        .enumerate()
        .map(|(number, mut session): (usize, Session)| {
            let engine = std::sync::Arc::clone(&engine);
            std::thread::spawn(move || {
                for round in 0..rounds {
                    let key = ["a", "b", "c", "d"][(number + round) % 4];
                    run(&engine, &mut session, &format!("RPUSH {key} {number}:{round}"));
                }
            })
        })
        .collect();
    producers.into_iter().for_each(|it| it.join().unwrap());
    let mut got: Vec<String> = consumers.into_iter().flat_map(|it| it.join().unwrap()).collect();
    got.sort_unstable();
    got.dedup();
    assert_eq!(got.len(), 4 * rounds);
}

#[test]
fn nothing_is_popped_for_a_client_that_is_to_be_disconnected() {
    let mut room = Room::with(3);
    room.waits(0, "BLPOP l 0");
    room.waits(1, "BLPOP l 0");
    let killed = room.clients[0].client.id.0;
    assert_eq!(room.says(2, &format!("CLIENT KILL ID {killed}")), "1");
    assert_eq!(room.says(2, "RPUSH l a b"), "2");
    assert_eq!(room.hears(1), heard(r#"["l", "a"]"#));
    assert_eq!(room.says(2, "LRANGE l 0 -1"), r#"["b"]"#);
}

#[test]
fn nothing_is_popped_for_a_client_that_has_gone() {
    let mut room = Room::with(2);
    room.waits(0, "BLMOVE l m LEFT RIGHT 0");
    let engine = std::sync::Arc::clone(&room.node.engine);
    room.clients[0].end(&engine);
    assert_eq!(room.says(1, "RPUSH l a"), "1");
    assert_eq!(room.says(1, "LRANGE l 0 -1"), r#"["a"]"#);
    assert!(!room.waiters().is_used());
}

#[test]
fn what_is_popped_goes_out_whole_though_it_is_larger_than_an_outbox() {
    let mut room = Room::with(2);
    room.clients[0].client.outbox.set_limit(1_000);
    room.waits(0, "BLPOP l 0");
    let large = "x".repeat(10_000);
    assert_eq!(room.says(1, &format!("RPUSH l {large}")), "1");
    assert_eq!(room.hears(0), heard(&format!("[\"l\", \"{large}\"]")));
    assert_eq!(room.says(0, "PING"), "PONG");
}

#[test]
fn client_list_tells_who_waits() {
    let mut room = Room::with(2);
    room.waits(0, "BLPOP l 0");
    let id = room.clients[0].client.id.0;
    let line = format!("CLIENT LIST ID {id}");
    assert!(room.says(1, &line).contains(" flags=b "));
    room.says(1, "RPUSH l a");
    assert!(room.says(1, &line).contains(" flags=N "));
}

#[test]
fn those_who_wait_count_against_the_limit_of_memory() {
    let mut room = Room::with(3);
    let buffers = |room: &Room| room.node.engine.store.memory().buffers;
    let before = buffers(&room);
    let key = "k".repeat(10_000);
    room.waits(0, &format!("BLPOP {key} 0"));
    assert!(buffers(&room) > before + 30_000);
    room.says(1, &format!("RPUSH {key} a"));
    assert_eq!(buffers(&room), before);
    // At the limit one still waits for a key, but not for a megabyte of them.
    room.says(1, "CONFIG SET maxmemory 1");
    room.waits(2, "BLPOP small 0");
    let huge = "k".repeat(1_000_000);
    let refusal = "-OOM command not allowed when used memory > 'maxmemory'.";
    assert_eq!(room.says(1, &format!("BLPOP {huge} 0")), refusal);
}
