//! Loading: one caller at a time for each key, stale values meanwhile, and what is known to be absent.

use std::convert::Infallible;
use std::future::Future;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::flight::{Leader, Seat};
use super::{ABSENT, Cache, VALUES};
use crate::store::Lifetime;
use crate::types::{Now, UnixMillis};
use crate::value::View;

/// How a key is loaded, and how long what was loaded is kept.
#[derive(Clone, Debug, Default)]
pub struct Load {
    /// How long it is fresh; None for as long as there is room.
    pub ttl: Option<Duration>,
    /// How much longer it may be handed out while it is loaded anew. Counts only with a TTL.
    pub stale: Duration,
    /// How long a key that has no value is not asked for again. Zero: not remembered.
    pub negative_ttl: Duration,
    /// By which it can be invalidated.
    pub tags: Vec<String>,
}

impl Load {
    /// Fresh for `ttl`, and then gone.
    #[must_use]
    pub fn for_ttl(ttl: Duration) -> Self {
        Self { ttl: Some(ttl), ..Self::default() }
    }

    /// Handed out for `stale` longer while somebody loads it anew.
    #[must_use]
    pub fn stale(mut self, stale: Duration) -> Self {
        self.stale = stale;
        self
    }

    /// A key without a value is remembered as such for `ttl`.
    #[must_use]
    pub fn negative_ttl(mut self, ttl: Duration) -> Self {
        self.negative_ttl = ttl;
        self
    }

    /// To be invalidated by `tag`, too.
    #[must_use]
    pub fn tag(mut self, tag: impl Into<String>) -> Self {
        self.tags.push(tag.into());
        self
    }
}

/// An infallible loader's result: for loaders that cannot fail.
pub type Loaded = Result<Option<Vec<u8>>, Infallible>;

/// What a look before a load finds.
enum Found {
    /// A value that is fresh.
    Fresh(Vec<u8>),
    /// A value that should be loaded anew.
    Stale(Vec<u8>),
    /// That there is none, by a negative entry.
    Absent,
    /// Nothing.
    Nothing,
}

impl Cache {
    /// What `key` holds; if nothing, what `load` brings, which is kept as `how` says. Only one caller at a time loads a key, and the
    /// others wait for it: see the head of the module.
    ///
    /// # Errors
    /// The loader's. What could not be kept, for want of room, is handed out all the same.
    pub fn get_or_load<E>(
        &self,
        key: &[u8],
        how: &Load,
        load: impl FnOnce() -> Result<Option<Vec<u8>>, E>,
    ) -> Result<Option<Vec<u8>>, E> {
        loop {
            let stale = match self.look(key, how) {
                Found::Fresh(value) => return Ok(Some(value)),
                Found::Absent => return Ok(None),
                Found::Stale(value) => Some(value),
                Found::Nothing => None,
            };
            match (self.inner.flights.join(key, &how.tags), stale) {
                (Seat::Leader(leader), stale) => {
                    if let Some(answer) = self.look_again(key, how, stale.is_some()) {
                        leader.leave();
                        return Ok(answer);
                    }
                    self.inner.loads.fetch_add(1, Ordering::Relaxed);
                    let guard = CountFailure::new(&self.inner.loads_failed);
                    let loaded = load();
                    return self.land(key, how, leader, loaded, stale, guard);
                }
                (Seat::Follower(_), Some(stale)) => return Ok(Some(stale)),
                (Seat::Follower(flight), None) => {
                    self.inner.waits.fetch_add(1, Ordering::Relaxed);
                    if let Some(value) = flight.wait() {
                        return Ok(value.map(|value| value.to_vec()));
                    }
                }
            }
        }
    }

    /// As [`Cache::get_or_load`], for a loader that is a future. Dropping the returned future gives the load up, and the next caller
    /// that waits begins its own. Needs no particular runtime.
    ///
    /// # Errors
    /// The loader's.
    pub async fn get_or_load_async<E, F>(
        &self,
        key: &[u8],
        how: &Load,
        load: impl FnOnce() -> F,
    ) -> Result<Option<Vec<u8>>, E>
    where
        F: Future<Output = Result<Option<Vec<u8>>, E>>,
    {
        loop {
            let stale = match self.look(key, how) {
                Found::Fresh(value) => return Ok(Some(value)),
                Found::Absent => return Ok(None),
                Found::Stale(value) => Some(value),
                Found::Nothing => None,
            };
            match (self.inner.flights.join(key, &how.tags), stale) {
                (Seat::Leader(leader), stale) => {
                    if let Some(answer) = self.look_again(key, how, stale.is_some()) {
                        leader.leave();
                        return Ok(answer);
                    }
                    self.inner.loads.fetch_add(1, Ordering::Relaxed);
                    let guard = CountFailure::new(&self.inner.loads_failed);
                    let loaded = load().await;
                    return self.land(key, how, leader, loaded, stale, guard);
                }
                (Seat::Follower(_), Some(stale)) => return Ok(Some(stale)),
                (Seat::Follower(flight), None) => {
                    self.inner.waits.fetch_add(1, Ordering::Relaxed);
                    if let Some(value) = flight.wait_async().await {
                        return Ok(value.map(|value| value.to_vec()));
                    }
                }
            }
        }
    }

    fn look(&self, key: &[u8], how: &Load) -> Found {
        let now = self.now();
        let place = self.inner.store.key(VALUES, key);
        let mut keys = self.lock(&place, now);
        let deadline = if how.stale.is_zero() { None } else { keys.deadline(&place).flatten() };
        let found = match keys.get(&place) {
            Some(View::String(bytes)) if is_stale(deadline, how, now) => {
                Found::Stale(bytes.to_vec())
            }
            Some(View::String(bytes)) => Found::Fresh(bytes.to_vec()),
            _ => {
                let absent = self.inner.knows_absent.load(Ordering::Relaxed)
                    && keys.peek(&self.inner.store.key(ABSENT, key)).is_some();
                if absent { Found::Absent } else { Found::Nothing }
            }
        };
        self.settle(keys);
        found
    }

    /// Between the look and taking the lead, another one may have loaded: what it brought, if that is so.
    fn look_again(&self, key: &[u8], how: &Load, stale: bool) -> Option<Option<Vec<u8>>> {
        match self.look(key, how) {
            Found::Fresh(value) => Some(Some(value)),
            Found::Absent if !stale => Some(None),
            _ => None,
        }
    }

    /// Keeps what was loaded and hands it to all who wait.
    fn land<E>(
        &self,
        key: &[u8],
        how: &Load,
        leader: Leader<'_>,
        loaded: Result<Option<Vec<u8>>, E>,
        stale: Option<Vec<u8>>,
        guard: CountFailure<'_>,
    ) -> Result<Option<Vec<u8>>, E> {
        let value = match (loaded, stale) {
            (Ok(value), _) => value,
            (Err(_), Some(stale)) => return Ok(Some(stale)),
            (Err(error), None) => return Err(error),
        };
        guard.none();
        if !leader.is_void() {
            match &value {
                Some(bytes) => {
                    let now = self.now();
                    let lifetime = how.ttl.map_or(Lifetime::Forever, |ttl| {
                        Lifetime::Until(now.unix.after(ttl.saturating_add(how.stale)))
                    });
                    // What cannot be kept is handed out all the same.
                    let _kept = self.set_until(key, bytes, lifetime, now);
                    self.note_tags(key, how.tags.iter().map(String::as_str));
                }
                None => {
                    self.remove_all(&[key]);
                    self.note_absent(key, how.negative_ttl);
                }
            }
            if leader.is_void() {
                // Invalidated just now: too late for the look above, and perhaps too early to have removed what was set since.
                self.remove_all(&[key]);
            }
        }
        leader.finish(value.as_deref());
        Ok(value)
    }
}

fn is_stale(deadline: Option<UnixMillis>, how: &Load, now: Now) -> bool {
    deadline.is_some_and(|at| u128::from(now.unix.until(at)) <= how.stale.as_millis())
}

/// Counts a load as failed unless it is told otherwise: a panic, or the end of a future, tells nobody.
struct CountFailure<'c> {
    counter: Option<&'c AtomicU64>,
}

impl<'c> CountFailure<'c> {
    fn new(counter: &'c AtomicU64) -> Self {
        Self { counter: Some(counter) }
    }

    fn none(mut self) {
        self.counter = None;
    }
}

impl Drop for CountFailure<'_> {
    fn drop(&mut self) {
        if let Some(counter) = self.counter {
            counter.fetch_add(1, Ordering::Relaxed);
        }
    }
}
