//! The backend on disk: the journal with an index over it.

mod blocks;
mod chain;
mod directory;
mod error;
mod event_log;
mod filter;
mod heads;
mod index_file;
mod memtable;
mod options;
mod part;
mod records;
mod tail;
mod view;

pub use chain::{BLOCK as CHAIN_BLOCK, ChainHead};
pub use error::OpenError;
pub use event_log::{EventLog, IndexMemory, IndexTask, LogCounts, LogReader};
pub use options::JournalStoreOptions;
