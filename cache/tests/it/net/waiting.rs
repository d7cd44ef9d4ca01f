//! Commands that wait, messages that come unasked, and those who end others.

use super::node::{Node, request};

#[test]
fn a_client_that_waits_is_answered_when_somebody_pushes() {
    let node = Node::start();
    let (mut waiter, mut other) = (node.connect(), node.connect());
    // What comes behind the blocking command is executed after it.
    waiter.send(b"BLPOP list 0\r\nPING\r\n");
    while !node.engine.waiters.is_used() {
        assert_eq!(other.ask("PING"), "+PONG");
    }
    assert_eq!(other.ask("RPUSH list value"), ":1");
    assert_eq!(waiter.reply(), "*2");
    assert_eq!(waiter.reply(), "list");
    assert_eq!(waiter.reply(), "value");
    assert_eq!(waiter.reply(), "+PONG");
}

#[test]
fn a_wait_ends_when_its_time_is_over_and_not_before() {
    let node = Node::start();
    let mut client = node.connect();
    let began = node.engine.clock.now().monotonic_us;
    assert_eq!(client.ask("BLPOP list 0.2"), "*-1");
    let took = node.engine.clock.now().monotonic_us - began;
    assert!(took >= 200_000, "{took} µs");
    // As in Redis, though one element is missing here and not an array of them.
    assert_eq!(client.ask("BLMOVE list other LEFT RIGHT 0.01"), "*-1");
    assert_eq!(client.ask("PING"), "+PONG");
}

#[test]
fn a_client_that_hangs_up_while_it_waits_is_forgotten() {
    let node = Node::start();
    let (mut waiter, mut other) = (node.connect(), node.connect());
    waiter.send(b"BLPOP list 0\r\n");
    while !node.engine.waiters.is_used() {
        assert_eq!(other.ask("PING"), "+PONG");
    }
    drop(waiter);
    while node.engine.waiters.is_used() {
        assert_eq!(other.ask("PING"), "+PONG");
    }
    assert_eq!(other.ask("RPUSH list value"), ":1");
    assert_eq!(other.ask("LLEN list"), ":1");
}

#[test]
fn clients_end_others_and_themselves() {
    let node = Node::start();
    let (mut one, mut other) = (node.connect(), node.connect());
    let id = one.ask("CLIENT ID").trim_start_matches(':').to_owned();
    assert_eq!(other.ask(&format!("CLIENT KILL ID {id}")), ":1");
    assert_eq!(one.until_closed(), "");
    let id = other.ask("CLIENT ID").trim_start_matches(':').to_owned();
    other.send(format!("CLIENT KILL ID {id} SKIPME no\r\nPING\r\n").as_bytes());
    assert_eq!(other.until_closed(), ":1\r\n");
    node.wait_for_connections(0);
}

#[test]
fn a_pause_holds_commands_back_and_loses_none() {
    let node = Node::start();
    let (mut one, mut other) = (node.connect(), node.connect());
    assert_eq!(other.ask("CLIENT PAUSE 60000 WRITE"), "+OK");
    one.send(b"SET key value\r\nGET key\r\n");
    assert_eq!(other.ask("GET key"), "$-1");
    assert_eq!(other.ask("CLIENT UNPAUSE"), "+OK");
    assert_eq!(one.reply(), "+OK");
    assert_eq!(one.reply(), "value");
}

#[test]
fn messages_come_between_replies_and_in_order() {
    let node = Node::start();
    let (mut subscriber, mut publisher) = (node.connect(), node.connect());
    subscriber.send(&request(&[b"SUBSCRIBE", b"news"]));
    for line in ["*3", "subscribe", "news", ":1"] {
        assert_eq!(subscriber.reply(), line);
    }
    for number in 0..1000 {
        publisher.send(&request(&[b"PUBLISH", b"news", number.to_string().as_bytes()]));
    }
    for _ in 0..1000 {
        assert_eq!(publisher.reply(), ":1");
    }
    for number in 0..1000 {
        for line in ["*3", "message", "news", &number.to_string()] {
            assert_eq!(subscriber.reply(), line);
        }
    }
}

#[test]
fn a_subscriber_that_does_not_read_is_disconnected_and_the_publisher_goes_on() {
    let node = Node::start_with(|engine, _| {
        let limits = [("client-output-buffer-limit", "pubsub 1mb 0 0")];
        engine.settings.set(&limits).unwrap();
    });
    let (mut subscriber, mut publisher) = (node.connect(), node.connect());
    subscriber.send(&request(&[b"SUBSCRIBE", b"news"]));
    for line in ["*3", "subscribe", "news", ":1"] {
        assert_eq!(subscriber.reply(), line);
    }
    let message = request(&[b"PUBLISH", b"news", &vec![b'm'; 100_000]]);
    // 100 MB at most: no socket holds that.
    let is_gone = (0..1000).any(|_| {
        publisher.send(&message);
        publisher.reply() == ":0"
    });
    assert!(is_gone, "the subscriber still counts");
    node.wait_for_connections(1);
}

#[test]
fn shutdown_tells_the_program() {
    let node = Node::start();
    let (told, hears) = std::sync::mpsc::channel();
    node.engine.on_stop(Box::new(move || told.send(()).unwrap()));
    let mut client = node.connect();
    client.send(b"SHUTDOWN NOSAVE\r\n");
    assert_eq!(client.until_closed(), "");
    hears.try_recv().unwrap();
}
