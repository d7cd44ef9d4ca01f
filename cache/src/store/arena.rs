//! Cells for entries: blocks of memory cut into cells of one size each.
//!
//! A cell has one of [`CLASSES`] sizes, in steps of 4 bytes up to 128 and of about 6 % up to [`CELL_MAX`]: what a cell is larger
//! than its entry is small and bounded. Blocks of a class grow with what the class holds, up to 16 or 64 KiB, so that a class
//! never has more than about an eighth of its memory in blocks that are partly used, and a small store stays small. A block
//! whose last cell is freed goes back to the allocator; a sparse block can be emptied into others of its class.
//!
//! A handle names a cell: the block's number above ten bits of the cell's number. The first two bytes of a cell are its flags
//! (`entry`), which are 0 while it is free; the next two then hold the number of the next free cell of the block.

/// How many sizes of cells there are.
pub(super) const CLASSES: usize = 109;

/// The size of the largest cells, in bytes.
pub(super) const CELL_MAX: usize = 4096;

const CELL_BITS: u32 = 10;

/// No block, in the lists of blocks with room. Block number 0 does not exist, so that no handle is 0.
const NO_BLOCK: u32 = 0;

/// No cell, in the lists of free cells.
const NO_CELL: u16 = u16::MAX;

/// A block's bytes at least, and at most for cells of up to 512 bytes and for larger ones.
const BLOCK_MIN: usize = 1024;
const BLOCK_MAX: usize = 16 * 1024;
const BLOCK_MAX_LARGE: usize = 64 * 1024;

/// The number of a size of cells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Class(u8);

impl Class {
    /// The least that holds `size` bytes; None if no cell is so large.
    #[inline]
    pub(super) fn of(size: usize) -> Option<Self> {
        let number = match size {
            0..=16 => 0,
            17..=128 => (size - 16).div_ceil(4),
            129..=CELL_MAX => {
                // Sixteen to each power of two, from (128, 256] on.
                let power = (size - 1).ilog2();
                let step = 1 << (power - 4);
                28 + 16 * (power as usize - 7) + (size - (1 << power)).div_ceil(step)
            }
            _ => return None,
        };
        u8::try_from(number).ok().map(Self)
    }

    /// Its cells' size in bytes.
    #[inline]
    pub(super) fn size(self) -> usize {
        SIZES[usize::from(self.0)] as usize
    }

    fn number(self) -> usize {
        usize::from(self.0)
    }
}

static SIZES: [u32; CLASSES] = sizes();

const fn sizes() -> [u32; CLASSES] {
    let mut sizes = [0; CLASSES];
    let mut class = 0;
    let mut size = 16u32;
    while class < CLASSES {
        sizes[class] = size;
        size += if size < 128 { 4 } else { 1 << (size.ilog2() - 4) };
        class += 1;
    }
    sizes
}

#[derive(Debug)]
struct Block {
    bytes: Box<[u8]>,
    class: Class,
    cells: u16,
    live: u16,
    /// Cells from here on were never used.
    fresh: u16,
    /// The first free cell of those before.
    free: u16,
    /// Neighbours in the list of blocks of the class that have room.
    previous: u32,
    next: u32,
}

impl Block {
    fn has_room(&self) -> bool {
        self.live < self.cells
    }

    fn range(&self, cell: u32) -> std::ops::Range<usize> {
        let size = self.class.size();
        let start = cell as usize * size;
        start..start + size
    }
}

/// What the arena knows of a class.
#[derive(Clone, Copy, Debug, Default)]
struct ClassState {
    /// The first block with room.
    room: u32,
    blocks: u32,
    bytes: usize,
    cells: usize,
    live: usize,
}

/// All cells of a shard.
#[derive(Debug)]
pub(super) struct Arena {
    /// Block number n is at n - 1. A block that was given back is empty and without cells.
    blocks: Vec<Block>,
    vacant: Vec<u32>,
    classes: Box<[ClassState; CLASSES]>,
    /// Bytes of all blocks, and of those in live cells.
    bytes: usize,
    live_bytes: usize,
}

impl Default for Arena {
    fn default() -> Self {
        Self {
            blocks: Vec::new(),
            vacant: Vec::new(),
            classes: Box::new([ClassState::default(); CLASSES]),
            bytes: 0,
            live_bytes: 0,
        }
    }
}

fn split(handle: u32) -> (u32, u32) {
    (handle >> CELL_BITS, handle & ((1 << CELL_BITS) - 1))
}

impl Arena {
    /// Bytes on the heap.
    pub(super) fn heap_bytes(&self) -> usize {
        self.bytes
            + self.blocks.capacity() * size_of::<Block>()
            + self.vacant.capacity() * size_of::<u32>()
    }

    /// Bytes of blocks that are in no live cell.
    pub(super) fn idle_bytes(&self) -> usize {
        self.bytes - self.live_bytes
    }

    fn block(&self, number: u32) -> &Block {
        &self.blocks[number as usize - 1]
    }

    fn block_mut(&mut self, number: u32) -> &mut Block {
        &mut self.blocks[number as usize - 1]
    }

    /// The class of a cell.
    pub(super) fn class(&self, handle: u32) -> Class {
        self.block(split(handle).0).class
    }

    /// A cell's bytes.
    #[inline]
    pub(super) fn cell(&self, handle: u32) -> &[u8] {
        let (block, cell) = split(handle);
        let block = self.block(block);
        &block.bytes[block.range(cell)]
    }

    /// A cell's bytes, to be written.
    #[inline]
    pub(super) fn cell_mut(&mut self, handle: u32) -> &mut [u8] {
        let (block, cell) = split(handle);
        let block = self.block_mut(block);
        let range = block.range(cell);
        &mut block.bytes[range]
    }

    /// Whether `handle`, which may be stale, names a cell that is in use.
    pub(super) fn is_live(&self, handle: u32) -> bool {
        let (block, cell) = split(handle);
        let Some(block) = (block as usize).checked_sub(1).and_then(|at| self.blocks.get(at)) else {
            return false;
        };
        cell < u32::from(block.cells) && block.bytes[block.range(cell)][..2] != [0, 0]
    }

    /// Whether a cell of `class` can be had without another block.
    pub(super) fn has_room(&self, class: Class) -> bool {
        self.classes[class.number()].room != NO_BLOCK
    }

    /// The size of the next block of `class`, in bytes.
    pub(super) fn next_block_bytes(&self, class: Class) -> usize {
        let size = class.size();
        let most = if size <= 512 { BLOCK_MAX } else { BLOCK_MAX_LARGE };
        let wanted = (self.classes[class.number()].bytes / 8).clamp(BLOCK_MIN, most);
        let wanted = wanted.next_power_of_two().min(most).max(size);
        let cells = (wanted / size).min(1 << CELL_BITS);
        cells * size
    }

    /// A cell of `class`, to be written at once: until its flags are set it counts as free.
    pub(super) fn allocate(&mut self, class: Class) -> u32 {
        if !self.has_room(class) {
            self.add_block(class);
        }
        let number = self.classes[class.number()].room;
        let block = self.block_mut(number);
        let cell = if block.free == NO_CELL {
            block.fresh += 1;
            block.fresh - 1
        } else {
            let cell = block.free;
            let range = block.range(u32::from(cell));
            let bytes = &block.bytes[range];
            block.free = u16::from_le_bytes([bytes[2], bytes[3]]);
            cell
        };
        block.live += 1;
        let full = !block.has_room();
        if full {
            self.unlink(number);
        }
        self.live_bytes += class.size();
        self.classes[class.number()].live += 1;
        (number << CELL_BITS) | u32::from(cell)
    }

    /// Frees a cell, and its block if it was the last.
    pub(super) fn free(&mut self, handle: u32) {
        let (number, cell) = split(handle);
        let block = self.block_mut(number);
        let (class, had_room) = (block.class, block.has_room());
        let next = block.free.to_le_bytes();
        let range = block.range(cell);
        block.bytes[range][..4].copy_from_slice(&[0, 0, next[0], next[1]]);
        block.free = u16::try_from(cell).expect("a block has at most 1,024 cells");
        block.live -= 1;
        let empty = block.live == 0;
        self.live_bytes -= class.size();
        self.classes[class.number()].live -= 1;
        if !had_room {
            self.link(number);
        }
        if empty {
            self.drop_block(number);
        }
    }

    /// Removes all cells.
    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }

    fn add_block(&mut self, class: Class) {
        let bytes = self.next_block_bytes(class);
        let cells = bytes / class.size();
        let block = Block {
            bytes: vec![0; bytes].into_boxed_slice(),
            class,
            cells: u16::try_from(cells).expect("a block has at most 1,024 cells"),
            live: 0,
            fresh: 0,
            free: NO_CELL,
            previous: NO_BLOCK,
            next: NO_BLOCK,
        };
        let number = match self.vacant.pop() {
            Some(number) => {
                *self.block_mut(number) = block;
                number
            }
            None => {
                self.blocks.push(block);
                let number = u32::try_from(self.blocks.len()).ok();
                number
                    .filter(|number| *number < 1 << (u32::BITS - CELL_BITS))
                    .expect("a shard has fewer than four million blocks: 64 GiB")
            }
        };
        self.bytes += bytes;
        let state = &mut self.classes[class.number()];
        state.bytes += bytes;
        state.cells += cells;
        state.blocks += 1;
        self.link(number);
    }

    fn drop_block(&mut self, number: u32) {
        self.unlink(number);
        let bytes = std::mem::take(&mut self.block_mut(number).bytes).len();
        self.give_back(number, bytes);
    }

    /// Counts a block of so many bytes as gone.
    fn give_back(&mut self, number: u32, bytes: usize) {
        let block = self.block_mut(number);
        let (class, cells) = (block.class, usize::from(block.cells));
        block.cells = 0;
        self.vacant.push(number);
        self.bytes -= bytes;
        let state = &mut self.classes[class.number()];
        state.bytes -= bytes;
        state.cells -= cells;
        state.blocks -= 1;
        if self.bytes == 0 {
            self.clear();
        }
    }

    fn link(&mut self, number: u32) {
        let class = self.block(number).class;
        let head = std::mem::replace(&mut self.classes[class.number()].room, number);
        let block = self.block_mut(number);
        block.previous = NO_BLOCK;
        block.next = head;
        if head != NO_BLOCK {
            self.block_mut(head).previous = number;
        }
    }

    fn unlink(&mut self, number: u32) {
        let block = self.block(number);
        let (class, previous, next) = (block.class, block.previous, block.next);
        match previous {
            NO_BLOCK => self.classes[class.number()].room = next,
            previous => self.block_mut(previous).next = next,
        }
        if next != NO_BLOCK {
            self.block_mut(next).previous = previous;
        }
    }

    /// A block whose cells fit into other blocks of its class, from the class where most is idle; None if no class has so much
    /// that a block can be saved.
    pub(super) fn sparse_block(&self) -> Option<u32> {
        /// How many blocks of a class are compared.
        const LOOKED_AT: usize = 32;
        let saves_most = |state: &&ClassState| {
            let each = state.cells.div_ceil(state.blocks.max(1) as usize);
            state.cells - state.live > each && state.blocks > 1
        };
        let idle =
            |state: &&ClassState| (state.cells - state.live) * (state.bytes / state.cells.max(1));
        let state = self.classes.iter().filter(saves_most).max_by_key(idle)?;
        let mut emptiest = None;
        let mut number = state.room;
        for _ in 0..LOOKED_AT {
            if number == NO_BLOCK {
                break;
            }
            let block = self.block(number);
            let elsewhere = state.cells - state.live - usize::from(block.cells - block.live);
            if elsewhere >= usize::from(block.live) {
                // Per mille of the block that is in use, and then the larger block.
                let used = usize::from(block.live) * 1000 / usize::from(block.cells);
                let rank = (used, usize::MAX - usize::from(block.cells), number);
                emptiest = emptiest.min(Some(rank)).or(Some(rank));
            }
            number = block.next;
        }
        emptiest.map(|(_, _, number)| number)
    }

    /// How many blocks there are, those included that were given back: they are numbered from 1 on.
    pub(super) fn blocks_len(&self) -> usize {
        self.blocks.len()
    }

    /// The handles of the live cells of block `number`.
    pub(super) fn cells_of(&self, number: u32) -> Vec<u32> {
        let block = self.block(number);
        let all = (0..u32::from(block.fresh)).map(|cell| (number << CELL_BITS) | cell);
        all.filter(|handle| self.is_live(*handle)).collect()
    }

    /// Moves the cells of block `number`, which [`Self::sparse_block`] chose, to other blocks of its class, and gives the block
    /// back. Returns the old and new handles.
    pub(super) fn empty_block(&mut self, number: u32) -> Vec<(u32, u32)> {
        let cells = self.cells_of(number);
        // Out of the list first, so that no cell moves within the block.
        self.unlink(number);
        let bytes = std::mem::take(&mut self.block_mut(number).bytes);
        let class = self.block(number).class;
        let moves = cells.into_iter().map(|old| {
            let new = self.allocate(class);
            let range = self.block(number).range(split(old).1);
            self.cell_mut(new).copy_from_slice(&bytes[range]);
            (old, new)
        });
        let moves: Vec<_> = moves.collect();
        self.live_bytes -= moves.len() * class.size();
        self.classes[class.number()].live -= moves.len();
        self.give_back(number, bytes.len());
        moves
    }

    /// Asserts what the module promises; returns how many cells are live.
    #[cfg(any(test, feature = "sim"))]
    pub(super) fn check(&self) -> usize {
        let mut found = vec![ClassState::default(); CLASSES];
        let mut with_room = vec![0; CLASSES];
        for (number, block) in (1..).zip(&self.blocks) {
            if block.cells == 0 {
                assert!(self.vacant.contains(&number) && block.bytes.is_empty());
                continue;
            }
            let live = self.cells_of(number).len();
            assert_eq!(live, usize::from(block.live), "a block counts its live cells");
            let (mut free, mut cell) = (0, block.free);
            while cell != NO_CELL {
                let bytes = &block.bytes[block.range(u32::from(cell))];
                assert_eq!(bytes[..2], [0, 0], "a free cell is marked free");
                cell = u16::from_le_bytes([bytes[2], bytes[3]]);
                free += 1;
            }
            assert_eq!(usize::from(block.fresh), live + free, "every used cell is live or free");
            let state = &mut found[block.class.number()];
            state.blocks += 1;
            state.bytes += block.bytes.len();
            state.cells += usize::from(block.cells);
            state.live += live;
            with_room[block.class.number()] += usize::from(block.has_room());
        }
        for ((state, found), with_room) in self.classes.iter().zip(&found).zip(with_room) {
            assert_eq!(
                (state.blocks, state.bytes, state.cells, state.live),
                (found.blocks, found.bytes, found.cells, found.live),
                "a class counts its blocks"
            );
            let (mut listed, mut number) = (0, state.room);
            while number != NO_BLOCK {
                listed += 1;
                assert!(self.block(number).has_room(), "a listed block has room");
                number = self.block(number).next;
            }
            assert_eq!(listed, with_room, "every block with room is listed");
        }
        assert_eq!(self.bytes, found.iter().map(|state| state.bytes).sum::<usize>());
        let live = found.iter().map(|state| state.live).sum();
        let live_bytes = found.iter().zip(SIZES).map(|(state, size)| state.live * size as usize);
        assert_eq!(self.live_bytes, live_bytes.sum::<usize>(), "live bytes are counted");
        live
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::statistics::next_random;

    #[test]
    fn a_class_is_the_least_that_holds_the_size() {
        assert_eq!(SIZES[CLASSES - 1] as usize, CELL_MAX);
        assert!(SIZES.is_sorted_by(|one, next| one < next));
        for size in 0..=CELL_MAX {
            let class = Class::of(size).unwrap();
            assert!(class.size() >= size);
            assert!(class.0 == 0 || (SIZES[class.number() - 1] as usize) < size);
            assert!(size < 16 || class.size() - size < 128, "slack fits into a byte");
        }
        assert_eq!(Class::of(CELL_MAX + 1), None);
    }

    #[test]
    fn cells_come_and_go_and_blocks_go_with_the_last() {
        let mut arena = Arena::default();
        let (mut live, mut random) = (Vec::new(), 3);
        for round in 0..60_000u64 {
            let draw = next_random(&mut random);
            let growing = round % 20_000 < 10_000;
            if live.is_empty() || (draw % 8 < 5) == growing {
                let size = 16 + usize::try_from(draw >> 32).unwrap() % 600;
                let handle = arena.allocate(Class::of(size).unwrap());
                let marks = u16::try_from(1 + live.len() % 60_000).unwrap().to_le_bytes();
                arena.cell_mut(handle)[..2].copy_from_slice(&marks);
                live.push((handle, marks));
            } else {
                let at = usize::try_from(draw >> 8).unwrap() % live.len();
                let (handle, marks) = live.swap_remove(at);
                assert_eq!(arena.cell(handle)[..2], marks);
                arena.free(handle);
                assert!(!arena.is_live(handle));
            }
            if round % 5_000 == 0 {
                assert_eq!(arena.check(), live.len());
            }
        }
        for (handle, _) in live {
            assert!(arena.is_live(handle));
            arena.free(handle);
        }
        arena.check();
        assert_eq!(arena.heap_bytes(), 0);
    }

    #[test]
    fn sparse_blocks_are_emptied_until_little_is_idle() {
        let mut arena = Arena::default();
        let class = Class::of(88).unwrap();
        let mut live = Vec::new();
        for _ in 0..20_000u32 {
            let handle = arena.allocate(class);
            arena.cell_mut(handle)[0] = 1;
            live.push(handle);
        }
        let full = arena.heap_bytes();
        // Every tenth stays: no block becomes empty by itself.
        for (number, handle) in live.iter().enumerate() {
            if number % 10 != 0 {
                arena.free(*handle);
            }
        }
        while let Some(block) = arena.sparse_block() {
            arena.empty_block(block);
            arena.check();
        }
        assert_eq!(arena.check(), 2_000);
        assert!(arena.heap_bytes() < full / 6, "{} of {full}", arena.heap_bytes());
        assert!(arena.idle_bytes() < 3 * BLOCK_MAX);
    }

    #[test]
    fn a_stale_handle_is_recognised() {
        let mut arena = Arena::default();
        assert!(!arena.is_live(0));
        assert!(!arena.is_live(u32::MAX));
        let handle = arena.allocate(Class::of(4096).unwrap());
        arena.cell_mut(handle)[0] = 1;
        assert!(arena.is_live(handle));
        assert!(!arena.is_live(handle + 1000));
        arena.free(handle);
        assert!(!arena.is_live(handle));
    }
}
