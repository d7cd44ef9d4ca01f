//! The integration tests, one file a subject.
#![cfg(test)]

mod changes;
mod conformance;
mod domain;
mod subscriptions;
