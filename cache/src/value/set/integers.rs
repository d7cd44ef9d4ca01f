//! Sets of integers: sorted, each in as few bytes as the widest of them needs.
//!
//! The first byte is `0xF0` and the width (1, 2, 4 or 8), so that it cannot be the length of a member of at most 64 bytes; the
//! integers follow in ascending order, low byte first.

const MARK: u8 = 0xF0;

/// Whether `packed` holds integers.
pub(super) fn are_integers(packed: &[u8]) -> bool {
    packed.first().is_some_and(|first| *first > MARK)
}

/// The integers of a packed set.
#[derive(Clone, Copy, Debug)]
pub(super) struct Integers<'v> {
    width: usize,
    bytes: &'v [u8],
}

impl<'v> Integers<'v> {
    /// Reads `packed`, of which [`are_integers`] is true.
    pub(super) fn of(packed: &'v [u8]) -> Self {
        Self { width: usize::from(packed[0] & !MARK), bytes: &packed[1..] }
    }

    pub(super) fn len(self) -> usize {
        self.bytes.len() / self.width
    }

    pub(super) fn at(self, index: usize) -> i64 {
        let bytes = &self.bytes[index * self.width..][..self.width];
        let negative = bytes[self.width - 1] & 0x80 != 0;
        let mut wide = [if negative { 0xFF } else { 0 }; 8];
        wide[..self.width].copy_from_slice(bytes);
        i64::from_le_bytes(wide)
    }

    /// Where `value` is, or where it would be.
    pub(super) fn find(self, value: i64) -> Result<usize, usize> {
        let (mut low, mut high) = (0, self.len());
        while low < high {
            let middle = usize::midpoint(low, high);
            match self.at(middle).cmp(&value) {
                std::cmp::Ordering::Equal => return Ok(middle),
                std::cmp::Ordering::Less => low = middle + 1,
                std::cmp::Ordering::Greater => high = middle,
            }
        }
        Err(low)
    }
}

fn width_of(value: i64) -> usize {
    if i8::try_from(value).is_ok() {
        1
    } else if i16::try_from(value).is_ok() {
        2
    } else if i32::try_from(value).is_ok() {
        4
    } else {
        8
    }
}

/// Adds `value` to a packed set that is empty or holds integers. False if it is there.
pub(super) fn insert(packed: &mut Vec<u8>, value: i64) -> bool {
    let needed = width_of(value);
    if packed.is_empty() {
        packed.push(MARK | u8::try_from(needed).expect("at most 8"));
    }
    let integers = Integers::of(packed);
    let (width, len) = (integers.width, integers.len());
    let Err(index) = integers.find(value) else { return false };
    if needed > width {
        widen(packed, needed);
    }
    let width = width.max(needed);
    let (from, end) = (1 + index * width, 1 + len * width);
    packed.resize(end + width, 0);
    packed.copy_within(from..end, from + width);
    packed[from..from + width].copy_from_slice(&value.to_le_bytes()[..width]);
    true
}

fn widen(packed: &mut Vec<u8>, width: usize) {
    let integers = Integers::of(packed);
    let mut wider = Vec::with_capacity(1 + (integers.len() + 1) * width);
    wider.push(MARK | u8::try_from(width).expect("at most 8"));
    for index in 0..integers.len() {
        wider.extend_from_slice(&integers.at(index).to_le_bytes()[..width]);
    }
    *packed = wider;
}

/// Removes the integer number `index`.
pub(super) fn remove_at(packed: &mut Vec<u8>, index: usize) {
    let integers = Integers::of(packed);
    let (width, len) = (integers.width, integers.len());
    packed.copy_within(1 + (index + 1) * width.., 1 + index * width);
    packed.truncate(1 + (len - 1) * width);
    if len == 1 {
        packed.clear();
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn integers_stay_sorted_and_widen_when_one_needs_it() {
        let values = [5, -1, 127, -128, 128, -129, 32_767, -32_768, 40_000, -40_000];
        let values = values.into_iter().chain([i64::from(i32::MAX), i64::from(i32::MIN)]);
        let values: Vec<i64> = values.chain([1 << 40, i64::MAX, i64::MIN, 0]).collect();
        let (mut packed, mut model) = (Vec::new(), BTreeSet::new());
        for value in &values {
            assert!(insert(&mut packed, *value));
            assert!(!insert(&mut packed, *value));
            model.insert(*value);
            let integers = Integers::of(&packed);
            let held: Vec<i64> = (0..integers.len()).map(|index| integers.at(index)).collect();
            assert_eq!(held, model.iter().copied().collect::<Vec<i64>>());
        }
        for value in values {
            let index = Integers::of(&packed).find(value).unwrap();
            remove_at(&mut packed, index);
            model.remove(&value);
            if model.is_empty() {
                assert!(packed.is_empty());
            } else {
                assert_eq!(Integers::of(&packed).len(), model.len());
                assert!(Integers::of(&packed).find(value).is_err());
            }
        }
    }

    #[test]
    fn small_integers_take_a_byte_each() {
        let mut packed = Vec::new();
        for value in -100..100 {
            insert(&mut packed, value);
        }
        assert_eq!(packed.len(), 201);
        insert(&mut packed, 1_000);
        assert_eq!(packed.len(), 1 + 2 * 201);
    }
}
