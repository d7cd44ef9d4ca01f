//! The snapshot file, version 1: header, parts, manifest, trailer. Drawn byte by byte in `docs/formats.md`.
//!
//! The trailer comes last and says where the manifest is, so a file that was cut anywhere is not a snapshot. Every
//! byte is under a checksum or compared with a value that is. Lengths are believed only as far as the file reaches.

use crate::membership::Membership;
use crate::types::{EntryId, LogIndex, Term};

pub(super) const VERSION: u32 = 1;
const MAGIC: [u8; 8] = *b"LATTSNAP";
const PART_MAGIC: [u8; 4] = *b"PART";
const TRAILER_MAGIC: [u8; 8] = *b"SNAPDONE";

/// Magic, version, length of the membership, last entry's term and index.
pub(super) const HEADER_FIXED: usize = 8 + 4 + 4 + 8 + 8;
/// Magic, length of name, length of data, checksum of both.
pub(super) const PART_HEADER: usize = 4 + 4 + 4 + 4;
/// Where the manifest begins, its length, its checksum, magic.
pub(super) const TRAILER: usize = 8 + 4 + 4 + 8;

/// The membership of forty thousand nodes.
const MEMBERSHIP_MAX: u32 = 1 << 20;
/// Longest name of a part, in bytes.
pub(super) const NAME_MAX: usize = 1024;
/// Largest part, in bytes.
pub(super) const DATA_MAX: usize = 64 << 20;
/// Longest manifest, in bytes: some million parts.
pub(super) const MANIFEST_MAX: usize = 64 << 20;

/// One part, as the manifest lists it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Listed {
    pub(super) name: String,
    pub(super) size: u32,
    /// CRC32C of name and data.
    pub(super) checksum: u32,
}

/// What the end of the file says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Trailer {
    pub(super) manifest_offset: u64,
    pub(super) manifest_length: u32,
    pub(super) manifest_checksum: u32,
}

/// Why bytes are not what they should be.
pub(super) type Flaw = &'static str;

pub(super) fn encode_header(last: EntryId, membership: &Membership) -> Vec<u8> {
    let mut members = Vec::with_capacity(membership.encoded_len());
    membership.encode(&mut members);
    let mut bytes = Vec::with_capacity(HEADER_FIXED + members.len() + 4);
    bytes.extend_from_slice(&MAGIC);
    bytes.extend_from_slice(&VERSION.to_le_bytes());
    let length = u32::try_from(members.len()).expect("a membership is smaller than 4 GiB");
    bytes.extend_from_slice(&length.to_le_bytes());
    bytes.extend_from_slice(&last.term.0.to_le_bytes());
    bytes.extend_from_slice(&last.index.0.to_le_bytes());
    bytes.extend_from_slice(&members);
    bytes.extend_from_slice(&crc32c::crc32c(&bytes).to_le_bytes());
    bytes
}

/// The length of the whole header, from its fixed part.
pub(super) fn header_length(fixed: &[u8]) -> Result<usize, Flaw> {
    let mut rest = fixed;
    if take::<8>(&mut rest) != Some(MAGIC) {
        return Err("it does not begin like a snapshot");
    }
    if u32_of(&mut rest) != Some(VERSION) {
        return Err("its version is not one that this program knows");
    }
    let members = u32_of(&mut rest).filter(|&members| members <= MEMBERSHIP_MAX);
    let members = members.ok_or("its header is damaged")?;
    Ok(HEADER_FIXED + usize::try_from(members).expect("bounded above") + 4)
}

/// The last entry and the membership, from the whole header.
pub(super) fn decode_header(bytes: &[u8]) -> Result<(EntryId, Membership), Flaw> {
    const FLAW: Flaw = "its header is damaged";
    let (content, checksum) = bytes.split_last_chunk::<4>().ok_or(FLAW)?;
    if crc32c::crc32c(content) != u32::from_le_bytes(*checksum) {
        return Err(FLAW);
    }
    let mut rest = content.get(16..).ok_or(FLAW)?;
    let term = u64_of(&mut rest).ok_or(FLAW)?;
    let index = u64_of(&mut rest).ok_or(FLAW)?;
    let membership = Membership::decode(rest).ok().ok_or(FLAW)?;
    Ok((EntryId::new(Term(term), LogIndex(index)), membership))
}

pub(super) fn encode_part_header(part: &Listed) -> [u8; PART_HEADER] {
    let name = u32::try_from(part.name.len()).expect("names are bounded");
    let mut bytes = [0; PART_HEADER];
    bytes[0..4].copy_from_slice(&PART_MAGIC);
    bytes[4..8].copy_from_slice(&name.to_le_bytes());
    bytes[8..12].copy_from_slice(&part.size.to_le_bytes());
    bytes[12..16].copy_from_slice(&part.checksum.to_le_bytes());
    bytes
}

pub(super) fn encode_manifest(parts: &[Listed]) -> Vec<u8> {
    let mut bytes = Vec::new();
    let count = u32::try_from(parts.len()).expect("the manifest's length is bounded");
    bytes.extend_from_slice(&count.to_le_bytes());
    for part in parts {
        let name = u32::try_from(part.name.len()).expect("names are bounded");
        bytes.extend_from_slice(&name.to_le_bytes());
        bytes.extend_from_slice(part.name.as_bytes());
        bytes.extend_from_slice(&part.size.to_le_bytes());
        bytes.extend_from_slice(&part.checksum.to_le_bytes());
    }
    bytes.extend_from_slice(&total(parts).to_le_bytes());
    bytes
}

/// What one part adds to the manifest, in bytes.
pub(super) fn manifest_length(name: &str) -> usize {
    4 + name.len() + 4 + 4
}

/// Bytes of data in all parts.
fn total(parts: &[Listed]) -> u64 {
    parts.iter().map(|part| u64::from(part.size)).sum()
}

pub(super) fn decode_manifest(bytes: &[u8]) -> Result<Vec<Listed>, Flaw> {
    let mut rest = bytes;
    let parts = decode_parts(&mut rest).ok_or("its manifest is damaged")?;
    if u64_of(&mut rest) != Some(total(&parts)) || !rest.is_empty() {
        return Err("its manifest does not add up");
    }
    Ok(parts)
}

fn decode_parts(rest: &mut &[u8]) -> Option<Vec<Listed>> {
    let count = u32_of(rest)?;
    let mut parts = Vec::new();
    for _ in 0..count {
        let length = usize::try_from(u32_of(rest)?).ok()?;
        let (name, behind) = rest.split_at_checked(length)?;
        *rest = behind;
        let name = std::str::from_utf8(name).ok()?.to_owned();
        let (size, checksum) = (u32_of(rest)?, u32_of(rest)?);
        if length > NAME_MAX || usize::try_from(size).ok()? > DATA_MAX {
            return None;
        }
        parts.push(Listed { name, size, checksum });
    }
    Some(parts)
}

pub(super) fn encode_trailer(trailer: Trailer) -> [u8; TRAILER] {
    let mut bytes = [0; TRAILER];
    bytes[0..8].copy_from_slice(&trailer.manifest_offset.to_le_bytes());
    bytes[8..12].copy_from_slice(&trailer.manifest_length.to_le_bytes());
    bytes[12..16].copy_from_slice(&trailer.manifest_checksum.to_le_bytes());
    bytes[16..24].copy_from_slice(&TRAILER_MAGIC);
    bytes
}

/// Reads the trailer of a file of `length` bytes, and checks that the manifest lies right before it.
pub(super) fn decode_trailer(bytes: &[u8; TRAILER], length: u64) -> Result<Trailer, Flaw> {
    let mut rest = &bytes[..];
    let fields = (u64_of(&mut rest), u32_of(&mut rest), u32_of(&mut rest));
    let (Some(manifest_offset), Some(manifest_length), Some(manifest_checksum)) = fields else {
        return Err("its trailer is damaged");
    };
    if rest != TRAILER_MAGIC {
        return Err("it does not end like a snapshot");
    }
    let behind = u64::from(manifest_length) + u64::try_from(TRAILER).expect("a small constant");
    let fits = usize::try_from(manifest_length).is_ok_and(|length| length <= MANIFEST_MAX);
    if !fits || manifest_offset.checked_add(behind) != Some(length) {
        return Err("its trailer points nowhere");
    }
    Ok(Trailer { manifest_offset, manifest_length, manifest_checksum })
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
