//! The integration tests, one file a subject.
#![cfg(test)]

mod changes;
mod conformance;
mod domain;
mod journal_damage;
mod journal_log;
mod journal_store;
mod process;
#[cfg(feature = "cli")]
mod program;
mod projection;
mod replicated;
mod subscriptions;
