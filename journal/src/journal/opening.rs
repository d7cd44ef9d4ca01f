//! Opening a journal: what was recovered is made certain, and the writer goes on where it ends.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::{Access, Active, Journal, JournalOptions, StateCopy, rotation};
use crate::disk::{Disk, DiskFile, DiskLock};
use crate::error::{OpenError, at};
use crate::frame::{Frame, NOT_TRUNCATED, Place};
use crate::index::Index;
use crate::reader::Shared;
use crate::recovery::{Listing, Recovered, Recovery, SegmentFacts, Tail, recover};
use crate::runs::Runs;
use crate::seal::Home;
use crate::segment::{FrameRecord, LOCK_NAME, SPARE_NAME, in_memory, seal_name, segment_name};
use crate::status::Status;

impl Journal {
    /// Opens the journal in a directory, or creates it there if the directory is empty or missing.
    ///
    /// A torn tail is cut, the files that a crash left over are removed, and what was recovered is durable when this returns.
    /// If anything is damaged, nothing is changed, and the journal is open for reading only: see [`Recovery::damaged`], and
    /// [`JournalOptions::repairs`] for the exception.
    ///
    /// # Errors
    ///
    /// If the journal is in use, is another one, or is of a newer version, or if the disk fails. A full disk is an error only
    /// when a journal has to be created.
    pub fn open(
        disk: Arc<dyn Disk>,
        directory: impl Into<PathBuf>,
        options: JournalOptions,
    ) -> Result<(Self, Recovery), OpenError> {
        let directory = directory.into();
        if options.read_only {
            return Self::open_to_read(disk, directory, options);
        }
        disk.create_dir(&directory).map_err(at("creating", &directory))?;
        let home = Home { _lock: take_lock(&*disk, &directory)?, disk, directory };
        let (disk, directory) = (&*home.disk, &home.directory);
        let listing = Listing::read(disk, directory)?;
        if listing.segments.is_empty() {
            if listing.has_spare {
                return Err(OpenError::SegmentsLost { directory: home.directory });
            }
            remove_leftovers(disk, directory, &listing, &[])?;
            return Self::create(home, options, listing.ignored);
        }
        let recovered = recover(disk, directory, &options, &listing)?;
        if is_writable(&recovered.recovery, &options) {
            remove_leftovers(disk, directory, &listing, &recovered.obsolete)?;
            settle_tail(options.id, &recovered, directory)?;
            disk.sync_dir(directory).map_err(at("syncing", directory))?;
        }
        Self::resume(home, options, recovered)
    }

    /// Opens a journal and changes nothing: [`JournalOptions::read_only`].
    fn open_to_read(
        disk: Arc<dyn Disk>,
        directory: PathBuf,
        options: JournalOptions,
    ) -> Result<(Self, Recovery), OpenError> {
        let home = Home { _lock: take_lock_to_read(&*disk, &directory)?, disk, directory };
        let listing = Listing::read(&*home.disk, &home.directory)?;
        if listing.segments.is_empty() {
            return Err(OpenError::Missing { directory: home.directory });
        }
        let recovered = recover(&*home.disk, &home.directory, &options, &listing)?;
        Self::resume(home, options, recovered)
    }

    fn create(
        home: Home,
        options: JournalOptions,
        ignored: Vec<String>,
    ) -> Result<(Self, Recovery), OpenError> {
        let made = rotation::create_first(&*home.disk, &home.directory, &options)?;
        let mut index = Index { runs: Runs::new(1), ..Index::default() };
        index.files.insert(1, made.file);
        let facts = SegmentFacts {
            number: 1,
            length: made.length,
            first_sequence: 1,
            generation: 0,
            begins: 1,
            checksum: None,
        };
        let recovered = Recovered {
            recovery: Recovery {
                created: true,
                state: None,
                state_damaged: false,
                end_lost: false,
                positions: 1..1,
                torn: None,
                damaged: Vec::new(),
                ignored,
            },
            index,
            obsolete: Vec::new(),
            first_segment: 1,
            segments: vec![facts],
            seals: Vec::new(),
            tail: Tail {
                segment: 1,
                end: made.end,
                dirty_end: made.end,
                unvouched: Vec::new(),
                has_unvouched_batch: false,
                last: made.checkpoint,
                next_sequence: 2,
                state_sequence: 0,
                truncation_sequence: 0,
                truncated_to: NOT_TRUNCATED,
            },
        };
        Self::resume(home, options, recovered)
    }

    /// Goes on where the recovered journal ends.
    fn resume(
        home: Home,
        options: JournalOptions,
        recovered: Recovered,
    ) -> Result<(Self, Recovery), OpenError> {
        let Recovered { recovery, index, first_segment, segments, seals, tail, .. } = recovered;
        let last = segments.last().copied().expect("a journal has at least one segment");
        let file = index.files.get(&last.number).map(Arc::clone);
        let active = Active {
            number: last.number,
            path: home.directory.join(segment_name(last.number)),
            file: file.expect("every segment that was recovered is open"),
            length: last.length,
            end: tail.end,
            written: tail.end,
            ready: tail.end,
        };
        let writable = is_writable(&recovery, &options);
        let status = Status::default();
        let mut journal = Self {
            shared: Arc::new(Shared::new(options.id, status.clone(), index)),
            home,
            options,
            status,
            access: if writable { Access::Write } else { Access::ReadOnly },
            segments,
            first_segment,
            active,
            spare: None,
            seals: if writable && recovery.damaged.is_empty() { seals } else { Vec::new() },
            attempts: 0,
            queued: Vec::new(),
            changes: Vec::new(),
            positions: recovery.positions.clone(),
            state: recovery.state.clone(),
            next_sequence: tail.next_sequence,
            durable_end: tail.next_sequence,
            last_batch: tail.next_sequence.saturating_sub(1),
            vouched: if tail.has_unvouched_batch { 0 } else { tail.next_sequence },
            last: tail.last,
            state_sequence: tail.state_sequence,
            state_end: tail.end,
            state_copy: StateCopy::None,
            truncation_sequence: tail.truncation_sequence,
            truncated_to: tail.truncated_to,
        };
        journal.status.set_durable_end(journal.durable_end);
        journal.note_size();
        if writable {
            journal.refill_spare()?;
            journal.put_mark_if_room()?;
        }
        Ok((journal, recovery))
    }
}

/// Whether the journal may be written to. Where it ends must be known: nothing can be put behind an end that is lost. And so must
/// its state: the next mark would bring back the one before as if it were the latest, and a vote would be given twice.
fn is_writable(recovery: &Recovery, options: &JournalOptions) -> bool {
    let repairable = options.repairs && !recovery.end_lost && !recovery.state_damaged;
    let sound = recovery.damaged.is_empty() || repairable;
    sound && !options.read_only
}

fn take_lock(disk: &dyn Disk, directory: &Path) -> Result<Arc<dyn DiskLock>, OpenError> {
    let path = directory.join(LOCK_NAME);
    disk.lock(&path).map(Arc::from).map_err(|source| match source.kind() {
        io::ErrorKind::WouldBlock => OpenError::Locked { directory: directory.to_path_buf() },
        _ => OpenError::Io { operation: "locking", path, source },
    })
}

/// As [`take_lock`], but makes no file: where there is none nobody has the journal open. A file that can only be read cannot be
/// locked, and a directory in which it is so is a copy that nobody writes to.
fn take_lock_to_read(disk: &dyn Disk, directory: &Path) -> Result<Arc<dyn DiskLock>, OpenError> {
    let names = disk.list(directory).map_err(at("listing", directory))?;
    if !names.iter().any(|name| name == LOCK_NAME) {
        return Ok(Arc::new(NoLock));
    }
    match take_lock(disk, directory) {
        Err(OpenError::Io { source, .. })
            if matches!(
                source.kind(),
                io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem
            ) =>
        {
            Ok(Arc::new(NoLock))
        }
        taken => taken,
    }
}

/// In the place of a lock that is not needed.
#[derive(Debug)]
struct NoLock;

impl DiskLock for NoLock {}

/// Removes what a crash left over. The spare goes too: it may hold the beginning of a segment that never came to be, and
/// segments begin as zeros.
fn remove_leftovers(
    disk: &dyn Disk,
    directory: &Path,
    listing: &Listing,
    obsolete: &[u64],
) -> Result<(), OpenError> {
    let spare = listing.has_spare.then(|| SPARE_NAME.to_owned());
    let segments = obsolete.iter().map(|number| segment_name(*number));
    // The last segment is not complete: if it has a seal, segments behind it were lost.
    let complete = listing.segments.split_last().map_or(&[][..], |(_, complete)| complete);
    let has_use =
        |number: &&u64| complete.binary_search(number).is_ok() && !obsolete.contains(number);
    let seals = listing.seals.iter().filter(|number| !has_use(number));
    let seals = seals.map(|number| seal_name(*number));
    for name in listing.temporary.iter().cloned().chain(spare).chain(segments).chain(seals) {
        let path = directory.join(name);
        disk.remove(&path).map_err(at("removing", &path))?;
    }
    Ok(())
}

/// Makes the end of the last segment certain: zeros behind the last frame, so that no frame of a torn tail can come back, and
/// all frames durable.
///
/// Frames that no other frame vouches for are written once more before they are synced: had the last process died of a failed
/// sync, the kernel might show them and yet believe that there is nothing left to write. What is written was verified: a read that
/// gives other bytes than a moment ago shall not destroy a good frame.
fn settle_tail(journal: u128, recovered: &Recovered, directory: &Path) -> Result<(), OpenError> {
    const PART: u64 = 1 << 20;
    let tail = &recovered.tail;
    let path = directory.join(segment_name(tail.segment));
    let file = recovered.index.files.get(&tail.segment).expect("the last segment is open");
    for frame in &tail.unvouched {
        let place = Place { journal, segment: tail.segment, offset: frame.start };
        let bytes = read_frame(&**file, place, frame.end).or_else(|_| {
            file.forget_cached(frame.start, frame.end - frame.start);
            read_frame(&**file, place, frame.end)
        });
        let bytes = bytes.map_err(at("reading", &path))?;
        file.write_at(&bytes, frame.start).map_err(at("writing", &path))?;
    }
    let mut part = Vec::new();
    let mut from = tail.end;
    while from < tail.dirty_end {
        let length = PART.min(tail.dirty_end - from);
        part.clear();
        part.resize(in_memory(length).map_err(at("writing", &path))?, 0);
        file.write_at(&part, from).map_err(at("writing", &path))?;
        from += length;
    }
    file.sync_data().map_err(at("syncing", &path))
}

/// The bytes of a frame that was intact a moment ago, if it still is.
fn read_frame(file: &dyn DiskFile, place: Place, end: u64) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; in_memory(end - place.offset)?];
    let read = file.read_at(&mut bytes, place.offset)?;
    let is_whole = |frame: &Frame<'_>| {
        FrameRecord::of(frame, place.segment, place.offset, end - place.offset).lost.is_empty()
    };
    if read == bytes.len() && Frame::read(&bytes, place).as_ref().is_some_and(is_whole) {
        return Ok(bytes);
    }
    let what = format!("the frame at byte {} reads differently than a moment ago", place.offset);
    Err(io::Error::new(io::ErrorKind::InvalidData, what))
}
