//! For tests: of backends ([`conformance`], [`differential`]) and of domain code.

pub mod conformance;
pub mod differential;
