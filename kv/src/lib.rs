//! etcd's data model as a pure state machine.
//!
//! A cluster replicates [`Command`]s; every replica applies the same commands in the same order to
//! a [`KvMachine`] and so comes to the same state. There is no clock, thread, file, socket or
//! random source in here: time comes in with a command, and durability is the business of the log
//! that the commands come from.
//!
//! # The model
//!
//! The store has one **revision**, a counter that starts at 1 and grows by one with every request
//! that changes something. A write never overwrites: it adds a *version* of its key, stamped with
//! the revision that made it, and a delete adds a *tombstone*. So the state at any earlier revision
//! can still be read, and a reader that has chosen a revision sees one consistent state however
//! long it reads, while writes go on beside it. Two things rest on that:
//!
//! - **Range reads in slices** ([`range`]): a read of a million keys takes the lock for a few
//!   hundred keys at a time, and so never holds up `apply` for long.
//! - **Snapshots beside writes** ([`snapshot`]): a snapshot is every version up to its revision,
//!   read in slices too.
//!
//! A key carries, besides its value, the revision that created it, the revision that last changed
//! it, and its version: the number of changes since its creation, which starts again at 1 after a
//! delete.
//!
//! # Where things are
//!
//! | Idea | File |
//! | --- | --- |
//! | revisions, and the versions of a key | `revision.rs`, `key_value.rs` |
//! | what a range read returns | `range.rs` |
//! | what may be asked to change, byte by byte | `command.rs` |
//! | what the asker gets back | `outcome.rs`, `error.rs` |
//! | the rules of put and delete | `state.rs` |
//! | where versions are kept | `store.rs`, `store/memory.rs` |
//! | the machine as Raft runs it, and its reader | `machine.rs` |
//! | snapshots | `snapshot.rs` |
//! | are two replicas equal? | `state_hash.rs` |
//!
//! # What is missing
//!
//! Transactions, leases (a lease other than 0 is refused as not found), watches, compaction,
//! authentication, quotas, and a store on disk. Nothing is ever forgotten yet: every version of
//! every key stays in memory. Counting the keys of an interval visits each of them, as in etcd.

#![warn(clippy::wildcard_enum_match_arm)]

mod codec;
pub mod command;
pub mod error;
pub mod key_value;
pub mod lease;
pub mod machine;
pub mod member;
pub mod outcome;
pub mod range;
pub mod revision;
pub mod snapshot;
mod state;
pub mod state_hash;
pub mod store;

pub use command::{Command, DeleteRange, Limits, Operation, Put};
pub use error::{Code, KvError};
pub use key_value::{KeyValue, Version};
pub use lease::LeaseId;
pub use machine::{KvMachine, KvReader};
pub use member::MemberAttributes;
pub use outcome::{Outcome, Response};
pub use range::{KeyInterval, RangeRequest, RangeResponse, SortOrder, SortTarget};
pub use revision::Revision;
pub use snapshot::SnapshotError;
pub use state_hash::StateHash;
pub use store::{MemoryStore, StateStore, StoreSize};
