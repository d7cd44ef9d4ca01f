//! The manifest of a snapshot, version 2: what it stands for, and its parts. Drawn byte by byte in `docs/formats.md`.
//!
//! A snapshot is read as one run of bytes, the manifest and then all parts in order; [`Manifest::place`] says which part a byte of
//! it belongs to. Every byte of a manifest is under its checksum, and every byte of a part under a digest in it. Counts and
//! lengths are believed only as far as the bytes reach.

use std::collections::BTreeSet;
use std::fmt;

use sha2::{Digest as _, Sha256};

use crate::membership::Membership;
use crate::types::{EntryId, LogIndex, SnapshotMeta, Term};

const VERSION: u32 = 2;
const MAGIC: [u8; 8] = *b"LATTSNAP";
/// Magic, version, length of the manifest.
const HEAD: usize = 8 + 4 + 4;
/// Checksum of everything before it.
const CRC: usize = 4;

/// The membership of forty thousand nodes.
const MEMBERSHIP_MAX: usize = 1 << 20;
/// Longest name of a part, in bytes.
pub(super) const NAME_MAX: usize = 1024;
/// Largest part, in bytes.
pub(super) const DATA_MAX: usize = 64 << 20;
/// Longest manifest, in bytes: some three hundred thousand parts.
pub(super) const MANIFEST_MAX: usize = 16 << 20;

/// SHA-256 of a part's bytes: what a part is known by, on every node.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct PartDigest(pub(super) [u8; 32]);

/// One part, as the manifest lists it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Listed {
    pub(super) name: String,
    /// Length in bytes.
    pub(super) size: u32,
    pub(super) digest: PartDigest,
}

/// A snapshot's parts, and what they stand for together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Manifest {
    pub(super) last: EntryId,
    pub(super) membership: Membership,
    pub(super) parts: Vec<Listed>,
    /// Where each part ends in the snapshot's run of bytes.
    ends: Vec<u64>,
    /// Its own length in bytes.
    length: u64,
    checksum: u32,
}

/// What a byte of a snapshot belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    Manifest,
    /// Byte `within` of part number `part`.
    Part {
        part: usize,
        within: u32,
    },
    End,
}

/// Why bytes are not what they should be.
pub(super) type Flaw = &'static str;

impl PartDigest {
    pub(super) fn of(data: &[u8]) -> Self {
        Self(Sha256::digest(data).into())
    }

    /// The inverse of `Display`.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let mut digest = [0; 32];
        let is_lower_hex = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
        if text.len() != 64 || !text.bytes().all(is_lower_hex) {
            return None;
        }
        for (byte, pair) in digest.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
            *byte = u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?;
        }
        Some(Self(digest))
    }
}

impl fmt::Display for PartDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for PartDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// What one part adds to a manifest, in bytes.
pub(super) fn listed_length(name: &str) -> usize {
    2 + name.len() + 4 + 32
}

/// What a manifest without parts takes, in bytes.
pub(super) fn empty_length(membership: &Membership) -> usize {
    HEAD + 8 + 8 + 4 + membership.encoded_len() + 4 + CRC
}

/// The length of a manifest, once its first bytes are here.
pub(super) fn declared_length(bytes: &[u8]) -> Result<Option<usize>, Flaw> {
    if bytes.len() < HEAD {
        return Ok(None);
    }
    let mut rest = bytes;
    if take::<8>(&mut rest) != Some(MAGIC) {
        return Err("it does not begin like a snapshot");
    }
    if u32_of(&mut rest) != Some(VERSION) {
        return Err("its version is not one that this program knows");
    }
    let length = u32_of(&mut rest).and_then(|length| usize::try_from(length).ok());
    match length {
        Some(length) if (HEAD + CRC..=MANIFEST_MAX).contains(&length) => Ok(Some(length)),
        _ => Err("its manifest has an impossible length"),
    }
}

impl Manifest {
    /// Encodes a manifest; returns it with its bytes. The caller has kept to the limits.
    pub(super) fn encode(
        last: EntryId,
        membership: Membership,
        parts: Vec<Listed>,
    ) -> (Self, Vec<u8>) {
        let listed: usize = parts.iter().map(|part| listed_length(&part.name)).sum();
        let length = empty_length(&membership) + listed;
        let mut bytes = Vec::with_capacity(length);
        bytes.extend_from_slice(&MAGIC);
        bytes.extend_from_slice(&VERSION.to_le_bytes());
        bytes.extend_from_slice(&bounded(length).to_le_bytes());
        bytes.extend_from_slice(&last.term.0.to_le_bytes());
        bytes.extend_from_slice(&last.index.0.to_le_bytes());
        bytes.extend_from_slice(&bounded(membership.encoded_len()).to_le_bytes());
        membership.encode(&mut bytes);
        bytes.extend_from_slice(&bounded(parts.len()).to_le_bytes());
        for part in &parts {
            let name = u16::try_from(part.name.len()).expect("names are bounded");
            bytes.extend_from_slice(&name.to_le_bytes());
            bytes.extend_from_slice(part.name.as_bytes());
            bytes.extend_from_slice(&part.size.to_le_bytes());
            bytes.extend_from_slice(&part.digest.0);
        }
        let checksum = crc32c::crc32c(&bytes);
        bytes.extend_from_slice(&checksum.to_le_bytes());
        (Self::new(last, membership, parts, bytes.len(), checksum), bytes)
    }

    /// Reads what [`Self::encode`] wrote: all of it, and nothing behind it.
    pub(super) fn decode(bytes: &[u8]) -> Result<Self, Flaw> {
        if declared_length(bytes)? != Some(bytes.len()) {
            return Err("its manifest is cut short");
        }
        let (content, checksum) = bytes.split_last_chunk::<CRC>().expect("the length says so");
        let checksum = u32::from_le_bytes(*checksum);
        if crc32c::crc32c(content) != checksum {
            return Err("its manifest is damaged");
        }
        let (last, membership, parts) =
            decode_content(&content[HEAD..]).ok_or("its manifest makes no sense")?;
        Ok(Self::new(last, membership, parts, bytes.len(), checksum))
    }

    fn new(
        last: EntryId,
        membership: Membership,
        parts: Vec<Listed>,
        length: usize,
        checksum: u32,
    ) -> Self {
        let length = u64::from(bounded(length));
        let mut end = length;
        let ends = parts.iter().map(|part| {
            // Neither count nor length of parts exceeds 32 bits.
            end += u64::from(part.size);
            end
        });
        let ends = ends.collect();
        Self { last, membership, parts, ends, length, checksum }
    }

    /// What the log records of the snapshot.
    pub(super) fn meta(&self) -> SnapshotMeta {
        SnapshotMeta {
            last: self.last,
            membership: self.membership.clone(),
            size: self.size(),
            checksum: self.checksum,
        }
    }

    /// Its own length in bytes, without the parts.
    pub(super) fn length(&self) -> u64 {
        self.length
    }

    /// Bytes of the manifest and all parts.
    pub(super) fn size(&self) -> u64 {
        self.ends.last().copied().unwrap_or(self.length)
    }

    /// Where a part begins in the snapshot's run of bytes.
    pub(super) fn start(&self, part: usize) -> u64 {
        self.ends[part] - u64::from(self.parts[part].size)
    }

    /// What the byte at `offset` belongs to.
    pub(super) fn place(&self, offset: u64) -> Place {
        if offset < self.length {
            return Place::Manifest;
        }
        let part = self.ends.partition_point(|end| *end <= offset);
        if part == self.parts.len() {
            return Place::End;
        }
        let within = u32::try_from(offset - self.start(part)).expect("parts are bounded");
        Place::Part { part, within }
    }
}

fn decode_content(mut rest: &[u8]) -> Option<(EntryId, Membership, Vec<Listed>)> {
    let rest = &mut rest;
    let term = Term(u64_of(rest)?);
    let last = EntryId::new(term, LogIndex(u64_of(rest)?));
    let length = usize::try_from(u32_of(rest)?).ok().filter(|&length| length <= MEMBERSHIP_MAX)?;
    let membership = Membership::decode(take_slice(rest, length)?).ok()?;
    let count = u32_of(rest)?;
    let mut parts = Vec::new();
    let mut names = BTreeSet::new();
    let nothing = PartDigest::of(b"");
    for _ in 0..count {
        let length = take(rest).map(u16::from_le_bytes)?;
        let name = std::str::from_utf8(take_slice(rest, usize::from(length))?).ok()?;
        let size = u32_of(rest)?;
        let digest = PartDigest(take(rest)?);
        if name.len() > NAME_MAX || usize::try_from(size).ok()? > DATA_MAX || !names.insert(name) {
            return None;
        }
        // A part without bytes has no file: it would be believed to be here.
        if size == 0 && digest != nothing {
            return None;
        }
        parts.push(Listed { name: name.to_owned(), size, digest });
    }
    rest.is_empty().then_some((last, membership, parts))
}

fn bounded(length: usize) -> u32 {
    u32::try_from(length).expect("manifests are bounded")
}

fn take_slice<'a>(rest: &mut &'a [u8], length: usize) -> Option<&'a [u8]> {
    let (slice, behind) = rest.split_at_checked(length)?;
    *rest = behind;
    Some(slice)
}

fn take<const N: usize>(rest: &mut &[u8]) -> Option<[u8; N]> {
    let (chunk, behind) = rest.split_first_chunk::<N>()?;
    *rest = behind;
    Some(*chunk)
}

fn u32_of(rest: &mut &[u8]) -> Option<u32> {
    take(rest).map(u32::from_le_bytes)
}

fn u64_of(rest: &mut &[u8]) -> Option<u64> {
    take(rest).map(u64::from_le_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::{NodeId, StoreId};

    fn sample() -> (Manifest, Vec<u8>) {
        let mut members = Membership::founding([NodeId(1), NodeId(2)]);
        members.bind(NodeId(2), StoreId(77));
        let part = |name: &str, data: &[u8]| Listed {
            name: name.to_owned(),
            size: u32::try_from(data.len()).unwrap(),
            digest: PartDigest::of(data),
        };
        let parts = vec![part("keys", b"abc"), part("empty", b""), part("leases", b"defgh")];
        Manifest::encode(EntryId::new(Term(3), LogIndex(9)), members, parts)
    }

    #[test]
    fn what_was_encoded_is_decoded() {
        let (manifest, bytes) = sample();
        assert_eq!(Manifest::decode(&bytes), Ok(manifest.clone()));
        assert_eq!(declared_length(&bytes[..HEAD]), Ok(Some(bytes.len())));
        assert_eq!(manifest.size(), u64::try_from(bytes.len()).unwrap() + 8);
    }

    #[test]
    fn each_byte_has_its_place_and_empty_parts_have_none() {
        let (manifest, bytes) = sample();
        let start = u64::try_from(bytes.len()).unwrap();
        assert_eq!(manifest.place(0), Place::Manifest);
        assert_eq!(manifest.place(start - 1), Place::Manifest);
        assert_eq!(manifest.place(start), Place::Part { part: 0, within: 0 });
        assert_eq!(manifest.place(start + 2), Place::Part { part: 0, within: 2 });
        assert_eq!(manifest.place(start + 3), Place::Part { part: 2, within: 0 });
        assert_eq!(manifest.place(start + 8), Place::End);
        assert_eq!(manifest.place(u64::MAX), Place::End);
    }

    #[test]
    fn every_flipped_bit_every_cut_and_every_tail_is_found() {
        let (_, bytes) = sample();
        for position in 0..bytes.len() {
            for bit in 0..8 {
                let mut damaged = bytes.clone();
                damaged[position] ^= 1 << bit;
                assert!(Manifest::decode(&damaged).is_err(), "bit {bit} of byte {position}");
            }
            assert!(Manifest::decode(&bytes[..position]).is_err(), "cut at {position}");
        }
        let longer = [bytes.as_slice(), &[0]].concat();
        assert!(Manifest::decode(&longer).is_err());
    }

    /// A manifest whose checksum is right, and whose content is not.
    fn forged(change: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
        let (_, mut bytes) = sample();
        bytes.truncate(bytes.len() - CRC);
        change(&mut bytes);
        let length = u32::try_from(bytes.len() + CRC).unwrap();
        bytes[12..16].copy_from_slice(&length.to_le_bytes());
        let checksum = crc32c::crc32c(&bytes);
        bytes.extend_from_slice(&checksum.to_le_bytes());
        bytes
    }

    #[test]
    fn lies_about_counts_lengths_and_names_are_refused() {
        let (manifest, bytes) = sample();
        assert_eq!(Manifest::decode(&forged(|_| {})), Ok(manifest.clone()), "the forgery works");
        let count_at = empty_length(&manifest.membership) - CRC - 4;
        let first = count_at + 4;
        let lie = |at: usize, value: &[u8]| {
            let forged = forged(|bytes| bytes[at..at + value.len()].copy_from_slice(value));
            assert!(Manifest::decode(&forged).is_err(), "{value:?} at {at}");
        };
        lie(count_at, &u32::MAX.to_le_bytes());
        lie(count_at, &2u32.to_le_bytes());
        lie(32, &u32::MAX.to_le_bytes());
        lie(first, &u16::MAX.to_le_bytes());
        lie(first + 2 + 4, &(u32::try_from(DATA_MAX).unwrap() + 1).to_le_bytes());
        lie(first + 2, b"\xff\xff\xff\xff");
        let empty = first + listed_length("keys") + 2 + "empty".len();
        lie(empty + 4, &PartDigest::of(b"abc").0);
        let twice = forged(|bytes| {
            let part = bytes[first..first + listed_length("keys")].to_vec();
            bytes.extend_from_slice(&part);
            bytes[count_at..count_at + 4].copy_from_slice(&4u32.to_le_bytes());
        });
        assert!(Manifest::decode(&twice).is_err(), "a name twice");
        let huge = u32::try_from(MANIFEST_MAX + 1).unwrap().to_le_bytes();
        assert!(declared_length(&[&bytes[..12], &huge].concat()).is_err());
        assert!(declared_length(&[&bytes[..8], &[1, 0, 0, 0, 9, 0, 0, 0]].concat()).is_err());
    }

    #[test]
    fn digests_are_read_as_they_are_written() {
        let digest = PartDigest::of(b"abc");
        assert_eq!(
            digest.to_string(),
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
        );
        assert_eq!(PartDigest::parse(&digest.to_string()), Some(digest));
        let text = digest.to_string();
        for wrong in [&text[1..], &text.to_uppercase(), &format!("+{}", &text[1..]), ""] {
            assert_eq!(PartDigest::parse(wrong), None, "{wrong}");
        }
    }
}
