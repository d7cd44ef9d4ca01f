//! Reads and their progress: queued, being confirmed, waiting for the machine.
//!
//! One confirmation is asked for at a time; whatever arrives meanwhile shares the next one. So the cost of a read falls as reads grow
//! more, and no confirmation is older than the reads that it serves. Each read has a deadline, whatever it waits for.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::message::ReadId;
use crate::raft_node::Event;
use crate::types::LogIndex;

use super::{Output, Replica, RequestId};

/// A read and when to give it up.
type Waiting = (RequestId, Duration);

/// Reads that share one confirmation.
#[derive(Debug)]
struct Confirming {
    id: ReadId,
    requests: Vec<Waiting>,
    retry_at: Duration,
}

/// All reads without an answer.
#[derive(Debug, Default)]
pub(super) struct Reads {
    counter: u64,
    queued: Vec<Waiting>,
    confirming: Option<Confirming>,
    /// Those that are confirmed, by the index that they wait for.
    confirmed: BTreeMap<LogIndex, Vec<Waiting>>,
}

impl Reads {
    /// How many there are.
    fn waiting(&self) -> usize {
        let confirming = self.confirming.as_ref().map_or(0, |confirming| confirming.requests.len());
        self.queued.len() + confirming + self.confirmed.values().map(Vec::len).sum::<usize>()
    }

    /// When something has to be asked again, or given up.
    pub(super) fn next_deadline(&self) -> Option<Duration> {
        let confirming = self.confirming.as_ref().map(|confirming| confirming.retry_at);
        let queued = self.queued.iter().map(|&(_, deadline)| deadline).min();
        // Later indexes were asked for later.
        let confirmed = self.confirmed.first_key_value().and_then(|(_, group)| group.first());
        [confirming, queued, confirmed.map(|&(_, deadline)| deadline)].into_iter().flatten().min()
    }

    /// Takes out a group that may be served once `applied` is applied.
    pub(super) fn pop_servable(&mut self, applied: LogIndex) -> Option<Vec<Waiting>> {
        let group = self.confirmed.first_entry().filter(|group| *group.key() <= applied)?;
        Some(group.remove())
    }

    /// All of them, when nobody will answer any more.
    pub(super) fn into_unanswered(self) -> impl Iterator<Item = RequestId> {
        let confirming = self.confirming.into_iter().flat_map(|confirming| confirming.requests);
        let confirmed = self.confirmed.into_values().flatten();
        self.queued.into_iter().chain(confirming).chain(confirmed).map(|(request, _)| request)
    }
}

impl Replica {
    pub(super) fn queue_reads(
        &mut self,
        requests: Vec<RequestId>,
        deadline: Duration,
        out: &mut Vec<Output>,
    ) {
        let mut room = self.config.reads_max.saturating_sub(self.reads.waiting());
        for request in requests {
            if room > 0 {
                room -= 1;
                self.reads.queued.push((request, deadline));
            } else {
                out.push(Output::ReadFailed { request, leader: self.node.leader() });
            }
        }
    }

    /// Asks for one index for all reads that wait, unless one is being asked for or nobody leads.
    pub(super) fn ask_for_reads(&mut self, now: Duration, out: &mut Vec<Output>) {
        let can_ask = self.reads.confirming.is_none() && self.node.leader().is_some();
        if self.reads.queued.is_empty() || !can_ask || self.is_stopped {
            return;
        }
        self.reads.counter += 1;
        let (node, boot) = (self.node.id(), self.node.config().boot);
        let id = ReadId { node, boot, counter: self.reads.counter };
        let requests = std::mem::take(&mut self.reads.queued);
        let retry_at = now + self.config.read_retry;
        self.reads.confirming = Some(Confirming { id, requests, retry_at });
        self.step(now, Event::ReadIndex(id), out);
    }

    pub(super) fn read_confirmed(&mut self, id: ReadId, index: LogIndex, out: &mut Vec<Output>) {
        let Some(confirming) = self.reads.confirming.take_if(|confirming| confirming.id == id)
        else {
            return;
        };
        if index <= self.applied.index || self.reads_before_applied() {
            let requests = confirming.requests.into_iter();
            out.extend(requests.map(|(request, _)| Output::ReadReady(request)));
        } else {
            self.reads.confirmed.entry(index).or_default().extend(confirming.requests);
        }
    }

    /// Never, but for a planted bug: whether a read is served by a machine that is behind it.
    fn reads_before_applied(&self) -> bool {
        #[cfg(feature = "sim")]
        return self.has_bug(crate::sim::PlantedBug::ReadBeforeApplied);
        #[cfg(not(feature = "sim"))]
        false
    }

    /// Nobody could confirm it: it goes back into the queue, to be asked again a little later.
    pub(super) fn read_unconfirmed(&mut self, now: Duration, id: ReadId) {
        if let Some(confirming) =
            self.reads.confirming.as_mut().filter(|confirming| confirming.id == id)
        {
            let pause = self.node.config().heartbeat / 4;
            confirming.retry_at = confirming.retry_at.min(now + pause);
        }
    }

    /// The leader changed: what is being asked may never be answered.
    pub(super) fn ask_again_at(&mut self, now: Duration) {
        if let Some(confirming) = &mut self.reads.confirming {
            confirming.retry_at = now;
        }
    }

    pub(super) fn expire_reads(&mut self, now: Duration, out: &mut Vec<Output>) {
        if let Some(unanswered) =
            self.reads.confirming.take_if(|confirming| confirming.retry_at <= now)
        {
            self.reads.queued.extend(unanswered.requests);
        }
        let leader = self.node.leader();
        let mut is_live = |&(request, deadline): &(RequestId, Duration)| {
            let is_live = deadline > now;
            if !is_live {
                out.push(Output::ReadFailed { request, leader });
            }
            is_live
        };
        self.reads.queued.retain(&mut is_live);
        // A machine that stands still, because its log does, must not keep them for ever.
        self.reads.confirmed.retain(|_, group| {
            group.retain(&mut is_live);
            !group.is_empty()
        });
    }
}
