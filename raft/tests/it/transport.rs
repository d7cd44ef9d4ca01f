//! The gRPC transport over real sockets: what arrives, who is refused, and that garbage harms
//! nobody.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use lattice_trace::Cause;
use raft_consensus::membership::Membership;
use raft_consensus::message::{Envelope, Message};
use raft_consensus::transport::grpc::{
    Connection, GrpcError, GrpcOptions, GrpcTransport, Identity, PeerService,
};
use raft_consensus::transport::{Inbox, Transport as _};
use raft_consensus::types::{
    ClusterId, Entry, EntryId, GroupId, LogIndex, NodeId, Payload, SnapshotMeta, StoreId, Term,
};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tonic::body::Body;
use tonic::codegen::{BoxFuture, Service, http};

const CLUSTER: ClusterId = ClusterId(7);
const PATIENCE: Duration = Duration::from_secs(20);

/// A transport, and what reached its group 0.
struct Node {
    transport: Arc<GrpcTransport>,
    heard: mpsc::UnboundedReceiver<Envelope>,
    address: SocketAddr,
}

fn store(node: u64) -> StoreId {
    StoreId(u128::from(node) << 64 | 5)
}

fn identity(node: u64) -> Identity {
    Identity { cluster: CLUSTER, node: NodeId(node), store: store(node) }
}

async fn listener(address: &str) -> (std::net::TcpListener, SocketAddr) {
    let listener = tokio::net::TcpListener::bind(address).await.unwrap();
    let address = listener.local_addr().unwrap();
    (listener.into_std().unwrap(), address)
}

impl Node {
    /// Binds a transport with one listener; nobody is accepted yet.
    async fn bind(node: u64, at: &str, change: impl FnOnce(&mut GrpcOptions)) -> Self {
        let (listener, address) = listener(at).await;
        let mut options = GrpcOptions::new(identity(node));
        options.listeners = vec![listener];
        options.seed = node;
        options.timing.backoff_max = Duration::from_millis(200);
        change(&mut options);
        let transport = GrpcTransport::bind(options).unwrap();
        let (sender, heard) = mpsc::unbounded_channel();
        transport.register(GroupId(0), Inbox::new(move |envelope| drop(sender.send(envelope))));
        Self { transport, heard, address }
    }

    async fn serving(node: u64) -> Self {
        let node = Self::bind(node, "127.0.0.1:0", |_| ()).await;
        node.transport.serve().unwrap();
        node
    }

    fn set_peers(&self, peers: &[(u64, SocketAddr)]) {
        let peers = peers.iter().map(|(node, at)| (NodeId(*node), vec![format!("http://{at}")]));
        self.transport.set_peers(peers.collect()).unwrap();
    }

    async fn hear(&mut self) -> Envelope {
        tokio::time::timeout(PATIENCE, self.heard.recv()).await.expect("nothing came").unwrap()
    }

    fn last_error(&self, peer: u64) -> String {
        let stats = self.transport.stats();
        stats.peers[&NodeId(peer)].last_error.clone().unwrap_or_default()
    }

    fn is_connected(&self, peer: u64) -> bool {
        self.transport.stats().peers[&NodeId(peer)].connected
    }
}

/// Nodes 1 to `count`, each knowing and reaching all others.
async fn cluster(count: u64) -> Vec<Node> {
    let mut nodes = Vec::new();
    for node in 1..=count {
        nodes.push(Node::serving(node).await);
    }
    let addresses: Vec<_> = (1..).zip(nodes.iter().map(|node| node.address)).collect();
    for node in &nodes {
        node.set_peers(&addresses);
    }
    for (own, node) in (1..).zip(&nodes) {
        until(|| addresses.iter().all(|(peer, _)| *peer == own || node.is_connected(*peer))).await;
    }
    nodes
}

/// Lets other tasks run until the condition holds.
async fn until(mut condition: impl FnMut() -> bool) {
    let wait = async {
        while !condition() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, wait).await.expect("the condition does not come true");
}

fn envelope(from: u64, to: u64, message: Message) -> Envelope {
    Envelope {
        cluster: CLUSTER,
        group: GroupId(0),
        from: NodeId(from),
        to: NodeId(to),
        store: store(from),
        term: Term(3),
        cause: Cause { node: from, seq: 9 },
        can_wait: false,
        message,
    }
}

fn heartbeat(from: u64, to: u64, round: u64) -> Envelope {
    envelope(from, to, Message::Heartbeat { commit: LogIndex(1), round })
}

fn append(from: u64, to: u64, index: u64, bytes: usize) -> Envelope {
    let command = (0..bytes).map(|place| u8::try_from(place % 253).unwrap()).collect();
    let id = EntryId::new(Term(3), LogIndex(index));
    let entries = vec![Entry { id, session: None, payload: Payload::Command(command) }].into();
    let previous = EntryId::new(Term(3), LogIndex(index - 1));
    envelope(from, to, Message::Append { previous, entries, commit: LogIndex(1) })
}

fn chunk(from: u64, to: u64) -> Envelope {
    let meta = SnapshotMeta {
        last: EntryId::new(Term(2), LogIndex(8)),
        membership: Membership::founding([NodeId(1), NodeId(2)]),
        size: 1 << 20,
        checksum: 1,
    };
    let data = Bytes::from(vec![7; 1 << 20]);
    envelope(from, to, Message::SnapshotChunk { meta, offset: 0, data })
}

#[tokio::test]
async fn every_node_reaches_every_other_and_large_entries_travel_in_pieces() {
    let mut nodes = cluster(3).await;
    for (from, to) in [(1, 2), (1, 3), (2, 1), (2, 3), (3, 1), (3, 2)] {
        let large = append(from, to, from, 5 << 20);
        nodes[usize::try_from(from - 1).unwrap()].transport.send(large.clone());
        let heard = nodes[usize::try_from(to - 1).unwrap()].hear().await;
        assert!(heard == large, "from node{from} to node{to}");
    }
    let stats = nodes[0].transport.stats();
    assert_eq!((stats.violations, stats.handshakes_refused), (0, 0));
    assert_eq!(stats.peers[&NodeId(2)].received, 1);
    until(|| nodes[0].transport.stats().peers[&NodeId(2)].sent == 1).await;
}

#[tokio::test]
async fn snapshot_chunks_have_a_connection_of_their_own() {
    let mut nodes = cluster(2).await;
    assert_eq!(nodes[0].transport.stats().peers[&NodeId(2)].connects, 1);
    nodes[0].transport.send(chunk(1, 2));
    assert_eq!(nodes[1].hear().await, chunk(1, 2));
    assert_eq!(nodes[0].transport.stats().peers[&NodeId(2)].connects, 2);
}

#[tokio::test]
async fn an_idle_snapshot_connection_closes_and_opens_again_when_needed() {
    let mut two = Node::serving(2).await;
    let one = Node::bind(1, "127.0.0.1:0", |options| {
        options.timing.snapshot_idle = Duration::from_millis(20);
    })
    .await;
    two.set_peers(&[(1, one.address)]);
    one.set_peers(&[(2, two.address)]);
    until(|| one.is_connected(2)).await;
    one.transport.send(chunk(1, 2));
    two.hear().await;
    // Whether it is still open when the next chunk comes is a matter of time; that every chunk
    // arrives is not.
    let connects = || one.transport.stats().peers[&NodeId(2)].connects;
    while connects() < 4 {
        one.transport.send(chunk(1, 2));
        assert_eq!(two.hear().await, chunk(1, 2));
        tokio::task::yield_now().await;
        let idle = tokio::time::timeout(Duration::from_millis(60), two.heard.recv()).await;
        assert!(idle.is_err(), "nothing was sent");
    }
    assert!(one.is_connected(2), "the stream for messages stays");
}

#[tokio::test]
async fn heartbeats_overtake_entries_that_wait() {
    let mut two = Node::bind(2, "127.0.0.1:0", |_| ()).await;
    let one = Node::serving(1).await;
    two.set_peers(&[(1, one.address)]);
    one.set_peers(&[(2, two.address)]);
    for index in 1..=8 {
        one.transport.send(append(1, 2, index, 3 << 20));
    }
    one.transport.send(heartbeat(1, 2, 1));
    two.transport.serve().unwrap();
    assert_eq!(two.hear().await, heartbeat(1, 2, 1));
    for index in 1..=8 {
        assert!(two.hear().await == append(1, 2, index, 3 << 20), "entries stay in order");
    }
}

#[tokio::test]
async fn both_families_of_addresses_are_served_and_tried() {
    let mut options = GrpcOptions::new(identity(2));
    let (four, address) = listener("127.0.0.1:0").await;
    options.listeners.push(four);
    // A machine without IPv6 still has the other one.
    if let Ok(six) = tokio::net::TcpListener::bind("[::1]:0").await {
        options.listeners.push(six.into_std().unwrap());
    }
    let two = GrpcTransport::bind(options).unwrap();
    two.serve().unwrap();
    assert!(matches!(two.serve(), Err(GrpcError::Served)));
    let one = Node::serving(1).await;
    two.set_peers(BTreeMap::from([(NodeId(1), vec![one.address.to_string()])])).unwrap();
    for address in two.local_addresses() {
        // The first address of the peer is nobody's; the second is tried at once.
        let (free, nobody) = listener("127.0.0.1:0").await;
        drop(free);
        let urls = vec![nobody.to_string(), address.to_string()];
        one.transport.set_peers(BTreeMap::from([(NodeId(2), urls)])).unwrap();
        until(|| one.is_connected(2)).await;
        assert!(one.last_error(2).starts_with("transport error: "), "{}", one.last_error(2));
    }
    assert_eq!(two.local_addresses()[0], address);
}

#[tokio::test]
async fn a_peer_of_another_cluster_is_refused_with_both_names() {
    let two = Node::serving(2).await;
    let stranger = Node::bind(1, "127.0.0.1:0", |options| {
        options.identity.cluster = ClusterId(0xbad);
    })
    .await;
    two.set_peers(&[(1, stranger.address)]);
    stranger.set_peers(&[(2, two.address)]);
    until(|| !stranger.last_error(2).is_empty()).await;
    assert_eq!(
        stranger.last_error(2),
        "FailedPrecondition: this is cluster 0000000000000007, you say 0000000000000bad: check the \
         peers' addresses and your data directory"
    );
    assert!(two.transport.stats().handshakes_refused > 0);
}

#[tokio::test]
async fn an_unknown_node_is_refused_until_it_is_made_a_peer() {
    let two = Node::serving(2).await;
    let nine = Node::serving(9).await;
    nine.set_peers(&[(2, two.address)]);
    until(|| !nine.last_error(2).is_empty()).await;
    assert_eq!(
        nine.last_error(2),
        "PermissionDenied: node2 knows no peer node9: add it to the cluster first"
    );
    two.set_peers(&[(9, nine.address)]);
    until(|| nine.is_connected(2)).await;
    two.set_peers(&[]);
    until(|| !nine.is_connected(2)).await;
}

#[tokio::test]
async fn a_node_that_is_reached_under_anothers_name_says_who_it_is() {
    let two = Node::serving(2).await;
    let one = Node::serving(1).await;
    two.set_peers(&[(1, one.address)]);
    one.set_peers(&[(3, two.address)]);
    until(|| !one.last_error(3).is_empty()).await;
    assert_eq!(
        one.last_error(3),
        "FailedPrecondition: this is node2, you look for node3: check the peers' addresses"
    );
    one.set_peers(&[(1, two.address), (2, two.address)]);
    until(|| one.is_connected(2)).await;
    let stats = one.transport.stats();
    assert!(!stats.peers.contains_key(&NodeId(1)), "a node is not its own peer");
}

#[tokio::test]
async fn a_data_directory_that_is_not_admitted_gets_the_reason() {
    let two = Node::bind(2, "127.0.0.1:0", |options| {
        options.admit = Arc::new(|node, claimed| {
            if claimed == store(1) { Ok(()) } else { Err(format!("{node} lives elsewhere")) }
        });
    })
    .await;
    two.transport.serve().unwrap();
    let impostor = Node::bind(1, "127.0.0.1:0", |options| options.identity.store = store(4)).await;
    two.set_peers(&[(1, impostor.address)]);
    impostor.set_peers(&[(2, two.address)]);
    until(|| !impostor.last_error(2).is_empty()).await;
    assert_eq!(impostor.last_error(2), "PermissionDenied: node1 lives elsewhere");
    let true_one = Node::serving(1).await;
    true_one.set_peers(&[(2, two.address)]);
    until(|| true_one.is_connected(2)).await;
}

#[tokio::test]
async fn a_message_that_disagrees_with_the_greeting_ends_the_stream() {
    let mut nodes = cluster(2).await;
    nodes[0].transport.send(Envelope { store: store(8), ..heartbeat(1, 2, 1) });
    until(|| nodes[1].transport.stats().violations == 1).await;
    let says = "message from node1 of store";
    until(|| nodes[0].last_error(2).starts_with(says)).await;
    // The link comes back by itself.
    until(|| nodes[0].is_connected(2)).await;
    nodes[0].transport.send(heartbeat(1, 2, 2));
    assert_eq!(nodes[1].hear().await, heartbeat(1, 2, 2));
}

#[tokio::test]
async fn messages_for_a_group_that_is_not_here_are_counted_and_harm_no_other() {
    let mut nodes = cluster(2).await;
    nodes[0].transport.send(Envelope { group: GroupId(6), ..heartbeat(1, 2, 1) });
    nodes[0].transport.send(heartbeat(1, 2, 2));
    assert_eq!(nodes[1].hear().await, heartbeat(1, 2, 2));
    assert_eq!(nodes[1].transport.stats().unknown_group, 1);
}

#[tokio::test]
async fn heartbeats_of_many_groups_share_a_stream_and_its_frames() {
    const GROUPS: u64 = 500;
    let gather = |options: &mut GrpcOptions| options.timing.gather = Duration::from_millis(200);
    let one = Node::bind(1, "127.0.0.1:0", gather).await;
    let two = Node::serving(2).await;
    let addresses = [(1, one.address), (2, two.address)];
    one.set_peers(&addresses);
    two.set_peers(&addresses);
    until(|| one.is_connected(2)).await;
    let (sender, mut heard) = mpsc::unbounded_channel();
    for group in 0..GROUPS {
        let sender = sender.clone();
        let inbox = Inbox::new(move |envelope| drop(sender.send((group, envelope))));
        two.transport.register(GroupId(group), inbox);
    }
    let patient = |group| Envelope { group: GroupId(group), can_wait: true, ..heartbeat(1, 2, 0) };
    for group in 0..GROUPS {
        one.transport.send(patient(group));
    }
    // Each reaches its own group, in order, and as it was.
    for group in 0..GROUPS {
        let (to, envelope) = tokio::time::timeout(PATIENCE, heard.recv()).await.unwrap().unwrap();
        assert_eq!((to, envelope), (group, patient(group)));
    }
    let stats = one.transport.stats().peers[&NodeId(2)].clone();
    assert_eq!((stats.connects, stats.sent, stats.dropped), (1, GROUPS, 0));
    // One, unless this thread stood still for long while it sent them.
    assert!(stats.frames <= GROUPS / 10, "{stats:?}");
}

#[tokio::test]
async fn a_peer_that_restarts_is_reached_again() {
    let mut nodes = cluster(2).await;
    let two = nodes.pop().unwrap();
    let one = nodes.pop().unwrap();
    two.transport.shutdown().await;
    until(|| !one.is_connected(2)).await;
    assert!(!one.last_error(2).is_empty());
    drop(two.transport);
    let address = two.address.to_string();
    let mut again = Node::bind(2, &address, |_| ()).await;
    again.transport.serve().unwrap();
    again.set_peers(&[(1, one.address)]);
    until(|| one.is_connected(2)).await;
    one.transport.send(heartbeat(1, 2, 5));
    assert_eq!(again.hear().await, heartbeat(1, 2, 5));
}

#[tokio::test]
async fn a_full_queue_drops_and_never_blocks() {
    // Bound, never accepted from: connections hang in the backlog and no welcome comes.
    let (_silent, address) = listener("127.0.0.1:0").await;
    let one = Node::bind(1, "127.0.0.1:0", |options| {
        options.limits.queue_messages = 10;
        options.timing.connect = PATIENCE;
    })
    .await;
    one.set_peers(&[(2, address)]);
    for round in 0..100 {
        one.transport.send(heartbeat(1, 2, round));
    }
    assert_eq!(one.transport.stats().peers[&NodeId(2)].dropped, 90);
    one.transport.send(heartbeat(1, 4, 1));
}

#[tokio::test]
async fn a_peer_that_never_answers_is_given_up_in_time() {
    let (_silent, address) = listener("127.0.0.1:0").await;
    let one = Node::bind(1, "127.0.0.1:0", |options| {
        options.timing.connect = Duration::from_millis(50);
    })
    .await;
    one.set_peers(&[(2, address)]);
    one.transport.send(heartbeat(1, 2, 1));
    until(|| one.last_error(2) == "no welcome within 50ms").await;
    until(|| one.transport.stats().peers[&NodeId(2)].dropped == 1).await;
}

#[tokio::test]
async fn a_message_above_the_limit_is_dropped_by_its_sender() {
    let mut two = Node::serving(2).await;
    let one = Node::bind(1, "127.0.0.1:0", |options| {
        options.limits.message_max = 2 << 20;
    })
    .await;
    two.set_peers(&[(1, one.address)]);
    one.set_peers(&[(2, two.address)]);
    one.transport.send(append(1, 2, 1, 3 << 20));
    one.transport.send(append(1, 2, 2, 1 << 20));
    assert!(two.hear().await == append(1, 2, 2, 1 << 20));
    assert_eq!(one.transport.stats().peers[&NodeId(2)].dropped, 1);
}

#[tokio::test]
async fn a_message_above_the_receivers_limit_ends_the_stream() {
    let two = Node::bind(2, "127.0.0.1:0", |options| options.limits.message_max = 2 << 20).await;
    two.transport.serve().unwrap();
    let one = Node::serving(1).await;
    two.set_peers(&[(1, one.address)]);
    one.set_peers(&[(2, two.address)]);
    until(|| one.is_connected(2)).await;
    one.transport.send(append(1, 2, 1, 3 << 20));
    until(|| one.last_error(2) == "message of more than 2097152 bytes").await;
    assert_eq!(two.transport.stats().violations, 1);
}

/// Writes to the node's port, then reads until it closes the connection.
async fn shout(address: SocketAddr, bytes: &[u8]) -> Vec<u8> {
    let mut stream = TcpStream::connect(address).await.unwrap();
    // The node may close before everything is written.
    let _ = stream.write_all(bytes).await;
    let mut answer = Vec::new();
    let read = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut answer)).await;
    match read.expect("the node keeps the connection open") {
        Ok(_) => {}
        Err(error) => assert_eq!(error.kind(), io::ErrorKind::ConnectionReset),
    }
    answer
}

const MESSAGES: &str = "/lattice.raft.v1.Peer/Messages";

/// An HTTP/2 frame.
fn http2(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let head = [&length[1..], &[kind, flags], &stream.to_be_bytes()].concat();
    [&head, payload].concat()
}

/// The start of a gRPC call: preface, settings and headers, uncompressed.
fn call(path: &str) -> Vec<u8> {
    let text = |text: &str| [&[u8::try_from(text.len()).unwrap()], text.as_bytes()].concat();
    let headers = [
        vec![0x83, 0x86],
        [vec![0x04], text(path)].concat(),
        [vec![0x01], text("localhost")].concat(),
        [vec![0x0f, 0x10], text("application/grpc")].concat(),
        [vec![0x00], text("te"), text("trailers")].concat(),
    ]
    .concat();
    let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    [preface.as_slice(), &http2(4, 0, 0, &[]), &http2(1, 4, 1, &headers)].concat()
}

#[tokio::test]
async fn garbage_ends_its_own_connection_and_nothing_else() {
    let two = Node::bind(2, "127.0.0.1:0", |options| {
        options.timing.handshake = Duration::from_millis(100);
    })
    .await;
    two.transport.serve().unwrap();
    let one = Node::serving(1).await;
    two.set_peers(&[(1, one.address)]);
    one.set_peers(&[(2, two.address)]);
    until(|| one.is_connected(2)).await;

    let noise: Vec<u8> =
        (0..100_000_u32).map(|place| u8::try_from(place * 131 % 251).unwrap()).collect();
    shout(two.address, &noise).await;
    shout(two.address, b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").await;
    shout(two.address, b"").await;
    // A frame of 16 MiB is declared and never comes.
    let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    shout(two.address, &[preface, vec![0xff, 0xff, 0xff, 0, 0, 0, 0, 0, 1]].concat()).await;
    // A call whose message is said to be 4 GiB long, one whose greeting is noise, one that never
    // greets.
    let refused = || two.transport.stats().handshakes_refused;
    let before = refused();
    let lie = http2(0, 0, 1, &[0, 0xff, 0xff, 0xff, 0xff, 1, 2, 3]);
    shout(two.address, &[call(MESSAGES), lie].concat()).await;
    let nonsense = http2(0, 0, 1, &[0, 0, 0, 0, 4, 0xff, 0xff, 0xff, 0xff]);
    shout(two.address, &[call(MESSAGES), nonsense].concat()).await;
    shout(two.address, &call(MESSAGES)).await;
    assert_eq!(refused() - before, 3);

    let mut two = two;
    one.transport.send(heartbeat(1, 2, 1));
    assert_eq!(two.hear().await, heartbeat(1, 2, 1));
    assert_eq!(one.transport.stats().peers[&NodeId(2)].connects, 1, "never disturbed");
}

/// The peers' service, and another one that takes every other path.
#[derive(Clone)]
struct Mounted {
    peers: PeerService,
}

impl Service<http::Request<Body>> for Mounted {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<http::Response<Body>, Infallible>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.peers.poll_ready(context)
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        if request.uri().path().starts_with("/other.Service/") {
            if request.uri().path().ends_with("/Welcome") {
                request.extensions().get::<Connection>().expect("on every request").admit();
            }
            return Box::pin(std::future::ready(Ok(http::Response::new(Body::empty()))));
        }
        self.peers.call(request)
    }
}

#[tokio::test]
async fn another_service_shares_the_port_and_keeps_its_connections() {
    let mut two = Node::bind(2, "127.0.0.1:0", |options| {
        options.timing.handshake = Duration::from_millis(100);
    })
    .await;
    two.transport.serve_with(Mounted { peers: two.transport.service() }).unwrap();
    let one = Node::serving(1).await;
    two.set_peers(&[(1, one.address)]);
    one.set_peers(&[(2, two.address)]);
    until(|| one.is_connected(2)).await;
    // Closed in the end, for a call alone shows nothing.
    shout(two.address, &call("/other.Service/Call")).await;
    let mut other = TcpStream::connect(two.address).await.unwrap();
    other.write_all(&call("/other.Service/Welcome")).await.unwrap();
    let mut answers = Vec::new();
    let held = tokio::time::timeout(Duration::from_millis(300), other.read_to_end(&mut answers));
    assert!(held.await.is_err(), "closed although the other service admitted it");
    assert!(!answers.is_empty());
    one.transport.send(heartbeat(1, 2, 1));
    assert_eq!(two.hear().await, heartbeat(1, 2, 1));
}

#[tokio::test]
async fn connections_beyond_the_limit_are_closed_at_once() {
    let two = Node::bind(2, "127.0.0.1:0", |options| options.limits.connections = 2).await;
    two.transport.serve().unwrap();
    let _first = TcpStream::connect(two.address).await.unwrap();
    let _second = TcpStream::connect(two.address).await.unwrap();
    shout(two.address, b"").await;
    assert_eq!(two.transport.stats().connections_refused, 1);
}

#[tokio::test]
async fn handshakes_are_limited_by_address() {
    let two = Node::bind(2, "127.0.0.1:0", |options| {
        options.limits.handshakes_per_second = 1;
    })
    .await;
    two.transport.serve().unwrap();
    let stranger = Node::bind(1, "127.0.0.1:0", |options| {
        options.timing.backoff_min = Duration::from_millis(1);
        options.timing.backoff_max = Duration::from_millis(2);
    })
    .await;
    stranger.set_peers(&[(2, two.address)]);
    until(|| stranger.last_error(2).contains("too many handshakes from your address")).await;
    // Once it is a peer it gets through, as soon as it is its turn.
    two.set_peers(&[(1, stranger.address)]);
    until(|| stranger.is_connected(2)).await;
}

#[tokio::test]
async fn shutdown_is_bounded_and_frees_the_port() {
    let nodes = cluster(2).await;
    let mut silent = TcpStream::connect(nodes[0].address).await.unwrap();
    let limit = Duration::from_secs(10);
    tokio::time::timeout(limit, nodes[0].transport.shutdown()).await.expect("shutdown hangs");
    assert!(matches!(silent.read(&mut [0]).await, Ok(0) | Err(_)));
    let rebound = tokio::net::TcpListener::bind(nodes[0].address).await;
    assert!(rebound.is_ok(), "{rebound:?}");
    until(|| !nodes[1].is_connected(1)).await;
    // What is sent afterwards is lost without complaint.
    nodes[0].transport.send(heartbeat(1, 2, 1));
}

#[tokio::test]
async fn dropping_a_transport_closes_its_connections() {
    let mut nodes = cluster(2).await;
    let two = nodes.pop().unwrap();
    drop(two);
    until(|| !nodes[0].is_connected(2)).await;
}

#[test]
fn outside_a_runtime_there_is_an_error() {
    let bound = GrpcTransport::bind(GrpcOptions::new(identity(1)));
    assert!(matches!(bound, Err(GrpcError::NoRuntime(_))));
}

#[tokio::test]
async fn addresses_that_are_none_change_nothing() {
    let one = Node::serving(1).await;
    one.set_peers(&[(2, one.address)]);
    let wrong = BTreeMap::from([(NodeId(3), vec!["https://secure:1".to_owned()])]);
    let error = one.transport.set_peers(wrong).unwrap_err();
    assert_eq!(
        error.to_string(),
        "\"https://secure:1\" is not the address of a peer: https is not supported, use http"
    );
    assert!(one.transport.stats().peers.contains_key(&NodeId(2)));
}
