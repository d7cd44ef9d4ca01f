#![cfg(test)]
//! The integration tests of the cache, in one binary.

#[cfg(feature = "net")]
mod differential;
#[cfg(feature = "net")]
mod net;
