//! The domain library: deciders, commands, snapshots, time travel, and many users at once.

#[path = "../../src/bin/event-sourcing/bank.rs"]
mod bank;
mod commands;
mod courses;
mod observed;
mod races;
mod retries;
mod snapshots;
mod stories;
mod time_travel;

use std::sync::Arc;

use event_sourcing::MemoryStore;
use event_sourcing::clock::ManualClock;
use event_sourcing::event::Timestamp;
use event_sourcing::execute::Execute;
use event_sourcing::machine::Limits;
use event_sourcing::store::journal::{JournalStore, JournalStoreOptions};
use event_sourcing::{DomainStore, EventStore};
use futures::FutureExt;
use tempfile::TempDir;

use bank::{Account, AccountCommand};

const OPEN: fn() -> AccountCommand = || AccountCommand::Open { owner: "ada".to_owned() };

fn deposit(cents: u64) -> AccountCommand {
    AccountCommand::Deposit { cents }
}

fn withdraw(cents: u64) -> AccountCommand {
    AccountCommand::Withdraw { cents }
}

/// The answer: a store in memory has it at once.
fn block_on<F: IntoFuture>(asked: F) -> F::Output {
    asked.into_future().now_or_never().expect("a store in memory answers at once")
}

/// A store whose clock is set by hand.
fn store_with_clock() -> (Arc<MemoryStore>, Arc<ManualClock>) {
    let clock = Arc::new(ManualClock::at(Timestamp(1_000)));
    (Arc::new(MemoryStore::new(clock.clone(), Limits::default())), clock)
}

/// A command for the account `a1`.
fn ask<S: EventStore + ?Sized>(store: &S, command: AccountCommand) -> Execute<'_, S, Account> {
    store.execute::<Account>(command).on("a1")
}

/// An account `a1` with these deposits.
fn account_with<S: EventStore + ?Sized>(store: &S, deposits: &[u64]) {
    ask(store, OPEN()).wait().unwrap();
    for &cents in deposits {
        ask(store, deposit(cents)).wait().unwrap();
    }
}

/// A store on the disk of this machine, and its directory, in segments of so few events that most of them are complete.
fn on_disk() -> (TempDir, Arc<JournalStore>) {
    let directory = tempfile::tempdir().unwrap();
    let store = Arc::new(JournalStore::open(&on_disk_options(&directory)).unwrap());
    (directory, store)
}

fn on_disk_options(directory: &TempDir) -> JournalStoreOptions {
    let mut options = JournalStoreOptions::new(directory.path());
    options.segment_size = 4096;
    options.tail_bytes_max = 4096;
    options
}
