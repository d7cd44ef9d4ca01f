//! One stream to one peer: connects, greets, sends what waits, and begins again when it breaks.

use std::error::Error as _;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use futures::Stream;
use rand_chacha::ChaCha8Rng;
use rand_core::{Rng as _, SeedableRng as _};
use tokio::sync::oneshot;
use tonic::transport::{Channel, Endpoint};
use tonic::{Status, Streaming};

use super::frame::{Lane, Pieces, Together};
use super::generated as pb;
use super::generated::peer_client::PeerClient;
use super::queue::Queue;
use super::{Counters, GrpcError, Shared, StreamKind, TARGET, Timing, lock, wire};
use crate::message::{Envelope, PROTOCOL_VERSION};
use crate::types::{ClusterId, NodeId};

/// A greeting and nothing more is what an acceptor answers.
pub(super) const GREETING_MAX: usize = 4096;
/// Of the tries to reach a peer that is away, or that does not stay, every so many is logged where an operator looks.
const WARN_EVERY: u32 = 32;
/// HTTP/2 windows: the default of 64 KiB would throttle a stream of entries.
pub(super) const STREAM_WINDOW: u32 = 2 << 20;
/// See [`STREAM_WINDOW`].
pub(super) const CONNECTION_WINDOW: u32 = 4 << 20;

/// Where a peer may be reached.
#[derive(Clone, Debug)]
pub(super) struct Address {
    /// Host and port, as they are logged.
    shown: String,
    endpoint: Endpoint,
}

impl Address {
    /// Of `http://host:port` or `host:port`.
    pub(super) fn parse(url: &str, timing: &Timing) -> Result<Self, GrpcError> {
        let wrong = |reason: String| GrpcError::Address { url: url.to_owned(), reason };
        let full = match url.split_once("://") {
            None => format!("http://{url}"),
            Some(("http", _)) => url.to_owned(),
            Some((scheme, _)) => return Err(wrong(format!("{scheme} is not supported, use http"))),
        };
        let endpoint = Endpoint::from_shared(full).map_err(|error| wrong(error.to_string()))?;
        let authority = endpoint.uri().authority().filter(|authority| authority.port().is_some());
        let shown = authority.ok_or_else(|| wrong("no port".to_owned()))?.to_string();
        let endpoint = endpoint
            .connect_timeout(timing.connect)
            .tcp_nodelay(true)
            .http2_keep_alive_interval(timing.keep_alive)
            .keep_alive_timeout(timing.keep_alive_answer)
            .keep_alive_while_idle(true)
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW);
        Ok(Self { shown, endpoint })
    }
}

/// The task behind one stream to one peer.
pub(super) struct Link {
    shared: Arc<Shared>,
    peer: NodeId,
    kind: StreamKind,
    addresses: Vec<Address>,
    queue: Arc<Queue>,
    counters: Arc<Counters>,
    backoff: Backoff,
}

/// Why there is no stream.
struct Failure {
    text: String,
    /// What lies below `text`, if that says little.
    cause: Option<String>,
}

/// How a stream that was open ended.
enum End {
    /// On our own initiative: nothing was left to send.
    Idle,
    /// Everything else.
    Lost(String),
}

impl Link {
    pub(super) fn new(
        shared: Arc<Shared>,
        (peer, kind): (NodeId, StreamKind),
        addresses: Vec<Address>,
        queue: Arc<Queue>,
        counters: Arc<Counters>,
        seed: u64,
    ) -> Self {
        assert!(!addresses.is_empty(), "a link goes somewhere");
        let stream = peer.0.wrapping_mul(2).wrapping_add(u64::from(kind == StreamKind::Snapshot));
        let backoff = Backoff::new(&shared.timing, seed, stream);
        Self { shared, peer, kind, addresses, queue, counters, backoff }
    }

    /// Keeps the stream open for ever. Stopped by aborting the task.
    ///
    /// A welcome alone proves little: a peer may refuse the first message after it, or two nodes that take each other's place may be
    /// welcomed in turn. Only a stream that has lasted lets the next try come soon.
    pub(super) async fn run(mut self) {
        // Tries since a stream has lasted.
        let mut failures = 0_u32;
        loop {
            if self.kind == StreamKind::Snapshot {
                self.queue.ready().await;
            }
            let (mut connected, mut has_lasted) = (false, false);
            for address in self.addresses.clone() {
                match self.open(&address).await {
                    Ok((answers, open)) => {
                        connected = true;
                        has_lasted = self.converse(&address, answers, open, failures).await;
                        break;
                    }
                    Err(failure) => self.report(&address, failure, failures),
                }
            }
            if !connected {
                // What waits was meant for a moment that has passed.
                self.drop_waiting();
            }
            if has_lasted {
                failures = 0;
                self.backoff.reset();
            } else {
                failures = failures.wrapping_add(1);
            }
            tokio::time::sleep(self.backoff.next()).await;
        }
    }

    /// Connects and greets. The sender returned lets messages flow.
    async fn open(
        &self,
        address: &Address,
    ) -> Result<(Streaming<pb::Welcome>, oneshot::Sender<()>), Failure> {
        let limit = self.shared.timing.connect;
        let attempt = async {
            let channel = address.endpoint.connect().await.map_err(Failure::from_transport)?;
            let (open, gate) = oneshot::channel();
            let mut answers = self.greet(channel, gate).await.map_err(Failure::from_status)?;
            let welcome = answers.message().await.map_err(Failure::from_status)?;
            let welcome = welcome.ok_or_else(|| Failure::new("closed before a welcome"))?;
            self.check(&welcome)?;
            Ok((answers, open))
        };
        let late = |_elapsed| Err(Failure::new(format!("no welcome within {limit:?}")));
        tokio::time::timeout(limit, attempt).await.unwrap_or_else(late)
    }

    async fn greet(
        &self,
        channel: Channel,
        gate: oneshot::Receiver<()>,
    ) -> Result<Streaming<pb::Welcome>, Status> {
        let identity = &self.shared.identity;
        let hello = pb::Hello {
            cluster: identity.cluster.0,
            node: identity.node.0,
            store: wire::store_to_wire(identity.store),
            protocol_version: PROTOCOL_VERSION,
            to: self.peer.0,
        };
        let outgoing = Outgoing {
            hello: Some(hello),
            gate: Some(gate),
            queue: Arc::clone(&self.queue),
            counters: Arc::clone(&self.counters),
            shared: Arc::clone(&self.shared),
            idle: (self.kind == StreamKind::Snapshot).then_some(self.shared.timing.snapshot_idle),
            urgent: None,
            next_urgent: None,
            bulk: None,
        };
        let mut client = PeerClient::new(channel).max_decoding_message_size(GREETING_MAX);
        let answers = match self.kind {
            StreamKind::Messages => client.messages(outgoing.into_stream()).await,
            StreamKind::Snapshot => client.snapshot(outgoing.into_stream()).await,
        };
        Ok(answers?.into_inner())
    }

    /// Whether whoever answered is the peer.
    fn check(&self, welcome: &pb::Welcome) -> Result<(), Failure> {
        let (cluster, node) = (ClusterId(welcome.cluster), NodeId(welcome.node));
        let version = welcome.protocol_version;
        if version != PROTOCOL_VERSION {
            let text = format!("it speaks peer protocol {version}, this node {PROTOCOL_VERSION}");
            return Err(Failure::new(text));
        }
        if cluster != self.shared.identity.cluster {
            let ours = self.shared.identity.cluster;
            return Err(Failure::new(format!("that is cluster {cluster}, this is {ours}")));
        }
        if node != self.peer {
            return Err(Failure::new(format!("that is {node}, not {}", self.peer)));
        }
        Ok(())
    }

    /// Lets messages flow until the stream ends. Returns whether it has lasted: longer than the longest time between two tries.
    ///
    /// Of streams that do not last, the first is logged and every so many after it. One that does is logged once that is clear, and so
    /// is its end.
    async fn converse(
        &self,
        address: &Address,
        mut answers: Streaming<pb::Welcome>,
        open: oneshot::Sender<()>,
        failures: u32,
    ) -> bool {
        let (node, peer) = (self.shared.identity.node, self.peer);
        let messages = self.kind == StreamKind::Messages;
        let shown = &address.shown;
        let connected =
            || tracing::info!(target: TARGET, %node, "Connected to peer {shown} ({peer})");
        let (mut is_told, mut has_lasted) = (failures.is_multiple_of(WARN_EVERY), false);
        if messages {
            if is_told {
                connected();
            }
            self.counters.connected.store(true, Ordering::Relaxed);
        }
        self.counters.connects.fetch_add(1, Ordering::Relaxed);
        // The stream may have ended already; then so does the loop below.
        let _ = open.send(());
        let mut lasts = pin!(tokio::time::sleep(self.shared.timing.backoff_max));
        let end = loop {
            tokio::select! {
                answer = answers.message() => match answer {
                    Ok(Some(_welcome)) => {}
                    Ok(None) if messages => break End::Lost("closed by the peer".to_owned()),
                    Ok(None) => break End::Idle,
                    Err(status) => break End::Lost(status.message().to_owned()),
                },
                () = &mut lasts, if !has_lasted => {
                    has_lasted = true;
                    if messages && !std::mem::replace(&mut is_told, true) {
                        connected();
                    }
                }
            }
        };
        if messages {
            self.counters.connected.store(false, Ordering::Relaxed);
        }
        if let End::Lost(text) = end {
            if is_told || has_lasted {
                tracing::warn!(
                    target: TARGET, %node,
                    "Lost connection to peer {shown} ({peer}): {text}"
                );
            } else {
                tracing::debug!(
                    target: TARGET, %node,
                    "Lost connection to peer {shown} ({peer}): {text}"
                );
            }
            *lock(&self.counters.last_error) = Some(text);
            self.drop_waiting();
        }
        has_lasted
    }

    fn drop_waiting(&self) {
        self.counters.dropped.fetch_add(self.queue.clear(), Ordering::Relaxed);
    }

    /// Logs a failed try: the first of an absence, then every so many.
    fn report(&self, address: &Address, failure: Failure, failures: u32) {
        let node = self.shared.identity.node;
        let Failure { text, cause } = failure;
        let (shown, below) = (&address.shown, cause.as_deref());
        if failures.is_multiple_of(WARN_EVERY) {
            tracing::warn!(
                target: TARGET, cause = below, %node,
                "Failed to connect to peer {shown}: {text}"
            );
        } else {
            tracing::debug!(
                target: TARGET, cause = below, %node,
                "Failed to connect to peer {shown}: {text}"
            );
        }
        let text = cause.map_or_else(|| text.clone(), |cause| format!("{text}: {cause}"));
        *lock(&self.counters.last_error) = Some(text);
    }
}

impl Failure {
    fn new(text: impl Into<String>) -> Self {
        Self { text: text.into(), cause: None }
    }

    fn from_transport(error: tonic::transport::Error) -> Self {
        let mut source = error.source();
        let mut cause = None;
        while let Some(error) = source {
            cause = Some(error.to_string());
            source = error.source();
        }
        Self { text: error.to_string(), cause }
    }

    fn from_status(status: Status) -> Self {
        Self::new(format!("{:?}: {}", status.code(), status.message()))
    }
}

/// What flows on a stream: the greeting, and once the peer has welcomed it, the pieces of what
/// waits.
struct Outgoing {
    hello: Option<pb::Hello>,
    gate: Option<oneshot::Receiver<()>>,
    queue: Arc<Queue>,
    counters: Arc<Counters>,
    shared: Arc<Shared>,
    /// How long nothing may wait before the stream ends; for ever if `None`.
    idle: Option<Duration>,
    /// The messages that are being cut, one of each lane.
    urgent: Option<Pieces>,
    /// An urgent message that had no room in the last piece.
    next_urgent: Option<Bytes>,
    bulk: Option<Pieces>,
}

impl Outgoing {
    fn into_stream(self) -> impl Stream<Item = pb::Frame> + Send + 'static {
        futures::stream::unfold(self, |mut outgoing| async move {
            let kind = outgoing.next().await?;
            Some((pb::Frame { kind: Some(kind) }, outgoing))
        })
    }

    async fn next(&mut self) -> Option<pb::frame::Kind> {
        if let Some(hello) = self.hello.take() {
            return Some(pb::frame::Kind::Hello(hello));
        }
        if let Some(gate) = self.gate.take() {
            gate.await.ok()?;
        }
        loop {
            if let Some(piece) = self.next_piece() {
                return Some(pb::frame::Kind::Piece(piece));
            }
            match self.idle {
                None => self.queue.ready().await,
                Some(idle) => tokio::time::timeout(idle, self.queue.ready()).await.ok()?,
            }
        }
    }

    /// The next piece to send: urgent messages overtake between two pieces of another one.
    fn next_piece(&mut self) -> Option<pb::Piece> {
        loop {
            if let Some(piece) = self.urgent.as_mut().and_then(Iterator::next) {
                return Some(self.count(piece, 1));
            }
            self.urgent = None;
            if let Some(piece) = self.next_urgent() {
                return Some(piece);
            }
            if self.urgent.is_some() {
                continue;
            }
            if let Some(piece) = self.bulk.as_mut().and_then(Iterator::next) {
                return Some(self.count(piece, 1));
            }
            let envelope = self.queue.pop_bulk()?;
            self.bulk = self.encode(&envelope).map(|bytes| Pieces::new(Lane::Bulk, bytes));
        }
    }

    /// All urgent messages that wait, as far as they have room in one piece. One that is alone is cut like any other.
    fn next_urgent(&mut self) -> Option<pb::Piece> {
        let first = self.take_urgent()?;
        let mut together = Together::default();
        let second = self.take_urgent();
        if second.is_none() || !together.push(&first) {
            self.next_urgent = second;
            self.urgent = Some(Pieces::new(Lane::Urgent, first));
            return None;
        }
        let mut next = second;
        while let Some(message) = next {
            if !together.push(&message) {
                self.next_urgent = Some(message);
                break;
            }
            next = self.take_urgent();
        }
        let (piece, count) = together.into_piece();
        Some(self.count(piece, count))
    }

    fn take_urgent(&mut self) -> Option<Bytes> {
        if let Some(message) = self.next_urgent.take() {
            return Some(message);
        }
        loop {
            // What cannot be sent is left out.
            let envelope = self.queue.pop_urgent()?;
            if let Some(bytes) = self.encode(&envelope) {
                return Some(bytes);
            }
        }
    }

    /// Counts a piece that completes so many messages, if it is the last of them.
    fn count(&self, piece: pb::Piece, messages: u64) -> pb::Piece {
        self.counters.frames.fetch_add(1, Ordering::Relaxed);
        self.counters.sent.fetch_add(u64::from(piece.last) * messages, Ordering::Relaxed);
        piece
    }

    /// Encodes an envelope. One that no peer would accept is dropped here: a later one is no
    /// shorter, so it is an error of configuration that has to be seen.
    fn encode(&self, envelope: &Envelope) -> Option<Bytes> {
        let limit = self.shared.limits.message_max;
        let reason = match wire::encode(envelope) {
            Ok(bytes) if bytes.len() <= limit => return Some(bytes),
            Ok(bytes) => format!("{} bytes are more than the limit of {limit}", bytes.len()),
            Err(error) => error.to_string(),
        };
        self.counters.dropped.fetch_add(1, Ordering::Relaxed);
        if self.shared.complaints.passes() {
            let (node, to) = (self.shared.identity.node, envelope.to);
            tracing::error!(target: TARGET, %node, "Dropped a message to {to}: {reason}");
        }
        None
    }
}

/// How long to wait before the next try: doubling up to a bound, and never twice the same, so that
/// nodes that lost a peer together do not come back together.
struct Backoff {
    next: Duration,
    min: Duration,
    max: Duration,
    random: ChaCha8Rng,
}

impl Backoff {
    fn new(timing: &Timing, seed: u64, stream: u64) -> Self {
        let mut random = ChaCha8Rng::seed_from_u64(seed);
        random.set_stream(stream);
        Self { next: timing.backoff_min, min: timing.backoff_min, max: timing.backoff_max, random }
    }

    fn reset(&mut self) {
        self.next = self.min;
    }

    /// Between half of the present step and all of it.
    fn next(&mut self) -> Duration {
        let half = self.next / 2;
        self.next = self.next.saturating_mul(2).min(self.max);
        let fraction = self.random.next_u32() % 1024;
        half + half * fraction / 1024
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use futures::StreamExt as _;
    use futures::stream::BoxStream;
    use tokio::net::TcpListener;
    use tokio::sync::mpsc;
    use tokio::time::Instant;
    use tonic::{Request, Response};

    use super::super::{GrpcOptions, GrpcTransport, Identity};
    use super::*;
    use crate::types::StoreId;

    const US: Identity = Identity { cluster: ClusterId(7), node: NodeId(1), store: StoreId(11) };
    const PATIENCE: Duration = Duration::from_secs(60);

    /// A peer that welcomes whoever greets, notes when, and ends the stream.
    struct Fickle(mpsc::UnboundedSender<Instant>);

    type Answers = BoxStream<'static, Result<pb::Welcome, Status>>;

    #[tonic::async_trait]
    impl pb::peer_server::Peer for Fickle {
        type MessagesStream = Answers;
        type SnapshotStream = Answers;

        async fn messages(
            &self,
            _frames: Request<Streaming<pb::Frame>>,
        ) -> Result<Response<Answers>, Status> {
            // The test may have seen enough.
            let _ = self.0.send(Instant::now());
            let welcome = pb::Welcome {
                cluster: US.cluster.0,
                node: 2,
                store: wire::store_to_wire(StoreId(22)),
                protocol_version: PROTOCOL_VERSION,
            };
            Ok(Response::new(futures::stream::iter([Ok(welcome)]).boxed()))
        }

        async fn snapshot(
            &self,
            frames: Request<Streaming<pb::Frame>>,
        ) -> Result<Response<Answers>, Status> {
            pb::peer_server::Peer::messages(self, frames).await
        }
    }

    #[tokio::test]
    async fn a_peer_that_welcomes_and_hangs_up_is_tried_less_and_less_often() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let (welcomes, mut welcomed) = mpsc::unbounded_channel();
        let accepted = futures::stream::unfold(listener, |listener| async {
            Some((listener.accept().await.map(|(stream, _)| stream), listener))
        });
        let peer = pb::peer_server::PeerServer::new(Fickle(welcomes));
        let server = tonic::transport::Server::builder();
        let served = server.serve_with_incoming_shutdown(peer, accepted, std::future::pending());
        let served = tokio::spawn(served);
        let mut options = GrpcOptions::new(US);
        options.peers = BTreeMap::from([(NodeId(2), vec![address])]);
        options.timing.backoff_min = Duration::from_millis(1);
        // No stream lasts as long as this.
        options.timing.backoff_max = Duration::from_secs(3600);
        let transport = GrpcTransport::bind(options).unwrap();
        let mut next = async || {
            let welcome = tokio::time::timeout(PATIENCE, welcomed.recv()).await;
            welcome.expect("another try").expect("the peer runs")
        };
        let first = next().await;
        let mut last = first;
        for _ in 0..10 {
            last = next().await;
        }
        // At least half of 1, 2, 4 and so on up to 512 ms.
        let waited = last - first;
        assert!(waited >= Duration::from_millis(500), "ten tries within {waited:?}");
        transport.shutdown().await;
        served.abort();
    }

    #[test]
    fn backoff_doubles_up_to_its_bound_and_starts_over() {
        let timing = Timing {
            backoff_min: Duration::from_millis(100),
            backoff_max: Duration::from_millis(400),
            ..Timing::default()
        };
        let mut backoff = Backoff::new(&timing, 1, 2);
        for step in [100, 200, 400, 400, 400] {
            let wait = backoff.next();
            assert!(wait >= Duration::from_millis(step / 2) && wait <= Duration::from_millis(step));
        }
        backoff.reset();
        assert!(backoff.next() <= Duration::from_millis(100));
        let other = Backoff::new(&timing, 1, 3).next();
        assert_ne!(Backoff::new(&timing, 1, 2).next(), other, "streams differ");
    }

    #[test]
    fn addresses_are_shown_without_scheme_and_need_a_port() {
        let timing = Timing::default();
        let shown = |url: &str| Address::parse(url, &timing).map(|address| address.shown);
        assert_eq!(shown("http://[::1]:50151").unwrap(), "[::1]:50151");
        assert_eq!(shown("localhost:2380").unwrap(), "localhost:2380");
        for wrong in ["", "localhost", "https://localhost:1", "http://", "a b:1", "x:99999"] {
            assert!(matches!(shown(wrong), Err(GrpcError::Address { .. })), "{wrong}");
        }
    }
}
