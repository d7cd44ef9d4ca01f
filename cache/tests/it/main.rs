#![cfg(test)]
//! The integration tests of the cache, in one binary.

#[cfg(feature = "net")]
mod differential;
mod fuzz;
#[cfg(feature = "net")]
mod net;
mod planted_bugs;
mod simulation;
