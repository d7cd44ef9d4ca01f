//! Appends on their way to the queue whose queries take long to look at: the reading threads do that, in pieces, so that neither the
//! writer nor other reads wait for it. The writer then looks at what has come since, and decides.

use std::fmt;
use std::sync::Arc;

use futures::channel::oneshot;

use super::error::refusal;
use super::log_reader::LogReader;
use super::reading::Readers;
use super::writing::{Answer, Queue, Request};
use crate::append::{Append, AppendError};
use crate::condition::Check;
use crate::event::Position;
use crate::machine::evaluation::Evaluation;
use crate::page::WORK_MAX;

/// So many of the last events are left to the writer.
const NEAR: u64 = 256;
/// How often the events that have come meanwhile are looked at before the rest is left to the writer.
const ROUNDS: u32 = 16;

/// Whether an append has a query that goes back far behind the end of the log.
pub(super) fn goes_back(append: &Append, head: Position) -> bool {
    append.checks.iter().any(|check| match check {
        Check::NoMatch { after, .. } => head.0.saturating_sub(after.0) > NEAR,
        Check::Stream { .. } => false,
    })
}

/// An append whose queries are being looked at. Its bytes count as waiting in the queue.
pub(super) struct Evaluating {
    /// `None` when it has left.
    request: Option<(Append, usize, oneshot::Sender<Answer>)>,
    evaluation: Evaluation,
    /// The end of the log when the round began.
    head: Position,
    rounds: u32,
    queue: Arc<Queue>,
    readers: Arc<Readers>,
    log: LogReader,
}

impl Evaluating {
    /// Begins to look at an append that the queue has taken the bytes of.
    pub(super) fn new(
        append: Append,
        size: usize,
        answer: oneshot::Sender<Answer>,
        queue: &Arc<Queue>,
        readers: &Arc<Readers>,
        log: &LogReader,
    ) -> Self {
        let head = log.head();
        Self {
            request: Some((append, size, answer)),
            evaluation: Evaluation::new(Position::BEGINNING, head),
            head,
            rounds: 0,
            queue: Arc::clone(queue),
            readers: Arc::clone(readers),
            log: log.clone(),
        }
    }

    /// Looks at what is in memory, without waiting, and then puts the append into the queue or hands it to a reading thread.
    pub(super) fn begin(mut self, work: u64) {
        let log = self.log.clone();
        let before = self.evaluation;
        let Some((append, ..)) = &self.request else { return };
        let evaluation = &mut self.evaluation;
        match log.ask_memory(|view| evaluation.go_on(view, append, work)) {
            Some(Ok(Some(evaluated_to))) => return self.put(evaluated_to),
            Some(Ok(None)) => {}
            // What was to be read from the disk is read, and what failed fails again, in a thread that may wait.
            Some(Err(_)) | None => self.evaluation = before,
        }
        let readers = Arc::clone(&self.readers);
        if let Err(job) = readers.submit(Box::new(move || self.run())) {
            // Too many wait already: it waits all the same, for its bytes are counted.
            readers.resubmit(job);
        }
    }

    /// Does a piece of it, in a reading thread.
    fn run(mut self) {
        let log = self.log.clone();
        let Some((append, ..)) = &self.request else { return };
        match log.evaluate_piece(&mut self.evaluation, append, WORK_MAX) {
            Ok(Some(evaluated_to)) => {
                let head = log.head();
                let is_far = head.0 - self.head.0 > NEAR && self.rounds < ROUNDS;
                // Unless something stands against it already.
                if evaluated_to < self.head || !is_far {
                    return self.put(evaluated_to);
                }
                self.evaluation = Evaluation::new(evaluated_to, head);
                (self.head, self.rounds) = (head, self.rounds + 1);
            }
            Ok(None) => {}
            Err(error) => return self.refuse(AppendError::Read(error)),
        }
        // Behind the reads that wait.
        let readers = Arc::clone(&self.readers);
        readers.resubmit(Box::new(move || self.run()));
    }

    fn put(mut self, evaluated_to: Position) {
        if let Some((append, size, answer)) = self.request.take() {
            self.queue.put_counted(Request::Append { append, evaluated_to, size, answer });
        }
    }

    fn refuse(mut self, error: AppendError) {
        if let Some((_, size, answer)) = self.request.take() {
            self.queue.done(size);
            // Whoever stopped waiting needs no answer.
            let _ = answer.send(Err(error));
        }
    }
}

impl Drop for Evaluating {
    fn drop(&mut self) {
        // The reading threads have ended: nothing was written.
        if let Some((_, size, answer)) = self.request.take() {
            self.queue.done(size);
            let _ = answer.send(Err(AppendError::Failed(refusal("the store is closed"))));
        }
    }
}

impl fmt::Debug for Evaluating {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Evaluating").field("evaluation", &self.evaluation).finish_non_exhaustive()
    }
}
