//! For tests: of backends ([`conformance`]) and of domain code.

pub mod conformance;
