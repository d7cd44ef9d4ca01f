//! The bytes of a file as sparse pages that are shared until they are written.
//!
//! A page that was never written takes no room and reads as zeros, so allocating a whole segment costs nothing. Two
//! images of a file (what is visible, what is durable) share every page in which they agree.

use std::collections::BTreeMap;
use std::sync::Arc;

/// Bytes in a page, and the unit in which a file takes up space on the disk.
pub(super) const PAGE: u64 = 4096;
const PAGE_LENGTH: usize = 4096;

/// One image of a file.
#[derive(Clone, Debug, Default)]
pub(super) struct Pages {
    pages: BTreeMap<u64, Arc<[u8; PAGE_LENGTH]>>,
    length: u64,
}

impl Pages {
    pub(super) fn length(&self) -> u64 {
        self.length
    }

    /// Bytes that the file takes up on the disk.
    pub(super) fn size(&self) -> u64 {
        size_of_length(self.length)
    }

    pub(super) fn grow(&mut self, length: u64) {
        self.length = self.length.max(length);
    }

    /// Cuts the file; what grows back later reads as zeros.
    pub(super) fn truncate(&mut self, length: u64) {
        if length >= self.length {
            return;
        }
        self.length = length;
        self.pages.split_off(&length.div_ceil(PAGE));
        if let Some(page) = self.pages.get_mut(&(length / PAGE)) {
            Arc::make_mut(page)[within_page(length)..].fill(0);
        }
    }

    /// Reads what lies below the end of the file; answers how many bytes that were.
    pub(super) fn read(&self, buffer: &mut [u8], offset: u64) -> usize {
        let available = to_usize(self.length.saturating_sub(offset).min(to_u64(buffer.len())));
        for (at, start, count) in pieces(offset, available) {
            let target = &mut buffer[start..start + count];
            match self.pages.get(&(at / PAGE)) {
                Some(page) => {
                    let from = within_page(at);
                    target.copy_from_slice(&page[from..from + count]);
                }
                None => target.fill(0),
            }
        }
        available
    }

    pub(super) fn write(&mut self, bytes: &[u8], offset: u64) {
        for (at, start, count) in pieces(offset, bytes.len()) {
            let page = self.pages.entry(at / PAGE).or_insert_with(|| Arc::new([0; PAGE_LENGTH]));
            let to = within_page(at);
            Arc::make_mut(page)[to..to + count].copy_from_slice(&bytes[start..start + count]);
        }
        if !bytes.is_empty() {
            self.grow(offset + to_u64(bytes.len()));
        }
    }
}

/// Space that a file of `length` bytes takes up.
pub(super) fn size_of_length(length: u64) -> u64 {
    length.div_ceil(PAGE) * PAGE
}

pub(super) fn to_u64(length: usize) -> u64 {
    u64::try_from(length).expect("a length in memory fits into 64 bits")
}

pub(super) fn to_usize(length: u64) -> usize {
    usize::try_from(length).expect("bounded by a length in memory")
}

fn within_page(offset: u64) -> usize {
    to_usize(offset % PAGE)
}

/// Cuts `length` bytes at `offset` into pieces that each lie in one page: (file offset, buffer offset, length).
fn pieces(offset: u64, length: usize) -> impl Iterator<Item = (u64, usize, usize)> {
    let mut done = 0;
    std::iter::from_fn(move || {
        if done == length {
            return None;
        }
        let at = offset + to_u64(done);
        let count = (PAGE_LENGTH - within_page(at)).min(length - done);
        let piece = (at, done, count);
        done += count;
        Some(piece)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn writes_across_pages_read_back_and_gaps_are_zero() {
        let mut pages = Pages::default();
        let bytes: Vec<u8> = (0..10_000u32).map(|i| u8::try_from(i % 251).unwrap()).collect();
        pages.write(&bytes, 3_000);
        assert_eq!(pages.length(), 13_000);
        let mut read = vec![9; 14_000];
        assert_eq!(pages.read(&mut read, 0), 13_000);
        assert!(read[..3_000].iter().all(|byte| *byte == 0));
        assert_eq!(read[3_000..13_000], bytes);
    }

    #[test]
    fn growing_takes_no_memory_and_cutting_forgets() {
        let mut pages = Pages::default();
        pages.grow(64 << 20);
        assert!(pages.pages.is_empty());
        pages.write(&[7; 100], 4_090);
        pages.truncate(4_100);
        pages.grow(8_192);
        let mut read = [9; 110];
        assert_eq!(pages.read(&mut read, 4_090), 110);
        assert_eq!(read[..10], [7; 10]);
        assert_eq!(read[10..], [0; 100]);
    }

    #[test]
    fn a_clone_does_not_see_later_writes() {
        let mut one = Pages::default();
        one.write(b"old", 0);
        let other = one.clone();
        one.write(b"new", 0);
        let mut read = [0; 3];
        other.read(&mut read, 0);
        assert_eq!(&read, b"old");
    }
}
