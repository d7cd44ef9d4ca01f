//! What fuzzers and property tests call: bytes in, a panic if something that must hold does not.

use std::sync::Arc;

use crate::clients::{Origin, Outbox};
use crate::engine::{Clock, Engine, EngineOptions};
use crate::resp::parse::{Limits, Parser, parse_in_pieces};
use crate::session::Session;
use crate::store::{ShardSet, StoreOptions};
use crate::types::{Now, UnixMillis};

/// What a client may send in these tests.
const LIMITS: Limits = Limits { bulk_max: 512 << 20, authenticated: true };

/// Bytes that the parser may occupy for each byte of input, and beyond: a number of positions for each argument, of which an
/// inline request has one in two bytes; vectors have up to twice the room that they need.
const PARSER_FACTOR: usize = 32;
const PARSER_BEYOND: usize = 4096;

/// Bytes that the store may occupy for each byte of a payload, and beyond: the least element of a payload is one of a list, four
/// bytes long; a member of a large sorted set or hash takes several words of it in tables.
const STORE_FACTOR: u64 = 64;
const STORE_BEYOND: u64 = 512 * 1024;

/// Parses `stream` in one piece and in pieces whose lengths `cuts` gives.
///
/// # Panics
/// If the results differ, if they have more bytes than the input, or if the parser has occupied more than is in proportion.
pub fn requests(stream: &[u8], cuts: &[u8]) {
    let whole = parse_in_pieces(stream, &[], &LIMITS);
    let pieces = parse_in_pieces(stream, cuts, &LIMITS);
    assert_eq!(whole, pieces, "the same requests however the stream is cut");
    let bytes: usize = whole.0.iter().flatten().map(Vec::len).sum();
    assert!(bytes <= stream.len(), "{bytes} bytes of arguments from {}", stream.len());
    let mut parser = Parser::new();
    let mut from = 0;
    while let Ok(Some(frame)) = parser.parse(&stream[from..], &LIMITS) {
        from += frame.length;
        assert!(frame.length > 0, "a request takes bytes");
    }
    let most = PARSER_FACTOR * stream.len() + PARSER_BEYOND;
    assert!(parser.memory() <= most, "{} bytes for {}", parser.memory(), stream.len());
    let before = parser.missing(stream.len() - from);
    assert!(before <= LIMITS.bulk_max + 2, "a hint within the limits");
}

#[derive(Debug)]
struct Noon;

impl Clock for Noon {
    fn now(&self) -> Now {
        Now { unix: UnixMillis(1_700_000_000_000), monotonic_us: 0 }
    }

    fn wall_us(&self) -> u64 {
        0
    }
}

/// Restores a payload, and one that has the right checksum and the bytes before it, and so gets further. What is accepted must be
/// readable, come back when it is dumped and restored, and occupy memory in proportion.
///
/// # Panics
/// If it does not.
pub fn restore(payload: &[u8]) {
    let mut sealed = [b"LDMP\x01", payload].concat();
    let checksum = crc32c::crc32c(&sealed);
    sealed.extend_from_slice(&checksum.to_le_bytes());
    for payload in [payload, &sealed] {
        let store = StoreOptions { hash_seed: super::draw::HASH_SEED, ..StoreOptions::default() };
        let options = EngineOptions { store, cluster: false, seed: 1 };
        let engine = Engine::new(options, Arc::new(Noon));
        let client = engine.clients.connect(Origin::default(), Noon.now(), Outbox::default());
        let mut session = Session::new(&engine, client, engine.totals.tally());
        let mut call = |arguments: &[&[u8]]| {
            let mut out = Vec::new();
            session.execute(&engine, arguments, Noon.now(), &mut out);
            out
        };
        let reply = call(&[b"RESTORE", b"k", b"0", payload]);
        let used = engine.store.memory().used;
        let most = STORE_FACTOR * payload.len() as u64 + STORE_BEYOND;
        assert!(used <= most, "{used} bytes for a payload of {}", payload.len());
        if reply.starts_with(b"+OK") && call(&[b"EXISTS", b"k"]) == b":1\r\n" {
            let dump = bulk(&call(&[b"DUMP", b"k"]));
            assert_eq!(call(&[b"RESTORE", b"copy", b"0", &dump]), b"+OK\r\n");
            let again = bulk(&call(&[b"DUMP", b"copy"]));
            assert_eq!(again.len(), dump.len(), "what comes back is as long");
            assert_eq!(call(&[b"TYPE", b"k"]), call(&[b"TYPE", b"copy"]));
            call(&[b"DEL", b"copy"]);
        } else if !reply.starts_with(b"+OK") {
            assert!(reply.starts_with(b"-ERR"), "{}", reply.escape_ascii());
            assert_eq!(call(&[b"DBSIZE"]), b":0\r\n", "what is refused leaves nothing");
        }
        engine.store.lock(ShardSet::ALL, Noon.now()).check();
    }
}

/// What a bulk string holds.
fn bulk(reply: &[u8]) -> Vec<u8> {
    let start = reply.iter().position(|byte| *byte == b'\n').expect("a line") + 1;
    reply[start..reply.len() - 2].to_vec()
}
