//! Entries and snapshots on their way to and from other nodes, and what the disk need not keep any more.

use std::ops::RangeInclusive;

use lattice_trace::kind;

use super::{Host, Pending, Running, Workload, reason};
use crate::replica::Input;
use crate::sim::markers;
use crate::storage::{LogReader, Received, StorageError};
use crate::types::{Entry, LogIndex, SnapshotMeta};

impl<W: Workload> Running<W> {
    /// Entries for another node; none if they cannot be read. If that is because they are damaged, our own node hears of it first.
    pub(super) fn read_entries(
        &mut self,
        range: RangeInclusive<LogIndex>,
        bytes_max: usize,
    ) -> Vec<Entry> {
        let entries = self.log_reader.entries(range, bytes_max);
        if let Err(StorageError::Damaged { first, last, .. }) = entries {
            self.inputs.push_back(Input::EntriesDamaged { first, last });
        }
        entries.unwrap_or_default()
    }

    pub(super) fn write_snapshot(
        &mut self,
        meta: SnapshotMeta,
        offset: u64,
        data: &[u8],
        context: &mut Host<'_>,
    ) {
        if let Some(marker) = self.setup.elections.borrow().snapshot() {
            context.mark(marker);
        }
        let before = self.snapshots.counts();
        let mut result = self.snapshots.receive(&meta, offset, data);
        while let Ok(Received { next, is_busy: true, .. }) = result {
            result = self.snapshots.receive(&meta, next, &[]);
        }
        let after = self.snapshots.counts();
        if after.bytes_kept > before.bytes_kept {
            context.mark(markers::PART_SKIPPED);
        }
        if after.bytes_resumed > before.bytes_resumed {
            context.mark(markers::RESUMED);
        }
        let pending = match result {
            Ok(received) => Pending::Input(Input::SnapshotWritten {
                meta,
                offset: received.next,
                is_complete: received.is_complete,
            }),
            Err(error) if error.is_fatal() => Pending::Failure(reason(&error)),
            Err(error) => {
                context.trace(kind::SNAPSHOT, format_args!("refused: {error}"));
                Pending::Input(Input::SnapshotWritten { meta, offset, is_complete: false })
            }
        };
        self.after_disk(pending, context);
    }

    pub(super) fn compact(&mut self, through: LogIndex, oldest: LogIndex, context: &mut Host<'_>) {
        let removed = self.snapshots.retain(oldest).map_err(|error| reason(&error));
        let result = removed.and_then(|()| self.writer.compact(through));
        if let Err(reason) = result {
            self.after_disk(Pending::Failure(reason), context);
        }
    }
}
