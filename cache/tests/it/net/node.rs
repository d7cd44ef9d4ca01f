//! A node to talk to, and a client that talks.

use std::io::{BufRead as _, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use distributed_cache::engine::{Engine, EngineOptions};
use distributed_cache::net::clock::SystemClock;
use distributed_cache::net::{RunningServer, Server, ServerOptions};
use distributed_cache::store::StoreOptions;

/// How long a client waits for a reply before the test fails.
const PATIENCE: Duration = Duration::from_secs(60);

/// A node that serves on a free port.
pub(super) struct Node {
    pub(super) engine: Arc<Engine>,
    pub(super) server: RunningServer,
}

impl Node {
    pub(super) fn start() -> Self {
        Self::start_with(|_, _| {})
    }

    /// A node that `change` has changed before it serves.
    pub(super) fn start_with(change: impl FnOnce(&Engine, &mut ServerOptions)) -> Self {
        let options = EngineOptions { store: StoreOptions::default(), cluster: false, seed: 1 };
        let clock = Arc::new(SystemClock::new());
        let engine = Arc::new(Engine::new(options, clock.clone()));
        let mut options = ServerOptions {
            listen: vec![SocketAddr::from((Ipv4Addr::LOCALHOST, 0))],
            threads: Some(2),
            clock: Some(clock),
            ..ServerOptions::default()
        };
        change(&engine, &mut options);
        let server = Server::bind(options, Arc::clone(&engine)).unwrap().start().unwrap();
        Self { engine, server }
    }

    pub(super) fn address(&self) -> SocketAddr {
        self.server.local_addr().unwrap()
    }

    pub(super) fn connect(&self) -> Client<TcpStream> {
        Client::new(connect(self.address()))
    }

    /// Waits until there are `count` connections. Each look takes a round trip, so that it does not spin.
    pub(super) fn wait_for_connections(&self, count: usize) {
        let mut other = self.connect();
        for _ in 0..1_000_000 {
            if self.server.connections() == count + 1 {
                return;
            }
            assert_eq!(other.ask("PING"), "+PONG");
        }
        panic!("{} connections are left", self.server.connections() - 1);
    }
}

#[expect(clippy::disallowed_methods, reason = "a client of the server under test")]
pub(super) fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.set_nodelay(true).unwrap();
    stream
}

/// A client, over whatever carries bytes.
pub(super) struct Client<S: Read + Write> {
    pub(super) stream: BufReader<S>,
}

impl<S: Read + Write> Client<S> {
    pub(super) fn new(stream: S) -> Self {
        Self { stream: BufReader::new(stream) }
    }

    pub(super) fn send(&mut self, bytes: &[u8]) {
        self.stream.get_mut().write_all(bytes).unwrap();
        self.stream.get_mut().flush().unwrap();
    }

    /// The next reply: its first line, or the bytes of a bulk string.
    pub(super) fn reply(&mut self) -> String {
        String::from_utf8(self.reply_bytes()).unwrap()
    }

    pub(super) fn reply_bytes(&mut self) -> Vec<u8> {
        let mut line = Vec::new();
        self.stream.read_until(b'\n', &mut line).unwrap();
        assert!(line.ends_with(b"\r\n"), "the connection ended within {}", line.escape_ascii());
        line.truncate(line.len() - 2);
        let Some(length) = line.strip_prefix(b"$").filter(|length| *length != b"-1") else {
            return line;
        };
        let length: usize = std::str::from_utf8(length).unwrap().parse().unwrap();
        let mut bytes = vec![0; length + 2];
        self.stream.read_exact(&mut bytes).unwrap();
        bytes.truncate(length);
        bytes
    }

    pub(super) fn ask(&mut self, line: &str) -> String {
        self.send(format!("{line}\r\n").as_bytes());
        self.reply()
    }

    /// Everything until the server closes the connection, in whatever way.
    pub(super) fn until_closed(&mut self) -> String {
        let mut rest = Vec::new();
        match self.stream.read_to_end(&mut rest) {
            Ok(_) => {}
            Err(error) => {
                let kind = error.kind();
                assert_eq!(kind, std::io::ErrorKind::ConnectionReset, "still open: {error}");
            }
        }
        String::from_utf8_lossy(&rest).into_owned()
    }
}

/// A request as an array.
pub(super) fn request(arguments: &[&[u8]]) -> Vec<u8> {
    let mut bytes = format!("*{}\r\n", arguments.len()).into_bytes();
    for argument in arguments {
        bytes.extend(format!("${}\r\n", argument.len()).into_bytes());
        bytes.extend_from_slice(argument);
        bytes.extend(b"\r\n");
    }
    bytes
}
