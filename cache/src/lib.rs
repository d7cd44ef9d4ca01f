//! A distributed cache: a consistent-hash ring, a compact store with exact expiry, the Redis protocol, and a library to embed.
//!
//! Programs that use Redis as a cache keep their clients and send their commands to this; programs in Rust can have the same store
//! in their own process. Today it is one excellent node, and the placement by which several will share the work: how they find
//! each other, replicate and repair is designed and not built ([what is missing](#what-is-missing)).
//!
//! # What is promised
//!
//! - **Nothing is served at or after its deadline**, whether or not its memory has come back, and however late the timers are.
//! - **Expiry is prompt.** A timing wheel finds what is due; nothing is sampled. How late the latest was is told in `INFO`.
//! - **A command, and a transaction, is atomic and isolated**, over any keys, on any number of threads.
//! - **Every change of a key is told to all who asked to hear of it**, by whatever way it came about: watches, clients that keep
//!   copies, waiters, notifications, leases. Before anybody can read the new value, they have been marked or their message queued.
//! - **A scan returns every key that is there from its beginning to its end**, exactly once, however the tables change meanwhile.
//! - **The memory limit is one on the process**: blocks and buffers are counted, not live bytes, and what the kernel says is
//!   looked at. No length that a client declares is believed before its bytes have come.
//! - **The same history gives the same placement** on every node, and a change of members moves little.
//! - Commands, argument rules, errors and replies are Redis 7.2's. Where they are not on purpose, `docs/cache.md` says so.
//!
//! What is *not* promised: that a value is there. A cache may evict, and one that stops has forgotten everything.
//!
//! # How it is built
//!
//! ```text
//!   bytes ──► resp::parse ──► session ──► command ──► Keyspace: locked shards     all of this is pure:
//!                               │            │            │                       time comes in as a value
//!                               │            ▼            ▼
//!   bytes ◄── resp::reply ◄─────┘          reply     shard: index, arena, objects, timing wheel
//!     ▲                                                   │ what has changed
//!     │       clients::Outbox ◄── engine::settle ◄────────┘
//!   net: sockets, TLS, threads, the clock                 watch, tracking, pubsub, blocking, leases
//! ```
//!
//! A key belongs to one of 16,384 *slots* ([`slot`]), and a *shard* ([`store`]) has a range of slots behind a lock. A session
//! ([`session`]) finds a command in the [table](command), checks that it may run, locks the shards of the keys it names, and calls its
//! handler, which works on a [`Keyspace`](store::Keyspace) and writes a [reply](resp). A handler never locks, never waits and reads
//! no clock. Before the shards are released, [`Engine::settle`](engine::Engine::settle) gives what has changed to the registries.
//!
//! Within a shard, one ordered table for each slot leads from a key's hash to a *cell*, which holds header, key, value and deadline in
//! one run of bytes. The order of that table is the order of the hashes, and so also that of scans and of the keys of a slot.
//! Cells lie in blocks of one size each; when memory is scarce, sparse blocks are emptied into others. Small collections are one
//! run of bytes as well ([`value`]). The wheel files cells by the tick of their deadline, and who takes one looks at the cell
//! itself: a wheel that is late, or that knows too much, can delay memory and never truth.
//!
//! Placement is apart from all this: a [`ring`] with virtual nodes, weights and zones, for any keys and nodes, and from it a
//! [slot table](ring::table), balanced by a small pass, versioned and checksummed.
//!
//! Randomness is seeded and the time is a value, so the store, the commands and the sessions run under a virtual clock in tests and in
//! the simulator. Sockets, threads and the machine's clocks are in `net`, and for the embedded library in two small files.
//!
//! # Three ways to use it
//!
//! **Embedded**, in a program of yours ([`cache`]):
//!
//! ```
//! use std::time::Duration;
//! use distributed_cache::cache::Cache;
//!
//! let cache = Cache::builder().memory_limit(64 << 20).build();
//! cache.set_for(b"session:1", b"alice", Duration::from_secs(1800))?;
//! assert_eq!(cache.get(b"session:1").as_deref(), Some(&b"alice"[..]));
//! assert_eq!(cache.get(b"session:2"), None);
//! # Ok::<(), distributed_cache::cache::Error>(())
//! ```
//!
//! **As a server**, with the feature `net`: make an [`Engine`](engine::Engine) and give it to `net::Server`; or run the crate's own
//! program, `cargo run -p distributed-cache`, or the cache in `lattice serve`.
//!
//! **As a protocol core**, without a socket: a [`Session`](session::Session) takes arguments and the time, and writes a reply.
//!
//! ```
//! use std::sync::Arc;
//! use distributed_cache::clients::{Origin, Outbox};
//! use distributed_cache::engine::{Clock, Engine, EngineOptions};
//! use distributed_cache::session::Session;
//! use distributed_cache::store::StoreOptions;
//! use distributed_cache::types::{Now, UnixMillis};
//!
//! /// Time stands still.
//! #[derive(Debug)]
//! struct Noon;
//!
//! impl Clock for Noon {
//!     fn now(&self) -> Now {
//!         Now { unix: UnixMillis(1_800_000_000_000), monotonic_us: 0 }
//!     }
//!     fn wall_us(&self) -> u64 {
//!         1_800_000_000_000_000
//!     }
//! }
//!
//! let store = StoreOptions::default();
//! let engine = Engine::new(EngineOptions { store, cluster: false, seed: 7 }, Arc::new(Noon));
//! let outbox = Outbox::default();
//! let client = engine.clients.connect(Origin::default(), Noon.now(), outbox);
//! let mut session = Session::new(&engine, client, engine.totals.tally());
//! let mut out = Vec::new();
//! session.execute(&engine, &[b"SET", b"greeting", b"hello"], Noon.now(), &mut out);
//! session.execute(&engine, &[b"STRLEN", b"greeting"], Noon.now(), &mut out);
//! assert_eq!(out, b"+OK\r\n:5\r\n");
//! ```
//!
//! # Features
//!
//! | Feature | Brings |
//! | --- | --- |
//! | none | ring, store, commands, sessions, the embedded library: no tokio, no socket |
//! | `net` | the server: sockets, TLS, a thread for each core |
//! | `cli` (default) | the crate's own program |
//! | `sim` | the cache in the simulator, and planted bugs to prove that the checks can fail |
//!
//! # What is missing
//!
//! Several nodes: gossip, replication, coordination, repair, migration. Every change already has a version and knows its slot, and
//! the slot table already says who would hold what. Persistence, and a warm restart. Scripts, but for those of common lock libraries
//! ([`command::script`]); streams; geographic commands; argument trees in `COMMAND DOCS`. Values of other kinds than bytes in
//! the embedded library. Systems without `CLOCK_BOOTTIME` for the server.

pub mod access;
pub mod blocking;
pub mod cache;
pub mod clients;
pub mod command;
pub mod decimal;
pub mod engine;
pub mod glob;
pub mod latency;
pub mod leases;
pub mod monitor;
#[cfg(feature = "net")]
pub mod net;
pub mod pubsub;
pub mod resp;
pub mod ring;
pub mod session;
pub mod settings;
#[cfg(feature = "sim")]
pub mod sim;
pub mod slot;
pub mod slow_log;
pub mod store;
pub mod totals;
pub mod tracking;
pub mod types;
pub mod value;
pub mod watch;
