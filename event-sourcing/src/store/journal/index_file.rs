//! The index of a sealed segment: one immutable file, made from the segment and rebuilt from it at will.
//!
//! Sections follow on each other, each in [blocks](super::blocks) of its own; all numbers are little-endian:
//!
//! | section | content |
//! |---|---|
//! | header | one block: what the file is about, and the lengths of the others |
//! | table | entries of 16 bytes in order of their hash: hash `u64`, count `u32`, place `u32` |
//! | lists | for each stream, type and label: kind `u32`, length of the name `u32`, first version `u64`, name, zeros up to a multiple of four, offsets `u32` |
//! | filter | a [`Filter`] of all hashes in the table |
//! | fences | the first hash `u64` of each block of the table |
//! | counts | for each type and schema: length of the name `u32`, schema `u32`, count `u64`, name |
//!
//! An entry with a count is a list of so many offsets, at a place in the lists section. One with a count of zero is an id or a key, and
//! its place is the offset. An offset counts positions from the first of the segment.
//!
//! The fences are in memory, and the filter is handed to whoever opens the file, so that a term is found with a read of one block of the table and one of the lists, and what is
//! not there mostly with none. Names are compared in full: names with the same hash are different terms here too.

use std::io;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use lattice_journal::{Disk, OpenMode, SegmentInfo};

use super::blocks::{BLOCK, Block, BlockWriter, Blocks, CONTENT, Fault, blocks_for, split, to_u64};
use super::filter::Filter;
use super::memtable::{Kind, Memtable, hash_name};
use crate::event::{EventType, Timestamp};
use crate::store::TypeCount;

/// The format that this crate writes, and the only one that it reads: a file of another one is rebuilt.
const FORMAT: u32 = 2;
const MAGIC: [u8; 8] = *b"LATTEIDX";
const ENTRY: usize = 16;
const ENTRY_LENGTH: u64 = 16;
/// Entries in a block of the table; the rest of the block is zeros.
const ENTRIES: u64 = 255;
/// Bytes of a list before its name.
const LIST_HEADER: usize = 16;
const OFFSET_LENGTH: u64 = 4;

/// What an index file is of: a segment as it is. A segment that was rewritten is of another generation, and so has no index until its
/// own is made. Two copies of one store that went on apart have segments of the same number, generation and positions, and perhaps
/// those files were mixed: the checksum tells them apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Binding {
    /// Identity of the journal.
    pub(super) journal: u128,
    /// Number of the segment.
    pub(super) segment: u64,
    /// How often the segment was rewritten.
    pub(super) generation: u64,
    /// Positions of the events in it.
    pub(super) positions: Range<u64>,
    /// Stands for all bytes of the segment: see [`SegmentInfo`](lattice_journal::SegmentInfo).
    pub(super) checksum: u32,
}

impl Binding {
    /// The binding of a segment; `None` if it is not complete.
    pub(super) fn of(journal: u128, segment: &SegmentInfo) -> Option<Self> {
        let SegmentInfo { number, generation, positions, .. } = segment;
        let positions = positions.clone();
        Some(Self {
            journal,
            segment: *number,
            generation: *generation,
            positions,
            checksum: segment.checksum?,
        })
    }

    fn encode(&self) -> Vec<u8> {
        let mut bytes = MAGIC.to_vec();
        bytes.extend_from_slice(&FORMAT.to_le_bytes());
        bytes.extend_from_slice(&self.journal.to_le_bytes());
        let Self { segment, positions, .. } = self;
        let (generation, checksum) =
            if planted!(StaleIndexTrusted) { (0, 0) } else { (self.generation, self.checksum) };
        for number in [*segment, generation, positions.start, positions.end] {
            bytes.extend_from_slice(&number.to_le_bytes());
        }
        bytes.extend_from_slice(&checksum.to_le_bytes());
        bytes
    }

    /// What the checksums of the file begin with.
    fn stamp(&self) -> u32 {
        crc32c::crc32c(&self.encode())
    }
}

/// An open index file.
#[derive(Debug)]
pub(super) struct IndexFile {
    blocks: Blocks,
    binding: Binding,
    sections: Sections,
    fences: Box<[u64]>,
    times: Option<(Timestamp, Timestamp)>,
}

/// A list of offsets in a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct FileList {
    /// Of a stream: the version of the first event.
    pub(super) first_version: u64,
    /// Place of the first offset in the lists section.
    at: u64,
    /// How many offsets.
    pub(super) count: u32,
}

/// The block of offsets that a cursor has read last.
#[derive(Debug, Default)]
pub(super) struct LastBlock(Option<(u64, Box<Block>)>);

/// Where the sections are and how long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Sections {
    entries: u64,
    lists: u64,
    filter: u64,
    counts: u64,
}

impl Sections {
    const TABLE: u64 = 1;

    fn table_blocks(&self) -> u64 {
        self.entries.div_ceil(ENTRIES)
    }

    fn lists_start(&self) -> u64 {
        Self::TABLE + self.table_blocks()
    }

    fn filter_start(&self) -> u64 {
        self.lists_start() + blocks_for(self.lists)
    }

    fn fences_start(&self) -> u64 {
        self.filter_start() + blocks_for(self.filter)
    }

    fn counts_start(&self) -> u64 {
        self.fences_start() + blocks_for(self.table_blocks() * 8)
    }

    fn end(&self) -> u64 {
        self.counts_start() + blocks_for(self.counts)
    }

    /// Whether they fill a file of so many blocks, so that no length in them is more than the file has.
    fn fill(&self, blocks: u64) -> bool {
        // No section has more bytes than the file; then the sums cannot overflow.
        let most = blocks.saturating_mul(to_u64(CONTENT));
        [self.entries, self.lists, self.filter, self.counts].iter().all(|length| *length <= most)
            && self.end() == blocks
    }
}

/// The file of a memtable's index, as bytes.
pub(super) fn encode(memtable: &Memtable, binding: &Binding) -> Vec<u8> {
    let mut lists = Vec::new();
    let mut table: Vec<(u64, u32, u32)> = Vec::new();
    let hashed = memtable.ids().iter().chain(memtable.keys().iter());
    table.extend(hashed.map(|(hash, offset)| (hash, 0, offset)));
    let mut put = |kind, name: &str, first_version, offsets: &[u32]| {
        let count = u32::try_from(offsets.len()).expect("a segment has less than 2^32 events");
        let at = put_list(&mut lists, kind, name, first_version, offsets);
        table.push((hash_name(kind, name), count, at));
    };
    for (name, list) in memtable.streams() {
        put(Kind::Stream, name.as_str(), list.first_version, &list.offsets);
    }
    for (name, offsets) in memtable.types() {
        put(Kind::Type, name.as_str(), 0, offsets);
    }
    for (name, offsets) in memtable.labels() {
        put(Kind::Label, name.as_str(), 0, offsets);
    }
    table.sort_unstable();

    let mut filter = Filter::for_keys(table.len());
    table.iter().for_each(|(hash, ..)| filter.insert(*hash));
    let filter = filter.to_bytes();
    let counts = encode_counts(&memtable.counts());
    let sections = Sections {
        entries: to_u64(table.len()),
        lists: to_u64(lists.len()),
        filter: to_u64(filter.len()),
        counts: to_u64(counts.len()),
    };

    let mut blocks = BlockWriter::new(binding.stamp());
    blocks.put(&encode_header(binding, &sections, memtable.times()));
    let per_block = usize::try_from(ENTRIES).expect("a small number");
    let mut fences = Vec::new();
    for entries in table.chunks(per_block) {
        let mut content = Vec::with_capacity(CONTENT);
        fences.extend_from_slice(&entries[0].0.to_le_bytes());
        for (hash, count, place) in entries {
            content.extend_from_slice(&hash.to_le_bytes());
            content.extend_from_slice(&count.to_le_bytes());
            content.extend_from_slice(&place.to_le_bytes());
        }
        blocks.put(&content);
    }
    [lists, filter, fences, counts].iter().for_each(|section| blocks.put(section));
    blocks.into_bytes()
}

/// Appends a list; returns its place.
fn put_list(
    lists: &mut Vec<u8>,
    kind: Kind,
    name: &str,
    first_version: u64,
    offsets: &[u32],
) -> u32 {
    let at = u32::try_from(lists.len()).expect("the lists of a segment have less than 4 GiB");
    lists.extend_from_slice(&u32::from(kind.code()).to_le_bytes());
    lists.extend_from_slice(&length_of(name).to_le_bytes());
    lists.extend_from_slice(&first_version.to_le_bytes());
    lists.extend_from_slice(name.as_bytes());
    lists.resize(lists.len().next_multiple_of(4), 0);
    lists.extend(offsets.iter().flat_map(|offset| offset.to_le_bytes()));
    at
}

fn length_of(name: &str) -> u32 {
    u32::try_from(name.len()).expect("names are short")
}

fn encode_counts(counts: &[TypeCount]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for TypeCount { event_type, schema, count } in counts {
        bytes.extend_from_slice(&length_of(event_type.as_str()).to_le_bytes());
        bytes.extend_from_slice(&schema.to_le_bytes());
        bytes.extend_from_slice(&count.to_le_bytes());
        bytes.extend_from_slice(event_type.as_str().as_bytes());
    }
    bytes
}

fn encode_header(
    binding: &Binding,
    sections: &Sections,
    times: Option<(Timestamp, Timestamp)>,
) -> Vec<u8> {
    let mut header = binding.encode();
    let Sections { entries, lists, filter, counts } = sections;
    let (first, last) = times.unwrap_or_default();
    let known = u64::from(times.is_some());
    for number in [*entries, *lists, *filter, *counts, known, first.0, last.0] {
        header.extend_from_slice(&number.to_le_bytes());
    }
    header
}

impl IndexFile {
    /// Opens the file of a segment, and reads its filter.
    ///
    /// # Errors
    ///
    /// [`Fault::Damaged`] if the file is not the index of this segment as it is, or if what is read of it here is not intact:
    /// then it has to be made again. [`Fault::Io`] with `NotFound` if there is none.
    pub(super) fn open(
        disk: &dyn Disk,
        path: &Path,
        binding: &Binding,
    ) -> Result<(Self, Filter), Fault> {
        let file: Arc<_> = disk.open(path, OpenMode::Read)?.into();
        let blocks = Blocks::new(file, binding.stamp())?;
        let header = blocks.read(0)?;
        let about = binding.encode();
        let (found, rest) = header.split_at(about.len());
        if found != about {
            return Err(Fault::Damaged);
        }
        let number = |at: usize| u64_at(rest, at * 8);
        let sections =
            Sections { entries: number(0), lists: number(1), filter: number(2), counts: number(3) };
        if !sections.fill(blocks.count()) {
            return Err(Fault::Damaged);
        }
        let times = (number(4) != 0).then(|| (Timestamp(number(5)), Timestamp(number(6))));
        let filter = blocks.read_all(sections.filter_start(), in_memory(sections.filter)?)?;
        let filter = Filter::from_bytes(&filter).ok_or(Fault::Damaged)?;
        let fences = in_memory(sections.table_blocks() * 8)?;
        let fences = blocks.read_all(sections.fences_start(), fences)?;
        let (fences, _) = fences.as_chunks::<8>();
        let fences = fences.iter().map(|fence| u64::from_le_bytes(*fence)).collect();
        let binding = binding.clone();
        Ok((Self { blocks, binding, sections, fences, times }, filter))
    }

    /// What it is of.
    pub(super) fn binding(&self) -> &Binding {
        &self.binding
    }

    /// Times of the first and the last event that was not scavenged when the file was made.
    pub(super) fn times(&self) -> Option<(Timestamp, Timestamp)> {
        self.times
    }

    /// Length of the file in bytes.
    pub(super) fn length(&self) -> u64 {
        self.blocks.length()
    }

    /// Bytes in memory.
    pub(super) fn memory(&self) -> usize {
        size_of::<Self>() + self.fences.len() * size_of::<u64>()
    }

    /// The list of a name.
    pub(super) fn list(&self, kind: Kind, name: &str) -> Result<Option<FileList>, Fault> {
        for (count, place) in self.entries(hash_name(kind, name))? {
            if count == 0 {
                continue;
            }
            // Header and name together are in one block, mostly.
            let (at, size) = (u64::from(place), LIST_HEADER + name.len());
            let rest = usize::try_from(self.sections.lists.saturating_sub(at)).unwrap_or(size);
            let bytes = self.lists_bytes(at, size.min(rest))?;
            let Some((header, found)) = bytes.split_at_checked(LIST_HEADER) else {
                return Err(Fault::Damaged);
            };
            let (code, length) = (u32_at(header, 0), u32_at(header, 4));
            let same = code == u32::from(kind.code()) && length == length_of(name);
            if !same || found != name.as_bytes() {
                continue;
            }
            let at = (at + to_u64(size)).next_multiple_of(4);
            return Ok(Some(FileList { first_version: u64_at(header, 8), at, count }));
        }
        Ok(None)
    }

    /// Offsets of the events whose id, or key, has this hash.
    pub(super) fn hashed(&self, hash: u64) -> Result<Vec<u32>, Fault> {
        let found = self.entries(hash)?.into_iter();
        Ok(found.filter(|(count, _)| *count == 0).map(|(_, offset)| offset).collect())
    }

    /// The offset at a place of a list.
    pub(super) fn offset(
        &self,
        list: &FileList,
        rank: u32,
        last: &mut LastBlock,
    ) -> Result<u32, Fault> {
        let (block, place) = split(list.at + u64::from(rank) * OFFSET_LENGTH);
        let number = self.sections.lists_start() + block;
        match &last.0 {
            Some((held, content)) if *held == number => Ok(u32_at(&content[..], place)),
            _ => {
                let content = self.blocks.read(number)?;
                let offset = u32_at(&content[..], place);
                last.0 = Some((number, content));
                Ok(offset)
            }
        }
    }

    /// How many offsets of a list are less than `bound`.
    pub(super) fn rank(
        &self,
        list: &FileList,
        bound: u32,
        last: &mut LastBlock,
    ) -> Result<u32, Fault> {
        let (mut low, mut high) = (0, list.count);
        while low < high {
            let middle = low + (high - low) / 2;
            if self.offset(list, middle, last)? < bound {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        Ok(low)
    }

    /// How many events are of each type and schema.
    pub(super) fn counts(&self) -> Result<Vec<TypeCount>, Fault> {
        let length = in_memory(self.sections.counts)?;
        let bytes = self.blocks.read_all(self.sections.counts_start(), length)?;
        let mut rest = &bytes[..];
        let mut counts = Vec::new();
        while !rest.is_empty() {
            let (header, names) = rest.split_at_checked(16).ok_or(Fault::Damaged)?;
            let length = in_memory(u64::from(u32_at(header, 0)))?;
            let (name, after) = names.split_at_checked(length).ok_or(Fault::Damaged)?;
            let name = std::str::from_utf8(name).ok().and_then(|name| EventType::new(name).ok());
            let event_type = name.ok_or(Fault::Damaged)?;
            let (schema, count) = (u32_at(header, 4), u64_at(header, 8));
            counts.push(TypeCount { event_type, schema, count });
            rest = after;
        }
        Ok(counts)
    }

    /// Whether the file is exactly what [`encode`] makes.
    pub(super) fn is(&self, bytes: &[u8]) -> Result<bool, Fault> {
        if self.blocks.length() != to_u64(bytes.len()) {
            return Ok(false);
        }
        for (block, number) in bytes.chunks(BLOCK).zip(0..) {
            if self.blocks.read(number)?[..] != *block {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Count and place of every entry with this hash.
    fn entries(&self, hash: u64) -> Result<Vec<(u32, u32)>, Fault> {
        let mut found = Vec::new();
        // Entries with one hash may begin at the end of a block whose fence is lower.
        let mut block = self.fences.partition_point(|fence| *fence < hash).saturating_sub(1);
        while self.fences.get(block).is_some_and(|fence| *fence <= hash) {
            let number = to_u64(block);
            let content = self.blocks.read(Sections::TABLE + number)?;
            let count = (self.sections.entries - number * ENTRIES).min(ENTRIES);
            let (entries, _) = content.as_chunks::<ENTRY>();
            let entries = &entries[..usize::try_from(count).expect("at most 255")];
            let from = entries.partition_point(|entry| u64_at(entry, 0) < hash);
            let same = entries[from..].iter().take_while(|entry| u64_at(&entry[..], 0) == hash);
            found.extend(same.map(|entry| (u32_at(entry, 8), u32_at(entry, 12))));
            block += 1;
        }
        Ok(found)
    }

    /// Bytes of the lists section.
    fn lists_bytes(&self, at: u64, length: usize) -> Result<Vec<u8>, Fault> {
        if at + to_u64(length) > self.sections.lists {
            return Err(Fault::Damaged);
        }
        let (mut block, mut place) = split(at);
        let mut bytes = Vec::with_capacity(length);
        while bytes.len() < length {
            let content = self.blocks.read(self.sections.lists_start() + block)?;
            let wanted = (length - bytes.len()).min(CONTENT - place);
            bytes.extend_from_slice(&content[place..place + wanted]);
            (block, place) = (block + 1, 0);
        }
        Ok(bytes)
    }
}

/// Bytes of an entry of the table fill its block but for a rest.
const _: () = assert!(ENTRIES * ENTRY_LENGTH <= 4092);

fn in_memory(length: u64) -> Result<usize, Fault> {
    usize::try_from(length).ok().ok_or(Fault::Io(io::ErrorKind::OutOfMemory.into()))
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"))
}

#[cfg(test)]
mod tests;
