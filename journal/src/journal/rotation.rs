//! Beginning a new segment, and holding a spare one.
//!
//! Order: all frames of the old segment are durable; header and checkpoint of the new one are written and durable; the file gets
//! its name; the name is durable. A crash at any point leaves either the old segment as the last one or both, complete.
//!
//! The spare is a file of zeros with blocks of its own. While there is one, the disk cannot be too full for the records of
//! truncations, compactions and deletes.

use std::io;
use std::path::Path;
use std::sync::Arc;

use super::{
    Active, Journal, JournalOptions, MARK_LENGTH, NOT_TRUNCATED, RESERVED, Spare, StateCopy,
    allocate_new,
};
use crate::disk::{Disk, DiskFile};
use crate::error::{Fatal, JournalError, OpenError, at};
use crate::frame::{
    self, FIRST_PREVIOUS, FrameHeader, FrameKind, Place, checkpoint_length, to_u64,
};
use crate::recovery::SegmentFacts;
use crate::seal::LastFrame;
use crate::segment::{
    SEGMENT_HEADER_LENGTH, SPARE_NAME, SegmentHeader, segment_name, temporary_name,
};

/// A segment that was just begun.
pub(super) struct Begun {
    pub(super) file: Arc<dyn DiskFile>,
    pub(super) length: u64,
    /// Where its second frame goes.
    pub(super) end: u64,
    pub(super) checkpoint: LastFrame,
}

/// What opens a segment.
struct Beginning<'a> {
    segment: SegmentHeader,
    /// Header of the checkpoint, which begins a chain.
    checkpoint: FrameHeader,
    first_segment: u64,
    start: u64,
    state: Option<&'a [u8]>,
}

impl Beginning<'_> {
    /// Header and checkpoint as bytes, and the place of the checkpoint.
    fn encode(&self) -> (Vec<u8>, LastFrame) {
        let mut bytes = self.segment.encode().to_vec();
        let place = Place {
            journal: self.segment.journal,
            segment: self.segment.number,
            offset: SEGMENT_HEADER_LENGTH,
        };
        let checkpoint = FrameHeader { previous: FIRST_PREVIOUS, ..self.checkpoint };
        let crc = frame::put_checkpoint(
            &mut bytes,
            place,
            checkpoint,
            self.first_segment,
            self.start,
            self.state,
        );
        let length = to_u64(bytes.len()) - SEGMENT_HEADER_LENGTH;
        (bytes, LastFrame { offset: SEGMENT_HEADER_LENGTH, length, crc })
    }
}

/// Creates the first segment of a new journal.
pub(super) fn create_first(
    disk: &dyn Disk,
    directory: &Path,
    options: &JournalOptions,
) -> Result<Begun, OpenError> {
    let temporary = directory.join(temporary_name(1));
    let path = directory.join(segment_name(1));
    let length = segment_length(options.segment_size, smallest_length(None, MARK_LENGTH));
    let file = allocate_new(disk, &temporary, length)
        .map_err(|(operation, source)| at(operation, &temporary)(source))?;
    let beginning = Beginning {
        segment: SegmentHeader {
            journal: options.id,
            number: 1,
            first_sequence: 1,
            length,
            generation: 0,
        },
        checkpoint: FrameHeader {
            kind: FrameKind::Checkpoint,
            count: 0,
            previous: FIRST_PREVIOUS,
            sequence: 1,
            first: 1,
            durable_end: 1,
            state_sequence: 0,
            truncation_sequence: 0,
            truncated_to: NOT_TRUNCATED,
        },
        first_segment: 1,
        start: 1,
        state: None,
    };
    let (bytes, checkpoint) = beginning.encode();
    file.write_at(&bytes, 0).map_err(at("writing", &temporary))?;
    file.sync_data().map_err(at("syncing", &temporary))?;
    disk.rename(&temporary, &path).map_err(at("renaming", &temporary))?;
    disk.sync_dir(directory).map_err(at("syncing", directory))?;
    Ok(Begun { file, length, end: to_u64(bytes.len()), checkpoint })
}

/// The length of a segment that is to hold a checkpoint of this state and one frame.
fn smallest_length(state: Option<&[u8]>, frame: u64) -> u64 {
    SEGMENT_HEADER_LENGTH + checkpoint_length(state) + frame + RESERVED
}

/// Whole blocks, so that odd sizes leave no part of one unused.
fn segment_length(usual: u64, smallest: u64) -> u64 {
    if smallest <= usual { usual.next_multiple_of(8) } else { smallest.next_multiple_of(4096) }
}

impl Journal {
    /// Begins a new segment in which a frame of `needed` bytes fits. On [`JournalError::NoSpace`] nothing has changed.
    pub(super) fn rotate(&mut self, needed: u64) -> Result<(), JournalError> {
        self.sync_active()?;
        let smallest = smallest_length(self.state.as_deref(), needed);
        let (name, file, length) = self.take_file(smallest)?;
        let number = self.active.number + 1;
        let beginning = Beginning {
            segment: SegmentHeader {
                journal: self.options.id,
                number,
                first_sequence: self.next_sequence,
                length,
                generation: 0,
            },
            checkpoint: self.frame_header(FrameKind::Checkpoint, 0, self.positions.end),
            first_segment: self.first_segment,
            start: self.positions.start,
            state: self.state.as_deref(),
        };
        let (bytes, checkpoint) = beginning.encode();
        let path = self.home.directory.join(segment_name(number));
        self.publish(&name, &path, &*file, &bytes)?;
        self.seal_active();
        let complete = self.segments.last_mut().expect("the active segment is listed");
        complete.checksum = Some(self.last.crc);

        let end = to_u64(bytes.len());
        self.shared.index_mut().files.insert(number, Arc::clone(&file));
        let first_sequence = self.next_sequence;
        let begins = self.positions.end;
        self.segments.push(SegmentFacts {
            number,
            length,
            first_sequence,
            generation: 0,
            begins,
            checksum: None,
        });
        self.active = Active { number, path, file, length, end, written: end, ready: end };
        self.last = checkpoint;
        (self.state_end, self.state_copy) = (end, StateCopy::None);
        self.truncated_to = NOT_TRUNCATED;
        self.next_sequence += 1;
        self.durable_end = self.next_sequence;
        self.vouched = self.next_sequence;
        self.status.set_durable_end(self.durable_end);
        self.refill_spare()?;
        Ok(())
    }

    /// The file of the next segment, still under another name: the spare, or a new one if there is none that is long enough.
    fn take_file(
        &mut self,
        smallest: u64,
    ) -> Result<(String, Arc<dyn DiskFile>, u64), JournalError> {
        if self.spare.as_ref().is_some_and(|spare| spare.length >= smallest) {
            let spare = self.spare.take().expect("it was just seen");
            return Ok((SPARE_NAME.to_owned(), spare.file, spare.length));
        }
        let name = temporary_name(self.active.number + 1);
        for usual in [self.usual_length(), self.options.segment_size] {
            let length = segment_length(usual, smallest);
            if let Some(file) = self.allocate(&name, length)? {
                return Ok((name, file, length));
            }
        }
        self.status.set_low_space(true);
        Err(JournalError::NoSpace { needed: smallest })
    }

    /// Fills in the beginning of a segment and gives it its name.
    fn publish(
        &mut self,
        name: &str,
        path: &Path,
        file: &dyn DiskFile,
        beginning: &[u8],
    ) -> Result<(), JournalError> {
        let from = self.home.directory.join(name);
        let written = file.write_at(beginning, 0);
        written.map_err(|error| self.poison_at("writing", &from, error))?;
        file.sync_data().map_err(|error| self.poison_at("syncing", &from, error))?;
        match self.home.disk.rename(&from, path) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::StorageFull => {
                // The directory is full. What is in the file now must not be taken for a spare.
                let removed = self.home.disk.remove(&from);
                removed.map_err(|error| self.poison_at("removing", &from, error))?;
                self.status.set_low_space(true);
                self.note_size();
                return Err(JournalError::NoSpace { needed: to_u64(beginning.len()) });
            }
            Err(error) => return Err(self.poison_at("renaming", &from, error).into()),
        }
        self.sync_directory()?;
        Ok(())
    }

    pub(super) fn sync_directory(&mut self) -> Result<(), Fatal> {
        let directory = self.home.directory.clone();
        let synced = self.home.disk.sync_dir(&directory);
        synced.map_err(|error| self.poison_at("syncing", &directory, error))
    }

    /// Tries to hold a spare segment of full size, or at least a small one.
    pub(super) fn refill_spare(&mut self) -> Result<(), Fatal> {
        let usual = segment_length(self.usual_length(), 0);
        if let Some(spare) = &self.spare {
            let is_small = spare.length < usual;
            // The small one is kept until the full one is there: the space between the two may go to somebody else.
            let is_low = is_small && !self.replace_spare(usual)?;
            self.status.set_low_space(is_low);
            self.note_size();
            return Ok(());
        }
        for length in [usual, segment_length(self.options.segment_size, 0)] {
            if let Some(file) = self.allocate(SPARE_NAME, length)? {
                self.spare = Some(Spare { file, length });
                break;
            }
        }
        self.status.set_low_space(self.spare.as_ref().is_none_or(|spare| spare.length < usual));
        self.note_size();
        Ok(())
    }

    /// Puts a spare of this length in the place of the one that is there, if there is room for both for a moment.
    fn replace_spare(&mut self, length: u64) -> Result<bool, Fatal> {
        let name = temporary_name(self.active.number + 1);
        let Some(file) = self.allocate(&name, length)? else { return Ok(false) };
        let (from, to) = (self.home.directory.join(&name), self.home.directory.join(SPARE_NAME));
        self.home
            .disk
            .rename(&from, &to)
            .map_err(|error| self.poison_at("renaming", &from, error))?;
        self.spare = Some(Spare { file, length });
        Ok(true)
    }

    /// A new file of zeros, or `None` if there is no room for it.
    pub(super) fn allocate(
        &mut self,
        name: &str,
        length: u64,
    ) -> Result<Option<Arc<dyn DiskFile>>, Fatal> {
        let path = self.home.directory.join(name);
        match allocate_new(&*self.home.disk, &path, length) {
            Ok(file) => Ok(Some(file)),
            Err((_, error)) if error.kind() == io::ErrorKind::StorageFull => Ok(None),
            Err((operation, error)) => Err(self.poison_at(operation, &path, error)),
        }
    }

    /// Length of the segment after the active one: twice as long, within the bounds.
    fn usual_length(&self) -> u64 {
        let doubled = self.active.length.saturating_mul(2);
        doubled.min(self.options.segment_size_max).max(self.options.segment_size)
    }
}
