//! Seeded chance: named streams and the few draws that a simulation needs.
//!
//! Every subsystem of a run (the scheduler, the network, each disk, the faults, each process) draws from a ChaCha8
//! stream of its own. All streams share the key that the run's seed gives and differ in ChaCha's stream number, so a
//! draw more in one of them never shifts what another one sees. Draws use integers only: the same seed gives the same
//! run on every machine.

use std::fmt;
use std::time::Duration;

pub use rand_chacha::ChaCha8Rng;
pub use rand_core::{Rng, SeedableRng};
use xxhash_rust::xxh3::xxh3_64;

/// The stream of `subsystem` number `index` in the run of `seed`.
///
/// ```
/// use lattice_sim::random::{Rng, stream};
/// assert_eq!(stream(7, "disk", 1).next_u64(), stream(7, "disk", 1).next_u64());
/// assert_ne!(stream(7, "disk", 1).next_u64(), stream(7, "disk", 2).next_u64());
/// ```
pub fn stream(seed: u64, subsystem: &str, index: u64) -> ChaCha8Rng {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    rng.set_stream(xxh3_64(subsystem.as_bytes()) ^ xxh3_64(&index.to_le_bytes()));
    rng
}

/// A number under `bound`; 0 if `bound` is 0.
pub fn below(rng: &mut impl Rng, bound: u64) -> u64 {
    // Lemire's multiplication without its rejection step: the bias is under bound / 2^64.
    let product = u128::from(rng.next_u64()) * u128::from(bound);
    u64::try_from(product >> 64).expect("the high half of a 128-bit product has 64 bits")
}

/// A number from `low` to `high`, both included; `low` if `high` is smaller.
pub fn between(rng: &mut impl Rng, low: u64, high: u64) -> u64 {
    if high <= low { low } else { low + below(rng, (high - low).saturating_add(1)) }
}

/// An index into something of `length` items.
///
/// # Panics
/// If `length` is 0.
pub fn index(rng: &mut impl Rng, length: usize) -> usize {
    assert!(length > 0, "cannot choose from nothing");
    let bound = u64::try_from(length).expect("a length fits into 64 bits");
    usize::try_from(below(rng, bound)).expect("smaller than a length")
}

/// Puts `items` into a random order (Fisher–Yates).
pub fn shuffle<T>(rng: &mut impl Rng, items: &mut [T]) {
    for last in (1..items.len()).rev() {
        let other = index(rng, last + 1);
        items.swap(last, other);
    }
}

/// A probability in steps of one millionth.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Chance(u32);

impl Chance {
    /// It never happens, and asking draws nothing.
    pub const NEVER: Self = Self(0);
    /// It always happens, and asking draws nothing.
    pub const ALWAYS: Self = Self(1_000_000);

    /// So many times in a hundred; at most 100.
    pub const fn percent(percent: u32) -> Self {
        Self::per_million(percent.saturating_mul(10_000))
    }

    /// So many times in a million; at most a million.
    pub const fn per_million(times: u32) -> Self {
        if times > 1_000_000 { Self::ALWAYS } else { Self(times) }
    }

    /// Whether it happens this time.
    pub fn happens(self, rng: &mut impl Rng) -> bool {
        match self {
            Self::NEVER => false,
            Self::ALWAYS => true,
            Self(times) => below(rng, 1_000_000) < u64::from(times),
        }
    }
}

impl fmt::Display for Chance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (whole, part) = (self.0 / 10_000, self.0 % 10_000);
        if part == 0 { write!(f, "{whole}%") } else { write!(f, "{whole}.{part:04}%") }
    }
}

/// A length of time that is drawn anew each time, between two bounds, both included.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Span {
    /// The shortest.
    pub min: Duration,
    /// The longest; one that is under `min` counts as `min`.
    pub max: Duration,
}

impl Span {
    /// No time at all; drawing it draws nothing.
    pub const ZERO: Self = Self { min: Duration::ZERO, max: Duration::ZERO };

    /// Between two lengths.
    pub const fn new(min: Duration, max: Duration) -> Self {
        Self { min, max }
    }

    /// Between two numbers of microseconds.
    pub const fn micros(min: u64, max: u64) -> Self {
        Self::new(Duration::from_micros(min), Duration::from_micros(max))
    }

    /// Between two numbers of milliseconds.
    pub const fn millis(min: u64, max: u64) -> Self {
        Self::new(Duration::from_millis(min), Duration::from_millis(max))
    }

    /// Draws a length.
    pub fn draw(self, rng: &mut impl Rng) -> Duration {
        Duration::from_nanos(between(rng, nanos(self.min), nanos(self.max)))
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}..{:?}", self.min, self.max)
    }
}

/// A duration in nanoseconds; what is longer than 584 years counts as that.
pub(crate) fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn draws_stay_within_their_bounds() {
        let mut rng = stream(1, "test", 0);
        for _ in 0..1_000 {
            assert!(below(&mut rng, 3) < 3);
            assert!((5..=9).contains(&between(&mut rng, 5, 9)));
            assert!(index(&mut rng, 4) < 4);
        }
        assert_eq!(between(&mut rng, 9, 5), 9);
        assert_eq!(below(&mut rng, 0), 0);
    }

    #[test]
    fn chance_is_near_what_it_says() {
        let mut rng = stream(1, "test", 0);
        let hits = (0..100_000).filter(|_| Chance::percent(20).happens(&mut rng)).count();
        assert!((19_000..21_000).contains(&hits), "{hits}");
        assert!(Chance::percent(400).happens(&mut rng));
        assert!(!Chance::NEVER.happens(&mut rng));
    }

    #[test]
    fn certain_chances_draw_nothing() {
        let (mut one, mut other) = (stream(1, "test", 0), stream(1, "test", 0));
        assert!(Chance::ALWAYS.happens(&mut one) && !Chance::NEVER.happens(&mut one));
        assert_eq!(Span::ZERO.draw(&mut one), Duration::ZERO);
        assert_eq!(one.next_u64(), other.next_u64());
    }

    #[test]
    fn shuffle_keeps_every_item() {
        let mut items: Vec<u32> = (0..50).collect();
        shuffle(&mut stream(1, "test", 0), &mut items);
        assert_ne!(items, (0..50).collect::<Vec<_>>());
        items.sort_unstable();
        assert_eq!(items, (0..50).collect::<Vec<_>>());
    }
}
