//! `lattice demo`: a whole cluster in one process, with the ports and the disks of a real one.

use std::collections::BTreeMap;
use std::io;
use std::net::TcpListener;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use clap::Args;
use lattice::config::{CacheConfig, LogFormat};
use lattice::founders::Founders;
use lattice::url::Url;
use lattice::{Config, Listeners, Node, Settings};

use super::Exit;
use super::output::print;
use super::serve::{Signals, log_to_stderr, raise_file_limit};

#[derive(Debug, Args)]
pub(crate) struct Demo {
    /// How many nodes
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..=9))]
    nodes: u16,
    /// Keep the data here, and go on with what is there [default: a temporary directory]
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
}

/// Where each node of a kept demo listens. Written beside the data: a node's address is part of who it is.
const PORTS_FILE: &str = "demo.toml";
/// Ports of the first node; each next one's are this much higher.
const CLIENT_PORT: u16 = 2379;
const PEER_PORT: u16 = 2380;
const ADMIN_PORT: u16 = 8080;
const STRIDE: u16 = 10_000;

/// A node's three addresses.
type Addresses = BTreeMap<String, Url>;

impl Demo {
    pub(crate) fn run(self) -> anyhow::Result<Exit> {
        log_to_stderr(LogFormat::Text, "warn");
        raise_file_limit();
        tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(self.demo())
    }

    async fn demo(self) -> anyhow::Result<Exit> {
        let mut signals = Signals::new()?;
        let temporary = match self.data_dir {
            Some(_) => None,
            None => Some(tempfile::Builder::new().prefix("lattice-demo-").tempdir()?),
        };
        let directory = match (&self.data_dir, &temporary) {
            (Some(kept), _) => kept.clone(),
            (None, Some(temporary)) => temporary.path().to_path_buf(),
            (None, None) => unreachable!("one of the two is there"),
        };
        let nodes = tokio::select! {
            nodes = start(&directory, self.nodes) => nodes?,
            _ = signals.next() => return Ok(Exit::Interrupted),
        };
        print(&welcome(&nodes, &directory, temporary.is_some()))?;
        let exit = tokio::select! {
            _ = signals.next() => Exit::Done,
            reason = any_stopped(&nodes) => {
                super::output::complain(&reason);
                Exit::Failed
            }
        };
        print("\nStopping.\n")?;
        let mut stopping = tokio::task::JoinSet::new();
        for node in nodes {
            stopping.spawn(node.shutdown());
        }
        while stopping.join_next().await.is_some() {}
        Ok(exit)
    }
}

async fn start(directory: &Path, count: u16) -> anyhow::Result<Vec<Node>> {
    std::fs::create_dir_all(directory)
        .with_context(|| format!("cannot create {}", directory.display()))?;
    let listeners = bind(directory, count)?;
    let mut peers = Vec::new();
    for (name, listeners) in &listeners {
        peers.push((name.clone(), listeners.peer_urls()?));
    }
    let founders = Founders::new("lattice-demo", peers)?;
    let mut nodes = Vec::new();
    for (name, listeners) in listeners {
        let mut config = Config::new(Settings { name: Some(name.clone()), ..Settings::default() })?;
        config.founders = founders.clone();
        config.data_dir = Some(directory.join(&name));
        // One cache: those of several nodes do not know each other yet.
        config.cache = config.cache.take().filter(|_| nodes.is_empty()).map(usual_or_free_cache);
        let node = Node::start_on(config, listeners)
            .await
            .with_context(|| format!("{name} does not start"))?;
        nodes.push(node);
    }
    for node in &nodes {
        node.leader().await.context("a node stopped before there was a leader")?;
    }
    Ok(nodes)
}

/// Binds the ports that the directory remembers, or else the usual ones as far as they are free.
fn bind(directory: &Path, count: u16) -> anyhow::Result<Vec<(String, Listeners)>> {
    let file = directory.join(PORTS_FILE);
    match std::fs::read_to_string(&file) {
        Ok(text) => {
            let kept: BTreeMap<String, BTreeMap<String, String>> =
                toml::from_str(&text).with_context(|| format!("cannot read {}", file.display()))?;
            if kept.len() != usize::from(count) {
                bail!(
                    "{} holds a demo of {} nodes: say --nodes {} or choose another directory",
                    directory.display(),
                    kept.len(),
                    kept.len()
                );
            }
            kept.into_iter()
                .map(|(name, addresses)| {
                    let url = |port: &str| -> anyhow::Result<Url> {
                        let text = addresses
                            .get(port)
                            .with_context(|| format!("{}: {name} has no {port}", file.display()))?;
                        Ok(text.parse()?)
                    };
                    let listeners =
                        Listeners::bind_to(&url("client")?, &url("peer")?, &url("admin")?)
                            .context("the demo must listen where it did before")?;
                    Ok((name, listeners))
                })
                .collect()
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let listeners: Vec<(String, Listeners)> = (0..count)
                .map(|number| Ok((format!("n{}", number + 1), usual_or_free(number)?)))
                .collect::<io::Result<_>>()?;
            let mut kept = BTreeMap::new();
            for (name, listeners) in &listeners {
                kept.insert(name.clone(), addresses(listeners)?);
            }
            std::fs::write(&file, toml::to_string(&kept)?)
                .with_context(|| format!("cannot write {}", file.display()))?;
            Ok(listeners)
        }
        Err(error) => Err(error).with_context(|| format!("cannot read {}", file.display())),
    }
}

fn usual_or_free(number: u16) -> io::Result<Listeners> {
    let port = |base: u16| number.checked_mul(STRIDE).and_then(|offset| base.checked_add(offset));
    let url = |base: u16| -> Url {
        let port = port(base).unwrap_or(0);
        Url::of(([127, 0, 0, 1], port).into())
    };
    match Listeners::bind_to(&url(CLIENT_PORT), &url(PEER_PORT), &url(ADMIN_PORT)) {
        Ok(listeners) => Ok(listeners),
        Err(_taken) => Listeners::loopback(),
    }
}

/// The cache on its usual port, or on a free one if somebody, perhaps a Redis, has that.
fn usual_or_free_cache(mut cache: CacheConfig) -> CacheConfig {
    let usual = cache.listen.resolve();
    if !usual.is_ok_and(|addresses| TcpListener::bind(addresses.as_slice()).is_ok()) {
        cache.listen = Url::of(([127, 0, 0, 1], 0).into());
    }
    cache
}

fn addresses(listeners: &Listeners) -> io::Result<BTreeMap<String, String>> {
    let mut addresses = Addresses::new();
    for (port, urls) in [("client", listeners.client_urls()?), ("peer", listeners.peer_urls()?)] {
        addresses.extend(urls.first().map(|url| (port.to_owned(), url.clone())));
    }
    addresses.extend(listeners.admin_url()?.map(|url| ("admin".to_owned(), url)));
    Ok(addresses.into_iter().map(|(port, url)| (port, url.to_string())).collect())
}

fn welcome(nodes: &[Node], directory: &Path, temporary: bool) -> String {
    let first = |urls: &[Url]| urls.first().map_or_else(String::new, ToString::to_string);
    let mut text = format!("=== Lattice: {} nodes on this machine ===\n\n", nodes.len());
    for (index, node) in nodes.iter().enumerate() {
        let is_leader = node.status().leader == Some(node.id());
        text.push_str(&format!(
            "  n{}  clients {}  peers {}  admin {}{}\n",
            index + 1,
            first(node.client_urls()),
            first(node.peer_urls()),
            node.admin_url().map_or_else(|| "none".into(), ToString::to_string),
            if is_leader { "  (leader)" } else { "" }
        ));
    }
    let cache = nodes.iter().find_map(Node::cache_address);
    if let Some(cache) = cache {
        text.push_str(&format!("\n  The cache, on n1 alone: {cache}\n"));
    }
    let endpoints: Vec<String> = nodes.iter().map(|node| first(node.client_urls())).collect();
    let endpoints = endpoints.join(",");
    let admin =
        nodes.first().and_then(Node::admin_url).map_or_else(String::new, ToString::to_string);
    text.push_str(&format!(
        "\nData in {}{}.\n\nTry, in another terminal:\n\n\
         \x20 export LATTICE_ENDPOINTS={endpoints}\n\
         \x20 lattice kv put greeting hello\n\
         \x20 lattice kv get greeting\n\
         \x20 lattice cluster status\n\
         \x20 etcdctl --endpoints={endpoints} get greeting\n\
         \x20 curl {admin}/readyz?verbose\n\
         {}\n\
         Ctrl-C stops it.\n",
        directory.display(),
        if temporary { ", removed at the end; --data-dir keeps it" } else { "" },
        cache.map_or_else(String::new, |cache| format!(
            "\x20 redis-cli -p {} set greeting hello ex 60\n\
             \x20 lattice cache stats --server {cache}\n",
            cache.port()
        )),
    ));
    text
}

/// Waits until a node stops by itself, which is never wanted, and says which and why.
async fn any_stopped(nodes: &[Node]) -> String {
    let mut waiting: Vec<_> = nodes.iter().map(|node| Box::pin(node.stopped())).collect();
    let (index, reason) = std::future::poll_fn(|cx| {
        for (index, stopped) in waiting.iter_mut().enumerate() {
            if let std::task::Poll::Ready(reason) = stopped.as_mut().poll(cx) {
                return std::task::Poll::Ready((index, reason));
            }
        }
        std::task::Poll::Pending
    })
    .await;
    let reason = reason.map_or_else(|| "without a reason".into(), |reason| reason.to_string());
    format!("n{} stopped: {reason}", index + 1)
}
