//! A log in memory: for tests, for nodes that may forget, for measuring everything but the disk.
//!
//! It keeps apart what was appended and what was synced, so that a test can find out whether something was promised
//! before it was durable. Like those of the log on the journal, its readers see what was synced and nothing else.

use std::collections::{BTreeSet, VecDeque};
use std::ops::RangeInclusive;
use std::sync::{Arc, RwLock, RwLockReadGuard, RwLockWriteGuard};

use super::outline::Outline;
use super::{DamagedEntries, LogReader, LogStore, RecoveredState, StorageError, TermRuns};
use crate::effects::PersistBatch;
use crate::types::{Entry, EntryId, LogIndex, Payload};

/// A [`LogStore`] in memory.
///
/// Clones are handles on the same log, as two programs are on one disk: a test keeps one, gives another to a node, and
/// makes a new node from [`Self::recovered`] after it has dropped the first and called [`Self::crash`].
#[derive(Clone, Debug, Default)]
pub struct MemoryLog {
    shared: Arc<RwLock<Shared>>,
}

/// A [`LogReader`] of a [`MemoryLog`].
#[derive(Clone, Debug)]
pub struct MemoryLogReader {
    shared: Arc<RwLock<Shared>>,
}

#[derive(Debug, Default)]
struct Shared {
    /// The log with everything that was appended.
    appended: Outline,
    /// What was appended and not yet synced.
    unsynced: Vec<PersistBatch>,
    /// The log with everything that was synced.
    durable: Image,
}

#[derive(Debug, Default)]
struct Image {
    outline: Outline,
    /// The entries behind the outline's base.
    entries: VecDeque<Entry>,
    /// Entries that cannot be read, for tests.
    damaged: BTreeSet<LogIndex>,
}

impl MemoryLog {
    /// An empty log.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// What opening the log after a crash would find: all that was synced and nothing else.
    #[must_use]
    pub fn recovered(&self) -> RecoveredState {
        read(&self.shared).durable.recovered()
    }

    /// Makes durable entries unreadable, as a disk may, until they are repaired or removed.
    pub fn damage(&mut self, range: RangeInclusive<LogIndex>) {
        let (first, last) = range.into_inner();
        write(&self.shared).durable.damaged.extend((first.0..=last.0).map(LogIndex));
    }

    /// Loses everything that was not synced.
    pub fn crash(&mut self) {
        let mut shared = write(&self.shared);
        shared.unsynced.clear();
        shared.appended = shared.durable.outline.clone();
    }
}

impl LogStore for MemoryLog {
    type Reader = MemoryLogReader;

    fn reader(&self) -> MemoryLogReader {
        MemoryLogReader { shared: Arc::clone(&self.shared) }
    }

    fn append(&mut self, batch: &PersistBatch) -> Result<(), StorageError> {
        let mut shared = write(&self.shared);
        let check = shared.appended.check(batch);
        check.map_err(|error| StorageError::Fatal(Arc::new(error)))?;
        shared.appended.apply(batch);
        shared.unsynced.push(batch.clone());
        Ok(())
    }

    fn sync(&mut self) -> Result<(), StorageError> {
        let mut shared = write(&self.shared);
        let Shared { durable, unsynced, .. } = &mut *shared;
        unsynced.drain(..).for_each(|batch| durable.apply(&batch));
        Ok(())
    }

    fn idle(&mut self) -> Result<(), StorageError> {
        Ok(())
    }

    fn compact(&mut self, through: LogIndex) -> Result<(), StorageError> {
        let mut shared = write(&self.shared);
        // Only a durable snapshot may stand in for entries.
        let through = through.min(shared.durable.outline.covered());
        shared.appended.terms.compact(through);
        shared.durable.compact(through);
        Ok(())
    }

    fn is_low_on_space(&self) -> bool {
        false
    }
}

impl LogReader for MemoryLogReader {
    fn entries(
        &self,
        range: RangeInclusive<LogIndex>,
        bytes_max: usize,
    ) -> Result<Vec<Entry>, StorageError> {
        let (from, through) = range.into_inner();
        if from > through {
            return Ok(Vec::new());
        }
        let shared = read(&self.shared);
        let log = &shared.durable;
        let (first, last) = (log.first(), log.outline.terms.last().index);
        let outside = |index| StorageError::OutOfRange { index, first, last };
        let start = log.position(from).ok_or_else(|| outside(from))?;
        let end = log.position(through.min(last)).expect("between the first and the last");
        let mut bytes = 0;
        let mut found = Vec::new();
        for entry in log.entries.range(start..=end) {
            if log.damaged.contains(&entry.id.index) {
                if found.is_empty() {
                    let (first, last) = log.damage_at(entry.id.index);
                    let source = Arc::new(std::io::Error::other("it was damaged for a test"));
                    return Err(StorageError::Damaged { first, last, source });
                }
                break;
            }
            bytes += entry.size();
            if bytes > bytes_max && !found.is_empty() {
                break;
            }
            found.push(entry.clone());
        }
        Ok(found)
    }
}

impl Image {
    fn first(&self) -> LogIndex {
        self.outline.terms.base().index.next()
    }

    /// Where the entry lies in the queue; `None` if it is not there.
    fn position(&self, index: LogIndex) -> Option<usize> {
        let position = usize::try_from(index.0.checked_sub(self.first().0)?).ok()?;
        (position < self.entries.len()).then_some(position)
    }

    fn apply(&mut self, batch: &PersistBatch) {
        for entry in &batch.repaired {
            if let Some(position) = self.position(entry.id.index) {
                self.entries[position] = entry.clone();
                self.damaged.remove(&entry.id.index);
            }
        }
        if batch.restart_log {
            self.entries.clear();
            self.damaged.clear();
        } else if let Some(from) = batch.truncate_from
            && let Some(position) = self.position(from)
        {
            self.entries.truncate(position);
            self.damaged.retain(|&index| index < from);
        }
        self.entries.extend(batch.entries.iter().cloned());
        self.outline.apply(batch);
    }

    fn compact(&mut self, through: LogIndex) {
        let through = through.min(self.outline.terms.last().index);
        if let Some(position) = self.position(through) {
            self.entries.drain(..=position);
            self.damaged.retain(|&index| index > through);
            self.outline.terms.compact(through);
        }
    }

    /// The damaged entries around this one.
    fn damage_at(&self, index: LogIndex) -> (LogIndex, LogIndex) {
        let is_damaged = |index: &u64| self.damaged.contains(&LogIndex(*index));
        let first = (0..index.0).rev().take_while(is_damaged).last();
        let last = (index.0 + 1..).take_while(is_damaged).last();
        (LogIndex(first.unwrap_or(index.0)), LogIndex(last.unwrap_or(index.0)))
    }

    /// What is damaged behind the snapshot, and the terms with stand-ins for those that were lost.
    fn damage(&self) -> (Vec<DamagedEntries>, TermRuns) {
        let Outline { hard_state, snapshot, terms } = &self.outline;
        let covered = snapshot.as_ref().map_or(LogIndex::ZERO, |meta| meta.last.index);
        let mut known = TermRuns::after(terms.base());
        let (mut damaged, mut next) = (Vec::new(), terms.base().index.next());
        while next <= terms.last().index {
            let (first, last) = self.damage_at(next);
            let term = terms.term_at(next).expect("it is in the log");
            if next <= covered || !self.damaged.contains(&next) {
                known.push(EntryId::new(term, next));
                next = next.next();
                continue;
            }
            let before = known.last().term;
            let behind = terms.term_at(last.next());
            let terms_known = before == behind.unwrap_or(hard_state.term);
            let stand_in = if behind.is_some() { before } else { hard_state.term };
            known.extend(last, stand_in);
            damaged.push(DamagedEntries { first: first.max(next), last, terms_known });
            next = last.next();
        }
        (damaged, known)
    }

    fn recovered(&self) -> RecoveredState {
        let (damaged, terms) = self.damage();
        let Outline { hard_state, snapshot, .. } = self.outline.clone();
        let intact = self.entries.iter().filter(|entry| !self.damaged.contains(&entry.id.index));
        let memberships = intact.filter_map(|entry| match &entry.payload {
            Payload::Membership(membership) => Some((entry.id.index, membership.clone())),
            Payload::Noop | Payload::Command(_) => None,
        });
        let memberships = memberships.collect();
        // The log is in memory as it is, so all of it may be the tail.
        let behind = damaged.last().map_or(LogIndex::ZERO, |damage| damage.last);
        let tail = self.entries.iter().filter(|entry| entry.id.index > behind).cloned().collect();
        RecoveredState { hard_state, snapshot, terms, memberships, tail, damaged }
    }
}

/// Nobody goes on with a log that a panic left half changed.
const POISON: &str = "a panic happened while the log was written";

fn read(shared: &RwLock<Shared>) -> RwLockReadGuard<'_, Shared> {
    shared.read().expect(POISON)
}

fn write(shared: &RwLock<Shared>) -> RwLockWriteGuard<'_, Shared> {
    shared.write().expect(POISON)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::membership::Membership;
    use crate::types::{HardState, NodeId, SnapshotMeta, Term};

    fn entry(index: u64, term: u64) -> Entry {
        let payload = Payload::Command(vec![0; 68].into());
        Entry { id: EntryId::new(Term(term), LogIndex(index)), session: None, payload }
    }

    fn batch(entries: Vec<Entry>) -> PersistBatch {
        PersistBatch { entries: entries.into(), ..PersistBatch::default() }
    }

    fn snapshot(index: u64, term: u64) -> Option<SnapshotMeta> {
        let last = EntryId::new(Term(term), LogIndex(index));
        let membership = Membership::founding([NodeId(1)]);
        Some(SnapshotMeta { last, membership, size: 1, checksum: 1 })
    }

    fn indexes(entries: &[Entry]) -> Vec<u64> {
        entries.iter().map(|entry| entry.id.index.0).collect()
    }

    #[test]
    fn a_crash_loses_what_was_not_synced_and_nothing_else() {
        let mut log = MemoryLog::new();
        let hard_state = Some(HardState { term: Term(1), voted_for: Some(NodeId(1)) });
        log.append(&PersistBatch { hard_state, ..batch(vec![entry(1, 1), entry(2, 1)]) }).unwrap();
        log.sync().unwrap();
        let truncate_from = Some(LogIndex(2));
        log.append(&PersistBatch { truncate_from, ..batch(vec![entry(2, 2)]) }).unwrap();
        let second = |log: &MemoryLog| log.reader().entries(LogIndex(2)..=LogIndex(2), 0).unwrap();
        assert_eq!(second(&log), [entry(2, 1)], "readers see what is durable");
        log.crash();
        assert_eq!(second(&log), [entry(2, 1)]);
        let recovered = log.recovered();
        assert_eq!(Some(recovered.hard_state), hard_state);
        assert_eq!(recovered.tail, [entry(1, 1), entry(2, 1)]);
        assert_eq!(recovered.terms.last(), entry(2, 1).id);
        log.append(&PersistBatch { truncate_from, ..batch(vec![entry(2, 2)]) }).unwrap();
        log.sync().unwrap();
        assert_eq!(second(&log), [entry(2, 2)]);
    }

    #[test]
    fn reads_stop_at_the_byte_limit_but_give_one_entry_at_least() {
        let mut log = MemoryLog::new();
        log.append(&batch((1..=5).map(|index| entry(index, 1)).collect())).unwrap();
        log.sync().unwrap();
        let read = |from, through, bytes_max| {
            log.reader().entries(LogIndex(from)..=LogIndex(through), bytes_max)
        };
        assert_eq!(indexes(&read(1, 5, 1000).unwrap()), [1, 2, 3, 4, 5]);
        assert_eq!(indexes(&read(2, 5, 250).unwrap()), [2, 3]);
        assert_eq!(indexes(&read(4, 5, 0).unwrap()), [4]);
        assert!(matches!(read(0, 1, 1000), Err(StorageError::OutOfRange { .. })));
        assert_eq!(indexes(&read(5, 6, 1000).unwrap()), [5], "what there is of the range");
        assert!(matches!(read(6, 6, 1000), Err(StorageError::OutOfRange { .. })));
    }

    #[test]
    fn only_a_durable_snapshot_lets_entries_go() {
        let mut log = MemoryLog::new();
        log.append(&batch((1..=5).map(|index| entry(index, 1)).collect())).unwrap();
        log.sync().unwrap();
        log.append(&PersistBatch { snapshot: snapshot(3, 1), ..batch(vec![]) }).unwrap();
        log.compact(LogIndex(3)).unwrap();
        assert!(log.reader().entries(LogIndex(1)..=LogIndex(1), 0).is_ok(), "not durable yet");
        log.sync().unwrap();
        log.compact(LogIndex(9)).unwrap();
        let recovered = log.recovered();
        assert_eq!(recovered.terms.base(), entry(3, 1).id);
        assert_eq!(indexes(&recovered.tail), [4, 5]);
        assert!(log.reader().entries(LogIndex(3)..=LogIndex(3), 0).is_err());
    }

    #[test]
    fn a_snapshot_from_the_leader_restarts_the_log_behind_it() {
        let mut log = MemoryLog::new();
        log.append(&batch(vec![entry(1, 1)])).unwrap();
        let restart = PersistBatch { snapshot: snapshot(9, 4), restart_log: true, ..batch(vec![]) };
        log.append(&restart).unwrap();
        log.append(&batch(vec![entry(10, 4)])).unwrap();
        assert!(log.append(&batch(vec![entry(12, 4)])).is_err(), "a gap");
        log.sync().unwrap();
        let recovered = log.recovered();
        assert_eq!(recovered.terms.base(), restart.snapshot.unwrap().last);
        assert_eq!(indexes(&recovered.tail), [10]);
    }
}
