//! Process managers: commands that take effect once, and timers that fire once.
//!
//! The subject moves money between accounts: a transfer is requested, the one account debited (or the debit refused), the
//! other credited. A worker runs on an executor of the test's own until nobody has anything more to do.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use event_sourcing::clock::{Clock, ManualClock};
use event_sourcing::machine::Limits;
use event_sourcing::process::{Issued, Process, TIMER_CANCELLED, TIMER_FIRED, TIMER_SET};
use event_sourcing::projection::{
    Changes, HandlerError, MemorySink, OnFailure, ProjectionError, ReadModel, Rows, Sink,
    SinkError, Snapshot, Table,
};
use event_sourcing::{
    Append, AppendError, EventStore, EventType, Expected, MemoryStore, NewEvent, Pending, Position,
    Read, Recorded, Source, StreamName, Timestamp,
};
use futures::FutureExt;
use futures::executor::{LocalPool, block_on};
use futures::task::LocalSpawnExt;
use serde::{Deserialize, Serialize};

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Transfer {
    id: String,
    from: String,
    to: String,
    amount: u64,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
enum Command {
    Debit(Transfer),
    Credit(Transfer),
}

/// Transfers that are under way.
const UNDER_WAY: Table<str, Transfer> = Table::new("under_way");

fn transfers() -> Process<Command> {
    Process::new("transfers")
        .on("transfer.requested", |reaction, event| {
            let transfer: Transfer = serde_json::from_slice(&event.event.data)?;
            reaction.rows().put(&UNDER_WAY, &transfer.id, &transfer)?;
            reaction.issue(&Command::Debit(transfer))
        })
        .on("account.debited", |reaction, event| {
            let id: Transfer = serde_json::from_slice(&event.event.data)?;
            let transfer = reaction.rows().get(&UNDER_WAY, &id.id)?.ok_or("there is none")?;
            reaction.issue(&Command::Credit(transfer))
        })
        .on("account.credited", end)
        .on("account.refused", end)
}

fn end(
    reaction: &mut event_sourcing::process::Reaction<'_, '_, Command>,
    event: &Recorded,
) -> Result<(), HandlerError> {
    let transfer: Transfer = serde_json::from_slice(&event.event.data)?;
    reaction.rows().remove(&UNDER_WAY, &transfer.id);
    Ok(())
}

fn all(store: &dyn EventStore) -> Vec<Arc<Recorded>> {
    let page = store.read(Read::forward(Source::All).count(usize::MAX >> 1)).now_or_never();
    let page = page.expect("memory answers at once").unwrap();
    assert!(page.next.is_none(), "one page holds the whole log of a test");
    page.events
}

fn balances(store: &dyn EventStore) -> BTreeMap<String, i128> {
    let mut balances = BTreeMap::new();
    for event in all(store) {
        let (kind, data) = (event.event.event_type.as_str(), &event.event.data);
        let Ok(transfer) = serde_json::from_slice::<Transfer>(data) else { continue };
        let balance = balances.entry(event.stream.as_str().to_owned()).or_insert(0);
        match kind {
            "account.credited" | "account.opened" => *balance += i128::from(transfer.amount),
            "account.debited" => *balance -= i128::from(transfer.amount),
            _ => {}
        }
    }
    balances
}

fn json(kind: &str, transfer: &Transfer) -> NewEvent {
    NewEvent::json(EventType::new(kind).unwrap(), serde_json::to_vec(transfer).unwrap())
}

/// Carries a command out, as a program would: it decides, and appends under the command's key.
async fn carry_out(
    store: Arc<dyn EventStore>,
    command: Command,
    issued: Issued,
) -> Result<(), HandlerError> {
    let (account, event) = match &command {
        Command::Debit(transfer) => {
            let balance = balances(&*store).get(&transfer.from).copied().unwrap_or(0);
            let enough = balance >= i128::from(transfer.amount);
            let kind = if enough { "account.debited" } else { "account.refused" };
            (&transfer.from, json(kind, transfer))
        }
        Command::Credit(transfer) => (&transfer.to, json("account.credited", transfer)),
    };
    let append = Append::to(StreamName::new(account)?, Expected::Any, [event]).key(issued.key);
    match store.append(append).await {
        // It was decided before, on another balance.
        Ok(_) | Err(AppendError::KeyReused { .. }) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

struct Bank {
    store: Arc<MemoryStore>,
    clock: Arc<ManualClock>,
}

impl Bank {
    fn new() -> Self {
        let clock = Arc::new(ManualClock::at(Timestamp(1000)));
        let time: Arc<dyn Clock> = clock.clone();
        Self { store: Arc::new(MemoryStore::new(time, Limits::default())), clock }
    }

    fn record(&self, stream: &str, kind: &str, transfer: &Transfer) {
        let stream = StreamName::new(stream).unwrap();
        let append = Append::to(stream, Expected::Any, [json(kind, transfer)]);
        block_on(self.store.append(append)).unwrap();
    }

    /// Three accounts with 100 each, and ten transfers among them.
    fn with_transfers() -> Self {
        let bank = Self::new();
        let transfer = |id: usize, from: &str, to: &str, amount| Transfer {
            id: id.to_string(),
            from: from.to_owned(),
            to: to.to_owned(),
            amount,
        };
        for name in ["a", "b", "c"] {
            bank.record(name, "account.opened", &transfer(0, "", name, 100));
        }
        for (id, (from, to, amount)) in [
            ("a", "b", 60),
            ("b", "c", 160),
            ("c", "a", 200),
            ("a", "c", 1000),
            ("a", "b", 240),
            ("b", "b", 5),
            ("b", "a", 1),
            ("c", "a", 61),
        ]
        .into_iter()
        .enumerate()
        {
            let transfer = transfer(id + 1, from, to, amount);
            bank.record(&format!("transfer-{id}"), "transfer.requested", &transfer);
        }
        bank
    }

    /// Runs a worker until it has nothing to do, or ends.
    fn run(
        &self,
        process: Process<Command>,
        sink: &Arc<dyn Sink>,
        dispatch: impl Fn(Command, Issued) -> Pending<Result<(), HandlerError>> + Send + Sync + 'static,
    ) -> Result<(), ProjectionError> {
        let store: Arc<dyn EventStore> = self.store.clone();
        let (worker, handle) =
            process.worker(store, Arc::clone(sink), dispatch, self.clock.clone())?;
        let mut pool = LocalPool::new();
        let ended = pool.spawner().spawn_local_with_handle(worker.run()).unwrap();
        pool.run_until_stalled();
        handle.stop();
        pool.run_until(ended)
    }

    fn dispatch(&self) -> impl Fn(Command, Issued) -> Pending<Result<(), HandlerError>> + use<> {
        let store: Arc<dyn EventStore> = self.store.clone();
        move |command, issued| carry_out(Arc::clone(&store), command, issued).boxed()
    }

    fn assert_done(&self, sink: &Arc<dyn Sink>, what: &str) {
        let balances = balances(&*self.store);
        let kinds = all(&*self.store);
        let count = |kind: &str| {
            kinds.iter().filter(|event| event.event.event_type.as_str() == kind).count()
        };
        assert_eq!(balances.values().sum::<i128>(), 300, "{what}: {balances:?}");
        assert_eq!(count("account.debited") + count("account.refused"), 8, "{what}");
        assert_eq!(count("account.credited"), count("account.debited"), "{what}");
        assert!(balances.values().all(|balance| *balance >= 0), "{what}: {balances:?}");
        let view = ReadModel::new(Arc::clone(sink), "transfers").view().unwrap();
        assert_eq!(view.scan(&UNDER_WAY, 10).unwrap(), [], "{what}");
    }
}

#[test]
fn money_is_conserved_when_every_command_is_delivered_twice() {
    let bank = Bank::with_transfers();
    let sink: Arc<dyn Sink> = Arc::new(MemorySink::new());
    let (once, keys) = (bank.dispatch(), Arc::new(Mutex::new(Vec::new())));
    let seen = Arc::clone(&keys);
    let twice = move |command: Command, issued: Issued| {
        seen.lock().unwrap().push(issued.key.clone());
        let (first, second) = (once(command.clone(), issued.clone()), once(command, issued));
        async move { first.await.and(second.await) }.boxed()
    };
    bank.run(transfers(), &sink, twice).unwrap();
    bank.assert_done(&sink, "twice");
    let keys = keys.lock().unwrap();
    assert_eq!(keys[0], "process/transfers/4/0");
    assert_eq!(keys.iter().collect::<BTreeSet<_>>().len(), keys.len(), "each has its own key");
}

/// A sink that fails at one call and at all that follow, until it is repaired.
#[derive(Debug)]
struct Crashing {
    sink: MemorySink,
    calls: AtomicUsize,
    at: AtomicUsize,
    takes_effect: bool,
}

impl Crashing {
    fn call(&self) -> std::cmp::Ordering {
        self.calls.fetch_add(1, Ordering::SeqCst).cmp(&self.at.load(Ordering::SeqCst))
    }
}

impl Sink for Crashing {
    fn snapshot(&self) -> Result<Box<dyn Snapshot>, SinkError> {
        if self.call().is_lt() { self.sink.snapshot() } else { Err(SinkError::failed("gone")) }
    }

    fn commit(&self, changes: &Changes) -> Result<(), SinkError> {
        let order = self.call();
        if order.is_lt() || order.is_eq() && self.takes_effect {
            self.sink.commit(changes)?;
        }
        if order.is_lt() { Ok(()) } else { Err(SinkError::failed("gone")) }
    }
}

#[test]
fn money_is_conserved_when_the_process_is_cut_off_between_any_two_steps() {
    let mut crashes = 0;
    for takes_effect in [false, true] {
        for at in 0.. {
            let bank = Bank::with_transfers();
            let (calls, at_call) = (AtomicUsize::new(0), AtomicUsize::new(at));
            let crashing = MemorySink::new();
            let crashing = Arc::new(Crashing { sink: crashing, calls, at: at_call, takes_effect });
            let sink: Arc<dyn Sink> = crashing.clone();
            let first = bank.run(transfers(), &sink, bank.dispatch());
            crashing.at.store(usize::MAX, Ordering::SeqCst);
            bank.run(transfers(), &sink, bank.dispatch()).unwrap();
            bank.assert_done(&sink, &format!("crash at call {at}"));
            if first.is_ok() {
                break;
            }
            crashes += 1;
        }
    }
    assert!(crashes > 40, "there were {crashes} crashes");
}

#[test]
fn a_command_that_fails_is_tried_again_and_then_stops_the_worker() {
    let bank = Bank::with_transfers();
    let sink: Arc<dyn Sink> = Arc::new(MemorySink::new());
    let policy = OnFailure::stop().after_retries(3, Duration::from_secs(1));
    let (carry_out, tries) = (bank.dispatch(), Arc::new(AtomicUsize::new(0)));
    let (broken, counted) = (Arc::new(AtomicBool::new(true)), Arc::clone(&tries));
    let still = Arc::clone(&broken);
    let dispatch = Arc::new(move |command, issued: Issued| {
        if issued.position == Position(6) && still.load(Ordering::SeqCst) {
            assert_eq!(issued.attempts as usize, counted.fetch_add(1, Ordering::SeqCst) % 4);
            assert!(issued.attempts != 2, "a panic is a failure like another");
            return futures::future::ready(Err("no connection".into())).boxed();
        }
        carry_out(command, issued)
    });
    let run = || {
        let dispatch = Arc::clone(&dispatch);
        let process = transfers().on_failure(policy);
        bank.run(process, &sink, move |command, issued| dispatch(command, issued))
    };
    let before = bank.clock.now();
    match run() {
        Err(ProjectionError::Command { position, number, attempts, message }) => {
            assert_eq!((position, number, attempts), (Position(6), 0, 4));
            assert_eq!(message, "no connection");
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(tries.load(Ordering::SeqCst), 4);
    assert_eq!(bank.clock.now().0 - before.0, 7000, "it waited for 1, 2 and 4 seconds");
    broken.store(false, Ordering::SeqCst);
    run().unwrap();
    bank.assert_done(&sink, "mended");
}

#[test]
fn a_command_that_is_put_aside_lets_others_pass_and_is_tried_again_on_demand() {
    let bank = Bank::with_transfers();
    let sink: Arc<dyn Sink> = Arc::new(MemorySink::new());
    let carry_out = bank.dispatch();
    let dispatch = move |command, issued: Issued| match issued.position {
        Position(4) => futures::future::ready(Err("never".into())).boxed(),
        _ => carry_out(command, issued),
    };
    bank.run(transfers().on_failure(OnFailure::park()), &sink, dispatch).unwrap();
    let aside = Process::<Command>::aside("transfers", Arc::clone(&sink), 10).unwrap();
    assert_eq!(aside.len(), 1);
    assert_eq!(
        (aside[0].position, aside[0].attempts, &*aside[0].message),
        (Position(4), 1, "never")
    );
    let debited = |account: &str| {
        all(&*bank.store).iter().any(|event| {
            event.stream.as_str() == account && event.event.event_type.as_str() != "account.opened"
        })
    };
    assert!(debited("b") && debited("c"), "the others have passed");
    bank.run(transfers().retry_what_is_aside(), &sink, bank.dispatch()).unwrap();
    bank.assert_done(&sink, "tried again");
    assert_eq!(Process::<Command>::aside("transfers", sink, 10).unwrap(), []);
}

#[test]
fn one_event_does_not_cause_commands_without_end() {
    let bank = Bank::with_transfers();
    let sink: Arc<dyn Sink> = Arc::new(MemorySink::new());
    let endless = Process::new("endless").on("transfer.requested", |reaction, event| {
        let transfer: Transfer = serde_json::from_slice(&event.event.data)?;
        loop {
            reaction.issue(&Command::Debit(transfer.clone()))?;
        }
    });
    let error = bank.run(endless, &sink, bank.dispatch()).unwrap_err();
    assert!(error.to_string().contains("more than 256 commands"), "{error}");
    assert_eq!(all(&*bank.store).len(), 11, "none of them was carried out");
}

/// Reminds of an order until it is paid: an hour after it was placed.
fn reminders(late: &Arc<Mutex<Vec<String>>>) -> Process<Command> {
    let late = Arc::clone(late);
    Process::new("reminders")
        .on("order.placed", |reaction, event| {
            let due = Timestamp(event.timestamp.0 + 3_600_000);
            reaction.set_timer(event.stream.as_str(), due, "pay!")
        })
        .on("order.paid", |reaction, event| reaction.cancel_timer(event.stream.as_str()))
        .on_timer(move |_, timer| {
            late.lock().unwrap().push(format!("{}: {}", timer.name, timer.note));
            Ok(())
        })
}

fn nothing(_: Command, _: Issued) -> Pending<Result<(), HandlerError>> {
    futures::future::ready(Ok(())).boxed()
}

fn order(bank: &Bank, name: &str, kind: &str) {
    let event = NewEvent::json(EventType::new(kind).unwrap(), "{}");
    let append = Append::to(StreamName::new(name).unwrap(), Expected::Any, [event]);
    block_on(bank.store.append(append)).unwrap();
}

fn timers(bank: &Bank, kind: &str) -> usize {
    all(&*bank.store).iter().filter(|event| event.event.event_type.as_str() == kind).count()
}

#[test]
fn a_timer_fires_when_it_is_due_unless_it_was_cancelled() {
    let (bank, late) = (Bank::new(), Arc::default());
    let sink: Arc<dyn Sink> = Arc::new(MemorySink::new());
    for name in ["order-1", "order-2", "order-3"] {
        order(&bank, name, "order.placed");
    }
    order(&bank, "order-2", "order.paid");
    bank.run(reminders(&late), &sink, nothing).unwrap();
    assert_eq!(*late.lock().unwrap(), ["order-1: pay!", "order-3: pay!"]);
    // Nobody turned the clock but the worker, which had nothing to do until then.
    assert_eq!(bank.clock.now(), Timestamp(3_601_000));
    let fired = |event: &&Arc<Recorded>| event.event.event_type.as_str() == TIMER_FIRED;
    let events = all(&*bank.store);
    assert!(events.iter().filter(fired).all(|event| event.timestamp == Timestamp(3_601_000)));
    assert_eq!((timers(&bank, TIMER_SET), timers(&bank, TIMER_CANCELLED)), (3, 1));
    // Too late.
    order(&bank, "order-1", "order.paid");
    bank.run(reminders(&late), &sink, nothing).unwrap();
    assert_eq!((timers(&bank, TIMER_FIRED), timers(&bank, TIMER_CANCELLED)), (2, 1));
}

#[test]
fn a_timer_fires_once_in_effect_whatever_is_lost_between_two_steps() {
    for takes_effect in [false, true] {
        for at in 0.. {
            let (bank, late) = (Bank::new(), Arc::default());
            order(&bank, "order-1", "order.placed");
            order(&bank, "order-2", "order.placed");
            order(&bank, "order-2", "order.paid");
            let (calls, at_call) = (AtomicUsize::new(0), AtomicUsize::new(at));
            let crashing = MemorySink::new();
            let crashing = Arc::new(Crashing { sink: crashing, calls, at: at_call, takes_effect });
            let sink: Arc<dyn Sink> = crashing.clone();
            let first = bank.run(reminders(&late), &sink, nothing);
            crashing.at.store(usize::MAX, Ordering::SeqCst);
            bank.run(reminders(&late), &sink, nothing).unwrap();
            let seen = [TIMER_SET, TIMER_FIRED, TIMER_CANCELLED].map(|kind| timers(&bank, kind));
            assert_eq!(seen, [2, 1, 1], "crash at call {at}");
            if first.is_ok() {
                break;
            }
        }
    }
}

#[test]
fn a_process_whose_handlers_have_changed_goes_on_from_where_it_was() {
    let bank = Bank::with_transfers();
    let sink: Arc<dyn Sink> = Arc::new(MemorySink::new());
    bank.run(transfers(), &sink, bank.dispatch()).unwrap();
    let events = all(&*bank.store).len();
    let changed = transfers().on("account.opened", |_, _| Err("it was handled before".into()));
    bank.run(changed, &sink, bank.dispatch()).unwrap();
    assert_eq!(all(&*bank.store).len(), events, "nothing was done twice");
}
