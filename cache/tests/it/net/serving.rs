//! What is asked is answered, whole and in order, however it arrives.

use std::net::Shutdown;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixStream;
use std::sync::Arc;

use distributed_cache::net::{BindError, Server, ServerOptions, UnixSocket};

use super::node::{Client, Node, request};

#[test]
fn ten_thousand_commands_in_one_write_are_answered_in_order() {
    let node = Node::start();
    let mut client = node.connect();
    let pipeline: Vec<u8> =
        (0..10_000).flat_map(|i| request(&[b"ECHO", i.to_string().as_bytes()])).collect();
    client.send(&pipeline);
    for i in 0..10_000 {
        assert_eq!(client.reply(), i.to_string());
    }
}

#[test]
fn a_request_in_single_bytes_is_answered() {
    let node = Node::start();
    let mut client = node.connect();
    for byte in request(&[b"SET", b"key", b"a\r\nb"]) {
        client.send(&[byte]);
    }
    assert_eq!(client.reply(), "+OK");
    assert_eq!(client.ask("GET key"), "a\r\nb");
}

#[test]
fn a_value_of_64_mib_goes_in_and_out() {
    let node = Node::start();
    let mut client = node.connect();
    let value: Vec<u8> = (0..64_u32 << 20).map(|i| (i % 251).to_le_bytes()[0]).collect();
    client.send(&request(&[b"SET", b"key", &value]));
    assert_eq!(client.reply(), "+OK");
    client.send(&request(&[b"GET", b"key"]));
    assert!(client.reply_bytes() == value, "other bytes came back");
    assert_eq!(client.ask("PING"), "+PONG");
}

#[test]
fn a_client_that_closes_its_side_gets_its_replies() {
    let node = Node::start();
    let mut client = node.connect();
    client.send(&request(&[b"ECHO", b"x"]).repeat(1000));
    client.stream.get_ref().shutdown(Shutdown::Write).unwrap();
    assert_eq!(client.until_closed(), "$1\r\nx\r\n".repeat(1000));
}

#[test]
fn a_client_may_send_all_before_it_reads_anything() {
    let node = Node::start();
    let mut client = node.connect();
    let value = vec![b'v'; 16 * 1024];
    client.send(&request(&[b"SET", b"key", &value]));
    assert_eq!(client.reply(), "+OK");
    // Some 50 MiB of replies to nearly 8 MiB of requests: more than sockets hold in either direction.
    let padding = vec![b' '; 2500];
    let ask = [request(&[b"GET", b"key"]), padding, b"\r\n".to_vec()].concat();
    client.send(&ask.repeat(3200));
    for _ in 0..3200 {
        assert!(client.reply_bytes() == value);
    }
}

#[test]
fn quit_answers_and_closes() {
    let node = Node::start();
    let mut client = node.connect();
    client.send(b"PING\r\nQUIT\r\nPING\r\n");
    assert_eq!(client.until_closed(), "+PONG\r\n+OK\r\n");
}

#[test]
fn a_killed_client_is_disconnected_even_if_it_is_idle() {
    let node = Node::start();
    let mut one = node.connect();
    assert_eq!(one.ask("PING"), "+PONG");
    let mut other = node.connect();
    assert_eq!(other.ask("PING"), "+PONG");
    let first = node.engine.clients.all().remove(0);
    first.kill();
    assert_eq!(one.until_closed(), "");
    assert_eq!(other.ask("PING"), "+PONG");
    node.wait_for_connections(1);
    assert!(node.engine.clients.get(first.id).is_none());
}

#[test]
fn a_message_reaches_a_client_that_is_idle() {
    let node = Node::start();
    let mut client = node.connect();
    assert_eq!(client.ask("PING"), "+PONG");
    node.engine.clients.all()[0].outbox.put(b"+news\r\n");
    assert_eq!(client.reply(), "+news");
}

#[test]
fn a_unix_socket_serves_those_who_may_use_it_and_is_removed() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("cache.sock");
    // A socket that a server which is gone has left behind.
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    let socket = UnixSocket { path: path.clone(), mode: Some(0o700) };
    let node = Node::start_with(|_, options| options.unix_socket = Some(socket));
    let mode = std::fs::metadata(&path).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o700);
    let mut client = Client::new(UnixStream::connect(&path).unwrap());
    assert_eq!(client.ask("PING"), "+PONG");
    drop(node);
    assert_eq!(client.until_closed(), "");
    assert!(!path.exists());
}

#[test]
fn a_path_that_is_no_socket_is_left_alone() {
    let directory = tempfile::tempdir().unwrap();
    let socket = UnixSocket { path: directory.path().to_owned(), mode: None };
    let node = Node::start();
    let options = ServerOptions { unix_socket: Some(socket), ..ServerOptions::default() };
    let error = Server::bind(options, Arc::clone(&node.engine)).unwrap_err();
    assert!(matches!(error, BindError::UnixSocket { .. }), "{error}");
    assert!(directory.path().is_dir());
}

#[test]
fn a_port_is_never_shared() {
    let node = Node::start();
    let options = ServerOptions { listen: vec![node.address()], ..ServerOptions::default() };
    let error = Server::bind(options, Arc::clone(&node.engine)).unwrap_err();
    assert!(matches!(error, BindError::AddressInUse { .. }), "{error}");
    assert!(error.to_string().contains(&node.address().port().to_string()), "{error}");
}

#[test]
fn a_stopped_server_has_closed_everything_and_its_port_is_free() {
    let node = Node::start();
    let address = node.address();
    let mut client = node.connect();
    assert_eq!(client.ask("PING"), "+PONG");
    node.server.stop().unwrap();
    assert_eq!(client.until_closed(), "");
    let options = ServerOptions { listen: vec![address], ..ServerOptions::default() };
    Server::bind(options, node.engine).unwrap();
}
