//! Applying: committed entries go to the state machine a run at a time, and snapshots are taken between two runs.

use std::ops::RangeInclusive;
use std::time::Duration;

use super::{Output, ProposalError, Replica, Run, SnapshotOutcome};
use crate::effects::FatalError;
use crate::raft_node::Event;
use crate::state_machine::Reply;
use crate::types::{Entry, EntryId, LogIndex, SnapshotMeta};

/// How long a failed snapshot rests before the next try.
const SNAPSHOT_PAUSE: Duration = Duration::from_secs(5);

/// Bytes of entries that are worth a snapshot however few the entries are.
const SNAPSHOT_BYTES: u64 = 64 << 20;

impl Replica {
    pub(super) fn committed(&mut self, range: RangeInclusive<LogIndex>) {
        self.to_apply = Some(match self.to_apply.take() {
            None => range,
            Some(waiting) => {
                assert_eq!(waiting.end().next(), *range.start(), "committed runs are consecutive");
                *waiting.start()..=*range.end()
            }
        });
    }

    pub(super) fn run_applied(
        &mut self,
        now: Duration,
        last: EntryId,
        replies: Vec<(EntryId, Reply)>,
        out: &mut Vec<Output>,
    ) {
        if !self.is_applying || last != self.given {
            // A snapshot from the leader came while this run was under way; its clients have been told.
            return;
        }
        self.is_applying = false;
        for (entry, reply) in replies {
            self.answer(entry, reply, out);
        }
        self.answer_passed_over(last.index, ProposalError::Superseded, out);
        self.moved_on(now, last, out);
    }

    /// What is left of the run waits until the damage is repaired.
    pub(super) fn run_stopped(
        &mut self,
        now: Duration,
        last: EntryId,
        replies: Vec<(EntryId, Reply)>,
        damaged: (LogIndex, LogIndex),
        out: &mut Vec<Output>,
    ) {
        if self.is_applying && last.index < self.given.index {
            let rest = last.index.next()..=self.given.index;
            self.to_apply = Some(match self.to_apply.take() {
                None => rest,
                Some(waiting) => *rest.start()..=*waiting.end(),
            });
            self.given = last;
            self.run_applied(now, last, replies, out);
        }
        let (first, last) = damaged;
        self.step(now, Event::EntriesDamaged { first, last }, out);
    }

    pub(super) fn run_unreadable(&mut self, error: String, out: &mut Vec<Output>) {
        if self.is_in_snapshot(self.given.index) {
            self.is_applying = false;
        } else if self.restoring.is_none() {
            self.stop(FatalError::Storage(error), out);
        }
    }

    /// Whether the log was restarted behind a snapshot from the leader that holds this entry, which is not applied yet. The
    /// snapshot is restored as soon as that is recorded. (Compaction never passes what was given out.)
    fn is_in_snapshot(&self, index: LogIndex) -> bool {
        index < self.node.log().base().index
    }

    pub(super) fn restore(&mut self, meta: SnapshotMeta, out: &mut Vec<Output>) {
        // What was committed before lies before the snapshot.
        self.to_apply = None;
        self.restoring = Some(meta.clone());
        // That was another one.
        self.latest_is_damaged = false;
        self.given = meta.last;
        // A run under way ends first: the machine has one worker. Its completion is awaited no more, and no read has been served of it.
        self.is_applying = false;
        self.answer_passed_over(meta.last.index, ProposalError::Unknown, out);
        out.push(Output::Restore(meta));
    }

    pub(super) fn restored(&mut self, now: Duration, last: EntryId, out: &mut Vec<Output>) {
        if self.restoring.take_if(|meta| meta.last == last).is_some() {
            self.moved_on(now, last, out);
        }
    }

    /// The machine has reached `last`: reads that waited for it may be served.
    fn moved_on(&mut self, now: Duration, last: EntryId, out: &mut Vec<Output>) {
        self.applied = last;
        let is_joint = self.node.membership_at(last.index).is_joint();
        self.orders.applied(last.index, is_joint, |index| self.node.log().term_at(index), out);
        while let Some(group) = self.reads.pop_servable(last.index) {
            out.extend(group.into_iter().map(|(request, _)| Output::ReadReady(request)));
        }
        self.step(now, Event::Applied(last.index), out);
        out.push(Output::StatusChanged);
    }

    /// Keeps the machine's worker busy: a snapshot that is due, else the next run.
    pub(super) fn give_work(&mut self, now: Duration, out: &mut Vec<Output>) {
        if self.is_applying || self.restoring.is_some() || self.is_stopped {
            return;
        }
        self.take_snapshot_if_due(now, out);
        let Some(range) = self.to_apply.take() else { return };
        let first = *range.start();
        if self.is_in_snapshot(first) {
            return;
        }
        let through = self.readable_through(*range.end());
        if through < first {
            self.to_apply = Some(range);
            return;
        }
        let bytes_max = self.config.apply_bytes_max;
        let entries = self.node.entries(first, through, bytes_max);
        let end = entries
            .as_ref()
            .and_then(|entries| entries.last())
            .map_or_else(|| through.min(first.plus(1023)), |entry| entry.id.index);
        if end < *range.end() {
            self.to_apply = Some(end.next()..=*range.end());
        }
        let term = self.node.log().term_at(end).expect("what is committed is in the log");
        self.given = EntryId::new(term, end);
        self.is_applying = true;
        // A run that is not in memory counts for what it has at least.
        let bytes = entries.as_ref().map_or_else(
            || end.since(first) * Entry::OVERHEAD as u64,
            |entries| entries.iter().map(|entry| entry.size() as u64).sum(),
        );
        self.bytes_since_snapshot += bytes;
        out.push(Output::Apply(Run { range: first..=end, entries }));
    }

    /// Up to where entries can be given out: not beyond what is damaged.
    fn readable_through(&self, through: LogIndex) -> LogIndex {
        let damage = self.node.log().damaged().first();
        damage.map_or(through, |damage| through.min(damage.first.previous()))
    }

    fn take_snapshot_if_due(&mut self, now: Duration, out: &mut Vec<Output>) {
        let latest = self.node.log().snapshot().map_or(LogIndex::ZERO, |meta| meta.last.index);
        let since = self.given.index.since(latest);
        let size = self.node.log().snapshot().map_or(0, |meta| meta.size);
        let is_much =
            since >= self.config.snapshot_entries || self.bytes_since_snapshot >= SNAPSHOT_BYTES;
        let is_worth_it = is_much && self.bytes_since_snapshot >= size;
        // Of the same entry it has the same parts, as a rule: those that are damaged are written anew under the same names.
        let is_new = since > 0 || (self.latest_is_damaged && self.given.index == latest);
        let is_due = is_worth_it || (self.snapshot_is_wanted && is_new);
        let may = self.has_snapshots && !self.is_taking_snapshot && now >= self.snapshot_not_before;
        if is_due && may {
            self.is_taking_snapshot = true;
            self.snapshot_is_wanted = false;
            self.bytes_since_snapshot = 0;
            let membership = self.node.membership_at(self.given.index).clone();
            #[cfg(feature = "sim")]
            let membership = match self.node.config().planted_bug {
                Some(crate::sim::PlantedBug::SnapshotWithoutLatestMembers) => {
                    self.node.membership_at(latest).clone()
                }
                _ => membership,
            };
            out.push(Output::TakeSnapshot { last: self.given, membership });
        }
    }

    pub(super) fn snapshot_taken(
        &mut self,
        now: Duration,
        outcome: SnapshotOutcome,
        out: &mut Vec<Output>,
    ) {
        self.is_taking_snapshot = false;
        match outcome {
            SnapshotOutcome::Taken(meta) => {
                self.latest_is_damaged = false;
                self.step(now, Event::SnapshotBuilt(meta), out);
            }
            SnapshotOutcome::Unsupported => self.has_snapshots = false,
            SnapshotOutcome::Failed(_) => self.snapshot_not_before = now + SNAPSHOT_PAUSE,
        }
    }
}
