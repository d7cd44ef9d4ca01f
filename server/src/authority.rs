//! Lets clients in whose first header is wrong.
//!
//! etcd's Go client up to 3.4, and so the `etcdctl` that Debian ships, sends `:authority: http://host:port` on the connections
//! that it makes for `endpoint status`. HTTP/2 allows no scheme there; etcd's server never looks, but the library under
//! this one resets the stream, and offers no way to be asked not to. So the first bytes of a connection pass through here:
//! in an `:authority` that begins with `http://`, the three characters `://` are replaced by others that are allowed.
//!
//! The replacements have the same lengths, plain and in HPACK's Huffman code (RFC 7541, appendix B), so nothing moves: not the
//! frame, not the strings, not the sizes in the peer's header table. The name of the host is then wrong, which
//! does no harm, as nothing here reads it. A connection whose first request is in order is left alone from then on.

/// What precedes the first frame (RFC 9113 §3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// Length, type, flags and stream of a frame.
const FRAME_HEADER: usize = 9;
/// The type of frame that opens a request.
const HEADERS: u8 = 1;
const PADDED: u8 = 0x8;
const PRIORITY: u8 = 0x20;
/// The largest frame that a peer may send unless told otherwise. What is larger is not held back.
const HEADERS_MAX: usize = 16 << 10;
/// `:authority` in HPACK's static table.
const AUTHORITY: usize = 1;

/// A string's code: its bits, and how many.
type Code = (u64, u32);
const HTTP: [Code; 4] = [(0x27, 6), (0x09, 5), (0x09, 5), (0x2b, 6)];
/// `://`
const BAD: [Code; 3] = [(0x5c, 7), (0x18, 6), (0x18, 6)];
/// `j--`
const GOOD: [Code; 3] = [(0x74, 7), (0x16, 6), (0x16, 6)];
/// Bits of `http://`, in the code.
const BITS: u32 = 41;

/// Where a connection stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Nothing has come yet.
    Preface,
    /// At the head of a frame.
    Frame,
    /// Inside a frame that does not matter, with this much to come.
    Skip(usize),
    /// Everything is let through.
    Done,
}

/// Holds back the frames that may have to be mended, until they are whole.
#[derive(Debug)]
pub(crate) struct AuthorityFilter {
    state: State,
    /// Some header was mended, so that later ones may need it too.
    mended: bool,
    /// The preface of HTTP/2 has come.
    is_http2: bool,
}

impl AuthorityFilter {
    pub(crate) fn new() -> Self {
        Self { state: State::Preface, mended: false, is_http2: false }
    }

    /// Whether all that is still to come may pass unseen.
    pub(crate) fn is_done(&self) -> bool {
        self.state == State::Done
    }

    /// Whether the connection has begun to speak HTTP/2.
    pub(crate) fn is_http2(&self) -> bool {
        self.is_http2
    }

    /// Looks at `held`, mends it in place, and returns how many of its bytes may go on. The others must be shown
    /// again, with what comes after them.
    pub(crate) fn release(&mut self, held: &mut [u8]) -> usize {
        let mut released = 0;
        while released < held.len() {
            match self.step(&mut held[released..]) {
                0 => break,
                count => released += count,
            }
        }
        released
    }

    fn step(&mut self, rest: &mut [u8]) -> usize {
        match self.state {
            State::Preface => {
                let seen = rest.len().min(PREFACE.len());
                if rest[..seen] != PREFACE[..seen] {
                    self.state = State::Done;
                } else if seen < PREFACE.len() {
                    return 0;
                } else {
                    self.is_http2 = true;
                    self.state = State::Frame;
                }
                seen
            }
            State::Frame => self.frame(rest),
            State::Skip(length) => {
                let count = length.min(rest.len());
                self.state =
                    if count == length { State::Frame } else { State::Skip(length - count) };
                count
            }
            State::Done => rest.len(),
        }
    }

    fn frame(&mut self, rest: &mut [u8]) -> usize {
        let Some((&mut [high, middle, low, kind, flags, ..], payload)) =
            rest.split_first_chunk_mut::<FRAME_HEADER>()
        else {
            return 0;
        };
        let length = usize::from(high) << 16 | usize::from(middle) << 8 | usize::from(low);
        if kind != HEADERS || length > HEADERS_MAX {
            // A frame without payload is over with its head.
            self.state = if length == 0 { State::Frame } else { State::Skip(length) };
            return FRAME_HEADER;
        }
        let Some(payload) = payload.get_mut(..length) else {
            return 0;
        };
        self.mended |= mend_headers(flags, payload).unwrap_or(false);
        if !self.mended {
            self.state = State::Done;
        }
        FRAME_HEADER + length
    }
}

/// Mends the `:authority` in the payload of a HEADERS frame. `None` if the payload is malformed, which the library
/// will say better.
fn mend_headers(flags: u8, payload: &mut [u8]) -> Option<bool> {
    let mut at = 0;
    if flags & PADDED != 0 {
        at += 1;
    }
    if flags & PRIORITY != 0 {
        at += 5;
    }
    while at < payload.len() {
        let first = payload[at];
        let is_indexed = first & 0x80 != 0;
        let is_resize = first & 0xe0 == 0x20;
        let prefix = match first {
            _ if is_indexed => 7,
            _ if first & 0x40 != 0 => 6,
            _ if is_resize => 5,
            _ => 4,
        };
        let name = integer(payload, &mut at, prefix)?;
        if is_indexed || is_resize {
            continue;
        }
        if name == 0 {
            let length = integer(payload, &mut at, 7)?;
            at = at.checked_add(length)?;
        }
        let is_huffman = *payload.get(at)? & 0x80 != 0;
        let length = integer(payload, &mut at, 7)?;
        let end = at.checked_add(length)?;
        let value = payload.get_mut(at..end)?;
        if name == AUTHORITY {
            return Some(if is_huffman { mend_huffman(value) } else { mend_plain(value) });
        }
        at = end;
    }
    Some(false)
}

/// An integer with a prefix of so many bits (RFC 7541 §5.1). Lengths beyond three bytes do not fit a frame.
fn integer(bytes: &[u8], at: &mut usize, prefix: u32) -> Option<usize> {
    let mask = (1_usize << prefix) - 1;
    let mut value = usize::from(*bytes.get(*at)?) & mask;
    *at += 1;
    if value < mask {
        return Some(value);
    }
    for shift in [0, 7, 14] {
        let byte = usize::from(*bytes.get(*at)?);
        *at += 1;
        value += (byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

fn mend_plain(value: &mut [u8]) -> bool {
    let is_bad = value.starts_with(b"http://");
    if is_bad {
        value[4..7].copy_from_slice(b"j--");
    }
    is_bad
}

fn mend_huffman(value: &mut [u8]) -> bool {
    const UNUSED: u32 = 48 - BITS;
    let Some(head) = value.first_chunk_mut::<6>() else {
        return false;
    };
    let mut wide = [0; 8];
    wide[2..].copy_from_slice(head);
    let bits = u64::from_be_bytes(wide);
    if bits >> UNUSED != code(&HTTP, &BAD) {
        return false;
    }
    let rest = bits & ((1 << UNUSED) - 1);
    let mended = (code(&HTTP, &GOOD) << UNUSED | rest).to_be_bytes();
    head.copy_from_slice(&mended[2..]);
    true
}

/// The bits of two strings, one after the other.
fn code(first: &[Code], second: &[Code]) -> u64 {
    first.iter().chain(second).fold(0, |bits, (code, length)| bits << length | code)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(kind: u8, flags: u8, payload: &[u8]) -> Vec<u8> {
        let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
        [&length[1..], &[kind, flags, 0, 0, 0, 1], payload].concat()
    }

    /// `:method POST`, `:scheme http`, `:path /a` plain, then `:authority` as given, then a custom header.
    fn headers(authority: &[u8]) -> Vec<u8> {
        let length = u8::try_from(authority.len()).unwrap();
        [b"\x83\x86\x44\x02/a\x41", &[length][..], authority, b"\x40\x01x\x07http://"].concat()
    }

    fn opening(frames: &[Vec<u8>]) -> Vec<u8> {
        [PREFACE.to_vec(), frame(4, 0, b""), frames.concat()].concat()
    }

    /// What comes out if the bytes come in pieces of this size.
    fn filtered(bytes: &[u8], piece: usize) -> (Vec<u8>, AuthorityFilter) {
        let mut filter = AuthorityFilter::new();
        let (mut held, mut out) = (Vec::new(), Vec::new());
        for piece in bytes.chunks(piece) {
            held.extend_from_slice(piece);
            let released = filter.release(&mut held);
            out.extend(held.drain(..released));
        }
        out.extend(held);
        (out, filter)
    }

    #[test]
    fn a_scheme_in_the_authority_is_replaced_and_nothing_else() {
        let bad = frame(HEADERS, 4, &headers(b"http://[::1]:1"));
        let good = frame(HEADERS, 4, &headers(b"httpj--[::1]:1"));
        let data = frame(0, 1, b"\x41\x0ehttp://[::1]:1");
        let bytes = opening(&[bad.clone(), data.clone(), bad]);
        let expected = opening(&[good.clone(), data, good]);
        for piece in 1..=bytes.len() {
            let (out, filter) = filtered(&bytes, piece);
            assert_eq!(out, expected, "in pieces of {piece}");
            assert!(!filter.is_done(), "later requests may need it too");
        }
    }

    #[test]
    fn the_replacement_has_the_same_length_in_the_huffman_code() {
        let length = |codes: &[Code]| codes.iter().map(|(_, length)| length).sum::<u32>();
        assert_eq!(length(&HTTP) + length(&BAD), BITS);
        assert_eq!(length(&BAD), length(&GOOD));
        // `http://` in the code, by hand, and then the code of a `1` (00001) and two bits of what follows.
        let mut value = [0x9d, 0x29, 0xae, 0xe3, 0x0c, 0x07];
        assert!(mend_huffman(&mut value));
        // `httpj--`
        assert_eq!(value, [0x9d, 0x29, 0xaf, 0xa2, 0xcb, 0x07]);
        assert!(!mend_huffman(&mut value), "mended once");
    }

    #[test]
    fn a_connection_in_order_is_left_alone() {
        let bytes = opening(&[frame(HEADERS, 4, &headers(b"[::1]:1")), vec![7; 100]]);
        let (out, filter) = filtered(&bytes, 10);
        assert_eq!(out, bytes);
        assert!(filter.is_done() && filter.is_http2());
    }

    #[test]
    fn what_is_no_http_2_passes_unchanged() {
        for bytes in [b"GET / HTTP/1.1\r\n\r\n".as_slice(), b"PRI * HTTP/1.1", b"\x16\x03\x01"] {
            let (out, filter) = filtered(bytes, 3);
            assert_eq!(out, bytes);
            assert!(filter.is_done() && !filter.is_http2());
        }
    }

    #[test]
    fn every_cut_and_every_garbled_byte_of_headers_is_survived() {
        let block = headers(b"http://[::1]:1");
        for flags in [0, PADDED, PRIORITY, PADDED | PRIORITY] {
            for length in 0..block.len() {
                let _any_answer = mend_headers(flags, &mut block[..length].to_vec());
                for value in [0, 0x7f, 0xff] {
                    let mut garbled = block.clone();
                    garbled[length] = value;
                    let _any_answer = mend_headers(flags, &mut garbled);
                    assert_eq!(garbled.len(), block.len());
                }
            }
        }
    }

    #[test]
    fn what_replaces_a_scheme_is_an_authority() {
        for authority in ["httpj--127.0.0.1:2379", "httpj--[::1]:2379", "httpj--localhost:1"] {
            let parsed = authority.parse::<tonic::codegen::http::uri::Authority>();
            assert!(parsed.is_ok(), "{authority}");
        }
    }
}
