//! Messages between nodes over gRPC.
//!
//! ```text
//!          node1                                                  node2
//!  send ─▶ queue ─▶ link ══ Messages(stream Frame) ═════════════▶ reception ─▶ inbox of the group
//!       └▶ queue ─▶ link ══ Snapshot(stream Frame), separately ═▶ reception ─▶ inbox of the group
//!  inbox ◀─ reception ◀══════════════════ Messages, Snapshot ════ link ◀─ queue ◀─ send
//! ```
//!
//! A node sends only on streams that it opened and receives only on those that were opened to it,
//! so no two nodes ever have to agree on who connects. A stream begins with a greeting on both
//! sides: cluster, node, data directory, protocol version; every message after it must agree with
//! the greeting. What keeps one peer from harming another or this node:
//!
//! - `send` puts into a bounded queue per peer and never waits (`grpc/queue.rs`); votes and
//!   heartbeats overtake entries, and snapshots have a connection of their own. All groups share
//!   it and take turns; each has room of its own (`grpc/lanes.rs`).
//! - Urgent messages that wait at the same time travel in one frame. Heartbeats that nobody waits
//!   for may be kept back a little, so that those of many groups do ([`Timing::gather`]).
//! - Messages travel in pieces of at most 1 MiB, checksummed, and are put together under a bound
//!   (`frame.rs`). No declared length is believed, and what does not parse ends that one
//!   stream with a status that says why (`wire.rs`).
//! - A connection has to be admitted by a valid greeting within seconds, handshakes are
//!   rate-limited by address, and connections and streams are counted: no address can hold the
//!   places of all others by saying nothing (`grpc/listen.rs`, `grpc/reception.rs`).
//! - A link that fails, or whose stream does not last, is tried again with exponential backoff and
//!   jitter; what waited meanwhile is dropped, since Raft sends anew what still matters
//!   (`grpc/link.rs`).
//!
//! Not here yet: TLS. Without it, whoever reaches the port can claim to be a peer: bind loopback or
//! a private network.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::fmt;
use std::net::{SocketAddr, TcpListener};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Duration;

use futures::future::BoxFuture;
use thiserror::Error;
use tokio::runtime::Handle;
use tokio::sync::{Semaphore, oneshot, watch};
use tokio::task::{AbortHandle, JoinHandle};
use tonic::body::Body;
use tonic::codegen::{Context, Poll, Service, http};

use self::lanes::LaneLimits;
use self::link::{Address, Link};
pub use self::listen::Connection;
use self::listen::{HandshakeRates, Shares};
use self::queue::Queue;
use self::reception::{PeerServer, Throttle};
use super::{Inbox, Transport, frame, generated, wire};
use crate::message::{Envelope, Message};
use crate::types::{ClusterId, GroupId, NodeId, StoreId};

mod lanes;
mod link;
mod listen;
mod queue;
mod reception;

/// The target of this module's log lines.
const TARGET: &str = "raft_consensus::transport";

/// Who a node is, to its peers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The cluster it belongs to.
    pub cluster: ClusterId,
    /// Its id in that cluster.
    pub node: NodeId,
    /// Its data directory.
    pub store: StoreId,
}

/// Decides whether a node may speak with the data directory that it claims. An error is the text
/// that the node is refused with.
pub type Admit = Arc<dyn Fn(NodeId, StoreId) -> Result<(), String> + Send + Sync>;

/// What a [`GrpcTransport`] is made from. [`GrpcOptions::new`] gives defaults for everything but
/// the identity.
pub struct GrpcOptions {
    /// Who this node is.
    pub identity: Identity,
    /// Where peers are accepted: sockets that are bound already, on as many addresses as wanted.
    pub listeners: Vec<TcpListener>,
    /// The other nodes and where they can be reached, as `http://host:port` or `host:port`; several
    /// addresses of one node are tried in turn. Messages of nodes that are not listed here are
    /// refused.
    pub peers: BTreeMap<NodeId, Vec<String>>,
    /// Asked about every node that opens a stream, after all other checks.
    pub admit: Admit,
    /// Bounds on memory and connections.
    pub limits: Limits,
    /// How long things may take.
    pub timing: Timing,
    /// Seeds the jitter of reconnections. Nodes should differ.
    pub seed: u64,
}

/// Bounds on memory and connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// The longest message that is sent or accepted, in bytes.
    pub message_max: usize,
    /// Messages of one group that wait for one peer, in each of its lanes.
    pub queue_messages: usize,
    /// Bytes of one group that wait for one peer, in each of its lanes.
    pub queue_bytes: usize,
    /// Messages of all groups that wait for one peer, in each of its lanes.
    pub peer_messages: usize,
    /// Bytes of all groups that wait for one peer, in each of its lanes.
    pub peer_bytes: usize,
    /// Connections that are open to this node.
    pub connections: usize,
    /// Streams of one connection.
    pub streams: u32,
    /// Connections from one address that nobody has admitted yet.
    pub strangers_per_address: usize,
    /// Greetings that are being waited for.
    pub handshakes: usize,
    /// Of these, from one address.
    pub handshakes_per_address: usize,
    /// Handshakes per second from one address; twice as many may come at once.
    pub handshakes_per_second: u32,
}

/// How long things may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timing {
    /// To connect to a peer and be welcomed.
    pub connect: Duration,
    /// Until an accepted connection has brought a valid greeting.
    pub handshake: Duration,
    /// Silence on a connection before it is probed.
    pub keep_alive: Duration,
    /// Until the answer to a probe, else the connection is dead.
    pub keep_alive_answer: Duration,
    /// Before the second try to connect. Doubles with every try after that, until a stream has lasted for `backoff_max`.
    pub backoff_min: Duration,
    /// The longest time between two tries.
    pub backoff_max: Duration,
    /// How long a heartbeat that nobody waits for, or the answer to one, is kept back for those of other groups, to travel
    /// with them; a quarter of the heartbeat's interval at most, else no node starts on this transport. Zero, the default, keeps nothing back. Elections, entries, their
    /// acknowledgements and reads never wait.
    pub gather: Duration,
    /// Without a chunk until a snapshot connection is closed.
    pub snapshot_idle: Duration,
    /// Until [`GrpcTransport::shutdown`] stops waiting and aborts.
    pub shutdown: Duration,
}

/// Why a transport cannot be set up.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum GrpcError {
    /// Called outside a tokio runtime.
    #[error("the gRPC transport needs a tokio runtime")]
    NoRuntime(#[source] tokio::runtime::TryCurrentError),
    /// A listener that cannot be used.
    #[error("cannot listen")]
    Listen(#[source] std::io::Error),
    /// A peer's address that is none.
    #[error("{url:?} is not the address of a peer: {reason}")]
    Address {
        /// The address.
        url: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The listeners are served already.
    #[error("the transport is served already")]
    Served,
}

/// What happened between this node and one peer since the transport was made.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PeerStats {
    /// Whether the stream for messages to the peer is open.
    pub connected: bool,
    /// How often a stream to the peer was opened.
    pub connects: u64,
    /// Messages handed to a stream.
    pub sent: u64,
    /// Frames they were in: a large message takes several, and small ones travel together.
    pub frames: u64,
    /// Messages that came from the peer.
    pub received: u64,
    /// Messages dropped here: the queue was full, or there was no connection.
    pub dropped: u64,
    /// Why the last connection ended or the last try failed.
    pub last_error: Option<String>,
}

/// What happened since the transport was made.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TransportStats {
    /// By peer.
    pub peers: BTreeMap<NodeId, PeerStats>,
    /// Connections refused because there were too many, in all or from one address.
    pub connections_refused: u64,
    /// Streams refused: a wrong greeting, or too many of them.
    pub handshakes_refused: u64,
    /// Streams ended because of what came in them.
    pub violations: u64,
    /// Messages for a group that nobody registered.
    pub unknown_group: u64,
}

/// The gRPC transport of one node. Dropping it closes every connection.
pub struct GrpcTransport {
    shared: Arc<Shared>,
    runtime: Handle,
    listeners: Mutex<Vec<tokio::net::TcpListener>>,
    local_addresses: Vec<SocketAddr>,
    served: AtomicBool,
    servers: Mutex<Vec<JoinHandle<()>>>,
    seed: u64,
}

/// The gRPC service that receives peers' messages, to be mounted beside others.
#[derive(Clone)]
pub struct PeerService(PeerServer);

/// What the transport's tasks have in common.
struct Shared {
    identity: Identity,
    admit: Admit,
    limits: Limits,
    timing: Timing,
    groups: RwLock<BTreeMap<GroupId, Inbox>>,
    peers: RwLock<BTreeMap<NodeId, Peer>>,
    /// The stream on which each peer is heard. Replacing a sender ends the stream that waits on its
    /// other half.
    heard: Mutex<BTreeMap<(NodeId, StreamKind), oneshot::Sender<()>>>,
    connections: Arc<Semaphore>,
    /// Of them, those that nobody has admitted.
    strangers: Arc<Shares>,
    handshakes: Semaphore,
    /// Whose these are.
    greeters: Arc<Shares>,
    rates: Mutex<HandshakeRates>,
    complaints: Throttle,
    closing: watch::Sender<bool>,
    connections_refused: AtomicU64,
    handshakes_refused: AtomicU64,
    violations: AtomicU64,
    unknown_group: AtomicU64,
}

/// The two kinds of stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum StreamKind {
    Messages,
    Snapshot,
}

/// What is sent to one peer, and by whom. Dropping it stops the links.
struct Peer {
    urls: Vec<String>,
    messages: Arc<Queue>,
    snapshot: Arc<Queue>,
    counters: Arc<Counters>,
    links: Vec<AbortHandle>,
}

#[derive(Debug, Default)]
struct Counters {
    connected: AtomicBool,
    connects: AtomicU64,
    sent: AtomicU64,
    frames: AtomicU64,
    received: AtomicU64,
    dropped: AtomicU64,
    last_error: Mutex<Option<String>>,
}

impl GrpcOptions {
    /// Default limits and times, no listener, no peer, everybody admitted, and a seed from the
    /// operating system.
    #[must_use]
    pub fn new(identity: Identity) -> Self {
        use std::hash::{BuildHasher as _, RandomState};
        Self {
            identity,
            listeners: Vec::new(),
            peers: BTreeMap::new(),
            admit: Arc::new(|_, _| Ok(())),
            limits: Limits::default(),
            timing: Timing::default(),
            seed: RandomState::new().hash_one(identity.node),
        }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            message_max: 64 << 20,
            queue_messages: 4096,
            queue_bytes: 64 << 20,
            peer_messages: 64 << 10,
            peer_bytes: 128 << 20,
            connections: 256,
            streams: 64,
            strangers_per_address: 64,
            handshakes: 16,
            handshakes_per_address: 4,
            handshakes_per_second: 64,
        }
    }
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(3),
            handshake: Duration::from_secs(5),
            keep_alive: Duration::from_secs(2),
            keep_alive_answer: Duration::from_secs(4),
            backoff_min: Duration::from_millis(50),
            backoff_max: Duration::from_secs(1),
            gather: Duration::ZERO,
            snapshot_idle: Duration::from_secs(30),
            shutdown: Duration::from_secs(2),
        }
    }
}

impl GrpcTransport {
    /// Takes over the listeners and begins to connect to the peers. Nobody is accepted before
    /// [`Self::serve`] or [`Self::serve_with`].
    ///
    /// # Errors
    ///
    /// Outside a tokio runtime with I/O and time, and for listeners and addresses that cannot be
    /// used.
    pub fn bind(options: GrpcOptions) -> Result<Arc<Self>, GrpcError> {
        let runtime = Handle::try_current().map_err(GrpcError::NoRuntime)?;
        let mut listeners = Vec::new();
        let mut local_addresses = Vec::new();
        for listener in options.listeners {
            listener.set_nonblocking(true).map_err(GrpcError::Listen)?;
            let listener =
                tokio::net::TcpListener::from_std(listener).map_err(GrpcError::Listen)?;
            local_addresses.push(listener.local_addr().map_err(GrpcError::Listen)?);
            listeners.push(listener);
        }
        let transport = Arc::new(Self {
            shared: Arc::new(Shared::new(
                options.identity,
                options.admit,
                options.limits,
                options.timing,
            )),
            runtime,
            listeners: Mutex::new(listeners),
            local_addresses,
            served: AtomicBool::new(false),
            servers: Mutex::new(Vec::new()),
            seed: options.seed,
        });
        transport.set_peers(options.peers)?;
        Ok(transport)
    }

    /// Where peers are accepted, in the order of the listeners.
    #[must_use]
    pub fn local_addresses(&self) -> &[SocketAddr] {
        &self.local_addresses
    }

    /// The gRPC service, for [`Self::serve_with`] or a server of the caller's own. A server of the
    /// caller's own has to bound its connections itself.
    #[must_use]
    pub fn service(&self) -> PeerService {
        PeerService(reception::server(Arc::clone(&self.shared)))
    }

    /// Accepts peers on the listeners.
    ///
    /// # Errors
    ///
    /// [`GrpcError::Served`] the second time.
    pub fn serve(&self) -> Result<(), GrpcError> {
        self.serve_with(self.service())
    }

    /// Accepts connections on the listeners for `service`, in which [`Self::service`] is mounted
    /// beside others. Those have to [admit](Connection::admit) the connections that may stay.
    ///
    /// # Errors
    ///
    /// [`GrpcError::Served`] the second time.
    pub fn serve_with<S>(&self, service: S) -> Result<(), GrpcError>
    where
        S: Service<http::Request<Body>, Response = http::Response<Body>, Error = Infallible>
            + Clone
            + Send
            + 'static,
        S::Future: Send,
    {
        if self.served.swap(true, Ordering::Relaxed) {
            return Err(GrpcError::Served);
        }
        let listeners = std::mem::take(&mut *lock(&self.listeners));
        let serve = |listener| {
            self.runtime.spawn(listen::serve(Arc::clone(&self.shared), listener, service.clone()))
        };
        lock(&self.servers).extend(listeners.into_iter().map(serve));
        Ok(())
    }

    /// Replaces the peers. Those that stay with the same addresses keep their connections; the
    /// others' are closed.
    ///
    /// # Errors
    ///
    /// [`GrpcError::Address`]; then nothing is changed.
    pub fn set_peers(&self, peers: BTreeMap<NodeId, Vec<String>>) -> Result<(), GrpcError> {
        let mut addresses = BTreeMap::new();
        for (node, urls) in &peers {
            let parsed = urls.iter().map(|url| Address::parse(url, &self.shared.timing));
            addresses.insert(*node, parsed.collect::<Result<Vec<_>, _>>()?);
        }
        let mut current = self.shared.peers.write().unwrap_or_else(PoisonError::into_inner);
        let known: BTreeMap<_, _> =
            current.iter().map(|(node, peer)| (*node, Arc::clone(&peer.counters))).collect();
        current.retain(|node, peer| peers.get(node) == Some(&peer.urls));
        lock(&self.shared.heard).retain(|(node, _), _| peers.contains_key(node));
        for (node, urls) in peers {
            if node != self.shared.identity.node && !current.contains_key(&node) {
                let addresses = addresses.remove(&node).unwrap_or_default();
                // Numbers go on where a peer only moved.
                let counters = known.get(&node).map(Arc::clone).unwrap_or_default();
                current.insert(node, self.connect(node, urls, &addresses, counters));
            }
        }
        Ok(())
    }

    /// What happened so far.
    #[must_use]
    pub fn stats(&self) -> TransportStats {
        let shared = &self.shared;
        let peers = shared.peers.read().unwrap_or_else(PoisonError::into_inner);
        TransportStats {
            peers: peers.iter().map(|(node, peer)| (*node, peer.counters.read())).collect(),
            connections_refused: shared.connections_refused.load(Ordering::Relaxed),
            handshakes_refused: shared.handshakes_refused.load(Ordering::Relaxed),
            violations: shared.violations.load(Ordering::Relaxed),
            unknown_group: shared.unknown_group.load(Ordering::Relaxed),
        }
    }

    /// Closes every connection and listener. Takes at most [`Timing::shutdown`], whatever the peers
    /// do.
    pub async fn shutdown(&self) {
        self.close();
        let servers = std::mem::take(&mut *lock(&self.servers));
        let aborts: Vec<_> = servers.iter().map(JoinHandle::abort_handle).collect();
        let all = futures::future::join_all(servers);
        if tokio::time::timeout(self.shared.timing.shutdown, all).await.is_err() {
            aborts.iter().for_each(AbortHandle::abort);
        }
    }

    fn close(&self) {
        self.shared.closing.send_replace(true);
        self.shared.peers.write().unwrap_or_else(PoisonError::into_inner).clear();
        lock(&self.shared.heard).clear();
        lock(&self.listeners).clear();
    }

    /// Starts the links to a peer.
    fn connect(
        &self,
        node: NodeId,
        urls: Vec<String>,
        addresses: &[Address],
        counters: Arc<Counters>,
    ) -> Peer {
        let limits = &self.shared.limits;
        let bounds = LaneLimits {
            group_messages: limits.queue_messages,
            group_bytes: limits.queue_bytes,
            messages: limits.peer_messages,
            bytes: limits.peer_bytes,
        };
        let gather = self.shared.timing.gather;
        let queue = || Arc::new(Queue::new(bounds, gather));
        let mut peer =
            Peer { urls, messages: queue(), snapshot: queue(), counters, links: Vec::new() };
        peer.counters.connected.store(false, Ordering::Relaxed);
        if addresses.is_empty() || *self.shared.closing.borrow() {
            return peer;
        }
        for kind in [StreamKind::Messages, StreamKind::Snapshot] {
            let link = Link::new(
                Arc::clone(&self.shared),
                (node, kind),
                addresses.to_vec(),
                Arc::clone(peer.queue(kind)),
                Arc::clone(&peer.counters),
                self.seed,
            );
            peer.links.push(self.runtime.spawn(link.run()).abort_handle());
        }
        peer
    }
}

impl Transport for GrpcTransport {
    fn gathers(&self) -> Duration {
        self.shared.timing.gather
    }

    fn message_max(&self) -> usize {
        self.shared.limits.message_max
    }

    fn send(&self, envelope: Envelope) {
        let peers = self.shared.peers.read().unwrap_or_else(PoisonError::into_inner);
        let Some(peer) = peers.get(&envelope.to) else { return };
        let kind = if matches!(envelope.message, Message::SnapshotChunk { .. }) {
            StreamKind::Snapshot
        } else {
            StreamKind::Messages
        };
        let dropped = if peer.links.is_empty() { 1 } else { peer.queue(kind).push(envelope) };
        peer.counters.dropped.fetch_add(dropped, Ordering::Relaxed);
    }

    fn register(&self, group: GroupId, inbox: Inbox) {
        let mut groups = self.shared.groups.write().unwrap_or_else(PoisonError::into_inner);
        groups.insert(group, inbox);
    }
}

impl Drop for GrpcTransport {
    fn drop(&mut self) {
        self.close();
        lock(&self.servers).iter().for_each(JoinHandle::abort);
    }
}

impl Peer {
    fn queue(&self, kind: StreamKind) -> &Arc<Queue> {
        match kind {
            StreamKind::Messages => &self.messages,
            StreamKind::Snapshot => &self.snapshot,
        }
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        self.links.iter().for_each(AbortHandle::abort);
    }
}

impl Shared {
    fn new(identity: Identity, admit: Admit, limits: Limits, timing: Timing) -> Self {
        Self {
            identity,
            admit,
            limits,
            timing,
            groups: RwLock::default(),
            peers: RwLock::default(),
            heard: Mutex::default(),
            connections: Arc::new(Semaphore::new(limits.connections)),
            strangers: Shares::new(limits.strangers_per_address),
            handshakes: Semaphore::new(limits.handshakes),
            greeters: Shares::new(limits.handshakes_per_address),
            rates: Mutex::new(HandshakeRates::new(limits.handshakes_per_second)),
            complaints: Throttle::default(),
            closing: watch::Sender::new(false),
            connections_refused: AtomicU64::new(0),
            handshakes_refused: AtomicU64::new(0),
            violations: AtomicU64::new(0),
            unknown_group: AtomicU64::new(0),
        }
    }

    /// Ends when the transport closes.
    fn closed(&self) -> BoxFuture<'static, ()> {
        let mut closing = self.closing.subscribe();
        Box::pin(async move {
            // An error means that the transport is gone, which is closed too.
            let _ = closing.wait_for(|closing| *closing).await;
        })
    }

    /// The counters of a peer; `None` if the node is not one.
    fn counters(&self, node: NodeId) -> Option<Arc<Counters>> {
        let peers = self.peers.read().unwrap_or_else(PoisonError::into_inner);
        peers.get(&node).map(|peer| Arc::clone(&peer.counters))
    }

    /// Hands an envelope to its group.
    fn deliver(&self, envelope: Envelope) {
        let groups = self.groups.read().unwrap_or_else(PoisonError::into_inner);
        let inbox = groups.get(&envelope.group).cloned();
        drop(groups);
        match inbox {
            Some(inbox) => inbox.deliver(envelope),
            None => {
                self.unknown_group.fetch_add(1, Ordering::Relaxed);
            }
        }
    }
}

impl Counters {
    fn read(&self) -> PeerStats {
        PeerStats {
            connected: self.connected.load(Ordering::Relaxed),
            connects: self.connects.load(Ordering::Relaxed),
            sent: self.sent.load(Ordering::Relaxed),
            frames: self.frames.load(Ordering::Relaxed),
            received: self.received.load(Ordering::Relaxed),
            dropped: self.dropped.load(Ordering::Relaxed),
            last_error: lock(&self.last_error).clone(),
        }
    }
}

/// Locks. A holder that panicked cannot have left anything half changed in this module: every
/// change is one call.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl fmt::Debug for GrpcOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GrpcOptions")
            .field("identity", &self.identity)
            .field("listeners", &self.listeners)
            .field("peers", &self.peers)
            .field("limits", &self.limits)
            .field("timing", &self.timing)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for GrpcTransport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GrpcTransport")
            .field("identity", &self.shared.identity)
            .field("local_addresses", &self.local_addresses)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for PeerService {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PeerService")
    }
}

impl Service<http::Request<Body>> for PeerService {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Service::<http::Request<Body>>::poll_ready(&mut self.0, context)
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        self.0.call(request)
    }
}

impl tonic::server::NamedService for PeerService {
    const NAME: &'static str = PeerServer::NAME;
}
