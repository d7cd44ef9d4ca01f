//! What event sourcing does, shown step by step. Each step checks what it shows.

mod balances;
mod start_line;

use std::io::Write;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use event_sourcing::clock::SystemClock;
use event_sourcing::projection::{Handle, ReadModel, Rows as _, Sink, Worker};
use event_sourcing::snapshot::{SnapshotUse, Snapshots};
use event_sourcing::time_travel::{Moment, diff};
use event_sourcing::{
    Append, Codec, Decider, DomainEvent, DomainStore, EventStore, ExecuteError, Expected, Position,
    Version,
};
use futures::executor::block_on;

use crate::bank::{Account, AccountCommand, AccountEvent, AccountState, MoneyDeposited, euros};
use start_line::StartLine;

/// The account that the story is about.
const ADA: &str = "ada";

/// An account with so many events that loading it takes a while.
const SHOP: &str = "corner-shop";

/// How many deposits the shop takes at once.
const TAKINGS: u64 = 2_000;

/// How many rows of the read model are shown at most.
const ROWS_MAX: usize = 100;

/// How long a read model may take to see an event.
const CATCH_UP_MAX: Duration = Duration::from_secs(60);

/// Shows everything on `store`, with the read model in `sink`, and tells `out` of it.
///
/// # Errors
///
/// If something does not do what it promises, or `out` takes nothing more.
pub(crate) fn run<S: EventStore>(
    store: &Arc<S>,
    sink: &Arc<dyn Sink>,
    out: &mut impl Write,
) -> anyhow::Result<()> {
    show_commands(&**store, out)?;
    show_repetition(&**store, out)?;
    show_conflict(store, out)?;
    show_snapshot(&**store, out)?;
    show_read_model(store, sink, out)?;
    show_time_travel(&**store, out)
}

fn show_commands(store: &dyn EventStore, out: &mut impl Write) -> anyhow::Result<()> {
    writeln!(
        out,
        "1. Commands are decided, events are recorded. The balance is what the events add up to.\n"
    )?;
    ask(store, "open an account for Ada", open("Ada"), out)?;
    ask(store, "deposit €100.00", deposit(10_000), out)?;
    ask(store, "withdraw €30.00", withdraw(3_000), out)?;
    let before = balance(store, ADA)?;
    ask(store, &format!("withdraw {}", euros(before + 1)), withdraw(before + 1), out)?;
    ensure!(balance(store, ADA)? == before, "a refused command has changed something");
    writeln!(out, "   A refused command leaves no event.\n")?;
    Ok(())
}

/// Asks for something on Ada's account, and shows what comes of it.
fn ask(
    store: &dyn EventStore,
    what: &str,
    command: AccountCommand,
    out: &mut impl Write,
) -> anyhow::Result<()> {
    match store.execute::<Account>(command).on(ADA).user("demonstration").wait() {
        Ok(done) => {
            for placed in &done.events {
                let (event, version) = (shown(&placed.event), placed.version);
                let place = format!("{}@{version}", placed.stream);
                writeln!(out, "   {what:<26} {event:<26} {place}, position {}", placed.position)?;
            }
        }
        Err(ExecuteError::Rejected(refusal)) => writeln!(out, "   {what:<26} refused: {refusal}")?,
        Err(error) => return Err(error.into()),
    }
    Ok(())
}

fn show_repetition(store: &dyn EventStore, out: &mut impl Write) -> anyhow::Result<()> {
    writeln!(
        out,
        "2. An answer is lost, and the command is repeated. Its key says that it is one.\n"
    )?;
    let mut places = Vec::new();
    for _ in 0..2 {
        let gift = store.execute::<Account>(deposit(1_000)).on(ADA).idempotency("welcome gift");
        let done = gift.wait()?;
        let is_new = if done.repeated { "recorded before, at" } else { "recorded now, at" };
        let position = done.position;
        writeln!(out, "   deposit €10.00, key \"welcome gift\"   {is_new} position {position}")?;
        places.push(done.position);
    }
    ensure!(places[0] == places[1], "the gift was given twice");
    writeln!(out, "   The log itself knows the key: in the next run, and in ten years.\n")?;
    Ok(())
}

fn show_conflict<S: EventStore>(store: &Arc<S>, out: &mut impl Write) -> anyhow::Result<()> {
    writeln!(out, "3. Two withdraw at the same time, both having seen the same balance.\n")?;
    let before = balance(&**store, ADA)?;
    let line = StartLine::new(Arc::clone(store));
    let both = std::thread::scope(|scope| {
        let withdraw = |cents: u64| {
            let line = &line;
            move || line.execute::<Account>(withdraw(cents)).on(ADA).retry(3).wait()
        };
        let (one, other) = (scope.spawn(withdraw(500)), scope.spawn(withdraw(700)));
        [(500, one.join()), (700, other.join())]
    });
    let mut decisions = 0;
    for (cents, done) in both {
        let done = done.ok().context("a thread has panicked")??;
        let (amount, after) = (euros(cents), euros(done.state.balance));
        let how = match done.attempts {
            1 => format!("was first: version {}", done.events[0].version),
            _ => format!("was refused, saw what had won, and decided again: {after} left"),
        };
        writeln!(out, "   withdraw {amount:<8} {how}")?;
        decisions += done.attempts;
    }
    ensure!(decisions == 3, "one of two has to be first");
    ensure!(balance(&**store, ADA)? == before - 1_200, "a withdrawal was lost");
    writeln!(out, "   Nothing is locked: an append says which version it was decided on.\n")?;
    Ok(())
}

fn show_snapshot(store: &dyn EventStore, out: &mut impl Write) -> anyhow::Result<()> {
    writeln!(
        out,
        "4. An account with a long history, from all of its events and from a snapshot.\n"
    )?;
    if let Err(error) = store.execute::<Account>(open("Corner Shop")).on(SHOP).wait() {
        ensure!(matches!(error, ExecuteError::Rejected(_)), error);
    }
    let takings = (0..TAKINGS).map(|number| {
        let event: AccountEvent = MoneyDeposited { cents: 100 + number % 900 }.into();
        event.encode(Codec::Json)
    });
    let takings = takings.collect::<Result<Vec<_>, _>>()?;
    let shop = Account::boundary(&SHOP.to_owned())?.home().clone();
    block_on(store.append(Append::to(shop, Expected::StreamExists, takings)))?;
    writeln!(out, "   {TAKINGS} deposits more, in one append")?;

    let every = Snapshots::every(TAKINGS / 2);
    let done = store.execute::<Account>(deposit(1)).on(SHOP).snapshots(&every).wait()?;
    done.written_snapshot.context("a snapshot was due")??;
    store.execute::<Account>(deposit(1)).on(SHOP).wait()?;
    let (replayed, replay_time) = timed(|| block_on(store.load::<Account>(SHOP)))?;
    let (loaded, load_time) = timed(|| block_on(store.load_with::<Account>(SHOP, &every)))?;
    let events = replayed.events;
    let from_events = format!("from {events} events");
    writeln!(out, "   {from_events:<32} {:>9}", milliseconds(replay_time))?;
    let Some(SnapshotUse::Used { events: skipped }) = loaded.snapshot else {
        anyhow::bail!("the snapshot was not used: {:?}", loaded.snapshot)
    };
    let tail = events - skipped;
    let from_snapshot = format!("from the snapshot and {tail} event");
    writeln!(out, "   {from_snapshot:<32} {:>9}", milliseconds(load_time))?;
    ensure!(loaded.state == replayed.state, "the snapshot says something else than the events");
    let sum = euros(loaded.state.balance);
    writeln!(out, "   Both say {sum}. Were the program changed, the snapshot would be ignored.\n")?;
    Ok(())
}

fn show_read_model<S: EventStore>(
    store: &Arc<S>,
    sink: &Arc<dyn Sink>,
    out: &mut impl Write,
) -> anyhow::Result<()> {
    writeln!(out, "5. A read model: what the events say of all accounts, kept up to date.\n")?;
    let log: Arc<dyn EventStore> = store.clone();
    let clock = Arc::new(SystemClock);
    let (worker, handle) = Worker::new(log, Arc::clone(sink), balances::projection(), clock)?;
    std::thread::scope(|scope| {
        let running = scope.spawn(|| worker.run_blocking());
        let told = follow(&**store, sink, &handle, out);
        handle.stop();
        running.join().ok().context("the read model's thread has panicked")??;
        told
    })
}

/// Shows the read model while its worker runs.
fn follow(
    store: &dyn EventStore,
    sink: &Arc<dyn Sink>,
    handle: &Handle,
    out: &mut impl Write,
) -> anyhow::Result<()> {
    let (begun_at, head) = (handle.status().position, store.head());
    let ((), time) = timed(|| block_on(handle.wait_until(head, CATCH_UP_MAX)))?;
    let behind = head.0 - begun_at.0;
    writeln!(out, "   it was {behind} events behind, and has caught up in {}", milliseconds(time))?;

    let done = store.execute::<Account>(deposit(2_500)).on(ADA).wait()?;
    block_on(handle.wait_until(done.position, CATCH_UP_MAX))?;
    let view = ReadModel::new(Arc::clone(sink), balances::NAME).view()?;
    writeln!(out, "   deposit €25.00, and wait until position {} is in it:", done.position)?;
    for (account, cents) in view.scan(&balances::BALANCES, ROWS_MAX)? {
        let id = account.strip_prefix("account-").unwrap_or(&account);
        writeln!(out, "     {account:<24} {:>12}", euros(cents))?;
        ensure!(cents == balance(store, id)?, "the read model says something else than the events");
    }
    writeln!(
        out,
        "   It says what the events say. Its place in the log is written with its rows.\n"
    )?;
    Ok(())
}

fn show_time_travel(store: &dyn EventStore, out: &mut impl Write) -> anyhow::Result<()> {
    writeln!(out, "6. Nothing is overwritten, so every earlier state is still there.\n")?;
    let at = |moment| -> anyhow::Result<(AccountState, Position)> {
        let loaded = block_on(store.state_at::<Account>(ADA, moment))?;
        Ok((loaded.state, loaded.seen))
    };
    let mut tell =
        |when: &str, state: &AccountState| writeln!(out, "   {when:<28} {}", euros(state.balance));
    for version in 0..3 {
        let (state, position) = at(Moment::Version(Version(version)))?;
        tell(&format!("at version {version}, position {position}"), &state)?;
    }
    let (now, _) = at(Moment::Now)?;
    tell("now", &now)?;
    let (then, _) = at(Moment::Version(Version(1)))?;
    ensure!(then.balance == 10_000, "the past has changed");
    for difference in diff(&then, &now)? {
        writeln!(out, "   what has changed since 1:    {difference} cents")?;
    }
    writeln!(out)?;
    Ok(())
}

fn open(owner: &str) -> AccountCommand {
    AccountCommand::Open { owner: owner.to_owned() }
}

fn deposit(cents: u64) -> AccountCommand {
    AccountCommand::Deposit { cents }
}

fn withdraw(cents: u64) -> AccountCommand {
    AccountCommand::Withdraw { cents }
}

fn balance(store: &dyn EventStore, id: &str) -> anyhow::Result<u64> {
    Ok(block_on(store.load::<Account>(id))?.state.balance)
}

/// An event as people write it.
fn shown(event: &AccountEvent) -> String {
    match event {
        AccountEvent::Opened(opened) => format!("opened for {}", opened.owner),
        AccountEvent::Deposited(deposited) => format!("deposited {}", euros(deposited.cents)),
        AccountEvent::Withdrawn(withdrawn) => format!("withdrawn {}", euros(withdrawn.cents)),
    }
}

#[expect(clippy::disallowed_methods, reason = "it shows how long something takes")]
fn timed<T, E>(action: impl FnOnce() -> Result<T, E>) -> Result<(T, Duration), E> {
    let begun = Instant::now();
    Ok((action()?, begun.elapsed()))
}

fn milliseconds(time: Duration) -> String {
    format!("{:.2} ms", time.as_secs_f64() * 1_000.0)
}

#[cfg(test)]
mod tests {
    use event_sourcing::MemoryStore;
    use event_sourcing::projection::MemorySink;

    use super::*;

    fn told(store: &Arc<MemoryStore>, sink: &Arc<dyn Sink>) -> String {
        let mut out = Vec::new();
        run(store, sink, &mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn the_demonstration_shows_what_it_promises_and_goes_on_in_a_second_run() {
        let store = Arc::new(MemoryStore::default());
        let sink: Arc<dyn Sink> = Arc::new(MemorySink::new());
        let first = told(&store, &sink);
        for line in [
            "opened for Ada             account-ada@0, position 1",
            "withdraw €70.01            refused: the balance is €70.00",
            "recorded now, at position 4",
            "recorded before, at position 4",
            "was refused, saw what had won, and decided again: €68.00 left",
            "at version 1, position 2     €100.00",
            "account-ada                    €93.00",
            "/balance: 10000 → 9300 cents",
        ] {
            assert!(first.contains(line), "{line} is not in\n{first}");
        }
        let second = told(&store, &sink);
        for line in [
            "open an account for Ada    refused: the account is open already",
            "recorded before, at position 4",
            "at version 1, position 2     €100.00",
        ] {
            assert!(second.contains(line), "{line} is not in\n{second}");
        }
        assert!(!second.contains("recorded now"), "{second}");
    }
}
