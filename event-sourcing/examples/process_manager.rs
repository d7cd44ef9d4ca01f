//! A process manager: a parcel is sent when an order is paid; one that nobody pays is cancelled, by a timer. Its commands are
//! delivered twice and its worker is thrown away in between, and each parcel is sent once.
//!
//! `cargo run -p event-sourcing --example process_manager`
#![expect(clippy::print_stdout, reason = "an example that prints what happens")]

use std::error::Error;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use event_sourcing::clock::{Clock, ManualClock};
use event_sourcing::machine::Limits;
use event_sourcing::process::{Issued, Process};
use event_sourcing::projection::{HandlerError, MemorySink, Sink};
use event_sourcing::{
    Append, EventStore, EventType, Expected, MemoryStore, NewEvent, Pending, Read, Source,
    StreamName, Timestamp,
};
use futures::FutureExt;
use futures::executor::{LocalPool, block_on};
use futures::task::LocalSpawnExt;
use serde::{Deserialize, Serialize};

/// What the process asks others to do.
#[derive(Clone, Debug, Serialize, Deserialize)]
enum Command {
    SendParcel { order: String },
    CancelOrder { order: String },
}

const AN_HOUR: Duration = Duration::from_secs(3600);

fn orders() -> Process<Command> {
    Process::new("orders")
        .on("order.placed", |reaction, event| {
            let an_hour_later = Timestamp(event.timestamp.0 + 3_600_000);
            reaction.set_timer(event.stream.as_str(), an_hour_later, "not paid within an hour")
        })
        .on("order.paid", |reaction, event| {
            let order = event.stream.as_str();
            reaction.cancel_timer(order)?;
            reaction.issue(&Command::SendParcel { order: order.to_owned() })
        })
        .on_timer(|reaction, timer| {
            reaction.issue(&Command::CancelOrder { order: timer.name.clone() })
        })
}

fn record(store: &dyn EventStore, order: &str, kind: &str) -> Result<(), Box<dyn Error>> {
    let event = NewEvent::json(EventType::new(kind)?, "{}");
    block_on(store.append(Append::to(StreamName::new(order)?, Expected::Any, [event])))?;
    Ok(())
}

/// Carries a command out: it becomes an event, under the command's key.
async fn carry_out(
    store: Arc<dyn EventStore>,
    command: Command,
    issued: Issued,
) -> Result<(), HandlerError> {
    let (order, kind) = match &command {
        Command::SendParcel { order } => (order, "parcel.sent"),
        Command::CancelOrder { order } => (order, "order.cancelled"),
    };
    let event = NewEvent::json(EventType::new(kind)?, "{}");
    let append = Append::to(StreamName::new(order)?, Expected::Any, [event]).key(issued.key);
    store.append(append).await?;
    Ok(())
}

/// Runs a worker until nobody has anything to do, and throws it away as it is.
fn work(
    store: &Arc<MemoryStore>,
    sink: &Arc<dyn Sink>,
    clock: &Arc<ManualClock>,
    deliveries: &Arc<AtomicUsize>,
) -> Result<(), Box<dyn Error>> {
    let (log, counted): (Arc<dyn EventStore>, _) = (store.clone(), Arc::clone(deliveries));
    let dispatch = move |command: Command, issued: Issued| -> Pending<Result<(), HandlerError>> {
        counted.fetch_add(2, Ordering::SeqCst);
        let first = carry_out(Arc::clone(&log), command.clone(), issued.clone());
        let second = carry_out(Arc::clone(&log), command, issued);
        async move { first.await.and(second.await) }.boxed()
    };
    let (worker, _) = orders().worker(store.clone(), Arc::clone(sink), dispatch, clock.clone())?;
    let mut pool = LocalPool::new();
    pool.spawner().spawn_local(worker.run().map(drop))?;
    pool.run_until_stalled();
    Ok(())
}

fn main() -> Result<(), Box<dyn Error>> {
    let clock = Arc::new(ManualClock::at(Timestamp(0)));
    let store = Arc::new(MemoryStore::new(clock.clone(), Limits::default()));
    let sink: Arc<dyn Sink> = Arc::new(MemorySink::new());
    let deliveries = Arc::new(AtomicUsize::new(0));
    for order in ["order-1", "order-2", "order-3"] {
        record(&*store, order, "order.placed")?;
    }
    clock.advance(AN_HOUR / 2);
    record(&*store, "order-1", "order.paid")?;
    record(&*store, "order-3", "order.paid")?;
    // The clock is one that turns when everybody sleeps: the half hour that is left passes in here.
    work(&store, &sink, &clock, &deliveries)?;
    work(&store, &sink, &clock, &deliveries)?;

    let page = block_on(store.read(Read::forward(Source::All)))?;
    for event in &page.events {
        let minutes = event.timestamp.0 / 60_000;
        println!("{minutes:>3} min  {:<14} {}", event.stream.as_str(), event.event.event_type);
    }
    let count = |kind: &str| {
        page.events.iter().filter(|event| event.event.event_type.as_str() == kind).count()
    };
    println!("{} deliveries", deliveries.load(Ordering::SeqCst));
    assert_eq!(count("parcel.sent"), 2, "one for each that was paid");
    assert_eq!(count("order.cancelled"), 1, "order-2 was not paid");
    assert_eq!(count("timer.cancelled"), 2);
    assert_eq!(count("timer.fired"), 1);
    assert_eq!(deliveries.load(Ordering::SeqCst), 6, "each command was delivered twice");
    assert_eq!(clock.now(), Timestamp(3_600_000), "the timer fired when it was due");
    Ok(())
}
