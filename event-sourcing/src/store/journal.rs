//! The backend on disk: a [journal](lattice_journal) of events with an index over it.
//!
//! # What it promises beside what every store does
//!
//! - An acknowledged event is on the disk, and found again after any crash. After a crash at any moment the log is one that could
//!   have been: a prefix of the appends, each of them whole.
//! - Damage is reported ([`JournalStore::damage`]), and never cut away: what is around it can be read. If it is found when the store is
//!   opened nothing can be appended until the store was repaired from a copy. In complete segments it may be found later, by
//!   whoever reads there or by [`JournalStore::verify`].
//! - A full disk refuses appends and nothing else, and passes. After a failed sync the store takes no more appends, and every append
//!   under way is answered with "not known".
//!
//! # How
//!
//! [`EventLog`] is all of it without threads: appends are staged, a commit makes what is staged durable with one write and one sync, and
//! shows it. Each segment of the journal has an index: in memory while the segment grows, and then in one immutable file. That
//! is bound to the segment as it is, by the checksum that its last frame has in the journal, and made again whenever it is missing,
//! stale, damaged, or of another history. So no promise rests on an index file. In memory stay its filter and its fences.
//!
//! [`JournalStore`] adds the threads. One writes: it takes all appends that wait, stages them, commits them, and answers all of them,
//! refusals too, for an append may have been refused because of another one of its group. It looks at few events for a query: one
//! that goes far back is looked at by those who read, before its append is put into the queue. Some read, so that asynchronous
//! callers do not wait for the disk, unless too many reads wait already; what is in memory is answered at once. One writes
//! index files, and one takes back space.
//!
//! # Caveats
//!
//! - Without its index files a log opens as fast as all of it can be read and its index made again: a minute or so for ten million
//!   events.
//! - Reading one event from the disk reads and checks its frame, which has some 16 KiB of appends, or a single longer one.
//! - An id that is new in an old stream is looked for in the index of every segment that the stream is in.
//! - An append with a query that takes long to look at may be overtaken by later ones.
//! - Versions of the index file are not kept readable: a file of another format is made again.
//!
//! # Example
//!
//! ```
//! use event_sourcing::store::journal::{JournalStore, JournalStoreOptions};
//! use event_sourcing::{Append, EventStore, EventType, Expected, NewEvent, Position, StreamName};
//! use futures::executor::block_on;
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let directory = tempfile::tempdir()?;
//! let options = JournalStoreOptions::new(directory.path());
//! let store = JournalStore::open(&options)?;
//! let event = NewEvent::json(EventType::new("account.opened")?, "{}");
//! block_on(store.append(Append::to(StreamName::new("account-1")?, Expected::NoStream, [event])))?;
//! store.close();
//!
//! let store = JournalStore::open(&options)?;
//! assert_eq!(store.head(), Position(1));
//! assert!(block_on(store.verify())?.is_sound());
//! # Ok(())
//! # }
//! ```

mod blocks;
mod chain;
mod cursor;
mod directory;
mod error;
mod evaluating;
mod event_log;
mod filter;
mod hashes;
mod heads;
mod index_file;
mod log_reader;
mod memtable;
mod opening;
mod options;
mod part;
mod reading;
mod records;
mod scavenge;
mod scavenging;
mod tail;
mod tasks;
mod threads;
mod upkeep;
mod verify;
mod view;
mod writing;

pub use chain::{BLOCK as CHAIN_BLOCK, ChainHead};
pub use error::OpenError;
pub use event_log::{EventLog, LogCounts};
pub use log_reader::{IndexMemory, LogReader};
pub use options::JournalStoreOptions;
pub use scavenge::{ScavengeError, ScavengeTask, Scavenged};
pub use tasks::{ReloadTask, UpkeepTask};
pub use verify::{PROBLEMS_MAX, Problem, Verification};
#[cfg(feature = "sim")]
pub(crate) use writing::final_answer;

use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

use futures::FutureExt;
use futures::channel::oneshot;
use futures::future::ready;
use lattice_journal::{Disk, RealDisk};

use self::error::refusal;
use self::evaluating::Evaluating;
use self::reading::Readers;
use self::scavenging::Scavenger;
use self::threads::{Spawn, Threads};
use self::upkeep::Upkeep;
use self::writing::{Figures, Queue, Request};
use crate::append::{Append, AppendError, Committed};
use crate::clock::{Clock, SystemClock};
use crate::event::{Position, StreamName};
use crate::machine::Limits;
use crate::page;
use crate::read::{Page, Read, ReadError};
use crate::store::signal::Signal;
use crate::store::{EventStore, Pending, StreamInfo, TypeCount};

/// Terms and events that are looked at for a page that is read in the caller's own thread.
const INLINE_WORK: u64 = 4096;

/// A store in a directory.
#[derive(Debug)]
pub struct JournalStore {
    queue: Arc<Queue>,
    signal: Arc<Signal>,
    figures: Arc<Mutex<Figures>>,
    readers: Arc<Readers>,
    upkeep: Arc<Upkeep>,
    scavenger: Arc<Scavenger>,
    log: LogReader,
    limits: Limits,
    damage: Arc<[Range<u64>]>,
    threads: Threads,
}

/// Figures about a store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct JournalStats {
    /// The last durable position, which is also the number of events.
    pub head: Position,
    /// Groups of appends that were written since the store was opened, each with one sync.
    pub commits: u64,
    /// Events in them.
    pub events_committed: u64,
    /// Bytes of appends that wait or are being written.
    pub waiting_bytes: usize,
    /// Bytes of the journal on disk.
    pub log_bytes: u64,
    /// What the index takes.
    pub index: IndexMemory,
    /// The head of the hash chain; `None` if events are damaged.
    pub chain: Option<ChainHead>,
    /// The disk is nearly full.
    pub low_space: bool,
}

impl JournalStore {
    /// Opens the store in a directory of this machine, or begins one there. Waits until what has to be read is read.
    ///
    /// # Errors
    ///
    /// As [`EventLog::open`].
    pub fn open(options: &JournalStoreOptions) -> Result<Self, OpenError> {
        Self::open_on(Arc::new(RealDisk), Arc::new(SystemClock), options)
    }

    /// Opens the store on any disk, with any clock.
    ///
    /// # Errors
    ///
    /// As [`EventLog::open`].
    pub fn open_on(
        disk: Arc<dyn Disk>,
        clock: Arc<dyn Clock>,
        options: &JournalStoreOptions,
    ) -> Result<Self, OpenError> {
        Self::open_with(disk, clock, options, &mut threads::spawn)
    }

    fn open_with(
        disk: Arc<dyn Disk>,
        clock: Arc<dyn Clock>,
        options: &JournalStoreOptions,
        spawn: &mut Spawn<'_>,
    ) -> Result<Self, OpenError> {
        let log = EventLog::open(disk, options)?;
        let reader = log.reader();
        let (queue, upkeep) = (Arc::new(Queue::new(options.queue_bytes_max)), Arc::default());
        let scavenger = Scavenger::new(Arc::clone(&queue), Arc::clone(&upkeep), options);
        // Whole before its threads begin: should one of them not begin, dropping it ends the others.
        let store = Self {
            signal: Arc::new(Signal::new(reader.head())),
            figures: Arc::new(Mutex::new(Figures::of(&log))),
            readers: Arc::new(Readers::new(options.reads_waiting_max)),
            scavenger: Arc::new(scavenger),
            queue,
            upkeep,
            log: reader,
            limits: options.limits,
            damage: log.damage(),
            threads: Threads::default(),
        };
        let threads = &store.threads;
        for number in 0..options.reader_threads {
            let readers = Arc::clone(&store.readers);
            threads.begin(spawn, &format!("events-read-{number}"), move || readers.run())?;
        }
        let upkeep = Arc::clone(&store.upkeep);
        threads.begin(spawn, "events-upkeep", move || upkeep.run())?;
        let scavenger = Arc::clone(&store.scavenger);
        threads.begin(spawn, "events-scavenge", move || scavenger.run())?;
        let writer = writing::Writer {
            log,
            clock,
            queue: Arc::clone(&store.queue),
            signal: Arc::clone(&store.signal),
            figures: Arc::clone(&store.figures),
            upkeep: Arc::clone(&store.upkeep),
            group_size_max: options.group_size_max,
            idle: options.idle,
        };
        threads.begin(spawn, "events-write", move || writer.run())?;
        Ok(store)
    }

    /// Positions of events that were found damaged when the store was opened. If there are any, nothing can be appended.
    #[must_use]
    pub fn damage(&self) -> &[Range<u64>] {
        &self.damage
    }

    /// Figures, for metrics.
    #[must_use]
    pub fn stats(&self) -> JournalStats {
        let figures = self.figures.lock().unwrap_or_else(PoisonError::into_inner);
        JournalStats {
            head: self.log.head(),
            commits: figures.counts.commits,
            events_committed: figures.counts.events,
            waiting_bytes: self.queue.waiting(),
            log_bytes: figures.journal.bytes_on_disk(),
            index: self.log.index_memory(),
            chain: figures.chain_head(),
            low_space: figures.journal.low_space(),
        }
    }

    /// Takes back the space of events that nobody can see any more, in every complete segment, and returns how many there were. This
    /// goes on by itself, in segments where it is worth it ([`JournalStoreOptions::scavenge_every`]); with `thorough` a segment is
    /// rewritten for the sake of a single event.
    pub fn scavenge(&self, thorough: bool) -> Pending<Result<u64, ScavengeError>> {
        self.scavenger.request(thorough)
    }

    /// Looks through the whole log, in one of the threads that read: see [`Verification`]. Ends early if the store is closed.
    pub fn verify(&self) -> Pending<Result<Verification, ReadError>> {
        let noted = self.stats().chain;
        let readers = Arc::clone(&self.readers);
        self.ask_disk(move |log| log.verify_until(noted, &|| readers.is_closed()))
    }

    /// Waits for the appends under way and closes the store. Later calls are refused, and appends whose queries are still being
    /// looked at. Waits in the caller's thread until everything has ended and the directory is free, also if somebody else is
    /// closing it; only in a thread of the store itself, as in what is done with an answer there, it does not wait.
    pub fn close(&self) {
        self.scavenger.close();
        self.queue.close();
        self.readers.close();
        self.upkeep.close();
        self.threads.join();
        self.signal.close();
    }

    /// Answers from memory if that can be, and else in a thread that reads.
    fn ask<T: Send + 'static>(
        &self,
        from_memory: impl FnOnce(&view::View) -> Result<T, ReadError>,
        from_disk: impl FnOnce(&LogReader) -> Result<T, ReadError> + Send + 'static,
    ) -> Pending<Result<T, ReadError>> {
        if self.readers.is_closed() {
            return ready(Err(ReadError::Closed)).boxed();
        }
        if let Some(answer) = self.log.ask_memory(from_memory) {
            return ready(answer).boxed();
        }
        self.ask_disk(from_disk)
    }

    fn ask_disk<T: Send + 'static>(
        &self,
        from_disk: impl FnOnce(&LogReader) -> Result<T, ReadError> + Send + 'static,
    ) -> Pending<Result<T, ReadError>> {
        let (sender, receiver) = oneshot::channel();
        let log = self.log.clone();
        let submitted = self.readers.submit(Box::new(move || {
            // Whoever stopped waiting needs no answer.
            let _ = sender.send(from_disk(&log));
        }));
        if let Err(job) = submitted {
            // Too many wait already: whoever asks for more does the work.
            job();
        }
        receiver.map(|answer| answer.unwrap_or(Err(ReadError::Closed))).boxed()
    }
}

impl Drop for JournalStore {
    fn drop(&mut self) {
        self.close();
    }
}

impl EventStore for JournalStore {
    fn append(&self, append: Append) -> Pending<Result<Committed, AppendError>> {
        if let Err(error) = self.limits.check(&append) {
            return ready(Err(error)).boxed();
        }
        let (answer, receiver) = oneshot::channel();
        let taken = if evaluating::goes_back(&append, self.log.head()) {
            let size = writing::size(&append);
            self.queue.count(size).map(|()| {
                let (queue, readers) = (&self.queue, &self.readers);
                Evaluating::new(append, size, answer, queue, readers, &self.log).begin(INLINE_WORK);
            })
        } else {
            self.queue.put(Request::new(append, answer))
        };
        if let Err(error) = taken {
            return ready(Err(error)).boxed();
        }
        let ended = || AppendError::Unknown(refusal("the writer of the store has ended"));
        receiver.map(move |answer| answer.unwrap_or_else(|_| Err(ended()))).boxed()
    }

    fn read(&self, read: Read) -> Pending<Result<Page, ReadError>> {
        let inline = read.clone();
        self.ask(
            move |view| page::read_within(view, &inline, INLINE_WORK),
            move |log| log.read(&read),
        )
    }

    fn stream(&self, stream: StreamName) -> Pending<Result<Option<StreamInfo>, ReadError>> {
        let inline = stream.clone();
        self.ask(move |view| page::stream_info(view, &inline), move |log| log.stream(&stream))
    }

    fn types(&self) -> Pending<Result<Vec<TypeCount>, ReadError>> {
        if self.readers.is_closed() {
            return ready(Err(ReadError::Closed)).boxed();
        }
        self.ask_disk(LogReader::types)
    }

    fn head(&self) -> Position {
        // Not that of the signal, which is told a moment later: no page may have a head beyond this one.
        self.log.head()
    }

    fn wait_beyond(&self, position: Position) -> Pending<Result<Position, ReadError>> {
        self.signal.wait_beyond(position)
    }
}
