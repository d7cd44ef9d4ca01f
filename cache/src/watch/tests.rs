use crate::command::testing::{TestNode, run};
use crate::store::ShardSet;
use crate::types::Database;

#[test]
fn a_transaction_runs_its_commands_in_order_and_as_one() {
    TestNode::new().story(
        "EXEC => -ERR EXEC without MULTI\n\
         DISCARD => -ERR DISCARD without MULTI\n\
         MULTI => OK\n\
         MULTI => -ERR MULTI calls can not be nested\n\
         WATCH a => -ERR WATCH inside MULTI is not allowed\n\
         SET a 1 => QUEUED\n\
         INCR a => QUEUED\n\
         LPUSH a x => QUEUED\n\
         GET a => QUEUED\n\
         EXEC => [OK, 2, -WRONGTYPE Operation against a key holding the wrong kind of value, \"2\"]\n\
         MULTI => OK\n\
         EXEC => []\n\
         MULTI => OK\n\
         SET a 9 => QUEUED\n\
         DISCARD => OK\n\
         GET a => \"2\"\n\
         MULTI => OK\n\
         SELECT 1 => QUEUED\n\
         SET a other => QUEUED\n\
         HELLO 3 => QUEUED\n\
         HGETALL h => QUEUED\n\
         EXEC => [OK, OK, {\"server\": \"redis\", \"version\": \"7.4.0\", \"proto\": 3, \"id\": 1, \
         \"mode\": \"standalone\", \"role\": \"master\", \"modules\": []}, {}]\n\
         GET a => \"other\"\n\
         SELECT 0 => OK\n\
         GET a => \"2\"\n",
    );
}

#[test]
fn a_command_that_was_refused_breaks_the_transaction() {
    for refused in ["nope", "GET", "CLIENT nope"] {
        let mut node = TestNode::new();
        node.story("MULTI => OK\nSET a 1 => QUEUED");
        assert!(node.run(refused).starts_with("-ERR"), "{refused}");
        node.story(
            "SET a 2 => QUEUED\n\
             EXEC => -EXECABORT Transaction discarded because of previous errors.\n\
             GET a => nil\n\
             EXEC => -ERR EXEC without MULTI\n",
        );
    }
    TestNode::new().story(
        "MULTI => OK\n\
         EXEC now => -EXECABORT Transaction discarded because of: wrong number of arguments for 'exec' command\n\
         EXEC => -ERR EXEC without MULTI\n",
    );
}

#[test]
fn a_transaction_without_memory_is_refused() {
    let mut node = TestNode::new();
    node.story("MULTI => OK\nSET a 1 => QUEUED\nGET a => QUEUED");
    node.engine.store.set_limit(1);
    node.story(
        "EXEC => -EXECABORT Transaction discarded because of: OOM command not allowed when used memory > 'maxmemory'.\n\
         EXEC => -ERR EXEC without MULTI\n\
         MULTI => OK\n\
         GET a => -OOM command not allowed when used memory > 'maxmemory'.\n\
         EXEC => -EXECABORT Transaction discarded because of previous errors.\n\
         PING => PONG\n",
    );
}

#[test]
fn a_queue_counts_against_the_limit_and_gives_back_what_it_took() {
    let mut node = TestNode::new();
    let before = node.engine.store.memory().buffers;
    node.run("MULTI");
    node.call(&[b"SET", b"a", &[b'x'; 10_000]]);
    assert!(node.engine.store.memory().buffers >= before + 10_000);
    node.run("DISCARD");
    assert_eq!(node.engine.store.memory().buffers, before);
}

#[test]
fn a_watched_key_that_is_left_alone_lets_exec_run() {
    TestNode::new().story(
        "SET a 1 => OK\n\
         WATCH a b => OK\n\
         GET a => \"1\"\n\
         SET c 1 => OK\n\
         MULTI => OK\n\
         SET a 2 => QUEUED\n\
         EXEC => [OK]\n\
         GET a => \"2\"\n",
    );
}

/// Whether EXEC runs after `line` of another client, where the first has prepared with `prepare` and watches `watched`.
#[track_caller]
fn runs(prepare: &str, watched: &str, line: &str) -> bool {
    let mut node = TestNode::new();
    let engine = node.engine.clone();
    let mut other = node.connect();
    if !prepare.is_empty() {
        node.run(prepare);
    }
    node.run(&format!("WATCH {watched}"));
    let reply = run(&engine, &mut other, line);
    assert!(!reply.starts_with("-E") && !reply.starts_with("-W"), "{line}: {reply}");
    node.run("MULTI");
    node.run("PING");
    let reply = node.run("EXEC");
    assert!(!engine.watches.is_used(), "EXEC ends all watches");
    match &*reply {
        "[PONG]" => true,
        "nil" => false,
        other => panic!("{other}"),
    }
}

#[test]
fn every_change_of_a_watched_key_stops_exec() {
    for line in [
        "SET k 1",
        "SET k 2",
        "DEL k",
        "INCR k",
        "EXPIRE k 100",
        "RENAME k l",
        "GETDEL k",
        "COPY x k REPLACE",
        "PEXPIREAT k 1",
    ] {
        if line.starts_with("COPY") {
            assert!(!runs("MSET k 1 x 2", "k", line), "{line}");
        } else {
            assert!(!runs("SET k 1", "k", line), "{line}");
        }
    }
    assert!(!runs("", "k", "SET k 1"), "it came to be");
    assert!(!runs("RPUSH k a", "k", "RPUSH k b"));
    assert!(!runs("RPUSH k a", "a b k", "LPOP k"));
    for line in ["GET k", "SET l 1", "DEL l", "TTL k", "SADD s a"] {
        assert!(runs("SET k 1", "k", line), "{line}");
    }
}

#[test]
fn ones_own_change_counts() {
    TestNode::new().story(
        "WATCH k => OK\n\
         SET k 1 => OK\n\
         MULTI => OK\n\
         PING => QUEUED\n\
         EXEC => nil\n\
         MULTI => OK\n\
         PING => QUEUED\n\
         EXEC => [PONG]\n",
    );
}

#[test]
fn unwatch_discard_and_reset_end_watches() {
    let mut node = TestNode::new();
    for end in ["UNWATCH => OK", "MULTI => OK\nDISCARD => OK", "RESET => RESET"] {
        node.story(&format!("WATCH k l => OK\n{end}\nSET k 1 => OK"));
        assert!(!node.engine.watches.is_used(), "{end}");
        node.story("MULTI => OK\nPING => QUEUED\nEXEC => [PONG]");
    }
    node.run("WATCH k");
    let engine = node.engine.clone();
    node.session.end(&engine);
    assert!(!engine.watches.is_used());
}

#[test]
fn a_key_belongs_to_its_database() {
    assert!(TestNode::new().run("WATCH k").contains("OK"));
    let mut node = TestNode::new();
    let engine = node.engine.clone();
    let mut other = node.connect();
    run(&engine, &mut other, "SELECT 1");
    node.story("WATCH k => OK");
    run(&engine, &mut other, "SET k 1");
    node.story("SELECT 1 => OK\nMULTI => OK\nPING => QUEUED\nEXEC => [PONG]\nWATCH k => OK\nSELECT 0 => OK");
    run(&engine, &mut other, "SET k 2");
    node.story("MULTI => OK\nPING => QUEUED\nEXEC => nil");
}

#[test]
fn a_key_that_expires_while_it_is_watched_stops_exec() {
    TestNode::new().story(
        "SET k 1 PX 10 => OK\n\
         WATCH k => OK\n\
         wait 10\n\
         MULTI => OK\n\
         PING => QUEUED\n\
         EXEC => nil\n",
    );
}

#[test]
fn a_key_that_had_expired_when_its_watch_began_does_not() {
    TestNode::new().story(
        "SET k 1 PX 10 => OK\n\
         wait 10\n\
         WATCH k => OK\n\
         MULTI => OK\n\
         PING => QUEUED\n\
         EXEC => [PONG]\n",
    );
}

fn flush_or_swap(node: &TestNode, act: impl FnOnce(&mut crate::store::Keyspace<'_>)) {
    let mut keys = node.engine.store.lock(ShardSet::ALL, crate::engine::Clock::now(&*node.clock));
    act(&mut keys);
    node.engine.settle(&mut keys, None);
}

#[test]
fn a_flush_stops_those_who_watch_what_was_there() {
    for (exists, reply) in [(true, "nil"), (false, "[PONG]")] {
        let mut node = TestNode::new();
        if exists {
            node.run("SET k 1");
        }
        node.story("WATCH k => OK\nMULTI => OK\nPING => QUEUED");
        flush_or_swap(&node, |keys| keys.flush(None));
        assert_eq!(node.run("EXEC"), reply);
    }
}

#[test]
fn an_exchange_of_databases_stops_those_who_watch_what_is_or_was_there() {
    for (prepare, reply) in [
        ("SET k 1", "nil"),
        ("SELECT 1\nSET k 1\nSELECT 0", "nil"),
        ("SELECT 2\nSET k 1\nSELECT 0", "[PONG]"),
        ("SET l 1", "[PONG]"),
    ] {
        let mut node = TestNode::new();
        for line in prepare.lines() {
            assert_eq!(node.run(line), "OK");
        }
        node.story("WATCH k => OK\nMULTI => OK\nPING => QUEUED");
        flush_or_swap(&node, |keys| keys.swap(Database(0), Database(1)));
        assert_eq!(node.run("EXEC"), reply, "{prepare}");
    }
}

#[test]
fn blocking_commands_do_not_wait_within_a_transaction() {
    let mut node = TestNode::new();
    node.story("MULTI => OK\nBLPOP l 0 => QUEUED\nRPUSH l a => QUEUED\nBLPOP l 0 => QUEUED");
    assert_eq!(node.run("EXEC"), "[nil, 1, [\"l\", \"a\"]]");
}

#[test]
fn a_stale_key_that_an_exchange_brings_counts_as_not_there() {
    let mut node = TestNode::new();
    node.story("SELECT 1 => OK\nSET k 1 PX 10 => OK\nSELECT 0 => OK\nwait 10");
    node.story("WATCH k => OK\nMULTI => OK\nPING => QUEUED");
    flush_or_swap(&node, |keys| keys.swap(Database(0), Database(1)));
    assert_eq!(node.run("EXEC"), "[PONG]");
}

#[test]
fn what_is_watched_counts_against_the_limit_of_memory() {
    let mut node = TestNode::new();
    let key = "k".repeat(1000);
    assert_eq!(node.run(&format!("WATCH {key} {key} other")), "OK");
    let charged = node.engine.store.memory().buffers;
    assert!((2_000..3_000).contains(&charged), "{charged}");
    assert_eq!(node.run(&format!("WATCH {key}")), "OK");
    assert_eq!(node.engine.store.memory().buffers, charged);
    assert_eq!(node.run("UNWATCH"), "OK");
    assert_eq!(node.engine.store.memory().buffers, 0);
}
