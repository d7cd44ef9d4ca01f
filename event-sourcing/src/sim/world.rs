//! One run: the log, those who use it, the disk, the clock, and the checks after every step.

mod fault;
mod reading;

use std::sync::Arc;
use std::time::Duration;

use lattice_sim::{SimDisk, Violation};
use sha2::{Digest, Sha256};
use xxhash_rust::xxh3::Xxh3;

use super::bug;
use super::coverage::{Coverage, Sometimes};
use super::draw::Draw;
use super::follower::{Follower, Projector, Standing, finish};
use super::store::{Handle, SimStore, Waiting, unwoken};
use super::tally::{self, Sum, Triple};
use crate::append::{Append, AppendError, Committed};
use crate::clock::{Clock, ManualClock};
use crate::decider::Decider;
use crate::error::InvalidAppend;
use crate::event::{Position, StreamName, Timestamp};
use crate::execute::DomainStore;
use crate::record;
use crate::snapshot::{SnapshotUse, Snapshots};
use crate::store::journal::{JournalStoreOptions, ScavengeError, Scavenged, final_answer};
use crate::testing::differential::model::Model;
use crate::testing::differential::verdict;

pub(super) type Outcome<T = ()> = Result<T, Violation>;

pub(super) fn broken(property: &str, detail: impl Into<String>) -> Violation {
    Violation::new(property, detail)
}

/// The start of the clock, in milliseconds.
const START: u64 = 1_000_000;
/// How many steps a story keeps.
const STORY: usize = 10_000;
const SUBSCRIBERS: usize = 4;

/// Which faults a run has: each in half of the runs, so that none hides what another would show.
#[derive(Clone, Copy, Debug)]
struct Faults {
    power: bool,
    kill: bool,
    sync: bool,
    full: bool,
    files: bool,
    segment: bool,
    sink: bool,
}

pub(super) struct World {
    draw: Draw,
    faults: Faults,
    disk: SimDisk,
    clock: Arc<ManualClock>,
    options: JournalStoreOptions,
    store: Handle,
    /// Everything durable.
    model: Model,
    /// The group without an answer, and the time it was staged at. Any number of its appends, from the first on, may be durable.
    pending: Option<(Timestamp, Vec<Append>)>,
    /// Over the leaves of the model's events.
    chain: Sha256,
    /// What was acknowledged.
    ledger: Vec<(Append, Committed)>,
    /// What was tried, to be tried again.
    tried: Vec<Append>,
    /// The disk fails at one of its next calls.
    armed: bool,
    /// Space of hidden events may have come back.
    scavenged: bool,
    /// A rewritten segment whose index is not up to date.
    stale: bool,
    rewritten: Vec<(Scavenged, Position)>,
    followers: Vec<Follower>,
    projector: Projector,
    coverage: Arc<Coverage>,
    checked: u64,
    hash: Xxh3,
    story: Vec<String>,
}

impl World {
    pub(super) fn new(seed: u64, coverage: Arc<Coverage>) -> Self {
        let mut draw = Draw::new(seed);
        let mut half = || draw.chance(50);
        let faults = Faults {
            power: half(),
            kill: half(),
            sync: half(),
            full: half(),
            files: half(),
            segment: half(),
            sink: half(),
        };
        let mut options = JournalStoreOptions::new("store");
        options.id = u128::from(seed) + 1;
        options.segment_size = *draw.of(&[2048, 4096, 4096, 8192]);
        options.frame_size = *draw.of(&[1, 1, 300, 16 << 10]);
        options.tail_bytes_max = *draw.of(&[0, 2048, 1 << 20]);
        let followers = (0..SUBSCRIBERS).map(|_| Follower::new(&mut draw)).collect();
        let projector = Projector::new(&mut draw);
        let clock = Arc::new(ManualClock::at(Timestamp(START)));
        bug::set_local_time(Timestamp(START));
        Self {
            draw,
            faults,
            disk: SimDisk::new(seed),
            clock,
            options,
            store: Arc::new(SimStore::default()),
            model: Model::default(),
            pending: None,
            chain: Sha256::new_with_prefix([0; 32]),
            ledger: Vec::new(),
            tried: Vec::new(),
            armed: false,
            scavenged: false,
            stale: false,
            rewritten: Vec::new(),
            followers,
            projector,
            coverage,
            checked: 0,
            hash: Xxh3::new(),
            story: Vec::new(),
        }
    }

    pub(super) fn run(&mut self, steps: u64) -> Outcome {
        self.tell(format!("{:?}", self.faults));
        self.open(false)?;
        for _ in 0..steps {
            self.step()?;
            self.check_head()?;
        }
        self.end()
    }

    pub(super) fn hash(&self) -> u128 {
        self.hash.digest128()
    }

    pub(super) fn elapsed_ms(&self) -> u64 {
        self.clock.now().0.saturating_sub(START)
    }

    pub(super) fn recorded(&self) -> u64 {
        self.model.head().0
    }

    pub(super) fn checked(&self) -> u64 {
        self.checked
    }

    pub(super) fn into_story(self) -> Vec<String> {
        self.story
    }

    fn tell(&mut self, what: String) {
        self.hash.update(what.as_bytes());
        if self.story.len() < STORY {
            self.story.push(what);
        }
    }

    fn note(&self, event: Sometimes) {
        self.coverage.note(event);
    }

    fn step(&mut self) -> Outcome {
        match self.draw.below(100) {
            0..34 => self.append_some(),
            34..46 => self.read(),
            46..62 => self.follow(),
            62..68 => self.project(),
            68..73 => self.command(),
            73..79 => self.pass_time(),
            79..85 => self.keep_up(),
            85..91 => self.scavenge(),
            91..93 => self.mark(),
            _ => self.strike(),
        }
    }

    fn pass_time(&mut self) -> Outcome {
        if self.draw.chance(25) {
            let back = self.draw.below(60_000);
            self.clock.set(Timestamp(self.clock.now().0.saturating_sub(back)));
            self.note(Sometimes::ClockBack);
        } else {
            let most = if self.draw.chance(10) { 60_000 } else { 4_000 };
            let by = self.draw.below(most);
            self.clock.advance(Duration::from_millis(by));
        }
        bug::set_local_time(self.clock.now());
        self.tell(format!("the clock says {}", self.clock.now().0));
        Ok(())
    }

    // ---- Writers ----

    fn append_some(&mut self) -> Outcome {
        let count = if self.draw.chance(40) { 1 + self.draw.below(6) } else { 1 };
        let mut waiting = Vec::new();
        for _ in 0..count {
            let append = self.draw.append(&self.model, &self.tried);
            self.tried.push(append.clone());
            waiting.push((append, futures::channel::oneshot::channel().0));
        }
        self.drain(waiting)
    }

    /// What the thread that writes does with everything that waits: one group.
    fn drain(&mut self, waiting: Vec<Waiting>) -> Outcome {
        let now = self.clock.now();
        let before = self.model.head();
        let mut staged = self.model.clone();
        let mut answers = Vec::new();
        // Some were looked at ahead of their turn, before the others of the group were there.
        let mut evaluated = Vec::new();
        for (append, _) in &waiting {
            let ahead = self.draw.chance(30);
            let reader = self.store.reader().filter(|_| ahead);
            let to = reader.and_then(|reader| reader.evaluate(append).ok());
            evaluated.push(to.unwrap_or(Position::BEGINNING));
        }
        for ((append, _), to) in waiting.iter().zip(evaluated) {
            let found = self.store.with(|log| log.stage_evaluated(append.clone(), to, now));
            if self.armed && matches!(found, Err(AppendError::Read(_))) {
                // Nothing of the group was written.
                return self.restart();
            }
            let expected = staged.append(append, now);
            let (found_text, expected_text) = (verdict(&found), verdict(&expected));
            if found_text != expected_text {
                let detail = format!(
                    "{append:?}\nthe store says: {found_text}\nthe model says: {expected_text}"
                );
                return Err(broken("every append is answered as the model answers", detail));
            }
            self.checked += 1;
            self.count(&found, before);
            answers.push(found);
        }
        let committed = self.store.with(crate::store::journal::EventLog::commit);
        let error = committed.as_ref().err();
        let answers: Vec<_> = answers.into_iter().map(|it| final_answer(error, it)).collect();
        let verdicts: Vec<String> = match error {
            None => answers.iter().map(short).collect(),
            Some(error) => vec![format!("{error}")],
        };
        self.tell(format!("{} appends: {}", waiting.len(), verdicts.join(", ")));
        if committed.is_err() {
            self.check_nothing_named(&answers)?;
            self.check_nothing_shown()?;
        }
        match &committed {
            Ok(head) => {
                if *head != staged.head() {
                    return Err(broken("positions are dense", format!("{head} {}", staged.head())));
                }
                for ((append, _), answer) in waiting.iter().zip(&answers) {
                    if let Ok(committed) = answer {
                        self.ledger.push((append.clone(), committed.clone()));
                    }
                }
                let appends: Vec<Append> =
                    waiting.iter().map(|(append, _)| append.clone()).collect();
                self.accept(staged, &appends);
            }
            Err(AppendError::DiskFull) => self.note(Sometimes::DiskFull),
            Err(_) => {
                let appends = waiting.iter().map(|(append, _)| append.clone()).collect();
                self.pending = Some((now, appends));
                return self.restart();
            }
        }
        for ((_, answer), result) in waiting.into_iter().zip(answers) {
            // Most of them wait for nothing.
            let _ = answer.send(result);
        }
        if self.store.with(|log| log.take_rotated()) {
            self.note(Sometimes::Rotated);
        }
        Ok(())
    }

    /// A group that was not written must not have been told of to anybody.
    fn check_nothing_named(&self, answers: &[Result<Committed, AppendError>]) -> Outcome {
        for answer in answers {
            let names = match answer {
                Ok(committed) => !committed.repeated || committed.last > self.model.head(),
                Err(AppendError::Conflict(conflict)) => conflict.head > self.model.head(),
                Err(
                    AppendError::IdReused { position, .. }
                    | AppendError::KeyReused { position }
                    | AppendError::KeyMissing { position }
                    | AppendError::PartlyRecorded { position, .. },
                ) => *position > self.model.head(),
                Err(_) => false,
            };
            if names {
                let detail = format!("{} after {}", verdict(answer), self.model.head());
                return Err(broken("no answer names what is not durable", detail));
            }
        }
        Ok(())
    }

    /// What was not written is not shown to readers either.
    fn check_nothing_shown(&self) -> Outcome {
        let head = self.store.with(|log| log.reader().head());
        match head == self.model.head() {
            true => Ok(()),
            false => {
                let detail = format!("{head} after {}", self.model.head());
                Err(broken("readers see what is durable, and all of it", detail))
            }
        }
    }

    fn count(&self, answer: &Result<Committed, AppendError>, before: Position) {
        self.note(match answer {
            Ok(Committed { repeated: true, .. }) => Sometimes::Repeated,
            Ok(_) => Sometimes::Recorded,
            Err(AppendError::Conflict(conflict)) => {
                if conflict.winners.iter().any(|winner| winner.position > before) {
                    self.note(Sometimes::ConflictedInGroup);
                }
                Sometimes::Conflicted
            }
            Err(AppendError::Tombstoned { .. }) => Sometimes::Tombstoned,
            Err(AppendError::Invalid(InvalidAppend::Reserved(_))) => Sometimes::BroughtBack,
            Err(AppendError::IdReused { .. } | AppendError::KeyReused { .. }) => Sometimes::Reused,
            Err(_) => return,
        });
    }

    /// The staged events are durable.
    fn accept(&mut self, staged: Model, appends: &[Append]) {
        let known = self.model.events.len();
        for event in &staged.events[known..] {
            let first = event.place.index == 0;
            let key = staged.key_at(event.position).filter(|_| first);
            self.chain.update(record::leaf_hash(&record::encode(event, key)));
        }
        debug_assert!(!appends.is_empty() || staged.events.len() == known);
        self.model = staged;
    }

    /// The head of the hash chain, from the leaves alone.
    fn chain_head(&self) -> [u8; 32] {
        if self.model.events.is_empty() { [0; 32] } else { self.chain.clone().finalize().into() }
    }

    // ---- Those who follow ----

    fn follow(&mut self) -> Outcome {
        let number = self.draw.count(self.followers.len());
        let takes = 1 + self.draw.below(12);
        for _ in 0..takes {
            let follower = &mut self.followers[number];
            let standing = follower.step(&self.store, &self.model, &self.coverage)?;
            self.checked += 1;
            match standing {
                Standing::Busy => {}
                Standing::Waits => break,
                Standing::Failed => return self.disk_failed("a subscriber"),
            }
        }
        let position = self.followers[number].position();
        self.tell(format!("subscriber {number} is at {position}"));
        match self.draw.below(20) {
            0..8 => self.followers[number].save(),
            8 => self.followers[number].lose(&self.coverage),
            // While it was being asked for, an append comes.
            9..13 => return self.append_some(),
            _ => {}
        }
        Ok(())
    }

    fn project(&mut self) -> Outcome {
        if self.faults.sink && self.draw.chance(30) {
            self.projector.fail_soon(&mut self.draw);
        }
        for _ in 0..1 + self.draw.below(8) {
            let clock = Arc::clone(&self.clock);
            let store = Arc::clone(&self.store);
            let standing = self.projector.step(&store, &*clock, &self.model, &self.coverage)?;
            self.checked += 1;
            match standing {
                Standing::Busy => {}
                Standing::Waits => break,
                Standing::Failed => return self.disk_failed("a projection"),
            }
        }
        if self.draw.chance(10) {
            self.projector.lose();
        }
        Ok(())
    }

    /// A command of one program or its successor, and then what both load.
    fn command(&mut self) -> Outcome {
        if self.armed {
            return Ok(());
        }
        let id = format!("{}", self.draw.below(2));
        let by = 1 + self.draw.below(9);
        match self.draw.chance(50) {
            true => self.execute::<Sum>(&id, by)?,
            false => self.execute::<Triple>(&id, by)?,
        }
        if self.store.reader().is_none() {
            return Ok(());
        }
        self.load::<Sum>(&id, 1)?;
        self.load::<Triple>(&id, 3)
    }

    fn execute<D>(&mut self, id: &str, by: u64) -> Outcome
    where
        D: Decider<Id = String, State = u64, Command = u64>,
    {
        let store = Arc::clone(&self.store);
        let snapshots = Snapshots::every(3);
        let command = store.execute::<D>(by).on(id.to_owned()).snapshots(&snapshots);
        let mut command = std::pin::pin!(command.into_future());
        for _ in 0..1_000 {
            if command.as_mut().poll(&mut unwoken()).is_ready() {
                self.tell(format!("a command on {id}"));
                return Ok(());
            }
            let waiting = store.take_queue();
            if !waiting.is_empty() {
                let head = self.model.head();
                self.drain(waiting)?;
                if self.model.head() == head {
                    // The disk is full, or was lost: whoever asked will ask again.
                    return Ok(());
                }
            }
        }
        Err(broken("commands come to an end", id))
    }

    fn load<D>(&mut self, id: &str, weight: u64) -> Outcome
    where
        D: Decider<Id = String, State = u64, Command = u64>,
    {
        let store = Arc::clone(&self.store);
        let snapshots = Snapshots::every(3);
        let loaded = finish(store.load_with::<D>(id.to_owned(), &snapshots));
        let loaded = loaded.ok_or_else(|| broken("loading comes to an end", id))?;
        let loaded =
            loaded.map_err(|error| broken("states can be loaded", format!("{error:?}")))?;
        self.note(match loaded.snapshot {
            Some(SnapshotUse::Used { .. }) => Sometimes::SnapshotUsed,
            Some(SnapshotUse::Ignored(_)) => Sometimes::SnapshotIgnored,
            _ => Sometimes::Recorded,
        });
        let stream = StreamName::new(format!("tally-{id}")).expect("the name is valid");
        let of_it = |event: &&Arc<crate::event::Recorded>| {
            event.stream == stream && event.event.event_type == tally::event_type()
        };
        let amount = |event: &Arc<crate::event::Recorded>| {
            let added: Option<tally::Added> = serde_json::from_slice(&event.event.data).ok();
            added.map_or(0, |added| added.by)
        };
        let sum: u64 = self.model.events.iter().filter(of_it).map(amount).sum();
        self.checked += 1;
        if loaded.state != weight * sum {
            let detail = format!("{stream}: {} instead of {}", loaded.state, weight * sum);
            return Err(broken("a snapshot and its tail are the fold over all events", detail));
        }
        Ok(())
    }

    // ---- Upkeep ----

    fn keep_up(&mut self) -> Outcome {
        let tasks = self.store.with(|log| log.upkeep());
        self.tell(format!("{} files to be written", tasks.len()));
        for task in tasks {
            // A disk that is full, or gone, costs nothing but time.
            if !self.draw.chance(85) {
                continue;
            }
            let _ = task.run();
        }
        Ok(())
    }

    fn mark(&mut self) -> Outcome {
        match self.store.with(|log| log.mark()) {
            Ok(()) => Ok(()),
            Err(_) => self.disk_failed("a mark"),
        }
    }

    fn scavenge(&mut self) -> Outcome {
        if let Some((rewritten, at)) = self.rewritten.pop() {
            if self.model.head() > at {
                self.note(Sometimes::ScavengedAmidAppends);
            }
            return self.install(rewritten);
        }
        for segment in self.store.with(|log| log.scavengeable()) {
            if !self.draw.chance(60) {
                continue;
            }
            let thorough = self.draw.chance(70);
            let Some(task) = self.store.with(|log| log.scavenger(segment, thorough)) else {
                continue;
            };
            match task.run() {
                Ok(None) => {}
                Ok(Some(rewritten)) => {
                    self.tell(format!("segment {segment}: {} events hidden", rewritten.events));
                    if self.draw.chance(50) {
                        self.install(rewritten)?;
                    } else {
                        self.rewritten.push((rewritten, self.model.head()));
                    }
                    return Ok(());
                }
                Err(ScavengeError::Journal(_)) => return Ok(()),
                Err(ScavengeError::Read(error)) => {
                    return if self.armed {
                        self.restart()
                    } else {
                        Err(broken("segments can be read", format!("{error:?}")))
                    };
                }
            }
        }
        Ok(())
    }

    fn install(&mut self, rewritten: Scavenged) -> Outcome {
        // Even if it fails the next opening may find it done.
        self.scavenged = true;
        let installed = self.store.with(|log| log.install(rewritten));
        let Ok(reload) = installed else {
            // It was rewritten meanwhile, or the disk is full or gone.
            return match self.store.with(|log| log.failure().is_some()) {
                true => self.restart(),
                false => Ok(()),
            };
        };
        self.note(Sometimes::Scavenged);
        if self.draw.chance(60) {
            if reload.run().is_err() {
                return self.disk_failed("an index");
            }
        } else {
            self.stale = true;
        }
        self.check_chain()
    }

    /// An error that only a disk that is gone explains.
    fn disk_failed(&mut self, who: &str) -> Outcome {
        if self.armed || self.store.with(|log| log.failure().is_some()) {
            return self.restart();
        }
        Err(broken("disks that work are read and written", who))
    }
}

/// An answer without what differs between two runs of a seed.
fn short(answer: &Result<Committed, AppendError>) -> String {
    match answer {
        Ok(committed) => {
            let again = if committed.repeated { " again" } else { "" };
            format!("{} to {}{again}", committed.first, committed.last)
        }
        Err(AppendError::Conflict(conflict)) => format!("conflict at {}", conflict.head),
        // Ids of commands' events are random.
        Err(AppendError::IdReused { position, .. }) => format!("id taken at {position}"),
        Err(AppendError::PartlyRecorded { position, .. }) => format!("in part at {position}"),
        Err(error) => format!("{error}"),
    }
}
