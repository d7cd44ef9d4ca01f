//! The members over the length of the log, and the binding of founders to their data directories.
//!
//! A membership is in force from the place of its entry on, committed or not, and goes when the entry goes (thesis §4.1). So the
//! node keeps all that a truncation could bring back.
//!
//! The first entry of the first leader binds the founders that it has heard from; one that comes later is bound by an entry of its own.
//! Why this is safe is told in [`crate::membership`]. As with any change of members, one is made only when the one before
//! it is committed, and an entry of the current term too.
//! (Joint consensus will live here.)

use std::collections::BTreeMap;

use crate::membership::Membership;
use crate::trace::TraceEvent;
use crate::types::{LogIndex, NodeId, Payload, StoreId};

use super::{RaftNode, RoleState};

/// The members from each place in the log on.
#[derive(Clone, Debug, Hash)]
pub(super) struct MembershipHistory {
    /// In force from the base of the log on; never empty, ascending.
    changes: Vec<(LogIndex, Membership)>,
}

impl MembershipHistory {
    /// `base` is in force at `index`; `changes` come from the log and may begin before it.
    pub(super) fn recovered(
        index: LogIndex,
        base: Membership,
        changes: Vec<(LogIndex, Membership)>,
    ) -> Self {
        let later = changes.into_iter().filter(|&(at, _)| at > index);
        Self { changes: std::iter::once((index, base)).chain(later).collect() }
    }

    pub(super) fn current(&self) -> &Membership {
        &self.changes.last().expect("never empty").1
    }

    pub(super) fn at(&self, index: LogIndex) -> &Membership {
        let after = self.changes.partition_point(|&(at, _)| at <= index);
        &self.changes[after.saturating_sub(1)].1
    }

    pub(super) fn push(&mut self, index: LogIndex, membership: Membership) {
        debug_assert!(self.changes.last().is_some_and(|&(at, _)| at < index), "ascending");
        self.changes.push((index, membership));
    }

    /// Entries from `from` on are gone. Returns whether that changed the members.
    pub(super) fn truncate(&mut self, from: LogIndex) -> bool {
        let before = self.changes.len();
        self.changes.retain(|&(at, _)| at < from);
        assert!(!self.changes.is_empty(), "the base is never truncated");
        self.changes.len() < before
    }

    /// Nothing before `index` will be asked for.
    pub(super) fn compact(&mut self, index: LogIndex) {
        let after = self.changes.partition_point(|&(at, _)| at <= index);
        self.changes.drain(..after.saturating_sub(1));
    }

    pub(super) fn restart(&mut self, index: LogIndex, membership: Membership) {
        self.changes = vec![(index, membership)];
    }

    fn last_change(&self) -> LogIndex {
        self.changes.last().expect("never empty").0
    }
}

impl RaftNode {
    /// The entry with which a term begins: the founding of the cluster if nobody is bound yet, else nothing.
    pub(super) fn first_payload_of_term(&mut self, stores: &BTreeMap<NodeId, StoreId>) -> Payload {
        if !self.membership().is_blank() {
            return Payload::Noop;
        }
        let mut membership = self.membership().clone();
        for (&node, &store) in stores {
            membership.bind(node, store);
            self.trace(TraceEvent::Bound { node, store });
        }
        Payload::Membership(membership)
    }

    /// As leader: a founder that was not there when the cluster was founded speaks up, and is bound as soon as that may be.
    pub(super) fn note_unbound(&mut self, node: NodeId, store: StoreId) {
        let RoleState::Leader(leader) = &mut self.role else { return };
        let membership = self.membership.current();
        if membership.contains(node) && membership.store_of(node).is_none() {
            leader.unbound.insert(node, store);
            self.bind_next();
        }
    }

    /// Binds one founder that has spoken up, if the change before is settled; the next when that one is.
    pub(super) fn bind_next(&mut self) {
        let RoleState::Leader(leader) = &mut self.role else { return };
        let is_settled =
            self.membership.last_change() <= self.commit && leader.term_start <= self.commit;
        if !is_settled {
            return;
        }
        let Some((node, store)) = leader.unbound.pop_first() else { return };
        let mut membership = self.membership.current().clone();
        membership.bind(node, store);
        self.trace(TraceEvent::Bound { node, store });
        self.append_as_leader(Payload::Membership(membership), None);
        self.send_appends_to_all();
    }
}
