//! Read models in tests: these events, then these rows.
//!
//! ```
//! use event_sourcing::projection::{Projection, Rows, Table};
//! use event_sourcing::testing::projected;
//! use event_sourcing::{EventType, NewEvent};
//!
//! const VISITS: Table<str, u64> = Table::new("visits");
//! let visits = Projection::new("visits", "1").on("visited", |tx, event| {
//!     let visits = tx.get(&VISITS, event.stream.as_str())?.unwrap_or(0);
//!     Ok(tx.put(&VISITS, event.stream.as_str(), &(visits + 1))?)
//! });
//! let visited = || NewEvent::json(EventType::new("visited").unwrap(), "{}");
//! let view = projected(visits, [("page-1", visited()), ("page-2", visited()), ("page-1", visited())]);
//! assert_eq!(view.get(&VISITS, "page-1").unwrap(), Some(2));
//! ```

use futures::executor::block_on;

use crate::append::Append;
use crate::condition::Expected;
use crate::event::{NewEvent, StreamName};
use crate::projection::{Projection, View, replay};
use crate::store::EventStore;
use crate::store::memory::MemoryStore;
use crate::time_travel::Moment;

/// The read model after these events, each in its stream and appended on its own.
///
/// # Panics
///
/// If a stream's name cannot be one, an event cannot be appended, or a handler fails: with what it said.
#[must_use]
pub fn projected<'a>(
    projection: Projection,
    events: impl IntoIterator<Item = (&'a str, NewEvent)>,
) -> View {
    let store = MemoryStore::default();
    for (stream, event) in events {
        let stream = StreamName::new(stream).unwrap_or_else(|error| panic!("{error}"));
        let appended = block_on(store.append(Append::to(stream, Expected::Any, [event])));
        appended.unwrap_or_else(|error| panic!("{error}"));
    }
    block_on(replay(&store, projection, Moment::Now)).unwrap_or_else(|error| panic!("{error}"))
}
