//! The store on disk without its threads: a plain struct that one owner drives, and whose every step is a call.
//!
//! [`EventLog::stage`] decides about an append and gives its events their places; [`EventLog::commit`] writes everything staged with
//! one write and one sync, and then shows it to the readers. What is staged goes into frames of the journal that begin and end with an
//! append, for reading one event reads its frame: so a crash may leave a prefix of a group, and each of its appends whole. An answer of `stage`, whether yes or no, must not leave the
//! process before `commit` has returned: until then the events that it is about may still be lost. If `commit` fails, all of them are.
//!
//! Everything else can be done on other threads, for it changes no answer: [`EventLog::reader`] reads, [`EventLog::upkeep`] says what
//! files are to be written that nothing depends on, and [`EventLog::scavenger`] takes back the space of hidden events.

use std::ops::Range;
use std::sync::Arc;

use lattice_journal::{
    AppendError as JournalAppendError, Batch, Disk, Journal, JournalError, JournalOptions, Status,
};

use super::chain::{Chain, ChainHead};
use super::directory::Directory;
use super::error::{OpenError, failure, refusal};
use super::index_file::Binding;
use super::log_reader::LogReader;
use super::memtable::Memtable;
use super::opening::{Found, continue_chain, open_part};
use super::options::JournalStoreOptions;
use super::part::{Access, Part};
use super::records;
use super::scavenge::{ScavengeError, ScavengeTask, Scavenged};
use super::tail::Tail;
use super::tasks::{ReloadTask, UpkeepTask};
use super::verify::Verification;
use super::view::{Published, Shared, View};
use crate::append::{Append, AppendError, Committed, IdempotencyKey};
use crate::error::Failure;
use crate::event::{Position, Recorded, Timestamp};
use crate::machine::{Entry, EventMachine, Index};
use crate::read::ReadError;
use crate::record;

/// Bytes that a record adds to what its event carries, at most: its places, lengths and key.
const RECORD_OVERHEAD: usize = 1024;

/// A log of events on disk.
#[derive(Debug)]
pub struct EventLog {
    machine: EventMachine<View>,
    journal: Journal,
    shared: Arc<Shared>,
    directory: Directory,
    /// `None` if events are damaged.
    chain: Option<Chain>,
    damage: Arc<[Range<u64>]>,
    failed: Option<Failure>,
    /// It has taken no append since it was opened: events were damaged, or it was opened so.
    read_only: bool,
    /// Bytes that the staged events may need.
    staged_bytes: usize,
    /// Bytes of records after which a frame ends with the append.
    frame_size: usize,
    /// The records of the last group, for their memory.
    records: Records,
    /// A segment has become complete or was rewritten since this was asked for last.
    rotated: bool,
    counts: LogCounts,
}

/// What a log has done since it was opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LogCounts {
    /// Groups of appends written, each with one sync.
    pub commits: u64,
    /// Events in them.
    pub events: u64,
}

impl EventLog {
    /// Opens the log in a directory, or begins one there.
    ///
    /// The events since the last complete segment are read, and those of complete segments whose index file is missing or not
    /// intact. If events are damaged the log is open for reading only: see [`EventLog::damage`].
    ///
    /// # Errors
    ///
    /// If the directory is in use or holds something else, or if the disk fails.
    pub fn open(disk: Arc<dyn Disk>, options: &JournalStoreOptions) -> Result<Self, OpenError> {
        options.check()?;
        let directory = Directory::open(disk, options)?;
        let mut layout = JournalOptions::new(directory.id);
        layout.segment_size = layout.segment_size.min(options.segment_size);
        layout.segment_size_max = options.segment_size;
        layout.trust_seals = true;
        layout.read_only = options.read_only;
        let room = |size: usize, records: usize| {
            u64::try_from(size + records * RECORD_OVERHEAD).expect("options are checked")
        };
        let limits = options.limits;
        layout.item_size_max = room(limits.event_size_max, 1);
        // A group is full when it has its size, and then one more append may have come.
        let group = options.group_size_max + limits.append_size_max;
        layout.batch_size_max = room(group, limits.events_max + 64);
        let (journal, recovery) = Journal::open(directory.disk(), directory.log(), layout)?;
        for damage in &recovery.damaged {
            tracing::error!(%damage, "the log is damaged: it is open for reading only");
        }
        let reader = journal.reader();
        let mut damage: Vec<Range<u64>> = recovery
            .damaged
            .iter()
            .map(|damage| damage.items.clone())
            .filter(|items| !items.is_empty())
            .collect();
        let sound = recovery.damaged.is_empty();

        let segments = journal.segments();
        let numbers: Vec<u64> = segments.iter().map(|segment| segment.number).collect();
        let mends = sound && directory.is_writable();
        if mends && let Err(error) = directory.clean_index(&numbers) {
            tracing::warn!(%error, "old index files could not be removed");
        }
        let mut found = Found { torn: recovery.torn, unfit_index_files: 0 };
        let mut parts: Vec<Arc<Part>> = Vec::new();
        for segment in &segments {
            match Binding::of(directory.id, segment) {
                None => {
                    // With all frames lost there is not even a first position.
                    let positions = segment.positions.start.max(1)..segment.positions.end;
                    #[cfg_attr(
                        not(feature = "sim"),
                        expect(unused_mut, reason = "but for planted defects")
                    )]
                    let mut loaded = records::load(&reader, positions)?;
                    #[cfg(feature = "sim")]
                    if let Some(from) = super::opening::forgotten_from(&loaded.memtable) {
                        loaded.memtable.forget_ids(from);
                    }
                    damage.extend(loaded.damaged);
                    parts.push(Arc::new(Part::growing(segment.number, loaded.memtable)));
                }
                Some(binding) if !binding.positions.is_empty() => {
                    let opened = open_part(&directory, &reader, &binding, mends)?;
                    damage.extend(opened.damaged);
                    found.unfit_index_files += u64::from(opened.unfit);
                    parts.push(Arc::new(opened.part));
                }
                Some(_) => {}
            }
        }
        let head = Position(recovery.positions.end.saturating_sub(1));
        let whole = damage.is_empty() && sound && recovery.positions.start == 1;
        let chain = Chain::from_state(journal.state()).filter(|_| whole);
        let chain = match chain.map(|chain| continue_chain(chain, &reader, head)).transpose() {
            Ok(chain) => chain,
            // In a segment that has a seal and an index file damage comes to light when it is read.
            Err(ReadError::Damaged { first, last }) => {
                tracing::error!(%first, %last, "events are damaged: the log is open for reading only");
                damage.push(first.0..last.0.saturating_add(1));
                None
            }
            Err(error) => return Err(error.into()),
        };
        if recovery.positions.start > 1 {
            damage.push(1..recovery.positions.start);
        }
        damage.sort_by_key(|range| range.start);
        damage.dedup();
        let readable = whole && chain.is_some();
        let refused = match readable {
            false => Some(
                "events of the log are damaged: it is open for reading only until it is repaired",
            ),
            true => options.read_only.then_some("the log was opened for reading only"),
        };
        let failed = refused.map(refusal);
        let published = Published { parts: Arc::new(parts), head };
        let left = if options.read_only { found } else { Found::default() };
        let tail = Tail::new(options.tail_bytes_max);
        let shared =
            Arc::new(Shared::new(reader, tail, published, !readable, damage.clone(), left));
        let view = View::new(&shared, Access::Disk);
        Ok(Self {
            machine: EventMachine::new(view, limits),
            journal,
            shared,
            directory,
            chain,
            damage: damage.into(),
            read_only: failed.is_some(),
            failed,
            staged_bytes: 0,
            frame_size: options.frame_size,
            records: Records::default(),
            rotated: false,
            counts: LogCounts::default(),
        })
    }

    /// Decides about an append. If it is carried out its events are staged. The answer must not be given to anybody before
    /// [`EventLog::commit`] has returned.
    ///
    /// # Errors
    ///
    /// Why it is not carried out.
    pub fn stage(&mut self, append: Append, now: Timestamp) -> Result<Committed, AppendError> {
        self.stage_evaluated(append, Position::BEGINNING, now)
    }

    /// As [`EventLog::stage`] for an append of which [`LogReader::evaluate`] has said that no event up to `evaluated_to` stands against
    /// it: its queries look at the events behind that place only.
    ///
    /// # Errors
    ///
    /// As [`EventLog::stage`].
    pub fn stage_evaluated(
        &mut self,
        append: Append,
        evaluated_to: Position,
        now: Timestamp,
    ) -> Result<Committed, AppendError> {
        if let Some(failure) = &self.failed {
            return Err(AppendError::Failed(failure.clone()));
        }
        let applied = self.machine.apply(append, evaluated_to, now)?;
        let sizes = applied.recorded.iter().map(|event| record::size(&event.stream, &event.event));
        self.staged_bytes += sizes.map(|size| size + RECORD_OVERHEAD).sum::<usize>();
        Ok(applied.committed)
    }

    /// Bytes that the staged events may need in the journal. The owner commits before they are many.
    #[must_use]
    pub fn staged_bytes(&self) -> usize {
        self.staged_bytes
    }

    /// Makes all staged events durable, with one write and one sync, and shows them to readers. Returns the last durable position.
    ///
    /// # Errors
    ///
    /// Nothing that was staged is recorded after [`AppendError::DiskFull`], which may pass. After [`AppendError::Unknown`] that is not
    /// known, and the log takes no more appends.
    pub fn commit(&mut self) -> Result<Position, AppendError> {
        self.staged_bytes = 0;
        let staged = self.machine.index().staged();
        let Some((first, _)) = staged.first() else {
            return match &self.failed {
                Some(failure) => Err(AppendError::Unknown(failure.clone())),
                None => Ok(self.machine.index().head()),
            };
        };
        let first = first.position;
        let mut chain = self.chain.clone().unwrap_or_default();
        self.records.encode(staged, self.frame_size, &mut chain);
        let batches = self.records.batches(first);
        let appended = if planted!(FrameSplitsAppend) {
            batches.iter().try_for_each(|batch| self.journal.append(batch))
        } else {
            self.journal.append_all(&batches)
        };
        if let Err(error) = appended {
            return Err(self.drop_staged(error));
        }
        if planted!(HeadBeforeDurable) {
            self.publish(first);
        }
        if planted!(AckBeforeSync) {
            self.chain = Some(chain);
            return Ok(self.publish(first));
        }
        if let Err(error) = self.journal.sync() {
            return Err(self.fail(match error {
                JournalError::Fatal(fatal) => failure(&fatal),
                error => refusal(&error.to_string()),
            }));
        }
        self.chain = Some(chain);
        if planted!(HeadBeforeDurable) {
            return Ok(self.machine.index().head());
        }
        Ok(self.publish(first))
    }

    /// Shows the staged events, which are durable now.
    fn publish(&mut self, first: Position) -> Position {
        let mut published = self.shared.published();
        let growing = published.parts.last().expect("the last part grows");
        let segment = self.journal.active_segment();
        if growing.segment != segment {
            let mut parts = Vec::clone(&published.parts);
            growing.freeze(first.0);
            if growing.first == first.0 {
                // Nothing came to be in that segment.
                parts.pop();
            }
            parts.push(Arc::new(Part::growing(segment, Memtable::new(first))));
            published.parts = Arc::new(parts);
            self.rotated = true;
        }
        let staged = self.machine.index().staged();
        self.counts.commits += 1;
        self.counts.events += u64::try_from(staged.len()).expect("a count");
        let entries: Vec<Entry> =
            staged.iter().map(|(event, _)| Entry::Event(Arc::clone(event))).collect();
        let keys = staged.iter().map(|(_, key)| key.as_ref());
        let growing = published.parts.last().expect("the last part grows");
        growing.insert(entries.iter().zip(keys));
        self.shared.tail.extend(staged.iter().map(|(event, _)| event));
        published.head = self.machine.index().head();
        let head = published.head;
        self.shared.publish(published);
        self.machine.index_mut().refresh();
        head
    }

    /// What was staged cannot be written.
    fn drop_staged(&mut self, error: JournalAppendError) -> AppendError {
        match error {
            JournalAppendError::NoSpace { .. } => {
                self.machine.index_mut().refresh();
                AppendError::DiskFull
            }
            JournalAppendError::Fatal(fatal) => self.fail(failure(&fatal)),
            // Limits and positions were seen to; whatever it is, nothing was written.
            error => self.fail(refusal(&error.to_string())),
        }
    }

    fn fail(&mut self, failure: Failure) -> AppendError {
        tracing::error!(%failure, "the store has failed: it takes no more appends");
        self.machine.index_mut().refresh();
        self.failed = Some(failure.clone());
        AppendError::Unknown(failure)
    }

    /// To be called when there was nothing to do for a while: lets recovery tell a torn tail from damage, and tries to get back
    /// room for the next segment.
    ///
    /// # Errors
    ///
    /// As [`EventLog::commit`].
    pub fn mark(&mut self) -> Result<(), AppendError> {
        match self.journal.mark() {
            Ok(()) | Err(JournalError::Damaged | JournalError::NoSpace { .. }) => Ok(()),
            Err(JournalError::Fatal(fatal)) => Err(self.fail(failure(&fatal))),
            Err(error) => Err(self.fail(refusal(&error.to_string()))),
        }
    }

    /// Closes the log. Staged events that were not committed are lost.
    ///
    /// # Errors
    ///
    /// If the disk fails. Every acknowledged event is durable all the same.
    pub fn close(self) -> Result<(), JournalError> {
        self.journal.close()
    }

    /// Why the log takes no appends, if it does not.
    #[must_use]
    pub fn failure(&self) -> Option<&Failure> {
        self.failed.as_ref()
    }

    /// Whether it took appends, and takes no more. One that is open for reading only has not failed.
    #[must_use]
    pub fn has_failed(&self) -> bool {
        self.failed.is_some() && !self.read_only
    }

    /// Positions of events that cannot be read, as far as known since the log was opened. If there are any, the log takes no
    /// appends.
    #[must_use]
    pub fn damage(&self) -> Arc<[Range<u64>]> {
        Arc::clone(&self.damage)
    }

    /// The head of the hash chain; `None` if events are damaged.
    #[must_use]
    pub fn chain_head(&self) -> Option<ChainHead> {
        self.chain().map(Chain::head)
    }

    pub(super) fn chain(&self) -> Option<&Chain> {
        self.chain.as_ref()
    }

    /// Whether a segment has become complete or was rewritten since this was asked for last, so that [`EventLog::upkeep`] may have
    /// something to do.
    pub fn take_rotated(&mut self) -> bool {
        std::mem::take(&mut self.rotated)
    }

    /// What was done since the log was opened.
    #[must_use]
    pub fn counts(&self) -> LogCounts {
        self.counts
    }

    /// Figures of the journal.
    #[must_use]
    pub fn journal_status(&self) -> Status {
        self.journal.status()
    }

    /// Reads the durable events, from any thread.
    #[must_use]
    pub fn reader(&self) -> LogReader {
        LogReader::new(Arc::clone(&self.shared))
    }

    /// The complete segments, oldest first, if there are any hidden events at all.
    #[must_use]
    pub fn scavengeable(&self) -> Vec<u64> {
        let parts = self.shared.published().parts;
        if !parts.iter().any(|part| part.decides()) {
            return Vec::new();
        }
        let complete = parts.iter().filter(|part| part.frozen_positions().is_some());
        complete.map(|part| part.segment).collect()
    }

    /// What is needed to take back the space of hidden events in a complete segment, on any thread. If it is to be done for the sake of
    /// a single event, `thorough` says so. `None` if there is no such segment, or the log takes no more appends.
    pub fn scavenger(&mut self, segment: u64, thorough: bool) -> Option<ScavengeTask> {
        if self.failed.is_some() {
            return None;
        }
        let parts = self.shared.published().parts;
        let part = parts.iter().find(|part| part.segment == segment)?;
        let rewriter = self.journal.rewriter(segment).ok()?;
        let (shared, part) = (Arc::clone(&self.shared), Arc::clone(part));
        Some(ScavengeTask { shared, part, rewriter, thorough })
    }

    /// Puts a rewritten segment in the place of the one it was made of. Returns what brings its index up to date, on any thread.
    ///
    /// # Errors
    ///
    /// If the segment was rewritten meanwhile, or the disk fails.
    pub fn install(&mut self, scavenged: Scavenged) -> Result<ReloadTask, ScavengeError> {
        let Scavenged { part, prepared, .. } = scavenged;
        if let Err(error) = self.journal.install(prepared) {
            if let JournalError::Fatal(fatal) = &error {
                self.fail(failure(fatal));
            }
            return Err(error.into());
        }
        let segments = self.journal.segments();
        let now = segments.iter().find(|segment| segment.number == part.segment);
        part.was_rewritten(now.expect("it was just installed").generation);
        self.rotated = true;
        Ok(ReloadTask::new(part, Arc::clone(&self.shared)))
    }

    /// Looks through all of it: see [`Verification`].
    ///
    /// # Errors
    ///
    /// If the disk fails.
    pub fn verify(&self) -> Result<Verification, ReadError> {
        self.reader().verify(self.chain_head())
    }

    /// What is to be written that nothing depends on: index files of segments that have none, and what makes opening fast. May be
    /// carried out on any thread, while the log goes on.
    #[must_use]
    pub fn upkeep(&mut self) -> Vec<UpkeepTask> {
        if self.failed.is_some() {
            return Vec::new();
        }
        let parts = self.shared.published().parts;
        let segments = self.journal.segments();
        let task = |part: &Arc<Part>| {
            let segment = segments.iter().find(|segment| segment.number == part.segment)?;
            let binding = Binding::of(self.directory.id, segment)?;
            let (part, directory) = (Arc::clone(part), self.directory.clone());
            Some(UpkeepTask::index(part, directory, binding))
        };
        let seals = self.journal.take_seals().into_iter();
        let mut tasks: Vec<UpkeepTask> = seals.map(UpkeepTask::seal).collect();
        tasks.extend(parts.iter().filter(|part| part.wants_file()).filter_map(task));
        tasks
    }
}

/// Bytes of memory for records that are kept from one group to the next.
const RECORDS_KEPT: usize = 4 << 20;

/// The records of a group of appends, and how they are put into frames.
#[derive(Debug, Default)]
struct Records {
    bytes: Vec<u8>,
    /// Where each of them ends.
    ends: Vec<usize>,
    frames: Vec<Frame>,
}

/// Records of whole appends that become one frame.
#[derive(Debug)]
struct Frame {
    /// The first record that is not in it.
    end: usize,
    /// If the last leaf of a block is in it, the journal's state from then on.
    state: Option<Vec<u8>>,
}

impl Records {
    /// Encodes staged events, and takes their leaves into the chain. A frame ends with the append that brings it to `frame_size` bytes.
    fn encode(
        &mut self,
        staged: &[(Arc<Recorded>, Option<IdempotencyKey>)],
        frame_size: usize,
        chain: &mut Chain,
    ) {
        self.clear();
        let (mut begins, mut completes) = (0, false);
        for (recorded, key) in staged {
            let whole = recorded.place.index == 0 && self.bytes.len() - begins >= frame_size;
            let torn = planted!(FrameSplitsAppend) && self.ends.len() == 1;
            if (whole || torn) && !self.ends.is_empty() {
                self.end_frame(std::mem::take(&mut completes), chain);
                begins = self.bytes.len();
            }
            let start = self.bytes.len();
            record::encode_into(&mut self.bytes, recorded, key.as_ref());
            self.ends.push(self.bytes.len());
            if !planted!(ChainOutOfOrder) {
                completes |= chain.push(&record::leaf_hash(&self.bytes[start..]));
            }
        }
        self.end_frame(completes, chain);
        if planted!(ChainOutOfOrder) {
            for item in self.items(0..self.ends.len()).into_iter().rev() {
                chain.push(&record::leaf_hash(item));
            }
        }
    }

    fn clear(&mut self) {
        self.bytes.clear();
        self.bytes.shrink_to(RECORDS_KEPT);
        self.ends.clear();
        self.ends.shrink_to(RECORDS_KEPT / 64);
        self.frames.clear();
    }

    fn end_frame(&mut self, completes: bool, chain: &Chain) {
        let state = completes.then(|| chain.state());
        self.frames.push(Frame { end: self.ends.len(), state });
    }

    fn items(&self, places: Range<usize>) -> Vec<&[u8]> {
        let start = |place: usize| place.checked_sub(1).map_or(0, |before| self.ends[before]);
        places.map(|place| &self.bytes[start(place)..self.ends[place]]).collect()
    }

    /// One batch for each frame. The first record is of the event at `first`.
    fn batches(&self, first: Position) -> Vec<Batch<&[u8]>> {
        let mut begin = 0;
        let batch = |Frame { end, state }: &Frame| {
            let places = begin..*end;
            begin = *end;
            let first = first.0 + u64::try_from(places.start).expect("a count");
            Batch { first, items: self.items(places), state: state.clone(), ..Batch::default() }
        };
        self.frames.iter().map(batch).collect()
    }
}
