//! Why a store on disk could not be opened, and why one has failed.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use lattice_journal::Fatal;
use thiserror::Error;

use crate::error::Failure;
use crate::read::ReadError;

/// Why a store could not be opened.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum OpenError {
    /// The journal could not be opened: above all, because another process has it open.
    #[error(transparent)]
    Journal(#[from] lattice_journal::OpenError),
    /// The file that says who the store is makes no sense, or is of a newer version.
    #[error("{path} is not the identity of a store of this version", path = path.display())]
    Identity {
        /// The file.
        path: PathBuf,
    },
    /// There are events, and the file that says who the store is is missing. Put it back from a backup.
    #[error("there are events, but {path} is missing", path = path.display())]
    IdentityLost {
        /// The file.
        path: PathBuf,
    },
    /// An option is out of its bounds.
    #[error("{what} is {value}, and may be {bounds}")]
    Option {
        /// Which one.
        what: &'static str,
        /// What it was set to.
        value: u64,
        /// What it may be.
        bounds: &'static str,
    },
    /// The events could not be read.
    #[error("the events could not be read")]
    Read(#[from] ReadError),
    /// The disk failed.
    #[error("{operation} failed on {path}", path = path.display())]
    Io {
        /// The operation that failed, as a word.
        operation: &'static str,
        /// The file or directory it failed on.
        path: PathBuf,
        /// What the disk said.
        source: io::Error,
    },
}

/// A failure of the journal, as every later answer gives it.
pub(super) fn failure(fatal: &Fatal) -> Failure {
    let cause = io::Error::new(fatal.cause().kind(), fatal.cause().to_string());
    Failure { message: fatal.to_string().into(), cause: Some(Arc::new(cause)) }
}

/// A store that takes no appends, in words.
pub(super) fn refusal(message: &str) -> Failure {
    Failure { message: message.into(), cause: None }
}
