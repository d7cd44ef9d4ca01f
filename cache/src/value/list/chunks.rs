//! The large form of a list: a row of chunks, each a run of a few kilobytes.
//!
//! Pushing and popping touch the first or the last chunk alone and move nothing else: a chunk at an end keeps its spare room on
//! the outer side. A place in the middle is found by walking over chunks from the nearer end, and changing it rewrites one
//! chunk. A chunk that has stopped being an end gives its spare room back.

use std::collections::VecDeque;
use std::collections::vec_deque;

use super::End;
use super::entries::{Entries, entry_bytes, push, write};
use crate::value::small_bytes::allocated;

/// The most bytes of a chunk with several elements. An element that needs more has a chunk of its own.
const CHUNK: usize = 4096;

/// Elements in chunks.
#[derive(Clone, Debug, Default)]
pub(super) struct Chunks {
    chunks: VecDeque<Chunk>,
    len: usize,
    /// Bytes of all runs.
    bytes: usize,
    /// What the chunks occupy on the heap.
    heap: usize,
}

#[derive(Clone, Debug)]
struct Chunk {
    /// The run lies in `room[start..end]`.
    room: Box<[u8]>,
    start: usize,
    end: usize,
    count: usize,
}

impl Chunk {
    /// An empty chunk to be filled from its inner side outwards, with room for an element of `needed` bytes.
    fn at(end: End, needed: usize) -> Self {
        let size = if needed > CHUNK / 2 { needed } else { CHUNK };
        let start = if end == End::Front { size } else { 0 };
        Self { room: vec![0; size].into(), start, end: start, count: 0 }
    }

    fn from_run(run: Vec<u8>, count: usize) -> Self {
        Self { start: 0, end: run.len(), count, room: run.into() }
    }

    fn run(&self) -> &[u8] {
        &self.room[self.start..self.end]
    }

    fn heap_bytes(&self) -> usize {
        allocated(self.room.len())
    }

    /// Adds an element; false if the chunk is full.
    fn push(&mut self, end: End, element: &[u8]) -> bool {
        let (used, needed) = (self.end - self.start, entry_bytes(element.len()));
        if used + needed > self.room.len().max(CHUNK) {
            return false;
        }
        let fits = match end {
            End::Front => needed <= self.start,
            End::Back => needed <= self.room.len() - self.end,
        };
        if !fits {
            let size = self.room.len().max(CHUNK);
            let start = if end == End::Front { size - used } else { 0 };
            if size == self.room.len() {
                self.room.copy_within(self.start..self.end, start);
            } else {
                let mut room = vec![0; size];
                room[start..start + used].copy_from_slice(self.run());
                self.room = room.into();
            }
            (self.start, self.end) = (start, start + used);
        }
        let place = match end {
            End::Front => {
                self.start -= needed;
                self.start..self.start + needed
            }
            End::Back => {
                self.end += needed;
                self.end - needed..self.end
            }
        };
        write(&mut self.room[place], element);
        self.count += 1;
        true
    }

    /// Drops `count` elements, which are fewer than there are.
    fn drop_elements(&mut self, end: End, count: usize) {
        let mut entries = Entries::of(self.run());
        for _ in 0..count {
            let dropped = if end == End::Front { entries.next() } else { entries.next_back() };
            debug_assert!(dropped.is_some(), "a chunk counts its elements");
        }
        match (end, entries.bytes()) {
            (End::Front, left) => self.start = self.end - left,
            (End::Back, left) => self.end = self.start + left,
        }
        self.count -= count;
    }

    /// Gives spare room back if it is more than an eighth.
    fn seal(&mut self) {
        if self.room.len() - (self.end - self.start) > self.room.len() / 8 {
            *self = Self::from_run(self.run().to_vec(), self.count);
        }
    }
}

/// Cuts elements into chunks of about the same size, none too large.
fn cut(run: Vec<u8>, count: usize) -> Vec<Chunk> {
    if run.len() <= CHUNK {
        return vec![Chunk::from_run(run, count)];
    }
    let target = run.len().div_ceil(2).min(CHUNK);
    let (mut chunks, mut piece, mut count) = (Vec::new(), Vec::new(), 0);
    for element in Entries::of(&run) {
        if count > 0 && piece.len() + entry_bytes(element.len()) > target {
            chunks.push(Chunk::from_run(std::mem::take(&mut piece), count));
            count = 0;
        }
        push(&mut piece, element);
        count += 1;
    }
    chunks.push(Chunk::from_run(piece, count));
    chunks
}

impl Chunks {
    /// The elements of a run.
    pub(super) fn from_run(run: Vec<u8>, count: usize) -> Self {
        if count == 0 {
            return Self::default();
        }
        let bytes = run.len();
        let chunks: VecDeque<Chunk> = cut(run, count).into();
        let heap = chunks.iter().map(Chunk::heap_bytes).sum();
        Self { chunks, len: count, bytes, heap }
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// Bytes of all elements with their lengths.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(super) fn heap_bytes(&self) -> usize {
        self.heap + allocated(self.chunks.capacity() * size_of::<Chunk>())
    }

    fn end_chunk(&mut self, end: End) -> Option<&mut Chunk> {
        match end {
            End::Front => self.chunks.front_mut(),
            End::Back => self.chunks.back_mut(),
        }
    }

    pub(super) fn push(&mut self, end: End, element: &[u8]) {
        let needed = entry_bytes(element.len());
        let (mut before, mut after, mut pushed) = (0, 0, false);
        if let Some(chunk) = self.end_chunk(end) {
            before = chunk.heap_bytes();
            pushed = chunk.push(end, element);
            if !pushed {
                chunk.seal();
            }
            after = chunk.heap_bytes();
        }
        if !pushed {
            let mut chunk = Chunk::at(end, needed);
            let fits = chunk.push(end, element);
            debug_assert!(fits, "a chunk is made large enough");
            after += chunk.heap_bytes();
            match end {
                End::Front => self.chunks.push_front(chunk),
                End::Back => self.chunks.push_back(chunk),
            }
        }
        self.heap = self.heap + after - before;
        self.len += 1;
        self.bytes += needed;
    }

    /// The element at an end.
    pub(super) fn peek(&self, end: End) -> Option<&[u8]> {
        match end {
            End::Front => Entries::of(self.chunks.front()?.run()).next(),
            End::Back => Entries::of(self.chunks.back()?.run()).next_back(),
        }
    }

    /// Drops `count` elements from an end; all, if there are fewer.
    pub(super) fn drop_elements(&mut self, end: End, mut count: usize) {
        while count > 0 {
            let Some(chunk) = self.end_chunk(end) else { return };
            let (held, run) = (chunk.count, chunk.run().len());
            if held > count {
                chunk.drop_elements(end, count);
                let left = chunk.run().len();
                self.bytes -= run - left;
                self.len -= count;
                return;
            }
            self.heap -= chunk.heap_bytes();
            self.bytes -= run;
            self.len -= held;
            count -= held;
            match end {
                End::Front => self.chunks.pop_front(),
                End::Back => self.chunks.pop_back(),
            };
        }
        if self.chunks.len() * 4 < self.chunks.capacity() {
            self.chunks.shrink_to(self.chunks.len() * 2);
        }
    }

    /// The chunk that holds element `index`, which is there, and the element's place in it.
    fn locate(&self, index: usize) -> (usize, usize) {
        if index <= self.len / 2 {
            let mut before = 0;
            for (at, chunk) in self.chunks.iter().enumerate() {
                if index < before + chunk.count {
                    return (at, index - before);
                }
                before += chunk.count;
            }
        } else {
            let mut before = self.len;
            for (at, chunk) in self.chunks.iter().enumerate().rev() {
                before -= chunk.count;
                if index >= before {
                    return (at, index - before);
                }
            }
        }
        (self.chunks.len(), 0)
    }

    /// Rewrites chunk `at`: `rewrite` gets its elements and fills a run, and returns how many elements that has.
    fn rewrite(&mut self, at: usize, rewrite: impl FnOnce(Entries<'_>, &mut Vec<u8>) -> usize) {
        let Some(chunk) = self.chunks.get_mut(at) else { return };
        let mut run = Vec::with_capacity(chunk.run().len() + 64);
        let count = rewrite(Entries::of(chunk.run()), &mut run);
        self.heap -= chunk.heap_bytes();
        self.bytes = self.bytes + run.len() - chunk.run().len();
        self.len = self.len + count - chunk.count;
        let mut pieces = cut(run, count).into_iter();
        if let Some(first) = pieces.next() {
            self.heap += first.heap_bytes();
            *chunk = first;
        }
        for (offset, piece) in pieces.enumerate() {
            self.heap += piece.heap_bytes();
            self.chunks.insert(at + 1 + offset, piece);
        }
    }

    /// Puts `element` where element `index` is, which is there.
    pub(super) fn set(&mut self, index: usize, element: &[u8]) {
        let (at, place) = self.locate(index);
        self.rewrite(at, |entries, run| {
            let mut count = 0;
            for old in entries {
                push(run, if count == place { element } else { old });
                count += 1;
            }
            count
        });
    }

    /// Puts `element` before element `index`; at the end, if `index` is the length.
    pub(super) fn insert(&mut self, index: usize, element: &[u8]) {
        if index >= self.len {
            return self.push(End::Back, element);
        }
        let (at, place) = self.locate(index);
        self.rewrite(at, |entries, run| {
            let mut count = 0;
            for old in entries {
                if count == place {
                    push(run, element);
                }
                push(run, old);
                count += 1;
            }
            count + 1
        });
    }

    /// Removes at most `most` elements that equal `element`, from an end on; how many they were.
    pub(super) fn remove(&mut self, element: &[u8], most: usize, end: End) -> usize {
        let mut left = most;
        for offset in 0..self.chunks.len() {
            let at = if end == End::Front { offset } else { self.chunks.len() - 1 - offset };
            let equal = Entries::of(self.chunks[at].run()).filter(|it| *it == element).count();
            if equal == 0 {
                continue;
            }
            let removed = equal.min(left);
            // The first to go, counted from the front, if not all do.
            let first = if end == End::Front { 0 } else { equal - removed };
            self.rewrite(at, |entries, run| {
                let (mut count, mut met) = (0, 0);
                for old in entries {
                    if old == element {
                        met += 1;
                        if met > first && met <= first + removed {
                            continue;
                        }
                    }
                    push(run, old);
                    count += 1;
                }
                count
            });
            left -= removed;
            if left == 0 {
                break;
            }
        }
        if left < most {
            self.tidy();
        }
        most - left
    }

    /// Drops empty chunks and joins neighbours that fill half a chunk together.
    fn tidy(&mut self) {
        let chunks = std::mem::take(&mut self.chunks);
        for chunk in chunks {
            if chunk.count == 0 {
                continue;
            }
            match self.chunks.back_mut() {
                Some(last) if last.run().len() + chunk.run().len() <= CHUNK / 2 => {
                    *last = Chunk::from_run(
                        [last.run(), chunk.run()].concat(),
                        last.count + chunk.count,
                    );
                }
                _ => self.chunks.push_back(chunk),
            }
        }
        self.heap = self.chunks.iter().map(Chunk::heap_bytes).sum();
    }

    /// The elements from `index` on, and backwards those before the end.
    pub(super) fn iter_from(&self, index: usize) -> Walk<'_> {
        if index >= self.len {
            return Walk::default();
        }
        let (at, place) = self.locate(index);
        let mut front = Entries::of(self.chunks[at].run());
        for _ in 0..place {
            front.next();
        }
        Walk { front, middle: self.chunks.range(at + 1..), back: Entries::default() }
    }

    /// The elements before `index`, to be walked backwards.
    pub(super) fn iter_before(&self, index: usize) -> Walk<'_> {
        let Some(last) = index.min(self.len).checked_sub(1) else { return Walk::default() };
        let (at, place) = self.locate(last);
        let mut back = Entries::of(self.chunks[at].run());
        for _ in place + 1..self.chunks[at].count {
            back.next_back();
        }
        Walk { front: Entries::default(), middle: self.chunks.range(..at), back }
    }

    /// Panics unless everything is as it should be.
    #[cfg(test)]
    pub(super) fn check(&self) {
        let (mut len, mut bytes, mut heap) = (0, 0, 0);
        for chunk in &self.chunks {
            assert!(chunk.count > 0);
            assert_eq!(Entries::of(chunk.run()).count(), chunk.count);
            assert!(chunk.count == 1 || chunk.run().len() <= CHUNK);
            (len, bytes) = (len + chunk.count, bytes + chunk.run().len());
            heap += chunk.heap_bytes();
        }
        assert_eq!((self.len, self.bytes, self.heap), (len, bytes, heap));
    }
}

/// Elements from both ends.
#[derive(Clone, Debug, Default)]
pub(super) struct Walk<'v> {
    front: Entries<'v>,
    middle: vec_deque::Iter<'v, Chunk>,
    back: Entries<'v>,
}

impl<'v> Walk<'v> {
    /// The elements of one run.
    pub(super) fn of_run(run: &'v [u8]) -> Self {
        Self { front: Entries::of(run), ..Self::default() }
    }
}

impl<'v> Iterator for Walk<'v> {
    type Item = &'v [u8];

    fn next(&mut self) -> Option<&'v [u8]> {
        loop {
            if let Some(element) = self.front.next() {
                return Some(element);
            }
            match self.middle.next() {
                Some(chunk) => self.front = Entries::of(chunk.run()),
                None => return self.back.next(),
            }
        }
    }
}

impl DoubleEndedIterator for Walk<'_> {
    fn next_back(&mut self) -> Option<Self::Item> {
        loop {
            if let Some(element) = self.back.next_back() {
                return Some(element);
            }
            match self.middle.next_back() {
                Some(chunk) => self.back = Entries::of(chunk.run()),
                None => return self.front.next_back(),
            }
        }
    }
}
