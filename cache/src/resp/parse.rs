//! Requests, as they arrive: from bytes to the arguments of commands.
//!
//! A request is an array of bulk strings (`*2\r\n$3\r\nGET\r\n$1\r\nk\r\n`) or a line of words, as a person types it into a raw
//! connection. The parser looks at the bytes where they lie and hands out slices of them; it keeps only numbers: how far
//! it has looked, and where the arguments are that it has seen. So
//!
//! - nothing is copied, but for the words of a line, whose quotes have to be undone;
//! - nothing is allocated because a length was declared: what the parser keeps grows with the arguments that have arrived;
//! - no byte is looked at twice, however small the pieces are in which a request arrives: the work is linear.
//!
//! What is refused, and in which words, is as in Redis; after a refusal the connection has no beginning of a next request to go
//! on with, and is closed. As in Redis, the two bytes that end a bulk string are skipped unread.
//!
//! Source: "Redis serialization protocol specification", sections "Sending commands to a Redis server" and "Inline commands".

use std::fmt;

use smallvec::SmallVec;

use crate::decimal::parse_integer;

/// The longest line: of words, or with a length.
pub const LINE_MAX: usize = 64 * 1024;

/// The most arguments of one request.
pub const ARGUMENTS_MAX: usize = 1024 * 1024;

/// The most arguments of one request before the client has authenticated.
pub const UNAUTHENTICATED_ARGUMENTS_MAX: usize = 10;

/// The most bytes of one argument before the client has authenticated. The connection bounds what arrives before then in all.
pub const UNAUTHENTICATED_BULK_MAX: usize = 4096;

/// A request's arguments, the command's name first. A usual command's lie on the stack.
pub type Arguments<'i> = SmallVec<[&'i [u8]; 8]>;

/// What a client may send.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// The most bytes of one argument.
    pub bulk_max: usize,
    /// Whether the client has authenticated; until then it may send little.
    pub authenticated: bool,
}

/// A request that is there in full.
#[derive(Debug)]
pub struct Frame<'i> {
    /// Its arguments. None for an empty line or array, which asks for nothing and is not answered.
    pub arguments: Arguments<'i>,
    /// How many bytes of the input it took.
    pub length: usize,
}

/// Why the bytes are no request. Shown as the client gets it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ProtocolError {
    /// A line of words has no end.
    #[error("ERR Protocol error: too big inline request")]
    LineTooLong,
    /// A line's quotes do not match.
    #[error("ERR Protocol error: unbalanced quotes in request")]
    UnbalancedQuotes,
    /// The line with the number of arguments has no end.
    #[error("ERR Protocol error: too big mbulk count string")]
    CountTooLong,
    /// The number of arguments is none, or too large.
    #[error("ERR Protocol error: invalid multibulk length")]
    InvalidCount,
    /// The number of arguments is too large for one who has not authenticated.
    #[error("ERR Protocol error: unauthenticated multibulk length")]
    UnauthenticatedCount,
    /// The line with the length of an argument has no end.
    #[error("ERR Protocol error: too big bulk count string")]
    LengthTooLong,
    /// The length of an argument is none, or too large.
    #[error("ERR Protocol error: invalid bulk length")]
    InvalidLength,
    /// The length of an argument is too large for one who has not authenticated.
    #[error("ERR Protocol error: unauthenticated bulk length")]
    UnauthenticatedLength,
    /// Something else stands where an argument's length should.
    #[error("ERR Protocol error: expected '$', got '{}'", Shown(*.0))]
    NoBulk(u8),
}

/// A byte as it may stand in an error.
struct Shown(u8);

impl fmt::Display for Shown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            // A line break would end the error: Redis shows a blank.
            b'\r' | b'\n' => f.write_str(" "),
            b' '..=b'~' => write!(f, "{}", char::from(self.0)),
            other => write!(f, "\\x{other:02x}"),
        }
    }
}

/// Where an argument lies, from the start of its request.
#[derive(Clone, Copy, Debug)]
struct Span {
    from: usize,
    to: usize,
}

/// Where the parser is within a request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    /// At its first byte, or within a line of words.
    #[default]
    Start,
    /// Before the length of an argument; so many arguments are missing, this one among them.
    Length { missing: usize },
    /// Within an argument of this length.
    Bulk { missing: usize, length: usize },
}

/// The parser of one connection's requests.
#[derive(Debug, Default)]
pub struct Parser {
    state: State,
    /// How far it is, from the start of the request.
    at: usize,
    /// How many bytes from there on are known not to end the line.
    scanned: usize,
    /// The arguments seen so far.
    spans: Vec<Span>,
    /// A line's words, without their quotes.
    words: Vec<u8>,
}

/// A length line: its number, or none if it holds no number, and where it ends.
type Line = (Option<i64>, usize);

impl Parser {
    /// A parser at the beginning of a connection.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// How many bytes are certainly missing to the request under way, of which `have` are there: a hint for how much room a
    /// buffer needs next. As it was declared by the client, no memory must be taken on its word alone.
    #[must_use]
    pub fn missing(&self, have: usize) -> usize {
        match self.state {
            State::Bulk { length, .. } => (self.at + length + 2).saturating_sub(have),
            State::Start | State::Length { .. } => 0,
        }
    }

    /// Bytes of memory that the parser occupies.
    #[must_use]
    pub fn memory(&self) -> usize {
        self.spans.capacity() * size_of::<Span>() + self.words.capacity()
    }

    /// The next request in `input`, or None if there is none in full. `input` begins where the last request ended; the bytes of
    /// a request that was not complete come again, with more behind them.
    ///
    /// # Errors
    /// If the bytes are no request. The connection cannot go on.
    pub fn parse<'i>(
        &'i mut self,
        input: &'i [u8],
        limits: &Limits,
    ) -> Result<Option<Frame<'i>>, ProtocolError> {
        loop {
            match self.state {
                State::Start => match input.first() {
                    None => return Ok(None),
                    Some(b'*') => {
                        let Some(length) = self.begin(input, limits)? else { return Ok(None) };
                        if length > 0 {
                            return Ok(Some(Frame { arguments: Arguments::new(), length }));
                        }
                    }
                    Some(_) => return self.words(input),
                },
                State::Length { missing } => match input.get(self.at) {
                    None => return Ok(None),
                    Some(b'$') => {
                        let Some((length, end)) =
                            self.line(input).map_err(|TooLong| ProtocolError::LengthTooLong)?
                        else {
                            return Ok(None);
                        };
                        let length = bulk_length(length, limits)?;
                        self.at = end;
                        self.state = State::Bulk { missing, length };
                    }
                    Some(other) => return Err(ProtocolError::NoBulk(*other)),
                },
                State::Bulk { missing, length } => {
                    let to = self.at + length;
                    if input.len() < to + 2 {
                        return Ok(None);
                    }
                    self.spans.push(Span { from: self.at, to });
                    self.at = to + 2;
                    if missing > 1 {
                        self.state = State::Length { missing: missing - 1 };
                        continue;
                    }
                    let length = self.finish();
                    let arguments =
                        self.spans.iter().map(|span| &input[span.from..span.to]).collect();
                    return Ok(Some(Frame { arguments, length }));
                }
            }
        }
    }

    /// Reads the number of arguments. None if it is not there in full; otherwise the length of the request if that is all of
    /// it, since it has none, and 0 if arguments follow.
    fn begin(&mut self, input: &[u8], limits: &Limits) -> Result<Option<usize>, ProtocolError> {
        let Some((count, end)) = self.line(input).map_err(|TooLong| ProtocolError::CountTooLong)?
        else {
            return Ok(None);
        };
        let count = count.ok_or(ProtocolError::InvalidCount)?;
        // A negative number of arguments is as good as none: so Redis has it.
        let count = usize::try_from(count.max(0)).unwrap_or(usize::MAX);
        if count > ARGUMENTS_MAX {
            return Err(ProtocolError::InvalidCount);
        }
        if count > UNAUTHENTICATED_ARGUMENTS_MAX && !limits.authenticated {
            return Err(ProtocolError::UnauthenticatedCount);
        }
        self.at = end;
        if count == 0 {
            return Ok(Some(self.finish()));
        }
        self.spans.clear();
        self.state = State::Length { missing: count };
        Ok(Some(0))
    }

    /// The length line at `at`, without its type byte. None if its end is not there.
    fn line(&mut self, input: &[u8]) -> Result<Option<Line>, TooLong> {
        let line = &input[self.at + 1..];
        if let Some((number, digits)) = short_number(line) {
            self.scanned = 0;
            return Ok(Some((Some(number), self.at + 1 + digits + 2)));
        }
        let seen = self.scanned.min(line.len());
        let Some(end) = line[seen..].iter().position(|byte| *byte == b'\r') else {
            self.scanned = line.len();
            return if line.len() > LINE_MAX { Err(TooLong) } else { Ok(None) };
        };
        let end = seen + end;
        if end > LINE_MAX {
            return Err(TooLong);
        }
        if line.len() < end + 2 {
            self.scanned = end;
            return Ok(None);
        }
        self.scanned = 0;
        Ok(Some((parse_integer(&line[..end]), self.at + 1 + end + 2)))
    }

    /// A request that is a line of words.
    fn words<'i>(&'i mut self, input: &'i [u8]) -> Result<Option<Frame<'i>>, ProtocolError> {
        let seen = self.scanned.min(input.len());
        let Some(end) = input[seen..].iter().position(|byte| *byte == b'\n') else {
            self.scanned = input.len();
            let is_too_long = input.len() > LINE_MAX;
            return if is_too_long { Err(ProtocolError::LineTooLong) } else { Ok(None) };
        };
        let end = seen + end;
        if end > LINE_MAX {
            return Err(ProtocolError::LineTooLong);
        }
        self.spans.clear();
        self.words.clear();
        split_words(&input[..end], &mut self.words, &mut self.spans)
            .map_err(|Unbalanced| ProtocolError::UnbalancedQuotes)?;
        self.at = end + 1;
        let length = self.finish();
        let arguments = self.spans.iter().map(|span| &self.words[span.from..span.to]).collect();
        Ok(Some(Frame { arguments, length }))
    }

    /// Ends a request and returns its length. What was an unusually large one's is given back.
    fn finish(&mut self) -> usize {
        const SPANS_KEPT: usize = 1024;
        let length = self.at;
        (self.at, self.scanned, self.state) = (0, 0, State::Start);
        if self.spans.capacity() > SPANS_KEPT && self.spans.len() <= SPANS_KEPT {
            self.spans.shrink_to(SPANS_KEPT);
        }
        length
    }
}

/// A line is longer than any length is.
struct TooLong;

/// A quote has no end, or something stands directly behind it.
struct Unbalanced;

/// The number in front of a line's end, and how many digits it has, if it is as plain as nearly all are: the line is there in
/// full and has at most nine digits.
fn short_number(line: &[u8]) -> Option<(i64, usize)> {
    let mut number = 0;
    for (index, byte) in line.iter().enumerate().take(10) {
        match byte {
            b'0'..=b'9' => number = number * 10 + i64::from(byte - b'0'),
            b'\r' if index > 0 && line.len() > index + 1 && (line[0] != b'0' || index == 1) => {
                return Some((number, index));
            }
            _ => return None,
        }
    }
    None
}

fn bulk_length(length: Option<i64>, limits: &Limits) -> Result<usize, ProtocolError> {
    let length = length
        .and_then(|length| usize::try_from(length).ok())
        .filter(|length| *length <= limits.bulk_max)
        .ok_or(ProtocolError::InvalidLength)?;
    if length > UNAUTHENTICATED_BULK_MAX && !limits.authenticated {
        return Err(ProtocolError::UnauthenticatedLength);
    }
    Ok(length)
}

/// Splits a line at its blanks. Within double quotes a backslash stands before a quote, a letter for a control character, or `x`
/// and two hexadecimal digits; within single quotes only before a single quote. A zero byte counts as a blank.
fn split_words(line: &[u8], words: &mut Vec<u8>, spans: &mut Vec<Span>) -> Result<(), Unbalanced> {
    let is_blank = |byte: u8| matches!(byte, b' ' | b'\t' | b'\n' | b'\r' | 0x0b | 0x0c | 0);
    let ends_word = |byte: u8| matches!(byte, b' ' | b'\t' | b'\n' | b'\r' | 0);
    let mut rest = line;
    loop {
        let blanks = rest.iter().take_while(|byte| is_blank(**byte)).count();
        rest = &rest[blanks..];
        if rest.is_empty() {
            return Ok(());
        }
        let from = words.len();
        while let Some((first, behind)) = rest.split_first() {
            if ends_word(*first) {
                break;
            }
            rest = match first {
                b'"' | b'\'' => {
                    let behind = unquote(*first, behind, words)?;
                    if behind.first().is_some_and(|byte| !is_blank(*byte)) {
                        return Err(Unbalanced);
                    }
                    // Whatever blank stands behind a closing quote ends the word.
                    rest = behind;
                    break;
                }
                other => {
                    words.push(*other);
                    behind
                }
            };
        }
        spans.push(Span { from, to: words.len() });
    }
}

/// Copies what stands between quotes to `words` and returns what follows them. `text` begins behind the opening quote.
fn unquote<'t>(quote: u8, mut text: &'t [u8], words: &mut Vec<u8>) -> Result<&'t [u8], Unbalanced> {
    loop {
        let (byte, taken) = match text {
            [] => return Err(Unbalanced),
            [b'\\', b'x', high, low, ..]
                if quote == b'"' && high.is_ascii_hexdigit() && low.is_ascii_hexdigit() =>
            {
                (hex_digit(*high) * 16 + hex_digit(*low), 4)
            }
            [b'\\', escaped, ..] if quote == b'"' => (control_character(*escaped), 2),
            [b'\\', b'\'', ..] => (b'\'', 2),
            [byte, rest @ ..] if *byte == quote => return Ok(rest),
            [byte, ..] => (*byte, 1),
        };
        words.push(byte);
        text = &text[taken..];
    }
}

fn control_character(letter: u8) -> u8 {
    match letter {
        b'n' => b'\n',
        b'r' => b'\r',
        b't' => b'\t',
        b'b' => 0x08,
        b'a' => 0x07,
        other => other,
    }
}

fn hex_digit(digit: u8) -> u8 {
    match digit {
        b'0'..=b'9' => digit - b'0',
        _ => (digit | 0x20) - b'a' + 10,
    }
}

/// Feeds `stream` to a parser in pieces whose lengths `cuts` gives in turn (0 and none: all at once) and returns all requests and
/// the error that ended them, if one did. The way in for fuzzers and property tests: however the stream is cut, the result
/// is the same, and nothing panics.
#[must_use]
pub fn parse_in_pieces(
    stream: &[u8],
    cuts: &[u8],
    limits: &Limits,
) -> (Vec<Vec<Vec<u8>>>, Option<ProtocolError>) {
    let mut parser = Parser::new();
    let (mut requests, mut from, mut to) = (Vec::new(), 0, 0);
    let mut cuts = cuts.iter().cycle();
    while to < stream.len() {
        let piece = cuts.next().map_or(0, |cut| usize::from(*cut));
        to = if piece == 0 { stream.len() } else { stream.len().min(to + piece) };
        loop {
            match parser.parse(&stream[from..to], limits) {
                Ok(None) => break,
                Ok(Some(frame)) => {
                    from += frame.length;
                    if !frame.arguments.is_empty() {
                        let arguments = frame.arguments.iter().map(|bytes| bytes.to_vec());
                        requests.push(arguments.collect());
                    }
                }
                Err(error) => return (requests, Some(error)),
            }
        }
    }
    (requests, None)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LIMITS: Limits = Limits { bulk_max: 512 * 1024 * 1024, authenticated: true };

    fn parse_all(stream: &[u8]) -> (Vec<Vec<Vec<u8>>>, Option<ProtocolError>) {
        parse_in_pieces(stream, &[], &LIMITS)
    }

    /// Requests as text, `|` between arguments, and the error at the end.
    fn shown(stream: &[u8]) -> String {
        let (requests, error) = parse_all(stream);
        let mut lines: Vec<String> = requests
            .iter()
            .map(|arguments| {
                let words = arguments.iter().map(|word| word.escape_ascii().to_string());
                words.collect::<Vec<_>>().join("|")
            })
            .collect();
        lines.extend(error.map(|error| error.to_string()));
        lines.join("; ")
    }

    #[test]
    fn arrays_and_lines_are_requests() {
        let cases: &[(&[u8], &str)] = &[
            (b"*1\r\n$4\r\nPING\r\n", "PING"),
            (b"*2\r\n$3\r\nGET\r\n$0\r\n\r\n", "GET|"),
            (b"*2\r\n$3\r\nGET\r\n$2\r\n\r\n\r\n", r"GET|\r\n"),
            (b"PING\r\n", "PING"),
            (b"PING\n", "PING"),
            (b"  set  a\tb  \r\nget a\r\n", "set|a|b; get|a"),
            (b"set \"a b\" 'c d'\r\n", "set|a b|c d"),
            (br#"set "\x41\n\"\q" '\'\n'"#, ""),
            (b"set \"\\x41\\n\\\"\\q\" '\\'\\n'\r\n", r#"set|A\n\"q|\'\\n"#),
            (b"ab\"cd\" e\r\n", "abcd|e"),
            (b"set \"\" ''\r\n", "set||"),
            (b"\r\n\n*0\r\n*-10\r\nPING\r\n", "PING"),
            (b"*1\r\n$4\r\nPINGxy*1\r\n$4\r\nPING\r\n", "PING; PING"),
            (b"a\x00b\r\n", "a|b"),
        ];
        for (stream, wanted) in cases {
            assert_eq!(shown(stream), *wanted, "{}", stream.escape_ascii());
        }
    }

    #[test]
    fn what_is_no_request_is_refused_in_redis_words() {
        let long = |head: &str| [head.as_bytes(), &vec![b'1'; LINE_MAX + 1]].concat();
        let cases: Vec<(Vec<u8>, &str)> = vec![
            (b"*3000000000\r\n".to_vec(), "invalid multibulk length"),
            (b"*1048577\r\n".to_vec(), "invalid multibulk length"),
            (b"*99999999999999999999999\r\n".to_vec(), "invalid multibulk length"),
            (b"*+1\r\n".to_vec(), "invalid multibulk length"),
            (b"*01\r\n".to_vec(), "invalid multibulk length"),
            (b"*\r\n".to_vec(), "invalid multibulk length"),
            (b"*1\r\n$-10\r\n".to_vec(), "invalid bulk length"),
            (b"*1\r\n$2000000000\r\n".to_vec(), "invalid bulk length"),
            (b"*1\r\n$blabla\r\n".to_vec(), "invalid bulk length"),
            (b"*1\r\n$00\r\n".to_vec(), "invalid bulk length"),
            (b"*1\r\nfoo\r\n".to_vec(), "expected '$', got 'f'"),
            (b"*1\r\n\r\n".to_vec(), "expected '$', got ' '"),
            (b"set \"a\r\n".to_vec(), "unbalanced quotes in request"),
            (b"set \"a\"b\r\n".to_vec(), "unbalanced quotes in request"),
            (b"set '\r\n".to_vec(), "unbalanced quotes in request"),
            (long("x"), "too big inline request"),
            (long("*"), "too big mbulk count string"),
            (long("*1\r\n$"), "too big bulk count string"),
        ];
        for (stream, wanted) in cases {
            let (requests, error) = parse_all(&stream);
            let wanted = format!("ERR Protocol error: {wanted}");
            assert_eq!(error.map(|error| error.to_string()), Some(wanted));
            assert!(requests.is_empty());
        }
    }

    #[test]
    fn before_authentication_little_is_taken() {
        let limits = Limits { authenticated: false, ..LIMITS };
        let parse = |stream: &[u8]| parse_in_pieces(stream, &[], &limits).1;
        assert_eq!(parse(b"*11\r\n"), Some(ProtocolError::UnauthenticatedCount));
        assert_eq!(parse(b"*1\r\n$4097\r\n"), Some(ProtocolError::UnauthenticatedLength));
        assert_eq!(parse(b"*10\r\n$4096\r\n"), None);
    }

    #[test]
    fn a_declared_length_takes_no_memory() {
        let mut parser = Parser::new();
        let stream = b"*1048576\r\n$536870912\r\nabc";
        assert!(parser.parse(stream, &LIMITS).unwrap().is_none());
        assert!(parser.memory() < 1024, "{} bytes", parser.memory());
        assert_eq!(parser.missing(stream.len()), 536_870_912 + 2 - 3);
    }

    #[test]
    fn memory_of_an_unusual_request_is_given_back() {
        let mut parser = Parser::new();
        let many = [b"*100000\r\n".to_vec(), b"$1\r\nx\r\n".repeat(100_000)].concat();
        assert!(parser.parse(&many, &LIMITS).unwrap().is_some());
        assert!(parser.memory() > 1_000_000);
        for _ in 0..2 {
            assert!(parser.parse(b"*1\r\n$4\r\nPING\r\n", &LIMITS).unwrap().is_some());
        }
        assert!(parser.memory() < 64 * 1024, "{} bytes", parser.memory());
    }

    fn request() -> impl Strategy<Value = Vec<u8>> {
        let bulk = prop::collection::vec(any::<u8>(), 0..20);
        let array = prop::collection::vec(bulk, 0..12).prop_map(|arguments| {
            let mut bytes = format!("*{}\r\n", arguments.len()).into_bytes();
            for argument in arguments {
                bytes.extend(format!("${}\r\n", argument.len()).into_bytes());
                bytes.extend(argument);
                bytes.extend(b"\r\n");
            }
            bytes
        });
        let line = prop::collection::vec(
            prop::sample::select(b"ab \t\"'\\xn0\x00".as_slice().to_vec()),
            0..24,
        )
        .prop_map(|mut line| {
            line.extend(b"\r\n");
            line
        });
        let noise = prop::collection::vec(
            prop::sample::select(b"*$-0123\r\n\"'ax ".as_slice().to_vec()),
            0..24,
        );
        prop_oneof![8 => array, 4 => line, 1 => noise]
    }

    proptest! {
        #[test]
        fn any_cut_of_any_stream_gives_the_same_requests(
            requests in prop::collection::vec(request(), 0..12),
            cuts in prop::collection::vec(1u8..40, 1..8),
        ) {
            let stream = requests.concat();
            let whole = parse_all(&stream);
            prop_assert_eq!(parse_in_pieces(&stream, &cuts, &LIMITS), whole.clone());
            prop_assert_eq!(parse_in_pieces(&stream, &[1], &LIMITS), whole);
        }

        #[test]
        fn random_bytes_never_panic(
            stream in prop::collection::vec(any::<u8>(), 0..300),
            cuts in prop::collection::vec(1u8..40, 1..8),
            authenticated in any::<bool>(),
        ) {
            let limits = Limits { authenticated, ..LIMITS };
            let whole = parse_in_pieces(&stream, &[], &limits);
            prop_assert_eq!(parse_in_pieces(&stream, &cuts, &limits), whole);
        }

        #[test]
        fn arguments_come_out_as_they_went_in(
            arguments in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..300), 1..20),
        ) {
            let mut stream = format!("*{}\r\n", arguments.len()).into_bytes();
            for argument in &arguments {
                stream.extend(format!("${}\r\n", argument.len()).into_bytes());
                stream.extend(argument);
                stream.extend(b"\r\n");
            }
            prop_assert_eq!(parse_in_pieces(&stream, &[7], &LIMITS), (vec![arguments], None));
        }
    }
}
