//! Single flight: of all who want to load a key at one time, one does.
//!
//! The first to ask becomes the *leader* of a flight, whoever comes before it has landed is a *follower*. The leader's [`Leader`] is the
//! right to load; dropping it, by failure, panic, or the end of a future, ends the flight without a result, and all followers
//! are woken to begin anew: one of them leads. No lock is held while a loader runs.

use std::collections::BTreeMap;
use std::future::poll_fn;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::task::{Poll, Waker};

/// What a flight brought: a value, or that there is none. Nothing if it failed.
pub(super) type Landed = Option<Option<Arc<[u8]>>>;

#[derive(Debug, Default)]
struct Progress {
    /// None while it is under way.
    landed: Option<Landed>,
    wakers: Vec<Waker>,
}

/// One load under way.
#[derive(Debug, Default)]
pub(super) struct Flight {
    progress: Mutex<Progress>,
    changed: Condvar,
    /// What it brings is out of date already.
    void: AtomicBool,
    tags: Vec<String>,
}

impl Flight {
    fn progress(&self) -> MutexGuard<'_, Progress> {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn land(&self, landed: Landed) {
        let wakers = {
            let mut progress = self.progress();
            progress.landed = Some(landed);
            std::mem::take(&mut progress.wakers)
        };
        self.changed.notify_all();
        wakers.into_iter().for_each(Waker::wake);
    }

    /// Waits until it has landed.
    pub(super) fn wait(&self) -> Landed {
        let mut progress = self.progress();
        loop {
            if let Some(landed) = &progress.landed {
                return landed.clone();
            }
            progress = self.changed.wait(progress).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Waits, as a future, until it has landed.
    pub(super) async fn wait_async(&self) -> Landed {
        poll_fn(|context| {
            let mut progress = self.progress();
            if let Some(landed) = &progress.landed {
                return Poll::Ready(landed.clone());
            }
            if !progress.wakers.iter().any(|waker| waker.will_wake(context.waker())) {
                progress.wakers.push(context.waker().clone());
            }
            Poll::Pending
        })
        .await
    }
}

/// All loads under way, by key.
#[derive(Debug, Default)]
pub(super) struct Flights {
    flights: Mutex<BTreeMap<Box<[u8]>, Arc<Flight>>>,
}

/// What somebody who wants to load is.
pub(super) enum Seat<'f> {
    /// The one who does.
    Leader(Leader<'f>),
    /// One who waits.
    Follower(Arc<Flight>),
}

impl Flights {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<Box<[u8]>, Arc<Flight>>> {
        self.flights.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Joins the flight of `key`, or begins it.
    pub(super) fn join(&self, key: &[u8], tags: &[String]) -> Seat<'_> {
        let mut flights = self.lock();
        if let Some(flight) = flights.get(key) {
            return Seat::Follower(Arc::clone(flight));
        }
        let flight = Arc::new(Flight { tags: tags.to_vec(), ..Flight::default() });
        flights.insert(key.into(), Arc::clone(&flight));
        Seat::Leader(Leader { flights: self, key: key.into(), flight, landed: None })
    }

    /// Marks the flights that `which` names, by key and tags: what they bring is not kept. Whoever asks from now on starts anew.
    pub(super) fn void(&self, which: impl Fn(&[u8], &[String]) -> bool) {
        self.lock().retain(|key, flight| {
            let void = which(key, &flight.tags);
            if void {
                flight.void.store(true, Ordering::SeqCst);
            }
            !void
        });
    }
}

/// The right to load a key. Dropped without a result, the flight has failed.
pub(super) struct Leader<'f> {
    flights: &'f Flights,
    key: Box<[u8]>,
    flight: Arc<Flight>,
    landed: Landed,
}

impl Leader<'_> {
    /// Whether what it brings is out of date already.
    pub(super) fn is_void(&self) -> bool {
        self.flight.void.load(Ordering::SeqCst)
    }

    /// Hands what was loaded to all followers.
    pub(super) fn finish(mut self, value: Option<&[u8]>) {
        self.landed = Some(value.map(Arc::from));
    }

    /// Ends the flight: followers find for themselves what there is.
    pub(super) fn leave(self) {}
}

impl Drop for Leader<'_> {
    fn drop(&mut self) {
        let mut flights = self.flights.lock();
        // A void flight is not in the list any more, and another may be under its key.
        if flights.get(&self.key).is_some_and(|flight| Arc::ptr_eq(flight, &self.flight)) {
            flights.remove(&self.key);
        }
        drop(flights);
        self.flight.land(self.landed.take());
    }
}
