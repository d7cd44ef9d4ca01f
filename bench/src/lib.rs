//! What the measuring programs share: servers, numbers drawn at random, traces of lookups, markdown tables.

pub mod appends;
pub mod load;
pub mod peers;
pub mod server;
pub mod table;
pub mod trace;
