//! What a journal says when it is opened, made into the state that a node starts from; or why it must not start.

use std::collections::VecDeque;
use std::fmt;
use std::path::{Path, PathBuf};

use lattice_journal::{Damage, OpenError, ReadError, Reader, Recovery};
use thiserror::Error;

use super::encoding::{decode_entry, decode_state};
use crate::membership::Membership;
use crate::storage::{RecoveredState, TermRuns};
use crate::types::{Entry, EntryId, HardState, LogIndex, Payload, SnapshotMeta, Term};

/// Bytes of items that are in memory at one time while the log is scanned.
const SCAN_BYTES: usize = 1 << 20;

/// Why a node cannot start on its log.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum OpenLogError {
    /// The journal cannot be opened.
    #[error("the log cannot be opened: {0}")]
    Journal(#[from] OpenError),
    /// What was durable does not read back as it was written. Nothing was changed.
    #[error(
        "the log in {} is damaged: {}{}. The node may have promised what it can no longer read, so \
         it must neither vote nor acknowledge: restore the directory from a copy that is not older \
         than the node's last run, or replace the node by a new one",
        .directory.display(), Damages(.damaged),
        if *.state_damaged { "; its latest term and vote are lost" } else { "" }
    )]
    Damaged {
        /// The log's directory.
        directory: PathBuf,
        /// Which files, bytes and entries; an item's position is its entry's index.
        damaged: Vec<Damage>,
        /// The latest term and vote are among what was lost.
        state_damaged: bool,
    },
    /// Every checksum is right, and yet the content contradicts itself: a defect of the program that wrote it, or files
    /// that were put together by hand.
    #[error(
        "the log in {} contradicts itself: {reason}. The node must neither vote nor acknowledge: \
         restore the directory from a copy, or replace the node by a new one; and please report this",
        .directory.display()
    )]
    Contradiction {
        /// The log's directory.
        directory: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// Entries cannot be read.
    #[error("the log in {} cannot be read: {source}", .directory.display())]
    Read {
        /// The log's directory.
        directory: PathBuf,
        /// What the journal said.
        source: ReadError,
    },
}

/// Shows the first few damages.
struct Damages<'a>(&'a [Damage]);

impl fmt::Display for Damages<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const SHOWN: usize = 8;
        for (number, damage) in self.0.iter().take(SHOWN).enumerate() {
            let separator = if number == 0 { "" } else { "; " };
            write!(f, "{separator}file {:020}.seg: {damage}", damage.segment)?;
        }
        match self.0.len().checked_sub(SHOWN) {
            Some(more @ 1..) => write!(f, "; and {more} more"),
            _ => Ok(()),
        }
    }
}

/// Reads the whole journal once.
pub(super) fn recover(
    directory: &Path,
    recovery: Recovery,
    reader: &Reader,
    tail_bytes_max: usize,
) -> Result<RecoveredState, OpenLogError> {
    let directory = directory.to_path_buf();
    if !recovery.damaged.is_empty() || recovery.state_damaged {
        let Recovery { damaged, state_damaged, .. } = recovery;
        return Err(OpenLogError::Damaged { directory, damaged, state_damaged });
    }
    let contradiction =
        |reason: String| OpenLogError::Contradiction { directory: directory.clone(), reason };
    let read = |source| OpenLogError::Read { directory: directory.clone(), source };

    let (hard_state, snapshot) = match recovery.state.as_deref().map(decode_state) {
        None => (HardState::default(), None),
        Some(Ok(state)) => state,
        Some(Err(error)) => return Err(contradiction(format!("its state: {error}"))),
    };
    let mut scan = Scan::new(recovery.positions.start, snapshot.as_ref(), tail_bytes_max);
    let mut next = recovery.positions.start;
    while next < recovery.positions.end {
        let mut flaw = None;
        let visit = |position, bytes: &[u8]| {
            if flaw.is_none() {
                flaw = scan.entry(LogIndex(position), bytes).err();
            }
        };
        let reached =
            reader.visit(next..recovery.positions.end, SCAN_BYTES, visit).map_err(read)?;
        if let Some(flaw) = flaw {
            return Err(contradiction(flaw));
        }
        if reached == next {
            return Err(contradiction(format!("entry {next} is announced but not there")));
        }
        next = reached;
    }
    scan.check(hard_state, snapshot.as_ref()).map_err(contradiction)?;
    let tail = read_tail(reader, scan.tail_start()..recovery.positions.end).map_err(read)?;
    let tail = tail.map_err(contradiction)?;
    let Scan { terms, memberships, .. } = scan;
    let terms = terms.expect("the scan was checked");
    Ok(RecoveredState { hard_state, snapshot, terms, memberships, tail })
}

fn read_tail(
    reader: &Reader,
    range: std::ops::Range<u64>,
) -> Result<Result<Vec<Entry>, String>, ReadError> {
    let mut tail = Vec::new();
    let mut flaw = None;
    reader.visit(range, usize::MAX, |position, bytes| {
        match decode_entry(LogIndex(position), bytes) {
            Ok(entry) => tail.push(entry),
            Err(error) => flaw = Some(format!("entry {position}: {error}")),
        }
    })?;
    Ok(flaw.map_or(Ok(tail), Err))
}

/// What is gathered while the entries pass by.
struct Scan {
    /// Unknown until the first entry when no snapshot says what precedes it.
    terms: Option<TermRuns>,
    memberships: Vec<(LogIndex, Membership)>,
    next: LogIndex,
    /// Sizes of the newest entries, as many as are allowed in the tail.
    tail: VecDeque<usize>,
    tail_bytes: usize,
    tail_bytes_max: usize,
}

impl Scan {
    /// Compaction drops whole segments, so the first entry present may lie anywhere before the snapshot's end and the term of the one
    /// before it is gone. Such an entry serves as the base itself: nothing needs it, since the snapshot covers it.
    fn new(start: u64, snapshot: Option<&SnapshotMeta>, tail_bytes_max: usize) -> Self {
        let before = LogIndex(start).previous();
        let terms = match snapshot.map(|meta| meta.last) {
            Some(last) if last.index == before => Some(TermRuns::after(last)),
            _ if before == LogIndex::ZERO => Some(TermRuns::after(EntryId::ZERO)),
            _ => None,
        };
        Self {
            terms,
            memberships: Vec::new(),
            next: LogIndex(start),
            tail: VecDeque::new(),
            tail_bytes: 0,
            tail_bytes_max,
        }
    }

    fn entry(&mut self, index: LogIndex, bytes: &[u8]) -> Result<(), String> {
        let entry =
            decode_entry(index, bytes).map_err(|error| format!("entry {index}: {error}"))?;
        if index != self.next {
            return Err(format!("entry {index} stands where {} should be", self.next));
        }
        self.next = index.next();
        let Some(terms) = &mut self.terms else {
            self.terms = Some(TermRuns::after(entry.id));
            return Ok(());
        };
        if entry.id.term < terms.last().term || entry.id.term == Term::ZERO {
            return Err(format!("entry {} follows entry {}", entry.id, terms.last()));
        }
        terms.push(entry.id);
        self.note_tail(entry.size());
        if let Payload::Membership(membership) = entry.payload {
            self.memberships.push((index, membership));
        }
        Ok(())
    }

    fn note_tail(&mut self, size: usize) {
        self.tail.push_back(size);
        self.tail_bytes += size;
        // The last entry is in the tail however large it is.
        while self.tail_bytes > self.tail_bytes_max && self.tail.len() > 1 {
            self.tail_bytes -= self.tail.pop_front().expect("longer than one");
        }
    }

    fn tail_start(&self) -> u64 {
        self.next.0 - u64::try_from(self.tail.len()).expect("a count fits 64 bits")
    }

    /// The log, its snapshot and its term must go together.
    fn check(&self, hard_state: HardState, snapshot: Option<&SnapshotMeta>) -> Result<(), String> {
        let before = self.next.previous();
        let Some(terms) = &self.terms else {
            return Err(format!("it ends at entry {before} and its snapshot does not"));
        };
        let (base, last) = (terms.base(), terms.last());
        if last.term > hard_state.term {
            return Err(format!("entry {last} is of a later term than {}", hard_state.term));
        }
        let Some(meta) = snapshot else {
            return match base {
                EntryId::ZERO => Ok(()),
                _ => Err(format!("it begins behind entry {} without a snapshot", base.index)),
            };
        };
        match terms.term_at(meta.last.index) {
            Some(term) if term == meta.last.term => Ok(()),
            Some(_) => Err(format!("its snapshot {} is of another log", meta.last)),
            None => Err(format!(
                "its snapshot ends at entry {}, the log goes from behind entry {base} to {last}",
                meta.last
            )),
        }
    }
}
