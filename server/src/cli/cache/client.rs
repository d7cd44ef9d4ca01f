//! A small blocking client of the Redis protocol: enough for the command line.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, ErrorKind, Read as _, Write as _};
use std::net::{TcpStream, ToSocketAddrs as _};
use std::time::Duration;

use thiserror::Error;

/// The longest answer that is read, in bytes, and the most elements of one: a server may lie about a length.
const ANSWER_MAX: usize = 1 << 30;

/// Why a command could not be carried out.
#[derive(Debug, Error)]
pub(crate) enum CacheError {
    /// Nobody answers there.
    #[error("cannot connect to {server}; is the node running, with its cache switched on?")]
    Connect { server: String, source: std::io::Error },
    /// The connection broke, or what came is no answer.
    #[error("the connection to {server} broke")]
    Broken { server: String, source: std::io::Error },
    /// No answer in time.
    #[error("{0} did not answer in time")]
    Timeout(String),
    /// The server answered an error.
    #[error("{0}")]
    Server(String),
    /// An answer of another type than the command has.
    #[error("the server answered something that is no {0}")]
    Unexpected(&'static str),
}

/// An answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Reply {
    Null,
    Text(String),
    Integer(i64),
    Bytes(Vec<u8>),
    Array(Vec<Self>),
}

/// A connection.
#[derive(Debug)]
pub(crate) struct Client {
    server: String,
    stream: BufReader<TcpStream>,
}

impl Client {
    /// Connects to `server` and authenticates as `login`, a user and a password, if there is one.
    pub(crate) fn connect(
        server: &str,
        login: Option<(&str, &str)>,
        timeout: Duration,
    ) -> Result<Self, CacheError> {
        let failed = |source| CacheError::Connect { server: server.to_owned(), source };
        let mut last = ErrorKind::AddrNotAvailable.into();
        for address in server.to_socket_addrs().map_err(failed)? {
            match TcpStream::connect_timeout(&address, timeout) {
                Ok(stream) => {
                    stream.set_read_timeout(Some(timeout)).map_err(failed)?;
                    stream.set_write_timeout(Some(timeout)).map_err(failed)?;
                    stream.set_nodelay(true).map_err(failed)?;
                    let stream = BufReader::new(stream);
                    let mut client = Self { server: server.to_owned(), stream };
                    if let Some((user, password)) = login {
                        client.call(&[b"AUTH", user.as_bytes(), password.as_bytes()])?;
                    }
                    return Ok(client);
                }
                Err(error) => last = error,
            }
        }
        Err(failed(last))
    }

    /// Carries out one command.
    pub(crate) fn call(&mut self, arguments: &[&[u8]]) -> Result<Reply, CacheError> {
        let mut request = format!("*{}\r\n", arguments.len()).into_bytes();
        for argument in arguments {
            request.extend_from_slice(format!("${}\r\n", argument.len()).as_bytes());
            request.extend_from_slice(argument);
            request.extend_from_slice(b"\r\n");
        }
        let written = self.stream.get_mut().write_all(&request);
        written.map_err(|source| self.broken(source))?;
        self.reply(0)
    }

    fn reply(&mut self, depth: usize) -> Result<Reply, CacheError> {
        let line = self.line()?;
        let (kind, rest) = line.split_at_checked(1).ok_or_else(|| self.nonsense())?;
        Ok(match kind {
            "+" => Reply::Text(rest.to_owned()),
            "-" => return Err(CacheError::Server(rest.to_owned())),
            ":" => Reply::Integer(self.number(rest)?),
            "$" => match self.length(rest)? {
                None => Reply::Null,
                Some(length) => Reply::Bytes(self.bytes(length)?),
            },
            "*" if depth < 8 => match self.length(rest)? {
                None => Reply::Null,
                Some(length) => Reply::Array(
                    (0..length).map(|_| self.reply(depth + 1)).collect::<Result<_, _>>()?,
                ),
            },
            _ => return Err(self.nonsense()),
        })
    }

    fn line(&mut self) -> Result<String, CacheError> {
        let mut line = Vec::new();
        let read = self.stream.by_ref().take(64 * 1024).read_until(b'\n', &mut line);
        read.map_err(|source| self.broken(source))?;
        let text = line.strip_suffix(b"\r\n").and_then(|line| std::str::from_utf8(line).ok());
        text.map(str::to_owned).ok_or_else(|| self.nonsense())
    }

    fn bytes(&mut self, length: usize) -> Result<Vec<u8>, CacheError> {
        let mut bytes = Vec::new();
        let wanted = length as u64 + 2;
        let read = self.stream.by_ref().take(wanted).read_to_end(&mut bytes);
        read.map_err(|source| self.broken(source))?;
        if bytes.len() != length + 2 || !bytes.ends_with(b"\r\n") {
            return Err(self.nonsense());
        }
        bytes.truncate(length);
        Ok(bytes)
    }

    fn number(&self, text: &str) -> Result<i64, CacheError> {
        text.parse().map_err(|_no_number| self.nonsense())
    }

    /// A length; None for the −1 that means *nothing*.
    fn length(&self, text: &str) -> Result<Option<usize>, CacheError> {
        match usize::try_from(self.number(text)?) {
            Ok(length) if length <= ANSWER_MAX => Ok(Some(length)),
            Ok(_) => Err(self.nonsense()),
            Err(_negative) => Ok(None),
        }
    }

    fn nonsense(&self) -> CacheError {
        self.broken(std::io::Error::new(
            ErrorKind::InvalidData,
            "that is no answer of Redis's protocol",
        ))
    }

    fn broken(&self, source: std::io::Error) -> CacheError {
        let server = self.server.clone();
        if matches!(source.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) {
            CacheError::Timeout(server)
        } else {
            CacheError::Broken { server, source }
        }
    }
}

impl Reply {
    pub(crate) fn integer(self) -> Result<i64, CacheError> {
        if let Self::Integer(value) = self {
            Ok(value)
        } else {
            Err(CacheError::Unexpected("integer"))
        }
    }

    pub(crate) fn bytes(self) -> Result<Vec<u8>, CacheError> {
        if let Self::Bytes(bytes) = self {
            Ok(bytes)
        } else {
            Err(CacheError::Unexpected("string"))
        }
    }

    pub(crate) fn array(self) -> Result<Vec<Self>, CacheError> {
        if let Self::Array(array) = self { Ok(array) } else { Err(CacheError::Unexpected("array")) }
    }

    /// A map as RESP2 has it: names and values in turn.
    pub(crate) fn fields(self) -> Result<BTreeMap<String, Self>, CacheError> {
        let mut fields = BTreeMap::new();
        let mut items = self.array()?.into_iter();
        while let (Some(name), Some(value)) = (items.next(), items.next()) {
            fields.insert(String::from_utf8_lossy(&name.bytes()?).into_owned(), value);
        }
        Ok(fields)
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    /// What a client makes of `answer` to its first command.
    fn answer(answer: &'static [u8]) -> Result<Reply, CacheError> {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let server = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut request = [0; 14];
            stream.read_exact(&mut request).unwrap();
            assert_eq!(&request, b"*1\r\n$4\r\nPING\r\n");
            stream.write_all(answer).unwrap();
        });
        let result =
            Client::connect(&address, None, Duration::from_secs(5)).unwrap().call(&[b"PING"]);
        server.join().unwrap();
        result
    }

    #[test]
    fn answers_of_every_type_are_understood() {
        assert_eq!(answer(b"+PONG\r\n").unwrap(), Reply::Text("PONG".into()));
        assert_eq!(answer(b":-7\r\n").unwrap(), Reply::Integer(-7));
        assert_eq!(answer(b"$-1\r\n").unwrap(), Reply::Null);
        assert_eq!(answer(b"$4\r\na\r\nb\r\n").unwrap(), Reply::Bytes(b"a\r\nb".to_vec()));
        let pair = Reply::Array(vec![Reply::Integer(1), Reply::Array(vec![])]);
        assert_eq!(answer(b"*2\r\n:1\r\n*0\r\n").unwrap(), pair);
        assert!(
            matches!(answer(b"-ERR no\r\n"), Err(CacheError::Server(text)) if text == "ERR no")
        );
    }

    #[test]
    fn a_server_that_lies_is_found_out() {
        for lie in
            [&b"$99999999999999\r\n"[..], b"$5\r\nab", b"?\r\n", b"\r\n", b"*2\r\n:1\r\n", b""]
        {
            assert!(matches!(answer(lie), Err(CacheError::Broken { .. })), "{lie:?}");
        }
    }
}
