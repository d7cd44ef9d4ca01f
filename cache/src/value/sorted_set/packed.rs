//! The packed form of a sorted set: members in order, each its score (8 bytes) and an element of a run.

use crate::value::packed::{element_bytes, push, split_length};

/// Bytes of a score.
const SCORE: usize = size_of::<f64>();

/// Members with their scores, from the lowest on.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Pairs<'v> {
    run: &'v [u8],
    rest: &'v [u8],
}

impl<'v> Pairs<'v> {
    pub(super) fn of(run: &'v [u8]) -> Self {
        Self { run, rest: run }
    }

    /// Where in the run the next member begins.
    fn offset(&self) -> usize {
        self.run.len() - self.rest.len()
    }
}

impl<'v> Iterator for Pairs<'v> {
    type Item = (&'v [u8], f64);

    fn next(&mut self) -> Option<Self::Item> {
        let (score, after) = self.rest.split_first_chunk::<SCORE>()?;
        let (length, after) = split_length(after)?;
        let (member, rest) = after.split_at_checked(length)?;
        self.rest = rest;
        Some((member, f64::from_le_bytes(*score)))
    }
}

/// A member's score, and the bytes it takes in the run: from, to. If it is not there, how many there are.
pub(super) fn find(run: &[u8], member: &[u8]) -> Result<(f64, usize, usize), usize> {
    let (mut len, mut from, mut pairs) = (0, 0, Pairs::of(run));
    let last = member.last();
    while let Some((it, score)) = pairs.next() {
        // Members of one set tend to differ in their last bytes: most are told apart without a call.
        if it.last() == last && it == member {
            return Ok((score, from, pairs.offset()));
        }
        len += 1;
        from = pairs.offset();
    }
    Err(len)
}

/// How many bytes a member takes.
pub(super) fn pair_bytes(member: &[u8]) -> usize {
    SCORE + element_bytes(member.len())
}

/// Gives the member whose bytes are `from..to` another score, and moves it to where it belongs with that.
pub(super) fn rescore(run: &mut [u8], from: usize, to: usize, old: f64, score: f64) {
    let size = to - from;
    run[from..from + SCORE].copy_from_slice(&score.to_le_bytes());
    let member = split_length(&run[from + SCORE..to]).map_or(&[][..], |(_, member)| member);
    // Where the first one lies that comes after it: behind its old place if the score has grown, else before it.
    let (start, end) = if score > old { (to, run.len()) } else { (0, from) };
    let (mut at, mut pairs) = (start, Pairs::of(&run[start..end]));
    while let Some((it, its_score)) = pairs.next() {
        if super::compare((its_score, it), (score, member)).is_gt() {
            break;
        }
        at = start + pairs.offset();
    }
    if score > old {
        run[from..at].rotate_left(size);
    } else {
        run[at..to].rotate_right(size);
    }
}

/// Puts in a member that is not there.
pub(super) fn insert(run: &mut Vec<u8>, member: &[u8], score: f64) {
    let (mut at, mut pairs) = (0, Pairs::of(run));
    while let Some((it, its_score)) = pairs.next() {
        if super::compare((its_score, it), (score, member)).is_gt() {
            break;
        }
        at = pairs.offset();
    }
    let old = run.len();
    run.extend_from_slice(&score.to_le_bytes());
    push(run, member);
    let needed = run.len() - old;
    run[at..].rotate_right(needed);
}

/// Removes the members of these ranks and shows them to `removed`.
pub(super) fn remove_ranks(
    run: &mut Vec<u8>,
    from: usize,
    to: usize,
    mut removed: impl FnMut(&[u8], f64),
) {
    let mut pairs = Pairs::of(run);
    for _ in 0..from {
        pairs.next();
    }
    let start = pairs.offset();
    for _ in from..to {
        if let Some((member, score)) = pairs.next() {
            removed(member, score);
        }
    }
    let end = pairs.offset();
    run.drain(start..end);
}
