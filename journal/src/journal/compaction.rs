//! Dropping old segments.

use std::io;

use super::{Journal, MARK_LENGTH};
use crate::error::JournalError;
use crate::segment::{seal_name, segment_name};

impl Journal {
    /// Drops the segments that hold only items below `keep_from`, or none: the prefix of the log that the owner needs no more.
    /// The active segment stays. Returns how many were dropped. Also tries to get back a spare segment, if there is none.
    ///
    /// Items from `keep_from` on that are damaged are needed too, put back or not: what is behind them is read only together
    /// with what tells where they were. So the segment with the item *before* such damage stays, and compaction never moves
    /// the beginning of the log beyond `keep_from`.
    ///
    /// A mark that gives the segments up is durable before the first of them goes, so that a crash in between cannot be taken
    /// for damage.
    ///
    /// # Errors
    ///
    /// [`JournalError::NoSpace`] in the rare case that not even the mark found room; all else as [`Journal::sync`].
    pub fn compact(&mut self, keep_from: u64) -> Result<usize, JournalError> {
        self.check_writable()?;
        self.sync_active()?;
        let bound = self.first_needed(keep_from);
        let dropped: Vec<u64> = self.segments.iter().map(|segment| segment.number).collect();
        let dropped = &dropped[..dropped.partition_point(|number| *number < bound)];
        if !dropped.is_empty() {
            self.give_up_below(bound)?;
            for number in dropped {
                let path = self.home.directory.join(segment_name(*number));
                let removed = self.home.disk.remove(&path);
                removed.map_err(|error| self.poison_at("removing", &path, error))?;
                self.remove_seal(*number)?;
            }
            self.sync_directory()?;
            self.segments.retain(|segment| segment.number >= bound);
            let before = self.positions.start;
            let mut index = self.shared.index_mut();
            index.drop_below(bound);
            self.positions = index.positions();
            assert!(
                self.positions.start <= keep_from.max(before).min(self.positions.end),
                "compaction drops nothing that is needed"
            );
        }
        self.refill_spare()?;
        self.note_size();
        Ok(dropped.len())
    }

    /// The first segment with an item at `keep_from` or after it, or else the active one; an earlier one if such items were lost, and
    /// even if they are back: without it, opening would not know that they have a place in the log.
    fn first_needed(&self, keep_from: u64) -> u64 {
        let index = self.shared.index();
        let from = match index.first_hole(keep_from) {
            // Nothing is held before it that would tell where it begins.
            Some(lost) if lost.start <= index.runs.start() => return self.first_segment,
            Some(lost) => keep_from.min(lost.start - 1),
            None => keep_from,
        };
        let needed = index.runs.from(from).next();
        needed.map_or(self.active.number, |run| run.segment)
    }

    /// Removes the seal of a segment that was dropped, if it has one.
    fn remove_seal(&mut self, segment: u64) -> Result<(), JournalError> {
        self.seals.retain(|seal| seal.segment != segment);
        if !self.options.trust_seals {
            // None was written since the journal was opened; an old one goes when it is opened the next time.
            return Ok(());
        }
        let path = self.home.directory.join(seal_name(segment));
        match self.home.disk.remove(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(self.poison_at("removing", &path, error).into())
            }
            _ => Ok(()),
        }
    }

    /// Makes it durable that the segments below `bound` are no part of the journal any more.
    fn give_up_below(&mut self, bound: u64) -> Result<(), JournalError> {
        let before = std::mem::replace(&mut self.first_segment, bound);
        if self.active.end + MARK_LENGTH > self.active.length {
            // The checkpoint of a new segment says it too.
            return self.rotate(MARK_LENGTH).inspect_err(|_| self.first_segment = before);
        }
        self.put_mark();
        Ok(self.sync_active()?)
    }
}
