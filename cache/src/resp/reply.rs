//! Replies, written straight into a connection's output in the protocol that the client has chosen.
//!
//! A command speaks in RESP3's terms (map, set, double, null …); for a client of RESP2 each becomes what Redis sends instead.

use std::fmt;
use std::io::Write as _;

use super::double::format_double;

/// The protocol version that a client has chosen with `HELLO`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Protocol {
    /// RESP2, which every connection begins with.
    #[default]
    Resp2,
    /// RESP3.
    Resp3,
}

/// A place to write replies to.
#[derive(Debug)]
pub struct Reply<'o> {
    out: &'o mut Vec<u8>,
    protocol: Protocol,
}

impl<'o> Reply<'o> {
    /// Replies in `protocol`, appended to `out`.
    pub fn new(out: &'o mut Vec<u8>, protocol: Protocol) -> Self {
        Self { out, protocol }
    }

    /// The same place, lent to somebody else for a while.
    pub fn reborrow(&mut self) -> Reply<'_> {
        Reply { out: self.out, protocol: self.protocol }
    }

    /// The protocol.
    #[must_use]
    pub fn protocol(&self) -> Protocol {
        self.protocol
    }

    /// From here on in `protocol`.
    pub fn set_protocol(&mut self, protocol: Protocol) {
        self.protocol = protocol;
    }

    /// How many bytes there are, for [`Reply::truncate`].
    #[must_use]
    pub fn len(&self) -> usize {
        self.out.len()
    }

    /// Whether nothing has been written.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.out.is_empty()
    }

    /// Takes back what was written after the first `length` bytes.
    pub fn truncate(&mut self, length: usize) {
        self.out.truncate(length);
    }

    /// Bytes that are a reply already.
    pub fn raw(&mut self, bytes: &[u8]) {
        self.out.extend_from_slice(bytes);
    }

    fn is_resp2(&self) -> bool {
        self.protocol == Protocol::Resp2
    }

    /// A type byte, a number, and the end of the line: by hand, since every reply has one.
    fn head(&mut self, kind: u8, number: u64) {
        let mut line = [0u8; 24];
        let mut at = line.len() - 2;
        line[at..].copy_from_slice(b"\r\n");
        let mut rest = number;
        loop {
            at -= 1;
            line[at] = b'0' + u8::try_from(rest % 10).expect("a digit");
            rest /= 10;
            if rest == 0 {
                break;
            }
        }
        at -= 1;
        line[at] = kind;
        self.out.extend_from_slice(&line[at..]);
    }

    fn length(&mut self, kind: u8, length: usize) {
        self.head(kind, length as u64);
    }

    /// A simple string: `+OK`. It must not hold a line break.
    pub fn simple(&mut self, text: &str) {
        debug_assert!(!text.contains(['\r', '\n']), "a simple string is one line");
        self.out.push(b'+');
        self.raw(text.as_bytes());
        self.raw(b"\r\n");
    }

    /// `+OK`.
    pub fn ok(&mut self) {
        self.raw(b"+OK\r\n");
    }

    /// An error: its code, a space, and words. Line breaks become spaces.
    pub fn error(&mut self, error: impl fmt::Display) {
        self.out.push(b'-');
        let from = self.out.len();
        write!(self.out, "{error}").expect("a vector takes all that is written");
        for byte in &mut self.out[from..] {
            if matches!(byte, b'\r' | b'\n') {
                *byte = b' ';
            }
        }
        self.raw(b"\r\n");
    }

    /// An integer.
    pub fn integer(&mut self, value: i64) {
        if value >= 0 {
            self.head(b':', value.unsigned_abs());
        } else {
            write!(self.out, ":{value}\r\n").expect("a vector takes all that is written");
        }
    }

    /// A number of things, as an integer.
    pub fn count(&mut self, count: usize) {
        self.length(b':', count);
    }

    /// Bytes.
    pub fn bulk(&mut self, bytes: &[u8]) {
        self.length(b'$', bytes.len());
        self.out.reserve(bytes.len() + 2);
        self.raw(bytes);
        self.raw(b"\r\n");
    }

    /// Anything that can be shown, as bytes.
    pub fn bulk_display(&mut self, value: impl fmt::Display) {
        self.bulk(value.to_string().as_bytes());
    }

    /// No value.
    pub fn null(&mut self) {
        self.raw(if self.is_resp2() { b"$-1\r\n" } else { b"_\r\n" });
    }

    /// No array: what a blocking command answers when its time is over, or `EXEC` when a watched key has changed.
    pub fn null_array(&mut self) {
        self.raw(if self.is_resp2() { b"*-1\r\n" } else { b"_\r\n" });
    }

    /// Bytes, or no value.
    pub fn bulk_or_null(&mut self, bytes: Option<&[u8]>) {
        match bytes {
            Some(bytes) => self.bulk(bytes),
            None => self.null(),
        }
    }

    /// The head of an array; `length` elements follow.
    pub fn array(&mut self, length: usize) {
        self.length(b'*', length);
    }

    /// The head of a map; `length` pairs follow. RESP2: an array of twice as many.
    pub fn map(&mut self, length: usize) {
        if self.is_resp2() { self.length(b'*', length * 2) } else { self.length(b'%', length) }
    }

    /// The head of a set. RESP2: an array.
    pub fn set(&mut self, length: usize) {
        self.length(if self.is_resp2() { b'*' } else { b'~' }, length);
    }

    /// The head of an out-of-band message. RESP2: an array.
    pub fn push(&mut self, length: usize) {
        self.length(if self.is_resp2() { b'*' } else { b'>' }, length);
    }

    /// A floating-point number. RESP2: its text in bytes.
    pub fn double(&mut self, value: f64) {
        let text = format_double(value);
        if self.is_resp2() {
            self.bulk(text.as_bytes());
        } else {
            self.out.push(b',');
            self.raw(text.as_bytes());
            self.raw(b"\r\n");
        }
    }

    /// True or false. RESP2: 1 or 0.
    pub fn boolean(&mut self, value: bool) {
        if self.is_resp2() {
            self.integer(i64::from(value));
        } else {
            self.raw(if value { b"#t\r\n" } else { b"#f\r\n" });
        }
    }

    /// Text with a format of three letters (`txt`, `mkd`). RESP2: bytes.
    pub fn verbatim(&mut self, format: &str, text: &str) {
        debug_assert_eq!(format.len(), 3, "a verbatim string's format has three letters");
        if self.is_resp2() {
            self.bulk(text.as_bytes());
        } else {
            self.length(b'=', text.len() + 4);
            self.raw(format.as_bytes());
            self.raw(b":");
            self.raw(text.as_bytes());
            self.raw(b"\r\n");
        }
    }
}
