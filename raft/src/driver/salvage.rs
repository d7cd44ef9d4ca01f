//! What one stopped node still has, and a new cluster that begins with it: disaster recovery, when a majority is lost for good.
//!
//! A log does not say which of its last entries were committed; only a majority can. So what is read out here is **all of it**: everything
//! that this node ever acknowledged to a leader is kept, and with it whatever it had taken in that was never decided, or was decided
//! otherwise by those that are lost. Nobody left can tell these apart, and of the two mistakes, to forget what a client was promised is
//! the worse one. What others acknowledged without this node is gone.
//!
//! The new cluster begins with a snapshot of that state and an empty log. Nothing that was signed with the old store's or the old cluster's id
//! goes into it. But its log goes on at the next place, which a lost entry may have had: what clients of the old cluster hold that is a place in
//! the log, such as the id of a session, means nothing in the new one.

use std::ops::RangeInclusive;
use std::path::Path;
use std::sync::Arc;

use lattice_journal::Disk;
use thiserror::Error;

use crate::effects::{IoToken, PersistBatch};
use crate::membership::Membership;
use crate::state_machine::{BoxError, DurableStateMachine, Fatal};
use crate::storage::{
    DamagedEntries, DataDirectory, JournalLog, JournalLogOptions, LogReader, LogStore,
    OpenLogError, SnapshotError, SnapshotStore, StorageError,
};
use crate::types::{EntryId, GroupId, HardState, LogIndex, SnapshotMeta, Term};

use super::apply_thread::{committed, restore};

/// Bytes of entries that are in memory at a time.
const READ_BYTES: usize = 4 << 20;

/// What was read out of a stopped node's log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Salvaged {
    /// The last entry that the machine has now.
    pub last: EntryId,
    /// The last entry of the log: later than `last` only if damage was in the way.
    pub log_end: EntryId,
    /// The latest snapshot's last entry. What lies behind it was in the log alone.
    pub snapshot: Option<EntryId>,
    /// The latest term that the node knew of.
    pub term: Term,
    /// The members as of `last`.
    pub membership: Membership,
}

/// Why a log is not read out, or no new one is begun.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum SalvageError {
    /// The log cannot be opened.
    #[error(transparent)]
    Log(#[from] OpenLogError),
    /// A snapshot cannot be read or written.
    #[error(transparent)]
    Snapshot(#[from] SnapshotError),
    /// Entries are damaged, and nobody said that those before them are enough.
    #[error(
        "entries {} to {} of the log are damaged, and no other node is there to repair them: what comes before them can be kept, \
         that is up to entry {}; the rest, up to entry {log_end}, would be lost", .damaged.first, .damaged.last, .damaged.first.previous()
    )]
    Damaged {
        /// The first of them.
        damaged: DamagedEntries,
        /// The end of the log.
        log_end: LogIndex,
    },
    /// The log is empty: this node was never part of a cluster that had decided anything.
    #[error("the log is empty: there is nothing to recover")]
    Empty,
    /// Entries cannot be read.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// The state machine cannot be restored from its snapshot, or cannot be asked for one.
    #[error("the state machine failed: {0}")]
    Machine(BoxError),
}

/// Puts `machine`, which is new, into the state that a stopped node's log leads to, all its entries applied.
///
/// `log` and `snapshots` are directories of one group, and `log_id` the identity that its log was written under. Opening them changes them, as
/// the node's own start would: give it copies. With `up_to_damage`, entries from the first damaged one on are left out. Blocks on the disk,
/// for as long as a start of the node would.
///
/// # Errors
///
/// See [`SalvageError`].
pub fn read_out<M: DurableStateMachine>(
    disk: Arc<dyn Disk>,
    log: &Path,
    snapshots: &Path,
    log_id: u128,
    machine: &mut M,
    up_to_damage: bool,
) -> Result<Salvaged, SalvageError> {
    let (log, recovered) =
        JournalLog::open(Arc::clone(&disk), log, JournalLogOptions::new(log_id))?;
    let latest = recovered.snapshot;
    let snapshots = SnapshotStore::open(disk, snapshots, latest.as_ref())?;
    if let Some(meta) = &latest {
        restore(machine, &snapshots, meta).map_err(SalvageError::Machine)?;
    }
    let log_end = recovered.terms.last();
    let through = match recovered.damaged.first() {
        None => log_end.index,
        Some(_) if up_to_damage => recovered.damaged[0].first.previous(),
        Some(&damaged) => return Err(SalvageError::Damaged { damaged, log_end: log_end.index }),
    };
    let first = latest.as_ref().map_or(LogIndex::ZERO, |meta| meta.last.index).next();
    apply(machine, &log.reader(), first..=through)?;
    let last = machine.applied();
    if last == EntryId::ZERO {
        return Err(SalvageError::Empty);
    }
    let in_log = recovered.memberships.into_iter().rev().find(|(at, _)| *at <= last.index);
    let in_snapshot = latest.as_ref().map(|meta| meta.membership.clone());
    Ok(Salvaged {
        last,
        log_end,
        snapshot: latest.map(|meta| meta.last),
        term: recovered.hard_state.term.max(log_end.term),
        membership: in_log.map(|(_, members)| members).or(in_snapshot).unwrap_or_default(),
    })
}

fn apply<M: DurableStateMachine>(
    machine: &mut M,
    log: &impl LogReader,
    range: RangeInclusive<LogIndex>,
) -> Result<(), SalvageError> {
    let (mut next, through) = range.into_inner();
    let mut replies = Vec::new();
    while next <= through {
        let entries = log.entries(next..=through, READ_BYTES)?;
        let entries: Vec<_> = entries.iter().map(committed).collect();
        machine.apply(&entries, &mut replies).map_err(|fatal: Fatal| {
            let error: BoxError = fatal.into();
            SalvageError::Machine(error)
        })?;
        replies.clear();
        next = machine.applied().index.next();
    }
    Ok(())
}

/// Makes a new directory's log of `group` begin with the state of `machine`: with a snapshot up to the last entry that it has applied, when the
/// members were `membership`, in `term`. The directory's node must be among them, bound to its store.
///
/// All of it is durable afterwards. A crash in between leaves a directory that must be thrown away.
///
/// # Errors
///
/// See [`SalvageError`].
pub fn begin_with<M: DurableStateMachine>(
    directory: &DataDirectory,
    group: GroupId,
    machine: &mut M,
    membership: &Membership,
    term: Term,
) -> Result<SnapshotMeta, SalvageError> {
    let disk = directory.disk();
    let identity = directory.identity();
    assert!(membership.counts(identity.node, identity.store), "the node is a voter");
    let snapshots =
        SnapshotStore::open(Arc::clone(&disk), &directory.snapshot_directory(group), None)?;
    let mut view = machine
        .view()
        .map_err(SalvageError::Machine)?
        .ok_or_else(|| SalvageError::Machine("this state machine takes no snapshots".into()))?;
    let mut writer = snapshots.begin(machine.applied(), membership);
    while let Some(part) = view.next_part().map_err(SalvageError::Machine)? {
        writer.part(&part)?;
    }
    let meta = writer.finish()?;
    let options = JournalLogOptions::new(directory.log_id(group));
    let (mut log, _) = JournalLog::open(disk, &directory.log_directory(group), options)?;
    log.append(&PersistBatch {
        token: IoToken(1),
        hard_state: Some(HardState { term, ..HardState::default() }),
        snapshot: Some(meta.clone()),
        restart_log: true,
        ..PersistBatch::default()
    })?;
    log.sync()?;
    log.idle()?;
    Ok(meta)
}
