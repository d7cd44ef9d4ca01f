//! One file: what its readers see, what a crash cannot take, and the operations that are still between the two.

use std::collections::VecDeque;

use crate::disk::pages::{Pages, to_u64, to_usize};
use crate::random::{Chance, Rng, below, between};

/// The unit that a disk writes whole.
const SECTOR: u64 = 512;

/// A file, whatever names it has.
#[derive(Debug, Default)]
pub(super) struct Inode {
    /// What reads see: every operation that was issued.
    pub(super) visible: Pages,
    /// What survives every crash.
    pub(super) durable: Pages,
    /// Operations that no completed sync covers yet, oldest first.
    pub(super) pending: VecDeque<Operation>,
    /// Whether a visible name leads here.
    pub(super) linked: bool,
    /// Open files.
    pub(super) handles: usize,
}

/// An operation on a file's content or length.
#[derive(Debug)]
pub(super) struct Operation {
    /// Its place among all operations of the disk.
    pub(super) sequence: u64,
    /// When the disk began with it.
    pub(super) start: u64,
    pub(super) change: Change,
}

#[derive(Debug)]
pub(super) enum Change {
    Write { offset: u64, bytes: Vec<u8> },
    Grow { length: u64 },
}

impl Change {
    fn apply(&self, pages: &mut Pages) {
        match self {
            Self::Write { offset, bytes } => pages.write(bytes, *offset),
            Self::Grow { length } => pages.grow(*length),
        }
    }

    /// Applies a part of a write, as a power cut in its middle leaves it.
    fn apply_torn(&self, pages: &mut Pages, rng: &mut impl Rng) {
        let Self::Write { offset, bytes } = self else {
            return;
        };
        let length = to_u64(bytes.len());
        if Chance::percent(20).happens(rng) {
            // A prefix, cut at any byte.
            let kept = to_usize(below(rng, length + 1));
            return pages.write(&bytes[..kept], *offset);
        }
        // Some of the sectors, in whatever order the disk took them.
        let likelihood = Chance::percent(u32::try_from(between(rng, 10, 90)).expect("under 100"));
        let mut at = *offset;
        let end = offset + length;
        while at < end {
            let next = ((at / SECTOR + 1) * SECTOR).min(end);
            if likelihood.happens(rng) {
                pages.write(&bytes[to_usize(at - offset)..to_usize(next - offset)], at);
            }
            at = next;
        }
    }
}

/// What becomes of one operation that was not synced before a crash.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    Kept,
    Dropped,
    Torn,
}

impl Inode {
    /// Makes an operation visible and remembers it until it is synced.
    pub(super) fn push(&mut self, operation: Operation) {
        operation.change.apply(&mut self.visible);
        self.pending.push_back(operation);
    }

    /// A sync that covers everything before `sequence` has succeeded.
    pub(super) fn settle(&mut self, sequence: u64) {
        while let Some(operation) = self.pending.pop_front_if(|next| next.sequence < sequence) {
            operation.change.apply(&mut self.durable);
        }
    }

    /// A sync has failed. What it covered stays visible but counts as clean: no later sync writes it.
    pub(super) fn forget(&mut self, sequence: u64) {
        while self.pending.pop_front_if(|next| next.sequence < sequence).is_some() {}
    }

    /// The process is gone and the machine is not: reads come from the disk and from what is still to be written.
    pub(super) fn reload(&mut self, now: u64) {
        self.pending.retain(|operation| operation.start <= now);
        self.visible = self.durable.clone();
        for operation in &self.pending {
            operation.change.apply(&mut self.visible);
        }
    }

    /// The machine is gone: each operation has the fate that `decide` gives it, and the rest is what there is.
    pub(super) fn crash<R: Rng>(
        &mut self,
        now: u64,
        rng: &mut R,
        mut decide: impl FnMut(&mut R) -> Fate,
    ) {
        for operation in self.pending.drain(..) {
            // The disk is serial: what starts after the crash never happened.
            if operation.start > now {
                continue;
            }
            match decide(rng) {
                Fate::Kept => operation.change.apply(&mut self.durable),
                Fate::Torn => operation.change.apply_torn(&mut self.durable, rng),
                Fate::Dropped => {}
            }
        }
        self.visible = self.durable.clone();
        self.handles = 0;
    }
}
