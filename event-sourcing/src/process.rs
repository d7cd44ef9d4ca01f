//! Reactions: event handlers and process managers, which issue commands because of events.
//!
//! A [`Process`] handles events as a projection does, into rows of its own; a handler without rows is an event handler, one that
//! remembers what has happened so far is a process manager. What it wants done it says by [`Reaction::issue`]. That writes the command
//! into an *outbox*, a table in the same sink, in the same commit as the rows and the checkpoint. So a command is issued exactly
//! when the event that caused it is handled, and a crash loses neither.
//!
//! **At least once, with a key.** The worker takes commands out of the outbox in their order, hands each to the
//! program's [`Dispatch`], and removes it when that has succeeded. A crash in between means that it is handed over again, with
//! the same [`Issued::key`]: the process, the position of the event, and the command's place among those issued because of it. As the
//! idempotency key of an append, or of a request to a service outside that knows such keys, it makes the effect happen once.
//! (An outbox *in the log* needs nothing else: events that say what is to be done are handled by a process that does it.)
//!
//! **Timers.** [`Reaction::set_timer`] asks for an event at a later time. Timers are events too, in the stream `timers-NAME`:
//! `timer.set`, then `timer.fired` or `timer.cancelled`, whichever is recorded first, by a condition of the append. So a timer fires
//! once, however many workers there were, and one that was due while nobody ran fires when somebody does, never too early.
//!
//! **A process is never built again.** What it has done cannot be undone by reading the log once more. So it has no version: a process
//! whose handlers have changed goes on from where it was, with the rows it has.
//!
//! A command that fails holds back those behind it while it is tried again; then the worker stops, or puts it aside, as
//! [`Process::on_failure`] says. A command that the *domain* refuses has not failed: a dispatch that takes the refusal for an
//! answer returns `Ok`, and may record it.
//!
//! ```
//! use event_sourcing::process::{Issued, Process, Reaction};
//! use event_sourcing::Recorded;
//! use serde::{Deserialize, Serialize};
//!
//! #[derive(Serialize, Deserialize)]
//! struct SendParcel { order: String }
//!
//! let shipping = Process::<SendParcel>::new("shipping").on(
//!     "order.paid",
//!     |reaction: &mut Reaction<'_, '_, SendParcel>, event: &Recorded| {
//!         reaction.issue(&SendParcel { order: event.stream.to_string() })
//!     },
//! );
//! // To run it: `shipping.worker(store, sink, dispatch, time)`, where `dispatch` gets the command and its key.
//! # let _ = shipping;
//! # let _ = |command: SendParcel, issued: Issued| (command.order, issued.key);
//! ```

use std::marker::PhantomData;
use std::sync::Arc;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::event::{EventId, Position, Recorded, StreamName, Timestamp};
use crate::projection::{
    Handle, HandlerError, OnFailure, Projection, ProjectionError, Rows, Runner, Sink, SinkError,
    Table, Tx, Worker,
};
use crate::sleep::Sleep;
use crate::store::{EventStore, Pending};

mod outbox;
mod timer;

pub use timer::{TIMER_CANCELLED, TIMER_FIRED, TIMER_SET, Timer};

/// The longest name of a process, in bytes.
pub const NAME_SIZE_MAX: usize = 128;
/// The most commands and timers that one event may cause.
pub const ISSUED_MAX: u32 = 256;

/// Commands by the position of the event that caused them, and their number.
const OUTBOX: Table<(Position, u32), Outgoing> = Table::new("$outbox");
/// Commands that were put aside.
const ASIDE: Table<(Position, u32), Outgoing> = Table::new("$aside");

/// What waits in the outbox.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Outgoing {
    what: What,
    event: EventId,
    correlation: Option<Box<str>>,
    attempts: u32,
    message: String,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
enum What {
    /// A command, as JSON: it may be read by a later version of the program.
    Command(Vec<u8>),
    SetTimer(Timer),
    CancelTimer(String),
}

/// Handles events by issuing commands of type `C`.
#[derive(Clone, Debug)]
pub struct Process<C> {
    name: Arc<str>,
    projection: Projection,
    failure: OnFailure,
    retries_what_is_aside: bool,
    command: PhantomData<fn() -> C>,
}

/// An event being handled: its rows, and what is issued because of it.
#[derive(Debug)]
pub struct Reaction<'r, 't, C> {
    tx: &'r mut Tx<'t>,
    event: &'r Recorded,
    /// How many were issued because of the event.
    issued: u32,
    command: PhantomData<fn(C)>,
}

/// Carries out commands.
pub trait Dispatch<C>: Send + Sync + 'static {
    /// Carries out a command, or finds that this was done before. An error means that it is handed over again, or put aside.
    fn dispatch(&self, command: C, issued: Issued) -> Pending<Result<(), HandlerError>>;
}

impl<C, F> Dispatch<C> for F
where
    F: Fn(C, Issued) -> Pending<Result<(), HandlerError>> + Send + Sync + 'static,
{
    fn dispatch(&self, command: C, issued: Issued) -> Pending<Result<(), HandlerError>> {
        self(command, issued)
    }
}

/// What accompanies a command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Issued {
    /// Names the command for ever, the same whenever it is handed over: `process/NAME/POSITION/N`.
    pub key: String,
    /// Position of the event that caused it.
    pub position: Position,
    /// The event that caused it: the causation of what comes of it.
    pub event: EventId,
    /// The correlation of that event, to be handed on.
    pub correlation: Option<Box<str>>,
    /// How often it is known to have failed before.
    pub attempts: u32,
}

/// A command that was put aside.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Aside {
    /// Position of the event that caused it.
    pub position: Position,
    /// Its place among those that the event caused.
    pub number: u32,
    /// How often it was tried.
    pub attempts: u32,
    /// Why it failed.
    pub message: String,
}

impl<C: Serialize + DeserializeOwned + Send + 'static> Process<C> {
    /// A process without handlers. Its name is that of its rows in the sink, of its timers' stream, and part of its keys: it must not
    /// change.
    #[must_use]
    pub fn new(name: impl Into<Arc<str>>) -> Self {
        let name = name.into();
        let projection = Projection::new(Arc::clone(&name), "process").continuing();
        Self {
            projection: timer::keep(projection, &name),
            name,
            failure: OnFailure::stop(),
            retries_what_is_aside: false,
            command: PhantomData,
        }
    }

    /// Handles events of a type.
    #[must_use]
    pub fn on<F>(mut self, event_type: &str, handler: F) -> Self
    where
        F: Fn(&mut Reaction<'_, '_, C>, &Recorded) -> Result<(), HandlerError>
            + Send
            + Sync
            + 'static,
    {
        self.projection = self.projection.on(event_type, move |tx, event| {
            let mut reaction = Reaction::new(tx, event)?;
            handler(&mut reaction, event)
        });
        self
    }

    /// Handles timers of this process that have fired.
    #[must_use]
    pub fn on_timer<F>(self, handler: F) -> Self
    where
        F: Fn(&mut Reaction<'_, '_, C>, &Timer) -> Result<(), HandlerError> + Send + Sync + 'static,
    {
        let stream = timer::stream_name(&self.name);
        self.on(TIMER_FIRED, move |reaction, event| {
            if event.stream.as_str() != stream {
                return Ok(());
            }
            handler(reaction, &Timer::of(event)?)
        })
    }

    /// Begins behind this position instead of at the first event, if it has never run.
    #[must_use]
    pub fn after(mut self, position: Position) -> Self {
        self.projection = self.projection.after(position);
        self
    }

    /// What becomes of events whose handler fails, and of commands that fail; if nothing is said, the worker stops.
    #[must_use]
    pub fn on_failure(mut self, failure: OnFailure) -> Self {
        self.projection = self.projection.on_failure(failure);
        self.failure = failure;
        self
    }

    /// Puts commands that were put aside back into the outbox when the worker starts, before those that wait there.
    #[must_use]
    pub fn retry_what_is_aside(mut self) -> Self {
        self.retries_what_is_aside = true;
        self
    }

    /// A worker for the process. Its handle tells how far events are handled; what they have caused may still be under way.
    ///
    /// # Errors
    ///
    /// If the process is none, or the sink fails.
    pub fn worker(
        self,
        store: Arc<dyn EventStore>,
        sink: Arc<dyn Sink>,
        dispatch: impl Dispatch<C>,
        time: Arc<dyn Sleep>,
    ) -> Result<(Worker, Handle), ProjectionError> {
        let (size, limit) = (self.name.len(), NAME_SIZE_MAX);
        if size > limit {
            return Err(ProjectionError::Length { what: "name", size, limit });
        }
        let timers = StreamName::new(timer::stream_name(&self.name))?;
        let mut runner = Runner::open(sink, self.projection)?;
        if self.retries_what_is_aside {
            runner.amend(|tx| {
                for (key, outgoing) in tx.scan(&ASIDE, self.failure.parked_max)? {
                    tx.remove(&ASIDE, &key);
                    tx.put(&OUTBOX, &key, &Outgoing { attempts: 0, ..outgoing })?;
                }
                Ok(())
            })?;
        }
        let store_of_timers = Arc::clone(&store);
        let outbox =
            outbox::Outbox::new(store_of_timers, &self.name, timers, dispatch, self.failure);
        Ok(Worker::with(store, runner, time, Some(Box::new(outbox))))
    }

    /// The commands that were put aside, in order; at most `count_max`.
    ///
    /// # Errors
    ///
    /// If the sink cannot be read.
    pub fn aside(
        name: &str,
        sink: Arc<dyn Sink>,
        count_max: usize,
    ) -> Result<Vec<Aside>, SinkError> {
        let view = crate::projection::ReadModel::new(sink, name).view()?;
        let rows = view.scan(&ASIDE, count_max)?.into_iter();
        let aside = rows.map(|((position, number), Outgoing { attempts, message, .. })| Aside {
            position,
            number,
            attempts,
            message,
        });
        Ok(aside.collect())
    }
}

impl<'r, 't, C: Serialize> Reaction<'r, 't, C> {
    fn new(tx: &'r mut Tx<'t>, event: &'r Recorded) -> Result<Self, SinkError> {
        // Another handler of the same event may have issued something before.
        let most = usize::try_from(ISSUED_MAX).expect("it is small");
        let issued = tx.scan_within(&OUTBOX, &event.position, most)?.len();
        let issued = u32::try_from(issued).expect("it is at most ISSUED_MAX");
        Ok(Self { tx, event, issued, command: PhantomData })
    }

    /// The process's own rows.
    pub fn rows(&mut self) -> &mut Tx<'t> {
        self.tx
    }

    /// Issues a command.
    ///
    /// # Errors
    ///
    /// If it cannot be written down, or too many were issued because of this event: [`ISSUED_MAX`].
    pub fn issue(&mut self, command: &C) -> Result<(), HandlerError> {
        let command = serde_json::to_vec(command)?;
        self.put(What::Command(command))
    }

    /// Asks for [`Process::on_timer`] at a time, or as soon as there is a worker after it. The name is the timer's for ever: a second one of the
    /// same name is no timer.
    ///
    /// # Errors
    ///
    /// As [`Reaction::issue`]; or if the name is empty or longer than [`timer::NAME_SIZE_MAX`](Timer::NAME_SIZE_MAX).
    pub fn set_timer(
        &mut self,
        name: &str,
        due: Timestamp,
        note: &str,
    ) -> Result<(), HandlerError> {
        let timer = Timer { name: name.to_owned(), due, note: note.to_owned() };
        timer.check()?;
        self.put(What::SetTimer(timer))
    }

    /// Takes a timer back, unless it has fired before.
    ///
    /// # Errors
    ///
    /// As [`Reaction::issue`].
    pub fn cancel_timer(&mut self, name: &str) -> Result<(), HandlerError> {
        self.put(What::CancelTimer(name.to_owned()))
    }

    fn put(&mut self, what: What) -> Result<(), HandlerError> {
        if self.issued >= ISSUED_MAX {
            return Err(format!("one event causes more than {ISSUED_MAX} commands").into());
        }
        let outgoing = Outgoing {
            what,
            event: self.event.event.id,
            correlation: self.event.event.metadata.correlation.clone(),
            attempts: 0,
            message: String::new(),
        };
        self.tx.put(&OUTBOX, &(self.event.position, self.issued), &outgoing)?;
        self.issued += 1;
        Ok(())
    }
}
