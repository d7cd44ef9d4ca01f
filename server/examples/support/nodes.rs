//! The nodes of the example: where they listen, and how they start, crash and stop.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use lattice::founders::Founders;
use lattice::url::Url;
use lattice::{Config, Listeners, Node, Settings};
use tokio::task::JoinSet;

/// The first node's port for Raft, and for clients; each next node's are a hundred higher.
const RAFT_PORT: u16 = 50051;
const KV_PORT: u16 = 50152;
const STRIDE: u16 = 100;
/// How long to wait for what should take a second or two.
const PATIENCE: Duration = Duration::from_secs(30);
/// How often to look again.
const PAUSE: Duration = Duration::from_millis(50);

/// One node: its name and its ports.
#[derive(Clone, Debug)]
pub struct NodeConfig {
    name: String,
    raft_port: u16,
    kv_port: u16,
}

impl NodeConfig {
    /// The configuration of the node with this number, from 0.
    pub fn number(number: u16) -> Self {
        Self {
            name: format!("node{}", number + 1),
            raft_port: RAFT_PORT + STRIDE * number,
            kv_port: KV_PORT + STRIDE * number,
        }
    }

    /// How the example calls the node.
    fn shown(&self) -> String {
        format!("{}:{}", Ipv4Addr::LOCALHOST, self.raft_port)
    }
}

/// The nodes, and what is needed to start one again.
#[derive(Debug)]
pub struct Cluster {
    configs: Vec<NodeConfig>,
    founders: Founders,
    directory: PathBuf,
    nodes: Vec<Option<Node>>,
}

impl Cluster {
    /// Starts the nodes one after the other; the first ones try in vain to reach the others, and try again.
    pub async fn start(configs: Vec<NodeConfig>, directory: &Path) -> Result<Self> {
        // Members are told by both addresses, whatever this machine has: the list is part of who they are.
        let peer_urls = |config: &NodeConfig| {
            let v4 = Url::of((Ipv4Addr::LOCALHOST, config.raft_port).into());
            let v6 = Url::of((Ipv6Addr::LOCALHOST, config.raft_port).into());
            (config.name.clone(), vec![v4, v6])
        };
        let founders = Founders::new("lattice-cluster-example", configs.iter().map(peer_urls))?;
        let mut cluster =
            Self { configs, founders, directory: directory.to_path_buf(), nodes: Vec::new() };
        for index in 0..cluster.configs.len() {
            let node = cluster.start_node(index).await?;
            cluster.nodes.push(Some(node));
        }
        Ok(cluster)
    }

    async fn start_node(&self, index: usize) -> Result<Node> {
        let NodeConfig { name, raft_port, kv_port } = &self.configs[index];
        let shown = self.configs[index].shown();
        // The server's own timing: elections after 1.0 to 1.5 s, so that a busy machine does not look like a dead leader.
        let settings = Settings {
            name: Some(name.clone()),
            admin_listen: Some("none".into()),
            cache_listen: Some("none".into()),
            ..Settings::default()
        };
        let mut config = Config::new(settings)?;
        config.founders = self.founders.clone();
        config.data_dir = Some(self.directory.join(name));
        config.listen_peer = local_urls(*raft_port);
        config.listen_client = local_urls(*kv_port);
        println!("[Node {shown}] Starting Raft loop");
        let listeners = Listeners::bind(&config).await.with_context(|| {
            format!("is another cluster running? [Node {shown}] needs its ports")
        })?;
        let node = Node::start_on(config, listeners)
            .await
            .with_context(|| format!("[Node {shown}] does not start"))?;
        for url in node.peer_urls() {
            println!("[Node {shown}] Raft server listening on {}", without_scheme(url));
        }
        for url in node.client_urls() {
            println!("[Node {shown}] KV service listening on {}", without_scheme(url));
        }
        Ok(node)
    }

    /// Waits until the running nodes agree on a leader that runs; returns how the example calls it, and its term.
    pub async fn leader(&self) -> Result<(String, u64)> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let told: Vec<_> = self
                .nodes
                .iter()
                .flatten()
                .map(|node| node.status())
                .map(|status| (status.leader, status.term))
                .collect();
            let agreed = told.windows(2).all(|pair| pair[0] == pair[1]);
            if agreed && let Some((Some(leader), term)) = told.first() {
                let running = self
                    .configs
                    .iter()
                    .zip(&self.nodes)
                    .find(|(_, node)| node.as_ref().is_some_and(|node| node.id() == *leader));
                if let Some((config, _)) = running {
                    return Ok((config.shown(), term.0));
                }
            }
            if Instant::now() > deadline {
                bail!("no leader within {PATIENCE:?}");
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// Stops the node at once, as a crash would; returns its index.
    pub fn kill(&mut self, shown: &str) -> Result<usize> {
        let index = self
            .configs
            .iter()
            .position(|config| config.shown() == shown)
            .context("the leader is one of the nodes")?;
        drop(self.nodes[index].take());
        Ok(index)
    }

    /// Starts a node again that was killed. Its ports and its directory may take a moment to become free.
    pub async fn restart(&mut self, index: usize) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        let node = loop {
            match self.start_node(index).await {
                Ok(node) => break node,
                Err(error) if Instant::now() > deadline => return Err(error),
                Err(_not_yet) => tokio::time::sleep(PAUSE).await,
            }
        };
        self.nodes[index] = Some(node);
        Ok(())
    }

    /// Where each node serves clients.
    pub fn kv_endpoints_by_node(&self) -> Vec<Vec<Url>> {
        (0..self.configs.len()).map(|index| self.kv_endpoints_of(index)).collect()
    }

    /// Where one node serves clients.
    pub fn kv_endpoints_of(&self, index: usize) -> Vec<Url> {
        local_urls(self.configs[index].kv_port)
    }

    /// Where clients are served.
    pub fn kv_endpoints(&self) -> Vec<Url> {
        self.kv_endpoints_by_node().concat()
    }

    /// Where clients are served, one address for each node, as etcdctl takes it.
    pub fn kv_endpoints_text(&self) -> String {
        let first = self.configs.iter().filter_map(|config| local_urls(config.kv_port).pop());
        first.map(|url| without_scheme(&url)).collect::<Vec<String>>().join(",")
    }

    /// Stops all nodes, each with its log complete on disk.
    pub async fn shutdown(self) {
        let mut stopping = JoinSet::new();
        for node in self.nodes.into_iter().flatten() {
            stopping.spawn(node.shutdown());
        }
        while stopping.join_next().await.is_some() {}
    }
}

/// The loopback addresses that this machine has, IPv6 first.
fn local_urls(port: u16) -> Vec<Url> {
    let has_ipv6 = TcpListener::bind((Ipv6Addr::LOCALHOST, 0)).is_ok();
    let v6 = has_ipv6.then(|| SocketAddr::from((Ipv6Addr::LOCALHOST, port)));
    let v4 = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    v6.into_iter().chain([v4]).map(Url::of).collect()
}

fn without_scheme(url: &Url) -> String {
    url.to_string().trim_start_matches("http://").to_owned()
}
