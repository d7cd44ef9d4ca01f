//! An account: commands that are accepted and refused, a repeated one, a snapshot, and a look into the past.
//!
//! `cargo run -p event-sourcing --example bank_account`
#![expect(clippy::print_stdout, reason = "an example that prints what happens")]

#[path = "../src/bin/event-sourcing/bank.rs"]
mod bank;

use std::error::Error;

use bank::{Account, AccountCommand, MoneyDeposited, MoneyWithdrawn, Refusal, euros};
use event_sourcing::snapshot::Snapshots;
use event_sourcing::testing::given;
use event_sourcing::time_travel::Moment;
use event_sourcing::{DomainStore, ExecuteError, MemoryStore, Version};
use futures::executor::block_on;

fn main() -> Result<(), Box<dyn Error>> {
    // The rules, without a store.
    let opened = bank::AccountOpened { owner: "Ada".to_owned() };
    given::<Account>([opened.clone().into(), MoneyDeposited { cents: 100 }.into()])
        .when(AccountCommand::Withdraw { cents: 60 })
        .then_events([MoneyWithdrawn { cents: 60 }.into()]);
    given::<Account>([opened.into(), MoneyDeposited { cents: 100 }.into()])
        .when(AccountCommand::Withdraw { cents: 101 })
        .then_rejected(Refusal::Overdraft { balance: 100 });

    // The same with a store. Any will do; this one forgets everything when the program ends.
    let store = MemoryStore::default();
    let snapshots = Snapshots::every(2);
    let ask = |command| store.execute::<Account>(command).on("ada").snapshots(&snapshots);
    ask(AccountCommand::Open { owner: "Ada".to_owned() }).wait()?;
    ask(AccountCommand::Deposit { cents: 10_000 }).wait()?;
    let done = ask(AccountCommand::Withdraw { cents: 3_000 }).user("ada").wait()?;
    println!("{} are left, at version {}", euros(done.state.balance), done.events[0].version);
    assert_eq!(done.events[0].version, Version(2));

    let refused = ask(AccountCommand::Withdraw { cents: 7_001 }).wait();
    let Err(ExecuteError::Rejected(Refusal::Overdraft { balance: 7_000 })) = refused else {
        panic!("an overdraft was not refused: {refused:?}");
    };
    println!("7001 cents more: refused");

    // Asked twice under one key, it happens once.
    let first = ask(AccountCommand::Deposit { cents: 500 }).idempotency("gift-1").wait()?;
    let again = ask(AccountCommand::Deposit { cents: 500 }).idempotency("gift-1").wait()?;
    assert_eq!((first.position, again.repeated), (again.position, true));
    println!("a gift, twice under one key: {}", euros(again.state.balance));

    let loaded = block_on(store.load_with::<Account>("ada", &snapshots))?;
    println!("loaded by way of a snapshot: {:?}", loaded.snapshot);
    assert_eq!(loaded.state.balance, 7_500);

    let then = block_on(store.state_at::<Account>("ada", Moment::Version(Version(1))))?;
    println!("at version 1 it was {}", euros(then.state.balance));
    assert_eq!(then.state.balance, 10_000);
    Ok(())
}
