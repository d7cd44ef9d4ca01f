//! The directory of a group's snapshots: which files there are, and which of them are needed.
//!
//! - `<index>-<term>-<crc>.snap`: the manifest of a snapshot. From the moment it has this name, the snapshot is there.
//! - `<index>-<term>-<crc>.incoming`: the manifest of a snapshot that a leader is sending.
//! - `<sha-256>.part`: a part, whole and synced before it got its name.
//! - `<number>.tmp`: a file that has no name yet; it goes with whoever writes it, or at the next start. A writer that outlived its
//!   node may be at work beside the next one: nobody takes a number that somebody else has had.
//!
//! A part is needed while a manifest lists it, or while somebody who writes or reads a snapshot has it pinned; what is not
//! needed is swept away, by whoever owns the directory. With a manifest that cannot be read, nobody knows what is needed, and no
//! part goes.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use lattice_journal::{Disk, DiskFile, OpenMode};
use sha2::{Digest as _, Sha256};

use super::manifest::{Listed, MANIFEST_MAX, Manifest, PartDigest};
use super::{SnapshotCounts, SnapshotError};
use crate::types::{EntryId, LogIndex, SnapshotMeta, Term};

pub(super) const SNAPSHOT: &str = ".snap";
pub(super) const INCOMING: &str = ".incoming";
const PART: &str = ".part";
const TEMPORARY: &str = ".tmp";

/// Bytes of a part read at a time while it is checked.
const READ_BYTES: usize = 256 << 10;
/// Space is taken in steps of this many bytes: a length that the sender lied about costs no more than one of them.
const ALLOCATION_STEP: u64 = 8 << 20;

/// The directory.
#[derive(Debug)]
pub(super) struct Files {
    disk: Arc<dyn Disk>,
    directory: PathBuf,
    /// The number of the next temporary file.
    temporary: AtomicU64,
    /// How many users each part has, beside the manifests.
    pins: Mutex<BTreeMap<PartDigest, u32>>,
    pub(super) counters: Counters,
    #[cfg(feature = "sim")]
    pub(super) bug: Option<crate::sim::PlantedBug>,
}

/// What has gone through the directory, in bytes.
#[derive(Debug, Default)]
pub(super) struct Counters {
    pub(super) sent: AtomicU64,
    pub(super) received: AtomicU64,
    pub(super) kept: AtomicU64,
    pub(super) resumed: AtomicU64,
    pub(super) written: AtomicU64,
    pub(super) reused: AtomicU64,
}

/// Parts that are not to be swept away.
#[derive(Debug)]
pub(super) struct Pinned {
    files: Arc<Files>,
    digests: Vec<PartDigest>,
}

/// A part that is being written. Dropped unfinished, it leaves nothing behind.
#[derive(Debug)]
pub(super) struct PartFile {
    files: Arc<Files>,
    listed: Listed,
    path: PathBuf,
    file: Box<dyn DiskFile>,
    written: u32,
    allocated: u64,
    hasher: Sha256,
    is_temporary: bool,
}

impl Counters {
    pub(super) fn add(counter: &AtomicU64, bytes: u64) {
        counter.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(super) fn read(&self) -> SnapshotCounts {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        SnapshotCounts {
            bytes_sent: read(&self.sent),
            bytes_received: read(&self.received),
            bytes_kept: read(&self.kept),
            bytes_resumed: read(&self.resumed),
            bytes_written: read(&self.written),
            bytes_reused: read(&self.reused),
        }
    }
}

impl Files {
    /// The directory, created if need be.
    pub(super) fn open(disk: Arc<dyn Disk>, directory: &Path) -> Result<Self, SnapshotError> {
        let create = disk.create_dir(directory);
        create.map_err(|error| SnapshotError::io("create the directory of", directory, error))?;
        Ok(Self {
            disk,
            directory: directory.to_path_buf(),
            temporary: AtomicU64::default(),
            pins: Mutex::default(),
            counters: Counters::default(),
            #[cfg(feature = "sim")]
            bug: None,
        })
    }

    pub(super) fn directory(&self) -> &Path {
        &self.directory
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    fn part_path(&self, digest: PartDigest) -> PathBuf {
        self.path(&format!("{digest}{PART}"))
    }

    /// The names of all files, sorted.
    pub(super) fn names(&self) -> Result<Vec<String>, SnapshotError> {
        let names = self.disk.list(&self.directory);
        names.map_err(|error| SnapshotError::fatal("list", &self.directory, error))
    }

    /// Makes names that were given and removed durable.
    pub(super) fn sync_names(&self) -> Result<(), SnapshotError> {
        let sync = self.disk.sync_dir(&self.directory);
        sync.map_err(|error| SnapshotError::fatal("sync", &self.directory, error))
    }

    /// Opens a file to read it; `None` if there is none.
    fn open_existing(&self, path: &Path) -> Result<Option<Box<dyn DiskFile>>, SnapshotError> {
        match self.disk.open(path, OpenMode::Read) {
            Ok(file) => Ok(Some(file)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(SnapshotError::fatal("open", path, error)),
        }
    }

    fn create_temporary(&self) -> Result<(Box<dyn DiskFile>, PathBuf), SnapshotError> {
        loop {
            let number = self.temporary.fetch_add(1, Ordering::Relaxed);
            let path = self.path(&format!("{number}{TEMPORARY}"));
            match self.disk.open(&path, OpenMode::CreateNew) {
                Ok(file) => return Ok((file, path)),
                // Another writer's: as many tries as there are such files.
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(SnapshotError::io("create", &path, error)),
            }
        }
    }

    /// Whoever still writes one of those temporary files will find it removed, and never another under its name.
    pub(super) fn number_temporaries_after(&self, names: &[String]) {
        let numbers = names.iter().filter_map(|name| name.strip_suffix(TEMPORARY)?.parse().ok());
        let next = numbers.max().map_or(0, |number: u64| number.saturating_add(1));
        self.temporary.fetch_max(next, Ordering::Relaxed);
    }

    pub(super) fn rename(&self, from: &Path, to: &Path) -> Result<(), SnapshotError> {
        let rename = self.disk.rename(from, to);
        rename.map_err(|error| SnapshotError::io("rename", from, error))
    }

    /// Removes the files that `is_doomed`, durably.
    pub(super) fn remove_where(
        &self,
        names: &[String],
        is_doomed: impl Fn(&str) -> bool,
    ) -> Result<bool, SnapshotError> {
        let mut removed = false;
        for name in names.iter().filter(|name| is_doomed(name)) {
            let path = self.path(name);
            match self.disk.remove(&path) {
                Ok(()) => removed = true,
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(SnapshotError::fatal("remove", &path, error)),
            }
        }
        if removed {
            self.sync_names()?;
        }
        Ok(removed)
    }

    // Manifests.

    /// Writes a manifest under `name`, synced; the name itself is durable after [`Self::sync_names`].
    pub(super) fn write_manifest(&self, name: &str, bytes: &[u8]) -> Result<(), SnapshotError> {
        let (file, path) = self.create_temporary()?;
        let write = || {
            let length = u64::try_from(bytes.len()).expect("a length fits 64 bits");
            let write = file.allocate(length).and_then(|()| file.write_at(bytes, 0));
            write.map_err(|error| SnapshotError::io("write", &path, error))?;
            file.sync_data().map_err(|error| SnapshotError::fatal("sync", &path, error))?;
            self.rename(&path, &self.path(name))
        };
        write().inspect_err(|_| self.remove_temporary(&path))
    }

    /// Reads the manifest called `name`; `None` if there is none.
    pub(super) fn read_manifest(&self, name: &str) -> Result<Option<Manifest>, SnapshotError> {
        let bytes = self.manifest_bytes(name)?;
        bytes.map(|bytes| self.decode_manifest(name, &bytes)).transpose()
    }

    pub(super) fn decode_manifest(
        &self,
        name: &str,
        bytes: &[u8],
    ) -> Result<Manifest, SnapshotError> {
        Manifest::decode(bytes).map_err(|flaw| SnapshotError::corrupt(&self.path(name), flaw))
    }

    /// The bytes of the manifest called `name`, whatever they are; `None` if there is none.
    pub(super) fn manifest_bytes(&self, name: &str) -> Result<Option<Vec<u8>>, SnapshotError> {
        let path = self.path(name);
        let Some(file) = self.open_existing(&path)? else { return Ok(None) };
        let length = file.length().map_err(|error| SnapshotError::fatal("read", &path, error))?;
        let length = usize::try_from(length).ok().filter(|&length| length <= MANIFEST_MAX);
        let length = length.ok_or_else(|| SnapshotError::corrupt(&path, "it is too long"))?;
        let mut bytes = vec![0; length];
        read_exact(file.as_ref(), &path, &mut bytes, 0)?;
        Ok(Some(bytes))
    }

    // Parts.

    /// Whether a part is here: all of it is read, and its digest compared. One that cannot be read is not here.
    pub(super) fn holds(&self, part: &Listed) -> bool {
        if part.size == 0 {
            return true;
        }
        let path = self.part_path(part.digest);
        let Ok(Some(file)) = self.open_existing(&path) else { return false };
        #[cfg(feature = "sim")]
        if self.bug == Some(crate::sim::PlantedBug::ResumedPartNotVerified) {
            return true;
        }
        if file.length().ok() != Some(u64::from(part.size)) {
            return false;
        }
        let (mut hasher, mut offset, size) = (Sha256::new(), 0, u64::from(part.size));
        let mut buffer = vec![0; READ_BYTES.min(usize::try_from(part.size).expect("bounded"))];
        while offset < size {
            let length = buffer.len().min(usize::try_from(size - offset).expect("bounded"));
            if read_exact(file.as_ref(), &path, &mut buffer[..length], offset).is_err() {
                return false;
            }
            hasher.update(&buffer[..length]);
            offset += u64::try_from(length).expect("bounded");
        }
        self.address(part, PartDigest(hasher.finalize().into())) == part.digest
    }

    /// Bytes of a part from `offset` on. They are not compared with its digest.
    pub(super) fn read_part(
        &self,
        part: &Listed,
        offset: u32,
        length: usize,
    ) -> Result<Bytes, SnapshotError> {
        if length == 0 {
            return Ok(Bytes::new());
        }
        let path = self.part_path(part.digest);
        let file = self.open_existing(&path)?;
        let file = file.ok_or_else(|| SnapshotError::corrupt(&path, "it is gone"))?;
        let mut bytes = vec![0; length];
        read_exact(file.as_ref(), &path, &mut bytes, u64::from(offset))?;
        Ok(bytes.into())
    }

    /// A whole part, verified.
    pub(super) fn read_whole_part(&self, part: &Listed) -> Result<Bytes, SnapshotError> {
        let size = usize::try_from(part.size).expect("parts are bounded");
        let bytes = self.read_part(part, 0, size)?;
        if self.address(part, PartDigest::of(&bytes)) == part.digest {
            Ok(bytes)
        } else {
            let path = self.part_path(part.digest);
            Err(SnapshotError::corrupt(&path, "its digest is not the one that it is called by"))
        }
    }

    /// The digest that a part with this content is known by: that of its content, and nothing else.
    pub(super) fn address(&self, part: &Listed, content: PartDigest) -> PartDigest {
        #[cfg(feature = "sim")]
        if self.bug == Some(crate::sim::PlantedBug::PartTakenByName) && part.size > 0 {
            return PartDigest::of(format!("{} {}", part.name, part.size).as_bytes());
        }
        let _ = part;
        content
    }

    /// Removes the parts that nobody needs.
    pub(super) fn sweep(&self) -> Result<(), SnapshotError> {
        // Held to the end: whoever gives up a pin has put its manifest there before.
        let pins = self.lock_pins();
        let names = self.names()?;
        let mut needed: BTreeSet<PartDigest> = pins.keys().copied().collect();
        for name in names.iter().filter(|name| parse_manifest_name(name).is_some()) {
            match self.read_manifest(name) {
                Ok(Some(manifest)) => needed.extend(manifest.parts.iter().map(|part| part.digest)),
                Ok(None) => {}
                // Damaged, or on a bad sector. Nothing was written that is in doubt now: parts too many are no reason to stop.
                Err(_) => return Ok(()),
            }
        }
        let is_doomed = |name: &str| parse_part(name).is_some_and(|part| !needed.contains(&part));
        self.remove_where(&names, is_doomed)?;
        Ok(())
    }

    fn lock_pins(&self) -> MutexGuard<'_, BTreeMap<PartDigest, u32>> {
        // A panic leaves a part too many at worst.
        self.pins.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn remove_temporary(&self, path: &Path) {
        // If it cannot be removed now, it is when the store is opened next.
        let _ = self.disk.remove(path);
    }
}

impl Pinned {
    pub(super) fn none(files: &Arc<Files>) -> Self {
        Self { files: Arc::clone(files), digests: Vec::new() }
    }

    pub(super) fn all(files: &Arc<Files>, manifest: &Manifest) -> Self {
        let mut pinned = Self::none(files);
        manifest.parts.iter().for_each(|part| pinned.pin(part.digest));
        pinned
    }

    pub(super) fn pin(&mut self, digest: PartDigest) {
        *self.files.lock_pins().entry(digest).or_default() += 1;
        self.digests.push(digest);
    }

    pub(super) fn release(&mut self) {
        let mut pins = self.files.lock_pins();
        for digest in self.digests.drain(..) {
            let users = pins.get_mut(&digest).expect("it was pinned");
            *users -= 1;
            if *users == 0 {
                pins.remove(&digest);
            }
        }
    }
}

impl Drop for Pinned {
    fn drop(&mut self) {
        self.release();
    }
}

impl PartFile {
    pub(super) fn create(files: &Arc<Files>, listed: &Listed) -> Result<Self, SnapshotError> {
        let (file, path, is_temporary) = files.create_part(listed)?;
        Ok(Self {
            files: Arc::clone(files),
            listed: listed.clone(),
            path,
            file,
            written: 0,
            allocated: 0,
            hasher: Sha256::new(),
            is_temporary,
        })
    }

    /// How much has been written.
    pub(super) fn written(&self) -> u32 {
        self.written
    }

    pub(super) fn is_whole(&self) -> bool {
        self.written == self.listed.size
    }

    /// Appends to the part. [`SnapshotError::Corrupt`] if that makes it longer than it should be.
    pub(super) fn write(&mut self, data: &[u8]) -> Result<(), SnapshotError> {
        let end =
            u32::try_from(data.len()).ok().and_then(|length| self.written.checked_add(length));
        let end = end.filter(|&end| end <= self.listed.size);
        let end = end.ok_or_else(|| SnapshotError::corrupt(&self.path, "a part is too long"))?;
        if u64::from(end) > self.allocated {
            let wanted = u64::from(end).max(self.allocated + ALLOCATION_STEP);
            self.allocated = wanted.min(u64::from(self.listed.size));
            let allocate = self.file.allocate(self.allocated);
            allocate.map_err(|error| SnapshotError::io("allocate", &self.path, error))?;
        }
        let write = self.file.write_at(data, u64::from(self.written));
        write.map_err(|error| SnapshotError::io("write", &self.path, error))?;
        self.hasher.update(data);
        self.written = end;
        Ok(())
    }

    /// Ends the part, and gives it its name if it has the digest that it should have; says whether it has. The name is durable after
    /// [`Files::sync_names`].
    pub(super) fn finish(mut self) -> Result<bool, SnapshotError> {
        let content = PartDigest(self.hasher.finalize_reset().into());
        if !self.is_whole() || self.files.address(&self.listed, content) != self.listed.digest {
            return Ok(false);
        }
        let sync = self.file.sync_data();
        sync.map_err(|error| SnapshotError::fatal("sync", &self.path, error))?;
        if self.is_temporary {
            self.files.rename(&self.path, &self.files.part_path(self.listed.digest))?;
            self.is_temporary = false;
        }
        Ok(true)
    }
}

impl Files {
    /// The file for a part that is to be written, and whether its name is a temporary one.
    fn create_part(
        &self,
        listed: &Listed,
    ) -> Result<(Box<dyn DiskFile>, PathBuf, bool), SnapshotError> {
        #[cfg(feature = "sim")]
        if self.bug == Some(crate::sim::PlantedBug::ResumedPartNotVerified) {
            let path = self.part_path(listed.digest);
            let file = self.disk.open(&path, OpenMode::CreateNew);
            return Ok((
                file.map_err(|error| SnapshotError::io("create", &path, error))?,
                path,
                false,
            ));
        }
        let _ = listed;
        let (file, path) = self.create_temporary()?;
        Ok((file, path, true))
    }
}

impl Drop for PartFile {
    fn drop(&mut self) {
        if self.is_temporary {
            self.files.remove_temporary(&self.path);
        }
    }
}

/// The name of a snapshot's manifest.
pub(super) fn manifest_name(meta: &SnapshotMeta, suffix: &str) -> String {
    let (index, term) = (meta.last.index.0, meta.last.term.0);
    format!("{index:020}-{term:020}-{:08x}{suffix}", meta.checksum)
}

/// The last entry of the snapshot whose manifest has this name and suffix; `None` if it is not one.
pub(super) fn parse_name(name: &str, suffix: &str) -> Option<EntryId> {
    let mut fields = name.strip_suffix(suffix)?.split('-');
    let index = fields.next()?.parse().ok()?;
    let term = fields.next()?.parse().ok()?;
    u32::from_str_radix(fields.next()?, 16).ok()?;
    fields.next().is_none().then_some(EntryId::new(Term(term), LogIndex(index)))
}

pub(super) fn parse_manifest_name(name: &str) -> Option<EntryId> {
    parse_name(name, SNAPSHOT).or_else(|| parse_name(name, INCOMING))
}

/// The digest of the part with this file name.
pub(super) fn parse_part(name: &str) -> Option<PartDigest> {
    PartDigest::parse(name.strip_suffix(PART)?)
}

pub(super) fn is_temporary(name: &str) -> bool {
    name.ends_with(TEMPORARY)
}

fn read_exact(
    file: &dyn DiskFile,
    path: &Path,
    buffer: &mut [u8],
    offset: u64,
) -> Result<(), SnapshotError> {
    let count = file.read_at(buffer, offset);
    let count = count.map_err(|error| SnapshotError::fatal("read", path, error))?;
    if count < buffer.len() {
        return Err(SnapshotError::corrupt(path, "it is cut short"));
    }
    Ok(())
}
