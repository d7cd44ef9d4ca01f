//! What a log store knows of its log without the entries: the vote, the snapshot, and the term of every entry.
//!
//! Both log stores check each batch against it before they write. A batch that contradicts the log can only come from a
//! broken invariant above; refused here, it stops one node, while written it would be found at the next start, on every node.

use thiserror::Error;

use super::TermRuns;
use crate::effects::PersistBatch;
use crate::types::{Entry, EntryId, HardState, LogIndex, NodeId, SnapshotMeta, Term};

/// A log without its entries.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Outline {
    pub(super) hard_state: HardState,
    pub(super) snapshot: Option<SnapshotMeta>,
    pub(super) terms: TermRuns,
}

/// How a batch contradicts the log that it was given to.
#[derive(Debug, Error, PartialEq, Eq)]
pub(super) enum BatchError {
    #[error("the batch takes the node back from term {from} to term {to}")]
    TermFell { from: Term, to: Term },
    #[error("the batch changes the vote of term {term} from {from} to {}", name(.to.as_ref()))]
    VoteChanged { term: Term, from: NodeId, to: Option<NodeId> },
    #[error("the batch truncates from entry {from}, but entries up to {kept} are in a snapshot")]
    TruncatesSnapshot { from: LogIndex, kept: LogIndex },
    #[error("entry {entry} cannot follow entry {last}")]
    NotNext { entry: EntryId, last: EntryId },
    #[error("the batch restarts the log without a snapshot to restart it at")]
    RestartWithoutSnapshot,
    #[error("snapshot {new} is older than snapshot {old}")]
    SnapshotFell { old: EntryId, new: EntryId },
    #[error("repaired entry {entry} does not fit into the log, which ends at {last}")]
    StrayRepair { entry: EntryId, last: EntryId },
    #[error("snapshot {snapshot} is not of this log, which ends at {last}")]
    StraySnapshot { snapshot: EntryId, last: EntryId },
}

fn name(node: Option<&NodeId>) -> String {
    node.map_or_else(|| "nobody".to_owned(), NodeId::to_string)
}

impl Outline {
    /// The place up to which a snapshot stands in for the log.
    pub(super) fn covered(&self) -> LogIndex {
        let snapshot = self.snapshot.as_ref().map_or(LogIndex::ZERO, |meta| meta.last.index);
        snapshot.max(self.terms.base().index)
    }

    /// Whether `batch` continues this log.
    pub(super) fn check(&self, batch: &PersistBatch) -> Result<(), BatchError> {
        if let Some(new) = batch.hard_state {
            self.check_hard_state(new)?;
        }
        self.check_repaired(batch)?;
        let start = self.last_before(batch)?;
        let mut last = start;
        for entry in &batch.entries {
            if entry.id.index != last.index.next() || entry.id.term < last.term {
                return Err(BatchError::NotNext { entry: entry.id, last });
            }
            last = entry.id;
        }
        match &batch.snapshot {
            Some(meta) => self.check_snapshot(batch, meta.last, start, last),
            None => Ok(()),
        }
    }

    /// Repaired entries stand in the log already, and their terms fit between those of their neighbours.
    fn check_repaired(&self, batch: &PersistBatch) -> Result<(), BatchError> {
        let last = self.terms.last();
        let Some(first) = batch.repaired.first().map(|entry| entry.id) else { return Ok(()) };
        let stray = |entry| Err(BatchError::StrayRepair { entry, last });
        if batch.restart_log || batch.truncate_from.is_some() || first.index <= self.covered() {
            return stray(first);
        }
        let mut before = (first.index.previous(), self.terms.term_at(first.index.previous()));
        for Entry { id, .. } in &batch.repaired {
            let follows =
                id.index == before.0.next() && before.1.is_some_and(|term| term <= id.term);
            if !follows || id.index > last.index {
                return stray(*id);
            }
            before = (id.index, Some(id.term));
        }
        match self.terms.term_at(before.0.next()) {
            Some(behind) if before.1 > Some(behind) => {
                stray(batch.repaired.last().expect("it has a first").id)
            }
            _ => Ok(()),
        }
    }

    fn check_hard_state(&self, new: HardState) -> Result<(), BatchError> {
        let old = self.hard_state;
        if new.term < old.term {
            return Err(BatchError::TermFell { from: old.term, to: new.term });
        }
        match old.voted_for {
            Some(from) if new.term == old.term && new.voted_for != Some(from) => {
                Err(BatchError::VoteChanged { term: new.term, from, to: new.voted_for })
            }
            _ => Ok(()),
        }
    }

    /// The entry that the first new one must follow.
    fn last_before(&self, batch: &PersistBatch) -> Result<EntryId, BatchError> {
        if batch.restart_log {
            let meta = batch.snapshot.as_ref().ok_or(BatchError::RestartWithoutSnapshot)?;
            return Ok(meta.last);
        }
        let last = self.terms.last();
        let Some(from) = batch.truncate_from else { return Ok(last) };
        if from <= self.covered() {
            return Err(BatchError::TruncatesSnapshot { from, kept: self.covered() });
        }
        let index = from.previous().min(last.index);
        let term = self.terms.term_at(index).expect("between the base and the end");
        Ok(EntryId::new(term, index))
    }

    /// A snapshot must be newer than the last one and end in an entry of the log that the batch leaves behind.
    fn check_snapshot(
        &self,
        batch: &PersistBatch,
        new: EntryId,
        start: EntryId,
        last: EntryId,
    ) -> Result<(), BatchError> {
        if let Some(old) = self.snapshot.as_ref().map(|meta| meta.last)
            && new < old
        {
            return Err(BatchError::SnapshotFell { old, new });
        }
        let is_ours = if batch.restart_log || new == start {
            true
        } else if new.index <= start.index {
            self.terms.term_at(new.index) == Some(new.term)
        } else {
            batch.entries.iter().any(|entry| entry.id == new)
        };
        if is_ours { Ok(()) } else { Err(BatchError::StraySnapshot { snapshot: new, last }) }
    }

    /// Takes in a batch that was checked.
    pub(super) fn apply(&mut self, batch: &PersistBatch) {
        self.hard_state = batch.hard_state.unwrap_or(self.hard_state);
        self.terms.learn(batch.repaired.iter().map(|entry| entry.id));
        if let Some(meta) = &batch.snapshot {
            self.snapshot = Some(meta.clone());
            if batch.restart_log {
                self.terms = TermRuns::after(meta.last);
            }
        }
        if let Some(from) = batch.truncate_from
            && !batch.restart_log
        {
            self.terms.truncate(from);
        }
        for entry in &batch.entries {
            self.terms.push(entry.id);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::membership::Membership;
    use crate::types::Payload;

    fn id(index: u64, term: u64) -> EntryId {
        EntryId::new(Term(term), LogIndex(index))
    }

    fn entries(ids: &[(u64, u64)]) -> Vec<Entry> {
        let entry =
            |&(index, term)| Entry { id: id(index, term), session: None, payload: Payload::Noop };
        ids.iter().map(entry).collect()
    }

    fn meta(index: u64, term: u64) -> SnapshotMeta {
        let membership = Membership::founding([NodeId(1)]);
        SnapshotMeta { last: id(index, term), membership, size: 100, checksum: 7 }
    }

    /// Vote for node 2 in term 5; entries 11@2 12@3 13@5 behind snapshot 10@2.
    fn outline() -> Outline {
        let mut terms = TermRuns::after(id(10, 2));
        entries(&[(11, 2), (12, 3), (13, 5)]).iter().for_each(|entry| terms.push(entry.id));
        let hard_state = HardState { term: Term(5), voted_for: Some(NodeId(2)) };
        Outline { hard_state, snapshot: Some(meta(10, 2)), terms }
    }

    fn hard_state(term: u64, voted_for: Option<u64>) -> PersistBatch {
        let hard_state = HardState { term: Term(term), voted_for: voted_for.map(NodeId) };
        PersistBatch { hard_state: Some(hard_state), ..PersistBatch::default() }
    }

    #[test]
    fn terms_never_fall_and_a_vote_never_changes() {
        assert!(outline().check(&hard_state(4, None)).is_err());
        assert!(outline().check(&hard_state(5, Some(3))).is_err());
        assert!(outline().check(&hard_state(5, None)).is_err(), "a vote is not forgotten");
        assert_eq!(outline().check(&hard_state(5, Some(2))), Ok(()));
        assert_eq!(outline().check(&hard_state(6, None)), Ok(()));
    }

    #[test]
    fn entries_must_follow_what_truncation_leaves() {
        for (truncate_from, ids, is_ok) in [
            (None, &[(14, 5)][..], true),
            (None, &[(14, 4)], false),
            (None, &[(15, 5)], false),
            (Some(12), &[(12, 4), (13, 4)], true),
            (Some(12), &[(13, 4)], false),
            (Some(12), &[(12, 1)], false),
            (Some(10), &[(10, 6)], false),
            (Some(99), &[(14, 5)], true),
        ] {
            let truncate_from = truncate_from.map(LogIndex);
            let entries = entries(ids).into();
            let batch = PersistBatch { truncate_from, entries, ..PersistBatch::default() };
            assert_eq!(outline().check(&batch).is_ok(), is_ok, "{batch:?}");
            if is_ok {
                let mut after = outline();
                after.apply(&batch);
                assert_eq!(after.terms.last(), batch.entries.last().unwrap().id);
            }
        }
    }

    #[test]
    fn repaired_entries_must_fit_between_their_neighbours() {
        for (ids, is_ok) in [
            (&[(11, 2), (12, 3)][..], true),
            (&[(12, 2)], true),
            (&[(13, 4)], true),
            (&[(12, 1)], false),
            (&[(12, 6)], false),
            (&[(11, 2), (13, 5)], false),
            (&[(13, 5), (14, 5)], false),
            (&[(10, 2)], false),
        ] {
            let batch = PersistBatch { repaired: entries(ids), ..PersistBatch::default() };
            assert_eq!(outline().check(&batch).is_ok(), is_ok, "{batch:?}");
        }
    }

    #[test]
    fn a_snapshot_must_end_in_the_log_unless_it_restarts_it() {
        for (last, restart_log, is_ok) in [
            ((12, 3), false, true),
            ((12, 4), false, false),
            ((14, 5), false, false),
            ((9, 2), true, false),
            ((20, 6), true, true),
        ] {
            let snapshot = Some(meta(last.0, last.1));
            let batch = PersistBatch { snapshot, restart_log, ..PersistBatch::default() };
            assert_eq!(outline().check(&batch).is_ok(), is_ok, "{batch:?}");
        }
        let bare = PersistBatch { restart_log: true, ..PersistBatch::default() };
        assert_eq!(outline().check(&bare), Err(BatchError::RestartWithoutSnapshot));
    }
}
