//! One worker: a thread with its own runtime, its share of the connections, and its share of the shards to tend.
//!
//! Every ten milliseconds it removes what is due in its shards, a slice at a time: between two slices its connections have their
//! turns, so a million keys with one deadline hold nobody up for longer than a slice takes. The first worker also accepts
//! connections, leads the clock after the wall clock, and tells the store what the process really occupies.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::mpsc::UnboundedReceiver;
use tokio::sync::watch;
use tokio::time::MissedTickBehavior;
use tokio_rustls::TlsAcceptor;

use super::Limits;
use super::buffers::{Budget, Pool};
use super::clock::SystemClock;
use super::connection::{Connection, Doorbell};
use super::listen::{Accepted, Listener, Stream, accept};
use crate::clients::{Class, Origin, Outbox};
use crate::engine::Engine;
use crate::session::Session;
use crate::settings::{OutputClass, OutputLimit};
use crate::store::{LIMIT_SENSIBLE, SHARDS};
use crate::totals::{Counter, Tally};
use crate::types::ClientId;

/// How often what is due is removed.
const TICK: Duration = Duration::from_millis(10);

/// How many ticks pass between two looks at connections' deadlines and at the process's memory.
const TICKS_A_REVIEW: u64 = 10;

/// How many ticks pass between two corrections of the clock.
const TICKS_A_SECOND: u64 = 100;

/// How many keys are removed under one lock.
const SLICE: usize = 500;
/// After so many slices in a row, about a millisecond's work, a worker leaves its processor to others for a [`BREATH`]. When very
/// many keys are due at once, all workers are busy with them; without a pause, whoever asks meanwhile would wait for the kernel's
/// scheduler, for longer than for any lock.
const SLICES_A_BREATH: u32 = 4;
/// The pause: as short as the runtime's timer makes it.
const BREATH: Duration = Duration::from_millis(1);

/// How long a stop waits for connections to end.
const STOP_PATIENCE: Duration = Duration::from_millis(500);

/// What all workers of a server share.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) engine: Arc<Engine>,
    pub(super) limits: Limits,
    pub(super) budget: Budget,
    pub(super) workers: usize,
    clock: Option<Arc<SystemClock>>,
    connections: AtomicUsize,
    connections_possible: Option<usize>,
    is_stopping: AtomicBool,
}

impl Shared {
    pub(super) fn new(
        engine: Arc<Engine>,
        limits: Limits,
        clock: Option<Arc<SystemClock>>,
        workers: usize,
    ) -> Self {
        Self {
            engine,
            limits,
            budget: Budget::default(),
            workers,
            clock,
            connections: AtomicUsize::new(0),
            connections_possible: super::connections_possible(),
            is_stopping: AtomicBool::new(false),
        }
    }

    /// Has the settings show where the server is, and a limit of connections that can be kept.
    pub(super) fn announce(
        &self,
        address: Option<&SocketAddr>,
        tls_address: Option<SocketAddr>,
        socket_path: Option<&Path>,
    ) {
        let settings = &self.engine.settings;
        settings.tell("io-threads", &self.workers.to_string());
        self.engine.totals.note_process(|process| {
            super::process::learn_once(process, self.workers);
            super::process::learn_again(process, resident_bytes());
        });
        if let Some(address) = address {
            settings.tell("bind", &address.ip().to_string());
            settings.tell("port", &address.port().to_string());
        }
        if let Some(address) = tls_address {
            settings.tell("tls-port", &address.port().to_string());
        }
        if let Some(path) = socket_path {
            settings.tell("unixsocket", &path.to_string_lossy());
        }
        let limit = self.engine.store.limit();
        if limit > 0 && limit < LIMIT_SENSIBLE {
            tracing::warn!(
                limit,
                sensible = LIMIT_SENSIBLE,
                "maxmemory leaves hardly any room for keys: writes may be refused"
            );
        }
        let wanted = setting(&settings.maxclients);
        if let Some(possible) = self.connections_possible.filter(|possible| *possible < wanted) {
            tracing::warn!(wanted, possible, "fewer connections: the limit of open files is low");
            settings.tell("maxclients", &possible.max(1).to_string());
        }
    }

    /// Lets one more connection in, if there is room for it.
    pub(super) fn may_enter(&self) -> bool {
        let most = setting(&self.engine.settings.maxclients)
            .min(self.connections_possible.unwrap_or(usize::MAX));
        let before = self.connections.fetch_add(1, Ordering::Relaxed);
        if before >= most {
            self.has_left();
            return false;
        }
        true
    }

    /// A connection has ended.
    pub(super) fn has_left(&self) {
        self.connections.fetch_sub(1, Ordering::Relaxed);
    }

    /// How many connections there are.
    pub(super) fn connections(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }

    pub(super) fn is_stopping(&self) -> bool {
        self.is_stopping.load(Ordering::Relaxed)
    }

    /// After how many microseconds without a request a client is disconnected; None for never.
    pub(super) fn idle_us(&self) -> Option<u64> {
        match setting(&self.engine.settings.timeout) {
            0 => None,
            seconds => Some((seconds as u64).saturating_mul(1_000_000)),
        }
    }

    /// How long a client may take to authenticate, in microseconds.
    pub(super) fn authentication_us(&self) -> u64 {
        u64::try_from(self.limits.authentication.as_micros()).unwrap_or(u64::MAX / 2)
    }

    /// The longest argument: a value may not take more than a sixteenth of the memory there is.
    pub(super) fn bulk_max(&self) -> usize {
        setting(&self.engine.settings.proto_max_bulk_len).min(self.engine.store.value_limit())
    }

    /// The largest request that may be under way on one connection, in bytes.
    pub(super) fn input_max(&self) -> usize {
        let budget = usize::try_from(self.buffers_max()).unwrap_or(usize::MAX);
        setting(&self.engine.settings.client_query_buffer_limit).min(budget)
    }

    /// How much may wait to be sent to a client.
    pub(super) fn output_limit(&self, class: Class) -> &OutputLimit {
        self.engine.settings.output_limit(match class {
            Class::Normal => OutputClass::Normal,
            Class::PubSub => OutputClass::PubSub,
        })
    }

    /// Whether connections' buffers take all that they may.
    pub(super) fn is_budget_spent(&self) -> bool {
        self.budget.used() > self.buffers_max()
    }

    /// What connections' buffers may take together: a quarter of the memory there is, unless less was said.
    fn buffers_max(&self) -> u64 {
        match self.engine.store.limit() {
            0 => self.limits.buffers_max,
            limit => self.limits.buffers_max.min(limit / 4),
        }
    }
}

/// A setting that is a size, a number or a time: none of these is negative.
pub(super) fn setting(cell: &AtomicI64) -> usize {
    usize::try_from(cell.load(Ordering::Relaxed)).unwrap_or(0)
}

/// One worker's part of a server.
#[derive(Debug)]
pub(super) struct Worker {
    pub(super) index: usize,
    pub(super) shared: Arc<Shared>,
    pub(super) pool: Pool,
    pub(super) tally: Arc<Tally>,
    doorbells: Mutex<BTreeMap<ClientId, Arc<Doorbell>>>,
}

impl Worker {
    pub(super) fn new(index: usize, shared: Arc<Shared>) -> Self {
        let tally = shared.engine.totals.tally();
        Self { index, shared, pool: Pool::default(), tally, doorbells: Mutex::default() }
    }

    pub(super) fn register(&self, client: ClientId, doorbell: Arc<Doorbell>) {
        self.doorbells.lock().unwrap_or_else(PoisonError::into_inner).insert(client, doorbell);
    }

    pub(super) fn unregister(&self, client: ClientId) {
        self.doorbells.lock().unwrap_or_else(PoisonError::into_inner).remove(&client);
    }

    fn each_doorbell(&self, visit: impl Fn(&Doorbell)) {
        let doorbells = self.doorbells.lock().unwrap_or_else(PoisonError::into_inner);
        doorbells.values().for_each(|doorbell| visit(doorbell));
    }

    /// Serves until `stop` says to stop. Blocks the thread.
    ///
    /// # Errors
    /// If the runtime cannot be made, or a listener not be watched.
    pub(super) fn run(
        self: &Arc<Self>,
        listeners: Vec<Listener>,
        incoming: UnboundedReceiver<Accepted>,
        hand_over: &super::HandOver,
        mut stop: watch::Receiver<bool>,
    ) -> io::Result<()> {
        let _guard = AbortOnPanic;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let served = runtime.block_on(async {
            for listener in listeners {
                let worker = Arc::clone(self);
                tokio::spawn(accept(listener.watch()?, worker, hand_over.clone()));
            }
            tokio::spawn(Arc::clone(self).take_in(incoming));
            tokio::spawn(Arc::clone(self).tend());
            // The sender is dropped only with the server: that means to stop as well.
            let _ = stop.wait_for(|stop| *stop).await;
            self.stop().await;
            Ok(())
        });
        runtime.shutdown_background();
        served
    }

    async fn stop(&self) {
        self.shared.is_stopping.store(true, Ordering::Relaxed);
        let patience = async {
            loop {
                self.each_doorbell(Doorbell::ring);
                if self.doorbells.lock().unwrap_or_else(PoisonError::into_inner).is_empty() {
                    break;
                }
                tokio::time::sleep(TICK).await;
            }
        };
        let _ = tokio::time::timeout(STOP_PATIENCE, patience).await;
    }

    async fn take_in(self: Arc<Self>, mut incoming: UnboundedReceiver<Accepted>) {
        while let Some(accepted) = incoming.recv().await {
            let _guard = AbortOnPanic;
            self.begin(accepted);
        }
    }

    /// Begins to serve a connection.
    fn begin(self: &Arc<Self>, accepted: Accepted) {
        let Accepted { stream, origin, tls } = accepted;
        let begun = match (stream, tls) {
            (Stream::Unix(stream), _) => tokio::net::UnixStream::from_std(stream)
                .map(|stream| drop(tokio::spawn(self.connection(stream, origin)))),
            (Stream::Tcp(stream), None) => tokio::net::TcpStream::from_std(stream)
                .map(|stream| drop(tokio::spawn(self.connection(stream, origin)))),
            (Stream::Tcp(stream), Some(acceptor)) => {
                tokio::net::TcpStream::from_std(stream).map(|stream| {
                    drop(tokio::spawn(Arc::clone(self).greet(stream, origin, acceptor)));
                })
            }
        };
        if let Err(error) = begun {
            tracing::warn!(%error, "a connection could not be watched");
            self.shared.has_left();
        }
    }

    /// Goes through TLS's greetings, and serves the connection.
    async fn greet(
        self: Arc<Self>,
        stream: tokio::net::TcpStream,
        origin: Origin,
        acceptor: TlsAcceptor,
    ) {
        let patience = Duration::from_micros(self.shared.authentication_us());
        match tokio::time::timeout(patience, acceptor.accept(stream)).await {
            Ok(Ok(stream)) => self.connection(stream, origin).await,
            Ok(Err(error)) => {
                tracing::debug!(%error, "no TLS");
                self.shared.has_left();
            }
            Err(_) => self.shared.has_left(),
        }
    }

    fn connection<S>(self: &Arc<Self>, stream: S, origin: Origin) -> Connection<S>
    where
        S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
    {
        let engine = &self.shared.engine;
        let doorbell = Arc::new(Doorbell::new());
        let ring = Arc::clone(&doorbell);
        let now = engine.clock.now();
        let outbox = Outbox::new(Box::new(move || ring.ring()));
        let client = engine.clients.connect(origin, now, outbox);
        let session = Session::new(engine, client, Arc::clone(&self.tally));
        self.tally.add(Counter::ConnectionsReceived, 1);
        Connection::new(stream, Arc::clone(self), session, doorbell, now)
    }

    /// Does what is due, again and again.
    async fn tend(self: Arc<Self>) {
        let _guard = AbortOnPanic;
        let mut ticks = tokio::time::interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let workers = self.shared.workers;
        let shards = (0..SHARDS).filter(|shard| usize::from(*shard) % workers == self.index);
        let shards: Vec<u16> = shards.collect();
        let mut tick = 0_u64;
        loop {
            ticks.tick().await;
            tick += 1;
            let mut slices = 0_u32;
            for shard in &shards {
                while self.shared.engine.advance(*shard, SLICE) {
                    slices += 1;
                    if slices.is_multiple_of(SLICES_A_BREATH) {
                        tokio::time::sleep(BREATH).await;
                    } else {
                        tokio::task::yield_now().await;
                    }
                }
            }
            if tick.is_multiple_of(TICKS_A_REVIEW) {
                self.review(tick);
            }
        }
    }

    /// Looks after deadlines of connections; the first worker, after the process as well.
    fn review(&self, tick: u64) {
        let engine = &self.shared.engine;
        let now = engine.clock.now();
        self.each_doorbell(|doorbell| doorbell.ring_if_due(now.monotonic_us));
        if self.index > 0 {
            return;
        }
        let resident = resident_bytes();
        if let Some(bytes) = resident {
            engine.store.report_resident(bytes);
        }
        if tick.is_multiple_of(TICKS_A_SECOND) {
            engine.totals.note_process(|process| super::process::learn_again(process, resident));
        }
        if let (true, Some(clock)) = (tick.is_multiple_of(TICKS_A_SECOND), &self.shared.clock) {
            clock.follow_wall();
        }
    }
}

/// Stops the process when a panic unwinds through it: what a command has half done must never be served, and a thread that is
/// gone would leave its connections hanging. The panic's own message has been written by then.
pub(super) struct AbortOnPanic;

impl Drop for AbortOnPanic {
    fn drop(&mut self) {
        if std::thread::panicking() {
            std::process::abort();
        }
    }
}

/// What the process occupies, in bytes; None where the system does not tell.
#[expect(
    clippy::disallowed_methods,
    reason = "the edge reads what the kernel tells of the process"
)]
fn resident_bytes() -> Option<u64> {
    let text = std::fs::read("/proc/self/statm").ok()?;
    let pages = std::str::from_utf8(&text).ok()?.split(' ').nth(1)?.parse::<u64>().ok()?;
    Some(pages * rustix::param::page_size() as u64)
}
