//! Read models: balances of all accounts, kept up to date beside the log, in a file; built anew in another version while money moves;
//! and seen as they were.
//!
//! `cargo run -p event-sourcing --example projections`
#![expect(clippy::print_stdout, reason = "an example that prints what happens")]

use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use event_sourcing::clock::{Clock, SystemClock};
use event_sourcing::projection::{
    Handle, Projection, ReadModel, RedbSink, Rows, Sink, Table, Worker, replay,
};
use event_sourcing::time_travel::Moment;
use event_sourcing::{
    Append, EventContent, EventStore, Expected, MemoryStore, Position, StreamName, domain_events,
};
use futures::executor::block_on;
use serde::{Deserialize, Serialize};

#[derive(Serialize, Deserialize)]
struct Deposited {
    cents: u64,
}

#[derive(Serialize, Deserialize)]
struct Withdrawn {
    cents: u64,
}

impl EventContent for Deposited {
    const TYPE: &'static str = "account.deposited";
}

impl EventContent for Withdrawn {
    const TYPE: &'static str = "account.withdrawn";
}

domain_events! {
    /// What happens to an account.
    enum AccountEvent {
        Deposited(Deposited),
        Withdrawn(Withdrawn),
    }
}

/// The balance of each account.
const BALANCES: Table<str, u64> = Table::new("balances");
/// Since version 2: accounts by their balance.
const BY_BALANCE: Table<(u64, String), ()> = Table::new("by_balance");

/// How long anything here may take.
const BOUND: Duration = Duration::from_secs(20);

fn balances(version: &'static str) -> Projection {
    Projection::new("balances", version).on_domain(move |tx, event: &AccountEvent, recorded| {
        let account = recorded.stream.as_str();
        let before = tx.get(&BALANCES, account)?.unwrap_or(0);
        let after = match event {
            AccountEvent::Deposited(Deposited { cents }) => before + cents,
            AccountEvent::Withdrawn(Withdrawn { cents }) => {
                before.checked_sub(*cents).ok_or("an account is overdrawn")?
            }
        };
        tx.put(&BALANCES, account, &after)?;
        if version == "2" {
            tx.remove(&BY_BALANCE, &(before, account.to_owned()));
            tx.put(&BY_BALANCE, &(after, account.to_owned()), &())?;
        }
        Ok(())
    })
}

/// Moves money from one account to another: two events, recorded together.
fn transfer(
    store: &dyn EventStore,
    from: &str,
    to: &str,
    cents: u64,
) -> Result<Position, Box<dyn Error>> {
    use event_sourcing::{Codec, DomainEvent};
    let withdrawn = AccountEvent::Withdrawn(Withdrawn { cents }).encode(Codec::Json)?;
    let deposited = AccountEvent::Deposited(Deposited { cents }).encode(Codec::Json)?;
    let append = Append::to(StreamName::new(from)?, Expected::StreamExists, [withdrawn]).and_to(
        StreamName::new(to)?,
        Expected::StreamExists,
        [deposited],
    );
    Ok(block_on(store.append(append))?.last)
}

fn open(store: &dyn EventStore, name: &str, cents: u64) -> Result<(), Box<dyn Error>> {
    use event_sourcing::{Codec, DomainEvent};
    let deposited = AccountEvent::Deposited(Deposited { cents }).encode(Codec::Json)?;
    block_on(store.append(Append::to(StreamName::new(name)?, Expected::NoStream, [deposited])))?;
    Ok(())
}

/// What all accounts hold together. A read model that showed half of a transfer would show another sum.
fn total(model: &ReadModel) -> Result<u64, Box<dyn Error>> {
    let rows = model.view()?.scan(&BALANCES, 1000)?;
    Ok(rows.into_iter().map(|(_, cents)| cents).sum())
}

/// Starts a projection on a thread of its own.
fn start(
    store: &Arc<MemoryStore>,
    sink: &Arc<dyn Sink>,
    projection: Projection,
) -> Result<Handle, Box<dyn Error>> {
    let log: Arc<dyn EventStore> = store.clone();
    let (worker, handle) = Worker::new(log, Arc::clone(sink), projection, Arc::new(SystemClock))?;
    let thread = std::thread::Builder::new().name("projection".to_owned());
    // The first version's worker ends when the second one takes over, and the second one with the program.
    drop(thread.spawn(|| worker.run_blocking())?);
    Ok(handle)
}

fn main() -> Result<(), Box<dyn Error>> {
    let store = Arc::new(MemoryStore::default());
    let accounts: Vec<_> = (0..10).map(|number| format!("account-{number}")).collect();
    for name in &accounts {
        open(&*store, name, 1000)?;
    }
    let dir = tempfile::tempdir()?;
    let sink: Arc<dyn Sink> = Arc::new(RedbSink::open(dir.path().join("read-models.redb"))?);
    let model = ReadModel::new(Arc::clone(&sink), "balances");

    println!("Version 1 catches up with {} events.", store.head());
    let first = start(&store, &sink, balances("1"))?;
    block_on(first.wait_until(store.head(), BOUND))?;
    assert_eq!(total(&model)?, 10_000);

    let position = transfer(&*store, &accounts[0], &accounts[1], 300)?;
    block_on(first.wait_until(position, BOUND))?;
    let balance = model.view()?.get(&BALANCES, &accounts[1])?;
    println!("After a transfer, {} holds {balance:?}: its writer waits and sees it.", accounts[1]);
    assert_eq!(balance, Some(1300));

    println!("Version 2 is built beside it, while money moves and queries go on:");
    let second = start(&store, &sink, balances("2"))?;
    let (mut looks, mut swapped_at) = (0, None);
    let began = SystemClock.now();
    for round in 0_usize.. {
        let (from, to) = (&accounts[round % 10], &accounts[(round * 7 + 1) % 10]);
        if from != to {
            let holds = model.view()?.get(&BALANCES, from)?.unwrap_or(0);
            // The read model is behind the log, so it is asked for little.
            if holds > 500 {
                transfer(&*store, from, to, 1)?;
            }
        }
        assert_eq!(total(&model)?, 10_000, "half of a transfer was seen");
        looks += 1;
        if swapped_at.is_none() && !model.view()?.scan(&BY_BALANCE, 1)?.is_empty() {
            swapped_at = Some(looks);
        }
        if swapped_at.is_some() && round > 200 || SystemClock.now().0 - began.0 > 20_000 {
            break;
        }
    }
    block_on(second.wait_until(store.head(), BOUND))?;
    println!("  {looks} looks at the sum of all accounts, and it was 10000 each time;");
    println!("  the swap was seen at look {}.", swapped_at.ok_or("the swap was never seen")?);
    let view = model.view()?;
    let by_balance = view.scan(&BY_BALANCE, 1000)?;
    assert_eq!(by_balance.len(), 10);
    assert!(by_balance.is_sorted());
    let ((least, poorest), ()) = &by_balance[0];
    println!("  Version 2 knows who has least: {poorest} with {least}.");

    let then = block_on(replay(&*store, balances("2"), Moment::Position(Position(10))))?;
    let now = block_on(replay(&*store, balances("2"), Moment::Now))?;
    assert_eq!(now.scan(&BALANCES, 1000)?, view.scan(&BALANCES, 1000)?, "a replay is the same");
    println!("Since position 10 these have changed:");
    for row in then.diff(&now, &BALANCES)? {
        println!("  {}: {:?} -> {:?}", row.key, row.before, row.after);
    }
    let status = second.status();
    println!("{:?}, {} events behind, {:?}.", status.state, status.lag.events, status.trend);
    second.stop();
    Ok(())
}
