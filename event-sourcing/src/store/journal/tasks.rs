//! What is done beside the log, on any thread.

use std::sync::Arc;

use lattice_journal::PendingSeal;

use super::directory::Directory;
use super::index_file::Binding;
use super::part::Part;
use super::view::Shared;
use crate::read::ReadError;

/// The index of a rewritten segment that is to be brought up to date. Until then it names events that are hidden, which changes no
/// answer but [`LogReader::types`](super::log_reader::LogReader::types).
#[derive(Debug)]
pub struct ReloadTask {
    part: Arc<Part>,
    shared: Arc<Shared>,
}

impl ReloadTask {
    pub(super) fn new(part: Arc<Part>, shared: Arc<Shared>) -> Self {
        Self { part, shared }
    }

    /// Reads the segment. [`EventLog::upkeep`](super::event_log::EventLog::upkeep) has its index file to write then.
    ///
    /// # Errors
    ///
    /// If the disk fails: the old index stays.
    pub fn run(self) -> Result<(), ReadError> {
        self.part.reload(&self.shared.reader)
    }
}

/// A file that is to be written.
#[derive(Debug)]
pub struct UpkeepTask(Upkeep);

#[derive(Debug)]
enum Upkeep {
    Index { part: Arc<Part>, directory: Directory, binding: Binding },
    Seal(PendingSeal),
}

impl UpkeepTask {
    pub(super) fn index(part: Arc<Part>, directory: Directory, binding: Binding) -> Self {
        Self(Upkeep::Index { part, directory, binding })
    }

    pub(super) fn seal(seal: PendingSeal) -> Self {
        Self(Upkeep::Seal(seal))
    }

    /// Writes it. An index file takes the place of the memory that it was made of.
    ///
    /// # Errors
    ///
    /// If the disk fails, which loses nothing: the next opening makes up for it.
    pub fn run(self) -> std::io::Result<()> {
        match self.0 {
            Upkeep::Index { part, directory, binding } => directory.write_index(&part, &binding),
            Upkeep::Seal(seal) => seal.write(),
        }
    }
}
