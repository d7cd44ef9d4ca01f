//! The whole state as a sequence of parts, written beside `apply` and read back all or not at all.
//!
//! **Writing.** Versions are immutable, so a view only has to remember the revision at which it was
//! taken: it then reads the store slice by slice under short locks and passes over everything
//! newer, while writes go on. (Compaction will have to wait for views, or views will have to hold
//! its horizon back.) Parts end at versions whose hash says so, not after so many bytes: so a
//! part stays what it is while nothing in it changes, and Raft neither sends nor writes it again.
//!
//! **Reading.** A new state is built beside the old one and takes its place only after the last
//! part, when all counts and the state hash agree with what the head of the snapshot says. Parts
//! are checked for form by whoever carries them; here they are checked for sense, so that a part
//! that is missing, repeated, out of order or of another snapshot is an error and never a wrong
//! state.
//!
//! The bytes are drawn in `docs/formats.md`.

use std::ops::ControlFlow;

use bytes::Bytes;
use raft_consensus::state_machine::{BoxError, Part, SnapshotParts, SnapshotView};

use crate::codec::{Decoder, Malformed, put_bytes, put_i64, put_len, put_u64};
use crate::key_value::Version;
use crate::lease::LeaseId;
use crate::machine::{SharedState, lock};
use crate::member::MemberAttributes;
use crate::revision::Revision;
use crate::state::State;
use crate::store::{ExportCursor, StateStore, StoreSize};

/// The version of the codec that this build writes, and the newest that it reads.
pub const CODEC_VERSION: u8 = 1;

/// A part ends behind the first version that [`ends_part`], once it has the smallest of these lengths, and when it has
/// reached the largest; so it is larger by one version at most.
const PART_BYTES: std::ops::RangeInclusive<usize> = 256 << 10..=4 << 20;

/// Bytes from one version that ends a part to the next, on average.
const PART_SPAN: u64 = 1 << 20;

/// How much of the store is read before the lock is let go.
const SLICE_VERSIONS: usize = 512;
const SLICE_BYTES: usize = 256 << 10;

const KIND_HEAD: u8 = 1;
const KIND_VERSIONS: u8 = 2;

const RECORD_KEY: u8 = 1;
const RECORD_PUT: u8 = 2;
const RECORD_TOMBSTONE: u8 = 3;

/// Why a snapshot was not restored. The state is as it was.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SnapshotError {
    /// The parts could not be had.
    #[error("cannot read the snapshot")]
    Source(#[source] BoxError),
    /// A newer build wrote it.
    #[error(
        "snapshot part {part} has codec version {version}, this build knows up to {CODEC_VERSION}"
    )]
    UnknownVersion {
        /// The part's name.
        part: String,
        /// Its version.
        version: u8,
    },
    /// There is no part at all.
    #[error("the snapshot has no parts")]
    Empty,
    /// A part is not what should stand in its place.
    #[error("snapshot part {part} is malformed")]
    Malformed {
        /// The part's name.
        part: String,
    },
    /// The parts are well-formed, but not those that the head speaks of.
    #[error("the snapshot should have {expected} as its {what}, but has {found}")]
    Mismatch {
        /// What was counted.
        what: &'static str,
        /// The head's word.
        expected: u64,
        /// What the other parts came to.
        found: u64,
    },
}

/// What the first part says of the others.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Head {
    revision: i64,
    wall_clock_ms: u64,
    members: Vec<MemberAttributes>,
    size: StoreSize,
    hash: u64,
}

/// A snapshot on its way out.
pub(crate) struct View<S> {
    state: SharedState<S>,
    head: Head,
    /// Where the next part begins; `None` at the end.
    cursor: Option<ExportCursor>,
    parts: u64,
}

impl Head {
    fn of<S: StateStore>(state: &State<S>) -> Self {
        Self {
            revision: state.revision,
            wall_clock_ms: state.wall_clock_ms,
            members: state.members.values().cloned().collect(),
            size: state.store.size(),
            hash: state.hash().hash,
        }
    }

    fn encode(&self) -> Bytes {
        let mut out = vec![CODEC_VERSION, KIND_HEAD];
        put_i64(&mut out, self.revision);
        put_u64(&mut out, self.wall_clock_ms);
        put_u64(&mut out, self.size.keys);
        put_u64(&mut out, self.size.versions);
        put_u64(&mut out, self.size.bytes);
        put_u64(&mut out, self.hash);
        put_len(&mut out, self.members.len());
        for member in &self.members {
            member.encode(&mut out);
        }
        out.into()
    }

    /// Reads what [`Self::encode`] wrote behind version and kind.
    fn decode(mut decoder: Decoder) -> Result<Self, Malformed> {
        let revision = decoder.non_negative()?;
        if !(Revision::EMPTY_STORE..=Revision::MAIN_MAX).contains(&revision) {
            return Err(Malformed);
        }
        let wall_clock_ms = decoder.u64()?;
        let size =
            StoreSize { keys: decoder.u64()?, versions: decoder.u64()?, bytes: decoder.u64()? };
        let hash = decoder.u64()?;
        let mut members = Vec::new();
        for _ in 0..decoder.u64()? {
            members.push(MemberAttributes::decode(&mut decoder)?);
        }
        decoder.finish()?;
        Ok(Self { revision, wall_clock_ms, members, size, hash })
    }
}

impl<S: StateStore> View<S> {
    /// The state as of now.
    pub(crate) fn new(state: SharedState<S>) -> Self {
        let head = Head::of(&lock(&state));
        Self { state, head, cursor: Some(ExportCursor::default()), parts: 0 }
    }

    /// Appends the next slice of the store to a part; says whether the part ends with it.
    fn read_slice(&mut self, out: &mut Vec<u8>, last_key: &mut Vec<u8>) -> bool {
        let Some(after) = self.cursor.take() else { return true };
        let slice_end = out.len().saturating_add(SLICE_BYTES);
        let mut is_end = false;
        let state = lock(&self.state);
        self.cursor =
            state.store.export(&after, self.head.revision, SLICE_VERSIONS, &mut |key, version| {
                if key != last_key {
                    out.push(RECORD_KEY);
                    put_bytes(out, key);
                    last_key.clear();
                    last_key.extend_from_slice(key);
                }
                encode_version(out, version);
                is_end = out.len() >= *PART_BYTES.end()
                    || out.len() >= *PART_BYTES.start() && ends_part(key, version);
                if is_end || out.len() >= slice_end {
                    ControlFlow::Break(())
                } else {
                    ControlFlow::Continue(())
                }
            });
        is_end
    }
}

/// Whether a part may end behind this version: the more likely the longer it is, and a function of nothing else than the version, so
/// that a write elsewhere leaves the part as it is. (FNV-1a, and the end of `SplitMix64` to mix it.)
fn ends_part(key: &[u8], version: &Version) -> bool {
    let Revision { main, sub } = version.revision;
    let bytes = key.iter().copied().chain(main.to_le_bytes()).chain(sub.to_le_bytes());
    let mut hash = bytes.fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    });
    hash = (hash ^ (hash >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    hash = (hash ^ (hash >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    hash ^= hash >> 31;
    hash % PART_SPAN < u64::try_from(key.len() + version.value.len()).unwrap_or(u64::MAX)
}

impl<S: StateStore> SnapshotView for View<S> {
    fn next_part(&mut self) -> Result<Option<Part>, BoxError> {
        if self.parts == 0 {
            self.parts = 1;
            return Ok(Some(Part { name: "head".to_owned(), data: self.head.encode() }));
        }
        let mut out = vec![CODEC_VERSION, KIND_VERSIONS];
        let empty = out.len();
        // Every part names its first key, even if the part before it ended in the same history.
        let mut last_key = Vec::new();
        while !self.read_slice(&mut out, &mut last_key) && self.cursor.is_some() {}
        if out.len() == empty {
            return Ok(None);
        }
        let name = format!("versions-{}", self.parts);
        self.parts += 1;
        Ok(Some(Part { name, data: out.into() }))
    }
}

fn encode_version(out: &mut Vec<u8>, version: &Version) {
    out.push(if version.is_tombstone() { RECORD_TOMBSTONE } else { RECORD_PUT });
    put_i64(out, version.revision.main);
    put_i64(out, version.revision.sub);
    if !version.is_tombstone() {
        put_i64(out, version.create_revision);
        put_i64(out, version.version);
        put_i64(out, version.lease.0);
        put_bytes(out, &version.value);
    }
}

/// Builds the state that the parts describe, or says what is wrong with them.
pub(crate) fn restore<S: StateStore>(
    parts: &mut dyn SnapshotParts,
) -> Result<State<S>, SnapshotError> {
    let first = next_part(parts)?.ok_or(SnapshotError::Empty)?;
    let head =
        Head::decode(open_part(&first, KIND_HEAD)?).map_err(|Malformed| malformed(&first))?;
    let mut restoring = Restoring { state: State::new(), last: ExportCursor::default() };
    restoring.state.revision = head.revision;
    restoring.state.wall_clock_ms = head.wall_clock_ms;
    for member in &head.members {
        restoring.state.members.insert(member.id, member.clone());
    }
    while let Some(part) = next_part(parts)? {
        let decoder = open_part(&part, KIND_VERSIONS)?;
        restoring.take_in(decoder).map_err(|Malformed| malformed(&part))?;
    }
    agree(&head, &Head::of(&restoring.state))?;
    Ok(restoring.state)
}

fn next_part(parts: &mut dyn SnapshotParts) -> Result<Option<Part>, SnapshotError> {
    parts.next_part().map_err(SnapshotError::Source)
}

/// Reads a part's version and kind.
fn open_part(part: &Part, kind: u8) -> Result<Decoder, SnapshotError> {
    let mut decoder = Decoder::new(part.data.clone());
    match decoder.byte() {
        Ok(CODEC_VERSION) => {}
        Ok(version) if version > CODEC_VERSION => {
            return Err(SnapshotError::UnknownVersion { part: part.name.clone(), version });
        }
        Ok(_) | Err(Malformed) => return Err(malformed(part)),
    }
    if decoder.byte() == Ok(kind) { Ok(decoder) } else { Err(malformed(part)) }
}

fn malformed(part: &Part) -> SnapshotError {
    SnapshotError::Malformed { part: part.name.clone() }
}

fn agree(head: &Head, found: &Head) -> Result<(), SnapshotError> {
    let sums = [
        ("number of keys", head.size.keys, found.size.keys),
        ("number of versions", head.size.versions, found.size.versions),
        ("number of bytes", head.size.bytes, found.size.bytes),
        ("state hash", head.hash, found.hash),
    ];
    match sums.into_iter().find(|(_, expected, found)| expected != found) {
        Some((what, expected, found)) => Err(SnapshotError::Mismatch { what, expected, found }),
        None => Ok(()),
    }
}

/// A state that is being built from parts.
struct Restoring<S> {
    state: State<S>,
    /// The last version taken in: whatever comes must stand behind it.
    last: ExportCursor,
}

impl<S: StateStore> Restoring<S> {
    /// Takes in the records of one part.
    fn take_in(&mut self, mut decoder: Decoder) -> Result<(), Malformed> {
        let mut key: Option<Bytes> = None;
        while !decoder.is_empty() {
            let version = match decoder.byte()? {
                RECORD_KEY => {
                    key = Some(decoder.bytes()?);
                    continue;
                }
                RECORD_PUT => decode_put(&mut decoder)?,
                RECORD_TOMBSTONE => Version::tombstone(decode_revision(&mut decoder)?),
                _ => return Err(Malformed),
            };
            self.append(key.as_ref().ok_or(Malformed)?, version)?;
        }
        Ok(())
    }

    /// Checks that a version can be part of this state, and stands in its place.
    fn append(&mut self, key: &Bytes, version: Version) -> Result<(), Malformed> {
        let revision = version.revision;
        let is_in_order = match key.cmp(&self.last.key) {
            std::cmp::Ordering::Less => false,
            std::cmp::Ordering::Equal => revision > self.last.revision,
            std::cmp::Ordering::Greater => true,
        };
        if key.is_empty() || !is_in_order || revision.main > self.state.revision {
            return Err(Malformed);
        }
        if self.last.key != *key {
            self.last.key = key.clone();
        }
        self.last.revision = revision;
        self.state.write(key, version);
        Ok(())
    }
}

/// A revision that a write can have made.
fn decode_revision(decoder: &mut Decoder) -> Result<Revision, Malformed> {
    let revision = Revision::new(decoder.non_negative()?, decoder.non_negative()?);
    if revision.main > Revision::EMPTY_STORE { Ok(revision) } else { Err(Malformed) }
}

fn decode_put(decoder: &mut Decoder) -> Result<Version, Malformed> {
    let revision = decode_revision(decoder)?;
    let version = Version {
        revision,
        create_revision: decoder.non_negative()?,
        version: decoder.non_negative()?,
        lease: LeaseId(decoder.i64()?),
        value: decoder.bytes()?,
    };
    // A key is created by a write, and each of its versions took a revision of its own since then.
    let earlier = revision.main - version.create_revision;
    let is_possible = version.create_revision > Revision::EMPTY_STORE
        && version.version > 0
        && version.version - 1 <= earlier;
    if is_possible { Ok(version) } else { Err(Malformed) }
}
