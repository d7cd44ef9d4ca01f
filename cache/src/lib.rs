//! A distributed cache: consistent-hash ring, compact store with exact expiry, Redis protocol, embedded library.

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
#[cfg(feature = "net")]
pub mod net;
pub mod pubsub;
pub mod resp;
pub mod ring;
pub mod session;
pub mod settings;
pub mod slot;
pub mod slow_log;
pub mod store;
pub mod totals;
pub mod tracking;
pub mod types;
pub mod value;
pub mod watch;
