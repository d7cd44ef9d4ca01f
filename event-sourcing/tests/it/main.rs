//! The integration tests, one file a subject.
#![cfg(test)]

mod ahead;
mod changes;
mod conformance;
mod domain;
mod fuzz;
mod journal_damage;
mod journal_log;
mod journal_races;
mod journal_store;
mod killed;
mod planted_bugs;
mod process;
#[cfg(feature = "cli")]
mod program;
mod projection;
mod replicated;
mod simulation;
mod subscriptions;
