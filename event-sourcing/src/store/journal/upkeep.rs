//! The thread that makes index files.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use super::event_log::IndexTask;

/// What is to be done in the background. There is at most one task for each segment without an index file.
#[derive(Debug, Default)]
pub(super) struct Upkeep {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    tasks: VecDeque<IndexTask>,
    closed: bool,
}

impl Upkeep {
    /// Replaces what is to be done.
    pub(super) fn put(&self, tasks: Vec<IndexTask>) {
        self.lock().tasks = tasks.into();
        self.changed.notify_one();
    }

    /// What was not begun is left to the next opening.
    pub(super) fn close(&self) {
        self.lock().closed = true;
        self.changed.notify_one();
    }

    pub(super) fn run(&self) {
        let mut state = self.lock();
        while !state.closed {
            if let Some(task) = state.tasks.pop_front() {
                drop(state);
                if let Err(error) = task.run() {
                    tracing::warn!(%error, "an index file could not be written");
                }
                state = self.lock();
            } else {
                state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
