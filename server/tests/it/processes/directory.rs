//! Data directories that a node must not use: the process ends, says why, and touches nothing.

use super::can_run;
use super::nodes::{Processes, Served};

/// Starts the node, which must end by itself; returns its exit code and its log.
async fn refused(node: &mut Served) -> (Option<i32>, String) {
    node.start();
    let code = node.ended().await.code();
    // The words with which the program ends; the logs before it may speak of errors too.
    let said = node.says("error: the node does not start").await;
    (code, said)
}

/// Changes the value of an argument.
fn set(node: &mut Served, name: &str, value: &str) {
    let prefix = format!("--{name}=");
    node.args.retain(|arg| !arg.starts_with(&prefix));
    node.args.push(format!("{prefix}{value}"));
}

#[tokio::test]
async fn a_directory_in_use_is_refused_and_its_owner_goes_on() {
    let mut cluster = Processes::start(1).await;
    let directory = cluster.nodes[0].data_dir.display().to_string();
    let mut other = Processes::new(1);
    set(&mut other.nodes[0], "data-dir", &directory);
    let (code, said) = refused(&mut other.nodes[0]).await;
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("in use by another process"), "{said}");
    assert_eq!(cluster.leader().await, 0);
    // The lock goes with its owner, however that ends.
    cluster.nodes[0].kill();
    cluster.nodes[0].start();
    assert_eq!(cluster.leader().await, 0);
}

#[tokio::test]
async fn another_nodes_directory_is_refused() {
    let mut cluster = Processes::start(3).await;
    cluster.nodes[0].kill();
    cluster.nodes[1].kill();
    let directory = cluster.nodes[0].data_dir.display().to_string();
    set(&mut cluster.nodes[1], "data-dir", &directory);
    let (code, said) = refused(&mut cluster.nodes[1]).await;
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("belongs to node"), "{said}");
}

#[tokio::test]
async fn another_clusters_directory_is_refused() {
    let mut cluster = Processes::start(1).await;
    cluster.nodes[0].kill();
    set(&mut cluster.nodes[0], "initial-cluster-token", "another");
    let (code, said) = refused(&mut cluster.nodes[0]).await;
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("belongs to cluster"), "{said}");
    assert!(said.contains("--initial-cluster-state=existing"), "{said}");
}

#[tokio::test]
async fn a_read_only_directory_is_refused() {
    if !can_run("unshare", &["--user", "--map-root-user", "--mount", "true"]) {
        return;
    }
    let mut cluster = Processes::new(1);
    let directory = cluster.directory().join("read-only");
    std::fs::create_dir(&directory).unwrap();
    let node = &mut cluster.nodes[0];
    set(node, "data-dir", &directory.join("data").display().to_string());
    // A file system of the node's own: root may write to any other.
    let mount =
        format!("mount -t tmpfs -o ro none '{}' && exec \"$0\" \"$@\"", directory.display());
    node.wrapper = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", &mount]
        .map(str::to_owned)
        .to_vec();
    let (code, said) = refused(node).await;
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("Read-only file system"), "{said}");
    assert!(said.contains("read-only/data"), "names the directory: {said}");
}
