//! The thread that writes the log: it takes all that has queued, writes it, syncs once, and reports the highest token.
#![expect(clippy::disallowed_methods, reason = "the log is written by a thread of its own")]

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::sync::mpsc::UnboundedSender;

use crate::effects::{IoToken, PersistBatch};
use crate::replica::Input;
use crate::storage::{LogStore, StorageError};
use crate::types::LogIndex;

use super::apply_thread::panic_text;
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
    let reporter = completions.clone();
    let worker = Worker { log, completions, counters, is_low: false, is_dirty: false };
    let work = move || or_report_panic(&reporter, || worker.run(&queue));
    let thread = std::thread::Builder::new().name(name).spawn(work)?;
    Ok((jobs, thread))
}

/// A thread that ends in a panic would be missed by nobody, and the node would lead on without it: it says so, and the node stops.
pub(super) fn or_report_panic(completions: &UnboundedSender<Input>, work: impl FnOnce()) {
    if let Err(panic) = catch_unwind(AssertUnwindSafe(work)) {
        let error = format!("its thread panicked: {}", panic_text(&*panic));
        let failed = Input::PersistFailed { token: IoToken::default(), error };
        // If the node has gone, it has stopped.
        let _: Result<(), _> = completions.send(failed);
    }
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

/// What was taken out of the queue and is not done.
#[derive(Default)]
struct Todo {
    batches: VecDeque<PersistBatch>,
    compact: Option<LogIndex>,
}

impl Todo {
    fn push(&mut self, job: LogJob) {
        match job {
            LogJob::Persist(batch) => self.batches.push_back(batch),
            LogJob::Compact(through) => self.compact = self.compact.max(Some(through)),
        }
    }
}

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

    /// This job and all that have queued behind it, with one sync; with more of them if the disk is full in between.
    fn work(&mut self, first: LogJob, queue: &Receiver<LogJob>) -> Result<(), Ended> {
        let mut todo = Todo::default();
        let others = std::iter::from_fn(|| queue.try_recv().ok());
        std::iter::once(first).chain(others).take(GROUP_MAX).for_each(|job| todo.push(job));
        loop {
            self.write(&mut todo.batches)?;
            if let Some(through) = todo.compact.take() {
                match self.log.compact(through) {
                    // Nothing was dropped, nothing is lost: the next compaction drops this too.
                    Err(StorageError::NoSpace(_)) => {}
                    result => self.check(IoToken::default(), result)?,
                }
            }
            if todo.batches.is_empty() {
                self.report_space();
                return Ok(());
            }
            // The disk is full. A compaction that is queued behind the write may be what makes room for it.
            self.report_low(true);
            match queue.recv_timeout(NO_SPACE_PAUSE) {
                Ok(job) => todo.push(job),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return Err(Ended),
            }
            queue.try_iter().for_each(|job| todo.push(job));
        }
    }

    /// Appends batches in order as far as there is space, and makes durable what was appended.
    fn write(&mut self, batches: &mut VecDeque<PersistBatch>) -> Result<(), Ended> {
        let mut highest = None;
        while let Some(batch) = batches.front() {
            let token = batch.token;
            match self.log.append(batch) {
                Err(StorageError::NoSpace(_)) => break,
                result => self.check(token, result)?,
            }
            highest = Some(token);
            batches.pop_front();
        }
        highest.map_or(Ok(()), |token| self.sync(token))
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

    /// A full disk on which only compaction makes room.
    #[derive(Debug, Default)]
    struct Filled {
        is_compacted: bool,
    }

    impl LogStore for Filled {
        type Reader = MemoryLogReader;

        fn reader(&self) -> MemoryLogReader {
            MemoryLog::new().reader()
        }

        fn append(&mut self, batch: &PersistBatch) -> Result<(), StorageError> {
            assert!(batch.token != IoToken(9), "panicked as asked");
            if batch.token > IoToken(1) && !self.is_compacted { full() } else { Ok(()) }
        }

        fn sync(&mut self) -> Result<(), StorageError> {
            Ok(())
        }

        fn idle(&mut self) -> Result<(), StorageError> {
            Ok(())
        }

        fn compact(&mut self, through: LogIndex) -> Result<(), StorageError> {
            self.is_compacted = through > LogIndex::ZERO;
            if self.is_compacted { Ok(()) } else { full() }
        }

        fn is_low_on_space(&self) -> bool {
            !self.is_compacted
        }
    }

    fn full() -> Result<(), StorageError> {
        Err(StorageError::NoSpace(Arc::new(std::io::Error::from(std::io::ErrorKind::StorageFull))))
    }

    fn persist(token: u64) -> LogJob {
        LogJob::Persist(PersistBatch { token: IoToken(token), ..PersistBatch::default() })
    }

    type Running = (Sender<LogJob>, JoinHandle<()>, tokio::sync::mpsc::UnboundedReceiver<Input>);

    fn filled() -> Running {
        let (completions, completed) = tokio::sync::mpsc::unbounded_channel();
        let log = Filled::default();
        let (jobs, thread) = start(log, completions, Arc::default(), "log".to_owned()).unwrap();
        (jobs, thread, completed)
    }

    async fn next(completed: &mut tokio::sync::mpsc::UnboundedReceiver<Input>) -> Input {
        let patience = Duration::from_secs(20);
        tokio::time::timeout(patience, completed.recv()).await.unwrap().unwrap()
    }

    #[tokio::test]
    async fn on_a_full_disk_what_fits_is_reported_and_compaction_goes_before_the_write_that_waits()
    {
        let (jobs, thread, mut completed) = filled();
        for job in [persist(1), persist(2)] {
            jobs.send(job).unwrap();
        }
        assert!(matches!(next(&mut completed).await, Input::Persisted(IoToken(1))));
        assert!(matches!(next(&mut completed).await, Input::LowSpace(true)));
        for job in [persist(3), LogJob::Compact(LogIndex(7)), persist(4)] {
            jobs.send(job).unwrap();
        }
        let mut news = Vec::new();
        while !matches!(news.last(), Some(Input::LowSpace(false))) {
            news.push(next(&mut completed).await);
        }
        assert!(news.iter().any(|input| matches!(input, Input::Persisted(IoToken(4)))), "{news:?}");
        drop(jobs);
        thread.join().unwrap();
    }

    #[tokio::test]
    async fn a_compaction_without_room_for_its_mark_stops_nothing() {
        let (jobs, thread, mut completed) = filled();
        for job in [LogJob::Compact(LogIndex::ZERO), persist(1)] {
            jobs.send(job).unwrap();
        }
        let mut news = next(&mut completed).await;
        while matches!(news, Input::LowSpace(_)) {
            news = next(&mut completed).await;
        }
        assert!(matches!(news, Input::Persisted(IoToken(1))), "{news:?}");
        drop(jobs);
        thread.join().unwrap();
    }

    #[test]
    fn a_write_that_waits_for_space_does_not_outlive_its_node() {
        let (jobs, thread, completed) = filled();
        jobs.send(persist(2)).unwrap();
        drop(jobs);
        thread.join().unwrap();
        drop(completed);
    }

    #[tokio::test]
    async fn a_panic_of_the_thread_stops_the_node() {
        let (jobs, thread, mut completed) = filled();
        jobs.send(persist(9)).unwrap();
        assert!(matches!(next(&mut completed).await, Input::PersistFailed { .. }));
        thread.join().unwrap();
    }
}
