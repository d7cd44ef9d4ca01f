//! Dropping old segments, and rewriting sealed ones.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use super::{Journal, MARK_LENGTH, check_limit};
use crate::error::JournalError;
use crate::frame::{
    BatchBody, Body, FIRST_PREVIOUS, Frame, FrameHeader, Place, put_checkpoint, put_mark,
    put_replaced, to_u64,
};
use crate::segment::{
    Found, SegmentHeader, SegmentScan, Window, scan, segment_name, temporary_name,
};

/// What [`Journal::replace_segment`] asks for each item: its position and bytes in, the bytes to put in its place out.
pub type Replace<'a> = dyn FnMut(u64, &[u8]) -> Option<Vec<u8>> + 'a;

impl Journal {
    /// Drops the segments that hold only items below `keep_from`, or none: the prefix of the log that the owner needs no more.
    /// The active segment stays. Returns how many were dropped. Also tries to get back a spare segment, if there is none.
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
                let path = self.directory.join(segment_name(*number));
                let removed = self.disk.remove(&path);
                removed.map_err(|error| self.poison_at("removing", &path, error))?;
            }
            self.sync_directory()?;
            self.segments.retain(|segment| segment.number >= bound);
            let mut index = self.shared.index_mut();
            index.drop_below(bound);
            self.positions = index.positions();
        }
        self.refill_spare()?;
        self.note_size();
        Ok(dropped.len())
    }

    /// The first segment with an item at `keep_from` or after it, or else the active one.
    fn first_needed(&self, keep_from: u64) -> u64 {
        let index = self.shared.index();
        let needed = index.frames.get(index.seek(keep_from));
        needed.map_or(self.active.number, |frame| frame.segment)
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

    /// Rewrites a sealed segment: `replace` is called with the position and the bytes of each item in it that is part of the log, and
    /// returns the bytes to put in its place, or `None` to keep them. Positions do not change. The segment afterwards is as
    /// long as its content; its former content takes part in the log until the new one is durable.
    ///
    /// Memory use is bounded by the length of the segment and of what replaces it.
    ///
    /// # Errors
    ///
    /// On [`JournalError::NoSuchSegment`], [`JournalError::Corrupt`], [`JournalError::TooLarge`] and [`JournalError::NoSpace`] the segment
    /// is as it was. All else is as with [`Journal::sync`].
    pub fn replace_segment(
        &mut self,
        segment: u64,
        replace: &mut Replace<'_>,
    ) -> Result<(), JournalError> {
        self.check_writable()?;
        self.sync_active()?;
        let sealed = self.segments.iter().any(|facts| facts.number == segment);
        if !sealed || segment == self.active.number {
            return Err(JournalError::NoSuchSegment { segment });
        }
        let rewritten = self.rewrite(segment, replace)?;
        let length = to_u64(rewritten.bytes.len());
        let name = temporary_name(segment);
        let Some(file) = self.allocate(&name, length)? else {
            return Err(JournalError::NoSpace { needed: length });
        };
        let (from, to) = (self.directory.join(name), self.directory.join(segment_name(segment)));
        let written = file.write_at(&rewritten.bytes, 0);
        written.map_err(|error| self.poison_at("writing", &from, error))?;
        file.sync_data().map_err(|error| self.poison_at("syncing", &from, error))?;
        let renamed = self.disk.rename(&from, &to);
        renamed.map_err(|error| self.poison_at("renaming", &from, error))?;
        self.sync_directory()?;

        let mut index = self.shared.index_mut();
        index.files.insert(segment, file);
        for frame in index.frames.iter_mut().filter(|frame| frame.segment == segment) {
            let moved = rewritten.moved.get(&frame.offset).expect("every live frame was moved");
            (frame.offset, frame.length) = *moved;
        }
        drop(index);
        for facts in &mut self.segments {
            if facts.number == segment {
                facts.length = length;
            }
        }
        self.note_size();
        Ok(())
    }

    /// The segment's new content.
    fn rewrite(&self, segment: u64, replace: &mut Replace<'_>) -> Result<Rewritten, JournalError> {
        let index = self.shared.index();
        let file = Arc::clone(index.files.get(&segment).expect("every segment is open"));
        let live = index.frames.iter().filter(|frame| frame.segment == segment);
        let live: BTreeMap<u64, u32> = live.map(|frame| (frame.offset, frame.count)).collect();
        drop(index);

        let io = |error| JournalError::Unreadable { segment, cause: Arc::new(error) };
        let old = scan(&*file, self.options.id, segment, 0).map_err(io)?;
        let header = self.intact_header(&old)?;
        let mut rewritten = Rewritten { bytes: header.encode().to_vec(), moved: BTreeMap::new() };
        let mut window = Window::new(&*file, old.length);
        let mut previous = FIRST_PREVIOUS;
        for record in old.frames() {
            let offset = to_u64(rewritten.bytes.len());
            let bytes = window.slice(record.offset, record.length).map_err(io)?;
            let journal = self.options.id;
            let from = Place { journal, segment, offset: record.offset };
            let corrupt = JournalError::Corrupt { segment, offset: record.offset };
            let frame = Frame::read(bytes, from).ok_or(corrupt)?;
            let place = Place { offset, ..from };
            let header = FrameHeader { previous, ..frame.header };
            let buffer = &mut rewritten.bytes;
            previous = match frame.body {
                Body::Checkpoint { first_segment, start, state } => {
                    put_checkpoint(buffer, place, header, first_segment, start, state)
                }
                Body::Mark { first_segment } => put_mark(buffer, place, header, first_segment),
                Body::Batch(body) => {
                    let count = live.get(&record.offset).copied().unwrap_or(0);
                    let live = header.first..header.first + u64::from(count);
                    let items = self.replaced_items(&body, live, replace)?;
                    put_replaced(buffer, place, header, &body, &items)
                }
            };
            let length = to_u64(rewritten.bytes.len()) - offset;
            check_limit("batch", length, self.frame_length_max())?;
            rewritten.moved.insert(record.offset, (offset, length));
        }
        Ok(rewritten)
    }

    /// The items of a batch, those that are part of the log as `replace` wants them.
    fn replaced_items<'a>(
        &self,
        body: &BatchBody<'a>,
        live: Range<u64>,
        replace: &mut Replace<'_>,
    ) -> Result<Vec<Cow<'a, [u8]>>, JournalError> {
        let mut items = Vec::new();
        for (item, position) in body.items().zip(live.start..) {
            let replaced = live.contains(&position).then(|| replace(position, item)).flatten();
            let item = replaced.map_or(Cow::Borrowed(item), Cow::Owned);
            check_limit("item", to_u64(item.len()), self.options.item_size_max)?;
            items.push(item);
        }
        Ok(items)
    }

    /// The header of a segment, if all its frames are there and intact.
    fn intact_header(&self, scan: &SegmentScan) -> Result<SegmentHeader, JournalError> {
        let next = self.segments.iter().find(|facts| facts.number > scan.number);
        let expected = next.map_or(self.next_sequence, |next| next.first_sequence);
        let last = scan.frames().last().map_or(0, |frame| frame.header.sequence);
        let bad = scan.found.iter().find_map(|found| match found {
            Found::Bad(bytes) => Some(bytes.start),
            Found::Frame(_) => None,
        });
        match (scan.header, bad) {
            (Ok(header), None) if last + 1 == expected => Ok(header),
            (Ok(_), bad) => {
                Err(JournalError::Corrupt { segment: scan.number, offset: bad.unwrap_or(scan.end) })
            }
            (Err(_), _) => Err(JournalError::Corrupt { segment: scan.number, offset: 0 }),
        }
    }
}

/// A segment's new content.
struct Rewritten {
    bytes: Vec<u8>,
    /// From a frame's old offset to its new offset and length.
    moved: BTreeMap<u64, (u64, u64)>,
}
