//! Some nodes in this process, each with its own ports and data directory.

use std::path::PathBuf;
use std::time::Duration;

use lattice::client::{Client, ClientError};
use lattice::founders::Founders;
use lattice::proto::etcdserverpb::{PutRequest, PutResponse, RangeRequest, RangeResponse};
use lattice::url::Url;
use lattice::{Config, Listeners, Node, Settings};
use tempfile::TempDir;

/// Long enough for a machine that does other things at the same time.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

pub(crate) struct Cluster {
    pub(crate) nodes: Vec<Option<Node>>,
    configs: Vec<Config>,
    urls: Vec<Url>,
    _directory: TempDir,
}

impl Cluster {
    pub(crate) async fn start(count: usize) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let names: Vec<String> = (1..=count).map(|number| format!("n{number}")).collect();
        let listeners: Vec<Listeners> =
            names.iter().map(|_| Listeners::loopback().unwrap()).collect();
        let peers = names.iter().cloned().zip(listeners.iter().map(|l| l.peer_urls().unwrap()));
        let founders = Founders::new("test", peers).unwrap();
        let urls = listeners.iter().map(|l| l.client_urls().unwrap().remove(0)).collect();
        let mut cluster =
            Self { nodes: Vec::new(), configs: Vec::new(), urls, _directory: directory };
        for (name, listeners) in names.into_iter().zip(listeners) {
            let data_dir = cluster._directory.path().join(&name);
            let mut config = config(&name, founders.clone(), data_dir);
            config.listen_client = listeners.client_urls().unwrap();
            config.listen_peer = listeners.peer_urls().unwrap();
            config.admin_listen = listeners.admin_url().unwrap();
            cluster.nodes.push(Some(Node::start_on(config.clone(), listeners).await.unwrap()));
            cluster.configs.push(config);
        }
        for node in cluster.up() {
            node.leader().await.unwrap();
        }
        cluster
    }

    pub(crate) fn up(&self) -> impl Iterator<Item = &Node> {
        self.nodes.iter().flatten()
    }

    pub(crate) async fn stop(&mut self, index: usize) {
        self.nodes[index].take().unwrap().shutdown().await;
    }

    /// Starts a stopped node again, on the same ports and directory.
    pub(crate) async fn restart(&mut self, index: usize) {
        let config = self.configs[index].clone();
        self.nodes[index] = Some(Node::start(config).await.unwrap());
    }

    /// What a node will be started with next time.
    pub(crate) fn config(&mut self, index: usize) -> &mut Config {
        &mut self.configs[index]
    }

    /// The index of a running node that leads, as it knows itself.
    pub(crate) fn leader(&self) -> Option<usize> {
        self.nodes.iter().position(|node| {
            node.as_ref().is_some_and(|node| node.status().leader == Some(node.id()))
        })
    }

    pub(crate) fn urls(&self) -> &[Url] {
        &self.urls
    }

    pub(crate) async fn client(&self, index: usize) -> Client {
        Client::connect(&self.urls[index..=index], PATIENCE).await.unwrap()
    }
}

pub(crate) fn config(name: &str, founders: Founders, data_dir: PathBuf) -> Config {
    let settings = Settings {
        name: Some(name.into()),
        heartbeat_interval: Some(50),
        election_timeout: Some(500),
        // Its usual port is one, and these nodes are many.
        cache_listen: Some("none".into()),
        ..Settings::default()
    };
    let mut config = Config::new(settings).unwrap();
    config.founders = founders;
    config.data_dir = Some(data_dir);
    config
}

pub(crate) async fn put(
    client: &Client,
    key: impl AsRef<[u8]>,
    value: impl AsRef<[u8]>,
) -> Result<PutResponse, ClientError> {
    let key = key.as_ref().to_vec().into();
    let value = value.as_ref().to_vec().into();
    client.put(PutRequest { key, value, ..PutRequest::default() }).await
}

pub(crate) async fn get(client: &Client, key: &str) -> Option<String> {
    let response = range(client, key, "").await;
    assert!(response.kvs.len() <= 1, "one key was asked for");
    response.kvs.first().map(|kv| String::from_utf8(kv.value.to_vec()).unwrap())
}

pub(crate) async fn range(client: &Client, key: &str, end: &str) -> RangeResponse {
    let key = key.as_bytes().to_vec().into();
    let range_end = end.as_bytes().to_vec().into();
    client.range(RangeRequest { key, range_end, ..RangeRequest::default() }).await.unwrap()
}

/// One node with a cache on a free port, with this password.
pub(crate) async fn alone_with_cache(password: Option<&str>) -> (Node, TempDir) {
    let directory = tempfile::tempdir().unwrap();
    let listeners = Listeners::loopback().unwrap();
    let peers = [("n1".to_owned(), listeners.peer_urls().unwrap())];
    let founders = Founders::new("test", peers).unwrap();
    let mut config = config("n1", founders, directory.path().join("n1"));
    let settings = Settings {
        cache_listen: Some("127.0.0.1:0".into()),
        cache_requirepass: password.map(str::to_owned),
        ..Settings::default()
    };
    config.cache = Config::new(settings).unwrap().cache;
    let node = Node::start_on(config, listeners).await.unwrap();
    node.leader().await.unwrap();
    (node, directory)
}
