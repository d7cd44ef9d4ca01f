//! The members of a large sorted set: kept once, named by a number, and found by their hash.
//!
//! The numbers lie in blocks in the order of the members' 32-bit hashes, so that a scan whose cursor is a hash returns every
//! member that is there throughout, however the set grows or shrinks (as `crate::value::table` does for sets and hashes).

use crate::value::small_bytes::{SmallBytes, allocated};
use crate::value::table::hash_of;

/// How many members share an allocation.
const PAGE: usize = 512;

/// How many numbers a block holds before it is split.
const BLOCK: usize = 256;

/// How much room a block gains at a time.
const STEP: usize = 32;

/// A member's number. Given to another one once it is gone.
pub(super) type Id = u32;

#[derive(Clone, Debug)]
struct Member {
    name: SmallBytes,
    score: f64,
}

/// Members by number and by hash.
#[derive(Clone, Debug, Default)]
pub(super) struct Members {
    pages: Vec<Vec<Member>>,
    free: Vec<Id>,
    len: usize,
    /// What names occupy beyond the pages.
    names: usize,
    lows: Vec<u32>,
    blocks: Vec<Block>,
    /// What the blocks occupy.
    block_bytes: usize,
}

#[derive(Clone, Debug, Default)]
struct Block {
    hashes: Vec<u32>,
    ids: Vec<Id>,
}

impl Block {
    fn heap_bytes(&self) -> usize {
        allocated(self.hashes.capacity() * 4) + allocated(self.ids.capacity() * 4)
    }

    fn insert(&mut self, at: usize, hash: u32, id: Id) {
        if self.hashes.len() == self.hashes.capacity() {
            self.hashes.reserve_exact(STEP);
            self.ids.reserve_exact(STEP);
        }
        self.hashes.insert(at, hash);
        self.ids.insert(at, id);
    }

    fn fit(&mut self) {
        let room = self.hashes.len().next_multiple_of(STEP);
        self.hashes.shrink_to(room);
        self.ids.shrink_to(room);
    }
}

fn page_of(id: Id) -> (usize, usize) {
    let id = id as usize;
    (id / PAGE, id % PAGE)
}

impl Members {
    pub(super) fn len(&self) -> usize {
        self.len
    }

    pub(super) fn heap_bytes(&self) -> usize {
        self.pages.len() * allocated(PAGE * size_of::<Member>())
            + allocated(self.pages.capacity() * size_of::<Vec<Member>>())
            + allocated(self.free.capacity() * 4)
            + self.names
            + self.block_bytes
            + allocated(self.lows.capacity() * 4)
            + allocated(self.blocks.capacity() * size_of::<Block>())
    }

    pub(super) fn name(&self, id: Id) -> &[u8] {
        let (page, place) = page_of(id);
        self.pages[page][place].name.as_slice()
    }

    pub(super) fn score(&self, id: Id) -> f64 {
        let (page, place) = page_of(id);
        self.pages[page][place].score
    }

    pub(super) fn set_score(&mut self, id: Id, score: f64) {
        let (page, place) = page_of(id);
        self.pages[page][place].score = score;
    }

    fn block_of(&self, hash: u32) -> usize {
        self.lows.partition_point(|low| *low <= hash).saturating_sub(1)
    }

    fn locate(&self, hash: u32, name: &[u8]) -> Result<(usize, usize), (usize, usize)> {
        let at = self.block_of(hash);
        let Some(block) = self.blocks.get(at) else { return Err((at, 0)) };
        let mut place = block.hashes.partition_point(|it| *it < hash);
        while block.hashes.get(place) == Some(&hash) {
            if self.name(block.ids[place]) == name {
                return Ok((at, place));
            }
            place += 1;
        }
        Err((at, place))
    }

    pub(super) fn find(&self, name: &[u8]) -> Option<Id> {
        let (at, place) = self.locate(hash_of(name), name).ok()?;
        Some(self.blocks[at].ids[place])
    }

    /// Adds a member that is not there.
    pub(super) fn insert(&mut self, name: &[u8], score: f64) -> Id {
        let member = Member { name: SmallBytes::from(name), score };
        self.names += member.name.heap_bytes();
        self.len += 1;
        let id = match self.free.pop() {
            Some(id) => {
                let (page, place) = page_of(id);
                self.pages[page][place] = member;
                id
            }
            None => {
                if self.pages.last().is_none_or(|page| page.len() == PAGE) {
                    self.pages.push(Vec::with_capacity(PAGE));
                }
                let page = self.pages.len() - 1;
                self.pages[page].push(member);
                Id::try_from(page * PAGE + self.pages[page].len() - 1)
                    .expect("a value's limit keeps it below 2^32 members")
            }
        };
        self.index(hash_of(name), id);
        id
    }

    fn index(&mut self, hash: u32, id: Id) {
        if self.blocks.is_empty() {
            self.lows.push(0);
            self.blocks.push(Block::default());
        }
        let at = self.block_of(hash);
        let block = &mut self.blocks[at];
        let place = block.hashes.partition_point(|it| *it < hash);
        self.block_bytes -= block.heap_bytes();
        block.insert(place, hash, id);
        if block.hashes.len() > BLOCK {
            // Members of one hash stay together: a scan's step ends between two hashes.
            let middle = block.hashes[BLOCK / 2];
            let cut = block.hashes.partition_point(|it| *it < middle);
            let cut = if cut > 0 { cut } else { block.hashes.partition_point(|it| *it <= middle) };
            if cut < block.hashes.len() {
                let right =
                    Block { hashes: block.hashes.split_off(cut), ids: block.ids.split_off(cut) };
                block.fit();
                self.block_bytes += right.heap_bytes();
                self.lows.insert(at + 1, right.hashes[0]);
                self.blocks.insert(at + 1, right);
            }
        }
        self.block_bytes += self.blocks[at].heap_bytes();
    }

    /// Removes a member that is there.
    pub(super) fn remove(&mut self, id: Id) {
        let hash = hash_of(self.name(id));
        let at = self.block_of(hash);
        if let Some(block) = self.blocks.get_mut(at) {
            let from = block.hashes.partition_point(|it| *it < hash);
            if let Some(offset) = block.ids[from..].iter().position(|it| *it == id) {
                self.block_bytes -= block.heap_bytes();
                block.hashes.remove(from + offset);
                block.ids.remove(from + offset);
                if block.hashes.len() + 2 * STEP < block.hashes.capacity() {
                    block.fit();
                }
                self.block_bytes += block.heap_bytes();
                if block.hashes.len() < BLOCK / 4 {
                    self.join(at);
                }
            }
        }
        let (page, place) = page_of(id);
        let old = std::mem::replace(&mut self.pages[page][place].name, SmallBytes::from(&b""[..]));
        self.names -= old.heap_bytes();
        self.free.push(id);
        self.len -= 1;
    }

    fn join(&mut self, at: usize) {
        let len = self.blocks[at].hashes.len();
        let fits = |other: usize| {
            self.blocks.get(other).is_some_and(|it| it.hashes.len() + len <= BLOCK * 3 / 4)
        };
        let left = match at.checked_sub(1) {
            Some(before) if fits(before) => before,
            _ if fits(at + 1) => at,
            _ => return,
        };
        let right = self.blocks.remove(left + 1);
        self.lows.remove(left + 1);
        let into = &mut self.blocks[left];
        self.block_bytes -= into.heap_bytes() + right.heap_bytes();
        into.hashes.reserve_exact(right.hashes.len());
        into.ids.reserve_exact(right.ids.len());
        into.hashes.extend(right.hashes);
        into.ids.extend(right.ids);
        self.block_bytes += into.heap_bytes();
    }

    /// Whether so many numbers are out of use that writing everything anew is worth it.
    pub(super) fn is_sparse(&self) -> bool {
        self.free.len() > 2 * PAGE && self.free.len() > 3 * self.len
    }

    /// Visits at least `count` members from `cursor` on, if there are so many, and returns where to go on; 0 at the end.
    pub(super) fn scan<'m>(
        &'m self,
        cursor: u64,
        count: usize,
        mut visit: impl FnMut(&'m [u8], f64),
    ) -> u64 {
        let Ok(from) = u32::try_from(cursor) else { return 0 };
        let (mut left, mut last) = (count.max(1), None);
        for block in self.blocks.iter().skip(self.block_of(from)) {
            let start = block.hashes.partition_point(|hash| *hash < from);
            for (hash, id) in block.hashes.iter().zip(&block.ids).skip(start) {
                if left == 0 && last != Some(*hash) {
                    return u64::from(*hash);
                }
                last = Some(*hash);
                left = left.saturating_sub(1);
                visit(self.name(*id), self.score(*id));
            }
        }
        0
    }

    /// Panics unless everything is as it should be.
    #[cfg(test)]
    pub(super) fn check(&self) {
        let (mut count, mut bytes) = (0, 0);
        for (at, block) in self.blocks.iter().enumerate() {
            assert!(block.hashes.is_sorted() && block.hashes.len() == block.ids.len());
            assert!(block.hashes.first().is_none_or(|first| *first >= self.lows[at]));
            for (hash, id) in block.hashes.iter().zip(&block.ids) {
                assert_eq!(*hash, hash_of(self.name(*id)));
                assert_eq!(self.block_of(*hash), at);
            }
            (count, bytes) = (count + block.ids.len(), bytes + block.heap_bytes());
        }
        assert_eq!((self.len, self.block_bytes), (count, bytes));
        let slots: usize = self.pages.iter().map(Vec::len).sum();
        assert_eq!(slots, self.len + self.free.len());
        let names = self.pages.iter().flatten().map(|member| member.name.heap_bytes());
        assert_eq!(self.names, names.sum::<usize>());
    }
}
