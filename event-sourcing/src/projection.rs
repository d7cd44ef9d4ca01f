//! Read models: what the log says, arranged for a question.
//!
//! A [`Projection`] is a name, a version, and a function for each event type that writes rows into [`Table`]s. A [`Runner`] carries
//! events through it, in the order of the log, into a [`Sink`].
//!
//! **Effects happen once.** The runner's checkpoint is a row beside the rows, written in the same commit, and each commit expects the
//! checkpoint that was there before. So whatever happens between two steps (a crash, a commit of which the answer was lost, a
//! second runner), the rows are those of a plain fold over the events up to the checkpoint, each handled once.
//! A handler itself may be *called* more often, when what it wrote was undone: it must do nothing but write into its
//! transaction. Effects in the outside world are for [`process`](crate::process).
//!
//! **Appends are seen whole.** A commit ends where an append ends, so a read model never shows half of what was atomic.
//!
//! **Partitions run side by side, and it cannot be seen.** Events of a batch are divided by a key, by default their home stream, and each
//! partition runs on a thread of its own against the same rows. If afterwards no partition has touched a row that another wrote,
//! they might as well have run one after the other, in any order, and so in the log's: their writes are merged into one commit with
//! one checkpoint. Otherwise the batch is run again, in order. Partitions make a projection faster or do not; they never change it.
//!
//! **A failing handler** does what the projection's [`OnFailure`] says: it is tried again after a pause, then the runner stops, or
//! the event is *parked* with its error. Later events with the same key are parked behind it, so that the order within a
//! stream holds, until somebody replays or discards them. A panic is a failure like another.
//!
//! **A new version is built beside the old one.** The version is a *fingerprint*: what its author calls it, and what it listens to.
//! If the sink has another, a new *build* is begun, under keys of its own. Queries go on seeing the old one ([`ReadModel`]) until
//! the new one has caught up; then one commit swaps the pointer, and the old rows are swept away. A crash at any point leaves one
//! current build, whole.
//!
//! ```
//! use event_sourcing::projection::{Projection, Rows, Table};
//!
//! const BALANCES: Table<str, i64> = Table::new("balances");
//!
//! let balances = Projection::new("balances", "1").on("account.deposited", |tx, event| {
//!     let amount: i64 = serde_json::from_slice(&event.event.data)?;
//!     let account = event.stream.as_str();
//!     let balance = tx.get(&BALANCES, account)?.unwrap_or(0);
//!     tx.put(&BALANCES, account, &(balance + amount))?;
//!     Ok(())
//! });
//! # let _ = balances;
//! ```
//!
//! What is not here: tables of a foreign database with queries in its own language. A sink is a map; a database that is to have
//! real columns is fed by an event handler that keeps its checkpoint there.

use std::collections::BTreeMap;
use std::error::Error;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::condition::{Query, QueryItem};
use crate::decider::DomainEvent;
use crate::event::{EventType, Position, Recorded};
use crate::filter::Filter;
use crate::read::Source;
use crate::schema::{EventContent, Schema};

mod batch;
mod build;
mod error;
mod lag;
mod runner;
pub mod sink;
mod table;
mod time_travel;
mod transaction;
mod view;
mod worker;

pub(crate) use batch::chain;
pub use build::Checkpoint;
pub use error::{ProjectionError, WaitError};
pub use lag::{Lag, Trend};
pub use runner::{Next, ParkedEvent, Runner};
pub use sink::memory::MemorySink;
#[cfg(feature = "redb")]
pub use sink::redb::RedbSink;
pub use sink::{Changes, Sink, SinkError, Snapshot};
pub use table::{Key, Row, Rows, Scanned, Table};
pub use time_travel::{RowDifference, replay};
pub use transaction::Tx;
pub use view::{ReadModel, View};
pub(crate) use worker::{Chore, Chores};
pub use worker::{Handle, State, Status, Worker};

/// Why a handler could not handle an event: any error, so that `?` works.
pub type HandlerError = Box<dyn Error + Send + Sync>;

type Handler = Arc<dyn Fn(&mut Tx<'_>, &Recorded) -> Result<(), HandlerError> + Send + Sync>;
type PartitionKey = Arc<dyn Fn(&Recorded) -> String + Send + Sync>;

/// The longest name of a projection and of its version, in bytes.
pub const NAME_SIZE_MAX: usize = 256;
/// The most partitions.
pub const PARTITIONS_MAX: usize = 64;

/// What a read model is made of.
#[derive(Clone)]
pub struct Projection {
    name: Arc<str>,
    version: Arc<str>,
    source: Source,
    filter: Filter,
    after: Position,
    handlers: BTreeMap<String, Vec<Handler>>,
    otherwise: Otherwise,
    failure: OnFailure,
    batch: Batch,
    partitions: usize,
    key: PartitionKey,
    /// It goes on where another version has stopped, instead of beginning anew.
    continues: bool,
}

/// What becomes of an event that no handler is for.
#[derive(Clone)]
enum Otherwise {
    /// It is not asked for.
    Skip,
    /// It is a failure.
    Refuse,
    /// It is for this one.
    Handle(Handler),
}

/// What becomes of an event when its handler fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OnFailure {
    /// How often it is tried again first.
    pub retries: u32,
    /// The pause before it is tried again, doubled each time.
    pub pause: Duration,
    /// The longest pause.
    pub pause_max: Duration,
    /// What then.
    pub then: Then,
    /// How many events may be parked; when one more should be, the runner stops.
    pub parked_max: usize,
}

/// What becomes of an event that was tried often enough.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Then {
    /// The runner stops before it.
    Stop,
    /// It is put aside with its error, and so are the later events with the same key.
    Park,
}

impl OnFailure {
    /// The runner stops at once.
    #[must_use]
    pub fn stop() -> Self {
        Self {
            retries: 0,
            pause: Duration::from_millis(100),
            pause_max: Duration::from_secs(30),
            then: Then::Stop,
            parked_max: 1024,
        }
    }

    /// The event is parked at once.
    #[must_use]
    pub fn park() -> Self {
        Self { then: Then::Park, ..Self::stop() }
    }

    /// Tries so often again before, with a pause that doubles each time, up to half a minute.
    #[must_use]
    pub fn after_retries(mut self, retries: u32, pause: Duration) -> Self {
        (self.retries, self.pause) = (retries, pause);
        self
    }

    /// The pause after so many attempts.
    pub(crate) fn pause_after(&self, attempts: u32) -> Duration {
        let factor = 1 << attempts.saturating_sub(1).min(20);
        self.pause.saturating_mul(factor).min(self.pause_max)
    }
}

/// How much goes into one commit. It is ended by whichever bound is met first, but not in the middle of an append.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Batch {
    /// The most events.
    pub count_max: usize,
    /// The most bytes written.
    pub bytes_max: usize,
    /// For so long handlers run.
    pub time_max: Duration,
}

impl Default for Batch {
    fn default() -> Self {
        Self { count_max: 2048, bytes_max: 16 << 20, time_max: Duration::from_millis(500) }
    }
}

impl Projection {
    /// A projection without handlers, over the whole log.
    ///
    /// The name is that of the read model in its sink. The version changes whenever its handlers do; a read model of another version
    /// is built anew.
    #[must_use]
    pub fn new(name: impl Into<Arc<str>>, version: impl Into<Arc<str>>) -> Self {
        Self {
            name: name.into(),
            version: version.into(),
            source: Source::All,
            filter: Filter { exclude_system: true, ..Filter::default() },
            after: Position::BEGINNING,
            handlers: BTreeMap::new(),
            otherwise: Otherwise::Skip,
            failure: OnFailure::stop(),
            batch: Batch::default(),
            partitions: 1,
            key: Arc::new(|event| event.stream.as_str().to_owned()),
            continues: false,
        }
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Handles events of a type. Several handlers of one type are called in the order in which they were added.
    #[must_use]
    pub fn on<F>(mut self, event_type: &str, handler: F) -> Self
    where
        F: Fn(&mut Tx<'_>, &Recorded) -> Result<(), HandlerError> + Send + Sync + 'static,
    {
        self.handlers.entry(event_type.to_owned()).or_default().push(Arc::new(handler));
        self
    }

    /// Handles events with a type of content, whichever version of its schema they were written in.
    ///
    /// # Panics
    ///
    /// If the type's name cannot be one: a mistake of the program, found when it starts.
    #[must_use]
    pub fn on_content<T, F>(self, handler: F) -> Self
    where
        T: EventContent,
        F: Fn(&mut Tx<'_>, &T, &Recorded) -> Result<(), HandlerError> + Send + Sync + 'static,
    {
        let schema = Schema::<T>::new().event(|content| content);
        self.on(T::TYPE, move |tx, event| handler(tx, &schema.decode(&event.event)?, event))
    }

    /// Handles all events of a domain, each as the domain has it.
    #[must_use]
    pub fn on_domain<E, F>(mut self, handler: F) -> Self
    where
        E: DomainEvent,
        F: Fn(&mut Tx<'_>, &E, &Recorded) -> Result<(), HandlerError> + Send + Sync + 'static,
    {
        let handler = Arc::new(handler);
        for event_type in E::schema().known().types.keys() {
            let handler = Arc::clone(&handler);
            self = self.on(event_type.as_str(), move |tx, event| {
                handler(tx, &E::schema().decode(&event.event)?, event)
            });
        }
        self
    }

    /// Handles events of all types that have no handler of their own.
    #[must_use]
    pub fn otherwise<F>(mut self, handler: F) -> Self
    where
        F: Fn(&mut Tx<'_>, &Recorded) -> Result<(), HandlerError> + Send + Sync + 'static,
    {
        self.otherwise = Otherwise::Handle(Arc::new(handler));
        self
    }

    /// Makes an event without a handler a failure. Otherwise events of such types are not even read.
    #[must_use]
    pub fn refuse_unknown(mut self) -> Self {
        self.otherwise = Otherwise::Refuse;
        self
    }

    /// Takes its events from a stream or a query instead of the whole log.
    #[must_use]
    pub fn source(mut self, source: Source) -> Self {
        self.source = source;
        self
    }

    /// Of those, only the ones that pass. Types are a matter of the handlers.
    #[must_use]
    pub fn filter(mut self, filter: Filter) -> Self {
        self.filter = filter;
        self
    }

    /// Begins behind this position instead of at the first event.
    #[must_use]
    pub fn after(mut self, position: Position) -> Self {
        self.after = position;
        self
    }

    /// What becomes of events whose handler fails; if nothing is said, the runner stops.
    #[must_use]
    pub fn on_failure(mut self, failure: OnFailure) -> Self {
        self.failure = failure;
        self
    }

    /// How much goes into one commit.
    #[must_use]
    pub fn batch(mut self, batch: Batch) -> Self {
        self.batch = batch;
        self
    }

    /// Runs so many partitions side by side, at most [`PARTITIONS_MAX`]. Worth it if the handlers have much to compute.
    #[must_use]
    pub fn partitions(mut self, partitions: usize) -> Self {
        self.partitions = partitions.clamp(1, PARTITIONS_MAX);
        self
    }

    /// What divides events into partitions, and what is parked together; by default the home stream.
    #[must_use]
    pub fn partition_by(
        mut self,
        key: impl Fn(&Recorded) -> String + Send + Sync + 'static,
    ) -> Self {
        self.key = Arc::new(key);
        self
    }

    /// Goes on where another version has stopped.
    pub(crate) fn continuing(mut self) -> Self {
        self.continues = true;
        self
    }

    /// What tells this version from others in the sink: the author's word for it, and a digest of what it listens to.
    #[must_use]
    pub fn fingerprint(&self) -> String {
        if self.continues {
            return self.version.as_ref().to_owned();
        }
        let mut heard = Vec::new();
        let mut say = |part: &str| {
            heard.extend(part.as_bytes());
            heard.push(0);
        };
        match &self.source {
            Source::All => say("all"),
            Source::Stream(stream) => {
                say("stream");
                say(stream.as_str());
            }
            Source::Query(Query { items }) => {
                for QueryItem { types, labels } in items {
                    say("item");
                    types.iter().for_each(|name| say(name.as_str()));
                    say("with");
                    labels.iter().for_each(|name| say(name.as_str()));
                }
            }
        }
        let filter = &self.filter;
        say(if filter.exclude_system { "users" } else { "everybody" });
        filter.types.iter().for_each(|name| say(name.as_str()));
        say("type prefixes");
        filter.type_prefixes.iter().for_each(|prefix| say(prefix));
        say("stream prefixes");
        filter.stream_prefixes.iter().for_each(|prefix| say(prefix));
        say("patterns");
        say(filter.type_pattern.as_ref().map_or("", |pattern| pattern.as_str()));
        say(filter.stream_pattern.as_ref().map_or("", |pattern| pattern.as_str()));
        filter.labels.iter().for_each(|label| say(label.as_str()));
        say("handlers");
        self.handlers.keys().for_each(|name| say(name));
        say(match self.otherwise {
            Otherwise::Skip => "skip",
            Otherwise::Refuse => "refuse",
            Otherwise::Handle(_) => "handle",
        });
        say(&self.after.to_string());
        format!("{}-{:016x}", self.version, xxhash_rust::xxh3::xxh3_64(&heard))
    }

    /// Which of the source's events are asked for.
    fn asked_for(&self) -> Result<Filter, ProjectionError> {
        let mut filter = self.filter.clone();
        if matches!(self.otherwise, Otherwise::Skip) {
            let types = self.handlers.keys().map(EventType::new);
            let handled: Vec<_> = types.collect::<Result<_, _>>()?;
            filter.exclude_system &= !handled.iter().any(EventType::is_system);
            let asked = |name: &EventType| filter.types.is_empty() || filter.types.contains(name);
            let both: Vec<_> = handled.into_iter().filter(asked).collect();
            // No types would mean all types.
            if !both.is_empty() {
                filter.types = both;
            }
        }
        Ok(filter)
    }

    /// The handlers of an event; `None` if there should be one and there is none.
    fn handlers_of(&self, event: &Recorded) -> Option<&[Handler]> {
        match self.handlers.get(event.event.event_type.as_str()) {
            Some(handlers) => Some(handlers),
            None => match &self.otherwise {
                Otherwise::Skip => Some(&[]),
                Otherwise::Refuse => None,
                Otherwise::Handle(handler) => Some(std::slice::from_ref(handler)),
            },
        }
    }
}

impl fmt::Debug for Projection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Projection")
            .field("name", &self.name)
            .field("version", &self.version)
            .field("source", &self.source)
            .field("handlers", &self.handlers.keys().collect::<Vec<_>>())
            .finish_non_exhaustive()
    }
}
