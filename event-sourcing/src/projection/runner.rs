//! One build of one projection, step by step: what to read next, and what becomes of what was read.
//!
//! The runner has no clock, thread or store. Whoever drives it (a [`Worker`](super::Worker), a test, a simulator) asks [`Runner::next`],
//! does that, and hands the result back. [`Runner::work`] is the only step that changes the sink, and it commits at most
//! once. If a step fails, the runner can be thrown away and opened again at any point: what counts is in the sink.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::batch::{self, Before, Failed, Parked};
use super::build::{self, Build, BuildKeys, Checkpoint, Directory};
use super::lag::{Lag, LagMeter, Trend, lag};
use super::sink::{Changes, Sink, SinkError, end_of_prefix};
use super::table::{decode, encode};
use super::transaction::Tx;
use super::{Projection, ProjectionError};
use crate::clock::Clock;
use crate::event::{Position, Recorded, Timestamp};
use crate::filter::Filter;
use crate::read::{From, PAGE_BYTES, Page, Read};
use crate::sleep::later;

/// The checkpoint is written, without any effect, when it is so many positions behind; and when the runner ends.
const IDLE_POSITIONS_MAX: u64 = 4096;
/// Rows of dropped builds that are removed in one commit.
const SWEEP_ROWS: usize = 4096;
/// What the rows of parked events are called in errors.
const PARKED: &str = "$parked";

/// One build of one projection.
#[derive(Debug)]
pub struct Runner {
    projection: Projection,
    sink: Arc<dyn Sink>,
    filter: Filter,
    build: Build,
    keys: BuildKeys,
    builds: Directory,
    /// As it is in the sink.
    checkpoint: Checkpoint,
    /// Everything up to here is in the rows: the checkpoint, or beyond it if nothing was to be done since.
    position: Position,
    /// Events that were read and not handled, in order.
    pending: VecDeque<Arc<Recorded>>,
    /// All matches up to here are pending or handled.
    scanned: Position,
    /// The last page went to the end of the log.
    at_end: bool,
    head: Position,
    attempts: BTreeMap<Position, u32>,
    retry_at: Option<Timestamp>,
    /// How many events are parked under each key.
    parked: BTreeMap<String, usize>,
    meter: LagMeter,
    clashes: u64,
    last_error: Option<String>,
    /// The swap has to wait for the log, or for somebody who looks after what is parked.
    swap_waits: bool,
}

/// What a runner wants.
#[derive(Clone, Debug)]
pub enum Next {
    /// A page, for [`Runner::take`].
    Read(Box<Read>),
    /// [`Runner::work`].
    Work,
    /// That the log becomes longer than this. Nothing else is to be done.
    WaitBeyond(Position),
    /// That this time comes: a failed event is tried again then.
    WaitUntil(Timestamp),
}

/// An event that was put aside.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ParkedEvent {
    /// Its position.
    pub position: Position,
    /// Its key: what is parked with it.
    pub key: String,
    /// Its type.
    pub event_type: String,
    /// How often it was tried; 0 if it was put aside only because it is behind another.
    pub attempts: u32,
    /// Why it is here.
    pub message: String,
    /// Since when.
    pub since: Timestamp,
}

impl Runner {
    /// Opens the read model of a projection, or begins it. If the sink has it in another version only, a new build is begun beside.
    ///
    /// # Errors
    ///
    /// If the projection is none, or the sink fails.
    pub fn open(sink: Arc<dyn Sink>, projection: Projection) -> Result<Self, ProjectionError> {
        Self::open_build(sink, projection, false)
    }

    /// Begins to build the read model anew beside the current one, even if that has the same version; or goes on with it, if that
    /// was begun before.
    ///
    /// # Errors
    ///
    /// As [`Runner::open`].
    pub fn rebuild(sink: Arc<dyn Sink>, projection: Projection) -> Result<Self, ProjectionError> {
        Self::open_build(sink, projection, true)
    }

    fn open_build(
        sink: Arc<dyn Sink>,
        projection: Projection,
        anew: bool,
    ) -> Result<Self, ProjectionError> {
        let (build, checkpoint, builds) = build::open(&*sink, &projection, anew)?;
        Self::at(sink, projection, build, checkpoint, builds)
    }

    /// Opens the same build again, as it is in the sink: after an error, when it is not known what was committed.
    pub(super) fn reopened(&self) -> Result<Self, ProjectionError> {
        let snapshot = self.sink.snapshot()?;
        let builds = build::read_directory(&*snapshot, &self.projection.name)?;
        let checkpoint = build::read_checkpoint(&*snapshot, &self.keys)?;
        let checkpoint = checkpoint.ok_or(ProjectionError::Superseded)?;
        let (sink, projection) = (Arc::clone(&self.sink), self.projection.clone());
        Self::at(sink, projection, self.build.clone(), checkpoint, builds)
    }

    fn at(
        sink: Arc<dyn Sink>,
        projection: Projection,
        build: Build,
        checkpoint: Checkpoint,
        builds: Directory,
    ) -> Result<Self, ProjectionError> {
        let filter = projection.asked_for()?;
        let keys = BuildKeys::new(&projection.name, build.number);
        let mut runner = Self {
            projection,
            sink,
            filter,
            build,
            keys,
            builds,
            checkpoint,
            position: checkpoint.position,
            pending: VecDeque::new(),
            scanned: checkpoint.position,
            at_end: false,
            head: checkpoint.position,
            attempts: BTreeMap::new(),
            retry_at: None,
            parked: BTreeMap::new(),
            meter: LagMeter::default(),
            clashes: 0,
            last_error: None,
            swap_waits: false,
        };
        for event in runner.parked_events()? {
            *runner.parked.entry(event.key).or_default() += 1;
        }
        Ok(runner)
    }

    /// What is to be done next.
    #[must_use]
    pub fn next(&self, now: Timestamp) -> Next {
        if let Some(at) = self.retry_at
            && now < at
        {
            return Next::WaitUntil(at);
        }
        let idle = self.position.0 - self.checkpoint.position.0 >= IDLE_POSITIONS_MAX;
        if self.ready() > 0 || idle || self.swap_is_due() {
            return Next::Work;
        }
        if !self.at_end {
            return Next::Read(Box::new(self.page()));
        }
        if !self.builds.dropping.is_empty() {
            return Next::Work;
        }
        Next::WaitBeyond(self.scanned)
    }

    /// The page that comes next.
    fn page(&self) -> Read {
        let read = Read::forward(self.projection.source.clone())
            .from(From::Position(self.scanned.next()))
            .filter(self.filter.clone())
            .count(self.projection.batch.count_max.max(1));
        Read { bytes_max: PAGE_BYTES, ..read }
    }

    /// Takes the page that was asked for.
    pub fn take(&mut self, page: Page, now: Timestamp) {
        // A position that was seen is not seen again, whatever the store may say.
        let after = self.scanned;
        self.pending.extend(page.events.into_iter().filter(|event| event.position > after));
        self.scanned = self.scanned.max(page.scanned);
        self.head = self.head.max(page.head);
        self.at_end = page.next.is_none();
        self.swap_waits = false;
        if self.pending.is_empty() {
            self.position = self.scanned;
        }
        self.meter.look(now, self.position, self.head);
    }

    /// Says that there is nothing to read up to `head`: the source does not exist yet.
    pub fn take_nothing(&mut self, head: Position, now: Timestamp) {
        let events = Vec::new();
        self.take(Page { events, next: None, scanned: head, head }, now);
    }

    /// Says that the log has become longer.
    pub fn wake(&mut self, head: Position) {
        self.head = self.head.max(head);
        self.at_end &= self.scanned >= head;
    }

    /// How many pending events are of appends of which all was read.
    fn ready(&self) -> usize {
        let Some(last) = self.pending.back() else { return 0 };
        let start = last.append_start();
        let whole = self.at_end || self.scanned.0 + 1 >= start.0 + u64::from(last.place.count);
        if whole {
            return self.pending.len();
        }
        self.pending.partition_point(|event| event.append_start() < start)
    }

    /// Does what is next, with at most one commit. Returns whether events were handled or parked by it.
    ///
    /// # Errors
    ///
    /// [`ProjectionError::Handler`] and [`ProjectionError::ParkedFull`] if the projection stops; everything before the event is
    /// committed then. [`ProjectionError::Superseded`] if another runner or another build has taken over. After any other error
    /// open the projection again.
    pub fn work(&mut self, clock: &dyn Clock) -> Result<bool, ProjectionError> {
        self.retry_at = None;
        let ready = self.ready();
        if ready > 0 {
            return self.handle(ready, clock);
        }
        if self.swap_is_due() {
            self.swap()?;
        } else if self.position > self.checkpoint.position {
            self.flush()?;
        } else {
            let (changes, builds) =
                build::sweep(&*self.sink.snapshot()?, &self.projection.name, SWEEP_ROWS)?;
            match self.sink.commit(&changes) {
                Ok(()) => self.builds = builds,
                // Somebody else sweeps, or begins a build: it is looked at again.
                Err(SinkError::Moved) => {
                    let snapshot = self.sink.snapshot()?;
                    self.builds = build::read_directory(&*snapshot, &self.projection.name)?;
                }
                Err(error) => return Err(error.into()),
            }
        }
        Ok(false)
    }

    fn handle(&mut self, ready: usize, clock: &dyn Clock) -> Result<bool, ProjectionError> {
        let count = self.batch_of(ready);
        let snapshot = self.sink.snapshot()?;
        self.pending.make_contiguous();
        let events = &self.pending.as_slices().0[..count];
        let before = Before { parked: &self.parked, attempts: &self.attempts };
        let prefix = self.keys.tables();
        let ran = batch::run(&self.projection, &*snapshot, &prefix, events, &before, clock)?;
        drop(snapshot);
        self.clashes += u64::from(ran.clashed);
        if ran.done > 0 {
            self.commit_batch(ran.writes, ran.done, &ran.parked, clock.now())?;
        }
        match ran.failed {
            Some(failed) => self.failed(failed, ran.done, clock.now())?,
            None => self.last_error = ran.parked.into_iter().next_back().map(|it| it.message),
        }
        Ok(ran.done > 0)
    }

    /// How many of the ready events go into the next commit: whole appends, at least one.
    fn batch_of(&self, ready: usize) -> usize {
        let count = ready.min(self.projection.batch.count_max.max(1));
        let Some(beyond) = self.pending.get(count).filter(|_| count < ready) else { return count };
        let start = beyond.append_start();
        match self.pending.partition_point(|event| event.append_start() < start) {
            // It is one append, which is longer than a batch should be.
            0 => self.pending.partition_point(|event| event.append_start() <= start),
            count => count,
        }
    }

    fn commit_batch(
        &mut self,
        writes: BTreeMap<Bytes, Option<Bytes>>,
        done: usize,
        parked: &[Parked],
        now: Timestamp,
    ) -> Result<(), ProjectionError> {
        let last = &self.pending[done - 1];
        let position = if done == self.pending.len() { self.scanned } else { last.position };
        let checkpoint = Checkpoint {
            position,
            time: last.timestamp,
            events: self.checkpoint.events + u64::try_from(done).expect("a batch is short"),
            commits: self.checkpoint.commits + 1,
        };
        let mut changes = Changes { expected: Vec::new(), writes };
        for it in parked {
            let event = &self.pending[it.index];
            let row = ParkedEvent {
                position: event.position,
                key: it.key.clone(),
                event_type: event.event.event_type.as_str().to_owned(),
                attempts: it.attempts,
                message: it.message.clone(),
                since: now,
            };
            let key = self.keys.parked_at(event.position);
            changes.writes.insert(key, Some(encode(PARKED, &row)?));
        }
        self.commit(changes, checkpoint)?;
        for it in parked {
            *self.parked.entry(it.key.clone()).or_default() += 1;
        }
        self.pending.drain(..done);
        self.position = position;
        self.attempts = self.attempts.split_off(&position.next());
        self.meter.look(now, self.position, self.head);
        Ok(())
    }

    /// Commits changes with a new checkpoint, if the old one is still there.
    fn commit(
        &mut self,
        mut changes: Changes,
        checkpoint: Checkpoint,
    ) -> Result<(), ProjectionError> {
        let key = self.keys.checkpoint();
        changes.expected.push((key.clone(), Some(build::checkpoint_bytes(&self.checkpoint)?)));
        if planted!(CheckpointApart) {
            let (expected, writes) =
                (changes.expected.clone(), std::mem::take(&mut changes.writes));
            self.sink.commit(&Changes { expected, writes }).map_err(superseded)?;
        }
        changes.writes.insert(key, Some(build::checkpoint_bytes(&checkpoint)?));
        self.sink.commit(&changes).map_err(superseded)?;
        self.checkpoint = checkpoint;
        Ok(())
    }

    /// Notes that an event has failed. `done` events before it are committed, and no longer pending.
    fn failed(
        &mut self,
        failed: Failed,
        done: usize,
        now: Timestamp,
    ) -> Result<(), ProjectionError> {
        self.last_error = Some(failed.message.clone());
        let event = &self.pending[failed.index - done];
        if !failed.is_final {
            self.attempts.insert(event.position, failed.attempts);
            self.retry_at = Some(later(now, self.projection.failure.pause_after(failed.attempts)));
            return Ok(());
        }
        if failed.parked_full {
            let parked = self.parked.values().sum();
            return Err(ProjectionError::ParkedFull { parked, message: failed.message });
        }
        Err(ProjectionError::Handler {
            position: event.position,
            stream: event.stream.clone(),
            event_type: event.event.event_type.clone(),
            attempts: failed.attempts,
            message: failed.message,
        })
    }

    /// Writes the checkpoint, if it is not where the runner is: before the runner ends.
    ///
    /// # Errors
    ///
    /// As [`Runner::work`].
    pub fn flush(&mut self) -> Result<(), ProjectionError> {
        if self.position > self.checkpoint.position {
            let commits = self.checkpoint.commits + 1;
            let position = self.position;
            let checkpoint = Checkpoint { position, commits, ..self.checkpoint };
            self.commit(Changes::default(), checkpoint)?;
        }
        Ok(())
    }

    /// A transaction on the rows that does not move the position, for what is done between events.
    pub(crate) fn amend<T>(
        &mut self,
        change: impl FnOnce(&mut Tx<'_>) -> Result<T, SinkError>,
    ) -> Result<T, ProjectionError> {
        let snapshot = self.sink.snapshot()?;
        let mut tx = Tx::new(&*snapshot, self.keys.tables());
        let result = change(&mut tx)?;
        let writes = tx.into_writes();
        drop(snapshot);
        let commits = self.checkpoint.commits + 1;
        let checkpoint = Checkpoint { commits, ..self.checkpoint };
        self.commit(Changes { expected: Vec::new(), writes }, checkpoint)?;
        Ok(result)
    }

    /// Reads the rows as they are committed.
    pub(crate) fn look<T>(
        &self,
        read: impl FnOnce(&Tx<'_>) -> Result<T, SinkError>,
    ) -> Result<T, ProjectionError> {
        let snapshot = self.sink.snapshot()?;
        Ok(read(&Tx::new(&*snapshot, self.keys.tables()))?)
    }
}

/// Swapping builds.
impl Runner {
    /// Whether queries see this build.
    #[must_use]
    pub fn is_current(&self) -> bool {
        self.builds.is_current(self.build.number)
    }

    fn swap_is_due(&self) -> bool {
        let builds = &self.builds;
        let is_building =
            builds.building.as_ref().is_some_and(|build| build.number == self.build.number);
        is_building
            && self.at_end
            && self.pending.is_empty()
            && self.parked.is_empty()
            && !self.swap_waits
    }

    /// Makes this build current, if it has come as far as the one that is.
    fn swap(&mut self) -> Result<(), ProjectionError> {
        let snapshot = self.sink.snapshot()?;
        let (name, number) = (Arc::clone(&self.projection.name), self.build.number);
        let swap = build::swap(&*snapshot, &name, number, self.position).map_err(superseded)?;
        drop(snapshot);
        let Some((changes, builds)) = swap else {
            // The current build has seen more of the log, so there is more to be read.
            (self.at_end, self.swap_waits) = (false, true);
            return Ok(());
        };
        let checkpoint = Checkpoint {
            position: self.position,
            commits: self.checkpoint.commits + 1,
            ..self.checkpoint
        };
        match self.commit(changes, checkpoint) {
            Ok(()) => self.builds = builds,
            // The current build has moved in the meantime; or else the next commit says what has happened.
            Err(ProjectionError::Superseded) => {
                let snapshot = self.sink.snapshot()?;
                if build::read_checkpoint(&*snapshot, &self.keys)? != Some(self.checkpoint) {
                    return Err(ProjectionError::Superseded);
                }
                self.builds = build::read_directory(&*snapshot, &name)?;
                self.at_end = false;
            }
            Err(error) => return Err(error),
        }
        Ok(())
    }
}

/// Parked events.
impl Runner {
    /// The events that are parked, in order of position.
    ///
    /// # Errors
    ///
    /// If the sink fails.
    pub fn parked_events(&self) -> Result<Vec<ParkedEvent>, ProjectionError> {
        let (from, count) = (self.keys.parked(), self.projection.failure.parked_max);
        // A version with a lower bound may find more than it would park itself.
        let rows = self.sink.snapshot()?.scan(&from, &end_of_prefix(&from), count.max(1 << 16))?;
        let events = rows.iter().map(|(_, row)| decode(PARKED, row));
        Ok(events.collect::<Result<_, _>>()?)
    }

    /// Handles a parked event again, and returns what the handler said if it failed once more. `event` is what the log has at that
    /// position, if it has anything; what is not there any more is given up.
    ///
    /// The events of a key are to be replayed in order; after one has failed, so will those behind it.
    ///
    /// # Errors
    ///
    /// As [`Runner::work`].
    pub fn replay(
        &mut self,
        parked: &ParkedEvent,
        event: Option<&Recorded>,
    ) -> Result<Option<String>, ProjectionError> {
        let snapshot = self.sink.snapshot()?;
        let mut tx = Tx::new(&*snapshot, self.keys.tables());
        let result = match event {
            Some(event) => batch::handle(&self.projection, &mut tx, event)?,
            None => Ok(()),
        };
        match result {
            Ok(()) => {
                let writes = tx.into_writes();
                drop(snapshot);
                self.unpark(parked, writes)?;
                Ok(None)
            }
            Err(message) => {
                drop(tx);
                drop(snapshot);
                let attempts = parked.attempts.saturating_add(1);
                let row = ParkedEvent { attempts, message: message.clone(), ..parked.clone() };
                let mut changes = Changes::default();
                let key = self.keys.parked_at(parked.position);
                changes.writes.insert(key, Some(encode(PARKED, &row)?));
                let commits = self.checkpoint.commits + 1;
                self.commit(changes, Checkpoint { commits, ..self.checkpoint })?;
                self.last_error = Some(message.clone());
                Ok(Some(message))
            }
        }
    }

    /// Gives a parked event up: it will not be in the rows.
    ///
    /// # Errors
    ///
    /// As [`Runner::work`].
    pub fn discard(&mut self, parked: &ParkedEvent) -> Result<(), ProjectionError> {
        self.unpark(parked, BTreeMap::new())
    }

    fn unpark(
        &mut self,
        parked: &ParkedEvent,
        writes: BTreeMap<Bytes, Option<Bytes>>,
    ) -> Result<(), ProjectionError> {
        let mut changes = Changes { expected: Vec::new(), writes };
        changes.writes.insert(self.keys.parked_at(parked.position), None);
        let commits = self.checkpoint.commits + 1;
        self.commit(changes, Checkpoint { commits, ..self.checkpoint })?;
        if let Some(count) = self.parked.get_mut(&parked.key) {
            *count -= 1;
            self.parked.retain(|_, count| *count > 0);
        }
        Ok(())
    }
}

/// Where it is.
impl Runner {
    /// The projection.
    #[must_use]
    pub fn projection(&self) -> &Projection {
        &self.projection
    }

    /// The version of the build, as the sink knows it.
    #[must_use]
    pub fn version(&self) -> &str {
        &self.build.version
    }

    /// The number of the build.
    #[must_use]
    pub fn build(&self) -> u32 {
        self.build.number
    }

    /// Everything up to here is in the rows.
    #[must_use]
    pub fn position(&self) -> Position {
        self.position
    }

    /// The checkpoint as it is in the sink.
    #[must_use]
    pub fn checkpoint(&self) -> Checkpoint {
        self.checkpoint
    }

    /// Whether everything that was in the log when it was last read is in the rows.
    #[must_use]
    pub fn is_caught_up(&self) -> bool {
        self.at_end && self.pending.is_empty()
    }

    /// How far it is behind a log that ends at `head`.
    #[must_use]
    pub fn lag(&self, head: Position, now: Timestamp) -> Lag {
        lag(self.position, head, self.checkpoint.time, now)
    }

    /// Which way the lag goes.
    #[must_use]
    pub fn trend(&self, head: Position) -> Trend {
        self.meter.trend(self.position, head)
    }

    /// How many events are parked.
    #[must_use]
    pub fn parked(&self) -> usize {
        self.parked.values().sum()
    }

    /// How many batches were run again because partitions had touched the same rows.
    #[must_use]
    pub fn clashes(&self) -> u64 {
        self.clashes
    }

    /// What the last failure was, until an event was handled after it.
    #[must_use]
    pub fn last_error(&self) -> Option<&str> {
        self.last_error.as_deref()
    }
}

fn superseded(error: impl Into<ProjectionError>) -> ProjectionError {
    match error.into() {
        ProjectionError::Sink(SinkError::Moved) => ProjectionError::Superseded,
        error => error,
    }
}
