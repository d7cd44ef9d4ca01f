//! What is in a cell: an entry's header, its key, and its value or the number of the object that has it.
//!
//! ```text
//! flags 2 | meta 2 | slack 1 | key length 1 or 2 | deadline 0, 5 or 8 | version 0 or 8 | key | body | slack
//! ```
//!
//! - *flags*: kind (3 bits, never 0), database (4 bits, as the shard numbers them), and what else the header has;
//! - *meta*: what eviction notes of the entry's use;
//! - *slack*: how many bytes of the cell are not used, so that the body's length is not stored;
//! - *deadline*: milliseconds since the beginning of 2020 in five bytes, which last until the end of 2054, or since 1970 in eight.
//!
//! So an entry of 16 bytes of key and 64 of value takes a cell of 88 bytes, and one of 92 with a deadline.

use super::eviction::Meta;
use crate::types::{UnixMillis, Version};
use crate::value::Kind;

const KIND: u16 = 0b111;
const OBJECT: u16 = 1 << 3;
const DEADLINE_SHORT: u16 = 1 << 4;
const DEADLINE_LONG: u16 = 1 << 5;
const VERSION: u16 = 1 << 6;
const KEY_LONG: u16 = 1 << 7;
const KEY_IN_OBJECT: u16 = 1 << 8;
const PARTS: u16 = 1 << 9;
const EPOCH: u16 = 1 << 10;
const DATABASE_SHIFT: u32 = 12;

/// 2020-01-01 in milliseconds since the Unix epoch.
const BASE: u64 = 1_577_836_800_000;

/// Bytes before the key's length.
const FIXED: usize = 5;

/// What an entry's header tells, and what a new one is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Header {
    /// What kind of value it is.
    pub(super) kind: Kind,
    /// The database, as the shard numbers them; below 16.
    pub(super) database: u8,
    /// What eviction notes.
    pub(super) meta: Meta,
    /// Whether the body is an object's number.
    pub(super) object: bool,
    /// Whether the object has the key as well.
    pub(super) key_in_object: bool,
    /// Whether parts of the value have deadlines of their own.
    pub(super) parts: bool,
    /// A mark of the expiry (`expiry`).
    pub(super) epoch: bool,
    /// When it expires.
    pub(super) deadline: Option<UnixMillis>,
    /// Its last mutation, if versions are kept.
    pub(super) version: Option<Version>,
}

fn kind_bits(kind: Kind) -> u16 {
    match kind {
        Kind::String => 1,
        Kind::List => 2,
        Kind::Set => 3,
        Kind::SortedSet => 4,
        Kind::Hash => 5,
    }
}

fn short_deadline(deadline: UnixMillis) -> Option<u64> {
    deadline.0.checked_sub(BASE).filter(|since| *since < 1 << 40)
}

impl Header {
    fn flags(&self, key: usize) -> u16 {
        let bit = |set: bool, bit: u16| if set { bit } else { 0 };
        let deadline = match self.deadline {
            None => 0,
            Some(deadline) if short_deadline(deadline).is_some() => DEADLINE_SHORT,
            Some(_) => DEADLINE_LONG,
        };
        kind_bits(self.kind)
            | bit(self.object, OBJECT)
            | deadline
            | bit(self.version.is_some(), VERSION)
            | bit(key > usize::from(u8::MAX), KEY_LONG)
            | bit(self.key_in_object, KEY_IN_OBJECT)
            | bit(self.parts, PARTS)
            | bit(self.epoch, EPOCH)
            | (u16::from(self.database) << DATABASE_SHIFT)
    }

    /// The size of an entry of this header, a key of `key` bytes and a body of `body` bytes.
    pub(super) fn size(&self, key: usize, body: usize) -> usize {
        key_start(self.flags(key)) + key + body
    }

    /// Writes an entry into `cell`, which it fits.
    pub(super) fn write(&self, cell: &mut [u8], key: &[u8], body: &[u8]) {
        let flags = self.flags(key.len());
        let start = key_start(flags);
        let end = start + key.len() + body.len();
        let slack = u8::try_from(cell.len() - end).expect("cell sizes are less than 256 apart");
        cell[..2].copy_from_slice(&flags.to_le_bytes());
        cell[2..4].copy_from_slice(&self.meta.to_le_bytes());
        cell[4] = slack;
        let length = u16::try_from(key.len()).expect("a key in a cell is shorter than the cell");
        let [low, high] = length.to_le_bytes();
        cell[FIXED] = low;
        let mut at = FIXED + 1;
        if flags & KEY_LONG != 0 {
            cell[at] = high;
            at += 1;
        }
        if let Some(deadline) = self.deadline {
            match short_deadline(deadline) {
                Some(since) => cell[at..at + 5].copy_from_slice(&since.to_le_bytes()[..5]),
                None => cell[at..at + 8].copy_from_slice(&deadline.0.to_le_bytes()),
            }
            at += deadline_bytes(flags);
        }
        if let Some(version) = self.version {
            cell[at..at + 8].copy_from_slice(&version.0.to_le_bytes());
        }
        cell[start..start + key.len()].copy_from_slice(key);
        cell[start + key.len()..end].copy_from_slice(body);
    }

    /// Reads the header of a live cell.
    #[inline]
    pub(super) fn read(cell: &[u8]) -> Self {
        let flags = flags(cell);
        let kind = kind(cell);
        let version_at = key_length_end(flags) + deadline_bytes(flags);
        let version = (flags & VERSION != 0).then(|| Version(long(&cell[version_at..])));
        Self {
            kind,
            database: database(cell),
            meta: meta(cell),
            object: flags & OBJECT != 0,
            key_in_object: flags & KEY_IN_OBJECT != 0,
            parts: flags & PARTS != 0,
            epoch: flags & EPOCH != 0,
            deadline: deadline(cell),
            version,
        }
    }
}

#[inline]
fn flags(cell: &[u8]) -> u16 {
    u16::from_le_bytes([cell[0], cell[1]])
}

fn long(bytes: &[u8]) -> u64 {
    u64::from_le_bytes(bytes[..8].try_into().expect("eight bytes"))
}

#[inline]
fn key_length_end(flags: u16) -> usize {
    FIXED + 1 + usize::from(flags & KEY_LONG != 0)
}

#[inline]
fn deadline_bytes(flags: u16) -> usize {
    match flags & (DEADLINE_SHORT | DEADLINE_LONG) {
        0 => 0,
        DEADLINE_SHORT => 5,
        _ => 8,
    }
}

#[inline]
fn key_start(flags: u16) -> usize {
    key_length_end(flags) + deadline_bytes(flags) + if flags & VERSION != 0 { 8 } else { 0 }
}

#[inline]
fn key_range(cell: &[u8]) -> std::ops::Range<usize> {
    let flags = flags(cell);
    let high = if flags & KEY_LONG != 0 { cell[FIXED + 1] } else { 0 };
    let start = key_start(flags);
    start..start + usize::from(u16::from_le_bytes([cell[FIXED], high]))
}

/// The kind of the value of a live cell.
#[inline]
pub(super) fn kind(cell: &[u8]) -> Kind {
    match flags(cell) & KIND {
        1 => Kind::String,
        2 => Kind::List,
        3 => Kind::Set,
        4 => Kind::SortedSet,
        _ => Kind::Hash,
    }
}

/// The database of a live cell, as the shard numbers them.
pub(super) fn database(cell: &[u8]) -> u8 {
    cell[1] >> (DATABASE_SHIFT - u8::BITS)
}

/// The key of a live cell; empty if the object has it.
#[inline]
pub(super) fn key(cell: &[u8]) -> &[u8] {
    &cell[key_range(cell)]
}

/// Whether the object has the key.
#[inline]
pub(super) fn is_key_in_object(cell: &[u8]) -> bool {
    flags(cell) & KEY_IN_OBJECT != 0
}

/// The packed value of a live cell, or its object's number.
#[inline]
pub(super) fn body(cell: &[u8]) -> &[u8] {
    &cell[key_range(cell).end..cell.len() - usize::from(cell[4])]
}

/// The number of the object that has the value, if one has.
#[inline]
pub(super) fn object(cell: &[u8]) -> Option<u32> {
    (flags(cell) & OBJECT != 0)
        .then(|| u32::from_le_bytes(body(cell).try_into().expect("an object's number is 4 bytes")))
}

/// When the entry of a live cell expires.
#[inline]
pub(super) fn deadline(cell: &[u8]) -> Option<UnixMillis> {
    let flags = flags(cell);
    let at = key_length_end(flags);
    match flags & (DEADLINE_SHORT | DEADLINE_LONG) {
        0 => None,
        DEADLINE_SHORT => {
            let mut bytes = [0; 8];
            bytes[..5].copy_from_slice(&cell[at..at + 5]);
            Some(UnixMillis(BASE + u64::from_le_bytes(bytes)))
        }
        _ => Some(UnixMillis(long(&cell[at..]))),
    }
}

/// Whether parts of the value of a live cell have deadlines of their own.
pub(super) fn has_parts(cell: &[u8]) -> bool {
    flags(cell) & PARTS != 0
}

/// What eviction notes of a live cell.
#[inline]
pub(super) fn meta(cell: &[u8]) -> Meta {
    u16::from_le_bytes([cell[2], cell[3]])
}

/// Notes something else.
#[inline]
pub(super) fn set_meta(cell: &mut [u8], meta: Meta) {
    cell[2..4].copy_from_slice(&meta.to_le_bytes());
}

/// The expiry's mark of a live cell.
pub(super) fn epoch(cell: &[u8]) -> bool {
    flags(cell) & EPOCH != 0
}

/// Sets the expiry's mark.
pub(super) fn set_epoch(cell: &mut [u8], epoch: bool) {
    let flags = if epoch { flags(cell) | EPOCH } else { flags(cell) & !EPOCH };
    cell[..2].copy_from_slice(&flags.to_le_bytes());
}

/// Sets whether parts of the value have deadlines of their own.
pub(super) fn set_parts(cell: &mut [u8], parts: bool) {
    let flags = if parts { flags(cell) | PARTS } else { flags(cell) & !PARTS };
    cell[..2].copy_from_slice(&flags.to_le_bytes());
}

/// Writes the version over the old one, if the entry of a live cell has one.
pub(super) fn set_version(cell: &mut [u8], version: Version) {
    let flags = flags(cell);
    if flags & VERSION != 0 {
        let at = key_length_end(flags) + deadline_bytes(flags);
        cell[at..at + 8].copy_from_slice(&version.0.to_le_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::arena::Class;

    fn header() -> Header {
        Header {
            kind: Kind::String,
            database: 0,
            meta: 0,
            object: false,
            key_in_object: false,
            parts: false,
            epoch: false,
            deadline: None,
            version: None,
        }
    }

    #[test]
    fn an_entry_reads_as_it_was_written() {
        let deadlines = [
            None,
            Some(UnixMillis(0)),
            Some(UnixMillis(BASE - 1)),
            Some(UnixMillis(BASE)),
            Some(UnixMillis(BASE + (1 << 40) - 1)),
            Some(UnixMillis(BASE + (1 << 40))),
            Some(UnixMillis(u64::MAX)),
        ];
        let kinds = [Kind::String, Kind::List, Kind::Set, Kind::SortedSet, Kind::Hash];
        let mut variant = 0usize;
        for deadline in deadlines {
            for key in [0, 1, 255, 256, 1_000] {
                for body in [0, 4, 64, 3_000] {
                    variant += 1;
                    let header = Header {
                        kind: kinds[variant % 5],
                        database: u8::try_from(variant % 16).unwrap(),
                        meta: u16::try_from(variant).unwrap(),
                        parts: variant.is_multiple_of(3),
                        epoch: variant.is_multiple_of(7),
                        deadline,
                        version: variant.is_multiple_of(2).then_some(Version(u64::MAX - 5)),
                        ..header()
                    };
                    let (key, body) = (vec![7; key], vec![9; body]);
                    let class = Class::of(header.size(key.len(), body.len())).unwrap();
                    let mut cell = vec![0xAA; class.size()];
                    header.write(&mut cell, &key, &body);
                    assert_eq!(Header::read(&cell), header);
                    assert_eq!((super::key(&cell), super::body(&cell)), (&key[..], &body[..]));
                    let version = header.version.map(|_| Version(77));
                    set_version(&mut cell, Version(77));
                    set_meta(&mut cell, 1);
                    set_epoch(&mut cell, true);
                    set_parts(&mut cell, false);
                    let after = Header { version, meta: 1, epoch: true, parts: false, ..header };
                    assert_eq!(Header::read(&cell), after);
                    assert_eq!((super::key(&cell), super::body(&cell)), (&key[..], &body[..]));
                }
            }
        }
    }

    #[test]
    fn the_sizes_that_the_head_promises() {
        let cell = |header: Header| Class::of(header.size(16, 64)).unwrap().size();
        let deadline = Some(UnixMillis(BASE + 1));
        let version = Some(Version(1));
        assert_eq!(cell(header()), 88);
        assert_eq!(cell(Header { deadline, ..header() }), 92);
        assert_eq!(cell(Header { version, ..header() }), 96);
        assert_eq!(cell(Header { version, deadline, ..header() }), 100);
    }
}
