//! Operators who wait for a change of the members.
//!
//! There are few: the core takes one change at a time, and one that lost its place in the log is answered when that is known.
//!
//! A change of voters takes two entries: the joint membership, and the one that leaves it. The core announces the second when the
//! first is committed, and from then on the change is *decided*: whoever leads finishes it, if need be with an entry of its own in
//! the place of ours. So only the first entry's loss means that the change was never made; once it is decided, the operator waits until no
//! joint membership is in force, by whoever's entry.

use std::collections::BTreeMap;

use crate::effects::{OrderError, ProposalId};
use crate::types::{EntryId, LogIndex, Term};

use super::Output;

/// The changes that are in the log, by the order.
#[derive(Debug, Default)]
pub(super) struct Orders {
    waiting: BTreeMap<ProposalId, Order>,
}

#[derive(Clone, Copy, Debug)]
struct Order {
    /// The entry that decides the change.
    first: EntryId,
    /// That entry is committed: nothing takes the change back.
    is_decided: bool,
}

impl Orders {
    /// The order is done when `entry` is committed, and when no membership in between is in force any more. The second time, `entry` is
    /// the one that ends what the first began.
    pub(super) fn waits(&mut self, id: ProposalId, entry: EntryId) {
        let order = self.waiting.entry(id);
        order
            .and_modify(|order| order.is_decided = true)
            .or_insert(Order { first: entry, is_decided: false });
    }

    pub(super) fn forget(&mut self, id: ProposalId) {
        self.waiting.remove(&id);
    }

    /// Everything up to `through` is applied; `is_joint` says whether a joint membership is in force there. What cannot be looked up any
    /// more, a snapshot stands in its place.
    pub(super) fn applied(
        &mut self,
        through: LogIndex,
        is_joint: bool,
        term_at: impl Fn(LogIndex) -> Option<Term>,
        out: &mut Vec<Output>,
    ) {
        self.waiting.retain(|&id, order| {
            if order.first.index > through {
                return true;
            }
            let result = match term_at(order.first.index) {
                _ if order.is_decided => Ok(()),
                Some(term) if term == order.first.term => Ok(()),
                Some(_) => Err(OrderError::Superseded),
                None => Err(OrderError::Unknown),
            };
            order.is_decided = result.is_ok();
            if order.is_decided && is_joint {
                return true;
            }
            out.push(Output::OrderDone { id, result });
            false
        });
    }

    /// What lies behind `last` is no longer in the log; another node may still have it.
    pub(super) fn give_up(&mut self, last: LogIndex, out: &mut Vec<Output>) {
        self.waiting.retain(|&id, order| {
            let stays = order.first.index <= last;
            if !stays {
                out.push(Output::OrderDone { id, result: Err(OrderError::Unknown) });
            }
            stays
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: ProposalId = ProposalId(7);
    /// What the log says of the entry at 5.
    const OURS: fn(LogIndex) -> Option<Term> = |_| Some(Term(2));
    const ANOTHERS: fn(LogIndex) -> Option<Term> = |_| Some(Term(3));
    const COMPACTED: fn(LogIndex) -> Option<Term> = |_| None;

    fn entry(term: u64, index: u64) -> EntryId {
        EntryId::new(Term(term), LogIndex(index))
    }

    fn applied(
        orders: &mut Orders,
        through: u64,
        is_joint: bool,
        term_at: fn(LogIndex) -> Option<Term>,
    ) -> Option<Result<(), OrderError>> {
        let mut out = Vec::new();
        orders.applied(LogIndex(through), is_joint, term_at, &mut out);
        out.pop().map(|output| match output {
            Output::OrderDone { id: ID, result } => result,
            other => panic!("{other:?}"),
        })
    }

    fn one() -> Orders {
        let mut orders = Orders::default();
        orders.waits(ID, entry(2, 5));
        orders
    }

    #[test]
    fn a_change_whose_first_entry_was_replaced_was_never_made() {
        assert_eq!(applied(&mut one(), 4, false, OURS), None);
        assert_eq!(applied(&mut one(), 5, false, ANOTHERS), Some(Err(OrderError::Superseded)));
        assert_eq!(applied(&mut one(), 5, false, COMPACTED), Some(Err(OrderError::Unknown)));
        assert_eq!(applied(&mut one(), 5, false, OURS), Some(Ok(())));
    }

    /// The joint membership was committed, its leader lost its office, and the next one left it with an entry in the same place.
    #[test]
    fn a_decided_change_is_done_by_whoever_ends_it() {
        let mut orders = one();
        orders.waits(ID, entry(2, 6));
        assert_eq!(applied(&mut orders, 5, true, OURS), None);
        assert_eq!(applied(&mut orders, 6, false, ANOTHERS), Some(Ok(())));
        let mut orders = one();
        orders.waits(ID, entry(2, 6));
        let mut out = Vec::new();
        orders.give_up(LogIndex(5), &mut out);
        assert!(out.is_empty(), "what ends it is gone, but it is decided");
        assert_eq!(applied(&mut orders, 9, false, COMPACTED), Some(Ok(())));
    }

    #[test]
    fn a_change_is_not_done_while_a_membership_in_between_is_in_force() {
        let mut orders = one();
        assert_eq!(applied(&mut orders, 5, true, OURS), None);
        assert_eq!(applied(&mut orders, 8, true, COMPACTED), None);
        assert_eq!(applied(&mut orders, 9, false, COMPACTED), Some(Ok(())));
    }

    #[test]
    fn what_is_gone_from_the_log_may_still_be_elsewhere() {
        let mut out = Vec::new();
        one().give_up(LogIndex(4), &mut out);
        assert!(matches!(out[..], [Output::OrderDone { result: Err(OrderError::Unknown), .. }]));
    }
}
