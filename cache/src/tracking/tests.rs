use crate::command::testing::{TestNode, received, run};
use crate::session::Session;
use crate::store::ShardSet;
use crate::types::Database;

/// A node whose first client writes, and a second one of RESP3 that tracks.
fn tracked(options: &str) -> (TestNode, Session) {
    let mut node = TestNode::new();
    let mut reader = node.connect();
    run(&node.engine, &mut reader, "HELLO 3");
    assert_eq!(run(&node.engine, &mut reader, &format!("CLIENT TRACKING ON {options}")), "OK");
    (node, reader)
}

/// What the reader is told of `key` when `line` is carried out by another client, after it has read the key.
#[track_caller]
fn told_after(prepare: &str, read: &str, line: &str) -> String {
    let (mut node, mut reader) = tracked("");
    if !prepare.is_empty() {
        node.run(prepare);
    }
    let reply = run(&node.engine, &mut reader, read);
    assert!(!reply.starts_with('-'), "{read}: {reply}");
    let reply = node.run(line);
    assert!(!reply.starts_with('-'), "{line}: {reply}");
    received(&mut reader)
}

const K: &str = ">[\"invalidate\", [\"k\"]]";
const ALL: &str = ">[\"invalidate\", nil]";

#[test]
fn a_write_invalidates() {
    for write in ["SET k 2", "APPEND k x", "INCR k", "SETRANGE k 0 x", "GETSET k 3", "MSET a 1 k 2"]
    {
        assert_eq!(told_after("SET k 1", "GET k", write), K, "{write}");
    }
    assert_eq!(told_after("", "GET k", "SET k 1"), K, "a key that was not there");
    assert_eq!(told_after("SET k 1", "MGET a k", "SET k 2"), K);
    assert_eq!(told_after("SET k 1", "STRLEN k", "SETBIT k 1 1"), K);
}

#[test]
fn changes_of_collections_invalidate() {
    assert_eq!(told_after("RPUSH k a", "LRANGE k 0 -1", "RPUSH k b"), K);
    assert_eq!(told_after("HSET k a 1", "HGETALL k", "HDEL k a"), K);
    assert_eq!(told_after("SADD k a", "SMEMBERS k", "SADD k b"), K);
    assert_eq!(told_after("ZADD k 1 a", "ZRANGE k 0 -1", "ZINCRBY k 1 a"), K);
    assert_eq!(told_after("SADD k a", "SMEMBERS k", "SADD k a"), "", "nothing has changed");
}

#[test]
fn a_removal_invalidates() {
    for write in ["DEL k", "UNLINK k", "GETDEL k", "RENAME k other"] {
        assert_eq!(told_after("SET k 1", "GET k", write), K, "{write}");
    }
    assert_eq!(told_after("SET other 1", "GET k", "RENAME other k"), K, "a key that came to be");
    assert_eq!(told_after("SET other 1", "GET k", "COPY other k"), K);
}

#[test]
fn a_deadline_that_is_set_or_passes_invalidates() {
    for write in ["EXPIRE k 100", "PEXPIREAT k 1"] {
        assert_eq!(told_after("SET k 1", "GET k", write), K, "{write}");
    }
    assert_eq!(told_after("SET k 1 EX 100", "GET k", "PERSIST k"), K);
    // Met by a reader.
    let (mut node, mut reader) = tracked("");
    node.run("SET k 1 PX 10");
    run(&node.engine, &mut reader, "GET k");
    node.clock.advance_ms(10);
    assert_eq!(node.run("GET k"), "nil");
    assert_eq!(received(&mut reader), K);
}

#[test]
fn a_flush_and_an_exchange_of_databases_invalidate_everything() {
    let (mut node, mut reader) = tracked("");
    node.run("SET k 1");
    run(&node.engine, &mut reader, "GET k");
    let mut keys = node.engine.store.lock(ShardSet::ALL, crate::engine::Clock::now(&*node.clock));
    keys.flush(Some(Database(0)));
    node.engine.settle(&mut keys, None);
    drop(keys);
    assert_eq!(received(&mut reader), ALL);
    assert_eq!(node.engine.tracking.counts(), (0, 0, 0));
    node.run("SET k 1");
    assert_eq!(received(&mut reader), "", "it was forgotten");
    run(&node.engine, &mut reader, "GET k");
    let mut keys = node.engine.store.lock(ShardSet::ALL, crate::engine::Clock::now(&*node.clock));
    keys.swap(Database(0), Database(1));
    node.engine.settle(&mut keys, None);
    drop(keys);
    assert_eq!(received(&mut reader), ALL);
}

#[test]
fn a_key_is_told_once_until_it_is_read_again() {
    let (mut node, mut reader) = tracked("");
    run(&node.engine, &mut reader, "GET k");
    run(&node.engine, &mut reader, "GET k");
    assert_eq!(node.engine.tracking.counts(), (1, 1, 0));
    node.story("SET k 1 => OK\nSET k 2 => OK");
    assert_eq!(received(&mut reader), K);
    run(&node.engine, &mut reader, "GET k");
    node.story("SET k 3 => OK");
    assert_eq!(received(&mut reader), K);
}

#[test]
fn ones_own_change_is_told_after_its_reply_unless_noloop() {
    let (node, mut reader) = tracked("");
    run(&node.engine, &mut reader, "GET k");
    assert_eq!(run(&node.engine, &mut reader, "SET k 1"), format!("OK {K}"));
    let (node, mut reader) = tracked("NOLOOP");
    run(&node.engine, &mut reader, "GET k");
    assert_eq!(run(&node.engine, &mut reader, "SET k 1 PX 10"), "OK");
    run(&node.engine, &mut reader, "GET k");
    node.clock.advance_ms(10);
    assert_eq!(run(&node.engine, &mut reader, "EXISTS k"), format!("0 {K}"), "nobody's change");
}

#[test]
fn what_a_transaction_reads_and_changes_is_told_after_its_reply() {
    let (node, mut reader) = tracked("");
    for (line, reply) in [
        ("GET a", "nil".to_owned()),
        ("MULTI", "OK".to_owned()),
        ("SET a 1", "QUEUED".to_owned()),
        ("GET b", "QUEUED".to_owned()),
        ("EXEC", "[OK, nil] >[\"invalidate\", [\"a\"]]".to_owned()),
        ("SET b 1", "OK >[\"invalidate\", [\"b\"]]".to_owned()),
    ] {
        assert_eq!(run(&node.engine, &mut reader, line), reply, "{line}");
    }
}

#[test]
fn optin_and_optout_select_reads() {
    let (mut node, mut reader) = tracked("OPTIN");
    let engine = node.engine.clone();
    run(&engine, &mut reader, "GET {t}k");
    assert_eq!(run(&engine, &mut reader, "CLIENT CACHING YES"), "OK");
    run(&engine, &mut reader, "GET {t}a");
    run(&engine, &mut reader, "GET {t}b");
    node.story("MSET {t}k 1 {t}a 1 {t}b 1 => OK");
    assert_eq!(received(&mut reader), ">[\"invalidate\", [\"{t}a\"]]");
    // It holds for a whole transaction.
    for line in ["CLIENT CACHING YES", "MULTI", "GET {t}a", "GET {t}b", "EXEC", "GET {t}k"] {
        run(&engine, &mut reader, line);
    }
    node.story("MSET {t}k 1 {t}a 1 {t}b 1 => OK");
    assert_eq!(
        received(&mut reader),
        ">[\"invalidate\", [\"{t}a\"]] >[\"invalidate\", [\"{t}b\"]]"
    );
    assert!(
        run(&engine, &mut reader, "CLIENT CACHING NO")
            .starts_with("-ERR CLIENT CACHING NO is only")
    );
    assert!(
        run(&engine, &mut reader, "CLIENT TRACKING ON OPTOUT").starts_with("-ERR You can't switch")
    );

    let (mut node, mut reader) = tracked("OPTOUT");
    let engine = node.engine.clone();
    run(&engine, &mut reader, "CLIENT CACHING NO");
    run(&engine, &mut reader, "GET {t}a");
    run(&engine, &mut reader, "GET {t}b");
    node.story("MSET {t}a 1 {t}b 1 => OK");
    assert_eq!(received(&mut reader), ">[\"invalidate\", [\"{t}b\"]]");
}

#[test]
fn broadcast_tells_of_every_change_below_a_prefix() {
    let (mut node, mut reader) = tracked("BCAST PREFIX a: PREFIX b:");
    node.story("MSET a:1 x a:2 x b:1 x c:1 x a x => OK");
    let mut told = received(&mut reader);
    // Keys of different shards come shard by shard; within a message they are in order.
    assert_eq!(told, ">[\"invalidate\", [\"a:1\", \"a:2\"]] >[\"invalidate\", [\"b:1\"]]");
    let engine = node.engine.clone();
    assert_eq!(
        run(&engine, &mut reader, "CLIENT TRACKING ON BCAST PREFIX a:x"),
        "-ERR Prefix 'a:x' overlaps with an existing prefix 'a:'. Prefixes for a single client must not overlap."
    );
    assert_eq!(
        run(&engine, &mut reader, "CLIENT TRACKING ON BCAST PREFIX FOOBAR PREFIX FOO"),
        "-ERR Prefix 'FOOBAR' overlaps with another provided prefix 'FOO'. Prefixes for a single client must not overlap."
    );
    assert_eq!(run(&engine, &mut reader, "CLIENT TRACKING ON BCAST PREFIX c:"), "OK");
    node.run("SET c:1 y");
    told = received(&mut reader);
    assert_eq!(told, ">[\"invalidate\", [\"c:1\"]]");
    assert_eq!(
        run(&engine, &mut reader, "CLIENT TRACKINGINFO"),
        "{\"flags\": ~[\"on\", \"bcast\"], \"redirect\": 0, \"prefixes\": [\"a:\", \"b:\", \"c:\"]}"
    );
    assert_eq!(run(&engine, &mut reader, "CLIENT TRACKING OFF"), "OK");
    node.run("SET c:1 z");
    assert_eq!(received(&mut reader), "");
    assert!(!node.engine.tracking.is_used());
}

#[test]
fn broadcast_without_loops_leaves_ones_own_keys_out() {
    let (mut node, mut reader) = tracked("BCAST NOLOOP");
    let engine = node.engine.clone();
    assert_eq!(run(&engine, &mut reader, "MSET a 1 b 2"), "OK");
    node.story("MSET a 1 b 2 => OK");
    assert_eq!(received(&mut reader), ">[\"invalidate\", [\"a\", \"b\"]]");
}

#[test]
fn a_client_of_resp2_is_told_through_another_that_subscribes() {
    let mut node = TestNode::new();
    let engine = node.engine.clone();
    let mut target = node.connect();
    run(&engine, &mut target, "SUBSCRIBE __redis__:invalidate");
    node.story(
        "CLIENT TRACKING ON REDIRECT 99 => -ERR The client ID you want redirect to does not exist\n\
         CLIENT TRACKING ON REDIRECT 2 REDIRECT 2 => -ERR A client can only redirect to a single other client\n\
         CLIENT GETREDIR => -1\n\
         CLIENT TRACKING ON REDIRECT 2 => OK\n\
         CLIENT GETREDIR => 2\n\
         GET k => nil\n\
         SET k 1 => OK\n",
    );
    assert_eq!(received(&mut target), "[\"message\", \"__redis__:invalidate\", [\"k\"]]");
    assert!(node.run("CLIENT INFO").contains("flags=t "));
    // The other goes: the client itself is told so, if it can be.
    node.run("HELLO 3");
    node.run("GET k");
    target.end(&engine);
    assert_eq!(node.run("SET k 2"), "OK >[\"tracking-redir-broken\", 2]");
    node.story(
        "CLIENT TRACKINGINFO => {\"flags\": ~[\"on\", \"broken_redirect\"], \"redirect\": 2, \"prefixes\": []}\n\
         RESET => RESET\n\
         CLIENT TRACKINGINFO => [\"flags\", [\"off\"], \"redirect\", -1, \"prefixes\", []]\n",
    );
}

#[test]
fn options_that_do_not_go_together_are_refused() {
    let mut node = TestNode::new();
    node.story(
        "CLIENT TRACKING MAYBE => -ERR syntax error\n\
         CLIENT TRACKING ON NOPE => -ERR syntax error\n\
         CLIENT TRACKING ON PREFIX a => -ERR PREFIX option requires BCAST mode to be enabled\n\
         CLIENT TRACKING ON BCAST OPTIN => -ERR OPTIN and OPTOUT are not compatible with BCAST\n\
         CLIENT TRACKING ON OPTIN OPTOUT => -ERR You can't specify both OPTIN mode and OPTOUT mode\n\
         CLIENT CACHING YES => -ERR CLIENT CACHING can be called only when the client is in tracking mode with OPTIN or OPTOUT mode enabled\n\
         CLIENT TRACKING ON => OK\n\
         CLIENT CACHING YES => -ERR CLIENT CACHING YES is only valid when tracking is enabled in OPTIN mode.\n\
         CLIENT TRACKING OFF => OK\n",
    );
    node.run("CLIENT TRACKING ON BCAST");
    assert!(node.run("CLIENT TRACKING ON").starts_with("-ERR You can't switch BCAST mode"));
}

#[test]
fn the_table_is_bounded_and_what_is_forgotten_is_told() {
    let (mut node, mut reader) = tracked("");
    let engine = node.engine.clone();
    engine.tracking.set_limit(2);
    for key in ["a", "b", "c", "d"] {
        run(&engine, &mut reader, &format!("GET {key}"));
    }
    assert_eq!(engine.tracking.counts(), (2, 2, 0));
    engine.tracking.set_limit(0);
    node.story("MSET a 1 b 1 c 1 d 1 => OK");
    // Whatever was forgotten, each key was told exactly once.
    assert_eq!(engine.tracking.counts(), (0, 0, 0));
}

#[test]
fn nothing_is_left_of_clients_that_have_gone() {
    let (mut node, mut reader) = tracked("");
    let engine = node.engine.clone();
    run(&engine, &mut reader, "MGET a b c");
    assert_eq!(engine.tracking.counts(), (3, 3, 0));
    reader.end(&engine);
    assert_eq!(engine.tracking.counts(), (0, 0, 0));
    assert!(!engine.tracking.is_used());
    node.story("SET a 1 => OK");
    assert_eq!(received(&mut reader), "");
}

#[test]
fn keys_read_before_broadcast_are_not_told_twice() {
    let (mut node, mut reader) = tracked("");
    let engine = node.engine.clone();
    let mut other = node.connect();
    run(&engine, &mut other, "CLIENT TRACKING ON");
    run(&engine, &mut reader, "GET k");
    run(&engine, &mut reader, "CLIENT TRACKING OFF");
    run(&engine, &mut reader, "CLIENT TRACKING ON BCAST");
    node.run("SET k 1");
    assert_eq!(received(&mut reader), K);
}

#[test]
fn what_a_transaction_reads_after_it_was_changed_is_not_stale() {
    let (mut node, mut reader) = tracked("");
    let engine = node.engine.clone();
    for line in ["MULTI", "SET k 1", "GET k"] {
        run(&engine, &mut reader, line);
    }
    assert_eq!(run(&engine, &mut reader, "EXEC"), "[OK, \"1\"]");
    node.run("SET k 2");
    assert_eq!(received(&mut reader), K);
}

#[test]
fn readers_that_have_gone_do_not_gather() {
    let (node, mut stays) = tracked("");
    run(&node.engine, &mut stays, "GET k");
    let mut node = node;
    for _ in 0..1000 {
        let mut passing = node.connect();
        run(&node.engine, &mut passing, "HELLO 3");
        run(&node.engine, &mut passing, "CLIENT TRACKING ON");
        run(&node.engine, &mut passing, "GET k");
        passing.end(&node.engine);
    }
    let (keys, readers, _) = node.engine.tracking.counts();
    assert_eq!(keys, 1);
    assert!(readers < 32, "{readers} readers of a key, of whom one is there");
    node.run("SET k 1");
    assert_eq!(received(&mut stays), K);
    assert_eq!(node.engine.tracking.counts().1, 0);
    let table = node.engine.store.memory().buffers;
    stays.end(&node.engine);
    assert_eq!(table, 0, "what is forgotten is not charged");
}
