//! What the measuring programs share: servers, numbers drawn at random, traces of lookups, markdown tables.

pub mod load;
pub mod server;
pub mod table;
pub mod trace;
