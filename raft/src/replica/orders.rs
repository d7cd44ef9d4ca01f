//! Operators who wait for a change of the members.
//!
//! There are few: the core takes one change at a time, and one that lost its place in the log is answered when that is known.

use std::collections::BTreeMap;

use crate::effects::{OrderError, ProposalId};
use crate::types::{EntryId, LogIndex, Term};

use super::Output;

/// The changes that are in the log, by the order, with the entry that ends each.
#[derive(Debug, Default)]
pub(super) struct Orders {
    waiting: BTreeMap<ProposalId, EntryId>,
}

impl Orders {
    /// The order is done when `entry` is committed.
    pub(super) fn waits(&mut self, id: ProposalId, entry: EntryId) {
        self.waiting.insert(id, entry);
    }

    pub(super) fn forget(&mut self, id: ProposalId) {
        self.waiting.remove(&id);
    }

    /// Everything up to `through` is applied. What cannot be looked up any more, a snapshot stands in its place.
    pub(super) fn applied(
        &mut self,
        through: LogIndex,
        term_at: impl Fn(LogIndex) -> Option<Term>,
        out: &mut Vec<Output>,
    ) {
        self.waiting.retain(|&id, entry| {
            if entry.index > through {
                return true;
            }
            let result = match term_at(entry.index) {
                Some(term) if term == entry.term => Ok(()),
                Some(_) => Err(OrderError::Superseded),
                None => Err(OrderError::Unknown),
            };
            out.push(Output::OrderDone { id, result });
            false
        });
    }

    /// What lies behind `last` is no longer in the log; another node may still have it.
    pub(super) fn give_up(&mut self, last: LogIndex, out: &mut Vec<Output>) {
        self.waiting.retain(|&id, entry| {
            let stays = entry.index <= last;
            if !stays {
                out.push(Output::OrderDone { id, result: Err(OrderError::Unknown) });
            }
            stays
        });
    }
}
