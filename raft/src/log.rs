//! The log as the node sees it: the terms of all entries, the newest entries themselves, and how far it is durable.
//!
//! Entries are written by the driver and read back by it; here only a bounded tail of them is kept, which is what
//! followers that keep up need. The *terms* of all entries are kept, as runs, so that every question about matching
//! can be answered at once however long the log is.
//!
//! Durability is told in tokens (see [`crate::effects::IoToken`]). `unsynced` remembers, for each write under way, the last entry that is
//! durable once it is done. A truncation lowers what is promised by the writes before it, so that the completion of a write
//! of an entry that was replaced meanwhile never counts for its replacement (the ABA race of etcd's async storage writes).

use std::collections::VecDeque;
use std::ops::Range;

use crate::effects::IoToken;
use crate::entries::{Entries, Runs};
use crate::storage::{DamagedEntries, RecoveredState, TermRuns};
use crate::types::{Entry, EntryId, LogIndex, SnapshotMeta, Term};

/// A node's view of its log.
#[derive(Clone, Debug)]
pub struct Log {
    terms: TermRuns,
    /// The newest entries; ends with the last one.
    tail: VecDeque<Entry>,
    tail_bytes: usize,
    tail_bytes_max: usize,
    /// Bytes of all entries that were appended since the start.
    appended_bytes: u64,
    durable: LogIndex,
    unsynced: VecDeque<(IoToken, LogIndex)>,
    durable_token: IoToken,
    snapshot: Option<SnapshotMeta>,
    /// Durable entries that cannot be read, ascending and apart.
    damaged: Vec<DamagedEntries>,
    runs: Runs,
}

impl Log {
    /// The log that was found at start, all of which is durable.
    #[must_use]
    pub fn recovered(state: RecoveredState, tail_bytes_max: usize) -> Self {
        let mut log = Self {
            durable: state.terms.last().index,
            terms: state.terms,
            tail_bytes: state.tail.iter().map(Entry::size).sum(),
            tail: state.tail.into(),
            tail_bytes_max,
            appended_bytes: 0,
            unsynced: VecDeque::new(),
            durable_token: IoToken(0),
            snapshot: state.snapshot,
            damaged: state.damaged,
            runs: Runs::default(),
        };
        log.evict();
        log
    }

    /// What precedes the first entry.
    #[must_use]
    pub fn base(&self) -> EntryId {
        self.terms.base()
    }

    /// The last entry; the base if there is none.
    #[must_use]
    pub fn last(&self) -> EntryId {
        self.terms.last()
    }

    /// The last entry that is durable here.
    #[must_use]
    pub fn durable(&self) -> LogIndex {
        self.durable
    }

    /// The last entry up to which all are durable here and intact.
    #[must_use]
    pub fn sound(&self) -> LogIndex {
        self.before_damage(self.durable)
    }

    /// `index`, or the last entry before all that is damaged if that is less.
    #[must_use]
    pub fn before_damage(&self, index: LogIndex) -> LogIndex {
        self.damaged.first().map_or(index, |damage| index.min(damage.first.previous()))
    }

    /// Durable entries that cannot be read any more, ascending.
    #[must_use]
    pub fn damaged(&self) -> &[DamagedEntries] {
        &self.damaged
    }

    /// Whether any entry is damaged.
    #[must_use]
    pub fn is_damaged(&self) -> bool {
        !self.damaged.is_empty()
    }

    /// Whether the entry at `index` is damaged, and not even its term is known.
    #[must_use]
    pub fn is_doubtful(&self, index: LogIndex) -> bool {
        let holds = |damage: &&DamagedEntries| damage.first <= index && index <= damage.last;
        self.damaged.iter().find(holds).is_some_and(|damage| !damage.terms_known)
    }

    /// The latest write that is durable.
    #[must_use]
    pub fn durable_token(&self) -> IoToken {
        self.durable_token
    }

    /// The latest snapshot.
    #[must_use]
    pub fn snapshot(&self) -> Option<&SnapshotMeta> {
        self.snapshot.as_ref()
    }

    /// The term of the entry at `index`, if it is in the log or is its base, and was not lost with the entry.
    #[must_use]
    pub fn term_at(&self, index: LogIndex) -> Option<Term> {
        self.terms.term_at(index).filter(|_| self.damaged.is_empty() || !self.is_doubtful(index))
    }

    /// Whether this entry is in the log, or is its base.
    #[must_use]
    pub fn contains(&self, id: EntryId) -> bool {
        self.term_at(id.index) == Some(id.term)
    }

    /// The last entry at or before `index` whose term is at most `term`.
    #[must_use]
    pub fn last_at_most(&self, index: LogIndex, term: Term) -> EntryId {
        self.terms.last_at_most(index, term)
    }

    /// Whether a log that ends with `last` is at least as complete as this one (Raft §5.4.1): the later term wins, in the same term the
    /// longer log.
    #[must_use]
    pub fn is_up_to_date(&self, last: EntryId) -> bool {
        last >= self.last()
    }

    /// Appends the next entry.
    pub fn append(&mut self, entry: Entry) {
        self.terms.push(entry.id);
        self.tail_bytes += entry.size();
        let size = u64::try_from(entry.size()).expect("a length fits 64 bits");
        self.appended_bytes = self.appended_bytes.saturating_add(size);
        self.tail.push_back(entry);
    }

    /// Bytes of all entries that were appended since the start, whatever became of them.
    #[must_use]
    pub fn appended_bytes(&self) -> u64 {
        self.appended_bytes
    }

    /// Removes the entries from `from` on.
    pub fn truncate(&mut self, from: LogIndex) {
        self.runs.clear();
        self.terms.truncate(from);
        while self.tail.back().is_some_and(|entry| entry.id.index >= from) {
            let entry = self.tail.pop_back().expect("just looked at");
            self.tail_bytes -= entry.size();
        }
        let last = from.previous();
        self.damaged.retain(|damage| damage.first <= last);
        if let Some(damage) = self.damaged.last_mut() {
            damage.last = damage.last.min(last);
        }
        self.durable = self.durable.min(last);
        for (_, promised) in &mut self.unsynced {
            *promised = (*promised).min(last);
        }
    }

    /// Forgets everything: the log goes on behind `snapshot`.
    pub fn restart(&mut self, snapshot: SnapshotMeta) {
        self.terms = TermRuns::after(snapshot.last);
        self.tail.clear();
        self.runs.clear();
        self.tail_bytes = 0;
        self.damaged.clear();
        // What was durable of the old log says nothing about the new one: it counts from its base, which is the snapshot's
        // to vouch for.
        self.durable = snapshot.last.index;
        for (_, promised) in &mut self.unsynced {
            *promised = snapshot.last.index;
        }
        self.snapshot = Some(snapshot);
    }

    /// There is a newer snapshot.
    pub fn set_snapshot(&mut self, snapshot: SnapshotMeta) {
        self.snapshot = Some(snapshot);
    }

    /// Drops the entries up to `through`.
    pub fn compact(&mut self, through: LogIndex) {
        self.terms.compact(through);
        self.damaged.retain(|damage| damage.last > through);
        if let Some(damage) = self.damaged.first_mut() {
            damage.first = damage.first.max(through.next());
        }
        while self.tail.front().is_some_and(|entry| entry.id.index <= through) {
            let entry = self.tail.pop_front().expect("just looked at");
            self.tail_bytes -= entry.size();
        }
    }

    /// Durable entries cannot be read. Returns whether that is news.
    pub fn mark_damaged(&mut self, first: LogIndex, last: LogIndex) -> bool {
        let (first, last) = (first.max(self.base().index.next()), last.min(self.durable));
        let is_known =
            self.damaged.iter().any(|damage| damage.first <= first && last <= damage.last);
        if first > last || is_known {
            return false;
        }
        let mut whole = DamagedEntries { first, last, terms_known: true };
        self.damaged.retain(|damage| {
            let is_apart = damage.last < first || last < damage.first;
            if !is_apart {
                whole.first = whole.first.min(damage.first);
                whole.last = whole.last.max(damage.last);
                whole.terms_known &= damage.terms_known;
            }
            is_apart
        });
        self.damaged.push(whole);
        self.damaged.sort_unstable();
        true
    }

    /// These are the ids of entries that are damaged.
    pub fn learn(&mut self, ids: impl Iterator<Item = EntryId> + Clone) {
        self.terms.learn(ids.clone());
        let (first, last) = (ids.clone().next(), ids.last());
        for damage in &mut self.damaged {
            let is_learned = first.is_some_and(|id| id.index <= damage.first)
                && last.is_some_and(|id| damage.last <= id.index);
            damage.terms_known |= is_learned;
        }
    }

    /// The entries from `first` to `last` are intact again, and durable.
    pub fn mend(&mut self, first: LogIndex, last: LogIndex) {
        let left = std::mem::take(&mut self.damaged).into_iter().flat_map(|damage| {
            let before = DamagedEntries { last: damage.last.min(first.previous()), ..damage };
            let behind = DamagedEntries { first: damage.first.max(last.next()), ..damage };
            let is_apart = last < damage.first || damage.last < first;
            if is_apart { [Some(damage), None] } else { [Some(before), Some(behind)] }
        });
        self.damaged = left.flatten().filter(|damage| damage.first <= damage.last).collect();
    }

    /// Entries from `from` to at most `through`, at most `bytes_max` of them but at least one; `None` if the first of them is
    /// no longer in memory.
    #[must_use]
    pub fn entries(
        &mut self,
        from: LogIndex,
        through: LogIndex,
        bytes_max: usize,
    ) -> Option<Entries> {
        let run = self.run(from, through, bytes_max)?;
        let last = self.tail[run.end - 1].id.index;
        Some(self.runs.find(from, last).unwrap_or_else(|| self.runs.give(self.tail.range(run))))
    }

    /// As [`Self::entries`], to look at.
    pub fn peek(
        &self,
        from: LogIndex,
        through: LogIndex,
    ) -> Option<impl Iterator<Item = &Entry> + use<'_>> {
        self.run(from, through, usize::MAX).map(|run| self.tail.range(run))
    }

    /// Where in the tail those entries are; never nowhere.
    fn run(&self, from: LogIndex, through: LogIndex, bytes_max: usize) -> Option<Range<usize>> {
        let first = self.tail.front()?.id.index;
        let start = usize::try_from(from.0.checked_sub(first.0)?).ok()?;
        let wanted = usize::try_from(through.next().since(from)).unwrap_or(usize::MAX);
        let count = wanted.min(self.tail.len().saturating_sub(start));
        if count == 0 {
            return None;
        }
        let mut bytes = 0;
        let fits = |entry: &Entry| {
            bytes += entry.size();
            bytes <= bytes_max
        };
        let fitting = match bytes_max {
            usize::MAX => count,
            _ => self.tail.range(start..start + count).map(fits).take_while(|fits| *fits).count(),
        };
        Some(start..start + fitting.max(1))
    }

    /// The newest entries came in this run.
    pub fn came_in(&mut self, entries: &Entries) {
        debug_assert_eq!(
            entries.last().map(|entry| entry.id),
            self.tail.back().map(|entry| entry.id)
        );
        self.runs.adopt(entries);
    }

    /// A write of everything up to the current last entry is under way.
    pub fn writing(&mut self, token: IoToken) {
        debug_assert!(self.unsynced.back().is_none_or(|&(before, _)| before < token));
        self.unsynced.push_back((token, self.last().index));
    }

    /// The write `token` and all before it are durable. Returns whether that is news.
    pub fn persisted(&mut self, token: IoToken) -> bool {
        let mut is_news = false;
        while self.unsynced.front().is_some_and(|&(under_way, _)| under_way <= token) {
            let (done, promised) = self.unsynced.pop_front().expect("just looked at");
            self.durable_token = done;
            self.durable = self.durable.max(promised);
            is_news = true;
        }
        if is_news {
            self.evict();
        }
        is_news
    }

    /// The write that must be durable before the entry at `index` is; `None` if it is already.
    #[must_use]
    pub fn token_for(&self, index: LogIndex) -> Option<IoToken> {
        if index <= self.durable {
            return None;
        }
        let covering = self.unsynced.iter().find(|&&(_, promised)| promised >= index);
        Some(covering.expect("what is not durable is being written").0)
    }

    /// Feeds everything that decides what the log answers; see `raft_node/digest.rs`.
    #[cfg(feature = "sim")]
    pub(crate) fn digest(&self, into: &mut impl std::hash::Hasher) {
        use std::hash::Hash;
        let Self {
            terms,
            tail,
            tail_bytes: _,
            tail_bytes_max: _,
            // As other limits in bytes, never reached in the check's small worlds.
            appended_bytes: _,
            durable,
            unsynced,
            durable_token,
            snapshot,
            damaged,
            runs: _,
        } = self;
        (terms, tail, durable, damaged).hash(into);
        for (token, promised) in unsynced {
            (token.0 - durable_token.0, promised).hash(into);
        }
        snapshot.as_ref().map(|meta| meta.last).hash(into);
    }

    /// Forgets the oldest entries in memory, as far as they can be read back.
    fn evict(&mut self) {
        let mut evicted = None;
        while self.tail_bytes > self.tail_bytes_max
            && self.tail.front().is_some_and(|entry| entry.id.index <= self.durable)
        {
            let entry = self.tail.pop_front().expect("just looked at");
            self.tail_bytes -= entry.size();
            evicted = Some(entry.id.index);
        }
        if let Some(through) = evicted {
            self.runs.evict(through);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::Payload;

    fn entry(index: u64, term: u64) -> Entry {
        let id = EntryId::new(Term(term), LogIndex(index));
        Entry { id, session: None, payload: Payload::Command(vec![7; 100].into()) }
    }

    fn log(terms: &[u64]) -> Log {
        let mut log = Log::recovered(RecoveredState::default(), 1 << 20);
        for (index, &term) in terms.iter().enumerate() {
            log.append(entry(index as u64 + 1, term));
        }
        log
    }

    #[test]
    fn a_later_term_beats_a_longer_log_and_a_longer_log_an_equal_term() {
        let log = log(&[1, 1, 3]);
        for (term, index, expected) in
            [(3, 3, true), (3, 2, false), (3, 4, true), (2, 9, false), (4, 1, true)]
        {
            let last = EntryId::new(Term(term), LogIndex(index));
            assert_eq!(log.is_up_to_date(last), expected, "{last}");
        }
    }

    /// etcd raft's `async_storage_writes_append_aba_race`.
    #[test]
    fn completion_of_a_replaced_write_does_not_count_for_its_replacement() {
        let mut log = log(&[1]);
        log.writing(IoToken(1));
        log.append(entry(2, 1));
        log.writing(IoToken(2));
        log.truncate(LogIndex(2));
        log.append(entry(2, 2));
        log.writing(IoToken(3));
        assert_eq!(log.token_for(LogIndex(2)), Some(IoToken(3)));
        log.persisted(IoToken(2));
        assert_eq!(log.durable(), LogIndex(1));
        log.persisted(IoToken(3));
        assert_eq!(log.durable(), LogIndex(2));
    }

    #[test]
    fn late_and_repeated_completions_are_no_news() {
        let mut log = log(&[1]);
        log.writing(IoToken(1));
        log.append(entry(2, 1));
        log.writing(IoToken(2));
        assert!(log.persisted(IoToken(2)));
        assert!(!log.persisted(IoToken(1)));
        assert!(!log.persisted(IoToken(2)));
        assert_eq!((log.durable(), log.durable_token()), (LogIndex(2), IoToken(2)));
    }

    #[test]
    fn only_durable_entries_leave_memory() {
        let mut log = Log::recovered(RecoveredState::default(), 300);
        for index in 1..=5 {
            log.append(entry(index, 1));
        }
        assert!(log.entries(LogIndex(1), LogIndex(5), 1 << 20).is_some());
        log.writing(IoToken(1));
        log.persisted(IoToken(1));
        assert_eq!(log.entries(LogIndex(1), LogIndex(5), 1 << 20), None);
        let kept = log.entries(LogIndex(4), LogIndex(5), 1 << 20).expect("in memory");
        assert_eq!(kept.len(), 2);
    }

    #[test]
    fn a_run_of_entries_is_bounded_by_bytes_but_never_empty() {
        let mut log = log(&[1, 1, 1, 1]);
        let mut run =
            |from: u64, bytes| log.entries(LogIndex(from), LogIndex(4), bytes).map(|run| run.len());
        assert_eq!(run(1, 0), Some(1));
        assert_eq!(run(1, 264), Some(2));
        assert_eq!(run(3, 1 << 20), Some(2));
        assert_eq!(run(5, 1 << 20), None);
    }

    #[test]
    fn a_restart_behind_a_snapshot_forgets_the_old_log() {
        let mut log = log(&[1, 1, 2]);
        log.writing(IoToken(1));
        let last = EntryId::new(Term(5), LogIndex(9));
        let membership = crate::membership::Membership::default();
        log.restart(SnapshotMeta { last, membership, size: 0, checksum: 0 });
        assert_eq!((log.base(), log.last(), log.durable()), (last, last, LogIndex(9)));
        log.append(entry(10, 5));
        log.writing(IoToken(2));
        log.persisted(IoToken(1));
        assert_eq!(log.durable(), LogIndex(9));
        log.persisted(IoToken(2));
        assert_eq!(log.durable(), LogIndex(10));
    }
}
