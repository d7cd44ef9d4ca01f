//! The thread that writes the files that nothing depends on.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use super::tasks::UpkeepTask;

/// What is to be written in the background. There are at most two tasks for each segment.
#[derive(Debug, Default)]
pub(super) struct Upkeep {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    tasks: VecDeque<UpkeepTask>,
    closed: bool,
}

impl Upkeep {
    /// Adds to what is to be done. An index file that is named twice is written once, for the second time it is there.
    pub(super) fn put(&self, tasks: Vec<UpkeepTask>) {
        let mut state = self.lock();
        if !state.closed {
            state.tasks.extend(tasks);
        }
        drop(state);
        self.changed.notify_one();
    }

    /// What was not begun is left to the next opening.
    pub(super) fn close(&self) {
        let mut state = self.lock();
        state.closed = true;
        // A task counts as a use of the directory.
        let dropped = std::mem::take(&mut state.tasks);
        drop(state);
        self.changed.notify_one();
        drop(dropped);
    }

    pub(super) fn run(&self) {
        let mut state = self.lock();
        while !state.closed {
            if let Some(task) = state.tasks.pop_front() {
                drop(state);
                // Nothing depends on one file: the others are written whatever becomes of it.
                match catch_unwind(AssertUnwindSafe(|| task.run())) {
                    Ok(Ok(())) => {}
                    Ok(Err(error)) => {
                        tracing::warn!(%error, "a file of the index could not be written");
                    }
                    Err(_) => tracing::error!("writing a file of the index has panicked"),
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
