//! Reads a snapshot, part by part, and believes nothing that a digest does not confirm.

use std::sync::Arc;

use super::SnapshotError;
use super::files::{Files, Pinned};
use super::manifest::Manifest;
use crate::state_machine::{BoxError, Part, SnapshotParts};

/// The parts of one snapshot, verified as they are read. They stay while this lives.
#[derive(Debug)]
pub struct SnapshotReader {
    files: Arc<Files>,
    manifest: Manifest,
    next: usize,
    _pinned: Pinned,
}

impl SnapshotReader {
    pub(super) fn new(files: &Arc<Files>, manifest: Manifest) -> Self {
        let _pinned = Pinned::all(files, &manifest);
        Self { files: Arc::clone(files), manifest, next: 0, _pinned }
    }

    /// The next part, or `None` after the last.
    ///
    /// # Errors
    ///
    /// [`SnapshotError::Corrupt`], or what the disk said.
    pub fn next_part(&mut self) -> Result<Option<Part>, SnapshotError> {
        let Some(listed) = self.manifest.parts.get(self.next) else { return Ok(None) };
        let data = self.files.read_whole_part(listed)?;
        self.next += 1;
        Ok(Some(Part { name: listed.name.clone(), data }))
    }
}

impl SnapshotParts for SnapshotReader {
    fn next_part(&mut self) -> Result<Option<Part>, BoxError> {
        Ok(Self::next_part(self)?)
    }
}
