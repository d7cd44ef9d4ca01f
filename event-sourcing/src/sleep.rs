//! How an edge waits for time to pass without belonging to a runtime.

use std::collections::BTreeMap;
use std::sync::{Condvar, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use futures::FutureExt;
use futures::channel::oneshot;

use crate::clock::{Clock, ManualClock, SystemClock};
use crate::event::Timestamp;
use crate::store::Pending;

/// A clock that can also be waited for. A program with a runtime may implement it by the runtime's timer.
pub trait Sleep: Clock {
    /// Ends after `how_long`.
    fn sleep(&self, how_long: Duration) -> Pending<()>;
}

/// One thread waits for all, from the first sleep on.
impl Sleep for SystemClock {
    fn sleep(&self, how_long: Duration) -> Pending<()> {
        sleepers().add(how_long).map(drop).boxed()
    }
}

/// Nobody turns a clock that is set by hand while everybody sleeps: the sleep turns it, and is over at once.
impl Sleep for ManualClock {
    fn sleep(&self, how_long: Duration) -> Pending<()> {
        self.advance(how_long);
        futures::future::ready(()).boxed()
    }
}

/// Who sleeps, by when they are to be woken; the number tells those apart who are woken together.
#[derive(Debug, Default)]
struct Sleepers {
    asleep: Mutex<BTreeMap<(Instant, u64), oneshot::Sender<()>>>,
    changed: Condvar,
}

/// The longest sleep: an [`Instant`] has an end.
const SLEEP_MAX: Duration = Duration::from_secs(60 * 60 * 24);
/// When so many sleep, those are looked for who do not any more.
const CLEAN_EVERY: usize = 1024;

fn sleepers() -> &'static Sleepers {
    static SLEEPERS: OnceLock<Sleepers> = OnceLock::new();
    static THREAD: OnceLock<()> = OnceLock::new();
    let sleepers = SLEEPERS.get_or_init(Sleepers::default);
    THREAD.get_or_init(|| {
        // Without a thread to be had nobody could be woken, and a program that cannot have one thread has no way to go on.
        let thread = std::thread::Builder::new().name("sleepers".to_owned());
        drop(thread.spawn(|| sleepers.wake()).expect("the system has a thread left"));
    });
    sleepers
}

impl Sleepers {
    #[expect(clippy::disallowed_methods, reason = "this is the edge where time passes")]
    fn add(&self, how_long: Duration) -> oneshot::Receiver<()> {
        let (sender, receiver) = oneshot::channel();
        let at = Instant::now() + how_long.min(SLEEP_MAX);
        let mut asleep = self.asleep.lock().unwrap_or_else(PoisonError::into_inner);
        if asleep.len() % CLEAN_EVERY == CLEAN_EVERY - 1 {
            asleep.retain(|_, sender| !sender.is_canceled());
        }
        let taken = asleep.range((at, 0)..=(at, u64::MAX)).next_back();
        let number = taken.map_or(0, |(&(_, number), _)| number + 1);
        asleep.insert((at, number), sender);
        drop(asleep);
        self.changed.notify_one();
        receiver
    }

    #[expect(clippy::disallowed_methods, reason = "this is the edge where time passes")]
    fn wake(&self) -> ! {
        let mut asleep = self.asleep.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            let now = Instant::now();
            let later = asleep.split_off(&(now, u64::MAX));
            let due = std::mem::replace(&mut *asleep, later);
            if !due.is_empty() {
                // Outside the lock: who is woken may go to sleep again at once.
                drop(asleep);
                for sender in due.into_values() {
                    // Whoever stopped waiting needs no answer.
                    let _ = sender.send(());
                }
                asleep = self.asleep.lock().unwrap_or_else(PoisonError::into_inner);
                continue;
            }
            let next = asleep.first_key_value().map_or(SLEEP_MAX, |(&(at, _), _)| at - now);
            let waited = self.changed.wait_timeout(asleep, next);
            asleep = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

/// A time that much later.
pub(crate) fn later(now: Timestamp, by: Duration) -> Timestamp {
    Timestamp(now.0.saturating_add(u64::try_from(by.as_millis()).unwrap_or(u64::MAX)))
}

/// How long it is until then.
pub(crate) fn until(now: Timestamp, then: Timestamp) -> Duration {
    Duration::from_millis(then.0.saturating_sub(now.0))
}

#[cfg(test)]
mod tests {
    use futures::executor::block_on;
    use futures::future::join_all;

    use super::*;

    #[test]
    #[expect(clippy::disallowed_methods, reason = "what is tested is that real time passes")]
    fn every_sleep_ends_and_none_too_early() {
        let sleeps = [30, 10, 20, 10].map(|millis| async move {
            let how_long = Duration::from_millis(millis);
            let began = Instant::now();
            SystemClock.sleep(how_long).await;
            assert!(began.elapsed() >= how_long, "woken early from {how_long:?}");
        });
        block_on(join_all(sleeps));
    }
}
