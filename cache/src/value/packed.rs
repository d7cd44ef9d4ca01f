//! Runs of bytes: the packed form of small collections.
//!
//! A run is a sequence of elements, each its length (LEB128: seven bits a byte, low ones first) and its bytes. There is no head
//! and no end mark: a run of nothing is empty, and a collection of short elements costs one byte an element beyond their own.
//! Runs are made by this process alone and are walked from the front; one that is cut short ends where it makes no sense.

use std::ops::Range;

/// `length` as LEB128: the bytes, and how many of them count.
#[must_use]
pub fn encode_length(length: usize) -> ([u8; 10], usize) {
    let (mut bytes, mut at, mut rest) = ([0; 10], 0, length);
    while rest >= 0x80 {
        bytes[at] = 0x80 | u8::try_from(rest & 0x7F).expect("seven bits");
        rest >>= 7;
        at += 1;
    }
    bytes[at] = u8::try_from(rest).expect("seven bits");
    (bytes, at + 1)
}

/// Appends `length`, as LEB128.
pub fn push_length(out: &mut Vec<u8>, length: usize) {
    if let Ok(byte @ 0..0x80) = u8::try_from(length) {
        out.push(byte);
    } else {
        let (bytes, used) = encode_length(length);
        out.extend_from_slice(&bytes[..used]);
    }
}

/// The length at the beginning of `bytes` and what follows it.
#[must_use]
#[inline]
pub fn split_length(bytes: &[u8]) -> Option<(usize, &[u8])> {
    let (first, rest) = bytes.split_first()?;
    if *first < 0x80 {
        return Some((usize::from(*first), rest));
    }
    let (mut length, mut shift, mut rest) = (usize::from(first & 0x7F), 7, rest);
    loop {
        let (byte, after) = rest.split_first()?;
        length |= usize::from(byte & 0x7F).checked_shl(shift)?;
        rest = after;
        shift += 7;
        if *byte < 0x80 {
            return Some((length, rest));
        }
    }
}

/// How many bytes `length` takes as LEB128.
#[must_use]
pub fn length_bytes(length: usize) -> usize {
    let bits = usize::BITS - (length | 1).leading_zeros();
    bits.div_ceil(7) as usize
}

/// How many bytes an element of `length` bytes takes in a run.
#[must_use]
pub fn element_bytes(length: usize) -> usize {
    length_bytes(length) + length
}

/// Appends an element.
pub fn push(out: &mut Vec<u8>, element: &[u8]) {
    push_length(out, element.len());
    out.extend_from_slice(element);
}

/// Puts `elements` where the bytes `place` of `run` were. An empty place inserts, no elements remove.
pub fn replace(run: &mut Vec<u8>, place: Range<usize>, elements: &[&[u8]]) {
    let needed: usize = elements.iter().map(|element| element_bytes(element.len())).sum();
    let (from, to, old) = (place.start, place.end, run.len());
    let moved_to = from + needed;
    if moved_to > to {
        run.resize(old + (moved_to - to), 0);
    }
    run.copy_within(to..old, moved_to);
    run.truncate(old - to + moved_to);
    let mut at = from;
    for element in elements {
        let (length, used) = encode_length(element.len());
        for part in [&length[..used], element] {
            run[at..at + part.len()].copy_from_slice(part);
            at += part.len();
        }
    }
}

/// The elements of a run, from the front.
#[derive(Clone, Copy, Debug)]
pub struct Elements<'v> {
    run: &'v [u8],
    rest: &'v [u8],
}

impl<'v> Elements<'v> {
    /// The elements of `run`.
    #[must_use]
    pub fn of(run: &'v [u8]) -> Self {
        Self { run, rest: run }
    }

    /// Where in the run the next element begins; at the end the run's length.
    #[must_use]
    pub fn offset(&self) -> usize {
        self.run.len() - self.rest.len()
    }
}

impl<'v> Iterator for Elements<'v> {
    type Item = &'v [u8];

    fn next(&mut self) -> Option<&'v [u8]> {
        if self.rest.is_empty() {
            return None;
        }
        let (length, after) = split_length(self.rest)?;
        let (element, rest) = after.split_at_checked(length)?;
        self.rest = rest;
        Some(element)
    }
}

/// Which of `items` things to take so that `wanted` are taken and every choice is equally likely, deciding one by one in order
/// (selection sampling: Knuth, "Seminumerical Algorithms", 3.4.2, algorithm S).
#[derive(Clone, Copy, Debug)]
pub struct Selection {
    items: usize,
    wanted: usize,
}

impl Selection {
    /// Takes `wanted` of `items`; all, if there are fewer.
    #[must_use]
    pub fn new(items: usize, wanted: usize) -> Self {
        Self { items, wanted: wanted.min(items) }
    }

    /// Whether to take the next item, by the random number that `draw` gives.
    pub fn takes(&mut self, draw: &mut impl FnMut() -> u64) -> bool {
        let taken = self.wanted > 0 && below(draw(), self.items) < self.wanted;
        self.items -= usize::from(self.items > 0);
        self.wanted -= usize::from(taken);
        taken
    }
}

/// A number below `limit`, made from 64 random bits. `limit` is not 0.
#[must_use]
pub fn below(random: u64, limit: usize) -> usize {
    let wide = u128::from(random) * (limit as u128);
    usize::try_from(wide >> 64).expect("below a limit that fits")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run_of(elements: &[Vec<u8>]) -> Vec<u8> {
        let mut run = Vec::new();
        for element in elements {
            push(&mut run, element);
        }
        run
    }

    #[test]
    fn elements_come_back_as_they_went_in() {
        let elements: Vec<Vec<u8>> =
            [0, 1, 127, 128, 300, 16_383, 16_384, 70_000].map(|length| vec![7; length]).to_vec();
        let run = run_of(&elements);
        let back: Vec<Vec<u8>> = Elements::of(&run).map(<[u8]>::to_vec).collect();
        assert_eq!(back, elements);
        let bytes: usize = elements.iter().map(|element| element_bytes(element.len())).sum();
        assert_eq!(bytes, run.len());
    }

    #[test]
    fn a_run_that_is_cut_short_ends_early() {
        let run = run_of(&[vec![1; 5], vec![2; 200]]);
        for length in 0..run.len() {
            assert!(Elements::of(&run[..length]).count() < 2);
        }
        assert_eq!(split_length(&[0xFF; 40]), None);
    }

    #[test]
    fn replacing_gives_what_rewriting_gives() {
        let elements = [vec![1; 3], vec![2; 150], vec![3; 1], vec![], vec![5; 9]];
        for first in 0..elements.len() {
            for last in first..=elements.len() {
                for new in [vec![], vec![vec![9; 2]], vec![vec![8; 300], vec![7; 0]]] {
                    let mut run = run_of(&elements);
                    let from = run_of(&elements[..first]).len();
                    let to = run_of(&elements[..last]).len();
                    let slices: Vec<&[u8]> = new.iter().map(Vec::as_slice).collect();
                    replace(&mut run, from..to, &slices);
                    let expected = [&elements[..first], &new, &elements[last..]].concat();
                    assert_eq!(run, run_of(&expected));
                }
            }
        }
    }

    #[test]
    fn a_selection_takes_as_many_as_wanted_and_all_alike() {
        let mut state = 1u64;
        let mut draw = || {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            state
        };
        let mut taken = [0u32; 10];
        for _ in 0..10_000 {
            let mut selection = Selection::new(10, 3);
            let before: u32 = taken.iter().sum();
            for times in &mut taken {
                *times += u32::from(selection.takes(&mut draw));
            }
            assert_eq!(taken.iter().sum::<u32>() - before, 3);
        }
        assert!(taken.iter().all(|times| (2_700..3_300).contains(times)), "{taken:?}");
    }
}
