//! Where a node keeps its log and its vote.
//!
//! A [`LogStore`] is the writer: a plain struct that one thread owns. A [`LogReader`] reads while the writer runs. The promise
//! of every implementation: what [`LogStore::sync`] has covered is what [`RecoveredState`] gives back after a crash, each
//! [`PersistBatch`] whole or not at all, in order; and a failed write or sync is final.

use std::fmt::Debug;
use std::ops::RangeInclusive;
use std::sync::Arc;

use thiserror::Error;

use crate::effects::PersistBatch;
use crate::membership::Membership;
use crate::types::{Entry, EntryId, HardState, LogIndex, SnapshotMeta, Term};

#[cfg(feature = "journal")]
mod identity;
#[cfg(feature = "journal")]
mod journal;
mod memory;
mod outline;
#[cfg(feature = "journal")]
mod snapshot;

#[cfg(feature = "journal")]
pub use identity::{DataDirectory, Identity, IdentityError};
#[cfg(feature = "journal")]
pub use journal::{JournalLog, JournalLogOptions, JournalLogReader, OpenLogError};
pub use memory::{MemoryLog, MemoryLogReader};
#[cfg(feature = "journal")]
pub use snapshot::{
    Received, SnapshotCounts, SnapshotError, SnapshotReader, SnapshotStore, SnapshotWriter,
};

/// Why the log store could not do what was asked.
#[derive(Clone, Debug, Error)]
#[non_exhaustive]
pub enum StorageError {
    /// No room. Nothing was written; try again when there is.
    #[error("no space left for the log: {0}")]
    NoSpace(Arc<dyn std::error::Error + Send + Sync>),
    /// A write or a sync failed, or what was read is not what was written. The store must not be used any more.
    #[error("the log store failed: {0}")]
    Fatal(#[source] Arc<dyn std::error::Error + Send + Sync>),
    /// Entries were durable and do not read back as they were written. Others may have them: see `raft_node/repair.rs`.
    #[error("entries {first} to {last} of the log are damaged: {source}")]
    Damaged {
        /// The first of them.
        first: LogIndex,
        /// The last of them.
        last: LogIndex,
        /// What was found.
        source: Arc<dyn std::error::Error + Send + Sync>,
    },
    /// The entries asked for are no longer, or not yet, in the log.
    #[error("entry {index} is not in the log, which holds {first} to {last}")]
    OutOfRange {
        /// What was asked for.
        index: LogIndex,
        /// The first entry in the log.
        first: LogIndex,
        /// The last entry in the log.
        last: LogIndex,
    },
}

/// The terms of consecutive entries, as runs: a term's entries are consecutive, and terms change rarely, so the terms of
/// a log of any length fit into a few words.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct TermRuns {
    /// First index and term of each run, ascending in both.
    runs: Vec<(LogIndex, Term)>,
    /// The entry before the first run's.
    base: EntryId,
    last: LogIndex,
}

/// Consecutive entries that are in the log, and whose content is lost here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DamagedEntries {
    /// The first of them.
    pub first: LogIndex,
    /// The last of them.
    pub last: LogIndex,
    /// The terms of these entries are known, because no other would fit between those of their neighbours. If not, the terms
    /// that [`RecoveredState::terms`] has for them are stand-ins: the earliest possible ones, or the latest possible ones if the last entry
    /// of the log is among them, so that no log that is less complete than this one was is taken for its equal.
    pub terms_known: bool,
}

/// What a log store found when it was opened.
#[derive(Clone, Debug, Default)]
pub struct RecoveredState {
    /// The latest term and vote.
    pub hard_state: HardState,
    /// The latest snapshot that the log stands on.
    pub snapshot: Option<SnapshotMeta>,
    /// The terms of all entries present; its base is what precedes the first of them.
    pub terms: TermRuns,
    /// Membership entries present in the log, ascending.
    pub memberships: Vec<(LogIndex, Membership)>,
    /// The newest entries, up to some budget of bytes, for the in-memory tail of the log; ends with the last entry. Empty if that
    /// one is damaged.
    pub tail: Vec<Entry>,
    /// What is damaged behind the snapshot, ascending.
    pub damaged: Vec<DamagedEntries>,
}

/// The writer of a node's log.
pub trait LogStore: Debug + Send + 'static {
    /// Reads while the writer runs.
    type Reader: LogReader;

    /// A reader of this log.
    fn reader(&self) -> Self::Reader;

    /// Takes a batch into the queue of writes. After [`StorageError::NoSpace`] nothing has changed and the same batch may be
    /// given again.
    fn append(&mut self, batch: &PersistBatch) -> Result<(), StorageError>;

    /// Makes all that was appended durable.
    fn sync(&mut self) -> Result<(), StorageError>;

    /// Nothing is waiting: a chance to close the window of what a crash could leave in doubt.
    fn idle(&mut self) -> Result<(), StorageError>;

    /// Drops entries up to and including `through`, as far as it is cheap to.
    fn compact(&mut self, through: LogIndex) -> Result<(), StorageError>;

    /// Whether there is little room left, so that new commands should be refused while deletes and compaction go on.
    fn is_low_on_space(&self) -> bool;
}

/// Reads a log while it is written.
pub trait LogReader: Clone + Debug + Send + Sync + 'static {
    /// Entries of `range`, in order, from its start: as many as fit in `bytes_max` (see [`Entry::size`]), but one at least.
    fn entries(
        &self,
        range: RangeInclusive<LogIndex>,
        bytes_max: usize,
    ) -> Result<Vec<Entry>, StorageError>;
}

impl TermRuns {
    /// The terms of an empty log that follows `base`.
    #[must_use]
    pub fn after(base: EntryId) -> Self {
        Self { runs: Vec::new(), base, last: base.index }
    }

    /// What precedes the first entry.
    #[must_use]
    pub fn base(&self) -> EntryId {
        self.base
    }

    /// The last entry, or the base of an empty log.
    #[must_use]
    pub fn last(&self) -> EntryId {
        let term = self.runs.last().map_or(self.base.term, |&(_, term)| term);
        EntryId::new(term, self.last)
    }

    /// The term of the entry at `index`; `None` if it is before the base or behind the end.
    #[must_use]
    pub fn term_at(&self, index: LogIndex) -> Option<Term> {
        if index < self.base.index || index > self.last {
            return None;
        }
        let after = self.runs.partition_point(|&(first, _)| first <= index);
        Some(match after.checked_sub(1) {
            Some(run) => self.runs[run].1,
            None => self.base.term,
        })
    }

    /// The last entry at or before `index` whose term is at most `term`; the base if there is none.
    #[must_use]
    pub fn last_at_most(&self, index: LogIndex, term: Term) -> EntryId {
        let index = index.clamp(self.base.index, self.last);
        // Runs ascend in term as well as in index: what qualifies is a prefix of them.
        let after = self.runs.partition_point(|&(first, of)| first <= index && of <= term);
        let end = self.runs.get(after).map_or(index, |&(first, _)| first.previous().min(index));
        let of = after.checked_sub(1).map_or(self.base.term, |run| self.runs[run].1);
        EntryId::new(of, end)
    }

    /// Adds the next entry.
    ///
    /// # Panics
    ///
    /// If it is not the next one, or its term is lower than the one before: both are broken invariants.
    pub fn push(&mut self, id: EntryId) {
        let last = self.last();
        assert_eq!(id.index, last.index.next(), "entries are consecutive");
        assert!(id.term >= last.term, "terms in a log never fall: {id} after {last}");
        if self.runs.is_empty() || id.term > last.term {
            self.runs.push((id.index, id.term));
        }
        self.last = id.index;
    }

    /// Adds entries up to `last`, all of `term`.
    pub(crate) fn extend(&mut self, last: LogIndex, term: Term) {
        if last > self.last {
            self.push(EntryId::new(term, self.last.next()));
            self.last = last;
        }
    }

    /// Learns the ids of consecutive entries of which it had stand-ins.
    ///
    /// # Panics
    ///
    /// If they do not fit between their neighbours.
    pub(crate) fn learn(&mut self, ids: impl IntoIterator<Item = EntryId>) {
        let mut ids = ids.into_iter().peekable();
        let Some(&first) = ids.peek() else { return };
        let before = self.clone();
        self.truncate(first.index);
        ids.for_each(|id| self.push(id));
        let mut next = self.last.next();
        while let Some(term) = before.term_at(next) {
            let run_end = before.runs.iter().find(|&&(start, _)| start > next);
            let last = run_end.map_or(before.last, |&(start, _)| start.previous());
            self.extend(last, term);
            next = last.next();
        }
    }

    /// Removes the entries from `from` on.
    pub fn truncate(&mut self, from: LogIndex) {
        assert!(from > self.base.index, "what was compacted cannot be truncated");
        self.runs.retain(|&(first, _)| first < from);
        self.last = self.last.min(from.previous());
    }

    /// Drops the entries up to and including `through`, which becomes the base.
    pub fn compact(&mut self, through: LogIndex) {
        let Some(term) = self.term_at(through) else { return };
        if through == self.base.index {
            return;
        }
        let next = self.term_at(through.next());
        self.runs.retain(|&(first, _)| first > through);
        if let Some(next) = next
            && self.runs.first().is_none_or(|&(first, _)| first > through.next())
        {
            self.runs.insert(0, (through.next(), next));
        }
        self.base = EntryId::new(term, through);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(index: u64, term: u64) -> EntryId {
        EntryId::new(Term(term), LogIndex(index))
    }

    /// A log that follows 10@2 and holds 11@2 12@2 13@4 14@4 15@7.
    fn runs() -> TermRuns {
        let mut runs = TermRuns::after(id(10, 2));
        for entry in [id(11, 2), id(12, 2), id(13, 4), id(14, 4), id(15, 7)] {
            runs.push(entry);
        }
        runs
    }

    #[test]
    fn terms_of_all_entries_and_of_the_base_are_known() {
        let terms: Vec<_> = (9..=16).map(|index| runs().term_at(LogIndex(index))).collect();
        let expected = [None, Some(2), Some(2), Some(2), Some(4), Some(4), Some(7), None];
        assert_eq!(terms, expected.map(|term| term.map(Term)));
    }

    #[test]
    fn the_last_entry_of_at_most_a_term_is_found() {
        for (index, term, expected) in [
            (15, 7, id(15, 7)),
            (15, 6, id(14, 4)),
            (13, 4, id(13, 4)),
            (99, 3, id(12, 2)),
            (12, 9, id(12, 2)),
            (15, 1, id(10, 2)),
            (3, 9, id(10, 2)),
        ] {
            assert_eq!(
                runs().last_at_most(LogIndex(index), Term(term)),
                expected,
                "{index} {term}"
            );
        }
    }

    #[test]
    fn terms_that_were_not_known_are_learned() {
        let mut learned = TermRuns::after(id(10, 2));
        learned.extend(LogIndex(13), Term(2));
        learned.extend(LogIndex(14), Term(4));
        learned.push(id(15, 7));
        learned.learn([id(12, 2), id(13, 4)]);
        assert_eq!(learned, runs());
        learned.learn([id(14, 4), id(15, 7)]);
        assert_eq!(learned, runs());
    }

    #[test]
    fn truncation_and_compaction_keep_the_terms_of_what_is_left() {
        let mut left = runs();
        left.truncate(LogIndex(14));
        assert_eq!(left.last(), id(13, 4));
        left.compact(LogIndex(11));
        assert_eq!(left.base(), id(11, 2));
        assert_eq!(left.term_at(LogIndex(12)), Some(Term(2)));
        left.compact(LogIndex(13));
        assert_eq!((left.base(), left.last()), (id(13, 4), id(13, 4)));
        left.push(id(14, 9));
        assert_eq!(left.term_at(LogIndex(14)), Some(Term(9)));
    }
}
