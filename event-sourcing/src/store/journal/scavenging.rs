//! The thread that takes back space, at a bounded pace.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::FutureExt;
use futures::channel::oneshot;

use super::options::JournalStoreOptions;
use super::scavenge::ScavengeError;
use super::upkeep::Upkeep;
use super::writing::Queue;
use crate::read::ReadError;
use crate::store::Pending;

type Answer = oneshot::Sender<Result<u64, ScavengeError>>;

/// Takes back the space of hidden events: by itself now and then, and when asked to.
#[derive(Debug)]
pub(super) struct Scavenger {
    queue: Arc<Queue>,
    upkeep: Arc<Upkeep>,
    every: Option<Duration>,
    /// Bytes a second.
    rate: u64,
    /// Length of a segment in bytes.
    segment_size: u64,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    /// Who has asked for a pass, and whether for a thorough one. Those who ask while one goes on share the next.
    asked: Vec<Answer>,
    thorough: bool,
    closed: bool,
}

/// How a pass came about.
struct Pass {
    asked: Vec<Answer>,
    thorough: bool,
}

impl Scavenger {
    pub(super) fn new(
        queue: Arc<Queue>,
        upkeep: Arc<Upkeep>,
        options: &JournalStoreOptions,
    ) -> Self {
        Self {
            queue,
            upkeep,
            every: options.scavenge_every,
            rate: options.scavenge_rate.max(1),
            segment_size: options.segment_size,
            state: Mutex::default(),
            changed: Condvar::new(),
        }
    }

    /// Asks for a pass.
    pub(super) fn request(&self, thorough: bool) -> Pending<Result<u64, ScavengeError>> {
        let (answer, receiver) = oneshot::channel();
        let mut state = self.lock();
        if !state.closed {
            state.asked.push(answer);
            state.thorough |= thorough;
        }
        drop(state);
        self.changed.notify_one();
        receiver.map(move |answer| answer.unwrap_or_else(|_| Err(closed()))).boxed()
    }

    /// Ends after the segment under way.
    pub(super) fn close(&self) {
        self.lock().closed = true;
        self.changed.notify_one();
    }

    pub(super) fn run(&self) {
        while let Some(Pass { asked, thorough }) = self.next() {
            let is_asked = !asked.is_empty();
            let pass = AssertUnwindSafe(|| self.pass(thorough, is_asked));
            let Ok(result) = catch_unwind(pass) else {
                // Whoever asked learns that there is no answer, and the next pass has its turn.
                tracing::error!("taking back space has panicked");
                continue;
            };
            for answer in asked {
                // Whoever stopped waiting needs no answer.
                let _ = answer.send(result.clone());
            }
        }
    }

    /// Waits for the next pass; `None` at the end.
    fn next(&self) -> Option<Pass> {
        let mut state = self.lock();
        loop {
            if state.closed {
                let asked = std::mem::take(&mut state.asked);
                drop(state);
                // Outside the lock, for dropping them wakes those who wait.
                drop(asked);
                return None;
            }
            if !state.asked.is_empty() {
                let asked = std::mem::take(&mut state.asked);
                return Some(Pass { asked, thorough: std::mem::take(&mut state.thorough) });
            }
            let (held, timed_out) = self.wait(state, self.every);
            state = held;
            if timed_out && !state.closed && state.asked.is_empty() {
                return Some(Pass { asked: Vec::new(), thorough: false });
            }
        }
    }

    fn wait<'a>(
        &self,
        state: MutexGuard<'a, State>,
        most: Option<Duration>,
    ) -> (MutexGuard<'a, State>, bool) {
        match most {
            None => (self.changed.wait(state).unwrap_or_else(PoisonError::into_inner), false),
            Some(most) => {
                let waited = self.changed.wait_timeout(state, most);
                let (state, timeout) = waited.unwrap_or_else(PoisonError::into_inner);
                (state, timeout.timed_out())
            }
        }
    }

    /// Goes through all complete segments. What stands in the way of one does not stop the others; the first such error is returned.
    fn pass(&self, thorough: bool, asked: bool) -> Result<u64, ScavengeError> {
        let segments = self.queue.ask(|log| log.scavengeable()).ok_or_else(closed)?;
        let (mut events, mut first_error) = (0, None);
        for segment in segments {
            if self.lock().closed {
                return Err(closed());
            }
            match self.scavenge(segment, thorough) {
                Ok(count) => events += count,
                Err(error) => {
                    tracing::warn!(segment, %error, "the space of a segment was not taken back");
                    first_error.get_or_insert(error);
                }
            }
            // Whoever asked is waiting for it.
            if !asked {
                let pause =
                    Duration::from_millis(self.segment_size.saturating_mul(1000) / self.rate);
                let state = self.lock();
                if !state.closed {
                    drop(self.wait(state, Some(pause)));
                }
            }
        }
        first_error.map_or(Ok(events), Err)
    }

    fn scavenge(&self, segment: u64, thorough: bool) -> Result<u64, ScavengeError> {
        let task = self.queue.ask(move |log| log.scavenger(segment, thorough));
        let task = task.ok_or_else(closed)?;
        let Some(scavenged) = task.map(|task| task.run()).transpose()?.flatten() else {
            return Ok(0);
        };
        let events = scavenged.events;
        let reload = self.queue.ask(move |log| log.install(scavenged)).ok_or_else(closed)?;
        reload?.run()?;
        // Now there is an index that wants a file. Should the store be closed, the next opening makes it.
        if let Some(tasks) = self.queue.ask(|log| log.upkeep()) {
            self.upkeep.put(tasks);
        }
        Ok(events)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The store was closed before the pass was over.
fn closed() -> ScavengeError {
    ScavengeError::Read(ReadError::Closed)
}
