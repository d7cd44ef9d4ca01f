//! What a client may not do, and that it costs nobody else anything.

use std::io::Write as _;
use std::time::Duration;

use super::node::{Node, request};

#[test]
fn hostile_lengths_are_refused_in_redis_words() {
    let node = Node::start();
    let cases = [
        ("*3000000000\r\n", "-ERR Protocol error: invalid multibulk length\r\n"),
        ("*-9999999999999999999\r\n", "-ERR Protocol error: invalid multibulk length\r\n"),
        ("*1\r\n$-10\r\n", "-ERR Protocol error: invalid bulk length\r\n"),
        ("*1\r\n$2000000000\r\n", "-ERR Protocol error: invalid bulk length\r\n"),
        ("*1\r\n$9223372036854775807\r\n", "-ERR Protocol error: invalid bulk length\r\n"),
        ("*1\r\nfoo\r\n", "-ERR Protocol error: expected '$', got 'f'\r\n"),
        ("set \"a\r\n", "-ERR Protocol error: unbalanced quotes in request\r\n"),
        ("PING\r\n*x\r\nPING\r\n", "+PONG\r\n-ERR Protocol error: invalid multibulk length\r\n"),
    ];
    for (request, reply) in cases {
        let mut client = node.connect();
        client.send(request.as_bytes());
        assert_eq!(client.until_closed(), reply, "{request:?}");
    }
}

#[test]
fn a_declared_length_takes_no_memory() {
    let node = Node::start();
    let mut clients: Vec<_> = (0..100).map(|_| node.connect()).collect();
    for client in &mut clients {
        client.send(b"PING\r\n*1048576\r\n$536870912\r\nabc");
        assert_eq!(client.reply(), "+PONG");
    }
    let buffers: usize = node.engine.clients.all().iter().map(|client| client.input_bytes()).sum();
    assert!(buffers < 100 * 100, "{buffers} bytes");
}

#[test]
fn a_line_without_end_is_refused_and_its_client_can_read_why() {
    let node = Node::start();
    let mut client = node.connect();
    // Ends with an error of the socket as soon as the server does not listen any more.
    for _ in 0..1000 {
        if client.stream.get_mut().write_all(&[b'x'; 1024]).is_err() {
            break;
        }
    }
    let reply = client.until_closed();
    assert!(
        reply.is_empty() || reply == "-ERR Protocol error: too big inline request\r\n",
        "{reply}"
    );
    let mut other = node.connect();
    other.send(&[b'x'; 64 * 1024 + 1]);
    assert_eq!(other.until_closed(), "-ERR Protocol error: too big inline request\r\n");
}

fn locked_node() -> Node {
    Node::start_with(|engine, options| {
        engine.access.set_default_password(b"secret");
        options.limits.authentication = Duration::from_millis(300);
    })
}

#[test]
fn who_does_not_authenticate_in_time_is_disconnected() {
    let node = locked_node();
    let mut silent = node.connect();
    let mut talkative = node.connect();
    let mut known = node.connect();
    assert!(known.ask("PING").starts_with("-NOAUTH"));
    assert_eq!(known.ask("AUTH secret"), "+OK");
    talkative.send(b"*1\r\n$4\r\nPI");
    assert_eq!(silent.until_closed(), "");
    assert_eq!(talkative.until_closed(), "");
    assert_eq!(known.ask("PING"), "+PONG");
}

#[test]
fn who_has_not_authenticated_may_send_little() {
    let node = locked_node();
    let cases: [(&[u8], &str); 3] = [
        (b"*100\r\n", "-ERR Protocol error: unauthenticated multibulk length\r\n"),
        (b"*1\r\n$65536\r\n", "-ERR Protocol error: unauthenticated bulk length\r\n"),
        (&[b'x'; 4097], "-ERR Protocol error: too much input before authentication\r\n"),
    ];
    for (bytes, reply) in cases {
        let mut client = node.connect();
        client.send(bytes);
        assert_eq!(client.until_closed(), reply);
    }
}

#[test]
fn a_slow_reader_is_disconnected_while_another_goes_on() {
    let node = Node::start_with(|engine, _| {
        let limits = [("client-output-buffer-limit", "normal 1mb 0 0")];
        engine.settings.set(&limits).unwrap();
    });
    let mut other = node.connect();
    other.send(&request(&[b"SET", b"key", &vec![b'v'; 100_000]]));
    assert_eq!(other.reply(), "+OK");
    let mut slow = node.connect();
    // It asks for 100 MB, which no socket holds, and reads nothing.
    let _ = slow.stream.get_mut().write_all(&request(&[b"GET", b"key"]).repeat(1000));
    node.wait_for_connections(1);
    assert_eq!(other.ask("PING"), "+PONG");
    assert!(slow.until_closed().len() < 100_000_000);
}

#[test]
fn a_monitor_that_does_not_read_is_disconnected_and_costs_nobody_else_anything() {
    let node = Node::start();
    let (mut slow, mut other) = (node.connect(), node.connect());
    assert_eq!(other.ask("CONFIG SET client-output-buffer-limit \"pubsub 1mb 0 0\""), "+OK");
    assert_eq!(slow.ask("MONITOR"), "+OK");
    let value = "v".repeat(100_000);
    let set = request(&[b"SET", b"a", value.as_bytes()]);
    while node.engine.monitors.is_used() {
        other.send(&set);
        assert_eq!(other.reply(), "+OK");
    }
    node.wait_for_connections(1);
    drop(slow);
}

#[test]
fn an_idle_client_is_disconnected_if_the_setting_says_so() {
    let node = Node::start_with(|engine, _| {
        engine.settings.set(&[("timeout", "1")]).unwrap();
    });
    let mut client = node.connect();
    assert_eq!(client.ask("PING"), "+PONG");
    assert_eq!(client.until_closed(), "");
}

#[test]
fn who_is_too_many_is_told_so() {
    let node = Node::start_with(|engine, _| {
        engine.settings.set(&[("maxclients", "2")]).unwrap();
    });
    let (mut one, mut two) = (node.connect(), node.connect());
    assert_eq!(one.ask("PING"), "+PONG");
    assert_eq!(two.ask("PING"), "+PONG");
    let mut three = node.connect();
    assert_eq!(three.until_closed(), "-ERR max number of clients reached\r\n");
    drop(one);
    // The place is free as soon as the server has seen the end.
    let is_let_in = (0..10_000).any(|_| {
        let mut four = node.connect();
        let asked = four.stream.get_mut().write_all(b"PING\r\nQUIT\r\n");
        asked.is_ok() && four.until_closed().starts_with("+PONG")
    });
    assert!(is_let_in);
    assert_eq!(two.ask("PING"), "+PONG");
}

#[test]
fn two_thousand_clients_are_served_at_once() {
    serve_at_once(2000);
}

/// Needs 20,000 open files.
#[test]
#[ignore = "takes many descriptors"]
fn ten_thousand_clients_are_served_at_once() {
    serve_at_once(9_900);
}

fn serve_at_once(count: usize) {
    let node = Node::start();
    let mut clients: Vec<_> = (0..count).map(|_| node.connect()).collect();
    for (i, client) in clients.iter_mut().enumerate() {
        client.send(&request(&[b"SET", format!("key{i}").as_bytes(), i.to_string().as_bytes()]));
    }
    for client in &mut clients {
        assert_eq!(client.reply(), "+OK");
    }
    for (i, client) in clients.iter_mut().enumerate() {
        assert_eq!(client.ask(&format!("GET key{i}")), i.to_string());
    }
    assert_eq!(node.engine.clients.len(), count);
    drop(clients);
    node.wait_for_connections(0);
    // Whoever has just looked may have gone by now too.
    assert!(node.engine.clients.len() <= 1);
}
