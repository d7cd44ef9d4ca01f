//! The integration tests, one file a subject.
#![cfg(test)]

mod conformance;
mod domain;
mod subscriptions;
