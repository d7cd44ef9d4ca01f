//! What keeps a node from starting.

use std::path::Path;

use lattice::config::ClusterState;
use lattice::founders::Founders;
use lattice::url::Url;
use lattice::{Config, Listeners, Node};

use crate::cluster::config;

fn founders(token: &str) -> Founders {
    let members = ["n1=http://127.0.0.1:1", "n2=http://127.0.0.1:2", "n3=http://127.0.0.1:3"];
    Founders::parse(token, members).unwrap()
}

async fn start(config: Config) -> Result<Node, String> {
    let listeners = Listeners::loopback().unwrap();
    Node::start_on(config, listeners).await.map_err(|error| error.to_string())
}

async fn made(directory: &Path) {
    let node = start(config("n1", founders("a"), directory.into())).await.unwrap();
    node.shutdown().await;
}

#[tokio::test]
async fn a_directory_that_is_in_use_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let same = || config("n1", founders("a"), directory.path().into());
    let node = start(same()).await.unwrap();
    let error = start(same()).await.unwrap_err();
    assert!(error.contains("in use by another process"), "{error}");
    node.shutdown().await;
    start(same()).await.unwrap().shutdown().await;
}

#[tokio::test]
async fn another_nodes_directory_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    made(directory.path()).await;
    let error = start(config("n2", founders("a"), directory.path().into())).await.unwrap_err();
    assert!(error.contains("belongs to node"), "{error}");
}

#[tokio::test]
async fn another_clusters_directory_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    made(directory.path()).await;
    let error = start(config("n1", founders("b"), directory.path().into())).await.unwrap_err();
    assert!(error.contains("belongs to cluster"), "{error}");
}

#[tokio::test]
async fn a_foreign_directory_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("thesis.tex"), "…").unwrap();
    let error = start(config("n1", founders("a"), directory.path().into())).await.unwrap_err();
    assert!(error.contains("thesis.tex"), "{error}");
    assert!(directory.path().join("thesis.tex").exists());
}

#[tokio::test]
async fn an_existing_member_without_its_data_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let existing = || {
        let mut config = config("n1", founders("a"), directory.path().into());
        config.state = ClusterState::Existing;
        config
    };
    let error = start(existing()).await.unwrap_err();
    assert!(error.contains("no listed member says who is in it"), "{error}");
    made(directory.path()).await;
    start(existing()).await.unwrap().shutdown().await;
}

#[tokio::test]
async fn an_address_that_is_taken_is_named() {
    let directory = tempfile::tempdir().unwrap();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let mut config = config("n1", founders("a"), directory.path().into());
    let url = Url::of(taken.local_addr().unwrap());
    config.listen_client = vec![url.clone()];
    let error = Node::start(config).await.unwrap_err().to_string();
    assert_eq!(error, format!("cannot listen on {url} (--listen-client-urls)"));
}

#[tokio::test]
async fn a_port_that_becomes_free_in_a_moment_is_waited_for() {
    let taken = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let address = taken.local_addr().unwrap();
    let directory = tempfile::tempdir().unwrap();
    let mut config = config("n1", founders("a"), directory.path().into());
    config.listen_client = vec![Url::of(address)];
    let bound = tokio::spawn(async move { Listeners::bind(&config).await });
    // On this single-threaded runtime the first try is over when this task runs again.
    tokio::task::yield_now().await;
    assert!(!bound.is_finished());
    drop(taken);
    let listeners = bound.await.unwrap().unwrap();
    assert_eq!(listeners.client_urls().unwrap(), [Url::of(address)]);
}
