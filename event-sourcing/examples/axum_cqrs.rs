//! A web service on an event store: commands, queries that see their asker's own writes, and a live read model over server-sent
//! events.
//!
//! `cargo run -p event-sourcing --example axum_cqrs` starts it on a free port, and is its own client. With `-- --serve` it stays:
//!
//! ```text
//! curl -X POST localhost:PORT/accounts/ada/deposit/500        answers with the position of what it has recorded
//! curl localhost:PORT/accounts/ada?after=1                    waits until the read model knows of it
//! curl -N localhost:PORT/live                                 the sum of all accounts, each time it changes
//! ```
#![expect(clippy::print_stdout, reason = "an example that prints what happens")]

use std::convert::Infallible;
use std::error::Error;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::routing::{get, post};
use axum::{Json, Router};
use event_sourcing::clock::SystemClock;
use event_sourcing::cqrs::{AnswerError, Answers, Question};
use event_sourcing::error::InvalidName;
use event_sourcing::projection::{
    Handle, MemorySink, Projection, ReadModel, Rows, Sink, SinkError, State as Doing, Table, View,
    Worker,
};
use event_sourcing::{
    Boundary, Decider, DomainStore, EventContent, EventStore, ExecuteError, MemoryStore, Position,
    domain_events,
};
use futures::Stream;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// How long a query waits for its asker's own writes, and how long the client waits for an answer.
const BOUND: Duration = Duration::from_secs(10);

// The domain.

#[derive(Clone, Serialize, Deserialize)]
struct Deposited {
    cents: u64,
}

#[derive(Clone, Serialize, Deserialize)]
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
    #[derive(Clone)]
    enum AccountEvent {
        Deposited(Deposited),
        Withdrawn(Withdrawn),
    }
}

enum AccountCommand {
    Deposit(u64),
    Withdraw(u64),
}

struct Account;

impl Decider for Account {
    const NAME: &'static str = "account";

    type Id = String;
    type State = u64;
    type Command = AccountCommand;
    type Event = AccountEvent;
    type Rejection = &'static str;

    fn boundary(id: &String) -> Result<Boundary, InvalidName> {
        Boundary::stream(Self::NAME, id)
    }

    fn initial(_: &String) -> u64 {
        0
    }

    fn evolve(balance: &mut u64, event: &AccountEvent) {
        match event {
            AccountEvent::Deposited(Deposited { cents }) => *balance += cents,
            AccountEvent::Withdrawn(Withdrawn { cents }) => *balance -= cents,
        }
    }

    fn decide(balance: &u64, command: &AccountCommand) -> Result<Vec<AccountEvent>, &'static str> {
        match *command {
            AccountCommand::Deposit(cents) if balance.checked_add(cents).is_none() => {
                Err("no account holds that much")
            }
            AccountCommand::Deposit(cents) => {
                Ok(vec![AccountEvent::Deposited(Deposited { cents })])
            }
            AccountCommand::Withdraw(cents) if cents > *balance => Err("there is not enough"),
            AccountCommand::Withdraw(cents) => {
                Ok(vec![AccountEvent::Withdrawn(Withdrawn { cents })])
            }
        }
    }
}

// The read model, and what can be asked of it.

const BALANCES: Table<str, u64> = Table::new("balances");
const TOTAL: Table<(), u128> = Table::new("total");

fn balances() -> Projection {
    Projection::new("balances", "1").on_domain(|tx, event: &AccountEvent, recorded| {
        let account = recorded.stream.as_str();
        let balance = tx.get(&BALANCES, account)?.unwrap_or(0);
        let total = tx.get(&TOTAL, &())?.unwrap_or(0);
        let (balance, total) = match event {
            AccountEvent::Deposited(Deposited { cents }) => {
                (balance + cents, total + u128::from(*cents))
            }
            AccountEvent::Withdrawn(Withdrawn { cents }) => {
                (balance - cents, total - u128::from(*cents))
            }
        };
        tx.put(&BALANCES, account, &balance)?;
        Ok(tx.put(&TOTAL, &(), &total)?)
    })
}

struct BalanceOf(String);

impl Question for BalanceOf {
    type Answer = Option<u64>;

    fn answer(&self, view: &View) -> Result<Option<u64>, SinkError> {
        view.get(&BALANCES, &*format!("account-{}", self.0))
    }
}

struct Total;

impl Question for Total {
    type Answer = u128;

    fn answer(&self, view: &View) -> Result<u128, SinkError> {
        Ok(view.get(&TOTAL, &())?.unwrap_or(0))
    }
}

// The service.

#[derive(Clone)]
struct Service {
    store: Arc<MemoryStore>,
    answers: Answers,
    handle: Handle,
}

type Refused = (StatusCode, String);

async fn command(
    State(service): State<Service>,
    Path((id, verb, cents)): Path<(String, String, u64)>,
) -> Result<Json<Value>, Refused> {
    let command = match verb.as_str() {
        "deposit" => AccountCommand::Deposit(cents),
        "withdraw" => AccountCommand::Withdraw(cents),
        _ => return Err((StatusCode::NOT_FOUND, format!("no command is called {verb}"))),
    };
    let done = service.store.execute::<Account>(command).on(id).retry(5).await;
    match done {
        Ok(done) => Ok(Json(json!({ "position": done.position }))),
        Err(ExecuteError::Rejected(why)) => Err((StatusCode::CONFLICT, why.to_owned())),
        Err(error) => Err((StatusCode::SERVICE_UNAVAILABLE, error.to_string())),
    }
}

#[derive(Deserialize)]
struct After {
    #[serde(default)]
    after: u64,
}

async fn balance(
    State(service): State<Service>,
    Path(id): Path<String>,
    Query(After { after }): Query<After>,
) -> Result<Json<Value>, Refused> {
    if Position(after) > service.store.head() {
        return Err((StatusCode::BAD_REQUEST, format!("there is no position {after}")));
    }
    match service.answers.ask_after(BalanceOf(id), Position(after), BOUND).await {
        Ok(found) => match found.answer {
            Some(cents) => Ok(Json(json!({ "cents": cents, "position": found.position }))),
            None => Err((StatusCode::NOT_FOUND, "there is no such account".to_owned())),
        },
        Err(error @ AnswerError::Wait(_)) => {
            Err((StatusCode::SERVICE_UNAVAILABLE, error.to_string()))
        }
        Err(error) => Err((StatusCode::INTERNAL_SERVER_ERROR, error.to_string())),
    }
}

/// The sum of all accounts, now and each time the read model has moved on.
async fn live(
    State(service): State<Service>,
) -> Sse<impl Stream<Item = Result<Event, Infallible>>> {
    let states = futures::stream::unfold(None, move |seen: Option<Position>| {
        let service = service.clone();
        async move {
            if let Some(seen) = seen {
                // A wait in vain, after a time, only looks again: the client has kept-alives meanwhile.
                while service.handle.wait_until(seen.next(), BOUND).await.is_err() {
                    if matches!(service.handle.status().state, Doing::Stopped | Doing::Failed) {
                        return None;
                    }
                }
            }
            let found = service.answers.ask(&Total).ok()?;
            let data = json!({ "total": found.answer.to_string(), "position": found.position });
            Some((Ok(Event::default().data(data.to_string())), Some(found.position)))
        }
    });
    Sse::new(states).keep_alive(KeepAlive::default())
}

async fn start(listener: TcpListener) -> Result<(), Box<dyn Error>> {
    let store = Arc::new(MemoryStore::default());
    let sink: Arc<dyn Sink> = Arc::new(MemorySink::new());
    let (worker, handle) =
        Worker::new(store.clone(), Arc::clone(&sink), balances(), Arc::new(SystemClock))?;
    // It computes little and waits for no disk: it may run among the requests.
    tokio::spawn(worker.run());
    let answers = Answers::new(ReadModel::new(sink, "balances"), handle.clone());
    let service = Router::new()
        .route("/accounts/{id}/{verb}/{cents}", post(command))
        .route("/accounts/{id}", get(balance))
        .route("/live", get(live))
        .with_state(Service { store, answers, handle });
    Ok(axum::serve(listener, service).await?)
}

// The client.

async fn ask(
    address: SocketAddr,
    method: &str,
    path: &str,
) -> Result<(u16, String), Box<dyn Error>> {
    let mut stream = TcpStream::connect(address).await?;
    let request = format!("{method} {path} HTTP/1.1\r\nHost: self\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut response = String::new();
    tokio::time::timeout(BOUND, stream.read_to_string(&mut response)).await??;
    let (head, body) = response.split_once("\r\n\r\n").ok_or("no response")?;
    let status = head.split(' ').nth(1).ok_or("no status")?.parse()?;
    println!("{method} {path} -> {status} {body}");
    Ok((status, body.to_owned()))
}

async fn check(address: SocketAddr) -> Result<(), Box<dyn Error>> {
    let mut live = TcpStream::connect(address).await?;
    live.write_all(b"GET /live HTTP/1.1\r\nHost: self\r\n\r\n").await?;
    for number in 1..=5 {
        let (status, body) = ask(address, "POST", "/accounts/ada/deposit/100").await?;
        let position = &serde_json::from_str::<Value>(&body)?["position"];
        assert_eq!((status, position.as_u64()), (200, Some(number)));
        let path = format!("/accounts/ada?after={position}");
        let (status, body) = ask(address, "GET", &path).await?;
        let cents = &serde_json::from_str::<Value>(&body)?["cents"];
        assert_eq!((status, cents.as_u64()), (200, Some(number * 100)), "its own write is seen");
    }
    assert_eq!(ask(address, "POST", "/accounts/ada/withdraw/501").await?.0, 409);
    assert_eq!(ask(address, "POST", "/accounts/ada/withdraw/499").await?.0, 200);
    assert_eq!(ask(address, "POST", "/accounts/ada/steal/1").await?.0, 404);
    assert_eq!(ask(address, "GET", "/accounts/bob").await?.0, 404);
    assert_eq!(ask(address, "GET", "/accounts/bob?after=99").await?.0, 400);
    let (mut seen, mut buffer) = (String::new(), [0; 4096]);
    while !seen.contains(r#""total":"1""#) {
        let read = tokio::time::timeout(BOUND, live.read(&mut buffer)).await??;
        assert_ne!(read, 0, "the live stream has ended: {seen}");
        seen.push_str(std::str::from_utf8(&buffer[..read])?);
    }
    let events = seen.lines().filter(|line| line.starts_with("data:"));
    println!("live: {}", events.collect::<Vec<_>>().join(" "));
    Ok(())
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    if std::env::args().any(|arg| arg == "--serve") {
        println!("listening on {address}");
        return start(listener).await;
    }
    tokio::select! {
        ended = start(listener) => ended.and(Err("the service has ended".into())),
        checked = check(address) => checked,
    }
}
