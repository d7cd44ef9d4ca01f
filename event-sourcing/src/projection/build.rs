//! Builds: the versions of a read model that a sink has, and which of them is current.
//!
//! For each name there is one row, the [`Directory`]. Every build has keys of its own:
//!
//! ```text
//! d NAME                      the directory
//! b NAME NUMBER c             the build's checkpoint
//! b NAME NUMBER p POSITION    a parked event
//! b NAME NUMBER t TABLE KEY   a row of a table
//! ```
//!
//! A build that is to be dropped loses its checkpoint in the same commit, so that a runner that still works on it is refused by its
//! next one. Its rows are removed afterwards, some at a time; until that is done its number stays in the directory.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::sink::{Changes, Sink, SinkError, Snapshot};
use super::table::{Key, decode, encode};
use super::{NAME_SIZE_MAX, Projection, ProjectionError};
use crate::event::{Position, Timestamp};

/// How often a change of the directory is tried when others change it too.
const TRIES: usize = 16;
/// What the rows of this module are called in errors.
const SYSTEM: &str = "$builds";

/// How far a build has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Checkpoint {
    /// Everything up to here is in its rows.
    pub position: Position,
    /// The time of the last event that was handled.
    pub time: Timestamp,
    /// How many events were handled, or parked.
    pub events: u64,
    /// How many commits there were: no two checkpoints of a build are the same.
    pub commits: u64,
}

/// A version of a read model in a sink.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Build {
    pub(super) number: u32,
    pub(super) version: String,
}

/// All builds of a read model.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Directory {
    /// The number of the next build.
    next: u32,
    /// What queries see.
    pub(super) current: Option<Build>,
    /// What will be current when it has caught up.
    pub(super) building: Option<Build>,
    /// Whose rows are to be removed.
    pub(super) dropping: Vec<u32>,
}

impl Directory {
    /// Finds the build for a version, or begins one. With `anew` it is not the current one, even if that has the version. Returns
    /// it, and the one that it supersedes, which is to lose its checkpoint.
    fn admit(&mut self, version: &str, anew: bool) -> (Build, Option<u32>) {
        let is = |build: &&Build| build.version == version;
        if let Some(build) = self.current.as_ref().filter(is)
            && !anew
        {
            return (build.clone(), None);
        }
        if let Some(build) = self.building.as_ref().filter(is) {
            return (build.clone(), None);
        }
        let build = Build { number: self.next, version: version.to_owned() };
        self.next += 1;
        if self.current.is_none() {
            self.current = Some(build.clone());
            return (build, None);
        }
        let superseded = self.building.replace(build.clone()).map(|build| build.number);
        self.dropping.extend(superseded);
        (build, superseded)
    }

    /// Makes the building one current. Returns the number of the one that was.
    fn swap(&mut self) -> Option<u32> {
        let old = std::mem::replace(&mut self.current, self.building.take())?;
        self.dropping.push(old.number);
        Some(old.number)
    }

    /// Whether a build is the current one.
    pub(super) fn is_current(&self, number: u32) -> bool {
        self.current.as_ref().is_some_and(|build| build.number == number)
    }
}

/// The keys of one build.
#[derive(Clone, Debug)]
pub(super) struct BuildKeys(Vec<u8>);

impl BuildKeys {
    pub(super) fn new(name: &str, number: u32) -> Self {
        let mut prefix = vec![b'b'];
        name.encode(&mut prefix);
        number.encode(&mut prefix);
        Self(prefix)
    }

    /// Before all of them.
    pub(super) fn all(&self) -> &[u8] {
        &self.0
    }

    pub(super) fn checkpoint(&self) -> Bytes {
        self.with(b'c').into()
    }

    /// Before the parked events.
    pub(super) fn parked(&self) -> Vec<u8> {
        self.with(b'p')
    }

    pub(super) fn parked_at(&self, position: Position) -> Bytes {
        let mut key = self.parked();
        position.encode(&mut key);
        key.into()
    }

    /// Before the rows of the tables.
    pub(super) fn tables(&self) -> Vec<u8> {
        self.with(b't')
    }

    fn with(&self, kind: u8) -> Vec<u8> {
        [&self.0[..], &[kind]].concat()
    }
}

fn directory_key(name: &str) -> Bytes {
    let mut key = vec![b'd'];
    name.encode(&mut key);
    key.into()
}

/// The directory of a name, and its bytes for a commit to expect.
fn directory(
    snapshot: &dyn Snapshot,
    name: &str,
) -> Result<(Directory, (Bytes, Option<Bytes>)), SinkError> {
    let key = directory_key(name);
    let bytes = snapshot.get(&key)?;
    let directory = bytes.as_ref().map(|bytes| decode(SYSTEM, bytes)).transpose()?;
    Ok((directory.unwrap_or_default(), (key, bytes)))
}

/// The directory of a name.
pub(super) fn read_directory(snapshot: &dyn Snapshot, name: &str) -> Result<Directory, SinkError> {
    directory(snapshot, name).map(|(directory, _)| directory)
}

/// The checkpoint of a build; `None` if it is dropped.
pub(super) fn read_checkpoint(
    snapshot: &dyn Snapshot,
    keys: &BuildKeys,
) -> Result<Option<Checkpoint>, SinkError> {
    let bytes = snapshot.get(&keys.checkpoint())?;
    bytes.map(|bytes| decode(SYSTEM, &bytes)).transpose()
}

pub(super) fn checkpoint_bytes(checkpoint: &Checkpoint) -> Result<Bytes, SinkError> {
    encode(SYSTEM, checkpoint)
}

/// Opens the build of a projection's version, or begins one.
pub(super) fn open(
    sink: &dyn Sink,
    projection: &Projection,
    anew: bool,
) -> Result<(Build, Checkpoint, Directory), ProjectionError> {
    let version = projection.fingerprint();
    for (what, text) in [("name", &*projection.name), ("version", &*version)] {
        if text.is_empty() || text.len() > NAME_SIZE_MAX {
            let (size, limit) = (text.len(), NAME_SIZE_MAX);
            return Err(ProjectionError::Length { what, size, limit });
        }
    }
    let name = &*projection.name;
    for _ in 0..TRIES {
        let snapshot = sink.snapshot()?;
        let (mut builds, before) = directory(&*snapshot, name)?;
        let was = builds.clone();
        let (build, superseded) = builds.admit(&version, anew);
        let keys = BuildKeys::new(name, build.number);
        if builds == was {
            let checkpoint = read_checkpoint(&*snapshot, &keys)?;
            let checkpoint = checkpoint.ok_or(SinkError::Row { table: SYSTEM })?;
            return Ok((build, checkpoint, builds));
        }
        let checkpoint = Checkpoint { position: projection.after, ..Checkpoint::default() };
        let mut changes = Changes::default();
        changes.writes.insert(before.0.clone(), Some(encode(SYSTEM, &builds)?));
        changes.writes.insert(keys.checkpoint(), Some(checkpoint_bytes(&checkpoint)?));
        if let Some(number) = superseded {
            changes.writes.insert(BuildKeys::new(name, number).checkpoint(), None);
        }
        changes.expected.push(before);
        match sink.commit(&changes) {
            Ok(()) => return Ok((build, checkpoint, builds)),
            Err(SinkError::Moved) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Err(SinkError::Moved.into())
}

/// The changes that make a build current, if it has come as far as the one that is; `None` if it has not.
pub(super) fn swap(
    snapshot: &dyn Snapshot,
    name: &str,
    number: u32,
    position: Position,
) -> Result<Option<(Changes, Directory)>, SinkError> {
    let (mut builds, before) = directory(snapshot, name)?;
    if builds.building.as_ref().is_none_or(|build| build.number != number) {
        return Err(SinkError::Moved);
    }
    let mut changes = Changes::default();
    if let Some(current) = &builds.current {
        // It is expected to stay where it is, so that nobody sees the read model go back.
        let key = BuildKeys::new(name, current.number).checkpoint();
        let bytes = snapshot.get(&key)?;
        let reached: Option<Checkpoint> =
            bytes.as_ref().map(|bytes| decode(SYSTEM, bytes)).transpose()?;
        if reached.is_some_and(|reached| reached.position > position) {
            return Ok(None);
        }
        changes.expected.push((key.clone(), bytes));
        changes.writes.insert(key, None);
    }
    builds.swap();
    changes.writes.insert(before.0.clone(), Some(encode(SYSTEM, &builds)?));
    changes.expected.push(before);
    Ok(Some((changes, builds)))
}

/// The changes that remove some rows of a dropped build, or the last trace of it.
pub(super) fn sweep(
    snapshot: &dyn Snapshot,
    name: &str,
    rows_max: usize,
) -> Result<(Changes, Directory), SinkError> {
    let (mut builds, before) = directory(snapshot, name)?;
    let mut changes = Changes::default();
    if let Some(&number) = builds.dropping.first() {
        let keys = BuildKeys::new(name, number);
        let more =
            super::transaction::remove_some(snapshot, keys.all(), rows_max, &mut changes.writes)?;
        if !more {
            builds.dropping.remove(0);
            changes.writes.insert(before.0.clone(), Some(encode(SYSTEM, &builds)?));
            changes.expected.push(before);
        }
    }
    Ok((changes, builds))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_is_built_beside_the_current_one_and_takes_its_place() {
        let mut builds = Directory::default();
        assert_eq!(builds.admit("1", false).0.number, 0);
        assert_eq!(builds.admit("1", false).0.number, 0, "it is found again");
        assert_eq!(builds.admit("2", false).0.number, 1);
        assert_eq!(builds.admit("2", false), (builds.building.clone().unwrap(), None));
        assert_eq!(builds.admit("1", false).0.number, 0, "which is still current");
        assert_eq!(builds.admit("3", false).1, Some(1), "2 is given up");
        assert_eq!(builds.swap(), Some(0));
        assert_eq!((builds.current.unwrap().number, builds.dropping), (2, vec![1, 0]));
    }

    #[test]
    fn the_same_version_can_be_built_anew() {
        let mut builds = Directory::default();
        builds.admit("1", false);
        assert_eq!(builds.admit("1", true).0.number, 1);
        assert_eq!(builds.admit("1", true).0.number, 1, "it goes on");
        assert_eq!(builds.admit("1", false).0.number, 0);
    }
}
