//! What a journal says when it is opened, made into the state that a node starts from; or why it must not start.

use std::collections::VecDeque;
use std::fmt;
use std::ops::Range;
use std::path::{Path, PathBuf};

use lattice_journal::{Damage, OpenError, ReadError, Reader, Recovery};
use thiserror::Error;

use super::encoding::{decode_entry, decode_state};
use crate::membership::Membership;
use crate::storage::{DamagedEntries, RecoveredState, TermRuns};
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
    /// What was durable does not read back as it was written, and more is lost than entries. Nothing was changed.
    #[error(
        "the log in {} is damaged: {}{}. The node may have promised what it can no longer read, so \
         it must neither vote nor acknowledge: restore the directory from a copy that is not older \
         than the node's last run, or replace the node by a new one",
        .directory.display(), Damages(.damaged),
        if *.state_damaged { "; its latest term and vote are lost" } else { "; its end is lost" }
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
    if recovery.end_lost || recovery.state_damaged {
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
    let covered = snapshot.as_ref().map_or(LogIndex::ZERO, |meta| meta.last.index);
    let (start, lost) = lost_behind(covered, recovery.positions.start, &reader.damaged());
    let mut scan = Scan::new(start, snapshot.as_ref(), tail_bytes_max);
    let mut lost = lost.into_iter().peekable();
    let mut next = start;
    while next < recovery.positions.end {
        if let Some(range) = lost.next_if(|range| range.start == next) {
            next = range.end;
            scan.lost(range).map_err(contradiction)?;
            continue;
        }
        let end = lost.peek().map_or(recovery.positions.end, |range| range.start);
        let mut flaw = None;
        let visit = |position, bytes: &[u8]| {
            if flaw.is_none() {
                flaw = scan.entry(LogIndex(position), bytes).err();
            }
        };
        let reached = match reader.visit(next..end, SCAN_BYTES, visit) {
            Ok(reached) => reached,
            // It was intact a moment ago, when the journal was opened. Perhaps it will be again, but that is not to be relied on.
            Err(ReadError::Corrupt { positions, .. } | ReadError::Io { positions, .. })
                if positions.contains(&next) =>
            {
                let reached = positions.end.min(end);
                scan.lost(next..reached).map_err(contradiction)?;
                reached
            }
            Err(error) => return Err(read(error)),
        };
        if let Some(flaw) = flaw {
            return Err(contradiction(flaw));
        }
        if reached == next {
            return Err(contradiction(format!("entry {next} is announced but not there")));
        }
        next = reached;
    }
    scan.lost_to_the_end(hard_state.term).map_err(contradiction)?;
    scan.check(hard_state, snapshot.as_ref()).map_err(contradiction)?;
    let Scan { terms, memberships, damaged, tail, .. } = scan;
    let terms = terms.expect("the scan was checked");
    Ok(RecoveredState { hard_state, snapshot, terms, memberships, tail: tail.into(), damaged })
}

/// Where reading begins, and the damage from there on. What was lost at or before the snapshot's end is covered by the snapshot, and
/// the log begins behind it.
fn lost_behind(covered: LogIndex, start: u64, damaged: &[Range<u64>]) -> (u64, Vec<Range<u64>>) {
    let behind = covered.next().0;
    let begins = |start: u64, range: &Range<u64>| {
        if range.start < behind { start.max(range.end.min(behind)) } else { start }
    };
    let start = damaged.iter().fold(start, begins);
    let cut = |range: &Range<u64>| range.start.max(start)..range.end;
    (start, damaged.iter().map(cut).filter(|range| !range.is_empty()).collect())
}

/// What is gathered while the entries pass by.
struct Scan {
    /// Unknown until the first entry when no snapshot says what precedes it.
    terms: Option<TermRuns>,
    memberships: Vec<(LogIndex, Membership)>,
    next: LogIndex,
    /// The newest entries, as many as are allowed. Kept as they pass by, for what is read a second time may not come a second time.
    tail: VecDeque<Entry>,
    tail_bytes: usize,
    tail_bytes_max: usize,
    damaged: Vec<DamagedEntries>,
    /// Entries before `next` that are lost, and whose terms the next one tells.
    open: Option<Range<u64>>,
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
            damaged: Vec::new(),
            open: None,
        }
    }

    /// The entries of `range`, which begins where the last one ended, are lost.
    fn lost(&mut self, range: Range<u64>) -> Result<(), String> {
        if self.terms.is_none() {
            return Err(format!(
                "entry {} is lost, and what precedes it is not known",
                range.start
            ));
        }
        self.next = LogIndex(range.end);
        self.tail.clear();
        self.tail_bytes = 0;
        // Frames without entries may stand between two that are lost.
        let start = self.open.as_ref().map_or(range.start, |open| open.start);
        self.open = Some(start..range.end);
        Ok(())
    }

    /// Terms never fall: those of lost entries lie between that of the entry before and `behind`.
    fn close(&mut self, behind: Term, stand_in: impl Fn(Term, Term) -> Term) -> Result<(), String> {
        let (Some(range), Some(terms)) = (self.open.take(), &mut self.terms) else { return Ok(()) };
        let before = terms.last().term;
        if behind < before {
            return Err(format!("term {behind} follows entry {}", terms.last()));
        }
        let (first, last) = (LogIndex(range.start), LogIndex(range.end).previous());
        terms.extend(last, stand_in(before, behind));
        self.damaged.push(DamagedEntries { first, last, terms_known: before == behind });
        Ok(())
    }

    /// The last entries may be lost too: they are not of a later term than the node.
    fn lost_to_the_end(&mut self, term: Term) -> Result<(), String> {
        self.close(term, |_, behind| behind)
    }

    fn entry(&mut self, index: LogIndex, bytes: &[u8]) -> Result<(), String> {
        let entry =
            decode_entry(index, bytes).map_err(|error| format!("entry {index}: {error}"))?;
        if index != self.next {
            return Err(format!("entry {index} stands where {} should be", self.next));
        }
        self.next = index.next();
        self.close(entry.id.term, |before, _| before)?;
        let Some(terms) = &mut self.terms else {
            self.terms = Some(TermRuns::after(entry.id));
            return Ok(());
        };
        if entry.id.term < terms.last().term || entry.id.term == Term::ZERO {
            return Err(format!("entry {} follows entry {}", entry.id, terms.last()));
        }
        terms.push(entry.id);
        if let Payload::Membership(membership) = &entry.payload {
            self.memberships.push((index, membership.clone()));
        }
        self.note_tail(entry);
        Ok(())
    }

    fn note_tail(&mut self, entry: Entry) {
        self.tail_bytes += entry.size();
        self.tail.push_back(entry);
        // The last entry is in the tail however large it is.
        while self.tail_bytes > self.tail_bytes_max && self.tail.len() > 1 {
            self.tail_bytes -= self.tail.pop_front().expect("longer than one").size();
        }
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
