//! Streams that peers open: who may speak, and what becomes of what they say.

use std::pin::pin;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures::future::BoxFuture;
use futures::stream::BoxStream;
use tokio::sync::oneshot;
use tokio::time::Instant;
use tonic::{Request, Response, Status, Streaming};

use super::frame::{Assembly, PIECE_MAX};
use super::generated as pb;
use super::listen::Connection;
use super::{Counters, Shared, StreamKind, TARGET, lock, wire};
use crate::message::{Envelope, PROTOCOL_VERSION};
use crate::types::{ClusterId, NodeId, StoreId};

/// The most that a frame adds to its data, in bytes: tags, lengths, checksum.
const FRAME_OVERHEAD: usize = 64;

/// The generated server around our handler.
pub(super) type PeerServer = pb::peer_server::PeerServer<Reception>;

/// The service for one transport.
pub(super) fn server(shared: Arc<Shared>) -> PeerServer {
    PeerServer::new(Reception { shared }).max_decoding_message_size(PIECE_MAX + FRAME_OVERHEAD)
}

/// Answers the calls of peers.
pub(super) struct Reception {
    shared: Arc<Shared>,
}

type Answers = BoxStream<'static, Result<pb::Welcome, Status>>;

#[tonic::async_trait]
impl pb::peer_server::Peer for Reception {
    type MessagesStream = Answers;
    type SnapshotStream = Answers;

    async fn messages(
        &self,
        request: Request<Streaming<pb::Frame>>,
    ) -> Result<Response<Answers>, Status> {
        self.receive(request, StreamKind::Messages).await
    }

    async fn snapshot(
        &self,
        request: Request<Streaming<pb::Frame>>,
    ) -> Result<Response<Answers>, Status> {
        self.receive(request, StreamKind::Snapshot).await
    }
}

impl Reception {
    async fn receive(
        &self,
        request: Request<Streaming<pb::Frame>>,
        kind: StreamKind,
    ) -> Result<Response<Answers>, Status> {
        let shared = &self.shared;
        let connection = request.extensions().get::<Connection>().cloned();
        let mut frames = request.into_inner();
        let greeted = greet(shared, connection.as_ref(), &mut frames).await;
        let (from, store) = greeted.inspect_err(|status| {
            shared.handshakes_refused.fetch_add(1, Ordering::Relaxed);
            shared.complain("Refused a peer", status);
        })?;
        if let Some(connection) = connection {
            connection.admit();
        }
        // A node has one stream of each kind: a new one means that it gave up the old one, noticed
        // here or not.
        let (current, replaced) = oneshot::channel();
        lock(&shared.heard).insert((from, kind), current);
        // Asked again: had the peer been removed before the stream was noted, nobody would end it.
        let counters = shared.counters(from).ok_or_else(|| shared.unknown(from))?;
        tracing::debug!(target: TARGET, node = %shared.identity.node, "{from} opened a stream");
        let heard = Heard {
            shared: Arc::clone(shared),
            counters,
            from,
            store,
            frames,
            assembly: Assembly::new(shared.limits.message_max),
            replaced,
            closed: shared.closed(),
        };
        Ok(Response::new(heard.into_answers()))
    }
}

/// Waits for the greeting; returns who speaks.
async fn greet(
    shared: &Shared,
    connection: Option<&Connection>,
    frames: &mut Streaming<pb::Frame>,
) -> Result<(NodeId, StoreId), Status> {
    let address = connection.map(Connection::address);
    if let Some(address) = address
        && !lock(&shared.rates).take(address, Instant::now())
    {
        return Err(Status::resource_exhausted("too many handshakes from your address: slow down"));
    }
    // Whoever says nothing holds its place until it is late. No address may hold the places of all others in that way.
    let share = address.map(|address| shared.greeters.take(address));
    if matches!(share, Some(None)) {
        return Err(Status::resource_exhausted(
            "too many handshakes at once from your address: try again later",
        ));
    }
    let Ok(_place) = shared.handshakes.try_acquire() else {
        return Err(Status::resource_exhausted("too many handshakes: try again later"));
    };
    let limit = shared.timing.handshake;
    let frame = tokio::time::timeout(limit, frames.message())
        .await
        .map_err(|_elapsed| Status::deadline_exceeded(format!("no greeting within {limit:?}")))??;
    match frame.and_then(|frame| frame.kind) {
        Some(pb::frame::Kind::Hello(hello)) => shared.check(&hello),
        Some(pb::frame::Kind::Piece(_)) | None => {
            Err(Status::invalid_argument("a stream begins with a greeting"))
        }
    }
}

impl Shared {
    /// Whether whoever greets may speak.
    fn check(&self, hello: &pb::Hello) -> Result<(NodeId, StoreId), Status> {
        let ours = &self.identity;
        let (cluster, node, to) = (ClusterId(hello.cluster), NodeId(hello.node), NodeId(hello.to));
        let version = hello.protocol_version;
        if version != PROTOCOL_VERSION {
            return Err(Status::failed_precondition(format!(
                "this node speaks peer protocol {PROTOCOL_VERSION}, you speak {version}: \
                 upgrade the older one"
            )));
        }
        if cluster != ours.cluster {
            return Err(Status::failed_precondition(format!(
                "this is cluster {}, you say {cluster}: check the peers' addresses and your data \
                 directory",
                ours.cluster
            )));
        }
        if to != ours.node {
            return Err(Status::failed_precondition(format!(
                "this is {}, you look for {to}: check the peers' addresses",
                ours.node
            )));
        }
        if node == ours.node {
            return Err(Status::failed_precondition(format!(
                "you say that you are {node}, but that is this node: give every node its own id"
            )));
        }
        let store = wire::store_from_wire(&hello.store)
            .map_err(|error| Status::invalid_argument(error.to_string()))?;
        if self.counters(node).is_none() {
            return Err(self.unknown(node));
        }
        (self.admit)(node, store).map_err(Status::permission_denied)?;
        Ok((node, store))
    }

    fn unknown(&self, node: NodeId) -> Status {
        let ours = self.identity.node;
        Status::permission_denied(format!(
            "{ours} knows no peer {node}: add it to the cluster first"
        ))
    }

    /// Logs why a stream was refused or ended, but not more often than a reader can follow.
    fn complain(&self, what: &str, status: &Status) {
        if self.complaints.passes() {
            let node = self.identity.node;
            tracing::warn!(target: TARGET, %node, "{what}: {}", status.message());
        }
    }
}

/// A stream whose sender is known.
struct Heard {
    shared: Arc<Shared>,
    counters: Arc<Counters>,
    from: NodeId,
    store: StoreId,
    frames: Streaming<pb::Frame>,
    assembly: Assembly,
    /// Resolves when the peer opens another stream, or is a peer no more.
    replaced: oneshot::Receiver<()>,
    closed: BoxFuture<'static, ()>,
}

impl Heard {
    /// Welcomes the peer, then reads for as long as its stream lasts. The answers drive the
    /// reading: when the connection goes, they are dropped, and everything with them.
    fn into_answers(self) -> Answers {
        enum Stage {
            Welcome(Box<Heard>),
            Read(Box<Heard>),
            End,
        }
        let first = Stage::Welcome(Box::new(self));
        Box::pin(futures::stream::unfold(first, |stage| async {
            match stage {
                Stage::Welcome(heard) => Some((Ok(heard.welcome()), Stage::Read(heard))),
                Stage::Read(mut heard) => {
                    let status = heard.read().await.err()?;
                    Some((Err(status), Stage::End))
                }
                Stage::End => None,
            }
        }))
    }

    fn welcome(&self) -> pb::Welcome {
        let identity = &self.shared.identity;
        pb::Welcome {
            cluster: identity.cluster.0,
            node: identity.node.0,
            store: wire::store_to_wire(identity.store),
            protocol_version: PROTOCOL_VERSION,
        }
    }

    /// Delivers what comes. Returns when the peer ends its stream, with an error when this node
    /// does.
    async fn read(&mut self) -> Result<(), Status> {
        loop {
            let frame = {
                let mut next = pin!(self.frames.message());
                tokio::select! {
                    biased;
                    _ = &mut self.replaced => {
                        return Err(Status::aborted("another stream took the place of this one"));
                    }
                    () = &mut self.closed => {
                        return Err(Status::unavailable("the node is shutting down"));
                    }
                    frame = &mut next => frame,
                }
            };
            // An error here is the connection's, or a frame that gRPC itself refused.
            let Some(frame) = frame.inspect_err(|status| self.note_refusal(status))? else {
                return Ok(());
            };
            self.take(frame).inspect_err(|status| self.violation(status))?;
        }
    }

    /// Takes a frame, and delivers the envelopes that it completes.
    fn take(&mut self, frame: pb::Frame) -> Result<(), Status> {
        let Some(pb::frame::Kind::Piece(piece)) = frame.kind else {
            return Err(Status::invalid_argument("after the greeting only pieces may come"));
        };
        let invalid = |error: &dyn std::error::Error| Status::invalid_argument(error.to_string());
        let whole = self.assembly.push(piece).map_err(|error| invalid(&error))?;
        let Some(mut messages) = whole else { return Ok(()) };
        while let Some(message) = messages.next().map_err(|error| invalid(&error))? {
            let envelope = wire::decode(message).map_err(|error| invalid(&error))?;
            self.check(&envelope)?;
            self.counters.received.fetch_add(1, Ordering::Relaxed);
            self.shared.deliver(envelope);
        }
        Ok(())
    }

    /// Whether an envelope agrees with the greeting.
    fn check(&self, envelope: &Envelope) -> Result<(), Status> {
        let ours = &self.shared.identity;
        let (to, cluster) = (envelope.to, envelope.cluster);
        if to != ours.node || cluster != ours.cluster {
            return Err(Status::invalid_argument(format!(
                "message for {to} of cluster {cluster} sent to {} of cluster {}",
                ours.node, ours.cluster
            )));
        }
        if envelope.from != self.from || envelope.store != self.store {
            return Err(Status::invalid_argument(format!(
                "message from {} of store {} on a stream of {} of store {}",
                envelope.from, envelope.store, self.from, self.store
            )));
        }
        Ok(())
    }

    fn violation(&self, status: &Status) {
        self.shared.violations.fetch_add(1, Ordering::Relaxed);
        self.shared.complain(&format!("Ended a stream of {}", self.from), status);
    }

    /// Counts a frame that was too large or no protobuf; a connection that went is nobody's fault.
    fn note_refusal(&self, status: &Status) {
        if matches!(status.code(), tonic::Code::OutOfRange | tonic::Code::Internal) {
            self.violation(status);
        }
    }
}

/// Lets one through every so often.
#[derive(Debug, Default)]
pub(super) struct Throttle {
    last: Mutex<Option<Instant>>,
}

impl Throttle {
    /// Whether it is time again.
    pub(super) fn passes(&self) -> bool {
        const PAUSE: Duration = Duration::from_secs(1);
        let now = Instant::now();
        let mut last = lock(&self.last);
        let passes = last.is_none_or(|last| now.saturating_duration_since(last) >= PAUSE);
        if passes {
            *last = Some(now);
        }
        passes
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use bytes::Bytes;
    use futures::StreamExt as _;
    use lattice_trace::Cause;
    use tokio::sync::mpsc;
    use tonic::Code;
    use tonic::transport::Channel;

    use super::super::frame::{Lane, Pieces};
    use super::super::generated::peer_client::PeerClient;
    use super::super::{GrpcOptions, GrpcTransport, Identity};
    use super::*;
    use crate::message::Message;
    use crate::transport::{Inbox, Transport as _};
    use crate::types::{GroupId, LogIndex, Term};

    /// A node under attack by a client that writes its frames by hand.
    struct Target {
        transport: Arc<GrpcTransport>,
        client: PeerClient<Channel>,
        heard: mpsc::UnboundedReceiver<Envelope>,
    }

    /// A stream to the target.
    struct Speaker {
        frames: mpsc::UnboundedSender<pb::Frame>,
        answers: Streaming<pb::Welcome>,
    }

    async fn target() -> Target {
        target_with(|_| ()).await
    }

    async fn target_with(change: impl FnOnce(&mut GrpcOptions)) -> Target {
        let identity = Identity { cluster: ClusterId(7), node: NodeId(2), store: StoreId(22) };
        let mut options = GrpcOptions::new(identity);
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        options.listeners.push(listener.into_std().unwrap());
        // Known, and never reached: only its own words matter here.
        options.peers = BTreeMap::from([(NodeId(1), Vec::new())]);
        change(&mut options);
        let transport = GrpcTransport::bind(options).unwrap();
        let (sender, heard) = mpsc::unbounded_channel();
        transport.register(GroupId(0), Inbox::new(move |envelope| drop(sender.send(envelope))));
        transport.serve().unwrap();
        let client = client(&transport, "127.0.0.1").await;
        Target { transport, client, heard }
    }

    /// A client at this address.
    async fn client(transport: &GrpcTransport, at: &str) -> PeerClient<Channel> {
        let url = format!("http://{}", transport.local_addresses()[0]);
        let endpoint = Channel::from_shared(url).unwrap();
        let endpoint = endpoint.local_address(Some(at.parse().unwrap()));
        PeerClient::new(endpoint.connect().await.unwrap())
    }

    /// Lets other tasks run until the condition holds.
    async fn until(mut condition: impl FnMut() -> bool) {
        let wait = async {
            while !condition() {
                tokio::task::yield_now().await;
            }
        };
        let waited = tokio::time::timeout(Duration::from_secs(60), wait).await;
        waited.expect("the condition does not come true");
    }

    impl Target {
        async fn open(&mut self, first: pb::frame::Kind) -> Result<Speaker, Status> {
            let (frames, receiver) = mpsc::unbounded_channel();
            frames.send(pb::Frame { kind: Some(first) }).unwrap();
            let outgoing = futures::stream::unfold(receiver, |mut receiver| async {
                Some((receiver.recv().await?, receiver))
            });
            let answers = self.client.messages(outgoing.boxed()).await?.into_inner();
            Ok(Speaker { frames, answers })
        }

        async fn greeted(&mut self) -> Speaker {
            let mut speaker = self.open(pb::frame::Kind::Hello(hello())).await.unwrap();
            let welcome = speaker.answers.message().await.unwrap().unwrap();
            assert_eq!((welcome.cluster, welcome.node), (7, 2));
            speaker
        }
    }

    impl Speaker {
        fn say(&self, piece: pb::Piece) {
            self.frames.send(pb::Frame { kind: Some(pb::frame::Kind::Piece(piece)) }).unwrap();
        }

        /// The status that the stream ends with.
        async fn end(&mut self) -> Status {
            self.answers.message().await.expect_err("the stream goes on")
        }
    }

    fn hello() -> pb::Hello {
        pb::Hello {
            cluster: 7,
            node: 1,
            store: wire::store_to_wire(StoreId(11)),
            protocol_version: PROTOCOL_VERSION,
            to: 2,
        }
    }

    fn heartbeat(round: u64) -> Envelope {
        Envelope {
            cluster: ClusterId(7),
            group: GroupId(0),
            from: NodeId(1),
            to: NodeId(2),
            store: StoreId(11),
            term: Term(1),
            cause: Cause { node: 0, seq: 0 },
            can_wait: false,
            message: Message::Heartbeat { commit: LogIndex(0), round },
        }
    }

    fn piece(envelope: &Envelope) -> pb::Piece {
        let bytes = wire::encode(envelope).unwrap();
        Pieces::new(Lane::Urgent, bytes).next().unwrap()
    }

    #[tokio::test]
    async fn greetings_that_do_not_fit_are_refused_with_the_reason() {
        let mut target = target().await;
        let cases = [
            (
                pb::Hello { protocol_version: 9, ..hello() },
                Code::FailedPrecondition,
                "this node speaks peer protocol 1, you speak 9: upgrade the older one",
            ),
            (
                pb::Hello { node: 2, ..hello() },
                Code::FailedPrecondition,
                "you say that you are node2, but that is this node: give every node its own id",
            ),
            (
                pb::Hello { store: Bytes::from_static(b"short"), ..hello() },
                Code::InvalidArgument,
                "malformed message: a store id of 5 bytes, not 16",
            ),
            (
                pb::Hello { node: 0, ..hello() },
                Code::PermissionDenied,
                "node2 knows no peer node0: add it to the cluster first",
            ),
        ];
        for (hello, code, text) in cases {
            let refused = target.open(pb::frame::Kind::Hello(hello)).await.err().unwrap();
            assert_eq!((refused.code(), refused.message()), (code, text));
        }
        let first = pb::frame::Kind::Piece(piece(&heartbeat(1)));
        let refused = target.open(first).await.err().unwrap();
        assert_eq!(refused.message(), "a stream begins with a greeting");
        assert_eq!(target.transport.stats().handshakes_refused, 5);
    }

    #[tokio::test]
    async fn a_client_that_says_nothing_keeps_no_other_address_from_greeting() {
        let patient = |options: &mut GrpcOptions| {
            options.timing.handshake = Duration::from_secs(600);
        };
        let mut target = target_with(patient).await;
        let shared = Arc::clone(&target.transport.shared);
        let places = shared.limits.handshakes;
        for _ in 0..places {
            let mut client = target.client.clone();
            tokio::spawn(async move {
                let silence = futures::stream::pending::<pb::Frame>();
                drop(client.messages(silence).await);
            });
        }
        // Each of them is waited for, or has been refused.
        until(|| {
            let waiting = places - shared.handshakes.available_permits();
            let refused = shared.handshakes_refused.load(Ordering::Relaxed);
            waiting + usize::try_from(refused).unwrap() == places
        })
        .await;
        target.client = client(&target.transport, "127.0.0.2").await;
        target.greeted().await;
    }

    #[tokio::test]
    async fn connections_that_show_nothing_leave_room_for_those_of_other_addresses() {
        let few = |options: &mut GrpcOptions| {
            options.timing.handshake = Duration::from_secs(600);
            (options.limits.connections, options.limits.strangers_per_address) = (4, 2);
        };
        let mut target = target_with(few).await;
        // Who has been admitted is no stranger.
        target.greeted().await;
        let at = target.transport.local_addresses()[0];
        let refused = || target.transport.stats().connections_refused;
        let mut silent = Vec::new();
        while refused() == 0 {
            silent.push(tokio::net::TcpStream::connect(at).await.unwrap());
            // Each is taken or refused before the next one comes.
            let taken = || 4 - target.transport.shared.connections.available_permits();
            let count = u64::try_from(silent.len()).unwrap() + 1;
            until(|| u64::try_from(taken()).unwrap() + refused() == count).await;
        }
        assert_eq!(silent.len(), 3);
        target.client = client(&target.transport, "127.0.0.2").await;
        target.greeted().await;
    }

    #[tokio::test]
    async fn what_breaks_the_rules_ends_the_stream_and_is_not_delivered() {
        let good = piece(&heartbeat(1));
        let cases = [
            (pb::Piece { checksum: good.checksum ^ 1, ..good.clone() }, "checksum"),
            (pb::Piece { lane: 7, ..good.clone() }, "piece for unknown lane 7"),
            (pb::Piece { data: Bytes::new(), ..good.clone() }, "piece of 0 bytes"),
            (Pieces::new(Lane::Bulk, Bytes::from_static(b"\xff\xff")).next().unwrap(), "malformed"),
            (piece(&Envelope { from: NodeId(3), ..heartbeat(1) }), "message from node3 of store"),
            (piece(&Envelope { store: StoreId(1), ..heartbeat(1) }), "message from node1 of store"),
            (piece(&Envelope { to: NodeId(3), ..heartbeat(1) }), "message for node3 of cluster"),
            (piece(&Envelope { cluster: ClusterId(8), ..heartbeat(1) }), "message for node2 of"),
        ];
        let mut target = target().await;
        let count = u64::try_from(cases.len()).unwrap();
        for (broken, text) in cases {
            let mut speaker = target.greeted().await;
            speaker.say(broken);
            // Not reached.
            speaker.say(good.clone());
            let status = speaker.end().await;
            assert_eq!(status.code(), Code::InvalidArgument);
            assert!(status.message().starts_with(text), "{}", status.message());
        }
        assert_eq!(target.transport.stats().violations, count);
        assert!(target.heard.try_recv().is_err());
        let mut speaker = target.greeted().await;
        speaker.say(good);
        assert_eq!(target.heard.recv().await, Some(heartbeat(1)));
        let again = pb::Frame { kind: Some(pb::frame::Kind::Hello(hello())) };
        speaker.frames.send(again).unwrap();
        assert_eq!(speaker.end().await.message(), "after the greeting only pieces may come");
    }

    #[tokio::test]
    async fn a_frame_larger_than_frames_may_be_is_refused_by_its_declared_length() {
        let mut target = target().await;
        let mut speaker = target.greeted().await;
        let data = Bytes::from(vec![0; PIECE_MAX + 1000]);
        speaker.say(pb::Piece { lane: 0, checksum: crc32c::crc32c(&data), data, last: true });
        assert_eq!(speaker.end().await.code(), Code::OutOfRange);
        assert_eq!(target.transport.stats().violations, 1);
    }

    #[tokio::test]
    async fn the_largest_piece_fits_a_frame() {
        let mut target = target().await;
        let mut speaker = target.greeted().await;
        speaker.say(Pieces::new(Lane::Bulk, vec![0xff; PIECE_MAX].into()).next().unwrap());
        assert!(speaker.end().await.message().starts_with("malformed"), "it was taken");
    }

    #[tokio::test]
    async fn a_new_stream_of_a_peer_ends_its_old_one() {
        let mut target = target().await;
        let mut old = target.greeted().await;
        let new = target.greeted().await;
        assert_eq!(old.end().await.message(), "another stream took the place of this one");
        new.say(piece(&heartbeat(3)));
        assert_eq!(target.heard.recv().await, Some(heartbeat(3)));
    }

    #[tokio::test]
    async fn streams_learn_that_the_node_shuts_down() {
        let mut target = target().await;
        let mut speaker = target.greeted().await;
        target.transport.shutdown().await;
        speaker.end().await;
        assert!(target.open(pb::frame::Kind::Hello(hello())).await.is_err());
    }
}
