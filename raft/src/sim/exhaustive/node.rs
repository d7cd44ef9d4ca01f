//! A node with its disk, and what it waits for.

use std::collections::VecDeque;
use std::hash::Hash;
use std::time::Duration;

use super::digest::Digest;
use crate::effects::{IoToken, PersistBatch};
use crate::membership::Membership;
use crate::message::Envelope;
use crate::raft_node::{Config, RaftNode};
use crate::storage::{RecoveredState, TermRuns};
use crate::types::{Entry, EntryId, HardState, LogIndex, NodeId, Payload, StoreId, Term};

/// A node, its disk and what it waits for.
#[derive(Clone)]
pub(super) struct Node {
    pub(super) raft: RaftNode,
    pub(super) disk: Disk,
    /// Batches that are not durable yet.
    pub(super) writing: VecDeque<PersistBatch>,
    /// Messages that wait for a write.
    pub(super) held: VecDeque<(IoToken, Envelope)>,
    pub(super) digest: u128,
}

/// What survives a restart.
#[derive(Clone, Default)]
pub(super) struct Disk(pub(super) RecoveredState);

impl Node {
    pub(super) fn start(config: Config, disk: Disk, now: Duration) -> Result<Self, String> {
        let raft = RaftNode::recover(config, disk.0.clone(), 0, now)
            .map_err(|error| format!("nodes start again: {error}"))?;
        let mut node =
            Self { raft, disk, writing: VecDeque::new(), held: VecDeque::new(), digest: 0 };
        node.digest = node.digested();
        Ok(node)
    }

    pub(super) fn finish_writes(&mut self) {
        for batch in self.writing.drain(..) {
            self.disk.write(&batch);
        }
    }

    pub(super) fn digested(&self) -> u128 {
        let Self { raft, disk: Disk(disk), writing, held, digest: _ } = self;
        let RecoveredState { hard_state, snapshot, terms, memberships, tail, damaged } = disk;
        let durable = raft.log().durable_token().0;
        let mut digest = Digest::new();
        raft.digest(&mut digest);
        let snapshot = snapshot.as_ref().map(|meta| meta.last);
        (hard_state, snapshot, terms, memberships, tail, damaged).hash(&mut digest);
        for batch in writing {
            let PersistBatch {
                token,
                hard_state,
                truncate_from,
                entries,
                snapshot,
                restart_log,
                repaired,
            } = batch;
            (token.0 - durable, hard_state, truncate_from, entries).hash(&mut digest);
            (snapshot, restart_log, repaired).hash(&mut digest);
        }
        for (token, message) in held {
            (token.0 - durable, message).hash(&mut digest);
        }
        digest.value()
    }
}

impl Disk {
    /// A founding in term 1, which everybody has; then an entry of term 2 at node 1 alone, of term 3 at node 3 alone, which node 2
    /// voted for. Everybody has heard of term 3.
    pub(super) fn of_figure_8(id: u64, mut members: Membership) -> Self {
        let nodes: Vec<_> = members.incoming().collect();
        for node in nodes {
            members.bind(node, StoreId(node.0.into()));
        }
        let (voted_for, last) = match id {
            1 => (None, Some(2)),
            2 => (Some(NodeId(3)), None),
            _ => (Some(NodeId(3)), Some(3)),
        };
        let entry = |index, term, payload| Entry {
            id: EntryId::new(Term(term), LogIndex(index)),
            session: None,
            payload,
        };
        let entries = std::iter::once(entry(1, 1, Payload::Membership(members)))
            .chain(last.map(|term| entry(2, term, Payload::Noop)));
        let mut disk = Self::default();
        disk.write(&PersistBatch {
            hard_state: Some(HardState { term: Term(3), voted_for }),
            entries: entries.collect(),
            ..PersistBatch::default()
        });
        disk
    }

    pub(super) fn write(&mut self, batch: &PersistBatch) {
        let log = &mut self.0;
        if let Some(hard_state) = batch.hard_state {
            log.hard_state = hard_state;
        }
        if let Some(meta) = &batch.snapshot {
            log.snapshot = Some(meta.clone());
            if batch.restart_log {
                log.terms = TermRuns::after(meta.last);
                log.tail.clear();
                log.memberships.clear();
            }
        }
        if let Some(from) = batch.truncate_from {
            log.terms.truncate(from);
            log.tail.retain(|entry| entry.id.index < from);
            log.memberships.retain(|&(at, _)| at < from);
        }
        for entry in &batch.entries {
            let Entry { id, payload, .. } = entry;
            log.terms.push(*id);
            if let Payload::Membership(membership) = payload {
                log.memberships.push((id.index, membership.clone()));
            }
            log.tail.push(entry.clone());
        }
    }

    pub(super) fn compact(&mut self, through: LogIndex) {
        let log = &mut self.0;
        let covered = log.snapshot.as_ref().map_or(LogIndex::ZERO, |meta| meta.last.index);
        let through = through.min(covered);
        log.terms.compact(through);
        log.tail.retain(|entry| entry.id.index > through);
        log.memberships.retain(|&(at, _)| at > through);
    }
}
