//! The thread that writes the log: it takes all that has queued, writes it, syncs once, and reports the highest token.
#![expect(clippy::disallowed_methods, reason = "the log is written by a thread of its own")]

use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::sync::mpsc::UnboundedSender;

use crate::effects::{IoToken, PersistBatch};
use crate::replica::Input;
use crate::storage::{LogStore, StorageError};
use crate::types::LogIndex;

use super::clock::Stopwatch;
use super::status::SyncCounters;

/// What the log's thread is asked to do. The queue is bounded by what the core lets be under way.
#[derive(Debug)]
pub(super) enum LogJob {
    Persist(PersistBatch),
    Compact(LogIndex),
}

/// After this time without work, the window that a crash could leave in doubt is closed.
const IDLE: Duration = Duration::from_millis(100);
/// While little space is left, this long without work is a reason to look whether there is more again.
const LOW_SPACE_LOOK: Duration = Duration::from_secs(1);
/// How long a write that met a full disk rests before the next try.
const NO_SPACE_PAUSE: Duration = Duration::from_millis(100);
/// Batches taken into one sync.
const GROUP_MAX: usize = 1024;

/// Starts the thread. It ends, after a last mark, when the sender is dropped.
pub(super) fn start<L: LogStore>(
    log: L,
    completions: UnboundedSender<Input>,
    counters: Arc<SyncCounters>,
    name: String,
) -> std::io::Result<(Sender<LogJob>, JoinHandle<()>)> {
    let (jobs, queue) = channel();
    let worker = Worker { log, completions, counters, is_low: false, is_dirty: false };
    let thread = std::thread::Builder::new().name(name).spawn(move || worker.run(&queue))?;
    Ok((jobs, thread))
}

struct Worker<L> {
    log: L,
    completions: UnboundedSender<Input>,
    counters: Arc<SyncCounters>,
    is_low: bool,
    /// Something was written since the last mark.
    is_dirty: bool,
}

/// Why the thread ends early.
struct Ended;

impl<L: LogStore> Worker<L> {
    fn run(mut self, queue: &Receiver<LogJob>) {
        loop {
            let job = match self.patience() {
                Some(patience) => match queue.recv_timeout(patience) {
                    Ok(job) => Some(job),
                    Err(RecvTimeoutError::Timeout) => None,
                    Err(RecvTimeoutError::Disconnected) => break,
                },
                None => match queue.recv() {
                    Ok(job) => Some(job),
                    Err(std::sync::mpsc::RecvError) => break,
                },
            };
            let done = match job {
                Some(job) => self.work(job, queue),
                None => self.mark(),
            };
            if done.is_err() {
                return;
            }
        }
        // The owner is gone; what fails now fails as in a crash.
        let _: Result<(), Ended> = self.mark();
    }

    /// How long to wait for work before using the time for something else. A node that refuses commands for want of space gets
    /// no work: it would never learn that there is space again.
    fn patience(&self) -> Option<Duration> {
        match (self.is_dirty, self.is_low) {
            (true, _) => Some(IDLE),
            (false, true) => Some(LOW_SPACE_LOOK),
            (false, false) => None,
        }
    }

    /// This job and all that have queued behind it, with one sync.
    fn work(&mut self, first: LogJob, queue: &Receiver<LogJob>) -> Result<(), Ended> {
        let mut compact = None;
        let mut highest = None;
        let others = std::iter::from_fn(|| queue.try_recv().ok());
        for job in std::iter::once(first).chain(others).take(GROUP_MAX) {
            match job {
                LogJob::Persist(batch) => {
                    self.append(&batch)?;
                    highest = Some(batch.token);
                }
                LogJob::Compact(through) => compact = compact.max(Some(through)),
            }
        }
        if let Some(token) = highest {
            self.sync(token)?;
        }
        if let Some(through) = compact {
            let result = self.log.compact(through);
            self.check(highest.unwrap_or_default(), result)?;
        }
        self.report_space();
        Ok(())
    }

    /// Appends a batch; waits for space if there is none, which is what the whole node then does.
    fn append(&mut self, batch: &PersistBatch) -> Result<(), Ended> {
        loop {
            match self.log.append(batch) {
                Err(StorageError::NoSpace(_)) => {
                    self.report_low(true);
                    if self.completions.is_closed() {
                        return Err(Ended);
                    }
                    std::thread::sleep(NO_SPACE_PAUSE);
                }
                result => return self.check(batch.token, result),
            }
        }
    }

    fn sync(&mut self, token: IoToken) -> Result<(), Ended> {
        let watch = Stopwatch::start();
        let result = self.log.sync();
        self.counters.add(watch.elapsed());
        self.check(token, result)?;
        self.is_dirty = true;
        self.report(Input::Persisted(token))
    }

    fn mark(&mut self) -> Result<(), Ended> {
        self.is_dirty = false;
        match self.log.idle() {
            // The mark is for after a crash; without room for it, what is there is still durable.
            Err(StorageError::NoSpace(_)) => {}
            result => self.check(IoToken::default(), result)?,
        }
        self.report_space();
        Ok(())
    }

    /// A failure is the end: it is reported, and nothing more is written.
    fn check(&self, token: IoToken, result: Result<(), StorageError>) -> Result<(), Ended> {
        result.map_err(|error| {
            let error = with_causes(&error);
            let _: Result<(), Ended> = self.report(Input::PersistFailed { token, error });
            Ended
        })
    }

    fn report_space(&mut self) {
        self.report_low(self.log.is_low_on_space());
    }

    fn report_low(&mut self, is_low: bool) {
        if is_low != self.is_low {
            self.is_low = is_low;
            let _: Result<(), Ended> = self.report(Input::LowSpace(is_low));
        }
    }

    fn report(&self, input: Input) -> Result<(), Ended> {
        self.completions.send(input).or(Err(Ended))
    }
}

/// An error and what caused it, on one line.
pub(super) fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        source = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::{MemoryLog, MemoryLogReader};

    /// A log whose disk has space again at the second look. It looks when it is idle, and only then.
    #[derive(Debug)]
    struct Full {
        looks: u32,
    }

    impl LogStore for Full {
        type Reader = MemoryLogReader;

        fn reader(&self) -> MemoryLogReader {
            MemoryLog::new().reader()
        }

        fn append(&mut self, _batch: &PersistBatch) -> Result<(), StorageError> {
            Ok(())
        }

        fn sync(&mut self) -> Result<(), StorageError> {
            Ok(())
        }

        fn idle(&mut self) -> Result<(), StorageError> {
            self.looks += 1;
            Ok(())
        }

        fn compact(&mut self, _through: LogIndex) -> Result<(), StorageError> {
            Ok(())
        }

        fn is_low_on_space(&self) -> bool {
            self.looks < 2
        }
    }

    #[test]
    fn space_that_came_back_is_noticed_without_any_work() {
        let log = Full { looks: 0 };
        let (completions, mut completed) = tokio::sync::mpsc::unbounded_channel();
        let (jobs, thread) = start(log, completions, Arc::default(), "log".to_owned()).unwrap();
        jobs.send(LogJob::Persist(PersistBatch::default())).unwrap();
        let mut next_news = || loop {
            if let Input::LowSpace(is_low) = completed.blocking_recv().unwrap() {
                return is_low;
            }
        };
        assert!(next_news());
        assert!(!next_news(), "commands are taken again");
        drop(jobs);
        thread.join().unwrap();
    }
}
