//! Takes in a snapshot that a leader sends piece by piece: the manifest first, then the parts that are not here.
//!
//! The answer to each piece is the next byte wanted, in the run of bytes that begins with the manifest and goes on with all parts in
//! order. Over a part that is here (from an earlier snapshot, or because it came before a restart, from whatever leader) the
//! answer jumps. The manifest is kept on disk while its snapshot arrives, so that what came is still needed after a restart.
//!
//! A part gets its name only when it is whole, synced, and has the digest that the manifest lists. If it has not, it is asked for once
//! more; after that the snapshot is refused until it is offered anew, from byte zero on. What is whole of it stays: only
//! what was wrong travels again.

use std::collections::BTreeSet;
use std::sync::{Arc, MutexGuard, PoisonError};

use super::files::{
    Counters, Files, INCOMING, PartFile, Pinned, SNAPSHOT, manifest_name, parse_name,
};
use super::manifest::{Manifest, PartDigest, declared_length};
use super::{SnapshotError, SnapshotStore};
use crate::types::SnapshotMeta;

/// Bytes of parts that are here which one call reads to check them.
const CHECKED_MAX: u64 = 16 << 20;
/// What looking at a part counts for at least: many small ones take time, too.
const PART_COST: u64 = 16 << 10;

/// How far a snapshot that is being received has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Received {
    /// The next byte wanted. If the piece just given did not begin at the one wanted before, nothing was done with it.
    pub next: u64,
    /// The snapshot is whole, verified and durable.
    pub is_complete: bool,
    /// Parts that are here have still to be checked before it is known which byte is wanted: give an empty piece that begins at `next`,
    /// and ask nobody for anything.
    pub is_busy: bool,
}

/// What a store knows of the snapshots that leaders send.
#[derive(Debug, Default)]
pub(super) struct Receiving {
    incoming: Option<Incoming>,
    /// Parts that came before the store was opened, for a snapshot that did not become whole.
    pub(super) came_before: BTreeSet<PartDigest>,
}

/// A snapshot that is not whole yet.
#[derive(Debug)]
struct Incoming {
    meta: SnapshotMeta,
    stage: Stage,
}

#[derive(Debug)]
enum Stage {
    /// As much of the manifest as has come.
    Manifest(Vec<u8>),
    Parts(Box<Assembly>),
}

#[derive(Debug)]
struct Assembly {
    manifest: Manifest,
    /// The part that is looked at.
    at: usize,
    /// What has come of it.
    file: Option<PartFile>,
    /// It came before, and was something else.
    is_second_try: bool,
    _pinned: Pinned,
}

impl Received {
    fn wants(next: u64) -> Self {
        Self { next, is_complete: false, is_busy: false }
    }
}

impl SnapshotStore {
    /// Takes in the piece of the snapshot `meta` that begins at `offset`. A piece at offset zero of a snapshot that is not the one
    /// arriving begins with it, in place of that one; any other piece must begin at the byte that is wanted, else the answer
    /// says which that is. One call looks at about 16 MiB of what is here, and at a thousand parts, and then says that it is busy.
    ///
    /// # Errors
    ///
    /// After [`SnapshotError::Corrupt`] the snapshot is refused until it is offered anew: other pieces of it are answered with a wish for byte
    /// zero. The parts that are whole stay. [`SnapshotError::NoSpace`] drops them too. Other errors are fatal.
    pub fn receive(
        &self,
        meta: &SnapshotMeta,
        offset: u64,
        data: &[u8],
    ) -> Result<Received, SnapshotError> {
        let mut receiving = self.lock_receiving();
        let Receiving { incoming, came_before } = &mut *receiving;
        if incoming.as_ref().is_none_or(|incoming| incoming.meta != *meta) {
            if offset != 0 {
                return Ok(Received::wants(0));
            }
            *incoming = Some(Incoming { meta: meta.clone(), stage: Stage::Manifest(Vec::new()) });
        }
        let arriving = incoming.as_mut().expect("it was begun above");
        let result = arriving.take(&self.files, came_before, offset, data);
        if !matches!(result, Ok(Received { is_complete: false, .. })) {
            *incoming = None;
        }
        drop(receiving);
        if let Err(SnapshotError::NoSpace { .. }) = &result {
            // What cannot be removed now is with the next snapshot.
            let _: Result<(), _> = self.remove_incoming();
        }
        result
    }

    /// Gives up a snapshot that is arriving if its last entry lies before `oldest`: nobody will send the rest.
    pub(super) fn forget_incoming(&self, oldest: crate::types::LogIndex) {
        let incoming = &mut self.lock_receiving().incoming;
        incoming.take_if(|incoming| incoming.meta.last.index < oldest);
    }

    fn remove_incoming(&self) -> Result<(), SnapshotError> {
        let names = self.files.names()?;
        self.files.remove_where(&names, |name| parse_name(name, INCOMING).is_some())?;
        self.files.sweep()
    }

    pub(super) fn lock_receiving(&self) -> MutexGuard<'_, Receiving> {
        // A panic leaves a part that lacks bytes at worst, which has no name yet.
        self.receiving.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Incoming {
    fn take(
        &mut self,
        files: &Arc<Files>,
        came_before: &BTreeSet<PartDigest>,
        offset: u64,
        data: &[u8],
    ) -> Result<Received, SnapshotError> {
        let meta = &self.meta;
        let bytes = match &mut self.stage {
            Stage::Manifest(bytes) => bytes,
            Stage::Parts(assembly) => return assembly.take(files, meta, came_before, offset, data),
        };
        let path = files.path(&manifest_name(meta, INCOMING));
        let corrupt = |flaw| SnapshotError::corrupt(&path, flaw);
        if length_of(bytes) != offset {
            return Ok(Received::wants(length_of(bytes)));
        }
        bytes.extend_from_slice(data);
        Counters::add(&files.counters.received, length_of(data));
        let have = length_of(bytes);
        match declared_length(bytes).map_err(corrupt)? {
            Some(length) if bytes.len() == length => {}
            Some(length) if bytes.len() > length => {
                return Err(corrupt("its manifest is longer than it says"));
            }
            Some(_) | None if have < meta.size => return Ok(Received::wants(have)),
            Some(_) | None => return Err(corrupt("it is shorter than its manifest")),
        }
        let manifest = Manifest::decode(bytes).map_err(corrupt)?;
        if manifest.meta() != *meta {
            return Err(corrupt("it is not the snapshot that was offered"));
        }
        let mut assembly = Assembly::begin(files, manifest, bytes)?;
        let received = assembly.advance(files, meta, came_before)?;
        self.stage = Stage::Parts(Box::new(assembly));
        Ok(received)
    }
}

impl Assembly {
    /// Keeps the manifest: from now on its parts are needed, and those of any other that was arriving are not.
    fn begin(files: &Arc<Files>, manifest: Manifest, bytes: &[u8]) -> Result<Self, SnapshotError> {
        let _pinned = Pinned::all(files, &manifest);
        let ours = manifest_name(&manifest.meta(), INCOMING);
        files.write_manifest(&ours, bytes)?;
        files.sync_names()?;
        let is_doomed = |name: &str| parse_name(name, INCOMING).is_some() && name != ours;
        files.remove_where(&files.names()?, is_doomed)?;
        files.sweep()?;
        Ok(Self { manifest, at: 0, file: None, is_second_try: false, _pinned })
    }

    fn wanted(&self) -> u64 {
        let written = self.file.as_ref().map_or(0, PartFile::written);
        if self.at == self.manifest.parts.len() {
            self.manifest.size()
        } else {
            self.manifest.start(self.at) + u64::from(written)
        }
    }

    fn take(
        &mut self,
        files: &Arc<Files>,
        meta: &SnapshotMeta,
        came_before: &BTreeSet<PartDigest>,
        offset: u64,
        data: &[u8],
    ) -> Result<Received, SnapshotError> {
        if offset != self.wanted() {
            return Ok(Received::wants(self.wanted()));
        }
        if !data.is_empty() && self.at < self.manifest.parts.len() && !self.write(files, data)? {
            return Ok(Received::wants(self.wanted()));
        }
        self.advance(files, meta, came_before)
    }

    /// Takes a piece of the part that is looked at. `false` if it must be sent again.
    fn write(&mut self, files: &Arc<Files>, data: &[u8]) -> Result<bool, SnapshotError> {
        let listed = &self.manifest.parts[self.at];
        let file = match &mut self.file {
            Some(file) => file,
            None => self.file.insert(PartFile::create(files, listed)?),
        };
        file.write(data)?;
        Counters::add(&files.counters.received, length_of(data));
        let Some(file) = self.file.take_if(|file| file.is_whole()) else { return Ok(true) };
        if file.finish()? {
            files.sync_names()?;
            self.at += 1;
            self.is_second_try = false;
            return Ok(true);
        }
        if self.is_second_try {
            let path = files.path(&manifest_name(&self.manifest.meta(), INCOMING));
            return Err(SnapshotError::corrupt(&path, "a part had a wrong digest twice"));
        }
        self.is_second_try = true;
        Ok(false)
    }

    /// Moves over the parts that are here, and completes the snapshot if they all are.
    fn advance(
        &mut self,
        files: &Files,
        meta: &SnapshotMeta,
        came_before: &BTreeSet<PartDigest>,
    ) -> Result<Received, SnapshotError> {
        let mut checked = 0;
        while let (None, Some(listed)) = (&self.file, self.manifest.parts.get(self.at)) {
            if checked >= CHECKED_MAX {
                return Ok(Received { is_busy: true, ..Received::wants(self.wanted()) });
            }
            let size = u64::from(listed.size);
            checked += size.max(PART_COST);
            // What came wrong once is not here.
            if self.is_second_try || !files.holds(listed) {
                return Ok(Received::wants(self.wanted()));
            }
            let counters = &files.counters;
            let is_resumed = came_before.contains(&listed.digest);
            let counter = if is_resumed { &counters.resumed } else { &counters.kept };
            Counters::add(counter, size);
            self.at += 1;
        }
        if self.file.is_some() {
            return Ok(Received::wants(self.wanted()));
        }
        // Parts that were here may owe their names to a process that was killed.
        files.sync_names()?;
        let [from, to] =
            [INCOMING, SNAPSHOT].map(|suffix| files.path(&manifest_name(meta, suffix)));
        files.rename(&from, &to)?;
        files.sync_names()?;
        Ok(Received { is_complete: true, ..Received::wants(self.manifest.size()) })
    }
}

fn length_of(bytes: &[u8]) -> u64 {
    u64::try_from(bytes.len()).expect("a length fits 64 bits")
}
