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
    /// An array, a set or a push, with its type byte.
    Array(u8, Vec<Self>),
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
            Self::Array(_, elements) => f.debug_list().entries(elements).finish(),
            Self::Map(elements) => f.debug_set().entries(elements).finish(),
        }
    }
}

impl Value {
    /// With the numbers that Redis writes otherwise from 7.2 on as few digits as can be, see [`shortened`]. `scores` if there are
    /// scores of sorted sets among them.
    pub(crate) fn plain(&self, scores: bool) -> Self {
        let plain = |elements: &[Self]| elements.iter().map(|it| it.plain(scores)).collect();
        match self {
            Self::Line(line) => match line.strip_prefix(',').and_then(|it| shortened(it, scores)) {
                Some(number) => Self::Line(format!(",{number}")),
                None => self.clone(),
            },
            Self::Bulk(kind, bytes) => {
                let number = std::str::from_utf8(bytes).ok().and_then(|it| shortened(it, scores));
                number.map_or(self.clone(), |number| Self::Bulk(*kind, number.into_bytes()))
            }
            Self::Array(kind, elements) => Self::Array(*kind, plain(elements)),
            Self::Map(elements) => Self::Map(plain(elements)),
        }
    }

    pub(crate) fn as_integer(&self) -> Option<i64> {
        if let Self::Line(line) = self { line.strip_prefix(':')?.parse().ok() } else { None }
    }

    pub(crate) fn as_array(&self) -> Option<&[Self]> {
        match self {
            Self::Array(_, elements) | Self::Map(elements) => Some(elements),
            Self::Line(_) | Self::Bulk(..) => None,
        }
    }

    /// Without one text, wherever it is.
    pub(crate) fn without(&self, text: &str) -> Self {
        let is_it = |it: &Self| matches!(it, Self::Bulk(_, bytes) if bytes == text.as_bytes());
        let rest = |elements: &[Self]| {
            elements.iter().filter(|it| !is_it(it)).map(|it| it.without(text)).collect()
        };
        match self {
            Self::Array(kind, elements) => Self::Array(*kind, rest(elements)),
            Self::Map(elements) => Self::Map(rest(elements)),
            _ => self.clone(),
        }
    }

    /// Whether both are collections of one type, whatever is in them.
    pub(crate) fn is_like(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Array(kind, _), Self::Array(its, _)) => kind == its,
            (Self::Map(_), Self::Map(_)) => true,
            _ => false,
        }
    }
}

/// A number that Redis 7.0 writes with 17 digits, and 7.2 with as few as read back the same: one with a fraction or an exponent,
/// and, if it is a score, a whole one of so many digits. None if `text` is anything else.
fn shortened(text: &str, is_score: bool) -> Option<String> {
    let is_long = text.len() >= 17 && (is_score || text.contains('.'));
    let is_number = text.bytes().all(|byte| byte.is_ascii_digit() || b"+-.e".contains(&byte));
    let differs = is_number && (is_long || text.contains("e+") || text.contains("e-"));
    let number: f64 = text.parse().ok().filter(|_| differs)?;
    Some(number.to_string())
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
            kind @ (b'*' | b'~' | b'>') => match length() {
                None => Value::Line(line),
                Some(length) => Value::Array(kind, (0..length).map(|_| self.receive()).collect()),
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
                // How often it looks whether a wait is over; ten times a second if not told otherwise.
                "--hz",
                "500",
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
