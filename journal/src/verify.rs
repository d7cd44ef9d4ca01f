//! Looks through segments for damage, beside the writer, and changes nothing.

use std::ops::Range;
use std::sync::Arc;

use crate::error::ReadError;
use crate::frame::{FrameKind, LostItems};
use crate::reader::Reader;
use crate::recovery::{Damage, DamageKind};
use crate::segment::{Found, FrameRecord, SEGMENT_HEADER_LENGTH, SegmentScan, read_header, scan};

impl Reader {
    /// The numbers of the segments, in order.
    #[must_use]
    pub fn segments(&self) -> Vec<u64> {
        self.shared.index().files.keys().copied().collect()
    }

    /// Reads and verifies every durable frame of a segment, and returns what is damaged: bytes, frames, and the items that are part
    /// of the log and are lost. Nothing is changed, and it can be done on any thread. A segment that is gone meanwhile is not
    /// damaged.
    ///
    /// Memory use is bounded by the number of frames in the segment.
    ///
    /// # Errors
    ///
    /// If the disk fails, so that more than a few sectors cannot be read.
    pub fn verify(&self, segment: u64) -> Result<Vec<Damage>, ReadError> {
        let journal = self.shared.journal;
        // What is durable now is in the file, and bytes that were written do not change: the scan that follows sees them all.
        let durable_end = self.shared.status.durable_end();
        let index = self.shared.index();
        let Some(file) = index.files.get(&segment).map(Arc::clone) else { return Ok(Vec::new()) };
        let held = index.runs.positions_in(segment);
        let behind =
            index.files.range(segment..).nth(1).map(|(number, file)| (*number, Arc::clone(file)));
        drop(index);
        let io = |source| ReadError::Io { positions: held.clone(), segment, source };

        let scanned = scan(&*file, journal, segment, 0).map_err(io)?;
        let end_sequence = match behind {
            // That of the next segment's checkpoint. If it cannot be told, this segment's own frames have to do.
            Some((next, file)) => read_header(&*file, journal, next)
                .ok()
                .flatten()
                .map_or(0, |header| header.first_sequence),
            None => durable_end,
        };
        let index = self.shared.index();
        let replaced = index.files.get(&segment).is_none_or(|now| !Arc::ptr_eq(now, &file));
        let still = index.runs.positions_in(segment);
        let held = held.start.max(still.start)..held.end.min(still.end);
        let live = |frame: &FrameRecord| {
            if frame.header.kind == FrameKind::Mend {
                // The items of other segments.
                return held.start..held.start;
            }
            let items = index.runs.live(&frame.place());
            items.start.max(held.start)..items.end.min(held.end)
        };
        if replaced {
            return Ok(Vec::new());
        }
        let mut damaged = damage(&scanned, end_sequence, held.clone(), live);
        let durable =
            |frame: &&FrameRecord| end_sequence == 0 || frame.header.sequence < end_sequence;
        for frame in scanned.frames().take_while(durable) {
            let is_live = |position: &u64| match index.mended_at(*position) {
                Some(run) => (run.segment, run.offset) == (segment, frame.offset),
                None => live(frame).contains(position),
            };
            for LostItems { positions, bytes } in &frame.lost {
                let lost: Vec<u64> = positions.clone().filter(is_live).collect();
                let items = match (lost.first(), lost.last()) {
                    (Some(first), Some(last)) => *first..last + 1,
                    _ => positions.start..positions.start,
                };
                damaged.push(Damage::of_items(&scanned, frame, bytes.clone(), items));
            }
        }
        damaged.sort_by_key(|damage| damage.bytes.start);
        for run in index.mended.iter().filter(|run| run.segment == segment) {
            if scanned.frames().all(|frame| frame.offset != run.offset) {
                damaged.push(Damage {
                    segment,
                    kind: DamageKind::Frames,
                    bytes: run.offset..run.offset + u64::from(run.length),
                    frames: 0..0,
                    items: run.first..run.end(),
                });
            }
        }
        Ok(damaged)
    }

    /// Verifies every segment, one after the other: see [`Reader::verify`].
    ///
    /// # Errors
    ///
    /// If the disk fails.
    pub fn verify_all(&self) -> Result<Vec<Damage>, ReadError> {
        let mut damaged = Vec::new();
        for segment in self.segments() {
            damaged.extend(self.verify(segment)?);
        }
        Ok(damaged)
    }
}

/// What is missing from a segment that should have all frames below `end_sequence`, and the items `held`.
fn damage(
    scan: &SegmentScan,
    end_sequence: u64,
    held: Range<u64>,
    live: impl Fn(&FrameRecord) -> Range<u64>,
) -> Vec<Damage> {
    let mut damaged = Vec::new();
    let first = scan.frames().next().map_or(0, |frame| frame.header.sequence);
    let mut sequence = scan.header.map_or(first, |header| header.first_sequence);
    let mut position = held.start;
    if scan.header.is_err() {
        damaged.push(Damage {
            segment: scan.number,
            kind: DamageKind::SegmentHeader,
            bytes: 0..SEGMENT_HEADER_LENGTH,
            frames: sequence..sequence,
            items: position..position,
        });
    }
    let mut end = SEGMENT_HEADER_LENGTH.min(scan.length);
    // The gaps since the last live item; only the next one tells what they held.
    let mut open = damaged.len();
    let gap = |bytes: Range<u64>, frames: Range<u64>, position: u64| {
        let is_unreadable = scan.unreadable.touches(&bytes);
        let kind = if is_unreadable { DamageKind::Unreadable } else { DamageKind::Frames };
        Damage { segment: scan.number, kind, bytes, frames, items: position..position }
    };
    for found in &scan.found {
        let Found::Frame(frame) = found else { continue };
        if end_sequence > 0 && frame.header.sequence >= end_sequence {
            break;
        }
        if frame.offset > end || frame.header.sequence > sequence {
            damaged.push(gap(end..frame.offset, sequence..frame.header.sequence, position));
        }
        let items = live(frame);
        if !items.is_empty() {
            damaged[open..].iter_mut().for_each(|gap| gap.items.end = items.start.max(position));
            open = damaged.len();
            position = items.end;
        }
        sequence = frame.header.sequence.saturating_add(1);
        end = frame.end();
    }
    if sequence < end_sequence {
        damaged.push(gap(end..scan.length.max(end), sequence..end_sequence, position));
    }
    damaged[open..].iter_mut().for_each(|gap| gap.items.end = held.end.max(position));
    damaged
}
