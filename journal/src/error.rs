//! What can go wrong, sorted by what the owner has to do about it.

use std::fmt;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use thiserror::Error;

/// A failure after which nothing is known about what the disk holds: the journal is poisoned and the node must stop.
///
/// It is the same value in every later error of this journal, so that the first cause is never lost.
#[derive(Clone, Debug, Error)]
#[error("{operation} failed on {path}: {cause}", path = path.display())]
pub struct Fatal {
    operation: &'static str,
    path: PathBuf,
    #[source]
    cause: Arc<io::Error>,
}

impl Fatal {
    pub(crate) fn new(operation: &'static str, path: &Path, cause: io::Error) -> Self {
        Self { operation, path: path.to_path_buf(), cause: Arc::new(cause) }
    }

    /// The operation of the disk that failed, as a phrase.
    #[must_use]
    pub fn operation(&self) -> &'static str {
        self.operation
    }

    /// The file or directory it failed on.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What the disk said.
    #[must_use]
    pub fn cause(&self) -> &io::Error {
        &self.cause
    }
}

/// Something is over its limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("{what} of {size} bytes is over the limit of {limit}")]
#[non_exhaustive]
pub struct TooLarge {
    /// What is too large: `item` or `batch`.
    pub what: &'static str,
    /// Its size in bytes.
    pub size: u64,
    /// The limit in bytes.
    pub limit: u64,
}

/// Why a batch was not appended. Unless it is [`AppendError::Fatal`], the journal is as it was before.
#[derive(Clone, Debug, Error)]
#[non_exhaustive]
pub enum AppendError {
    /// The disk is full. The same batch may be tried again later, when space was freed.
    #[error("no space for a frame of {needed} bytes")]
    NoSpace {
        /// Length of the refused frame in bytes.
        needed: u64,
    },
    /// An item, or the batch as a whole, is over its limit.
    #[error(transparent)]
    TooLarge(#[from] TooLarge),
    /// The items do not begin at the next position.
    #[error("items begin at position {found}, the next position is {expected}")]
    Position {
        /// The next position of the journal, after the batch's own truncation.
        expected: u64,
        /// The batch's first position.
        found: u64,
    },
    /// The truncation begins outside of the positions that the journal holds.
    #[error("cannot truncate from {from}: the journal holds {held:?}")]
    Truncation {
        /// Where the batch wanted to truncate from.
        from: u64,
        /// The positions held.
        held: Range<u64>,
    },
    /// Items that are to be put back are no part of the log.
    #[error("cannot put items {items:?} back: the journal holds {held:?}")]
    NotHeld {
        /// Their positions.
        items: Range<u64>,
        /// The positions held.
        held: Range<u64>,
    },
    /// A batch cannot both truncate and restart.
    #[error("a batch may truncate or restart the log, not both")]
    TruncatesAndRestarts,
    /// The journal is open for reading only: it was found damaged when it was opened, or opened so.
    #[error("the journal is open for reading only: it is damaged, or was opened so")]
    Damaged,
    /// The journal is poisoned.
    #[error(transparent)]
    Fatal(#[from] Fatal),
}

/// Why an operation on the whole journal failed.
#[derive(Clone, Debug, Error)]
#[non_exhaustive]
pub enum JournalError {
    /// The disk is full. The journal is as it was before, and the operation may be tried again.
    #[error("no space for {needed} bytes")]
    NoSpace {
        /// How many bytes could not be allocated.
        needed: u64,
    },
    /// There is no sealed segment of this number.
    #[error("there is no sealed segment {segment}")]
    NoSuchSegment {
        /// The number asked for.
        segment: u64,
    },
    /// A replacement is over its limit.
    #[error(transparent)]
    TooLarge(#[from] TooLarge),
    /// A segment that is to be rewritten does not read back as it was written. It was left alone.
    #[error("segment {segment} is damaged at byte {offset}")]
    Corrupt {
        /// The segment.
        segment: u64,
        /// Where its frames stop being intact, in bytes from its beginning.
        offset: u64,
    },
    /// A segment that is to be rewritten holds items that were put back, of another segment. It was left alone.
    #[error("segment {segment} mends another one")]
    Mends {
        /// The segment.
        segment: u64,
    },
    /// A segment that is to be rewritten could not be read. It was left alone.
    #[error("reading segment {segment} failed: {cause}")]
    Unreadable {
        /// The segment.
        segment: u64,
        /// What the disk said.
        cause: Arc<io::Error>,
    },
    /// The journal is open for reading only: it was found damaged when it was opened, or opened so.
    #[error("the journal is open for reading only: it is damaged, or was opened so")]
    Damaged,
    /// The journal is poisoned.
    #[error(transparent)]
    Fatal(#[from] Fatal),
}

/// Why a journal could not be opened.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum OpenError {
    /// Another holder has the journal open.
    #[error("the journal in {directory} is in use", directory = directory.display())]
    Locked {
        /// The journal's directory.
        directory: PathBuf,
    },
    /// The directory holds another journal.
    #[error("segment {segment} belongs to journal {found:032x}, not to {expected:032x}")]
    OtherJournal {
        /// The segment that says so.
        segment: u64,
        /// The id it bears.
        found: u128,
        /// The id that was asked for.
        expected: u128,
    },
    /// The journal was written by a newer version of this crate.
    #[error("segment {segment} has format version {version}, newer than {newest}")]
    Version {
        /// The segment that says so.
        segment: u64,
        /// Its version.
        version: u32,
        /// The newest version that can be read here.
        newest: u32,
    },
    /// A file looks like a segment, but its name is none that this crate writes.
    #[error("{name} looks like a segment but has no proper segment name")]
    SegmentName {
        /// The file's name.
        name: String,
    },
    /// There is a spare, which is made only after the first segment, but no segment: all of them were removed.
    #[error("the journal in {directory} has lost all its segments", directory = directory.display())]
    SegmentsLost {
        /// The journal's directory.
        directory: PathBuf,
    },
    /// It was to be opened for reading only, and there is none.
    #[error("there is no journal in {directory}", directory = directory.display())]
    Missing {
        /// The directory.
        directory: PathBuf,
    },
    /// The disk failed.
    #[error("{operation} failed on {path}", path = path.display())]
    Io {
        /// The operation that failed, as a phrase.
        operation: &'static str,
        /// The file or directory it failed on.
        path: PathBuf,
        /// What the disk said.
        source: io::Error,
    },
}

/// Names the operation and the file in an error of the disk.
pub(crate) fn at<'a>(
    operation: &'static str,
    path: &'a Path,
) -> impl FnOnce(io::Error) -> OpenError + 'a {
    move |source| OpenError::Io { operation, path: path.to_path_buf(), source }
}

impl From<Fatal> for OpenError {
    fn from(fatal: Fatal) -> Self {
        let source = io::Error::new(fatal.cause.kind(), Arc::clone(&fatal.cause));
        Self::Io { operation: fatal.operation, path: fatal.path, source }
    }
}

/// Why items could not be read.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ReadError {
    /// The first item asked for is below those that the journal holds: it was compacted away or forgotten by a restart.
    #[error("the journal holds {held:?}")]
    NotHeld {
        /// The positions that the journal holds.
        held: Range<u64>,
    },
    /// The first item asked for is known to be damaged since the journal was opened.
    #[error("items {positions:?} are damaged")]
    Damaged {
        /// The damaged positions; an end of [`u64::MAX`] means that it is not known where they end.
        positions: Range<u64>,
    },
    /// The frame of the first item does not read back as it was written: it rotted since the journal was opened, or since its
    /// segment was sealed.
    #[error("items {positions:?} are damaged: segment {segment}, byte {offset}")]
    Corrupt {
        /// The items that are lost with it, among them the first one that was asked for. What is behind them can be read.
        positions: Range<u64>,
        /// The frame's segment.
        segment: u64,
        /// Where bytes stop being intact frames, from the beginning of the segment.
        offset: u64,
    },
    /// The disk failed.
    #[error("reading segment {segment} failed")]
    Io {
        /// The items in what was to be read: those behind them may be readable.
        positions: Range<u64>,
        /// The segment.
        segment: u64,
        /// What the disk said.
        source: io::Error,
    },
}

/// Shows a range of positions or sequences whose end may be unknown.
pub(crate) struct OpenRange<'a>(pub(crate) &'a Range<u64>);

impl fmt::Display for OpenRange<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.end {
            u64::MAX => write!(f, "{}..?", self.0.start),
            end => write!(f, "{}..{end}", self.0.start),
        }
    }
}
