//! Event sourcing: a store of events whose guarantees are checked rather than claimed, and a domain library on it.
//!
//! An event says what has happened, and is never changed. What is the case now follows from the events; so the log is the one truth,
//! and states, read models and snapshots are views of it that can be made again. That is worth having only if the log can be relied
//! upon, and so this crate begins with what is promised.
//!
//! # What is promised
//!
//! - **What was acknowledged is durable, and stays where it is.** Positions are dense from 1, versions in a stream dense from 0, and
//!   neither ever changes. Damage is reported, and never cut away.
//! - **An append is atomic**, over any number of streams, and carried out if all that it demands of the log holds: expected versions
//!   and queries (Dynamic Consistency Boundaries, dcb.events), evaluated by one evaluator. Of any number of writers who have seen the same
//!   exactly one succeeds; whoever is refused is told which events won; and nobody is refused for an event that does not match.
//! - **An append takes effect once**, however often it is repeated, after a restart too: an event's id is known in its stream for ever.
//! - **A read shows only what is durable, in the one order of the log**, and no gap that closes later. A subscriber misses nothing and
//!   sees nothing twice; catching up and following are the same code, so there is no switch to get wrong.
//! - **What is hidden is hidden at once**, in every read and condition, by decisions that are events themselves. Taking the space
//!   back changes nothing that can be seen.
//! - **A read model has handled every event once**: its checkpoint is written in the same commit as its rows. Commands that a process
//!   issues take effect once, by their keys.
//! - **A snapshot changes how long loading takes, and nothing else.**
//!
//! What is *not* promised: more than one machine. A store is one directory of one process. Its decisions are a pure state
//! machine ([`machine`]), so that a group of machines can make them; that group is not here yet.
//!
//! # How it is built
//!
//! ```text
//!            execute: load, decide, append ◄─── Decider: pure         Projection, Process: handlers
//!               │            ▲                                             │ rows, checkpoint
//!        append │            │ read, subscribe                       Runner ──► Sink: memory, redb
//!               ▼            │                                         ▲
//!  ┌────────────────────── trait EventStore ───────────────────────────┘────────────────────────┐
//!  │   checks, repetitions, retention, places:  machine::EventMachine         this is pure      │
//!  │        asks an Index ──► machine::MemoryIndex          pages: page::read                   │
//!  ├──────────────────────────────────────────┬─────────────────────────────────────────────────┤
//!  │   store::memory                          │  store::journal: writer, readers, upkeep        │
//!  └──────────────────────────────────────────┴────────── journal + index files ────────────────┘
//! ```
//!
//! A [store](EventStore) is six methods. Everything it keeps is an [`event`]: what was decided about a stream
//! ([`retention`]) is an event, a [`snapshot`] is one, a [timer](process) is one. So there is one thing to make durable, to order
//! and to replicate.
//!
//! [`machine::EventMachine`] decides about one append at a time. It asks an index for *postings*, the positions of the events with a
//! term (a stream, a type, a label); all of an item's labels are intersected by galloping over the rarest, and every candidate is looked
//! at itself before it counts, so an index may hash. [`store::memory`] has that index in maps. [`store::journal`] has one for each
//! segment of its log: in memory while the segment grows, then in a file that nothing depends on. Its writer takes all
//! appends that wait, decides them one by one, writes them with one sync, and then answers them all.
//!
//! [`page::read`] is the one way in which events are read. A [`subscription`] reads pages until there are none and waits until the log is
//! longer.
//!
//! On that stands the domain library. A [`Decider`] is two pure functions, `decide` and `evolve`, and a boundary: a stream, or
//! a query. [`execute`] loads its state, decides, appends with the check that nothing was added to the boundary, and decides again
//! if something was. [`schema`], [`codec`] and [`upcast`] turn content into bytes, and the bytes of every earlier version into today's
//! content. [`projection`] and [`process`] follow the log, [`cqrs`] asks read models, [`time_travel`] looks back in it, [`testing`] has *given, when, then*, and the
//! suite that every backend passes.
//!
//! # Where to find what
//!
//! | Module | Question |
//! |---|---|
//! | [`event`], [`append`], [`condition`] | What is an event, what is asked with an append, what can it demand? |
//! | [`read`], [`filter`], [`subscription`] | What can be read, and followed? |
//! | [`store`], [`store::memory`], `store::journal` | What does a backend promise, and which are there? |
//! | [`machine`], [`page`], [`record`] | How is it decided and read, and what are its bytes? |
//! | [`retention`] | What goes, when, and who says so? |
//! | [`decider`], [`execute`], [`load`], [`snapshot`], [`time_travel`] | How does domain code run? |
//! | [`schema`], [`codec`], [`upcast`] | How do events outlive the program that wrote them? |
//! | [`projection`], [`cqrs`], [`process`] | How are queries answered, and how does one thing lead to another? |
//! | [`clock`], [`sleep`] | Where does time come from? |
//! | [`error`] | What can go wrong, and what then? |
//! | [`testing`] | How are rules tested, and backends? |
//!
//! # Two ways to use it
//!
//! **As a store.** Here two writers have both seen an account with one event, and the second one is told who was faster:
//!
//! ```
//! use event_sourcing::{
//!     Append, AppendError, EventStore, EventStoreExt, EventType, Expected, MemoryStore, NewEvent, StreamName, Version,
//! };
//! use futures::executor::block_on;
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let store = MemoryStore::default();
//! let account = StreamName::new("account-1")?;
//! let event = |name| Ok::<_, Box<dyn std::error::Error>>(NewEvent::json(EventType::new(name)?, "{}"));
//! block_on(store.append(Append::to(account.clone(), Expected::NoStream, [event("account.opened")?])))?;
//!
//! let seen = Expected::Exact(Version(0));
//! let first = block_on(store.append(Append::to(account.clone(), seen, [event("account.deposited")?])))?;
//! let second = block_on(store.append(Append::to(account.clone(), seen, [event("account.closed")?])));
//! let Err(AppendError::Conflict(conflict)) = second else { panic!("one of them must lose") };
//! assert_eq!(conflict.winners[0].position, first.first);
//!
//! assert_eq!(block_on(store.read_stream(account))?.len(), 2);
//! # Ok(())
//! # }
//! ```
//!
//! **As a domain library.** Rules are pure functions, and the store is where they run:
//!
//! ```
//! use event_sourcing::error::InvalidName;
//! use event_sourcing::{Boundary, Decider, DomainStore, EventContent, MemoryStore, domain_events};
//! use serde::{Deserialize, Serialize};
//!
//! #[derive(Serialize, Deserialize)]
//! struct Deposited { cents: u64 }
//! impl EventContent for Deposited { const TYPE: &'static str = "account.deposited"; }
//!
//! #[derive(Serialize, Deserialize)]
//! struct Withdrawn { cents: u64 }
//! impl EventContent for Withdrawn { const TYPE: &'static str = "account.withdrawn"; }
//!
//! domain_events! { enum AccountEvent { Deposited(Deposited), Withdrawn(Withdrawn) } }
//!
//! enum Command { Deposit(u64), Withdraw(u64) }
//! #[derive(Debug, PartialEq)]
//! struct Overdrawn;
//!
//! struct Account;
//! impl Decider for Account {
//!     const NAME: &'static str = "account";
//!     type Id = String;
//!     type State = u64;
//!     type Command = Command;
//!     type Event = AccountEvent;
//!     type Rejection = Overdrawn;
//!
//!     fn boundary(id: &String) -> Result<Boundary, InvalidName> { Boundary::stream("account", id) }
//!     fn initial(_: &String) -> u64 { 0 }
//!     fn evolve(balance: &mut u64, event: &AccountEvent) {
//!         match event {
//!             AccountEvent::Deposited(deposited) => *balance += deposited.cents,
//!             AccountEvent::Withdrawn(withdrawn) => *balance -= withdrawn.cents,
//!         }
//!     }
//!     fn decide(balance: &u64, command: &Command) -> Result<Vec<AccountEvent>, Overdrawn> {
//!         match *command {
//!             Command::Deposit(cents) => Ok(vec![Deposited { cents }.into()]),
//!             Command::Withdraw(cents) if cents > *balance => Err(Overdrawn),
//!             Command::Withdraw(cents) => Ok(vec![Withdrawn { cents }.into()]),
//!         }
//!     }
//! }
//!
//! let store = MemoryStore::default();
//! // Every command can be awaited, on any runtime; `wait` needs none.
//! store.execute::<Account>(Command::Deposit(100)).on("1").idempotency("request-1").wait().unwrap();
//! let done = store.execute::<Account>(Command::Withdraw(30)).on("1").wait().unwrap();
//! assert_eq!(done.state, 70);
//! assert!(store.execute::<Account>(Command::Withdraw(71)).on("1").wait().is_err());
//! ```
//!
//! On a disk it is `JournalStore::open(&JournalStoreOptions::new(directory))`, with the feature `journal`, and nothing else
//! changes.
//!
//! # Features
//!
//! `journal` is the store on disk, `redb` the sink in a file, `bincode-codec` a third format for events, `cli` the crate's program, `sim`
//! the store in the simulator. Without any there is no file and no socket in it, and threads only where a projection has
//! partitions or somebody [sleeps](sleep). A runtime is never needed.
//!
//! # Caveats
//!
//! - One process has a directory. Others are refused, whatever they want of it.
//! - Appends are carried out one at a time. Many at once share a sync; a single writer that waits for each gets one event a sync.
//! - A condition is as dear as what it has to look at: a query over all types and no labels looks at every event behind its position.
//! - The store does not look into events. Personal data in an event stays there until its stream is truncated and scavenged;
//!   keys that can be thrown away (crypto-shredding) are designed and not built.
//! - Time is the store's clock, made monotonic. It orders nothing: positions do.
//! - There is no list of streams: whoever wants one reads the log, or keeps a projection.

#[macro_use]
mod planted;

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
#[cfg(feature = "sim")]
pub mod sim;
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
