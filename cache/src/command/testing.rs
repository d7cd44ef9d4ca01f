//! A node in a test: commands go in as text, replies come out as text, and time stands still until the test moves it.
//!
//! ```text
//! SET a 1       => OK              a simple string as it is
//! GET a         => "1"             bytes in quotes, escaped as Rust does
//! INCR a        => 2               an integer as it is
//! GET b         => nil
//! MGET a b      => ["2", nil]      HELLO 3 gives {…} for maps, ~[…] for sets, >[…] for pushes, ,1.5 for doubles, #t
//! LPUSH a x     => -WRONGTYPE Operation against a key holding the wrong kind of value
//! wait 1500                        lets milliseconds pass
//! # a remark
//! ```

use std::fmt::Write as _;
use std::sync::{Arc, Mutex};

use crate::clients::{Origin, Outbox};
use crate::engine::{Clock, Engine, EngineOptions};
use crate::session::Session;
use crate::store::StoreOptions;
use crate::types::{Now, UnixMillis};

/// When every test begins: a moment in 2023, in milliseconds.
pub(crate) const START_MS: u64 = 1_700_000_000_000;

/// A clock that a test moves.
#[derive(Debug)]
pub(crate) struct TestClock(Mutex<Now>);

impl TestClock {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self(Mutex::new(Now { unix: UnixMillis(START_MS), monotonic_us: 1_000_000 })))
    }

    pub(crate) fn advance_ms(&self, milliseconds: u64) {
        let mut now = self.0.lock().unwrap();
        now.unix.0 += milliseconds;
        now.monotonic_us += milliseconds * 1_000;
    }
}

impl Clock for TestClock {
    fn now(&self) -> Now {
        *self.0.lock().unwrap()
    }

    fn wall_us(&self) -> u64 {
        self.now().unix.0 * 1_000
    }
}

/// An engine with one client.
#[derive(Debug)]
pub(crate) struct TestNode {
    pub(crate) engine: Arc<Engine>,
    pub(crate) clock: Arc<TestClock>,
    pub(crate) session: Session,
}

impl TestNode {
    pub(crate) fn new() -> Self {
        Self::with(StoreOptions::default())
    }

    pub(crate) fn with(store: StoreOptions) -> Self {
        let clock = TestClock::new();
        let options = EngineOptions { store, cluster: false, seed: 1 };
        let engine = Arc::new(Engine::new(options, clock.clone()));
        Self { session: session(&engine), engine, clock }
    }

    /// One more client of the same engine.
    pub(crate) fn connect(&mut self) -> Session {
        session(&self.engine)
    }

    /// Carries out one command of the first client; the reply as it goes over the wire.
    pub(crate) fn call(&mut self, arguments: &[&[u8]]) -> Vec<u8> {
        call(&self.engine, &mut self.session, arguments)
    }

    /// Carries out a line of the first client; the reply as text.
    pub(crate) fn run(&mut self, line: &str) -> String {
        run(&self.engine, &mut self.session, line)
    }

    /// Runs a story: see the head of the module.
    #[track_caller]
    pub(crate) fn story(&mut self, story: &str) {
        for line in story.lines().map(str::trim) {
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            if let Some(milliseconds) = line.strip_prefix("wait ") {
                self.clock.advance_ms(milliseconds.parse().unwrap());
                continue;
            }
            let (command, expected) =
                line.split_once("=>").unwrap_or_else(|| panic!("no => in: {line}"));
            assert_eq!(self.run(command), expected.trim(), "reply to: {command}");
        }
    }
}

/// Runs a story on a new node.
#[track_caller]
pub(crate) fn story(story: &str) {
    TestNode::new().story(story);
}

fn session(engine: &Engine) -> Session {
    let origin = Origin { address: "127.0.0.1:1000".to_owned(), ..Origin::default() };
    let client = engine.clients.connect(origin, engine.clock.now(), Outbox::default());
    Session::new(engine, client, engine.totals.tally())
}

/// Carries out one command; the reply as it goes over the wire.
pub(crate) fn call(engine: &Engine, session: &mut Session, arguments: &[&[u8]]) -> Vec<u8> {
    let mut out = Vec::new();
    session.execute(engine, arguments, engine.clock.now(), &mut out);
    out
}

/// Carries out a line; the reply as text.
pub(crate) fn run(engine: &Engine, session: &mut Session, line: &str) -> String {
    let words = words(line);
    let arguments: Vec<&[u8]> = words.iter().map(Vec::as_slice).collect();
    show(&call(engine, session, &arguments))
}

/// What others have sent to a client since it was last asked; as text.
pub(crate) fn received(session: &mut Session) -> String {
    let mut out = Vec::new();
    session.outbox().drain_into(&mut out);
    show(&out)
}

/// The words of a line: quotes hold words with spaces, with `\xHH`, `\n`, `\r`, `\t`, `\\` and `\"` inside.
pub(crate) fn words(line: &str) -> Vec<Vec<u8>> {
    let mut words = Vec::new();
    let mut bytes = line.trim().bytes().peekable();
    while let Some(byte) = bytes.next() {
        if byte == b' ' {
            continue;
        }
        let mut word = Vec::new();
        if byte == b'"' {
            while let Some(byte) = bytes.next().filter(|byte| *byte != b'"') {
                word.push(match byte {
                    b'\\' => match bytes.next().expect("something after a backslash") {
                        b'n' => b'\n',
                        b'r' => b'\r',
                        b't' => b'\t',
                        b'x' => {
                            let digits = [bytes.next().unwrap(), bytes.next().unwrap()];
                            let digits = std::str::from_utf8(&digits).unwrap();
                            u8::from_str_radix(digits, 16).unwrap()
                        }
                        other => other,
                    },
                    plain => plain,
                });
            }
        } else {
            word.push(byte);
            while let Some(byte) = bytes.next_if(|byte| *byte != b' ') {
                word.push(byte);
            }
        }
        words.push(word);
    }
    words
}

/// Replies as text, one after the other with a space between.
pub(crate) fn show(mut wire: &[u8]) -> String {
    let mut out = String::new();
    while !wire.is_empty() {
        if !out.is_empty() {
            out.push(' ');
        }
        show_one(&mut wire, &mut out);
    }
    out
}

fn line<'w>(wire: &mut &'w [u8]) -> &'w str {
    let end = wire.windows(2).position(|pair| pair == b"\r\n").expect("a whole line");
    let line = std::str::from_utf8(&wire[..end]).unwrap();
    *wire = &wire[end + 2..];
    line
}

fn show_one(wire: &mut &[u8], out: &mut String) {
    let head = line(wire);
    let (kind, rest) = head.split_at(1);
    let open = match kind {
        "+" | ":" => return out.push_str(rest),
        "-" | "," | "#" | "(" => return out.push_str(head),
        "_" => return out.push_str("nil"),
        "$" | "=" | "*" if rest == "-1" => return out.push_str("nil"),
        "$" | "=" => {
            let length: usize = rest.parse().unwrap();
            write!(out, "\"{}\"", wire[..length].escape_ascii()).unwrap();
            assert_eq!(&wire[length..length + 2], b"\r\n", "bytes end with a line break");
            *wire = &wire[length + 2..];
            return;
        }
        "*" => "[",
        "~" => "~[",
        ">" => ">[",
        "%" => "{",
        other => panic!("a reply of type {other}"),
    };
    out.push_str(open);
    for index in 0..rest.parse::<usize>().unwrap() {
        if index > 0 {
            out.push_str(", ");
        }
        show_one(wire, out);
        if kind == "%" {
            out.push_str(": ");
            show_one(wire, out);
        }
    }
    out.push_str(if kind == "%" { "}" } else { "]" });
}
