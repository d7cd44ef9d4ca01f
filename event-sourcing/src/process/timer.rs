//! Timers: events that are recorded when their time has come.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::append::{Append, AppendError};
use crate::condition::{Expected, Query, QueryItem};
use crate::error::InvalidName;
use crate::event::{
    EventId, EventType, Label, NewEvent, Position, Recorded, StreamName, Timestamp,
};
use crate::projection::{HandlerError, Projection, Rows, SinkError, Table, Tx};
use crate::store::EventStore;

/// Type of the event that sets a timer.
pub const TIMER_SET: &str = "timer.set";
/// Type of the event of a timer whose time has come.
pub const TIMER_FIRED: &str = "timer.fired";
/// Type of the event that takes a timer back.
pub const TIMER_CANCELLED: &str = "timer.cancelled";

/// Timers that are set, by when they are due.
const BY_DUE: Table<(Timestamp, String), Timer> = Table::new("$timers");
/// When each timer is due that is set.
const DUE: Table<str, Timestamp> = Table::new("$due");

/// The space of the ids of timers' events: the name of the stream and what was said makes the rest.
const SPACE: Uuid = Uuid::from_u128(0x6c61_7474_6963_6574_696d_6572_7300_0001);

/// A timer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Timer {
    /// Its name, which no other timer of the process ever has.
    pub name: String,
    /// When it is due.
    pub due: Timestamp,
    /// What its setter wanted to know again.
    pub note: String,
}

impl Timer {
    /// The longest name, in bytes.
    pub const NAME_SIZE_MAX: usize = 512;

    /// The timer that an event is about.
    pub(super) fn of(event: &Recorded) -> Result<Self, serde_json::Error> {
        serde_json::from_slice(&event.event.data)
    }

    pub(super) fn check(&self) -> Result<(), InvalidName> {
        let (what, size) = ("timer", self.name.len());
        match size {
            0 => Err(InvalidName::Empty { what }),
            1..=Self::NAME_SIZE_MAX => Label::new(&self.name).map(drop),
            _ => Err(InvalidName::TooLong { what, size }),
        }
    }
}

/// The stream of a process's timers.
pub(super) fn stream_name(process: &str) -> String {
    format!("timers-{process}")
}

/// Adds the handlers that keep the tables of timers.
pub(super) fn keep(projection: Projection, process: &Arc<str>) -> Projection {
    let stream: Arc<str> = stream_name(process).into();
    let ours = move |event: &Recorded| event.stream.as_str() == &*stream;
    let (set, fired, cancelled) = (ours.clone(), ours.clone(), ours);
    let end = |tx: &mut Tx<'_>, event: &Recorded| -> Result<(), HandlerError> {
        let timer = Timer::of(event)?;
        if let Some(due) = tx.get(&DUE, timer.name.as_str())? {
            tx.remove(&BY_DUE, &(due, timer.name.clone()));
            tx.remove(&DUE, timer.name.as_str());
        }
        Ok(())
    };
    projection
        .on(TIMER_SET, move |tx, event| {
            if set(event) {
                let timer = Timer::of(event)?;
                tx.put(&DUE, timer.name.as_str(), &timer.due)?;
                tx.put(&BY_DUE, &(timer.due, timer.name.clone()), &timer)?;
            }
            Ok(())
        })
        .on(TIMER_FIRED, move |tx, event| if fired(event) { end(tx, event) } else { Ok(()) })
        .on(
            TIMER_CANCELLED,
            move |tx, event| if cancelled(event) { end(tx, event) } else { Ok(()) },
        )
}

/// The timers that are due first.
pub(super) fn first(tx: &Tx<'_>, count_max: usize) -> Result<Vec<Timer>, SinkError> {
    let rows = tx.scan(&BY_DUE, count_max)?;
    Ok(rows.into_iter().map(|(_, timer)| timer).collect())
}

/// Records that a timer was set.
pub(super) async fn set(
    store: &dyn EventStore,
    stream: &StreamName,
    timer: &Timer,
) -> Result<(), HandlerError> {
    Ok(record(store, stream, TIMER_SET, timer, false).await?)
}

/// Records that a timer has fired, unless it has before or was cancelled.
pub(super) async fn fire(
    store: &dyn EventStore,
    stream: &StreamName,
    timer: &Timer,
) -> Result<(), HandlerError> {
    Ok(record(store, stream, TIMER_FIRED, timer, true).await?)
}

/// Records that a timer was cancelled, unless it has fired.
pub(super) async fn cancel(
    store: &dyn EventStore,
    stream: &StreamName,
    name: &str,
) -> Result<(), HandlerError> {
    let timer = Timer { name: name.to_owned(), due: Timestamp(0), note: String::new() };
    timer.check()?;
    Ok(record(store, stream, TIMER_CANCELLED, &timer, true).await?)
}

/// Records an event of a timer, once. One that `ends` the timer is recorded only if no other has.
async fn record(
    store: &dyn EventStore,
    stream: &StreamName,
    kind: &str,
    timer: &Timer,
    ends: bool,
) -> Result<(), AppendError> {
    let label = Label::new(format!("timer:{}/{}", stream, timer.name));
    let label = label.expect("the names of process and timer were checked, and are short");
    let of_type = |name: &str| EventType::new(name).expect("it is one");
    let said = format!("{stream}/{kind}/{}", timer.name);
    let data = serde_json::to_vec(timer).expect("a timer goes into JSON");
    let event = NewEvent::json(of_type(kind), data)
        .id(EventId::derived(SPACE, said.as_bytes()))
        .label(label.clone());
    let mut append = Append::to(stream.clone(), Expected::Any, [event]);
    if ends {
        let ended = QueryItem::types([TIMER_FIRED, TIMER_CANCELLED].map(of_type)).and(label);
        append = append.fail_if_matches(Query::item(ended), Position::BEGINNING);
    }
    match store.append(append).await {
        Ok(_) => Ok(()),
        // It has ended the other way.
        Err(AppendError::Conflict(_)) if ends => Ok(()),
        Err(error) => Err(error),
    }
}
