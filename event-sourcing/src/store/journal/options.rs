//! What can be set about a store on disk.

use std::path::PathBuf;
use std::time::Duration;

use super::error::OpenError;
use crate::machine::Limits;

const MIB: usize = 1 << 20;

/// How a store is laid out and what it may use.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct JournalStoreOptions {
    /// Where it is.
    pub directory: PathBuf,
    /// The identity that a new store gets; one that exists keeps its own.
    pub id: u128,
    /// Change nothing in the directory, in which a store must be: no append, no index file, and what a crash has torn off at the end is
    /// left there. Nobody else may have the store open all the same. Segments without an index file of their own are read, and
    /// their index is in memory.
    pub read_only: bool,
    /// What an append may be.
    pub limits: Limits,
    /// Bytes of appends that may wait for the writer; beyond that they are refused with
    /// [`AppendError::Busy`](crate::AppendError::Busy).
    pub queue_bytes_max: usize,
    /// Bytes of events after which a group of appends is written, even if more wait.
    pub group_size_max: usize,
    /// Bytes of events after which a frame of the journal ends with the append that brought it there. Reading one event reads its frame,
    /// and each frame takes about a hundred bytes more.
    pub frame_size: usize,
    /// Bytes of the last events that are held in memory.
    pub tail_bytes_max: usize,
    /// Length of a segment in bytes. Each has an index of its own: the fewer there are the faster is what is not there found to be
    /// missing, and the larger they are the longer does opening after a crash take and the more memory does the last one's index
    /// need.
    pub segment_size: u64,
    /// Threads that read from the disk; at least one.
    pub reader_threads: usize,
    /// Reads that may wait for those threads. Beyond that callers read for themselves.
    pub reads_waiting_max: usize,
    /// How often the space of hidden events is taken back; never by itself if `None`.
    pub scavenge_every: Option<Duration>,
    /// Bytes a second that are read for it, at most, and so the most that are written.
    pub scavenge_rate: u64,
    /// How long nothing must have happened before the end of the log is marked.
    pub idle: Duration,
}

impl JournalStoreOptions {
    /// The usual values: segments of 32 MiB, 64 MiB of waiting appends, groups of 8 MiB, frames of 16 KiB, the last 32 MiB of events in memory, two
    /// reading threads, space taken back every ten minutes at 16 MiB a second.
    #[must_use]
    pub fn new(directory: impl Into<PathBuf>) -> Self {
        Self {
            directory: directory.into(),
            id: uuid::Uuid::new_v4().as_u128(),
            read_only: false,
            limits: Limits::default(),
            queue_bytes_max: 64 * MIB,
            group_size_max: 8 * MIB,
            frame_size: 16 << 10,
            tail_bytes_max: 32 * MIB,
            segment_size: 32 << 20,
            reader_threads: 2,
            reads_waiting_max: 1024,
            scavenge_every: Some(Duration::from_secs(600)),
            scavenge_rate: 16 << 20,
            idle: Duration::from_secs(1),
        }
    }

    pub(super) fn check(&self) -> Result<(), OpenError> {
        let within = |what, value: usize, least: usize, most: usize, bounds| {
            let value_shown = u64::try_from(value).unwrap_or(u64::MAX);
            let fits = (least..=most).contains(&value);
            fits.then_some(()).ok_or(OpenError::Option { what, value: value_shown, bounds })
        };
        within("the largest event", self.limits.event_size_max, 1, 64 * MIB, "64 MiB")?;
        within("the largest append", self.limits.append_size_max, 1, 256 * MIB, "256 MiB")?;
        within("the most events of an append", self.limits.events_max, 1, 65_536, "1 to 65,536")?;
        within("the size of a group", self.group_size_max, 1, 256 * MIB, "1 byte to 256 MiB")?;
        within("the size of a frame", self.frame_size, 1, 256 * MIB, "1 byte to 256 MiB")?;
        within("the number of reading threads", self.reader_threads, 1, 1024, "1 to 1,024")?;
        let segment = usize::try_from(self.segment_size).unwrap_or(usize::MAX);
        // Places in an index file have 32 bits, and the index of a segment of small labels is four times as long as the segment.
        within("the length of a segment", segment, 1024, 512 * MIB, "1 KiB to 512 MiB")?;
        // More would not fit into what the journal is told that a record needs beside its content.
        within("the most labels of an event", self.limits.labels_max, 0, 256, "0 to 256")
    }
}
