//! Rewriting a complete segment beside the writer.
//!
//! [`Journal::rewriter`] hands out what is needed, [`Rewriter::prepare`] reads the segment and writes its successor to a file of its own
//! (on any thread, for as long as it takes), and [`Journal::install`] puts that file in the segment's place with one rename.
//! The former content takes part in the log until the name of the new one is durable; readers that are at it go on with the file
//! that they have open.
//!
//! Truncations may come in between. So the new segment keeps all frames and positions of the old one, live or not, and its runs are
//! put together from its own frames alone; what of them is live is decided when it is installed. Another replacement may come in
//! between too: each raises the segment's *generation*, and only a successor of the present one is installed.

use std::borrow::Cow;
use std::io;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;

use super::{Access, Journal, JournalOptions, allocate_new, check_limit, frame_length_max};
use crate::disk::DiskFile;
use crate::error::{Fatal, JournalError};
use crate::frame::{
    BatchBody, Body, FIRST_PREVIOUS, Frame, FrameHeader, Place, put_checkpoint, put_mark,
    put_replaced, to_u64,
};
use crate::reader::Shared;
use crate::recovery::SegmentFacts;
use crate::runs::Runs;
use crate::seal::{Home, LastFrame, Seal};
use crate::segment::{
    Found, FrameRecord, SEGMENT_HEADER, SegmentHeader, SegmentScan, Window, replacement_name, scan,
    segment_name,
};

/// What a rewriting asks for each item: its position and bytes in, the bytes to put in its place out.
pub type Replace<'a> = dyn FnMut(u64, &[u8]) -> Option<Vec<u8>> + 'a;

/// Rewrites one complete segment, on any thread: see [`Journal::rewriter`].
///
/// As long as it or what it prepared exists, the directory counts as in use.
#[derive(Debug)]
pub struct Rewriter {
    home: Home,
    shared: Arc<Shared>,
    options: JournalOptions,
    facts: SegmentFacts,
    /// Sequence of the first frame behind the segment.
    end_sequence: u64,
    file: Arc<dyn DiskFile>,
    path: PathBuf,
}

/// A segment's new content, durable in a file of its own: see [`Journal::install`]. Dropping it removes the file.
#[derive(Debug)]
pub struct Prepared {
    shared: Arc<Shared>,
    file: Arc<dyn DiskFile>,
    seal: Seal,
    temporary: Temporary,
}

/// A file that goes when nobody wants it any more.
#[derive(Debug)]
struct Temporary {
    home: Home,
    path: PathBuf,
    wanted: bool,
}

impl Drop for Temporary {
    fn drop(&mut self) {
        if !self.wanted {
            // What cannot be removed now is removed when the journal is opened.
            let _ = self.home.disk.remove(&self.path);
        }
    }
}

impl Prepared {
    /// The segment that it is to replace.
    #[must_use]
    pub fn segment(&self) -> u64 {
        self.seal.segment
    }

    /// Length of the new content in bytes.
    #[must_use]
    pub fn length(&self) -> u64 {
        self.seal.length
    }
}

impl Journal {
    /// Rewrites a sealed segment: `replace` is called with the position and the bytes of each item in it that is part of the log, and
    /// returns the bytes to put in its place, or `None` to keep them. Positions do not change. The segment afterwards is as
    /// long as its content; its former content takes part in the log until the new one is durable.
    ///
    /// This is [`Journal::rewriter`], [`Rewriter::prepare`] and [`Journal::install`] in one, and holds up the writer for as long.
    ///
    /// Memory use is bounded by the length of the segment and of what replaces it.
    ///
    /// # Errors
    ///
    /// On [`JournalError::NoSuchSegment`], [`JournalError::Corrupt`], [`JournalError::Mends`], [`JournalError::TooLarge`] and
    /// [`JournalError::NoSpace`] the segment
    /// is as it was. All else is as with [`Journal::sync`].
    pub fn replace_segment(
        &mut self,
        segment: u64,
        replace: &mut Replace<'_>,
    ) -> Result<(), JournalError> {
        self.check_writable()?;
        self.sync_active()?;
        let prepared = self.rewriter(segment)?.prepare(replace).inspect_err(|error| {
            if let JournalError::Fatal(fatal) = error {
                self.status.set_failed();
                self.access = Access::Failed(fatal.clone());
            }
        })?;
        self.install(prepared)
    }

    /// What is needed to rewrite a sealed segment without the writer.
    ///
    /// # Errors
    ///
    /// [`JournalError::NoSuchSegment`] if there is no such segment or it is the active one; all else as [`Journal::sync`].
    pub fn rewriter(&mut self, segment: u64) -> Result<Rewriter, JournalError> {
        self.check_writable()?;
        let at = self.segments.binary_search_by_key(&segment, |facts| facts.number);
        let at = at.ok().ok_or(JournalError::NoSuchSegment { segment })?;
        let next = self.segments.get(at + 1).ok_or(JournalError::NoSuchSegment { segment })?;
        self.attempts += 1;
        let file = self.shared.index().files.get(&segment).map(Arc::clone);
        Ok(Rewriter {
            home: self.home.clone(),
            shared: Arc::clone(&self.shared),
            options: self.options.clone(),
            facts: self.segments[at],
            end_sequence: next.first_sequence,
            file: file.expect("every segment is open"),
            path: self.home.directory.join(replacement_name(segment, self.attempts)),
        })
    }

    /// Puts a prepared content in the place of its segment. Takes one rename and one sync of the directory.
    ///
    /// # Errors
    ///
    /// [`JournalError::NoSuchSegment`] if the segment was dropped or replaced since, or belongs to another journal: nothing has changed
    /// then. All else as [`Journal::sync`].
    pub fn install(&mut self, mut prepared: Prepared) -> Result<(), JournalError> {
        self.check_writable()?;
        let Seal { segment, generation, length, last, .. } = prepared.seal;
        let missing = JournalError::NoSuchSegment { segment };
        let replaced = |facts: &&mut SegmentFacts| {
            facts.number == segment && facts.generation.checked_add(1) == Some(generation)
        };
        let same_journal = Arc::ptr_eq(&self.shared, &prepared.shared);
        let facts = self.segments.iter_mut().find(replaced).filter(|_| same_journal);
        let facts = facts.ok_or(missing)?;
        (facts.length, facts.generation, facts.checksum) = (length, generation, Some(last.crc));

        let to = self.home.directory.join(segment_name(segment));
        let from = &prepared.temporary.path;
        let renamed = self.home.disk.rename(from, &to);
        renamed.map_err(|error| self.poison_at("renaming", from, error))?;
        prepared.temporary.wanted = true;
        self.sync_directory()?;

        let runs = prepared.seal.runs.iter().copied();
        self.shared.index_mut().replace(segment, runs, prepared.file);
        if self.options.trust_seals {
            self.seals.retain(|seal| seal.segment != segment);
            self.seals.push(prepared.seal);
        }
        self.note_size();
        Ok(())
    }
}

impl Rewriter {
    /// The segment that it rewrites.
    #[must_use]
    pub fn segment(&self) -> u64 {
        self.facts.number
    }

    /// Writes the segment's new content to a file of its own and makes it durable. `replace` is called as
    /// [`Journal::replace_segment`] says, with the items that are part of the log as of the last sync.
    ///
    /// Memory use is bounded by the length of the segment and of what replaces it.
    ///
    /// # Errors
    ///
    /// As [`Journal::replace_segment`]. On [`JournalError::Fatal`] writing or syncing failed; the journal itself is not poisoned by
    /// it, but the disk is not to be trusted.
    pub fn prepare(self, replace: &mut Replace<'_>) -> Result<Prepared, JournalError> {
        let (bytes, seal) = self.rewrite(replace)?;
        let Self { home, shared, path, .. } = self;
        let file =
            allocate_new(&*home.disk, &path, seal.length).map_err(|(operation, error)| {
                if error.kind() == io::ErrorKind::StorageFull {
                    JournalError::NoSpace { needed: seal.length }
                } else {
                    Fatal::new(operation, &path, error).into()
                }
            })?;
        let temporary = Temporary { home, path, wanted: false };
        let fatal = |operation: &'static str| {
            let path = &temporary.path;
            move |error| Fatal::new(operation, path, error)
        };
        file.write_at(&bytes, 0).map_err(fatal("writing"))?;
        file.sync_data().map_err(fatal("syncing"))?;
        Ok(Prepared { shared, file, seal, temporary })
    }

    /// The segment's new content, and its seal.
    fn rewrite(&self, replace: &mut Replace<'_>) -> Result<(Vec<u8>, Seal), JournalError> {
        let (journal, segment) = (self.options.id, self.facts.number);
        let io = |error| JournalError::Unreadable { segment, cause: Arc::new(error) };
        let old = scan(&*self.file, journal, segment, 0).map_err(io)?;
        let header = self.intact_header(&old)?;
        let mut runs = Runs::new(self.facts.begins);
        for record in old.frames() {
            record.apply(&mut runs);
        }
        // What is still live of what was live when the segment was complete.
        let held = self.shared.index().runs.positions_in(segment);
        let live = |record: &FrameRecord| {
            let items = runs.live(&record.place());
            items.start.max(held.start)..items.end.min(held.end)
        };

        let mut bytes = vec![0; SEGMENT_HEADER];
        let mut moved = Runs::new(self.facts.begins);
        let mut window = Window::new(&*self.file, old.length);
        let mut last = LastFrame { crc: FIRST_PREVIOUS, ..LastFrame::default() };
        for record in old.frames() {
            let offset = to_u64(bytes.len());
            let from = Place { journal, segment, offset: record.offset };
            let frame = window.slice(record.offset, record.length).map_err(io)?;
            let corrupt = JournalError::Corrupt { segment, offset: record.offset };
            let frame = Frame::read(frame, from).ok_or(corrupt)?;
            let place = Place { offset, ..from };
            let header = FrameHeader { previous: last.crc, ..frame.header };
            let crc = match frame.body {
                Body::Checkpoint { first_segment, start, state } => {
                    put_checkpoint(&mut bytes, place, header, first_segment, start, state)
                }
                Body::Mark { first_segment } => put_mark(&mut bytes, place, header, first_segment),
                Body::Batch(body) => {
                    let items = self.replaced_items(&body, record, live(record), replace)?;
                    put_replaced(&mut bytes, place, header, &body, &items)
                }
                Body::Mend { .. } => return Err(JournalError::Mends { segment }),
            };
            let length = to_u64(bytes.len()) - offset;
            check_limit("batch", length, frame_length_max(&self.options))?;
            last = LastFrame { offset, length, crc };
            FrameRecord { offset, length, ..record.clone() }.apply(&mut moved);
        }
        let length = to_u64(bytes.len());
        let generation = header.generation.saturating_add(1);
        bytes[..SEGMENT_HEADER]
            .copy_from_slice(&SegmentHeader { length, generation, ..header }.encode());
        let begins = self.facts.begins;
        let seal = Seal::new(journal, segment, generation, length, last, begins, &moved);
        Ok((bytes, seal))
    }

    /// The items of a batch, those that are part of the log as `replace` wants them.
    fn replaced_items<'a>(
        &self,
        body: &BatchBody<'a>,
        record: &FrameRecord,
        live: Range<u64>,
        replace: &mut Replace<'_>,
    ) -> Result<Vec<Cow<'a, [u8]>>, JournalError> {
        let mut items = Vec::new();
        for (item, position) in body.items(0).zip(record.header.first..) {
            let FrameRecord { segment, offset, .. } = *record;
            let item = item.ok_or(JournalError::Corrupt { segment, offset })?;
            let replaced = live.contains(&position).then(|| replace(position, item)).flatten();
            let item = replaced.map_or(Cow::Borrowed(item), Cow::Owned);
            check_limit("item", to_u64(item.len()), self.options.item_size_max)?;
            items.push(item);
        }
        Ok(items)
    }

    /// The header of the segment, if all its frames are there and intact.
    fn intact_header(&self, scan: &SegmentScan) -> Result<SegmentHeader, JournalError> {
        let last = scan.frames().last().map_or(0, |frame| frame.header.sequence);
        let bad = scan.found.iter().find_map(|found| match found {
            Found::Bad(bytes) => Some(bytes.start),
            Found::Frame(frame) => frame.lost.first().map(|lost| lost.bytes.start),
        });
        match (scan.header, bad) {
            (Ok(header), None) if last + 1 == self.end_sequence => Ok(header),
            (Ok(_), bad) => {
                Err(JournalError::Corrupt { segment: scan.number, offset: bad.unwrap_or(scan.end) })
            }
            (Err(_), _) => Err(JournalError::Corrupt { segment: scan.number, offset: 0 }),
        }
    }
}
