//! What waits to be sent to one peer: many put in, one link takes out.
//!
//! Which message leaves when, and which is dropped, is decided by the pure [`Lanes`]; here is the lock around them, the clock, and
//! the waiting. Whoever puts something in never waits.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

use super::lanes::{LaneLimits, Lanes};
use crate::message::Envelope;

/// Bounded lanes; many put in, one takes out.
#[derive(Debug)]
pub(super) struct Queue {
    lanes: Mutex<Lanes>,
    arrived: Notify,
    begun: Instant,
}

impl Queue {
    pub(super) fn new(limits: LaneLimits, gather: Duration) -> Self {
        let lanes = Mutex::new(Lanes::new(limits, gather));
        Self { lanes, arrived: Notify::new(), begun: Instant::now() }
    }

    /// Adds an envelope at the end of its lane; returns how many were dropped for want of room.
    pub(super) fn push(&self, envelope: Envelope) -> u64 {
        let now = self.begun.elapsed();
        let mut lanes = self.lock();
        let before = lanes.ready_at();
        let dropped = lanes.push(now, envelope);
        let is_news = before != lanes.ready_at();
        drop(lanes);
        if is_news {
            self.arrived.notify_one();
        }
        dropped
    }

    /// Takes the next urgent envelope.
    pub(super) fn pop_urgent(&self) -> Option<Envelope> {
        self.lock().pop_urgent()
    }

    /// Takes the next envelope with entries or pieces of a snapshot.
    pub(super) fn pop_bulk(&self) -> Option<Envelope> {
        self.lock().pop_bulk()
    }

    /// Returns once something is to leave. For one task at a time.
    pub(super) async fn ready(&self) {
        loop {
            let at = self.lock().ready_at();
            match at {
                None => self.arrived.notified().await,
                Some(at) => {
                    let Some(left) = at.checked_sub(self.begun.elapsed()) else { return };
                    if left.is_zero() {
                        return;
                    }
                    // Woken or late, we look again.
                    drop(tokio::time::timeout(left, self.arrived.notified()).await);
                }
            }
        }
    }

    /// Forgets everything that waits; says how many messages that was.
    pub(super) fn clear(&self) -> u64 {
        self.lock().clear()
    }

    fn lock(&self) -> MutexGuard<'_, Lanes> {
        // No code that holds the lock can leave the lanes half changed.
        self.lanes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
