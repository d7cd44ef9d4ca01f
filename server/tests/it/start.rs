//! What keeps a node from starting.

use std::path::Path;

use lattice::config::ClusterState;
use lattice::founders::Founders;
use lattice::url::Url;
use lattice::{Config, Listeners, Node};

use crate::cluster::{Cluster, PATIENCE, config};

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

/// The cluster's list, with one more who is not there.
fn longer(cluster: &mut Cluster) -> Founders {
    let founders = cluster.config(0).founders.clone();
    let listed = founders.iter().map(|founder| (founder.name.clone(), founder.peer_urls.clone()));
    let nobody = ("n9".to_owned(), vec!["http://127.0.0.1:1".parse().unwrap()]);
    Founders::new("test", listed.chain([nobody])).unwrap()
}

#[tokio::test]
async fn nodes_whose_list_has_changed_find_each_other_though_nobody_leads() {
    let mut cluster = Cluster::start(3).await;
    let longer = longer(&mut cluster);
    for index in 0..3 {
        cluster.stop(index).await;
    }
    for index in 0..3 {
        let config = cluster.config(index);
        config.founders = longer.clone();
        config.state = ClusterState::Existing;
        cluster.restart(index).await;
    }
    for node in cluster.up() {
        let leader = tokio::time::timeout(PATIENCE, node.leader()).await;
        leader.expect("a leader is found").unwrap();
    }
}

#[tokio::test]
async fn a_node_that_founded_instead_of_joining_is_told_so() {
    let mut cluster = Cluster::start(1).await;
    let directory = tempfile::tempdir().unwrap();
    let mut config = config("n9", longer(&mut cluster), directory.path().into());
    start(config.clone()).await.unwrap().shutdown().await;
    config.state = ClusterState::Existing;
    let error = start(config).await.unwrap_err();
    assert!(error.contains("is to join, with an empty directory"), "{error}");
}

#[tokio::test]
async fn a_directory_in_another_members_place_is_refused() {
    let mut cluster = Cluster::start(2).await;
    cluster.stop(0).await;
    cluster.stop(1).await;
    let mut swapped = cluster.config(1).clone();
    swapped.data_dir.clone_from(&cluster.config(0).data_dir);
    swapped.state = ClusterState::Existing;
    let error = start(swapped).await.unwrap_err();
    assert!(error.contains("n2 with its peer URLs is another member"), "{error}");
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
