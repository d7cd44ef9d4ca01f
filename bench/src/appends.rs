//! Conditional appends, measured: clients that each write to a stream of their own and expect its last version, in this process or
//! through sockets.
//!
//! Through sockets it is a protocol of this program's own, the least that can carry an append: a request is the length of what follows
//! (u32), the last version that is expected of the stream plus one (u64), how many events (u32), and the stream's name; each event has
//! an id (16 bytes), the length of its content (u32) and the content. The reply is the position of the last event (u64), or 0 for a
//! refusal. A request of length 0 asks how many groups were written. Numbers are little-endian. A connection carries one request at a
//! time.

use std::cell::RefCell;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use event_sourcing::store::journal::JournalStore;
use event_sourcing::{
    Append, ContentType, EventId, EventStore, EventType, Expected, NewEvent, StreamName, Version,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{LocalSet, spawn_local};

use crate::trace::Random;

/// Bytes of each event's content.
pub const PAYLOAD: usize = 256;
/// The type of all events.
pub const TYPE: &str = "deposited";
/// The longest request that the server takes, in bytes.
const REQUEST_MAX: usize = 1 << 20;

/// What is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    /// How many clients append, each waiting for its answer before the next.
    pub clients: u32,
    /// Events in each append.
    pub events: u32,
    /// For so long.
    pub time: Duration,
}

/// What was found.
#[derive(Clone, Copy, Debug, Default)]
pub struct Figures {
    /// Appends a second.
    pub rate: f64,
    /// Half of the appends took at most so long, in milliseconds.
    pub p50_ms: f64,
    /// All but a hundredth took at most so long, in milliseconds.
    pub p99_ms: f64,
    /// Processor time of the server for each append, in microseconds.
    pub cpu_us: f64,
    /// Appends for each sync, where it is known.
    pub per_sync: Option<f64>,
}

impl Figures {
    /// Figures of appends that took these times, in microseconds.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "far below 2^53")]
    pub fn of(mut times: Vec<u32>, took: Duration, cpu: Duration, syncs: Option<u64>) -> Self {
        times.sort_unstable();
        let at = |percent: usize| {
            let place = (times.len() * percent / 100).min(times.len().saturating_sub(1));
            f64::from(times.get(place).copied().unwrap_or(0)) / 1e3
        };
        let count = times.len().max(1) as f64;
        Self {
            rate: times.len() as f64 / took.as_secs_f64(),
            p50_ms: at(50),
            p99_ms: at(99),
            cpu_us: cpu.as_secs_f64() * 1e6 / count,
            per_sync: syncs.map(|syncs| count / syncs.max(1) as f64),
        }
    }
}

/// What clients append to.
#[derive(Clone, Debug)]
pub enum Target {
    /// A store in this process.
    Store(Arc<JournalStore>),
    /// A server of [`serve`].
    Server(SocketAddr),
}

/// The runtime of clients and servers: one thread.
///
/// # Errors
/// If the system gives no more descriptors.
pub fn runtime() -> io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread().enable_io().build()
}

/// Lets clients append, to streams whose names begin with `run`; the times are in microseconds.
///
/// # Errors
/// The sockets', and if an append is refused.
pub fn run(target: &Target, run: &str, shape: Shape) -> io::Result<(Vec<u32>, Duration)> {
    let times = Rc::new(RefCell::new(Vec::with_capacity(1 << 20)));
    let begin = Instant::now();
    runtime()?.block_on(LocalSet::new().run_until(async {
        let mut tasks = Vec::new();
        for client in 0..shape.clients {
            let (target, times) = (target.clone(), Rc::clone(&times));
            let stream = format!("{run}-{client}");
            tasks.push(spawn_local(async move {
                let mut sender = Sender::connect(&target).await?;
                let mut random = Random(seed(&stream));
                let mut recorded = 0;
                while begin.elapsed() < shape.time {
                    let start = Instant::now();
                    sender.append(&stream, recorded, shape.events, &mut random).await?;
                    recorded += u64::from(shape.events);
                    let time = u32::try_from(start.elapsed().as_micros()).unwrap_or(u32::MAX);
                    times.borrow_mut().push(time);
                }
                io::Result::Ok(())
            }));
        }
        for task in tasks {
            task.await.map_err(io::Error::other)??;
        }
        io::Result::Ok(())
    }))?;
    Ok((times.take(), begin.elapsed()))
}

/// A number for a name: FNV-1a.
fn seed(name: &str) -> u64 {
    name.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

/// A client's way to the log.
enum Sender {
    Store(Arc<JournalStore>),
    Server(BufReader<TcpStream>, Vec<u8>),
}

impl Sender {
    async fn connect(target: &Target) -> io::Result<Self> {
        Ok(match target {
            Target::Store(store) => Self::Store(Arc::clone(store)),
            Target::Server(address) => {
                let socket = TcpStream::connect(address).await?;
                socket.set_nodelay(true)?;
                Self::Server(BufReader::new(socket), Vec::new())
            }
        })
    }

    /// Appends events to a stream that has so many.
    async fn append(
        &mut self,
        stream: &str,
        recorded: u64,
        events: u32,
        random: &mut Random,
    ) -> io::Result<()> {
        let mut id = || (u128::from(random.draw()) << 64) | u128::from(random.draw());
        match self {
            Self::Store(store) => {
                let events = (0..events).map(|_| event(id(), vec![b'x'; PAYLOAD])).collect();
                store.append(append(stream, recorded, events)?).await.map_err(io::Error::other)?;
                Ok(())
            }
            Self::Server(socket, bytes) => {
                bytes.clear();
                bytes.extend([0; 4]);
                bytes.extend(recorded.to_le_bytes());
                bytes.extend(events.to_le_bytes());
                bytes.extend(u32::try_from(stream.len()).map_err(io::Error::other)?.to_le_bytes());
                bytes.extend(stream.as_bytes());
                for _ in 0..events {
                    bytes.extend(id().to_le_bytes());
                    bytes.extend(u32::try_from(PAYLOAD).map_err(io::Error::other)?.to_le_bytes());
                    bytes.extend([b'x'; PAYLOAD]);
                }
                let length = u32::try_from(bytes.len() - 4).map_err(io::Error::other)?;
                bytes[..4].copy_from_slice(&length.to_le_bytes());
                socket.write_all(bytes).await?;
                match socket.read_u64_le().await? {
                    0 => Err(io::Error::other("the append was refused")),
                    _ => Ok(()),
                }
            }
        }
    }
}

fn event(id: u128, data: Vec<u8>) -> NewEvent {
    let event_type = EventType::new(TYPE).expect("it is a name");
    NewEvent::new(EventId(uuid::Uuid::from_u128(id)), event_type, ContentType::Bytes, data)
}

fn append(stream: &str, recorded: u64, events: Vec<NewEvent>) -> io::Result<Append> {
    let expected = match recorded.checked_sub(1) {
        None => Expected::NoStream,
        Some(last) => Expected::Exact(Version(last)),
    };
    let stream = StreamName::new(stream).map_err(io::Error::other)?;
    Ok(Append::to(stream, expected, events))
}

/// How many groups a server has written.
///
/// # Errors
/// The socket's.
pub fn commits_of(server: SocketAddr) -> io::Result<u64> {
    runtime()?.block_on(async {
        let mut socket = TcpStream::connect(server).await?;
        socket.write_u32_le(0).await?;
        socket.read_u64_le().await
    })
}

/// Serves a store on a free port of this machine, which `ready` is told, until the process ends. One thread has all connections.
///
/// # Errors
/// The listener's.
pub fn serve(store: &Arc<JournalStore>, ready: impl FnOnce(SocketAddr)) -> io::Result<()> {
    runtime()?.block_on(LocalSet::new().run_until(async {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        ready(listener.local_addr()?);
        loop {
            let (socket, _) = listener.accept().await?;
            socket.set_nodelay(true)?;
            let store = Arc::clone(store);
            // A connection ends with its client, and whatever it says wrong ends it too.
            spawn_local(async move { connection(socket, &store).await.ok() });
        }
    }))
}

async fn connection(socket: TcpStream, store: &JournalStore) -> io::Result<()> {
    let mut socket = BufReader::with_capacity(64 << 10, socket);
    let mut bytes = Vec::new();
    loop {
        let length = usize::try_from(socket.read_u32_le().await?).map_err(io::Error::other)?;
        if length > REQUEST_MAX {
            return Err(io::Error::other("the request is too long"));
        }
        if length == 0 {
            socket.write_u64_le(store.stats().commits).await?;
            continue;
        }
        bytes.resize(length, 0);
        socket.read_exact(&mut bytes).await?;
        let append = decode(&bytes).ok_or_else(|| io::Error::other("the request is malformed"))?;
        let last = store.append(append).await.map_or(0, |committed| committed.last.0);
        socket.write_u64_le(last).await?;
    }
}

fn decode(mut bytes: &[u8]) -> Option<Append> {
    let mut take = |length: usize| {
        let (taken, rest) = bytes.split_at_checked(length)?;
        bytes = rest;
        Some(taken)
    };
    let recorded = u64::from_le_bytes(take(8)?.try_into().ok()?);
    let count = u32::from_le_bytes(take(4)?.try_into().ok()?);
    let length = u32::from_le_bytes(take(4)?.try_into().ok()?);
    let stream = std::str::from_utf8(take(usize::try_from(length).ok()?)?).ok()?;
    let mut events = Vec::new();
    for _ in 0..count {
        let id = u128::from_le_bytes(take(16)?.try_into().ok()?);
        let length = u32::from_le_bytes(take(4)?.try_into().ok()?);
        events.push(event(id, take(usize::try_from(length).ok()?)?.to_vec()));
    }
    append(stream, recorded, events).ok()
}
