use crate::command::testing::{TestNode, received, run};
use crate::pubsub::Classes;

#[test]
fn all_classes_are_all_but_misses_and_new_keys() {
    let all = Classes::parse("A");
    for letter in b"g$lshzxetd" {
        assert!(all.has(Classes::of(*letter)), "{letter}");
    }
    for letter in b"KEmn" {
        assert!(!all.has(Classes::of(*letter)), "{letter}");
    }
}

#[test]
fn subscribing_is_confirmed_name_by_name() {
    let mut node = TestNode::new();
    node.story(
        "SUBSCRIBE a b a => [\"subscribe\", \"a\", 1] [\"subscribe\", \"b\", 2] [\"subscribe\", \"a\", 2]\n\
         PSUBSCRIBE p* => [\"psubscribe\", \"p*\", 3]\n\
         SSUBSCRIBE s => [\"ssubscribe\", \"s\", 1]\n\
         UNSUBSCRIBE nope => [\"unsubscribe\", \"nope\", 3]\n\
         UNSUBSCRIBE => [\"unsubscribe\", \"a\", 2] [\"unsubscribe\", \"b\", 1]\n\
         UNSUBSCRIBE => [\"unsubscribe\", nil, 1]\n\
         PUNSUBSCRIBE => [\"punsubscribe\", \"p*\", 0]\n\
         PUNSUBSCRIBE => [\"punsubscribe\", nil, 0]\n\
         SUNSUBSCRIBE => [\"sunsubscribe\", \"s\", 0]\n\
         SUNSUBSCRIBE => [\"sunsubscribe\", nil, 0]\n",
    );
    assert_eq!(node.engine.channels.counts(), (0, 0, 0));
}

#[test]
fn messages_reach_channels_patterns_and_shards_in_either_protocol() {
    let mut node = TestNode::new();
    let engine = node.engine.clone();
    let (mut old, mut new) = (node.connect(), node.connect());
    run(&engine, &mut new, "HELLO 3");
    run(&engine, &mut old, "SUBSCRIBE news");
    run(&engine, &mut old, "PSUBSCRIBE n* *s");
    assert_eq!(run(&engine, &mut new, "SUBSCRIBE news"), ">[\"subscribe\", \"news\", 1]");
    run(&engine, &mut new, "SSUBSCRIBE news");
    node.story("PUBLISH news hi => 4\nSPUBLISH news shard => 1\nPUBLISH other x => 0");
    assert_eq!(
        received(&mut old),
        "[\"message\", \"news\", \"hi\"] [\"pmessage\", \"*s\", \"news\", \"hi\"] \
         [\"pmessage\", \"n*\", \"news\", \"hi\"]"
    );
    assert_eq!(
        received(&mut new),
        ">[\"message\", \"news\", \"hi\"] >[\"smessage\", \"news\", \"shard\"]"
    );
    node.story(
        "PUBSUB CHANNELS => [\"news\"]\n\
         PUBSUB CHANNELS x* => []\n\
         PUBSUB NUMSUB news nope => [\"news\", 2, \"nope\", 0]\n\
         PUBSUB NUMSUB => []\n\
         PUBSUB NUMPAT => 2\n\
         PUBSUB SHARDCHANNELS => [\"news\"]\n\
         PUBSUB SHARDNUMSUB news => [\"news\", 1]\n\
         PUBSUB CHANNELS a b => -ERR unknown subcommand or wrong number of arguments for 'CHANNELS'. Try PUBSUB HELP.\n",
    );
    old.end(&engine);
    new.end(&engine);
    node.story("PUBLISH news gone => 0\nPUBSUB NUMPAT => 0");
}

#[test]
fn ones_own_message_comes_after_the_reply_and_after_exec() {
    let mut node = TestNode::new();
    node.run("HELLO 3");
    node.story(
        "SUBSCRIBE c => >[\"subscribe\", \"c\", 1]\n\
         PUBLISH c x => 1 >[\"message\", \"c\", \"x\"]\n\
         MULTI => OK\n\
         PUBLISH c y => QUEUED\n\
         PING => QUEUED\n\
         EXEC => [1, PONG] >[\"message\", \"c\", \"y\"]\n",
    );
}

#[test]
fn subscribers_who_want_no_replies_get_their_messages() {
    let mut node = TestNode::new();
    let engine = node.engine.clone();
    let mut reader = node.connect();
    run(&engine, &mut reader, "CLIENT REPLY OFF");
    assert_eq!(run(&engine, &mut reader, "SUBSCRIBE c"), "[\"subscribe\", \"c\", 1]");
    node.run("PUBLISH c x");
    assert_eq!(received(&mut reader), "[\"message\", \"c\", \"x\"]");
}

/// A node with a subscriber to all keyspace notifications of these classes.
fn listening(classes: &str) -> (TestNode, crate::session::Session) {
    let mut node = TestNode::new();
    node.engine.channels.set_events(classes);
    node.engine.review_observation();
    let mut listener = node.connect();
    run(&node.engine, &mut listener, "PSUBSCRIBE *");
    (node, listener)
}

#[test]
fn events_are_told_by_key_and_by_name_if_their_class_is_wanted() {
    let (mut node, mut listener) = listening("KE$");
    node.story("SET k v => OK\nDEL k => 1");
    assert_eq!(
        received(&mut listener),
        "[\"pmessage\", \"*\", \"__keyspace@0__:k\", \"set\"] \
         [\"pmessage\", \"*\", \"__keyevent@0__:set\", \"k\"]"
    );
    node.engine.channels.set_events("Eg");
    node.story("SELECT 2 => OK\nSET k v => OK\nDEL k => 1");
    assert_eq!(received(&mut listener), "[\"pmessage\", \"*\", \"__keyevent@2__:del\", \"k\"]");
    node.engine.channels.set_events("g$");
    node.story("SET k v => OK");
    assert_eq!(received(&mut listener), "", "neither K nor E");
}

#[test]
fn what_the_store_does_on_its_own_is_told_too() {
    let (mut node, mut listener) = listening("Exnm");
    node.story("SET k v PX 10 => OK");
    assert_eq!(received(&mut listener), "[\"pmessage\", \"*\", \"__keyevent@0__:new\", \"k\"]");
    node.story("wait 10\nGET k => nil");
    let told = received(&mut listener);
    assert!(told.contains("__keyevent@0__:expired\", \"k\""), "{told}");
    assert!(told.contains("__keyevent@0__:keymiss\", \"k\""), "{told}");
}

#[test]
fn that_a_key_is_new_is_told_once_and_before_what_made_it() {
    let (mut node, mut listener) = listening("Enl");
    node.story("RPUSH k a => 1\nRPUSH k b => 2");
    assert_eq!(
        received(&mut listener),
        "[\"pmessage\", \"*\", \"__keyevent@0__:new\", \"k\"] \
         [\"pmessage\", \"*\", \"__keyevent@0__:rpush\", \"k\"] \
         [\"pmessage\", \"*\", \"__keyevent@0__:rpush\", \"k\"]"
    );
}
