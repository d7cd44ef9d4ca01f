//! The thread that writes, and the queue before it.

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::channel::oneshot;
use lattice_journal::Status;

use super::chain::{Chain, ChainHead};
use super::error::refusal;
use super::event_log::{EventLog, LogCounts};
use super::upkeep::Upkeep;
use crate::append::{Append, AppendError, Committed};
use crate::clock::Clock;
use crate::condition::Check;
use crate::event::Position;
use crate::record;
use crate::store::signal::Signal;

pub(super) type Answer = Result<Committed, AppendError>;

/// What waits for the writer.
pub(super) enum Request {
    /// An append.
    Append {
        append: Append,
        /// No event up to here stands against it.
        evaluated_to: Position,
        /// Bytes of memory, roughly.
        size: usize,
        answer: oneshot::Sender<Answer>,
    },
    /// Something that the log itself is needed for.
    Work(Work),
}

/// Something that is done with the log.
pub(super) type Work = Box<dyn FnOnce(&mut EventLog) + Send>;

impl Request {
    pub(super) fn new(append: Append, answer: oneshot::Sender<Answer>) -> Self {
        let (size, evaluated_to) = (size(&append), Position::BEGINNING);
        Self::Append { append, evaluated_to, size, answer }
    }

    fn size(&self) -> usize {
        match self {
            Self::Append { size, .. } => *size,
            Self::Work(_) => 0,
        }
    }
}

impl fmt::Debug for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Request").field("size", &self.size()).finish_non_exhaustive()
    }
}

/// Bytes that an append takes in memory, roughly.
pub(super) fn size(append: &Append) -> usize {
    const EACH: usize = 256;
    let events = append.events.iter().map(|(stream, event)| record::size(stream, event) + EACH);
    let checks = append.checks.iter().map(|check| match check {
        Check::Stream { stream, .. } => stream.as_str().len() + EACH,
        Check::NoMatch { query, .. } => {
            let items = query.items.iter().map(|item| {
                let types = item.types.iter().map(|name| name.as_str().len() + 16);
                let labels = item.labels.iter().map(|name| name.as_str().len() + 16);
                types.sum::<usize>() + labels.sum::<usize>() + EACH
            });
            items.sum::<usize>() + EACH
        }
    });
    events.sum::<usize>() + checks.sum::<usize>() + EACH
}

/// Appends that wait for the writer, bounded in bytes. Those that are being written count too.
#[derive(Debug)]
pub(super) struct Queue {
    bytes_max: usize,
    state: Mutex<QueueState>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct QueueState {
    requests: VecDeque<Request>,
    bytes: usize,
    closed: bool,
}

impl QueueState {
    /// Counts an append, however large it is if nothing else waits.
    fn count(&mut self, size: usize, bytes_max: usize) -> Result<(), AppendError> {
        if size > 0 && self.bytes > 0 && self.bytes + size > bytes_max {
            return Err(AppendError::Busy { waiting: self.bytes });
        }
        self.bytes += size;
        Ok(())
    }
}

/// What the writer has to do next.
enum Next {
    Write(VecDeque<Request>),
    /// Nothing has come for a while.
    Idle,
    Close,
}

impl Queue {
    pub(super) fn new(bytes_max: usize) -> Self {
        Self { bytes_max, state: Mutex::default(), changed: Condvar::new() }
    }

    /// Does something with the log, between two groups of appends, and waits for it. `None` if the writer is gone.
    pub(super) fn ask<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut EventLog) -> T + Send + 'static,
    ) -> Option<T> {
        let (answer, receiver) = oneshot::channel();
        let work: Work = Box::new(move |log| {
            // Whoever asked waits, unless it has panicked.
            let _ = answer.send(work(log));
        });
        self.put(Request::Work(work)).ok()?;
        futures::executor::block_on(receiver).ok()
    }

    /// Puts in a request. An append is taken however large it is, if nothing else waits, and other work always.
    pub(super) fn put(&self, request: Request) -> Result<(), AppendError> {
        let mut state = self.lock();
        if state.closed {
            return Err(AppendError::Failed(refusal("the store is closed")));
        }
        state.count(request.size(), self.bytes_max)?;
        let was_empty = state.requests.is_empty();
        state.requests.push_back(request);
        drop(state);
        if was_empty {
            self.changed.notify_one();
        }
        Ok(())
    }

    /// Counts the bytes of an append that is put in later, or refuses it as [`Queue::put`] would.
    pub(super) fn count(&self, size: usize) -> Result<(), AppendError> {
        let mut state = self.lock();
        if state.closed {
            return Err(AppendError::Failed(refusal("the store is closed")));
        }
        state.count(size, self.bytes_max)
    }

    /// Puts in a request whose bytes are counted already.
    pub(super) fn put_counted(&self, request: Request) {
        let mut state = self.lock();
        if state.closed {
            state.bytes = state.bytes.saturating_sub(request.size());
            drop(state);
            if let Request::Append { answer, .. } = request {
                // Whoever stopped waiting needs no answer.
                let _ = answer.send(Err(AppendError::Failed(refusal("the store is closed"))));
            }
            return;
        }
        state.requests.push_back(request);
        drop(state);
        self.changed.notify_one();
    }

    /// Bytes that wait or are being written.
    pub(super) fn waiting(&self) -> usize {
        self.lock().bytes
    }

    /// Takes no more. What waits is still written.
    pub(super) fn close(&self) {
        self.lock().closed = true;
        self.changed.notify_one();
    }

    /// Everything that waits, or what else there is to do.
    fn next(&self, idle: Option<Duration>) -> Next {
        let mut state = self.lock();
        loop {
            if !state.requests.is_empty() {
                return Next::Write(std::mem::take(&mut state.requests));
            }
            if state.closed {
                return Next::Close;
            }
            match idle {
                None => {
                    state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
                }
                Some(idle) => {
                    let waited = self.changed.wait_timeout(state, idle);
                    let (held, timeout) = waited.unwrap_or_else(PoisonError::into_inner);
                    state = held;
                    if timeout.timed_out() && state.requests.is_empty() && !state.closed {
                        return Next::Idle;
                    }
                }
            }
        }
    }

    /// So many bytes were answered.
    pub(super) fn done(&self, bytes: usize) {
        let mut state = self.lock();
        state.bytes = state.bytes.saturating_sub(bytes);
    }

    /// The writer is gone: nobody will answer.
    fn abandon(&self) {
        let unanswered = {
            let mut state = self.lock();
            state.closed = true;
            std::mem::take(&mut state.requests)
        };
        // Outside the lock, for dropping them wakes those who wait.
        drop(unanswered);
    }

    fn lock(&self) -> MutexGuard<'_, QueueState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Figures as of the last group.
#[derive(Debug)]
pub(super) struct Figures {
    pub(super) counts: LogCounts,
    pub(super) journal: Status,
    chain: Option<Chain>,
}

impl Figures {
    pub(super) fn of(log: &EventLog) -> Self {
        let (counts, journal) = (log.counts(), log.journal_status());
        Self { counts, journal, chain: log.chain().cloned() }
    }

    pub(super) fn chain_head(&self) -> Option<ChainHead> {
        self.chain.as_ref().map(Chain::head)
    }
}

/// What the writing thread has.
#[derive(Debug)]
pub(super) struct Writer {
    pub(super) log: EventLog,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) queue: Arc<Queue>,
    pub(super) signal: Arc<Signal>,
    pub(super) figures: Arc<Mutex<Figures>>,
    pub(super) upkeep: Arc<Upkeep>,
    pub(super) group_size_max: usize,
    pub(super) idle: Duration,
}

/// Appends that were decided about, each with its decision.
type Decided = Vec<(oneshot::Sender<Answer>, Answer)>;

impl Writer {
    pub(super) fn run(mut self) {
        // Should something in here panic, nobody must wait for an answer that never comes.
        let _abandon = Abandon(Arc::clone(&self.queue), Arc::clone(&self.signal));
        self.upkeep.put(self.log.upkeep());
        let mut marked = true;
        loop {
            match self.queue.next((!marked).then_some(self.idle)) {
                Next::Write(requests) => {
                    self.write(requests);
                    marked = false;
                }
                Next::Idle => {
                    // A failure is in the log, and in every answer from now on.
                    if self.log.mark().is_err() {
                        self.signal.close();
                    }
                    marked = true;
                }
                Next::Close => break,
            }
        }
        if let Err(error) = self.log.close() {
            tracing::error!(%error, "the log could not be closed in order");
        }
    }

    /// Decides about appends and writes those that are carried out, in groups of a bounded size.
    fn write(&mut self, requests: VecDeque<Request>) {
        let mut decided = Vec::with_capacity(requests.len());
        let mut bytes = 0;
        for request in requests {
            let (append, evaluated_to, size, answer) = match request {
                Request::Append { append, evaluated_to, size, answer } => {
                    (append, evaluated_to, size, answer)
                }
                Request::Work(work) => {
                    self.commit(std::mem::take(&mut decided), std::mem::take(&mut bytes));
                    work(&mut self.log);
                    continue;
                }
            };
            let result = self.log.stage_evaluated(append, evaluated_to, self.clock.now());
            decided.push((answer, result));
            bytes += size;
            if self.log.staged_bytes() >= self.group_size_max {
                self.commit(std::mem::take(&mut decided), std::mem::take(&mut bytes));
            }
        }
        self.commit(decided, bytes);
    }

    /// Commits what is staged and answers.
    fn commit(&mut self, decided: Decided, bytes: usize) {
        let error = match self.log.commit() {
            Ok(head) => {
                *self.figures.lock().unwrap_or_else(PoisonError::into_inner) =
                    Figures::of(&self.log);
                self.signal.advance(head);
                if self.log.take_rotated() {
                    self.upkeep.put(self.log.upkeep());
                }
                None
            }
            Err(error) => {
                if self.log.has_failed() {
                    self.signal.close();
                }
                Some(error)
            }
        };
        self.queue.done(bytes);
        for (answer, result) in decided {
            // Whoever stopped waiting needs no answer.
            let _ = answer.send(final_answer(error.as_ref(), result));
        }
    }
}

/// What is answered to an append that was decided about, once its group is written, or was not because of `error`.
pub(crate) fn final_answer(error: Option<&AppendError>, decided: Answer) -> Answer {
    match (error, decided) {
        // The log had failed before. Every other answer may rest on an event of the group that is lost now: what makes an append
        // invalid whatever the log says was refused before it came here.
        (_, Err(error @ AppendError::Failed(_))) => Err(error),
        (Some(_), Err(refused)) if planted!(RefusalBeforeDurable) => Err(refused),
        (Some(error), _) => Err(error.clone()),
        (None, decided) => decided,
    }
}

/// Sees to it that nobody waits for a writer that is gone.
#[derive(Debug)]
struct Abandon(Arc<Queue>, Arc<Signal>);

impl Drop for Abandon {
    fn drop(&mut self) {
        self.0.abandon();
        self.1.close();
    }
}

#[cfg(test)]
#[cfg(feature = "sim")]
mod tests {
    use lattice_sim::SimDisk;

    use super::*;
    use crate::clock::SystemClock;
    use crate::event::{EventType, NewEvent, StreamName};
    use crate::store::journal::JournalStoreOptions;

    fn say(content: &'static str) -> Append {
        let event = NewEvent::json(EventType::new("$metadata").unwrap(), content);
        Append { events: vec![(StreamName::new("$$s").unwrap(), event)], ..Append::default() }
    }

    #[test]
    fn no_refusal_tells_of_events_that_were_lost_with_their_group() {
        let disk = SimDisk::new(1);
        let options = JournalStoreOptions::new("store");
        let mut log = EventLog::open(Arc::new(disk.clone()), &options).unwrap();
        let event = NewEvent::json(EventType::new("t").unwrap(), "{}");
        let stream = StreamName::new("s").unwrap();
        let append = Append { events: vec![(stream, event)], ..Append::default() };
        log.stage(append, crate::event::Timestamp(0)).unwrap();
        log.commit().unwrap();
        let mut writer = Writer {
            clock: Arc::new(SystemClock),
            queue: Arc::new(Queue::new(1 << 20)),
            signal: Arc::new(Signal::new(log.reader().head())),
            figures: Arc::new(Mutex::new(Figures::of(&log))),
            upkeep: Arc::default(),
            group_size_max: options.group_size_max,
            idle: options.idle,
            log,
        };
        disk.fail_sync_at(1);
        let request = |append| {
            let (answer, receiver) = oneshot::channel();
            (Request::new(append, answer), receiver)
        };
        let (first, first_answer) = request(say(r#"{"$tb":1}"#));
        // Refused because of the first one: it would bring back what that has hidden.
        let (second, second_answer) = request(say("{}"));
        writer.write([first, second].into());
        for answer in [first_answer, second_answer] {
            let answer = futures::executor::block_on(answer).unwrap();
            assert!(matches!(answer, Err(AppendError::Unknown(_))), "{answer:?}");
        }
    }
}
