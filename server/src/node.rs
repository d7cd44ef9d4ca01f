//! One node: its ports, its threads, its life from start to stop.
//!
//! Raft and the peers have a thread, clients and operators another (see [`crate::runtime`]). Stopping is bounded in
//! time: clients get a moment for what is under way, Raft a moment to bring its log to disk, and then everything ends.

use std::hash::{BuildHasher as _, RandomState};
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use distributed_cache::net::{BindError, RunningServer};
use lattice_journal::{Disk, MemoryDisk, RealDisk};
use lattice_kv::{KvMachine, KvReader, Limits, MemberAttributes, Operation};
use raft_consensus::driver::{Consistency, NodeOptions, Raft, Status};
use raft_consensus::effects::FatalError;
use raft_consensus::storage::{DataDirectory, IdentityError};
use raft_consensus::transport::grpc::{GrpcError, GrpcOptions, GrpcTransport, Identity};
use raft_consensus::types::{ClusterId, NodeId};
use thiserror::Error;
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tonic::service::Routes;
use tonic::transport::Server;
use tonic_health::ServingStatus;

use crate::accept::{Accepted, connections, connections_max};
use crate::api::admin;
use crate::api::etcd::{self, ClientPort, DECODE_MAX, EtcdApi, RangeReads};
use crate::cache;
use crate::config::{Config, ConfigError, guard};
use crate::join::{self, Place};
use crate::members::Members;
use crate::metrics::Metrics;
use crate::proto::DESCRIPTOR;
use crate::relay::{Coordinator, Leader, Relay};
use crate::runtime::RuntimeThread;
use crate::url::Url;

/// Connections of clients at a time, on each address; more wait to be accepted.
const CLIENT_CONNECTIONS_MAX: usize = 8192;
/// Connections of peers at a time: a few for each of up to a hundred members, and room for strangers to be refused.
const PEER_CONNECTIONS_MAX: usize = 1024;
/// Connections of operators and their scrapers at a time.
const ADMIN_CONNECTIONS_MAX: usize = 64;
/// Of the files that this process may open, clients get one in two, peers and operators one in eight each; a quarter is
/// left to the log.
const FILES_FOR_EACH_CLIENT: usize = 2;
/// See [`FILES_FOR_EACH_CLIENT`].
const FILES_FOR_EACH_OTHER: usize = 8;
/// How long a client may take to begin.
const CLIENT_PATIENCE: Duration = Duration::from_secs(10);
/// How long an operator's connection may last.
const ADMIN_PATIENCE: Duration = Duration::from_secs(60);
/// Requests under way on one connection of a client; more wait at the client. Each may hold a part of a message in memory.
const CLIENT_STREAMS_MAX: u32 = 256;
/// Streams on one connection of a peer: the lanes of each group, calls that carry writes, and questions of nodes that start.
const PEER_STREAMS_MAX: u32 = 4096;
/// Between two attempts to leave office because the disk is nearly full.
const LOW_SPACE_PAUSE: Duration = Duration::from_secs(5);
/// How long requests under way may take once the node is stopping.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(2);
/// How long it may take to hand leadership over: a little longer than the longest election timeout.
const HAND_OVER_TIMEOUT: Duration = Duration::from_secs(2);
/// How long Raft may take to stop.
const RAFT_TIMEOUT: Duration = Duration::from_secs(5);
/// How long one attempt to publish this member's addresses may take.
const PUBLISH_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a node that starts waits for a port that is taken. The usual ports lie among those that the system gives to
/// outgoing connections: a peer or client that dials one before anybody listens there may hold it for a moment, even by being
/// connected to itself. The process before this one may not have ended either.
const PORT_PATIENCE: Duration = Duration::from_secs(3);
/// Between two tries of a taken port.
const PORT_PAUSE: Duration = Duration::from_millis(50);

/// The ports of one node, bound before it starts, so that a node can be told the addresses of others that run on ports the
/// system chose.
#[derive(Debug)]
pub struct Listeners {
    client: Vec<TcpListener>,
    peer: Vec<TcpListener>,
    admin: Option<TcpListener>,
}

/// A running node. Dropping it stops it at once, as a crash would; [`Node::shutdown`] is the friendly way.
#[derive(Debug)]
pub struct Node {
    shared: Arc<Shared>,
    client_urls: Vec<Url>,
    peer_urls: Vec<Url>,
    admin_url: Option<Url>,
    cache: Option<RunningServer>,
    stopping: watch::Sender<bool>,
    client_tasks: tokio::sync::Mutex<JoinSet<()>>,
    client_thread: RuntimeThread,
    peer_thread: RuntimeThread,
    transport: Arc<GrpcTransport>,
}

/// What the services of one node share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) id: NodeId,
    pub(crate) cluster: ClusterId,
    pub(crate) members: Members,
    pub(crate) raft: Raft<KvReader>,
    pub(crate) relay: Relay,
    pub(crate) metrics: Metrics,
    pub(crate) range_reads: RangeReads,
    /// See [`Config::request_timeout`].
    pub(crate) request_timeout: Duration,
    /// Without a leader for so long, something is wrong.
    election_patience: Duration,
    pub(crate) peer_runtime: Handle,
    draining: AtomicBool,
}

/// Why a node does not start.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum StartError {
    /// The configuration cannot work.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// An address cannot be listened on.
    #[error("cannot listen on {url} (--{setting})")]
    Listen {
        /// The setting that names it.
        setting: &'static str,
        /// The address.
        url: Url,
        /// Why.
        source: io::Error,
    },
    /// No member says who the members are.
    #[error(
        "--initial-cluster-state is `existing` and the data directory is empty, so this node joins a cluster, but no listed member \
         says who is in it ({reason})"
    )]
    NobodyToJoin {
        /// Who was asked, and what came of it.
        reason: String,
    },
    /// The cluster does not know this node.
    #[error(
        "{urls} is not among the members' peer URLs: add this node first (`lattice cluster add {name} {urls}`), or correct \
         --initial-advertise-peer-urls"
    )]
    NotListed {
        /// This node's name.
        name: String,
        /// Its peer URLs.
        urls: String,
    },
    /// The member with this node's peer URLs has a data directory, and this one is empty.
    #[error(
        "member {:x}, which has the peer URLs {urls}, ran with another data directory: a member that lost its directory must not \
         come back as itself, for it forgot its promises; put the directory back, or give the member's place to a new one \
         (`lattice cluster replace {:x} {name} {urls}`) and start this node again", .node.0, .node.0
    )]
    RanBefore {
        /// That member.
        node: NodeId,
        /// This node's name.
        name: String,
        /// The URLs of both.
        urls: String,
    },
    /// The listed members are another cluster's.
    #[error(
        "the data directory belongs to cluster {own}, the listed members are cluster {found}: correct --initial-cluster, or start with \
         the directory of a member of that cluster, or, if this node never was one and is to join, with an empty directory"
    )]
    OtherCluster {
        /// The members' cluster.
        found: ClusterId,
        /// The directory's.
        own: ClusterId,
    },
    /// The directory is one member's, and the name and the addresses are another's.
    #[error(
        "the data directory is that of member {:x}, and {name} with its peer URLs is another member: each must start with its own \
         directory; if this member is to have new addresses, tell the others first (`etcdctl member update`)", .node.0
    )]
    AnotherMember {
        /// Whose directory it is.
        node: NodeId,
        /// The name that this node was given.
        name: String,
    },
    /// The node is no member any more.
    #[error(
        "member {:x} was removed from the cluster for good: to come back, this machine needs an empty data directory and a new \
         member (`lattice cluster add`)", .node.0
    )]
    Removed {
        /// The node.
        node: NodeId,
    },
    /// A thread or a socket could not be set up.
    #[error("cannot start the node's threads")]
    Thread(#[from] io::Error),
    /// The connections to the peers cannot be set up.
    #[error("cannot set up the connections to the peers")]
    Transport(#[from] GrpcError),
    /// The data directory is in use, or another node's, or cannot be written.
    #[error(transparent)]
    Data(#[from] IdentityError),
    /// The data directory belongs to a cluster with other founders or another token than the listed ones.
    #[error(
        "{0}; if its members have changed since it was founded, start the node with --initial-cluster-state=existing, and the \
         directory says who it is"
    )]
    OtherFounders(IdentityError),
    /// The cache cannot listen, or its threads cannot be started.
    #[error("the cache does not start (--cache-listen)")]
    Cache(#[from] BindError),
    /// Raft does not start: the log or a snapshot is damaged …
    #[error(transparent)]
    Raft(#[from] raft_consensus::driver::StartError),
}

impl Listeners {
    /// Binds what the configuration names. Addresses that other machines can reach are refused unless the configuration
    /// allows them. A port that is taken is tried again for 3 s: what holds it may be an outgoing connection that has ended by
    /// then.
    pub async fn bind(config: &Config) -> Result<Self, StartError> {
        let insecure = config.insecure_no_auth;
        Ok(Self {
            client: listen_all("listen-client-urls", &config.listen_client, insecure).await?,
            peer: listen_all("listen-peer-urls", &config.listen_peer, insecure).await?,
            admin: match &config.admin_listen {
                Some(url) => Some(listen("admin-listen", url, insecure).await?),
                None => None,
            },
        })
    }

    /// Binds one port for clients, one for peers, one for operators.
    pub fn bind_to(client: &Url, peer: &Url, admin: &Url) -> io::Result<Self> {
        let bind = |url: &Url| TcpListener::bind(url.resolve()?.as_slice());
        Ok(Self { client: vec![bind(client)?], peer: vec![bind(peer)?], admin: Some(bind(admin)?) })
    }

    /// Ports of the loopback interface that the system chooses.
    pub fn loopback() -> io::Result<Self> {
        let any = || TcpListener::bind(("127.0.0.1", 0));
        Ok(Self { client: vec![any()?], peer: vec![any()?], admin: Some(any()?) })
    }

    /// Where clients can connect.
    pub fn client_urls(&self) -> io::Result<Vec<Url>> {
        self.client.iter().map(local_url).collect()
    }

    /// Where peers can connect.
    pub fn peer_urls(&self) -> io::Result<Vec<Url>> {
        self.peer.iter().map(local_url).collect()
    }

    /// Where operators can connect, if anywhere.
    pub fn admin_url(&self) -> io::Result<Option<Url>> {
        self.admin.as_ref().map(local_url).transpose()
    }
}

async fn listen_all(
    setting: &'static str,
    urls: &[Url],
    insecure: bool,
) -> Result<Vec<TcpListener>, StartError> {
    let mut listeners = Vec::new();
    for url in urls {
        listeners.push(listen(setting, url, insecure).await?);
    }
    Ok(listeners)
}

async fn listen(
    setting: &'static str,
    url: &Url,
    insecure: bool,
) -> Result<TcpListener, StartError> {
    let failed = |source| StartError::Listen { setting, url: url.clone(), source };
    let addresses = url.resolve().map_err(failed)?;
    guard(setting, url, &addresses, insecure)?;
    // The first address only: `localhost` stands for two, and the second may not exist here.
    let Some(first) = addresses.first() else {
        return Err(failed(io::ErrorKind::AddrNotAvailable.into()));
    };
    let deadline = Instant::now() + PORT_PATIENCE;
    loop {
        match TcpListener::bind(first) {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse && Instant::now() < deadline => {
                tokio::time::sleep(PORT_PAUSE).await;
            }
            result => return result.map_err(failed),
        }
    }
}

fn local_url(listener: &TcpListener) -> io::Result<Url> {
    listener.local_addr().map(Url::of)
}

impl Node {
    /// Starts a node on the ports that its configuration names.
    pub async fn start(config: Config) -> Result<Self, StartError> {
        config.check()?;
        let listeners = Listeners::bind(&config).await?;
        Self::start_on(config, listeners).await
    }

    /// Starts a node on ports that are bound already; those of the configuration are not looked at.
    pub async fn start_on(config: Config, listeners: Listeners) -> Result<Self, StartError> {
        config.check()?;
        for warning in config.warnings() {
            tracing::warn!("{warning}");
        }
        let client_urls = listeners.client_urls()?;
        let peer_urls = listeners.peer_urls()?;
        let admin_url = listeners.admin_url()?;
        let cache = config.cache.as_ref();
        let cache = cache
            .map(|cache| cache::bind(cache, &config.name, config.insecure_no_auth))
            .transpose()?;
        let (cache, cache_engine) = cache.unzip();
        let (stopping, stop) = watch::channel(false);

        let peer_thread = RuntimeThread::start("lattice-peer")?;
        let limits = Limits::default();
        let place = join::find(&config).await?;
        let (id, cluster) = (place.node, place.cluster);
        let is_founder = !place.founders.is_empty();
        let starting = start_raft(config.clone(), place, listeners.peer, limits);
        let RunningRaft { raft, transport, members, coordinator } =
            peer_thread.handle().spawn(starting).await.map_err(io::Error::other)??;

        let shared = Arc::new(Shared {
            id,
            cluster,
            relay: Relay::new(id, cluster, members.clone(), coordinator, limits, raft.clone()),
            members,
            metrics: Metrics::new(raft.clone(), config.read_mode, cache_engine),
            range_reads: RangeReads::new(),
            request_timeout: config.request_timeout(),
            election_patience: 3 * config.election_timeout,
            peer_runtime: peer_thread.handle().clone(),
            draining: AtomicBool::new(false),
            raft,
        });
        let client_thread = RuntimeThread::start("lattice-client")?;
        let mut client_tasks = JoinSet::new();
        let files_each = FILES_FOR_EACH_CLIENT * listeners.client.len();
        let limit = connections_max(CLIENT_CONNECTIONS_MAX, files_each.max(1));
        for listener in listeners.client {
            let serving = serve_clients(listener, limit, Arc::clone(&shared), stop.clone());
            client_tasks.spawn_on(serving, client_thread.handle());
        }
        if let Some(listener) = listeners.admin {
            let serving = serve_admin(listener, Arc::clone(&shared), stop);
            client_tasks.spawn_on(serving, client_thread.handle());
        }
        let advertised = if config.advertise_client.is_empty() {
            client_urls.clone()
        } else {
            config.advertise_client.clone()
        };
        client_thread
            .handle()
            .spawn(publish(Arc::clone(&shared), attributes(id, &config, &advertised)));
        client_thread.handle().spawn(leave_office_without_room(Arc::clone(&shared)));
        if is_founder {
            let warning = join::warn_until_founded(Arc::clone(&shared), config.clone());
            client_thread.handle().spawn(warning);
        }
        let cache = cache.map(distributed_cache::net::Server::start).transpose()?;
        let cache_address = cache.as_ref().and_then(RunningServer::local_addr);
        tracing::info!(
            name = config.name,
            member = format_args!("{:x}", id.0),
            cluster = %shared.cluster,
            clients = %join(&client_urls),
            peers = %join(&peer_urls),
            admin = %admin_url.as_ref().map_or_else(|| "none".into(), ToString::to_string),
            cache = %cache_address.map_or_else(|| "none".into(), |address| address.to_string()),
            reads = config.read_mode.name(),
            "node started"
        );
        Ok(Self {
            shared,
            client_urls,
            peer_urls,
            admin_url,
            cache,
            stopping,
            client_tasks: client_tasks.into(),
            client_thread,
            peer_thread,
            transport,
        })
    }

    /// This node's id.
    #[must_use]
    pub fn id(&self) -> NodeId {
        self.shared.id
    }

    /// Where it listens for clients.
    #[must_use]
    pub fn client_urls(&self) -> &[Url] {
        &self.client_urls
    }

    /// Where it listens for peers.
    #[must_use]
    pub fn peer_urls(&self) -> &[Url] {
        &self.peer_urls
    }

    /// Where it serves health and metrics, if anywhere.
    #[must_use]
    pub fn admin_url(&self) -> Option<&Url> {
        self.admin_url.as_ref()
    }

    /// Where it serves the cache, if anywhere.
    #[must_use]
    pub fn cache_address(&self) -> Option<SocketAddr> {
        self.cache.as_ref().and_then(RunningServer::local_addr)
    }

    /// How Raft stands on this node.
    #[must_use]
    pub fn status(&self) -> Status {
        self.shared.raft.status()
    }

    /// Waits until some leader is known to this node, and returns it. Ends with `None` if the node stops first.
    pub async fn leader(&self) -> Option<NodeId> {
        let mut status = self.shared.raft.watch();
        let status = status.wait_for(|status| status.leader.is_some()).await.ok()?;
        status.leader
    }

    /// Waits until the node has stopped, and says why if it had to.
    pub async fn stopped(&self) -> Option<FatalError> {
        self.shared.raft.stopped().await
    }

    /// Waits until the node has learnt that it is a member no more, and then says so. It takes no part in the cluster then, and may be
    /// [shut down](Self::shutdown).
    pub async fn removed(&self) -> StartError {
        join::removed(&self.shared, self.shared.election_patience).await;
        StartError::Removed { node: self.shared.id }
    }

    /// Stops the node: it hands leadership over if it leads, clients' requests under way may end, the log goes to disk. Takes at most
    /// twelve seconds.
    pub async fn shutdown(self) {
        self.shared.draining.store(true, Ordering::Relaxed);
        // While it still answers: what is under way ends under the next leader. Who does not lead, or alone, knows it at once.
        let handed_over = self.shared.raft.transfer_leader(None);
        match tokio::time::timeout(HAND_OVER_TIMEOUT, handed_over).await {
            Ok(Ok(())) => tracing::info!("handed leadership over"),
            Ok(Err(reason)) => tracing::debug!(%reason, "no leadership to hand over"),
            Err(_elapsed) => tracing::warn!("nobody took over within {HAND_OVER_TIMEOUT:?}"),
        }
        let _nobody_serves = self.stopping.send(true);
        // Its threads wait half a second for their connections; what they tell of is logged by them.
        let cache = self.cache.map(|cache| tokio::task::spawn_blocking(move || cache.stop()));
        drain(self.client_tasks.into_inner(), DRAIN_TIMEOUT).await;
        self.client_thread.stop().await;
        if let Some(cache) = cache
            && let Ok(Err(error)) = cache.await
        {
            tracing::warn!(%error, "the cache did not stop as it should");
        }
        if tokio::time::timeout(RAFT_TIMEOUT, self.shared.raft.shutdown()).await.is_err() {
            tracing::warn!("Raft did not stop within {RAFT_TIMEOUT:?}; leaving it behind");
        }
        self.transport.shutdown().await;
        self.peer_thread.stop().await;
        tracing::info!(member = format_args!("{:x}", self.shared.id.0), "node stopped");
    }
}

impl Shared {
    /// Whether the node takes no new work.
    pub(crate) fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Relaxed)
    }
}

/// Waits for the tasks to end by themselves, then ends those that have not.
async fn drain(mut tasks: JoinSet<()>, timeout: Duration) {
    let all = async { while tasks.join_next().await.is_some() {} };
    if tokio::time::timeout(timeout, all).await.is_err() {
        tasks.shutdown().await;
    }
}

/// What runs on the peers' thread.
struct RunningRaft {
    raft: Raft<KvReader>,
    transport: Arc<GrpcTransport>,
    members: Members,
    coordinator: Arc<Coordinator>,
}

/// Opens the data directory, connects to the peers and starts Raft, on the thread where all of it is to run.
async fn start_raft(
    config: Config,
    place: Place,
    listeners: Vec<TcpListener>,
    limits: Limits,
) -> Result<RunningRaft, StartError> {
    let (me, cluster) = (place.node, place.cluster);
    let directory = open_directory(&config, &place)?;
    let store = directory.identity().store;
    let mut transport = GrpcOptions::new(Identity { cluster, node: me, store });
    transport.listeners = listeners;
    transport.limits.connections = connections_max(PEER_CONNECTIONS_MAX, FILES_FOR_EACH_OTHER);
    transport.limits.streams = PEER_STREAMS_MAX;
    let others = place.seeds.iter().filter(|(id, _)| **id != me);
    transport.peers = others.map(|(id, contact)| (*id, strings(&contact.peer_urls))).collect();
    let transport = GrpcTransport::bind(transport)?;

    let mut options = NodeOptions::new(directory);
    options.limits.snapshot_entries = config.snapshot_count;
    options.limits.snapshot_bytes_per_second = config.snapshot_bytes_per_second;
    options.timing.heartbeat = config.heartbeat;
    options.timing.election_timeout = config.election_timeout..config.election_timeout * 3 / 2;
    options.reads = config.read_policy();
    let raft = Raft::start(options, KvMachine::new(limits), transport.clone())?;
    let members = Members::new(raft.clone(), place.seeds);
    tokio::spawn(members.clone().follow(me, Arc::clone(&transport)));
    let coordinator = Arc::new(Coordinator::new(members.clone(), raft.clone()));
    let leader = Leader::service(cluster, members.clone(), Arc::clone(&coordinator), raft.clone());
    transport.serve_with(Routes::new(transport.service()).add_service(leader))?;
    Ok(RunningRaft { raft, transport, members, coordinator })
}

fn open_directory(config: &Config, place: &Place) -> Result<DataDirectory, StartError> {
    let (disk, path): (Arc<dyn Disk>, &Path) = match &config.data_dir {
        Some(path) => (Arc::new(RealDisk), path),
        None => (Arc::new(MemoryDisk::new()), Path::new("/node")),
    };
    DataDirectory::open(disk, path, place.cluster, place.node, &place.founders, random_bits())
        .map_err(|error| match error {
            // A node that joins has its cluster from its directory or from the members.
            IdentityError::WrongCluster { .. } => StartError::OtherFounders(error),
            error => StartError::Data(error),
        })
}

/// Random bits from the operating system, by way of the keys that the standard library draws for its hash maps.
pub(crate) fn random_bits() -> u128 {
    let half = || u128::from(RandomState::new().hash_one(0_u8));
    half() << 64 | half()
}

fn attributes(id: NodeId, config: &Config, client_urls: &[Url]) -> MemberAttributes {
    let me = config.me();
    MemberAttributes {
        id,
        name: me.name.clone(),
        peer_urls: strings(&me.peer_urls),
        client_urls: strings(client_urls),
    }
}

/// Hands leadership over while this node's disk is nearly full: a leader without room refuses all writes, though others may have plenty.
/// Where nobody has, leadership goes round, at this pace, and nothing is the worse for it.
async fn leave_office_without_room(node: Arc<Shared>) {
    let mut status = node.raft.watch();
    loop {
        let is_due = |now: &Status| now.low_space && now.leader == Some(node.id);
        if status.wait_for(is_due).await.is_err() {
            return;
        }
        match node.raft.transfer_leader(None).await {
            Ok(()) => tracing::warn!("handed leadership over, as the disk is nearly full"),
            Err(reason) => {
                tracing::debug!(%reason, "nobody takes over from a disk that is nearly full");
            }
        }
        tokio::time::sleep(LOW_SPACE_PAUSE).await;
    }
}

/// Tells the cluster this member's name and addresses, unless it knows them already.
async fn publish(node: Arc<Shared>, attributes: MemberAttributes) {
    loop {
        let known = node.raft.read(Consistency::Linearizable).await.ok();
        if known.is_some_and(|reader| reader.member(node.id).as_ref() == Some(&attributes)) {
            return;
        }
        let operation = Operation::PublishMember(attributes.clone());
        let deadline = Instant::now() + PUBLISH_TIMEOUT;
        match node.relay.write(operation, deadline).await {
            Ok(_) => return,
            Err(crate::relay::WriteError::Stopped) => return,
            Err(error) => {
                tracing::debug!(?error, "this member's addresses are not published yet");
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
        }
    }
}

/// HTTP/2 as the clients' port speaks it. The library's own windows of 64 KiB would throttle large values.
fn server() -> Server {
    Server::builder()
        // For probes and scrapers: see `admin::beside`.
        .accept_http1(true)
        .max_concurrent_streams(CLIENT_STREAMS_MAX)
        .initial_stream_window_size(2 << 20)
        .initial_connection_window_size(4 << 20)
        .http2_keepalive_interval(Some(Duration::from_secs(20)))
        .http2_keepalive_timeout(Some(Duration::from_secs(10)))
        .http2_max_header_list_size(16 << 10)
}

async fn stop_signal(mut stop: watch::Receiver<bool>) {
    // A node that is gone without a word stops its servers too.
    let _stopping_or_gone = stop.wait_for(|stop| *stop).await;
}

async fn serve_clients(
    listener: TcpListener,
    limit: usize,
    node: Arc<Shared>,
    stop: watch::Receiver<bool>,
) {
    let api = EtcdApi::new(Arc::clone(&node));
    let (reporter, health) = tonic_health::server::health_reporter();
    let reflection = tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(DESCRIPTOR)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET);
    // What this port serves, of all that the sets describe.
    let reflection = etcd::SERVICES
        .into_iter()
        .fold(reflection, |reflection, service| reflection.with_service_name(service))
        .build_v1()
        .expect("the descriptor set is generated with the code");
    let mut others = Routes::new(api.cluster())
        .add_service(api.members())
        .add_service(api.maintenance())
        .add_service(health.max_decoding_message_size(DECODE_MAX))
        .add_service(reflection.max_decoding_message_size(DECODE_MAX));
    let router = others.axum_router_mut();
    *router = admin::beside(std::mem::take(router), Arc::clone(&node));
    let others = others.prepare();
    let port = ClientPort { kv: api.kv(), others };
    let report = report_health(reporter, Arc::clone(&node), stop.clone());
    let served = match connections(listener, limit, CLIENT_PATIENCE) {
        Ok(incoming) => {
            let serving = server().serve_with_incoming_shutdown(port, incoming, stop_signal(stop));
            tokio::select! {
                served = serving => served.map_err(io::Error::other),
                () = report => Ok(()),
            }
        }
        Err(error) => Err(error),
    };
    if let Err(error) = served {
        tracing::error!(%error, "the client port is no longer served");
    }
}

/// Keeps gRPC's health service true: serving while there is a leader and the node is not stopping. Never ends.
async fn report_health(
    reporter: tonic_health::server::HealthReporter,
    node: Arc<Shared>,
    mut stop: watch::Receiver<bool>,
) {
    let mut status = node.raft.watch();
    let mut last = None;
    loop {
        let has_leader = status.borrow_and_update().leader.is_some();
        let serving = has_leader && !*stop.borrow_and_update();
        if last != Some(serving) {
            last = Some(serving);
            let value = if serving { ServingStatus::Serving } else { ServingStatus::NotServing };
            for service in ["", "etcdserverpb.KV"] {
                reporter.set_service_status(service, value).await;
            }
        }
        let news = async {
            tokio::select! {
                changed = status.wait_for(|status| status.leader.is_some() != has_leader) => changed.is_ok(),
                changed = stop.changed() => changed.is_ok(),
            }
        };
        if !news.await {
            reporter.set_service_status("", ServingStatus::NotServing).await;
            return std::future::pending().await;
        }
    }
}

async fn serve_admin(listener: TcpListener, node: Arc<Shared>, stop: watch::Receiver<bool>) {
    let served = async {
        let limit = connections_max(ADMIN_CONNECTIONS_MAX, FILES_FOR_EACH_OTHER);
        let listener = Accepted(connections(listener, limit, ADMIN_PATIENCE)?);
        axum::serve(listener, admin::router(node)).with_graceful_shutdown(stop_signal(stop)).await
    };
    if let Err(error) = served.await {
        tracing::error!(%error, "the admin port is no longer served");
    }
}

fn strings(urls: &[Url]) -> Vec<String> {
    urls.iter().map(ToString::to_string).collect()
}

fn join(urls: &[Url]) -> String {
    strings(urls).join(",")
}
