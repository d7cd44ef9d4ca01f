//! The balance pass: as few slots as possible change hands until nobody has too many.
//!
//! The ring alone leaves the fullest of ten members with about 1.11 times the mean. A table is made once for many keys, so it can
//! be better: a member over its *ceiling*, 2 % above its fair share by weight, gives slots to those that are furthest below their
//! own, and to nobody else. A slot is given from the edge of a run where it lengthens a run of the receiver's, if there is one:
//! runs stay few. All of it is integer arithmetic in a fixed order: every node that makes the pass comes to the same table.

use std::ops::Range;

use crate::slot::SLOTS;

/// How far above its fair share a member may be, in percent.
const TOLERANCE_PERCENT: u64 = 2;

/// The primaries of all slots while they are shared out, with everybody's count.
#[derive(Debug)]
pub(super) struct Shares<'t> {
    /// Each slot's primary, as an index among the members; None while it has none.
    primaries: &'t mut [Option<usize>],
    weights: &'t [u64],
    total_weight: u64,
    counts: Vec<u64>,
}

impl<'t> Shares<'t> {
    pub(super) fn new(primaries: &'t mut [Option<usize>], weights: &'t [u64]) -> Self {
        let mut counts = vec![0; weights.len()];
        for member in primaries.iter().flatten() {
            counts[*member] += 1;
        }
        Self { primaries, weights, total_weight: weights.iter().sum(), counts }
    }

    /// The share of `member` by weight, rounded up.
    fn fair(&self, member: usize) -> u64 {
        (u64::from(SLOTS) * self.weights[member]).div_ceil(self.total_weight)
    }

    /// The most that `member` may have.
    fn ceiling(&self, member: usize) -> u64 {
        let most = u64::from(SLOTS) * self.weights[member] * (100 + TOLERANCE_PERCENT);
        (most / (100 * self.total_weight)).max(self.fair(member))
    }

    fn give(&mut self, slot: usize, receiver: usize) {
        if let Some(giver) = self.primaries[slot].replace(receiver) {
            self.counts[giver] -= 1;
        }
        self.counts[receiver] += 1;
    }

    /// The member that has least, relative to its weight.
    fn neediest(&self) -> usize {
        // count / weight, compared by cross-multiplication.
        let has_less = |this: usize, that: usize| {
            self.counts[this] * self.weights[that] < self.counts[that] * self.weights[this]
        };
        let least = (0..self.weights.len())
            .reduce(|least, other| if has_less(other, least) { other } else { least });
        least.expect("shares are made for members")
    }

    /// Lets `newcomer` take the slots that the ring would give it (`wanted`), from members that have more than their fair share,
    /// until it has its own.
    pub(super) fn welcome(&mut self, newcomer: usize, wanted: impl Iterator<Item = usize>) {
        for slot in wanted {
            if self.counts[newcomer] >= self.fair(newcomer) {
                return;
            }
            let giver = self.primaries[slot];
            if giver.is_none_or(|giver| self.counts[giver] > self.fair(giver)) {
                self.give(slot, newcomer);
            }
        }
    }

    /// Gives every slot without a primary to the first of its `heirs` that has room, or else to whoever is neediest.
    pub(super) fn inherit(&mut self, heirs: impl Fn(usize) -> Vec<usize>) {
        for slot in 0..self.primaries.len() {
            if self.primaries[slot].is_none() {
                let has_room = |heir: &usize| self.counts[*heir] < self.fair(*heir);
                let heir = heirs(slot).into_iter().find(has_room);
                let heir = heir.unwrap_or_else(|| self.neediest());
                self.give(slot, heir);
            }
        }
    }

    /// Moves slots from members above their ceiling to the neediest, until there are none.
    pub(super) fn level(&mut self) {
        for giver in 0..self.weights.len() {
            while self.counts[giver] > self.ceiling(giver) {
                let receiver = self.neediest();
                self.move_run(giver, receiver);
            }
        }
    }

    /// Moves slots of one run of `giver` to `receiver`, no more than the one has too many or the other too few.
    fn move_run(&mut self, giver: usize, receiver: usize) {
        let excess = self.counts[giver] - self.ceiling(giver);
        let room = self.fair(receiver).saturating_sub(self.counts[receiver]).max(1);
        let number = usize::try_from(excess.min(room)).expect("at most all slots");
        let run = self.best_run(giver, receiver);
        let number = number.min(run.slots.len());
        let taken = if run.is_followed {
            run.slots.end - number..run.slots.end
        } else {
            run.slots.start..run.slots.start + number
        };
        for slot in taken {
            self.give(slot, receiver);
        }
    }

    /// The run of `giver` to take from: the longest that touches one of `receiver`, or else the longest.
    fn best_run(&self, giver: usize, receiver: usize) -> Run {
        let mut best: Option<Run> = None;
        let mut start = 0;
        for run in self.primaries.chunk_by(|slot, next| slot == next) {
            let slots = start..start + run.len();
            start = slots.end;
            if run[0] != Some(giver) {
                continue;
            }
            let owned = |slot: usize| self.primaries.get(slot) == Some(&Some(receiver));
            let is_preceded = slots.start.checked_sub(1).is_some_and(owned);
            let is_followed = !is_preceded && owned(slots.end);
            let run = Run { slots, is_preceded, is_followed };
            if best.as_ref().is_none_or(|best| best.rank() < run.rank()) {
                best = Some(run);
            }
        }
        best.expect("a member above its ceiling has slots")
    }
}

/// Consecutive slots with one primary.
#[derive(Debug)]
struct Run {
    slots: Range<usize>,
    /// Whether the receiver has the slot before the first.
    is_preceded: bool,
    /// Whether it has the slot after the last (and not the one before the first).
    is_followed: bool,
}

impl Run {
    fn rank(&self) -> (bool, usize) {
        (self.is_preceded || self.is_followed, self.slots.len())
    }
}
