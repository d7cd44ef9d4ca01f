//! The network edge: sockets, TLS, a thread for each core.
//!
//! ```text
//!              accept (first worker)
//!                 │ in turn
//!      ┌──────────┼──────────┐
//!   worker 0   worker 1   worker 2 …      each: one thread, one runtime, its connections, its shards' timers
//!      └──────────┼──────────┘
//!          Engine: store in shards, registries
//! ```
//!
//! A connection stays with the worker that it was given to; what its commands touch is shared, shard by shard. Nothing here
//! decides what a command does: that is the session's, which is pure. This module moves bytes, keeps limits, and tells the time.
//!
//! A panic stops the process. A command that failed half-way would leave a shard of which nobody knows what is true, and the locks
//! of the store ignore poisoning in reliance on this.

mod buffers;
pub mod clock;
mod connection;
mod listen;
mod process;
pub mod tls;
mod worker;

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::sync::{mpsc, watch};

use self::clock::SystemClock;
use self::listen::{Accepted, Listener, SocketPath, TlsAcceptorHandle};
use self::tls::TlsOptions;
use self::worker::{Shared, Worker};
use crate::engine::Engine;

/// The most threads that are used unless told otherwise.
const THREADS_MAX: usize = 8;

/// Descriptors that are kept for other things than connections.
const DESCRIPTORS_RESERVED: u64 = 64;

/// What connections may take beyond what the settings say (`maxclients`, `timeout`, `proto-max-bulk-len`,
/// `client-query-buffer-limit`, `client-output-buffer-limit`).
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// What the buffers of all connections may take together, in bytes. With a memory limit it is no more than a quarter of that.
    pub buffers_max: u64,
    /// How long a client may take to authenticate, and for TLS's greetings.
    pub authentication: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self { buffers_max: 4 * 1024 * 1024 * 1024, authentication: Duration::from_secs(5) }
    }
}

/// Where a Unix socket is, and who may use it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnixSocket {
    /// Its path.
    pub path: PathBuf,
    /// Its permissions, as `chmod` has them; None for what the process gives its files.
    pub mode: Option<u32>,
}

/// What a server is bound with.
#[derive(Clone, Debug, Default)]
pub struct ServerOptions {
    /// Ports for connections in the clear; a port of 0 takes a free one.
    pub listen: Vec<SocketAddr>,
    /// A port for encrypted connections.
    pub listen_tls: Option<(SocketAddr, TlsOptions)>,
    /// A path for connections from this machine.
    pub unix_socket: Option<UnixSocket>,
    /// How many threads serve; None for one a core, at most 8.
    pub threads: Option<usize>,
    /// What clients may take.
    pub limits: Limits,
    /// The engine's clock, if the server is to lead it after the wall clock.
    pub clock: Option<Arc<SystemClock>>,
}

/// Why a server cannot be bound.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BindError {
    /// Somebody else has the port.
    #[error("port {} is taken: something else listens on {address}", address.port())]
    AddressInUse {
        /// The address that is taken.
        address: SocketAddr,
        /// What the operating system says.
        source: io::Error,
    },
    /// The address cannot be had.
    #[error("cannot listen on {address}")]
    Address {
        /// The address.
        address: SocketAddr,
        /// What the operating system says.
        source: io::Error,
    },
    /// The Unix socket cannot be made.
    #[error("cannot listen on {}", path.display())]
    UnixSocket {
        /// The path.
        path: PathBuf,
        /// What the operating system says.
        source: io::Error,
    },
    /// A certificate or key cannot be used.
    #[error("cannot use {} for TLS", path.display())]
    Tls {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A thread cannot be started.
    #[error("cannot start a thread")]
    Thread(#[source] io::Error),
}

impl BindError {
    fn tls(path: &Path, source: impl std::error::Error + Send + Sync + 'static) -> Self {
        Self::Tls { path: path.to_owned(), source: Box::new(source) }
    }
}

/// Gives connections to workers, in turn.
#[derive(Clone)]
struct HandOver {
    workers: Arc<[mpsc::UnboundedSender<Accepted>]>,
    next: Arc<AtomicUsize>,
}

impl HandOver {
    /// False if the worker is gone. What waits to be taken in is bounded by the number of connections.
    fn give(&self, accepted: Accepted) -> bool {
        let turn = self.next.fetch_add(1, Ordering::Relaxed) % self.workers.len();
        self.workers[turn].send(accepted).is_ok()
    }
}

/// A server that has its ports and does not serve yet.
pub struct Server {
    listeners: Vec<Listener>,
    addresses: Vec<SocketAddr>,
    tls_address: Option<SocketAddr>,
    socket_path: Option<SocketPath>,
    shared: Arc<Shared>,
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server").field("addresses", &self.addresses).finish_non_exhaustive()
    }
}

impl Server {
    /// Takes the ports.
    ///
    /// # Errors
    /// If one cannot be had, or a file of TLS not be read.
    pub fn bind(options: ServerOptions, engine: Arc<Engine>) -> Result<Self, BindError> {
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let workers = options.threads.unwrap_or(cores.min(THREADS_MAX)).max(1);
        let mut listeners = Vec::new();
        let mut addresses = Vec::new();
        for address in options.listen {
            let listener = listen::bind_tcp(address)?;
            addresses.push(listener.local_addr().unwrap_or(address));
            listeners.push(Listener::Tcp(listener));
        }
        let mut tls_address = None;
        if let Some((address, tls)) = options.listen_tls {
            let acceptor = tls::acceptor(&tls)?;
            let listener = listen::bind_tcp(address)?;
            tls_address = Some(listener.local_addr().unwrap_or(address));
            listeners.push(Listener::Tls(listener, TlsAcceptorHandle(acceptor)));
        }
        let mut socket_path = None;
        if let Some(socket) = options.unix_socket {
            listeners.push(Listener::Unix(listen::bind_unix(&socket.path, socket.mode)?));
            socket_path = Some(SocketPath(socket.path));
        }
        let shared = Shared::new(engine, options.limits, options.clock, workers);
        shared.announce(addresses.first(), tls_address, socket_path.as_ref().map(|it| &*it.0));
        let shared = Arc::new(shared);
        Ok(Self { listeners, addresses, tls_address, socket_path, shared })
    }

    /// The first address in the clear.
    #[must_use]
    pub fn local_addr(&self) -> Option<SocketAddr> {
        self.addresses.first().copied()
    }

    /// The address for encrypted connections.
    #[must_use]
    pub fn tls_addr(&self) -> Option<SocketAddr> {
        self.tls_address
    }

    /// Begins to serve, on threads of its own.
    ///
    /// # Errors
    /// If a thread cannot be started.
    pub fn start(self) -> Result<RunningServer, BindError> {
        let (stop, stopped) = watch::channel(false);
        let count = self.shared.workers;
        let (senders, receivers): (Vec<_>, Vec<_>) =
            (0..count).map(|_| mpsc::unbounded_channel()).unzip();
        let hand_over = HandOver { workers: senders.into(), next: Arc::default() };
        let mut listeners = self.listeners;
        let mut running = RunningServer {
            stop,
            threads: Vec::new(),
            addresses: self.addresses,
            tls_address: self.tls_address,
            shared: Arc::clone(&self.shared),
            _socket_path: self.socket_path,
        };
        for (index, incoming) in receivers.into_iter().enumerate() {
            let worker = Arc::new(Worker::new(index, Arc::clone(&self.shared)));
            let (hand_over, stopped) = (hand_over.clone(), stopped.clone());
            let listeners = std::mem::take(&mut listeners);
            let work = move || worker.run(listeners, incoming, &hand_over, stopped);
            running.threads.push(start_thread(index, work).map_err(BindError::Thread)?);
        }
        Ok(running)
    }
}

#[expect(clippy::disallowed_methods, reason = "workers are threads of the edge")]
fn start_thread(
    index: usize,
    work: impl FnOnce() -> io::Result<()> + Send + 'static,
) -> io::Result<JoinHandle<io::Result<()>>> {
    std::thread::Builder::new().name(format!("cache-{index}")).spawn(work)
}

/// A server that serves, until it is stopped or dropped.
pub struct RunningServer {
    stop: watch::Sender<bool>,
    threads: Vec<JoinHandle<io::Result<()>>>,
    addresses: Vec<SocketAddr>,
    tls_address: Option<SocketAddr>,
    shared: Arc<Shared>,
    _socket_path: Option<SocketPath>,
}

impl fmt::Debug for RunningServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RunningServer").field("addresses", &self.addresses).finish_non_exhaustive()
    }
}

impl RunningServer {
    /// The first address in the clear.
    #[must_use]
    pub fn local_addr(&self) -> Option<SocketAddr> {
        self.addresses.first().copied()
    }

    /// The address for encrypted connections.
    #[must_use]
    pub fn tls_addr(&self) -> Option<SocketAddr> {
        self.tls_address
    }

    /// How many connections there are.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.shared.connections()
    }

    /// Stops, and waits until it has: for half a second and a little at most.
    ///
    /// # Errors
    /// If a worker could not serve.
    pub fn stop(mut self) -> io::Result<()> {
        self.finish()
    }

    fn finish(&mut self) -> io::Result<()> {
        let _ = self.stop.send(true);
        let mut result = Ok(());
        for thread in self.threads.drain(..) {
            let served = thread.join().expect("a worker that panics stops the process");
            result = result.and(served);
        }
        result
    }
}

impl Drop for RunningServer {
    fn drop(&mut self) {
        // Whoever wants to know how it went calls `stop`.
        let _ = self.finish();
    }
}

/// How many connections the limit of open descriptors allows, once it is raised as far as may be. None: as many as one likes.
fn connections_possible() -> Option<usize> {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let before = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: before.maximum, maximum: before.maximum };
    let granted = match setrlimit(Resource::Nofile, raised) {
        Ok(()) => before.maximum,
        Err(_) => before.current,
    };
    granted.map(|granted| {
        usize::try_from(granted.saturating_sub(DESCRIPTORS_RESERVED)).unwrap_or(usize::MAX)
    })
}
