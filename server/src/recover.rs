//! A new cluster from what one member still has: the last resort, when a majority of the members is lost for good.
//!
//! The old directory is only read, under its lock, from a copy: whatever goes wrong, it is as it was. The new one is built under another name
//! beside its place and renamed when it is whole, so that a crash leaves no half-made directory where somebody would start it. What may be
//! lost, and why everything in the log is kept, is told in `raft_consensus::driver::salvage`.
//!
//! The new cluster has one member, with the old one's id, name and addresses, but another cluster id and another store id: old members
//! are turned away at the first handshake, and none of them can be taken for one of the new.

use std::fs;
use std::hash::{BuildHasher as _, RandomState};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use lattice_journal::{Disk as _, RealDisk};
use lattice_kv::{KvMachine, KvReader, Limits};
use raft_consensus::driver::salvage::{SalvageError, Salvaged, begin_with, read_out};
use raft_consensus::membership::{Member, Membership};
use raft_consensus::state_machine::DurableStateMachine as _;
use raft_consensus::storage::{DataDirectory, Identity, IdentityError};
use raft_consensus::types::{ClusterId, NodeId};
use thiserror::Error;

use crate::members::{Contact, decode, encode};
use crate::node::random_bits;
use crate::relay::KV_GROUP;
use crate::url::Url;

/// What to recover, and to where.
#[derive(Clone, Debug)]
pub struct Recovery {
    /// The data directory of a member that is not running.
    pub from: PathBuf,
    /// Where to make the new one: nothing is there yet, or an empty directory.
    pub to: PathBuf,
    /// The member's name; as it was if `None`.
    pub name: Option<String>,
    /// Where others will reach it; as it was if empty.
    pub peer_urls: Vec<Url>,
    /// If entries are damaged, keep what comes before them.
    pub up_to_damage: bool,
}

/// A new cluster, ready to be written. The old directory stays locked until it is dropped.
#[derive(Debug)]
pub struct Prepared {
    to: PathBuf,
    work: Work,
    machine: KvMachine,
    context: bytes::Bytes,
    old: DataDirectory,
    found: Found,
}

/// What is kept, and who is left behind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// Whose directory was read.
    pub identity: Identity,
    /// The id of the new cluster.
    pub cluster: ClusterId,
    /// What the log held.
    pub salvaged: Salvaged,
    /// Keys that have a value or had one.
    pub keys: u64,
    /// The revision of the store.
    pub revision: i64,
    /// The member's name.
    pub name: String,
    /// Where others will reach it.
    pub peer_urls: Vec<Url>,
    /// The other members of the old cluster, with their names as far as they are known.
    pub left_behind: Vec<(NodeId, String)>,
}

/// Why there is no new cluster. The old directory is as it was.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum RecoverError {
    /// There is nothing to recover from.
    #[error("{} is no data directory", .0.display())]
    NoDirectory(PathBuf),
    /// The new directory would lie in the old one, which is only read.
    #[error("{} lies in the directory to be recovered; choose one outside of it", .0.display())]
    Within(PathBuf),
    /// The new directory would take somebody's place.
    #[error("{} exists and is not empty; choose a new directory", .0.display())]
    Exists(PathBuf),
    /// The old directory is in use, or does not know whose it is.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// The log cannot be read out.
    #[error("cannot read out {}", .directory.display())]
    Log {
        /// The directory.
        directory: PathBuf,
        /// Why not.
        source: SalvageError,
    },
    /// The new directory cannot be written.
    #[error("cannot write the new data directory")]
    Write(#[source] SalvageError),
    /// Nobody has told how the member is called, or where it is reached.
    #[error("the log does not say {what}: say it with {flag}")]
    Untold {
        /// What is missing.
        what: &'static str,
        /// How to say it.
        flag: &'static str,
    },
    /// The system refused something.
    #[error("cannot {what} {}", .path.display())]
    Io {
        /// What was tried.
        what: &'static str,
        /// With which file or directory.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
}

/// The directory beside the new one in which it is built; removed when dropped.
#[derive(Debug)]
struct Work(PathBuf);

const COPY: &str = "copy";
const NEW: &str = "new";

impl Recovery {
    /// Reads out the old directory: takes as long as a start of its node, and for a while as much space again.
    ///
    /// # Errors
    ///
    /// See [`RecoverError`].
    pub fn prepare(self) -> Result<Prepared, RecoverError> {
        let Self { from, to, .. } = &self;
        let identity = DataDirectory::look(&RealDisk, from)?
            .ok_or_else(|| RecoverError::NoDirectory(from.clone()))?;
        let outer = fs::canonicalize(from).map_err(io("find", from))?;
        let inner = std::path::absolute(to).map_err(io("find", to))?;
        // Its ancestors may be links, and need not exist yet.
        let mut ancestors = inner.ancestors().filter_map(|path| fs::canonicalize(path).ok());
        if ancestors.next().is_some_and(|path| path.starts_with(&outer)) {
            return Err(RecoverError::Within(to.clone()));
        }
        let names = fs::read_dir(to).map(Iterator::count);
        if !matches!(&names, Ok(0)) && !names.is_err_and(|error| is_missing(&error)) {
            return Err(RecoverError::Exists(to.clone()));
        }
        let (cluster, node) = (identity.cluster, identity.node);
        // It exists, so nothing is written but the lock.
        let old =
            DataDirectory::open(Arc::new(RealDisk), from, cluster, node, &identity.founders, 0)?;
        let work = Work::begin(to)?;
        let copy = work.0.join(COPY);
        let (log, snapshots) = (copy.join("log"), copy.join("snapshots"));
        copy_files(&old.log_directory(KV_GROUP), &log)?;
        copy_files(&old.snapshot_directory(KV_GROUP), &snapshots)?;
        let mut machine = KvMachine::new(Limits::default());
        let id = old.log_id(KV_GROUP);
        let disk = Arc::new(RealDisk);
        let salvaged = read_out(disk, &log, &snapshots, id, &mut machine, self.up_to_damage)
            .map_err(|source| RecoverError::Log { directory: from.clone(), source })?;
        fs::remove_dir_all(&copy).map_err(io("remove", &copy))?;

        let reader = machine.reader();
        let known = contact(&salvaged.membership, &reader, node);
        let name = self.name.clone().unwrap_or(known.name);
        let peer_urls =
            if self.peer_urls.is_empty() { known.peer_urls } else { self.peer_urls.clone() };
        if name.is_empty() {
            return Err(RecoverError::Untold { what: "the member's name", flag: "--name" });
        }
        let contact = Contact { name, peer_urls };
        let context = encode(&contact).filter(|_| !contact.peer_urls.is_empty());
        let context = context.ok_or(RecoverError::Untold {
            what: "where the member is reached, or it is too long",
            flag: "--peer-urls",
        })?;
        let others = salvaged.membership.members().map(|(id, _)| id).filter(|id| *id != node);
        let left_behind =
            others.map(|id| (id, self::contact(&salvaged.membership, &reader, id).name)).collect();
        let found = Found {
            cluster: another_cluster(cluster),
            keys: reader.size().keys,
            revision: reader.revision(),
            name: contact.name,
            peer_urls: contact.peer_urls,
            left_behind,
            identity,
            salvaged,
        };
        Ok(Prepared { to: self.to, work, machine, context, old, found })
    }
}

impl Prepared {
    /// What is kept, and who is left behind.
    #[must_use]
    pub fn found(&self) -> &Found {
        &self.found
    }

    /// Writes the new directory.
    ///
    /// # Errors
    ///
    /// See [`RecoverError`]. There is no new directory then.
    pub fn write(mut self) -> Result<Found, RecoverError> {
        let Found { cluster, identity, salvaged, .. } = &self.found;
        let node = identity.node;
        let new = self.work.0.join(NEW);
        let disk = Arc::new(RealDisk);
        let directory = DataDirectory::open(disk, &new, *cluster, node, &[], random_bits())?;
        let mut membership = Membership::default();
        let context = self.context.clone();
        membership.insert(node, Member { context, ..Member::voter(directory.identity().store) });
        // A term of its own: nothing of the old cluster's elections is a promise in the new one.
        let term = salvaged.term.next();
        begin_with(&directory, KV_GROUP, &mut self.machine, &membership, term)
            .map_err(RecoverError::Write)?;
        drop(directory);
        // An empty directory gives way.
        match fs::remove_dir(&self.to) {
            Err(error) if !is_missing(&error) => return Err(io("replace", &self.to)(error)),
            Ok(()) | Err(_) => {}
        }
        fs::rename(&new, &self.to).map_err(io("create", &self.to))?;
        let parent = parent(&self.to);
        RealDisk.sync_dir(parent).map_err(io("sync", parent))?;
        drop(self.old);
        Ok(self.found)
    }
}

impl Work {
    fn begin(to: &Path) -> Result<Self, RecoverError> {
        let mut name = to.file_name().unwrap_or_default().to_owned();
        name.push(".recovering");
        let path = parent(to).join(name);
        // Of an attempt that was cut off; nobody else's.
        for left in [COPY, NEW] {
            match fs::remove_dir_all(path.join(left)) {
                Err(error) if !is_missing(&error) => return Err(io("remove", &path)(error)),
                Ok(()) | Err(_) => {}
            }
        }
        match fs::remove_dir(&path) {
            Err(error) if !is_missing(&error) => return Err(io("remove", &path)(error)),
            Ok(()) | Err(_) => {}
        }
        RealDisk.create_dir(&path).map_err(io("create", &path))?;
        Ok(Self(path))
    }
}

impl Drop for Work {
    fn drop(&mut self) {
        // What cannot be removed now is when somebody tries again.
        let _left = fs::remove_dir_all(&self.0);
    }
}

/// What was known of a member: what it published, or what its context says.
fn contact(membership: &Membership, reader: &KvReader, node: NodeId) -> Contact {
    let written = membership.get(node).and_then(|member| decode(&member.context));
    let Contact { name, peer_urls } = written.unwrap_or_default();
    let Some(told) = reader.member(node) else { return Contact { name, peer_urls } };
    let told_urls = || told.peer_urls.iter().filter_map(|url| url.parse().ok()).collect();
    Contact {
        peer_urls: if peer_urls.is_empty() { told_urls() } else { peer_urls },
        name: if told.name.is_empty() { name } else { told.name.clone() },
    }
}

fn another_cluster(old: ClusterId) -> ClusterId {
    let drawn = RandomState::new().hash_one(old.0);
    // Zero means *nobody* on the wire.
    ClusterId(if drawn == 0 || drawn == old.0 { old.0 ^ 1 | 2 } else { drawn })
}

/// Copies the files of a directory, which may be missing.
fn copy_files(from: &Path, to: &Path) -> Result<(), RecoverError> {
    RealDisk.create_dir(to).map_err(io("create", to))?;
    let entries = match fs::read_dir(from) {
        Err(error) if is_missing(&error) => return Ok(()),
        entries => entries.map_err(io("read", from))?,
    };
    for entry in entries {
        let entry = entry.map_err(io("read", from))?;
        if entry.file_type().map_err(io("read", &entry.path()))?.is_file() {
            fs::copy(entry.path(), to.join(entry.file_name()))
                .map_err(io("copy", &entry.path()))?;
        }
    }
    Ok(())
}

/// The directory that `path` is in.
fn parent(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

fn is_missing(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound
}

fn io(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> RecoverError {
    let path = path.to_path_buf();
    move |source| RecoverError::Io { what, path, source }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn recovery(from: &Path, to: PathBuf) -> Recovery {
        let (name, peer_urls) = (None, Vec::new());
        Recovery { from: from.to_owned(), to, name, peer_urls, up_to_damage: false }
    }

    fn directory(path: &Path) -> DataDirectory {
        let founders = [NodeId(1), NodeId(2), NodeId(3)];
        let disk = Arc::new(RealDisk);
        DataDirectory::open(disk, path, ClusterId(7), NodeId(1), &founders, 9).unwrap()
    }

    #[test]
    fn what_cannot_be_recovered_is_left_alone() {
        let temporary = tempfile::tempdir().unwrap();
        let (from, to) = (temporary.path().join("old"), temporary.path().join("new"));
        let refused = || recovery(&from, to.clone()).prepare().unwrap_err();
        assert!(matches!(refused(), RecoverError::NoDirectory(_)));
        let running = directory(&from);
        assert!(matches!(refused(), RecoverError::Identity(IdentityError::Locked { .. })));
        drop(running);
        let within = recovery(&from, from.join("a/b")).prepare().unwrap_err();
        assert!(matches!(within, RecoverError::Within(_)), "{within}");
        let empty = refused();
        assert!(matches!(empty, RecoverError::Log { source: SalvageError::Empty, .. }), "{empty}");
        fs::create_dir(&to).unwrap();
        fs::write(to.join("thesis.tex"), "…").unwrap();
        assert!(matches!(refused(), RecoverError::Exists(_)));
        let names = fs::read_dir(temporary.path()).unwrap().count();
        assert_eq!(names, 2, "nothing but the two is left");
    }

    #[test]
    fn what_a_crash_left_is_cleared_away_and_nothing_else() {
        let temporary = tempfile::tempdir().unwrap();
        let to = temporary.path().join("new");
        let left = temporary.path().join("new.recovering");
        fs::create_dir_all(left.join(COPY)).unwrap();
        fs::create_dir_all(left.join(NEW).join("group-0")).unwrap();
        drop(Work::begin(&to).unwrap());
        assert!(!left.exists());
        fs::create_dir(&left).unwrap();
        fs::write(left.join("thesis.tex"), "…").unwrap();
        assert!(matches!(Work::begin(&to).unwrap_err(), RecoverError::Io { .. }));
        assert!(left.join("thesis.tex").exists());
    }

    #[test]
    fn a_new_cluster_has_another_id() {
        for old in [1, 2, 3, u64::MAX] {
            let new = another_cluster(ClusterId(old));
            assert!(new != ClusterId(old) && new.0 != 0);
        }
        assert_eq!(parent(Path::new("new")), Path::new("."));
        assert_eq!(parent(Path::new("/a/new")), Path::new("/a"));
    }
}
