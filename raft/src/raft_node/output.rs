//! What a step gives out, and in which order: its one write first, then everything else, then what may now be applied.

use lattice_trace::Cause;

use super::RaftNode;
use crate::effects::{Effect, Effects, FatalError, IoToken, PersistBatch};
use crate::message::{Envelope, Message};
use crate::trace::TraceEvent;
use crate::types::{Entry, HardState, LogIndex, NodeId, Payload};

impl RaftNode {
    /// The write that this step gathers.
    pub(super) fn batch(&mut self) -> &mut PersistBatch {
        if self.batch.is_none() {
            self.last_token = IoToken(self.last_token.0 + 1);
        }
        let token = self.last_token;
        self.batch.get_or_insert_with(|| PersistBatch { token, ..PersistBatch::default() })
    }

    pub(super) fn save_hard_state(&mut self, hard_state: HardState) {
        let before = self.hard_state;
        assert!(hard_state.term >= before.term, "terms never fall");
        assert!(
            hard_state.term > before.term
                || before.voted_for.is_none()
                || before.voted_for == hard_state.voted_for,
            "a vote is given once a term"
        );
        self.hard_state = hard_state;
        self.voted_store = None;
        self.batch().hard_state = Some(hard_state);
        self.hard_state_token = self.last_token;
    }

    /// Adds an entry to the log and to this step's write.
    pub(super) fn append_entry(&mut self, entry: Entry) {
        if let Payload::Membership(membership) = &entry.payload {
            self.membership.push(entry.id.index, membership.clone());
            self.outbox.push(Effect::MembershipChanged(membership.clone()));
        }
        self.appended_from.get_or_insert(entry.id.index);
        self.log.append(entry);
        self.last_append = self.now;
        self.batch();
    }

    /// Sends `message`, not before `after` and not before our term is durable, which every message reveals.
    pub(super) fn send(&mut self, to: NodeId, message: Message, after: Option<IoToken>) {
        let after = self.guarded(after);
        self.send_unguarded(to, message, after);
    }

    /// The same for a message that nobody waits for.
    pub(super) fn send_in_time(&mut self, to: NodeId, message: Message, can_wait: bool) {
        let after = self.guarded(None);
        self.send_envelope(to, message, can_wait, after);
    }

    fn guarded(&self, after: Option<IoToken>) -> Option<IoToken> {
        let after = after.max(Some(self.hard_state_token));
        after.filter(|&token| token > self.log.durable_token())
    }

    pub(super) fn send_unguarded(&mut self, to: NodeId, message: Message, after: Option<IoToken>) {
        self.send_envelope(to, message, false, after);
    }

    fn send_envelope(
        &mut self,
        to: NodeId,
        message: Message,
        can_wait: bool,
        after: Option<IoToken>,
    ) {
        let envelope = Envelope {
            cluster: self.config.cluster,
            group: self.config.group,
            from: self.config.id,
            to,
            store: self.config.store,
            term: self.term(),
            cause: Cause::default(),
            can_wait,
            message,
        };
        self.outbox.push(Effect::Send { envelope, after });
    }

    /// The other members, learners included.
    pub(super) fn peers(&self) -> impl Iterator<Item = NodeId> + '_ {
        let members = self.membership().members().map(|(node, _)| node);
        members.filter(|&peer| peer != self.config.id)
    }

    /// Does something for each of the other members.
    pub(super) fn for_each_peer(&mut self, mut act: impl FnMut(&mut Self, NodeId)) {
        let mut done = None;
        loop {
            let next = self.peers().find(|&peer| Some(peer) > done);
            let Some(peer) = next else { return };
            act(self, peer);
            done = next;
        }
    }

    pub(super) fn trace(&mut self, event: TraceEvent) {
        self.outbox.push(Effect::Trace(event));
    }

    pub(super) fn stop(&mut self, error: FatalError) {
        if !self.is_stopped {
            self.is_stopped = true;
            self.outbox.push(Effect::Fatal(error));
        }
    }

    /// Gives out what the step has gathered: the write, then everything else, then what may now be applied.
    pub(super) fn finish(&mut self, effects: &mut Effects) {
        if let Some(mut batch) = self.batch.take() {
            if let Some(from) = self.appended_from.take() {
                let entries = self.log.entries(from, self.log.last().index, usize::MAX);
                batch.entries = entries.expect("what was appended just now is in memory");
            }
            self.log.writing(batch.token);
            effects.push(Effect::Persist(batch));
        }
        for effect in self.outbox.drain(..) {
            effects.push(effect);
        }
        self.give_out_committed(effects);
        debug_assert!(self.commit <= self.log.last().index, "commit is in the log");
    }

    /// Entries are applied once they are committed *and* durable here, so that a machine is never ahead of its own log.
    fn give_out_committed(&mut self, effects: &mut Effects) {
        let through = self.apply_bound();
        if self.restoring.is_none() && through > self.applying && !self.is_stopped {
            effects.push(Effect::Apply(self.applying.next()..=through));
            self.applying = through;
        }
    }

    fn apply_bound(&self) -> LogIndex {
        #[cfg(feature = "sim")]
        if self.has_bug(crate::sim::PlantedBug::ApplyBeforeCommit) {
            return self.log.durable();
        }
        self.commit.min(self.log.sound())
    }
}
