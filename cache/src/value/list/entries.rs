//! A run of elements that is walked from either end: each is its length, its bytes, and its length again backwards.
//!
//! The length is LEB128; behind the element its bytes stand in reverse, so that reading from the end meets them in order.
//! A short element costs two bytes beyond its own. Runs are made by this process alone; one that is cut short ends early.

use crate::value::packed::{length_bytes, push_length, split_length};

/// How many bytes an element of `length` bytes takes.
pub(super) fn entry_bytes(length: usize) -> usize {
    2 * length_bytes(length) + length
}

/// Appends an element.
pub(super) fn push(run: &mut Vec<u8>, element: &[u8]) {
    let from = run.len();
    push_length(run, element.len());
    let head = run.len() - from;
    run.extend_from_slice(element);
    for at in (from..from + head).rev() {
        run.push(run[at]);
    }
}

/// Writes an element so that it fills `place`, which has just its size.
pub(super) fn write(place: &mut [u8], element: &[u8]) {
    let head = length_bytes(element.len());
    let mut rest = element.len();
    let last = place.len() - 1;
    for at in 0..head {
        let more = if at + 1 < head { 0x80 } else { 0 };
        let byte = more | u8::try_from(rest & 0x7F).expect("seven bits");
        place[at] = byte;
        place[last - at] = byte;
        rest >>= 7;
    }
    place[head..head + element.len()].copy_from_slice(element);
}

/// The elements of a run, from both ends.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Entries<'v> {
    rest: &'v [u8],
}

impl<'v> Entries<'v> {
    /// The elements of `run`.
    pub(super) fn of(run: &'v [u8]) -> Self {
        Self { rest: run }
    }

    /// How many bytes are left between the two ends.
    pub(super) fn bytes(&self) -> usize {
        self.rest.len()
    }
}

impl<'v> Iterator for Entries<'v> {
    type Item = &'v [u8];

    fn next(&mut self) -> Option<&'v [u8]> {
        let (length, after) = split_length(self.rest)?;
        let (element, after) = after.split_at_checked(length)?;
        self.rest = after.get(length_bytes(length)..)?;
        Some(element)
    }
}

impl DoubleEndedIterator for Entries<'_> {
    fn next_back(&mut self) -> Option<Self::Item> {
        let (mut length, mut shift, mut tail) = (0usize, 0, 0);
        loop {
            let byte = *self.rest.get(self.rest.len().checked_sub(tail + 1)?)?;
            length |= usize::from(byte & 0x7F).checked_shl(shift)?;
            (shift, tail) = (shift + 7, tail + 1);
            if byte < 0x80 {
                break;
            }
        }
        let end = self.rest.len() - tail;
        let start = end.checked_sub(length)?;
        let element = &self.rest[start..end];
        self.rest = &self.rest[..start.checked_sub(tail)?];
        Some(element)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_reads_the_same_from_both_ends() {
        let elements: Vec<Vec<u8>> = [0, 1, 127, 128, 129, 5, 16_383, 16_384, 300_000]
            .map(|length| vec![9; length])
            .to_vec();
        let mut run = Vec::new();
        for element in &elements {
            push(&mut run, element);
            let mut written = vec![0; entry_bytes(element.len())];
            write(&mut written, element);
            assert!(run.ends_with(&written));
        }
        let forwards: Vec<&[u8]> = Entries::of(&run).collect();
        let mut backwards: Vec<&[u8]> = Entries::of(&run).rev().collect();
        backwards.reverse();
        assert_eq!(forwards, elements);
        assert_eq!(backwards, elements);
        let mut both = Entries::of(&run);
        both.next();
        both.next_back();
        assert_eq!(both.count(), elements.len() - 2);
    }

    #[test]
    fn a_run_that_is_cut_short_ends_early() {
        let mut run = Vec::new();
        push(&mut run, &[1; 5]);
        push(&mut run, &[2; 200]);
        for length in 0..run.len() {
            assert!(Entries::of(&run[..length]).count() < 2);
            let _ = Entries::of(&run[length..]).rev().count();
        }
        assert_eq!(Entries::of(&[0xFF; 40]).next(), None);
        assert_eq!(Entries::of(&[0xFF; 40]).next_back(), None);
    }
}
