//! Bytes that live within their owner while they are few.

use std::fmt;

/// How many bytes are kept without an allocation.
const INLINE: usize = 22;

/// Bytes in 24 bytes: up to 22 of them in place, more on the heap.
#[derive(Clone)]
pub struct SmallBytes(Place);

#[derive(Clone)]
enum Place {
    Inline { length: u8, bytes: [u8; INLINE] },
    Heap(Box<[u8]>),
}

impl SmallBytes {
    /// The bytes of `parts`, one after the other.
    #[must_use]
    pub fn concat(parts: &[&[u8]]) -> Self {
        let length: usize = parts.iter().map(|part| part.len()).sum();
        if length > INLINE {
            return Self(Place::Heap(parts.concat().into_boxed_slice()));
        }
        let (mut bytes, mut at) = ([0; INLINE], 0);
        for part in parts {
            bytes[at..at + part.len()].copy_from_slice(part);
            at += part.len();
        }
        Self(Place::Inline { length: u8::try_from(length).expect("at most 22"), bytes })
    }

    /// The bytes.
    #[must_use]
    pub fn as_slice(&self) -> &[u8] {
        match &self.0 {
            Place::Inline { length, bytes } => &bytes[..usize::from(*length)],
            Place::Heap(bytes) => bytes,
        }
    }

    /// The bytes, to be changed in place.
    pub fn as_mut_slice(&mut self) -> &mut [u8] {
        match &mut self.0 {
            Place::Inline { length, bytes } => &mut bytes[..usize::from(*length)],
            Place::Heap(bytes) => bytes,
        }
    }

    /// What it occupies on the heap, in bytes.
    #[must_use]
    pub fn heap_bytes(&self) -> usize {
        match &self.0 {
            Place::Inline { .. } => 0,
            Place::Heap(bytes) => allocated(bytes.len()),
        }
    }
}

impl From<&[u8]> for SmallBytes {
    fn from(bytes: &[u8]) -> Self {
        Self::concat(&[bytes])
    }
}

impl fmt::Debug for SmallBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.as_slice().escape_ascii().to_string(), f)
    }
}

/// What an allocation of `bytes` takes: rounded up to a multiple of 8 up to 64 bytes, beyond that to an eighth of the power of
/// two below, as allocators with size classes do.
#[must_use]
pub fn allocated(bytes: usize) -> usize {
    if bytes == 0 {
        return 0;
    }
    let step = if bytes <= 64 { 8 } else { (bytes.next_power_of_two() / 16).max(8) };
    bytes.div_ceil(step).saturating_mul(step)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_takes_24_bytes() {
        assert_eq!(size_of::<SmallBytes>(), 24);
    }

    #[test]
    fn bytes_come_back_whatever_their_number() {
        for length in 0..100u8 {
            let bytes: Vec<u8> = (0..length).collect();
            let (left, right) = bytes.split_at(usize::from(length / 3));
            let mut small = SmallBytes::concat(&[left, right]);
            assert_eq!(small.as_slice(), bytes);
            assert_eq!(small.as_mut_slice(), bytes);
            assert_eq!(small.heap_bytes() > 0, length > 22);
        }
    }

    #[test]
    fn an_allocation_is_never_less_than_asked_for() {
        for bytes in 0..100_000 {
            let rounded = allocated(bytes);
            assert!(rounded >= bytes && rounded <= bytes + bytes / 8 + 8, "{bytes} {rounded}");
        }
    }
}
