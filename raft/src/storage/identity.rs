//! Whose data directory this is.
//!
//! ```text
//! DIR/LOCK                    held while a process uses the directory
//! DIR/identity                cluster, node, store id, founders; a text file, drawn in docs/formats.md
//! DIR/group-0/log/            the log of Raft group 0
//! DIR/group-0/snapshots/      its snapshots
//! ```
//!
//! A node that votes under a name must remember its votes under that name. So a directory is created once, for one node
//! of one cluster, with a random store id, and is never adopted by another: a directory that holds anything but lacks its
//! identity is refused, since a new store id would make a node that forgot out of one that had promised. The identity is written to a temporary
//! file, synced and renamed before anything else is created, so a crash leaves either a blank directory or a whole one.
//!
//! There is no counter of starts here. What needs to tell one start from another (`ReadId::boot`) takes 64 random
//! bits at each start: they must differ only from those of the same node's requests still in flight, so a repetition is
//! as likely as guessing a 64-bit number in a few tries, and a start costs no disk write.

use std::fmt::Write as _;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use lattice_journal::{Disk, DiskLock, OpenMode};
use thiserror::Error;

use crate::types::{ClusterId, GroupId, NodeId, StoreId};

/// What a data directory says of itself, written once when it is created.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The cluster its node belongs to.
    pub cluster: ClusterId,
    /// The node it belongs to.
    pub node: NodeId,
    /// Its own name, which no other directory has.
    pub store: StoreId,
    /// The voters of the cluster's first membership, ascending; empty for a node that joined later.
    pub founders: Vec<NodeId>,
}

/// An open, locked data directory. The lock is given back when it is dropped.
#[derive(Debug)]
pub struct DataDirectory {
    disk: Arc<dyn Disk>,
    directory: PathBuf,
    identity: Identity,
    is_new: bool,
    _lock: Box<dyn DiskLock>,
}

/// Why a data directory cannot be used.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum IdentityError {
    /// Another process has the lock.
    #[error(
        "data directory {} is in use by another process; stop that process or choose another \
         directory", .directory.display()
    )]
    Locked {
        /// The directory.
        directory: PathBuf,
    },
    /// It is the directory of another node.
    #[error(
        "data directory {} belongs to {found}, this process is {expected}; start it with the \
         directory of {expected}, or with the id of {found}", .directory.display()
    )]
    WrongNode {
        /// The directory.
        directory: PathBuf,
        /// Whose it is.
        found: NodeId,
        /// Who wants it.
        expected: NodeId,
    },
    /// It is the directory of a node of another cluster.
    #[error(
        "data directory {} belongs to cluster {found}, this process to cluster {expected}; check \
         the cluster's token and members, or choose another directory", .directory.display()
    )]
    WrongCluster {
        /// The directory.
        directory: PathBuf,
        /// The cluster it belongs to.
        found: ClusterId,
        /// The cluster that was asked for.
        expected: ClusterId,
    },
    /// The identity file is damaged.
    #[error(
        "identity file {} is damaged: {reason}; the node must not vote without knowing who it is: \
         restore the file from a backup of this directory, or replace the node by a new one",
        .path.display()
    )]
    Corrupt {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// The identity file was written by a newer version of this program.
    #[error("identity file {} has version {version}, this program knows version {VERSION}", .path.display())]
    Version {
        /// The file.
        path: PathBuf,
        /// Its version.
        version: u64,
    },
    /// The identity file is gone from a directory that was in use.
    #[error(
        "data directory {} holds {name} but no identity file; the node must not vote without \
         knowing who it is: restore the file, or replace the node by a new one", .directory.display()
    )]
    Lost {
        /// The directory.
        directory: PathBuf,
        /// What it holds.
        name: String,
    },
    /// The directory is neither blank nor ours.
    #[error(
        "directory {} is not empty and is no data directory (it holds {name}); choose an empty \
         or a new one", .directory.display()
    )]
    NotOurs {
        /// The directory.
        directory: PathBuf,
        /// Something it holds.
        name: String,
    },
    /// The directory may not be written to.
    #[error("{} cannot be written: {source}; check its owner, its mode and its mount", .path.display())]
    Unwritable {
        /// The directory or file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Any other failure of the disk.
    #[error("{}: {source}", .path.display())]
    Io {
        /// The directory or file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

const VERSION: u64 = 1;
const TITLE: &str = "lattice data directory ";
const LOCK: &str = "LOCK";
const IDENTITY: &str = "identity";
const TEMPORARY: &str = "identity.tmp";
/// Group directories begin so.
const GROUP: &str = "group-";
/// Far more than an identity with a thousand founders needs.
const LENGTH_MAX: u64 = 64 << 10;

impl DataDirectory {
    /// Locks the directory, and creates it for this node or verifies that it is this node's.
    ///
    /// `founders` are the voters of the cluster's first membership and matter only when the directory is created, as does
    /// `random`: 128 random bits, which become its store id.
    ///
    /// # Errors
    ///
    /// See [`IdentityError`]; each says what to do.
    pub fn open(
        disk: Arc<dyn Disk>,
        directory: &Path,
        cluster: ClusterId,
        node: NodeId,
        founders: &[NodeId],
        random: u128,
    ) -> Result<Self, IdentityError> {
        disk.create_dir(directory).map_err(|error| failure(directory, error))?;
        let lock = take_lock(disk.as_ref(), directory)?;
        let (identity, is_new) = match read(disk.as_ref(), directory)? {
            Some(identity) => (identity, false),
            None => {
                let mut founders = founders.to_vec();
                founders.sort_unstable();
                founders.dedup();
                let identity = Identity { cluster, node, store: StoreId(random), founders };
                create(disk.as_ref(), directory, &identity)?;
                (identity, true)
            }
        };
        identity.check(directory, cluster, node)?;
        Ok(Self { disk, directory: directory.to_path_buf(), identity, is_new, _lock: lock })
    }

    /// What a directory says of itself, without opening it; `None` if it is blank or does not exist.
    ///
    /// # Errors
    ///
    /// As [`Self::open`], but for the lock and the directory's owner.
    pub fn look(disk: &dyn Disk, directory: &Path) -> Result<Option<Identity>, IdentityError> {
        match disk.list(directory) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            _ => read(disk, directory),
        }
    }

    /// What the directory says of itself.
    #[must_use]
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// Whether the directory was created just now.
    #[must_use]
    pub fn is_new(&self) -> bool {
        self.is_new
    }

    /// The disk it lies on.
    #[must_use]
    pub fn disk(&self) -> Arc<dyn Disk> {
        Arc::clone(&self.disk)
    }

    /// Where the log of `group` is kept.
    #[must_use]
    pub fn log_directory(&self, group: GroupId) -> PathBuf {
        self.directory.join(format!("{GROUP}{group}")).join("log")
    }

    /// Where the snapshots of `group` are kept.
    #[must_use]
    pub fn snapshot_directory(&self, group: GroupId) -> PathBuf {
        self.directory.join(format!("{GROUP}{group}")).join("snapshots")
    }

    /// The identity that every frame of `group`'s log bears, so that a file of another node or group, put there by mistake, is
    /// recognised.
    #[must_use]
    pub fn log_id(&self, group: GroupId) -> u128 {
        self.identity.store.0 ^ u128::from(group.0)
    }
}

impl Identity {
    fn check(
        &self,
        directory: &Path,
        cluster: ClusterId,
        node: NodeId,
    ) -> Result<(), IdentityError> {
        let directory = directory.to_path_buf();
        if self.cluster != cluster {
            let (found, expected) = (self.cluster, cluster);
            return Err(IdentityError::WrongCluster { directory, found, expected });
        }
        if self.node != node {
            let (found, expected) = (self.node, node);
            return Err(IdentityError::WrongNode { directory, found, expected });
        }
        Ok(())
    }

    fn encode(&self) -> String {
        let Self { cluster, node, store, founders } = self;
        let mut text =
            format!("{TITLE}{VERSION}\ncluster {cluster}\nnode {}\nstore {store}\n", node.0);
        text.push_str("founders");
        for founder in founders {
            write!(text, " {}", founder.0).expect("a string takes all that is written");
        }
        text.push('\n');
        let checksum = crc32c::crc32c(text.as_bytes());
        writeln!(text, "crc32c {checksum:08x}").expect("a string takes all that is written");
        text
    }

    /// Reads what [`Self::encode`] wrote, and only that: the text must be what encoding its values gives.
    fn decode(text: &str) -> Option<Self> {
        let mut lines = text.lines().skip(1);
        let mut field = |name: &str| lines.next()?.strip_prefix(name);
        let cluster = ClusterId(u64::from_str_radix(field("cluster ")?, 16).ok()?);
        let node = NodeId(field("node ")?.parse().ok()?);
        let store = StoreId(u128::from_str_radix(field("store ")?, 16).ok()?);
        let founders = field("founders")?.split_whitespace();
        let founders =
            founders.map(|id| id.parse().ok().map(NodeId)).collect::<Option<Vec<_>>>()?;
        let identity = Self { cluster, node, store, founders };
        (identity.encode() == text).then_some(identity)
    }
}

fn take_lock(disk: &dyn Disk, directory: &Path) -> Result<Box<dyn DiskLock>, IdentityError> {
    let path = directory.join(LOCK);
    disk.lock(&path).map_err(|error| match error.kind() {
        io::ErrorKind::WouldBlock => IdentityError::Locked { directory: directory.to_path_buf() },
        _ => failure(&path, error),
    })
}

/// The identity in the directory; `None` if the directory is blank.
fn read(disk: &dyn Disk, directory: &Path) -> Result<Option<Identity>, IdentityError> {
    let names = disk.list(directory).map_err(|error| failure(directory, error))?;
    if !names.iter().any(|name| name == IDENTITY) {
        // A file system's own directory in a mount point does not make it less blank.
        let is_blank = |name: &String| [LOCK, TEMPORARY, "lost+found"].contains(&name.as_str());
        let Some(name) = names.into_iter().find(|name| !is_blank(name)) else { return Ok(None) };
        let directory = directory.to_path_buf();
        return Err(if name.starts_with(GROUP) {
            IdentityError::Lost { directory, name }
        } else {
            IdentityError::NotOurs { directory, name }
        });
    }
    let path = directory.join(IDENTITY);
    let bytes = read_file(disk, &path)?;
    // The process that renamed it may have died before its name was durable.
    disk.sync_dir(directory).map_err(|error| failure(directory, error))?;
    parse(&path, bytes).map(Some)
}

fn read_file(disk: &dyn Disk, path: &Path) -> Result<Vec<u8>, IdentityError> {
    let file = disk.open(path, OpenMode::Read).map_err(|error| failure(path, error))?;
    let length = file.length().map_err(|error| failure(path, error))?;
    if length > LENGTH_MAX {
        return Err(IdentityError::Corrupt { path: path.to_path_buf(), reason: "it is too long" });
    }
    let mut bytes = vec![0; usize::try_from(length).expect("bounded above")];
    let count = file.read_at(&mut bytes, 0).map_err(|error| failure(path, error))?;
    bytes.truncate(count);
    Ok(bytes)
}

fn parse(path: &Path, bytes: Vec<u8>) -> Result<Identity, IdentityError> {
    let corrupt = |reason| IdentityError::Corrupt { path: path.to_path_buf(), reason };
    let text = String::from_utf8(bytes).ok().ok_or_else(|| corrupt("it is not text"))?;
    let title = text.lines().next().and_then(|line| line.strip_prefix(TITLE));
    let version = title.and_then(|version| version.parse().ok());
    match version {
        Some(VERSION) => {}
        // A newer version ends with a checksum too: without it, a flipped bit would pass for one.
        Some(version) if ends_with_checksum(&text) => {
            return Err(IdentityError::Version { path: path.to_path_buf(), version });
        }
        Some(_) => return Err(corrupt("its checksum is wrong")),
        None => return Err(corrupt("its first line is not that of an identity file")),
    }
    Identity::decode(&text).ok_or_else(|| corrupt("its checksum or its fields are wrong"))
}

/// Whether the last line is the checksum of all before it, in whatever version.
fn ends_with_checksum(text: &str) -> bool {
    let checksum = text.rfind("crc32c ").map(|at| text.split_at(at));
    checksum.is_some_and(|(content, line)| {
        line == format!("crc32c {:08x}\n", crc32c::crc32c(content.as_bytes()))
    })
}

fn create(disk: &dyn Disk, directory: &Path, identity: &Identity) -> Result<(), IdentityError> {
    let (temporary, path) = (directory.join(TEMPORARY), directory.join(IDENTITY));
    match disk.remove(&temporary) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(failure(&temporary, error));
        }
        // Nothing there, or what a crash left.
        Ok(()) | Err(_) => {}
    }
    let write = || {
        let file = disk.open(&temporary, OpenMode::CreateNew)?;
        file.write_at(identity.encode().as_bytes(), 0)?;
        file.sync_data()?;
        disk.rename(&temporary, &path)?;
        disk.sync_dir(directory)
    };
    write().map_err(|error| failure(&path, error))
}

fn failure(path: &Path, source: io::Error) -> IdentityError {
    let path = path.to_path_buf();
    match source.kind() {
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
            IdentityError::Unwritable { path, source }
        }
        _ => IdentityError::Io { path, source },
    }
}

#[cfg(test)]
mod tests {
    use lattice_journal::MemoryDisk;
    use lattice_sim::SimDisk;

    use super::*;

    const DIRECTORY: &str = "/data";

    fn open_as(disk: &MemoryDisk, cluster: u64, node: u64) -> Result<DataDirectory, IdentityError> {
        let founders = [NodeId(3), NodeId(1), NodeId(2)];
        let (cluster, node) = (ClusterId(cluster), NodeId(node));
        let disk = Arc::new(disk.clone());
        DataDirectory::open(disk, Path::new(DIRECTORY), cluster, node, &founders, 0xfeed << 90)
    }

    fn created() -> MemoryDisk {
        let disk = MemoryDisk::new();
        assert!(open_as(&disk, 7, 2).unwrap().is_new());
        disk
    }

    #[test]
    fn a_blank_directory_becomes_this_nodes_and_stays_it() {
        let disk = created();
        let directory = open_as(&disk, 7, 2).unwrap();
        assert!(!directory.is_new());
        let expected = Identity {
            cluster: ClusterId(7),
            node: NodeId(2),
            store: StoreId(0xfeed << 90),
            founders: vec![NodeId(1), NodeId(2), NodeId(3)],
        };
        assert_eq!(directory.identity(), &expected);
        assert_ne!(directory.log_id(GroupId(0)), directory.log_id(GroupId(1)));
        assert_eq!(directory.log_directory(GroupId(4)), Path::new("/data/group-4/log"));
    }

    #[test]
    fn a_second_holder_is_refused_until_the_first_lets_go() {
        let disk = created();
        let first = open_as(&disk, 7, 2).unwrap();
        assert!(matches!(open_as(&disk, 7, 2), Err(IdentityError::Locked { .. })));
        drop(first);
        assert!(open_as(&disk, 7, 2).is_ok());
    }

    #[test]
    fn the_directory_of_another_node_or_cluster_is_refused_and_named() {
        let disk = created();
        let error = open_as(&disk, 7, 3).unwrap_err();
        assert!(error.to_string().contains("belongs to node2, this process is node3"), "{error}");
        let error = open_as(&disk, 8, 2).unwrap_err();
        assert!(error.to_string().contains("belongs to cluster 0000000000000007"), "{error}");
    }

    #[test]
    fn a_directory_of_something_else_is_refused_and_nothing_is_written_to_it() {
        let disk = MemoryDisk::new();
        disk.create_dir(Path::new(DIRECTORY)).unwrap();
        disk.set_content("/data/photo.jpg", "x");
        let error = open_as(&disk, 7, 2).unwrap_err();
        assert!(matches!(&error, IdentityError::NotOurs { name, .. } if name == "photo.jpg"));
        assert!(disk.content("/data/identity").is_err());
    }

    #[test]
    fn a_used_directory_that_lost_its_identity_is_not_given_a_new_one() {
        let disk = created();
        disk.create_dir(Path::new("/data/group-0/log")).unwrap();
        disk.remove(Path::new("/data/identity")).unwrap();
        assert!(matches!(open_as(&disk, 7, 2), Err(IdentityError::Lost { .. })));
    }

    #[test]
    fn every_flipped_bit_and_every_cut_is_an_error() {
        let whole = created().content("/data/identity").unwrap();
        for position in 0..whole.len() {
            for bit in 0..8 {
                let disk = created();
                disk.corrupt("/data/identity", position, 1 << bit).unwrap();
                assert!(open_as(&disk, 7, 2).is_err(), "bit {bit} of byte {position}");
            }
            let disk = created();
            disk.set_content("/data/identity", &whole[..position]);
            assert!(open_as(&disk, 7, 2).is_err(), "cut at {position}");
        }
    }

    #[test]
    fn a_newer_version_is_named_as_such() {
        let disk = created();
        let content = "lattice data directory 9\nanything\n";
        let checksum = crc32c::crc32c(content.as_bytes());
        disk.set_content("/data/identity", format!("{content}crc32c {checksum:08x}\n"));
        assert!(matches!(open_as(&disk, 7, 2), Err(IdentityError::Version { version: 9, .. })));
    }

    #[test]
    fn a_damaged_version_is_not_taken_for_a_newer_one() {
        let disk = created();
        // The last bit of the version's digit: 1 becomes 5.
        let position = "lattice data directory ".len();
        disk.corrupt("/data/identity", position, 1 << 2).unwrap();
        assert!(matches!(open_as(&disk, 7, 2), Err(IdentityError::Corrupt { .. })));
    }

    #[test]
    fn a_temporary_file_that_a_crash_left_is_no_obstacle() {
        let disk = MemoryDisk::new();
        disk.create_dir(Path::new(DIRECTORY)).unwrap();
        disk.set_content("/data/identity.tmp", "lattice da");
        assert!(open_as(&disk, 7, 2).unwrap().is_new());
        assert!(!open_as(&disk, 7, 2).unwrap().is_new());
    }
    #[test]
    fn a_crash_at_any_call_of_the_creation_leaves_a_blank_directory_or_a_whole_one() {
        let open = |disk: &SimDisk, random| {
            let disk = Arc::new(disk.clone());
            let (cluster, node) = (ClusterId(7), NodeId(2));
            DataDirectory::open(disk, Path::new(DIRECTORY), cluster, node, &[], random)
        };
        for calls in 0.. {
            assert!(calls < 100, "the creation never ends");
            let mut got_through = false;
            for seed in 0..8 {
                let disk = SimDisk::new(seed);
                disk.crash_after_calls(calls);
                let first = open(&disk, 1);
                got_through = first.is_ok();
                drop(first);
                disk.crash();
                let store = open(&disk, 2).unwrap().identity().store;
                if got_through {
                    assert_eq!(store, StoreId(1), "a store id that was used is never replaced");
                }
            }
            if got_through {
                break;
            }
        }
    }

    #[test]
    fn a_full_disk_and_a_failed_sync_are_errors() {
        let disk = SimDisk::new(1);
        disk.set_capacity(Some(0));
        let open = |disk: &SimDisk| {
            let disk = Arc::new(disk.clone());
            DataDirectory::open(disk, Path::new(DIRECTORY), ClusterId(7), NodeId(2), &[], 1)
        };
        assert!(matches!(open(&disk), Err(IdentityError::Io { .. })));
        disk.set_capacity(None);
        disk.fail_sync_at(1);
        assert!(matches!(open(&disk), Err(IdentityError::Io { .. })));
        assert!(open(&disk).unwrap().is_new());
    }
}
