//! Writes a snapshot, part by part. A part that is here already is not written again.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::SnapshotError;
use super::files::{Counters, Files, PartFile, Pinned, SNAPSHOT, manifest_name};
use super::manifest::{self, Listed, Manifest, PartDigest};
use crate::membership::Membership;
use crate::state_machine::Part;
use crate::types::{EntryId, SnapshotMeta};

/// A snapshot in the making. Dropped unfinished, it leaves parts behind that nobody needs:
/// [`SnapshotStore::remove_unneeded`](super::SnapshotStore::remove_unneeded) is for the directory's owner, whom a writer may outlive.
#[derive(Debug)]
pub struct SnapshotWriter {
    files: Arc<Files>,
    last: EntryId,
    membership: Membership,
    parts: Vec<Listed>,
    names: BTreeSet<String>,
    manifest_length: usize,
    pinned: Pinned,
}

impl SnapshotWriter {
    pub(super) fn begin(files: &Arc<Files>, last: EntryId, membership: &Membership) -> Self {
        Self {
            files: Arc::clone(files),
            last,
            membership: membership.clone(),
            parts: Vec::new(),
            names: BTreeSet::new(),
            manifest_length: manifest::empty_length(membership),
            pinned: Pinned::none(files),
        }
    }

    /// Adds a part: durable when the writer has finished.
    ///
    /// # Errors
    ///
    /// [`SnapshotError::Part`] if it is larger than 64 MiB, its name longer than 1 KiB or used before, or the parts too
    /// many; otherwise what the disk said. After an error the writer is of no use any more.
    pub fn part(&mut self, part: &Part) -> Result<(), SnapshotError> {
        let refuse = |reason| {
            Err(SnapshotError::Part { name: part.name.chars().take(64).collect(), reason })
        };
        self.manifest_length += manifest::listed_length(&part.name);
        if part.name.len() > manifest::NAME_MAX {
            return refuse("its name is too long");
        }
        if part.data.len() > manifest::DATA_MAX {
            return refuse("it is too large");
        }
        if self.manifest_length > manifest::MANIFEST_MAX {
            return refuse("there are too many");
        }
        if !self.names.insert(part.name.clone()) {
            return refuse("its name was used before");
        }
        let content = PartDigest::of(&part.data);
        let size = u32::try_from(part.data.len()).expect("bounded above");
        let mut listed = Listed { name: part.name.clone(), size, digest: content };
        listed.digest = self.files.address(&listed, content);
        // Before it is looked for: what is found stays.
        self.pinned.pin(listed.digest);
        let counters = &self.files.counters;
        if self.files.holds(&listed) {
            Counters::add(&counters.reused, u64::from(size));
        } else {
            let mut file = PartFile::create(&self.files, &listed)?;
            file.write(&part.data)?;
            assert!(file.finish()?, "a part has the digest that was computed from it");
            Counters::add(&counters.written, u64::from(size));
        }
        self.parts.push(listed);
        Ok(())
    }

    /// Puts the manifest there, and makes all durable. From then on the snapshot is in the store; it takes the place of
    /// the previous one when the log says so.
    ///
    /// # Errors
    ///
    /// What the disk said. The snapshot is then not there, or complete.
    pub fn finish(self) -> Result<SnapshotMeta, SnapshotError> {
        let (manifest, bytes) = Manifest::encode(self.last, self.membership, self.parts);
        let meta = manifest.meta();
        self.files.sync_names()?;
        self.files.write_manifest(&manifest_name(&meta, SNAPSHOT), &bytes)?;
        self.files.sync_names()?;
        Ok(meta)
    }
}
