//! The two servers, and a connection to one of them.

#![expect(clippy::disallowed_methods, reason = "a real peer, over real sockets, in real time")]

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use distributed_cache::engine::{Engine, EngineOptions};
use distributed_cache::net::clock::SystemClock;
use distributed_cache::net::{RunningServer, Server, ServerOptions};
use distributed_cache::store::StoreOptions;

use super::grammar::Call;

/// A reply, taken apart as far as comparing needs it.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Value {
    /// Anything on one line, its type byte included.
    Line(String),
    /// Bytes, with their type byte.
    Bulk(u8, Vec<u8>),
    /// An array, a set or a push.
    Array(Vec<Self>),
    /// A map: names and values in turn.
    Map(Vec<Self>),
}

impl std::fmt::Debug for Value {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Line(line) => f.write_str(line),
            Self::Bulk(_, bytes) => {
                write!(f, "{:?}", String::from_utf8_lossy(&bytes[..bytes.len().min(60)]))
            }
            Self::Array(elements) => f.debug_list().entries(elements).finish(),
            Self::Map(elements) => f.debug_set().entries(elements).finish(),
        }
    }
}

impl Value {
    /// With a number of 17 digits as short as it can be, which is how Redis writes it from 7.2 on.
    pub(crate) fn plain(&self) -> Self {
        let Self::Bulk(kind, bytes) = self else { return self.clone() };
        let number = std::str::from_utf8(bytes).ok().filter(|text| text.len() >= 17);
        match number.and_then(|text| text.parse::<f64>().ok()) {
            Some(number) => Self::Bulk(*kind, number.to_string().into_bytes()),
            None => self.clone(),
        }
    }

    pub(crate) fn as_integer(&self) -> Option<i64> {
        if let Self::Line(line) = self { line.strip_prefix(':')?.parse().ok() } else { None }
    }

    pub(crate) fn as_array(&self) -> Option<&[Self]> {
        match self {
            Self::Array(elements) | Self::Map(elements) => Some(elements),
            Self::Line(_) | Self::Bulk(..) => None,
        }
    }
}

/// A connection to a server.
pub(crate) struct Wire(BufReader<TcpStream>);

impl Wire {
    fn to(port: u16) -> Self {
        let stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        stream.set_nodelay(true).unwrap();
        Self(BufReader::new(stream))
    }

    pub(crate) fn send(&mut self, calls: &[Call]) {
        let mut bytes = Vec::new();
        for call in calls {
            bytes.extend_from_slice(format!("*{}\r\n", call.len()).as_bytes());
            for argument in call {
                bytes.extend_from_slice(format!("${}\r\n", argument.len()).as_bytes());
                bytes.extend_from_slice(argument);
                bytes.extend_from_slice(b"\r\n");
            }
        }
        self.0.get_mut().write_all(&bytes).unwrap();
    }

    pub(crate) fn receive(&mut self) -> Value {
        let mut line = Vec::new();
        self.0.read_until(b'\n', &mut line).unwrap();
        assert!(line.ends_with(b"\r\n"), "the server closed the connection");
        let line = String::from_utf8_lossy(&line[..line.len() - 2]).into_owned();
        let length = || usize::try_from(line[1..].parse::<i64>().unwrap()).ok();
        match line.as_bytes()[0] {
            kind @ (b'$' | b'=') => match length() {
                None => Value::Line(line),
                Some(length) => {
                    let mut bytes = vec![0; length + 2];
                    self.0.read_exact(&mut bytes).unwrap();
                    bytes.truncate(length);
                    Value::Bulk(kind, bytes)
                }
            },
            b'*' | b'~' | b'>' => match length() {
                None => Value::Line(line),
                Some(length) => Value::Array((0..length).map(|_| self.receive()).collect()),
            },
            b'%' => Value::Map((0..2 * length().unwrap()).map(|_| self.receive()).collect()),
            _ => Value::Line(line),
        }
    }
}

/// Debian's `redis-server`, on a free port, without persistence.
pub(crate) struct Redis {
    child: Child,
    port: u16,
}

impl Redis {
    /// None, said aloud, if it is not installed; a failure then if `LATTICE_REQUIRE_TOOLS` is 1.
    pub(crate) fn start() -> Option<Self> {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let child = Command::new("redis-server")
            .args([
                "--port",
                &port.to_string(),
                "--bind",
                "127.0.0.1",
                "--save",
                "",
                "--appendonly",
                "no",
            ])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        let child = match child {
            Ok(child) => child,
            Err(error) => {
                let required =
                    std::env::var("LATTICE_REQUIRE_TOOLS").is_ok_and(|value| value == "1");
                assert!(!required, "redis-server is needed (Debian: redis-server): {error}");
                eprintln!("skipped: redis-server cannot be started: {error}");
                return None;
            }
        };
        let deadline = Instant::now() + Duration::from_secs(20);
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            assert!(Instant::now() < deadline, "redis-server does not listen");
            std::thread::yield_now();
        }
        Some(Self { child, port })
    }

    pub(crate) fn connect(&self) -> Wire {
        Wire::to(self.port)
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        let _gone = self.child.kill();
        let _status = self.child.wait();
    }
}

/// Our server, in this process.
pub(crate) struct Ours {
    server: RunningServer,
}

impl Ours {
    pub(crate) fn start() -> Self {
        let clock = Arc::new(SystemClock::new());
        let options = EngineOptions { store: StoreOptions::default(), cluster: false, seed: 1 };
        let engine = Arc::new(Engine::new(options, clock.clone()));
        let listen = vec![([127, 0, 0, 1], 0).into()];
        let options = ServerOptions { listen, clock: Some(clock), ..ServerOptions::default() };
        Self { server: Server::bind(options, engine).unwrap().start().unwrap() }
    }

    pub(crate) fn connect(&self) -> Wire {
        Wire::to(self.server.local_addr().unwrap().port())
    }
}
