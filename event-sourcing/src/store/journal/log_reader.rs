//! Reads a log while it goes on.

use std::sync::Arc;

use super::chain::ChainHead;
use super::part::Access;
use super::verify::{Verification, verify};
use super::view::{Shared, View};
use crate::append::Append;
use crate::event::{Position, Recorded, StreamName};
use crate::machine::evaluation::Evaluation;
use crate::machine::{Entry, Index};
use crate::page;
use crate::read::{Page, Read, ReadError};
use crate::store::{StreamInfo, TypeCount};

/// Reads the durable events of a log; clones can be used from any thread.
#[derive(Clone, Debug)]
pub struct LogReader {
    shared: Arc<Shared>,
}

impl LogReader {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self { shared }
    }

    /// The last durable position.
    #[must_use]
    pub fn head(&self) -> Position {
        self.shared.published().head
    }

    /// Reads a page.
    ///
    /// # Errors
    ///
    /// As [`page::read`].
    pub fn read(&self, read: &Read) -> Result<Page, ReadError> {
        page::read(&View::new(&self.shared, Access::Disk), read)
    }

    /// The event at a position, whatever retention says; `None` if its space was taken back, or if there is no such position.
    ///
    /// # Errors
    ///
    /// If it cannot be read.
    pub fn recorded(&self, position: Position) -> Result<Option<Arc<Recorded>>, ReadError> {
        let view = View::new(&self.shared, Access::Disk);
        if position == Position::BEGINNING || position > view.head() {
            return Ok(None);
        }
        match view.event(position)? {
            Entry::Event(recorded) => Ok(Some(recorded)),
            Entry::Scavenged(_) => Ok(None),
        }
    }

    /// Looks at the queries of an append ahead of its turn, and says up to where no durable event stands against it, and none ever
    /// will: for [`EventLog::stage_evaluated`](super::EventLog::stage_evaluated).
    ///
    /// # Errors
    ///
    /// If the log cannot be read.
    pub fn evaluate(&self, append: &Append) -> Result<Position, ReadError> {
        let mut evaluation = Evaluation::new(Position::BEGINNING, self.head());
        loop {
            if let Some(to) = self.evaluate_piece(&mut evaluation, append, page::WORK_MAX)? {
                return Ok(to);
            }
        }
    }

    /// A piece of it.
    pub(super) fn evaluate_piece(
        &self,
        evaluation: &mut Evaluation,
        append: &Append,
        work: u64,
    ) -> Result<Option<Position>, ReadError> {
        evaluation.go_on(&View::new(&self.shared, Access::Disk), append, work)
    }

    /// What is known of a stream.
    ///
    /// # Errors
    ///
    /// If the log cannot be read.
    pub fn stream(&self, stream: &StreamName) -> Result<Option<StreamInfo>, ReadError> {
        page::stream_info(&View::new(&self.shared, Access::Disk), stream)
    }

    /// Every event type with each version of its schema, and how many events have it.
    ///
    /// # Errors
    ///
    /// If the log cannot be read.
    pub fn types(&self) -> Result<Vec<TypeCount>, ReadError> {
        View::new(&self.shared, Access::Disk).type_counts()
    }

    /// Looks through the whole log, and compares its hash chain with the one that was noted.
    ///
    /// # Errors
    ///
    /// If the disk fails.
    pub fn verify(&self, noted: Option<ChainHead>) -> Result<Verification, ReadError> {
        self.verify_until(noted, &|| false)
    }

    /// As [`LogReader::verify`], but ends with [`ReadError::Closed`] when `is_over` says so.
    pub(super) fn verify_until(
        &self,
        noted: Option<ChainHead>,
        is_over: &dyn Fn() -> bool,
    ) -> Result<Verification, ReadError> {
        verify(&self.shared, noted, is_over)
    }

    /// Answers from memory, without waiting for the disk; `None` if that cannot be.
    pub(super) fn ask_memory<T>(
        &self,
        ask: impl FnOnce(&View) -> Result<T, ReadError>,
    ) -> Option<Result<T, ReadError>> {
        let view = View::new(&self.shared, Access::MemoryOnly);
        let answer = ask(&view);
        (!view.needed_disk()).then_some(answer)
    }

    /// What the index takes.
    #[must_use]
    pub fn index_memory(&self) -> IndexMemory {
        let parts = self.shared.published().parts;
        let (growing, sealed) = parts.split_last().expect("the last part grows");
        IndexMemory {
            sealed: sealed.iter().map(|part| part.memory()).sum(),
            growing: growing.memory(),
            journal: self.shared.reader.index_memory(),
            files: sealed.iter().map(|part| part.file_length()).sum(),
        }
    }
}

/// What an index takes, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IndexMemory {
    /// Memory for complete segments.
    pub sealed: usize,
    /// Memory for the one that grows.
    pub growing: usize,
    /// Memory of the journal's own index, which says where events are.
    pub journal: usize,
    /// Index files.
    pub files: u64,
}
