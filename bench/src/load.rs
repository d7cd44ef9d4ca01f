//! A load on a server: connections that each send a pipeline of commands, and the next one once all replies are there.
//!
//! One thread waits for all connections at once (`epoll`) and does as little as it can for each: requests are written into buffers
//! that are used again, and replies are counted, not read. So the server is what is measured, not the generator.

use std::io::{self, ErrorKind, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use rustix::event::epoll;

/// What a load has shown.
#[derive(Clone, Debug, Default)]
pub struct Shown {
    /// Commands that were answered.
    pub commands: u64,
    /// From the first to the last.
    pub elapsed: Duration,
    /// How long each pipeline took, sorted.
    pub latencies: Vec<Duration>,
}

impl Shown {
    /// Commands a second.
    #[must_use]
    pub fn per_second(&self) -> f64 {
        #[expect(clippy::cast_precision_loss, reason = "far below 2^53")]
        let commands = self.commands as f64;
        commands / self.elapsed.as_secs_f64()
    }

    /// What so many hundredths of the pipelines did not exceed, in milliseconds.
    #[must_use]
    pub fn percentile_ms(&self, percent: usize) -> f64 {
        let last = self.latencies.len().saturating_sub(1);
        self.latencies.get(last * percent / 100).map_or(f64::NAN, |it| it.as_secs_f64() * 1e3)
    }
}

struct Connection {
    stream: TcpStream,
    output: Vec<u8>,
    sent: usize,
    replies: Replies,
    missing: usize,
    began: Instant,
}

impl Connection {
    fn send(&mut self) -> io::Result<()> {
        while self.sent < self.output.len() {
            match self.stream.write(&self.output[self.sent..]) {
                Ok(count) => self.sent += count,
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn begin(&mut self, pipeline: usize, write: &mut impl FnMut(&mut Vec<u8>)) -> io::Result<()> {
        self.output.clear();
        self.sent = 0;
        (0..pipeline).for_each(|_| write(&mut self.output));
        self.missing = pipeline;
        self.began = Instant::now();
        self.send()
    }
}

/// Puts `address` under load for `time`: `connections` of them, each with `pipeline` commands on the way, written by `write`.
///
/// # Errors
/// The sockets', and the first error reply.
pub fn run(
    address: SocketAddr,
    connections: usize,
    pipeline: usize,
    time: Duration,
    mut write: impl FnMut(&mut Vec<u8>),
) -> io::Result<Shown> {
    let poll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
    let mut all = Vec::with_capacity(connections);
    for number in 0..connections {
        let stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        stream.set_nonblocking(true)?;
        let flags = epoll::EventFlags::IN | epoll::EventFlags::OUT | epoll::EventFlags::ET;
        epoll::add(&poll, &stream, epoll::EventData::new_u64(number as u64), flags)?;
        let (output, replies) = (Vec::new(), Replies::default());
        let began = Instant::now();
        all.push(Connection { stream, output, sent: 0, replies, missing: 0, began });
    }
    let start = Instant::now();
    for connection in &mut all {
        connection.begin(pipeline, &mut write)?;
    }
    let mut shown = Shown::default();
    let mut input = vec![0; 256 * 1024];
    let mut events = Vec::with_capacity(connections);
    let mut under_way = connections;
    while under_way > 0 {
        epoll::wait(&poll, rustix::buffer::spare_capacity(&mut events), None)?;
        for event in events.drain(..) {
            let number = usize::try_from(event.data.u64()).expect("a number of ours");
            let connection = &mut all[number];
            connection.send()?;
            loop {
                let count = match connection.stream.read(&mut input) {
                    Ok(0) => return Err(io::Error::other("the server has closed")),
                    Ok(count) => count,
                    Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                    Err(error) => return Err(error),
                };
                connection.missing -= connection.replies.count(&input[..count])?;
                if connection.missing == 0 {
                    let now = Instant::now();
                    shown.latencies.push(now - connection.began);
                    shown.commands += pipeline as u64;
                    if now - start >= time {
                        under_way -= 1;
                        break;
                    }
                    connection.begin(pipeline, &mut write)?;
                }
                if count < input.len() {
                    break;
                }
            }
        }
    }
    shown.elapsed = start.elapsed();
    shown.latencies.sort_unstable();
    Ok(shown)
}

/// Counts replies in a stream of bytes.
#[derive(Clone, Debug, Default)]
struct Replies {
    /// Of a bulk string's bytes and its line's end, how many are still to come.
    skip: usize,
    /// How many elements of an array are still to come.
    elements: usize,
    /// The beginning of a line whose end has not come.
    line: Vec<u8>,
}

impl Replies {
    fn count(&mut self, mut bytes: &[u8]) -> io::Result<usize> {
        let mut replies = 0;
        loop {
            let skipped = self.skip.min(bytes.len());
            self.skip -= skipped;
            bytes = &bytes[skipped..];
            if bytes.is_empty() {
                return Ok(replies);
            }
            let Some(end) = bytes.iter().position(|byte| *byte == b'\n') else {
                self.line.extend_from_slice(bytes);
                return Ok(replies);
            };
            let (head, rest) = bytes.split_at(end + 1);
            bytes = rest;
            let is_whole = if self.line.is_empty() {
                self.line_is_whole(head)?
            } else {
                self.line.extend_from_slice(head);
                let line = std::mem::take(&mut self.line);
                self.line_is_whole(&line)?
            };
            replies += usize::from(is_whole);
        }
    }

    /// Takes a line in; true if a reply ends with it, or with the bytes that follow and are skipped.
    fn line_is_whole(&mut self, line: &[u8]) -> io::Result<bool> {
        let text = std::str::from_utf8(&line[1..line.len() - 2]).unwrap_or_default();
        match line[0] {
            b'-' => return Err(io::Error::other(text.to_owned())),
            b'$' => self.skip = text.parse::<usize>().map_or(0, |length| length + 2),
            b'*' => {
                self.elements = text.parse().unwrap_or(0);
                return Ok(self.elements == 0);
            }
            _ => {}
        }
        self.elements = self.elements.saturating_sub(1);
        Ok(self.elements == 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replies_are_counted_however_they_are_cut() {
        let bytes = b"+OK\r\n:12\r\n$3\r\nabc\r\n$-1\r\n*2\r\n$1\r\na\r\n$-1\r\n*0\r\n$0\r\n\r\n";
        for size in 1..bytes.len() {
            let mut replies = Replies::default();
            let count: usize = bytes.chunks(size).map(|it| replies.count(it).unwrap()).sum();
            assert_eq!(count, 7, "in pieces of {size}");
        }
    }

    #[test]
    fn an_error_ends_the_count() {
        let error = Replies::default().count(b"+OK\r\n-ERR no\r\n").unwrap_err();
        assert_eq!(error.to_string(), "ERR no");
    }
}
