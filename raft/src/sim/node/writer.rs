//! The log's thread: takes all that queued while the last sync ran, writes it, syncs once, and reports the highest token.

use std::collections::VecDeque;
use std::time::Duration;

use super::{Host, Pending, Running, Workload, reason};
use crate::effects::{IoToken, PersistBatch};
use crate::replica::Input;
use crate::sim::markers;
use crate::storage::{JournalLog, LogStore, StorageError};
use crate::types::LogIndex;

/// A batch that found no space is tried again after this time.
const SPACE_RETRY: Duration = Duration::from_millis(50);
/// The thread calls itself idle after this time without a batch.
const IDLE_AFTER: Duration = Duration::from_millis(20);

/// While there is little space it looks again after this time.
const LOW_SPACE_LOOK: Duration = Duration::from_secs(1);

/// The log's thread.
#[derive(Debug)]
pub(super) struct Writer {
    log: JournalLog,
    queue: VecDeque<PersistBatch>,
    /// The write under way, and how it will have ended.
    writing: Option<(IoToken, Result<(), String>)>,
    writes: u64,
    is_idle: bool,
    /// There was no space; not before this time again.
    retry_at: Option<Duration>,
    /// What the replica was told last.
    is_low: bool,
    /// When it last looked for space.
    looked: Duration,
}

impl Writer {
    pub(super) fn new(log: JournalLog) -> Self {
        Self {
            log,
            queue: VecDeque::new(),
            writing: None,
            writes: 0,
            is_idle: true,
            retry_at: None,
            is_low: false,
            looked: Duration::ZERO,
        }
    }

    pub(super) fn log(&self) -> &JournalLog {
        &self.log
    }

    pub(super) fn queue(&mut self, batch: PersistBatch) {
        self.queue.push_back(batch);
    }

    pub(super) fn retry_at(&self) -> Option<Duration> {
        self.retry_at
    }

    pub(super) fn retry(&mut self, now: Duration) {
        self.retry_at.take_if(|at| *at <= now);
    }

    /// Drops entries; that there is no space for it matters to nobody.
    pub(super) fn compact(&mut self, through: LogIndex) -> Result<(), String> {
        match self.log.compact(through) {
            Ok(()) | Err(StorageError::NoSpace(_)) => Ok(()),
            Err(error) => Err(reason(&error)),
        }
    }

    /// Writes what is queued, as far as there is space, and syncs it.
    fn write(&mut self, now: Duration) {
        let mut token = None;
        let mut result = Ok(());
        while let Some(batch) = self.queue.front() {
            match self.log.append(batch) {
                Ok(()) => {
                    token = Some(batch.token);
                    self.queue.pop_front();
                }
                Err(StorageError::NoSpace(_)) => {
                    self.retry_at = Some(now + SPACE_RETRY);
                    break;
                }
                Err(error) => {
                    token = Some(batch.token);
                    self.queue.pop_front();
                    result = Err(reason(&error));
                    break;
                }
            }
        }
        let Some(token) = token else { return };
        let result = result.and_then(|()| self.log.sync().map_err(|error| reason(&error)));
        self.writes += 1;
        self.writing = Some((token, result));
    }
}

impl<W: Workload> Running<W> {
    /// Where commands are refused for want of space, no write would ever tell that there is some again: so the log's thread looks now and
    /// then.
    pub(super) fn look_for_space(&mut self, context: &mut Host<'_>) {
        let (writer, now) = (&mut self.writer, context.now());
        let has_work = writer.writing.is_some() || !writer.queue.is_empty();
        if !writer.is_low || has_work || now < writer.looked + LOW_SPACE_LOOK {
            return;
        }
        writer.looked = now;
        match writer.log.idle() {
            Ok(()) | Err(StorageError::NoSpace(_)) => self.report_space(),
            Err(error) => self.after_disk(Pending::Failure(reason(&error)), context),
        }
    }

    fn report_space(&mut self) {
        let writer = &mut self.writer;
        let is_low = writer.retry_at.is_some() || writer.log.is_low_on_space();
        if is_low != writer.is_low {
            writer.is_low = is_low;
            self.inputs.push_back(Input::LowSpace(is_low));
        }
    }

    /// Begins the next write, if none is under way and something is queued.
    pub(super) fn write(&mut self, context: &mut Host<'_>) {
        let writer = &mut self.writer;
        if writer.writing.is_some() || writer.queue.is_empty() || writer.retry_at.is_some() {
            return;
        }
        writer.write(context.now());
        let writer = &mut self.writer;
        if writer.retry_at.is_some() {
            context.mark(markers::DISK_FULL);
        }
        self.report_space();
        if self.writer.writing.is_some() {
            self.writer.is_idle = false;
            self.after_disk(Pending::Write, context);
        }
    }

    pub(super) fn written(&mut self, context: &mut Host<'_>) {
        let (token, result) = self.writer.writing.take().expect("one write is under way");
        self.inputs.push_back(match result {
            Ok(()) => Input::Persisted(token),
            Err(error) => {
                context.mark(markers::SYNC_FAILED);
                Input::PersistFailed { token, error }
            }
        });
        self.later(IDLE_AFTER, Pending::Rest(self.writer.writes), context);
    }

    /// Closes the window of what a crash could leave in doubt, if nothing was written meanwhile.
    pub(super) fn rest(&mut self, writes: u64, context: &mut Host<'_>) {
        let writer = &mut self.writer;
        let has_work = writer.writing.is_some() || !writer.queue.is_empty();
        if writer.is_idle || has_work || writer.writes != writes {
            return;
        }
        writer.is_idle = true;
        match writer.log.idle() {
            Ok(()) | Err(StorageError::NoSpace(_)) => {}
            Err(error) => self.after_disk(Pending::Failure(reason(&error)), context),
        }
    }
}
