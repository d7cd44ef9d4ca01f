//! The threads that read from the disk.

use std::collections::VecDeque;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

pub(super) type Job = Box<dyn FnOnce() + Send>;

/// Reads that wait for a thread, bounded in number.
pub(super) struct Readers {
    waiting_max: usize,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    jobs: VecDeque<Job>,
    closed: bool,
}

impl Readers {
    pub(super) fn new(waiting_max: usize) -> Self {
        Self { waiting_max, state: Mutex::default(), changed: Condvar::new() }
    }

    /// Hands over a read, or gives it back if too many wait.
    pub(super) fn submit(&self, job: Job) -> Result<(), Job> {
        let mut state = self.lock();
        if state.jobs.len() >= self.waiting_max && !state.closed {
            return Err(job);
        }
        if !state.closed {
            state.jobs.push_back(job);
            drop(state);
            self.changed.notify_one();
        }
        Ok(())
    }

    /// Hands over a read that has been one of them before, or is counted elsewhere: it waits behind the others, however many.
    pub(super) fn resubmit(&self, job: Job) {
        let mut state = self.lock();
        if state.closed {
            drop(state);
            return drop(job);
        }
        state.jobs.push_back(job);
        drop(state);
        self.changed.notify_one();
    }

    pub(super) fn is_closed(&self) -> bool {
        self.lock().closed
    }

    /// Takes no more. What waits is dropped.
    pub(super) fn close(&self) {
        let mut state = self.lock();
        state.closed = true;
        let dropped = std::mem::take(&mut state.jobs);
        drop(state);
        self.changed.notify_all();
        drop(dropped);
    }

    /// Carries out reads until the end.
    pub(super) fn run(&self) {
        let mut state = self.lock();
        loop {
            if let Some(job) = state.jobs.pop_front() {
                drop(state);
                // Whoever waits for it learns that there is no answer; the others are still to be served.
                if catch_unwind(AssertUnwindSafe(job)).is_err() {
                    tracing::error!("a read has panicked");
                }
                state = self.lock();
            } else if state.closed {
                return;
            } else {
                state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Readers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Readers").field("waiting_max", &self.waiting_max).finish_non_exhaustive()
    }
}
