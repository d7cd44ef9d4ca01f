//! The log, put together again segment by segment and frame by frame; what does not fit is reported.

use std::ops::Range;
use std::sync::Arc;

use super::{Damage, DamageKind, SegmentFacts, Tail, TornTail};
use crate::disk::DiskFile;
use crate::frame::{Body, Frame, FrameKind, LostItems, NOT_TRUNCATED, Place};
use crate::index::Index;
use crate::runs::Runs;
use crate::seal::{LastFrame, Seal, Sealed};
use crate::segment::{Found, FrameRecord, SEGMENT_HEADER_LENGTH, SegmentScan, in_memory};
use crate::unreadable::Unreadable;

/// The log so far.
#[derive(Debug, Default)]
pub(super) struct Replay {
    pub(super) index: Index,
    pub(super) segments: Vec<SegmentFacts>,
    /// The last intact frame.
    last: Option<FrameRecord>,
    /// Number of the segment that must come next; `None` before the first.
    pub(super) next_number: Option<u64>,
    /// The sequence with which the first segment begins.
    begins: Option<u64>,
    /// The segment looked at last, and the bytes behind its frames.
    padding: Option<(u64, Range<u64>)>,
    /// Parts of the gap that is open: bytes that are no frames, since the last intact one.
    gap: Vec<(u64, DamageKind, Range<u64>)>,
    pub(super) damage: Vec<Damage>,
    /// The frame that carries the latest state that could be read, and the sequence of the batch that set it.
    state: Option<FrameRecord>,
    pub(super) end_lost: bool,
}

impl Replay {
    /// The sequence that the next frame must have; 0 if that is not known.
    pub(super) fn expected(&self) -> u64 {
        match &self.last {
            Some(last) => last.header.sequence.saturating_add(1),
            None => self.begins.unwrap_or(0),
        }
    }

    /// Notes that segments are missing, if `found` comes where `expected` should.
    pub(super) fn missing(&mut self, expected: u64, found: u64, known: bool) {
        if known && expected < found {
            self.gap.push((expected, DamageKind::SegmentsMissing { end: found }, 0..0));
        }
    }

    /// Takes in a segment that is not the last one: all its frames were durable.
    pub(super) fn sealed(&mut self, scan: &SegmentScan, file: Arc<dyn DiskFile>) {
        self.missing(self.next_number.unwrap_or(scan.number), scan.number, true);
        self.enter(scan, file);
        for found in &scan.found {
            match found {
                Found::Bad(bytes) => self.bad_in(scan, bytes.clone()),
                Found::Frame(frame) => self.frame_in(scan, frame),
            }
        }
        if scan.found.is_empty() {
            self.bad_in(scan, scan.end..scan.length.max(scan.end));
        }
        let facts = self.segments.last_mut().expect("it was just entered");
        facts.checksum = Some(scan.frames().last().map_or(0, |frame| frame.crc));
    }

    /// What a seal says goes on from what came before, without a gap in sequences, positions or segments.
    pub(super) fn fits(&self, sealed: &Sealed) -> bool {
        let Sealed { header, seal, .. } = sealed;
        let sound = self.gap.is_empty() && self.damage.is_empty();
        let follows = match &self.last {
            None => true,
            Some(_) => {
                self.next_number == Some(header.number)
                    && self.expected() == header.first_sequence
                    && self.index.end() == seal.begins
            }
        };
        let starts = match sealed.cuts_to() {
            0 => true,
            cuts_to => seal.start == cuts_to.min(seal.begins),
        };
        sound && follows && starts
    }

    /// Takes in a segment without looking through it; its seal fits.
    pub(super) fn by_seal(&mut self, sealed: &Sealed, file: Arc<dyn DiskFile>) {
        let Sealed { header, last, seal } = sealed;
        if self.last.is_none() {
            self.begins = Some(header.first_sequence);
            self.index.runs = Runs::new(seal.begins);
        }
        match sealed.cuts_to() {
            0 => self.index.restart(seal.start),
            cuts_to if cuts_to < seal.begins => self.index.truncate(cuts_to),
            _ => {}
        }
        self.index.runs.extend(&seal.runs);
        let number = header.number;
        self.segments.push(SegmentFacts {
            number,
            length: seal.length,
            first_sequence: header.first_sequence,
            generation: header.generation,
            begins: seal.begins,
            checksum: Some(last.crc),
        });
        self.index.files.insert(number, file);
        self.next_number = number.checked_add(1);
        self.padding = Some((number, last.end()..seal.length));
        self.last = Some(last.clone());
    }

    /// The seal of the segment taken in last, unless anything is damaged or it mends another one.
    pub(super) fn seal(&self, journal: u128) -> Option<Seal> {
        let (facts, last) = (self.segments.last()?, self.last.as_ref()?);
        let SegmentFacts { number, generation, length, begins, .. } = *facts;
        let mends = self.index.mended.iter().any(|run| run.segment == number);
        let sound = self.gap.is_empty() && self.damage.is_empty() && !mends;
        let last = LastFrame::of(last);
        let seal =
            || Seal::new(journal, number, generation, length, last, begins, &self.index.runs);
        sound.then(seal)
    }

    /// Takes in the last segment, of which a tail may be cut.
    pub(super) fn last(
        &mut self,
        scan: &SegmentScan,
        file: Arc<dyn DiskFile>,
    ) -> (Option<TornTail>, Tail) {
        self.enter(scan, file);
        // The file never shrinks: if it did, it is not known what was lost.
        let declared = scan.header.map_or(0, |header| header.length);
        let shrunk = scan.length < declared;
        let checkpoint = scan.header.map_or(self.expected(), |header| header.first_sequence);
        let vouched = scan.frames().map(|frame| frame.header.durable_end).max().unwrap_or(0);
        let vouched = vouched.max(checkpoint.saturating_add(1));

        let mut end = SEGMENT_HEADER_LENGTH.min(scan.length);
        let (mut unvouched, mut has_unvouched_batch) = (Vec::new(), false);
        let mut unreadable = scan.is_end_unreadable;
        for found in &scan.found {
            let may_be_torn = !shrunk && self.gap.is_empty() && self.expected() >= vouched;
            match found {
                Found::Bad(bytes) if may_be_torn => {
                    unreadable |= scan.unreadable.touches(bytes);
                    break;
                }
                Found::Bad(bytes) => self.bad_in(scan, bytes.clone()),
                Found::Frame(frame) if may_be_torn && !frame.lost.is_empty() => {
                    unreadable |= scan.unreadable.touches(&(frame.offset..frame.end()));
                    break;
                }
                Found::Frame(frame) => {
                    self.frame_in(scan, frame);
                    end = frame.end();
                    // One that is not whole is of no use to write once more.
                    if frame.header.sequence >= vouched && frame.lost.is_empty() {
                        unvouched.push(frame.offset..end);
                    }
                    let is_batch = matches!(frame.header.kind, FrameKind::Batch | FrameKind::Mend);
                    has_unvouched_batch |= is_batch && frame.header.sequence >= vouched;
                }
            }
        }
        let next = self.expected();
        // A crash tears a write, it does not make a sector unreadable: what was there may have been acknowledged.
        let torn = if shrunk || unreadable || !self.gap.is_empty() || next < vouched {
            self.bad_in(scan, end..scan.dirty_end.max(declared));
            self.lost_tail();
            None
        } else {
            let torn =
                TornTail { segment: scan.number, bytes: end..scan.dirty_end, sequence: next };
            (!torn.bytes.is_empty()).then_some(torn)
        };
        // Perhaps it was a frame that is cut which vouched for those before it.
        has_unvouched_batch |= torn.is_some();
        let tail = Tail {
            segment: scan.number,
            end,
            dirty_end: scan.dirty_end,
            unvouched,
            has_unvouched_batch,
            ..self.tail()
        };
        (torn, tail)
    }

    /// What the last frame says to the next one.
    fn tail(&self) -> Tail {
        let Some(last) = &self.last else { return Tail::default() };
        let truncated_to = match last.header.kind {
            // A checkpoint speaks of the segment before its own.
            FrameKind::Checkpoint => NOT_TRUNCATED,
            FrameKind::Batch | FrameKind::Mark | FrameKind::Mend => last.header.truncated_to,
        };
        Tail {
            last: LastFrame::of(last),
            next_sequence: self.expected(),
            state_sequence: last.header.state_sequence,
            truncation_sequence: last.header.truncation_sequence,
            truncated_to,
            ..Tail::default()
        }
    }

    /// Begins a segment: what its header says.
    fn enter(&mut self, scan: &SegmentScan, file: Arc<dyn DiskFile>) {
        let expected = self.expected();
        match scan.header {
            Ok(header) => {
                if self.gap.is_empty() && self.padding.is_some() && expected < header.first_sequence
                {
                    self.lost_padding();
                }
                if self.segments.is_empty() && self.gap.is_empty() {
                    self.begins = Some(header.first_sequence);
                }
            }
            Err(_) => self.damage.push(Damage {
                segment: scan.number,
                kind: DamageKind::SegmentHeader,
                bytes: 0..SEGMENT_HEADER_LENGTH,
                frames: expected..expected,
                items: self.index.end()..self.index.end(),
            }),
        }
        let (number, length) = (scan.number, scan.length);
        self.segments.push(SegmentFacts {
            number,
            length,
            first_sequence: scan.header.map_or(expected, |header| header.first_sequence),
            generation: scan.header.map_or(0, |header| header.generation),
            begins: scan.frames().next().map_or(self.index.end(), FrameRecord::begins),
            checksum: None,
        });
        self.index.files.insert(scan.number, file);
        self.next_number = scan.number.checked_add(1);
        self.padding = Some((scan.number, scan.end..scan.length.max(scan.end)));
    }

    /// The frames that should stand at the end of the segment before are gone.
    fn lost_padding(&mut self) {
        if let Some((segment, bytes)) = self.padding.clone() {
            self.bad(segment, bytes);
        }
    }

    fn bad(&mut self, segment: u64, bytes: Range<u64>) {
        self.gap.push((segment, DamageKind::Frames, bytes));
    }

    fn bad_in(&mut self, scan: &SegmentScan, bytes: Range<u64>) {
        let is_unreadable = scan.unreadable.touches(&bytes);
        let kind = if is_unreadable { DamageKind::Unreadable } else { DamageKind::Frames };
        self.gap.push((scan.number, kind, bytes));
    }

    /// Takes in a frame, and reports those of its items that are lost.
    fn frame_in(&mut self, scan: &SegmentScan, frame: &FrameRecord) {
        if !frame.lost.is_empty() {
            // No run reaches over it: who reads its neighbours shall not come upon what cannot be read.
            self.index.runs.close();
        }
        self.frame(frame);
        if !frame.lost.is_empty() {
            self.index.runs.close();
        }
        for LostItems { positions, bytes } in &frame.lost {
            let items = self.index.lose(positions.clone());
            self.damage.push(Damage::of_items(scan, frame, bytes.clone(), items));
        }
    }

    fn frame(&mut self, frame: &FrameRecord) {
        let follows = self.last.is_none() || self.expected() == frame.header.sequence;
        if !follows && self.gap.is_empty() {
            self.lost_padding();
        }
        // No frame that this crate wrote fails this; but a file is input like any other.
        if self.last.is_some() && self.gap.is_empty() && !self.continues(frame) {
            self.bad(frame.segment, frame.offset..frame.offset);
        }
        if !self.gap.is_empty() {
            self.close_gap(frame);
        } else if self.last.is_none() {
            self.index.runs = Runs::new(frame.begins());
        }
        self.apply(frame);
    }

    fn continues(&self, frame: &FrameRecord) -> bool {
        let first = frame.begins();
        let end = self.index.end();
        frame.restarts || first == end || (frame.truncates && first < end)
    }

    /// Finds out what the frames between the last intact one and this one held.
    fn close_gap(&mut self, next: &FrameRecord) {
        let first = next.begins();
        let lost_from = match &self.last {
            // The checkpoint that opens the first segment holds no items.
            None if self.lost_only_checkpoint(next) => first,
            None => next.start.unwrap_or(0),
            Some(last) if next.header.truncation_sequence <= last.header.sequence => {
                self.index.end()
            }
            Some(last) => {
                let next_segment = last.segment.checked_add(1) == Some(next.segment);
                let is_checkpoint = next.header.kind == FrameKind::Checkpoint;
                let covered = last.segment == next.segment || (next_segment && is_checkpoint);
                let back_to = if covered { next.header.truncated_to } else { 0 };
                back_to.max(self.index.positions().start).min(self.index.end())
            }
        };
        let items = lost_from.min(first)..first;
        self.index.damage(items.clone());
        let frames = self.expected()..next.header.sequence;
        self.report(&frames, &items);
    }

    fn lost_only_checkpoint(&self, next: &FrameRecord) -> bool {
        let begins = self.begins.map(|begins| begins.saturating_add(1));
        begins == Some(next.header.sequence) && self.segments.len() == 1
    }

    /// What is bad goes on to the end, and how much was there is not known.
    fn lost_tail(&mut self) {
        let frames = self.expected()..u64::MAX;
        let items = self.index.end()..u64::MAX;
        self.index.damaged.push(items.clone());
        self.end_lost = true;
        self.report(&frames, &items);
    }

    fn report(&mut self, frames: &Range<u64>, items: &Range<u64>) {
        for (segment, kind, bytes) in self.gap.drain(..) {
            let (frames, items) = (frames.clone(), items.clone());
            self.damage.push(Damage { segment, kind, bytes, frames, items });
        }
    }

    fn apply(&mut self, frame: &FrameRecord) {
        let first = frame.header.first;
        if frame.restarts {
            self.index.restart(first);
            self.gave_up(0);
        } else if frame.truncates {
            self.index.truncate(first);
            self.gave_up(first);
        }
        match frame.header.kind {
            FrameKind::Batch => self.index.push(&frame.place()),
            FrameKind::Mend => {
                self.index.mend(&frame.place());
                self.came_back(frame.place().first..frame.place().end());
            }
            FrameKind::Checkpoint | FrameKind::Mark => {}
        }
        if frame.has_state {
            self.state = Some(frame.clone());
        }
        self.last = Some(frame.clone());
    }

    /// Items from `from` on are no part of the log any more: what was lost of them is no loss. (They may have been repaired.)
    fn gave_up(&mut self, from: u64) {
        for Damage { items, .. } in &mut self.damage {
            items.end = items.end.min(from.max(items.start));
        }
    }

    /// These items were put back.
    fn came_back(&mut self, mended: Range<u64>) {
        for Damage { items, .. } in &mut self.damage {
            if mended.start <= items.start {
                items.start = items.start.max(mended.end).min(items.end);
            } else if items.end <= mended.end {
                items.end = items.end.min(mended.start);
            }
        }
    }

    /// The latest state that could be read, and whether a later one was lost.
    pub(super) fn load_state(&self, journal: u128) -> (Option<Vec<u8>>, bool) {
        let known = self.state.as_ref().map_or(0, |frame| frame.header.state_sequence);
        let newest = self.last.as_ref().map_or(0, |frame| frame.header.state_sequence);
        let lost = self.end_lost || known != newest;
        let Some(frame) = &self.state else { return (None, lost) };
        let Some(file) = self.index.files.get(&frame.segment) else { return (None, true) };
        // It was intact when its segment was looked through; so was what is misread now.
        let state = read_state(&**file, frame, journal).or_else(|| {
            file.forget_cached(frame.offset, frame.length);
            read_state(&**file, frame, journal)
        });
        state.map_or((None, true), |state| (Some(state), lost))
    }
}

fn read_state(file: &dyn DiskFile, frame: &FrameRecord, journal: u128) -> Option<Vec<u8>> {
    let mut bytes = vec![0; in_memory(frame.length).ok()?];
    // The state may be there although items of its frame cannot be read.
    let read = Unreadable::default().read(file, &mut bytes, frame.offset).ok()?;
    if read != bytes.len() {
        return None;
    }
    let place = Place { journal, segment: frame.segment, offset: frame.offset };
    let state = match Frame::read(&bytes, place)?.body {
        Body::Batch(body) => body.state,
        Body::Checkpoint { state, .. } => state,
        Body::Mark { .. } | Body::Mend { .. } => None,
    };
    state.map(<[u8]>::to_vec)
}
