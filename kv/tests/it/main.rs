//! The store as its users see it: against a naive model, across snapshots, and under concurrent
//! reads.
#![cfg(test)]

mod cluster;
mod model;
mod replica;
mod snapshot;
