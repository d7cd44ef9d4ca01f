//! Tells those who wait that the log has become longer.

use std::sync::{Mutex, PoisonError};

use futures::FutureExt;
use futures::channel::oneshot;

use crate::event::Position;
use crate::read::ReadError;
use crate::store::Pending;

/// The last durable position, and who waits for a later one. A backend calls [`Signal::advance`] after each commit.
#[derive(Debug)]
pub struct Signal(Mutex<State>);

#[derive(Debug)]
struct State {
    head: Position,
    closed: bool,
    waiting: Vec<(Position, oneshot::Sender<Position>)>,
    /// When so many wait, those are looked for that do not wait any more.
    clean_at: usize,
}

const CLEAN_AT_LEAST: usize = 64;

impl Signal {
    /// A signal for a log that ends here.
    #[must_use]
    pub fn new(head: Position) -> Self {
        let waiting = Vec::new();
        Self(Mutex::new(State { head, closed: false, waiting, clean_at: CLEAN_AT_LEAST }))
    }

    /// The last durable position.
    #[must_use]
    pub fn head(&self) -> Position {
        self.state().head
    }

    /// Says that everything up to `head` is durable. It never goes back.
    pub fn advance(&self, head: Position) {
        let woken: Vec<_> = {
            let mut state = self.state();
            if head <= state.head {
                return;
            }
            state.head = head;
            state.waiting.extract_if(.., |(position, _)| *position < head).collect()
        };
        // Outside the lock: a woken task may look at the head at once.
        for (_, waiting) in woken {
            // Whoever stopped waiting needs no answer.
            let _ = waiting.send(head);
        }
    }

    /// Ends all waiting, now and later, with [`ReadError::Closed`].
    pub fn close(&self) {
        let woken = {
            let mut state = self.state();
            state.closed = true;
            std::mem::take(&mut state.waiting)
        };
        // Outside the lock, for dropping them wakes those who wait.
        drop(woken);
    }

    /// Waits until the log is longer than `position`.
    pub fn wait_beyond(&self, position: Position) -> Pending<Result<Position, ReadError>> {
        let mut state = self.state();
        if state.closed {
            return futures::future::ready(Err(ReadError::Closed)).boxed();
        }
        if state.head > position {
            return futures::future::ready(Ok(state.head)).boxed();
        }
        if state.waiting.len() >= state.clean_at {
            state.waiting.retain(|(_, waiting)| !waiting.is_canceled());
            state.clean_at = (2 * state.waiting.len()).max(CLEAN_AT_LEAST);
        }
        let (sender, receiver) = oneshot::channel();
        state.waiting.push((position, sender));
        async move { receiver.await.map_err(|oneshot::Canceled| ReadError::Closed) }.boxed()
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        // Nothing panics in here while it holds the lock, and so the state is whole.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn those_are_woken_who_waited_for_less() {
        let signal = Signal::new(Position(5));
        let [mut near, mut far] = [5, 7].map(|position| signal.wait_beyond(Position(position)));
        assert!((&mut near).now_or_never().is_none());
        signal.advance(Position(7));
        assert_eq!(near.now_or_never().unwrap().unwrap(), Position(7));
        assert!((&mut far).now_or_never().is_none());
        signal.advance(Position(6));
        assert_eq!(signal.head(), Position(7), "it does not go back");
        signal.advance(Position(9));
        assert_eq!(far.now_or_never().unwrap().unwrap(), Position(9));
        assert_eq!(signal.wait_beyond(Position(8)).now_or_never().unwrap().unwrap(), Position(9));
    }

    #[test]
    fn closing_ends_all_waiting() {
        let signal = Signal::new(Position(1));
        let waiting = signal.wait_beyond(Position(1));
        signal.close();
        assert!(matches!(waiting.now_or_never(), Some(Err(ReadError::Closed))));
        let late = signal.wait_beyond(Position(0));
        assert!(matches!(late.now_or_never(), Some(Err(ReadError::Closed))));
    }

    #[test]
    fn those_who_stopped_waiting_are_forgotten() {
        let signal = Signal::new(Position(1));
        let kept = signal.wait_beyond(Position(1));
        for _ in 0..100_000 {
            drop(signal.wait_beyond(Position(1)));
        }
        assert!(signal.state().waiting.len() <= 2 * CLEAN_AT_LEAST);
        signal.advance(Position(2));
        assert!(kept.now_or_never().is_some());
    }
}
