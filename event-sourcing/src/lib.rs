//! Event sourcing: a store of events whose guarantees are checked rather than claimed, and a domain library on it.
//!
//! SKELETON: the essay comes when the crate stands.

pub mod append;
pub mod clock;
pub mod codec;
pub mod condition;
pub mod cqrs;
pub mod decider;
pub mod error;
pub mod event;
pub mod execute;
pub mod filter;
pub mod load;
pub mod machine;
pub mod page;
pub mod process;
pub mod projection;
pub mod read;
pub mod record;
pub mod retention;
pub mod schema;
pub mod sleep;
pub mod snapshot;
pub mod store;
pub mod subscription;
pub mod testing;
pub mod time_travel;
pub mod upcast;

pub use append::{Append, AppendError, Committed, Conflict};
pub use codec::Codec;
pub use condition::{Check, Expected, Query, QueryItem};
pub use decider::{Boundary, Decider, DomainEvent};
pub use event::{
    ContentType, EventId, EventType, Label, Metadata, NewEvent, Position, Recorded, StreamName,
    Timestamp, Version,
};
pub use execute::{DomainStore, ExecuteError};
pub use filter::{Filter, Pattern};
pub use process::Process;
pub use projection::Projection;
pub use read::{Direction, Page, Read, ReadError, Source};
pub use schema::{EventContent, Labels};
pub use store::memory::MemoryStore;
pub use store::{EventStore, EventStoreExt, Pending, StreamInfo};
pub use subscription::{Delivery, Subscribe, Subscription};
