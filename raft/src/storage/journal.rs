//! A node's log on a journal.
//!
//! One [`PersistBatch`] is one batch of the journal: truncation, entries and state become durable together or not at all. An entry is
//! an item whose position is its index; term, vote and latest snapshot are the state, which the journal repeats at the
//! beginning of each segment, so that dropping old segments loses neither. Encodings: `journal/encoding.rs`.
//!
//! Compaction drops whole segments and never what a *durable* snapshot does not cover. So the journal may hold entries
//! from before the snapshot, which slow followers are glad of.
//!
//! A log in which entries are damaged is opened, with a report on them, as long as its term, its vote and its end are known;
//! [`PersistBatch::repaired`] puts them back, at the price of their own length: what stands behind them stays where it is. A log that lost more, or that contradicts itself, is not opened: see [`OpenLogError`].

use std::ops::RangeInclusive;
use std::path::Path;
use std::sync::Arc;

use lattice_journal::{
    AppendError, Batch, Disk, Journal, JournalError, JournalOptions, ReadError, Reader, TornTail,
};

use super::outline::Outline;
use super::{LogReader, LogStore, RecoveredState, StorageError};
use crate::effects::PersistBatch;
use crate::types::{Entry, LogIndex};

mod encoding;
mod recovery;

use encoding::{decode_entry, encode_state};
pub use recovery::OpenLogError;

/// How a log is kept.
#[derive(Clone, Debug)]
pub struct JournalLogOptions {
    /// The journal's identity, segment sizes and limits; the identity is [`super::DataDirectory::log_id`].
    pub journal: JournalOptions,
    /// How many bytes of the newest entries recovery reads into memory, one entry at least; see
    /// [`RecoveredState::tail`].
    pub tail_bytes_max: usize,
}

/// A [`LogStore`] on a journal.
#[derive(Debug)]
pub struct JournalLog {
    journal: Journal,
    /// The log with everything that was appended.
    appended: Outline,
    /// The place up to which a durable snapshot stands in for the log.
    covered: LogIndex,
    torn: Option<TornTail>,
}

/// A [`LogReader`] of a [`JournalLog`]. It sees what was synced.
#[derive(Clone, Debug)]
pub struct JournalLogReader {
    reader: Reader,
}

/// Repaired entries are written in frames of this many bytes, or of one entry that is longer.
const MENDED_AT_ONCE: usize = 8 << 20;

impl JournalLogOptions {
    /// The usual sizes, and a tail of 16 MiB.
    #[must_use]
    pub fn new(id: u128) -> Self {
        Self { journal: JournalOptions::new(id), tail_bytes_max: 16 << 20 }
    }
}

impl JournalLog {
    /// Opens the log in `directory`, or creates it there, and reads it once from end to end. Blocks on the disk.
    ///
    /// # Errors
    ///
    /// See [`OpenLogError`]. The files are then as they were.
    pub fn open(
        disk: Arc<dyn Disk>,
        directory: &Path,
        options: JournalLogOptions,
    ) -> Result<(Self, RecoveredState), OpenLogError> {
        let mut journal = options.journal;
        journal.repairs = true;
        let (journal, found) = Journal::open(disk, directory, journal)?;
        let torn = found.torn.clone();
        let recovered =
            recovery::recover(directory, found, &journal.reader(), options.tail_bytes_max)?;
        let appended = Outline {
            hard_state: recovered.hard_state,
            snapshot: recovered.snapshot.clone(),
            terms: recovered.terms.clone(),
        };
        let covered = appended.covered();
        Ok((Self { journal, appended, covered, torn }, recovered))
    }

    /// What opening cut off: writes that no sync had covered.
    #[must_use]
    pub fn torn_tail(&self) -> Option<&TornTail> {
        self.torn.as_ref()
    }

    /// Bytes that the log takes up on disk.
    #[must_use]
    pub fn bytes_on_disk(&self) -> u64 {
        self.journal.status().bytes_on_disk()
    }

    /// The files of the log, oldest first, and the entries in each.
    #[must_use]
    pub fn segments(&self) -> Vec<lattice_journal::SegmentInfo> {
        self.journal.segments()
    }

    /// The state to be written with `batch`, if the batch changes it.
    fn state_after(&self, batch: &PersistBatch) -> Option<Vec<u8>> {
        if batch.hard_state.is_none() && batch.snapshot.is_none() {
            return None;
        }
        let hard_state = batch.hard_state.unwrap_or(self.appended.hard_state);
        let snapshot = batch.snapshot.as_ref().or(self.appended.snapshot.as_ref());
        Some(encode_state(hard_state, snapshot))
    }
}

impl JournalLog {
    /// Puts repaired entries back, a few MiB in a frame: a crash leaves some of them lost and the others not, and each is by itself the
    /// very entry that was lost. So neither the length of the damage nor what stands behind it matters.
    fn mend(&mut self, repaired: &[Entry]) -> Result<(), StorageError> {
        let mut rest = repaired;
        while let Some(first) = rest.first() {
            let mut bytes = 0;
            let fits = |entry: &&Entry| {
                bytes += entry.size();
                bytes <= MENDED_AT_ONCE
            };
            let count = rest.iter().take_while(fits).count().max(1);
            let (piece, behind) = rest.split_at(count);
            let items: Vec<&Entry> = piece.iter().collect();
            self.journal.mend(first.id.index.0, &items).map_err(append_error)?;
            rest = behind;
        }
        Ok(())
    }
}

impl LogStore for JournalLog {
    type Reader = JournalLogReader;

    fn reader(&self) -> JournalLogReader {
        JournalLogReader { reader: self.journal.reader() }
    }

    fn append(&mut self, batch: &PersistBatch) -> Result<(), StorageError> {
        self.appended.check(batch).map_err(fatal)?;
        self.mend(&batch.repaired)?;
        let next = self.appended.terms.last().index.next();
        let truncate_from = batch.truncate_from.filter(|&from| from < next && !batch.restart_log);
        let restart_at = match &batch.snapshot {
            Some(meta) if batch.restart_log => Some(meta.last.index.next()),
            _ => None,
        };
        let rest = Batch {
            truncate_from: truncate_from.map(|from| from.0),
            restart_at: restart_at.map(|index| index.0),
            first: batch.entries.first().map_or(0, |entry| entry.id.index.0),
            items: batch.entries.iter().collect(),
            state: self.state_after(batch),
        };
        let is_all = !batch.repaired.is_empty() && rest == Batch::default();
        if !is_all {
            self.journal.append(&rest).map_err(append_error)?;
        }
        self.appended.apply(batch);
        Ok(())
    }

    fn sync(&mut self) -> Result<(), StorageError> {
        self.journal.sync().map_err(journal_error)?;
        self.covered = self.appended.covered();
        Ok(())
    }

    fn idle(&mut self) -> Result<(), StorageError> {
        self.journal.mark().map_err(journal_error)
    }

    fn compact(&mut self, through: LogIndex) -> Result<(), StorageError> {
        let keep_from = through.min(self.covered).next();
        self.journal.compact(keep_from.0).map_err(journal_error)?;
        let dropped = LogIndex(self.journal.positions().start).previous();
        self.appended.terms.compact(dropped);
        Ok(())
    }

    fn is_low_on_space(&self) -> bool {
        self.journal.status().low_space()
    }
}

impl LogReader for JournalLogReader {
    fn entries(
        &self,
        range: RangeInclusive<LogIndex>,
        bytes_max: usize,
    ) -> Result<Vec<Entry>, StorageError> {
        let (from, through) = range.into_inner();
        if from > through {
            return Ok(Vec::new());
        }
        let held = self.reader.positions();
        if from.0 >= held.end {
            return Err(out_of_range(from, held));
        }
        let mut taken =
            Taken { entries: Vec::new(), bytes: 0, bytes_max, flaw: None, is_full: false };
        let end = through.0.min(held.end - 1) + 1;
        let read = self.reader.visit(from.0..end, bytes_max, |position, bytes| {
            taken.take(LogIndex(position), bytes);
        });
        read.map_err(|error| match error {
            ReadError::NotHeld { held } => out_of_range(from, held),
            error => damaged(error, from, &held),
        })?;
        match taken.flaw {
            Some(flaw) => Err(fatal(flaw)),
            // A truncation came between the two looks at the journal.
            None if taken.entries.is_empty() => Err(out_of_range(from, self.reader.positions())),
            None => Ok(taken.entries),
        }
    }
}

/// Gathers entries until they are enough.
struct Taken {
    entries: Vec<Entry>,
    bytes: usize,
    bytes_max: usize,
    flaw: Option<encoding::EncodingError>,
    is_full: bool,
}

impl Taken {
    fn take(&mut self, index: LogIndex, bytes: &[u8]) {
        if self.is_full || self.flaw.is_some() {
            return;
        }
        match decode_entry(index, bytes) {
            Ok(entry) => {
                self.bytes += entry.size();
                self.is_full = self.bytes > self.bytes_max && !self.entries.is_empty();
                if !self.is_full {
                    self.entries.push(entry);
                }
            }
            Err(flaw) => self.flaw = Some(flaw),
        }
    }
}

fn out_of_range(index: LogIndex, held: std::ops::Range<u64>) -> StorageError {
    let (first, last) = (LogIndex(held.start), LogIndex(held.end).previous());
    StorageError::OutOfRange { index, first, last }
}

/// What stands at `index` cannot be read: a bad checksum, or the disk says so.
fn damaged(error: ReadError, index: LogIndex, held: &std::ops::Range<u64>) -> StorageError {
    let positions = match &error {
        ReadError::Damaged { positions }
        | ReadError::Corrupt { positions, .. }
        | ReadError::Io { positions, .. } => positions.clone(),
        _ => index.0..index.next().0,
    };
    let first = LogIndex(positions.start.max(held.start)).min(index);
    let last = LogIndex(positions.end.min(held.end)).previous().max(index);
    StorageError::Damaged { first, last, source: Arc::new(error) }
}

fn append_error(error: AppendError) -> StorageError {
    match error {
        AppendError::NoSpace { .. } => StorageError::NoSpace(Arc::new(error)),
        _ => fatal(error),
    }
}

fn fatal(error: impl std::error::Error + Send + Sync + 'static) -> StorageError {
    StorageError::Fatal(Arc::new(error))
}

fn journal_error(error: JournalError) -> StorageError {
    match error {
        JournalError::NoSpace { .. } => StorageError::NoSpace(Arc::new(error)),
        _ => fatal(error),
    }
}

#[cfg(test)]
mod tests;
