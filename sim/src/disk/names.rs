//! The names on a disk: visible ones, durable ones, and the changes between them.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Component, Path, PathBuf};

/// Which file a name leads to.
pub(super) type Names = BTreeMap<PathBuf, u64>;

/// A creation, renaming or removal.
#[derive(Clone, Debug)]
pub(super) struct NameChange {
    pub(super) sequence: u64,
    /// When the disk began with it.
    pub(super) start: u64,
    pub(super) kind: NameChangeKind,
    /// A failed sync covered it: it stays visible and never becomes durable.
    pub(super) lost: bool,
}

#[derive(Clone, Debug)]
pub(super) enum NameChangeKind {
    Create { path: PathBuf, inode: u64 },
    Rename { from: PathBuf, to: PathBuf, inode: u64 },
    Remove { path: PathBuf },
}

impl NameChange {
    pub(super) fn apply(&self, names: &mut Names) {
        match &self.kind {
            NameChangeKind::Create { path, inode } => {
                names.insert(path.clone(), *inode);
            }
            NameChangeKind::Rename { from, to, inode } => {
                names.remove(from);
                names.insert(to.clone(), *inode);
            }
            NameChangeKind::Remove { path } => {
                names.remove(path);
            }
        }
    }

    /// The names that it touches.
    fn names(&self) -> impl Iterator<Item = &PathBuf> {
        let (one, other) = match &self.kind {
            NameChangeKind::Create { path, .. } | NameChangeKind::Remove { path } => (path, None),
            NameChangeKind::Rename { from, to, .. } => (from, Some(to)),
        };
        std::iter::once(one).chain(other)
    }

    fn is_in(&self, directory: &Path) -> bool {
        self.names().any(|name| name.parent() == Some(directory))
    }

    pub(super) fn leads_to(&self, inode: u64) -> bool {
        match &self.kind {
            NameChangeKind::Create { inode: other, .. }
            | NameChangeKind::Rename { inode: other, .. } => *other == inode,
            NameChangeKind::Remove { .. } => false,
        }
    }
}

/// A sync of `directory` that covers everything before `sequence` has ended.
///
/// File systems keep the order of changes that touch the same name, so a synced change takes along the earlier ones
/// that it builds upon, those of other directories too.
pub(super) fn settle(
    changes: &mut Vec<NameChange>,
    durable: &mut Names,
    directory: &Path,
    sequence: u64,
    succeeded: bool,
) {
    let mut needed: BTreeSet<PathBuf> = BTreeSet::new();
    let mut covered = vec![false; changes.len()];
    for (change, covered) in changes.iter().zip(&mut covered).rev() {
        if change.sequence < sequence
            && (change.is_in(directory) || change.names().any(|name| needed.contains(name)))
        {
            *covered = true;
            needed.extend(change.names().cloned());
        }
    }
    let mut covered = covered.into_iter();
    let mut keep = |covered: bool, change: &mut NameChange, tainted: &mut BTreeSet<PathBuf>| {
        change.lost |= covered && !succeeded || change.names().any(|name| tainted.contains(name));
        if change.lost {
            tainted.extend(change.names().cloned());
        } else if covered {
            change.apply(durable);
            return false;
        }
        true
    };
    let mut tainted = BTreeSet::new();
    changes.retain_mut(|change| keep(covered.next().unwrap_or(false), change, &mut tainted));
}

/// The machine is gone: each change is kept or lost as `keep` says. A change that builds on a lost one is lost too, so
/// that no synced file loses its last name: renames stay atomic.
pub(super) fn crash(
    changes: &mut Vec<NameChange>,
    durable: &mut Names,
    now: u64,
    mut keep: impl FnMut() -> bool,
) {
    let mut tainted: BTreeSet<PathBuf> = BTreeSet::new();
    for change in changes.drain(..) {
        let possible = change.start <= now
            && !change.lost
            && !change.names().any(|name| tainted.contains(name));
        if possible && keep() {
            change.apply(durable);
        } else {
            tainted.extend(change.names().cloned());
        }
    }
}

/// A path in the one form that names are compared in: without `.` and without a slash at the end.
pub(super) fn normal(path: &Path) -> PathBuf {
    path.components().filter(|component| *component != Component::CurDir).collect()
}

/// Whether a path is the top of the tree, which always exists.
pub(super) fn is_top(path: &Path) -> bool {
    path.parent().is_none()
}
