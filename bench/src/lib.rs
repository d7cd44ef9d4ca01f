//! What the measuring programs share: numbers drawn at random, traces of lookups, markdown tables.

pub mod table;
pub mod trace;
