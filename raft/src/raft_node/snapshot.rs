//! Snapshots (Raft §7): built from our own state machine, sent to followers that are too far behind, installed, and the log
//! compacted behind them.
//!
//! A snapshot travels in pieces, one at a time, each acknowledged with the next byte wanted; after a lost message or a broken
//! connection it goes on where it stopped. The first piece is the manifest, and from then on the receiver's answers jump over the parts
//! that it has; after its restart, too, it is asked for nothing but what it lacks (`storage/snapshot/receive.rs`). Pieces are messages like
//! any other here; the replica gives them a pace, and the transport a stream of their own, so that they delay no heartbeat.
//!
//! **Installing is crash-safe by order**: the file is whole, verified and durable before the core hears of it; then one write records the
//! snapshot and restarts the log behind it; only when that is durable is the state machine restored and the leader told. A
//! crash in between finds either the old log or the new snapshot, never neither.
//!
//! Compaction leaves some entries behind the snapshot for followers that are only a little late, and holds back for those that are
//! just receiving a snapshot, so that they find what follows it; but not for longer than that is worth, since the disk would fill up behind
//! a slow one: see [`RaftNode::held_back_by_receivers`].

use bytes::Bytes;

use crate::effects::{Effect, IoToken};
use crate::message::Message;
use crate::progress::ProgressState;
use crate::trace::TraceEvent;
use crate::types::{EntryId, LogIndex, NodeId, SnapshotMeta, StoreId};

use super::{RaftNode, RoleState};

/// The longest time, in longest election timeouts, after which a piece of a snapshot that has no answer is sent again.
const PATIENCE_MAX: u32 = 64;

/// A compaction that waits until the snapshot it rests on is recorded.
#[derive(Clone, Copy, Debug)]
pub(super) struct Compaction {
    pub(super) after: IoToken,
    pub(super) through: LogIndex,
}

impl RaftNode {
    // Our own.

    pub(super) fn handle_snapshot_built(&mut self, meta: SnapshotMeta) {
        let latest = self.log.snapshot().map_or(LogIndex::ZERO, |snapshot| snapshot.last.index);
        // One from the leader came first, or the log has been restarted behind it.
        if meta.last.index < latest || !self.log.contains(meta.last) {
            return;
        }
        // The latest one was damaged. If it has come out the same, its files are whole again, and the record is as it was.
        if self.log.snapshot() == Some(&meta) {
            return;
        }
        assert!(meta.last.index <= self.applying, "a snapshot holds what was applied");
        let through = LogIndex(meta.last.index.0.saturating_sub(self.config.kept_entries));
        self.batch().snapshot = Some(meta.clone());
        self.compaction = Some(Compaction { after: self.last_token, through });
        self.membership.compact(meta.last.index);
        self.log.set_snapshot(meta);
        self.cover_damage();
        #[cfg(feature = "sim")]
        if self.has_bug(crate::sim::PlantedBug::CompactionBeforeSnapshotIsDurable) {
            self.compact_if_durable();
        }
    }

    /// The snapshot is recorded: what lies before it may go.
    pub(super) fn compact_if_durable(&mut self) {
        let durable = self.log.durable_token();
        #[cfg(feature = "sim")]
        let durable = match self.config.planted_bug {
            Some(crate::sim::PlantedBug::CompactionBeforeSnapshotIsDurable) => self.last_token,
            _ => durable,
        };
        let Some(compaction) = self.compaction.take_if(|compaction| compaction.after <= durable)
        else {
            return;
        };
        let through = self.held_back_by_receivers(compaction.through);
        // Even if no entry may go, older snapshots may.
        let base = self.log.base().index;
        self.outbox.push(Effect::Compact(through.max(base)));
        if through > base {
            self.log.compact(through);
            self.trace(TraceEvent::Compacted { through });
        }
    }

    /// A follower that receives a snapshot, and is heard from, will want what follows it.
    ///
    /// When more has been appended since its transfer began than the snapshot has bytes, another snapshot costs it no more than the log
    /// would, and less with every part that it has by then: the log is held back no longer. (As much as is kept in memory does not
    /// count.) Nor is it when space is low, for then nothing else may be left to free any.
    fn held_back_by_receivers(&self, through: LogIndex) -> LogIndex {
        if self.is_low_on_space {
            return through;
        }
        let silent = self.now.saturating_sub(self.config.election_timeout.end);
        let free = u64::try_from(self.config.tail_bytes_max).unwrap_or(u64::MAX);
        let is_worth_it = |size: u64, since: u64| {
            self.log.appended_bytes().saturating_sub(since) <= size.max(free)
        };
        self.progress()
            .filter(|(_, progress)| progress.contact >= silent)
            .filter_map(|(_, progress)| match &progress.state {
                ProgressState::Snapshot { meta, log_bytes, .. } => {
                    is_worth_it(meta.size, *log_bytes).then_some(meta.last.index)
                }
                ProgressState::Probe { .. } | ProgressState::Replicate => None,
            })
            .fold(through, LogIndex::min)
    }

    /// Room for more has become scarce, or has not. What was held back goes at once: nothing else would come to free it, since no more is
    /// taken into the log.
    pub(super) fn handle_low_space(&mut self, is_low: bool) {
        let was_low = std::mem::replace(&mut self.is_low_on_space, is_low);
        if was_low || !is_low || self.compaction.is_some() {
            return;
        }
        let Some(latest) = self.log.snapshot() else { return };
        let through = LogIndex(latest.last.index.0.saturating_sub(self.config.kept_entries));
        if through > self.log.base().index {
            self.compaction = Some(Compaction { after: self.last_token, through });
            self.compact_if_durable();
        }
    }

    // Sending.

    /// Snapshots that are being sent, which must not be removed.
    pub fn snapshots_in_use(&self) -> impl Iterator<Item = &SnapshotMeta> {
        self.progress().filter_map(|(_, progress)| match &progress.state {
            ProgressState::Snapshot { meta, .. } => Some(meta),
            ProgressState::Probe { .. } | ProgressState::Replicate => None,
        })
    }

    /// The follower needs what the log no longer has.
    pub(super) fn start_snapshot(&mut self, to: NodeId) {
        let Some(meta) = self.log.snapshot().cloned() else { return };
        let RoleState::Leader(leader) = &mut self.role else { return };
        let Some(progress) = leader.progress.get_mut(&to) else { return };
        let log_bytes = self.log.appended_bytes();
        progress.snapshot(meta.clone(), self.now, self.config.election_timeout.end, log_bytes);
        self.trace(TraceEvent::SnapshotNeeded { to, last: meta.last });
        self.outbox.push(Effect::ReadSnapshot { to, meta, offset: 0 });
    }

    /// A follower whose log is damaged wants entries that were compacted.
    pub(super) fn start_snapshot_unless_sending(&mut self, to: NodeId) {
        let is_due = self.progress().any(|(peer, progress)| {
            peer == to && !matches!(progress.state, ProgressState::Snapshot { .. })
        });
        if is_due {
            self.start_snapshot(to);
        }
    }

    pub(super) fn handle_snapshot_read(
        &mut self,
        to: NodeId,
        meta: &SnapshotMeta,
        offset: u64,
        data: Option<Bytes>,
    ) {
        let RoleState::Leader(leader) = &mut self.role else { return };
        let Some(progress) = leader.progress.get_mut(&to) else { return };
        let ProgressState::Snapshot { meta: wanted, offset: at, sent, .. } = &mut progress.state
        else {
            return;
        };
        if wanted != meta || *at != offset {
            return;
        }
        if let Some(data) = data {
            *sent = self.now;
            self.send(to, Message::SnapshotChunk { meta: meta.clone(), offset, data }, None);
        } else if self.log.snapshot().is_some_and(|latest| latest != meta) {
            // It is gone: a newer one took its place.
            self.start_snapshot(to);
        }
    }

    pub(super) fn handle_snapshot_ack(
        &mut self,
        from: NodeId,
        store: StoreId,
        last: EntryId,
        offset: u64,
        installed: bool,
    ) {
        let speaks = self.membership().speaks(from, store);
        let RoleState::Leader(leader) = &mut self.role else { return };
        let Some(progress) = leader.progress.get_mut(&from).filter(|_| speaks) else { return };
        let ProgressState::Snapshot { meta, offset: at, sent, asked, patience, .. } =
            &mut progress.state
        else {
            return;
        };
        if meta.last != last || offset > meta.size {
            return;
        }
        if installed {
            return self.handle_accepted(from, store, last.index);
        }
        // Whoever has nothing of it, and says so, gets the latest one. A follower that can never take one in, because its disk is full,
        // would else hold on to the same old one until our disk is full too.
        let is_superseded = self.log.snapshot().is_some_and(|latest| latest != meta);
        if offset == 0 && is_superseded {
            self.start_snapshot(from);
        } else if offset != *at {
            // (A repeated answer to a piece that was answered already starts nothing.)
            // The next one may take twice as long as this one did.
            let shortest = self.config.election_timeout.end;
            *patience = (2 * (self.now - *asked)).clamp(shortest, PATIENCE_MAX * shortest);
            (*at, *sent, *asked) = (offset, self.now, self.now);
            let meta = meta.clone();
            self.outbox.push(Effect::ReadSnapshot { to: from, meta, offset });
        }
    }

    /// The follower lives: if the piece under way has not been answered for longer than it should take, it was lost.
    ///
    /// That is an election timeout at least, and twice as long as the piece before took: over a slow link pieces would else be sent again
    /// while they are on their way, and each of them many times.
    ///
    /// It is the same piece of the same snapshot: silence does not mean that nothing has come, and a newer snapshot would throw away what has.
    pub(super) fn retry_snapshot(&mut self, to: NodeId) {
        let RoleState::Leader(leader) = &mut self.role else { return };
        let Some(progress) = leader.progress.get_mut(&to) else { return };
        let ProgressState::Snapshot { meta, offset, sent, patience, .. } = &mut progress.state
        else {
            return;
        };
        if self.now < *sent + *patience {
            return;
        }
        *patience = (2 * *patience).min(PATIENCE_MAX * self.config.election_timeout.end);
        *sent = self.now;
        let (meta, offset) = (meta.clone(), *offset);
        self.outbox.push(Effect::ReadSnapshot { to, meta, offset });
    }

    // Receiving.

    pub(super) fn handle_snapshot_chunk(
        &mut self,
        from: NodeId,
        meta: SnapshotMeta,
        offset: u64,
        data: Bytes,
    ) {
        if !self.follow(from) {
            return;
        }
        if let Err(reason) = self.is_possible(&meta) {
            return self.trace(TraceEvent::Dropped { from, reason });
        }
        if self.is_covered(meta.last) {
            let matched = self.log.before_damage(self.commit);
            let after = self.token_for(matched);
            return self.send(from, Message::AppendAccepted { matched }, after);
        }
        if offset == 0 && self.is_outdated_offer(meta.last) {
            let reason = "an offer from before a later one of the same leader";
            return self.trace(TraceEvent::Dropped { from, reason });
        }
        if !self.is_writing_snapshot {
            self.is_writing_snapshot = true;
            self.outbox.push(Effect::WriteSnapshot { meta, offset, data });
        }
    }

    /// Whether the leader of this term has offered a later snapshot before. Leaders never go back to an earlier one: this offer was delayed
    /// on the way, and would take the place of what has come of the later one.
    fn is_outdated_offer(&mut self, last: EntryId) -> bool {
        let term = self.term();
        let latest = self.offered.filter(|(of, _)| *of == term).map(|(_, latest)| latest);
        self.offered = Some((term, latest.map_or(last, |latest| latest.max(last))));
        latest.is_some_and(|latest| last < latest)
    }

    /// Whether a cluster can have come to this snapshot, in our term.
    fn is_possible(&self, meta: &SnapshotMeta) -> Result<(), &'static str> {
        let EntryId { term, index } = meta.last;
        let committed = self.log.before_damage(self.commit);
        if term > self.term() {
            Err("a snapshot of a term to come")
        } else if index > LogIndex::MAX {
            Err("a snapshot beyond the end of all logs")
        } else if meta.membership.incoming().next().is_none() || meta.membership.is_blank() {
            Err("a snapshot of a cluster without voters")
        } else if index > committed && self.log.term_at(committed).is_some_and(|at| term < at) {
            Err("a snapshot of a term that was over before its last entry")
        } else {
            Ok(())
        }
    }

    pub(super) fn handle_snapshot_written(
        &mut self,
        meta: SnapshotMeta,
        offset: u64,
        is_complete: bool,
    ) {
        self.is_writing_snapshot = false;
        let RoleState::Follower { leader: Some(leader) } = self.role else { return };
        let last = meta.last;
        if self.is_covered(last) {
            return;
        }
        if !is_complete {
            let ack = Message::SnapshotAck { last, offset, installed: false };
            return self.send(leader, ack, None);
        }
        if self.log.contains(last) && self.log.before_damage(last.index) < last.index {
            self.cover(meta);
            let after = Some(self.last_token);
            let ack = Message::SnapshotAck { last, offset, installed: true };
            return self.send(leader, ack, after);
        }
        if self.log.is_doubtful(last.index) && last.index < self.log.last().index {
            // What stands behind it may be committed, and whether it follows on the snapshot is not known. A later snapshot will do.
            let reason = "ends within what is damaged here";
            return self.trace(TraceEvent::Dropped { from: leader, reason });
        }
        if self.log.contains(last) && !self.is_older_installed() {
            // We have the entries themselves: they are committed, that is all (Raft §7).
            self.commit_to(last.index);
            let after = self.token_for(last.index);
            return self.send(leader, Message::AppendAccepted { matched: last.index }, after);
        }
        if last.index <= self.commit && !self.is_older_installed() {
            let reason = "contradicts what is committed here";
            return self.trace(TraceEvent::Dropped { from: leader, reason });
        }
        self.install_snapshot(meta);
        let after = Some(self.last_token);
        self.send(leader, Message::SnapshotAck { last, offset, installed: true }, after);
    }

    /// Whether we have everything up to the snapshot's last entry, committed.
    fn is_covered(&self, last: EntryId) -> bool {
        last.index <= self.log.before_damage(self.commit) && !self.is_older_installed()
    }

    /// Never, but for a planted bug: whether a snapshot is installed over what we have.
    fn is_older_installed(&self) -> bool {
        #[cfg(feature = "sim")]
        return self.has_bug(crate::sim::PlantedBug::SnapshotOverLaterCommit);
        #[cfg(not(feature = "sim"))]
        false
    }

    /// The log begins anew behind a snapshot from the leader.
    fn install_snapshot(&mut self, meta: SnapshotMeta) {
        assert!(!self.is_covered(meta.last), "a snapshot never takes back what is committed");
        let batch = self.batch();
        batch.snapshot = Some(meta.clone());
        batch.restart_log = true;
        let index = meta.last.index;
        #[cfg(feature = "sim")]
        let of_log = self.membership.current().clone();
        self.membership.restart(index, meta.membership.clone());
        #[cfg(feature = "sim")]
        if self.has_bug(crate::sim::PlantedBug::MembersOfSnapshotIgnored) {
            self.membership.restart(index, of_log);
        }
        self.outbox.push(Effect::MembershipChanged(meta.membership.clone()));
        self.log.restart(meta.clone());
        self.last_append = self.now;
        (self.commit, self.applying) = (index, index);
        self.note_removal();
        self.note_binding();
        self.compaction = None;
        self.trace(TraceEvent::SnapshotInstalled { last: meta.last });
        self.restoring = Some((self.last_token, meta));
    }

    /// The installed snapshot is recorded: the state machine may follow.
    ///
    /// One that has come as far by itself meanwhile, with a run that was under way when a snapshot covered damage before its end, stays
    /// where it is: reads have been served of what it has applied, and must not see it go back. One that has not goes on behind the
    /// snapshot, whatever of the run is still to come.
    pub(super) fn restore_if_durable(&mut self) {
        let durable = self.log.durable_token();
        let recorded = self.restoring.take_if(|(after, _)| *after <= durable);
        let Some((_, meta)) = recorded else { return };
        if self.applied < meta.last.index || self.is_older_installed() {
            self.applying = meta.last.index;
            self.outbox.push(Effect::Restore(meta));
        }
    }
}
