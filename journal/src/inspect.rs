//! Prints and verifies a journal that nobody has open, frame by frame. Nothing is changed.

use std::fmt::{self, Write};
use std::path::Path;
use std::sync::Arc;

use thiserror::Error;

use crate::disk::{Disk, DiskFile, OpenMode};
use crate::error::{OpenError, at};
use crate::frame::{Body, Frame, Place};
use crate::index::Index;
use crate::recovery::{Damage, Listing, TornTail, recover_by_scan};
use crate::segment::{
    Found, FrameRecord, SEGMENT_HEADER_LENGTH, SegmentHeader, SegmentScan, Window, scan,
    segment_name,
};

/// What [`inspect`] found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Inspection {
    /// Identity of the journal.
    pub id: u128,
    /// Number of segments.
    pub segments: u64,
    /// Number of intact frames.
    pub frames: u64,
    /// Number of items that are part of the log.
    pub items: u64,
    /// The tail that opening the journal would cut.
    pub torn: Option<TornTail>,
    /// What is damaged.
    pub damaged: Vec<Damage>,
}

/// Why a journal could not be inspected.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum InspectError {
    /// There is no segment with a readable header in the directory.
    #[error("there is no journal in the directory")]
    NoJournal,
    /// Its files cannot be read or belong to different journals.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The output could not be written.
    #[error("the output could not be written")]
    Output(#[from] fmt::Error),
}

/// Prints every segment, frame, item and finding of a journal. `render` turns an item into a line of text.
///
/// # Errors
///
/// If there is no journal, its files cannot be read, or the output cannot be written. Damage is no error: it is printed, and
/// returned.
pub fn inspect(
    disk: &dyn Disk,
    directory: &Path,
    out: &mut dyn Write,
    render: &mut dyn FnMut(u64, &[u8]) -> String,
) -> Result<Inspection, InspectError> {
    let listing = Listing::read(disk, directory)?;
    let open = |number: u64| -> Result<Arc<dyn DiskFile>, OpenError> {
        let path = directory.join(segment_name(number));
        let file = disk.open(&path, OpenMode::Read).map_err(at("opening", &path))?;
        Ok(Arc::from(file))
    };
    let id = find_id(&open, &listing)?;
    let recovered = recover_by_scan(&open, directory, id, &listing)?;
    writeln!(out, "journal {id:032x}")?;
    let mut printer = Printer { out, render, id, frames: 0, items: 0 };
    for number in &listing.segments {
        let path = directory.join(segment_name(*number));
        let file = open(*number)?;
        let scan = scan(&*file, id, *number, 0).map_err(at("reading", &path))?;
        if recovered.obsolete.contains(number) {
            writeln!(printer.out, "segment {number}: given up, {} bytes", scan.length)?;
            continue;
        }
        printer.segment(&scan, &*file, &recovered.index, &path)?;
    }
    let (frames, items) = (printer.frames, printer.items);
    let recovery = recovered.recovery;
    for name in &recovery.ignored {
        writeln!(out, "ignored: {name}")?;
    }
    for name in &listing.temporary {
        writeln!(out, "left over: {name}")?;
    }
    if let Some(torn) = &recovery.torn {
        writeln!(out, "{torn}")?;
    }
    for damage in &recovery.damaged {
        writeln!(out, "DAMAGED {damage}")?;
    }
    let verdict = if recovery.damaged.is_empty() { "sound" } else { "damaged" };
    let positions = recovery.positions;
    writeln!(out, "{verdict}: {frames} frames, {items} items at positions {positions:?}")?;
    let segments = listing.segments.len().try_into().expect("a count in memory fits 64 bits");
    let (torn, damaged) = (recovery.torn, recovery.damaged);
    Ok(Inspection { id, segments, frames, items, torn, damaged })
}

/// The id in the first header that is intact.
fn find_id(
    open: &dyn Fn(u64) -> Result<Arc<dyn DiskFile>, OpenError>,
    listing: &Listing,
) -> Result<u128, InspectError> {
    for number in &listing.segments {
        let file = open(*number)?;
        let mut bytes = [0; 64];
        let read = file.read_at(&mut bytes, 0);
        let length = read.map_err(at("reading", Path::new(&segment_name(*number))))?;
        if let Ok(header) = SegmentHeader::decode(&bytes[..length], None, *number) {
            return Ok(header.journal);
        }
    }
    Err(InspectError::NoJournal)
}

struct Printer<'a> {
    out: &'a mut dyn Write,
    render: &'a mut dyn FnMut(u64, &[u8]) -> String,
    id: u128,
    frames: u64,
    items: u64,
}

impl Printer<'_> {
    fn segment(
        &mut self,
        scan: &SegmentScan,
        file: &dyn DiskFile,
        index: &Index,
        path: &Path,
    ) -> Result<(), InspectError> {
        let SegmentScan { number, length, .. } = scan;
        match scan.header {
            Ok(header) => {
                let first = header.first_sequence;
                writeln!(self.out, "segment {number}: {length} bytes, from frame {first}")?;
            }
            Err(fault) => writeln!(self.out, "segment {number}: {length} bytes, header {fault:?}")?,
        }
        let mut window = Window::new(file, scan.length);
        for found in &scan.found {
            match found {
                Found::Bad(bytes) => {
                    writeln!(self.out, "  @{}: BAD up to {}", bytes.start, bytes.end)?;
                }
                Found::Frame(record) => {
                    let bytes = window.slice(record.offset, record.length);
                    let bytes = bytes.map_err(at("reading", path))?;
                    self.frame(record, bytes, index)?;
                }
            }
        }
        let end = scan.end.max(SEGMENT_HEADER_LENGTH);
        writeln!(self.out, "  @{end}: end, {} bytes free", scan.length.saturating_sub(end))?;
        if scan.dirty_end > scan.end {
            writeln!(self.out, "  @{end}: not zero up to {}", scan.dirty_end)?;
        }
        Ok(())
    }

    fn frame(&mut self, record: &FrameRecord, bytes: &[u8], index: &Index) -> fmt::Result {
        let FrameRecord { header, offset, segment, length, .. } = record;
        let place = Place { journal: self.id, segment: *segment, offset: *offset };
        let (sequence, first, durable) = (header.sequence, header.first, header.durable_end);
        self.frames += 1;
        write!(
            self.out,
            "  @{offset}: frame {sequence}, {length} bytes, durable below {durable}: "
        )?;
        let Some(frame) = Frame::read(bytes, place) else {
            return writeln!(self.out, "changed while it was read");
        };
        match frame.body {
            Body::Mark { .. } => writeln!(self.out, "mark"),
            Body::Mend { items, .. } => {
                let end = first.saturating_add(u64::from(header.count));
                writeln!(self.out, "items {first}..{end}, put back")?;
                for (item, position) in items.items(0).zip(first..) {
                    let is_held = index.piece(position).is_some_and(|run| {
                        (run.segment, run.offset) == (record.segment, record.offset)
                    });
                    self.items += u64::from(is_held);
                    let note = if is_held { "" } else { " (put back or truncated later)" };
                    let text = self.item(position, item);
                    writeln!(self.out, "      {position}: {text}{note}")?;
                }
                Ok(())
            }
            Body::Checkpoint { first_segment, start, state } => {
                write!(self.out, "checkpoint of items {start}..{first}")?;
                write!(self.out, ", first segment {first_segment}")?;
                self.state(state)
            }
            Body::Batch(body) => {
                let end = first.saturating_add(u64::from(header.count));
                write!(self.out, "batch of items {first}..{end}")?;
                if body.truncates() {
                    write!(self.out, ", truncates to {first}")?;
                }
                if body.restarts() {
                    write!(self.out, ", restarts at {first}")?;
                }
                self.state(body.state)?;
                let live_end = index.runs.live(&record.place()).end;
                self.items += live_end - first;
                for (item, position) in body.items(0).zip(first..) {
                    let note = if position < live_end { "" } else { " (truncated later)" };
                    let text = self.item(position, item);
                    writeln!(self.out, "      {position}: {text}{note}")?;
                }
                Ok(())
            }
        }
    }

    fn item(&mut self, position: u64, item: Option<&[u8]>) -> String {
        item.map_or_else(|| "BAD".into(), |item| (self.render)(position, item))
    }

    fn state(&mut self, state: Option<&[u8]>) -> fmt::Result {
        match state {
            Some(state) => writeln!(self.out, ", state of {} bytes", state.len()),
            None => writeln!(self.out),
        }
    }
}
