//! Timing wheels: which cells to look at when.
//!
//! A hierarchical wheel (Varghese and Lauck, 1987) of 256 buckets a level, in ticks of [`TICK_MS`]. An element is nothing but a
//! cell's handle, filed at the tick at which the cell has to be looked at; about 4.3 bytes with its share of the chunks that
//! buckets are chained from. Levels are made as they are needed and reach as far as 64 bits of ticks do, so there is no moment
//! that a wheel cannot file. The clock may jump: the wheel goes from one occupied bucket to the next and never counts ticks.
//!
//! Elements are not removed when a cell is freed, moved, or gets another deadline. Whoever takes an element looks at the cell and
//! expires it, files it anew, or drops the element. What must hold is only this: **a live cell with a deadline has an element no
//! later than the deadline's tick.** So a deadline that moves away needs nothing, and one that comes nearer one element more.
//!
//! When stale elements outnumber the others, the wheel is swept: it becomes the *old* one and its elements are filed anew bit by
//! bit. A mark in the cell, of the wheel that it was last filed in, keeps a cell from being filed twice.

use crate::types::UnixMillis;

/// A tick in milliseconds: how late a key may be reclaimed at most, budget aside.
pub(super) const TICK_MS: u64 = 8;

const BUCKETS: usize = 256;
const DIGIT_BITS: u32 = 8;

/// Elements of a chunk; its last word is the next chunk.
const CHUNK: usize = 15;

/// Chunks are made so many at a time: 4 KiB.
const PAGE: usize = 64;

/// A bucket's or a chain's head: the number of its first chunk above four bits that count the elements in it. 0 is an empty chain:
/// chunk number 0 is never used.
type Chain = u32;

const COUNT_BITS: u32 = 4;

/// The count of a full chunk: all of the bits.
const FULL: u32 = (1 << COUNT_BITS) - 1;

const _: () = assert!(FULL as usize == CHUNK, "a full chunk fills the count's bits");

/// The first tick at which `deadline` has passed.
fn tick_of(deadline: UnixMillis) -> u64 {
    deadline.0.div_ceil(TICK_MS)
}

/// The elements of a shard.
#[derive(Debug, Default)]
pub(super) struct Expiry {
    wheel: Wheel,
    old: Option<Box<Wheel>>,
    epoch: bool,
}

/// A cell to look at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Element {
    /// Which.
    pub(super) handle: u32,
    /// Whether it comes from the wheel that is being swept: then a cell with the mark [`Expiry::epoch`] is filed already.
    pub(super) swept: bool,
}

impl Expiry {
    /// The mark that a cell has to get when it is filed.
    pub(super) fn epoch(&self) -> bool {
        self.epoch
    }

    /// Files a cell to be looked at when `deadline` has passed. The caller marks the cell.
    pub(super) fn file(&mut self, handle: u32, deadline: UnixMillis, now: UnixMillis) {
        if deadline <= now {
            self.wheel.file_due(handle);
        } else {
            self.wheel.file(handle, tick_of(deadline), now);
        }
    }

    /// An element that is due at `now`.
    pub(super) fn next(&mut self, now: UnixMillis) -> Option<Element> {
        let tick = now.0 / TICK_MS;
        if let Some(old) = &mut self.old
            && let Some(handle) = old.next(tick)
        {
            return Some(Element { handle, swept: true });
        }
        self.wheel.next(tick).map(|handle| Element { handle, swept: false })
    }

    /// An element of the wheel that is being swept, whenever it is due.
    pub(super) fn sweep(&mut self) -> Option<Element> {
        let handle = self.old.as_mut()?.next(u64::MAX);
        if handle.is_none() {
            self.old = None;
        }
        handle.map(|handle| Element { handle, swept: true })
    }

    /// Begins a sweep if elements that are not needed outnumber the `needed` ones.
    pub(super) fn review(&mut self, needed: usize) {
        let wasteful = self.wheel.elements > 2 * needed + 1024
            || self.wheel.heap_bytes() > 64 * 1024 + 16 * (needed + BUCKETS * CHUNK);
        if wasteful && self.old.is_none() {
            self.old = Some(Box::new(std::mem::take(&mut self.wheel)));
            self.epoch = !self.epoch;
        }
    }

    /// Up to `count` cells with the nearest deadlines, about: of the first bucket that has any.
    pub(super) fn nearest(&self, count: usize, found: &mut Vec<u32>) {
        let wheel = self.old.as_ref().filter(|old| old.elements > 0).map_or(&self.wheel, |old| old);
        wheel.nearest(count, found);
    }

    /// Up to `count` elements from a place that `draw` decides.
    pub(super) fn sample(&self, draw: u64, count: usize, found: &mut Vec<u32>) {
        let wheels = [Some(&self.wheel), self.old.as_deref()];
        for wheel in wheels.into_iter().flatten() {
            wheel.pool.sample(draw, count, found);
        }
    }

    /// Bytes on the heap.
    pub(super) fn heap_bytes(&self) -> usize {
        self.wheel.heap_bytes()
            + self.old.as_ref().map_or(0, |old| old.heap_bytes() + size_of::<Wheel>())
    }

    /// Removes all elements.
    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }

    /// All elements with the tick from which on they are looked at, and whether they are being swept.
    #[cfg(any(test, feature = "sim"))]
    pub(super) fn elements(&self) -> Vec<(u32, u64, bool)> {
        let mut all = self.wheel.all(false);
        if let Some(old) = &self.old {
            all.extend(old.all(true));
        }
        all
    }

    /// The tick of a deadline.
    #[cfg(any(test, feature = "sim"))]
    pub(super) fn tick(deadline: UnixMillis) -> u64 {
        tick_of(deadline)
    }
}

#[derive(Debug)]
struct Level {
    buckets: [Chain; BUCKETS],
    occupied: [u64; BUCKETS / 64],
}

impl Level {
    /// The first occupied bucket after number `after`.
    fn next_after(&self, after: usize) -> Option<usize> {
        let from = after + 1;
        let mut word = from / 64;
        let mut bits = self.occupied.get(word)? & (u64::MAX << (from % 64));
        while bits == 0 {
            word += 1;
            bits = *self.occupied.get(word)?;
        }
        Some(word * 64 + bits.trailing_zeros() as usize)
    }
}

#[derive(Debug, Default)]
struct Wheel {
    /// Everything up to this tick has been taken out. An element of level n agrees with it in all digits above the n-th, and
    /// is greater in that one.
    current: u64,
    levels: Vec<Level>,
    pool: Pool,
    /// What is left of the bucket that was reached last.
    pending: Chain,
    elements: usize,
}

fn digit(tick: u64, level: usize) -> usize {
    usize::from(tick.to_le_bytes()[level])
}

/// `tick` with digit number `level` replaced and those below it 0.
fn with_digit(tick: u64, level: usize, value: usize) -> u64 {
    let mut bytes = tick.to_le_bytes();
    bytes[..level].fill(0);
    bytes[level] = u8::try_from(value).expect("a level has 256 buckets");
    u64::from_le_bytes(bytes)
}

impl Wheel {
    fn file(&mut self, handle: u32, tick: u64, now: UnixMillis) {
        if self.elements == 0 {
            self.current = self.current.max(now.0 / TICK_MS);
        }
        let tick = tick.max(self.current.saturating_add(1));
        self.elements += 1;
        let differing = tick ^ self.current;
        if differing == 0 {
            // The last tick there is: to be looked at whenever the wheel is.
            self.pending = self.pool.push(self.pending, handle);
            return;
        }
        let level = (differing.ilog2() / DIGIT_BITS) as usize;
        while self.levels.len() <= level {
            self.levels.push(Level { buckets: [0; BUCKETS], occupied: [0; BUCKETS / 64] });
        }
        let bucket = digit(tick, level);
        let level = &mut self.levels[level];
        level.buckets[bucket] = self.pool.push(level.buckets[bucket], handle);
        level.occupied[bucket / 64] |= 1 << (bucket % 64);
    }

    /// Files an element that is due already: a cell that was moved before anybody looked at it.
    fn file_due(&mut self, handle: u32) {
        self.pending = self.pool.push(self.pending, handle);
        self.elements += 1;
    }

    /// The next occupied bucket: its level, its number, and the tick at which it begins.
    fn next_bucket(&self) -> Option<(usize, usize, u64)> {
        self.levels.iter().enumerate().find_map(|(number, level)| {
            let bucket = level.next_after(digit(self.current, number))?;
            Some((number, bucket, with_digit(self.current, number, bucket)))
        })
    }

    fn next(&mut self, target: u64) -> Option<u32> {
        loop {
            if self.pending != 0 {
                let (handle, rest) = self.pool.pop(self.pending);
                self.pending = rest;
                self.elements -= 1;
                return Some(handle);
            }
            match self.next_bucket() {
                Some((number, bucket, start)) if start <= target => {
                    self.current = start;
                    let level = &mut self.levels[number];
                    self.pending = std::mem::take(&mut level.buckets[bucket]);
                    level.occupied[bucket / 64] &= !(1 << (bucket % 64));
                }
                _ => {
                    // Nothing begins until the target, so all elements stay greater than it.
                    self.current = self.current.max(target);
                    return None;
                }
            }
        }
    }

    fn nearest(&self, count: usize, found: &mut Vec<u32>) {
        let bucket =
            self.next_bucket().map(|(level, bucket, _)| self.levels[level].buckets[bucket]);
        for chain in [Some(self.pending), bucket].into_iter().flatten() {
            self.pool.walk(chain, |handle| {
                found.push(handle);
                found.len() < count
            });
        }
    }

    fn heap_bytes(&self) -> usize {
        self.levels.capacity() * size_of::<Level>() + self.pool.heap_bytes()
    }

    #[cfg(any(test, feature = "sim"))]
    fn all(&self, swept: bool) -> Vec<(u32, u64, bool)> {
        let mut all = Vec::new();
        let mut collect = |chain, tick| {
            self.pool.walk(chain, |handle| {
                all.push((handle, tick, swept));
                true
            });
        };
        collect(self.pending, 0);
        for (number, level) in self.levels.iter().enumerate() {
            for (bucket, chain) in level.buckets.iter().enumerate() {
                let occupied = level.occupied[bucket / 64] >> (bucket % 64) & 1 == 1;
                assert_eq!(occupied, *chain != 0, "a level knows its occupied buckets");
                assert!(!occupied || bucket > digit(self.current, number), "no element is behind");
                collect(*chain, with_digit(self.current, number, bucket));
            }
        }
        assert_eq!(all.len(), self.elements, "a wheel counts its elements");
        all
    }
}

/// Chunks of elements.
#[derive(Debug, Default)]
struct Pool {
    pages: Vec<Box<[[u32; CHUNK + 1]; PAGE]>>,
    /// The first free chunk, 0 for none.
    free: u32,
    /// How many chunks were ever used, number 0 included.
    used: u32,
}

impl Pool {
    fn chunk(&self, number: u32) -> &[u32; CHUNK + 1] {
        &self.pages[number as usize / PAGE][number as usize % PAGE]
    }

    fn chunk_mut(&mut self, number: u32) -> &mut [u32; CHUNK + 1] {
        &mut self.pages[number as usize / PAGE][number as usize % PAGE]
    }

    /// A free chunk that is followed by `next`.
    fn take(&mut self, next: u32) -> u32 {
        let number = if self.free == 0 {
            self.used = self.used.max(1);
            if self.used as usize >= self.pages.len() * PAGE {
                self.pages.push(Box::new([[0; CHUNK + 1]; PAGE]));
            }
            self.used += 1;
            assert!(
                self.used < 1 << (u32::BITS - COUNT_BITS),
                "under four thousand million elements"
            );
            self.used - 1
        } else {
            let number = self.free;
            self.free = self.chunk(number)[CHUNK];
            number
        };
        self.chunk_mut(number)[CHUNK] = next;
        number
    }

    fn push(&mut self, chain: Chain, handle: u32) -> Chain {
        let (number, count) = (chain >> COUNT_BITS, chain & FULL);
        let (number, count) = if count as usize == CHUNK || chain == 0 {
            (self.take(number), 0)
        } else {
            (number, count)
        };
        self.chunk_mut(number)[count as usize] = handle;
        (number << COUNT_BITS) | (count + 1)
    }

    /// Takes an element off a chain that is not empty. Chunks after the first are full.
    fn pop(&mut self, chain: Chain) -> (u32, Chain) {
        let (number, count) = (chain >> COUNT_BITS, chain & FULL);
        let chunk = self.chunk(number);
        let (handle, next) = (chunk[count as usize - 1], chunk[CHUNK]);
        if count > 1 {
            return (handle, chain - 1);
        }
        let free = std::mem::replace(&mut self.free, number);
        self.chunk_mut(number)[CHUNK] = free;
        (handle, if next == 0 { 0 } else { (next << COUNT_BITS) | FULL })
    }

    fn walk(&self, mut chain: Chain, mut visit: impl FnMut(u32) -> bool) {
        while chain != 0 {
            let chunk = self.chunk(chain >> COUNT_BITS);
            for handle in &chunk[..(chain & FULL) as usize] {
                if !visit(*handle) {
                    return;
                }
            }
            let next = chunk[CHUNK];
            chain = if next == 0 { 0 } else { (next << COUNT_BITS) | FULL };
        }
    }

    /// Elements of neighbouring chunks, some of which may be free and hold what they held last.
    fn sample(&self, draw: u64, count: usize, found: &mut Vec<u32>) {
        if self.used <= 1 {
            return;
        }
        let chunks = u64::from(self.used - 1);
        for step in 0..chunks.min(4) {
            let number = 1 + (draw % chunks + step) % chunks;
            let number = u32::try_from(number).expect("below a number of chunks");
            for handle in &self.chunk(number)[..CHUNK] {
                if found.len() == count {
                    return;
                }
                if *handle != 0 {
                    found.push(*handle);
                }
            }
        }
    }

    fn heap_bytes(&self) -> usize {
        self.pages.len() * size_of::<[[u32; CHUNK + 1]; PAGE]>()
            + self.pages.capacity() * size_of::<usize>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::statistics::next_random;

    /// Files elements with random deadlines, moves the clock in random steps, and sees when each comes out.
    fn run(seed: u64, start: u64, spread: u32) {
        let mut wheel = Wheel::default();
        let mut random = seed;
        let mut now = start;
        let mut deadlines = vec![None];
        let mut left = 0;
        for round in 0..3_000 {
            for _ in 0..next_random(&mut random) % 4 {
                let away =
                    next_random(&mut random) >> (next_random(&mut random) % u64::from(spread));
                let deadline =
                    UnixMillis(now.saturating_add(1).saturating_add(away >> (64 - spread)));
                wheel.file(
                    u32::try_from(deadlines.len()).unwrap(),
                    tick_of(deadline),
                    UnixMillis(now),
                );
                deadlines.push(Some(deadline));
                left += 1;
            }
            if round > 2_500 {
                now = now.saturating_add(1 << (spread - 4));
            } else {
                let step = next_random(&mut random)
                    >> (64 - next_random(&mut random) % u64::from(spread) - 1);
                now = now.saturating_add(step);
            }
            while let Some(handle) = wheel.next(now / TICK_MS) {
                let deadline = deadlines[handle as usize].unwrap();
                if deadline.0 <= now {
                    deadlines[handle as usize] = None;
                    left -= 1;
                } else {
                    wheel.file(handle, tick_of(deadline), UnixMillis(now));
                }
            }
            assert_eq!(wheel.elements, left);
            assert_eq!(wheel.all(false).len(), left);
            let late = deadlines.iter().flatten().filter(|at| tick_of(**at) <= now / TICK_MS);
            assert_eq!(late.count(), 0, "nothing is later than a tick");
        }
    }

    #[test]
    fn every_element_comes_out_at_its_tick() {
        for seed in 0..4 {
            for spread in [8, 14, 24, 34, 44, 56] {
                run(seed, 1_700_000_000_000, spread);
                run(seed, 0, spread);
            }
        }
    }

    #[test]
    fn the_last_moment_there_is_can_be_filed() {
        let mut wheel = Wheel::default();
        let end = UnixMillis(u64::MAX);
        wheel.file(1, tick_of(end), UnixMillis(5));
        assert_eq!(wheel.next(1 << 40), None);
        assert_eq!(wheel.next(tick_of(end)), Some(1));
        assert_eq!(wheel.next(u64::MAX), None);
    }

    #[test]
    fn a_million_elements_cost_at_most_five_bytes_each() {
        let mut expiry = Expiry::default();
        let mut random = 5;
        for handle in 1..=1_000_000 {
            let deadline = UnixMillis(1_000_000_000 + next_random(&mut random) % 3_600_000);
            expiry.file(handle, deadline, UnixMillis(1_000_000_000));
        }
        assert!(expiry.heap_bytes() < 5_000_000, "{}", expiry.heap_bytes());
    }

    #[test]
    fn a_jump_over_centuries_is_one_step_a_bucket() {
        let mut wheel = Wheel::default();
        for handle in 1..=1_000u64 {
            wheel.file(u32::try_from(handle).unwrap(), handle << 30, UnixMillis(0));
        }
        let mut out = Vec::new();
        while let Some(handle) = wheel.next(1 << 60) {
            out.push(handle);
        }
        assert_eq!(out.len(), 1_000);
    }
}
