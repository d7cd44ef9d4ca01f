//! Reading a trace back.

use std::fmt;
use std::io::{self, BufRead, Read};

use crate::{TraceRecord, VERSION};

/// The longest line that is read, in bytes.
pub const LINE_LENGTH_MAX: u64 = 1 << 20;

/// Why a line was not read.
#[derive(Debug)]
#[non_exhaustive]
pub enum ReadError {
    /// The input failed.
    Io(io::Error),
    /// A line is longer than [`LINE_LENGTH_MAX`].
    TooLong {
        /// Its number, from 1.
        line: u64,
    },
    /// A line is not an event.
    Malformed {
        /// Its number, from 1.
        line: u64,
        /// What is wrong with it.
        source: serde_json::Error,
    },
    /// A line is of a version that this crate does not know.
    UnknownVersion {
        /// Its number, from 1.
        line: u64,
        /// Its version.
        version: u32,
    },
}

impl fmt::Display for ReadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io(_) => write!(f, "the trace cannot be read"),
            Self::TooLong { line } => {
                write!(f, "line {line} is longer than {LINE_LENGTH_MAX} bytes")
            }
            Self::Malformed { line, .. } => write!(f, "line {line} is not a trace event"),
            Self::UnknownVersion { line, version } => {
                write!(f, "line {line} has version {version}, and only {VERSION} is known")
            }
        }
    }
}

impl std::error::Error for ReadError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Io(error) => Some(error),
            Self::Malformed { source, .. } => Some(source),
            Self::TooLong { .. } | Self::UnknownVersion { .. } => None,
        }
    }
}

/// The events of a trace, in order; empty lines are skipped. It ends after the first error.
#[derive(Debug)]
pub struct TraceReader<R> {
    input: R,
    line: u64,
    failed: bool,
}

impl<R: BufRead> TraceReader<R> {
    /// Reads from `input`.
    pub fn new(input: R) -> Self {
        Self { input, line: 0, failed: false }
    }

    fn read(&mut self) -> Result<Option<TraceRecord>, ReadError> {
        let mut text = Vec::new();
        loop {
            text.clear();
            self.line += 1;
            let mut limited = (&mut self.input).take(LINE_LENGTH_MAX + 1);
            let read = limited.read_until(b'\n', &mut text).map_err(ReadError::Io)?;
            if read == 0 {
                return Ok(None);
            }
            if limited.limit() == 0 {
                return Err(ReadError::TooLong { line: self.line });
            }
            if !text.trim_ascii().is_empty() {
                break;
            }
        }
        let record: TraceRecord = serde_json::from_slice(&text)
            .map_err(|source| ReadError::Malformed { line: self.line, source })?;
        if record.v != VERSION {
            return Err(ReadError::UnknownVersion { line: self.line, version: record.v });
        }
        Ok(Some(record))
    }
}

impl<R: BufRead> Iterator for TraceReader<R> {
    type Item = Result<TraceRecord, ReadError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.failed {
            return None;
        }
        let next = self.read().transpose();
        self.failed = matches!(next, Some(Err(_)));
        next
    }
}
