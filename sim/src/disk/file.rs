//! One file: what its readers see, what a crash cannot take, and the operations that are still between the two.

use std::collections::VecDeque;
use std::ops::Range;

use crate::disk::pages::{Pages, to_u64, to_usize};
use crate::random::{Chance, Rng, below, between};

/// The unit that a disk writes whole, and that rots, is lost or is misplaced whole: 512 bytes.
pub const SECTOR: u64 = 512;

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
    Write { offset: u64, bytes: Vec<u8>, landing: Landing },
    Grow { length: u64 },
}

/// Where a write lands on the platter. The page cache shows it in its place in any case.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Landing {
    InPlace,
    /// At another offset of the same file, over what is there.
    At(u64),
    Nowhere,
}

impl Change {
    /// As everybody sees it who reads from the page cache.
    fn show(&self, pages: &mut Pages) {
        match self {
            Self::Write { offset, bytes, .. } => pages.write(bytes, *offset),
            Self::Grow { length } => pages.grow(*length),
        }
    }

    /// As it reaches the platter.
    fn apply(&self, pages: &mut Pages) {
        match self {
            Self::Write { offset, bytes, landing } => {
                let end = offset + to_u64(bytes.len());
                match landing {
                    Landing::InPlace => pages.write(bytes, *offset),
                    // The length is kept elsewhere than the content, and is right.
                    Landing::At(other) => {
                        pages.grow(end);
                        let room = to_usize(
                            pages.length().saturating_sub(*other).min(to_u64(bytes.len())),
                        );
                        pages.write(&bytes[..room], *other);
                    }
                    Landing::Nowhere => pages.grow(end),
                }
            }
            Self::Grow { length } => pages.grow(*length),
        }
    }

    /// Whether it writes to any of these bytes.
    fn touches(&self, bytes: &Range<u64>) -> bool {
        match self {
            Self::Write { offset, bytes: written, .. } => {
                *offset < bytes.end && offset + to_u64(written.len()) > bytes.start
            }
            Self::Grow { .. } => false,
        }
    }

    /// Applies a part of a write, as a power cut in its middle leaves it.
    fn apply_torn(&self, pages: &mut Pages, rng: &mut impl Rng) {
        let Self::Write { offset, bytes, landing: Landing::InPlace } = self else {
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
        operation.change.show(&mut self.visible);
        self.pending.push_back(operation);
    }

    /// Changes bytes that are durable, behind everybody's back. What the page cache has not yet written there stays visible, and
    /// will be written over the damage.
    pub(super) fn alter(&mut self, bytes: Range<u64>, change: impl Fn(&mut [u8])) {
        let is_dirty = self.pending.iter().any(|operation| operation.change.touches(&bytes));
        let visible = (!is_dirty).then_some(&mut self.visible);
        for image in std::iter::once(&mut self.durable).chain(visible) {
            let length = to_usize(bytes.end.min(image.length()).saturating_sub(bytes.start));
            let mut content = vec![0; length];
            image.read(&mut content, bytes.start);
            change(&mut content);
            image.write(&content, bytes.start);
        }
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
            operation.change.show(&mut self.visible);
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
