//! Writing a trace, up to a limit.

use std::io::{self, Write};

use serde::Serialize;

use crate::Envelope;

/// Writes events as JSON lines until it has written as many bytes as it may; what comes after is counted and dropped,
/// so that a trace that was left on fills no disk.
#[derive(Debug)]
pub struct TraceWriter<W> {
    output: W,
    bytes_left: u64,
    dropped: u64,
    line: Vec<u8>,
}

impl<W: Write> TraceWriter<W> {
    /// A writer of at most `bytes_max` bytes. Give it a buffered output: it writes line by line.
    pub fn new(output: W, bytes_max: u64) -> Self {
        Self { output, bytes_left: bytes_max, dropped: 0, line: Vec::new() }
    }

    /// Writes one event as a line, or drops it if the line does not fit into what is left.
    ///
    /// # Errors
    /// Those of the output, and of fields that do not serialise as a map.
    pub fn write<K: Serialize>(&mut self, event: &Envelope<'_, K>) -> io::Result<()> {
        self.line.clear();
        serde_json::to_writer(&mut self.line, event)?;
        self.line.push(b'\n');
        let length = u64::try_from(self.line.len()).unwrap_or(u64::MAX);
        match self.bytes_left.checked_sub(length) {
            Some(left) => {
                self.output.write_all(&self.line)?;
                self.bytes_left = left;
            }
            // No shorter event may follow a dropped one: a trace has no holes, only an end.
            None => {
                self.bytes_left = 0;
                self.dropped += 1;
            }
        }
        Ok(())
    }

    /// How many events were dropped for want of room.
    pub fn dropped(&self) -> u64 {
        self.dropped
    }

    /// Flushes the output and gives it back.
    ///
    /// # Errors
    /// Those of the output.
    pub fn finish(mut self) -> io::Result<W> {
        self.output.flush()?;
        Ok(self.output)
    }
}
