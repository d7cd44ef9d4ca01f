//! Reading: a million events forward, the same through a fold, loading an aggregate of a thousand events, a thousand filtered subscribers.
//!
//! `cargo run --release -p lattice-bench --bin events_read -- DIR [EVENTS [APPENDS]]`. DIR must be on a real disk and not exist; it is
//! removed at the end. The events are written by appends of 64, so many at a time (4), which come into about one group of the log. What is read is in the system's page cache, as after writing it.
#![expect(clippy::print_stdout, reason = "a program that prints what it found")]

use std::cell::RefCell;
use std::error::Error;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use event_sourcing::error::InvalidName;
use event_sourcing::snapshot::Snapshots;
use event_sourcing::store::journal::{JournalStore, JournalStoreOptions};
use event_sourcing::{
    Append, Boundary, Codec, Decider, Delivery, DomainEvent as _, DomainStore as _, EventContent,
    EventId, EventStore, EventType, Expected, Filter, Label, NewEvent, Query, QueryItem, Read,
    Source, StreamName, Subscribe, Subscription, domain_events,
};
use futures::executor::{LocalPool, block_on};
use futures::task::LocalSpawnExt;
use lattice_bench::peers::processor_time;
use lattice_bench::trace::Random;
use serde::{Deserialize, Serialize};

/// The same allocator as the server's.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

type Outcome<T> = Result<T, Box<dyn Error>>;

const DATA: usize = 256;
const STREAMS: u64 = 10_000;
const SUBSCRIBERS: u64 = 1000;

#[derive(Serialize, Deserialize)]
struct Deposited {
    cents: u64,
    note: String,
}

impl EventContent for Deposited {
    const TYPE: &'static str = "account.deposited";
}

domain_events! { enum AccountEvent { Deposited(Deposited) } }

struct Account;

impl Decider for Account {
    const NAME: &'static str = "account";
    type Id = String;
    type State = u64;
    type Command = u64;
    type Event = AccountEvent;
    type Rejection = std::convert::Infallible;

    fn boundary(id: &String) -> Result<Boundary, InvalidName> {
        Boundary::stream("account", id)
    }

    fn initial(_: &String) -> u64 {
        0
    }

    fn evolve(state: &mut u64, event: &AccountEvent) {
        let AccountEvent::Deposited(deposited) = event;
        *state += deposited.cents;
    }

    fn decide(_: &u64, cents: &u64) -> Result<Vec<AccountEvent>, Self::Rejection> {
        Ok(vec![deposited(*cents)])
    }
}

fn deposited(cents: u64) -> AccountEvent {
    Deposited { cents, note: "n".repeat(220) }.into()
}

/// An event with an amount at the beginning of its content, for one of the branches.
fn event(random: &mut Random, branches: u64) -> Outcome<NewEvent> {
    let mut data = vec![b'x'; DATA];
    data[..8].copy_from_slice(&random.below(1000).to_le_bytes());
    let id = (u128::from(random.draw()) << 64) | u128::from(random.draw());
    Ok(NewEvent::bytes(EventType::new("deposited")?, data)
        .id(EventId(uuid::Uuid::from_u128(id)))
        .label(Label::new(format!("branch:{}", random.below(branches)))?))
}

fn fill(store: &JournalStore, events: u64, appends: u64) -> Outcome<()> {
    let mut random = Random(1);
    while store.head().0 < events {
        let mut pending = Vec::new();
        for _ in 0..appends {
            let stream = StreamName::new(format!("wallet-{}", random.below(STREAMS)))?;
            let batch: Outcome<Vec<_>> = (0..64).map(|_| event(&mut random, SUBSCRIBERS)).collect();
            pending.push(store.append(Append::to(stream, Expected::Any, batch?)));
        }
        for answer in pending {
            block_on(answer)?;
        }
    }
    Ok(())
}

/// Gives all events to `see`; how many there were.
fn each(store: &JournalStore, mut see: impl FnMut(&NewEvent)) -> Outcome<u64> {
    let mut read = Read::forward(Source::All);
    let mut count = 0;
    loop {
        let page = block_on(store.read(read.clone()))?;
        for recorded in &page.events {
            see(&recorded.event);
            count += 1;
        }
        match page.next {
            Some(next) => read = read.from(next),
            None => return Ok(count),
        }
    }
}

/// Says how many a second these were, by the clock and by processor time.
#[expect(clippy::cast_precision_loss, reason = "far below 2^53")]
fn say(what: &str, count: u64, took: Duration, cpu: Duration) {
    println!(
        "{what}: {count} events, {:.0} a second, {:.0} a second of processor time",
        count as f64 / took.as_secs_f64(),
        count as f64 / cpu.as_secs_f64()
    );
}

fn reading(store: &JournalStore) -> Outcome<()> {
    let own = std::process::id();
    for _ in 0..3 {
        let (begin, cpu) = (Instant::now(), processor_time(own));
        let count = each(store, |_| ())?;
        say("forward read", count, begin.elapsed(), processor_time(own).saturating_sub(cpu));
        let (begin, cpu) = (Instant::now(), processor_time(own));
        let mut sum = 0_u64;
        let count = each(store, |event| {
            let amount = event.data.first_chunk::<8>().map_or(0, |it| u64::from_le_bytes(*it));
            sum = sum.wrapping_add(amount);
        })?;
        say("replay through a fold", count, begin.elapsed(), processor_time(own) - cpu);
        std::hint::black_box(sum);
    }
    Ok(())
}

fn loading(store: &JournalStore) -> Outcome<()> {
    let events: Result<Vec<_>, _> = (0..999).map(|_| deposited(5).encode(Codec::Json)).collect();
    let stream = StreamName::new("account-load")?;
    block_on(store.append(Append::to(stream, Expected::NoStream, events?)))?;
    // The thousandth is written with a snapshot.
    let policy = Snapshots::every(100);
    store.execute::<Account>(5).on("load").snapshots(&policy).wait()?;
    let mut without = Vec::new();
    let mut with = Vec::new();
    for _ in 0..500 {
        let begin = Instant::now();
        let loaded = block_on(store.load::<Account>("load"))?;
        without.push(begin.elapsed());
        assert_eq!(loaded.state, 5000, "every event is in the state");
        let begin = Instant::now();
        let loaded = block_on(store.load_with::<Account>("load", &policy))?;
        with.push(begin.elapsed());
        assert_eq!(loaded.state, 5000, "the snapshot is the state");
    }
    for (what, times) in [("no snapshot", &mut without), ("a snapshot", &mut with)] {
        times.sort_unstable();
        let micros = |place: usize| times[place].as_micros();
        println!(
            "loading 1,000 events in JSON with {what}: p50 {} us, p99 {} us",
            micros(249),
            micros(494)
        );
    }
    Ok(())
}

/// Subscribers of one label each, while one writer appends; `by_filter` looks at all events, and else the index is asked.
fn subscribing(store: &Arc<JournalStore>, by_filter: bool) -> Outcome<()> {
    const APPENDS: u64 = 500;
    let mut pool = LocalPool::new();
    let sent = Rc::new(RefCell::new(Vec::new()));
    let delays = Rc::new(RefCell::new(Vec::new()));
    let start = store.head();
    let mut random = Random(start.0);
    let mut expected = Vec::new();
    let mut of_subscriber = vec![0_u64; usize::try_from(SUBSCRIBERS)?];
    for _ in 0..APPENDS {
        let branch = random.below(SUBSCRIBERS);
        of_subscriber[usize::try_from(branch)?] += 1;
        expected.push(branch);
    }
    for (branch, count) in of_subscriber.into_iter().enumerate() {
        let label = Label::new(format!("live:{branch}"))?;
        let subscribe = if by_filter {
            let filter = Filter { labels: vec![label], ..Filter::default() };
            Subscribe::to(Source::All).filter(filter)
        } else {
            Subscribe::to(Source::Query(Query::item(QueryItem::labels([label]))))
        };
        let mut subscription = Subscription::new(Arc::clone(store), subscribe.after(start));
        let (sent, delays) = (Rc::clone(&sent), Rc::clone(&delays));
        pool.spawner().spawn_local(async move {
            let mut missing = count;
            while missing > 0 {
                let delivery = subscription.next().await.expect("the store is open");
                if let Delivery::Event(event) = delivery {
                    let place = usize::try_from(event.position.0 - start.0 - 1);
                    let sent: &RefCell<Vec<Instant>> = &sent;
                    let at = sent.borrow()[place.expect("a few hundred")];
                    delays.borrow_mut().push(at.elapsed());
                    missing -= 1;
                }
            }
            // It stays, and is woken with the others, until the pool ends.
            let _ = subscription.next().await;
        })?;
    }
    let begin = Instant::now();
    let writer = {
        let (store, sent, delays) = (Arc::clone(store), Rc::clone(&sent), Rc::clone(&delays));
        async move {
            for branch in expected {
                let event = event(&mut random, 1).expect("the names are valid");
                let label = Label::new(format!("live:{branch}")).expect("it is a name");
                let stream = StreamName::new("live").expect("it is a name");
                sent.borrow_mut().push(Instant::now());
                let append = Append::to(stream, Expected::Any, [event.label(label)]);
                store.append(append).await.expect("the append is carried out");
            }
            while delays.borrow().len() < usize::try_from(APPENDS).expect("a few hundred") {
                futures::pending!();
            }
        }
    };
    // Woken by nobody, it is polled again after each turn of the others.
    let mut writer = Box::pin(writer);
    let waker = futures::task::noop_waker();
    let mut context = std::task::Context::from_waker(&waker);
    while writer.as_mut().poll(&mut context).is_pending() {
        pool.run_until_stalled();
    }
    let took = begin.elapsed();
    let mut delays = delays.take();
    delays.sort_unstable();
    println!(
        "{SUBSCRIBERS} subscribers {}: {APPENDS} appends one after the other in {} ms; from the append's call to its delivery p50 {} us, \
         p99 {} us",
        if by_filter { "with filters over all events" } else { "of queries" },
        took.as_millis(),
        delays[delays.len() / 2].as_micros(),
        delays[delays.len() * 99 / 100].as_micros()
    );
    Ok(())
}

fn main() -> Outcome<()> {
    let mut arguments = std::env::args().skip(1);
    let directory = arguments.next().ok_or("say a directory")?;
    let mut number = |usual: u64| arguments.next().map_or(Ok(usual), |text| text.parse());
    let (events, appends) = (number(1_000_000)?, number(4)?);
    let store = Arc::new(JournalStore::open(&JournalStoreOptions::new(&directory))?);
    fill(&store, events, appends)?;
    reading(&store)?;
    loading(&store)?;
    subscribing(&store, false)?;
    subscribing(&store, true)?;
    store.close();
    std::fs::remove_dir_all(directory)?;
    Ok(())
}
