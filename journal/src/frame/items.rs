//! The body that carries items: what stands before them, and which of them read back as they were written.

use std::ops::Range;

use super::{
    ALIGNMENT, Checked, HAS_STATE, RESTARTS, TRUNCATES, is_padding, to_u64, to_usize, u32_at,
};

/// The body of a batch frame.
#[derive(Clone, Copy, Debug)]
pub(crate) struct BatchBody<'a> {
    pub(super) flags: u32,
    pub(crate) state: Option<&'a [u8]>,
    checked: Checked,
    /// The length of each item, and its checksum if it has one.
    entries: &'a [u8],
    /// The items, and what fills the body up.
    items: &'a [u8],
}

/// An item, and where it stands in its frame's items, in bytes.
struct Placed<'a> {
    bytes: Range<usize>,
    /// `None` if it does not read back as it was written.
    item: Option<&'a [u8]>,
}

/// Items of a frame that do not read back as they were written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct LostItems {
    pub(crate) positions: Range<u64>,
    /// Their bytes in the segment's file.
    pub(crate) bytes: Range<u64>,
}

impl<'a> BatchBody<'a> {
    /// The batch first truncated the log, to the first position of its frame.
    pub(crate) fn truncates(&self) -> bool {
        self.flags & TRUNCATES != 0
    }

    /// The batch first restarted the log, at the first position of its frame.
    pub(crate) fn restarts(&self) -> bool {
        self.flags & RESTARTS != 0
    }

    /// The items from the `skipped`-th on; `None` for one that does not read back as it was written.
    pub(crate) fn items(&self, skipped: usize) -> impl Iterator<Item = Option<&'a [u8]>> {
        self.placed(skipped).map(|placed| placed.item)
    }

    /// The items that do not read back as they were written, in order; those that follow on each other together. `first` is the position
    /// of the first item, and `end` where the frame ends in its file.
    pub(crate) fn lost(&self, first: u64, end: u64) -> Vec<LostItems> {
        let begin = end - to_u64(self.items.len());
        let mut lost: Vec<LostItems> = Vec::new();
        for (Placed { bytes, item }, position) in self.placed(0).zip(first..) {
            if item.is_some() {
                continue;
            }
            let bytes = begin + to_u64(bytes.start)..begin + to_u64(bytes.end);
            match lost.last_mut().filter(|last| last.positions.end == position) {
                Some(last) => (last.positions.end, last.bytes.end) = (position + 1, bytes.end),
                None => lost.push(LostItems { positions: position..position + 1, bytes }),
            }
        }
        lost
    }

    fn placed(&self, skipped: usize) -> impl Iterator<Item = Placed<'a>> {
        let Self { checked, items, entries, .. } = *self;
        let entries = entries.chunks_exact(checked.entry());
        let last = entries.len().saturating_sub(1);
        let mut start = entries.clone().take(skipped).map(item_length).sum::<usize>();
        entries.enumerate().skip(skipped).map(move |(number, entry)| {
            let bytes = start..start + item_length(entry);
            start = bytes.end;
            // The last one's checksum covers what fills the body up.
            let covered = if number == last { bytes.start..items.len() } else { bytes.clone() };
            let is_intact = match checked {
                Checked::Whole => true,
                Checked::Items => crc32c::crc32c(&items[covered]) == u32_at(entry, 4),
            };
            Placed { item: is_intact.then(|| &items[bytes.clone()]), bytes }
        })
    }

    pub(super) fn read(body: &'a [u8], count: u32, checked: Checked) -> Option<Self> {
        let flags = u32_at(body.get(..8)?, 0);
        let state_length = to_usize(u32_at(body, 4));
        let known = TRUNCATES | RESTARTS | HAS_STATE;
        let has_state = flags & HAS_STATE != 0;
        if flags & !known != 0 || (!has_state && state_length != 0) {
            return None;
        }
        let rest = &body[8..];
        let (entries, rest) =
            rest.split_at_checked(to_usize(count).checked_mul(checked.entry())?)?;
        let (state, items) = rest.split_at_checked(state_length)?;
        let lengths = entries.chunks_exact(checked.entry()).map(item_length);
        let total = lengths.map(to_u64).sum::<u64>();
        let padding = items.get(usize::try_from(total).ok()?..)?;
        // Where the last item's checksum covers it, it may have rotted, and is no less what fills the body up.
        let is_covered = checked == Checked::Items && count > 0;
        (padding.len() < ALIGNMENT && (is_covered || is_padding(padding))).then_some(Self {
            flags,
            state: has_state.then_some(state),
            checked,
            entries,
            items,
        })
    }
}

/// The length of an item, of which this is said in front of the items.
fn item_length(entry: &[u8]) -> usize {
    to_usize(u32_at(entry, 0))
}
