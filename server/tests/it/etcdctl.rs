//! etcd's own command line against this server. Skipped, with a word, where it is not installed; `LATTICE_REQUIRE_TOOLS=1`
//! makes that a failure.

use std::process::Command;

use crate::cluster::Cluster;

fn is_installed() -> bool {
    let installed = Command::new("etcdctl").arg("version").output().is_ok();
    if !installed {
        let required = std::env::var("LATTICE_REQUIRE_TOOLS").is_ok_and(|value| value == "1");
        assert!(!required, "etcdctl is required and not installed");
        println!("skipped: etcdctl is not installed");
    }
    installed
}

async fn run(endpoint: &str, args: &[&str]) -> std::process::Output {
    tokio::process::Command::new("etcdctl")
        .env("ETCDCTL_API", "3")
        .arg("--endpoints")
        .arg(endpoint)
        .args(args)
        .output()
        .await
        .unwrap()
}

/// What it says when it is refused.
async fn refused(endpoint: &str, args: &[&str]) -> String {
    let output = run(endpoint, args).await;
    assert!(!output.status.success(), "etcdctl {args:?} succeeds");
    String::from_utf8_lossy(&output.stderr).into_owned()
}

async fn etcdctl(endpoint: &str, args: &[&str]) -> String {
    let output = run(endpoint, args).await;
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "etcdctl {args:?}: {error}");
    String::from_utf8(output.stdout).unwrap()
}

#[tokio::test]
async fn etcdctl_reads_and_writes_on_any_node() {
    if !is_installed() {
        return;
    }
    let cluster = Cluster::start(3).await;
    let endpoints: Vec<String> = cluster.urls().iter().map(ToString::to_string).collect();
    for (index, endpoint) in endpoints.iter().enumerate() {
        let key = format!("dir/key{index}");
        assert_eq!(etcdctl(endpoint, &["put", &key, "value"]).await, "OK\n");
        for other in &endpoints {
            assert_eq!(etcdctl(other, &["get", &key]).await, format!("{key}\nvalue\n"));
        }
    }
    let listed = etcdctl(&endpoints[1], &["get", "dir/", "--prefix", "--keys-only"]).await;
    assert_eq!(listed.split_whitespace().count(), 3, "{listed}");
    assert_eq!(etcdctl(&endpoints[2], &["del", "dir/", "--prefix"]).await, "3\n");
    let all = endpoints.join(",");
    let status = etcdctl(&all, &["endpoint", "status"]).await;
    assert_eq!(status.lines().count(), 3, "{status}");
    assert_eq!(status.matches(", true,").count(), 1, "one leads: {status}");
    let status = etcdctl(&endpoints[0], &["endpoint", "status", "--cluster"]).await;
    assert_eq!(status.lines().count(), 3, "{status}");
    let members = etcdctl(&endpoints[0], &["member", "list"]).await;
    assert_eq!(members.matches("started").count(), 3, "{members}");
}

#[tokio::test]
async fn etcdctl_changes_the_members() {
    if !is_installed() {
        return;
    }
    let cluster = Cluster::start(3).await;
    let endpoints: Vec<String> = cluster.urls().iter().map(ToString::to_string).collect();
    let all = endpoints.join(",");
    for endpoint in &endpoints {
        // Nobody is there under this address: a learner that has not started.
        let url = "--peer-urls=http://127.0.0.1:9";
        let added = etcdctl(endpoint, &["member", "add", "n4", url, "--learner"]).await;
        let id = added.split_whitespace().nth(1).unwrap().to_owned();
        let listed = etcdctl(endpoint, &["member", "list"]).await;
        let new = listed.lines().find(|line| line.starts_with(&id)).unwrap();
        assert_eq!(new, format!("{id}, unstarted, , http://127.0.0.1:9, , true"));
        for (args, text) in [
            (&["member", "add", "n5", url][..], "etcdserver: Peer URLs already exists"),
            (
                &["member", "promote", &id],
                "etcdserver: can only promote a learner member which is in sync with leader",
            ),
            (&["member", "remove", "1"], "etcdserver: member not found"),
        ] {
            let told = refused(endpoint, args).await;
            assert!(told.contains(text), "{args:?}: {told}");
        }
        etcdctl(endpoint, &["member", "update", &id, "--peer-urls=http://127.0.0.1:10"]).await;
        let listed = etcdctl(endpoint, &["member", "list"]).await;
        assert!(listed.contains("http://127.0.0.1:10, , true"), "{listed}");
        etcdctl(endpoint, &["member", "remove", &id]).await;
        let listed = etcdctl(endpoint, &["member", "list"]).await;
        assert_eq!(listed.lines().count(), 3, "{listed}");
    }
    let leader = cluster.leader().unwrap();
    let next = (leader + 1) % 3;
    let id = format!("{:x}", cluster.nodes[next].as_ref().unwrap().id().0);
    let told = etcdctl(&all, &["move-leader", &id]).await;
    assert!(told.contains("Leadership transferred"), "{told}");
}
